//! `docs/security.md`: every sentence of it has a test, and its table has every function.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::REPOSITORY;

/// The page's paragraphs, list items, and table rows, each as one line; without headings and the heads of tables.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in page.lines().map(str::trim) {
        let begins = line.is_empty() || line.starts_with(['#', '|', '-']);
        if begins {
            blocks.push(String::new());
        }
        let last = blocks.last_mut().unwrap();
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(line);
    }
    let rule = |block: &String| block.starts_with("|---");
    let heads: BTreeSet<_> = (1..blocks.len()).filter(|&at| rule(&blocks[at])).flat_map(|at| [at - 1, at]).collect();
    let mut at = 0;
    blocks.retain(|block| {
        at += 1;
        !block.is_empty() && !block.starts_with('#') && !heads.contains(&(at - 1))
    });
    blocks
}

/// The sentences, list items, and cells of a block, each with the tests behind it.
fn sentences(block: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = block;
    while let Some(begin) = rest.find("<!--") {
        let end = begin + rest[begin..].find("-->").expect("a comment ends");
        let tests = rest[begin + 4..end].split(',').map(|name| name.trim().to_owned()).collect();
        found.push((rest[..begin].trim().to_owned(), tests));
        rest = &rest[end + 3..];
    }
    found.push((rest.trim().to_owned(), Vec::new()));
    found
}

/// Text without what is in backquotes, where a full stop ends no sentence.
fn prose(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join("_")
}

/// The functions in the sources of the project and its tests.
fn functions() -> BTreeSet<String> {
    let mut folders = vec![Path::new(REPOSITORY).join("src"), Path::new(REPOSITORY).join("tests")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let found = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
                names.extend(found.map(str::to_owned));
            }
        }
    }
    names
}

/// What is wrong with a page.
fn faults(page: &str, functions: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for block in blocks(page) {
        // What the page is, and how it is read.
        if block.starts_with("For the DBA who") {
            continue;
        }
        let is_row = block.starts_with('|');
        let mut without_test = 0;
        for (text, tests) in sentences(&block) {
            let text = prose(&text);
            let stops = text.matches(['.', '?', '!']).count();
            let last_cell = text.trim().trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim();
            let is_told = if is_row { !last_cell.is_empty() } else { !text.is_empty() };
            if stops > usize::from(text.ends_with(['.', '?', '!'])) || tests.is_empty() && is_told {
                // "Each of them can:" opens a list with the sentence before it.
                if !text.ends_with(':') {
                    faults.push(format!("a sentence without a test: {text}"));
                }
            }
            without_test += usize::from(tests.is_empty());
            faults.extend(tests.iter().filter(|name| !functions.contains(*name)).map(|name| format!("no test {name}")));
        }
        if without_test == sentences(&block).len() {
            faults.push(format!("nothing tests: {block}"));
        }
    }
    faults
}

#[test]
fn every_sentence_of_the_security_page_has_a_test() {
    let page = fs::read_to_string(Path::new(REPOSITORY).join("docs/security.md")).unwrap();
    let functions = functions();
    assert_eq!(faults(&page, &functions), Vec::<String>::new());
    // The check itself sees what is missing.
    let test = "every_sentence_of_the_security_page_has_a_test";
    assert_eq!(faults(&format!("One. <!-- {test} -->\n\n| a | b <!-- {test} --> |"), &functions), Vec::<String>::new());
    for wrong in [
        "One.".to_owned(),
        format!("One. Two. <!-- {test} -->"),
        format!("One. <!-- {test} --> Two."),
        format!("One `a.b`. <!-- {test} -->\n- two"),
        format!("| a | b <!-- {test} --> | c |"),
        "| a | b |".to_owned(),
        "One. <!-- no_such_test -->".to_owned(),
    ] {
        assert!(!faults(&wrong, &functions).is_empty(), "{wrong}");
    }
}
