//! `explain --analyze`: the checks on the real data, and what each query of theirs did. Writes nothing.

use super::RunContext;
use crate::check::{self, CheckedTable};
use crate::engine::{QueryMetrics, ident};
use crate::error::Result;
use crate::plan::CheckKind;
use crate::progress::{Listener, Steps, Timing};

/// Results and measurements of all checks.
pub struct Analysis {
    /// The tables as they were examined, in the plan's order.
    pub examined: Vec<CheckedTable>,
    /// The queries that ran, each with its table and check.
    pub queries: Vec<QueryMetrics>,
    /// The steps, with their wall-clock seconds and what went through them.
    pub steps: Vec<Timing>,
}

/// Runs all checks, and records the metrics of their queries. Checks of one row are evaluated while reading, without a query. Each of
/// them runs once more as a query over the rows that were read.
///
/// # Errors
/// If a file or the target cannot be read.
pub async fn analyze<T>(context: &RunContext<T>, listener: &dyn Listener) -> Result<Analysis> {
    let steps = Steps::new(listener);
    let engine = &context.engine;
    engine.log_queries();
    let examined =
        check::check_tables(engine, &context.compiled, &context.catalog, &context.production, &steps).await?;
    for table in &context.compiled.plan.tables {
        for check in &table.checks {
            let CheckKind::Row { violated } = &check.kind else { continue };
            engine.about(&table.name, &check.name);
            let sql = format!("SELECT _row FROM {} WHERE {violated}", ident(&table.name));
            // An expression that fails on a row fails the query. While reading, it rejects that row.
            let _ran_to_its_end = engine.for_each(&sql, |_| Ok(())).await.is_ok();
        }
    }
    Ok(Analysis { examined, queries: engine.logged_queries(), steps: steps.timings() })
}
