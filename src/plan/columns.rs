//! The sources of target columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, SchemaRef};

use super::{Column, ColumnSource, Key};
use crate::diagnostic::{Path, Problems};
use crate::engine::{Engine, ident, list};
use crate::path;
use crate::source::setting;
use crate::spec::{TableSpec, TriggerEffect};
use crate::target::{Catalog, CatalogColumn, CatalogTable, LogicalType};

/// Returns whether a cast keeps the meaning of values. A number has no unit, so it cannot become a time; a time with a
/// zone cannot become one without.
fn castable(from: &DataType, to: &DataType, form: &LogicalType) -> bool {
    use DataType::{FixedSizeBinary, LargeUtf8, Null, Time32, Time64, Timestamp, Utf8, Utf8View};
    let text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    match (from, to) {
        _ if from == to || *from == Null => true,
        (FixedSizeBinary(16), _) if *form == LogicalType::Uuid => true,
        _ if text(from) || text(to) => can_cast_types(from, to),
        // Without a zone, and without one that the user sets, the rows are rejected.
        (Timestamp(..), Timestamp(_, Some(_))) => true,
        (_, Timestamp(_, Some(_))) | (Timestamp(_, Some(_)), _) | (Timestamp(..), Time32(_) | Time64(_)) => false,
        _ if from.is_numeric() && to.is_temporal() || from.is_temporal() && to.is_numeric() => false,
        _ => can_cast_types(from, to) && can_cast_types(to, from),
    }
}

/// Joins SQL expressions by `|`, in brackets that keep the expression shallow.
pub(super) fn joined(parts: &[String]) -> String {
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

fn text(name: &str) -> String {
    format!("CAST({} AS VARCHAR)", ident(name))
}

/// Returns SQL for a part of a text, without the separator.
pub(super) fn part(name: &str) -> String {
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

    pub(super) fn no_such_column(&self, problems: &mut Problems, at: Path, name: &str) {
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
        as_text: impl FnOnce(&[String]) -> String,
    ) -> String {
        for name in columns {
            if self.source.field_with_name(name).is_err() {
                self.uncertain = true;
                let valid: Vec<_> = self.source.fields().iter().map(|field| field.name()).collect();
                let hint = match self.spec.source.ignore.contains(name) {
                    true => format!("`ignore` leaves it out; remove `{name}` there"),
                    false => format!("its columns are {}", list(&valid)),
                };
                problems.add_with_hint(at.clone(), format!("the source has no column `{name}`"), hint);
            }
            self.used.insert(name.clone());
        }
        as_text(columns)
    }

    /// Returns the columns that references fill.
    pub(super) fn referring(&self) -> impl Iterator<Item = &String> {
        self.spec.relationships.iter().flat_map(|relationship| relationship.column.iter())
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
                    (format!("`{name}` is a key column, which a trigger must not set"), "remove it from `triggers`")
                }
                TriggerEffect::Fills if is_written => (
                    format!("`{name}` is filled by both the delta and a trigger"),
                    "write `changes`, or remove the column from `columns` and `relationships`",
                ),
                TriggerEffect::Changes if !is_written && !is_source => {
                    (format!("the delta has no value for `{name}` that a trigger could change"), "write `fills`")
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
                if !castable(from, to, &column.form) && !in_zone {
                    problems.add_with_hint(
                        at,
                        format!("`{}` is {}; {from} cannot be cast to it", column.name, column.declared),
                        match times {
                            true => "set `timezone` of the source, or append `AT TIME ZONE '…'` to the expression",
                            false if from.is_numeric() || to.is_numeric() => {
                                "convert the value in the expression; give the unit of a number"
                            }
                            false => "convert the value in the expression, or export it as text",
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
            assert!(!castable(from, to, &LogicalType::Plain), "{from} to {to}");
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
            assert!(castable(from, to, &LogicalType::Plain), "{from} to {to}");
        }
        let bytes = DataType::FixedSizeBinary(16);
        assert!(castable(&bytes, &DataType::Utf8, &LogicalType::Uuid));
        assert!(!castable(&bytes, &DataType::Utf8, &LogicalType::Text));
    }
}
