//! What production's catalog states about its tables: the source of the checks that nobody has to write.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

use super::logical_type::LogicalType;

/// The tables of the production schema.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The tables, sorted by name.
    pub tables: Vec<Arc<CatalogTable>>,
    /// Whether nobody stated it: there is no target, and the tables are what the delta itself looks like.
    pub guessed: bool,
}

impl Catalog {
    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<&Arc<CatalogTable>> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// The table whose key map is called so.
    pub fn of_key_map(&self, key_map: &str) -> Option<&Arc<CatalogTable>> {
        self.tables.iter().find(|table| table.key_map == key_map)
    }

    /// The names of all tables.
    pub fn names(&self) -> Vec<&str> {
        self.tables.iter().map(|table| table.name.as_str()).collect()
    }
}

/// One table of production.
#[derive(Debug, Clone, Default)]
pub struct CatalogTable {
    /// Its name, as pipeline files call it.
    pub name: String,
    /// The name that identifies it in the target: with its schema, if the target has schemas.
    pub id: String,
    /// The name that identifies its key map: [`CatalogTable::id`], within the namespace of the legacy system if there is one.
    pub key_map: String,
    /// Its columns, in order.
    pub columns: Vec<CatalogColumn>,
    /// The columns of its primary key, in order; empty where it has none.
    pub primary_key: Vec<String>,
    /// Those of them that are compared without regard to the case of ASCII letters.
    pub primary_key_ignore_case: Vec<String>,
    /// Its UNIQUE constraints and unique indexes, without the primary key.
    pub uniques: Vec<UniqueConstraint>,
    /// Its references to other tables.
    pub foreign_keys: Vec<ForeignKey>,
    /// Its CHECK constraints.
    pub checks: Vec<CheckConstraint>,
    /// The names of its triggers.
    pub triggers: Vec<String>,
    /// What the reader of the catalog could not turn into one of the above, for people: production enforces it by itself.
    pub unread: Vec<String>,
}

impl CatalogTable {
    /// The column of a name.
    pub fn column(&self, name: &str) -> Option<&CatalogColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns as an Arrow schema.
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
    /// Whether NULL is refused.
    pub not_null: bool,
    /// Whether production has a value for it where the row brings none.
    pub has_default: bool,
    /// Whether production computes it, so that nobody may write it.
    pub generated: bool,
    /// The most characters it holds, where it is a text with a limit.
    pub max_length: Option<u64>,
    /// The most significant digits that production keeps of a number with decimals, where that may be fewer than the type
    /// promises: 15 in SQLite. Whole numbers that fit into 64 bits are kept whole.
    pub significant_digits: Option<u8>,
    /// What its values must look like beyond their Arrow type.
    pub form: LogicalType,
}

impl CatalogColumn {
    /// The column as an Arrow field; always nullable, since what must not be NULL is a check.
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.data_type.clone(), true)
    }
}

/// Columns whose values together are in no two rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueConstraint {
    /// The constraint's or the index's name.
    pub name: String,
    /// The columns.
    pub columns: Vec<String>,
    /// Those of them that are compared without regard to the case of ASCII letters.
    pub ignore_case: Vec<String>,
    /// Which rows it is about, where it is not all of them.
    pub condition: Option<Condition>,
}

/// What a row must fulfil for a constraint to be about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// In the engine's SQL.
    pub sql: String,
    /// In production's own.
    pub own: String,
}

/// Columns whose values together are in a row of another table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The columns of this table.
    pub columns: Vec<String>,
    /// The referenced table.
    pub to: String,
    /// Its columns.
    pub to_columns: Vec<String>,
}

/// A condition that no row may fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckConstraint {
    /// The constraint's name; for one without a name, its text.
    pub name: String,
    /// The condition, in the engine's SQL.
    pub sql: String,
    /// Why a row that fails it is kept out; None where the condition says it itself.
    pub reason: Option<String>,
}
