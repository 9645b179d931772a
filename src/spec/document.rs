//! Reading a pipeline file, with all of its problems.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path as FilePath, PathBuf};

use serde_json::Value;

use super::interpolate::Variables;
use super::model::PipelineSpec;
use super::read::{MAX_PROBLEMS, Read, Reader};
use super::rules;
use crate::diagnostic::Locations;
use crate::diagnostic::Redactor;
use crate::diagnostic::{Mark, Path, Problem, Problems};
use crate::error::{Error, Result};

/// The size limit in bytes: a larger file is probably a data file, and is not read into memory.
const MAX_BYTES: u64 = 16 << 20;

/// A pipeline file: its text, its content, and its problems so far.
#[derive(Debug)]
pub struct Document {
    /// The path, as given on the command line.
    pub path: PathBuf,
    /// The folder that relative paths in the file refer to.
    pub folder: PathBuf,
    /// The text as written.
    pub text: String,
    /// The content: complete if there are no problems. Tables with missing parts are omitted. `None` if the
    /// target or the whole file is unreadable.
    pub spec: Option<PipelineSpec>,
    /// The problems of the file itself. Compiling the plan adds those that concern data and target.
    pub problems: Problems,
    /// Values from the environment or the command line, which must not be printed.
    pub secrets: Redactor,
}

/// Reads a pipeline file. Variables in `vars`, from the command line, override the environment.
///
/// Problems of the content are in [`Document::problems`].
///
/// # Errors
///
/// Returns an error if the file is missing, unreadable, not UTF-8, or larger than 16 MiB.
pub fn load(path: &FilePath, vars: &BTreeMap<String, String>) -> Result<Document> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::input(format_args!("cannot read pipeline file `{}`: {error}", path.display()))
    };
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::input(format_args!("pipeline file `{}` does not exist", path.display())).hint("check the path")
        }
        _ => failed(&error).hint("check its permissions"),
    })?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(failed(&"it is a folder").hint("give the path of a file in it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error).hint("check its type and permissions"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(&format_args!("it has more than {} MiB", MAX_BYTES >> 20))
            .hint("check the path: it may be a data file"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].split(|byte| *byte == b'\n').count();
        failed(&format_args!("line {line} is not UTF-8")).hint("save it as UTF-8")
    })?;
    Ok(parse(path, text, vars, |name| std::env::var(name).ok()))
}

/// Parses the text of the pipeline file at `path`. `env` looks up environment variables.
pub fn parse(
    path: &FilePath,
    mut text: String,
    vars: &BTreeMap<String, String>,
    env: impl Fn(&str) -> Option<String>,
) -> Document {
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    let folder = path.parent().unwrap_or(FilePath::new(""));
    let mut problems = Problems { file: path.to_owned(), text: text.clone(), list: Vec::new() };
    let mut secrets = Redactor::default();
    let spec = yaml(&text, &mut problems).and_then(|written| {
        let mut value = written.clone();
        let filled = Variables::new(vars, &env).interpolate(&mut value, &mut problems);
        secrets = filled.secrets;
        let read = Reader::new(value, &written, filled.texts, &mut problems).read(&filled.failed);
        finish(read, &filled.failed, &secrets, &mut problems)
    });
    if spec.is_none() && problems.is_empty() {
        // No input is known to reach this, but an unreadable file must never look correct.
        problems.add(Path::new(), "this is not a valid pipeline file");
    }
    if problems.list.len() > MAX_PROBLEMS {
        problems.list.truncate(MAX_PROBLEMS);
        problems.add_at_bytes(text.len()..text.len(), "further problems are not shown", None);
    }
    Document { path: path.to_owned(), folder: folder.to_owned(), text, spec, problems, secrets }
}

impl Document {
    /// Returns the scalar at a path as written, with its templates unreplaced, so that it is safe to print.
    pub fn shown(&self, path: &[String]) -> Option<String> {
        Locations::try_new(&self.text).ok()?.scalar(path).map(ToOwned::to_owned)
    }
}

/// Parses the YAML; adds a problem if it is not a mapping.
fn yaml(text: &str, problems: &mut Problems) -> Option<Value> {
    let mut options = serde_yaml::Options::default();
    options.with_snippet = false;
    // YAML 1.2: `no` is a text, and `007` is not 7.
    options.strict_booleans = true;
    options.leading_zero_numbers_as_strings = true;
    options.underscored_numbers_as_strings = true;
    let mut value: Value = match serde_yaml::from_str_with_options(text, options) {
        Ok(value) => value,
        Err(error) => {
            add_syntax_error(&error, text, problems);
            return None;
        }
    };
    let hint = Some("a pipeline file begins with `version: 1`, `name`, `target` and `tables`".to_owned());
    match &value {
        Value::Object(_) => {}
        Value::Null => {
            problems.add_at_bytes(0..0, "the file is empty", hint);
            return None;
        }
        other => {
            let found = if other.is_array() { "a list" } else { "a single value" };
            let message = format!("expected a mapping, found {found}");
            problems.list.push(Problem { at: Path::new(), mark: Mark::Value, message, hint, input: false });
            return None;
        }
    }
    if let Ok(locations) = Locations::try_new(text) {
        keep_as_written(&mut value, &mut Path::new(), &locations);
    }
    Some(value)
}

fn add_syntax_error(error: &serde_yaml::Error, text: &str, problems: &mut Problems) {
    let message = error.without_snippet().render_with_formatter(&serde_yaml::UserMessageFormatter);
    let message = message.split(" at line ").next().unwrap_or_default();
    let bytes = error.location().map_or(0..0, |location| {
        let byte = |chars: usize| text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
        let start = location.span().offset() as usize;
        byte(start)..byte(start + location.span().len() as usize)
    });
    let line_start = text[..bytes.start].rfind('\n').map_or(0, |end| end + 1);
    let before = &text[line_start..bytes.start];
    let hint = if before.ends_with('$') {
        Some("within `{…}` and `[…]` a template needs quotes: `\"${NAME}\"`")
    } else if message.contains("flow mapping") || message.contains("mapping values are not allowed") {
        Some("a value that contains `: `, or begins with one of `[]{}*&!|>%@`, needs quotes")
    } else {
        None
    };
    problems.add_at_bytes(bytes, message, hint.map(ToOwned::to_owned));
}

/// Restores the written text of values that checks compare with: `1.10` has more digits than the number 1.1.
fn keep_as_written(value: &mut Value, at: &mut Path, locations: &Locations) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                at.push(field.clone());
                keep_as_written(value, at, locations);
                at.pop();
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter_mut().enumerate() {
                at.push(index.to_string());
                keep_as_written(value, at, locations);
                at.pop();
            }
        }
        Value::Bool(_) | Value::Number(_) if !value.is_i64() && is_compared_with(at) => {
            if let Some(text) = locations.plain(at) {
                *value = Value::String(text.to_owned());
            }
        }
        _ => {}
    }
}

fn is_compared_with(at: &[String]) -> bool {
    let names: Vec<&str> = at.iter().map(String::as_str).collect();
    matches!(
        names.as_slice(),
        ["tables", _, "checks", _, "accepted_values", "values", _] | ["tables", _, "checks", _, "range", "min" | "max"]
    )
}

/// Applies the rules to the content, and removes tables with missing parts.
fn finish(read: Read, failed: &[Path], secrets: &Redactor, problems: &mut Problems) -> Option<PipelineSpec> {
    let mut spec = read.spec?;
    let mut found = Problems::default();
    rules::check(&spec, &mut found);
    for mut problem in found.list {
        // A broken value has been reported; that it also breaks a rule follows from that.
        let follows = |broken: &Path| broken.starts_with(&problem.at) || problem.at.starts_with(broken);
        if !read.broken.iter().any(follows) {
            problem.message = secrets.mask(&problem.message).into_owned();
            problem.hint = problem.hint.map(|hint| secrets.mask(&hint).into_owned());
            problems.list.push(problem);
        }
    }
    let lacking: Vec<_> = read.stand_ins.iter().chain(failed).collect();
    if lacking.iter().any(|at| {
        matches!(at.as_slice(), [field] if field == "tables") || at.first().is_some_and(|field| field == "target")
    }) {
        return None;
    }
    let is_whole = |name: &String| {
        !lacking.iter().any(|at| at.first().is_some_and(|field| field == "tables") && at.get(1) == Some(name))
    };
    spec.tables = spec.tables.iter().filter(|(name, _)| is_whole(name)).cloned().collect();
    Some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path;

    const WHOLE: &str = "\
version: 1
name: demo
target:
  url: ${DATABASE_URL:-sqlite:demo.db}
tables:
  account:
    source: { path: a.csv }
    legacy_key: [ref]
";

    fn read(text: &str) -> Document {
        let env = |name: &str| match name {
            "SECRET" => Some("hunter22".to_owned()),
            "NUMBER" => Some("4711".to_owned()),
            _ => None,
        };
        parse(FilePath::new("pipelines/delta.yaml"), text.to_owned(), &BTreeMap::new(), env)
    }

    /// Each problem as `line:column message`.
    fn problems(document: &Document) -> Vec<String> {
        let places = document.problems.places();
        places.into_iter().map(|(line, column, problem)| format!("{line}:{column} {}", problem.message)).collect()
    }

    #[test]
    fn a_whole_file_is_read_without_problems() {
        let document = read(WHOLE);
        assert_eq!(problems(&document), [""; 0]);
        let spec = document.spec.unwrap();
        assert_eq!(spec.target.unwrap().url, "sqlite:demo.db");
        assert_eq!(document.folder, FilePath::new("pipelines"));
        assert_eq!(parse(FilePath::new("d.yaml"), WHOLE.into(), &BTreeMap::new(), |_| None).folder, FilePath::new(""));
    }

    #[test]
    fn all_problems_are_found_at_once_and_at_their_places() {
        let document = read(
            "\
version: 2
target: { url: \"${NONE}\", sheme: x }
tables:
  a:
    source: {path: a.csv, csv: {delimiter: ä}}
    legacy_key: ref
    checks:
      - 5
      - not_nul: [x]
      - unique: [x]
        sql: SELECT 1
  b:
    legacy_key: [ref]
    max_rejects: 300%
",
        );
        assert_eq!(
            problems(&document),
            [
                "1:1 missing field `name`",
                "1:10 unsupported version 2: expected 1",
                "2:16 variable `NONE` is not set",
                "2:27 unknown field `sheme`",
                "5:44 invalid delimiter `ä`: expected an ASCII character",
                "6:17 expected a list, found text `ref`",
                "8:9 expected a mapping, found `5`",
                "9:9 unknown field `not_nul`",
                "10:9 `unique` and `sql` are mutually exclusive",
                "12:3 missing field `source`",
                "14:18 expected a number of rows such as 20, or a share such as 1%, found text `300%`",
            ]
        );
        assert!(document.spec.is_none());
    }

    #[test]
    fn incomplete_tables_are_excluded_from_the_catalog() {
        let document = read(&format!("{WHOLE}  b:\n    legacy_key: [ref]\n"));
        let spec = document.spec.unwrap();
        assert_eq!(spec.tables.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["account"]);
        assert_eq!(document.problems.list.len(), 1);
    }

    #[test]
    fn values_of_the_environment_show_up_in_no_problem() {
        let text = WHOLE.replace("name: demo", "name: a ${SECRET}").replace("[ref]", "${SECRET}");
        let document = read(&text);
        let shown = document.problems.render(false);
        assert!(!shown.contains("hunter22"), "{shown}");
        assert!(
            shown.contains("invalid pipeline name: `a ***`") && shown.contains("found text `${SECRET}`"),
            "{shown}"
        );
        assert_eq!(document.secrets.mask("it is hunter22"), "it is ***");
        assert!(!format!("{:?}", document.secrets).contains("hunter22"));
    }

    #[test]
    fn template_is_a_number_or_a_text_as_wanted() {
        let text = WHOLE.replace("demo\n", "${NUMBER}\n") + "    max_rejects: ${NUMBER}\n    source2: 1\n";
        let document = read(&text.replace("    source2: 1\n", ""));
        assert_eq!(problems(&document), [""; 0]);
        let spec = document.spec.unwrap();
        assert_eq!(spec.name, "4711");
        assert_eq!(spec.tables[0].1.max_rejects, Some(crate::spec::Threshold::Rows(4711)));
    }

    #[test]
    fn a_value_is_shown_as_it_is_written() {
        let document = read(WHOLE);
        assert_eq!(document.shown(&path!["target", "url"]).as_deref(), Some("${DATABASE_URL:-sqlite:demo.db}"));
        assert_eq!(document.shown(&path!["target"]), None);
        assert_eq!(document.shown(&path!["nowhere"]), None);
    }

    #[test]
    fn values_to_compare_with_keep_the_text_they_are_written_as() {
        let document = read(&format!(
            "{WHOLE}    checks:\n      - accepted_values: {{ column: x, values: [1.10, 007, no, 5, True, 99999999999999999999999, '1.0', 1_0] }}\n"
        ));
        assert_eq!(problems(&document), [""; 0]);
        let values = document.spec.unwrap().tables[0].1.checks[0].accepted_values.clone().unwrap().values;
        let values: Vec<_> = values.into_iter().map(|value| value.0).collect();
        assert_eq!(values, ["1.10", "007", "no", "5", "True", "99999999999999999999999", "1.0", "1_0"]);
    }

    #[test]
    fn aliases_and_merges_are_resolved_with_their_places() {
        let text = format!(
            "{WHOLE}    checks: &checks\n      - uniqe: [x]\n  b:\n    source: {{ path: b.csv }}\n    legacy_key: [r]\n    checks: *checks\n"
        );
        assert_eq!(problems(&read(&text)), ["10:9 unknown field `uniqe`", "10:9 unknown field `uniqe`"]);
        let text = WHOLE.replace("  account:\n", "  account: &a\n") + "  b:\n    <<: *a\n    legacy_key: [other]\n";
        let document = read(&text);
        assert_eq!(problems(&document), [""; 0]);
        assert_eq!(document.spec.unwrap().tables[1].1.legacy_key, ["other"]);
    }

    #[test]
    fn a_syntax_error_is_a_problem_at_its_place() {
        assert_eq!(problems(&read("a: 1\nü: [1\nb: 2\n")), ["3:2 illegal placement of ':' indicator"]);
        assert_eq!(problems(&read("ä: 1\nä: 2\n")), ["2:1 duplicate mapping key `ä` is not allowed here"]);
        assert_eq!(problems(&read("\u{feff}a: 1\na: 2\n")), ["2:1 duplicate mapping key `a` is not allowed here"]);
        assert_eq!(problems(&read("a: *nowhere")), ["1:4 reference to unknown value"]);
        assert_eq!(problems(&read("a: b\n---\nc: d\n")).len(), 1);
    }

    #[test]
    fn value_without_quotes_is_explained() {
        let hint = |text: &str| read(text).problems.list.remove(0).hint.unwrap();
        assert!(hint("target: { url: ${X:-y}, staging: s }\n").contains("a template needs quotes"));
        assert!(hint("where: a = 'b: c'\n").contains("a value that contains `: `"));
        assert!(hint("check: { expression: a = 'b: c', name: x }\n").contains("a value that contains `: `"));
    }

    #[test]
    fn what_is_no_pipeline_file_at_all_is_a_problem() {
        for text in ["", "# only a comment\n", "---\n...\n", "~"] {
            assert_eq!(problems(&read(text)), ["1:1 the file is empty"], "{text:?}");
        }
        assert_eq!(problems(&read("- a\n- b\n")), ["1:1 expected a mapping, found a list"]);
        assert_eq!(problems(&read("text\n")), ["1:1 expected a mapping, found a single value"]);
    }

    #[test]
    fn hostile_texts_are_problems_and_no_panic() {
        let bomb: String = (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, i| {
            let before = format!("*a{}, ", i - 1).repeat(9);
            format!("{text}a{i}: &a{i} [{before}]\n")
        });
        let texts = [
            bomb,
            "a: &a [*a]\n".to_owned(),
            "a: &a\n  <<: *a\n".to_owned(),
            "[".repeat(100_000),
            "{a: ".repeat(100_000),
            "- ".repeat(100_000),
            format!("{}{}", "[".repeat(200), "]".repeat(200)),
            format!("name: {}", "x".repeat(1_000_000)),
            format!("{}: 1\n", "x".repeat(900)),
            format!("name: \"{}", "\\x".repeat(1_000_000)),
            format!("{WHOLE}    ? [a]\n    : b\n"),
            "a\0b: 1".to_owned(),
            "name: \"\\0\"\n".to_owned(),
            "~: 1\n".to_owned(),
            "a: .nan\n".to_owned(),
            "a: !!binary '%%'\n".to_owned(),
            "tables: {\"a\\nb`'\\\"\": {\"x\\ny\": 1}}\n".to_owned(),
            "%YAML 9.9\n---\na: 1\n".to_owned(),
            "\r\n\t\r".to_owned(),
            "tables: ${".to_owned(),
            format!("tables: [{}]", "'${X}', ".repeat(50_000)),
            format!("{WHOLE}    checks: [{}]", "{}, ".repeat(20_000)),
        ];
        for text in texts {
            let document = read(&text);
            let start: String = text.chars().take(40).collect();
            assert!(!document.problems.is_empty(), "{start}");
            assert!(document.problems.list.len() <= MAX_PROBLEMS + 1, "{start}");
            let shown = document.problems.render(true);
            assert!(shown.len() < 200_000, "{start}: {}", shown.len());
            assert_eq!(document.problems.places().len(), document.problems.list.len());
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_with_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let vars = BTreeMap::new();
        for (path, says) in [
            (folder.path().join("missing.yaml"), "does not exist"),
            (folder.path().to_owned(), "it is a folder"),
            (file("latin.yaml", b"a: 1\nb: \xe4\n"), "line 2 is not UTF-8"),
            (file("large.yaml", &vec![b'#'; 17 << 20]), "it has more than 16 MiB"),
        ] {
            let error = load(&path, &vars).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(error.kind(), crate::error::Kind::Input);
            assert!(error.next_step().is_some());
        }
        assert!(load(&file("good.yaml", WHOLE.as_bytes()), &vars).unwrap().problems.is_empty());
    }
}
