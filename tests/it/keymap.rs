//! The key map brought in from an initial conversion: append only, all of a file or nothing.

use crate::support::{Place, assert_same, number, strings};

const DATABASE: &str = "pipelines/customer.db";
const PIPELINE: &str = "pipelines/customer-delta.yaml";
const IMPORT: [&str; 6] = ["keymap", "import", PIPELINE, "sample-data/account-key-map.csv", "--table", "account"];

fn import(place: &Place, csv: &str) -> crate::support::Ran {
    place.write("map.csv", csv);
    place.pipeline(&["keymap", "import", PIPELINE, "map.csv", "--table", "account"])
}

#[test]
fn imported_mapping_resolves_references_to_old_records() {
    let place = Place::samples_with_production();
    let before = place.production(DATABASE);
    let ran = place.pipeline(&IMPORT);
    assert_eq!(ran.passes().stdout, "account: 2640 mappings read, 0 already present, 2640 imported\n");
    assert_same(&place.production(DATABASE), &before);

    let report = place.report(&["run", PIPELINE], 0);
    let account = &report["tables"][1];
    assert_eq!((&account["rejected"], &account["inserted"]), (&18.into(), &502.into()), "line 266 is loaded");
    let parent = "SELECT account_no || ' ' || parent_account_id FROM account JOIN staging_ck_account USING (account_id)
        WHERE parent_account_id < 202641";
    let parents = strings(&place.open(DATABASE), parent);
    let mapped: i64 =
        number(&place.open(DATABASE), "SELECT account_id FROM delta_key_map_account WHERE legacy_key = 'A-10042'");
    assert_eq!(parents.len(), 1);
    assert!(parents[0].ends_with(&format!(" {mapped}")), "{parents:?}");
}

#[test]
fn an_existing_mapping_imports_nothing_new() {
    let place = Place::samples_with_production();
    place.pipeline(&IMPORT).passes();
    let before = place.everything(DATABASE);
    let again = place.pipeline(&IMPORT);
    assert_eq!(again.passes().stdout, "account: 2640 mappings read, 2640 already present, 0 imported\n");
    assert_same(&place.everything(DATABASE), &before);
    let more = "legacy_key,account_id\nA-10001,200001\n";
    assert_eq!(import(&place, more).passes().stdout, "account: 1 mapping read, 1 already present, 0 imported\n");
}

#[test]
fn contradicting_mapping_is_refused_whole() {
    let place = Place::samples_with_production();
    import(&place, "legacy_key,account_id\nA-1,200001\nA-2,200002\n").passes();
    let before = place.everything(DATABASE);
    for (rows, texts) in [
        ("A-3,200003\nA-1,200004\n", ["A-1", "contradicts the key map", "its key is 200001"]),
        ("A-3,200003\nA-9,200002\n", ["A-9", "contradicts the key map", "belongs to legacy key `A-2`"]),
        ("A-3,200003\nA-4,999999\n", ["A-4", "contradicts production", "`account` has no row 999999"]),
        ("A-3,200003\nA-3,200004\n", ["map.csv:3", "legacy key `A-3`", "line 2"]),
        ("A-3,200003\nA-4,200003\n", ["map.csv:3", "key 200003", "line 2"]),
        ("A-3,200003\nA-4,\n", ["map.csv:3", "`account_id`", "NULL"]),
        ("A-3,200003\n,200004\n", ["map.csv:3", "`legacy_key`", "NULL"]),
        ("A-3,200003\nA-4,many\n", ["map.csv:3", "`account_id`", "invalid integer"]),
        ("A-3,200003\nA-4\n", ["map.csv:3", "1 field", "hint: "]),
    ] {
        import(&place, &format!("legacy_key,account_id\n{rows}")).fails(1, &texts);
        assert_same(&place.everything(DATABASE), &before);
    }
    import(&place, "old,account_id\nA-3,200003\n").fails(66, &["map.csv", "legacy_key", "hint: "]);
    place.pipeline(&["keymap", "import", PIPELINE, "map.csv", "--table", "acount"]).fails(64, &["`acount`", "account"]);
    place.pipeline(&["keymap", "import", PIPELINE, "none.csv", "--table", "account"]).fails(66, &["none.csv"]);
    assert_same(&place.everything(DATABASE), &before);
}

#[test]
fn mapping_is_read_from_parquet_with_composite_legacy_key() {
    let place = Place::samples_with_production();
    place.write("rates.csv", "agreement_ref,seq_no,agreement_id\nS-1|x,1,400001\n");
    let ran = place.pipeline(&["keymap", "import", PIPELINE, "rates.csv", "--table", "agreement_rate"]);
    ran.passes();
    let sql = "SELECT legacy_key || ' = ' || agreement_id || ',' || seq_no FROM delta_key_map_agreement_rate";
    assert_eq!(strings(&place.open(DATABASE), sql), [r"S-1\|x|1 = 400001,1"]);
}

#[test]
fn verify_proves_each_key_and_names_those_that_production_lacks() {
    let place = Place::samples_with_production();
    assert_eq!(place.pipeline(&["keymap", "verify", PIPELINE]).passes().stdout, "the key map is empty\n");
    place.pipeline(&["run", PIPELINE]).passes();
    let ran = place.pipeline(&["keymap", "verify", PIPELINE]);
    let lines: Vec<_> = ran.passes().stdout.lines().collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[6], "pipelines/backups: 6 segments with 3155 mappings, identical to the key map");
    assert!(lines.contains(&"account: 501 mappings, every key exists in production"), "{lines:?}");
    let before = place.files();
    place.pipeline(&["keymap", "verify", PIPELINE]).passes();
    assert_eq!(place.files(), before, "verify writes nothing");
    let delete =
        "DELETE FROM meter WHERE meter_id = (SELECT meter_id FROM delta_key_map_meter WHERE legacy_key = 'D-7001')";
    place.open(DATABASE).execute_batch(delete).unwrap();
    let ran = place.pipeline(&["keymap", "verify", PIPELINE]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout.contains("meter: 291 mappings, 1 key missing in production: legacy keys D-7001"),
        "{}",
        ran.stdout
    );
}
