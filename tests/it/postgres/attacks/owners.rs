//! Setup by a superuser, or by a member of the owner: what the owner of a schema, or another role, has put there before. Its code would run inside
//! the session that sets up, where RESET ROLE gives it that session's rights.

use super::world::{CLIMBED, LOOTED, World, texts};
use crate::production::Holder;
use crate::server::Database;

/// What the owner of the control schema puts on a table of it, and setup's own statements then fold or run.
const PLANTED: &[(&str, &[&str])] = &[
    (
        "trigger",
        &[
            "CREATE TRIGGER trap BEFORE INSERT ON delta.loaded_table FOR EACH ROW EXECUTE FUNCTION night.climb_on_fire()",
        ],
    ),
    (
        "rule",
        &["DELETE FROM delta.policy", "CREATE RULE trap AS ON INSERT TO delta.policy DO INSTEAD SELECT night.climb()"],
    ),
    (
        "policy",
        &[
            "ALTER TABLE delta.migration ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "CREATE POLICY trap ON delta.migration USING (night.climb() = 1)",
        ],
    ),
    (
        "default",
        &[
            "ALTER TABLE delta.loaded_table ADD trap integer",
            "ALTER TABLE delta.loaded_table ALTER trap SET DEFAULT night.climb()",
        ],
    ),
    (
        "default",
        &[
            "ALTER TABLE delta.loaded_table ADD trap text",
            // The server's functions alone: one of them runs SQL.
            "ALTER TABLE delta.loaded_table ALTER trap SET DEFAULT query_to_xml('SELECT night.climb()', false, false, '')::text",
        ],
    ),
    (
        "default",
        &["ALTER TABLE delta.loaded_table ADD trap integer GENERATED ALWAYS AS (night.climb_on_bait(1)) STORED"],
    ),
    ("constraint", &["ALTER TABLE delta.loaded_table ADD CHECK (night.climb() = 1)"]),
    ("index", &["CREATE INDEX ON delta.migration ((night.climb_on_bait(1)))"]),
    ("index", &["CREATE INDEX ON delta.migration ((1)) WHERE night.climb_on_bait(1) = 1"]),
    ("statistics object", &["CREATE STATISTICS public.trap ON (night.climb_on_bait(1)) FROM delta.migration"]),
    (
        "inheritance",
        &[
            "CREATE TABLE public.child () INHERITS (delta.migration)",
            "CREATE INDEX ON public.child ((night.climb_on_bait(1)))",
        ],
    ),
    (
        "relation",
        &[
            "ALTER TABLE delta.migration RENAME TO hidden",
            "CREATE VIEW delta.migration AS SELECT h.* FROM delta.hidden AS h WHERE night.climb() = 1",
        ],
    ),
    ("column", &["ALTER TABLE delta.loaded_table ADD trap night.climber"]),
];

/// The printed script without a part of it.
fn script(world: &World, database: &Database, who: &str, from: &str, to: &str) -> String {
    let printed = world.pipeline(database, who, &["setup", "p.yaml", "--print"]);
    let script = printed.passes().stdout.clone();
    let begin = script.find(from).unwrap_or_else(|| panic!("no {from} in {script}"));
    let end = begin + script[begin..].find(to).unwrap() + to.len();
    script[..begin].to_owned() + &script[end..]
}

const GUARD: (&str, &str) = ("-- Existing objects are trusted", "$setup$;\n");

#[test]
fn setup_runs_no_code_of_the_schemas_owner() {
    let world = World::shared();
    for (kind, planted) in PLANTED {
        world.assert_both_ways(planted[0], |database, superuser, is_open| {
            let owner = Holder::new(&world.url_in(database, "owner"));
            for sql in *planted {
                owner.execute(sql);
            }
            if is_open {
                let script = script(world, database, "postgres", GUARD.0, GUARD.1);
                superuser.run(&script).ok();
                superuser.run("ROLLBACK").ok();
            } else {
                let refused = world.pipeline(database, "postgres", &["setup", "p.yaml"]);
                refused.fails(
                    78,
                    &["cannot set up", &format!("the {kind} \""), "is not of this program", "hint: drop it"],
                );
            }
            superuser.text(CLIMBED) == "t"
        });
    }
}

#[test]
fn nothing_is_planted_while_setup_looks() {
    // What setup has looked at stays as it is until it ends.
    let world = World::shared();
    world.assert_both_ways("a trigger during setup", |database, superuser, is_open| {
        let script = if is_open {
            script(
                world,
                database,
                "postgres",
                "        FOR place IN SELECT pg_catalog.format('delta.%I', c.relname)",
                "END LOOP;\n",
            )
        } else {
            world.pipeline(database, "postgres", &["setup", "p.yaml", "--print"]).passes().stdout.clone()
        };
        let (before, after) = script.split_at(script.find(GUARD.0).unwrap());
        let end = after.find(GUARD.1).unwrap() + GUARD.1.len();
        superuser.execute(&format!("{before}{}", &after[..end]));
        let owner = Holder::new(&world.url_in(database, "owner"));
        owner.run("SET lock_timeout = '300ms'").unwrap();
        owner.run(PLANTED[0].1[0]).ok();
        superuser.run(&after[end..]).ok();
        superuser.run("ROLLBACK").ok();
        superuser.text(CLIMBED) == "t"
    });
}

#[test]
fn setup_refuses_what_another_role_has_made() {
    let world = World::shared();
    for (what, sql) in [
        ("schema \"delta\"", "ALTER SCHEMA delta OWNER TO <night>"),
        ("schema \"staging\"", "ALTER SCHEMA staging OWNER TO <night>"),
        ("table \"delta.event\"", "ALTER TABLE delta.event OWNER TO <night>"),
        ("table \"delta.key_map_item\"", "ALTER TABLE delta.key_map_item OWNER TO <night>"),
        (
            "function \"delta.own\"",
            "CREATE FUNCTION delta.own() RETURNS integer LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION delta.own OWNER TO <night>",
        ),
        ("type \"delta.own\"", "CREATE DOMAIN delta.own AS text; ALTER DOMAIN delta.own OWNER TO <night>"),
        (
            "operator \"delta.=\"",
            "CREATE OPERATOR delta.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq); ALTER OPERATOR delta.= (text, text) OWNER TO <night>",
        ),
        (
            "collation \"delta.own\"",
            "CREATE COLLATION delta.own FROM \"C\"; ALTER COLLATION delta.own OWNER TO <night>",
        ),
        ("table \"staging\".\"item\"", "ALTER TABLE staging.item OWNER TO <night>"),
    ] {
        let database = world.database.copied();
        database.execute(&world.named(sql));
        for who in ["owner", "postgres"] {
            let refused = world.pipeline(&database, who, &["setup", "p.yaml"]);
            refused.fails(
                78,
                &["cannot set up", what, &world.named("belongs to the role \"<night>\""), "nothing was changed"],
            );
        }
    }
    // Without that, its code runs with the owner's rights.
    world.assert_both_ways("a control table of another role", |database, superuser, is_open| {
        superuser.execute(&world.named("ALTER TABLE delta.loaded_table OWNER TO <night>"));
        for sql in [
            "CREATE TRIGGER trap BEFORE INSERT ON delta.loaded_table FOR EACH ROW EXECUTE FUNCTION night.fire()",
            "GRANT ALL ON delta.loaded_table TO PUBLIC",
        ] {
            Holder::new(&world.url_in(database, "night")).execute(sql);
        }
        let owner = Holder::new(&world.url_in(database, "owner"));
        let script = if is_open {
            script(world, database, "owner", GUARD.0, GUARD.1)
        } else {
            world.pipeline(database, "owner", &["setup", "p.yaml", "--print"]).passes().stdout.clone()
        };
        owner.run(&script).ok();
        superuser.text(LOOTED) == "t"
    });
}

#[test]
fn a_printed_setup_finds_no_names_of_others() {
    // Everybody may create objects in `public`, as in PostgreSQL 14 and older; the DBA runs the script with the path that psql has.
    let world = World::shared();
    world.assert_both_ways("an operator in `public`", |database, superuser, is_open| {
        superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC");
        let night = Holder::new(&world.url_in(database, "night"));
        for sql in texts(super::sessions::IN_PUBLIC) {
            night.execute(&sql);
        }
        let script = if is_open {
            script(world, database, "postgres", "SET LOCAL search_path", ";\n")
        } else {
            world.pipeline(database, "postgres", &["setup", "p.yaml", "--print"]).passes().stdout.clone()
        };
        let ran = superuser.run(&script);
        assert!(is_open || ran.is_ok(), "{ran:?}");
        superuser.run("ROLLBACK").ok();
        superuser.text(CLIMBED) == "t"
    });
}

#[test]
fn setup_takes_back_what_default_privileges_gave() {
    let world = World::shared();
    let database = world.database.copied();
    database.execute(&world.named(
        "ALTER DEFAULT PRIVILEGES FOR ROLE <owner> GRANT ALL ON TABLES TO PUBLIC, delta_loader;
         ALTER DEFAULT PRIVILEGES FOR ROLE <owner> GRANT ALL ON FUNCTIONS TO PUBLIC, delta_loader;
         DROP SCHEMA delta, staging CASCADE",
    ));
    database.execute(&world.named(&format!("GRANT CREATE ON DATABASE {} TO <owner>", database.name)));
    let granted = "SELECT string_agg(DISTINCT what, ', ') FROM (
            SELECT c.oid::regclass || ' ' || r || ' ' || w AS what FROM pg_class AS c, unnest(ARRAY['<guest>', '<night>']) AS r,
                unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES']) AS w
            WHERE c.relnamespace = 'delta'::regnamespace AND c.relkind IN ('r', 'v') AND has_table_privilege(r, c.oid, w)
                AND NOT (r = '<night>' AND (w = 'SELECT' OR w = 'INSERT' AND (c.relname = 'target' OR starts_with(c.relname, 'mapping_'))))
            UNION ALL SELECT p.oid::regprocedure || ' ' || r FROM pg_proc AS p, unnest(ARRAY['<guest>', '<night>']) AS r
            WHERE p.pronamespace = 'delta'::regnamespace AND has_function_privilege(r, p.oid, 'EXECUTE')
                AND NOT (r = '<night>' AND p.prosecdef AND p.proname NOT IN ('set_policy', 'switch_mode', 'roll_back', 'is_operator'))) AS g";
    world.pipeline(&database, "owner", &["setup", "p.yaml"]).passes();
    assert_eq!(database.text(&world.named(granted)), "NULL");
    let open = world.database.copied();
    open.execute("GRANT ALL ON ALL FUNCTIONS IN SCHEMA delta TO PUBLIC; GRANT UPDATE ON delta.policy TO delta_loader");
    assert_ne!(open.text(&world.named(granted)), "NULL");
}

#[test]
fn a_superuser_names_the_owner_or_production_does() {
    let world = World::shared();
    let owned_by = |database: &Database| {
        database.text("SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'delta'")
    };
    let database = world.database.copied();
    database.execute("DROP SCHEMA delta, staging CASCADE");
    let url = world.url_in(&database, "postgres");
    let set_up =
        |arguments: &[&str]| world.place.pipeline_with(arguments, &[("DATABASE_URL", &url), ("PIPELINE_OWNER", "")]);
    // Production belongs to several roles: none is chosen.
    database.execute("ALTER TABLE note OWNER TO postgres");
    set_up(&["setup", "p.yaml"]).fails(77, &["cannot choose the owner of the control schema", "--owner ROLE"]);
    database.execute(&world.named("ALTER TABLE note OWNER TO <owner>"));
    set_up(&["setup", "p.yaml"]).passes();
    assert_eq!(owned_by(&database), world.named("<owner>"));
    // A login that is no member of the owner does not set up for it.
    database.execute("DROP SCHEMA delta, staging CASCADE");
    let refused = world.pipeline(&database, "night", &["setup", "p.yaml"]);
    refused.fails(78, &["is not a member of"]);
}
