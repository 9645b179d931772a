//! What comes back, told: reports on stdout, errors and notes on stderr.

use std::io::Write;

use super::args::Output;
use super::files::ReportFiles;
use crate::error::{Error, Kind, Result};
use crate::journal::Journal;
use crate::report::{self, Report, Verdict, property, value, visible};
use crate::spec::cover;

/// Tells a report: on stdout, and into the files that were asked for. The exit code is its verdict.
///
/// # Errors
/// Where it cannot be told; what was loaded stays loaded, and the error says so.
pub(super) fn tell(report: &Report, journal: Option<&Journal>, output: Output, files: ReportFiles) -> Result<u8> {
    let told = match output {
        Output::Text => Ok(report::text(report, journal.and_then(Journal::state))),
        Output::Json => json(report),
        Output::Github => Ok(report::github(report)),
    };
    let told = told.and_then(|text| say(&text));
    let written = files.write(report, journal);
    match told.and(written) {
        Err(error) if report.verdict == Verdict::Loaded => {
            Err(Error::new(error.kind(), format!("run {} is loaded and committed, but: {error}", report.run)).hint(
                format!("do not load it again; `pipeline report FILE {}` tells its report once more", report.run),
            ))
        }
        Err(error) => Err(error),
        Ok(()) => Ok(if report.verdict == Verdict::Failed { Kind::Data.exit_code() } else { 0 }),
    }
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::internal(format!("cannot write JSON: {error}")))?;
    Ok(text + "\n")
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
        Output::Github => say(&cover(&github_error(error))),
        Output::Json => say(&cover(&json_error(error))),
        Output::Text => {
            note(&cover(&text_error(error, color)));
            Ok(())
        }
    };
    if said.is_err() {
        note(&cover(&text_error(error, color)));
    }
}

fn github_error(error: &Error) -> String {
    let Some(problems) = error.problems() else { return format!("::error::{}\n", value(&error.to_string())) };
    let line = |(line, column, problem): (usize, usize, &crate::spec::Problem)| {
        let hint = problem.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        let text = value(&format!("{}{hint}", problem.message));
        let file = property(&problems.file.display().to_string());
        format!("::error file={file},line={line},col={column}::{text}\n")
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
    let hint = error.next_step().map(|hint| format!("\n\n{cyan}hint:{cyan:#} {}", visible(hint)));
    let message = error.to_string();
    format!("{}{red}error:{red:#} {}{}", problems.unwrap_or_default(), visible(&message), hint.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular() {
        assert_eq!([count(0_u64, "row"), count(1_usize, "row"), count(2_u32, "row")], ["0 rows", "1 row", "2 rows"]);
    }
}
