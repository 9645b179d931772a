//! The runs, in `delta.run`, and their journals, in `delta.event`.

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row};

use crate::journal::{Record, RunId};
use crate::target::{Journals, RunHeader, RunRecord};

type PgResult<T> = Result<T, tokio_postgres::Error>;

pub(super) async fn write(client: &Client, record: &Record) -> PgResult<()> {
    let Record { run, number, kind, entry, chain } = record;
    let sql = "SELECT delta.append_event($1, $2, $3, $4, $5)";
    client.execute(sql, &[run, &number.cast_signed(), kind, entry, chain]).await.map(|_| ())
}

/// Returns the entries of one run; none if this user cannot read them.
pub(super) async fn read(client: &Client, run: &str) -> PgResult<Vec<Record>> {
    if !super::readable(client, "delta.event").await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT run, number, kind, entry, chain FROM delta.event WHERE run = $1 ORDER BY number";
    Ok(client.query(sql, &[&run]).await?.iter().map(record).collect())
}

/// Returns the entries of the next runs whose ids follow `after`, run by run; none if this user cannot read them.
pub(super) async fn page(client: &Client, of: Journals, after: &str) -> PgResult<Vec<Record>> {
    if !super::readable(client, "delta.event").await? {
        return Ok(Vec::new());
    }
    let open = match of {
        Journals::All => String::new(),
        Journals::Open => format!(
            " AND NOT EXISTS (SELECT FROM delta.event AS x WHERE x.run = e.run AND x.kind IN {})",
            Journals::ENDS
        ),
    };
    let sql = format!(
        "SELECT run, number, kind, entry, chain FROM delta.event WHERE run IN (
             SELECT DISTINCT e.run FROM delta.event AS e WHERE e.run > $1{open} ORDER BY e.run LIMIT {})
         ORDER BY run, number",
        Journals::PAGE
    );
    Ok(client.query(&sql, &[&after]).await?.iter().map(record).collect())
}

fn record(row: &Row) -> Record {
    Record {
        run: row.get(0),
        number: row.get::<_, i32>(1).cast_unsigned(),
        kind: row.get(2),
        entry: row.get(3),
        chain: row.get(4),
    }
}

/// Returns the runs, oldest first; none if this user cannot read them.
pub(super) async fn runs(client: &Client) -> PgResult<Vec<RunHeader>> {
    if !super::readable(client, "delta.run").await? {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT id, pipeline, started_at FROM delta.run ORDER BY started_at, id", &[]).await?;
    let header = |row: &Row| RunHeader { id: row.get(0), pipeline: row.get(1), started_at: row.get(2) };
    Ok(rows.iter().map(header).collect())
}

pub(super) async fn run(client: &Client, id: &str) -> PgResult<Option<RunRecord>> {
    if !super::readable(client, "delta.run").await? {
        return Ok(None);
    }
    let row = client.query_opt("SELECT id, pipeline, started_at, report FROM delta.run WHERE id = $1", &[&id]).await?;
    let record =
        |row: Row| RunRecord { id: row.get(0), pipeline: row.get(1), started_at: row.get(2), report: row.get(3) };
    Ok(row.map(record))
}

type BoxedError = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for RunId {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        (&**self).to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        <&str as ToSql>::accepts(kind)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for RunId {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        <&str>::from_sql(kind, raw).map(Self::from)
    }

    fn accepts(kind: &Type) -> bool {
        <&str as FromSql>::accepts(kind)
    }
}
