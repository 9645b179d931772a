//! A problem of the pipeline file, at its place.

use std::path::PathBuf;

/// The way to a value in the pipeline file: `["tables", "account", "checks", "2", "unique"]`.
pub type Path = Vec<String>;

/// Builds a [`Path`] out of anything that prints: `path!["tables", name, "checks", index]`.
#[macro_export]
macro_rules! path {
    ($($segment:expr),* $(,)?) => { vec![$($segment.to_string()),*] };
}

/// One problem, with the place it is at and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The way to the value that the problem is about.
    pub at: Path,
    /// What is wrong.
    pub message: String,
    /// The next step, where one is known.
    pub hint: Option<String>,
}

/// All problems of one pipeline file.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// The file, as it was named on the command line.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// The problems, in the order they were found.
    pub list: Vec<Problem>,
}

impl Problems {
    /// Adds a problem without a hint.
    pub fn add(&mut self, at: Path, message: impl std::fmt::Display) {
        self.list.push(Problem { at, message: message.to_string(), hint: None });
    }

    /// Adds a problem with a hint.
    pub fn add_with_hint(&mut self, at: Path, message: impl std::fmt::Display, hint: impl std::fmt::Display) {
        self.list.push(Problem { at, message: message.to_string(), hint: Some(hint.to_string()) });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// One line: how many problems which file has.
    pub fn summary(&self) -> String {
        let count = self.list.len();
        format!("`{}` has {count} problem{}", self.file.display(), if count == 1 { "" } else { "s" })
    }
}
