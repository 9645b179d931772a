//! Files as legacy systems write them: what can be read is loaded exactly, and nothing else goes unseen.

use arrow::array::{ArrayRef, Decimal128Array, IntervalMonthDayNanoArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::IntervalMonthDayNano;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use serde_json::Value;
use std::sync::Arc;

use crate::server::Server;
use crate::support::{Place, csv_records, number, strings};

/// A table of notes, and a delta with these settings of its source.
fn notes(file: &str, bytes: impl AsRef<[u8]>, source: &str, max_rejects: &str) -> Place {
    let place = Place::new();
    let sql = "CREATE TABLE note (note_id INTEGER PRIMARY KEY, id TEXT, body TEXT, amount DECIMAL(12,2), at TIMESTAMP)";
    place.database("notes.db", sql);
    place.write(file, bytes);
    place.write(
        "p.yaml",
        format!(
            "version: 1\nname: notes\ntarget: {{ url: 'sqlite:notes.db' }}\nsafeguards: {{ max_rejects: {max_rejects} }}\n\
             tables:\n  note:\n    source: {{ path: {file}{source} }}\n    legacy_key: [id]\n    key: {{ column: note_id }}\n"
        ),
    );
    place
}

const ROWS: &str =
    "SELECT id || '|' || coalesce(body, 'NULL') || '|' || coalesce(amount, 'NULL') FROM note ORDER BY note_id";

fn loads(place: &Place) -> (Value, Vec<String>) {
    let report = place.report(&["run", "p.yaml"], 0);
    (report, strings(&place.open("notes.db"), ROWS))
}

fn swallowing(opened: &str, closed: &str) -> String {
    let line = |row: u64| match row {
        500 => opened.to_owned(),
        1500 => closed.to_owned(),
        row => format!("{row},text {row},1"),
    };
    std::iter::once("id,body,amount".to_owned()).chain((1..=2000).map(line)).map(|line| line + "\n").collect()
}

#[test]
fn a_stray_quote_takes_no_other_row_with_it() {
    for closed in ["1500,\"a \"\"quoted\"\" one\",1", "1500,plain,1", "1500,5\",1"] {
        let place = notes("n.csv", swallowing("500,\"open,1", closed), "", "1%");
        let (report, rows) = loads(&place);
        assert_eq!((rows.len(), &report["tables"][0]["read"]), (1999, &2000.into()), "{closed}");
        let rejects = csv_records(&std::fs::read(place.rejects(&report).join("note.csv")).unwrap());
        assert_eq!(rejects.len(), 2);
        assert!(rejects[1].contains(&"501".to_owned()), "{rejects:?}");
    }
}

#[test]
fn lines_without_a_record_count_as_rejects() {
    let text = format!("id,body,amount\n1,\"open\n{}2,x,1\n3,y,1\n", "not a record\n".repeat(30));
    let place = notes("n.csv", &text, "", "10");
    let report = place.report(&["run", "p.yaml"], 1);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("lines 3–32 of `n.csv` belong to no record"), "{warnings}");
    assert_eq!(number(&place.open("notes.db"), "SELECT count(*) FROM note"), 0);
    let place = notes("n.csv", &text, "", "31");
    assert_eq!(loads(&place).1, ["2|x|1", "3|y|1"]);
    let place = notes("n.csv", &text, ", max_record_lines: 5", "31");
    assert_eq!(loads(&place).1, ["2|x|1", "3|y|1"]);
}

#[test]
fn dialects_of_real_exports_are_read_as_they_are() {
    for (text, csv) in [
        ("id|body|amount|\na|x|1|\nb|y|2|\n", "delimiter: '|', trailing_delimiter: true"),
        ("Report\n\nid,body,amount\na,x,1\nb,y,2\nTotal,,3\n\n", "skip_rows: 2, skip_footer: 1"),
        ("# made by hand\nid,body,amount\na,x,1\n# \"no quote\nb,y,2\n", "comment: '#'"),
        ("sep=;\nid;body;amount\na;x;1\nb;y;2\n", ""),
        ("id||body||amount\na||x||1\nb||y||2\n", "delimiter: '||'"),
        ("id,body,amount\na,x,1\nb,y,2,,\n", "ragged_rows: fill"),
        ("a,x,1\nb,y,2\n", "header: false, names: [id, body, amount]"),
        (",,\nid,body,amount\na,x,1\nb,y,2\n", "header_lines: 2"),
        ("X,Y,Z\na,x,1\nb,y,2\n", "names: [id, body, amount]"),
        ("id,body,body\na,x,1\nb,y,2\n", "rename: { 3: amount }"),
        ("id;body;amount\na;x;1,00\nb;y;2,00\n", "delimiter: ';', decimal: ',', thousands: '.'"),
    ] {
        let place = notes("n.csv", text, &format!(", csv: {{ {csv} }}"), "0");
        assert_eq!(loads(&place).1, ["a|x|1", "b|y|2"], "{text}");
    }
}

#[test]
fn a_quoted_empty_text_can_differ_from_nothing() {
    let text = "id,body,amount\na,\"\",1\nb,,2\nc,\"say \"\"hi\"\"\",3\n";
    let place = notes("n.csv", text, ", csv: { quoted_null: false }", "0");
    loads(&place);
    assert_eq!(number(&place.open("notes.db"), "SELECT count(*) FROM note WHERE body IS NULL"), 1);
    let place = notes("n.csv", "id,body,amount\na,say \\, \\\"hi\\\",1\n", ", csv: { escape: '\\' }", "0");
    assert_eq!(loads(&place).1, ["a|say , \"hi\"|1"]);
}

#[test]
fn a_wrong_dialect_or_encoding_is_named_with_the_right_one() {
    let latin = |text: &str| text.chars().map(|character| character as u8).collect::<Vec<_>>();
    for (bytes, csv, hint) in [
        (b"id;body;amount\na;x;1\n".to_vec(), "", "delimiter: \";\""),
        ("id,body\na,Größe\n".as_bytes().to_vec(), "encoding: latin-1", "encoding: utf-8"),
        (b"id,body\na,\x8DUK\xC3 KO\x8A\n".to_vec(), "encoding: latin-1", "windows-1250"),
        (latin("id,größe\na,x\n"), "", "encoding: windows-1252"),
        (b",id,body\n0,a,x\n".to_vec(), "", "rename: { 1: row_number }"),
        (b"id,body,body\na,x,y\n".to_vec(), "", "rename: { 3: body_2 }"),
    ] {
        let place = notes("n.csv", bytes, &format!(", csv: {{ {csv} }}"), "0");
        place.pipeline(&["run", "p.yaml"]).fails(66, &["n.csv", hint]);
    }
}

#[test]
fn blank_lines_of_one_column_are_values_or_counted() {
    for (csv, read, skipped) in [("", 4, 1), (", csv: { blank_lines: value }", 4, 0)] {
        let place = notes("n.csv", "id\na\n\nb\nc\n", csv, "100%");
        let (report, _) = loads(&place);
        let table = &report["tables"][0];
        assert_eq!((&table["read"], &table["skipped"]), (&read.into(), &skipped.into()), "{csv}");
    }
}

#[test]
fn json_is_read_in_any_layout() {
    for text in [
        "[{\"id\":\"a\",\"body\":\"x\",\"amount\":1},{\"id\":\"b\",\"body\":\"y\",\"amount\":2}]",
        "{\"id\":\"a\",\"body\":\"x\",\"amount\":1}{\"id\":\"b\",\"body\":\"y\",\"amount\":2}",
        "[\n  {\n    \"id\": \"a\",\n    \"body\": \"x\",\n    \"amount\": 1\n  },\n  {\n    \"id\": \"b\",\n    \"body\": \"y\",\n    \"amount\": 2\n  }\n]\n",
    ] {
        assert_eq!(loads(&notes("n.json", text, "", "0")).1, ["a|x|1", "b|y|2"], "{text}");
    }
    let nested = "{\"rows\":[{\"id\":\"a\",\"body\":\"x\",\"n\":{\"m\":1}}]}";
    let place = notes("n.json", nested, ", json: { records: rows, flatten: true }, ignore: [n.m]", "0");
    assert_eq!(loads(&place).1, ["a|x|NULL"]);
}

#[test]
fn a_wide_legacy_key_and_many_columns_are_planned() {
    let names: Vec<String> = (0..300).map(|at| format!("c{at}")).collect();
    let place = notes("n.csv", format!("id,{0}\na,{0}\n", names.join(",")), ", ignore: ['*']", "0");
    let text = place.text("p.yaml").replace("[id]", &format!("[id, {}]", names.join(", ")));
    place.write("p.yaml", text);
    assert_eq!(loads(&place).1, ["a|NULL|NULL"]);
}

fn stream(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

#[test]
fn a_decimal_beyond_its_type_rejects_its_row() {
    let amounts =
        Decimal128Array::from(vec![1250, 1_234_567]).with_data_type(arrow::datatypes::DataType::Decimal128(4, 2));
    let bytes = stream(vec![("id", Arc::new(StringArray::from(vec!["a", "b"]))), ("amount", Arc::new(amounts))]);
    let place = notes("n.arrow", bytes, "", "1");
    assert_eq!(loads(&place).1, ["a|NULL|12.5"]);
}

#[test]
fn an_interval_of_a_rejected_row_is_written_as_text() {
    let interval = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3); 2]);
    let bytes = stream(vec![
        ("id", Arc::new(StringArray::from(vec![Some("a"), None]))),
        ("body", Arc::new(interval) as ArrayRef),
    ]);
    let place = notes("n.arrow", bytes, ", ignore: []", "1");
    let (report, rows) = loads(&place);
    assert_eq!(rows.len(), 1);
    assert!(place.rejects(&report).join("note.parquet").exists());
}

/// The rows of a table with and without a zone on PostgreSQL.
#[test]
fn times_without_a_zone_need_one_that_the_user_sets() {
    let database = Server::shared().database(
        "CREATE TABLE event (event_id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, ref text, at timestamptz)",
    );
    let place = Place::new();
    let text = "ref,at\nwinter,2020-01-15 12:00:00\ngap,2020-03-29 02:30:00\ntwice,2020-10-25 02:30:00\nzulu,2020-06-19T06:15:00Z\n";
    place.write("e.csv", text);
    let times = TimestampMicrosecondArray::from(vec![1_579_089_600_000_000, 1_585_449_000_000_000]);
    let typed =
        stream(vec![("ref", Arc::new(StringArray::from(vec!["winter", "gap"]))), ("at", Arc::new(times) as ArrayRef)]);
    place.write("e.arrow", typed);
    for (source, accepted) in [
        ("{ path: e.csv }", 1),
        ("{ path: e.csv, timezone: Europe/Berlin }", 2),
        ("{ path: e.csv, timezone: { at: Europe/Berlin } }", 2),
        ("{ path: e.csv, timezone: UTC }", 4),
        ("{ path: e.arrow }", 0),
        ("{ path: e.arrow, timezone: Europe/Berlin }", 1),
    ] {
        place.write(
            "p.yaml",
            format!(
                "version: 1\nname: events\ntarget: {{ url: '{}' }}\nsafeguards: {{ max_rejects: 100% }}\ntables:\n  event:\n    \
                 source: {source}\n    legacy_key: [ref]\n    key: {{ column: event_id }}\n",
                database.url()
            ),
        );
        let report = place.report(&["validate", "p.yaml"], 0);
        assert_eq!(report["tables"][0]["accepted"], accepted, "{source}");
    }
}
