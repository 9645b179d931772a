//! CSV: records of a delta file, the dialect, cells that a spreadsheet would run, and the writer of rejects.

mod blocks;
mod injection;
mod records;
mod writer;

pub(super) use blocks::{Blocks, Dialect, header};
pub(crate) use injection::guarded;
pub use writer::CsvWriter;
