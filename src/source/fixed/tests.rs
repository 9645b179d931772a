use std::path::Path;

use arrow::array::Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::error::{Kind, Result};
use crate::source::tests::folder;
use crate::source::{Batch, Source};
use crate::spec::{Format, SourceSpec};

/// All that a source gave: rows as texts with their numbers, malformed records with their reasons, and skipped ones.
#[derive(Debug, Default, PartialEq)]
struct Read {
    rows: Vec<(u64, String)>,
    malformed: Vec<(u64, String)>,
    raw: Vec<String>,
    skipped: u64,
}

fn spec(path: &str, fixed: Value) -> SourceSpec {
    let fixed = serde_json::from_value(fixed).unwrap();
    SourceSpec { format: Some(Format::Fixed), fixed, ..SourceSpec::at(path) }
}

fn read_in(folder: &Path, path: &str, fixed: Value) -> Result<Read> {
    let mut read = Read::default();
    for batch in Source::try_new(&spec(path, fixed), folder)?.batches(3) {
        let Batch { lines, rows, malformed, skipped, .. } = batch?;
        assert_eq!(lines.len(), rows.num_rows());
        assert!(lines.len() + malformed.len() <= 3);
        for (row, line) in lines.iter().enumerate() {
            let text = |column: &arrow::array::ArrayRef| match column.is_valid(row) {
                true => ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap().value(row).to_string(),
                false => "NULL".to_owned(),
            };
            read.rows.push((*line, rows.columns().iter().map(text).collect::<Vec<_>>().join("|")));
        }
        for record in malformed {
            read.malformed.push((record.line, record.reason));
            read.raw.push(record.raw);
        }
        read.skipped += skipped;
    }
    Ok(read)
}

fn read(bytes: &[u8], fixed: Value) -> Read {
    read_in(folder(&[("x.dat", bytes)]).path(), "x.dat", fixed).unwrap()
}

fn rows(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
    rows.iter().map(|(line, row)| (*line, (*row).to_owned())).collect()
}

/// Puts a descriptor word before each record.
fn described(records: &[&[u8]]) -> Vec<u8> {
    let word = |record: &&[u8]| [&((record.len() + 4) as u16).to_be_bytes()[..], &[0, 0], record].concat();
    records.iter().flat_map(word).collect()
}

/// Puts a descriptor word before records with descriptor words.
fn block(records: &[&[u8]]) -> Vec<u8> {
    described(&[&described(records)])
}

fn two_texts() -> Value {
    json!({ "a": { "at": 1, "width": 2 }, "b": { "at": 4, "width": 3 } })
}

#[test]
fn lines_are_records() {
    let found = read(b"k1 abc\r\nk2 d  \n\nk3    \nk4 xyz", json!({ "fields": two_texts() }));
    assert_eq!(found.rows, rows(&[(1, "k1|abc"), (2, "k2|d"), (4, "k3|NULL"), (5, "k4|xyz")]));
    assert_eq!((found.malformed, found.skipped), (vec![], 1));
}

#[test]
fn records_of_another_length_are_rejected_alone() {
    let found = read(b"k1 abc\nk2 ab\nk3 abcd\nk4 xyz\n", json!({ "fields": two_texts() }));
    assert_eq!(found.rows, rows(&[(1, "k1|abc"), (4, "k4|xyz")]));
    assert_eq!(found.malformed, rows(&[(2, "5 bytes, a record has 6"), (3, "7 bytes, a record has 6")]));
    assert_eq!(found.raw, ["k2 ab", "k3 abcd"]);
    let fill = json!({ "fields": { "a": { "at": 1, "width": 2 }, "b": { "at": 3, "width": 3 },
        "n": { "at": 6, "width": 2, "type": "zoned" } }, "short_records": "fill" });
    let found = read(b"k1abc12\nk2ab\nk3\nk4abc1\n", fill);
    assert_eq!(found.rows, rows(&[(1, "k1|abc|12"), (2, "k2|ab|NULL"), (3, "k3|NULL|NULL")]));
    assert_eq!(found.malformed, rows(&[(4, "column \"n\" has 1 of 2 bytes (byte 6: 31)")]));
}

#[test]
fn records_of_equal_length_are_numbered() {
    let fixed = json!({ "fields": two_texts(), "records": "length", "length": 7 });
    let found = read(b"k1 abc.k2 d  .k3 e", fixed.clone());
    assert_eq!(found.rows, rows(&[(1, "k1|abc"), (2, "k2|d")]));
    assert_eq!(found.malformed, rows(&[(3, "the file ends after 4 of 7 bytes of the record")]));
    assert_eq!(read(b"k1 abc.", fixed).malformed, []);
}

#[test]
fn descriptor_words_separate_records() {
    let bytes = described(&[b"k1 abc", b"k2 abcd", b"k3 xyz"]);
    let fixed = json!({ "fields": two_texts(), "records": "rdw" });
    let found = read(&bytes, fixed.clone());
    assert_eq!(found.rows, rows(&[(1, "k1|abc"), (3, "k3|xyz")]));
    assert_eq!(found.malformed, rows(&[(2, "7 bytes, a record has 6")]));
    let blocks = [block(&[b"k1 abc", b"k2 def"]), block(&[b"k3 xyz"])].concat();
    let fixed = json!({ "fields": two_texts(), "records": "bdw" });
    assert_eq!(read(&blocks, fixed).rows, rows(&[(1, "k1|abc"), (2, "k2|def"), (3, "k3|xyz")]));
}

#[test]
fn a_truncated_file_ends_with_its_last_record_rejected() {
    let all: [&[u8]; 3] = [b"k1 abc", b"k2 def", b"k3 xyz"];
    for (records, bytes) in [("rdw", described(&all)), ("bdw", [block(&all[..1]), block(&all[1..])].concat())] {
        let fixed = json!({ "fields": two_texts(), "records": records });
        for end in 1..bytes.len() {
            let found = read(&bytes[..end], fixed.clone());
            // The end of a record is only the end of a file if no block goes on.
            let whole = records == "rdw" && end % 10 == 0 || records == "bdw" && end == 14;
            assert_eq!(found.malformed.len(), usize::from(!whole), "{records} {end} {found:?}");
            assert!(found.malformed.iter().all(|(_, reason)| reason.contains("the file ends after")));
            assert!(found.rows.len() < 3);
        }
    }
}

#[test]
fn damaged_descriptor_words_refuse_the_file() {
    let all: [&[u8]; 3] = [b"k1 abc", b"k2 def", b"k3 xyz"];
    let fixed = json!({ "fields": two_texts(), "records": "rdw" });
    for (at, byte, reason) in [
        (12, 1, "a segment of a spanned record (000A0100) at byte 11"),
        (13, 7, "an invalid record descriptor word (000A0007) at byte 11"),
        (11, 3, "an invalid record descriptor word (00030000) at byte 11"),
        (10, 0x40, "a length of 16394 bytes with 20 bytes left, which contain records at byte 11"),
    ] {
        let mut bytes = described(&all);
        bytes[at] = byte;
        let folder = folder(&[("x.dat", &bytes)]);
        let error = read_in(folder.path(), "x.dat", fixed.clone()).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        let message = format!("`x.dat`: record 2 cannot be read, nor those behind it: {reason}");
        assert_eq!(error.to_string(), message);
    }
    let mut bytes = block(&all);
    bytes[1] = 12;
    let folder = folder(&[("x.dat", &bytes)]);
    let fixed = json!({ "fields": two_texts(), "records": "bdw" });
    assert!(read_in(folder.path(), "x.dat", fixed).unwrap_err().to_string().contains("record 1 cannot be read"));
}

#[test]
fn only_records_that_meet_the_conditions_are_rows() {
    let fixed = |when: Value| {
        json!({ "fields": { "kind": { "at": 1, "width": 1 }, "id": { "at": 2, "width": 2, "type": "zoned" } },
            "when": when })
    };
    let bytes = b"C01\nD02\nT9\nC 3\nX04\n";
    let found = read(bytes, fixed(json!({ "kind": ["C", "D"] })));
    assert_eq!((found.rows, found.skipped), (rows(&[(1, "C|1"), (2, "D|2")]), 2));
    assert_eq!(
        found.malformed,
        rows(&[(4, "column \"id\" is not a zoned number: invalid digit in byte 2 (bytes 2–3: 20 33)")])
    );
    let found = read(bytes, fixed(json!({ "id": ["1", 4] })));
    assert_eq!((found.rows, found.skipped), (rows(&[(1, "C|1"), (5, "X|4")]), 1));
    assert_eq!(found.malformed.len(), 2);
    let found = read(b"C01\n\x20", fixed(json!({ "id": ["1"] })));
    assert_eq!(found.malformed, rows(&[(2, "1 byte, a record has 3")]));
}

#[test]
fn faults_name_field_position_and_bytes() {
    let fields = json!({
        "name": { "at": 1, "width": 3 },
        "zoned": { "at": 4, "width": 3, "type": "zoned" },
        "packed": { "at": 7, "width": 2, "type": "packed", "scale": 1 },
        "plus": { "at": 9, "width": 1, "type": "packed", "signed": false },
        "sep": { "at": 10, "width": 2, "type": "zoned", "sign": "leading_separate" },
    });
    let fixed = json!({ "fields": fields, "records": "length", "length": 11, "encoding": "ibm037" });
    let good = b"\xC1\xC2\x40\xF1\xF2\xD3\x12\x3D\x1C\x60\xF7";
    let mut bytes = good.to_vec();
    let breaks: [(usize, u8, &str); 7] = [
        (0, 0x00, "column \"name\" contains a NUL character (bytes 1–3: 00 C2 40)"),
        (4, 0xC2, "column \"zoned\" is not a zoned number: invalid digit in byte 5 (bytes 4–6: F1 C2 D3)"),
        (5, 0x73, "column \"zoned\" is not a zoned number: invalid sign in byte 6 (bytes 4–6: F1 F2 73)"),
        (6, 0xA2, "column \"packed\" is not a packed number: invalid digit in byte 7 (bytes 7–8: A2 3D)"),
        (7, 0x33, "column \"packed\" is not a packed number: invalid sign in byte 8 (bytes 7–8: 12 33)"),
        (8, 0x1D, "column \"plus\" is negative, but unsigned (byte 9: 1D)"),
        (9, 0xF1, "column \"sep\" is not a zoned number: invalid sign in byte 10 (bytes 10–11: F1 F7)"),
    ];
    for (at, byte, _) in breaks {
        let mut record = good.to_vec();
        record[at] = byte;
        bytes.extend(record);
    }
    let found = read(&bytes, fixed);
    assert_eq!(found.rows, rows(&[(1, "AB|-123|-12.3|1|-7")]));
    let reasons: Vec<&str> = found.malformed.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, breaks.map(|(_, _, reason)| reason));
    assert_eq!(found.malformed.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(found.raw[0], "\\x00C240F1F2D3123D1C60F7");
}

#[test]
fn unset_fields_are_null_as_declared() {
    let fields = json!({
        "a": { "at": 1, "width": 2 },
        "z": { "at": 3, "width": 2, "type": "zoned" },
        "p": { "at": 5, "width": 2, "type": "packed" },
    });
    let read = |bytes: &[u8], nulls: Value, fillers: Value| {
        let fixed = json!({ "fields": fields, "records": "length", "length": 6,
            "null_values": nulls, "null_fillers": fillers });
        let found = read(bytes, fixed);
        found.rows.into_iter().chain(found.malformed).map(|(_, row)| row).next().unwrap()
    };
    assert_eq!(read(b"  12\x00\x1C", json!([""]), json!([])), "NULL|12|1");
    assert_eq!(read(b"  12\x00\x1C", json!([]), json!([])), "|12|1");
    assert_eq!(read(b"??12\x00\x1C", json!(["??"]), json!([])), "NULL|12|1");
    assert_eq!(read(b"a   \x00\x1C", json!([""]), json!([])), "a|NULL|1");
    assert!(read(b"a   \x00\x1C", json!([]), json!([])).contains("invalid sign"));
    assert_eq!(read(b"\0\0\0\0\0\0", json!([""]), json!(["low_values"])), "NULL|NULL|NULL");
    assert!(read(b"\0\0\0\0\0\0", json!([""]), json!([])).contains("NUL"));
    assert_eq!(read(b"\xFF\xFF\xFF\xFF\xFF\xFF", json!([""]), json!(["high_values"])), "NULL|NULL|NULL");
    assert_eq!(read(b"a 12\x20\x20", json!([""]), json!(["blanks"])), "a|12|NULL");
}

#[test]
fn blanks_are_removed_as_declared() {
    let field = |at: u32, trim: &str| json!({ "at": at, "width": 4, "trim": trim });
    let fields = json!({ "a": field(1, "end"), "b": field(5, "both"), "c": field(9, "none") });
    assert_eq!(read(b" a   b   c  \n", json!({ "fields": fields })).rows, rows(&[(1, " a|b| c  ")]));
}

#[test]
fn compressed_files_are_unpacked_as_they_are_read() {
    let bytes = described(&[b"k1 abc", b"k2 def"]);
    let packed = zstd::encode_all(&bytes[..], 0).unwrap();
    let folder = folder(&[("x.dat.zst", &packed), ("y.dat.zst", &zstd::encode_all(&b""[..], 0).unwrap())]);
    let fixed = json!({ "fields": two_texts(), "records": "rdw" });
    assert_eq!(read_in(folder.path(), "x.dat.zst", fixed.clone()).unwrap().rows.len(), 2);
    let error = read_in(folder.path(), "y.dat.zst", fixed).unwrap_err();
    assert_eq!(error.to_string(), "`y.dat.zst` is empty");
}

/// A number of a mainframe: its field, its bytes, and its value as text.
#[derive(Debug, Clone)]
struct Sample {
    field: Value,
    ebcdic: bool,
    bytes: Vec<u8>,
    text: String,
}

/// Writes digits with decimals, or with zeros behind them.
fn text(negative: bool, digits: &str, scale: i8) -> String {
    let zeros = usize::from(scale.min(0).unsigned_abs());
    let places = usize::from(scale.max(0).unsigned_abs());
    let whole = format!("{digits:0>width$}{:0<zeros$}", "", width = places + 1);
    let (whole, decimals) = whole.split_at(whole.len() - places);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let is_zero = digits.bytes().all(|digit| digit == b'0');
    let sign = if negative && !is_zero { "-" } else { "" };
    if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{decimals}") }
}

fn zoned(digits: &str, negative: bool, sign: &str, ebcdic: bool, style: u8) -> Vec<u8> {
    let zone = if ebcdic { 0xF0 } else { 0x30 };
    let mut bytes: Vec<u8> = digits.bytes().map(|digit| zone | (digit - b'0')).collect();
    let mark = match (ebcdic, negative) {
        (true, true) => 0x60,
        (true, false) => 0x4E,
        (false, true) => b'-',
        (false, false) => b'+',
    };
    let punched = |byte: u8| {
        let digit = byte & 0x0F;
        match (ebcdic, negative, style % 2) {
            (true, true, 0) => 0xD0 | digit,
            (true, true, _) => 0xB0 | digit,
            (true, false, _) => [0xC0, 0xF0, 0xA0, 0xE0][usize::from(style % 4)] | digit,
            (false, true, 0) => b"}JKLMNOPQR"[usize::from(digit)],
            (false, true, _) => b'p' + digit,
            (false, false, 0) => b"{ABCDEFGHI"[usize::from(digit)],
            (false, false, _) => b'0' + digit,
        }
    };
    let last = bytes.len() - 1;
    match sign {
        "trailing" => bytes[last] = punched(bytes[last]),
        "leading" => bytes[0] = punched(bytes[0]),
        "trailing_separate" => bytes.push(mark),
        _ => bytes.insert(0, mark),
    }
    bytes
}

fn packed(digits: &str, negative: bool, style: u8) -> Vec<u8> {
    let sign = match negative {
        true => [0xD, 0xB][usize::from(style % 2)],
        false => [0xC, 0xF, 0xA, 0xE][usize::from(style % 4)],
    };
    let halves: Vec<u8> = digits.bytes().map(|digit| digit - b'0').chain([sign]).collect();
    halves.rchunks(2).rev().map(|pair| pair.iter().fold(0, |byte, half| byte << 4 | half)).collect()
}

fn decimal() -> impl Strategy<Value = Sample> {
    let signs = prop::sample::select(vec!["trailing", "leading", "trailing_separate", "leading_separate"]);
    let digits = prop::sample::select((1..=31_usize).collect::<Vec<_>>())
        .prop_flat_map(|digits| proptest::string::string_regex(&format!("[0-9]{{{digits}}}")).unwrap());
    (digits, any::<bool>(), -7..=31_i8, any::<bool>(), any::<bool>(), any::<u8>(), signs).prop_map(
        |(digits, negative, scale, is_packed, ebcdic, style, sign)| {
            let text = text(negative, &digits, scale);
            let bytes = match is_packed {
                true => packed(&digits, negative, style),
                false => zoned(&digits, negative, sign, ebcdic, style),
            };
            let field = match is_packed {
                true => json!({ "type": "packed", "width": bytes.len(), "scale": scale }),
                false => json!({ "type": "zoned", "width": bytes.len(), "scale": scale, "sign": sign }),
            };
            Sample { field, ebcdic, bytes, text }
        },
    )
}

fn binary() -> impl Strategy<Value = Sample> {
    (any::<i64>(), 1..=8_usize, any::<bool>(), any::<bool>(), -7..=18_i8, any::<bool>()).prop_map(
        |(value, width, signed, little, scale, ebcdic)| {
            let value = value >> (64 - 8 * width);
            let mut bytes = value.to_be_bytes()[8 - width..].to_vec();
            let unsigned = (value as u64) & (u64::MAX >> (64 - 8 * width));
            let (negative, digits) = match signed {
                true => (value < 0, value.unsigned_abs()),
                false => (false, unsigned),
            };
            if little {
                bytes.reverse();
            }
            let order = if little { "little" } else { "big" };
            let field = json!({ "type": "binary", "width": width, "scale": scale, "signed": signed,
                "byte_order": order });
            Sample { field, ebcdic, bytes, text: text(negative, &digits.to_string(), scale) }
        },
    )
}

/// Reads numbers of one field between two texts.
fn decoded(sample: &Sample) -> Read {
    let mut field = sample.field.clone();
    field["at"] = json!(3);
    let width = sample.bytes.len();
    let fields = json!({ "a": { "at": 1, "width": 2 }, "n": field, "b": { "at": 3 + width, "width": 1 } });
    let encoding = if sample.ebcdic { "ibm1047" } else { "latin-1" };
    let fixed = json!({ "fields": fields, "records": "length", "length": 3 + width, "encoding": encoding });
    let (around, after): (&[u8], &[u8]) = if sample.ebcdic { (b"\xC1\x40", b"\xE9") } else { (b"A ", b"Z") };
    read(&[around, &sample.bytes, after].concat(), fixed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn numbers_are_read_as_they_were_written(sample in prop_oneof![decimal(), binary()]) {
        let found = decoded(&sample);
        prop_assert_eq!(found.malformed, vec![]);
        prop_assert_eq!(found.rows, rows(&[(1, &format!("A|{}|Z", sample.text))]));
    }

    #[test]
    fn bytes_are_a_number_or_their_record_is_rejected(
        sample in decimal(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut broken = sample.clone();
        let at = at.index(broken.bytes.len());
        broken.bytes[at] = byte;
        let found = decoded(&broken);
        prop_assert_eq!(found.rows.len() + found.malformed.len(), 1);
        for (_, reason) in &found.malformed {
            let bytes: Vec<String> = broken.bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            prop_assert!(reason.contains(&bytes.join(" ")), "{}", reason);
        }
    }

    #[test]
    fn texts_are_read_as_they_were_written(text in "[ -~äöüßÄÖÜé]{0,12}", page in 0..3_usize) {
        let label = ["ibm273", "ibm1141", "latin-1"][page];
        let encoding = crate::spec::Encoding::of_label(label).unwrap();
        let encoded = crate::source::encodings::Encoder::new(encoding).encode(&text).into_owned();
        let blank = if page < 2 { 0x40 } else { b' ' };
        let mut record = encoded.clone();
        record.resize(24, blank);
        let fixed = json!({ "fields": { "a": { "at": 1, "width": 24 } }, "records": "length", "length": 24,
            "encoding": label, "null_values": [] });
        let found = read(&record, fixed);
        prop_assert_eq!(found.rows, rows(&[(1, text.trim_end_matches(' '))]));
    }

    #[test]
    fn no_record_of_any_file_is_lost(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..12),
        kind in 0..3_usize,
    ) {
        let parts: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let blocks: Vec<u8> = parts.chunks(4).flat_map(block).collect();
        let lines = |record: &&[u8]| [&record.iter().map(|byte| byte % 32 + 64).collect::<Vec<_>>()[..], b"\n"].concat();
        let (bytes, format) = match kind {
            0 => (described(&parts), "rdw"),
            1 => (blocks, "bdw"),
            _ => (parts.iter().flat_map(lines).collect(), "lines"),
        };
        let fixed = json!({ "fields": { "a": { "at": 1, "width": 9 } }, "records": format, "encoding": "ibm037" });
        let fixed = if kind == 2 { json!({ "fields": { "a": { "at": 1, "width": 9 } } }) } else { fixed };
        let found = read(&bytes, fixed);
        let mut numbers: Vec<u64> = found.rows.iter().chain(&found.malformed).map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (1..=records.len() as u64).collect::<Vec<_>>());
    }
}
