//! A problem of the pipeline file, its location, and its rendering.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::locate::Locations;
use super::redactor::Redactor;

/// A path to a value in the pipeline file: `["tables", "account", "checks", "2", "unique"]`.
pub type Path = Vec<String>;

/// Builds a path from anything that implements `Display`: `path!["tables", name, "checks", index]`.
#[macro_export]
macro_rules! path {
    ($($segment:expr),* $(,)?) => { vec![$($segment.to_string()),*] };
}

/// A problem with its location and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path to the value with the problem.
    pub at: Path,
    /// The part of the text at `at` that the problem points to.
    pub mark: Mark,
    /// The message.
    pub message: String,
    /// The hint, if there is one.
    pub hint: Option<String>,
    /// Whether the file is correct, but something that it names is missing or unreadable.
    pub input: bool,
}

/// The part of the text that a problem points to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mark {
    /// The value; or its key if the value is empty or has several lines.
    #[default]
    Value,
    /// The key.
    Key,
    /// A range of bytes, for locations without a path.
    Bytes(Range<usize>),
}

/// All problems of one pipeline file.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// The file, as given on the command line.
    pub file: PathBuf,
    /// The text of the file.
    pub text: String,
    /// The problems, in the order they were found.
    pub list: Vec<Problem>,
}

/// The maximum number of bytes of a line that are shown on either side of a problem.
const MAX_BYTES_AROUND: usize = 1000;

impl Problems {
    /// Adds a problem without a hint.
    pub fn add(&mut self, at: Path, message: impl std::fmt::Display) {
        self.push(at, Mark::Value, message.to_string(), None);
    }

    /// Adds a problem with a hint.
    pub fn add_with_hint(&mut self, at: Path, message: impl std::fmt::Display, hint: impl std::fmt::Display) {
        self.push(at, Mark::Value, message.to_string(), Some(hint.to_string()));
    }

    /// Adds a problem of the key at `at`.
    pub fn add_at_key(&mut self, at: Path, message: impl std::fmt::Display, hint: Option<String>) {
        self.push(at, Mark::Key, message.to_string(), hint);
    }

    /// Adds a problem at a location without a path.
    pub fn add_at_bytes(&mut self, bytes: Range<usize>, message: impl std::fmt::Display, hint: Option<String>) {
        self.push(Path::new(), Mark::Bytes(bytes), message.to_string(), hint);
    }

    /// Adds a problem of an input that the file names.
    pub fn add_input(&mut self, at: Path, message: String, hint: Option<String>, is_unreadable: bool) {
        self.push(at, Mark::Value, message, hint);
        if let Some(problem) = self.list.last_mut() {
            problem.input = is_unreadable;
        }
    }

    fn push(&mut self, at: Path, mark: Mark, message: String, hint: Option<String>) {
        self.list.push(Problem { at, mark, message, hint, input: false });
    }

    /// Masks secrets in all messages.
    pub fn mask(&mut self, secrets: &Redactor) {
        for problem in &mut self.list {
            problem.message = secrets.mask(&problem.message).into_owned();
            problem.hint = problem.hint.take().map(|hint| secrets.mask(&hint).into_owned());
        }
    }

    /// Returns whether there are no problems.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns one line with the file and the number of problems.
    pub fn summary(&self) -> String {
        let count = self.list.len();
        format!("`{}` has {count} problem{}", self.file.display(), if count == 1 { "" } else { "s" })
    }

    /// Returns the line and the column of every problem, in the order of the text. Both start at 1; columns are characters.
    pub fn places(&self) -> Vec<(usize, usize, &Problem)> {
        let lines = Lines::of(&self.text);
        self.located().into_iter().map(|(span, problem)| lines.place(span.start, problem)).collect()
    }

    /// Renders all problems in the order of the file: message, line, and hint.
    pub fn render(&self, color: bool) -> String {
        let lines = Lines::of(&self.text);
        let renderer = if color { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let file = printable(&self.file.display().to_string());
        let mut out = String::new();
        for (span, problem) in self.located() {
            if !out.is_empty() {
                out.push_str("\n\n");
            }
            out.push_str(&lines.show(&renderer, &file, &span, problem));
        }
        if !out.is_empty() {
            out.push('\n');
        }
        out
    }

    /// Returns every problem with the bytes it points to, in the order of the text.
    fn located(&self) -> Vec<(Range<usize>, &Problem)> {
        let needs_index = self.list.iter().any(|problem| !matches!(problem.mark, Mark::Bytes(_)));
        let locations = needs_index.then(|| Locations::try_new(&self.text).ok()).flatten().unwrap_or_default();
        let mut located: Vec<_> = self.list.iter().map(|problem| (self.span(&locations, problem), problem)).collect();
        located.sort_by_key(|(span, _)| (span.start, Reverse(span.end)));
        located
    }

    /// Returns the bytes that a problem points to, all in one line.
    fn span(&self, locations: &Locations, problem: &Problem) -> Range<usize> {
        let value = locations.value(&problem.at).unwrap_or(0..0);
        let key = locations.key(&problem.at);
        let span = match (&problem.mark, key) {
            (Mark::Bytes(bytes), _) => bytes.clone(),
            (Mark::Key, Some(key)) => key,
            (_, Some(key))
                if value.is_empty() || self.text.get(value.clone()).is_some_and(|text| text.contains('\n')) =>
            {
                key
            }
            _ => value,
        };
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.floor_char_boundary(span.end).max(start);
        let first_line = self.text[start..end].split(['\n', '\r']).next().unwrap_or_default();
        start..start + first_line.len()
    }
}

/// A text with an index of its lines.
struct Lines<'t> {
    text: &'t str,
    /// The byte offset of each line.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Returns the number of a byte's line, from 0, and its text.
    fn line(&self, byte: usize) -> (usize, usize, &'t str) {
        let number = self.starts.partition_point(|start| *start <= byte).saturating_sub(1);
        let start = self.starts.get(number).copied().unwrap_or(0);
        let line = self.text[start..].split('\n').next().unwrap_or_default();
        (number, start, line.strip_suffix('\r').unwrap_or(line))
    }

    fn place<'p>(&self, byte: usize, problem: &'p Problem) -> (usize, usize, &'p Problem) {
        let (number, start, _) = self.line(byte);
        (number + 1, self.text[start..byte.max(start)].chars().count() + 1, problem)
    }

    fn show(&self, renderer: &Renderer, file: &str, span: &Range<usize>, problem: &Problem) -> String {
        let (number, start, line) = self.line(span.start);
        // Pass only the part of a very long line around the problem to the renderer, which shortens it further.
        let at = (span.start - start).min(line.len());
        let to = (span.end.max(span.start) - start).clamp(at, line.len());
        let from = line.floor_char_boundary(at.saturating_sub(MAX_BYTES_AROUND));
        let until =
            line.ceil_char_boundary(to.min(at + MAX_BYTES_AROUND).saturating_add(MAX_BYTES_AROUND).min(line.len()));
        let to = line.floor_char_boundary(to.min(until));
        let shown = &line[from..until];

        let snippet = Snippet::source(shown)
            .line_start(number + 1)
            .path(file)
            .annotation(AnnotationKind::Primary.span(at - from..to.max(at) - from));
        let mut group = Level::ERROR.primary_title(printable(&problem.message)).element(snippet);
        if let Some(hint) = &problem.hint {
            group = group.element(Level::HELP.message(printable(hint)));
        }
        let out = renderer.render(&[group]);
        if from == 0 {
            return out;
        }
        let cut = line[..from].chars().count();
        let column = line[from..at].chars().count() + 1;
        let place = |column: usize| format!("{file}:{}:{column}\n", number + 1);
        out.replacen(&place(column), &place(column + cut), 1)
    }
}

/// Escapes control characters and characters that change the direction of writing.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            // Writing to a string cannot fail.
            write!(out, "{}", c.escape_default()).unwrap_or_default();
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Problems {
        Problems { file: "delta.yaml".into(), text: text.into(), list: Vec::new() }
    }

    #[test]
    fn a_problem_is_shown_with_its_line_carets_and_hint() {
        let mut problems = problems("a: 1\ntables:\n  größe: {sevrity: ü, b: 2}\n");
        problems.add_at_key(
            path!["tables", "größe", "sevrity"],
            "unknown field `sevrity`",
            Some("did you mean `severity`?".into()),
        );
        problems.add(path!["a"], "expected text");
        assert_eq!(
            problems.render(false),
            "error: expected text\n --> delta.yaml:1:4\n  |\n1 | a: 1\n  |    ^\n\n\
             error: unknown field `sevrity`\n --> delta.yaml:3:11\n  |\n3 |   größe: {sevrity: ü, b: 2}\n  |           ^^^^^^^\n  |\n  \
             = help: did you mean `severity`?\n"
        );
        assert!(problems.render(true).contains("\u{1b}["));
    }

    #[test]
    fn long_value_is_shown_by_key_or_by_its_first_line() {
        let mut problems = problems("checks:\n  - a: 1\n    b: 2\nempty:\n");
        problems.add(path!["checks"], "one");
        problems.add(path!["checks", 0], "two");
        problems.add(path!["empty"], "three");
        let shown = problems.render(false);
        assert!(shown.contains("1 | checks:\n  | ^^^^^^\n"), "{shown}");
        assert!(shown.contains("2 |   - a: 1\n  |     ^^^^\n"), "{shown}");
        assert!(shown.contains("4 | empty:\n  | ^^^^^\n"), "{shown}");
    }

    #[test]
    fn places_count_characters_from_one() {
        let mut problems = problems("ä: 1\r\nöö: {ü: 2}\r\n");
        problems.add(path!["öö", "ü"], "second");
        problems.add(path!["ä"], "first");
        problems.add_at_bytes(problems.text.len()..900, "end", None);
        let places: Vec<_> =
            problems.places().into_iter().map(|(line, column, p)| (line, column, p.message.as_str())).collect();
        assert_eq!(places, [(1, 4, "first"), (2, 9, "second"), (3, 1, "end")]);
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut problems = problems("a: \"\u{202e}\"\n");
        problems.file = "x\u{1b}.yaml".into();
        problems.add_with_hint(path!["a"], "bad\n\u{1b}[31m", "line\r\u{202e}");
        let shown = problems.render(false);
        assert!(shown.contains("error: bad\\n\\u{1b}[31m\n --> x\\u{1b}.yaml:1:4"), "{shown}");
        assert!(shown.contains("help: line\\r\\u{202e}"), "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
    }

    #[test]
    fn line_of_ten_megabytes_is_shown_in_part_with_its_column() {
        let text = format!("a: [{} ö, {}]", "x, ".repeat(1_500_000), "y, ".repeat(1_500_000));
        let mut problems = problems(&text);
        problems.add_at_bytes(text.find('ö').map(|at| at..at + 2).unwrap(), "odd", None);
        problems.add_at_bytes(4..text.len(), "all of it", None);
        let shown = problems.render(false);
        assert!(shown.contains("delta.yaml:1:4500006\n"), "{shown}");
        assert!(shown.contains("delta.yaml:1:5\n"), "{shown}");
        assert!(shown.len() < 20_000, "{}", shown.len());
    }

    #[test]
    fn a_place_outside_of_the_text_is_no_panic() {
        for text in ["", "ä", "a: ü\n", "\n\n"] {
            let mut problems = problems(text);
            problems.add(path!["no", "where"], "lost");
            problems.add(path![], "root");
            problems.add_at_bytes(1..900, "beyond", None);
            problems.add_at_bytes(std::ops::Range { start: 700, end: 3 }, "backwards", None);
            assert_eq!(problems.places().len(), 4);
            assert!(problems.render(false).contains("lost"));
        }
    }
}
