//! Translation of production's conditions into the engine's SQL.
//!
//! A condition is translated if PostgreSQL and the engine surely agree on it; production decides all others. The texts are the server's own
//! (`pg_get_expr`), with explicit casts and parentheses. PostgreSQL orders and folds text by locale, pads `char(n)` with blanks, equates -0
//! and 0, and has its own rounding.

mod part;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, UnaryOperator,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::regex::{self, Pattern};
use crate::engine::{ident, literal};
use crate::target::CatalogColumn;
use crate::target::logical_type::LogicalType;
use part::{Kind, Level, Part, arithmetic, cast, compared, constant, decimal};

/// A condition in the engine's SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Translation {
    pub(super) sql: String,
    /// Whether rows with non-ASCII text pass, because only production can evaluate them.
    pub(super) of_ascii: bool,
}

/// Translates a condition that every row must satisfy; None if the two could evaluate a row with ASCII text differently.
///
/// `columns` must not have columns with a special comparison. `value` is the column that a domain's VALUE stands for.
pub(super) fn translate(expr: &str, columns: &[CatalogColumn], value: Option<&str>) -> Option<Translation> {
    let (condition, unsure) = read(expr, columns, value)?;
    if unsure.is_empty() {
        return Some(Translation { sql: condition.sql, of_ascii: false });
    }
    // A literal can make the text of any row non-ASCII.
    expr.is_ascii()
        .then(|| Translation { sql: format!("{} OR {}", condition.at(Level::Or), unsure.join(" OR ")), of_ascii: true })
}

/// Translates a condition that selects rows; None also if only production can evaluate some of them.
pub(super) fn translate_exactly(expr: &str, columns: &[CatalogColumn]) -> Option<String> {
    read(expr, columns, None).filter(|(_, unsure)| unsure.is_empty()).map(|(condition, _)| condition.sql)
}

/// Returns the condition, and SQL for the rows that only production can evaluator.
fn read(expr: &str, columns: &[CatalogColumn], value: Option<&str>) -> Option<(Part, Vec<String>)> {
    let mut parser = Parser::new(&PostgreSqlDialect {}).with_tokens(tokens(expr)?);
    let parsed = parser.parse_expr().ok()?;
    let mut translator = Translator { columns, value, unsure: Vec::new() };
    let ended = parser.peek_token().token == Token::EOF;
    let condition = translator.part(&parsed).filter(|part| ended && part.kind == Kind::Boolean)?;
    Some((condition, translator.unsure))
}

/// Returns the tokens of a text. Replaces `TRIM(BOTH FROM x)`, which the parser does not support, with `btrim(x)`.
fn tokens(expr: &str) -> Option<Vec<Token>> {
    let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, expr).tokenize().ok()?;
    tokens.retain(|token| !matches!(token, Token::Whitespace(_)));
    let word = |token: &Token, keyword| matches!(token, Token::Word(word) if word.keyword == keyword);
    for at in 0..tokens.len() {
        let Some([trim, Token::LParen, side, from, ..]) = tokens.get(at..) else { continue };
        let names = [(Keyword::BOTH, "btrim"), (Keyword::LEADING, "ltrim"), (Keyword::TRAILING, "rtrim")];
        let name = names.iter().find(|(keyword, _)| word(side, *keyword)).map(|(_, name)| *name);
        if let Some(name) = name.filter(|_| word(trim, Keyword::TRIM) && word(from, Keyword::FROM)) {
            tokens.splice(at..at + 4, [Token::make_word(name, None), Token::LParen]);
        }
    }
    Some(tokens)
}

struct Translator<'a> {
    columns: &'a [CatalogColumn],
    value: Option<&'a str>,
    unsure: Vec<String>,
}

impl Translator<'_> {
    fn part(&mut self, expr: &Expr) -> Option<Part> {
        match expr {
            Expr::Nested(inner) => self.part(inner),
            Expr::Identifier(name) => self.column(name),
            Expr::Value(value) => constant(&value.value),
            Expr::Cast { expr, data_type, array: false, format: None, .. } => {
                cast(self.part(expr)?, &data_type.to_string())
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                let inner = self.boolean(expr)?;
                Some(Part::new(Kind::Boolean, Level::Not, format!("NOT {}", inner.at(Level::Comparison))))
            }
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
                let inner = self.part(expr).filter(|part| part.kind == Kind::Integer && part.constant.is_none())?;
                Some(Part::new(Kind::Integer, Level::Product, format!("-{}", inner.at(Level::One))))
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => self.list(left, right, false),
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => self.list(left, right, true),
            Expr::IsNull(inner) => self.asked(inner, "NULL", false),
            Expr::IsNotNull(inner) => self.asked(inner, "NOT NULL", false),
            Expr::IsTrue(inner) => self.asked(inner, "TRUE", true),
            Expr::IsNotTrue(inner) => self.asked(inner, "NOT TRUE", true),
            Expr::IsFalse(inner) => self.asked(inner, "FALSE", true),
            Expr::IsNotFalse(inner) => self.asked(inner, "NOT FALSE", true),
            Expr::IsUnknown(inner) => self.asked(inner, "NULL", true),
            Expr::IsNotUnknown(inner) => self.asked(inner, "NOT NULL", true),
            Expr::IsDistinctFrom(left, right) => self.distinct(left, right, "IS DISTINCT FROM"),
            Expr::IsNotDistinctFrom(left, right) => self.distinct(left, right, "IS NOT DISTINCT FROM"),
            Expr::Function(function) => self.function(function),
            _ => None,
        }
    }

    fn boolean(&mut self, expr: &Expr) -> Option<Part> {
        self.part(expr).filter(|part| part.kind == Kind::Boolean)
    }

    fn column(&self, name: &Ident) -> Option<Part> {
        let wanted = match self.value {
            Some(value) => (name.value == "VALUE" && name.quote_style.is_none()).then_some(value)?,
            None => &name.value,
        };
        let column = self.columns.iter().find(|column| column.name == wanted)?;
        let sql = ident(&column.name);
        let kind = match (&column.data_type, &column.form) {
            (DataType::Int64, _) => Kind::Integer,
            (DataType::Decimal128(digits, scale), _) => decimal(i16::from(*digits), i16::from(*scale), 38)?,
            (DataType::Decimal256(digits, scale), _) => decimal(i16::from(*digits), i16::from(*scale), 76)?,
            (DataType::Float64, _) => Kind::Real,
            (DataType::Utf8, LogicalType::Plain | LogicalType::Text) => Kind::Text,
            (DataType::Utf8, LogicalType::Padded) => Kind::Padded,
            (DataType::Boolean, _) => Kind::Boolean,
            (DataType::Date32, _) => Kind::Date,
            (DataType::Time64(_), _) => Kind::Time,
            (DataType::Timestamp(TimeUnit::Microsecond, None), _) => Kind::Timestamp,
            (DataType::Timestamp(TimeUnit::Microsecond, Some(_)), _) => Kind::Moment,
            _ => Kind::Opaque,
        };
        let sql = match (&kind, &column.form) {
            (Kind::Padded, _) => format!("rtrim({sql})"),
            (Kind::Real, LogicalType::Single) => format!("CAST({sql} AS REAL)"),
            _ => sql,
        };
        Some(Part { declared: Some(column.declared.clone()), ..Part::one(kind, sql) })
    }

    fn asked(&mut self, inner: &Expr, what: &str, of_boolean: bool) -> Option<Part> {
        let part = self.part(inner).filter(|part| part.kind != Kind::Untyped)?;
        if of_boolean && part.kind != Kind::Boolean {
            return None;
        }
        Some(Part::new(Kind::Boolean, Level::Comparison, format!("{} IS {what}", part.at(Level::One))))
    }

    fn distinct(&mut self, left: &Expr, right: &Expr, word: &str) -> Option<Part> {
        let (left, right) = (self.part(left)?, self.part(right)?);
        let (left, right) = compared(&left, &BinaryOperator::Eq, &right)?;
        Some(Part::new(Kind::Boolean, Level::Comparison, format!("{left} {word} {right}")))
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Part> {
        use BinaryOperator as Op;
        let (left, right) = (self.part(left)?, self.part(right)?);
        let both = |kind: &Kind| left.kind == *kind && right.kind == *kind;
        let (kind, level, sql) = match op {
            Op::And | Op::Or if both(&Kind::Boolean) => {
                let level = if *op == Op::And { Level::And } else { Level::Or };
                (Kind::Boolean, level, format!("{} {op} {}", left.at(level), right.at(level)))
            }
            Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq => {
                let (left, right) = compared(&left, op, &right)?;
                (Kind::Boolean, Level::Comparison, format!("{left} {op} {right}"))
            }
            Op::PGLikeMatch | Op::PGNotLikeMatch | Op::PGILikeMatch | Op::PGNotILikeMatch if both(&Kind::Text) => {
                let pattern = right.constant.as_ref().filter(|pattern| like(pattern))?;
                let word = match op {
                    Op::PGLikeMatch => "LIKE",
                    Op::PGNotLikeMatch => "NOT LIKE",
                    Op::PGILikeMatch => "ILIKE",
                    _ => "NOT ILIKE",
                };
                if word.ends_with("ILIKE") {
                    pattern.is_ascii().then(|| self.of_ascii(&left))?;
                }
                let sql = format!("{} {word} {}", left.at(Level::Sum), literal(pattern));
                (Kind::Boolean, Level::Comparison, sql)
            }
            Op::PGRegexMatch | Op::PGRegexNotMatch | Op::PGRegexIMatch | Op::PGRegexNotIMatch if both(&Kind::Text) => {
                let pattern = right.constant.as_ref()?;
                let mut translated = regex::translate(pattern)?;
                if matches!(op, Op::PGRegexIMatch | Op::PGRegexNotIMatch) {
                    pattern.is_ascii().then_some(())?;
                    translated = Pattern { text: format!("(?i){}", translated.text), of_ascii: true };
                }
                if translated.of_ascii {
                    self.of_ascii(&left);
                }
                let matched = format!("regexp_like({}, {})", left.sql, literal(&translated.text));
                match op {
                    Op::PGRegexMatch | Op::PGRegexIMatch => (Kind::Boolean, Level::One, matched),
                    _ => (Kind::Boolean, Level::Not, format!("NOT {matched}")),
                }
            }
            Op::Plus | Op::Minus | Op::Multiply => {
                let level = if *op == Op::Multiply { Level::Product } else { Level::Sum };
                let kind = arithmetic(&left.kind, op, &right.kind)?;
                let tighter = if *op == Op::Multiply { Level::One } else { Level::Product };
                (kind, level, format!("{} {op} {}", left.at(level), right.at(tighter)))
            }
            _ => return None,
        };
        Some(Part::new(kind, level, sql))
    }

    /// Translates `= ANY (ARRAY[…])` and `<> ALL (ARRAY[…])`.
    fn list(&mut self, value: &Expr, list: &Expr, negated: bool) -> Option<Part> {
        let mut list = list;
        let mut as_text = false;
        let items = loop {
            match list {
                Expr::Nested(inner) => list = inner,
                Expr::Cast { expr, data_type, array: false, format: None, .. } if !as_text => {
                    (data_type.to_string() == "TEXT[]").then_some(())?;
                    (list, as_text) = (expr, true);
                }
                Expr::Array(array) => break &array.elem,
                _ => return None,
            }
        };
        let value = self.part(value)?;
        let op = if negated { BinaryOperator::NotEq } else { BinaryOperator::Eq };
        let (mut left, mut rights) = (None, Vec::new());
        for item in items {
            let mut item = self.part(item).filter(|item| item.constant.is_some())?;
            if as_text {
                item = cast(item, "text")?;
            }
            let (value, item) = compared(&value, &op, &item)?;
            left = Some(value);
            rights.push(item);
        }
        let left = left?;
        if matches!(value.kind, Kind::Decimal(..) | Kind::Real) {
            let (word, level) = if negated { ("AND", Level::And) } else { ("OR", Level::Or) };
            let each: Vec<_> = rights.iter().map(|right| format!("{left} {op} {right}")).collect();
            return Some(Part::new(Kind::Boolean, level, each.join(&format!(" {word} "))));
        }
        let not = if negated { "NOT " } else { "" };
        Some(Part::new(Kind::Boolean, Level::Comparison, format!("{left} {not}IN ({})", rights.join(", "))))
    }

    fn function(&mut self, function: &Function) -> Option<Part> {
        let FunctionArguments::List(list) = &function.args else { return None };
        let plain = function.filter.is_none()
            && function.over.is_none()
            && function.within_group.is_empty()
            && list.clauses.is_empty()
            && list.duplicate_treatment.is_none();
        let arguments: Option<Vec<&Expr>> = list
            .args
            .iter()
            .map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => Some(argument),
                _ => None,
            })
            .collect();
        let arguments = arguments.filter(|_| plain)?;
        match (function.name.to_string().to_ascii_lowercase().as_str(), arguments.as_slice()) {
            ("length" | "char_length" | "character_length", [text]) => {
                self.of_text("character_length", text, Kind::Integer)
            }
            (name @ ("btrim" | "ltrim" | "rtrim"), [text]) => self.of_text(name, text, Kind::Text),
            (name @ ("upper" | "lower"), [text]) => {
                let part = self.of_text(name, text, Kind::Text)?;
                let text = self.part(text)?;
                self.of_ascii(&text);
                Some(part)
            }
            ("coalesce", [first, others @ ..]) => self.coalesce(first, others),
            ("num_nulls", columns) => self.count(columns, "IS NULL"),
            ("num_nonnulls", columns) => self.count(columns, "IS NOT NULL"),
            _ => None,
        }
    }

    /// Leaves rows with non-ASCII text to production, because its locale decides them.
    fn of_ascii(&mut self, text: &Part) {
        let other = format!("octet_length({0}) > character_length({0})", text.sql);
        if !self.unsure.contains(&other) {
            self.unsure.push(other);
        }
    }

    fn of_text(&mut self, function: &str, text: &Expr, kind: Kind) -> Option<Part> {
        let text = self.part(text)?;
        let known = text.kind == Kind::Text || (text.kind == Kind::Padded && kind == Kind::Integer);
        known.then(|| Part::one(kind, format!("{function}({})", text.sql)))
    }

    fn coalesce(&mut self, first: &Expr, others: &[&Expr]) -> Option<Part> {
        let first = self.part(first)?;
        let mut kind = first.kind.clone();
        let mut all = vec![first.sql];
        for other in others {
            let other = self.part(other)?;
            kind = match (kind, other.kind) {
                (Kind::Decimal(digits, scale, most), Kind::Decimal(other, other_scale, other_most)) => {
                    let scale_of_both = scale.max(other_scale);
                    decimal(
                        (digits - scale).max(other - other_scale) + scale_of_both,
                        scale_of_both,
                        most.min(other_most),
                    )?
                }
                (Kind::Untyped | Kind::Opaque | Kind::Named(_) | Kind::Real, _) => return None,
                (one, same) if one == same => one,
                _ => return None,
            };
            all.push(other.sql);
        }
        Some(Part::one(kind, format!("coalesce({})", all.join(", "))))
    }

    /// Counts how many of these columns are NULL or not NULL.
    fn count(&mut self, columns: &[&Expr], what: &str) -> Option<Part> {
        let mut each = Vec::new();
        for column in columns {
            let column = self.part(column).filter(|part| part.declared.is_some())?;
            each.push(format!("CASE WHEN {} {what} THEN 1 ELSE 0 END", column.sql));
        }
        (!each.is_empty()).then(|| Part::new(Kind::Integer, Level::Sum, each.join(" + ")))
    }
}

/// Returns whether both read a LIKE pattern alike.
fn like(pattern: &str) -> bool {
    !pattern.contains('\\') && pattern.chars().any(|one| one != '%')
}

#[cfg(test)]
mod tests;
