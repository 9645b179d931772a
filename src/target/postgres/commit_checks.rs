//! Properties of production that checks verified and no constraint enforces: their registration at setup, and their notes in a plan.

use std::fmt::Write as _;

use tokio_postgres::Client;

use super::catalog::PgCatalog;
use super::names::Names;
use crate::engine::{list, literal};
use crate::spec::{LoadSpec, Lock};
use crate::target::{CommitCheckKind, Destination};

/// The table that a reference leads to, as registered.
pub(super) struct Referenced<'a> {
    pub(super) schema: &'a str,
    pub(super) table: &'a str,
    /// The key, and the columns whose values must not change.
    pub(super) columns: Vec<&'a str>,
}

impl<'a> Referenced<'a> {
    /// Returns None if the property is not a reference.
    pub(super) fn of(promised: &'a CommitCheckKind, known: &'a PgCatalog, names: &'a Names) -> Option<Self> {
        let CommitCheckKind::Reference { to, to_column, with, by, .. } = promised else { return None };
        let (schema, table) =
            known.tables.get(to).map_or((&names.production, to), |table| (&table.schema, &table.name));
        let columns = std::iter::once(to_column).chain(with).chain(by).map(String::as_str).collect();
        Some(Self { schema, table, columns })
    }
}

/// Returns SQL that registers the references of a table.
pub(super) fn register(names: &Names, known: &PgCatalog, destination: &Destination) -> String {
    let mut sql = String::new();
    for commit_check in &destination.commit_checks {
        let Some(Referenced { schema, table, columns }) = Referenced::of(&commit_check.what, known, names) else {
            continue;
        };
        let columns: Vec<_> = columns.into_iter().map(literal).collect();
        writeln!(
            sql,
            "INSERT INTO delta.reference (schema_name, relation_name, relation_owner, columns)
                 SELECT n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner), ARRAY[{}]::name[]
                 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE n.nspname = {} AND c.relname = {}
                 ON CONFLICT (schema_name, relation_name, columns) DO UPDATE SET relation_owner = excluded.relation_owner;
             INSERT INTO delta.trusted_owner (name) SELECT r.relation_owner FROM delta.reference AS r ON CONFLICT DO NOTHING;",
            columns.join(", "),
            literal(schema),
            literal(table)
        )
        .ok();
    }
    sql
}

/// Returns the references of a table that are not registered.
pub(super) async fn unregistered(
    client: &Client,
    names: &Names,
    known: &PgCatalog,
    destination: &Destination,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut lacking = Vec::new();
    let references =
        destination.commit_checks.iter().filter_map(|commit_check| Referenced::of(&commit_check.what, known, names));
    for Referenced { schema, table, columns } in references {
        let sql = "SELECT EXISTS (SELECT FROM delta.reference
                                  WHERE schema_name = $1::text AND relation_name = $2::text AND columns = $3::text[]::name[])";
        if !client.query_one(sql, &[&schema, &table, &columns]).await?.get::<_, bool>(0) {
            let name = &destination.table.name;
            lacking.push(format!("`{name}` was not set up to refer to `{table}` by {}", list(&columns)));
        }
    }
    Ok(lacking)
}

/// Returns notes for the plan: how long the verified properties of a table remain guaranteed.
pub(super) fn notes(spec: &LoadSpec, destination: &Destination) -> Vec<String> {
    let name = &destination.table.name;
    let note = |check: &str, what: &CommitCheckKind| match (what, spec.lock) {
        (CommitCheckKind::Unique { .. }, Lock::None) => format!(
            "`{check}` of `{name}`: no index of production enforces it. The last statement before the COMMIT checks it again; it does not see \
             rows that another session has inserted and commits later. `load: {{ lock: table }}` keeps other sessions from writing to `{name}`"
        ),
        (CommitCheckKind::Unique { .. }, Lock::Table) => format!(
            "`{check}` of `{name}`: no index of production enforces it. From the beginning of the insertion to the COMMIT, other sessions \
             wait when they write to `{name}`"
        ),
        (CommitCheckKind::Reference { column, to, to_column, with, by }, _) => {
            let columns: Vec<_> = std::iter::once(to_column).chain(with).chain(by).collect();
            format!(
                "`{column}` of `{name}`: the rows of `{to}` that it refers to are locked until the COMMIT. Other sessions that delete them or \
                 change {} wait",
                list(&columns)
            )
        }
    };
    destination.commit_checks.iter().map(|commit_check| note(&commit_check.check, &commit_check.what)).collect()
}
