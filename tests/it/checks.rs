//! What checks, thresholds and references decide, on small deltas.

use crate::support::{Place, number, rows};

const DATABASE: &str = "c.db";

/// A place with a database, a file `t.csv`, and a pipeline for table `t`; `more` is what the table says beside source and key.
fn place(sql: &str, csv: &str, more: &str) -> Place {
    let place = Place::new();
    place.database(DATABASE, sql);
    place.write("t.csv", csv);
    place.write(
        "p.yaml",
        pipeline("90%", &format!("  t:\n    source: {{ path: t.csv }}\n    legacy_key: [ref]\n{more}")),
    );
    place
}

fn pipeline(max_rejects: &str, tables: &str) -> String {
    format!(
        "version: 1\nname: c\ntarget: {{ url: 'sqlite:{DATABASE}' }}\nsafeguards: {{ max_rejects: {max_rejects} }}\ntables:\n{tables}"
    )
}

/// Read, rejected, skipped and inserted of the first table, and what its checks found.
fn outcome(report: &serde_json::Value) -> ([u64; 4], Vec<String>) {
    let table = &report["tables"][0];
    let counts = ["read", "rejected", "skipped", "inserted"].map(|field| table[field].as_u64().unwrap());
    let checks = table["checks"].as_array().unwrap().iter().filter(|check| check["violations"] != 0);
    (counts, checks.map(|check| format!("{} {}", check["name"].as_str().unwrap(), check["violations"])).collect())
}

#[test]
fn rows_excluded_by_where_are_skipped_and_take_no_part() {
    let place = place(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, other INTEGER REFERENCES t (id));",
        "ref,name,act,other\nA,bob,N,\nA,bob,Y,\nB,al,Y,\nC,al,N,\nD,di,N,99\n",
        "    key: { column: id }\n    select: SELECT upper(name) AS name, other FROM source WHERE act = 'Y'\n",
    );
    let report = place.report(&["run", "p.yaml"], 0);
    assert_eq!(outcome(&report), ([5, 0, 3, 2], vec![]));
    assert_eq!(rows(&place.open(DATABASE), "SELECT * FROM t"), ["1|'BOB'|NULL", "2|'AL'|NULL"]);
}

#[test]
fn overflowing_arithmetic_rejects_its_row() {
    let place = place(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);",
        "ref,n\nA,9223372036854775807\nB,3\n",
        "    key: { column: id }\n    columns: { n: CAST(n AS BIGINT) + 1 }\n",
    );
    let report = place.report(&["run", "p.yaml"], 0);
    assert_eq!(outcome(&report), ([2, 1, 0, 1], vec!["cast(n) 1".into()]));
    assert_eq!(rows(&place.open(DATABASE), "SELECT n FROM t"), ["4"]);
}

#[test]
fn error_if_loads_nothing_and_warn_if_warns() {
    let checks = |more: &str| {
        format!(
            "    key: {{ column: id }}\n    checks:\n      - {{ expression: n > 1, name: large, severity: warn, {more} }}\n"
        )
    };
    let (sql, csv) = ("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);", "ref,n\nA,1\nB,1\nC,5\n");
    let report = place(sql, csv, &checks("error_if: 1")).report(&["run", "p.yaml"], 1);
    assert_eq!(outcome(&report), ([3, 0, 0, 0], vec!["large 2".into()]));
    assert_eq!(report["reasons"][0], "`t`: 2 of 3 rows fail `large`; `error_if` is 1");
    let report = place(sql, csv, &checks("error_if: 2, warn_if: 50%")).report(&["run", "p.yaml"], 0);
    assert_eq!(report["warnings"][0], "`t`: 2 of 3 rows fail `large`; `warn_if` is 50%");
    let report = place(sql, csv, &checks("warn_if: 2")).report(&["run", "p.yaml"], 0);
    assert_eq!(report["warnings"], serde_json::json!([]));
}

#[test]
fn unique_text_is_compared_as_production_compares_it() {
    let place = place(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, mail TEXT COLLATE NOCASE UNIQUE); INSERT INTO t VALUES (5, 'A@x');",
        "ref,mail\n1,a@X\n2,b@x\n3,B@X\n4,ÄB@x\n5,äb@x\n",
        "    key: { column: id }\n",
    );
    let report = place.report(&["run", "p.yaml"], 0);
    assert_eq!(outcome(&report), ([5, 3, 0, 2], vec!["unique(mail) 3".into()]));
    assert_eq!(rows(&place.open(DATABASE), "SELECT mail FROM t"), ["'A@x'", "'ÄB@x'", "'äb@x'"]);
}

#[test]
fn a_primary_key_is_compared_as_production_compares_it() {
    let sql = "CREATE TABLE t (code TEXT COLLATE nocase PRIMARY KEY, v TEXT); INSERT INTO t VALUES ('there', 'x');";
    let place = place(sql, "ref,code,v\n1,q,1\n2,Q,2\n3,THERE,3\n4,z,4\n", "");
    let report = place.report(&["run", "p.yaml"], 0);
    assert_eq!(outcome(&report), ([4, 3, 0, 1], vec!["unique(code) 3".into()]));
}

#[test]
fn a_type_that_means_something_else_is_refused_in_the_file() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, day DATE, n INTEGER);";
    let more = "    key: { column: id }\n    columns: { day: CAST(x AS INT), n: \"to_date(x)\" }\n";
    let ran = place(sql, "ref,x\nA,1\n", more).pipeline(&["check", "p.yaml"]);
    for column in ["`day` is DATE", "`n` is INTEGER"] {
        ran.fails(78, &[column, "the unit of a number"]);
    }
}

#[test]
fn a_reference_by_a_value_is_never_rounded() {
    let sql = "CREATE TABLE p (p_id INTEGER PRIMARY KEY, code NUMERIC(10,0) UNIQUE); INSERT INTO p VALUES (1, 13);
        CREATE TABLE t (id INTEGER PRIMARY KEY, p_id INTEGER REFERENCES p);";
    let more = "    key: { column: id }\n    relationships: [{ column: p_id, from: [code], to: p, by: code }]\n";
    let report = place(sql, "ref,code\nA,12.6\nB,13\n", more).report(&["run", "p.yaml"], 0);
    assert_eq!(outcome(&report), ([2, 1, 0, 1], vec!["relationship(p_id) 1".into()]));
}

#[test]
fn check_reports_a_schema_that_takes_no_rows() {
    for sql in [
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x INT REFERENCES nowhere);",
        "CREATE TABLE p (p_id INTEGER PRIMARY KEY, code TEXT); CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT REFERENCES p (code));",
    ] {
        let ran = place(sql, "ref,x\nA,1\n", "    key: { column: id }\n").pipeline(&["check", "p.yaml"]);
        ran.fails(78, &["cannot insert into", "p.yaml:6"]);
    }
}

#[test]
fn an_expression_is_one_expression_and_may_end_in_a_comment() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);";
    let more = |expression: &str| {
        format!("    key: {{ column: id }}\n    checks: [{{ expression: \"{expression}\", name: e }}]\n")
    };
    let report = place(sql, "ref,n\nA,1\nB,3\n", &more("n > 1 -- large")).report(&["run", "p.yaml"], 0);
    assert_eq!(outcome(&report), ([2, 1, 0, 1], vec!["e 1".into()]));
    place(sql, "ref,n\nA,1\n", &more("true) OR (false")).pipeline(&["check", "p.yaml"]).fails(78, &["invalid SQL"]);
}

#[test]
fn a_chain_of_rows_goes_with_its_first_and_a_cycle_is_loaded() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, up INTEGER REFERENCES t (id));";
    let more = "    key: { column: id }\n    relationships: [{ column: up, to: t }]\n";
    let link = |row: u32| format!("R{row},{},R{}\n", if row == 0 { "" } else { "1" }, (row + 1999) % 2000);
    let chain: String = (0..2000).map(link).collect();
    let place_of = |csv: String| place(sql, &format!("ref,n,up\n{csv}X,1,\n"), more);
    let report = place_of(chain.replacen("R0,,R1999", "R0,,", 1)).report(&["validate", "p.yaml"], 1);
    assert_eq!(outcome(&report), ([2001, 2000, 0, 0], vec!["not_null(n) 1".into(), "parent_rejected(up) 1999".into()]));
    let place = place_of(chain.replacen("R0,,", "R0,1,", 1));
    assert_eq!(outcome(&place.report(&["run", "p.yaml"], 0)), ([2001, 0, 0, 2001], vec![]));
    assert_eq!(number(&place.open(DATABASE), "SELECT count(*) FROM t WHERE up = id - 1 OR up = id + 1999"), 2000);
}

#[test]
fn a_key_whose_row_is_gone_from_production_resolves_nothing() {
    let place = place(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); CREATE TABLE child (id INTEGER PRIMARY KEY, t_id INTEGER);",
        "ref,n\nA,1\n",
        "    key: { column: id }\n",
    );
    place.pipeline(&["run", "p.yaml"]).passes();
    place.write("child.csv", "ref,t\n1,A\n");
    let child = "  child:\n    source: { path: child.csv }\n    legacy_key: [ref]\n    key: { column: id }
    relationships: [{ column: t_id, from: [t], to: t }]\n";
    place.write("child.yaml", pipeline("100%", child));
    let before = place.report(&["validate", "child.yaml"], 0);
    assert_eq!(before["tables"][0]["accepted"], 1, "found in the key map");
    place.open(DATABASE).execute("DELETE FROM t", []).unwrap();
    let report = place.report(&["run", "child.yaml"], 0);
    assert_eq!(outcome(&report), ([1, 1, 0, 0], vec!["relationship(t_id) 1".into()]));
    assert_eq!(report["verdict"], "empty");
}

#[test]
fn rows_that_name_each_other_by_values_go_together() {
    let place = place(
        "CREATE TABLE t (ref TEXT PRIMARY KEY, up TEXT REFERENCES t, q INTEGER NOT NULL);",
        "ref,up,q\nA,,\nB,A,1\nC,B,1\nD,,1\nE,D,1\n",
        "",
    );
    let report = place.report(&["run", "p.yaml"], 0);
    assert_eq!(outcome(&report), ([5, 3, 0, 2], vec!["not_null(q) 1".into(), "relationship(up) 2".into()]));
    assert_eq!(rows(&place.open(DATABASE), "SELECT ref FROM t"), ["'D'", "'E'"]);
}

#[test]
fn little_memory_gives_the_same_database() {
    let row = |row: u32| {
        format!("R{row},{},{}\n", row % 7, if row.is_multiple_of(3) { String::new() } else { format!("R{}", row / 2) })
    };
    let csv: String = (0..40_000).map(row).collect();
    let load = |limit: &str| {
        let place = place(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, up INTEGER REFERENCES t (id));",
            &format!("ref,n,up\n{csv}"),
            "    key: { column: id }\n    relationships: [{ column: up, to: t }]\n",
        );
        place.pipeline(&["run", "p.yaml", "--memory-limit", limit]).passes();
        place.production(DATABASE)
    };
    assert_eq!(load("64MiB"), load("2GiB"));
}

/// Rewrites a file when reading begins, after it was hashed.
struct Rewrite(std::path::PathBuf);

impl delta_pipeline::internals::progress::Listener for Rewrite {
    fn on_progress(&self, event: &delta_pipeline::internals::progress::Progress) {
        use delta_pipeline::internals::progress::{Progress, Step};
        if matches!(event, Progress::Began(Step::Read)) {
            std::fs::write(&self.0, "ref,n\nB,2\n").unwrap();
        }
    }
}

#[test]
fn a_file_that_is_rewritten_while_it_is_read_is_refused() {
    use delta_pipeline::internals::run::{CommandOptions, LoadOptions, RunContext, run};
    let place =
        place("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);", "ref,n\nA,1\n", "    key: { column: id }\n");
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let error = runtime.block_on(async {
        let request = CommandOptions::new(place.path("p.yaml"));
        let session = RunContext::open(&request, delta_pipeline::internals::target::Access::Write).await.unwrap();
        run(&session, LoadOptions::default(), &Rewrite(place.path("t.csv"))).await.unwrap_err()
    });
    assert_eq!(error.to_string(), "`t.csv` was changed while it was read");
    assert_eq!(number(&place.open(DATABASE), "SELECT count(*) FROM t"), 0);
}

#[test]
fn a_constraint_on_new_keys_is_reported_and_enforced() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, CHECK (id || name LIKE '%a'));";
    let place = place(sql, "ref,name\nA,Anna\nB,Bert\n", "    key: { column: id }\n");
    let report = place.report(&["validate", "p.yaml"], 0);
    assert_eq!(report["warnings"], serde_json::json!([]), "known facts are no warnings");
    let known = report["tables"][0]["enforced_by_database"][0].as_str().unwrap();
    assert!(known.ends_with("CHECK (id || name LIKE '%a')"), "{known}");
    let plan = place.pipeline(&["plan", "p.yaml"]).passes().stdout.clone();
    assert!(plan.contains("note: `t`: enforced by production only: check("), "{plan}");
    place.pipeline(&["run", "p.yaml"]).fails(
        1,
        &[
            "CHECK constraint failed",
            "
  t.csv:3
",
            "nothing was loaded",
        ],
    );
    assert_eq!(number(&place.open(DATABASE), "SELECT count(*) FROM t"), 0);
}
