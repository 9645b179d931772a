//! Candidates for rows with equal values: rows whose values have the same hash.
//!
//! A row takes eight bytes here: half of its hash, and its number. Rows of tables with more than 4,294,967,294 rows take 16: the whole
//! hash, and the number. The rest of the hash selects one of 256 buckets, so that
//! a bucket fits into a processor's cache when it is sorted, and threads share the work by buckets. If all buckets
//! together would take too much memory, the rows are read once for each part of them:
//!
//! ```text
//! rows ──hash──► bucket 0   a3…│row 7   a3…│row 91   e0…│row 4     rows 7 and 91 could be equal, row 4 is like no other
//!                bucket 1   …
//! ```
//!
//! Rows with equal values always have equal hashes. For the converse, the caller must compare the values.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion::common::hash_utils::{RandomState, create_hashes};

use super::{Limits, RowNumber, RowNumbers, RowSet, RowStore};
use crate::error::{Error, Result};

const BUCKETS: usize = 256;

/// Rows to compare by some of their columns. Rows with a NULL in these columns are ignored.
#[derive(Debug, Clone)]
pub struct Hashes<'a> {
    rows: &'a RowStore,
    /// The columns, each with whether to ignore the case of ASCII letters.
    columns: Vec<(usize, bool)>,
    without: &'a RowSet,
    limits: Limits,
    /// The bits of the hashes that are compared.
    bits: u64,
}

/// A hash and a row number, or the numbers of two rows, as one sortable number.
trait Entry: Copy + Ord + Send + Sync {
    /// The largest value. No row has it.
    const NONE: Self;

    /// Combines a hash with a row.
    fn new(hash: u64, row: RowNumber) -> Self;

    /// Combines a row's only candidate, or None if there are several, with the row.
    fn pair(candidate: Option<RowNumber>, row: RowNumber) -> Self;

    /// Returns the hash, as far as it is stored.
    fn hash(self) -> u64;

    /// Returns the row.
    fn row(self) -> RowNumber;

    /// Returns the row's only candidate.
    fn candidate(self) -> Option<RowNumber>;
}

/// For rows whose numbers fit into 32 bits.
impl Entry for u64 {
    const NONE: Self = Self::MAX;

    fn new(hash: u64, row: RowNumber) -> Self {
        hash << 32 | row.get()
    }

    fn pair(candidate: Option<RowNumber>, row: RowNumber) -> Self {
        Self::new(candidate.map_or(u32::MAX.into(), RowNumber::get), row)
    }

    fn hash(self) -> u64 {
        self >> 32
    }

    fn row(self) -> RowNumber {
        RowNumber::new(self & u64::from(u32::MAX))
    }

    fn candidate(self) -> Option<RowNumber> {
        Some(self.hash()).filter(|row| *row != u64::from(u32::MAX)).map(RowNumber::new)
    }
}

/// For all other rows.
impl Entry for u128 {
    const NONE: Self = Self::MAX;

    fn new(hash: u64, row: RowNumber) -> Self {
        Self::from(hash) << 64 | Self::from(row.get())
    }

    fn pair(candidate: Option<RowNumber>, row: RowNumber) -> Self {
        Self::new(candidate.unwrap_or(RowNumber::MAX).get(), row)
    }

    fn hash(self) -> u64 {
        (self >> 64) as u64
    }

    fn row(self) -> RowNumber {
        RowNumber::new(self as u64)
    }

    fn candidate(self) -> Option<RowNumber> {
        Some(RowNumber::new(self.hash())).filter(|row| *row != RowNumber::MAX)
    }
}

/// By bucket, the entries that each thread found.
type Buckets<E> = Vec<Mutex<Vec<Vec<E>>>>;

impl<'a> Hashes<'a> {
    /// Returns the hashes of the rows that are not in `without`, by these columns.
    pub fn new(rows: &'a RowStore, columns: &[usize], without: &'a RowSet, limits: Limits) -> Self {
        let columns = columns.iter().map(|column| (*column, true)).collect();
        Self { rows, columns, without, limits, bits: u64::MAX }
    }

    /// Ignores the case of ASCII letters in the named columns.
    #[must_use]
    pub fn ignoring_case(mut self, names: &[String]) -> Self {
        for (column, counts) in &mut self.columns {
            *counts = !names.contains(self.rows.schema().field(*column).name());
        }
        self
    }

    /// Compares only these bits of the hashes.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn weakened(self, bits: u64) -> Self {
        Self { bits, ..self }
    }

    /// Returns the rows whose hash another row has.
    ///
    /// # Errors
    /// Returns an error if the work folder cannot be read.
    pub fn repeated(&self) -> Result<RowSet> {
        if self.is_narrow() { self.repeated_as::<u64>() } else { self.repeated_as::<u128>() }
    }

    fn repeated_as<E: Entry>(&self) -> Result<RowSet> {
        let mut repeated = RowSet::default();
        for part in parts::<E>(self.rows.count(), self.limits) {
            let buckets = self.collect::<E>(part)?;
            let found =
                parallel_fold("compare hashes", self.limits.threads, buckets.len(), |found: &mut RowNumbers, at| {
                    let entries = sorted(&buckets[at]);
                    for group in
                        entries.chunk_by(|one, other| one.hash() == other.hash()).filter(|group| group.len() > 1)
                    {
                        found.extend(group.iter().map(|entry| entry.row()));
                    }
                    Ok(())
                })?;
            for row in found.iter().flat_map(RowNumbers::iter) {
                repeated.insert(row);
            }
        }
        Ok(repeated)
    }

    /// Passes each row with a candidate in `others` to `each`, with the candidate, or None if there are several.
    ///
    /// # Errors
    /// Returns an error if the work folder cannot be read.
    pub fn partners(&self, others: &Self, each: impl FnMut(RowNumber, Option<RowNumber>)) -> Result<()> {
        match self.is_narrow() && others.is_narrow() {
            true => self.partners_as::<u64>(others, each),
            false => self.partners_as::<u128>(others, each),
        }
    }

    fn partners_as<E: Entry>(&self, others: &Self, mut each: impl FnMut(RowNumber, Option<RowNumber>)) -> Result<()> {
        for part in parts::<E>(self.rows.count() + others.rows.count(), self.limits) {
            let (theirs, ours) = (others.collect::<E>(part.clone())?, self.collect::<E>(part)?);
            let found =
                parallel_fold("compare hashes", self.limits.threads, ours.len(), |found: &mut Vec<Vec<E>>, at| {
                    let (theirs, mut ours) = (sorted(&theirs[at]), sorted(&ours[at]));
                    let mut next = 0;
                    for entry in &mut ours {
                        while theirs.get(next).is_some_and(|other| other.hash() < entry.hash()) {
                            next += 1;
                        }
                        let same = |at: usize| theirs.get(at).filter(|other| other.hash() == entry.hash());
                        *entry = match (same(next), same(next + 1)) {
                            (None, _) => E::NONE,
                            (Some(other), None) => E::pair(Some(other.row()), entry.row()),
                            (Some(_), Some(_)) => E::pair(None, entry.row()),
                        };
                    }
                    ours.retain(|entry| *entry != E::NONE);
                    found.push(ours);
                    Ok(())
                })?;
            for entry in found.into_iter().flatten().flatten() {
                each(entry.row(), entry.candidate());
            }
        }
        Ok(())
    }

    /// Returns whether the numbers of all rows fit into 32 bits.
    fn is_narrow(&self) -> bool {
        RowNumbers::is_narrow(self.rows.range().end)
    }

    /// Returns the entries of some buckets.
    fn collect<E: Entry>(&self, part: Range<usize>) -> Result<Buckets<E>> {
        let columns: Vec<usize> = self.columns.iter().map(|(column, _)| *column).collect();
        let stretches: Vec<(RowNumber, usize)> = self.rows.stretches().collect();
        let state = RandomState::default();
        let threads =
            parallel_fold("hash rows", self.limits.threads, stretches.len(), |found: &mut Vec<Vec<E>>, at| {
                found.resize(part.len(), Vec::new());
                let (first, count) = stretches[at];
                if self.without.count_in(first, count) == count {
                    return Ok(());
                }
                let mut arrays = self.rows.batch(at, &columns)?.columns().to_vec();
                for (array, (_, case_counts)) in arrays.iter_mut().zip(&self.columns) {
                    if !case_counts && *array.data_type() == DataType::Utf8 {
                        *array = folded(array);
                    }
                }
                let mut hashes = vec![0; count];
                create_hashes(&arrays, &state, &mut hashes)?;
                let nulls = arrays.iter().fold(None, |nulls, array| NullBuffer::union(nulls.as_ref(), array.nulls()));
                let without = (!self.without.is_empty()).then(|| self.without.slice(first, count));
                for (at, hash) in hashes.into_iter().enumerate() {
                    let absent = nulls.as_ref().is_some_and(|nulls| nulls.is_null(at))
                        || without.as_ref().is_some_and(|without| without.value(at));
                    let hash = spread(hash) & self.bits;
                    let bucket = (hash >> 56) as usize;
                    if !absent && part.contains(&bucket) {
                        found[bucket - part.start].push(E::new(hash, first + at));
                    }
                }
                Ok(())
            })?;
        let mut buckets: Vec<Vec<Vec<E>>> = (0..part.len()).map(|_| Vec::with_capacity(threads.len())).collect();
        for (bucket, entries) in threads.into_iter().flat_map(|thread| thread.into_iter().enumerate()) {
            buckets[bucket].push(entries);
        }
        Ok(buckets.into_iter().map(Mutex::new).collect())
    }
}

/// Returns groups of buckets such that the entries of a group take at most an eighth of the memory.
fn parts<E: Entry>(rows: usize, limits: Limits) -> impl Iterator<Item = Range<usize>> + use<E> {
    // A growing vector can reserve half as much again, and the result takes as much once more.
    let parts = (rows * size_of::<E>() * 2).div_ceil((limits.memory / 8).max(1)).clamp(1, BUCKETS);
    (0..parts).map(move |part| BUCKETS * part / parts..BUCKETS * (part + 1) / parts)
}

/// Takes a bucket's entries, in order.
fn sorted<E: Entry>(bucket: &Mutex<Vec<Vec<E>>>) -> Vec<E> {
    let mut lists = std::mem::take(&mut *bucket.lock().unwrap_or_else(PoisonError::into_inner)).into_iter();
    let mut entries = lists.next().unwrap_or_default();
    lists.for_each(|list| entries.extend(list));
    entries.sort_unstable();
    entries
}

/// Makes each bit of a hash depend on all of its bits; the engine's hashes favor speed.
fn spread(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash ^ (hash >> 29)
}

fn folded(texts: &ArrayRef) -> ArrayRef {
    let texts = texts.as_string::<i32>().iter().map(|text| text.map(str::to_ascii_lowercase));
    Arc::new(texts.collect::<StringArray>())
}

/// Distributes the numbers below `count` over threads, and returns each thread's state. `what` names the work in profiles.
///
/// # Errors
/// Returns the first error of `work`.
pub fn parallel_fold<S: Default + Send>(
    what: &'static str,
    threads: usize,
    count: usize,
    work: impl Fn(&mut S, usize) -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let next = AtomicUsize::new(0);
    let run = || {
        let _share = tracing::info_span!("share", name = what).entered();
        let mut state = S::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(state);
            }
            work(&mut state, at)?;
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(run)).collect();
        let own = run();
        let others = others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::internal("a worker thread failed"))));
        std::iter::once(own).chain(others).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;
    use crate::engine::Engine;

    fn rows(engine: &Engine, first: u64, values: &[Option<String>], step: usize) -> Arc<RowStore> {
        let fields = vec![Field::new("t", DataType::Utf8, true), Field::new("n", DataType::Int64, true)];
        let schema = Arc::new(Schema::new(fields));
        let mut writer = engine.rows(schema.clone()).starting_at(RowNumber::new(first));
        for part in values.chunks(step.max(1)) {
            let texts: ArrayRef = Arc::new(StringArray::from_iter(part));
            let lengths = part.iter().map(|text| text.as_ref().map(|text| text.len() as i64));
            let numbers: ArrayRef = Arc::new(lengths.collect::<Int64Array>());
            writer.write(&RecordBatch::try_new(schema.clone(), vec![texts, numbers]).unwrap()).unwrap();
        }
        writer.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equal_values_are_found_whatever_the_hash_and_memory(
            values in prop::collection::vec(prop::option::weighted(0.9, "[abAB]{0,3}"), 0..200),
            others in prop::collection::vec(prop::option::weighted(0.9, "[abAB]{0,3}"), 0..40),
            out in prop::collection::vec(any::<bool>(), 200),
            step in 1_usize..50,
            bits in prop::sample::select(vec![u64::MAX, 0xFF00_0000_0000_0001, 0]),
            memory in prop::sample::select(vec![64_usize, 4096, 1 << 30]),
            threads in 1_usize..4,
            first in prop::sample::select(vec![0, (1_u64 << 32) - 3, (1 << 32) + 5]),
            other_first in prop::sample::select(vec![0, (1_u64 << 32) - 3]),
        ) {
            let engine = Engine::try_new(Limits { memory, threads, batch_rows: 8 }).unwrap();
            let limits = engine.limits();
            let (ours, theirs) = (rows(&engine, first, &values, step), rows(&engine, other_first, &others, step));
            let [number, other_number] = [first, other_first].map(|first| move |row| RowNumber::new(first) + row);
            let without: RowSet = (0..values.len()).filter(|row| out[*row]).map(number).collect();
            let hashes = Hashes::new(&ours, &[0, 1], &without, limits).ignoring_case(&["t".to_owned()]).weakened(bits);
            let repeated = hashes.repeated().unwrap();
            let mut groups: HashMap<String, Vec<RowNumber>> = HashMap::new();
            for (row, value) in values.iter().enumerate().filter(|(row, _)| !out[*row]) {
                if let Some(value) = value {
                    groups.entry(value.to_ascii_lowercase()).or_default().push(number(row));
                }
            }
            let expected: Vec<RowNumber> = groups.values().filter(|rows| rows.len() > 1).flatten().copied().collect();
            prop_assert!(expected.iter().all(|row| repeated.contains(*row)));
            let index = |row: RowNumber| row.index(RowNumber::new(first));
            prop_assert!(repeated.iter().all(|row| !out[index(row)] && values[index(row)].is_some()));
            if bits == u64::MAX {
                prop_assert_eq!(repeated.count(), expected.len());
            }

            let none = RowSet::default();
            let (ours, theirs) = (Hashes::new(&ours, &[0], &none, limits).weakened(bits), Hashes::new(&theirs, &[0], &none, limits).weakened(bits));
            let mut found = HashMap::new();
            ours.partners(&theirs, |row, partner| assert_eq!(found.insert(row, partner), None)).unwrap();
            for (row, value) in values.iter().enumerate().filter_map(|(row, value)| Some((number(row), value.as_ref()?))) {
                let partners: Vec<_> = (0..others.len()).filter(|other| others[*other].as_ref() == Some(value)).collect();
                match (partners.as_slice(), found.get(&row)) {
                    ([], _) => {}
                    ([one], Some(partner)) => prop_assert!(partner.is_none_or(|partner| partner == other_number(*one))),
                    (_, partner) => prop_assert_eq!(partner, Some(&None)),
                }
            }
        }
    }
}
