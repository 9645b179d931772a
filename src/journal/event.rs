//! The events of a run, and how they are written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The version of an entry.
pub const VERSION: u32 = 1;

/// Something that happened to a run, and that whoever goes on with it has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The delta passed its checks, and what will be loaded is decided. Nothing is written yet.
    Started(Started),
    /// The key map's history is in the store.
    BackedUp {
        /// The store.
        store: String,
        /// How many segments were written now.
        segments: u64,
        /// How many mappings they have.
        mappings: u64,
    },
    /// The keys are the run's.
    Reserved {
        /// A block for each table that gets new ones.
        blocks: Vec<Keys>,
    },
    /// All rows and their key maps are in staging.
    Staged,
    /// Everything is inserted, and the commit is on its way.
    Committing {
        /// The transaction's number in the target, where it has one.
        transaction: Option<String>,
    },
    /// The rows are in production. Written in the same transaction.
    Committed,
    /// Every row was read back and is what was meant.
    Verified,
    /// Somebody goes on with the run after it was cut off or had failed.
    Resumed,
    /// The run ended by an error, and nothing of it is in production.
    Failed {
        /// The error.
        reason: String,
    },
    /// The run was given up: it will not be resumed, and nothing of it is in production.
    Abandoned,
    /// The run's rows and key map are gone from production again. Written in the same transaction.
    RolledBack {
        /// How many rows were deleted.
        rows: u64,
    },
}

impl Event {
    /// The event's name, as it is written.
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

/// What a run is: the same files, plan and verdicts make the same run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The pipeline's name.
    pub pipeline: String,
    /// The hash of the compiled plan.
    pub plan: String,
    /// The moment that expressions take for now (RFC 3339).
    pub moment: String,
    /// The tables, in the order they are loaded.
    pub tables: Vec<TableManifest>,
}

/// What is loaded into one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableManifest {
    /// The table.
    pub table: String,
    /// How many rows are accepted.
    pub rows: u64,
    /// The hash of which rows are rejected and which are skipped.
    pub verdicts: String,
    /// By column that refers to rows, the hash of what the accepted rows refer to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub references: BTreeMap<String, String>,
    /// The files.
    pub files: Vec<Input>,
}

/// A file of the delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// The BLAKE3 hash of its bytes.
    pub hash: String,
    /// The run that loaded the same bytes before, where that was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_of: Option<String>,
}

/// The keys of one table: `first` to `last`, both included.
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
    /// The run.
    pub run: String,
    /// The entry's number within the run, from 1 on.
    pub number: u32,
    /// When it was written, in UTC (RFC 3339).
    pub at: String,
    /// Who wrote it: the system's user, the machine and the process.
    pub by: String,
    /// What happened.
    pub event: Event,
}

/// What is read of an entry before it is understood.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// Where a newer version wrote it, or it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let fault = |error| Error::internal(format!("an entry of the journal cannot be read: {error}"));
        let Versioned { version } = serde_json::from_str(text).map_err(fault)?;
        if version > VERSION {
            return Err(Error::pipeline(format!(
                "the journal was written by a newer version of this program (its format is {version}, {VERSION} is known)"
            ))
            .hint("use that version, or a newer one"));
        }
        serde_json::from_str(text).map_err(fault)
    }

    /// The entry as it is written.
    pub(super) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal(format!("an entry of the journal: {error}")))
    }
}

/// An entry as a target keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The run.
    pub run: String,
    /// The entry's number within the run.
    pub number: u32,
    /// The event's name.
    pub kind: String,
    /// The entry as JSON.
    pub entry: String,
    /// The hash of this entry and of all before it: an entry that is changed or taken away breaks those behind it.
    pub chain: String,
}

/// The hash of an entry behind a chain: BLAKE3 of both, in hexadecimal digits.
pub(super) fn link(chain: &str, entry: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chain.as_bytes());
    hasher.update(entry.as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// The pipeline that the first readable entry names, whatever else is wrong with the records.
pub fn pipeline(records: &[Record]) -> Option<String> {
    records.iter().find_map(|record| {
        let entry: serde_json::Value = serde_json::from_str(&record.entry).ok()?;
        Some(entry.pointer("/event/started/pipeline")?.as_str()?.to_owned())
    })
}

/// A moment of an entry without its fractions: `2026-11-24 18:14:02`.
pub fn moment(at: &str) -> String {
    at.split('.').next().unwrap_or_default().trim_end_matches('Z').replace('T', " ")
}

/// Who writes: `user@machine (process 42)`.
pub fn writer() -> String {
    let user = whoami::username().unwrap_or_else(|_| "unknown".into());
    let machine = whoami::hostname().unwrap_or_else(|_| "unknown".into());
    format!("{user}@{machine} (process {})", std::process::id())
}
