//! `explain`: what runs, as SQL, with the constraint that each check comes from; and with `--analyze`, what it did.

use std::fmt::Write as _;
use std::time::Duration;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use sqlformat::{Dialect, FormatOptions, QueryParams};

use crate::engine::{Operator, ident};
use crate::plan::{Check, CheckKind, CheckOrigin, ColumnSource, Key, Table};
use crate::report::check_sql;
use crate::run::RunContext;
use crate::run::analyze::Analysis;

/// A name longer than this says nothing more.
const LONGEST_OPERATOR: usize = 110;

/// Every table of the plan: how its rows are made, what they are held against, and how they are inserted.
pub(super) fn text<T>(session: &RunContext<T>, analysis: Option<&Analysis>) -> String {
    let mut out = String::new();
    for (at, (table, source)) in session.compiled.plan.tables.iter().zip(&session.compiled.sources).enumerate() {
        let files: Vec<_> = source.files().iter().map(|file| file.name.as_str()).collect();
        let _infallible = writeln!(out, "-- {} from {}", table.name, files.join(", "));
        if let Some(examined) = analysis.map(|analysis| &analysis.examined[at]) {
            let _infallible = writeln!(
                out,
                "-- {} rows read, {} rejected, {} skipped, {} accepted",
                examined.read(),
                examined.rejected(),
                examined.skipped(),
                examined.accepted()
            );
        }
        let _infallible = writeln!(out, "{};\n", pretty(&rows(table)));
        for (number, check) in table.checks.iter().enumerate() {
            let severity = if check.severity == crate::spec::Severity::Warn { "; warns" } else { "" };
            let _infallible = writeln!(out, "-- {} ({}{severity})", check.name, from(table, check));
            if let Some(analysis) = analysis {
                let fail = analysis.examined[at].findings.of(number).len();
                let _infallible = writeln!(out, "-- {fail} rows fail");
            }
            let sql = check_sql(table, &check.kind);
            let end = if sql.starts_with("--") { "" } else { ";" };
            let _infallible = writeln!(out, "{}{end}", pretty(&sql));
            for seen in analysis.iter().flat_map(|analysis| &analysis.queries) {
                if seen.about.0 == table.name && seen.about.1 == check.name {
                    operators(&mut out, &seen.operators());
                }
            }
            out.push('\n');
        }
        for constraint in &table.enforced_by_database {
            let _infallible = writeln!(out, "-- left to production: {constraint}\n");
        }
        for check in &table.skipped_checks {
            let _infallible = writeln!(out, "-- not asked, since there is no target: {check}\n");
        }
        let columns: Vec<_> = table.columns.iter().map(|column| ident(&column.name)).collect();
        let columns = columns.join(", ");
        let name = ident(&table.name);
        let insert =
            format!("INSERT INTO production.{name} ({columns}) SELECT {columns} FROM staging.{name} ORDER BY _row");
        let _infallible = writeln!(out, "{};\n", pretty(&insert));
    }
    if let Some(analysis) = analysis {
        let steps = analysis.steps.iter().map(|timing| format!("{} {:.2} s", timing.step.doing(), timing.seconds));
        let _infallible = writeln!(out, "-- {}; nothing was written", steps.collect::<Vec<_>>().join(" · "));
    }
    out
}

/// The tables with their numbers of checks; and where wanted, each check of production with the constraint that it comes from.
pub(super) fn checks<T>(session: &RunContext<T>, all: bool) -> String {
    let mut out = String::new();
    for table in &session.compiled.plan.tables {
        let count =
            |wanted: &dyn Fn(&CheckOrigin) -> bool| table.checks.iter().filter(|check| wanted(&check.origin)).count();
        let (always, catalog) = (
            count(&|origin| *origin == CheckOrigin::Builtin),
            count(&|origin| matches!(origin, CheckOrigin::Catalog(_))),
        );
        let declared = table.checks.len() - always - catalog;
        let _infallible = writeln!(
            out,
            "  {}: {} checks: {always} of every run, {catalog} of production, {declared} of the pipeline file",
            table.name,
            table.checks.len()
        );
        for check in table.checks.iter().filter(|check| all && check.origin != CheckOrigin::Builtin) {
            let _infallible = writeln!(out, "    {}  ({})", check.name, from(table, check));
        }
        for constraint in &table.enforced_by_database {
            let _infallible = writeln!(out, "    left to production: {constraint}");
        }
    }
    out
}

/// Where a check comes from: the constraint, with its columns and its name, or the place in the pipeline file.
fn from(table: &Table, check: &Check) -> String {
    let declared = |name: &String| table.catalog.column(name).map_or("", |column| column.declared.as_str());
    match (&check.origin, &check.kind, check.columns.as_slice()) {
        (CheckOrigin::Builtin, ..) => "every run".to_owned(),
        (CheckOrigin::File(at), ..) => format!("pipeline file: {}", at.join(".")),
        (CheckOrigin::Catalog(what), CheckKind::Unique(unique), columns) => {
            let named = table.catalog.uniques.iter().find(|found| found.columns == unique.columns);
            let name = named.map(|found| found.name.as_str()).filter(|name| !name.starts_with("sqlite_autoindex"));
            let name = name.map_or(String::new(), |name| format!(", constraint {name}"));
            format!("production: {what} ({}){name}", columns.join(", "))
        }
        (CheckOrigin::Catalog(what), CheckKind::ForeignKey { columns, .. }, _) => {
            format!("production: FOREIGN KEY ({}) {what}", columns.join(", "))
        }
        (CheckOrigin::Catalog(what), _, [column]) if what == declared(column) => format!("production: {column} {what}"),
        (CheckOrigin::Catalog(what), _, [column]) if !what.starts_with("CHECK") => {
            format!("production: {column} {} {what}", declared(column))
        }
        (CheckOrigin::Catalog(what), ..) => format!("production: {what}"),
    }
}

/// The operators of a query, each with its rows and its time.
fn operators(out: &mut String, operators: &[Operator]) {
    let _infallible = writeln!(out, "--       rows        time  operator");
    for operator in operators {
        let rows = operator.rows.map_or("-".to_owned(), |rows| rows.to_string());
        let time = operator.time.map_or("-".to_owned(), milliseconds);
        let what: String = operator.what.chars().take(LONGEST_OPERATOR).collect();
        let more = if what.len() < operator.what.len() { "…" } else { "" };
        let _infallible = writeln!(out, "-- {rows:>10}  {time:>10}  {}{what}{more}", "  ".repeat(operator.depth));
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

/// SQL over several lines. Where formatting would change more than blanks, it is left as it is.
fn pretty(sql: &str) -> String {
    let options = FormatOptions {
        joins_as_top_level: true,
        max_inline_block: 100,
        max_inline_arguments: Some(100),
        max_inline_top_level: Some(100),
        dialect: Dialect::PostgreSql,
        ..FormatOptions::default()
    };
    let formatted = sqlformat::format(sql, &QueryParams::None, &options);
    let tokens = |sql: &str| -> Option<Vec<Token>> {
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().ok()?;
        Some(tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect())
    };
    let same = tokens(sql).is_some_and(|before| tokens(&formatted) == Some(before));
    if same && !sql.contains("--") && !sql.contains("/*") { formatted } else { sql.to_owned() }
}

/// How the rows of a table are made, as one SELECT.
fn rows(table: &Table) -> String {
    let mut lines = vec![format!("  {} AS _key", table.legacy_key)];
    for column in &table.columns {
        let sql = match &column.fill {
            ColumnSource::Computed(sql) => sql.trim().to_owned(),
            ColumnSource::Key => match &table.key {
                Key::Assigned { start, .. } => {
                    format!("start_row_number({start}) + row_number() OVER (ORDER BY file, line) - 1")
                }
                _ => String::new(),
            },
            ColumnSource::Reference(which) => {
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
    format!("SELECT\n{}\nFROM source{filter}", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn formatting_changes_nothing_but_blanks() {
        let long = "SELECT a, b FROM t WHERE a IS NOT NULL AND b NOT IN ('x  y', 'it''s') AND NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.b <> t.b AND u.c = 'ccc')";
        let formatted = pretty(long);
        assert!(formatted.lines().count() > 3, "{formatted}");
        assert!(formatted.contains("'x  y', 'it''s'"), "{formatted}");
        for odd in ["SELECT 1e5, a->'b', x::text -- why\nFROM t", "nothing of SQL '", ""] {
            assert!(pretty(odd) == odd || pretty(odd).split_whitespace().eq(odd.split_whitespace()), "{odd}");
        }
    }
}
