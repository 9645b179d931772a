//! Queries of the target for the references that the delta does not resolve.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{concat, filter, filter_record_batch};

use super::Checker;
use super::resolved::{Targets, UNRESOLVED, scatter};
use crate::check::set_checks::typed;
use crate::engine::{RowNumber, RowSet, RowsTable, Space, ident, list, row_array, row_column, row_numbers};
use crate::error::{Error, Result};
use crate::plan::Reference;
use crate::target::{CatalogTable, Lookup, Relation, TableIndex};

impl Checker<'_> {
    /// Resolves the remaining references: sends the distinct texts to the target, which answers by number.
    pub(super) async fn find(
        &self,
        at: TableIndex,
        reference_index: usize,
        offset: RowNumber,
        targets: &mut Targets,
    ) -> Result<Unresolved> {
        let reference = &self.plan.tables[at].references[reference_index];
        let mut unresolved = Unresolved { values: self.no_values(reference), named: Vec::new(), why: HashMap::new() };
        let column = reference.text_column();
        let resolved: RowSet = targets.iter().filter(|(_, target)| *target != UNRESOLVED).map(|(row, _)| row).collect();
        if resolved.count() == targets.len() {
            return Ok(unresolved);
        }
        let rows = self.tables[at].rows.clone();
        self.engine.register(
            Space::Internal,
            "unresolved",
            RowsTable::new(rows, Arc::new(resolved), |name| name == column),
        )?;
        let text = ident(&column);
        let mut texts = Vec::new();
        self.engine
            .for_each(&format!("SELECT DISTINCT {text} AS text FROM internal.unresolved"), |batch| {
                texts.push(batch.column(0).clone());
                Ok(())
            })
            .await?;
        if texts.is_empty() {
            return Ok(unresolved);
        }
        let texts = concat(&texts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        let (answers, why) = self.ask_for(reference, &texts).await?;
        // Map the answers, and the reasons for missing ones, back to the rows.
        let texts = texts.as_string::<i32>();
        let to_rows = async |numbers: Vec<u64>, ids: &[u64], each: &mut dyn FnMut(&RecordBatch) -> Result<()>| {
            let texts: ArrayRef =
                Arc::new(StringArray::from_iter_values(ids.iter().map(|id| texts.value(*id as usize))));
            let numbers: ArrayRef = Arc::new(row_array(numbers.into_iter().map(RowNumber::new)));
            let answered = RecordBatch::try_from_iter([("_id", numbers), ("text", texts)])?;
            self.engine.register_batches(Space::Internal, "answered", answered.schema(), vec![answered])?;
            let sql = format!(
                "SELECT u._row, a._id FROM internal.answered a JOIN internal.unresolved u ON a.text = u.{text}"
            );
            self.engine.for_each(&sql, each).await
        };
        if !answers.ids.is_empty() {
            let numbers = (0..answers.ids.len() as u64).collect();
            to_rows(numbers, &answers.ids, &mut |batch| scatter(batch, targets, offset)).await?;
            (unresolved.values, unresolved.named) = (answers.values, answers.named);
        }
        if !why.is_empty() {
            let ids: Vec<u64> = why.keys().copied().collect();
            to_rows(ids.clone(), &ids, &mut |batch| {
                let (rows, ids) = (row_numbers(batch.column(0)), row_numbers(batch.column(1)));
                let whys = rows.zip(ids).filter_map(|(row, id)| Some((row, why.get(&id.get())?.clone())));
                unresolved.why.extend(whys);
                Ok(())
            })
            .await?;
        }
        Ok(unresolved)
    }

    /// Queries the target for the keys of texts: through the key map and then production, from which the row may have been
    /// deleted, or in production by the column `by`.
    async fn ask_for(&self, reference: &Reference, texts: &ArrayRef) -> Result<(Answers, HashMap<u64, String>)> {
        let production = Relation::Production(reference.to.clone());
        let give = vec![reference.give.clone()];
        let to = self.catalog.table(&reference.to);
        let (question, mut why) = whole(reference, texts)?;
        let answers = match reference.by.as_slice() {
            [_, ..] => self.ask_by(reference, to, texts, &question).await?,
            [] => {
                let key = match reference.parent {
                    Some(parent) => self.plan.tables[parent].key.columns().to_vec(),
                    None => to.map(|to| to.primary_key.clone()).unwrap_or_default(),
                };
                let history =
                    Lookup::new(Relation::KeyMap(reference.to.clone()), vec!["legacy_key".into()], key.clone());
                let mapped = self.lookup(&history, &[question]).await?;
                let live = Lookup::new(production, key, give);
                let live = if mapped.is_empty() { Vec::new() } else { self.lookup(&live, &mapped).await? };
                let answers = Answers::new(&live, self.no_values(reference))?;
                for batch in &mapped {
                    let deleted = row_numbers(batch.column(0)).filter(|id| !answers.known.contains(*id));
                    let reason =
                        format!("in the key map, but its row of `{}` was deleted from production", reference.to);
                    why.extend(deleted.map(|id| (id.get(), reason.clone())));
                }
                answers
            }
        };
        let several = format!(
            "more than one row of `{}` has this {}",
            reference.to,
            if reference.by.is_empty() { "`legacy key`".to_owned() } else { list(&reference.by) }
        );
        why.extend(answers.ambiguous.iter().map(|id| (id.get(), several.clone())));
        Ok((answers, why))
    }

    /// Queries production for the rows with these values in the columns `by`, for which the reference's condition is true.
    async fn ask_by(
        &self,
        reference: &Reference,
        to: Option<&Arc<CatalogTable>>,
        texts: &ArrayRef,
        question: &RecordBatch,
    ) -> Result<Answers> {
        let asked = parts_of(reference, texts, question, to)?;
        let mut give: Vec<String> = vec![reference.give.clone()];
        let tested = reference.condition.iter().flat_map(|condition| &condition.columns);
        give.extend(reference.by.iter().chain(tested.filter(|name| !reference.by.contains(name))).cloned());
        // Each column is read once, whatever its uses.
        let mut distinct = give.clone();
        distinct.sort();
        distinct.dedup();
        let lookup = Lookup::new(Relation::Production(reference.to.clone()), reference.by.clone(), distinct);
        let mut found = self.lookup(&lookup, &[asked]).await?;
        if let Some(condition) = &reference.condition {
            found = found.iter().map(|batch| self.only(&condition.sql, batch)).collect::<Result<_>>()?;
        }
        let wanted: Vec<RecordBatch> = found
            .iter()
            .map(|batch| {
                let place = |name: &String| batch.schema().index_of(name);
                let columns = std::iter::once(Ok(0)).chain(give.iter().map(place)).collect::<Result<Vec<_>, _>>()?;
                Ok(batch.project(&columns)?)
            })
            .collect::<Result<_>>()?;
        Answers::new(&wanted, self.no_values(reference))
    }

    /// Returns the answers for which a condition is true.
    fn only(&self, sql: &str, batch: &RecordBatch) -> Result<RecordBatch> {
        let expression = self.engine.expression(sql, &batch.schema()).map_err(Error::internal)?;
        let is_true = expression.evaluate(batch).map_err(|error| {
            Error::data(format!("cannot evaluate `where` ({sql}): {error}"))
                .hint("nothing was loaded; fix the condition")
        })?;
        Ok(filter_record_batch(batch, is_true.as_boolean())?)
    }
}

/// The references that the delta does not resolve, after the target was queried.
pub(super) struct Unresolved {
    /// Values of production.
    pub(super) values: ArrayRef,
    /// The values by which they were looked up, and those that its condition tested, if the reference has `by`.
    pub(super) named: Vec<ArrayRef>,
    /// By row, the reason for having no value, if there is more than the check's own.
    pub(super) why: HashMap<RowNumber, String>,
}

/// The target's answers to a question: for each text with exactly one value, its number and the value.
struct Answers {
    ids: Vec<u64>,
    values: ArrayRef,
    /// Further columns of the answers.
    named: Vec<ArrayRef>,
    known: RowSet,
    ambiguous: RowSet,
}

impl Answers {
    fn new(batches: &[RecordBatch], none: ArrayRef) -> Result<Self> {
        let (mut known, mut ambiguous) = (RowSet::default(), RowSet::default());
        let all = || batches.iter().flat_map(|batch| row_numbers(batch.column(0)));
        for id in all() {
            if !known.insert(id) {
                ambiguous.insert(id);
            }
        }
        let ids = all().filter(|id| !ambiguous.contains(*id)).map(RowNumber::get).collect();
        let single: BooleanArray = all().map(|id| Some(!ambiguous.contains(id))).collect();
        let column = |at: usize| -> Result<ArrayRef> {
            let parts: Vec<_> = batches.iter().map(|batch| batch.column(at).as_ref()).collect();
            Ok(filter(&concat(&parts)?, &single)?)
        };
        let count = batches.first().map_or(0, RecordBatch::num_columns);
        let values = if batches.is_empty() { none } else { column(1)? };
        let named = (2..count).map(column).collect::<Result<_>>()?;
        Ok(Self { ids, values, named, known, ambiguous })
    }
}

/// Returns a question for texts, without those whose reference is NULL in part, and the reason for each of these.
fn whole(reference: &Reference, texts: &ArrayRef) -> Result<(RecordBatch, HashMap<u64, String>)> {
    let ids = row_column(RowNumber::default(), texts.len());
    let question = RecordBatch::try_from_iter([("_id", ids), ("text", texts.clone())])?;
    let mut why = HashMap::new();
    if reference.parts > 1 {
        for (id, text) in (0_u64..).zip(texts.as_string::<i32>()) {
            if text.is_some_and(|text| parts(text).contains(&None)) {
                why.insert(id, "only a part of the reference is NULL".to_owned());
            }
        }
    }
    let is_whole = (0..texts.len() as u64).map(|id| Some(!why.contains_key(&id))).collect();
    Ok((filter_record_batch(&question, &is_whole)?, why))
}

/// Returns the question for production's columns `by`: the parts of each text, in the types of the columns.
fn parts_of(
    reference: &Reference,
    texts: &ArrayRef,
    question: &RecordBatch,
    to: Option<&Arc<CatalogTable>>,
) -> Result<RecordBatch> {
    let texts = texts.as_string::<i32>();
    let ids = row_numbers(question.column(0));
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(ids.len()); reference.by.len()];
    for id in ids {
        let text = texts.value(id.get() as usize);
        let values = if reference.parts > 1 { parts(text) } else { vec![Some(text.to_owned())] };
        for (column, value) in columns.iter_mut().zip(values.into_iter().chain(std::iter::repeat(None))) {
            column.push(value);
        }
    }
    let named = columns
        .into_iter()
        .enumerate()
        .map(|(at, values)| (format!("by{at}"), Arc::new(StringArray::from(values)) as ArrayRef, true));
    let ids = [("_id".to_owned(), question.column(0).clone(), false)];
    let mut asked = RecordBatch::try_from_iter_with_nullable(ids.into_iter().chain(named))?;
    for (at, name) in reference.by.iter().enumerate() {
        if let Some(column) = to.and_then(|to| to.column(name)) {
            asked = typed(&asked, 1 + at, column)?;
        }
    }
    Ok(asked)
}

/// Returns the parts of a text that joins several; None for a part that is NULL.
fn parts(text: &str) -> Vec<Option<String>> {
    let (mut parts, mut part, mut is_null) = (Vec::new(), String::new(), false);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '|' => parts.push((!std::mem::take(&mut is_null)).then(|| std::mem::take(&mut part))),
            '\\' => match chars.next() {
                Some('N') => is_null = true,
                next => part.extend(next),
            },
            char => part.push(char),
        }
    }
    parts.push((!is_null).then_some(part));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_several_parts_is_taken_apart_as_it_was_joined() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("a|b"), [some("a"), some("b")]);
        assert_eq!(parts("a\\|b|"), [some("a|b"), some("")]);
        assert_eq!(parts("\\\\N|\\N"), [some("\\N"), None]);
        assert_eq!(parts("\\N|c"), [None, some("c")]);
    }
}
