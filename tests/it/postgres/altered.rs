//! Rollbacks after production's tables were dropped, renamed, or altered, and what a rollback reads and locks.

use crate::production::{Holder, Production, SQL, kept, until};
use crate::server::{Database, Server};
use crate::support::assert_same;

fn loaded() -> (Production, String) {
    let production = Production::ready();
    production.loads();
    let run = production.database.text("SELECT id FROM delta.run");
    (production, run)
}

/// Rows of production and the key maps.
fn rows(database: &Database) -> (i64, i64, i64) {
    let count = |sql: &str| database.number(sql);
    (
        count("SELECT count(*) FROM account"),
        count("SELECT count(*) FROM item"),
        count("SELECT (SELECT count(*) FROM delta.key_map_account) + (SELECT count(*) FROM delta.key_map_item)"),
    )
}

#[test]
fn a_table_that_is_gone_blocks_only_its_own_runs() {
    let (production, run) = loaded();
    let database = &production.database;
    for gone in ["ALTER TABLE item RENAME TO part", "DROP TABLE part"] {
        database.execute(gone);
        let before = kept(database);
        let said = ["`item`: 20 rows out of reach: the table no longer exists", "--accept public.item"];
        production.pipeline(&["rollback", "p.yaml", &run]).fails(77, &said);
        let dry = production.pipeline(&["rollback", "p.yaml", &run, "--dry-run"]);
        assert!(dry.code == 77 && dry.stdout.contains(said[0]), "{}{}", dry.stdout, dry.stderr);
        assert_same(&kept(database), &before);
    }
    production.pipeline(&["rollback", "p.yaml", &run, "--accept", "public.item", "--dry-run"]).passes();
    production.pipeline(&["rollback", "p.yaml", &run, "--accept", "public.item"]).passes();
    assert_eq!(database.number("SELECT count(*) FROM account"), 5);
    assert_eq!(database.number("SELECT count(*) FROM delta.mapping_item"), 0);
}

#[test]
fn missing_key_column_is_reported() {
    let (production, run) = loaded();
    production.database.execute("ALTER TABLE item RENAME item_id TO id");
    let said = "`item`: 20 rows out of reach: the table lost the key column item_id";
    production.pipeline(&["rollback", "p.yaml", &run]).fails(77, &[said]);
    assert_eq!(rows(&production.database), (15, 25, 30));
}

#[test]
fn rewritten_table_is_distinguished_from_changed_rows() {
    let (production, run) = loaded();
    let database = &production.database;
    database.execute("ALTER TABLE item ALTER quantity TYPE bigint");
    let before = kept(database);
    let said = ["`item`: 20 written again when the table was altered", "--accept public.item"];
    production.pipeline(&["rollback", "p.yaml", &run]).fails(77, &said);
    assert_same(&kept(database), &before);
    let accepted = ["rollback", "p.yaml", &run, "--accept", "item"];
    // What was changed after it is changed, and an update of all rows is no rewrite.
    database.execute("UPDATE item SET quantity = 99 WHERE region_id = 20; UPDATE account SET alias = 'new'");
    production.pipeline(&accepted).fails(77, &["`item`: 1 changed since", "`account`: 10 changed since"]);
    let (production, run) = loaded();
    let database = &production.database;
    database.execute(
        "ALTER TABLE item ALTER quantity TYPE bigint; ALTER TABLE account ADD at timestamptz DEFAULT clock_timestamp()",
    );
    production.pipeline(&["rollback", "p.yaml", &run, "--accept", "item"]).fails(77, &["`account`: 10 written again"]);
    production.pipeline(&["rollback", "p.yaml", &run, "--accept", "item", "--accept", "public.account"]).passes();
    assert_eq!(rows(database), (5, 5, 0));
}

#[test]
fn a_key_is_found_by_the_equality_of_its_own_index() {
    let production = Production::ready();
    let database = &production.database;
    database
        .execute("CREATE EXTENSION citext; CREATE TABLE code (code citext PRIMARY KEY, n integer UNIQUE, plain text)");
    let equality = |column: &str| {
        database.text(&format!(
            "SELECT delta.equality('code', attnum) FROM pg_attribute WHERE attrelid = 'code'::regclass AND attname = '{column}'"
        ))
    };
    assert_eq!(equality("code"), "OPERATOR(public.=)");
    assert_eq!((equality("n"), equality("plain")), ("OPERATOR(pg_catalog.=)".into(), "OPERATOR(pg_catalog.=)".into()));
}

#[test]
fn a_rollback_reads_each_of_its_rows_a_few_times() {
    let production = Production::new(Server::shared(), SQL, "");
    production.set_up();
    // So many that reading a table whole for each row would be many times as much.
    production.delta("P", 1500);
    let database = &production.database;
    database.execute("INSERT INTO region SELECT n, 'region ' || n FROM generate_series(301, 3000) AS n");
    // Nothing is known of the rows: neither of production's nor of the mappings.
    database
        .execute("ALTER TABLE account SET (autovacuum_enabled = off); ALTER TABLE item SET (autovacuum_enabled = off)");
    production.pipeline(&["run", "p.yaml"]).passes();
    database.execute("DELETE FROM pg_statistic WHERE starelid IN ('account'::regclass, 'item'::regclass)");
    let run = database.text("SELECT id FROM delta.run");
    let read = "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables
                WHERE relname IN ('account', 'item', 'mapping_account', 'mapping_item')";
    // The server counts what a session did when that ends.
    let others = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())";
    let settled = || until(database, others);
    settled();
    let before = database.number(read);
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
    settled();
    until(database, &format!("SELECT ({read}) > {before}"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    let read = database.number(read) - before;
    assert!(read < 4500 * 20, "{read} rows were read to roll 4500 back");
}

#[test]
fn a_reference_without_an_index_gets_one_for_the_rollback() {
    let production = Production::new(Server::shared(), SQL, "");
    // A row a page.
    production.database.execute(
        "CREATE TABLE visit (n integer, account_id bigint REFERENCES account, pad text) WITH (fillfactor = 10);
         INSERT INTO visit SELECT n, n % 5 + 1, repeat('x', 900) FROM generate_series(1, 1200) AS n",
    );
    production.set_up();
    production.delta("P", 100);
    production.pipeline(&["run", "p.yaml"]).passes();
    let (database, run) = (&production.database, production.database.text("SELECT id FROM delta.run"));
    let indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'visit'::regclass";
    let dry = production.pipeline(&["rollback", "p.yaml", &run, "--dry-run"]).passes().stdout.clone();
    assert!(dry.contains("no index finds the rows of `visit` by (account_id)"), "{dry}");
    // The server's check of each deleted row goes by that index: it reads the table no more often than it has references.
    let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'visit'";
    let before = database.number(scans);
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(database.number(scans) - before < 10, "{} scans", database.number(scans) - before);
    assert_eq!((rows(database), database.number(indexes)), ((5, 5, 0), 0));
}

#[test]
fn a_rollback_waits_for_no_reader_and_no_other_row() {
    let (production, run) = loaded();
    let holder = Holder::new(&production.database.url());
    holder.execute("BEGIN; SELECT count(*) FROM public.item; UPDATE public.item SET quantity = 9 WHERE item_id = 1; UPDATE public.account SET alias = 'x' WHERE account_id = 1");
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
    holder.execute("COMMIT");
    assert_eq!(rows(&production.database), (5, 5, 0));
}

#[test]
fn a_table_of_another_owner_that_refers_is_not_read() {
    for (action, refused) in [
        ("", "production prevents the deletion of the rows"),
        ("ON DELETE CASCADE", "`account`: 1 reference of `note`, whose rows their foreign key would delete or change"),
    ] {
        let (production, run) = loaded();
        let database = &production.database;
        production.login("stranger", "");
        let stranger =
            database.text("SELECT rolname FROM pg_roles WHERE rolname LIKE '%stranger%' ORDER BY oid DESC LIMIT 1");
        database.execute(&format!(
            "CREATE TABLE note (account_id bigint REFERENCES account {action}); ALTER TABLE note OWNER TO {stranger}"
        ));
        let roll_back = |arguments: &[&str]| production.pipeline(&[&["rollback", "p.yaml", &run], arguments].concat());
        if action.is_empty() {
            roll_back(&["--dry-run"]).passes();
        }
        database.execute("INSERT INTO note SELECT max(account_id) FROM account");
        let before = kept(database);
        let dry = roll_back(&["--dry-run"]);
        assert!(
            dry.code == 77 && format!("{}{}", dry.stdout, dry.stderr).contains(refused),
            "{}{}",
            dry.stdout,
            dry.stderr
        );
        roll_back(&[]).fails(77, &[refused]);
        assert_same(&kept(database), &before);
        database.execute("DELETE FROM note");
        if action.is_empty() {
            roll_back(&[]).passes();
            assert_eq!(rows(database), (5, 5, 0));
        }
    }
}
