//! Going on with a run: which one, whether it is still the same, and what becomes of one that fails.

use std::collections::BTreeMap;

use super::{OpenPipeline, RunContext, journals};
use crate::check::CheckedTable;
use crate::error::{Error, Result};
use crate::journal::{Event, Input, Journal, Mirror, Phase, RunId, Started, State, TableManifest, moment};
use crate::plan::{Reference, Table};
use crate::progress::{Step, Steps};
use crate::report::Report;
use crate::target::{Journals, LoadedFile, Target};

/// A run that can be resumed, according to its journal.
#[derive(Debug)]
pub struct ResumableRun {
    run: RunId,
    state: State,
    /// Problems with other runs of the pipeline.
    pub(super) warnings: Vec<String>,
}

/// Finds a run to resume: the named one, or the last run of this pipeline that was interrupted or failed.
///
/// # Errors
/// If no run can be resumed, or the named run has ended.
pub async fn find(opened: &OpenPipeline, wanted: Option<&str>) -> Result<ResumableRun> {
    let pipeline = opened.document.spec.as_ref().map(|spec| spec.name.as_str()).unwrap_or_default();
    let target = opened.target.as_ref();
    let Some(run) = wanted else {
        return last_open(target, pipeline).await?.ok_or_else(|| {
            Error::usage(format!("no run of `{pipeline}` into {} was interrupted or failed", opened.shown))
                .hint("`pipeline runs FILE` lists the runs and how they ended")
        });
    };
    let unfinished = journals::of_run(target, &run.into()).await?.and_then(ResumableRun::of).ok_or_else(|| {
        Error::usage(format!("{} has no run `{run}`", opened.shown)).hint("`pipeline runs FILE` lists the runs")
    })?;
    unfinished.refuse_ended()?;
    if unfinished.state.started.pipeline != pipeline {
        return Err(Error::usage(format!(
            "run {run} belongs to the pipeline `{}`, not to `{pipeline}`",
            unfinished.state.started.pipeline
        ))
        .hint("use the pipeline file that started the run"));
    }
    Ok(unfinished)
}

/// Returns the last resumable run of a pipeline.
async fn last_open(target: &dyn Target, pipeline: &str) -> Result<Option<ResumableRun>> {
    let (mut last, mut warnings) = (None, Vec::new());
    journals::each(target, Journals::Open, |found| {
        warnings.extend(found.damage(pipeline)?);
        let Ok(journal) = found.journal else { return Ok(()) };
        if journal.state().is_some_and(|state| can_go_on(state) && state.started.pipeline == pipeline) {
            last = ResumableRun::of(journal);
        }
        Ok(())
    })
    .await?;
    match (last, warnings.is_empty()) {
        (Some(last), _) => Ok(Some(ResumableRun { warnings, ..last })),
        (None, true) => Ok(None),
        (None, false) => Err(Error::refused(format!("no run can be resumed: {}", warnings.join("; ")))
            .hint("compare the journal with `journal.ndjson` in the run's folder before you continue")),
    }
}

fn can_go_on(state: &State) -> bool {
    state.phase <= Phase::Committed
}

impl ResumableRun {
    fn of(journal: Journal) -> Option<Self> {
        Some(Self { run: journal.run().to_owned(), state: journal.state()?.clone(), warnings: Vec::new() })
    }

    /// The run's id.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The moment that its expressions take for now.
    ///
    /// # Errors
    /// If the journal has none.
    pub fn moment(&self) -> Result<jiff::Timestamp> {
        let moment = &self.state.started.moment;
        moment.parse().map_err(|error| Error::internal(format!("the moment `{moment}` of run {}: {error}", self.run)))
    }

    /// When it began.
    pub(super) fn started_at(&self) -> Result<jiff::Timestamp> {
        self.moment()
    }

    fn refuse_ended(&self) -> Result<()> {
        if can_go_on(&self.state) {
            return Ok(());
        }
        Err(Error::refused(format!("run {} is {} and cannot be resumed", self.run, self.state.label()))
            .hint("`pipeline runs FILE` lists the runs and how they ended"))
    }

    /// Reads the journal again under the writer lock, because another process may have resumed the run in between.
    pub(super) async fn again(&self, context: &RunContext) -> Result<(Journal, State)> {
        let gone = || Error::internal(format!("the journal of run {} is gone", self.run));
        let journal = journals::of_run(context.target.as_ref(), &self.run).await?.ok_or_else(gone)?;
        let state = journal.state().cloned().ok_or_else(gone)?;
        let now = Self { run: self.run.clone(), state, warnings: Vec::new() };
        now.refuse_ended()?;
        let committed = context.target.is_committed(&self.run, None).await?;
        if committed != (now.state.phase == Phase::Committed) {
            let (is, what) = if committed { ("is", "has no commit entry") } else { ("is not", "has a commit entry") };
            return Err(Error::internal(format!(
                "run {} {is} committed in {}, but its journal {what}",
                self.run, context.shown
            ))
            .hint(
                "another session changed the control tables; compare them with `journal.ndjson` in the run's folder",
            ));
        }
        Ok((journal, now.state))
    }
}

/// Refuses to start if an earlier run of the pipeline was interrupted, since its outcome is open. Returns problems with the journals
/// of the pipeline's other runs.
pub(super) async fn refuse_interrupted(context: &RunContext) -> Result<Vec<String>> {
    let pipeline = &context.compiled.plan.name;
    let mut warnings = Vec::new();
    journals::each(context.target.as_ref(), Journals::Open, |found| {
        warnings.extend(found.damage(pipeline)?);
        let Ok(journal) = found.journal else { return Ok(()) };
        match journal.state() {
            Some(state) if state.is_interrupted() && state.started.pipeline == *pipeline => {
                Err(cut_off(journal.run(), state))
            }
            _ => Ok(()),
        }
    })
    .await?;
    Ok(warnings)
}

fn cut_off(run: &RunId, state: &State) -> Error {
    Error::interrupted(format!(
        "run {run} of this pipeline was {}; {} began with it on {} (UTC)",
        state.label(),
        state.by,
        moment(&state.since)
    ))
    .hint(format!(
        "nothing of it is in production; run `pipeline resume FILE {run}` to continue it, or `pipeline rollback FILE {run}` to abandon it"
    ))
}

/// Returns what identifies a run: plan, moment, files, and verdicts.
pub(super) fn started(
    context: &RunContext,
    report: &Report,
    examined: &[CheckedTable],
    known: &[LoadedFile],
) -> Started {
    let id = |table: &crate::report::TableReport| {
        context.catalog.table(&table.name).map_or_else(|| table.name.clone(), |found| found.id.clone())
    };
    let loading = |(table, examined): (&crate::report::TableReport, &CheckedTable)| TableManifest {
        table: id(table),
        rows: examined.accepted(),
        verdicts: table.verdicts.clone(),
        references: table.references.clone(),
        files: table
            .files
            .iter()
            .map(|file| Input {
                name: file.name.clone(),
                hash: file.hash.clone(),
                reload_of: known
                    .iter()
                    .find(|known| known.table == table.name && known.hash == file.hash)
                    .map(|known| known.run.to_string()),
            })
            .collect(),
    };
    Started {
        pipeline: report.pipeline.clone(),
        plan: plan_hash(context),
        moment: context.engine.moment().to_string(),
        tables: report.tables.iter().zip(examined).map(loading).collect(),
    }
}

/// The hash of everything that is decided: the plan is plain data.
fn plan_hash(context: &RunContext) -> String {
    blake3::hash(format!("{:?}", context.compiled.plan).as_bytes()).to_hex().to_string()
}

/// Refuses to resume a run whose input has changed.
pub(super) fn refuse_other(
    context: &RunContext,
    then: &Started,
    report: &Report,
    examined: &[CheckedTable],
    known: &[LoadedFile],
) -> Result<()> {
    let now = started(context, report, examined, known);
    let mut reasons = Vec::new();
    let files = |started: &Started| -> BTreeMap<(String, String), Input> {
        let of = |table: &TableManifest| {
            let files = table.files.iter().cloned();
            files.map(|file| ((table.table.clone(), file.name.clone()), file)).collect::<Vec<_>>()
        };
        started.tables.iter().flat_map(of).collect()
    };
    let (files_then, files_now) = (files(then), files(&now));
    // People know a table by the name that the pipeline file gives it.
    let shown = |id: &String| {
        let found = context.catalog.tables.iter().find(|table| table.id == *id);
        found.map_or_else(|| id.clone(), |table| table.name.clone())
    };
    for ((table, name), file) in &files_then {
        match files_now.get(&(table.clone(), name.clone())) {
            None => reasons.push(format!("`{name}` of `{}` is gone", shown(table))),
            Some(now) if now.hash != file.hash => reasons.push(format!("`{name}` of `{}` was changed", shown(table))),
            Some(Input { reload_of: Some(run), .. }) if file.reload_of.as_ref() != Some(run) => {
                reasons.push(format!("`{name}` of `{}` has since been loaded by run {run}", shown(table)));
            }
            Some(_) => {}
        }
    }
    let new = files_now.keys().filter(|file| !files_then.contains_key(*file));
    reasons.extend(new.map(|(table, name)| format!("`{name}` of `{}` is new", shown(table))));
    if then.plan != now.plan {
        reasons.push("the pipeline, or the schema of its tables, was changed".to_owned());
    }
    if reasons.is_empty() {
        // Equal plans have equal tables in equal order.
        for (table, (then, now)) in context.compiled.plan.tables.iter().zip(then.tables.iter().zip(&now.tables)) {
            if then.verdicts == now.verdicts {
                reasons.extend(moved(table, then, now));
            } else {
                reasons.push(format!(
                    "production has changed: `{}` had {} rows to load, and {} now",
                    shown(&then.table),
                    then.rows,
                    now.rows
                ));
            }
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!("cannot resume run {}: its input has changed: {}", report.run, reasons.join("; ")))
        .hint(format!(
            "undo the changes, or abandon the run with `pipeline rollback FILE {}` and run again",
            report.run
        )))
}

/// The references of a table that lead to other rows than when the run began: its staged rows have those of then.
fn moved(table: &Table, then: &TableManifest, now: &TableManifest) -> Vec<String> {
    let differs = |column: &String| then.references.get(column) != now.references.get(column);
    let moved = table.references.iter().filter(|reference| differs(&reference.column));
    let reason = |reference: &Reference| {
        let by = if reference.by.is_empty() { "legacy key".to_owned() } else { reference.by.join(", ") };
        format!(
            "production has changed: `{}` of `{}` refers to other rows of `{}` (found by `{by}`) than when the run began",
            reference.column, table.name, reference.to
        )
    };
    moved.map(reason).collect()
}

/// Reads back the rows of a run that was interrupted after its commit.
pub(super) async fn read_back(context: &RunContext, journal: &mut Journal, steps: &Steps<'_>) -> Result<Report> {
    let step = steps.step(Step::Verify);
    let run = journal.run().to_owned();
    let record = context.target.run(&run).await?;
    let record = record.ok_or_else(|| Error::internal(format!("the report of run {run} is gone")))?;
    let mut report = Report::read(&record)?;
    super::verify::of_run(context, &run).await?;
    report.tables.iter().for_each(|table| steps.rows(&table.name, table.inserted));
    context.target.append_event(&journal.record(Event::Verified)?).await?;
    drop(step);
    report.steps.extend(steps.timings());
    Ok(report)
}

/// Records that a run failed, unless its journal has ended.
///
/// # Errors
/// If the journal cannot be written.
pub(super) async fn note_failure(context: &RunContext, run: &RunId, error: &Error) -> Result<()> {
    // The target's journal counts: entries of the load's own transaction were rolled back with it.
    let Some(journal) = journals::of_run(context.target.as_ref(), run).await? else { return Ok(()) };
    if journal.state().is_some_and(State::is_interrupted) {
        let reason = context.compiled.secrets.mask(&error.to_string()).into_owned();
        let mut journal = journal.mirrored(Mirror::open(&context.folder(run), context.output_mode)?);
        context.target.append_event(&journal.record(Event::Failed { reason })?).await?;
    }
    Ok(())
}
