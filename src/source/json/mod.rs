//! JSON files: objects, one per line, several on a line, over several lines, or in an array.
//!
//! Values become text as written: `1.10` stays `1.10`, `true` is `true`, and objects and arrays are their JSON. `null` and
//! a missing key are NULL. No number passes through a float, and the casts to the target's types are those of CSV.

mod members;
mod objects;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use arrow::datatypes::SchemaRef;

use self::members::{Member, fault, flattened, members, value};
use self::objects::{Kind, Objects};
use super::text_batch::TextBatchBuilder;
use super::{Batch, Malformed, SourceFile};
use crate::error::{Error, Result};
use crate::spec::{JsonSpec, SourceSpec};

/// The layout of the files.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    json: JsonSpec,
    most_lines: u64,
}

impl Layout {
    pub(super) fn new(spec: &SourceSpec) -> Self {
        Self { json: spec.json.clone(), most_lines: u64::from(spec.max_record_lines.max(1)) }
    }

    fn open(&self, file: &SourceFile) -> Result<Objects> {
        let mut objects = Objects::open(file, self.most_lines)?;
        if objects.is_empty() {
            return Err(file.empty(false));
        }
        if let Some(path) = &self.json.records {
            objects.enter(file, path)?;
        }
        Ok(objects)
    }

    /// Returns the members of an object.
    fn members<'a>(&self, text: &'a str) -> std::result::Result<Vec<Member<'a>>, String> {
        let members = members(text)?;
        if self.json.flatten { flattened(members) } else { Ok(members) }
    }
}

/// The keys of a file.
pub(super) struct Keys {
    /// The keys of all objects, in order of first appearance.
    pub(super) keys: Vec<String>,
    /// Whether a line has several objects, so that objects are numbered instead of lines.
    pub(super) numbered: bool,
}

/// Returns the keys of all objects of a file, in one pass over the file.
pub(super) fn keys(file: &SourceFile, layout: &Layout) -> Result<Keys> {
    let mut objects = layout.open(file)?;
    let mut found = Keys { keys: Vec::new(), numbered: false };
    let mut known = HashSet::new();
    let (mut last, mut broken) = (0, None);
    while let Some(part) = objects.next()? {
        found.numbered |= part.line == last;
        last = part.line;
        if let Kind::Broken(reason) = &part.kind {
            broken.get_or_insert((part.line, reason.clone()));
        }
        let Kind::Object = part.kind else { continue };
        let text = std::str::from_utf8(objects.bytes(&part)).unwrap_or_default();
        let Ok(members) = layout.members(text) else { continue };
        if fault(&members).is_some() {
            continue;
        }
        for (key, _) in members {
            if !known.contains(key.as_ref()) {
                known.insert(key.to_string());
                found.keys.push(key.into_owned());
            }
        }
    }
    match broken {
        Some((line, reason)) if found.keys.is_empty() => {
            Err(Error::input(format!("`{}` contains no JSON object: line {line} is {reason}", file.name)).hint(
                "write one object per line, or an array of objects; if the file is one object around the records, \
                 set `json: { records: … }` to their key",
            ))
        }
        _ => Ok(found),
    }
}

/// The rows of a file.
pub(super) struct Rows {
    objects: Objects,
    layout: Layout,
    /// The number of the last part, if objects are numbered instead of lines.
    number: Option<u64>,
    /// By key, the position of its column in the schema; other keys are ignored.
    places: HashMap<String, usize>,
    columns: usize,
    stretch: TextBatchBuilder,
}

impl Rows {
    pub(super) fn try_new(
        index: usize,
        file: &SourceFile,
        schema: SchemaRef,
        layout: &Layout,
        rows: usize,
    ) -> Result<Self> {
        let places = schema.fields().iter().enumerate().map(|(place, field)| (field.name().clone(), place)).collect();
        let columns = schema.fields().len();
        Ok(Self {
            objects: layout.open(file)?,
            layout: layout.clone(),
            number: file.numbered.then_some(0),
            places,
            columns,
            stretch: TextBatchBuilder::new(index, schema, rows),
        })
    }

    /// Reads the next part of the file; returns `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        let Some(found) = self.objects.next()? else { return Ok(false) };
        let line = match &mut self.number {
            Some(number) => {
                *number += 1;
                *number
            }
            None => found.line,
        };
        let bytes = self.objects.bytes(&found);
        let (lost, reason) = match found.kind {
            Kind::Object => (false, None),
            Kind::Broken(reason) => (false, Some(reason)),
            Kind::Lost(broken) => {
                (true, Some(format!("the line belongs to no record, because the record on line {broken} is broken")))
            }
        };
        let raw = || String::from_utf8_lossy(bytes).into_owned();
        let refused = |fields, reason| Malformed { line, raw: raw(), fields, reason, lost };
        if let Some(reason) = reason {
            self.stretch.malformed(refused(Vec::new(), reason));
            return Ok(true);
        }
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let members = match self.layout.members(text) {
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

    #[allow(clippy::type_complexity, reason = "the rows, and the lines without one")]
    fn shape(text: &str) -> (Vec<(u64, String)>, Vec<(u64, bool)>) {
        let read = read_one("x.json", text.as_bytes(), CsvSpec::default()).unwrap();
        let first = |row: Vec<Option<String>>| row[0].clone().unwrap_or_default();
        (
            read.rows.into_iter().map(|row| (row.1, first(row.2))).collect(),
            read.malformed.iter().map(|row| (row.line, row.lost)).collect(),
        )
    }

    #[test]
    fn objects_are_read_wherever_they_begin_and_end() {
        let two = |first: u64, second: u64| (vec![(first, "1".to_owned()), (second, "2".to_owned())], vec![]);
        assert_eq!(shape("[{\"a\":1},{\"a\":2}]"), two(1, 2));
        assert_eq!(shape("\n  [\n{\"a\":1},\n {\"a\":2}\n]\n"), two(3, 4));
        assert_eq!(shape("[\n  {\n    \"a\": 1\n  },\n  {\n    \"a\": 2\n  }\n]"), two(2, 5));
        assert_eq!(shape("{\"a\":1}{\"a\":2}\n"), two(1, 2));
        assert_eq!(shape("{\n\"a\":1\n}\n{\n\"a\":2\n}\n"), two(1, 4));
        assert_eq!(shape("{\"a\":1}\n{\n\"a\":2\n}\n"), two(1, 2));
        assert_eq!(shape("{\"a\":1},\n{\"a\":2},\n"), two(1, 2));
        assert_eq!(shape("[]"), (vec![], vec![]));
    }

    #[test]
    fn a_broken_object_is_rejected_alone() {
        let rows = |values: &[(u64, &str)]| values.iter().map(|(line, value)| (*line, (*value).to_owned())).collect();
        let lines = "{\"a\":1}\n{\"a\":\"x}\n{\"a\":3}\n{\"a\":\"y\"}\n";
        assert_eq!(shape(lines), (rows(&[(1, "1"), (3, "3"), (4, "y")]), vec![(2, false)]));
        let open = "{\"a\":1}\n{\"a\":{\n{\"a\":3}\n";
        assert_eq!(shape(open), (rows(&[(1, "1"), (3, "3")]), vec![(2, false)]));
        let pretty = "[\n  {\n    \"a\": 1\n  },\n  {\n    \"a\": 2\n  \n  {\n    \"a\": 3\n  }\n]\n";
        assert_eq!(shape(pretty), (rows(&[(2, "1"), (8, "3")]), vec![(5, false), (6, true)]));
        assert_eq!(shape("[{\"a\":1},{\"a\":2,},{\"a\":3}]"), (rows(&[(1, "1"), (3, "3")]), vec![(2, false)]));
        assert_eq!(shape("[{\"a\":1},{\"a\":{,{\"a\":3}]"), (rows(&[(1, "1"), (3, "3")]), vec![(2, false)]));
    }

    #[test]
    fn a_truncated_array_is_not_whole() {
        let read = read_one("x.json", b"[\n{\"a\":1},\n{\"a\":2}\n", CsvSpec::default()).unwrap();
        assert_eq!((read.rows.len(), read.malformed.len()), (2, 1));
        assert!(read.malformed[0].reason.contains("truncated"), "{}", read.malformed[0].reason);
    }

    #[test]
    fn nested_keys_are_columns_on_request() {
        use super::super::Source;
        use crate::spec::JsonSpec;
        let text = br#"{"meta":{"n":1},"data":{"rows":[{"a":1,"b":{"c":{"d":"x"},"e":[1]}}]},"total":1}"#;
        let folder = super::super::tests::folder(&[("x.json", text)]);
        let json = JsonSpec { flatten: true, records: Some("data.rows".into()) };
        let source = Source::try_new(&SourceSpec { json, ..SourceSpec::at("x.json") }, folder.path()).unwrap();
        let names: Vec<_> = source.schema().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["a", "b.c.d", "b.e"]);
        assert_eq!(source.batches(9).next().unwrap().unwrap().rows.num_rows(), 1);
        let json = JsonSpec { flatten: false, records: Some("data.lines".into()) };
        let error = Source::try_new(&SourceSpec { json, ..SourceSpec::at("x.json") }, folder.path()).unwrap_err();
        assert_eq!(error.to_string(), "`x.json` has no key `lines`");
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
