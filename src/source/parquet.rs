//! Apache Parquet files.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::ParquetMetaData;

use super::columnar::Decoded;
use super::int96::{Exact, Schemas};
use super::text_batch::BATCH_BYTES;
use super::{FilePieces, Piece, SourceFile, columnar};
use crate::error::{Error, Result};

type Builder = ParquetRecordBatchReaderBuilder<std::fs::File>;

type Batches = Box<dyn Iterator<Item = Result<Decoded, ArrowError>> + Send>;

/// Returns the columns of the file's footer.
pub(super) fn schema(file: &SourceFile) -> Result<SchemaRef> {
    let builder = open(file)?;
    let schemas = Schemas::of(builder.schema(), builder.parquet_schema());
    Ok(schemas.map_or_else(|| builder.schema().clone(), |schemas| schemas.source))
}

/// The maximum size in bytes of a row group that is decoded in one piece.
const PIECE_BYTES: i64 = 16 * 1024 * 1024;

/// Returns the file's rows. Small row groups are one piece each, so that several are decoded at the same time.
pub(super) fn read(index: usize, file: SourceFile, schema: SchemaRef, rows: usize) -> Result<FilePieces> {
    let builder = open(&file)?;
    if builder.schema().fields().len() != file.columns.len() {
        return Err(file.changed("its columns changed"));
    }
    let metadata = builder.metadata().clone();
    let expected = u64::try_from(metadata.file_metadata().num_rows()).ok();
    let groups: Vec<u64> =
        metadata.row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect();
    let sum = groups.iter().try_fold(0_u64, |sum, rows| sum.checked_add(*rows));
    if expected != sum {
        let declared = metadata.file_metadata().num_rows();
        let found = sum.map_or_else(|| "more".to_owned(), |sum| sum.to_string());
        return Err(columnar::damaged(&file, format!("it declares {declared} rows, but its row groups have {found}")));
    }
    let layout = Layout::try_new(&file, &builder)?;
    if metadata.row_groups().iter().any(|group| group.total_byte_size() > PIECE_BYTES) {
        let step = rows.min(rows_per_batch(&metadata));
        let reader = layout.reader(&file, None, step)?;
        let batches = columnar::batches(index, file, schema, rows, expected, reader);
        return Ok(Box::new(batches.map(|batch| Ok(Box::new(std::iter::once(Ok(batch?))) as Piece))));
    }
    let mut before = 0;
    Ok(Box::new(groups.into_iter().enumerate().map(move |(number, count)| {
        let reader = layout.reader(&file, Some(number), rows)?;
        let piece = columnar::from(before, index, file.clone(), Arc::clone(&schema), rows, Some(count), reader);
        before += count;
        Ok(piece)
    })))
}

/// The metadata by which a file is decoded.
struct Layout {
    all: ArrowReaderMetadata,
    /// For a file with INT96, its schemas and the metadata of their second reading.
    int96: Option<(Schemas, ArrowReaderMetadata)>,
}

impl Layout {
    fn try_new(file: &SourceFile, builder: &Builder) -> Result<Self> {
        let metadata = |options: ArrowReaderOptions| {
            ArrowReaderMetadata::try_new(builder.metadata().clone(), options)
                .map_err(|error| columnar::damaged(file, error))
        };
        let Some(schemas) = Schemas::of(builder.schema(), builder.parquet_schema()) else {
            return Ok(Self { all: metadata(ArrowReaderOptions::new())?, int96: None });
        };
        let of = |schema: &SchemaRef| metadata(ArrowReaderOptions::new().with_schema(Arc::clone(schema)));
        Ok(Self { all: of(&schemas.fine)?, int96: Some((schemas.clone(), of(&schemas.coarse)?)) })
    }

    fn reader(&self, file: &SourceFile, group: Option<usize>, step: usize) -> Result<Batches> {
        let loaded = columnar::projection(file);
        let parquet = self.all.parquet_schema();
        let all = reader(file, &self.all, ProjectionMask::roots(parquet, loaded.iter().copied()), group, step)?;
        match &self.int96 {
            Some((schemas, coarse)) if !schemas.positions(&loaded).is_empty() => {
                let coarse = reader(file, coarse, schemas.mask(parquet, &loaded), group, step)?;
                Ok(Box::new(Exact { fine: all, coarse, positions: schemas.positions(&loaded) }))
            }
            _ => Ok(Box::new(all.map(|batch| batch.map(Decoded::from)))),
        }
    }
}

fn reader(
    file: &SourceFile,
    metadata: &ArrowReaderMetadata,
    mask: ProjectionMask,
    group: Option<usize>,
    step: usize,
) -> Result<ParquetRecordBatchReader> {
    let builder = Builder::new_with_metadata(file.open()?, metadata.clone());
    columnar::guarded(file, || {
        let mut builder = builder.with_projection(mask).with_batch_size(step);
        if let Some(group) = group {
            builder = builder.with_row_groups(vec![group]);
        }
        builder.build().map_err(|error| columnar::damaged(file, error))
    })
}

fn open(file: &SourceFile) -> Result<Builder> {
    let mut handle = file.open()?;
    refuse_encrypted(&mut handle, file)?;
    columnar::guarded(file, || Builder::try_new(handle).map_err(|error| columnar::damaged(file, error)))
}

/// Refuses a file whose footer is encrypted.
fn refuse_encrypted(handle: &mut std::fs::File, file: &SourceFile) -> Result<()> {
    let mut end = [0; 4];
    let read = handle.seek(SeekFrom::End(-4)).and_then(|_| handle.read_exact(&mut end)).and_then(|()| handle.rewind());
    match read {
        Ok(()) if &end == b"PARE" => Err(Error::input(format!("`{}` is an encrypted Parquet file", file.name))
            .hint("export it without encryption; the pipeline has no keys to decrypt it")),
        // The reader reports files that are too short.
        _ => Ok(()),
    }
}

/// Returns the number of rows per batch that keeps batches near their limit in bytes.
fn rows_per_batch(metadata: &ParquetMetaData) -> usize {
    let groups = metadata.row_groups().iter();
    let per_row = groups
        .filter(|group| group.num_rows() > 0)
        .map(|group| usize::try_from(group.total_byte_size() / group.num_rows()).unwrap_or(0))
        .max();
    BATCH_BYTES / per_row.unwrap_or(0).clamp(1, BATCH_BYTES)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, ListArray, StringArray};
    use arrow::datatypes::{Int32Type, Int64Type};
    use arrow::record_batch::RecordBatch;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    use super::super::Source;
    use crate::error::{Kind, Result};
    use crate::spec::SourceSpec;

    fn rows(count: i64) -> RecordBatch {
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from_iter_values(0..count)) as ArrayRef),
            ("name", Arc::new(StringArray::from_iter_values((0..count).map(|id| format!("name {id}"))))),
        ])
        .unwrap()
    }

    fn write(path: &Path, batch: &RecordBatch) {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(64)).build();
        let mut writer =
            ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
    }

    fn source(folder: &Path, ignore: &[&str]) -> Result<Source> {
        let ignore = ignore.iter().map(ToString::to_string).collect();
        Source::try_new(&SourceSpec { ignore, ..SourceSpec::at("*.parquet") }, folder)
    }

    #[test]
    fn rows_come_in_order_with_their_numbers_in_each_file() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.parquet"), &rows(150));
        write(&folder.path().join("b.parquet"), &rows(10));
        let source = source(folder.path(), &[]).unwrap();
        let mut seen = Vec::new();
        for batch in source.batches(40) {
            let batch = batch.unwrap();
            assert!(batch.rows.num_rows() <= 40 && batch.malformed.is_empty());
            let ids = batch.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            seen.extend(batch.lines.iter().zip(ids).map(|(line, id)| (batch.file, *line, id)));
        }
        let expected = (0..150).map(|id| (0, id as u64 + 1, id)).chain((0..10).map(|id| (1, id as u64 + 1, id)));
        assert_eq!(seen, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_nested_column_is_json_unless_it_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), Some(2)]), None]);
        let ids = Int64Array::from(vec![7, 8]);
        let batch = RecordBatch::try_from_iter([("tags", Arc::new(list) as ArrayRef), ("id", Arc::new(ids))]).unwrap();
        write(&folder.path().join("a.parquet"), &batch);
        let read = source(folder.path(), &[]).unwrap().batches(9).next().unwrap().unwrap();
        let tags: Vec<_> = read.rows.column(0).as_string::<i32>().iter().collect();
        assert_eq!(tags, [Some("[1,2]"), None]);
        let read = source(folder.path(), &["tags"]).unwrap().batches(9).next().unwrap().unwrap();
        assert_eq!(read.rows.column(0).as_primitive::<Int64Type>().values(), &[7, 8]);
    }

    #[test]
    fn a_cut_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, &rows(100));
        let bytes = fs::read(&path).unwrap();
        for keep in [3, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..keep]).unwrap();
            let error = source(folder.path(), &[]).unwrap_err();
            assert_eq!(error.kind(), Kind::Input);
            assert!(error.to_string().starts_with("cannot read `a.parquet`: "), "{error}");
            assert!(error.next_step().unwrap().contains("truncated or damaged"));
        }
    }

    #[test]
    fn damage_anywhere_is_an_error_of_the_input_or_goes_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, &rows(100));
        let bytes = fs::read(&path).unwrap();
        let mut refused = 0;
        for position in (0..bytes.len()).step_by(7) {
            let mut bytes = bytes.clone();
            bytes[position] ^= 0xFF;
            fs::write(&path, &bytes).unwrap();
            let read = source(folder.path(), &[]).and_then(|source| source.batches(50).collect::<Result<Vec<_>>>());
            if let Err(error) = read {
                assert_eq!(error.kind(), Kind::Input, "{error}");
                refused += 1;
            }
        }
        assert!(refused > 10, "{refused}");
    }
}
