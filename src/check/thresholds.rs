//! The verdict on a delta: its findings compared with the thresholds.

use super::CheckedTable;
use crate::plan::Compiled;
use crate::spec::{Severity, Threshold};

/// The result of the thresholds.
#[derive(Debug, Default)]
pub struct ThresholdResult {
    /// By table, the reasons to load nothing.
    pub reasons: Vec<Vec<String>>,
    /// Warnings, which do not prevent a load and ask for an action.
    pub warnings: Vec<String>,
}

/// The maximum number of warnings per table about lines that belong to no record.
const LOST_RANGES: usize = 10;

/// Compares the findings with the thresholds.
pub fn evaluate(compiled: &Compiled, examined: &[CheckedTable]) -> ThresholdResult {
    let (mut all, mut warnings) = (Vec::new(), Vec::new());
    for ((table, found), source) in compiled.plan.tables.iter().zip(examined).zip(&compiled.sources) {
        let read = found.read();
        let mut reasons = Vec::new();
        if table.max_rejects.is_exceeded_by(found.rejected(), read) {
            reasons.push(format!(
                "`{}`: {} of {read} rows rejected; `max_rejects` is {}",
                table.name,
                found.rejected(),
                table.max_rejects
            ));
        }
        for (number, check) in table.checks.iter().enumerate() {
            let violations = found.findings.of(number).len() as u64;
            let exceeded = |limit: Option<Threshold>| limit.filter(|limit| limit.is_exceeded_by(violations, read));
            let say = |what: &str| format!("`{}`: {violations} of {read} rows fail `{}`{what}", table.name, check.name);
            if let Some(limit) = exceeded(check.error_if) {
                reasons.push(say(&format!("; `error_if` is {limit}")));
            }
            match (exceeded(check.warn_if), check.warn_if) {
                (Some(limit), _) => warnings.push(say(&format!("; `warn_if` is {limit}"))),
                (None, None) if check.severity == Severity::Warn && violations > 0 => warnings.push(say("")),
                _ => {}
            }
        }
        for (file, first, last) in found.lost.iter().take(LOST_RANGES) {
            let name = source.files().get(*file).map_or("", |file| file.name.as_str());
            warnings.push(match first == last {
                true => format!("`{}`: line {first} of `{name}` belongs to no record", table.name),
                false => format!("`{}`: lines {first}–{last} of `{name}` belong to no record", table.name),
            });
        }
        if found.lost.len() > LOST_RANGES {
            let more = found.lost.len() - LOST_RANGES;
            warnings.push(format!("`{}`: {more} more ranges of lines belong to no record", table.name));
        }
        if read == 0 {
            warnings.push(format!("`{}`: the files contain no rows; check that the export is complete", table.name));
        }
        all.push(reasons);
    }
    ThresholdResult { reasons: all, warnings }
}
