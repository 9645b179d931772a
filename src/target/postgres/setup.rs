//! What `setup` makes: the control schema, the definer functions, the two roles and their grants, as one script that a DBA
//! can read before it runs.

use std::fmt::Write;

use super::catalog::PgCatalog;
use super::history::integer_key;
use super::names::{CONTROL, Names, qualified};
use crate::engine::{ident, literal};
use crate::spec::ForeignKeys;
use crate::target::Destination;

/// The version of the control schema.
pub(super) const VERSION: i32 = 5;

/// The script for these tables.
pub(super) fn script(
    names: &Names,
    known: &PgCatalog,
    destinations: &[Destination],
    foreign_keys: ForeignKeys,
) -> String {
    let mut sql = include_str!("setup.sql")
        .replace("{version}", &VERSION.to_string())
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
    // The mappings of a run count when the ledger has its segment, which comes with its rows: so they are brought beside the rows. The key
    // map is what counts. Mappings of a run lie side by side, so that an index of where each run's are costs next to nothing.
    write!(
        sql,
        "
INSERT INTO delta.loaded_table (table_name, schema_name, staging_schema, staging_table, key_column, sequence_schema, sequence_name,
        history, key_columns, mappings)
    VALUES ({name}, {schema}, {staging}, {staged}, {key}, {sequence_schema}, {sequence_name},
        {history_name}, ARRAY[{key_names}]::text[], {mappings_name})
    ON CONFLICT (table_name) DO UPDATE SET schema_name = excluded.schema_name, staging_schema = excluded.staging_schema,
        staging_table = excluded.staging_table, key_column = excluded.key_column,
        sequence_schema = excluded.sequence_schema, sequence_name = excluded.sequence_name,
        history = excluded.history, key_columns = excluded.key_columns, mappings = excluded.mappings;
DO $setup$
BEGIN
    -- Until version 2 the key map was a table of its own.
    IF (SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({history_text})) = 'r' THEN
        ALTER TABLE {history} RENAME TO {mappings_ident};
        ALTER TABLE {mappings} ALTER COLUMN run TYPE text COLLATE \"C\";
        EXECUTE (SELECT coalesce(pg_catalog.string_agg(pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I',
                conrelid::pg_catalog.regclass, conname), '; '), 'SELECT')
            FROM pg_catalog.pg_constraint WHERE conrelid = {mappings_text}::pg_catalog.regclass AND contype = 'u');
        DROP INDEX IF EXISTS {by_run_qualified};
        INSERT INTO delta.segment SELECT {name}, run, count(*) FROM {mappings}
            WHERE NOT EXISTS (SELECT FROM delta.segment WHERE table_name = {name}) GROUP BY run;
    END IF;
    -- Until version 3 the index had the keys.
    IF (SELECT m.amname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
        WHERE c.oid = pg_catalog.to_regclass({by_run_text})) = 'btree' THEN
        DROP INDEX {by_run_qualified};
    END IF;
END
$setup$;
CREATE TABLE IF NOT EXISTS {mappings} (
    legacy_key text COLLATE \"C\" PRIMARY KEY, {typed}, run text COLLATE \"C\" NOT NULL);
CREATE INDEX IF NOT EXISTS {by_run} ON {mappings} USING brin (run);
{ends}CREATE OR REPLACE VIEW {history} AS SELECT m.legacy_key, {own_keys}, m.run FROM {mappings} AS m
    WHERE EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = {name} AND s.run = m.run);
GRANT SELECT ON {history} TO delta_loader, delta_rollback;
GRANT SELECT, INSERT ON {mappings} TO delta_loader;
GRANT INSERT ON {live} TO delta_loader;
",
        name = literal(name),
        by_run = ident(&Names::by_run_name(name)),
        by_run_qualified = qualified(CONTROL, &Names::by_run_name(name)),
        by_run_text = literal(&qualified(CONTROL, &Names::by_run_name(name))),
        ends = ends(destination),
        mappings = Names::mappings(name),
        mappings_ident = ident(&Names::mappings_name(name)),
        mappings_name = literal(&Names::mappings_name(name)),
        mappings_text = literal(&Names::mappings(name)),
        history_text = literal(&history),
        own_keys = keys.iter().map(|key| format!("m.{key}")).collect::<Vec<_>>().join(", "),
        schema = literal(&found.schema),
        staging = literal(&names.staging),
        staged = literal(&staged),
        key = text(key),
        sequence_schema = text(sequence.map(|sequence| &sequence.schema)),
        sequence_name = text(sequence.map(|sequence| &sequence.name)),
        history_name = literal(&Names::history_name(name)),
        key_names = destination.key.iter().map(|key| literal(key)).collect::<Vec<_>>().join(", "),
        typed = typed.join(", "),
        live = qualified(&found.schema, &found.name),
    )?;
    if let Some(sequence) = sequence {
        writeln!(sql, "GRANT SELECT ON SEQUENCE {} TO delta_loader;", qualified(&sequence.schema, &sequence.name))?;
    }
    Ok(())
}

/// SQL that notes the ends of the keys of segments that are older than the ledger's columns for them.
fn ends(destination: &Destination) -> String {
    let name = literal(&destination.table.name);
    let Some(key) = integer_key(destination).map(|key| ident(key)) else { return String::new() };
    format!(
        "DO $setup$
BEGIN
    IF EXISTS (SELECT FROM delta.segment WHERE table_name = {name} AND last_key IS NULL) THEN
        UPDATE delta.segment AS s SET first_key = m.first, last_key = m.last
            FROM (SELECT run, min({key}) AS first, max({key}) AS last FROM {} GROUP BY run) AS m
            WHERE s.table_name = {name} AND s.run = m.run AND s.last_key IS NULL;
    END IF;
END
$setup$;
",
        Names::mappings(&destination.table.name)
    )
}
