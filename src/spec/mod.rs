//! The pipeline file: its types, its text, and where in the text each value stands.
//!
//! [`load`] is the way in: text → YAML → templates replaced → types → rules, with every problem on the way
//! at its place.

mod document;
mod interpolate;
mod model;
mod read;
mod rules;
mod schema;
mod value;

pub use document::{Document, load, parse};
pub use model::*;
pub use schema::json_schema;
pub use value::{OrderedMap, Scalar, StartRowNumber, Threshold, TimeOfDay, Timeout};
