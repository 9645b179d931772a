//! References: from what a row refers by to the row that it means.
//!
//! A reference is resolved in the delta first, then in the key map's history; one that holds a value of production is looked
//! up there. The result is an array over the rows: the number of a row of the delta, or of a value that production knows. Keys
//! come later, by one `take`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, new_empty_array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};

use super::sets::{number, typed};
use super::{Detail, Examination};
use crate::engine::{Mask, RowsTable, ident};
use crate::error::{Error, Result};
use crate::plan::{CheckKind, Table};
use crate::target::{Lookup, Place};

/// What every row of a table refers to by one of its references.
#[derive(Debug)]
pub struct Resolved {
    /// By row: below `parents` the number of a row of the delta, from there on that of a value of `found`, or none.
    targets: Vec<u32>,
    parents: u32,
    found: ArrayRef,
}

/// The row refers to nothing: its reference is NULL.
const NOTHING: u32 = u32::MAX;
/// The row refers to something that is nowhere.
const MISSING: u32 = u32::MAX - 1;

impl Resolved {
    /// The row of the delta that a row refers to.
    pub fn parent(&self, row: u32) -> Option<u32> {
        Some(self.targets[row as usize]).filter(|target| *target < self.parents)
    }

    /// The keys that `count` rows from `first` on get, given the keys of the delta's own rows.
    pub fn keys(&self, own: &ArrayRef, first: u32, count: usize) -> Result<ArrayRef> {
        let range = first as usize..first as usize + count;
        let indices: UInt32Array =
            self.targets[range].iter().map(|target| Some(*target).filter(|target| *target < MISSING)).collect();
        let all = if self.found.is_empty() { own.clone() } else { concat(&[own, &self.found])? };
        Ok(take(&all, &indices, None)?)
    }

    /// The keys of `count` rows from `first` on that refer to rows in production; NULL for the others.
    pub fn in_production(&self, first: u32, count: usize) -> Result<ArrayRef> {
        let range = first as usize..first as usize + count;
        let found = |target: u32| (self.parents..MISSING).contains(&target).then(|| target - self.parents);
        let indices: UInt32Array = self.targets[range].iter().map(|target| found(*target)).collect();
        Ok(take(&self.found, &indices, None)?)
    }

    /// The values of production that rows refer to.
    pub fn found(&self) -> &ArrayRef {
        &self.found
    }
}

impl Examination<'_> {
    /// Resolves one reference of a table; its parent's own rows are examined already.
    pub(super) async fn resolve(&mut self, at: usize, which: usize) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        let reference = &table.references[which];
        let check = number(table, &|kind| *kind == CheckKind::Relationship { reference: which })?;
        let column = reference.text_column();
        let mut targets = self.nothing_or_missing(at, &column)?;
        let child = ident(&table.name);
        let text = ident(&column);

        let (mut parents, mut without) = (0, String::new());
        if let Some(parent) = reference.parent {
            parents = self.tables[parent].rows.count();
            // One row a legacy key; a row that is skipped is in production, and found there.
            let examined = &self.tables[parent];
            let first_rows = examined.repeated.union(&examined.findings.skipped);
            let known = RowsTable::try_new(examined.rows.clone(), Arc::new(first_rows), |name| name == "_key")?;
            self.engine.register("_parents", known)?;
            let sql = format!("SELECT c._row, p._row AS parent FROM {child} c JOIN _parents p ON c.{text} = p._key");
            self.engine.for_each(&sql, |batch| scatter(batch, &mut targets, 0)).await?;
            without = format!(" AND NOT EXISTS (SELECT 1 FROM _parents p WHERE p._key = c.{text})");
        }
        let question = Question { table, which, child: &child, text: &text, without: &without, parents };
        let (found, several) = self.find(&question, &mut targets).await?;
        let ambiguous = format!(
            "`{}` has several rows with this `{}`",
            reference.to,
            reference.by.as_deref().unwrap_or("legacy key")
        );
        for (row, target) in targets.iter().enumerate() {
            let row = row as u32;
            if *target != MISSING || self.tables[at].findings.skipped.contains(row) {
                continue;
            }
            match several.contains(row) {
                true => self.tables[at].findings.add_text(table, check, row, &ambiguous),
                false => self.tables[at].findings.add(table, check, row, Detail::None),
            }
        }
        self.tables[at].resolved.push(Resolved { targets, parents, found });
        Ok(())
    }

    fn nothing_or_missing(&self, at: usize, column: &str) -> Result<Vec<u32>> {
        let rows = &self.tables[at].rows;
        let mut targets = Vec::with_capacity(rows.count() as usize);
        for batch in rows.batches()? {
            let (_, batch) = batch?;
            let texts = batch.column_by_name(column).ok_or_else(|| Error::internal(format!("no column `{column}`")))?;
            targets.extend((0..texts.len()).map(|row| if texts.is_null(row) { NOTHING } else { MISSING }));
        }
        Ok(targets)
    }

    /// Looks up what the delta itself does not have: the distinct texts go to the target, the answers come back by number.
    /// Gives the values found, and the rows for which there are several.
    async fn find(&self, question: &Question<'_>, targets: &mut [u32]) -> Result<(ArrayRef, Mask)> {
        let Question { table, which, child, text, without, parents } = *question;
        let reference = &table.references[which];
        let data_type = self
            .catalog
            .table(&reference.to)
            .and_then(|to| to.column(&reference.give))
            .map_or(DataType::Null, |column| column.data_type.clone());
        let distinct = format!("SELECT DISTINCT c.{text} AS text FROM {child} c WHERE c.{text} IS NOT NULL{without}");
        let mut texts = Vec::new();
        self.engine
            .for_each(&distinct, |batch| {
                texts.push(batch.column(0).clone());
                Ok(())
            })
            .await?;
        let mut rows = Mask::default();
        if texts.is_empty() {
            return Ok((new_empty_array(&data_type), rows));
        }
        let texts = concat(&texts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        let fields = vec![Field::new("_id", DataType::UInt32, false), Field::new("text", DataType::Utf8, true)];
        let schema = Arc::new(Schema::new(fields));
        let ids = Arc::new(UInt32Array::from_iter_values(0..texts.len() as u32));
        let question = RecordBatch::try_new(schema.clone(), vec![ids, texts.clone()])?;
        let (place, match_on, asked) = match &reference.by {
            None => (Place::KeyMap(reference.to.clone()), "legacy_key".to_owned(), question),
            Some(by) => {
                let wanted = self
                    .catalog
                    .table(&reference.to)
                    .and_then(|to| to.column(by))
                    .map_or(DataType::Utf8, |column| column.data_type.clone());
                (Place::Production(reference.to.clone()), by.clone(), typed(&question, 1, &wanted)?)
            }
        };
        let lookup =
            Lookup { place, match_on: vec![match_on], ignore_case: Vec::new(), give: vec![reference.give.clone()] };
        let answers = self.target.lookup(&lookup, &[asked]).await?;
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        for answer in &answers {
            ids.extend_from_slice(answer.column(0).as_primitive::<UInt32Type>().values());
            values.push(answer.column(1).clone());
        }
        if ids.is_empty() {
            return Ok((new_empty_array(&data_type), rows));
        }
        let values = concat(&values.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        let (mut known, mut ambiguous) = (Mask::default(), Mask::default());
        for id in &ids {
            if !known.insert(*id) {
                ambiguous.insert(*id);
            }
        }
        // Back to the rows: which answer each text has.
        let texts = texts.as_string::<i32>();
        let answered: Vec<(u32, u32)> = ids
            .iter()
            .enumerate()
            .filter(|(_, id)| !ambiguous.contains(**id))
            .map(|(at, id)| (at as u32, *id))
            .collect();
        let back = |numbers: Vec<u32>, texts: StringArray| {
            RecordBatch::try_new(schema.clone(), vec![Arc::new(UInt32Array::from(numbers)), Arc::new(texts)])
        };
        let found = back(
            answered.iter().map(|(at, _)| *at).collect(),
            StringArray::from_iter_values(answered.iter().map(|(_, id)| texts.value(*id as usize))),
        )?;
        self.engine.register_batches("_found", schema.clone(), vec![found])?;
        let sql = format!("SELECT c._row, f._id FROM {child} c JOIN _found f ON c.{text} = f.text");
        self.engine.for_each(&sql, |batch| scatter(batch, targets, parents)).await?;
        if !ambiguous.is_empty() {
            let several = back(
                ambiguous.iter().collect(),
                StringArray::from_iter_values(ambiguous.iter().map(|id| texts.value(id as usize))),
            )?;
            self.engine.register_batches("_several", schema, vec![several])?;
            let sql = format!("SELECT c._row FROM {child} c JOIN _several s ON c.{text} = s.text");
            self.engine
                .for_each(&sql, |batch| {
                    for row in batch.column(0).as_primitive::<UInt32Type>().values() {
                        rows.insert(*row);
                    }
                    Ok(())
                })
                .await?;
        }
        Ok((values, rows))
    }

    /// Takes the children of rejected rows along, down to rows of the same table that refer to each other.
    pub(super) fn cascade(&mut self, at: usize) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        loop {
            let mut more = Vec::new();
            for (which, reference) in table.references.iter().enumerate() {
                let (Some(parent), Some(check)) = (
                    reference.parent.filter(|_| reference.by.is_none()),
                    table.check(|kind| *kind == CheckKind::ParentRejected { reference: which }),
                ) else {
                    continue;
                };
                let rejected = &self.tables[parent].findings.rejected;
                let examined = &self.tables[at];
                for row in 0..examined.rows.count() {
                    let target = examined.resolved[which].parent(row).filter(|target| rejected.contains(*target));
                    if let Some(target) = target
                        && !examined.cascaded[which].contains(row)
                        && !examined.findings.skipped.contains(row)
                    {
                        more.push((which, check, row, Detail::Row { table: parent as u32, row: target }));
                    }
                }
            }
            if more.is_empty() {
                return Ok(());
            }
            for (which, check, row, detail) in more {
                self.tables[at].cascaded[which].insert(row);
                self.tables[at].findings.add(table, check, row, detail);
            }
        }
    }

    /// Values that production itself must know: a foreign key that no relationship resolves.
    pub(super) async fn foreign_key(
        &mut self,
        at: usize,
        check: usize,
        columns: &[String],
        to: &str,
        to_columns: &[String],
    ) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        let names: Vec<_> = columns.iter().map(|name| ident(name)).collect();
        let there: Vec<_> = names.iter().map(|name| format!("{name} IS NOT NULL")).collect();
        let (list, there) = (names.join(", "), there.join(" AND "));
        let child = ident(&table.name);
        let distinct = self.engine.collect(&format!("SELECT DISTINCT {list} FROM {child} WHERE {there}")).await?;
        let (mut questions, mut next) = (Vec::new(), 0_u32);
        for batch in distinct {
            let ids: ArrayRef = Arc::new(UInt32Array::from_iter_values(next..next + batch.num_rows() as u32));
            next += batch.num_rows() as u32;
            let mut fields = vec![Arc::new(Field::new("_id", DataType::UInt32, false))];
            fields.extend(batch.schema().fields().iter().cloned());
            let schema = Arc::new(Schema::new(fields));
            questions.push(RecordBatch::try_new(
                schema,
                std::iter::once(ids).chain(batch.columns().iter().cloned()).collect(),
            )?);
        }
        let Some(schema) = questions.first().map(RecordBatch::schema) else { return Ok(()) };
        let lookup = Lookup {
            place: Place::Production(to.to_owned()),
            match_on: to_columns.to_vec(),
            ignore_case: Vec::new(),
            give: Vec::new(),
        };
        let mut known = Mask::default();
        for answer in self.target.lookup(&lookup, &questions).await? {
            for id in answer.column(0).as_primitive::<UInt32Type>().values() {
                known.insert(*id);
            }
        }
        self.engine.register_batches("_asked", schema, questions)?;
        let ids: ArrayRef = Arc::new(UInt32Array::from_iter_values(known.iter()));
        let id_schema = Arc::new(Schema::new(vec![Field::new("_id", DataType::UInt32, false)]));
        self.engine.register_batches("_known", id_schema.clone(), vec![RecordBatch::try_new(id_schema, vec![ids])?])?;
        let same = |other: &str, others: &[String]| {
            let pairs: Vec<_> =
                names.iter().zip(others).map(|(name, theirs)| format!("c.{name} = {other}.{theirs}")).collect();
            pairs.join(" AND ")
        };
        // An accepted row of the delta may bring the value too, where the referenced table is loaded in the same run.
        let mut in_delta = None;
        if let Some(parent) = plan.position(to).filter(|parent| brings(&plan.tables[*parent], to_columns)) {
            let without = Arc::new(self.tables[parent].findings.kept_out());
            let wanted = |name: &str| to_columns.iter().any(|column| column == name);
            self.engine.register("_parents", RowsTable::try_new(self.tables[parent].rows.clone(), without, wanted)?)?;
            let theirs: Vec<_> = to_columns.iter().map(|name| ident(name)).collect();
            in_delta = Some(format!(" AND NOT EXISTS (SELECT 1 FROM _parents d WHERE {})", same("d", &theirs)));
        }
        let missing = format!(
            "SELECT c._row FROM {child} c JOIN _asked a ON {} WHERE NOT EXISTS (SELECT 1 FROM _known k WHERE k._id = a._id){}",
            same("a", &names),
            in_delta.unwrap_or_default()
        );
        let mut rows = Mask::default();
        self.engine
            .for_each(&missing, |batch| {
                for row in batch.column(0).as_primitive::<UInt32Type>().values() {
                    rows.insert(*row);
                }
                Ok(())
            })
            .await?;
        for row in rows.iter() {
            self.tables[at].findings.add(table, check, row, Detail::None);
        }
        Ok(())
    }
}

/// A question for what the rows of a table refer to.
#[derive(Clone, Copy)]
struct Question<'a> {
    table: &'a Table,
    which: usize,
    /// The table's name, and the column that holds the texts, as SQL.
    child: &'a str,
    text: &'a str,
    /// SQL that leaves out what the delta itself has.
    without: &'a str,
    parents: u32,
}

/// Whether the rows of a table bring their values of these columns themselves.
fn brings(table: &Table, columns: &[String]) -> bool {
    columns.iter().all(|name| table.computed().any(|(column, _)| column.name == *name))
}

/// Writes what a join found into the array over the rows: row, and the number it refers to.
fn scatter(batch: &RecordBatch, targets: &mut [u32], offset: u32) -> Result<()> {
    let (rows, numbers) = (batch.column(0).as_primitive::<UInt32Type>(), batch.column(1).as_primitive::<UInt32Type>());
    for (row, number) in rows.values().iter().zip(numbers.values()) {
        let target = targets.get_mut(*row as usize).ok_or_else(|| Error::internal("a row number beyond the rows"))?;
        *target = offset + number;
    }
    Ok(())
}
