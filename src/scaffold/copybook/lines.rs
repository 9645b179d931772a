//! The words of a copybook, in fixed and in free form.
//!
//! In fixed form, columns 1–6 and 73–80 are not part of the program, and column 7 marks comments and continued lines.

use super::{Place, Refusal};

/// A word, a literal, or the period that ends an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// A word in capitals, or a literal with its quotes.
    pub(super) text: String,
    pub(super) at: Place,
    /// Whether a period follows.
    pub(super) ends_entry: bool,
}

/// The columns of the program text in fixed form.
const TEXT: std::ops::Range<usize> = 7..72;

/// Lines that control a listing.
const LISTING: [&str; 5] = ["EJECT", "SKIP1", "SKIP2", "SKIP3", "TITLE"];

/// A character with its place.
type Placed = (char, Place);

/// Returns the words of a copybook.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Refusal> {
    let lines: Vec<Vec<char>> = text.lines().map(expanded).collect();
    let is_fixed = lines.iter().all(|line| is_fixed_form(line));
    let mut characters: Vec<Placed> = Vec::new();
    let mut quote = None;
    for (at, line) in lines.iter().enumerate() {
        let (range, indicator) = match is_fixed {
            true => (TEXT.start.min(line.len())..TEXT.end.min(line.len()), line.get(6).copied().unwrap_or(' ')),
            false => (0..line.len(), ' '),
        };
        let place = |column: usize| Place { line: at + 1, column: column + 1 };
        let content = range.clone().map(|column| (line[column], place(column)));
        let mut content: Vec<Placed> = content.collect();
        let first = content.iter().position(|(char, _)| *char != ' ').unwrap_or(content.len());
        let word: String = content[first..].iter().map(|(char, _)| *char).take_while(|char| *char != ' ').collect();
        let is_listing = LISTING.contains(&word.trim_end_matches('.').to_uppercase().as_str());
        if matches!(indicator, '*' | '/' | 'D' | 'd') || word.starts_with('*') || is_listing {
            continue;
        }
        if indicator == '-' {
            let mut rest = content.split_off(first);
            if quote.is_none() {
                let end = characters.iter().rposition(|(char, _)| *char != ' ').map_or(0, |last| last + 1);
                characters.truncate(end);
            } else if rest.first().is_some_and(|(char, _)| Some(*char) == quote) {
                rest.remove(0);
            } else {
                return place(6).refuse("the continued literal does not begin with its quote", CONTINUED);
            }
            content = rest;
        } else if let Some(open) = quote {
            return place(first).refuse(format!("the literal of an earlier line is not closed by {open}"), CONTINUED);
        }
        for (char, place) in content {
            match quote {
                Some(open) if open == char => quote = None,
                None if matches!(char, '\'' | '"') => quote = Some(char),
                _ => {}
            }
            characters.push((char, place));
        }
        if quote.is_none() {
            characters.push((' ', place(range.end)));
        }
    }
    split(&characters)
}

const CONTINUED: &str = "continue a literal with `-` in column 7 and a quote, or close it on its line";

/// Returns a line with blanks in place of tabs.
fn expanded(line: &str) -> Vec<char> {
    let mut characters = Vec::new();
    for char in line.trim_end().chars() {
        match char {
            '\t' => characters.resize(characters.len() / 8 * 8 + 8, ' '),
            char => characters.push(char),
        }
    }
    characters
}

/// Returns whether a line can be in fixed form: a sequence number or blanks, then the indicator.
fn is_fixed_form(line: &[char]) -> bool {
    let sequence = &line[..line.len().min(6)];
    let is_blank = sequence.iter().all(|char| *char == ' ');
    let is_number = sequence.len() == 6 && sequence.iter().all(|char| *char != ' ');
    let indicator = line.get(6).copied().unwrap_or(' ');
    (is_blank || is_number) && matches!(indicator, ' ' | '*' | '/' | '-' | 'D' | 'd')
}

fn split(characters: &[Placed]) -> Result<Vec<Token>, Refusal> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut at = 0;
    while let Some((first, place)) = characters.get(at).copied() {
        if matches!(first, ' ' | ',' | ';') {
            at += 1;
            continue;
        }
        let is = |at: usize, wanted: char| characters.get(at).is_some_and(|(char, _)| *char == wanted);
        if first == '*' && is(at + 1, '>') {
            let rest = characters[at..].iter().take_while(|(_, other)| other.line == place.line);
            at += rest.count();
            continue;
        }
        if first == '.' {
            at += 1;
            if let Some(last) = tokens.last_mut() {
                last.ends_entry = true;
            }
            continue;
        }
        let start = at;
        if matches!(first, '\'' | '"') {
            at += 1;
            while at < characters.len() && !is(at, first) {
                at += 1;
            }
            at += 1;
        } else {
            while characters.get(at).is_some_and(|(char, _)| *char != ' ') {
                at += 1;
            }
        }
        let Some(word) = characters.get(start..at) else {
            return place.refuse("the literal is not closed", CONTINUED);
        };
        let mut text: String = word.iter().map(|(char, _)| *char).collect();
        let mut ends_entry = false;
        if !matches!(first, '\'' | '"') {
            text = text.trim_end_matches([',', ';']).to_uppercase();
            ends_entry = text.ends_with('.');
            text.truncate(text.len() - usize::from(ends_entry));
        }
        tokens.push(Token { text, at: place, ends_entry });
    }
    Ok(tokens)
}
