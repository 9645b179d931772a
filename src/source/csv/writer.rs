//! A writer of CSV files in the dialect of a source, so that they can be read with the same options.

use std::borrow::Cow;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use super::super::{Source, files};
use super::Dialect;
use crate::output_files::OutputMode;
use crate::spec::{Encoding, Format};

/// Writes records in the dialect of a [`Source`]: its delimiter, quote, encoding, and NULL. For a source that is not CSV,
/// it follows [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180), with an empty field for NULL.
pub struct CsvWriter {
    writer: csv::Writer<BufWriter<File>>,
    null: String,
    encoding: Encoding,
}

impl Source {
    /// Returns the extension of CSV files of this source, which implies the delimiter if the options do not set it.
    pub fn csv_ending(&self) -> &'static str {
        match self.own_dialect() {
            Some(dialect)
                if dialect.delimiter().is_none() && self.files().iter().all(|file| files::is_tsv(&file.path)) =>
            {
                "tsv"
            }
            _ => "csv",
        }
    }

    /// Creates a CSV file at `path`, whose name ends in [`Self::csv_ending`].
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub fn csv_writer(&self, path: &Path, mode: OutputMode) -> std::io::Result<CsvWriter> {
        let mut builder = csv::WriterBuilder::new();
        let (mut null, mut encoding) = (String::new(), Encoding::Utf8);
        if let Some(dialect) = self.own_dialect() {
            let by_name = if self.csv_ending() == "tsv" { b'\t' } else { b',' };
            builder.delimiter(dialect.delimiter().unwrap_or(by_name)).quote(dialect.quote());
            null = dialect.null_values().first().cloned().unwrap_or_default();
            encoding = dialect.encoding();
        }
        let writer = builder.from_writer(BufWriter::new(mode.create(path)?));
        Ok(CsvWriter { writer, null, encoding })
    }

    /// Returns the dialect, if the files are CSV.
    fn own_dialect(&self) -> Option<&Dialect> {
        self.files().first().filter(|file| file.format == Format::Csv).map(|_| &*self.dialect)
    }
}

impl CsvWriter {
    /// Returns the text that is written for NULL.
    pub fn null(&self) -> &str {
        &self.null
    }

    /// Writes one record. A character that the encoding lacks becomes a reference such as `&#8364;`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write<'f>(&mut self, fields: impl IntoIterator<Item = Cow<'f, str>>) -> csv::Result<()> {
        for field in fields {
            match self.encoding {
                Encoding::Utf8 => self.writer.write_field(field.as_bytes())?,
                Encoding::Latin1 => self.writer.write_field(encoding_rs::WINDOWS_1252.encode(&field).0)?,
            }
        }
        self.writer.write_record(None::<&[u8]>)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{folder, source};
    use super::super::guarded;
    use super::*;
    use crate::spec::CsvSpec;

    /// The file that a source of this dialect gets of the records, and what the same options read from it.
    fn written(
        name: &str,
        spec: &CsvSpec,
        records: &[[Option<&str>; 2]],
    ) -> (String, Vec<u8>, Vec<Vec<Option<String>>>) {
        let files = folder(&[(name, b"x\n")]);
        let source = source(files.path(), name, &[], spec.clone()).unwrap();
        let ending = source.csv_ending();
        let path = files.path().join(format!("again.{ending}"));
        let mut writer = source.csv_writer(&path, OutputMode::PRIVATE).unwrap();
        let null = writer.null().to_owned();
        writer.write(["a", "_reject_line"].map(Cow::from)).unwrap();
        for record in records {
            let field =
                |field: Option<&str>| field.map_or(Cow::from(null.clone()), |field| guarded(field.to_owned().into()));
            writer.write(record.iter().map(|value| field(*value))).unwrap();
        }
        writer.finish().unwrap();
        let again =
            super::super::super::tests::source(files.path(), &format!("again.{ending}"), &[], spec.clone()).unwrap();
        let mut rows = Vec::new();
        for batch in again.batches(100) {
            let batch = batch.unwrap();
            assert_eq!(batch.malformed, []);
            let column = batch.rows.column(0).clone();
            let column = arrow::array::AsArray::as_string::<i32>(&column);
            rows.extend(column.iter().map(|value| vec![value.map(str::to_owned)]));
        }
        (ending.to_owned(), std::fs::read(&path).unwrap(), rows)
    }

    #[test]
    fn what_is_written_is_read_with_the_same_options() {
        let values =
            ["plain", "a;b,c\td'e\"f", "two\nlines\r", "Größe €", " ", "-", "=1+1", "'=x", "-5", "+49 171", "@a"];
        let dialects = [
            CsvSpec::default(),
            CsvSpec { delimiter: Some(';'), quote: '\'', encoding: Encoding::Latin1, ..CsvSpec::default() },
            CsvSpec { null_values: vec!["NULL".into(), String::new()], ..CsvSpec::default() },
            CsvSpec { header: false, names: vec!["a".into()], ..CsvSpec::default() },
        ];
        for spec in dialects {
            let records: Vec<_> =
                values.iter().map(|value| [Some(*value), Some("1")]).chain([[None, Some("2")]]).collect();
            let (_, _, rows) = written("a.csv", &spec, &records);
            let expected: Vec<_> = records.iter().map(|[value, _]| vec![value.map(str::to_owned)]).collect();
            assert_eq!(rows, expected, "{spec:?}");
        }
    }

    #[test]
    fn null_and_an_empty_text_stay_two_things() {
        let spec = CsvSpec { null_values: vec!["\\N".into()], ..CsvSpec::default() };
        let (_, bytes, rows) = written("a.csv", &spec, &[[None, Some("1")], [Some(""), Some("2")]]);
        assert_eq!(bytes, b"a,_reject_line\n\\N,1\n,2\n");
        assert_eq!(rows, [vec![None], vec![Some(String::new())]]);
    }

    #[test]
    fn file_ending_determines_the_tab_delimiter() {
        let (ending, bytes, _) = written("a.tsv", &CsvSpec::default(), &[]);
        assert_eq!((ending.as_str(), bytes.as_slice()), ("tsv", &b"a\t_reject_line\n"[..]));
        let spec = CsvSpec { delimiter: Some('|'), encoding: Encoding::Latin1, ..CsvSpec::default() };
        let (ending, bytes, _) = written("a.tsv", &spec, &[[Some("é→"), Some("1")]]);
        assert_eq!((ending.as_str(), bytes.as_slice()), ("csv", &b"a|_reject_line\n\xE9&#8594;|1\n"[..]));
    }
}
