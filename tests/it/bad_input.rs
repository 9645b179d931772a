//! What is wrong from outside (files, databases, SQL of a user) ends in a message with its place and a next step, in the
//! exit code of whose fault it is, and with production as it was.

use std::io::Write as _;

use crate::support::{Place, Ran, assert_same, csv_records, number, rows};

const DATABASE: &str = "shop.db";

/// A shop with two customers.
fn shop() -> Place {
    let place = Place::new();
    place.database(
        DATABASE,
        "CREATE TABLE customer (customer_id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL, city TEXT, paid INTEGER);
         INSERT INTO customer VALUES (1, 'Ada', 'Bonn', 5), (2, 'Bo', NULL, NULL);",
    );
    place.write("p.yaml", PIPELINE);
    place
}

const PIPELINE: &str = "\
version: 1
name: shop
target: { url: 'sqlite:shop.db' }
safeguards: { max_rejects: 50% }
tables:
  customer:
    source: { path: customer.csv }
    legacy_key: [ref]
    key: { column: customer_id }
";

/// The shop with a delta.
fn shop_with(csv: impl AsRef<[u8]>) -> Place {
    let place = shop();
    place.write("customer.csv", csv);
    place
}

/// Runs the pipeline and holds that the database has every table and row as before, and none more.
fn refused(place: &Place, code: i32, texts: &[&str]) -> Ran {
    let before = place.everything(DATABASE);
    let ran = place.pipeline(&["run", "p.yaml"]);
    ran.fails(code, texts);
    let (error, hint) =
        (ran.stderr.contains("error: "), ran.stderr.contains("hint: ") || ran.stderr.contains("= help: "));
    assert!(error && hint, "an error and a next step are in\n{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert_same(&place.everything(DATABASE), &before);
    ran
}

/// Runs the pipeline; gives what the new rows hold, by key.
fn loaded(place: &Place) -> Vec<String> {
    place.pipeline(&["run", "p.yaml"]).passes();
    rows(&place.open(DATABASE), "SELECT * FROM customer WHERE customer_id > 2")
}

/// Runs the pipeline; gives line, check and reason of every reject.
fn rejected(place: &Place) -> Vec<String> {
    let report = place.report(&["run", "p.yaml"], 0);
    let records = csv_records(&std::fs::read(place.rejects(&report).join("customer.csv")).unwrap());
    let at = |name: &str| records[0].iter().position(|column| column == name).unwrap();
    let [line, check, reason] = ["_reject_line", "_reject_check", "_reject_reason"].map(at);
    records[1..].iter().map(|record| format!("{} {}: {}", record[line], record[check], record[reason])).collect()
}

#[test]
fn a_csv_with_a_byte_order_mark_loads_as_without() {
    assert_eq!(loaded(&shop_with("\u{feff}ref,name,city,paid\nX1,Cy,Köln,7\n")), ["3|'Cy'|'Köln'|7"]);
}

#[test]
fn ragged_rows_are_rejected_by_line_and_the_others_load() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\nX2,Di\nX3,Ed,Ulm,1,2\nX4,Fi,,\n");
    let rejects = rejected(&place);
    assert_eq!(rejects.len(), 2, "{rejects:?}");
    assert!(rejects[0].starts_with("3 parse: 2 fields") && rejects[1].starts_with("4 parse: 5 fields"), "{rejects:?}");
    let new = rows(&place.open(DATABASE), "SELECT * FROM customer WHERE customer_id > 2");
    assert_eq!(new, ["3|'Cy'|'Ulm'|7", "4|'Fi'|NULL|NULL"]);
}

#[test]
fn line_break_in_field_is_kept_and_lines_are_counted_on() {
    let place = shop_with("ref,name,city,paid\r\nX1,\"C\r\ny\",\"a\n\nb\",7\r\nX2,Di,Ulm,much\r\nX3,Ed,Ulm,9\r\n");
    assert_eq!(rejected(&place), ["6 cast(paid): expected an integer"]);
    let text: String = place
        .open(DATABASE)
        .query_row("SELECT name || city FROM customer WHERE paid = 7", [], |row| row.get(0))
        .unwrap();
    assert_eq!(text, "C\r\nya\n\nb");
}

#[test]
fn invalid_utf_8_and_nul_are_rejected_by_line() {
    let place = shop_with(b"ref,name,city,paid\nX1,Cy,K\xf6ln,7\nX2,D\0i,Ulm,7\nX3,Ed,Ulm,9\nX4,Ed,Ulm,9\n");
    let rejects = rejected(&place);
    assert!(rejects[0].starts_with("2 parse: ") && rejects[0].contains("not UTF-8 (byte 0xF6)"), "{rejects:?}");
    assert!(rejects[1].starts_with("3 parse: ") && rejects[1].contains("NUL"), "{rejects:?}");
    assert_eq!(rejects.len(), 2);
}

#[test]
fn rejects_of_json_keep_empty_texts_and_null() {
    let place = shop();
    let source = |source: &str| place.write("p.yaml", PIPELINE.replace("{ path: customer.csv }", source));
    source("{ path: customer.json }");
    let rows = |paid: &str| {
        format!(
            "[{{\"ref\":\"A\",\"name\":\"\",\"city\":null,\"paid\":{paid}}},{{\"ref\":\"B\",\"name\":\"Bo\",\"city\":\"\",\"paid\":1}}]"
        )
    };
    place.write("customer.json", rows("\"much\""));
    let report = place.report(&["validate", "p.yaml"], 0);
    let rejects = std::fs::read_to_string(place.rejects(&report).join("customer.csv")).unwrap();
    assert!(rejects.contains("\nA,\"\",,much,customer.json,"), "{rejects}");
    place.write("customer.csv", rejects.replace(",much,", ",3,"));
    source("{ path: customer.csv, csv: { quoted_null: false } }");
    assert_eq!(loaded(&place), ["3|''|NULL|3"]);
}

#[test]
fn an_empty_file_is_refused_as_input() {
    refused(&shop_with(""), 66, &["`customer.csv`", "empty"]);
}

#[test]
fn header_without_rows_loads_nothing_and_may_come_again() {
    let place = shop_with("ref,name,city,paid\n");
    let before = place.everything(DATABASE);
    for _ in 0..2 {
        let ran = place.pipeline(&["run", "p.yaml"]);
        assert!(ran.passes().stdout.contains("nothing to load") && ran.stdout.contains("the files contain no rows"));
        assert_same(&place.everything(DATABASE), &before);
    }
    place.write("customer.csv", "ref,name,city,paid\nX1,Cy,Ulm,7\n");
    assert_eq!(loaded(&place).len(), 1);
}

#[test]
fn missing_column_is_reported_with_place_and_columns() {
    refused(
        &shop_with("ref,city,paid\nX1,Ulm,7\n"),
        78,
        &["p.yaml:6", "nothing fills the NOT NULL column `name`", "^"],
    );
    refused(&shop_with("name,city,paid\nCy,Ulm,7\n"), 78, &["p.yaml:8", "`ref`", "^"]);
}

#[test]
fn unused_column_is_reported_and_the_hint_names_ignore() {
    refused(&shop_with("ref,name,city,paid,mood\nX1,Cy,Ulm,7,good\n"), 78, &["p.yaml:7", "`mood`", "ignore"]);
}

#[test]
fn file_that_lacks_a_column_of_the_others_is_named() {
    let place = shop();
    place.write("p.yaml", PIPELINE.replace("customer.csv", "c-*.csv"));
    place.write("c-1.csv", "ref,name,city,paid\nX1,Cy,Ulm,7\n");
    place.write("c-2.csv", "ref,name,city\nX2,Di,Ulm\n");
    refused(&place, 66, &["`c-2.csv` lacks column", "paid"]);
}

#[test]
fn missing_file_is_reported_with_the_files_there_are() {
    let place = shop();
    place.write("costumer.csv", "ref,name\n");
    refused(&place, 66, &["`customer.csv` does not exist", "costumer.csv", "p.yaml:7"]);
}

#[test]
fn a_corrupt_parquet_file_is_refused_by_name() {
    let place = shop();
    place.write("p.yaml", PIPELINE.replace("customer.csv", "customer.parquet"));
    place.write("customer.parquet", "PAR1 this is no Parquet file PAR1");
    refused(&place, 66, &["`customer.parquet`", "Parquet"]);
    // A sound file whose pages are destroyed in the middle: its end, which has the schema, is in order.
    let sample = Place::samples();
    let mut bytes = std::fs::read(sample.path("sample-data/customer/service_point.parquet")).unwrap();
    bytes[600..6000].fill(0xA5);
    sample.write("sample-data/customer/service_point.parquet", bytes);
    let ran = sample.pipeline(&["run", "pipelines/customer-delta.yaml"]);
    ran.fails(66, &["service_point.parquet"]);
    let database = sample.open("pipelines/customer.db");
    assert_eq!(
        number(&database, "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'delta%' OR name LIKE 'staging%'"),
        0
    );
}

#[test]
fn a_cut_gzip_file_is_refused_by_name() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"ref,name,city,paid\n").unwrap();
    for row in 0..5000 {
        writeln!(gzip, "X{row},N{row},C{},{row}", row * 7919 % 997).unwrap();
    }
    let bytes = gzip.finish().unwrap();
    for kept in [5, bytes.len() / 2, bytes.len() - 4] {
        let place = shop();
        place.write("p.yaml", PIPELINE.replace("customer.csv", "customer.csv.gz"));
        place.write("customer.csv.gz", &bytes[..kept]);
        refused(&place, 66, &["`customer.csv.gz`"]);
    }
}

#[test]
fn keys_that_overflow_an_integer_are_refused_before_writing() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\nX2,Di,Ulm,7\n");
    let key = |start: &str| {
        PIPELINE.replace("column: customer_id", &format!("column: customer_id, start_row_number: {start}"))
    };
    place.write("p.yaml", key("9223372036854775807"));
    refused(&place, 77, &["`customer`", "overflow", "9223372036854775807"]);
    place.write("p.yaml", key("9223372036854775806"));
    let keys = loaded(&place);
    assert_eq!(keys, ["9223372036854775806|'Cy'|'Ulm'|7", "9223372036854775807|'Di'|'Ulm'|7"]);
}

#[test]
fn keys_wider_than_a_text_key_are_refused_before_writing() {
    let place = Place::new();
    place.database(DATABASE, "CREATE TABLE customer (customer_id CHAR(3) PRIMARY KEY NOT NULL, name TEXT); INSERT INTO customer VALUES ('C98', 'Ada');");
    place.write("p.yaml", PIPELINE.replace("column: customer_id", "column: customer_id, prefix: C, width: 3"));
    place.write("customer.csv", "ref,name\nX1,Cy\nX2,Di\n");
    refused(&place, 77, &["`customer`", "overflow", "99", "width"]);
    place.write("customer.csv", "ref,name\nX1,Cy\n");
    place.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(place.production(DATABASE)["customer"], ["'C98'|'Ada'", "'C99'|'Cy'"]);
}

#[test]
fn a_block_of_keys_that_touches_keys_in_use_is_refused() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\nX2,Di,Ulm,7\n");
    place.write("p.yaml", PIPELINE.replace("column: customer_id", "column: customer_id, start_row_number: 1"));
    refused(&place, 77, &["keys 1 to 2 of `customer` are not free", "in production"]);
}

#[test]
fn two_equal_legacy_keys_are_both_rejected_or_first_stays() {
    let csv = "ref,name,city,paid\nX1,Cy,Ulm,7\nX2,Di,Ulm,8\nX1,Ed,Ulm,9\nX3,Fi,Ulm,9\n";
    let place = shop_with(csv);
    assert_eq!(
        rejected(&place),
        [
            "2 legacy_key: customer.csv:4 has the same legacy key",
            "4 legacy_key: customer.csv:2 has the same legacy key"
        ]
    );
    assert_eq!(number(&place.open(DATABASE), "SELECT count(*) FROM customer WHERE name IN ('Cy', 'Ed')"), 0);
    let place = shop_with(csv);
    place.write("p.yaml", format!("{PIPELINE}    duplicates: first\n"));
    assert_eq!(rejected(&place), ["4 legacy_key: customer.csv:2 has the same legacy key"]);
    assert_eq!(place.production(DATABASE)["customer"].len(), 5);
}

#[test]
fn first_of_two_equal_legacy_keys_is_compared_with_others() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\nX1,Cy,Bonn,7\nX2,Di,Ulm,8\n");
    place.write("p.yaml", format!("{PIPELINE}    checks:\n      - unique: [city]\n    duplicates: first\n"));
    let report = place.report(&["plan", "p.yaml"], 1);
    assert_eq!(report["tables"][0]["rejected"], 2, "lines 3 and 4: {report:#}");
}

#[test]
fn converted_record_is_rejected_with_its_key_or_skipped() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\nX2,Di,Ulm,8\n");
    assert_eq!(loaded(&place).len(), 2);
    place.write("customer.csv", "ref,name,city,paid\nX2,Di,Ulm,9\nX3,Ed,Ulm,9\n");
    let foreseen = place.report(&["plan", "p.yaml"], 0);
    assert_eq!((&foreseen["tables"][0]["rejected"], &foreseen["tables"][0]["skipped"]), (&1.into(), &0.into()));
    place.write("p.yaml", format!("{PIPELINE}    existing: skip\n"));
    let report = place.report(&["run", "p.yaml"], 0);
    assert_eq!((&report["tables"][0]["skipped"], &report["tables"][0]["inserted"]), (&1.into(), &1.into()));
    assert_eq!(place.production(DATABASE)["customer"][4], "5|'Ed'|'Ulm'|9");
}

#[test]
fn a_file_given_twice_under_two_names_is_refused() {
    let place = shop();
    place.write("p.yaml", PIPELINE.replace("customer.csv", "c-*.csv"));
    place.write("c-1.csv", "ref,name,city,paid\nX1,Cy,Ulm,7\n");
    place.write("c-2.csv", "ref,name,city,paid\nX1,Cy,Ulm,7\n");
    refused(&place, 77, &["`c-1.csv` and `c-2.csv` have identical content"]);
}

#[test]
fn more_rejects_than_max_rejects_load_nothing_and_exit_with_1() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,a\nX2,Di,Ulm,b\nX3,Ed,Ulm,9\n");
    let before = place.everything(DATABASE);
    let ran = place.pipeline(&["run", "p.yaml"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.contains("failed: `customer`: 2 of 3 rows rejected; `max_rejects` is 50%"), "{}", ran.stdout);
    assert_same(&place.everything(DATABASE), &before);
    assert_eq!(place.pipeline(&["validate", "p.yaml"]).code, 1);
}

#[test]
fn database_opened_read_only_is_unreachable() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\n");
    place.write("p.yaml", PIPELINE.replace("shop.db", "shop.db?mode=ro"));
    refused(&place, 69, &["read-only", "shop.db"]);
    place.pipeline(&["validate", "p.yaml"]).passes();
}

#[test]
fn database_with_another_writer_is_unreachable() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\n");
    let before = place.everything(DATABASE);
    let other = place.open(DATABASE);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    place.pipeline(&["run", "p.yaml"]).fails(69, &["shop.db", "locked", "hint: another program"]);
    other.execute_batch("ROLLBACK").unwrap();
    assert_same(&place.everything(DATABASE), &before);
    assert_eq!(loaded(&place).len(), 1);
}

#[test]
fn no_database_and_a_missing_one_are_unreachable() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\n");
    place.write("other.db", "this is text and no database, but long enough to be one".repeat(99));
    for (name, text) in [("other.db", "not a database"), ("none.db", "cannot find database")] {
        place.write("p.yaml", PIPELINE.replace("shop.db", name));
        place.pipeline(&["run", "p.yaml"]).fails(69, &[name, text]);
    }
    assert!(!place.path("none.db").exists());
}

#[test]
fn a_trigger_that_refuses_a_row_takes_the_whole_run_back() {
    let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\nX2,Di,Ulm,7\n");
    let raise =
        "CREATE TRIGGER no BEFORE INSERT ON customer WHEN new.name = 'Di' BEGIN SELECT raise(ABORT, 'no Di here'); END";
    place.open(DATABASE).execute_batch(raise).unwrap();
    refused(&place, 1, &["`customer`", "no Di here"]);
}

#[test]
fn trigger_that_changes_drops_or_adds_rows_rolls_back() {
    for (body, text) in [
        (
            "AFTER INSERT ON customer BEGIN UPDATE customer SET paid = paid + 1 WHERE customer_id = new.customer_id; END",
            "`paid`",
        ),
        (
            "AFTER INSERT ON customer BEGIN DELETE FROM customer WHERE customer_id = new.customer_id; END",
            "number of rows",
        ),
        (
            "BEFORE INSERT ON customer WHEN new.name = 'Di' BEGIN SELECT raise(IGNORE); END",
            "row count mismatch in `customer`: expected 2 rows inserted, found 1",
        ),
    ] {
        let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\nX2,Di,Ulm,7\n");
        place.open(DATABASE).execute_batch(&format!("CREATE TRIGGER meddles {body}")).unwrap();
        refused(&place, 78, &["`customer`", text, "nothing was loaded", "trigger"]);
    }
}

#[test]
fn trigger_that_changes_one_text_rolls_the_run_back() {
    let place = shop_with("ref,name,city,paid\nX1,Al,Ulm,7\nX2,Bo,Ulm,7\nX3,Cy,Ulm,7\n");
    let body = "BEGIN UPDATE customer SET name = 'Bx' WHERE customer_id = new.customer_id; END";
    let trigger = format!("CREATE TRIGGER meddles AFTER INSERT ON customer WHEN new.name = 'Bo' {body}");
    place.open(DATABASE).execute_batch(&trigger).unwrap();
    refused(&place, 78, &["`customer`", "`name`", "Bx"]);
}

#[test]
fn sql_of_a_user_that_is_no_query_is_refused_with_its_place() {
    for sql in [
        "DROP TABLE customer",
        "CREATE TABLE t (a INT)",
        "INSERT INTO customer VALUES (1)",
        "DELETE FROM customer",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "SET datafusion.execution.batch_size = 1",
        "SELECT _row FROM customer; DROP TABLE customer",
    ] {
        let place = shop_with("ref,name,city,paid\nX1,Cy,Ulm,7\n");
        place.write("p.yaml", format!("{PIPELINE}    checks:\n      - {{ name: evil, sql: \"{sql}\" }}\n"));
        refused(&place, 78, &["p.yaml:11", "^"]);
        place.write("p.yaml", format!("{PIPELINE}    select: \"{sql}\"\n"));
        refused(&place, 78, &["p.yaml:10", "^"]);
        assert!(!place.path("stolen.csv").exists());
    }
}
