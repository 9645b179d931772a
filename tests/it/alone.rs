//! `validate` by itself: without a target, and with one that may only be read.

use crate::server::Server;
use crate::support::Place;

/// The sample's pipeline without its target.
fn without_target(place: &Place) {
    let text = place.text("pipelines/customer-delta.yaml");
    let (before, rest) = text.split_once("target:\n").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    place.write("pipelines/alone.yaml", format!("{before}{after}"));
}

/// By table and check, how many rows fail.
fn violations(report: &serde_json::Value) -> Vec<(String, String, u64)> {
    let tables = report["tables"].as_array().unwrap();
    let checks = tables.iter().flat_map(|table| {
        let name = table["name"].as_str().unwrap().to_owned();
        table["checks"].as_array().unwrap().iter().map(move |check| {
            (name.clone(), check["name"].as_str().unwrap().to_owned(), check["violations"].as_u64().unwrap())
        })
    });
    let mut failing: Vec<_> = checks.filter(|(.., violations)| *violations > 0).collect();
    failing.sort();
    failing
}

#[test]
fn validation_without_a_target_checks_the_delta_alone() {
    let place = Place::samples();
    without_target(&place);
    place.pipeline(&["check", "pipelines/alone.yaml"]).passes();
    let alone = place.report(&["validate", "pipelines/alone.yaml"], 0);
    let whole = place.report(&["validate", "pipelines/customer-delta.yaml"], 0);
    let (alone_found, whole_found) = (violations(&alone), violations(&whole));
    // Nothing is found that is not found with a target too; what is declared and needs none is all found.
    for (table, check, rows) in &alone_found {
        let same = whole_found.iter().find(|(other, name, _)| other == table && name == check);
        let (.., all) = same.unwrap_or_else(|| panic!("{table} {check}"));
        assert!(rows <= all, "{table} {check}: {rows} of {all}");
    }
    for check in [
        ("person", "parse", 3),
        ("person", "legacy_key", 2),
        ("person", "cast(birth_date)", 1),
        ("person", "accepted_values(language)", 1),
        ("account", "closed_account_has_date", 1),
        ("account", "parent_rejected(person_id)", 2),
        ("service_point", "matches(point_no)", 1),
        ("meter", "legacy_key", 1),
    ] {
        let (table, name, rows) = check;
        assert!(alone_found.contains(&(table.to_owned(), name.to_owned(), rows)), "{check:?} in {alone_found:?}");
    }
    let warnings: Vec<_> = alone["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(warnings[0].starts_with("no target is configured; these checks were skipped"), "{warnings:?}");
    let account = warnings.iter().find(|text| text.starts_with("`account`: not checked without a target")).unwrap();
    assert_eq!(
        *account,
        "`account`: not checked without a target: `key_map`; `person_id` of 1 row, whose `person` is not in the delta; \
         `parent_account_id` of 1 row, whose `account` is not in the delta"
    );
    assert!(warnings.iter().any(|text| text.contains("`person_not_known_yet`")), "a query of production: {warnings:?}");
    assert_eq!(alone["target"], "no target");
    assert!(!place.files().contains_key("pipelines/customer.db"), "nothing was made");
}

#[test]
fn types_are_those_of_the_file_without_a_target() {
    let place = Place::new();
    place.write("in.csv", "ref,day,n,kind_name,no\nA,31.12.2024,1,x,1\nB,32.12.2024,2,y,1\nC,,3,,2\n");
    place.write(
        "p.yaml",
        "version: 1\nname: p\nsafeguards: { max_rejects: 100% }\ntables:\n  item:\n    source: { path: in.csv }\n    legacy_key: [ref]\n    \
         columns: { day: \"to_date(day, '%d.%m.%Y')\", n: 'CAST(n AS INT)' }\n    \
         relationships:\n      - { column: kind_id, from: [kind_name], to: kind, by: name }\n    \
         checks:\n      - range: { column: n, max: 2 }\n      - unique: [no]\n      - range: { column: day, max: 2024-01-01 }\n",
    );
    let report = place.report(&["validate", "p.yaml"], 0);
    let names: Vec<_> = violations(&report).into_iter().map(|(_, check, rows)| format!("{check}: {rows}")).collect();
    assert_eq!(names, ["cast(day): 1", "range(day): 1", "range(n): 1", "unique(no): 2"]);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("`relationship(kind_id)`") && warnings.contains("`kind_id` of 2 rows"), "{warnings}");
    // `explain` and `check` do without a target as well.
    let explained = place.pipeline(&["explain", "p.yaml"]);
    assert!(explained.passes().stdout.contains("range(n)"), "{}", explained.stdout);
}

#[test]
fn what_needs_a_target_says_that_it_is_missing() {
    let place = Place::samples();
    without_target(&place);
    let file = "pipelines/alone.yaml";
    for command in [
        &["run", file][..],
        &["run", file, "--mock"],
        &["plan", file],
        &["resume", file],
        &["rollback", file, "x"],
        &["runs", file],
        &["setup", file, "--print"],
        &["setup", file],
        &["mode", "status", file],
        &["keymap", "list", file],
        &["keymap", "verify", file],
    ] {
        place.pipeline(command).fails(78, &["the pipeline file names no target", "--target URL"]);
    }
    // One from the command line is as good.
    place.database("pipelines/customer.db", &place.text("sample-data/production.sql"));
    place.pipeline(&["run", file, "--target", "sqlite:pipelines/customer.db"]).passes();
}

#[test]
fn problems_of_the_file_come_before_a_missing_target() {
    let place = Place::new();
    place.write(
        "p.yaml",
        "version: 1\nname: p\ntables:\n  a: { source: { path: a.csv }, legacy_key: [r], colunms: {} }\n",
    );
    place.pipeline(&["run", "p.yaml"]).fails(78, &["unknown field `colunms`"]);
    place.write("a.csv", "r,s\n1,2\n");
    place.write(
        "p.yaml",
        "version: 1\nname: p\ntables:\n  a: { source: { path: a.csv }, legacy_key: [x], columns: { y: z + 1 } }\n",
    );
    place.pipeline(&["validate", "p.yaml"]).fails(78, &["the source has no column `x`", "column `y`"]);
}

#[test]
fn read_only_login_validates_a_database_without_setup() {
    let place = Place::samples();
    let database = Server::shared().database(&place.text("sample-data/production.postgres.sql"));
    let role = format!("reader_{}", database.name);
    database.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'reader'; GRANT USAGE ON SCHEMA public TO {role};
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    ));
    let url = database.url_as(&role, "reader");
    let validate = || {
        let report = place.pipeline_with(
            &["validate", "pipelines/customer-delta.yaml", "--output", "json"],
            &[("DATABASE_URL", &url)],
        );
        violations(&serde_json::from_str(&report.passes().stdout).unwrap())
    };
    let meant = violations(&place.report(&["validate", "pipelines/customer-delta.yaml"], 0));
    let before = database.dump();
    assert_eq!(validate(), meant);
    // Not even temporary tables, and every transaction read-only.
    database.execute(&format!("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC", database.name));
    assert_eq!(validate(), meant);
    database.execute(&format!("ALTER ROLE {role} SET default_transaction_read_only = on"));
    assert_eq!(validate(), meant);
    assert_eq!(database.dump(), before);
    assert_eq!(database.number("SELECT count(*) FROM pg_namespace WHERE nspname IN ('delta', 'staging')"), 0);
    database.execute(&format!("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}; REVOKE ALL ON SCHEMA public FROM {role}; DROP ROLE {role}"));
}

#[test]
fn a_file_that_may_only_be_read_is_validated_and_stays_as_it_is() {
    let place = Place::samples_with_production();
    let database = std::fs::read(place.path("pipelines/customer.db")).unwrap();
    let names = |place: &Place| place.files().into_keys().filter(|name| !name.contains("/runs/")).collect::<Vec<_>>();
    let before = names(&place);
    let ran = place.pipeline_with(
        &["validate", "pipelines/customer-delta.yaml"],
        &[("DATABASE_URL", "sqlite:customer.db?mode=ro")],
    );
    ran.passes();
    assert_eq!(std::fs::read(place.path("pipelines/customer.db")).unwrap(), database);
    assert_eq!(names(&place), before);
    place
        .pipeline_with(&["run", "pipelines/customer-delta.yaml"], &[("DATABASE_URL", "sqlite:customer.db?mode=ro")])
        .fails(69, &["is read-only"]);
}
