use serde_json::{Value, json};

use super::*;

/// The problems of one table `a`, each as its place below the table and its message.
fn table(fields: Value) -> Vec<(String, String)> {
    let mut table = json!({ "source": { "path": "a.csv" }, "legacy_key": ["ref"] });
    for (name, value) in fields.as_object().unwrap() {
        table[name] = value.clone();
    }
    let found = file(json!({ "a": table }));
    found.into_iter().map(|(at, message)| (at.strip_prefix("tables.a.").unwrap().to_owned(), message)).collect()
}

fn file(tables: Value) -> Vec<(String, String)> {
    spec(json!({ "version": 1, "name": "demo", "target": { "url": "sqlite:x" }, "tables": tables }))
}

fn spec(spec: Value) -> Vec<(String, String)> {
    let mut problems = Problems::default();
    check(&serde_json::from_value(spec).unwrap(), &mut problems);
    problems.list.into_iter().map(|problem| (problem.at.join("."), problem.message)).collect()
}

fn one(at: &str, message: &str) -> Vec<(String, String)> {
    vec![(at.to_owned(), message.to_owned())]
}

fn checks(check: Value) -> Vec<(String, String)> {
    table(json!({ "checks": [check] }))
}

fn csv(csv: Value) -> Vec<(String, String)> {
    table(json!({ "source": { "path": "a.csv", "csv": csv } }))
}

#[test]
fn a_file_that_breaks_no_rule_has_no_problem() {
    let tables = json!({
        "a": {
            "source": { "path": "a", "csv": { "header": false, "names": ["ref"], "delimiter": ";" } },
            "legacy_key": ["ref"],
            "key": { "column": "id", "prefix": "A", "width": 5 },
            "relationships": [{ "column": "parent", "to": "a" }, { "column": "p", "to": "part", "by": "no" }],
            "checks": [{ "range": { "column": "x", "min": "2020-01-01", "max": 5 } }, { "length": { "column": "x", "max": 3 } }]
        }
    });
    assert_eq!(file(tables), []);
}

#[test]
fn the_version_is_1() {
    let found = spec(
        json!({ "version": 2, "name": "x", "target": { "url": "" }, "tables": { "a": { "source": { "path": "a" }, "legacy_key": ["r"] } } }),
    );
    assert_eq!(found, one("version", "unsupported version 2: expected 1"));
}

#[test]
fn a_name_has_plain_characters_and_at_most_63() {
    for (name, fits) in [
        ("a-B_9", true),
        (&"x".repeat(63), true),
        (&"x".repeat(64), false),
        ("", false),
        ("ä", false),
        ("a b", false),
        ("a\n", false),
    ] {
        let found = spec(
            json!({ "version": 1, "name": name, "target": { "url": "" }, "tables": { "a": { "source": { "path": "a" }, "legacy_key": ["r"] } } }),
        );
        assert_eq!(found.is_empty(), fits, "{name}: {found:?}");
    }
}

#[test]
fn there_is_at_least_one_table() {
    assert_eq!(file(json!({})), one("tables", "no table to load"));
}

#[test]
fn a_check_has_exactly_one_kind() {
    assert_eq!(checks(json!({ "name": "x" })), one("checks.0", "a check requires a kind"));
    let found = checks(json!({ "unique": ["a"], "sql": "SELECT 1" }));
    assert_eq!(found, one("checks.0", "`unique` and `sql` are mutually exclusive"));
}

#[test]
fn columns_and_select_exclude_each_other() {
    let found = table(json!({ "columns": { "a": "b" }, "select": "SELECT 1" }));
    assert_eq!(found, one("select", "`columns` and `select` are mutually exclusive"));
}

#[test]
fn a_key_is_its_own_or_inherited() {
    assert_eq!(table(json!({ "key": {} })), one("key", "a key requires `column` or `inherited`"));
    let found = table(json!({ "key": { "column": "a", "inherited": ["b"] } }));
    assert_eq!(found, one("key.inherited", "`column` and `inherited` are mutually exclusive"));
    assert_eq!(table(json!({ "key": { "column": " " } })), one("key.column", "`column` is empty"));
}

#[test]
fn a_prefix_needs_a_width_with_room_for_a_number() {
    let found = table(json!({ "key": { "column": "a", "prefix": "P" } }));
    assert_eq!(found, one("key.prefix", "a key with a prefix requires `width`"));
    let found = table(json!({ "key": { "column": "a", "prefix": "ÄÖ", "width": 2 } }));
    assert_eq!(found, one("key.width", "`width` 2 leaves no room for a number after a prefix of 2 characters"));
    assert_eq!(table(json!({ "key": { "column": "a", "width": 0 } })).len(), 1);
}

#[test]
fn an_inherited_key_is_not_counted() {
    let found = table(json!({ "key": { "inherited": ["a", "b"], "prefix": "P", "width": 5, "start_row_number": 7 } }));
    let places: Vec<_> = found.iter().map(|(at, _)| at.as_str()).collect();
    assert_eq!(places, ["key.prefix", "key.width", "key.start_row_number"]);
    assert_eq!(found[0].1, "`prefix` has no effect on an inherited key");
    assert_eq!(table(json!({ "key": { "inherited": ["a", "b"] } })), []);
}

#[test]
fn a_window_opens_and_its_zone_is_known() {
    let window = |more: Value| {
        let mut window = json!({ "from": "22:00", "to": "06:00", "timezone": "Europe/Berlin" });
        for (name, value) in more.as_object().unwrap() {
            window[name] = value.clone();
        }
        let tables = json!({ "a": { "source": { "path": "a.csv" }, "legacy_key": ["ref"] } });
        spec(
            json!({ "version": 1, "name": "demo", "target": { "url": "sqlite:x" }, "safeguards": { "window": window }, "tables": tables }),
        )
    };
    assert_eq!(window(json!({})), []);
    assert_eq!(window(json!({ "days": ["sat", "sun"], "timezone": "UTC" })), []);
    let found = window(json!({ "days": [] }));
    assert_eq!(found, one("safeguards.window.days", "a window without days never opens"));
    let found = window(json!({ "days": ["sat", "sun", "sat"] }));
    assert_eq!(found, one("safeguards.window.days.2", "duplicate day"));
    let found = window(json!({ "to": "22:00" }));
    assert_eq!(found, one("safeguards.window.to", "a window from 22:00 to 22:00 never opens"));
    for zone in ["Europe/Belin", "CEST+2", "", "Etc/Unknown"] {
        let found = window(json!({ "timezone": zone }));
        assert_eq!(found, one("safeguards.window.timezone", &format!("unknown time zone `{zone}`")));
    }
}

#[test]
fn a_list_of_columns_names_each_once() {
    let twice = |at: &str| one(at, "duplicate column `x`");
    assert_eq!(checks(json!({ "unique": ["x", "y", "x"] })), twice("checks.0.unique.2"));
    assert_eq!(checks(json!({ "not_null": ["x", "x"] })), twice("checks.0.not_null.1"));
    assert_eq!(table(json!({ "legacy_key": ["x", "x"] })), twice("legacy_key.1"));
    assert_eq!(table(json!({ "key": { "inherited": ["x", "x"] } })), twice("key.inherited.1"));
}

#[test]
fn files_have_a_header_or_names() {
    assert_eq!(csv(json!({ "header": false })), one("source.csv.header", "files without a header require `names`"));
    assert_eq!(csv(json!({ "names": ["a"] })), []);
    assert_eq!(csv(json!({ "header_lines": 0 })), one("source.csv.header_lines", "a header has at least one line"));
    assert_eq!(csv(json!({ "decimal": "" })), one("source.csv.decimal", "invalid decimal ``: expected one character"));
}

#[test]
fn delimiter_and_quote_are_different_ascii_characters() {
    assert_eq!(
        csv(json!({ "delimiter": "§" })),
        one("source.csv.delimiter", "invalid delimiter `§`: expected an ASCII character")
    );
    assert_eq!(csv(json!({ "quote": "“" })), one("source.csv.quote", "invalid quote `“`: expected an ASCII character"));
    assert_eq!(
        csv(json!({ "delimiter": "\"" })),
        one("source.csv.delimiter", "`\"` is both the delimiter and the quote")
    );
    assert_eq!(csv(json!({ "delimiter": "\n" })), one("source.csv.delimiter", "invalid delimiter: a line break"));
}

#[test]
fn range_and_length_have_a_bound_and_allow_a_value() {
    for kind in ["range", "length"] {
        let found = checks(json!({ kind: { "column": "x" } }));
        assert_eq!(found, one(&format!("checks.0.{kind}"), "a check with bounds requires `min`, `max`, or both"));
        let found = checks(json!({ kind: { "column": "x", "min": 10, "max": 9 } }));
        assert_eq!(found, one(&format!("checks.0.{kind}.min"), "`min` is greater than `max`"));
        assert_eq!(checks(json!({ kind: { "column": "x", "min": 9, "max": 9 } })), []);
    }
    assert_eq!(checks(json!({ "range": { "column": "x", "min": "b", "max": "a" } })), []);
}

#[test]
fn a_check_names_its_columns_and_values() {
    assert_eq!(
        checks(json!({ "range": { "column": "", "min": 1 } })),
        one("checks.0.range.column", "`column` is empty")
    );
    assert_eq!(checks(json!({ "not_null": [] })), one("checks.0.not_null", "`not_null` has no columns"));
    assert_eq!(
        checks(json!({ "accepted_values": { "column": "x", "values": [] } })),
        one("checks.0.accepted_values.values", "the list of accepted values is empty")
    );
    assert_eq!(
        checks(json!({ "matches": { "column": "x", "pattern": "" } })),
        one("checks.0.matches.pattern", "`pattern` is empty")
    );
    assert_eq!(checks(json!({ "expression": " " })), one("checks.0.expression", "`expression` is empty"));
}

#[test]
fn a_table_has_a_source_and_a_legacy_key() {
    assert_eq!(table(json!({ "legacy_key": [] })), one("legacy_key", "the legacy key has no columns"));
    assert_eq!(table(json!({ "source": { "path": "" } })), one("source.path", "the path of the source is empty"));
}

#[test]
fn a_column_is_one_reference_only() {
    let found = table(
        json!({ "relationships": [{ "column": "x", "to": "p" }, { "column": "y", "to": "p" }, { "column": "x", "to": "q" }] }),
    );
    assert_eq!(found, one("relationships.2.column", "duplicate reference for column `x`"));
    let found = table(json!({ "relationships": [{ "column": "", "to": "" }] }));
    assert_eq!(found.len(), 2, "{found:?}");
}

fn fixed(fixed: Value) -> Vec<(String, String)> {
    let found = table(json!({ "source": { "path": "a.dat", "format": "fixed", "fixed": fixed } }));
    found.into_iter().map(|(at, message)| (at.strip_prefix("source.fixed.").unwrap().to_owned(), message)).collect()
}

#[test]
fn layouts_that_no_record_can_have_are_reported() {
    let field = |field: Value| fixed(json!({ "records": "rdw", "fields": { "n": field } }));
    assert_eq!(fixed(json!({})), one("fields", "fixed-width files require `fields`"));
    assert_eq!(field(json!({ "at": 1, "width": 3 })), []);
    assert_eq!(field(json!({ "at": 0, "width": 3 })), one("fields.n.at", "positions are counted from 1"));
    assert_eq!(field(json!({ "at": 1, "width": 0 })), one("fields.n.width", "a field has at least one byte"));
    let binary = json!({ "at": 1, "width": 9, "type": "binary" });
    assert_eq!(field(binary), one("fields.n.width", "a binary number has 1–8 bytes"));
    let long = json!({ "at": 1, "width": 30, "type": "packed" });
    assert_eq!(field(long), one("fields.n.width", "a number has at most 38 digits, not 59"));
    let sign = json!({ "at": 1, "width": 1, "type": "zoned", "sign": "leading_separate" });
    assert_eq!(field(sign), one("fields.n.width", "the number has no digit"));
    let scaled = json!({ "at": 1, "width": 1, "scale": 2 });
    assert_eq!(field(scaled), one("fields.n.scale", "`scale` has no effect on text"));
    let packed = json!({ "fields": { "n": { "at": 1, "width": 2, "type": "packed" } } });
    assert_eq!(fixed(packed), one("fields.n.type", "packed and binary numbers can contain the bytes of line ends"));
    let no_length = json!({ "records": "length", "fields": { "n": { "at": 1, "width": 2 } } });
    assert_eq!(fixed(no_length), one("records", "records of equal length require `length`"));
    let short = json!({ "length": 5, "fields": { "n": { "at": 4, "width": 3 } } });
    assert_eq!(fixed(short), one("fields.n.width", "the field ends at byte 6, but `length` is 5"));
    let wide = json!({ "encoding": "utf-16le", "fields": { "n": { "at": 4, "width": 3 } } });
    assert_eq!(fixed(wide), one("encoding", "`utf-16le` cannot be the encoding of fixed-width files"));
    let when = json!({ "when": { "m": ["A"] }, "fields": { "n": { "at": 1, "width": 1 } } });
    assert_eq!(fixed(when), one("when.m", "unknown field `m`"));
    let when = json!({ "when": { "n": ["A"] }, "fields": { "n": { "at": 1, "width": 1, "type": "zoned" } } });
    assert_eq!(fixed(when), one("when.n", "`A` is not a number, as the field is"));
    let csv = table(json!({ "source": { "path": "a.csv", "fixed": { "fields": { "n": { "at": 1, "width": 1 } } } } }));
    assert_eq!(csv, one("source.fixed", "`fixed` has no effect without `format: fixed`"));
}
