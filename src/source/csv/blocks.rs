//! CSV files: their dialect, their header, and their records as rows.

use std::str::from_utf8;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::super::columns::REJECT_LINE;
use super::super::text_batch::TextBatchBuilder;
use super::super::{Batch, Malformed, Piece, SourceFile, files};
use super::injection;
use super::records::{Fault, Record, Records, Span};
use crate::error::{Error, Result};
use crate::spec::{CsvSpec, Encoding};

/// The dialect of the files: a validated [`CsvSpec`].
#[derive(Debug)]
pub(in crate::source) struct Dialect {
    delimiter: Option<u8>,
    quote: u8,
    pub(in crate::source) header: bool,
    names: Vec<String>,
    null_values: Vec<String>,
    encoding: Encoding,
}

impl Dialect {
    pub(in crate::source) fn try_new(spec: &CsvSpec) -> Result<Self> {
        let one_byte = |option: &str, character: char| match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Ok(byte),
            _ => Err(Error::pipeline(format!("invalid `csv.{option}`: {character:?}"))
                .hint("use an ASCII character other than a line break")),
        };
        let delimiter = spec.delimiter.map(|delimiter| one_byte("delimiter", delimiter)).transpose()?;
        let quote = one_byte("quote", spec.quote)?;
        if delimiter.map_or(matches!(quote, b',' | b'\t'), |delimiter| delimiter == quote) {
            return Err(Error::pipeline("`csv.delimiter` and `csv.quote` are the same character"));
        }
        if spec.header && !spec.names.is_empty() {
            return Err(Error::pipeline("`csv.names` is set, but `csv.header` is true")
                .hint("add `header: false` if the first line is data, or remove `names`"));
        }
        if !spec.header && spec.names.is_empty() {
            return Err(Error::pipeline("`csv.header` is false, but `csv.names` is empty")
                .hint("list the columns: `names: [account_ref, name, …]`"));
        }
        Ok(Self {
            delimiter,
            quote,
            header: spec.header,
            names: spec.names.clone(),
            null_values: spec.null_values.clone(),
            encoding: spec.encoding,
        })
    }

    fn records(&self, file: &SourceFile) -> Result<Records> {
        let delimiter = self.delimiter.unwrap_or(if files::is_tsv(&file.path) { b'\t' } else { b',' });
        Records::open(file, self.encoding, delimiter, self.quote)
    }

    /// The character between fields, if the options set it.
    pub(in crate::source) fn delimiter(&self) -> Option<u8> {
        self.delimiter
    }

    pub(in crate::source) fn quote(&self) -> u8 {
        self.quote
    }

    pub(in crate::source) fn null_values(&self) -> &[String] {
        &self.null_values
    }

    pub(in crate::source) fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn is_null(&self, value: &str) -> bool {
        self.null_values.iter().any(|null| null == value)
    }
}

/// Returns the columns of a file's header, or `names` for files without a header.
pub(in crate::source) fn header(file: &SourceFile, dialect: &Dialect) -> Result<Vec<String>> {
    names(&mut dialect.records(file)?, file, dialect)
}

/// Returns the column names, and moves the records to the first row.
fn names(records: &mut Records, file: &SourceFile, dialect: &Dialect) -> Result<Vec<String>> {
    if !dialect.header && records.is_empty() {
        return Err(file.empty(false));
    }
    if !dialect.header && !is_of_rejects(records)? {
        return Ok(dialect.names.clone());
    }
    let record = records.next()?.ok_or_else(|| file.empty(true))?;
    let broken = |why: &str| Error::input(format!("the header of `{}` {why}", file.name)).hint("check `csv.quote`");
    match record.fault {
        Some(Fault::Unclosed(_)) => return Err(broken("has an unclosed quote")),
        Some(Fault::AfterQuote(_)) => return Err(broken("has text after a closing quote")),
        Some(Fault::Return(_)) | None => {}
    }
    let bytes = records.bytes(&record);
    let text = from_utf8(bytes).map_err(|error| {
        let byte = bytes[error.valid_up_to()];
        Error::input(format!("the header of `{}` is not UTF-8 (byte 0x{byte:02X})", file.name))
            .hint("for Windows-1252, set `csv: { encoding: latin-1 }`")
    })?;
    let names: Vec<_> = records.fields().iter().map(|span| records.value(text, *span).into_owned()).collect();
    if names.iter().any(|name| name == REJECT_LINE) {
        return Ok(names.iter().map(|name| injection::unguarded(name).to_owned()).collect());
    }
    Ok(names)
}

/// Returns whether the first record is the header of a reject file, which has one even if the source's files do not.
fn is_of_rejects(records: &mut Records) -> Result<bool> {
    let Some(record) = records.next()? else { return Ok(false) };
    let is_one = from_utf8(records.bytes(&record)).is_ok_and(|text| {
        record.fault.is_none() && records.fields().iter().any(|span| text[span.start..span.end] == *REJECT_LINE)
    });
    records.back();
    Ok(is_one)
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
        let mut records = dialect.records(&file)?;
        let names = names(&mut records, &file, &dialect)?;
        if names.len() != file.columns.len() {
            return Err(file.changed("its header changed"));
        }
        let guarded = names.iter().any(|name| name == REJECT_LINE);
        Ok(Self { layout: Arc::new(Layout { index, file, schema, dialect, names, guarded, rows }), records })
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
        let Self { layout, records, stretch } = self;
        let Layout { file, dialect, guarded, .. } = layout.as_ref();
        let bytes = records.bytes(record);
        let complete = record.fault.is_none() && records.fields().len() == file.columns.len();
        match from_utf8(bytes) {
            Ok(text) if complete && !bytes.contains(&0) => {
                for (span, place) in records.fields().iter().zip(&file.columns) {
                    let Some(place) = *place else { continue };
                    let value = records.value(text, *span);
                    let value = Some(&*value).filter(|value| !dialect.is_null(value));
                    stretch.value(place, if *guarded { value.map(injection::unguarded) } else { value });
                }
                stretch.end_row(record.line);
            }
            _ => self.accept_or_refuse(record),
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
                let value = self.records.value(&raw, Span { start: 0, end: raw.len(), ..*span }).into_owned();
                let value = Some(value).filter(|value| !self.layout.dialect.is_null(value));
                if self.layout.guarded { value.map(|value| injection::unguarded(&value).to_owned()) } else { value }
            })
            .collect();
        let Some(reason) = self.reason(record) else {
            for (value, place) in values.iter().zip(&self.layout.file.columns) {
                if let Some(place) = place {
                    self.stretch.value(*place, value.as_deref());
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
        self.stretch.malformed(Malformed { line: record.line, raw, fields, reason });
    }

    /// Returns the reason why a record is not a valid row, if it is not.
    fn reason(&self, record: &Record) -> Option<String> {
        let bytes = self.records.bytes(record);
        let Layout { file, names, dialect, .. } = self.layout.as_ref();
        let label = |index: usize| match names.get(index) {
            Some(name) => format!("column \"{name}\""),
            None => format!("field {}", index + 1),
        };
        match record.fault {
            Some(Fault::Unclosed(at)) => {
                let line = self.records.line_of(record, at);
                return Some(format!("unclosed quote on line {line}"));
            }
            Some(Fault::AfterQuote(field)) => return Some(format!("text after the closing quote of {}", label(field))),
            Some(Fault::Return(field)) => {
                return Some(format!("{} contains an unquoted carriage return", label(field)));
            }
            None => {}
        }
        let (fields, names) = (self.records.fields().len(), names.len());
        if fields != names {
            let noun = if fields == 1 { "field" } else { "fields" };
            let of = if dialect.header { "the header has" } else { "`names` has" };
            return Some(format!("{fields} {noun}, {of} {names}"));
        }
        let loaded = self.records.fields().iter().enumerate().filter(|(index, _)| file.columns[*index].is_some());
        for (index, span) in loaded {
            let value = &bytes[span.start..span.end];
            if let Err(error) = from_utf8(value) {
                let byte = value[error.valid_up_to()];
                return Some(format!("{} is not UTF-8 (byte 0x{byte:02X})", label(index)));
            }
            if value.contains(&0) {
                return Some(format!("{} contains a NUL character", label(index)));
            }
        }
        None
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
        self.stretch.take().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{Read, read_all, read_one};
    use super::*;
    use crate::error::Kind;

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
        assert_eq!(read.rows.len(), 1);
        assert_eq!(reasons(&read), [(3, "\"2\n\",\"y\n3,z\n4,w", "unclosed quote on line 4")]);
        assert_eq!(read.malformed[0].fields, some(&["2\n", "y\n3,z\n4,w\n"]));
    }

    #[test]
    fn two_rows_are_not_read_as_one_where_a_quote_was_left_open() {
        let read = read(b"a,b\n1,\"Ann\n2,\"Bob\"\n3,Cy\n");
        assert_eq!(reasons(&read), [(2, "1,\"Ann\n2,\"Bob\"", "text after the closing quote of column \"b\"")]);
        assert_eq!(read.rows.iter().map(|row| row.1).collect::<Vec<_>>(), [4]);
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
        let spec = CsvSpec { encoding: Encoding::Latin1, ..CsvSpec::default() };
        let read = read_one("x.csv", b"n\xE4me,b\nRen\xE9,\x80\n\"1\n2\",x\ny\xE9\n", spec.clone()).unwrap();
        assert_eq!(read.rows[0].2, some(&["René", "€"]));
        assert_eq!(reasons(&read), [(5, "yé", "1 field, the header has 2")]);
        let error = read_one("x.csv", "\u{FEFF}a\n1\n".as_bytes(), spec).unwrap_err();
        assert!(error.to_string().contains("UTF-8 byte order mark"), "{error}");
    }

    #[test]
    fn utf_16_is_refused() {
        let error = read_one("x.csv", b"\xFF\xFEa\0\n\0", CsvSpec::default()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Input, "`x.csv` is UTF-16"));
    }

    #[test]
    fn delimiter_quote_and_names_are_as_declared() {
        let spec = CsvSpec {
            delimiter: Some(';'),
            quote: '\'',
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
        assert!(refused(CsvSpec { delimiter: Some('§'), ..CsvSpec::default() }).contains("csv.delimiter"));
        assert!(refused(CsvSpec { delimiter: Some('"'), ..CsvSpec::default() }).contains("same character"));
        assert!(refused(CsvSpec { header: false, ..CsvSpec::default() }).contains("`csv.names` is empty"));
        assert!(refused(CsvSpec { names: vec!["a".into()], ..CsvSpec::default() }).contains("`csv.names` is set"));
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
        let long = "x\n".repeat(5_000_000);
        let read = read(format!("a,b\n1,\"{long}\"\n2,y\n").as_bytes());
        assert_eq!(read.rows[0].2[1].as_deref(), Some(long.as_str()));
        assert_eq!(read.rows[1].1, 5_000_003);
    }

    #[test]
    fn files_in_another_order_of_columns_give_the_same_rows() {
        let files: [(&str, &[u8]); 2] =
            [("a.csv", b"x,y,old\n1,2,3\n"), ("b.csv", b"old,_reject_line,y,x\n\xE9,\0,20,10\n7,7,\"8\n,\n")];
        let read = read_all(&files, "*.csv", &["old"], CsvSpec::default()).unwrap();
        assert_eq!(read.rows, [(0, 2, some(&["1", "2"])), (1, 2, some(&["10", "20"]))]);
        assert_eq!(read.malformed[0].fields, [None, Some("8\n,\n".to_string())]);
    }
}
