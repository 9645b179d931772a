//! Output of a draft as YAML: facts and guesses as values, open decisions as comments.

use std::fmt::Write as _;

use super::discover::Files;
use super::expression::sql_name;
use super::references::Relationship;
use super::table::{Draft, Key, Numbers};
use super::{Drafted, Matched, SAMPLED, ScaffoldOptions};
use crate::engine::list;
use crate::spec::{CsvSpec, Encoding};

/// The placeholder for a name that the user must choose.
const CHOOSE: &str = "CHOOSE";

/// The number of characters in a line up to which a comment follows its entry.
const WIDTH: usize = 120;

/// Returns the text of the file: its header with the problems, and its content.
pub(super) fn text(drafted: &Drafted, target: &str, problems: &[String], rejects: &[String]) -> String {
    let mut out = format!("# A draft of a pipeline file, created by `pipeline init` from {}.\n#\n", comment(target));
    out += "# GUESS marks values that were inferred, CHOOSE marks open decisions. Review both, then run:\n";
    out += "#   pipeline check FILE      checks that the file, the delta, and production match\n";
    out += "#   pipeline validate FILE   checks the data without loading it\n";
    if drafted.sampled {
        let _infallible = writeln!(out, "# At most {SAMPLED} rows of each table were sampled.");
    }
    for note in &drafted.notes {
        let _infallible = writeln!(out, "# NOTE: {}.", comment(note));
    }
    if !problems.is_empty() {
        out += "#\n# Problems that `pipeline check` reports:\n";
        for problem in problems {
            let _infallible = writeln!(out, "#   - {}", comment(problem));
        }
    }
    if !rejects.is_empty() {
        out += "#\n# Checks that reject most of the sampled rows:\n";
        for reject in rejects {
            let _infallible = writeln!(out, "#   * {}", comment(reject));
        }
    }
    format!("{out}\n{}{}", drafted.head, drafted.body)
}

/// Returns the file up to the tables. `unnumbered` are those whose keys come from no known sequence.
pub(super) fn head(options: &ScaffoldOptions<'_>, unnumbered: &[&str]) -> String {
    let production =
        options.production.as_ref().map_or(String::new(), |schema| format!("  production: {}\n", value(schema)));
    let lock = match unnumbered {
        [] => String::new(),
        tables => format!(
            "
# CHOOSE: the keys of {} come from no known sequence. If other programs take the largest key plus one, the next line keeps them from
# writing during the load. Otherwise name a `sequence: …` that they use, or a `start_row_number: …` that they never reach, in each `key`.
# load: {{ lock: table }}
",
            comment(&list(tables))
        ),
    };
    format!(
        "version: 1
name: {}

target:
  url: {}
{production}
safeguards:
  max_rejects: 0              # rows of a table that may be rejected: a number, or a share such as 1%
  # backup: ./backups         # backup store of the key map, written before the load
{lock}
# Constraints that production declares become checks automatically, and are not repeated here.
# A column without an expression takes the source column of the same name.
tables:
",
        value(&options.name),
        // A URL that is a template must not be escaped.
        if options.url.starts_with("${") { options.url.clone() } else { value(&options.url) },
    )
}

/// Returns the entry of a table.
pub(super) fn table(draft: &Draft<'_>, files: &Matched<'_>, has_delta: bool) -> String {
    let mut out = format!("  {}:\n", key(&draft.table.name));
    source(&mut out, draft, files, has_delta);
    legacy_key(&mut out, draft);
    key_line(&mut out, draft);
    columns(&mut out, draft);
    relationships(&mut out, draft);
    triggers(&mut out, draft);
    for remark in &draft.remarks {
        note(&mut out, remark);
    }
    out
}

fn note(out: &mut String, text: &str) {
    let _infallible = writeln!(out, "    # {}", comment(text));
}

fn source(out: &mut String, draft: &Draft<'_>, files: &Matched<'_>, has_delta: bool) {
    let path = match files {
        Matched::One(files) => {
            if files.is_part_of(&draft.table.name) {
                note(out, "GUESS: the name of the file matches a part of the table's name");
            }
            files.path.clone()
        }
        Matched::Several(choices) => {
            let names: Vec<_> = choices.iter().map(|files| files.path.as_str()).collect();
            match names.as_slice() {
                [one] => note(out, &format!("CHOOSE: `{one}` also matches other tables")),
                names => note(out, &format!("CHOOSE: {} match equally well", list(names))),
            }
            CHOOSE.to_owned()
        }
        Matched::None => {
            let choice = if has_delta { "no file name in the folder matches" } else { "a file, a folder, or a glob" };
            note(out, &format!("CHOOSE: {choice}"));
            CHOOSE.to_owned()
        }
    };
    let _infallible = writeln!(out, "    source:\n      path: {}", value(&path));
    let Some(files) = draft.files else { return };
    match &files.fixed {
        Some(fixed) => fixed.write(out),
        None => dialect(out, draft, files),
    }
    if !draft.ignore.is_empty() {
        let _infallible =
            writeln!(out, "      # GUESS: no column of production has a similar name; check that these are not needed");
        let _infallible = writeln!(out, "      ignore: {}", names(&draft.ignore));
    }
}

/// Writes the dialect of CSV files.
fn dialect(out: &mut String, draft: &Draft<'_>, files: &Files) {
    let CsvSpec { delimiter, encoding, .. } = &files.csv;
    let mut csv = Vec::new();
    csv.extend(delimiter.as_ref().map(|delimiter| format!("delimiter: {}", quoted(delimiter))));
    csv.extend((*encoding == Encoding::LATIN_1).then(|| "encoding: latin-1".to_owned()));
    if !draft.null_values.is_empty() && is_csv(&files.path) {
        let values = std::iter::once("").chain(draft.null_values.iter().copied()).map(quoted).collect::<Vec<_>>();
        csv.push(format!("null_values: [{}]", values.join(", ")));
    }
    if !csv.is_empty() {
        let _infallible = writeln!(out, "      csv: {{ {} }}    # GUESS: by the sampled rows", csv.join(", "));
    }
}

fn is_csv(path: &str) -> bool {
    let path = path.to_lowercase();
    let path = path.strip_suffix(".gz").or_else(|| path.strip_suffix(".zst")).unwrap_or(&path);
    !["json", "jsonl", "ndjson", "parquet", "arrow", "arrows", "feather"].iter().any(|ending| path.ends_with(ending))
}

fn legacy_key(out: &mut String, draft: &Draft<'_>) {
    let choices = comment(&draft.legacy_choices.join(", "));
    let more = match (draft.files, draft.legacy_choices.is_empty()) {
        (Some(_), true) => "    # GUESS: identifies the sampled rows".to_owned(),
        (Some(_), false) => format!("    # GUESS: identifies the sampled rows; these also identify rows: {choices}"),
        (None, true) => String::new(),
        (None, false) => format!("    # these also identify rows: {choices}"),
    };
    let (mut columns, mut more) = (names(&draft.legacy_key), more);
    if draft.legacy_key.is_empty() {
        more.clear();
        note(out, "CHOOSE: no source column identifies all rows; name those that identify a legacy record");
        columns = format!("[{CHOOSE}]");
    } else if draft.files.is_none() {
        note(out, "CHOOSE: the source columns that identify a legacy record; these are unique in production");
    }
    let _infallible = writeln!(out, "    legacy_key: {columns}{more}");
}

fn key_line(out: &mut String, draft: &Draft<'_>) {
    let line = match &draft.key {
        Key::Assigned(column, None) => match &draft.numbers {
            Numbers::Default => {
                format!("{{ column: {} }}    # takes the next free numbers of production", value(column))
            }
            Numbers::Sequence(name) => {
                note(out, "GUESS: the sequence is named after the table");
                format!("{{ column: {}, sequence: {} }}", value(column), value(name))
            }
            Numbers::Unknown => format!("{{ column: {} }}    # the head of the file names the choices", value(column)),
        },
        Key::Assigned(column, Some(text)) => {
            let prefix =
                if text.prefix.is_empty() { String::new() } else { format!(", prefix: {}", value(&text.prefix)) };
            note(out, &format!("GUESS: keys of production have {} characters", text.format(1).chars().count()));
            format!("{{ column: {}{prefix}, width: {} }}", value(column), text.width)
        }
        Key::Uuid(column) => {
            format!(
                "{{ column: {} }}    # GUESS: UUIDs (v5) of the legacy keys, because no source column has any",
                value(column)
            )
        }
        Key::Inherited(columns) => {
            note(out, "GUESS: takes the new key of the parent; `column: …` if the table has a number of its own");
            format!("{{ inherited: {} }}", names(columns))
        }
        Key::Source => {
            let key = draft.table.primary_key.join(", ");
            let remark = format!("The rows bring the key ({key}); `key: {{ column: … }}` would assign a new one");
            return note(out, &remark);
        }
        Key::None => {
            return note(out, "CHOOSE: no primary key in production; name a unique column in `key: { column: … }`");
        }
    };
    let _infallible = writeln!(out, "    key: {line}");
}

fn columns(out: &mut String, draft: &Draft<'_>) {
    if draft.columns.is_empty() && draft.needed.is_empty() {
        return unfilled(out, draft);
    }
    out.push_str(if draft.columns.is_empty() { "    # columns:\n" } else { "    columns:\n" });
    for line in &draft.columns {
        let entry = format!("      {}: {}", key(&line.column), value(&line.sql));
        let guess = line.guess.as_ref().map(|guess| format!("# GUESS: {}", comment(guess)));
        let _infallible = match guess {
            None => writeln!(out, "{entry}"),
            Some(guess) if entry.chars().count() + guess.chars().count() < WIDTH => {
                writeln!(out, "{entry}    {guess}")
            }
            Some(guess) => writeln!(out, "      {guess}\n{entry}"),
        };
    }
    for (name, candidates) in &draft.needed {
        let column = draft.table.column(name);
        let is_required = column.is_some_and(|column| column.not_null && !column.has_default);
        let remark = if is_required { "required in production" } else { "optional" };
        let candidates: Vec<_> = candidates.iter().map(|name| sql_name(name)).collect();
        let candidates = match candidates.as_slice() {
            [] => String::new(),
            names => format!("; possibly from {}", names.join(" or ")),
        };
        let _infallible = writeln!(
            out,
            "      # CHOOSE: {}: …    # {}",
            comment(&key(name)),
            comment(&format!("{remark}{candidates}"))
        );
    }
    unfilled(out, draft);
}

fn unfilled(out: &mut String, draft: &Draft<'_>) {
    if !draft.unfilled.is_empty() {
        note(out, &format!("Set to the default or NULL: {}", draft.unfilled.join(", ")));
    }
}

fn relationships(out: &mut String, draft: &Draft<'_>) {
    if !draft.own_keys.is_empty() {
        note(out, &format!("GUESS: production's own keys, which need no relationship: {}", draft.own_keys.join(", ")));
    }
    if draft.relationships.is_empty() {
        return;
    }
    let is_any_known = draft.relationships.iter().any(|reference| !reference.from.is_empty());
    *out += if is_any_known { "    relationships:\n" } else { "    # relationships:\n" };
    for reference in &draft.relationships {
        relationship(out, reference);
    }
}

fn triggers(out: &mut String, draft: &Draft<'_>) {
    let [trigger] = draft.table.deciding_triggers.as_slice() else { return };
    if draft.filled_by_trigger.is_empty() {
        return;
    }
    let fills: Vec<_> = draft.filled_by_trigger.iter().map(|column| format!("{}: fills", key(column))).collect();
    note(out, &format!("GUESS: nothing else fills these required columns; read the trigger `{trigger}`"));
    let _infallible = writeln!(out, "    triggers: {{ {} }}", fills.join(", "));
}

fn relationship(out: &mut String, reference: &Relationship) {
    let by = reference.by.as_ref().map_or(String::new(), |by| format!(", by: {}", value(by)));
    let remark = reference.remark.as_ref().map_or(String::new(), |remark| format!("    # {}", comment(remark)));
    let to = value(&reference.to);
    let column = match reference.more.as_slice() {
        [] => value(&reference.column),
        more => names(&[std::slice::from_ref(&reference.column), more].concat()),
    };
    let _infallible = match reference.from.is_empty() {
        true => {
            let from = match reference.candidates.as_slice() {
                [one] => names(std::slice::from_ref(one)),
                _ => "[ … ]".to_owned(),
            };
            writeln!(out, "      # CHOOSE: - {{ column: {column}, from: {from}, to: {to}{by} }}{remark}")
        }
        false => {
            writeln!(out, "      - {{ column: {column}, from: {}, to: {to}{by} }}{remark}", names(&reference.from))
        }
    };
}

fn names(names: &[String]) -> String {
    format!("[{}]", names.iter().map(|name| value(name)).collect::<Vec<_>>().join(", "))
}

/// Formats a text as a value in YAML, with `${` escaped.
pub(super) fn value(text: &str) -> String {
    key(&text.replace("${", "$${"))
}

/// Formats a text as a key in YAML, quoted unless it is unambiguous.
pub(super) fn key(text: &str) -> String {
    let is_plain =
        |char: char| char.is_alphanumeric() || matches!(char, '_' | '.' | '/' | '-' | '(' | ')' | '*' | '+' | '=');
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|char| char.is_alphabetic() || matches!(char, '_' | '/'));
    let begins = first || text.starts_with("./") || text.starts_with("../");
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_word = words.contains(&text.to_lowercase().as_str());
    if begins && chars.all(is_plain) && !is_word && text.parse::<f64>().is_err() {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Formats a text in double quotes. JSON strings are valid YAML, except for some control characters.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for char in serde_json::Value::from(text).to_string().chars() {
        match char {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                let _infallible = write!(out, "\\u{:04x}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out
}

/// Replaces control characters, so that a text stays on the line of its comment.
pub(super) fn comment(text: &str) -> String {
    text.replace(|char: char| char.is_control(), "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_a_round_trip() {
        for name in [
            "account",
            "two words",
            "a: b",
            "a #b",
            "no",
            "1",
            "1e5",
            "\"quoted\"",
            "it's",
            "ünï",
            "{x}",
            "- a",
            "a\nb",
            "",
            "~",
            "*a",
            "&a",
            "a,b",
            "[",
            "%",
            "@x",
            "a\u{1}",
            "\u{85}x",
            "..",
            ".5",
            ".inf",
            "0x1F",
            "2024-01-01",
            "=",
            "<<",
        ] {
            let yaml = format!("{}: [{}]\n", key(name), value(name));
            let read: serde_json::Value = serde_yaml::from_str(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
            assert_eq!(read, serde_json::json!({ name: [name] }), "{yaml}");
        }
        assert_eq!(value("${X}"), "\"$${X}\"");
    }
}
