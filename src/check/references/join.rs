//! A hash join of rows with the rows that they refer to by a text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};

use super::resolved::{Targets, UNRESOLVED, scatter};
use crate::engine::{Engine, Hashes, RowNumber, RowSet, RowStore, RowsTable, Space, ident, parallel_fold};
use crate::error::{Error, Result};

/// The build side: rows by the texts of a column, which are distinct except for rows in `without`.
pub(super) struct BuildSide<'a> {
    pub(super) rows: &'a Arc<RowStore>,
    pub(super) column: &'a str,
    pub(super) without: &'a RowSet,
}

impl BuildSide<'_> {
    /// Writes into `targets`, by row of `from`, the row with the text of `column`, if any; other targets stay unchanged.
    ///
    /// Hashes find candidates, and comparing the texts confirms them. Only rows with colliding hashes are joined by SQL.
    pub(super) async fn find(
        &self,
        engine: &Engine,
        from: &Arc<RowStore>,
        column: &str,
        targets: &mut Targets,
    ) -> Result<()> {
        let all = RowSet::default();
        let limits = engine.limits();
        let (ours, theirs) = (place(self.rows, self.column)?, place(from, column)?);
        let named = Hashes::new(self.rows, &[ours], self.without, limits);
        let naming = Hashes::new(from, &[theirs], &all, limits);
        self.look(engine, &named, &naming, (from, theirs), targets).await
    }

    async fn look(
        &self,
        engine: &Engine,
        named: &Hashes<'_>,
        naming: &Hashes<'_>,
        (from, column): (&Arc<RowStore>, usize),
        targets: &mut Targets,
    ) -> Result<()> {
        let mut unsure = RowSet::default();
        naming.partners(named, |row, partner| match partner {
            None => {
                unsure.insert(row);
            }
            Some(partner) => targets.set(row, partner),
        })?;
        for row in self.mistaken(engine, from, column, targets)? {
            targets.set(row, UNRESOLVED);
            unsure.insert(row);
        }
        if unsure.is_empty() {
            return Ok(());
        }
        let name = from.schema().field(column).name().clone();
        let others = Arc::new(unsure.inverted(from.range()));
        engine.register(Space::Internal, "naming", RowsTable::new(from.clone(), others, |other| other == name))?;
        let without = Arc::new(self.without.clone());
        engine.register(
            Space::Internal,
            "named",
            RowsTable::new(self.rows.clone(), without, |name| name == self.column),
        )?;
        let sql = format!(
            "SELECT c._row, p._row AS named FROM internal.naming c JOIN internal.named p ON p.{} = c.{}",
            ident(self.column),
            ident(&name)
        );
        engine.for_each(&sql, |batch| scatter(batch, targets, RowNumber::default())).await
    }

    /// Returns the rows whose text differs from that of the row found for them. One pass compares as many texts as fit
    /// into an eighth of the memory.
    fn mistaken(
        &self,
        engine: &Engine,
        from: &Arc<RowStore>,
        column: usize,
        targets: &Targets,
    ) -> Result<Vec<RowNumber>> {
        let limits = engine.limits();
        let own = place(self.rows, self.column)?;
        let firsts: Vec<RowNumber> = self.rows.stretches().map(|(first, _)| first).collect();
        let naming: Vec<(RowNumber, usize)> = from.stretches().collect();
        let mut mistaken = Vec::new();
        let mut next = 0;
        while next < firsts.len() {
            let (begin, mut bytes, mut texts) = (next, 0, Vec::<ArrayRef>::new());
            while next < firsts.len() && (texts.is_empty() || bytes < limits.memory / 8) {
                let array = self.rows.batch(next, &[own])?.column(0).clone();
                bytes += array.get_buffer_memory_size();
                texts.push(array);
                next += 1;
            }
            let known: Vec<_> = texts.iter().map(AsArray::as_string::<i32>).collect();
            let (firsts, end) = (&firsts[begin..next], firsts.get(next).copied().unwrap_or(UNRESOLVED));
            let found =
                parallel_fold("compare texts", limits.threads, naming.len(), |found: &mut Vec<RowNumber>, at| {
                    let (first, count) = naming[at];
                    let compared = || {
                        let targets = first.through(count).map(|row| targets.of(row)).enumerate();
                        targets.filter(|(_, target)| (firsts[0]..end).contains(target))
                    };
                    if compared().next().is_none() {
                        return Ok(());
                    }
                    let batch = from.batch(at, &[column])?;
                    let texts = batch.column(0).as_string::<i32>();
                    for (row, target) in compared() {
                        let batch = firsts.partition_point(|first| *first <= target) - 1;
                        if texts.value(row) != known[batch].value(target.index(firsts[batch])) {
                            found.push(first + row);
                        }
                    }
                    Ok(())
                })?;
            mistaken.extend(found.into_iter().flatten());
        }
        Ok(mistaken)
    }
}

fn place(rows: &RowStore, column: &str) -> Result<usize> {
    rows.schema().index_of(column).map_err(|_| Error::internal(format!("no column `{column}`")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::{RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::super::resolved::NULL_REFERENCE;
    use super::*;
    use crate::engine::Limits;

    fn rows(engine: &Engine, first: RowNumber, texts: &[Option<String>]) -> Arc<RowStore> {
        let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true)]));
        let mut writer = engine.rows(schema.clone()).starting_at(first);
        for part in texts.chunks(7) {
            let texts: ArrayRef = Arc::new(StringArray::from_iter(part));
            writer.write(&RecordBatch::try_new(schema.clone(), vec![texts]).unwrap()).unwrap();
        }
        writer.finish()
    }

    #[tokio::test]
    async fn each_row_finds_its_row_whatever_hashes_and_memory() {
        let ours: Vec<_> = (0..300).map(|row| (row % 50 != 3).then(|| format!("k{}", row % 250))).collect();
        let theirs: Vec<_> = (0..500).map(|row| (row % 9 != 0).then(|| format!("k{}", row * 7 % 400))).collect();
        for (first, other_first) in [(0, 0), (0, (1 << 32) - 3), ((1 << 32) - 3, 7), ((1 << 32) - 100, 1 << 33)] {
            let (first, other_first) = (RowNumber::new(first), RowNumber::new(other_first));
            let repeated: RowSet = (250..300).map(|row| first + row).collect();
            let expected: HashMap<&String, RowNumber> =
                (0..250).filter_map(|row| Some((ours[row].as_ref()?, first + row))).collect();
            let named = |text: &Option<String>| match text {
                Some(text) => expected.get(text).copied().unwrap_or(UNRESOLVED),
                None => NULL_REFERENCE,
            };
            let expected: Vec<RowNumber> = theirs.iter().map(named).collect();
            for memory in [800, 1 << 30] {
                for bits in [u64::MAX, 0xC000_0000_0000_0003, 0] {
                    let engine = Engine::try_new(Limits { memory: 1 << 30, threads: 2, batch_rows: 8 }).unwrap();
                    let limits = Limits { memory, ..engine.limits() };
                    let (named, naming) = (rows(&engine, first, &ours), rows(&engine, other_first, &theirs));
                    let targets = theirs.iter().map(|text| if text.is_some() { UNRESOLVED } else { NULL_REFERENCE });
                    let mut targets = Targets::new(other_first, targets.collect());
                    let all = RowSet::default();
                    let this = BuildSide { rows: &named, column: "t", without: &repeated };
                    let (left, right) = (
                        Hashes::new(&named, &[0], &repeated, limits).weakened(bits),
                        Hashes::new(&naming, &[0], &all, limits).weakened(bits),
                    );
                    this.look(&engine, &left, &right, (&naming, 0), &mut targets).await.unwrap();
                    let targets: Vec<_> = targets.iter().map(|(_, target)| target).collect();
                    assert_eq!(targets, expected, "{first} {other_first} {memory} {bits:x}");
                }
            }
        }
    }
}
