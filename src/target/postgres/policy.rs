//! The policy in PostgreSQL: the table `delta.policy`. Its owner and members of `delta_rollback` state it; a run reads it in the transaction
//! that commits, where `delta.record_run` holds the run to it as well.

use tokio_postgres::{Client, Row};

use super::readable;
use crate::error::{Error, Result};
use crate::target::Policy;

type Asked<T> = std::result::Result<T, tokio_postgres::Error>;

const COLUMNS: &str = "p.conversion_mode, p.approvals, p.max_key_block, p.opening_window";

/// Reads it. A database that is not set up requires conversion mode, as one does that was.
pub(super) async fn read(client: &Client) -> Asked<Result<Policy>> {
    if !readable(client, "delta.policy").await? {
        return Ok(Ok(Policy::unstated(true)));
    }
    last(client, "(SELECT * FROM delta.policy ORDER BY number DESC LIMIT 1)").await
}

/// Reads it, and keeps it as it is until the transaction ends.
pub(super) async fn hold(client: &Client) -> Asked<Result<Policy>> {
    last(client, "delta.hold_policy()").await
}

async fn last(client: &Client, rows: &str) -> Asked<Result<Policy>> {
    let row = client.query_opt(&format!("SELECT {COLUMNS} FROM {rows} AS p"), &[]).await?;
    Ok(row.as_ref().map_or_else(|| Ok(Policy::unstated(true)), policy))
}

fn policy(row: &Row) -> Result<Policy> {
    let window = Policy::window_of(row.get(3)).map_err(|error| {
        Error::refused(format!("cannot read the window of the target's policy: {error}"))
            .hint("the operator states it again: `pipeline policy set`")
    })?;
    Ok(Policy {
        conversion_mode: row.get(0),
        approvals: row.get::<_, i32>(1).unsigned_abs(),
        max_key_block: row.get::<_, i64>(2).unsigned_abs(),
        is_new: false,
        window,
    })
}

/// States it.
pub(super) async fn set(client: &Client, policy: &Policy) -> Asked<()> {
    let approvals = i32::try_from(policy.approvals).unwrap_or(i32::MAX);
    let largest = i64::try_from(policy.max_key_block).unwrap_or(i64::MAX);
    let sql = "SELECT delta.set_policy($1, $2, $3, $4)";
    client.execute(sql, &[&policy.conversion_mode, &approvals, &largest, &policy.window_json()]).await.map(|_| ())
}
