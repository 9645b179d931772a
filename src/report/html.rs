//! A report as one HTML file that needs nothing else: for those who look at a load, and sign for it.

use askama::Template;

use super::escape::{line, visible};
use super::picture::{Band, bars};
use super::policy::policy;
use super::story::event;
use super::text::{headline, number, running, size, some};
use super::{CheckReport, Command, Report, TableReport, Verdict};
use crate::check::Spread;
use crate::error::{Error, Result};
use crate::journal::{Journal, Phase, State, Step, moment};
use crate::spec::Severity;

/// A report opens at once: it has no more bytes than this.
const LARGEST: usize = 2 << 20;
/// Checks that are shown, those with the most rows first: as many of these as there is room for.
const CHECKS: [usize; 6] = [300, 150, 75, 30, 10, 0];
/// Strips of all tables together; of one table; and of one check.
const ALL_STRIPS: usize = 240;
const STRIPS: usize = 12;
const STRIPS_OF_CHECK: usize = 4;
/// Files that are listed.
const FILES: usize = 500;

/// Where a report links to.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// The folder with the reject files, as a URL that ends in `/`; None where the report cannot lead there.
    pub rejects: Option<String>,
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    policy: String,
    style: &'a str,
    script: &'a str,
    report: &'a Report,
    command: &'a str,
    class: &'a str,
    sign: &'a str,
    headline: String,
    began: String,
    by: String,
    tiles: Vec<Tile>,
    last_label: &'a str,
    tables: Vec<TableView<'a>>,
    checks: Vec<CheckView<'a>>,
    has_checks: bool,
    all_checks: String,
    unshown: usize,
    passing: Vec<(&'a str, String)>,
    passing_count: String,
    proofs: Vec<&'a str>,
    has_keys: bool,
    has_key_map: bool,
    backup: String,
    story: Vec<(String, String)>,
    steps: Vec<StepView>,
    files: Vec<FileView<'a>>,
    more_files: usize,
    notes: Vec<String>,
    elsewhere: String,
}

struct Tile {
    class: &'static str,
    figure: String,
    label: String,
}

struct TableView<'a> {
    name: &'a str,
    keys: String,
    from: &'a str,
    to: &'a str,
    read: String,
    rejected: String,
    share: String,
    skipped: String,
    last: String,
    has_rejected: bool,
    has_skipped: bool,
    class: &'static str,
    adds_up: bool,
    band: Option<Band>,
    strips: Vec<Strip<'a>>,
    more_strips: usize,
    rejects: Vec<FileLink<'a>>,
    before: String,
    mapped: String,
    now: String,
}

struct FileLink<'a> {
    name: &'a str,
    link: Option<String>,
}

struct Strip<'a> {
    file: &'a str,
    told: String,
    svg: String,
}

struct CheckView<'a> {
    name: &'a str,
    table: &'a str,
    violations: u64,
    rows: String,
    share: String,
    bar: String,
    fill: &'static str,
    effect: &'static str,
    reason: String,
    origin: String,
    columns: String,
    strips: Vec<Strip<'a>>,
    more_strips: bool,
    values: Vec<ValueView>,
    counted: String,
    examples: Vec<ExampleView<'a>>,
    rejects: Vec<FileLink<'a>>,
}

struct ExampleView<'a> {
    file: &'a str,
    line: u64,
    value: Option<&'a str>,
    reason: &'a str,
}

struct ValueView {
    value: String,
    rows: String,
    bar: String,
}

struct StepView {
    doing: &'static str,
    from: String,
    width: String,
    rows: String,
    bytes: String,
    seconds: String,
}

struct FileView<'a> {
    table: &'a str,
    name: &'a str,
    records: String,
    bytes: String,
    hash: &'a str,
}

/// The report as HTML, with the run's journal where it has one.
///
/// # Errors
/// Where the page cannot be made.
pub fn html(report: &Report, journal: Option<&Journal>, links: &Links) -> Result<String> {
    let mut text = String::new();
    for most in CHECKS {
        text = page(report, journal, links, most)?;
        if text.len() <= LARGEST {
            break;
        }
    }
    Ok(text)
}

/// The page with no more than so many checks.
fn page(report: &Report, journal: Option<&Journal>, links: &Links, most: usize) -> Result<String> {
    let style = include_str!("../../templates/report.css");
    let script = include_str!("../../templates/report.js");
    let state = journal.and_then(Journal::state);
    let (class, sign) = sign(report, state);
    let running = running(report);
    let (checks, unshown) = checks(report, links, most);
    let failing: usize =
        report.tables.iter().flat_map(|table| &table.checks).filter(|check| check.violations > 0).count();
    let all: usize = report.tables.iter().map(|table| table.checks.len()).sum();
    let passing = report.tables.iter().filter_map(|table| {
        let names: Vec<_> =
            table.checks.iter().filter(|check| check.violations == 0).map(|check| check.name.as_str()).collect();
        (!names.is_empty()).then(|| (table.name.as_str(), names.join(" · ")))
    });
    let files = report.tables.iter().flat_map(|table| table.files.iter().map(move |file| (table, file)));
    let files: Vec<_> = files
        .map(|(table, file)| FileView {
            table: &table.name,
            name: &file.name,
            records: number(file.records),
            bytes: number(file.bytes),
            hash: &file.hash,
        })
        .collect();
    let more_files = files.len().saturating_sub(FILES);
    let entries = journal.map(Journal::entries).unwrap_or_default();
    let page = Page {
        policy: policy(style, script)?,
        style,
        script,
        report,
        command: command(report.command),
        class,
        sign,
        headline: sentence(&headline(report, state)),
        began: moment(&report.started_at),
        by: entries.first().map_or_else(String::new, |entry| entry.by.clone()),
        tiles: tiles(report, failing, all),
        last_label: if running { "inserted" } else { "accepted" },
        tables: report.tables.iter().enumerate().map(|(at, table)| table_view(report, at, table, links)).collect(),
        checks,
        has_checks: all > 0,
        all_checks: number(all as u64),
        unshown,
        passing: passing.collect(),
        passing_count: number((all - failing) as u64),
        proofs: proofs(report, state),
        has_keys: report.tables.iter().any(|table| table.keys.is_some()),
        has_key_map: report.key_map.is_some() && report.verdict == Verdict::Loaded,
        backup: backup(report),
        story: entries.iter().map(|entry| (moment(&entry.at), event(&entry.event))).collect(),
        steps: steps(report),
        files: files.into_iter().take(FILES).collect(),
        more_files,
        notes: notes(report),
        elsewhere: report.rejects.clone().filter(|_| links.rejects.is_none()).unwrap_or_default(),
    };
    let html = page.render().map_err(|error| Error::internal(format!("the HTML report: {error}")))?;
    Ok(visible(&html).into_owned())
}

/// A text as HTML, with what stands between backticks as code. What stands there is escaped as everything is.
fn marked(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 16);
    let parts: Vec<&str> = text.split('`').collect();
    let pairs = parts.len().is_multiple_of(2).then(|| parts.len() - 1);
    for (at, part) in parts.iter().enumerate() {
        let alone = pairs == Some(at);
        html.push_str(match at % 2 {
            _ if alone => "`",
            0 if at > 0 => "</code>",
            1 => "<code>",
            _ => "",
        });
        for char in part.chars() {
            match char {
                '&' => html.push_str("&#38;"),
                '<' => html.push_str("&#60;"),
                '>' => html.push_str("&#62;"),
                '"' => html.push_str("&#34;"),
                '\'' => html.push_str("&#39;"),
                char => html.push(char),
            }
        }
    }
    html
}

/// A text that begins with a capital letter.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn command(command: Command) -> &'static str {
    match command {
        Command::Validate => "validation",
        Command::Plan => "plan",
        Command::Run => "run",
        Command::Resume => "resumed run",
        Command::Mock => "mock run",
        Command::Import => "key map import",
        Command::Restore => "key map restore",
    }
}

/// How it ended, in a colour and two words.
fn sign(report: &Report, state: Option<&State>) -> (&'static str, &'static str) {
    match (report.verdict, state) {
        (_, Some(state)) if state.phase == Phase::RolledBack => ("warn", "rolled back"),
        (_, Some(state)) if state.phase == Phase::Abandoned => ("warn", "given up"),
        (_, Some(state)) if state.failed.is_some() => ("bad", "failed"),
        (_, Some(state)) if state.is_unfinished() => ("warn", "cut off"),
        (Verdict::Loaded, _) => ("good", "loaded"),
        (Verdict::Failed, _) => ("bad", "failed"),
        (Verdict::Passed, _) => ("good", "passed"),
        (Verdict::Empty, _) => ("warn", "nothing to load"),
    }
}

fn tiles(report: &Report, failing: usize, all: usize) -> Vec<Tile> {
    let sum = |count: fn(&TableReport) -> u64| report.tables.iter().map(count).sum::<u64>();
    let (read, rejected, skipped) = (sum(|table| table.read), sum(|table| table.rejected), sum(|table| table.skipped));
    let last = if running(report) { sum(|table| table.inserted) } else { sum(|table| table.accepted) };
    let seconds: f64 = report.steps.iter().map(|timing| timing.seconds).sum();
    let tile = |class, figure, label: &str| Tile { class, figure, label: label.to_owned() };
    let class = |count: u64, class| if count > 0 { class } else { "" };
    vec![
        tile("", number(read), "rows read"),
        tile(class(rejected, "bad"), number(rejected), &format!("rejected, {}", percent(rejected, read))),
        tile(class(skipped, "warn"), number(skipped), "skipped as declared"),
        tile(
            if report.verdict == Verdict::Failed { "" } else { class(last, "good") },
            number(last),
            if running(report) { "inserted" } else { "accepted" },
        ),
        tile("", format!("{} of {}", number(failing as u64), number(all as u64)), "checks with violations"),
        tile("", duration(seconds), "in all"),
    ]
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part == 0 {
        return "0%".to_owned();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    match percent {
        _ if part == whole => "100%".to_owned(),
        percent if percent < 0.01 => "less than 0.01%".to_owned(),
        percent if percent < 1.0 => format!("{percent:.2}%"),
        percent => format!("{:.1}%", percent.min(99.9)),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 100.0 => format!("{seconds:.2} s"),
        seconds => format!("{} min {:02} s", seconds as u64 / 60, seconds as u64 % 60),
    }
}

fn table_view<'a>(report: &'a Report, at: usize, table: &'a TableReport, links: &Links) -> TableView<'a> {
    let last = if running(report) { table.inserted } else { table.accepted };
    let keys = table.keys.as_ref();
    let (from, to) = keys.map_or(("", ""), |(from, to)| (from.as_str(), to.as_str()));
    let mut spreads: Vec<&Spread> = table.places.iter().collect();
    spreads.sort_by_key(|spread| std::cmp::Reverse(spread.rows));
    let strips = (ALL_STRIPS / report.tables.len()).clamp(1, STRIPS);
    let more_strips = spreads.len().saturating_sub(strips);
    spreads.truncate(strips);
    spreads.sort_by_key(|spread| spread.file);
    let mappings = report.key_map.as_ref().and_then(|key_map| key_map.tables.get(at));
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
        band: Band::of(table.read, table.rejected, table.skipped, report.verdict == Verdict::Failed),
        strips: spreads.into_iter().map(|spread| strip(table, spread, "")).collect(),
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

/// A file's name as a part of a URL.
pub fn url_segment(name: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    name.bytes().map(|byte| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn strip<'a>(table: &'a TableReport, spread: &Spread, class: &str) -> Strip<'a> {
    let file = table.files.get(spread.file as usize);
    let told = match (spread.rows, file.map_or(0, |file| file.records)) {
        (1, _) => format!("line {}", number(spread.first)),
        (rows, records) if records > 0 && class.is_empty() => {
            format!(
                "{} of {}, lines {} to {}",
                number(rows),
                number(records),
                number(spread.first),
                number(spread.last)
            )
        }
        (rows, _) => format!("{}, lines {} to {}", number(rows), number(spread.first), number(spread.last)),
    };
    Strip { file: file.map_or("", |file| &file.name), told, svg: bars(&spread.parts, class) }
}

/// The checks that rows fail, and how many are not shown.
fn checks<'a>(report: &'a Report, links: &Links, most: usize) -> (Vec<CheckView<'a>>, usize) {
    let mut failing: Vec<(&TableReport, &CheckReport)> = Vec::new();
    for table in &report.tables {
        failing.extend(table.checks.iter().filter(|check| check.violations > 0).map(|check| (table, check)));
    }
    let longest = failing.iter().map(|(_, check)| check.violations).max().unwrap_or(1);
    failing.sort_by_key(|(_, check)| std::cmp::Reverse(check.violations));
    let unshown = failing.len().saturating_sub(most);
    failing.truncate(most);
    (failing.into_iter().map(|(table, check)| check_view(report, table, check, longest, links)).collect(), unshown)
}

fn check_view<'a>(
    report: &Report,
    table: &'a TableReport,
    check: &'a CheckReport,
    longest: u64,
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
        bar: format!("{:.1}", (check.violations as f64 * 100.0 / longest as f64).max(1.0)),
        fill: if rejects_rows { "red" } else { "amber" },
        effect: if rejects_rows { "rejected" } else { "warned" },
        reason: sentence(if check.reason.is_empty() { &check.name } else { &check.reason }),
        origin: match check.line {
            Some(line) => format!(
                "Said by {}, line {line}",
                if report.file.is_empty() { "the pipeline file" } else { &report.file }
            ),
            None => match check.origin.strip_prefix("production: ") {
                Some(constraint) => format!("From production's catalog: {constraint}"),
                None => "It holds for every run".to_owned(),
            },
        },
        columns: check.columns.join(", "),
        strips: files.iter().take(STRIPS_OF_CHECK).map(|spread| strip(table, spread, class)).collect(),
        more_strips: files.iter().take(STRIPS_OF_CHECK).map(|spread| spread.rows).sum::<u64>() < check.violations,
        values: values
            .iter()
            .map(|value| ValueView {
                value: line(&value.value),
                rows: number(value.rows),
                bar: format!("{:.1}", (value.rows as f64 * 100.0 / top as f64).max(1.0)),
            })
            .collect(),
        counted: if counted < check.violations { format!("of {} of the rows", number(counted)) } else { String::new() },
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

/// What is proven, and what is not.
fn proofs(report: &Report, state: Option<&State>) -> Vec<&'static str> {
    let mut proofs =
        vec!["Every row that was read is rejected, skipped as declared, or the next column's; no row is two of them."];
    let verified = state.is_some_and(|state| state.phase == Phase::Verified)
        || report.steps.iter().any(|timing| timing.step == Step::Verify);
    match (report.command, report.verdict) {
        (Command::Import | Command::Restore, _) => proofs.clear(),
        (Command::Mock, Verdict::Passed) => {
            proofs.push("All rows were inserted, held against what was meant, and taken back: nothing of them is in production.");
        }
        (_, Verdict::Loaded) => {
            proofs.push("Before the commit, production's own number of rows, and for each column its values, sums and extremes, were held against what was meant.");
            proofs.push(if verified {
                "After the commit every row was read back from production and is what was meant."
            } else {
                "The rows were not read back yet: `pipeline resume` does it."
            });
        }
        _ => proofs.push("Nothing is loaded, and nothing was written to production."),
    }
    proofs
}

fn backup(report: &Report) -> String {
    let Some(key_map) = report.key_map.as_ref().filter(|_| report.verdict == Verdict::Loaded) else {
        return String::new();
    };
    let rows = |segments: &[crate::target::Segment]| number(segments.iter().map(|segment| segment.rows).sum());
    let own = match key_map.own.as_slice() {
        [] => String::new(),
        own => format!("After the commit {} mappings of this run followed.", rows(own)),
    };
    match &key_map.store {
        None => "The key map was not backed up: the pipeline file has no `safeguards.backup`.".to_owned(),
        Some(store) if key_map.there == 0 && key_map.backed_up.is_empty() => {
            format!("Before anything was written, the backup in {store} was asked for: there was no mapping yet. {own}")
        }
        Some(store) => format!(
            "Before anything was written, the key map was backed up in {store}: {} segments were there, {} with {} mappings went there. {own}",
            number(key_map.there),
            number(key_map.backed_up.len() as u64),
            rows(&key_map.backed_up),
        ),
    }
}

fn steps(report: &Report) -> Vec<StepView> {
    let total: f64 = report.steps.iter().map(|timing| timing.seconds).sum::<f64>().max(1e-9);
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

fn notes(report: &Report) -> Vec<String> {
    let mut notes = report.notes.clone();
    for table in &report.tables {
        if !table.left_to_production.is_empty() {
            notes.push(format!(
                "{}: left to production's own constraints: {}",
                table.name,
                table.left_to_production.join("; ")
            ));
        }
        if !table.triggers.is_empty() {
            notes.push(format!("{}: these triggers fire for every row: {}", table.name, table.triggers.join(", ")));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_never_rounded_to_none_or_all() {
        let shares = [(0, 0), (0, 9), (9, 9), (1, 1_000_000), (1, 1_000), (1, 3), (99_999, 100_000)];
        let told = ["0%", "0%", "100%", "less than 0.01%", "0.10%", "33.3%", "99.9%"];
        assert_eq!(shares.map(|(part, whole)| percent(part, whole)), told);
    }

    #[test]
    fn a_report_of_any_number_of_checks_and_the_longest_texts_is_no_larger_than_it_may_be() {
        let long = |text: &str| text.repeat(80);
        let example = crate::check::Example {
            file: long("é&"),
            line: 7,
            value: Some(long("<\u{202e}")),
            reason: long("\u{1b}\"<"),
        };
        let spread = |file| Spread { file, rows: 80, first: 1, last: 999, parts: (1..=80).collect() };
        let evidence = crate::check::Evidence {
            examples: vec![example; 5],
            values: vec![crate::check::Count { value: long("<"), rows: 3 }; 8],
            counted: 24,
            files: (0..6).map(spread).collect(),
        };
        let check = CheckReport {
            name: long("c<"),
            severity: Severity::Error,
            origin: "every run".into(),
            violations: 480,
            columns: vec![long("x"); 3],
            reason: long("r&"),
            line: None,
            evidence: Some(evidence),
        };
        let file = crate::report::FileReport { name: long("f<"), hash: long("0"), ..Default::default() };
        let table = TableReport {
            name: "t".into(),
            read: 1000,
            rejected: 1000,
            files: vec![file; 3000],
            places: (0..60).map(spread).collect(),
            checks: vec![check; 60],
            ..Default::default()
        };
        let report = Report {
            version: super::super::VERSION,
            run: "r".into(),
            pipeline: "p".into(),
            file: String::new(),
            command: Command::Validate,
            target: "t".into(),
            started_at: "2026-11-22T10:58:18Z".into(),
            verdict: Verdict::Failed,
            reasons: vec![],
            warnings: vec![],
            notes: vec![],
            tables: vec![table; 20],
            key_map: None,
            steps: vec![],
            rejects: None,
            program: String::new(),
        };
        let html = html(&report, None, &Links::default()).unwrap();
        assert!((1 << 19..=LARGEST).contains(&html.len()), "{} bytes", html.len());
        assert!(html.contains("checks more are failed by fewer rows"));
    }

    #[test]
    fn what_stands_between_backticks_is_code_and_nothing_else_is_markup() {
        assert_eq!(marked("`a<b>`: \"c\" & `d`"), "<code>a&#60;b&#62;</code>: &#34;c&#34; &#38; <code>d</code>");
        assert_eq!([marked("`a` b ` c"), marked("`"), marked("")], ["<code>a</code> b ` c", "`", ""]);
    }

    #[test]
    fn a_file_of_any_name_is_one_segment_of_a_url() {
        assert_eq!(url_segment("a%2Fb ä\".csv"), "a%252Fb%20%C3%A4%22.csv");
    }
}
