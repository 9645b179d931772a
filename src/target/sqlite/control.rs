//! What this program remembers in the file: the runs, their journals, the files that they loaded and the keys that they were given.

use rusqlite::{Connection, OptionalExtension};

use super::own::{self, own_table_exists};
use super::{Names, history};
use crate::error::Result;
use crate::journal::Record;
use crate::target::LoadedFile;

/// Made where they are missing, by the first run.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS delta_run (
        id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, started_at TEXT NOT NULL, report TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS delta_event (
        run TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, entry TEXT NOT NULL, chain TEXT NOT NULL,
        PRIMARY KEY (run, number));
    CREATE TABLE IF NOT EXISTS delta_file (
        hash TEXT NOT NULL, table_name TEXT NOT NULL, name TEXT NOT NULL, run TEXT NOT NULL REFERENCES delta_run (id),
        PRIMARY KEY (hash, table_name, run));
    CREATE TABLE IF NOT EXISTS delta_block (
        table_name TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, run TEXT NOT NULL,
        PRIMARY KEY (table_name, first));";

/// Makes the control tables where they are missing; inside a transaction.
pub(super) fn make(connection: &Connection, names: &Names) -> Result<()> {
    own::refuse_taken(connection, names, &[])?;
    let made = || -> rusqlite::Result<()> {
        own::make_register(connection)?;
        connection.execute_batch(TABLES)?;
        history::make(connection)?;
        own::CONTROL.iter().try_for_each(|name| own::register(connection, name))
    };
    made().map_err(|error| names.error("cannot make the control tables in", &error))
}

/// The same in a transaction of its own.
pub(super) fn make_alone(connection: &Connection, names: &Names) -> Result<()> {
    alone(connection, names, "cannot make the control tables in", || make(connection, names))
}

/// Adds an entry to a journal.
pub(super) fn note(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    let sql = "INSERT INTO main.delta_event (run, number, kind, entry, chain) VALUES (?1, ?2, ?3, ?4, ?5)";
    let Record { run, number, kind, entry, chain } = record;
    connection.prepare_cached(sql)?.execute((run, number, kind, entry, chain)).map(|_| ())
}

/// The same in a transaction of its own.
pub(super) fn note_alone(connection: &Connection, names: &Names, record: &Record) -> Result<()> {
    let doing = "cannot write the journal in";
    alone(connection, names, doing, || {
        make(connection, names)?;
        note(connection, record).map_err(|error| names.error(doing, &error))
    })
}

/// Writes in a transaction of its own. A COMMIT that other programs' reading stops leaves it open: it is rolled back.
fn alone(connection: &Connection, names: &Names, doing: &str, write: impl FnOnce() -> Result<()>) -> Result<()> {
    let fault = |error: rusqlite::Error| names.error(doing, &error);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(fault)?;
    let written = write().and_then(|()| connection.execute_batch("COMMIT").map_err(fault));
    if written.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").map_err(fault)?;
    }
    written
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
