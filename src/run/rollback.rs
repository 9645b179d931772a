//! Rollback of a run. An interrupted or failed run is abandoned; the rows of a committed run are deleted, all or none.

use super::{OpenPipeline, journals};
use crate::error::{Error, Result};
use crate::failpoint::stop_at;
use crate::journal::{self, Event, Journal, Mirror, Phase, Record, RunId, State};
use crate::report::{Command, Report, Rollback};
use crate::target::RollbackPlan;

/// Rolls a run back, or abandons it. `dry` only reports what would happen. `accepted` are tables that were altered
/// or dropped since, of which the operator knows that nothing else was.
///
/// # Errors
/// If the run does not exist or is rolled back already, its rows conflict, or this user may not. Nothing is changed then.
pub async fn rollback(opened: &OpenPipeline, run: &str, dry: bool, accepted: &[String]) -> Result<Rollback> {
    let run = &RunId::from(run);
    if dry {
        return match UnreadableRun::find(opened, run).await? {
            Some(unreadable) => Ok(unreadable.report(true)),
            None => RollbackCandidate::find(opened, run).await?.planned(accepted).await,
        };
    }
    opened.safeguards.admit_rollback(opened.target.as_ref()).await?;
    opened.target.lock(run).await?;
    let rolled_back = async {
        match UnreadableRun::find(opened, run).await? {
            Some(unreadable) => unreadable.abandoned().await,
            None => RollbackCandidate::find(opened, run).await?.done(accepted).await,
        }
    };
    let rolled_back = rolled_back.await;
    let released = opened.target.unlock().await;
    rolled_back.and_then(|report| released.map(|()| report))
}

/// A run that is not in production and whose journal cannot be read. It can be abandoned, whatever its entries are.
struct UnreadableRun<'a> {
    opened: &'a OpenPipeline,
    last: Record,
    pipeline: String,
    reason: Error,
}

impl<'a> UnreadableRun<'a> {
    async fn find(opened: &'a OpenPipeline, run: &RunId) -> Result<Option<Self>> {
        let target = opened.target.as_ref();
        let records = target.journal(run).await?;
        let is_over = |record: &Record| ["committed", "abandoned", "rolled_back"].contains(&record.kind.as_str());
        let (Some(last), Err(reason)) = (records.last(), Journal::read(run, &records)) else { return Ok(None) };
        if records.iter().any(is_over) || target.run(run).await?.is_some() {
            return Ok(None);
        }
        let pipeline = journal::pipeline(&records).unwrap_or_default();
        Ok(Some(Self { opened, last: last.clone(), pipeline, reason }))
    }

    async fn abandoned(self) -> Result<Rollback> {
        self.opened.target.append_event(&journal::abandoned(&self.last)?).await?;
        Ok(self.report(false))
    }

    fn report(&self, dry: bool) -> Rollback {
        let mut report = Rollback::abandoned(&self.last.run, &self.pipeline, &self.opened.shown, dry);
        report.notes.push(self.reason.to_string());
        report
    }
}

/// A run to roll back, with its journal.
struct RollbackCandidate<'a> {
    opened: &'a OpenPipeline,
    journal: Journal,
    state: State,
    /// Its report, if it is in production and its report can be read.
    report: Option<Report>,
}

impl<'a> RollbackCandidate<'a> {
    async fn find(opened: &'a OpenPipeline, run: &RunId) -> Result<Self> {
        let hint = "`pipeline runs FILE` lists the runs and how they ended; nothing was changed";
        let record = opened.target.run(run).await?;
        let report = record.as_ref().and_then(|record| Report::read(record).ok());
        let journal = journals::of_run(opened.target.as_ref(), run).await?;
        let state = journal.as_ref().and_then(Journal::state).cloned();
        let (Some(journal), Some(state)) = (journal, state) else {
            return Err(match &report {
                None if record.is_none() => Error::usage(format!("{} has no run `{run}`", opened.shown)).hint(hint),
                Some(report) if report.command == Command::Import => {
                    Error::refused(format!("run {run} imported mappings only and cannot be rolled back"))
                        .hint("nothing was changed; a rollback deletes rows of a load")
                }
                _ => Error::refused(format!("run {run} has no journal, so its rows are unknown")).hint(hint),
            });
        };
        if matches!(state.phase, Phase::Abandoned | Phase::RolledBack) {
            return Err(Error::refused(format!("run {run} is {} already", state.label())).hint(hint));
        }
        if record.is_some() == state.is_unfinished() {
            let (is, what) =
                if record.is_some() { ("is", "has no commit entry") } else { ("is not", "has a commit entry") };
            let message = format!("run {run} {is} committed in {}, but its journal {what}", opened.shown);
            return Err(Error::internal(message)
                .hint("another session changed the control tables, or another process resumed the run; see `pipeline runs FILE RUN`"));
        }
        Ok(Self { opened, journal, state, report })
    }

    /// The run, its pipeline, and the target.
    fn names(&self) -> (&RunId, &str, &str) {
        (self.journal.run(), &self.state.started.pipeline, &self.opened.shown)
    }

    /// Returns the report for a run without rows in production, with the keys that it reserved.
    fn abandoned(&self, dry: bool) -> Rollback {
        let (run, pipeline, target) = self.names();
        let mut report = Rollback::abandoned(run, pipeline, target, dry);
        let blocks = self.state.blocks.iter().map(|keys| format!("{}–{} of `{}`", keys.first, keys.last, keys.table));
        let blocks: Vec<_> = blocks.collect();
        if !blocks.is_empty() {
            report.notes.push(format!("it had reserved the keys {}", blocks.join(" and ")));
        }
        report
    }

    async fn planned(self, accepted: &[String]) -> Result<Rollback> {
        if self.state.is_unfinished() {
            return Ok(self.abandoned(true));
        }
        let (run, pipeline, target) = self.names();
        let survey = self.opened.target.plan_rollback(run, accepted).await?;
        Ok(Rollback::of(run, pipeline, target, survey).of_report(self.report.as_ref()))
    }

    async fn done(mut self, accepted: &[String]) -> Result<Rollback> {
        let target = self.opened.target.as_ref();
        if self.state.is_unfinished() {
            let record = self.journal.record_unmirrored(Event::Abandoned)?;
            target.append_event(&record).await?;
            let report = self.abandoned(false);
            return Ok(self.mirrored(report));
        }
        let run = self.journal.run().clone();
        // Conflicts are searched for once the rows are locked.
        let survey = RollbackPlan { tables: target.holdings(&run).await?, ..RollbackPlan::default() };
        let record = self.journal.record_unmirrored(Event::RolledBack { rows: survey.rows() })?;
        let (_, pipeline, shown) = self.names();
        let report = Rollback::of(&run, pipeline, shown, survey);
        let rolled_back = target.roll_back_run(&record, self.opened.safeguards.requires_mode, accepted).await?;
        stop_at("rolled back");
        let report = report.done(&rolled_back).of_report(self.report.as_ref());
        Ok(self.mirrored(report))
    }

    /// Writes the last entry to the run's folder. On failure the report gets a note, because the rollback has happened.
    fn mirrored(self, mut report: Rollback) -> Rollback {
        let Some(folder) = self.opened.output() else { return report };
        let run = self.journal.run().clone();
        let mirror = Mirror::open(&folder.join(run), self.opened.output_mode());
        let mirrored = mirror.and_then(|mirror| self.journal.mirrored(mirror).mirror_last());
        report.notes.extend(mirrored.err().map(|error| error.to_string()));
        report
    }
}
