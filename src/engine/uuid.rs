//! UUIDs as keys: functions of a namespace and a name, so that every computation of a run gets the same one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;

use crate::spec::UuidVersion;

/// The namespace from which those of tables are derived: version 5 of the DNS namespace and this program's name.
const PRODUCT: [u8; 16] =
    [0x25, 0x9b, 0xe2, 0xdc, 0xee, 0x7b, 0x5f, 0x79, 0xb5, 0xe5, 0x1c, 0xed, 0x06, 0x86, 0x5f, 0x41];

/// Returns the namespace of a table's keys, as a UUID.
pub fn uuid_namespace(table: &str) -> String {
    display(version_5(PRODUCT, table.as_bytes()))
}

/// Parses a UUID in its usual notation.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let parts: Vec<&str> = text.split('-').collect();
    let is_whole = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    let digits = parts.concat();
    if !is_whole || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

/// Registers `uuid_v5(namespace, name)`, and the same for versions 4 and 7, which differ in each run. `moment` is the run's, in
/// microseconds since 1970.
pub(super) fn register(context: &SessionContext, moment: i64) {
    for (version, name) in [(UuidVersion::V4, "uuid_v4"), (UuidVersion::V5, "uuid_v5"), (UuidVersion::V7, "uuid_v7")] {
        let signature = Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable);
        context.register_udf(ScalarUDF::from(Uuid { version, name, signature, moment }));
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Uuid {
    version: UuidVersion,
    name: &'static str,
    signature: Signature,
    moment: i64,
}

impl Uuid {
    fn of(&self, namespace: [u8; 16], name: &str) -> [u8; 16] {
        if self.version == UuidVersion::V5 {
            return version_5(namespace, name.as_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.moment.to_le_bytes()).update(&namespace).update(name.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        if self.version == UuidVersion::V7 {
            bytes[..6].copy_from_slice(&(self.moment / 1000).to_be_bytes()[2..]);
            return stamped(bytes, 7);
        }
        stamped(bytes, 4)
    }
}

impl ScalarUDFImpl for Uuid {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays: Vec<ArrayRef> = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<_>>()?;
        let [namespaces, names] = arrays.as_slice() else { return exec_err!("`{}` takes two arguments", self.name) };
        let (namespaces, names) = (namespaces.as_string::<i32>(), names.as_string::<i32>());
        let mut uuids = Vec::with_capacity(rows);
        let mut last: Option<(&str, [u8; 16])> = None;
        for row in 0..rows {
            if namespaces.is_null(row) || names.is_null(row) {
                uuids.push(None);
                continue;
            }
            let text = namespaces.value(row);
            let namespace = match last {
                Some((known, namespace)) if known == text => namespace,
                _ => match parse_uuid(text) {
                    Some(namespace) => namespace,
                    None => return exec_err!("the namespace `{text}` is not a UUID"),
                },
            };
            last = Some((text, namespace));
            uuids.push(Some(display(self.of(namespace, names.value(row)))));
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(uuids))))
    }
}

/// Returns the UUID of a name (RFC 9562, section 5.5).
fn version_5(namespace: [u8; 16], name: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha1(&[&namespace[..], name].concat())[..16]);
    stamped(bytes, 5)
}

/// Sets the version and the variant.
fn stamped(mut bytes: [u8; 16], version: u8) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

fn display(bytes: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// Returns the SHA-1 hash (FIPS 180-4), which version 5 is defined by.
#[allow(clippy::many_single_char_names, reason = "they are those of the standard")]
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (word, next) in state.iter_mut().zip([a, b, c, d, e]) {
            *word = word.wrapping_add(next);
        }
    }
    let mut hash = [0; 20];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const DNS: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn of(version: UuidVersion, moment: i64, name: &str) -> String {
        let signature = Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable);
        display(Uuid { version, name: "", signature, moment }.of(parse_uuid(DNS).unwrap(), name))
    }

    #[test]
    fn version_5_is_that_of_the_standard() {
        assert_eq!(of(UuidVersion::V5, 0, "www.example.com"), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
        assert_eq!(of(UuidVersion::V5, 1, "www.example.com"), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
    }

    #[test]
    fn hashes_around_a_block_are_those_of_the_standard() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&sha1(b"")), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(hex(&sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(&sha1(long)), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(hex(&sha1(&vec![b'a'; 1_000_000])), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    }

    #[test]
    fn versions_4_and_7_are_stable_within_a_run_alone() {
        for (version, digit) in [(UuidVersion::V4, '4'), (UuidVersion::V7, '7')] {
            let one = of(version, 1_700_000_000_000_000, "a");
            assert_eq!(one, of(version, 1_700_000_000_000_000, "a"));
            assert_ne!(one, of(version, 1_700_000_000_000_001, "a"));
            assert_ne!(one, of(version, 1_700_000_000_000_000, "b"));
            assert_eq!(one.chars().nth(14), Some(digit));
            assert!(one.chars().nth(19).is_some_and(|variant| "89ab".contains(variant)), "{one}");
        }
        assert!(of(UuidVersion::V7, 1_700_000_000_000_000, "a").starts_with("018bcfe5-6800-"));
    }

    #[test]
    fn only_the_usual_notation_of_a_uuid_is_one() {
        assert!(parse_uuid(DNS).is_some());
        for other in [
            "",
            "6ba7b8109dad11d180b400c04fd430c8",
            "6ba7b810-9dad-11d1-80b4-00c04fd430cg",
            "+ba7b810-9dad-11d1-80b4-00c04fd430c8",
        ] {
            assert_eq!(parse_uuid(other), None, "{other}");
        }
    }
}
