//! What this program remembers in the file: the runs, their journals, the files that they loaded and the keys that they were given.

use rusqlite::{Connection, OptionalExtension, Row};

use super::own::{self, own_table_exists};
use super::{Names, history};
use crate::error::Result;
use crate::journal::Record;
use crate::target::{Journals, LoadedFile, RunHeader, RunRecord};

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

/// The journal of a run.
pub(super) fn journal(connection: &Connection, run: &str) -> rusqlite::Result<Vec<Record>> {
    if !own_table_exists(connection, "delta_event")? {
        return Ok(Vec::new());
    }
    let sql = "SELECT run, number, kind, entry, chain FROM main.delta_event WHERE run = ?1 ORDER BY number";
    connection.prepare(sql)?.query_map([run], record)?.collect()
}

/// The journals of the next runs whose ids follow `after`, run after run.
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

/// The runs, oldest first.
pub(super) fn runs(connection: &Connection) -> rusqlite::Result<Vec<RunHeader>> {
    if !own_table_exists(connection, "delta_run")? {
        return Ok(Vec::new());
    }
    let sql = "SELECT id, pipeline, started_at FROM main.delta_run ORDER BY started_at, id";
    let header = |row: &Row<'_>| Ok(RunHeader { id: row.get(0)?, pipeline: row.get(1)?, started_at: row.get(2)? });
    connection.prepare(sql)?.query_map([], header)?.collect()
}

/// A run with its report.
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
