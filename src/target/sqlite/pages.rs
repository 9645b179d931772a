//! Rows page by page: each page is a separate statement, which continues after the last key of the previous one.
//!
//! Nothing is held between two pages but that key: no rows, and no lock on the file. So other programs can commit however slowly the rows
//! are read, and several tables can be read alternately over one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, stream};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, ToSql};
use tokio::sync::Mutex;

use super::Names;
use super::batches::unlike_its_column;
use super::values::Collector;
use crate::engine::ident;
use crate::error::Result;
use crate::target::Batches;

const ROWS: usize = 8192;

/// The number of bytes at which a page is full, however few rows it has.
const BYTES: usize = 16 << 20;

/// A table or view, with the key that identifies and orders its rows.
pub(super) struct Pages {
    place: String,
    wanted: Vec<String>,
    only: Vec<String>,
    /// SQL: the columns of the order, unique together.
    key: Vec<String>,
    schema: SchemaRef,
    /// How many rows to read; None for all.
    left: Option<usize>,
    last: Option<Vec<Kept>>,
    temporary: Option<String>,
}

/// A value of a key, byte by byte.
enum Kept {
    Value(Value),
    Text(Vec<u8>),
}

impl ToSql for Kept {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Value(value) => value.to_sql(),
            Self::Text(bytes) => Ok(ToSqlOutput::Borrowed(ValueRef::Text(bytes))),
        }
    }
}

impl From<ValueRef<'_>> for Kept {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Value(Value::Null),
            ValueRef::Integer(number) => Self::Value(Value::Integer(number)),
            ValueRef::Real(number) => Self::Value(Value::Real(number)),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Value(Value::Blob(bytes.to_vec())),
        }
    }
}

impl Pages {
    /// Returns pages of a production table. `wanted` is SQL for the columns of `schema`, and all conditions of `only` must hold.
    pub(super) fn of_table(
        connection: &Connection,
        table: &str,
        (wanted, schema): (Vec<String>, SchemaRef),
        only: Vec<String>,
        left: Option<usize>,
    ) -> rusqlite::Result<Self> {
        let place = format!("main.{}", ident(table));
        let Some(key) = key_of(connection, table)? else {
            let only = if only.is_empty() { String::new() } else { format!(" WHERE {}", only.join(" AND ")) };
            let limit = left.map_or(String::new(), |rows| format!(" LIMIT {rows}"));
            return Self::of_query(
                connection,
                &format!("SELECT {} FROM {place}{only}{limit}", wanted.join(", ")),
                schema,
            );
        };
        Ok(Self { place, wanted, only, key, schema, left, last: None, temporary: None })
    }

    /// Returns pages in the order of a unique column that compares bytes.
    pub(super) fn in_order_of(place: String, column: &str, schema: SchemaRef) -> Self {
        let wanted = schema.fields().iter().map(|field| ident(field.name())).collect();
        let key = vec![ident(column)];
        Self { place, wanted, only: Vec::new(), key, schema, left: None, last: None, temporary: None }
    }

    /// Returns pages of a query in its order, by way of a temporary table.
    pub(super) fn of_query(connection: &Connection, query: &str, schema: SchemaRef) -> rusqlite::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let table = format!("temp.reading_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        connection.execute_batch(&format!("CREATE TEMP TABLE {} AS {query}", table.trim_start_matches("temp.")))?;
        let pages = Self::in_order_of(table.clone(), "rowid", schema);
        Ok(Self { temporary: Some(table), ..pages })
    }

    pub(super) fn stream(self, connection: Arc<Mutex<Connection>>, names: Names) -> Batches<'static> {
        stream::try_unfold(Some(self), move |pages| {
            let (connection, names) = (connection.clone(), names.clone());
            async move {
                let Some(mut pages) = pages else { return Ok(None) };
                let connection = connection.lock().await;
                let (batch, more) = pages.next(&connection, &names)?;
                if let (false, Some(table)) = (more, &pages.temporary) {
                    let dropped = connection.execute_batch(&format!("DROP TABLE {table}"));
                    dropped.map_err(|error| names.error("cannot read", &error))?;
                }
                Ok(Some((batch, more.then_some(pages))))
            }
        })
        .boxed()
    }

    fn sql(&self, rows: usize) -> String {
        let (key, wanted) = (self.key.join(", "), self.wanted.join(", "));
        let behind = self.last.is_some().then(|| {
            let marks = vec!["?"; self.key.len()].join(", ");
            format!("({key}) > ({marks})")
        });
        let only: Vec<_> = behind.iter().chain(&self.only).map(|only| format!("({only})")).collect();
        let only = if only.is_empty() { String::new() } else { format!(" WHERE {}", only.join(" AND ")) };
        format!("SELECT {key}, {wanted} FROM {}{only} ORDER BY {key} LIMIT {rows}", self.place)
    }

    /// Returns the next page, and whether there may be another.
    fn next(&mut self, connection: &Connection, names: &Names) -> Result<(RecordBatch, bool)> {
        let fault = |error: rusqlite::Error| names.error("cannot read", &error);
        let rows = self.left.unwrap_or(ROWS).min(ROWS);
        let mut statement = connection.prepare_cached(&self.sql(rows)).map_err(fault)?;
        let after = rusqlite::params_from_iter(self.last.iter().flatten());
        let mut found = statement.query(after).map_err(fault)?;
        let mut collector = Collector::try_new(self.schema.clone())?;
        let (mut count, mut bytes, mut last) = (0, 0, None);
        while let Some(row) = found.next().map_err(fault)? {
            for (at, field) in self.schema.fields().iter().enumerate() {
                let value = row.get_ref(self.key.len() + at).map_err(fault)?;
                bytes += value.as_bytes().map_or(0, <[u8]>::len);
                collector.push(at, value).map_err(|problem| unlike_its_column(field.name(), &problem))?;
            }
            count += 1;
            if count == rows || bytes >= BYTES {
                let key = (0..self.key.len()).map(|at| row.get_ref(at).map(Kept::from));
                last = Some(key.collect::<rusqlite::Result<Vec<_>>>().map_err(fault)?);
                break;
            }
        }
        self.left = self.left.map(|left| left - count);
        self.last = last;
        let more = self.last.is_some() && self.left != Some(0);
        Ok((collector.finish()?, more))
    }
}

/// Returns SQL for the columns that identify the rows of a table. None if its columns hide all names of the rowid.
fn key_of(connection: &Connection, table: &str) -> rusqlite::Result<Option<Vec<String>>> {
    let without_rowid: Option<bool> = connection
        .query_row("SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'", [table], |row| row.get(0))
        .optional()?;
    let mut statement = connection.prepare("SELECT name, pk FROM pragma_table_xinfo(?1) ORDER BY pk")?;
    let columns: Vec<(String, i64)> =
        statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    if without_rowid != Some(true) {
        let is_column = |name: &str| columns.iter().any(|(column, _)| column.eq_ignore_ascii_case(name));
        let name = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !is_column(name));
        return Ok(name.map(|name| vec![name.to_owned()]));
    }
    let mut key = Vec::new();
    for (name, _) in columns.iter().filter(|(_, place)| *place > 0) {
        let (_, collation, ..) = connection.column_metadata(Some("main"), table, name.as_str())?;
        let binary = collation.is_none_or(|collation| collation.to_bytes().eq_ignore_ascii_case(b"BINARY"));
        key.push(if binary { ident(name) } else { format!("{} COLLATE BINARY", ident(name)) });
    }
    Ok(Some(key))
}
