//! Production's catalog: the declared tables, types, and constraints that checks are derived from.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

use super::database_check::{ComparedValue, DatabaseCheck, DatabaseCheckKind};
use super::logical_type::LogicalType;
use crate::engine::ident;

/// The tables of the production schema.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The tables, sorted by name.
    pub tables: Vec<Arc<CatalogTable>>,
    /// The production schema; None if the target has no schemas.
    pub schema: Option<String>,
    /// The names of its sequences in pipeline files; None if the target has none.
    pub sequences: Option<Vec<String>>,
    /// Whether the tables are inferred from the delta, because there is no target.
    pub guessed: bool,
}

impl Catalog {
    /// Returns the table with this name.
    pub fn table(&self, name: &str) -> Option<&Arc<CatalogTable>> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Returns the table with this key map.
    pub fn of_key_map(&self, key_map: &str) -> Option<&Arc<CatalogTable>> {
        self.tables.iter().find(|table| table.key_map == key_map)
    }

    /// Returns the names of all tables.
    pub fn names(&self) -> Vec<&str> {
        self.tables.iter().map(|table| table.name.as_str()).collect()
    }
}

/// One table of production.
#[derive(Debug, Clone, Default)]
pub struct CatalogTable {
    /// Its name in pipeline files.
    pub name: String,
    /// The name that identifies it in the target; includes the schema if the target has schemas.
    pub id: String,
    /// The name that identifies its key map: [`CatalogTable::id`], within the namespace of the legacy system if there is one.
    pub key_map: String,
    /// Its columns, in order.
    pub columns: Vec<CatalogColumn>,
    /// The columns of its primary key, in order; empty if it has none.
    pub primary_key: Vec<String>,
    /// The primary key columns that are compared without regard to the case of ASCII letters.
    pub primary_key_ignore_case: Vec<String>,
    /// The columns whose default is the next number of a sequence or of the table, and nothing else.
    pub serials: Vec<String>,
    /// Its UNIQUE constraints and unique indexes, without the primary key.
    pub uniques: Vec<UniqueConstraint>,
    /// Its references to other tables.
    pub foreign_keys: Vec<ForeignKey>,
    /// References that only its partitions declare, by different columns.
    pub partition_references: Vec<ForeignKey>,
    /// Its CHECK constraints.
    pub checks: Vec<CheckConstraint>,
    /// Its constraints that only production can evaluator.
    pub database_checks: Vec<DatabaseCheck>,
    /// The columns whose default is a number of a sequence, or the row's own number.
    pub numbered: Vec<String>,
    /// The names of its triggers.
    pub triggers: Vec<String>,
    /// Those of them that can give an inserted row other values.
    pub deciding_triggers: Vec<String>,
    /// Constraints that the catalog reader could not translate, for display. Only production enforces them.
    pub unsupported_constraints: Vec<String>,
}

impl CatalogTable {
    /// Returns the column with this name.
    pub fn column(&self, name: &str) -> Option<&CatalogColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Returns the references that it or its partitions declare.
    pub fn references(&self) -> impl Iterator<Item = &ForeignKey> {
        let is_other = |key: &&ForeignKey| !self.foreign_keys.iter().any(|own| own.columns == key.columns);
        self.foreign_keys.iter().chain(self.partition_references.iter().filter(is_other))
    }

    /// Returns whether a constraint keeps the values of a column alone unique.
    pub fn is_unique(&self, column: &str) -> bool {
        let all_rows = self.uniques.iter().filter(|unique| unique.condition.is_none());
        all_rows.map(|unique| &unique.columns).chain([&self.primary_key]).any(|columns| *columns == [column])
    }

    /// Returns the columns that identify a row whose key is in `column`: this one, or those of the primary key with it.
    pub fn identified_by(&self, column: &str) -> Vec<String> {
        match self.primary_key.iter().any(|name| name == column) && !self.is_unique(column) {
            true => self.primary_key.clone(),
            false => vec![column.to_owned()],
        }
    }

    /// Returns the columns as an Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(CatalogColumn::field).collect::<Vec<_>>()))
    }
}

/// One column of a table.
#[derive(Debug, Clone)]
pub struct CatalogColumn {
    /// Its name.
    pub name: String,
    /// Its type as production declares it.
    pub declared: String,
    /// The Arrow type that holds all its values.
    pub data_type: DataType,
    /// Whether the column is NOT NULL.
    pub not_null: bool,
    /// Whether production fills the column if a row omits it.
    pub has_default: bool,
    /// Whether production computes the column, so that it cannot be written.
    pub generated: bool,
    /// The most characters it holds, if it is a text with a limit.
    pub max_length: Option<u64>,
    /// The most significant digits that production keeps of a number with decimals, if the type commit_checks more: 15 in SQLite. Integers of up
    /// to 64 bits are kept exactly.
    pub significant_digits: Option<u8>,
    /// The constraints on its values beyond their Arrow type.
    pub form: LogicalType,
}

impl CatalogColumn {
    /// Returns whether it holds whole numbers, which can be assigned as keys: integers, or decimals as in databases that came from Oracle.
    pub fn holds_numbers(&self) -> bool {
        self.data_type.is_integer() || matches!(self.data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
    }

    /// Returns the column as an Arrow field. It is always nullable, because NOT NULL is a check.
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.data_type.clone(), true)
    }
}

/// Columns whose combined values are unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueConstraint {
    /// The name of the constraint or index; empty if production gave it none.
    pub name: String,
    /// The columns.
    pub columns: Vec<String>,
    /// The columns that are compared without regard to the case of ASCII letters.
    pub ignore_case: Vec<String>,
    /// The rows that it applies to; None for all rows.
    pub condition: Option<Condition>,
    /// Its form for production to evaluate, if the engine does not have all values that it reads.
    pub own: Option<Box<DatabaseCheck>>,
}

/// A condition that selects the rows a constraint applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// In the engine's SQL.
    pub sql: String,
    /// In production's SQL.
    pub own: String,
}

/// Columns whose combined values exist in a row of another table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignKey {
    /// The name of the constraint; empty if it has none.
    pub name: String,
    /// The columns of this table.
    pub columns: Vec<String>,
    /// The referenced table.
    pub to: String,
    /// The referenced columns.
    pub to_columns: Vec<String>,
    /// The operators that compare the referenced columns with the columns, in SQL; empty if each is `=`.
    pub operators: Vec<String>,
    /// Whether the constraint can be checked at the end of the transaction.
    pub deferrable: bool,
    /// Whether production rejects a row in which only some of the columns are NULL (`MATCH FULL`).
    pub match_full: bool,
}

impl ForeignKey {
    /// Returns the check by which production judges references to its own rows.
    pub fn database_check(&self) -> DatabaseCheck {
        let value = |(at, column): (usize, &String)| ComparedValue {
            sql: ident(column),
            column: Some(column.clone()),
            operator: self.operators.get(at).map_or("=", String::as_str).to_owned(),
        };
        DatabaseCheck {
            name: format!("relationship({})", self.columns.join(", ")),
            columns: self.columns.clone(),
            kind: DatabaseCheckKind::Reference {
                values: self.columns.iter().enumerate().map(value).collect(),
                to: self.to.clone(),
                to_columns: self.to_columns.clone(),
            },
            declared: format!("FOREIGN KEY ({}) REFERENCES {}", self.columns.join(", "), self.to),
            part: None,
            beyond_ascii: false,
        }
    }
}

/// A condition that every row must satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckConstraint {
    /// The constraint's name, or its text if it has no name.
    pub name: String,
    /// The condition, in the engine's SQL.
    pub sql: String,
    /// Why a row that fails it is rejected; None if the condition is self-explanatory.
    pub reason: Option<String>,
    /// Its form for production to evaluate, if the engine does not have all values that it reads.
    pub own: Option<Box<DatabaseCheck>>,
}
