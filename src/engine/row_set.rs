//! Sets of rows.

use std::ops::Range;

use arrow::array::BooleanArray;
use arrow::buffer::{BooleanBuffer, Buffer};

use super::RowNumber;

/// The words of 64 rows in a chunk.
const CHUNK: usize = 1024;

/// A set of rows, as a bitmap in chunks. A chunk without a row takes no memory.
#[derive(Debug, Clone, Default)]
pub struct RowSet {
    chunks: Vec<Option<Box<[u64; CHUNK]>>>,
    count: usize,
}

impl RowSet {
    /// Adds a row, and returns whether it was new.
    pub fn insert(&mut self, row: RowNumber) -> bool {
        let (word, bit) = place(row);
        let word = self.word_mut(word);
        let new = *word & bit == 0;
        *word |= bit;
        self.count += usize::from(new);
        new
    }

    /// Returns whether a row is in the set.
    pub fn contains(&self, row: RowNumber) -> bool {
        let (word, bit) = place(row);
        self.word(word) & bit != 0
    }

    /// Returns the number of rows in the set.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the rows that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (longer, shorter) = if self.chunks.len() < other.chunks.len() { (other, self) } else { (self, other) };
        let mut union = longer.clone();
        for (chunk, more) in union.chunks.iter_mut().zip(&shorter.chunks) {
            match (chunk, more) {
                (Some(chunk), Some(more)) => chunk.iter_mut().zip(more.iter()).for_each(|(word, more)| *word |= more),
                (chunk, Some(more)) => *chunk = Some(more.clone()),
                (_, None) => {}
            }
        }
        let words = union.chunks.iter().flatten().flat_map(|chunk| chunk.iter());
        union.count = words.map(|word| word.count_ones() as usize).sum();
        union
    }

    /// Returns the set with an index for [`RankedRowSet::before`].
    pub fn ranked(self) -> RankedRowSet {
        let (mut before, mut inside, mut count) = (Vec::new(), Vec::new(), 0);
        for chunk in &self.chunks {
            before.push(count);
            inside.push(chunk.as_ref().map(|chunk| {
                let mut ranks = Box::new([0; CHUNK / WORDS]);
                let mut rank = 0;
                for (part, words) in chunk.chunks(WORDS).enumerate() {
                    ranks[part] = rank as u16;
                    rank += words.iter().map(|word| word.count_ones()).sum::<u32>();
                }
                count += u64::from(rank);
                ranks
            }));
        }
        RankedRowSet { mask: self, before, inside }
    }

    /// Returns the rows of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = RowNumber> + '_ {
        let chunks = self.chunks.iter().enumerate().filter_map(|(chunk, words)| Some((chunk, words.as_ref()?)));
        let words = chunks
            .flat_map(|(chunk, words)| words.iter().enumerate().map(move |(at, bits)| (chunk * CHUNK + at, *bits)));
        words.flat_map(|(word, mut left)| {
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = left.trailing_zeros();
                    left &= left - 1;
                    RowNumber::new(word as u64 * 64 + u64::from(bit))
                })
            })
        })
    }

    /// Returns the rows of a range that are not in the set.
    #[must_use]
    pub fn inverted(&self, rows: Range<RowNumber>) -> Self {
        let (start, end) = (rows.start.get(), rows.end.get());
        let mut inverted = Self::default();
        for word in start / 64..end.div_ceil(64) {
            let mut bits = !self.word(word as usize);
            if word == start / 64 {
                bits &= u64::MAX << (start % 64);
            }
            if word == end / 64 {
                bits &= (1 << (end % 64)) - 1;
            }
            *inverted.word_mut(word as usize) = bits;
            inverted.count += bits.count_ones() as usize;
        }
        inverted
    }

    /// Returns the number of rows of `length` rows from `start` in the set.
    pub fn count_in(&self, start: RowNumber, length: usize) -> usize {
        if self.is_empty() { 0 } else { self.slice(start, length).count_set_bits() }
    }

    /// Returns for each of `length` rows from `start` whether it is in the set.
    pub fn slice(&self, start: RowNumber, length: usize) -> BooleanBuffer {
        let start = start.get() as usize;
        let (first, skipped) = (start / 64, start % 64);
        let words = (first..first + (skipped + length).div_ceil(64)).map(|word| self.word(word));
        BooleanBuffer::new(words.collect::<Buffer>(), skipped, length)
    }

    /// Returns for each of `length` rows from `start` whether it is not in the set, as a filter.
    pub fn others(&self, start: RowNumber, length: usize) -> BooleanArray {
        BooleanArray::new(!&self.slice(start, length), None)
    }

    fn word(&self, word: usize) -> u64 {
        self.chunks.get(word / CHUNK).and_then(Option::as_ref).map_or(0, |chunk| chunk[word % CHUNK])
    }

    fn word_mut(&mut self, word: usize) -> &mut u64 {
        if word / CHUNK >= self.chunks.len() {
            self.chunks.resize_with(word / CHUNK + 1, || None);
        }
        &mut self.chunks[word / CHUNK].get_or_insert_with(|| Box::new([0; CHUNK]))[word % CHUNK]
    }
}

/// Returns the word of a row, and its bit there.
fn place(row: RowNumber) -> (usize, u64) {
    ((row.get() / 64) as usize, 1 << (row.get() % 64))
}

impl FromIterator<RowNumber> for RowSet {
    fn from_iter<I: IntoIterator<Item = RowNumber>>(rows: I) -> Self {
        let mut set = Self::default();
        rows.into_iter().for_each(|row| {
            set.insert(row);
        });
        set
    }
}

/// Words between two ranks.
const WORDS: usize = 8;

/// A set of rows with an index of ranks.
#[derive(Debug, Default)]
pub struct RankedRowSet {
    mask: RowSet,
    /// By chunk, the number of rows of the set before it.
    before: Vec<u64>,
    /// By chunk and by 512 rows in it, the number of rows of the set before them in the chunk.
    inside: Vec<Option<Box<[u16; CHUNK / WORDS]>>>,
}

impl RankedRowSet {
    /// Returns the rank of a row: the number of rows of the set before it.
    pub fn before(&self, row: RowNumber) -> u64 {
        let (word, bit) = place(row);
        let (chunk, word) = (word / CHUNK, word % CHUNK);
        let Some(before) = self.before.get(chunk) else { return self.mask.count as u64 };
        let (Some(words), Some(ranks)) = (&self.mask.chunks[chunk], &self.inside[chunk]) else { return *before };
        let part = word / WORDS;
        let whole: u32 = words[part * WORDS..word].iter().map(|word| word.count_ones()).sum();
        before + u64::from(ranks[part]) + u64::from(whole + (words[word] & (bit - 1)).count_ones())
    }

    /// Returns the set.
    pub fn mask(&self) -> &RowSet {
        &self.mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers around the ends of a word, of a chunk, and of 32 bits.
    const FIRST: [u64; 4] = [0, 65_536 - 100, (1 << 32) - 3, (1 << 33) + 7];

    fn set(rows: impl IntoIterator<Item = u64>) -> RowSet {
        rows.into_iter().map(RowNumber::new).collect()
    }

    fn numbers(set: &RowSet) -> Vec<u64> {
        set.iter().map(RowNumber::get).collect()
    }

    #[test]
    fn a_mask_holds_what_was_put_in_and_counts_it_once() {
        for first in FIRST {
            let [three, far] = [first + 3, first + 200].map(RowNumber::new);
            let mut mask = RowSet::default();
            assert!(mask.insert(three) && mask.insert(far) && !mask.insert(three));
            assert_eq!(mask.count(), 2);
            assert_eq!(numbers(&mask), [first + 3, first + 200]);
            let others = mask.others(RowNumber::new(first + 2), 3);
            assert_eq!(others.iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(true)]);
            assert_eq!(numbers(&mask.union(&set([first + 64]))), [first + 3, first + 64, first + 200]);
            assert_eq!(numbers(&mask.union(&set([1]))), numbers(&set([1]).union(&mask)));
        }
    }

    #[test]
    fn a_slice_is_the_same_wherever_it_begins() {
        for offset in FIRST {
            let rows = [0, 1, 5, 63, 64, 65, 127, 128, 190, 1000].map(|row| offset + row);
            let mask = set(rows);
            for start in (offset..offset + 200).step_by(3) {
                for length in [0, 1, 7, 63, 64, 65, 200] {
                    let slice = mask.slice(RowNumber::new(start), length as usize);
                    let found: Vec<u64> =
                        (0..length).filter(|at| slice.value(*at as usize)).map(|at| start + at).collect();
                    let inside = |row: &u64| (start..start + length).contains(row);
                    assert_eq!(found, rows.iter().copied().filter(inside).collect::<Vec<_>>(), "{start} {length}");
                    assert_eq!(mask.count_in(RowNumber::new(start), length as usize), found.len());
                    let inverted = mask.inverted(RowNumber::new(start)..RowNumber::new(start + length));
                    assert!(
                        numbers(&inverted).into_iter().eq((start..start + length).filter(|row| !rows.contains(row)))
                    );
                    assert_eq!(inverted.count(), length as usize - found.len());
                }
            }
            let ranked = mask.ranked();
            let rank = |row: u64| rows.iter().filter(|other| **other < row).count() as u64;
            assert!((offset..offset + 1200).all(|row| ranked.before(RowNumber::new(row)) == rank(row)));
            assert_eq!(ranked.before(RowNumber::new(1 << 50)), 10);
        }
    }
}
