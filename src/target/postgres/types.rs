//! PostgreSQL's types, as far as copying values depends on them.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, TimeUnit};

use crate::target::logical_type::LogicalType;

/// A column's type, as far as copying values depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PgType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// `numeric(precision, scale)`, or `numeric`
    Numeric {
        /// The significant digits; None if unlimited.
        precision: Option<u16>,
        /// The digits behind the point; a negative scale rounds before it.
        scale: i16,
    },
    /// `text`, `varchar`, `name`, `citext`
    Text,
    /// `char(n)`
    Padded,
    Enum,
    Json,
    Jsonb,
    Uuid,
    Bytea,
    Date,
    Time,
    Timestamp,
    /// `timestamp with time zone`
    Timestamptz,
    Interval,
    Array(Box<PgType>),
    Other,
}

/// The decimals for a `numeric` without a precision: 38 digits before the point and 38 behind it.
const UNCONSTRAINED: DataType = DataType::Decimal256(76, 38);

impl PgType {
    /// Returns the Arrow type that holds the values.
    pub(super) fn arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 | Self::Int4 | Self::Int8 => DataType::Int64,
            Self::Float4 | Self::Float8 => DataType::Float64,
            Self::Numeric { precision: None, .. } => UNCONSTRAINED,
            Self::Numeric { precision: Some(precision), scale } => {
                decimal(*precision, *scale).unwrap_or(DataType::Utf8)
            }
            Self::Bytea => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Text
            | Self::Padded
            | Self::Enum
            | Self::Json
            | Self::Jsonb
            | Self::Uuid
            | Self::Interval
            | Self::Array(_)
            | Self::Other => DataType::Utf8,
        }
    }

    /// Returns the constraints on the values beyond their Arrow type.
    pub(super) fn form(&self) -> LogicalType {
        match self {
            Self::Int2 => LogicalType::Integer(16),
            Self::Int4 => LogicalType::Integer(32),
            Self::Float4 => LogicalType::Single,
            Self::Numeric { precision: Some(precision), scale } if self.travels_as_text() => {
                LogicalType::Number { precision: *precision, scale: *scale }
            }
            Self::Text | Self::Enum => LogicalType::Text,
            Self::Other => LogicalType::Opaque,
            Self::Padded => LogicalType::Padded,
            Self::Bytea => LogicalType::Bytes,
            Self::Uuid => LogicalType::Uuid,
            Self::Json => LogicalType::Json,
            Self::Jsonb => LogicalType::Jsonb,
            Self::Interval => LogicalType::Interval,
            Self::Array(element) => LogicalType::Array(Box::new((element.arrow(), element.form()))),
            Self::Bool
            | Self::Int8
            | Self::Float8
            | Self::Numeric { .. }
            | Self::Date
            | Self::Time
            | Self::Timestamp
            | Self::Timestamptz => LogicalType::Plain,
        }
    }

    /// Returns whether values are copied as text: staged in a `text` column, cast by the server on insertion, read with `::text`.
    pub(super) fn travels_as_text(&self) -> bool {
        match self {
            Self::Interval | Self::Array(_) | Self::Other => true,
            Self::Numeric { precision: Some(precision), scale } => decimal(*precision, *scale).is_none(),
            _ => false,
        }
    }

    /// Returns the type in which values are copied.
    pub(super) fn on_the_way(&self) -> &Self {
        if self.travels_as_text() { &Self::Text } else { self }
    }
}

/// Returns Arrow's decimal type for a precision and a scale, if it has one.
fn decimal(precision: u16, scale: i16) -> Option<DataType> {
    let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    if scale < 0 || scale.unsigned_abs() > precision {
        return None;
    }
    match precision {
        1..=DECIMAL128_MAX_PRECISION => Some(DataType::Decimal128(precision, scale)),
        ..=DECIMAL256_MAX_PRECISION => Some(DataType::Decimal256(precision, scale)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(precision: u16, scale: i16) -> PgType {
        PgType::Numeric { precision: Some(precision), scale }
    }

    #[test]
    fn a_number_is_a_decimal_if_arrow_has_one_and_a_text_otherwise() {
        for (pg, arrow, as_text) in [
            (numeric(38, 38), DataType::Decimal128(38, 38), false),
            (numeric(39, 0), DataType::Decimal256(39, 0), false),
            (numeric(76, 76), DataType::Decimal256(76, 76), false),
            (numeric(77, 2), DataType::Utf8, true),
            (numeric(300, 2), DataType::Utf8, true),
            (numeric(5, -2), DataType::Utf8, true),
            (numeric(3, 5), DataType::Utf8, true),
            (PgType::Numeric { precision: None, scale: 0 }, DataType::Decimal256(76, 38), false),
        ] {
            assert_eq!((pg.arrow(), pg.travels_as_text()), (arrow, as_text), "{pg:?}");
        }
        assert_eq!(numeric(5, -2).form(), LogicalType::Number { precision: 5, scale: -2 });
        assert_eq!(numeric(5, 2).form(), LogicalType::Plain);
    }
}
