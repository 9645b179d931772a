//! Mappings: those of other logins' runs, those that use up keys, and tables that no pipeline loads.

use super::arguments::stopped_by;
use super::world::{Attack, World};

#[test]
fn mappings_that_count_are_not_forgotten() {
    let attack = Attack::new("the mappings of a run in production are removed", &["SELECT delta.forget('public.item')"])
        .opened(&[
            "SELECT kit.edit('forget', 'AND NOT EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = of_table AND s.run = a.run)', '')",
            "SELECT kit.edit('forget', 'AND NOT EXISTS (SELECT FROM delta.event AS e WHERE e.run = a.run AND e.kind = ''committed'')', '')",
        ])
        .won("SELECT count(*) = 0 FROM delta.mapping_item WHERE run = kit.loaded()");
    World::shared().assert_defended(&[attack]);
}

#[test]
fn a_login_appends_mappings_to_its_own_runs_alone() {
    const APPENDED: &str = "SELECT count(*) > 0 FROM delta.mapping_item WHERE legacy_key = 'evil'";
    let of_another = "owner <> session_user OR owner IS NULL AND EXISTS";
    let attacks = [
        stopped_by(
            "a mapping of another login's run",
            &["INSERT INTO delta.mapping_item VALUES ('evil', 1, 'OTHER')"],
            "login_of",
            of_another,
            "owner IS NULL AND EXISTS",
        )
        .won(APPENDED),
        stopped_by(
            "the same beside one of its own",
            &["INSERT INTO delta.mapping_item VALUES ('mine', 1, 'RUN'), ('evil', 2, 'OTHER')"],
            "check_mappings",
            "first_run <> last_run",
            "false",
        )
        .won(APPENDED),
        Attack::new(
            "the same in a session that fires no triggers",
            &[
                "SET LOCAL session_replication_role = replica",
                "INSERT INTO delta.mapping_item VALUES ('evil', 1, '20990101T000000-aaaa')",
            ],
        )
        .given(&["GRANT SET ON PARAMETER session_replication_role TO <night>"])
        .opened(&["ALTER TABLE delta.mapping_item ENABLE TRIGGER check_mappings"])
        .won(APPENDED),
        stopped_by(
            "a staged mapping of another login's run",
            &["INSERT INTO staging.ck_item VALUES (1, 'evil', 1)", "SELECT delta.append_staged('OTHER', 'public.item')"],
            "login_of",
            of_another,
            "owner IS NULL AND EXISTS",
        )
        .won(APPENDED),
        stopped_by(
            "a mapping that another login's run is said to have lost",
            &["INSERT INTO staging.ck_item VALUES (1, 'evil', 1)", "SELECT delta.import_mappings('OTHER', 'public.item', 0, 9)"],
            "login_of",
            of_another,
            "owner IS NULL AND EXISTS",
        )
        .won(APPENDED),
        stopped_by(
            "a segment of another login's run, which counts at once",
            &["SELECT delta.record_segment('OTHER', 'public.item', 1)"],
            "login_of",
            of_another,
            "owner IS NULL AND EXISTS",
        )
        .won("SELECT count(*) > 0 FROM delta.segment WHERE run = '20990101T000000-aaaa'"),
        stopped_by(
            "a segment of a run without a journal",
            &["SELECT delta.record_segment('imported', 'public.item', 1)"],
            "login_of",
            "owner IS NULL AND EXISTS (SELECT FROM delta.run AS r WHERE r.id = of_run)",
            "false",
        )
        .given(&["INSERT INTO delta.run (id, pipeline, started_at, report, transaction) VALUES ('imported', 'p', '', '', '')"])
        .won("SELECT count(*) > 0 FROM delta.segment WHERE run = 'imported'"),
        stopped_by(
            "a mapping of a run that has all of its mappings",
            &["INSERT INTO delta.mapping_item VALUES ('evil', 1, kit.loaded())"],
            "begin_mappings",
            "IF EXISTS (SELECT FROM delta.segment",
            "IF false AND EXISTS (SELECT FROM delta.segment",
        )
        .won(APPENDED),
        stopped_by(
            "a mapping that a run has not lost",
            &["INSERT INTO staging.ck_item VALUES (1, 'evil', 1)", "SELECT delta.import_mappings(kit.loaded(), 'public.item', 0, 9)"],
            "import_mappings",
            "s.rows < found.counted",
            "false",
        )
        .won(APPENDED),
    ];
    World::shared().assert_defended(&attacks);
}

#[test]
fn a_mapping_uses_up_no_more_keys_than_a_block() {
    const APPENDED: &str = "SELECT count(*) > 0 FROM delta.mapping_note WHERE legacy_key = 'evil'";
    let staged = [
        "SELECT delta.make_staging('RUN', 'public.note', '{note_id,text}', '{false,false}', false, true)",
        "INSERT INTO staging.ck_note VALUES (1, 'evil', 2147483647)",
    ];
    let far = |name, call: &str, function, checked: &str| {
        let strike = [&staged[..], &[call]].concat();
        stopped_by(name, &strike, function, checked, "IF false THEN").won(APPENDED)
    };
    let attacks = [
        far(
            "a mapping to the last key of all",
            "INSERT INTO delta.mapping_note VALUES ('evil', 2147483647, 'RUN')",
            "check_mappings",
            "IF delta.has_numbers(known) THEN",
        ),
        far(
            "the same from staging",
            "SELECT delta.append_staged('RUN', 'public.note')",
            "append_from_staging",
            "IF delta.has_numbers(known) THEN",
        ),
        far(
            "the same by an import",
            "SELECT delta.import_mappings('RUN', 'public.note', 0, 9)",
            "append_from_staging",
            "IF delta.has_numbers(known) THEN",
        ),
    ];
    World::shared().assert_defended(&attacks);
}

#[test]
fn a_table_that_no_pipeline_loads_is_not_locked() {
    let attacks = [
        ("SELECT delta.hold_table('public.note')", "ShareRowExclusiveLock"),
        ("SELECT delta.analyze('public.note')", "ShareUpdateExclusiveLock"),
    ]
    .map(|(call, mode)| {
        stopped_by(call, &[call], "loaded", "IF NOT known.is_loaded THEN", "IF false THEN")
            .given(&["UPDATE delta.loaded_table SET is_loaded = false WHERE table_name = 'public.note'"])
            .won(&format!(
                "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'public.note'::regclass AND mode = '{mode}'"
            ))
    });
    World::shared().assert_defended(&attacks);
}
