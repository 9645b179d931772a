//! Reports as JUnit XML for CI systems: a suite per table, and a test case per check.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Suites, TestCase, TestCaseStatus, TestSuite};

use super::escape::visible;
use super::text::number;
use super::{CheckReport, Report, TableReport};
use crate::error::{Error, Result};
use crate::spec::Severity;

/// Formats a report as JUnit XML.
///
/// A case fails if its check rejects rows and the table blocks the load. Rows rejected within the thresholds, and rows with warnings, are
/// listed in a passing case: a green pipeline stays green.
///
/// # Errors
/// If the XML cannot be written.
pub fn junit(report: &Report) -> Result<String> {
    let mut suites = Suites::new(visible(&format!("pipeline {}", report.pipeline)));
    suites.set_time(Duration::from_secs_f64(report.steps.iter().map(|step| step.seconds.max(0.0)).sum()));
    for table in &report.tables {
        let mut suite = TestSuite::new(visible(&table.name));
        for (name, text) in [("run", &*report.run), ("target", &report.target), ("file", &report.file)] {
            suite.add_property((name, &*visible(text)));
        }
        for check in &table.checks {
            suite.add_test_case(case(report, table, check));
        }
        let mut thresholds = TestCase::new("thresholds", TestCaseStatus::success());
        if !table.reasons.is_empty() {
            thresholds.status = failure(&table.reasons.join("; "), &table.reasons.join("\n"));
        }
        thresholds.set_classname(class(report, table));
        suite.add_test_case(thresholds);
        suites.add_test_suite(suite);
    }
    let xml = suites.to_string().map_err(|error| Error::internal(format!("cannot write the JUnit report: {error}")))?;
    Ok(xml)
}

fn case(report: &Report, table: &TableReport, check: &CheckReport) -> TestCase {
    let name = visible(&check.name);
    let noun = if check.violations == 1 { "row" } else { "rows" };
    let message = format!("{} {noun} of {}: {}", number(check.violations), number(table.read), check.reason);
    let fails = check.violations > 0 && check.severity == Severity::Error && !table.reasons.is_empty();
    let status = if fails { failure(&message, &examples(check)) } else { TestCaseStatus::success() };
    let mut case = TestCase::new(name, status);
    case.set_classname(class(report, table));
    if check.violations > 0 && !fails {
        case.set_system_out(visible(&format!("{}: {message}\n{}", check.effect(), examples(check))));
    }
    case
}

fn failure(message: &str, description: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(visible(message)).set_type("check").set_description(visible(description));
    status
}

fn class(report: &Report, table: &TableReport) -> String {
    visible(&format!("{}.{}", report.pipeline, table.name)).into_owned()
}

/// Returns the first rows that fail a check, one per line.
fn examples(check: &CheckReport) -> String {
    let Some(evidence) = &check.evidence else { return String::new() };
    let line = |example: &crate::check::Example| {
        let value = example.value.as_ref().map_or(String::new(), |value| format!(": {value}"));
        format!("{}:{}{value}: {}", example.file, example.line, example.reason)
    };
    let mut lines: Vec<_> = evidence.examples.iter().map(line).collect();
    let more = check.violations.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {} more", number(more)));
    }
    lines.join("\n")
}
