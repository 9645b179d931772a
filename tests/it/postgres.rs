//! Loads into PostgreSQL: the samples as into SQLite, who may do what, and all that can be in the way.

mod altered;
mod attacks;
mod conflicts;
mod rights;
mod script;
mod triggers;

use std::collections::BTreeSet;

use rusqlite::types::ValueRef;

use crate::production::{Production, SQL, kept, tables};
use crate::server::{Database, Server};
use crate::support::{Place, Ran, Tables, assert_same, is_production, strings};

const CUSTOMER: &str = "pipelines/customer-delta.yaml";
const READS: &str = "pipelines/meter-reads.yaml";

fn at(place: &Place, database: &Database, arguments: &[&str]) -> Ran {
    place.pipeline_with(arguments, &[("DATABASE_URL", &database.url())])
}

/// A value as both databases mean it: without the blanks of `char(n)`, and without zeros that say nothing.
fn plain(value: &str) -> String {
    let value = value.trim_end();
    let is_decimal =
        value.contains('.') && value.trim_start_matches('-').split('.').all(|part| part.parse::<u64>().is_ok());
    if is_decimal { value.trim_end_matches('0').trim_end_matches('.').to_owned() } else { value.to_owned() }
}

/// The rows of a query on SQLite, plain, with `|` between values.
fn of_sqlite(place: &Place, sql: &str) -> Vec<String> {
    let connection = place.open("pipelines/customer.db");
    let mut statement = connection.prepare(sql).unwrap();
    let count = statement.column_count();
    let text = |value: ValueRef<'_>| match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8(text.to_vec()).unwrap(),
    };
    let rows = statement.query_map([], |row| {
        let values: Vec<_> = (0..count).map(|at| plain(&text(row.get_ref(at).unwrap()))).collect();
        Ok(values.join("|"))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn of_postgres(database: &Database, sql: &str) -> Vec<String> {
    let rows = database.rows(sql).into_iter();
    rows.map(|row| row.iter().map(|value| plain(value)).collect::<Vec<_>>().join("|")).collect()
}

/// Holds both productions, and both key maps, against each other.
fn assert_alike(place: &Place, database: &Database) {
    let here = place.open("pipelines/customer.db");
    let names = strings(&here, "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name");
    let (mut found, mut meant) = (Tables::new(), Tables::new());
    let mut compare = |name: &str, columns: &str, in_sqlite: &str, in_postgres: &str| {
        let sorted = |mut rows: Vec<String>| {
            rows.sort();
            rows
        };
        let sql = |table: &str| format!("SELECT {columns} FROM {table}");
        found.insert(name.to_owned(), sorted(of_postgres(database, &sql(in_postgres))));
        meant.insert(name.to_owned(), sorted(of_sqlite(place, &sql(in_sqlite))));
    };
    for name in names.iter().filter(|name| is_production(name)) {
        let columns = strings(&here, &format!("SELECT name FROM pragma_table_info('{name}')")).join(", ");
        compare(name, &columns, name, &format!("public.{name}"));
    }
    for map in names.iter().filter_map(|name| name.strip_prefix("delta_")).filter(|name| name.starts_with("key_map_")) {
        let columns = strings(
            &here,
            &format!("SELECT name FROM pragma_table_info('delta_{map}') WHERE name NOT IN ('run', '_content')"),
        );
        compare(map, &columns.join(", "), &format!("delta_{map}"), &format!("delta.{map}"));
    }
    assert!(found.len() > 8, "{:?}", found.keys());
    assert_same(&found, &meant);
}

#[test]
fn the_sample_deltas_load_into_an_empty_database_as_into_sqlite() {
    let (here, there) = (Place::samples(), Place::samples());
    let database = Server::shared().database("");
    for (pipeline, loaded) in [(CUSTOMER, 487 + 501 + 551 + 599 + 726 + 291), (READS, 985)] {
        if pipeline == READS {
            // The database was made for the first pipeline, and its tables alone are set up.
            let refused = at(&here, &database, &["run", pipeline]);
            refused.fails(
                78,
                &["`meter_read` was not set up for loading", "`pipeline setup FILE`, which runs all of them"],
            );
            at(&here, &database, &["setup", pipeline]).passes();
        }
        let planned = at(&here, &database, &["plan", pipeline, "--detailed-exitcode", "--output", "json"]);
        assert_eq!(planned.code, 2, "{planned:?}");
        let told = at(&here, &database, &["run", pipeline, "--output", "json"]);
        let told: serde_json::Value = serde_json::from_str(&told.passes().stdout).unwrap();
        let planned: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
        let mut inserted = 0;
        for (table, plan) in told["tables"].as_array().unwrap().iter().zip(planned["tables"].as_array().unwrap()) {
            assert_eq!(table["keys"], plan["keys"], "the keys of {}", table["name"]);
            inserted += table["inserted"].as_u64().unwrap();
        }
        assert_eq!(inserted, loaded);
        there.pipeline(&["run", pipeline]).passes();
        assert_alike(&there, &database);

        let after = kept(&database);
        let again = at(&here, &database, &["run", pipeline]);
        again.fails(77, &["loaded already", told["run"].as_str().unwrap(), "hint: "]);
        for command in ["validate", "plan"] {
            at(&here, &database, &[command, pipeline]).fails(77, &["loaded already"]);
        }
        for command in ["check", "explain"] {
            at(&here, &database, &[command, pipeline]).passes();
        }
        let runs = at(&here, &database, &["runs", pipeline]);
        assert!(runs.passes().stdout.contains(told["run"].as_str().unwrap()), "{runs:?}");
        at(&here, &database, &["runs", pipeline, told["run"].as_str().unwrap()]).passes();
        assert_same(&kept(&database), &after);
    }
    let verified = at(&here, &database, &["keymap", "verify", CUSTOMER]);
    assert_eq!(verified.passes().stdout.matches("every key exists in production").count(), 7, "{verified:?}");
    // The sequences go on behind the keys that were given.
    let next =
        database.number("INSERT INTO person (person_type, last_name) VALUES ('B', 'Nach GmbH') RETURNING person_id");
    assert_eq!(database.number(&format!("SELECT count(*) FROM person WHERE person_id >= {next}")), 1);
}

#[test]
fn an_imported_key_map_is_verified_and_resolves_references() {
    let (here, there) = (Place::samples_with_production(), Place::samples_with_production());
    let database = Server::shared().database(&here.text("sample-data/production.postgres.sql"));
    at(&here, &database, &["setup", CUSTOMER]).passes();
    database.execute(crate::production::NO_MODE);
    let import = ["keymap", "import", CUSTOMER, "sample-data/account-key-map.csv", "--table", "account"];
    let before = tables(&database, "public");
    let ran = at(&here, &database, &import);
    assert_eq!(ran.passes().stdout, "account: 2640 mappings read, 0 already present, 2640 imported\n");
    let again = at(&here, &database, &import);
    assert_eq!(again.passes().stdout, "account: 2640 mappings read, 2640 already present, 0 imported\n");
    assert_same(&tables(&database, "public"), &before);
    here.write("map.csv", "legacy_key,account_id\nA-1,200001\nA-3,999999\n");
    let wrong = at(&here, &database, &["keymap", "import", CUSTOMER, "map.csv", "--table", "account"]);
    assert_ne!(wrong.code, 0, "{wrong:?}");
    at(&here, &database, &["keymap", "verify", CUSTOMER]).passes();

    there.pipeline(&import).passes();
    there.pipeline(&["run", CUSTOMER]).passes();
    at(&here, &database, &["run", CUSTOMER]).passes();
    assert_alike(&there, &database);
}

#[test]
fn commands_that_only_ask_leave_an_empty_database_empty() {
    let place = Place::samples();
    let database = Server::shared().database("");
    let objects = "SELECT (SELECT count(*) FROM pg_class WHERE oid >= 16384) + (SELECT count(*) FROM pg_namespace WHERE oid >= 16384)";
    for arguments in [
        &["check", CUSTOMER][..],
        &["validate", CUSTOMER],
        &["plan", CUSTOMER],
        &["explain", CUSTOMER],
        &["runs", CUSTOMER],
        &["keymap", "verify", CUSTOMER],
        &["setup", CUSTOMER, "--print"],
    ] {
        at(&place, &database, arguments).passes();
        assert_eq!(database.number(objects), 0, "{arguments:?}");
    }
}

#[test]
fn what_rules_do_with_an_insert_they_do_with_the_rows_of_a_load() {
    let sql = format!(
        "{SQL} CREATE TABLE noted (item_id integer);
         CREATE RULE noted AS ON INSERT TO item DO ALSO INSERT INTO noted VALUES (new.item_id)"
    );
    let production = Production::new(Server::shared(), &sql, "");
    production.set_up();
    production.loads();
    assert_eq!(production.database.number("SELECT count(*) FROM noted JOIN delta.key_map_item USING (item_id)"), 20);
    assert_eq!(production.count("noted"), 20);
}

#[test]
fn mappings_of_an_interrupted_run_do_not_block_an_import() {
    let production = Production::ready();
    let cut_off = production.place.pipeline_with(
        &["run", "p.yaml"],
        &[("DATABASE_URL", &production.database.local_url("postgres")), ("FAILPOINTS", "key map committed=return")],
    );
    assert_eq!(cut_off.code, -9, "{cut_off:?}");
    assert_eq!(production.database.number("SELECT count(*) FROM delta.mapping_account"), 10);
    assert_eq!(production.database.number("SELECT count(*) FROM delta.key_map_account"), 0);
    production.place.write("map.csv", "legacy_key,account_id\nP-3,1\n");
    let import = production.pipeline(&["keymap", "import", "p.yaml", "map.csv", "--table", "account"]);
    assert_eq!(import.passes().stdout, "account: 1 mapping read, 0 already present, 1 imported\n");
    assert_eq!(production.database.number("SELECT count(*) FROM delta.mapping_account"), 1);
}

/// The plans in a server's log that touch rows of a table of production: the node, and how many rows it went through.
fn scans(log: &str) -> Vec<(String, u64)> {
    let mut scans = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        let is_scan = line.contains("Scan") && line.contains(" on public.")
            || line.contains(" using ") && line.contains(" on public.");
        let Some(actual) = line.split("(actual").nth(1).filter(|_| is_scan) else { continue };
        let number = |after: &str| -> u64 {
            let digits: String =
                actual.split(after).nth(1).unwrap_or("0").chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        let loops = number("loops=");
        let mut rows = number("rows=") * loops;
        // What a node says of itself is deeper than the node, and has no arrow.
        while let Some(more) =
            lines.next_if(|next| next.starts_with('\t') && !next.contains("->") && !next.contains("(actual"))
        {
            if let Some(removed) = more.split("Rows Removed by").nth(1).and_then(|text| text.split(": ").nth(1)) {
                rows += removed.trim().parse::<u64>().unwrap() * loops;
            }
        }
        // A sequence has one row.
        if !line.contains("_seq ") {
            scans.push((line.trim().to_owned(), rows));
        }
    }
    scans
}

#[test]
fn no_table_of_production_is_read_whole_for_a_small_delta() {
    let server = Server::private(&[
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
        "auto_explain.log_analyze = on",
        "auto_explain.log_timing = off",
        "auto_explain.log_verbose = on",
    ]);
    for foreign_keys in ["triggers", "set_based"] {
        let production = Production::new(&server, SQL, &format!("load: {{ foreign_keys: {foreign_keys} }}\n"));
        production.database.execute(
            "INSERT INTO account (account_no, alias) SELECT 'MUCH-' || n, 'much ' || n FROM generate_series(1, 200000) AS n;
             CREATE INDEX ON account (alias); CREATE INDEX ON item (account_id);
             INSERT INTO region SELECT n, 'region ' || n FROM generate_series(1000, 100000) AS n;
             INSERT INTO item (account_id, region_id, quantity) SELECT n, n % 5 + 1, 1 FROM generate_series(1, 200000) AS n;
             ANALYZE",
        );
        production.set_up();
        for round in ["FIRST", "SECOND"] {
            // The second delta finds a key map and a ledger.
            production.delta(round, 10);
            let begins = server.log().len();
            production.pipeline(&["run", "p.yaml"]).passes();
            let log = server.log()[begins..].to_owned();
            let scans = scans(&log);
            let tables: BTreeSet<_> =
                scans.iter().filter_map(|(node, _)| node.split(" on public.").nth(1)?.split(' ').next()).collect();
            assert!(
                tables.contains("account") && tables.contains("item") && tables.contains("region"),
                "{tables:?} in\n{log}"
            );
            let much: Vec<_> = scans.iter().filter(|(node, rows)| node.contains("Seq Scan") || *rows > 2_000).collect();
            assert!(much.is_empty(), "{foreign_keys}, {round}: {much:#?}\nof\n{}", plans(&log, &much));
        }
    }
}

/// The whole plans of some nodes.
fn plans(log: &str, nodes: &[&(String, u64)]) -> String {
    let plans = log.split("Query Text: ").skip(1);
    plans
        .filter(|plan| nodes.iter().any(|(node, _)| plan.contains(node.as_str())))
        .take(5)
        .collect::<Vec<_>>()
        .join("\n---\n")
}
