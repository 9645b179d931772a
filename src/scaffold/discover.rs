//! The files of a delta's folder, put together by what their names say, each with how it is written.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::name_match;
use super::profile::Sample;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::spec::{CsvSpec, Encoding, SourceSpec};

/// Files that hold the rows of one table.
pub(super) struct Files {
    /// The path as the pipeline file has it.
    pub(super) path: String,
    /// How CSV files are written.
    pub(super) csv: CsvSpec,
    /// Their first rows.
    pub(super) sample: Sample,
    /// The words of their names, and those of their folder where they are alone in it.
    words: Vec<Vec<String>>,
}

impl Files {
    /// How well their names fit a table's: 2 for the same words, 1 for a part of them, 0 for nothing.
    pub(super) fn fit(&self, table: &str) -> u8 {
        self.words.iter().map(|words| name_match::fits(words, table)).max().unwrap_or(0)
    }
}

/// The endings of files that can be read, without those of a compression.
const ENDINGS: [&str; 9] = ["csv", "tsv", "json", "jsonl", "ndjson", "parquet", "arrow", "arrows", "feather"];

/// Finds the files of a folder and of the folders in it; what cannot be read is noted, one sentence each.
///
/// # Errors
/// Where the folder cannot be listed.
pub(super) fn find(delta: &Path, folder: &Path, notes: &mut Vec<String>) -> Result<Vec<Files>> {
    let mut found = Vec::new();
    let (files, folders) = list(delta)?;
    groups(delta, folder, files, &mut found, notes);
    for inner in folders {
        let (files, _) = list(&inner)?;
        groups(&inner, folder, files, &mut found, notes);
    }
    Ok(found)
}

fn list(folder: &Path) -> Result<(Vec<String>, Vec<PathBuf>)> {
    let failed = |error: std::io::Error| {
        Error::input(format!("cannot list the folder `{}`: {error}", folder.display()))
            .hint("name the folder with the delta's files: `--delta DIR`")
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

/// The ending that tells a file's format; None where nothing here reads it.
fn ending(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    let (_, ending) = name.rsplit_once('.')?;
    ENDINGS.contains(&ending).then(|| ending.to_owned())
}

fn groups(inside: &Path, folder: &Path, names: Vec<String>, found: &mut Vec<Files>, notes: &mut Vec<String>) {
    let mut groups: BTreeMap<(Vec<String>, String), Vec<String>> = BTreeMap::new();
    for name in &names {
        if let Some(ending) = ending(name) {
            groups.entry((name_match::file_words(name), ending)).or_default().push(name.clone());
        }
    }
    let alone = groups.len() == 1;
    for ((words, _), members) in groups {
        let pattern = pattern(&members, &names);
        let path = relative(folder, &inside.join(&pattern));
        let mut all = vec![words];
        if let Some(name) = inside.file_name().and_then(|name| name.to_str()).filter(|_| alone) {
            all.push(name_match::words(name));
        }
        match read(&path, folder) {
            Ok((csv, sample)) => found.push(Files { path, csv, sample, words: all }),
            Err(error) => notes.push(format!("`{path}` cannot be read: {error}")),
        }
    }
}

/// One pattern that matches these files and no others of their folder.
fn pattern(members: &[String], all: &[String]) -> String {
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return String::new() };
    if members.len() == 1 {
        return first.clone();
    }
    let same: String = first.chars().zip(last.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let short = same.trim_end_matches(|char: char| char.is_ascii_digit() || char == '-' || char == '_');
    let ending = first
        .split_once('.')
        .map(|(_, ending)| ending)
        .filter(|ending| members.iter().all(|name| name.split_once('.').is_some_and(|(_, other)| other == *ending)));
    let fits = |begin: &str| all.iter().filter(|name| name.starts_with(begin)).all(|name| members.contains(name));
    let begin = if fits(short) && !short.is_empty() { &same[..(short.len() + 1).min(same.len())] } else { &same };
    format!("{}*{}", glob::Pattern::escape(begin), ending.map_or(String::new(), |ending| format!(".{ending}")))
}

/// Reads the first rows of files, in the dialect that gives most columns and fewest records that cannot be read.
fn read(path: &str, folder: &Path) -> Result<(CsvSpec, Sample)> {
    let open = |csv: &CsvSpec| {
        Source::try_new(
            &SourceSpec { path: path.to_owned(), format: None, ignore: Vec::new(), csv: csv.clone() },
            folder,
        )
    };
    let plain = CsvSpec::default();
    let mut best = (plain.clone(), open(&plain));
    for delimiter in [';', '\t', '|'] {
        let csv = CsvSpec { delimiter: Some(delimiter), ..plain.clone() };
        let columns = |source: &Result<Source>| source.as_ref().map_or(0, |source| source.schema().fields().len());
        let source = open(&csv);
        if columns(&source) > columns(&best.1) {
            best = (csv, source);
        }
    }
    let (mut csv, source) = (best.0, best.1?);
    let sample = Sample::read(&source);
    let dirty = |sample: &Option<Sample>| sample.as_ref().map_or(usize::MAX, |sample| sample.malformed);
    if dirty(&sample) > 0 {
        let latin = CsvSpec { encoding: Encoding::Latin1, ..csv.clone() };
        let other = open(&latin).ok().and_then(|source| Sample::read(&source));
        if dirty(&other) < dirty(&sample)
            && let Some(other) = other
        {
            return Ok((latin, other));
        }
    }
    csv.encoding = Encoding::Utf8;
    sample.map(|sample| (csv, sample)).ok_or_else(|| Error::input("it has no record that can be read"))
}

/// A path as it is written in a file of a folder.
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
    fn a_pattern_matches_its_files_and_no_others() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let all =
            names(&["person-1.csv", "person-2.csv", "personal.csv", "reads-2025-11.csv", "reads-2025-12.csv.zst"]);
        assert_eq!(pattern(&all[..2], &all), "person-*.csv");
        assert_eq!(pattern(&all[3..], &all), "reads-*");
        assert_eq!(pattern(&all[2..3], &all), "personal.csv");
    }

    #[test]
    fn a_path_is_written_from_the_folder_of_the_file() {
        assert_eq!(relative(Path::new("pipelines"), Path::new("sample-data/a.csv")), "../sample-data/a.csv");
        assert_eq!(relative(Path::new(""), Path::new("./in/a.csv")), "in/a.csv");
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/c/../d")), "../d");
    }
}
