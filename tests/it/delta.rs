//! The sample deltas read and keyed a second time, by other means than the product's: what a load of them must come to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rusqlite::Connection;

use crate::dirt::planted;
use crate::support::{Place, number, strings};

/// A record of a delta file: its place, and its fields that are not NULL.
struct Record {
    file: String,
    line: u64,
    fields: BTreeMap<String, String>,
}

impl Record {
    fn get(&self, name: &str) -> Option<String> {
        self.fields.get(name).cloned()
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_else(|| panic!("{}:{} has no {name}", self.file, self.line))
    }
}

/// By table, in the order of rows: legacy key and new key, the parts of an inherited one with `|` between.
pub type KeyMaps = BTreeMap<&'static str, Vec<(String, String)>>;

/// The tables of use case 2, parents before children, with their files.
const CUSTOMER: [(&str, &[&str]); 6] = [
    ("person", &["customer/person-1.csv", "customer/person-2.csv"]),
    ("account", &["customer/account.csv"]),
    ("service_point", &["customer/service_point.parquet"]),
    ("service_agreement", &["customer/service_agreement.ndjson.gz"]),
    ("agreement_rate", &["customer/agreement_rate.csv"]),
    ("meter", &["customer/meter.csv"]),
];

/// The table of use case 1.
const READS: [(&str, &[&str]); 1] =
    [("meter_read", &["meter-reads/reads-2025-11.csv", "meter-reads/reads-2025-12.csv.zst"])];

/// Inserts what a load of a sample pipeline must insert into a database that holds production as it was before; gives the
/// key maps.
pub fn insert_expected_rows(place: &Place, pipeline: &str, production: &Connection) -> KeyMaps {
    let planted = planted(place, pipeline);
    let kept_out: BTreeSet<_> =
        planted.iter().filter(|row| row.outcome != "warned").map(|row| (row.file.as_str(), row.line)).collect();
    let tables: &[(&'static str, &[&str])] = if pipeline == "customer-delta" { &CUSTOMER } else { &READS };
    let mut keys: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    let mut maps = KeyMaps::new();
    production.execute_batch("PRAGMA foreign_keys = on; BEGIN; PRAGMA defer_foreign_keys = on;").unwrap();
    for (table, files) in tables {
        let records: Vec<Record> = files.iter().flat_map(|file| read(place, file)).collect();
        let records: Vec<_> =
            records.into_iter().filter(|record| !kept_out.contains(&(record.file.as_str(), record.line))).collect();
        let map: Vec<_> = match *table {
            "agreement_rate" => records
                .iter()
                .map(|record| {
                    let (agreement, number) = (record.text("agreement_ref"), record.text("seq_no"));
                    (format!("{agreement}|{number}"), format!("{}|{number}", keys["service_agreement"][&agreement]))
                })
                .collect(),
            _ => records.iter().map(|record| record.text(legacy_key(table))).zip(new_keys(production, table)).collect(),
        };
        keys.insert(*table, map.iter().cloned().collect());
        for (record, (_, key)) in records.iter().zip(&map) {
            let columns = columns(table, record, key, &keys, production);
            let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
            let places = vec!["?"; names.len()].join(", ");
            let sql = format!("INSERT INTO {table} ({}) VALUES ({places})", names.join(", "));
            let values = rusqlite::params_from_iter(columns.iter().map(|(_, value)| value));
            let mut statement = production.prepare_cached(&sql).unwrap();
            statement.execute(values).unwrap_or_else(|error| panic!("{}:{}: {error}", record.file, record.line));
        }
        maps.insert(*table, map);
    }
    production.execute_batch("COMMIT").unwrap();
    maps
}

fn legacy_key(table: &str) -> &'static str {
    match table {
        "person" => "person_ref",
        "account" => "account_ref",
        "service_point" => "point_ref",
        "service_agreement" => "agreement_ref",
        "meter" => "device_ref",
        "meter_read" => "read_ref",
        _ => panic!("{table}"),
    }
}

/// The next free keys of a table, one after the other.
fn new_keys(production: &Connection, table: &str) -> impl Iterator<Item = String> + use<> {
    let after = match table {
        "person" => "SELECT max(person_id) FROM person",
        "account" => "SELECT max(account_id) FROM account",
        "service_point" => "SELECT max(service_point_id) FROM service_point",
        "service_agreement" => "SELECT max(agreement_id) FROM service_agreement",
        "meter" => "SELECT max(CAST(substr(meter_id, 2) AS INTEGER)) FROM meter",
        _ => "SELECT seq FROM sqlite_sequence WHERE name = 'meter_read'",
    };
    let is_text = table == "meter";
    (number(production, after) + 1..).map(move |key| if is_text { format!("M{key:09}") } else { key.to_string() })
}

type Columns = Vec<(&'static str, Option<String>)>;

/// The row of production that a record means, in words of this test.
fn columns(
    table: &str,
    record: &Record,
    key: &str,
    keys: &BTreeMap<&str, BTreeMap<String, String>>,
    production: &Connection,
) -> Columns {
    let get = |name: &str| record.get(name);
    let key_of = |table: &str, by: &str| {
        get(by).map(|legacy| keys[table].get(&legacy).unwrap_or_else(|| panic!("{legacy} is no {table}")).clone())
    };
    let upper = |name: &str| get(name).map(|text| text.to_uppercase());
    let lower = |name: &str| get(name).map(|text| text.to_lowercase());
    let point = |name: &str| get(name).map(|text| text.replace(',', "."));
    let key = Some(key.to_owned());
    match table {
        "person" => vec![
            ("person_id", key),
            ("person_type", Some(if get("title").as_deref() == Some("Firma") { "B" } else { "P" }.to_owned())),
            ("last_name", get("name").map(|name| name.trim_matches(' ').to_owned())),
            ("first_name", get("first_name")),
            ("birth_date", day(get("birth_date"))),
            ("email", lower("email")),
            ("phone", get("phone")),
            ("language", lower("language")),
            ("note", get("note")),
        ],
        "account" => vec![
            ("account_id", key),
            ("account_no", get("account_no")),
            ("person_id", key_of("person", "person_ref")),
            ("parent_account_id", key_of("account", "parent_ref")),
            ("mail_name", get("mail_name")),
            ("status", upper("status")),
            ("bill_cycle", Some(format!("M{:0>2}", record.text("bill_month")))),
            ("opened_on", day(get("opened_on"))),
            ("closed_on", day(get("closed_on"))),
            ("credit_limit", get("credit_limit")),
        ],
        "service_point" => {
            let names =
                ["point_no", "street", "house_no", "postal_code", "town", "meter_location", "latitude", "longitude"];
            let mut columns = vec![("service_point_id", key), ("division", upper("division"))];
            columns.extend(names.map(|name| (name, get(name))));
            columns.push(("connected_on", get("connected_on")));
            columns
        }
        "service_agreement" => vec![
            ("agreement_id", key),
            ("account_id", key_of("account", "account_ref")),
            ("service_point_id", key_of("service_point", "point_ref")),
            ("start_date", get("start_date")),
            ("end_date", get("end_date")),
            ("status", upper("status")),
            ("deposit", get("deposit")),
            ("annual_usage", get("annual_usage")),
        ],
        "agreement_rate" => vec![
            ("agreement_id", key_of("service_agreement", "agreement_ref")),
            ("seq_no", get("seq_no")),
            ("rate_code", get("rate_code")),
            ("valid_from", get("valid_from")),
            ("price", point("price")),
            ("base_price", point("base_price")),
        ],
        "meter" => vec![
            ("meter_id", key),
            ("badge_no", get("badge_no")),
            ("service_point_id", key_of("service_point", "point_ref")),
            ("manufacturer", get("manufacturer")),
            ("serial_no", get("serial_no")),
            ("digits", get("digits")),
            ("installed_on", get("installed_on")),
            ("calibrated_until", get("calibrated_until")),
        ],
        _ => {
            let badge = record.text("badge_no");
            let meters = strings(production, &format!("SELECT meter_id FROM meter WHERE badge_no = '{badge}'"));
            let quality = match record.text("quality").as_str() {
                "M" => "MEASURED",
                "E" => "ESTIMATED",
                "C" => "CUSTOMER",
                other => panic!("{other}"),
            };
            vec![
                ("read_id", key),
                ("meter_id", Some(meters[0].clone())),
                ("read_at", get("read_at").map(|text| text.replace('T', " "))),
                ("reading", get("reading")),
                ("quality", Some(quality.to_owned())),
                ("read_source", upper("read_source")),
            ]
        }
    }
}

/// `31.12.2025` as `2025-12-31`.
fn day(text: Option<String>) -> Option<String> {
    text.map(|text| text.split('.').rev().collect::<Vec<_>>().join("-"))
}

fn read(place: &Place, file: &str) -> Vec<Record> {
    let path = place.path("sample-data").join(file);
    let bytes = std::fs::read(&path).unwrap();
    let csv = |text: &str, delimiter: char| {
        let mut records = split(text, delimiter).into_iter();
        let (_, header) = records.next().unwrap();
        let fields = |values: Vec<String>| header.iter().cloned().zip(values).collect();
        records.map(|(line, values)| (line, fields(values))).collect::<Vec<(u64, BTreeMap<_, _>)>>()
    };
    let found = match file {
        "customer/person-1.csv" | "customer/person-2.csv" => csv(&encoding_rs::WINDOWS_1252.decode(&bytes).0, ';'),
        "customer/agreement_rate.csv" => csv(&String::from_utf8(bytes).unwrap(), ';'),
        "customer/service_point.parquet" => parquet(File::open(path).unwrap()),
        "customer/service_agreement.ndjson.gz" => json_lines(flate2::read::GzDecoder::new(bytes.as_slice())),
        "meter-reads/reads-2025-12.csv.zst" => {
            csv(&String::from_utf8(zstd::decode_all(bytes.as_slice()).unwrap()).unwrap(), ',')
        }
        // One record has a byte that is no UTF-8, and is listed as dirt for it.
        _ => csv(String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}'), ','),
    };
    let is_null = |value: &str| value.is_empty() || (file == "customer/meter.csv" && value == "-");
    let record = |(line, mut fields): (u64, BTreeMap<String, String>)| {
        fields.retain(|_, value| !is_null(value));
        Record { file: file.to_owned(), line, fields }
    };
    found.into_iter().map(record).collect()
}

/// CSV as RFC 4180 has it: records with the line on which they begin.
fn split(text: &str, delimiter: char) -> Vec<(u64, Vec<String>)> {
    let (mut records, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut began, mut quoted) = (1, 1, false);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        line += u64::from(char == '\n');
        match char {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            _ if quoted => field.push(char),
            '\r' => {}
            '\n' => {
                fields.push(std::mem::take(&mut field));
                records.push((began, std::mem::take(&mut fields)));
                began = line;
            }
            _ if char == delimiter => fields.push(std::mem::take(&mut field)),
            _ => field.push(char),
        }
    }
    assert!(fields.is_empty() && field.is_empty() && !quoted, "the file ends within a record");
    records
}

fn parquet(file: File) -> Vec<(u64, BTreeMap<String, String>)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut records = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let options = FormatOptions::default();
        for row in 0..batch.num_rows() {
            let text = |at: usize| ArrayFormatter::try_new(batch.column(at), &options).unwrap().value(row).to_string();
            let schema = batch.schema();
            let fields = schema.fields().iter().enumerate().map(|(at, field)| (field.name().clone(), text(at)));
            records.push((records.len() as u64 + 1, fields.collect()));
        }
    }
    records
}

fn json_lines(mut bytes: impl Read) -> Vec<(u64, BTreeMap<String, String>)> {
    let mut text = String::new();
    bytes.read_to_string(&mut text).unwrap();
    let text_of = |value: serde_json::Value| match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let fields = |line: &str| {
        // Half a line is no JSON, and is listed as dirt for it.
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap_or_default();
        object.into_iter().map(|(name, value)| (name, text_of(value))).collect()
    };
    (1..).zip(text.lines().map(fields)).collect()
}
