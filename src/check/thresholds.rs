//! The verdict on a delta: what the thresholds say of the findings.

use super::CheckedTable;
use crate::engine::list;
use crate::plan::Compiled;
use crate::spec::{Severity, Threshold};

/// What the thresholds say.
#[derive(Debug, Default)]
pub struct ThresholdResult {
    /// By table, the reasons to load nothing.
    pub reasons: Vec<Vec<String>>,
    /// What to look at, though it stops nothing.
    pub warnings: Vec<String>,
}

/// The reasons to load nothing, and the warnings.
pub fn judge(compiled: &Compiled, examined: &[CheckedTable]) -> ThresholdResult {
    let (mut all, mut warnings) = (Vec::new(), Vec::new());
    for (table, found) in compiled.plan.tables.iter().zip(examined) {
        let read = found.read();
        let mut reasons = Vec::new();
        if table.max_rejects.is_exceeded_by(found.rejected(), read) {
            reasons.push(format!(
                "`{}`: {} of {read} rows are rejected, and `max_rejects` is {}",
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
                reasons.push(say(&format!(", and `error_if` is {limit}")));
            }
            match (exceeded(check.warn_if), check.warn_if) {
                (Some(limit), _) => warnings.push(say(&format!(", and `warn_if` is {limit}"))),
                (None, None) if check.severity == Severity::Warn && violations > 0 => warnings.push(say("")),
                _ => {}
            }
        }
        if !table.unfilled.is_empty() {
            warnings.push(format!(
                "`{}`: nothing fills {}: production's default, or NULL",
                table.name,
                list(&table.unfilled)
            ));
        }
        if !table.enforced_by_database.is_empty() {
            let left = table.enforced_by_database.join("; ");
            warnings.push(format!("`{}`: no check, only production itself enforces: {left}", table.name));
        }
        if read == 0 {
            warnings.push(format!("`{}`: its files have no rows", table.name));
        }
        all.push(reasons);
    }
    ThresholdResult { reasons: all, warnings }
}
