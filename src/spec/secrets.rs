//! Values that must not be printed or written anywhere.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

/// A value shorter than this is not masked: a `1` that came from the environment would make every text unreadable.
const MIN_CHARS: usize = 4;

/// The values that a pipeline file took from the environment or from `--var`.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeSet<String>,
}

impl Secrets {
    /// Adds a value; space around it is no part of it.
    pub fn add(&mut self, value: &str) {
        self.values.insert(value.trim().to_ascii_lowercase());
    }

    /// The text with `***` in place of each value of at least four characters. Values that overlap are masked as one. The case of
    /// ASCII letters does not matter, since SQL's messages lower that of names.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut hits: Vec<(usize, usize)> = Vec::new();
        let lower = text.to_ascii_lowercase();
        for value in self.values.iter().filter(|value| value.chars().count() >= MIN_CHARS) {
            let mut from = 0;
            while let Some(at) = lower.get(from..).and_then(|rest| rest.find(value.as_str())) {
                let start = from + at;
                hits.push((start, start + value.len()));
                // The next hit may overlap this one.
                from = text.ceil_char_boundary(start + 1);
            }
        }
        if hits.is_empty() {
            return Cow::Borrowed(text);
        }
        hits.sort_unstable();
        let mut masked = String::with_capacity(text.len());
        let mut done = 0;
        for (start, end) in hits {
            if start >= done {
                masked.push_str(&text[done..start]);
                masked.push_str("***");
            }
            done = done.max(end);
        }
        masked.push_str(&text[done..]);
        Cow::Owned(masked)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} values)", self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        let mut secrets = Secrets::default();
        for value in values {
            secrets.add(value);
        }
        secrets
    }

    #[test]
    fn values_are_masked_the_longest_first() {
        let secrets = secrets(&["pass", "password1", "größe"]);
        assert_eq!(secrets.mask("user:password1@host, pass größe"), "user:***@host, *** ***");
    }

    #[test]
    fn nothing_is_left_of_values_that_overlap() {
        assert_eq!(secrets(&["abcd", "cdef"]).mask("-abcdef-"), "-***-");
        assert_eq!(secrets(&["aaaa"]).mask("aaaaaa"), "***");
    }

    #[test]
    fn case_and_space_around_a_value_hide_nothing() {
        assert_eq!(secrets(&[" HunterÄ22\n"]).mask("no column `hunterÄ22`"), "no column `***`");
    }

    #[test]
    fn short_values_and_other_texts_stay() {
        assert_eq!(secrets(&["", "1", "abc"]).mask("abc 1"), "abc 1");
        assert!(matches!(secrets(&["secret"]).mask("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(format!("{:?}", secrets(&["hunter22"])), "Secrets(1 values)");
    }
}
