//! Versioned changes of the control tables: each is made once, in order, and recorded with its checksum.

/// A change of the control tables. Its version is its place in the list, from 1 on.
pub(crate) struct Migration {
    /// What it makes, in a word.
    pub(crate) name: &'static str,
    /// Its statements.
    pub(crate) sql: &'static str,
}

impl Migration {
    /// The BLAKE3 hash of its statements, in hexadecimal digits.
    pub(crate) fn checksum(&self) -> String {
        blake3::hash(self.sql.as_bytes()).to_hex().to_string()
    }
}
