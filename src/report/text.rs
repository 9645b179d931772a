//! Reports as text: rows by table, violations by check, the key map, and the time by step.

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};

use super::escape::visible;
use super::{Command, KeyMapReport, MappingsReport, Report, TableReport, Verdict};
use crate::journal::{Phase, State};
use crate::progress::Timing;
use crate::target::Segment;

/// Formats a report as text, with the run's current state if it is known. The text has no color, so that it is the same everywhere.
pub fn text(report: &Report, state: Option<&State>) -> String {
    let mut parts = vec![format!("{}: {}\n", report.pipeline, headline(report, state)), tables(report)];
    if let Some(violations) = violations(report) {
        parts.push(violations);
    }
    let listed =
        |label: &str, texts: &[String]| -> String { texts.iter().map(|text| format!("  {label}{text}\n")).collect() };
    let notes = match report.command {
        Command::Plan => report.notes.iter().cloned().chain(report.table_notes()).collect(),
        _ => Vec::new(),
    };
    parts
        .push(listed("failed: ", &report.reasons) + &listed("warning: ", &report.warnings) + &listed("note: ", &notes));
    parts.push(listed("rejects: ", report.rejects.as_slice()));
    if let Some(map) = report.key_map.as_ref().filter(|_| report.verdict == Verdict::Loaded) {
        parts.push(key_map(map));
    }
    parts.push(steps(&report.steps));
    parts.push(format!("  run {} · {} · {:.2} s\n", report.run, report.target, report.seconds()));
    parts.retain(|part| !part.is_empty());
    visible(&parts.join("\n")).into_owned()
}

/// Describes the outcome in one sentence.
pub(super) fn headline(report: &Report, state: Option<&State>) -> String {
    match state {
        Some(state) if state.phase == Phase::RolledBack => format!("{}; rolled back since", verdict(report)),
        Some(state) if is_commit_unknown(Some(state)) => format!("run {}; {COMMIT_UNKNOWN}", state.label()),
        Some(state) if state.is_unfinished() || state.phase == Phase::Abandoned => {
            format!("run {}; none of its rows are in production", state.label())
        }
        _ => verdict(report),
    }
}

pub(super) const COMMIT_UNKNOWN: &str = "the outcome of the commit is unknown until `pipeline resume`";

/// Returns whether the journal ends with the beginning of the commit. Then the rows may be in production.
pub(super) fn is_commit_unknown(state: Option<&State>) -> bool {
    state.is_some_and(|state| state.phase == Phase::Committing && state.failed.is_none())
}

fn verdict(report: &Report) -> String {
    let sum = |count: fn(&TableReport) -> u64| number(report.tables.iter().map(count).sum());
    let tables = report.tables.len();
    match report.verdict {
        Verdict::Loaded => format!(
            "loaded {} rows into {tables} table{}",
            sum(|table| table.inserted),
            if tables == 1 { "" } else { "s" }
        ),
        Verdict::Passed if report.command == Command::Mock => format!(
            "mock run: {} rows inserted into {tables} table{}, then rolled back",
            sum(|table| table.inserted),
            if tables == 1 { "" } else { "s" }
        ),
        Verdict::Passed if report.command == Command::Plan => {
            format!("a run would insert {} rows", sum(|table| table.accepted))
        }
        Verdict::Passed => format!("passed; a run would insert {} rows", sum(|table| table.accepted)),
        Verdict::Failed => "failed its checks; nothing was loaded".into(),
        Verdict::Empty => "nothing to load: the delta has no accepted rows".into(),
    }
}

fn tables(report: &Report) -> String {
    let running = matches!(report.command, Command::Run | Command::Resume | Command::Mock);
    let mut grid = grid(&[
        "table",
        "read",
        "rejected",
        "skipped",
        if running { "inserted" } else { "accepted" },
        "keys from",
        "to",
    ]);
    for table in &report.tables {
        let (from, to) = table.keys.clone().unwrap_or_default();
        let last = if running { table.inserted } else { table.accepted };
        grid.add_row([
            table.name.clone(),
            number(table.read),
            number(table.rejected),
            number(table.skipped),
            number(last),
            from,
            to,
        ]);
    }
    (1..=6).for_each(|column| align(&mut grid, column));
    lines(&grid)
}

/// Returns the table of checks with violations; None if there are none.
fn violations(report: &Report) -> Option<String> {
    let mut grid = grid(&["check", "table", "rows", ""]);
    for table in &report.tables {
        for check in table.checks.iter().filter(|check| check.violations > 0) {
            grid.add_row([&check.name, &table.name, &number(check.violations), check.effect()]);
        }
    }
    grid.row(0)?;
    align(&mut grid, 2);
    Some(lines(&grid))
}

/// Describes the key map before and after the run, and its backup.
fn key_map(map: &KeyMapReport) -> String {
    let sum = |count: fn(&MappingsReport) -> u64| number(map.tables.iter().map(count).sum());
    let rows = |segments: &[Segment]| number(segments.iter().map(|segment| segment.rows).sum());
    let own = if map.own.is_empty() { String::new() } else { format!("; {} backed up", rows(&map.own)) };
    let backup = match &map.store {
        None => "none (no `safeguards.backup`)".to_owned(),
        Some(store) if map.there == 0 && map.backed_up.is_empty() => format!("{store}; no earlier mappings"),
        Some(store) => format!(
            "{store}; {} segments already present, {} written before the load ({} mappings)",
            number(map.there),
            number(map.backed_up.len() as u64),
            rows(&map.backed_up)
        ),
    };
    let (before, now) = (sum(|table| table.before), sum(|table| table.now));
    format!("  key map: {before} mappings before this run, {now} after{own}\n  backup: {backup}\n")
}

/// Returns the table of steps with their time, rows, and bytes.
fn steps(timings: &[Timing]) -> String {
    if timings.is_empty() {
        return String::new();
    }
    let mut grid = grid(&["step", "time", "rows", "bytes"]);
    for timing in timings {
        let seconds = format!("{:.2} s", timing.seconds);
        grid.add_row([timing.step.doing().to_owned(), seconds, some(timing.rows, number), some(timing.bytes, size)]);
    }
    (1..=3).for_each(|column| align(&mut grid, column));
    lines(&grid)
}

/// Formats a completed step as one line.
pub fn step(timing: &Timing) -> String {
    let rows = some(timing.rows, |rows| format!("  {} rows", number(rows)));
    let bytes = some(timing.bytes, |bytes| format!("  {}", size(bytes)));
    format!("{:<16} {:.2} s{rows}{bytes}", timing.step.doing(), timing.seconds)
}

/// Formats a count; an empty text if it is 0.
pub(super) fn some(count: u64, format: impl Fn(u64) -> String) -> String {
    if count == 0 { String::new() } else { format(count) }
}

/// Formats a number of bytes with at most three digits.
pub(super) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        // A size that would be rounded to 1000 belongs to the next unit.
        if size < 999.5 {
            let decimals = usize::from(unit != "B" && size < 9.95);
            return format!("{size:.decimals$} {unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

pub(super) fn grid(header: &[&str]) -> Grid {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    grid
}

/// Renders a grid without trailing spaces.
pub(super) fn lines(grid: &Grid) -> String {
    grid.lines().map(|line| format!(" {}\n", line.trim_end())).collect()
}

pub(super) fn align(grid: &mut Grid, column: usize) {
    if let Some(column) = grid.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// Formats a number with thousands separators.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1000, 1_234_567].map(super::number), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn sizes_have_two_or_three_digits() {
        let bytes = [1, 999, 1000, 9_949, 9_950, 413_125, 999_499, 999_500, 41_000_000, 2_345_678_901, 7 << 40];
        let sizes =
            ["1 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "413 kB", "999 kB", "1.0 MB", "41 MB", "2.3 GB", "7.7 TB"];
        assert_eq!(bytes.map(super::size), sizes);
    }
}
