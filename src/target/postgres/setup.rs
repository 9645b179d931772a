//! What `setup` makes: the control schema, the definer functions, the two roles and their grants, as one script that a DBA
//! can read before it runs.

use std::fmt::Write;

use super::catalog::PgCatalog;
use super::names::{Names, qualified};
use crate::engine::{ident, literal};
use crate::spec::ForeignKeys;
use crate::target::Destination;

/// The version of the control schema.
pub(super) const VERSION: i32 = 2;

/// How the mappings of one run are found in a history. No BRIN: what was just appended is in none of its summaries, and that is what is read.
const BY_RUN: &str = "(run)";

/// The script for these tables.
pub(super) fn script(
    names: &Names,
    known: &PgCatalog,
    destinations: &[Destination],
    foreign_keys: ForeignKeys,
) -> String {
    let mut sql = include_str!("setup.sql")
        .replace("{version}", &VERSION.to_string())
        .replace("{by_run}", BY_RUN)
        .replace("{staging}", &ident(&names.staging))
        .replace("{production}", &ident(&names.production));
    for destination in destinations {
        table(&mut sql, names, known, destination).ok();
    }
    if foreign_keys == ForeignKeys::SetBased {
        sql += "\n-- `foreign_keys: set_based`: PostgreSQL 15 lets a role be given this; before, only superusers can.\n\
                GRANT SET ON PARAMETER session_replication_role TO delta_loader;\n";
    }
    sql
}

/// What one table needs: its row in the register, its key map's history, and the right to insert.
fn table(sql: &mut String, names: &Names, known: &PgCatalog, destination: &Destination) -> std::fmt::Result {
    let name = &destination.table.name;
    let Some(found) = known.tables.get(name) else { return Ok(()) };
    let [staged, _] = Names::staging_names(name);
    let key = destination.key.first().filter(|_| destination.assigned.is_some());
    let sequence = known.sequence(destination);
    let text = |text: Option<&String>| text.map_or("NULL".to_owned(), |text| literal(text));
    let keys: Vec<_> = destination.key.iter().map(|key| ident(key)).collect();
    let typed: Vec<_> =
        destination.key.iter().map(|key| format!("{} {} NOT NULL", ident(key), known.staged_as(name, key).1)).collect();
    let history = Names::history(name);
    write!(
        sql,
        "\nINSERT INTO delta.loaded_table VALUES ({name}, {schema}, {staging}, {staged}, {key}, {sequence_schema}, {sequence_name},
        {history_name}, ARRAY[{key_names}]::text[])
    ON CONFLICT (table_name) DO UPDATE SET schema_name = excluded.schema_name, staging_schema = excluded.staging_schema,
        staging_table = excluded.staging_table, key_column = excluded.key_column,
        sequence_schema = excluded.sequence_schema, sequence_name = excluded.sequence_name,
        history = excluded.history, key_columns = excluded.key_columns;
CREATE TABLE IF NOT EXISTS {history} (
    legacy_key text COLLATE \"C\" PRIMARY KEY, {typed}, run text NOT NULL, UNIQUE ({keys}));
CREATE INDEX IF NOT EXISTS {by_run} ON {history} {BY_RUN};
INSERT INTO delta.segment SELECT {name}, run, count(*) FROM {history}
    WHERE NOT EXISTS (SELECT FROM delta.segment WHERE table_name = {name}) GROUP BY run;
GRANT SELECT ON {history} TO delta_loader, delta_rollback;
GRANT INSERT ON {history} TO delta_loader;
GRANT INSERT ON {live} TO delta_loader;
",
        name = literal(name),
        by_run = ident(&Names::by_run_name(name)),
        schema = literal(&found.schema),
        staging = literal(&names.staging),
        staged = literal(&staged),
        key = text(key),
        sequence_schema = text(sequence.map(|sequence| &sequence.schema)),
        sequence_name = text(sequence.map(|sequence| &sequence.name)),
        history_name = literal(&Names::history_name(name)),
        key_names = destination.key.iter().map(|key| literal(key)).collect::<Vec<_>>().join(", "),
        typed = typed.join(", "),
        keys = keys.join(", "),
        live = qualified(&found.schema, &found.name),
    )?;
    if let Some(sequence) = sequence {
        writeln!(sql, "GRANT SELECT ON SEQUENCE {} TO delta_loader;", qualified(&sequence.schema, &sequence.name))?;
    }
    Ok(())
}
