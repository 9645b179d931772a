//! A mock run's report, kept beside the others: the real run says what differs from it.

use std::path::PathBuf;

use super::Session;
use crate::error::{Error, Result};
use crate::report::{Report, TableReport};

const NAME: &str = "mock.json";

/// Keeps the report of a mock run.
pub(super) fn keep(session: &Session, report: &Report) -> Result<()> {
    let path = session.folder(&report.run).join(NAME);
    let text = serde_json::to_string_pretty(report).map_err(|error| Error::internal(format!("the report: {error}")))?;
    let folder = session.folder(&report.run);
    std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text)).map_err(|error| {
        Error::unreachable(format!("cannot write `{}`: {error}", path.display()))
            .hint("the folder `output` of the pipeline file must be writable; nothing of the mock run is in the target")
    })
}

/// Warns of what a run does otherwise than the last mock run of the same files, be it into this target or into a copy of it.
pub(super) fn compare(session: &Session, report: &mut Report) -> Result<()> {
    let Some(mock) = last(session, report)? else { return Ok(()) };
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

/// What is otherwise: counts, verdicts, keys.
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
    if now.keys != then.keys {
        let shown = |keys: &Option<(String, String)>| {
            keys.as_ref().map_or("no keys".to_owned(), |(from, to)| format!("{from} to {to}"))
        };
        found.push(format!("keys {} instead of {}", shown(&now.keys), shown(&then.keys)));
    }
    found
}

/// The last mock run of the same files and tables.
fn last(session: &Session, report: &Report) -> Result<Option<Report>> {
    let Ok(folders) = std::fs::read_dir(&session.output) else { return Ok(None) };
    let mut paths: Vec<PathBuf> = folders.filter_map(|folder| Some(folder.ok()?.path().join(NAME))).collect();
    // A run's id begins with its time.
    paths.sort();
    for path in paths.iter().rev() {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let mock: Report = serde_json::from_str(&text).map_err(|error| {
            Error::input(format!("`{}` is no report of a mock run: {error}", path.display())).hint("remove the file")
        })?;
        let same = |one: &TableReport, other: &TableReport| {
            one.name == other.name
                && one.files.iter().map(|file| &file.hash).eq(other.files.iter().map(|file| &file.hash))
        };
        if mock.tables.len() == report.tables.len()
            && mock.tables.iter().zip(&report.tables).all(|(one, other)| same(one, other))
        {
            return Ok(Some(mock));
        }
    }
    Ok(None)
}
