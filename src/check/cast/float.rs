//! Texts of binary floating-point numbers: which of them a number keeps.
//!
//! A number of 64 bits has at most 17 significant digits, and one of 32 bits at most 9. A text is kept if the number is written so again,
//! with the fewest digits or with all of them.

/// Returns whether a number keeps the value of a text. `single` is for 32 bits.
pub(super) fn keeps(text: &str, value: f64, single: bool) -> bool {
    let Some(written) = digits(text) else { return false };
    if written.0.is_empty() {
        return value == 0.0;
    }
    // Numbers that are nearly zero have fewer digits, or none.
    let is_normal = if single { (value as f32).is_normal() } else { value.is_normal() };
    if is_normal && written.0.len() <= if single { 6 } else { 15 } {
        return true;
    }
    let (fewest, all) = match single {
        true => (format!("{:e}", value as f32), format!("{:.8e}", value as f32)),
        false => (format!("{value:e}"), format!("{value:.16e}")),
    };
    // Whole numbers can be kept exactly with more digits.
    let is_whole = || text.parse::<i128>().is_ok_and(|whole| same(whole as f64, value) && value as i128 == whole);
    let is_kept = |number: &str| digits(number).as_ref() == Some(&written);
    is_kept(&fewest) || is_kept(&all) || (is_whole() && (!single || same(f64::from(value as f32), value)))
}

/// Returns whether 32 bits keep a number of 64 bits.
pub(super) fn fits_single(value: f64) -> bool {
    let single = value as f32;
    same(f64::from(single), value) || digits(&format!("{value:e}")) == digits(&format!("{single:e}"))
}

fn same(one: f64, other: f64) -> bool {
    one.to_bits() == other.to_bits()
}

/// Returns the significant digits of a number, and the power of ten of the first one; None if it is not in decimal notation.
fn digits(text: &str) -> Option<(String, i64)> {
    let text = text.trim().trim_start_matches(['+', '-']);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some((String::new(), 0));
    }
    let leading = (all.len() - significant.len()) as i64;
    Some((significant.trim_end_matches('0').to_owned(), whole.len() as i64 - 1 - leading + exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_the_texts_that_it_is_written_as() {
        let kept = |text: &str, single: bool| keeps(text, text.parse().unwrap(), single);
        for text in [
            "0.1",
            "0.10000000000000001",
            "1e300",
            "-12.50",
            "9007199254740992",
            "18446744073709551616",
            "0.0",
            "1.7976931348623157e308",
            "5e-324",
            "0e-400",
        ] {
            assert!(kept(text, false), "{text}");
        }
        for text in [
            "1e-400",
            "1.23456789e-320",
            "9007199254740993",
            "0.12345678901234567890123",
            "12345678901234567.89",
            "3.14159265358979323846",
        ] {
            assert!(!kept(text, false), "{text}");
        }
        for text in ["0.1", "16777216", "123456.79", "0.100000001", "16777217e-30"] {
            assert_eq!(kept(text, true), text != "16777217e-30", "{text}");
        }
        for text in ["16777217", "0.1234567891", "123456789", "1e-46", "1.2345e-43"] {
            assert!(!kept(text, true), "{text}");
        }
        assert!(fits_single(0.1) && fits_single(f64::from(0.1_f32)) && fits_single(16_777_216.0));
        assert!(!fits_single(16_777_217.0) && !fits_single(0.123_456_789_01));
    }
}
