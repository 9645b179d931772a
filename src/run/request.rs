//! The request of a command that checks a delta.

use super::RunContext;
use super::resume::ResumableRun;
use crate::error::Result;
use crate::journal::RunId;
use crate::report::Command;

/// A request to check a delta.
pub(super) struct RunRequest {
    pub(super) command: Command,
    pub(super) run: RunId,
    pub(super) started_at: jiff::Timestamp,
    /// Whether files that were loaded before may be loaded again.
    pub(super) allow_reload: bool,
}

impl RunRequest {
    /// The time that `now()` returns in expressions: the start of the run.
    pub(super) fn new<T>(context: &RunContext<T>, command: Command, allow_reload: bool) -> Self {
        let run = RunId::at(jiff::Timestamp::now());
        Self { command, run, started_at: context.engine.moment(), allow_reload }
    }

    /// Returns the request of a resumed run, with the time that `now()` returned at its first start.
    pub(super) fn again(unfinished: &ResumableRun) -> Result<Self> {
        let (run, started_at) = (unfinished.run().clone(), unfinished.started_at()?);
        Ok(Self { command: Command::Resume, run, started_at, allow_reload: true })
    }
}
