//! A log of queries with the metrics of their operators, for `explain --analyze`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::{ExecutionPlan, displayable};

/// A finished query.
#[derive(Debug)]
pub struct QueryMetrics {
    /// The table and the check that it ran for.
    pub about: (String, String),
    /// The SQL of the query.
    pub sql: String,
    plan: Arc<dyn ExecutionPlan>,
}

/// One operator of a finished query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The number of operators above it.
    pub depth: usize,
    /// Its description.
    pub what: String,
    /// The rows that it returned; `None` if it does not count them.
    pub rows: Option<usize>,
    /// Its computing time, summed over all threads; `None` if it does not measure it.
    pub time: Option<Duration>,
}

impl QueryMetrics {
    /// Returns the operators, each before its inputs.
    pub fn operators(&self) -> Vec<Operator> {
        let mut operators = Vec::new();
        collect(self.plan.as_ref(), 0, &mut operators);
        operators
    }
}

fn collect(plan: &dyn ExecutionPlan, depth: usize, operators: &mut Vec<Operator>) {
    let metrics = plan.metrics();
    operators.push(Operator {
        depth,
        what: displayable(plan).one_line().to_string().trim_end().to_owned(),
        rows: metrics.as_ref().and_then(MetricsSet::output_rows),
        time: metrics.and_then(|metrics| metrics.elapsed_compute()).map(|nanos| Duration::from_nanos(nanos as u64)),
    });
    for child in plan.children() {
        collect(child.as_ref(), depth + 1, operators);
    }
}

/// The log; records nothing until it is switched on.
#[derive(Debug, Default)]
pub(super) struct QueryLog(Mutex<Option<LoggedQuery>>);

#[derive(Debug, Default)]
struct LoggedQuery {
    about: (String, String),
    queries: Vec<QueryMetrics>,
}

impl QueryLog {
    pub(super) fn begin(&self) {
        self.with(|log| *log = Some(LoggedQuery::default()));
    }

    pub(super) fn about(&self, table: &str, check: &str) {
        self.with(|log| {
            if let Some(log) = log {
                log.about = (table.to_owned(), check.to_owned());
            }
        });
    }

    pub(super) fn add(&self, sql: &str, plan: &Arc<dyn ExecutionPlan>) {
        self.with(|log| {
            if let Some(log) = log {
                log.queries.push(QueryMetrics { about: log.about.clone(), sql: sql.to_owned(), plan: plan.clone() });
            }
        });
    }

    pub(super) fn take(&self) -> Vec<QueryMetrics> {
        let mut queries = Vec::new();
        self.with(|log| queries = log.take().map(|log| log.queries).unwrap_or_default());
        queries
    }

    fn with(&self, change: impl FnOnce(&mut Option<LoggedQuery>)) {
        // A panic while the lock was held cannot invalidate the log.
        if let Ok(mut log) = self.0.lock() {
            change(&mut log);
        }
    }
}
