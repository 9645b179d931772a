//! The index of a table.

use std::fmt;
use std::ops::{Index, IndexMut};

/// The index of a table in the plan, and so in every list with one item per table. No other index finds an item by mistake: not that
/// of a reference, a check, or a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct TableIndex(usize);

impl TableIndex {
    /// Returns the index of a position.
    pub const fn new(position: usize) -> Self {
        Self(position)
    }

    /// Returns the position.
    pub const fn get(self) -> usize {
        self.0
    }

    /// Returns the indexes of so many tables, in order.
    pub fn all(tables: usize) -> impl ExactSizeIterator<Item = Self> + Clone {
        (0..tables).map(Self)
    }

    /// Returns items, one per table, with the index of their table.
    pub fn enumerate<T>(items: impl IntoIterator<Item = T>) -> impl Iterator<Item = (Self, T)> {
        items.into_iter().enumerate().map(|(position, item)| (Self(position), item))
    }
}

/// Shows the position alone: the hash of a plan is of its text.
impl fmt::Debug for TableIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<T> Index<TableIndex> for [T] {
    type Output = T;

    fn index(&self, table: TableIndex) -> &T {
        &self[table.0]
    }
}

impl<T> IndexMut<TableIndex> for [T] {
    fn index_mut(&mut self, table: TableIndex) -> &mut T {
        &mut self[table.0]
    }
}

impl<T> Index<TableIndex> for Vec<T> {
    type Output = T;

    fn index(&self, table: TableIndex) -> &T {
        &self[table.0]
    }
}

impl<T> IndexMut<TableIndex> for Vec<T> {
    fn index_mut(&mut self, table: TableIndex) -> &mut T {
        &mut self[table.0]
    }
}
