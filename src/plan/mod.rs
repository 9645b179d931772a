//! The plan: the pipeline file, the delta's columns and production's catalog, compiled into what a run does.
//!
//! It is pure data, decided before anything is read or written: it can be printed, compared and explained. Compiling
//! finds all problems in one pass.

mod checks;
mod columns;
mod compile;
mod inferred_catalog;
mod order;
mod select;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub use compile::{Compiled, compile};
pub use inferred_catalog::guess;
pub use order::order;

use crate::diagnostic::Path;
use crate::spec::{Duplicates, ExistingRowPolicy, Severity, StartRowNumber, Threshold};
use crate::target::{CatalogTable, CommitCheck, CommitCheckKind, Condition, Destination, ForeignKey, TextKey};

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// The tables in the order they are loaded: referenced tables first.
    pub tables: Vec<Table>,
}

impl Plan {
    /// The number of a table in the plan's order.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|table| table.name == name)
    }
}

/// One table of a run.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name, in the pipeline file and in production.
    pub name: String,
    /// What production's catalog states about it.
    pub catalog: Arc<CatalogTable>,
    /// The source's columns.
    pub source: SchemaRef,
    /// The columns that are written, in production's order.
    pub columns: Vec<Column>,
    /// Which source rows are wanted, where a `select` has a WHERE: SQL over the source columns.
    pub filter: Option<String>,
    /// The legacy key, one text: SQL over the source columns.
    pub legacy_key: String,
    /// How rows get their keys.
    pub key: Key,
    /// The references that are resolved to new keys.
    pub references: Vec<Reference>,
    /// What every row is held against, in the order it is told.
    pub checks: Vec<Check>,
    /// Constraints that no check expresses: production has the last word on them.
    pub left_to_production: Vec<String>,
    /// Checks that only a target could answer, where there is none.
    pub unasked: Vec<String>,
    /// Columns of production that nothing fills: they get its default or stay NULL.
    pub unfilled: Vec<String>,
    /// Rows of the delta that are the same.
    pub duplicates: Duplicates,
    /// Rows that are there already.
    pub existing: ExistingRowPolicy,
    /// How many rows may be rejected.
    pub max_rejects: Threshold,
}

/// One column that is written.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The Arrow type of its values.
    pub data_type: DataType,
    /// Where its values come from.
    pub fill: ColumnSource,
}

/// Where a column's values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnSource {
    /// An SQL expression over the source columns.
    Computed(String),
    /// The row's own new key.
    Key,
    /// The key of the row that it refers to: a number of [`Table::references`].
    Reference(usize),
}

/// How rows get their keys.
#[derive(Debug, Clone)]
pub enum Key {
    /// An offset added to the row's number among the accepted rows.
    Assigned {
        /// The key column.
        column: String,
        /// Where keys start.
        start: StartRowNumber,
        /// How a text key is written.
        text: Option<TextKey>,
        /// The largest number that the column holds.
        largest: i64,
    },
    /// The parent's key and something of the row's own.
    Inherited(Vec<String>),
    /// The row brings its key: the table's primary key is among its columns.
    Own(Vec<String>),
}

impl Key {
    /// The columns that identify a row in production.
    pub fn columns(&self) -> &[String] {
        match self {
            Self::Assigned { column, .. } => std::slice::from_ref(column),
            Self::Inherited(columns) | Self::Own(columns) => columns,
        }
    }
}

/// A reference that is resolved to a key.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The column that gets the key.
    pub column: String,
    /// What the row refers by, one text: SQL over the source columns.
    pub from: String,
    /// The referenced table.
    pub to: String,
    /// Its number in the plan, where it is loaded in the same run.
    pub parent: Option<usize>,
    /// The column of production that `from` is a value of; None where it is a legacy key.
    pub by: Option<String>,
    /// The column of the referenced table whose value is wanted.
    pub give: String,
}

/// What rows are held against.
#[derive(Debug, Clone)]
pub struct Check {
    /// Its name, one of a kind within its table.
    pub name: String,
    /// What it asks.
    pub kind: CheckKind,
    /// The target columns that it is about.
    pub columns: Vec<String>,
    /// What a violation does.
    pub severity: Severity,
    /// More violations than this make the report warn.
    pub warn_if: Option<Threshold>,
    /// More violations than this and nothing is loaded.
    pub error_if: Option<Threshold>,
    /// Where it comes from.
    pub origin: CheckOrigin,
    /// What is wrong with a row that fails it.
    pub reason: String,
}

/// Where a check comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckOrigin {
    /// It holds for every run.
    Builtin,
    /// A constraint or a type of production's catalog, in words.
    Catalog(String),
    /// The pipeline file, at this place.
    File(Path),
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    /// The record can be read.
    Parse,
    /// The condition of the pipeline's own `select` can be computed.
    Filter,
    /// The row's legacy key is there, and once in the delta.
    LegacyKey,
    /// The row's legacy key is not in the key map yet.
    KeyMap,
    /// The column's expression has a value, and it can be cast to the column's type.
    Cast {
        /// The column.
        column: String,
    },
    /// The column's decimals have no more digits than production keeps.
    Precision {
        /// The column.
        column: String,
    },
    /// No row for which this SQL is true: an expression over the target columns.
    Row {
        /// True for a row that fails.
        violated: String,
    },
    /// The values are once in the delta, and not in production.
    Unique(Unique),
    /// The row that a reference names is there.
    Relationship {
        /// Which one of [`Table::references`].
        reference: usize,
    },
    /// The row that a reference names is not rejected itself.
    ParentRejected {
        /// Which one of [`Table::references`].
        reference: usize,
    },
    /// The values are those of a row in production or in the delta.
    ForeignKey {
        /// The columns.
        columns: Vec<String>,
        /// The referenced table.
        to: String,
        /// Its columns.
        to_columns: Vec<String>,
    },
    /// No row that this query returns in `_row`.
    Query {
        /// The query.
        sql: String,
    },
}

/// Values that no two rows share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// The columns.
    pub columns: Vec<String>,
    /// Those of them that are compared without regard to the case of ASCII letters.
    pub ignore_case: Vec<String>,
    /// Which rows it is about, where it is not all of them.
    pub condition: Option<Condition>,
}

impl Table {
    /// The columns that are computed from the source, with their SQL.
    pub fn computed(&self) -> impl Iterator<Item = (&Column, &str)> {
        self.columns.iter().filter_map(|column| match &column.fill {
            ColumnSource::Computed(sql) => Some((column, sql.as_str())),
            _ => None,
        })
    }

    /// The columns that checks see: what each reference is made from (`_ref_<column>`), then the computed columns.
    pub fn checked_schema(&self) -> SchemaRef {
        let references =
            self.references.iter().map(|reference| Field::new(reference.text_column(), DataType::Utf8, true));
        let computed = self.computed().map(|(column, _)| Field::new(&column.name, column.data_type.clone(), true));
        Arc::new(Schema::new(references.chain(computed).collect::<Vec<_>>()))
    }

    /// The columns that are kept of each row: `_key`, those of [`Table::checked_schema`], and the source's as `source.<name>`.
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

    /// The column that SQL over the kept rows reads for a target column: a reference is compared by what it is made from.
    pub fn kept_column(&self, name: &str) -> String {
        match self.references.iter().find(|reference| reference.column == name) {
            Some(reference) => reference.text_column(),
            None => name.to_owned(),
        }
    }

    /// The reference that fills a column.
    pub fn reference(&self, column: &str) -> Option<usize> {
        self.references.iter().position(|reference| reference.column == column)
    }

    /// Whether a reference is to a row of this table, which is number `at` of the plan.
    pub fn refers_to_itself(&self, at: usize, reference: usize) -> bool {
        self.references[reference].parent == Some(at) && self.references[reference].by.is_none()
    }

    /// Where its rows go.
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
                Key::Assigned { start, .. } => Some(*start),
                _ => None,
            },
            promises: self.promises(),
            reads: self.reads(),
        }
    }

    /// The other tables of production that are read: those that its rows refer to, and those that its own SQL names.
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

    /// What checks find true of production though no constraint of it keeps it true.
    fn promises(&self) -> Vec<CommitCheck> {
        let mut promises = Vec::new();
        for check in self.checks.iter().filter(|check| check.severity == Severity::Error) {
            let what = match &check.kind {
                CheckKind::Unique(unique) if matches!(check.origin, CheckOrigin::File(_)) && !self.enforces(unique) => {
                    CommitCheckKind::Unique { columns: unique.columns.clone(), ignore_case: unique.ignore_case.clone() }
                }
                CheckKind::Relationship { reference } => {
                    let Reference { column, to, give, by, .. } = &self.references[*reference];
                    let kept = |key: &ForeignKey| key.columns == [column.as_str()] && key.to == *to;
                    // A foreign key keeps the row there, and does not know by which of its values the row was found.
                    if by.is_none() && self.catalog.foreign_keys.iter().any(kept) {
                        continue;
                    }
                    let (column, to, to_column, by) = (column.clone(), to.clone(), give.clone(), by.clone());
                    CommitCheckKind::Reference { column, to, to_column, by }
                }
                _ => continue,
            };
            promises.push(CommitCheck { check: check.name.clone(), what });
        }
        promises
    }

    /// Whether production itself keeps two rows from having the same values: then nobody has to ask again.
    fn enforces(&self, unique: &Unique) -> bool {
        let within =
            |columns: &[String]| !columns.is_empty() && columns.iter().all(|name| unique.columns.contains(name));
        let of_all = self.catalog.uniques.iter().filter(|found| found.condition.is_none());
        within(&self.catalog.primary_key) || of_all.into_iter().any(|found| within(&found.columns))
    }

    /// The number of the check that a kind belongs to.
    pub fn check(&self, wanted: impl Fn(&CheckKind) -> bool) -> Option<usize> {
        self.checks.iter().position(|check| wanted(&check.kind))
    }
}

impl Reference {
    /// The kept column that holds what the reference is made from.
    pub fn text_column(&self) -> String {
        format!("_ref_{}", self.column)
    }
}

/// The rows that a user's query names; the line break ends a comment at its end.
pub fn rows_of(sql: &str) -> String {
    format!("SELECT DISTINCT CAST(q._row AS BIGINT) AS _row FROM (\n{sql}\n) q WHERE q._row IS NOT NULL")
}

/// The source columns that an expression names, for messages.
pub fn source_columns(sql: &str, source: &SchemaRef) -> Vec<String> {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    let words: Vec<String> = tokens
        .into_iter()
        .filter_map(|token| match token {
            Token::Word(word) if word.quote_style.is_some() => Some(word.value),
            Token::Word(word) => Some(word.value.to_lowercase()),
            _ => None,
        })
        .collect();
    source.fields().iter().map(|field| field.name().clone()).filter(|name| words.contains(name)).collect()
}

/// The kept column of a source column.
pub fn source_column(name: &str) -> String {
    format!("source.{name}")
}
