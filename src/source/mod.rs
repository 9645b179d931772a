//! The delta files of one table, as Arrow record batches.
//!
//! A [`Source`] finds the files, matches their columns, and returns their rows in the order of files and lines. Every row
//! keeps its file and line, so that later messages can name them. A row that cannot be parsed is returned as
//! [`Malformed`]; it is never lost, and never stops the others. A *file* that cannot be read to its end stops the run.
//!
//! ```text
//! a.csv ─┐            ┌─► rows       account_ref │ name      with lines 2, 3, 5
//! b.csv ─┴─► Source ──┤
//!                     └─► malformed  line 4: 7 fields, the header has 6
//! ```
//!
//! To add a format, add a file to this folder and an arm to [`Format`].

mod code_pages;
mod columnar;
mod columns;
mod csv;
mod decoder;
mod encodings;
mod files;
mod fixed;
mod hash;
mod int96;
mod ipc;
mod json;
mod magic;
mod nested;
mod parquet;
mod settings;
mod text_batch;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use self::columns::ColumnMatch;
pub use self::csv::CsvWriter;
use self::csv::Dialect;
pub(crate) use self::csv::guarded;
use self::files::Compression;
pub use self::hash::{PieceHash, whole_hash};
pub use self::settings::setting;
use crate::diagnostic::Redactor;
use crate::error::{Error, Result};
use crate::spec::{Format, SourceSpec};

/// The delta files of one table.
#[derive(Debug, Clone)]
pub struct Source {
    schema: SchemaRef,
    files: Arc<[SourceFile]>,
    dialect: Arc<Dialect>,
    json: Arc<json::Layout>,
    fixed: Arc<fixed::Layout>,
    /// The number of records to read; None for all.
    limit: Option<usize>,
}

/// One file of a [`Source`].
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The location of the file.
    pub path: PathBuf,
    /// The path for messages: relative to the pipeline's folder if it is inside, else as given.
    pub name: String,
    /// The file's format.
    pub format: Format,
    /// The file's size on disk in bytes.
    pub bytes: u64,
    compression: Compression,
    /// For each column of the file, its position in the source's schema; `None` if it is not loaded.
    columns: Vec<Option<usize>>,
    /// Whether records are numbered from 1 instead of lines: a line of a JSON file has several objects.
    numbered: bool,
}

/// Rows of one file.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The file, as an index into [`Source::files`].
    pub file: usize,
    /// For each row, the line where its record starts, or the number of the row or record in files without lines; from 1.
    pub lines: Vec<u64>,
    /// The rows, in the source's schema.
    pub rows: RecordBatch,
    /// Rows of this range of the file that could not be parsed, in the order of lines. They are not in `rows`.
    pub malformed: Vec<Malformed>,
    /// The number of rows that are skipped as declared: blank lines in a file of one column, and records of other types in
    /// a fixed-width file.
    pub skipped: u64,
}

/// A row that could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The line where the record starts, or the number of the row or record in files without lines; from 1.
    pub line: u64,
    /// The record as written, without its line ending; invalid UTF-8 is replaced by `�`. For Parquet and Arrow files, the
    /// values separated by commas. For fixed-width files with EBCDIC, packed, or binary fields, its bytes such as `\xF0F1`.
    pub raw: String,
    /// The values in the order of the source's columns, as far as they were split; surplus values of a line come last.
    /// Empty if a line is not JSON.
    pub fields: Vec<Option<String>>,
    /// The reason, as a phrase: `7 fields, the header has 6`.
    pub reason: String,
    /// Whether the line belongs to no record, because an earlier record is broken.
    pub lost: bool,
}

impl Source {
    /// Finds the files that `spec.path` selects, relative to the pipeline's `folder`, reads their columns, and matches them.
    ///
    /// Columns are matched by name, and their order may differ from file to file. The source has the first file's order.
    /// Columns whose name starts with `_reject_`, and those in `spec.ignore`, are ignored.
    ///
    /// # Errors
    ///
    /// [`Input`](crate::error::Kind::Input) for files that are missing, empty, damaged, or have different columns, and
    /// [`Pipeline`](crate::error::Kind::Pipeline) for invalid options.
    pub fn try_new(spec: &SourceSpec, folder: &Path) -> Result<Self> {
        let dialect = Dialect::try_new(spec)?;
        let mut files = files::find(spec, folder)?;
        let json = json::Layout::new(spec);
        let fixed = fixed::Layout::new(&spec.fixed);
        let mut found = Vec::with_capacity(files.len());
        for file in &mut files {
            if file.bytes == 0 {
                return Err(file.empty(file.format == Format::Csv && dialect.header()));
            }
            magic::refuse_other_kinds(file)?;
            found.push(match file.format {
                Format::Csv => ColumnMatch::Named(csv::header(file, &dialect)?),
                Format::Json => {
                    let json::Keys { keys, numbered } = json::keys(file, &json)?;
                    file.numbered = numbered;
                    ColumnMatch::Keys(keys)
                }
                Format::Parquet => ColumnMatch::Typed(parquet::schema(file)?),
                Format::Arrow => ColumnMatch::Typed(ipc::schema(file)?),
                Format::Fixed => ColumnMatch::Typed(fixed.schema(file)?),
            });
        }
        let schema = columns::align(&mut files, &found, &spec.ignore)?;
        let schema = settings::with_settings(&schema, spec);
        let (dialect, json, fixed) = (Arc::new(dialect), Arc::new(json), Arc::new(fixed));
        Ok(Self { schema, files: files.into(), dialect, json, fixed, limit: None })
    }

    /// Returns the schema: text for CSV and JSON, else the types of the files or of the declared fields without dictionaries and views. All columns are
    /// nullable.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the files, sorted by path.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Masks secrets in the files' names.
    pub fn mask_names(&mut self, secrets: &Redactor) {
        let masked =
            self.files.iter().map(|file| SourceFile { name: secrets.mask(&file.name).into_owned(), ..file.clone() });
        self.files = masked.collect();
    }

    /// Returns the rows in the order of files and lines, in batches of at most `rows`, or fewer if rows are large. A batch
    /// never spans two files. An error ends the iteration.
    pub fn batches(&self, rows: usize) -> impl Iterator<Item = Result<Batch>> + Send + use<> {
        let mut failed = false;
        let batches = self.pieces(rows).flat_map(|piece| match piece {
            Ok(piece) => piece,
            Err(error) => Box::new(std::iter::once(Err(error))),
        });
        batches.take_while(move |batch| !std::mem::replace(&mut failed, batch.is_err()))
    }

    /// Returns the source with the first records alone, rounded up to whole batches.
    #[must_use]
    pub fn first(&self, records: usize) -> Self {
        Self { limit: Some(records), ..self.clone() }
    }

    /// Returns the rows in pieces, in order. A piece covers a few megabytes of its file; any thread can decode its batches.
    pub fn pieces(&self, rows: usize) -> Pieces {
        let all = Pieces { source: self.clone(), rows: rows.max(1), next: 0, current: None };
        let Some(limit) = self.limit else { return all };
        let mut read = 0;
        let first = Self { limit: None, ..self.clone() }.batches(rows).take_while(move |batch| {
            let is_wanted = read < limit;
            read += batch.as_ref().map_or(0, |batch| batch.lines.len() + batch.malformed.len());
            is_wanted
        });
        let piece: FilePieces = Box::new(std::iter::once(Ok(Box::new(first) as Piece)));
        Pieces { next: self.files.len(), current: Some(piece), ..all }
    }

    fn read(&self, index: usize, rows: usize) -> Result<FilePieces> {
        let file = self.files[index].clone();
        let schema = Arc::clone(&self.schema);
        let one = |batch: Result<Batch>| batch.map(|batch| Box::new(std::iter::once(Ok(batch))) as Piece);
        Ok(match file.format {
            Format::Csv => Box::new(csv::Blocks::try_new(index, file, schema, Arc::clone(&self.dialect), rows)?),
            Format::Json => Box::new(json::Rows::try_new(index, &file, schema, &self.json, rows)?.map(one)),
            Format::Parquet => parquet::read(index, file, schema, rows)?,
            Format::Arrow => Box::new(ipc::read(index, file, schema, rows)?.map(one)),
            Format::Fixed => Box::new(fixed::Blocks::try_new(index, file, schema, Arc::clone(&self.fixed), rows)?),
        })
    }
}

impl SourceFile {
    /// Opens the file; fails if its size has changed since it was found.
    fn open(&self) -> Result<File> {
        let file = File::open(&self.path).map_err(|error| self.unreadable(error))?;
        let bytes = file.metadata().map_err(|error| self.unreadable(error))?.len();
        if bytes != self.bytes {
            return Err(self.changed(format!("it had {} bytes, and now has {bytes}", self.bytes)));
        }
        Ok(file)
    }

    fn unreadable(&self, error: impl std::fmt::Display) -> Error {
        Error::input(format!("cannot read `{}`: {error}", self.name))
    }

    fn changed(&self, how: impl std::fmt::Display) -> Error {
        Error::input(format!("`{}` changed while it was read: {how}", self.name))
            .hint("run again when the file is complete")
    }

    /// Returns the error for an empty file; `header` tells whether a header was expected.
    fn empty(&self, header: bool) -> Error {
        let what = if header { ", without a header" } else { "" };
        Error::input(format!("`{}` is empty{what}", self.name))
            .hint("check that the export completed; if there is nothing to load, remove the file")
    }
}

/// The batches of a piece of a file.
pub type Piece = Box<dyn Iterator<Item = Result<Batch>> + Send>;

/// The pieces of one file.
type FilePieces = Box<dyn Iterator<Item = Result<Piece>> + Send>;

/// The pieces of a [`Source`], returned by [`Source::pieces`].
pub struct Pieces {
    source: Source,
    rows: usize,
    next: usize,
    current: Option<FilePieces>,
}

impl Iterator for Pieces {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.current.as_mut().and_then(Iterator::next) {
                Some(Ok(piece)) => return Some(Ok(piece)),
                Some(Err(error)) => return Some(self.stop(error)),
                None if self.next == self.source.files.len() => return None,
                None => match self.source.read(self.next, self.rows) {
                    Ok(pieces) => {
                        self.current = Some(pieces);
                        self.next += 1;
                    }
                    Err(error) => return Some(self.stop(error)),
                },
            }
        }
    }
}

impl Pieces {
    fn stop(&mut self, error: Error) -> Result<Piece> {
        self.current = None;
        self.next = self.source.files.len();
        Err(error)
    }
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("rows", &self.rows).field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};

    use super::*;
    use crate::spec::CsvSpec;

    /// All that a source gave: its rows with file and line, and its malformed rows.
    #[derive(Debug, Default, PartialEq)]
    pub(super) struct Read {
        pub(super) rows: Vec<(usize, u64, Vec<Option<String>>)>,
        pub(super) malformed: Vec<Malformed>,
    }

    pub(super) fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    pub(super) fn source(folder: &Path, path: &str, ignore: &[&str], csv: CsvSpec) -> Result<Source> {
        let ignore = ignore.iter().map(ToString::to_string).collect();
        Source::try_new(&SourceSpec { ignore, csv, ..SourceSpec::at(path) }, folder)
    }

    pub(super) fn read_all(files: &[(&str, &[u8])], path: &str, ignore: &[&str], csv: CsvSpec) -> Result<Read> {
        let folder = folder(files);
        let mut read = Read::default();
        for batch in source(folder.path(), path, ignore, csv)?.batches(3) {
            let batch = batch?;
            assert_eq!(batch.lines.len(), batch.rows.num_rows());
            assert!((1..=3).contains(&(batch.lines.len() + batch.malformed.len())));
            for (row, line) in batch.lines.iter().enumerate() {
                let text = |column: &Arc<dyn Array>| {
                    let column = column.as_string::<i32>();
                    column.is_valid(row).then(|| column.value(row).to_string())
                };
                read.rows.push((batch.file, *line, batch.rows.columns().iter().map(text).collect()));
            }
            read.malformed.extend(batch.malformed);
        }
        Ok(read)
    }

    pub(super) fn read_one(name: &str, bytes: &[u8], csv: CsvSpec) -> Result<Read> {
        read_all(&[(name, bytes)], name, &[], csv)
    }

    #[test]
    fn batches_keep_order_and_never_span_two_files() {
        let folder = folder(&[("b.csv", b"a\n1\n2\n"), ("a.csv", b"a\n1\n2\n3\n4\n5\n")]);
        let source = source(folder.path(), "*.csv", &[], CsvSpec::default()).unwrap();
        assert_eq!(source.files().iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a.csv", "b.csv"]);
        let batches: Vec<Batch> = source.batches(2).collect::<Result<_>>().unwrap();
        let seen: Vec<(usize, Vec<u64>)> = batches.into_iter().map(|batch| (batch.file, batch.lines)).collect();
        assert_eq!(seen, [(0, vec![2, 3]), (0, vec![4, 5]), (0, vec![6]), (1, vec![2, 3])]);
    }

    #[test]
    fn a_batch_of_large_rows_has_few_of_them() {
        let mut text = "a\n".to_string();
        for _ in 0..40 {
            text.push_str(&"x".repeat(1024 * 1024));
            text.push('\n');
        }
        let folder = folder(&[("a.csv", text.as_bytes())]);
        let source = source(folder.path(), "a.csv", &[], CsvSpec::default()).unwrap();
        let batches: Vec<Batch> = source.batches(1000).collect::<Result<_>>().unwrap();
        assert!(batches.iter().all(|batch| batch.lines.len() <= 16));
        assert!(batches.iter().flat_map(|batch| batch.lines.clone()).eq(2..=41));
    }

    #[test]
    fn the_first_records_are_whole_batches() {
        let folder = folder(&[("a.csv", b"a\n1\n2\n3\n"), ("b.csv", b"a\n4\n5\n")]);
        let source = source(folder.path(), "*.csv", &[], CsvSpec::default()).unwrap();
        let count = |records: usize| {
            let batches = source.first(records).pieces(2).flat_map(|piece| piece.unwrap());
            batches.map(|batch| batch.unwrap().lines.len()).sum::<usize>()
        };
        assert_eq!([0, 1, 2, 3, 4, 9].map(count), [0, 2, 2, 3, 5, 5]);
    }

    #[test]
    fn after_an_error_there_is_nothing_more() {
        let folder = folder(&[("a.csv", b"a\n1\n"), ("b.csv", b"a\n2\n"), ("c.csv", b"a\n3\n")]);
        let source = source(folder.path(), "*.csv", &[], CsvSpec::default()).unwrap();
        std::fs::remove_file(folder.path().join("b.csv")).unwrap();
        let mut batches = source.batches(9);
        assert!(batches.next().unwrap().is_ok());
        let error = batches.next().unwrap().unwrap_err();
        assert!(error.to_string().starts_with("cannot read `b.csv`: "), "{error}");
        assert!(batches.next().is_none());
    }

    #[test]
    fn batches_can_be_read_on_another_thread() {
        fn is_send<T: Send>(_: &T) {}
        let folder = folder(&[("a.csv", b"a\n1\n")]);
        let source = source(folder.path(), "a.csv", &[], CsvSpec::default()).unwrap();
        is_send(&source.batches(1));
        source.pieces(1).for_each(|piece| is_send(&piece.unwrap()));
    }
}
