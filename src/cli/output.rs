//! Output: reports on stdout, errors and notes on stderr.
//!
//! No other code writes there, and all text is made [`visible`] first. So data, file names, and server messages cannot control the terminal.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use super::args::{Color, Output};
use super::report_files::ReportFiles;
use crate::diagnostic::cover;
use crate::error::{Error, Kind, Result};
use crate::journal::Journal;
use crate::report::{self, Report, Verdict, is_harmful, property, value, visible};

/// Writes a report to stdout and to the requested files. The exit code reflects its verdict.
///
/// # Errors
/// If an output cannot be written. Loaded rows stay loaded, and the error says so.
pub(super) fn print_report(
    report: &Report,
    journal: Option<&Journal>,
    output: Output,
    files: ReportFiles,
) -> Result<u8> {
    let text = match output {
        Output::Text => Ok(report::text(report, journal.and_then(Journal::state))),
        Output::Json => json(report),
        Output::Github => Ok(report::github(report)),
    };
    let printed = text.and_then(|text| print(&text));
    let written = files.write(report, journal);
    match printed.and(written) {
        Err(error) if report.verdict == Verdict::Loaded => {
            Err(Error::new(error.kind(), format!("run {} is loaded and committed, but: {error}", report.run))
                .hint(format!("do not load again; print the report with `pipeline report FILE {}`", report.run)))
        }
        Err(error) => Err(error),
        Ok(()) => Ok(if report.verdict == Verdict::Failed { Kind::Data.exit_code() } else { 0 }),
    }
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::internal(format!("cannot write JSON: {error}")))?;
    Ok(escaped(&text) + "\n")
}

/// Escapes the characters of JSON that control a terminal. They occur only in strings, so the JSON keeps its meaning.
pub(super) fn escaped(json: &str) -> String {
    let escape = |char: char| match char {
        char if is_harmful(char) => format!("\\u{:04x}", u32::from(char)),
        char => char.to_string(),
    };
    json.chars().map(escape).collect()
}

/// Formats a number with its noun: `1 table`, `2 tables`.
pub(super) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

pub(super) fn print(text: &str) -> Result<()> {
    write_out(&visible(text))
}

/// Writes text for another program, such as a script, to stdout: unchanged, unless stdout is a terminal.
pub(super) fn print_raw(text: &str) -> Result<()> {
    if std::io::stdout().is_terminal() { print(text) } else { write_out(text) }
}

/// Writes to stdout. A closed pipe is not an error, as `head` expects.
fn write_out(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::unreachable(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr. A failure is ignored, because it must not stop a run.
pub(super) fn print_note(text: &str) {
    let _is_written = writeln!(std::io::stderr(), "{}", visible(text)).is_ok();
}

/// Prints an error in the command line to stderr, or the requested help to stdout. Failures to write are ignored.
pub(super) fn usage(error: &clap::Error) {
    let styled = error.render().ansi().to_string();
    let text = |color: bool| {
        let text = if color { Cow::from(&styled) } else { Cow::from(error.render().to_string()) };
        let text = cover(&text).into_owned();
        if color { visible_with_styles(&text) } else { visible(&text).into_owned() }
    };
    let _is_written = if error.use_stderr() {
        write!(std::io::stderr(), "{}", text(Color::Auto.enabled(&std::io::stderr())))
    } else {
        write!(std::io::stdout(), "{}", text(Color::Auto.enabled(&std::io::stdout())))
    };
}

/// Makes text visible, but keeps styles. Text from outside must already be visible, or it could contain styles of its own.
fn visible_with_styles(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let style = &rest[at..];
        let behind =
            style[2..].find(|char: char| !char.is_ascii_digit() && char != ';').map_or(style.len(), |end| end + 2);
        let end = if style[behind..].starts_with('m') { behind + 1 } else { 0 };
        output += &visible(&rest[..at]);
        if end == 0 {
            // Not a style: make the sequence visible.
            output += &visible(&style[..2]);
            rest = &style[2..];
        } else {
            output += &style[..end];
            rest = &style[end..];
        }
    }
    output + &visible(rest)
}

pub(super) fn print_error(error: &Error, color: bool, output: Output) {
    let printed = match output {
        Output::Github => print(&cover(&github_error(error))),
        Output::Json => print(&cover(&json_error(error))),
        Output::Text => return print_text_error(error, color),
    };
    if printed.is_err() {
        print_text_error(error, color);
    }
}

fn print_text_error(error: &Error, color: bool) {
    let text = cover(&text_error(error, color)).into_owned();
    let text = if color { visible_with_styles(&text) } else { visible(&text).into_owned() };
    let _is_written = writeln!(std::io::stderr(), "{text}").is_ok();
}

fn github_error(error: &Error) -> String {
    let Some(problems) = error.problems() else { return format!("::error::{}\n", value(&error.to_string())) };
    let line = |(line, column, problem): (usize, usize, &crate::diagnostic::Problem)| {
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
    escaped(&format!("{value:#}")) + "\n"
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
    fn only_styles_remain_of_control_sequences() {
        assert_eq!(
            visible_with_styles("\u{1b}[1;31merror:\u{1b}[0m a\u{1b}[2Jb\u{1b}]0;t\u{7}"),
            "\u{1b}[1;31merror:\u{1b}[0m a␛[2Jb␛]0;t␇"
        );
        assert_eq!(visible_with_styles("\u{1b}[\u{202e}\u{1b}[31"), "␛[[U+202E]␛[31");
    }

    #[test]
    fn json_escapes_terminal_control_characters() {
        let text = "größe\t\u{9b}2J\u{202e}\u{1b}\u{7f}\u{feff}";
        let json = json(&[text]).unwrap();
        assert_eq!(visible(&json), json);
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
    }

    #[test]
    fn one_item_is_singular() {
        assert_eq!([count(0_u64, "row"), count(1_usize, "row"), count(2_u32, "row")], ["0 rows", "1 row", "2 rows"]);
    }
}
