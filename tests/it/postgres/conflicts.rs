//! All that can be in the way of a run, before it and in the middle of it.

use std::net::TcpListener;
use std::thread;

use rcgen::{CertificateParams, KeyPair};

use crate::pooler::Pooler;
use crate::production::{Holder, PASSWORD, Production, SQL, kept, until};
use crate::server::{Database, Server};
use crate::support::assert_same;

/// Holds that a run fails so, and leaves everything as it was.
fn fails(production: &Production, url: &str, code: i32, texts: &[&str]) {
    let before = kept(&production.database);
    let ran = production.pipeline_at(url, &["run", "p.yaml"]);
    eprintln!("{}", ran.stderr);
    ran.fails(code, texts);
    assert!(ran.stderr.contains("hint: ") || ran.stderr.contains("= help: "), "{}", ran.stderr);
    assert!(!ran.stderr.contains(PASSWORD) && !ran.stdout.contains(PASSWORD), "{ran:?}");
    assert_same(&kept(&production.database), &before);
}

#[test]
fn unusable_target_is_named_with_a_remedy() {
    let production = Production::new(Server::shared(), SQL, "");
    let database = &production.database;
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fails(
        &production,
        &format!("postgres://u:{PASSWORD}@127.0.0.1:{away}/p"),
        69,
        &["nothing answers at", "check that the server is running"],
    );
    let nobody = production.login("nobody", "");
    let wrong = nobody.replace(PASSWORD, "wrong");
    fails(&production, &wrong, 69, &["refuses the password of", "PGPASSWORD"]);
    let nowhere = database.url().replace(&database.name, "nowhere");
    fails(&production, &nowhere, 69, &["has no database `nowhere`"]);

    fails(&production, &database.url(), 78, &["the control schema `delta` is missing", "pipeline setup"]);
    production.set_up();
    fails(&production, &nobody, 78, &["may not use the control schema", "GRANT delta_loader TO"]);
    let member = production.login("member", "IN ROLE delta_loader");
    database.execute("REVOKE INSERT ON item FROM delta_loader");
    fails(
        &production,
        &member,
        78,
        &[
            "lacks SELECT, INSERT on TABLE",
            ": GRANT SELECT, INSERT ON TABLE \"public\".\"item\" TO \"delta_loader\"",
            "setup",
        ],
    );
    database.execute("REVOKE SELECT ON account FROM delta_loader");
    fails(&production, &member, 78, &["\"account\""]);
    production.set_up();

    database.execute("DROP SCHEMA staging");
    fails(&production, &member, 78, &["the staging schema `staging` is missing", "setup"]);
    database.execute("CREATE SCHEMA staging");
    fails(
        &production,
        &member,
        78,
        &["lacks USAGE on the schema `staging` for staging: GRANT USAGE ON SCHEMA \"staging\" TO delta_loader"],
    );
    production.set_up();

    database.execute("CREATE TABLE staging.item (mine text); INSERT INTO staging.item VALUES ('precious')");
    fails(&production, &member, 78, &["`staging.item` exists and was not created by pipeline", "target.staging"]);
    assert_eq!(database.text("SELECT mine FROM staging.item"), "precious");
    database.execute("DROP TABLE staging.item; CREATE VIEW staging.ck_account AS SELECT 'precious' AS mine");
    fails(&production, &member, 78, &["`staging.ck_account`", "target.staging"]);
    database.execute("DROP VIEW staging.ck_account");

    production.pipeline_at(&member, &["run", "p.yaml"]).passes();
}

#[test]
fn transaction_pooler_is_refused_and_session_pooler_passes() {
    let production = Production::ready();
    let name = &production.database.name;
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::before(Server::shared(), mode);
        let url = format!("postgres://postgres@127.0.0.1:{}/{name}", pooler.port);
        fails(
            &production,
            &url,
            77,
            &["a connection pooler is in front of the server", "a load needs a direct connection"],
        );
    }
    let pooler = Pooler::before(Server::shared(), "session");
    let url = format!("postgres://postgres@127.0.0.1:{}/{name}", pooler.port);
    production.pipeline_at(&url, &["run", "p.yaml"]).passes();
}

#[test]
fn production_that_takes_no_row_is_named_with_a_remedy() {
    let production = Production::ready();
    let member = production.login("member", "IN ROLE delta_loader");
    let cases: &[(&str, &str, i32, &[&str])] = &[
        (
            "ALTER TABLE item ADD COLUMN must text; UPDATE item SET must = 'x'; ALTER TABLE item ALTER must SET NOT NULL",
            "ALTER TABLE item DROP COLUMN must",
            78,
            &["nothing fills the NOT NULL column `must` of `item`", "p.yaml:"],
        ),
        (
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not on a Sunday'; END $$;
             CREATE TRIGGER no BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION no()",
            "DROP FUNCTION no CASCADE",
            1,
            &["`item`", "not on a Sunday", "trigger"],
        ),
        (
            "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN IF NEW.quantity = 3 THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER skip BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION skip()",
            "DROP FUNCTION skip CASCADE",
            78,
            &["row count mismatch in `item`: expected 20 rows inserted, found 18", "trigger"],
        ),
        (
            "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN IF NEW.quantity = 3 THEN NEW.region_id := 299; END IF; RETURN NEW; END $$;
             CREATE TRIGGER change BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION change()",
            "DROP FUNCTION change CASCADE",
            78,
            &["`item`", "region_id"],
        ),
        (
            "ALTER TABLE account ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON account USING (account_id > 2)",
            "DROP POLICY few ON account; ALTER TABLE account DISABLE ROW LEVEL SECURITY",
            78,
            &["`account` has row-level security", "BYPASSRLS"],
        ),
        (
            "ALTER TABLE item ADD CONSTRAINT small CHECK (quantity < 5) NOT VALID",
            "ALTER TABLE item DROP CONSTRAINT small",
            78,
            &["`item`", "`small` is not validated"],
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'account_account_no_key'::regclass",
            "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'account_account_no_key'::regclass",
            78,
            &["`account`", "`account_account_no_key` is not valid"],
        ),
        (
            "SELECT setval('item_item_id_seq', 1, false)",
            "SELECT setval('item_item_id_seq', 1000)",
            77,
            &["`item`", "is taken", "setval"],
        ),
        (
            "ALTER SEQUENCE item_item_id_seq MAXVALUE 1010",
            "ALTER SEQUENCE item_item_id_seq MAXVALUE 2147483647",
            77,
            &["item_item_id_seq", "ends at 1010", "MAXVALUE"],
        ),
    ];
    for (spoil, mend, code, texts) in cases {
        production.database.execute(spoil);
        fails(&production, &member, *code, texts);
        production.database.execute(mend);
    }
    production.loads();
}

#[test]
fn foreign_lock_on_production_ends_only_this_run() {
    let production = Production::ready();
    production.write("load: { lock_timeout: 300ms }\n");
    let holder = Holder::new(&production.database.url());
    for lock in ["LOCK TABLE item IN SHARE MODE", "LOCK TABLE delta.run IN EXCLUSIVE MODE"] {
        holder.execute(&format!("BEGIN; {lock}"));
        fails(&production, &production.database.url(), 69, &["holds a lock", "load.lock_timeout"]);
        holder.execute("ROLLBACK");
    }
    // A row that the delta refers to, which somebody is about to delete.
    holder.execute("BEGIN; DELETE FROM region WHERE region_id = 7");
    fails(&production, &production.database.url(), 69, &["holds a lock", "load.lock_timeout"]);
    holder.execute("ROLLBACK");
    production.loads();
}

#[test]
fn second_run_names_the_one_that_loads_now() {
    let production = Production::ready();
    production.write("load: { lock_timeout: 600s }\n");
    production.database.execute(&format!(
        "{WAIT} CREATE TRIGGER wait AFTER INSERT ON item FOR EACH STATEMENT EXECUTE FUNCTION wait()"
    ));
    let holder = Holder::new(&production.database.url());
    holder.execute("SELECT pg_advisory_lock(4711)");
    thread::scope(|scope| {
        let first = scope.spawn(|| production.pipeline(&["run", "p.yaml"]));
        until(&production.database, WAITING);
        let second = production.pipeline(&["run", "p.yaml"]);
        second.fails(69, &["run 2", ", since 2", "is loading into", "hint: run again when it is done"]);
        let runs = production.pipeline(&["runs", "p.yaml"]);
        assert!(runs.passes().stdout.trim_end().ends_with(" running"), "{}", runs.stdout);
        holder.execute("SELECT pg_advisory_unlock(4711)");
        first.join().unwrap().passes();
    });
    assert_eq!((production.count("account"), production.count("item")), (15, 25));
}

/// A trigger's function that waits as long as the test holds the lock 4711.
const WAIT: &str = "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$;";

/// Whether somebody waits for the lock 4711.
const WAITING: &str = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted";

/// Where a run is stopped, and what stops it there.
const STOPS: &[(&str, &str)] = &[
    (
        "copying into staging",
        "CREATE FUNCTION public.made() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'staging.item') THEN
                CREATE TRIGGER wait BEFORE INSERT ON staging.item FOR EACH STATEMENT EXECUTE FUNCTION public.wait();
            END IF; END $$;
         CREATE EVENT TRIGGER made ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.made();",
    ),
    ("inserting", "CREATE TRIGGER wait AFTER INSERT ON public.item FOR EACH STATEMENT EXECUTE FUNCTION wait();"),
    (
        "appending the key map",
        "CREATE TRIGGER wait AFTER INSERT ON delta.mapping_item FOR EACH STATEMENT EXECUTE FUNCTION wait();",
    ),
    ("noting the run", "CREATE TRIGGER wait AFTER INSERT ON delta.run FOR EACH STATEMENT EXECUTE FUNCTION wait();"),
    (
        // All constraints are checked before the run is noted: this one is put off again.
        "committing",
        "CREATE FUNCTION public.later() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN SET CONSTRAINTS delta.wait DEFERRED; RETURN NEW; END $$;
         CREATE TRIGGER first BEFORE INSERT ON delta.run FOR EACH ROW EXECUTE FUNCTION public.later();
         CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON delta.run DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();",
    ),
];

/// Stops a run at a point, does something to the server, and holds that nothing of the run is left and that it can be run again.
fn cut(server: &Server, stop: &str, act: impl Fn(&Database)) {
    let staging = if stop.contains("staging") { ", staging: always" } else { "" };
    let production = Production::new(server, SQL, &format!("load: {{ lock_timeout: 60s{staging} }}\n"));
    let database = &production.database;
    production.set_up();
    database.execute(WAIT);
    database.execute(stop);
    let before = kept(database);
    let mut holder = Some(Holder::new(&database.url()));
    holder.as_ref().unwrap().execute("SELECT pg_advisory_lock(4711)");
    let code = thread::scope(|scope| {
        let run = scope.spawn(|| production.pipeline(&["run", "p.yaml"]));
        until(database, WAITING);
        act(database);
        let ran = run.join().unwrap();
        eprintln!("{}", ran.stderr);
        // If the server could be told, the run has failed. Otherwise it counts as interrupted.
        match ran.code {
            75 => ran.fails(
                75,
                &["was interrupted", "hint: uncommitted rows are not in production", "`pipeline resume FILE 2"],
            ),
            _ => ran.fails(69, &["hint: nothing was loaded", "`pipeline resume FILE 2"]),
        }
        ran.code
    });
    holder.take();
    assert_same(&kept(database), &before);
    production.pipeline(&[if code == 75 { "resume" } else { "run" }, "p.yaml"]).passes();
    assert_eq!((production.count("account"), production.count("item")), (5 + 10, 5 + 20));
    assert_eq!(production.database.number("SELECT count(*) FROM delta.run"), 1);
}

#[test]
fn terminated_backend_leaves_nothing_and_run_repeats() {
    for (point, stop) in STOPS {
        eprintln!("{point}:");
        cut(Server::shared(), stop, |database| {
            database.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted");
        });
    }
}

#[test]
fn restarted_server_leaves_nothing_and_run_repeats() {
    let server = Server::private(&[]);
    for (point, stop) in [STOPS[0], STOPS[1], STOPS[4]] {
        eprintln!("{point}:");
        cut(&server, stop, |_| server.restart());
    }
}

#[test]
fn a_server_with_the_wrong_certificate_gets_no_delta() {
    let server = Server::private(&[]);
    let production = Production::new(&server, SQL, "");
    production.set_up();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["elsewhere.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = (server.write("server.pem", &certificate.pem()), server.write("server.key", &key.serialize_pem()));
    production.database.execute(&format!("ALTER SYSTEM SET ssl_cert_file = '{}'", files.0.display()));
    production.database.execute(&format!("ALTER SYSTEM SET ssl_key_file = '{}'", files.1.display()));
    production.database.execute("ALTER SYSTEM SET ssl = on");
    server.restart();
    let base = production.database.url().replace("@127.0.0.1:", "@db.test:");
    let root = format!("{base}?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={}", files.0.display());
    fails(&production, &root, 69, &["the certificate of the server at", "is for another host"]);
    let unknown = format!("{base}?hostaddr=127.0.0.1&sslmode=verify-full");
    fails(&production, &unknown, 69, &["the certificate of the server at"]);
    let right = root.replace("db.test", "elsewhere.test");
    production.pipeline_at(&right, &["run", "p.yaml"]).passes();
}
