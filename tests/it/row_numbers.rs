//! Rows whose numbers follow four billion others get the same verdicts, keys, and places as those that are counted from 0.

use std::collections::BTreeMap;

use crate::scene::{Delta, FILE, Fate, On, Scene, TABLES};

each_target!(numbers_beyond_32_bits_change_nothing, a_row_that_production_rejects_is_found_beyond_32_bits,);

/// The numbers of the first row: 0, and two from which a few rows reach beyond 32 bits and beyond signed ones.
const FIRST: [&str; 3] = ["0", "4294967293", "2147483645"];

/// What a run leaves: the outcome by table, production's rows with their keys, and the reject files.
#[derive(Debug, PartialEq)]
struct Left {
    tables: Vec<serde_json::Value>,
    rows: Vec<Vec<Vec<String>>>,
    mappings: Vec<Vec<Vec<String>>>,
    rejects: BTreeMap<String, String>,
}

fn run(scene: &Scene, first: &str) -> Left {
    let ran = scene.pipeline_with(&["run", FILE, "--output", "json"], &[("DELTA_FIRST_ROW", first)]);
    let report: serde_json::Value = serde_json::from_str(&ran.passes().stdout).unwrap();
    let tables = report["tables"].as_array().unwrap().iter().map(|table| {
        let mut table = table.clone();
        // Both are of the numbers themselves.
        table.as_object_mut().unwrap().retain(|field, _| field != "verdicts" && field != "references");
        table
    });
    let rejects = scene.place.contents().into_iter().filter_map(|(path, bytes)| {
        let (_, name) = path.rsplit_once("rejects/")?;
        name.strip_suffix(".csv").is_some().then(|| (name.to_owned(), String::from_utf8(bytes).unwrap()))
    });
    let mapping = |table: &str| {
        let name = scene.on.choose(format!("delta_mapping_{table}"), format!("delta.key_map_{table}"));
        let columns = match table {
            "part" => "legacy_key, child_id, seq_no".to_owned(),
            table => format!("legacy_key, {table}_id"),
        };
        scene.rows(&format!("SELECT {columns} FROM {name} ORDER BY legacy_key"))
    };
    Left {
        tables: tables.collect(),
        rows: TABLES.iter().map(|table| scene.rows(&format!("{} ORDER BY 1", table.story))).collect(),
        mappings: TABLES.iter().map(|table| mapping(table.name)).collect(),
        rejects: rejects.collect(),
    }
}

fn numbers_beyond_32_bits_change_nothing(on: On) {
    let made = Scene::new(on);
    let delta = Delta::new("B", 20, Some("A"));
    made.give(&delta);
    let [meant, others @ ..] = FIRST.map(|first| run(&made.copied(), first));
    for (table, of) in TABLES.iter().zip(&meant.tables) {
        assert_eq!(of["inserted"], delta.count(table.name, Fate::Inserted), "{}", table.name);
        assert_eq!(of["rejected"], delta.count(table.name, Fate::Rejected), "{}", table.name);
    }
    assert!(!meant.rejects.is_empty());
    for (first, found) in FIRST[1..].iter().zip(&others) {
        assert_eq!(*found, meant, "from {first}");
    }
}

/// The rows that a trigger rejects while they are inserted are identified by their numbers in staging, or in the batches.
fn a_row_that_production_rejects_is_found_beyond_32_bits(on: On) {
    let made = Scene::new(on);
    made.give(&Delta::new("B", 20, Some("A")));
    made.execute(on.choose(
        "CREATE TRIGGER refuse BEFORE INSERT ON child WHEN NEW.memo = 'child 14-2 of B'
         BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN IF NEW.memo = 'child 14-2 of B' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION refuse()",
    ));
    let said = FIRST.map(|first| {
        let ran = made.copied().pipeline_with(&["run", FILE], &[("DELTA_FIRST_ROW", first)]);
        assert_ne!(ran.code, 0);
        // The hint names the run.
        let (message, _) = ran.stderr.split_once("\n\nhint:").unwrap();
        message.to_owned()
    });
    assert!(said[0].contains("child.csv:29"), "{}", said[0]);
    assert_eq!(said[1], said[0]);
    assert_eq!(said[2], said[0]);
}
