//! The roles of a target, one trait each. A target implements all of them and so is a [`Target`]; [`NoTarget`] is
//! [`Production`] alone.
//!
//! [`NoTarget`]: super::NoTarget

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use super::phases::StagingPhase;
use super::{
    Access, Batches, Catalog, DatabaseCheckRequest, DatabaseCheckResult, DatabaseCheckRows, Destination, Filter,
    Journals, KeyBlock, KeyRequest, LoadMode, LoadedFile, Lookup, Mode, Policy, Preflight, RollbackPlan,
    RolledBackTable, RunHeader, RunRecord, RunTable, Segment, Switch,
};
use crate::error::Result;
use crate::journal::{FileHash, Record, RunId};

/// Everything that a load needs.
pub trait Target:
    Production + Governance + RunStore + KeyMapStore + WriterLock + Loader + RunRollback + Provision
{
}

impl<T> Target for T where
    T: Production + Governance + RunStore + KeyMapStore + WriterLock + Loader + RunRollback + Provision
{
}

/// Abilities of a target beyond the minimum. A caller asks here instead of calling a method that does nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one ability, and none excludes another")]
pub struct Capabilities {
    /// Staged rows outlive an interrupted run, and [`StagingPhase::is_staged`] compares them with the delta.
    pub durable_staging: bool,
    /// A COMMIT may stay unanswered. [`transaction_id`](super::CommitPhase::transaction_id) then names the transaction, and
    /// [`RunStore::is_committed`] returns its outcome.
    pub in_doubt_commit: bool,
    /// Control schema, roles, and grants are created by SQL that a DBA can read first.
    pub setup_script: bool,
    /// Production's planner works with statistics, and [`Loader::analyze`] refreshes them.
    pub statistics: bool,
    /// Sequences move outside of transactions, and [`moved_sequences`](super::CommitPhase::moved_sequences) names them.
    pub sequences: bool,
}

/// Answers questions about production, as far as checking a delta needs them.
#[async_trait]
pub trait Production: Send + Sync {
    /// Returns the schema of the live tables.
    async fn catalog(&self) -> Result<Catalog>;

    /// Returns the other schemas with tables that this user may use, if the target has schemas. Tables there are named `schema.table`.
    async fn schemas(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Refuses a run into these tables that cannot end well: objects that cannot be created, missing or excess rights, constraints of
    /// production that do not hold. Returns notes and warnings. Writes nothing.
    async fn preflight(&self, destinations: &[Destination], access: Access) -> Result<Preflight>;

    /// Looks up values of the delta. A batch of `keys` has `_id` (Int64) and one column per name in `lookup.match_on`. The answer has
    /// `_id` and `lookup.give`, one row per match. If production has an index, the cost follows the keys and not the table.
    async fn lookup(&self, lookup: &Lookup, keys: &[RecordBatch]) -> Result<Vec<RecordBatch>>;

    /// Asks production, in its own SQL, which rows of the delta violate constraints that only it can evaluator. Returns one answer per check.
    /// Writes nothing that stays, and needs no more rights than a lookup.
    async fn evaluate_checks(
        &self,
        question: &DatabaseCheckRequest<'_>,
        rows: &dyn DatabaseCheckRows,
    ) -> Result<Vec<DatabaseCheckResult>>;

    /// Streams columns of a production table, for user SQL that names it. Rows that the filters exclude may be returned or not; all
    /// others must be, up to `limit`. Without columns, the batches have one column that only counts.
    async fn scan(
        &self,
        table: &str,
        columns: &[String],
        filters: &[Filter],
        limit: Option<usize>,
    ) -> Result<Batches<'static>>;

    /// Returns which of these files, by table and hash, have been loaded.
    async fn loaded_files(&self, files: &[(String, FileHash)]) -> Result<Vec<LoadedFile>>;

    /// Returns the blocks of keys that one run would reserve now, if it requested them in this order. Reserves nothing.
    async fn preview_keys(&self, requests: &[KeyRequest]) -> Result<Vec<KeyBlock>>;
}

/// Stores who may load and when: the policy and conversion mode.
#[async_trait]
pub trait Governance: Send + Sync {
    /// Returns the time of the target's clock.
    async fn now(&self) -> Result<jiff::Timestamp>;

    /// Returns what the target requires of every run. A target that `create_from` has just created requires nothing.
    async fn policy(&self) -> Result<Policy>;

    /// Replaces what the target requires.
    ///
    /// # Errors
    /// If this login is not the operator's.
    async fn set_policy(&self, policy: &Policy) -> Result<()>;

    /// Returns conversion mode, by the target's clock.
    async fn mode(&self) -> Result<Mode>;

    /// Switches conversion mode.
    ///
    /// # Errors
    /// If this login may not: the loader login can switch the mode off, but not on.
    async fn switch_mode(&self, switch: &Switch) -> Result<()>;
}

/// Stores runs and their journals.
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Returns the runs, oldest first, without their reports.
    async fn runs(&self) -> Result<Vec<RunHeader>>;

    /// Returns a run with its report, or None if there is no such run.
    async fn run(&self, id: &RunId) -> Result<Option<RunRecord>>;

    /// Returns the journal of a run, oldest entry first.
    async fn journal(&self, run: &RunId) -> Result<Vec<Record>>;

    /// Returns a page of whole journals, run after run, of runs whose ids follow `after`: all, or those without an end. An empty page is
    /// the last one.
    async fn journals(&self, of: Journals, after: &str) -> Result<Vec<Record>>;

    /// Appends an entry to a journal while no load is active.
    async fn append_event(&self, record: &Record) -> Result<()>;

    /// Returns whether a run was committed, if its COMMIT was sent and not answered. `transaction` is what
    /// [`transaction_id`](super::CommitPhase::transaction_id) returned.
    async fn is_committed(&self, run: &RunId, transaction: Option<&str>) -> Result<bool>;
}

/// Stores the key map: which new key each legacy key has, by the run that appended it.
#[async_trait]
pub trait KeyMapStore: Send + Sync {
    /// Streams the key map of a table in order of its legacy keys.
    async fn key_map(&self, destination: &Destination) -> Result<Batches<'static>>;

    /// Returns the segments of all key maps in order of their runs, as the ledger has them. Reads no mapping.
    async fn segments(&self) -> Result<Vec<Segment>>;

    /// Streams the mappings that a run appended: `legacy_key` and the key's columns, in order of the legacy keys' bytes. The cost
    /// follows the segment and not the key map.
    async fn segment(&self, table: &str, run: &RunId) -> Result<Batches<'static>>;

    /// Returns the ids of this target, oldest first. If it has none, `make` creates one.
    async fn identity(&self, make: bool) -> Result<Vec<String>>;

    /// Returns the legacy keys of rows that a run inserted and that are no longer in production. The cost follows the run.
    async fn missing_rows(&self, destination: &Destination, run: &RunId) -> Result<Vec<String>>;
}

/// Serializes the writers of a target.
#[async_trait]
pub trait WriterLock: Send + Sync {
    /// Takes the lock for a run. It is held until [`unlock`](Self::unlock), or until this process ends.
    ///
    /// # Errors
    /// If another run holds it: names that run and the time it began.
    async fn lock(&self, run: &RunId) -> Result<()>;

    /// Gives the lock back.
    async fn unlock(&self) -> Result<()>;

    /// Returns the run that holds the lock; None if no session holds it, or if the holder cannot be read.
    async fn holder(&self) -> Result<Option<RunId>>;
}

/// Begins loads, and examines their rows afterwards.
#[async_trait]
pub trait Loader: Send + Sync {
    /// Returns what this target can do beyond the minimum.
    fn capabilities(&self) -> Capabilities;

    /// Begins a load. Takes the writer lock unless it is held already.
    async fn begin(&self, run: &RunId, mode: LoadMode) -> Result<Box<dyn StagingPhase>>;

    /// Compares the rows of the last load with the expected ones, and returns the first difference in words.
    async fn compare(&self, destination: &Destination, expected: Batches<'_>) -> Result<Option<String>>;

    /// Refreshes the statistics of tables that grew enough to matter. Needs [`Capabilities::statistics`].
    async fn analyze(&self, _destinations: &[Destination], _inserted: &[u64]) -> Result<()> {
        Ok(())
    }
}

/// Rolls back committed runs.
#[async_trait]
pub trait RunRollback: Send + Sync {
    /// Returns the rows that a committed run has in each table.
    async fn holdings(&self, run: &RunId) -> Result<Vec<RunTable>>;

    /// Returns the rows of a committed run and the conflicts with its rollback: rows that were changed or deleted since, and rows of
    /// others that refer to them. `accepted` are altered or dropped tables whose rows the operator vouches for. Changes nothing.
    ///
    /// # Errors
    /// If the rollback would fail for another reason: with that one.
    async fn plan_rollback(&self, run: &RunId, accepted: &[String]) -> Result<RollbackPlan>;

    /// Deletes the rows and mappings of a committed run under the writer lock, and appends `record` to its journal, in one transaction.
    /// `end_mode` ends conversion mode with it.
    ///
    /// # Errors
    /// If there is a conflict, or anything but the run's rows would be deleted: then nothing is changed.
    async fn roll_back_run(&self, record: &Record, end_mode: bool, accepted: &[String])
    -> Result<Vec<RolledBackTable>>;
}

/// Creates what loads need: control schema, roles, and grants.
#[async_trait]
pub trait Provision: Send + Sync {
    /// Returns the SQL of [`setup`](Self::setup). `owner` is the role that will own the control schema, if one is named. Needs
    /// [`Capabilities::setup_script`].
    async fn setup_script(&self, _destinations: &[Destination], _owner: Option<&str>) -> Result<String> {
        Ok(String::new())
    }

    /// Sets the target up. Setup is idempotent.
    async fn setup(&self, destinations: &[Destination], owner: Option<&str>) -> Result<()>;
}
