//! A writer of CSV files in the dialect of a source, so that they can be read with the same options.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::Path;

use super::super::{Source, encodings, files};
use super::Dialect;
use crate::output_files::OutputMode;
use crate::spec::{CsvSpec, Format};

/// Writes records in the dialect of a [`Source`]: its delimiter, quote, encoding, and NULL. For a source that is not CSV,
/// it follows [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180), with an empty field for NULL, and `""` for an empty text.
/// `quoted_null: false` reads both.
pub struct CsvWriter {
    file: BufWriter<File>,
    delimiter: String,
    quote: char,
    escape: Option<char>,
    comment: Option<char>,
    /// The texts that are NULL, unless they are quoted.
    nulls: Vec<String>,
    null: String,
    encoder: encodings::Encoder,
    record: String,
    fields: usize,
}

impl Source {
    /// Returns the extension of CSV files of this source, which implies the delimiter if the options do not set it.
    pub fn csv_ending(&self) -> &'static str {
        match self.own_dialect() {
            Some(dialect)
                if dialect.csv().delimiter.is_none() && self.files().iter().all(|file| files::is_tsv(&file.path)) =>
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
    pub fn csv_writer(&self, path: &Path, mode: OutputMode) -> Result<CsvWriter> {
        let plain = CsvSpec::default();
        let own = self.own_dialect();
        let csv = own.map_or(&plain, Dialect::csv);
        let by_name = if self.csv_ending() == "tsv" { "\t" } else { "," };
        Ok(CsvWriter {
            file: BufWriter::new(mode.create(path)?),
            delimiter: csv.delimiter.clone().unwrap_or_else(|| by_name.to_owned()),
            quote: csv.quote.unwrap_or('"'),
            escape: csv.escape.filter(|escape| Some(*escape) != csv.quote),
            comment: csv.comment,
            nulls: if csv.quoted_null && own.is_some() { Vec::new() } else { csv.null_values.clone() },
            null: csv.null_values.first().cloned().unwrap_or_default(),
            encoder: encodings::Encoder::new(csv.encoding),
            record: String::new(),
            fields: 0,
        })
    }

    /// Returns the dialect, if the files are CSV.
    fn own_dialect(&self) -> Option<&Dialect> {
        self.files().first().filter(|file| file.format == Format::Csv).map(|_| &*self.dialect)
    }
}

impl CsvWriter {
    /// Writes one record; `None` is NULL. A character that the encoding lacks becomes a reference such as `&#8364;`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write<'f>(&mut self, fields: impl IntoIterator<Item = Option<Cow<'f, str>>>) -> Result<()> {
        self.record.clear();
        self.fields = 0;
        for field in fields {
            if self.fields > 0 {
                self.record.push_str(&self.delimiter);
            }
            match field {
                Some(field) => self.field(&field),
                // As the user wrote it: an escape character before it is part of the text.
                None => self.record.push_str(&self.null),
            }
            self.fields += 1;
        }
        self.record.push('\n');
        let bytes = self.encoder.encode(&self.record);
        self.file.write_all(&bytes)
    }

    /// Adds a field, between quotes if it needs them.
    fn field(&mut self, field: &str) {
        let special = |char: char| {
            matches!(char, '\n' | '\r')
                || char == self.quote
                || self.delimiter.contains(char)
                || Some(char) == self.escape
        };
        let is_null = self.nulls.iter().any(|null| null == field);
        let first = self.fields == 0 && self.comment.is_some_and(|comment| field.starts_with(comment));
        if !(is_null || first || field.contains(special)) {
            self.record.push_str(field);
            return;
        }
        self.record.push(self.quote);
        for char in field.chars() {
            match self.escape {
                Some(escape) if char == escape || char == self.quote => self.record.push(escape),
                None if char == self.quote => self.record.push(char),
                _ => {}
            }
            self.record.push(char);
        }
        self.record.push(self.quote);
    }

    /// Completes the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{folder, source};
    use super::super::guarded;
    use super::*;
    use crate::spec::{CsvSpec, Encoding};

    /// The file that a source of this dialect gets of the records, and what the same options read from it.
    fn written(
        name: &str,
        spec: &CsvSpec,
        records: &[[Option<&str>; 2]],
    ) -> (String, Vec<u8>, Vec<Vec<Option<String>>>) {
        let files = folder(&[(name, b"x\nx\nx\nx\n")]);
        let source = source(files.path(), name, &[], spec.clone()).unwrap();
        let ending = source.csv_ending();
        let path = files.path().join(format!("again.{ending}"));
        let mut writer = source.csv_writer(&path, OutputMode::PRIVATE).unwrap();
        writer.write(["a", "_reject_line"].map(|name| Some(Cow::from(name)))).unwrap();
        for record in records {
            let field = |field: Option<&str>| field.map(|field| guarded(Cow::from(field.to_owned())));
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
            CsvSpec {
                delimiter: Some(";".into()),
                quote: Some('\''),
                encoding: Encoding::LATIN_1,
                ..CsvSpec::default()
            },
            CsvSpec { null_values: vec!["NULL".into(), String::new()], ..CsvSpec::default() },
            CsvSpec { header: false, names: vec!["a".into()], ..CsvSpec::default() },
            CsvSpec { delimiter: Some("||".into()), escape: Some('\\'), skip_rows: 3, ..CsvSpec::default() },
            CsvSpec { quote: None, comment: Some('p'), skip_footer: 1, ..CsvSpec::default() },
            CsvSpec { quoted_null: false, encoding: Encoding::of_label("utf-16le").unwrap(), ..CsvSpec::default() },
            CsvSpec { encoding: Encoding::of_label("cp858").unwrap(), ..CsvSpec::default() },
            CsvSpec { encoding: Encoding::of_label("ibm1141").unwrap(), ..CsvSpec::default() },
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
        let spec = CsvSpec { delimiter: Some("|".into()), encoding: Encoding::LATIN_1, ..CsvSpec::default() };
        let (ending, bytes, _) = written("a.tsv", &spec, &[[Some("é→"), Some("1")]]);
        assert_eq!((ending.as_str(), bytes.as_slice()), ("csv", &b"a|_reject_line\n\xE9&#8594;|1\n"[..]));
    }
}
