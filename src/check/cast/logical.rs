//! Casts of values to a column of production: to the Arrow type, then to the logical type.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::components::keeps_components;
use super::convert::{Converted, convert};
use super::float::{fits_single, keeps};
use crate::engine::display_value;
use crate::error::Result;
use crate::target::{CatalogColumn, LogicalType, bytes};

/// Casts values to a column of production.
pub(in crate::check) fn kept(values: &ArrayRef, column: &CatalogColumn) -> Result<Converted> {
    let from_text = matches!(values.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if column.form == LogicalType::Bytes && from_text {
        return Ok(from_hexadecimal(&super::convert::text(values)));
    }
    if column.form == LogicalType::Uuid && *values.data_type() == DataType::FixedSizeBinary(16) {
        return Ok(from_sixteen_bytes(values));
    }
    let written = values;
    let mut converted = convert(values, &column.data_type, column.significant_digits)?;
    let values = &converted.values;
    let mut no_value = Vec::new();
    let formed: Option<ArrayRef> = match (&column.form, values.data_type()) {
        (LogicalType::Plain | LogicalType::Bytes, _) => None,
        (LogicalType::Text, DataType::Utf8) if !has_nul(values.as_string::<i32>()) => None,
        (LogicalType::Integer(_), DataType::Int64) => {
            let integers = values.as_primitive::<Int64Type>();
            no_value.extend(present(values).filter(|row| !column.form.takes_integer(integers.value(*row))));
            None
        }
        (LogicalType::Single, DataType::Float64) => {
            let floats = values.as_primitive::<Float64Type>();
            let texts = from_text.then(|| super::convert::text(written));
            let is_kept = |row: usize| match &texts {
                Some(texts) => keeps(texts.as_string::<i32>().value(row), floats.value(row), true),
                None => fits_single(floats.value(row)),
            };
            let fits = |row: &usize| column.form.float(floats.value(*row)).is_some() && is_kept(*row);
            no_value.extend(present(values).filter(|row| !fits(row)));
            Some(Arc::new(floats.unary::<_, Float64Type>(|value| column.form.float(value).unwrap_or(value))))
        }
        (form, DataType::Utf8) => {
            let texts = values.as_string::<i32>();
            let mut changed = false;
            let canonical: Vec<_> = (0..texts.len())
                .map(|row| {
                    let text = texts.is_valid(row).then(|| texts.value(row))?;
                    let canonical = canonical(form, text).map_err(|()| no_value.push(row)).ok()?;
                    changed |= canonical != text;
                    Some(canonical)
                })
                .collect();
            changed.then(|| Arc::new(StringArray::from_iter(canonical)) as ArrayRef)
        }
        _ => None,
    };
    if let Some(formed) = formed {
        converted.values = formed;
    }
    if !no_value.is_empty() {
        converted.values = without(&converted.values, &no_value)?;
        converted.no_value.extend(no_value);
        converted.no_value.sort_unstable();
    }
    Ok(converted)
}

/// Returns the canonical text of a logical type. The components of a value are also cast to their types.
fn canonical<'a>(form: &LogicalType, text: &'a str) -> Result<Cow<'a, str>, ()> {
    let canonical = form.canonical(text).ok_or(())?;
    if keeps_components(form, &canonical) { Ok(canonical) } else { Err(()) }
}

fn has_nul(texts: &StringArray) -> bool {
    let offsets = texts.value_offsets();
    let range = offsets[0] as usize..offsets[texts.len()] as usize;
    texts.value_data()[range].contains(&0)
}

fn from_hexadecimal(values: &ArrayRef) -> Converted {
    let texts = values.as_string::<i32>();
    let mut no_value = Vec::new();
    let found: Vec<_> = (0..texts.len())
        .map(|row| {
            let found = bytes(texts.is_valid(row).then(|| texts.value(row))?);
            if found.is_none() {
                no_value.push(row);
            }
            found
        })
        .collect();
    Converted { values: Arc::new(BinaryArray::from_iter(found)), no_value, too_precise: Vec::new() }
}

/// Returns UUIDs as text.
fn from_sixteen_bytes(values: &ArrayRef) -> Converted {
    let bytes = values.as_fixed_size_binary();
    let text = |row: usize| {
        let digits = bytes.is_valid(row).then(|| display_value(values.as_ref(), row))?;
        LogicalType::Uuid.canonical(&digits).map(Cow::into_owned)
    };
    let values = (0..bytes.len()).map(text).collect::<StringArray>();
    Converted { values: Arc::new(values), no_value: Vec::new(), too_precise: Vec::new() }
}

fn present(values: &ArrayRef) -> impl Iterator<Item = usize> + '_ {
    (0..values.len()).filter(|row| values.is_valid(*row))
}

fn without(values: &ArrayRef, rows: &[usize]) -> Result<ArrayRef> {
    let mut out = vec![false; values.len()];
    for row in rows {
        out[*row] = true;
    }
    Ok(nullif(values, &out.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::TimeUnit;

    fn column(data_type: DataType, form: LogicalType) -> CatalogColumn {
        CatalogColumn {
            name: "c".into(),
            declared: String::new(),
            data_type,
            not_null: false,
            has_default: false,
            generated: false,
            max_length: None,
            significant_digits: None,
            form,
        }
    }

    /// What is kept of texts, `-` for what has no value.
    fn texts(data_type: DataType, form: LogicalType, values: &[&str]) -> Vec<String> {
        let values: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let converted = kept(&values, &column(data_type, form)).unwrap();
        let lost = |row: usize| converted.no_value.contains(&row);
        let value = |row| if lost(row) { "-".into() } else { display_value(converted.values.as_ref(), row) };
        assert!((0..values.len()).all(|row| lost(row) == converted.values.is_null(row)));
        (0..values.len()).map(value).collect()
    }

    #[test]
    fn a_value_is_kept_in_the_form_of_its_column() {
        let text = DataType::Utf8;
        assert_eq!(texts(DataType::Int64, LogicalType::Integer(16), &["32767", "32768", "x"]), ["32767", "-", "-"]);
        assert_eq!(texts(DataType::Float64, LogicalType::Single, &["0.1", "1e39"]), ["0.10000000149011612", "-"]);
        assert_eq!(texts(text.clone(), LogicalType::Text, &["a ", "a\0"]), ["a ", "-"]);
        assert_eq!(texts(text.clone(), LogicalType::Padded, &["a ", "  "]), ["a", ""]);
        assert_eq!(texts(text.clone(), LogicalType::Uuid, &["A0EEBC999C0B4EF8BB6D6BB9BD380A11", "a"])[1], "-");
        assert_eq!(texts(text.clone(), LogicalType::Json, &["{\"a\": 1}", "{a}"]), ["{\"a\": 1}", "-"]);
        assert_eq!(texts(text.clone(), LogicalType::Interval, &["P1D", "soon"]), ["P1D", "-"]);
        assert_eq!(texts(DataType::Binary, LogicalType::Bytes, &["\\x0aFF", "a", "\\x0"]), ["0aff", "61", "-"]);
        let dates = LogicalType::Array(Box::new((DataType::Date32, LogicalType::Plain)));
        assert_eq!(texts(text.clone(), dates, &["{2024-01-31,NULL}", "{2024-01-32}", "2024"])[1..], ["-", "-"]);
        let small = LogicalType::Array(Box::new((DataType::Int64, LogicalType::Integer(16))));
        assert_eq!(texts(text, small, &["{1,{2}}", "{1,32768}", "{1,2}"]), ["-", "-", "{1,2}"]);
    }

    #[test]
    fn sixteen_bytes_are_a_uuid() {
        let bytes: Vec<u8> = (0..16).map(|byte| byte * 17).collect();
        let values =
            arrow::array::FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some(bytes), None].into_iter(), 16);
        let values: ArrayRef = Arc::new(values.unwrap());
        let found = kept(&values, &column(DataType::Utf8, LogicalType::Uuid)).unwrap();
        let found: Vec<_> = found.values.as_string::<i32>().iter().collect();
        assert_eq!(found, [Some("00112233-4455-6677-8899-aabbccddeeff"), None]);
    }

    #[test]
    fn a_form_leaves_no_value_where_the_type_leaves_none() {
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(texts(zoned, LogicalType::Plain, &["2024-01-01 10:00"]), ["-"]);
        let nothing: ArrayRef = arrow::array::new_null_array(&DataType::Utf8, 2);
        let found = kept(&nothing, &column(DataType::Utf8, LogicalType::Uuid)).unwrap();
        assert_eq!((found.values.null_count(), found.no_value.len()), (2, 0));
    }
}
