//! The registry of this program's own tables in the file. Each one is registered in the transaction that creates it, and no other table is
//! touched.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

use super::{Names, table_exists};
use crate::error::{Error, Result};
use crate::target::Destination;

/// The registry. A table of production with that name has different SQL.
pub(super) const OBJECT_REGISTRY: &str = "CREATE TABLE delta_object (name TEXT PRIMARY KEY COLLATE NOCASE)";

pub(super) const CONTROL: [&str; 10] = [
    "delta_object",
    MIGRATION,
    "delta_run",
    "delta_event",
    "delta_file",
    "delta_block",
    "delta_segment",
    "delta_target",
    MODE,
    POLICY,
];

pub(super) const MIGRATION: &str = "delta_migration";

pub(super) const MODE: &str = "delta_mode";

pub(super) const POLICY: &str = "delta_policy";

/// The names of this program's own tables, in lower case, because SQLite's names are case-insensitive.
#[derive(Debug, Default)]
pub(super) struct OwnedObjects(BTreeSet<String>);

impl OwnedObjects {
    /// Reads the registry; empty if it does not exist.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut own = Self::default();
        let text: Option<String> = connection
            .query_row(
                "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = 'delta_object' COLLATE NOCASE",
                [],
                |row| row.get(0),
            )
            .optional()?;
        if text.as_deref() == Some(OBJECT_REGISTRY) {
            let mut names = connection.prepare_cached("SELECT name FROM main.delta_object")?;
            for name in names.query_map([], |row| row.get::<_, String>(0))? {
                own.0.insert(name?.to_ascii_lowercase());
            }
            own.0.insert(CONTROL[0].into());
        }
        Ok(own)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains(&name.to_ascii_lowercase())
    }
}

/// Returns whether a table with this name exists that this program created.
pub(super) fn own_table_exists(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    Ok(OwnedObjects::read(connection)?.has(name) && table_exists(connection, name)?)
}

/// Returns the columns of a table in order, without generated ones.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached("SELECT name FROM pragma_table_info(?1, 'main') ORDER BY cid")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

pub(super) fn make_register(connection: &Connection) -> rusqlite::Result<()> {
    if !own_table_exists(connection, CONTROL[0])? {
        connection.execute_batch(OBJECT_REGISTRY)?;
    }
    Ok(())
}

/// Registers a table, in the transaction that creates it.
pub(super) fn register(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT OR IGNORE INTO main.delta_object (name) VALUES (?1)")?.execute([name])?;
    Ok(())
}

/// A name that a run needs for one of its tables.
struct RequiredName {
    name: String,
    /// Whether it contains `target.staging`.
    staging: bool,
}

/// Refuses a run whose own tables cannot have their names, because another object has them or two need the same.
///
/// # Errors
/// With all such names at once.
pub(super) fn refuse_taken(connection: &Connection, names: &Names, destinations: &[Destination]) -> Result<()> {
    let mut required: Vec<RequiredName> =
        CONTROL.iter().map(|name| RequiredName { name: (*name).to_owned(), staging: false }).collect();
    for destination in destinations {
        let (table, key_map) = (&destination.table.name, &destination.table.key_map);
        required.push(RequiredName { name: names.staging_name(table), staging: true });
        required.push(RequiredName { name: names.staged_keys_name(table), staging: true });
        for name in [Names::key_map_view_name(key_map), Names::mappings_name(key_map), Names::by_run_name(key_map)] {
            required.push(RequiredName { name, staging: false });
        }
    }
    let mut lines = Vec::new();
    let prefix = format!("{}_", names.staging.to_ascii_lowercase());
    if prefix.starts_with("sqlite_") || prefix.starts_with("delta_") {
        lines.push((format!("`{}` is a reserved table prefix", names.staging), true));
    }
    let fault = |error: rusqlite::Error| names.error("cannot read the catalog of", &error);
    let own = OwnedObjects::read(connection).map_err(fault)?;
    let mut seen = BTreeSet::new();
    for RequiredName { name, staging } in required {
        if !seen.insert(name.to_ascii_lowercase()) {
            lines.push((format!("two tables of this run need the name `{name}`"), true));
        } else if !own.has(&name)
            && let Some(kind) = kind(connection, &name).map_err(fault)?
        {
            lines.push((format!("production already has {kind} `{name}`"), staging));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let hint = if lines.iter().any(|(_, staging)| *staging) {
        "choose another `target.staging`; nothing was written"
    } else {
        "rename it in production: control tables are called `delta_…`; nothing was written"
    };
    let lines: Vec<_> = lines.into_iter().map(|(line, _)| line).collect();
    Err(Error::pipeline(format!(
        "cannot create the staging and control tables in `{}`: {}",
        names.shown,
        lines.join("; ")
    ))
    .hint(hint))
}

/// Returns the kind of object that has a name, with its article.
fn kind(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT type FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE";
    let found: Option<String> = connection.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?;
    Ok(found.map(|kind| format!("{} {kind}", if kind == "index" { "an" } else { "a" })))
}
