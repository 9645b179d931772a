//! Requests for keys, and the blocks that answer them.

use crate::error::{Error, Result};
use crate::spec::{SequenceNumbers, StartRowNumber};

/// The column of a table that is given numbers as keys, and their origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedKey {
    /// The column.
    pub column: String,
    /// The first key, or how it is chosen.
    pub start: StartRowNumber,
    /// The sequence.
    pub sequence: SequenceUse,
}

impl AssignedKey {
    /// Returns keys of a column's own sequence, or behind the largest one.
    pub fn new(column: impl Into<String>, start: StartRowNumber) -> Self {
        Self { column: column.into(), start, sequence: SequenceUse::default() }
    }
}

/// The sequence that keys come from, and the meaning of its numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceUse {
    /// Its name in the pipeline file; None for the sequence of the column.
    pub name: Option<String>,
    /// The meaning of its numbers.
    pub numbers: SequenceNumbers,
}

/// A request for keys of one table.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// The table.
    pub table: String,
    /// Its key column.
    pub column: String,
    /// The first key, or how it is chosen.
    pub start: StartRowNumber,
    /// The sequence.
    pub sequence: SequenceUse,
    /// How many are needed.
    pub count: u64,
    /// The format of a text key; None for integers.
    pub text: Option<TextKey>,
    /// The largest number that the column can hold.
    pub largest: i64,
}

impl KeyRequest {
    /// Returns the block of consecutive numbers that begins at a number.
    ///
    /// # Errors
    /// If the column cannot hold the block's last key.
    pub(super) fn block(&self, first: i128) -> Result<KeyBlock> {
        self.block_by(first, 1)
    }

    /// Returns the block that begins at a number, in steps.
    ///
    /// # Errors
    /// If the column cannot hold the block's last key.
    pub(super) fn block_by(&self, first: i128, step: i64) -> Result<KeyBlock> {
        let last = first + (i128::from(self.count) - 1) * i128::from(step);
        if self.count > 0 && last > i128::from(self.largest) {
            let message = format!(
                "the keys of `{}` overflow: {} rows from {first} on need {last}, and column `{}` holds at most {}",
                self.table, self.count, self.column, self.largest
            );
            return Err(Error::refused(message)
                .hint("give the key a larger `width`, or another `start_row_number`; nothing was written"));
        }
        // An empty block may begin after the largest number.
        let first = i64::try_from(first).unwrap_or(i64::MAX);
        let last = if self.count == 0 { first.saturating_sub(1) } else { last as i64 };
        Ok(KeyBlock { table: self.table.clone(), first, last, step })
    }
}

/// A key that is text of a fixed width: a prefix and a number padded with zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextKey {
    /// The text before the number.
    pub prefix: String,
    /// Its length in characters, with the prefix.
    pub width: usize,
}

impl TextKey {
    /// Returns the largest number that fits.
    pub fn largest(&self) -> i64 {
        let digits = self.width.saturating_sub(self.prefix.chars().count()).min(18) as u32;
        10_i64.pow(digits) - 1
    }

    /// Formats a number as a key.
    pub fn format(&self, number: i64) -> String {
        format!("{}{number:0digits$}", self.prefix, digits = self.width.saturating_sub(self.prefix.chars().count()))
    }
}

/// Keys of one table that belong to one run: `first`–`last`, both included, in steps.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeyBlock {
    /// The table.
    pub table: String,
    /// The first number.
    pub first: i64,
    /// The last number; `first - 1` for an empty block.
    pub last: i64,
    /// The distance between two keys, which is positive.
    pub step: i64,
}

impl KeyBlock {
    /// Returns the error for keys that are not free.
    pub(super) fn taken(&self, why: &str) -> Error {
        let Self { table, first, last, .. } = self;
        Error::refused(format!("the keys {first} to {last} of `{table}` are not free: {why}"))
            .hint("set `start_row_number: auto`, or a number above all keys; nothing was written")
    }
}
