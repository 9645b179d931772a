//! Fixed-width and mainframe files, from the bytes to the rows in production.

use serde_json::Value;

use crate::support::{Place, csv_records, ordered_rows};

/// A text in EBCDIC of code page 273.
fn ebcdic(text: &str) -> Vec<u8> {
    let byte = |char: char| match char {
        'A'..='I' => char as u8 - b'A' + 0xC1,
        'J'..='R' => char as u8 - b'J' + 0xD1,
        'S'..='Z' => char as u8 - b'S' + 0xE2,
        'a'..='i' => char as u8 - b'a' + 0x81,
        'j'..='r' => char as u8 - b'j' + 0x91,
        's'..='z' => char as u8 - b's' + 0xA2,
        '0'..='9' => char as u8 - b'0' + 0xF0,
        ' ' => 0x40,
        'ü' => 0xD0,
        other => panic!("{other}"),
    };
    text.chars().map(byte).collect()
}

/// A packed decimal of a width in bytes.
fn packed(number: i64, width: usize) -> Vec<u8> {
    let sign = if number < 0 { 'D' } else { 'C' };
    let halves = format!("{:0>digits$}{sign}", number.abs(), digits = width * 2 - 1);
    (0..width).map(|at| u8::from_str_radix(&halves[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn described(records: &[Vec<u8>]) -> Vec<u8> {
    let word = |record: &Vec<u8>| [&((record.len() + 4) as u16).to_be_bytes()[..], &[0, 0], record].concat();
    records.iter().flat_map(word).collect()
}

/// A record of type C: 1 + 6 + 10 + 4 bytes.
fn customer(number: u32, name: &str, balance: i64) -> Vec<u8> {
    [ebcdic(&format!("C{number:06}{name:<10}")), packed(balance, 4)].concat()
}

/// A record of type A: 1 + 6 + 6 + 2 bytes. The last byte of the amount has the sign.
fn account(owner: u32, amount: i32, units: i16) -> Vec<u8> {
    let mut bytes = ebcdic(&format!("A{owner:06}{:06}", amount.abs()));
    bytes[12] = bytes[12] & 0x0F | if amount < 0 { 0xD0 } else { 0xC0 };
    [bytes, units.to_be_bytes().to_vec()].concat()
}

fn master() -> Vec<Vec<u8>> {
    vec![
        ebcdic("H20260101"),
        customer(1, "Müller", 1050),
        account(1, -123_456, 7),
        account(1, 99, -1),
        customer(2, "Smith", -5),
        account(2, 0, 0),
        ebcdic("T000005"),
    ]
}

const TABLES: &str = "CREATE TABLE customer (customer_id INTEGER PRIMARY KEY, number INTEGER NOT NULL, \
     name TEXT NOT NULL, balance DECIMAL(7,2) NOT NULL);
     CREATE TABLE account (account_id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer, \
     amount DECIMAL(6,2) NOT NULL, units INTEGER NOT NULL);";

const PIPELINE: &str = "\
version: 1
name: master
target: { url: 'sqlite:master.db' }
safeguards: { max_rejects: REJECTS }
tables:
  customer:
    source:
      path: MASTER.DAT
      format: fixed
      ignore: [kind]
      fixed:
        records: rdw
        encoding: ibm273
        when: { kind: [C] }
        fields:
          kind: { at: 1, width: 1 }
          number: { at: 2, width: 6, type: zoned, signed: false }
          name: { at: 8, width: 10 }
          balance: { at: 18, width: 4, type: packed, scale: 2 }
    legacy_key: [number]
    key: { column: customer_id }
  account:
    source:
      path: MASTER.DAT
      format: fixed
      ignore: [kind]
      fixed:
        records: rdw
        encoding: ibm273
        when: { kind: [A] }
        fields:
          kind: { at: 1, width: 1 }
          owner: { at: 2, width: 6, type: zoned, signed: false }
          amount: { at: 8, width: 6, type: zoned, scale: 2 }
          units: { at: 14, width: 2, type: binary }
    legacy_key: [owner, amount]
    key: { column: account_id }
    relationships:
      - { column: customer_id, from: [owner], to: customer }
";

fn place(bytes: &[u8], rejects: &str) -> Place {
    let place = Place::new();
    place.database("master.db", TABLES);
    place.write("MASTER.DAT", bytes);
    place.write("p.yaml", PIPELINE.replace("REJECTS", rejects));
    place
}

/// The customers and the accounts in production.
fn loaded(place: &Place) -> [Vec<String>; 2] {
    let rows = |sql| ordered_rows(&place.open("master.db"), sql);
    [
        rows("SELECT number, name, balance FROM customer ORDER BY number"),
        rows("SELECT number, amount, units FROM account JOIN customer USING (customer_id) ORDER BY number, amount"),
    ]
}

fn counts(report: &Value) -> Vec<[u64; 4]> {
    let count = |table: &Value| ["read", "rejected", "skipped", "inserted"].map(|name| table[name].as_u64().unwrap());
    report["tables"].as_array().unwrap().iter().map(count).collect()
}

/// The lines and reasons of a table's rejects.
fn rejected(place: &Place, report: &Value, table: &str) -> Vec<[String; 4]> {
    let path = place.rejects(report).join(format!("{table}.csv"));
    let records = csv_records(&std::fs::read(path).unwrap());
    let column = |name: &str| records[0].iter().position(|column| column == name).unwrap();
    let about = ["_reject_file", "_reject_line", "_reject_reason", "_reject_raw"].map(column);
    records[1..].iter().map(|record| about.map(|at| record[at].clone())).collect()
}

#[test]
fn record_types_of_a_mainframe_file_fill_two_tables() {
    let place = place(&described(&master()), "0");
    let report = place.report(&["run", "p.yaml"], 0);
    assert_eq!(counts(&report), [[7, 0, 5, 2], [7, 0, 4, 3]]);
    let [customers, accounts] = loaded(&place);
    assert_eq!(customers, ["1|'Müller'|10.5", "2|'Smith'|-0.05"]);
    assert_eq!(accounts, ["1|-1234.56|7", "1|0.99|-1", "2|0|0"]);
}

#[test]
fn broken_records_are_rejected_alone_with_their_place() {
    let mut records = master();
    records[1][20] = 0x33;
    records[3][9] = 0x40;
    records[4].pop();
    let place = place(&described(&records), "2");
    let report = place.report(&["run", "p.yaml"], 1);
    assert_eq!(counts(&report), [[7, 2, 5, 0], [7, 3, 4, 0]]);
    let customers = rejected(&place, &report, "customer");
    let expected = [
        ("2", "column \"balance\" is not a packed number: invalid sign in byte 21 (bytes 18–21: 00 01 05 33)"),
        ("5", "20 bytes, a record has 21"),
    ];
    assert_eq!(customers.iter().map(|[_, line, why, _]| (line.as_str(), why.as_str())).collect::<Vec<_>>(), expected);
    assert_eq!(customers[0][0], "MASTER.DAT");
    let hex: String = records[1].iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(customers[0][3], format!("\\x{hex}"));
    let accounts = rejected(&place, &report, "account");
    let why = "column \"amount\" is not a zoned number: invalid digit in byte 10 (bytes 8–13: F0 F0 40 F0 F9 C9)";
    assert!(accounts.iter().any(|[_, line, reason, _]| line == "4" && reason == why), "{accounts:?}");
}

#[test]
fn a_truncated_file_rejects_its_last_record() {
    let records = master();
    let bytes = described(&records[..6]);
    let whole = bytes.len();
    for missing in 1..4 + records[5].len() {
        let place = place(&bytes[..whole - missing], "1");
        let report = place.report(&["run", "p.yaml"], 0);
        assert_eq!(counts(&report), [[6, 1, 3, 2], [6, 1, 3, 2]], "{missing}");
        let [[_, line, why, _]] = &rejected(&place, &report, "account")[..] else { panic!("{missing}") };
        assert_eq!(line, "6");
        assert!(why.starts_with("the file ends after"), "{why}");
    }
}

#[test]
fn a_damaged_descriptor_word_loads_nothing() {
    let mut bytes = described(&master());
    bytes[13 + 3] = 9;
    let place = place(&bytes, "100%");
    let why = "`MASTER.DAT`: record 2 cannot be read, nor those behind it: an invalid record descriptor word";
    place.pipeline(&["run", "p.yaml"]).fails(66, &[why, "check `fixed.records`"]);
    assert_eq!(loaded(&place), [Vec::<String>::new(), Vec::new()]);
}

#[test]
fn the_same_text_is_read_by_lines_and_compressed() {
    let lines = "0001Ann       +0001250\n0002Bob       -0000005\n\n0003          +0000000\n";
    let fixed = "fixed: { fields: { id: { at: 1, width: 4 }, body: { at: 5, width: 10 }, \
         amount: { at: 15, width: 8, type: zoned, scale: 2, sign: leading_separate } } }";
    let packed = zstd::encode_all(lines.as_bytes(), 0).unwrap();
    for (name, bytes) in [("notes.txt", lines.as_bytes()), ("notes.txt.zst", &packed)] {
        let place = Place::new();
        place.database(
            "n.db",
            "CREATE TABLE note (note_id INTEGER PRIMARY KEY, id TEXT, body TEXT, amount DECIMAL(9,2))",
        );
        place.write(name, bytes);
        place.write(
            "p.yaml",
            format!(
                "version: 1\nname: notes\ntarget: {{ url: 'sqlite:n.db' }}\ntables:\n  note:\n    source: {{ path: {name}, \
                 format: fixed, {fixed} }}\n    legacy_key: [id]\n    key: {{ column: note_id }}\n"
            ),
        );
        let report = place.report(&["run", "p.yaml"], 0);
        assert_eq!(counts(&report), [[4, 0, 1, 3]]);
        let rows = ordered_rows(&place.open("n.db"), "SELECT id, body, amount FROM note ORDER BY id");
        assert_eq!(rows, ["'0001'|'Ann'|12.5", "'0002'|'Bob'|-0.05", "'0003'|NULL|0"]);
    }
}

const COPYBOOK: &str = "\
000100 01  CUSTOMER-REC.                                                CUST0001
000200     05  KIND              PIC X.                                 CUST0002
000300         88  IS-CUSTOMER   VALUE 'C'.                             CUST0003
000400     05  CUSTOMER-NUMBER   PIC 9(6).                              CUST0004
000500     05  NAME              PIC X(10).                             CUST0005
000600     05  NAME-PARTS        REDEFINES NAME.                        CUST0006
000700         10  FIRST-NAME    PIC X(4).                              CUST0007
000800         10  LAST-NAME     PIC X(6).                              CUST0008
000900     05  BALANCE           PIC S9(5)V99 COMP-3.                   CUST0009
";

#[test]
fn a_copybook_drafts_a_pipeline_file_that_runs() {
    let place = Place::new();
    place.database(
        "c.db",
        "CREATE TABLE customer (customer_id INTEGER PRIMARY KEY, customer_number TEXT NOT NULL UNIQUE, \
         name TEXT NOT NULL, balance DECIMAL(7,2) NOT NULL)",
    );
    place.write("CUST.CPY", COPYBOOK);
    let records: Vec<Vec<u8>> = (1..=40).map(|number| customer(number, "Name", i64::from(number) * -100)).collect();
    place.write("in/CUSTDATA.BIN", described(&records));
    let init = ["init", "--from", "sqlite:c.db", "--table", "customer=in/CUSTDATA.BIN", "--copybook", "CUST.CPY"];
    place.pipeline(&[&init[..], &["-o", "c.yaml"]].concat()).passes();
    let text = place.text("c.yaml");
    for line in [
        "      format: fixed",
        "        records: rdw",
        "        length: 21",
        "        encoding: ibm037",
        "          kind: { at: 1, width: 1 }",
        "          # 88 IS-CUSTOMER: 'C'",
        "          customer_number: { at: 2, width: 6, type: zoned, signed: false }",
        "          # NAME-PARTS redefines NAME; to read it, use these fields in place of those:",
        "          # first_name: { at: 8, width: 4 }",
        "          balance: { at: 18, width: 4, type: packed, scale: 2 }",
        "      ignore: [kind]",
        "    legacy_key: [customer_number]",
    ] {
        let is_line = |other: &str| other == line || other.starts_with(&format!("{line}    #"));
        assert!(text.lines().any(is_line), "{line} is not in\n{text}");
    }
    let report = place.report(&["run", "c.yaml"], 0);
    assert_eq!(counts(&report), [[40, 0, 0, 40]]);
    let rows = ordered_rows(&place.open("c.db"), "SELECT customer_number, name, balance FROM customer LIMIT 1");
    assert_eq!(rows, ["'1'|'Name'|-1"]);
    let alone = place.pipeline(&["init", "--copybook", "CUST.CPY"]);
    alone.passes();
    assert!(alone.stdout.contains("  customer_rec:\n    source:\n      path: CHOOSE\n      format: fixed\n"));
    assert!(alone.stdout.contains("        records: length\n        length: 21\n"), "{}", alone.stdout);
    place.write("BAD.CPY", COPYBOOK.replace("PIC S9(5)V99 COMP-3.", "COMP-2.             "));
    place.pipeline(&["init", "--copybook", "BAD.CPY"]).fails(66, &["`BAD.CPY`, line 9, column 34: USAGE COMP-2"]);
}
