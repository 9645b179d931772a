//! `pipeline runs`: the runs of a target with their states, and the history of one run.

use std::collections::BTreeMap;
use std::fmt::Display;

use comfy_table::{ContentArrangement, Table as Grid, presets};

use super::args::Output;
use super::output::{json, print};
use crate::error::{Error, Result};
use crate::journal::{Entry, Journal, Phase, RunId, State, moment};
use crate::report::{self, Command, Report};
use crate::run::{CommandOptions, OpenPipeline, journals};
use crate::target::{Access, Journals, RunHeader};

/// The number of runs that an error names.
const LAST: usize = 5;

/// The state of a run that a process works on.
const RUNNING: &str = "running";

/// The state of a run whose journal cannot be trusted.
const DAMAGED: &str = "damaged";

/// A line of the list of runs. It holds neither report nor journal, since a target may have many runs.
#[derive(serde::Serialize)]
struct RunSummary {
    run: RunId,
    pipeline: String,
    command: Command,
    state: &'static str,
    began: String,
    tables: Vec<String>,
    rows: u64,
    /// The error in its journal.
    damage: Option<String>,
}

/// A run with its report, if it was committed, and its journal, if it has one.
#[derive(serde::Serialize)]
struct RunDetails {
    #[serde(flatten)]
    summary: RunSummary,
    report: Option<Report>,
    journal: Vec<Entry>,
    #[serde(skip)]
    state: Option<State>,
}

/// Prints the list of runs, or the history of one.
pub(super) async fn runs(request: &CommandOptions, run: Option<&str>, output: Output) -> Result<u8> {
    let opened = OpenPipeline::open(request, Access::Read).await?;
    let Some(id) = run else {
        let runs = read(&opened).await?;
        print(&match output {
            Output::Json => json(&runs)?,
            _ if runs.is_empty() => format!("no runs in {} yet\n", opened.shown),
            _ => list(&runs),
        })?;
        return Ok(0);
    };
    match one(&opened, &id.into()).await? {
        Some(run) => print(&if output == Output::Json { json(&run)? } else { history(&run) }).map(|()| 0),
        None => Err(unknown_run(&opened, id).await?),
    }
}

/// Reads all runs, oldest first.
async fn read(opened: &OpenPipeline) -> Result<Vec<RunSummary>> {
    let target = opened.target.as_ref();
    let mut headers: BTreeMap<RunId, RunHeader> =
        target.runs().await?.into_iter().map(|header| (header.id.clone(), header)).collect();
    let mut runs = Vec::new();
    journals::each(target, Journals::All, |found| {
        runs.push(from_journal(&found, headers.remove(&found.run).as_ref()));
        Ok(())
    })
    .await?;
    // Imports and restores of mappings have no journal. Their reports are small, and are read one by one.
    for header in headers.into_values() {
        if let Some(record) = target.run(&header.id).await? {
            runs.push(match Report::read(&record) {
                Ok(report) => from_report(&report),
                Err(error) => damaged(&header.id, None, Some(&header), &error),
            });
        }
    }
    let holder = target.holder().await?;
    for run in runs.iter_mut().filter(|run| run.state.starts_with("interrupted") && holder.as_ref() == Some(&run.run)) {
        run.state = RUNNING;
    }
    runs.sort_by(|one, other| (&one.began, &one.run).cmp(&(&other.began, &other.run)));
    Ok(runs)
}

/// Returns the summary of a run from its journal, or from its header if the journal is damaged.
fn from_journal(found: &journals::Found, header: Option<&RunHeader>) -> RunSummary {
    let (journal, state) = match found.journal.as_ref().map(|journal| (journal, journal.state())) {
        Ok((journal, Some(state))) => (journal, state),
        Ok((_, None)) => return damaged(&found.run, found.pipeline.as_ref(), header, &"the journal is empty"),
        Err(error) => return damaged(&found.run, found.pipeline.as_ref(), header, error),
    };
    let tables = &state.started.tables;
    let is_committed = matches!(state.phase, Phase::Committed | Phase::Verified | Phase::RolledBack);
    RunSummary {
        run: found.run.clone(),
        pipeline: state.started.pipeline.clone(),
        command: Command::Run,
        state: state.label(),
        began: journal.entries().first().map_or(String::new(), |entry| entry.at.clone()),
        tables: tables.iter().map(|table| table.table.clone()).collect(),
        rows: if is_committed { tables.iter().map(|table| table.rows).sum() } else { 0 },
        damage: None,
    }
}

/// Returns the summary of a run whose journal or report is unreadable.
fn damaged(run: &RunId, pipeline: Option<&String>, header: Option<&RunHeader>, error: &dyn Display) -> RunSummary {
    let from_header = |field: fn(&RunHeader) -> &String| header.map(field).cloned();
    RunSummary {
        run: run.clone(),
        pipeline: pipeline.cloned().or(from_header(|header| &header.pipeline)).unwrap_or_default(),
        command: Command::Run,
        state: DAMAGED,
        began: from_header(|header| &header.started_at).unwrap_or_default(),
        tables: Vec::new(),
        rows: 0,
        damage: Some(error.to_string()),
    }
}

fn from_report(report: &Report) -> RunSummary {
    RunSummary {
        run: report.run.clone(),
        pipeline: report.pipeline.clone(),
        command: report.command,
        state: "loaded",
        began: report.started_at.clone(),
        tables: report.tables.iter().map(|table| table.name.clone()).collect(),
        rows: report.tables.iter().map(|table| table.inserted).sum(),
        damage: None,
    }
}

/// Reads a run with its report and its journal; None if the target has no such run.
async fn one(opened: &OpenPipeline, id: &RunId) -> Result<Option<RunDetails>> {
    let target = opened.target.as_ref();
    let record = target.run(id).await?;
    let report = record.as_ref().map(Report::read).transpose()?;
    let Some(found) = journals::find(target, id).await? else {
        let details = |report: Report| RunDetails {
            summary: from_report(&report),
            report: Some(report),
            journal: Vec::new(),
            state: None,
        };
        return Ok(report.map(details));
    };
    let header =
        record.map(|record| RunHeader { id: record.id, pipeline: record.pipeline, started_at: record.started_at });
    let mut summary = from_journal(&found, header.as_ref());
    if summary.state.starts_with("interrupted") && target.holder().await?.as_ref() == Some(id) {
        summary.state = RUNNING;
    }
    let journal = found.journal.ok();
    let state = journal.as_ref().and_then(Journal::state).cloned();
    let journal = journal.map_or(Vec::new(), |journal| journal.entries().to_vec());
    Ok(Some(RunDetails { summary, report, journal, state }))
}

async fn unknown_run(opened: &OpenPipeline, id: &str) -> Result<Error> {
    let runs = read(opened).await?;
    let last: Vec<_> = runs.iter().rev().take(LAST).map(|run| &*run.run).collect();
    Ok(Error::usage(format!("there is no run `{id}` in {}", opened.shown)).hint(if last.is_empty() {
        "the target has no runs yet".to_owned()
    } else {
        format!("use the ID of a recorded run; the latest are {}", crate::engine::list(&last))
    }))
}

fn list(runs: &[RunSummary]) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    grid.set_header(["run", "pipeline", "command", "began (UTC)", "tables", "rows", "state"]);
    for run in runs {
        let command = match run.command {
            Command::Import => "keymap import",
            Command::Restore => "keymap restore",
            _ => "run",
        };
        let (began, names, rows) = (moment(&run.began), run.tables.join(", "), run.rows.to_string());
        grid.add_row([&*run.run, &run.pipeline, command, &began, &names, &rows, run.state]);
    }
    let mut text: String = grid.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    for run in runs {
        text.extend(run.damage.iter().map(|damage| format!("warning: {damage}\n")));
    }
    text
}

/// Returns the report, if there is one, and the timeline of the run.
fn history(run: &RunDetails) -> String {
    let mut text = run.report.as_ref().map(|report| report::text(report, run.state.as_ref())).unwrap_or_default();
    if !run.journal.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &report::timeline(&run.journal);
    }
    text.extend(run.summary.damage.iter().map(|damage| format!("warning: {damage}\n")));
    text
}
