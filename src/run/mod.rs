//! A run: the route from delta files to production rows, on one screen.

pub mod keymap;
mod session;
pub mod setup;
mod totals;
mod verify;

use futures::StreamExt;
use futures::stream;

pub use session::{Opened, Request, Session};

use crate::check::{self, Examined, rejects};
use crate::error::{Error, Result};
use crate::journal::{Journal, Listener, Step};
use crate::keys::{self, Keys};
use crate::report::{Command, Report, TableReport, VERSION, Verdict, judge};
use crate::target::{Block, LoadedFile, RunRecord};
use totals::Totals;

/// Validates a delta: every check on all data, and the report that a run would make. Writes reject files, and nothing else.
///
/// # Errors
/// Where a file or the target cannot be read; never for what the data holds, which is the report's verdict.
pub async fn validate(session: &Session, listener: &dyn Listener) -> Result<Report> {
    let journal = Journal::new(listener);
    let (mut report, examined) = examine(session, Command::Validate, &journal).await?;
    report.rejects = write_rejects(session, &report.run, &examined)?;
    report.steps = journal.timings();
    Ok(report)
}

/// Plans a run: what it will do, table by table, with the keys it would get now. Writes nothing.
///
/// # Errors
/// As [`validate`], and where the keys that are asked for are not free.
pub async fn plan(session: &Session, listener: &dyn Listener) -> Result<Report> {
    let journal = Journal::new(listener);
    let (mut report, _) = examine(session, Command::Plan, &journal).await?;
    report.notes.extend(session.safeguards.notes(session.target.as_ref()).await?);
    report.steps = journal.timings();
    Ok(report)
}

/// Runs a pipeline: read, check, assign keys, stage, insert, reconcile, commit, verify. Everything is written in one transaction: all tables
/// and their key map, or nothing.
///
/// # Errors
/// Where a file cannot be read, a file was loaded before, keys are not free, or production refuses a row: nothing is loaded then.
pub async fn run(session: &Session, listener: &dyn Listener) -> Result<Report> {
    let journal = Journal::new(listener);
    session.safeguards.admit(session.target.as_ref()).await?;
    let (mut report, examined) = examine(session, Command::Run, &journal).await?;
    report.rejects = write_rejects(session, &report.run, &examined)?;
    if report.verdict != Verdict::Passed {
        report.steps = journal.timings();
        return Ok(report);
    }
    let plan = &session.compiled.plan;
    let destinations: Vec<_> = plan.tables.iter().map(crate::plan::Table::destination).collect();

    let mut load = session.target.begin(&report.run).await?;
    // Another run of the same files may have been in front of this one.
    let hashes: Vec<Vec<String>> =
        report.tables.iter().map(|table| table.files.iter().map(|file| file.hash.clone()).collect()).collect();
    session.refuse_known(&hashes, &load.loaded_files(&session.asked(&hashes)).await?)?;
    let step = journal.step(Step::Keys);
    let mut blocks: Vec<Option<Block>> = Vec::new();
    for (at, table) in plan.tables.iter().enumerate() {
        blocks.push(match keys::request(table, examined[at].accepted()) {
            Some(request) => Some(load.reserve(&request).await?),
            None => None,
        });
        report.tables[at].set_keys(table, blocks[at].as_ref());
    }
    let keys = Keys::assign(plan, &examined, &blocks)?;
    drop(step);

    let step = journal.step(Step::Stage);
    load.clean_staging(&destinations).await?;
    let mut meant: Vec<Totals> = plan.tables.iter().map(Totals::new).collect();
    for (at, destination) in destinations.iter().enumerate() {
        let rows = keys.rows(at)?.map(|batch| {
            let batch = batch?;
            meant[at].add(&batch)?;
            journal.rows(&destination.table.name, batch.num_rows() as u64);
            keys.staged(at, batch)
        });
        let staged = load.stage(destination, stream::iter(rows).boxed()).await?;
        let mapped = load.stage_keys(destination, stream::iter(keys.map(at)?).boxed()).await?;
        expect(&destination.table.name, "staged", staged, examined[at].accepted())?;
        expect(&destination.table.name, "mapped", mapped, staged)?;
    }
    drop(step);

    let step = journal.step(Step::Insert);
    let refused = |stopped| session.refused(stopped, &examined);
    let next = session.safeguards.resume(&report.run);
    session.safeguards.admit_insertion(session.target.as_ref(), load.as_mut(), &next).await?;
    load.open_insertion(&destinations).await.map_err(refused)?;
    for (at, destination) in destinations.iter().enumerate() {
        let inserted = load.insert(destination).await.map_err(refused)?;
        expect(&destination.table.name, "inserted", inserted, examined[at].accepted())?;
        let appended = load.append_key_map(destination).await.map_err(refused)?;
        expect(&destination.table.name, "appended to the key map", appended, inserted)?;
        report.tables[at].inserted = inserted;
        journal.rows(&destination.table.name, inserted);
    }
    load.settle(&destinations).await.map_err(refused)?;
    drop(step);

    let step = journal.step(Step::Reconcile);
    for (at, table) in plan.tables.iter().enumerate() {
        meant[at].compare(table, load.as_mut()).await?;
        // Nothing but a trigger can change a row between here and there, so where there is one, every row is looked at.
        if !table.catalog.triggers.is_empty() {
            verify::before_commit(load.as_mut(), &destinations[at], &keys, at).await?;
        }
    }
    drop(step);

    let step = journal.step(Step::Commit);
    report.verdict = Verdict::Loaded;
    report.steps = journal.timings();
    load.record(&record(&report)?, &loaded_files(session, &report, &examined)).await?;
    session.safeguards.close(session.target.as_ref(), load.as_mut()).await?;
    load.commit().await?;
    drop(step);

    let step = journal.step(Step::Verify);
    let read_back = async {
        for (at, destination) in destinations.iter().enumerate() {
            verify::after_commit(session.target.as_ref(), destination, &keys, at).await?;
        }
        Ok(())
    };
    let (read_back, analyzed): (Result<()>, _) = futures::join!(read_back, session.target.analyze(&destinations));
    read_back?;
    // The rows are there: statistics that fail to follow are no reason to say otherwise.
    if let Err(error) = analyzed {
        report.warnings.push(error.to_string());
    }
    drop(step);
    report.steps = journal.timings();
    Ok(report)
}

/// What all commands over a delta begin with: hash the files, refuse those that were loaded before, examine, judge, foresee keys.
async fn examine(session: &Session, command: Command, journal: &Journal<'_>) -> Result<(Report, Vec<Examined>)> {
    let step = journal.step(Step::Prepare);
    let started = jiff::Timestamp::now();
    let hashes = session.hashes()?;
    session.refuse_loaded(&hashes).await?;
    drop(step);
    let examined =
        check::examine(&session.engine, &session.compiled, &session.catalog, &session.target, journal).await?;
    session.refuse_changed(&hashes)?;
    session.refuse_twice(&hashes, &examined)?;
    let (reasons, mut warnings) = judge(&session.compiled, &examined);
    warnings.splice(0..0, session.preflight.warnings.iter().cloned());
    let accepted: u64 = examined.iter().map(Examined::accepted).sum();
    let verdict = match (reasons.is_empty(), accepted) {
        (false, _) => Verdict::Failed,
        (true, 0) => Verdict::Empty,
        (true, _) => Verdict::Passed,
    };
    let mut tables = Vec::new();
    for (at, table) in session.compiled.plan.tables.iter().enumerate() {
        let mut told = TableReport::new(&session.compiled, at, &examined[at], &hashes[at]);
        // Keys that are not free are refused here, before anything is written; which ones a run gets is decided when it reserves them.
        if let Some(request) = keys::request(table, examined[at].accepted()) {
            told.set_keys(table, Some(&session.target.foresee(&request).await?));
        }
        tables.push(told);
    }
    let report = Report {
        version: VERSION,
        run: session::run_id(started),
        pipeline: session.compiled.plan.name.clone(),
        command,
        target: session.shown.clone(),
        started_at: started.to_string(),
        verdict,
        reasons,
        warnings,
        notes: session.preflight.notes.clone(),
        tables,
        steps: Vec::new(),
        rejects: None,
    };
    Ok((report, examined))
}

fn write_rejects(session: &Session, run: &str, examined: &[Examined]) -> Result<Option<String>> {
    let folder = session.output.join(run).join("rejects");
    let written = rejects::write(&session.compiled, examined, &folder)?;
    Ok((!written.is_empty()).then(|| session.compiled.secrets.mask(&format!("{}/", folder.display())).into_owned()))
}

fn record(report: &Report) -> Result<RunRecord> {
    let text = serde_json::to_string(report).map_err(|error| Error::internal(format!("the report: {error}")))?;
    Ok(RunRecord {
        id: report.run.clone(),
        pipeline: report.pipeline.clone(),
        started_at: report.started_at.clone(),
        report: text,
    })
}

/// The files to remember, so that they are not loaded again; one without rows may come again.
fn loaded_files(session: &Session, report: &Report, examined: &[Examined]) -> Vec<LoadedFile> {
    let mut files = Vec::new();
    for (at, table) in report.tables.iter().enumerate() {
        for (number, file) in table.files.iter().enumerate() {
            if session::has_rows(&examined[at], number) {
                let table = session.compiled.plan.tables[at].name.clone();
                files.push(LoadedFile {
                    hash: file.hash.clone(),
                    table,
                    name: file.name.clone(),
                    run: report.run.clone(),
                });
            }
        }
    }
    files
}

fn expect(table: &str, what: &str, found: u64, meant: u64) -> Result<()> {
    if found == meant {
        return Ok(());
    }
    Err(Error::pipeline(format!("{found} rows of `{table}` were {what}, and {meant} were meant"))
        .hint("nothing was loaded; a trigger of production that adds or drops rows looks like this"))
}

#[cfg(test)]
mod tests {
    use super::expect;
    use crate::error::Kind;

    #[test]
    fn rows_that_a_trigger_drops_are_the_schemas_fault() {
        assert!(expect("item", "inserted", 2, 2).is_ok());
        let error = expect("item", "inserted", 1, 2).unwrap_err();
        assert_eq!(error.kind(), Kind::Pipeline);
        assert!(error.next_step().unwrap().contains("trigger"));
    }
}
