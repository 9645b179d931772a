//! What comes from the environment is used, and never printed or written.

use crate::server::Server;
use crate::support::Place;

const TOKEN: &str = "canary-5f1e9c";

const PIPELINE: &str = "\
version: 1
name: secrets
target: { url: 'sqlite:${TOKEN}.db' }
safeguards: { max_rejects: 90% }
tables:
  t:
    source: { path: 'in/${TOKEN}*.csv' }
    legacy_key: [ref]
    key: { column: t_id }
    checks:
      - accepted_values: { column: name, values: [Ada, Bo, Cy, '${TOKEN}'] }
      - expression: name <> concat('${TOKEN}', '')
        where: name <> '${TOKEN}'
        name: not_the_token
      - sql: SELECT _row FROM t WHERE name = 'Bo' AND name <> '${TOKEN}'
        name: by_query
";

/// Where the canary is to be seen: a stream of a command, or a file that the program wrote.
fn leaks(pipeline: &str, commands: &[&[&str]]) -> Vec<String> {
    let place = Place::new();
    let database = format!("{TOKEN}.db");
    place.database(
        &database,
        "CREATE TABLE t (t_id INTEGER PRIMARY KEY, name VARCHAR(5) NOT NULL CHECK (name <> 'Di'));",
    );
    place.write(&format!("in/{TOKEN}.csv"), "ref,name\nA,Ada\nB,Bo\nC,Cy\nD,Di\nE,Eve\nF\n");
    place.write("p.yaml", pipeline);
    let mut found = Vec::new();
    for command in commands {
        let ran = place.pipeline_with(command, &[("TOKEN", TOKEN)]);
        for (stream, text) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
            let lines = text.lines().filter(|line| line.contains(TOKEN));
            found.extend(lines.map(|line| format!("{stream} of {}: {}", command.join(" "), line.trim())));
        }
    }
    for name in place.files().keys().filter(|name| !name.starts_with("in/")) {
        let bytes = std::fs::read(place.path(name)).unwrap();
        if bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()) {
            found.push(format!("the bytes of the file {}", name.replace(TOKEN, "***")));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn value_of_the_environment_is_in_no_output() {
    let found = leaks(
        PIPELINE,
        &[
            &["check", "p.yaml"],
            &["explain", "p.yaml"],
            &["validate", "p.yaml", "--report", "html=v.html,md=v.md,junit=v.xml"],
            &["validate", "p.yaml", "--output", "github"],
            &["plan", "p.yaml", "--output", "json", "--out", "plan.json"],
            &["run", "p.yaml", "--verbose", "--report", "json=report.json"],
            &["run", "p.yaml"],
            &["run", "p.yaml", "--output", "json"],
            &["runs", "p.yaml"],
            &["runs", "p.yaml", "--output", "json"],
            &["report", "p.yaml", "--report", "html=r.html,md=r.md,junit=r.xml,json=r.json"],
            &["keymap", "verify", "p.yaml"],
        ],
    );
    assert!(found.is_empty(), "the canary leaks:\n{}", found.join("\n"));
}

#[test]
fn a_value_of_the_environment_is_in_no_message_about_a_mistake() {
    for (from, to) in [
        ("'in/${TOKEN}*.csv'", "'none/${TOKEN}.csv'"),
        ("'sqlite:${TOKEN}.db'", "'sqlite:none/${TOKEN}.db'"),
        ("'sqlite:${TOKEN}.db'", "'${TOKEN}:x'"),
        ("[ref]", "['${TOKEN}']"),
        ("column: name, values", "column: '${TOKEN}', values"),
        ("concat('${TOKEN}', '')", "concat('${TOKEN}', ''"),
        ("concat('${TOKEN}', '')", "\\\"${TOKEN}\\\" + 1"),
        ("SELECT _row FROM t", "DELETE FROM t"),
        ("SELECT _row FROM t", "SELECT _row FROM t JOIN \\\"${TOKEN}\\\" ON true"),
        ("name: not_the_token", "name: not_the_token\n        severity: '${TOKEN}'"),
        ("t_id }", "t_id, start_row_number: '${TOKEN}' }"),
        ("max_rejects: 90%", "max_rejects: '${TOKEN}'"),
    ] {
        let pipeline = PIPELINE.replace(from, &to.replace("\\\"", "\""));
        assert_ne!(pipeline, PIPELINE);
        let commands: [&[&str]; 3] =
            [&["check", "p.yaml"], &["check", "p.yaml", "--output", "json"], &["run", "p.yaml", "--output", "github"]];
        let found = leaks(&pipeline, &commands);
        assert!(found.is_empty(), "with {to} the canary leaks:\n{}", found.join("\n"));
    }
}

#[test]
fn missing_variable_is_reported_with_name_and_message() {
    let place = Place::new();
    place.write("p.yaml", PIPELINE.replace("${TOKEN}.db", "${TOKEN:?ask the operator for it}.db"));
    place.pipeline(&["check", "p.yaml"]).fails(78, &["TOKEN", "ask the operator for it", "p.yaml:3"]);
}

#[test]
fn a_target_is_named_by_server_and_its_password_is_hidden() {
    let place = Place::new();
    let database = Server::shared().database("CREATE TABLE t (t_id INTEGER PRIMARY KEY, name VARCHAR(5));");
    place.write("t.csv", "t_id,name\n1,Ada\n");
    let file = "version: 1\nname: p\ntarget: { url: '${DATABASE_URL}' }\ntables:\n  t:\n    source: { path: t.csv }\n    legacy_key: [t_id]\n";
    place.write("p.yaml", file);
    let url = database.url();
    let (user, server) = url.split_once('@').unwrap();
    let password = user.rsplit(':').next().unwrap();
    let ran = place.pipeline_with(&["validate", "p.yaml", "--output", "json"], &[("DATABASE_URL", &url)]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["target"], server);
    let wrong = url.replace(&database.name, "nowhere");
    let failed = place.pipeline_with(&["validate", "p.yaml"], &[("DATABASE_URL", &wrong)]);
    failed.fails(69, &["has no database `nowhere`"]);
    for text in [&ran.stdout, &ran.stderr, &failed.stderr] {
        assert!(!text.contains(password) && !text.contains("***"), "{text}");
    }
}
