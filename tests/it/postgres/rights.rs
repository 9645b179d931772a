//! Who may do what: the setup, the loading role, and logins that may too much.

use std::thread;

use crate::production::{Holder, Production, SQL, kept, tables};
use crate::server::{Database, Server};
use crate::support::{Tables, assert_same};

/// The code of a right that is missing.
const NO_RIGHT: &str = "42501";

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

/// A production that belongs to a role that is no superuser; the URLs of its owner and of a login that only loads.
fn owned(server: &Server) -> (Production, String, String) {
    let production = Production::new(server, "", "load: { staging: always }\n");
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
    production.require_no_mode();
    let loader = production.login("loader", "IN ROLE delta_loader");
    (production, owner, loader)
}

#[test]
fn printed_setup_run_by_the_owner_lets_the_role_load() {
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
    // The printed script does not depend on how the session writes names.
    let printed = production.pipeline_at(&owner, &["setup", "p.yaml", "--print"]);
    Holder::new(&owner).execute(&format!("SET quote_all_identifiers = on; {}", printed.passes().stdout));
    assert_same(&made(&production.database), &before);
    // Whoever only loads cannot set up, and is told so.
    let refused = production.pipeline_at(&loader, &["setup", "p.yaml"]);
    refused.fails(78, &["cannot set up", "hint: "]);
    assert_same(&made(&production.database), &before);
}

#[test]
fn setup_refuses_a_newer_version_and_a_foreign_schema() {
    let production = Production::ready();
    production.database.execute("INSERT INTO delta.migration VALUES (99, 'newer', '')");
    let before = made(&production.database);
    production.pipeline(&["setup", "p.yaml"]).fails(78, &["newer version", "hint: "]);
    production.pipeline(&["run", "p.yaml"]).fails(78, &["version 99", "newer"]);
    assert_same(&made(&production.database), &before);

    let production =
        Production::new(Server::shared(), &format!("{SQL} CREATE SCHEMA delta; CREATE TABLE delta.force (x int)"), "");
    let before = made(&production.database);
    production
        .pipeline(&["setup", "p.yaml"])
        .fails(78, &["the schema \"delta\" was not created by pipeline", "hint: "]);
    production.pipeline(&["run", "p.yaml"]).fails(78, &["was not created by pipeline"]);
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
    productions[0].require_no_mode();
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
    "INSERT INTO delta.loaded_table (table_name) VALUES ('public.region')",
    "UPDATE delta.loaded_table SET sequence_name = 'item_item_id_seq'",
    "INSERT INTO delta.event (run, number) VALUES ('mine', 1)",
    "UPDATE delta.mapping_account SET run = 'mine'",
    "INSERT INTO delta.segment (table_name, run, rows) VALUES ('public.account', 'mine', 1)",
    "INSERT INTO delta.run (id) VALUES ('mine')",
    "INSERT INTO delta.file (hash) VALUES ('mine')",
    "INSERT INTO delta.block (table_name) VALUES ('public.account')",
    "INSERT INTO delta.policy (conversion_mode) VALUES (false)",
    "UPDATE delta.policy SET max_key_block = 1",
    "UPDATE delta.mode SET until = 'infinity'",
    "UPDATE delta.migration SET version = 0",
    "CREATE TABLE staging.mine (x integer)",
    "CREATE INDEX ON staging.item (account_id)",
    "ALTER TABLE staging.item ADD CHECK (account_id > 0)",
    "DROP TABLE staging.item",
    "SELECT delta.switch_mode(60, 'mine', true)",
    "SELECT delta.set_policy(false, 0, 1, NULL)",
    "SELECT delta.roll_back('mine', 1, '', '', '{}')",
    "SELECT delta.is_operator()",
    "CREATE TABLE delta.mine (x integer)",
    "CREATE OR REPLACE FUNCTION delta.analyze(of_table text) RETURNS void LANGUAGE sql AS 'DELETE FROM public.item'",
    "ALTER FUNCTION delta.reserve(text, text, bigint, bigint, boolean, text, integer) SET search_path = staging",
];

/// What the functions of the control schema refuse: tables that no pipeline loads, and keys of runs that nothing announced.
const REFUSED: &[&str] = &[
    "SELECT delta.reserve('mine', 'public.region', NULL, 1)",
    "SELECT delta.reserve('mine', 'region', 1, 1)",
    "SELECT delta.record_block('mine', 'public.region', 1, 1)",
    "SELECT delta.record_block('mine', 'public.account', 1, 1)",
    "SELECT delta.hold_table('public.region')",
    "SELECT delta.hold_references('public.region', '{public.region}')",
    "SELECT delta.hold_references(NULL, NULL)",
    "SELECT delta.lock_references('public', 'region', '{region_id}', '{1}', NULL)",
    "SELECT delta.lock_references(NULL, NULL, NULL, NULL, NULL)",
    "SELECT delta.make_staging('mine', 'public.region', '{region_id}', '{false}', false, true)",
    "SELECT delta.make_staging('mine', 'public.item', '{xmin}', '{false}', false, true)",
    "SELECT delta.make_staging('mine', 'public.item', '{item_id,item_id}', '{false,false}', false, true)",
    "SELECT delta.analyze('public.region')",
    "SELECT delta.analyze('pg_class')",
    "SELECT delta.analyze_staging('public.region')",
    "SELECT delta.summarize('public.region')",
    "SELECT delta.summarize('pg_class')",
    "SELECT delta.forget('public.region')",
    "SELECT delta.forget(NULL)",
    "SELECT delta.begin_mappings('mine', 'public.region')",
    "SELECT delta.begin_mappings(NULL, NULL)",
    "SELECT delta.check_mappings()",
    "SELECT delta.append_staged('mine', 'public.region')",
    "SELECT delta.import_mappings('mine', 'public.region', 0, 1)",
    "SELECT delta.record_segment('mine', 'public.region', 1)",
    "SELECT delta.record_segment(NULL, NULL, NULL)",
    "SELECT delta.reserve('mine', 'public.account', 2, 1000)",
    "SELECT delta.reserve('mine', 'public.account', NULL, 1)",
    "SELECT delta.reserve('mine', 'public.account', NULL, -100)",
    "SELECT delta.reserve('mine', 'public.account', NULL, 0)",
    "SELECT delta.reserve('mine', 'public.account', NULL, NULL)",
    "SELECT delta.reserve(NULL, 'public.account', NULL, 1)",
    "SELECT delta.reserve('mine', 'public.account', NULL, 9223372036854775807)",
    "SELECT delta.reserve('mine', 'public.account', 9223372036854775807, 10)",
    "SELECT delta.append_event(NULL, NULL, NULL, NULL, NULL)",
    "SELECT delta.append_event('mine', 1, 'started', NULL, NULL)",
    "SELECT delta.append_event('mine', 1, 'started', 'no JSON', repeat('0', 64))",
    "SELECT delta.append_event('mine', 1, 'started', repeat('[', 100000), repeat('0', 64))",
    "SELECT delta.record_run(NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "SELECT delta.record_run('mine', 'p', 'now', '{}', '{h}', '{public.item}', '{f}')",
];

#[test]
fn server_refuses_the_loading_role_more_than_a_load() {
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
        for sql in REFUSED {
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
    production.pipeline_at(&owner, &["setup", "p.yaml"]).passes();
    let version = production.database.number("SELECT current_setting('server_version_num')::int / 10000");
    if version < 15 {
        let lacks = format!("PostgreSQL {version} cannot grant session_replication_role");
        return production.pipeline_at(&loader, &["run", "p.yaml"]).fails(78, &[&lacks, "`triggers`"]);
    }
    production.pipeline_at(&loader, &["run", "p.yaml"]).fails(78, &["GRANT SET ON PARAMETER session_replication_role"]);
    production.database.execute("GRANT SET ON PARAMETER session_replication_role TO delta_loader");
    production.pipeline_at(&loader, &["run", "p.yaml"]).passes();
    assert_eq!((production.count("account"), production.count("item")), (25, 45));
}

#[test]
fn login_with_excess_rights_is_reported_or_refused() {
    let (production, owner, loader) = owned(Server::shared());
    let name = format!("{}_loader", production.database.name);
    production.write("safeguards: { conversion_mode: off, least_privilege: require }\n");
    production
        .pipeline_at(&owner, &["run", "p.yaml"])
        .fails(77, &["can create roles", "least_privilege", "delta_loader"]);
    production.database.execute(&format!("ALTER ROLE {}_owner NOCREATEROLE", production.database.name));
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
        refused.fails(77, &["update, delete, or truncate", "least_privilege", "hint: ", "delta_loader"]);
        assert_same(&kept(&production.database), &before);
        production.write("");
        let told = production.pipeline_at(url, &["validate", "p.yaml"]);
        let told = told.passes().stdout.clone() + &told.stderr;
        assert!(told.contains("may update, delete, or truncate"), "{right}: {told}");
    }
    production.write("safeguards: { conversion_mode: off, least_privilege: require }\n");
    production.pipeline(&["run", "p.yaml"]).fails(77, &["superuser", "least_privilege"]);
    grant("REVOKE UPDATE, DELETE, TRUNCATE ON account, item FROM LOADER");
    // Code that others would run: as on PostgreSQL 14 and older, where everybody may create objects in `public`.
    for (right, back, what) in [
        (
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "create objects in the schema public",
        ),
        ("GRANT TRIGGER ON item TO LOADER", "REVOKE TRIGGER ON item FROM LOADER", "put triggers on"),
    ] {
        grant(right);
        production
            .pipeline_at(&loader, &["run", "p.yaml"])
            .fails(77, &[what, "sessions of other programs", "least_privilege"]);
        grant(back);
    }
    production.pipeline_at(&loader, &["run", "p.yaml"]).passes();
}
