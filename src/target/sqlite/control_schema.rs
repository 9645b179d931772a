//! The control tables in the file: runs, journals, loaded files, and reserved keys.

use rusqlite::{Connection, OptionalExtension, Row};

use super::Names;
use super::object_registry::{self, own_table_exists};
use crate::error::{Error, Result};
use crate::journal::{FileHash, Record, RunId};
use crate::target::migration::Migration;
use crate::target::{Journals, LoadedFile, RunHeader, RunRecord};

/// The changes of the control tables, in order; the first has version 1.
const MIGRATIONS: &[Migration] =
    &[Migration { name: "control_tables", sql: include_str!("migrations/0001_control_tables.sql") }];

/// Creates or upgrades the control tables, inside a transaction.
pub(super) fn make(connection: &Connection, names: &Names) -> Result<()> {
    object_registry::refuse_taken(connection, names, &[])?;
    let fault = |error| names.error("cannot make the control tables in", &error);
    object_registry::make_register(connection).map_err(fault)?;
    object_registry::register(connection, object_registry::MIGRATION).map_err(fault)?;
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS main.delta_migration (
                 version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TEXT NOT NULL)",
        )
        .map_err(fault)?;
    let known = MIGRATIONS.len() as i64;
    let sql = "SELECT coalesce(max(version), 0) FROM main.delta_migration";
    let newest: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(fault)?;
    if newest > known {
        return Err(Error::pipeline(format!(
            "the control tables of `{}` have version {newest}, which a newer version of this program made; this one knows {known}",
            names.shown
        ))
        .hint("use that version, or a newer one"));
    }
    for (version, migration) in (1_i64..).zip(MIGRATIONS) {
        let applied = "SELECT checksum FROM main.delta_migration WHERE version = ?1";
        let applied: Option<String> =
            connection.query_row(applied, [version], |row| row.get(0)).optional().map_err(fault)?;
        match applied {
            None => apply(connection, version, migration).map_err(fault)?,
            Some(checksum) if checksum == migration.checksum() => {}
            Some(_) => {
                return Err(Error::pipeline(format!(
                    "migration {version} of the control tables of `{}` is not the one of this program",
                    names.shown
                ))
                .hint("use the version of the program that made it"));
            }
        }
    }
    Ok(())
}

fn apply(connection: &Connection, version: i64, migration: &Migration) -> rusqlite::Result<()> {
    connection.execute_batch(migration.sql)?;
    object_registry::CONTROL.iter().try_for_each(|name| object_registry::register(connection, name))?;
    let sql = "INSERT INTO main.delta_migration (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)";
    let at = jiff::Timestamp::now().to_string();
    connection.execute(sql, (version, migration.name, migration.checksum(), at)).map(|_| ())
}

/// Creates or upgrades the control tables in a separate transaction.
pub(super) fn make_alone(connection: &Connection, names: &Names) -> Result<()> {
    alone(connection, names, "cannot make the control tables in", || make(connection, names))
}

pub(super) fn append_event(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    let sql = "INSERT INTO main.delta_event (run, number, kind, entry, chain) VALUES (?1, ?2, ?3, ?4, ?5)";
    let Record { run, number, kind, entry, chain } = record;
    connection.prepare_cached(sql)?.execute((run, number, kind, entry, chain)).map(|_| ())
}

/// Appends an entry to a journal in a separate transaction.
pub(super) fn append_event_alone(connection: &Connection, names: &Names, record: &Record) -> Result<()> {
    let doing = "cannot write the journal in";
    alone(connection, names, doing, || {
        make(connection, names)?;
        append_event(connection, record).map_err(|error| names.error(doing, &error))
    })
}

/// Writes in a separate transaction. If other programs' readers block the COMMIT, the transaction stays open, so it is rolled back.
fn alone(connection: &Connection, names: &Names, doing: &str, write: impl FnOnce() -> Result<()>) -> Result<()> {
    let fault = |error: rusqlite::Error| names.error(doing, &error);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(fault)?;
    let written = write().and_then(|()| connection.execute_batch("COMMIT").map_err(fault));
    if written.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").map_err(fault)?;
    }
    written
}

pub(super) fn journal(connection: &Connection, run: &str) -> rusqlite::Result<Vec<Record>> {
    if !own_table_exists(connection, "delta_event")? {
        return Ok(Vec::new());
    }
    let sql = "SELECT run, number, kind, entry, chain FROM main.delta_event WHERE run = ?1 ORDER BY number";
    connection.prepare(sql)?.query_map([run], record)?.collect()
}

/// Returns the journals of the next runs whose ids follow `after`, run by run.
pub(super) fn journals(connection: &Connection, of: Journals, after: &str) -> rusqlite::Result<Vec<Record>> {
    if !own_table_exists(connection, "delta_event")? {
        return Ok(Vec::new());
    }
    let open = match of {
        Journals::All => String::new(),
        Journals::Open => format!(
            " AND NOT EXISTS (SELECT 1 FROM main.delta_event AS x WHERE x.run = e.run AND x.kind IN {})",
            Journals::ENDS
        ),
    };
    let sql = format!(
        "SELECT run, number, kind, entry, chain FROM main.delta_event WHERE run IN (
             SELECT DISTINCT e.run FROM main.delta_event AS e WHERE e.run > ?1{open} ORDER BY e.run LIMIT {})
         ORDER BY run, number",
        Journals::PAGE
    );
    connection.prepare(&sql)?.query_map([after], record)?.collect()
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record { run: row.get(0)?, number: row.get(1)?, kind: row.get(2)?, entry: row.get(3)?, chain: row.get(4)? })
}

pub(super) fn runs(connection: &Connection) -> rusqlite::Result<Vec<RunHeader>> {
    if !own_table_exists(connection, "delta_run")? {
        return Ok(Vec::new());
    }
    let sql = "SELECT id, pipeline, started_at FROM main.delta_run ORDER BY started_at, id";
    let header = |row: &Row<'_>| Ok(RunHeader { id: row.get(0)?, pipeline: row.get(1)?, started_at: row.get(2)? });
    connection.prepare(sql)?.query_map([], header)?.collect()
}

pub(super) fn run(connection: &Connection, id: &str) -> rusqlite::Result<Option<RunRecord>> {
    if !own_table_exists(connection, "delta_run")? {
        return Ok(None);
    }
    let sql = "SELECT id, pipeline, started_at, report FROM main.delta_run WHERE id = ?1";
    let found = connection.query_row(sql, [id], |row| {
        Ok(RunRecord { id: row.get(0)?, pipeline: row.get(1)?, started_at: row.get(2)?, report: row.get(3)? })
    });
    found.optional()
}

/// Returns whether the run's own row exists. It is written in the same transaction as its rows.
pub(super) fn committed(connection: &Connection, run: &str) -> rusqlite::Result<bool> {
    Ok(own_table_exists(connection, "delta_run")?
        && connection.prepare("SELECT 1 FROM main.delta_run WHERE id = ?1")?.exists([run])?)
}

/// Returns which of these files, by table and hash, were loaded by a run that was not rolled back.
pub(super) fn loaded_files(connection: &Connection, files: &[(String, FileHash)]) -> rusqlite::Result<Vec<LoadedFile>> {
    if !own_table_exists(connection, "delta_file")? {
        return Ok(Vec::new());
    }
    let rolled_back = if own_table_exists(connection, "delta_event")? {
        " AND NOT EXISTS (SELECT 1 FROM main.delta_event AS e WHERE e.run = f.run AND e.kind = 'rolled_back')"
    } else {
        ""
    };
    let sql = format!(
        "SELECT hash, table_name, name, run FROM main.delta_file AS f
         WHERE table_name = ?1 AND hash = ?2{rolled_back} ORDER BY run DESC LIMIT 1"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut found = Vec::new();
    for file in files {
        let file = statement.query_row([&*file.0, &*file.1], |row| {
            Ok(LoadedFile {
                hash: row.get::<_, String>(0)?.into(),
                table: row.get(1)?,
                name: row.get(2)?,
                run: row.get(3)?,
            })
        });
        found.extend(file.optional()?);
    }
    Ok(found)
}

impl rusqlite::ToSql for RunId {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok((**self).into())
    }
}

impl rusqlite::types::FromSql for RunId {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        value.as_str().map(Self::from)
    }
}
