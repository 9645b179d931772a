//! The language of the code: words that are not used, the form of doc comments, and the length of functions.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::REPOSITORY;

/// Words in doc comments and texts, and the word to use.
const WORDS: &[(&str, &str)] = &[
    ("brought in", "imported"),
    ("put back", "restored"),
    ("taken back", "rolled back"),
    ("take back", "roll back"),
    ("given up", "abandoned"),
    ("cut off", "interrupted"),
    ("goes on with", "resumes"),
    ("gone on", "continued"),
    ("kept out", "rejected"),
    ("left out", "skipped, excluded"),
    ("held against", "compared with"),
    ("there already", "already present"),
    ("anew", "again"),
    ("of no known kind", "has an unsupported …"),
    ("nobody", "no session, no role"),
    ("somebody", "another session, the operator"),
    ("whoever", "the role that"),
    ("mend ", "fix"),
    ("of its own accord", "automatically"),
    ("a table a table", "one per table"),
];

/// How no doc comment begins.
const OPENINGS: &[&str] = &["The same", "As [", "What ", "Of what", "Where "];

/// The longest function.
const LINES: usize = 70;

/// The longest name of a function, in characters.
const NAME: usize = 60;

/// Where words and lengths hold.
pub const ROOMS: &[&str] = &["src"];

/// Pages whose words are checked, beside those of `docs`. Code in backquotes is not read.
const PAGES: &[&str] = &["README.md", "CHANGELOG.md"];

/// The part of a line that is read: a doc comment, a comment, or a text.
struct Piece {
    place: String,
    text: String,
    is_doc: bool,
    /// Whether it is the first line of a doc comment.
    is_first: bool,
}

pub fn sources(rooms: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for room in rooms {
        let path = Path::new(REPOSITORY).join(room);
        let files = if path.is_dir() { crate::floors::files(&path) } else { vec![path] };
        for file in files {
            let name = file.strip_prefix(REPOSITORY).unwrap().display().to_string();
            let text = std::fs::read_to_string(&file).unwrap();
            // A unit test may name things as it likes.
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            if !name.contains("tests") {
                found.push((name, text));
            }
        }
    }
    assert!(!found.is_empty(), "there is nothing in {rooms:?}");
    found
}

fn pages() -> Vec<(String, String)> {
    let docs = std::fs::read_dir(Path::new(REPOSITORY).join("docs")).unwrap();
    let mut names: Vec<_> = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().display())).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"));
    names.extend(PAGES.iter().map(ToString::to_string));
    let read = |name: String| {
        let text = std::fs::read_to_string(Path::new(REPOSITORY).join(&name)).unwrap();
        (name, text)
    };
    names.into_iter().map(read).collect()
}

fn pieces(name: &str, text: &str) -> Vec<Piece> {
    if Path::new(name).extension().is_some_and(|extension| extension == "md") {
        let prose = |line: &str| line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
        let piece = |(at, line): (usize, &str)| Piece {
            place: format!("{name}:{}", at + 1),
            text: prose(line),
            is_doc: false,
            is_first: false,
        };
        return text.lines().enumerate().map(piece).collect();
    }
    let mut pieces = Vec::new();
    let mut was_doc = false;
    for (at, line) in text.lines().enumerate() {
        let (place, trimmed) = (format!("{name}:{}", at + 1), line.trim_start());
        let doc = trimmed.strip_prefix("///").or_else(|| trimmed.strip_prefix("//!"));
        if let Some(doc) = doc {
            let text = doc.trim_start().to_owned();
            pieces.push(Piece { place, text, is_doc: true, is_first: !was_doc });
        } else if let Some(comment) = trimmed.strip_prefix("//") {
            pieces.push(Piece { place, text: comment.trim_start().to_owned(), is_doc: false, is_first: false });
        } else {
            let texts = line.split('"').skip(1).step_by(2).filter(|text| !text.contains("SELECT"));
            pieces.extend(texts.map(|text| Piece {
                place: place.clone(),
                text: text.to_owned(),
                is_doc: false,
                is_first: false,
            }));
        }
        was_doc = doc.is_some();
    }
    pieces
}

/// Every place that breaks a rule of the words.
fn broken(name: &str, text: &str) -> String {
    let mut broken = String::new();
    for Piece { place, text, is_doc, is_first } in pieces(name, text) {
        let lower = text.to_lowercase();
        for (word, better) in WORDS.iter().filter(|(word, _)| lower.contains(word)) {
            writeln!(broken, "{place}: `{}` ({better}): {text}", word.trim()).unwrap();
        }
        if let Some(opening) = OPENINGS.iter().find(|opening| is_doc && is_first && text.starts_with(**opening)) {
            writeln!(broken, "{place}: a doc comment begins with `{}`: {text}", opening.trim()).unwrap();
        }
    }
    broken
}

/// The functions of a text that are longer than [`LINES`], unless they are one `match`.
fn long(name: &str, text: &str) -> String {
    let mut long = String::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start().trim_start_matches("pub ").trim_start_matches("async ");
        let head = if head.starts_with("pub(") { head.split_once(") ").map_or(head, |(_, rest)| rest) } else { head };
        let signature_end =
            lines[at..].iter().find(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'));
        if !head.trim_start_matches("async ").starts_with("fn ") || signature_end.is_none_or(|line| line.ends_with(';'))
        {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[at..].iter().position(|line| **line == end) else { continue };
        // A match that leaves no more than ten lines of the function outside of it.
        let inner = " ".repeat(indent + 4);
        let body = &lines[at..at + length];
        let is_one_match =
            body.iter().position(|line| line.starts_with(&format!("{inner}match "))).is_some_and(|begin| {
                let end = body[begin..].iter().position(|line| **line == format!("{inner}}}"));
                end.is_some_and(|lines| length - lines <= 10)
            });
        if length > LINES && !is_one_match {
            writeln!(long, "{name}:{}: {length} lines: {}", at + 1, line.trim()).unwrap();
        }
    }
    long
}

#[test]
fn words_are_those_of_the_field() {
    let broken: String = sources(ROOMS).into_iter().chain(pages()).map(|(name, text)| broken(&name, &text)).collect();
    assert!(broken.is_empty(), "\n{broken}");
}

#[test]
fn functions_fit_on_a_screen() {
    let long: String = sources(ROOMS).iter().map(|(name, text)| long(name, text)).collect();
    assert!(long.is_empty(), "\n{long}");
}

/// The functions of a text whose names are longer than [`NAME`].
fn long_names(name: &str, text: &str) -> String {
    let mut long = String::new();
    for (at, line) in text.lines().enumerate() {
        let Some((_, rest)) = line.split_once("fn ") else { continue };
        let function: String = rest.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
        if function.chars().count() > NAME {
            writeln!(long, "{name}:{}: {function}", at + 1).unwrap();
        }
    }
    long
}

#[test]
fn names_of_functions_and_tests_are_short() {
    let folders = ["src", "tests"].map(|folder| Path::new(REPOSITORY).join(folder));
    let files = folders.iter().flat_map(|folder| crate::floors::files(folder));
    let long: String =
        files.map(|file| long_names(&file.display().to_string(), &std::fs::read_to_string(&file).unwrap())).collect();
    assert!(long.is_empty(), "\n{long}");
}

#[test]
fn planted_breaches_are_found() {
    let text = "/// The same, anew.\nfn f() {\n    // It was cut off.\n    say(\"nobody was told\");\n}\n";
    let found = broken("f.rs", text);
    for breach in
        ["f.rs:1: `anew`", "f.rs:1: a doc comment begins with `The same`", "f.rs:3: `cut off`", "f.rs:4: `nobody`"]
    {
        assert!(found.contains(breach), "{breach} is not in\n{found}");
    }
    assert_eq!(broken("p.md", "`anew`\nloads it anew\n").lines().count(), 1);
    let body: String = (0..=LINES).fold(String::new(), |body, n| body + &format!("    call({n});\n"));
    assert!(long("f.rs", &format!("pub(super) async fn f() {{\n{body}}}\n")).contains("f.rs:1: 72 lines"));
    assert!(long("f.rs", &format!("fn f() {{\n    match x {{\n{body}    }}\n}}\n")).is_empty());
    let long_name = "n".repeat(NAME + 1);
    assert_eq!(
        long_names("f.rs", &format!("fn f() {{}}\nasync fn {long_name}() {{}}\n")),
        format!("f.rs:2: {long_name}\n")
    );
}
