//! What a target requires of every run, whatever a pipeline file says; and tables of one name in several schemas and namespaces.

use crate::production::{Holder, NO_MODE, Production, SQL};
use crate::server::Server;
use crate::support::Place;

/// A SQLite file with a table, and a pipeline for it.
fn file(head: &str) -> Place {
    let place = Place::new();
    place.database("p.db", "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)");
    place.write("item.csv", "ref,name\nA,Ada\nB,Bo\n");
    write(&place, "p.yaml", "item.csv", head);
    place
}

fn write(place: &Place, name: &str, source: &str, head: &str) {
    let table =
        format!("  item:\n    source: {{ path: {source} }}\n    legacy_key: [ref]\n    key: {{ column: id }}\n");
    place.write(name, format!("version: 1\nname: p\ntarget: {{ url: 'sqlite:p.db' }}\n{head}tables:\n{table}"));
}

#[test]
fn a_file_cannot_switch_off_what_the_target_requires() {
    let off = "safeguards: { conversion_mode: off }\n";
    let place = file(off);
    place.pipeline(&["setup", "p.yaml"]).passes();
    place.pipeline(&["run", "p.yaml"]).fails(77, &["not in conversion mode"]);
    place.pipeline(&["policy", "set", "p.yaml", "--conversion-mode", "off"]).passes();
    place.pipeline(&["run", "p.yaml"]).passes();

    let production = Production::new(Server::shared(), SQL, off);
    production.pipeline(&["setup", "p.yaml"]).passes();
    production.pipeline(&["run", "p.yaml"]).fails(77, &["not in conversion mode"]);
    assert_eq!(production.count("account"), 5);
}

#[test]
fn a_target_without_a_stated_policy_requires_nothing() {
    let place = file("");
    let shown = place.pipeline(&["policy", "show", "p.yaml"]).passes().stdout.clone();
    assert!(
        shown.contains("conversion mode  not required") && shown.contains("window           at any time"),
        "{shown}"
    );
    place.pipeline(&["run", "p.yaml"]).passes();
}

#[test]
fn the_policys_window_and_approvals_bind_every_run() {
    let place = file("");
    let set = |arguments: &[&str]| place.pipeline(&[&["policy", "set", "p.yaml"], arguments].concat()).passes().code;
    // A minute of the day that is over, whatever the time.
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let (from, to) = (now.clone() - jiff::Span::new().hours(3), now - jiff::Span::new().hours(2));
    let window = format!("{}-{} UTC", from.strftime("%H:%M"), to.strftime("%H:%M"));
    set(&["--window", &window]);
    place.pipeline(&["run", "p.yaml"]).fails(77, &["the window is closed", "the target's policy has the window"]);
    set(&["--window", "none", "--approvals", "2"]);
    place.pipeline(&["run", "p.yaml"]).fails(77, &["the target requires 2 approvals"]);
    set(&["--approvals", "0", "--max-key-block", "1"]);
    place.pipeline(&["plan", "p.yaml"]).fails(77, &["`item` needs 2 keys, but the target allows 1", "--max-key-block"]);
    place.pipeline(&["run", "p.yaml"]).fails(77, &["the target allows 1"]);
    set(&["--max-key-block", "2"]);
    place.pipeline(&["run", "p.yaml"]).passes();
}

#[test]
fn the_server_holds_a_run_to_the_policy_at_its_end() {
    let production = Production::ready();
    // Another program's run would read no policy: the server refuses its record.
    production
        .database
        .execute("INSERT INTO delta.policy (conversion_mode, approvals, max_key_block) VALUES (true, 0, 100)");
    let record = "SELECT delta.record_run('r1', 'p', '2026', '{}', '{}', '{}', '{}')";
    let refused = Holder::new(&production.database.local_url("postgres")).run(record).unwrap_err().1;
    assert!(refused.contains("requires conversion mode"), "{refused}");
    production.database.execute(
        "INSERT INTO delta.policy (conversion_mode, approvals, max_key_block, opening_window)
         SELECT false, 0, 100, json_build_object('from', to_char(t - interval '3 hours', 'HH24:MI'),
             'to', to_char(t - interval '2 hours', 'HH24:MI'), 'timezone', 'UTC') FROM (SELECT now() AT TIME ZONE 'UTC') AS n (t)",
    );
    let refused = Holder::new(&production.database.local_url("postgres")).run(record).unwrap_err().1;
    assert!(refused.contains("the window that the target requires is closed"), "{refused}");
    production.database.execute(NO_MODE);
    production.database.execute(record);
}

#[test]
fn a_malformed_window_is_refused_and_can_be_replaced() {
    let production = Production::ready();
    let operator = Holder::new(&production.login("operator", "IN ROLE delta_rollback"));
    for window in [
        "garbage",
        "1",
        "{}",
        r#"{"from": "22:00", "to": "06:00", "timezone": "Mars/Olympus"}"#,
        r#"{"from": "10 pm", "to": "06:00", "timezone": "UTC"}"#,
        r#"{"from": "22:00", "timezone": "UTC"}"#,
    ] {
        let set = format!("SELECT delta.set_policy(false, 0, 100, '{window}')");
        let refused = operator.run(&set).unwrap_err();
        assert!(refused.0 == "DP004" && refused.1.contains("the window is malformed"), "{refused:?}");
    }
    operator
        .execute(r#"SELECT delta.set_policy(false, 0, 100, '{"from": "00:00", "to": "00:00", "timezone": "UTC"}')"#);
    // One that is stored nevertheless admits no run, and stops nothing else.
    production.database.execute(NO_MODE);
    production.loads();
    let run = production.database.text("SELECT id FROM delta.run ORDER BY id DESC LIMIT 1");
    production.database.execute(
        "INSERT INTO delta.policy (conversion_mode, approvals, max_key_block, opening_window) VALUES (false, 0, 100, 'garbage')",
    );
    let unreadable = "the window of the target's policy cannot be read: `garbage`";
    production.delta("NEXT", 10);
    production.pipeline(&["run", "p.yaml"]).fails(77, &[unreadable, "--window"]);
    production.pipeline(&["setup", "p.yaml"]).passes();
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
    let shown = production.pipeline(&["policy", "show", "p.yaml"]).passes().stdout.clone();
    assert!(shown.contains("window           cannot be read: `garbage`"), "{shown}");
    production.pipeline(&["policy", "set", "p.yaml", "--approvals", "0"]).fails(64, &[unreadable, "--window none"]);
    production.pipeline(&["policy", "set", "p.yaml", "--window", "none"]).passes();
    production.pipeline(&["run", "p.yaml"]).passes();
}

#[test]
fn only_the_operator_states_the_policy() {
    let production = Production::ready();
    let loader = production.login("loader", "IN ROLE delta_loader");
    let operator = production.login("operator", "IN ROLE delta_rollback");
    let set = ["policy", "set", "p.yaml", "--conversion-mode", "required"];
    production.pipeline_at(&loader, &set).fails(77, &["cannot set the policy"]);
    production.pipeline_at(&operator, &set).passes();
    let shown = production.pipeline_at(&loader, &["policy", "show", "p.yaml"]).passes().stdout.clone();
    assert!(shown.contains("conversion mode  required"), "{shown}");
}

#[test]
fn equal_legacy_keys_of_two_namespaces_stay_apart() {
    let place = file("key_map: { namespace: acme }\n");
    place.pipeline(&["run", "p.yaml"]).passes();
    place.write("again.csv", "ref,name\nA,Other\n");
    write(&place, "again.yaml", "again.csv", "key_map: { namespace: acme }\n");
    let again = place.pipeline(&["run", "again.yaml"]);
    assert!(again.code == 1 && again.stdout.contains("key_map  item      1  rejected"), "{again:?}");
    place.write("other.csv", "ref,name\nA,Other A\nC,Cy\n");
    write(&place, "other.yaml", "other.csv", "key_map: { namespace: globex }\n");
    let ran = place.pipeline(&["run", "other.yaml", "--output", "json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.passes().stdout).unwrap();
    let run = report["run"].as_str().unwrap();
    let names = || {
        let connection = place.open("p.db");
        let mut statement = connection.prepare("SELECT name FROM item ORDER BY id").unwrap();
        let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        names.collect::<Result<Vec<_>, _>>().unwrap()
    };
    assert_eq!(names(), ["Ada", "Bo", "Other A", "Cy"]);
    // A rollback takes the rows of its run, whatever the namespace of the file that asks for it.
    place.pipeline(&["rollback", "p.yaml", run]).passes();
    assert_eq!(names(), ["Ada", "Bo"]);
}

#[test]
fn two_schemas_of_one_database_have_a_key_map_each() {
    let sql = "CREATE SCHEMA north; CREATE SCHEMA south;
        CREATE TABLE north.item (id bigserial PRIMARY KEY, name text, boss bigint REFERENCES north.item);
        CREATE TABLE south.item (id bigserial PRIMARY KEY, name text, boss bigint REFERENCES south.item);
        INSERT INTO south.item (name) VALUES ('of before')";
    let production = Production { place: Place::new(), database: Server::shared().database(sql) };
    for schema in ["north", "south"] {
        let text = format!(
            "version: 1\nname: {schema}\ntarget: {{ url: '${{DATABASE_URL}}', production: {schema} }}\nsafeguards: {{ max_rejects: 1 }}\ntables:\n  item:\n    \
             source: {{ path: {schema}.csv }}\n    legacy_key: [ref]\n    key: {{ column: id }}\n    relationships: [{{ column: boss, from: [boss], to: item }}]\n"
        );
        production.place.write(&format!("{schema}.yaml"), text);
    }
    production.place.write("north.csv", "ref,name,boss\nA,Ann,\n");
    production.place.write("south.csv", "ref,name,boss\nB,Bob,\nC,Cid,A\n");
    for file in ["north.yaml", "south.yaml"] {
        production.pipeline(&["setup", file]).passes();
    }
    production.database.execute(NO_MODE);
    production.pipeline(&["run", "north.yaml"]).passes();
    // What A is in the north, it is not in the south.
    let ran = production.pipeline(&["run", "south.yaml"]);
    assert!(ran.passes().stdout.contains("relationship(boss)"), "{ran:?}");
    assert_eq!(production.database.rows("SELECT name FROM south.item ORDER BY id").concat(), ["of before", "Bob"]);
    let runs = production.database.rows("SELECT id FROM delta.run ORDER BY pipeline").concat();
    production.pipeline(&["rollback", "north.yaml", &runs[0]]).passes();
    assert_eq!(production.database.number("SELECT count(*) FROM north.item"), 0);
    assert_eq!(production.database.number("SELECT count(*) FROM south.item"), 2);
}
