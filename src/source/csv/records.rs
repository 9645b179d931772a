//! The records of a CSV file: [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180), and common deviations.
//!
//! This splitter exists because no crate meets three requirements. The line of each record must be right after CRLF, blank
//! lines, and line breaks in quotes. A rejected record must be kept as written. Text after a closing quote must be
//! rejected, because a lenient reader merges two rows if a quote is unclosed:
//!
//! ```text
//! id,name
//! 1,"Ann         ◄─ read leniently: 1 row, `1` and `Ann⏎2,Bob"`, and row 2 is lost
//! 2,"Bob"
//! ```

use std::borrow::Cow;

use super::super::SourceFile;
use super::super::decoder::Input;
use crate::error::Result;
use crate::spec::Encoding;

/// The position of a field in its record, without its quotes.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether it contains doubled quotes.
    pub(super) doubled: bool,
}

/// A violation of the CSV format.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// The quote at this byte of the record is never closed.
    Unclosed(usize),
    /// This field has text after its closing quote.
    AfterQuote(usize),
    /// This field contains a carriage return that does not end a line.
    Return(usize),
}

/// A record at the start of the window.
pub(super) struct Record {
    pub(super) line: u64,
    /// The size in bytes, without the line ending.
    pub(super) len: usize,
    pub(super) fault: Option<Fault>,
}

/// The result of [`split`].
enum Split {
    /// The window ends before the record.
    Cut,
    /// A record of `len` bytes; the next one starts at `next`.
    Record { len: usize, next: usize, fault: Option<Fault> },
}

/// The records of a file, in order.
pub(super) struct Records {
    input: Input,
    delimiter: u8,
    quote: u8,
    /// Whether a lone carriage return ends a line; `None` before the first line, which decides.
    returns: Option<bool>,
    fields: Vec<Span>,
    line: u64,
    /// Bytes and lines of the last returned record.
    done: (usize, u64),
}

impl Records {
    pub(super) fn open(file: &SourceFile, encoding: Encoding, delimiter: u8, quote: u8) -> Result<Self> {
        Ok(Self {
            input: Input::open(file, encoding)?,
            delimiter,
            quote,
            returns: None,
            fields: Vec::new(),
            line: 1,
            done: (0, 0),
        })
    }

    /// Returns the next record; skips blank lines.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        loop {
            self.input.consume(self.done.0);
            self.line += self.done.1;
            self.done = (0, 0);
            let (bytes, at_end) = (self.input.bytes(), self.input.at_end());
            if bytes.is_empty() && at_end {
                return Ok(None);
            }
            let returns = self.returns.unwrap_or(true);
            let splitter = Splitter { bytes, at_end, delimiter: self.delimiter, quote: self.quote, returns };
            match splitter.split(&mut self.fields) {
                Split::Cut => self.input.grow(self.line)?,
                Split::Record { len, next, fault } => {
                    let returns = *self.returns.get_or_insert(bytes[len..next] == *b"\r");
                    self.done = (next, line_breaks(&bytes[..next], returns));
                    if len > 0 {
                        return Ok(Some(Record { line: self.line, len, fault }));
                    }
                }
            }
        }
    }

    /// Splits off the whole records of the window, so that another thread can read them.
    pub(super) fn take(&mut self) -> Result<Option<Self>> {
        loop {
            self.input.consume(self.done.0);
            self.line += self.done.1;
            self.done = (0, 0);
            let (bytes, at_end) = (self.input.bytes(), self.input.at_end());
            if bytes.is_empty() && at_end {
                return Ok(None);
            }
            let returns = self.returns.unwrap_or(true);
            let whole = match at_end {
                true => bytes.len(),
                false => whole_records(bytes, self.delimiter, self.quote, returns, &mut self.fields),
            };
            if whole == 0 {
                self.input.grow(self.line)?;
                continue;
            }
            let lines = line_breaks(&bytes[..whole], returns);
            let taken = Self {
                input: self.input.take(whole),
                delimiter: self.delimiter,
                quote: self.quote,
                returns: self.returns,
                fields: Vec::new(),
                line: self.line,
                done: (0, 0),
            };
            self.line += lines;
            return Ok(Some(taken));
        }
    }

    /// Makes [`Self::next`] return the last record again.
    pub(super) fn back(&mut self) {
        self.done = (0, 0);
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

    /// Returns the value of a field.
    pub(super) fn value<'a>(&self, text: &'a str, span: Span) -> Cow<'a, str> {
        let value = &text[span.start..span.end];
        if !span.doubled {
            return Cow::Borrowed(value);
        }
        let quote = char::from(self.quote).to_string();
        Cow::Owned(value.replace(&quote.repeat(2), &quote))
    }

    /// Returns the line of the byte `at` in a record.
    pub(super) fn line_of(&self, record: &Record, at: usize) -> u64 {
        record.line + line_breaks(&self.bytes(record)[..at], self.returns.unwrap_or(false))
    }
}

/// A pass over the record at the start of `bytes`, which end with the window or, if `at_end`, with the file.
struct Splitter<'a> {
    bytes: &'a [u8],
    at_end: bool,
    delimiter: u8,
    quote: u8,
    returns: bool,
}

/// The byte after a field.
enum Stop {
    /// Unknown, because the window ends.
    Cut,
    /// A delimiter.
    Field,
    /// A line ending, or the end of the file; the next record starts here.
    Record(usize),
    /// Any other byte.
    Text,
}

impl Splitter<'_> {
    fn split(&self, fields: &mut Vec<Span>) -> Split {
        fields.clear();
        let (mut fault, mut at) = (None, 0);
        loop {
            let start = at;
            if self.bytes.get(at) == Some(&self.quote) {
                let (end, doubled) = self.closing_quote(at + 1);
                let Some(end) = end else {
                    if !self.at_end {
                        return Split::Cut;
                    }
                    let len = self.bytes.len();
                    fields.push(Span { start: start + 1, end: len, doubled });
                    return Split::Record { len, next: len, fault: Some(Fault::Unclosed(start)) };
                };
                at = end + 1;
                let span = Span { start: start + 1, end, doubled };
                match self.stop(at) {
                    Stop::Cut => return Split::Cut,
                    Stop::Field => {
                        fields.push(span);
                        at += 1;
                        continue;
                    }
                    Stop::Record(next) => {
                        fields.push(span);
                        return Split::Record { len: at, next, fault };
                    }
                    Stop::Text => fault = fault.or(Some(Fault::AfterQuote(fields.len()))),
                }
            }
            loop {
                let stop = |byte: &u8| *byte == self.delimiter || *byte == b'\n' || *byte == b'\r';
                at = self.bytes[at..].iter().position(stop).map_or(self.bytes.len(), |found| at + found);
                let span = Span { start, end: at, doubled: false };
                match self.stop(at) {
                    Stop::Cut => return Split::Cut,
                    Stop::Field => {
                        fields.push(span);
                        at += 1;
                        break;
                    }
                    Stop::Record(next) => {
                        fields.push(span);
                        return Split::Record { len: at, next, fault };
                    }
                    Stop::Text => {
                        fault = fault.or(Some(Fault::Return(fields.len())));
                        at += 1;
                    }
                }
            }
        }
    }

    /// Returns the position of the closing quote, or `None` if the bytes end before it is known, and whether there are
    /// doubled quotes before it.
    fn closing_quote(&self, mut at: usize) -> (Option<usize>, bool) {
        let mut doubled = false;
        loop {
            let Some(found) = self.bytes[at..].iter().position(|byte| *byte == self.quote) else {
                return (None, doubled);
            };
            at += found;
            match self.bytes.get(at + 1) {
                Some(byte) if *byte == self.quote => (doubled, at) = (true, at + 2),
                None if !self.at_end => return (None, doubled),
                _ => return (Some(at), doubled),
            }
        }
    }

    fn stop(&self, at: usize) -> Stop {
        match self.bytes.get(at) {
            None if self.at_end => Stop::Record(at),
            None => Stop::Cut,
            Some(byte) if *byte == self.delimiter => Stop::Field,
            Some(b'\n') => Stop::Record(at + 1),
            Some(b'\r') => match self.bytes.get(at + 1) {
                Some(b'\n') => Stop::Record(at + 2),
                None if !self.at_end => Stop::Cut,
                _ if self.returns => Stop::Record(at + 1),
                _ => Stop::Text,
            },
            Some(_) => Stop::Text,
        }
    }
}

/// Returns the size in bytes of the whole records at the start of `bytes`. Without quotes, each line is a record; only
/// records with quotes are split to find their end.
fn whole_records(bytes: &[u8], delimiter: u8, quote: u8, returns: bool, fields: &mut Vec<Span>) -> usize {
    let mut whole = 0;
    loop {
        let rest = &bytes[whole..];
        let last_line = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if !returns {
            // Searching for any quote is faster than searching for its position.
            if !rest.contains(&quote) {
                return whole + last_line(rest);
            }
            let quoted = rest.iter().position(|byte| *byte == quote).unwrap_or(rest.len());
            whole += last_line(&rest[..quoted]);
        }
        let splitter = Splitter { bytes: &bytes[whole..], at_end: false, delimiter, quote, returns };
        match splitter.split(fields) {
            Split::Cut => return whole,
            Split::Record { next, .. } => whole += next,
        }
    }
}

/// Returns the number of lines that end in `bytes`.
fn line_breaks(bytes: &[u8], returns: bool) -> u64 {
    // At most 255 at a time, so that the count fits into a byte and the loop is vectorized.
    let feeds = |part: &[u8]| usize::from(part.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>());
    let feeds = bytes.chunks(255).map(feeds).sum::<usize>();
    let lone = |index: usize| bytes[index] == b'\r' && bytes.get(index + 1) != Some(&b'\n');
    let returns = if returns { (0..bytes.len()).filter(|index| lone(*index)).count() } else { 0 };
    (feeds + returns) as u64
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
