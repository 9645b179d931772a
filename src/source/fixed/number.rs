//! Numbers of mainframe records: zoned, packed, and binary.
//!
//! ```text
//! -12.30 with two decimals     EBCDIC zoned   F1 F2 F3 D0     the zone of the last digit is the sign
//!                              ASCII zoned    31 32 33 70     the same, as Micro Focus and GnuCOBOL write it
//!                              ASCII zoned    31 32 33 7D     the same, translated from EBCDIC: `}`
//!                              packed         01 23 0D        the last half byte is the sign
//!                              binary         FB 32           two's complement of -1230
//! ```
//!
//! Sources: IBM Enterprise COBOL for z/OS, Programming Guide, "Formats for numeric data" and "Sign representation of
//! zoned and packed-decimal data"; z/Architecture Principles of Operation, "Decimal-number formats".

use std::ops::{Add, Mul, Neg};

use crate::spec::{ByteOrder, FieldSpec, FieldType, SignPlace};

/// The notation of a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number {
    notation: Notation,
    signed: bool,
    /// The number of zeros that follow the digits.
    zeros: u8,
    /// The decimal places of the value.
    pub(super) scale: i8,
    /// The number of decimal digits that the field can hold, with zeros.
    pub(super) digits: u8,
}

#[derive(Debug, Clone, Copy)]
enum Notation {
    Zoned { sign: SignPlace, ebcdic: bool },
    Packed,
    Binary(ByteOrder),
}

/// Why bytes are not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberFault {
    /// The byte at this position of the field is not a digit.
    Digit(usize),
    /// The sign at this position of the field is invalid.
    Sign(usize),
    /// The number has a minus, but the field is unsigned.
    Negative,
}

/// The largest number of digits whose value fits into 64 bits, with any half bytes in place of the digits.
const DIGITS_64: u8 = 18;

impl Number {
    /// Returns the notation of a field; `None` if it is text.
    pub(super) fn new(field: &FieldSpec, ebcdic: bool) -> Option<Self> {
        let width = field.width;
        let (notation, digits) = match field.data_type {
            FieldType::Text => return None,
            FieldType::Zoned => {
                let digits = width.saturating_sub(u32::from(field.sign.is_separate()));
                (Notation::Zoned { sign: field.sign, ebcdic }, digits)
            }
            FieldType::Packed => (Notation::Packed, (width * 2).saturating_sub(1)),
            FieldType::Binary => (Notation::Binary(field.byte_order), binary_digits(width, field.signed)),
        };
        let zeros = field.scale.min(0).unsigned_abs();
        let scale = field.scale.max(0);
        let digits = u8::try_from(digits).unwrap_or(u8::MAX).saturating_add(zeros).max(scale.unsigned_abs());
        Some(Self { notation, signed: field.signed, zeros, scale, digits })
    }

    /// Returns whether all values are integers of 64 bits.
    pub(super) fn is_small_integer(self) -> bool {
        let is_long = matches!(self.notation, Notation::Binary(_)) && self.signed && self.zeros == 0;
        self.scale == 0 && (self.digits <= DIGITS_64 || is_long)
    }

    /// Returns whether the digits fit into 64 bits while they are read.
    pub(super) fn is_short(self) -> bool {
        self.digits <= DIGITS_64 || self.is_small_integer()
    }

    /// Returns the value of a field, in units of its last decimal.
    pub(super) fn value<T: Integer>(self, bytes: &[u8]) -> Result<T, NumberFault> {
        let (negative, value) = match self.notation {
            Notation::Zoned { sign, ebcdic } => zoned(bytes, sign, ebcdic)?,
            Notation::Packed => packed(bytes)?,
            Notation::Binary(order) => (false, binary(bytes, order, self.signed)),
        };
        if negative && !self.signed {
            return Err(NumberFault::Negative);
        }
        let value = (0..self.zeros).fold(value, |value: T, _| value * T::from(10_u8));
        Ok(if negative { -value } else { value })
    }

    /// Returns the word for the type in messages.
    pub(super) fn label(self) -> &'static str {
        match self.notation {
            Notation::Zoned { .. } => "zoned",
            Notation::Packed => "packed",
            Notation::Binary(_) => "binary",
        }
    }

    /// Returns whether blanks in place of the number stand for no value.
    pub(super) fn is_zoned(self) -> bool {
        matches!(self.notation, Notation::Zoned { .. })
    }

    /// Returns whether any bytes are a number.
    pub(super) fn is_binary(self) -> bool {
        matches!(self.notation, Notation::Binary(_))
    }
}

/// An integer type of values.
pub(super) trait Integer:
    Copy + From<u8> + Add<Output = Self> + Mul<Output = Self> + Neg<Output = Self>
{
    /// Returns the low bits of an integer.
    fn truncated(value: i128) -> Self;
}

impl Integer for i64 {
    fn truncated(value: i128) -> Self {
        value as Self
    }
}

impl Integer for i128 {
    fn truncated(value: i128) -> Self {
        value
    }
}

/// Returns the number of decimal digits of the largest binary number.
fn binary_digits(width: u32, signed: bool) -> u32 {
    let bits = width.min(8) * 8;
    let largest = if signed { 1_u128 << (bits.max(1) - 1) } else { (1_u128 << bits) - 1 };
    largest.max(1).ilog10() + 1
}

/// Adds the digits of bytes in a zone to a value. Bits outside of half bytes do not overflow it.
fn digits<T: Integer>(bytes: &[u8], zone: u8, at: usize, value: T) -> Result<T, NumberFault> {
    let (mut value, mut valid) = (value, true);
    for byte in bytes {
        let digit = byte ^ zone;
        valid &= digit <= 9;
        value = value * T::from(10_u8) + T::from(digit & 0x0F);
    }
    if valid {
        return Ok(value);
    }
    let wrong = bytes.iter().position(|byte| byte ^ zone > 9).unwrap_or(0);
    Err(NumberFault::Digit(at + wrong))
}

fn zoned<T: Integer>(bytes: &[u8], sign: SignPlace, ebcdic: bool) -> Result<(bool, T), NumberFault> {
    let zone = if ebcdic { 0xF0 } else { 0x30 };
    let zero = T::from(0_u8);
    let separate = |byte: u8, at: usize| match (byte, ebcdic) {
        (0x4E, true) | (b'+', false) => Ok(false),
        (0x60, true) | (b'-', false) => Ok(true),
        _ => Err(NumberFault::Sign(at)),
    };
    match (sign, bytes) {
        (SignPlace::Trailing, [first @ .., last]) => {
            let (negative, digit) = overpunch(*last, ebcdic).map_err(|fault| fault(first.len()))?;
            let value = digits(first, zone, 0, zero)?;
            Ok((negative, value * T::from(10_u8) + T::from(digit)))
        }
        (SignPlace::Leading, [first, rest @ ..]) => {
            let (negative, digit) = overpunch(*first, ebcdic).map_err(|fault| fault(0))?;
            Ok((negative, digits(rest, zone, 1, T::from(digit))?))
        }
        (SignPlace::TrailingSeparate, [first @ .., last]) => {
            let value = digits(first, zone, 0, zero)?;
            Ok((separate(*last, first.len())?, value))
        }
        (SignPlace::LeadingSeparate, [first, rest @ ..]) => {
            let negative = separate(*first, 0)?;
            Ok((negative, digits(rest, zone, 1, zero)?))
        }
        (_, []) => Err(NumberFault::Digit(0)),
    }
}

/// Returns whether the digit with the sign has a minus, and the digit.
fn overpunch(byte: u8, ebcdic: bool) -> Result<(bool, u8), fn(usize) -> NumberFault> {
    if ebcdic {
        let (zone, digit) = (byte >> 4, byte & 0x0F);
        return match (digit, zone) {
            (10.., _) => Err(NumberFault::Digit),
            (_, 0xB | 0xD) => Ok((true, digit)),
            (_, 0xA | 0xC | 0xE | 0xF) => Ok((false, digit)),
            _ => Err(NumberFault::Sign),
        };
    }
    match byte {
        b'0'..=b'9' => Ok((false, byte - b'0')),
        b'p'..=b'y' => Ok((true, byte - b'p')),
        b'{' => Ok((false, 0)),
        b'}' => Ok((true, 0)),
        b'A'..=b'I' => Ok((false, byte - b'A' + 1)),
        b'J'..=b'R' => Ok((true, byte - b'J' + 1)),
        _ => Err(NumberFault::Sign),
    }
}

fn packed<T: Integer>(bytes: &[u8]) -> Result<(bool, T), NumberFault> {
    let [first @ .., last] = bytes else { return Err(NumberFault::Sign(0)) };
    let (mut value, mut valid) = (T::from(0_u8), true);
    for byte in first {
        let (high, low) = (byte >> 4, byte & 0x0F);
        valid &= high <= 9 && low <= 9;
        value = value * T::from(100_u8) + T::from(high * 10 + low);
    }
    let (high, sign) = (last >> 4, last & 0x0F);
    valid &= high <= 9;
    if !valid {
        let wrong = first.iter().position(|byte| byte >> 4 > 9 || byte & 0x0F > 9);
        return Err(NumberFault::Digit(wrong.unwrap_or(first.len())));
    }
    let negative = match sign {
        0xB | 0xD => true,
        0xA | 0xC | 0xE | 0xF => false,
        _ => return Err(NumberFault::Sign(first.len())),
    };
    Ok((negative, value * T::from(10_u8) + T::from(high)))
}

fn binary<T: Integer>(bytes: &[u8], order: ByteOrder, signed: bool) -> T {
    let mut word = [0; 8];
    let len = bytes.len().min(8);
    match order {
        ByteOrder::Big => word[8 - len..].copy_from_slice(&bytes[..len]),
        ByteOrder::Little => {
            word[..len].copy_from_slice(&bytes[..len]);
            word.reverse();
        }
    }
    let unsigned = u64::from_be_bytes(word);
    let unused = 64 - 8 * len as u32;
    T::truncated(match signed {
        true => i128::from((unsigned << (unused % 64)) as i64 >> (unused % 64)),
        false => i128::from(unsigned),
    })
}
