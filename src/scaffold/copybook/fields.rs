//! The fields of the records that entries describe, with their positions.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::entries::{Entry, Sign, Usage};
use super::picture::Picture;
use super::{Line, Place, Record, Refusal};
use crate::spec::{ByteOrder, FieldSpec, FieldType, SignPlace, Trim};

/// The maximum number of fields of a record.
const MOST: usize = 10_000;

/// Returns the records that entries describe.
pub(super) fn records(entries: &[Entry]) -> Result<Vec<Record>, Refusal> {
    let Some(first) = entries.first() else {
        return Place { line: 1, column: 1 }
            .refuse("the copybook describes no field", "name a copybook with data descriptions");
    };
    let starts_record = |entry: &Entry| matches!(entry.level, 1 | 77);
    if !entries.iter().any(starts_record) {
        return Ok(vec![Builder::default().record("record".to_owned(), entries)?]);
    }
    if !starts_record(first) {
        return first
            .at
            .refuse(format!("level {:02} before the first level 01", first.level), "begin the record with level 01");
    }
    let mut records = Vec::new();
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let end = 1 + rest[1..].iter().position(starts_record).unwrap_or(rest.len() - 1);
        let name = first.name.clone().map_or_else(|| "record".to_owned(), |name| column(&name));
        // The names of its fields do not contain the name of the record.
        let fields = if first.picture.is_some() { &rest[..end] } else { &rest[1..end] };
        if fields.is_empty() {
            return first.at.refuse("the record has no field", "complete the copybook");
        }
        let builder = Builder { usage: first.usage.map(|(usage, _)| usage), sign: first.sign, ..Builder::default() };
        records.push(builder.record(name, fields)?);
        rest = &rest[end..];
    }
    Ok(records)
}

/// Returns the column name of a COBOL name.
fn column(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// A record that is being laid out.
#[derive(Default)]
struct Builder {
    usage: Option<Usage>,
    sign: Option<Sign>,
    drafted: Vec<Drafted>,
    native: bool,
}

/// A line, and the names around its field.
struct Drafted {
    line: Line,
    parents: Vec<String>,
    /// The number of the field in tables: `_2_1`.
    suffix: String,
}

/// The surroundings of an entry.
#[derive(Clone)]
struct Context {
    parents: Vec<String>,
    suffix: String,
    usage: Option<Usage>,
    sign: Option<Sign>,
    /// Whether no group around the entry redefines another.
    chosen: bool,
    /// Whether this is the first of all occurrences of the groups around the entry.
    first: bool,
}

impl Builder {
    fn record(mut self, name: String, entries: &[Entry]) -> Result<Record, Refusal> {
        let context = Context {
            parents: Vec::new(),
            suffix: String::new(),
            usage: self.usage,
            sign: self.sign,
            chosen: true,
            first: true,
        };
        let length = self.group(entries, 0, &context)?;
        Ok(Record { name, length, native: self.native, lines: named(self.drafted) })
    }

    /// Lays out the entries of a group that starts at a byte, and returns its size.
    fn group(&mut self, entries: &[Entry], start: u32, context: &Context) -> Result<u32, Refusal> {
        let mut places: HashMap<&str, u32> = HashMap::new();
        let (mut end, mut rest) = (start, entries);
        let level = entries.iter().find(|entry| entry.level != 88).map_or(0, |entry| entry.level);
        while let Some(entry) = rest.first() {
            if entry.level == 88 {
                self.condition(entry, context);
                rest = &rest[1..];
                continue;
            }
            if entry.level != level {
                let message = format!("level {:02} among fields of level {level:02}", entry.level);
                return entry.at.refuse(message, "give all fields of a group the same level");
            }
            let inner = rest[1..].iter().position(|other| other.level != 88 && other.level <= entry.level);
            let (members, after) = rest[1..].split_at(inner.unwrap_or(rest.len() - 1));
            rest = after;
            let (at, chosen) = match &entry.redefines {
                None => (end, context.chosen),
                Some((name, place)) => {
                    let Some(at) = places.get(name.as_str()) else {
                        return place.refuse(format!("`{name}` is not a field before `REDEFINES`"), "correct the name");
                    };
                    if context.first {
                        let own = entry.name.as_deref().unwrap_or("FILLER");
                        let remark = format!("{own} redefines {name}; to read it, use these fields in place of those:");
                        self.remark(remark, context);
                    }
                    (*at, false)
                }
            };
            places.extend(entry.name.as_deref().map(|name| (name, at)));
            let inside = Context { chosen, ..context.clone() };
            let size = self.occurrences(entry, members, at, &inside)?;
            end = end.max(at.saturating_add(size));
        }
        Ok(end - start)
    }

    /// Lays out an entry as often as it occurs, and returns the size of all occurrences.
    fn occurrences(&mut self, entry: &Entry, members: &[Entry], at: u32, context: &Context) -> Result<u32, Refusal> {
        let mut end = at;
        for number in 1..=entry.occurs.unwrap_or(1) {
            let suffix = match entry.occurs {
                Some(_) => format!("{}_{number}", context.suffix),
                None => context.suffix.clone(),
            };
            let mut inside = Context { suffix, first: context.first && number == 1, ..context.clone() };
            end += match &entry.picture {
                Some(_) => self.field(entry, members, end, &inside)?,
                None => {
                    if members.iter().all(|member| member.level == 88) {
                        return entry.at.refuse("the field has no picture", "add `PIC`, or fields of a higher level");
                    }
                    inside.usage = entry.usage.map(|(usage, _)| usage).or(context.usage);
                    inside.sign = entry.sign.or(context.sign);
                    inside.parents.extend(entry.name.as_deref().map(column));
                    self.group(members, end, &inside)?
                }
            };
            if self.drafted.len() > MOST {
                return entry
                    .at
                    .refuse(format!("the record has more than {MOST} fields"), "describe a part of the record");
            }
        }
        Ok(end - at)
    }

    /// Adds a field, and returns its size.
    fn field(&mut self, entry: &Entry, members: &[Entry], at: u32, context: &Context) -> Result<u32, Refusal> {
        if let Some(member) = members.iter().find(|member| member.level != 88) {
            return member.at.refuse("a field with a picture has no fields inside", "correct the levels");
        }
        let spec = self.spec(entry, at, context)?;
        let width = spec.width;
        if let Some(name) = &entry.name {
            let line = Line::Field { name: column(name), field: spec, chosen: context.chosen };
            self.drafted.push(Drafted { line, parents: context.parents.clone(), suffix: context.suffix.clone() });
            if entry.blank_when_zero && context.first {
                self.remark(format!("{name} is blank when it is zero; blanks are read as NULL"), context);
            }
            if matches!(entry.picture, Some((Picture::Text { edited: true, .. }, _))) && context.first {
                self.remark(format!("{name} is edited for print, and read as text"), context);
            }
            for member in members {
                self.condition(member, context);
            }
        }
        Ok(width)
    }

    fn spec(&mut self, entry: &Entry, at: u32, context: &Context) -> Result<FieldSpec, Refusal> {
        let Some((picture, place)) = entry.picture else {
            return entry.at.refuse("the field has no picture", "add `PIC`");
        };
        let usage = entry.usage.map(|(usage, _)| usage).or(context.usage).unwrap_or(Usage::Display);
        let mut field = FieldSpec {
            at: at + 1,
            width: 0,
            data_type: FieldType::Text,
            scale: 0,
            signed: true,
            sign: SignPlace::Trailing,
            byte_order: ByteOrder::Big,
            trim: Trim::End,
        };
        let (digits, scale, signed) = match picture {
            Picture::Text { width, edited } => {
                if let Some((_, at)) = entry.usage.filter(|(usage, _)| *usage != Usage::Display) {
                    return at.refuse("a text has no usage other than DISPLAY", "correct the picture or the usage");
                }
                let trim = if edited || entry.justified { Trim::Both } else { Trim::End };
                return Ok(FieldSpec { width, trim, ..field });
            }
            Picture::Number { digits, scale, signed } => (digits, scale, signed),
        };
        (field.scale, field.signed) = (scale as i8, signed);
        let sign = entry.sign.or(context.sign).filter(|_| signed);
        (field.data_type, field.width) = match usage {
            Usage::Display => {
                field.sign = match sign {
                    None | Some(Sign { leading: false, separate: false }) => SignPlace::Trailing,
                    Some(Sign { leading: true, separate: false }) => SignPlace::Leading,
                    Some(Sign { leading: false, separate: true }) => SignPlace::TrailingSeparate,
                    Some(Sign { leading: true, separate: true }) => SignPlace::LeadingSeparate,
                };
                (FieldType::Zoned, digits + u32::from(field.sign.is_separate()))
            }
            Usage::Packed => (FieldType::Packed, digits / 2 + 1),
            Usage::Binary | Usage::Native => {
                self.native |= usage == Usage::Native;
                let width = match digits {
                    1..=4 => 2,
                    5..=9 => 4,
                    10..=18 => 8,
                    _ => return place.refuse("a binary number has at most 18 digits", "correct the picture"),
                };
                (FieldType::Binary, width)
            }
        };
        if let (FieldType::Binary, Some(at)) = (field.data_type, entry.synchronized) {
            return at.refuse(
                "SYNCHRONIZED is not supported: it adds bytes that depend on the compiler",
                "remove it, and add a FILLER of as many bytes before the field",
            );
        }
        Ok(field)
    }

    /// Adds the values of a condition name as a remark.
    fn condition(&mut self, entry: &Entry, context: &Context) {
        if context.first {
            let name = entry.name.as_deref().unwrap_or("FILLER");
            self.remark(format!("88 {name}: {}", entry.values.join(" ")), context);
        }
    }

    fn remark(&mut self, text: String, context: &Context) {
        let line = Line::Remark(text);
        self.drafted.push(Drafted { line, parents: context.parents.clone(), suffix: context.suffix.clone() });
    }
}

/// Gives each field a name that no other has: with its number in tables, and with the names of groups if needed.
fn named(mut drafted: Vec<Drafted>) -> Vec<Line> {
    for depth in 0.. {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let full = |drafted: &Drafted| match &drafted.line {
            Line::Field { name, .. } => Some(format!("{name}{}", drafted.suffix)),
            Line::Remark(_) => None,
        };
        drafted.iter().filter_map(full).for_each(|name| *counts.entry(name).or_default() += 1);
        let mut changed = false;
        for line in &mut drafted {
            let is_double = full(line).is_some_and(|name| counts[&name] > 1);
            let parent = line.parents.iter().rev().nth(depth).cloned();
            if let (true, Some(parent), Line::Field { name, .. }) = (is_double, parent, &mut line.line) {
                *name = format!("{parent}_{name}");
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    for line in &mut drafted {
        if let Line::Field { name, .. } = &mut line.line {
            *name += &line.suffix;
            let count = seen.entry(name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                let _infallible = write!(name, "_{count}");
            }
        }
    }
    drafted.into_iter().map(|drafted| drafted.line).collect()
}
