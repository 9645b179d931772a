//! Discovery of delta files: groups files by name, and detects the dialect of each group.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::copybook::Record;
use super::fixed::{self, Fixed};
use super::name_match::{self, EXACT, PART, TableName};
use super::profile::Sample;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::spec::{CsvSpec, Encoding, SourceSpec};

/// Files with the rows of one table.
pub(super) struct Files {
    /// The path or glob for the pipeline file.
    pub(super) path: String,
    pub(super) csv: CsvSpec,
    /// The layout of fixed-width files, with the record of the copybook.
    pub(super) fixed: Option<Fixed>,
    pub(super) sample: Sample,
    /// The table that the user names for the files.
    table: Option<String>,
    /// The name of the files without extensions, and that of the folder if it has no other files.
    names: Vec<String>,
    /// The name of the folder, which may be that of a schema.
    inside: Option<String>,
    /// The words of the file names, and those of the folder if it has no other files.
    words: Vec<Vec<String>>,
}

impl Files {
    /// Returns how well the names match a table: from 0, for no match, and [`PART`], for a part of the words, to [`EXACT`]. A table that
    /// the user names is the only match.
    pub(super) fn score(&self, table: &TableName<'_>) -> u8 {
        if let Some(chosen) = &self.table {
            return if chosen == table.name { EXACT } else { 0 };
        }
        let by_name = self.names.iter().map(|name| table.score_name(name, self.inside.as_deref()));
        let by_words = self.words.iter().map(|words| table.score(words));
        by_name.chain(by_words).max().unwrap_or(0)
    }

    /// Returns whether the name matches a table's only by a part of its words.
    pub(super) fn is_part_of(&self, table: &str) -> bool {
        self.score(&TableName::new(table)) == PART
    }
}

/// Reads the files that the user names for a table.
///
/// # Errors
/// If they cannot be found or read.
pub(super) fn chosen(
    table: &str,
    file: &Path,
    delta: Option<&Path>,
    folder: &Path,
    records: &[Record],
) -> Result<Files> {
    let inside = delta.map(|delta| delta.join(file)).filter(|inside| !file.exists() && inside.exists());
    let path = relative(folder, inside.as_deref().unwrap_or(file));
    let is_fixed = extension(&path).is_none() && !records.is_empty();
    let Read { csv, fixed, sample } =
        if is_fixed { fixed::read(&path, folder, records, &name_match::words(table))? } else { read(&path, folder)? };
    let table = Some(table.to_owned());
    Ok(Files { path, csv, fixed, sample, table, names: Vec::new(), inside: None, words: Vec::new() })
}

/// The readable file extensions, without those of compressions.
const EXTENSIONS: [&str; 9] = ["csv", "tsv", "json", "jsonl", "ndjson", "parquet", "arrow", "arrows", "feather"];

/// Finds the files of a folder and of its direct subfolders. Adds a note for each unreadable file. A file with the name of a table is not
/// grouped with others.
///
/// # Errors
/// If a folder cannot be listed.
pub(super) fn find(
    delta: &Path,
    folder: &Path,
    tables: &BTreeSet<String>,
    records: &[Record],
    notes: &mut Vec<String>,
) -> Result<Vec<Files>> {
    let mut found = Vec::new();
    let (files, folders) = list(delta)?;
    let mut search = Search { folder, tables, records, found: &mut found, notes };
    search.groups(delta, &files);
    for inner in folders {
        let (files, _) = list(&inner)?;
        search.groups(&inner, &files);
    }
    Ok(found)
}

/// A search for groups of files.
struct Search<'s> {
    folder: &'s Path,
    /// The names of production's tables, with and without their schemas, in lower case.
    tables: &'s BTreeSet<String>,
    /// The records of the copybook.
    records: &'s [Record],
    found: &'s mut Vec<Files>,
    notes: &'s mut Vec<String>,
}

fn list(folder: &Path) -> Result<(Vec<String>, Vec<PathBuf>)> {
    let failed = |error: std::io::Error| {
        Error::input(format!("cannot list the folder `{}`: {error}", folder.display()))
            .hint("name the folder with the delta files: `--delta DIR`")
    };
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.')) else {
            continue;
        };
        if path.is_dir() {
            folders.push(path);
        } else {
            files.push(name.to_owned());
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

/// Returns the extension that determines a file's format; None if the format is not supported.
fn extension(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    let (_, extension) = name.rsplit_once('.')?;
    EXTENSIONS.contains(&extension).then(|| extension.to_owned())
}

/// Returns whether a file's name is that of a COBOL source.
fn is_copybook(name: &str) -> bool {
    let name = name.to_lowercase();
    [".cpy", ".cbl", ".cob", ".copy"].iter().any(|end| name.ends_with(end))
}

/// Returns the name of a file without the extensions of its format and compression.
fn without_format(name: &str) -> &str {
    let cut = |name: &str, ending: &str| name.len() - ending.len();
    let lower = name.to_lowercase();
    let end = [".gz", ".zst"].iter().find(|ending| lower.ends_with(*ending)).map_or(name.len(), |end| cut(name, end));
    name.get(..end).and_then(|name| name.rsplit_once('.')).map_or(name, |(stem, _)| stem)
}

impl Search<'_> {
    /// Returns the name of a file without its extensions: up to the first point, unless it is the name of a table with its schema.
    fn stem<'n>(&self, name: &'n str) -> &'n str {
        let full = without_format(name);
        let is_table = full.contains('.') && self.tables.contains(&full.to_lowercase());
        if is_table { full } else { name.split('.').next().unwrap_or_default() }
    }

    /// Returns the words of a file's name that identify its table.
    fn words(&self, name: &str) -> Vec<String> {
        let stem = self.stem(name);
        if stem.contains('.') { name_match::words(stem) } else { name_match::file_words(name) }
    }

    /// Groups the files of a folder by their words.
    fn groups(&mut self, inside: &Path, names: &[String]) {
        let mut by_words: BTreeMap<(Vec<String>, String), Vec<String>> = BTreeMap::new();
        for name in names {
            // With a copybook, files of other extensions are fixed-width files.
            let is_fixed = !self.records.is_empty() && !is_copybook(name);
            match extension(name).or_else(|| is_fixed.then(String::new)) {
                Some(extension) => {
                    by_words.entry((self.words(name), extension)).or_default().push(name.clone());
                }
                None => self.notes.push(format!(
                    "skipped `{}`: its name has no extension of a supported format ({})",
                    relative(self.folder, &inside.join(name)),
                    EXTENSIONS.join(", ")
                )),
            }
        }
        let exact = |name: &str| Some(self.stem(name).to_lowercase()).filter(|stem| self.tables.contains(stem));
        let mut groups: Vec<(Vec<String>, String, Vec<String>)> = Vec::new();
        for ((words, extension), members) in by_words {
            let mut by_name: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
            for name in &members {
                by_name.entry(exact(name)).or_default().push(name.clone());
            }
            match by_name.keys().flatten().count() {
                0 | 1 => groups.push((words, extension, members)),
                _ => groups.extend(by_name.into_values().map(|members| (words.clone(), extension.clone(), members))),
            }
        }
        let is_only_group = groups.len() == 1;
        let folder = inside.file_name().and_then(|name| name.to_str());
        for (words, extension, members) in groups {
            let path = relative(self.folder, &inside.join(pattern(&members, names)));
            let (mut all, mut names) =
                (vec![words], members.iter().map(|name| self.stem(name).to_owned()).collect::<Vec<_>>());
            if let Some(name) = folder.filter(|_| is_only_group) {
                all.push(name_match::words(name));
                names.push(name.to_owned());
            }
            let is_fixed = extension.is_empty();
            let found = match is_fixed {
                true => fixed::read(&path, self.folder, self.records, &all[0]),
                false => read(&path, self.folder),
            };
            match found {
                Ok(Read { csv, fixed, sample }) => {
                    let inside = folder.map(ToOwned::to_owned);
                    self.found.push(Files { path, csv, fixed, sample, table: None, names, inside, words: all });
                }
                Err(error) => self.notes.push(format!("cannot read `{path}`: {error}")),
            }
        }
    }
}

/// Returns a glob that matches these files, and no other files of their folder.
fn pattern(members: &[String], all: &[String]) -> String {
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return String::new() };
    if members.len() == 1 {
        return first.clone();
    }
    let same: String = first.chars().zip(last.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let short = same.trim_end_matches(|char: char| char.is_ascii_digit() || char == '-' || char == '_');
    let suffix = first
        .split_once('.')
        .map(|(_, suffix)| suffix)
        .filter(|suffix| members.iter().all(|name| name.split_once('.').is_some_and(|(_, other)| other == *suffix)));
    let is_exact = |prefix: &str| all.iter().filter(|name| name.starts_with(prefix)).all(|name| members.contains(name));
    let prefix = if is_exact(short) && !short.is_empty() { &same[..(short.len() + 1).min(same.len())] } else { &same };
    format!("{}*{}", glob::Pattern::escape(prefix), suffix.map_or(String::new(), |suffix| format!(".{suffix}")))
}

/// The first rows of files, with the settings of their source.
pub(super) struct Read {
    pub(super) csv: CsvSpec,
    pub(super) fixed: Option<Fixed>,
    pub(super) sample: Sample,
}

/// Reads the first rows of files in the dialect with the most columns and the fewest malformed records.
fn read(path: &str, folder: &Path) -> Result<Read> {
    let open = |csv: &CsvSpec| Source::try_new(&SourceSpec { csv: csv.clone(), ..SourceSpec::at(path) }, folder);
    let plain = CsvSpec::default();
    let mut best = (plain.clone(), open(&plain));
    for delimiter in [";", "\t", "|"] {
        let csv = CsvSpec { delimiter: Some(delimiter.to_owned()), ..plain.clone() };
        let columns = |source: &Result<Source>| source.as_ref().map_or(0, |source| source.schema().fields().len());
        let source = open(&csv);
        if columns(&source) > columns(&best.1) {
            best = (csv, source);
        }
    }
    let (mut csv, source) = (best.0, best.1?);
    let sample = Sample::read(&source);
    let malformed = |sample: &Option<Sample>| sample.as_ref().map_or(usize::MAX, |sample| sample.malformed);
    if malformed(&sample) > 0 {
        let latin = CsvSpec { encoding: Encoding::LATIN_1, ..csv.clone() };
        let other = open(&latin).ok().and_then(|source| Sample::read(&source));
        if malformed(&other) < malformed(&sample)
            && let Some(other) = other
        {
            return Ok(Read { csv: latin, fixed: None, sample: other });
        }
    }
    csv.encoding = Encoding::UTF_8;
    sample.map(|sample| Read { csv, fixed: None, sample }).ok_or_else(|| Error::input("no readable records"))
}

/// Returns a path relative to a folder.
pub fn relative(folder: &Path, path: &Path) -> String {
    let absolute = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    };
    let clean = |path: PathBuf| {
        let mut parts: Vec<_> = Vec::new();
        for part in path.components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => drop(parts.pop()),
                part => parts.push(part.as_os_str().to_owned()),
            }
        }
        parts
    };
    let (from, to) = (clean(absolute(folder)), clean(absolute(path)));
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut out: PathBuf = std::iter::repeat_n("..", from.len() - same).collect();
    out.extend(&to[same..]);
    out.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_its_files_only() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let all =
            names(&["person-1.csv", "person-2.csv", "personal.csv", "reads-2025-11.csv", "reads-2025-12.csv.zst"]);
        assert_eq!(pattern(&all[..2], &all), "person-*.csv");
        assert_eq!(pattern(&all[3..], &all), "reads-*");
        assert_eq!(pattern(&all[2..3], &all), "personal.csv");
    }

    #[test]
    fn a_path_is_relative_to_the_folder_of_the_file() {
        assert_eq!(relative(Path::new("pipelines"), Path::new("sample-data/a.csv")), "../sample-data/a.csv");
        assert_eq!(relative(Path::new(""), Path::new("./in/a.csv")), "in/a.csv");
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/c/../d")), "../d");
    }
}
