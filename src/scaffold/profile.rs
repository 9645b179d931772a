//! Profile of the first rows of a source: the notation of its values.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Array;
use arrow::datatypes::{DataType, SchemaRef};
use jiff::civil::{Date, DateTime};

use crate::engine::display_value;
use crate::source::Source;

/// The number of rows that are sampled per table.
pub const SAMPLED: usize = 10_000;

/// The percentage of values that must match a notation, since a delta is never quite clean.
const ENOUGH: usize = 90;

/// Texts that stand for NULL in exports.
const NULL_TEXTS: [&str; 9] = ["-", "--", "NULL", "null", "\\N", "N/A", "n/a", "NA", "None"];

/// Texts that mean yes or no.
const FLAGS: [&str; 10] = ["0", "1", "f", "t", "false", "true", "n", "y", "no", "yes"];

/// Date formats, the most likely first.
const DATES: [&str; 11] = [
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y%m%d", "%d.%m.%y", "%d/%m/%y",
    "%d-%b-%Y", "%d %B %Y",
];

/// Timestamp formats other than ISO 8601, the most likely first.
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
    pub(super) schema: SchemaRef,
    pub(super) rows: usize,
    pub(super) malformed: usize,
    columns: Vec<Vec<Option<String>>>,
}

/// The notation of a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notation {
    /// Readable by production without conversion.
    Plain,
    /// A date or timestamp format, and other formats that match equally well.
    Format(&'static str, Vec<&'static str>),
    /// A date format of values for a timestamp, and other formats that match equally well.
    Day(&'static str, Vec<&'static str>),
    /// A decimal comma, possibly with points as thousands separators.
    DecimalComma { thousands: bool },
    /// Commas as thousands separators.
    Thousands,
    /// An unsupported notation.
    Unknown,
}

impl Sample {
    /// Reads the first rows; None if no row is readable.
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

    pub(super) fn names(&self) -> Vec<&str> {
        self.schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// Returns whether a column is text in the files.
    pub(super) fn is_text(&self, column: &str) -> bool {
        self.schema.field_with_name(column).is_ok_and(|field| *field.data_type() == DataType::Utf8)
    }

    fn values(&self, column: &str) -> impl Iterator<Item = &str> {
        let index = self.schema.index_of(column).ok();
        index.into_iter().flat_map(|index| self.columns[index].iter().flatten()).map(String::as_str)
    }

    /// Returns the values of a column, without texts that stand for NULL.
    fn non_null(&self, column: &str) -> Vec<&str> {
        self.values(column).filter(|value| !NULL_TEXTS.contains(value)).collect()
    }

    /// Returns the texts in a column that stand for NULL, if they are frequent.
    pub(super) fn null_texts(&self, column: &str) -> BTreeSet<&'static str> {
        let count = |text: &str| self.values(column).filter(|value| *value == text).count();
        NULL_TEXTS.into_iter().filter(|text| count(text) > 1 && count(text) * 100 >= self.rows).collect()
    }

    pub(super) fn distinct(&self, column: &str) -> BTreeSet<&str> {
        self.values(column).collect()
    }

    /// Returns the distinct values of a column, without texts that stand for NULL and without empty texts.
    pub(super) fn present(&self, column: &str) -> BTreeSet<&str> {
        self.values(column).filter(|value| !value.is_empty() && !NULL_TEXTS.contains(value)).collect()
    }

    /// Returns whether all values of a column mean yes or no.
    pub(super) fn is_flag(&self, column: &str) -> bool {
        let values = self.present(column);
        !values.is_empty() && values.iter().all(|value| FLAGS.contains(&value.to_lowercase().as_str()))
    }

    /// Returns whether columns together identify nearly all rows, since a delta may contain duplicates.
    pub(super) fn identify_rows(&self, columns: &[&str]) -> bool {
        let indexes: Vec<usize> = columns.iter().filter_map(|name| self.schema.index_of(name).ok()).collect();
        if indexes.len() != columns.len() {
            return false;
        }
        let keys: Vec<Vec<&str>> = (0..self.rows)
            .filter_map(|row| indexes.iter().map(|index| self.columns[*index][row].as_deref()).collect())
            .collect();
        let distinct: BTreeSet<_> = keys.iter().collect();
        enough(keys.len(), self.rows) && enough(distinct.len(), self.rows)
    }

    /// Returns the percentage of distinct values of a column that are among others.
    pub(super) fn percent_within(&self, column: &str, others: &BTreeSet<&str>) -> usize {
        let values = self.present(column);
        match values.len() {
            0 => 0,
            count => values.iter().filter(|value| others.contains(*value)).count() * 100 / count,
        }
    }

    /// Returns the percentage of rows whose values in some columns are together those of a row of another sample.
    pub(super) fn percent_of_rows_within(&self, columns: &[String], other: &Self, others: &[String]) -> usize {
        fn rows<'s>(sample: &'s Sample, names: &[String]) -> BTreeSet<Vec<&'s str>> {
            let at: Vec<usize> = names.iter().filter_map(|name| sample.schema.index_of(name).ok()).collect();
            let row = |row: usize| at.iter().map(|at| sample.columns[*at][row].as_deref()).collect();
            (0..sample.rows).filter_map(row).collect()
        }
        let (ours, theirs) = (rows(self, columns), rows(other, others));
        (ours.intersection(&theirs).count() * 100).checked_div(ours.len()).unwrap_or(0)
    }

    /// Returns whether values have leading or trailing blanks.
    pub(super) fn is_padded(&self, column: &str) -> bool {
        self.values(column).any(|value| value.trim() != value)
    }

    /// Returns the notation of a column for a target type.
    pub(super) fn notation(&self, column: &str, to: &DataType) -> Notation {
        if !self.is_text(column) {
            return Notation::Plain;
        }
        let values = self.non_null(column);
        match to {
            DataType::Date32 => {
                by_format(&values, is_date, &DATES, |format, text| Date::strptime(format, text).is_ok())
            }
            DataType::Timestamp(_, zone) => {
                let reads = |format: &str, text: &str| DateTime::strptime(format, text).is_ok();
                match by_format(&values, is_timestamp, &TIMESTAMPS, reads) {
                    Notation::Unknown if zone.is_none() => day(&values),
                    found => found,
                }
            }
            to if to.is_numeric() => number(&values),
            _ => Notation::Plain,
        }
    }

    /// Returns the change of case that makes the values accepted; None if they are accepted already, or if no change helps.
    pub(super) fn accepted_by(&self, column: &str, accepted: &[String]) -> Option<CaseChange> {
        let values = self.non_null(column);
        let accepted = |value: &str| accepted.iter().any(|known| known == value);
        let count = |change: &dyn Fn(&str) -> String| values.iter().filter(|value| accepted(&change(value))).count();
        let plain = count(&|value| value.to_owned());
        if values.is_empty() || plain == values.len() {
            return None;
        }
        for (case, change) in [
            (CaseChange::Upper, &(|value: &str| value.to_uppercase()) as &dyn Fn(&str) -> String),
            (CaseChange::Lower, &|value: &str| value.to_lowercase()),
        ] {
            let changed = count(change);
            if changed > plain && enough(changed, values.len()) {
                return Some(case);
            }
        }
        None
    }

    /// Returns the abbreviations among the values, with the accepted value that each stands for. An abbreviation is the beginning of exactly
    /// one accepted value.
    pub(super) fn abbreviations(&self, column: &str, accepted: &[String]) -> Option<BTreeMap<String, String>> {
        let values = self.non_null(column);
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

/// A change of case that turns values into accepted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaseChange {
    Upper,
    Lower,
}

fn enough(count: usize, total: usize) -> bool {
    count * 100 >= total * ENOUGH
}

fn is_date(text: &str) -> bool {
    text.len() >= 10 && text.parse::<Date>().is_ok()
}

fn is_timestamp(text: &str) -> bool {
    let text = text.trim_end_matches('Z');
    text.len() >= 16 && (text.parse::<DateTime>().is_ok() || text.parse::<jiff::Timestamp>().is_ok())
}

/// Returns the notation of dates for a timestamp, which begin at midnight.
fn day(values: &[&str]) -> Notation {
    match by_format(values, |_| false, &DATES, |format, text| Date::strptime(format, text).is_ok()) {
        Notation::Format(format, others) => Notation::Day(format, others),
        _ => Notation::Unknown,
    }
}

fn by_format(
    values: &[&str],
    plain: impl Fn(&str) -> bool,
    formats: &[&'static str],
    fits: impl Fn(&str, &str) -> bool,
) -> Notation {
    let share = |fits: &dyn Fn(&str) -> bool| values.iter().filter(|value| fits(value)).count();
    if enough(share(&plain), values.len()) {
        return Notation::Plain;
    }
    let mut counts: Vec<(usize, &'static str)> =
        formats.iter().map(|format| (share(&|text| fits(format, text)), *format)).collect();
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    match counts.first() {
        Some((best, format)) if enough(*best, values.len()) => {
            let others = counts[1..].iter().filter(|(count, _)| count == best).map(|(_, format)| *format).collect();
            Notation::Format(format, others)
        }
        _ => Notation::Unknown,
    }
}

fn number(values: &[&str]) -> Notation {
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
        return Notation::Plain;
    }
    let comma = count(&|text| grouped(text, '.', ','));
    let point = count(&|text| grouped(text, ',', '.'));
    if comma >= point && enough(comma, values.len()) {
        let thousands = values.iter().any(|text| text.contains('.') && grouped(text, '.', ','));
        Notation::DecimalComma { thousands }
    } else if enough(point, values.len()) {
        Notation::Thousands
    } else {
        Notation::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dates(values: &[&str]) -> Notation {
        by_format(values, is_date, &DATES, |format, text| Date::strptime(format, text).is_ok())
    }

    #[test]
    fn the_date_format_is_the_one_that_nearly_all_values_match() {
        assert_eq!(dates(&["2024-01-31", "2024-02-01"]), Notation::Plain);
        assert_eq!(dates(&["31.01.2024", "01.02.2024"]), Notation::Format("%d.%m.%Y", vec![]));
        assert_eq!(dates(&["01/31/2024", "02/01/2024"]), Notation::Format("%m/%d/%Y", vec![]));
        assert_eq!(dates(&["01/02/2024", "02/01/2024"]), Notation::Format("%d/%m/%Y", vec!["%m/%d/%Y"]));
        assert_eq!(dates(&["20240131", "20240201"]), Notation::Format("%Y%m%d", vec![]));
        assert_eq!(dates(&["soon", "later"]), Notation::Unknown);
        assert_eq!(day(&["31.01.2024", "01.02.2024"]), Notation::Day("%d.%m.%Y", vec![]));
        assert_eq!(day(&["31.01.2024 x"]), Notation::Unknown);
        let mut dirty = vec!["31.01.2024"; 19];
        dirty.push("31.02.2024");
        assert_eq!(dates(&dirty), Notation::Format("%d.%m.%Y", vec![]));
    }

    #[test]
    fn numbers_have_decimal_points_or_commas() {
        assert_eq!(number(&["1.5", "-2", "1e3"]), Notation::Plain);
        assert_eq!(number(&["1,50", "-2,75"]), Notation::DecimalComma { thousands: false });
        assert_eq!(number(&["1.234,50", "2,75"]), Notation::DecimalComma { thousands: true });
        assert_eq!(number(&["1,234.50", "1,234,567", "2.75", "3,000"]), Notation::Thousands);
        assert_eq!(number(&["a", "b"]), Notation::Unknown);
    }
}
