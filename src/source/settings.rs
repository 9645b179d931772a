//! Settings of a source that later modules read with its columns: time zones, the century, and the notation of numbers.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::spec::{PerColumn, SourceSpec};

/// Returns the schema with the settings of a source as metadata.
pub(super) fn with_settings(schema: &SchemaRef, spec: &SourceSpec) -> SchemaRef {
    let mut metadata = HashMap::new();
    if let Some(century) = spec.century {
        metadata.insert("century".to_owned(), century.to_string());
    }
    let settings = [("timezone", &spec.timezone), ("decimal", &spec.csv.decimal), ("thousands", &spec.csv.thousands)];
    for (name, setting) in settings {
        match setting {
            None => {}
            Some(PerColumn::All(text)) => _ = metadata.insert(name.to_owned(), text.clone()),
            Some(each @ PerColumn::Each(_)) => {
                for column in each.columns() {
                    let text = each.of(column).unwrap_or_default();
                    metadata.insert(format!("{name}.{column}"), text.to_owned());
                }
            }
        }
    }
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// Returns a setting for a target column: its own, or that of all columns.
pub fn setting<'a>(source: &'a Schema, name: &str, column: &str) -> Option<&'a str> {
    let metadata = source.metadata();
    metadata.get(&format!("{name}.{column}")).or_else(|| metadata.get(name)).map(String::as_str)
}
