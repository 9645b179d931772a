//! Conversion mode in PostgreSQL: the table `delta.mode`, by the server's clock. The loader login can read it, lock it, and switch it off.
//! Only the owner of the control schema and members of `delta_rollback` can switch it on.

use jiff::Timestamp;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::names::ROLLBACK;
use super::readable;
use crate::engine::literal;
use crate::target::{Ended, Mode, Period, Switch};

type PgResult<T> = Result<T, tokio_postgres::Error>;

/// The server's clock, in microseconds since 1970.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

pub(super) async fn now(client: &Client) -> PgResult<Timestamp> {
    Ok(moment(client.query_one(&format!("SELECT {NOW}"), &[]).await?.get(0)))
}

/// Reads it. If the database is not set up, it was never on.
pub(super) async fn read(client: &Client) -> PgResult<Mode> {
    if !readable(client, "delta.mode").await? {
        return Ok(Mode { now: now(client).await?, last: None });
    }
    last(client, "(SELECT * FROM delta.mode ORDER BY number DESC LIMIT 1)").await
}

/// Reads it, and locks it until the transaction ends.
pub(super) async fn hold(client: &Client) -> PgResult<Mode> {
    last(client, "delta.hold_mode()").await
}

async fn last(client: &Client, rows: &str) -> PgResult<Mode> {
    let micros = |name: &str| format!("(extract(epoch FROM m.{name}) * 1000000)::bigint");
    let sql = format!(
        "SELECT {NOW}, {}, {}, m.switched_by, m.reason, m.keep, {}, m.ended_by, m.ended_run, m.ended_reason
         FROM (SELECT) AS one LEFT JOIN {rows} AS m ON true",
        micros("since"),
        micros("until"),
        micros("ended_at"),
    );
    let row = client.query_one(&sql, &[]).await?;
    Ok(Mode { now: moment(row.get(0)), last: row.get::<_, Option<i64>>(1).map(|since| period(&row, since)) })
}

fn period(row: &Row, since: i64) -> Period {
    let ended = row.get::<_, Option<i64>>(6).map(|at| Ended {
        at: moment(at),
        by: row.get(7),
        run: row.get(8),
        reason: row.get(9),
    });
    Period {
        since: moment(since),
        until: moment(row.get(2)),
        by: row.get(3),
        reason: row.get(4),
        keep: row.get(5),
        ended,
    }
}

fn moment(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

pub(super) async fn switch(client: &Client, switch: &Switch) -> PgResult<()> {
    let (time, reason, keep) = match switch {
        Switch::On { time, reason, keep } => (Some(*time), Some(reason), *keep),
        Switch::Off { reason } => (None, reason.as_ref(), false),
    };
    let seconds = time.map(|time| time.as_secs_f64());
    client.execute("SELECT delta.switch_mode($1::float8, $2::text, $3::bool)", &[&seconds, &reason, &keep]).await?;
    Ok(())
}

pub(super) async fn end_with(client: &Client, run: &str) -> PgResult<()> {
    client.execute("SELECT delta.end_mode($1)", &[&run]).await?;
    Ok(())
}

/// Sets the role `delta_rollback` if the login is a member, unless it owns the control schema.
pub(super) async fn become_operator(client: &Client) -> PgResult<()> {
    let sql = format!(
        "SELECT set_config('role', {role}, false)
         WHERE EXISTS (SELECT FROM pg_namespace WHERE nspname = 'delta' AND NOT pg_has_role(session_user, nspowner, 'MEMBER'))
           AND EXISTS (SELECT FROM pg_roles WHERE rolname = {role} AND pg_has_role(session_user, oid, 'MEMBER'))",
        role = literal(ROLLBACK)
    );
    client.batch_execute(&sql).await
}

/// Returns whether an error means that the right to switch is missing.
pub(super) fn is_forbidden(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}
