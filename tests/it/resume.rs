//! What is left of a run that did not end well, as its user sees it: `runs`, `resume`, Ctrl-C, and files that come again.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::production::{Holder, Production, until};
use crate::profile::Profile;
use crate::support::{Place, number, strings};

const TABLES: &str =
    "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, owner INTEGER REFERENCES owner);
    CREATE TABLE owner (id INTEGER PRIMARY KEY, code TEXT UNIQUE); INSERT INTO owner VALUES (1, 'a');";

const PIPELINE: &str = "version: 1
name: things
target: { url: 'sqlite:p.db' }
safeguards: { max_rejects: 50% }
tables:
  item:
    source: { path: item.csv }
    legacy_key: [ref]
    key: { column: id }
    existing: skip
    relationships: [{ column: owner, from: [owner], to: owner, by: code }]
    columns: { name: ref }
";

fn things() -> Place {
    let place = Place::new();
    place.database("p.db", TABLES);
    place.write("p.yaml", PIPELINE);
    place.write("item.csv", "ref,owner\nA,a\nB,b\nC,a\n");
    place
}

#[test]
fn allowed_reload_loads_again_and_is_recorded() {
    let place = things();
    place.pipeline(&["run", "p.yaml"]).passes();
    place.open("p.db").execute_batch("INSERT INTO owner VALUES (2, 'b')").unwrap();
    place.write("same-bytes.csv", place.text("item.csv"));
    place.write("p.yaml", PIPELINE.replace("item.csv", "same-bytes.csv"));
    place.pipeline(&["run", "p.yaml"]).fails(77, &["loaded already", "`same-bytes.csv`", "as `item.csv`"]);
    let report = place.report(&["run", "p.yaml", "--allow-reload"], 0);
    assert_eq!((&report["tables"][0]["inserted"], &report["tables"][0]["skipped"]), (&1.into(), &2.into()));
    assert!(
        report["warnings"].to_string().contains("loaded again because of `--allow-reload`"),
        "{}",
        report["warnings"]
    );
    let database = place.open("p.db");
    assert_eq!(strings(&database, "SELECT name FROM item ORDER BY id"), ["A", "C", "B"]);
    assert_eq!(number(&database, "SELECT count(*) FROM delta_file"), 2, "both runs are remembered for ever");
    let told = place.pipeline(&["runs", "p.yaml", report["run"].as_str().unwrap()]);
    assert!(told.passes().stdout.contains("1 of them loaded before"), "{}", told.stdout);
}

#[test]
fn ended_run_is_not_resumed() {
    let place = things();
    place.pipeline(&["resume", "p.yaml"]).fails(64, &["no run of `things`", "`pipeline runs FILE`"]);
    let report = place.report(&["run", "p.yaml"], 0);
    let run = report["run"].as_str().unwrap();
    place.pipeline(&["resume", "p.yaml"]).fails(64, &["no run of `things`"]);
    place.pipeline(&["resume", "p.yaml", run]).fails(77, &[run, "is loaded and cannot be resumed"]);
    place.pipeline(&["resume", "p.yaml", "20200101T000000-0000"]).fails(64, &["has no run `20200101T000000-0000`"]);
}

#[test]
fn failed_run_is_listed_with_reason_and_resumed() {
    let place = things();
    let trigger = "CREATE TRIGGER no BEFORE INSERT ON item BEGIN SELECT raise(ABORT, 'not on a Sunday'); END";
    place.open("p.db").execute_batch(trigger).unwrap();
    place.pipeline(&["run", "p.yaml"]).fails(1, &["not on a Sunday"]);
    let told = place.pipeline(&["runs", "p.yaml"]);
    assert!(told.passes().stdout.trim_end().ends_with(" failed"), "{}", told.stdout);
    place.open("p.db").execute_batch("DROP TRIGGER no").unwrap();
    // What the trigger did is part of the catalog that the plan was made of.
    place
        .pipeline(&["resume", "p.yaml"])
        .fails(77, &["the schema of its tables, was changed", "pipeline rollback FILE 2"]);
    place.open("p.db").execute_batch(trigger).unwrap();
    place.pipeline(&["resume", "p.yaml"]).fails(1, &["not on a Sunday"]);
    place.open("p.db").execute_batch("DROP TRIGGER no").unwrap();
    // A run that failed stands in nobody's way.
    let report = place.report(&["run", "p.yaml"], 0);
    let runs = place.report(&["runs", "p.yaml"], 0);
    let states: Vec<_> = runs.as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failed", "loaded"]);
    let failed = runs[0]["run"].as_str().unwrap();
    let story = place.pipeline(&["runs", "p.yaml", failed]);
    assert_eq!(story.passes().stdout.matches("failed, nothing was loaded: ").count(), 2, "{}", story.stdout);
    assert!(story.stdout.contains("  resumed"), "{}", story.stdout);
    assert_ne!(failed, report["run"].as_str().unwrap());
    let mirror = place.text(&format!("runs/{failed}/journal.ndjson"));
    let kinds: Vec<_> = mirror.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
    assert_eq!(
        kinds.last().unwrap()["event"]["failed"]["reason"].as_str().map(|text| text.contains("Sunday")),
        Some(true)
    );
}

/// Sends a signal to a run that waits for a lock on `item`: its exit code, and what it says.
fn stopped_by(production: &Production, signal: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let url = production.database.local_url("postgres");
    // The program leaves a signal alone that its caller ignores, as `nohup` does.
    let child = Command::new("env")
        .arg("--default-signal=INT,TERM,HUP")
        .arg(assert_cmd::cargo::cargo_bin("pipeline"))
        .args(arguments)
        .env("DATABASE_URL", &url)
        .current_dir(production.place.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The server is shared: other tests wait in other databases.
    let waits = "SELECT count(*) > 0 FROM pg_locks JOIN pg_database AS d ON d.oid = database WHERE NOT granted AND datname = current_database()";
    until(&production.database, waits);
    let stopped = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn sigterm_and_sighup_end_a_run_as_ctrl_c_does() {
    for signal in ["-TERM", "-HUP"] {
        let production = Production::ready();
        production.write("load: { lock_timeout: 60s }\nsafeguards: { conversion_mode: off }\n");
        let holder = Holder::new(&production.database.url());
        holder.execute("BEGIN; LOCK TABLE item IN SHARE MODE");
        let (code, said) = stopped_by(&production, signal, &["run", "p.yaml"]);
        assert_eq!(code, Some(75), "{signal}: {said}");
        assert!(
            said.contains("stopped: nothing was loaded\n\nhint: resume the run with `pipeline resume p.yaml 2"),
            "{signal}: {said}"
        );
    }
}

const NEVER: &str = "CREATE TRIGGER no BEFORE INSERT ON item BEGIN SELECT raise(ABORT, 'not on a Sunday'); END";

#[test]
fn a_run_whose_references_lead_elsewhere_is_not_resumed() {
    let place = things();
    place.open("p.db").execute_batch(NEVER).unwrap();
    place.pipeline(&["run", "p.yaml"]).fails(1, &["not on a Sunday"]);
    // As many rows refer to an owner as before, and to another one.
    let database = place.open("p.db");
    database.execute_batch("UPDATE owner SET code = 'was a'; INSERT INTO owner VALUES (7, 'a')").unwrap();
    place.pipeline(&["resume", "p.yaml"]).fails(
        77,
        &[
            "`owner` of `item` refers to other rows of `owner` (found by `code`)",
            "hint: undo",
            "pipeline rollback FILE 2",
        ],
    );
    // Undone, it is the same run again: it fails as it did.
    database.execute_batch("DELETE FROM owner WHERE id = 7; UPDATE owner SET code = 'a'").unwrap();
    place.pipeline(&["resume", "p.yaml"]).fails(1, &["not on a Sunday"]);
    // A rejected row refers to nothing that is loaded, and what becomes of that is none of the run's business.
    database.execute_batch("INSERT INTO owner VALUES (9, 'nobody')").unwrap();
    place.pipeline(&["resume", "p.yaml"]).fails(1, &["not on a Sunday"]);
}

#[test]
fn run_whose_parents_were_reloaded_is_not_resumed() {
    let place = things();
    place.write("p.yaml", PIPELINE.replace(", by: code", ""));
    let owners = "version: 1\nname: owners\ntarget: { url: 'sqlite:p.db' }\ntables:\n  owner:\n    source: { path: owner.csv }\n    \
                  legacy_key: [ref]\n    key: { column: id }\n    columns: { code: ref }\n";
    place.write("owners.yaml", owners);
    place.write("owner.csv", "ref\nfirst\n");
    place.write("item.csv", "ref,owner\nA,first\nB,first\n");
    let report = place.report(&["run", "owners.yaml"], 0);
    place.open("p.db").execute_batch(NEVER).unwrap();
    place.pipeline(&["run", "p.yaml"]).fails(1, &["not on a Sunday"]);
    place.pipeline(&["rollback", "owners.yaml", report["run"].as_str().unwrap()]).passes();
    place.open("p.db").execute_batch("INSERT INTO owner VALUES (2, 'a live program')").unwrap();
    place.pipeline(&["run", "owners.yaml"]).passes();
    let refused =
        &["`owner` of `item` refers to other rows of `owner` (found by `legacy key`)", "pipeline rollback FILE 2"];
    place.pipeline(&["resume", "p.yaml"]).fails(77, refused);
    assert_eq!(number(&place.open("p.db"), "SELECT count(*) FROM item"), 0);
}

#[test]
fn ctrl_c_ends_with_75_and_names_resume() {
    let production = Production::ready();
    production.write("load: { lock_timeout: 60s }\nsafeguards: { conversion_mode: off }\n");
    let holder = Holder::new(&production.database.url());
    holder.execute("BEGIN; LOCK TABLE item IN SHARE MODE");
    let (code, said) = stopped_by(&production, "-INT", &["run", "p.yaml", "--profile", "p.json"]);
    assert_eq!(code, Some(75), "{said}");
    assert!(
        said.contains("stopped: nothing was loaded\n\nhint: resume the run with `pipeline resume p.yaml 2"),
        "{said}"
    );
    let profile = Profile::read(&production.place, "p.json");
    assert!(profile.is_cut_off("inserting") && !profile.is_cut_off("reading"), "it shows what was going on");
    holder.execute("ROLLBACK");
    std::thread::sleep(Duration::from_millis(200));
    production.pipeline(&["run", "p.yaml"]).fails(75, &["was interrupted", "pipeline resume FILE 2"]);
    let before = production.database.rows("SELECT table_name, first, last FROM delta.block ORDER BY 1");
    production.pipeline(&["resume", "p.yaml"]).passes();
    assert_eq!((production.count("account"), production.count("item")), (15, 25));
    let after = production.database.rows("SELECT table_name, first, last FROM delta.block ORDER BY 1");
    assert_eq!(after, before, "the keys that were reserved are used");
    let story = production.database.rows("SELECT kind FROM delta.event ORDER BY number").concat().join(" ");
    assert_eq!(story, "started reserved staged resumed committing committed verified", "staging is not filled twice");
}
