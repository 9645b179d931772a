//! Expressions of columns: SQL over a source column, inferred from its values and from the constraints of production.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{Expr, Value, visit_expressions};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::{
    ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::profile::{CaseChange, Notation, Sample};
use crate::engine::{ident, literal};
use crate::target::{CatalogColumn, CatalogTable, LogicalType};

/// The reason for a change of case.
const CASE: &str = "production accepts only values in this case";

/// Returns the SQL for a column from a source column, and a remark if the SQL is a guess.
pub(super) fn expression(
    sample: &Sample,
    name: &str,
    column: &CatalogColumn,
    accepted: &[String],
) -> (String, Option<String>) {
    let plain = sql_name(name);
    let number = DataType::Decimal128(38, 9);
    let data_type = if matches!(column.form, LogicalType::Number { .. }) { &number } else { &column.data_type };
    let also = |others: &[&str]| match others {
        [] => Some("the format of the sampled values".to_owned()),
        others => Some(format!("the values also match {}", others.join(" and "))),
    };
    let notation = |what: &str| Some(format!("the sampled values have {what}"));
    match sample.notation(name, data_type) {
        Notation::Format(format, others) => {
            let function = if *data_type == DataType::Date32 { "to_date" } else { "to_timestamp" };
            return (format!("{function}({plain}, {})", literal(format)), also(&others));
        }
        Notation::Day(format, others) => {
            return (format!("CAST(to_date({plain}, {}) AS TIMESTAMP)", literal(format)), also(&others));
        }
        Notation::DecimalComma { thousands: false } => {
            return (format!("replace({plain}, ',', '.')"), notation("a decimal comma"));
        }
        Notation::DecimalComma { thousands: true } => {
            let sql = format!("replace(replace({plain}, '.', ''), ',', '.')");
            return (sql, notation("a decimal comma, and points between thousands"));
        }
        Notation::Thousands => return (format!("replace({plain}, ',', '')"), notation("commas between thousands")),
        Notation::Unknown => {
            let remark = format!("unknown notation of {}; run `pipeline validate` to see the values", column.declared);
            return (plain, Some(remark));
        }
        Notation::Plain => {}
    }
    if *data_type != DataType::Utf8 || !sample.is_text(name) {
        return (plain, None);
    }
    match sample.accepted_by(name, accepted) {
        Some(CaseChange::Upper) => return (format!("upper({plain})"), Some(CASE.to_owned())),
        Some(CaseChange::Lower) => return (format!("lower({plain})"), Some(CASE.to_owned())),
        None => {}
    }
    if let Some(full) =
        sample.abbreviations(name, accepted).filter(|full| full.iter().any(|(short, full)| short != full))
    {
        let cases: Vec<_> =
            full.iter().map(|(short, full)| format!("WHEN {} THEN {}", literal(short), literal(full))).collect();
        let remark = "abbreviations of values that production accepts".to_owned();
        return (format!("CASE {plain} {} ELSE {plain} END", cases.join(" ")), Some(remark));
    }
    if sample.is_padded(name) {
        return (format!("trim({plain})"), Some("some values have leading or trailing blanks".to_owned()));
    }
    (plain, None)
}

/// Returns the texts that production accepts in a column, from its CHECK constraints and enums.
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

/// Returns whether SQL may parse a name as a keyword.
fn is_reserved(name: &str) -> bool {
    let index = ALL_KEYWORDS.binary_search(&name.to_uppercase().as_str()).ok();
    let word = index.and_then(|index| ALL_KEYWORDS_INDEX.get(index));
    // Keywords that begin an expression. The parser accepts them as names if no other rule matches.
    let leading =
        ["ARRAY", "CASE", "CAST", "EXISTS", "EXTRACT", "INTERVAL", "NOT", "NULL", "TRUE", "FALSE", "TRY_CAST"];
    leading.contains(&name.to_uppercase().as_str())
        || word.is_some_and(|word| RESERVED_FOR_COLUMN_ALIAS.contains(word) || RESERVED_FOR_TABLE_ALIAS.contains(word))
}

/// Returns a column name for SQL, quoted only if necessary.
pub(super) fn sql_name(name: &str) -> String {
    let simple = name.starts_with(|char: char| char.is_ascii_lowercase() || char == '_')
        && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    let parses = |name: &str| {
        let call = Parser::new(&GenericDialect {}).try_with_sql(&format!("f({name}, 1) + {name}"));
        let Ok(Expr::BinaryOp { left, right, .. }) = call.and_then(|mut sql| sql.parse_expr()) else { return false };
        let argument = format!("f({name}, 1)");
        left.to_string() == argument && matches!(right.as_ref(), Expr::Identifier(parsed) if parsed.value == name)
    };
    if simple && !is_reserved(name) && parses(name) { name.to_owned() } else { ident(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_only_if_necessary() {
        for name in ["account_no", "name", "status", "_x1"] {
            assert_eq!(sql_name(name), name);
        }
        for name in ["Account", "two words", "a\"b", "select", "case", "not", "größe", "null", "1st"] {
            assert_eq!(sql_name(name), ident(name));
        }
    }
}
