//! The key map in segments: the mappings that one run appended for one table. A ledger lists them, so they can be enumerated without
//! scanning the key map, and an index finds the mappings of each.
//!
//! A mapping has its segment's number, because that is short. The view `delta_key_map_x` shows the run instead.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rusqlite::Connection;

use super::object_registry::{self, own_table_exists};
use super::pages::Pages;
use super::rollback::CONTENT;
use super::{Names, catalog};
use crate::engine::{ident, literal};
use crate::error::Result;
use crate::target::{CatalogColumn, CatalogTable, Segment};

/// The table with a key map's mappings.
pub(super) struct KeyMapTable {
    key_map: String,
    pub(super) name: String,
}

impl KeyMapTable {
    /// Returns the table of a key map; None if it does not exist.
    pub(super) fn of(connection: &Connection, key_map: &str) -> rusqlite::Result<Option<Self>> {
        let name = Names::mappings_name(key_map);
        Ok(own_table_exists(connection, &name)?.then(|| Self { key_map: key_map.to_owned(), name }))
    }

    /// Returns its qualified name in SQL.
    pub(super) fn place(&self) -> String {
        format!("main.{}", ident(&self.name))
    }

    /// Returns SQL that tests whether a mapping `h` belongs to the run that `run` evaluates to.
    pub(super) fn of_run(&self, run: &str) -> String {
        format!("h.segment = {}", segment_number(&literal(&self.key_map), run))
    }

    /// Returns the schema of the view, which has the run in place of its segment's number.
    pub(super) fn schema(there: &CatalogTable) -> SchemaRef {
        let run = Arc::new(Field::new("run", DataType::Utf8, false));
        Arc::new(Schema::new(there.schema().fields().iter().cloned().chain([run]).collect::<Vec<_>>()))
    }

    pub(super) fn key(&self, connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let columns = object_registry::columns(connection, &self.name)?.into_iter();
        Ok(columns.filter(|name| !["legacy_key", "run", "segment", CONTENT].contains(&name.as_str())).collect())
    }
}

/// Returns SQL for the segment number of a key map and run, both given as SQL; NULL if it is not recorded.
fn segment_number(key_map: &str, run: &str) -> String {
    format!("(SELECT number FROM main.delta_segment WHERE key_map = {key_map} AND run = {run})")
}

/// Creates the key map of a table if it is missing: `key` names the key's columns, `typed` declares them.
pub(super) fn make_table(connection: &Connection, key_map: &str, typed: &str, key: &[String]) -> rusqlite::Result<()> {
    make_mappings(connection, key_map, typed, key)?;
    make_view(connection, key_map, key)
}

fn make_mappings(connection: &Connection, key_map: &str, typed: &str, key: &[String]) -> rusqlite::Result<()> {
    let (mappings, by_run) = (Names::mappings_name(key_map), Names::by_run_name(key_map));
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS main.{0} (
             legacy_key TEXT PRIMARY KEY, {typed}, segment INTEGER NOT NULL, {CONTENT} INTEGER) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS main.{1} ON {0} (segment, {2});",
        ident(&mappings),
        ident(&by_run),
        idents(key).join(", ")
    ))?;
    object_registry::register(connection, &mappings)?;
    object_registry::register(connection, &by_run)
}

fn make_view(connection: &Connection, key_map: &str, key: &[String]) -> rusqlite::Result<()> {
    let key: Vec<_> = idents(key).into_iter().map(|name| format!("m.{name}")).collect();
    connection.execute_batch(&format!(
        "CREATE VIEW IF NOT EXISTS main.{} AS SELECT m.legacy_key, {},
             (SELECT s.run FROM delta_segment AS s WHERE s.number = m.segment) AS run, m.{CONTENT} FROM {} AS m",
        Names::key_map_view(key_map),
        key.join(", "),
        Names::mappings(key_map)
    ))?;
    object_registry::register(connection, &Names::key_map_view_name(key_map))
}

fn idents(names: &[String]) -> Vec<String> {
    names.iter().map(|name| ident(name)).collect()
}

pub(super) fn segments(connection: &Connection, names: &Names) -> rusqlite::Result<Vec<Segment>> {
    if !own_table_exists(connection, "delta_segment")? {
        return Ok(Vec::new());
    }
    let mut statement = connection
        .prepare("SELECT key_map, run, rows FROM main.delta_segment WHERE key_map = ?1 || table_name ORDER BY 2, 1")?;
    let rows = statement.query_map([names.scope()], |row| {
        Ok(Segment { table: row.get(0)?, run: row.get(1)?, rows: row.get::<_, i64>(2)?.unsigned_abs() })
    })?;
    rows.collect()
}

/// Returns the mappings of one segment, in order of their legacy keys.
pub(super) fn segment(connection: &Connection, key_map: &str, run: &str, names: &Names) -> Result<Option<Pages>> {
    let fault = |error| names.error("cannot read the key map of", &error);
    let Some(history) = KeyMapTable::of(connection, key_map).map_err(fault)? else { return Ok(None) };
    let read = |name: &str| catalog::read_table(connection, name).map_err(|error| names.unreadable(&error));
    let Some(there) = read(&history.name)? else { return Ok(None) };
    let live = read(key_map.strip_prefix(&names.scope()).unwrap_or(key_map))?;
    let mut columns = history.key(connection).map_err(fault)?;
    columns.retain(|name| live.as_ref().is_none_or(|live| live.column(name).is_some()));
    columns.insert(0, "legacy_key".to_owned());
    let fields = columns.iter().filter_map(|name| there.column(name)).map(CatalogColumn::field);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns: Vec<_> = schema.fields().iter().map(|field| ident(field.name())).collect();
    // Uses the index on segments, because the one on legacy keys covers the whole key map.
    let sql = format!(
        "SELECT {} FROM {} AS h WHERE {} ORDER BY +legacy_key",
        columns.join(", "),
        history.place(),
        history.of_run(&literal(run))
    );
    Pages::of_query(connection, &sql, schema).map(Some).map_err(fault)
}

/// Returns the number of a segment, or the next free one for a segment that is not recorded.
pub(super) fn number(connection: &Connection, key_map: &str, run: &str) -> rusqlite::Result<i64> {
    let sql = format!(
        "SELECT coalesce({}, (SELECT coalesce(max(number), 0) + 1 FROM main.delta_segment))",
        segment_number("?1", "?2")
    );
    connection.query_row(&sql, [key_map, run], |row| row.get(0))
}

/// Records a segment. An empty segment is not recorded, and an existing one stays unchanged.
pub(super) fn record(connection: &Connection, table: &CatalogTable, run: &str, rows: u64) -> rusqlite::Result<()> {
    if rows > 0 {
        let number = number(connection, &table.key_map, run)?;
        let sql = "INSERT OR IGNORE INTO main.delta_segment (number, key_map, table_name, run, rows) VALUES (?1, ?2, ?3, ?4, ?5)";
        connection.execute(sql, (number, &table.key_map, &table.name, run, rows as i64))?;
    }
    Ok(())
}

/// Records a segment that may already exist in part, with counted mappings.
pub(super) fn record_counted(connection: &Connection, table: &CatalogTable, run: &str) -> rusqlite::Result<()> {
    let sql = format!("SELECT count(*) FROM main.{} WHERE segment = ?1", Names::mappings(&table.key_map));
    let number = number(connection, &table.key_map, run)?;
    let rows: i64 = connection.query_row(&sql, [number], |row| row.get(0))?;
    record(connection, table, run, rows.unsigned_abs())
}

pub(super) fn identity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    if !own_table_exists(connection, "delta_target")? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare("SELECT id FROM main.delta_target ORDER BY rowid")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn adopt(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.execute("INSERT OR IGNORE INTO main.delta_target (id) VALUES (?1)", [id]).map(|_| ())
}
