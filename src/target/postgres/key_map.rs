//! The key map in segments: the mappings that one run appended for one table. A ledger lists them, so they can be enumerated without
//! scanning the key map, and an index finds the mappings of each.
//!
//! The ledger decides: mappings may exist before their run commits, and the key map is a view of those with a recorded segment. The run's
//! own transaction records it. So mappings can be written on a separate connection while the rows go in on another.

use futures::{StreamExt, stream};
use tokio_postgres::{Client, Error as PgError};

use super::catalog::PgCatalog;
use super::copy::CopyColumn;
use super::lookup::wires;
use super::names::{Names, TableId};
use super::{PgTarget, readable};
use crate::engine::literal;
use crate::error::Result;
use crate::target::{Batches, Segment};

/// Returns all segments of this namespace for the tables of this schema and for other known tables.
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

pub(super) async fn identity(client: &Client) -> Result<Vec<String>, PgError> {
    if !readable(client, "delta.target").await? {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT id FROM delta.target ORDER BY since, id", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(super) async fn adopt(client: &Client, id: &str) -> Result<(), PgError> {
    client.execute("INSERT INTO delta.target (id) VALUES ($1) ON CONFLICT DO NOTHING", &[&id]).await.map(|_| ())
}

/// Records a segment. An empty one is not recorded.
pub(super) async fn record(client: &Client, table: &TableId, run: &str, rows: u64) -> Result<(), PgError> {
    if rows > 0 {
        let sql = "SELECT delta.record_segment($1, $2, $3)";
        client.execute(sql, &[&run, &table.key_map(), &(rows as i64)]).await?;
    }
    Ok(())
}

impl PgTarget {
    /// Returns the mappings of one segment, in order of their legacy keys.
    pub(super) async fn mappings_of(&self, table: &str, run: &str) -> Result<Batches<'static>> {
        let known = self.known().await?;
        let Some(table) = known.of_key_map(&self.names, table) else { return Ok(stream::empty().boxed()) };
        let live = known.tables.get(table).map(wires).unwrap_or_default();
        let view = known.id(&self.names, table).key_map_view();
        let session = self.session.lock().await;
        let fault = self.fault("cannot read the key map");
        if !readable(&session, &view).await.map_err(&fault)? {
            return Ok(stream::empty().boxed());
        }
        let sql = "SELECT attname FROM pg_attribute
                   WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let names = session.query(sql, &[&view]).await.map_err(&fault)?;
        let mut columns = vec![CopyColumn::text("legacy_key")];
        for name in names.iter().map(|row| row.get::<_, &str>(0)).filter(|name| !["legacy_key", "run"].contains(name)) {
            columns.extend(live.iter().find(|column| column.name == name).cloned());
        }
        let wanted: Vec<_> = columns.iter().map(|column| column.read("p")).collect();
        // Filters by the index on runs first and then sorts, because the index on legacy keys covers the whole key map.
        let query = format!(
            "WITH p AS MATERIALIZED (SELECT * FROM {view} WHERE run = {}) SELECT {} FROM p ORDER BY p.legacy_key",
            literal(run),
            wanted.join(", ")
        );
        drop(session);
        self.stream(&query, &columns).await
    }
}
