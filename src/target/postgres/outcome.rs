//! What became of a COMMIT whose answer was lost.

use std::time::Duration;

use super::connect::Connector;
use crate::error::{Error, Result};

/// How long the server is asked.
const PATIENCE: Duration = Duration::from_mins(2);

/// Whether the transaction of a run was committed: its row in `delta.run` is written in the same transaction.
///
/// # Errors
/// Where it was not, and where nobody can tell.
pub(super) async fn resolve(connector: &Connector, run: &str, transaction: &str) -> Result<()> {
    let begun = std::time::Instant::now();
    let mut why = Error::internal("nobody was asked");
    while begun.elapsed() < PATIENCE {
        match ask(connector, run, transaction).await {
            Ok(Outcome::Committed) => return Ok(()),
            Ok(Outcome::Gone) => {
                return Err(Error::unreachable("the connection was cut before the commit")
                    .hint("nothing was loaded; run again"));
            }
            Ok(Outcome::Open) => {}
            Ok(Outcome::Unknown) => break,
            Err(error) => why = error,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(Error::interrupted(format!(
        "the connection was cut during the commit, and whether run {run} was loaded is not known: {why}"
    ))
    .hint(format!("when the server answers again, `pipeline runs` lists run {run} if it was loaded")))
}

enum Outcome {
    Committed,
    Gone,
    Open,
    Unknown,
}

async fn ask(connector: &Connector, run: &str, transaction: &str) -> Result<Outcome> {
    let doing = "cannot ask whether the run was committed";
    let session = super::begin_session(connector, doing).await?;
    let fault = |error| connector.explain(doing, &error);
    // The transaction first: one that ends between the two questions has left its row.
    let status = session.query_one("SELECT pg_xact_status($1::text::xid8)", &[&transaction]).await.map_err(fault)?;
    let status: Option<String> = status.get(0);
    let there = session.query_opt("SELECT FROM delta.run WHERE id = $1", &[&run]).await.map_err(fault)?;
    Ok(match (there, status.as_deref()) {
        (Some(_), _) => Outcome::Committed,
        (None, Some("aborted")) => Outcome::Gone,
        (None, Some("in progress")) => Outcome::Open,
        _ => Outcome::Unknown,
    })
}
