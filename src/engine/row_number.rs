//! Row numbers, and lists of them.

use std::fmt;
use std::ops::{Add, Range, Sub};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type};

/// The number of a row of the delta: its position among the rows of its table, in the order of files and lines, from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RowNumber(u64);

impl RowNumber {
    /// The largest number. No row has it.
    pub const MAX: Self = Self(u64::MAX);

    /// All numbers that a row can have.
    pub const ALL: Range<Self> = Self(0)..Self(i64::MAX as u64);

    /// Returns the row number of a position.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the position.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the numbers of `count` rows from this one.
    pub fn through(self, count: usize) -> impl ExactSizeIterator<Item = Self> + Clone {
        (0..count).map(move |index| self + index)
    }

    /// Returns the index of the row in a list whose first row is `first`.
    pub const fn index(self, first: Self) -> usize {
        (self.0 - first.0) as usize
    }
}

impl Add<usize> for RowNumber {
    type Output = Self;

    fn add(self, rows: usize) -> Self {
        Self(self.0 + rows as u64)
    }
}

impl Sub for RowNumber {
    type Output = u64;

    /// Returns the number of rows between two.
    fn sub(self, first: Self) -> u64 {
        self.0 - first.0
    }
}

impl fmt::Display for RowNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns a field of row numbers.
pub fn row_field(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

/// Returns the numbers of `count` rows from `first` as a column.
pub fn row_column(first: RowNumber, count: usize) -> ArrayRef {
    Arc::new(row_array(first.through(count)))
}

/// Returns row numbers as an array.
pub fn row_array(rows: impl Iterator<Item = RowNumber>) -> Int64Array {
    Int64Array::from_iter_values(rows.map(|row| row.0.cast_signed()))
}

/// Returns the row numbers of a column.
pub fn row_numbers(column: &dyn Array) -> impl ExactSizeIterator<Item = RowNumber> + '_ {
    column.as_primitive::<Int64Type>().values().iter().map(|number| RowNumber(number.cast_unsigned()))
}

/// A list of row numbers. It takes 4 bytes for each as long as all of them are below 4,294,967,294, and 8 bytes otherwise.
///
/// [`RowNumber::MAX`] and the number before it are markers. They are the two largest numbers of either width.
#[derive(Debug, Clone)]
pub enum RowNumbers {
    /// Numbers of 32 bits.
    Narrow(Vec<u32>),
    /// Numbers of 64 bits.
    Wide(Vec<u64>),
}

/// The first of the two markers among numbers of 32 bits.
const MARKERS: u32 = u32::MAX - 1;

impl RowNumbers {
    /// Returns whether a list of all rows before `end` is narrow.
    pub const fn is_narrow(end: RowNumber) -> bool {
        end.0 <= MARKERS as u64
    }

    /// Returns an empty list with room for `count` numbers.
    pub fn with_capacity(count: usize) -> Self {
        Self::Narrow(Vec::with_capacity(count))
    }

    /// Returns a list of `count` times the number 0.
    pub fn zeros(count: usize) -> Self {
        Self::Narrow(vec![0; count])
    }

    /// Returns the number of numbers.
    pub fn len(&self) -> usize {
        match self {
            Self::Narrow(numbers) => numbers.len(),
            Self::Wide(numbers) => numbers.len(),
        }
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number at an index.
    ///
    /// # Panics
    /// Panics if the index is beyond the end, as a slice does.
    pub fn at(&self, index: usize) -> RowNumber {
        match self {
            Self::Narrow(numbers) => widened(numbers[index]),
            Self::Wide(numbers) => RowNumber(numbers[index]),
        }
    }

    /// Replaces the number at an index.
    ///
    /// # Panics
    /// Panics if the index is beyond the end, as a slice does.
    pub fn set(&mut self, index: usize, number: RowNumber) {
        match (&mut *self, narrowed(number)) {
            (Self::Narrow(numbers), Some(narrow)) => numbers[index] = narrow,
            (Self::Narrow(_), None) => self.widen()[index] = number.0,
            (Self::Wide(numbers), _) => numbers[index] = number.0,
        }
    }

    /// Adds a number at the end.
    pub fn push(&mut self, number: RowNumber) {
        match (&mut *self, narrowed(number)) {
            (Self::Narrow(numbers), Some(narrow)) => numbers.push(narrow),
            (Self::Narrow(_), None) => self.widen().push(number.0),
            (Self::Wide(numbers), _) => numbers.push(number.0),
        }
    }

    /// Returns the numbers in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RowNumber> + Clone + '_ {
        (0..self.len()).map(|index| self.at(index))
    }

    /// Makes the list wide, and returns its numbers.
    fn widen(&mut self) -> &mut Vec<u64> {
        if let Self::Narrow(numbers) = self {
            *self = Self::Wide(numbers.iter().map(|number| widened(*number).0).collect());
        }
        match self {
            Self::Wide(numbers) => numbers,
            Self::Narrow(_) => unreachable!("it was made wide"),
        }
    }
}

impl Default for RowNumbers {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

impl Extend<RowNumber> for RowNumbers {
    fn extend<I: IntoIterator<Item = RowNumber>>(&mut self, numbers: I) {
        numbers.into_iter().for_each(|number| self.push(number));
    }
}

impl FromIterator<RowNumber> for RowNumbers {
    fn from_iter<I: IntoIterator<Item = RowNumber>>(numbers: I) -> Self {
        let numbers = numbers.into_iter();
        let mut list = Self::with_capacity(numbers.size_hint().0);
        list.extend(numbers);
        list
    }
}

/// Returns a number of 64 bits as one of 32 bits, if it fits or is a marker.
const fn narrowed(RowNumber(number): RowNumber) -> Option<u32> {
    match number {
        0..=0xFFFF_FFFD | 0xFFFF_FFFF_FFFF_FFFE.. => Some(number as u32),
        _ => None,
    }
}

/// Returns a number of 32 bits as one of 64 bits.
const fn widened(number: u32) -> RowNumber {
    RowNumber(if number < MARKERS { number as u64 } else { number as u64 | 0xFFFF_FFFF_0000_0000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_wide_from_the_first_number_that_needs_it() {
        let last = u64::from(u32::MAX) - 2;
        let numbers = [0, last, u64::MAX, u64::MAX - 1].map(RowNumber);
        let mut narrow: RowNumbers = numbers.into_iter().collect();
        assert!(matches!(narrow, RowNumbers::Narrow(_)) && RowNumbers::is_narrow(RowNumber(last + 1)));
        assert!(narrow.iter().eq(numbers));
        for next in [last + 1, last + 2, last + 3] {
            let mut wide = narrow.clone();
            wide.push(RowNumber(next));
            assert!(matches!(wide, RowNumbers::Wide(_)) && !RowNumbers::is_narrow(RowNumber(next + 1)));
            assert!(wide.iter().eq(numbers.into_iter().chain([RowNumber(next)])), "{next}");
            let mut set = narrow.clone();
            set.set(1, RowNumber(next));
            assert_eq!(set.iter().map(RowNumber::get).collect::<Vec<_>>(), [0, next, u64::MAX, u64::MAX - 1]);
        }
        narrow.set(0, RowNumber(7));
        assert!(matches!(narrow, RowNumbers::Narrow(_)) && narrow.at(0) == RowNumber(7));
    }
}
