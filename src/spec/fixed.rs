//! The layout of fixed-width files: where each field lies in a record, and where records end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoding::Encoding;
use super::value::{OrderedMap, Scalar};

/// The layout of fixed-width and mainframe files.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FixedSpec {
    /// The fields by name. Bytes of a record that no field covers are not read.
    pub fields: OrderedMap<FieldSpec>,
    /// How records are separated.
    pub records: RecordFormat,
    /// The length of a record in bytes, without its line end or descriptor word. Default: the end of the last field.
    pub length: Option<u32>,
    /// The treatment of records that are shorter than `length`.
    pub short_records: ShortRecords,
    /// The records that are rows of this table, by the values of fields: `{ record_type: [C, D] }`. Other records are
    /// skipped, and counted as such. A record with an unreadable value is rejected.
    pub when: OrderedMap<Vec<Scalar>>,
    /// The texts that are read as NULL, without the blanks that `trim` removes. If the empty text is one of them, blank
    /// zoned numbers are NULL as well.
    pub null_values: Vec<String>,
    /// The fillers that are read as NULL if a text, zoned, or packed field contains nothing else.
    pub null_fillers: Vec<Filler>,
    /// The character encoding: an EBCDIC code page such as `ibm037`, `ibm1047`, or `ibm1141`, or an encoding of CSV
    /// files other than UTF-16. An EBCDIC code page also sets the zones and signs of numbers, and the line ends.
    pub encoding: Encoding,
}

impl Default for FixedSpec {
    fn default() -> Self {
        Self {
            fields: OrderedMap::default(),
            records: RecordFormat::default(),
            length: None,
            short_records: ShortRecords::default(),
            when: OrderedMap::default(),
            null_values: vec![String::new()],
            null_fillers: Vec::new(),
            encoding: Encoding::default(),
        }
    }
}

impl FixedSpec {
    /// Returns the length of a record in bytes.
    pub fn record_length(&self) -> u64 {
        let ends =
            self.fields.iter().map(|(_, field)| (u64::from(field.at) + u64::from(field.width)).saturating_sub(1));
        self.length.map_or_else(|| ends.max().unwrap_or(0), u64::from)
    }
}

/// The separation of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordFormat {
    /// A line end follows each record. Empty lines are skipped, and counted as such.
    #[default]
    Lines,
    /// All records have `length` bytes, with nothing in between (RECFM F and FB).
    Length,
    /// A record descriptor word precedes each record: four bytes with its length (RECFM V).
    Rdw,
    /// A block descriptor word precedes each block of records with record descriptor words (RECFM VB).
    Bdw,
}

/// The treatment of records that are too short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ShortRecords {
    /// They are rejected.
    #[default]
    Reject,
    /// Fields behind the end of the record are NULL, and a text at its end is shorter. Other fields at its end are
    /// rejected.
    Fill,
}

/// The content of an unset field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filler {
    /// Blanks, in packed fields as well.
    Blanks,
    /// Bytes of zero (LOW-VALUES).
    LowValues,
    /// Bytes of 0xFF (HIGH-VALUES).
    HighValues,
}

/// A field of a record.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldSpec {
    /// The position of the first byte, from 1.
    pub at: u32,
    /// The width in bytes.
    pub width: u32,
    /// The type.
    #[serde(default, rename = "type")]
    pub data_type: FieldType,
    /// The number of decimal places of a number. If negative, the number of zeros that follow its digits.
    #[serde(default)]
    pub scale: i8,
    /// Whether a number can have a minus.
    #[serde(default = "signed")]
    pub signed: bool,
    /// The place of the sign in a zoned number.
    #[serde(default)]
    pub sign: SignPlace,
    /// The order of bytes in a binary number.
    #[serde(default)]
    pub byte_order: ByteOrder,
    /// The blanks that are removed from a text.
    #[serde(default)]
    pub trim: Trim,
}

fn signed() -> bool {
    true
}

/// The type of a field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Characters (PIC X and A).
    #[default]
    Text,
    /// One digit per byte (PIC 9, USAGE DISPLAY).
    Zoned,
    /// Two digits per byte, and the sign in the last half byte (COMP-3, PACKED-DECIMAL).
    Packed,
    /// An integer of 1–8 bytes in two's complement (COMP, COMP-4, COMP-5, BINARY).
    Binary,
}

/// The place of the sign in a zoned number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignPlace {
    /// In the zone of the last digit.
    #[default]
    Trailing,
    /// In the zone of the first digit (SIGN LEADING).
    Leading,
    /// In a byte after the digits: `+` or `-` (SIGN TRAILING SEPARATE).
    TrailingSeparate,
    /// In a byte before the digits: `+` or `-` (SIGN LEADING SEPARATE).
    LeadingSeparate,
}

impl SignPlace {
    /// Returns whether the sign has a byte without a digit.
    pub fn is_separate(self) -> bool {
        matches!(self, Self::TrailingSeparate | Self::LeadingSeparate)
    }
}

/// The order of bytes in a binary number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ByteOrder {
    /// The most significant byte first, as mainframes write it.
    #[default]
    Big,
    /// The least significant byte first.
    Little,
}

/// The blanks that are removed from a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trim {
    /// Those at the end.
    #[default]
    End,
    /// Those at the beginning and at the end.
    Both,
    /// None.
    None,
}
