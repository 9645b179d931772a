//! Values that must not be printed or written.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

/// The minimum length of a masked value: masking a `1` from the environment would make every text unreadable.
const MIN_CHARS: usize = 4;

/// Settings in a URL that are not secret.
const HARMLESS: [&str; 6] =
    ["application_name", "connect_timeout", "mode", "sslmode", "sslrootcert", "target_session_attrs"];

/// Returns the text with the passwords of its URLs covered byte by byte, so that lengths and columns stay valid.
pub fn cover(text: &str) -> Cow<'_, str> {
    let mut covered = String::new();
    let mut done = 0;
    for (at, _) in text.match_indices(":/") {
        let from = at + text[at..].find(|char: char| !matches!(char, ':' | '/')).unwrap_or(text.len() - at);
        let end = from
            + text[from..]
                .find(|char: char| char.is_whitespace() || matches!(char, '"' | '\'' | '`'))
                .unwrap_or(text.len() - from);
        let url = &text[from..end];
        let password =
            url.rfind('@').and_then(|host| url[..host].find(':').map(|colon| (from + colon + 1, from + host)));
        let query = url.find('?').map(|query| (from + query + 1, end));
        for (start, end) in [password, query].into_iter().flatten() {
            if start < done {
                continue;
            }
            covered.push_str(&text[done..start]);
            covered.extend(std::iter::repeat_n('*', end - start));
            done = end;
        }
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    covered.push_str(&text[done..]);
    Cow::Owned(covered)
}

/// Decodes the percent-encoding of a text.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The values that a pipeline file received from the environment or from `--var`.
#[derive(Clone, Default)]
pub struct Redactor {
    values: BTreeSet<String>,
}

impl Redactor {
    /// Adds a value, without surrounding whitespace.
    pub fn add(&mut self, value: &str) {
        self.values.insert(value.trim().to_ascii_lowercase());
    }

    /// Adds the values of another redactor.
    pub fn add_all(&mut self, other: &Self) {
        self.values.extend(other.values.iter().cloned());
    }

    /// Adds the secrets of a URL: its password, and the values of unknown settings in its query.
    pub fn add_url(&mut self, url: &str) {
        let Some((_, rest)) = url.split_once("://") else { return };
        let mut secret = |value: &str| {
            self.add(value);
            self.add(&decoded(value));
        };
        if let Some((_, password)) = rest.rsplit_once('@').and_then(|(user, _)| user.split_once(':')) {
            secret(password);
        }
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            if !HARMLESS.contains(&name) {
                secret(value);
            }
        }
    }

    /// Returns the text with `***` in place of each value of at least four characters. Overlapping values are masked as one.
    /// ASCII case is ignored, because SQL messages contain names in lower case.
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

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} values)", self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&str]) -> Redactor {
        let mut secrets = Redactor::default();
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
    fn passwords_in_urls_are_covered_and_nothing_moves() {
        for (text, expected) in [
            ("url: postgres://me:secret@host/db # x", "url: postgres://me:******@host/db # x"),
            ("`s3://key:se@cret@b` and 'postgres:/u:pw@h'", "`s3://key:*******@b` and 'postgres:/u:**@h'"),
            ("postgres://h:5432/d?password=x", "postgres://h:5432/d?**********"),
            ("postgres://me@host:5432/db", "postgres://me@host:5432/db"),
            ("a: b, c://", "a: b, c://"),
        ] {
            assert_eq!(cover(text), expected);
        }
    }

    #[test]
    fn what_is_secret_in_a_url_is_masked() {
        let mut secrets = Redactor::default();
        secrets.add_url("postgres://me:p%40ssword@h/d?sslmode=require&token=abcdef");
        assert_eq!(secrets.mask("p%40ssword p@ssword require abcdef me"), "*** *** require *** me");
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(format!("{:?}", secrets(&["hunter22"])), "Redactor(1 values)");
    }
}
