//! A report as text for a terminal: what was loaded, table by table, what was rejected by which check, and where the time went.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};

use super::escape::visible;
use super::{Command, KeyMapReport, MappingsReport, Report, TableReport, Verdict};
use crate::journal::{Phase, State};
use crate::spec::Severity;
use crate::target::Segment;

/// The report as text, with what became of its run where that is known. There is no colour in it, so it says the same everywhere.
pub fn text(report: &Report, state: Option<&State>) -> String {
    let mut parts = vec![format!("{}: {}\n", report.pipeline, headline(report, state)), tables(report)];
    if let Some(violations) = violations(report) {
        parts.push(violations);
    }
    let listed =
        |what: &str, texts: &[String]| -> String { texts.iter().map(|text| format!("  {what}{text}\n")).collect() };
    let notes = if report.command == Command::Plan { report.notes.as_slice() } else { &[] };
    parts.push(listed("failed: ", &report.reasons) + &listed("warning: ", &report.warnings) + &listed("note: ", notes));
    parts.push(listed("rejects: ", report.rejects.as_slice()));
    if let Some(told) = report.key_map.as_ref().and_then(|key_map| key_map_told(report, key_map)) {
        parts.push(told);
    }
    let steps: Vec<_> =
        report.steps.iter().map(|timing| format!("{} {:.2} s", timing.step.doing(), timing.seconds)).collect();
    let mut last = String::new();
    let total: f64 = report.steps.iter().map(|timing| timing.seconds).sum();
    let _infallible =
        writeln!(last, "  {}\n  run {} · {} · {total:.2} s", steps.join(" · "), report.run, report.target);
    parts.push(last);
    parts.retain(|part| !part.is_empty());
    visible(&parts.join("\n")).into_owned()
}

/// How it ended, in a sentence.
pub(super) fn headline(report: &Report, state: Option<&State>) -> String {
    let nothing = "nothing of it is in production";
    match state {
        Some(state) if state.phase == Phase::RolledBack => {
            format!("{}, and rolled back since: {nothing} any more", verdict(report))
        }
        Some(state) if state.is_unfinished() || state.phase == Phase::Abandoned => {
            format!("the run was {}: {nothing}", state.told()).replace("was failed", "failed")
        }
        _ => verdict(report),
    }
}

/// Whether rows were inserted, if only to be taken back.
pub(super) fn running(report: &Report) -> bool {
    let mocked = report.command == Command::Mock && report.tables.iter().any(|table| table.inserted > 0);
    report.verdict == Verdict::Loaded || mocked
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
            "mock run: {} rows went into {tables} table{}, and were taken back",
            sum(|table| table.inserted),
            if tables == 1 { "" } else { "s" }
        ),
        Verdict::Passed if report.command == Command::Plan => {
            format!("a run inserts {} rows", sum(|table| table.accepted))
        }
        Verdict::Passed => format!("passed; a run would insert {} rows", sum(|table| table.accepted)),
        Verdict::Failed => "failed its checks; nothing is loaded".into(),
        Verdict::Empty => "nothing to load: no row of the delta is left to insert".into(),
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

/// Which checks failed for how many rows; None where none did.
fn violations(report: &Report) -> Option<String> {
    let mut grid = grid(&["check", "table", "rows", ""]);
    for table in &report.tables {
        for check in table.checks.iter().filter(|check| check.violations > 0) {
            let what = if check.severity == Severity::Warn { "warned" } else { "rejected" };
            grid.add_row([check.name.clone(), table.name.clone(), number(check.violations), what.into()]);
        }
    }
    grid.row(0)?;
    align(&mut grid, 2);
    Some(lines(&grid))
}

/// What became of the key map, step by step; None where nothing was loaded.
fn key_map_told(report: &Report, key_map: &KeyMapReport) -> Option<String> {
    if report.verdict != Verdict::Loaded {
        return None;
    }
    let sum = |count: fn(&MappingsReport) -> u64| key_map.tables.iter().map(count).sum::<u64>();
    let (before, appended, now) = (sum(|table| table.before), sum(|table| table.appended), sum(|table| table.now));
    let rows = |segments: &[Segment]| number(segments.iter().map(|segment| segment.rows).sum());
    let backed_up = match &key_map.store {
        None => "not backed up (no `safeguards.backup`)".to_owned(),
        Some(store) if key_map.there == 0 && key_map.backed_up.is_empty() => {
            format!("backed up in {store}: there was nothing yet")
        }
        Some(store) => format!(
            "backed up in {store}: {} segments were there, {} with {} mappings went there now",
            number(key_map.there),
            number(key_map.backed_up.len() as u64),
            rows(&key_map.backed_up)
        ),
    };
    let own = match key_map.own.as_slice() {
        [] => String::new(),
        own => format!(" · {} of them backed up as well", rows(own)),
    };
    Some(format!(
        "  key map: {backed_up}\n           staging emptied · {appended} keys mapped · {} rows loaded · {before} earlier mappings there again, {now} now{own}\n",
        number(report.tables.iter().map(|table| table.inserted).sum()),
        appended = number(appended),
        before = number(before),
        now = number(now),
    ))
}

pub(super) fn grid(header: &[&str]) -> Grid {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    grid
}

/// The grid without spaces at the end of its lines.
pub(super) fn lines(grid: &Grid) -> String {
    grid.lines().map(|line| format!(" {}\n", line.trim_end())).collect()
}

pub(super) fn align(grid: &mut Grid, column: usize) {
    if let Some(column) = grid.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// A number with its thousands apart.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(super::number), ["0", "999", "1,000", "1,234,567"]);
    }
}
