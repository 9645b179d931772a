//! The parts of a condition: their SQL, and the kind of comparison that they take part in.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Value};

use crate::engine::literal;

/// The kind of comparison that a part takes part in.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Integer,
    /// The total digits, the digits behind the point, and the most that the engine keeps.
    Decimal(i16, i16, i16),
    Real,
    Text,
    /// Text whose trailing blanks are ignored.
    Padded,
    Boolean,
    Date,
    Time,
    Timestamp,
    Moment,
    /// A text as a value of a named type, which the other side must have.
    Named(String),
    /// A text without a type so far.
    Untyped,
    /// A value that can only be tested for NULL.
    Opaque,
}

/// How tightly a part binds, loosest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Or,
    And,
    Not,
    Comparison,
    Sum,
    Product,
    One,
}

#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) sql: String,
    pub(super) kind: Kind,
    pub(super) level: Level,
    /// The value, if it is a literal.
    pub(super) constant: Option<String>,
    /// The declared type, if it is a column.
    pub(super) declared: Option<String>,
}

impl Part {
    pub(super) fn new(kind: Kind, level: Level, sql: String) -> Self {
        Self { sql, kind, level, constant: None, declared: None }
    }

    pub(super) fn one(kind: Kind, sql: String) -> Self {
        Self::new(kind, Level::One, sql)
    }

    pub(super) fn constant(kind: Kind, sql: String, constant: &str) -> Self {
        Self { constant: Some(constant.to_owned()), ..Self::one(kind, sql) }
    }

    pub(super) fn text(kind: Kind, text: &str) -> Self {
        Self::constant(kind, literal(text), text)
    }

    /// Returns its SQL as an operand inside something that binds as `level`.
    pub(super) fn at(&self, level: Level) -> String {
        if self.level >= level { self.sql.clone() } else { format!("({})", self.sql) }
    }

    /// Returns its SQL as a side of a comparison. For real numbers it turns -0 into 0.
    pub(super) fn side(&self) -> String {
        if self.kind == Kind::Real && self.constant.is_none() {
            format!("{} + 0.0", self.at(Level::Sum))
        } else {
            self.at(Level::Sum)
        }
    }
}

pub(super) fn decimal(digits: i16, scale: i16, most: i16) -> Option<Kind> {
    (scale >= 0 && digits >= scale.max(1) && digits <= most).then_some(Kind::Decimal(digits, scale, most))
}

pub(super) fn constant(value: &Value) -> Option<Part> {
    Some(match value {
        Value::Boolean(true) => Part::one(Kind::Boolean, "TRUE".into()),
        Value::Boolean(false) => Part::one(Kind::Boolean, "FALSE".into()),
        Value::SingleQuotedString(text) => Part::text(Kind::Untyped, text),
        Value::Number(number, false) if number.contains('.') => exact(number)?,
        Value::Number(number, false) => whole(number)?,
        _ => return None,
    })
}

fn whole(number: &str) -> Option<Part> {
    let number: i64 = number.parse().ok().filter(|number| *number > i64::MIN)?;
    Some(Part::constant(Kind::Integer, number.to_string(), &number.to_string()))
}

fn exact(number: &str) -> Option<Part> {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let only_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !only_digits(whole) || !only_digits(fraction) || digits.len() > 38 {
        return None;
    }
    if fraction.is_empty() && whole.len() <= 15 {
        // The engine reads it as a decimal of twenty digits.
        return Some(Part::constant(decimal(20, 0, 38)?, number.to_owned(), number));
    }
    let (digits, scale) = ((whole.len() + fraction.len()) as i16, fraction.len() as i16);
    let sql = format!("CAST('{number}' AS DECIMAL({digits},{scale}))");
    Some(Part::constant(decimal(digits, scale, 38)?, sql, number))
}

fn real(number: &str) -> Option<Part> {
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    let negative_zero = number.starts_with('-') && number.parse() == Ok(0.0_f64);
    if !plain || negative_zero || digits > 15 || number.parse::<f64>().is_err() {
        return None;
    }
    let sql = if number.contains('.') { number.to_owned() } else { format!("{number}.0") };
    Some(Part::constant(Kind::Real, sql, number))
}

pub(super) fn cast(part: Part, to: &str) -> Option<Part> {
    let constant = part.constant.clone();
    let number = constant.as_deref().filter(|_| matches!(part.kind, Kind::Untyped | Kind::Integer | Kind::Decimal(..)));
    let text = constant.as_deref().filter(|_| part.kind == Kind::Untyped);
    let lower = to.to_ascii_lowercase();
    match (lower.as_str(), &part.kind) {
        ("text" | "character varying", Kind::Untyped | Kind::Text) => Some(Part { kind: Kind::Text, ..part }),
        ("text" | "character varying", Kind::Padded) => Some(Part { kind: Kind::Text, declared: None, ..part }),
        ("bpchar", Kind::Untyped) => Some(Part::text(Kind::Padded, text?.trim_end_matches(' '))),
        ("integer" | "bigint" | "smallint", Kind::Untyped) => whole(text?),
        ("numeric", Kind::Untyped | Kind::Integer | Kind::Decimal(..)) if number.is_some() => exact(number?),
        ("bpchar", Kind::Padded)
        | ("integer" | "bigint", Kind::Integer)
        | ("numeric", Kind::Decimal(..))
        | ("double precision", Kind::Real) => Some(part),
        ("numeric", Kind::Integer) => {
            Some(Part::one(decimal(19, 0, 38)?, format!("CAST({} AS DECIMAL(19,0))", part.sql)))
        }
        ("double precision", Kind::Untyped | Kind::Integer | Kind::Decimal(..)) if number.is_some() => real(number?),
        ("double precision", Kind::Integer) => Some(Part::one(Kind::Real, format!("CAST({} AS DOUBLE)", part.sql))),
        ("date", Kind::Untyped) => {
            let text = text.filter(|text| is_date(text))?;
            Some(Part::constant(Kind::Date, format!("CAST('{text}' AS DATE)"), text))
        }
        ("timestamp without time zone", Kind::Untyped) => {
            let text = text.filter(|text| is_timestamp(text))?;
            Some(Part::constant(Kind::Timestamp, format!("CAST('{text}' AS TIMESTAMP(6))"), text))
        }
        ("timestamp with time zone", Kind::Untyped) => {
            let text = text?;
            let moment = text.strip_suffix("+00").filter(|moment| is_timestamp(moment))?;
            let sql = format!("arrow_cast('{}Z', 'Timestamp(Microsecond, Some(\"UTC\"))')", moment.replace(' ', "T"));
            Some(Part::constant(Kind::Moment, sql, text))
        }
        ("time without time zone", Kind::Untyped) => {
            let text = text.filter(|text| is_time(text))?;
            Some(Part::constant(Kind::Time, format!("arrow_cast('{text}', 'Time64(Microsecond)')"), text))
        }
        (_, Kind::Untyped) => Some(Part { kind: Kind::Named(to.to_owned()), ..part }),
        _ => None,
    }
}

/// Returns the two sides of a comparison that PostgreSQL and the engine decide alike.
pub(super) fn compared(left: &Part, op: &BinaryOperator, right: &Part) -> Option<(String, String)> {
    let equality = matches!(op, BinaryOperator::Eq | BinaryOperator::NotEq);
    let alike = match (&left.kind, &right.kind) {
        (Kind::Text, Kind::Named(name)) => equality && left.declared.as_ref() == Some(name),
        (Kind::Named(name), Kind::Text) => equality && right.declared.as_ref() == Some(name),
        (Kind::Text | Kind::Padded | Kind::Boolean, kind) => equality && left.kind == *kind,
        (Kind::Decimal(digits, scale, most), Kind::Decimal(other, other_scale, other_most)) => {
            let whole = (digits - scale).max(other - other_scale);
            whole + scale.max(other_scale) <= *most.max(other_most)
        }
        (Kind::Untyped | Kind::Named(_) | Kind::Opaque, _) => false,
        (kind, other) => kind == other,
    };
    // A comparison as an operand of another one needs parentheses.
    let zero = |part: &Part| part.constant.as_ref().is_some_and(|number| number.parse() != Ok(0.0_f64));
    let (left_sql, right_sql) = match left.kind {
        Kind::Real if zero(left) || zero(right) => (left.at(Level::Sum), right.at(Level::Sum)),
        _ => (left.side(), right.side()),
    };
    alike.then_some((left_sql, right_sql))
}

pub(super) fn arithmetic(left: &Kind, op: &BinaryOperator, right: &Kind) -> Option<Kind> {
    match (left, right) {
        (Kind::Integer, Kind::Integer) => Some(Kind::Integer),
        (Kind::Decimal(digits, scale, most), Kind::Decimal(other, other_scale, other_most)) => {
            let most = (*most).min(*other_most);
            match op {
                BinaryOperator::Multiply => decimal(digits + other + 1, scale + other_scale, most),
                _ => {
                    let whole = (digits - scale).max(other - other_scale);
                    let scale = *scale.max(other_scale);
                    decimal(whole + scale + 1, scale, most)
                }
            }
        }
        _ => None,
    }
}

/// Returns whether a text matches a picture, in which `0` is any digit.
fn shaped(text: &str, picture: &str) -> bool {
    text.len() == picture.len()
        && text.bytes().zip(picture.bytes()).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            _ => byte == shape,
        })
}

fn is_date(text: &str) -> bool {
    shaped(text, "0000-00-00")
}

fn is_time(text: &str) -> bool {
    let (time, fraction) = text.split_once('.').unwrap_or((text, "0"));
    shaped(time, "00:00:00")
        && time < "24"
        && (1..=6).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_timestamp(text: &str) -> bool {
    text.split_once(' ').is_some_and(|(date, time)| is_date(date) && is_time(time))
}
