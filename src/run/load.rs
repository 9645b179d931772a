//! The route of a load. A run, a mock run, and a resumed run are lists of the same phases: check → back up → begin → reserve keys →
//! stage → insert → reconcile → commit → read back.

use super::check_phase::{CheckOutcome, check_delta};
use super::load_run::LoadRun;
use super::request::RunRequest;
use super::resume::{self, ResumableRun};
use super::{RunContext, mock_diff, report_store};
use crate::error::{Error, Kind, Result};
use crate::journal::{Journal, Mirror, Phase, RunId};
use crate::progress::{Listener, Steps};
use crate::report::{Command, Report, Verdict};
use crate::target::LoadMode;

/// Options of a load beside the pipeline file.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Load files again that were loaded before.
    pub allow_reload: bool,
}

/// Runs a pipeline. Production is written in one transaction: all tables and their key maps, or nothing.
///
/// # Errors
/// Returns an error if a file cannot be read or was loaded before, if keys are not free, or if production rejects a row. Nothing is
/// loaded then.
pub async fn run(context: &RunContext, options: LoadOptions, listener: &dyn Listener) -> Result<Report> {
    let steps = Steps::new(listener);
    let request = RunRequest::new(context, Command::Run, options.allow_reload);
    context.safeguards.admit(context.target.as_ref()).await?;
    let load = async {
        let damaged = resume::refuse_interrupted(context).await?;
        let CheckOutcome { mut report, examined, known } = check_delta(context, &request, damaged, &steps).await?;
        // An interrupted run has reported what its checks found.
        report_store::keep(context, &mut report);
        if report.verdict != Verdict::Passed {
            return Ok(report);
        }
        mock_diff::compare(context, &mut report)?;
        let mirror = Mirror::open(&context.folder(&report.run), context.output_mode)?;
        let journal = Journal::new(&report.run).mirrored(mirror);
        let mut load = LoadRun::new(context, &steps, report, &examined, &known, Some(journal));
        load.back_up().await?;
        let mut staging = load.begin(LoadMode::Commit).await?;
        let keys = load.reserve_keys(staging.as_mut()).await?;
        load.stage(staging.as_mut(), &keys).await?;
        let insertion = load.insert(staging, &keys).await?;
        let transaction = load.reconcile(insertion, &keys).await?;
        load.commit(transaction).await?;
        load.read_back(&keys).await
    };
    end(context, &request.run, &steps, Box::pin(locked(context, &request.run, load)).await).await
}

/// Rehearses a run: does all of it in a transaction that is rolled back.
///
/// # Errors
/// Returns an error if [`run`] would.
pub async fn rehearse(context: &RunContext, options: LoadOptions, listener: &dyn Listener) -> Result<Report> {
    let steps = Steps::new(listener);
    let request = RunRequest::new(context, Command::Mock, options.allow_reload);
    let load = async {
        let CheckOutcome { mut report, examined, known } = check_delta(context, &request, Vec::new(), &steps).await?;
        report_store::keep(context, &mut report);
        if report.verdict != Verdict::Passed {
            return Ok(report);
        }
        let mut load = LoadRun::new(context, &steps, report, &examined, &known, None);
        let mut staging = load.begin(LoadMode::Rehearse).await?;
        let keys = load.reserve_keys(staging.as_mut()).await?;
        load.stage(staging.as_mut(), &keys).await?;
        let insertion = load.insert(staging, &keys).await?;
        let transaction = load.reconcile(insertion, &keys).await?;
        load.roll_back(transaction).await
    };
    end(context, &request.run, &steps, Box::pin(locked(context, &request.run, load)).await).await
}

/// Resumes a run that was interrupted or failed. Steps that it finished are not repeated.
///
/// # Errors
/// Returns an error if [`run`] would, and if the files, the pipeline, or the verdicts on the rows have changed.
pub async fn resume(context: &RunContext, unfinished: &ResumableRun, listener: &dyn Listener) -> Result<Report> {
    let steps = Steps::new(listener);
    let request = RunRequest::again(unfinished)?;
    let load = async {
        let (journal, state) = unfinished.again(context).await?;
        let mut journal = journal.mirrored(Mirror::open(&context.folder(&request.run), context.output_mode)?);
        if state.phase == Phase::Committed {
            let mut report = resume::read_back(context, &mut journal, &steps).await?;
            report_store::keep(context, &mut report);
            return Ok(report);
        }
        context.safeguards.admit(context.target.as_ref()).await?;
        let damaged = unfinished.warnings.clone();
        let CheckOutcome { report, examined, known } = check_delta(context, &request, damaged, &steps).await?;
        resume::refuse_other(context, &state.started, &report, &examined, &known)?;
        let mut load = LoadRun::new(context, &steps, report, &examined, &known, Some(journal));
        load.back_up().await?;
        let mut staging = load.begin(LoadMode::Commit).await?;
        let keys = load.reserve_keys(staging.as_mut()).await?;
        load.stage(staging.as_mut(), &keys).await?;
        let insertion = load.insert(staging, &keys).await?;
        let transaction = load.reconcile(insertion, &keys).await?;
        load.commit(transaction).await?;
        load.read_back(&keys).await
    };
    end(context, &request.run, &steps, Box::pin(locked(context, &request.run, load)).await).await
}

/// Does something under the writer lock of a run.
async fn locked(
    context: &RunContext,
    run: &RunId,
    load: impl Future<Output = Result<Report>>,
) -> Result<Result<Report>> {
    context.target.lock(run).await?;
    Ok(load.await)
}

/// Records how a run failed, and releases the lock. A run whose end cannot be recorded counts as interrupted.
async fn end(context: &RunContext, run: &RunId, steps: &Steps<'_>, result: Result<Result<Report>>) -> Result<Report> {
    let result = match result? {
        Err(error) if steps.is_resumable() && error.kind() != Kind::Interrupted => {
            Err(failed(context, run, error).await)
        }
        result => result,
    };
    let released = context.target.unlock().await;
    result.and_then(|report| released.map(|()| report))
}

/// Records why a run failed, and adds the next step to the error.
async fn failed(context: &RunContext, run: &RunId, error: Error) -> Error {
    let Err(unnoted) = resume::note_failure(context, run, &error).await else {
        if error.kind() != Kind::Unreachable {
            return error;
        }
        let hint = error.next_step().map_or(String::new(), |hint| format!("{hint}; "));
        return error.hint(format!("{hint}`pipeline resume FILE {run}` continues after the finished steps"));
    };
    let cut_off = Error::interrupted(format!("run {run} was interrupted: {error}"));
    match unnoted.kind() {
        Kind::Unreachable => cut_off.hint(format!(
            "uncommitted rows are not in production; when the target is reachable again, run `pipeline resume FILE {run}`"
        )),
        _ => cut_off.and(&format!("; and its journal cannot be written: {unnoted}")),
    }
}
