//! Nested values of columnar files, as JSON: lists are arrays, and structs and maps are objects.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::columnar::plain;

/// Returns whether values of a type can be written as JSON.
pub(super) fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_supported(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().all(|field| is_supported(field.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => fields.len() == 2 && is_supported(fields[1].data_type()),
            _ => false,
        },
        DataType::Dictionary(_, values) => is_supported(values),
        DataType::RunEndEncoded(_, values) => is_supported(values.data_type()),
        other => !other.is_nested(),
    }
}

/// Returns each value of an array as JSON; NULL stays NULL.
pub(super) fn as_json(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    let encoder = Encoder::try_new(array)?;
    let mut texts = StringBuilder::new();
    let mut text = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.write(row, &mut text)?;
        texts.append_value(&text);
    }
    Ok(texts.finish())
}

/// A writer of one array's values.
struct Encoder {
    array: ArrayRef,
    kind: Kind,
}

enum Kind {
    /// Numbers and booleans, as they are written.
    Plain,
    /// All others, as texts.
    Text,
    /// Bytes, in hexadecimal digits after `\x`.
    Bytes,
    List(Box<Encoder>),
    Struct(Vec<(String, Encoder)>),
    Map(Box<Encoder>, Box<Encoder>),
}

impl Encoder {
    fn try_new(array: &ArrayRef) -> Result<Self, ArrowError> {
        let array = match plain(array.data_type()) {
            same if same == *array.data_type() => array.clone(),
            other => cast(array, &other)?,
        };
        let kind = match array.data_type() {
            DataType::List(_) => Kind::List(Box::new(Self::try_new(array.as_list::<i32>().values())?)),
            DataType::LargeList(_) => Kind::List(Box::new(Self::try_new(array.as_list::<i64>().values())?)),
            DataType::FixedSizeList(..) => Kind::List(Box::new(Self::try_new(array.as_fixed_size_list().values())?)),
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                let members = fields.iter().zip(columns).map(|(field, column)| {
                    Ok::<_, ArrowError>((
                        serde_json::Value::from(field.name().as_str()).to_string(),
                        Self::try_new(column)?,
                    ))
                });
                Kind::Struct(members.collect::<Result<_, _>>()?)
            }
            DataType::Map(..) => {
                let map = array.as_map();
                Kind::Map(Box::new(Self::try_new(map.keys())?), Box::new(Self::try_new(map.values())?))
            }
            DataType::Binary | DataType::FixedSizeBinary(_) => Kind::Bytes,
            DataType::Boolean => Kind::Plain,
            other if other.is_numeric() => Kind::Plain,
            _ => Kind::Text,
        };
        Ok(Self { array, kind })
    }

    fn write(&self, row: usize, json: &mut String) -> Result<(), ArrowError> {
        if self.array.is_null(row) {
            json.push_str("null");
            return Ok(());
        }
        match &self.kind {
            Kind::Plain => {
                let text = self.text(row)?;
                // JSON has no notation for NaN and infinity.
                let is_number = !text.ends_with(|char: char| char.is_ascii_alphabetic())
                    || matches!(text.as_str(), "true" | "false");
                if is_number { json.push_str(&text) } else { quote(&text, json) }
            }
            Kind::Text => quote(&self.text(row)?, json),
            Kind::Bytes => quote(&format!("\\x{}", self.text(row)?), json),
            Kind::List(items) => self.list(items, row, json)?,
            Kind::Struct(members) => {
                json.push('{');
                for (at, (name, values)) in members.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    let _infallible = write!(json, "{comma}{name}:");
                    values.write(row, json)?;
                }
                json.push('}');
            }
            Kind::Map(keys, values) => {
                let offsets = self.array.as_map().value_offsets();
                json.push('{');
                for (at, entry) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
                    if at > 0 {
                        json.push(',');
                    }
                    quote(&keys.text(entry)?, json);
                    json.push(':');
                    values.write(entry, json)?;
                }
                json.push('}');
            }
        }
        Ok(())
    }

    fn list(&self, items: &Self, row: usize, json: &mut String) -> Result<(), ArrowError> {
        let range = match self.array.data_type() {
            DataType::List(_) => {
                let offsets = self.array.as_list::<i32>().value_offsets();
                offsets[row] as usize..offsets[row + 1] as usize
            }
            DataType::LargeList(_) => {
                let offsets = self.array.as_list::<i64>().value_offsets();
                offsets[row] as usize..offsets[row + 1] as usize
            }
            _ => {
                let lists = self.array.as_fixed_size_list();
                let first = lists.value_offset(row) as usize;
                first..first + lists.value_length() as usize
            }
        };
        json.push('[');
        for (at, item) in range.enumerate() {
            if at > 0 {
                json.push(',');
            }
            items.write(item, json)?;
        }
        json.push(']');
        Ok(())
    }

    fn text(&self, row: usize) -> Result<String, ArrowError> {
        let options = FormatOptions::default();
        ArrayFormatter::try_new(self.array.as_ref(), &options)?.value(row).try_to_string()
    }
}

fn quote(text: &str, json: &mut String) {
    let _infallible = write!(json, "{}", serde_json::Value::from(text));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Float64Array, Int64Array, ListArray, StructArray,
        builder::{Int32Builder, MapBuilder, StringBuilder as Texts},
    };
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use arrow::datatypes::Field;

    use super::*;

    fn json(array: ArrayRef) -> Vec<Option<String>> {
        assert!(is_supported(array.data_type()));
        as_json(&array).unwrap().iter().map(|text| text.map(str::to_owned)).collect()
    }

    #[test]
    fn lists_and_structs_are_their_json_with_quotes_and_backslashes() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a\"b"), None, Some("c\\d,{}"), Some("é\n")]));
        let field = Arc::new(Field::new("item", DataType::Utf8, true));
        let offsets = OffsetBuffer::new(vec![0, 3, 3, 3, 4].into());
        let nulls = NullBuffer::from(vec![true, true, false, true]);
        let lists: ArrayRef = Arc::new(ListArray::new(field, offsets, texts, Some(nulls)));
        assert_eq!(
            json(lists.clone()),
            [Some(r#"["a\"b",null,"c\\d,{}"]"#.into()), Some("[]".into()), None, Some("[\"é\\n\"]".into())]
        );
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(9_007_199_254_740_993), None, Some(1), Some(2)]));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.1, f64::NAN, 1e300, -2.0]));
        let structs: ArrayRef = Arc::new(StructArray::from(vec![
            (Arc::new(Field::new("n\"", DataType::Int64, true)), numbers),
            (Arc::new(Field::new("f", DataType::Float64, true)), floats),
            (Arc::new(Field::new("l", lists.data_type().clone(), true)), lists),
        ]));
        let found = json(structs);
        assert_eq!(found[0].as_deref(), Some(r#"{"n\"":9007199254740993,"f":0.1,"l":["a\"b",null,"c\\d,{}"]}"#));
        assert_eq!(found[1].as_deref(), Some(r#"{"n\"":null,"f":"NaN","l":[]}"#));
        for text in found.into_iter().flatten() {
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }

    #[test]
    fn a_map_is_an_object() {
        let mut maps = MapBuilder::new(None, Texts::new(), Int32Builder::new());
        maps.keys().append_value("a b");
        maps.values().append_value(1);
        maps.keys().append_value("c");
        maps.values().append_null();
        maps.append(true).unwrap();
        assert_eq!(json(Arc::new(maps.finish())), [Some(r#"{"a b":1,"c":null}"#.into())]);
    }
}
