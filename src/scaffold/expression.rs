//! A column as SQL over a source column: how its values are written, and what production accepts.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{Expr, Value, visit_expressions};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::{
    ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::profile::{InferredType, Sample, Written};
use crate::engine::{ident, literal};
use crate::target::{CatalogColumn, CatalogTable, LogicalType};

/// SQL for a column out of a source column, and what is only guessed about it.
pub(super) fn expression(
    sample: &Sample,
    name: &str,
    column: &CatalogColumn,
    accepted: &[String],
) -> (String, Option<String>) {
    let plain = sql_name(name);
    let number = DataType::Decimal128(38, 9);
    let wanted = if matches!(column.form, LogicalType::Number { .. }) { &number } else { &column.data_type };
    let also = |others: &[&str]| match others {
        [] => None,
        others => Some(format!("the values fit {} as well", others.join(" and "))),
    };
    match sample.written(name, wanted) {
        Written::Format(format, others) => {
            let function = if *wanted == DataType::Date32 { "to_date" } else { "to_timestamp" };
            return (format!("{function}({plain}, {})", literal(format)), also(&others));
        }
        Written::DecimalComma { thousands: false } => return (format!("replace({plain}, ',', '.')"), None),
        Written::DecimalComma { thousands: true } => {
            return (format!("replace(replace({plain}, '.', ''), ',', '.')"), None);
        }
        Written::Thousands => return (format!("replace({plain}, ',', '')"), None),
        Written::Unknown => {
            let what = format!("its values are not written as {} is; see what `validate` says", column.declared);
            return (plain, Some(what));
        }
        Written::Plain => {}
    }
    if *wanted != DataType::Utf8 || !sample.is_text(name) {
        return (plain, None);
    }
    match sample.accepted_by(name, accepted) {
        Some(InferredType::Upper) => return (format!("upper({plain})"), None),
        Some(InferredType::Lower) => return (format!("lower({plain})"), None),
        None => {}
    }
    if let Some(full) =
        sample.abbreviations(name, accepted).filter(|full| full.iter().any(|(short, full)| short != full))
    {
        let cases: Vec<_> =
            full.iter().map(|(short, full)| format!("WHEN {} THEN {}", literal(short), literal(full))).collect();
        let what = "short forms of what production accepts".to_owned();
        return (format!("CASE {plain} {} ELSE {plain} END", cases.join(" ")), Some(what));
    }
    if sample.is_padded(name) {
        return (format!("trim({plain})"), Some("some values have blanks around them".to_owned()));
    }
    (plain, None)
}

/// The texts that production accepts in a column, by its CHECK constraints and enums.
pub(super) fn accepted(table: &CatalogTable, column: &str) -> Vec<String> {
    let mut found = Vec::new();
    for check in &table.checks {
        let Ok(parsed) = Parser::new(&GenericDialect {}).try_with_sql(&check.sql).and_then(|mut sql| sql.parse_expr())
        else {
            continue;
        };
        let Expr::InList { expr, list, negated: false } = &parsed else { continue };
        let mut names = false;
        let visited = visit_expressions(expr, |part| {
            if let Expr::Identifier(name) = part {
                names |= name.value == column;
            }
            ControlFlow::<()>::Continue(())
        });
        debug_assert!(visited.is_continue());
        if names {
            found.extend(list.iter().filter_map(|value| match value {
                Expr::Value(value) => match &value.value {
                    Value::SingleQuotedString(text) => Some(text.clone()),
                    _ => None,
                },
                _ => None,
            }));
        }
    }
    found
}

/// Whether SQL may read a name as one of its own words.
fn is_reserved(name: &str) -> bool {
    let at = ALL_KEYWORDS.binary_search(&name.to_uppercase().as_str()).ok();
    let word = at.and_then(|at| ALL_KEYWORDS_INDEX.get(at));
    // Words that begin an expression, which the parser takes for names where nothing else fits.
    let begins = ["ARRAY", "CASE", "CAST", "EXISTS", "EXTRACT", "INTERVAL", "NOT", "NULL", "TRUE", "FALSE", "TRY_CAST"];
    begins.contains(&name.to_uppercase().as_str())
        || word.is_some_and(|word| RESERVED_FOR_COLUMN_ALIAS.contains(word) || RESERVED_FOR_TABLE_ALIAS.contains(word))
}

/// A column's name in SQL: quoted only where it must be.
pub(super) fn sql_name(name: &str) -> String {
    let simple = name.starts_with(|char: char| char.is_ascii_lowercase() || char == '_')
        && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    let parses = |name: &str| {
        let call = Parser::new(&GenericDialect {}).try_with_sql(&format!("f({name}, 1) + {name}"));
        let Ok(Expr::BinaryOp { left, right, .. }) = call.and_then(|mut sql| sql.parse_expr()) else { return false };
        let argument = format!("f({name}, 1)");
        left.to_string() == argument && matches!(right.as_ref(), Expr::Identifier(found) if found.value == name)
    };
    if simple && !is_reserved(name) && parses(name) { name.to_owned() } else { ident(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_sql_needs_it() {
        for name in ["account_no", "name", "status", "_x1"] {
            assert_eq!(sql_name(name), name);
        }
        for name in ["Account", "two words", "a\"b", "select", "case", "not", "größe", "null", "1st"] {
            assert_eq!(sql_name(name), ident(name));
        }
    }
}
