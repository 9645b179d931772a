//! The dialect of CSV files, and their headers.

use std::str::from_utf8;

use super::super::columns::REJECT_LINE;
use super::super::decoder::Input;
use super::super::{SourceFile, encodings, files};
use super::injection;
use super::records::{Record, RecordFault, Records};
use super::recovery::Shape;
use super::split::{Fault, Syntax, first_line};
use crate::error::{Error, Result};
use crate::spec::{BlankLines, CsvSpec, RaggedRows, SourceSpec};

/// The dialect of the files: a validated [`CsvSpec`].
#[derive(Debug)]
pub(in crate::source) struct Dialect {
    csv: CsvSpec,
    most_lines: u64,
}

impl Dialect {
    pub(in crate::source) fn try_new(spec: &SourceSpec) -> Result<Self> {
        let csv = &spec.csv;
        let characters = [("quote", csv.quote), ("escape", csv.escape), ("comment", csv.comment)];
        let delimiter =
            csv.delimiter.iter().flat_map(|delimiter| delimiter.chars()).map(|char| ("delimiter", Some(char)));
        for (option, character) in characters.into_iter().chain(delimiter) {
            if let Some(character) = character.filter(|char| !char.is_ascii() || matches!(char, '\n' | '\r' | '\0')) {
                return Err(Error::pipeline(format!("invalid `csv.{option}`: {character:?}"))
                    .hint("use an ASCII character other than a line break"));
            }
        }
        let starts_with =
            |char: char| csv.delimiter.as_ref().map_or(matches!(char, ',' | '\t'), |text| text.contains(char));
        if csv.delimiter.as_ref().is_some_and(String::is_empty) {
            return Err(
                Error::pipeline("`csv.delimiter` is empty").hint("set the character between fields, such as `;`")
            );
        }
        if csv.quote.is_some_and(starts_with) {
            return Err(Error::pipeline("`csv.delimiter` and `csv.quote` are the same character"));
        }
        if !csv.header && csv.names.is_empty() {
            return Err(Error::pipeline("`csv.header` is false, but `csv.names` is empty")
                .hint("list the columns: `names: [account_ref, name, …]`"));
        }
        Ok(Self { csv: csv.clone(), most_lines: u64::from(spec.max_record_lines.max(1)) })
    }

    /// Returns the options as the user wrote them.
    pub(in crate::source) fn csv(&self) -> &CsvSpec {
        &self.csv
    }

    /// Returns whether the files have a header.
    pub(in crate::source) fn header(&self) -> bool {
        self.csv.header
    }

    /// Returns the notation of a file. The options do not set the delimiter of every file.
    fn syntax(&self, delimiter: Vec<u8>) -> Syntax {
        let byte = |char: Option<char>| char.and_then(|char| u8::try_from(char).ok());
        // An escape character that is the quote is the default: a quote written twice.
        let escape = self.csv.escape.filter(|escape| Some(*escape) != self.csv.quote);
        Syntax { delimiter, quote: byte(self.csv.quote), escape: byte(escape), comment: byte(self.csv.comment) }
    }

    /// Opens a file at its header.
    pub(super) fn open(&self, file: &SourceFile) -> Result<Opened> {
        let mut input = Input::open(file, self.csv.encoding)?;
        let by_name = || if files::is_tsv(&file.path) { b"\t".to_vec() } else { b",".to_vec() };
        let mut delimiter = self.csv.delimiter.as_ref().map_or_else(by_name, |text| text.clone().into_bytes());
        let mut line = 1;
        let of_rejects = is_of_rejects(&mut input)?;
        if of_rejects {
            let quote = self.csv.quote.or(Some('"'));
            let csv = CsvSpec { quote, comment: None, ..self.csv.clone() };
            let syntax = Self { csv, ..*self }.syntax(delimiter);
            return Ok(Opened { records: Records::new(input, syntax, line), of_rejects });
        }
        for _ in 0..self.csv.skip_rows {
            line += skip_line(&mut input, line)?;
        }
        if let Some(separator) = separator(&mut input, line)? {
            let declared = self.csv.delimiter.is_some() && delimiter != [separator];
            if declared {
                return Err(Error::input(format!(
                    "`{}` begins with `sep={}`, but `csv.delimiter` is `{}`",
                    file.name,
                    char::from(separator),
                    self.csv.delimiter.as_deref().unwrap_or_default()
                ))
                .hint("remove `delimiter`: the line `sep=` sets it"));
            }
            delimiter = vec![separator];
            line += skip_line(&mut input, line)?;
        }
        input.hold_back(self.csv.skip_footer as usize)?;
        Ok(Opened { records: Records::new(input, self.syntax(delimiter), line), of_rejects })
    }

    /// Returns the number of lines of a file's header.
    fn header_lines(&self, of_rejects: bool) -> u32 {
        match (of_rejects, self.csv.header) {
            (true, _) => 1,
            (false, true) => self.csv.header_lines.max(1),
            (false, false) => 0,
        }
    }

    pub(super) fn is_null(&self, value: &str) -> bool {
        self.csv.null_values.iter().any(|null| null == value)
    }
}

/// A file at its header.
pub(super) struct Opened {
    pub(super) records: Records,
    /// Whether it is a reject file, which has a header even if the source's files do not.
    pub(super) of_rejects: bool,
}

impl Opened {
    /// Returns the column names, and moves the records to the first row.
    pub(super) fn names(&mut self, file: &SourceFile, dialect: &Dialect) -> Result<Vec<String>> {
        let lines = dialect.header_lines(self.of_rejects);
        let csv = dialect.csv();
        if lines == 0 && self.records.is_empty() {
            return Err(file.empty(false));
        }
        let mut names: Vec<String> = Vec::new();
        for _ in 0..lines {
            let record = self.records.next()?.ok_or_else(|| file.empty(true))?;
            let parts = self.header_record(&record, file)?;
            names.resize(names.len().max(parts.len()), String::new());
            for (name, part) in names.iter_mut().zip(parts) {
                let part = if lines == 1 { part.as_str() } else { part.trim() };
                if !part.is_empty() && !name.is_empty() {
                    name.push('_');
                }
                name.push_str(part);
            }
        }
        if self.of_rejects {
            names = names.iter().map(|name| injection::unguarded(name).to_owned()).collect();
        } else {
            if csv.trailing_delimiter && names.len() > 1 && names.last().is_some_and(String::is_empty) {
                names.pop();
            }
            if lines == 0 {
                names.clone_from(&csv.names);
            } else {
                looks_like_another_delimiter(&names, file, dialect, self.records.syntax())?;
                rename(&mut names, file, csv)?;
            }
        }
        let shape = Shape {
            columns: names.len(),
            trailing: csv.trailing_delimiter,
            ragged: csv.ragged_rows == RaggedRows::Fill,
            most_lines: dialect.most_lines,
        };
        self.records.expect(shape, csv.blank_lines == BlankLines::Value);
        Ok(names)
    }

    /// Returns the cells of a line of the header.
    fn header_record(&self, record: &Record, file: &SourceFile) -> Result<Vec<String>> {
        let broken = |why: &str| Error::input(format!("the header of `{}` {why}", file.name)).hint("check `csv.quote`");
        match record.fault {
            Some(RecordFault::Format(Fault::Unclosed(_))) => return Err(broken("has an unclosed quote")),
            Some(RecordFault::Format(Fault::AfterQuote(_))) => return Err(broken("has text after a closing quote")),
            _ => {}
        }
        let bytes = self.records.bytes(record);
        let text = from_utf8(bytes).map_err(|error| {
            let byte = bytes[error.valid_up_to()];
            Error::input(format!("the header of `{}` is not UTF-8 (byte 0x{byte:02X})", file.name))
                .hint(format!("try `csv: {{ encoding: {} }}`", encodings::guess(bytes)))
        })?;
        if text.contains('\0') {
            return Err(Error::input(format!("the header of `{}` contains a NUL character", file.name))
                .hint("if the file is UTF-16 without a byte order mark, set `csv: { encoding: utf-16le }`"));
        }
        let syntax = self.records.syntax();
        Ok(self.records.fields().iter().map(|span| syntax.value(text, *span).into_owned()).collect())
    }
}

/// Replaces the names of a header as the options say.
fn rename(names: &mut Vec<String>, file: &SourceFile, csv: &CsvSpec) -> Result<()> {
    if !csv.names.is_empty() {
        if csv.names.len() != names.len() {
            return Err(Error::input(format!(
                "the header of `{}` has {} columns, but `csv.names` has {}",
                file.name,
                names.len(),
                csv.names.len()
            ))
            .hint("list a name for each column, in order"));
        }
        names.clone_from(&csv.names);
    }
    for (position, name) in csv.rename.iter() {
        let known = position.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let Some(column) = known.and_then(|at| names.get_mut(at)) else {
            return Err(Error::input(format!("`{}` has no column {position}, which `csv.rename` names", file.name))
                .hint(format!("positions are 1–{}", names.len())));
        };
        column.clone_from(name);
    }
    Ok(())
}

/// Refuses a header of one cell that contains what is a delimiter in other files.
fn looks_like_another_delimiter(names: &[String], file: &SourceFile, dialect: &Dialect, syntax: &Syntax) -> Result<()> {
    let [name] = names else { return Ok(()) };
    let other =
        [";", "\t", "|", ","].into_iter().find(|other| name.contains(other) && syntax.delimiter != other.as_bytes());
    let (Some(other), true) = (other, dialect.csv.names.is_empty()) else { return Ok(()) };
    let shown = if other == "\t" { "\\t" } else { other };
    Err(Error::input(format!(
        "`{}` has one column, `{}`, with the delimiter `{}`",
        file.name,
        name.escape_debug(),
        String::from_utf8_lossy(&syntax.delimiter).escape_debug()
    ))
    .hint(format!("try `csv: {{ delimiter: \"{shown}\" }}`")))
}

/// Returns whether a file is a reject file: the first line is a header that has a column for the line.
fn is_of_rejects(input: &mut Input) -> Result<bool> {
    let line = loop {
        match first_line(input.bytes(), true) {
            Some((len, _)) => break &input.bytes()[..len],
            None if input.at_end() => break input.bytes(),
            None => input.grow(1)?,
        }
    };
    let marker = REJECT_LINE.as_bytes();
    Ok(line.windows(marker.len()).any(|part| part == marker))
}

/// Moves the input to the next line, and returns the number of lines that it passed.
fn skip_line(input: &mut Input, line: u64) -> Result<u64> {
    loop {
        match first_line(input.bytes(), true) {
            Some((_, next)) if next < input.bytes().len() || input.at_end() => {
                input.consume(next);
                return Ok(1);
            }
            None if input.at_end() => {
                input.consume(input.bytes().len());
                return Ok(0);
            }
            _ => input.grow(line)?,
        }
    }
}

/// Returns the delimiter of a line such as `sep=;`, which Excel reads and writes.
fn separator(input: &mut Input, line: u64) -> Result<Option<u8>> {
    while input.bytes().len() < 7 && !input.at_end() {
        input.grow(line)?;
    }
    Ok(match input.bytes() {
        [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', separator, b'\r' | b'\n', ..]
            if separator.is_ascii() && !separator.is_ascii_alphanumeric() =>
        {
            Some(*separator)
        }
        _ => None,
    })
}
