//! Values that a spreadsheet would take for formulas.
//!
//! Users open reject files in a spreadsheet, where a value of the delta must not run. The writer therefore prefixes it
//! with an apostrophe, as [OWASP advises](https://owasp.org/www-community/attacks/CSV_Injection). Reading a corrected
//! reject file removes the apostrophe.

use std::borrow::Cow;

/// Returns whether a value, after leading apostrophes, could be a formula.
fn is_formula(value: &str) -> bool {
    value.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'])
}

/// Returns whether a value is a plain number, which a spreadsheet shows unchanged.
fn is_number(value: &str) -> bool {
    let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
    digits.split(['.', ',']).all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the value as text that no spreadsheet takes for a formula.
pub(crate) fn guarded(value: Cow<'_, str>) -> Cow<'_, str> {
    // A value with leading apostrophes gets another one, so that reading restores the original.
    if is_formula(value.trim_start_matches('\'')) && !is_number(&value) { format!("'{value}").into() } else { value }
}

/// Returns the value before [`guarded`].
pub(super) fn unguarded(value: &str) -> &str {
    match value.strip_prefix('\'') {
        Some(rest) if is_formula(rest.trim_start_matches('\'')) => rest,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_formula_is_text_and_is_read_as_it_was() {
        for (value, written) in [
            ("=1+1", "'=1+1"),
            ("+49 171 123", "'+49 171 123"),
            ("-2+3", "'-2+3"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("-", "'-"),
            ("-1.", "'-1."),
            ("＝1", "'＝1"),
            ("'=1", "''=1"),
            ("''-5", "'''-5"),
            ("'-5", "''-5"),
            ("-5", "-5"),
            ("+1,234.50", "+1,234.50"),
            ("'quoted'", "'quoted'"),
            ("a=1", "a=1"),
            ("", ""),
        ] {
            assert_eq!(guarded(value.into()), written);
            assert_eq!(unguarded(written), value);
        }
    }
}
