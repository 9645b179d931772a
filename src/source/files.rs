//! The files that a table's `path` selects, and their formats.

use std::fs;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::SourceFile;
use crate::error::{Error, Result};
use crate::spec::{Format, SourceSpec};

/// The compression of a file, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Glob rules of a shell: `*` does not match `/` or hidden files.
const SHELL: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The maximum number of names in a hint.
const NAMES_IN_HINT: usize = 8;

/// Finds the files of a source, sorted by path.
///
/// A path to a file selects that file. A folder selects its files of the format, without hidden files and subfolders. A
/// glob selects its matches. The files' columns are not yet known.
pub(super) fn find(spec: &SourceSpec, folder: &Path) -> Result<Vec<SourceFile>> {
    let path = folder.join(&spec.path);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => in_folder(spec, folder, &path),
        Ok(metadata) if metadata.is_file() => one_file(spec, folder, path, metadata.len()).map(|file| vec![file]),
        Ok(_) => Err(Error::input(format!("`{}` is not a regular file", spec.path))
            .hint("write the output of a pipe to a file first, because a source is read more than once")),
        Err(_) if spec.path.contains(['*', '?', '[']) => by_glob(spec, folder),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing(spec, &path)),
        Err(error) => Err(Error::input(format!("cannot read `{}`: {error}", spec.path))),
    }
}

fn one_file(spec: &SourceSpec, folder: &Path, path: PathBuf, bytes: u64) -> Result<SourceFile> {
    let name = display_path(&path, folder);
    let format = spec.format.or_else(|| format_of(&path)).ok_or_else(|| unknown(&name))?;
    Ok(SourceFile {
        compression: compression_of(&path),
        columns: Vec::new(),
        numbered: false,
        path,
        name,
        format,
        bytes,
    })
}

fn in_folder(spec: &SourceSpec, folder: &Path, path: &Path) -> Result<Vec<SourceFile>> {
    let mut others = Vec::new();
    let mut paths = Vec::new();
    for entry in list(path).map_err(|error| Error::input(format!("cannot list `{}`: {error}", spec.path)))? {
        match format_of(&entry) {
            Some(format) if spec.format.is_none_or(|wanted| wanted == format) => paths.push(entry),
            _ => others.push(entry),
        }
    }
    let files = open_all(spec, folder, paths)?;
    if files.is_empty() {
        let wanted = spec.format.map_or("file of a supported format", of_format);
        return Err(Error::input(format!("the folder `{}` contains no {wanted}", spec.path)).hint(
            if others.is_empty() {
                "to include subfolders, use a glob: `folder/**/*.csv`".to_string()
            } else {
                format!("it contains {}; for other extensions, use a glob and `format:`", names(&others))
            },
        ));
    }
    Ok(files)
}

fn by_glob(spec: &SourceSpec, folder: &Path) -> Result<Vec<SourceFile>> {
    let base = Pattern::escape(&folder.to_string_lossy());
    let pattern = Path::new(&base).join(&spec.path);
    let matches = glob::glob_with(&pattern.to_string_lossy(), SHELL).map_err(|error| {
        Error::pipeline(format!("invalid glob `{}`: {}", spec.path, error.msg))
            .hint("use `*` for any part of a name, `**` for folders, `?` for one character, `[ab]` for one of several")
    })?;
    let mut paths = Vec::new();
    for path in matches {
        let path = path.map_err(|error| Error::input(format!("cannot read `{}`: {}", spec.path, error.error())))?;
        match (format_of(&path), spec.format) {
            (Some(format), Some(wanted)) if format != wanted => {}
            _ => paths.push(path),
        }
    }
    let files = open_all(spec, folder, paths)?;
    if files.is_empty() {
        return Err(missing(spec, &folder.join(&spec.path)));
    }
    Ok(files)
}

/// Returns the files among `paths`, in order; all must have one format.
fn open_all(spec: &SourceSpec, folder: &Path, mut paths: Vec<PathBuf>) -> Result<Vec<SourceFile>> {
    paths.sort();
    let mut files: Vec<SourceFile> = Vec::with_capacity(paths.len());
    for path in paths {
        let metadata = fs::metadata(&path)
            .map_err(|error| Error::input(format!("cannot read `{}`: {error}", display_path(&path, folder))))?;
        if metadata.is_file() {
            files.push(one_file(spec, folder, path, metadata.len())?);
        }
    }
    if let Some(other) = files.iter().find(|file| file.format != files[0].format) {
        return Err(Error::input(format!(
            "`{}` selects files of different formats: `{}` and `{}`",
            spec.path, files[0].name, other.name
        ))
        .hint("choose one with `format: csv`, `json`, `parquet`, `arrow`, or `fixed`"));
    }
    Ok(files)
}

/// Returns a folder's entries that are not hidden, sorted.
fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut paths = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .filter(|path| !path.as_ref().is_ok_and(|path| file_name(path).starts_with('.')))
        .collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Returns the format and the compression that a file's name implies.
fn format_of(path: &Path) -> Option<Format> {
    let name = file_name(path).to_lowercase();
    let (name, packed) = match name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")) {
        Some(name) => (name, true),
        None => (name.as_str(), false),
    };
    let (_, extension) = name.rsplit_once('.')?;
    match extension {
        "csv" | "tsv" => Some(Format::Csv),
        "json" | "jsonl" | "ndjson" => Some(Format::Json),
        "parquet" if !packed => Some(Format::Parquet),
        "arrow" | "arrows" | "feather" if !packed => Some(Format::Arrow),
        _ => None,
    }
}

fn compression_of(path: &Path) -> Compression {
    let name = file_name(path).to_lowercase();
    match name.rsplit_once('.') {
        Some((_, "gz")) => Compression::Gzip,
        Some((_, "zst")) => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Returns whether a file's name implies tabs between fields.
pub(super) fn is_tsv(path: &Path) -> bool {
    let name = file_name(path).to_lowercase();
    [".tsv", ".tsv.gz", ".tsv.zst"].iter().any(|end| name.ends_with(end))
}

fn of_format(format: Format) -> &'static str {
    match format {
        Format::Csv => "CSV file",
        Format::Json => "JSON file",
        Format::Parquet => "Parquet file",
        Format::Arrow => "Arrow file",
        Format::Fixed => "fixed-width file",
    }
}

fn unknown(name: &str) -> Error {
    Error::input(format!("cannot infer the format of `{name}` from its name"))
        .hint("set `format: csv`, `json`, `parquet`, `arrow`, or `fixed` next to `path:`")
}

/// Returns the error for a missing path; its hint lists what exists.
fn missing(spec: &SourceSpec, path: &Path) -> Error {
    let is_glob = spec.path.contains(['*', '?', '[']);
    let message =
        if is_glob { format!("no file matches `{}`", spec.path) } else { format!("`{}` does not exist", spec.path) };
    // The deepest existing folder of the path, and the name that is missing in it.
    let (mut folder, mut wanted) = (PathBuf::new(), String::new());
    for component in path.components() {
        let next = folder.join(component);
        if !next.is_dir() {
            wanted = component.as_os_str().to_string_lossy().into_owned();
            break;
        }
        folder = next;
    }
    let entries = list(&folder).unwrap_or_default();
    let similar = |path: &&PathBuf| strsim::jaro_winkler(&wanted.to_lowercase(), &file_name(path).to_lowercase()) > 0.8;
    let near: Vec<PathBuf> = entries.iter().filter(similar).cloned().collect();
    let looked = if folder.as_os_str().is_empty() { Path::new(".") } else { folder.as_path() };
    let looked = format!("no `{wanted}` in `{}`", looked.display());
    Error::input(message).hint(match (near.is_empty(), entries.is_empty()) {
        (false, _) => format!("{looked}; did you mean {}?", names(&near)),
        (true, false) => format!("{looked}; it contains {}", names(&entries)),
        (true, true) => format!("{looked}, which is empty"),
    })
}

fn names(paths: &[PathBuf]) -> String {
    let mut text: Vec<String> = paths.iter().take(NAMES_IN_HINT).map(|path| format!("`{}`", file_name(path))).collect();
    if paths.len() > NAMES_IN_HINT {
        text.push(format!("{} more", paths.len() - NAMES_IN_HINT));
    }
    text.join(", ")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the path for messages: relative to the pipeline's folder if it is inside, else unchanged.
fn display_path(path: &Path, folder: &Path) -> String {
    let plain = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let inside = path.strip_prefix(folder).map(Path::to_path_buf);
    let inside = inside.or_else(|_| plain(path).strip_prefix(plain(folder)).map(Path::to_path_buf));
    let shown = inside.unwrap_or_else(|_| path.to_path_buf());
    shown.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), "a\n1\n").unwrap();
        }
        folder
    }

    fn spec(path: &str, format: Option<Format>) -> SourceSpec {
        SourceSpec { format, ..SourceSpec::at(path) }
    }

    fn found(names: &[&str], path: &str, format: Option<Format>) -> Result<Vec<String>> {
        let folder = folder(names);
        Ok(find(&spec(path, format), folder.path())?.into_iter().map(|file| file.name).collect())
    }

    fn refused(names: &[&str], path: &str, format: Option<Format>) -> (String, String) {
        let error = found(names, path, format).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        (error.to_string(), error.next_step().unwrap().to_string())
    }

    #[test]
    fn a_folder_gives_its_files_of_the_format_sorted() {
        let files = ["d/b.csv", "d/a.csv.gz", "d/README.md", "d/.hidden.csv", "d/sub/c.csv"];
        assert_eq!(found(&files, "d", None).unwrap(), ["d/a.csv.gz", "d/b.csv"]);
        assert_eq!(found(&["d/b.csv", "d/a.json"], "d", Some(Format::Csv)).unwrap(), ["d/b.csv"]);
    }

    #[test]
    fn a_glob_gives_what_it_matches_sorted() {
        let files = ["in/b-2.csv", "in/b-1.CSV", "in/c.csv", "in/b-3.json"];
        assert_eq!(found(&files, "in/b-*.csv", None).unwrap(), ["in/b-2.csv"]);
        assert_eq!(found(&files, "in/b-*", Some(Format::Csv)).unwrap(), ["in/b-1.CSV", "in/b-2.csv"]);
        assert_eq!(found(&["in/x.dat", "in/y.dat"], "in/*.dat", Some(Format::Csv)).unwrap(), ["in/x.dat", "in/y.dat"]);
    }

    #[test]
    fn a_glob_works_below_a_folder_whose_name_looks_like_a_glob() {
        let folder = folder(&["[1]/a.csv", "1/b.csv"]);
        let files = find(&spec("*.csv", None), &folder.path().join("[1]")).unwrap();
        assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a.csv"]);
    }

    #[test]
    fn a_file_outside_the_pipelines_folder_is_shown_as_given() {
        let folder = folder(&["data/a.csv", "pipelines/p.yaml"]);
        let files = find(&spec("../data/*.csv", None), &folder.path().join("pipelines")).unwrap();
        assert_eq!(files[0].name, "../data/a.csv");
        let absolute = folder.path().join("data/a.csv").to_string_lossy().into_owned();
        assert_eq!(find(&spec(&absolute, None), &folder.path().join("pipelines")).unwrap()[0].name, absolute);
        assert_eq!(find(&spec(&absolute, None), folder.path()).unwrap()[0].name, "data/a.csv");
    }

    #[test]
    fn a_missing_file_names_the_one_that_was_meant() {
        let (message, hint) = refused(&["in/account-1.csv", "in/zebra.json"], "in/acount-1.csv", None);
        assert_eq!(message, "`in/acount-1.csv` does not exist");
        assert!(hint.contains("did you mean `account-1.csv`?"), "{hint}");
    }

    #[test]
    fn an_empty_glob_says_where_it_looked_and_what_is_there() {
        let (message, hint) = refused(&["in/x.parquet"], "in/account-*.csv", None);
        assert_eq!(message, "no file matches `in/account-*.csv`");
        assert!(hint.contains("no `account-*.csv` in") && hint.contains("it contains `x.parquet`"), "{hint}");
        let (_, hint) = refused(&["in/x.parquet"], "inn/*.csv", None);
        assert!(hint.contains("did you mean `in`?"), "{hint}");
    }

    #[test]
    fn a_folder_without_files_of_the_format_says_what_it_holds() {
        let (message, hint) = refused(&["d/a.json"], "d", Some(Format::Parquet));
        assert_eq!(message, "the folder `d` contains no Parquet file");
        assert!(hint.contains("`a.json`"), "{hint}");
    }

    #[test]
    fn an_unknown_ending_asks_for_the_format() {
        let (message, hint) = refused(&["x.dat"], "x.dat", None);
        assert_eq!(message, "cannot infer the format of `x.dat` from its name");
        assert!(hint.contains("`format: csv`"), "{hint}");
        assert_eq!(found(&["x.dat"], "x.dat", Some(Format::Csv)).unwrap(), ["x.dat"]);
        refused(&["x.parquet.gz"], "x.parquet.gz", None);
    }

    #[test]
    fn mixed_formats_are_refused_unless_one_is_named() {
        let (message, _) = refused(&["d/a.csv", "d/b.json"], "d", None);
        assert_eq!(message, "`d` selects files of different formats: `d/a.csv` and `d/b.json`");
        refused(&["d/a.csv", "d/b.json"], "d/*", None);
        assert_eq!(found(&["d/a.csv", "d/b.json"], "d/*", Some(Format::Json)).unwrap(), ["d/b.json"]);
    }

    #[test]
    fn file_ending_determines_format_and_compression() {
        for (name, format, compression) in [
            ("a.CSV", Some(Format::Csv), Compression::None),
            ("a.tsv.gz", Some(Format::Csv), Compression::Gzip),
            ("a.b.jsonl.zst", Some(Format::Json), Compression::Zstd),
            ("a.ndjson", Some(Format::Json), Compression::None),
            ("a.parquet", Some(Format::Parquet), Compression::None),
            ("a.feather", Some(Format::Arrow), Compression::None),
            ("csv", None, Compression::None),
        ] {
            assert_eq!((format_of(Path::new(name)), compression_of(Path::new(name))), (format, compression), "{name}");
        }
    }
}
