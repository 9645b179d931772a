//! CSV files: their records as rows.

use std::str::from_utf8;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::super::text_batch::TextBatchBuilder;
use super::super::{Batch, Malformed, Piece, SourceFile};
use super::dialect::Dialect;
use super::injection;
use super::records::{Record, RecordFault, Records};
use super::recovery::Why;
use super::split::{Fault, Span};
use crate::error::Result;
use crate::spec::{BlankLines, Encoding, RaggedRows};

/// Returns the columns of a file's header, or `names` for files without a header.
pub(in crate::source) fn header(file: &SourceFile, dialect: &Dialect) -> Result<Vec<String>> {
    dialect.open(file)?.names(file, dialect)
}

/// The rows of a file, in blocks of whole records.
pub(in crate::source) struct Blocks {
    layout: Arc<Layout>,
    records: Records,
}

/// The common part of all blocks of a file.
struct Layout {
    index: usize,
    file: SourceFile,
    schema: SchemaRef,
    dialect: Arc<Dialect>,
    names: Vec<String>,
    /// Whether it is a reject file, where an apostrophe precedes possible formulas.
    guarded: bool,
    /// Whether missing fields are NULL.
    ragged: bool,
    /// Whether blank lines count as skipped rows.
    count_blank: bool,
    /// The maximum number of rows per batch.
    rows: usize,
}

impl Blocks {
    pub(in crate::source) fn try_new(
        index: usize,
        file: SourceFile,
        schema: SchemaRef,
        dialect: Arc<Dialect>,
        rows: usize,
    ) -> Result<Self> {
        let mut opened = dialect.open(&file)?;
        let names = opened.names(&file, &dialect)?;
        if names.len() != file.columns.len() {
            return Err(file.changed("its header changed"));
        }
        let (guarded, ragged) = (opened.of_rejects, dialect.csv().ragged_rows == RaggedRows::Fill);
        let count_blank = names.len() == 1 && dialect.csv().blank_lines == BlankLines::Skip;
        let layout = Layout { index, file, schema, dialect, names, guarded, ragged, count_blank, rows };
        Ok(Self { layout: Arc::new(layout), records: opened.records })
    }
}

impl Iterator for Blocks {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let records = self.records.take().transpose()?;
        Some(records.map(|records| Box::new(Rows::new(self.layout.clone(), records)) as Piece))
    }
}

/// The rows of a block.
struct Rows {
    layout: Arc<Layout>,
    records: Records,
    stretch: TextBatchBuilder,
}

impl Rows {
    fn new(layout: Arc<Layout>, records: Records) -> Self {
        let stretch = TextBatchBuilder::new(layout.index, Arc::clone(&layout.schema), layout.rows);
        Self { layout, records, stretch }
    }

    fn accept(&mut self, record: &Record) {
        let complete = record.fault.is_none() && self.fits();
        let Self { layout, records, stretch } = self;
        let Layout { file, dialect, guarded, .. } = layout.as_ref();
        let bytes = records.bytes(record);
        match from_utf8(bytes) {
            Ok(text) if complete && !bytes.contains(&0) => {
                for (span, place) in records.fields().iter().zip(&file.columns) {
                    let Some(place) = *place else { continue };
                    let value = records.syntax().value(text, *span);
                    let value = Some(&*value).filter(|value| !is_null(dialect, *span, text, value));
                    stretch.value(place, if *guarded { value.map(injection::unguarded) } else { value });
                }
                for place in file.columns.iter().skip(records.fields().len()).flatten() {
                    stretch.value(*place, None);
                }
                stretch.end_row(record.line);
            }
            _ => self.accept_or_refuse(record),
        }
    }

    /// Returns whether the last record has the right number of fields.
    fn fits(&self) -> bool {
        let (fields, columns) = (self.records.fields(), self.layout.file.columns.len());
        let is_empty = |span: &Span| span.start == span.end && !span.quoted;
        match fields.len() {
            count if count == columns => true,
            count if self.layout.ragged => count < columns || fields[columns..].iter().all(is_empty),
            count if count == columns + 1 => {
                self.layout.dialect.csv().trailing_delimiter && fields.last().is_some_and(is_empty)
            }
            _ => false,
        }
    }

    /// Reads a record with an anomaly, which may be only in a column that is not loaded.
    fn accept_or_refuse(&mut self, record: &Record) {
        let bytes = self.records.bytes(record);
        let values: Vec<Option<String>> = self
            .records
            .fields()
            .iter()
            .map(|span| {
                let raw = String::from_utf8_lossy(&bytes[span.start..span.end]);
                let whole = Span { start: 0, end: raw.len(), ..*span };
                let value = self.records.syntax().value(&raw, whole).into_owned();
                let value = Some(value).filter(|value| !is_null(&self.layout.dialect, whole, &raw, value));
                if self.layout.guarded { value.map(|value| injection::unguarded(&value).to_owned()) } else { value }
            })
            .collect();
        let Some(reason) = self.reason(record) else {
            let values = values.iter().map(Option::as_deref).chain(std::iter::repeat(None));
            for (value, place) in values.zip(&self.layout.file.columns) {
                if let Some(place) = place {
                    self.stretch.value(*place, value);
                }
            }
            self.stretch.end_row(record.line);
            return;
        };
        let mut fields: Vec<Option<String>> = vec![None; self.layout.schema.fields().len()];
        let mut present = 0;
        let mut surplus = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            match self.layout.file.columns.get(index) {
                Some(Some(place)) => {
                    fields[*place] = value;
                    present = present.max(place + 1);
                }
                Some(None) => {}
                None => surplus.push(value),
            }
        }
        fields.truncate(present);
        fields.extend(surplus);
        let raw = String::from_utf8_lossy(bytes).trim_end_matches(['\n', '\r']).to_string();
        let lost = matches!(record.fault, Some(RecordFault::Lost(_)));
        self.stretch.malformed(Malformed { line: record.line, raw, fields, reason, lost });
    }

    /// Returns the reason why a record is not a valid row, if it is not.
    fn reason(&self, record: &Record) -> Option<String> {
        let Layout { names, dialect, .. } = self.layout.as_ref();
        let label = |index: usize| match names.get(index) {
            Some(name) => format!("column \"{name}\""),
            None => format!("field {}", index + 1),
        };
        match record.fault {
            Some(RecordFault::Format(Fault::Unclosed(at))) => {
                let line = self.records.line_of(record, at);
                return Some(format!("unclosed quote on line {line}"));
            }
            Some(RecordFault::Format(Fault::AfterQuote(field))) => {
                return Some(format!("text after the closing quote of {}", label(field)));
            }
            Some(RecordFault::Format(Fault::Return(field))) => {
                return Some(format!("{} contains an unquoted carriage return", label(field)));
            }
            Some(RecordFault::Broken(why)) => return Some(why.reason(record.line)),
            Some(RecordFault::Lost(line)) => {
                return Some(format!("the line belongs to no record, because the record on line {line} is broken"));
            }
            None => {}
        }
        if self.fits() {
            return self.bad_value(record, &label);
        }
        let (fields, names) = (self.records.fields().len(), names.len());
        let noun = if fields == 1 { "field" } else { "fields" };
        let of = if dialect.header() { "the header has" } else { "`names` has" };
        Some(format!("{fields} {noun}, {of} {names}"))
    }

    /// Returns the reason why a value of a loaded column is not valid text.
    fn bad_value(&self, record: &Record, label: &dyn Fn(usize) -> String) -> Option<String> {
        let bytes = self.records.bytes(record);
        let columns = &self.layout.file.columns;
        let fields = self.records.fields().iter().enumerate();
        for (index, span) in fields.filter(|(index, _)| columns.get(*index).is_some_and(Option::is_some)) {
            let value = &bytes[span.start..span.end];
            if let Err(error) = from_utf8(value) {
                let byte = value[error.valid_up_to()];
                let encoding = self.layout.dialect.csv().encoding;
                return Some(match encoding == Encoding::UTF_8 {
                    true => format!("{} is not UTF-8 (byte 0x{byte:02X})", label(index)),
                    false => format!("{} contains bytes that are invalid in {encoding}", label(index)),
                });
            }
            if value.contains(&0) {
                return Some(format!("{} contains a NUL character", label(index)));
            }
        }
        None
    }
}

/// Returns whether a value stands for NULL. An escaped value such as `\N` is compared as written.
fn is_null(dialect: &Dialect, span: Span, record: &str, value: &str) -> bool {
    if span.quoted && !dialect.csv().quoted_null {
        return false;
    }
    match span.escaped && dialect.csv().escape.is_some() {
        true => dialect.is_null(&record[span.start..span.end]),
        false => dialect.is_null(value),
    }
}

impl Why {
    /// Returns the reason for a message about the record on `line`.
    fn reason(self, record: u64) -> String {
        match self {
            Self::Unclosed { line } => format!("unclosed quote on line {}", record + line),
            Self::TooLong { line } => {
                format!("the quote on line {} is open for more lines than `max_record_lines`", record + line)
            }
            Self::ClosedInText { line, closed } => format!(
                "unclosed quote on line {}: text follows the next quote, on line {}",
                record + line,
                record + closed
            ),
            Self::ContainsRecords { line, closed } => format!(
                "unclosed quote on line {}: the lines up to the next quote, on line {}, read as records",
                record + line,
                record + closed
            ),
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.stretch.is_full() {
            match self.records.next() {
                Ok(Some(record)) => self.accept(&record),
                Ok(None) => break,
                Err(error) => return Some(Err(error)),
            }
        }
        let blank = self.records.take_blank();
        if self.layout.count_blank {
            self.stretch.skip(blank);
        }
        self.stretch.take().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::super::tests::{Read, read_all, read_one};
    use super::*;
    use crate::error::Kind;
    use crate::spec::CsvSpec;

    fn read(bytes: &[u8]) -> Read {
        read_one("x.csv", bytes, CsvSpec::default()).unwrap()
    }

    fn some(values: &[&str]) -> Vec<Option<String>> {
        values.iter().map(|value| Some((*value).to_string())).collect()
    }

    fn reasons(read: &Read) -> Vec<(u64, &str, &str)> {
        read.malformed.iter().map(|row| (row.line, row.raw.as_str(), row.reason.as_str())).collect()
    }

    #[test]
    fn ragged_rows_are_malformed_and_the_others_go_on() {
        let read = read(b"a,b,c\n1,2,3\n1,2,3,4\n\n1\r\n5,6,7\n");
        assert_eq!(read.rows.iter().map(|row| row.1).collect::<Vec<_>>(), [2, 6]);
        assert_eq!(
            reasons(&read),
            [(3, "1,2,3,4", "4 fields, the header has 3"), (5, "1", "1 field, the header has 3")]
        );
        assert_eq!(read.malformed[0].fields, some(&["1", "2", "3", "4"]));
        assert_eq!(read.malformed[1].fields, some(&["1"]));
    }

    #[test]
    fn bytes_that_are_no_text_are_malformed_with_the_column() {
        let read = read(b"id,name\n1,Ren\xE9\n2,a\0b\n3,ok\n");
        let expected = [
            (2, "1,Ren\u{FFFD}", "column \"name\" is not UTF-8 (byte 0xE9)"),
            (3, "2,a\0b", "column \"name\" contains a NUL character"),
        ];
        assert_eq!(reasons(&read), expected);
        assert_eq!(read.rows[0].2, some(&["3", "ok"]));
    }

    #[test]
    fn unclosed_quote_is_reported_with_its_line() {
        let read = read(b"a,b\n1,x\n\"2\n\",\"y\n3,z\n4,w\n");
        assert_eq!(read.rows.iter().map(|row| row.1).collect::<Vec<_>>(), [2, 5, 6]);
        let lost = "the line belongs to no record, because the record on line 3 is broken";
        assert_eq!(reasons(&read), [(3, "\"2", "unclosed quote on line 4"), (4, "\",\"y", lost)]);
        assert_eq!(read.malformed.iter().map(|row| row.lost).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn two_rows_are_not_read_as_one_where_a_quote_was_left_open() {
        let read = read(b"a,b\n1,\"Ann\n2,\"Bob\"\n3,Cy\n");
        let reason = "unclosed quote on line 2: text follows the next quote, on line 3";
        assert_eq!(reasons(&read), [(2, "1,\"Ann", reason)]);
        assert_eq!(read.rows.iter().map(|row| row.1).collect::<Vec<_>>(), [3, 4]);
    }

    /// Lines with a quote that is opened on one line and closed on another, if at all.
    fn with_quotes(lines: u64, opened: (u64, &str), closed: (u64, &str)) -> Vec<u8> {
        let mut text = "a,b,c\n".to_owned();
        for line in 2..=lines {
            match line {
                line if line == opened.0 => text.push_str(opened.1),
                line if line == closed.0 => text.push_str(closed.1),
                line => write!(text, "{line},text {line},t").unwrap(),
            }
            text.push('\n');
        }
        text.into_bytes()
    }

    #[test]
    fn a_stray_quote_rejects_its_own_record_alone() {
        let opened = (500, "500,\"open,t");
        for (closed, others) in [
            ((0, ""), 0),
            ((700, "700,\"a \"\"quoted\"\" one\",t"), 0),
            ((700, "700,5\",t"), 0),
            ((700, "700,close\",t,u"), 1),
            ((1900, "1900,5\",t"), 0),
        ] {
            let read = read(&with_quotes(3000, opened, closed));
            assert_eq!(read.malformed[0].line, 500, "{closed:?}");
            assert_eq!(read.malformed[0].raw, opened.1);
            assert_eq!(
                (read.rows.len() + read.malformed.len(), read.malformed.len()),
                (2999, 1 + others),
                "{closed:?}"
            );
        }
    }

    #[test]
    fn a_record_of_many_lines_is_read_up_to_the_limit() {
        let prose = "Dear Ann, thank you.\nYours,\nBob";
        let long = format!("1,\"{}\",t\n2,x,t\n", "line\n".repeat(999));
        let text = format!("a,b,c\n0,\"{prose}\",t\n{long}");
        let found = read(text.as_bytes());
        assert_eq!((found.rows.len(), found.malformed.len()), (3, 0));
        assert_eq!(found.rows[0].2[1].as_deref(), Some(prose));
        let found = read(text.replace("line\n\"", "line\nline\n\"").as_bytes());
        assert_eq!(found.rows.len(), 2);
        assert!(found.malformed[0].reason.contains("max_record_lines"), "{}", found.malformed[0].reason);
        assert_eq!(found.malformed.len(), 1001, "each line that belongs to no record counts");
    }

    #[test]
    fn a_carriage_return_that_ends_no_line_is_malformed() {
        let read = read(b"a,b\n1,x\ry\n2,z\n");
        assert_eq!(reasons(&read), [(2, "1,x\ry", "column \"b\" contains an unquoted carriage return")]);
    }

    #[test]
    fn null_values_are_compared_without_their_quotes() {
        let nulls = |nulls: &[&str]| {
            let spec = CsvSpec { null_values: nulls.iter().map(ToString::to_string).collect(), ..CsvSpec::default() };
            read_one("x.csv", b"a,b,c\n,\"\",\"N/A\"\n", spec).unwrap().rows[0].2.clone()
        };
        assert_eq!(nulls(&[""]), [None, None, Some("N/A".to_string())]);
        assert_eq!(nulls(&["N/A"]), [Some(String::new()), Some(String::new()), None]);
        assert_eq!(nulls(&[]), some(&["", "", "N/A"]));
    }

    #[test]
    fn latin_1_is_windows_1252() {
        let spec = CsvSpec { encoding: Encoding::LATIN_1, ..CsvSpec::default() };
        let read = read_one("x.csv", b"n\xE4me,b\nRen\xE9,\x80\n\"1\n2\",x\ny\xE9\n", spec.clone()).unwrap();
        assert_eq!(read.rows[0].2, some(&["René", "€"]));
        assert_eq!(reasons(&read), [(5, "yé", "1 field, the header has 2")]);
        let error = read_one("x.csv", "\u{FEFF}a\n1\n".as_bytes(), spec).unwrap_err();
        assert!(error.to_string().contains("UTF-8 byte order mark"), "{error}");
    }

    #[test]
    fn utf_16_is_read_with_and_without_a_mark() {
        let encoded = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let marked = [b"\xFF\xFE".to_vec(), encoded("a,b\n1,Größe\n")].concat();
        assert_eq!(read(&marked).rows[0].2, some(&["1", "Größe"]));
        let utf_16 = CsvSpec { encoding: Encoding::of_label("utf-16le").unwrap(), ..CsvSpec::default() };
        let found = read_one("x.csv", &encoded("a,b\n1,Größe\n"), utf_16).unwrap();
        assert_eq!(found.rows[0].2, some(&["1", "Größe"]));
        let error = read_one("x.csv", &encoded("a,b\n"), CsvSpec::default()).unwrap_err();
        assert!(error.next_step().unwrap().contains("utf-16le"), "{error}");
    }

    #[test]
    fn delimiter_quote_and_names_are_as_declared() {
        let spec = CsvSpec {
            delimiter: Some(";".into()),
            quote: Some('\''),
            header: false,
            names: vec!["a".into(), "b".into()],
            ..CsvSpec::default()
        };
        let read = read_one("x.csv", b"1;'x;''y'''\n2;\n3\n", spec).unwrap();
        assert_eq!(read.rows[0].1, 1);
        assert_eq!(read.rows[0].2, some(&["1", "x;'y'"]));
        assert_eq!(reasons(&read), [(3, "3", "1 field, `names` has 2")]);
    }

    #[test]
    fn a_file_of_rejects_has_a_header_where_the_others_have_none() {
        let spec = CsvSpec { header: false, names: vec!["a".into(), "b".into()], ..CsvSpec::default() };
        let files: [(&str, &[u8]); 2] =
            [("a.csv", b"1,x\n2,y\n"), ("b.csv", b"b,a,_reject_file,_reject_line\nz,3,a.csv,1\n")];
        let read = read_all(&files, "*.csv", &[], spec).unwrap();
        assert_eq!(read.rows[0], (0, 1, some(&["1", "x"])));
        assert_eq!(read.rows[2], (1, 2, some(&["3", "z"])));
    }

    #[test]
    fn options_that_make_no_sense_are_the_pipeline_files_fault() {
        let refused = |spec: CsvSpec| {
            let error = read_one("x.csv", b"a\n", spec).unwrap_err();
            assert_eq!(error.kind(), Kind::Pipeline);
            error.to_string()
        };
        assert!(refused(CsvSpec { delimiter: Some("§".into()), ..CsvSpec::default() }).contains("csv.delimiter"));
        assert!(refused(CsvSpec { delimiter: Some("\"".into()), ..CsvSpec::default() }).contains("same character"));
        assert!(refused(CsvSpec { header: false, ..CsvSpec::default() }).contains("`csv.names` is empty"));
    }

    #[test]
    fn a_file_of_nothing_is_refused_and_a_header_alone_is_not() {
        let error = read_one("x.csv", b"", CsvSpec::default()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Input, "`x.csv` is empty, without a header"));
        let error = read_one("x.csv", b"\n\n", CsvSpec::default()).unwrap_err();
        assert_eq!(error.to_string(), "`x.csv` is empty, without a header");
        assert_eq!(read(b"a,b\n"), Read::default());
        assert_eq!(read(b"a,b"), Read::default());
    }

    #[test]
    fn a_field_of_ten_megabytes_is_a_field() {
        let long = "x ".repeat(5_000_000);
        let read = read(format!("a,b\n1,\"{long}\"\n2,y\n").as_bytes());
        assert!(read.rows[0].2[1].as_deref() == Some(long.as_str()));
        assert_eq!(read.rows[1].1, 3);
    }

    #[test]
    fn files_in_another_order_of_columns_give_the_same_rows() {
        let files: [(&str, &[u8]); 2] =
            [("a.csv", b"x,y,old\n1,2,3\n"), ("b.csv", b"old,_reject_line,y,x\n\xE9,\0,20,10\n7,7,\"8\n,\n")];
        let read = read_all(&files, "*.csv", &["old"], CsvSpec::default()).unwrap();
        assert_eq!(read.rows, [(0, 2, some(&["1", "2"])), (1, 2, some(&["10", "20"]))]);
        assert_eq!(read.malformed[0].fields, [None, Some("8".to_string())]);
    }
}
