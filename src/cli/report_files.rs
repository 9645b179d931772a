//! Report files in the requested formats.

use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use tempfile::NamedTempFile;

use super::args::{Format, ReportFile};
use super::output::json;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::output_files::OutputMode;
use crate::report::{self, Links, Report};

/// The files for a report. Temporary files are created before the work begins, so that a load does not end without its
/// report. They replace older reports only when the new report is written.
#[derive(Debug, Default)]
pub(super) struct ReportFiles(Vec<(Format, PathBuf, NamedTempFile)>);

impl Format {
    /// The beginning of a report in this format. Files with another beginning are never overwritten.
    fn beginning(self) -> &'static str {
        match self {
            Self::Html => "<!doctype html>\n<!-- delta-pipeline report -->",
            Self::Json => "{\n  \"version\":",
            Self::Junit => "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites ",
            Self::Markdown => report::MARKDOWN_BEGINNING,
        }
    }

    fn render(self, report: &Report, journal: Option<&Journal>, path: &Path) -> Result<String> {
        match self {
            Self::Html => {
                let rejects = report.rejects.as_ref().and_then(|folder| url(path, Path::new(folder)));
                report::html(report, journal, &Links { rejects })
            }
            Self::Json => json(report),
            Self::Junit => report::junit(report),
            Self::Markdown => Ok(report::markdown(report, journal)),
        }
    }
}

impl ReportFiles {
    /// Creates empty temporary files.
    ///
    /// # Errors
    /// If a file cannot be created, or if a path holds anything other than a report of its format.
    pub(super) fn create(files: &[ReportFile], mode: OutputMode) -> Result<Self> {
        let create = |ReportFile { format, path }: &ReportFile| {
            refuse_other(path, format.beginning(), "report")?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let file = mode.temporary(folder, ".report-");
            Ok((*format, path.clone(), file.map_err(|error| cannot_write(path, &error))?))
        };
        files.iter().map(create).collect::<Result<_>>().map(Self)
    }

    /// Writes the report to all files.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn write(self, report: &Report, journal: Option<&Journal>) -> Result<()> {
        for (format, path, mut file) in self.0 {
            let text = format.render(report, journal, &path)?;
            file.write_all(text.as_bytes()).map_err(|error| cannot_write(&path, &error))?;
            file.persist(&path).map_err(|error| cannot_write(&path, &error.error))?;
        }
        Ok(())
    }
}

/// Rejects an existing file with another beginning: it may be a database, a delta, or a pipeline file.
pub(super) fn refuse_other(path: &Path, beginning: &str, what: &str) -> Result<()> {
    let Ok(file) = std::fs::File::open(path) else { return Ok(()) };
    let mut found = Vec::new();
    let read = file.take(beginning.len() as u64).read_to_end(&mut found);
    match read {
        Ok(0) => Ok(()),
        Ok(_) if found == beginning.as_bytes() => Ok(()),
        _ => Err(Error::usage(format!("`{}` exists and is not a {what}", path.display()))
            .hint(format!("name another file; only an older {what} is overwritten"))),
    }
}

pub(super) fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    Error::unreachable(format!("cannot write `{}`: {error}", path.display()))
        .hint("name a file in an existing folder with free space")
}

/// Returns the relative URL from a file to a folder, with a final `/`; None if the folder does not exist.
fn url(file: &Path, folder: &Path) -> Option<String> {
    let (folder, here) = (folder.canonicalize().ok()?, file.parent()?);
    let here = if here.as_os_str().is_empty() { Path::new(".") } else { here }.canonicalize().ok()?;
    let (there, here): (Vec<_>, Vec<_>) = (folder.components().collect(), here.components().collect());
    let shared = there.iter().zip(&here).take_while(|(one, other)| one == other).count();
    let mut url = "../".repeat(here.len() - shared);
    for component in &there[shared..] {
        let Component::Normal(name) = component else { return None };
        url += &report::url_segment(name.to_str()?);
        url.push('/');
    }
    // With `./`, the URL is not empty, and its first segment cannot be taken for a scheme.
    Some(format!("./{url}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn an_unwritable_report_file_fails_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| ReportFile { format: Format::Json, path: folder.path().join(name) };
        let error = ReportFiles::create(&[file("r.json"), file("nowhere/r.json")], OutputMode::PRIVATE).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.to_string().contains("nowhere/r.json"), "{error}");
    }

    /// A report that the first version of this program stored in a target.
    const FIRST: &str = r#"{"version":1,"run":"r","pipeline":"p","command":"run","target":"t","started_at":"2026-11-22T10:58:18Z",
        "verdict":"loaded","reasons":[],"warnings":[],"tables":[{"name":"item","files":[{"name":"a.csv","bytes":9,"hash":"ff"}],
        "read":3,"rejected":1,"skipped":0,"accepted":2,"inserted":2,"keys":["1","2"],"checks":[{"name":"not_null(a)",
        "severity":"error","origin":"production: NOT NULL","violations":1}],"enforced_by_database":[],"triggers":[]}],
        "steps":[{"step":"read","seconds":0.5}],"rejects":"runs/r/rejects/"}"#;

    #[test]
    fn only_older_reports_of_the_format_are_overwritten() {
        let report: Report = serde_json::from_str(FIRST).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for format in [Format::Html, Format::Json, Format::Junit, Format::Markdown] {
            let path = folder.path().join(format!("{format:?}"));
            let files = [ReportFile { format, path: path.clone() }];
            std::fs::write(&path, "SQLite format 3").unwrap();
            assert_eq!(ReportFiles::create(&files, OutputMode::PRIVATE).unwrap_err().kind(), Kind::Usage);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "SQLite format 3");

            let old = format!("{}the old one", format.beginning());
            std::fs::write(&path, &old).unwrap();
            drop(ReportFiles::create(&files, OutputMode::PRIVATE).unwrap());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), old, "a refused run keeps it");
            ReportFiles::create(&files, OutputMode::PRIVATE).unwrap().write(&report, None).unwrap();
            let new = std::fs::read_to_string(&path).unwrap();
            assert!(new.contains("item") && !new.contains("the old one"), "{new}");
            ReportFiles::create(&files, OutputMode::PRIVATE).expect("the new file is recognized as a report");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "no temporary files remain");
    }

    #[test]
    fn a_link_leads_from_any_report_to_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir_all(path("runs/1 ä%/rejects")).unwrap();
        std::fs::create_dir_all(path("out/deep")).unwrap();
        let found = |from: &str| url(&path(from), &path("runs/1 ä%/rejects"));
        assert_eq!(found("r.html").as_deref(), Some("./runs/1%20%C3%A4%25/rejects/"));
        assert_eq!(found("out/deep/r.html").as_deref(), Some("./../../runs/1%20%C3%A4%25/rejects/"));
        assert_eq!(found("runs/1 ä%/rejects/r.html").as_deref(), Some("./"));
        assert_eq!(url(&path("r.html"), &path("gone")), None);
    }
}
