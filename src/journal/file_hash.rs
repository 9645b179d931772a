//! The hash of a file of the delta.

use std::fmt;
use std::ops::Deref;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The BLAKE3 hash of a file's bytes on disk, as 64 hexadecimal digits. A run refuses a file that another run has loaded, whatever
/// its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct FileHash(String);

impl From<blake3::Hash> for FileHash {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }
}

impl From<String> for FileHash {
    fn from(hash: String) -> Self {
        Self(hash)
    }
}

impl From<&str> for FileHash {
    fn from(hash: &str) -> Self {
        Self(hash.to_owned())
    }
}

impl Deref for FileHash {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}
