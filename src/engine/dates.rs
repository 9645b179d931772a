//! Functions that read dates and times from texts by a format.
//!
//! DataFusion's functions read `26` as the year 26 under `%Y`, and choose a century for `%y`. These read years of four
//! digits under `%Y`, and years of two digits only if the source says to which hundred years they belong.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::format::{Item, Numeric, Parsed, StrftimeItems, parse};
use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use datafusion::prelude::SessionContext;

const NAMES: [&str; 7] = [
    "to_date",
    "to_timestamp",
    "to_timestamp_seconds",
    "to_timestamp_millis",
    "to_timestamp_micros",
    "to_timestamp_nanos",
    "to_unixtime",
];

/// A function with strict years.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Dated {
    function: Arc<ScalarUDF>,
    /// The first of the hundred years that two-digit years belong to.
    century: Option<i32>,
}

/// Replaces the functions of a context.
pub(super) fn register(context: &mut SessionContext) -> Result<()> {
    for name in NAMES {
        let function = context.udf(name)?;
        SessionContext::register_udf(context, ScalarUDF::from(Dated { function, century: None }));
    }
    Ok(())
}

/// Returns an expression in which the functions know the century of two-digit years.
pub(super) fn with_century(part: Expr, century: Option<i32>) -> Transformed<Expr> {
    match part {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let dated = func.inner().downcast_ref::<Dated>().filter(|dated| dated.century != century);
            match dated.map(|dated| Dated { function: dated.function.clone(), century }) {
                Some(dated) => {
                    let function = Arc::new(ScalarUDF::from(dated));
                    Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, args)))
                }
                None => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
            }
        }
        part => Transformed::no(part),
    }
}

impl ScalarUDFImpl for Dated {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match args.len() {
            1 => self.function.simplify(args, info),
            _ => Ok(ExprSimplifyResult::Original(args)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_text = |value: &ColumnarValue| {
            matches!(value.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        };
        if args.args.len() < 2 || !args.args.iter().all(is_text) {
            return self.function.invoke_with_args(args);
        }
        let to = args.return_field.data_type().clone();
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let texts = cast(&args.args[0].to_array(rows)?, &DataType::Utf8)?;
        let formats = args.args[1..].iter().map(|format| Formats::new(format, rows)).collect::<Result<Vec<_>>>()?;
        let values = self.values(texts.as_string(), &formats, &to)?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?)),
            false => Ok(ColumnarValue::Array(values)),
        }
    }
}

/// A format for all rows, or one per row.
enum Formats {
    One(Option<String>),
    Each(ArrayRef),
}

impl Formats {
    fn new(format: &ColumnarValue, rows: usize) -> Result<Self> {
        Ok(match format {
            ColumnarValue::Scalar(format) => Self::One(format.try_as_str().flatten().map(str::to_owned)),
            ColumnarValue::Array(_) => Self::Each(cast(&format.to_array(rows)?, &DataType::Utf8)?),
        })
    }

    fn of(&self, row: usize) -> Option<&str> {
        match self {
            Self::One(format) => format.as_deref(),
            Self::Each(formats) => formats.is_valid(row).then(|| formats.as_string::<i32>().value(row)),
        }
    }
}

impl Dated {
    fn values(&self, texts: &StringArray, formats: &[Formats], to: &DataType) -> Result<ArrayRef> {
        // A format for all rows is parsed once.
        let items: Vec<Option<Vec<Item<'_>>>> = formats
            .iter()
            .map(|format| match format {
                Formats::One(format) => format.as_deref().map(|format| StrftimeItems::new(format).collect()),
                Formats::Each(_) => None,
            })
            .collect();
        let mut times: Vec<Option<NaiveDateTime>> = Vec::with_capacity(texts.len());
        for row in 0..texts.len() {
            if texts.is_null(row) {
                times.push(None);
                continue;
            }
            let text = texts.value(row);
            let mut reason = None;
            let mut time = None;
            for (format, items) in formats.iter().zip(&items) {
                let Some(format) = format.of(row) else { continue };
                let read = match items {
                    Some(items) => self.read(text, format, items),
                    None => self.read(text, format, &StrftimeItems::new(format).collect::<Vec<_>>()),
                };
                match read {
                    Ok(read) => {
                        time = Some(read);
                        break;
                    }
                    Err(why) => _ = reason.get_or_insert(why),
                }
            }
            if let (None, Some(reason)) = (time, reason) {
                return exec_err!("{reason}");
            }
            times.push(time);
        }
        typed(&times, to)
    }

    /// Returns the time of a text, or the reason why it has none.
    fn read(&self, text: &str, format: &str, items: &[Item<'_>]) -> std::result::Result<NaiveDateTime, String> {
        let mut parsed = Parsed::new();
        parse(&mut parsed, text, items.iter())
            .map_err(|error| format!("`{text}` does not match `{format}`: {error}"))?;
        let wrong = |error| format!("`{text}` is not a valid time under `{format}`: {error}");
        if let (Some(two), None, None) = (parsed.year_mod_100(), parsed.year(), parsed.year_div_100()) {
            let Some(first) = self.century else {
                return Err(format!("`{text}` has a year of two digits; set `century` of the source"));
            };
            let year = i64::from(first) + (i64::from(two) - i64::from(first)).rem_euclid(100);
            parsed.set_year_div_100(year / 100).map_err(wrong)?;
        }
        let date = parsed.to_naive_date().map_err(wrong)?;
        let of_four_digits = |item: &Item<'_>| matches!(item, Item::Numeric(Numeric::Year | Numeric::IsoYear, _));
        if items.iter().any(of_four_digits) && date.year() < 1000 && !text.contains(&format!("{:04}", date.year())) {
            return Err(format!("the year of `{text}` has fewer than four digits, which `{format}` requires"));
        }
        let time = match parsed.to_naive_time() {
            Ok(time) => time,
            Err(_) if parsed.hour_mod_12().is_none() => NaiveTime::MIN,
            Err(error) => return Err(wrong(error)),
        };
        let local = date.and_time(time);
        match parsed.offset() {
            Some(offset) => local
                .checked_sub_signed(chrono::TimeDelta::seconds(i64::from(offset)))
                .ok_or_else(|| format!("`{text}` is out of range")),
            None => Ok(local),
        }
    }
}

/// Returns times as values of a type.
fn typed(times: &[Option<NaiveDateTime>], to: &DataType) -> Result<ArrayRef> {
    let number = |time: NaiveDateTime, unit: TimeUnit| -> Result<i64> {
        let time = time.and_utc();
        Ok(match unit {
            TimeUnit::Second => time.timestamp(),
            TimeUnit::Millisecond => time.timestamp_millis(),
            TimeUnit::Microsecond => time.timestamp_micros(),
            TimeUnit::Nanosecond => match time.timestamp_nanos_opt() {
                Some(number) => number,
                None => {
                    return exec_err!(
                        "{} is outside 1677–2262, the range of nanoseconds; use `to_timestamp_micros`",
                        time.naive_utc()
                    );
                }
            },
        })
    };
    let all = |unit: TimeUnit| -> Result<ArrayRef> {
        let numbers = times.iter().map(|time| time.map(|time| number(time, unit)).transpose());
        Ok(Arc::new(Int64Array::from(numbers.collect::<Result<Vec<_>>>()?)))
    };
    match to {
        DataType::Date32 => {
            let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap_or_default();
            let day = |time: NaiveDateTime| (time.date() - epoch).num_days() as i32;
            Ok(Arc::new(times.iter().map(|time| time.map(day)).collect::<Date32Array>()))
        }
        DataType::Timestamp(unit, zone) => {
            let plain = cast(&all(*unit)?, &DataType::Timestamp(*unit, None))?;
            match zone {
                None => Ok(plain),
                // The number is the instant already.
                Some(_) => Ok(arrow::array::make_array(plain.to_data().into_builder().data_type(to.clone()).build()?)),
            }
        }
        _ => all(TimeUnit::Second),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{RecordBatch, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::engine::{Engine, Limits, display_value};

    fn read(sql: &str, text: &str, century: Option<&str>) -> std::result::Result<String, String> {
        let engine = Engine::try_new(Limits::default()).unwrap();
        let metadata = century.map(|year| ("century".to_owned(), year.to_owned()));
        let schema =
            Schema::new(vec![Field::new("d", DataType::Utf8, true)]).with_metadata(metadata.into_iter().collect());
        let expression = engine.expression(sql, &schema).unwrap();
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(vec![text]))]).unwrap();
        expression.evaluate(&batch).map(|values| display_value(values.as_ref(), 0))
    }

    #[test]
    fn a_year_of_two_digits_is_never_a_year_of_four() {
        let date = |text: &str| read("to_date(d, '%d.%m.%Y')", text, None);
        assert_eq!(date("26.06.2026").unwrap(), "2026-06-26");
        assert_eq!(date("1.2.1991").unwrap(), "1991-02-01");
        assert_eq!(date("26.06.0026").unwrap(), "0026-06-26");
        assert!(date("26.06.26").unwrap_err().contains("fewer than four digits"));
        assert!(date("26.06.126").is_err() && date("05.05.20205").is_err() && date("31.04.2020").is_err());
        assert!(read("to_timestamp(d, '%d.%m.%Y %H:%M')", "26.06.26 10:00", None).is_err());
    }

    #[test]
    fn two_digits_belong_to_the_century_that_the_source_sets() {
        let date = |text: &str, century| read("to_date(d, '%d.%m.%y')", text, century);
        assert_eq!(date("26.06.29", Some("1930")).unwrap(), "2029-06-26");
        assert_eq!(date("26.06.30", Some("1930")).unwrap(), "1930-06-26");
        assert_eq!(date("26.06.91", Some("1900")).unwrap(), "1991-06-26");
        assert!(date("29.02.00", Some("1900")).is_err(), "1900 was no leap year");
        assert!(date("26.06.29", None).unwrap_err().contains("century"));
    }

    #[test]
    fn the_first_format_that_fits_is_taken() {
        let date = |text: &str| read("to_date(d, '%d.%m.%Y', '%d.%m.%y')", text, Some("1930"));
        assert_eq!(date("26.06.2026").unwrap(), "2026-06-26");
        assert_eq!(date("26.06.26").unwrap(), "2026-06-26");
    }

    #[test]
    fn times_keep_their_clock_and_an_overflow_is_named() {
        assert_eq!(
            read("to_timestamp(d, '%d.%m.%Y %H:%M:%S')", "26.06.2026 10:20:30", None).unwrap(),
            "2026-06-26T10:20:30"
        );
        let overflow = read("to_timestamp(d, '%Y-%m-%d')", "9999-12-31", None).unwrap_err();
        assert!(overflow.contains("outside 1677–2262"), "{overflow}");
        assert_eq!(read("to_timestamp_micros(d, '%Y-%m-%d')", "9999-12-31", None).unwrap(), "9999-12-31T00:00:00");
    }
}
