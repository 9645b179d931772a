//! The catalog without a target: inferred from the delta, for the checks that need only the delta.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::sql::sqlparser::ast::visit_relations;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::{Check, CheckKind, Table, select};
use crate::engine::{Engine, Space};
use crate::source::Source;
use crate::spec::{Document, TableSpec};
use crate::target::{Catalog, CatalogColumn, CatalogTable, LogicalType};

/// Infers the catalog from the sources and expressions: the files' types, and no constraints. Compiling the plan reports
/// mistakes of sources and expressions.
pub fn infer(document: &Document, engine: &Engine) -> Catalog {
    let mut tables: BTreeMap<&str, CatalogTable> = BTreeMap::new();
    let specs = || document.spec.iter().flat_map(|spec| spec.tables.iter());
    for (name, spec) in specs() {
        let source = Source::try_new(&spec.source, &document.folder).ok();
        let schema = source.map_or_else(|| Arc::new(Schema::empty()), |source| source.schema().clone());
        tables.insert(name, table(name, spec, &schema, engine));
    }
    for relationship in specs().flat_map(|(_, spec)| &spec.relationships) {
        let to = relationship.to.as_str();
        let to = tables.entry(to).or_insert_with(|| CatalogTable { name: to.to_owned(), ..CatalogTable::default() });
        for by in relationship.by.iter().flat_map(|by| by.iter()) {
            if to.column(by).is_none() {
                to.columns.push(column(by, DataType::Utf8));
            }
        }
    }
    Catalog { tables: tables.into_values().map(Arc::new).collect(), guessed: true, ..Catalog::default() }
}

fn table(name: &str, spec: &TableSpec, source: &Arc<Schema>, engine: &Engine) -> CatalogTable {
    let mut table = CatalogTable { name: name.to_owned(), ..CatalogTable::default() };
    let mut add = |name: &str, data_type: DataType| {
        if table.column(name).is_none() {
            table.columns.push(column(name, data_type));
        }
    };
    let text_key = spec.key.as_ref().is_some_and(|key| key.width.is_some() || key.uuid.is_some());
    let key = spec.key.as_ref().and_then(|key| key.column.as_ref());
    if let Some(key) = key {
        add(key, if text_key { DataType::Utf8 } else { DataType::Int64 });
    }
    for relationship in &spec.relationships {
        relationship.column.iter().for_each(|column| add(column, DataType::Int64));
    }
    let type_of =
        |sql: &str| engine.expression(sql, source).map_or(DataType::Utf8, |expression| plain(expression.data_type()));
    for (name, sql) in spec.columns.iter() {
        add(name, type_of(sql));
    }
    match &spec.select {
        Some(sql) => {
            let names: Vec<_> = source.fields().iter().map(|field| field.name().clone()).collect();
            for (name, sql) in select::parts(sql, &names).into_iter().flat_map(|parts| parts.columns) {
                add(&name, type_of(&sql));
            }
        }
        None => source.fields().iter().for_each(|field| add(field.name(), plain(field.data_type()))),
    }
    table.primary_key = key.into_iter().cloned().collect();
    table
}

fn column(name: &str, data_type: DataType) -> CatalogColumn {
    CatalogColumn {
        name: name.to_owned(),
        declared: data_type.to_string(),
        data_type,
        not_null: false,
        has_default: false,
        generated: false,
        max_length: None,
        significant_digits: None,
        form: LogicalType::Plain,
    }
}

/// Returns the type that a table would use.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Null | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, value) => plain(value),
        other => other.clone(),
    }
}

/// Moves the checks that need a target to `skipped_checks`.
pub(super) fn skip_target_checks(table: &mut Table) {
    let references = &table.references;
    let needs_only_delta = |kind: &CheckKind| match kind {
        CheckKind::KeyMap => false,
        CheckKind::Relationship { reference } => {
            references[*reference].parent.is_some() && references[*reference].by.is_empty()
        }
        CheckKind::Query { sql } => !names_production(sql),
        _ => true,
    };
    let (kept, skipped): (Vec<Check>, Vec<Check>) =
        std::mem::take(&mut table.checks).into_iter().partition(|check| needs_only_delta(&check.kind));

    table.checks = kept;
    table.skipped_checks = skipped.into_iter().map(|check| check.name).collect();
}

/// Returns whether a query reads a table of production.
fn names_production(sql: &str) -> bool {
    !production_tables(sql).is_empty()
}

/// Returns the production tables that a query reads; none if it is invalid, which compiling the plan reports.
pub(super) fn production_tables(sql: &str) -> Vec<String> {
    let statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap_or_default();
    let mut tables = Vec::new();
    let visited: ControlFlow<()> = visit_relations(&statements, |name| {
        let parts: Vec<_> = name.0.iter().map(|part| part.to_string().replace('"', "")).collect();
        if let [.., schema, table] = parts.as_slice()
            && schema.eq_ignore_ascii_case(Space::Production.schema())
        {
            tables.push(table.clone());
        }
        ControlFlow::Continue(())
    });
    debug_assert!(visited.is_continue());
    tables
}

#[cfg(test)]
mod tests {
    use super::names_production;

    #[test]
    fn a_query_that_names_production_is_found_wherever_it_does() {
        for sql in [
            "SELECT _row FROM t JOIN production.x p ON true",
            "SELECT _row FROM t WHERE a IN (SELECT b FROM \"production\".x)",
            "WITH q AS (SELECT 1 FROM PRODUCTION.x) SELECT _row FROM t, q",
        ] {
            assert!(names_production(sql), "{sql}");
        }
        for sql in ["SELECT _row FROM t WHERE a = 'production.x'", "SELECT production._row FROM t production", "no SQL"]
        {
            assert!(!names_production(sql), "{sql}");
        }
    }
}
