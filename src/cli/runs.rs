//! `runs`: the runs of a target, how each of them ended, and the story of one.

use std::collections::BTreeMap;
use std::fmt::Display;

use comfy_table::{ContentArrangement, Table as Grid, presets};

use super::args::Output;
use super::output::{json, say};
use crate::error::{Error, Result};
use crate::journal::{Entry, Journal, Phase, State, moment};
use crate::report::{self, Command, Report};
use crate::run::{CommandOptions, OpenPipeline, journals};
use crate::target::{Access, Journals, RunHeader};

/// How many runs an error names.
const LAST: usize = 5;

/// What is said of a run whose journal cannot be trusted.
const DAMAGED: &str = "damaged";

/// A run as it is listed: neither its report nor its journal is held.
#[derive(serde::Serialize)]
struct Listed {
    run: String,
    pipeline: String,
    command: Command,
    state: &'static str,
    began: String,
    tables: Vec<String>,
    rows: u64,
    /// What is wrong with its journal.
    damage: Option<String>,
}

/// One run: its report if it was committed, its journal if it has one.
#[derive(serde::Serialize)]
struct Told {
    #[serde(flatten)]
    listed: Listed,
    report: Option<Report>,
    journal: Vec<Entry>,
    #[serde(skip)]
    folded: Option<State>,
}

/// Lists the runs, or tells the story of one.
pub(super) async fn tell(request: &CommandOptions, wanted: Option<&str>, output: Output) -> Result<u8> {
    let opened = OpenPipeline::open(request, Access::Read).await?;
    let Some(id) = wanted else {
        let runs = read(&opened).await?;
        say(&match output {
            Output::Json => json(&runs)?,
            _ if runs.is_empty() => format!("nothing was loaded into {} yet\n", opened.shown),
            _ => list(&runs),
        })?;
        return Ok(0);
    };
    match one(&opened, id).await? {
        Some(run) => say(&if output == Output::Json { json(&run)? } else { story(&run) }).map(|()| 0),
        None => Err(unknown(&opened, id).await?),
    }
}

/// All runs, oldest first.
async fn read(opened: &OpenPipeline) -> Result<Vec<Listed>> {
    let target = opened.target.as_ref();
    let mut others: BTreeMap<String, RunHeader> =
        target.runs().await?.into_iter().map(|header| (header.id.clone(), header)).collect();
    let mut runs = Vec::new();
    journals::each(target, Journals::All, |found| {
        runs.push(of_journal(&found, others.remove(&found.run).as_ref()));
        Ok(())
    })
    .await?;
    // Without a journal: imported and restored mappings. Their reports are small, and are read one by one.
    for header in others.into_values() {
        if let Some(record) = target.run(&header.id).await? {
            runs.push(match Report::read(&record) {
                Ok(report) => of_report(&report),
                Err(error) => damaged(&header.id, None, Some(&header), &error),
            });
        }
    }
    runs.sort_by(|one, other| (&one.began, &one.run).cmp(&(&other.began, &other.run)));
    Ok(runs)
}

/// A run as its journal has it; one that is damaged as its own row has it.
fn of_journal(found: &journals::Found, header: Option<&RunHeader>) -> Listed {
    let (journal, state) = match found.journal.as_ref().map(|journal| (journal, journal.state())) {
        Ok((journal, Some(state))) => (journal, state),
        Ok((_, None)) => return damaged(&found.run, found.pipeline.as_ref(), header, &"it has no entry"),
        Err(error) => return damaged(&found.run, found.pipeline.as_ref(), header, error),
    };
    let tables = &state.started.tables;
    let is_committed = matches!(state.phase, Phase::Committed | Phase::Verified | Phase::RolledBack);
    Listed {
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

/// A run of which one part cannot be read, as the others have it.
fn damaged(run: &str, pipeline: Option<&String>, header: Option<&RunHeader>, error: &dyn Display) -> Listed {
    let of_header = |field: fn(&RunHeader) -> &String| header.map(field).cloned();
    Listed {
        run: run.to_owned(),
        pipeline: pipeline.cloned().or(of_header(|header| &header.pipeline)).unwrap_or_default(),
        command: Command::Run,
        state: DAMAGED,
        began: of_header(|header| &header.started_at).unwrap_or_default(),
        tables: Vec::new(),
        rows: 0,
        damage: Some(error.to_string()),
    }
}

fn of_report(report: &Report) -> Listed {
    Listed {
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

/// A run with its report and its journal; None if the target knows no such run.
async fn one(opened: &OpenPipeline, id: &str) -> Result<Option<Told>> {
    let target = opened.target.as_ref();
    let record = target.run(id).await?;
    let report = record.as_ref().map(Report::read).transpose()?;
    let Some(found) = journals::find(target, id).await? else {
        let told = |report: Report| Told {
            listed: of_report(&report),
            report: Some(report),
            journal: Vec::new(),
            folded: None,
        };
        return Ok(report.map(told));
    };
    let header =
        record.map(|record| RunHeader { id: record.id, pipeline: record.pipeline, started_at: record.started_at });
    let listed = of_journal(&found, header.as_ref());
    let journal = found.journal.ok();
    let folded = journal.as_ref().and_then(Journal::state).cloned();
    let journal = journal.map_or(Vec::new(), |journal| journal.entries().to_vec());
    Ok(Some(Told { listed, report, journal, folded }))
}

async fn unknown(opened: &OpenPipeline, id: &str) -> Result<Error> {
    let runs = read(opened).await?;
    let last: Vec<_> = runs.iter().rev().take(LAST).map(|run| run.run.as_str()).collect();
    Ok(Error::usage(format!("there is no run `{id}` in {}", opened.shown)).hint(if last.is_empty() {
        "nothing was loaded there yet".to_owned()
    } else {
        format!("the last ones are {}", crate::engine::list(&last))
    }))
}

fn list(runs: &[Listed]) -> String {
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
        grid.add_row([&run.run, &run.pipeline, command, &began, &names, &rows, run.state]);
    }
    let mut told: String = grid.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    for run in runs {
        told.extend(run.damage.iter().map(|damage| format!("warning: {damage}\n")));
    }
    told
}

/// The report where there is one, and then what happened, entry by entry.
fn story(run: &Told) -> String {
    let mut told = run.report.as_ref().map(|report| report::text(report, run.folded.as_ref())).unwrap_or_default();
    if !run.journal.is_empty() {
        if !told.is_empty() {
            told.push('\n');
        }
        told += &report::story(&run.journal);
    }
    told.extend(run.listed.damage.iter().map(|damage| format!("warning: {damage}\n")));
    told
}
