//! `pipeline explain`: the plan as SQL, with the origin of each check, and with measurements if `--analyze` is given.

use std::fmt::Write as _;
use std::time::Duration;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use sqlformat::{FormatOptions, QueryParams};

use crate::engine::{Operator, ident};
use crate::plan::{Check, CheckKind, CheckOrigin, ColumnSource, Key, Table};
use crate::report::check_sql;
use crate::run::RunContext;
use crate::run::analyze::Analysis;

/// Longer descriptions of operators are cut, since they do not fit on a line.
const LONGEST_OPERATOR: usize = 110;

/// Returns the SQL of each table: the query for its rows, its checks, and its insert.
pub(super) fn text<T>(session: &RunContext<T>, analysis: Option<&Analysis>) -> String {
    let mut out = String::new();
    for (index, (table, source)) in session.compiled.plan.tables.iter().zip(&session.compiled.sources).enumerate() {
        let files: Vec<_> = source.files().iter().map(|file| file.name.as_str()).collect();
        let _infallible = writeln!(out, "-- {} from {}", table.name, files.join(", "));
        if let Some(checked) = analysis.map(|analysis| &analysis.examined[index]) {
            let _infallible = writeln!(
                out,
                "-- {} rows read, {} rejected, {} skipped, {} accepted",
                checked.read(),
                checked.rejected(),
                checked.skipped(),
                checked.accepted()
            );
        }
        let _infallible = writeln!(out, "{};\n", pretty(&rows(table)));
        for number in 0..table.checks.len() {
            write_check(&mut out, table, number, analysis.map(|analysis| (analysis, index)));
        }
        for constraint in &table.enforced_by_database {
            let _infallible = writeln!(out, "-- enforced by production only: {constraint}\n");
        }
        for check in &table.skipped_checks {
            let _infallible = writeln!(out, "-- skipped, because no target is configured: {check}\n");
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

/// Writes a check with its origin and SQL. If the plan was analyzed, also writes the measurements; the index is that of the table.
fn write_check(out: &mut String, table: &Table, number: usize, analysis: Option<(&Analysis, usize)>) {
    let check = &table.checks[number];
    let severity = if check.severity == crate::spec::Severity::Warn { "; warns" } else { "" };
    let _infallible = writeln!(out, "-- {} ({}{severity})", check.name, origin(table, check));
    if let Some((analysis, index)) = analysis {
        let _infallible = writeln!(out, "-- {} rows fail", analysis.examined[index].findings.of(number).len());
    }
    let sql = check_sql(table, &check.kind);
    let end = if sql.starts_with("--") { "" } else { ";" };
    let _infallible = writeln!(out, "{}{end}", pretty(&sql));
    for query in analysis.iter().flat_map(|(analysis, _)| &analysis.queries) {
        if query.about.0 == table.name && query.about.1 == check.name {
            write_operators(out, &query.operators());
        }
    }
    out.push('\n');
}

/// Returns the number of checks of each table. If `all`, also lists the checks of production and of the file, with their origins.
pub(super) fn checks<T>(session: &RunContext<T>, all: bool) -> String {
    let mut out = String::new();
    for table in &session.compiled.plan.tables {
        let all_origins = || table.checks.iter().map(|check| &check.origin);
        let builtin = all_origins().filter(|origin| **origin == CheckOrigin::Builtin).count();
        let catalog = all_origins().filter(|origin| matches!(origin, CheckOrigin::Catalog(_))).count();
        let declared = table.checks.len() - builtin - catalog;
        let _infallible = writeln!(
            out,
            "  {}: {} checks: {builtin} built-in, {catalog} from production, {declared} from the pipeline file",
            table.name,
            table.checks.len()
        );
        for check in table.checks.iter().filter(|check| all && check.origin != CheckOrigin::Builtin) {
            let _infallible = writeln!(out, "    {}  ({})", check.name, origin(table, check));
        }
        for constraint in &table.enforced_by_database {
            let _infallible = writeln!(out, "    enforced by production only: {constraint}");
        }
        if table.triggered.is_empty() {
            for trigger in &table.catalog.deciding_triggers {
                let _infallible = writeln!(
                    out,
                    "    trigger {trigger}: if it fills or changes columns of inserted rows, name them under `triggers`"
                );
            }
        }
    }
    out
}

/// Returns the origin of a check: the constraint with its columns and its name, or the path in the pipeline file.
fn origin(table: &Table, check: &Check) -> String {
    let declared = |name: &String| table.catalog.column(name).map_or("", |column| column.declared.as_str());
    match (&check.origin, &check.kind, check.columns.as_slice()) {
        (CheckOrigin::Builtin, ..) => "built-in".to_owned(),
        (CheckOrigin::File(path), ..) => format!("pipeline file: {}", path.join(".")),
        (CheckOrigin::Catalog(rule), CheckKind::Unique(unique), columns) => {
            let constraint = table.catalog.uniques.iter().find(|other| other.columns == unique.columns);
            let name = constraint.map(|other| other.name.as_str()).filter(|name| !name.is_empty());
            let name = name.map_or(String::new(), |name| format!(", constraint {name}"));
            format!("production: {rule} ({}){name}", columns.join(", "))
        }
        (CheckOrigin::Catalog(rule), CheckKind::ForeignKey { columns, .. }, _) => {
            format!("production: FOREIGN KEY ({}) {rule}", columns.join(", "))
        }
        (CheckOrigin::Catalog(rule), _, [column]) if rule == declared(column) => format!("production: {column} {rule}"),
        (CheckOrigin::Catalog(rule), _, [column]) if !rule.starts_with("CHECK") => {
            format!("production: {column} {} {rule}", declared(column))
        }
        (CheckOrigin::Catalog(rule), ..) => format!("production: {rule}"),
    }
}

/// Writes the operators of a query, each with its row count and its time.
fn write_operators(out: &mut String, operators: &[Operator]) {
    let _infallible = writeln!(out, "--       rows        time  operator");
    for operator in operators {
        let rows = operator.rows.map_or("-".to_owned(), |rows| rows.to_string());
        let time = operator.time.map_or("-".to_owned(), milliseconds);
        let name: String = operator.what.chars().take(LONGEST_OPERATOR).collect();
        let more = if name.len() < operator.what.len() { "…" } else { "" };
        let _infallible = writeln!(out, "-- {rows:>10}  {time:>10}  {}{name}{more}", "  ".repeat(operator.depth));
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

/// Formats SQL over several lines. Returns it unchanged if formatting would change more than whitespace.
fn pretty(sql: &str) -> String {
    let options = FormatOptions {
        joins_as_top_level: true,
        max_inline_block: 100,
        max_inline_arguments: Some(100),
        max_inline_top_level: Some(100),
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

/// Returns the SELECT that computes the rows of a table.
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
            ColumnSource::Default => "DEFAULT".to_owned(),
            ColumnSource::Reference(index) => {
                let reference = &table.references[*index];
                let by = if reference.by.is_empty() { "legacy_key".to_owned() } else { reference.by.join(", ") };
                let only = reference.condition.as_ref().map_or(String::new(), |only| format!(" AND {}", only.sql));
                format!("key_of({}, {by} = {}{only})", reference.to, reference.from)
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
    fn formatting_changes_only_whitespace() {
        let long = "SELECT a, b FROM t WHERE a IS NOT NULL AND b NOT IN ('x  y', 'it''s') AND NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.b <> t.b AND u.c = 'ccc')";
        let formatted = pretty(long);
        assert!(formatted.lines().count() > 3, "{formatted}");
        assert!(formatted.contains("'x  y', 'it''s'"), "{formatted}");
        for odd in ["SELECT 1e5, a->'b', x::text -- why\nFROM t", "nothing of SQL '", ""] {
            assert!(pretty(odd) == odd || pretty(odd).split_whitespace().eq(odd.split_whitespace()), "{odd}");
        }
    }
}
