//! Fixed-width files, of mainframes as well: fields at fixed positions of records that lines, a length, or descriptor
//! words separate.
//!
//! Numbers become integers and decimals exactly. A field that cannot be read rejects its record alone, with the field, its
//! position, and its bytes.

mod columns;
mod number;
mod records;
mod rows;
mod text;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use self::number::Number;
use self::records::Framing;
pub(super) use self::rows::Blocks;
use self::text::Decoder;
use super::SourceFile;
use crate::error::{Error, Result};
use crate::spec::{CodePage, Encoding, Filler, FixedSpec, RecordFormat, ShortRecords, Trim};

/// The layout of the files.
#[derive(Debug)]
pub(super) struct Layout {
    framing: Framing,
    /// The length of a record in bytes.
    length: usize,
    /// Whether fields behind the end of a record are NULL.
    fill: bool,
    fields: Vec<Field>,
    conditions: Vec<Condition>,
    decoder: Decoder,
    encoding: Encoding,
    blank: u8,
    /// Whether a blank zoned number is NULL.
    blank_is_null: bool,
    null_values: Vec<String>,
    null_fillers: Vec<u8>,
}

/// A field of a record.
#[derive(Debug)]
struct Field {
    name: String,
    /// The position of the first byte, from 0.
    start: usize,
    width: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text(Trim),
    Number(Number),
}

/// A condition on the records of a table: a field has one of some values.
#[derive(Debug)]
struct Condition {
    field: usize,
    texts: Vec<String>,
    /// The values of a number, in units of its last decimal.
    numbers: Vec<i128>,
}

impl Layout {
    pub(super) fn new(spec: &FixedSpec) -> Self {
        let ebcdic = matches!(spec.encoding, Encoding::Page(CodePage { ebcdic: true, .. }));
        let length = usize::try_from(spec.record_length()).unwrap_or(usize::MAX).max(1);
        let blank = if ebcdic { 0x40 } else { b' ' };
        let fields: Vec<Field> = spec
            .fields
            .iter()
            .map(|(name, field)| Field {
                name: name.clone(),
                start: field.at.saturating_sub(1) as usize,
                width: field.width as usize,
                kind: Number::new(field, ebcdic).map_or(Kind::Text(field.trim), Kind::Number),
            })
            .collect();
        let condition = |(name, values): &(String, Vec<crate::spec::Scalar>)| {
            let field = fields.iter().position(|field| field.name == *name)?;
            let texts: Vec<String> = values.iter().map(|value| value.0.clone()).collect();
            let numbers = match &fields[field].kind {
                Kind::Text(_) => Vec::new(),
                Kind::Number(number) => texts.iter().filter_map(|text| units(text, number.scale)).collect(),
            };
            Some(Condition { field, texts, numbers })
        };
        let conditions = spec.when.iter().filter_map(condition).collect();
        let filler = |filler: &Filler| match filler {
            Filler::Blanks => blank,
            Filler::LowValues => 0,
            Filler::HighValues => 0xFF,
        };
        Self {
            framing: Framing { format: spec.records, length, ebcdic },
            length,
            fill: spec.short_records == ShortRecords::Fill,
            conditions,
            decoder: Decoder::new(spec.encoding),
            encoding: spec.encoding,
            blank,
            blank_is_null: spec.null_values.iter().any(String::is_empty),
            null_values: spec.null_values.clone(),
            null_fillers: spec.null_fillers.iter().map(filler).collect(),
            fields,
        }
    }

    /// Returns the declared fields as columns.
    pub(super) fn schema(&self, file: &SourceFile) -> Result<SchemaRef> {
        if self.fields.is_empty() {
            return Err(Error::pipeline(format!("`{}` has no declared fields", file.name))
                .hint("list them: `fixed: { fields: { name: { at: 1, width: 30 } } }`"));
        }
        let field = |field: &Field| arrow::datatypes::Field::new(&field.name, field.data_type(), true);
        Ok(Arc::new(Schema::new(self.fields.iter().map(field).collect::<Vec<_>>())))
    }

    /// Returns whether each byte of a record is a character.
    fn is_text(&self) -> bool {
        let is_text = |field: &Field| match &field.kind {
            Kind::Text(_) => true,
            Kind::Number(number) => number.is_zoned(),
        };
        !self.framing.ebcdic && self.framing.format == RecordFormat::Lines && self.fields.iter().all(is_text)
    }
}

/// Returns a number in units of its last decimal; `None` if it has more decimals than `scale`.
fn units(text: &str, scale: i8) -> Option<i128> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let decimals = decimals.trim_end_matches('0');
    let scale = usize::from(scale.unsigned_abs());
    (decimals.len() <= scale).then(|| format!("{whole}{decimals:0<scale$}"))?.parse().ok()
}

#[cfg(test)]
mod tests;
