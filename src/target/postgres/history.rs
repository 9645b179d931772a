//! The key map's history in segments: what one run appended to it for one table. A ledger has them all, so that to know them
//! is not to read the history, and an index finds the mappings of each.
//!
//! The ledger decides: mappings may be there before their run commits, and the history is a view of those whose segment is noted, which
//! the run's own transaction does. So they are brought on a connection of their own, while the rows go in on another.

use arrow::array::RecordBatch;
use tokio_postgres::{Client, Error as PgError};

use super::copy::{Wire, receive};
use super::lookup::wires;
use super::names::Names;
use super::{PostgresTarget, readable};
use crate::engine::literal;
use crate::error::Result;
use crate::target::Segment;

/// All segments.
pub(super) async fn segments(client: &Client) -> Result<Vec<Segment>, PgError> {
    if !readable(client, "delta.segment").await? {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT table_name, run, rows FROM delta.segment", &[]).await?;
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

/// Notes a segment; one without mappings is none, and one that is noted stays as it is.
pub(super) async fn note(client: &Client, table: &str, run: &str, rows: u64) -> Result<(), PgError> {
    if rows > 0 {
        let sql = "INSERT INTO delta.segment (table_name, run, rows) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        client.execute(sql, &[&table, &run, &(rows as i64)]).await?;
    }
    Ok(())
}

/// The same of one that may have been there in part.
pub(super) async fn note_counted(client: &Client, table: &str, run: &str) -> Result<(), PgError> {
    let sql = format!("SELECT count(*) FROM {} WHERE run = $1", Names::mappings(table));
    let rows: i64 = client.query_one(&sql, &[&run]).await?.get(0);
    note(client, table, run, rows.unsigned_abs()).await
}

impl PostgresTarget {
    /// The mappings of one segment, in order of their legacy keys.
    pub(super) async fn mappings_of(&self, table: &str, run: &str) -> Result<Vec<RecordBatch>> {
        let known = self.known().await?;
        let live = known.tables.get(table).map(wires).unwrap_or_default();
        let history = Names::history(table);
        let session = self.session.lock().await;
        let fault = self.fault("cannot read the key map");
        if !readable(&session, &history).await.map_err(&fault)? {
            return Ok(Vec::new());
        }
        let sql = "SELECT attname FROM pg_attribute
                   WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let names = session.query(sql, &[&history]).await.map_err(&fault)?;
        let mut columns = vec![Wire::text("legacy_key")];
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
        receive(&self.connector, &session, &query, &columns).await
    }
}
