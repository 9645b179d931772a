//! The writer lock of a database: an advisory lock of the session that later inserts. If that session is lost, so is the lock, and no other
//! session can insert for its run.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_postgres::Error as PgError;

use super::BEGIN;
use super::connect::{Connector, Session, two_sessions};
use super::names::Names;
use crate::engine::literal;
use crate::error::{Error, Result};
use crate::journal::RunId;

const LOCK: &str = "7305516410";

/// The sessions of a writer, while they open.
pub(super) type Opening = JoinHandle<Result<(Session, Session)>>;

/// Opens the session for the lock, and another one for the load, in the background.
pub(super) fn open(connector: &Arc<Connector>) -> Opening {
    let connector = connector.clone();
    tokio::spawn(async move { two_sessions(&connector, || super::begin_session(&connector, BEGIN)).await })
}

/// Takes the lock for a run.
///
/// # Errors
/// If the sessions cannot be opened. If another session has the lock, the error names its run and start time.
pub(super) async fn take(
    connector: &Connector,
    names: &Names,
    run: &RunId,
    opening: Opening,
) -> Result<(Arc<Session>, Session)> {
    let (session, other) = opening.await.map_err(Error::internal)??;
    let fault = |error| connector.explain(BEGIN, &error);
    // The only text that other sessions see of this one; the server keeps 63 bytes of it.
    session.batch_execute(&format!("SET application_name = {}", literal(&run.lock_name()))).await.map_err(fault)?;
    let sql = format!("SELECT pg_try_advisory_lock({LOCK})");
    if session.query_one(&sql, &[]).await.map_err(fault)?.get(0) {
        return Ok((Arc::new(session), other));
    }
    let holder = session.query_opt(&holder_sql(), &[]).await.map_err(fault)?;
    let holder = holder.map_or("another run".to_owned(), |row| {
        let (pid, name, login): (i32, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
        format!("{name}, by the login `{}` (server process {pid})", login.unwrap_or_default())
    });
    Err(Error::unreachable(format!("{holder} is loading into `{}` now", names.shown)).hint("run again when it is done"))
}

fn holder_sql() -> String {
    format!(
        "SELECT a.pid, a.application_name, a.usename FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND (l.classid::bigint << 32) | l.objid::bigint = {LOCK}"
    )
}

/// Returns the run that holds the lock; None without a holder.
pub(super) async fn holder(session: &Session) -> Result<Option<RunId>, PgError> {
    let row = session.query_opt(&holder_sql(), &[]).await?;
    Ok(row.and_then(|row| RunId::of_lock_name(row.get(1))))
}

/// Releases the lock, so that the next run need not wait until the server notices the lost session.
pub(super) async fn release(session: &Session) {
    session.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK})")).await.ok();
}
