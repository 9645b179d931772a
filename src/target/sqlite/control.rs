//! What this program remembers in the file: the runs, their journals, the files that they loaded and the keys that they were given.

use rusqlite::{Connection, OptionalExtension};

use super::Names;
use super::own::{self, own_table_exists};
use crate::error::{Error, Result};
use crate::journal::Record;
use crate::target::LoadedFile;
use crate::target::migration::Migration;

/// The changes of the control tables, in order: the first has version 1.
const MIGRATIONS: &[Migration] =
    &[Migration { name: "control_tables", sql: include_str!("migrations/0001_control_tables.sql") }];

/// Makes the control tables, or brings them up to date; inside a transaction.
pub(super) fn make(connection: &Connection, names: &Names) -> Result<()> {
    own::refuse_taken(connection, names, &[])?;
    let fault = |error| names.error("cannot make the control tables in", &error);
    own::make_register(connection).map_err(fault)?;
    own::register(connection, own::MIGRATION).map_err(fault)?;
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
    own::CONTROL.iter().try_for_each(|name| own::register(connection, name))?;
    let sql = "INSERT INTO main.delta_migration (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)";
    let at = jiff::Timestamp::now().to_string();
    connection.execute(sql, (version, migration.name, migration.checksum(), at)).map(|_| ())
}

/// The same in a transaction of its own.
pub(super) fn make_alone(connection: &Connection, names: &Names) -> Result<()> {
    let fault = |error: rusqlite::Error| names.error("cannot make the control tables in", &error);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(fault)?;
    let made = make(connection, names);
    let ended = connection.execute_batch(if made.is_ok() { "COMMIT" } else { "ROLLBACK" }).map_err(fault);
    made.and(ended)
}

/// Adds an entry to a journal.
pub(super) fn note(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    let sql = "INSERT INTO main.delta_event (run, number, kind, entry, chain) VALUES (?1, ?2, ?3, ?4, ?5)";
    let Record { run, number, kind, entry, chain } = record;
    connection.prepare_cached(sql)?.execute((run, number, kind, entry, chain)).map(|_| ())
}

/// The same in a transaction of its own.
pub(super) fn note_alone(connection: &Connection, names: &Names, record: &Record) -> Result<()> {
    let fault = |error: rusqlite::Error| names.error("cannot write the journal in", &error);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(fault)?;
    let noted = make(connection, names).and_then(|()| note(connection, record).map_err(fault));
    let ended = connection.execute_batch(if noted.is_ok() { "COMMIT" } else { "ROLLBACK" }).map_err(fault);
    noted.and(ended)
}

/// The journals of one run or of all, run after run.
pub(super) fn journal(connection: &Connection, run: Option<&str>) -> rusqlite::Result<Vec<Record>> {
    if !own_table_exists(connection, "delta_event")? {
        return Ok(Vec::new());
    }
    let sql = "SELECT run, number, kind, entry, chain FROM main.delta_event
               WHERE ?1 IS NULL OR run = ?1 ORDER BY run, number";
    let mut statement = connection.prepare(sql)?;
    let records = statement.query_map([run], |row| {
        Ok(Record { run: row.get(0)?, number: row.get(1)?, kind: row.get(2)?, entry: row.get(3)?, chain: row.get(4)? })
    })?;
    records.collect()
}

/// Whether the run's own row is there: it is written with its rows.
pub(super) fn committed(connection: &Connection, run: &str) -> rusqlite::Result<bool> {
    Ok(own_table_exists(connection, "delta_run")?
        && connection.prepare("SELECT 1 FROM main.delta_run WHERE id = ?1")?.exists([run])?)
}

/// Which of these files, by table and hash, were loaded by a run that was not rolled back.
pub(super) fn loaded_files(connection: &Connection, files: &[(String, String)]) -> rusqlite::Result<Vec<LoadedFile>> {
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
        let file = statement.query_row([&file.0, &file.1], |row| {
            Ok(LoadedFile { hash: row.get(0)?, table: row.get(1)?, name: row.get(2)?, run: row.get(3)? })
        });
        found.extend(file.optional()?);
    }
    Ok(found)
}
