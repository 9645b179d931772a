//! From a value to what production's column keeps of it: the Arrow type first, then the form.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::convert::{Converted, convert};
use crate::error::Result;
use crate::target::{CatalogColumn, Form, bytes};

/// Values as a column of production keeps them.
pub(super) fn kept(values: &ArrayRef, column: &CatalogColumn) -> Result<Converted> {
    let from_text = matches!(values.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if column.form == Form::Bytes && from_text {
        return from_hexadecimal(&super::convert::text(values)?);
    }
    let mut converted = convert(values, &column.data_type, column.significant_digits)?;
    let values = &converted.values;
    let mut no_value = Vec::new();
    let formed: Option<ArrayRef> = match (&column.form, values.data_type()) {
        (Form::Plain | Form::Bytes, _) => None,
        (Form::Integer(_), DataType::Int64) => {
            let integers = values.as_primitive::<Int64Type>();
            no_value.extend(present(values).filter(|row| !column.form.takes_integer(integers.value(*row))));
            None
        }
        (Form::Single, DataType::Float64) => {
            let floats = values.as_primitive::<Float64Type>();
            no_value.extend(present(values).filter(|row| column.form.float(floats.value(*row)).is_none()));
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

/// A text in its form; of an array, its elements are also cast to their type, as a column's values are.
fn canonical<'a>(form: &Form, text: &'a str) -> Result<std::borrow::Cow<'a, str>, ()> {
    let canonical = form.canonical(text).ok_or(())?;
    if let Form::Array(element) = form {
        let (data_type, _) = element.as_ref();
        let elements: ArrayRef = Arc::new(StringArray::from_iter(crate::target::elements(text).ok_or(())?));
        if *data_type != DataType::Utf8 && *data_type != DataType::Binary {
            let converted = convert(&elements, data_type, None).map_err(|_| ())?;
            if !(converted.no_value.is_empty() && converted.too_precise.is_empty()) {
                return Err(());
            }
        }
    }
    Ok(canonical)
}

fn from_hexadecimal(values: &ArrayRef) -> Result<Converted> {
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
    Ok(Converted { values: Arc::new(BinaryArray::from_iter(found)), no_value, too_precise: Vec::new() })
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
