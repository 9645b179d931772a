//! The objects of a JSON file, wherever they begin and end: one per line, several on a line, over several lines, or in an
//! array.
//!
//! A line that is an object is the fast path. Otherwise, the brackets show where the object ends. An object that does not
//! end where it should is rejected alone: the reader resumes at the next line that reads as an object, and each line in
//! between belongs to no record.

use super::super::SourceFile;
use super::super::decoder::Input;
use super::members::{members, validate};
use crate::error::{Error, Result};
use crate::spec::Encoding;

/// A part of the file, at the start of the window.
pub(super) struct Found {
    pub(super) line: u64,
    /// The size in bytes.
    pub(super) len: usize,
    /// The start of the next part, and the number of line breaks before it.
    next: (usize, u64),
    pub(super) kind: Kind,
}

impl Found {
    fn new(line: u64, bytes: &[u8], kind: Kind) -> Self {
        Self { line, len: bytes.len(), next: (bytes.len(), breaks(bytes)), kind }
    }
}

/// The kind of a part of the file.
pub(super) enum Kind {
    /// A valid object.
    Object,
    /// A record that is not a valid object, with the reason.
    Broken(String),
    /// A line that belongs to no record, because the record on this line is broken.
    Lost(u64),
}

/// The objects of a file, in order.
pub(super) struct Objects {
    input: Input,
    line: u64,
    /// The size in bytes of the last returned part, and its line breaks.
    done: (usize, u64),
    /// Whether the window starts in the middle of a line.
    in_line: bool,
    /// The number of open arrays around the objects.
    arrays: usize,
    /// Whether an object is around the array, so that nothing after it is a record.
    wrapped: bool,
    /// Whether the last lines were not one object each.
    by_brackets: bool,
    most_lines: u64,
    /// The end of the lines that belong to no record, in the window, and the line of the broken record.
    lost: Option<(usize, u64)>,
    /// The first key of the last object, by which objects on one line are recognized.
    first_key: Option<String>,
}

/// The end of a value.
enum End {
    /// After this number of bytes.
    At(usize),
    /// Beyond the window.
    Open,
}

impl Objects {
    pub(super) fn open(file: &SourceFile, most_lines: u64) -> Result<Self> {
        Ok(Self {
            input: Input::open(file, Encoding::UTF_8)?,
            line: 1,
            done: (0, 0),
            in_line: false,
            arrays: 0,
            wrapped: false,
            by_brackets: false,
            most_lines,
            lost: None,
            first_key: None,
        })
    }

    /// Returns whether the file is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.input.bytes().is_empty() && self.input.at_end()
    }

    /// Moves into the array under a path of keys.
    pub(super) fn enter(&mut self, file: &SourceFile, path: &str) -> Result<()> {
        let missing = |what: String| {
            Err(Error::input(format!("`{}` {what}", file.name))
                .hint("set `json: { records: … }` to the key whose array contains the records"))
        };
        for key in path.split('.') {
            self.skip_blank()?;
            if self.peek(0)? != Some(b'{') {
                return missing(format!("has no object with the key `{key}`"));
            }
            self.pass(1);
            loop {
                self.skip_blank()?;
                if self.peek(0)? == Some(b',') {
                    self.pass(1);
                    continue;
                }
                let name = match self.whole_value()? {
                    Some(len) if self.input.bytes()[0] == b'"' => self.input.bytes()[..len].to_vec(),
                    _ => return missing(format!("has no key `{key}`")),
                };
                self.pass(name.len());
                self.skip_blank()?;
                let colon = self.peek(0)? == Some(b':');
                self.pass(usize::from(colon));
                self.skip_blank()?;
                if serde_json::from_slice::<String>(&name).is_ok_and(|name| name == key) {
                    break;
                }
                match self.whole_value()? {
                    Some(len) => self.pass(len),
                    None => return missing(format!("has no key `{key}`")),
                }
            }
        }
        if self.peek(0)? != Some(b'[') {
            return missing(format!("has no array under `{path}`"));
        }
        self.pass(1);
        (self.arrays, self.by_brackets, self.wrapped) = (1, true, true);
        Ok(())
    }

    /// Passes the rest of the file, which is the end of the objects around the array.
    fn drain(&mut self) -> Result<()> {
        while self.peek(0)?.is_some() {
            self.pass(self.input.bytes().len());
        }
        Ok(())
    }

    /// Returns the bytes of the last part.
    pub(super) fn bytes(&self, found: &Found) -> &[u8] {
        &self.input.bytes()[..found.len]
    }

    /// Returns the next part of the file.
    pub(super) fn next(&mut self) -> Result<Option<Found>> {
        self.advance();
        if let Some((end, broken)) = self.lost {
            if let Some(found) = self.next_lost(end, broken) {
                return Ok(Some(found));
            }
            self.lost = None;
        }
        let start = match self.start_of_value()? {
            Some(start) => start,
            None if self.arrays > 0 => {
                self.arrays = 0;
                let reason = "the array has no end: the file is truncated".to_owned();
                return Ok(Some(Found::new(self.line, b"", Kind::Broken(reason))));
            }
            None => return Ok(None),
        };
        let found = loop {
            if let Some(found) = self.find(start) {
                break found;
            }
            self.input.grow(self.line)?;
        };
        if let Kind::Object = found.kind {
            let text = std::str::from_utf8(self.bytes(&found)).unwrap_or_default();
            if self.by_brackets && self.first_key.is_none() {
                let first = members(text).ok().and_then(|members| members.into_iter().next());
                self.first_key = first.map(|(key, _)| key.into_owned());
            }
        }
        self.done = found.next;
        Ok(Some(found))
    }

    fn advance(&mut self) {
        let (len, lines) = std::mem::take(&mut self.done);
        if len > 0 {
            self.in_line = self.input.bytes()[len - 1] != b'\n';
        }
        if let Some((end, _)) = &mut self.lost {
            *end -= len;
        }
        self.input.consume(len);
        self.line += lines;
    }

    /// Moves the window over `len` bytes.
    fn pass(&mut self, len: usize) {
        self.done = (len, breaks(&self.input.bytes()[..len]));
        self.advance();
    }

    /// Returns the byte at `at` of the window.
    fn peek(&mut self, at: usize) -> Result<Option<u8>> {
        while self.input.bytes().len() <= at && !self.input.at_end() {
            self.input.grow(self.line)?;
        }
        Ok(self.input.bytes().get(at).copied())
    }

    fn skip_blank(&mut self) -> Result<()> {
        while self.peek(0)?.is_some_and(|byte| byte.is_ascii_whitespace()) {
            let blank = self.input.bytes().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.pass(blank);
        }
        Ok(())
    }

    /// Returns the size in bytes of the value at the start of the window.
    fn whole_value(&mut self) -> Result<Option<usize>> {
        loop {
            match end_of_value(self.input.bytes()) {
                End::At(len) if len < self.input.bytes().len() || self.input.at_end() => return Ok(Some(len)),
                End::Open if self.input.at_end() => return Ok(None),
                _ => self.input.grow(self.line)?,
            }
        }
    }

    /// Moves the window to the line of the next value, over separators, and returns the value's position in it.
    fn start_of_value(&mut self) -> Result<Option<usize>> {
        loop {
            let mut at = 0;
            let byte = loop {
                match self.peek(at)? {
                    Some(b'\n') => {
                        self.pass(at + 1);
                        at = 0;
                    }
                    Some(byte) if byte.is_ascii_whitespace() => at += 1,
                    other => break other,
                }
            };
            match byte {
                None => return Ok(None),
                Some(b',') if self.arrays > 0 || self.by_brackets => self.pass(at + 1),
                Some(b']') if self.arrays > 0 => {
                    self.pass(at + 1);
                    self.arrays -= 1;
                    if self.arrays == 0 && self.wrapped {
                        self.drain()?;
                    }
                }
                Some(b'[') if self.line_of_array(at)? => {
                    self.pass(at + 1);
                    self.arrays += 1;
                    self.by_brackets = true;
                }
                Some(_) if self.in_line => {
                    self.pass(at);
                    return Ok(Some(0));
                }
                Some(_) => return Ok(Some(at)),
            }
        }
    }

    /// Returns whether a bracket opens an array of objects, and not a line that is an array of something else.
    fn line_of_array(&mut self, at: usize) -> Result<bool> {
        if self.arrays > 0 {
            return Ok(false);
        }
        let mut after = at + 1;
        while self.peek(after)?.is_some_and(|byte| byte.is_ascii_whitespace()) {
            after += 1;
        }
        Ok(matches!(self.peek(after)?, Some(b'{' | b']') | None))
    }

    /// Finds the value that starts at `start` of the window; `None` if it may continue beyond the window.
    fn find(&mut self, start: usize) -> Option<Found> {
        let (bytes, at_end) = (self.input.bytes(), self.input.at_end());
        let line = self.line;
        let end_of_line = bytes[start..].iter().position(|byte| *byte == b'\n').map(|at| start + at + 1);
        let whole_line = end_of_line.or(at_end.then_some(bytes.len()));
        let mut reason = String::new();
        if !self.by_brackets
            && let Some(end) = whole_line
        {
            match valid(&bytes[start..end]) {
                Ok(()) => {
                    let next = (end, u64::from(end_of_line.is_some()));
                    return Some(Found { line, len: content(&bytes[..end]), next, kind: Kind::Object });
                }
                Err(why) => reason = why,
            }
        }
        if bytes[start] != b'{' {
            // Not an object: it ends with its line, or with the next separator.
            let end = whole_line?;
            let part = match self.arrays > 0 {
                true => start + scalar(&bytes[start..end]),
                false => content(&bytes[..end]),
            };
            let reason = valid(&bytes[start..part]).err().unwrap_or_else(|| "not a JSON object".into());
            return Some(Found::new(line, &bytes[..part], Kind::Broken(reason)));
        }
        match end_of_value(&bytes[start..]) {
            End::At(len) if breaks(&bytes[start..start + len]) < self.most_lines => {
                self.bounded(start, start + len, whole_line, reason)
            }
            End::Open if !at_end && breaks(&bytes[start..]) < self.most_lines => None,
            _ => {
                let reason = match whole_line.map(|end| valid(&bytes[start..end])) {
                    Some(Err(why)) => why,
                    _ => "not JSON: an open bracket".to_owned(),
                };
                self.broken(start, None, reason)
            }
        }
    }

    /// Returns the object between two brackets, if it is one.
    fn bounded(&mut self, start: usize, end: usize, whole_line: Option<usize>, reason: String) -> Option<Found> {
        let (bytes, at_end) = (self.input.bytes(), self.input.at_end());
        let line = self.line;
        let several_lines = breaks(&bytes[start..end]) > 0;
        if let Err(why) = valid(&bytes[start..end]) {
            if several_lines {
                return self.broken(start, Some(end), why);
            }
            let whole = !self.by_brackets && reason.is_empty();
            let (len, why) = match whole_line {
                Some(line_end) if !self.by_brackets => (content(&bytes[..line_end]), if whole { why } else { reason }),
                _ => (end, why),
            };
            return Some(Found::new(line, &bytes[..len], Kind::Broken(why)));
        }
        // What follows on the line must be a separator or another object.
        let rest = &bytes[end..];
        let next = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
        match next.map(|at| rest[at]) {
            None if !at_end => return None,
            None | Some(b'\n' | b'{' | b',') => {}
            Some(b']') if self.arrays > 0 || self.by_brackets => {}
            Some(_) => {
                let line_end = rest.iter().position(|byte| *byte == b'\n').map(|at| end + at + 1);
                let line_end = line_end.or(at_end.then_some(bytes.len()))?;
                let reason = valid(&bytes[start..line_end]).err().unwrap_or_default();
                let len = content(&bytes[..line_end]);
                return Some(Found::new(line, &bytes[..len], Kind::Broken(reason)));
            }
        }
        let found = Found::new(line, &bytes[..end], Kind::Object);
        self.by_brackets = true;
        Some(found)
    }

    /// Returns a broken record, and finds where the reader resumes. `end` is the end of the record by its brackets.
    fn broken(&mut self, start: usize, end: Option<usize>, reason: String) -> Option<Found> {
        let (bytes, at_end) = (self.input.bytes(), self.input.at_end());
        let line = self.line;
        let found = |len: usize| Some(Found::new(line, &bytes[..len], Kind::Broken(reason.clone())));
        if self.first_key.is_some()
            && let Some(len) = self.resume_in_line(start)
        {
            return found(len);
        }
        let mut at = start;
        let first = bytes[start..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| start + at + 1);
        for _ in 0..self.most_lines {
            let Some(next) = bytes[at..].iter().position(|byte| *byte == b'\n').map(|found| at + found + 1) else {
                if !at_end {
                    return None;
                }
                at = bytes.len();
                break;
            };
            at = next;
            if end.is_some_and(|end| at >= end) {
                return found(end.unwrap_or(at));
            }
            match self.reads_as_object(at, start) {
                Some(true) => break,
                Some(false) => {}
                None => return None,
            }
        }
        let found = found(content(&bytes[..first]));
        self.lost = (first < at).then_some((at, line));
        found
    }

    /// Returns whether the line at `at` begins an object in the column in which the one at `start` begins; `None` if that
    /// depends on what follows the window.
    fn reads_as_object(&self, at: usize, start: usize) -> Option<bool> {
        let (bytes, at_end) = (self.input.bytes(), self.input.at_end());
        let rest = &bytes[at..];
        let indent = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if rest.len() == indent && !at_end {
            return None;
        }
        if rest.get(indent) != Some(&b'{') || (!self.in_line && indent != start) {
            return Some(false);
        }
        let rest = &rest[indent..];
        match end_of_value(rest) {
            End::At(len) => Some(valid(&rest[..len]).is_ok()),
            End::Open if at_end || breaks(rest) >= self.most_lines => Some(false),
            End::Open => None,
        }
    }

    /// Returns the size of a broken record on a line with several, up to the next object that begins with the same key.
    fn resume_in_line(&self, start: usize) -> Option<usize> {
        let bytes = self.input.bytes();
        let line = bytes[start..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| start + at);
        let key = self.first_key.as_deref()?;
        let mut at = start + 1;
        while let Some(found) = bytes[at..line].iter().position(|byte| *byte == b'{') {
            at += found;
            if let End::At(len) = end_of_value(&bytes[at..line])
                && valid(&bytes[at..at + len]).is_ok()
                && let Ok(text) = std::str::from_utf8(&bytes[at..at + len])
                && members(text).is_ok_and(|members| members.first().is_some_and(|(first, _)| first == key))
            {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// Returns the next line before `end` that belongs to no record.
    fn next_lost(&mut self, end: usize, broken: u64) -> Option<Found> {
        loop {
            let (end, _) = self.lost.unwrap_or((end, broken));
            if end == 0 {
                return None;
            }
            let bytes = &self.input.bytes()[..end];
            let next = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            let len = content(&bytes[..next]);
            if bytes[..len].trim_ascii().is_empty() {
                self.pass(next);
                continue;
            }
            let found = Found::new(self.line, &bytes[..len], Kind::Lost(broken));
            self.done = found.next;
            return Some(found);
        }
    }
}

/// Returns the reason why bytes are not one JSON object, perhaps with a comma after it.
fn valid(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let byte = bytes[error.valid_up_to()];
        format!("not UTF-8 (byte 0x{byte:02X})")
    })?;
    validate(text).or_else(|error| match text.trim_ascii_end().strip_suffix(',') {
        Some(text) => validate(text).map_err(|_| error),
        None => Err(error),
    })
}

/// Returns the size of bytes without a line ending.
fn content(bytes: &[u8]) -> usize {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes).len()
}

fn breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Returns the size of a value in an array that is not an object.
fn scalar(bytes: &[u8]) -> usize {
    match (bytes.first(), end_of_value(bytes)) {
        (Some(b'[' | b'"'), End::At(len)) => len,
        (Some(b'[' | b'"'), End::Open) => content(bytes),
        _ => {
            let end = |byte: &u8| matches!(byte, b',' | b']' | b'\n' | b'\r');
            bytes.iter().position(end).unwrap_or(bytes.len()).max(1)
        }
    }
}

/// Returns the end of the value at the start of `bytes`, by its brackets and quotes.
fn end_of_value(bytes: &[u8]) -> End {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                loop {
                    match bytes.get(at) {
                        None => return End::Open,
                        Some(b'"') => break,
                        Some(b'\\') => at += 2,
                        Some(_) => at += 1,
                    }
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' | b'\n' if depth == 0 => return End::At(at),
            _ if depth == 0 => {
                at += 1;
                continue;
            }
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return End::At(at);
        }
    }
    End::Open
}
