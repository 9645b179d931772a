//! SQLite: rows that go straight into production are the rows that staging would have brought, and what production refuses of them is
//! told as if they had been staged.

use std::sync::atomic::{AtomicBool, Ordering};

use delta_pipeline::internals::progress::{Listener, NoopListener, Progress, Step};
use delta_pipeline::internals::run::{self, CommandOptions, LoadOptions, RunContext};
use delta_pipeline::internals::target::Access;
use rusqlite::Connection;

use crate::support::{Place, assert_same, number, ordered_rows, strings};

const PRODUCTION: &str = "
    CREATE TABLE region (region_id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE parent (
        parent_id INTEGER PRIMARY KEY, code VARCHAR(8) NOT NULL UNIQUE, region_id INTEGER REFERENCES region, since DATE,
        state TEXT NOT NULL DEFAULT 'new');
    CREATE TABLE child (
        child_id INTEGER PRIMARY KEY, parent_id INTEGER NOT NULL REFERENCES parent, region_id INTEGER NOT NULL REFERENCES region,
        amount DECIMAL(12,2), at TIMESTAMP, share REAL, note TEXT, mark STRING);
    INSERT INTO region VALUES (1, 'north'), (2, 'south'), (3, 'west');
    INSERT INTO parent (parent_id, code) VALUES (40, 'old');";

const TABLES: &str = "
tables:
  parent:
    source: { path: parent.csv }
    legacy_key: [ref]
    key: { column: parent_id }
  child:
    source: { path: child.csv }
    legacy_key: [ref]
    key: { column: child_id }
    relationships: [{ column: parent_id, from: [parent], to: parent }]
";

fn place(load: &str) -> Place {
    let place = Place::new();
    place.database("p.db", PRODUCTION);
    place.write(
        "p.yaml",
        format!("version: 1\nname: p\ntarget: {{ url: \"sqlite:p.db\" }}\nload: {{ {load} }}\n{TABLES}"),
    );
    let parents: String = (1..=200).map(|n| format!("P{n},C{n},{},2024-02-{:02}\n", n % 2 + 1, n % 28 + 1)).collect();
    place.write("parent.csv", format!("ref,code,region_id,since\n{parents}"));
    let child = |n: usize| {
        let amount = if n.is_multiple_of(5) { String::new() } else { format!("{}.{:02}", n * 7, n % 100) };
        format!(
            "K{n},P{},{},{amount},2024-02-03 04:05:{:02}.5,0.{n},\"n, \"\"{n}\"\"\",{n}\n",
            n % 200 + 1,
            n % 2 + 1,
            n % 60
        )
    };
    let children: String = (1..=1000).map(child).collect();
    place.write("child.csv", format!("ref,parent,region_id,amount,at,share,note,mark\n{children}"));
    place
}

fn load(place: &Place, listener: &dyn Listener) -> Result<(), String> {
    let request = CommandOptions::new(place.path("p.yaml"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let ran = runtime.block_on(async {
        let session = RunContext::open(&request, Access::Write).await.unwrap();
        run::run(&session, LoadOptions::default(), listener).await
    });
    ran.map(|_| ()).map_err(|error| format!("{error}\n{}", error.next_step().unwrap_or_default()))
}

fn is_staged(database: &Connection) -> bool {
    number(database, "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'staging_%'") > 0
}

/// The key map with what rows are, which a rollback holds them against.
fn mapped(database: &Connection, table: &str) -> Vec<String> {
    ordered_rows(database, &format!("SELECT legacy_key, {table}_id, _content FROM delta_key_map_{table}"))
}

#[test]
fn direct_path_equals_staging_and_rolls_back() {
    for foreign_keys in ["triggers", "set_based"] {
        let staged = place(&format!("foreign_keys: {foreign_keys}, staging: always"));
        let straight = place(&format!("foreign_keys: {foreign_keys}"));
        let before = straight.production("p.db");
        load(&staged, &NoopListener).unwrap();
        load(&straight, &NoopListener).unwrap();
        let (there, here) = (staged.open("p.db"), straight.open("p.db"));
        assert!(is_staged(&there) && !is_staged(&here));
        assert_same(&straight.production("p.db"), &staged.production("p.db"));
        for table in ["parent", "child"] {
            let mapped = mapped(&here, table);
            assert!(mapped.len() >= 200 && mapped == self::mapped(&there, table), "{table}: {mapped:?}");
        }
        let run = strings(&here, "SELECT id FROM delta_run").remove(0);
        straight.pipeline(&["rollback", "p.yaml", &run]).passes();
        assert_same(&straight.production("p.db"), &before);
        assert_eq!(number(&straight.open("p.db"), "SELECT count(*) FROM delta_key_map_child"), 0);
    }
}

/// Changes production between the checks and the load.
struct Planter<'a> {
    place: &'a Place,
    sql: &'a str,
    planted: AtomicBool,
}

impl Listener for Planter<'_> {
    fn on_progress(&self, progress: &Progress) {
        if matches!(progress, Progress::Began(Step::Report)) && !self.planted.swap(true, Ordering::Relaxed) {
            let database = self.place.open("p.db");
            database.execute_batch(&format!("PRAGMA foreign_keys = off; {}", self.sql)).unwrap();
        }
    }
}

#[test]
fn refusal_on_the_direct_path_names_rows_like_staging() {
    let plants = [
        ("INSERT INTO parent (code) VALUES ('C5')", "UNIQUE constraint failed: parent.code", "parent.csv:6"),
        // The parents ask for it first.
        ("DELETE FROM region WHERE region_id = 2", "FOREIGN KEY", "parent.csv:2"),
        (
            "INSERT INTO delta_mapping_child (legacy_key, child_id, segment) VALUES ('K7', 1, 99)",
            "key_map",
            "child.csv:8",
        ),
    ];
    for foreign_keys in ["triggers", "set_based"] {
        for (sql, constraint, line) in plants {
            let told = ["always", "when_needed"].map(|staging| {
                let place = place(&format!("foreign_keys: {foreign_keys}, staging: {staging}"));
                // A first run makes the key map.
                let (parents, children) = (place.text("parent.csv"), place.text("child.csv"));
                place.write("parent.csv", "ref,code,region_id,since\nX,X,3,\n");
                place.write("child.csv", "ref,parent,region_id,amount,at,share,note\nX,X,3,,,,\n");
                load(&place, &NoopListener).unwrap();
                place.write("parent.csv", parents);
                place.write("child.csv", children);
                let planter = Planter { place: &place, sql, planted: AtomicBool::new(false) };
                let error = load(&place, &planter).unwrap_err();
                assert!(planter.planted.into_inner());
                let database = place.open("p.db");
                let loaded = "SELECT (SELECT count(*) FROM parent WHERE code LIKE 'C%' AND region_id IS NOT NULL) + (SELECT count(*) FROM child)";
                assert_eq!(number(&database, loaded), 1, "nothing is loaded: {error}");
                assert_eq!(number(&database, "SELECT count(*) FROM delta_run"), 1);
                error
            });
            assert!(told[1].contains(constraint) && told[1].contains(line), "{}", told[1]);
            assert_eq!(told[0], told[1], "{foreign_keys}: {sql}");
        }
    }
}

#[test]
fn a_trigger_of_any_table_has_all_of_them_staged() {
    let place = place("foreign_keys: triggers");
    let database = place.open("p.db");
    database
        .execute_batch(
            "CREATE TRIGGER named AFTER INSERT ON child BEGIN UPDATE parent SET state = 'used' WHERE parent_id = NEW.parent_id; END",
        )
        .unwrap();
    drop(database);
    load(&place, &NoopListener).unwrap();
    let database = place.open("p.db");
    assert!(is_staged(&database));
    assert_eq!(number(&database, "SELECT count(*) FROM parent WHERE state = 'used'"), 200);
}
