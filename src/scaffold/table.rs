//! One table of a draft: which source column goes where, and what is left open.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;

use super::discover::Files;
use super::expression::{accepted, expression};
use super::name_match::{Alike, alike, is_key, part_of, stem, words};
use super::profile::Sample;
use crate::engine::ident;
use crate::target::{CatalogColumn, CatalogTable, TextKey};

/// A table as it is drafted.
pub(super) struct Draft<'a> {
    pub(super) table: &'a CatalogTable,
    pub(super) files: Option<&'a Files>,
    pub(super) legacy_key: Vec<String>,
    /// Other columns that could be the legacy key.
    pub(super) legacy_choices: Vec<String>,
    pub(super) key: Key,
    pub(super) columns: Vec<Line>,
    pub(super) relationships: Vec<Relationship>,
    pub(super) null_values: BTreeSet<&'static str>,
    pub(super) ignore: Vec<String>,
    /// Columns that nothing fills, and what may: those without which production refuses a row.
    pub(super) needed: Vec<(String, Vec<String>)>,
    /// Columns that nothing fills, and that need not be filled.
    pub(super) unfilled: Vec<String>,
    /// What is worth to be known, one sentence each.
    pub(super) remarks: Vec<String>,
}

/// How rows get their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// A number of the table's own, or a text made of one.
    Assigned(String, Option<TextKey>),
    /// The parent's key and something of the row's own.
    Inherited(Vec<String>),
    /// The row brings it.
    Own,
    /// The table has none.
    None,
}

/// A line of `columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) column: String,
    pub(super) sql: String,
    /// Why it is only a guess.
    pub(super) guess: Option<String>,
}

/// A line of `relationships`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relationship {
    pub(super) column: String,
    pub(super) to: String,
    /// Empty where it is not known.
    pub(super) from: Vec<String>,
    /// The column there that is a value of production's.
    pub(super) by: Option<String>,
    /// What to say of it.
    pub(super) remark: Option<String>,
}

/// What is known when a table is drafted.
pub(super) struct DeltaFacts<'k, 'a> {
    /// The tables drafted so far, by name.
    pub(super) before: &'k BTreeMap<String, Draft<'a>>,
    /// All tables of the draft.
    pub(super) all: &'k [&'a CatalogTable],
    /// All tables of production.
    pub(super) production: &'k dyn Fn(&str) -> Option<&'a CatalogTable>,
    /// How a text key of production is written.
    pub(super) text_key: Option<TextKey>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(table: &'a CatalogTable, files: Option<&'a Files>, known: &DeltaFacts<'_, 'a>) -> Self {
        let mut draft = Self {
            table,
            files,
            legacy_key: Vec::new(),
            legacy_choices: Vec::new(),
            key: key(table, known),
            columns: Vec::new(),
            relationships: Vec::new(),
            null_values: BTreeSet::new(),
            ignore: Vec::new(),
            needed: Vec::new(),
            unfilled: Vec::new(),
            remarks: Vec::new(),
        };
        match files {
            Some(files) => draft.by_files(&files.sample, known),
            None => draft.by_schema(known),
        }
        draft
    }

    /// What the schema alone tells.
    fn by_schema(&mut self, known: &DeltaFacts<'_, '_>) {
        let uniques: Vec<_> = self.table.uniques.iter().filter(|unique| unique.condition.is_none()).collect();
        let mut choices: Vec<Vec<String>> = uniques.iter().map(|unique| unique.columns.clone()).collect();
        choices.sort_by_key(Vec::len);
        choices.push(self.table.primary_key.clone());
        choices.retain(|columns| !columns.is_empty());
        self.legacy_key = choices.first().cloned().unwrap_or_default();
        self.legacy_choices = choices.iter().skip(1).map(|columns| columns.join(" + ")).collect();
        for key in self.table.foreign_keys.iter().filter(|key| key.columns.len() == 1) {
            let drafted = known.all.iter().any(|table| table.name == key.to);
            if drafted || is_assigned(known, &key.to) {
                let remark = "the source column that holds the legacy key of the row; the one of this name, if `from` is left out";
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
                "({columns}) refers to `{}` by several columns: no relationship resolves that, so the source must hold \
                 production's own values",
                key.to
            ));
        }
    }

    /// What schema, names and values tell together.
    fn by_files(&mut self, sample: &Sample, known: &DeltaFacts<'_, '_>) {
        let mut used: BTreeSet<String> = BTreeSet::new();
        self.single_legacy_key(sample);
        self.references(sample, known, &mut used);
        self.composite_references();
        self.composite_legacy_key(sample);
        used.extend(self.legacy_key.iter().cloned());
        self.fill(sample, &mut used);
        let text = |name: &String| sample.is_text(name);
        for name in self.relationships.iter().flat_map(|reference| &reference.from).filter(|name| text(name)) {
            self.null_values.extend(sample.nothing(name));
        }
        // What may fill a column is not left out as long as nobody said so.
        let perhaps = |name: &str| self.needed.iter().any(|(_, perhaps)| perhaps.iter().any(|other| other == name));
        let ignored = sample.names().into_iter().filter(|name| !used.contains(*name) && !perhaps(name));
        self.ignore = ignored.map(ToOwned::to_owned).collect();
    }

    /// The one source column that tells records apart, if the table's key is not made of its parent's.
    fn single_legacy_key(&mut self, sample: &Sample) {
        if matches!(self.key, Key::Inherited(_)) {
            return;
        }
        let table = words(&self.table.name);
        let mut candidates: Vec<(u32, &str)> = Vec::new();
        for (place, name) in sample.names().into_iter().enumerate() {
            if !sample.tell_apart(&[name]) {
                continue;
            }
            let is_primary = self.table.primary_key == [name.to_owned()];
            let another = self.table.columns.iter().any(|column| {
                alike(name, &column.name, &self.table.name) >= Some(Alike::Words)
                    && !self.table.primary_key.contains(&column.name)
            });
            let words = stem(name);
            let mine = words == table || part_of(&words, &table) || part_of(&table, &words);
            let score = 4 * u32::from(is_key(name) && mine)
                + 3 * u32::from(is_primary)
                + 2 * u32::from(is_key(name))
                + u32::from(place == 0);
            candidates.push((if another { score.min(1) } else { score + 2 }, name));
        }
        candidates.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        if self.table.primary_key.len() > 1 && candidates.first().is_none_or(|(score, _)| *score < 2) {
            // Its key has several columns, so may what it had before.
            return;
        }
        let mut names = candidates.into_iter().map(|(_, name)| name.to_owned());
        self.legacy_key = names.next().into_iter().collect();
        self.legacy_choices = names.filter(|name| is_key(name)).collect();
    }

    /// The columns that tell records apart together, where the key is made of the parent's, or no column does alone.
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
        let apart = |parts: &Vec<String>| sample.tell_apart(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        if let Some(parts) = parts.filter(apart) {
            self.legacy_key = parts;
        }
    }

    fn references(&mut self, sample: &Sample, known: &DeltaFacts<'_, '_>, used: &mut BTreeSet<String>) {
        for key in self.table.foreign_keys.iter().filter(|key| key.columns.len() == 1) {
            let column = &key.columns[0];
            if self.relationships.iter().any(|reference| reference.column == *column) {
                continue;
            }
            let itself = key.to == self.table.name;
            let drafted = known.all.iter().any(|table| table.name == key.to);
            let same = sample.names().contains(&column.as_str());
            let mut reference =
                Relationship { column: column.clone(), to: key.to.clone(), from: Vec::new(), by: None, remark: None };
            if !drafted && same && !is_assigned(known, &key.to) {
                // The source holds production's own value: the foreign key is a check by itself.
                continue;
            }
            if !drafted && let Some((from, by)) = by_value(sample, &key.to, known) {
                reference.from = vec![from.clone()];
                reference.by = Some(by);
                used.insert(from);
                self.relationships.push(reference);
                continue;
            }
            let (parent, parent_key) = if itself {
                (Some(sample), self.legacy_key.clone())
            } else {
                let parent = known.before.get(&key.to);
                let sample = parent.and_then(|parent| parent.files).map(|files| &files.sample);
                (sample, parent.map(|parent| parent.legacy_key.clone()).unwrap_or_default())
            };
            if parent_key.len() > 1 {
                reference.remark = Some(format!(
                    "the legacy key of `{}` has {} columns: name as many in `from`",
                    key.to,
                    parent_key.len()
                ));
                self.relationships.push(reference);
                continue;
            }
            let values = parent.zip(parent_key.first()).map(|(sample, name)| sample.distinct(name)).unwrap_or_default();
            let mut candidates: Vec<(usize, &str)> = Vec::new();
            for name in sample.names() {
                if itself && self.legacy_key == [name.to_owned()] || used.contains(name) {
                    continue;
                }
                let mut by_name = likeness(name, column, &key.to, parent_key.first().filter(|_| !itself));
                let only = self.table.foreign_keys.iter().filter(|other| other.to == key.to).count() == 1;
                if by_name == 0 && only && !itself && is_key(name) && stem(name) == words(&key.to) {
                    by_name = 50;
                }
                let by_value = sample.share_within(name, &values);
                let by_value = if by_value >= 50 { 40 + by_value / 10 } else { 0 };
                if by_name > 0 || (by_value > 0 && values.len() > 20) {
                    candidates.push((by_name + by_value, name));
                }
            }
            candidates.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
            match candidates.as_slice() {
                [] => reference.remark = Some("no source column was found that holds it".to_owned()),
                [(best, first), (second, other), ..] if best == second => {
                    reference.remark = Some(format!("`{first}` or `{other}`?"));
                }
                [(score, name), ..] => {
                    reference.from = vec![(*name).to_owned()];
                    used.insert((*name).to_owned());
                    if *score < 60 {
                        reference.remark = Some("GUESS: by name alone".to_owned());
                    }
                }
            }
            self.relationships.push(reference);
        }
    }

    /// Finds a source column for each column that is not a key or a reference.
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
        let mut lines: BTreeMap<&str, Line> = BTreeMap::new();
        for level in [Alike::Same, Alike::Case, Alike::Words, Alike::Part] {
            let names = sample.names();
            // A column of its own name is used in any case; another one once.
            let is_key = |name: &str| level != Alike::Part && self.legacy_key.iter().any(|key| key == name);
            let free = |name: &&str| level == Alike::Same || !used.contains(*name) || is_key(name);
            let candidates = |column: &CatalogColumn| -> Vec<&str> {
                let like = |name: &&str| alike(name, &column.name, &self.table.name) == Some(level);
                names.iter().copied().filter(|name| free(name)).filter(like).collect()
            };
            let wanted: Vec<(&CatalogColumn, Vec<&str>)> =
                open.iter().map(|column| (*column, candidates(column))).collect();
            for (column, candidates) in &wanted {
                let [name] = candidates.as_slice() else { continue };
                if wanted.iter().filter(|(_, others)| others.contains(name)).count() > 1 {
                    continue;
                }
                let line = self.line(sample, name, column, level);
                lines.insert(&column.name, line);
            }
            for line in lines.keys() {
                let found = wanted.iter().find(|(column, _)| column.name == *line);
                used.extend(found.and_then(|(_, candidates)| candidates.first()).map(ToString::to_string));
            }
            open.retain(|column| !lines.contains_key(column.name.as_str()));
        }
        let mut nothing = BTreeSet::new();
        for (name, line) in &lines {
            let (Some(column), Some(source)) = (self.table.column(name), source_of(&line.sql, sample)) else {
                continue;
            };
            if sample.is_text(&source) && column.data_type != DataType::Utf8 {
                nothing.extend(sample.nothing(&source));
            }
        }
        for column in open {
            let perhaps: Vec<String> = sample
                .names()
                .into_iter()
                .filter(|name| !used.contains(*name) && alike(name, &column.name, &self.table.name).is_some())
                .map(ToOwned::to_owned)
                .collect();
            let own_key = !matches!(self.key, Key::Assigned(..)) && self.table.primary_key.contains(&column.name);
            if (column.not_null || own_key) && !column.has_default || !perhaps.is_empty() {
                self.needed.push((column.name.clone(), perhaps));
            } else {
                self.unfilled.push(column.name.clone());
            }
        }
        let plain = |line: &Line| line.sql == ident(&line.column) || line.sql == line.column;
        let wanted = self.table.columns.iter().filter_map(|column| lines.remove(column.name.as_str()));
        self.columns = wanted.filter(|line| !plain(line) || line.guess.is_some()).collect();
        self.null_values.extend(nothing);
    }

    /// A column out of a source column, in the form that production reads.
    fn line(&self, sample: &Sample, name: &str, column: &CatalogColumn, level: Alike) -> Line {
        let (sql, written) = expression(sample, name, column, &accepted(self.table, &column.name));
        let guess = (level == Alike::Part).then(|| format!("`{name}` is a part of its name"));
        let guess = match (guess, written) {
            (Some(guess), Some(written)) => Some(format!("{guess}; {written}")),
            (guess, written) => guess.or(written),
        };
        Line { column: column.name.clone(), sql, guess }
    }
}

/// Which key a table has.
fn key(table: &CatalogTable, known: &DeltaFacts<'_, '_>) -> Key {
    let refers = |column: &String| table.foreign_keys.iter().any(|key| key.columns == [column.clone()]);
    let [column] = table.primary_key.as_slice() else {
        return match table.primary_key.iter().any(refers) {
            true => Key::Inherited(table.primary_key.clone()),
            false if table.primary_key.is_empty() => Key::None,
            false => Key::Own,
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
        Some(DataType::Utf8) if known.text_key.is_some() => Key::Assigned(column.clone(), known.text_key.clone()),
        _ => Key::Own,
    }
}

/// Whether rows of a table have keys that mean nothing outside of production.
fn is_assigned(known: &DeltaFacts<'_, '_>, table: &str) -> bool {
    let Some(table) = (known.production)(table) else { return false };
    let [key] = table.primary_key.as_slice() else { return false };
    table.column(key).is_some_and(|column| column.data_type.is_integer())
}

/// A source column that holds the values of a unique column of a table that is not loaded.
fn by_value(sample: &Sample, to: &str, known: &DeltaFacts<'_, '_>) -> Option<(String, String)> {
    let to = (known.production)(to)?;
    let uniques = to.uniques.iter().filter(|unique| unique.columns.len() == 1 && unique.condition.is_none());
    let mut found = uniques.filter_map(|unique| {
        let by = unique.columns.first()?;
        let from = sample.names().into_iter().find(|name| alike(name, by, &to.name) >= Some(Alike::Words))?;
        Some((from.to_owned(), by.clone()))
    });
    found.next()
}

/// How likely a source column by its name holds what a column refers to: 0 for not at all, up to 100.
fn likeness(source: &str, column: &str, to: &str, parent_key: Option<&String>) -> usize {
    let (ours, theirs, table) = (stem(source), stem(column), words(to));
    if source == column {
        return 80;
    }
    if ours == theirs {
        return 90;
    }
    // What the parent calls it, unless the column says that it is another one: `parent_account_id`.
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

/// The source column that is most like a column.
fn best<'a>(sample: &'a Sample, column: &str, table: &str) -> Option<&'a str> {
    let names = sample.names().into_iter();
    let likes = names.filter_map(|name| alike(name, column, table).map(|alike| (alike, name)));
    likes.filter(|(alike, _)| *alike >= Alike::Words).max_by_key(|(alike, _)| *alike).map(|(_, name)| name)
}

/// The source column that an expression of ours is made of.
fn source_of(sql: &str, sample: &Sample) -> Option<String> {
    crate::plan::source_columns(sql, &sample.schema).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_refers_is_told_by_names() {
        let key = "account_ref".to_owned();
        assert_eq!(likeness("account_ref", "account_id", "account", Some(&key)), 90);
        assert_eq!(likeness("point_ref", "service_point_id", "service_point", None), 70);
        assert_eq!(likeness("parent_ref", "parent_account_id", "account", None), 60);
        assert_eq!(likeness("status", "account_id", "account", Some(&key)), 0);
    }
}
