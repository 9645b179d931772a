//! Reports as Markdown, for the summary of a GitHub job or a merge request.

use std::fmt::Write as _;

use super::escape::markdown as escaped;
use super::text::{headline, number};
use super::{CheckReport, Report, TableReport, Verdict};
use crate::journal::{Journal, Phase};

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
    let _infallible = write!(
        text,
        "\n| table | read | rejected | skipped | {} | keys |\n| :-- | --: | --: | --: | --: | :-- |\n",
        report.last_label()
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
            number(report.last_count(table)),
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
    let (run, target) = (escaped(&report.run), escaped(&report.target));
    let _infallible = writeln!(text, "\n<sub>run {run} · {target} · {:.2} s</sub>", report.seconds());
    text
}

/// Returns the table of checks with violations, largest first.
fn violations(report: &Report) -> String {
    let row = |(table, check): &(&TableReport, &CheckReport)| {
        let first = check.evidence.as_ref().and_then(|evidence| evidence.examples.first());
        let location = first.map_or_else(String::new, |first| format!("{}:{}", first.file, first.line));
        let value = first.and_then(|first| first.value.as_deref()).unwrap_or_default();
        let cells = [&table.name, &check.name, &number(check.violations), check.effect(), &location, value];
        let cells: Vec<_> = cells.iter().map(|cell| escaped(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let violations = report.violations();
    if violations.is_empty() {
        return String::new();
    }
    let rows: String = violations.iter().take(CHECKS).map(row).collect();
    let more = match violations.len().saturating_sub(CHECKS) {
        0 => String::new(),
        more => format!("\n… and {more} more checks\n"),
    };
    format!("\n| table | check | rows | | first at | value |\n| :-- | :-- | --: | :-- | :-- | :-- |\n{rows}{more}")
}
