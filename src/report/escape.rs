//! What comes from data, file names and the pipeline file, made harmless before it is shown.

use std::borrow::Cow;

/// Text in which every character is seen: those that would drive a terminal, that XML forbids, or that turn the order of what
/// follows are shown as what they are. Line breaks and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            // The pictures that Unicode has for them.
            '\0'..='\u{1f}' if is_harmful(char) => shown.extend(char::from_u32(0x2400 + u32::from(char))),
            '\u{7f}' => shown.push('\u{2421}'),
            char if is_harmful(char) => shown.extend(["[U+", &format!("{:04X}", u32::from(char)), "]"]),
            char => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

/// Whether a character would drive a terminal, is forbidden in XML, or turns the order of what follows. Line breaks and tabs do not.
pub fn is_harmful(char: char) -> bool {
    (char.is_control() && !matches!(char, '\n' | '\t'))
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
        || matches!(char, '\u{fffe}' | '\u{ffff}')
}

/// The same in one line.
pub(super) fn line(text: &str) -> String {
    visible(text).replace('\n', "\u{240a}").replace('\t', "\u{2409}")
}

/// Text for Markdown, also within a table: whatever could mean something is written as a character reference.
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
    fn what_would_drive_a_terminal_is_seen_instead() {
        assert_eq!(visible("größe 🎉\n\tx"), "größe 🎉\n\tx");
        assert_eq!(visible("\u{1b}[31mred\u{1b}[0m\r\0\u{7f}"), "␛[31mred␛[0m␍␀␡");
        assert_eq!(visible("a\u{9b}2Jb\u{202e}c\u{ffff}"), "a[U+009B]2Jb[U+202E]c[U+FFFF]");
        assert_eq!(line("a\nb\tc"), "a␊b␉c");
    }

    #[test]
    fn markdown_means_nothing() {
        assert_eq!(markdown("a|b<i>`x`[y](z)*"), "a&#124;b&#60;i&#62;&#96;x&#96;&#91;y&#93;(z)&#42;");
        assert_eq!(markdown("a\n# b"), "a␊&#35; b");
        assert_eq!(markdown("50.5% of Größe"), "50.5% of Größe");
    }
}
