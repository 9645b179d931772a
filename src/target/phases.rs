//! A load, phase by phase: staging → insertion → commit. Each phase gives the next one, so that no order but this compiles. A phase
//! that is dropped rolls the load back.
//!
//! ```text
//! Loader::begin ─▶ StagingPhase ──begin_insert──▶ InsertPhase ──finish──▶ CommitPhase ──commit──▶ loaded
//!                   keys, staging                  rows, key map            run, journal  └─roll_back─▶ as before
//! ```
//!
//! Production and the key map are written in one transaction. [`StagingPhase::begin_insert`] begins it at the latest.

use std::ops::Range;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use super::{
    Aggregate, Batches, Destination, InsertError, Inserted, KeyBlock, KeyRequest, LoadedFile, Mode, Policy, RowSource,
    RunRecord, TableIndex,
};
use crate::engine::RowNumber;
use crate::error::Result;
use crate::journal::{FileHash, Record, RunId};

/// Appends to the journal of the load's run.
#[async_trait]
pub trait JournalWriter: Send {
    /// Appends an entry. If the target can, the entry stays even if the insertion fails.
    async fn append_event(&mut self, record: &Record) -> Result<()>;
}

/// The first phase: keys are reserved, and rows are copied into staging.
#[async_trait]
pub trait StagingPhase: JournalWriter {
    /// Returns whether staging has exactly these rows and keys of a table, value by value, from before an interruption. Needs
    /// [`Capabilities::durable_staging`](super::Capabilities::durable_staging).
    async fn is_staged(&mut self, _destination: &Destination, _rows: Batches<'_>, _keys: Batches<'_>) -> Result<bool> {
        Ok(false)
    }

    /// Reserves a block of keys for this run. A block that the run has already is returned again.
    async fn reserve(&mut self, request: &KeyRequest) -> Result<KeyBlock>;

    /// Computes production's default of the columns in `destination.evaluated` for a number of rows.
    async fn defaults(&mut self, destination: &Destination, count: u64) -> Result<RecordBatch>;

    /// Returns which of these files, by table and hash, another run has loaded while this one waited for the lock.
    async fn loaded_files(&mut self, files: &[(String, FileHash)]) -> Result<Vec<LoadedFile>>;

    /// Returns which of these tables, whose keys are reserved, take the direct path: their rows are copied into production without
    /// staging, and compared with the delta itself.
    fn direct_path(&mut self, destinations: &[Destination]) -> Vec<bool>;

    /// Empties the staging tables and key maps of these tables. Touches no table that this program did not create.
    async fn clear_staging(&mut self, destinations: &[Destination]) -> Result<()>;

    /// Copies rows into staging. A batch has `_row`, `_level` if the destination refers to itself, and the destination's columns.
    async fn stage(&mut self, destination: &Destination, rows: Batches<'_>) -> Result<u64>;

    /// Copies the key map into `ck_<table>`. A batch has `_row`, `legacy_key`, and the key's columns.
    async fn stage_keys(&mut self, destination: &Destination, keys: Batches<'_>) -> Result<u64>;

    /// Returns conversion mode, and locks it until the transaction of the insertion ends.
    async fn lock_mode(&mut self) -> Result<Mode>;

    /// Returns what the target requires, and locks it until the transaction of the insertion ends.
    async fn lock_policy(&mut self) -> Result<Policy>;

    /// Begins the insertion into these tables. From here on, no row that staged rows refer to can be deleted.
    async fn begin_insert(self: Box<Self>, destinations: &[Destination]) -> Result<Box<dyn InsertPhase>, InsertError>;
}

/// The second phase: rows and mappings are inserted, and compared with the expected ones.
#[async_trait]
pub trait InsertPhase: Send {
    /// Inserts the rows of these tables into production, in their order, and appends their key maps as segments of this run: staged
    /// rows from staging, all others from `rows`. The rows that they refer to stay locked until the commit, whether a foreign key
    /// covers them or not.
    async fn insert(
        &mut self,
        destinations: &[Destination],
        rows: &dyn RowSource,
    ) -> Result<Vec<Inserted>, InsertError>;

    /// Appends staged mappings of a table, by their row numbers, to its key map as those of a run: this one, or an earlier one whose
    /// mappings are restored.
    async fn append_key_map(
        &mut self,
        destination: &Destination,
        run: &RunId,
        rows: Range<RowNumber>,
    ) -> Result<u64, InsertError>;

    /// Gives the target another id too, so that the store of that id becomes its own.
    async fn adopt(&mut self, id: &str) -> Result<()>;

    /// Validates deferred constraints. On a violation, the rows are identified from staging or from `rows`.
    async fn validate_deferred(
        &mut self,
        destinations: &[Destination],
        rows: &dyn RowSource,
    ) -> Result<(), InsertError>;

    /// Returns aggregates of the rows that this load inserted, found by their keys: one row under
    /// [`aggregates_schema`](super::aggregates_schema).
    async fn aggregates(
        &mut self,
        destination: &Destination,
        aggregates: &[(String, Aggregate)],
    ) -> Result<RecordBatch>;

    /// Compares the inserted rows of a table with the expected ones of `rows`, and returns the first difference in words.
    async fn compare(
        &mut self,
        destination: &Destination,
        at: TableIndex,
        rows: &dyn RowSource,
    ) -> Result<Option<String>>;

    /// Ends the insertion.
    fn finish(self: Box<Self>) -> Box<dyn CommitPhase>;
}

/// The last phase: the run is recorded, and everything becomes visible at once or not at all.
#[async_trait]
pub trait CommitPhase: JournalWriter {
    /// Returns the id of the transaction, by which the target can be asked later whether it was committed. None without
    /// [`Capabilities::in_doubt_commit`](super::Capabilities::in_doubt_commit).
    async fn transaction_id(&mut self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Records the run and its files.
    async fn record_run(&mut self, run: &RunRecord, files: &[LoadedFile]) -> Result<()>;

    /// Ends conversion mode if this load is committed, unless it was switched on to be kept.
    async fn end_mode(&mut self) -> Result<()>;

    /// Appends an entry to the journal that exists if and only if the rows do.
    async fn append_event_with_rows(&mut self, record: &Record) -> Result<()>;

    /// Returns the sequences that this load moved and that a rollback does not move back.
    async fn moved_sequences(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Commits. The last statement before checks again that production has none of the values that no index keeps unique.
    async fn commit(self: Box<Self>) -> Result<(), InsertError>;

    /// Rolls everything back.
    async fn roll_back(self: Box<Self>) -> Result<()>;
}
