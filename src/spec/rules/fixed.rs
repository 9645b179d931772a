//! Rules of the layout of fixed-width files.

use super::super::encoding::Encoding;
use super::super::fixed::{ByteOrder, FieldSpec, FieldType, FixedSpec, RecordFormat, SignPlace, Trim};
use super::super::read::{nearest, short};
use super::super::source::{Format, SourceSpec};
use super::super::value::Scalar;
use super::under;
use crate::diagnostic::{Path, Problems};

/// The maximum number of digits of a number.
const DIGITS: u32 = 38;

/// The maximum length of a record in bytes.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Checks the layout of fixed-width files of a source.
pub(super) fn check(source: &Path, spec: &SourceSpec, problems: &mut Problems) {
    let (at, fixed) = (under(source, &["fixed"]), &spec.fixed);
    let is_fixed = spec.format == Some(Format::Fixed);
    if !is_fixed {
        if !fixed.fields.is_empty() {
            let message = "`fixed` has no effect without `format: fixed`";
            problems.add_with_hint(at, message, "set `format: fixed` next to `path:`");
        }
        return;
    }
    if fixed.fields.is_empty() {
        problems.add_with_hint(
            under(&at, &["fields"]),
            "fixed-width files require `fields`",
            "list them by name: `fields: { name: { at: 1, width: 30 } }`, or draft them from a copybook with \
             `pipeline init --copybook FILE`",
        );
    }
    check_records(&at, fixed, problems);
    for (name, field) in fixed.fields.iter() {
        check_field(&under(&at, &["fields", name]), fixed, field, problems);
    }
    for (name, values) in fixed.when.iter() {
        check_condition(&under(&at, &["when", name]), fixed, name, values, problems);
    }
}

fn check_records(at: &Path, fixed: &FixedSpec, problems: &mut Problems) {
    if fixed.records == RecordFormat::Length && fixed.length.is_none() {
        problems.add_with_hint(
            under(at, &["records"]),
            "records of equal length require `length`",
            "set it to the length of a record in bytes (LRECL)",
        );
    }
    if fixed.length == Some(0) || fixed.record_length() > LONGEST {
        problems
            .add(under(at, &["length"]), format_args!("a record has 1–{LONGEST} bytes, not {}", fixed.record_length()));
    }
    if matches!(fixed.encoding, Encoding::Standard(standard) if !standard.is_ascii_compatible()) {
        problems.add_with_hint(
            under(at, &["encoding"]),
            format_args!("`{}` cannot be the encoding of fixed-width files", fixed.encoding),
            "convert the file to UTF-8 first",
        );
    }
}

fn check_field(at: &Path, fixed: &FixedSpec, field: &FieldSpec, problems: &mut Problems) {
    if field.at == 0 {
        problems.add(under(at, &["at"]), "positions are counted from 1");
    }
    if field.width == 0 {
        problems.add(under(at, &["width"]), "a field has at least one byte");
    }
    if field.at == 0 || field.width == 0 {
        return;
    }
    let end = u64::from(field.at) + u64::from(field.width) - 1;
    if let Some(length) = fixed.length.filter(|length| end > u64::from(*length)) {
        let message = format!("the field ends at byte {end}, but `length` is {length}");
        problems.add(under(at, &["width"]), message);
    }
    let (is_text, is_zoned) = (field.data_type == FieldType::Text, field.data_type == FieldType::Zoned);
    let is_binary = field.data_type == FieldType::Binary;
    let useless = [
        ("scale", is_text && field.scale != 0, "text"),
        ("signed", is_text && !field.signed, "text"),
        ("sign", !is_zoned && field.sign != SignPlace::Trailing, "types other than `zoned`"),
        ("byte_order", !is_binary && field.byte_order != ByteOrder::Big, "types other than `binary`"),
        ("trim", !is_text && field.trim != Trim::End, "types other than `text`"),
    ];
    for (setting, _, of) in useless.into_iter().filter(|(_, given, _)| *given) {
        problems.add(under(at, &[setting]), format_args!("`{setting}` has no effect on {of}"));
    }
    if !field.signed && field.sign.is_separate() {
        problems.add(under(at, &["signed"]), "a number with a separate sign is signed");
    }
    check_number(at, fixed, field, problems);
}

fn check_number(at: &Path, fixed: &FixedSpec, field: &FieldSpec, problems: &mut Problems) {
    let width = field.width;
    let digits = match field.data_type {
        FieldType::Text => return,
        FieldType::Zoned => width - u32::from(field.sign.is_separate()),
        FieldType::Packed => width.saturating_mul(2).saturating_sub(1),
        FieldType::Binary if width > 8 => {
            return problems.add(under(at, &["width"]), "a binary number has 1–8 bytes");
        }
        FieldType::Binary => 20,
    };
    let zeros = u32::from(field.scale.unsigned_abs());
    let total = if field.scale < 0 { digits.saturating_add(zeros) } else { digits.max(zeros) };
    if digits == 0 {
        problems.add(under(at, &["width"]), "the number has no digit");
    } else if total > DIGITS {
        problems.add(under(at, &["width"]), format_args!("a number has at most {DIGITS} digits, not {total}"));
    }
    if fixed.records == RecordFormat::Lines && matches!(field.data_type, FieldType::Packed | FieldType::Binary) {
        problems.add_with_hint(
            under(at, &["type"]),
            "packed and binary numbers can contain the bytes of line ends",
            "set `records: length` with `length`, or `records: rdw`, and transfer the file in binary mode",
        );
    }
}

fn check_condition(at: &Path, fixed: &FixedSpec, name: &str, values: &[Scalar], problems: &mut Problems) {
    let Some(field) = fixed.fields.get(name) else {
        let names: Vec<&str> = fixed.fields.iter().map(|(name, _)| name.as_str()).collect();
        let message = format_args!("unknown field `{}`", short(name)).to_string();
        match nearest(name, &names) {
            Some(near) => problems.add_with_hint(at.clone(), message, format!("did you mean `{near}`?")),
            None => problems.add(at.clone(), message),
        }
        return;
    };
    let is_number = |value: &&Scalar| {
        let text = value.0.strip_prefix('-').unwrap_or(&value.0);
        text.bytes().any(|byte| byte.is_ascii_digit()) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    if let Some(value) = values.iter().find(|value| field.data_type != FieldType::Text && !is_number(value)) {
        problems.add(at.clone(), format_args!("`{}` is not a number, as the field is", short(&value.0)));
    }
    if values.is_empty() {
        problems.add(at.clone(), "a condition has at least one value");
    }
}
