//! The view models of the HTML report: tables, checks, histograms, steps, and files.

use super::super::escape::line;
use super::super::text::{number, size, some};
use super::super::{CheckReport, Report, TableReport, Verdict};
use super::Links;
use super::charts::{Band, bars};
use super::words::{duration, percent, sentence};
use crate::check::LineHistogram;
use crate::spec::Severity;

/// The largest numbers of histograms: of all tables together, of one table, and of one check.
const ALL_STRIPS: usize = 240;
const STRIPS: usize = 12;
const STRIPS_OF_CHECK: usize = 4;

pub(super) struct Tile {
    pub(super) class: &'static str,
    pub(super) figure: String,
    pub(super) label: String,
}

pub(super) struct TableView<'a> {
    pub(super) name: &'a str,
    pub(super) keys: String,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) read: String,
    pub(super) rejected: String,
    pub(super) share: String,
    pub(super) skipped: String,
    pub(super) last: String,
    pub(super) has_rejected: bool,
    pub(super) has_skipped: bool,
    pub(super) class: &'static str,
    pub(super) adds_up: bool,
    pub(super) band: Option<Band>,
    pub(super) strips: Vec<Strip<'a>>,
    pub(super) more_strips: usize,
    pub(super) rejects: Vec<FileLink<'a>>,
    pub(super) before: String,
    pub(super) mapped: String,
    pub(super) now: String,
}

pub(super) struct FileLink<'a> {
    pub(super) name: &'a str,
    pub(super) link: Option<String>,
}

pub(super) struct Strip<'a> {
    pub(super) file: &'a str,
    pub(super) lines: String,
    pub(super) svg: String,
}

pub(super) struct CheckView<'a> {
    pub(super) name: &'a str,
    pub(super) table: &'a str,
    pub(super) violations: u64,
    pub(super) rows: String,
    pub(super) share: String,
    pub(super) bar: String,
    pub(super) fill: &'static str,
    pub(super) effect: &'static str,
    pub(super) reason: String,
    pub(super) origin: String,
    pub(super) columns: String,
    pub(super) strips: Vec<Strip<'a>>,
    pub(super) more_strips: bool,
    pub(super) values: Vec<ValueView>,
    pub(super) counted: String,
    pub(super) examples: Vec<ExampleView<'a>>,
    pub(super) rejects: Vec<FileLink<'a>>,
}

pub(super) struct ExampleView<'a> {
    pub(super) file: &'a str,
    pub(super) line: u64,
    pub(super) value: Option<&'a str>,
    pub(super) reason: &'a str,
}

pub(super) struct ValueView {
    pub(super) value: String,
    pub(super) rows: String,
    pub(super) bar: String,
}

pub(super) struct StepView {
    pub(super) doing: &'static str,
    pub(super) from: String,
    pub(super) width: String,
    pub(super) rows: String,
    pub(super) bytes: String,
    pub(super) seconds: String,
}

pub(super) struct FileView<'a> {
    pub(super) table: &'a str,
    pub(super) name: &'a str,
    pub(super) records: String,
    pub(super) bytes: String,
    pub(super) hash: &'a str,
}

pub(super) fn tiles(report: &Report, failing: usize, all: usize) -> Vec<Tile> {
    let sum = |count: fn(&TableReport) -> u64| report.tables.iter().map(count).sum::<u64>();
    let (read, rejected, skipped) = (sum(|table| table.read), sum(|table| table.rejected), sum(|table| table.skipped));
    let last = report.tables.iter().map(|table| report.last_count(table)).sum();
    let tile = |class, figure, label: &str| Tile { class, figure, label: label.to_owned() };
    let class = |count: u64, class| if count > 0 { class } else { "" };
    vec![
        tile("", number(read), "rows read"),
        tile(class(rejected, "bad"), number(rejected), &format!("rejected, {}", percent(rejected, read))),
        tile(class(skipped, "warn"), number(skipped), "skipped"),
        tile(
            if report.verdict == Verdict::Failed { "" } else { class(last, "good") },
            number(last),
            report.last_label(),
        ),
        tile("", format!("{} of {}", number(failing as u64), number(all as u64)), "checks with violations"),
        tile("", duration(report.seconds()), "total time"),
    ]
}

pub(super) fn table_view<'a>(report: &'a Report, index: usize, table: &'a TableReport, links: &Links) -> TableView<'a> {
    let last = report.last_count(table);
    let keys = table.keys.as_ref();
    let (from, to) = keys.map_or(("", ""), |(from, to)| (from.as_str(), to.as_str()));
    let mut histograms: Vec<&LineHistogram> = table.places.iter().collect();
    histograms.sort_by_key(|histogram| std::cmp::Reverse(histogram.rows));
    let strips = (ALL_STRIPS / report.tables.len()).clamp(1, STRIPS);
    let more_strips = histograms.len().saturating_sub(strips);
    histograms.truncate(strips);
    histograms.sort_by_key(|histogram| histogram.file);
    let mappings = report.key_map.as_ref().and_then(|key_map| key_map.tables.get(index));
    let mapped = |count: Option<u64>| count.map_or_else(String::new, number);
    TableView {
        name: &table.name,
        keys: keys.map_or_else(String::new, |(from, to)| format!("{from} – {to}")),
        from,
        to,
        read: number(table.read),
        rejected: number(table.rejected),
        share: percent(table.rejected, table.read),
        skipped: number(table.skipped),
        last: number(last),
        has_rejected: table.rejected > 0,
        has_skipped: table.skipped > 0,
        class: if last > 0 && report.verdict != Verdict::Failed { "good" } else { "" },
        adds_up: table.read == table.rejected + table.skipped + last,
        band: Band::new(table.read, table.rejected, table.skipped, report.verdict == Verdict::Failed),
        strips: histograms.into_iter().map(|histogram| strip(table, histogram, "")).collect(),
        more_strips,
        rejects: rejects(table, links),
        before: mapped(mappings.map(|mappings| mappings.before)),
        mapped: mapped(mappings.map(|mappings| mappings.appended)),
        now: mapped(mappings.map(|mappings| mappings.now)),
    }
}

fn rejects<'a>(table: &'a TableReport, links: &Links) -> Vec<FileLink<'a>> {
    let link = |name: &str| links.rejects.as_ref().map(|folder| format!("{folder}{}", url_segment(name)));
    table.rejects.iter().map(|name| FileLink { name, link: link(name) }).collect()
}

/// Escapes a file name as a segment of a URL.
pub fn url_segment(name: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    name.bytes().map(|byte| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn strip<'a>(table: &'a TableReport, histogram: &LineHistogram, class: &str) -> Strip<'a> {
    let file = table.files.get(histogram.file as usize);
    let records = file.map_or(0, |file| file.records);
    let total =
        if class.is_empty() { some(records, |records| format!(" of {}", number(records))) } else { String::new() };
    let [rows, first, last] = [histogram.rows, histogram.first, histogram.last].map(number);
    let lines =
        if histogram.rows == 1 { format!("line {first}") } else { format!("{rows}{total}, lines {first}–{last}") };
    Strip { file: file.map_or("", |file| &file.name), lines, svg: bars(&histogram.parts, class) }
}

/// Returns the checks with violations, and the number of those beyond the limit.
pub(super) fn checks<'a>(report: &'a Report, links: &Links, limit: usize) -> (Vec<CheckView<'a>>, usize) {
    let mut failing = report.violations();
    let largest = failing.first().map_or(1, |(_, check)| check.violations);
    let unshown = failing.len().saturating_sub(limit);
    failing.truncate(limit);
    (failing.into_iter().map(|(table, check)| check_view(report, table, check, largest, links)).collect(), unshown)
}

fn check_view<'a>(
    report: &Report,
    table: &'a TableReport,
    check: &'a CheckReport,
    largest: u64,
    links: &Links,
) -> CheckView<'a> {
    let rejects_rows = check.severity == Severity::Error;
    let evidence = check.evidence.as_ref();
    let files = evidence.map(|evidence| evidence.files.as_slice()).unwrap_or_default();
    let values = evidence.map(|evidence| evidence.values.as_slice()).unwrap_or_default();
    let counted = evidence.map_or(0, |evidence| evidence.counted);
    let top = values.first().map_or(1, |value| value.rows);
    let examples = evidence.map(|evidence| evidence.examples.as_slice()).unwrap_or_default();
    let class = if rejects_rows { "small-strip" } else { "small-strip warned" };
    CheckView {
        name: &check.name,
        table: &table.name,
        violations: check.violations,
        rows: number(check.violations),
        share: percent(check.violations, table.read),
        bar: format!("{:.1}", (check.violations as f64 * 100.0 / largest as f64).max(1.0)),
        fill: if rejects_rows { "red" } else { "amber" },
        effect: check.effect(),
        reason: sentence(if check.reason.is_empty() { &check.name } else { &check.reason }),
        origin: match check.line {
            Some(line) => format!(
                "Declared in {}, line {line}",
                if report.file.is_empty() { "the pipeline file" } else { &report.file }
            ),
            None => match check.origin.strip_prefix("production: ") {
                Some(constraint) => format!("Constraint of production: {constraint}"),
                None => "Built-in check".to_owned(),
            },
        },
        columns: check.columns.join(", "),
        strips: files.iter().take(STRIPS_OF_CHECK).map(|histogram| strip(table, histogram, class)).collect(),
        more_strips: files.iter().take(STRIPS_OF_CHECK).map(|histogram| histogram.rows).sum::<u64>() < check.violations,
        values: values
            .iter()
            .map(|value| ValueView {
                value: line(&value.value),
                rows: number(value.rows),
                bar: format!("{:.1}", (value.rows as f64 * 100.0 / top as f64).max(1.0)),
            })
            .collect(),
        counted: if counted < check.violations { format!("in {} of the rows", number(counted)) } else { String::new() },
        examples: examples
            .iter()
            .map(|example| ExampleView {
                file: &example.file,
                line: example.line,
                value: example.value.as_deref(),
                reason: &example.reason,
            })
            .collect(),
        rejects: rejects(table, links),
    }
}

pub(super) fn steps(report: &Report) -> Vec<StepView> {
    let total = report.seconds().max(1e-9);
    let mut from = 0.0;
    let mut views = Vec::new();
    for timing in &report.steps {
        let (start, width) = (from * 100.0 / total, timing.seconds * 100.0 / total);
        from += timing.seconds;
        let width = width.max(0.4);
        views.push(StepView {
            doing: timing.step.doing(),
            from: format!("{:.2}", start.min(100.0 - width).max(0.0)),
            width: format!("{width:.2}"),
            rows: some(timing.rows, |rows| format!("{} rows", number(rows))),
            bytes: some(timing.bytes, size),
            seconds: duration(timing.seconds),
        });
    }
    views
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_name_is_one_segment_of_a_url() {
        assert_eq!(url_segment("a%2Fb ä\".csv"), "a%252Fb%20%C3%A4%22.csv");
    }
}
