//! What production says of rows that it does not take.

use crate::error::Error;

/// Rows that production refuses, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstraintViolation {
    /// The table.
    pub table: String,
    /// The constraint of production, or the check.
    pub constraint: String,
    /// Why, in the target's words.
    pub reason: String,
    /// The rows of the delta that it is about, by number, in order; empty where the target cannot tell.
    pub rows: Vec<u32>,
}

/// Why an insertion does not go on.
#[derive(Debug)]
pub enum InsertError {
    /// Production refuses rows.
    Violation(ConstraintViolation),
    /// Something failed.
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
        write!(f, "production refused rows of `{table}` that the checks had passed: {constraint}{colon}{reason}")
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
