//! Array literals in PostgreSQL's notation.
//!
//! <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>

/// PostgreSQL's limit on the dimensions of an array.
const DEPTH: usize = 6;

const BLANK: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];

/// Returns the elements of an array literal, flattened: their texts without quotes and escapes, None for NULL.
/// Returns None if the text is not a valid literal. Dimensions must not be ragged, and they begin at one.
///
/// ```text
/// {{1,"a, b"},{NULL,"NULL"}}     Some("1")  Some("a, b")  None  Some("NULL")
/// ```
pub fn elements(literal: &str) -> Option<Vec<Option<String>>> {
    let mut reader = Reader { rest: literal, elements: Vec::new(), lengths: [None; DEPTH], bottom: None };
    reader.skip_blanks();
    reader.skip('{')?;
    reader.level(0)?;
    reader.skip_blanks();
    (reader.rest.is_empty() && !literal.contains('\0')).then_some(reader.elements)
}

/// Returns the array literal of a JSON array. Elements that are `json` keep their text; otherwise, an inner array is a further dimension.
/// Returns None if the text is not a JSON array, or has an object as an element that is not `json`.
pub(super) fn of_json(text: &str, is_json: bool) -> Option<String> {
    let mut literal = String::with_capacity(text.len() + 8);
    json_array(super::json::parts(text)?, is_json, &mut literal)?;
    Some(literal)
}

fn json_array(parts: Vec<&str>, is_json: bool, literal: &mut String) -> Option<()> {
    literal.push('{');
    for (at, part) in parts.into_iter().enumerate() {
        if at > 0 {
            literal.push(',');
        }
        match part.as_bytes().first()? {
            b'n' => literal.push_str("NULL"),
            _ if is_json => quote(part, literal),
            b'[' => json_array(super::json::parts(part)?, is_json, literal)?,
            b'{' => return None,
            b'"' => quote(&serde_json::from_str::<String>(part).ok()?, literal),
            _ => literal.push_str(part),
        }
    }
    literal.push('}');
    Some(())
}

fn quote(text: &str, literal: &mut String) {
    literal.push('"');
    for char in text.chars() {
        if matches!(char, '"' | '\\') {
            literal.push('\\');
        }
        literal.push(char);
    }
    literal.push('"');
}

struct Reader<'a> {
    rest: &'a str,
    elements: Vec<Option<String>>,
    /// The number of items within the braces of each depth.
    lengths: [Option<usize>; DEPTH],
    /// The depth that has the elements.
    bottom: Option<usize>,
}

impl Reader<'_> {
    /// Reads from behind an opening brace up to the closing one.
    fn level(&mut self, depth: usize) -> Option<()> {
        let mut items = 0;
        self.skip_blanks();
        if depth == 0 && self.skip('}').is_some() {
            return Some(());
        }
        loop {
            self.skip_blanks();
            if self.skip('{').is_some() {
                if depth + 1 == DEPTH || self.bottom == Some(depth) {
                    return None;
                }
                self.level(depth + 1)?;
            } else {
                if *self.bottom.get_or_insert(depth) != depth {
                    return None;
                }
                self.element()?;
            }
            items += 1;
            self.skip_blanks();
            if self.skip(',').is_none() {
                self.skip('}')?;
                return (*self.lengths[depth].get_or_insert(items) == items).then_some(());
            }
        }
    }

    fn element(&mut self) -> Option<()> {
        if self.skip('"').is_some() { self.quoted() } else { self.unquoted() }
    }

    fn quoted(&mut self) -> Option<()> {
        let mut text = String::new();
        loop {
            match self.next()? {
                '"' => {
                    self.elements.push(Some(text));
                    return Some(());
                }
                '\\' => text.push(self.next()?),
                char => text.push(char),
            }
        }
    }

    /// Reads an element without quotes, which may be NULL. Ignores blanks around it.
    fn unquoted(&mut self) -> Option<()> {
        let mut text = String::new();
        let (mut end, mut escaped) = (0, false);
        while !self.rest.starts_with([',', '}']) {
            match self.next()? {
                '{' | '"' => return None,
                '\\' => {
                    text.push(self.next()?);
                    (end, escaped) = (text.len(), true);
                }
                char => {
                    text.push(char);
                    if !BLANK.contains(&char) {
                        end = text.len();
                    }
                }
            }
        }
        text.truncate(end);
        if text.is_empty() {
            return None;
        }
        let null = !escaped && text.eq_ignore_ascii_case("null");
        self.elements.push((!null).then_some(text));
        Some(())
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    fn skip(&mut self, char: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(char)?;
        Some(())
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(BLANK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_array_is_written_as_an_array_literal() {
        for (json, literal) in [
            (r#"["a", "b c","d,e","q\"r","{x}","NULL","",null]"#, r#"{"a","b c","d,e","q\"r","{x}","NULL","",NULL}"#),
            ("[1, -2.50, true]", "{1,-2.50,true}"),
            (" [[1],[2]] ", "{{1},{2}}"),
            (r#"["back\\slash", "\u00e9\n"]"#, "{\"back\\\\slash\",\"é\n\"}"),
            ("[]", "{}"),
        ] {
            assert_eq!(of_json(json, false).as_deref(), Some(literal), "{json}");
        }
        assert_eq!(
            of_json(r#"[{"a": "x"}, [1, "]"], null]"#, true).unwrap(),
            r#"{"{\"a\": \"x\"}","[1, \"]\"]",NULL}"#
        );
        for json in [r#"[{"a":1}]"#, "[1", "[1,]", "[a]", "{}"] {
            assert_eq!(of_json(json, false), None, "{json}");
        }
    }

    fn read(literal: &str) -> Vec<Option<String>> {
        elements(literal).unwrap()
    }

    fn some(texts: &[&str]) -> Vec<Option<String>> {
        texts.iter().map(|text| Some((*text).to_owned())).collect()
    }

    #[test]
    fn elements_lose_their_quotes_and_escapes() {
        assert_eq!(read("{}"), some(&[]));
        assert_eq!(read(" { } "), some(&[]));
        assert_eq!(read("{ a b , \"c\\\"\\\\d\" , e\\,f\\  }"), some(&["a b", "c\"\\d", "e,f "]));
        assert_eq!(read("{{1,2},{3,4}}"), some(&["1", "2", "3", "4"]));
        assert_eq!(read("{\"\"}"), some(&[""]));
        assert_eq!(read("{null,NULL,\"NULL\",n\\ull}").iter().flatten().count(), 2);
        assert_eq!(read("{{{{{{1}}}}}}"), some(&["1"]));
    }

    #[test]
    fn what_is_no_array_has_no_elements() {
        for literal in [
            "",
            "{",
            "}",
            "1,2",
            "{1",
            "{1}}",
            "{1}x",
            "{,}",
            "{1,}",
            "{,1}",
            "{1,,2}",
            "{{1,2},{3}}",
            "{1,{2}}",
            "{{1},2}",
            "{{},{}}",
            "{{}}",
            "{a\"b\"}",
            "{\"a\"b}",
            "{\"a}",
            "{a\\",
            "{a{b}",
            "[1:1]={1}",
            "{a\0}",
            "{{{{{{{1}}}}}}}",
            "{1}{2}",
            "{ , }",
        ] {
            assert_eq!(elements(literal), None, "{literal}");
        }
    }
}
