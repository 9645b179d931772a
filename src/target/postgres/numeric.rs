//! `numeric` in binary: groups of four decimal digits, the most significant first, with the weight of the first group.
//!
//! ```text
//! 12345.678 = 1 · 10000¹ + 2345 · 10000⁰ + 6780 · 10000⁻¹     count 3, weight 1, sign +, 3 digits shown behind the point
//! ```
//!
//! Numbers of up to 256 bits are four limbs here, the least significant first: divided and multiplied by one limb at a time.

use arrow::datatypes::i256;
use bytes::BytesMut;

type Limbs = [u64; 4];

const NEGATIVE: u16 = 0x4000;

/// Sixteen digits, or four groups: the divisor of each step.
const CHUNK: u64 = 10_u64.pow(16);

/// Appends the length and the bytes of a decimal; `shortest` drops trailing zeros behind the point.
#[inline]
pub(super) fn put_128(value: i128, scale: u16, shortest: bool, out: &mut BytesMut) {
    let magnitude = value.unsigned_abs();
    put(value < 0, [magnitude as u64, (magnitude >> 64) as u64, 0, 0], scale, shortest, out);
}

/// Appends the length and the bytes of a 256-bit decimal; `shortest` drops trailing zeros behind the point.
#[inline]
pub(super) fn put_256(value: i256, scale: u16, shortest: bool, out: &mut BytesMut) {
    let (low, high) = value.wrapping_abs().to_parts();
    let limbs = [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64];
    put(value.is_negative(), limbs, scale, shortest, out);
}

fn put(negative: bool, mut limbs: Limbs, scale: u16, shortest: bool, out: &mut BytesMut) {
    // 256 bits are 78 digits, which may begin and end inside a group.
    let mut groups = [0_u16; 24];
    let mut end = 0;
    let mut len = 4;
    let partial = u32::from(scale % 4);
    if partial > 0 {
        groups[0] = (divide(&mut limbs, &mut len, 10_u64.pow(partial)) * 10_u64.pow(4 - partial)) as u16;
        end = 1;
    }
    loop {
        let mut chunk = divide(&mut limbs, &mut len, CHUNK);
        for group in &mut groups[end..end + 4] {
            *group = (chunk % 10_000) as u16;
            chunk /= 10_000;
        }
        end += 4;
        if len == 0 {
            break;
        }
    }
    while end > 0 && groups[end - 1] == 0 {
        end -= 1;
    }
    let start = groups[..end].iter().position(|group| *group != 0).unwrap_or(end);
    let behind_point = scale.div_ceil(4);
    let (weight, shown) = if start == end {
        (0, 0)
    } else {
        let needed = (behind_point * 4).saturating_sub(start as u16 * 4);
        (end as i16 - 1 - behind_point as i16, needed.saturating_sub(trailing_zeros(groups[start])))
    };

    let count = end - start;
    let mut field = [0; 4 + 8 + 2 * 24];
    field[..4].copy_from_slice(&(8 + 2 * count as i32).to_be_bytes());
    field[4..6].copy_from_slice(&(count as i16).to_be_bytes());
    field[6..8].copy_from_slice(&weight.to_be_bytes());
    field[8..10].copy_from_slice(&(if negative { NEGATIVE } else { 0 }).to_be_bytes());
    field[10..12].copy_from_slice(&(if shortest { shown } else { scale }).to_be_bytes());
    for (bytes, group) in field[12..].chunks_exact_mut(2).zip(groups[start..end].iter().rev()) {
        bytes.copy_from_slice(&group.to_be_bytes());
    }
    out.extend_from_slice(&field[..12 + 2 * count]);
}

/// Counts the trailing zeros of a group of four digits.
fn trailing_zeros(group: u16) -> u16 {
    match group {
        0 => 4,
        _ if group.is_multiple_of(1000) => 3,
        _ if group.is_multiple_of(100) => 2,
        _ if group.is_multiple_of(10) => 1,
        _ => 0,
    }
}

/// Divides the first `len` limbs, shrinks `len`, and returns the remainder.
#[inline]
fn divide(limbs: &mut Limbs, len: &mut usize, by: u64) -> u64 {
    while *len > 0 && limbs[*len - 1] == 0 {
        *len -= 1;
    }
    let mut rest = 0;
    for limb in limbs[..*len].iter_mut().rev() {
        if rest == 0 {
            (*limb, rest) = (*limb / by, *limb % by);
        } else {
            let dividend = u128::from(rest) << 64 | u128::from(*limb);
            *limb = (dividend / u128::from(by)) as u64;
            rest = (dividend % u128::from(by)) as u64;
        }
    }
    while *len > 0 && limbs[*len - 1] == 0 {
        *len -= 1;
    }
    rest
}

/// The reason that a number of production has no decimal here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoDecimal {
    /// It is NaN or an infinity.
    NoNumber,
    /// It has more digits than the decimals of its column.
    TooLong,
    /// Its bytes are not as PostgreSQL documents them.
    Malformed,
}

/// Returns the exact decimal of a scale that a number's bytes stand for.
#[inline]
pub(super) fn read_256(bytes: &[u8], scale: u16) -> Result<i256, NoDecimal> {
    let (negative, limbs) = read(bytes, scale)?;
    let low = u128::from(limbs[1]) << 64 | u128::from(limbs[0]);
    let high = u128::from(limbs[3]) << 64 | u128::from(limbs[2]);
    let value = i256::from_parts(low, i128::try_from(high).map_err(|_| NoDecimal::TooLong)?);
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// Returns the exact 128-bit decimal of a scale that a number's bytes stand for.
#[inline]
pub(super) fn read_128(bytes: &[u8], scale: u16) -> Result<i128, NoDecimal> {
    let (negative, limbs) = read(bytes, scale)?;
    if limbs[2..] != [0, 0] {
        return Err(NoDecimal::TooLong);
    }
    let value = u128::from(limbs[1]) << 64 | u128::from(limbs[0]);
    let value = i128::try_from(value).map_err(|_| NoDecimal::TooLong)?;
    Ok(if negative { -value } else { value })
}

fn read(bytes: &[u8], scale: u16) -> Result<(bool, Limbs), NoDecimal> {
    let (header, groups) = bytes.split_first_chunk::<8>().ok_or(NoDecimal::Malformed)?;
    let [count, weight, sign, _shown] = [0, 2, 4, 6].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
    let weight = i32::from(weight as i16);
    let negative = match sign {
        0 => false,
        NEGATIVE => true,
        _ => return Err(NoDecimal::NoNumber),
    };
    if groups.len() != 2 * usize::from(count) {
        return Err(NoDecimal::Malformed);
    }
    let mut limbs = [0; 4];
    let group = |bytes: &[u8]| u64::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let used = groups.chunks_exact(2).rposition(|bytes| group(bytes) != 0).map_or(0, |last| last + 1);
    let Some(last) = used.checked_sub(1) else { return Ok((false, limbs)) };
    for bytes in groups.chunks_exact(2).take(last) {
        multiply(&mut limbs, 10_000, group(bytes))?;
    }
    // The number of digits between the end of the last group and the end of the decimal.
    let missing = 4 * (weight - last as i32) + i32::from(scale);
    let last = group(&groups[2 * last..]);
    match u32::try_from(missing) {
        Ok(mut missing) => {
            multiply(&mut limbs, 10_000, last)?;
            while missing > 0 {
                let step = missing.min(19);
                multiply(&mut limbs, 10_u64.pow(step), 0)?;
                missing -= step;
            }
        }
        Err(_) if missing > -4 => {
            let beyond = 10_u64.pow(missing.unsigned_abs());
            if !last.is_multiple_of(beyond) {
                return Err(NoDecimal::TooLong);
            }
            multiply(&mut limbs, 10_000 / beyond, last / beyond)?;
        }
        Err(_) => return Err(NoDecimal::TooLong),
    }
    Ok((negative, limbs))
}

/// Computes `limbs · by + plus`, if it fits.
#[inline]
fn multiply(limbs: &mut Limbs, by: u64, plus: u64) -> Result<(), NoDecimal> {
    let mut carry = plus;
    for limb in limbs {
        let product = u128::from(*limb) * u128::from(by) + u128::from(carry);
        *limb = product as u64;
        carry = (product >> 64) as u64;
    }
    if carry == 0 { Ok(()) } else { Err(NoDecimal::TooLong) }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Decimal128Type, Decimal256Type, DecimalType};
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(value: i128, scale: u16, shortest: bool) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_128(value, scale, shortest, &mut out);
        out[4..].to_vec()
    }

    /// Encodes count, weight, sign, digits behind the point, and groups as `numeric_send` does.
    fn numeric(weight: i16, sign: u16, shown: u16, groups: &[u16]) -> Vec<u8> {
        let head = [groups.len() as u16, weight as u16, sign, shown];
        head.iter().chain(groups).flat_map(|number| number.to_be_bytes()).collect()
    }

    #[test]
    fn a_decimal_is_written_as_the_server_writes_it() {
        for (value, scale, shortest, expected) in [
            (0, 2, false, numeric(0, 0, 2, &[])),
            (0, 38, true, numeric(0, 0, 0, &[])),
            (12_345_678, 3, false, numeric(1, 0, 3, &[1, 2345, 6780])),
            (-1, 0, false, numeric(0, NEGATIVE, 0, &[1])),
            (5, 10, false, numeric(-3, 0, 10, &[500])),
            (10_000, 0, false, numeric(1, 0, 0, &[1])),
            (100_000_000, 4, false, numeric(1, 0, 4, &[1])),
            (1_500, 3, true, numeric(0, 0, 1, &[1, 5000])),
            (12_000, 1, true, numeric(0, 0, 0, &[1200])),
            (10_001, 4, true, numeric(0, 0, 4, &[1, 1])),
            (10_i128.pow(20), 0, false, numeric(5, 0, 0, &[1])),
        ] {
            assert_eq!(bytes_of(value, scale, shortest), expected, "{value} · 10^-{scale}");
            assert_eq!(read_128(&expected, scale), Ok(value));
        }
    }

    #[test]
    fn what_is_no_decimal_of_the_scale_is_refused() {
        assert_eq!(read_128(&numeric(0, 0xC000, 0, &[]), 2), Err(NoDecimal::NoNumber));
        assert_eq!(read_128(&numeric(0, 0xD000, 0, &[]), 2), Err(NoDecimal::NoNumber));
        assert_eq!(read_128(&numeric(0, 0, 3, &[1, 2340]), 2), Err(NoDecimal::TooLong));
        assert_eq!(read_128(&numeric(0, 0, 2, &[1, 2300, 0]), 2), Ok(123));
        assert_eq!(read_128(&numeric(-2, 0, 8, &[1]), 2), Err(NoDecimal::TooLong));
        assert_eq!(read_256(&numeric(20, 0, 0, &[1]), 0), Err(NoDecimal::TooLong));
        assert_eq!(read_256(&numeric(i16::MAX, 0, 0, &[1]), 0), Err(NoDecimal::TooLong));
        assert_eq!(read_128(&numeric(0, 0, 0, &[1])[..9], 0), Err(NoDecimal::Malformed));
        assert_eq!(read_128(&[0; 3], 0), Err(NoDecimal::Malformed));
        assert_eq!(read_128(&numeric(0, NEGATIVE, 0, &[0]), 0), Ok(0));
    }

    proptest! {
        #[test]
        fn a_decimal_comes_back_as_it_went(value: i128, by in 0..39_u32, scale in 0..39_u16, shortest: bool) {
            let value = value % 10_i128.pow(38) / 10_i128.checked_pow(by).unwrap_or(i128::MAX);
            prop_assert_eq!(read_128(&bytes_of(value, scale, shortest), scale), Ok(value));
        }

        #[test]
        fn a_wide_decimal_comes_back_as_it_went(low: u128, high: i128, by in 0..77_u32, scale in 0..77_u16, shortest: bool) {
            let value = i256::from_parts(low, high).wrapping_div(i256::from(10).wrapping_pow(by));
            prop_assume!(value != i256::MIN);
            let mut out = BytesMut::new();
            put_256(value, scale, shortest, &mut out);
            prop_assert_eq!(read_256(&out[4..], scale), Ok(value));
        }
    }

    #[test]
    fn the_longest_decimals_come_back() {
        for value in
            [Decimal256Type::MAX_PRECISION, 1, 39, 57].map(|p| i256::from(10).wrapping_pow(p.into()) - i256::ONE)
        {
            for scale in 0..=76 {
                for value in [value, value.wrapping_neg()] {
                    let mut out = BytesMut::new();
                    put_256(value, scale, true, &mut out);
                    assert_eq!(read_256(&out[4..], scale), Ok(value));
                }
            }
        }
        assert_eq!(Decimal128Type::MAX_PRECISION, 38);
    }
}
