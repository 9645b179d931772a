//! Scripts of `create_from`: whatever they contain, a command that writes nothing leaves the database as it was.

use crate::server::{Database, Server};
use crate::support::{Place, Ran};

const TABLE: &str = "CREATE TABLE account (account_id bigserial PRIMARY KEY, ref text, account_no text UNIQUE NOT NULL);\n\
     INSERT INTO account (account_no) VALUES ('OLD-1');\n";

struct Scripted {
    place: Place,
    database: Database,
}

impl Scripted {
    fn new(script: &str) -> Self {
        let database = Server::shared().database("CREATE SCHEMA other; CREATE SEQUENCE other.numbers");
        let place = Place::new();
        place.write("make.sql", script);
        place.write("account.csv", "ref,account_no\nA-1,1\n");
        let file = "version: 1\nname: accounts\ntarget: { url: \"${DATABASE_URL}\", create_from: make.sql }\n\
            tables:\n  account: { source: { path: account.csv }, legacy_key: [ref], key: { column: account_id } }\n";
        place.write("p.yaml", file);
        Self { place, database }
    }

    fn pipeline(&self, arguments: &[&str]) -> Ran {
        self.place.pipeline_with(arguments, &[("DATABASE_URL", &self.database.local_url("postgres"))])
    }

    /// What a script could leave: relations, roles, schemas, and the positions of sequences.
    fn left(&self) -> Vec<Vec<String>> {
        self.database.rows(
            "SELECT relname, relnamespace::regnamespace::text FROM pg_class WHERE relnamespace::regnamespace::text NOT LIKE 'pg\\_%'
             UNION ALL SELECT nspname, '' FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'
             UNION ALL SELECT 'numbers', last_value::text || is_called FROM other.numbers ORDER BY 1, 2",
        )
    }
}

#[test]
fn a_command_that_writes_nothing_passes_a_script_that_commits() {
    let scripts = [
        format!("BEGIN;\n{TABLE}COMMIT;\n"),
        format!("{TABLE}COMMIT; BEGIN; CREATE TABLE extra (x int); END;"),
        format!(
            "START TRANSACTION; {TABLE} SAVEPOINT s; CREATE TABLE gone (x int); ROLLBACK TO s; COMMIT AND CHAIN; COMMIT"
        ),
        format!("SELECT pg_catalog.set_config('search_path', '', false); SET search_path TO public;\n{TABLE}"),
        format!(
            "{TABLE} SELECT setval('account_account_id_seq', 40); SET ROLE pg_monitor; SET standard_conforming_strings = off;"
        ),
    ];
    for script in scripts {
        let scripted = Scripted::new(&script);
        let before = scripted.left();
        for command in ["check", "validate", "plan", "explain"] {
            scripted.pipeline(&[command, "p.yaml"]).passes();
            assert_eq!(scripted.left(), before, "{command} of {script}");
        }
    }
}

#[test]
fn script_that_leaves_its_transaction_is_refused_with_line() {
    let hidden = "SET standard_conforming_strings = off; SELECT 'a\\''; COMMIT; --';";
    for (more, line, texts) in [
        ("ROLLBACK;", 3, "`ROLLBACK` ends the transaction"),
        ("ABORT;", 3, "`ABORT` ends the transaction"),
        ("PREPARE TRANSACTION 'x';", 3, "`PREPARE TRANSACTION` ends the transaction"),
        ("DO $$ BEGIN COMMIT; END $$;", 3, "invalid transaction termination"),
        ("\\connect other", 3, "`\\connect` is a psql command"),
        ("\\i more.sql", 3, "`\\i` is a psql command"),
        ("COPY account FROM stdin;\n1\ta\tb\n\\.\n", 3, "only psql can send the rows"),
        ("SELECT 1;\nCOPY account TO '/tmp/it-out';", 4, "writes outside of the database"),
        ("COPY account TO PROGRAM 'cat';", 3, "writes outside of the database"),
        (hidden, 3, "multiple commands"),
        ("SELECT 'x", 3, "a string has no end"),
    ] {
        let scripted = Scripted::new(&format!("{TABLE}{more}"));
        let before = scripted.left();
        let line = format!("line {line}: ");
        scripted.pipeline(&["check", "p.yaml"]).fails(66, &["make.sql` cannot create the database", &line, texts]);
        assert_eq!(scripted.left(), before, "{more}");
    }
}

#[test]
fn script_that_moves_a_foreign_sequence_is_reported() {
    for moves in ["SELECT nextval('other.numbers')", "SELECT setval('other.numbers', 9, false)"] {
        for nested in
            [format!("{moves};"), format!("DO $$ BEGIN PERFORM {}; END $$;", moves.trim_start_matches("SELECT "))]
        {
            let scripted = Scripted::new(&format!("{TABLE}{nested}"));
            scripted.pipeline(&["check", "p.yaml"]).fails(66, &["takes numbers from the sequence other.numbers"]);
        }
    }
}

#[test]
fn script_with_its_own_transaction_creates_the_database() {
    let scripted = Scripted::new(&format!("BEGIN;\n{TABLE}COMMIT;\n"));
    scripted.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(scripted.database.rows("SELECT account_no FROM account ORDER BY 1"), [["1"], ["OLD-1"]]);
}

#[test]
fn nothing_stays_of_a_script_that_fails_behind_its_commit() {
    let scripted = Scripted::new(&format!("BEGIN;\n{TABLE}COMMIT;\nINSERT INTO missing VALUES (1);"));
    let before = scripted.left();
    scripted
        .pipeline(&["run", "p.yaml"])
        .fails(66, &["line 5: ", "relation \"missing\" does not exist", "its effects were rolled back"]);
    assert_eq!(scripted.left(), before);
}
