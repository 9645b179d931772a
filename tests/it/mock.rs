//! Mock runs: all of it is done and taken back, and what they foretell comes true unless production moves.

use serde_json::Value;

use crate::production::{Holder, Production, SQL, tables, until};
use crate::server::{Database, Server};
use crate::support::{Place, assert_same};

const CUSTOMER: &str = "pipelines/customer-delta.yaml";

fn foretold(report: &Value) -> Vec<Value> {
    let tables = report["tables"].as_array().unwrap().iter();
    tables
        .map(|table| {
            let mut table = table.clone();
            // A table's triggers and files are no commit_check.
            table.as_object_mut().unwrap().remove("files");
            table
        })
        .collect()
}

fn holds(mock: &Value, run: &Value) {
    assert_eq!(mock["command"], "mock");
    assert_eq!(mock["verdict"], "passed");
    assert_eq!(foretold(mock), foretold(run), "keys, counts, verdicts and violations are the run's");
    let warnings = run["warnings"].as_array().unwrap();
    assert!(!warnings.iter().any(|warning| warning.as_str().unwrap().contains("mock run")), "{warnings:?}");
}

#[test]
fn mock_run_leaves_every_byte_of_sqlite_and_foresees_the_run() {
    let place = Place::samples_with_production();
    let before = std::fs::read(place.path("pipelines/customer.db")).unwrap();
    let mock = place.report(&["run", CUSTOMER, "--mock"], 0);
    assert!(std::fs::read(place.path("pipelines/customer.db")).unwrap() == before, "the file was changed");
    assert_eq!(mock["tables"][0]["inserted"], 487);
    let steps: Vec<_> = mock["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    for step in ["read", "check", "keys", "stage", "insert", "reconcile"] {
        assert!(steps.contains(&step), "{step} is measured: {steps:?}");
    }
    holds(&mock, &place.report(&["run", CUSTOMER], 0));
}

#[test]
fn mock_run_into_a_copy_foresees_the_run_or_names_differences() {
    let place = Place::samples_with_production();
    std::fs::copy(place.path("pipelines/customer.db"), place.path("copy.db")).unwrap();
    place.pipeline(&["run", CUSTOMER, "--mock", "--target", "sqlite:copy.db"]).passes();
    let person = "INSERT INTO person (person_id, person_type, last_name) VALUES (102500, 'B', 'Neu')";
    place.open("pipelines/customer.db").execute_batch(person).unwrap();
    let said = place.pipeline(&["run", CUSTOMER]);
    let into = "into sqlite:copy.db: keys 102501 to 102987 instead of 102401 to 102887";
    assert!(said.passes().stdout.contains(into), "{}", said.stdout);
    assert_eq!(said.stdout.matches("other than in the mock run").count(), 1, "{}", said.stdout);
}

/// Everything that is in a database: all rows of all schemas, all relations, and where the sequences are.
fn everything(database: &Database) -> crate::support::Tables {
    let mut all = crate::support::Tables::new();
    for schema in ["public", "delta", "staging"] {
        all.extend(tables(database, schema));
    }
    let lines = |sql: &str| database.rows(sql).into_iter().map(|row| row.join("|")).collect();
    let sequences = "SELECT schemaname, sequencename, coalesce(last_value::text, '') FROM pg_sequences ORDER BY 1, 2";
    all.insert("the sequences".into(), lines(sequences));
    let relations = "SELECT c.oid::text, c.relname, coalesce(obj_description(c.oid, 'pg_class'), '') FROM pg_class AS c
                     WHERE c.relnamespace::regnamespace::text IN ('public', 'delta', 'staging') ORDER BY 1, 2";
    all.insert("the relations".into(), lines(relations));
    all
}

#[test]
fn mock_run_leaves_postgres_and_foresees_the_run() {
    let place = Place::samples();
    let database = Server::shared().database(&place.text("sample-data/production.postgres.sql"));
    let at = |arguments: &[&str]| place.pipeline_with(arguments, &[("DATABASE_URL", &database.url())]);
    let report = |arguments: &[&str]| -> Value {
        let ran = at(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&ran.passes().stdout).unwrap()
    };
    at(&["setup", CUSTOMER]).passes();
    database.execute(crate::production::NO_MODE);
    let before = everything(&database);
    let mock = report(&["run", CUSTOMER, "--mock"]);
    assert_same(&everything(&database), &before);
    holds(&mock, &report(&["run", CUSTOMER]));
    // What the last run left in staging is there after another mock run.
    place.write("sample-data/customer/meter.csv", "meter_ref,badge_no\n");
    let staged = everything(&database);
    at(&["run", CUSTOMER, "--mock", "--allow-reload"]);
    assert_same(&everything(&database), &staged);
}

#[test]
fn mock_run_with_set_based_references_leaves_postgres() {
    let production = Production::new(Server::shared(), SQL, "load: { foreign_keys: set_based }\n");
    // Without a check that no constraint keeps true, rows go straight into production.
    production
        .place
        .write("p.yaml", production.place.text("p.yaml").replace("    checks: [{ unique: [alias] }]\n", ""));
    production.set_up();
    let before = everything(&production.database);
    let mock = production.pipeline(&["run", "p.yaml", "--mock"]);
    assert!(mock.passes().stdout.contains("30 rows inserted into 2 tables, then rolled back"), "{mock:?}");
    assert_same(&everything(&production.database), &before);
    production.loads();
}

#[test]
fn mock_run_needs_no_mode_and_run_reports_what_moved_since() {
    let production = Production::new(Server::shared(), SQL, "safeguards: { conversion_mode: required }\n");
    production.set_up();
    let mock = production.pipeline(&["run", "p.yaml", "--mock"]);
    let said = &mock.passes().stdout;
    assert!(said.starts_with("small: mock run: 30 rows inserted into 2 tables, then rolled back\n"), "{said}");
    production.pipeline(&["run", "p.yaml"]).fails(77, &["conversion mode"]);
    production.require_no_mode();
    production.write("safeguards: { conversion_mode: off }\n");
    // Somebody takes three numbers, and one of the delta's accounts.
    production.database.execute("INSERT INTO account (account_no) VALUES ('X-1'), ('X-2'), ('P-3')");
    production.write("safeguards: { conversion_mode: off, max_rejects: 10% }\n");
    let ran = production.pipeline(&["run", "p.yaml"]);
    let said = &ran.passes().stdout;
    for text in [
        "`account`: other than in the mock run 2",
        "1 instead of 0 rows rejected, 9 instead of 10 rows accepted, keys 9 to 17 instead of 6 to 15",
        "`item`: other than in the mock run 2",
        "2 instead of 0 rows rejected, 18 instead of 20 rows accepted, keys 6 to 23 instead of 6 to 25",
    ] {
        assert!(said.contains(text), "no {text:?} in\n{said}");
    }
}

#[test]
fn refused_mock_run_says_why_and_leaves_nothing() {
    let production = Production::ready();
    production.database.execute(
        "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
         CREATE TRIGGER no BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION no()",
    );
    let before = everything(&production.database);
    production.pipeline(&["run", "p.yaml", "--mock"]).fails(1, &["not today"]);
    assert_same(&everything(&production.database), &before);
    production.database.execute("DROP TRIGGER no ON item");
    production.loads();
}

/// Columns of `item` that production fills from sequences, in every way that there is.
const NUMBERED: &str = "
    CREATE SEQUENCE shared INCREMENT 50; CREATE SEQUENCE \"odd'na\"\"me\" INCREMENT -1; CREATE SEQUENCE own.far; CREATE SEQUENCE last MAXVALUE 44;
    CREATE DOMAIN ticket AS text DEFAULT 'T' || nextval('shared');
    ALTER TABLE item ADD serial_no bigserial UNIQUE, ADD short_no smallserial UNIQUE CHECK (short_no > 0), ADD ticket ticket NOT NULL,
        ADD always_no bigint GENERATED ALWAYS AS IDENTITY (START 7 INCREMENT 3) UNIQUE, ADD by_default_no integer GENERATED BY DEFAULT AS IDENTITY,
        ADD label varchar(12) NOT NULL DEFAULT 'I-' || lpad(nextval('shared')::text, 9, '0'),
        ADD late integer DEFAULT nextval('public.shared'::text), ADD down integer DEFAULT nextval('\"odd''na\"\"me\"'),
        ADD far numeric DEFAULT nextval('own.far') * 2, ADD last integer DEFAULT nextval('last');
    SELECT setval('last', 24); SELECT setval('shared', 51, false);
    GRANT USAGE ON SCHEMA own TO PUBLIC";

/// A production that fills columns from sequences, with rights to them; `SELECT` is for those who look where they are.
fn numbered(rights: &str, head: &str) -> Production {
    let production = Production::new(Server::shared(), &format!("{SQL} CREATE SCHEMA own; {NUMBERED}"), head);
    // Without a check that no constraint keeps true, rows go straight into production.
    production
        .place
        .write("p.yaml", production.place.text("p.yaml").replace("    checks: [{ unique: [alias] }]\n", ""));
    production.set_up();
    for schema in ["public", "own"] {
        production.database.execute(&format!("GRANT {rights} ON ALL SEQUENCES IN SCHEMA {schema} TO delta_loader"));
    }
    production
}

fn report(production: &Production, arguments: &[&str]) -> Value {
    let ran = production.pipeline(&[arguments, &["--output", "json"]].concat());
    serde_json::from_str(&ran.passes().stdout).unwrap()
}

#[test]
fn a_mock_run_moves_no_sequence_of_any_column() {
    for (rights, head) in [("USAGE, SELECT", ""), ("USAGE", ""), ("USAGE, SELECT", "load: { staging: always }\n")] {
        let production = numbered(rights, head);
        let before = everything(&production.database);
        let mock = report(&production, &["run", "p.yaml", "--mock"]);
        assert_same(&everything(&production.database), &before);
        assert_eq!(mock["warnings"].to_string().matches("sequence").count(), 0, "{}", mock["warnings"]);
        holds(&mock, &report(&production, &["run", "p.yaml"]));
        let last = production.database.rows("SELECT max(last), count(DISTINCT label) FROM item");
        assert_eq!(last, [["44", "25"]], "the run itself takes the numbers");
    }
}

#[test]
fn a_mock_run_takes_no_number_that_others_need_meanwhile() {
    let production = numbered("USAGE, SELECT", "");
    // The mock run waits behind its last row.
    production.database.execute(
        "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF current_user = 'delta_loader' THEN PERFORM pg_advisory_xact_lock_shared(4711); END IF; RETURN NULL; END $$;
         CREATE TRIGGER wait AFTER INSERT ON item EXECUTE FUNCTION wait()",
    );
    let holder = Holder::new(&production.database.url());
    holder.execute("SELECT pg_advisory_lock(4711)");
    std::thread::scope(|scope| {
        let mock = scope.spawn(|| production.pipeline(&["run", "p.yaml", "--mock"]));
        until(
            &production.database,
            "SELECT count(*) > 0 FROM pg_locks JOIN pg_database AS d ON d.oid = database
                                     WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()",
        );
        let other = Holder::new(&production.database.url());
        other.execute("SET lock_timeout = '2s'; INSERT INTO item (item_id, account_id, quantity) SELECT 1000 + n, 1, 1 FROM generate_series(1, 10) AS n");
        holder.execute("SELECT pg_advisory_unlock(4711)");
        mock.join().unwrap().passes();
    });
    assert_eq!(production.count("item"), 15);
}

#[test]
fn a_mock_run_says_which_sequences_production_moves_by_itself() {
    let production = Production::ready();
    production.database.execute(
        "CREATE TABLE audit (audit_id bigserial PRIMARY KEY, what text);
         CREATE FUNCTION public.audited() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             INSERT INTO public.audit (what) VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
         CREATE TRIGGER audited AFTER INSERT ON account EXECUTE FUNCTION audited()",
    );
    let mock = report(&production, &["run", "p.yaml", "--mock"]);
    let warnings = mock["warnings"].to_string();
    assert!(warnings.contains("advanced the sequence") && warnings.contains("audit_audit_id_seq"), "{warnings}");
}

#[test]
fn mock_run_foresees_that_a_sequence_will_not_do() {
    let production = numbered("USAGE, SELECT", "");
    production.database.execute("SELECT setval('last', 25)");
    let before = everything(&production.database);
    let mock = production.pipeline(&["run", "p.yaml", "--mock"]);
    mock.fails(1, &["of `last` has 19 numbers left, and 20 rows take one each", "nothing was loaded"]);
    assert_same(&everything(&production.database), &before);
    // Another program wrote a number that the sequence would give.
    production.database.execute(
        "INSERT INTO item (item_id, account_id, quantity, serial_no) VALUES (1000, 1, 1, 8); SELECT setval('last', 24)",
    );
    let before = everything(&production.database);
    let taken = ["would give 6 next, and key 1000 is taken", "hint: set it behind the last key"];
    production.pipeline(&["run", "p.yaml", "--mock"]).fails(77, &taken);
    assert_same(&everything(&production.database), &before);
    production.database.execute("UPDATE item SET item_id = 0 WHERE item_id = 1000");
    let before = everything(&production.database);
    production.pipeline(&["run", "p.yaml", "--mock"]).fails(1, &["serial_no"]);
    assert_same(&everything(&production.database), &before);
    production.database.execute("DELETE FROM item WHERE serial_no = 8; SELECT setval('last', 24); REVOKE USAGE ON SEQUENCE shared FROM delta_loader");
    let before = everything(&production.database);
    let mock = production.pipeline(&["run", "p.yaml", "--mock"]);
    mock.fails(78, &["lacks USAGE on SEQUENCE \"public\".\"shared\""]);
    assert_same(&everything(&production.database), &before);
}
