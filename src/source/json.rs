//! Newline-delimited JSON: one object per line.
//!
//! Values become text as written: `1.10` stays `1.10`, `true` is `true`, and objects and arrays are their JSON. `null` and
//! a missing key are NULL. No number passes through a float, and the casts to the target's types are those of CSV.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use arrow::datatypes::SchemaRef;
use serde::de::IgnoredAny;

use super::decoder::Input;
use super::text_batch::TextBatchBuilder;
use super::{Batch, Malformed, SourceFile};
use crate::error::{Error, Result};
use crate::spec::Encoding;

/// Returns the keys of all objects of a file in order of first appearance, in one pass over the file.
pub(super) fn keys(file: &SourceFile) -> Result<Vec<String>> {
    let mut lines = Lines::open(file)?;
    if lines.input.bytes().is_empty() {
        return Err(file.empty(false));
    }
    let mut keys = Vec::new();
    let mut known = HashSet::new();
    let mut first = true;
    while let Some((_, line)) = lines.next()? {
        if first && line.trim_ascii_start().starts_with(b"[") {
            return Err(Error::input(format!("`{}` is a JSON array", file.name))
                .hint("write one object per line, without brackets and commas, for example with `jq -c '.[]'`"));
        }
        first = false;
        let Some(members) = std::str::from_utf8(line).ok().and_then(|text| members(text).ok()) else { continue };
        if fault(&members).is_some() {
            continue;
        }
        for (key, _) in members {
            if !known.contains(key.as_ref()) {
                known.insert(key.to_string());
                keys.push(key.into_owned());
            }
        }
    }
    Ok(keys)
}

/// The lines of a file that are not blank, without their line endings.
struct Lines {
    input: Input,
    line: u64,
    /// The size in bytes of the last returned line.
    done: usize,
}

impl Lines {
    fn open(file: &SourceFile) -> Result<Self> {
        Ok(Self { input: Input::open(file, Encoding::Utf8)?, line: 0, done: 0 })
    }

    fn next(&mut self) -> Result<Option<(u64, &[u8])>> {
        let len = loop {
            self.input.consume(self.done);
            self.done = 0;
            let bytes = self.input.bytes();
            let len = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => at + 1,
                None if !self.input.at_end() => {
                    self.input.grow(self.line + 1)?;
                    continue;
                }
                None if bytes.is_empty() => return Ok(None),
                None => bytes.len(),
            };
            self.line += 1;
            self.done = len;
            if !bytes[..len].trim_ascii().is_empty() {
                break len;
            }
        };
        let line = &self.input.bytes()[..len];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        Ok(Some((self.line, line.strip_suffix(b"\r").unwrap_or(line))))
    }
}

/// Returns the keys and the raw values of a line's object, or the reason why it is invalid.
fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &str)>, String> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        format!("not JSON: {message} at byte {}", error.column())
    })?;
    let bytes = text.as_bytes();
    let blank = |at: usize| at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    // From here on the text is valid JSON.
    let mut at = blank(0);
    if bytes.get(at) != Some(&b'{') {
        return Err("not a JSON object".into());
    }
    let mut members = Vec::new();
    at = blank(at + 1);
    while bytes.get(at) == Some(&b'"') {
        let end = end_of_value(bytes, at);
        let key = string(&text[at..end]).map_err(|error| format!("invalid key: {error}"))?;
        at = blank(blank(end) + 1);
        let end = end_of_value(bytes, at);
        members.push((key, &text[at..end]));
        at = blank(end);
        if bytes.get(at) == Some(&b',') {
            at = blank(at + 1);
        }
    }
    Ok(members)
}

/// Returns the end of the value that starts at `at`, in text that is valid JSON.
fn end_of_value(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    loop {
        match bytes.get(at) {
            Some(b'"') => {
                at += 1;
                while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') => {
                depth -= 1;
                at += 1;
            }
            Some(_) if depth > 0 => at += 1,
            _ => {
                let end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                return bytes[at..].iter().position(end).map_or(bytes.len(), |found| at + found);
            }
        }
        if depth == 0 {
            return at;
        }
    }
}

/// Returns the text of a JSON string.
fn string(raw: &str) -> Result<Cow<'_, str>, String> {
    if raw.contains('\\') {
        let text: String = serde_json::from_str(raw)
            .map_err(|error| error.to_string().split(" at line ").next().unwrap_or_default().to_string())?;
        return Ok(Cow::Owned(text));
    }
    Ok(Cow::Borrowed(raw.trim_matches('"')))
}

/// Returns a raw value as a column stores it.
fn value(raw: &str) -> Result<Option<Cow<'_, str>>, String> {
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => string(raw).map(Some),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}

/// Returns the problem of an object's keys, if any.
fn fault(members: &[(Cow<'_, str>, &str)]) -> Option<String> {
    let mut seen = HashSet::with_capacity(members.len());
    members.iter().find_map(|(key, _)| match key.as_ref() {
        "" => Some("an empty key".to_string()),
        key if key.contains('\0') => Some("a key contains a NUL character".to_string()),
        key if !seen.insert(key) => Some(format!("duplicate key \"{key}\"")),
        _ => None,
    })
}

/// The rows of a file.
pub(super) struct Rows {
    lines: Lines,
    /// By key, the position of its column in the schema; other keys are ignored.
    places: HashMap<String, usize>,
    columns: usize,
    stretch: TextBatchBuilder,
}

impl Rows {
    pub(super) fn try_new(index: usize, file: &SourceFile, schema: SchemaRef, rows: usize) -> Result<Self> {
        let places = schema.fields().iter().enumerate().map(|(place, field)| (field.name().clone(), place)).collect();
        let columns = schema.fields().len();
        Ok(Self { lines: Lines::open(file)?, places, columns, stretch: TextBatchBuilder::new(index, schema, rows) })
    }

    /// Reads the next line; returns `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        let Some((line, bytes)) = self.lines.next()? else { return Ok(false) };
        let refused = |fields, reason| {
            let raw = String::from_utf8_lossy(bytes).into_owned();
            Malformed { line, raw, fields, reason }
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let byte = bytes[error.valid_up_to()];
                self.stretch.malformed(refused(Vec::new(), format!("not UTF-8 (byte 0x{byte:02X})")));
                return Ok(true);
            }
        };
        let members = match members(text) {
            Ok(members) => members,
            Err(reason) => {
                self.stretch.malformed(refused(Vec::new(), reason));
                return Ok(true);
            }
        };
        let mut reason = fault(&members);
        let mut values: Vec<Option<Cow<'_, str>>> = vec![None; self.columns];
        for (key, raw) in &members {
            let Some(&place) = self.places.get(key.as_ref()) else { continue };
            let (text, wrong) = match value(raw) {
                Ok(Some(text)) if text.contains('\0') => (Some(text), Some("contains a NUL character".to_string())),
                Ok(text) => (text, None),
                Err(error) => (Some(Cow::Borrowed(*raw)), Some(format!("is invalid: {error}"))),
            };
            values[place] = values[place].take().or(text);
            reason = reason.or(wrong.map(|wrong| format!("column \"{key}\" {wrong}")));
        }
        if let Some(reason) = reason {
            let fields = values.into_iter().map(|value| value.map(Cow::into_owned)).collect();
            self.stretch.malformed(refused(fields, reason));
            return Ok(true);
        }
        for (place, value) in values.iter().enumerate() {
            self.stretch.value(place, value.as_deref());
        }
        self.stretch.end_row(line);
        Ok(true)
    }
}

impl Iterator for Rows {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.stretch.is_full() {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Some(Err(error)),
            }
        }
        self.stretch.take().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Read, read_all, read_one};
    use super::*;
    use crate::error::Kind;
    use crate::spec::CsvSpec;

    fn read(text: &[u8]) -> Read {
        read_one("x.jsonl", text, CsvSpec::default()).unwrap()
    }

    fn values(text: &str) -> Vec<Option<String>> {
        let read = read(text.as_bytes());
        assert_eq!(read.malformed, []);
        read.rows[0].2.clone()
    }

    fn some(values: &[&str]) -> Vec<Option<String>> {
        values.iter().map(|value| Some((*value).to_string())).collect()
    }

    #[test]
    fn values_stay_as_they_are_written() {
        let text =
            r#"{ "a":"x\u00e9\n", "b" : 12345678901234567890.10 ,"c":1E400, "d":true,"e":-0.0 ,"f":null, "g":"" }"#;
        let read = values(text);
        assert_eq!(read[..5], some(&["xé\n", "12345678901234567890.10", "1E400", "true", "-0.0"]));
        assert_eq!(read[5..], [None, Some(String::new())]);
    }

    #[test]
    fn nested_values_are_their_json() {
        let text = r#"{"a":{"x": [1, "]}\""]},"b":[{"y":"}"}, 2.50],"c":{},"d":[]}"#;
        assert_eq!(values(text), some(&[r#"{"x": [1, "]}\""]}"#, r#"[{"y":"}"}, 2.50]"#, "{}", "[]"]));
    }

    #[test]
    fn columns_are_all_keys_in_the_order_of_their_appearance() {
        let files: [(&str, &[u8]); 2] = [
            ("a.json", b"{\"b\":1}\n\n{\"a\":2,\"b\":3,\"_reject_line\":9}"),
            ("b.json", b"{\"c\":4,\"old\":5}\r\n{}\r\n"),
        ];
        let read = read_all(&files, "*.json", &["old"], CsvSpec::default()).unwrap();
        let row = |file, line, values: [Option<&str>; 3]| {
            (file, line, values.map(|value| value.map(str::to_string)).to_vec())
        };
        let expected = [
            row(0, 1, [Some("1"), None, None]),
            row(0, 3, [Some("3"), Some("2"), None]),
            row(1, 1, [None, None, Some("4")]),
            row(1, 2, [None, None, None]),
        ];
        assert_eq!(read.rows, expected);
    }

    #[test]
    fn lines_that_are_no_objects_are_malformed() {
        let lines: [&[u8]; 11] = [
            br#"{"a":1}"#,
            br#"{"a":}"#,
            b"[1]",
            b"",
            b" 7",
            br#"{"a":2,"a":3}"#,
            br#"{"a":"x\u0000"}"#,
            b"{\"a\":\"\xE9\"}",
            br#"{"a":"\ud800"}"#,
            br#"{"":1}"#,
            br#"{"a""#,
        ];
        let read = read(&lines.join(&b'\n'));
        let reasons: Vec<(u64, &str)> = read.malformed.iter().map(|row| (row.line, row.reason.as_str())).collect();
        let expected = [
            (2, "not JSON: expected value at byte 6"),
            (3, "not a JSON object"),
            (5, "not a JSON object"),
            (6, "duplicate key \"a\""),
            (7, "column \"a\" contains a NUL character"),
            (8, "not UTF-8 (byte 0xE9)"),
            (9, "column \"a\" is invalid: unexpected end of hex escape"),
            (10, "an empty key"),
            (11, "not JSON: EOF while parsing an object at byte 4"),
        ];
        assert_eq!(reasons, expected);
        assert_eq!(read.rows, [(0, 1, some(&["1"]))]);
        assert_eq!((read.malformed[2].raw.as_str(), &read.malformed[2].fields), (" 7", &Vec::new()));
        assert_eq!((read.malformed[3].raw.as_str(), &read.malformed[3].fields), (r#"{"a":2,"a":3}"#, &some(&["2"])));
    }

    #[test]
    fn a_line_that_is_malformed_adds_no_columns() {
        assert_eq!(read(b"{\"a\":1}\n{\"b\":1,\"b\":2}\n").rows, [(0, 1, some(&["1"]))]);
    }

    #[test]
    fn a_json_array_is_refused_with_the_way_out() {
        let error = read_one("x.json", b"\n  [\n{\"a\":1}]", CsvSpec::default()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Input, "`x.json` is a JSON array"));
        assert!(error.next_step().unwrap().contains("one object per line"));
    }

    #[test]
    fn a_file_of_nothing_is_refused() {
        let error = read_one("x.json", b"", CsvSpec::default()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Input, "`x.json` is empty"));
    }

    #[test]
    fn members_are_what_a_json_parser_finds() {
        let text = r#" {"a\"b" : {"c":[1,{"d":"\\"}]} , "e":"\\\"","f":-1.5e+3}  "#;
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        let found = members(text).unwrap();
        assert_eq!(found.len(), object.len());
        for (key, raw) in found {
            assert_eq!(serde_json::from_str::<serde_json::Value>(raw).unwrap(), object[key.as_ref()]);
        }
    }
}
