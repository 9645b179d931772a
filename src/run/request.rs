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
    /// Now: a run begins at the moment that its expressions take for now.
    pub(super) fn new<T>(context: &RunContext<T>, command: Command, allow_reload: bool) -> Self {
        let run = RunId::at(jiff::Timestamp::now());
        Self { command, run, started_at: context.engine.moment(), allow_reload }
    }

    /// Returns the request of a run that is resumed, with the moment that its expressions took for now.
    pub(super) fn again(unfinished: &ResumableRun) -> Result<Self> {
        let (run, started_at) = (unfinished.run().clone(), unfinished.started_at()?);
        Ok(Self { command: Command::Resume, run, started_at, allow_reload: true })
    }
}
