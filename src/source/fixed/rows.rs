//! The rows of fixed-width files: blocks of records, column by column.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::super::{Batch, Malformed, Piece, SourceFile};
use super::columns::FieldFault;
use super::number::NumberFault;
use super::records::{Block, Frame, Records};
use super::{Field, Kind, Layout};
use crate::error::{Error, Result};
use crate::spec::Encoding;

/// The rows of a file, in blocks of whole records.
pub(in crate::source) struct Blocks {
    context: Arc<Context>,
    records: Records,
}

/// The common part of all blocks of a file.
struct Context {
    index: usize,
    schema: SchemaRef,
    layout: Arc<Layout>,
    /// For each column of the schema, the position of its field in the layout.
    fields: Vec<usize>,
    /// The maximum number of rows per batch.
    rows: usize,
}

impl Blocks {
    pub(in crate::source) fn try_new(
        index: usize,
        file: SourceFile,
        schema: SchemaRef,
        layout: Arc<Layout>,
        rows: usize,
    ) -> Result<Self> {
        let mut fields = vec![None; schema.fields().len()];
        for (field, place) in file.columns.iter().enumerate() {
            if let Some(place) = place {
                fields[*place] = Some(field);
            }
        }
        let fields: Option<Vec<usize>> = fields.into_iter().collect();
        let fields = fields.ok_or_else(|| Error::internal("a column without a field"))?;
        let records = Records::open(&file, layout.framing, layout.encoding == Encoding::UTF_8)?;
        Ok(Self { context: Arc::new(Context { index, schema, layout, fields, rows }), records })
    }
}

impl Iterator for Blocks {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.records.take().transpose()?;
        Some(block.map(|block| Box::new(Rows { context: Arc::clone(&self.context), block, next: 0 }) as Piece))
    }
}

/// The rows of a block.
struct Rows {
    context: Arc<Context>,
    block: Block,
    /// The position of the next record.
    next: usize,
}

impl Iterator for Rows {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.block.frames[self.next..];
        let empty = std::mem::take(&mut self.block.empty);
        if rest.is_empty() && empty == 0 {
            return None;
        }
        let frames = &rest[..rest.len().min(self.context.rows)];
        self.next += frames.len();
        let batch = self.context.batch(&self.block, frames);
        Some(batch.map(|batch| Batch { skipped: batch.skipped + empty, ..batch }))
    }
}

impl Context {
    fn batch(&self, block: &Block, frames: &[Frame]) -> Result<Batch> {
        let mut records: Vec<&[u8]> = Vec::with_capacity(frames.len());
        let mut lines: Vec<u64> = Vec::with_capacity(frames.len());
        let (mut malformed, mut skipped) = (Vec::new(), 0);
        for frame in frames {
            let record = block.record(frame);
            match self.layout.accept(record, frame) {
                Ok(true) => {
                    records.push(record);
                    lines.push(frame.number);
                }
                Ok(false) => skipped += 1,
                Err(reason) => malformed.push(self.malformed(record, frame.number, reason)?),
            }
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.fields.len());
        // By record, its first fault.
        let mut faults: BTreeMap<usize, (usize, FieldFault)> = BTreeMap::new();
        for field in &self.fields {
            let column = self.layout.column(&self.layout.fields[*field], &records)?;
            for (row, fault) in column.faults {
                faults.entry(row).or_insert((*field, fault));
            }
            columns.push(column.values);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(records.len()));
        let mut rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        if !faults.is_empty() {
            for (row, (field, fault)) in &faults {
                let reason = self.layout.reason(&self.layout.fields[*field], records[*row], *fault);
                malformed.push(self.malformed(records[*row], lines[*row], reason)?);
            }
            malformed.sort_by_key(|malformed| malformed.line);
            let good: BooleanArray = (0..records.len()).map(|row| Some(!faults.contains_key(&row))).collect();
            rows = filter_record_batch(&rows, &good)?;
            let lines_of_rows = lines.iter().enumerate().filter(|(row, _)| !faults.contains_key(row));
            lines = lines_of_rows.map(|(_, line)| *line).collect();
        }
        Ok(Batch { file: self.index, lines, rows, malformed, skipped })
    }

    /// Returns a record that is not a row, with the values that can be read.
    fn malformed(&self, record: &[u8], line: u64, reason: String) -> Result<Malformed> {
        let options = FormatOptions::default();
        let mut fields = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let column = self.layout.column(&self.layout.fields[*field], &[record])?.values;
            let text = ArrayFormatter::try_new(&column, &options)?.value(0).to_string();
            fields.push(column.is_valid(0).then_some(text));
        }
        Ok(Malformed { line, raw: self.layout.raw(record), fields, reason, lost: false })
    }
}

impl Layout {
    /// Returns whether a record is a row of the table, or the reason why it is neither a row nor skipped.
    fn accept(&self, record: &[u8], frame: &Frame) -> Result<bool, String> {
        if let Some(length) = frame.truncated {
            return Err(format!("the file ends after {} of {length} bytes of the record", record.len()));
        }
        for condition in &self.conditions {
            let field = &self.fields[condition.field];
            match self.matches(condition, record) {
                _ if field.bytes(record).is_empty() => return Err(self.length_fault(record)),
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(fault) => return Err(self.reason(field, record, fault)),
            }
        }
        let is_right = record.len() == self.length || (self.fill && record.len() < self.length);
        if is_right { Ok(true) } else { Err(self.length_fault(record)) }
    }

    fn length_fault(&self, record: &[u8]) -> String {
        let noun = if record.len() == 1 { "byte" } else { "bytes" };
        format!("{} {noun}, a record has {}", record.len(), self.length)
    }

    /// Returns the reason why a field cannot be read, with its position and its bytes.
    fn reason(&self, field: &Field, record: &[u8], fault: FieldFault) -> String {
        let bytes = field.bytes(record);
        let first = field.start + 1;
        let label = match &field.kind {
            Kind::Text(_) => "text",
            Kind::Number(number) => number.label(),
        };
        let what = match fault {
            FieldFault::Undecodable => format!("is not valid in {}", self.encoding),
            FieldFault::Nul => "contains a NUL character".to_owned(),
            FieldFault::Short => format!("has {} of {} bytes", bytes.len(), field.width),
            FieldFault::Number(NumberFault::Negative) => "is negative, but unsigned".to_owned(),
            FieldFault::Number(NumberFault::Digit(at)) => {
                format!("is not a {label} number: invalid digit in byte {}", first + at)
            }
            FieldFault::Number(NumberFault::Sign(at)) => {
                format!("is not a {label} number: invalid sign in byte {}", first + at)
            }
        };
        let place = match field.start + bytes.len() {
            last if last > first => format!("bytes {first}–{last}"),
            _ => format!("byte {first}"),
        };
        format!("column \"{}\" {what} ({place}: {})", field.name, hex(bytes))
    }

    /// Returns a record as text, or its bytes if they are not.
    fn raw(&self, record: &[u8]) -> String {
        if self.is_text() {
            let mut text = Vec::new();
            return match self.decoder.decode(record, &mut text) {
                Ok(()) => String::from_utf8_lossy(&text).into_owned(),
                Err(_) => String::from_utf8_lossy(record).into_owned(),
            };
        }
        let mut text = String::with_capacity(2 + record.len() * 2);
        text.push_str("\\x");
        for byte in record {
            let _infallible = write!(text, "{byte:02X}");
        }
        text
    }
}

/// The maximum number of bytes of a field in a message.
const SHOWN: usize = 40;

fn hex(bytes: &[u8]) -> String {
    let mut text: Vec<String> = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02X}")).collect();
    if bytes.len() > SHOWN {
        text.push("…".to_owned());
    }
    text.join(" ")
}
