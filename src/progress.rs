//! How far a run is: what its steps tell while they work, for bars, lines and timings. Nothing of it is kept.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A step of a run, in the order they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The pipeline file, the catalog, the files' hashes: refuse early.
    Prepare,
    /// Files are read, values computed and cast, and each row is checked by itself.
    Read,
    /// Rows are checked against each other, the key map and production.
    Check,
    /// What the checks found is put together, and rejected rows are written.
    Report,
    /// What the store lacks of the key map's history goes there.
    Backup,
    /// Keys are reserved and assigned.
    Keys,
    /// Rows are copied into staging.
    Stage,
    /// Staged rows are inserted into production, and the key map is appended.
    Insert,
    /// What is in production is held against what was meant, before the commit.
    Reconcile,
    /// Everything becomes visible.
    Commit,
    /// Every inserted row is read back.
    Verify,
}

impl Step {
    /// What is being done, for people.
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

/// Something that goes on.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A step began.
    Began(Step),
    /// Rows of a table went through the step that is running.
    Rows {
        /// The table.
        table: String,
        /// How many more.
        rows: u64,
    },
    /// A step ended.
    Ended(Timing),
    /// From here on the run of this id can be resumed.
    Resumable(String),
}

/// How long a step took, and what went through it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// The step.
    pub step: Step,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Rows that went through it. Reading: records of the files, those too that cannot be read or that WHERE leaves out. Checking: rows
    /// that were held against each other and production. Staging and inserting: rows that went into staging, and into production.
    /// Reconciling and reading back: rows of production that were each held against what was meant. 0 for all other steps.
    #[serde(default)]
    pub rows: u64,
    /// Bytes that went through it. Reading: those of the files, as they are on disk. Staging and inserting: those of the rows that were
    /// handed to the target, as Arrow holds them, without the key map; rows that were staged are inserted by the target itself, and are
    /// none. 0 for all other steps.
    #[serde(default)]
    pub bytes: u64,
}

/// Who is told.
pub trait Listener: Send + Sync {
    /// Is told what goes on.
    fn hear(&self, progress: &Progress);
}

/// Tells nobody.
pub struct NoopListener;

impl Listener for NoopListener {
    fn hear(&self, _: &Progress) {}
}

/// The steps of one command: tells a listener, and keeps the time.
pub struct Steps<'a> {
    listener: &'a dyn Listener,
    timings: Mutex<Vec<Timing>>,
    /// What went through the running step so far.
    rows: AtomicU64,
    bytes: AtomicU64,
    resumable: AtomicBool,
}

impl<'a> Steps<'a> {
    /// Steps that a listener is told of.
    pub fn new(listener: &'a dyn Listener) -> Self {
        Self {
            listener,
            timings: Mutex::new(Vec::new()),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            resumable: AtomicBool::new(false),
        }
    }

    /// Begins a step; it ends when the guard is dropped.
    pub fn step(&self, step: Step) -> Running<'_> {
        self.listener.hear(&Progress::Began(step));
        let span = tracing::info_span!("step", name = step.doing());
        Running { steps: self, step, since: Instant::now(), _span: span }
    }

    /// Tells that rows of a table went through the running step.
    pub fn rows(&self, table: &str, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.listener.hear(&Progress::Rows { table: table.to_owned(), rows });
    }

    /// Counts bytes that went through the running step.
    pub fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tells that the run can be resumed from here on.
    pub fn resumable(&self, run: &str) {
        self.resumable.store(true, Ordering::Relaxed);
        self.listener.hear(&Progress::Resumable(run.to_owned()));
    }

    /// Whether the run can be resumed.
    pub fn is_resumable(&self) -> bool {
        self.resumable.load(Ordering::Relaxed)
    }

    /// The steps so far.
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
        self.steps.listener.hear(&Progress::Ended(timing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_bytes_are_those_of_the_step_that_ran_when_they_were_counted() {
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
