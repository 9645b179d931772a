//! Decimal numbers in text that are wider than Arrow's decimals.

/// A limit on the digits behind the point and on the exponent that PostgreSQL accepts in every case.
const LONGEST: usize = 10_000;

/// Formats a number with all digits of its scale; None if it has more digits than that or exceeds the precision.
pub(super) fn canonical(text: &str, precision: u16, scale: i16) -> Option<String> {
    let (negative, unsigned) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if fraction.len() > LONGEST || usize::from(exponent.unsigned_abs()) > LONGEST / 2 {
        return None;
    }
    let all = whole.to_owned() + fraction;
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The number is digits · 10^exponent, without zeros at either end of the digits.
    let significant = all.trim_start_matches('0');
    let digits = significant.trim_end_matches('0');
    let exponent = i64::from(exponent) - fraction.len() as i64 + (significant.len() - digits.len()) as i64;
    let shown = usize::try_from(scale).unwrap_or(0);
    if digits.is_empty() {
        return Some(with_point("0", shown));
    }
    let scale = i64::from(scale);
    if exponent < -scale || digits.len() as i64 + exponent + scale > i64::from(precision) {
        return None;
    }
    let zeros = usize::try_from(exponent + shown as i64).ok()?;
    let unscaled = format!("{digits}{}", "0".repeat(zeros));
    let number = if unscaled.len() > shown {
        let (whole, fraction) = unscaled.split_at(unscaled.len() - shown);
        if shown == 0 { whole.to_owned() } else { format!("{whole}.{fraction}") }
    } else {
        format!("0.{unscaled:0>shown$}")
    };
    Some(if negative { format!("-{number}") } else { number })
}

fn with_point(whole: &str, zeros: usize) -> String {
    if zeros == 0 { whole.to_owned() } else { format!("{whole}.{}", "0".repeat(zeros)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_all_digits_of_its_scale_and_is_never_rounded() {
        for (text, precision, scale, expected) in [
            ("1", 100, 2, Some("1.00")),
            ("-001.50", 100, 2, Some("-1.50")),
            ("+.5", 100, 2, Some("0.50")),
            ("5.", 100, 0, Some("5")),
            ("-0.0", 100, 1, Some("0.0")),
            ("0e-300", 100, 1, Some("0.0")),
            ("1.234", 100, 2, None),
            ("1.230", 100, 2, Some("1.23")),
            ("12e-1", 100, 1, Some("1.2")),
            ("1.2E3", 100, 0, Some("1200")),
            ("1e98", 100, 2, None),
            ("1e97", 100, 2, Some(&format!("1{}.00", "0".repeat(97)))),
            ("12000", 2, -3, Some("12000")),
            ("12500", 2, -3, None),
            ("0", 2, -3, Some("0")),
            ("100000", 2, -3, None),
            ("0.00999", 3, 5, Some("0.00999")),
            ("0.01", 3, 5, None),
            ("", 3, 0, None),
            (".", 3, 0, None),
            ("-", 3, 0, None),
            ("1e", 3, 0, None),
            ("1 ", 3, 0, None),
            ("--1", 3, 0, None),
            ("1.2.3", 9, 2, None),
            ("NaN", 9, 2, None),
            ("1_0", 9, 2, None),
            ("1e99999", 9, 2, None),
        ] {
            assert_eq!(canonical(text, precision, scale).as_deref(), expected, "{text} ({precision}, {scale})");
        }
    }
}
