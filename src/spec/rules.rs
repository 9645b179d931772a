//! Rules of the pipeline file that need neither data nor target.

mod fixed;

use std::collections::HashSet;

use super::model::{CheckSpec, KeySpec, PipelineSpec, SequenceNumbers, TableSpec, UuidVersion, WindowSpec};
use super::read::{nearest, short};
use super::source::{CsvSpec, PerColumn, SourceSpec};
use super::value::{Scalar, StartRowNumber};
use crate::diagnostic::{Path, Problems};
use crate::path;

/// The supported version of the file format.
const VERSION: u32 = 1;

/// The maximum length of a pipeline's name: it becomes part of names that PostgreSQL truncates.
const MAX_NAME: usize = 63;

/// Adds a problem for each rule that the file breaks.
pub(super) fn check(spec: &PipelineSpec, problems: &mut Problems) {
    if spec.version != VERSION {
        problems.add(path!["version"], format_args!("unsupported version {}: expected {VERSION}", spec.version));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if spec.name.is_empty() || spec.name.len() > MAX_NAME || !spec.name.chars().all(is_plain) {
        problems.add_with_hint(
            path!["name"],
            format_args!("invalid pipeline name: `{}`", short(&spec.name)),
            format_args!("use 1–{MAX_NAME} letters, digits, `-` and `_`"),
        );
    }
    if let Some(window) = &spec.safeguards.window {
        check_window(&path!["safeguards", "window"], window, problems);
    }
    if let Some(backup) = &spec.safeguards.backup {
        check_backup(backup, problems);
    }
    if spec.tables.is_empty() {
        problems.add(path!["tables"], "no table to load");
    }
    if let Some(namespace) = &spec.key_map.namespace
        && (namespace.is_empty() || namespace.len() > MAX_NAME || !namespace.chars().all(is_plain))
    {
        problems.add_with_hint(
            path!["key_map", "namespace"],
            format_args!("invalid namespace: `{}`", short(namespace)),
            format!("use 1–{MAX_NAME} letters, digits, `-` and `_`, for example the name of the legacy system"),
        );
    }
    for (name, table) in spec.tables.iter() {
        check_table(&path!["tables", name], table, problems);
    }
}

fn check_window(at: &Path, window: &WindowSpec, problems: &mut Problems) {
    if let Some(days) = &window.days {
        if days.is_empty() {
            problems.add_with_hint(
                under(at, &["days"]),
                "a window without days never opens",
                "list days, such as `[sat, sun]`, or remove `days` for every day",
            );
        }
        let mut seen = HashSet::new();
        for (index, _) in days.iter().enumerate().filter(|(_, day)| !seen.insert(**day)) {
            problems.add(under(at, &["days", &index.to_string()]), "duplicate day");
        }
    }
    if window.from == window.to {
        problems.add_with_hint(
            under(at, &["to"]),
            format_args!("a window from {} to {} never opens", window.from, window.to),
            "change a time, or remove `window` to load at any time",
        );
    }
    let zone = window.timezone.as_str();
    if !jiff::tz::TimeZone::get(zone).is_ok_and(|zone| !zone.is_unknown()) {
        let known: Vec<_> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let lower: Vec<_> = known.iter().map(|name| name.to_lowercase()).collect();
        let lower: Vec<_> = lower.iter().map(String::as_str).collect();
        let near = nearest(zone, &lower).and_then(|near| lower.iter().position(|name| *name == near));
        problems.add_with_hint(
            under(at, &["timezone"]),
            format_args!("unknown time zone `{}`", short(zone)),
            match near.and_then(|near| known.get(near)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write its IANA name, such as `Europe/Berlin` or `UTC`".to_owned(),
            },
        );
    }
}

/// The URL schemes of backup stores.
const STORES: [&str; 10] = ["file", "s3", "s3a", "gs", "az", "abfs", "abfss", "adl", "https", "http"];

/// Adds problems of a store's URL. Shows no more of it than its scheme, because it may contain a key.
fn check_backup(backup: &str, problems: &mut Problems) {
    let at = path!["safeguards", "backup"];
    match backup.split_once("://") {
        None if backup.trim().is_empty() => {
            problems.add_with_hint(at, "the backup store is empty", "give a folder, for example `./backups`");
        }
        Some((scheme, _)) if !STORES.contains(&scheme) => problems.add_with_hint(
            at,
            format_args!("unsupported URL scheme: `{}://`", short(scheme)),
            format_args!("give a folder, or a URL with one of the schemes {}", STORES.join(", ")),
        ),
        Some((scheme, rest)) if scheme != "file" && rest.contains(['@', '?', '#']) => problems.add_with_hint(
            at,
            "the URL of a store must not contain a user, a key, or a query",
            "set credentials in the environment: AWS_…, GOOGLE_…, AZURE_…",
        ),
        _ => {}
    }
}

fn check_table(at: &Path, table: &TableSpec, problems: &mut Problems) {
    let under = |names: &[&str]| under(at, names);
    if table.source.path.trim().is_empty() {
        problems.add(under(&["source", "path"]), "the path of the source is empty");
    }
    check_source(&under(&["source"]), &table.source, problems);
    if table.legacy_key.is_empty() {
        problems.add_with_hint(
            under(&["legacy_key"]),
            "the legacy key has no columns",
            "list the source columns that identify a record in the legacy system",
        );
    }
    check_once(&under(&["legacy_key"]), &table.legacy_key, problems);
    if let Some(key) = &table.key {
        check_key(&under(&["key"]), key, problems);
    }
    if table.select.is_some() && !table.columns.is_empty() {
        problems.add_with_hint(
            under(&["select"]),
            "`columns` and `select` are mutually exclusive",
            "move the expressions of `columns` into the `SELECT`, or remove `select`",
        );
    }
    let mut seen = HashSet::new();
    for (index, relationship) in table.relationships.iter().enumerate() {
        let at = under(&["relationships", &index.to_string()]);
        check_filled(&at, "to", &relationship.to, problems);
        check_names(&at, "column", &relationship.column, problems);
        if let Some(by) = &relationship.by {
            check_names(&at, "by", by, problems);
        } else if relationship.r#where.is_some() {
            problems.add_with_hint(
                self::under(&at, &["where"]),
                "`where` requires `by`",
                "a legacy key identifies one row; remove `where`, or look the row up `by` its values",
            );
        }
        for column in relationship.column.iter().filter(|column| !column.is_empty() && !seen.insert(*column)) {
            let message = format!("duplicate reference for column `{}`", short(column));
            let hint = "name a column that several foreign keys share in the first of them only";
            problems.add_with_hint(self::under(&at, &["column"]), message, hint);
        }
    }
    for (index, check) in table.checks.iter().enumerate() {
        check_check(&under(&["checks", &index.to_string()]), check, problems);
    }
}

fn check_source(at: &Path, source: &SourceSpec, problems: &mut Problems) {
    if source.max_record_lines == 0 {
        problems.add(under(at, &["max_record_lines"]), "a record has at least one line");
    }
    for zone in source.timezone.iter().flat_map(PerColumn::texts) {
        if jiff::tz::TimeZone::get(zone).is_err() {
            problems.add_with_hint(
                under(at, &["timezone"]),
                format_args!("unknown time zone `{}`", short(zone)),
                "use a name such as `Europe/Berlin` or `UTC`",
            );
        }
    }
    let csv = under(at, &["csv"]);
    check_csv(&csv, &source.csv, problems);
    check_number_characters(&csv, &source.csv, problems);
    fixed::check(at, source, problems);
}

fn check_csv(at: &Path, csv: &CsvSpec, problems: &mut Problems) {
    let mut one_byte = |field: &str, c: char| {
        if !c.is_ascii() {
            problems.add(under(at, &[field]), format_args!("invalid {field} `{c}`: expected an ASCII character"));
        } else if matches!(c, '\n' | '\r') {
            problems.add(under(at, &[field]), format_args!("invalid {field}: a line break"));
        }
    };
    for character in csv.delimiter.iter().flat_map(|delimiter| delimiter.chars()) {
        one_byte("delimiter", character);
    }
    for (field, character) in [("quote", csv.quote), ("escape", csv.escape), ("comment", csv.comment)] {
        if let Some(character) = character {
            one_byte(field, character);
        }
    }
    if let Some(delimiter) = &csv.delimiter {
        if delimiter.is_empty() {
            problems.add(under(at, &["delimiter"]), "a delimiter has at least one character");
        }
        if let Some(quote) = csv.quote.filter(|quote| delimiter.contains(*quote)) {
            problems.add(under(at, &["delimiter"]), format_args!("`{quote}` is both the delimiter and the quote"));
        }
    }
    if csv.header_lines == 0 {
        problems.add_with_hint(
            under(at, &["header_lines"]),
            "a header has at least one line",
            "for files without a header, set `header: false` and `names`",
        );
    }
    if !csv.header && csv.names.is_empty() {
        problems.add_with_hint(
            under(at, &["header"]),
            "files without a header require `names`",
            "list the columns in order: `names: [a, b, c]`",
        );
    }
}

/// Checks the characters within numbers.
fn check_number_characters(at: &Path, csv: &CsvSpec, problems: &mut Problems) {
    for (field, setting) in [("decimal", &csv.decimal), ("thousands", &csv.thousands)] {
        for text in setting.iter().flat_map(PerColumn::texts) {
            let mut characters = text.chars();
            let one = characters.next().filter(|char| !char.is_ascii_alphanumeric() && !matches!(char, '+' | '-'));
            if one.is_none() || characters.next().is_some() {
                let message = format_args!("invalid {field} `{}`: expected one character", short(text)).to_string();
                problems.add_with_hint(under(at, &[field]), message, "use a character such as `,`, `.`, or `'`");
            }
        }
    }
    if let (Some(PerColumn::All(decimal)), Some(PerColumn::All(thousands))) = (&csv.decimal, &csv.thousands)
        && decimal == thousands
    {
        problems.add(under(at, &["thousands"]), format_args!("`{}` is also the decimal character", short(decimal)));
    }
}

fn check_key(at: &Path, key: &KeySpec, problems: &mut Problems) {
    match (&key.column, key.inherited.is_empty()) {
        (None, true) => problems.add(at.clone(), "a key requires `column` or `inherited`"),
        (Some(_), false) => problems.add(under(at, &["inherited"]), "`column` and `inherited` are mutually exclusive"),
        _ => {}
    }
    if let Some(column) = &key.column {
        check_filled(at, "column", column, problems);
    }
    if !key.inherited.is_empty() {
        check_once(&under(at, &["inherited"]), &key.inherited, problems);
        if key.column.is_none() {
            let has_start = key.start_row_number != StartRowNumber::Auto;
            let given = [
                ("prefix", key.prefix.is_some()),
                ("width", key.width.is_some()),
                ("start_row_number", has_start),
                ("sequence", key.sequence.is_some()),
                ("numbers", key.numbers != SequenceNumbers::default()),
                ("uuid", key.uuid.is_some()),
                ("uuid_namespace", key.uuid_namespace.is_some()),
            ];
            for (field, _) in given.into_iter().filter(|(_, given)| *given) {
                problems.add_with_hint(
                    under(at, &[field]),
                    format_args!("`{field}` has no effect on an inherited key"),
                    "remove it, or assign keys with `column` instead",
                );
            }
            return;
        }
    }
    if let Some(sequence) = &key.sequence {
        check_filled(at, "sequence", sequence, problems);
    }
    check_uuid(at, key, problems);
    let prefix = key.prefix.as_deref().unwrap_or_default();
    let length = prefix.chars().count();
    match key.width {
        None if key.prefix.is_some() => problems.add_with_hint(
            under(at, &["prefix"]),
            "a key with a prefix requires `width`",
            "set `width` to the length of the key, prefix included",
        ),
        Some(width) if width <= length => problems.add(
            under(at, &["width"]),
            format_args!("`width` {width} leaves no room for a number after a prefix of {length} characters"),
        ),
        _ => {}
    }
}

/// Checks the settings of keys that are UUIDs.
fn check_uuid(at: &Path, key: &KeySpec, problems: &mut Problems) {
    if key.uuid.is_some() {
        let given = [
            ("prefix", key.prefix.is_some()),
            ("width", key.width.is_some()),
            ("start_row_number", key.start_row_number != StartRowNumber::Auto),
            ("sequence", key.sequence.is_some()),
        ];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            problems.add_with_hint(
                under(at, &[field]),
                format_args!("`{field}` has no effect on a key that is a UUID"),
                "remove it, or remove `uuid`",
            );
        }
    }
    let Some(namespace) = &key.uuid_namespace else { return };
    let at = under(at, &["uuid_namespace"]);
    if matches!(key.uuid, Some(UuidVersion::V4 | UuidVersion::V7)) {
        problems.add_with_hint(at, "`uuid_namespace` applies only to `uuid: v5`", "remove it");
    } else if !is_uuid(namespace) {
        let message = format_args!("invalid UUID: `{}`", short(namespace)).to_string();
        problems.add_with_hint(at, message, "write it as 8-4-4-4-12 hexadecimal digits");
    }
}

/// Returns whether a text is a UUID in its usual notation.
pub(crate) fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Returns the kinds of checks, each with whether it is given.
fn kinds(check: &CheckSpec) -> [(&'static str, bool); 8] {
    [
        ("not_null", check.not_null.is_some()),
        ("unique", check.unique.is_some()),
        ("accepted_values", check.accepted_values.is_some()),
        ("range", check.range.is_some()),
        ("matches", check.matches.is_some()),
        ("length", check.length.is_some()),
        ("expression", check.expression.is_some()),
        ("sql", check.sql.is_some()),
    ]
}

fn check_check(at: &Path, check: &CheckSpec, problems: &mut Problems) {
    let all = kinds(check);
    let given: Vec<&str> = all.iter().filter(|(_, given)| *given).map(|(kind, _)| *kind).collect();
    match given.as_slice() {
        [] => {
            let all: Vec<_> = all.iter().map(|(kind, _)| format!("`{kind}`")).collect();
            problems.add_with_hint(
                at.clone(),
                "a check requires a kind",
                format_args!("add one of {}", all.join(", ")),
            );
        }
        [_] => {}
        [first, second, ..] => problems.add_with_hint(
            at.clone(),
            format_args!("`{first}` and `{second}` are mutually exclusive"),
            "write two checks",
        ),
    }
    for (kind, columns) in [("not_null", &check.not_null), ("unique", &check.unique)] {
        let Some(columns) = columns else { continue };
        if columns.is_empty() {
            problems.add(under(at, &[kind]), format_args!("`{kind}` has no columns"));
        }
        check_once(&under(at, &[kind]), columns, problems);
    }
    if let Some(accepted) = &check.accepted_values {
        let at = under(at, &["accepted_values"]);
        check_filled(&at, "column", &accepted.column, problems);
        if accepted.values.is_empty() {
            problems.add(under(&at, &["values"]), "the list of accepted values is empty");
        }
    }
    if let Some(matches) = &check.matches {
        let at = under(at, &["matches"]);
        check_filled(&at, "column", &matches.column, problems);
        check_filled(&at, "pattern", &matches.pattern, problems);
    }
    if let Some(range) = &check.range {
        let at = under(at, &["range"]);
        check_filled(&at, "column", &range.column, problems);
        let number = |bound: &Option<Scalar>| bound.as_ref().and_then(|bound| bound.0.trim().parse::<f64>().ok());
        let is_empty = matches!((number(&range.min), number(&range.max)), (Some(min), Some(max)) if min > max);
        check_bounds(&at, range.min.is_some() || range.max.is_some(), is_empty, problems);
    }
    if let Some(length) = &check.length {
        let at = under(at, &["length"]);
        check_filled(&at, "column", &length.column, problems);
        let is_empty = matches!((length.min, length.max), (Some(min), Some(max)) if min > max);
        check_bounds(&at, length.min.is_some() || length.max.is_some(), is_empty, problems);
    }
    for (field, text) in
        [("expression", &check.expression), ("sql", &check.sql), ("where", &check.r#where), ("name", &check.name)]
    {
        if let Some(text) = text {
            check_filled(at, field, text, problems);
        }
    }
}

fn check_bounds(at: &Path, is_bounded: bool, is_empty: bool, problems: &mut Problems) {
    if !is_bounded {
        problems.add(at.clone(), "a check with bounds requires `min`, `max`, or both");
    } else if is_empty {
        problems.add(under(at, &["min"]), "`min` is greater than `max`");
    }
}

/// Adds a problem for each duplicate in a list of columns.
fn check_once(at: &Path, columns: &[String], problems: &mut Problems) {
    let mut seen = HashSet::new();
    for (index, column) in columns.iter().enumerate().filter(|(_, column)| !seen.insert(*column)) {
        problems.add(under(at, &[&index.to_string()]), format_args!("duplicate column `{}`", short(column)));
    }
}

/// Adds a problem for an empty list of names, and for each empty name.
fn check_names(at: &Path, field: &str, names: &[String], problems: &mut Problems) {
    if names.is_empty() {
        problems.add(under(at, &[field]), format_args!("`{field}` is empty"));
    }
    for name in names {
        check_filled(at, field, name, problems);
    }
}

fn check_filled(at: &Path, field: &str, text: &str, problems: &mut Problems) {
    if text.trim().is_empty() {
        problems.add(under(at, &[field]), format_args!("`{field}` is empty"));
    }
}

fn under(at: &Path, names: &[&str]) -> Path {
    at.iter().cloned().chain(names.iter().map(ToString::to_string)).collect()
}

#[cfg(test)]
mod tests;
