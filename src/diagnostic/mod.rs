//! Problems of a pipeline file with their locations, and the redaction of secrets.

mod lines;
mod locate;
mod problem;
mod redactor;

pub use lines::LineNumbers;
pub use locate::Locations;
pub use problem::{Mark, Path, Problem, Problems};
pub use redactor::{Redactor, cover, decoded};
