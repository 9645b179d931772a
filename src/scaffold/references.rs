//! References of a drafted table: which source column fills a foreign key, and what its values are.

use std::collections::BTreeSet;

use super::name_match::{Alike, alike, bare, is_key, part_of, relation, resembles, stem, words};
use super::probe::Probe;
use super::profile::Sample;
use super::table::{DeltaFacts, Draft, Key};
use crate::target::{CatalogColumn, CatalogTable, DatabaseCheckKind, ForeignKey};

/// The share of values, in percent, that makes an inference from values certain enough to be written.
const NEARLY_ALL: usize = 90;

/// The share of values, in percent, that supports an inference from names.
const MOST: usize = 50;

/// The score of a source column whose name has nothing in common with the reference, but whose values are legacy keys of its table.
const BY_VALUES: usize = 45;

/// An entry of `relationships`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relationship {
    pub(super) column: String,
    /// Further columns of the same reference.
    pub(super) more: Vec<String>,
    pub(super) to: String,
    /// Empty if the source columns are unknown.
    pub(super) from: Vec<String>,
    /// The column of production to look up, instead of the legacy key.
    pub(super) by: Option<String>,
    /// The reason, if the entry is a guess, or the open question.
    pub(super) remark: Option<String>,
    /// Source columns that may fill it, if `from` is empty.
    pub(super) candidates: Vec<String>,
}

impl Relationship {
    pub(super) fn open(column: &str, to: &str) -> Self {
        let (column, to) = (column.to_owned(), to.to_owned());
        Self { column, more: Vec::new(), to, from: Vec::new(), by: None, remark: None, candidates: Vec::new() }
    }
}

impl Relationship {
    /// Returns whether the reference fills a column.
    pub(super) fn fills(&self, column: &str) -> bool {
        self.column == column || self.more.iter().any(|more| more == column)
    }
}

/// The meaning of a source column's values for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    /// Legacy keys of the referenced table, with the evidence in words.
    LegacyKeys(String),
    /// Values of a unique column of the referenced table.
    Unique(String),
    /// Production's own keys.
    OwnKeys,
    /// Values of a column of the referenced table that is not unique.
    NotUnique(String),
    /// No value at all.
    Empty,
    /// Values that were found nowhere.
    Unknown,
}

/// A source column that may fill a reference.
struct Candidate {
    key: usize,
    name: String,
    score: usize,
    meaning: Meaning,
}

/// The inference of a table's references.
pub(super) struct References<'r, 'a> {
    pub(super) draft: &'r Draft<'a>,
    pub(super) sample: &'r Sample,
    pub(super) facts: &'r DeltaFacts<'r, 'a>,
    pub(super) probe: &'r Probe<'r>,
}

impl<'a> References<'_, 'a> {
    /// Returns the entries of `relationships`, and the foreign keys whose source columns contain production's own keys, each with its
    /// source column.
    pub(super) async fn infer(&self) -> (Vec<Relationship>, Vec<(String, String, String)>) {
        let mut keys: Vec<&ForeignKey> = Vec::new();
        for key in self.draft.table.references().filter(|key| key.columns.len() == 1) {
            if !keys.iter().any(|other| other.columns == key.columns) {
                keys.push(key);
            }
        }
        let position =
            |key: &&ForeignKey| self.draft.table.columns.iter().position(|column| column.name == key.columns[0]);
        keys.sort_by_key(position);
        let mut candidates = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            candidates.extend(self.candidates(at, key).await);
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.score));
        let mut own: Vec<(String, String, String)> = Vec::new();
        let mut relationships: Vec<Option<Relationship>> = vec![None; keys.len()];
        let mut used: BTreeSet<&str> = BTreeSet::new();
        let mut decided: BTreeSet<usize> = BTreeSet::new();
        for candidate in &candidates {
            let (at, key) = (candidate.key, keys[candidate.key]);
            if decided.contains(&at) || used.contains(candidate.name.as_str()) {
                continue;
            }
            decided.insert(at);
            let rivals = candidates.iter().filter(|other| other.key == at && other.score == candidate.score);
            let rivals: Vec<_> = rivals.map(|other| &other.name).filter(|name| !used.contains(name.as_str())).collect();
            let mut relationship = Relationship::open(&key.columns[0], &key.to);
            if let [first, second, ..] = rivals.as_slice() {
                relationship.remark = Some(format!("`{first}` or `{second}`?"));
                relationship.candidates = rivals.into_iter().cloned().collect();
                relationships[at] = Some(relationship);
                continue;
            }
            if self.is_own(candidate, key) {
                own.push((key.columns[0].clone(), candidate.name.clone(), key.to.clone()));
            } else {
                self.decide(&mut relationship, candidate);
                relationships[at] = Some(relationship);
            }
            used.insert(&candidate.name);
        }
        for (at, key) in keys.iter().enumerate().filter(|(at, _)| !decided.contains(at)) {
            relationships[at] = Some(self.left_open(key, &used));
        }
        let mut relationships: Vec<Relationship> = relationships.into_iter().flatten().collect();
        for key in self.draft.table.references().filter(|key| key.columns.len() > 1) {
            let taken = |name: &str| used.contains(name);
            let found = self.by_several(key, &relationships, &own, taken).await;
            relationships.extend(found);
        }
        own.sort_by_key(|(column, _, _)| keys.iter().position(|key| key.columns[0] == *column));
        (relationships, own)
    }

    /// Returns the entry of a foreign key of several columns, if one source column has legacy keys of the referenced table. It fills the
    /// columns that nothing else fills.
    async fn by_several(
        &self,
        key: &ForeignKey,
        before: &[Relationship],
        own: &[(String, String, String)],
        taken: impl Fn(&str) -> bool,
    ) -> Option<Relationship> {
        let is_filled = |column: &String| {
            before.iter().any(|one| !one.from.is_empty() && one.fills(column))
                || own.iter().any(|(own, ..)| own == column)
        };
        let open: Vec<&String> = key.columns.iter().filter(|column| !is_filled(column)).collect();
        let (first, more) = open.split_first()?;
        let to = (self.facts.production)(&key.to)?;
        let mut found = Relationship::open(first, &key.to);
        found.more = more.iter().map(|column| (*column).clone()).collect();
        if let Some((sample, parts)) = self.legacy_key_of_several(&key.to) {
            let within = self.sample.percent_of_rows_within(parts, sample, parts);
            if within < NEARLY_ALL {
                return None;
            }
            found.from = parts.to_vec();
            found.remark =
                Some(format!("GUESS: {within} % of the values are legacy keys of `{}` in the delta", key.to));
            return Some(found);
        }
        let is_new = |name: &&str| self.is_free(name, first) && !taken(name) && self.is_telling(name);
        for name in self.sample.names().into_iter().filter(is_new) {
            let (within, values) = (self.within_delta(name, &key.to), self.sample.present(name));
            let evidence = match () {
                () if values.is_empty() || self.draft.table.column(name).is_some() => continue,
                () if within >= NEARLY_ALL => {
                    format!("{within} % of the values are legacy keys of `{}` in the delta", key.to)
                }
                () => match self.probe.in_key_map(to, &values).await {
                    earlier if earlier >= NEARLY_ALL => {
                        format!("{earlier} % of the values are legacy keys of earlier runs")
                    }
                    _ => continue,
                },
            };
            found.from = vec![name.to_owned()];
            found.remark = Some(format!("GUESS: {evidence}"));
            return Some(found);
        }
        None
    }

    /// Returns the sample of another table whose legacy key has several columns, and these columns, if this source has them too.
    fn legacy_key_of_several(&self, to: &str) -> Option<(&'a Sample, &[String])> {
        let parent = self.facts.drafted.get(to)?;
        let names = self.sample.names();
        let has_all =
            parent.legacy_key.len() > 1 && parent.legacy_key.iter().all(|part| names.contains(&part.as_str()));
        let files = parent.files.filter(|_| has_all)?;
        Some((&files.sample, &parent.legacy_key))
    }

    /// Returns whether a foreign key is filled with production's own keys.
    fn is_own(&self, candidate: &Candidate, key: &ForeignKey) -> bool {
        let is_named_so = candidate.name.eq_ignore_ascii_case(&key.columns[0]);
        match candidate.meaning {
            Meaning::OwnKeys => true,
            // The foreign key becomes a check, which names the rows that it rejects.
            Meaning::Unknown => is_named_so && !self.facts.is_loaded(&key.to) && !self.has_assigned_keys(&key.to),
            Meaning::Empty => is_named_so && !self.facts.is_loaded(&key.to),
            _ => false,
        }
    }

    /// Returns whether the keys of a table are generated numbers, which have no meaning outside production.
    fn has_assigned_keys(&self, table: &str) -> bool {
        let Some(table) = (self.facts.production)(table) else { return false };
        let [key] = table.primary_key.as_slice() else { return false };
        table.column(key).is_some_and(CatalogColumn::holds_numbers)
    }

    fn decide(&self, relationship: &mut Relationship, candidate: &Candidate) {
        let name = &candidate.name;
        let written = match &candidate.meaning {
            Meaning::LegacyKeys(evidence) => format!("GUESS: {evidence}"),
            Meaning::Unique(by) => {
                relationship.by = Some(by.clone());
                format!("GUESS: the values are in `{}.{by}`", relationship.to)
            }
            Meaning::NotUnique(column) => {
                relationship.remark =
                    Some(format!("the values of `{name}` are in `{}.{column}`, which is not unique", relationship.to));
                relationship.candidates = vec![name.clone()];
                relationship.by = Some(column.clone());
                return;
            }
            _ if candidate.score < BY_VALUES => {
                relationship.remark = Some(format!("the name of `{name}` is similar"));
                relationship.candidates = vec![name.clone()];
                return;
            }
            Meaning::Empty => "GUESS: by name only, all values are NULL".to_owned(),
            _ if self.facts.is_loaded(&relationship.to) => {
                format!("GUESS: by name only, few values are legacy keys of `{}` in the delta", relationship.to)
            }
            _ => format!("GUESS: by name only, no legacy key of `{}` is known", relationship.to),
        };
        relationship.from = vec![name.clone()];
        relationship.remark = Some(written);
    }

    /// Returns the entry of a reference that no source column fills, with the columns that may.
    fn left_open(&self, key: &ForeignKey, used: &BTreeSet<&str>) -> Relationship {
        let column = &key.columns[0];
        let mut relationship = Relationship::open(column, &key.to);
        let names = self.sample.names().into_iter().filter(|name| !used.contains(name) && self.is_free(name, column));
        let resembles = |name: &&str| {
            resembles(name, column)
                || resembles(name, relation(&key.to))
                || self.within_delta(name, &key.to) >= NEARLY_ALL
        };
        relationship.candidates = names.filter(resembles).map(ToOwned::to_owned).collect();
        relationship.remark = Some(match relationship.candidates.as_slice() {
            [] => "no matching source column found".to_owned(),
            names => format!("possibly from {}", crate::engine::list(names)),
        });
        if let Some(parent) = self.facts.drafted.get(&key.to).filter(|parent| parent.legacy_key.len() > 1) {
            relationship.remark = Some(format!(
                "the legacy key of `{}` has {} columns; name as many in `from`",
                key.to,
                parent.legacy_key.len()
            ));
        }
        relationship
    }

    /// Rates the source columns for a reference by their names and values.
    async fn candidates(&self, at: usize, key: &ForeignKey) -> Vec<Candidate> {
        let (column, to) = (&key.columns[0], &key.to);
        let parent_key = self.facts.drafted.get(to).map(|parent| parent.legacy_key.as_slice()).unwrap_or_default();
        if parent_key.len() > 1 {
            return Vec::new();
        }
        let is_self = *to == self.draft.table.name;
        let is_only = self.draft.table.references().filter(|other| other.to == *to).count() == 1;
        let names: Vec<&str> = self.sample.names().into_iter().filter(|name| self.is_free(name, column)).collect();
        let mut candidates = Vec::new();
        for name in names {
            let mut score = likeness(name, column, to, parent_key.first().filter(|_| !is_self));
            if score == 0 && is_only && !is_self && stem(name) == words(relation(to)) {
                score = 50;
            }
            let within = self.within_delta(name, to);
            if self.sample.is_flag(name) && within < 100 && score < 100 {
                continue;
            }
            if score == 0 && within >= NEARLY_ALL && self.is_telling(name) {
                score = BY_VALUES;
            }
            let is_by_name = score == 0 && self.names_unique(name, key);
            if is_by_name {
                score = 70;
            }
            if score == 0 {
                continue;
            }
            let meaning = self.meaning(name, key, within).await;
            if is_by_name && !matches!(meaning, Meaning::Unique(_)) {
                continue;
            }
            let bonus = match meaning {
                Meaning::LegacyKeys(_) | Meaning::Unique(_) | Meaning::OwnKeys => 20,
                Meaning::NotUnique(_) => 10,
                Meaning::Empty | Meaning::Unknown => 0,
            };
            candidates.push(Candidate { key: at, name: name.to_owned(), score: score + bonus, meaning });
        }
        candidates
    }

    /// Returns whether a source column may fill a foreign key: it is neither the record's own key nor named as another column.
    fn is_free(&self, name: &str, column: &str) -> bool {
        let table = self.draft.table;
        let is_own_key = self.draft.legacy_key == [name.to_owned()];
        let is_assigned = matches!(&self.draft.key, Key::Assigned(key, _) if key.eq_ignore_ascii_case(name));
        let named = table.column(name).or_else(|| {
            let mut alike =
                table.columns.iter().filter(|other| alike(name, &other.name, &table.name) == Some(Alike::Case));
            alike.next().filter(|_| alike.next().is_none())
        });
        !is_own_key && !is_assigned && named.is_none_or(|named| named.name == column)
    }

    /// Returns the share of a source column's values that are legacy keys of a table in the delta.
    fn within_delta(&self, name: &str, to: &str) -> usize {
        match self.facts.legacy_keys(self.draft, self.sample, to) {
            Some((sample, key)) => self.sample.percent_within(name, &sample.distinct(key)),
            None => 0,
        }
    }

    /// Returns whether the values of a source column can hardly be legacy keys by chance.
    fn is_telling(&self, name: &str) -> bool {
        let values = self.sample.present(name);
        let is_number = values.iter().all(|value| value.parse::<i64>().is_ok());
        values.len() > 20 || !is_number || is_key(name)
    }

    /// Returns whether a source column is named after a unique column of the referenced table: `badge_no`, or `area_gid` for the `gid` of
    /// the column `area`.
    fn names_unique(&self, name: &str, key: &ForeignKey) -> bool {
        let Some(to) = (self.facts.production)(&key.to) else { return false };
        let ours = words(name);
        let is_named = |by: &String| {
            let full = |before: Vec<String>| before.into_iter().chain(words(by)).collect::<Vec<_>>() == ours;
            let column = &key.columns[0];
            alike(name, by, &to.name) >= Some(Alike::Words) || full(words(column)) || full(stem(column))
        };
        unique_columns(to).any(is_named)
    }

    /// Finds out what the values of a source column are.
    async fn meaning(&self, name: &str, key: &ForeignKey, within: usize) -> Meaning {
        let values = self.sample.present(name);
        if values.is_empty() {
            return Meaning::Empty;
        }
        let Some(to) = (self.facts.production)(&key.to) else { return Meaning::Unknown };
        if self.is_own_or_new(name, key, to).await {
            return Meaning::OwnKeys;
        }
        if within >= NEARLY_ALL {
            return Meaning::LegacyKeys(format!(
                "{within} % of the values are legacy keys of `{}` in the delta",
                key.to
            ));
        }
        let own = match key.to_columns.as_slice() {
            [column] => self.probe.in_column(to, column, &values).await,
            _ => 0,
        };
        let is_named_so = name.eq_ignore_ascii_case(&key.columns[0]);
        let earlier = self.probe.in_key_map(to, &values).await;
        if earlier >= MOST && earlier >= own {
            return Meaning::LegacyKeys(format!("{earlier} % of the values are legacy keys of earlier runs"));
        }
        if own >= NEARLY_ALL && is_named_so {
            return Meaning::OwnKeys;
        }
        for by in unique_columns(to).filter(|by| !key.to_columns.contains(by)) {
            if self.probe.in_column(to, by, &values).await >= NEARLY_ALL {
                return Meaning::Unique(by.clone());
            }
        }
        if own >= NEARLY_ALL {
            return Meaning::OwnKeys;
        }
        if within >= MOST {
            return Meaning::LegacyKeys(format!(
                "{within} % of the values are legacy keys of `{}` in the delta",
                key.to
            ));
        }
        match self.without_index(to, &values).await {
            Some(column) => Meaning::NotUnique(column),
            None => Meaning::Unknown,
        }
    }

    /// Returns whether the rows of the referenced table bring their keys, and the values are such keys of the delta or of production. The
    /// foreign key finds both.
    async fn is_own_or_new(&self, name: &str, key: &ForeignKey, to: &'a CatalogTable) -> bool {
        let ([to_column], Some(parent)) = (key.to_columns.as_slice(), self.facts.drafted.get(&key.to)) else {
            return false;
        };
        let Some((sample, source)) = self.facts.legacy_keys(self.draft, self.sample, &key.to) else { return false };
        if parent.key != Key::Source || !parent.takes_unchanged(to_column, source) {
            return false;
        }
        let (values, new) = (self.sample.present(name), sample.distinct(source));
        let old: BTreeSet<&str> = values.iter().copied().filter(|value| !new.contains(value)).collect();
        let known = self.probe.in_column(to, to_column, &old).await * old.len() / 100;
        (values.len() - old.len() + known) * 100 >= values.len() * NEARLY_ALL
    }

    /// Returns a text column of production without a unique index that has nearly all of these values.
    async fn without_index(&self, to: &'a CatalogTable, values: &BTreeSet<&str>) -> Option<String> {
        if values.iter().all(|value| value.parse::<f64>().is_ok()) {
            return None;
        }
        let is_text = |column: &&crate::target::CatalogColumn| column.data_type == arrow::datatypes::DataType::Utf8;
        for column in to.columns.iter().filter(is_text).take(4) {
            if self.probe.in_first_rows(to, &column.name, values).await >= NEARLY_ALL {
                return Some(column.name.clone());
            }
        }
        None
    }
}

/// Returns the columns of a table that are unique alone and in all rows, without its key.
fn unique_columns(table: &CatalogTable) -> impl Iterator<Item = &String> {
    let uniques = table.uniques.iter().filter(|unique| unique.columns.len() == 1 && unique.condition.is_none());
    // Of types whose equality only production knows, such as `citext`.
    let evaluated =
        table.database_checks.iter().filter(|check| check.part.is_none()).filter_map(|check| match &check.kind {
            DatabaseCheckKind::Unique { values, condition: None, .. } => match values.as_slice() {
                [one] => one.column.as_ref(),
                _ => None,
            },
            _ => None,
        });
    uniques.filter_map(|unique| unique.columns.first()).chain(evaluated)
}

/// Rates by name, from 0 to 100, how likely a source column contains the reference of a column.
fn likeness(source: &str, column: &str, to: &str, parent_key: Option<&String>) -> usize {
    let to = relation(to);
    let (ours, theirs, table) = (stem(source), stem(column), words(to));
    if source.eq_ignore_ascii_case(column) {
        return 100;
    }
    if ours == theirs {
        return 90;
    }
    if bare(source) == bare(column) {
        return 85;
    }
    // The name in the parent table, unless the column has another role, such as `parent_account_id`.
    if theirs == table || part_of(&theirs, &table) {
        if parent_key.is_some_and(|key| key == source) {
            return 85;
        }
        if ours == table || part_of(&ours, &table) || bare(source) == bare(to) {
            return 70;
        }
    }
    if part_of(&ours, &theirs) && ours != table && is_key(source) {
        return 60;
    }
    if parent_key.is_some_and(|key| key == source) { 40 } else { 0 }
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
        assert_eq!(likeness("shipmethod", "shipmethodid", "shipmethod", None), 85);
        assert_eq!(likeness("status", "account_id", "account", Some(&key)), 0);
    }
}
