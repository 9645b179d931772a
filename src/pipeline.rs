//! The commands as a library.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::progress::{Listener, NoopListener};
use crate::report::Report;
use crate::run::{self, CommandOptions, LoadOptions, OpenPipeline, RunContext};
use crate::target::Access;

/// A pipeline file, and how its commands are executed. Each command reads the file and opens the target for itself.
///
/// ```no_run
/// use delta_pipeline::{Pipeline, Verdict};
///
/// # async fn load() -> delta_pipeline::Result<()> {
/// let pipeline = Pipeline::new("delta.yaml").var("BATCH", "2026-11");
/// let report = pipeline.validate().await?;
/// if report.verdict == Verdict::Passed {
///     let report = pipeline.run().await?;
///     println!("{} rows are in production", report.tables.iter().map(|table| table.inserted).sum::<u64>());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Pipeline {
    options: CommandOptions,
    load: LoadOptions,
    listener: Arc<dyn Listener>,
}

impl Pipeline {
    /// Returns the pipeline of a file, which is not read yet.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { options: CommandOptions::new(file), load: LoadOptions::default(), listener: Arc::new(NoopListener) }
    }

    /// Sets a variable for `${NAME}` in the file. It wins over the environment.
    #[must_use]
    pub fn var(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.vars.insert(name.into(), value.into());
        self
    }

    /// Uses another target than the file's: `sqlite:PATH` or `postgresql://…`.
    #[must_use]
    pub fn target(mut self, url: impl Into<String>) -> Self {
        self.options.target = Some(url.into());
        self
    }

    /// Limits the memory, in bytes, for the delta's rows, joins, sorts, and encoders together.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.options.limits.memory = bytes;
        self
    }

    /// Limits the worker threads.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.limits.threads = threads;
        self
    }

    /// Allows files whose bytes were loaded before. Otherwise they are refused.
    #[must_use]
    pub fn allow_reload(mut self) -> Self {
        self.load.allow_reload = true;
        self
    }

    /// Sends the progress of the commands to a listener.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener>) -> Self {
        self.listener = listener;
        self
    }

    /// Checks the file, its SQL, and the target's schema, without reading the delta's rows.
    ///
    /// # Errors
    /// Returns all problems of the file at once, or an error if the target cannot be opened.
    pub async fn check(&self) -> Result<()> {
        RunContext::look(&self.options).await.map(drop)
    }

    /// Validates the delta: runs all checks on all data, without loading. Writes reject files and the report beside the pipeline file.
    ///
    /// # Errors
    /// Returns an error if the file has problems, or if a source or the target cannot be read. Violations in the data are the
    /// report's verdict and not an error.
    pub async fn validate(&self) -> Result<Report> {
        let context = RunContext::look(&self.options).await?;
        masked(&context, run::validate(&context, self.listener.as_ref()).await)
    }

    /// Plans a run: its tables, rows, and keys as they would be now. Writes nothing.
    ///
    /// # Errors
    /// Returns an error if [`validate`](Self::validate) does, if the file names no target, or if keys are not free.
    pub async fn plan(&self) -> Result<Report> {
        let context = RunContext::open(&self.options, Access::Read).await?;
        masked(&context, run::plan(&context, self.listener.as_ref()).await)
    }

    /// Loads the delta: all tables and their key maps in one transaction, or nothing.
    ///
    /// # Errors
    /// Returns an error if a safeguard refuses, if a file was loaded before, or if the load fails. Then nothing is loaded, unless the
    /// error says that the outcome of the commit is unknown. A verdict other than [`Passed`](crate::Verdict::Passed) is not an error.
    pub async fn run(&self) -> Result<Report> {
        let context = RunContext::open(&self.options, Access::Write).await?;
        masked(&context, Box::pin(run::run(&context, self.load, self.listener.as_ref())).await)
    }

    /// Does everything that [`run`](Self::run) does, and rolls it back.
    ///
    /// # Errors
    /// Returns an error if [`run`](Self::run) would.
    pub async fn mock_run(&self) -> Result<Report> {
        let context = RunContext::open(&self.options, Access::Write).await?;
        masked(&context, Box::pin(run::rehearse(&context, self.load, self.listener.as_ref())).await)
    }

    /// Resumes a run that was interrupted: the one with this id, or the only one of this pipeline.
    ///
    /// # Errors
    /// Returns an error if nothing can be resumed, if files or verdicts have changed, or if [`run`](Self::run) would.
    pub async fn resume(&self, run: Option<&str>) -> Result<Report> {
        let opened = OpenPipeline::open(&self.options, Access::Write).await?;
        let resumable = run::find(&opened, run).await?;
        let context = RunContext::prepare(opened, &self.options, Access::Write, resumable.moment()?).await?;
        masked(&context, Box::pin(run::resume(&context, &resumable, self.listener.as_ref())).await)
    }

    /// Returns the report of a run, or of the last one of this pipeline, from the target or from the folder of runs.
    ///
    /// # Errors
    /// Returns an error if no report is stored, or if the target cannot be read.
    pub async fn report(&self, run: Option<&str>) -> Result<Report> {
        let opened = OpenPipeline::open(&self.options, Access::Read).await?;
        let stored = run::kept(&opened, run).await.map_err(|error| error.masked(&opened.document.secrets))?;
        Ok(stored.report)
    }

    /// Returns the journal of a run. It is `None` for mock runs, and for runs that had nothing to load.
    ///
    /// # Errors
    /// Returns an error if the journal was changed, or if the target cannot be read.
    pub async fn journal(&self, run: &str) -> Result<Option<Journal>> {
        let opened = OpenPipeline::open(&self.options, Access::Read).await?;
        run::story(opened.target.as_ref(), &run.into()).await.map_err(|error| error.masked(&opened.document.secrets))
    }
}

/// Masks the secrets of the pipeline file in an error.
fn masked<C, T>(context: &RunContext<C>, result: Result<T, Error>) -> Result<T> {
    result.map_err(|error| error.masked(&context.compiled.secrets))
}
