//! Every planted fault of the sample data is found, under its file, line, check and column; and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::support::{Place, csv_records};

/// A row of `dirt.csv`.
pub struct Planted {
    pub table: String,
    pub file: String,
    pub line: u64,
    check: String,
    column: String,
    pub outcome: String,
}

/// What `dirt.csv` lists for a pipeline.
pub fn planted(place: &Place, pipeline: &str) -> Vec<Planted> {
    let records = csv_records(place.text("sample-data/dirt.csv").as_bytes());
    assert_eq!(records[0], ["pipeline", "table", "file", "line", "check", "column", "outcome"]);
    let rows = records[1..].iter().filter(|record| record[0] == pipeline);
    let planted: Vec<_> = rows
        .map(|record| Planted {
            table: record[1].clone(),
            file: record[2].clone(),
            line: record[3].parse().unwrap(),
            check: record[4].clone(),
            column: record[5].clone(),
            outcome: record[6].clone(),
        })
        .collect();
    assert!(planted.iter().all(|row| ["rejected", "skipped", "warned"].contains(&row.outcome.as_str())));
    planted
}

/// A reject file as records of texts, the header first.
fn parquet_records(path: &Path) -> Vec<Vec<String>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let mut records = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        if records.is_empty() {
            records.push(batch.schema().fields().iter().map(|field| field.name().clone()).collect());
        }
        let options = FormatOptions::default();
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        records.extend(
            (0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect()),
        );
    }
    records
}

/// Runs a sample pipeline and compares its rejects, warnings and skips with `dirt.csv`; gives all differences.
fn differences(pipeline: &str) -> Vec<String> {
    let place = Place::samples();
    let report = place.report(&["run", &format!("pipelines/{pipeline}.yaml")], 0);
    let rejects = place.rejects(&report);
    let planted = planted(&place, pipeline);
    let mut found = Vec::new();
    for table in report["tables"].as_array().unwrap() {
        let name = table["name"].as_str().unwrap();
        let planted: Vec<_> = planted.iter().filter(|row| row.table == name).collect();
        found.extend(rejects_of(&rejects, name, &planted));
        found.extend(counts_of(name, table, &planted));
    }
    let tables: BTreeSet<_> =
        report["tables"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    found.extend(
        planted.iter().filter(|row| !tables.contains(row.table.as_str())).map(|row| format!("no table {}", row.table)),
    );
    let files = std::fs::read_dir(&rejects).unwrap().count();
    let with_rejects: BTreeSet<_> =
        planted.iter().filter(|row| row.outcome == "rejected").map(|row| &row.table).collect();
    if files != 2 * with_rejects.len() {
        found.push(format!("{files} reject files for {} tables", with_rejects.len()));
    }
    found
}

fn rejects_of(folder: &Path, table: &str, planted: &[&Planted]) -> Vec<String> {
    let mut csv = csv_records(&std::fs::read(folder.join(format!("{table}.csv"))).unwrap());
    for field in csv.iter_mut().flatten() {
        // A telephone number would be a formula.
        if let Some(number) = field.strip_prefix("'+") {
            *field = format!("+{number}");
        }
    }
    let mut found = Vec::new();
    let parquet = parquet_records(&folder.join(format!("{table}.parquet")));
    if csv != parquet {
        found.push(format!("{table}: the CSV and the Parquet file of its rejects differ"));
    }
    let column = |name: &str| csv[0].iter().position(|column| column == name).unwrap();
    let [file, line, check, about, reason] =
        ["_reject_file", "_reject_line", "_reject_check", "_reject_column", "_reject_reason"].map(column);
    let mut rejects: BTreeMap<(String, u64), &Vec<String>> = BTreeMap::new();
    for record in &csv[1..] {
        let file = record[file].strip_prefix("../sample-data/").unwrap_or(&record[file]).to_owned();
        if record[reason].is_empty() {
            found.push(format!("{table}: {file}:{} is rejected without a reason", record[line]));
        }
        if let Some(twice) = rejects.insert((file, record[line].parse().unwrap()), record) {
            found.push(format!("{table}: two rejects for line {}", twice[line]));
        }
    }
    for row in planted.iter().filter(|row| row.outcome == "rejected") {
        let place = format!("{}:{}", row.file, row.line);
        let Some(record) = rejects.remove(&(row.file.clone(), row.line)) else {
            found.push(format!("{table}: {place} is not rejected, {} was planted", row.check));
            continue;
        };
        if record[check] != row.check {
            found.push(format!("{table}: {place} fails {}, {} was planted", record[check], row.check));
        }
        // A CHECK constraint is about all columns that it names; the planted value is in one of them.
        let columns: Vec<_> = record[about].split(", ").collect();
        let named = if row.check.starts_with("check(") {
            columns.contains(&row.column.as_str())
        } else {
            row.column.is_empty() || record[about] == row.column
        };
        if !named {
            found.push(format!("{table}: {place} is said to be about `{}`, not `{}`", record[about], row.column));
        }
    }
    found.extend(rejects.iter().map(|((file, line), record)| {
        format!("{table}: {file}:{line} is rejected by {}, and nothing was planted there", record[check])
    }));
    found
}

fn counts_of(table: &str, report: &Value, planted: &[&Planted]) -> Vec<String> {
    let mut found = Vec::new();
    let count = |outcome: &str| planted.iter().filter(|row| row.outcome == outcome).count() as u64;
    for outcome in ["rejected", "skipped"] {
        if report[outcome].as_u64() != Some(count(outcome)) {
            found.push(format!("{table}: {} rows are {outcome}, {} were planted", report[outcome], count(outcome)));
        }
    }
    let mut warned: BTreeMap<&str, u64> = BTreeMap::new();
    for row in planted.iter().filter(|row| row.outcome == "warned") {
        *warned.entry(&row.check).or_default() += 1;
    }
    for check in report["checks"].as_array().unwrap().iter().filter(|check| check["severity"] == "warn") {
        let (name, violations) = (check["name"].as_str().unwrap(), check["violations"].as_u64().unwrap());
        if warned.remove(name).unwrap_or(0) != violations {
            found.push(format!("{table}: {violations} rows are warned of by {name}, that is not what was planted"));
        }
    }
    found.extend(warned.keys().map(|name| format!("{table}: there is no check {name} that warns")));
    let total: u64 = ["rejected", "skipped", "inserted"].iter().map(|what| report[what].as_u64().unwrap()).sum();
    if report["read"].as_u64() != Some(total) {
        found.push(format!("{table}: {} rows were read, {total} are accounted for", report["read"]));
    }
    found
}

#[test]
fn planted_faults_of_the_customer_delta_are_all_rejected() {
    let differences = differences("customer-delta");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn planted_faults_of_the_meter_reads_are_all_rejected() {
    let differences = differences("meter-reads");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_kind_of_check_that_rejects_is_planted() {
    let place = Place::samples();
    let rows = planted(&place, "customer-delta").into_iter().chain(planted(&place, "meter-reads"));
    let all: BTreeSet<_> = rows.map(|row| row.check.split('(').next().unwrap().to_owned()).collect();
    for kind in [
        "accepted_values",
        "cast",
        "check",
        "legacy_key",
        "length",
        "matches",
        "not_null",
        "parent_rejected",
        "parse",
        "precision",
        "range",
        "relationship",
        "unique",
    ] {
        assert!(all.contains(kind), "nothing is planted for {kind}");
    }
}
