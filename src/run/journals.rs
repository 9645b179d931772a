//! The journals of a target's runs, read a page at a time; one that is damaged stops no other.

use crate::error::{Error, Kind, Result};
use crate::journal::{self, Journal, Record, RunId};
use crate::target::{Journals, Target};

/// A journal as it was found.
#[derive(Debug)]
pub struct Found {
    /// The run.
    pub run: RunId,
    /// The run's pipeline, as far as an entry can be read that says so.
    pub pipeline: Option<String>,
    /// The journal, or what is wrong with it.
    pub journal: Result<Journal>,
}

impl Found {
    fn of(records: &[Record]) -> Self {
        let run = records.first().map(|record| record.run.clone()).unwrap_or_default();
        let journal = Journal::read(&run, records);
        Self { pipeline: journal::pipeline(records), journal, run }
    }

    /// Returns a warning about a damaged journal of the pipeline, or about one that only a newer version can read. None for any other.
    ///
    /// # Errors
    /// If a newer version of this program wrote it: what became of that run is for it to say.
    pub(super) fn damage(&self, pipeline: &str) -> Result<Option<String>> {
        match &self.journal {
            Err(error) if self.pipeline.as_deref() == Some(pipeline) => match error.kind() {
                Kind::Pipeline => {
                    Err(Error::pipeline(error).hint(error.next_step().unwrap_or("use the version that wrote it")))
                }
                _ => Ok(Some(format!(
                    "the journal of run {} of this pipeline is damaged, so the run is skipped: {error}",
                    self.run
                ))),
            },
            _ => Ok(None),
        }
    }
}

/// Hands every journal over, in the order of the runs' ids; no more than a page of them is held.
///
/// # Errors
/// If the target does not answer, or `each` fails.
pub async fn each(target: &dyn Target, of: Journals, mut each: impl FnMut(Found) -> Result<()>) -> Result<()> {
    let mut after = RunId::default();
    loop {
        let records = target.journals(of, &after).await?;
        let Some(last) = records.last() else { return Ok(()) };
        after.clone_from(&last.run);
        for records in records.chunk_by(|one, other| one.run == other.run) {
            each(Found::of(records))?;
        }
    }
}

/// The journal of a run as it is found; None if it has none.
///
/// # Errors
/// If the target does not answer.
pub async fn find(target: &dyn Target, run: &RunId) -> Result<Option<Found>> {
    let records = target.journal(run).await?;
    Ok((!records.is_empty()).then(|| Found::of(&records)))
}

/// The journal of a run; None if it has none.
///
/// # Errors
/// If the target does not answer, or the journal is damaged.
pub async fn of_run(target: &dyn Target, run: &RunId) -> Result<Option<Journal>> {
    let Some(found) = find(target, run).await? else { return Ok(None) };
    // A journal that is not as this program wrote it was changed by something else.
    let damaged = |error: Error| if error.kind() == Kind::Internal { error.of_kind(Kind::Refused) } else { error };
    found.journal.map(Some).map_err(damaged)
}
