//! A pipeline file to start from: what `init` makes of a schema and a delta.

use std::collections::{BTreeMap, BTreeSet};

use crate::server::Server;
use crate::support::{Place, csv_records};

/// What validating a file finds: by table and check, the places of the rows that fail. A row that goes with its parent is told
/// where the parent is.
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

/// The sample's drafted file with what it leaves to the user: two columns that no name tells, and how much may be rejected.
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

/// The hand-written file without what no schema tells: checks of its own, and what its author wants of e-mails and duplicates.
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
    assert_eq!(made.stdout, "pipelines/made.yaml is written\n");
    assert_eq!(made.stderr, "3 things left to you: the file begins with them\n");
    let text = place.text("pipelines/made.yaml");
    for open in [
        "nothing fills the NOT NULL column `person_type` of `person`",
        "nothing fills the NOT NULL column `bill_cycle` of `account`",
        "unused source column `bill_month`",
    ] {
        assert!(text.contains(open), "{text}");
    }
    holds_what_it_says(&place, "pipelines/made.yaml", env);
    place.write("pipelines/made.yaml", decided(&text));
    place.pipeline_with(&["check", "pipelines/made.yaml"], env).passes();
    place.write("pipelines/plain.yaml", plain(&place.text("pipelines/customer-delta.yaml")));
    let (made, written) = (found(&place, "pipelines/made.yaml", env), found(&place, "pipelines/plain.yaml", env));
    assert_eq!(made, written);
    assert!(written.len() > 40, "{written:?}");
}

#[test]
fn what_init_makes_of_the_sample_finds_what_the_hand_written_file_finds() {
    drafts_the_sample("sqlite:pipelines/customer.db", &[]);
}

#[test]
fn what_init_makes_of_the_sample_finds_what_the_hand_written_file_finds_on_postgresql() {
    let production = Place::samples().text("sample-data/production.postgres.sql");
    let database = Server::shared().database(&production);
    drafts_the_sample(&database.url(), &[("DATABASE_URL", &database.url())]);
}

#[test]
fn the_readings_need_no_decision_at_all() {
    let place = Place::samples_with_production();
    let arguments = ["init", "--from", "sqlite:pipelines/customer.db", "--delta", "sample-data/meter-reads"];
    let made = place.pipeline(&[&arguments[..], &["-o", "pipelines/made.yaml"]].concat());
    assert_eq!(made.passes().stderr, "");
    place.pipeline(&["check", "pipelines/made.yaml"]).passes();
    let text = place.text("pipelines/made.yaml");
    assert!(text.contains("- { column: meter_id, from: [badge_no], to: meter, by: badge_no }"), "{text}");
    assert!(text.contains("WHEN 'M' THEN 'MEASURED'"), "{text}");
    // Printed, the file is the same but for the folder that paths start from.
    let printed = place.pipeline(&arguments).passes().stdout.clone();
    let moved =
        text.replace("../sample-data", "sample-data").replace("sqlite:customer.db", "sqlite:pipelines/customer.db");
    assert_eq!(printed, moved.replace("name: made", "name: delta"));
}

/// A schema that is hard to read: quoted names, reserved words, composite keys, references to itself, no primary key.
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

/// What only a server has.
const UGLY_TYPES: &str = r"
    ALTER TABLE ring_a ADD FOREIGN KEY (b) REFERENCES ring_b (id);
    CREATE TYPE mood AS ENUM ('HAPPY', 'SAD');
    CREATE DOMAIN positive AS INTEGER CHECK (VALUE > 0);
    CREATE TABLE typed (id UUID PRIMARY KEY, mood mood NOT NULL, size positive, total NUMERIC(60, 20), day DATE, at TIMESTAMPTZ,
        raw BYTEA, tags TEXT[], made INTEGER GENERATED ALWAYS AS (1 + 1) STORED);";

/// Files for it: names in other cases and forms, and two that fit one table.
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

/// The file says of itself what `check` says of it, whatever the schema.
fn holds_what_it_says(place: &Place, file: &str, env: &[(&str, &str)]) {
    let ran = place.pipeline_with(&["check", file, "--output", "json"], env);
    let text = place.text(file);
    let said: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#   - ")).collect();
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
    let problems = told["problems"].as_array().unwrap();
    assert_eq!(ran.code == 0, problems.is_empty(), "{told:#}");
    assert_eq!(said.len(), problems.len(), "{said:#?}\n{told:#}\n{text}");
    for problem in problems {
        let message = problem["message"].as_str().unwrap();
        assert!(said.iter().any(|said| said.contains(message)), "{message}\n{said:#?}");
    }
}

#[test]
fn an_ugly_schema_gives_a_file_that_says_what_is_left() {
    let place = Place::new();
    place.database("ugly.db", UGLY);
    ugly_delta(&place);
    let made = place.pipeline(&["init", "--from", "sqlite:ugly.db", "--delta", "in", "-o", "made.yaml"]);
    let stderr = made.passes().stderr.clone();
    assert!(stderr.contains("note: no table fits `in/stray.csv`"), "{stderr}");
    assert!(stderr.contains("note: `in/empty.csv` cannot be read"), "{stderr}");
    holds_what_it_says(&place, "made.yaml", &[]);
    insta::assert_snapshot!("init_ugly", place.text("made.yaml"));
    // Without a delta, all of the schema.
    place.pipeline(&["init", "--from", "sqlite:ugly.db", "-o", "schema.yaml"]).passes();
    holds_what_it_says(&place, "schema.yaml", &[]);
    insta::assert_snapshot!("init_ugly_schema", place.text("schema.yaml"));
}

#[test]
fn an_ugly_schema_of_postgresql_gives_a_file_that_says_what_is_left() {
    let place = Place::new();
    let database = Server::shared().database(&format!("{UGLY}{UGLY_TYPES}"));
    ugly_delta(&place);
    let url = database.url();
    place.pipeline(&["init", "--from", &url, "--delta", "in", "-o", "made.yaml"]).passes();
    let env = [("DATABASE_URL", url.as_str())];
    holds_what_it_says(&place, "made.yaml", &env);
    let text = place.text("made.yaml");
    let typed = text.split("  typed:\n").nth(1).unwrap();
    for line in [
        "mood: upper(mood)",
        "total: \"replace(replace(total, '.', ''), ',', '.')\"",
        "day: \"to_date(day, '%d/%m/%Y')\"",
        "Rows bring their key (id)",
    ] {
        assert!(typed.contains(line), "no {line} in\n{typed}");
    }
    for table in ["typed", "\"no\"", "keyless"] {
        let name = table.trim_matches('"');
        place
            .pipeline(&["init", "--from", &url, "--tables", name, "--delta", "in", "--force", "-o", "one.yaml"])
            .passes();
        holds_what_it_says(&place, "one.yaml", &env);
    }
    let password = url.split(':').nth(2).and_then(|rest| rest.split('@').next()).unwrap();
    assert!(!text.contains(password) && text.contains("  url: ${DATABASE_URL}\n"), "{text}");
}

#[test]
fn two_files_for_a_table_or_two_tables_for_a_file_are_a_choice() {
    let place = Place::new();
    place.database("a.db", "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT)");
    place.write("in/item.csv", "ref,name\n1,a\n");
    place.write("in/thing.csv", "ref,name\n1,a\n");
    place.write("in/things.json", "{\"ref\": 1, \"name\": \"a\"}\n");
    place.pipeline(&["init", "--from", "sqlite:a.db", "--delta", "in", "-o", "made.yaml"]).passes();
    let text = place.text("made.yaml");
    assert!(text.contains("# CHOOSE: `in/thing.csv` and `in/things.json` fit equally well"), "{text}");
    assert_eq!(text.matches("# CHOOSE: `in/item.csv` fits other tables as well").count(), 2, "{text}");
    holds_what_it_says(&place, "made.yaml", &[]);
}

#[test]
fn a_folder_without_files_and_a_table_that_is_not_there_are_told() {
    let place = Place::new();
    place.database("a.db", "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
    place.write("in/readme.txt", "nothing here");
    let made = place.pipeline(&["init", "--from", "sqlite:a.db", "--delta", "in", "--tables", "item"]);
    assert!(
        made.passes().stdout.contains("# NOTE: there is no file in the folder that can be read."),
        "{}",
        made.stdout
    );
    assert!(made.stdout.contains("# CHOOSE: no file of the folder fits by its name"), "{}", made.stdout);
    place.pipeline(&["init", "--from", "sqlite:a.db", "--tables", "itme"]).fails(64, &["no table `itme`", "`item`"]);
    place.pipeline(&["init", "--from", "sqlite:a.db", "--delta", "out"]).fails(66, &["cannot list the folder `out`"]);
    place.pipeline(&["init", "--from", "sqlite:none.db"]).fails(69, &["there is no database `sqlite:none.db`"]);
    place.pipeline(&["init", "--delta", "in"]).fails(64, &["no target is named", "--from"]);
    place.database("empty.db", "");
    place.pipeline(&["init", "--from", "sqlite:empty.db"]).fails(78, &["has no table"]);
}

#[test]
fn a_file_that_is_there_is_kept() {
    let place = Place::new();
    place.database("a.db", "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
    place.write("mine.yaml", "mine");
    let init = ["init", "--from", "sqlite:a.db", "-o", "mine.yaml"];
    place.pipeline(&init).fails(64, &["`mine.yaml` is there already", "--force"]);
    place.pipeline(&["init", "-o", "mine.yaml"]).fails(64, &["`mine.yaml` is there already"]);
    assert_eq!(place.text("mine.yaml"), "mine");
    place.pipeline(&[&init[..], &["--force"]].concat()).passes();
    assert!(place.text("mine.yaml").contains("legacy_key: [name]"));
    place
        .pipeline(&["init", "--from", "sqlite:a.db", "-o", "nowhere/x.yaml"])
        .fails(69, &["cannot write `nowhere/x.yaml`"]);
    let names: Vec<_> = place.files().into_keys().collect();
    assert_eq!(names, ["a.db", "mine.yaml"], "nothing stays beside it");
}

#[test]
fn the_template_is_a_pipeline_file_that_checks_without_a_target() {
    let place = Place::new();
    place.pipeline(&["init", "-o", "delta.yaml"]).passes();
    place.write("account.csv", "account_ref,status\nA,ACTIVE\nA,CLOSED\n");
    place.pipeline(&["check", "delta.yaml"]).passes();
    let report = place.report(&["validate", "delta.yaml"], 1);
    assert_eq!(report["tables"][0]["rejected"], 2, "the legacy key is there twice: {report:#}");
    assert_eq!(place.pipeline(&["init"]).passes().stdout, place.text("delta.yaml"));
}
