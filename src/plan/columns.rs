//! The sources of target columns, keys, and references.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, SchemaRef};

use super::{Column, ColumnSource, Key, Reference, ReferenceCondition};
use crate::diagnostic::{Path, Problems};
use crate::engine::{Engine, ident, list, literal, uuid_namespace};
use crate::path;
use crate::source::setting;
use crate::spec::{KeySpec, RelationshipSpec, StartRowNumber, TableSpec, TriggerEffect, UuidVersion};
use crate::target::{Catalog, CatalogColumn, CatalogTable, LogicalType, SequenceUse, TextKey};

/// Returns whether a cast keeps the meaning of values. A number has no unit, so it cannot become a time; a time with a
/// zone cannot become one without.
fn castable(from: &DataType, to: &DataType) -> bool {
    use DataType::{LargeUtf8, Null, Time32, Time64, Timestamp, Utf8, Utf8View};
    let text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    match (from, to) {
        _ if from == to || *from == Null => true,
        _ if text(from) || text(to) => can_cast_types(from, to),
        // Without a zone, and without one that the user sets, the rows are rejected.
        (Timestamp(..), Timestamp(_, Some(_))) => true,
        (_, Timestamp(_, Some(_))) | (Timestamp(_, Some(_)), _) | (Timestamp(..), Time32(_) | Time64(_)) => false,
        _ if from.is_numeric() && to.is_temporal() || from.is_temporal() && to.is_numeric() => false,
        _ => can_cast_types(from, to) && can_cast_types(to, from),
    }
}

/// Joins SQL expressions by `|`, in brackets that keep the expression shallow.
fn joined(parts: &[String]) -> String {
    match parts {
        [] => "''".to_owned(),
        [one] => one.clone(),
        _ => {
            let (first, second) = parts.split_at(parts.len() / 2);
            format!("({} || '|' || {})", joined(first), joined(second))
        }
    }
}

/// Returns SQL for source columns as one text; several columns are joined by `|`.
pub(super) fn text_of(columns: &[String]) -> String {
    match columns {
        [one] => text(one),
        // `||` is NULL if a part is NULL.
        several => joined(&several.iter().map(|name| part(name)).collect::<Vec<_>>()),
    }
}

/// Returns SQL for source columns as one text that is NULL only if all of them are. A part that is NULL becomes a text that no part of a
/// legacy key is.
fn reference_text(columns: &[String]) -> String {
    let [_, _, ..] = columns else { return text_of(columns) };
    let none: Vec<_> = columns.iter().map(|name| format!("{} IS NULL", ident(name))).collect();
    let parts: Vec<_> = columns.iter().map(|name| format!("coalesce({}, '{HALF}')", part(name))).collect();
    format!("CASE WHEN {} THEN NULL ELSE {} END", none.join(" AND "), joined(&parts))
}

/// A part of a reference that is NULL. Escaped, no part has it.
const HALF: &str = "\\N";

fn text(name: &str) -> String {
    format!("CAST({} AS VARCHAR)", ident(name))
}

/// Returns SQL for a part of a text, without the separator.
fn part(name: &str) -> String {
    format!("replace(replace({}, '\\', '\\\\'), '|', '\\|')", text(name))
}

/// A table that is being compiled.
pub(super) struct Builder<'a> {
    pub(super) engine: &'a Engine,
    pub(super) catalog: &'a Catalog,
    pub(super) spec: &'a TableSpec,
    pub(super) table: &'a Arc<CatalogTable>,
    pub(super) source: &'a SchemaRef,
    pub(super) at: Path,
    pub(super) used: BTreeSet<String>,
    /// Whether a name or an expression is wrong, so that the used source columns are unknown.
    pub(super) uncertain: bool,
    /// Columns of production that nothing fills.
    pub(super) unfilled: Vec<String>,
}

impl Builder<'_> {
    pub(super) fn at(&self, more: Path) -> Path {
        self.at.iter().cloned().chain(more).collect()
    }

    fn no_such_column(&self, problems: &mut Problems, at: Path, name: &str) {
        let valid: Vec<_> =
            self.table.columns.iter().filter(|column| !column.generated).map(|column| &column.name).collect();
        problems.add_with_hint(
            at,
            format!("production's `{}` has no column `{name}`", self.table.name),
            format!("its columns are {}", list(&valid)),
        );
    }

    /// Returns SQL that reads source columns as one text; several columns are joined by `|`.
    pub(super) fn one_text(
        &mut self,
        problems: &mut Problems,
        at: &Path,
        columns: &[String],
        as_text: fn(&[String]) -> String,
    ) -> String {
        for name in columns {
            if self.source.field_with_name(name).is_err() {
                self.uncertain = true;
                let valid: Vec<_> = self.source.fields().iter().map(|field| field.name()).collect();
                problems.add_with_hint(
                    at.clone(),
                    format!("the source has no column `{name}`"),
                    format!("its columns are {}", list(&valid)),
                );
            }
            self.used.insert(name.clone());
        }
        as_text(columns)
    }

    pub(super) fn references(&mut self, problems: &mut Problems) -> Vec<Reference> {
        let mut references = Vec::new();
        for (index, spec) in self.spec.relationships.iter().enumerate() {
            let at = self.at(path!["relationships", index]);
            let inside = |field: &str| at.iter().cloned().chain([field.to_owned()]).collect::<Path>();
            for column in spec.column.iter() {
                if self.table.column(column).is_none_or(|column| column.generated) {
                    self.no_such_column(problems, inside("column"), column);
                }
            }
            let Some(to) = self.catalog.table(&spec.to) else {
                problems.add_with_hint(
                    inside("to"),
                    format!("production has no table `{}`", spec.to),
                    format!("its tables are {}", list(&self.catalog.names())),
                );
                continue;
            };
            let (by, condition) = (spec.by.clone().unwrap_or_default(), self.condition(problems, &at, spec, to));
            Self::check_by(problems, &at, spec, to);
            let Some(give) = self.given(problems, &at, spec, to) else { continue };
            let from = if spec.from.is_empty() { spec.column.0.clone() } else { spec.from.clone() };
            let parts = from.len();
            let from = self.one_text(problems, &inside("from"), &from, reference_text);
            let first = references.len();
            for (column, give) in spec.column.iter().zip(give) {
                references.push(Reference {
                    column: column.clone(),
                    from: from.clone(),
                    parts,
                    to: spec.to.clone(),
                    parent: None,
                    by: by.0.clone(),
                    condition: condition.clone(),
                    give,
                    first,
                });
            }
        }
        references
    }

    /// Adds problems for the columns of `by`.
    fn check_by(problems: &mut Problems, at: &Path, spec: &RelationshipSpec, to: &CatalogTable) {
        let Some(by) = &spec.by else { return };
        let inside = |field: &str| at.iter().cloned().chain([field.to_owned()]).collect::<Path>();
        for name in by.iter().filter(|name| to.column(name).is_none()) {
            let valid: Vec<_> = to.columns.iter().map(|column| &column.name).collect();
            problems.add_with_hint(
                inside("by"),
                format!("production's `{}` has no column `{name}`", to.name),
                format!("its columns are {}", list(&valid)),
            );
        }
        let from = if spec.from.is_empty() { spec.column.len() } else { spec.from.len() };
        if from != by.len() {
            let columns = |count: usize| if count == 1 { "1 column".to_owned() } else { format!("{count} columns") };
            problems.add_with_hint(
                inside("from"),
                format!("{} in `from`, but {} in `by`", columns(from), columns(by.len())),
                "list the source columns with the values of `by`, in its order",
            );
        }
    }

    /// Returns the condition on referenced rows.
    fn condition(
        &self,
        problems: &mut Problems,
        at: &Path,
        spec: &RelationshipSpec,
        to: &CatalogTable,
    ) -> Option<ReferenceCondition> {
        let sql = spec.r#where.clone()?;
        let at: Path = at.iter().cloned().chain(["where".to_owned()]).collect();
        match self.engine.expression(&sql, &to.schema()) {
            Ok(found) if *found.data_type() == DataType::Boolean => {
                return Some(ReferenceCondition { columns: found.columns().to_vec(), sql });
            }
            // Without a target, the columns are unknown.
            _ if self.catalog.guessed => {}
            Ok(_) => problems.add_with_hint(at, "`where` is not a boolean expression", "write a comparison"),
            Err(mistake) => problems.add_with_hint(at, mistake.message, mistake.hint),
        }
        None
    }

    /// Returns the columns of the referenced table whose values fill the columns of a reference.
    fn given(
        &self,
        problems: &mut Problems,
        at: &Path,
        spec: &RelationshipSpec,
        to: &CatalogTable,
    ) -> Option<Vec<String>> {
        let keys = self.table.foreign_keys.iter().filter(|key| key.to == spec.to);
        // The foreign key with these columns, and else one with further columns, which are filled by other means.
        let mut keys: Vec<_> =
            keys.filter(|key| spec.column.iter().all(|column| key.columns.contains(column))).collect();
        keys.sort_by_key(|key| key.columns.len());
        if let Some(key) = keys.first() {
            let paired = |column: &String| {
                let place = key.columns.iter().position(|name| name == column)?;
                key.to_columns.get(place).cloned()
            };
            return spec.column.iter().map(paired).collect();
        }
        if to.primary_key.len() == spec.column.len() {
            return Some(to.primary_key.clone());
        }
        if self.catalog.guessed {
            return Some(spec.column.0.clone());
        }
        let (message, hint) = match to.primary_key.as_slice() {
            [] => {
                (format!("`{}` has no primary key", to.name), "declare one, or a foreign key, in production".to_owned())
            }
            key => (
                format!("the primary key of `{}` has the columns {}", to.name, list(key)),
                format!("list a column of `{}` for each of them: `column: [{}]`", self.table.name, key.join(", ")),
            ),
        };
        let at = at.iter().cloned().chain(["to".to_owned()]).collect();
        problems.add_with_hint(at, format!("cannot resolve {}: {message}", list(&spec.column)), hint);
        None
    }

    pub(super) fn key(&mut self, problems: &mut Problems, written: &[(String, String, Path)]) -> Key {
        let Some(spec) = &self.spec.key else {
            if self.table.primary_key.is_empty() && !self.catalog.guessed {
                problems.add_with_hint(
                    self.at(vec![]),
                    format!("production's `{}` has no primary key", self.table.name),
                    "declare the key column: `key: { column: … }`",
                );
            }
            return self.inferred_key(written);
        };
        let (field, columns) = match spec.inherited.as_slice() {
            [] => ("column", spec.column.as_slice()),
            inherited => ("inherited", inherited),
        };
        for name in columns {
            if self.table.column(name).is_none_or(|column| column.generated) {
                self.no_such_column(problems, self.at(path!["key", field]), name);
            }
        }
        if spec.inherited.is_empty() {
            return self.assigned_key(problems, spec);
        }
        if !self.referring().any(|column| spec.inherited.contains(column)) {
            problems.add_with_hint(
                self.at(path!["key", "inherited"]),
                "an inherited key requires a reference among its columns",
                "add the parent's column to `relationships`",
            );
        }
        Key::Inherited(spec.inherited.clone())
    }

    /// Returns the key of a table without `key` in the file: that of the rows, unless production's own numbers fill the primary key.
    fn inferred_key(&self, written: &[(String, String, Path)]) -> Key {
        let numbered = |name: &&String| self.table.serials.contains(name) && !self.is_filled(name, written);
        let Some(column) = self.table.primary_key.iter().find(numbered) else {
            return Key::Own(self.table.primary_key.clone());
        };
        Key::Assigned {
            column: column.clone(),
            columns: self.table.identified_by(column),
            sequence: SequenceUse::default(),
            start: StartRowNumber::Auto,
            text: None,
            largest: self.largest(column, None),
        }
    }

    /// Returns the columns that references fill.
    fn referring(&self) -> impl Iterator<Item = &String> {
        self.spec.relationships.iter().flat_map(|relationship| relationship.column.iter())
    }

    /// Returns whether the file or the source fills a column.
    fn is_filled(&self, column: &str, written: &[(String, String, Path)]) -> bool {
        written.iter().any(|(name, ..)| name == column)
            || self.referring().any(|name| name == column)
            || self.spec.select.is_none() && self.source.field_with_name(column).is_ok()
    }

    /// Returns the largest number that fits a key column.
    fn largest(&self, column: &str, text: Option<&TextKey>) -> i64 {
        let column = self.table.column(column);
        match (column.map(|column| (&column.data_type, &column.form)), text) {
            (_, Some(text)) => text.largest(),
            (Some((DataType::Int16, _) | (_, LogicalType::Integer(16))), None) => i16::MAX.into(),
            (Some((DataType::Int32, _) | (_, LogicalType::Integer(32))), None) => i32::MAX.into(),
            _ => i64::MAX,
        }
    }

    /// Returns SQL for the UUID of a row, if its key is one and nothing else fills it.
    fn uuid(&self, column: &CatalogColumn, key: &Key) -> Option<String> {
        let spec = self.spec.key.clone().unwrap_or_default();
        let is_uuid = column.form == LogicalType::Uuid || spec.uuid.is_some();
        let is_key = match &spec.column {
            Some(name) => *name == column.name,
            None => spec.inherited.is_empty() && column.has_default && key.columns().contains(&column.name),
        };
        if !is_uuid || !is_key {
            return None;
        }
        let version = match spec.uuid.unwrap_or(UuidVersion::V5) {
            UuidVersion::V4 => "uuid_v4",
            UuidVersion::V5 => "uuid_v5",
            UuidVersion::V7 => "uuid_v7",
        };
        let namespace = spec.uuid_namespace.unwrap_or_else(|| uuid_namespace(&self.table.key_map));
        Some(format!("{version}({}, {})", literal(&namespace), text_of(&self.spec.legacy_key)))
    }

    fn assigned_key(&self, problems: &mut Problems, spec: &KeySpec) -> Key {
        let column = spec.column.clone().unwrap_or_default();
        let catalog = self.table.column(&column);
        let is_key = self.table.is_unique(&column) || self.table.primary_key.contains(&column);
        if catalog.is_some() && !is_key {
            problems.add_with_hint(
                self.at(path!["key", "column"]),
                format!("`{column}` is neither in the primary key of `{}` nor unique", self.table.name),
                "choose a column that identifies a row, or `inherited` for a key of several columns",
            );
        }
        self.check_sequence(problems, spec);
        let text = spec.width.map(|width| TextKey { prefix: spec.prefix.clone().unwrap_or_default(), width });
        let columns = self.table.identified_by(&column);
        if spec.uuid.is_some() || catalog.is_some_and(|column| column.form == LogicalType::Uuid) {
            self.check_uuid_type(problems, spec, catalog);
            return Key::Own(columns);
        }
        if let Some(found) = catalog {
            self.check_key_type(problems, found, text.as_ref());
        }
        let largest = self.largest(&column, text.as_ref());
        let sequence = SequenceUse { name: spec.sequence.clone(), numbers: spec.numbers };
        Key::Assigned { column, columns, sequence, start: spec.start_row_number, text, largest }
    }

    /// Adds a problem if production does not have the sequence of the keys.
    fn check_sequence(&self, problems: &mut Problems, spec: &KeySpec) {
        let Some(sequence) = spec.sequence.as_ref().filter(|_| !self.catalog.guessed) else { return };
        let at = self.at(path!["key", "sequence"]);
        match &self.catalog.sequences {
            None => problems.add_with_hint(at, "the target has no sequences", "remove `sequence`"),
            Some(known) if !known.contains(sequence) && !known.contains(&self.in_production_schema(sequence)) => {
                problems.add_with_hint(
                    at,
                    format!("production has no sequence `{sequence}`"),
                    format!("its sequences are {}", list(known)),
                );
            }
            Some(_) => {}
        }
    }

    /// Returns the name of an object in the production schema without that schema.
    fn in_production_schema(&self, name: &str) -> String {
        let schema = self.catalog.schema.as_ref().and_then(|schema| name.strip_prefix(schema)?.strip_prefix('.'));
        schema.unwrap_or(name).to_owned()
    }

    /// Adds a problem if the key column cannot contain UUIDs, or if a setting is about numbers.
    fn check_uuid_type(&self, problems: &mut Problems, spec: &KeySpec, column: Option<&CatalogColumn>) {
        let Some(CatalogColumn { name, declared, data_type, form, max_length, .. }) = column else { return };
        if *form == LogicalType::Uuid {
            let numbers = [
                ("width", spec.width.is_some()),
                ("prefix", spec.prefix.is_some()),
                ("start_row_number", spec.start_row_number != StartRowNumber::Auto),
                ("sequence", spec.sequence.is_some()),
            ];
            for (field, _) in numbers.into_iter().filter(|(_, given)| *given) {
                problems.add_with_hint(
                    self.at(path!["key", field]),
                    format!("`{name}` is {declared}; `{field}` does not apply to it"),
                    "remove it; `uuid: v5`, `v7`, or `v4` chooses the version of its keys",
                );
            }
        } else if *data_type != DataType::Utf8 || max_length.is_some_and(|most| most < 36) {
            problems.add_with_hint(
                self.at(path!["key", "uuid"]),
                format!("`{name}` is {declared}; a UUID of 36 characters does not fit"),
                "choose a column of type uuid, or a text of at least 36 characters",
            );
        }
    }

    /// Adds a problem if the key column cannot contain the assigned keys.
    fn check_key_type(&self, problems: &mut Problems, column: &CatalogColumn, text: Option<&TextKey>) {
        let CatalogColumn { name, declared, data_type, max_length, .. } = column;
        let is_text = *data_type == DataType::Utf8;
        let (field, message, hint) = match text {
            None if is_text => (
                "column",
                format!("`{name}` is text"),
                "set the length of its keys: `width: 10`, and `prefix` if they have one; or `uuid: v5` if they are UUIDs",
            ),
            None if !data_type.is_integer() => (
                "column",
                format!("`{name}` is {declared}; keys are integers or text"),
                "choose another key column, or remove `key` if rows bring their own",
            ),
            Some(_) if !is_text => (
                "width",
                format!("`{name}` is {declared}; `width` applies only to text"),
                "remove `width` and `prefix`",
            ),
            Some(text) if max_length.is_some_and(|most| text.width as u64 > most) => (
                "width",
                format!("`{name}` is {declared}; a key of {} characters does not fit", text.width),
                "set `width` to the length of production's keys",
            ),
            _ => return,
        };
        problems.add_with_hint(self.at(path!["key", field]), message, hint);
    }

    /// Returns the filled columns in the catalog's order.
    pub(super) fn columns(
        &mut self,
        problems: &mut Problems,
        written: &[(String, String, Path)],
        key: &Key,
    ) -> Vec<Column> {
        for (name, _, at) in written {
            match self.table.column(name) {
                None => self.no_such_column(problems, at.clone(), name),
                Some(column) if column.generated => {
                    problems.add_with_hint(at.clone(), format!("`{name}` is a generated column"), "remove it");
                }
                Some(_) => {}
            }
        }
        self.reserved(problems, key);
        self.triggered(problems, written, key);
        let mut columns = Vec::new();
        for column in &self.table.columns {
            let effect = self.spec.triggers.get(&column.name).copied();
            if effect == Some(TriggerEffect::Fills) {
                continue;
            }
            let expression = written.iter().find(|(name, _, _)| *name == column.name);
            let uuid = self.uuid(column, key);
            let assigned = matches!(key, Key::Assigned { column: name, .. } if *name == column.name)
                || uuid.is_some() && self.spec.key.as_ref().is_some_and(|key| key.column.is_some());
            let reference = self.referring().position(|name| *name == column.name);
            if let Some((name, _, at)) = expression.filter(|_| assigned || reference.is_some()) {
                let by = if assigned { "key" } else { "relationships" };
                problems.add_with_hint(
                    at.clone(),
                    format!("`{name}` is already filled by `{by}`"),
                    "remove one of the two",
                );
            }
            let fill = if assigned && let Some(sql) = &uuid {
                ColumnSource::Computed(sql.clone())
            } else if assigned {
                ColumnSource::Key
            } else if let Some(reference) = reference {
                ColumnSource::Reference(reference)
            } else if let Some((_, sql, at)) = expression {
                self.computed(problems, at.clone(), column, sql)
            } else if self.spec.select.is_none()
                && !column.generated
                && self.source.field_with_name(&column.name).is_ok()
            {
                self.computed(problems, self.at(path!["columns"]), column, &ident(&column.name))
            } else if let Some(sql) = uuid {
                ColumnSource::Computed(sql)
            } else if column.has_default && !self.catalog.guessed && key.columns().contains(&column.name) {
                ColumnSource::Default
            } else {
                self.not_filled(problems, column, key);
                continue;
            };
            columns.push(Column { name: column.name.clone(), data_type: column.data_type.clone(), fill });
        }
        columns
    }

    /// Records a column that nothing fills, or reports it if production requires a value.
    fn not_filled(&mut self, problems: &mut Problems, column: &CatalogColumn, key: &Key) {
        let known = |name: &String| self.table.column(name).is_some();
        let needed = column.not_null && !column.has_default && !column.generated && key.columns().iter().all(known);
        if needed && self.uncertain && self.spec.select.is_some() {
            // The invalid `select` might fill it, and its own mistake is reported.
        } else if needed {
            problems.add_with_hint(
                self.at(vec![]),
                format!("nothing fills the NOT NULL column `{}` of `{}`", column.name, self.table.name),
                self.fill_hint(&column.name),
            );
        } else if !column.generated {
            self.unfilled.push(column.name.clone());
        }
    }

    /// Returns how a NOT NULL column without a value can be filled.
    fn fill_hint(&self, name: &str) -> String {
        let hint = format!("add `{name}: <expression>` to `columns`");
        match self.table.triggers.is_empty() {
            true => hint,
            false => format!("{hint}, or, if a trigger of production fills it, `{name}: fills` to `triggers`"),
        }
    }

    /// Adds problems of the columns that triggers fill or change.
    fn triggered(&mut self, problems: &mut Problems, written: &[(String, String, Path)], key: &Key) {
        for (name, effect) in self.spec.triggers.iter() {
            let at = self.at(path!["triggers", name]);
            if self.table.column(name).is_none_or(|column| column.generated) {
                self.no_such_column(problems, at, name);
                continue;
            }
            let is_source = self.spec.select.is_none() && self.source.field_with_name(name).is_ok();
            let referring = self.spec.relationships.iter().any(|relationship| relationship.column.contains(name));
            let is_written = referring || written.iter().any(|(column, _, _)| column == name);
            let (message, hint) = match effect {
                _ if key.columns().contains(name) => {
                    (format!("`{name}` is a key column: a trigger must not decide it"), "remove it from `triggers`")
                }
                TriggerEffect::Fills if is_written => (
                    format!("`{name}` has a value from the delta, and a trigger that fills it"),
                    "write `changes`, or take the column out of `columns` and `relationships`",
                ),
                TriggerEffect::Changes if !is_written && !is_source => {
                    (format!("the delta gives `{name}` no value that a trigger could change"), "write `fills`")
                }
                _ => continue,
            };
            problems.add_with_hint(at, message, hint);
        }
    }

    /// Adds a problem if a column has a name that staging or the key map uses.
    fn reserved(&self, problems: &mut Problems, key: &Key) {
        let of_rows = |name: &str| {
            matches!(name, "_row" | "_level" | "_key") || name.starts_with("_ref_") || name.starts_with("source.")
        };
        let of_keys = |name: &str| matches!(name, "_row" | "legacy_key" | "run");
        let rows = self.table.columns.iter().map(|column| &column.name).find(|name| of_rows(name));
        if let Some(name) = rows.or_else(|| key.columns().iter().find(|name| of_keys(name))) {
            problems.add_with_hint(
                self.at(vec![]),
                format!("column `{name}` of `{}` has a reserved name of staging or the key map", self.table.name),
                "rename the column in production, or load the table by other means",
            );
        }
    }

    fn computed(&mut self, problems: &mut Problems, at: Path, column: &CatalogColumn, sql: &str) -> ColumnSource {
        match self.engine.expression(sql, self.source) {
            Ok(expression) => {
                self.used.extend(expression.columns().iter().cloned());
                let (from, to) = (expression.data_type(), &column.data_type);
                let times = matches!((from, to), (DataType::Timestamp(..), DataType::Timestamp(..)));
                let in_zone = times && setting(self.source, "timezone", &column.name).is_some();
                if !castable(from, to) && !in_zone {
                    problems.add_with_hint(
                        at,
                        format!("`{}` is {}; {from} cannot be cast to it", column.name, column.declared),
                        match times {
                            true => "set `timezone` of the source, or append `AT TIME ZONE '…'` to the expression",
                            false => "convert the value in the expression; give the unit of a number",
                        },
                    );
                }
            }
            Err(mistake) => {
                self.uncertain = true;
                problems.add_with_hint(at, format!("column `{}`: {mistake}", column.name), mistake.hint);
            }
        }
        ColumnSource::Computed(sql.to_owned())
    }

    /// Adds a problem for unused source columns, so that no data is lost silently.
    pub(super) fn unused(&self, problems: &mut Problems) {
        let ignored = |name: &String| self.spec.source.ignore.iter().any(|ignored| ignored == "*" || ignored == name);
        let unused: Vec<_> = self
            .source
            .fields()
            .iter()
            .map(|field| field.name())
            .filter(|name| !self.used.contains(*name) && !ignored(name))
            .collect();
        if !unused.is_empty() && !self.uncertain {
            let names: Vec<_> = unused.iter().map(|name| format!("\"{name}\"")).collect();
            problems.add_with_hint(
                self.at(path!["source"]),
                format!(
                    "unused source {} {}: the data would be lost",
                    if unused.len() == 1 { "column" } else { "columns" },
                    list(&unused)
                ),
                format!("use it in `columns`, or ignore it explicitly: `ignore: [{}]`", names.join(", ")),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn only_casts_that_keep_the_meaning_are_allowed() {
        let plain = DataType::Timestamp(TimeUnit::Microsecond, None);
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (from, to) in [
            (&DataType::Int64, &plain),
            (&DataType::Date32, &DataType::Int64),
            (&zoned, &plain),
            (&zoned, &DataType::Date32),
            (&DataType::Date32, &zoned),
        ] {
            assert!(!castable(from, to), "{from} to {to}");
        }
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        for (from, to) in [
            (&DataType::Null, &plain),
            (&nanoseconds, &plain),
            (&DataType::Utf8, &plain),
            (&zoned, &DataType::Utf8),
            (&plain, &zoned),
            (&DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into())), &zoned),
            (&DataType::Int32, &DataType::Int64),
        ] {
            assert!(castable(from, to), "{from} to {to}");
        }
    }
}
