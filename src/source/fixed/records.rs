//! The records of a fixed-width file: where each begins and ends, in blocks of whole records.
//!
//! A file whose descriptor words are damaged cannot be read to its end, because the words say where the next record
//! begins. It is refused as a whole, so that no record behind the damage is lost unseen. A file that ends within a record
//! is truncated, and only this record is rejected:
//!
//! ```text
//! 00 1E 00 00 [26 bytes]  00 1E 00 00 [26 bytes]  00 1E 00 00 [9 bytes]  ◄─ truncated
//! ```

use super::super::SourceFile;
use super::super::decoder::Input;
use crate::error::{Error, Result};
use crate::spec::RecordFormat;

/// The size of a descriptor word in bytes.
const WORD: usize = 4;

/// How records are separated, with what it needs of the layout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framing {
    pub(super) format: RecordFormat,
    /// The length of a record in bytes, for [`RecordFormat::Length`].
    pub(super) length: usize,
    pub(super) ebcdic: bool,
}

/// A record in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) start: usize,
    pub(super) len: usize,
    /// The line, or the number of the record, from 1.
    pub(super) number: u64,
    /// The length that the record should have, if the file ends before.
    pub(super) truncated: Option<usize>,
}

/// The records of a file, in order.
pub(super) struct Records {
    file: SourceFile,
    input: Input,
    framing: Framing,
    /// The number of the next record or line.
    number: u64,
    /// The number of bytes before the window.
    before: u64,
    /// The rest of the current block of [`RecordFormat::Bdw`] in bytes.
    block: usize,
}

/// Whole records, to be read by any thread.
pub(super) struct Block {
    input: Input,
    pub(super) frames: Vec<Frame>,
    /// The number of empty lines.
    pub(super) empty: u64,
}

impl Block {
    pub(super) fn record(&self, frame: &Frame) -> &[u8] {
        &self.input.bytes()[frame.start..frame.start + frame.len]
    }
}

impl Records {
    pub(super) fn open(file: &SourceFile, framing: Framing, mark: bool) -> Result<Self> {
        let mut input = Input::raw(file)?;
        if input.bytes().is_empty() && input.at_end() {
            return Err(file.empty(false));
        }
        let mut before = 0;
        if mark && input.bytes().starts_with(b"\xEF\xBB\xBF") {
            input.consume(3);
            before = 3;
        }
        Ok(Self { file: file.clone(), input, framing, number: 1, before, block: 0 })
    }

    /// Splits off the whole records of the window.
    pub(super) fn take(&mut self) -> Result<Option<Block>> {
        loop {
            let (bytes, at_end) = (self.input.bytes(), self.input.at_end());
            if bytes.is_empty() && at_end {
                return Ok(None);
            }
            let mut scan =
                Scan { bytes, at_end, frames: Vec::new(), number: self.number, at: 0, block: self.block, empty: 0 };
            let fault = match self.framing.format {
                RecordFormat::Lines => {
                    scan.lines(self.framing.ebcdic);
                    None
                }
                RecordFormat::Length => {
                    scan.equal(self.framing.length);
                    None
                }
                RecordFormat::Rdw => scan.described(false),
                RecordFormat::Bdw => scan.described(true),
            };
            let Scan { frames, number, at, block, empty, .. } = scan;
            if frames.is_empty() && empty == 0 {
                if let Some(Fault { at, reason }) = fault {
                    return Err(self.damaged(at, &reason));
                }
                if at_end {
                    return Err(Error::internal(format!("no record at the end of `{}`", self.file.name)));
                }
                self.input.grow(self.number)?;
                continue;
            }
            (self.number, self.block) = (number, block);
            self.before += at as u64;
            return Ok(Some(Block { input: self.input.take(at), frames, empty }));
        }
    }

    fn damaged(&self, at: usize, reason: &str) -> Error {
        let byte = self.before + at as u64 + 1;
        let Self { file, number, .. } = self;
        Error::input(format!("`{}`: record {number} cannot be read, nor those behind it: {reason} at byte {byte}", file.name))
            .hint("check `fixed.records`, and transfer the file again in binary mode with its descriptor words; nothing was loaded")
    }
}

/// A damaged descriptor word.
struct Fault {
    at: usize,
    reason: String,
}

/// A pass over the records in a window.
struct Scan<'a> {
    bytes: &'a [u8],
    at_end: bool,
    frames: Vec<Frame>,
    number: u64,
    /// The end of the last whole record.
    at: usize,
    block: usize,
    empty: u64,
}

impl Scan<'_> {
    fn add(&mut self, start: usize, len: usize, truncated: Option<usize>) {
        self.frames.push(Frame { start, len, number: self.number, truncated });
        self.number += 1;
    }

    fn lines(&mut self, ebcdic: bool) {
        let is_end = |byte: &u8| if ebcdic { matches!(byte, 0x15 | 0x25) } else { *byte == b'\n' };
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            let (len, next) = match rest.iter().position(is_end) {
                Some(len) => (len, len + 1),
                None if self.at_end => (rest.len(), rest.len()),
                None => return,
            };
            // A carriage return is the same byte in ASCII and EBCDIC.
            let len = if next > len && rest[..len].last() == Some(&b'\r') { len - 1 } else { len };
            match len {
                0 => {
                    self.empty += 1;
                    self.number += 1;
                }
                len => self.add(self.at, len, None),
            }
            self.at += next;
        }
    }

    fn equal(&mut self, length: usize) {
        let whole = self.bytes.len() / length;
        self.frames.reserve(whole + 1);
        for _ in 0..whole {
            self.add(self.at, length, None);
            self.at += length;
        }
        if self.at_end && self.at < self.bytes.len() {
            self.add(self.at, self.bytes.len() - self.at, Some(length));
            self.at = self.bytes.len();
        }
    }

    /// Reads records with descriptor words, up to the first damaged one.
    fn described(&mut self, blocked: bool) -> Option<Fault> {
        let (mut at, mut block) = (self.at, self.block);
        while at < self.bytes.len() {
            if blocked && block == 0 {
                match block_word(&self.bytes[at..]) {
                    Word::Length(length) => {
                        block = length - WORD;
                        at += WORD;
                        continue;
                    }
                    Word::Cut => return self.cut(at, WORD),
                    Word::Damaged(reason) => return Some(Fault { at, reason }),
                }
            }
            let length = match record_word(&self.bytes[at..]) {
                Word::Length(length) => length,
                Word::Cut => return self.cut(at, WORD),
                Word::Damaged(reason) => return Some(Fault { at, reason }),
            };
            if blocked && length > block {
                let reason = format!("a record of {length} bytes in a block with {block} bytes left");
                return Some(Fault { at, reason });
            }
            if at + length > self.bytes.len() {
                if self.at_end && reads_as_records(&self.bytes[at + WORD..]) {
                    let left = self.bytes.len() - at;
                    let reason = format!("a length of {length} bytes with {left} bytes left, which contain records");
                    return Some(Fault { at, reason });
                }
                return self.cut(at, length);
            }
            self.add(at + WORD, length - WORD, None);
            at += length;
            block = block.saturating_sub(length);
            (self.at, self.block) = (at, block);
        }
        if block > 0 { self.cut(at, block) } else { None }
    }

    /// Adds the record that the end of the file truncates.
    fn cut(&mut self, at: usize, length: usize) -> Option<Fault> {
        if self.at_end {
            let left = self.bytes.len() - at;
            let word = if left >= WORD && length > WORD { WORD } else { 0 };
            self.add(at + word, left - word, Some(length - word));
            self.at = self.bytes.len();
        }
        None
    }
}

/// The meaning of a descriptor word.
enum Word {
    /// The length in bytes, with the word.
    Length(usize),
    /// The bytes end before the word does.
    Cut,
    /// A reason, as a phrase.
    Damaged(String),
}

fn record_word(bytes: &[u8]) -> Word {
    let Some([high, low, segment, zero]) = bytes.first_chunk::<WORD>().copied() else { return Word::Cut };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let shown = format!("{high:02X}{low:02X}{segment:02X}{zero:02X}");
    match (segment, zero) {
        (0, 0) if length >= WORD => Word::Length(length),
        (1..=3, 0) if length >= WORD => Word::Damaged(format!("a segment of a spanned record ({shown})")),
        _ => Word::Damaged(format!("an invalid record descriptor word ({shown})")),
    }
}

fn block_word(bytes: &[u8]) -> Word {
    let Some(word) = bytes.first_chunk::<WORD>().copied() else { return Word::Cut };
    let length = match word {
        // The highest bit marks blocks with a length of 31 bits.
        [0x80..=0xFF, ..] => (u32::from_be_bytes(word) & 0x7FFF_FFFF) as usize,
        [high, low, 0, 0] => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    match length {
        0..=7 => {
            let shown: String = word.iter().map(|byte| format!("{byte:02X}")).collect();
            Word::Damaged(format!("an invalid block descriptor word ({shown})"))
        }
        length => Word::Length(length),
    }
}

/// Returns whether records with descriptor words are in the last bytes of a file, and end with it. If so, a record that
/// seems to reach beyond the end has a damaged length.
fn reads_as_records(bytes: &[u8]) -> bool {
    // The size of a record is at most 64 KiB, and so is the part of the file behind the last word.
    let mut reads = vec![false; bytes.len() + 1];
    reads[bytes.len()] = true;
    let mut found = false;
    for at in (0..bytes.len().saturating_sub(WORD)).rev() {
        if let Word::Length(length) = record_word(&bytes[at..])
            && length > WORD
            && at + length <= bytes.len()
        {
            reads[at] = reads[at + length];
            found |= reads[at];
        }
    }
    found
}
