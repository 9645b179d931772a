//! `runs`: the runs of a target, how each of them ended, and the story of one.

use comfy_table::{ContentArrangement, Table as Grid, presets};

use super::args::Output;
use super::tell::{json, say};
use crate::error::{Error, Result};
use crate::journal::{Entry, Journal, State, moment};
use crate::report::{self, Command, Report};
use crate::run::{Opened, Request};
use crate::target::Access;

/// What is known of one run: its report where it was committed, its journal where it has one.
#[derive(serde::Serialize)]
struct Listed {
    run: String,
    pipeline: String,
    state: &'static str,
    began: String,
    tables: Vec<String>,
    report: Option<Report>,
    journal: Vec<Entry>,
    #[serde(skip)]
    folded: Option<State>,
}

/// Lists the runs, or tells the story of one.
pub(super) async fn tell(request: &Request, wanted: Option<&str>, output: Output) -> Result<u8> {
    let opened = Opened::open(request, Access::Read).await?;
    let runs = read(&opened).await?;
    let Some(id) = wanted else {
        say(&match output {
            Output::Json => json(&runs)?,
            _ if runs.is_empty() => format!("nothing was loaded into {} yet\n", opened.shown),
            _ => list(&runs),
        })?;
        return Ok(0);
    };
    let Some(run) = runs.iter().find(|run| run.run == id) else {
        let ids: Vec<_> = runs.iter().rev().take(5).map(|run| run.run.as_str()).collect();
        return Err(Error::usage(format!("there is no run `{id}` in {}", opened.shown)).hint(if ids.is_empty() {
            "nothing was loaded there yet".to_owned()
        } else {
            format!("the last ones are {}", crate::engine::list(&ids))
        }));
    };
    say(&if output == Output::Json { json(run)? } else { story(run) })?;
    Ok(0)
}

/// All runs, oldest first.
async fn read(opened: &Opened) -> Result<Vec<Listed>> {
    let mut reports = Vec::new();
    for record in &opened.target.runs().await? {
        reports.push(Report::read(record)?);
    }
    let mut runs = Vec::new();
    for journal in Journal::read_all(&opened.target.journal(None).await?)? {
        let Some(state) = journal.state() else { continue };
        let at = reports.iter().position(|report| report.run == journal.run());
        runs.push(Listed {
            run: journal.run().to_owned(),
            pipeline: state.started.pipeline.clone(),
            state: state.told(),
            began: journal.entries().first().map_or(String::new(), |entry| entry.at.clone()),
            tables: state.started.tables.iter().map(|table| table.table.clone()).collect(),
            report: at.map(|at| reports.remove(at)),
            journal: journal.entries().to_vec(),
            folded: Some(state.clone()),
        });
    }
    // What has no journal: mappings that were brought in, and runs of a version before there were journals.
    runs.extend(reports.into_iter().map(|report| Listed {
        run: report.run.clone(),
        pipeline: report.pipeline.clone(),
        state: "loaded",
        began: report.started_at.clone(),
        tables: report.tables.iter().map(|table| table.name.clone()).collect(),
        report: Some(report),
        journal: Vec::new(),
        folded: None,
    }));
    runs.sort_by(|one, other| (&one.began, &one.run).cmp(&(&other.began, &other.run)));
    Ok(runs)
}

fn list(runs: &[Listed]) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    grid.set_header(["run", "pipeline", "command", "began (UTC)", "tables", "rows", "state"]);
    for run in runs {
        let rows: u64 = run.report.iter().flat_map(|report| &report.tables).map(|table| table.inserted).sum();
        let command = match run.report.as_ref().map(|report| report.command) {
            Some(Command::Import) => "keymap import",
            Some(Command::Restore) => "keymap restore",
            _ => "run",
        };
        let (began, names, rows) = (moment(&run.began), run.tables.join(", "), rows.to_string());
        grid.add_row([&run.run, &run.pipeline, command, &began, &names, &rows, run.state]);
    }
    grid.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The report where there is one, and then what happened, entry by entry.
fn story(run: &Listed) -> String {
    let mut told = run.report.as_ref().map(|report| report::text(report, run.folded.as_ref())).unwrap_or_default();
    if !run.journal.is_empty() {
        if !told.is_empty() {
            told.push('\n');
        }
        told += &report::story(&run.journal);
    }
    told
}
