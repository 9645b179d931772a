//! The key of a table.

use arrow::datatypes::DataType;

use super::Key;
use super::columns::{Builder, text_of};
use crate::diagnostic::{Path, Problems};
use crate::engine::{list, literal, uuid_namespace};
use crate::path;
use crate::spec::{KeySpec, StartRowNumber, UuidVersion};
use crate::target::{CatalogColumn, LogicalType, SequenceUse, TextKey};

impl Builder<'_> {
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
            (Some((DataType::Decimal128(digits, decimals) | DataType::Decimal256(digits, decimals), _)), None) => {
                let digits = i16::from(*digits) - i16::from(*decimals);
                10_i64.checked_pow(u32::try_from(digits).unwrap_or(0)).map_or(i64::MAX, |end| end - 1)
            }
            _ => i64::MAX,
        }
    }

    /// Returns SQL for the UUID of a row, if its key is one and nothing else fills it.
    pub(super) fn uuid(&self, column: &CatalogColumn, key: &Key) -> Option<String> {
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
            None if !column.holds_numbers() => (
                "column",
                format!("`{name}` is {declared}; keys are numbers, text, or UUIDs"),
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
}
