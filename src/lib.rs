//! Insert-only incremental conversion: delta files into a live production database.

pub mod error;
pub mod source;
pub mod spec;
