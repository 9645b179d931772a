//! COBOL copybooks: the fields of a record, with their positions.
//!
//! The parser reads data descriptions and nothing else. Whatever it does not know is an error with its line and column,
//! because a wrong width would move all fields behind it.
//!
//! ```text
//! 05  CUST-ID   PIC 9(9).             ──►  cust_id: { at: 1, width: 9, type: zoned, signed: false }
//! 05  BALANCE   PIC S9(7)V99 COMP-3.  ──►  balance: { at: 10, width: 5, type: packed, scale: 2 }
//! ```
//!
//! Source: IBM Enterprise COBOL for z/OS, Language Reference, "DATA DIVISION: data description entry".

mod entries;
mod fields;
mod lines;
mod picture;

use std::path::Path;

use crate::error::{Error, Result};
use crate::spec::FieldSpec;

/// A record that a copybook describes: an entry of level 01, or the whole copybook if it has none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) name: String,
    /// The length in bytes.
    pub(super) length: u32,
    pub(super) lines: Vec<Line>,
    /// Whether numbers of COMP-5 are in the byte order of the machine that wrote the file.
    pub(super) native: bool,
}

/// A line of the draft.
#[derive(Debug, Clone)]
pub(super) enum Line {
    /// A field. `chosen` is false for a field that redefines others.
    Field { name: String, field: FieldSpec, chosen: bool },
    /// A remark on the fields around it.
    Remark(String),
}

impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

impl Record {
    /// Returns the fields of the record, without those that redefine others.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&String, &FieldSpec)> {
        self.lines.iter().filter_map(|line| match line {
            Line::Field { name, field, chosen: true } => Some((name, field)),
            _ => None,
        })
    }
}

/// Reads a copybook.
///
/// # Errors
/// If it cannot be read, or contains what a fixed-width file cannot have; the error has the line and the column.
pub(super) fn read(file: &Path) -> Result<Vec<Record>> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(|error| {
        Error::input(format!("cannot read `{shown}`: {error}")).hint("name the copybook: `--copybook FILE`")
    })?;
    // Only comments and values contain letters beyond ASCII.
    let text = String::from_utf8_lossy(&bytes);
    parse(&text).map_err(|refusal| {
        let Refusal { line, column, message, hint } = refusal;
        Error::input(format!("`{shown}`, line {line}, column {column}: {message}")).hint(hint)
    })
}

fn parse(text: &str) -> Result<Vec<Record>, Refusal> {
    let entries = entries::entries(&lines::tokens(text)?)?;
    fields::records(&entries)
}

/// Why a copybook is refused.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    line: usize,
    column: usize,
    message: String,
    hint: &'static str,
}

/// A place in a copybook, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    fn refuse<T>(self, message: impl Into<String>, hint: &'static str) -> Result<T, Refusal> {
        Err(Refusal { line: self.line, column: self.column, message: message.into(), hint })
    }
}

#[cfg(test)]
mod tests;
