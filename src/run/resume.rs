//! Going on with a run: which one, whether it is still the same, and what becomes of one that fails.

use std::collections::BTreeMap;

use super::{Opened, Session};
use crate::check::Examined;
use crate::error::{Error, Result};
use crate::journal::{Event, Input, Journal, Loading, Mirror, Phase, Started, State, Step, Steps, moment};
use crate::report::Report;
use crate::target::{LoadedFile, Target};

/// A run that can be gone on with, as its journal tells.
#[derive(Debug)]
pub struct Unfinished {
    run: String,
    state: State,
}

/// Finds a run that can be gone on with: the one that is named, or else the last of this pipeline that was cut off or failed.
///
/// # Errors
/// Where there is none, or the one that is named has ended.
pub async fn find(opened: &Opened, wanted: Option<&str>) -> Result<Unfinished> {
    let pipeline = opened.document.spec.as_ref().map(|spec| spec.name.as_str()).unwrap_or_default();
    let journals = journals(opened.target.as_ref(), wanted).await?;
    let Some(run) = wanted else {
        let found = journals.into_iter().rev().find(|journal| {
            journal.state().is_some_and(|state| can_go_on(state) && state.started.pipeline == pipeline)
        });
        return found.and_then(Unfinished::of).ok_or_else(|| {
            Error::usage(format!("no run of `{pipeline}` into {} was cut off or failed", opened.shown))
                .hint("`pipeline runs FILE` lists the runs and how they ended")
        });
    };
    let unfinished = journals.into_iter().next().and_then(Unfinished::of).ok_or_else(|| {
        Error::usage(format!("there is no run `{run}` in {}", opened.shown)).hint("`pipeline runs FILE` lists the runs")
    })?;
    unfinished.refuse_ended()?;
    if unfinished.state.started.pipeline != pipeline {
        return Err(Error::usage(format!(
            "run {run} is one of the pipeline `{}`, and this is `{pipeline}`",
            unfinished.state.started.pipeline
        ))
        .hint("give the pipeline file that it was started with"));
    }
    Ok(unfinished)
}

/// The journals of all runs, or of one.
pub(super) async fn journals(target: &dyn Target, run: Option<&str>) -> Result<Vec<Journal>> {
    Journal::read_all(&target.journal(run).await?)
}

fn can_go_on(state: &State) -> bool {
    state.phase <= Phase::Committed
}

impl Unfinished {
    fn of(journal: Journal) -> Option<Self> {
        Some(Self { run: journal.run().to_owned(), state: journal.state()?.clone() })
    }

    /// The run's id.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The moment that its expressions take for now.
    ///
    /// # Errors
    /// Where the journal holds none.
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
        Err(Error::refused(format!("run {} is {}: there is nothing to go on with", self.run, self.state.told()))
            .hint("`pipeline runs FILE` lists the runs and how they ended"))
    }

    /// The journal once more, now that nobody else writes: another process may have gone on with the run in between.
    pub(super) async fn again(&self, session: &Session) -> Result<(Journal, State)> {
        let gone = || Error::internal(format!("the journal of run {} is gone", self.run));
        let journal = journals(session.target.as_ref(), Some(&self.run)).await?.into_iter().next().ok_or_else(gone)?;
        let now = Self { run: self.run.clone(), state: journal.state().cloned().ok_or_else(gone)? };
        now.refuse_ended()?;
        let committed = session.target.committed(&self.run, None).await?;
        if committed != (now.state.phase == Phase::Committed) {
            let (is, what) = if committed { ("is", "says nothing of it") } else { ("is not", "says that it is") };
            return Err(Error::internal(format!(
                "run {} {is} committed in {}, and its journal {what}",
                self.run, session.shown
            ))
            .hint("somebody changed the control tables: look at them, and at `journal.ndjson` in the run's folder"));
        }
        Ok((journal, now.state))
    }
}

/// Refuses to start where an earlier run of the pipeline was cut off: nobody knows yet how it ends.
pub(super) async fn refuse_cut_off(session: &Session) -> Result<()> {
    let pipeline = &session.compiled.plan.name;
    for journal in journals(session.target.as_ref(), None).await? {
        if let Some(state) = journal.state()
            && state.is_cut_off()
            && state.started.pipeline == *pipeline
        {
            let run = journal.run();
            return Err(Error::interrupted(format!(
                "run {run} of this pipeline was {}; {} began with it on {} (UTC)",
                state.told(),
                state.by,
                moment(&state.since)
            ))
            .hint(format!(
                "`pipeline resume FILE {run}` goes on with it, `pipeline rollback FILE {run}` gives it up; nothing of it is in production"
            )));
        }
    }
    Ok(())
}

/// What a run is.
pub(super) fn started(session: &Session, report: &Report, examined: &[Examined], known: &[LoadedFile]) -> Started {
    let loading = |(table, examined): (&crate::report::TableReport, &Examined)| Loading {
        table: table.name.clone(),
        rows: examined.accepted(),
        verdicts: table.verdicts.clone(),
        files: table
            .files
            .iter()
            .map(|file| Input {
                name: file.name.clone(),
                hash: file.hash.clone(),
                reload_of: known
                    .iter()
                    .find(|known| known.table == table.name && known.hash == file.hash)
                    .map(|known| known.run.clone()),
            })
            .collect(),
    };
    Started {
        pipeline: report.pipeline.clone(),
        plan: plan_hash(session),
        moment: session.engine.moment().to_string(),
        tables: report.tables.iter().zip(examined).map(loading).collect(),
    }
}

/// The hash of everything that is decided: the plan is plain data.
fn plan_hash(session: &Session) -> String {
    blake3::hash(format!("{:?}", session.compiled.plan).as_bytes()).to_hex().to_string()
}

/// Refuses to go on with a run that would be another one now.
pub(super) fn refuse_other(
    session: &Session,
    then: &Started,
    report: &Report,
    examined: &[Examined],
    known: &[LoadedFile],
) -> Result<()> {
    let now = started(session, report, examined, known);
    let mut reasons = Vec::new();
    let files = |started: &Started| -> BTreeMap<(String, String), Input> {
        let of = |table: &Loading| {
            let files = table.files.iter().cloned();
            files.map(|file| ((table.table.clone(), file.name.clone()), file)).collect::<Vec<_>>()
        };
        started.tables.iter().flat_map(of).collect()
    };
    let (files_then, files_now) = (files(then), files(&now));
    for ((table, name), file) in &files_then {
        match files_now.get(&(table.clone(), name.clone())) {
            None => reasons.push(format!("`{name}` of `{table}` is gone")),
            Some(now) if now.hash != file.hash => reasons.push(format!("`{name}` of `{table}` was changed")),
            Some(Input { reload_of: Some(run), .. }) if file.reload_of.as_ref() != Some(run) => {
                reasons.push(format!("`{name}` of `{table}` was loaded by run {run} meanwhile"));
            }
            Some(_) => {}
        }
    }
    let new = files_now.keys().filter(|file| !files_then.contains_key(*file));
    reasons.extend(new.map(|(table, name)| format!("`{name}` of `{table}` is new")));
    if then.plan != now.plan {
        reasons.push("the pipeline, or the schema of its tables, was changed".to_owned());
    }
    if reasons.is_empty() {
        for (then, now) in then.tables.iter().zip(&now.tables) {
            if then.verdicts != now.verdicts {
                reasons.push(format!(
                    "production has changed: `{}` had {} rows to load, and {} now",
                    then.table, then.rows, now.rows
                ));
            }
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!("run {} would be another one now: {}", report.run, reasons.join("; "))).hint(format!(
        "put back what was changed, or give the run up with `pipeline rollback FILE {}` and run anew",
        report.run
    )))
}

/// Reads back what a run committed before it was cut off.
pub(super) async fn read_back(session: &Session, journal: &mut Journal, steps: &Steps<'_>) -> Result<Report> {
    let step = steps.step(Step::Verify);
    let run = journal.run().to_owned();
    let records = session.target.runs().await?;
    let record = records.iter().find(|record| record.id == run);
    let record = record.ok_or_else(|| Error::internal(format!("the report of run {run} is gone")))?;
    let mut report = Report::read(record)?;
    super::verify::of_run(session, &run).await?;
    report.tables.iter().for_each(|table| steps.rows(&table.name, table.inserted));
    session.target.note(&journal.record(Event::Verified)?).await?;
    drop(step);
    report.steps.extend(steps.timings());
    Ok(report)
}

/// Notes that a run failed, where its journal says that it is on its way.
///
/// # Errors
/// Where the journal cannot be written.
pub(super) async fn note_failure(session: &Session, run: &str, error: &Error) -> Result<()> {
    // What is in the target counts: what a load noted in its transaction went with it.
    let Some(journal) = journals(session.target.as_ref(), Some(run)).await?.into_iter().next() else {
        return Ok(());
    };
    if journal.state().is_some_and(State::is_cut_off) {
        let reason = session.compiled.secrets.mask(&error.to_string()).into_owned();
        let mut journal = journal.mirrored(Mirror::open(&session.folder(run), session.output_mode)?);
        session.target.note(&journal.record(Event::Failed { reason })?).await?;
    }
    Ok(())
}
