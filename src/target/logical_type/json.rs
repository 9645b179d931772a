//! JSON texts.

use serde::de::IgnoredAny;

/// The most digits of a number's mantissa and the largest exponent that are surely within PostgreSQL's `numeric`.
const DIGITS: usize = 1000;
const EXPONENT: i32 = 10_000;

/// How deep PostgreSQL is sure to follow brackets within brackets.
const DEPTH: usize = 500;

/// Whether a text is JSON, in its syntax.
pub(super) fn is_json(text: &str) -> bool {
    is_syntax(text) && is_kept(text.as_bytes(), false)
}

/// Whether a JSON text has a binary form: every escape stands for a character other than NUL, every number is a `numeric`.
pub(super) fn is_jsonb(text: &str) -> bool {
    is_syntax(text) && is_kept(text.as_bytes(), true)
}

fn is_syntax(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Whether valid JSON is kept: it is not too deep and, in binary, has no values that PostgreSQL does not know.
fn is_kept(json: &[u8], in_binary: bool) -> bool {
    let mut rest = json;
    let mut in_string = false;
    let mut depth = 0;
    while let Some((byte, behind)) = rest.split_first() {
        let mut length = 0;
        match (byte, in_string) {
            (b'"', _) => in_string = !in_string,
            (b'[' | b'{', false) => depth += 1,
            (b']' | b'}', false) => depth -= 1,
            (b'\\', true) if in_binary => match escaped(behind) {
                Some(escape) => length = escape,
                None => return false,
            },
            (b'\\', true) => length = 1,
            (b'-' | b'0'..=b'9', false) if in_binary => {
                let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                length = behind.iter().take_while(|byte| in_number(byte)).count();
                if !is_numeric(&behind[..length]) {
                    return false;
                }
            }
            _ => {}
        }
        if depth > DEPTH {
            return false;
        }
        rest = &behind[length..];
    }
    true
}

/// The length of an escape behind its backslash; None where it stands for no character, or for NUL.
fn escaped(rest: &[u8]) -> Option<usize> {
    let unit = |rest: &[u8]| {
        let digits = rest.strip_prefix(b"u")?.first_chunk::<4>()?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match unit(rest) {
        None => Some(1),
        Some(0 | 0xDC00..=0xDFFF) => None,
        Some(0xD800..=0xDBFF) => {
            let low = rest.get(5..)?.strip_prefix(b"\\").and_then(unit)?;
            matches!(low, 0xDC00..=0xDFFF).then_some(11)
        }
        Some(_) => Some(5),
    }
}

fn is_numeric(number: &[u8]) -> bool {
    let mut parts = number.splitn(2, |byte| matches!(byte, b'e' | b'E'));
    let mantissa = parts.next().unwrap_or_default();
    let exponent = parts.next().map_or(Some(0), |digits| std::str::from_utf8(digits).ok()?.parse().ok());
    mantissa.len() <= DIGITS && exponent.is_some_and(|exponent: i32| exponent.abs() <= EXPONENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_writes_and_a_binary_form_cannot_hold_is_found() {
        for (text, json, binary) in [
            (r#"{"a": [1, -2.5e3, true, null, "x\n\"\\"]}"#, true, true),
            (r#""\u00e4 \ud83d\ude00 \\u0000""#, true, true),
            (r#""\u0000""#, true, false),
            (r#""\ud83d""#, true, false),
            (r#""\ud83d\n""#, true, false),
            (r#""\ud83dude00""#, true, false),
            (r#""\ude00""#, true, false),
            ("1e9999", true, true),
            ("[1e-20000]", true, false),
            ("1e999999999999", true, false),
            (r#""1e-20000""#, true, true),
            ("", false, false),
            ("{'a': 1}", false, false),
            ("01", false, false),
            ("NaN", false, false),
            ("[1,]", false, false),
            ("\"a\nb\"", false, false),
            ("1 2", false, false),
        ] {
            assert_eq!((is_json(text), is_jsonb(text)), (json, binary), "{text}");
        }
    }
}
