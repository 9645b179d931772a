//! The output of the commands, with its stream and exit code.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::{Place, REPOSITORY, Ran};

const CUSTOMER: &str = "pipelines/customer-delta.yaml";
const READS: &str = "pipelines/meter-reads.yaml";

/// Compares with a snapshot, after masking run IDs and times.
macro_rules! snapshot {
    ($place:expr, $name:expr, $text:expr) => {{
        let folder = $place.path("").display().to_string();
        let text = $text.replace(folder.trim_end_matches('/'), "[FOLDER]");
        insta::with_settings!({
            filters => vec![
                (r"\d{8}T\d{6}-[0-9a-f]{4}", "[RUN]"),
                (r"\d+\.\d\d s", "[TIME]"),
                (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "[BEGAN]"),
                (r"\[RUN\] +", "[RUN]  "),
                (r"^ run +pipeline", " run  pipeline"),
            ],
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, { insta::assert_snapshot!($name, text) });
    }};
}

/// Returns both streams and the exit code.
fn whole(ran: &Ran) -> String {
    format!("exit code {}\n----- stdout\n{}----- stderr\n{}", ran.code, ran.stdout, ran.stderr)
}

#[test]
fn the_output_for_the_samples_matches_the_snapshots() {
    let place = Place::samples();
    snapshot!(place, "check", whole(&place.pipeline(&["check", CUSTOMER])));
    snapshot!(place, "runs_empty", whole(&place.pipeline(&["runs", CUSTOMER])));
    snapshot!(place, "plan", whole(&place.pipeline(&["plan", CUSTOMER])));
    snapshot!(place, "validate", whole(&place.pipeline(&["validate", READS])));
    snapshot!(place, "explain", whole(&place.pipeline(&["explain", READS])));
    snapshot!(place, "run_customer", whole(&place.pipeline(&["run", CUSTOMER])));
    snapshot!(place, "run_reads", whole(&place.pipeline(&["run", READS])));
    snapshot!(place, "run_again", whole(&place.pipeline(&["run", CUSTOMER])));
    snapshot!(place, "runs", whole(&place.pipeline(&["runs", CUSTOMER])));
}

#[test]
fn runs_shows_one_run_and_rejects_an_unknown_id() {
    let place = Place::samples();
    let report = place.report(&["run", READS], 0);
    let id = report["run"].as_str().unwrap();
    let one = place.pipeline(&["runs", READS, id]);
    assert!(one.passes().stdout.starts_with("meter-reads: loaded 985 rows into 1 table\n"), "{}", one.stdout);
    let json = place.report(&["runs", READS, id], 0);
    assert_eq!((&json["run"], &json["report"]["tables"]), (&report["run"], &report["tables"]));
    assert_eq!(json["journal"].as_array().unwrap().last().unwrap()["event"], "verified");
    assert_eq!(place.report(&["runs", READS], 0).as_array().unwrap().len(), 1);
    place.pipeline(&["runs", READS, "20200101T000000-0000"]).fails(64, &["`20200101T000000-0000`", id, "hint: "]);
}

#[test]
fn plan_prints_the_same_json_that_out_writes() {
    let place = Place::samples();
    let plan = place.report(&["plan", CUSTOMER, "--out", "plan.json", "--detailed-exitcode"], 2);
    let counts = |name: &str| {
        let table = plan["tables"].as_array().unwrap().iter().find(|table| table["name"] == name).unwrap();
        ["read", "rejected", "skipped", "accepted"].map(|field| table[field].as_u64().unwrap())
    };
    assert_eq!(counts("person"), [500, 13, 0, 487]);
    assert_eq!(counts("meter"), [300, 9, 0, 291]);
    assert_eq!(plan["version"], 1);
    let written: Value = serde_json::from_str(&place.text("plan.json")).unwrap();
    assert_eq!(written, plan);
}

/// A pipeline file with mistakes of every kind.
const WRONG: &str = r#"version: 1
name: many mistakes
target:
  url: sqlite:pipelines/customer.db
  creates_from: production.sql
safeguards: { max_rejects: 5 % }
tables:
  persn:
    source: { path: sample-data/customer/meter.csv }
    legacy_key: [device_ref]
  person:
    source: { path: sample-data/customer/person-1.csv, csv: { delimiter: ";", encoding: latin-1 } }
    legacy_key: [person_reff]
    key: { column: person_id }
    columns:
      last_nam: name
      last_name: trim(nam)
      birth_date: to_date(birth_date
      email: lowr(email)
      note: now()
    relationships:
      - { column: note, from: [note], to: acount }
    checks:
      - unique: [emial]
      - expression: language = 'de'
        severity: fatal
  account:
    source: { path: sample-data/customer/acount.csv }
    legacy_key: [account_ref]
    key: { column: account_id, start_row_number: soon }
  meter:
    source: { path: sample-data/customer/meter.csv }
    legacy_key: [device_ref]
    key: { column: meter_id, prefix: M, width: 10 }
    checks:
      - { name: evil, sql: DELETE FROM meter }
      - { name: no_row, sql: SELECT badge_no FROM meter }
"#;

/// A well-formed pipeline file that does not match its target and its files.
const MISFIT: &str = r#"version: 1
name: misfit
target: { url: sqlite:pipelines/customer.db }
tables:
  persn:
    source: { path: sample-data/customer/meter.csv, ignore: ["*"] }
    legacy_key: [device_ref]
  person:
    source: { path: sample-data/customer/person-1.csv, csv: { delimiter: ";", encoding: latin-1 } }
    legacy_key: [person_reff]
    key: { column: person_id }
    columns:
      last_nam: name
      last_name: trim(nam)
      birth_date: to_date(birth_date
      email: lowr(email)
      person_type: true AND 1
    relationships:
      - { column: note, from: [note], to: acount }
    checks:
      - unique: [emial]
      - expression: language + interval '1 day'
  account:
    source: { path: sample-data/customer/acount.csv }
    legacy_key: [account_ref]
    key: { column: account_id }
  meter:
    source: { path: sample-data/customer/meter.csv }
    legacy_key: [device_ref]
    key: { column: meter_id, prefix: M, width: 10 }
    checks:
      - { name: evil, sql: DELETE FROM meter }
      - { name: no_row, sql: SELECT badge_no FROM meter }
"#;

fn wrong() -> Place {
    let place = Place::samples_with_production();
    place.write("wrong.yaml", WRONG);
    place.write("misfit.yaml", MISFIT);
    place
}

#[test]
fn all_mistakes_are_reported_at_once_with_line_and_hint() {
    let place = wrong();
    let mut without: Vec<String> = Vec::new();
    for name in ["wrong", "misfit"] {
        let ran = place.pipeline(&["check", &format!("{name}.yaml")]);
        assert_eq!(ran.code, 78, "{}", ran.stderr);
        snapshot!(place, format!("mistakes_{name}"), whole(&ran));
        let blocks: Vec<_> = ran.stderr.split("\n\n").filter(|block| block.contains("--> ")).collect();
        assert!(!blocks.is_empty() && blocks.iter().all(|block| block.contains('^')), "{}", ran.stderr);
        let bare = blocks.iter().filter(|block| !block.contains("= help: "));
        without.extend(bare.map(|block| format!("{name}: {}", block.lines().next().unwrap())));
    }
    assert!(without.is_empty(), "mistakes without a hint:\n{}", without.join("\n"));
}

#[test]
fn no_mistake_hides_another_one() {
    let output = wrong().pipeline(&["check", "misfit.yaml", "--output", "github"]).stdout;
    let mistakes = [
        "persn:",
        "person_reff",
        "last_nam:",
        "trim(nam)",
        "to_date(birth_date",
        "lowr",
        "true AND 1",
        "acount }",
        "emial",
        "interval",
        "acount.csv",
        "DELETE FROM meter",
        "SELECT badge_no",
    ];
    let hidden: Vec<_> = mistakes
        .iter()
        .filter(|mistake| {
            let line = MISFIT.lines().position(|line| line.contains(**mistake)).unwrap() + 1;
            !output.contains(&format!("line={line},"))
        })
        .collect();
    assert!(hidden.is_empty(), "not reported: {hidden:?} in\n{output}");
}

#[test]
fn mistakes_are_printed_as_annotations_or_as_json() {
    let place = wrong();
    let annotations = place.pipeline(&["check", "misfit.yaml", "--output", "github"]);
    assert_eq!((annotations.code, annotations.stderr.as_str()), (78, ""));
    assert!(
        annotations.stdout.lines().all(|line| line.starts_with("::error file=misfit.yaml,line=")),
        "{}",
        annotations.stdout
    );
    snapshot!(place, "mistakes_github", whole(&annotations));
    let json = place.report(&["check", "misfit.yaml"], 78);
    let problems = json["problems"].as_array().unwrap();
    assert_eq!(problems.len(), annotations.stdout.lines().count());
    assert!(problems.iter().all(|problem| problem["line"].as_u64() > Some(0) && problem["column"].as_u64() > Some(0)));
}

#[test]
fn an_invalid_command_line_exits_with_64_and_prints_to_stderr() {
    let place = Place::samples();
    for arguments in [
        vec![],
        vec!["rum", CUSTOMER],
        vec!["run"],
        vec!["run", CUSTOMER, "--threads", "0"],
        vec!["run", CUSTOMER, "--output", "xml"],
        vec!["run", CUSTOMER, "--select", "persom"],
        vec!["run", CUSTOMER, "--report", "xml=f"],
        vec!["run", CUSTOMER, "-q", "-v"],
        vec!["run", CUSTOMER, "--var", "novalue"],
        vec!["run", CUSTOMER, "--memory-limit", "much"],
    ] {
        let ran = place.pipeline(&arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{arguments:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty());
    }
    assert!(!place.path("pipelines/customer.db").exists());
    for flag in ["--help", "--version"] {
        let ran = place.pipeline(&[flag]);
        assert!(!ran.passes().stdout.is_empty() && ran.stderr.is_empty());
    }
}

/// The names under `Commands:` of a help text.
fn commands_of(help: &str) -> Vec<&str> {
    let listed = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = listed.lines().take_while(|line| line.starts_with("  "));
    lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn help_of_every_command() {
    let place = Place::new();
    let (mut all, mut open) = (String::new(), vec![Vec::new()]);
    while let Some(path) = open.pop() {
        let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = place.pipeline(&arguments).passes().stdout.clone();
        // The global options are those of the first page.
        let own = help.split("\nGlobal options:").next().filter(|_| !path.is_empty()).unwrap_or(&help);
        let below = commands_of(&help).into_iter().filter(|name| *name != "help").rev();
        open.extend(below.map(|name| [path.clone(), vec![name.to_owned()]].concat()));
        writeln!(all, "===== pipeline {}\n{own}", arguments.join(" ")).unwrap();
    }
    assert!(all.matches("===== ").count() > 15, "{all}");
    snapshot!(place, "help", all);
}

#[test]
fn a_missing_pipeline_file_exits_with_66() {
    Place::new().pipeline(&["run", "none.yaml"]).fails(66, &["none.yaml", "hint: "]);
}

#[test]
fn the_stored_schema_is_current_and_validates_the_samples() {
    let place = Place::samples();
    let schema = place.pipeline(&["schema"]);
    let stored =
        std::fs::read_to_string(std::path::Path::new(REPOSITORY).join("pipelines/pipeline.schema.json")).unwrap();
    assert!(
        schema.passes().stdout == stored,
        "`pipeline schema > pipelines/pipeline.schema.json` brings it up to date"
    );
    let schema: Value = serde_json::from_str(&stored).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("draft-07"));
    let validator = jsonschema::validator_for(&schema).unwrap();
    for file in [CUSTOMER, READS] {
        let text = place.text(file);
        assert!(text.starts_with("# yaml-language-server: $schema=./pipeline.schema.json\n"), "{file}");
        // `off` is a text here, as in the reader of pipeline files.
        let options = serde_yaml::options! { strict_booleans: true };
        let value: Value = serde_yaml::from_str_with_options(&text, options).unwrap();
        let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{file}: {errors:?}");
        let mut wrong = value.clone();
        wrong["tables"]["person"]["sources"] = Value::Null;
        assert!(!validator.is_valid(&wrong), "an unknown field is refused");
    }
}

#[test]
fn completions_and_manual_contain_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = place.pipeline(&["completions", shell]);
        assert!(ran.passes().stdout.contains("validate"), "{shell}");
    }
    assert!(place.pipeline(&["man"]).passes().stdout.contains(".TH pipeline"));
}

#[test]
fn data_goes_to_stdout_and_progress_to_stderr() {
    let place = Place::samples();
    let quiet = place.pipeline(&["plan", READS, "--output", "json"]);
    assert_eq!(quiet.passes().stderr, "", "no progress unless stderr is a terminal");
    let verbose = place.pipeline(&["plan", READS, "--output", "json", "--verbose"]);
    let (one, other): (Value, Value) =
        (serde_json::from_str(&quiet.stdout).unwrap(), serde_json::from_str(&verbose.passes().stdout).unwrap());
    assert_eq!(one["tables"], other["tables"]);
    assert!(verbose.stderr.contains("reading") && verbose.stderr.contains("checking"), "{}", verbose.stderr);
    let lines = place.pipeline(&["run", READS, "--log-format", "json"]);
    assert!(lines.passes().stdout.starts_with("meter-reads: loaded"));
    let events: Vec<Value> = lines.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["event"] == "ended" && event["step"] == "commit"));
    assert!(
        !lines.stdout.contains('\u{1b}') && !verbose.stderr.contains('\u{1b}'),
        "no color unless stderr is a terminal"
    );
    assert!(place.pipeline(&["run", "none.yaml", "--color", "always"]).stderr.contains('\u{1b}'));
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let place = Place::samples_with_production();
    std::fs::copy(place.path("pipelines/customer.db"), place.path("other.db")).unwrap();
    let target = |arguments: &[&str], variables: &[(&str, &str)]| {
        let ran = place.pipeline_with(&[&["plan", READS, "--output", "json"], arguments].concat(), variables);
        serde_json::from_str::<Value>(&ran.passes().stdout).unwrap()["target"].as_str().unwrap().to_owned()
    };
    assert_eq!(target(&[], &[]), "sqlite:customer.db");
    assert_eq!(target(&[], &[("PIPELINE_TARGET", "sqlite:other.db")]), "sqlite:other.db");
    let flag = ["--target", "sqlite:pipelines/customer.db"];
    assert_eq!(target(&flag, &[("PIPELINE_TARGET", "sqlite:other.db")]), "sqlite:pipelines/customer.db");
    place.pipeline_with(&["plan", READS], &[("PIPELINE_THREADS", "none")]).fails(64, &["none"]);
}

#[test]
fn select_and_exclude_filter_the_tables() {
    let place = Place::samples();
    let names = |arguments: &[&str]| {
        let report = place.report(&[&["plan", CUSTOMER], arguments].concat(), 0);
        report["tables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|table| table["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&["--select", "person", "--select", "service_point"]), ["person", "service_point"]);
    assert_eq!(names(&["--select", "person,service_point", "--exclude", "person"]), ["service_point"]);
}

#[test]
fn report_files_contain_the_same_json_as_stdout() {
    let place = Place::samples();
    let report = place.report(&["run", READS, "--report", "json=report.json"], 0);
    assert_eq!(serde_json::from_str::<Value>(&place.text("report.json")).unwrap(), report);
    let place = Place::samples();
    place
        .pipeline(&["validate", READS, "--report", "json=no/folder/r.json"])
        .fails(69, &["no/folder/r.json", "hint: "]);
}
