//! The floor plan of `src/lib.rs` holds: an import goes down or stays, never up, and on one floor never round.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::REPOSITORY;

/// Where a line of code refers to a module: file and line, the file's module, the module it names.
struct Import {
    place: String,
    from: String,
    to: String,
}

/// Modules and their floors, from the table in `lib.rs`.
fn floors() -> BTreeMap<String, u8> {
    let text = std::fs::read_to_string(Path::new(REPOSITORY).join("src/lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("//! |")?.split('|').map(str::trim).collect();
        let module = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((module.to_owned(), cells[0].parse().ok()?))
    });
    rows.collect()
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The path of a file in modules: `src/check/mod.rs` is `check`, `src/check/read.rs` is `check::read`.
fn module_path(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(Path::new(REPOSITORY).join("src")).unwrap().with_extension("");
    let mut path: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    path.retain(|part| part != "mod");
    path
}

/// A line without its comment. A `//` in a string cuts too much, which a URL may; no import stands behind one.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn word(text: &str) -> String {
    text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

/// The names right behind `crate::` in a text, also those in braces.
fn named_behind(text: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_' || char == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                for part in list.split_inclusive([',', '{', '}']) {
                    if depth == 0 {
                        names.push(word(part.trim_start()));
                    }
                    depth += part.matches('{').count() as i32 - part.matches('}').count() as i32;
                    if depth < 0 {
                        break;
                    }
                }
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Everything that the files of `src` refer to by `crate::`, or by as many `super::` as lead to the root.
fn imports() -> Vec<Import> {
    let floors = floors();
    let all = files(&Path::new(REPOSITORY).join("src"));
    let mut macros: BTreeMap<String, String> = BTreeMap::new();
    for file in &all {
        let text = std::fs::read_to_string(file).unwrap();
        for (at, _) in text.match_indices("macro_rules! ").filter(|(at, _)| text[..*at].ends_with("#[macro_export]\n"))
        {
            macros.insert(word(&text[at + "macro_rules! ".len()..]), module_path(file)[0].clone());
        }
    }
    let mut found = Vec::new();
    for file in &all {
        let path = module_path(file);
        if ["lib", "main"].contains(&path[0].as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.lines().map(code).collect();
        let text = lines.join("\n");
        let by_crate = named_behind(&text, "crate::");
        // A unit test's module is one deeper, so there the same words lead to the file's own folder, not to the root.
        let by_super = named_behind(&text, &"super::".repeat(path.len()));
        let by_super = by_super.into_iter().filter(|name| floors.contains_key(name));
        for name in by_crate.into_iter().chain(by_super) {
            let line = lines.iter().position(|line| line.contains(&format!("::{name}"))).map_or(0, |line| line + 1);
            let place = format!("{}:{line}", file.strip_prefix(REPOSITORY).unwrap().display());
            let to = macros.get(&name).cloned().unwrap_or(name);
            assert!(
                floors.contains_key(&to),
                "{place} refers to `crate::{to}`, which the table in lib.rs does not have"
            );
            found.push(Import { place, from: path[0].clone(), to });
        }
    }
    found
}

#[test]
fn every_module_has_its_floor_in_lib_rs() {
    let floors = floors();
    let text = std::fs::read_to_string(Path::new(REPOSITORY).join("src/lib.rs")).unwrap();
    let declared: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).map(str::to_owned).collect();
    assert_eq!(floors.keys().cloned().collect::<BTreeSet<_>>(), declared);
    let folders: BTreeSet<_> =
        files(&Path::new(REPOSITORY).join("src")).iter().map(|file| module_path(file)[0].clone()).collect();
    let rooms: BTreeSet<_> = folders.into_iter().filter(|name| !["lib", "main"].contains(&name.as_str())).collect();
    assert_eq!(rooms, declared, "a folder of src that lib.rs does not declare, or the other way round");
}

#[test]
fn no_import_goes_up() {
    let floors = floors();
    let imports = imports();
    assert!(imports.len() > 100, "only {} imports were found: the search is broken", imports.len());
    let up: Vec<_> = imports
        .iter()
        .filter(|import| floors[&import.from] < floors[&import.to])
        .map(|import| format!("{}: {} uses {}", import.place, import.from, import.to))
        .collect();
    assert!(up.is_empty(), "imports that go up:\n{}", up.join("\n"));
}

#[test]
fn modules_of_one_floor_use_each_other_in_one_direction_only() {
    let floors = floors();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for import in imports() {
        if import.from != import.to && floors[&import.from] == floors[&import.to] {
            edges.entry(import.from).or_default().insert(import.to);
        }
    }
    // Take away what uses nothing of its floor any more, until nothing is left: what stays is a circle.
    loop {
        let leaves: Vec<String> =
            edges.values().flatten().filter(|to| edges.get(*to).is_none_or(BTreeSet::is_empty)).cloned().collect();
        if leaves.is_empty() {
            break;
        }
        for to in edges.values_mut() {
            to.retain(|module| !leaves.contains(module));
        }
    }
    edges.retain(|_, to| !to.is_empty());
    assert!(edges.is_empty(), "modules of one floor use each other in a circle: {edges:?}");
}

#[test]
fn all_terminal_output_passes_the_module_that_escapes_it() {
    let prints = ["println!", "print!", "dbg!", "stdout()", "stderr()"];
    let mut others = Vec::new();
    for file in files(&Path::new(REPOSITORY).join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        // A unit test may say what it likes.
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (at, line) in
            text.lines().enumerate().filter(|(_, line)| prints.iter().any(|print| code(line).contains(print)))
        {
            let asks = line.contains("is_terminal()") || line.contains("enabled(&std::io::stderr())");
            let name = file.strip_prefix(REPOSITORY).unwrap().display().to_string();
            // The crash tests' own, just before an abort.
            if !asks && !["src/cli/output.rs", "src/failpoint.rs"].contains(&name.as_str()) && !name.contains("tests") {
                others.push(format!("{name}:{}", at + 1));
            }
        }
    }
    assert!(others.is_empty(), "only src/cli/output.rs writes to the terminal: {others:?}");
}

#[test]
fn the_search_for_imports_sees_lists_and_paths_in_code() {
    let text = "use crate::{error::{Error, Result}, spec}; let x = crate::plan::y(); my_crate::no(); pub(crate) fn z()";
    assert_eq!(named_behind(text, "crate::"), ["error", "spec", "plan"]);
}
