//! A report as Markdown: a summary for a GitHub job or a merge request.

use std::fmt::Write as _;

use super::escape::markdown as escaped;
use super::text::{headline, number, running};
use super::{Report, TableReport, Verdict};
use crate::journal::{Journal, Phase};
use crate::spec::Severity;

/// What a Markdown report begins with.
pub const BEGINNING: &str = "<!-- delta-pipeline report -->\n";

/// Checks that are listed; the others are counted.
const CHECKS: usize = 50;

/// The report as Markdown.
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
        let _infallible = writeln!(text, "\nEvery rejected row: {}", escaped(rejects));
    }
    if let Some(journal) = journal {
        let story = super::story(journal.entries());
        let lines: Vec<_> = story.lines().map(|line| format!("- {}", escaped(line.trim()))).collect();
        let _infallible =
            write!(text, "\n<details><summary>The story of the run</summary>\n\n{}\n\n</details>\n", lines.join("\n"));
    }
    let seconds: f64 = report.steps.iter().map(|timing| timing.seconds).sum();
    let _infallible =
        writeln!(text, "\n<sub>run {} · {} · {seconds:.2} s</sub>", escaped(&report.run), escaped(&report.target));
    text
}

/// The checks that rows fail, those with the most rows first.
fn violations(report: &Report) -> String {
    let of = |table: &TableReport| -> Vec<(u64, String)> {
        let failing = table.checks.iter().filter(|check| check.violations > 0);
        let row = |check: &super::CheckReport| {
            let what = if check.severity == Severity::Error { "rejected" } else { "warned" };
            let first = check.evidence.as_ref().and_then(|evidence| evidence.examples.first());
            let (place, value) = first.map_or_else(Default::default, |first| {
                (format!("{}:{}", first.file, first.line), first.value.clone().unwrap_or_default())
            });
            let cells = [&table.name, &check.name, &number(check.violations), what, &place, &value];
            let cells: Vec<_> = cells.iter().map(|cell| escaped(cell)).collect();
            (check.violations, format!("| {} |\n", cells.join(" | ")))
        };
        failing.map(row).collect()
    };
    let mut rows: Vec<_> = report.tables.iter().flat_map(of).collect();
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let more = rows.len().saturating_sub(CHECKS);
    rows.truncate(CHECKS);
    let rows: String = rows.into_iter().map(|(_, row)| row).collect();
    let more = if more == 0 { String::new() } else { format!("\n… and {more} checks more\n") };
    format!("\n| table | check | rows | | first at | value |\n| :-- | :-- | --: | :-- | :-- | :-- |\n{rows}{more}")
}
