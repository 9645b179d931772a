//! A column of every type, with values of all sizes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float64Array, Int64Array,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, i256};
use proptest::prelude::*;

use super::PgType;
use crate::target::logical_type::LogicalType;

/// A column of the table that has all types.
pub(super) struct Column {
    pub(super) declared: &'static str,
    pub(super) pg: PgType,
    pub(super) values: BoxedStrategy<ArrayRef>,
    /// Converts Arrow's notation to the server's; None if they differ too much to compare.
    pub(super) shown: Option<fn(String) -> String>,
}

pub(super) const ROWS: usize = 60;

fn optional<T: Clone + std::fmt::Debug + 'static>(
    values: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Vec<Option<T>>> {
    proptest::collection::vec(proptest::option::weighted(0.9, values), ROWS)
}

fn integers(declared: &'static str, pg: PgType, least: i64, most: i64) -> Column {
    let values = prop_oneof![6 => least..=most, 1 => Just(least), 1 => Just(most), 1 => -1..=1_i64];
    let values = values.prop_map(move |value| value.clamp(least, most));
    let values = optional(values).prop_map(|values| Arc::new(Int64Array::from(values)) as ArrayRef).boxed();
    Column { declared, pg, values, shown: Some(|text| text) }
}

fn texts(declared: &'static str, pg: PgType, values: impl Strategy<Value = String> + 'static) -> Column {
    let values = optional(values).prop_map(|values| Arc::new(StringArray::from(values)) as ArrayRef).boxed();
    Column { declared, pg, values, shown: Some(|text| text) }
}

fn listed(declared: &'static str, pg: PgType, values: &'static [&'static str]) -> Column {
    texts(declared, pg, proptest::sample::select(values).prop_map(str::to_owned))
}

fn decimals(declared: &'static str, precision: Option<u8>, scale: i8) -> Column {
    let digits = u32::from(precision.unwrap_or(76));
    let most = i256::from(10).wrapping_pow(digits) - i256::ONE;
    let any = (any::<(u128, i128)>(), 0..=digits)
        .prop_map(move |((low, high), cut)| i256::from_parts(low, high) % most / i256::from(10).wrapping_pow(cut));
    let ones = prop_oneof![Just(most), Just(most.wrapping_neg()), Just(i256::ZERO), Just(i256::ONE)];
    let powers = (0..digits).prop_map(|power| i256::from(10).wrapping_pow(power));
    let values = prop_oneof![6 => any, 2 => ones, 2 => powers];
    let pg = PgType::Numeric { precision: precision.map(u16::from), scale: scale.into() };
    let arrow = pg.arrow();
    let values = optional(values).prop_map(move |values| match arrow {
        DataType::Decimal128(p, s) => {
            let values = values.into_iter().map(|value| value.map(i256::as_i128));
            Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(p, s).unwrap()) as ArrayRef
        }
        _ => Arc::new(Decimal256Array::from_iter(values).with_precision_and_scale(digits as u8, scale).unwrap()),
    });
    Column {
        declared,
        pg,
        values: values.boxed(),
        shown: Some(if precision.is_some() {
            |text| text
        } else {
            |text| text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }),
    }
}

/// Numbers in text, as the server writes them.
fn wide(declared: &'static str, precision: u16, scale: i16) -> Column {
    let form = LogicalType::Number { precision, scale };
    let digits = format!("-?[0-9]{{1,{precision}}}");
    let values = proptest::string::string_regex(&digits)
        .unwrap()
        .prop_map(move |text| form.canonical(&format!("{text}e{}", -scale)).unwrap().into_owned());
    texts(declared, PgType::Numeric { precision: Some(precision), scale }, values)
}

fn moments(declared: &'static str, zone: Option<&'static str>, pg: PgType) -> Column {
    const DAY: i64 = 86_400_000_000;
    let (first, last) = (-719_162 * DAY, 2_932_897 * DAY - 1);
    let values = prop_oneof![6 => first..=last, 1 => Just(first), 1 => Just(last), 1 => Just(-1_i64), 1 => Just(0)];
    let values = optional(values).prop_map(move |values| {
        let values = TimestampMicrosecondArray::from(values);
        Arc::new(values.with_timezone_opt(zone)) as ArrayRef
    });
    Column {
        declared,
        pg,
        values: values.boxed(),
        shown: Some(|text| {
            let (text, zone) = text.strip_suffix('Z').map_or((text.as_str(), ""), |text| (text, "+00"));
            without_zeros(&text.replace('T', " ")) + zone
        }),
    }
}

fn without_zeros(time: &str) -> String {
    if time.contains('.') { time.trim_end_matches('0').trim_end_matches('.').to_owned() } else { time.to_owned() }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => any::<String>().prop_map(|text| text.replace('\0', "")),
        1 => Just(String::new()),
        1 => (1..30_000_usize).prop_map(|length| "ä".repeat(length)),
        1 => "[ -~\\n\\t\\\\\"{},]{0,80}",
    ]
}

pub(super) fn columns() -> Vec<Column> {
    let moment = |values: BoxedStrategy<ArrayRef>, declared, pg, shown| Column { declared, pg, values, shown };
    let floats = |single: bool| {
        let any = proptest::num::f64::NORMAL | proptest::num::f64::ZERO | proptest::num::f64::SUBNORMAL;
        let extremes = proptest::sample::select(vec![f64::MAX, f64::MIN, 0.1, f64::MIN_POSITIVE, 1e22]);
        let singles = proptest::num::f32::NORMAL.prop_map(f64::from);
        let values = if single { singles.boxed() } else { prop_oneof![any, extremes].boxed() };
        optional(values).prop_map(|values| Arc::new(Float64Array::from(values)) as ArrayRef).boxed()
    };
    let days = prop_oneof![6 => -719_162..=2_932_896_i32, 1 => Just(-719_162), 1 => Just(2_932_896), 1 => Just(0)];
    let times = prop_oneof![6 => 0..86_400_000_000_i64, 1 => Just(0), 1 => Just(86_399_999_999)];
    vec![
        moment(
            optional(any::<bool>()).prop_map(|values| Arc::new(BooleanArray::from(values)) as ArrayRef).boxed(),
            "bool",
            PgType::Bool,
            Some(|text| text),
        ),
        integers("int2", PgType::Int2, i16::MIN.into(), i16::MAX.into()),
        integers("int4", PgType::Int4, i32::MIN.into(), i32::MAX.into()),
        integers("int8", PgType::Int8, i64::MIN, i64::MAX),
        integers("positive", PgType::Int4, 0, i32::MAX.into()),
        moment(floats(true), "float4", PgType::Float4, None),
        moment(floats(false), "float8", PgType::Float8, None),
        decimals("numeric(1,0)", Some(1), 0),
        decimals("numeric(10,2)", Some(10), 2),
        decimals("numeric(38,0)", Some(38), 0),
        decimals("numeric(38,7)", Some(38), 7),
        decimals("numeric(38,38)", Some(38), 38),
        decimals("numeric(39,1)", Some(39), 1),
        decimals("numeric(76,0)", Some(76), 0),
        decimals("numeric(76,21)", Some(76), 21),
        decimals("numeric(76,76)", Some(76), 76),
        decimals("numeric", None, 38),
        wide("numeric(1000,500)", 1000, 500),
        wide("numeric(100,0)", 100, 0),
        wide("numeric(5,-2)", 5, -2),
        wide("numeric(3,5)", 3, 5),
        texts("text", PgType::Text, any_text()),
        texts("varchar(40)", PgType::Text, any_text().prop_map(|text| text.chars().take(40).collect())),
        texts(
            "char(12)",
            PgType::Padded,
            any_text().prop_map(|text| {
                let text: String = text.chars().take(12).collect();
                text.trim_end_matches(' ').to_owned()
            }),
        ),
        texts("name", PgType::Text, "[a-zA-Z0-9_ ]{0,63}"),
        listed("mood", PgType::Enum, &["sad", "o'k", "hüpf", ""]),
        listed("json", PgType::Json, &["{}", " {\"b\": 1, \"a\" : [1,2 ] }", "\"\\u0000\"", "null", "1e5000"]),
        listed("jsonb", PgType::Jsonb, &["{}", "{\"a\": [1, 2], \"b\": 1}", "\"ä\\n\"", "null", "-0.10"]),
        texts("uuid", PgType::Uuid, "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
        moment(
            optional(any::<Vec<u8>>()).prop_map(|values| Arc::new(BinaryArray::from_iter(values)) as ArrayRef).boxed(),
            "bytea",
            PgType::Bytea,
            None,
        ),
        moment(
            optional(days).prop_map(|values| Arc::new(Date32Array::from(values)) as ArrayRef).boxed(),
            "date",
            PgType::Date,
            Some(|text| text),
        ),
        moment(
            optional(times).prop_map(|values| Arc::new(Time64MicrosecondArray::from(values)) as ArrayRef).boxed(),
            "time",
            PgType::Time,
            Some(|text| without_zeros(&text)),
        ),
        moments("timestamp", None, PgType::Timestamp),
        moments("timestamptz", Some("UTC"), PgType::Timestamptz),
        listed("interval", PgType::Interval, &["1 year 2 mons -3 days +04:05:06.789", "00:00:00", "-178000000 years"]),
        listed("int4[]", PgType::Array(Box::new(PgType::Int4)), &["{}", "{1,NULL,-3}", "{{1,2},{3,4}}"]),
        listed("text[]", PgType::Array(Box::new(PgType::Text)), &["{}", "{a,\"NULL\",NULL,\"b, \\\"c\\\\\"}"]),
        listed("inet", PgType::Other, &["10.0.0.1/32", "::1/128", "10.0.0.0/8"]),
    ]
}

pub(super) fn schema(columns: &[Column]) -> SchemaRef {
    let fields = columns.iter().enumerate().map(|(at, column)| Field::new(format!("c{at}"), column.pg.arrow(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
