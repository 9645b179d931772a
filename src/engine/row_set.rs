//! Sets of rows.

use arrow::array::BooleanArray;
use arrow::buffer::{BooleanBuffer, Buffer};

/// A set of rows, as a bitmap.
#[derive(Debug, Clone, Default)]
pub struct RowSet {
    bits: Vec<u64>,
    count: usize,
}

impl RowSet {
    /// Adds a row, and returns whether it was new.
    pub fn insert(&mut self, row: u32) -> bool {
        let (word, bit) = (row as usize / 64, 1 << (row % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.count += usize::from(new);
        new
    }

    /// Returns whether a row is in the set.
    pub fn contains(&self, row: u32) -> bool {
        self.bits.get(row as usize / 64).is_some_and(|word| word & (1 << (row % 64)) != 0)
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
        let bits: Vec<u64> = (0..self.bits.len().max(other.bits.len()))
            .map(|word| self.bits.get(word).unwrap_or(&0) | other.bits.get(word).unwrap_or(&0))
            .collect();
        let count = bits.iter().map(|word| word.count_ones() as usize).sum();
        Self { bits, count }
    }

    /// Returns the set with an index for [`RankedRowSet::before`].
    pub fn ranked(self) -> RankedRowSet {
        let mut count = 0;
        let before = self.bits.chunks(WORDS).map(|words| {
            let before = count;
            count += words.iter().map(|word| word.count_ones()).sum::<u32>();
            before
        });
        RankedRowSet { before: before.collect(), mask: self }
    }

    /// Returns the rows of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bits.iter().enumerate().flat_map(|(word, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = left.trailing_zeros();
                    left &= left - 1;
                    word as u32 * 64 + bit
                })
            })
        })
    }

    /// Returns the rows below `rows` that are not in the set.
    #[must_use]
    pub fn inverted(&self, rows: u32) -> Self {
        let mut bits: Vec<u64> =
            (0..(rows as usize).div_ceil(64)).map(|word| !self.bits.get(word).unwrap_or(&0)).collect();
        if let Some(last) = bits.last_mut().filter(|_| !rows.is_multiple_of(64)) {
            *last &= (1 << (rows % 64)) - 1;
        }
        let count = bits.iter().map(|word| word.count_ones() as usize).sum();
        Self { bits, count }
    }

    /// Returns the number of rows of `start..start + length` in the set.
    pub fn count_in(&self, start: u32, length: usize) -> usize {
        if self.is_empty() { 0 } else { self.slice(start, length).count_set_bits() }
    }

    /// Returns for each row of `start..start + length` whether it is in the set.
    pub fn slice(&self, start: u32, length: usize) -> BooleanBuffer {
        let (first, skipped) = (start as usize / 64, start as usize % 64);
        let words = (first..first + (skipped + length).div_ceil(64)).map(|word| *self.bits.get(word).unwrap_or(&0));
        BooleanBuffer::new(words.collect::<Buffer>(), skipped, length)
    }

    /// Returns the rows of `start..start + length` that are not in the set, as a filter.
    pub fn others(&self, start: u32, length: usize) -> BooleanArray {
        BooleanArray::new(!&self.slice(start, length), None)
    }
}

/// Words between two counts.
const WORDS: usize = 8;

/// A set of rows with an index of ranks.
#[derive(Debug, Default)]
pub struct RankedRowSet {
    mask: RowSet,
    /// By 512 rows, the number of rows of the set before them.
    before: Vec<u32>,
}

impl RankedRowSet {
    /// Returns the rank of a row: the number of rows of the set before it.
    pub fn before(&self, row: u32) -> u32 {
        let word = row as usize / 64;
        let part = word / WORDS;
        let Some(before) = self.before.get(part) else { return self.mask.count as u32 };
        let words = self.mask.bits.iter().skip(part * WORDS).take(word - part * WORDS);
        let whole: u32 = words.map(|word| word.count_ones()).sum();
        let last = self.mask.bits.get(word).map_or(0, |word| (word & ((1 << (row % 64)) - 1)).count_ones());
        before + whole + last
    }

    /// Returns the set.
    pub fn mask(&self) -> &RowSet {
        &self.mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_holds_what_was_put_in_and_counts_it_once() {
        let mut mask = RowSet::default();
        assert!(mask.insert(3) && mask.insert(200) && !mask.insert(3));
        assert_eq!(mask.count(), 2);
        assert_eq!(mask.iter().collect::<Vec<_>>(), [3, 200]);
        assert_eq!(mask.others(2, 3).iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(true)]);
        let mut other = RowSet::default();
        other.insert(64);
        assert_eq!(mask.union(&other).iter().collect::<Vec<_>>(), [3, 64, 200]);
    }

    #[test]
    fn a_slice_is_the_same_wherever_it_begins() {
        let mut mask = RowSet::default();
        let rows = [0, 1, 5, 63, 64, 65, 127, 128, 190, 1000];
        for row in rows {
            assert!(mask.insert(row));
        }
        for start in 0..200 {
            for length in [0, 1, 7, 63, 64, 65, 200] {
                let slice = mask.slice(start, length);
                let found: Vec<u32> =
                    (0..length as u32).filter(|at| slice.value(*at as usize)).map(|at| start + at).collect();
                let inside = |row: &u32| (start..start + length as u32).contains(row);
                assert_eq!(found, rows.iter().copied().filter(inside).collect::<Vec<_>>(), "{start} {length}");
                assert_eq!(mask.count_in(start, length), found.len());
            }
        }
        let ranked = mask.clone().ranked();
        assert!((0..1200).all(|row| ranked.before(row) == rows.iter().filter(|other| **other < row).count() as u32));
        assert_eq!(mask.inverted(3).iter().collect::<Vec<_>>(), [2]);
        assert_eq!(mask.inverted(130).count(), 130 - 8);
    }
}
