//! Attacks by sessions of the logins themselves, each in a copy of its own: what is put where staging or production was, and what happens between
//! two sessions.

use super::world::{Attack, By, CLIMBED, World, texts};
use crate::production::Holder;
use crate::server::Database;

/// What is put on a table, and folded or run when a query over it is planned in another role's name.
const VEHICLES: &[(&str, &[&str])] = &[
    ("an index expression", &["CREATE INDEX ON <table> ((night.bait(1)))"]),
    (
        "a child table",
        &["CREATE TABLE night.child () INHERITS (<table>)", "CREATE INDEX ON night.child ((night.bait(1)))"],
    ),
];

/// An attacker that owns a table for a moment.
fn on_table(name: &str, table: &str, planted: &[&str], strike: &[&str]) -> Attack {
    let named = |sql: &str| sql.replace("<table>", table);
    Attack {
        planted: planted.iter().map(|sql| named(sql)).collect(),
        opened: vec![
            named("ALTER TABLE <table> OWNER TO <night>"),
            "GRANT CREATE ON SCHEMA delta, staging, public TO <night>".into(),
        ],
        sealed: vec![named("ALTER TABLE <table> OWNER TO <owner>")],
        ..Attack::new(format!("{name} on {table}"), strike)
    }
}

const START: &str = "SELECT kit.start('20990101T000000-0001', 5)";
const HOLD: &str = "SELECT FROM delta.hold_references('public.item', '{public.item}')";

#[test]
fn nothing_is_put_on_a_control_table() {
    let mut attacks = Vec::new();
    for (table, strike) in [
        ("delta.loaded_table", "SELECT delta.hold_table('public.item')"),
        ("delta.event", START),
        (
            "delta.reference",
            "SELECT FROM delta.lock_references('public', 'account', '{account_id,account_no}', '{1}', '{OLD-1}')",
        ),
        ("delta.mode", "SELECT FROM delta.hold_mode()"),
        ("delta.policy", "SELECT FROM delta.hold_policy()"),
        ("delta.block", "SELECT delta.reserve('20990101T000000-0001', 'public.item', NULL, 5)"),
        ("delta.mapping_item", "SELECT delta.forget('public.item')"),
        ("delta.segment", "SELECT delta.forget('public.item')"),
        ("delta.appended", "SELECT delta.forget('public.item')"),
        (
            "delta.run",
            "SELECT delta.record_run('20990101T000000-0001', 'small', 'now', '{}', '{h}', '{public.item}', '{f}')",
        ),
    ] {
        for (name, planted) in VEHICLES {
            // A child table of what is only inserted into is not read.
            if *name == "a child table" && table == "delta.run" {
                continue;
            }
            attacks.push(on_table(name, table, planted, &[START, strike]));
        }
    }
    World::shared().assert_defended_apart(&attacks);
}

#[test]
fn nothing_is_put_on_staging() {
    let more: &[(&str, &[&str])] = &[
        ("an index predicate", &["CREATE INDEX ON <table> ((1)) WHERE night.bait(1) = 1"]),
        ("a CHECK", &["ALTER TABLE <table> ADD CHECK (night.bait(1) = 1)"]),
        ("extended statistics", &["CREATE STATISTICS night.trap_statistics ON (night.bait(1)) FROM <table>"]),
        (
            "a policy",
            &[
                "ALTER TABLE <table> ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
                "CREATE POLICY trap ON <table> USING (night.act() = 1)",
            ],
        ),
    ];
    let strike = ["SET constraint_exclusion = on", HOLD];
    let mut attacks: Vec<_> =
        VEHICLES.iter().chain(more).map(|(name, planted)| on_table(name, "staging.item", planted, &strike)).collect();
    attacks.push(on_table(
        "an index expression that ANALYZE computes",
        "staging.item",
        VEHICLES[0].1,
        &["SELECT delta.analyze_staging('public.item')"],
    ));
    World::shared().assert_defended_apart(&attacks);
}

/// `delta.staged` without its checks.
const UNCHECKED: &[&str] = &[
    "SELECT kit.edit('staged', 'AND c.relkind = ''r''', '')",
    "SELECT kit.edit('staged', 'AND c.relowner = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = current_user)', '')",
    "SELECT kit.edit('staged', 'AND n.nspowner = c.relowner', '')",
];

#[test]
fn a_table_in_place_of_staging_is_not_read() {
    let mut attacks = Vec::new();
    for (name, sql) in [
        (
            "an index",
            vec![
                "CREATE TABLE staging.item (_row integer, account_id bigint)",
                "CREATE INDEX ON staging.item ((night.bait(1)))",
            ],
        ),
        (
            "a view",
            vec![
                "CREATE VIEW staging.item AS SELECT 1 AS _row, n::bigint AS account_id FROM generate_series(1, 2) AS n WHERE night.act() = 1",
            ],
        ),
        (
            "a cast",
            vec![
                "CREATE TABLE staging.item (_row integer, account_id night.trick)",
                "INSERT INTO staging.item VALUES (1, ROW(1))",
            ],
        ),
    ] {
        let mut sql = sql;
        sql.push("GRANT SELECT ON staging.item TO PUBLIC");
        let opened = [&["DROP TABLE staging.item", "GRANT CREATE ON SCHEMA staging TO <night>"], UNCHECKED].concat();
        attacks
            .push(Attack::new(format!("{name}, in place of a staging table"), &[HOLD]).planted(&sql).opened(&opened));
        // The schema is gone, and made again by the attacker.
        let mut sql = sql.clone();
        sql.insert(0, "CREATE SCHEMA staging");
        sql.push("GRANT ALL ON SCHEMA staging TO PUBLIC");
        attacks.push(
            Attack::new(format!("{name}, in a schema made again"), &[HOLD])
                .given(&[
                    "DROP SCHEMA staging CASCADE",
                    "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO <night>', current_database()); END $$",
                ])
                .planted(&sql)
                .opened(UNCHECKED),
        );
    }
    attacks.push(
        Attack::new(
            "staging is made in a schema of the attacker",
            &["SELECT delta.make_staging('r', 'public.item', '{account_id}', '{false}', false, true)"],
        )
        .given(&["DROP SCHEMA staging CASCADE", "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO <night>', current_database()); END $$"])
        .planted(&["CREATE SCHEMA staging", "GRANT ALL ON SCHEMA staging TO PUBLIC"])
        .opened(&["SELECT kit.edit('make_staging', 'pg_get_userbyid(n.nspowner) = current_user', 'true')"])
        .won("SELECT count(*) > 0 FROM pg_class WHERE oid = to_regclass('staging.item') AND pg_get_userbyid(relowner) = '<owner>'"),
    );
    World::shared().assert_defended_apart(&attacks);
}

/// A schema as PostgreSQL 14 and older have it, in which a table of production is gone.
const DROPPED: &[&str] = &[
    "GRANT CREATE ON SCHEMA public TO PUBLIC",
    "CREATE SEQUENCE public.shared START 1000",
    "ALTER SEQUENCE public.shared OWNER TO <owner>",
    "UPDATE delta.loaded_table SET sequence_name = 'shared' WHERE table_name = 'public.item'",
    "DROP TABLE public.item",
];

/// What a loader makes in its place.
const REMADE: &[&str] = &[
    "CREATE TABLE public.item (item_id integer, account_id bigint, region_id integer, quantity integer)",
    "CREATE INDEX ON public.item ((night.bait(1)))",
    "CREATE INDEX ON public.item (item_id)",
    "CREATE TRIGGER trap BEFORE DELETE ON public.item FOR EACH STATEMENT EXECUTE FUNCTION night.fire()",
    "CREATE TABLE night.parent (account_id bigint PRIMARY KEY)",
    "CREATE INDEX ON night.parent ((night.bait(1)))",
    "ALTER TABLE public.item ADD FOREIGN KEY (account_id) REFERENCES night.parent",
    "GRANT ALL ON public.item, night.parent TO PUBLIC",
];

#[test]
fn a_table_in_place_of_production_is_not_read() {
    let unchecked = [
        "SELECT kit.edit('owned_table', 'AND pg_get_userbyid(c.relowner) = of_owner', '')",
        "SELECT kit.edit('is_trusted', 'r.rolsuper', 'true')",
    ];
    let mut attacks = Vec::new();
    for strike in [
        vec![START, "SELECT delta.reserve('20990101T000000-0001', 'public.item', NULL, 5)"],
        vec![HOLD],
        vec!["SELECT FROM delta.lock_references('public', 'item', '{item_id}', '{1}', NULL)"],
    ] {
        let given =
            [DROPPED, &["INSERT INTO delta.reference VALUES ('public', 'item', '<owner>', '{item_id}')"]].concat();
        attacks.push(
            Attack::new(format!("a table in place of production's, by {}", strike[strike.len() - 1]), &strike)
                .given(&given)
                .planted(REMADE)
                .struck_by(By::Loader)
                .opened(&unchecked),
        );
    }
    for strike in [
        "SELECT FROM delta.conflicts(kit.loaded(), '{}')",
        "SELECT FROM delta.roll_back(kit.loaded(), kit.next(kit.loaded()), '{}', 'c', '{}')",
    ] {
        attacks.push(
            Attack::new(format!("a table in place of production's, by {strike}"), &[strike])
                .given(DROPPED)
                .planted(REMADE)
                .struck_by(By::Rollback)
                .opened(&[
                    "SELECT kit.edit('tables_of', 'known.relation_owner IS DISTINCT FROM (', 'false AND NULL = (')",
                ]),
        );
    }
    // A view would be locked with all that it names.
    attacks.push(
        Attack::new("a view in place of production's table", &["SELECT delta.hold_table('public.item')"])
            .given(DROPPED)
            .planted(&["CREATE VIEW public.item AS SELECT 1 AS item_id", "GRANT ALL ON public.item TO PUBLIC", "BEGIN"])
            .opened(&["SELECT kit.edit('hold_table', 'PERFORM delta.live_table(known);', '')"])
            .won("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'public.item'::regclass AND mode = 'ShareRowExclusiveLock'"),
    );
    for (name, table, planted, strike) in [
        (
            "a child table",
            "public.account",
            VEHICLES[1].1,
            vec![START, "SELECT delta.reserve('20990101T000000-0001', 'public.account', NULL, 5)"],
        ),
        (
            "a partition",
            "public.region",
            &[
                "CREATE TABLE night.region_high PARTITION OF <table> FOR VALUES FROM (1000) TO (2000)",
                "CREATE INDEX ON night.region_high ((night.bait(1)))",
            ],
            vec![HOLD],
        ),
    ] {
        let mut attack = on_table(name, table, planted, &strike);
        attack.opened.push(unchecked[1].into());
        attacks.push(attack);
    }
    World::shared().assert_defended_apart(&attacks);
}

#[test]
fn table_of_another_owner_is_not_read_over_a_foreign_key() {
    let mut attacks: Vec<_> = [
        "SELECT FROM delta.conflicts(kit.loaded(), '{}')",
        "SELECT FROM delta.try_roll_back(kit.loaded(), '{}')",
        "SELECT FROM delta.roll_back(kit.loaded(), kit.next(kit.loaded()), '{}', 'c', '{}')",
    ]
    .into_iter()
    .map(|strike| {
        Attack::new(format!("a table that refers to the run's rows, by {strike}"), &[strike])
            // What triggers of an insertion wrote is deleted with the run.
            .given(&[
                "GRANT REFERENCES ON public.item TO <night>",
                "CREATE TRIGGER inserted AFTER INSERT ON public.item FOR EACH ROW EXECUTE FUNCTION audited()",
            ])
            .planted(&[
                "CREATE TABLE night.child (item_id integer REFERENCES public.item)",
                "CREATE INDEX ON night.child ((night.bait(1)))",
                "GRANT ALL ON night.child TO PUBLIC",
            ])
            .struck_by(By::Rollback)
            .opened(&["SELECT kit.edit('references_to', 'delta.is_trusted(f.conrelid)', 'true')"])
    })
    .collect();
    attacks.push(
        Attack::new("a table that production refers to", &[HOLD])
            .given(&[
                "CREATE TABLE night.parent (region_id integer PRIMARY KEY)",
                "INSERT INTO night.parent SELECT n FROM generate_series(1, 300) AS n",
                "ALTER TABLE night.parent OWNER TO <night>",
                "ALTER TABLE public.item ADD FOREIGN KEY (region_id) REFERENCES night.parent",
                "GRANT ALL ON night.parent TO <owner>",
            ])
            .planted(&["CREATE INDEX ON night.parent ((night.bait(1)))"])
            .opened(&["SELECT kit.edit('hold_references', 'NOT delta.is_trusted(foreign_key.confrelid)', 'false')"]),
    );
    World::shared().assert_defended_apart(&attacks);
}

#[test]
fn a_rollback_fires_triggers_on_production_alone() {
    // Production's trigger writes to `audit`, without a schema: a temporary table would be found first.
    let attack = Attack::new(
        "a temporary table that a trigger of production writes to",
        &["SELECT FROM delta.roll_back(kit.loaded(), kit.next(kit.loaded()), '{}', 'c', '{}')"],
    )
    .by(By::Rollback)
    .planted(&[
        "CREATE TEMP TABLE audit (what text)",
        "GRANT ALL ON audit TO PUBLIC",
        "CREATE TRIGGER trap BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION night.fire()",
    ])
    .opened(&[
        "SELECT kit.edit('delete_run', 'EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema())', 'false')",
        "SELECT kit.edit('delete_run', 'EXISTS (SELECT FROM pg_type WHERE typnamespace = pg_my_temp_schema())', 'false')",
        "SELECT kit.edit('production_path', ', ''pg_temp'')', ')')",
    ]);
    World::shared().assert_defended_apart(&[attack]);
}

#[test]
fn two_sessions_get_no_more_keys_than_one() {
    let world = World::shared();
    world.assert_both_ways("two reservations at once", |database, superuser, is_open| {
        if is_open {
            superuser.execute(
                "SELECT kit.edit('allow_block', 'PERFORM pg_advisory_xact_lock(hashtextextended(of_run || '' '' || known.relation, 7305516414));', '')",
            );
        }
        let [one, other] = [(); 2].map(|()| Holder::new(&world.url_in(database, "night")));
        one.execute(START);
        one.execute("BEGIN; SELECT delta.reserve('20990101T000000-0001', 'public.item', NULL, 5)");
        std::thread::scope(|scope| {
            let reserved = scope.spawn(|| other.run("SELECT delta.reserve('20990101T000000-0001', 'public.item', NULL, 5)"));
            crate::production::until(database, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted");
            one.execute("COMMIT");
            reserved.join().unwrap().is_ok()
        })
    });
}

#[test]
fn an_old_snapshot_shows_no_old_policy() {
    let world = World::shared();
    world.assert_both_ways("a run in a snapshot from before the policy", |database, superuser, is_open| {
        if is_open {
            superuser.execute("SELECT kit.edit('record_run', 'current_setting(''transaction_isolation'') <> ''read committed''', 'false')");
        }
        let night = Holder::new(&world.url_in(database, "night"));
        night.execute(START);
        night.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM delta.policy");
        superuser.execute("UPDATE delta.mode SET ended_at = now(); INSERT INTO delta.policy (conversion_mode, approvals, max_key_block) VALUES (true, 0, 5)");
        night.run("SELECT delta.record_run('20990101T000000-0001', 'small', 'now', '{}', '{h}', '{public.item}', '{f}'); COMMIT").is_ok()
    });
    world.assert_both_ways("keys in a snapshot from before the policy", |database, superuser, is_open| {
        if is_open {
            for function in ["allow_block", "owned_table"] {
                superuser.execute(&format!("SELECT kit.edit('{function}', 'current_setting(''transaction_isolation'') <> ''read committed''', 'false')"));
            }
        }
        let night = Holder::new(&world.url_in(database, "night"));
        night.execute(START);
        night.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM delta.policy");
        superuser.execute("INSERT INTO delta.policy (conversion_mode, approvals, max_key_block) VALUES (false, 0, 1)");
        night.run("SELECT delta.record_block('20990101T000000-0001', 'public.note', 100, 5); COMMIT").is_ok()
    });
}

#[test]
fn what_a_running_load_has_is_left_to_it() {
    let world = World::shared();
    for (name, function, call, won) in [
        (
            "the mappings of a running load are forgotten",
            "forget",
            "SELECT delta.forget('public.item')",
            "SELECT count(*) = 0 FROM delta.mapping_item WHERE run = '20990101T000000-aaaa'",
        ),
        (
            "the staging of a running load is made again",
            "make_staging",
            "SELECT delta.make_staging('mine', 'public.item', '{account_id}', '{false}', false, true)",
            "SELECT obj_description('staging.item'::regclass, 'pg_class') LIKE '%run mine'",
        ),
    ] {
        world.assert_both_ways(name, |database, superuser, is_open| {
            if is_open {
                superuser.execute(&format!("SELECT kit.edit('{function}', 'PERFORM delta.refuse_other_load();', '')"));
            }
            let day = Holder::new(&world.url_in(database, "day"));
            day.execute("SELECT pg_advisory_lock(7305516410)");
            Holder::new(&world.url_in(database, "night")).run(call).ok();
            superuser.text(won) == "t"
        });
    }
}

/// Has a login call a function that pauses, and another one load meanwhile. Returns whether the load passed.
fn meanwhile(world: &World, database: &Database, superuser: &Holder, call: &str, load: &str) -> bool {
    superuser.execute("SELECT pg_advisory_lock(4711)");
    let night = Holder::new(&world.url_in(database, "night"));
    let day = Holder::new(&world.url_in(database, "day"));
    std::thread::scope(|scope| {
        let called = scope.spawn(|| night.run(call));
        crate::production::until(database, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND objid = 4711");
        day.execute("SET lock_timeout = '500ms'; SELECT pg_advisory_lock(7305516410)");
        let loaded = day.run(load).is_ok();
        superuser.execute("SELECT pg_advisory_unlock(4711)");
        called.join().unwrap().unwrap();
        loaded
    })
}

#[test]
fn a_load_that_begins_meanwhile_waits_for_what_is_removed() {
    let world = World::shared();
    world.assert_both_ways("a run commits while its mappings are forgotten", |database, superuser, is_open| {
        superuser.execute("SELECT kit.edit('forget', 'EXECUTE', 'PERFORM pg_advisory_xact_lock(4711); EXECUTE')");
        if is_open {
            superuser.execute("SELECT kit.edit('hold_key_map', 'FOR NO KEY UPDATE', '')");
        }
        let load = "BEGIN; INSERT INTO delta.mapping_item VALUES ('D-2', 98, '20990101T000000-aaaa');
             SELECT delta.record_segment('20990101T000000-aaaa', 'public.item', 2); COMMIT";
        let has_committed = meanwhile(world, database, superuser, "SELECT delta.forget('public.item')", load);
        has_committed
            && database.text("SELECT count(*) < 2 FROM delta.key_map_item WHERE run = '20990101T000000-aaaa'") == "t"
    });
    world.assert_both_ways("staging is made again while a load fills it", |database, superuser, is_open| {
        superuser.execute("SELECT kit.edit('make_staging', 'live := ', 'IF of_run = ''mine'' THEN PERFORM pg_advisory_xact_lock(4711); END IF; live := ')");
        if is_open {
            superuser.execute("SELECT kit.edit('make_staging', 'PERFORM pg_advisory_xact_lock(hashtextextended(of_table, 7305516415));', '')");
            superuser.execute("SELECT kit.edit('make_staging', 'EXECUTE format(''LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE'', known.staging_schema, place);', '')");
        }
        let make = |run: &str| format!("SELECT delta.make_staging('{run}', 'public.item', '{{account_id}}', '{{false}}', false, true)");
        let load = make("theirs") + "; INSERT INTO staging.item (_row) VALUES (1)";
        meanwhile(world, database, superuser, &make("mine"), &load)
            && database.text("SELECT count(*) = 0 FROM staging.item") == "t"
    });
}

#[test]
fn a_load_is_seen_that_began_after_the_transaction() {
    let world = World::shared();
    world.assert_both_ways("sessions as the transaction saw them first", |database, superuser, is_open| {
        if is_open {
            superuser.execute("SELECT kit.edit('refuse_other_load', 'PERFORM pg_stat_clear_snapshot();', '')");
            superuser.execute("SELECT kit.edit('refuse_other_load', 'LEFT JOIN', 'JOIN')");
        }
        let night = Holder::new(&world.url_in(database, "night"));
        night.execute("BEGIN; SELECT FROM pg_stat_activity");
        let day = Holder::new(&world.url_in(database, "day"));
        day.execute("SELECT pg_advisory_lock(7305516410)");
        night.run("SELECT delta.forget('public.item'); COMMIT").is_ok()
    });
    world.assert_both_ways("mappings in a snapshot from before a run", |database, superuser, is_open| {
        if is_open {
            superuser.execute("SELECT kit.edit('hold_key_map', 'current_setting(''transaction_isolation'') <> ''read committed''', 'false')");
        }
        let night = Holder::new(&world.url_in(database, "night"));
        night.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM delta.event");
        Holder::new(&world.url_in(database, "day")).execute("SELECT kit.start('20990101T000000-bbbb', 5)");
        night.run("INSERT INTO delta.mapping_item VALUES ('evil', 1, '20990101T000000-bbbb'); COMMIT").is_ok()
    });
    world.assert_both_ways("a segment in a snapshot from before a run", |database, superuser, is_open| {
        if is_open {
            superuser.execute("SELECT kit.edit('record_segment', 'current_setting(''transaction_isolation'') <> ''read committed''', 'false')");
        }
        let night = Holder::new(&world.url_in(database, "night"));
        night.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM delta.event");
        Holder::new(&world.url_in(database, "day")).execute("SELECT kit.start('20990101T000000-bbbb', 5)");
        night.run("SELECT delta.record_segment('20990101T000000-bbbb', 'public.item', 1); COMMIT").is_ok()
    });
}

#[test]
fn default_privileges_give_the_loader_no_trigger() {
    let attack = Attack::new(
        "a trigger on staging, by default privileges",
        &[
            "SELECT delta.make_staging('r', 'public.item', '{account_id}', '{false}', false, true)",
            "CREATE TRIGGER trap AFTER INSERT ON staging.item FOR EACH ROW EXECUTE FUNCTION night.fire()",
        ],
    )
    .given(&["ALTER DEFAULT PRIVILEGES FOR ROLE <owner> GRANT ALL ON TABLES TO PUBLIC"])
    .opened(&["SELECT kit.edit('make_staging', 'FROM PUBLIC, delta_loader, delta_rollback', 'FROM delta_rollback')"])
    .won("SELECT count(*) > 0 FROM pg_trigger WHERE tgname = 'trap'");
    World::shared().assert_defended_apart(&[attack]);
}

/// What a loader tries to leave where a later run will find it.
fn left_behind() -> Vec<String> {
    let mut planted = Vec::new();
    for table in [
        "staging.item",
        "staging.ck_item",
        "delta.event",
        "delta.run",
        "delta.file",
        "delta.block",
        "delta.segment",
        "delta.mapping_account",
        "delta.mapping_item",
        "public.account",
        "public.item",
        "public.note",
    ] {
        planted.push(format!(
            "CREATE TRIGGER trap AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION night.climb_on_fire()"
        ));
        planted.push(format!("CREATE RULE trap AS ON INSERT TO {table} DO ALSO SELECT night.climb()"));
        planted.push(format!("CREATE INDEX ON {table} ((night.climb_on_bait(1)))"));
        planted.push(format!("ALTER TABLE {table} ADD CHECK (night.climb() = 1)"));
        planted.push(format!("ALTER TABLE {table} ADD trap night.climber"));
        planted.push(format!("CREATE STATISTICS night.trap ON (night.climb_on_bait(1)) FROM {table}"));
        planted.push(format!("CREATE POLICY trap ON {table} USING (night.climb() = 1)"));
    }
    planted
}

/// What it can leave if everybody may create objects in `public`: names that the session of a run could find first.
pub const IN_PUBLIC: &[&str] = &[
    "CREATE FUNCTION public.same(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM night.climb(); RETURN true; END $$",
    "CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.same)",
    "CREATE FUNCTION public.same(varchar, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM night.climb(); RETURN true; END $$",
    "CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = text, FUNCTION = public.same)",
    "CREATE FUNCTION public.same(bigint, integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM night.climb(); RETURN true; END $$",
    "CREATE FUNCTION public.join(text, name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM night.climb(); RETURN $1 || $2::text; END $$",
    "CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = name, FUNCTION = public.join)",
    "CREATE FUNCTION public.differ(name[], name[]) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM night.climb(); RETURN pg_catalog.array_ne($1, $2); END $$",
    "CREATE OPERATOR public.<> (LEFTARG = name[], RIGHTARG = name[], FUNCTION = public.differ)",
    "CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM night.climb(); RETURN pg_catalog.lower($1::text); END $$",
    "CREATE FUNCTION public.count(varchar) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM night.climb(); RETURN 1; END $$",
];

#[test]
fn a_superuser_that_loads_runs_no_code_of_a_loader() {
    let world = World::shared();
    for shared_schema in [false, true] {
        world.assert_both_ways("a superuser loads", |database, superuser, is_open| {
            if shared_schema {
                superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC");
            }
            if is_open {
                superuser.execute(&world.named("GRANT TRIGGER ON public.account TO <night>"));
            }
            let night = Holder::new(&world.url_in(database, "night"));
            for sql in left_behind().iter().chain(&texts(IN_PUBLIC)) {
                night.run(sql).ok();
            }
            world.place.write("account.csv", "ref\nB-1\nB-2\n");
            world.place.write("item.csv", "ref,account,region_id,quantity\nJ-1,B-1,1,1\nJ-2,B-2,2,2\n");
            world.place.write("note.csv", "ref\nM-1\n");
            let ran = world.pipeline(database, "postgres", &["run", "p.yaml"]);
            ran.passes();
            assert!(ran.stdout.contains("is a superuser"), "{ran:?}");
            superuser.text(CLIMBED) == "t"
        });
    }
}
