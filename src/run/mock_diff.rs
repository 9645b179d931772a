//! A mock run's report is kept as all are: the real run says what differs from it.

use super::{RunContext, report_store};
use crate::error::Result;
use crate::report::{Command, Report, TableReport, Verdict};

/// Warns of what a run does otherwise than the last mock run of the same files, be it into this target or into a copy of it.
pub(super) fn compare(context: &RunContext, report: &mut Report) -> Result<()> {
    let Some(mock) = last(context, report)? else { return Ok(()) };
    for table in &report.tables {
        let Some(then) = mock.tables.iter().find(|then| then.name == table.name) else { continue };
        let differences = differences(table, then);
        if !differences.is_empty() {
            let into = if mock.target == report.target { String::new() } else { format!(" into {}", mock.target) };
            let (name, run) = (&table.name, &mock.run);
            let text = format!("`{name}`: other than in the mock run {run}{into}: {}", differences.join(", "));
            report.warnings.push(text);
        }
    }
    Ok(())
}

/// Returns the differences: counts, verdicts, keys.
fn differences(now: &TableReport, then: &TableReport) -> Vec<String> {
    let mut found = Vec::new();
    for (what, now, then) in [
        ("read", now.read, then.read),
        ("rejected", now.rejected, then.rejected),
        ("skipped", now.skipped, then.skipped),
        ("accepted", now.accepted, then.accepted),
    ] {
        if now != then {
            found.push(format!("{now} instead of {then} rows {what}"));
        }
    }
    if found.is_empty() && now.verdicts != then.verdicts {
        found.push("other rows are rejected or skipped".to_owned());
    }
    // A mock run of an earlier version has no hashes of them.
    for (column, hash) in &now.references {
        if found.is_empty() && then.references.get(column).is_some_and(|then| then != hash) {
            found.push(format!("`{column}` refers to other rows"));
        }
    }
    if now.keys != then.keys {
        let shown = |keys: &Option<(String, String)>| {
            keys.as_ref().map_or("no keys".to_owned(), |(from, to)| format!("{from} to {to}"))
        };
        found.push(format!("keys {} instead of {}", shown(&now.keys), shown(&then.keys)));
    }
    found
}

/// The last mock run of the same files and tables.
fn last(context: &RunContext, report: &Report) -> Result<Option<Report>> {
    let same = |one: &TableReport, other: &TableReport| {
        one.name == other.name && one.files.iter().map(|file| &file.hash).eq(other.files.iter().map(|file| &file.hash))
    };
    for path in report_store::paths(&context.output).iter().rev() {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        if !text.contains("\"command\": \"mock\"") {
            continue;
        }
        let mock = report_store::parse(&text, path)?;
        if mock.command == Command::Mock
            && mock.verdict == Verdict::Passed
            && mock.tables.len() == report.tables.len()
            && mock.tables.iter().zip(&report.tables).all(|(one, other)| same(one, other))
        {
            return Ok(Some(mock));
        }
    }
    Ok(None)
}
