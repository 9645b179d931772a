//! The route of a run from delta files to rows of production. Steps before the first write are here, the rest in `load`.

mod accounting;
pub mod analyze;
pub mod backup;
mod context;
mod control_totals;
mod incoming;
pub mod journals;
pub mod keymap;
mod load;
mod load_run;
mod mock_diff;
mod report_store;
pub mod restore;
mod resume;
mod rollback;
pub mod scaffold;
pub mod setup;
mod verify;

pub use context::{CommandOptions, OpenPipeline, RunContext};
pub use journals::of_run as story;
pub use load::{LoadOptions, rehearse, resume, run};
pub use report_store::{StoredReport, kept};
pub use resume::{ResumableRun, find};
pub use rollback::rollback;

use crate::check::{self, CheckedTable, rejects};
use crate::check::{ThresholdResult, evaluate};
use crate::engine::list;
use crate::error::Result;
use crate::keys;
use crate::plan::Table;
use crate::progress::{Listener, Step, Steps};
use crate::report::{Command, PROGRAM, Report, TableReport, VERSION, Verdict};
use crate::target::LoadedFile;

/// Validates a delta: every check on all data, and the report that a run would make. Writes reject files and the report, and nothing else.
///
/// # Errors
/// If a file or the target cannot be read. Faults of the data are the report's verdict, not an error.
pub async fn validate<T>(context: &RunContext<T>, listener: &dyn Listener) -> Result<Report> {
    let steps = Steps::new(listener);
    let asked = RunRequest::new(context, Command::Validate, false);
    let CheckOutcome { mut report, examined, .. } = examine(context, &asked, &steps).await?;
    write_rejects(context, &mut report, &examined, &steps)?;
    report.steps = steps.timings();
    report_store::keep(context, &mut report);
    Ok(report)
}

/// Plans a run: what it will do, table by table, with the keys it would get now. Writes nothing.
///
/// # Errors
/// If [`validate`] fails, or the requested keys are not free.
pub async fn plan(context: &RunContext, listener: &dyn Listener) -> Result<Report> {
    let steps = Steps::new(listener);
    let CheckOutcome { mut report, .. } =
        examine(context, &RunRequest::new(context, Command::Plan, false), &steps).await?;
    report.notes.extend(context.safeguards.notes(context.target.as_ref()).await?);
    report.steps = steps.timings();
    Ok(report)
}

/// A request to check a delta.
struct RunRequest {
    command: Command,
    run: String,
    started_at: jiff::Timestamp,
    /// Whether files that were loaded before may be loaded again.
    allow_reload: bool,
}

impl RunRequest {
    /// Now: a run begins at the moment that its expressions take for now.
    fn new<T>(context: &RunContext<T>, command: Command, allow_reload: bool) -> Self {
        let run = context::run_id(jiff::Timestamp::now());
        Self { command, run, started_at: context.engine.moment(), allow_reload }
    }

    /// Returns the request of a run that is resumed, with the moment that its expressions took for now.
    fn again(unfinished: &ResumableRun) -> Result<Self> {
        let (run, started_at) = (unfinished.run().to_owned(), unfinished.started_at()?);
        Ok(Self { command: Command::Resume, run, started_at, allow_reload: true })
    }
}

/// Result of checking a delta.
struct CheckOutcome {
    report: Report,
    examined: Vec<CheckedTable>,
    /// Files whose bytes were loaded before, which was allowed.
    known: Vec<LoadedFile>,
}

/// Checks a delta: hashes files, refuses files that were loaded before, checks rows, applies thresholds, and previews keys.
async fn examine<T>(context: &RunContext<T>, asked: &RunRequest, steps: &Steps<'_>) -> Result<CheckOutcome> {
    let step = steps.step(Step::Prepare);
    let hashes = context.hashes()?;
    let known = context.production.loaded_files(&context.asked(&hashes)).await?;
    if !asked.allow_reload {
        context.refuse_known(&hashes, &known)?;
    }
    drop(step);
    let examined =
        check::check_tables(&context.engine, &context.compiled, &context.catalog, &context.production, steps).await?;
    context.refuse_changed(&hashes)?;
    context.refuse_twice(&hashes, &examined)?;
    let ThresholdResult { reasons, mut warnings } = evaluate(&context.compiled, &examined);
    warnings.splice(0..0, context.preflight.warnings.iter().cloned());
    warnings.extend(known.iter().map(|file| {
        format!("`{}`: `{}` was loaded by run {} before, and is loaded again as asked", file.table, file.name, file.run)
    }));
    warnings
        .extend(context.compiled.plan.tables.iter().zip(&examined).filter_map(|(table, found)| unasked(table, found)));
    let accepted: u64 = examined.iter().map(CheckedTable::accepted).sum();
    let verdict = match (reasons.iter().all(Vec::is_empty), accepted) {
        (false, _) => Verdict::Failed,
        (true, 0) => Verdict::Empty,
        (true, _) => Verdict::Passed,
    };
    let step = steps.step(Step::Report);
    let mut tables = Vec::new();
    for (at, table) in context.compiled.plan.tables.iter().enumerate() {
        let mut table_report = TableReport::new(&context.compiled, at, &examined, &hashes[at], &context.lines)?;
        table_report.reasons.clone_from(&reasons[at]);
        // Keys that are not free are refused here, before anything is written; which ones a run gets is decided when it reserves them.
        // One that goes on may have them already.
        if let Some(request) = keys::request(table, examined[at].accepted())
            && asked.command != Command::Resume
        {
            context.safeguards.admit_keys(&table.name, examined[at].accepted())?;
            table_report.set_keys(table, Some(&context.production.preview_keys(&request).await?));
        }
        tables.push(table_report);
    }
    drop(step);
    let report = Report {
        version: VERSION,
        run: asked.run.clone(),
        pipeline: context.compiled.plan.name.clone(),
        file: context.compiled.secrets.mask(&context.file.display().to_string()).into_owned(),
        command: asked.command,
        target: context.shown.clone(),
        started_at: asked.started_at.to_string(),
        verdict,
        reasons: reasons.concat(),
        warnings,
        notes: context.preflight.notes.clone(),
        tables,
        key_map: None,
        steps: Vec::new(),
        rejects: None,
        program: PROGRAM.to_owned(),
    };
    Ok(CheckOutcome { report, examined, known })
}

/// Describes the checks of a table that were skipped without a target.
fn unasked(table: &Table, found: &CheckedTable) -> Option<String> {
    let mut parts = Vec::new();
    if !table.skipped_checks.is_empty() {
        parts.push(list(&table.skipped_checks));
    }
    for (reference, rows) in table.references.iter().zip(&found.unverified_references).filter(|(_, rows)| **rows > 0) {
        let rows = if *rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
        parts.push(format!("`{}` of {rows}, whose `{}` is not in the delta", reference.column, reference.to));
    }
    (!parts.is_empty()).then(|| format!("`{}`: not checked without a target: {}", table.name, parts.join("; ")))
}

/// Checks the delta for a load, and writes the reject files. `damaged` are warnings about journals of other runs.
async fn check_delta(
    context: &RunContext,
    asked: &RunRequest,
    damaged: Vec<String>,
    steps: &Steps<'_>,
) -> Result<CheckOutcome> {
    let mut outcome = examine(context, asked, steps).await?;
    outcome.report.warnings.splice(0..0, damaged);
    write_rejects(context, &mut outcome.report, &outcome.examined, steps)?;
    outcome.report.steps = steps.timings();
    Ok(outcome)
}

/// Writes the reject files, and adds their place to the report.
fn write_rejects<T>(
    context: &RunContext<T>,
    report: &mut Report,
    examined: &[CheckedTable],
    steps: &Steps<'_>,
) -> Result<()> {
    let _step = steps.step(Step::Report);
    let folder = context.folder(&report.run).join("rejects");
    let written = rejects::write(&context.compiled, examined, &folder, context.output_mode)?;
    for (table, files) in report.tables.iter_mut().zip(&written) {
        let names = files.iter().filter_map(|path| path.file_name());
        table.rejects = names.map(|name| name.to_string_lossy().into_owned()).collect();
    }
    if written.iter().any(|files| !files.is_empty()) {
        report.rejects = Some(context.compiled.secrets.mask(&format!("{}/", folder.display())).into_owned());
    }
    Ok(())
}
