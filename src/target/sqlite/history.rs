//! The key map's history in segments: what one run appended to it for one table. A ledger has them all, so that to know them
//! is not to read the history, and an index finds the mappings of each.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use rusqlite::Connection;

use super::batches::select;
use super::own::{self, own_table_exists};
use super::rollback::CONTENT;
use super::{Names, catalog, rollback};
use crate::engine::{ident, literal};
use crate::error::Result;
use crate::target::{CatalogColumn, Segment};

/// The ledger, and by what the target is told from others.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS delta_segment (
        table_name TEXT NOT NULL, run TEXT NOT NULL, rows INTEGER NOT NULL, PRIMARY KEY (table_name, run));
    CREATE TABLE IF NOT EXISTS delta_target (id TEXT PRIMARY KEY);
    INSERT INTO delta_target (id) SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT 1 FROM delta_target);";

/// Makes the ledger where it is missing, with what histories have that are older than it; inside a transaction.
pub(super) fn make(connection: &Connection) -> rusqlite::Result<()> {
    let is_new = !own_table_exists(connection, "delta_segment")?;
    connection.execute_batch(TABLES)?;
    if is_new {
        for (table, history) in histories(connection)? {
            let columns = own::columns(connection, &history)?;
            let key = columns.into_iter().filter(|name| !["legacy_key", "run", CONTENT].contains(&name.as_str()));
            make_index(connection, &table, &key.map(|name| ident(&name)).collect::<Vec<_>>().join(", "))?;
            connection.execute_batch(&format!("INSERT INTO delta_segment {}", counted(&table, &history)))?;
        }
    }
    Ok(())
}

/// Makes the history of a table where it is missing: `key` names the key's columns, `typed` declares them.
pub(super) fn make_table(connection: &Connection, table: &str, typed: &str, key: &str) -> rusqlite::Result<()> {
    let history = Names::history(table);
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS main.{history} (legacy_key TEXT PRIMARY KEY, {typed}, run TEXT NOT NULL, {CONTENT} INTEGER) WITHOUT ROWID"
    ))?;
    rollback::make_column(connection, &Names::history_name(table))?;
    make_index(connection, table, key)?;
    own::register(connection, &Names::history_name(table))
}

/// Makes the index by which the mappings of a run are found, and the largest key of each run; in place of one of the runs alone.
fn make_index(connection: &Connection, table: &str, key: &str) -> rusqlite::Result<()> {
    let (name, history) = (Names::by_run_name(table), Names::history(table));
    let sql = "SELECT count(*) = 1 FROM pragma_index_info(?1, 'main')";
    let is_old: bool = connection.query_row(sql, [&name], |row| row.get(0))?;
    let index = ident(&name);
    let away = if is_old { format!("DROP INDEX main.{index};") } else { String::new() };
    connection.execute_batch(&format!("{away} CREATE INDEX IF NOT EXISTS main.{index} ON {history} (run, {key})"))?;
    own::register(connection, &name)
}

/// The tables that have a history, and how that is called.
fn histories(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    if !own_table_exists(connection, own::CONTROL[0])? {
        return Ok(Vec::new());
    }
    let prefix = Names::history_name("");
    let mut statement = connection.prepare(
        "SELECT o.name FROM main.delta_object AS o JOIN main.sqlite_schema AS s ON s.name = o.name COLLATE NOCASE
         WHERE s.type = 'table' AND substr(o.name, 1, ?1) = ?2 ORDER BY o.name",
    )?;
    let names = statement.query_map((prefix.len() as i64, &prefix), |row| row.get::<_, String>(0))?;
    names.map(|name| name.map(|name| (name[prefix.len()..].to_owned(), name))).collect()
}

/// SQL that counts the segments of a history by reading it.
fn counted(table: &str, history: &str) -> String {
    format!("SELECT {}, run, count(*) FROM main.{} GROUP BY run", literal(table), ident(history))
}

/// All segments.
pub(super) fn segments(connection: &Connection) -> rusqlite::Result<Vec<Segment>> {
    let ledger = match own_table_exists(connection, "delta_segment")? {
        true => vec!["SELECT table_name, run, rows FROM main.delta_segment".to_owned()],
        // Histories that are older than the ledger, in a file that is only read.
        false => histories(connection)?.iter().map(|(table, history)| counted(table, history)).collect(),
    };
    let mut segments = Vec::new();
    for sql in ledger {
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map([], |row| {
            Ok(Segment { table: row.get(0)?, run: row.get(1)?, rows: row.get::<_, i64>(2)?.unsigned_abs() })
        })?;
        for segment in rows {
            segments.push(segment?);
        }
    }
    segments.sort();
    Ok(segments)
}

/// The mappings of one segment, in order of their legacy keys.
pub(super) fn segment(connection: &Connection, table: &str, run: &str, names: &Names) -> Result<Vec<RecordBatch>> {
    let known = catalog::read(connection, None).map_err(|error| names.unreadable(&error))?;
    let Some(history) = known.table(&Names::history_name(table)) else { return Ok(Vec::new()) };
    let live = known.table(table);
    let is_key = |name: &str| name != "run" && live.is_none_or(|live| live.column(name).is_some());
    let columns = history.columns.iter().filter(|column| column.name == "legacy_key" || is_key(&column.name));
    let schema = Arc::new(Schema::new(columns.map(CatalogColumn::field).collect::<Vec<_>>()));
    let columns: Vec<_> = schema.fields().iter().map(|field| ident(field.name())).collect();
    // By the index of the runs, and not by that of the legacy keys, which has the whole history.
    let sql = format!(
        "SELECT {} FROM main.{} WHERE run = {} ORDER BY +legacy_key",
        columns.join(", "),
        Names::history(table),
        literal(run)
    );
    select(connection, &sql, &schema, names)
}

/// Notes a segment; one without mappings is none, and one that is noted stays as it is.
pub(super) fn note(connection: &Connection, table: &str, run: &str, rows: u64) -> rusqlite::Result<()> {
    if rows > 0 {
        let sql = "INSERT OR IGNORE INTO main.delta_segment (table_name, run, rows) VALUES (?1, ?2, ?3)";
        connection.execute(sql, (table, run, rows as i64))?;
    }
    Ok(())
}

/// The same of one that may have been there in part.
pub(super) fn note_counted(connection: &Connection, table: &str, run: &str) -> rusqlite::Result<()> {
    let sql = format!("SELECT count(*) FROM main.{} WHERE run = ?1", Names::history(table));
    let rows: i64 = connection.query_row(&sql, [run], |row| row.get(0))?;
    note(connection, table, run, rows.unsigned_abs())
}

/// The target's ids, the oldest first.
pub(super) fn identity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    if !own_table_exists(connection, "delta_target")? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare("SELECT id FROM main.delta_target ORDER BY rowid")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Adds an id.
pub(super) fn adopt(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.execute("INSERT OR IGNORE INTO main.delta_target (id) VALUES (?1)", [id]).map(|_| ())
}
