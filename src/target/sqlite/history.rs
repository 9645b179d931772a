//! The key map's history in segments: what one run appended to it for one table. A ledger has them all, so that to know them
//! is not to read the history, and an index finds the mappings of each.
//!
//! A mapping has its segment's number, which is short, where people see the run: `delta_key_map_x` is a view.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rusqlite::Connection;

use super::own::{self, own_table_exists};
use super::pages::Pages;
use super::rollback::CONTENT;
use super::{Names, catalog};
use crate::engine::{ident, literal};
use crate::error::Result;
use crate::target::{CatalogColumn, CatalogTable, Segment};

/// The ledger, and by what the target is told from others.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS delta_segment (
        number INTEGER PRIMARY KEY, table_name TEXT NOT NULL, run TEXT NOT NULL, rows INTEGER NOT NULL, UNIQUE (table_name, run));
    CREATE TABLE IF NOT EXISTS delta_target (id TEXT PRIMARY KEY);
    INSERT INTO delta_target (id) SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT 1 FROM delta_target);";

/// Where the mappings of a table are.
pub(super) struct History {
    table: String,
    pub(super) name: String,
    /// One that an older version made, in a file that is only read: it has the runs themselves.
    pub(super) is_old: bool,
}

impl History {
    /// That of a table; None where it has none.
    pub(super) fn of(connection: &Connection, table: &str) -> rusqlite::Result<Option<Self>> {
        for (name, is_old) in [(Names::mappings_name(table), false), (Names::history_name(table), true)] {
            if own_table_exists(connection, &name)? {
                return Ok(Some(Self { table: table.to_owned(), name, is_old }));
            }
        }
        Ok(None)
    }

    /// SQL: its place.
    pub(super) fn place(&self) -> String {
        format!("main.{}", ident(&self.name))
    }

    /// SQL: a mapping `h` is of the run that this SQL gives.
    pub(super) fn of_run(&self, run: &str) -> String {
        if self.is_old {
            format!("h.run = {run}")
        } else {
            format!("h.segment = {}", noted(&literal(&self.table), run))
        }
    }

    /// What people see of it, with the run in any case.
    pub(super) fn schema(&self, there: &CatalogTable) -> SchemaRef {
        let run = (!self.is_old).then(|| Arc::new(Field::new("run", DataType::Utf8, false)));
        let fields: Vec<_> = there.schema().fields().iter().cloned().chain(run).collect();
        Arc::new(Schema::new(fields))
    }

    /// The key's columns.
    pub(super) fn key(&self, connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let columns = own::columns(connection, &self.name)?.into_iter();
        Ok(columns.filter(|name| !["legacy_key", "run", "segment", CONTENT].contains(&name.as_str())).collect())
    }
}

/// SQL: the number of the segment of a table and run, both as SQL; NULL where it is not noted.
fn noted(table: &str, run: &str) -> String {
    format!("(SELECT number FROM main.delta_segment WHERE table_name = {table} AND run = {run})")
}

/// Makes the ledger where it is missing, and takes over what older versions made; inside a transaction.
pub(super) fn make(connection: &Connection) -> rusqlite::Result<()> {
    let older = older(connection)?;
    if own_table_exists(connection, "delta_segment")? && !has_column(connection, "delta_segment", "number")? {
        connection.execute_batch("DROP TABLE main.delta_segment")?;
    }
    connection.execute_batch(TABLES)?;
    older.iter().try_for_each(|(table, history)| take_over(connection, table, history))
}

/// Makes the history of a table where it is missing: `key` names the key's columns, `typed` declares them.
pub(super) fn make_table(connection: &Connection, table: &str, typed: &str, key: &[String]) -> rusqlite::Result<()> {
    make_mappings(connection, table, typed, key)?;
    make_view(connection, table, key)
}

fn make_mappings(connection: &Connection, table: &str, typed: &str, key: &[String]) -> rusqlite::Result<()> {
    let (mappings, by_run) = (Names::mappings_name(table), Names::by_run_name(table));
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS main.{0} (
             legacy_key TEXT PRIMARY KEY, {typed}, segment INTEGER NOT NULL, {CONTENT} INTEGER) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS main.{1} ON {0} (segment, {2});",
        ident(&mappings),
        ident(&by_run),
        idents(key).join(", ")
    ))?;
    own::register(connection, &mappings)?;
    own::register(connection, &by_run)
}

fn make_view(connection: &Connection, table: &str, key: &[String]) -> rusqlite::Result<()> {
    let key: Vec<_> = idents(key).into_iter().map(|name| format!("m.{name}")).collect();
    connection.execute_batch(&format!(
        "CREATE VIEW IF NOT EXISTS main.{} AS SELECT m.legacy_key, {},
             (SELECT s.run FROM delta_segment AS s WHERE s.number = m.segment) AS run, m.{CONTENT} FROM {} AS m",
        Names::history(table),
        key.join(", "),
        Names::mappings(table)
    ))?;
    own::register(connection, &Names::history_name(table))
}

fn idents(names: &[String]) -> Vec<String> {
    names.iter().map(|name| ident(name)).collect()
}

/// The tables whose history an older version made, and how that is called.
fn older(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
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

/// Brings the mappings of an older history, whose ledger there may or may not have been, to where they are now.
fn take_over(connection: &Connection, table: &str, older: &str) -> rusqlite::Result<()> {
    let sql =
        "SELECT name, type FROM pragma_table_info(?1, 'main') WHERE name NOT IN ('legacy_key', 'run', ?2) ORDER BY cid";
    let columns: Vec<(String, String)> = {
        let mut statement = connection.prepare(sql)?;
        let columns = statement.query_map([older, CONTENT], |row| Ok((row.get(0)?, row.get(1)?)))?;
        columns.collect::<rusqlite::Result<_>>()?
    };
    let content = if has_column(connection, older, CONTENT)? { format!("h.{CONTENT}") } else { "NULL".to_owned() };
    let typed: Vec<_> = columns.iter().map(|(name, declared)| format!("{} {declared}", ident(name))).collect();
    let key: Vec<_> = columns.into_iter().map(|(name, _)| name).collect();
    let was = ident(older);
    connection.execute_batch(&format!(
        "DROP INDEX IF EXISTS main.{};
         INSERT INTO delta_segment (table_name, run, rows) SELECT {}, run, count(*) FROM main.{was} GROUP BY run",
        ident(&Names::by_run_name(table)),
        literal(table)
    ))?;
    make_mappings(connection, table, &typed.join(", "), &key)?;
    connection.execute_batch(&format!(
        "INSERT INTO main.{} (legacy_key, {key}, segment, {CONTENT})
         SELECT legacy_key, {key}, {}, {content} FROM main.{was} AS h ORDER BY legacy_key;
         DROP TABLE main.{was}",
        Names::mappings(table),
        noted(&literal(table), "h.run"),
        key = idents(&key).join(", ")
    ))?;
    make_view(connection, table, &key)
}

fn has_column(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    Ok(own::columns(connection, table)?.iter().any(|name| name == column))
}

/// All segments.
pub(super) fn segments(connection: &Connection) -> rusqlite::Result<Vec<Segment>> {
    let mut places = Vec::new();
    if own_table_exists(connection, "delta_segment")? && has_column(connection, "delta_segment", "number")? {
        places.push("SELECT table_name, run, rows FROM main.delta_segment".to_owned());
    }
    // Those that are to be taken over, in a file that is only read.
    places.extend(older(connection)?.iter().map(|(table, history)| {
        format!("SELECT {}, run, count(*) FROM main.{} GROUP BY run", literal(table), ident(history))
    }));
    let mut segments = Vec::new();
    for sql in places {
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
pub(super) fn segment(connection: &Connection, table: &str, run: &str, names: &Names) -> Result<Option<Pages>> {
    let fault = |error| names.error("cannot read the key map of", &error);
    let Some(history) = History::of(connection, table).map_err(fault)? else { return Ok(None) };
    let known = catalog::read(connection, None).map_err(|error| names.unreadable(&error))?;
    let Some(there) = known.table(&history.name) else { return Ok(None) };
    let live = known.table(table);
    let mut columns = history.key(connection).map_err(fault)?;
    columns.retain(|name| live.is_none_or(|live| live.column(name).is_some()));
    columns.insert(0, "legacy_key".to_owned());
    let fields = columns.iter().filter_map(|name| there.column(name)).map(CatalogColumn::field);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns: Vec<_> = schema.fields().iter().map(|field| ident(field.name())).collect();
    // By the index of the runs, and not by that of the legacy keys, which has the whole history.
    let sql = format!(
        "SELECT {} FROM {} AS h WHERE {} ORDER BY +legacy_key",
        columns.join(", "),
        history.place(),
        history.of_run(&literal(run))
    );
    Pages::of_query(connection, &sql, schema).map(Some).map_err(fault)
}

/// The number of a segment; that of a new one is its own once it is noted.
pub(super) fn number(connection: &Connection, table: &str, run: &str) -> rusqlite::Result<i64> {
    let sql = format!(
        "SELECT coalesce({}, (SELECT coalesce(max(number), 0) + 1 FROM main.delta_segment))",
        noted("?1", "?2")
    );
    connection.query_row(&sql, [table, run], |row| row.get(0))
}

/// Notes a segment; one without mappings is none, and one that is noted stays as it is.
pub(super) fn note(connection: &Connection, table: &str, run: &str, rows: u64) -> rusqlite::Result<()> {
    if rows > 0 {
        let number = number(connection, table, run)?;
        let sql = "INSERT OR IGNORE INTO main.delta_segment (number, table_name, run, rows) VALUES (?1, ?2, ?3, ?4)";
        connection.execute(sql, (number, table, run, rows as i64))?;
    }
    Ok(())
}

/// The same of one that may have been there in part.
pub(super) fn note_counted(connection: &Connection, table: &str, run: &str) -> rusqlite::Result<()> {
    let sql = format!("SELECT count(*) FROM main.{} WHERE segment = ?1", Names::mappings(table));
    let rows: i64 = connection.query_row(&sql, [number(connection, table, run)?], |row| row.get(0))?;
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
