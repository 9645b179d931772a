//! The record of a run in the target, and the row counts that must agree.

use super::{RunContext, context};
use crate::check::CheckedTable;
use crate::error::{Error, Result};
use crate::report::Report;
use crate::target::{LoadedFile, RunRecord};

/// Returns a run as the target records it.
///
/// # Errors
/// If its report cannot be written as JSON.
pub(super) fn record(report: &Report) -> Result<RunRecord> {
    let text = serde_json::to_string(report).map_err(|error| Error::internal(format!("the report: {error}")))?;
    Ok(RunRecord {
        id: report.run.clone(),
        pipeline: report.pipeline.clone(),
        started_at: report.started_at.clone(),
        report: text,
    })
}

/// Returns the files to record, so that they are not loaded again. A file without rows may be loaded again.
pub(super) fn loaded_files(context: &RunContext, report: &Report, examined: &[CheckedTable]) -> Vec<LoadedFile> {
    let mut files = Vec::new();
    for (at, table) in report.tables.iter().enumerate() {
        for (number, file) in table.files.iter().enumerate() {
            if context::has_rows(&examined[at], number) {
                let table = context.compiled.plan.tables[at].name.clone();
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

/// Refuses a count that is not the expected one.
///
/// # Errors
/// If they differ.
pub(super) fn expect(table: &str, what: &str, found: u64, expected: u64) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::pipeline(format!("row count mismatch in `{table}`: expected {expected} rows {what}, found {found}"))
        .hint(format!("nothing was loaded; check for a trigger on `{table}` that adds or suppresses rows")))
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
