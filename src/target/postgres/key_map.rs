//! The key map's history in segments: what one run appended to it for one table. A ledger has them all, so that to know them
//! is not to read the history, and an index finds the mappings of each.
//!
//! The ledger decides: mappings may be there before their run commits, and the history is a view of those whose segment is noted, which
//! the run's own transaction does. So they are brought on a connection of their own, while the rows go in on another.

use arrow::datatypes::DataType;
use futures::{StreamExt, stream};
use tokio_postgres::{Client, Error as PgError};

use super::catalog::PgCatalog;
use super::copy::CopyColumn;
use super::lookup::wires;
use super::names::{Names, TableId};
use super::staging::Staged;
use super::{PgTarget, readable};
use crate::engine::{ident, literal};
use crate::error::Result;
use crate::target::{Batches, Destination, Segment};

/// All segments of key maps of this namespace that belong to the tables of this schema, or to others that are known.
pub(super) async fn segments(client: &Client, known: &PgCatalog, names: &Names) -> Result<Vec<Segment>, PgError> {
    if !readable(client, "delta.segment").await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT s.table_name, s.run, s.rows FROM delta.segment AS s JOIN delta.loaded_table AS l ON l.table_name = s.table_name
               WHERE l.namespace = $1 AND (l.schema_name = $2 OR s.table_name = ANY ($3))";
    let others: Vec<_> = known.catalog.tables.iter().map(|table| table.key_map.as_str()).collect();
    let rows = client.query(sql, &[&names.namespace, &names.production, &others]).await?;
    let mut segments: Vec<_> = rows
        .iter()
        .map(|row| Segment { table: row.get(0), run: row.get(1), rows: row.get::<_, i64>(2).unsigned_abs() })
        .collect();
    segments.sort();
    Ok(segments)
}

/// The target's ids, the oldest first.
pub(super) async fn identity(client: &Client) -> Result<Vec<String>, PgError> {
    if !readable(client, "delta.target").await? {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT id FROM delta.target ORDER BY since, id", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Adds an id.
pub(super) async fn adopt(client: &Client, id: &str) -> Result<(), PgError> {
    client.execute("INSERT INTO delta.target (id) VALUES ($1) ON CONFLICT DO NOTHING", &[&id]).await.map(|_| ())
}

/// Notes a segment, with the first and the last of its keys' numbers where they are known; one without mappings is none, and one that is
/// noted stays as it is.
pub(super) async fn note(
    client: &Client,
    table: &TableId,
    run: &str,
    rows: u64,
    (first, last): (Option<i64>, Option<i64>),
) -> Result<(), PgError> {
    if rows > 0 {
        let sql = "INSERT INTO delta.segment (table_name, run, rows, first_key, last_key) VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT DO NOTHING";
        client.execute(sql, &[&table.key_map(), &run, &(rows as i64), &first, &last]).await?;
    }
    Ok(())
}

/// The same of one that may have been there in part.
pub(super) async fn note_counted(client: &Client, staged: &Staged<'_>, run: &str) -> Result<(), PgError> {
    let (table, destination) = (staged.id(), staged.destination);
    let ends = match integer_key(destination) {
        Some(key) => format!("min({0})::bigint, max({0})::bigint", ident(key)),
        None => "NULL::bigint, NULL::bigint".to_owned(),
    };
    let sql = format!("SELECT count(*), {ends} FROM {} WHERE run = $1", table.mappings());
    let found = client.query_one(&sql, &[&run]).await?;
    note(client, &table, run, found.get::<_, i64>(0).unsigned_abs(), (found.get(1), found.get(2))).await
}

/// The column that is a table's whole key, where it is of integers.
pub(super) fn integer_key(destination: &Destination) -> Option<&String> {
    let [key] = destination.key.as_slice() else { return None };
    destination.table.column(key).is_some_and(|column| column.data_type == DataType::Int64).then_some(key)
}

impl PgTarget {
    /// The mappings of one segment, in order of their legacy keys.
    pub(super) async fn mappings_of(&self, table: &str, run: &str) -> Result<Batches<'static>> {
        let known = self.known().await?;
        let Some(table) = known.of_key_map(&self.names, table) else { return Ok(stream::empty().boxed()) };
        let live = known.tables.get(table).map(wires).unwrap_or_default();
        let history = known.id(&self.names, table).history();
        let session = self.session.lock().await;
        let fault = self.fault("cannot read the key map");
        if !readable(&session, &history).await.map_err(&fault)? {
            return Ok(stream::empty().boxed());
        }
        let sql = "SELECT attname FROM pg_attribute
                   WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let names = session.query(sql, &[&history]).await.map_err(&fault)?;
        let mut columns = vec![CopyColumn::text("legacy_key")];
        for name in names.iter().map(|row| row.get::<_, &str>(0)).filter(|name| !["legacy_key", "run"].contains(name)) {
            columns.extend(live.iter().find(|column| column.name == name).cloned());
        }
        let wanted: Vec<_> = columns.iter().map(|column| column.read("p")).collect();
        // Found first, by the index of the runs, and then sorted: the index of the legacy keys has all of the key map.
        let query = format!(
            "WITH p AS MATERIALIZED (SELECT * FROM {history} WHERE run = {}) SELECT {} FROM p ORDER BY p.legacy_key",
            literal(run),
            wanted.join(", ")
        );
        drop(session);
        self.stream(&query, &columns).await
    }
}
