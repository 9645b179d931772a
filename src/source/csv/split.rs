//! One record of a CSV file, split into its fields: [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180), and common
//! deviations.

use std::borrow::Cow;

/// The notation of a file.
#[derive(Debug, Clone)]
pub(super) struct Syntax {
    /// One or more bytes.
    pub(super) delimiter: Vec<u8>,
    pub(super) quote: Option<u8>,
    pub(super) escape: Option<u8>,
    pub(super) comment: Option<u8>,
}

/// The position of a field in its record, without its quotes.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether it was between quotes.
    pub(super) quoted: bool,
    /// Whether it contains doubled quotes, or characters after an escape character.
    pub(super) escaped: bool,
}

/// A violation of the CSV format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The quote at this byte of the record is never closed.
    Unclosed(usize),
    /// This field has text after its closing quote.
    AfterQuote(usize),
    /// This field contains a carriage return that does not end a line.
    Return(usize),
}

/// The result of [`Splitter::split`].
pub(super) enum Split {
    /// The window ends before the record.
    Cut,
    /// A record of `len` bytes; the next one starts at `next`.
    Record { len: usize, next: usize, fault: Option<Fault> },
}

impl Syntax {
    /// Returns the value of a field.
    pub(super) fn value<'a>(&self, text: &'a str, span: Span) -> Cow<'a, str> {
        let value = &text[span.start..span.end];
        if !span.escaped {
            return Cow::Borrowed(value);
        }
        let mut plain = String::with_capacity(value.len());
        let mut characters = value.chars().peekable();
        while let Some(character) = characters.next() {
            let is = |byte: Option<u8>| byte.is_some_and(|byte| char::from(byte) == character);
            let next = characters.peek().copied();
            let doubled = span.quoted && is(self.quote) && next == Some(character);
            match next {
                Some(next) if doubled || is(self.escape) => {
                    characters.next();
                    plain.push(next);
                }
                _ => plain.push(character),
            }
        }
        Cow::Owned(plain)
    }

    /// Returns the position of the first byte that can change where a record ends.
    pub(super) fn first_special(&self, bytes: &[u8]) -> Option<usize> {
        match (self.quote, self.escape) {
            // Searching for any quote is faster than searching for its position.
            (Some(byte), None) | (None, Some(byte)) => match bytes.contains(&byte) {
                true => bytes.iter().position(|other| *other == byte),
                false => None,
            },
            (Some(quote), Some(escape)) => bytes.iter().position(|byte| *byte == quote || *byte == escape),
            (None, None) => None,
        }
    }
}

/// A pass over the record at the start of `bytes`, which end with the window or, if `at_end`, with the file.
pub(super) struct Splitter<'a> {
    pub(super) syntax: &'a Syntax,
    pub(super) bytes: &'a [u8],
    pub(super) at_end: bool,
    /// Whether a lone carriage return ends a line.
    pub(super) returns: bool,
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

/// The end of a quoted field.
enum Closing {
    /// The closing quote is at this byte.
    At(usize),
    /// The bytes end before it is known.
    Cut,
}

impl Splitter<'_> {
    pub(super) fn split(&self, fields: &mut Vec<Span>) -> Split {
        fields.clear();
        let (mut fault, mut at) = (None, 0);
        loop {
            let start = at;
            if self.syntax.quote.is_some() && self.bytes.get(at).copied() == self.syntax.quote {
                let (closing, escaped) = self.closing_quote(at + 1);
                let Closing::At(end) = closing else {
                    if !self.at_end {
                        return Split::Cut;
                    }
                    let len = self.bytes.len();
                    fields.push(Span { start: start + 1, end: len, quoted: true, escaped });
                    return Split::Record { len, next: len, fault: Some(Fault::Unclosed(start)) };
                };
                at = end + 1;
                let span = Span { start: start + 1, end, quoted: true, escaped };
                match self.stop(at) {
                    Stop::Cut => return Split::Cut,
                    Stop::Field => {
                        fields.push(span);
                        at += self.syntax.delimiter.len();
                        continue;
                    }
                    Stop::Record(next) => {
                        fields.push(span);
                        return Split::Record { len: at, next, fault };
                    }
                    Stop::Text => fault = fault.or(Some(Fault::AfterQuote(fields.len()))),
                }
            }
            let mut escaped = false;
            loop {
                at = self.end_of_text(at);
                if self.bytes.get(at).is_some() && self.bytes.get(at).copied() == self.syntax.escape {
                    if at + 1 >= self.bytes.len() && !self.at_end {
                        return Split::Cut;
                    }
                    escaped = true;
                    at = (at + 2).min(self.bytes.len());
                    continue;
                }
                let span = Span { start, end: at, quoted: false, escaped };
                match self.stop(at) {
                    Stop::Cut => return Split::Cut,
                    Stop::Field => {
                        fields.push(span);
                        at += self.syntax.delimiter.len();
                        break;
                    }
                    Stop::Record(next) => {
                        fields.push(span);
                        return Split::Record { len: at, next, fault };
                    }
                    Stop::Text => {
                        if self.bytes[at] == b'\r' {
                            fault = fault.or(Some(Fault::Return(fields.len())));
                        }
                        at += 1;
                    }
                }
            }
        }
    }

    /// Returns the position of the first byte that can end a field or escape the next byte.
    fn end_of_text(&self, at: usize) -> usize {
        let first = self.syntax.delimiter[0];
        let stop = |byte: &u8| *byte == first || *byte == b'\n' || *byte == b'\r';
        let found = match self.syntax.escape {
            None => self.bytes[at..].iter().position(stop),
            Some(escape) => self.bytes[at..].iter().position(|byte| stop(byte) || *byte == escape),
        };
        found.map_or(self.bytes.len(), |found| at + found)
    }

    /// Returns the position of the closing quote, and whether there are doubled quotes or escapes before it.
    fn closing_quote(&self, mut at: usize) -> (Closing, bool) {
        let mut escaped = false;
        let Some(quote) = self.syntax.quote else { return (Closing::Cut, false) };
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let found = match self.syntax.escape {
                None => rest.iter().position(|byte| *byte == quote),
                Some(escape) => rest.iter().position(|byte| *byte == quote || *byte == escape),
            };
            let Some(found) = found else { return (Closing::Cut, escaped) };
            at += found;
            if self.bytes[at] != quote {
                (escaped, at) = (true, at + 2);
                continue;
            }
            match self.bytes.get(at + 1) {
                Some(byte) if *byte == quote => (escaped, at) = (true, at + 2),
                None if !self.at_end => return (Closing::Cut, escaped),
                _ => return (Closing::At(at), escaped),
            }
        }
    }

    /// Returns the position of the quote that closes the one at the start of the bytes.
    pub(super) fn closing(&self) -> usize {
        match self.closing_quote(1).0 {
            Closing::At(at) => at,
            Closing::Cut => self.bytes.len(),
        }
    }

    fn stop(&self, at: usize) -> Stop {
        let delimiter = &self.syntax.delimiter;
        match self.bytes.get(at) {
            None if self.at_end => Stop::Record(at),
            None => Stop::Cut,
            Some(byte) if *byte == delimiter[0] && delimiter.len() == 1 => Stop::Field,
            Some(byte) if *byte == delimiter[0] => {
                let rest = &self.bytes[at..];
                match rest.starts_with(delimiter) {
                    true => Stop::Field,
                    false if !self.at_end && delimiter.starts_with(rest) => Stop::Cut,
                    false => Stop::Text,
                }
            }
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

/// Returns the number of lines that end in `bytes`.
pub(super) fn line_breaks(bytes: &[u8], returns: bool) -> u64 {
    // At most 255 at a time, so that the count fits into a byte and the loop is vectorized.
    let feeds = |part: &[u8]| usize::from(part.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>());
    let feeds = bytes.chunks(255).map(feeds).sum::<usize>();
    let lone = |index: usize| bytes[index] == b'\r' && bytes.get(index + 1) != Some(&b'\n');
    let returns = if returns { (0..bytes.len()).filter(|index| lone(*index)).count() } else { 0 };
    (feeds + returns) as u64
}

/// Returns the length of the first line, and where the next one starts; `None` if the bytes end before its end.
pub(super) fn first_line(bytes: &[u8], returns: bool) -> Option<(usize, usize)> {
    let end = |byte: &u8| *byte == b'\n' || (returns && *byte == b'\r');
    let at = bytes.iter().position(end)?;
    if bytes[at] == b'\r' {
        return match bytes.get(at + 1) {
            Some(b'\n') => Some((at, at + 2)),
            _ => Some((at, at + 1)),
        };
    }
    Some((if bytes[..at].ends_with(b"\r") { at - 1 } else { at }, at + 1))
}
