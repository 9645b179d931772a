//! Whole commands in this process, with access to their results.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::explain;
use crate::error::Error;
use crate::run::{self, CommandOptions, LoadOptions, RunContext};
use crate::target::Access;

const PRODUCTION: &str = "\
CREATE TABLE item (item_id INTEGER PRIMARY KEY, ref TEXT NOT NULL, status TEXT, price NUMERIC(6,2), made TEXT);";

fn write(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs::write(folder.join(name), text).unwrap();
}

async fn open(folder: &Path, vars: &[(&str, &str)], access: Access) -> Result<RunContext, Error> {
    let vars: BTreeMap<_, _> = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    RunContext::open(&CommandOptions { vars, ..CommandOptions::new(folder.join("p.yaml")) }, access).await
}

/// Collects the files of a folder and its subfolders, except for the given names.
fn files(folder: &Path, except: &[&str], found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if except.iter().any(|name| path.ends_with(name)) {
        } else if path.is_dir() {
            files(&path, except, found);
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

fn text_of(error: &Error) -> String {
    let problems = error.problems().map(|problems| problems.render(false)).unwrap_or_default();
    format!("{error} {:?} {problems}", error.next_step())
}

const DIRTY: &str = "\
version: 1
name: dirty
target: { url: \"sqlite:x.db\", create_from: production.sql }
tables:
  item:
    source: { path: item.csv, csv: { delimiter: \";\", quote: \"'\", encoding: latin-1, null_values: [\"-\"] } }
    legacy_key: [ref]
    key: { column: item_id }
    checks:
      - not_null: [status]
    max_rejects: 100%
";

#[tokio::test]
async fn corrected_rejects_are_read_with_the_same_settings() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "production.sql", PRODUCTION);
    write(folder, "p.yaml", DIRTY);
    fs::write(
        folder.join("item.csv"),
        b"ref;status;price;made\ngood1;'';1;x\ncut;A\nM\xFCller;-;2;''\n'semi;colon';-;3;'two\nlines'\n",
    )
    .unwrap();
    let session = open(folder, &[], Access::Read).await.unwrap();
    let report = run::validate(&session, &crate::progress::NoopListener).await.unwrap();
    assert_eq!((report.tables[0].read, report.tables[0].rejected, report.tables[0].accepted), (4, 3, 1));

    let rejects = session.output.join(&report.run).join("rejects/item.csv");
    let text = fs::read(&rejects).unwrap();
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    assert!(lines[0].starts_with(b"ref;status;price;made;_reject_file;"), "{}", String::from_utf8_lossy(&text));
    // In line order. The unreadable record and the first row have the same number, and must not be mixed up.
    assert!(lines[1].starts_with(b"cut;A;-;-;item.csv;3;parse;"), "{}", String::from_utf8_lossy(&text));
    assert!(
        lines[2].starts_with(b"M\xFCller;-;2;;item.csv;4;not_null(status);status;"),
        "{}",
        String::from_utf8_lossy(&text)
    );

    let corrected = String::from_utf8(text.iter().map(|byte| if *byte == 0xFC { b'u' } else { *byte }).collect());
    let corrected = corrected.unwrap().replace("Muller;-;", "Muller;B;").replace("'semi;colon';-;", "'semi;colon';C;");
    write(folder, "item.csv", &corrected);
    let session = open(folder, &[], Access::Write).await.unwrap();
    let report = run::run(&session, LoadOptions::default(), &crate::progress::NoopListener).await.unwrap();
    assert_eq!((report.tables[0].read, report.tables[0].rejected, report.tables[0].inserted), (3, 0, 3));
}

#[tokio::test]
async fn an_unreadable_record_does_not_mark_a_row_as_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "production.sql", PRODUCTION);
    write(folder, "p.yaml", DIRTY);
    write(folder, "item.csv", "ref;status;price;made\nfirst;-;1;x\ncut\n");
    let session = open(folder, &[], Access::Read).await.unwrap();
    let report = run::validate(&session, &crate::progress::NoopListener).await.unwrap();
    let text = fs::read_to_string(session.output.join(&report.run).join("rejects/item.csv")).unwrap();
    assert!(text.lines().nth(1).unwrap().contains(";2;not_null(status);"), "{text}");
    assert!(text.lines().nth(2).unwrap().contains(";3;parse;"), "{text}");
}

/// Variables for different parts of the pipeline file, each with a unique value.
const CANARIES: [(&str, &str); 9] = [
    ("DB", "CanaryBase"),
    ("IN", "canary_source"),
    ("OUT", "canary-output"),
    ("SALT", "canarysalt"),
    ("VALUE", "canaryvalue"),
    ("PATTERN", "canarypattern"),
    ("CHECK", "canarycheck"),
    ("LIMIT", "canarylimit"),
    ("REASON", "canaryreason"),
];

const SECRETIVE: &str = "\
version: 1
name: secretive
output: ${OUT}
target: { url: \"sqlite:${DB}/x.db\", create_from: production.sql }
tables:
  item:
    source: { path: \"${IN}/item.csv\" }
    legacy_key: [ref]
    key: { column: item_id }
    columns:
      status: concat(status, '${SALT}')
      price: \"CAST(concat(price, CASE WHEN ref = 'bad' THEN '${LIMIT}' ELSE '' END) AS DOUBLE)\"
    checks:
      - accepted_values: { column: status, values: [\"A${SALT}\", \"${VALUE}\"] }
      - matches: { column: made, pattern: \"^(x|${PATTERN})$\" }
      - expression: status <> '${CHECK}'
      - expression: made <> 'y'
        name: ${REASON}
    max_rejects: 100%
";

fn assert_silent(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    // The target is named by its database, wherever the name comes from.
    for (_, value) in CANARIES.iter().filter(|(name, _)| *name != "DB") {
        assert!(!text.contains(&value.to_lowercase()), "{what} contains {value}: {text}");
    }
}

#[tokio::test]
async fn values_from_the_environment_are_never_printed_or_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "production.sql", PRODUCTION);
    write(folder, "p.yaml", SECRETIVE);
    fs::create_dir_all(folder.join("CanaryBase")).unwrap();
    let clean = "ref,status,price,made\na,A,1,x\n";
    write(folder, "canary_source/item.csv", &format!("{clean}b,B,1,x\nc,A,1,z\nd,A,1,y\nbad,A,1,x\n\"cut,\n"));
    let session = open(folder, &CANARIES, Access::Write).await.unwrap();
    assert_silent("explain", session.compiled.secrets.mask(&explain::text(&session, None)).as_bytes());
    let report = run::run(&session, LoadOptions::default(), &crate::progress::NoopListener).await.unwrap();
    assert_eq!((report.tables[0].inserted, report.tables[0].rejected), (1, 5));
    assert_silent("the report", crate::report::text(&report, None).as_bytes());
    assert_silent("the report as JSON", serde_json::to_string(&report).unwrap().as_bytes());
    let records = session.target.runs().await.unwrap();
    assert_silent("the run's row", format!("{records:?}").as_bytes());

    // All files that the run wrote; the database itself is in an excluded folder.
    let mut found = Vec::new();
    files(folder, &["canary_source", "CanaryBase", "p.yaml"], &mut found);
    assert!(found.iter().any(|(name, _)| name.ends_with("rejects/item.csv")), "{found:?}");
    for (name, bytes) in &found {
        assert_silent(name.rsplit('/').next().unwrap(), bytes);
    }

    // Errors: a file that was loaded before, then problems in every part of the pipeline file.
    let error = run::run(&session, LoadOptions::default(), &crate::progress::NoopListener).await.unwrap_err();
    assert_silent("an error", text_of(&error.masked(&session.compiled.secrets)).as_bytes());
    for (place, broken) in [
        ("${IN}/item.csv", "${IN}/${SALT}.csv"),
        ("x.db\", create_from: production.sql", "y.db\", create_from: \"${SALT}.sql\""),
        ("concat(status, '${SALT}')", "${SALT} + 1"),
        ("concat(status, '${SALT}')", "no_such_function(${SALT})"),
        ("concat(status, '${SALT}')", "'${SALT}' ("),
        ("pattern: \"^(x|", "pattern: \"^((x|"),
        ("column: made", "column: ${CHECK}"),
        ("legacy_key: [ref]", "legacy_key: [\"${CHECK}\"]"),
        ("name: secretive", "name: \"${CHECK} x\""),
        ("max_rejects: 100%", "max_rejects: ${LIMIT}"),
        ("sqlite:${DB}", "${CHECK}:${DB}"),
        ("status <> '${CHECK}'", "${CHECK}"),
    ] {
        let text = SECRETIVE.replacen(place, broken, 1);
        assert_ne!(text, SECRETIVE);
        write(folder, "p.yaml", &text);
        let opened = open(folder, &CANARIES, Access::Read).await.map(|_| ());
        let error = opened.expect_err(broken);
        assert_silent(broken, text_of(&error).as_bytes());
    }
}
