//! The check phase: a delta is read and checked, and the report is made. Nothing is written but reports and reject files.

use super::request::RunRequest;
use super::{RunContext, report_store};
use crate::check::{self, CheckedTable, rejects};
use crate::check::{ThresholdResult, evaluate};
use crate::engine::list;
use crate::error::Result;
use crate::keys;
use crate::plan::Table;
use crate::progress::{Listener, Step, Steps};
use crate::report::{Command, PROGRAM, Report, TableReport, VERSION, Verdict};
use crate::target::{LoadedFile, TableIndex};

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

/// Result of checking a delta.
pub(super) struct CheckOutcome {
    pub(super) report: Report,
    pub(super) examined: Vec<CheckedTable>,
    /// Files whose bytes were loaded before, which was allowed.
    pub(super) known: Vec<LoadedFile>,
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
        format!(
            "`{}`: `{}` was loaded by run {} before, and is loaded again because of `--allow-reload`",
            file.table, file.name, file.run
        )
    }));
    warnings.extend(
        context
            .compiled
            .plan
            .tables
            .iter()
            .zip(&examined)
            .filter_map(|(table, found)| skipped_without_target(table, found)),
    );
    let accepted: u64 = examined.iter().map(CheckedTable::accepted).sum();
    let verdict = match (reasons.iter().all(Vec::is_empty), accepted) {
        (false, _) => Verdict::Failed,
        (true, 0) => Verdict::Empty,
        (true, _) => Verdict::Passed,
    };
    let step = steps.step(Step::Report);
    let mut tables = Vec::new();
    for at in TableIndex::all(context.compiled.plan.tables.len()) {
        let mut table_report = TableReport::new(&context.compiled, at, &examined, &hashes[at], &context.lines)?;
        table_report.reasons.clone_from(&reasons[at]);
        tables.push(table_report);
    }
    // A run that is resumed may have its keys already.
    if asked.command != Command::Resume {
        preview_keys(context, &examined, &mut tables).await?;
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

/// Adds the keys that a run would get now to the reports of tables. Keys that are not free are refused here, before anything is written.
/// Which ones a run gets is decided when it reserves them.
async fn preview_keys<T>(context: &RunContext<T>, examined: &[CheckedTable], tables: &mut [TableReport]) -> Result<()> {
    let plan = &context.compiled.plan;
    let requests = plan.tables.iter().zip(examined).filter_map(|(table, found)| keys::request(table, found.accepted()));
    let requests: Vec<_> = requests.collect();
    for request in &requests {
        context.safeguards.admit_keys(&request.table, request.count)?;
    }
    for block in context.production.preview_keys(&requests).await? {
        if let Some(at) = plan.position(&block.table) {
            tables[at].set_keys(&plan.tables[at], Some(&block));
        }
    }
    Ok(())
}

/// Describes the checks of a table that were skipped without a target.
fn skipped_without_target(table: &Table, found: &CheckedTable) -> Option<String> {
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
pub(super) async fn check_delta(
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
