//! Insert-only incremental conversion: delta files into a live production database.

pub mod error;
/// The delta files as record batches with file and line.
pub mod source;
pub mod spec;
