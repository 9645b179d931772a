//! The pipeline file: its types, its text, and the location of each value in the text.
//!
//! [`load`] is the entry point: text → YAML → templates replaced → types → rules. Each stage adds its
//! problems at their locations.

mod document;
mod encoding;
mod fixed;
mod interpolate;
mod model;
mod read;
mod rules;
mod schema;
mod source;
mod value;

pub use document::{Document, load, parse};
pub use encoding::{CodePage, Encoding};
pub use fixed::{ByteOrder, FieldSpec, FieldType, Filler, FixedSpec, RecordFormat, ShortRecords, SignPlace, Trim};
pub use model::*;
pub use schema::json_schema;
pub use source::{BlankLines, CsvSpec, Format, JsonSpec, PerColumn, RaggedRows, SourceSpec};
pub use value::{Names, OrderedMap, Scalar, StartRowNumber, Threshold, TimeOfDay, Timeout};
