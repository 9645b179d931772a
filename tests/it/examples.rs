//! The examples of the library, on the samples and on a run that was rolled back.

use delta_pipeline::Verdict;

use crate::support::Place;

#[allow(dead_code, reason = "its `main`")]
#[path = "../../examples/journal.rs"]
mod journal;
#[allow(dead_code, reason = "its `main`")]
#[path = "../../examples/report.rs"]
mod report;
#[allow(dead_code, reason = "its `main`")]
#[path = "../../examples/validate.rs"]
mod validate;

/// A place in which the sample delta was loaded, with its JSON report, and the run.
fn loaded() -> (Place, String) {
    let place = Place::samples_with_production();
    let ran = place.pipeline(&["run", "pipelines/customer-delta.yaml", "--report", "json=report.json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&place.text("report.json")).unwrap();
    let run = report["run"].as_str().unwrap().to_owned();
    (place, run)
}

#[tokio::test]
async fn validate_names_the_violated_checks() {
    let place = Place::samples_with_production();
    let (verdict, lines) = validate::violations(&place.path("pipelines/customer-delta.yaml")).await.unwrap();
    assert_eq!(verdict, Verdict::Passed);
    let ran = place.pipeline(&["validate", "pipelines/customer-delta.yaml", "--output", "json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let mut expected = Vec::new();
    for table in report["tables"].as_array().unwrap() {
        for check in table["checks"].as_array().unwrap().iter().filter(|check| check["violations"] != 0) {
            let (table, name) = (table["name"].as_str().unwrap(), check["name"].as_str().unwrap());
            expected.push(format!("{table}: {} rows violate {name}", check["violations"]));
        }
    }
    assert_eq!(lines, expected);
    assert!(!lines.is_empty());
}

#[test]
fn report_counts_every_row() {
    let (place, _) = loaded();
    let lines = report::summary(&place.text("report.json")).unwrap();
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn journal_has_the_whole_life_of_a_run() {
    let (place, run) = loaded();
    let ran = place.pipeline(&["rollback", "pipelines/customer-delta.yaml", &run]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = journal::events(&place.path("pipelines/customer-delta.yaml"), &run).await.unwrap();
    let kinds: Vec<_> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
    let life = ["started", "backed_up", "reserved", "staged", "committing", "committed", "verified", "rolled back"];
    assert_eq!(kinds, life);
}
