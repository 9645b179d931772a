//! The progress of a run, for bars, lines, and timings. It is not stored.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A step of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Reads the pipeline file and the catalog, hashes the files, and refuses early.
    Prepare,
    /// Reads files, computes and casts values, and checks each row individually.
    Read,
    /// Checks rows against each other, the key map, and production.
    Check,
    /// Builds the report and writes rejected rows.
    Report,
    /// Writes missing segments of the key map's history to the backup store.
    Backup,
    /// Reserves and assigns keys.
    Keys,
    /// Copies rows into staging.
    Stage,
    /// Inserts rows into production, and appends to the key map.
    Insert,
    /// Compares production with the expected rows, before the commit.
    Reconcile,
    /// Commits the transaction.
    Commit,
    /// Reads every inserted row back.
    Verify,
}

impl Step {
    /// Returns the name of the activity, for people.
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Prepare => "preparing",
            Self::Read => "reading",
            Self::Check => "checking",
            Self::Report => "reporting",
            Self::Backup => "backing up",
            Self::Keys => "assigning keys",
            Self::Stage => "staging",
            Self::Insert => "inserting",
            Self::Reconcile => "reconciling",
            Self::Commit => "committing",
            Self::Verify => "reading back",
        }
    }
}

/// A progress event.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A step began.
    Began(Step),
    /// Rows of a table passed the running step.
    Rows {
        /// The table.
        table: String,
        /// The number of additional rows.
        rows: u64,
    },
    /// A step ended.
    Ended(Timing),
    /// The run with this ID can be resumed from now on.
    Resumable(String),
}

/// The duration and the throughput of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// The step.
    pub step: Step,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// The number of rows. Reading: records of the files, including unreadable and excluded ones. Checking: rows that were
    /// compared with each other and with production. Staging and inserting: rows written to staging, and to production.
    /// Reconciling and reading back: rows of production that were each compared with the expected row. 0 for other steps.
    #[serde(default)]
    pub rows: u64,
    /// The number of bytes. Reading: the size of the files on disk. Staging and inserting: the Arrow size of rows sent to the
    /// target, without the key map; staged rows are inserted by the target itself and count 0. 0 for other steps.
    #[serde(default)]
    pub bytes: u64,
}

/// A receiver of progress events.
pub trait Listener: Send + Sync {
    /// Receives an event.
    fn on_progress(&self, progress: &Progress);
}

/// A listener that ignores all events.
pub struct NoopListener;

impl Listener for NoopListener {
    fn on_progress(&self, _: &Progress) {}
}

/// The steps of one command: notifies a listener, and measures time.
pub struct Steps<'a> {
    listener: &'a dyn Listener,
    timings: Mutex<Vec<Timing>>,
    /// Rows that passed the running step so far.
    rows: AtomicU64,
    bytes: AtomicU64,
    resumable: AtomicBool,
}

impl<'a> Steps<'a> {
    /// Returns steps that notify a listener.
    pub fn new(listener: &'a dyn Listener) -> Self {
        Self {
            listener,
            timings: Mutex::new(Vec::new()),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            resumable: AtomicBool::new(false),
        }
    }

    /// Begins a step, which ends when the guard is dropped.
    pub fn step(&self, step: Step) -> Running<'_> {
        self.listener.on_progress(&Progress::Began(step));
        let span = tracing::info_span!("step", name = step.doing());
        Running { steps: self, step, since: Instant::now(), _span: span }
    }

    /// Reports that rows of a table passed the running step.
    pub fn rows(&self, table: &str, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.listener.on_progress(&Progress::Rows { table: table.to_owned(), rows });
    }

    /// Counts bytes that passed the running step.
    pub fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Reports that the run can be resumed from now on.
    pub fn resumable(&self, run: &str) {
        self.resumable.store(true, Ordering::Relaxed);
        self.listener.on_progress(&Progress::Resumable(run.to_owned()));
    }

    /// Returns whether the run can be resumed.
    pub fn is_resumable(&self) -> bool {
        self.resumable.load(Ordering::Relaxed)
    }

    /// Returns the timings of the finished steps.
    pub fn timings(&self) -> Vec<Timing> {
        self.timings.lock().map(|timings| timings.clone()).unwrap_or_default()
    }
}

/// A step that is running.
pub struct Running<'a> {
    steps: &'a Steps<'a>,
    step: Step,
    since: Instant,
    _span: tracing::Span,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let timing = Timing {
            step: self.step,
            seconds: self.since.elapsed().as_secs_f64(),
            rows: self.steps.rows.swap(0, Ordering::Relaxed),
            bytes: self.steps.bytes.swap(0, Ordering::Relaxed),
        };
        if let Ok(mut timings) = self.steps.timings.lock() {
            match timings.last_mut().filter(|last| last.step == self.step) {
                Some(last) => {
                    last.seconds += timing.seconds;
                    last.rows += timing.rows;
                    last.bytes += timing.bytes;
                }
                None => timings.push(timing.clone()),
            }
        }
        self.steps.listener.on_progress(&Progress::Ended(timing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_bytes_belong_to_the_step_that_ran() {
        let steps = Steps::new(&NoopListener);
        for rows in [1, 2] {
            let _step = steps.step(Step::Report);
            steps.rows("a", rows);
        }
        let step = steps.step(Step::Read);
        steps.rows("a", 5);
        steps.rows("b", 6);
        steps.bytes(70);
        drop(step);
        drop(steps.step(Step::Check));
        let counts: Vec<_> = steps.timings().iter().map(|timing| (timing.step, timing.rows, timing.bytes)).collect();
        assert_eq!(counts, [(Step::Report, 3, 0), (Step::Read, 11, 70), (Step::Check, 0, 0)]);
    }

    #[test]
    fn a_timing_of_an_earlier_version_counted_nothing() {
        let timing: Timing = serde_json::from_str(r#"{"step":"read","seconds":0.5}"#).unwrap();
        assert_eq!(timing, Timing { step: Step::Read, seconds: 0.5, rows: 0, bytes: 0 });
    }
}
