//! Translation of PostgreSQL's regular expressions to the engine's, if both surely match the same texts.

/// PostgreSQL's limit on repetitions.
const MOST: u32 = 255;

/// A pattern in the engine's syntax.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) text: String,
    /// Whether it has classes like `\d`, on which both agree for ASCII text only.
    pub(super) of_ascii: bool,
}

/// Translates a pattern. Returns None if it has more than anchors, plain characters, classes of them, groups, and greedy quantifiers.
pub(super) fn translate(pattern: &str) -> Option<Pattern> {
    let mut reader = Reader { rest: pattern.chars().collect(), at: 0, out: String::new(), of_ascii: false };
    reader.alternatives(0)?;
    let Reader { rest, at, out: text, of_ascii } = reader;
    (at == rest.len() && at > 0).then_some(Pattern { text, of_ascii })
}

/// Returns the ASCII characters of a class, as in brackets. Excludes blanks, because some locales have more of them.
fn class(name: &str) -> Option<&'static str> {
    Some(match name {
        "d" | "digit" => "0-9",
        "w" => "A-Za-z0-9_",
        "alpha" => "A-Za-z",
        "alnum" => "A-Za-z0-9",
        "upper" => "A-Z",
        "lower" => "a-z",
        "xdigit" => "0-9A-Fa-f",
        _ => return None,
    })
}

struct Reader {
    rest: Vec<char>,
    at: usize,
    out: String,
    of_ascii: bool,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    /// Reads alternatives up to the end or a closing parenthesis; none may be empty.
    fn alternatives(&mut self, depth: usize) -> Option<()> {
        if depth > 20 {
            return None;
        }
        loop {
            self.branch(depth)?;
            if self.peek() != Some('|') {
                return Some(());
            }
            self.at += 1;
            self.out.push('|');
        }
    }

    fn branch(&mut self, depth: usize) -> Option<()> {
        let start = self.at;
        while let Some(next) = self.peek().filter(|next| !matches!(next, '|' | ')')) {
            self.at += 1;
            match next {
                '^' | '$' => {
                    self.out.push(next);
                    if self.peek().is_some_and(|next| matches!(next, '*' | '+' | '?' | '{')) {
                        return None;
                    }
                    continue;
                }
                '.' => self.out.push_str("(?s:.)"),
                '[' => self.class()?,
                '(' => {
                    self.out.push_str("(?:");
                    self.alternatives(depth + 1)?;
                    (self.next()? == ')').then_some(())?;
                    self.out.push(')');
                }
                '\\' => match self.next()? {
                    mark if mark.is_ascii_punctuation() => self.plain(mark),
                    letter => {
                        let not = if letter.is_ascii_uppercase() { "^" } else { "" };
                        let of = class(letter.to_ascii_lowercase().encode_utf8(&mut [0; 4]))?;
                        self.out.extend(["[", not, of, "]"]);
                        self.of_ascii = true;
                    }
                },
                '*' | '+' | '?' | '{' => return None,
                plain => self.plain(plain),
            }
            self.quantifier()?;
        }
        (self.at > start).then_some(())
    }

    /// Reads at most one quantifier.
    fn quantifier(&mut self) -> Option<()> {
        match self.peek() {
            Some(one @ ('*' | '+' | '?')) => {
                self.at += 1;
                self.out.push(one);
            }
            Some('{') => {
                self.at += 1;
                let least = self.number()?;
                self.out.extend(["{", &least.to_string()]);
                if self.peek() == Some(',') {
                    self.at += 1;
                    self.out.push(',');
                    if self.peek() != Some('}') {
                        let most = self.number().filter(|most| *most >= least)?;
                        self.out.push_str(&most.to_string());
                    }
                }
                (self.next()? == '}').then_some(())?;
                self.out.push('}');
            }
            _ => return Some(()),
        }
        (!self.peek().is_some_and(|next| matches!(next, '*' | '+' | '?' | '{'))).then_some(())
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|next| next.to_digit(10)) {
            self.at += 1;
            number = Some(number.unwrap_or(0) * 10 + digit).filter(|number| *number <= MOST);
            number?;
        }
        number
    }

    /// Reads a class of characters and ranges of ASCII letters or digits.
    fn class(&mut self) -> Option<()> {
        self.out.push('[');
        if self.peek() == Some('^') {
            self.at += 1;
            self.out.push('^');
        }
        let start = self.at;
        loop {
            let first = self.at == start;
            let one = match self.next()? {
                ']' if first => return None,
                ']' => break,
                '[' => {
                    self.named()?;
                    continue;
                }
                '-' if !first && self.peek() != Some(']') => return None,
                '\\' => match self.next()? {
                    mark if mark.is_ascii_punctuation() => mark,
                    letter => {
                        self.out.push_str(class(letter.encode_utf8(&mut [0; 4]))?);
                        self.of_ascii = true;
                        continue;
                    }
                },
                plain => plain,
            };
            self.plain(one);
            if self.peek() == Some('-') && self.rest.get(self.at + 1).is_some_and(|next| *next != ']') {
                self.at += 1;
                let last = self.next()?;
                let alike = [char::is_ascii_uppercase, char::is_ascii_lowercase, |c: &char| c.is_ascii_digit()];
                alike.iter().find(|alike| alike(&one) && alike(&last) && one <= last)?;
                self.out.push('-');
                self.plain(last);
            }
        }
        self.out.push(']');
        Some(())
    }

    /// Reads the rest of `[:name:]` inside a class.
    fn named(&mut self) -> Option<()> {
        let rest = self.rest.get(self.at..)?;
        let length = rest.iter().position(|one| *one == ']')?;
        let text: String = rest[..length].iter().collect();
        self.out.push_str(class(text.strip_prefix(':')?.strip_suffix(':').filter(|name| name.len() > 1)?)?);
        self.of_ascii = true;
        self.at += length + 1;
        Some(())
    }

    fn plain(&mut self, one: char) {
        // All characters with a meaning in a pattern or a class, including the engine's set operations and comments.
        if r"\.+*?()|[]{}^$#&-~".contains(one) {
            self.out.push('\\');
        }
        self.out.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::{Pattern, translate};

    #[test]
    fn simple_patterns_are_passed_on() {
        for (pattern, expected, of_ascii) in [
            ("^[A-Z]{2}[0-9]+$", "^[A-Z]{2}[0-9]+$", false),
            (r"^[a-z0-9._%+-]+@x\.de$", r"^[a-z0-9\._%\+\-]+@x\.de$", false),
            ("^(DE|AT)[0-9]{2,4}$", "^(?:DE|AT)[0-9]{2,4}$", false),
            ("a.c?", "a(?s:.)c?", false),
            ("[^-/]", r"[^\-/]", false),
            ("^[A-Z]{3,}$", "^[A-Z]{3,}$", false),
            ("ä&&b", r"ä\&\&b", false),
            ("[&&~]", r"[\&\&\~]", false),
            (r"^\d{5}$", "^[0-9]{5}$", true),
            (r"^[\d\w-]+$", r"^[0-9A-Za-z0-9_\-]+$", true),
            (r"\W", "[^A-Za-z0-9_]", true),
            ("^[[:alpha:]_]+$", "^[A-Za-z_]+$", true),
        ] {
            let expected = Pattern { text: expected.into(), of_ascii };
            assert_eq!(translate(pattern), Some(expected), "{pattern}");
        }
    }

    #[test]
    fn other_patterns_are_left_to_production() {
        for pattern in [
            "",
            r"\ma",
            r"^\S+$",
            "[[:space:]]",
            r"\y",
            "[[:<:]]",
            "[[.a.]]",
            "[[:d:]]",
            "[]a]",
            "a*?",
            "a**",
            "(?i)a",
            "(?=a)",
            "***=a",
            r"(a)\1",
            "a{300}",
            r"[a-\.]",
            "[A-z]",
            "a|",
            "()",
            "a)",
            "(a",
            "{1}",
            "a{,2}",
            "^*",
            "[a",
            r"a\",
            r"\x41",
            r"[\D]",
            "[a-b-c]",
            "[[:alpha:]-z]",
        ] {
            assert_eq!(translate(pattern), None, "{pattern}");
        }
    }
}
