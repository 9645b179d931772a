//! Translation of production's CHECK constraints into the engine's SQL.
//!
//! SQLite and the engine disagree on LIKE, `substr`, CAST, collations, comparisons of unlike types, and the values that a column of a type
//! accepts. Only conditions on which both agree are translated; production decides all others.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value,
};

use super::values::{Affinity, is_date, is_timestamp};
use crate::engine::{ident, literal};
use crate::target::{CatalogColumn, CatalogTable, CheckConstraint};

/// How SQLite stores a column's values, beyond what the catalog has.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredCheck {
    /// The conversion that text undergoes.
    pub(super) affinity: Affinity,
    /// Whether text is compared byte by byte.
    pub(super) binary: bool,
}

/// Translates a condition; None if the two could evaluate a row differently.
pub(super) fn translate(condition: &Expr, table: &CatalogTable, stored: &[StoredCheck]) -> Option<String> {
    Translator { table, stored }.condition(condition)
}

/// Returns a check for a text column whose number-like values SQLite stores as numbers. It requires that the number reads back as the same
/// text.
pub(super) fn kept_as_text(column: &CatalogColumn, affinity: Affinity) -> Option<CheckConstraint> {
    if column.data_type != DataType::Utf8 || column.generated || affinity.keeps_text() {
        return None;
    }
    let name = ident(&column.name);
    let like = |pattern: &str| format!("regexp_like({name}, '{pattern}')");
    let mut kept = vec![format!(
        "NOT {}",
        like(r"^[ \t\n\v\f\r]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\v\f\r]*$")
    )];
    if affinity != Affinity::Real {
        kept.push(like("^(0|-?[1-9][0-9]{0,17})$"));
        kept.push(format!("({} AND ltrim({name}, '-') <= '9223372036854775807')", like("^-?[1-9][0-9]{18}$")));
    }
    // The notation of a real: 15 digits are reliable, and numbers below 0.0001 get an exponent.
    kept.push(format!("({} AND character_length(ltrim({name}, '-')) <= 16)", like(r"^-?[1-9][0-9]*\.([0-9]*[1-9])$")));
    kept.push(like(r"^-?0\.0{0,3}[1-9]([0-9]{0,10}[1-9])?$"));
    Some(CheckConstraint {
        name: format!("kept_as_text({})", column.name),
        sql: kept.join(" OR "),
        reason: Some(format!(
            "it looks like a number, so SQLite would store it as one: the column is {}",
            if column.declared.is_empty() { "of no type" } else { &column.declared }
        )),
        own: None,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    Decimal,
    Real,
    Text,
    Date,
    Time,
    Timestamp,
    Boolean,
}

enum Side {
    Column(usize),
    Length(usize),
    Text(String),
    Integer(i64),
    Real(String),
}

struct Translator<'a> {
    table: &'a CatalogTable,
    stored: &'a [StoredCheck],
}

impl Translator<'_> {
    fn condition(&self, condition: &Expr) -> Option<String> {
        Some(match condition {
            Expr::Nested(inner) => format!("({})", self.condition(inner)?),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => format!("NOT {}", self.condition(expr)?),
            Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
                format!("{} {op} {}", self.condition(left)?, self.condition(right)?)
            }
            Expr::BinaryOp { left, op, right } => {
                let (left, right) = self.compared(&self.side(left)?, op, &self.side(right)?)?;
                format!("{left} {op} {right}")
            }
            Expr::IsNull(inner) => format!("{} IS NULL", self.name(self.column(inner)?)),
            Expr::IsNotNull(inner) => format!("{} IS NOT NULL", self.name(self.column(inner)?)),
            Expr::Between { expr, negated, low, high } => {
                let value = self.side(expr)?;
                let (name, low) = self.compared(&value, &BinaryOperator::GtEq, &self.side(low)?)?;
                let (_, high) = self.compared(&value, &BinaryOperator::LtEq, &self.side(high)?)?;
                format!("{name} {}BETWEEN {low} AND {high}", not(*negated))
            }
            Expr::InList { expr, list, negated } => {
                let value = self.side(expr)?;
                let mut name = None;
                let mut items = Vec::new();
                for item in list {
                    let (left, right) = self.compared(&value, &BinaryOperator::Eq, &self.side(item)?)?;
                    name = Some(left);
                    items.push(right);
                }
                format!("{} {}IN ({})", name?, not(*negated), items.join(", "))
            }
            _ => return None,
        })
    }

    /// Returns the two sides of a comparison that SQLite and the engine decide alike.
    fn compared(&self, left: &Side, op: &BinaryOperator, right: &Side) -> Option<(String, String)> {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        let turned = match op {
            Eq | NotEq => op.clone(),
            Lt => Gt,
            LtEq => GtEq,
            Gt => Lt,
            GtEq => LtEq,
            _ => return None,
        };
        match (left, right) {
            (Side::Column(_) | Side::Length(_), Side::Column(_) | Side::Length(_)) => {
                let same = self.kind(left)? == self.kind(right)?;
                same.then(|| Some((self.sql(left)?, self.sql(right)?)))?
            }
            (Side::Column(_) | Side::Length(_), _) => {
                Some((self.sql(left)?, Self::literal(self.kind(left)?, op, right)?))
            }
            (_, Side::Column(_) | Side::Length(_)) => {
                Some((Self::literal(self.kind(right)?, &turned, left)?, self.sql(right)?))
            }
            _ => None,
        }
    }

    /// Returns a literal as a value of the kind that it is compared with.
    fn literal(kind: Kind, op: &BinaryOperator, value: &Side) -> Option<String> {
        use BinaryOperator::{Eq, GtEq, Lt, NotEq};
        match (kind, value) {
            (Kind::Integer, Side::Integer(number)) => Some(number.to_string()),
            // Beyond 15 digits, the two differ in precision.
            (Kind::Decimal | Kind::Real, Side::Integer(number)) if number.unsigned_abs() <= 10_u64.pow(15) => {
                Some(number.to_string())
            }
            (Kind::Decimal | Kind::Real, Side::Real(number)) => Some(number.clone()),
            (Kind::Text, Side::Text(text)) => Some(literal(text)),
            (Kind::Date, Side::Text(text)) if is_date(text) => Some(format!("CAST('{text}' AS DATE)")),
            (Kind::Timestamp, Side::Text(text)) if is_timestamp(text) => {
                Some(format!("CAST('{text}' AS TIMESTAMP(6))"))
            }
            // As text, a day sorts before each of its moments; as a timestamp, it is the first of them.
            (Kind::Timestamp, Side::Text(text)) if is_date(text) && matches!(op, GtEq | Lt) => {
                Some(format!("CAST('{text}' AS TIMESTAMP(6))"))
            }
            (Kind::Boolean, Side::Integer(number @ (0 | 1))) if matches!(op, Eq | NotEq) => {
                Some(if *number == 1 { "TRUE" } else { "FALSE" }.to_owned())
            }
            _ => None,
        }
    }

    fn side(&self, expr: &Expr) -> Option<Side> {
        Some(match expr {
            Expr::Nested(inner) => self.side(inner)?,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Side::Column(self.column(expr)?),
            Expr::Function(function) => Side::Length(self.length(function)?),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match self.side(expr)? {
                Side::Integer(number) => Side::Integer(number.checked_neg()?),
                Side::Real(number) => Side::Real(format!("-{number}")),
                _ => return None,
            },
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Side::Text(text.clone()),
                Value::Number(number, _) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                    Side::Integer(number.parse().ok()?)
                }
                Value::Number(number, _) if number.parse::<f64>().is_ok_and(f64::is_finite) => {
                    Side::Real(number.clone())
                }
                _ => return None,
            },
            _ => return None,
        })
    }

    fn length(&self, function: &Function) -> Option<usize> {
        let FunctionArguments::List(arguments) = &function.args else { return None };
        let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = arguments.args.as_slice() else { return None };
        if !function.name.to_string().eq_ignore_ascii_case("length")
            || function.filter.is_some()
            || function.over.is_some()
        {
            return None;
        }
        let at = self.column(argument)?;
        (self.table.columns[at].data_type == DataType::Utf8 && self.stored[at].affinity.keeps_text()).then_some(at)
    }

    /// Returns the column of an expression. SQLite's column names are case-insensitive.
    fn column(&self, expr: &Expr) -> Option<usize> {
        let name = match expr {
            Expr::Nested(inner) => return self.column(inner),
            Expr::Identifier(name) => name,
            Expr::CompoundIdentifier(names) => match names.as_slice() {
                [table, name] if table.value.eq_ignore_ascii_case(&self.table.name) => name,
                _ => return None,
            },
            _ => return None,
        };
        self.table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(&name.value))
    }

    fn name(&self, at: usize) -> String {
        ident(&self.table.columns[at].name)
    }

    fn sql(&self, side: &Side) -> Option<String> {
        match side {
            Side::Column(at) => Some(self.name(*at)),
            Side::Length(at) => Some(format!("character_length({})", self.name(*at))),
            _ => None,
        }
    }

    /// Returns the kind of comparison of a side; None if SQLite has a special one.
    fn kind(&self, side: &Side) -> Option<Kind> {
        let at = match side {
            Side::Length(_) => return Some(Kind::Integer),
            Side::Column(at) => *at,
            _ => return None,
        };
        let stored = self.stored[at];
        Some(match &self.table.columns[at].data_type {
            DataType::Int64 => Kind::Integer,
            DataType::Decimal128(..) => Kind::Decimal,
            DataType::Float64 => Kind::Real,
            DataType::Utf8 if stored.binary && stored.affinity.keeps_text() => Kind::Text,
            DataType::Date32 if stored.binary => Kind::Date,
            DataType::Time64(_) if stored.binary => Kind::Time,
            DataType::Timestamp(..) if stored.binary => Kind::Timestamp,
            DataType::Boolean => Kind::Boolean,
            _ => return None,
        })
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

#[cfg(test)]
mod tests {
    use super::super::catalog;
    use crate::engine::{Engine, Limits};
    use crate::target::CatalogTable;
    use arrow::array::{AsArray, RecordBatch, StringArray};
    use std::sync::Arc;

    fn table(sql: &str) -> CatalogTable {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        let catalog = catalog::read(&connection, None).unwrap();
        catalog.tables[0].as_ref().clone()
    }

    fn translated(check: &str) -> Option<String> {
        let table = table(&format!(
            "CREATE TABLE Item (n INTEGER, m INTEGER, Name TEXT, other VARCHAR(9), nc TEXT COLLATE NOCASE, d DATE, e DATE, at TIMESTAMP,
                 price DECIMAL(10,2), flag BOOLEAN, code UUID, CONSTRAINT c CHECK ({check}))"
        ));
        assert_eq!(
            table.checks.iter().filter(|check| check.name == "c").count() + table.database_checks.len(),
            1,
            "{check}"
        );
        table.checks.iter().find(|check| check.name == "c").map(|check| check.sql.clone())
    }

    #[test]
    fn check_of_same_meaning_is_translated_with_catalog_names() {
        for (check, expected) in [
            ("N > 0 and NAME in ('A', 'it''s')", r#""n" > 0 AND "Name" IN ('A', 'it''s')"#),
            ("NOT (n BETWEEN -5 AND 9) OR item.name IS NULL", r#"NOT ("n" BETWEEN -5 AND 9) OR "Name" IS NULL"#),
            ("length(name) <= 3", r#"character_length("Name") <= 3"#),
            ("5 < n AND n <> m AND name = other", r#"5 < "n" AND "n" <> "m" AND "Name" = "other""#),
            ("d >= '2000-01-01' AND d < e", r#""d" >= CAST('2000-01-01' AS DATE) AND "d" < "e""#),
            ("at < '2000-01-01'", r#""at" < CAST('2000-01-01' AS TIMESTAMP(6))"#),
            ("at = '2000-01-01 12:00:00'", r#""at" = CAST('2000-01-01 12:00:00' AS TIMESTAMP(6))"#),
            ("price >= 0 AND price < 99.5", r#""price" >= 0 AND "price" < 99.5"#),
            ("flag IN (0, 1)", r#""flag" IN (FALSE, TRUE)"#),
            ("nc IS NOT NULL", r#""nc" IS NOT NULL"#),
            ("length(nc) = 2", r#"character_length("nc") = 2"#),
        ] {
            assert_eq!(translated(check).as_deref(), Some(expected), "{check}");
        }
    }

    #[test]
    fn check_that_sqlite_decides_its_own_way_is_not_translated() {
        for check in [
            "name LIKE 'a%'",
            "substr(name, -2) = 'xx'",
            "CAST(name AS INTEGER) > 0",
            "coalesce(name, n) = 1",
            "upper(name) = 'Ä'",
            "nc = 'a'",
            "nc IN ('a', 'b')",
            "name = 'a' COLLATE NOCASE",
            "name > 5",
            "n = '5'",
            "n > 1.5",
            "n < price",
            "d >= '2000-1-1'",
            "at <= '2000-01-01'",
            "at > d",
            "code = '007'",
            "n",
            "name GLOB 'A*'",
            "n + 1 > 2",
            "length(n) = 2",
            "flag > 0",
            "name = \"text\"",
            "n > 0 AND name LIKE 'a%'",
        ] {
            assert_eq!(translated(check), None, "{check}");
        }
    }

    #[test]
    fn every_check_that_is_passed_on_is_sql_of_the_engines() {
        let table = table(
            "CREATE TABLE t (n INTEGER CHECK (n > 0), d DATE CHECK (d > '1900-01-01'), at TIMESTAMP CHECK (at < '9999-12-31 00:00:00'),
                 s TEXT CHECK (length(s) BETWEEN 1 AND 3), p DECIMAL(38,2) CHECK (p < 1.5), b BOOLEAN CHECK (b = 1), u UUID)",
        );
        assert_eq!((table.checks.len(), table.unsupported_constraints.len()), (7, 0));
        let engine = Engine::try_new(Limits::default()).unwrap();
        for check in &table.checks {
            engine.expression(&check.sql, &table.schema()).unwrap();
        }
    }

    #[test]
    fn text_that_sqlite_would_change_is_recognized() {
        let made = "CREATE TABLE t (code UUID, plain VARCHAR(9), none, amount MONEY, any ANY)";
        let table = table(made);
        let names: Vec<_> = table.checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["kept_as_text(code)", "kept_as_text(amount)", "kept_as_text(any)"]);
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(made).unwrap();
        let engine = Engine::try_new(Limits::default()).unwrap();
        let expression = engine.expression(&table.checks[0].sql, &table.schema().project(&[0]).unwrap()).unwrap();
        for text in [
            "007",
            "1e5",
            "1.50",
            "+5",
            "-0",
            "0",
            "-7",
            " 5",
            "5 ",
            "5.",
            ".5",
            "0.5",
            "1.5",
            "12.25",
            "abc",
            "",
            "0x1F",
            "9223372036854775807",
            "9223372036854775808",
            "123456789012345678901",
            "0.0001",
            "0.00001",
            "1-2",
            "12a",
            "123456789.1234567",
            "1E400",
            "550e8400-e29b-41d4-a716-446655440000",
            "1e",
            "-1.5",
            "0.0",
            "10000000000000.5",
            "123456789.5",
        ] {
            connection.execute("INSERT INTO t (code) VALUES (?1)", [text]).unwrap();
            let back: String = connection
                .query_row("SELECT CAST(code AS TEXT) FROM t WHERE rowid = last_insert_rowid()", [], |row| row.get(0))
                .unwrap();
            let batch = RecordBatch::try_new(
                Arc::new(table.schema().project(&[0]).unwrap()),
                vec![Arc::new(StringArray::from(vec![text]))],
            )
            .unwrap();
            let kept = expression.evaluate(&batch).unwrap().as_boolean().value(0);
            // Of numbers with more than 15 digits some are kept, but none is accepted.
            let long = text == "123456789.1234567";
            assert_eq!(kept, back == text && !long, "{text} became {back}");
        }
    }

    #[test]
    fn a_strict_table_keeps_what_it_is_given() {
        let table = table("CREATE TABLE t (a ANY, b TEXT, n INTEGER, CHECK (a = 'x')) STRICT");
        assert_eq!(table.checks.iter().map(|check| check.sql.as_str()).collect::<Vec<_>>(), [r#""a" = 'x'"#]);
    }
}
