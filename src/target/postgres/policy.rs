//! The policy in PostgreSQL: the table `delta.policy`. Its owner and members of `delta_rollback` set it. A run reads it in the transaction
//! that commits, and `delta.record_run` enforces it there too.

use tokio_postgres::{Client, Row, SimpleQueryMessage, SimpleQueryRow};

use crate::target::Policy;

type PgResult<T> = Result<T, tokio_postgres::Error>;

const COLUMNS: &str = "p.conversion_mode, p.approvals, p.max_key_block, p.opening_window";

/// Reads it. A database that is not set up requires conversion mode, which is also the default of setup. Uses no prepared statements,
/// because it runs before a transaction pooler is refused.
pub(super) async fn read(client: &Client) -> PgResult<Policy> {
    let sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'delta' AND has_schema_privilege(oid, 'USAGE'))
                   AND EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                       WHERE n.nspname = 'delta' AND c.relname = 'policy' AND has_table_privilege(c.oid, 'SELECT'))";
    if answer(client, sql).await?.first().and_then(|row| row.get(0)) != Some("t") {
        return Ok(Policy::unstated(true));
    }
    let sql = format!("SELECT {COLUMNS} FROM (SELECT * FROM delta.policy ORDER BY number DESC LIMIT 1) AS p");
    Ok(answer(client, &sql).await?.first().map_or_else(|| Policy::unstated(true), of_text))
}

async fn answer(client: &Client, sql: &str) -> PgResult<Vec<SimpleQueryRow>> {
    let messages = client.simple_query(sql).await?.into_iter();
    Ok(messages
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

fn of_text(row: &SimpleQueryRow) -> Policy {
    let number = |at: usize| row.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let policy = Policy {
        approvals: u32::try_from(number(1)).unwrap_or(u32::MAX),
        max_key_block: number(2),
        ..Policy::unstated(row.get(0) == Some("t"))
    };
    policy.with_stored_window(row.get(3))
}

/// Reads it, and locks it until the transaction ends.
pub(super) async fn hold(client: &Client) -> PgResult<Policy> {
    last(client, "delta.hold_policy()").await
}

async fn last(client: &Client, rows: &str) -> PgResult<Policy> {
    let row = client.query_opt(&format!("SELECT {COLUMNS} FROM {rows} AS p"), &[]).await?;
    Ok(row.as_ref().map_or_else(|| Policy::unstated(true), policy))
}

fn policy(row: &Row) -> Policy {
    let policy = Policy {
        approvals: row.get::<_, i32>(1).unsigned_abs(),
        max_key_block: row.get::<_, i64>(2).unsigned_abs(),
        ..Policy::unstated(row.get(0))
    };
    policy.with_stored_window(row.get(3))
}

pub(super) async fn set(client: &Client, policy: &Policy) -> PgResult<()> {
    let approvals = i32::try_from(policy.approvals).unwrap_or(i32::MAX);
    let largest = i64::try_from(policy.max_key_block).unwrap_or(i64::MAX);
    let sql = "SELECT delta.set_policy($1, $2, $3, $4)";
    client.execute(sql, &[&policy.conversion_mode, &approvals, &largest, &policy.window_json()]).await.map(|_| ())
}
