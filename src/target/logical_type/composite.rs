//! Literals of ranges, multiranges, and composite values in PostgreSQL's notation.
//!
//! <https://www.postgresql.org/docs/current/rangetypes.html#RANGETYPES-IO>,
//! <https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX>

use arrow::datatypes::DataType;

use super::LogicalType;

/// The type of a bound of a range, or of a column of a composite type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The Arrow type that holds the values.
    pub data_type: DataType,
    /// The constraints on the values beyond their Arrow type.
    pub form: LogicalType,
    /// The maximum number of characters.
    pub max_length: Option<u64>,
    /// The maximum number of digits in fractions of a second.
    pub digits: Option<u32>,
}

impl Component {
    /// Returns whether production accepts or rejects each text as a value, and never changes one.
    pub fn is_open(&self) -> bool {
        self.form == LogicalType::Opaque && self.max_length.is_none() && self.digits.is_none()
    }
}

/// A range literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// `empty`
    Empty,
    /// `[lower,upper)`, with the brackets, and None for a bound that is infinite.
    Between(char, Option<String>, Option<String>, char),
}

impl Range {
    /// Returns the bounds that are not infinite.
    pub fn bounds(&mut self) -> impl Iterator<Item = &mut String> {
        let (lower, upper) = match self {
            Self::Empty => (None, None),
            Self::Between(_, lower, upper, _) => (lower.as_mut(), upper.as_mut()),
        };
        lower.into_iter().chain(upper)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Between(open, lower, upper, close) = self else { return f.write_str("empty") };
        let quoted = |bound: &Option<String>| {
            let text = bound.as_ref().map(|bound| bound.replace('\\', "\\\\").replace('"', "\"\""));
            text.map_or_else(String::new, |text| format!("\"{text}\""))
        };
        write!(f, "{open}{},{}{close}", quoted(lower), quoted(upper))
    }
}

/// Returns the range of a literal; None if the literal is invalid.
pub fn range(literal: &str) -> Option<Range> {
    let mut reader = Reader { rest: literal };
    let range = reader.range()?;
    reader.at_end().then_some(range)
}

/// Returns the ranges of a multirange literal; None if the literal is invalid.
pub fn multirange(literal: &str) -> Option<Vec<Range>> {
    let mut reader = Reader { rest: literal };
    reader.blanks();
    reader.skip('{')?;
    reader.blanks();
    let mut ranges = Vec::new();
    if reader.skip('}').is_none() {
        loop {
            ranges.push(reader.range()?);
            reader.blanks();
            if reader.skip(',').is_none() {
                reader.skip('}')?;
                break;
            }
        }
    }
    reader.at_end().then_some(ranges)
}

/// Returns the values of a composite literal, None for NULL. Returns None if the literal is invalid.
pub fn fields(literal: &str) -> Option<Vec<Option<String>>> {
    let mut reader = Reader { rest: literal };
    reader.blanks();
    reader.skip('(')?;
    let mut fields = Vec::new();
    loop {
        fields.push(reader.value(&[',', ')'])?);
        if reader.skip(',').is_none() {
            reader.skip(')')?;
            return reader.at_end().then_some(fields);
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn range(&mut self) -> Option<Range> {
        self.blanks();
        if let Some(rest) = self.rest.get(5..).filter(|_| self.rest[..5].eq_ignore_ascii_case("empty")) {
            self.rest = rest;
            return Some(Range::Empty);
        }
        let open = self.one_of(&['[', '('])?;
        let ends = [',', ')', ']'];
        let lower = self.value(&ends)?;
        self.skip(',')?;
        let upper = self.value(&ends)?;
        Some(Range::Between(open, lower, upper, self.one_of(&[']', ')'])?))
    }

    /// Reads a value up to a character that ends it. A value without any character is NULL or infinite.
    #[allow(clippy::option_option, reason = "None: unreadable")]
    fn value(&mut self, ends: &[char]) -> Option<Option<String>> {
        if self.rest.starts_with(ends) {
            return Some(None);
        }
        let (mut text, mut is_quoted) = (String::new(), false);
        while is_quoted || !self.rest.starts_with(ends) {
            match self.next()? {
                '\\' => text.push(self.next()?),
                '"' if !is_quoted => is_quoted = true,
                '"' if self.skip('"').is_some() => text.push('"'),
                '"' => is_quoted = false,
                char => text.push(char),
            }
        }
        Some(Some(text))
    }

    fn next(&mut self) -> Option<char> {
        let char = self.rest.chars().next()?;
        self.rest = &self.rest[char.len_utf8()..];
        Some(char)
    }

    fn skip(&mut self, char: char) -> Option<char> {
        self.one_of(&[char])
    }

    fn one_of(&mut self, chars: &[char]) -> Option<char> {
        if self.rest.starts_with(chars) { self.next() } else { None }
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    }

    fn at_end(&mut self) -> bool {
        self.blanks();
        self.rest.is_empty()
    }
}

/// Returns whether a text is a time of a day with an offset from UTC, and with at most microseconds.
pub(super) fn is_zoned_time(text: &str) -> bool {
    let Some(sign) = text.find(['Z', 'z', '+', '-']) else { return false };
    let (clock, offset) = (text[..sign].trim_end(), &text[sign..]);
    let two = |text: &str, below: u8| text.len() == 2 && text.parse().is_ok_and(|number: u8| number < below);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next(), parts.next(), parts.next());
    let is_time = hour.is_some_and(|hour| two(hour, 25)) && minute.is_some_and(|minute| two(minute, 60));
    let is_exact = fraction.bytes().all(|byte| byte.is_ascii_digit()) && fraction.trim_end_matches('0').len() <= 6;
    let is_offset = match offset.strip_prefix(['+', '-']) {
        Some(offset) => {
            let digits = offset.replace(':', "");
            let is_written = [2, 4, 5, 6, 8].contains(&offset.len()) && digits.len() % 2 == 0;
            is_written && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        None => offset.len() == 1,
    };
    is_time && second.is_none_or(|second| two(second, 60)) && parts.next().is_none() && is_exact && is_offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "as the parser returns them")]
    fn texts(values: &[Option<&str>]) -> Option<Vec<Option<String>>> {
        Some(values.iter().map(|value| value.map(str::to_owned)).collect())
    }

    #[test]
    fn ranges_are_read_and_written_with_their_bounds() {
        let between = |open, lower: Option<&str>, upper: Option<&str>, close| {
            Some(Range::Between(open, lower.map(str::to_owned), upper.map(str::to_owned), close))
        };
        for (literal, expected) in [
            ("[1,5)", between('[', Some("1"), Some("5"), ')')),
            (" (,) ", between('(', None, None, ')')),
            ("[\"2020-01-01 10:00\",]", between('[', Some("2020-01-01 10:00"), None, ']')),
            (r#"["a\"b""c",d\,e)"#, between('[', Some("a\"b\"c"), Some("d,e"), ')')),
            ("[\"\",)", between('[', Some(""), None, ')')),
            ("Empty", Some(Range::Empty)),
            ("[1,5", None),
            ("[1)", None),
            ("1,5", None),
            ("[1,5) x", None),
            ("", None),
        ] {
            assert_eq!(range(literal), expected, "{literal}");
            if let Some(expected) = &expected {
                assert_eq!(range(&expected.to_string()).as_ref(), Some(expected), "{expected}");
            }
        }
        assert_eq!(multirange("{}"), Some(vec![]));
        assert_eq!(multirange("{[1,2), empty ,(3,)}").map(|ranges| ranges.len()), Some(3));
        assert_eq!(multirange("{[1,2)"), None);
    }

    #[test]
    fn composite_values_are_read_with_null_and_empty_text() {
        assert_eq!(
            fields("(1,,\"\",\"a, \"\"b\"\"\", c )"),
            texts(&[Some("1"), None, Some(""), Some("a, \"b\""), Some(" c ")])
        );
        assert_eq!(fields("()"), texts(&[None]));
        assert_eq!(fields("(1"), None);
        assert_eq!(fields("{\"n\":1}"), None);
    }

    #[test]
    fn a_time_with_a_zone_has_an_offset_and_no_date() {
        for text in ["10:00+02", "10:00:00.123456-05:30", "10:00:00.1234560Z", "24:00:00+00", "10:00 +0200"] {
            assert!(is_zoned_time(text), "{text}");
        }
        for text in
            ["10:00", "10:00:60+02", "10:00:00.1234567+02", "2020-01-01 10:00+02", "10:00 CET", "allballs", "now"]
        {
            assert!(!is_zoned_time(text), "{text}");
        }
    }
}
