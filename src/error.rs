//! What can go wrong, sorted by whose fault it is.
//!
//! Every error says what was being done, names the object in backticks, and carries a hint with the
//! next step where there is one. It is printed once, in `main`; the kind decides the exit code
//! (`sysexits.h`, and the table in the README).

use std::fmt;

use crate::diagnostic::{Problems, Redactor};

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its place, its kind and the next step.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    problems: Option<Box<Problems>>,
}

/// Whose fault an error is, and so the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The data failed its checks and nothing was loaded.
    Data,
    /// The command line is wrong.
    Usage,
    /// An input file is missing or cannot be read.
    Input,
    /// The target cannot be reached, is locked, or cannot be written.
    Unreachable,
    /// A fault of this program.
    Internal,
    /// Stopped half-way; can be resumed.
    Interrupted,
    /// A safeguard refused.
    Refused,
    /// The pipeline file is wrong, or does not fit the target's schema.
    Pipeline,
}

impl Kind {
    /// The process's exit code for this kind.
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
    /// An error of the given kind.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), hint: None, problems: None }
    }

    constructors! {
        /// The data failed its checks.
        data => Data;
        /// The command line is wrong.
        usage => Usage;
        /// An input is missing or unreadable.
        input => Input;
        /// The target cannot be reached or written.
        unreachable => Unreachable;
        /// A fault of this program.
        internal => Internal;
        /// Stopped half-way.
        interrupted => Interrupted;
        /// A safeguard refused.
        refused => Refused;
        /// The pipeline file or the target's schema is wrong.
        pipeline => Pipeline;
    }

    /// The same error as another party's fault.
    #[must_use]
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same error with the next step for the user.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same error with what was being done in front of it: `cannot stage "account": …`.
    #[must_use]
    pub fn doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same error with more behind its message.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        self.message += more;
        self
    }

    /// The same error without a word of what must not be printed.
    #[must_use]
    pub fn masked(mut self, secrets: &Redactor) -> Self {
        self.message = secrets.mask(&self.message).into_owned();
        self.hint = self.hint.map(|hint| secrets.mask(&hint).into_owned());
        if let Some(problems) = &mut self.problems {
            problems.mask(secrets);
        }
        self
    }

    /// Whose fault it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The next step, where one is known.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The problems of a pipeline file, each with its place, where this error is made of them.
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
