//! The route of a load, on one screen: keys, staging, insertion, reconciliation, commit, reading back; and the journal beside it, so that
//! it can be gone on with from wherever it was cut off.

use arrow::array::{Array, RecordBatch};
use futures::StreamExt;
use futures::stream;

use super::resume::{self, ResumableRun};
use super::{
    CheckOutcome, RunContext, RunRequest, backup, examine, mock_diff, report_store, session, verify, write_rejects,
};
use crate::check::CheckedTable;
use crate::error::{Error, Kind, Result};
use crate::failpoint::stop_at;
use crate::journal::{self, Event, Journal, Mirror, Phase};
use crate::keys::{self, Keys};
use crate::progress::{Listener, Step, Steps};
use crate::report::{Command, Report, Verdict};
use crate::run::control_totals::ControlTotals;
use crate::target::{
    Batches, Catalog, Destination, Inserted, KeyBlock, Load, LoadMode, LoadedFile, RowSource, RunRecord,
};

/// What is wished of a run beside what the pipeline file says.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Do all of it and take it back: a mock run.
    pub mock: bool,
    /// Load files again that were loaded before.
    pub allow_reload: bool,
}

/// Runs a pipeline: read, check, assign keys, stage, insert, reconcile, commit, verify. Production is written in one transaction: all
/// tables and their key map, or nothing.
///
/// # Errors
/// Where a file cannot be read, a file was loaded before, keys are not free, or production refuses a row: nothing is loaded then.
pub async fn run(session: &RunContext, options: LoadOptions, listener: &dyn Listener) -> Result<Report> {
    let steps = Steps::new(listener);
    let command = if options.mock { Command::Mock } else { Command::Run };
    let asked = RunRequest { allow_reload: options.allow_reload, ..RunRequest::now(session, command) };
    if !options.mock {
        session.safeguards.admit(session.target.as_ref()).await?;
    }
    session.target.claim(&asked.run).await?;
    let run = async {
        let damaged = if options.mock { Vec::new() } else { resume::refuse_cut_off(session).await? };
        let CheckOutcome { mut report, examined, known } = examine(session, &asked, &steps).await?;
        report.warnings.splice(0..0, damaged);
        write_rejects(session, &mut report, &examined, &steps)?;
        report.steps = steps.timings();
        // Kept now as well: one that is cut off has told what its checks found.
        report_store::keep(session, &mut report);
        if report.verdict != Verdict::Passed {
            return Ok(report);
        }
        let mut journal = Journal::new(&report.run);
        if !options.mock {
            mock_diff::compare(session, &mut report)?;
            journal = journal.mirrored(Mirror::open(&session.folder(&report.run), session.output_mode)?);
        }
        let loading = LoadRun { session, examined, known, options, steps: &steps, journal };
        loading.go(report).await
    };
    let result = run.await;
    end(session, &asked.run, &steps, result).await
}

/// Goes on with a run that was cut off or failed: it must be the same run still, and what it has finished is not done again.
///
/// # Errors
/// As [`run`], and where the files, the pipeline or the verdicts on the rows are others than they were.
pub async fn resume(session: &RunContext, unfinished: &ResumableRun, listener: &dyn Listener) -> Result<Report> {
    let steps = Steps::new(listener);
    let run = unfinished.run();
    session.target.claim(run).await?;
    let resumed = async {
        let (journal, state) = unfinished.again(session).await?;
        let mut journal = journal.mirrored(Mirror::open(&session.folder(run), session.output_mode)?);
        if state.phase == Phase::Committed {
            let mut report = resume::read_back(session, &mut journal, &steps).await?;
            report_store::keep(session, &mut report);
            return Ok(report);
        }
        session.safeguards.admit(session.target.as_ref()).await?;
        let started_at = unfinished.started_at()?;
        let asked = RunRequest { command: Command::Resume, run: run.to_owned(), started_at, allow_reload: true };
        let CheckOutcome { mut report, examined, known } = examine(session, &asked, &steps).await?;
        resume::refuse_other(session, &state.started, &report, &examined, &known)?;
        report.warnings.splice(0..0, unfinished.warnings.iter().cloned());
        write_rejects(session, &mut report, &examined, &steps)?;
        let loading = LoadRun { session, examined, known, options: LoadOptions::default(), steps: &steps, journal };
        loading.go(report).await
    };
    let result = resumed.await;
    end(session, run, &steps, result).await
}

/// Notes how a run failed, and gives the lock back. A run whose end cannot be noted counts as cut off.
async fn end(session: &RunContext, run: &str, steps: &Steps<'_>, result: Result<Report>) -> Result<Report> {
    let result = match result {
        Err(error) if steps.is_resumable() && error.kind() != Kind::Interrupted => {
            Err(failed(session, run, error).await)
        }
        result => result,
    };
    let released = session.target.release().await;
    result.and_then(|report| released.map(|()| report))
}

/// Notes why a run failed, and says how it goes on: where the target was the reason, as it is.
async fn failed(session: &RunContext, run: &str, error: Error) -> Error {
    let Err(unnoted) = resume::note_failure(session, run, &error).await else {
        if error.kind() != Kind::Unreachable {
            return error;
        }
        let hint = error.next_step().map_or(String::new(), |hint| format!("{hint}; "));
        return error.hint(format!("{hint}`pipeline resume FILE {run}` goes on with what is done already"));
    };
    let cut_off = Error::interrupted(format!("run {run} was cut off: {error}"));
    match unnoted.kind() {
        Kind::Unreachable => cut_off.hint(format!(
            "what is not committed is not in production; when the target answers again, `pipeline resume FILE {run}` goes on"
        )),
        _ => cut_off.and(&format!("; and its journal cannot be written: {unnoted}")),
    }
}

/// A load on its way.
struct LoadRun<'a> {
    session: &'a RunContext,
    examined: Vec<CheckedTable>,
    known: Vec<LoadedFile>,
    options: LoadOptions,
    steps: &'a Steps<'a>,
    journal: Journal,
}

impl LoadRun<'_> {
    async fn go(mut self, mut report: Report) -> Result<Report> {
        let (session, steps) = (self.session, self.steps);
        let plan = &session.compiled.plan;
        let destinations: Vec<_> = plan.tables.iter().map(crate::plan::Table::destination).collect();

        if !self.options.mock {
            let step = session.backup.as_ref().map(|_| steps.step(Step::Backup));
            let (key_map, warnings) = backup::before(session).await?;
            report.key_map = Some(key_map);
            report.warnings.extend(warnings);
            drop(step);
        }

        let intent = if self.options.mock { LoadMode::Rehearse } else { LoadMode::Commit };
        let mut load = session.target.begin(&report.run, intent).await?;
        stop_at("locked");
        let before = self.journal.state().cloned();
        let first = match before {
            None => Event::Started(resume::started(session, &report, &self.examined, &self.known)),
            Some(_) => Event::Resumed,
        };
        self.note(load.as_mut(), first).await?;
        steps.resumable(&report.run);
        if let Some(backed_up) = report.key_map.as_ref().and_then(backup::event) {
            self.note(load.as_mut(), backed_up).await?;
        }
        stop_at("started");
        // A run of the same files may have come in between where the lock does not reach.
        let hashes: Vec<Vec<String>> =
            report.tables.iter().map(|table| table.files.iter().map(|file| file.hash.clone()).collect()).collect();
        let known = load.loaded_files(&session.asked(&hashes)).await?;
        if known != self.known {
            session.refuse_known(&hashes, &known)?;
        }

        let step = steps.step(Step::Keys);
        let mut blocks: Vec<Option<KeyBlock>> = Vec::new();
        for (at, table) in plan.tables.iter().enumerate() {
            blocks.push(match keys::request(table, self.examined[at].accepted()) {
                Some(request) => Some(load.reserve(&request).await?),
                None => None,
            });
            report.tables[at].set_keys(table, blocks[at].as_ref());
            stop_at("reserving");
        }
        let reserved = reserved(&session.catalog, &blocks);
        let straight = load.straight(&destinations);
        let to_stage: Vec<usize> = (0..destinations.len()).filter(|at| !straight[*at]).collect();
        let examined = std::mem::take(&mut self.examined);
        let keys = Keys::assign(plan, &examined, &blocks)?;
        let mut staged = before.is_some_and(|state| state.phase >= Phase::Staged && state.blocks == reserved);
        for at in to_stage.iter().copied() {
            let rows = keys.rows(at)?.map(|batch| keys.staged(at, batch?));
            let (rows, mappings) = (stream::iter(rows).boxed(), stream::iter(keys.map(at)?).boxed());
            staged = staged && load.is_staged(&destinations[at], rows, mappings).await?;
        }
        if !staged {
            self.note(load.as_mut(), Event::Reserved { blocks: reserved }).await?;
        }
        drop(step);
        stop_at("reserved");

        let step = steps.step(Step::Stage);
        let mut meant: Vec<ControlTotals> = plan.tables.iter().map(ControlTotals::new).collect();
        if staged {
            for at in &to_stage {
                keys.rows(*at)?.try_for_each(|batch| meant[*at].add(&batch?))?;
            }
        } else {
            let cleaned: Vec<_> = to_stage.iter().map(|at| destinations[*at].clone()).collect();
            load.clean_staging(&cleaned).await?;
            stop_at("cleaned");
            for (destination, at) in cleaned.iter().zip(to_stage.iter().copied()) {
                let rows = keys.rows(at)?.map(|batch| {
                    let batch = batch?;
                    meant[at].add(&batch)?;
                    steps.rows(&destination.table.name, batch.num_rows() as u64);
                    steps.bytes(held(&batch));
                    stop_at("copying");
                    keys.staged(at, batch)
                });
                let staged = load.stage(destination, stream::iter(rows).boxed()).await?;
                let mapped = load.stage_keys(destination, stream::iter(keys.map(at)?).boxed()).await?;
                expect(&destination.table.name, "staged", staged, examined[at].accepted())?;
                expect(&destination.table.name, "mapped", mapped, staged)?;
            }
            self.note(load.as_mut(), Event::Staged).await?;
        }
        drop(step);
        stop_at("staged");

        let step = steps.step(Step::Insert);
        let refused = |stopped| session.refused(stopped, &examined);
        if !self.options.mock {
            let next = session.safeguards.resume(&report.run);
            session.safeguards.admit_insertion(session.target.as_ref(), load.as_mut(), &next).await?;
        }
        load.open_insertion(&destinations).await.map_err(refused)?;
        stop_at("insertion opened");
        let delta = AcceptedRows { keys: &keys, destinations: &destinations, steps };
        let inserted = load.insert(&destinations, &delta).await.map_err(refused)?;
        let compared: Vec<bool> = inserted.iter().map(|table| table.compared).collect();
        for (at, Inserted { rows, mappings, .. }) in inserted.into_iter().enumerate() {
            let name = &destinations[at].table.name;
            expect(name, "inserted", rows, examined[at].accepted())?;
            expect(name, "appended to the key map", mappings, rows)?;
            report.tables[at].inserted = rows;
            report.append_mappings(at, mappings);
        }
        load.settle(&destinations, &delta).await.map_err(refused)?;
        drop(step);

        let step = steps.step(Step::Reconcile);
        for (at, table) in plan.tables.iter().enumerate() {
            if !straight[at] {
                meant[at].compare(table, load.as_mut()).await?;
            }
            // Between here and the reading back nothing but a trigger can change a staged row, so where there is one, every row is looked at.
            // A mock run has no later moment to do it, and what was never staged has nothing else to be held against.
            if !compared[at] && (straight[at] || self.options.mock || !table.catalog.triggers.is_empty()) {
                verify::before_commit(load.as_mut(), &destinations[at], &keys, at).await?;
                steps.rows(&table.name, report.tables[at].inserted);
            }
        }
        drop(step);
        stop_at("reconciled");

        let step = steps.step(Step::Commit);
        let transaction = load.transaction().await?;
        self.note(load.as_mut(), Event::Committing { transaction }).await?;
        if !self.options.mock {
            report.verdict = Verdict::Loaded;
        }
        report.steps = steps.timings();
        load.record(&record(&report)?, &loaded_files(session, &report, &examined)).await?;
        if self.options.mock {
            let moved = load.moved().await?;
            report.warnings.extend(moved.iter().map(|sequence| {
                format!("the mock run moved the sequence {sequence}: a trigger or a function of production takes its numbers, and they stay taken")
            }));
            load.roll_back().await?;
            drop(step);
            report.steps = steps.timings();
            report_store::keep(session, &mut report);
            return Ok(report);
        }
        session.safeguards.close(load.as_mut()).await?;
        load.note_with_rows(&self.journal.record_unmirrored(Event::Committed)?).await?;
        stop_at("recorded");
        load.commit().await.map_err(refused)?;
        stop_at("committed");
        drop(step);
        // From here on the rows are there, and what fails is no reason to say otherwise.
        if let Err(error) = self.journal.mirror_last() {
            report.warnings.push(error.to_string());
        }
        let unread: Vec<_> = to_stage.into_iter().map(|at| (at, &destinations[at])).collect();
        self.read_back(report, &destinations, &unread, &keys).await
    }

    /// Reads back those tables whose rows were not all read before the commit, and brings statistics up to date meanwhile.
    async fn read_back(
        mut self,
        mut report: Report,
        destinations: &[Destination],
        unread: &[(usize, &Destination)],
        keys: &Keys<'_>,
    ) -> Result<Report> {
        let (session, steps) = (self.session, self.steps);
        let step = steps.step(Step::Verify);
        let read_back = async {
            for (at, destination) in unread {
                verify::after_commit(session.target.as_ref(), destination, keys, *at).await?;
                steps.rows(&destination.table.name, report.tables[*at].inserted);
            }
            Ok(())
        };
        let inserted: Vec<u64> = report.tables.iter().map(|table| table.inserted).collect();
        let (read_back, analyzed): (Result<()>, _) =
            futures::join!(read_back, session.target.analyze(destinations, &inserted));
        read_back?;
        stop_at("read back");
        if let Err(error) = backup::after(session, &mut report).await {
            report.warnings.push(format!(
                "this run's own mappings are not backed up: {error}; `pipeline keymap backup FILE` does it"
            ));
        }
        let noted = match self.journal.record(Event::Verified) {
            Ok(record) => session.target.note(&record).await,
            Err(error) => Err(error),
        };
        report.warnings.extend([analyzed, noted].into_iter().filter_map(Result::err).map(|error| error.to_string()));
        drop(step);
        report.steps = steps.timings();
        report_store::keep(session, &mut report);
        Ok(report)
    }

    /// Adds an event to the journal; a mock run has none.
    async fn note(&mut self, load: &mut dyn Load, event: Event) -> Result<()> {
        if self.options.mock {
            return Ok(());
        }
        load.note(&self.journal.record(event)?).await
    }
}

/// The accepted rows as a target takes them.
struct AcceptedRows<'a> {
    keys: &'a Keys<'a>,
    destinations: &'a [Destination],
    steps: &'a Steps<'a>,
}

impl RowSource for AcceptedRows<'_> {
    fn rows(&self, at: usize) -> Result<Batches<'_>> {
        let rows = self.keys.rows(at)?.map(move |batch| {
            let batch = batch?;
            self.steps.bytes(held(&batch));
            stop_at("copying");
            self.keys.staged(at, batch)
        });
        Ok(stream::iter(rows).boxed())
    }

    fn meant(&self, at: usize) -> Result<Batches<'_>> {
        Ok(stream::iter(self.keys.rows(at)?).boxed())
    }

    fn key_map(&self, at: usize) -> Result<Batches<'_>> {
        Ok(stream::iter(self.keys.map(at)?).boxed())
    }

    fn referenced(&self, at: usize, column: &str) -> Result<RecordBatch> {
        self.keys.referenced(at, column)
    }

    fn referring(&self, at: usize, column: &str, rows: &[u32]) -> Result<Vec<u32>> {
        self.keys.referring(at, column, rows)
    }

    fn inserted(&self, at: usize, rows: u64) {
        self.steps.rows(&self.destinations[at].table.name, rows);
        stop_at("inserting");
    }

    fn differs(&self, at: usize, how: &str) -> Error {
        verify::differs(&self.destinations[at].table.name, how)
    }
}

/// The bytes of a batch's rows, as Arrow holds them, without their numbers.
fn held(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter().skip(1);
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or_default() as u64).sum()
}

/// The blocks as the journal keeps them.
fn reserved(catalog: &Catalog, blocks: &[Option<KeyBlock>]) -> Vec<journal::Keys> {
    let id = |name: &String| catalog.table(name).map_or_else(|| name.clone(), |table| table.id.clone());
    let blocks = blocks.iter().flatten().filter(|block| block.first <= block.last);
    blocks.map(|block| journal::Keys { table: id(&block.table), first: block.first, last: block.last }).collect()
}

pub(super) fn record(report: &Report) -> Result<RunRecord> {
    let text = serde_json::to_string(report).map_err(|error| Error::internal(format!("the report: {error}")))?;
    Ok(RunRecord {
        id: report.run.clone(),
        pipeline: report.pipeline.clone(),
        started_at: report.started_at.clone(),
        report: text,
    })
}

/// The files to remember, so that they are not loaded again; one without rows may come again.
fn loaded_files(session: &RunContext, report: &Report, examined: &[CheckedTable]) -> Vec<LoadedFile> {
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

pub(super) fn expect(table: &str, what: &str, found: u64, meant: u64) -> Result<()> {
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
