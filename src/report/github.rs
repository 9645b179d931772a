//! Reports as annotations of a GitHub workflow, at the lines of the pipeline file that declare the checks.

use super::escape::visible;
use super::text::number;
use super::{CheckReport, Report, TableReport, Verdict};
use crate::spec::Severity;

/// Formats a report as workflow commands, one per line. GitHub shows only the first ten of a level, so the reasons come first, then the
/// checks with the most violations.
pub fn github(report: &Report) -> String {
    let mut lines = Vec::new();
    let mut table_reasons = Vec::new();
    for table in &report.tables {
        for reason in &table.reasons {
            lines.push(command(
                "error",
                &report.file,
                table.line,
                &format!("{}: nothing was loaded", table.name),
                reason,
            ));
            table_reasons.push(reason);
        }
    }
    let run_reasons =
        report.reasons.iter().filter(|reason| !table_reasons.contains(reason)).map(|reason| ("error", reason));
    // The warning of a check is in the annotation of the check.
    let is_of_check = |warning: &String| {
        let starts = |table: &TableReport, check: &CheckReport| {
            let rows = format!("`{}`: {} of {} rows fail `{}`", table.name, check.violations, table.read, check.name);
            check.violations > 0 && warning.starts_with(&rows)
        };
        report.tables.iter().any(|table| table.checks.iter().any(|check| starts(table, check)))
    };
    let warnings = report.warnings.iter().filter(|warning| !is_of_check(warning));
    let plain = run_reasons.chain(warnings.map(|warning| ("warning", warning)));
    lines.extend(plain.map(|(level, text)| format!("::{level}::{}\n", value(text))));
    lines.extend(report.violations().into_iter().map(|(table, check)| annotation(report, table, check)));
    lines.concat()
}

fn annotation(report: &Report, table: &TableReport, check: &CheckReport) -> String {
    let rejects = check.severity == Severity::Error;
    let level =
        if rejects && report.verdict == Verdict::Failed && !table.reasons.is_empty() { "error" } else { "warning" };
    let noun = if check.violations == 1 { "row" } else { "rows" };
    let mut text = format!("{} {noun} {}: {}", number(check.violations), check.effect(), check.reason);
    if let Some(first) = check.evidence.as_ref().and_then(|evidence| evidence.examples.first()) {
        text.extend(["\nfirst at ", &first.file, ":", &first.line.to_string()]);
        if let Some(value) = &first.value {
            text.extend([": ", value]);
        }
    }
    // Constraints of production and built-in checks have no line, so they are shown at their table.
    command(level, &report.file, check.line.or(table.line), &format!("{}: {}", table.name, check.name), &text)
}

fn command(level: &str, file: &str, line: Option<u64>, title: &str, text: &str) -> String {
    let line = line.map_or(String::new(), |line| format!(",line={line}"));
    let place = if file.is_empty() { String::new() } else { format!("file={}{line},", property(file)) };
    format!("::{level} {place}title={}::{}\n", property(title), value(text))
}

/// Escapes text for the message of a workflow command.
pub fn value(text: &str) -> String {
    visible(&text.replace('\r', "")).replace('%', "%25").replace('\n', "%0A")
}

/// Escapes text for a property of a workflow command.
pub fn property(text: &str) -> String {
    value(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_its_command() {
        assert_eq!(value("100%\n::error::x\u{1b}"), "100%25%0A::error::x␛");
        assert_eq!(property("a,b:c\nd"), "a%2Cb%3Ac%0Ad");
        let line = command("error", "p,1.yaml", Some(3), "t: c", "x");
        assert_eq!(line, "::error file=p%2C1.yaml,line=3,title=t%3A c::x\n");
        assert_eq!(command("error", "", None, "t", "x"), "::error title=t::x\n");
    }
}
