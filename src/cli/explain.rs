//! `explain`: what runs, as SQL.

use std::fmt::Write as _;

use crate::engine::ident;
use crate::plan::{Fill, Key, Table};
use crate::report::{check_sql, origin};
use crate::run::Session;

/// Every table of the plan: how its rows are made, what they are held against, and how they are inserted.
pub(super) fn text(session: &Session) -> String {
    let mut out = String::new();
    for (table, source) in session.compiled.plan.tables.iter().zip(&session.compiled.sources) {
        let files: Vec<_> = source.files().iter().map(|file| file.name.as_str()).collect();
        let _infallible = writeln!(out, "-- {} from {}\n{}", table.name, files.join(", "), rows(table));
        for check in &table.checks {
            let sql = check_sql(table, &check.kind);
            let severity = if check.severity == crate::spec::Severity::Warn { ", warns" } else { "" };
            let _infallible = writeln!(out, "-- {} ({}{severity})\n{sql};\n", check.name, origin(&check.origin));
        }
        for constraint in &table.left_to_production {
            let _infallible = writeln!(out, "-- left to production: {constraint}");
        }
        let columns: Vec<_> = table.columns.iter().map(|column| ident(&column.name)).collect();
        let columns = columns.join(", ");
        let name = ident(&table.name);
        let _infallible = writeln!(
            out,
            "INSERT INTO production.{name} ({columns})\nSELECT {columns} FROM staging.{name} ORDER BY _row;\n"
        );
    }
    out
}

/// How the rows of a table are made, as one SELECT.
fn rows(table: &Table) -> String {
    let mut lines = vec![format!("  {} AS _key", table.legacy_key)];
    for column in &table.columns {
        let sql = match &column.fill {
            Fill::Computed(sql) => sql.trim().to_owned(),
            Fill::Key => match &table.key {
                Key::Assigned { start, .. } => {
                    format!("start_row_number({start}) + row_number() OVER (ORDER BY file, line) - 1")
                }
                _ => String::new(),
            },
            Fill::Reference(which) => {
                let reference = &table.references[*which];
                match &reference.by {
                    Some(by) => format!("key_of({}, {by} = {})", reference.to, reference.from),
                    None => format!("key_of({}, legacy_key = {})", reference.to, reference.from),
                }
            }
        };
        lines.push(format!("  {sql} AS {}", ident(&column.name)));
    }
    let filter = table.filter.as_ref().map_or(String::new(), |filter| format!("\nWHERE {filter}"));
    format!("SELECT\n{}\nFROM source{filter};\n", lines.join(",\n"))
}
