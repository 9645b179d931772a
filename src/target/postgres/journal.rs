//! The journals, in `delta.event`.

use tokio_postgres::Client;

use crate::journal::Record;

type Asked<T> = Result<T, tokio_postgres::Error>;

/// Appends an entry.
pub(super) async fn write(client: &Client, record: &Record) -> Asked<()> {
    let Record { run, number, kind, entry, chain } = record;
    let sql = "SELECT delta.append_event($1, $2, $3, $4, $5)";
    client.execute(sql, &[run, &number.cast_signed(), kind, entry, chain]).await.map(|_| ())
}

/// The entries of one run or of all, run after run; none where this user may not look.
pub(super) async fn read(client: &Client, run: Option<&str>) -> Asked<Vec<Record>> {
    if !super::readable(client, "delta.event").await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT run, number, kind, entry, chain FROM delta.event
               WHERE $1::text IS NULL OR run = $1 ORDER BY run, number";
    let rows = client.query(sql, &[&run]).await?;
    Ok(rows
        .iter()
        .map(|row| Record {
            run: row.get(0),
            number: row.get::<_, i32>(1).cast_unsigned(),
            kind: row.get(2),
            entry: row.get(3),
            chain: row.get(4),
        })
        .collect())
}
