//! Texts of fixed-width records, decoded field by field, because a record also has bytes that are not text.

use encoding_rs::DecoderResult;

use super::super::code_pages;
use crate::spec::Encoding;

/// The bytes that Windows-1252 does not define.
const UNDEFINED: [u8; 5] = [0x81, 0x8D, 0x8F, 0x90, 0x9D];

/// A decoder of the texts of a file.
#[derive(Debug)]
pub(super) enum Decoder {
    Utf8,
    /// An encoding with one byte per character.
    Table(Box<Table>),
    /// An encoding with several bytes per character.
    Wide(&'static encoding_rs::Encoding),
}

/// The characters of an encoding by byte.
#[derive(Debug)]
pub(super) struct Table {
    /// The character if it is ASCII, else 0xFF.
    ascii: [u8; 256],
    /// `None` if the byte is invalid.
    characters: [Option<char>; 256],
    /// Whether ASCII bytes stand for themselves.
    keeps_ascii: bool,
}

/// The bytes of a field are not text in the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undecodable;

impl Decoder {
    pub(super) fn new(encoding: Encoding) -> Self {
        let characters = match encoding {
            Encoding::Standard(standard) if standard == encoding_rs::UTF_8 => return Self::Utf8,
            Encoding::Standard(standard) if !standard.is_single_byte() => return Self::Wide(standard),
            Encoding::Standard(standard) => std::array::from_fn(|byte| {
                let byte = byte as u8;
                let is_defined = standard != encoding_rs::WINDOWS_1252 || !UNDEFINED.contains(&byte);
                let text = standard.decode_without_bom_handling_and_without_replacement(&[byte]).map(String::from);
                text.and_then(|text| text.chars().next()).filter(|_| is_defined)
            }),
            Encoding::Page(page) => code_pages::characters(page).map(Some),
        };
        let ascii = characters.map(|found| match found {
            Some(character) if character.is_ascii() => character as u8,
            _ => 0xFF,
        });
        let keeps_ascii = (0..0x80_u8).all(|byte| ascii[usize::from(byte)] == byte);
        Self::Table(Box::new(Table { ascii, characters, keeps_ascii }))
    }

    /// Appends the text of a field to UTF-8.
    pub(super) fn decode(&self, bytes: &[u8], text: &mut Vec<u8>) -> Result<(), Undecodable> {
        match self {
            Self::Utf8 => {
                if !bytes.is_ascii() && std::str::from_utf8(bytes).is_err() {
                    return Err(Undecodable);
                }
                text.extend_from_slice(bytes);
                Ok(())
            }
            Self::Table(table) => table.decode(bytes, text),
            Self::Wide(encoding) => {
                let mut decoder = encoding.new_decoder_without_bom_handling();
                let start = text.len();
                let room = decoder.max_utf8_buffer_length_without_replacement(bytes.len()).unwrap_or(bytes.len() * 4);
                text.resize(start + room, 0);
                let (result, _, written) = decoder.decode_to_utf8_without_replacement(bytes, &mut text[start..], true);
                text.truncate(start + written);
                if result == DecoderResult::InputEmpty { Ok(()) } else { Err(Undecodable) }
            }
        }
    }
}

impl Table {
    fn decode(&self, bytes: &[u8], text: &mut Vec<u8>) -> Result<(), Undecodable> {
        if self.keeps_ascii && bytes.is_ascii() {
            text.extend_from_slice(bytes);
            return Ok(());
        }
        let start = text.len();
        let mut all = 0;
        text.extend(bytes.iter().map(|byte| {
            let character = self.ascii[usize::from(*byte)];
            all |= character;
            character
        }));
        if all < 0x80 {
            return Ok(());
        }
        text.truncate(start);
        for byte in bytes {
            let character = self.characters[usize::from(*byte)].ok_or(Undecodable)?;
            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(label: &str, bytes: &[u8]) -> Option<String> {
        let mut text = Vec::new();
        let decoder = Decoder::new(Encoding::of_label(label).unwrap());
        decoder.decode(bytes, &mut text).ok().map(|()| String::from_utf8(text).unwrap())
    }

    #[test]
    fn texts_are_decoded_in_every_kind_of_encoding() {
        for (label, bytes, text) in [
            ("utf-8", "Müller".as_bytes(), "Müller"),
            ("latin-1", b"M\xFCller \x80", "Müller €"),
            ("windows-1250", b"\x8Alutka", "Šlutka"),
            ("cp850", b"M\x81ller", "Müller"),
            ("ibm037", b"\xC1\x82\xF1\x40\xDC", "Ab1 ü"),
            ("ibm1141", b"\xD4\xD0\x93\x93\x85\x99\x9F", "Müller€"),
            ("shift_jis", b"\x93\xFA\x96\x7B A", "日本 A"),
        ] {
            assert_eq!(decode(label, bytes).as_deref(), Some(text), "{label}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        for (label, bytes) in
            [("utf-8", &b"a\xE9"[..]), ("latin-1", b"a\x81"), ("shift_jis", b"\x93"), ("windows-1253", b"\xAA")]
        {
            assert_eq!(decode(label, bytes), None, "{label}");
        }
    }
}
