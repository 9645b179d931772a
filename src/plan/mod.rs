//! The plan: what a run does, compiled from the pipeline file, the delta's columns, and production's catalog.
//!
//! A plan is plain data, decided before anything is written, so it can be printed, compared, and explained.
//! Compiling finds all problems in one pass.

mod checks;
mod columns;
mod compile;
mod inferred_catalog;
mod keys;
mod order;
mod relationships;
mod select;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub use compile::{Compiled, compile};
pub use inferred_catalog::infer;
pub use order::{components, order};

use crate::diagnostic::Path;
use crate::engine::words;
use crate::spec::{Duplicates, ExistingRowPolicy, Severity, StartRowNumber, Threshold};
use crate::target::{
    AssignedKey, CatalogTable, CommitCheck, CommitCheckKind, Condition, DatabaseCheck, Destination, ForeignKey,
    SequenceUse, TableIndex, TextKey,
};

/// The plan of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// The tables in the order they are loaded: referenced tables first.
    pub tables: Vec<Table>,
}

impl Plan {
    /// Returns the index of a table in [`Plan::tables`].
    pub fn position(&self, name: &str) -> Option<TableIndex> {
        self.tables.iter().position(|table| table.name == name).map(TableIndex::new)
    }
}

/// One table of a run.
#[derive(Debug, Clone)]
pub struct Table {
    /// The table's name, in the pipeline file and in production.
    pub name: String,
    /// The table in production's catalog; inferred from the delta without a target.
    pub catalog: Arc<CatalogTable>,
    /// The schema of the source.
    pub source: SchemaRef,
    /// The filled columns, in production's order.
    pub columns: Vec<Column>,
    /// The WHERE of `select`, if any: SQL over the source columns.
    pub filter: Option<String>,
    /// SQL over the source columns that computes the legacy key as one text.
    pub legacy_key: String,
    /// The way in which rows get their keys.
    pub key: Key,
    /// The references that are resolved to new keys.
    pub references: Vec<Reference>,
    /// The checks, in the order of reports.
    pub checks: Vec<Check>,
    /// Descriptions of constraints that no check can express, so that only production enforces them.
    pub enforced_by_database: Vec<String>,
    /// Names of checks that need a target, if the pipeline file names none.
    pub skipped_checks: Vec<String>,
    /// Columns of production that nothing fills, so that they get their default or NULL.
    pub unfilled: Vec<String>,
    /// Columns whose final value a trigger of production decides.
    pub triggered: Vec<String>,
    /// The policy for duplicates within the delta.
    pub duplicates: Duplicates,
    /// The policy for rows that production already has.
    pub existing: ExistingRowPolicy,
    /// The maximum number of rejected rows.
    pub max_rejects: Threshold,
}

/// A filled column.
#[derive(Debug, Clone)]
pub struct Column {
    /// The column's name in production.
    pub name: String,
    /// The Arrow type in production.
    pub data_type: DataType,
    /// The source of its values.
    pub fill: ColumnSource,
}

/// The source of a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnSource {
    /// An SQL expression over the source columns.
    Computed(String),
    /// The new key of the row.
    Key,
    /// The key of the referenced row, by an index into [`Table::references`].
    Reference(usize),
    /// Production's default, computed for each row before the rows are staged: the column is part of the key.
    Default,
}

/// The way in which rows get their keys.
#[derive(Debug, Clone)]
pub enum Key {
    /// A number: an offset plus the row's number among the accepted rows.
    Assigned {
        /// The key column.
        column: String,
        /// The columns that identify a row: the key column, and those of the primary key if it is one of several.
        columns: Vec<String>,
        /// The sequence that the numbers come from.
        sequence: SequenceUse,
        /// The first number.
        start: StartRowNumber,
        /// The format of a text key; `None` for integer keys.
        text: Option<TextKey>,
        /// The largest number that fits the column.
        largest: i64,
    },
    /// The parent's key, and further columns of the row.
    Inherited(Vec<String>),
    /// The row's own key: the table's primary key is among the filled columns.
    Own(Vec<String>),
}

impl Key {
    /// Returns the columns that identify a row in production.
    pub fn columns(&self) -> &[String] {
        match self {
            Self::Assigned { columns, .. } | Self::Inherited(columns) | Self::Own(columns) => columns,
        }
    }
}

/// A reference that is resolved to a key.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The column that receives the key.
    pub column: String,
    /// SQL over the source columns that computes the referenced legacy key or values as one text.
    pub from: String,
    /// The number of source columns in that text.
    pub parts: usize,
    /// The referenced table.
    pub to: String,
    /// Its index in [`Plan::tables`]; `None` if it is not loaded in the same run.
    pub parent: Option<TableIndex>,
    /// The columns of production that `from` has the values of; empty if it is a legacy key.
    pub by: Vec<String>,
    /// The condition on rows of the referenced table; only with `by`.
    pub condition: Option<ReferenceCondition>,
    /// The column of the referenced table whose value is the key.
    pub give: String,
    /// The index of the first reference to the same row: this one, unless the key has several columns.
    pub first: usize,
}

/// A condition on the rows that a reference can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceCondition {
    /// In the engine's SQL, over the columns of the referenced table.
    pub sql: String,
    /// The columns that it reads.
    pub columns: Vec<String>,
}

/// A check of rows.
#[derive(Debug, Clone)]
pub struct Check {
    /// The check's name, unique within its table.
    pub name: String,
    /// The condition that it checks.
    pub kind: CheckKind,
    /// The target columns that it reads; empty for the whole record.
    pub columns: Vec<String>,
    /// The effect of a violation.
    pub severity: Severity,
    /// If there are more violations, the report warns.
    pub warn_if: Option<Threshold>,
    /// If there are more violations, nothing is loaded.
    pub error_if: Option<Threshold>,
    /// The check's origin.
    pub origin: CheckOrigin,
    /// The reason that is shown for a row that fails it.
    pub reason: String,
}

/// The origin of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckOrigin {
    /// Every run has it.
    Builtin,
    /// Production's catalog, with the constraint or the type as text.
    Catalog(String),
    /// The pipeline file, at this place.
    File(Path),
}

/// The condition of a check.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    /// The record is readable.
    Parse,
    /// The WHERE of `select` can be computed.
    Filter,
    /// The row's legacy key is not NULL, and is unique in the delta.
    LegacyKey,
    /// The row's legacy key is not yet in the key map.
    KeyMap,
    /// The column's expression can be computed, and its value can be cast to the column's type.
    Cast {
        /// The target column.
        column: String,
    },
    /// The column's decimals have no more digits than its type.
    Precision {
        /// The target column.
        column: String,
    },
    /// An SQL expression over the target columns is not true.
    Row {
        /// The expression, true for a row that fails.
        violated: String,
    },
    /// The values are unique in the delta, and are not in production.
    Unique(Unique),
    /// The referenced row exists.
    Relationship {
        /// An index into [`Table::references`].
        reference: usize,
    },
    /// The referenced row is not rejected.
    ParentRejected {
        /// An index into [`Table::references`].
        reference: usize,
    },
    /// A row with these values exists in production or in the delta.
    ForeignKey {
        /// The referencing columns.
        columns: Vec<String>,
        /// The referenced table.
        to: String,
        /// The referenced columns, in the same order.
        to_columns: Vec<String>,
    },
    /// Production itself judges the row, in its own SQL.
    Database(DatabaseCheck),
    /// A query does not return the row's number in `_row`.
    Query {
        /// The query, without a semicolon at its end.
        sql: String,
    },
}

/// Values that no two rows share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// The compared columns.
    pub columns: Vec<String>,
    /// The columns that ignore the case of ASCII letters.
    pub ignore_case: Vec<String>,
    /// The condition of the rows that it applies to; `None` for all rows.
    pub condition: Option<Condition>,
}

impl Table {
    /// Returns the columns that are computed from the source, with their SQL.
    pub fn computed(&self) -> impl Iterator<Item = (&Column, &str)> {
        self.columns.iter().filter_map(|column| match &column.fill {
            ColumnSource::Computed(sql) => Some((column, sql.as_str())),
            _ => None,
        })
    }

    /// Returns the columns that checks read: the text of each reference (`_ref_<column>`), then the computed columns.
    pub fn checked_schema(&self) -> SchemaRef {
        let references =
            self.references.iter().map(|reference| Field::new(reference.text_column(), DataType::Utf8, true));
        let computed = self.computed().map(|(column, _)| Field::new(&column.name, column.data_type.clone(), true));
        Arc::new(Schema::new(references.chain(computed).collect::<Vec<_>>()))
    }

    /// Returns the columns that a run keeps: `_key`, [`Table::checked_schema`], and source columns as `source.<name>`.
    pub fn kept_schema(&self) -> SchemaRef {
        let mut fields = vec![Arc::new(Field::new("_key", DataType::Utf8, true))];
        fields.extend(self.checked_schema().fields().iter().cloned());
        let source = self.source.fields().iter();
        fields.extend(
            source.map(|field| {
                Arc::new(field.as_ref().clone().with_name(source_column(field.name())).with_nullable(true))
            }),
        );
        Arc::new(Schema::new(fields))
    }

    /// Returns the kept column that SQL reads for a target column. A reference is compared by its text.
    pub fn kept_column(&self, name: &str) -> String {
        match self.references.iter().find(|reference| reference.column == name) {
            Some(reference) => reference.text_column(),
            None => name.to_owned(),
        }
    }

    /// Returns the tables that its rows refer to through references that checks resolve.
    pub fn refers_to(&self) -> impl Iterator<Item = &String> {
        let foreign = self.checks.iter().filter_map(|check| match &check.kind {
            CheckKind::ForeignKey { to, .. } => Some(to),
            _ => None,
        });
        self.references.iter().map(|reference| &reference.to).chain(foreign)
    }

    /// Returns whether all of these columns are filled.
    pub fn fills(&self, columns: &[String]) -> bool {
        columns.iter().all(|name| self.columns.iter().any(|column| column.name == *name))
    }

    /// Returns the columns that are filled with the key of the same row as a reference.
    pub fn columns_of(&self, reference: usize) -> Vec<String> {
        let same = self.references.iter().filter(|other| other.first == self.references[reference].first);
        same.map(|other| other.column.clone()).collect()
    }

    /// Returns the index of the reference that fills a column.
    pub fn reference(&self, column: &str) -> Option<usize> {
        self.references.iter().position(|reference| reference.column == column)
    }

    /// Returns whether a reference is to a row of this table, whose index in the plan is `table_index`.
    pub fn refers_to_itself(&self, table_index: TableIndex, reference: usize) -> bool {
        self.references[reference].parent == Some(table_index) && self.references[reference].by.is_empty()
    }

    /// Returns the destination of its rows.
    pub fn destination(&self) -> Destination {
        Destination {
            self_referencing: self
                .references
                .iter()
                .any(|reference| reference.to == self.name && reference.parent.is_some()),
            table: self.catalog.clone(),
            columns: self.columns.iter().map(|column| column.name.clone()).collect(),
            key: self.key.columns().to_vec(),
            assigned: match &self.key {
                Key::Assigned { column, start, sequence, .. } => {
                    Some(AssignedKey { column: column.clone(), start: *start, sequence: sequence.clone() })
                }
                _ => None,
            },
            evaluated: self.evaluated(),
            is_referred_only: false,
            commit_checks: self.commit_checks(),
            changed: self.triggered.clone(),
            reads: self.reads(),
        }
    }

    /// Returns the columns whose default is computed before the rows are staged.
    pub fn evaluated(&self) -> Vec<String> {
        let evaluated = self.columns.iter().filter(|column| column.fill == ColumnSource::Default);
        evaluated.map(|column| column.name.clone()).collect()
    }

    /// Returns the other production tables that a load reads: referenced ones, and those in the SQL of checks.
    fn reads(&self) -> Vec<String> {
        let mut reads: Vec<String> = self.references.iter().map(|reference| reference.to.clone()).collect();
        reads.extend(self.catalog.foreign_keys.iter().map(|key| key.to.clone()));
        for check in &self.checks {
            match &check.kind {
                CheckKind::ForeignKey { to, .. } => reads.push(to.clone()),
                CheckKind::Query { sql } => reads.extend(inferred_catalog::production_tables(sql)),
                _ => {}
            }
        }
        reads.sort();
        reads.dedup();
        reads.retain(|name| *name != self.name);
        reads
    }

    /// Returns the checks to repeat before the commit, because no constraint of production enforces them.
    fn commit_checks(&self) -> Vec<CommitCheck> {
        let mut commit_checks = Vec::new();
        for check in self.checks.iter().filter(|check| check.severity == Severity::Error) {
            let what = match &check.kind {
                CheckKind::Unique(unique) if matches!(check.origin, CheckOrigin::File(_)) && !self.enforces(unique) => {
                    CommitCheckKind::Unique { columns: unique.columns.clone(), ignore_case: unique.ignore_case.clone() }
                }
                CheckKind::Relationship { reference } => {
                    let Reference { column, to, give, by, condition, .. } = &self.references[*reference];
                    let of_row = self.columns_of(*reference);
                    let kept = |key: &ForeignKey| key.to == *to && of_row.iter().all(|name| key.columns.contains(name));
                    // A foreign key protects the row's key, but not the values by which the row was found.
                    if by.is_empty() && self.catalog.foreign_keys.iter().any(kept) {
                        continue;
                    }
                    let (column, to, to_column) = (column.clone(), to.clone(), give.clone());
                    let with = self.others_of(*reference).map(|other| self.references[other].give.clone()).collect();
                    let more = condition.iter().flat_map(|condition| &condition.columns);
                    let by = by.iter().chain(more.filter(|name| !by.contains(name))).cloned().collect();
                    CommitCheckKind::Reference { column, to, to_column, with, by }
                }
                _ => continue,
            };
            commit_checks.push(CommitCheck { check: check.name.clone(), what });
        }
        commit_checks
    }

    /// Returns the other references that are filled with the key of the same row.
    pub fn others_of(&self, reference: usize) -> impl Iterator<Item = usize> {
        (0..self.references.len())
            .filter(move |other| *other != reference && self.references[*other].first == reference)
    }

    /// Returns whether a constraint of production enforces the uniqueness.
    fn enforces(&self, unique: &Unique) -> bool {
        let within =
            |columns: &[String]| !columns.is_empty() && columns.iter().all(|name| unique.columns.contains(name));
        let of_all = self.catalog.uniques.iter().filter(|found| found.condition.is_none());
        within(&self.catalog.primary_key) || of_all.into_iter().any(|found| within(&found.columns))
    }

    /// Returns the index of the first check whose kind matches.
    pub fn check(&self, matches: impl Fn(&CheckKind) -> bool) -> Option<usize> {
        self.checks.iter().position(|check| matches(&check.kind))
    }
}

impl Reference {
    /// Returns the name of the kept column with the reference's text.
    pub fn text_column(&self) -> String {
        format!("_ref_{}", self.column)
    }
}

/// Returns SQL for the rows that a user's query returns. The line breaks end a comment of the query.
pub fn rows_of(sql: &str) -> String {
    format!("SELECT DISTINCT CAST(q._row AS BIGINT) AS _row FROM (\n{sql}\n) q WHERE q._row IS NOT NULL")
}

/// Returns the source columns that an expression names, for messages.
pub fn source_columns(sql: &str, source: &SchemaRef) -> Vec<String> {
    let words = words(sql).unwrap_or_default();
    source.fields().iter().map(|field| field.name()).filter(|name| words.contains(*name)).cloned().collect()
}

/// Returns the name of the kept column of a source column.
pub fn source_column(name: &str) -> String {
    format!("source.{name}")
}
