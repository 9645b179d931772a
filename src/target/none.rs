//! The target of a pipeline file that names none.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;

use super::{
    Access, Batches, Catalog, DatabaseCheckRequest, DatabaseCheckResult, DatabaseCheckRows, Destination, Filter,
    KeyBlock, KeyRequest, LoadedFile, Lookup, Preflight, Production,
};
use crate::error::{Error, Result};
use crate::journal::FileHash;

/// No target. Answers questions about production as an empty database would.
#[derive(Debug, Clone, Copy)]
pub struct NoTarget;

impl NoTarget {
    /// Returns the error of a command that needs a target.
    pub fn error() -> Error {
        Error::pipeline("the pipeline file names no target, and this command needs one")
            .hint("add `target: { url: … }`, or give `--target URL`; `check`, `validate`, and `explain` work without")
    }
}

/// Checks that are skipped without a target.
const SKIPPED_CHECKS: &str = "no target is configured; these checks were skipped: types and lengths, NOT NULL, UNIQUE, FOREIGN KEY, \
                              and CHECK of production, rows that it has already, and files that were loaded before";

#[async_trait]
impl Production for NoTarget {
    async fn catalog(&self) -> Result<Catalog> {
        Ok(Catalog { guessed: true, ..Catalog::default() })
    }

    async fn preflight(&self, _: &[Destination], _: Access) -> Result<Preflight> {
        Ok(Preflight { warnings: vec![SKIPPED_CHECKS.to_owned()], notes: Vec::new() })
    }

    async fn lookup(&self, _: &Lookup, _: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        Ok(Vec::new())
    }

    async fn evaluate_checks(
        &self,
        question: &DatabaseCheckRequest<'_>,
        _: &dyn DatabaseCheckRows,
    ) -> Result<Vec<DatabaseCheckResult>> {
        Ok(vec![DatabaseCheckResult::default(); question.checks.len()])
    }

    async fn scan(&self, _: &str, _: &[String], _: &[Filter], _: Option<usize>) -> Result<Batches<'static>> {
        Ok(futures::stream::empty().boxed())
    }

    async fn loaded_files(&self, _: &[(String, FileHash)]) -> Result<Vec<LoadedFile>> {
        Ok(Vec::new())
    }

    async fn preview_keys(&self, requests: &[KeyRequest]) -> Result<Vec<KeyBlock>> {
        let empty = |request: &KeyRequest| KeyBlock { table: request.table.clone(), first: 0, last: -1, step: 1 };
        Ok(requests.iter().map(empty).collect())
    }
}
