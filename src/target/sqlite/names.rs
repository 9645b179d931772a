//! The names of this program's tables in a file, and explanations of the file's errors.

use rusqlite::ErrorCode;

use super::catalog::Unreadable;
use crate::engine::ident;
use crate::error::Error;

#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) shown: String,
    pub(super) staging: String,
    /// Separates the legacy keys of this pipeline from those of another legacy system; empty for the default one.
    pub(super) namespace: String,
}

impl Names {
    /// Returns the prefix of key map names.
    pub(super) fn scope(&self) -> String {
        if self.namespace.is_empty() { String::new() } else { format!("{}:", self.namespace) }
    }

    /// Returns the name of a table's key map: `account`, or `acme:account`.
    pub(super) fn key_map(&self, table: &str) -> String {
        self.scope() + table
    }

    pub(super) fn staging(&self, table: &str) -> String {
        ident(&self.staging_name(table))
    }

    pub(super) fn staging_name(&self, table: &str) -> String {
        format!("{}_{table}", self.staging)
    }

    pub(super) fn staged_keys(&self, table: &str) -> String {
        ident(&self.staged_keys_name(table))
    }

    pub(super) fn staged_keys_name(&self, table: &str) -> String {
        format!("{}_ck_{table}", self.staging)
    }

    pub(super) fn key_map_view(key_map: &str) -> String {
        ident(&Self::key_map_view_name(key_map))
    }

    pub(super) fn key_map_view_name(key_map: &str) -> String {
        format!("delta_key_map_{key_map}")
    }

    /// Returns the table behind a key map, whose mappings have the number of their segment.
    pub(super) fn mappings(key_map: &str) -> String {
        ident(&Self::mappings_name(key_map))
    }

    pub(super) fn mappings_name(key_map: &str) -> String {
        format!("delta_mapping_{key_map}")
    }

    /// Returns the name of the index on the segment of a mapping.
    pub(super) fn by_run_name(key_map: &str) -> String {
        format!("delta_segment_{key_map}")
    }

    pub(super) fn error(&self, doing: &str, error: &rusqlite::Error) -> Error {
        let text = match error {
            rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
            other => other.to_string(),
        };
        let message = format!("{doing} `{}`: {text}", self.shown);
        if needs_recovery(error) {
            return Error::interrupted(format!("a run was interrupted while it wrote to `{}`", self.shown)).hint(
                "nothing was kept; `pipeline resume FILE` recovers the file and continues, and `pipeline run FILE` names the run",
            );
        }
        if let Some(missing) = missing(error, &text) {
            return Error::pipeline(message).hint(format!(
                "only the program that created the schema defines {missing}: remove it from the schema"
            ));
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::unreachable(message)
                .hint("another program is using the database: run again when it is done, or raise `load.lock_timeout`"),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Error::unreachable(message).hint("make the file and its folder writable for this user")
            }
            Some(ErrorCode::DiskFull) => Error::unreachable(message).hint("free space on the file's disk; nothing was loaded"),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => {
                Error::unreachable(message).hint("check `target.url`: the file must be a SQLite database")
            }
            Some(ErrorCode::ConstraintViolation) => Error::data(message)
                .hint("nothing was loaded; production rejected rows that passed the checks. `pipeline explain` lists the checks"),
            _ => Error::internal(message),
        }
    }

    /// Returns the error of reading the catalog, with the table that it is about.
    pub(super) fn unreadable(&self, unreadable: &Unreadable) -> Error {
        match &unreadable.table {
            Some(table) => self.error(&format!("cannot read the table `{table}` in the catalog of"), &unreadable.error),
            None => self.error("cannot read the catalog of", &unreadable.error),
        }
    }
}

/// Returns whether a file cannot be read because a journal must be rolled back first, but the access is read-only.
fn needs_recovery(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_READONLY_RECOVERY, SQLITE_READONLY_ROLLBACK};
    error
        .sqlite_error()
        .is_some_and(|error| [SQLITE_READONLY_ROLLBACK, SQLITE_READONLY_RECOVERY].contains(&error.extended_code))
}

/// Names the SQLite extension that a schema needs and this program lacks.
fn missing(error: &rusqlite::Error, text: &str) -> Option<String> {
    if error.sqlite_error_code() != Some(ErrorCode::Unknown) {
        return None;
    }
    ["no such module: ", "no such collation sequence: ", "no such function: ", "unknown function: "].iter().find_map(
        |what| {
            let (_, name) = text.split_once(what)?;
            let what = what.trim_start_matches("no such ").trim_start_matches("unknown ").trim_end_matches(": ");
            Some(format!("the {what} `{}`", name.split_whitespace().next().unwrap_or(name)))
        },
    )
}
