//! What a loader can do by design, and no more: `docs/security.md` says so.

use super::world::World;
use crate::production::{Holder, until};

/// A copy, and a session of a loader in it.
fn copy() -> (crate::server::Database, Holder) {
    let world = World::shared();
    let database = world.database.copied();
    let night = Holder::new(&world.url_in(&database, "night"));
    (database, night)
}

#[test]
fn a_loader_inserts_any_row_into_the_tables_of_pipelines() {
    let (_database, night) = copy();
    night.execute(
        "INSERT INTO public.account (account_no) VALUES ('mine'); INSERT INTO public.note VALUES (4711, 'mine')",
    );
    assert_eq!(night.run("INSERT INTO public.region VALUES (400, 'mine')").unwrap_err().0, "42501");
    assert_eq!(night.run("INSERT INTO public.audit VALUES ('mine')").unwrap_err().0, "42501");
}

#[test]
fn a_loader_reads_the_tables_that_pipelines_name_or_refer_to() {
    let (_database, night) = copy();
    for table in [
        "public.account",
        "public.item",
        "public.note",
        "public.region",
        "delta.event",
        "delta.key_map_item",
        "staging.item",
    ] {
        night.execute(&format!("SELECT FROM {table} LIMIT 1"));
    }
    assert_eq!(night.run("SELECT FROM public.audit").unwrap_err().0, "42501");
}

#[test]
fn a_loader_changes_and_deletes_nothing_of_production() {
    let (_database, night) = copy();
    for sql in [
        "UPDATE public.item SET quantity = 0 WHERE false",
        "DELETE FROM public.item WHERE false",
        "TRUNCATE public.note",
        "SELECT FROM public.item FOR KEY SHARE",
        "SELECT setval('public.account_account_id_seq', 1)",
        "SELECT nextval('public.account_account_id_seq')",
    ] {
        assert_eq!(night.run(sql).unwrap_err().0, "42501", "{sql}");
    }
}

#[test]
fn a_loader_appends_mappings_to_runs_of_its_own() {
    let (database, night) = copy();
    night.execute(
        "INSERT INTO delta.mapping_note VALUES ('mine', 11, 'mine'); SELECT delta.record_segment('mine', 'public.note', 1)",
    );
    assert_eq!(night.text("SELECT note_id FROM delta.key_map_note WHERE legacy_key = 'mine'"), "11");
    for sql in [
        "UPDATE delta.mapping_note SET run = 'mine'",
        "TRUNCATE delta.mapping_note",
        "ALTER TABLE delta.mapping_note DISABLE TRIGGER ALL",
        "INSERT INTO delta.segment (table_name, run, rows) VALUES ('public.item', 'mine', 1)",
        "DELETE FROM delta.mapping_note WHERE run = 'mine'",
    ] {
        assert_eq!(night.run(sql).unwrap_err().0, "42501", "{sql}");
    }
    // A legacy key has one mapping: one that counts is not replaced.
    let again = "INSERT INTO delta.mapping_note VALUES ('N-1', 1, 'again')";
    assert_eq!(night.run(again).unwrap_err().0, "23505");
    // Mappings without a segment keep no other login from its own: its load removes them first.
    night.execute("INSERT INTO delta.mapping_note VALUES ('next', 12, 'again')");
    let day = Holder::new(&World::shared().url_in(&database, "day"));
    let append = "INSERT INTO delta.mapping_note VALUES ('next', 13, 'theirs')";
    assert_eq!(day.run(append).unwrap_err().0, "23505");
    day.execute(&format!("SELECT delta.forget('public.note'); {append}"));
}

#[test]
fn a_loader_marks_files_as_loaded_with_a_run_of_its_own() {
    let (_database, night) = copy();
    night.execute(
        "SELECT kit.start('20990101T000000-0001', 1);
         SELECT delta.record_run('20990101T000000-0001', 'small', 'now', 'x', '{h}', '{public.item}', '{f}')",
    );
    assert_eq!(night.text("SELECT name FROM delta.file WHERE hash = 'h'"), "f");
}

#[test]
fn a_loader_adds_ids_of_the_target_and_takes_none_away() {
    let (_database, night) = copy();
    night.execute("INSERT INTO delta.target (id) VALUES ('mine')");
    assert_eq!(night.run("DELETE FROM delta.target").unwrap_err().0, "42501");
}

#[test]
fn a_loader_leaves_an_interrupted_run_of_any_pipeline() {
    let (database, night) = copy();
    night.execute("SELECT kit.start('20990101T000000-0009', 10)");
    assert_eq!(night.text("SELECT login = session_user FROM delta.event WHERE run = '20990101T000000-0009'"), "t");
    // The operator ends it.
    Holder::new(&World::shared().url_in(&database, "boss"))
        .execute("SELECT kit.append('20990101T000000-0009', 2, 'abandoned')");
    assert!(night.run("SELECT delta.reserve('20990101T000000-0009', 'public.item', NULL, 1)").is_err());
}

#[test]
fn a_loader_uses_up_a_block_of_keys_with_each_run() {
    let (_database, night) = copy();
    for run in ["20990101T000000-0001", "20990101T000000-0002"] {
        night.execute(&format!(
            "SELECT kit.start('{run}', 1000000); SELECT delta.reserve('{run}', 'public.account', NULL, 1000)"
        ));
        assert!(night.run(&format!("SELECT delta.reserve('{run}', 'public.account', NULL, 1)")).is_err());
    }
    assert_eq!(night.text("SELECT last_value FROM public.account_account_id_seq"), "2010");
}

#[test]
fn a_loader_keeps_others_waiting_until_its_transaction_ends() {
    let (database, night) = copy();
    let world = World::shared();
    let [owner, boss] = ["owner", "boss"].map(|who| Holder::new(&world.url_in(&database, who)));
    for session in [&owner, &boss] {
        session.execute("SET lock_timeout = '200ms'");
    }
    night.execute("SELECT kit.start('20990101T000000-0009', 10)");
    for (call, waits) in [
        ("SELECT delta.hold_table('public.note')", "INSERT INTO public.note VALUES (1000)"),
        ("SELECT delta.forget('public.note')", "SELECT delta.begin_mappings('r', 'public.note')"),
        (
            "SELECT delta.reserve('20990101T000000-0009', 'public.account', NULL, 1)",
            "INSERT INTO public.account (account_no) VALUES ('theirs')",
        ),
        ("SELECT FROM delta.hold_references('public.item', '{}')", "DELETE FROM public.account WHERE account_id = 1"),
        (
            "SELECT FROM delta.lock_references('public', 'account', '{account_id,account_no}', '{2}', '{OLD-2}')",
            "DELETE FROM public.account WHERE account_id = 2",
        ),
    ] {
        night.execute(&format!("BEGIN; {call}"));
        assert_eq!(owner.run(waits).unwrap_err().0, "55P03", "{call}");
        night.execute("ROLLBACK");
    }
    night.execute("BEGIN; SELECT FROM delta.hold_mode()");
    assert_eq!(boss.run("SELECT delta.switch_mode(NULL, 'over', false)").unwrap_err().0, "55P03");
    // A session that is ended holds nothing.
    owner.execute("RESET lock_timeout");
    database.execute(&world.named("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '<night>' AND datname = current_database()"));
    until(
        &database,
        &world.named(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = '<night>' AND datname = current_database()",
        ),
    );
    boss.execute("SELECT delta.switch_mode(NULL, 'over', false)");
}

#[test]
fn a_loader_holds_the_programs_lock_as_long_as_its_session() {
    let (database, night) = copy();
    night.execute("SELECT pg_advisory_lock(7305516410)");
    let refused = World::shared().pipeline(&database, "day", &["run", "p.yaml"]);
    refused.fails(69, &["is loading into", &World::shared().named("<night>"), "hint: run again"]);
}

#[test]
fn a_loader_switches_conversion_mode_off_and_not_on() {
    let (_database, night) = copy();
    night.execute("SELECT delta.end_mode('mine')");
    assert_eq!(night.text("SELECT ended_by = session_user FROM delta.mode ORDER BY number DESC LIMIT 1"), "t");
    assert_eq!(night.run("SELECT delta.switch_mode(60, 'mine', true)").unwrap_err().0, "42501");
}

#[test]
fn a_view_of_a_loader_keeps_staging_from_being_made_again() {
    let (_database, night) = copy();
    night.execute("CREATE VIEW night.staged AS SELECT * FROM staging.item");
    let make = "SELECT delta.make_staging('r', 'public.item', '{account_id}', '{false}', false, true)";
    assert_eq!(night.run(make).unwrap_err().0, "2BP01");
    night.execute("DROP VIEW night.staged");
    night.execute(make);
}

#[test]
fn an_operator_rolls_back_runs_and_nothing_else() {
    let (database, _) = copy();
    let boss = Holder::new(&World::shared().url_in(&database, "boss"));
    for sql in [
        "INSERT INTO public.note VALUES (1)",
        "DELETE FROM public.item WHERE false",
        "SELECT FROM public.item",
        "SELECT FROM staging.item",
    ] {
        assert_eq!(boss.run(sql).unwrap_err().0, "42501", "{sql}");
    }
    boss.execute("SELECT delta.roll_back(kit.loaded(), kit.next(kit.loaded()), '{}', 'c', '{}')");
    assert_eq!(database.text("SELECT (SELECT count(*) FROM item) || ' ' || (SELECT count(*) FROM audit)"), "5 5");
}
