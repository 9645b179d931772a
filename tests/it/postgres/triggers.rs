//! Production's triggers: they run in loads and rollbacks as for production's own programs, and an error in one is told as its own.

use crate::production::{Holder, Production, SQL, kept};
use crate::server::Server;
use crate::support::assert_same;

/// A trigger's function that names its table without a schema, and writes which settings it found.
const NOTED: &str = "CREATE TABLE noted (id serial PRIMARY KEY, what text, settings text);
    GRANT INSERT ON noted TO delta_loader; GRANT USAGE ON SEQUENCE noted_id_seq TO delta_loader;
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO noted (what, settings) VALUES (TG_NAME || ' ' || TG_OP,
            concat_ws(' ', current_setting('TimeZone'), current_setting('DateStyle'), current_setting('row_security')));
        RETURN coalesce(NEW, OLD); END $$;";

fn production(head: &str) -> Production {
    let production = Production::new(Server::shared(), SQL, head);
    production.set_up();
    production.database.execute(NOTED);
    production
}

fn run_of(production: &Production) -> String {
    production.database.text("SELECT id FROM delta.run")
}

#[test]
fn triggers_find_the_settings_of_productions_own_programs() {
    for staging in ["always", "when_needed"] {
        let production = production(&format!("load: {{ staging: {staging} }}\n"));
        let database = &production.database;
        database.execute(&format!(
            "CREATE SCHEMA apart; ALTER TABLE noted SET SCHEMA apart; GRANT USAGE ON SCHEMA apart TO PUBLIC;
             ALTER DATABASE {0} SET search_path = apart, public; ALTER DATABASE {0} SET TimeZone = 'Asia/Tokyo';
             ALTER DATABASE {0} SET DateStyle = 'SQL, DMY';
             CREATE TRIGGER before BEFORE INSERT OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION noted();
             CREATE TRIGGER each AFTER INSERT OR DELETE ON item FOR EACH STATEMENT EXECUTE FUNCTION noted();
             CREATE CONSTRAINT TRIGGER late AFTER INSERT OR DELETE ON account DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION noted()",
            database.name
        ));
        production.loads();
        let run = run_of(&production);
        let noted = "SELECT what, count(*)::text, min(settings) = max(settings), min(settings) FROM apart.noted GROUP BY 1 ORDER BY 1";
        let expected = |what: &str| {
            let row = |name: &str, count: &str| {
                [format!("{name} {what}"), count.to_owned(), "t".into(), "Asia/Tokyo SQL, DMY on".into()].to_vec()
            };
            [row("before", "20"), row("each", "1"), row("late", "10")].to_vec()
        };
        assert_eq!(database.rows(noted), expected("INSERT"), "{staging}");
        database.execute("DELETE FROM apart.noted");
        production.pipeline(&["rollback", "p.yaml", &run]).passes();
        let rows = database.rows(noted);
        assert_eq!(
            rows.iter().map(|row| &row[..2]).collect::<Vec<_>>(),
            expected("DELETE").iter().map(|row| &row[..2]).collect::<Vec<_>>()
        );
    }
}

#[test]
fn an_error_in_a_trigger_is_its_own_and_names_the_row() {
    let raises = "CREATE FUNCTION closed() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.region_id = 13 THEN RAISE 'not on a Sunday'; END IF; RETURN NEW; END $$;";
    let kinds = [
        "CREATE TRIGGER \"shop hours\" BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION closed()",
        "CREATE TRIGGER \"shop hours\" AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION closed()",
        "CREATE CONSTRAINT TRIGGER \"shop hours\" AFTER INSERT ON item DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION closed()",
    ];
    for staging in ["always", "when_needed"] {
        for kind in kinds {
            let production = production(&format!("load: {{ staging: {staging} }}\n"));
            production.database.execute(&format!("{raises} {kind}"));
            let before = kept(&production.database);
            for command in [["run", "p.yaml", "-q"], ["run", "p.yaml", "--mock"]] {
                let said = [
                    "`item`",
                    "trigger `shop hours`: not on a Sunday",
                    "closed() line 1 at RAISE",
                    "\n  item.csv:14\n",
                ];
                production.pipeline(&command).fails(1, &said);
            }
            assert_same(&kept(&production.database), &before);
        }
    }
}

#[test]
fn missing_right_of_a_trigger_names_the_trigger() {
    let cases = [
        ("INSERT INTO missing VALUES (1)", "relation \"missing\" does not exist", "search_path"),
        ("PERFORM missing(1)", "function missing(integer) does not exist", "search_path"),
        ("INSERT INTO secret VALUES (1)", "permission denied for table secret", "SECURITY DEFINER"),
    ];
    for (body, said, hint) in cases {
        let production = production("");
        let loader = production.login("loader", "IN ROLE delta_loader");
        production.database.execute(&format!(
            "CREATE TABLE secret (n integer);
             CREATE FUNCTION lacks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NEW; END $$;
             CREATE TRIGGER lacking AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION lacks()"
        ));
        let ran = production.pipeline_at(&loader, &["run", "p.yaml"]);
        ran.fails(78, &["cannot insert into `account`", "trigger `lacking` failed", said, hint]);
        assert!(!ran.stderr.contains("setup"), "{}", ran.stderr);
    }
}

#[test]
fn a_dry_run_fails_as_the_rollback_would_and_leaves_no_trace() {
    let production = production("");
    production.loads();
    let (database, run) = (&production.database, run_of(&production));
    database.execute(
        "CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO noted (what) VALUES (TG_OP); IF OLD.region_id = 13 THEN RAISE 'thirteen stays'; END IF; RETURN OLD; END $$;
         CREATE TRIGGER staying AFTER DELETE ON item FOR EACH ROW EXECUTE FUNCTION stays()",
    );
    let sequence = "SELECT last_value::text || is_called FROM noted_id_seq";
    let before = (kept(database), database.text(sequence));
    let said = ["cannot delete the run's rows from public.item", "stays()", "thirteen stays", "nothing was changed"];
    production.pipeline(&["rollback", "p.yaml", &run, "--dry-run"]).fails(77, &said);
    assert_eq!((kept(database), database.text(sequence)), before);
    production.pipeline(&["rollback", "p.yaml", &run]).fails(77, &said);
    assert_same(&kept(database), &before.0);

    database.execute(
        "CREATE OR REPLACE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN INSERT INTO noted (what) VALUES (TG_OP); RETURN OLD; END $$",
    );
    let before = (kept(database), database.text(sequence));
    let dry = production.pipeline(&["rollback", "p.yaml", &run, "--dry-run"]);
    assert!(!dry.passes().stdout.contains("numbers of"), "{}", dry.stdout);
    assert_eq!((kept(database), database.text(sequence)), before);
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
    assert_eq!(database.number("SELECT count(*) FROM noted"), 20);
}

#[test]
fn a_sequence_in_use_is_not_waited_for_by_a_dry_run() {
    let production = production("");
    production.loads();
    production.database.execute("CREATE TRIGGER noting AFTER DELETE ON item FOR EACH ROW EXECUTE FUNCTION noted()");
    let holder = Holder::new(&production.database.url());
    holder.execute("BEGIN; SELECT nextval('public.noted_id_seq')");
    let dry = production.pipeline(&["rollback", "p.yaml", &run_of(&production), "--dry-run"]);
    assert!(dry.passes().stdout.contains("numbers of public.noted_id_seq"), "{}", dry.stdout);
}

#[test]
fn what_triggers_wrote_with_the_run_goes_with_it() {
    let production = production("");
    let database = &production.database;
    database.execute(
        "CREATE TABLE balance (of_account bigint PRIMARY KEY REFERENCES account, amount integer NOT NULL DEFAULT 0);
         ALTER TABLE account ADD items integer NOT NULL DEFAULT 0; GRANT UPDATE (items) ON account TO delta_loader;
         GRANT SELECT, INSERT ON balance TO delta_loader; INSERT INTO balance SELECT account_id FROM account;
         CREATE FUNCTION opened() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO balance (of_account) VALUES (NEW.account_id); RETURN NEW; END $$;
         CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             UPDATE account SET items = items + CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END
             WHERE account_id = coalesce(NEW.account_id, OLD.account_id); RETURN NULL; END $$;
         CREATE TRIGGER opened AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION opened();
         CREATE TRIGGER counted AFTER INSERT OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION counted()",
    );
    let before =
        database.rows("SELECT t::text FROM account AS t UNION ALL SELECT t::text FROM balance AS t ORDER BY 1");
    production.loads();
    assert_eq!(database.number("SELECT count(*) FROM balance"), 15);
    let run = run_of(&production);
    production.pipeline(&["rollback", "p.yaml", &run, "--dry-run"]).passes();
    let told = production.pipeline(&["rollback", "p.yaml", &run]).passes().stdout.clone();
    assert!(told.contains("10 rows of `balance` were also deleted"), "{told}");
    let after = database.rows("SELECT t::text FROM account AS t UNION ALL SELECT t::text FROM balance AS t ORDER BY 1");
    assert_eq!(after, before);
}

#[test]
fn rows_that_others_add_to_what_a_trigger_wrote_keep_the_run() {
    let production = production("");
    let database = &production.database;
    database.execute(
        "CREATE TABLE balance (of_account bigint PRIMARY KEY REFERENCES account);
         CREATE TABLE booking (id serial PRIMARY KEY, of_account bigint REFERENCES balance ON DELETE CASCADE);
         GRANT SELECT, INSERT ON balance TO delta_loader;
         CREATE FUNCTION opened() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO balance (of_account) VALUES (NEW.account_id); RETURN NEW; END $$;
         CREATE TRIGGER opened AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION opened()",
    );
    production.loads();
    database.execute("INSERT INTO booking (of_account) SELECT of_account FROM balance");
    let before = kept(database);
    let said = "10 referenced by rows of `balance` that are not the run's (of_account)";
    production.pipeline(&["rollback", "p.yaml", &run_of(&production)]).fails(77, &[said]);
    assert_same(&kept(database), &before);
}

#[test]
fn the_callers_session_gives_the_triggers_of_a_rollback_nothing() {
    let production = production("");
    production.loads();
    let (database, run) = (&production.database, run_of(&production));
    database.execute("CREATE TRIGGER noting AFTER DELETE ON item FOR EACH ROW EXECUTE FUNCTION noted()");
    let dba = production.login("dba", "IN ROLE delta_rollback");
    let login = format!("{}_dba", database.name);
    database.execute(&format!(
        "CREATE SCHEMA bait AUTHORIZATION {login}; GRANT TEMP ON DATABASE {0} TO {login}; ALTER ROLE {login} SET search_path = bait",
        database.name
    ));
    // A table that stands in for the trigger's, with a trigger of its own that would run as the owner of production.
    let trap = |name: &str| {
        format!(
            "CREATE FUNCTION bait.act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 EXECUTE 'CREATE ROLE {login}_was_here'; RETURN NEW; END $$;
             CREATE {name} (id integer, what text, settings text); GRANT ALL ON {0} TO PUBLIC; GRANT USAGE ON SCHEMA bait TO PUBLIC;
             CREATE TRIGGER act BEFORE INSERT ON {0} FOR EACH ROW EXECUTE FUNCTION bait.act()",
            name.rsplit(' ').next().unwrap()
        )
    };
    let entry = database.number("SELECT max(number) + 1 FROM delta.event");
    let call = format!("SELECT delta.roll_back('{run}', {entry}, '{{}}', '', '{{}}')");
    let before = kept(database);
    let session = Holder::new(&dba);
    session.execute(&trap("TEMP TABLE noted"));
    for call in [&call, &format!("SELECT delta.try_roll_back('{run}', '{{}}')")] {
        let (code, said) = session.run(call).unwrap_err();
        assert_eq!((code.as_str(), said.as_str()), ("DP003", "the session has temporary objects"));
    }
    assert_same(&kept(database), &before);
    drop(session);

    database.execute("DROP FUNCTION bait.act CASCADE");
    let session = Holder::new(&dba);
    session.execute(&trap("TABLE bait.noted"));
    session.execute(&format!("SET search_path = bait, pg_catalog; {call}"));
    assert_eq!(database.number("SELECT count(*) FROM public.noted"), 20);
    assert_eq!(database.number(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{login}_was_here'")), 0);
    assert_eq!(session.text("SHOW search_path"), "bait, pg_catalog");
}
