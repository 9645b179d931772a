//! One table of a draft: the mapping of source columns, and the open decisions.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;

use super::discover::Files;
use super::expression::{accepted, expression};
use super::name_match::{Alike, alike, is_key, part_of, stem, words};
use super::profile::Sample;
use crate::engine::ident;
use crate::target::{CatalogColumn, CatalogTable, TextKey};

/// The draft of a table.
pub(super) struct Draft<'a> {
    pub(super) table: &'a CatalogTable,
    pub(super) files: Option<&'a Files>,
    pub(super) legacy_key: Vec<String>,
    /// Other columns that identify rows.
    pub(super) legacy_choices: Vec<String>,
    pub(super) key: Key,
    pub(super) columns: Vec<ColumnLine>,
    pub(super) relationships: Vec<Relationship>,
    pub(super) null_values: BTreeSet<&'static str>,
    pub(super) ignore: Vec<String>,
    /// Columns without an expression that are required or have candidates, with these candidates.
    pub(super) needed: Vec<(String, Vec<String>)>,
    /// Optional columns without an expression and without candidates.
    pub(super) unfilled: Vec<String>,
    /// Remarks for comments, one sentence each.
    pub(super) remarks: Vec<String>,
}

/// The origin of a table's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// A new number, or a text with a new number.
    Assigned(String, Option<TextKey>),
    /// The parent's key, possibly with further columns.
    Inherited(Vec<String>),
    /// A key from the source.
    Source,
    /// No primary key.
    None,
}

/// An entry of `columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnLine {
    pub(super) column: String,
    pub(super) sql: String,
    /// The reason if the expression is a guess.
    pub(super) guess: Option<String>,
}

/// An entry of `relationships`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relationship {
    pub(super) column: String,
    pub(super) to: String,
    /// Empty if the source columns are unknown.
    pub(super) from: Vec<String>,
    /// The column of production to look up, instead of the legacy key.
    pub(super) by: Option<String>,
    pub(super) remark: Option<String>,
}

/// The context of a draft.
pub(super) struct DeltaFacts<'k, 'a> {
    /// The previous drafts, by table.
    pub(super) drafted: &'k BTreeMap<String, Draft<'a>>,
    /// All tables of the pipeline file.
    pub(super) all: &'k [&'a CatalogTable],
    /// Looks up a table of production.
    pub(super) production: &'k dyn Fn(&str) -> Option<&'a CatalogTable>,
    /// The format of the table's text keys.
    pub(super) text_key: Option<TextKey>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(table: &'a CatalogTable, files: Option<&'a Files>, facts: &DeltaFacts<'_, 'a>) -> Self {
        let mut draft = Self {
            table,
            files,
            legacy_key: Vec::new(),
            legacy_choices: Vec::new(),
            key: key(table, facts),
            columns: Vec::new(),
            relationships: Vec::new(),
            null_values: BTreeSet::new(),
            ignore: Vec::new(),
            needed: Vec::new(),
            unfilled: Vec::new(),
            remarks: Vec::new(),
        };
        match files {
            Some(files) => draft.infer_from_files(&files.sample, facts),
            None => draft.infer_from_schema(facts),
        }
        draft
    }

    /// Infers the draft from the schema alone.
    fn infer_from_schema(&mut self, facts: &DeltaFacts<'_, '_>) {
        let uniques: Vec<_> = self.table.uniques.iter().filter(|unique| unique.condition.is_none()).collect();
        let mut choices: Vec<Vec<String>> = uniques.iter().map(|unique| unique.columns.clone()).collect();
        choices.sort_by_key(Vec::len);
        choices.push(self.table.primary_key.clone());
        choices.retain(|columns| !columns.is_empty());
        self.legacy_key = choices.first().cloned().unwrap_or_default();
        self.legacy_choices = choices.iter().skip(1).map(|columns| columns.join(" + ")).collect();
        for key in self.table.foreign_keys.iter().filter(|key| key.columns.len() == 1) {
            let drafted = facts.all.iter().any(|table| table.name == key.to);
            if drafted || is_assigned(facts, &key.to) {
                let remark =
                    "`from`: the source column with the legacy key of the row; by default the column of the same name";
                self.relationships.push(Relationship {
                    column: key.columns[0].clone(),
                    to: key.to.clone(),
                    from: vec![key.columns[0].clone()],
                    by: None,
                    remark: Some(remark.to_owned()),
                });
            }
        }
        self.composite_references();
    }

    fn composite_references(&mut self) {
        for key in self.table.foreign_keys.iter().filter(|key| key.columns.len() > 1) {
            let columns = key.columns.join(", ");
            self.remarks.push(format!(
                "({columns}) refers to `{}` by several columns; the source must contain the values of production, because \
                 relationships resolve one column",
                key.to
            ));
        }
    }

    /// Infers the draft from the schema, names, and values.
    fn infer_from_files(&mut self, sample: &Sample, facts: &DeltaFacts<'_, '_>) {
        let mut used: BTreeSet<String> = BTreeSet::new();
        self.single_legacy_key(sample);
        self.references(sample, facts, &mut used);
        self.composite_references();
        self.composite_legacy_key(sample);
        used.extend(self.legacy_key.iter().cloned());
        self.fill(sample, &mut used);
        let text = |name: &String| sample.is_text(name);
        for name in self.relationships.iter().flat_map(|reference| &reference.from).filter(|name| text(name)) {
            self.null_values.extend(sample.null_texts(name));
        }
        // A candidate for an open column is not ignored, so that the user decides.
        let is_candidate = |name: &str| self.needed.iter().any(|(_, names)| names.iter().any(|other| other == name));
        let ignored = sample.names().into_iter().filter(|name| !used.contains(*name) && !is_candidate(name));
        self.ignore = ignored.map(ToOwned::to_owned).collect();
    }

    /// Finds the source column that identifies records, unless the key of the table is inherited.
    fn single_legacy_key(&mut self, sample: &Sample) {
        if matches!(self.key, Key::Inherited(_)) {
            return;
        }
        let table = words(&self.table.name);
        let mut candidates: Vec<(u32, &str)> = Vec::new();
        for (index, name) in sample.names().into_iter().enumerate() {
            if !sample.identify_rows(&[name]) {
                continue;
            }
            let is_primary = self.table.primary_key == [name.to_owned()];
            let is_other_column = self.table.columns.iter().any(|column| {
                alike(name, &column.name, &self.table.name) >= Some(Alike::Words)
                    && !self.table.primary_key.contains(&column.name)
            });
            let words = stem(name);
            let is_of_table = words == table || part_of(&words, &table) || part_of(&table, &words);
            let score = 4 * u32::from(is_key(name) && is_of_table)
                + 3 * u32::from(is_primary)
                + 2 * u32::from(is_key(name))
                + u32::from(index == 0);
            candidates.push((if is_other_column { score.min(1) } else { score + 2 }, name));
        }
        candidates.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        if self.table.primary_key.len() > 1 && candidates.first().is_none_or(|(score, _)| *score < 2) {
            // A table with a composite key may have a composite legacy key as well.
            return;
        }
        let mut names = candidates.into_iter().map(|(_, name)| name.to_owned());
        self.legacy_key = names.next().into_iter().collect();
        self.legacy_choices = names.filter(|name| is_key(name)).collect();
    }

    /// Finds the columns that together identify records, if no single column does or the key is inherited.
    fn composite_legacy_key(&mut self, sample: &Sample) {
        if !self.legacy_key.is_empty() {
            return;
        }
        let parts = self.table.primary_key.iter().map(|column| {
            let reference = self.relationships.iter().find(|reference| reference.column == *column);
            let from = reference.and_then(|reference| reference.from.first().cloned());
            from.or_else(|| best(sample, column, &self.table.name).map(ToOwned::to_owned))
        });
        let parts: Option<Vec<String>> = parts.collect();
        let parts = parts.filter(|parts| !parts.is_empty());
        let is_unique =
            |parts: &Vec<String>| sample.identify_rows(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        if let Some(parts) = parts.filter(is_unique) {
            self.legacy_key = parts;
        }
    }

    fn references(&mut self, sample: &Sample, facts: &DeltaFacts<'_, '_>, used: &mut BTreeSet<String>) {
        for key in self.table.foreign_keys.iter().filter(|key| key.columns.len() == 1) {
            let column = &key.columns[0];
            if self.relationships.iter().any(|reference| reference.column == *column) {
                continue;
            }
            let is_loaded = facts.all.iter().any(|table| table.name == key.to);
            if !is_loaded && sample.names().contains(&column.as_str()) && !is_assigned(facts, &key.to) {
                // The source contains the value of production, and the foreign key becomes a check automatically.
                continue;
            }
            let mut reference =
                Relationship { column: column.clone(), to: key.to.clone(), from: Vec::new(), by: None, remark: None };
            match by_value(sample, &key.to, facts).filter(|_| !is_loaded) {
                Some((from, by)) => (reference.from, reference.by) = (vec![from], Some(by)),
                None => self.infer_source(&mut reference, sample, facts, used),
            }
            used.extend(reference.from.iter().cloned());
            self.relationships.push(reference);
        }
    }

    /// Finds the source column with the legacy key of the referenced row.
    fn infer_source(
        &self,
        reference: &mut Relationship,
        sample: &Sample,
        facts: &DeltaFacts<'_, '_>,
        used: &BTreeSet<String>,
    ) {
        let (parent, parent_key) = if reference.to == self.table.name {
            (Some(sample), self.legacy_key.clone())
        } else {
            let parent = facts.drafted.get(&reference.to);
            let sample = parent.and_then(|parent| parent.files).map(|files| &files.sample);
            (sample, parent.map(|parent| parent.legacy_key.clone()).unwrap_or_default())
        };
        if parent_key.len() > 1 {
            reference.remark = Some(format!(
                "the legacy key of `{}` has {} columns; name as many in `from`",
                reference.to,
                parent_key.len()
            ));
            return;
        }
        let values = parent.zip(parent_key.first()).map(|(sample, name)| sample.distinct(name)).unwrap_or_default();
        let candidates = self.candidates(reference, sample, &values, parent_key.first(), used);
        match candidates.as_slice() {
            [] => reference.remark = Some("no matching source column found".to_owned()),
            [(best, first), (second, other), ..] if best == second => {
                reference.remark = Some(format!("`{first}` or `{other}`?"));
            }
            [(score, name), ..] => {
                reference.from = vec![(*name).to_owned()];
                reference.remark = (*score < 60).then(|| "GUESS: by name only".to_owned());
            }
        }
    }

    /// Rates the source columns for a reference by their names and values, best first.
    fn candidates<'s>(
        &self,
        reference: &Relationship,
        sample: &'s Sample,
        values: &BTreeSet<&str>,
        parent_key: Option<&String>,
        used: &BTreeSet<String>,
    ) -> Vec<(usize, &'s str)> {
        let (to, is_self) = (&reference.to, reference.to == self.table.name);
        let is_only = self.table.foreign_keys.iter().filter(|other| other.to == *to).count() == 1;
        let mut candidates: Vec<(usize, &str)> = Vec::new();
        for name in sample.names() {
            if is_self && self.legacy_key == [name.to_owned()] || used.contains(name) {
                continue;
            }
            let mut by_name = likeness(name, &reference.column, to, parent_key.filter(|_| !is_self));
            if by_name == 0 && is_only && !is_self && is_key(name) && stem(name) == words(to) {
                by_name = 50;
            }
            let percent = sample.percent_within(name, values);
            let by_value = if percent >= 50 { 40 + percent / 10 } else { 0 };
            if by_name > 0 || (by_value > 0 && values.len() > 20) {
                candidates.push((by_name + by_value, name));
            }
        }
        candidates.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        candidates
    }

    /// Finds a source column for each column that is neither a key nor a reference.
    fn fill(&mut self, sample: &Sample, used: &mut BTreeSet<String>) {
        let assigned = match &self.key {
            Key::Assigned(column, _) => Some(column.as_str()),
            _ => None,
        };
        let resolved = |name: &str| {
            self.relationships.iter().any(|reference| reference.column == name && !reference.from.is_empty())
        };
        let mut open: Vec<&CatalogColumn> = self
            .table
            .columns
            .iter()
            .filter(|column| !column.generated && assigned != Some(&column.name) && !resolved(&column.name))
            .collect();
        let mut lines: BTreeMap<&str, ColumnLine> = BTreeMap::new();
        for level in [Alike::Same, Alike::Case, Alike::Words, Alike::Part] {
            let names = sample.names();
            // A source column with the same name can be used again, any other only once.
            let is_key = |name: &str| level != Alike::Part && self.legacy_key.iter().any(|key| key == name);
            let free = |name: &&str| level == Alike::Same || !used.contains(*name) || is_key(name);
            let candidates = |column: &CatalogColumn| -> Vec<&str> {
                let like = |name: &&str| alike(name, &column.name, &self.table.name) == Some(level);
                names.iter().copied().filter(|name| free(name)).filter(like).collect()
            };
            let candidates: Vec<(&CatalogColumn, Vec<&str>)> =
                open.iter().map(|column| (*column, candidates(column))).collect();
            for (column, names) in &candidates {
                let [name] = names.as_slice() else { continue };
                if candidates.iter().filter(|(_, others)| others.contains(name)).count() > 1 {
                    continue;
                }
                let line = self.line(sample, name, column, level);
                lines.insert(&column.name, line);
            }
            for line in lines.keys() {
                let found = candidates.iter().find(|(column, _)| column.name == *line);
                used.extend(found.and_then(|(_, names)| names.first()).map(ToString::to_string));
            }
            open.retain(|column| !lines.contains_key(column.name.as_str()));
        }
        for (name, line) in &lines {
            let (Some(column), Some(source)) = (self.table.column(name), source_of(&line.sql, sample)) else {
                continue;
            };
            if sample.is_text(&source) && column.data_type != DataType::Utf8 {
                self.null_values.extend(sample.null_texts(&source));
            }
        }
        for column in open {
            self.leave_open(column, sample, used);
        }
        let is_plain = |line: &ColumnLine| line.sql == ident(&line.column) || line.sql == line.column;
        let ordered = self.table.columns.iter().filter_map(|column| lines.remove(column.name.as_str()));
        self.columns = ordered.filter(|line| !is_plain(line) || line.guess.is_some()).collect();
    }

    /// Records a column that no source column fills.
    fn leave_open(&mut self, column: &CatalogColumn, sample: &Sample, used: &BTreeSet<String>) {
        let names = sample.names().into_iter();
        let is_candidate = |name: &&str| !used.contains(*name) && alike(name, &column.name, &self.table.name).is_some();
        let candidates: Vec<String> = names.filter(is_candidate).map(ToOwned::to_owned).collect();
        let is_source_key = !matches!(self.key, Key::Assigned(..)) && self.table.primary_key.contains(&column.name);
        if (column.not_null || is_source_key) && !column.has_default || !candidates.is_empty() {
            self.needed.push((column.name.clone(), candidates));
        } else {
            self.unfilled.push(column.name.clone());
        }
    }

    /// Returns the entry of a column that is filled from a source column.
    fn line(&self, sample: &Sample, name: &str, column: &CatalogColumn, level: Alike) -> ColumnLine {
        let (sql, remark) = expression(sample, name, column, &accepted(self.table, &column.name));
        let guess = (level == Alike::Part).then(|| format!("`{name}` matches a part of the name"));
        let guess = match (guess, remark) {
            (Some(guess), Some(remark)) => Some(format!("{guess}; {remark}")),
            (guess, remark) => guess.or(remark),
        };
        ColumnLine { column: column.name.clone(), sql, guess }
    }
}

/// Infers the origin of a table's keys.
fn key(table: &CatalogTable, facts: &DeltaFacts<'_, '_>) -> Key {
    let refers = |column: &String| table.foreign_keys.iter().any(|key| key.columns == [column.clone()]);
    let [column] = table.primary_key.as_slice() else {
        return match table.primary_key.iter().any(refers) {
            true => Key::Inherited(table.primary_key.clone()),
            false if table.primary_key.is_empty() => Key::None,
            false => Key::Source,
        };
    };
    if refers(column) {
        return Key::Inherited(table.primary_key.clone());
    }
    let found = table.column(column);
    match found.map(|column| &column.data_type) {
        Some(data_type) if data_type.is_integer() && found.is_some_and(|column| !column.generated) => {
            Key::Assigned(column.clone(), None)
        }
        Some(DataType::Utf8) if facts.text_key.is_some() => Key::Assigned(column.clone(), facts.text_key.clone()),
        _ => Key::Source,
    }
}

/// Returns whether the keys of a table are generated numbers, which have no meaning outside production.
fn is_assigned(facts: &DeltaFacts<'_, '_>, table: &str) -> bool {
    let Some(table) = (facts.production)(table) else { return false };
    let [key] = table.primary_key.as_slice() else { return false };
    table.column(key).is_some_and(|column| column.data_type.is_integer())
}

/// Finds a source column with the values of a unique column of a table that is not loaded.
fn by_value(sample: &Sample, to: &str, facts: &DeltaFacts<'_, '_>) -> Option<(String, String)> {
    let to = (facts.production)(to)?;
    let uniques = to.uniques.iter().filter(|unique| unique.columns.len() == 1 && unique.condition.is_none());
    let mut found = uniques.filter_map(|unique| {
        let by = unique.columns.first()?;
        let from = sample.names().into_iter().find(|name| alike(name, by, &to.name) >= Some(Alike::Words))?;
        Some((from.to_owned(), by.clone()))
    });
    found.next()
}

/// Rates by name, from 0 to 100, how likely a source column contains the reference of a column.
fn likeness(source: &str, column: &str, to: &str, parent_key: Option<&String>) -> usize {
    let (ours, theirs, table) = (stem(source), stem(column), words(to));
    if source == column {
        return 80;
    }
    if ours == theirs {
        return 90;
    }
    // The name in the parent table, unless the column has another role, such as `parent_account_id`.
    if theirs == table || part_of(&theirs, &table) {
        if parent_key.is_some_and(|key| key == source) {
            return 85;
        }
        if ours == table || part_of(&ours, &table) {
            return 70;
        }
    }
    if part_of(&ours, &theirs) && ours != table && is_key(source) {
        return 60;
    }
    if parent_key.is_some_and(|key| key == source) { 40 } else { 0 }
}

/// Returns the source column that is most similar to a column.
fn best<'a>(sample: &'a Sample, column: &str, table: &str) -> Option<&'a str> {
    let names = sample.names().into_iter();
    let likes = names.filter_map(|name| alike(name, column, table).map(|alike| (alike, name)));
    likes.filter(|(alike, _)| *alike >= Alike::Words).max_by_key(|(alike, _)| *alike).map(|(_, name)| name)
}

/// Returns the source column of a drafted expression.
fn source_of(sql: &str, sample: &Sample) -> Option<String> {
    crate::plan::source_columns(sql, &sample.schema).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_rated_by_name() {
        let key = "account_ref".to_owned();
        assert_eq!(likeness("account_ref", "account_id", "account", Some(&key)), 90);
        assert_eq!(likeness("point_ref", "service_point_id", "service_point", None), 70);
        assert_eq!(likeness("parent_ref", "parent_account_id", "account", None), 60);
        assert_eq!(likeness("status", "account_id", "account", Some(&key)), 0);
    }
}
