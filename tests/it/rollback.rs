//! Taking runs back: production is as before the run, byte for byte, or nothing is changed and it is said why.

use serde_json::Value;

use crate::production::{Holder, Production, SQL, tables};
use crate::scene::{Delta, FILE, On, Scene};
use crate::server::Server;
use crate::support::{Place, Tables, assert_same};

const CUSTOMER: &str = "pipelines/customer-delta.yaml";

each_target!(
    rolled_back_files_are_loaded_again_with_new_keys,
    rows_in_other_hands_keep_a_run_where_it_is_and_are_named,
    of_two_runs_the_later_goes_first,
    run_that_was_never_committed_is_abandoned,
    run_that_cannot_be_rolled_back_is_explained,
    a_rollback_that_is_killed_is_done_or_not_and_says_which,
    triggers_are_named_and_one_that_does_more_or_less_stops_it,
);

/// Loads a delta; the run's id.
fn loaded(scene: &Scene, delta: &Delta) -> String {
    scene.give(delta);
    let ran = scene.pipeline(&["run", FILE, "--output", "json"]);
    let report: Value = serde_json::from_str(&ran.passes().stdout).unwrap();
    report["run"].as_str().unwrap().to_owned()
}

fn json(scene: &Scene, arguments: &[&str], code: i32) -> Value {
    let ran = scene.pipeline(&[arguments, &["--output", "json"]].concat());
    assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

/// All that is remembered but journals, files and keys, which stay.
fn key_maps(scene: &Scene) -> Tables {
    let mut kept = scene.remembered();
    kept.retain(|name, _| name.contains("key_map"));
    kept
}

fn rolled_back_files_are_loaded_again_with_new_keys(on: On) {
    let scene = Scene::new(on);
    let (before, maps) = (scene.production(), key_maps(&scene));
    let run = loaded(&scene, &Delta::new("B", 12, Some("A")));
    let after = scene.production();

    let dry = json(&scene, &["rollback", FILE, &run, "--dry-run"], 0);
    assert_eq!((&dry["verdict"], dry["conflicts"].as_array().unwrap().len()), (&"possible".into(), 0));
    assert_same(&scene.production(), &after);

    let told = scene.pipeline(&["rollback", FILE, &run]).passes().stdout.clone();
    assert!(told.starts_with("scene: rolled back: ") && told.contains("of 3 tables"), "{told}");
    assert!(told.contains("  proven: no row with a key of the run remains"), "{told}");
    assert_same(&scene.production(), &before);
    assert_same(&key_maps(&scene), &maps);
    let runs = scene.pipeline(&["runs", FILE]).stdout;
    assert!(runs.lines().any(|line| line.contains(&run) && line.ends_with("rolled back")), "{runs}");

    let block = format!("SELECT max(last) FROM {} WHERE table_name LIKE '%parent'", scene.control("block"));
    let given: i64 = scene.rows(&block)[0][0].parse().unwrap();
    scene.pipeline(&["run", FILE]).passes();
    assert!(
        scene.rows("SELECT min(parent_id) FROM parent WHERE code LIKE 'B-%'")[0][0].parse::<i64>().unwrap() > given
    );
    for (table, rows) in &after {
        assert_eq!(scene.production()[table].len(), rows.len(), "{table}");
    }
}

/// What others do to a row of a run, and what is said of it.
#[derive(Clone, Copy)]
struct Hand {
    sql: &'static str,
    said: &'static str,
}

const HANDS: [Hand; 6] = [
    Hand { sql: "UPDATE parent SET memo = 'others' WHERE code = 'B-2'", said: "`parent`: 1 changed since: " },
    Hand { sql: "UPDATE child SET memo = memo WHERE memo = 'child 2-1 of B'; DELETE FROM part WHERE memo = 'part 1 of child 2-1 of B'",
           said: "`part`: 1 gone from production: " },
    Hand { sql: "INSERT INTO child SELECT 'C0000099', parent_id, 1, 1, 'others' FROM parent WHERE code = 'B-2'",
           said: "`parent`: 1 referenced by rows of `child` that are not the run's (parent_id): " },
    Hand { sql: "INSERT INTO parent (code, boss_id) SELECT 'OTHERS', parent_id FROM parent WHERE code = 'B-2'",
           said: "`parent`: 1 referenced by rows of `parent` that are not the run's (boss_id): " },
    Hand { sql: "CREATE TABLE note (id INTEGER PRIMARY KEY, of_parent {big} REFERENCES parent (parent_id) ON DELETE CASCADE);
                 INSERT INTO note SELECT parent_id, parent_id FROM parent WHERE code LIKE 'B-%'",
           said: "referenced by rows of `note` that are not the run's (of_parent): " },
    Hand { sql: "CREATE TABLE mark (id INTEGER PRIMARY KEY, child VARCHAR(8), seq INTEGER,
                     FOREIGN KEY (child, seq) REFERENCES part (child_id, seq_no) ON DELETE SET NULL);
                 INSERT INTO mark SELECT 7, child_id, seq_no FROM part WHERE memo = 'part 1 of child 2-1 of B'",
           said: "`part`: 1 referenced by rows of `mark` that are not the run's (child, seq): " },
];

fn rows_in_other_hands_keep_a_run_where_it_is_and_are_named(on: On) {
    let scene = Scene::new(on);
    let run = loaded(&scene, &Delta::new("B", 12, Some("A")));
    // Who refers to the run's rows is found by an index, or without one.
    let indexes = "CREATE INDEX by_parent ON child (parent_id); CREATE INDEX by_boss ON parent (boss_id);";
    for (Hand { sql, said }, index) in HANDS.into_iter().flat_map(|hand| [(hand, ""), (hand, indexes)]) {
        let scene = scene.copied();
        scene.execute(index);
        scene.execute(&sql.replace("{big}", on.choose("INTEGER", "BIGINT")));
        let (before, remembered) = (scene.production(), scene.remembered());
        scene
            .pipeline(&["rollback", FILE, &run])
            .fails(77, &["cannot roll back run", said, "hint: nothing was changed"]);
        let dry = scene.pipeline(&["rollback", FILE, &run, "--dry-run"]);
        assert_eq!(dry.code, 77, "{}", dry.stderr);
        assert!(dry.stdout.contains("\n  conflict: `") && dry.stdout.contains(said), "{}", dry.stdout);
        assert_same(&scene.production(), &before);
        assert_same(&scene.remembered(), &remembered);
    }
}

fn of_two_runs_the_later_goes_first(on: On) {
    let scene = Scene::new(on);
    let before = scene.production();
    let first = loaded(&scene, &Delta::new("B", 6, None));
    let between = scene.production();
    let second = loaded(&scene, &Delta::new("C", 6, Some("B")));
    let both = scene.production();
    let said = "`parent`: 1 referenced by rows of `parent` that are not the run's (boss_id): ";
    scene.pipeline(&["rollback", FILE, &first]).fails(77, &[said]);
    assert_same(&scene.production(), &both);
    scene.pipeline(&["rollback", FILE, &second]).passes();
    assert_same(&scene.production(), &between);
    scene.pipeline(&["rollback", FILE, &first]).passes();
    assert_same(&scene.production(), &before);
}

/// Runs a command that is killed at a point.
fn killed(scene: &Scene, arguments: &[&str], point: &str) {
    let ran = scene.pipeline_with(arguments, &[("FAILPOINTS", &format!("{point}=return"))]);
    assert_eq!(ran.code, -9, "{}{}", ran.stdout, ran.stderr);
}

fn last_run(scene: &Scene) -> String {
    scene.rows(&format!("SELECT max(run) FROM {}", scene.control("event")))[0][0].clone()
}

fn run_that_was_never_committed_is_abandoned(on: On) {
    let scene = Scene::new(on);
    let before = scene.production();
    scene.give(&Delta::new("B", 6, Some("A")));
    killed(&scene, &["run", FILE], "reconciled");
    scene.pipeline(&["run", FILE]).fails(75, &["was interrupted"]);
    let run = last_run(&scene);
    let dry = scene.pipeline(&["rollback", FILE, &run, "--dry-run"]).passes().stdout.clone();
    assert!(dry.contains("a rollback would abandon the run"), "{dry}");
    let told = scene.pipeline(&["rollback", FILE, &run]).passes().stdout.clone();
    assert!(told.contains("the run is abandoned"), "{told}");
    assert_same(&scene.production(), &before);
    scene.pipeline(&["resume", FILE, &run]).fails(77, &["abandoned"]);
    scene.pipeline(&["rollback", FILE, &run]).fails(77, &["is abandoned already"]);
    scene.pipeline(&["run", FILE]).passes();
}

fn run_that_cannot_be_rolled_back_is_explained(on: On) {
    let scene = Scene::new(on);
    scene.place.write("map.csv", "legacy_key,parent_id\nOLD|1,1\n");
    let runs = || scene.rows(&format!("SELECT id FROM {}", scene.control("run"))).concat();
    let earlier = runs();
    scene.pipeline(&["keymap", "import", FILE, "map.csv", "--table", "parent"]).passes();
    // Two runs of one second are in no order.
    let import = runs().into_iter().find(|run| !earlier.contains(run)).unwrap();
    let before = (scene.production(), scene.remembered());
    scene.pipeline(&["rollback", FILE, "20200101T000000-dead"]).fails(64, &["has no run `20200101T000000-dead`"]);
    scene.pipeline(&["rollback", FILE, &import]).fails(77, &["imported mappings only"]);
    scene.pipeline(&["rollback", FILE, &import, "--dry-run"]).fails(77, &["imported mappings only"]);
    assert_eq!((scene.production(), scene.remembered()), before);
    let run = loaded(&scene, &Delta::new("B", 6, Some("A")));
    scene.pipeline(&["rollback", FILE, &run]).passes();
    let before = (scene.production(), scene.remembered());
    scene.pipeline(&["rollback", FILE, &run]).fails(77, &["is rolled back already"]);
    scene.pipeline(&["resume", FILE, &run]).fails(77, &["rolled back"]);
    assert_eq!((scene.production(), scene.remembered()), before);
}

fn a_rollback_that_is_killed_is_done_or_not_and_says_which(on: On) {
    let scene = Scene::new(on);
    let before = scene.production();
    let run = loaded(&scene, &Delta::new("B", 6, Some("A")));
    let loaded = scene.production();
    killed(&scene, &["rollback", FILE, &run], "rolling back");
    assert_same(&scene.production(), &loaded);
    // The server may notice a moment later that the one before is gone.
    let mut done = scene.pipeline_with(&["rollback", FILE, &run], &[("FAILPOINTS", "rolled back=return")]);
    while done.code == 69 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        done = scene.pipeline_with(&["rollback", FILE, &run], &[("FAILPOINTS", "rolled back=return")]);
    }
    assert_eq!(done.code, -9, "{}{}", done.stdout, done.stderr);
    assert_same(&scene.production(), &before);
    scene.pipeline(&["rollback", FILE, &run, "--dry-run"]).fails(77, &["is rolled back already"]);
    scene.pipeline(&["run", FILE]).passes();
}

fn triggers_are_named_and_one_that_does_more_or_less_stops_it(on: On) {
    let scene = Scene::new(on);
    scene.execute("CREATE TABLE gone (memo VARCHAR(40))");
    let before = scene.production();
    let run = loaded(&scene, &Delta::new("B", 6, Some("A")));
    let trigger = |sqlite: &str, postgres: &str| {
        scene.execute(&on.choose(
            format!("DROP TRIGGER IF EXISTS noted; CREATE TRIGGER noted {sqlite}; END"),
            format!(
                "DROP TRIGGER IF EXISTS noted ON part;
                 CREATE OR REPLACE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {postgres}; END $$;
                 CREATE TRIGGER noted BEFORE DELETE ON part FOR EACH ROW EXECUTE FUNCTION noted()"
            ),
        ));
    };
    let loaded = scene.production();
    trigger(
        "AFTER DELETE ON part BEGIN DELETE FROM part WHERE memo = 'there before'",
        "IF old.memo LIKE 'part%' THEN DELETE FROM public.part WHERE memo = 'there before'; END IF; RETURN old",
    );
    scene
        .pipeline(&["rollback", FILE, &run])
        .fails(77, &["would affect other rows", "hint: nothing was changed; check for a trigger of production"]);
    trigger("BEFORE DELETE ON part BEGIN SELECT RAISE(IGNORE)", "RETURN NULL");
    scene
        .pipeline(&["rollback", FILE, &run])
        .fails(77, &["hint: nothing was changed; check for a trigger of production"]);
    assert_same(&scene.production(), &loaded);

    trigger(
        "AFTER DELETE ON part BEGIN INSERT INTO gone VALUES (old.memo)",
        "INSERT INTO public.gone VALUES (old.memo); RETURN old",
    );
    let dry = scene.pipeline(&["rollback", FILE, &run, "--dry-run"]).passes().stdout.clone();
    assert!(dry.contains("note: deleting from `part` fires its triggers: `noted`"), "{dry}");
    scene.pipeline(&["rollback", FILE, &run]).passes();
    let mut now = scene.production();
    let noted = now.insert("gone".into(), Vec::new()).unwrap();
    assert!(!noted.is_empty());
    assert_same(&now, &before);
}

#[test]
fn the_six_tables_of_the_sample_are_as_before_on_sqlite() {
    let place = Place::samples_with_production();
    let before = place.production("pipelines/customer.db");
    let run = place.report(&["run", CUSTOMER], 0)["run"].as_str().unwrap().to_owned();
    let report = place.report(&["rollback", CUSTOMER, &run], 0);
    assert_eq!(report["tables"].as_array().unwrap().len(), 6);
    for table in report["tables"].as_array().unwrap() {
        let count = |name: &str| table[name].as_u64().unwrap();
        assert_eq!((count("rows"), 0), (count("mappings"), count("left")));
    }
    assert_same(&place.production("pipelines/customer.db"), &before);
    place.pipeline(&["run", CUSTOMER]).passes();
}

#[test]
fn the_six_tables_of_the_sample_are_as_before_on_postgresql() {
    let place = Place::samples();
    let database = Server::shared().database(&place.text("sample-data/production.postgres.sql"));
    let at = |arguments: &[&str]| place.pipeline_with(arguments, &[("DATABASE_URL", &database.local_url("postgres"))]);
    at(&["setup", CUSTOMER]).passes();
    database.execute(crate::production::NO_MODE);
    let before = tables(&database, "public");
    at(&["run", CUSTOMER]).passes();
    let run = database.text("SELECT id FROM delta.run");
    let told = at(&["rollback", CUSTOMER, &run]);
    assert!(told.passes().stdout.contains("of 6 tables"), "{}", told.stdout);
    assert_same(&tables(&database, "public"), &before);
    at(&["run", CUSTOMER]).passes();
}

/// A production with a run in it, and the run's id.
fn ran(head: &str) -> (Production, String) {
    let production = Production::new(Server::shared(), SQL, head);
    production.set_up();
    if head.contains("required") {
        production.pipeline(&["mode", "on", "p.yaml", "--for", "1h", "--reason", "a village"]).passes();
    }
    production.loads();
    let run = production.database.text("SELECT id FROM delta.run");
    (production, run)
}

#[test]
fn loader_cannot_roll_back_and_the_operator_needs_no_more() {
    let (production, run) = ran("");
    let loader = production.login("loader", "IN ROLE delta_loader");
    let kept = production.kept();
    let holder = Holder::new(&loader);
    holder.execute("SET ROLE delta_loader");
    for sql in [
        "SELECT delta.roll_back('r', 1, '', '', '{}')",
        "SELECT delta.try_roll_back('r', '{}')",
        "SELECT delta.conflicts('r', '{}')",
        "SELECT delta.holdings('r')",
        "SELECT delta.delete_rows('public.item', '{}', '{}', '', true)",
        "SELECT delta.delete_together('{public.item}', '{}', '{}', '', true)",
        "SELECT delta.delete_run('r', '{}', '{}')",
    ] {
        assert_eq!(holder.run(sql).unwrap_err().0, "42501", "{sql}");
    }
    production.pipeline_at(&loader, &["rollback", "p.yaml", &run]).fails(77, &["as the owner of the schema `delta`"]);
    assert_same(&production.kept(), &kept);
    let url = production.login("dba", "NOINHERIT IN ROLE delta_rollback");
    production.pipeline_at(&url, &["rollback", "p.yaml", &run, "--dry-run"]).passes();
    production.pipeline_at(&url, &["rollback", "p.yaml", &run]).passes();
    assert_eq!((production.count("account"), production.count("item")), (5, 5));
    // Nor may he do anything but that.
    let holder = Holder::new(&url);
    holder.execute("SET ROLE delta_rollback");
    for sql in
        ["DELETE FROM public.item", "DELETE FROM delta.key_map_item", "INSERT INTO delta.run VALUES ('r', '', '', '')"]
    {
        assert_eq!(holder.run(sql).unwrap_err().0, "42501", "{sql}");
    }
    let begun = holder.run(&format!("SELECT delta.roll_back('{run}', 99, '', '', '{{}}')")).unwrap_err();
    assert_eq!(begun.0, "DP003", "{begun:?}");
}

#[test]
fn a_mapping_that_was_forged_takes_no_row_of_others_with_it() {
    let (production, run) = ran("");
    production.database.execute(&format!("INSERT INTO delta.mapping_account VALUES ('forged', 1, '{run}')"));
    let kept = production.kept();
    production.pipeline(&["rollback", "p.yaml", &run]).fails(
        77,
        &[
            "`account`: 1 changed since: 1",
            "`account`: 1 more in the key map than the run recorded: it has 11 mappings of the run",
            "hint: nothing was changed",
        ],
    );
    assert_same(&production.kept(), &kept);
    // A run that was forged whole: even so, its rows are not of the transaction that says so.
    production.database.execute(
        "BEGIN; INSERT INTO delta.run (id, pipeline, started_at, report, transaction) VALUES ('f', 'small', '2026', '{}', pg_current_xact_id()::text);
         INSERT INTO delta.event VALUES ('f', 1, 'committed', '{}', ''); INSERT INTO delta.mapping_account VALUES ('f-1', 2, 'f');
         INSERT INTO delta.segment VALUES ('public.account', 'f', 1); COMMIT",
    );
    let refused =
        Holder::new(&production.database.url()).run("SELECT delta.roll_back('f', 2, '{}', '', '{}')").unwrap_err();
    assert_eq!(refused.0, "DP007", "{refused:?}");
    assert_eq!(production.count("account"), 15);
}

#[test]
fn mappings_that_are_missing_are_named_and_may_be_accepted() {
    let (production, run) = ran("");
    let first = format!("(SELECT min(item_id) FROM delta.mapping_item WHERE run = '{run}')");
    production.database.execute(&format!(
        "DELETE FROM item WHERE item_id = {first}; DELETE FROM delta.mapping_item WHERE item_id = {first}"
    ));
    let kept = production.kept();
    let named = "`item`: 1 missing from the key map: it has 19 mappings of the run, and 20 were recorded";
    let dry = production.pipeline(&["rollback", "p.yaml", &run, "--dry-run"]);
    assert!(dry.code == 77 && dry.stdout.contains(named), "{dry:?}");
    production
        .pipeline(&["rollback", "p.yaml", &run])
        .fails(77, &[named, "`pipeline keymap restore`", "--accept public.item"]);
    assert_same(&production.kept(), &kept);
    production.pipeline(&["rollback", "p.yaml", &run, "--accept", "public.item"]).passes();
    assert_eq!((production.count("account"), production.count("item")), (5, 5));

    // None is left at all.
    let (production, run) = ran("");
    production.database.execute(&format!("DELETE FROM delta.mapping_item WHERE run = '{run}'"));
    production.pipeline(&["rollback", "p.yaml", &run]).fails(77, &["`item`: 20 missing from the key map"]);
}

#[test]
fn a_segment_of_another_login_is_no_part_of_a_run() {
    let (production, run) = ran("");
    production.database.execute(&format!(
        "INSERT INTO delta.loaded_table SELECT (jsonb_populate_record(l, '{{\"table_name\": \"x:public.item\", \"history\": \"h\", \"mappings\": \"m\"}}')).*
             FROM delta.loaded_table AS l WHERE l.table_name = 'public.item';
         INSERT INTO delta.segment (table_name, run, rows, login) VALUES ('x:public.item', '{run}', 7, 'other')"
    ));
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
    assert_eq!((production.count("account"), production.count("item")), (5, 5));
}

#[test]
fn a_run_whose_report_is_unreadable_is_rolled_back() {
    let production = Production::ready();
    production.database.execute(
        "CREATE FUNCTION garble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.report := 'zz'; RETURN NEW; END $$;
         CREATE TRIGGER garble BEFORE INSERT ON delta.run FOR EACH ROW EXECUTE FUNCTION garble()",
    );
    production.loads();
    let run = production.database.text("SELECT id FROM delta.run");
    production.pipeline(&["rollback", "p.yaml", &run, "--dry-run"]).passes();
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
    assert_eq!((production.count("account"), production.count("item")), (5, 5));
}

#[test]
fn a_rollback_that_waits_too_long_changes_nothing() {
    let (production, run) = ran("");
    production.write("load: { lock_timeout: 300ms }\n");
    let holder = Holder::new(&production.database.url());
    holder.execute("BEGIN; LOCK TABLE item IN SHARE MODE");
    production.pipeline(&["rollback", "p.yaml", &run]).fails(
        69,
        &["cannot roll back the run: another session holds a lock", "hint: nothing was changed", "load.lock_timeout"],
    );
    holder.execute("ROLLBACK");
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
}

#[test]
fn restored_dump_cannot_say_what_was_changed_since() {
    let (production, run) = ran("");
    production.database.execute("UPDATE delta.run SET report = report");
    let kept = production.kept();
    production.pipeline(&["rollback", "p.yaml", &run]).fails(77, &["from a dump that was restored here"]);
    assert_same(&production.kept(), &kept);
}

#[test]
fn rollback_needs_mode_and_ends_it_and_ignores_the_window() {
    let (production, run) = ran("safeguards: { conversion_mode: required }\n");
    production.pipeline(&["rollback", "p.yaml", &run]).fails(77, &["is not in conversion mode", "hint: "]);
    production.pipeline(&["rollback", "p.yaml", &run, "--dry-run"]).passes();
    let closed = "window: { days: [mon, tue, wed, thu, fri, sat, sun], from: \"03:00\", to: \"03:01\", timezone: UTC }";
    production.write(&format!("safeguards: {{ conversion_mode: required, {closed} }}\n"));
    production.pipeline(&["mode", "on", "p.yaml", "--for", "1h", "--reason", "back"]).passes();
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
    let status = production.pipeline(&["mode", "status", "p.yaml"]).stdout;
    assert!(status.contains(&format!("is off: run {run} ended it")), "{status}");
}

#[test]
fn partitions_and_cycles_of_own_rows_do_not_block() {
    let sql = "
        CREATE TABLE account (account_id bigint GENERATED BY DEFAULT AS IDENTITY, account_no varchar(12) NOT NULL,
            alias text, status varchar(8) NOT NULL DEFAULT 'ACTIVE', first_item integer, PRIMARY KEY (account_id)) PARTITION BY RANGE (account_id);
        CREATE TABLE account_1 PARTITION OF account FOR VALUES FROM (0) TO (8);
        CREATE TABLE account_2 PARTITION OF account DEFAULT;
        CREATE TABLE region (region_id integer PRIMARY KEY, name text NOT NULL);
        CREATE TABLE item (item_id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
            account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE, region_id integer REFERENCES region ON DELETE RESTRICT,
            quantity integer NOT NULL);
        INSERT INTO account (account_no) SELECT 'OLD-' || n FROM generate_series(1, 5) AS n;
        INSERT INTO region SELECT n, 'region ' || n FROM generate_series(1, 300) AS n;
        INSERT INTO item (account_id, region_id, quantity) SELECT n, n, n FROM generate_series(1, 5) AS n;
        ALTER TABLE account ADD FOREIGN KEY (first_item) REFERENCES item DEFERRABLE;";
    let production = Production::new(Server::shared(), sql, "");
    production.set_up();
    let before = tables(&production.database, "public");
    production.loads();
    let run = production.database.text("SELECT id FROM delta.run");
    let report = production.pipeline(&["rollback", "p.yaml", &run, "--dry-run", "--output", "json"]);
    assert!(report.passes().stdout.contains("\"conflicts\": []"), "{}", report.stdout);
    production.pipeline(&["rollback", "p.yaml", &run]).passes();
    assert_same(&tables(&production.database, "public"), &before);
}
