//! A draft as YAML: what is decided as values, what is not as comments.

use std::fmt::Write as _;

use super::expression::sql_name;
use super::table::{Draft, Key, Relationship};
use super::{Drafted, Matched, SAMPLED, ScaffoldOptions};
use crate::engine::list;
use crate::spec::{CsvSpec, Encoding};

/// A column whose name says that somebody has to choose one.
const CHOOSE: &str = "CHOOSE";

/// The file: what it is, what is wrong with it, what it says.
pub(super) fn text(drafted: &Drafted, shown: &str, problems: &[String]) -> String {
    let mut out = format!("# A pipeline file to start from, made by `pipeline init` from {}.\n#\n", comment(shown));
    out += "# GUESS marks what names and values suggest, CHOOSE what is yours to decide. Then:\n";
    out += "#   pipeline check FILE      whether the file, the delta and production fit together\n";
    out += "#   pipeline validate FILE   what is wrong with the data, without loading any of it\n";
    if drafted.sampled {
        let _infallible = writeln!(out, "# Of each table's files at most the first {SAMPLED} rows were looked at.");
    }
    for note in &drafted.notes {
        let _infallible = writeln!(out, "# NOTE: {}.", comment(note));
    }
    if !problems.is_empty() {
        out += "#\n# `pipeline check` does not pass yet:\n";
        for problem in problems {
            let _infallible = writeln!(out, "#   - {}", comment(problem));
        }
    }
    format!("{out}\n{}{}", drafted.head, drafted.body)
}

/// Everything before the tables.
pub(super) fn head(wanted: &ScaffoldOptions<'_>) -> String {
    let production =
        wanted.production.as_ref().map_or(String::new(), |schema| format!("  production: {}\n", value(schema)));
    format!(
        "version: 1
name: {}

target:
  url: {}
{production}
safeguards:
  max_rejects: 0              # rows of a table that may be kept out: a number, or a share such as 1%
  # backup: ./backups         # where the key map goes before anything is written

# Types, lengths, NOT NULL, UNIQUE, FOREIGN KEY and CHECK are read from production: nothing of that is repeated here.
# A column that is not named takes the source column of its own name.
tables:
",
        value(&wanted.name),
        // As it is: its template is meant.
        if wanted.url.starts_with("${") { wanted.url.clone() } else { value(&wanted.url) },
    )
}

/// One table.
pub(super) fn table(draft: &Draft<'_>, files: &Matched<'_>, has_delta: bool) -> String {
    let mut out = format!("  {}:\n", key(&draft.table.name));
    source(&mut out, draft, files, has_delta);
    legacy_key(&mut out, draft);
    key_line(&mut out, draft);
    columns(&mut out, draft);
    if !draft.relationships.is_empty() {
        let known = draft.relationships.iter().any(|reference| !reference.from.is_empty());
        out += if known { "    relationships:\n" } else { "    # relationships:\n" };
        for reference in &draft.relationships {
            relationship(&mut out, reference);
        }
    }
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
        Matched::One(files) => files.path.clone(),
        Matched::Several(choices) => {
            let names: Vec<_> = choices.iter().map(|files| files.path.as_str()).collect();
            match names.as_slice() {
                [one] => note(out, &format!("CHOOSE: `{one}` fits other tables as well")),
                names => note(out, &format!("CHOOSE: {} fit equally well", list(names))),
            }
            CHOOSE.to_owned()
        }
        Matched::None => {
            note(
                out,
                if has_delta {
                    "CHOOSE: no file of the folder fits by its name"
                } else {
                    "CHOOSE: a file, a folder or a glob"
                },
            );
            CHOOSE.to_owned()
        }
    };
    let _infallible = writeln!(out, "    source:\n      path: {}", value(&path));
    let Some(files) = draft.files else { return };
    let CsvSpec { delimiter, encoding, .. } = &files.csv;
    let mut csv = Vec::new();
    csv.extend(delimiter.map(|delimiter| format!("delimiter: {}", quoted(&delimiter.to_string()))));
    csv.extend((*encoding == Encoding::Latin1).then(|| "encoding: latin-1".to_owned()));
    if !draft.null_values.is_empty() && is_csv(&files.path) {
        let values = std::iter::once("").chain(draft.null_values.iter().copied()).map(quoted).collect::<Vec<_>>();
        csv.push(format!("null_values: [{}]", values.join(", ")));
    }
    if !csv.is_empty() {
        let _infallible = writeln!(out, "      csv: {{ {} }}", csv.join(", "));
    }
    if !draft.ignore.is_empty() {
        let _infallible =
            writeln!(out, "      # GUESS: nothing in production is called like these; are they really not needed?");
        let _infallible = writeln!(out, "      ignore: {}", names(&draft.ignore));
    }
}

fn is_csv(path: &str) -> bool {
    let path = path.to_lowercase();
    let path = path.strip_suffix(".gz").or_else(|| path.strip_suffix(".zst")).unwrap_or(&path);
    !["json", "jsonl", "ndjson", "parquet", "arrow", "arrows", "feather"].iter().any(|ending| path.ends_with(ending))
}

fn legacy_key(out: &mut String, draft: &Draft<'_>) {
    let more = match draft.legacy_choices.as_slice() {
        [] => String::new(),
        choices => format!("    # these tell rows apart as well: {}", comment(&choices.join(", "))),
    };
    if draft.legacy_key.is_empty() {
        note(
            out,
            "CHOOSE: no source column tells all rows apart; name those that identify a record in the legacy system",
        );
        let _infallible = writeln!(out, "    legacy_key: [{CHOOSE}]");
    } else if draft.files.is_none() {
        let _infallible = writeln!(
            out,
            "    # CHOOSE: the source columns that identify a record in the legacy system; this is what is unique in production\n    legacy_key: {}{more}",
            names(&draft.legacy_key)
        );
    } else {
        let _infallible = writeln!(out, "    legacy_key: {}{more}", names(&draft.legacy_key));
    }
}

fn key_line(out: &mut String, draft: &Draft<'_>) {
    match &draft.key {
        Key::Assigned(column, None) => {
            let _infallible =
                writeln!(out, "    key: {{ column: {} }}    # the next free numbers of production", value(column));
        }
        Key::Assigned(column, Some(text)) => {
            let prefix =
                if text.prefix.is_empty() { String::new() } else { format!(", prefix: {}", value(&text.prefix)) };
            let next = text.format(1).chars().count();
            let _infallible = writeln!(
                out,
                "    # GUESS: production's keys have {next} characters\n    key: {{ column: {}{prefix}, width: {} }}",
                value(column),
                text.width
            );
        }
        Key::Inherited(columns) => {
            let _infallible = writeln!(
                out,
                "    key: {{ inherited: {} }}    # the parent's new key, and the row's own",
                names(columns)
            );
        }
        Key::Own => {
            let key = draft.table.primary_key.join(", ");
            note(out, &format!("Rows bring their key ({key}); `key: {{ column: … }}` would have a new one made"));
        }
        Key::None => {
            note(out, "CHOOSE: production has no primary key here; name a unique column in `key: { column: … }`");
        }
    }
}

fn columns(out: &mut String, draft: &Draft<'_>) {
    let open: Vec<_> = draft.needed.iter().collect();
    if draft.columns.is_empty() && open.is_empty() {
        return unfilled(out, draft);
    }
    out.push_str(if draft.columns.is_empty() { "    # columns:\n" } else { "    columns:\n" });
    for line in &draft.columns {
        if let Some(guess) = &line.guess {
            let _infallible = writeln!(out, "      # GUESS: {}", comment(guess));
        }
        let _infallible = writeln!(out, "      {}: {}", key(&line.column), value(&line.sql));
    }
    for (column, perhaps) in open {
        let found = draft.table.column(column);
        let must = found.is_some_and(|column| column.not_null && !column.has_default);
        let why = if must { "production refuses rows without it" } else { "it may stay empty" };
        let perhaps: Vec<_> = perhaps.iter().map(|name| sql_name(name)).collect();
        let perhaps = match perhaps.as_slice() {
            [] => String::new(),
            names => format!("; perhaps out of {}", names.join(" or ")),
        };
        let _infallible =
            writeln!(out, "      # CHOOSE: {}: …    # {}", comment(&key(column)), comment(&format!("{why}{perhaps}")));
    }
    unfilled(out, draft);
}

fn unfilled(out: &mut String, draft: &Draft<'_>) {
    if !draft.unfilled.is_empty() {
        note(out, &format!("Nothing fills {}: production's default, or NULL.", draft.unfilled.join(", ")));
    }
}

fn relationship(out: &mut String, reference: &Relationship) {
    let by = reference.by.as_ref().map_or(String::new(), |by| format!(", by: {}", value(by)));
    let remark = reference.remark.as_ref().map_or(String::new(), |remark| format!("    # {}", comment(remark)));
    let (column, to) = (value(&reference.column), value(&reference.to));
    let _infallible = match reference.from.is_empty() {
        true => writeln!(out, "      # CHOOSE: - {{ column: {column}, from: [ … ], to: {to} }}{remark}"),
        false => {
            writeln!(out, "      - {{ column: {column}, from: {}, to: {to}{by} }}{remark}", names(&reference.from))
        }
    };
}

/// A list of names.
fn names(names: &[String]) -> String {
    format!("[{}]", names.iter().map(|name| value(name)).collect::<Vec<_>>().join(", "))
}

/// A text as a value of YAML, which is also no template.
pub(super) fn value(text: &str) -> String {
    key(&text.replace("${", "$${"))
}

/// A text as a key of YAML: as it is where it can be read as nothing else.
fn key(text: &str) -> String {
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

/// A text in double quotes; JSON's are YAML's, but for characters that YAML takes for line breaks or for none.
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

/// A text on one line, for a comment.
fn comment(text: &str) -> String {
    text.replace(|char: char| char.is_control(), "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_name_holds_it_reads_back_as_itself() {
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
