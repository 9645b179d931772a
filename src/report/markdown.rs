//! Reports as Markdown, for the summary of a GitHub job or a merge request.

use std::fmt::Write as _;

use super::escape::markdown as escaped;
use super::text::{headline, number, running};
use super::{Report, TableReport, Verdict};
use crate::journal::{Journal, Phase};
use crate::spec::Severity;

/// The beginning of a Markdown report.
pub const BEGINNING: &str = "<!-- delta-pipeline report -->\n";

/// The largest number of checks that are listed.
const CHECKS: usize = 50;

/// Formats a report as Markdown.
pub fn markdown(report: &Report, journal: Option<&Journal>) -> String {
    let state = journal.and_then(Journal::state);
    let sign = match report.verdict {
        Verdict::Failed => "❌",
        Verdict::Empty => "➖",
        _ if state.is_some_and(|state| state.phase > Phase::Verified || state.is_unfinished()) => "⚠️",
        Verdict::Passed | Verdict::Loaded => "✅",
    };
    let mut text =
        format!("{BEGINNING}## {sign} {}: {}\n\n", escaped(&report.pipeline), escaped(&headline(report, state)));
    for reason in &report.reasons {
        let _infallible = writeln!(text, "- **failed:** {}", escaped(reason));
    }
    for warning in &report.warnings {
        let _infallible = writeln!(text, "- warning: {}", escaped(warning));
    }
    let last = if running(report) { "inserted" } else { "accepted" };
    let _infallible = write!(
        text,
        "\n| table | read | rejected | skipped | {last} | keys |\n| :-- | --: | --: | --: | --: | :-- |\n"
    );
    for table in &report.tables {
        let keys =
            table.keys.as_ref().map_or(String::new(), |(from, to)| format!("{} – {}", escaped(from), escaped(to)));
        let _infallible = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {keys} |",
            escaped(&table.name),
            number(table.read),
            number(table.rejected),
            number(table.skipped),
            number(if running(report) { table.inserted } else { table.accepted }),
        );
    }
    text += &violations(report);
    if let Some(rejects) = &report.rejects {
        let _infallible = writeln!(text, "\nAll rejected rows: {}", escaped(rejects));
    }
    if let Some(journal) = journal {
        let timeline = super::timeline(journal.entries());
        let lines: Vec<_> = timeline.lines().map(|line| format!("- {}", escaped(line.trim()))).collect();
        let _infallible =
            write!(text, "\n<details><summary>Run history</summary>\n\n{}\n\n</details>\n", lines.join("\n"));
    }
    let seconds: f64 = report.steps.iter().map(|timing| timing.seconds).sum();
    let _infallible =
        writeln!(text, "\n<sub>run {} · {} · {seconds:.2} s</sub>", escaped(&report.run), escaped(&report.target));
    text
}

/// Returns the table of checks with violations, largest first.
fn violations(report: &Report) -> String {
    let rows = |table: &TableReport| -> Vec<(u64, String)> {
        let failing = table.checks.iter().filter(|check| check.violations > 0);
        let row = |check: &super::CheckReport| {
            let effect = if check.severity == Severity::Error { "rejected" } else { "warned" };
            let first = check.evidence.as_ref().and_then(|evidence| evidence.examples.first());
            let (location, value) = first.map_or_else(Default::default, |first| {
                (format!("{}:{}", first.file, first.line), first.value.clone().unwrap_or_default())
            });
            let cells = [&table.name, &check.name, &number(check.violations), effect, &location, &value];
            let cells: Vec<_> = cells.iter().map(|cell| escaped(cell)).collect();
            (check.violations, format!("| {} |\n", cells.join(" | ")))
        };
        failing.map(row).collect()
    };
    let mut rows: Vec<_> = report.tables.iter().flat_map(rows).collect();
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let more = rows.len().saturating_sub(CHECKS);
    rows.truncate(CHECKS);
    let rows: String = rows.into_iter().map(|(_, row)| row).collect();
    let more = if more == 0 { String::new() } else { format!("\n… and {more} more checks\n") };
    format!("\n| table | check | rows | | first at | value |\n| :-- | :-- | --: | :-- | :-- | :-- |\n{rows}{more}")
}
