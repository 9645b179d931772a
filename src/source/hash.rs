//! A file's hash, combined from the hashes of its pieces, so that several threads can hash one file. BLAKE3 is a tree, and
//! a piece is a branch of it.

use std::io::{Read, Seek, SeekFrom};

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::{Source, SourceFile};
use crate::error::{Error, Result};
use crate::journal::FileHash;

/// The size of a piece in bytes: a power of two, so that each piece is a branch.
const PIECE: u64 = 1 << 20;

/// The hash of a piece of a file.
#[derive(Debug, Clone, Copy)]
pub struct PieceHash(ChainingValue);

impl Source {
    /// Returns the number of pieces in which a file is hashed.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::Kind::Internal) if the file index is out of range.
    pub fn pieces_to_hash(&self, file: usize) -> Result<usize> {
        Ok(self.to_hash(file)?.bytes.div_ceil(PIECE).max(1) as usize)
    }

    /// Hashes one piece of a file.
    ///
    /// # Errors
    ///
    /// [`Input`](crate::error::Kind::Input) if the file cannot be read, or has become shorter.
    pub fn hash_piece(&self, file: usize, piece: usize) -> Result<PieceHash> {
        let file = self.to_hash(file)?;
        let first = piece as u64 * PIECE;
        let bytes = PIECE.min(file.bytes.saturating_sub(first));
        let _hash = tracing::info_span!("hash", of = file.name, bytes).entered();
        let mut hasher = Hasher::new();
        hasher.set_input_offset(first);
        let mut opened = file.open()?;
        opened.seek(SeekFrom::Start(first)).map_err(|error| file.unreadable(error))?;
        hasher.update_reader(opened.take(bytes)).map_err(|error| file.unreadable(error))?;
        if hasher.count() != bytes {
            return Err(file.changed("it became shorter"));
        }
        Ok(PieceHash(match file.bytes {
            ..=PIECE => hasher.finalize().into(),
            _ => hasher.finalize_non_root(),
        }))
    }

    fn to_hash(&self, file: usize) -> Result<&SourceFile> {
        self.files.get(file).ok_or_else(|| Error::internal(format!("no source file {file}")))
    }
}

/// Combines the hashes of all pieces into the BLAKE3 hash of a file's bytes on disk.
pub fn whole_hash(pieces: &[PieceHash]) -> FileHash {
    let whole = match pieces {
        [] => blake3::hash(&[]),
        [PieceHash(whole)] => blake3::Hash::from_bytes(*whole),
        _ => {
            let (left, right) = halves(pieces);
            merge_subtrees_root(&branch(left), &branch(right), Mode::Hash)
        }
    };
    whole.into()
}

fn branch(pieces: &[PieceHash]) -> ChainingValue {
    if let [PieceHash(one)] = pieces {
        return *one;
    }
    let (left, right) = halves(pieces);
    merge_subtrees_non_root(&branch(left), &branch(right), Mode::Hash)
}

/// Returns the size of a branch's left side: the largest power of two that leaves something for the right side.
fn halves(pieces: &[PieceHash]) -> (&[PieceHash], &[PieceHash]) {
    pieces.split_at(pieces.len().next_power_of_two() / 2)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{folder, source};
    use super::*;
    use crate::error::Kind;
    use crate::spec::CsvSpec;

    fn hashed(source: &Source) -> FileHash {
        let pieces = source.pieces_to_hash(0).unwrap();
        let pieces: Vec<_> = (0..pieces).map(|piece| source.hash_piece(0, piece).unwrap()).collect();
        whole_hash(&pieces)
    }

    #[test]
    fn the_hash_is_that_of_the_bytes_on_disk() {
        let piece = PIECE as usize;
        for bytes in [6, piece - 1, piece, piece + 1, 2 * piece, 3 * piece, 4 * piece + 7, 5 * piece, 7 * piece - 1025]
        {
            let text: Vec<u8> =
                b"a\r\n".iter().copied().chain((3..bytes as u64).map(|at| b'0' + (at * at % 251 % 10) as u8)).collect();
            let folder = folder(&[("a.csv", &text)]);
            let source = source(folder.path(), "a.csv", &[], CsvSpec::default()).unwrap();
            assert_eq!(hashed(&source), blake3::hash(&text).into(), "{bytes}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_or_became_another_has_no_hash() {
        let folder = folder(&[("a.csv", b"a\n1\n")]);
        let source = source(folder.path(), "a.csv", &[], CsvSpec::default()).unwrap();
        assert_eq!(source.hash_piece(1, 0).unwrap_err().kind(), Kind::Internal);
        std::fs::write(folder.path().join("a.csv"), "a\n1\n2\n").unwrap();
        assert_eq!(source.hash_piece(0, 0).unwrap_err().kind(), Kind::Input);
    }
}
