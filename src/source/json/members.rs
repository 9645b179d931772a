//! The members of one JSON object: their keys, and their values as written.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::de::IgnoredAny;

/// A key and its value as written.
pub(super) type Member<'a> = (Cow<'a, str>, &'a str);

/// Returns the reason why a text is not one JSON object.
pub(super) fn validate(text: &str) -> Result<(), String> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        match error.line() {
            0 | 1 => format!("not JSON: {message} at byte {}", error.column()),
            line => format!("not JSON: {message} at byte {} of its line {line}", error.column()),
        }
    })?;
    if text.trim_ascii_start().starts_with('{') { Ok(()) } else { Err("not a JSON object".into()) }
}

/// Returns the keys and the raw values of a valid object, or the reason why a key is invalid.
pub(super) fn members(text: &str) -> Result<Vec<Member<'_>>, String> {
    let bytes = text.as_bytes();
    let blank = |at: usize| at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let mut members = Vec::new();
    let mut at = blank(blank(0) + 1);
    while bytes.get(at) == Some(&b'"') {
        let end = end_of_value(bytes, at);
        let key = string(&text[at..end]).map_err(|error| format!("invalid key: {error}"))?;
        at = blank(blank(end) + 1);
        let end = end_of_value(bytes, at);
        members.push((key, &text[at..end]));
        at = blank(end);
        if bytes.get(at) == Some(&b',') {
            at = blank(at + 1);
        }
    }
    Ok(members)
}

/// Returns the members with those of nested objects in their place, under dotted keys.
pub(super) fn flattened<'a>(members: Vec<Member<'a>>) -> Result<Vec<Member<'a>>, String> {
    let mut flat = Vec::with_capacity(members.len());
    let mut open: Vec<Member<'a>> = members.into_iter().rev().collect();
    while let Some((key, value)) = open.pop() {
        let inner = if value.starts_with('{') { self::members(value)? } else { Vec::new() };
        if inner.is_empty() {
            flat.push((key, value));
            continue;
        }
        open.extend(inner.into_iter().rev().map(|(name, value)| (Cow::Owned(format!("{key}.{name}")), value)));
    }
    Ok(flat)
}

/// Returns the end of the value that starts at `at`, in text that is valid JSON.
pub(super) fn end_of_value(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    loop {
        match bytes.get(at) {
            Some(b'"') => {
                at += 1;
                while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') => {
                depth -= 1;
                at += 1;
            }
            Some(_) if depth > 0 => at += 1,
            _ => {
                let end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                return bytes[at..].iter().position(end).map_or(bytes.len(), |found| at + found);
            }
        }
        if depth == 0 {
            return at;
        }
    }
}

/// Returns the text of a JSON string.
pub(super) fn string(raw: &str) -> Result<Cow<'_, str>, String> {
    if raw.contains('\\') {
        let text: String = serde_json::from_str(raw)
            .map_err(|error| error.to_string().split(" at line ").next().unwrap_or_default().to_string())?;
        return Ok(Cow::Owned(text));
    }
    Ok(Cow::Borrowed(raw.trim_matches('"')))
}

/// Returns a raw value as a column stores it.
pub(super) fn value(raw: &str) -> Result<Option<Cow<'_, str>>, String> {
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => string(raw).map(Some),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}

/// Returns the problem of an object's keys, if any.
pub(super) fn fault(members: &[Member<'_>]) -> Option<String> {
    let mut seen = HashSet::with_capacity(members.len());
    members.iter().find_map(|(key, _)| match key.as_ref() {
        "" => Some("an empty key".to_string()),
        key if key.contains('\0') => Some("a key contains a NUL character".to_string()),
        key if !seen.insert(key) => Some(format!("duplicate key \"{key}\"")),
        _ => None,
    })
}
