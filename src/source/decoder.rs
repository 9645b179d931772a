//! The bytes of a text file: decompressed, transcoded to UTF-8, without a byte order mark, in a window.
//!
//! A record is parsed in one piece within the window. If the window ends before the record, it grows. Memory therefore
//! holds about one record, never the file.

use std::io::{BufReader, Read};

use super::SourceFile;
use super::encodings::{Transcoder, WrongEncoding};
use super::files::Compression;
use crate::error::{Error, Result};
use crate::spec::Encoding;

/// The initial size of the window in bytes; in tests so small that most records exceed it.
const WINDOW: usize = if cfg!(test) { 16 } else { 1024 * 1024 };

/// The maximum size of a record in bytes. Arrow's text columns hold 2 GiB per batch, and an unclosed quote must not
/// fill the memory.
const LONGEST_RECORD: usize = 256 * 1024 * 1024;

/// A window that moves over a file's text.
pub(super) struct Input {
    file: SourceFile,
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    longest: usize,
    /// The number of lines at the end of the file that are not part of the window.
    held_back: usize,
    /// The end of the window without them.
    visible: usize,
}

impl Input {
    /// Opens a file and reads the first window of its text.
    pub(super) fn open(file: &SourceFile, encoding: Encoding) -> Result<Self> {
        let mut input = Self::raw(file)?;
        let mark = [(&b"\xEF\xBB\xBF"[..], encoding_rs::UTF_8), (b"\xFF\xFE", encoding_rs::UTF_16LE)];
        let mark = mark.into_iter().chain([(&b"\xFE\xFF"[..], encoding_rs::UTF_16BE)]);
        let marked = mark.into_iter().find(|(mark, _)| input.bytes().starts_with(mark));
        let Some((mark, marked)) = marked else {
            if encoding != Encoding::UTF_8 {
                input.transcode(encoding)?;
            }
            return Ok(input);
        };
        let is_utf = [encoding_rs::UTF_8, encoding_rs::UTF_16LE, encoding_rs::UTF_16BE];
        if !is_utf.iter().any(|utf| encoding == Encoding::Standard(utf)) {
            return Err(Error::input(format!(
                "`{}` begins with a {} byte order mark, but `encoding` is {encoding}",
                file.name,
                marked.name()
            ))
            .hint(format!("remove `encoding: {encoding}` from the pipeline file")));
        }
        input.consume(mark.len());
        if marked != encoding_rs::UTF_8 {
            input.transcode(Encoding::Standard(marked))?;
        }
        Ok(input)
    }

    /// Opens a file and reads the first window of its bytes, decompressed.
    pub(super) fn raw(file: &SourceFile) -> Result<Self> {
        let raw = BufReader::with_capacity(64 * 1024, file.open()?);
        let reader: Box<dyn Read + Send> = match file.compression {
            Compression::None => Box::new(raw),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            Compression::Zstd => {
                Box::new(zstd::stream::read::Decoder::with_buffer(raw).map_err(|error| damaged(file, &error))?)
            }
        };
        let mut input = Self {
            file: file.clone(),
            reader,
            buffer: vec![0; WINDOW],
            start: 0,
            end: 0,
            at_end: false,
            longest: LONGEST_RECORD,
            held_back: 0,
            visible: 0,
        };
        input.fill()?;
        Ok(input)
    }

    /// Continues through a decoder, which also receives the bytes that were already read.
    fn transcode(&mut self, encoding: Encoding) -> Result<()> {
        let first = std::io::Cursor::new(self.bytes().to_vec());
        let rest = std::mem::replace(&mut self.reader, Box::new(std::io::empty()));
        self.reader = Box::new(Transcoder::new(first.chain(rest), encoding));
        (self.start, self.end, self.at_end) = (0, 0, false);
        self.fill()
    }

    /// Hides the last lines of the file. Blank lines do not count.
    pub(super) fn hold_back(&mut self, lines: usize) -> Result<()> {
        self.held_back = lines;
        self.fill()
    }

    /// Splits off the first `bytes` of the window, to be read like a whole file.
    pub(super) fn take(&mut self, bytes: usize) -> Self {
        let rest = self.end - self.start - bytes;
        let visible = self.visible.saturating_sub(self.start + bytes);
        let mut buffer = vec![0; self.buffer.len()];
        buffer[..rest].copy_from_slice(&self.buffer[self.start + bytes..self.end]);
        let taken = std::mem::replace(&mut self.buffer, buffer);
        let (start, end) = (self.start, self.start + bytes);
        (self.start, self.end, self.visible) = (0, rest, visible);
        Self {
            file: self.file.clone(),
            reader: Box::new(std::io::empty()),
            buffer: taken,
            start,
            end,
            at_end: true,
            longest: self.longest,
            held_back: 0,
            visible: end,
        }
    }

    /// Returns the bytes of the window that are not consumed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.visible.max(self.start)]
    }

    /// Returns whether the window reaches the end of the file.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Moves the window's start.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Reads on because the record that starts at the window's start, on `line`, is not complete.
    pub(super) fn grow(&mut self, line: u64) -> Result<()> {
        let open = self.end - self.start;
        if open >= self.longest {
            let megabytes = self.longest / 1024 / 1024;
            return Err(Error::input(format!(
                "`{}`: the record on line {line} is longer than {megabytes} MiB",
                self.file.name
            ))
            .hint("check the file for an unclosed quote, or a missing line end"));
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, open);
        if open * 2 > self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        self.fill()
    }

    fn fill(&mut self) -> Result<()> {
        let _read = tracing::info_span!("read", of = self.file.name).entered();
        while self.end < self.buffer.len() && !self.at_end {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(damaged(&self.file, &error)),
            }
        }
        self.visible = self.end - self.hidden();
        Ok(())
    }

    /// Returns the size in bytes of the lines that are held back.
    fn hidden(&self) -> usize {
        let bytes = &self.buffer[self.start..self.end];
        // Before the end of the file, the last line of the window may be incomplete.
        let mut lines = if self.at_end { self.held_back } else { self.held_back + 1 };
        let mut end = bytes.len();
        while lines > 0 && self.held_back > 0 && end > 0 {
            let line = bytes[..end - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            lines -= usize::from(!bytes[line..end].trim_ascii().is_empty() || (!self.at_end && end == bytes.len()));
            end = line;
        }
        bytes.len() - end
    }
}

fn damaged(file: &SourceFile, error: &std::io::Error) -> Error {
    if let Some(wrong) = error.get_ref().and_then(|inner| inner.downcast_ref::<WrongEncoding>()) {
        return Error::input(format!("`{}` contradicts its `encoding`: {wrong}", file.name))
            .hint(format!("try `csv: {{ encoding: {} }}`", wrong.label));
    }
    match file.compression {
        Compression::None => file.unreadable(error),
        Compression::Gzip | Compression::Zstd => {
            Error::input(format!("`{}` is truncated or damaged: {error}", file.name))
                .hint("copy the file again, and compare its size with the original")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::Write as _;

    use super::super::tests::{folder, read_all, read_one, source};
    use super::*;
    use crate::error::Kind;
    use crate::spec::CsvSpec;

    fn text() -> String {
        let mut text = "a,b\n".to_string();
        for row in 0..5000_u64 {
            writeln!(text, "{row},{}", row.wrapping_mul(0x9E37_79B9_7F4A_7C15)).unwrap();
        }
        text
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_files_are_read_to_the_end_of_their_last_part() {
        let parts = [("x.csv.gz", gzip as fn(&[u8]) -> Vec<u8>), ("x.csv.zst", zstd)];
        for (name, pack) in parts {
            let bytes = [pack(text().as_bytes()), pack(b"last,one\n")].concat();
            let read = read_one(name, &bytes, CsvSpec::default()).unwrap();
            assert_eq!((read.rows.len(), read.rows[5000].1), (5001, 5002), "{name}");
        }
    }

    #[test]
    fn compressed_files_that_were_cut_or_damaged_are_refused() {
        for (name, whole) in [("x.csv.gz", gzip(text().as_bytes())), ("x.csv.zst", zstd(text().as_bytes()))] {
            let mut damaged = whole.clone();
            damaged[whole.len() / 2] ^= 0x55;
            for bytes in [&whole[..whole.len() - 1], &whole[..whole.len() / 2], &whole[..5], &damaged] {
                let error = read_one(name, bytes, CsvSpec::default()).unwrap_err();
                assert_eq!(error.kind(), Kind::Input);
                assert!(error.to_string().starts_with(&format!("`{name}` is truncated or damaged: ")), "{error}");
                assert!(error.next_step().is_some());
            }
        }
    }

    #[test]
    fn nothing_compressed_is_nothing() {
        let error = read_one("x.csv.gz", &gzip(b""), CsvSpec::default()).unwrap_err();
        assert_eq!(error.to_string(), "`x.csv.gz` is empty, without a header");
        let error = read_one("x.json.zst", &zstd(b""), CsvSpec::default()).unwrap_err();
        assert_eq!(error.to_string(), "`x.json.zst` is empty");
    }

    #[test]
    fn a_record_that_does_not_end_does_not_fill_the_memory() {
        let folder = folder(&[("x.csv", text().as_bytes())]);
        let source = source(folder.path(), "x.csv", &[], CsvSpec::default()).unwrap();
        let mut input = Input::open(&source.files()[0], Encoding::UTF_8).unwrap();
        input.longest = 4096;
        let error = loop {
            if let Err(error) = input.grow(7) {
                break error;
            }
        };
        assert!(error.to_string().starts_with("`x.csv`: the record on line 7 is longer than"), "{error}");
        assert!(input.buffer.len() <= 4 * 4096);
    }

    #[test]
    fn a_file_that_changed_since_it_was_found_is_refused() {
        let folder = folder(&[("x.csv", b"a\n1\n")]);
        let source = source(folder.path(), "x.csv", &[], CsvSpec::default()).unwrap();
        std::fs::write(folder.path().join("x.csv"), "a\n1\n2\n").unwrap();
        let error = source.batches(9).next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "`x.csv` changed while it was read: it had 4 bytes, and now has 6");
    }

    #[test]
    fn every_file_is_read_from_its_own_start() {
        let files: [(&str, &[u8]); 2] = [("a.csv", b"\xEF\xBB\xBFa\n1\n"), ("b.csv", b"a\r\n2\r\n")];
        let read = read_all(&files, "*.csv", &[], CsvSpec::default()).unwrap();
        assert_eq!(read.rows.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), [(0, 2), (1, 2)]);
    }
}
