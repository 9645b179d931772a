//! JSON texts.

use serde::de::IgnoredAny;

/// A limit on the digits of a mantissa and on the exponent that is safely within PostgreSQL's `numeric`.
const DIGITS: usize = 1000;
const EXPONENT: i32 = 10_000;

/// A nesting depth that PostgreSQL accepts in every case.
const DEPTH: usize = 500;

pub(super) fn is_json(text: &str) -> bool {
    is_syntax(text) && is_kept(text.as_bytes(), false)
}

/// Returns whether `jsonb` can store a JSON text. Every escape must stand for a character other than NUL, and every number must be a
/// `numeric`.
pub(super) fn is_jsonb(text: &str) -> bool {
    is_syntax(text) && is_kept(text.as_bytes(), true)
}

fn is_syntax(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Returns whether production stores valid JSON. It must not be too deep and, for `jsonb`, must have no values that PostgreSQL cannot
/// represent.
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

/// Returns the length of an escape behind its backslash; None if it stands for NUL or for no character.
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
