//! Constraint violations that production reports.

use crate::engine::RowNumber;
use crate::error::Error;

/// Rows that violate a constraint of production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstraintViolation {
    /// The table.
    pub table: String,
    /// The constraint of production, or the check.
    pub constraint: String,
    /// The cause, in the target's words.
    pub reason: String,
    /// The violating rows of the delta, by number, in order; empty if the target cannot identify them.
    pub rows: Vec<RowNumber>,
}

/// The reason that an insertion stops.
#[derive(Debug)]
pub enum InsertError {
    /// Rows violate a constraint.
    Violation(ConstraintViolation),
    /// Any other failure.
    Other(Error),
}

impl From<ConstraintViolation> for InsertError {
    fn from(refusal: ConstraintViolation) -> Self {
        Self::Violation(refusal)
    }
}

impl From<Error> for InsertError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl std::fmt::Display for ConstraintViolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, constraint, reason, .. } = self;
        let colon = if reason.is_empty() { "" } else { ": " };
        write!(f, "production rejected rows of `{table}` that had passed the checks: {constraint}{colon}{reason}")
    }
}

impl From<InsertError> for Error {
    fn from(stopped: InsertError) -> Self {
        match stopped {
            InsertError::Other(error) => error,
            InsertError::Violation(refusal) => Self::data(&refusal).hint(
                "nothing was loaded; if another program inserted conflicting rows, run again to see them. `pipeline explain` lists the constraints that only production checks",
            ),
        }
    }
}
