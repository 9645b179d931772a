//! The target of a pipeline file that names none: it knows nothing, and nothing can be done with it.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use super::{
    Access, Batches, Catalog, Destination, Filter, Journals, KeyBlock, KeyRequest, Load, LoadMode, LoadedFile, Lookup,
    Mode, Policy, Preflight, RollbackPlan, RolledBackTable, RunHeader, RunRecord, RunTable, Segment, Switch, Target,
};
use crate::error::{Error, Result};
use crate::journal::Record;

/// No target. Of a delta, it has nothing against it and nothing like it; whatever needs a real one is refused.
#[derive(Debug, Clone, Copy)]
pub struct NoTarget;

impl NoTarget {
    /// What is said where a target is needed.
    pub fn error() -> Error {
        Error::pipeline("the pipeline file names no target, and this command needs one")
            .hint("add `target: { url: … }`, or give `--target URL`; `check`, `validate` and `explain` do without")
    }
}

/// What was not done with the delta.
const UNASKED: &str = "no target is named, so nothing is held against production: its types and lengths, NOT NULL, UNIQUE, \
                       FOREIGN KEY and CHECK, what it has already, and what was loaded before";

/// Verbs that need a target.
macro_rules! refused {
    ($($name:ident($($argument:ty),*) -> $gives:ty;)*) => {
        #[async_trait]
        impl Target for NoTarget {
            async fn catalog(&self) -> Result<Catalog> {
                Ok(Catalog { tables: Vec::new(), guessed: true })
            }

            async fn preflight(&self, _: &[Destination], _: Access) -> Result<Preflight> {
                Ok(Preflight { warnings: vec![UNASKED.to_owned()], notes: Vec::new() })
            }

            async fn lookup(&self, _: &Lookup, _: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
                Ok(Vec::new())
            }

            async fn loaded_files(&self, _: &[(String, String)]) -> Result<Vec<LoadedFile>> {
                Ok(Vec::new())
            }

            async fn foresee(&self, request: &KeyRequest) -> Result<KeyBlock> {
                Ok(KeyBlock { table: request.table.clone(), first: 0, last: -1 })
            }

            async fn policy(&self) -> Result<Policy> {
                Ok(Policy::unstated(true))
            }

            $(async fn $name(&self $(, _: $argument)*) -> Result<$gives> {
                Err(Self::error())
            })*
        }
    };
}

refused! {
    setup_script(&[Destination], Option<&str>) -> Option<String>;
    setup(&[Destination], Option<&str>) -> ();
    scan(&str, &[String], &[Filter], Option<usize>) -> Batches<'static>;
    runs() -> Vec<RunHeader>;
    run(&str) -> Option<RunRecord>;
    key_map(&Destination) -> Batches<'static>;
    now() -> jiff::Timestamp;
    mode() -> Mode;
    switch_mode(&Switch) -> ();
    set_policy(&Policy) -> ();
    claim(&str) -> ();
    release() -> ();
    journal(&str) -> Vec<Record>;
    journals(Journals, &str) -> Vec<Record>;
    note(&Record) -> ();
    committed(&str, Option<&str>) -> bool;
    segments() -> Vec<Segment>;
    segment(&str, &str) -> Batches<'static>;
    identity(bool) -> Vec<String>;
    gone(&Destination, &str) -> Vec<String>;
    holdings(&str) -> Vec<RunTable>;
    survey(&str, &[String]) -> RollbackPlan;
    take_back(&Record, bool, &[String]) -> Vec<RolledBackTable>;
    begin(&str, LoadMode) -> Box<dyn Load>;
    compare(&Destination, Batches<'_>) -> Option<String>;
    analyze(&[Destination], &[u64]) -> ();
}
