//! Reports as self-contained HTML files, for people who review and sign a load.

mod charts;
mod csp;
mod views;
mod words;

use askama::Template;

use super::escape::visible;
use super::text::{headline, number};
use super::timeline::event;
use super::{Report, Verdict};
use crate::error::{Error, Result};
use crate::journal::{Journal, moment};
use csp::policy;
pub use views::url_segment;
use views::{CheckView, FileView, StepView, TableView, Tile, checks, steps, table_view, tiles};
use words::{backup, command, marked, notes, proofs, sentence, sign};

/// The largest report in bytes, so that it opens without delay.
const LARGEST: usize = 2 << 20;
/// Limits for the number of checks. The largest one that fits [`LARGEST`] is used; checks with the most rows come first.
const CHECKS: [usize; 6] = [300, 150, 75, 30, 10, 0];
/// The largest number of files that are listed.
const FILES: usize = 500;

/// The link targets of a report.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// The folder with the reject files, as a URL that ends in `/`; None if there is no relative path to it.
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
    timeline: Vec<(String, String)>,
    steps: Vec<StepView>,
    files: Vec<FileView<'a>>,
    more_files: usize,
    notes: Vec<String>,
    rejects_folder: String,
}

/// Formats a report as HTML, with the timeline of the run if it has a journal.
///
/// # Errors
/// If the template cannot be rendered.
pub fn html(report: &Report, journal: Option<&Journal>, links: &Links) -> Result<String> {
    let mut text = String::new();
    for limit in CHECKS {
        text = page(report, journal, links, limit)?;
        if text.len() <= LARGEST {
            break;
        }
    }
    Ok(text)
}

/// Renders the page with at most `limit` checks.
fn page(report: &Report, journal: Option<&Journal>, links: &Links, limit: usize) -> Result<String> {
    let style = include_str!("../../templates/report.css");
    let script = include_str!("../../templates/report.js");
    let state = journal.and_then(Journal::state);
    let (class, sign) = sign(report, state);
    let (checks, unshown) = checks(report, links, limit);
    let failing = report.violations().len();
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
        last_label: report.last_label(),
        tables: report
            .tables
            .iter()
            .enumerate()
            .map(|(index, table)| table_view(report, index, table, links))
            .collect(),
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
        timeline: entries.iter().map(|entry| (moment(&entry.at), event(&entry.event))).collect(),
        steps: steps(report),
        files: files.into_iter().take(FILES).collect(),
        more_files,
        notes: notes(report),
        rejects_folder: report.rejects.clone().filter(|_| links.rejects.is_none()).unwrap_or_default(),
    };
    let html = page.render().map_err(|error| Error::internal(format!("cannot render the HTML report: {error}")))?;
    Ok(visible(&html).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{CheckReport, TableReport};
    use super::*;
    use crate::check::LineHistogram;
    use crate::spec::Severity;

    #[test]
    fn a_report_with_many_checks_and_long_texts_fits_the_limit() {
        let long = |text: &str| text.repeat(80);
        let example = crate::check::Example {
            file: long("é&"),
            line: 7,
            value: Some(long("<\u{202e}")),
            reason: long("\u{1b}\"<"),
        };
        let spread = |file| LineHistogram { file, rows: 80, first: 1, last: 999, parts: (1..=80).collect() };
        let evidence = crate::check::Evidence {
            examples: vec![example; 5],
            values: vec![crate::check::Count { value: long("<"), rows: 3 }; 8],
            counted: 24,
            files: (0..6).map(spread).collect(),
        };
        let check = CheckReport {
            name: long("c<"),
            severity: Severity::Error,
            origin: "built-in".into(),
            violations: 480,
            columns: vec![long("x"); 3],
            reason: long("r&"),
            line: None,
            evidence: Some(evidence),
        };
        let file = crate::report::FileReport { name: long("f<"), hash: long("0").into(), ..Default::default() };
        let table = TableReport {
            name: "t".into(),
            read: 1000,
            rejected: 1000,
            files: vec![file; 3000],
            places: (0..60).map(spread).collect(),
            checks: vec![check; 60],
            ..Default::default()
        };
        let mut report: Report = serde_json::from_str(
            r#"{"version":1,"run":"r","pipeline":"p","command":"validate","target":"t","started_at":"2026-11-22T10:58:18Z",
            "verdict":"failed","reasons":[],"warnings":[],"tables":[],"steps":[],"rejects":null}"#,
        )
        .unwrap();
        report.tables = vec![table; 20];
        let html = html(&report, None, &Links::default()).unwrap();
        assert!((1 << 19..=LARGEST).contains(&html.len()), "{} bytes", html.len());
        assert!(html.contains("more checks with fewer rows are in the JSON report"));
    }
}
