//! Scalar values of the pipeline file that have several notations.

use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::output_files::OutputMode;

/// A mapping that keeps the order of the file.
#[derive(Debug, Clone)]
pub struct OrderedMap<V>(Vec<(String, V)>);

impl<V> Default for OrderedMap<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> OrderedMap<V> {
    /// Returns the value of a key.
    pub fn get(&self, name: &str) -> Option<&V> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl<V> Deref for OrderedMap<V> {
    type Target = [(String, V)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<V> FromIterator<(String, V)> for OrderedMap<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for OrderedMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(std::marker::PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = OrderedMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(OrderedMap(entries))
            }
        }

        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

impl<V: Serialize> Serialize for OrderedMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<V: JsonSchema> JsonSchema for OrderedMap<V> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("MapOf{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<V>();
        json_schema!({ "type": "object", "additionalProperties": value })
    }
}

/// A scalar: text, a number or a boolean, kept as the text that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Scalar(pub String);

/// A limit on rows: a number, or a share of all rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// At most this many rows.
    Rows(u64),
    /// At most this share of the rows, from 0 to 1.
    Share(f64),
}

impl Threshold {
    /// Returns whether `rows` of `total` exceed the threshold.
    pub fn is_exceeded_by(self, rows: u64, total: u64) -> bool {
        match self {
            Self::Rows(most) => rows > most,
            Self::Share(share) => rows as f64 > share * total as f64,
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "{rows}"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

/// The first key number: determined from production, or given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StartRowNumber {
    /// The table's sequence if it has one, else the maximum plus one.
    #[default]
    Auto,
    /// This number.
    At(i64),
}

/// A maximum waiting time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(jiff::SignedDuration);

impl Timeout {
    /// Returns a timeout of whole seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(jiff::SignedDuration::from_secs(seconds))
    }

    /// Returns the timeout in milliseconds.
    pub fn as_millis(self) -> i64 {
        self.0.as_millis() as i64
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

/// A time of day, to the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOfDay(jiff::civil::Time);

impl TimeOfDay {
    /// Returns the time as a `jiff` type.
    pub const fn time(self) -> jiff::civil::Time {
        self.0
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for OutputMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.digits())
    }
}

impl Serialize for Timeout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for StartRowNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::At(start) => write!(f, "{start}"),
        }
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for StartRowNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads any scalar as a text and passes it to `parse`.
fn scalar<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expecting: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    struct Text<T>(&'static str, fn(&str) -> Option<T>);

    impl<T> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            (self.1)(&number.to_string()).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            (self.1)(&number.to_string()).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
            (self.1)(&number.to_string()).ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
        }

        fn visit_bool<E: de::Error>(self, flag: bool) -> Result<T, E> {
            (self.1)(&flag.to_string()).ok_or_else(|| E::invalid_value(de::Unexpected::Bool(flag), &self))
        }
    }

    deserializer.deserialize_any(Text(expecting, parse))
}

/// One name, or a list of names: `code`, or `[code, location]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Deref for Names {
    type Target = [String];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a list of names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names(vec![name.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut names: A) -> Result<Names, A::Error> {
                let mut all = Vec::new();
                while let Some(name) = names.next_element()? {
                    all.push(name);
                }
                Ok(Names(all))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            several => several.serialize(serializer),
        }
    }
}

impl JsonSchema for Names {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A name, or a list of names.",
            "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }]
        })
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, "text, a number or a boolean", |text| Some(Self(text.to_owned())))
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, "a number of rows such as 20, or a share such as 1%", |text| {
            match text.strip_suffix('%') {
                Some(percent) => {
                    let percent: f64 = percent.trim().parse().ok()?;
                    (0.0..=100.0).contains(&percent).then_some(Self::Share(percent / 100.0))
                }
                None => text.parse().ok().map(Self::Rows),
            }
        })
    }
}

impl<'de> Deserialize<'de> for StartRowNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, "`auto` or a number", |text| match text {
            "auto" => Some(Self::Auto),
            _ => text.parse().ok().filter(|start| *start >= 0).map(Self::At),
        })
    }
}

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, "a duration such as `5s`, `500ms` or `30min`", |text| {
            let time: jiff::SignedDuration = text.parse().ok()?;
            // The databases count milliseconds in 32 bits, and take 0 for no limit.
            (1..=i128::from(i32::MAX)).contains(&time.as_millis()).then_some(Self(time))
        })
    }
}

impl<'de> Deserialize<'de> for OutputMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expecting = "octal permission bits in quotes, such as `\"0640\"`: read and write for the owner, at most read for others";
        scalar(deserializer, expecting, Self::parse)
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, "a time of day from `00:00` to `23:59`", |text| {
            let (hour, minute) = text.split_once(':').filter(|(hour, minute)| hour.len() == 2 && minute.len() == 2)?;
            let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            let number = |part: &str| part.parse::<i8>().ok().filter(|_| is_number(part));
            jiff::civil::Time::new(number(hour)?, number(minute)?, 0, 0).ok().map(Self)
        })
    }
}

impl JsonSchema for OutputMode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OutputMode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The permission bits of files in octal digits, such as `\"0640\"`.",
            "type": "string",
            "pattern": r"^((0|0o)?6[0246][04]|.*\$\{.*\}.*)$"
        })
    }
}

impl JsonSchema for TimeOfDay {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TimeOfDay".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A time of day from `00:00` to `23:59`.",
            "type": "string",
            "pattern": r"^(([01][0-9]|2[0-3]):[0-5][0-9]|.*\$\{.*\}.*)$"
        })
    }
}

impl JsonSchema for Timeout {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timeout".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "A maximum waiting time, such as `5s`, `500ms` or `30min`.", "type": "string" })
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

impl JsonSchema for Threshold {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Threshold".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of rows, or a share of the rows such as `1%`.",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": r"^([0-9]+|[0-9]+(\.[0-9]+)?%|.*\$\{.*\}.*)$" }
            ]
        })
    }
}

impl JsonSchema for StartRowNumber {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StartRowNumber".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`auto`, or the number that keys start from.",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": r"^(auto|[0-9]+|.*\$\{.*\}.*)$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(text: &str) -> Option<Threshold> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn a_threshold_is_a_number_or_a_share() {
        assert_eq!(threshold("20"), Some(Threshold::Rows(20)));
        assert_eq!(threshold("\"1%\""), Some(Threshold::Share(0.01)));
        assert_eq!(threshold("\"101%\""), None);
        assert_eq!(threshold("-1"), None);
        assert_eq!(threshold("\"many\""), None);
    }

    #[test]
    fn a_time_of_day_has_two_digits_each_and_ends_before_midnight() {
        let time = |text: &str| serde_json::from_value::<TimeOfDay>(text.into()).ok().map(|time| time.to_string());
        for text in ["00:00", "06:05", "23:59"] {
            assert_eq!(time(text).as_deref(), Some(text));
        }
        for text in ["24:00", "12:60", "6:05", "06:5", "0600", "06:05:00", "+6:00", "-1:00", "", "noon", "２２:００"]
        {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_is_of_all_rows() {
        assert!(!Threshold::Share(0.01).is_exceeded_by(1, 100));
        assert!(Threshold::Share(0.01).is_exceeded_by(2, 100));
        assert!(Threshold::Rows(0).is_exceeded_by(1, 100));
    }
}
