//! What a query of a user gives: within a time limit, and with one more try where memory was short.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::Engine;
use crate::error::{Error, Result};

/// Batches of a result on their way.
pub type Answer = BoxStream<'static, Result<RecordBatch>>;

impl Engine {
    /// Runs a query of a user and hands each batch of its result to `each`, which may be given a batch again: if memory is short, the
    /// query runs once more with joins that go to disk.
    ///
    /// # Errors
    /// If the query fails, takes longer than the time limit, or needs more memory than there is.
    pub async fn ask(&self, sql: &str, mut each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let patience = Duration::from_millis(self.patience.as_millis().unsigned_abs());
        let deadline = Instant::now() + patience;
        let mut spills = self.room.exceeded();
        loop {
            match self.ask_once(sql, spills, deadline, &mut each).await {
                Err(error) if is_short_of_memory(&error) && !spills => spills = true,
                result => return result,
            }
        }
    }

    async fn ask_once(
        &self,
        sql: &str,
        spills: bool,
        deadline: Instant,
        each: &mut impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let _query = tracing::info_span!("query");
        let slow = || {
            Error::pipeline(format!("the query has no result after {}", self.patience))
                .hint("make the query cheaper, or raise `load.statement_timeout`")
        };
        let deadline = deadline.into();
        let mut answer = timeout_at(deadline, self.start(sql, spills)).await.map_err(|_| slow())??;
        // On a task of its own: an operator that computes for long does not keep the time limit from being noticed.
        let (sender, mut batches) = mpsc::channel(1);
        let mut running = JoinSet::new();
        running.spawn(async move {
            while let Some(batch) = answer.next().await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
        });
        while let Some(batch) = timeout_at(deadline, batches.recv()).await.map_err(|_| slow())? {
            each(&batch?)?;
        }
        // A panic ends the batches as if there were no more.
        running.join_next().await.map_or(Ok(()), |ended| ended.map_err(Error::internal))
    }
}

/// What is said of memory that is short, up to the limit.
const SHORT: &str = "the query needs more memory than the limit of ";

fn is_short_of_memory(error: &Error) -> bool {
    error.to_string().starts_with(SHORT)
}

/// What a query that fails says.
pub(super) fn failed(error: DataFusionError, memory: usize) -> Error {
    if let DataFusionError::ResourcesExhausted(_) = error.find_root() {
        return Error::usage(format!("{SHORT}{} MiB allows", memory >> 20))
            .hint("give more with `--memory-limit`, or have the query hold less: fewer columns, a condition, no sort");
    }
    match error {
        // What a table of production says is said already.
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => DataFusionError::External(other).into(),
        },
        error => error.into(),
    }
}
