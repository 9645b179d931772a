//! Conversion mode in a SQLite file: the table `delta_mode`, by this machine's clock.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row};

use super::object_registry::{MODE, own_table_exists};
use crate::target::{Ended, Mode, Period, Switch};

pub(super) fn read(connection: &Connection) -> rusqlite::Result<Mode> {
    let now = Timestamp::now();
    if !own_table_exists(connection, MODE)? {
        return Ok(Mode { now, last: None });
    }
    let sql = "SELECT since, until, switched_by, reason, keep, ended_at, ended_by, ended_run, ended_reason
               FROM main.delta_mode ORDER BY number DESC LIMIT 1";
    let last = connection.query_row(sql, [], period).optional()?;
    Ok(Mode { now, last })
}

fn period(row: &Row<'_>) -> rusqlite::Result<Period> {
    let ended = match row.get::<_, Option<String>>(5)? {
        None => None,
        Some(_) => Some(Ended { at: moment(row, 5)?, by: row.get(6)?, run: row.get(7)?, reason: row.get(8)? }),
    };
    Ok(Period {
        since: moment(row, 0)?,
        until: moment(row, 1)?,
        by: row.get(2)?,
        reason: row.get(3)?,
        keep: row.get(4)?,
        ended,
    })
}

fn moment(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    row.get::<_, String>(at)?.parse().map_err(|error: jiff::Error| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, error.into())
    })
}

/// Switches it, inside an open transaction, after the control tables exist.
pub(super) fn switch(connection: &Connection, switch: &Switch) -> rusqlite::Result<()> {
    let by = whoami::username().unwrap_or_else(|_| "unknown".into());
    let was = read(connection)?;
    let (now, reason) = match switch {
        Switch::On { .. } => (was.now, Some("it was switched on again")),
        Switch::Off { reason } => (was.now, reason.as_deref()),
    };
    if was.on().is_some() {
        end(connection, now, &by, None, reason)?;
    }
    if let Switch::On { time, reason, keep } = switch {
        let until = now.saturating_add(*time).unwrap_or(Timestamp::MAX);
        let sql = "INSERT INTO main.delta_mode (since, until, switched_by, reason, keep) VALUES (?1, ?2, ?3, ?4, ?5)";
        connection.execute(sql, (now.to_string(), until.to_string(), by, reason, keep))?;
    }
    Ok(())
}

pub(super) fn end_with(connection: &Connection, run: &str) -> rusqlite::Result<()> {
    let mode = read(connection)?;
    match mode.on() {
        Some(on) if !on.keep => {
            let by = whoami::username().unwrap_or_else(|_| "unknown".into());
            end(connection, mode.now, &by, Some(run), None)
        }
        _ => Ok(()),
    }
}

fn end(
    connection: &Connection,
    now: Timestamp,
    by: &str,
    run: Option<&str>,
    reason: Option<&str>,
) -> rusqlite::Result<()> {
    let sql = "UPDATE main.delta_mode SET ended_at = ?1, ended_by = ?2, ended_run = ?3, ended_reason = ?4
               WHERE number = (SELECT max(number) FROM main.delta_mode)";
    connection.execute(sql, (now.to_string(), by, run, reason))?;
    Ok(())
}
