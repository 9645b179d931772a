//! Every function that runs with its owner's rights: how it is called, which control tables it reads and writes, and the attacks that all of
//! them have to withstand: without the right to it, by names that the caller's session finds first, and by code on the tables that it uses.

use std::path::Path;

use super::world::{Attack, By, World};
use crate::production::{Holder, tables};
use crate::support::{REPOSITORY, assert_same};

/// A function of the control schema that runs with its owner's rights.
pub struct Function {
    pub name: &'static str,
    /// Who may run it.
    by: &'static [By],
    /// A call that goes as far as it can.
    call: &'static [&'static str],
    /// A control table that it reads, and one that it inserts into, updates, or deletes from.
    reads: Option<&'static str>,
    writes: Option<&'static str>,
    /// Whether it names anything without a schema that a session could have of its own; an operator or function, and a type or relation.
    shadowed: (bool, bool),
}

use By::{Loader, Rollback};

const BOTH: (bool, bool) = (true, true);
const REGISTER: Option<&str> = Some("delta.loaded_table");
const START: &str = "SELECT kit.start('20990101T000000-0001', 5)";

const fn function(
    name: &'static str,
    by: &'static [By],
    call: &'static [&'static str],
    (reads, writes): (Option<&'static str>, Option<&'static str>),
    shadowed: (bool, bool),
) -> Function {
    Function { name, by, call, reads, writes, shadowed }
}

/// All of them, in the order of their names.
pub const FUNCTIONS: &[Function] = &[
    function("analyze", &[Loader], &["SELECT delta.analyze('public.item')"], (REGISTER, None), BOTH),
    function("analyze_staging", &[Loader], &["SELECT delta.analyze_staging('public.item')"], (REGISTER, None), BOTH),
    function("append_event", &[Loader, Rollback], &[START], (Some("delta.event"), Some("delta.event")), BOTH),
    function(
        "append_staged",
        &[Loader],
        &["SELECT delta.append_staged('20990101T000000-0001', 'public.item')"],
        (REGISTER, Some("delta.mapping_item")),
        BOTH,
    ),
    function(
        "begin_mappings",
        &[Loader],
        &["SELECT delta.begin_mappings('20990101T000000-0001', 'public.item')"],
        (REGISTER, Some("delta.appended")),
        (true, false),
    ),
    function(
        "check_mappings",
        &[],
        &["INSERT INTO delta.mapping_item VALUES ('X-1', 1000, '20990101T000000-0001')"],
        (REGISTER, Some("delta.appended")),
        BOTH,
    ),
    function(
        "conflicts",
        &[Rollback],
        &["SELECT FROM delta.conflicts(kit.loaded(), '{}')"],
        (Some("delta.segment"), None),
        BOTH,
    ),
    function(
        "end_mode",
        &[Loader, Rollback],
        &["SELECT delta.end_mode('r')"],
        (Some("delta.mode"), Some("delta.mode")),
        (true, false),
    ),
    function(
        "forget",
        &[Loader],
        &["SELECT delta.forget('public.item')"],
        (REGISTER, Some("delta.mapping_item")),
        BOTH,
    ),
    function(
        "hold_mode",
        &[Loader, Rollback],
        &["SELECT FROM delta.hold_mode()"],
        (Some("delta.mode"), None),
        (false, false),
    ),
    function(
        "hold_policy",
        &[Loader],
        &["SELECT FROM delta.hold_policy()"],
        (Some("delta.policy"), None),
        (false, false),
    ),
    function(
        "hold_references",
        &[Loader],
        &["SELECT FROM delta.hold_references('public.item', '{public.item}')"],
        (REGISTER, None),
        BOTH,
    ),
    function("hold_table", &[Loader], &["SELECT delta.hold_table('public.item')"], (REGISTER, None), BOTH),
    function(
        "holdings",
        &[Rollback],
        &["SELECT FROM delta.holdings(kit.loaded())"],
        (Some("delta.segment"), None),
        BOTH,
    ),
    function(
        "import_mappings",
        &[Loader],
        &["SELECT delta.import_mappings('20990101T000000-0001', 'public.item', 0, 9)"],
        (REGISTER, Some("delta.mapping_item")),
        BOTH,
    ),
    function("is_operator", &[], &["SELECT delta.is_operator()"], (None, None), (true, true)),
    function(
        "lock_references",
        &[Loader],
        &["SELECT FROM delta.lock_references('public', 'account', '{account_id,account_no}', '{1}', '{OLD-1}')"],
        (Some("delta.reference"), None),
        BOTH,
    ),
    function(
        "make_staging",
        &[Loader],
        &["SELECT delta.make_staging('r', 'public.item', '{account_id,region_id}', '{false,false}', false, true)"],
        (REGISTER, None),
        BOTH,
    ),
    function(
        "record_block",
        &[Loader],
        &[START, "SELECT delta.record_block('20990101T000000-0001', 'public.note', 100, 5)"],
        (REGISTER, Some("delta.block")),
        BOTH,
    ),
    function(
        "record_run",
        &[Loader],
        &[
            START,
            "SELECT delta.record_run('20990101T000000-0001', 'small', 'now', '{}', '{h}', '{public.item}', '{f}')",
        ],
        (REGISTER, Some("delta.run")),
        BOTH,
    ),
    function(
        "record_segment",
        &[Loader],
        &["SELECT delta.record_segment('20990101T000000-0001', 'public.item', 1)"],
        (REGISTER, Some("delta.segment")),
        (true, false),
    ),
    function(
        "reserve",
        &[Loader],
        &[START, "SELECT delta.reserve('20990101T000000-0001', 'public.item', NULL, 5)"],
        (REGISTER, Some("delta.block")),
        BOTH,
    ),
    function(
        "roll_back",
        &[Rollback],
        &["SELECT FROM delta.roll_back(kit.loaded(), kit.next(kit.loaded()), '{}', 'c', '{}')"],
        (Some("delta.segment"), Some("delta.event")),
        BOTH,
    ),
    function(
        "set_policy",
        &[Rollback],
        &["SELECT delta.set_policy(true, 1, 1, NULL)"],
        (Some("delta.policy"), Some("delta.policy")),
        (false, false),
    ),
    function("summarize", &[Loader], &["SELECT delta.summarize('public.item')"], (REGISTER, None), BOTH),
    function(
        "switch_mode",
        &[Rollback],
        &["SELECT delta.switch_mode(60, 'why', false)"],
        (Some("delta.mode"), Some("delta.mode")),
        BOTH,
    ),
    function(
        "try_roll_back",
        &[Rollback],
        &["SELECT delta.try_roll_back(kit.loaded(), '{}')"],
        (Some("delta.segment"), None),
        BOTH,
    ),
    function(
        "unindexed",
        &[Rollback],
        &["SELECT FROM delta.unindexed(kit.loaded())"],
        (Some("delta.segment"), None),
        BOTH,
    ),
];

impl Function {
    fn attack(&self, what: &str, before: &[&str]) -> Attack {
        let by = self.by.first().copied().unwrap_or(Loader);
        Attack::new(format!("{what}, by `{}`", self.name), &[before, self.call].concat()).by(by)
    }
}

/// What is put on a table that a function reads: it is planned over, or run, in the function's name.
const ON_READ: &[(&str, &[&str])] = &[
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

/// What is put on a table that a function writes to.
const ON_WRITE: &[(&str, &[&str])] = &[
    (
        "a trigger",
        &[
            "CREATE TRIGGER trap AFTER INSERT OR UPDATE OR DELETE ON <table> FOR EACH STATEMENT EXECUTE FUNCTION night.fire()",
        ],
    ),
    ("a default", &["ALTER TABLE <table> ADD trap integer", "ALTER TABLE <table> ALTER trap SET DEFAULT night.act()"]),
    ("a generated column", &["ALTER TABLE <table> ADD trap integer GENERATED ALWAYS AS (night.bait(1)) STORED"]),
    ("a domain", &["ALTER TABLE <table> ADD trap night.trap"]),
    ("a CHECK of the row", &["ALTER TABLE <table> ADD CHECK (night.act() = 1)"]),
    (
        "rules",
        &[
            "CREATE RULE trap_insert AS ON INSERT TO <table> DO ALSO SELECT night.act()",
            "CREATE RULE trap_update AS ON UPDATE TO <table> DO ALSO SELECT night.act()",
            "CREATE RULE trap_delete AS ON DELETE TO <table> DO ALSO SELECT night.act()",
        ],
    ),
];

/// An attacker that owns a control table for a moment; without that, nothing can be put on it.
fn on_table(attack: Attack, table: &str, planted: &[&str]) -> Attack {
    let named = |sql: &str| sql.replace("<table>", table);
    let attacker = if attack.by == Loader { "<night>" } else { "<boss>" };
    Attack {
        given: vec!["GRANT CREATE ON SCHEMA night TO <boss>".into()],
        planted: planted.iter().map(|sql| named(sql)).collect(),
        opened: vec![
            named(&format!("ALTER TABLE <table> OWNER TO {attacker}")),
            format!("GRANT CREATE ON SCHEMA delta TO {attacker}"),
        ],
        sealed: vec![named("ALTER TABLE <table> OWNER TO <owner>")],
        ..attack
    }
}

/// What a function does not do to be attacked so: a query without a condition is never compared with a CHECK, and with `row_security` off a
/// policy is an error.
fn is_impossible(function: &Function, vehicle: &str) -> bool {
    match vehicle {
        "a CHECK" => ["hold_mode", "hold_policy", "set_policy", "record_run"].contains(&function.name),
        "a policy" => ["roll_back", "conflicts", "try_roll_back"].contains(&function.name),
        // It updates, deletes, or says nothing of new values.
        "a default" | "a domain" | "a generated column" => ["end_mode", "forget"].contains(&function.name),
        "a CHECK of the row" => function.name == "forget",
        // Its `ON CONFLICT` is refused on a table with rules.
        "rules" => ["begin_mappings", "check_mappings"].contains(&function.name),
        _ => false,
    }
}

#[test]
fn nothing_can_be_put_on_what_a_function_reads() {
    let mut attacks = Vec::new();
    for function in FUNCTIONS {
        let Some(table) = function.reads else { continue };
        for (vehicle, planted) in ON_READ.iter().filter(|(vehicle, _)| !is_impossible(function, vehicle)) {
            let attack = function.attack(&format!("{vehicle} on {table}"), &["SET LOCAL constraint_exclusion = on"]);
            attacks.push(on_table(attack, table, planted));
        }
        // A view that a statement cannot update is refused before it is read.
        if ["end_mode", "switch_mode"].contains(&function.name) {
            continue;
        }
        let attack = function.attack(&format!("a view in place of {table}"), &[]);
        let planted = [
            "ALTER TABLE <table> RENAME TO hidden",
            "CREATE VIEW <table> AS WITH h AS MATERIALIZED (SELECT h.* FROM delta.hidden AS h WHERE night.act() = 1) SELECT * FROM h",
            "GRANT ALL ON <table>, delta.hidden TO PUBLIC",
        ];
        attacks.push(Attack { sealed: Vec::new(), ..on_table(attack, table, &planted) });
    }
    World::shared().assert_defended(&attacks);
}

#[test]
fn nothing_can_be_put_on_what_a_function_writes() {
    let mut attacks = Vec::new();
    for function in FUNCTIONS {
        let Some(table) = function.writes else { continue };
        for (vehicle, planted) in ON_WRITE.iter().filter(|(vehicle, _)| !is_impossible(function, vehicle)) {
            let attack = function.attack(&format!("{vehicle} on {table}"), &[]);
            attacks.push(on_table(attack, table, planted));
        }
    }
    World::shared().assert_defended(&attacks);
}

#[test]
fn a_session_cannot_stand_its_own_names_in_for_others() {
    let mut attacks = Vec::new();
    for function in FUNCTIONS.iter().filter(|function| function.name != "is_operator") {
        if function.shadowed.0 {
            let attack = function
                .attack("operators and functions in front of the path", &["SET LOCAL search_path = night, pg_catalog"]);
            attacks.push(attack.opened(&["SELECT kit.expose('')"]));
        }
        if function.shadowed.1 {
            let temporary = [
                "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (night.act() = 1)",
                "CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (night.act() = 1)",
                "CREATE DOMAIN pg_temp.regclass AS pg_catalog.regclass CHECK (night.act() = 1)",
                "CREATE DOMAIN pg_temp.timestamptz AS pg_catalog.timestamptz CHECK (night.act() = 1)",
                "CREATE TEMP VIEW pg_index AS SELECT i.*, i.xmin FROM pg_catalog.pg_index AS i WHERE night.act() = 1",
                "CREATE TEMP VIEW pg_class AS SELECT c.*, c.xmin FROM pg_catalog.pg_class AS c WHERE night.act() = 1",
                "GRANT SELECT ON pg_temp.pg_index, pg_temp.pg_class TO PUBLIC",
            ];
            let attack = function.attack("temporary types and views", &[]).planted(&temporary);
            attacks.push(attack.opened(&["SELECT kit.expose('pg_catalog')"]));
        }
    }
    World::shared().assert_defended(&attacks);
}

#[test]
fn each_function_is_for_the_role_that_needs_it() {
    let world = World::shared();
    let database = world.database.copied();
    let session = Holder::new(&database.url());
    let denied = |who: &str, function: &Function, is_open: bool| {
        session.execute("BEGIN");
        if is_open {
            session.execute(&world.named(&format!(
                "GRANT USAGE ON SCHEMA delta TO <{who}>; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA delta TO <{who}>;
                 GRANT SELECT ON ALL TABLES IN SCHEMA delta TO <{who}>"
            )));
        }
        session.execute(&world.named(&format!("SET LOCAL SESSION AUTHORIZATION <{who}>")));
        let ran = function.call.iter().try_for_each(|sql| session.run(sql));
        session.execute("ROLLBACK");
        ran.is_err_and(|(code, said)| code == "42501" && (said.contains("for function") || said.contains("for schema")))
    };
    for function in FUNCTIONS.iter().filter(|function| function.name != "check_mappings") {
        for (who, by) in [("night", Some(Loader)), ("boss", Some(Rollback)), ("guest", None)] {
            let may = by.is_some_and(|by| function.by.contains(&by));
            assert_eq!(denied(who, function, false), !may, "`{}` by {who}", function.name);
            assert!(!denied(who, function, true), "`{}` by {who}, granted", function.name);
        }
    }
}

#[test]
fn a_function_with_rights_has_a_fixed_path_and_an_attack() {
    let database = &World::shared().database;
    let found = database.rows(
        "SELECT p.proname, p.proconfig::text LIKE '%\"search_path=pg_catalog, pg_temp\"%', p.proacl IS NOT NULL AND p.proacl::text !~ '[{,]=',
             pg_get_userbyid(p.proowner)
         FROM pg_proc AS p WHERE p.pronamespace = 'delta'::regnamespace AND p.prosecdef ORDER BY 1",
    );
    let owner = World::shared().named("<owner>");
    let meant: Vec<_> = FUNCTIONS
        .iter()
        .map(|function| vec![function.name.to_owned(), "t".into(), "t".into(), owner.clone()])
        .collect();
    assert_eq!(
        found, meant,
        "a function of the control schema that no attack goes at, without a fixed path, or for everybody"
    );
    let others = database.rows(
        "SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'delta'::regnamespace AND NOT p.prosecdef
             AND (p.proconfig::text NOT LIKE '%\"search_path=pg_catalog, pg_temp\"%' OR p.proconfig IS NULL OR p.proacl IS NULL OR p.proacl::text ~ '[{,]=|delta_')",
    );
    assert!(others.is_empty(), "functions that are called by those with rights alone: {others:?}");
}

#[test]
fn a_reading_function_writes_nothing() {
    let world = World::shared();
    let database = world.database.copied();
    let boss = Holder::new(&world.url_in(&database, "boss"));
    let before = (tables(&database, "delta"), tables(&database, "public"), tables(&database, "staging"));
    for name in ["holdings", "conflicts", "unindexed", "try_roll_back"] {
        let function = FUNCTIONS.iter().find(|function| function.name == name).unwrap();
        for sql in function.call {
            // A trial ends with an error of its own, which takes it back.
            let ended = boss.run(sql).err().map(|(code, _)| code);
            assert_eq!(ended.as_deref(), (name == "try_roll_back").then_some("DP006"), "{sql}");
        }
        assert_same(&tables(&database, "delta"), &before.0);
        assert_same(&tables(&database, "public"), &before.1);
        assert_same(&tables(&database, "staging"), &before.2);
    }
}

#[test]
fn the_security_page_has_each_function_and_its_role() {
    let page = std::fs::read_to_string(Path::new(REPOSITORY).join("docs/security.md")).unwrap();
    let mut told: Vec<_> = page
        .lines()
        .skip_while(|line| !line.starts_with("| function |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').skip(1).take(2).map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>())
        .collect();
    told.sort();
    let role = |function: &Function| match function.by {
        [] => "none",
        [Loader] => "loader",
        [Rollback] => "rollback",
        _ => "both",
    };
    let meant: Vec<_> = FUNCTIONS.iter().map(|function| vec![function.name, role(function)]).collect();
    assert_eq!(told, meant);
}
