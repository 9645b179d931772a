//! Stored reports. The target has those of committed runs with their journals; the folders of runs have those of every command that
//! checked a delta.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::journals::of_run;
use super::{OpenPipeline, RunContext};
use crate::error::{Error, Kind, Result};
use crate::journal::{Journal, RunId};
use crate::report::{Command, Report};
use crate::target::RunHeader;

/// The name of a report in its run's folder.
const NAME: &str = "report.json";

/// How many runs an error names.
const LAST: usize = 5;

/// A report that was kept, and what became of its run.
#[derive(Debug)]
pub struct StoredReport {
    /// The report.
    pub report: Report,
    /// The run's journal, or None if there was nothing to load.
    pub journal: Option<Journal>,
}

/// Saves a report in its run's folder. On failure the report gets a warning, because the run has happened.
pub(super) fn keep<T>(context: &RunContext<T>, report: &mut Report) {
    let folder = context.folder(&report.run);
    let kept = serde_json::to_string_pretty(report).map_err(std::io::Error::other).and_then(|text| {
        context.output_mode.create_folders(&folder)?;
        // A concurrent reader gets the previous version.
        let mut file = context.output_mode.temporary(&folder, ".report-")?;
        file.write_all((text + "\n").as_bytes())?;
        file.persist(folder.join(NAME)).map(drop).map_err(|error| error.error)
    });
    if let Err(error) = kept {
        let path = context.compiled.secrets.mask(&folder.display().to_string()).into_owned();
        let warning = format!("cannot write the report to `{path}`: {error}");
        if !report.warnings.contains(&warning) {
            report.warnings.push(warning);
        }
    }
}

/// The reports in the folders of runs, oldest first: a run's id begins with its time.
pub(super) fn paths(output: &Path) -> Vec<PathBuf> {
    let Ok(folders) = std::fs::read_dir(output) else { return Vec::new() };
    let mut paths: Vec<_> = folders.filter_map(|folder| Some(folder.ok()?.path().join(NAME))).collect();
    paths.sort();
    paths
}

/// Reads a report that was kept in a folder.
pub(super) fn parse(text: &str, path: &Path) -> Result<Report> {
    serde_json::from_str(text).map_err(|error| {
        Error::input(format!("`{}` is not a report of this program: {error}", path.display())).hint("remove the file")
    })
}

/// The report of a run, or of the last one of this pipeline that examined a delta.
///
/// # Errors
/// If the report is missing or unreadable, or the target does not answer.
pub async fn kept(opened: &OpenPipeline, wanted: Option<&str>) -> Result<StoredReport> {
    let pipeline = opened.document.spec.as_ref().map(|spec| spec.name.as_str()).unwrap_or_default();
    let output = opened.output().unwrap_or_default();
    // Ids and paths; a report is read when its turn comes.
    let mut runs: BTreeMap<RunId, (Option<RunHeader>, Option<PathBuf>)> = BTreeMap::new();
    for header in opened.target.runs().await? {
        let run = header.id.clone();
        runs.entry(run).or_default().0 = Some(header);
    }
    for path in paths(&output).into_iter().filter(|path| path.is_file()) {
        let run = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        runs.entry(run.into()).or_default().1 = Some(path);
    }
    let mut found = None;
    let candidates = runs.iter().rev().filter(|(run, _)| wanted.is_none_or(|wanted| *run == wanted));
    for (run, (header, path)) in candidates {
        if wanted.is_none() && header.as_ref().is_some_and(|header| header.pipeline != pipeline) {
            continue;
        }
        let in_target = match header {
            Some(_) => opened.target.run(run).await?.as_ref().map(Report::read).transpose()?,
            None => None,
        };
        let in_folder = match path {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Error::input(format!("cannot read `{}`: {error}", path.display())))?;
                Some(parse(&text, path)?)
            }
            None => None,
        };
        let report = match (in_target, in_folder) {
            // The folder's knows more, as long as it is the same: what came after the commit.
            (Some(there), Some(here)) if here.run == there.run && here.tables == there.tables => here,
            (Some(there), _) => there,
            (None, Some(here)) => here,
            (None, None) => continue,
        };
        let examines = !matches!(report.command, Command::Import | Command::Restore);
        if wanted.is_some() || (report.pipeline == pipeline && examines) {
            found = Some(report);
            break;
        }
    }
    let Some(mut report) = found else {
        let last: Vec<_> = runs.keys().rev().take(LAST).map(|run| &**run).collect();
        return Err(nothing(opened, wanted, &last).await?);
    };
    let rejects = output.join(&report.run).join("rejects");
    if report.rejects.is_some() && rejects.is_dir() {
        let shown = opened.document.secrets.mask(&format!("{}/", rejects.display())).into_owned();
        report.rejects = Some(shown);
    }
    // A report says what its run did, though its journal be damaged.
    let journal = match of_run(opened.target.as_ref(), &report.run).await {
        Err(error) if error.kind() == Kind::Refused => {
            report.warnings.push(error.to_string());
            None
        }
        journal => journal?,
    };
    Ok(StoredReport { report, journal })
}

/// Explains why a report is missing. `last` are the ids of the last runs.
async fn nothing(opened: &OpenPipeline, wanted: Option<&str>, last: &[&str]) -> Result<Error> {
    let Some(wanted) = wanted else {
        return Ok(Error::usage(format!(
            "no report of this pipeline is stored, neither in {} nor in its folder of runs",
            opened.shown
        ))
        .hint("`pipeline validate FILE` or `pipeline run FILE` makes one"));
    };
    if !opened.target.journal(&wanted.into()).await?.is_empty() {
        return Ok(Error::usage(format!(
            "run {wanted} has no report: it did not reach the commit, and its folder does not exist here"
        ))
        .hint(format!("`pipeline runs FILE {wanted}` shows its journal")));
    }
    let hint = if last.is_empty() {
        "no report is stored yet".to_owned()
    } else {
        format!("the last ones are {}", crate::engine::list(last))
    };
    Ok(Error::usage(format!("no report found for run `{wanted}`")).hint(hint))
}
