//! What the other parts ask the catalog.

use super::catalog::{PgCatalog, PgColumn, PgTable, Sequence};
use super::types::PgType;
use crate::target::Destination;

impl PgCatalog {
    /// How a column is staged: the cast that makes its value production's, and its type in staging.
    pub(super) fn staged_as(&self, table: &str, column: &str) -> (String, String) {
        match self.tables.get(table).and_then(|table| table.column(column)) {
            Some(column) if column.pg_type.travels_as_text() => (format!("::{}", column.declared), "text".into()),
            Some(column) => (String::new(), format!("{}{}", column.declared, column.collation)),
            None => (String::new(), "text".into()),
        }
    }

    /// As [`PgCatalog::staged_as`], for values that are looked for: they may be longer than the column's.
    pub(super) fn asked_as(&self, table: &str, column: &str) -> (String, String) {
        let found = self.tables.get(table).and_then(|table| table.column(column));
        let any = match found.map(|column| &column.pg_type) {
            Some(PgType::Text) => "text",
            Some(PgType::Padded) => "bpchar",
            Some(PgType::Numeric { .. }) => "numeric",
            _ => return self.staged_as(table, column),
        };
        (String::new(), format!("{any}{}", found.map_or("", |column| &column.collation)))
    }

    /// The sequence that a table's assigned keys come from.
    pub(super) fn sequence(&self, destination: &Destination) -> Option<&Sequence> {
        let key = destination.key.first().filter(|_| destination.assigned.is_some())?;
        self.tables.get(&destination.table.name)?.column(key)?.sequence.as_ref()
    }
}

impl PgTable {
    /// The column of a name.
    pub(super) fn column(&self, name: &str) -> Option<&PgColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}
