//! A load, phase by phase. Each phase is a step of the report, and ends at a point at which tests stop the process.

use arrow::array::{Array, RecordBatch};
use futures::stream;
use futures::{FutureExt, StreamExt};

use super::accounting::{expect, loaded_files, record};
use super::control_totals::{ControlTotals, final_values};
use super::{RunContext, backup, report_store, resume, verify};
use crate::check::CheckedTable;
use crate::engine::RowNumber;
use crate::error::{Error, Result};
use crate::failpoint::stop_at;
use crate::journal::{self, Event, FileHash, Journal, Phase};
use crate::keys::{self, Keys};
use crate::plan::Table;
use crate::progress::{Step, Steps};
use crate::report::{Report, Verdict};
use crate::target::{
    Batches, Catalog, CommitPhase, Destination, InsertError, InsertPhase, JournalWriter, KeyBlock, LoadMode,
    LoadedFile, RowSource, StagingPhase, TableIndex,
};

/// A load on its way.
pub(super) struct LoadRun<'a> {
    context: &'a RunContext,
    steps: &'a Steps<'a>,
    report: Report,
    examined: &'a [CheckedTable],
    /// Files of this delta that were loaded before, which was allowed.
    known: &'a [LoadedFile],
    /// None for a rehearsal, which leaves nothing.
    journal: Option<Journal>,
    destinations: Vec<Destination>,
    tables: Vec<TableLoad<'a>>,
    /// Whether staging has the rows already, from before an interruption.
    is_staged: bool,
}

/// One table of a load. Tables are in the plan's order everywhere.
struct TableLoad<'a> {
    plan: &'a Table,
    /// Rows to insert.
    accepted: u64,
    block: Option<KeyBlock>,
    /// Whether the rows are copied into production without staging.
    is_direct: bool,
    /// Whether every inserted row was compared already.
    is_verified: bool,
    expected: ControlTotals,
}

impl<'a> LoadRun<'a> {
    pub(super) fn new(
        context: &'a RunContext,
        steps: &'a Steps<'a>,
        report: Report,
        examined: &'a [CheckedTable],
        known: &'a [LoadedFile],
        journal: Option<Journal>,
    ) -> Self {
        let plan = &context.compiled.plan;
        let table = |(plan, examined): (&'a Table, &CheckedTable)| TableLoad {
            plan,
            accepted: examined.accepted(),
            block: None,
            is_direct: false,
            is_verified: false,
            expected: ControlTotals::new(plan),
        };
        let tables = plan.tables.iter().zip(examined).map(table).collect();
        let destinations = plan.tables.iter().map(Table::destination).collect();
        Self { context, steps, report, examined, known, journal, destinations, tables, is_staged: false }
    }

    fn is_rehearsal(&self) -> bool {
        self.journal.is_none()
    }

    /// The error of an insertion, with files and lines of the rows that caused it, and the keys that stay reserved.
    fn refused(&self, error: InsertError) -> Error {
        let is_violation = matches!(error, InsertError::Violation(_));
        let error = self.context.refused(error, self.examined);
        let blocks =
            self.tables.iter().filter_map(|table| table.block.as_ref()).filter(|block| block.first <= block.last);
        let blocks: Vec<_> =
            blocks.map(|block| format!("{}–{} of `{}`", block.first, block.last, block.table)).collect();
        let is_kept = is_violation && !self.is_rehearsal() && self.context.target.capabilities().sequences;
        if !is_kept || blocks.is_empty() {
            return error;
        }
        let hint = error.next_step().map_or(String::new(), |hint| format!("{hint}; "));
        let run = &self.report.run;
        error.hint(format!(
            "{hint}the keys {} stay reserved for run {run}: `pipeline resume FILE {run}` uses them, and another run takes later ones",
            blocks.join(" and ")
        ))
    }

    /// Backs up the key map, if the pipeline file says where.
    pub(super) async fn back_up(&mut self) -> Result<()> {
        let _step = self.context.backup.as_ref().map(|_| self.steps.step(Step::Backup));
        let (key_map, warnings) = backup::before(self.context).await?;
        self.report.key_map = Some(key_map);
        self.report.warnings.extend(warnings);
        Ok(())
    }

    /// Begins the load, and records that it has begun.
    pub(super) async fn begin(&mut self, mode: LoadMode) -> Result<Box<dyn StagingPhase>> {
        let mut load = self.context.target.begin(&self.report.run, mode).await?;
        stop_at("locked");
        let is_new = self.journal.as_ref().is_none_or(|journal| journal.state().is_none());
        let first = match is_new {
            true => Event::Started(resume::started(self.context, &self.report, self.examined, self.known)),
            false => Event::Resumed,
        };
        self.note(load.as_mut(), first).await?;
        self.steps.resumable(&self.report.run);
        if let Some(backed_up) = self.report.key_map.as_ref().and_then(backup::event) {
            self.note(load.as_mut(), backed_up).await?;
        }
        stop_at("started");
        // If the lock does not cover them, a run of the same files may have come in between.
        let hash = |table: &crate::report::TableReport| table.files.iter().map(|file| file.hash.clone()).collect();
        let hashes: Vec<Vec<FileHash>> = self.report.tables.iter().map(hash).collect();
        let known = load.loaded_files(&self.context.asked(&hashes)).await?;
        if known != self.known {
            self.context.refuse_known(&hashes, &known)?;
        }
        Ok(load)
    }

    /// Reserves a block of keys per table, and assigns them.
    pub(super) async fn reserve_keys(&mut self, load: &mut dyn StagingPhase) -> Result<Keys<'a>> {
        let step = self.steps.step(Step::Keys);
        let state = self.journal.as_ref().and_then(Journal::state).cloned();
        let mut defaults = Vec::with_capacity(self.tables.len());
        for ((table, report), destination) in
            self.tables.iter_mut().zip(&mut self.report.tables).zip(&self.destinations)
        {
            if let Some(request) = keys::request(table.plan, table.accepted) {
                table.block = Some(load.reserve(&request).await?);
            }
            report.set_keys(table.plan, table.block.as_ref());
            defaults.push(match destination.evaluated.is_empty() {
                true => None,
                false => Some(load.defaults(destination, table.accepted).await?),
            });
            stop_at("reserving");
        }
        let blocks: Vec<_> = self.tables.iter().map(|table| table.block.clone()).collect();
        let reserved = reserved(&self.context.catalog, &blocks);
        for (table, is_direct) in self.tables.iter_mut().zip(load.direct_path(&self.destinations)) {
            table.is_direct = is_direct;
        }
        let keys = Keys::assign(&self.context.compiled.plan, self.examined, &blocks, defaults)?;
        self.is_staged = self.context.target.capabilities().durable_staging
            && state.is_some_and(|state| state.phase >= Phase::Staged && state.blocks == reserved)
            && self.has_staged(load, &keys).await?;
        if !self.is_staged {
            self.note(load, Event::Reserved { blocks: reserved }).await?;
        }
        drop(step);
        stop_at("reserved");
        Ok(keys)
    }

    /// The indexes of the tables that are staged.
    fn staged(&self) -> Vec<TableIndex> {
        TableIndex::all(self.tables.len()).filter(|index| !self.tables[*index].is_direct).collect()
    }

    async fn has_staged(&self, load: &mut dyn StagingPhase, keys: &Keys<'_>) -> Result<bool> {
        for index in self.staged() {
            let rows = keys.rows(index)?.map(|batch| keys.staged(index, batch?));
            let (rows, mappings) = (stream::iter(rows).boxed(), stream::iter(keys.map(index)?).boxed());
            if !load.is_staged(&self.destinations[index], rows, mappings).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies rows and key maps into staging, and adds up the control totals.
    pub(super) async fn stage(&mut self, load: &mut dyn StagingPhase, keys: &Keys<'_>) -> Result<()> {
        let step = self.steps.step(Step::Stage);
        let staged = self.staged();
        if self.is_staged {
            for index in staged {
                let expected = &mut self.tables[index].expected;
                keys.rows(index)?.try_for_each(|batch| expected.add(&batch?))?;
            }
        } else {
            let destinations: Vec<_> = staged.iter().map(|index| self.destinations[*index].clone()).collect();
            load.clear_staging(&destinations).await?;
            stop_at("cleaned");
            for index in staged {
                self.stage_table(load, keys, index).await?;
            }
            self.note(load, Event::Staged).await?;
        }
        drop(step);
        stop_at("staged");
        Ok(())
    }

    async fn stage_table(&mut self, load: &mut dyn StagingPhase, keys: &Keys<'_>, index: TableIndex) -> Result<()> {
        let (steps, destination, table) = (self.steps, &self.destinations[index], &mut self.tables[index]);
        let name = &destination.table.name;
        let rows = keys.rows(index)?.map(|batch| {
            let batch = batch?;
            table.expected.add(&batch)?;
            steps.rows(name, batch.num_rows() as u64);
            steps.bytes(held(&batch));
            stop_at("copying");
            keys.staged(index, batch)
        });
        let staged = load.stage(destination, stream::iter(rows).boxed()).await?;
        let mapped = load.stage_keys(destination, stream::iter(keys.map(index)?).boxed()).await?;
        expect(name, "staged", staged, table.accepted)?;
        expect(name, "mapped", mapped, staged)
    }

    /// Inserts all rows into production, and appends their key maps.
    pub(super) async fn insert(
        &mut self,
        mut staging: Box<dyn StagingPhase>,
        keys: &Keys<'_>,
    ) -> Result<Box<dyn InsertPhase>> {
        let step = self.steps.step(Step::Insert);
        if !self.is_rehearsal() {
            let next = self.context.safeguards.resume(&self.report.run);
            let target = self.context.target.as_ref();
            self.context.safeguards.admit_insertion(target, staging.as_mut(), &next).await?;
        }
        let begun = staging.begin_insert(&self.destinations).await;
        let mut load = begun.map_err(|error| self.refused(error))?;
        stop_at("insertion opened");
        let rows = AcceptedRows { keys, destinations: &self.destinations, steps: self.steps };
        let inserted = load.insert(&self.destinations, &rows).await.map_err(|error| self.refused(error))?;
        for (index, (table, inserted)) in TableIndex::enumerate(self.tables.iter_mut().zip(inserted)) {
            expect(&table.plan.name, "inserted", inserted.rows, table.accepted)?;
            expect(&table.plan.name, "appended to the key map", inserted.mappings, inserted.rows)?;
            table.is_verified = inserted.verified;
            self.report.tables[index].inserted = inserted.rows;
            self.report.append_mappings(index, inserted.mappings);
        }
        load.validate_deferred(&self.destinations, &rows).await.map_err(|error| self.refused(error))?;
        drop(step);
        Ok(load)
    }

    /// Compares production with the delta: the control totals, and every row that something may have changed.
    pub(super) async fn reconcile(
        &mut self,
        mut load: Box<dyn InsertPhase>,
        keys: &Keys<'_>,
    ) -> Result<Box<dyn CommitPhase>> {
        let step = self.steps.step(Step::Reconcile);
        for (index, table) in TableIndex::enumerate(&self.tables) {
            self.report.tables[index].trigger_columns = final_values(table.plan, load.as_mut()).await?;
            if !table.is_direct {
                table.expected.compare(table.plan, load.as_mut()).await?;
            }
            // From here to the reading back only a trigger can change a staged row: with one, every row is compared now. A mock run has
            // no later moment for it, and a row that was never staged has nothing else to be compared with.
            let has_triggers = !table.plan.catalog.triggers.is_empty();
            if !table.is_verified && (table.is_direct || self.is_rehearsal() || has_triggers) {
                let rows = AcceptedRows { keys, destinations: &self.destinations, steps: self.steps };
                verify::before_commit(load.as_mut(), &self.destinations[index], index, &rows).await?;
                self.steps.rows(&table.plan.name, self.report.tables[index].inserted);
            }
        }
        drop(step);
        stop_at("reconciled");
        Ok(load.finish())
    }

    /// Records the run, and commits.
    pub(super) async fn commit(&mut self, mut load: Box<dyn CommitPhase>) -> Result<()> {
        let step = self.steps.step(Step::Commit);
        let transaction = load.transaction_id().await?;
        self.note(load.as_mut(), Event::Committing { transaction }).await?;
        self.report.verdict = Verdict::Loaded;
        self.record(load.as_mut()).await?;
        self.context.safeguards.close(load.as_mut()).await?;
        if let Some(journal) = &mut self.journal {
            load.append_event_with_rows(&journal.record_unmirrored(Event::Committed)?).await?;
        }
        stop_at("recorded");
        load.commit().await.map_err(|error| self.refused(error))?;
        stop_at("committed");
        drop(step);
        // From here on the rows are there, and what fails is no reason to say otherwise.
        let mirrored = self.journal.as_mut().map_or(Ok(()), Journal::mirror_last);
        self.report.warnings.extend(mirrored.err().map(|error| error.to_string()));
        Ok(())
    }

    /// Records the run as a rehearsal would leave it, and rolls everything back.
    pub(super) async fn roll_back(mut self, mut load: Box<dyn CommitPhase>) -> Result<Report> {
        let step = self.steps.step(Step::Commit);
        self.record(load.as_mut()).await?;
        let moved = load.moved_sequences().await?;
        self.report.warnings.extend(moved.iter().map(|sequence| {
            format!("the mock run advanced the sequence {sequence}: a trigger or a function of production took numbers, which are lost")
        }));
        load.roll_back().await?;
        drop(step);
        Ok(self.finished())
    }

    async fn record(&mut self, load: &mut dyn CommitPhase) -> Result<()> {
        self.report.steps = self.steps.timings();
        let files = loaded_files(self.context, &self.report, self.examined);
        load.record_run(&record(&self.report)?, &files).await
    }

    /// Reads back the tables whose rows were not all compared before the commit, and refreshes statistics meanwhile.
    pub(super) async fn read_back(mut self, keys: &Keys<'_>) -> Result<Report> {
        let (context, steps) = (self.context, self.steps);
        let step = steps.step(Step::Verify);
        let read_back = async {
            for index in self.staged() {
                let destination = &self.destinations[index];
                verify::after_commit(context.target.as_ref(), destination, keys, index).await?;
                steps.rows(&destination.table.name, self.report.tables[index].inserted);
            }
            Ok(())
        };
        let inserted: Vec<u64> = self.report.tables.iter().map(|table| table.inserted).collect();
        let analyze = match context.target.capabilities().statistics {
            true => context.target.analyze(&self.destinations, &inserted),
            false => async { Ok(()) }.boxed(),
        };
        let (read_back, analyzed): (Result<()>, _) = futures::join!(read_back, analyze);
        read_back?;
        stop_at("read back");
        if let Err(error) = backup::after(context, &mut self.report).await {
            self.report.warnings.push(format!(
                "the mappings of this run are not backed up: {error}; run `pipeline keymap backup FILE`"
            ));
        }
        let recorded = match self.journal.as_mut().map(|journal| journal.record(Event::Verified)) {
            Some(Ok(record)) => context.target.append_event(&record).await,
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        let failed = [analyzed, recorded].into_iter().filter_map(Result::err);
        self.report.warnings.extend(failed.map(|error| error.to_string()));
        drop(step);
        Ok(self.finished())
    }

    /// Stores the report, with the time of each step.
    fn finished(mut self) -> Report {
        self.report.steps = self.steps.timings();
        report_store::keep(self.context, &mut self.report);
        self.report
    }

    /// Appends an event to the journal. A rehearsal has none.
    async fn note<L: JournalWriter + ?Sized>(&mut self, load: &mut L, event: Event) -> Result<()> {
        match &mut self.journal {
            Some(journal) => load.append_event(&journal.record(event)?).await,
            None => Ok(()),
        }
    }
}

/// The accepted rows of a run.
struct AcceptedRows<'a> {
    keys: &'a Keys<'a>,
    destinations: &'a [Destination],
    steps: &'a Steps<'a>,
}

impl RowSource for AcceptedRows<'_> {
    fn staged_rows(&self, at: TableIndex) -> Result<Batches<'_>> {
        let rows = self.keys.rows(at)?.map(move |batch| {
            let batch = batch?;
            self.steps.bytes(held(&batch));
            stop_at("copying");
            self.keys.staged(at, batch)
        });
        Ok(stream::iter(rows).boxed())
    }

    fn expected_rows(&self, at: TableIndex) -> Result<Batches<'_>> {
        Ok(stream::iter(self.keys.rows(at)?).boxed())
    }

    fn key_map(&self, at: TableIndex) -> Result<Batches<'_>> {
        Ok(stream::iter(self.keys.map(at)?).boxed())
    }

    fn referenced(&self, at: TableIndex, column: &str) -> Result<RecordBatch> {
        self.keys.referenced(at, column)
    }

    fn referring(&self, at: TableIndex, column: &str, rows: &[RowNumber]) -> Result<Vec<RowNumber>> {
        self.keys.referring(at, column, rows)
    }

    fn on_inserted(&self, at: TableIndex, rows: u64) {
        self.steps.rows(&self.destinations[at].table.name, rows);
        stop_at("inserting");
    }

    fn mismatch_error(&self, at: TableIndex, how: &str) -> Error {
        verify::differs(&self.destinations[at].table.name, how)
    }
}

/// The bytes of a batch's rows, as Arrow holds them, without their numbers.
fn held(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter().skip(1);
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or_default() as u64).sum()
}

/// Returns the blocks as the journal records them.
fn reserved(catalog: &Catalog, blocks: &[Option<KeyBlock>]) -> Vec<journal::Keys> {
    let id = |name: &String| catalog.table(name).map_or_else(|| name.clone(), |table| table.id.clone());
    let blocks = blocks.iter().flatten().filter(|block| block.first <= block.last);
    blocks.map(|block| journal::Keys { table: id(&block.table), first: block.first, last: block.last }).collect()
}
