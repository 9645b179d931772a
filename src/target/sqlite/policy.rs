//! The policy of a SQLite file: the table `delta_policy`. SQLite has no roles, so every user who can write the file can act as the
//! operator.

use rusqlite::{Connection, OptionalExtension, Row};

use super::object_registry::{POLICY, own_table_exists};
use crate::target::Policy;

/// Reads it. A file without a policy requires nothing.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Policy> {
    if !own_table_exists(connection, POLICY)? {
        return Ok(Policy::unstated(false));
    }
    let sql = "SELECT conversion_mode, approvals, max_key_block, opening_window FROM main.delta_policy ORDER BY number DESC LIMIT 1";
    let last = connection.query_row(sql, [], policy).optional()?;
    Ok(last.unwrap_or_else(|| Policy::unstated(false)))
}

fn policy(row: &Row<'_>) -> rusqlite::Result<Policy> {
    let number = |at| row.get::<_, i64>(at).map(|number| number.max(0).unsigned_abs());
    let stored: Option<String> = row.get(3)?;
    let policy = Policy {
        approvals: u32::try_from(number(1)?).unwrap_or(u32::MAX),
        max_key_block: number(2)?,
        ..Policy::unstated(row.get(0)?)
    };
    Ok(policy.with_stored_window(stored.as_deref()))
}

pub(super) fn is_stated(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(own_table_exists(connection, POLICY)? && connection.prepare("SELECT 1 FROM main.delta_policy")?.exists([])?)
}

/// Sets it, inside an open transaction, after the control tables exist.
pub(super) fn set(connection: &Connection, policy: &Policy) -> rusqlite::Result<()> {
    let by = whoami::username().unwrap_or_else(|_| "unknown".into());
    let sql =
        "INSERT INTO main.delta_policy (conversion_mode, approvals, max_key_block, opening_window, set_at, set_by)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let largest = i64::try_from(policy.max_key_block).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::now().to_string();
    let values = (policy.conversion_mode, policy.approvals, largest, policy.window_json(), at, by);
    connection.execute(sql, values).map(|_| ())
}
