//! The result of a user's query, with a time limit, and with one retry if memory runs short.

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

/// A stream of a result's batches.
pub type Answer = BoxStream<'static, Result<RecordBatch>>;

impl Engine {
    /// Runs a user's query and passes each batch of its result to `each`. If memory runs short, the query runs once more with
    /// joins that spill to disk, so `each` can receive a batch twice.
    ///
    /// # Errors
    /// Returns an error if the query fails, exceeds the time limit, or exceeds the memory limit.
    pub async fn ask(&self, sql: &str, mut each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let patience = Duration::from_millis(self.patience.as_millis().unsigned_abs());
        let deadline = Instant::now() + patience;
        let mut spills = self.budget.exceeded();
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
            Error::pipeline(format!("the query exceeded the time limit of {}", self.patience))
                .hint("simplify the query, or increase `load.statement_timeout`")
        };
        let deadline = deadline.into();
        let mut answer = timeout_at(deadline, self.start(sql, spills)).await.map_err(|_| slow())??;
        // A separate task, so that an operator that computes for long cannot delay the time limit.
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
        // A panic of the task ends the stream as if it were complete.
        running.join_next().await.map_or(Ok(()), |ended| ended.map_err(Error::internal))
    }
}

/// The message for exceeded memory, up to the limit.
const SHORT: &str = "the query exceeds the memory limit of ";

fn is_short_of_memory(error: &Error) -> bool {
    error.to_string().starts_with(SHORT)
}

/// Returns the error of a failed query.
pub(super) fn failed(error: DataFusionError, memory: usize) -> Error {
    if let DataFusionError::ResourcesExhausted(_) = error.find_root() {
        return Error::usage(format!("{SHORT}{} MiB", memory >> 20))
            .hint("increase `--memory-limit`, or select fewer columns or rows in the query, and avoid sorting");
    }
    match error {
        // An error of a production table already has its message.
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => DataFusionError::External(other).into(),
        },
        error => error.into(),
    }
}
