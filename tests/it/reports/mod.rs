//! Reports: all formats of real runs, stored reports, hostile data, and large reports.

mod browser;
mod chromium;
mod hostile;
mod large;

use serde_json::Value;

use crate::server::Server;
use crate::support::{Place, REPOSITORY};

const CUSTOMER: &str = "pipelines/customer-delta.yaml";
const ALL: &str = "html=r.html,json=r.json,junit=r.xml,md=r.md";

/// Writes a delta of one table for SQLite: the SQL of the table, its CSV lines, and the rest of its entry in the pipeline file.
pub fn small(sql: &str, csv: &str, rest: &str) -> Place {
    let place = Place::new();
    place.database("live.db", sql);
    place.write("item.csv", csv);
    let text = format!(
        "version: 1\nname: small\ntarget: {{ url: 'sqlite:live.db' }}\ntables:\n  item:\n    source: {{ path: item.csv }}\n    legacy_key: [ref]\n{rest}"
    );
    place.write("p.yaml", text);
    place
}

fn schema() -> jsonschema::Validator {
    let place = Place::new();
    let schema = place.pipeline(&["schema", "report"]).passes().stdout.clone();
    let stored = std::fs::read_to_string(std::path::Path::new(REPOSITORY).join("docs/report.schema.json")).unwrap();
    assert!(schema == stored, "`pipeline schema report > docs/report.schema.json` brings it up to date");
    jsonschema::validator_for(&serde_json::from_str(&stored).unwrap()).unwrap()
}

fn hold(validator: &jsonschema::Validator, report: &Value) {
    let errors: Vec<_> =
        validator.iter_errors(report).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn json_reports_conform_to_the_published_schema() {
    let validator = schema();
    let place = Place::samples();
    for command in [&["validate", CUSTOMER][..], &["plan", CUSTOMER], &["run", CUSTOMER, "--mock"], &["run", CUSTOMER]]
    {
        let report = place.report(command, 0);
        hold(&validator, &report);
        let mut wrong = report.clone();
        wrong["tables"][0]["read"] = Value::from("many");
        assert!(!validator.is_valid(&wrong));
    }
}

#[test]
fn counts_and_examples_match_the_reject_files() {
    let place = Place::samples();
    let report = place.report(&["validate", CUSTOMER], 0);
    for table in report["tables"].as_array().unwrap() {
        let sum = |spreads: &Value| {
            spreads
                .as_array()
                .unwrap()
                .iter()
                .map(|spread| {
                    let parts: u64 =
                        spread["parts"].as_array().unwrap().iter().map(|rows| rows.as_u64().unwrap()).sum();
                    assert_eq!(Some(parts), spread["rows"].as_u64(), "{spread}");
                    parts
                })
                .sum::<u64>()
        };
        assert_eq!(Some(sum(&table["places"])), table["rejected"].as_u64(), "{}", table["name"]);
        let records: u64 =
            table["files"].as_array().unwrap().iter().map(|file| file["records"].as_u64().unwrap()).sum();
        assert_eq!(Some(records), table["read"].as_u64(), "{}", table["name"]);
        let name = table["name"].as_str().unwrap();
        assert_eq!(table["rejects"], serde_json::json!([format!("{name}.csv"), format!("{name}.parquet")]));
        let bytes = std::fs::read(place.rejects(&report).join(format!("{name}.csv"))).unwrap();
        let records = crate::support::csv_records(&bytes);
        let column = |name: &str| records[0].iter().position(|column| column == name).unwrap();
        for check in table["checks"].as_array().unwrap() {
            let violations = check["violations"].as_u64().unwrap();
            let evidence = &check["evidence"];
            assert_eq!(evidence.is_null(), violations == 0, "{check}");
            if violations == 0 {
                continue;
            }
            assert_eq!(sum(&evidence["files"]), violations, "{check}");
            let examples = evidence["examples"].as_array().unwrap();
            assert_eq!(examples.len() as u64, violations.min(5), "{check}");
            for example in examples.iter().filter(|_| check["severity"] == "error") {
                // The example matches the reject file in location, check, value, and reason.
                let place = (example["file"].as_str().unwrap(), example["line"].to_string());
                let reject = records[1..]
                    .iter()
                    .find(|record| {
                        (record[column("_reject_file")].as_str(), record[column("_reject_line")].clone()) == place
                    })
                    .unwrap_or_else(|| panic!("{example} is not in the reject file"));
                assert!(reject[column("_reject_check")].contains(check["name"].as_str().unwrap()), "{example}");
                assert!(reject[column("_reject_reason")].contains(example["reason"].as_str().unwrap()), "{example}");
                if let Some(value) = example["value"].as_str() {
                    assert!(reject[column("_reject_value")].contains(value), "{example}");
                }
            }
            let values = evidence["values"].as_array().unwrap();
            let counted: u64 = values.iter().map(|value| value["rows"].as_u64().unwrap()).sum();
            assert!(
                counted <= evidence["counted"].as_u64().unwrap() && evidence["counted"].as_u64().unwrap() <= violations
            );
        }
    }
}

/// Returns the test cases of JUnit XML: their names, and whether they failed.
fn cases(xml: &str) -> Vec<(String, bool)> {
    let part = |text: &str, begin: &str| text.split_once(begin).unwrap().1.split('"').next().unwrap().to_owned();
    let cases = xml.split("<testcase ").skip(1);
    cases.map(|case| (part(&format!(" {case}"), " name=\""), case.contains("<failure"))).collect()
}

#[test]
fn junit_cases_fail_if_their_table_blocks_the_load() {
    let place = Place::samples();
    let report = place.report(&["validate", CUSTOMER, "--report", "junit=ok.xml"], 0);
    let checks: usize =
        report["tables"].as_array().unwrap().iter().map(|table| table["checks"].as_array().unwrap().len()).sum();
    let tables = report["tables"].as_array().unwrap().len();
    let ok = cases(&place.text("ok.xml"));
    assert_eq!(ok.len(), checks + tables);
    assert!(ok.iter().all(|(_, failed)| !failed), "rejects within the thresholds fail nothing");

    let strict = place.text(CUSTOMER).replace("max_rejects: 5%", "max_rejects: 13");
    place.write("pipelines/strict.yaml", strict);
    let report = place.report(&["validate", "pipelines/strict.yaml", "--report", ALL], 1);
    let failing = |table: &Value| -> usize {
        if table["reasons"].as_array().unwrap().is_empty() {
            return 0;
        }
        let checks = table["checks"].as_array().unwrap();
        checks.iter().filter(|check| check["violations"] != 0 && check["severity"] == "error").count() + 1
    };
    let expected: usize = report["tables"].as_array().unwrap().iter().map(failing).sum();
    let found = cases(&place.text("r.xml"));
    assert!(expected > 3 && found.iter().filter(|(_, failed)| *failed).count() == expected, "{found:?}");
    assert!(place.text("r.md").contains("## ❌ customer-delta: failed its checks; nothing was loaded"));
    assert!(place.text("r.html").contains("Failed its checks; nothing was loaded"));
}

#[test]
fn annotations_point_to_the_line_of_the_check() {
    let place = small(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, ref TEXT NOT NULL, price REAL)",
        "ref,price\na,1\n,2\nc,-3\nd,-4\n",
        "    key: { column: id }\n    checks:\n      - range: { column: price, min: 0 }\n",
    );
    let ran = place.pipeline(&["validate", "p.yaml", "--output", "github"]);
    assert_eq!(ran.code, 1);
    let lines: Vec<_> = ran.stdout.lines().collect();
    let number = |wanted: &str| place.text("p.yaml").lines().position(|line| line.contains(wanted)).unwrap() + 1;
    let (table, range) = (number("  item:"), number("- range:"));
    assert!(
        lines[0].starts_with(&format!("::error file=p.yaml,line={table},title=item%3A nothing was loaded::`item`: ")),
        "{}",
        lines[0]
    );
    let find =
        |title: &str| *lines.iter().find(|line| line.contains(title)).unwrap_or_else(|| panic!("{title} in {lines:?}"));
    let of_range = find("title=item%3A range(price)::");
    assert!(of_range.starts_with(&format!("::error file=p.yaml,line={range},")), "{of_range}");
    assert!(of_range.ends_with("%0Afirst at item.csv:4: -3.0"), "{of_range}");
    assert_eq!(lines.len(), 1 + 3, "the reason and three checks, each once: {lines:?}");
    assert!(find("title=item%3A not_null(ref)::").starts_with(&format!("::error file=p.yaml,line={table},")));
}

#[test]
fn stored_reports_are_printed_again() {
    let place = Place::samples();
    let later = |arguments: &[&str]| place.pipeline(&[&["report", CUSTOMER], arguments].concat());
    later(&[]).fails(64, &["no report of this pipeline is stored", "hint: "]);

    // The report of a validation is stored in the folder of runs. Without an ID, the last one is printed.
    place.pipeline(&["validate", CUSTOMER, "--report", ALL]).passes();
    let first: Vec<_> = ["r.html", "r.json", "r.xml", "r.md"].map(|name| place.text(name)).into();
    later(&["--report", "html=2.html,json=2.json", "--report", "junit=2.xml,md=2.md"]).passes();
    let again: Vec<_> = ["2.html", "2.json", "2.xml", "2.md"].map(|name| place.text(name)).into();
    assert!(first == again, "the stored report differs");

    // The report of a run includes its journal, and can be read from the target alone.
    let run = place.report(&["run", CUSTOMER, "--report", "html=r.html,md=r.md,json=r.json"], 0);
    let id = run["run"].as_str().unwrap();
    let (html, json) = (place.text("r.html"), place.text("r.json"));
    assert!(html.contains("Run history") && html.contains("committed: rows and key mappings are in production"));
    later(&[id, "--report", "html=2.html,json=2.json"]).passes();
    assert!(html == place.text("2.html") && json == place.text("2.json"));
    std::fs::remove_dir_all(place.path("pipelines/runs")).unwrap();
    later(&["--report", "html=3.html,json=3.json"]).passes();
    let kept: Value = serde_json::from_str(&place.text("3.json")).unwrap();
    assert_eq!((&kept["run"], &kept["tables"], &kept["verdict"]), (&run["run"], &run["tables"], &run["verdict"]));
    assert!(place.text("3.html").contains("Loaded 3,155 rows into 6 tables"));
    assert!(!place.text("3.html").contains("href="), "deleted reject files are not linked");

    // A later rollback is in the headline.
    place.pipeline(&["rollback", CUSTOMER, id]).passes();
    later(&[id, "--report", "html=4.html,md=4.md"]).passes();
    assert!(place.text("4.html").contains("; rolled back since"));
    assert!(place.text("4.md").contains("## ⚠️ customer-delta: "));
    later(&["../../etc"]).fails(64, &["no report found for run `../../etc`"]);
}

#[test]
fn links_lead_to_the_reject_files() {
    let place = Place::samples();
    place.write("out/deep/keep", "");
    place.pipeline(&["validate", CUSTOMER, "--report", "html=out/deep/r.html"]).passes();
    let html = place.text("out/deep/r.html");
    let links: Vec<_> = html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(links.len() > 12, "{links:?}");
    for link in links {
        assert!(place.path("out/deep").join(link).is_file(), "{link}");
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn the_report_of_an_interrupted_run_begins_with_its_state() {
    let place = Place::samples();
    let cut = place.pipeline_with(&["run", CUSTOMER], &[("FAILPOINTS", "started=return")]);
    assert_eq!(cut.code, -9, "it is killed");
    let ran = place.pipeline(&["report", CUSTOMER, "--report", "html=r.html"]);
    let first = ran.passes().stdout.lines().next().unwrap();
    assert!(
        first.starts_with("customer-delta: run ") && first.ends_with("; none of its rows are in production"),
        "{first}"
    );
    let html = place.text("r.html");
    assert!(
        html.contains("; none of its rows are in production")
            && html.contains("Nothing was loaded. Production is unchanged.")
    );
    assert!(!html.contains("not-ok\">"), "the counts add up");
}

#[test]
fn reports_are_read_from_postgresql_alone() {
    let (place, database) = (Place::samples(), Server::shared().database(""));
    let url = database.url();
    let at = |arguments: &[&str]| place.pipeline_with(arguments, &[("DATABASE_URL", &url)]);
    at(&["run", CUSTOMER, "--report", "html=1.html"]).passes();
    std::fs::remove_dir_all(place.path("pipelines/runs")).unwrap();
    at(&["report", CUSTOMER, "--report", "html=2.html"]).passes();
    for name in ["1.html", "2.html"] {
        let html = place.text(name);
        for text in [
            "Loaded 3,155 rows into 6 tables",
            "committing transaction ",
            "read back: every row has the expected values",
        ] {
            assert!(html.contains(text), "{name} does not contain {text:?}");
        }
        let target = url.split_once('@').unwrap().1;
        assert!(html.contains(target) && !html.contains(&url), "{target}");
    }
}
