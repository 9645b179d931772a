//! CSV: the dialect, the records of a file, protection from formulas, and the writer of reject files.

mod blocks;
mod dialect;
mod injection;
mod records;
mod recovery;
mod split;
mod writer;

pub(super) use blocks::{Blocks, header};
pub(super) use dialect::Dialect;
pub(crate) use injection::guarded;
pub use writer::CsvWriter;
