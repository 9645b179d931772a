//! The references of a table.

use arrow::datatypes::DataType;

use super::columns::{Builder, joined, part, text_of};
use super::{Reference, ReferenceCondition, source_columns};
use crate::diagnostic::{Path, Problems};
use crate::engine::{ident, list};
use crate::path;
use crate::spec::RelationshipSpec;
use crate::target::{CatalogColumn, CatalogTable};

/// Returns SQL for source columns as one text that is NULL only if all those of `own` are. A part that is NULL becomes a text that no part
/// of a legacy key is.
fn reference_text(columns: &[String], own: &[String]) -> String {
    let [_, _, ..] = columns else { return text_of(columns) };
    let none: Vec<_> = own.iter().map(|name| format!("{} IS NULL", ident(name))).collect();
    let parts: Vec<_> = columns.iter().map(|name| format!("coalesce({}, '{HALF}')", part(name))).collect();
    format!("CASE WHEN {} THEN NULL ELSE {} END", none.join(" AND "), joined(&parts))
}

/// A part of a reference that is NULL. Escaped, no part has it.
const HALF: &str = "\\N";

impl Builder<'_> {
    pub(super) fn references(&mut self, problems: &mut Problems, written: &[(String, String, Path)]) -> Vec<Reference> {
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
            let (parts, own) = (from.len(), self.own_columns(index, &from, written));
            let from = self.one_text(problems, &inside("from"), &from, |columns| reference_text(columns, &own));
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

    /// Returns the source columns that only this reference uses, or all of its columns if others use each of them. The others, such as a
    /// tenant, have a value also in rows that refer to nothing.
    fn own_columns(&self, index: usize, from: &[String], written: &[(String, String, Path)]) -> Vec<String> {
        let of_others = self.spec.relationships.iter().enumerate().filter(|(other, _)| *other != index);
        let mut shared: Vec<String> = of_others.flat_map(|(_, other)| other.from.iter().cloned()).collect();
        shared.extend(self.spec.legacy_key.iter().cloned());
        shared.extend(written.iter().flat_map(|(_, sql, _)| source_columns(sql, self.source)));
        if self.spec.select.is_none() {
            let is_filled = |column: &&CatalogColumn| !self.referring().any(|name| *name == column.name);
            shared.extend(self.table.columns.iter().filter(is_filled).map(|column| column.name.clone()));
        }
        let own: Vec<_> = from.iter().filter(|name| !shared.contains(name)).cloned().collect();
        if own.is_empty() { from.to_vec() } else { own }
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
}
