//! Use case 1 and 2: production before and after, row by row, and how a load can be told beforehand and not be repeated.

use rusqlite::Connection;

use crate::delta::insert_expected_rows;
use crate::support::{Place, Tables, assert_same, number, ordered_rows, rows, strings};

const DATABASE: &str = "pipelines/customer.db";

/// Loads a sample delta into a database, and the same rows by the test's own means into another one.
fn load(pipeline: &str, loaded: u64) {
    let place = Place::samples_with_production();
    let before = place.production(DATABASE);
    place.database("meant.db", &place.text("sample-data/production.sql"));
    let meant = place.open("meant.db");
    let maps = insert_expected_rows(&place, pipeline, &meant);

    place.pipeline(&["run", &format!("pipelines/{pipeline}.yaml")]).passes();

    let after = place.production(DATABASE);
    for (table, rows) in &before {
        let gone: Vec<_> = rows.iter().filter(|row| after[table].binary_search(row).is_err()).collect();
        assert!(gone.is_empty(), "{table}: rows of production changed or went: {gone:?}");
    }
    assert_same(&after, &place.production("meant.db"));
    let count = |tables: &Tables| tables.values().map(|rows| rows.len() as u64).sum::<u64>();
    assert_eq!(count(&after) - count(&before), loaded);

    let database = place.open(DATABASE);
    assert_eq!(strings(&database, "PRAGMA integrity_check"), ["ok"]);
    assert!(!database.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap());
    for (table, map) in &maps {
        let meant: Vec<String> = map.iter().map(|(legacy, key)| format!("{legacy}|{key}")).collect();
        let key = if *table == "agreement_rate" { "agreement_id || '|' || seq_no" } else { key_column(table) };
        let is_staged = number(&database, &format!("SELECT count(*) FROM pragma_table_info('staging_{table}')")) > 0;
        assert_eq!(is_staged, ["account", "meter"].contains(table), "{table} is staged only where it must be");
        let in_order = match is_staged {
            true => format!("SELECT legacy_key || '|' || {key} FROM staging_ck_{table} ORDER BY _row"),
            false => format!(
                "SELECT legacy_key || '|' || {key} FROM delta_key_map_{table} JOIN {table} USING ({}) ORDER BY {table}.rowid",
                if *table == "agreement_rate" { "agreement_id, seq_no" } else { key }
            ),
        };
        // The legacy key of two parts is written with the same bar between them.
        assert_eq!(
            strings(&database, &in_order),
            meant,
            "the keys of {table} are dense and in the order of files and lines"
        );
        let mut sorted = meant.clone();
        sorted.sort();
        let history = format!("SELECT legacy_key || '|' || {key} AS pair FROM delta_key_map_{table} ORDER BY pair");
        assert_eq!(strings(&database, &history), sorted, "the key map's history of {table}");
        is_bijection(&database, table, key);
        let new: Vec<_> =
            after[*table].iter().filter(|row| before[*table].binary_search(row).is_err()).cloned().collect();
        if !is_staged {
            continue;
        }
        let columns: Vec<_> = strings(&database, &format!("SELECT name FROM pragma_table_info('{table}')"));
        let staged = rows(&database, &format!("SELECT {} FROM staging_{table}", columns.join(", ")));
        assert_eq!(staged, new, "what was staged of {table} is what is new in production");
    }
}

fn key_column(table: &str) -> &'static str {
    match table {
        "person" => "person_id",
        "account" => "account_id",
        "service_point" => "service_point_id",
        "service_agreement" => "agreement_id",
        "meter" => "meter_id",
        _ => "read_id",
    }
}

fn is_bijection(database: &Connection, table: &str, key: &str) {
    let sql = format!(
        "SELECT count(*) = count(DISTINCT legacy_key) AND count(*) = count(DISTINCT {key}) AND count(*) > 0
         FROM delta_key_map_{table}"
    );
    assert_eq!(number(database, &sql), 1, "the key map of {table} is a bijection");
}

#[test]
fn use_case_1_adds_exactly_the_readings() {
    load("meter-reads", 985);
}

#[test]
fn use_case_2_adds_exactly_the_rows_of_six_tables() {
    load("customer-delta", 487 + 501 + 551 + 599 + 726 + 291);
}

#[test]
fn null_reference_stays_and_later_row_of_own_table_resolves() {
    let place = Place::samples();
    place.pipeline(&["run", "pipelines/customer-delta.yaml"]).passes();
    let database = place.open(DATABASE);
    let count = |what: &str| number(&database, &format!("SELECT count(*) FROM {what}"));
    let new = "account JOIN delta_key_map_account USING (account_id)";
    assert!(count(&format!("{new} WHERE parent_account_id IS NULL")) > 400);
    assert_eq!(count(&format!("{new} WHERE parent_account_id > account_id")), 1, "line 4 refers to line 7");
    assert!(count("meter JOIN delta_key_map_meter USING (meter_id) WHERE service_point_id IS NULL") > 0);
}

#[test]
fn use_case_2_and_then_1_keep_both_runs_and_key_maps() {
    let place = Place::samples();
    place.pipeline(&["run", "pipelines/customer-delta.yaml"]).passes();
    let after_first = place.everything(DATABASE);
    place.pipeline(&["run", "pipelines/meter-reads.yaml"]).passes();
    let after_second = place.everything(DATABASE);
    for (table, rows) in
        after_first.iter().filter(|(table, _)| !["meter_read", "sqlite_sequence"].contains(&table.as_str()))
    {
        let gone = rows.iter().any(|row| after_second[table].binary_search(row).is_err());
        assert!(!gone, "{table}: the second run changed what the first one wrote");
    }
    assert_eq!(after_second["delta_run"].len(), 2);
    assert_eq!(after_second["delta_file"].len(), 9);
}

#[test]
fn second_run_of_the_same_files_is_refused() {
    for pipeline in ["pipelines/customer-delta.yaml", "pipelines/meter-reads.yaml"] {
        let place = Place::samples();
        place.pipeline(&["run", pipeline]).passes();
        let files = place.files();
        for command in ["run", "validate", "plan"] {
            let ran = place.pipeline(&[command, pipeline]);
            ran.fails(77, &["loaded already", "../sample-data/", "by run ", "hint: "]);
            assert_eq!(ran.stdout, "");
        }
        assert_eq!(place.files(), files, "{pipeline}: a refused run writes nothing");
    }
}

#[test]
fn a_renamed_copy_of_a_loaded_file_is_refused_under_both_names() {
    let place = Place::samples();
    let only = &["run", "pipelines/customer-delta.yaml", "--select", "person"];
    place.pipeline(only).passes();
    let before = place.everything(DATABASE);
    let folder = "sample-data/customer";
    std::fs::rename(place.path(&format!("{folder}/person-1.csv")), place.path(&format!("{folder}/person-9.csv")))
        .unwrap();
    std::fs::remove_file(place.path(&format!("{folder}/person-2.csv"))).unwrap();
    place.pipeline(only).fails(
        77,
        &["loaded already", "`../sample-data/customer/person-9.csv`", "as `../sample-data/customer/person-1.csv`"],
    );
    assert_same(&place.everything(DATABASE), &before);
}

#[test]
fn same_delta_gives_the_same_database_on_any_threads() {
    for pipeline in ["customer-delta", "meter-reads"] {
        let run = |threads: &str, batch_rows: &str| {
            let place = Place::samples();
            let file = format!("pipelines/{pipeline}.yaml");
            let report = place.report(&["run", &file, "--threads", threads, "--batch-rows", batch_rows], 0);
            let rejects = place.rejects(&report);
            let mut files: Vec<_> = std::fs::read_dir(&rejects).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
            files.sort();
            let rejects: Vec<_> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
            let id = report["run"].as_str().unwrap().to_owned();
            let mut tables = place.everything(DATABASE);
            tables.remove("delta_run");
            tables.remove("delta_migration");
            // The run's id is all that may differ.
            for row in tables.values_mut().flatten() {
                *row = row.replace(&id, "RUN");
            }
            (tables, rejects)
        };
        let (meant, rejects) = run("2", "8192");
        for (threads, batch_rows) in [("1", "5000"), ("7", "5000"), ("1", "1"), ("7", "17")] {
            let (found, other_rejects) = run(threads, batch_rows);
            assert_same(&found, &meant);
            assert_eq!(other_rejects, rejects, "{pipeline}: {threads} threads, batches of {batch_rows}");
        }
    }
}

#[test]
fn validate_and_plan_leave_every_byte_and_no_file() {
    for pipeline in ["pipelines/customer-delta.yaml", "pipelines/meter-reads.yaml"] {
        let place = Place::samples_with_production();
        let before = place.files();
        for command in ["plan", "validate", "check", "explain", "runs"] {
            place.pipeline(&[command, pipeline]).passes();
            let mut after = place.files();
            if command == "validate" {
                after.retain(|name, _| !name.starts_with("pipelines/runs/"));
            }
            assert_eq!(after, before, "{command} {pipeline}");
            std::fs::remove_dir_all(place.path("pipelines/runs")).ok();
        }
    }
}

#[test]
fn validate_and_plan_create_no_missing_database() {
    let place = Place::samples();
    let before = place.files();
    place.pipeline(&["plan", "pipelines/customer-delta.yaml"]).passes();
    assert_eq!(place.files(), before);
    place.pipeline(&["validate", "pipelines/customer-delta.yaml"]).passes();
    assert!(!place.path(DATABASE).exists());
}

#[test]
fn validate_finds_the_rejects_and_the_verdict_of_the_run() {
    for pipeline in ["pipelines/customer-delta.yaml", "pipelines/meter-reads.yaml"] {
        let place = Place::samples();
        let foreseen = place.report(&["validate", pipeline], 0);
        let ran = place.report(&["run", pipeline], 0);
        for name in ["person", "account", "service_point", "service_agreement", "agreement_rate", "meter", "meter_read"]
        {
            let file = |report| std::fs::read(place.rejects(report).join(format!("{name}.csv"))).ok();
            assert_eq!(file(&foreseen), file(&ran), "{name}");
        }
        assert_eq!((&foreseen["verdict"], &ran["verdict"]), (&"passed".into(), &"loaded".into()));
    }
}

#[test]
fn plan_foresees_the_keys_and_counts_of_the_run() {
    for pipeline in ["pipelines/customer-delta.yaml", "pipelines/meter-reads.yaml"] {
        let place = Place::samples();
        let plan = place.report(&["plan", pipeline], 0);
        let run = place.report(&["run", pipeline], 0);
        let (planned, ran) = (plan["tables"].as_array().unwrap(), run["tables"].as_array().unwrap());
        assert_eq!(planned.len(), ran.len());
        for (planned, ran) in planned.iter().zip(ran) {
            for field in ["name", "files", "read", "rejected", "skipped", "accepted", "keys", "checks"] {
                assert_eq!(planned[field], ran[field], "{field} of {}", ran["name"]);
            }
            assert_eq!(planned["accepted"], ran["inserted"]);
            assert_eq!(planned["keys"].is_null(), ran["name"] == "agreement_rate");
        }
    }
}

#[test]
fn run_row_holds_the_report_and_the_keys() {
    let place = Place::samples();
    let report = place.report(&["run", "pipelines/customer-delta.yaml"], 0);
    let database = place.open(DATABASE);
    for table in report["tables"].as_array().unwrap().iter().filter(|table| !table["keys"].is_null()) {
        let name = table["name"].as_str().unwrap();
        let key = key_column(name);
        let sql = format!("SELECT min({key}) AS a, max({key}) AS b, count(*) AS c FROM delta_key_map_{name}");
        let found = ordered_rows(&database, &sql).remove(0).replace('\'', "");
        let text = |value: &serde_json::Value| value.to_string().replace('"', "");
        let meant = [&table["keys"][0], &table["keys"][1], &table["inserted"]].map(text).join("|");
        assert_eq!(found, meant, "{name}");
    }
    let stored: serde_json::Value =
        serde_json::from_str(&strings(&database, "SELECT report FROM delta_run")[0]).unwrap();
    assert_eq!((&stored["tables"], &stored["run"]), (&report["tables"], &report["run"]));
}
