//! The files of a table, as the user describes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoding::Encoding;
use super::fixed::FixedSpec;
use super::value::OrderedMap;

/// The delta files of one table.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// A file, a folder (all its files of the format) or a glob, relative to this file.
    pub path: String,
    /// The format. Default: from the file name extension.
    pub format: Option<Format>,
    /// Source columns that are deliberately not loaded. An unused source column that is not listed here is an error, so
    /// that no data is lost silently. `"*"` ignores all unused columns, `""` a column without a name.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// The maximum number of lines of one record in CSV and JSON files. A quote or a bracket that is open for longer is
    /// an error of the record that opens it; the reader resumes at the next line that reads as a record.
    #[serde(default = "default_record_lines")]
    pub max_record_lines: u32,
    /// The time zone of times without an offset, by its IANA name such as `Europe/Berlin`: one for all target columns
    /// with a zone, or a mapping of target columns to zones. Without it, such times are rejected. Local times that
    /// daylight saving skips or repeats are rejected.
    pub timezone: Option<PerColumn>,
    /// The first year of the hundred years that two-digit years (`%y`) belong to: with 1930, `30` is 1930 and `29` is
    /// 2029. Without it, dates with `%y` are rejected.
    pub century: Option<u16>,
    /// The dialect of CSV files.
    #[serde(default)]
    pub csv: CsvSpec,
    /// The layout of JSON files.
    #[serde(default)]
    pub json: JsonSpec,
    /// The layout of fixed-width files.
    #[serde(default)]
    pub fixed: FixedSpec,
}

fn default_record_lines() -> u32 {
    1000
}

impl SourceSpec {
    /// Returns the source at a path, with defaults for all other fields.
    pub fn at(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            format: None,
            ignore: Vec::new(),
            max_record_lines: default_record_lines(),
            timezone: None,
            century: None,
            csv: CsvSpec::default(),
            json: JsonSpec::default(),
            fixed: FixedSpec::default(),
        }
    }
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated values (RFC 4180), `.csv` or `.tsv`; also with `.gz` or `.zst`.
    Csv,
    /// JSON objects, one per line, several on a line, or over several lines, and arrays of objects: `.json`, `.jsonl` or
    /// `.ndjson`; also with `.gz` or `.zst`.
    Json,
    /// Apache Parquet: `.parquet`.
    Parquet,
    /// Arrow IPC, file or stream: `.arrow` or `.feather`.
    Arrow,
    /// Fixed-width records, of mainframes as well, with the layout in `fixed`. No extension implies it. Files with
    /// `.gz` or `.zst` are unpacked as they are read.
    Fixed,
}

/// A text for all columns, or a mapping of columns to texts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PerColumn {
    /// For all columns.
    All(String),
    /// By column; other columns have none.
    Each(ColumnTexts),
}

/// Texts by column.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct ColumnTexts(pub OrderedMap<String>);

impl PartialEq for ColumnTexts {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Eq for ColumnTexts {}

impl PerColumn {
    /// Returns the text of a column.
    pub fn of(&self, column: &str) -> Option<&str> {
        match self {
            Self::All(text) => Some(text),
            Self::Each(texts) => texts.0.get(column).map(String::as_str),
        }
    }

    /// Returns the columns that are named, if any are.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let texts = match self {
            Self::All(_) => None,
            Self::Each(texts) => Some(texts.0.iter()),
        };
        texts.into_iter().flatten().map(|(column, _)| column.as_str())
    }

    /// Returns all texts.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::All(text) => vec![text],
            Self::Each(texts) => texts.0.iter().map(|(_, text)| text.as_str()).collect(),
        }
    }
}

/// The layout of JSON files.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JsonSpec {
    /// Whether the keys of nested objects are columns: `customer.address.city`. If not, a nested object is a column with
    /// its JSON.
    pub flatten: bool,
    /// The key whose array contains the records, if a file is one object around them: `data`, or `result.rows`.
    pub records: Option<String>,
}

/// The dialect of CSV files.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvSpec {
    /// The character between fields, or several characters such as `||`. Default: `,`, or a tab for `.tsv`, or the
    /// character of a first line such as `sep=;`.
    pub delimiter: Option<String>,
    /// The character around fields that contain the delimiter; `null` if quotes are ordinary characters.
    pub quote: Option<char>,
    /// The character that makes the next one ordinary, such as `\`. Default: a quote in a quoted field is written twice.
    pub escape: Option<char>,
    /// The character at the beginning of lines that are skipped, such as `#`.
    pub comment: Option<char>,
    /// The number of lines above the header, or above the first record, that are skipped.
    pub skip_rows: u32,
    /// The number of lines at the end of the file that are skipped. Blank lines do not count.
    pub skip_footer: u32,
    /// Whether the first line contains the column names.
    pub header: bool,
    /// The number of lines of the header. The parts of a column's name are joined by `_`.
    pub header_lines: u32,
    /// The column names, in order. They replace a header.
    pub names: Vec<String>,
    /// Names for columns by position, from 1, for header cells that are empty or duplicate: `{ 1: row_number }`.
    pub rename: OrderedMap<String>,
    /// Whether rows or the header end with a delimiter, which begins no further field.
    pub trailing_delimiter: bool,
    /// The treatment of rows with more or fewer fields than the header.
    pub ragged_rows: RaggedRows,
    /// The meaning of blank lines in files of one column. In other files, blank lines are skipped.
    pub blank_lines: BlankLines,
    /// The values that are read as NULL, quoted or unquoted.
    pub null_values: Vec<String>,
    /// Whether a quoted value can be NULL. If not, `""` is an empty text, and nothing between delimiters is NULL, as in
    /// files that PostgreSQL's COPY writes.
    pub quoted_null: bool,
    /// The decimal character of numbers, such as `,`: one for all target columns with numbers, or a mapping of target
    /// columns to characters. Default: `.`.
    pub decimal: Option<PerColumn>,
    /// The character between groups of three digits, such as `.`: one for all target columns with numbers, or a mapping
    /// of target columns to characters. Default: none; such numbers are rejected.
    pub thousands: Option<PerColumn>,
    /// The character encoding: a label of the Encoding Standard such as `utf-8`, `windows-1250`, or `utf-16le`; a DOS
    /// code page (`cp437`, `cp850`, `cp852`, `cp858`); or an EBCDIC code page such as `ibm037`, `ibm500`, or `ibm1141`.
    /// A row with bytes that are invalid in the encoding is rejected. `latin-1` is Windows-1252. A byte order mark of
    /// UTF-16 is detected.
    pub encoding: Encoding,
}

impl Default for CsvSpec {
    fn default() -> Self {
        Self {
            delimiter: None,
            quote: Some('"'),
            escape: None,
            comment: None,
            skip_rows: 0,
            skip_footer: 0,
            header: true,
            header_lines: 1,
            names: Vec::new(),
            rename: OrderedMap::default(),
            trailing_delimiter: false,
            ragged_rows: RaggedRows::default(),
            blank_lines: BlankLines::default(),
            null_values: vec![String::new()],
            quoted_null: true,
            decimal: None,
            thousands: None,
            encoding: Encoding::default(),
        }
    }
}

/// The treatment of rows with more or fewer fields than the header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RaggedRows {
    /// They are rejected.
    #[default]
    Reject,
    /// Missing fields at the end are NULL, and empty fields after the last column are dropped. A row with a surplus
    /// value is rejected.
    Fill,
}

/// The meaning of blank lines in files of one column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlankLines {
    /// They are skipped, and counted as such.
    #[default]
    Skip,
    /// Each is a row with an empty value.
    Value,
}
