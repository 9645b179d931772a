//! The events of a run, and their format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FileHash, RunId};
use crate::error::{Error, Result};

/// The version of the entry format.
pub const VERSION: u32 = 1;

/// An event of a run that `resume` must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The delta passed its checks, and the rows to load are decided. Nothing is written yet.
    Started(Started),
    /// The key map's history is backed up.
    BackedUp {
        /// The backup store.
        store: String,
        /// The number of segments written by this run.
        segments: u64,
        /// The number of mappings in them.
        mappings: u64,
    },
    /// The keys are reserved.
    Reserved {
        /// One block per table with assigned keys.
        blocks: Vec<Keys>,
    },
    /// All rows and their key mappings are in staging.
    Staged,
    /// All rows are inserted, and the commit is requested.
    Committing {
        /// The number of the transaction in the target, if it has one.
        transaction: Option<String>,
    },
    /// The rows are in production. Recorded in the same transaction.
    Committed,
    /// Every row was read back and has the expected values.
    Verified,
    /// The run was resumed after an interruption or a failure.
    Resumed,
    /// The run ended with an error, and nothing of it is in production.
    Failed {
        /// The error.
        reason: String,
    },
    /// The run was abandoned: it will not be resumed, and nothing of it is in production.
    Abandoned,
    /// The run's rows and key mappings were deleted from production. Recorded in the same transaction.
    RolledBack {
        /// The number of deleted rows.
        rows: u64,
    },
}

impl Event {
    /// Returns the event's name in the journal.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::BackedUp { .. } => "backed_up",
            Self::Reserved { .. } => "reserved",
            Self::Staged => "staged",
            Self::Committing { .. } => "committing",
            Self::Committed => "committed",
            Self::Verified => "verified",
            Self::Resumed => "resumed",
            Self::Failed { .. } => "failed",
            Self::Abandoned => "abandoned",
            Self::RolledBack { .. } => "rolled_back",
        }
    }
}

/// The identity of a run: the same files, plan, and verdicts make the same run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The pipeline's name.
    pub pipeline: String,
    /// The hash of the compiled plan.
    pub plan: String,
    /// The value of `now()` in expressions (RFC 3339).
    pub moment: String,
    /// The tables, in load order.
    pub tables: Vec<TableManifest>,
}

/// The manifest of one table of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableManifest {
    /// The table.
    pub table: String,
    /// The number of accepted rows.
    pub rows: u64,
    /// The hash of the verdicts: which rows are rejected, and which are skipped.
    pub verdicts: String,
    /// By referencing column, the hash of the accepted rows' references.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub references: BTreeMap<String, String>,
    /// The files.
    pub files: Vec<Input>,
}

/// A file of the delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The file's name in messages.
    pub name: String,
    /// The hash of its bytes.
    pub hash: FileHash,
    /// An earlier run that loaded the same bytes, if that was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_of: Option<String>,
}

/// The keys of one table: `first` to `last`, inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The table.
    pub table: String,
    /// The first number.
    pub first: i64,
    /// The last number.
    pub last: i64,
}

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of this format.
    pub version: u32,
    /// The run's ID.
    pub run: RunId,
    /// The entry's number within the run, from 1.
    pub number: u32,
    /// The time of writing, in UTC (RFC 3339).
    pub at: String,
    /// The writer: the system's user, the machine, and the process.
    pub by: String,
    /// The event.
    pub event: Event,
}

/// The part of an entry that is read before its version is known.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Entry {
    /// Parses an entry.
    ///
    /// # Errors
    /// Returns an error if the entry is invalid, or has a newer format.
    pub fn parse(text: &str) -> Result<Self> {
        let fault = |error| Error::internal(format!("invalid journal entry: {error}"));
        let Versioned { version } = serde_json::from_str(text).map_err(fault)?;
        if version > VERSION {
            return Err(Error::pipeline(format!(
                "the journal has the newer format {version}; this program supports {VERSION}"
            ))
            .hint("use the version of the program that wrote it, or a newer one"));
        }
        serde_json::from_str(text).map_err(fault)
    }

    /// Returns the entry in its format.
    pub(super) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal(format!("cannot write a journal entry: {error}")))
    }
}

/// An entry as a target stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The run's ID.
    pub run: RunId,
    /// The entry's number within the run, from 1.
    pub number: u32,
    /// The event's name.
    pub kind: String,
    /// The entry as JSON.
    pub entry: String,
    /// The hash of this entry and all before it. A changed or missing entry invalidates the hashes after it.
    pub chain: String,
}

/// Returns the hash of a chain and its next entry: BLAKE3, in hexadecimal digits.
pub(super) fn link(chain: &str, entry: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chain.as_bytes());
    hasher.update(entry.as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// Returns the pipeline of the first readable entry that names one, even if the records are otherwise invalid.
pub fn pipeline(records: &[Record]) -> Option<String> {
    records.iter().find_map(|record| {
        let entry: serde_json::Value = serde_json::from_str(&record.entry).ok()?;
        Some(entry.pointer("/event/started/pipeline")?.as_str()?.to_owned())
    })
}

/// Returns the entry that abandons a run after its last entry, which need not be readable.
///
/// # Errors
/// Returns an error if the entry cannot be written as JSON.
pub fn abandoned(last: &Record) -> Result<Record> {
    let entry = Entry {
        version: VERSION,
        run: last.run.clone(),
        number: last.number + 1,
        at: jiff::Timestamp::now().to_string(),
        by: writer(),
        event: Event::Abandoned,
    };
    let text = entry.text()?;
    Ok(Record {
        run: entry.run,
        number: entry.number,
        kind: entry.event.kind().to_owned(),
        chain: link(&last.chain, &text),
        entry: text,
    })
}

/// Returns the time of an entry without fractions of a second: `2026-11-24 18:14:02`.
pub fn moment(at: &str) -> String {
    at.split('.').next().unwrap_or_default().trim_end_matches('Z').replace('T', " ")
}

/// Returns the writer of an entry: `user@machine (process 42)`.
pub fn writer() -> String {
    let user = whoami::username().unwrap_or_else(|_| "unknown".into());
    let machine = whoami::hostname().unwrap_or_else(|_| "unknown".into());
    format!("{user}@{machine} (process {})", std::process::id())
}
