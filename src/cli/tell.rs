//! What comes back, told: reports on stdout and in files, errors and notes on stderr.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::args::{Output, ReportFile};
use crate::error::{Error, Kind, Result};
use crate::report::{self, Report, Verdict};

/// The files that a report is written into. They are made beside their places before the work begins, so that a load does not
/// end without its report, and take their places when it is written: an older report stays until there is a new one.
#[derive(Debug, Default)]
pub(super) struct ReportFiles(Vec<(PathBuf, NamedTempFile)>);

/// What a report begins with: nothing else is ever overwritten.
const BEGINNING: &str = "{\n  \"version\":";

impl ReportFiles {
    /// Makes the files, empty.
    ///
    /// # Errors
    /// Where one cannot be made, or something that is no report is in its place.
    pub(super) fn create<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let create = |path: &Path| {
            refuse_other(path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let file = NamedTempFile::new_in(folder).map_err(|error| cannot_write(path, &error))?;
            Ok((path.to_owned(), file))
        };
        files.into_iter().map(create).collect::<Result<_>>().map(Self)
    }

    /// The files of `--report`.
    pub(super) fn of(files: &[ReportFile]) -> Result<Self> {
        Self::create(files.iter().map(|file| file.path.as_path()))
    }

    fn write(self, text: &str) -> Result<()> {
        for (path, mut file) in self.0 {
            file.write_all(text.as_bytes()).map_err(|error| cannot_write(&path, &error))?;
            file.persist(&path).map_err(|error| cannot_write(&path, &error.error))?;
        }
        Ok(())
    }
}

/// Refuses a place that holds anything but a report: a database, a delta, a pipeline file.
fn refuse_other(path: &Path) -> Result<()> {
    let Ok(file) = std::fs::File::open(path) else { return Ok(()) };
    let mut beginning = Vec::new();
    let read = file.take(BEGINNING.len() as u64).read_to_end(&mut beginning);
    match read {
        Ok(0) => Ok(()),
        Ok(_) if beginning == BEGINNING.as_bytes() => Ok(()),
        _ => Err(Error::usage(format!("`{}` is there already, and it is no report", path.display()))
            .hint("name another file: only an older report is overwritten")),
    }
}

/// Tells a report: on stdout, and into the files that were asked for. The exit code is its verdict.
///
/// # Errors
/// Where it cannot be told; what was loaded stays loaded, and the error says so.
pub(super) fn tell(report: &Report, output: Output, files: ReportFiles) -> Result<u8> {
    let told = match output {
        Output::Text => Ok(report::text(report)),
        Output::Json => json(report),
        Output::Github => Ok(github(report)),
    };
    let told = told.and_then(|text| say(&text));
    let written = json(report).and_then(|text| files.write(&text));
    match told.and(written) {
        Err(error) if report.verdict == Verdict::Loaded => {
            Err(Error::new(error.kind(), format!("run {} is loaded and committed, but: {error}", report.run))
                .hint(format!("do not load it again; `pipeline runs FILE {}` tells its report once more", report.run)))
        }
        Err(error) => Err(error),
        Ok(()) => Ok(if report.verdict == Verdict::Failed { Kind::Data.exit_code() } else { 0 }),
    }
}

fn github(report: &Report) -> String {
    let errors = report.reasons.iter().map(|reason| ("error", reason));
    let warnings = report.warnings.iter().map(|warning| ("warning", warning));
    let lines: Vec<_> = errors.chain(warnings).map(|(level, text)| format!("::{level}::{}\n", escaped(text))).collect();
    lines.concat()
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::internal(format!("cannot write JSON: {error}")))?;
    Ok(text + "\n")
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    Error::unreachable(format!("cannot write `{}`: {error}", path.display()))
        .hint("name a file in a folder that exists and has room")
}

/// A number of things: `1 table`, `2 tables`.
pub(super) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

/// Writes to stdout. A reader that went away ends the program in silence, as `head` expects.
pub(super) fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::unreachable(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr. Where that is impossible there is nobody to tell, and a run must not end for it.
pub(super) fn note(text: &str) {
    let _told = writeln!(std::io::stderr(), "{text}").is_ok();
}

pub(super) fn print_error(error: &Error, color: bool, output: Output) {
    let said = match output {
        Output::Github => say(&github_error(error)),
        Output::Json => say(&json_error(error)),
        Output::Text => {
            note(&text_error(error, color));
            Ok(())
        }
    };
    if said.is_err() {
        note(&text_error(error, color));
    }
}

fn github_error(error: &Error) -> String {
    let Some(problems) = error.problems() else { return format!("::error::{}\n", escaped(&error.to_string())) };
    let line = |(line, column, problem): (usize, usize, &crate::spec::Problem)| {
        let hint = problem.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        let text = escaped(&format!("{}{hint}", problem.message));
        format!("::error file={},line={line},col={column}::{text}\n", problems.file.display())
    };
    problems.places().into_iter().map(line).collect::<Vec<_>>().concat()
}

fn json_error(error: &Error) -> String {
    let places = error.problems().map(|problems| problems.places()).unwrap_or_default();
    let problems: Vec<_> = places
        .into_iter()
        .map(|(line, column, problem)| {
            serde_json::json!({ "line": line, "column": column, "message": problem.message, "hint": problem.hint })
        })
        .collect();
    let value = serde_json::json!({
        "version": 1, "error": error.to_string(), "hint": error.next_step(), "problems": problems,
    });
    format!("{value:#}\n")
}

fn text_error(error: &Error, color: bool) -> String {
    let (red, cyan) = if color {
        (anstyle::AnsiColor::Red.on_default().bold(), anstyle::AnsiColor::Cyan.on_default().bold())
    } else {
        (anstyle::Style::new(), anstyle::Style::new())
    };
    let problems = error.problems().map(|problems| format!("{}\n", problems.render(color)));
    let hint = error.next_step().map(|hint| format!("\n\n{cyan}hint:{cyan:#} {}", printable(hint)));
    let message = printable(&error.to_string());
    format!("{}{red}error:{red:#} {message}{}", problems.unwrap_or_default(), hint.unwrap_or_default())
}

/// Text without the control characters that data may bring, but with its lines.
fn printable(text: &str) -> String {
    text.replace(|char: char| char.is_control() && char != '\n', "\u{fffd}")
}

/// Text for a workflow command of GitHub's.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular() {
        assert_eq!([count(0_u64, "row"), count(1_usize, "row"), count(2_u32, "row")], ["0 rows", "1 row", "2 rows"]);
    }

    #[test]
    fn a_report_file_that_cannot_be_made_is_told_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| ReportFile { path: folder.path().join(name) };
        let error = ReportFiles::of(&[file("r.json"), file("nowhere/r.json")]).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.to_string().contains("nowhere/r.json"), "{error}");
    }

    #[test]
    fn only_an_older_report_is_overwritten_and_only_by_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        std::fs::write(&path, "SQLite format 3").unwrap();
        assert_eq!(ReportFiles::create([path.as_path()]).unwrap_err().kind(), Kind::Usage);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "SQLite format 3");

        let old = format!("{BEGINNING} 1, \"run\": \"old\"\n}}\n");
        std::fs::write(&path, &old).unwrap();
        drop(ReportFiles::create([path.as_path()]).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), old, "a run that was refused leaves it");
        ReportFiles::create([path.as_path()]).unwrap().write("{}").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing stays beside it");
    }
}
