//! JSON texts.

use std::collections::HashSet;

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
    is_syntax(text) && is_kept(text.as_bytes(), true) && has_names_once(text)
}

/// Returns the elements of a JSON array, as they are written.
pub(super) fn parts(text: &str) -> Option<Vec<&str>> {
    if !is_syntax(text) {
        return None;
    }
    let inside = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let (mut parts, mut first, mut depth, mut in_string, mut escaped) = (Vec::new(), 0, 0, false, false);
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(inside[first..at].trim());
                first = at + 1;
            }
            _ => {}
        }
    }
    let last = inside[first..].trim();
    if !(parts.is_empty() && last.is_empty()) {
        parts.push(last);
    }
    Some(parts)
}

/// Returns whether no object of valid JSON has a name twice. `jsonb` would keep one of the values.
fn has_names_once(text: &str) -> bool {
    let mut objects: Vec<Option<HashSet<String>>> = Vec::new();
    let mut is_name = false;
    let mut rest = text;
    while let Some(byte) = rest.bytes().next() {
        let mut length = 1;
        match byte {
            b'{' => {
                objects.push(Some(HashSet::new()));
                is_name = true;
            }
            b'[' => {
                objects.push(None);
                is_name = false;
            }
            b'}' | b']' => {
                objects.pop();
                is_name = false;
            }
            b',' => is_name = objects.last().is_some_and(Option::is_some),
            b'"' => {
                length = string_length(rest);
                let name = is_name.then(|| serde_json::from_str::<String>(&rest[..length]).ok()).flatten();
                if let (Some(name), Some(Some(names))) = (name, objects.last_mut())
                    && !names.insert(name)
                {
                    return false;
                }
                is_name = false;
            }
            _ => length = rest.chars().next().map_or(1, char::len_utf8),
        }
        rest = &rest[length..];
    }
    true
}

/// Returns the length of the string that a text begins with, with its quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
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
            (r#"{"a": 1, "\u0061": 2}"#, true, false),
            (r#"[{"a": {"b": 1, "b": 1}}]"#, true, false),
            (r#"{"a": {"a": [1, "a"]}, "b": {"a": null}}"#, true, true),
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
