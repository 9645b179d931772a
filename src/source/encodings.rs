//! Transcoding to UTF-8. Bytes that are invalid in their encoding become the byte 0xFF, which is invalid in UTF-8, so that
//! the row with them is rejected instead of loaded with a replacement character.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{Error, ErrorKind, Read, Result};

use encoding_rs::{Decoder, DecoderResult};

use super::code_pages;
use crate::spec::Encoding;

/// The size of the buffers in bytes.
const BUFFER: usize = 64 * 1024;

/// The marker for invalid bytes.
const INVALID: u8 = 0xFF;

/// The bytes that Windows-1252 does not define, and other code pages use for letters.
const UNDEFINED: [u8; 5] = [0x81, 0x8D, 0x8F, 0x90, 0x9D];

/// A reader that transcodes to UTF-8.
pub(super) struct Transcoder<R> {
    reader: R,
    coding: Coding,
    raw: Vec<u8>,
    raw_at: usize,
    text: Vec<u8>,
    text_at: usize,
    at_end: bool,
    /// Whether all text is decoded.
    done: bool,
    evidence: Option<Evidence>,
}

enum Coding {
    Standard(Box<Decoder>),
    Page(Box<[char; 256]>),
}

/// Evidence that a file with one byte per character is UTF-8 or uses another code page.
#[derive(Default)]
struct Evidence {
    windows_1252: bool,
    lines: u64,
    /// The end of a chunk that may be the beginning of a character in UTF-8.
    open: Vec<u8>,
    characters: u64,
    not_utf8: bool,
}

/// The text of a file contradicts the declared encoding.
#[derive(Debug)]
pub(super) struct WrongEncoding {
    /// The contradiction, as a phrase.
    pub(super) what: String,
    /// The label of the encoding that it looks like.
    pub(super) label: &'static str,
}

impl fmt::Display for WrongEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for WrongEncoding {}

impl<R: Read> Transcoder<R> {
    /// Returns a reader that transcodes the rest of `reader`, without a byte order mark.
    pub(super) fn new(reader: R, encoding: Encoding) -> Self {
        let (coding, evidence) = match encoding {
            Encoding::Standard(standard) => {
                let evidence = standard.is_single_byte().then(|| Evidence {
                    windows_1252: standard == encoding_rs::WINDOWS_1252,
                    lines: 1,
                    ..Evidence::default()
                });
                (Coding::Standard(Box::new(standard.new_decoder_without_bom_handling())), evidence)
            }
            Encoding::Page(page) => (Coding::Page(Box::new(code_pages::characters(page))), None),
        };
        let (raw, text) = (Vec::with_capacity(BUFFER), Vec::with_capacity(BUFFER));
        Self { reader, coding, raw, raw_at: 0, text, text_at: 0, at_end: false, done: false, evidence }
    }

    /// Reads and decodes the next bytes.
    fn fill(&mut self) -> Result<()> {
        self.text.clear();
        self.text_at = 0;
        if self.raw_at == self.raw.len() {
            self.raw.resize(BUFFER, 0);
            let read = self.reader.read(&mut self.raw)?;
            self.raw.truncate(read);
            self.raw_at = 0;
            self.at_end = read == 0;
            if let Some(evidence) = &mut self.evidence {
                let check = if self.at_end { evidence.finish() } else { evidence.add(&self.raw) };
                check.map_err(|wrong| Error::new(ErrorKind::InvalidData, wrong))?;
            }
        }
        let raw = &self.raw[self.raw_at..];
        match &mut self.coding {
            Coding::Page(characters) => {
                for byte in raw {
                    let mut bytes = [0; 4];
                    self.text.extend_from_slice(characters[usize::from(*byte)].encode_utf8(&mut bytes).as_bytes());
                }
                self.raw_at = self.raw.len();
                self.done = self.at_end;
            }
            Coding::Standard(decoder) => {
                self.text.resize(BUFFER, 0);
                let (result, read, written) =
                    decoder.decode_to_utf8_without_replacement(raw, &mut self.text, self.at_end);
                self.text.truncate(written);
                self.raw_at += read;
                match result {
                    DecoderResult::Malformed(..) => self.text.push(INVALID),
                    DecoderResult::InputEmpty => self.done = self.at_end,
                    DecoderResult::OutputFull => {}
                }
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.text_at == self.text.len() {
            if self.done {
                return Ok(0);
            }
            self.fill()?;
        }
        let count = buffer.len().min(self.text.len() - self.text_at);
        buffer[..count].copy_from_slice(&self.text[self.text_at..self.text_at + count]);
        self.text_at += count;
        Ok(count)
    }
}

impl Evidence {
    fn add(&mut self, raw: &[u8]) -> std::result::Result<(), WrongEncoding> {
        if raw.is_ascii() && self.open.is_empty() {
            self.lines += raw.iter().filter(|byte| **byte == b'\n').count() as u64;
            return Ok(());
        }
        if self.windows_1252
            && let Some(at) = raw.iter().position(|byte| UNDEFINED.contains(byte))
        {
            let line = self.lines + raw[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
            let what = format!("line {line} has the byte 0x{:02X}, which Windows-1252 does not define", raw[at]);
            let label = if self.is_utf8(raw) { "utf-8" } else { guess(raw) };
            return Err(WrongEncoding { what, label });
        }
        self.lines += raw.iter().filter(|byte| **byte == b'\n').count() as u64;
        if !self.not_utf8 {
            self.not_utf8 = !self.is_utf8(raw);
        }
        Ok(())
    }

    /// Returns whether the file can be UTF-8 up to the end of `raw`.
    fn is_utf8(&mut self, raw: &[u8]) -> bool {
        if self.not_utf8 {
            return false;
        }
        let mut bytes = std::mem::take(&mut self.open);
        bytes.extend_from_slice(raw);
        let whole = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return false,
        };
        self.characters += bytes[..whole].iter().filter(|byte| **byte >= 0xC0).count() as u64;
        self.open = bytes.split_off(whole);
        true
    }

    fn finish(&mut self) -> std::result::Result<(), WrongEncoding> {
        if self.not_utf8 || !self.open.is_empty() || self.characters == 0 {
            return Ok(());
        }
        let what = format!("all of its {} characters beyond ASCII are valid UTF-8", self.characters);
        Err(WrongEncoding { what, label: "utf-8" })
    }
}

/// Encodes texts.
pub(super) struct Encoder {
    encoding: Encoding,
    /// By character, its byte in a code page.
    bytes: HashMap<char, u8>,
}

impl Encoder {
    pub(super) fn new(encoding: Encoding) -> Self {
        let bytes = match encoding {
            Encoding::Page(page) => {
                let characters = code_pages::characters(page);
                // The first byte of two with one character.
                (0..=255_u8).rev().map(|byte| (characters[usize::from(byte)], byte)).collect()
            }
            Encoding::Standard(_) => HashMap::new(),
        };
        Self { encoding, bytes }
    }

    /// Returns a text in the encoding. A character that it lacks becomes a reference such as `&#8364;`.
    pub(super) fn encode<'t>(&self, text: &'t str) -> Cow<'t, [u8]> {
        match self.encoding {
            Encoding::Standard(standard) if standard == encoding_rs::UTF_16LE => {
                text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().into()
            }
            Encoding::Standard(standard) if standard == encoding_rs::UTF_16BE => {
                text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>().into()
            }
            Encoding::Standard(standard) => standard.encode(text).0,
            Encoding::Page(_) => {
                let mut encoded = Vec::with_capacity(text.len());
                for character in text.chars() {
                    match self.bytes.get(&character) {
                        Some(byte) => encoded.push(*byte),
                        None => encoded.extend(
                            format!("&#{};", u32::from(character)).chars().filter_map(|char| self.bytes.get(&char)),
                        ),
                    }
                }
                encoded.into()
            }
        }
    }
}

/// The encodings that [`guess`] considers; among equals, the first.
const COMMON: [&str; 6] = ["windows-1252", "windows-1250", "windows-1251", "cp850", "cp852", "cp437"];

/// Returns the label of the encoding in which bytes that are not UTF-8 read best: letters beside letters are signs of the
/// right one, and symbols between letters of a wrong one.
pub(super) fn guess(bytes: &[u8]) -> &'static str {
    let bytes = &bytes[..bytes.len().min(BUFFER)];
    let mut best = (i64::MIN, COMMON[0]);
    for label in COMMON {
        let score = Encoding::of_label(label).map_or(i64::MIN, |encoding| score(&decode(bytes, encoding)));
        if score > best.0 {
            best = (score, label);
        }
    }
    best.1
}

fn decode(bytes: &[u8], encoding: Encoding) -> Vec<char> {
    match encoding {
        Encoding::Standard(standard) => standard.decode_without_bom_handling(bytes).0.chars().collect(),
        Encoding::Page(page) => {
            let characters = code_pages::characters(page);
            bytes.iter().map(|byte| characters[usize::from(*byte)]).collect()
        }
    }
}

fn score(text: &[char]) -> i64 {
    let mut score = 0;
    for (at, character) in text.iter().enumerate().filter(|(_, character)| !character.is_ascii()) {
        let before = at.checked_sub(1).map_or(' ', |before| text[before]);
        let after = text.get(at + 1).copied().unwrap_or(' ');
        let is_other = |char: char| char.is_alphabetic() && !char.is_ascii();
        let beside = before.is_alphabetic() || after.is_alphabetic();
        score += match *character {
            char::REPLACEMENT_CHARACTER | '\u{80}'..='\u{9F}' => -8,
            // A capital within a word, unless the word is in capitals.
            letter if letter.is_uppercase() && before.is_lowercase() => -3,
            letter if letter.is_lowercase() && before.is_uppercase() && after.is_uppercase() => -1,
            // Letters of scripts are rarely single among Latin letters.
            'Ѐ'..='ӿ' if before.is_ascii_alphabetic() || after.is_ascii_alphabetic() => -3,
            // No word of a Latin script consists of accented letters.
            letter if letter < '\u{250}' && is_other(before) && is_other(after) && letter.is_alphabetic() => -2,
            letter if letter.is_alphabetic() && !matches!(letter, 'ª' | 'º' | 'µ') => 2,
            '\u{A0}' | '€' | '–' | '—' | '„' | '“' | '”' | '’' | '‘' | '§' | '°'
                if !(before.is_alphabetic() && after.is_alphabetic()) =>
            {
                1
            }
            _ if beside => -4,
            _ => -1,
        };
    }
    score
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcoded(bytes: &[u8], label: &str) -> std::result::Result<Vec<u8>, String> {
        let mut text = Vec::new();
        let mut reader = Transcoder::new(bytes, Encoding::of_label(label).unwrap());
        reader.read_to_end(&mut text).map(|_| text).map_err(|error| error.to_string())
    }

    #[test]
    fn text_becomes_utf_8_and_invalid_bytes_stay_invalid() {
        let cases: [(&[u8], &str, &[u8]); 8] = [
            (b"Gr\xF6\xDFe \x80", "latin-1", "Größe €".as_bytes()),
            (b"\xA3\xF3d\x9F", "windows-1250", "Łódź".as_bytes()),
            (b"\x9D\xA2d\xAB", "cp852", "Łódź".as_bytes()),
            (b"G\0r\0\xF6\0", "utf-16le", "Grö".as_bytes()),
            (b"\0G\0r\0\xF6", "utf-16be", "Grö".as_bytes()),
            (b"\x93\xFA", "shift_jis", "日".as_bytes()),
            (b"a\x81\n", "shift_jis", b"a\xFF\n"),
            (b"\xC1\x6B\xC0\x15\xF1", "ibm1141", "A,ä\n1".as_bytes()),
        ];
        for (bytes, label, text) in cases {
            assert_eq!(transcoded(bytes, label).unwrap(), text, "{label}");
        }
    }

    #[test]
    fn long_texts_are_transcoded_to_their_end() {
        let text = "äöüß,".repeat(200_000);
        let bytes: Vec<u8> = text.chars().map(|character| character as u8).collect();
        assert_eq!(transcoded(&bytes, "latin-1").unwrap(), text.as_bytes());
        assert_eq!(transcoded(b"", "latin-1").unwrap(), b"");
    }

    #[test]
    fn a_file_that_contradicts_latin_1_is_refused() {
        let error = transcoded(b"a\nSKA\x8FA\n", "latin-1").unwrap_err();
        assert_eq!(error, "line 2 has the byte 0x8F, which Windows-1252 does not define");
        let error = transcoded("Größe\n".as_bytes(), "windows-1250").unwrap_err();
        assert_eq!(error, "all of its 2 characters beyond ASCII are valid UTF-8");
        assert!(transcoded("Größe\n".as_bytes(), "utf-8").is_ok());
    }

    #[test]
    fn the_encoding_that_reads_best_is_suggested() {
        for (text, label) in [
            ("Müller Größe Straße Café", "windows-1252"),
            ("Łódź, Kraków, święto, żółć, Wałęsa", "windows-1250"),
            ("Łódź, Kraków, święto, żółć, Wałęsa", "cp852"),
            ("Müller Größe Straße ÄRZTE", "cp850"),
            ("Москва и Санкт-Петербург", "windows-1251"),
        ] {
            let encoding = Encoding::of_label(label).unwrap();
            let all: Vec<u8> = (0..=255).collect();
            let characters = decode(&all, encoding);
            let byte = |character| characters.iter().position(|other| *other == character).unwrap() as u8;
            let bytes: Vec<u8> = text.chars().map(byte).collect();
            assert_eq!(guess(&bytes), label, "{text}");
        }
    }
}
