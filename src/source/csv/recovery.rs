//! Whole records in a window, and recovery from records that do not end where they should.
//!
//! A quote that is never closed, or is closed by the next quote of the file, would make one record of all lines in
//! between. Such a record is rejected alone: the reader returns to its second line, and resumes at the next line that reads
//! as a record. The lines in between belong to no record, and each of them counts.
//!
//! ```text
//! 7,"5 inch,x      ◄─ broken: its quote is closed on line 9, where text follows
//! 8,7 inch,x       ◄─ reads as a record: resume here
//! 9,"a",x
//! ```

use super::split::{Fault, Span, Split, Splitter, Syntax, first_line, line_breaks};

/// The shape of the records of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The number of columns.
    pub(super) columns: usize,
    /// Whether a record can end with a delimiter.
    pub(super) trailing: bool,
    /// Whether fields can be missing, or empty fields surplus.
    pub(super) ragged: bool,
    /// The maximum number of lines of a record.
    pub(super) most_lines: u64,
}

/// A record that does not end where it should, and the lines after it that belong to no record.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    /// The start of the record in its block.
    pub(super) start: usize,
    /// The start of the line at which the reader resumes.
    pub(super) end: usize,
    pub(super) why: Why,
}

/// Why a record is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The quote on a line is never closed. Lines are counted from the record's, which is 0.
    Unclosed { line: u64 },
    /// The quote on a line has no end within the maximum number of lines.
    TooLong { line: u64 },
    /// The quote on a line is closed on another line, where text follows.
    ClosedInText { line: u64, closed: u64 },
    /// The lines up to the closing quote read as records.
    ContainsRecords { line: u64, closed: u64 },
}

/// The evidence that lines in a quoted field are records: lines times delimiters. Prose reaches it by chance only if
/// each of its lines has the same number of delimiters.
const EVIDENCE: usize = 8;

/// The result of [`Scan::scan`].
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// The size in bytes of the whole records.
    pub(super) whole: usize,
    pub(super) broken: Vec<Broken>,
}

/// A pass over the records at the start of `bytes`, to find where the last whole one ends. Without quotes, each line is a
/// record; only records with quotes are split to find their end.
pub(super) struct Scan<'a> {
    pub(super) syntax: &'a Syntax,
    pub(super) shape: Shape,
    pub(super) returns: bool,
    pub(super) bytes: &'a [u8],
    pub(super) at_end: bool,
}

/// The kind of a line that is read as the start of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// A record without a fault, which ends before this byte.
    Record(usize),
    /// It opens a quote, and has a fault.
    Opening,
    /// Anything else.
    Other,
    /// Unknown, because the window ends.
    Cut,
}

impl Scan<'_> {
    /// Scans the records of the window.
    pub(super) fn scan(&self, fields: &mut Vec<Span>) -> Scanned {
        let mut found = Scanned::default();
        loop {
            let rest = &self.bytes[found.whole..];
            let last_line = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if rest.is_empty() {
                return found;
            }
            if !self.returns {
                let Some(special) = self.syntax.first_special(rest) else {
                    found.whole += if self.at_end { rest.len() } else { last_line(rest) };
                    return found;
                };
                found.whole += last_line(&rest[..special]);
            }
            let rest = &self.bytes[found.whole..];
            if self.syntax.comment.is_some() && rest.first().copied() == self.syntax.comment {
                match first_line(rest, self.returns) {
                    Some((_, next)) => found.whole += next,
                    None if self.at_end => found.whole = self.bytes.len(),
                    None => return found,
                }
                continue;
            }
            let why = match self.splitter(found.whole, self.at_end).split(fields) {
                Split::Cut if line_breaks(rest, self.returns) < self.shape.most_lines => return found,
                Split::Cut => Some(self.too_long(found.whole, fields)),
                Split::Record { len, next, fault } => {
                    let why = self.why(&rest[..len], fault, fields);
                    if why.is_none() {
                        found.whole += next;
                    }
                    why
                }
            };
            let Some(why) = why else { continue };
            let Some(end) = self.resume(found.whole, why, fields) else { return found };
            found.broken.push(Broken { start: found.whole, end, why });
            found.whole = end;
        }
    }

    fn splitter(&self, at: usize, at_end: bool) -> Splitter<'_> {
        Splitter { syntax: self.syntax, bytes: &self.bytes[at..], at_end, returns: self.returns }
    }

    /// Returns why a record is broken, unless it is whole. A record of one line swallows no other.
    fn why(&self, record: &[u8], fault: Option<Fault>, fields: &[Span]) -> Option<Why> {
        if !(record.contains(&b'\n') || self.returns && record.contains(&b'\r')) {
            return None;
        }
        let line_of = |at: usize| line_breaks(&record[..at.min(record.len())], self.returns);
        let opens = |field: &Span| line_of(field.start.saturating_sub(1));
        let several_lines = |field: &&Span| field.quoted && opens(field) < line_of(field.end);
        match fault {
            Some(Fault::Unclosed(at)) => return Some(Why::Unclosed { line: line_of(at) }),
            Some(Fault::AfterQuote(field)) => {
                let start = fields.get(field).map_or(0, |span| span.start);
                let closed = line_of(start + self.splitter_of(&record[start..]).closing());
                if line_of(start) < closed {
                    return Some(Why::ClosedInText { line: line_of(start), closed });
                }
            }
            Some(Fault::Return(_)) | None => {}
        }
        let longest = fields.iter().filter(several_lines).max_by_key(|field| field.end - field.start)?;
        let (line, closed) = (opens(longest), line_of(longest.end));
        if line_breaks(record, self.returns) >= self.shape.most_lines {
            return Some(Why::TooLong { line });
        }
        let lines = closed.saturating_sub(line + 1) as usize;
        let evidence = lines * (self.shape.columns.saturating_sub(1));
        let enough = if fault.is_none() && self.fits(fields) { evidence >= EVIDENCE } else { evidence > 0 };
        let contains = enough && self.reads_as_records(&record[longest.start..longest.end]);
        contains.then_some(Why::ContainsRecords { line, closed })
    }

    fn splitter_of<'a>(&'a self, bytes: &'a [u8]) -> Splitter<'a> {
        Splitter { syntax: self.syntax, bytes, at_end: true, returns: self.returns }
    }

    /// Returns why a record that exceeds the maximum number of lines is broken.
    fn too_long(&self, start: usize, fields: &mut Vec<Span>) -> Why {
        let mut end = start;
        for _ in 0..self.shape.most_lines {
            end += first_line(&self.bytes[end..], self.returns).map_or(0, |(_, next)| next);
        }
        let part = &self.bytes[start..end];
        let line = match self.splitter_of(part).split(fields) {
            Split::Record { fault: Some(Fault::Unclosed(at)), .. } => line_breaks(&part[..at], self.returns),
            _ => 0,
        };
        Why::TooLong { line }
    }

    /// Returns whether all whole lines of a quoted field read as records without quotes.
    fn reads_as_records(&self, value: &[u8]) -> bool {
        let Some((_, mut at)) = first_line(value, self.returns) else { return false };
        let mut fields = Vec::new();
        while let Some((len, next)) = first_line(&value[at..], self.returns) {
            let line = &value[at..at + len];
            let split = self.splitter_of(line).split(&mut fields);
            let is_record = matches!(split, Split::Record { fault: None, .. }) && fields.len() == self.shape.columns;
            if !is_record {
                return false;
            }
            at += next;
        }
        true
    }

    /// Returns whether a record has the right number of fields.
    fn fits(&self, fields: &[Span]) -> bool {
        let is_empty = |field: &Span| field.start == field.end && !field.quoted;
        let columns = self.shape.columns;
        match fields.len() {
            count if count == columns => true,
            count if self.shape.ragged => count < columns || fields[columns..].iter().all(is_empty),
            count => self.shape.trailing && count == columns + 1 && fields.last().is_some_and(is_empty),
        }
    }

    /// Returns where the reader resumes after the broken record at `start`; `None` if it needs more of the file.
    fn resume(&self, start: usize, why: Why, fields: &mut Vec<Span>) -> Option<usize> {
        let mut at = start;
        for line in 0..self.shape.most_lines {
            match first_line(&self.bytes[at..], self.returns) {
                Some((_, next)) => at += next,
                None if self.at_end => return Some(self.bytes.len()),
                None => return None,
            }
            let within = match why {
                Why::ClosedInText { closed, .. } | Why::ContainsRecords { closed, .. } => line < closed,
                Why::Unclosed { .. } | Why::TooLong { .. } => true,
            };
            // Any line is a record of one field, so the lines within the quotes prove nothing.
            if self.shape.columns == 1 && within {
                continue;
            }
            match self.line(at, fields) {
                Line::Cut => return None,
                Line::Record(next) => match self.line(next, fields) {
                    Line::Cut => return None,
                    Line::Record(_) | Line::Opening => return Some(at),
                    Line::Other => {}
                },
                Line::Opening | Line::Other => {}
            }
        }
        Some(at)
    }

    /// Reads the line at a byte as the start of a record.
    fn line(&self, mut at: usize, fields: &mut Vec<Span>) -> Line {
        loop {
            let rest = &self.bytes[at..];
            if rest.is_empty() {
                return if self.at_end { Line::Record(at) } else { Line::Cut };
            }
            let skipped = rest.first().copied() == self.syntax.comment && self.syntax.comment.is_some();
            match first_line(rest, self.returns) {
                Some((len, next)) if len == 0 || skipped => at += next,
                _ => break,
            }
        }
        let rest = &self.bytes[at..];
        match self.splitter(at, self.at_end).split(fields) {
            Split::Cut if line_breaks(rest, self.returns) < self.shape.most_lines => Line::Cut,
            Split::Cut | Split::Record { fault: Some(Fault::AfterQuote(_) | Fault::Unclosed(_)), .. } => Line::Opening,
            Split::Record { len, next, fault: None } if self.fits(fields) => {
                let ends_in_quote = |field: &Span| {
                    !field.quoted
                        && self.syntax.quote.is_some_and(|quote| rest[field.start..field.end].ends_with(&[quote]))
                };
                let whole = !fields.iter().any(ends_in_quote) && self.why(&rest[..len], None, fields).is_none();
                if whole { Line::Record(at + next) } else { Line::Other }
            }
            Split::Record { .. } => Line::Other,
        }
    }
}
