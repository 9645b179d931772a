//! Questions that other modules ask the catalog.

use arrow::datatypes::DataType;

use super::catalog::{PgCatalog, PgColumn, PgTable, Sequence};
use super::load::calls;
use super::names::{Names, TableId, qualified};
use super::types::PgType;
use crate::target::{AssignedKey, CatalogTable, Destination, SequenceUse};

impl PgCatalog {
    /// Returns how a column is staged: the cast to production's type, and its type in staging.
    pub(super) fn staged_as(&self, table: &str, column: &str) -> (String, String) {
        match self.tables.get(table).and_then(|table| table.column(column)) {
            Some(column) if column.pg_type.travels_as_text() => {
                // A text of `money` depends on the locale; a number does not.
                let through = match column.declared.as_str() {
                    "money" => "::numeric",
                    "money[]" => "::numeric[]",
                    _ => "",
                };
                (format!("{through}::{}", with_schema(&column.declared)), "text".into())
            }
            Some(column) => (String::new(), format!("{}{}", column.declared, column.collation)),
            None => (String::new(), "text".into()),
        }
    }

    /// Returns whether a column stores copied values and returns them unchanged.
    pub(super) fn is_kept_as_copied(&self, table: &CatalogTable, column: &str) -> bool {
        self.staged_as(&table.name, column).0.is_empty()
            && table.column(column).is_some_and(|column| column.form.is_kept_as_written())
    }

    /// Returns how values of a column are looked up: the SQL for the value in `value`, the type of `value`, and its type in a copy.
    /// Looked-up values may be longer or larger than the column allows.
    pub(super) fn asked_as(&self, table: &str, column: &str, value: &str) -> (String, String, PgType) {
        let Some(column) = self.tables.get(table).and_then(|table| table.column(column)) else {
            return (value.to_owned(), "text".into(), PgType::Text);
        };
        let (plain, PgColumn { declared, collation, .. }) = (value.to_owned(), column);
        match &column.pg_type {
            PgType::Text if column.equals != "=" => (plain, format!("{declared}{collation}"), PgType::Text),
            PgType::Text => (plain, format!("text{collation}"), PgType::Text),
            PgType::Padded => (plain, format!("bpchar{collation}"), PgType::Padded),
            PgType::Int2 | PgType::Int4 => (plain, "bigint".into(), PgType::Int8),
            // The cast of a text that is not one of its labels would fail.
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

    /// Returns the operator by which values of a column are equal.
    pub(super) fn equals(&self, table: &str, column: &str) -> &str {
        self.tables.get(table).and_then(|table| table.column(column)).map_or("=", |column| &column.equals)
    }

    /// Returns a table's schema and name; an unknown table is taken to be in the production schema.
    pub(super) fn id(&self, names: &Names, table: &str) -> TableId {
        match self.tables.get(table) {
            Some(found) => names.id(&found.schema, &found.name),
            None => names.id(&names.production, table),
        }
    }

    /// Returns the table with this key map.
    pub(super) fn of_key_map(&self, names: &Names, key_map: &str) -> Option<&str> {
        let is_it = |table: &PgTable| names.id(&table.schema, &table.name).key_map() == key_map;
        self.tables.iter().find(|(_, table)| is_it(table)).map(|(name, _)| name.as_str())
    }

    /// Returns the sequence that a table's assigned keys come from.
    pub(super) fn sequence(&self, names: &Names, destination: &Destination) -> Option<&Sequence> {
        let AssignedKey { column, sequence, .. } = destination.assigned.as_ref()?;
        self.sequence_of(names, &destination.table.name, column, sequence)
    }

    /// Returns the sequences that fill a column: its own, or those that its default calls.
    pub(super) fn sequences_of<'a>(&'a self, column: &'a PgColumn) -> impl Iterator<Item = &'a Sequence> {
        let plain = |text: &str| text.replace(['"', '\''], "");
        let calls = match (&column.sequence, &column.default) {
            (None, Some(default)) => calls(default),
            _ => Vec::new(),
        };
        let called: Vec<_> = calls.iter().map(|call| plain(&call.names)).collect();
        let is_called = move |sequence: &&Sequence| {
            called.contains(&format!("{}.{}", sequence.schema, sequence.name)) || called.contains(&sequence.name)
        };
        column.sequence.iter().chain(self.sequences.iter().filter(is_called))
    }

    /// Returns the sequence that the keys of a column come from: the one that the pipeline file names, or the column's.
    pub(super) fn sequence_of(&self, names: &Names, table: &str, column: &str, of: &SequenceUse) -> Option<&Sequence> {
        let Some(name) = &of.name else {
            let column = self.tables.get(table)?.column(column)?;
            // The default of a text makes it of the number: a prefix and digits.
            let mut called = self.sequences_of(column).filter(|_| column.pg_type.arrow() == DataType::Utf8);
            let only = called.next().filter(|_| called.next().is_none());
            return column.sequence.as_ref().or(only);
        };
        let is_it = |sequence: &&Sequence| {
            format!("{}.{}", sequence.schema, sequence.name) == *name
                || sequence.schema == names.production && sequence.name == *name
        };
        self.sequences.iter().find(is_it)
    }
}

impl PgTable {
    /// Returns SQL that reads its rows as the server's own checks do: without those of inheriting tables.
    pub(super) fn own_rows(&self) -> String {
        let only = if self.inherited { "ONLY " } else { "" };
        format!("{only}{}", qualified(&self.schema, &self.name))
    }

    pub(super) fn column(&self, name: &str) -> Option<&PgColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// The types of `pg_catalog` that SQL has keywords for, by their first word.
const KEYWORDS: [&str; 12] = [
    "bigint",
    "bit",
    "boolean",
    "character",
    "double",
    "integer",
    "interval",
    "numeric",
    "real",
    "smallint",
    "time",
    "timestamp",
];

/// Returns a type's name for any search path. The server printed it with `pg_catalog` as the only one.
fn with_schema(declared: &str) -> String {
    let end = match declared.strip_prefix('"') {
        Some(quoted) => quoted.replace("\"\"", "__").find('"').map_or(declared.len(), |end| end + 2),
        None => declared.find([' ', '(', '[', '.']).unwrap_or(declared.len()),
    };
    let (name, rest) = declared.split_at(end);
    if rest.starts_with('.') || KEYWORDS.contains(&name) {
        declared.to_owned()
    } else {
        format!("pg_catalog.{declared}")
    }
}

#[cfg(test)]
mod tests {
    use super::with_schema;

    #[test]
    fn a_type_of_the_system_gets_its_schema() {
        for (printed, expected) in [
            ("date[]", "pg_catalog.date[]"),
            ("\"char\"", "pg_catalog.\"char\""),
            ("numeric(5,2)[]", "numeric(5,2)[]"),
            ("timestamp(0) with time zone", "timestamp(0) with time zone"),
            ("public.mood", "public.mood"),
            ("\"od.d\"\"s\".\"t\"(3)", "\"od.d\"\"s\".\"t\"(3)"),
        ] {
            assert_eq!(with_schema(printed), expected);
        }
    }
}
