//! The pipeline file: its types, its text, and where in the text each value stands.

mod model;
mod problem;
mod value;

pub use model::*;
pub use problem::{Path, Problem, Problems};
pub use value::{OrderedMap, Scalar, StartRowNumber, Threshold};
