//! Loads into PostgreSQL: the samples as into SQLite, who may do what, and all that can be in the way.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::thread;

use rcgen::{CertificateParams, KeyPair};
use rusqlite::types::ValueRef;

use crate::production::{Holder, PASSWORD, Production, SQL, kept, tables, until};
use crate::server::{Database, Server};
use crate::support::{Place, Ran, Tables, assert_same, is_production, strings};

const CUSTOMER: &str = "pipelines/customer-delta.yaml";
const READS: &str = "pipelines/meter-reads.yaml";

/// The code of a right that is missing.
const NO_RIGHT: &str = "42501";

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
            refused.fails(78, &["`meter_read` was not set up for loading", "hint: `pipeline setup FILE`"]);
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
    assert_eq!(verified.passes().stdout.matches("every key is in production").count(), 7, "{verified:?}");
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
    let import = ["keymap", "import", CUSTOMER, "sample-data/account-key-map.csv", "--table", "account"];
    let before = tables(&database, "public");
    let ran = at(&here, &database, &import);
    assert_eq!(ran.passes().stdout, "account: 2640 mappings read, 0 there already, 2640 brought in\n");
    let again = at(&here, &database, &import);
    assert_eq!(again.passes().stdout, "account: 2640 mappings read, 2640 there already, 0 brought in\n");
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

/// What `setup` makes and grants, as far as the catalog of a database shows it.
fn made(database: &Database) -> Tables {
    let mut made = tables(database, "delta");
    for (name, sql) in [
        ("relations", "SELECT oid::regclass::text, relacl::text, relowner::text FROM pg_class WHERE oid >= 16384"),
        ("functions", "SELECT oid::regprocedure::text, proacl::text, prosrc FROM pg_proc WHERE oid >= 16384"),
        ("schemas", "SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'"),
    ] {
        let mut rows: Vec<_> = database.rows(sql).into_iter().map(|row| row.join("|")).collect();
        rows.sort();
        made.insert(name.to_owned(), rows);
    }
    made
}

/// A production that belongs to somebody who is no superuser; the URLs of its owner and of a login that only loads.
fn owned(server: &Server) -> (Production, String, String) {
    let production = Production::new(server, "", "");
    let owner = production.login("owner", "CREATEROLE");
    let name = format!("{}_owner", production.database.name);
    production.database.execute(&format!(
        "ALTER DATABASE {} OWNER TO {name}; ALTER SCHEMA public OWNER TO {name}",
        production.database.name
    ));
    let session = Holder::new(&owner);
    session.execute(SQL);
    let printed = production.pipeline_at(&owner, &["setup", "p.yaml", "--print"]);
    session.execute(&printed.passes().stdout);
    session.execute(&printed.stdout);
    let loader = production.login("loader", "IN ROLE delta_loader");
    (production, owner, loader)
}

#[test]
fn the_printed_setup_is_run_by_the_owner_and_a_login_that_has_only_the_role_loads() {
    let (production, owner, loader) = owned(Server::shared());
    let before = made(&production.database);
    production.pipeline_at(&owner, &["setup", "p.yaml"]).passes();
    assert_same(&made(&production.database), &before);

    let ran = production.pipeline_at(&loader, &["run", "p.yaml"]);
    ran.passes();
    assert!(!ran.stderr.contains("warning") && !ran.stdout.contains("superuser"), "{ran:?}");
    assert_eq!((production.count("account"), production.count("item")), (15, 25));
    production.pipeline_at(&loader, &["run", "p.yaml"]).fails(77, &["loaded already"]);
    for arguments in [&["runs", "p.yaml"][..], &["keymap", "verify", "p.yaml"], &["explain", "p.yaml"]] {
        production.pipeline_at(&loader, arguments).passes();
    }
    let before = made(&production.database);
    production.pipeline_at(&owner, &["setup", "p.yaml"]).passes();
    assert_same(&made(&production.database), &before);
    // Whoever only loads cannot set up, and is told so.
    let refused = production.pipeline_at(&loader, &["setup", "p.yaml"]);
    refused.fails(78, &["cannot set up", "hint: "]);
    assert_same(&made(&production.database), &before);
}

#[test]
fn setup_keeps_away_from_a_newer_version_and_from_somebody_elses_schema() {
    let production = Production::ready();
    production.database.execute("INSERT INTO delta.version VALUES (99)");
    let before = made(&production.database);
    production.pipeline(&["setup", "p.yaml"]).fails(78, &["newer version", "hint: "]);
    production.pipeline(&["run", "p.yaml"]).fails(78, &["version 99", "newer"]);
    assert_same(&made(&production.database), &before);

    let production =
        Production::new(Server::shared(), &format!("{SQL} CREATE SCHEMA delta; CREATE TABLE delta.force (x int)"), "");
    let before = made(&production.database);
    production.pipeline(&["setup", "p.yaml"]).fails(78, &["the schema \"delta\" belongs to something else", "hint: "]);
    production.pipeline(&["run", "p.yaml"]).fails(78, &["belongs to something else"]);
    assert_same(&made(&production.database), &before);
}

#[test]
fn setups_at_once_come_to_what_one_comes_to() {
    // A server that has none of the roles yet: they belong to all of its databases.
    let server = Server::private(&[]);
    let productions: Vec<_> =
        (0..3).map(|_| Production::new(&server, SQL, "load: { foreign_keys: set_based }\n")).collect();
    thread::scope(|scope| {
        for production in productions.iter().flat_map(|production| [production, production]) {
            scope.spawn(|| production.pipeline(&["setup", "p.yaml"]).passes().code);
        }
    });
    for production in &productions {
        let before = made(&production.database);
        production.pipeline(&["setup", "p.yaml"]).passes();
        assert_same(&made(&production.database), &before);
    }
    productions[0].loads();
}

/// What the loading role must not be able to do.
const FORBIDDEN: &[&str] = &[
    "UPDATE public.account SET status = 'X'",
    "UPDATE public.account SET status = status WHERE false",
    "DELETE FROM public.item",
    "DELETE FROM public.item WHERE false",
    "TRUNCATE public.item",
    "TRUNCATE public.account CASCADE",
    "TRUNCATE public.region CASCADE",
    "INSERT INTO public.region VALUES (1000, 'mine')",
    "INSERT INTO public.account (account_id, account_no) VALUES (1, 'OLD-1') ON CONFLICT (account_id) DO UPDATE SET status = 'X'",
    "SELECT FROM public.account FOR UPDATE",
    "BEGIN; LOCK TABLE public.account IN SHARE ROW EXCLUSIVE MODE",
    "ALTER TABLE public.account ADD COLUMN mine integer",
    "ALTER TABLE public.item DISABLE TRIGGER ALL",
    "CREATE TRIGGER mine BEFORE INSERT ON public.item FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE mine AS ON INSERT TO public.item DO ALSO DELETE FROM public.account",
    "CREATE INDEX ON public.account (status)",
    "DROP TABLE public.item",
    "CREATE TABLE public.mine (x integer)",
    "SET session_replication_role = replica",
    "COPY public.account TO '/tmp/account'",
    "COPY public.account FROM PROGRAM 'true'",
    "SELECT pg_catalog.setval('public.account_account_id_seq', 1)",
    "SELECT pg_catalog.setval('public.account_account_id_seq', 9000000000)",
    "ALTER SEQUENCE public.account_account_id_seq RESTART",
    "ALTER SEQUENCE public.account_account_id_seq CACHE 1",
    "UPDATE delta.run SET report = ''",
    "DELETE FROM delta.run",
    "DELETE FROM delta.file",
    "TRUNCATE delta.file",
    "UPDATE delta.block SET last = 0",
    "DELETE FROM delta.block",
    "UPDATE delta.key_map_account SET account_id = 1",
    "DELETE FROM delta.key_map_account",
    "INSERT INTO delta.loaded_table VALUES ('region', 'public', 'staging', 'region', 'region_id', NULL, NULL)",
    "UPDATE delta.loaded_table SET sequence_name = 'item_item_id_seq'",
    "UPDATE delta.version SET version = 0",
    "CREATE TABLE delta.mine (x integer)",
    "CREATE OR REPLACE FUNCTION delta.analyze(of_table text, inserted bigint) RETURNS void LANGUAGE sql AS 'DELETE FROM public.item'",
    "ALTER FUNCTION delta.reserve(text, text, bigint, bigint) SET search_path = staging",
];

/// What the functions of the control schema refuse.
const NOT_REGISTERED: &[&str] = &[
    "SELECT delta.reserve('mine', 'region', NULL, 1)",
    "SELECT delta.reserve('mine', 'region', 1, 1)",
    "SELECT delta.hold_table('region')",
    "SELECT delta.hold_references('region', '{region}')",
    "SELECT delta.analyze('region', 9)",
    "SELECT delta.analyze('pg_class', 9)",
    "SELECT delta.reserve('mine', 'account', 2, 1000)",
    "SELECT delta.reserve('mine', 'account', NULL, -100)",
    "SELECT delta.reserve('mine', 'account', NULL, 0)",
    "SELECT delta.reserve('mine', 'account', NULL, NULL)",
    "SELECT delta.reserve('mine', 'account', NULL, 9223372036854775807)",
    "SELECT delta.reserve('mine', 'account', 9223372036854775807, 10)",
];

#[test]
fn the_server_refuses_the_loading_role_whatever_is_more_than_a_load() {
    // On a server of its own: what `foreign_keys: set_based` is granted, is granted on all databases.
    let server = Server::private(&[]);
    let (production, owner, loader) = owned(&server);
    production.pipeline_at(&loader, &["run", "p.yaml"]).passes();
    let sequences = "SELECT string_agg(last_value::text || is_called::text, ' ')
        FROM (SELECT last_value, is_called FROM public.account_account_id_seq UNION ALL SELECT last_value, is_called FROM public.item_item_id_seq) AS s";
    let (before, stood) = (tables(&production.database, "public"), production.database.text(sequences));
    let (delta, acl) = (tables(&production.database, "delta"), made(&production.database));
    let superuser = Holder::new(&production.database.url());
    superuser.execute("SET ROLE delta_loader");
    for (who, session) in [("the login", &Holder::new(&loader)), ("the role", &superuser)] {
        for sql in FORBIDDEN {
            match session.run(sql) {
                Err((code, _)) => assert_eq!(code, NO_RIGHT, "{who}: {sql}"),
                Ok(()) => panic!("{who} may {sql}"),
            }
            session.execute("ROLLBACK");
        }
        for sql in NOT_REGISTERED {
            assert!(session.run(sql).is_err(), "{who} may {sql}");
        }
    }
    assert_eq!(production.database.text(sequences), stood);
    assert_same(&tables(&production.database, "public"), &before);
    assert_same(&tables(&production.database, "delta"), &delta);
    assert_same(&made(&production.database), &acl);

    // Where references are to be checked as sets, the right to switch the server's own check off comes from a superuser.
    production.write("load: { foreign_keys: set_based }\n");
    production.delta("SET", 10);
    production.pipeline_at(&owner, &["setup", "p.yaml"]).fails(78, &["cannot set up", "session_replication_role"]);
    production.pipeline_at(&loader, &["run", "p.yaml"]).fails(78, &["GRANT SET ON PARAMETER session_replication_role"]);
    production.database.execute("GRANT SET ON PARAMETER session_replication_role TO delta_loader");
    production.pipeline_at(&loader, &["run", "p.yaml"]).passes();
    assert_eq!((production.count("account"), production.count("item")), (25, 45));
}

#[test]
fn the_loading_role_gets_no_code_of_its_own_run_by_the_owner() {
    let (production, _, loader) = owned(Server::shared());
    let loader = Holder::new(&loader);
    let before = tables(&production.database, "public");
    loader.execute(
        "SET ROLE delta_loader;
         CREATE FUNCTION staging.take() RETURNS boolean LANGUAGE plpgsql AS
            'BEGIN DELETE FROM public.item; RETURN true; END';
         CREATE TYPE staging.trick AS (x bigint);
         CREATE FUNCTION staging.take(staging.trick) RETURNS bigint LANGUAGE plpgsql AS
            'BEGIN DELETE FROM public.item; RETURN 1; END';
         CREATE CAST (staging.trick AS bigint) WITH FUNCTION staging.take(staging.trick) AS IMPLICIT;
         CREATE FUNCTION staging.take_back(bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
            'BEGIN DELETE FROM public.item; RETURN true; END';",
    );
    for (what, sql, taken) in [
        (
            "a policy",
            "CREATE TABLE staging.item (_row integer, account_id bigint, region_id integer);
             INSERT INTO staging.item VALUES (1, 1, 1);
             ALTER TABLE staging.item ENABLE ROW LEVEL SECURITY;
             CREATE POLICY take ON staging.item USING (staging.take());",
            false,
        ),
        (
            "a cast",
            "CREATE TABLE staging.item (_row integer, account_id staging.trick, region_id integer);
             INSERT INTO staging.item VALUES (1, ROW(1), 1);",
            false,
        ),
        (
            "an index",
            "CREATE TABLE staging.item (_row integer, account_id bigint, region_id integer);
             CREATE INDEX ON staging.item (staging.take_back(account_id));",
            true,
        ),
    ] {
        loader.execute(&format!("DROP TABLE IF EXISTS staging.item; {sql} GRANT SELECT ON staging.item TO PUBLIC"));
        // The functions are the owner's first, and then a superuser's.
        for by in [format!("{}_owner", production.database.name), "postgres".to_owned()] {
            production.database.execute(&format!("ALTER FUNCTION delta.hold_references(text, text[]) OWNER TO {by}"));
            match loader.run("SELECT delta.hold_references('item', '{item}')") {
                Ok(()) => assert!(taken, "{what} is taken, run by {by}"),
                Err((_, said)) => {
                    assert!(!taken && said.contains("is no staging table"), "{what}, run by {by}: {said}");
                }
            }
            assert_same(&tables(&production.database, "public"), &before);
        }
    }
}

#[test]
fn a_login_that_may_do_too_much_is_told_of_or_refused() {
    let (production, owner, loader) = owned(Server::shared());
    let name = format!("{}_loader", production.database.name);
    let grant = |sql: &str| production.database.execute(&sql.replace("LOADER", &name));
    for (right, url) in [
        ("", &owner),
        ("GRANT UPDATE ON account TO LOADER", &loader),
        ("GRANT DELETE ON item TO LOADER", &loader),
        ("GRANT TRUNCATE ON item TO LOADER", &loader),
    ] {
        grant("REVOKE UPDATE, DELETE, TRUNCATE ON account, item FROM LOADER");
        grant(right);
        let before = kept(&production.database);
        production.write("safeguards: { conversion_mode: off, least_privilege: require }\n");
        let refused = production.pipeline_at(url, &["run", "p.yaml"]);
        refused.fails(77, &["update, delete or truncate", "least_privilege", "hint: ", "delta_loader"]);
        assert_same(&kept(&production.database), &before);
        production.write("");
        let told = production.pipeline_at(url, &["validate", "p.yaml"]);
        let told = told.passes().stdout.clone() + &told.stderr;
        assert!(told.contains("may update, delete or truncate"), "{right}: {told}");
    }
    production.write("safeguards: { conversion_mode: off, least_privilege: require }\n");
    production.pipeline(&["run", "p.yaml"]).fails(77, &["superuser", "least_privilege"]);
    grant("REVOKE UPDATE, DELETE, TRUNCATE ON account, item FROM LOADER");
    production.pipeline_at(&loader, &["run", "p.yaml"]).passes();
}

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
fn a_target_that_lets_nobody_in_or_lacks_something_is_named_with_what_to_do() {
    let production = Production::new(Server::shared(), SQL, "");
    let database = &production.database;
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fails(
        &production,
        &format!("postgres://u:{PASSWORD}@127.0.0.1:{away}/p"),
        69,
        &["nothing answers at", "is the server running"],
    );
    let nobody = production.login("nobody", "");
    let wrong = nobody.replace(PASSWORD, "wrong");
    fails(&production, &wrong, 69, &["refuses the password of", "PGPASSWORD"]);
    let nowhere = database.url().replace(&database.name, "nowhere");
    fails(&production, &nowhere, 69, &["there is no database `nowhere`"]);

    fails(&production, &database.url(), 78, &["the control schema `delta` is missing", "pipeline setup"]);
    production.pipeline(&["setup", "p.yaml"]).passes();
    fails(&production, &nobody, 78, &["may not use the control schema", "GRANT delta_loader TO"]);
    let member = production.login("member", "IN ROLE delta_loader");
    database.execute("REVOKE INSERT ON item FROM delta_loader");
    fails(&production, &member, 78, &["may not both read `item` and insert into it", "setup"]);
    database.execute("REVOKE SELECT ON account FROM delta_loader");
    fails(&production, &member, 78, &["`account`"]);
    production.pipeline(&["setup", "p.yaml"]).passes();

    database.execute("DROP SCHEMA staging");
    fails(&production, &member, 78, &["the schema `staging` for staging is missing", "setup"]);
    database.execute("CREATE SCHEMA staging");
    fails(&production, &member, 78, &["may not make tables in the schema `staging`"]);
    production.pipeline(&["setup", "p.yaml"]).passes();

    database.execute("CREATE TABLE staging.item (mine text); INSERT INTO staging.item VALUES ('precious')");
    fails(&production, &member, 78, &["`staging.item` is a table of its own", "target.staging"]);
    assert_eq!(database.text("SELECT mine FROM staging.item"), "precious");
    database.execute("DROP TABLE staging.item; CREATE VIEW staging.ck_account AS SELECT 'precious' AS mine");
    fails(&production, &member, 78, &["`staging.ck_account`", "target.staging"]);
    database.execute("DROP VIEW staging.ck_account");

    production.pipeline_at(&member, &["run", "p.yaml"]).passes();
}

#[test]
fn a_production_that_takes_no_row_of_the_delta_is_named_with_what_to_do() {
    let production = Production::ready();
    let member = production.login("member", "IN ROLE delta_loader");
    let cases: &[(&str, &str, i32, &[&str])] = &[
        (
            "ALTER TABLE item ADD COLUMN must text; UPDATE item SET must = 'x'; ALTER TABLE item ALTER must SET NOT NULL",
            "ALTER TABLE item DROP COLUMN must",
            78,
            &["nothing fills `must` of `item`", "p.yaml:"],
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
            &["18 rows of `item` were inserted, and 20 were meant", "trigger"],
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
            "ALTER SEQUENCE item_item_id_seq INCREMENT 2",
            "ALTER SEQUENCE item_item_id_seq INCREMENT 1",
            77,
            &["item_item_id_seq", "start_row_number"],
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
fn a_lock_that_somebody_holds_on_production_ends_the_run_and_not_the_others() {
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
fn a_second_run_is_told_who_loads_now() {
    let production = Production::ready();
    production.write("load: { lock_timeout: 60s }\n");
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
    production.pipeline(&["setup", "p.yaml"]).passes();
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
        // Where the server was there to be told, the run has failed; else it was cut off, as far as anybody knows.
        match ran.code {
            75 => ran.fails(75, &["was cut off", "hint: what is not committed", "`pipeline resume FILE 2"]),
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
fn a_backend_that_is_terminated_at_any_point_leaves_nothing_and_the_run_can_be_repeated() {
    for (point, stop) in STOPS {
        eprintln!("{point}:");
        cut(Server::shared(), stop, |database| {
            database.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted");
        });
    }
}

#[test]
fn a_server_that_is_restarted_in_the_middle_of_a_run_leaves_nothing_and_the_run_can_be_repeated() {
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
    production.pipeline(&["setup", "p.yaml"]).passes();
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
        production.pipeline(&["setup", "p.yaml"]).passes();
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
