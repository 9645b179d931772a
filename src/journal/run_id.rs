//! The id of a run.

use std::fmt;
use std::ops::Deref;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The id of a run: its start in UTC and four hexadecimal digits, `20261130T024653-1a2b`. Ids sort by time.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Returns the id of a run of this process that starts at a moment.
    pub fn at(moment: jiff::Timestamp) -> Self {
        let salt = blake3::hash(format!("{}-{}", moment.as_nanosecond(), std::process::id()).as_bytes());
        Self(format!("{}-{}", moment.strftime("%Y%m%dT%H%M%S"), &salt.to_hex()[..4]))
    }

    /// Returns the text by which a session that holds the writer lock names its run: `run ID, since 2026-11-30T02:46:53Z`.
    pub fn lock_name(&self) -> String {
        format!("run {self}, since {:.0}", jiff::Timestamp::now())
    }

    /// Returns the run that a session names that holds the writer lock.
    pub fn of_lock_name(name: &str) -> Option<Self> {
        let (id, _) = name.strip_prefix("run ")?.split_once(',')?;
        Some(id.into())
    }
}

impl From<String> for RunId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

impl From<&str> for RunId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl Deref for RunId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl PartialEq<str> for RunId {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for RunId {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl AsRef<str> for RunId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<std::path::Path> for RunId {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

impl std::borrow::Borrow<str> for RunId {
    fn borrow(&self) -> &str {
        &self.0
    }
}
