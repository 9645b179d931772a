//! Deserializes a YAML value into the pipeline file's types, and finds every mistake in one pass.
//!
//! Serde stops at the first mistake, so the value is repaired and read again until it fits. Unknown fields
//! and wrong values are removed, and missing ones get a stand-in, which keeps all other paths valid. A
//! repaired place is *broken*: no further problem is reported there.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use serde_path_to_error::Segment;

use super::model::PipelineSpec;
use super::schema::lists_for_mappings;
use crate::diagnostic::{Mark, Path, Problem, Problems};

/// The maximum number of problems per file.
pub(super) const MAX_PROBLEMS: usize = 100;

/// A bound for the reading loop: each problem takes a few rounds.
const MAX_ROUNDS: usize = MAX_PROBLEMS * 10;

/// The length in characters at which messages cut a text of the file.
const MAX_SHOWN: usize = 60;

/// Reads a value into the pipeline file's types.
pub(super) struct Reader<'r> {
    /// The content with its templates replaced; repaired while it is read.
    value: Value,
    /// The content as written. Messages show only this, because templates can insert secrets.
    written: &'r Value,
    /// Texts that a template turned into numbers or booleans.
    texts: BTreeMap<Path, String>,
    broken: Vec<Path>,
    stand_ins: BTreeMap<Path, usize>,
    problems: &'r mut Problems,
}

/// The result of reading.
pub(super) struct Read {
    /// The file, with stand-ins for missing and wrong values.
    pub(super) spec: Option<PipelineSpec>,
    /// Places where no further problem is reported.
    pub(super) broken: Vec<Path>,
    /// Places that contain a stand-in.
    pub(super) stand_ins: Vec<Path>,
}

impl<'r> Reader<'r> {
    pub(super) fn new(
        value: Value,
        written: &'r Value,
        texts: BTreeMap<Path, String>,
        problems: &'r mut Problems,
    ) -> Self {
        Self { value, written, texts, broken: Vec::new(), stand_ins: BTreeMap::new(), problems }
    }

    /// Reads the value, and reports no problem at places in `broken`.
    pub(super) fn read(mut self, broken: &[Path]) -> Read {
        self.broken.extend_from_slice(broken);
        for at in lists_for_mappings(&self.value).into_iter().take(MAX_PROBLEMS + 1) {
            self.wrong(&at, "invalid type: sequence, expected a mapping");
        }
        let spec = self.repair();
        Read { spec, broken: self.broken, stand_ins: self.stand_ins.into_keys().collect() }
    }

    fn repair(&mut self) -> Option<PipelineSpec> {
        for _ in 0..MAX_ROUNDS {
            if self.problems.list.len() > MAX_PROBLEMS {
                return None;
            }
            let error = match serde_path_to_error::deserialize::<_, PipelineSpec>(&self.value) {
                Ok(spec) => return Some(spec),
                Err(error) => error,
            };
            let at = self.existing(error.path());
            let message = error.into_inner().to_string();
            let repaired = if message.starts_with("unknown field `") {
                self.unknown_field(at, &message)
            } else if let Some(field) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'))
            {
                self.missing_field(&at, field)
            } else {
                self.wrong(&at, &message)
            };
            repaired?;
        }
        self.problems.add(Path::new(), "too many mistakes; the rest of the file was not read");
        None
    }

    /// Returns the longest prefix of an error's path that exists.
    fn existing(&self, path: &serde_path_to_error::Path) -> Path {
        let mut at = Path::new();
        for segment in path {
            let segment = match segment {
                Segment::Seq { index } => index.to_string(),
                Segment::Map { key } => key.clone(),
                Segment::Enum { .. } | Segment::Unknown => break,
            };
            at.push(segment);
            if get(&self.value, &at).is_none() {
                at.pop();
                break;
            }
        }
        at
    }

    fn is_broken(&self, at: &[String]) -> bool {
        self.broken.iter().any(|broken| at.starts_with(broken))
    }

    fn unknown_field(&mut self, at: Path, message: &str) -> Option<()> {
        let (field, container) = at.split_last()?;
        let valid = quoted_after(message, "`, expected ");
        let near = nearest(field, &valid);
        if !self.is_broken(&at) {
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", listed(&valid)),
            };
            self.problems.add_at_key(at.clone(), format_args!("unknown field `{}`", short(field)), Some(hint));
        }
        let fields = get_mut(&mut self.value, container)?.as_object_mut()?;
        fields.shift_remove(field)?;
        if let Some(near) = near.filter(|near| !fields.contains_key(*near)) {
            // The field that the user misspelled is not also missing.
            self.broken.push(child(container, near));
        }
        self.broken.push(at);
        Some(())
    }

    fn missing_field(&mut self, container: &[String], field: &str) -> Option<()> {
        let at = child(container, field);
        if !self.is_broken(&at) {
            self.problems.add_with_hint(
                container.to_vec(),
                format_args!("missing field `{field}`"),
                format_args!("add `{field}: …`"),
            );
        }
        let fields = get_mut(&mut self.value, container)?.as_object_mut()?;
        fields.insert(field.to_owned(), Value::Null);
        self.broken.push(at.clone());
        self.stand_ins.insert(at.clone(), 0);
        self.stand_in(&at)
    }

    fn wrong(&mut self, at: &[String], message: &str) -> Option<()> {
        let expected = message.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
        let found = get(&self.value, at)?;
        if matches!(expected, "a string" | "a character" | "path string")
            && !found.is_string()
            && let Some(text) = self.texts.remove(at)
        {
            *get_mut(&mut self.value, at)? = Value::String(text);
            return Some(());
        }
        if !self.is_broken(at) {
            let (message, hint) = self.explain(at, found, message, expected);
            self.problems.list.push(Problem { at: at.to_vec(), mark: Mark::Value, message, hint, input: false });
        }
        self.broken.push(at.to_vec());
        let (last, container) = at.split_last()?;
        let is_stand_in = self.stand_ins.contains_key(at);
        match get_mut(&mut self.value, container)? {
            Value::Object(fields) if !is_stand_in => {
                fields.shift_remove(last)?;
                Some(())
            }
            _ => self.stand_in(at),
        }
    }

    /// Inserts the next stand-in that may fit; if none fits, the container is wrong too.
    fn stand_in(&mut self, at: &[String]) -> Option<()> {
        let attempt = self.stand_ins.entry(at.to_vec()).or_default();
        let candidate = match *attempt {
            0 => json!(""),
            1 => json!({}),
            2 => json!([]),
            3 => json!(1),
            4 => json!("12:34"),
            _ => {
                let container = at.split_last()?.1.to_vec();
                self.broken.push(container.clone());
                let (last, above) = container.split_last()?;
                match get_mut(&mut self.value, above)? {
                    Value::Object(fields) if !self.stand_ins.contains_key(&container) => {
                        fields.shift_remove(last)?;
                        return Some(());
                    }
                    _ => return self.stand_in(&container),
                }
            }
        };
        *attempt += 1;
        *get_mut(&mut self.value, at)? = candidate;
        Some(())
    }

    /// Returns the message and the hint for a wrong value.
    fn explain(&self, at: &[String], found: &Value, message: &str, expected: &str) -> (String, Option<String>) {
        let written = get(self.written, at).unwrap_or(found);
        let written = match written {
            Value::String(text) => short(text),
            Value::Array(_) | Value::Object(_) => String::new(),
            scalar => short(&scalar.to_string()),
        };
        if message.starts_with("unknown variant `") {
            let valid = quoted_after(message, "`, expected ");
            let hint = match nearest(&written, &valid) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", listed(&valid)),
            };
            return (format!("unknown value `{written}`"), Some(hint));
        }
        let expected = match expected {
            "a sequence" => "a list",
            "a string" | "string" | "path string" => "text",
            "a map" => "a mapping",
            "u32" | "u64" | "usize" => "a non-negative integer",
            "a boolean" => "`true` or `false`",
            "a character" => "one character",
            structure if structure.starts_with("struct ") => "a mapping",
            other => other,
        };
        let (found, is_scalar) = match found {
            Value::Null => ("nothing".to_owned(), false),
            Value::String(_) => (format!("text `{written}`"), true),
            Value::Array(_) => ("a list".to_owned(), false),
            Value::Object(_) => ("a mapping".to_owned(), false),
            Value::Number(_) | Value::Bool(_) => (format!("`{written}`"), true),
        };
        let hint = match expected {
            "a list" if is_scalar => Some(format!("write it as a list: `[{written}]`")),
            "text" if is_scalar => Some(format!("write it in quotes: `\"{written}\"`")),
            _ => None,
        };
        (format!("expected {expected}, found {found}"), hint.or_else(|| Some(format!("write {expected}"))))
    }
}

/// Returns the value at a path.
fn get<'v>(value: &'v Value, at: &[String]) -> Option<&'v Value> {
    at.iter().try_fold(value, |value, segment| match value {
        Value::Object(fields) => fields.get(segment),
        Value::Array(elements) => elements.get(segment.parse::<usize>().ok()?),
        _ => None,
    })
}

fn get_mut<'v>(value: &'v mut Value, at: &[String]) -> Option<&'v mut Value> {
    at.iter().try_fold(value, |value, segment| match value {
        Value::Object(fields) => fields.get_mut(segment),
        Value::Array(elements) => elements.get_mut(segment.parse::<usize>().ok()?),
        _ => None,
    })
}

fn child(container: &[String], name: &str) -> Path {
    container.iter().cloned().chain([name.to_owned()]).collect()
}

/// Returns the names in backticks after the last `marker`: serde's list of valid names.
fn quoted_after<'m>(message: &'m str, marker: &str) -> Vec<&'m str> {
    let list = message.rsplit_once(marker).map_or("", |(_, list)| list);
    list.split('`').skip(1).step_by(2).collect()
}

/// Returns the valid name that is most similar to a misspelled one, if it is similar enough.
pub(super) fn nearest<'n>(name: &str, valid: &[&'n str]) -> Option<&'n str> {
    if name.len() > MAX_SHOWN {
        return None;
    }
    let distance = |valid: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), valid);
    let near = valid.iter().copied().min_by_key(|valid| distance(valid))?;
    (distance(&near) <= (near.chars().count().max(name.chars().count()) / 3).max(1)).then_some(near)
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Cuts a text of the file for a message.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path;

    fn whole() -> Value {
        json!({
            "version": 1,
            "name": "demo",
            "target": { "url": "sqlite:x" },
            "tables": { "a": { "source": { "path": "a.csv" }, "legacy_key": ["ref"] } }
        })
    }

    fn read(value: &Value) -> (Read, Vec<(String, String, String)>) {
        let mut problems = Problems::default();
        let read = Reader::new(value.clone(), value, BTreeMap::new(), &mut problems).read(&[]);
        let list = problems.list.into_iter().map(|p| (p.at.join("."), p.message, p.hint.unwrap_or_default()));
        (read, list.collect())
    }

    /// The only problem of a file whose table `a` has this field.
    fn problem(field: &str, value: Value) -> (String, String, String) {
        let mut file = whole();
        file["tables"]["a"][field] = value;
        let (_, mut problems) = read(&file);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0)
    }

    fn is(at: &str, message: &str, hint: &str) -> (String, String, String) {
        (at.to_owned(), message.to_owned(), hint.to_owned())
    }

    #[test]
    fn a_file_without_mistakes_is_read_whole() {
        let (read, problems) = read(&whole());
        assert_eq!(problems, []);
        assert_eq!(read.stand_ins, Vec::<Path>::new());
        assert_eq!(read.spec.unwrap().tables[0].1.legacy_key, ["ref"]);
    }

    #[test]
    fn a_misspelled_field_is_reported_with_a_suggestion() {
        let found = problem("checks", json!([{ "unique": ["a"], "sevrity": "warn" }]));
        assert_eq!(found, is("tables.a.checks.0.sevrity", "unknown field `sevrity`", "did you mean `severity`?"));
        let found = problem("source", json!({ "path": "x", "colour": 1 }));
        assert_eq!(
            found,
            is(
                "tables.a.source.colour",
                "unknown field `colour`",
                "expected one of `path`, `format`, `ignore`, `max_record_lines`, `timezone`, `century`, `csv`, `json`, \
                 `fixed`"
            )
        );
    }

    #[test]
    fn a_misspelled_field_is_not_also_missing() {
        let mut file = whole();
        file["tables"]["a"] = json!({ "source": { "pth": "x" }, "legacy_keys": ["ref"] });
        let (_, problems) = read(&file);
        assert_eq!(
            problems,
            [
                is("tables.a.source.pth", "unknown field `pth`", "did you mean `path`?"),
                is("tables.a.legacy_keys", "unknown field `legacy_keys`", "did you mean `legacy_key`?"),
            ]
        );
    }

    #[test]
    fn a_missing_field_is_reported_at_its_mapping() {
        let found = problem("relationships", json!([{ "column": "x" }]));
        assert_eq!(found, is("tables.a.relationships.0", "missing field `to`", "add `to: …`"));
        let (read, problems) = read(&json!({}));
        assert_eq!(
            problems,
            ["version", "name", "tables"].map(|field| is(
                "",
                &format!("missing field `{field}`"),
                &format!("add `{field}: …`")
            ))
        );
        assert!(read.spec.is_some());
        assert!(read.stand_ins.contains(&path!["tables"]), "{:?}", read.stand_ins);
    }

    #[test]
    fn wrong_value_is_reported_with_expected_and_found() {
        let found = problem("legacy_key", json!("ref"));
        assert_eq!(
            found,
            is("tables.a.legacy_key", "expected a list, found text `ref`", "write it as a list: `[ref]`")
        );
        let found = problem("select", json!(5));
        assert_eq!(found, is("tables.a.select", "expected text, found `5`", "write it in quotes: `\"5\"`"));
        assert_eq!(
            problem("columns", Value::Null),
            is("tables.a.columns", "expected a mapping, found nothing", "write a mapping")
        );
        assert_eq!(
            problem("source", json!("x.csv")),
            is("tables.a.source", "expected a mapping, found text `x.csv`", "write a mapping")
        );
        assert_eq!(
            problem("key", json!({ "width": -1 })),
            is("tables.a.key.width", "expected a non-negative integer, found `-1`", "write a non-negative integer")
        );
        let found = problem("max_rejects", json!("lots"));
        assert_eq!(
            found,
            is(
                "tables.a.max_rejects",
                "expected a number of rows such as 20, or a share such as 1%, found text `lots`",
                "write a number of rows such as 20, or a share such as 1%"
            )
        );
        let found = problem("source", json!({ "path": "x", "csv": { "quote": "ab" } }));
        assert_eq!(
            found,
            is("tables.a.source.csv.quote", "expected one character, found text `ab`", "write one character")
        );
    }

    #[test]
    fn unknown_value_is_reported_with_the_known_ones() {
        let found = problem("existing", json!("skipp"));
        assert_eq!(found, is("tables.a.existing", "unknown value `skipp`", "did you mean `skip`?"));
        let found = problem("checks", json!([{ "severity": "fatal" }]));
        assert_eq!(found, is("tables.a.checks.0.severity", "unknown value `fatal`", "expected one of `warn`, `error`"));
        assert_eq!(problem("duplicates", json!({ "first": 1 })).0, "tables.a.duplicates");
        assert_eq!(problem("duplicates", json!(["first"])).0, "tables.a.duplicates");
    }

    #[test]
    fn elements_after_a_wrong_one_keep_their_index() {
        let mut file = whole();
        file["tables"]["a"]["checks"] = json!([5, { "unqiue": ["a"] }, [], { "unique": [["x"], "y", 7] }]);
        let (_, problems) = read(&file);
        let mut places: Vec<_> = problems.iter().map(|(at, ..)| at.as_str()).collect();
        places.sort_unstable();
        assert_eq!(
            places,
            [
                "tables.a.checks.0",
                "tables.a.checks.1.unqiue",
                "tables.a.checks.2",
                "tables.a.checks.3.unique.0",
                "tables.a.checks.3.unique.2"
            ]
        );
    }

    #[test]
    fn a_list_is_no_mapping_by_position() {
        assert_eq!(
            problem("source", json!(["a.csv"])),
            is("tables.a.source", "expected a mapping, found a list", "write a mapping")
        );
        assert_eq!(problem("relationships", json!([["x", [], "y"]])).0, "tables.a.relationships.0");
    }

    #[test]
    fn names_with_quotes_and_line_breaks_are_no_trouble() {
        let mut file = whole();
        let name = "x`, expected `y`\n\"'missing field `z`";
        file["tables"]["a"][name] = json!(1);
        file[name] = json!(1);
        let (_, problems) = read(&file);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].2.contains("`legacy_key`") || problems[1].2.contains("`legacy_key`"), "{problems:?}");
    }

    #[test]
    fn a_file_full_of_mistakes_ends() {
        let mut file = whole();
        for index in 0..1000 {
            file["tables"][format!("t{index}")] = json!({ "a": 1, "b": [], "source": index });
        }
        assert_eq!(read(&file).1.len(), MAX_PROBLEMS + 1);
    }
}
