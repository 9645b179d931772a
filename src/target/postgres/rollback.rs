//! Taking a run back: all of it is done by functions of the control schema, which look for themselves what is the run's.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error as PgError};

use super::catalog::PgCatalog;
use super::connect::{Connector, Session};
use super::mode;
use super::names::{Names, ROLLBACK};
use crate::engine::ident;
use crate::error::{Error, Result};
use crate::journal::{Record, stop_at};
use crate::target::{Destination, Holding, Obstacle, Survey, TakenBack};

/// A code of our own functions: a run is not taken back.
const REFUSED: &str = "DP003";

/// The legacy keys of a run's rows that are gone.
pub(super) async fn gone(
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
        known.id(names, name).history(),
        table.own_rows(),
        same.join(" AND ")
    );
    Ok(client.query(&sql, &[&run]).await?.iter().map(|row| row.get(0)).collect())
}

/// What a run holds, and what is in the way.
pub(super) async fn survey(connector: &Connector, client: &Client, run: &str) -> Result<Survey> {
    let fault = |error| explain(connector, &error);
    let mut survey = Survey::default();
    let sql = "SELECT table_name, mappings, first_key, last_key, production, triggers FROM delta.holdings($1)";
    for row in client.query(sql, &[&run]).await.map_err(fault)? {
        survey.tables.push(Holding {
            table: row.get(0),
            rows: row.get::<_, i64>(1).unsigned_abs(),
            keys: (row.get(2), row.get(3)),
            production: row.get::<_, i64>(4).unsigned_abs(),
            triggers: row.get(5),
        });
    }
    let sql = "SELECT table_name, what, total, told FROM delta.obstacles($1)";
    for row in client.query(sql, &[&run]).await.map_err(fault)? {
        let total = row.get::<_, i64>(2).unsigned_abs();
        Obstacle::tell(&mut survey.obstacles, row.get(0), row.get(1), total, row.get(3));
    }
    Ok(survey)
}

/// Takes a run back, on the session that holds the lock.
pub(super) async fn take_back(
    connector: &Connector,
    session: &Session,
    record: &Record,
    end_mode: bool,
) -> Result<Vec<TakenBack>> {
    let taken_back = inside(session, record, end_mode).await;
    let taken_back = match taken_back {
        Ok(taken_back) => taken_back,
        Err(error) => {
            session.batch_execute("ROLLBACK").await.ok();
            return Err(explain(connector, &error));
        }
    };
    stop_at("rolling back");
    session.batch_execute("COMMIT").await.map_err(|error| {
        Error::interrupted(format!("whether run {} was taken back is not known: {error}", record.run))
            .hint("all of it was or nothing: `pipeline runs FILE` tells, and to take it back again does no harm")
    })?;
    Ok(taken_back)
}

async fn inside(session: &Session, record: &Record, end_mode: bool) -> Result<Vec<TakenBack>, PgError> {
    let Record { run, number, entry, chain, .. } = record;
    session.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let sql = "SELECT table_name, deleted, mappings, before, after FROM delta.roll_back($1, $2, $3, $4)";
    let rows = session.query(sql, &[run, &number.cast_signed(), entry, chain]).await?;
    if end_mode {
        mode::end_with(session, run).await?;
    }
    let count = |row: &tokio_postgres::Row, at: usize| row.get::<_, i64>(at).unsigned_abs();
    Ok(rows
        .iter()
        .map(|row| TakenBack {
            table: row.get(0),
            deleted: count(row, 1),
            mappings: count(row, 2),
            before: count(row, 3),
            after: count(row, 4),
        })
        .collect())
}

fn explain(connector: &Connector, error: &PgError) -> Error {
    match error.as_db_error() {
        Some(refused) if refused.code().code() == REFUSED => {
            let error = Error::refused(refused.message());
            match refused.hint() {
                Some(hint) => error.hint(hint),
                None => error.hint("`pipeline runs FILE` lists the runs and how they ended; nothing was changed"),
            }
        }
        Some(refused) if refused.code() == &SqlState::FOREIGN_KEY_VIOLATION => {
            let detail = refused.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            Error::refused(format!("production does not let the rows go: {}{detail}", refused.message()))
                .hint("a trigger of production that keeps rows looks like this; nothing was changed")
        }
        Some(_) if mode::is_forbidden(error) => Error::refused(connector.explain("cannot take a run back", error))
            .hint(format!("the owner of the schema `delta` and members of {ROLLBACK} may, and who loads may not")),
        _ => connector.explain("cannot take a run back", error),
    }
}
