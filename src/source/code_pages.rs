//! Code pages of DOS and of mainframes, with one byte per character.
//!
//! The EBCDIC code pages have the characters of ISO 8859-1 and differ in few places, so all but one are written as their
//! differences from code page 37.
use crate::spec::CodePage;

/// Code page 37 as code points of ISO 8859-1.
const EBCDIC_37: [u8; 256] = [
    0x00, 0x01, 0x02, 0x03, 0x9C, 0x09, 0x86, 0x7F, 0x97, 0x8D, 0x8E, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x11, 0x12,
    0x13, 0x9D, 0x85, 0x08, 0x87, 0x18, 0x19, 0x92, 0x8F, 0x1C, 0x1D, 0x1E, 0x1F, 0x80, 0x81, 0x82, 0x83, 0x84, 0x0A,
    0x17, 0x1B, 0x88, 0x89, 0x8A, 0x8B, 0x8C, 0x05, 0x06, 0x07, 0x90, 0x91, 0x16, 0x93, 0x94, 0x95, 0x96, 0x04, 0x98,
    0x99, 0x9A, 0x9B, 0x14, 0x15, 0x9E, 0x1A, 0x20, 0xA0, 0xE2, 0xE4, 0xE0, 0xE1, 0xE3, 0xE5, 0xE7, 0xF1, 0xA2, 0x2E,
    0x3C, 0x28, 0x2B, 0x7C, 0x26, 0xE9, 0xEA, 0xEB, 0xE8, 0xED, 0xEE, 0xEF, 0xEC, 0xDF, 0x21, 0x24, 0x2A, 0x29, 0x3B,
    0xAC, 0x2D, 0x2F, 0xC2, 0xC4, 0xC0, 0xC1, 0xC3, 0xC5, 0xC7, 0xD1, 0xA6, 0x2C, 0x25, 0x5F, 0x3E, 0x3F, 0xF8, 0xC9,
    0xCA, 0xCB, 0xC8, 0xCD, 0xCE, 0xCF, 0xCC, 0x60, 0x3A, 0x23, 0x40, 0x27, 0x3D, 0x22, 0xD8, 0x61, 0x62, 0x63, 0x64,
    0x65, 0x66, 0x67, 0x68, 0x69, 0xAB, 0xBB, 0xF0, 0xFD, 0xFE, 0xB1, 0xB0, 0x6A, 0x6B, 0x6C, 0x6D, 0x6E, 0x6F, 0x70,
    0x71, 0x72, 0xAA, 0xBA, 0xE6, 0xB8, 0xC6, 0xA4, 0xB5, 0x7E, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0xA1,
    0xBF, 0xD0, 0xDD, 0xDE, 0xAE, 0x5E, 0xA3, 0xA5, 0xB7, 0xA9, 0xA7, 0xB6, 0xBC, 0xBD, 0xBE, 0x5B, 0x5D, 0xAF, 0xA8,
    0xB4, 0xD7, 0x7B, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0xAD, 0xF4, 0xF6, 0xF2, 0xF3, 0xF5, 0x7D,
    0x4A, 0x4B, 0x4C, 0x4D, 0x4E, 0x4F, 0x50, 0x51, 0x52, 0xB9, 0xFB, 0xFC, 0xF9, 0xFA, 0xFF, 0x5C, 0xF7, 0x53, 0x54,
    0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0xB2, 0xD4, 0xD6, 0xD2, 0xD3, 0xD5, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36,
    0x37, 0x38, 0x39, 0xB3, 0xDB, 0xDC, 0xD9, 0xDA, 0x9F,
];

/// By code page, the bytes that differ from code page 37.
const EBCDIC: [(u16, &[(u8, char)]); 19] = [
    (
        273,
        &[
            (0x43, '{'),
            (0x4A, 'Ä'),
            (0x4F, '!'),
            (0x59, '~'),
            (0x5A, 'Ü'),
            (0x5F, '^'),
            (0x63, '['),
            (0x6A, 'ö'),
            (0x7C, '§'),
            (0xA1, 'ß'),
            (0xB0, '¢'),
            (0xB5, '@'),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xC0, 'ä'),
            (0xCC, '¦'),
            (0xD0, 'ü'),
            (0xDC, '}'),
            (0xE0, 'Ö'),
            (0xEC, '\\'),
            (0xFC, ']'),
        ],
    ),
    (
        277,
        &[
            (0x47, '}'),
            (0x4A, '#'),
            (0x4F, '!'),
            (0x5A, '¤'),
            (0x5B, 'Å'),
            (0x5F, '^'),
            (0x67, '$'),
            (0x6A, 'ø'),
            (0x70, '¦'),
            (0x7B, 'Æ'),
            (0x7C, 'Ø'),
            (0x80, '@'),
            (0x9C, '{'),
            (0x9E, '['),
            (0x9F, ']'),
            (0xA1, 'ü'),
            (0xB0, '¢'),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xC0, 'æ'),
            (0xD0, 'å'),
            (0xDC, '~'),
        ],
    ),
    (
        278,
        &[
            (0x43, '{'),
            (0x47, '}'),
            (0x4A, '§'),
            (0x4F, '!'),
            (0x51, '`'),
            (0x5A, '¤'),
            (0x5B, 'Å'),
            (0x5F, '^'),
            (0x63, '#'),
            (0x67, '$'),
            (0x6A, 'ö'),
            (0x71, '\\'),
            (0x79, 'é'),
            (0x7B, 'Ä'),
            (0x7C, 'Ö'),
            (0x9F, ']'),
            (0xA1, 'ü'),
            (0xB0, '¢'),
            (0xB5, '['),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xC0, 'ä'),
            (0xCC, '¦'),
            (0xD0, 'å'),
            (0xDC, '~'),
            (0xE0, 'É'),
            (0xEC, '@'),
        ],
    ),
    (
        280,
        &[
            (0x44, '{'),
            (0x48, '\\'),
            (0x4A, '°'),
            (0x4F, '!'),
            (0x51, ']'),
            (0x54, '}'),
            (0x58, '~'),
            (0x5A, 'é'),
            (0x5F, '^'),
            (0x6A, 'ò'),
            (0x79, 'ù'),
            (0x7B, '£'),
            (0x7C, '§'),
            (0x90, '['),
            (0xA1, 'ì'),
            (0xB0, '¢'),
            (0xB1, '#'),
            (0xB5, '@'),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xC0, 'à'),
            (0xCD, '¦'),
            (0xD0, 'è'),
            (0xDD, '`'),
            (0xE0, 'ç'),
        ],
    ),
    (
        284,
        &[
            (0x49, '¦'),
            (0x4A, '['),
            (0x5A, ']'),
            (0x69, '#'),
            (0x6A, 'ñ'),
            (0x7B, 'Ñ'),
            (0xA1, '¨'),
            (0xB0, '¢'),
            (0xBA, '^'),
            (0xBB, '!'),
            (0xBD, '~'),
        ],
    ),
    (285, &[(0x4A, '$'), (0x5B, '£'), (0xA1, '¯'), (0xB0, '¢'), (0xB1, '['), (0xBA, '^'), (0xBC, '~')]),
    (
        297,
        &[
            (0x44, '@'),
            (0x48, '\\'),
            (0x4A, '°'),
            (0x4F, '!'),
            (0x51, '{'),
            (0x54, '}'),
            (0x5A, '§'),
            (0x5F, '^'),
            (0x6A, 'ù'),
            (0x79, 'µ'),
            (0x7B, '£'),
            (0x7C, 'à'),
            (0x90, '['),
            (0xA0, '`'),
            (0xA1, '¨'),
            (0xB0, '¢'),
            (0xB1, '#'),
            (0xB5, ']'),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xBD, '~'),
            (0xC0, 'é'),
            (0xD0, 'è'),
            (0xDD, '¦'),
            (0xE0, 'ç'),
        ],
    ),
    (500, &[(0x4A, '['), (0x4F, '!'), (0x5A, ']'), (0x5F, '^'), (0xB0, '¢'), (0xBA, '¬'), (0xBB, '|')]),
    (1047, &[(0x5F, '^'), (0xAD, '['), (0xB0, '¬'), (0xBA, 'Ý'), (0xBB, '¨'), (0xBD, ']')]),
    (1140, &[(0x9F, '€')]),
    (
        1141,
        &[
            (0x43, '{'),
            (0x4A, 'Ä'),
            (0x4F, '!'),
            (0x59, '~'),
            (0x5A, 'Ü'),
            (0x5F, '^'),
            (0x63, '['),
            (0x6A, 'ö'),
            (0x7C, '§'),
            (0x9F, '€'),
            (0xA1, 'ß'),
            (0xB0, '¢'),
            (0xB5, '@'),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xC0, 'ä'),
            (0xCC, '¦'),
            (0xD0, 'ü'),
            (0xDC, '}'),
            (0xE0, 'Ö'),
            (0xEC, '\\'),
            (0xFC, ']'),
        ],
    ),
    (
        1142,
        &[
            (0x47, '}'),
            (0x4A, '#'),
            (0x4F, '!'),
            (0x5A, '€'),
            (0x5B, 'Å'),
            (0x5F, '^'),
            (0x67, '$'),
            (0x6A, 'ø'),
            (0x70, '¦'),
            (0x7B, 'Æ'),
            (0x7C, 'Ø'),
            (0x80, '@'),
            (0x9C, '{'),
            (0x9E, '['),
            (0x9F, ']'),
            (0xA1, 'ü'),
            (0xB0, '¢'),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xC0, 'æ'),
            (0xD0, 'å'),
            (0xDC, '~'),
        ],
    ),
    (
        1143,
        &[
            (0x43, '{'),
            (0x47, '}'),
            (0x4A, '§'),
            (0x4F, '!'),
            (0x51, '`'),
            (0x5A, '€'),
            (0x5B, 'Å'),
            (0x5F, '^'),
            (0x63, '#'),
            (0x67, '$'),
            (0x6A, 'ö'),
            (0x71, '\\'),
            (0x79, 'é'),
            (0x7B, 'Ä'),
            (0x7C, 'Ö'),
            (0x9F, ']'),
            (0xA1, 'ü'),
            (0xB0, '¢'),
            (0xB5, '['),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xC0, 'ä'),
            (0xCC, '¦'),
            (0xD0, 'å'),
            (0xDC, '~'),
            (0xE0, 'É'),
            (0xEC, '@'),
        ],
    ),
    (
        1144,
        &[
            (0x44, '{'),
            (0x48, '\\'),
            (0x4A, '°'),
            (0x4F, '!'),
            (0x51, ']'),
            (0x54, '}'),
            (0x58, '~'),
            (0x5A, 'é'),
            (0x5F, '^'),
            (0x6A, 'ò'),
            (0x79, 'ù'),
            (0x7B, '£'),
            (0x7C, '§'),
            (0x90, '['),
            (0x9F, '€'),
            (0xA1, 'ì'),
            (0xB0, '¢'),
            (0xB1, '#'),
            (0xB5, '@'),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xC0, 'à'),
            (0xCD, '¦'),
            (0xD0, 'è'),
            (0xDD, '`'),
            (0xE0, 'ç'),
        ],
    ),
    (
        1145,
        &[
            (0x49, '¦'),
            (0x4A, '['),
            (0x5A, ']'),
            (0x69, '#'),
            (0x6A, 'ñ'),
            (0x7B, 'Ñ'),
            (0x9F, '€'),
            (0xA1, '¨'),
            (0xB0, '¢'),
            (0xBA, '^'),
            (0xBB, '!'),
            (0xBD, '~'),
        ],
    ),
    (1146, &[(0x4A, '$'), (0x5B, '£'), (0x9F, '€'), (0xA1, '¯'), (0xB0, '¢'), (0xB1, '['), (0xBA, '^'), (0xBC, '~')]),
    (
        1147,
        &[
            (0x44, '@'),
            (0x48, '\\'),
            (0x4A, '°'),
            (0x4F, '!'),
            (0x51, '{'),
            (0x54, '}'),
            (0x5A, '§'),
            (0x5F, '^'),
            (0x6A, 'ù'),
            (0x79, 'µ'),
            (0x7B, '£'),
            (0x7C, 'à'),
            (0x90, '['),
            (0x9F, '€'),
            (0xA0, '`'),
            (0xA1, '¨'),
            (0xB0, '¢'),
            (0xB1, '#'),
            (0xB5, ']'),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xBD, '~'),
            (0xC0, 'é'),
            (0xD0, 'è'),
            (0xDD, '¦'),
            (0xE0, 'ç'),
        ],
    ),
    (1148, &[(0x4A, '['), (0x4F, '!'), (0x5A, ']'), (0x5F, '^'), (0x9F, '€'), (0xB0, '¢'), (0xBA, '¬'), (0xBB, '|')]),
    (
        1149,
        &[
            (0x4A, 'Þ'),
            (0x4F, '!'),
            (0x5A, 'Æ'),
            (0x5F, 'Ö'),
            (0x79, 'ð'),
            (0x7C, 'Ð'),
            (0x8C, '`'),
            (0x8E, '{'),
            (0x9C, '}'),
            (0x9E, ']'),
            (0x9F, '€'),
            (0xA1, 'ö'),
            (0xAC, '@'),
            (0xAE, '['),
            (0xB0, '¢'),
            (0xBA, '¬'),
            (0xBB, '|'),
            (0xBE, '\\'),
            (0xC0, 'þ'),
            (0xCC, '~'),
            (0xD0, 'æ'),
            (0xE0, '´'),
            (0xEC, '^'),
        ],
    ),
];

/// By code page, the characters from 0x80.
const DOS: [(u16, &str); 4] = [
    (
        437,
        "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
         └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{A0}",
    ),
    (
        850,
        "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐\
         └┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{AD}±‗¾¶§÷¸°¨·¹³²■\u{A0}",
    ),
    (
        852,
        "ÇüéâäůćçłëŐőîŹÄĆÉĹĺôöĽľŚśÖÜŤťŁ×čáíóúĄąŽžĘę¬źČş«»░▒▓│┤ÁÂĚŞ╣║╗╝Żż┐\
         └┴┬├─┼Ăă╚╔╩╦╠═╬¤đĐĎËďŇÍÎě┘┌█▄ŢŮ▀ÓßÔŃńňŠšŔÚŕŰýÝţ´\u{AD}˝˛ˇ˘§÷¸°¨˙űŘř■\u{A0}",
    ),
    (
        858,
        "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐\
         └┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈ€ÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{AD}±‗¾¶§÷¸°¨·¹³²■\u{A0}",
    ),
];

/// Returns the characters of a code page by byte. In EBCDIC, the byte 0x15 ends lines, as the byte 0x25 does.
pub(super) fn characters(page: CodePage) -> [char; 256] {
    let mut characters = [char::REPLACEMENT_CHARACTER; 256];
    if page.ebcdic {
        let differences = EBCDIC.iter().find(|(number, _)| *number == page.number).map_or(&[][..], |(_, found)| found);
        characters = EBCDIC_37.map(char::from);
        for (byte, character) in differences {
            characters[usize::from(*byte)] = *character;
        }
        characters[0x15] = '\n';
        return characters;
    }
    let upper = DOS.iter().find(|(number, _)| *number == page.number).map_or("", |(_, upper)| upper);
    for (character, found) in characters.iter_mut().zip((0..0x80_u8).map(char::from).chain(upper.chars())) {
        *character = found;
    }
    characters
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::spec::Encoding;

    #[test]
    fn a_code_page_has_256_characters() {
        for page in Encoding::code_pages() {
            let characters = characters(page);
            let distinct: HashSet<char> = characters.iter().copied().collect();
            // 0x15 and 0x25 both end lines.
            assert_eq!(distinct.len(), if page.ebcdic { 255 } else { 256 }, "{}", page.number);
            assert!(!distinct.contains(&char::REPLACEMENT_CHARACTER), "{}", page.number);
        }
    }

    #[test]
    fn letters_and_signs_are_where_the_code_pages_have_them() {
        let expected: [(u16, &[u8], &str); 14] = [
            (37, &[0xC1, 0x81, 0xF0, 0x4B, 0x5B, 0x7B, 0x7C, 0xBA, 0xBB], "Aa0.$#@[]"),
            (273, &[0x4A, 0xE0, 0x5A, 0xC0, 0x6A, 0xD0, 0xA1, 0xB5, 0x7C], "ÄÖÜäöüß@§"),
            (277, &[0x5B, 0x7B, 0x7C, 0xD0, 0xC0, 0x6A], "ÅÆØåæø"),
            (278, &[0x5B, 0x7B, 0x7C, 0xD0, 0xC0, 0x6A, 0x79, 0xE0, 0x71], "ÅÄÖåäöéÉ\\"),
            (280, &[0xC0, 0xD0, 0x5A, 0xA1, 0x6A, 0x79, 0x7B], "àèéìòù£"),
            (284, &[0x7B, 0x6A], "Ññ"),
            (285, &[0x5B, 0x4A, 0xA1], "£$¯"),
            (297, &[0xC0, 0xD0, 0x7C, 0x6A, 0xE0], "éèàùç"),
            (500, &[0x4A, 0x5A, 0x4F], "[]!"),
            (1047, &[0xAD, 0xBD, 0x5F], "[]^"),
            (1140, &[0x9F], "€"),
            (1141, &[0x9F, 0xC0], "€ä"),
            (1142, &[0x5A, 0xD0], "€å"),
            (1149, &[0x4A, 0xC0, 0x5A, 0xD0, 0x9F], "ÞþÆæ€"),
        ];
        for (number, bytes, text) in expected {
            let characters = characters(CodePage { number, ebcdic: true });
            let read: String = bytes.iter().map(|byte| characters[usize::from(*byte)]).collect();
            assert_eq!(read, text, "{number}");
        }
        let dos = [(437, "é▒á"), (850, "é▒á"), (852, "é▒á"), (858, "é▒á")];
        for (number, text) in dos {
            let characters = characters(CodePage { number, ebcdic: false });
            assert_eq!([0x82, 0xB1, 0xA0].map(|byte: usize| characters[byte]).iter().collect::<String>(), text);
        }
        assert_eq!(characters(CodePage { number: 852, ebcdic: false })[0x9D], 'Ł');
        assert_eq!(characters(CodePage { number: 858, ebcdic: false })[0xD5], '€');
    }
}
