//! Data description entries: a level, a name, and clauses.

use super::lines::Token;
use super::picture::{Picture, picture};
use super::{Place, Refusal};

/// A data description entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) level: u8,
    /// `None` for FILLER.
    pub(super) name: Option<String>,
    pub(super) at: Place,
    pub(super) redefines: Option<(String, Place)>,
    pub(super) picture: Option<(Picture, Place)>,
    pub(super) usage: Option<(Usage, Place)>,
    pub(super) sign: Option<Sign>,
    pub(super) occurs: Option<u32>,
    pub(super) blank_when_zero: bool,
    pub(super) justified: bool,
    pub(super) synchronized: Option<Place>,
    /// The values of a condition name (level 88).
    pub(super) values: Vec<String>,
}

/// The representation of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Display,
    Packed,
    Binary,
    /// COMP-5, in the byte order of the machine.
    Native,
}

/// The place of a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) leading: bool,
    pub(super) separate: bool,
}

/// The words that begin a clause.
const CLAUSES: [&str; 43] = [
    "REDEFINES",
    "PIC",
    "PICTURE",
    "USAGE",
    "SIGN",
    "LEADING",
    "TRAILING",
    "OCCURS",
    "VALUE",
    "VALUES",
    "BLANK",
    "JUSTIFIED",
    "JUST",
    "SYNC",
    "SYNCHRONIZED",
    "GLOBAL",
    "EXTERNAL",
    "DISPLAY",
    "COMP",
    "COMP-1",
    "COMP-2",
    "COMP-3",
    "COMP-4",
    "COMP-5",
    "COMP-6",
    "COMP-X",
    "COMPUTATIONAL",
    "COMPUTATIONAL-1",
    "COMPUTATIONAL-2",
    "COMPUTATIONAL-3",
    "COMPUTATIONAL-4",
    "COMPUTATIONAL-5",
    "BINARY",
    "PACKED-DECIMAL",
    "INDEX",
    "POINTER",
    "NATIONAL",
    "DISPLAY-1",
    "FUNCTION-POINTER",
    "PROCEDURE-POINTER",
    "OBJECT",
    "RENAMES",
    "DEPENDING",
];

const UNSUPPORTED: &str = "expand or remove the statement; a copybook has data descriptions alone";

/// Groups words into entries.
pub(super) fn entries(tokens: &[Token]) -> Result<Vec<Entry>, Refusal> {
    let mut entries = Vec::new();
    let mut rest = tokens;
    while let Some(first) = rest.first() {
        let Some(last) = rest.iter().position(|token| token.ends_entry) else {
            return first.at.refuse("the entry has no period at its end", "end each entry with a period");
        };
        let (entry, after) = rest.split_at(last + 1);
        rest = after;
        entries.extend(Parser { tokens: entry, next: 0 }.entry()?);
    }
    Ok(entries)
}

/// The words of an entry.
struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self) -> Option<&'a Token> {
        let token = self.peek();
        self.next += usize::from(token.is_some());
        token
    }

    /// Skips words if they follow.
    fn skip(&mut self, words: &[&str]) -> bool {
        let found = self.peek().is_some_and(|token| words.contains(&token.text.as_str()));
        self.next += usize::from(found);
        found
    }

    fn last(&self) -> Place {
        self.tokens[self.next.clamp(1, self.tokens.len()) - 1].at
    }

    fn word(&mut self, what: &str) -> Result<&'a Token, Refusal> {
        match self.take() {
            Some(token) => Ok(token),
            None => self.last().refuse(format!("{what} is missing"), "complete the entry"),
        }
    }

    /// Returns the entry; `None` if it describes no field.
    fn entry(mut self) -> Result<Option<Entry>, Refusal> {
        let first = self.word("the level")?;
        let level = match first.text.parse::<u8>() {
            Ok(level @ (1..=49 | 66 | 77 | 88)) => level,
            Ok(level) => return first.at.refuse(format!("invalid level {level}"), "levels are 01–49, 66, 77, and 88"),
            Err(_) => return first.at.refuse(format!("unsupported statement `{}`", first.text), UNSUPPORTED),
        };
        if level == 66 {
            return Ok(None);
        }
        let is_name = self.peek().is_some_and(|token| !CLAUSES.contains(&token.text.as_str()));
        let name = if is_name { self.take() } else { None };
        let mut entry = Entry {
            level,
            name: name.map(|token| token.text.clone()).filter(|name| name != "FILLER"),
            at: name.unwrap_or(first).at,
            redefines: None,
            picture: None,
            usage: None,
            sign: None,
            occurs: None,
            blank_when_zero: false,
            justified: false,
            synchronized: None,
            values: Vec::new(),
        };
        while let Some(clause) = self.take() {
            self.clause(clause, &mut entry)?;
        }
        Ok(Some(entry))
    }

    fn clause(&mut self, clause: &'a Token, entry: &mut Entry) -> Result<(), Refusal> {
        match clause.text.as_str() {
            "REDEFINES" => {
                let name = self.word("the redefined name")?;
                entry.redefines = Some((name.text.clone(), name.at));
            }
            "PIC" | "PICTURE" => {
                self.skip(&["IS"]);
                let token = self.word("the picture")?;
                entry.picture = Some((picture(&token.text, token.at)?, token.at));
            }
            "USAGE" => {
                self.skip(&["IS"]);
                let token = self.word("the usage")?;
                entry.usage = Some((usage(token)?, token.at));
            }
            "SIGN" => {
                self.skip(&["IS"]);
                let token = self.word("LEADING or TRAILING")?;
                self.sign(token, entry)?;
            }
            "LEADING" | "TRAILING" => self.sign(clause, entry)?,
            "OCCURS" => self.occurs(entry)?,
            "VALUE" | "VALUES" => self.values(entry),
            "BLANK" => {
                self.skip(&["WHEN"]);
                self.skip(&["ZERO", "ZEROS", "ZEROES"]);
                entry.blank_when_zero = true;
            }
            "JUSTIFIED" | "JUST" => {
                self.skip(&["RIGHT"]);
                entry.justified = true;
            }
            "SYNC" | "SYNCHRONIZED" => {
                self.skip(&["LEFT", "RIGHT"]);
                entry.synchronized = Some(clause.at);
            }
            "GLOBAL" | "EXTERNAL" => {
                self.skip(&["IS"]);
            }
            "IS" => {}
            _ => entry.usage = Some((usage(clause)?, clause.at)),
        }
        Ok(())
    }

    fn sign(&mut self, token: &Token, entry: &mut Entry) -> Result<(), Refusal> {
        let leading = match token.text.as_str() {
            "LEADING" => true,
            "TRAILING" => false,
            other => {
                return token.at.refuse(format!("expected LEADING or TRAILING, found `{other}`"), "correct the clause");
            }
        };
        let separate = self.skip(&["SEPARATE"]);
        self.skip(&["CHARACTER"]);
        entry.sign = Some(Sign { leading, separate });
        Ok(())
    }

    fn occurs(&mut self, entry: &mut Entry) -> Result<(), Refusal> {
        let token = self.word("the number of occurrences")?;
        let Ok(count @ 1..) = token.text.parse::<u32>() else {
            return token.at.refuse(format!("invalid number of occurrences `{}`", token.text), "write a number");
        };
        let varying = self.peek().filter(|next| next.text == "TO").map(|next| next.at);
        if varying.is_some() {
            self.next += 2;
        }
        self.skip(&["TIMES"]);
        if let Some(next) = self.peek().filter(|next| next.text == "DEPENDING" || varying.is_some()) {
            let at = if next.text == "DEPENDING" { next.at } else { varying.unwrap_or(next.at) };
            return at.refuse(VARYING, VARYING_HINT);
        }
        if let Some(at) = varying {
            return at.refuse(VARYING, VARYING_HINT);
        }
        entry.occurs = Some(count);
        // Keys and indexes describe no bytes.
        while self.peek().is_some_and(|next| !CLAUSES.contains(&next.text.as_str()) || next.text == "INDEX") {
            self.next += 1;
        }
        if let Some(next) = self.peek().filter(|next| next.text == "DEPENDING") {
            return next.at.refuse(VARYING, VARYING_HINT);
        }
        Ok(())
    }

    fn values(&mut self, entry: &mut Entry) {
        self.skip(&["IS", "ARE"]);
        while let Some(next) = self.peek().filter(|next| !CLAUSES.contains(&next.text.as_str())) {
            entry.values.push(next.text.clone());
            self.next += 1;
        }
    }
}

const VARYING: &str = "OCCURS with a variable count is not supported: the fields behind it have no fixed position";

const VARYING_HINT: &str = "export the table as records of their own, or with its largest count";

fn usage(token: &Token) -> Result<Usage, Refusal> {
    let name =
        token.text.strip_prefix("COMPUTATIONAL").map_or_else(|| token.text.clone(), |rest| format!("COMP{rest}"));
    let (why, hint) = match name.as_str() {
        "DISPLAY" => return Ok(Usage::Display),
        "COMP-3" | "PACKED-DECIMAL" => return Ok(Usage::Packed),
        "COMP" | "COMP-4" | "BINARY" => return Ok(Usage::Binary),
        "COMP-5" => return Ok(Usage::Native),
        "COMP-1" | "COMP-2" => (
            "floating-point numbers of mainframes have no exact decimal value",
            "move the field to a decimal picture in the export",
        ),
        "COMP-6" | "COMP-X" => {
            ("its size depends on the compiler", "move the field to COMP-3 or DISPLAY in the export")
        }
        "NATIONAL" | "DISPLAY-1" => {
            ("its characters are not single bytes of the code page", "move the field to DISPLAY in the export")
        }
        "INDEX" | "POINTER" | "FUNCTION-POINTER" | "PROCEDURE-POINTER" | "OBJECT" => {
            ("it has no meaning outside of its program", "remove the field from the export")
        }
        other => return token.at.refuse(format!("unknown clause `{other}`"), "correct the clause, or remove it"),
    };
    token.at.refuse(format!("USAGE {} is not supported: {why}", token.text), hint)
}
