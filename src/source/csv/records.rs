//! The records of a CSV file, in order.
//!
//! This reader exists because no crate meets four requirements. The line of each record must be right after CRLF, blank
//! lines, and line breaks in quotes. A rejected record must be kept as written. Text after a closing quote must be
//! rejected, because a lenient reader merges two rows if a quote is unclosed. And such a quote must not take other records
//! with it (see [`super::recovery`]):
//!
//! ```text
//! id,name
//! 1,"Ann         ◄─ read leniently: 1 row, `1` and `Ann⏎2,Bob"`, and row 2 is lost
//! 2,"Bob"
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::decoder::Input;
use super::recovery::{Broken, Scan, Shape, Why};
use super::split::{Fault, Span, Split, Splitter, Syntax, first_line, line_breaks};
use crate::error::Result;

/// A record at the start of the window.
pub(super) struct Record {
    pub(super) line: u64,
    /// The size in bytes, without the line ending.
    pub(super) len: usize,
    pub(super) fault: Option<RecordFault>,
}

/// Why a record is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordFault {
    /// It violates the format.
    Format(Fault),
    /// It does not end where it should; only its first line is rejected with it.
    Broken(Why),
    /// The line belongs to no record: the record on this line is broken.
    Lost(u64),
}

/// The records of a file, in order.
pub(super) struct Records {
    input: Input,
    syntax: Arc<Syntax>,
    /// The shape of the records, once the header is read.
    shape: Option<Shape>,
    /// Whether a blank line is a record.
    blank_is_record: bool,
    /// Whether a lone carriage return ends a line; `None` before the first line, which decides.
    returns: Option<bool>,
    fields: Vec<Span>,
    line: u64,
    /// Bytes and lines of the last returned record.
    done: (usize, u64),
    /// The number of bytes before the window, in this block.
    before: usize,
    /// The broken records of this block, and the line of the one that is being read.
    broken: VecDeque<Broken>,
    broken_line: Option<u64>,
    blank: u64,
}

impl Records {
    pub(super) fn new(input: Input, syntax: Syntax, first_line: u64) -> Self {
        Self {
            input,
            syntax: Arc::new(syntax),
            shape: None,
            blank_is_record: false,
            returns: None,
            fields: Vec::new(),
            line: first_line,
            done: (0, 0),
            before: 0,
            broken: VecDeque::new(),
            broken_line: None,
            blank: 0,
        }
    }

    /// Sets the shape of the records after the header. `blank_is_record` applies to files of one column.
    pub(super) fn expect(&mut self, shape: Shape, blank_is_record: bool) {
        self.blank_is_record = blank_is_record && shape.columns == 1;
        self.shape = Some(shape);
    }

    /// Returns the next record; skips blank lines and comments.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        loop {
            self.advance();
            let (bytes, at_end) = (self.input.bytes(), self.input.at_end());
            if bytes.is_empty() && at_end {
                return Ok(None);
            }
            if let Some(broken) = self.broken.front()
                && self.before >= broken.start
            {
                let (end, why) = (broken.end, broken.why);
                if self.before >= end {
                    self.broken.pop_front();
                    self.broken_line = None;
                    continue;
                }
                if let Some(record) = self.next_of_broken(end, why) {
                    return Ok(Some(record));
                }
                continue;
            }
            if self.is_comment(bytes) {
                match first_line(bytes, self.returns.unwrap_or(true)) {
                    Some((_, next)) => self.done = (next, 1),
                    None if at_end => self.done = (bytes.len(), 0),
                    None => self.input.grow(self.line)?,
                }
                continue;
            }
            let returns = self.returns.unwrap_or(true);
            let splitter = Splitter { syntax: &self.syntax, bytes, at_end, returns };
            match splitter.split(&mut self.fields) {
                Split::Cut => self.input.grow(self.line)?,
                Split::Record { len, next, fault } => {
                    let returns = *self.returns.get_or_insert(bytes[len..next] == *b"\r");
                    self.done = (next, line_breaks(&bytes[..next], returns));
                    if len > 0 || self.blank_is_record {
                        let fault = fault.map(RecordFault::Format);
                        return Ok(Some(Record { line: self.line, len, fault }));
                    }
                    self.blank += 1;
                }
            }
        }
    }

    /// Returns the next line of a broken record that ends at `end`, unless the line is blank.
    fn next_of_broken(&mut self, end: usize, why: Why) -> Option<Record> {
        let (bytes, returns) = (self.input.bytes(), self.returns.unwrap_or(true));
        let bytes = &bytes[..(end - self.before).min(bytes.len())];
        let (len, next) = first_line(bytes, returns).unwrap_or((bytes.len(), bytes.len()));
        self.done = (next, line_breaks(&bytes[..next], returns));
        let splitter = Splitter { syntax: &self.syntax, bytes: &bytes[..len], at_end: true, returns: false };
        splitter.split(&mut self.fields);
        let fault = match self.broken_line {
            None => {
                self.broken_line = Some(self.line);
                RecordFault::Broken(why)
            }
            Some(_) if len == 0 => return None,
            Some(line) => RecordFault::Lost(line),
        };
        Some(Record { line: self.line, len, fault: Some(fault) })
    }

    fn is_comment(&self, bytes: &[u8]) -> bool {
        self.syntax.comment.is_some() && bytes.first().copied() == self.syntax.comment
    }

    fn advance(&mut self) {
        self.input.consume(self.done.0);
        self.before += self.done.0;
        self.line += self.done.1;
        self.done = (0, 0);
    }

    /// Splits off the whole records of the window, so that another thread can read them.
    pub(super) fn take(&mut self) -> Result<Option<Self>> {
        loop {
            self.advance();
            let (bytes, at_end) = (self.input.bytes(), self.input.at_end());
            if bytes.is_empty() && at_end {
                return Ok(None);
            }
            let returns = self.returns.unwrap_or(true);
            let shape = self.shape.unwrap_or(Shape { columns: 1, trailing: false, ragged: true, most_lines: u64::MAX });
            let scanned = Scan { syntax: &self.syntax, shape, returns, bytes, at_end }.scan(&mut self.fields);
            if scanned.whole == 0 {
                self.input.grow(self.line)?;
                continue;
            }
            let lines = line_breaks(&bytes[..scanned.whole], returns);
            let taken = Self {
                input: self.input.take(scanned.whole),
                syntax: Arc::clone(&self.syntax),
                shape: self.shape,
                blank_is_record: self.blank_is_record,
                returns: self.returns,
                fields: Vec::new(),
                line: self.line,
                done: (0, 0),
                before: 0,
                broken: scanned.broken.into(),
                broken_line: None,
                blank: 0,
            };
            self.line += lines;
            return Ok(Some(taken));
        }
    }

    /// Returns whether the rest of the file is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.input.bytes().is_empty()
    }

    /// Returns the bytes of the last record.
    pub(super) fn bytes(&self, record: &Record) -> &[u8] {
        &self.input.bytes()[..record.len]
    }

    /// Returns the fields of the last record.
    pub(super) fn fields(&self) -> &[Span] {
        &self.fields
    }

    /// Returns the notation of the records.
    pub(super) fn syntax(&self) -> &Syntax {
        &self.syntax
    }

    /// Returns the number of blank lines since the last call.
    pub(super) fn take_blank(&mut self) -> u64 {
        std::mem::take(&mut self.blank)
    }

    /// Returns the line of the byte `at` in a record.
    pub(super) fn line_of(&self, record: &Record, at: usize) -> u64 {
        record.line + line_breaks(&self.bytes(record)[..at], self.returns.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::tests::{Read, read_one};
    use crate::spec::CsvSpec;

    fn lines(text: &str) -> Vec<(u64, String)> {
        let Read { rows, malformed } = read_one("x.csv", text.as_bytes(), CsvSpec::default()).unwrap();
        assert_eq!(malformed, []);
        let joined =
            |row: Vec<Option<String>>| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("|");
        rows.into_iter().map(|(_, line, row)| (line, joined(row))).collect()
    }

    fn expected(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
        rows.iter().map(|(line, row)| (*line, (*row).to_string())).collect()
    }

    #[test]
    fn lines_are_right_after_blank_lines_and_breaks_in_quotes() {
        let text = "\n\na,b\n1,x\n\n\n2,\"y\n\nz\"\n3,w\n\n4,v";
        assert_eq!(lines(text), expected(&[(4, "1|x"), (7, "2|y\n\nz"), (10, "3|w"), (12, "4|v")]));
    }

    #[test]
    fn lines_are_right_with_crlf() {
        let text = "a,b\r\n1,x\r\n\r\n2,\"y\r\nz\"\r\n3,\"w\"\r\n";
        assert_eq!(lines(text), expected(&[(2, "1|x"), (4, "2|y\r\nz"), (6, "3|w")]));
    }

    #[test]
    fn a_line_ending_may_be_cut_by_the_window() {
        for length in 1..80 {
            let text = format!("{},b\r\n1,x\r\n", "a".repeat(length));
            assert_eq!(lines(&text), expected(&[(2, "1|x")]), "{length}");
        }
    }

    #[test]
    fn lines_are_right_with_lone_carriage_returns() {
        assert_eq!(lines("a,b\r1,x\r\r2,\"y\rz\"\r3,w"), expected(&[(2, "1|x"), (4, "2|y\rz"), (6, "3|w")]));
    }

    #[test]
    fn lines_are_right_after_a_byte_order_mark() {
        assert_eq!(lines("\u{FEFF}a,b\n1,x\n"), expected(&[(2, "1|x")]));
        assert_eq!(lines("\u{FEFF}\"a\",b\r\n1,x\r\n"), expected(&[(2, "1|x")]));
    }

    #[test]
    fn quotes_inside_a_field_are_text() {
        assert_eq!(lines("a,b\n\"say \"\"hi\"\"\",5\" pipe\n"), expected(&[(2, "say \"hi\"|5\" pipe")]));
    }

    #[test]
    fn last_record_needs_no_line_ending() {
        assert_eq!(lines("a,b\n1,"), expected(&[(2, "1|")]));
        assert_eq!(lines("a,b\n1,\"x\""), expected(&[(2, "1|x")]));
    }

    proptest! {
        #[test]
        fn what_a_writer_wrote_is_read_as_it_was_with_its_lines(
            rows in prop::collection::vec(prop::collection::vec("[a-zé,;\"\r\n \t]{0,12}", 3), 0..12),
            crlf: bool,
        ) {
            let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
            let mut writer = csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
            writer.write_record(["a", "b", "c"]).unwrap();
            let mut line = 2;
            let mut expected = Vec::new();
            for row in &rows {
                writer.write_record(row).unwrap();
                let values: Vec<_> = row.iter().map(|value| Some(value.clone()).filter(|value| !value.is_empty())).collect();
                expected.push((line, values));
                line += 1 + row.iter().flat_map(|value| value.chars()).filter(|c| *c == '\n').count() as u64;
            }
            let bytes = writer.into_inner().unwrap();
            let Read { rows, malformed } = read_one("x.csv", &bytes, CsvSpec::default()).unwrap();
            prop_assert_eq!(malformed, []);
            prop_assert_eq!(rows.into_iter().map(|row| (row.1, row.2)).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn no_byte_of_any_file_is_lost(bytes in "[a,\"\r\n]{0,40}") {
            let text = format!("x,y\n{bytes}");
            let Read { rows, malformed } = read_one("x.csv", text.as_bytes(), CsvSpec::default()).unwrap();
            let letters = |text: &str| text.matches('a').count();
            let read: usize = rows.iter().flat_map(|row| row.2.iter().flatten()).map(|value| letters(value)).sum();
            let refused: usize = malformed.iter().map(|row| letters(&row.raw)).sum();
            prop_assert_eq!(read + refused, letters(&bytes));
            // Each record starts on a line that is not blank, and no two on the same.
            let mut starts: Vec<u64> = rows.iter().map(|row| row.1).chain(malformed.iter().map(|row| row.line)).collect();
            starts.sort_unstable();
            let lines: Vec<&str> = text.split('\n').collect();
            prop_assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", starts);
            prop_assert!(starts.iter().all(|line| !lines[*line as usize - 1].is_empty()), "{:?}", starts);
        }
    }

    #[test]
    fn file_name_determines_the_delimiter() {
        let read = read_one("x.tsv", b"a\tb\n1,5\t2\n", CsvSpec::default()).unwrap();
        assert_eq!(read.rows[0].2, [Some("1,5".to_string()), Some("2".to_string())]);
    }
}
