//! Escaping of texts that come from data, file names, and the pipeline file.

use std::borrow::Cow;

/// Replaces harmful characters by visible ones. Line breaks and tabs stay. See [`is_harmful`].
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            // Unicode has control pictures for these.
            '\0'..='\u{1f}' if is_harmful(char) => escaped.extend(char::from_u32(0x2400 + u32::from(char))),
            '\u{7f}' => escaped.push('\u{2421}'),
            char if is_harmful(char) => escaped.extend(["[U+", &format!("{:04X}", u32::from(char)), "]"]),
            char => escaped.push(char),
        }
    }
    Cow::Owned(escaped)
}

/// Returns whether a character controls a terminal, is forbidden in XML, or changes the direction of text. Line breaks and tabs do not.
pub fn is_harmful(char: char) -> bool {
    (char.is_control() && !matches!(char, '\n' | '\t'))
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
        || matches!(char, '\u{fffe}' | '\u{ffff}')
}

/// Makes text visible on one line.
pub(super) fn line(text: &str) -> String {
    visible(text).replace('\n', "\u{240a}").replace('\t', "\u{2409}")
}

/// Escapes text for Markdown, including tables: characters with a meaning in Markdown become character references.
pub(super) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in line(text).chars() {
        if char.is_ascii_punctuation()
            && !matches!(char, '.' | ',' | ';' | '/' | '%' | '\'' | '"' | '?' | '=' | '-' | '(' | ')')
        {
            escaped.extend(["&#", &u32::from(char).to_string(), ";"]);
        } else {
            escaped.push(char);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmful_characters_become_visible() {
        assert_eq!(visible("größe 🎉\n\tx"), "größe 🎉\n\tx");
        assert_eq!(visible("\u{1b}[31mred\u{1b}[0m\r\0\u{7f}"), "␛[31mred␛[0m␍␀␡");
        assert_eq!(visible("a\u{9b}2Jb\u{202e}c\u{ffff}"), "a[U+009B]2Jb[U+202E]c[U+FFFF]");
        assert_eq!(line("a\nb\tc"), "a␊b␉c");
    }

    #[test]
    fn text_in_markdown_has_no_markup() {
        assert_eq!(markdown("a|b<i>`x`[y](z)*"), "a&#124;b&#60;i&#62;&#96;x&#96;&#91;y&#93;(z)&#42;");
        assert_eq!(markdown("a\n# b"), "a␊&#35; b");
        assert_eq!(markdown("50.5% of Größe"), "50.5% of Größe");
    }
}
