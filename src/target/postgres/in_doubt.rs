//! The outcome of a COMMIT whose answer was lost.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::connect::Connector;
use crate::error::{Error, Result};

const PATIENCE: Duration = Duration::from_mins(2);

/// Returns whether the transaction of a run was committed: its row in `delta.run` is written in the same transaction. Without a transaction
/// id, the transaction has surely ended, because the caller holds the lock that its session had.
///
/// # Errors
/// If the outcome cannot be determined.
pub(super) async fn committed(connector: &Connector, run: &str, transaction: Option<&str>) -> Result<bool> {
    let begun = std::time::Instant::now();
    let mut why = Error::internal("the outcome of the commit was not queried");
    while begun.elapsed() < PATIENCE {
        match ask(connector, run, transaction).await {
            Ok(Outcome::Committed) => return Ok(true),
            Ok(Outcome::Gone) => return Ok(false),
            Ok(Outcome::Open) => {}
            Ok(Outcome::Unknown) => break,
            Err(error) => why = error,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(Error::interrupted(format!(
        "the connection was lost during the commit, so the outcome of run {run} is not known: {why}"
    ))
    .hint(format!(
        "when the server is reachable again, run `pipeline resume FILE {run}`: it continues unless the run was committed"
    )))
}

enum Outcome {
    Committed,
    Gone,
    Open,
    Unknown,
}

async fn ask(connector: &Connector, run: &str, transaction: Option<&str>) -> Result<Outcome> {
    let doing = "cannot determine whether the run was committed";
    let session = super::begin_session(connector, doing).await?;
    let fault = |error| connector.explain(doing, &error);
    // Queries the transaction first: if it ends between the two queries, its row is visible to the second.
    let status = match session.query_one("SELECT pg_xact_status($1::text::xid8)", &[&transaction]).await {
        Ok(row) => row.get::<_, Option<String>>(0),
        // The id lies in the future, so the server crashed before anything of the transaction reached its disk.
        Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => Some("aborted".to_owned()),
        Err(error) => return Err(fault(error)),
    };
    let there = session.query_opt("SELECT FROM delta.run WHERE id = $1", &[&run]).await.map_err(fault)?;
    Ok(match (there, status.as_deref()) {
        (Some(_), _) => Outcome::Committed,
        (None, Some("aborted")) => Outcome::Gone,
        (None, None) if transaction.is_none() => Outcome::Gone,
        (None, Some("in progress")) => Outcome::Open,
        _ => Outcome::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::LoadSpec;
    use crate::target::postgres::connect::Session;
    use crate::target::postgres::server::Server;

    /// Inserts a run in a transaction that stays open, and returns its id.
    async fn insert_open_run(session: &Session, run: &str) -> String {
        session.batch_execute(&format!("BEGIN; INSERT INTO delta.run VALUES ('{run}')")).await.unwrap();
        session.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0)
    }

    #[tokio::test]
    async fn a_commit_whose_answer_is_lost_is_found_out() {
        let database = Server::shared().database("CREATE SCHEMA delta; CREATE TABLE delta.run (id text PRIMARY KEY)");
        let connector = Connector::try_new(&database.url(), "test", Path::new(""), &LoadSpec::default()).unwrap();
        let session = connector.connect("cannot open").await.unwrap();
        let gone = insert_open_run(&session, "gone").await;
        session.batch_execute("ROLLBACK").await.unwrap();
        assert!(!committed(&connector, "gone", Some(&gone)).await.unwrap());
        assert!(!committed(&connector, "lost", Some("4000000000")).await.unwrap());
        let done = insert_open_run(&session, "done").await;
        session.batch_execute("COMMIT").await.unwrap();
        assert!(committed(&connector, "done", Some(&done)).await.unwrap());
        // A transaction in progress is waited for.
        let open = insert_open_run(&session, "open").await;
        let (found, ended) =
            futures::join!(committed(&connector, "open", Some(&open)), session.batch_execute("COMMIT"));
        ended.unwrap();
        assert!(found.unwrap());
    }
}
