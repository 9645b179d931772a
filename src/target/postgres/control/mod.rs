//! The control schema, as SQL files that `pipeline setup` runs and `--print` shows.
//!
//! *Migrations* create tables. Each runs once, in order, and is recorded with its checksum. *Functions* and grants are recreated each time.
//! Each loaded table has a template. One owner has everything but the roles and the rights on production.

pub(super) mod owner;

use crate::engine::{ident, list, literal};
use crate::error::{Error, Result};
use crate::journal;
use crate::spec::ForeignKeys;
use crate::target::Destination;
use crate::target::migration::Migration;

use super::catalog::PgCatalog;
use super::commit_checks;
use super::names::{Names, qualified};
use super::staging::MARK;

/// In order; the first has version 1.
const MIGRATIONS: &[Migration] =
    &[Migration { name: "control_tables", sql: include_str!("migrations/0001_control_tables.sql") }];

/// Files that run on every setup.
const FUNCTIONS: &[&str] = &[
    include_str!("functions/mode.sql"),
    include_str!("functions/policy.sql"),
    include_str!("functions/journal.sql"),
    include_str!("functions/live_table.sql"),
    include_str!("functions/key_block.sql"),
    include_str!("functions/table_lock.sql"),
    include_str!("functions/staging.sql"),
    include_str!("functions/references.sql"),
    include_str!("functions/lock_references.sql"),
    include_str!("functions/statistics.sql"),
    include_str!("functions/key_map.sql"),
    include_str!("functions/rollback_plan.sql"),
    include_str!("functions/rollback.sql"),
];

pub(super) const VERSION: usize = MIGRATIONS.len();

pub(super) struct Setup<'a> {
    pub(super) names: &'a Names,
    pub(super) known: &'a PgCatalog,
    pub(super) destinations: &'a [Destination],
    pub(super) foreign_keys: ForeignKeys,
    pub(super) owner: &'a str,
    /// Whether conversion mode is required if the target has no policy yet.
    pub(super) requires_mode: bool,
}

impl Setup<'_> {
    /// Returns the script.
    ///
    /// # Errors
    /// If a table has no key.
    pub(super) fn script(&self) -> Result<String> {
        for destination in self.destinations {
            refuse_keyless(destination)?;
        }
        let mut sql = "-- Control schema, roles, and grants of `pipeline`. This script is idempotent.\n\n".to_owned();
        sql += &self.fill(include_str!("guard.sql"));
        sql.extend(["\nSET LOCAL ROLE ", &ident(self.owner), ";\n"]);
        sql += &self.fill(include_str!("trust.sql"));
        sql += &self.fill(include_str!("ledger.sql"));
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            sql += &template(
                include_str!("migration.sql"),
                &[
                    ("version", (at + 1).to_string()),
                    ("name", literal(migration.name)),
                    ("checksum", literal(&migration.checksum())),
                    ("sql", migration.sql.trim().to_owned()),
                ],
            );
        }
        for functions in FUNCTIONS {
            sql += "\n";
            sql += &self.fill(functions);
        }
        sql += "\n";
        sql += &self.fill(include_str!("grants.sql"));
        sql += &self.fill(include_str!("policy.sql"));
        for destination in self.destinations {
            sql += "\n";
            sql += &self.table(destination);
            sql += &commit_checks::register(self.names, self.known, destination);
        }
        sql += "\nRESET ROLE;\n";
        sql += &self.rights();
        Ok(sql)
    }

    /// Fills in the values that are constant for the whole script.
    fn fill(&self, text: &str) -> String {
        template(
            text,
            &[
                ("version", VERSION.to_string()),
                ("owner", ident(self.owner)),
                ("owner_text", literal(self.owner)),
                ("staging", ident(&self.names.staging)),
                ("staging_text", literal(&self.names.staging)),
                ("conversion_mode", self.requires_mode.to_string()),
                ("journal_version", journal::VERSION.to_string()),
                ("mark", MARK.to_owned()),
            ],
        )
    }

    /// Returns SQL for one table: its registration and its key map.
    fn table(&self, destination: &Destination) -> String {
        let id = self.known.id(self.names, &destination.table.name);
        let key = destination.assigned.as_ref().map(|assigned| &assigned.column);
        let sequence = self.known.sequence(self.names, destination);
        let text = |text: Option<&String>| text.map_or("NULL".to_owned(), |text| literal(text));
        let typed =
            |key: &String| format!("{} {} NOT NULL", ident(key), self.known.staged_as(&destination.table.name, key).1);
        let each = |write: &dyn Fn(&String) -> String| destination.key.iter().map(write).collect::<Vec<_>>().join(", ");
        let whole = include_str!("table.sql");
        // A table that is only referred to keeps the registration of a pipeline that loads it.
        let script = match (destination.is_referred_only, whole.find(REGISTRATION)) {
            (true, Some(at)) => format!(
                "DO $referred$\nBEGIN\nIF NOT EXISTS (SELECT FROM delta.loaded_table WHERE table_name = {{table_name}}) THEN\n{}END IF;\nEND\n$referred$;\n",
                &whole[at..]
            ),
            _ => whole.to_owned(),
        };
        template(
            &script,
            &[
                ("comment", id.key_map().replace(['\n', '\r'], " ")),
                ("table_name", literal(&id.key_map())),
                ("namespace", literal(&id.namespace)),
                ("relation", literal(&id.relation())),
                ("schema_name", literal(&id.schema)),
                ("relation_name", literal(&id.name)),
                ("key_columns", format!("ARRAY[{}]", each(&|key| literal(key)))),
                ("key_column", text(key)),
                ("sequence_schema", text(sequence.map(|sequence| &sequence.schema))),
                ("sequence_name", text(sequence.map(|sequence| &sequence.name))),
                ("key_map_view_name", literal(&id.key_map_view_name())),
                ("key_map_view", id.key_map_view()),
                ("mappings_name", literal(&id.mappings_name())),
                ("mappings", id.mappings()),
                ("mappings_text", literal(&id.mappings())),
                ("owner_text", literal(self.owner)),
                ("by_run_name", ident(&id.by_run_name())),
                ("staging_schema", literal(&self.names.staging)),
                ("staging_rows", literal(&id.staging_rows())),
                ("staging_keys", literal(&id.staging_keys())),
                ("is_loaded", (!destination.is_referred_only).to_string()),
                ("typed_key", each(&typed)),
                ("own_key", each(&|key| format!("m.{}", ident(key)))),
            ],
        )
    }

    /// Returns the grants of the loader on production: those that these tables need, and no more.
    fn rights(&self) -> String {
        let mut sql = "\n-- Production: the tables that the pipeline loads, and those that it reads.\n".to_owned();
        for right in rights(self.known, self.names, self.destinations) {
            sql.extend(["GRANT ", right.what, " ON ", &right.object(), " TO delta_loader;\n"]);
        }
        if self.foreign_keys == ForeignKeys::SetBased {
            sql += "-- `foreign_keys: set_based`: only a superuser can give a role this, and only PostgreSQL 15 or newer.\n\
                    DO $setup$\nBEGIN\n    IF current_setting('server_version_num')::integer >= 150000\n        \
                    AND (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) THEN\n        \
                    EXECUTE 'GRANT SET ON PARAMETER session_replication_role TO delta_loader';\n    END IF;\nEND\n$setup$;\n";
        }
        sql
    }
}

/// A right on an object of production that the loader needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) kind: Kind,
    /// Its schema; empty for a schema.
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) what: &'static str,
}

/// The kind of object that a right applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Schema,
    Table,
    Sequence,
}

impl Right {
    /// Returns the object in GRANT's notation.
    pub(super) fn object(&self) -> String {
        match self.kind {
            Kind::Schema => format!("SCHEMA {}", ident(&self.name)),
            Kind::Table => format!("TABLE {}", qualified(&self.schema, &self.name)),
            Kind::Sequence => format!("SEQUENCE {}", qualified(&self.schema, &self.name)),
        }
    }
}

/// Returns the rights that loads of these tables need. These are SELECT and INSERT on them, SELECT on tables that they refer to or read,
/// and USAGE of the schemas. Sequences that fill omitted columns need USAGE too.
pub(super) fn rights(known: &PgCatalog, names: &Names, destinations: &[Destination]) -> Vec<Right> {
    let mut rights = std::collections::BTreeSet::new();
    let mut add = |kind, schema: &str, name: &str, what| {
        rights.insert(Right { kind, schema: schema.to_owned(), name: name.to_owned(), what });
    };
    for destination in destinations {
        let Some(table) = known.tables.get(&destination.table.name) else { continue };
        let what = if destination.is_referred_only { "SELECT" } else { "SELECT, INSERT" };
        add(Kind::Table, &table.schema, &table.name, what);
        for schema in &table.type_schemas {
            add(Kind::Schema, "", schema, "USAGE");
        }
        if let Some(sequence) = known.sequence(names, destination) {
            add(Kind::Schema, "", &sequence.schema, "USAGE");
            add(Kind::Sequence, &sequence.schema, &sequence.name, "SELECT");
        }
        let by_default = |name: &String| !destination.columns.contains(name) || destination.evaluated.contains(name);
        let unfilled = table.columns.iter();
        let unfilled = unfilled.filter(|column| !destination.is_referred_only && by_default(&column.name));
        for column in unfilled {
            // A mock run reads the position of the sequence.
            let what = if destination.evaluated.contains(&column.name) { "SELECT, USAGE" } else { "USAGE" };
            for sequence in known.sequences_of(column) {
                add(Kind::Schema, "", &sequence.schema, "USAGE");
                add(Kind::Sequence, &sequence.schema, &sequence.name, what);
            }
        }
    }
    let loaded = |name: &String| destinations.iter().any(|destination| destination.table.name == *name);
    for name in destinations.iter().flat_map(|destination| &destination.reads).filter(|name| !loaded(name)) {
        if let Some(table) = known.tables.get(name) {
            add(Kind::Table, &table.schema, &table.name, "SELECT");
            for schema in &table.type_schemas {
                add(Kind::Schema, "", schema, "USAGE");
            }
        }
    }
    let schemas: Vec<_> =
        rights.iter().filter(|right| right.kind == Kind::Table).map(|right| right.schema.clone()).collect();
    rights.extend(schemas.into_iter().map(|name| Right {
        kind: Kind::Schema,
        schema: String::new(),
        name,
        what: "USAGE",
    }));
    rights.into_iter().collect()
}

/// Refuses a table without a key to identify its rows.
fn refuse_keyless(destination: &Destination) -> Result<()> {
    let table = &destination.table;
    let unknown: Vec<_> = destination.key.iter().filter(|key| table.column(key).is_none()).collect();
    if !unknown.is_empty() {
        return Err(Error::pipeline(format!("`{}` has no column {}", table.name, list(&unknown)))
            .hint("name one of its columns in the table's `key`; nothing was changed"));
    }
    if destination.key.is_empty() {
        return Err(Error::pipeline(format!("`{}` has no key: a load could not find its own rows again", table.name))
            .hint("give the table a primary key, or name a unique column in the pipeline file: `key: { column: … }`; nothing was changed"));
    }
    Ok(())
}

/// The beginning of the part of `table.sql` that registers a table.
const REGISTRATION: &str = "INSERT INTO delta.loaded_table";

/// The quotes around blocks in the files, and around a block that contains such blocks.
const QUOTES: [&str; 2] = ["$setup$", "$referred$"];

/// Fills in `{name}` placeholders. Filled-in text is not expanded again, and cannot end the quoted block around it.
fn template(text: &str, values: &[(&str, String)]) -> String {
    let mut text = text.to_owned();
    for known in QUOTES {
        let mut quote = known.to_owned();
        while values.iter().any(|(_, value)| value.contains(&quote)) {
            quote.insert(1, 's');
        }
        text = text.replace(known, &quote);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('{') {
        let (before, behind) = rest.split_at(at);
        filled += before;
        let found = values.iter().find(|(name, _)| behind[1..].starts_with(&format!("{name}}}")));
        match found {
            Some((name, value)) => {
                filled += value;
                rest = &behind[name.len() + 2..];
            }
            None => {
                filled.push('{');
                rest = &behind[1..];
            }
        }
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_looks_like_a_placeholder_stays_as_it_is() {
        let values = [("a", "{b}".to_owned()), ("b", "x".to_owned())];
        assert_eq!(template("{a} {b} {c} {", &values), "{b} x {c} {");
    }

    #[test]
    fn a_name_does_not_end_the_block_that_it_is_in() {
        let values = [("name", "'x$setup$; DROP TABLE account; --'".to_owned())];
        let filled = template("DO $setup$ SELECT {name} $setup$;", &values);
        assert_eq!(filled, "DO $ssetup$ SELECT 'x$setup$; DROP TABLE account; --' $ssetup$;");
        let values = [("name", "'$referred$'".to_owned())];
        let filled = template("DO $referred$ DO $setup$ SELECT {name} $setup$; $referred$;", &values);
        assert_eq!(filled, "DO $sreferred$ DO $setup$ SELECT '$referred$' $setup$; $sreferred$;");
    }

    #[test]
    fn every_placeholder_of_the_files_is_filled_in() {
        let known = PgCatalog::default();
        let names = Names {
            shown: String::new(),
            production: "public".into(),
            schemas: Vec::new(),
            staging: "staging".into(),
            namespace: String::new(),
        };
        let table = crate::target::CatalogTable {
            name: "t".into(),
            columns: vec![crate::target::CatalogColumn {
                name: "id".into(),
                declared: "bigint".into(),
                data_type: arrow::datatypes::DataType::Int64,
                not_null: true,
                has_default: false,
                generated: false,
                max_length: None,
                significant_digits: None,
                form: crate::target::LogicalType::Plain,
            }],
            ..Default::default()
        };
        let destination = Destination {
            table: table.into(),
            columns: vec!["id".into()],
            key: vec!["id".into()],
            assigned: None,
            evaluated: Vec::new(),
            is_referred_only: false,
            self_referencing: false,
            commit_checks: Vec::new(),
            changed: Vec::new(),
            reads: Vec::new(),
        };
        let setup = Setup {
            names: &names,
            known: &known,
            destinations: &[destination],
            foreign_keys: ForeignKeys::SetBased,
            owner: "dba",
            requires_mode: true,
        };
        let script = setup.script().unwrap();
        let left: Vec<_> = script
            .match_indices('{')
            .map(|(at, _)| &script[at..(at + 20).min(script.len())])
            .filter(|text| text[1..].starts_with(|letter: char| letter.is_ascii_lowercase()) && text.contains('}'))
            .filter(|text| !text.contains(','))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
