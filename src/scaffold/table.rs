//! One table of a draft: the mapping of source columns, and the open decisions.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;

use super::discover::Files;
use super::expression::{accepted, expression, sql_name};
use super::name_match::{Alike, alike, is_key, is_position, is_sequence_of, part_of, resembles, stem, table_words};
use super::probe::Probe;
use super::profile::{Notation, Sample};
use super::references::{References, Relationship};
use crate::engine::ident;
use crate::target::{CatalogColumn, CatalogTable, ForeignKey, LogicalType, TextKey};

/// The draft of a table.
pub(super) struct Draft<'a> {
    pub(super) table: &'a CatalogTable,
    pub(super) files: Option<&'a Files>,
    pub(super) legacy_key: Vec<String>,
    /// Other columns that identify rows.
    pub(super) legacy_choices: Vec<String>,
    pub(super) key: Key,
    /// The origin of the key's numbers, if production does not fill the column itself.
    pub(super) numbers: Numbers,
    pub(super) columns: Vec<ColumnLine>,
    pub(super) relationships: Vec<Relationship>,
    /// References that are filled with production's own keys from columns of the same name.
    pub(super) own_keys: Vec<String>,
    pub(super) null_values: BTreeSet<&'static str>,
    pub(super) ignore: Vec<String>,
    /// Columns without an expression that are required or have candidates, with these candidates.
    pub(super) needed: Vec<(String, Vec<String>)>,
    /// Required columns that only the table's single trigger can fill.
    pub(super) filled_by_trigger: Vec<String>,
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
    /// A UUID of the legacy key.
    Uuid(String),
    /// A key from the source.
    Source,
    /// No primary key.
    None,
}

/// The origin of the numbers of an assigned key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Production's default, or the largest key if the target has no sequences.
    Default,
    /// A sequence that is named after the table.
    Sequence(String),
    /// Unknown.
    Unknown,
}

/// An entry of `columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnLine {
    pub(super) column: String,
    pub(super) sql: String,
    /// The reason if the expression is a guess.
    pub(super) guess: Option<String>,
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

impl<'k, 'a> DeltaFacts<'k, 'a> {
    /// Returns whether a table is part of the pipeline file.
    pub(super) fn is_loaded(&self, table: &str) -> bool {
        self.all.iter().any(|other| other.name == table)
    }

    /// Returns the sample with the legacy keys of a table, and their column, if the delta has them in one column.
    pub(super) fn legacy_keys<'d>(
        &self,
        draft: &'d Draft<'a>,
        sample: &'d Sample,
        table: &str,
    ) -> Option<(&'d Sample, &'d str)>
    where
        'k: 'd,
    {
        let (sample, key) = if table == draft.table.name {
            (sample, &draft.legacy_key)
        } else {
            let parent = self.drafted.get(table)?;
            (&parent.files?.sample, &parent.legacy_key)
        };
        match key.as_slice() {
            [key] => Some((sample, key)),
            _ => None,
        }
    }
}

impl<'a> Draft<'a> {
    pub(super) async fn infer(
        table: &'a CatalogTable,
        files: Option<&'a Files>,
        facts: &DeltaFacts<'_, 'a>,
        probe: &Probe<'_>,
    ) -> Self {
        let mut draft = Self {
            table,
            files,
            legacy_key: Vec::new(),
            legacy_choices: Vec::new(),
            key: key(table, facts),
            numbers: Numbers::Default,
            columns: Vec::new(),
            relationships: Vec::new(),
            own_keys: Vec::new(),
            null_values: BTreeSet::new(),
            ignore: Vec::new(),
            needed: Vec::new(),
            filled_by_trigger: Vec::new(),
            unfilled: Vec::new(),
            remarks: Vec::new(),
        };
        match files {
            Some(files) => draft.infer_from_files(&files.sample, facts, probe).await,
            None => draft.infer_from_schema(facts),
        }
        draft
    }

    /// Finds the sequence of a key that production does not fill itself. Without a sequence, the target would not know which numbers other
    /// programs take next.
    pub(super) fn find_sequence(&mut self, sequences: Option<&Vec<String>>) {
        let (Key::Assigned(column, None), Some(sequences)) = (&self.key, sequences) else { return };
        if self.table.serials.contains(column) || self.table.numbered.contains(column) {
            return;
        }
        let mut named = sequences.iter().filter(|sequence| is_sequence_of(sequence, &self.table.name));
        self.numbers = match (named.next(), named.next()) {
            (Some(one), None) => Numbers::Sequence(one.clone()),
            _ => Numbers::Unknown,
        };
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
            if facts.is_loaded(&key.to) && !self.relationships.iter().any(|other| other.column == key.columns[0]) {
                let mut relationship = Relationship::open(&key.columns[0], &key.to);
                relationship.from = vec![key.columns[0].clone()];
                relationship.remark = Some("CHOOSE: the source column with the legacy key of the row".to_owned());
                self.relationships.push(relationship);
            }
        }
        self.composite_references();
        self.triggers();
    }

    /// Names the triggers that may decide values of columns.
    fn triggers(&mut self) {
        let known: &[String] = if self.filled_by_trigger.is_empty() { &self.table.deciding_triggers } else { &[] };
        for trigger in known {
            self.remarks.push(format!(
                "CHOOSE: the trigger `{trigger}` can fill or change columns; name those in `triggers: {{ column: fills }}`, or `changes`"
            ));
        }
    }

    /// Takes the UUIDs of legacy keys as the key, if the key is a UUID that neither the source nor a default of production fills. Production's
    /// default has the same effect.
    fn find_uuid(&mut self) {
        let (Key::Source, [key]) = (&self.key, self.table.primary_key.as_slice()) else { return };
        let is_uuid = self.table.column(key).is_some_and(|column| column.form == LogicalType::Uuid);
        if let Some(at) =
            self.needed.iter().position(|(name, candidates)| name == key && candidates.is_empty() && is_uuid)
        {
            self.needed.remove(at);
            self.key = Key::Uuid(key.clone());
        }
    }

    /// Takes required columns without any candidate as those that the table's trigger fills, if it has a single one.
    fn find_trigger(&mut self) {
        if self.table.deciding_triggers.len() != 1 {
            return;
        }
        let table = self.table;
        let is_open = |(name, candidates): &(String, Vec<String>)| {
            let column = table.column(name);
            candidates.is_empty() && column.is_some_and(|column| column.not_null && !column.has_default)
        };
        let (filled, needed) = std::mem::take(&mut self.needed).into_iter().partition(is_open);
        self.needed = needed;
        self.filled_by_trigger = filled.into_iter().map(|(name, _): (String, Vec<String>)| name).collect();
    }

    /// Returns whether a column takes the values of a source column as they are.
    pub(super) fn takes_unchanged(&self, column: &str, source: &str) -> bool {
        match self.columns.iter().find(|line| line.column == column) {
            Some(line) => line.sql == sql_name(source),
            None => column == source,
        }
    }

    fn composite_references(&mut self) {
        let fills_part = |one: &Relationship, key: &ForeignKey| {
            one.to == key.to && !one.from.is_empty() && key.columns.contains(&one.column)
        };
        let is_open =
            |key: &&ForeignKey| key.columns.len() > 1 && !self.relationships.iter().any(|one| fills_part(one, key));
        for key in self.table.foreign_keys.iter().filter(is_open) {
            let columns = key.columns.join(", ");
            self.remarks.push(format!(
                "CHOOSE: ({columns}) refers to `{to}` by several columns; unless the source has production's values, add to `relationships`: \
                 `{{ column: [{columns}], from: [its legacy key], to: {to} }}`",
                to = key.to
            ));
        }
    }

    /// Infers the draft from the schema, names, and values.
    async fn infer_from_files(&mut self, sample: &Sample, facts: &DeltaFacts<'_, 'a>, probe: &Probe<'_>) {
        let mut used: BTreeSet<String> = BTreeSet::new();
        self.single_legacy_key(sample);
        let (relationships, own) = References { draft: self, sample, facts, probe }.infer().await;
        used.extend(relationships.iter().flat_map(|reference| reference.from.iter().cloned()));
        self.relationships = relationships;
        self.composite_references();
        self.composite_legacy_key(sample);
        used.extend(self.legacy_key.iter().cloned());
        for (column, source, to) in own {
            used.insert(source.clone());
            if column == source {
                self.own_keys.push(column);
            } else {
                let guess = Some(format!("the values are production's own keys of `{to}`"));
                self.columns.push(ColumnLine { sql: sql_name(&source), column, guess });
            }
        }
        self.fill(sample, &mut used);
        self.find_uuid();
        self.find_trigger();
        self.triggers();
        let text = |name: &String| sample.is_text(name);
        for name in self.relationships.iter().flat_map(|reference| &reference.from).filter(|name| text(name)) {
            self.null_values.extend(sample.null_texts(name));
        }
        self.ignore = sample
            .names()
            .into_iter()
            .filter(|name| !used.contains(*name) && !self.is_candidate(name))
            .map(ToOwned::to_owned)
            .collect();
    }

    /// Returns whether a source column may fill an open column. It is not ignored then, so that the user decides.
    fn is_candidate(&self, name: &str) -> bool {
        let names = |names: &[String]| names.iter().any(|other| other == name);
        let references = self.relationships.iter().filter(|reference| reference.from.is_empty());
        self.needed.iter().any(|(_, candidates)| names(candidates))
            || references.into_iter().any(|reference| names(&reference.candidates))
            || (self.legacy_key.is_empty() && names(&self.legacy_choices))
    }

    /// Finds the source column that identifies records, unless the key of the table is inherited.
    fn single_legacy_key(&mut self, sample: &Sample) {
        let candidates = self.unique_source_columns(sample);
        let primary_key = &self.table.primary_key;
        let is_part_of_key =
            |name: &str| primary_key.iter().any(|column| alike(name, column, &self.table.name) >= Some(Alike::Words));
        let is_certain = |(score, name): &(u32, &str)| *score > 1 && !is_part_of_key(name);
        if matches!(self.key, Key::Inherited(_))
            || (primary_key.len() > 1 && !candidates.first().is_some_and(is_certain))
        {
            // A table with a composite key may have a composite legacy key as well.
            return;
        }
        self.choose_legacy_key(candidates);
    }

    fn choose_legacy_key(&mut self, candidates: Vec<(u32, &str)>) {
        let mut names = candidates.into_iter().map(|(_, name)| name.to_owned());
        self.legacy_key = names.next().into_iter().collect();
        self.legacy_choices = names.filter(|name| is_key(name)).collect();
    }

    /// Returns the source columns that identify records, the most likely first.
    fn unique_source_columns<'s>(&self, sample: &'s Sample) -> Vec<(u32, &'s str)> {
        let table = table_words(&self.table.name);
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
        candidates
    }

    /// Finds the columns that together identify records, if no single column does or the key is inherited.
    fn composite_legacy_key(&mut self, sample: &Sample) {
        if !self.legacy_key.is_empty() {
            return;
        }
        let parts = self.table.primary_key.iter().map(|column| {
            let reference = self.relationships.iter().find(|reference| reference.fills(column));
            let from =
                reference.and_then(|reference| match (reference.from.first(), reference.candidates.as_slice()) {
                    (Some(from), _) | (None, [from]) => Some(from.clone()),
                    _ => None,
                });
            from.or_else(|| best(sample, column, &self.table.name).map(ToOwned::to_owned))
        });
        let parts: Option<Vec<String>> = parts.collect();
        let parts = parts.filter(|parts| !parts.is_empty());
        let is_unique =
            |parts: &Vec<String>| sample.identify_rows(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        match parts.filter(is_unique) {
            Some(parts) => self.legacy_key = parts,
            None => {
                if let Some(parts) = self.numbered_part(sample) {
                    self.legacy_key = parts;
                    return;
                }
                let candidates = self.unique_source_columns(sample);
                self.choose_legacy_key(candidates);
            }
        }
    }

    /// Returns the reference to a parent and the number within it that together identify records, such as an order and its line.
    fn numbered_part(&self, sample: &Sample) -> Option<Vec<String>> {
        let is_alone = |names: &[String]| names.len() == 1;
        let parents = self.relationships.iter().filter(|one| is_alone(&one.from)).map(|one| &one.from[0]);
        // Parents that are part of the key come first.
        let is_other =
            |name: &&String| !self.table.primary_key.iter().any(|key| alike(name, key, &self.table.name).is_some());
        let mut parents: Vec<&String> = parents.collect();
        parents.sort_by_key(is_other);
        let is_free = |name: &&str| !self.relationships.iter().any(|one| one.from.iter().any(|from| from == name));
        let numbers: Vec<&str> = sample.names().into_iter().filter(is_free).filter(|name| is_position(name)).collect();
        let pairs = parents.into_iter().flat_map(|parent| numbers.iter().map(move |number| (parent, *number)));
        let found = pairs.into_iter().find(|(parent, number)| sample.identify_rows(&[parent.as_str(), number]));
        found.map(|(parent, number)| vec![parent.clone(), number.to_owned()])
    }

    /// Finds a source column for each column that is neither a key nor a reference.
    fn fill(&mut self, sample: &Sample, used: &mut BTreeSet<String>) {
        let mut open: Vec<&CatalogColumn> = self.table.columns.iter().filter(|column| self.is_open(column)).collect();
        let mut lines: BTreeMap<String, ColumnLine> =
            std::mem::take(&mut self.columns).into_iter().map(|line| (line.column.clone(), line)).collect();
        for level in [Alike::Same, Alike::Case, Alike::Words, Alike::Part] {
            for (column, name) in self.matches(sample, &open, used, level) {
                let line = self.line(sample, &name, column, level);
                lines.insert(column.name.clone(), line);
                used.insert(name);
            }
            open.retain(|column| !lines.contains_key(&column.name));
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
        let ordered = self.table.columns.iter().filter_map(|column| lines.remove(&column.name));
        self.columns = ordered.filter(|line| !is_plain(line) || line.guess.is_some()).collect();
    }

    /// Returns whether a column is filled neither by production, nor by the key, nor by a reference, even if the reference is undecided.
    fn is_open(&self, column: &CatalogColumn) -> bool {
        let is_assigned = matches!(&self.key, Key::Assigned(key, _) if *key == column.name);
        let is_reference = self.relationships.iter().any(|reference| reference.fills(&column.name));
        let is_filled = self.columns.iter().any(|line| line.column == column.name);
        !column.generated && !is_assigned && !is_reference && !is_filled
    }

    /// Returns the columns that exactly one source column matches at a level, with that source column, which matches no other column.
    fn matches<'c>(
        &self,
        sample: &Sample,
        open: &[&'c CatalogColumn],
        used: &BTreeSet<String>,
        level: Alike,
    ) -> Vec<(&'c CatalogColumn, String)> {
        // A source column with the same name can be used again, any other only once.
        let is_key = |name: &str| level != Alike::Part && self.legacy_key.iter().any(|key| key == name);
        let is_free = |name: &&str| level == Alike::Same || !used.contains(*name) || is_key(name);
        let candidates = |column: &CatalogColumn| -> Vec<&str> {
            let like = |name: &&str| {
                alike(name, &column.name, &self.table.name) == Some(level)
                    && (level != Alike::Part || is_readable(sample, name, column))
            };
            sample.names().into_iter().filter(is_free).filter(like).collect()
        };
        let all: Vec<(&CatalogColumn, Vec<&str>)> = open.iter().map(|column| (*column, candidates(column))).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        all.iter().flat_map(|(_, names)| names).for_each(|name| *counts.entry(*name).or_default() += 1);
        let single = all.iter().filter_map(|(column, names)| match names.as_slice() {
            [name] if counts[name] == 1 => Some((*column, (*name).to_owned())),
            _ => None,
        });
        single.collect()
    }

    /// Records a column that no source column fills.
    fn leave_open(&mut self, column: &CatalogColumn, sample: &Sample, used: &BTreeSet<String>) {
        let names = sample.names().into_iter().filter(|name| !used.contains(*name));
        let is_candidate = |name: &&str| {
            alike(name, &column.name, &self.table.name).is_some()
                || (resembles(name, &column.name) && is_readable(sample, name, column))
        };
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
        let guess = match level {
            Alike::Part | Alike::Word => Some(format!("`{name}` matches a part of the name")),
            Alike::Words => Some("the names have the same words".to_owned()),
            Alike::Case => Some("the names differ in case".to_owned()),
            Alike::Same => None,
        };
        let guess = match (guess, remark) {
            (Some(guess), Some(remark)) => Some(format!("{guess}; {remark}")),
            (guess, remark) => guess.or(remark),
        };
        ColumnLine { column: column.name.clone(), sql, guess }
    }
}

/// Returns whether the values of a source column can be read as the type of a column.
fn is_readable(sample: &Sample, name: &str, column: &CatalogColumn) -> bool {
    let is_boolean = column.data_type == DataType::Boolean;
    sample.notation(name, &column.data_type) != Notation::Unknown && (!is_boolean || sample.is_flag(name))
}

/// Infers the origin of a table's keys.
fn key(table: &CatalogTable, facts: &DeltaFacts<'_, '_>) -> Key {
    let refers = |column: &String| table.references().any(|key| key.columns == [column.clone()]);
    let is_serial = |column: &&String| table.serials.contains(*column) && !refers(column);
    let serials: Vec<&String> = table.primary_key.iter().filter(is_serial).collect();
    if let ([column], true) = (serials.as_slice(), table.primary_key.len() > 1) {
        // The number of the row itself, beside the parent's key, the tenant, or the column of the partitions.
        return Key::Assigned((*column).clone(), None);
    }
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
        Some(_) if found.is_some_and(|column| column.holds_numbers() && !column.generated) => {
            Key::Assigned(column.clone(), None)
        }
        Some(DataType::Utf8) if facts.text_key.is_some() => Key::Assigned(column.clone(), facts.text_key.clone()),
        _ => Key::Source,
    }
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
