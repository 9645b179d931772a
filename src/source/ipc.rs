//! Arrow IPC: the file format (also known as Feather 2) and the stream format.
//!
//! A record batch of an Arrow file is read in one piece, so the writer of the file determines the memory it takes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader, read_footer_length};
use arrow::ipc::{Endianness, root_as_footer, root_as_message};

use super::{Piece, SourceFile, columnar};
use crate::error::Result;

/// The first bytes of the file format; a stream begins with its schema.
const FILE_MAGIC: &[u8] = b"ARROW1";

/// The marker before each message of a stream
/// (<https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format>).
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// The reader does not swap the bytes of values.
const BIG_ENDIAN: &str = "its values are big-endian; write it on a little-endian machine, or as Parquet";

enum Reader {
    File(FileReader<BufReader<File>>),
    Stream(StreamReader<BufReader<File>>),
}

/// Returns the columns of the file's schema.
pub(super) fn schema(file: &SourceFile) -> Result<SchemaRef> {
    Ok(match open(file, None)? {
        Reader::File(reader) => reader.schema(),
        Reader::Stream(reader) => reader.schema(),
    })
}

/// Returns the file's rows.
pub(super) fn read(index: usize, file: SourceFile, schema: SchemaRef, rows: usize) -> Result<Piece> {
    Ok(match open(&file, Some(columnar::projection(&file)))? {
        Reader::File(reader) => columnar::batches(index, file, schema, rows, None, reader),
        Reader::Stream(reader) => columnar::batches(index, file, schema, rows, None, reader),
    })
}

fn open(file: &SourceFile, projection: Option<Vec<usize>>) -> Result<Reader> {
    let mut handle = BufReader::new(file.open()?);
    columnar::guarded(file, || {
        let mut magic = Vec::with_capacity(FILE_MAGIC.len());
        handle
            .by_ref()
            .take(FILE_MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .and_then(|_| handle.rewind())
            .map_err(|error| file.unreadable(error))?;
        let reader = if magic == FILE_MAGIC {
            check_file(&mut handle, file.bytes).and_then(|()| FileReader::try_new(handle, projection).map(Reader::File))
        } else {
            check_stream(&mut handle, file.bytes)
                .and_then(|()| StreamReader::try_new(handle, projection).map(Reader::Stream))
        };
        reader.map_err(|error| columnar::damaged(file, error))
    })
}

fn wrong(what: &str) -> ArrowError {
    ArrowError::IpcError(what.into())
}

/// Checks that all parts named in a file's footer are inside the file, because the reader allocates any length it finds.
fn check_file(handle: &mut BufReader<File>, bytes: u64) -> Result<(), ArrowError> {
    let mut end = [0; 10];
    handle.seek(SeekFrom::End(-10))?;
    handle.read_exact(&mut end)?;
    let length = read_footer_length(end)?;
    if length as u64 + 10 > bytes {
        return Err(wrong("its footer is longer than the file"));
    }
    let mut footer = vec![0; length];
    handle.seek(SeekFrom::End(-10 - length as i64))?;
    handle.read_exact(&mut footer)?;
    let footer = root_as_footer(&footer).map_err(|_| wrong("its footer is damaged"))?;
    if footer.schema().is_some_and(|schema| schema.endianness() == Endianness::Big) {
        return Err(wrong(BIG_ENDIAN));
    }
    for block in footer.dictionaries().into_iter().flatten().chain(footer.recordBatches().into_iter().flatten()) {
        let inside = u64::try_from(block.offset()).ok().and_then(|offset| {
            let body = u64::try_from(block.bodyLength()).ok()?;
            offset.checked_add(body)?.checked_add(u64::try_from(block.metaDataLength()).ok()?)
        });
        if inside.is_none_or(|end| end > bytes) {
            return Err(wrong("a part is beyond the end of the file"));
        }
    }
    handle.rewind()?;
    Ok(())
}

/// Checks that a stream's messages are complete and end with a marker. Without the marker, a stream that was truncated
/// between two messages would look complete.
fn check_stream(handle: &mut BufReader<File>, bytes: u64) -> Result<(), ArrowError> {
    let cut = || wrong("it is neither an Arrow file nor a complete Arrow stream");
    let mut at = 0;
    loop {
        let mut head = [0; 8];
        handle.read_exact(&mut head).map_err(|_| cut())?;
        let [a, b, c, d, length @ ..] = head;
        let length = u64::from(u32::from_le_bytes(length));
        if [a, b, c, d] != CONTINUATION || at + 8 + length > bytes {
            return Err(cut());
        }
        if length == 0 {
            handle.rewind()?;
            return Ok(());
        }
        let mut message = vec![0; length as usize];
        handle.read_exact(&mut message)?;
        let message = root_as_message(&message).map_err(|_| wrong("a message is damaged"))?;
        if message.header_as_schema().is_some_and(|schema| schema.endianness() == Endianness::Big) {
            return Err(wrong(BIG_ENDIAN));
        }
        let body = u64::try_from(message.bodyLength()).map_err(|_| cut())?;
        at =
            at.checked_add(8 + length).and_then(|at| at.checked_add(body)).filter(|at| *at <= bytes).ok_or_else(cut)?;
        handle.seek(SeekFrom::Start(at))?;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int64Array};
    use arrow::datatypes::{DataType, Int32Type, Int64Type};
    use arrow::ipc::writer::{FileWriter, StreamWriter};
    use arrow::record_batch::RecordBatch;

    use super::super::Source;
    use super::*;
    use crate::error::Kind;
    use crate::spec::SourceSpec;

    fn rows(first: i64, count: i64) -> RecordBatch {
        let names: DictionaryArray<Int32Type> = (0..count).map(|id| if id % 2 == 0 { "even" } else { "odd" }).collect();
        let ids = Int64Array::from_iter_values(first..first + count);
        RecordBatch::try_from_iter([("name", Arc::new(names) as ArrayRef), ("id", Arc::new(ids))]).unwrap()
    }

    fn write_file(path: &Path) {
        let mut writer = FileWriter::try_new(File::create(path).unwrap(), &rows(0, 1).schema()).unwrap();
        writer.write(&rows(0, 50)).unwrap();
        writer.write(&rows(50, 50)).unwrap();
        writer.finish().unwrap();
    }

    fn write_stream(path: &Path) {
        let mut writer = StreamWriter::try_new(File::create(path).unwrap(), &rows(0, 1).schema()).unwrap();
        writer.write(&rows(0, 50)).unwrap();
        writer.write(&rows(50, 50)).unwrap();
        writer.finish().unwrap();
    }

    fn source(folder: &Path, ignore: &[&str]) -> Result<Source> {
        let ignore = ignore.iter().map(ToString::to_string).collect();
        Source::try_new(&SourceSpec { ignore, ..SourceSpec::at("*.arrow") }, folder)
    }

    #[test]
    fn files_and_streams_give_the_same_rows() {
        for write in [write_file, write_stream] {
            let folder = tempfile::tempdir().unwrap();
            write(&folder.path().join("a.arrow"));
            let source = source(folder.path(), &[]).unwrap();
            assert_eq!(source.schema().field(0).data_type(), &DataType::Utf8);
            let read: Vec<_> = source.batches(30).collect::<Result<_>>().unwrap();
            let ids: Vec<i64> = read
                .iter()
                .flat_map(|batch| batch.rows.column(1).as_primitive::<Int64Type>().values().to_vec())
                .collect();
            assert_eq!(ids, (0..100).collect::<Vec<_>>());
            assert_eq!(
                read.iter().flat_map(|batch| batch.lines.clone()).collect::<Vec<_>>(),
                (1..=100).collect::<Vec<_>>()
            );
            assert_eq!(read[0].rows.column(0).as_string::<i32>().value(1), "odd");
        }
    }

    #[test]
    fn ignored_columns_are_not_read() {
        for write in [write_file, write_stream] {
            let folder = tempfile::tempdir().unwrap();
            write(&folder.path().join("a.arrow"));
            let read = source(folder.path(), &["name"]).unwrap().batches(30).next().unwrap().unwrap();
            assert_eq!(read.rows.num_columns(), 1);
            assert_eq!(read.rows.column(0).as_primitive::<Int64Type>().value(29), 29);
        }
    }

    #[test]
    fn a_cut_file_or_stream_is_refused_wherever_it_was_cut() {
        for write in [write_file, write_stream] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.arrow");
            write(&path);
            let bytes = fs::read(&path).unwrap();
            for keep in 1..bytes.len() {
                fs::write(&path, &bytes[..keep]).unwrap();
                let read = source(folder.path(), &[]).and_then(|source| source.batches(50).collect::<Result<Vec<_>>>());
                let error = read.expect_err(&format!("{keep} of {}", bytes.len()));
                assert_eq!(error.kind(), Kind::Input);
                assert!(error.to_string().starts_with("cannot read `a.arrow`: "), "{error}");
            }
        }
    }

    #[test]
    fn damage_anywhere_is_an_error_of_the_input_or_goes_unseen() {
        for write in [write_file, write_stream] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.arrow");
            write(&path);
            let bytes = fs::read(&path).unwrap();
            for position in 0..bytes.len() {
                let mut bytes = bytes.clone();
                bytes[position] ^= 0xFF;
                fs::write(&path, &bytes).unwrap();
                let read = source(folder.path(), &[]).and_then(|source| source.batches(50).collect::<Result<Vec<_>>>());
                if let Err(error) = read {
                    assert_eq!(error.kind(), Kind::Input, "{position}: {error}");
                }
            }
        }
    }
}
