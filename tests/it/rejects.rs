//! The rejects of a run, mended, are a delta again.

use std::collections::BTreeMap;

use crate::support::{Place, assert_same, csv_dialect, csv_records, number, strings};

const DATABASE: &str = "pipelines/customer.db";

/// The reject file of a table as records by column, handed to `mend` one by one, and written as it was where a delta may lie.
fn mended(place: &Place, report: &serde_json::Value, table: &str, mend: impl Fn(&str, &mut BTreeMap<String, String>)) {
    let bytes = std::fs::read(place.rejects(report).join(format!("{table}.csv"))).unwrap();
    let (records, (delimiter, _)) = (csv_records(&bytes), csv_dialect(&bytes));
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
    writer.write_record(&records[0]).unwrap();
    for record in &records[1..] {
        let mut fields: BTreeMap<String, String> = records[0].iter().cloned().zip(record.iter().cloned()).collect();
        let file = fields["_reject_file"].rsplit('/').next().unwrap();
        let place = format!("{file}:{}", fields["_reject_line"]);
        mend(&place, &mut fields);
        writer.write_record(records[0].iter().map(|name| &fields[name])).unwrap();
    }
    let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
    let latin = std::str::from_utf8(&bytes).is_err();
    let mended = if latin { encoding_rs::WINDOWS_1252.encode(&text).0.into_owned() } else { text.into_bytes() };
    place.write(&format!("mended/{table}.csv"), mended);
}

#[test]
fn corrected_rejects_load_and_find_parents_of_both_runs() {
    let place = Place::samples();
    let report = place.report(&["run", "pipelines/customer-delta.yaml"], 0);
    mended(&place, &report, "person", |at, row| {
        let mut set = |name: &str, value: &str| assert!(row.insert(name.into(), value.into()).is_some(), "{name}");
        match at {
            "person-1.csv:26" => set("birth_date", "28.02.1968"),
            "person-1.csv:61" => set("name", "Neumann"),
            "person-1.csv:94" => set("name", "von Hohenlind"),
            "person-1.csv:143" => set("language", "en"),
            "person-1.csv:171" | "person-2.csv:75" => set("email", ""),
            "person-2.csv:97" => set("first_name", "Käthe"),
            "person-2.csv:206" => set("person_ref", "P-005266-2"),
            "person-2.csv:50" | "person-1.csv:225" => {}
            "person-1.csv:202" | "person-2.csv:133" | "person-2.csv:146" => {
                for (name, value) in [
                    ("birth_date", ""),
                    ("email", ""),
                    ("phone", ""),
                    ("language", "de"),
                    ("title", "Frau"),
                    ("note", "mended"),
                ] {
                    set(name, value);
                }
                set("first_name", "Ute");
                set("name", "Cut");
            }
            other => panic!("{other} is no planted reject"),
        }
    });
    mended(&place, &report, "account", |at, row| {
        let mut set = |name: &str, value: &str| assert!(row.insert(name.into(), value.into()).is_some(), "{name}");
        match at {
            "account.csv:54" => set("opened_on", "30.11.2023"),
            "account.csv:86" | "account.csv:305" | "account.csv:328" => set("credit_limit", "250.50"),
            "account.csv:110" => set("account_no", "71-7000001"),
            "account.csv:134" => set("account_no", "71-7000002"),
            "account.csv:201" => set("account_no", "71-7000003"),
            "account.csv:223" => set("account_no", "71-7000004"),
            "account.csv:155" => set("status", "blocked"),
            "account.csv:178" => set("closed_on", "03.05.2022"),
            "account.csv:415" => set("closed_on", "31.12.2024"),
            "account.csv:244" => set("person_ref", "P-004600"),
            "account.csv:266" => set("parent_ref", ""),
            _ => {}
        }
    });
    let pipeline = place
        .text("pipelines/customer-delta.yaml")
        .replace("../sample-data/customer/person-*.csv    #", "../mended/person.csv  #")
        .replace("../sample-data/customer/account.csv", "../mended/account.csv");
    place.write("pipelines/mended.yaml", pipeline);
    let before = place.production(DATABASE);

    let again = place.report(&["run", "pipelines/mended.yaml", "--select", "person,account"], 0);
    let counts = |at: usize| ["read", "rejected", "inserted"].map(|field| again["tables"][at][field].as_u64().unwrap());
    assert_eq!([counts(0), counts(1)], [[13, 0, 13], [19, 0, 19]], "{again:#}");
    assert_eq!(
        again["tables"][0]["keys"],
        serde_json::json!(["102888", "102900"]),
        "keys go on where the first run ended"
    );

    let database = place.open(DATABASE);
    let person_of = |account: &str| {
        let sql = format!(
            "SELECT m.legacy_key FROM delta_key_map_account a JOIN account USING (account_id)
             JOIN delta_key_map_person m USING (person_id) WHERE a.legacy_key = '{account}'"
        );
        strings(&database, &sql).remove(0)
    };
    assert_eq!(person_of("A-88045"), "P-004774", "a parent that was mended too");
    assert_eq!(person_of("A-88052"), "P-004756", "a parent of the first run, found in the key map");
    let after = place.production(DATABASE);
    for (table, rows) in &before {
        let added = after[table].len() - rows.len();
        assert_eq!(
            added,
            [("person", 13), ("account", 19)].iter().find(|(name, _)| name == table).map_or(0, |(_, count)| *count)
        );
        assert!(rows.iter().all(|row| after[table].binary_search(row).is_ok()), "{table}");
    }
    assert_eq!(number(&database, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

#[test]
fn uncorrected_rejects_are_rejected_again() {
    let place = Place::new();
    place.database("r.db", "CREATE TABLE t (t_id INTEGER PRIMARY KEY, n INTEGER NOT NULL);");
    let pipeline =
        "version: 1\nname: r\ntarget: { url: 'sqlite:r.db' }\nsafeguards: { max_rejects: 90% }\ntables:\n  t:
    source: { path: FILE }\n    legacy_key: [ref]\n    key: { column: t_id }\n";
    place.write("t.csv", "ref,n\nA,1\nB,x\nC,\n");
    place.write("p.yaml", pipeline.replace("FILE", "t.csv"));
    let report = place.report(&["run", "p.yaml"], 0);
    let before = place.everything("r.db");
    for file in ["t.csv", "t.parquet"] {
        place.write("again.yaml", pipeline.replace("FILE", place.rejects(&report).join(file).to_str().unwrap()));
        let again = place.report(&["run", "again.yaml"], 1);
        assert_eq!(again["tables"][0]["rejected"], 2, "{file}");
        assert_same(&place.everything("r.db"), &before);
    }
}

#[test]
fn a_reference_to_a_row_that_is_skipped_never_becomes_null() {
    let place = Place::new();
    place.database(
        "s.db",
        "CREATE TABLE t (t_id INTEGER PRIMARY KEY, code TEXT UNIQUE, boss_id INTEGER REFERENCES t (t_id));
         INSERT INTO t VALUES (7, 'there', NULL);",
    );
    place.write(
        "p.yaml",
        "version: 1\nname: s\ntarget: { url: 'sqlite:s.db' }\nsafeguards: { max_rejects: 90% }\ntables:\n  t:
    source: { path: t.csv }\n    legacy_key: [ref]\n    key: { column: t_id }\n    existing: skip
    relationships:\n      - { column: boss_id, from: [boss], to: t }\n",
    );
    place.write("t.csv", "ref,code,boss\nA,new,B\nB,there,\nC,other,\n");
    place.pipeline(&["run", "p.yaml"]).passes();
    let wrong = number(&place.open("s.db"), "SELECT count(*) FROM t WHERE code = 'new' AND boss_id IS NULL");
    assert_eq!(wrong, 0, "A refers to B, which production has as 7: it is 7 or A is rejected, but not NULL");
}
