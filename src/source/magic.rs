//! Files that are not of the format that their name or the settings imply, by their first bytes.

use std::io::{Read, Seek, SeekFrom};

use super::SourceFile;
use super::files::Compression;
use crate::error::{Error, Result};
use crate::spec::Format;

/// A kind of file that begins with certain bytes.
struct Kind {
    name: &'static str,
    start: &'static [u8],
    /// The last bytes, if the first ones could be text.
    end: &'static [u8],
    hint: Hint,
}

enum Hint {
    /// The extension that a compressed file needs.
    Named(&'static str),
    /// The format that reads it.
    Format(&'static str),
    /// The program that unpacks it.
    Unpack(&'static str),
}

const KINDS: [Kind; 8] = [
    Kind { name: "a gzip file", start: b"\x1F\x8B", end: b"", hint: Hint::Named("gz") },
    Kind { name: "a zstd file", start: b"\x28\xB5\x2F\xFD", end: b"", hint: Hint::Named("zst") },
    Kind { name: "a zip archive", start: b"PK\x03\x04", end: b"", hint: Hint::Unpack("unzip") },
    Kind { name: "an empty zip archive", start: b"PK\x05\x06", end: b"", hint: Hint::Unpack("unzip") },
    Kind { name: "an xz file", start: b"\xFD7zXZ\0", end: b"", hint: Hint::Unpack("unxz") },
    Kind { name: "a bzip2 file", start: b"BZh", end: b"", hint: Hint::Unpack("bunzip2") },
    Kind { name: "a Parquet file", start: b"PAR1", end: b"PAR1", hint: Hint::Format("parquet") },
    Kind { name: "an Arrow file", start: b"ARROW1\0\0", end: b"ARROW1", hint: Hint::Format("arrow") },
];

/// The bytes behind `BZh` and the size of a block, for which text does not begin with `BZh`.
const BZIP2_BLOCK: &[u8] = b"\x31\x41\x59\x26\x53\x59";

/// Refuses a file whose first bytes are those of another kind of file.
pub(super) fn refuse_other_kinds(file: &SourceFile) -> Result<()> {
    let Some(kind) = kind_of(file)? else { return Ok(()) };
    let is_expected = matches!(
        (&kind.hint, file.compression, file.format),
        (Hint::Named("gz"), Compression::Gzip, _)
            | (Hint::Named("zst"), Compression::Zstd, _)
            | (Hint::Format("parquet"), Compression::None, Format::Parquet)
            | (Hint::Format("arrow"), Compression::None, Format::Arrow)
    );
    if is_expected {
        return Ok(());
    }
    let expected = match (file.format, file.compression) {
        (_, Compression::Gzip) => "not gzip as its name says",
        (_, Compression::Zstd) => "not zstd as its name says",
        (Format::Csv, _) => "not CSV",
        (Format::Json, _) => "not JSON",
        (Format::Parquet, _) => "not Parquet",
        (Format::Arrow, _) => "not Arrow",
        (Format::Fixed, _) => "not a fixed-width file",
    };
    let is_text = matches!(file.format, Format::Csv | Format::Json | Format::Fixed);
    Err(Error::input(format!("`{}` is {}, {expected}", file.name, kind.name)).hint(match kind.hint {
        Hint::Named(extension) if is_text => {
            let base = file.name.strip_suffix(".gz").or_else(|| file.name.strip_suffix(".zst"));
            format!("rename it to `{}.{extension}`, and it is unpacked as it is read", base.unwrap_or(&file.name))
        }
        Hint::Named(_) => {
            "unpack it; only CSV, JSON, and fixed-width files are read while they are compressed".to_owned()
        }
        Hint::Format(format) => format!("set `format: {format}` next to `path:`, and correct the file's extension"),
        Hint::Unpack(program) => format!("unpack it with `{program}`, and give the path of the file inside"),
    }))
}

fn kind_of(file: &SourceFile) -> Result<Option<&'static Kind>> {
    let unreadable = |error| file.unreadable(error);
    let mut handle = file.open()?;
    let (mut start, mut end) = (Vec::new(), Vec::new());
    handle.by_ref().take(10).read_to_end(&mut start).map_err(unreadable)?;
    handle.seek(SeekFrom::Start(file.bytes.saturating_sub(8))).map_err(unreadable)?;
    handle.read_to_end(&mut end).map_err(unreadable)?;
    let is_block = |kind: &Kind| kind.start != b"BZh" || start.get(4..) == Some(BZIP2_BLOCK);
    Ok(KINDS.iter().find(|kind| start.starts_with(kind.start) && end.ends_with(kind.end) && is_block(kind)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{folder, source};
    use super::super::{Result, Source};
    use crate::spec::{CsvSpec, Format, SourceSpec};

    fn refusal(read: Result<Source>) -> String {
        let error = read.unwrap_err();
        format!("{error}; {}", error.next_step().unwrap())
    }

    #[test]
    fn compressed_files_are_named_by_their_first_bytes() {
        let of = |name: &str, bytes: &[u8]| {
            let folder = folder(&[(name, bytes)]);
            refusal(source(folder.path(), name, &[], CsvSpec::default()))
        };
        for (bytes, expected) in [
            (
                &b"\x1F\x8B\x08\0rest"[..],
                "`x.csv` is a gzip file, not CSV; rename it to `x.csv.gz`, and it is unpacked as it is read",
            ),
            (
                b"\x28\xB5\x2F\xFDrest",
                "`x.csv` is a zstd file, not CSV; rename it to `x.csv.zst`, and it is unpacked as it is read",
            ),
            (
                b"PK\x03\x04rest",
                "`x.csv` is a zip archive, not CSV; unpack it with `unzip`, and give the path of the file inside",
            ),
            (
                b"\xFD7zXZ\0rest",
                "`x.csv` is an xz file, not CSV; unpack it with `unxz`, and give the path of the file inside",
            ),
            (
                b"BZh91AY&SYrest",
                "`x.csv` is a bzip2 file, not CSV; unpack it with `bunzip2`, and give the path of the file inside",
            ),
            (
                b"PAR1....PAR1",
                "`x.csv` is a Parquet file, not CSV; set `format: parquet` next to `path:`, and correct the file's extension",
            ),
        ] {
            assert_eq!(of("x.csv", bytes), expected);
        }
        assert_eq!(
            of("x.csv.gz", b"\x28\xB5\x2F\xFDrest"),
            "`x.csv.gz` is a zstd file, not gzip as its name says; rename it to `x.csv.zst`, and it is unpacked as it is read"
        );
        let folder = folder(&[("x.zip", b"PK\x03\x04rest")]);
        let spec = SourceSpec { format: Some(Format::Csv), ..SourceSpec::at("x.zip") };
        let refused = refusal(Source::try_new(&spec, folder.path()));
        assert!(refused.starts_with("`x.zip` is a zip archive, not CSV; "), "{refused}");
    }

    #[test]
    fn text_that_begins_like_another_kind_is_read() {
        for text in ["PK,name\n1,x\n", "PAR1,b\n1,x\n", "BZh9,b\n1,x\n", "ARROW1,b\n1,x\n"] {
            let folder = folder(&[("x.csv", text.as_bytes())]);
            assert!(source(folder.path(), "x.csv", &[], CsvSpec::default()).is_ok(), "{text}");
        }
    }
}
