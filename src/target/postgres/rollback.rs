//! The rollback of a run. Functions of the control schema do all of it, and determine the run's rows themselves.

use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Error as PgError, Row};

use super::catalog::PgCatalog;
use super::connect::{Connector, Session};
use super::mode;
use super::names::{Names, ROLLBACK};
use super::trigger;
use crate::engine::ident;
use crate::error::{Error, Result};
use crate::failpoint::stop_at;
use crate::journal::Record;
use crate::target::{Destination, RollbackConflict, RollbackPlan, RolledBackTable, RunTable};

/// The error code of the control functions if a run cannot be rolled back.
const REFUSED: &str = "DP003";

/// The error code of the control functions if a trial rollback would succeed.
const TRIED: &str = "DP006";

/// The error code of the control functions if a run cannot be rolled back because of its rows.
const OBSTRUCTED: &str = "DP007";

/// Returns the legacy keys of a run's rows that no longer exist.
pub(super) async fn missing_rows(
    client: &Client,
    known: &PgCatalog,
    names: &Names,
    destination: &Destination,
    run: &str,
) -> Result<Vec<String>, PgError> {
    let name = &destination.table.name;
    let Some(table) = known.tables.get(name) else { return Ok(Vec::new()) };
    let same: Vec<_> = destination
        .key
        .iter()
        .map(|key| format!("p.{0} = h.{0}{1}", ident(key), known.staged_as(name, key).0))
        .collect();
    let sql = format!(
        "SELECT h.legacy_key FROM {} AS h WHERE h.run = $1 AND NOT EXISTS (SELECT FROM {} AS p WHERE {}) ORDER BY 1",
        known.id(names, name).key_map_view(),
        table.own_rows(),
        same.join(" AND ")
    );
    Ok(client.query(&sql, &[&run]).await?.iter().map(|row| row.get(0)).collect())
}

pub(super) async fn run_tables(
    connector: &Connector,
    client: &Client,
    names: &Names,
    run: &str,
) -> Result<Vec<RunTable>> {
    let sql = "SELECT table_name, mappings, first_key, last_key, triggers FROM delta.holdings($1)";
    let rows = client.query(sql, &[&run]).await.map_err(|error| explain(connector, &error))?;
    let holding = |row: &Row| RunTable {
        table: shown(names, row.get(0)),
        rows: row.get::<_, i64>(1).unsigned_abs(),
        keys: (row.get(2), row.get(3)),
        triggers: row.get(4),
    };
    Ok(rows.iter().map(holding).collect())
}

/// Plans a rollback: the run's tables, and conflicts. If triggers would fire, it is tried in a transaction that is rolled back.
pub(super) async fn plan_rollback(
    connector: &Connector,
    client: &Client,
    names: &Names,
    run: &str,
    accepted: &[String],
) -> Result<RollbackPlan> {
    let fault = |error| explain(connector, &error);
    let tables = run_tables(connector, client, names, run).await?;
    let conflicts = conflicts(client, names, run, accepted).await.map_err(fault)?;
    let sql = "SELECT child_name, columns FROM delta.unindexed($1) GROUP BY 1, 2 ORDER BY 1, 2";
    let unindexed = client.query(sql, &[&run]).await.map_err(fault)?;
    let note = |row: &Row| {
        let (child, columns): (String, String) = (row.get(0), row.get(1));
        format!(
            "no index finds the rows of `{child}` by ({columns}): the rollback makes one for its own time, in which other programs do not \
             write to `{child}`"
        )
    };
    let mut notes: Vec<_> = unindexed.iter().map(note).collect();
    if conflicts.is_empty() {
        notes.extend(attempt(client, run, accepted).await.map_err(fault)?);
    }
    Ok(RollbackPlan { tables, conflicts, notes })
}

/// Tries a rollback, which always fails. Returns a note if it would succeed.
async fn attempt(client: &Client, run: &str, accepted: &[String]) -> Result<Option<String>, PgError> {
    let Err(error) = client.execute("SELECT delta.try_roll_back($1, $2)", &[&run, &accepted]).await else {
        return Ok(None);
    };
    let Some(tried) =
        error.as_db_error().filter(|tried| tried.code().code() == TRIED && trigger::function(tried).is_none())
    else {
        return Err(error);
    };
    Ok(tried.detail().filter(|sequences| !sequences.is_empty()).map(|sequences| {
        format!("triggers that this dry run fired may have taken numbers of {sequences}, which are lost")
    }))
}

async fn conflicts(
    client: &Client,
    names: &Names,
    run: &str,
    accepted: &[String],
) -> Result<Vec<RollbackConflict>, PgError> {
    let sql = "SELECT table_name, what, total, samples FROM delta.conflicts($1, $2)";
    let mut conflicts = Vec::new();
    for row in client.query(sql, &[&run, &accepted]).await? {
        let total = row.get::<_, i64>(2).unsigned_abs();
        RollbackConflict::tell(&mut conflicts, &shown(names, row.get(0)), row.get(1), total, row.get(3));
    }
    Ok(conflicts)
}

/// Returns a table's name in the pipeline file: without schema and namespace if they are the file's.
fn shown(names: &Names, table: &str) -> String {
    let own = names.id(&names.production, "").key_map();
    table.strip_prefix(&own).unwrap_or(table).to_owned()
}

/// Rolls a run back, on the session that holds the lock.
pub(super) async fn roll_back_run(
    connector: &Connector,
    session: &Session,
    names: &Names,
    record: &Record,
    end_mode: bool,
    accepted: &[String],
) -> Result<Vec<RolledBackTable>> {
    let run = &record.run;
    let rolled_back = match inside(session, names, record, end_mode, accepted).await {
        Ok(rolled_back) => rolled_back,
        Err(error) => {
            session.batch_execute("ROLLBACK").await.ok();
            if error.code().is_some_and(|code| code.code() == OBSTRUCTED) {
                let conflicts = conflicts(session, names, run, accepted).await;
                let conflicts = conflicts.map_err(|error| explain(connector, &error))?;
                if !conflicts.is_empty() {
                    return Err(RollbackPlan { conflicts, ..RollbackPlan::default() }.refusal(run));
                }
            }
            return Err(explain(connector, &error));
        }
    };
    stop_at("rolling back");
    session.batch_execute("COMMIT").await.map_err(|error| {
        Error::interrupted(format!("cannot determine whether run {run} was rolled back: {error}"))
            .hint("it was rolled back completely or not at all; `pipeline runs FILE` shows which, and repeating the rollback is safe")
    })?;
    Ok(rolled_back)
}

async fn inside(
    session: &Session,
    names: &Names,
    record: &Record,
    end_mode: bool,
    accepted: &[String],
) -> Result<Vec<RolledBackTable>, PgError> {
    let Record { run, number, entry, chain, .. } = record;
    session.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let sql = "SELECT table_name, deleted, mappings FROM delta.roll_back($1, $2, $3, $4, $5)";
    let rows = session.query(sql, &[run, &number.cast_signed(), entry, chain, &accepted]).await?;
    if end_mode {
        mode::end_with(session, run).await?;
    }
    let count = |row: &Row, at: usize| row.get::<_, i64>(at).unsigned_abs();
    let rolled_back = |row: &Row| RolledBackTable {
        table: shown(names, row.get(0)),
        deleted: count(row, 1),
        mappings: count(row, 2),
    };
    Ok(rows.iter().map(rolled_back).collect())
}

fn explain(connector: &Connector, error: &PgError) -> Error {
    match error.as_db_error() {
        Some(refused) if [REFUSED, OBSTRUCTED].contains(&refused.code().code()) => {
            let error = Error::refused(refused.message());
            match refused.hint() {
                Some(hint) => error.hint(hint),
                None => error.hint("`pipeline runs FILE` lists the runs and how they ended; nothing was changed"),
            }
        }
        // An error in production's own code means that production keeps the rows.
        Some(refused) if trigger::function(refused).is_some() => {
            let doing = match deleted_from(refused) {
                Some(table) => format!("cannot delete the run's rows from {table}"),
                None => "cannot roll back the run".to_owned(),
            };
            let error = connector.explain(&doing, error);
            let hint = error.next_step().unwrap_or_default().to_owned();
            Error::refused(&error).hint(hint)
        }
        Some(refused) if refused.code() == &SqlState::FOREIGN_KEY_VIOLATION => {
            let detail = refused.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            Error::refused(format!("production prevents the deletion of the rows: {}{detail}", refused.message()))
                .hint("nothing was changed; check for a trigger of production that suppresses the deletion")
        }
        Some(held) if held.code() == &SqlState::LOCK_NOT_AVAILABLE => Error::unreachable(format!(
            "cannot roll back the run: another session holds a lock that is needed: {}",
            held.message()
        ))
        .hint(
            "nothing was changed; roll back again when that session has ended its transaction, or wait longer with `load.lock_timeout`: \
             `SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity` shows who waits for whom meanwhile",
        ),
        Some(_) if mode::is_forbidden(error) => Error::refused(connector.explain("cannot roll back the run", error))
            .hint(format!(
                "run it as the owner of the schema `delta` or a member of {ROLLBACK}; the loader login may not"
            )),
        _ => connector.explain("cannot roll back the run", error),
    }
}

/// Returns the table whose rows were being deleted, from the context of an error.
fn deleted_from(error: &DbError) -> Option<String> {
    let statement = error.where_()?.lines().find(|line| line.contains(" AS p WHERE p.ctid "))?;
    let (_, table) = statement.split_once("DELETE FROM ")?;
    let (table, _) = table.split_once(" AS p WHERE p.ctid ")?;
    Some(table.strip_prefix("ONLY ").unwrap_or(table).to_owned())
}
