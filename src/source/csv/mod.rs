//! CSV: the dialect, the records of a file, protection from formulas, and the writer of reject files.

mod blocks;
mod injection;
mod records;
mod writer;

pub(super) use blocks::{Blocks, Dialect, header};
pub(crate) use injection::guarded;
pub use writer::CsvWriter;
