//! The rollback of a run: one that was cut off or failed is given up, one that is in production leaves it again, all of it or nothing.

use super::{OpenPipeline, journals};
use crate::error::{Error, Result};
use crate::failpoint::stop_at;
use crate::journal::{Event, Journal, Mirror, Phase, State};
use crate::report::{Command, Report, Rollback};
use crate::target::RollbackPlan;

/// Rolls a run back, or gives it up; `dry` tells what would become of it and leaves nothing changed. `accepted` are tables that were altered
/// or dropped since, of which the operator knows that nothing else was.
///
/// # Errors
/// If there is no such run, it is rolled back already, its rows are in other hands, or this user may not: nothing is changed then.
pub async fn rollback(opened: &OpenPipeline, run: &str, dry: bool, accepted: &[String]) -> Result<Rollback> {
    if dry {
        return RollbackCandidate::find(opened, run).await?.planned(accepted).await;
    }
    opened.safeguards.admit_rollback(opened.target.as_ref()).await?;
    opened.target.lock(run).await?;
    let rolled_back = async { RollbackCandidate::find(opened, run).await?.done(accepted).await };
    let rolled_back = rolled_back.await;
    let released = opened.target.unlock().await;
    rolled_back.and_then(|report| released.map(|()| report))
}

/// A run that can be taken back, as its journal tells.
struct RollbackCandidate<'a> {
    opened: &'a OpenPipeline,
    journal: Journal,
    state: State,
    /// Its report, once it is in production.
    report: Option<Report>,
}

impl<'a> RollbackCandidate<'a> {
    async fn find(opened: &'a OpenPipeline, run: &str) -> Result<Self> {
        let hint = "`pipeline runs FILE` lists the runs and how they ended; nothing was changed";
        let report = opened.target.run(run).await?.as_ref().map(Report::read).transpose()?;
        let journal = journals::of_run(opened.target.as_ref(), run).await?;
        let state = journal.as_ref().and_then(Journal::state).cloned();
        let (Some(journal), Some(state)) = (journal, state) else {
            return Err(match &report {
                None => Error::usage(format!("{} has no run `{run}`", opened.shown)).hint(hint),
                Some(report) if report.command == Command::Import => {
                    Error::refused(format!("run {run} imported mappings only and cannot be rolled back"))
                        .hint("nothing was changed; a rollback deletes rows of a load")
                }
                Some(_) => Error::refused(format!("run {run} has no journal, so its rows are unknown")).hint(hint),
            });
        };
        if matches!(state.phase, Phase::Abandoned | Phase::RolledBack) {
            return Err(Error::refused(format!("run {run} is {} already", state.told())).hint(hint));
        }
        if report.is_some() == state.is_unfinished() {
            let (is, what) =
                if report.is_some() { ("is", "says nothing of it") } else { ("is not", "says that it is") };
            let message = format!("run {run} {is} committed in {}, and its journal {what}", opened.shown);
            return Err(Error::internal(message)
                .hint("another session changed the control tables, or another process resumed the run; see `pipeline runs FILE RUN`"));
        }
        Ok(Self { opened, journal, state, report })
    }

    fn told(&self) -> (&str, &str, &str) {
        (self.journal.run(), &self.state.started.pipeline, &self.opened.shown)
    }

    async fn planned(self, accepted: &[String]) -> Result<Rollback> {
        let (run, pipeline, target) = self.told();
        if self.state.is_unfinished() {
            return Ok(Rollback::given_up(run, pipeline, target, true));
        }
        let survey = self.opened.target.plan_rollback(run, accepted).await?;
        Ok(Rollback::of(run, pipeline, target, survey).of_report(self.report.as_ref()))
    }

    async fn done(mut self, accepted: &[String]) -> Result<Rollback> {
        let target = self.opened.target.as_ref();
        if self.state.is_unfinished() {
            let record = self.journal.record_unmirrored(Event::Abandoned)?;
            target.append_event(&record).await?;
            let (run, pipeline, target) = self.told();
            let report = Rollback::given_up(run, pipeline, target, false);
            return Ok(self.mirrored(report));
        }
        let run = self.journal.run().to_owned();
        // What is in the way is looked for when the rows are locked, and not before.
        let survey = RollbackPlan { tables: target.holdings(&run).await?, ..RollbackPlan::default() };
        let record = self.journal.record_unmirrored(Event::RolledBack { rows: survey.rows() })?;
        let (_, pipeline, shown) = self.told();
        let report = Rollback::of(&run, pipeline, shown, survey);
        let rolled_back = target.roll_back_run(&record, self.opened.safeguards.requires_mode, accepted).await?;
        stop_at("rolled back");
        let report = report.done(&rolled_back).of_report(self.report.as_ref());
        Ok(self.mirrored(report))
    }

    /// Writes the last entry beside the run's reports. What is done is done: where that fails, the report says so.
    fn mirrored(self, mut report: Rollback) -> Rollback {
        let Some(folder) = self.opened.output() else { return report };
        let run = self.journal.run().to_owned();
        let mirror = Mirror::open(&folder.join(run), self.opened.output_mode());
        let mirrored = mirror.and_then(|mirror| self.journal.mirrored(mirror).mirror_last());
        report.notes.extend(mirrored.err().map(|error| error.to_string()));
        report
    }
}
