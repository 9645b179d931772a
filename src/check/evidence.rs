//! Evidence for failed checks: examples, frequent values, and positions in the files.
//!
//! A report must open fast and is stored in the target, so its size is bounded, however many rows fail. The reject files
//! contain all of the rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::AsArray;
use arrow::datatypes::{UInt32Type, UInt64Type};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CheckedTable;
use super::rejects::Explain;
use crate::error::Result;
use crate::plan::{CheckKind, Compiled};
use crate::target::TableIndex;

/// The maximum number of examples per check.
const EXAMPLES: usize = 5;
/// The maximum number of values per check.
const VALUES: usize = 8;
/// The maximum number of rows per check whose values are counted; if there are more, every nth row is.
const COUNTED: usize = 20_000;
/// The maximum number of distinct values while they are counted.
const KEPT: usize = 2_000;
/// The maximum number of files per check: those with the most rows.
const FILES: usize = 6;
/// The maximum number of files per table for which the lines of rejected rows are shown.
const PICTURED: usize = 60;
/// The number of parts into which the lines of a file are divided: per table, and per check.
const PARTS: u64 = 80;
const PARTS_OF_CHECK: u64 = 40;
/// The maximum length in characters of a value or a reason.
const LONGEST_VALUE: usize = 80;
const LONGEST_REASON: usize = 240;

/// Evidence for one failed check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The first rows, in the order of files and lines.
    pub examples: Vec<Example>,
    /// The most frequent values of the check's columns, in descending order.
    pub values: Vec<Count>,
    /// The number of rows whose values were counted: all, or every nth one if there are very many.
    pub counted: u64,
    /// The positions of the rows, for the files with the most of them.
    pub files: Vec<LineHistogram>,
}

/// A row that fails a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Example {
    /// The file, as reports name it.
    pub file: String,
    /// The line, or the number of the row or record in a file without lines; from 1.
    pub line: u64,
    /// The value of the check's columns, shortened if it is long; `None` if the check concerns the whole record.
    pub value: Option<String>,
    /// The reason for the failure.
    pub reason: String,
}

/// A value and its frequency among the counted rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// The value, shortened if it is long.
    pub value: String,
    /// The number of rows.
    pub rows: u64,
}

/// The distribution of rows over the lines of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LineHistogram {
    /// The file's index in the table's source.
    pub file: u64,
    /// The number of rows.
    pub rows: u64,
    /// The first of their lines.
    pub first: u64,
    /// The last of their lines.
    pub last: u64,
    /// The number of rows in each of equal parts of the file's lines.
    pub parts: Vec<u64>,
}

/// The evidence for one table.
#[derive(Debug, Default)]
pub struct TableEvidence {
    /// The evidence by check.
    pub checks: Vec<Evidence>,
    /// The positions of the rejected rows.
    pub rejected: Vec<LineHistogram>,
    /// By file, the number of records and the line of the last one.
    pub extents: Vec<(u64, u64)>,
}

/// Collects the evidence for a table of the plan.
///
/// # Errors
/// Returns an error if the work folder cannot be read.
pub fn evidence(compiled: &Compiled, examined: &[CheckedTable], at: TableIndex) -> Result<TableEvidence> {
    let (table, found) = (&compiled.plan.tables[at], &examined[at]);
    let unreadable = unreadable(found)?;
    let mut extents = vec![(0, 0); compiled.sources[at].files().len()];
    let unreadable_extents = unreadable.places.iter().map(|(file, line)| (*file, (1, *line)));
    for (file, (rows, last)) in found.locations.extents().into_iter().chain(unreadable_extents) {
        if let Some(extent) = extents.get_mut(file) {
            *extent = (extent.0 + rows, extent.1.max(last));
        }
    }
    let spread = |places: &mut dyn Iterator<Item = (usize, u64)>, parts, most| {
        let mut files: BTreeMap<usize, LineHistogram> = BTreeMap::new();
        for (file, line) in places {
            let last = extents.get(file).map_or(line, |extent| extent.1);
            files.entry(file).or_insert_with(|| LineHistogram::new(file, parts)).add(line, last);
        }
        let mut files: Vec<_> = files.into_values().collect();
        files.sort_by_key(|spread| (std::cmp::Reverse(spread.rows), spread.file));
        files.truncate(most);
        files.sort_by_key(|spread| spread.file);
        files
    };
    let rows = found.findings.rejected.iter().map(|row| found.locations.locate(row));
    let rejected = spread(&mut rows.chain(unreadable.places.iter().copied()), PARTS, PICTURED);
    let mut checks = values(compiled, examined, at)?;
    for (check, evidence) in checks.iter_mut().enumerate() {
        if table.checks[check].kind == CheckKind::Parse {
            evidence.files = spread(&mut unreadable.places.iter().copied(), PARTS_OF_CHECK, FILES);
            evidence.examples = unreadable.examples(compiled, at);
        } else {
            let mut places = found.findings.of(check).iter().map(|violation| found.locations.locate(violation.row));
            evidence.files = spread(&mut places, PARTS_OF_CHECK, FILES);
        }
    }
    Ok(TableEvidence { checks, rejected, extents })
}

impl LineHistogram {
    fn new(file: usize, parts: u64) -> Self {
        Self { file: file as u64, parts: vec![0; parts as usize], ..Self::default() }
    }

    /// Adds a row on a line of a file whose last record is on line `end`.
    fn add(&mut self, line: u64, end: u64) {
        self.first = if self.rows == 0 { line } else { self.first.min(line) };
        self.last = self.last.max(line);
        self.rows += 1;
        let parts = self.parts.len() as u64;
        let part = (line.saturating_sub(1).saturating_mul(parts) / end.max(1)).min(parts - 1);
        self.parts[part as usize] += 1;
    }
}

/// Unreadable records.
#[derive(Default)]
struct Unreadable {
    places: Vec<(usize, u64)>,
    /// The reasons of the first records.
    reasons: Vec<String>,
}

fn unreadable(found: &CheckedTable) -> Result<Unreadable> {
    let mut unreadable = Unreadable::default();
    for batch in found.malformed.batches(vec![0, 1, 2]) {
        let (_, batch) = batch?;
        let files = batch.column(0).as_primitive::<UInt32Type>();
        let lines = batch.column(1).as_primitive::<UInt64Type>();
        let reasons = batch.column(2).as_string::<i32>();
        for row in 0..batch.num_rows() {
            unreadable.places.push((files.value(row) as usize, lines.value(row)));
            if unreadable.reasons.len() < EXAMPLES {
                unreadable.reasons.push(short(reasons.value(row), LONGEST_REASON));
            }
        }
    }
    Ok(unreadable)
}

impl Unreadable {
    fn examples(&self, compiled: &Compiled, at: TableIndex) -> Vec<Example> {
        let places = self.places.iter().zip(&self.reasons);
        let example = |((file, line), reason): (&(usize, u64), &String)| Example {
            file: file_name(compiled, at, *file),
            line: *line,
            value: None,
            reason: compiled.secrets.mask(reason).into_owned(),
        };
        places.map(example).collect()
    }
}

fn file_name(compiled: &Compiled, at: TableIndex, file: usize) -> String {
    compiled.sources[at].files().get(file).map_or_else(String::new, |file| file.name.clone())
}

/// The position of the evaluation of one check.
struct Cursor {
    next: usize,
    every: usize,
    columns: Option<Vec<String>>,
    tally: Tally,
}

/// Returns the examples and values by check, in one pass over the batches with failing rows.
fn values(compiled: &Compiled, examined: &[CheckedTable], at: TableIndex) -> Result<Vec<Evidence>> {
    let (table, found) = (&compiled.plan.tables[at], &examined[at]);
    let explain = Explain { compiled, examined, at };
    let mut evidence = vec![Evidence::default(); table.checks.len()];
    let mut cursors: Vec<(usize, Cursor)> = Vec::new();
    for (number, check) in table.checks.iter().enumerate() {
        let violations = found.findings.of(number).len();
        if violations > 0 && check.kind != CheckKind::Parse {
            let (every, columns) = (violations.div_ceil(COUNTED), explain.columns(check));
            cursors.push((number, Cursor { next: 0, every, columns, tally: Tally::default() }));
        }
    }
    let needed: HashSet<String> =
        cursors.iter().flat_map(|(_, cursor)| cursor.columns.iter().flatten()).cloned().collect();
    let is_needed = |name: &str| needed.contains(name);
    let columns = found.rows.columns(is_needed);
    for (batch, (first, count)) in found.rows.stretches().enumerate() {
        let end = first + count;
        let is_due = |(number, cursor): &(usize, Cursor)| {
            found.findings.of(*number).get(cursor.next).is_some_and(|violation| violation.row < end)
        };
        if !cursors.iter().any(is_due) {
            continue;
        }
        let batch = found.rows.batch(batch, &columns)?;
        for (number, cursor) in &mut cursors {
            let (check, violations) = (&table.checks[*number], found.findings.of(*number));
            let evidence = &mut evidence[*number];
            while let Some(violation) = violations.get(cursor.next).filter(|violation| violation.row < end) {
                let row = violation.row.index(first);
                let is_example = cursor.next < EXAMPLES;
                let is_counted = cursor.next.is_multiple_of(cursor.every);
                cursor.next += if is_example { 1 } else { cursor.every - cursor.next % cursor.every };
                let value = cursor.columns.as_ref().and_then(|columns| explain.value(columns, &batch, row));
                let value = value.map(|value| short(&value, LONGEST_VALUE));
                if let Some(value) = value.as_deref().filter(|_| is_counted) {
                    cursor.tally.add(value);
                }
                if is_example {
                    let (file, line) = found.locations.locate(violation.row);
                    let file = file_name(compiled, at, file);
                    let reason = short(&explain.reason(check, violation.detail), LONGEST_REASON);
                    evidence.examples.push(Example { file, line, value, reason });
                }
            }
        }
    }
    for (number, cursor) in cursors {
        (evidence[number].values, evidence[number].counted) = cursor.tally.most_frequent();
    }
    Ok(evidence)
}

/// Counts values in bounded memory: if there are too many distinct ones, it repeatedly drops the rarest.
#[derive(Default)]
struct Tally {
    counts: HashMap<String, u64>,
    counted: u64,
}

impl Tally {
    fn add(&mut self, value: &str) {
        self.counted += 1;
        if let Some(count) = self.counts.get_mut(value) {
            *count += 1;
            return;
        }
        let mut rare = 0;
        while self.counts.len() >= KEPT {
            rare += 1;
            self.counts.retain(|_, count| *count > rare);
        }
        self.counts.insert(value.to_owned(), 1);
    }

    fn most_frequent(self) -> (Vec<Count>, u64) {
        let mut counts: Vec<_> = self.counts.into_iter().map(|(value, rows)| Count { value, rows }).collect();
        counts.sort_by(|one, other| other.rows.cmp(&one.rows).then_with(|| one.value.cmp(&other.value)));
        counts.truncate(VALUES);
        (counts, self.counted)
    }
}

/// Cuts a text after `most` characters.
fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_values_are_counted_among_any_number_of_rare_ones() {
        let mut tally = Tally::default();
        for number in 0..50_000 {
            tally.add(&format!("rare {number}"));
            if number % 10 == 0 {
                tally.add("often");
            }
            assert!(tally.counts.len() <= KEPT);
        }
        let (values, counted) = tally.most_frequent();
        assert_eq!((values.len(), counted), (VALUES, 55_000));
        assert_eq!(values[0].value, "often");
        assert!((4_900..=5_000).contains(&values[0].rows), "{}", values[0].rows);
    }

    #[test]
    fn lines_fall_into_the_parts_of_their_file() {
        let mut spread = LineHistogram::new(0, 4);
        for line in [1, 2, 25, 26, 99, 100] {
            spread.add(line, 100);
        }
        assert_eq!((spread.parts.as_slice(), spread.first, spread.last, spread.rows), (&[3, 1, 0, 2][..], 1, 100, 6));
        let mut spread = LineHistogram::new(0, 4);
        spread.add(7, 0);
        assert_eq!(spread.parts, [0, 0, 0, 1], "a line beyond what is known of the file is in the last part");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(short("größer", 3), "grö…");
        assert_eq!(short("größe", 5), "größe");
    }
}
