//! Errors, classified by whose fault they are.
//!
//! Every error states the failed action, names the object in backticks, and carries a hint if there is a next step. `main`
//! prints it once. Its kind determines the exit code (`sysexits.h`, and the table in the README).

use std::fmt;

use crate::diagnostic::{Problems, Redactor};

/// The result of every fallible function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its kind and a hint.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    problems: Option<Box<Problems>>,
}

/// The party at fault for an error, which determines the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The data failed its checks, and nothing was loaded.
    Data,
    /// The command line is invalid.
    Usage,
    /// An input file is missing or unreadable.
    Input,
    /// The target is unreachable, locked, or not writable.
    Unreachable,
    /// A fault of this program.
    Internal,
    /// The run was interrupted, and can be resumed.
    Interrupted,
    /// A safeguard refused.
    Refused,
    /// The pipeline file is invalid, or does not match the target's schema.
    Pipeline,
}

impl Kind {
    /// Returns the exit code for this kind.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Usage => 64,
            Self::Input => 66,
            Self::Unreachable => 69,
            Self::Internal => 70,
            Self::Interrupted => 75,
            Self::Refused => 77,
            Self::Pipeline => 78,
        }
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        $($(#[$doc])* pub fn $name(message: impl fmt::Display) -> Self {
            Self::new(Kind::$kind, message)
        })*
    };
}

impl Error {
    /// Returns an error of a kind.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), hint: None, problems: None }
    }

    constructors! {
        /// Returns an error for data that failed its checks.
        data => Data;
        /// Returns an error for an invalid command line.
        usage => Usage;
        /// Returns an error for a missing or unreadable input.
        input => Input;
        /// Returns an error for a target that is unreachable or not writable.
        unreachable => Unreachable;
        /// Returns an error for a fault of this program.
        internal => Internal;
        /// Returns an error for an interrupted run.
        interrupted => Interrupted;
        /// Returns an error for the refusal of a safeguard.
        refused => Refused;
        /// Returns an error for an invalid pipeline file or an unsuitable schema of the target.
        pipeline => Pipeline;
    }

    /// Changes the kind.
    #[must_use]
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Sets the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Prepends the failed action: `cannot stage "account": …`.
    #[must_use]
    pub fn doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Appends to the message.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        self.message += more;
        self
    }

    /// Masks secrets in the message, the hint, and the problems.
    #[must_use]
    pub fn masked(mut self, secrets: &Redactor) -> Self {
        self.message = secrets.mask(&self.message).into_owned();
        self.hint = self.hint.map(|hint| secrets.mask(&hint).into_owned());
        if let Some(problems) = &mut self.problems {
            problems.mask(secrets);
        }
        self
    }

    /// Returns the kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the hint, if there is one.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the problems of a pipeline file, if the error consists of them.
    pub fn problems(&self) -> Option<&Problems> {
        self.problems.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        let only_inputs = problems.list.iter().all(|problem| problem.input);
        let mut error = Self::new(if only_inputs { Kind::Input } else { Kind::Pipeline }, problems.summary());
        error.problems = Some(Box::new(problems));
        error
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Self::internal(error.strip_backtrace())
    }
}

impl From<datafusion::arrow::error::ArrowError> for Error {
    fn from(error: datafusion::arrow::error::ArrowError) -> Self {
        Self::internal(error)
    }
}
