//! The pipeline file: its types, its text, and where in the text each value stands.
//!
//! [`load`] is the way in: text → YAML → templates replaced → types → rules, with every problem on the way
//! at its place.

mod document;
mod interpolate;
mod lines;
mod locate;
mod model;
mod problem;
mod read;
mod rules;
mod schema;
mod secrets;
mod value;

pub use document::{Document, load, parse};
pub use lines::LineNumbers;
pub use locate::Locations;
pub use model::*;
pub use problem::{Mark, Path, Problem, Problems};
pub use schema::json_schema;
pub use secrets::{Secrets, cover};
pub use value::{OrderedMap, Scalar, StartRowNumber, Threshold, TimeOfDay, Timeout};
