//! Versioned changes of the control tables. Each is applied once, in order, and recorded with its checksum.

/// A change of the control tables. Its version is its position in the list, from 1.
pub(crate) struct Migration {
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

impl Migration {
    /// Returns the BLAKE3 hash of its statements, in hexadecimal.
    pub(crate) fn checksum(&self) -> String {
        blake3::hash(self.sql.as_bytes()).to_hex().to_string()
    }
}
