//! Our checks against somebody else's: the raw files as text in SQLite, and each check as plain SQL, as dbt tests or Great
//! Expectations would put it. Nothing here was asked of the product; the rows that fail must be the same, file and line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use arrow::array::Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rusqlite::Connection;

use crate::support::{Place, csv_records, number, strings, tell};

/// A table: its files, their delimiter, and what else than an empty field is NULL in them.
const TABLES: [(&str, &[&str], char, &str); 6] = [
    ("person", &["person-1.csv", "person-2.csv"], ';', ""),
    ("account", &["account.csv"], ',', ""),
    ("service_point", &["service_point.parquet"], ' ', ""),
    ("service_agreement", &["service_agreement.ndjson.gz"], ' ', ""),
    ("agreement_rate", &["agreement_rate.csv"], ';', ""),
    ("meter", &["meter.csv"], ',', "-"),
];

/// A German date as ISO 8601, and whether a text in ISO 8601 is a day.
macro_rules! iso {
    ($x:literal) => {
        concat!("(substr(", $x, ", 7, 4) || '-' || substr(", $x, ", 4, 2) || '-' || substr(", $x, ", 1, 2))")
    };
}

/// A number with a comma as SQLite reads it.
macro_rules! point {
    ($x:literal) => {
        concat!("replace(", $x, ", ',', '.')")
    };
}

/// Each check as SQL that gives `n`, the number of a row that fails; `good_<table>` has the records that can be read,
/// `out` the rows that are rejected so far, as `tab` and `n`.
const CHECKS: &[(&str, &str, &str)] = &[
    ("person", "parse", "SELECT n FROM raw_person WHERE bad"),
    ("person", "legacy_key", "SELECT n FROM good_person WHERE person_ref IN (SELECT person_ref FROM good_person GROUP BY 1 HAVING count(*) > 1)"),
    ("person", "cast(birth_date)", concat!("SELECT n FROM good_person WHERE birth_date IS NOT NULL AND date(", iso!("birth_date"), ") IS NOT ", iso!("birth_date"))),
    ("person", "not_null(last_name)", "SELECT n FROM good_person WHERE name IS NULL"),
    ("person", "length(last_name)", "SELECT n FROM good_person WHERE length(trim(name)) > 40"),
    ("person", "length(email)", "SELECT n FROM good_person WHERE length(email) > 80"),
    ("person", "length(phone)", "SELECT n FROM good_person WHERE length(phone) > 24"),
    ("person", "length(note)", "SELECT n FROM good_person WHERE length(note) > 200"),
    ("person", "not_null(language)", "SELECT n FROM good_person WHERE language IS NULL"),
    ("person", "check(person_private_has_first_name)", "SELECT n FROM good_person WHERE title IS NOT 'Firma' AND first_name IS NULL"),
    ("person", "accepted_values(language)", "SELECT n FROM good_person WHERE lower(language) NOT IN ('de', 'en', 'pl', 'cs')"),
    ("person", "unique(email)", "SELECT n FROM good_person WHERE lower(email) IN (SELECT lower(email) FROM good_person GROUP BY 1 HAVING count(*) > 1)
        UNION SELECT n FROM good_person WHERE lower(email) IN (SELECT email FROM production.person)"),
    ("account", "parse", "SELECT n FROM raw_account WHERE bad"),
    ("account", "legacy_key", "SELECT n FROM good_account WHERE account_ref IN (SELECT account_ref FROM good_account GROUP BY 1 HAVING count(*) > 1)"),
    ("account", "cast(opened_on)", concat!("SELECT n FROM good_account WHERE opened_on IS NOT NULL AND date(", iso!("opened_on"), ") IS NOT ", iso!("opened_on"))),
    ("account", "cast(closed_on)", concat!("SELECT n FROM good_account WHERE closed_on IS NOT NULL AND date(", iso!("closed_on"), ") IS NOT ", iso!("closed_on"))),
    ("account", "not_null(opened_on)", "SELECT n FROM good_account WHERE opened_on IS NULL"),
    ("account", "cast(credit_limit)", "SELECT n FROM good_account WHERE credit_limit GLOB '*[^0-9.-]*'"),
    ("account", "precision(credit_limit)", "SELECT n FROM good_account WHERE credit_limit NOT GLOB '*[^0-9.-]*' AND (abs(credit_limit) >= 1e8 OR credit_limit GLOB '*.*[0-9][0-9][0-9]')"),
    ("account", "not_null(account_no)", "SELECT n FROM good_account WHERE account_no IS NULL"),
    ("account", "length(account_no)", "SELECT n FROM good_account WHERE length(account_no) > 12"),
    ("account", "length(mail_name)", "SELECT n FROM good_account WHERE length(mail_name) > 60"),
    ("account", "check(account_status_known)", "SELECT n FROM good_account WHERE upper(status) NOT IN ('ACTIVE', 'CLOSED', 'BLOCKED')"),
    ("account", "check(account_closed_after_opened)", concat!("SELECT n FROM good_account WHERE ", iso!("closed_on"), " < ", iso!("opened_on"))),
    ("account", "closed_account_has_date", "SELECT n FROM good_account WHERE upper(status) = 'CLOSED' AND closed_on IS NULL"),
    ("account", "unique(account_no)", "SELECT n FROM good_account WHERE account_no IN (SELECT account_no FROM good_account GROUP BY 1 HAVING count(*) > 1)
        UNION SELECT n FROM good_account WHERE account_no IN (SELECT account_no FROM production.account)"),
    ("account", "not_null(person_id)", "SELECT n FROM good_account WHERE person_ref IS NULL"),
    ("account", "relationship(person_id)", "SELECT n FROM good_account WHERE person_ref IS NOT NULL AND person_ref NOT IN (SELECT person_ref FROM good_person)"),
    ("account", "relationship(parent_account_id)", "SELECT n FROM good_account WHERE parent_ref IS NOT NULL AND parent_ref NOT IN (SELECT account_ref FROM good_account)"),
    ("service_point", "legacy_key", "SELECT n FROM good_service_point WHERE point_ref IN (SELECT point_ref FROM good_service_point GROUP BY 1 HAVING count(*) > 1)"),
    ("service_point", "not_null(street)", "SELECT n FROM good_service_point WHERE street IS NULL"),
    ("service_point", "not_null(town)", "SELECT n FROM good_service_point WHERE town IS NULL"),
    ("service_point", "length(town)", "SELECT n FROM good_service_point WHERE length(town) > 30"),
    ("service_point", "length(street)", "SELECT n FROM good_service_point WHERE length(street) > 40"),
    ("service_point", "check(service_point_division_known)", "SELECT n FROM good_service_point WHERE upper(division) NOT IN ('ELECTRICITY', 'WATER')"),
    // Rows of one record were told by their legacy key already.
    ("service_point", "unique(point_no)", "SELECT n FROM good_service_point WHERE point_no IN (SELECT point_no FROM good_service_point GROUP BY 1 HAVING count(DISTINCT point_ref) > 1)
        UNION SELECT n FROM good_service_point WHERE point_no IN (SELECT point_no FROM production.service_point)"),
    ("service_point", "matches(point_no)", "SELECT n FROM good_service_point WHERE length(point_no) <> 33 OR point_no NOT GLOB 'DE[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]*' OR substr(point_no, 14) GLOB '*[^A-Z0-9]*'"),
    ("service_point", "range(latitude)", "SELECT n FROM good_service_point WHERE CAST(latitude AS REAL) NOT BETWEEN 51.0 AND 51.5"),
    ("service_point", "postal_code_complete", "SELECT n FROM good_service_point WHERE length(postal_code) < 5"),
    ("service_agreement", "parse", "SELECT n FROM raw_service_agreement WHERE bad"),
    ("service_agreement", "legacy_key", "SELECT n FROM good_service_agreement WHERE agreement_ref IN (SELECT agreement_ref FROM good_service_agreement GROUP BY 1 HAVING count(*) > 1)"),
    ("service_agreement", "cast(start_date)", "SELECT n FROM good_service_agreement WHERE start_date IS NOT NULL AND date(start_date) IS NOT start_date"),
    ("service_agreement", "cast(end_date)", "SELECT n FROM good_service_agreement WHERE end_date IS NOT NULL AND date(end_date) IS NOT end_date"),
    ("service_agreement", "not_null(start_date)", "SELECT n FROM good_service_agreement WHERE start_date IS NULL"),
    ("service_agreement", "cast(annual_usage)", "SELECT n FROM good_service_agreement WHERE annual_usage GLOB '*[^0-9-]*'"),
    ("service_agreement", "precision(deposit)", "SELECT n FROM good_service_agreement WHERE deposit GLOB '*.*[0-9][0-9][0-9]' OR abs(deposit) >= 1e6"),
    ("service_agreement", "check(agreement_usage_not_negative)", "SELECT n FROM good_service_agreement WHERE annual_usage NOT GLOB '*[^0-9-]*' AND CAST(annual_usage AS INTEGER) < 0"),
    ("service_agreement", "check(agreement_ends_after_start)", "SELECT n FROM good_service_agreement WHERE end_date < start_date"),
    ("service_agreement", "check(agreement_status_known)", "SELECT n FROM good_service_agreement WHERE upper(status) NOT IN ('PENDING', 'ACTIVE', 'ENDED')"),
    ("service_agreement", "ended_with_end_date", "SELECT n FROM good_service_agreement WHERE (upper(status) = 'ENDED') <> (end_date IS NOT NULL)"),
    ("service_agreement", "not_null(account_id)", "SELECT n FROM good_service_agreement WHERE account_ref IS NULL"),
    ("service_agreement", "not_null(service_point_id)", "SELECT n FROM good_service_agreement WHERE point_ref IS NULL"),
    ("service_agreement", "relationship(account_id)", "SELECT n FROM good_service_agreement WHERE account_ref IS NOT NULL AND account_ref NOT IN (SELECT account_ref FROM good_account)"),
    ("service_agreement", "relationship(service_point_id)", "SELECT n FROM good_service_agreement WHERE point_ref IS NOT NULL AND point_ref NOT IN (SELECT point_ref FROM good_service_point)"),
    ("agreement_rate", "parse", "SELECT n FROM raw_agreement_rate WHERE bad"),
    ("agreement_rate", "legacy_key", "SELECT g.n FROM good_agreement_rate g JOIN (SELECT agreement_ref, seq_no FROM good_agreement_rate GROUP BY 1, 2 HAVING count(*) > 1) USING (agreement_ref, seq_no)"),
    ("agreement_rate", "cast(price)", concat!("SELECT n FROM good_agreement_rate WHERE ", point!("price"), " GLOB '*[^0-9.-]*'")),
    ("agreement_rate", "precision(price)", concat!("SELECT n FROM good_agreement_rate WHERE ", point!("price"), " NOT GLOB '*[^0-9.-]*' AND ", point!("price"), " GLOB '*.*[0-9][0-9][0-9][0-9][0-9][0-9]'")),
    ("agreement_rate", "cast(base_price)", concat!("SELECT n FROM good_agreement_rate WHERE ", point!("base_price"), " GLOB '*[^0-9.-]*'")),
    ("agreement_rate", "not_null(price)", "SELECT n FROM good_agreement_rate WHERE price IS NULL"),
    ("agreement_rate", "not_null(valid_from)", "SELECT n FROM good_agreement_rate WHERE valid_from IS NULL"),
    ("agreement_rate", "cast(valid_from)", "SELECT n FROM good_agreement_rate WHERE valid_from IS NOT NULL AND date(valid_from) IS NOT valid_from"),
    ("agreement_rate", "check(agreement_rate_price_not_negative)", concat!("SELECT n FROM good_agreement_rate WHERE CAST(", point!("price"), " AS REAL) < 0")),
    ("agreement_rate", "relationship(rate_code)", "SELECT n FROM good_agreement_rate WHERE rate_code NOT IN (SELECT rate_code FROM production.rate)"),
    ("agreement_rate", "relationship(agreement_id)", "SELECT n FROM good_agreement_rate WHERE agreement_ref NOT IN (SELECT agreement_ref FROM good_service_agreement)"),
    ("agreement_rate", "rate_still_offered", "SELECT n FROM good_agreement_rate d JOIN production.rate r USING (rate_code) WHERE d.valid_from > r.offered_until"),
    // Of rows that are the same the first stays.
    ("meter", "legacy_key", "SELECT n FROM good_meter g WHERE EXISTS (SELECT 1 FROM good_meter f WHERE f.device_ref = g.device_ref AND f.n < g.n)"),
    ("meter", "cast(digits)", "SELECT n FROM good_meter WHERE length(digits) > 18 OR digits GLOB '*[^0-9]*'"),
    ("meter", "check(meter_digits_plausible)", "SELECT n FROM good_meter WHERE length(digits) <= 18 AND CAST(digits AS INTEGER) NOT BETWEEN 4 AND 9"),
    ("meter", "not_null(badge_no)", "SELECT n FROM good_meter WHERE badge_no IS NULL"),
    ("meter", "unique(badge_no)", "SELECT n FROM good_meter g WHERE EXISTS (SELECT 1 FROM good_meter f WHERE f.badge_no = g.badge_no AND f.device_ref <> g.device_ref AND f.n < g.n)
        UNION SELECT n FROM good_meter WHERE badge_no IN (SELECT badge_no FROM production.meter)"),
    ("meter", "unique(manufacturer, serial_no)", "SELECT n FROM good_meter g JOIN production.meter p USING (manufacturer, serial_no)"),
    ("meter", "relationship(service_point_id)", "SELECT n FROM good_meter WHERE point_ref IS NOT NULL AND point_ref NOT IN (SELECT point_ref FROM good_service_point)"),
];

/// Rows that go with the row that they refer to, parents before children; one that refers to a row of its own table may be asked again.
const ALONG: &[(&str, &str, &str)] = &[
    (
        "account",
        "parent_rejected(person_id)",
        "SELECT c.n FROM good_account c JOIN good_person p USING (person_ref) JOIN out ON tab = 'person' AND out.n = p.n",
    ),
    (
        "account",
        "parent_rejected(parent_account_id)",
        "SELECT c.n FROM good_account c JOIN good_account p ON p.account_ref = c.parent_ref JOIN out ON tab = 'account' AND out.n = p.n",
    ),
    (
        "service_agreement",
        "parent_rejected(account_id)",
        "SELECT c.n FROM good_service_agreement c JOIN good_account p USING (account_ref) JOIN out ON tab = 'account' AND out.n = p.n",
    ),
    (
        "service_agreement",
        "parent_rejected(service_point_id)",
        "SELECT c.n FROM good_service_agreement c JOIN good_service_point p USING (point_ref) JOIN out ON tab = 'service_point' AND out.n = p.n",
    ),
    (
        "agreement_rate",
        "parent_rejected(agreement_id)",
        "SELECT c.n FROM good_agreement_rate c JOIN good_service_agreement p USING (agreement_ref) JOIN out ON tab = 'service_agreement' AND out.n = p.n",
    ),
    (
        "meter",
        "parent_rejected(service_point_id)",
        "SELECT c.n FROM good_meter c JOIN good_service_point p USING (point_ref) JOIN out ON tab = 'service_point' AND out.n = p.n",
    ),
];

/// Checks that only warn, as SQL for how many rows fail.
const WARNS: &[(&str, &str, &str)] = &[
    (
        "person",
        "person_not_known_yet",
        concat!(
            "SELECT count(*) FROM good_person d JOIN production.person p ON p.last_name = trim(d.name) AND p.first_name = d.first_name AND p.birth_date = ",
            iso!("d.birth_date")
        ),
    ),
    (
        "account",
        "opened_not_in_future",
        concat!("SELECT count(*) FROM good_account WHERE ", iso!("opened_on"), " > date('now')"),
    ),
];

/// A record as its file has it: the line on which it begins, its values by column, and whether it can be read.
struct Record {
    line: u64,
    values: BTreeMap<String, String>,
    bad: bool,
}

fn of_csv(bytes: &[u8], delimiter: char) -> Vec<Record> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // The persons are Windows-1252, all else UTF-8.
    let decoded = encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned();
    let is_latin = delimiter == ';' && std::str::from_utf8(bytes).is_err();
    let bytes = if is_latin { decoded.as_bytes() } else { bytes };
    // The reader counts a line when it has read its end, of which it leaves a half behind.
    let mut lines = bytes.to_vec();
    lines.dedup_by(|next, before| {
        *before == b'\r' && *next == b'\n' && {
            *before = b'\n';
            true
        }
    });
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter as u8)
        .from_reader(lines.as_slice());
    let mut records = reader.byte_records().map(Result::unwrap);
    let header: Vec<String> =
        records.next().unwrap().iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
    let record = |record: csv::ByteRecord| {
        let texts: Vec<_> = record.iter().map(|field| String::from_utf8(field.to_vec())).collect();
        let bad = texts.len() != header.len()
            || texts.iter().any(|text| text.as_ref().map_or(true, |text| text.contains('\0')));
        let values = header.iter().cloned().zip(texts.into_iter().map(Result::unwrap_or_default)).collect();
        Record { line: record.position().unwrap().line(), values, bad }
    };
    records.map(record).collect()
}

fn of_json(bytes: &[u8]) -> Vec<Record> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    let record = |(at, line): (usize, &str)| {
        let read: Result<BTreeMap<String, serde_json::Value>, _> = serde_json::from_str(line);
        let bad = read.is_err();
        let values = read.unwrap_or_default().into_iter().filter_map(|(name, value)| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some((name, text)),
            other => Some((name, other.to_string())),
        });
        Record { line: at as u64 + 1, values: values.collect(), bad }
    };
    text.lines().enumerate().map(record).collect()
}

fn of_parquet(path: &std::path::Path) -> Vec<Record> {
    let file = std::fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut records = Vec::new();
    for batch in reader.map(Result::unwrap) {
        let options = FormatOptions::default();
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().zip(schema.fields()).filter(|(column, _)| column.is_valid(row));
            let text = |column: &arrow::array::ArrayRef| {
                ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(row).to_string()
            };
            let values = values.map(|(column, field)| (field.name().clone(), text(column))).collect();
            records.push(Record { line: records.len() as u64 + 1, values, bad: false });
        }
    }
    records
}

/// The files as text tables, `raw_<table>`: number, file, line, whether the record can be read, its columns.
fn load(place: &Place, database: &Connection) {
    for (table, files, delimiter, nothing) in TABLES {
        let mut rows = Vec::new();
        for file in files {
            let path = place.path(&format!("sample-data/customer/{file}"));
            let bytes = std::fs::read(&path).unwrap();
            let records = match file.rsplit('.').next().unwrap() {
                "csv" => of_csv(&bytes, delimiter),
                "gz" => of_json(&bytes),
                _ => of_parquet(&path),
            };
            rows.extend(records.into_iter().map(|record| (*file, record)));
        }
        let columns: BTreeSet<String> = rows.iter().flat_map(|(_, record)| record.values.keys().cloned()).collect();
        let names: Vec<_> = columns.iter().map(|name| format!("\"{name}\" TEXT")).collect();
        let made = format!(
            "CREATE TABLE raw_{table} (n INTEGER PRIMARY KEY, file TEXT, line INTEGER, bad INTEGER, {});
             CREATE VIEW good_{table} AS SELECT * FROM raw_{table} WHERE NOT bad",
            names.join(", ")
        );
        database.execute_batch(&made).unwrap();
        let places = vec!["?"; columns.len() + 3].join(", ");
        let mut insert = database.prepare(&format!("INSERT INTO raw_{table} VALUES (NULL, {places})")).unwrap();
        for (file, record) in &rows {
            insert.raw_bind_parameter(1, file).unwrap();
            insert.raw_bind_parameter(2, record.line as i64).unwrap();
            insert.raw_bind_parameter(3, record.bad).unwrap();
            for (at, name) in columns.iter().enumerate() {
                let value = record.values.get(name).filter(|value| !value.is_empty() && *value != nothing);
                insert.raw_bind_parameter(at + 4, value).unwrap();
            }
            insert.raw_execute().unwrap();
        }
    }
}

/// Rows that fail, by table and check, as `file:line`.
type Failing = BTreeMap<(String, String), BTreeSet<String>>;

fn computed(database: &Connection) -> Failing {
    let mut failing = Failing::new();
    let mut ask = |(table, check, sql): &(&str, &str, &str)| {
        let sql = format!("SELECT file || ':' || line FROM raw_{table} WHERE n IN ({sql})");
        let rows: BTreeSet<_> = strings(database, &sql).into_iter().collect();
        let known = failing.entry(((*table).to_owned(), (*check).to_owned())).or_default();
        let before = known.len();
        known.extend(rows);
        known.len() > before
    };
    database.execute_batch("CREATE TABLE out (tab TEXT, n INTEGER, UNIQUE (tab, n))").unwrap();
    let reject = |(table, _, sql): &(&str, &str, &str)| {
        database.execute(&format!("INSERT OR IGNORE INTO out SELECT '{table}', n FROM ({sql})"), []).unwrap();
    };
    for check in CHECKS {
        ask(check);
        reject(check);
    }
    loop {
        let mut more = false;
        for check in ALONG {
            more |= ask(check);
            reject(check);
        }
        if !more {
            break;
        }
    }
    failing.retain(|_, rows| !rows.is_empty());
    failing
}

fn ours(place: &Place, report: &serde_json::Value) -> Failing {
    let mut failing = Failing::new();
    for (table, ..) in TABLES {
        let records = csv_records(&std::fs::read(place.rejects(report).join(format!("{table}.csv"))).unwrap());
        let at = |name: &str| records[0].iter().position(|column| column == name).unwrap();
        let (file, line, checks) = (at("_reject_file"), at("_reject_line"), at("_reject_check"));
        for record in &records[1..] {
            let place = format!("{}:{}", record[file].rsplit('/').next().unwrap(), record[line]);
            for check in record[checks].split("; ") {
                failing.entry((table.to_owned(), check.to_owned())).or_default().insert(place.clone());
            }
        }
    }
    failing
}

#[test]
fn plain_sql_finds_the_same_rows_check_by_check() {
    let place = Place::samples_with_production();
    let report = place.report(&["validate", "pipelines/customer-delta.yaml"], 0);
    let database = Connection::open_in_memory().unwrap();
    let production = place.path("pipelines/customer.db").display().to_string();
    database.execute("ATTACH ? AS production", [production]).unwrap();
    load(&place, &database);
    let (meant, found) = (computed(&database), ours(&place, &report));
    let all: BTreeSet<_> = meant.keys().chain(found.keys()).collect();
    let none = BTreeSet::new();
    let mut differences = Vec::new();
    for key in &all {
        let (meant, found) = (meant.get(*key).unwrap_or(&none), found.get(*key).unwrap_or(&none));
        if meant != found {
            differences.push(format!("{} {}: SQL finds {meant:?}, we find {found:?}", key.0, key.1));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // The report's counts are those of the rows, and of what only warns.
    let tables = report["tables"].as_array().unwrap();
    let count = |table: &str, check: &str| {
        let table = tables.iter().find(|found| found["name"] == table).unwrap();
        let check = table["checks"].as_array().unwrap().iter().find(|found| found["name"] == check).unwrap();
        check["violations"].as_u64().unwrap()
    };
    for ((table, check), rows) in &meant {
        assert_eq!(count(table, check), rows.len() as u64, "{table} {check}");
    }
    for (table, check, sql) in WARNS {
        assert_eq!(count(table, check), number(&database, sql) as u64, "{table} {check}");
    }
    // Every check of the report that finds anything was computed here too, and each table's rejects are the same.
    for table in tables {
        let name = table["name"].as_str().unwrap();
        for check in table["checks"].as_array().unwrap().iter().filter(|check| check["violations"] != 0) {
            let key = (name.to_owned(), check["name"].as_str().unwrap().to_owned());
            let warns = WARNS.iter().any(|(table, check, _)| key.0 == *table && key.1 == *check);
            assert!(warns || meant.contains_key(&key), "{key:?} is not held against anything");
        }
        let out = number(&database, &format!("SELECT count(*) FROM out WHERE tab = '{name}'"));
        assert_eq!(table["rejected"], out, "{name}");
    }
    tell(&format!(
        "held against plain SQL: {} checks with {} rows that fail",
        meant.len(),
        meant.values().map(BTreeSet::len).sum::<usize>()
    ));
}
