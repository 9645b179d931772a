//! Character encodings of text files.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A character encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// An encoding of the [Encoding Standard](https://encoding.spec.whatwg.org/).
    Standard(&'static encoding_rs::Encoding),
    /// A code page of DOS or of mainframes.
    Page(CodePage),
}

/// A code page with one byte per character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodePage {
    /// IBM's number of the code page.
    pub number: u16,
    /// Whether it is an EBCDIC code page.
    pub ebcdic: bool,
}

/// The DOS code pages.
const DOS: [u16; 4] = [437, 850, 852, 858];

/// The EBCDIC code pages.
const EBCDIC: [u16; 20] =
    [37, 273, 277, 278, 280, 284, 285, 297, 500, 1047, 1140, 1141, 1142, 1143, 1144, 1145, 1146, 1147, 1148, 1149];

impl Encoding {
    /// UTF-8.
    pub const UTF_8: Self = Self::Standard(encoding_rs::UTF_8);

    /// Latin-1 as found in practice, which is Windows-1252.
    pub const LATIN_1: Self = Self::Standard(encoding_rs::WINDOWS_1252);

    /// Returns the encoding of a label.
    pub fn of_label(label: &str) -> Option<Self> {
        let lower = label.trim().to_ascii_lowercase();
        if lower == "latin-1" {
            return Some(Self::LATIN_1);
        }
        if let Some(standard) = encoding_rs::Encoding::for_label_no_replacement(lower.as_bytes()) {
            return Some(Self::Standard(standard));
        }
        let digits = ["cp", "ibm", "ibm-", "cp-", "ebcdic-", "ebcdic-cp-", "dos-"]
            .iter()
            .filter_map(|prefix| lower.strip_prefix(prefix))
            .find_map(|digits| digits.parse().ok())?;
        let page = |ebcdic| Some(Self::Page(CodePage { number: digits, ebcdic }));
        match digits {
            number if DOS.contains(&number) => page(false),
            number if EBCDIC.contains(&number) => page(true),
            1250..=1258 => Self::of_label(&format!("windows-{digits}")),
            _ => None,
        }
    }

    /// Returns the label.
    pub fn label(self) -> String {
        match self {
            Self::Standard(standard) if standard == encoding_rs::WINDOWS_1252 => "latin-1".to_owned(),
            Self::Standard(standard) => standard.name().to_ascii_lowercase(),
            Self::Page(CodePage { number, ebcdic: true }) => format!("ibm{number:03}"),
            Self::Page(CodePage { number, ebcdic: false }) => format!("cp{number}"),
        }
    }

    /// Returns the code pages.
    pub fn code_pages() -> impl Iterator<Item = CodePage> {
        let dos = DOS.iter().map(|number| CodePage { number: *number, ebcdic: false });
        dos.chain(EBCDIC.iter().map(|number| CodePage { number: *number, ebcdic: true }))
    }
}

impl Default for Encoding {
    fn default() -> Self {
        Self::UTF_8
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl Serialize for Encoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let label = String::deserialize(deserializer)?;
        Self::of_label(&label).ok_or_else(|| {
            let known = "a label such as `utf-8`, `windows-1250`, `cp852`, or `ibm273`";
            de::Error::custom(format!("unsupported encoding `{label}`: expected {known}"))
        })
    }
}

impl JsonSchema for Encoding {
    fn schema_name() -> Cow<'static, str> {
        "Encoding".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A character encoding.",
            "examples": ["utf-8", "latin-1", "windows-1250", "utf-16le", "cp852", "ibm273"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_an_encoding_and_its_label_names_it_again() {
        for (label, same) in [
            ("latin-1", "latin-1"),
            ("ISO-8859-1", "latin-1"),
            ("UTF-8", "utf-8"),
            ("shift_jis", "shift_jis"),
            ("cp1250", "windows-1250"),
            ("IBM852", "cp852"),
            ("cp037", "ibm037"),
            ("ibm1141", "ibm1141"),
            ("utf-16be", "utf-16be"),
        ] {
            let encoding = Encoding::of_label(label).unwrap();
            assert_eq!(encoding.label(), same, "{label}");
            assert_eq!(Encoding::of_label(same), Some(encoding), "{label}");
        }
        for label in ["", "klingon", "cp99", "replacement", "hz-gb-2312"] {
            assert_eq!(Encoding::of_label(label), None, "{label}");
        }
    }
}
