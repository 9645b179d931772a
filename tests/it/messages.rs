//! All texts of the program that a user can read, as one page: who reads the change of a message sees it here.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::tidy::{ROOMS, sources};

/// The fewest words of a sentence.
const WORDS: usize = 3;

/// The literals of Rust code, without comments. A line that ends with a backslash is joined with the next one.
fn literals(text: &str) -> Vec<String> {
    let (mut found, mut chars) = (Vec::new(), text.chars().peekable());
    while let Some(char) = chars.next() {
        match char {
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|char| *char != '\n').is_some() {},
            // A character, not a lifetime.
            '\'' => match chars.next() {
                Some('\\') => drop(chars.by_ref().find(|char| *char == '\'')),
                _ => drop(chars.next_if_eq(&'\'')),
            },
            '"' => {
                let mut literal = String::new();
                while let Some(char) = chars.next_if(|char| *char != '"') {
                    match char {
                        '\\' => match chars.next() {
                            Some('\n') => while chars.next_if(|char| char.is_whitespace()).is_some() {},
                            Some('n') => literal.push('⏎'),
                            Some(escaped) => literal.push(escaped),
                            None => {}
                        },
                        char => literal.push(char),
                    }
                }
                chars.next();
                found.push(literal);
            }
            _ => {}
        }
    }
    found
}

/// Whether a literal is a sentence, or a part of one, and not code.
fn is_sentence(literal: &str) -> bool {
    let code =
        ["SELECT", "INSERT", "UPDATE ", "DELETE ", "CREATE", "COPY ", "PRAGMA", " AS ", "SET ", " FROM ", "::", " = "];
    let words = literal
        .split_whitespace()
        .filter(|word| word.chars().all(|char| char.is_alphabetic() || ",.:;".contains(char)));
    words.count() >= WORDS && !code.iter().any(|word| literal.contains(word))
}

#[test]
fn all_messages_are_on_one_page() {
    let mut page = String::new();
    for (name, text) in sources(ROOMS) {
        let sentences: BTreeSet<_> = literals(&text).into_iter().filter(|literal| is_sentence(literal)).collect();
        if !sentences.is_empty() {
            let lines: String = sentences.iter().map(|sentence| format!("  {sentence}\n")).collect();
            writeln!(page, "{name}\n{lines}").unwrap();
        }
    }
    insta::assert_snapshot!("messages", page);
}

#[test]
fn literals_are_found_in_code_and_not_in_comments() {
    let code = "// \"no one\"\nfn f<'a>() { g('\"', \"one \\\n    two\", '\\'', \"three\\n\"); }";
    assert_eq!(literals(code), ["one two", "three⏎"]);
    assert!(is_sentence("`{name}` is not a column") && !is_sentence("SELECT a few words of it"));
}
