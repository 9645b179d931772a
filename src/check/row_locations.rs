//! The location of each row in the delta's files.

use std::collections::BTreeMap;

use crate::engine::RowNumber;

/// File and line of every row, stored as ranges of consecutive lines: a few bytes for a file without gaps.
#[derive(Debug, Default)]
pub struct RowLocations {
    stretches: Vec<Stretch>,
    next: RowNumber,
}

#[derive(Debug)]
struct Stretch {
    first_row: RowNumber,
    file: usize,
    first_line: u64,
}

impl RowLocations {
    /// Returns no locations. The first row that is added has this number.
    pub fn starting_at(first: RowNumber) -> Self {
        Self { stretches: Vec::new(), next: first }
    }

    /// Adds the next rows, all of them from one file.
    pub fn extend(&mut self, file: usize, lines: &[u64]) {
        for line in lines {
            let goes_on = self
                .stretches
                .last()
                .is_some_and(|last| last.file == file && last.first_line + (self.next - last.first_row) == *line);
            if !goes_on {
                self.stretches.push(Stretch { first_row: self.next, file, first_line: *line });
            }
            self.next = self.next + 1;
        }
    }

    /// Returns whether any row is from a file.
    pub fn has_rows(&self, file: usize) -> bool {
        self.stretches.iter().any(|stretch| stretch.file == file)
    }

    /// Returns by file the number of rows, and the line of the last one.
    pub fn extents(&self) -> BTreeMap<usize, (u64, u64)> {
        let mut extents = BTreeMap::new();
        for (at, stretch) in self.stretches.iter().enumerate() {
            let rows = self.stretches.get(at + 1).map_or(self.next, |next| next.first_row) - stretch.first_row;
            let extent = extents.entry(stretch.file).or_insert((0, 0));
            *extent = (extent.0 + rows, extent.1.max((stretch.first_line + rows).saturating_sub(1)));
        }
        extents
    }

    /// Returns the file index and the line of a row.
    pub fn locate(&self, row: RowNumber) -> (usize, u64) {
        let after = self.stretches.partition_point(|stretch| stretch.first_row <= row);
        match after.checked_sub(1).and_then(|at| self.stretches.get(at)) {
            Some(stretch) => (stretch.file, stretch.first_line + (row - stretch.first_row)),
            None => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_in_its_file_and_line() {
        for first in [0, u64::from(u32::MAX) - 2].map(RowNumber::new) {
            let mut places = RowLocations::starting_at(first);
            places.extend(0, &[2, 3, 7]);
            places.extend(0, &[8, 9]);
            places.extend(1, &[2]);
            let found: Vec<_> = first.through(6).map(|row| places.locate(row)).collect();
            assert_eq!(found, [(0, 2), (0, 3), (0, 7), (0, 8), (0, 9), (1, 2)]);
            assert_eq!(places.stretches.len(), 3);
            assert_eq!(places.extents(), BTreeMap::from([(0, (5, 9)), (1, (1, 2))]));
        }
    }
}
