//! Constraints that only the server can evaluate, from the rows of the catalog.

use super::catalog::{PgColumn, Row};
use super::domains::Base;
use super::types::PgType;
use crate::engine::ident;
use crate::target::database_check::columns_in;
use crate::target::{CatalogColumn, ComparedValue, DatabaseCheck, DatabaseCheckKind};

/// The name of a column's type, as SQL writes it.
pub(super) struct TypeName<'a> {
    pub(super) declared: &'a str,
    /// Without its modifier.
    pub(super) unlimited: &'a str,
}

fn check(name: String, kind: DatabaseCheckKind, declared: &str) -> DatabaseCheck {
    DatabaseCheck { name, columns: Vec::new(), kind, declared: declared.to_owned(), part: None, beyond_ascii: false }
}

fn of_part(mut check: DatabaseCheck, row: &Row) -> DatabaseCheck {
    check.part = row.get("part").and_then(|_| row.get("part_condition")).map(str::to_owned);
    check
}

/// Returns a CHECK constraint of the table or of one of its partitions.
pub(super) fn of_check(row: &Row) -> DatabaseCheck {
    let kind = DatabaseCheckKind::Condition(row.text("expr").to_owned());
    of_part(check(format!("check({})", row.text("name")), kind, row.text("definition")), row)
}

/// Returns the check that all or none of the columns of a foreign key are NULL.
pub(super) fn of_full_match(name: &str, columns: &[String], definition: &str) -> DatabaseCheck {
    let is_null: Vec<_> = columns.iter().map(|column| format!("({} IS NULL)", ident(column))).collect();
    let same: Vec<_> = is_null[1..].iter().map(|other| format!("{} = {other}", is_null[0])).collect();
    check(format!("match_full({name})"), DatabaseCheckKind::Condition(same.join(" AND ")), definition)
}

/// Returns an exclusion constraint, or a key WITHOUT OVERLAPS.
pub(super) fn of_exclusion(row: &Row) -> DatabaseCheck {
    let kind = DatabaseCheckKind::Exclusion {
        values: values(row),
        condition: row.get("predicate").map(str::to_owned),
        method: row.get("method").map(str::to_owned),
    };
    of_part(check(format!("exclude({})", row.text("name")), kind, row.text("definition")), row)
}

/// Returns a unique index, also one of a partition.
pub(super) fn of_index(row: &Row) -> DatabaseCheck {
    let kind = DatabaseCheckKind::Unique {
        values: values(row),
        condition: row.get("predicate").map(str::to_owned),
        nulls_equal: row.is("nulls_not_distinct"),
    };
    of_part(check(format!("unique({})", row.text("name")), kind, row.text("definition")), row)
}

/// Returns the check that a row fits a partition.
pub(super) fn of_partitions(key: &str, condition: String) -> DatabaseCheck {
    check("partition".to_owned(), DatabaseCheckKind::Condition(condition), &format!("PARTITION BY {key}"))
}

/// Returns the checks that generated columns can be computed.
pub(super) fn of_generated<'a>(
    columns: &'a [PgColumn],
    catalog: &'a [CatalogColumn],
) -> impl Iterator<Item = DatabaseCheck> + use<> {
    let generated = columns.iter().zip(catalog).filter_map(|(column, catalog)| {
        let expression = column.generated.as_ref()?;
        let name = ident(&column.name);
        let condition = match catalog.not_null {
            true => format!("{name} IS NOT NULL"),
            // Computes the value, and is never false.
            false => format!("CAST({name} AS text) IS NULL OR CAST({name} AS text) IS NOT NULL"),
        };
        let declared = format!("GENERATED ALWAYS AS ({expression})");
        Some(check(format!("generated({})", column.name), DatabaseCheckKind::Condition(condition), &declared))
    });
    generated.collect::<Vec<_>>().into_iter()
}

/// The values of a column for which only the server can evaluate a CHECK of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Evaluated {
    None,
    BeyondAscii,
    All,
}

/// Returns the check of a column's values, if only the server knows which ones the type accepts, or if it would change some silently.
pub(super) fn of_value(
    column: &str,
    of: &TypeName<'_>,
    base: &Base<'_>,
    evaluated: Evaluated,
) -> Option<DatabaseCheck> {
    let name = ident(column);
    let as_text = base.pg_type.travels_as_text();
    let is_other = base.pg_type == PgType::Other;
    // The engine checks numbers itself.
    let is_limited = as_text && base.is_limited && !matches!(base.pg_type, PgType::Numeric { .. });
    let of_any = is_other || base.loose || is_limited || evaluated == Evaluated::All;
    if !of_any && evaluated == Evaluated::None {
        return None;
    }
    let cast = format!("{name}{}::{}", base.through(), of.declared);
    let differs = |as_type: &str| format!("({cast})::{as_type} IS DISTINCT FROM {name}::{as_type}");
    let limit = limit(&name, of, base);
    let changed = match base.builtin().map(|name| name.trim_start_matches('_')) {
        Some("money") => Some(differs(&format!("numeric{}", base.brackets()))),
        // A negative number, or a large one, becomes another one.
        Some("char" | "name" | "oid" | "xid" | "cid" | "xid8" | "tid") => {
            Some(differs(&format!("text{}", base.brackets())))
        }
        None if base.of.is_some_and(|of| of.name.trim_start_matches('_') == "hstore") => Some(pairs(&name, of, base)),
        _ => limit,
    };
    let kind = DatabaseCheckKind::Value { column: column.to_owned(), cast, changed };
    let (name, columns) = (format!("value({column})"), vec![column.to_owned()]);
    Some(DatabaseCheck { columns, beyond_ascii: !of_any, ..check(name, kind, of.declared) })
}

/// SQL that is true for a value of `hstore` with a key twice, of which the type keeps one.
fn pairs(name: &str, of: &TypeName<'_>, base: &Base<'_>) -> String {
    // Without characters after a backslash, and without quoted texts.
    let count = |text: &str| {
        let unescaped = format!("pg_catalog.regexp_replace({text}, E'\\\\\\\\.', '', 'g')");
        let unquoted = format!(r#"pg_catalog.regexp_replace({unescaped}, '"[^"]*"', '', 'g')"#);
        format!("pg_catalog.array_length(pg_catalog.string_to_array({unquoted}, '=>'), 1)")
    };
    let declared = base.declared.unwrap_or(of.declared);
    let differs = |value: &str, declared: &str| {
        format!("{} IS DISTINCT FROM {}", count(value), count(&format!("({value}::{declared})::text")))
    };
    match declared.strip_suffix("[]") {
        None => differs(name, declared),
        Some(element) => {
            let differs = differs("_e.value", element);
            format!("EXISTS (SELECT FROM pg_catalog.unnest({name}::text[]) AS _e (value) WHERE {differs})")
        }
    }
}

/// SQL that is true for a value that the modifier of its type changes.
fn limit(name: &str, of: &TypeName<'_>, base: &Base<'_>) -> Option<String> {
    let is_comparable = base.pg_type.travels_as_text() && base.is_limited && base.is_builtin();
    let (declared, unlimited) = (base.declared.unwrap_or(of.declared), base.unlimited.unwrap_or(of.unlimited));
    is_comparable.then(|| format!("{name}::{unlimited} IS DISTINCT FROM {name}::{declared}"))
}

/// Returns the values that a constraint compares. The column is its number, if the value is one.
fn values(row: &Row) -> Vec<ComparedValue> {
    let values: serde_json::Value = serde_json::from_str(row.text("compared")).unwrap_or_default();
    let text = |value: &serde_json::Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let value = |value: &serde_json::Value| ComparedValue {
        sql: text(value, "sql"),
        column: value["number"].as_i64().filter(|number| *number > 0).map(|number| number.to_string()),
        operator: text(value, "operator"),
    };
    values.as_array().map(|values| values.iter().map(value).collect()).unwrap_or_default()
}

/// Returns the values that a check compares.
pub(super) fn compared(check: &mut DatabaseCheck) -> impl Iterator<Item = &mut ComparedValue> {
    let values = match &mut check.kind {
        DatabaseCheckKind::Unique { values, .. }
        | DatabaseCheckKind::Exclusion { values, .. }
        | DatabaseCheckKind::Reference { values, .. } => values.as_mut_slice(),
        _ => &mut [],
    };
    values.iter_mut()
}

/// Returns all SQL of a check.
fn sql_of(check: &DatabaseCheck) -> String {
    let mut all = String::new();
    let mut add = |sql: &str| all.extend([sql, " "]);
    match &check.kind {
        DatabaseCheckKind::Value { column, .. } => add(&ident(column)),
        DatabaseCheckKind::Condition(sql) => add(sql),
        DatabaseCheckKind::Unique { values, condition, .. }
        | DatabaseCheckKind::Exclusion { values, condition, .. } => {
            values.iter().map(|value| &value.sql).chain(condition).for_each(|sql| add(sql));
        }
        DatabaseCheckKind::Reference { values, .. } => values.iter().for_each(|value| add(&value.sql)),
    }
    check.part.iter().for_each(|part| add(part));
    all
}

/// Returns whether a check reads what only a row in its table has.
pub(super) fn reads_its_table(check: &DatabaseCheck) -> bool {
    !columns_in(&sql_of(check), std::iter::once("tableoid"), false).is_empty()
}

/// Returns the columns that a check of a table reads, also through generated columns. A whole row, `item.*`, is all of them.
pub(super) fn columns_of(check: &DatabaseCheck, table: &str, columns: &[PgColumn]) -> Vec<String> {
    let sql = sql_of(check);
    if [table, &ident(table)].iter().any(|table| sql.contains(&format!("{table}.*"))) {
        return columns.iter().map(|column| column.name.clone()).collect();
    }
    let named = |sql: &str| columns_in(sql, columns.iter().map(|column| column.name.as_str()), false);
    let mut read = named(&sql);
    let through: Vec<_> = columns
        .iter()
        .filter(|column| read.contains(&column.name))
        .filter_map(|column| column.generated.as_ref())
        .collect();
    for name in through.into_iter().flat_map(|sql| named(sql)) {
        if !read.contains(&name) {
            read.push(name);
        }
    }
    read
}
