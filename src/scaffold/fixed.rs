//! Fixed-width files of a draft: the fields of a copybook, and the separation of records and the encoding by the first
//! bytes and rows.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use super::copybook::{self, Line, Record};
use super::discover::Read;
use super::name_match::part_of;
use super::profile::Sample;
use super::write::{comment, key, value};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::spec::{
    ByteOrder, CsvSpec, Encoding, FieldSpec, FieldType, FixedSpec, Format, RecordFormat, ShortRecords, SignPlace,
    SourceSpec, Trim,
};

/// The number of bytes that show the encoding.
const FIRST: u64 = 64 * 1024;

/// The layout of fixed-width files.
pub(super) struct Fixed {
    record: Record,
    spec: FixedSpec,
    /// The names of all records, if the copybook has several.
    others: Vec<String>,
    /// Whether rows show how records are separated.
    is_sampled: bool,
}

/// Reads the first rows of files with the record of a copybook whose name is most similar, in the layout with the fewest
/// malformed records.
///
/// # Errors
/// If no layout reads a record.
pub(super) fn read(path: &str, folder: &Path, records: &[Record], words: &[String]) -> Result<Read> {
    let score = |record: &&Record| {
        let own = super::name_match::words(&record.name);
        if own == words { 2 } else { u8::from(part_of(words, &own) || part_of(&own, words)) }
    };
    // Among equals, the first.
    let record = records.iter().rev().max_by_key(score).ok_or_else(|| Error::internal("a copybook without records"))?;
    let fields: Vec<(String, FieldSpec)> = record.fields().map(|(name, field)| (name.clone(), field.clone())).collect();
    let plain = FixedSpec { fields: fields.into_iter().collect(), ..FixedSpec::default() };
    let mut best: Option<(FixedSpec, Sample)> = None;
    for encoding in encodings(&folder.join(path)) {
        for (records, length, short_records) in layouts(record) {
            let spec = FixedSpec { records, length, short_records, encoding, ..plain.clone() };
            let Some(sample) = sample(path, folder, &spec) else { continue };
            if best.as_ref().is_none_or(|(_, other)| sample.malformed < other.malformed) {
                best = Some((spec, sample));
            }
        }
    }
    let (spec, sample) = best.ok_or_else(|| {
        Error::input(format!("no record of `{path}` is read with `{}` of the copybook", record.name))
            .hint("check that the copybook describes the file, and that it was transferred in binary mode")
    })?;
    let others = if records.len() > 1 { records.iter().map(|other| other.name.clone()).collect() } else { Vec::new() };
    let fixed = Fixed { record: record.clone(), spec, others, is_sampled: true };
    Ok(Read { csv: CsvSpec::default(), fixed: Some(fixed), sample })
}

fn sample(path: &str, folder: &Path, fixed: &FixedSpec) -> Option<Sample> {
    let spec = SourceSpec { format: Some(Format::Fixed), fixed: fixed.clone(), ..SourceSpec::at(path) };
    Sample::read(&Source::try_new(&spec, folder).ok()?)
}

/// Returns the separations of records to try, the surest first.
fn layouts(record: &Record) -> Vec<(RecordFormat, Option<u32>, ShortRecords)> {
    let length = Some(record.length);
    let is_text = record.fields().all(|(_, field)| matches!(field.data_type, FieldType::Text | FieldType::Zoned));
    let mut layouts = vec![
        (RecordFormat::Rdw, length, ShortRecords::Reject),
        (RecordFormat::Bdw, length, ShortRecords::Reject),
        (RecordFormat::Length, length, ShortRecords::Reject),
    ];
    if is_text {
        layouts.push((RecordFormat::Lines, length, ShortRecords::Reject));
        layouts.push((RecordFormat::Lines, length, ShortRecords::Fill));
    }
    layouts
}

/// Returns the encodings to try, by the first bytes of a file.
fn encodings(path: &Path) -> Vec<Encoding> {
    let mut bytes = Vec::new();
    let path = glob::glob(&path.to_string_lossy()).ok().and_then(|mut found| found.next()?.ok());
    let read =
        path.and_then(|path| std::fs::File::open(path).ok()).map(|file| file.take(FIRST).read_to_end(&mut bytes));
    if !matches!(read, Some(Ok(_))) {
        return vec![Encoding::UTF_8];
    }
    let ebcdic = bytes.iter().filter(|byte| matches!(byte, 0x40 | 0x81..=0xA9 | 0xC1..=0xE9 | 0xF0..=0xF9)).count();
    let ascii = bytes.iter().filter(|byte| matches!(byte, b' ' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')).count();
    match ebcdic > ascii {
        true => Encoding::of_label("ibm037").into_iter().collect(),
        false => vec![Encoding::UTF_8, Encoding::LATIN_1],
    }
}

impl Fixed {
    /// Writes the settings of the source.
    pub(super) fn write(&self, out: &mut String) {
        let spec = &self.spec;
        *out += "      format: fixed\n      fixed:\n";
        if self.is_sampled {
            *out += "        # GUESS: the records and the encoding, by the sampled rows\n";
        } else {
            *out += "        # CHOOSE: how records are separated: lines, length, rdw, or bdw\n";
        }
        let records = match spec.records {
            RecordFormat::Lines => "lines",
            RecordFormat::Length => "length",
            RecordFormat::Rdw => "rdw",
            RecordFormat::Bdw => "bdw",
        };
        let _infallible = writeln!(out, "        records: {records}\n        length: {}", self.record.length);
        if spec.short_records == ShortRecords::Fill {
            *out += "        short_records: fill\n";
        }
        if !self.is_sampled {
            *out += "        # CHOOSE: the code page, such as ibm037, ibm1047, or ibm1141 for EBCDIC\n";
        } else if matches!(spec.encoding, Encoding::Page(_)) {
            *out += "        # CHOOSE: the EBCDIC code page of the country, such as ibm273 or ibm1141\n";
        }
        let _infallible = writeln!(out, "        encoding: {}", spec.encoding);
        if !self.others.is_empty() {
            let others = self.others.join(", ");
            let _infallible =
                writeln!(out, "        # CHOOSE: the records of this table; the copybook has {}", comment(&others));
            *out += "        # when: { FIELD: [VALUE] }\n";
        }
        if self.record.native {
            *out += "        # CHOOSE: COMP-5 is in the byte order of the machine; add `byte_order: little` if it is not big\n";
        }
        *out += "        fields:\n";
        for line in &self.record.lines {
            let _infallible = match line {
                Line::Field { name, field, chosen: true } => {
                    writeln!(out, "          {}: {}", key(name), settings(field))
                }
                Line::Field { name, field, chosen: false } => {
                    writeln!(out, "          # {}: {}", key(name), settings(field))
                }
                Line::Remark(text) => writeln!(out, "          # {}", comment(text)),
            };
        }
    }
}

/// Returns the settings of a field that are not defaults.
fn settings(field: &FieldSpec) -> String {
    let mut settings = vec![format!("at: {}", field.at), format!("width: {}", field.width)];
    settings.extend(match field.data_type {
        FieldType::Text => None,
        FieldType::Zoned => Some("type: zoned".to_owned()),
        FieldType::Packed => Some("type: packed".to_owned()),
        FieldType::Binary => Some("type: binary".to_owned()),
    });
    settings.extend((field.scale != 0).then(|| format!("scale: {}", field.scale)));
    settings.extend((!field.signed).then(|| "signed: false".to_owned()));
    settings.extend(match field.sign {
        SignPlace::Trailing => None,
        SignPlace::Leading => Some("sign: leading".to_owned()),
        SignPlace::TrailingSeparate => Some("sign: trailing_separate".to_owned()),
        SignPlace::LeadingSeparate => Some("sign: leading_separate".to_owned()),
    });
    settings.extend((field.byte_order == ByteOrder::Little).then(|| "byte_order: little".to_owned()));
    settings.extend((field.trim == Trim::Both).then(|| "trim: both".to_owned()));
    format!("{{ {} }}", settings.join(", "))
}

/// Drafts a pipeline file with the records of a copybook as tables, without a target.
///
/// # Errors
/// If the copybook cannot be read.
pub fn draft_of_copybook(file: &Path, name: &str) -> Result<String> {
    let mut out = format!(
        "# A draft of a pipeline file, created by `pipeline init` from the copybook {}.\n\
         # CHOOSE marks open decisions. With `--from URL`, `init` also matches tables and columns.\n\
         version: 1\nname: {}\n\ntables:\n",
        comment(&file.display().to_string()),
        value(name)
    );
    for record in copybook::read(file)? {
        let is_text = record.fields().all(|(_, field)| matches!(field.data_type, FieldType::Text | FieldType::Zoned));
        let records = if is_text { RecordFormat::Lines } else { RecordFormat::Length };
        let _infallible = writeln!(out, "  {}:\n    source:\n      path: CHOOSE", key(&record.name));
        let spec = FixedSpec { records, ..FixedSpec::default() };
        Fixed { record, spec, others: Vec::new(), is_sampled: false }.write(&mut out);
        out += "    legacy_key: [CHOOSE]    # the columns that identify a record in the legacy system\n";
    }
    Ok(out)
}
