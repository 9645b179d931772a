//! Drafts of pipeline files that `init` creates from a schema and a delta.

use std::collections::{BTreeMap, BTreeSet};

use crate::server::Server;
use crate::support::{Place, csv_records};

/// Validates a file, and returns the locations of the rejected rows by table and check.
fn found(place: &Place, file: &str, env: &[(&str, &str)]) -> BTreeMap<(String, String), BTreeSet<String>> {
    let ran = place.pipeline_with(&["validate", file, "--output", "json"], env);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
    let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for table in report["tables"].as_array().unwrap().iter().filter(|table| table["rejected"] != 0) {
        let name = table["name"].as_str().unwrap();
        let records = csv_records(&std::fs::read(place.rejects(&report).join(format!("{name}.csv"))).unwrap());
        let column = |name: &str| records[0].iter().position(|column| column == name).unwrap();
        let (file, line, checks) = (column("_reject_file"), column("_reject_line"), column("_reject_check"));
        for record in &records[1..] {
            for check in record[checks].split("; ") {
                let at = format!("{}:{}", record[file].rsplit('/').next().unwrap(), record[line]);
                found.entry((name.to_owned(), check.to_owned())).or_default().insert(at);
            }
        }
    }
    found
}

/// Completes the draft for the sample: two columns that cannot be inferred, and the threshold for rejects.
fn decided(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = match line {
            _ if line.contains("CHOOSE: person_type:") => {
                "      person_type: CASE WHEN title = 'Firma' THEN 'B' ELSE 'P' END"
            }
            _ if line.contains("CHOOSE: bill_cycle:") => "      bill_cycle: concat('M', lpad(bill_month, 2, '0'))",
            _ if line.contains("ignore: [title]") => continue,
            line => line,
        };
        lines.push(line);
    }
    lines.join("\n").replace("max_rejects: 0", "max_rejects: 5%")
}

/// Removes from the hand-written file whatever a draft cannot contain: declared checks, and rules for e-mails and duplicates.
fn plain(text: &str) -> String {
    let mut kept = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        inside = line.trim_start().starts_with("checks:") || (inside && (depth > 4 || line.trim().is_empty()));
        if !inside && !line.contains("email: lower") && !line.contains("duplicates: first") {
            kept.push(line);
        }
    }
    kept.join("\n")
}

fn drafts_the_sample(from: &str, env: &[(&str, &str)]) {
    let place = Place::samples_with_production();
    let made =
        place.pipeline(&["init", "--from", from, "--delta", "sample-data/customer", "-o", "pipelines/made.yaml"]);
    made.passes();
    assert_eq!(made.stdout, "created pipelines/made.yaml\n");
    assert_eq!(made.stderr, "3 problems to fix, listed at the top of the file\n");
    let text = place.text("pipelines/made.yaml");
    for open in [
        "nothing fills the NOT NULL column `person_type` of `person`",
        "nothing fills the NOT NULL column `bill_cycle` of `account`",
        "unused source column `bill_month`",
    ] {
        assert!(text.contains(open), "{text}");
    }
    lists_its_problems(&place, "pipelines/made.yaml", env);
    place.write("pipelines/made.yaml", decided(&text));
    place.pipeline_with(&["check", "pipelines/made.yaml"], env).passes();
    place.write("pipelines/plain.yaml", plain(&place.text("pipelines/customer-delta.yaml")));
    let (made, written) = (found(&place, "pipelines/made.yaml", env), found(&place, "pipelines/plain.yaml", env));
    assert_eq!(made, written);
    assert!(written.len() > 40, "{written:?}");
}

#[test]
fn a_sqlite_draft_finds_the_same_as_the_hand_written_file() {
    drafts_the_sample("sqlite:pipelines/customer.db", &[]);
}

#[test]
fn a_postgresql_draft_finds_the_same_as_the_hand_written_file() {
    let production = Place::samples().text("sample-data/production.postgres.sql");
    let database = Server::shared().database(&production);
    drafts_the_sample(&database.url(), &[("DATABASE_URL", &database.url())]);
}

#[test]
fn the_draft_for_meter_reads_is_complete() {
    let place = Place::samples_with_production();
    let arguments = ["init", "--from", "sqlite:pipelines/customer.db", "--delta", "sample-data/meter-reads"];
    let made = place.pipeline(&[&arguments[..], &["-o", "pipelines/made.yaml"]].concat());
    assert_eq!(made.passes().stderr, "");
    place.pipeline(&["check", "pipelines/made.yaml"]).passes();
    let text = place.text("pipelines/made.yaml");
    assert!(text.contains("- { column: meter_id, from: [badge_no], to: meter, by: badge_no }"), "{text}");
    assert!(text.contains("WHEN 'M' THEN 'MEASURED'"), "{text}");
    // The printed file differs only in its relative paths and its name.
    let printed = place.pipeline(&arguments).passes().stdout.clone();
    let moved =
        text.replace("../sample-data", "sample-data").replace("sqlite:customer.db", "sqlite:pipelines/customer.db");
    assert_eq!(printed, moved.replace("name: made", "name: delta"));
}

/// A difficult schema: quoted names, reserved words, composite keys, self-references, no primary key.
const UGLY: &str = r#"
    CREATE TABLE "select" ("order" INTEGER PRIMARY KEY, "two words" VARCHAR(20) NOT NULL UNIQUE, "from: x #1" VARCHAR(9),
        "Group" INTEGER REFERENCES "select" ("order"), "${HOME}" VARCHAR(9));
    CREATE TABLE "no" (part VARCHAR(9), place INTEGER, note VARCHAR(9), PRIMARY KEY (part, place));
    CREATE TABLE deep ("yes" INTEGER NOT NULL REFERENCES "select" ("order"), "1" INTEGER NOT NULL, t VARCHAR(9), PRIMARY KEY ("yes", "1"));
    CREATE TABLE below (id INTEGER PRIMARY KEY, part VARCHAR(9) NOT NULL, place INTEGER NOT NULL,
        FOREIGN KEY (part, place) REFERENCES "no" (part, place));
    CREATE TABLE keyless (a VARCHAR(9), b INTEGER);
    CREATE TABLE "true" (id INTEGER PRIMARY KEY REFERENCES "select" ("order"), t VARCHAR(9));
    CREATE TABLE ring_a (id INTEGER PRIMARY KEY, b INTEGER);
    CREATE TABLE ring_b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES ring_a (id));"#;

/// Types and cycles that only PostgreSQL supports.
const UGLY_TYPES: &str = r"
    ALTER TABLE ring_a ADD FOREIGN KEY (b) REFERENCES ring_b (id);
    CREATE TYPE mood AS ENUM ('HAPPY', 'SAD');
    CREATE DOMAIN positive AS INTEGER CHECK (VALUE > 0);
    CREATE TABLE typed (id UUID PRIMARY KEY, mood mood NOT NULL, size positive, total NUMERIC(60, 20), day DATE, at TIMESTAMPTZ,
        raw BYTEA, tags TEXT[], made INTEGER GENERATED ALWAYS AS (1 + 1) STORED);";

/// Writes files for the difficult schema, with names in other cases and forms.
fn ugly_delta(place: &Place) {
    place.write("in/Select.csv", "Ref,Two Words,from: x #1,group ref,${HOME}\nA,a,1,,x\nB,b,2,A,x\nC,c,3,A,y\n");
    place.write("in/NO.csv", "PART,Place,Note\np,1,x\np,2,y\n");
    place.write("in/deep.tsv", "select_ref\t1\tT\nA\t1\tx\nA\t2\ty\nB\t1\tz\n");
    place.write("in/below.csv", "ref,part,place\nr1,p,1\nr2,p,2\n");
    place.write("in/keyless_export.csv", "a,b\nx,1\n");
    place.write("in/true.csv", "ref,select_ref,t\n1,A,x\n");
    place.write("in/ring_a.csv", "ref,b_ref\n1,2\n");
    place.write("in/ring_b.csv", "ref,a_ref\n2,1\n");
    place.write("in/typed.csv", "id,mood,size,total,day,at\n6f1c7e0a-9d52-4a55-8c1d-0d8f5b1f6a11,happy,1,\"1.234,50\",31/01/2024,2024-01-31T10:00:00Z\n6f1c7e0a-9d52-4a55-8c1d-0d8f5b1f6a12,sad,2,\"2,50\",01/02/2024,2024-01-31T10:00:00Z\n");
    place.write("in/stray.csv", "x\n1\n");
    place.write("in/notes.txt", "no data");
    place.write("in/empty.csv", "");
}

/// Asserts that the file lists the problems that `check` reports.
fn lists_its_problems(place: &Place, file: &str, env: &[(&str, &str)]) {
    let ran = place.pipeline_with(&["check", file, "--output", "json"], env);
    let text = place.text(file);
    let listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#   - ")).collect();
    let output: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
    let problems = output["problems"].as_array().unwrap();
    assert_eq!(ran.code == 0, problems.is_empty(), "{output:#}");
    assert_eq!(listed.len(), problems.len(), "{listed:#?}\n{output:#}\n{text}");
    for problem in problems {
        let message = problem["message"].as_str().unwrap();
        assert!(listed.iter().any(|listed| listed.contains(message)), "{message}\n{listed:#?}");
    }
}

#[test]
fn a_draft_of_a_difficult_schema_lists_its_problems() {
    let place = Place::new();
    place.database("ugly.db", UGLY);
    ugly_delta(&place);
    let made = place.pipeline(&["init", "--from", "sqlite:ugly.db", "--delta", "in", "-o", "made.yaml"]);
    let stderr = made.passes().stderr.clone();
    assert!(stderr.contains("note: no table matches `in/stray.csv`"), "{stderr}");
    assert!(stderr.contains("note: cannot read `in/empty.csv`"), "{stderr}");
    lists_its_problems(&place, "made.yaml", &[]);
    insta::assert_snapshot!("init_ugly", place.text("made.yaml"));
    // Without a delta, the draft contains all tables.
    place.pipeline(&["init", "--from", "sqlite:ugly.db", "-o", "schema.yaml"]).passes();
    lists_its_problems(&place, "schema.yaml", &[]);
    insta::assert_snapshot!("init_ugly_schema", place.text("schema.yaml"));
}

#[test]
fn a_draft_of_a_difficult_postgresql_schema_lists_its_problems() {
    let place = Place::new();
    let database = Server::shared().database(&format!("{UGLY}{UGLY_TYPES}"));
    ugly_delta(&place);
    let url = database.url();
    place.pipeline(&["init", "--from", &url, "--delta", "in", "-o", "made.yaml"]).passes();
    let env = [("DATABASE_URL", url.as_str())];
    lists_its_problems(&place, "made.yaml", &env);
    let text = place.text("made.yaml");
    let typed = text.split("  typed:\n").nth(1).unwrap();
    for line in [
        "mood: upper(mood)",
        "total: \"replace(replace(total, '.', ''), ',', '.')\"",
        "day: \"to_date(day, '%d/%m/%Y')\"",
        "The rows bring the key (id)",
    ] {
        assert!(typed.contains(line), "no {line} in\n{typed}");
    }
    for table in ["typed", "\"no\"", "keyless"] {
        let name = table.trim_matches('"');
        place
            .pipeline(&["init", "--from", &url, "--tables", name, "--delta", "in", "--force", "-o", "one.yaml"])
            .passes();
        lists_its_problems(&place, "one.yaml", &env);
    }
    let password = url.split(':').nth(2).and_then(|rest| rest.split('@').next()).unwrap();
    assert!(!text.contains(password) && text.contains("  url: ${DATABASE_URL}\n"), "{text}");
}

#[test]
fn ambiguous_files_and_tables_are_left_to_the_user() {
    let place = Place::new();
    place.database("a.db", "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT)");
    place.write("in/item-1.csv", "ref,name\n1,a\n");
    place.write("in/thing-1.csv", "ref,name\n1,a\n");
    place.write("in/things.json", "{\"ref\": 1, \"name\": \"a\"}\n");
    place.pipeline(&["init", "--from", "sqlite:a.db", "--delta", "in", "-o", "made.yaml"]).passes();
    let text = place.text("made.yaml");
    assert!(text.contains("# CHOOSE: `in/thing-1.csv` and `in/things.json` match equally well"), "{text}");
    assert_eq!(text.matches("# CHOOSE: `in/item-1.csv` also matches other tables").count(), 2, "{text}");
    lists_its_problems(&place, "made.yaml", &[]);
}

#[test]
fn an_empty_folder_and_a_missing_table_are_reported() {
    let place = Place::new();
    place.database("a.db", "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
    place.write("in/readme.txt", "nothing here");
    let made = place.pipeline(&["init", "--from", "sqlite:a.db", "--delta", "in", "--tables", "item"]);
    assert!(made.passes().stdout.contains("# NOTE: the folder contains no readable files."), "{}", made.stdout);
    assert!(made.stdout.contains("# CHOOSE: no file name in the folder matches"), "{}", made.stdout);
    place.pipeline(&["init", "--from", "sqlite:a.db", "--tables", "itme"]).fails(64, &["no table `itme`", "`item`"]);
    place.pipeline(&["init", "--from", "sqlite:a.db", "--delta", "out"]).fails(66, &["cannot list the folder `out`"]);
    place.pipeline(&["init", "--from", "sqlite:none.db"]).fails(69, &["cannot find database `sqlite:none.db`"]);
    place.pipeline(&["init", "--delta", "in"]).fails(64, &["no target is named", "--from"]);
    place.database("empty.db", "");
    place.pipeline(&["init", "--from", "sqlite:empty.db"]).fails(78, &["has no table"]);
}

#[test]
fn an_existing_file_is_overwritten_only_with_force() {
    let place = Place::new();
    place.database("a.db", "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
    place.write("mine.yaml", "mine");
    let init = ["init", "--from", "sqlite:a.db", "-o", "mine.yaml"];
    place.pipeline(&init).fails(64, &["`mine.yaml` already exists", "--force"]);
    place.pipeline(&["init", "-o", "mine.yaml"]).fails(64, &["`mine.yaml` already exists"]);
    assert_eq!(place.text("mine.yaml"), "mine");
    place.pipeline(&[&init[..], &["--force"]].concat()).passes();
    assert!(place.text("mine.yaml").contains("legacy_key: [name]"));
    place
        .pipeline(&["init", "--from", "sqlite:a.db", "-o", "nowhere/x.yaml"])
        .fails(69, &["cannot write `nowhere/x.yaml`"]);
    let names: Vec<_> = place.files().into_keys().collect();
    assert_eq!(names, ["a.db", "mine.yaml"], "no temporary files remain");
}

#[test]
fn the_template_passes_check_without_a_target() {
    let place = Place::new();
    place.pipeline(&["init", "-o", "delta.yaml"]).passes();
    place.write("account.csv", "account_ref,status\nA,ACTIVE\nA,CLOSED\n");
    place.pipeline(&["check", "delta.yaml"]).passes();
    let report = place.report(&["validate", "delta.yaml"], 1);
    assert_eq!(report["tables"][0]["rejected"], 2, "the legacy key occurs twice: {report:#}");
    assert_eq!(place.pipeline(&["init"]).passes().stdout, place.text("delta.yaml"));
}
