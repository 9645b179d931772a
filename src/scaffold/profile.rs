//! What the first rows of a delta show: how its values are written.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Array;
use arrow::datatypes::{DataType, SchemaRef};
use jiff::civil::{Date, DateTime};

use crate::engine::display_value;
use crate::source::Source;

/// Rows of a table's files that are looked at.
pub const SAMPLED: usize = 10_000;

/// A form counts as the one of a column when so many of a hundred of its values have it: a delta is never quite clean.
const ENOUGH: usize = 90;

/// Texts that stand for nothing in exports.
const NOTHING: [&str; 9] = ["-", "--", "NULL", "null", "\\N", "N/A", "n/a", "NA", "None"];

/// How dates are written, the most likely first, with the words for a comment.
const DATES: [&str; 11] = [
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y%m%d", "%d.%m.%y", "%d/%m/%y",
    "%d-%b-%Y", "%d %B %Y",
];

/// How timestamps are written that are not ISO 8601.
const TIMESTAMPS: [&str; 7] = [
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%Y%m%d%H%M%S",
];

/// The first rows of a source, as text.
pub(super) struct Sample {
    /// The source's columns.
    pub(super) schema: SchemaRef,
    /// How many rows there are.
    pub(super) rows: usize,
    /// How many records could not be read.
    pub(super) malformed: usize,
    columns: Vec<Vec<Option<String>>>,
}

/// How a column's values are written, where that is not how production reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// As production reads them.
    Plain,
    /// By a format; others that fit as well.
    Format(&'static str, Vec<&'static str>),
    /// With a comma before the decimals, and perhaps points between the thousands.
    DecimalComma { thousands: bool },
    /// With commas between the thousands.
    Thousands,
    /// In no form that is known.
    Unknown,
}

impl Sample {
    /// Reads the first rows; None where not even one can be read.
    pub(super) fn read(source: &Source) -> Option<Self> {
        let schema = source.schema().clone();
        let mut sample = Self { columns: vec![Vec::new(); schema.fields().len()], schema, rows: 0, malformed: 0 };
        for batch in source.batches(1024) {
            let Ok(batch) = batch else { break };
            sample.malformed += batch.malformed.len();
            sample.rows += batch.rows.num_rows();
            for (values, column) in sample.columns.iter_mut().zip(batch.rows.columns()) {
                let text = |row: usize| column.is_valid(row).then(|| display_value(column.as_ref(), row));
                values.extend((0..column.len()).map(text));
            }
            if sample.rows + sample.malformed >= SAMPLED {
                break;
            }
        }
        (sample.rows > 0).then_some(sample)
    }

    /// The names of the columns.
    pub(super) fn names(&self) -> Vec<&str> {
        self.schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// Whether a column is text in the files.
    pub(super) fn is_text(&self, column: &str) -> bool {
        self.schema.field_with_name(column).is_ok_and(|field| *field.data_type() == DataType::Utf8)
    }

    fn values(&self, column: &str) -> impl Iterator<Item = &str> {
        let at = self.schema.index_of(column).ok();
        at.into_iter().flat_map(|at| self.columns[at].iter().flatten()).map(String::as_str)
    }

    /// The values of a column, without texts that stand for nothing.
    fn telling(&self, column: &str) -> Vec<&str> {
        self.values(column).filter(|value| !NOTHING.contains(value)).collect()
    }

    /// The texts in a column that stand for nothing: those that more than a few rows have.
    pub(super) fn nothing(&self, column: &str) -> BTreeSet<&'static str> {
        let count = |nothing: &str| self.values(column).filter(|value| *value == nothing).count();
        NOTHING.into_iter().filter(|nothing| count(nothing) > 1 && count(nothing) * 100 >= self.rows).collect()
    }

    /// The distinct values of a column.
    pub(super) fn distinct(&self, column: &str) -> BTreeSet<&str> {
        self.values(column).collect()
    }

    /// Whether columns together tell rows apart: nearly all of them, since a delta may hold a record twice.
    pub(super) fn tell_apart(&self, columns: &[&str]) -> bool {
        let places: Vec<usize> = columns.iter().filter_map(|name| self.schema.index_of(name).ok()).collect();
        if places.len() != columns.len() {
            return false;
        }
        let keys: Vec<Vec<&str>> = (0..self.rows)
            .filter_map(|row| places.iter().map(|place| self.columns[*place][row].as_deref()).collect())
            .collect();
        let distinct: BTreeSet<_> = keys.iter().collect();
        enough(keys.len(), self.rows) && enough(distinct.len(), self.rows)
    }

    /// How many of a hundred values of a column are among others.
    pub(super) fn share_within(&self, column: &str, others: &BTreeSet<&str>) -> usize {
        let values = self.distinct(column);
        match values.len() {
            0 => 0,
            count => values.iter().filter(|value| others.contains(*value)).count() * 100 / count,
        }
    }

    /// Whether values have blanks around them.
    pub(super) fn is_padded(&self, column: &str) -> bool {
        self.values(column).any(|value| value.trim() != value)
    }

    /// How a column is written that is to be of a type.
    pub(super) fn written(&self, column: &str, to: &DataType) -> Written {
        if !self.is_text(column) {
            return Written::Plain;
        }
        let values = self.telling(column);
        match to {
            DataType::Date32 => {
                by_format(&values, is_date, &DATES, |format, text| Date::strptime(format, text).is_ok())
            }
            DataType::Timestamp(..) => {
                by_format(&values, is_timestamp, &TIMESTAMPS, |format, text| DateTime::strptime(format, text).is_ok())
            }
            to if to.is_numeric() => number(&values),
            _ => Written::Plain,
        }
    }

    /// How values become one of those that are accepted; None where they are already, or where it is not known.
    pub(super) fn accepted_by(&self, column: &str, accepted: &[String]) -> Option<InferredType> {
        let values = self.telling(column);
        let accepted = |value: &str| accepted.iter().any(|known| known == value);
        let fit = |by: &dyn Fn(&str) -> String| values.iter().filter(|value| accepted(&by(value))).count();
        let plain = fit(&|value| value.to_owned());
        if values.is_empty() || plain == values.len() {
            return None;
        }
        for (way, by) in [
            (InferredType::Upper, &(|value: &str| value.to_uppercase()) as &dyn Fn(&str) -> String),
            (InferredType::Lower, &|value: &str| value.to_lowercase()),
        ] {
            let count = fit(by);
            if count > plain && enough(count, values.len()) {
                return Some(way);
            }
        }
        None
    }

    /// The values that stand for accepted ones: each is the beginning of exactly one, and none of two.
    pub(super) fn abbreviations(&self, column: &str, accepted: &[String]) -> Option<BTreeMap<String, String>> {
        let values = self.telling(column);
        let mut found = BTreeMap::new();
        let mut known = 0;
        for value in &values {
            let begins = |full: &&String| full.to_lowercase().starts_with(&value.to_lowercase());
            let mut full = accepted.iter().filter(begins);
            if let (Some(full), None, false) = (full.next(), full.next(), value.is_empty()) {
                known += 1;
                found.insert((*value).to_owned(), full.clone());
            }
        }
        let distinct: BTreeSet<_> = found.values().collect();
        (enough(known, values.len()) && known > 0 && distinct.len() == found.len()).then_some(found)
    }
}

/// How values become accepted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InferredType {
    /// In capitals.
    Upper,
    /// In small letters.
    Lower,
}

fn enough(count: usize, of: usize) -> bool {
    count * 100 >= of * ENOUGH
}

fn is_date(text: &str) -> bool {
    text.len() >= 10 && text.parse::<Date>().is_ok()
}

fn is_timestamp(text: &str) -> bool {
    let text = text.trim_end_matches('Z');
    text.len() >= 16 && (text.parse::<DateTime>().is_ok() || text.parse::<jiff::Timestamp>().is_ok())
}

fn by_format(
    values: &[&str],
    plain: impl Fn(&str) -> bool,
    formats: &[&'static str],
    fits: impl Fn(&str, &str) -> bool,
) -> Written {
    let share = |fits: &dyn Fn(&str) -> bool| values.iter().filter(|value| fits(value)).count();
    if enough(share(&plain), values.len()) {
        return Written::Plain;
    }
    let mut counts: Vec<(usize, &'static str)> =
        formats.iter().map(|format| (share(&|text| fits(format, text)), *format)).collect();
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    match counts.first() {
        Some((best, format)) if enough(*best, values.len()) => {
            let others = counts[1..].iter().filter(|(count, _)| count == best).map(|(_, format)| *format).collect();
            Written::Format(format, others)
        }
        _ => Written::Unknown,
    }
}

fn number(values: &[&str]) -> Written {
    let values: Vec<&str> = values.iter().map(|value| value.trim()).collect();
    let is_plain = |text: &&&str| text.parse::<f64>().is_ok();
    let grouped = |text: &str, group: char, point: char| {
        let text = text.trim_start_matches(['-', '+']);
        let (whole, decimals) = text.split_once(point).unwrap_or((text, "0"));
        let groups: Vec<&str> = whole.split(group).collect();
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits(decimals)
            && groups.iter().all(|group| digits(group))
            && groups[1..].iter().all(|group| group.len() == 3)
            && (groups.len() == 1 || groups[0].len() <= 3)
    };
    let count = |fits: &dyn Fn(&str) -> bool| values.iter().filter(|value| fits(value)).count();
    if enough(values.iter().filter(is_plain).count(), values.len()) {
        return Written::Plain;
    }
    let comma = count(&|text| grouped(text, '.', ','));
    let point = count(&|text| grouped(text, ',', '.'));
    if comma >= point && enough(comma, values.len()) {
        let thousands = values.iter().any(|text| text.contains('.') && grouped(text, '.', ','));
        Written::DecimalComma { thousands }
    } else if enough(point, values.len()) {
        Written::Thousands
    } else {
        Written::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dates(values: &[&str]) -> Written {
        by_format(values, is_date, &DATES, |format, text| Date::strptime(format, text).is_ok())
    }

    #[test]
    fn the_format_of_dates_is_the_one_that_nearly_all_have() {
        assert_eq!(dates(&["2024-01-31", "2024-02-01"]), Written::Plain);
        assert_eq!(dates(&["31.01.2024", "01.02.2024"]), Written::Format("%d.%m.%Y", vec![]));
        assert_eq!(dates(&["01/31/2024", "02/01/2024"]), Written::Format("%m/%d/%Y", vec![]));
        assert_eq!(dates(&["01/02/2024", "02/01/2024"]), Written::Format("%d/%m/%Y", vec!["%m/%d/%Y"]));
        assert_eq!(dates(&["20240131", "20240201"]), Written::Format("%Y%m%d", vec![]));
        assert_eq!(dates(&["soon", "later"]), Written::Unknown);
        let mut dirty = vec!["31.01.2024"; 19];
        dirty.push("31.02.2024");
        assert_eq!(dates(&dirty), Written::Format("%d.%m.%Y", vec![]));
    }

    #[test]
    fn numbers_have_points_or_commas() {
        assert_eq!(number(&["1.5", "-2", "1e3"]), Written::Plain);
        assert_eq!(number(&["1,50", "-2,75"]), Written::DecimalComma { thousands: false });
        assert_eq!(number(&["1.234,50", "2,75"]), Written::DecimalComma { thousands: true });
        assert_eq!(number(&["1,234.50", "1,234,567", "2.75", "3,000"]), Written::Thousands);
        assert_eq!(number(&["a", "b"]), Written::Unknown);
    }
}
