//! A report as text for a terminal: what was loaded, table by table, what was rejected by which check, and where the time went.

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};

use super::escape::visible;
use super::{Command, KeyMapReport, MappingsReport, Report, TableReport, Verdict};
use crate::journal::{Phase, State};
use crate::progress::Timing;
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
    parts.push(steps(&report.steps));
    let total: f64 = report.steps.iter().map(|timing| timing.seconds).sum();
    parts.push(format!("  run {} · {} · {total:.2} s\n", report.run, report.target));
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
            format!("the run was {}: {nothing}", state.label()).replace("was failed", "failed")
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

/// How long each step took, and what went through it.
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

/// One step that ended, in a line.
pub fn step(timing: &Timing) -> String {
    let rows = some(timing.rows, |rows| format!("  {} rows", number(rows)));
    let bytes = some(timing.bytes, |bytes| format!("  {}", size(bytes)));
    format!("{:<16} {:.2} s{rows}{bytes}", timing.step.doing(), timing.seconds)
}

/// A count that is told; nothing where there is none.
pub(super) fn some(count: u64, told: impl Fn(u64) -> String) -> String {
    if count == 0 { String::new() } else { told(count) }
}

/// A number of bytes, in three digits.
pub(super) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        // What would be rounded to a thousand is one of the next unit.
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

    #[test]
    fn sizes_have_two_or_three_digits() {
        let told = [1, 999, 1000, 9_949, 9_950, 413_125, 999_499, 999_500, 41_000_000, 2_345_678_901, 7 << 40];
        let sizes =
            ["1 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "413 kB", "999 kB", "1.0 MB", "41 MB", "2.3 GB", "7.7 TB"];
        assert_eq!(told.map(super::size), sizes);
    }
}
