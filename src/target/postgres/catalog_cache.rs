//! What the other parts ask the catalog.

use super::catalog::{PgCatalog, PgColumn, PgTable, Sequence};
use super::names::{Names, TableId, qualified};
use super::types::PgType;
use crate::target::{CatalogTable, Destination};

impl PgCatalog {
    /// How a column is staged: the cast that makes its value production's, and its type in staging.
    pub(super) fn staged_as(&self, table: &str, column: &str) -> (String, String) {
        match self.tables.get(table).and_then(|table| table.column(column)) {
            Some(column) if column.pg_type.travels_as_text() => (format!("::{}", column.declared), "text".into()),
            Some(column) => (String::new(), format!("{}{}", column.declared, column.collation)),
            None => (String::new(), "text".into()),
        }
    }

    /// Whether a column keeps values as they are copied, and gives them back the same.
    pub(super) fn is_kept_as_copied(&self, table: &CatalogTable, column: &str) -> bool {
        self.staged_as(&table.name, column).0.is_empty()
            && table.column(column).is_some_and(|column| column.form.is_kept_as_written())
    }

    /// How values of a column are looked for: the SQL of one that is in `value`, the type of `value`, and as what it travels.
    /// They may be longer or larger than the column's.
    pub(super) fn asked_as(&self, table: &str, column: &str, value: &str) -> (String, String, PgType) {
        let Some(column) = self.tables.get(table).and_then(|table| table.column(column)) else {
            return (value.to_owned(), "text".into(), PgType::Text);
        };
        let (plain, PgColumn { declared, collation, .. }) = (value.to_owned(), column);
        match &column.pg_type {
            PgType::Text => (plain, format!("text{collation}"), PgType::Text),
            PgType::Padded => (plain, format!("bpchar{collation}"), PgType::Padded),
            PgType::Int2 | PgType::Int4 => (plain, "bigint".into(), PgType::Int8),
            // A text that is none of its values is an error of the cast.
            PgType::Enum => (
                format!("CASE WHEN {value} = ANY (enum_range(NULL::{declared})::text[]) THEN {value}::{declared} END"),
                "text".into(),
                PgType::Text,
            ),
            other if other.travels_as_text() => (format!("{value}::{declared}"), "text".into(), PgType::Text),
            number @ PgType::Numeric { .. } => (plain, "numeric".into(), number.clone()),
            other => (plain, format!("{declared}{collation}"), other.clone()),
        }
    }

    /// A table by its schema and name; one that is not known is production's.
    pub(super) fn id(&self, names: &Names, table: &str) -> TableId {
        match self.tables.get(table) {
            Some(found) => names.id(&found.schema, &found.name),
            None => names.id(&names.production, table),
        }
    }

    /// The table whose key map is called so.
    pub(super) fn of_key_map(&self, names: &Names, key_map: &str) -> Option<&str> {
        let is_it = |table: &PgTable| names.id(&table.schema, &table.name).key_map() == key_map;
        self.tables.iter().find(|(_, table)| is_it(table)).map(|(name, _)| name.as_str())
    }

    /// The sequence that a table's assigned keys come from.
    pub(super) fn sequence(&self, destination: &Destination) -> Option<&Sequence> {
        let key = destination.key.first().filter(|_| destination.assigned.is_some())?;
        self.tables.get(&destination.table.name)?.column(key)?.sequence.as_ref()
    }
}

impl PgTable {
    /// Where its rows are read: as the server's own checks do, without those of tables that inherit from it.
    pub(super) fn own_rows(&self) -> String {
        let only = if self.inherited { "ONLY " } else { "" };
        format!("{only}{}", qualified(&self.schema, &self.name))
    }

    /// The column of a name.
    pub(super) fn column(&self, name: &str) -> Option<&PgColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}
