//! The invariants are themselves held: a finished run is damaged in one way after the other, and each damage is found and called
//! by the invariant that it breaks.

use crate::invariants::{After, Before};
use crate::scene::{Delta, FILE, On, Scene};
use crate::support::tell;

/// A damage: what it is, the invariant that it breaks, and how it is done; the constraints that would forbid it are off.
struct Damage {
    what: &'static str,
    invariant: u8,
    sql: &'static str,
}

/// `{run}` is a control table, `{RUN}` the run, `{KEY}` the largest key of the run's parents.
const DAMAGES: &[Damage] = &[
    Damage { what: "a row is lost", invariant: 1, sql: "DELETE FROM part WHERE memo = 'part 3 of child 2-1 of B'" },
    Damage {
        what: "a row is lost, and so is what maps to it",
        invariant: 1,
        sql: "DELETE FROM part WHERE memo = 'part 3 of child 2-1 of B';
            DELETE FROM {key_map_part} WHERE legacy_key = 'BC2-1|3'",
    },
    Damage {
        what: "a row is there twice",
        invariant: 1,
        sql: "INSERT INTO child SELECT 'C0009999', parent_id, region_id, quantity, memo FROM child WHERE memo = 'child 2-1 of B'",
    },
    Damage {
        what: "a value of a row is another",
        invariant: 1,
        sql: "UPDATE child SET quantity = 77 WHERE memo = 'child 2-1 of B'",
    },
    Damage {
        what: "a row refers to another parent, which there is",
        invariant: 1,
        sql: "UPDATE child SET parent_id = 1 WHERE memo = 'child 2-1 of B'",
    },
    Damage {
        what: "a reject is counted as inserted",
        invariant: 1,
        sql: "UPDATE {run} SET report = replace(report, '\"rejected\":3', '\"rejected\":2') WHERE id = '{RUN}'",
    },
    Damage {
        what: "rows were read that nobody counted",
        invariant: 1,
        sql: "UPDATE {run} SET report = replace(report, '\"read\":14', '\"read\":13') WHERE id = '{RUN}'",
    },
    Damage { what: "the run's row is gone", invariant: 1, sql: "DELETE FROM {run} WHERE id = '{RUN}'" },
    Damage {
        what: "the key map lacks a row",
        invariant: 2,
        sql: "DELETE FROM {key_map_child} WHERE legacy_key = 'BC2-1'",
    },
    Damage {
        what: "the key map points to another row",
        invariant: 2,
        sql: "UPDATE {key_map_child} SET child_id = 'x' WHERE legacy_key = 'BC2-1';
            UPDATE {key_map_child} SET child_id = (SELECT child_id FROM child WHERE memo = 'child 2-1 of B') WHERE legacy_key = 'BC2-2';
            UPDATE {key_map_child} SET child_id = (SELECT child_id FROM child WHERE memo = 'child 2-2 of B') WHERE legacy_key = 'BC2-1'",
    },
    Damage {
        what: "two legacy keys have one key",
        invariant: 2,
        sql: "{unbound key_map_child}
            INSERT INTO {key_map_child} (legacy_key, child_id, {of}) SELECT 'BC2-9', child_id, {of} FROM {key_map_child} WHERE legacy_key = 'BC2-1'",
    },
    Damage {
        what: "the key map has the row of another run",
        invariant: 2,
        sql: "UPDATE {key_map_part} SET {of} = {nobody} WHERE legacy_key = 'BC2-1|2'",
    },
    Damage {
        what: "a key is outside of the run's block",
        invariant: 2,
        sql: "UPDATE {block} SET last = last - 1 WHERE run = '{RUN}' AND table_name LIKE '%parent'",
    },
    Damage {
        what: "the run has no block",
        invariant: 2,
        sql: "DELETE FROM {block} WHERE run = '{RUN}' AND table_name LIKE '%child'",
    },
    Damage {
        what: "keys of the run's block are used by nobody",
        invariant: 2,
        sql: "UPDATE {block} SET last = last + 5 WHERE run = '{RUN}' AND table_name LIKE '%parent'",
    },
    Damage {
        what: "a block of another run overlaps",
        invariant: 3,
        sql: "INSERT INTO {block} (table_name, first, last, run) SELECT max(table_name), {KEY}, {KEY} + 10, 'another' FROM {block} WHERE table_name LIKE '%parent'",
    },
    Damage {
        what: "a live writer has a key of the run's block",
        invariant: 3,
        sql: "UPDATE {block} SET last = last + 1 WHERE run = '{RUN}' AND table_name LIKE '%parent';
            INSERT INTO parent (parent_id, code) VALUES ({KEY} + 1, 'LIVE')",
    },
    Damage {
        what: "a row that was there is changed",
        invariant: 4,
        sql: "UPDATE parent SET memo = 'blanks' WHERE code = 'OLD-3'",
    },
    Damage {
        what: "a row that was there is gone",
        invariant: 4,
        sql: "DELETE FROM part WHERE child_id = 'C0000041' AND seq_no = 2",
    },
    Damage { what: "a table that is not loaded lost a row", invariant: 4, sql: "DELETE FROM region WHERE region_id = 3" },
    Damage { what: "a table that is not loaded got a row", invariant: 4, sql: "INSERT INTO region VALUES (4, 'east')" },
    Damage {
        what: "the key map of an earlier run is changed",
        invariant: 4,
        sql: "UPDATE {key_map_child} SET legacy_key = 'AC1-9' WHERE legacy_key = 'AC1-1'",
    },
    Damage {
        what: "a row refers to nothing",
        invariant: 5,
        sql: "UPDATE child SET parent_id = 999999 WHERE memo = 'child 2-1 of B'",
    },
    Damage {
        what: "a row that was referred to is gone",
        invariant: 5,
        sql: "DELETE FROM parent WHERE code = 'B-1'",
    },
    Damage {
        what: "an entry of the journal is changed",
        invariant: 6,
        sql: "UPDATE {event} SET entry = replace(entry, '2', '3') WHERE run = '{RUN}' AND kind = 'reserved'",
    },
    Damage {
        what: "an entry of the journal has another kind",
        invariant: 6,
        sql: "UPDATE {event} SET kind = 'staged' WHERE run = '{RUN}' AND kind = 'reserved'",
    },
    Damage {
        what: "an entry of the journal is gone",
        invariant: 6,
        sql: "DELETE FROM {event} WHERE run = '{RUN}' AND kind = 'staged'",
    },
    Damage {
        what: "the last entry of the journal is gone",
        invariant: 6,
        sql: "DELETE FROM {event} WHERE run = '{RUN}' AND kind = 'verified'",
    },
    Damage {
        what: "an entry is put into the journal",
        invariant: 6,
        sql: "INSERT INTO {event} SELECT run, number + 1, kind, entry, chain FROM {event} WHERE run = '{RUN}' AND kind = 'verified'",
    },
    Damage { what: "the journal is gone", invariant: 6, sql: "DELETE FROM {event} WHERE run = '{RUN}'" },
    Damage {
        what: "a file of the run is forgotten",
        invariant: 7,
        sql: "DELETE FROM {file} WHERE run = '{RUN}' AND table_name LIKE '%part'",
    },
];

/// A finished run, and what was before it.
fn finished(on: On) -> (Scene, Before, Delta, String) {
    let scene = Scene::new(on);
    let delta = Delta::new("B", 14, Some("A"));
    scene.give(&delta);
    let before = Before::of(&scene);
    scene.pipeline(&["run", FILE]).passes();
    let again = || scene.pipeline(&["run", FILE]);
    let after = After::of(&before, &delta, &scene, &[], Some(&again));
    let run = after.holds("the run as it is").loaded.clone().expect("the delta is loaded");
    (scene, before, delta, run)
}

fn plant(scene: &Scene, sql: &str, run: &str) {
    let mut sql = sql.replace("{RUN}", run);
    let unbound = "PRAGMA legacy_alter_table = on; CREATE TABLE {spare} AS SELECT * FROM {key_map_child};
        DROP TABLE {key_map_child}; ALTER TABLE {spare} RENAME TO {key_map_child:bare};";
    sql = sql.replace("{unbound key_map_child}", scene.on.choose(unbound, ""));
    let key = scene.rows("SELECT max(parent_id) FROM parent").remove(0).remove(0);
    sql = sql.replace("{KEY}", &key);
    sql = sql.replace("{of}", scene.on.choose("segment", "run")).replace("{nobody}", scene.on.choose("0", "'nobody'"));
    for name in ["run", "file", "block", "spare", "key_map_child", "key_map_part", "event"] {
        let control = scene.control(&name.replace("key_map_", "mapping_"));
        let bare = scene.on.choose(control.as_str(), name);
        sql = sql.replace(&format!("{{{name}:bare}}"), bare).replace(&format!("{{{name}}}"), &control);
    }
    let unbound = scene.on.choose("PRAGMA foreign_keys = off", "SET session_replication_role = replica");
    scene.execute(&format!("{unbound}; {sql}"));
}

/// Plants every damage in a copy of one finished run; gives how many were planted and found.
fn all_are_found(on: On) {
    let (finished, before, delta, run) = finished(on);
    let mut missed = Vec::new();
    for damage in DAMAGES {
        let scene = finished.copied();
        let was = (scene.production(), scene.remembered());
        plant(&scene, damage.sql, &run);
        assert!(was != (scene.production(), scene.remembered()), "nothing is damaged: {}", damage.what);
        let key = scene.rows("SELECT parent_id FROM parent WHERE code = 'LIVE'").into_iter().flatten().next();
        let others: Vec<_> = key.iter().map(|key| ("parent", key.as_str())).collect();
        let found = After::of(&before, &delta, &scene, &others, None).violations;
        if !found.iter().any(|violation| violation.invariant == damage.invariant) {
            missed.push(format!("{} is no violation of invariant {}: {found:#?}", damage.what, damage.invariant));
        }
    }
    tell(&format!("{on:?}: {} damages planted, {} found", DAMAGES.len(), DAMAGES.len() - missed.len()));
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_planted_damage_is_found_on_sqlite() {
    all_are_found(On::Sqlite);
}

#[test]
fn every_planted_damage_is_found_on_postgres() {
    all_are_found(On::Postgres);
}

#[test]
fn a_run_that_loads_what_was_loaded_is_found() {
    // What the target knew of the files is gone, and so are the codes that would keep the same rows out.
    let (scene, before, delta, run) = finished(On::Sqlite);
    plant(
        &scene,
        "DELETE FROM {file} WHERE run = '{RUN}'; UPDATE {key_map_part} SET legacy_key = legacy_key || '-'",
        &run,
    );
    let again = || scene.pipeline(&["run", FILE]);
    let found = After::of(&before, &delta, &scene, &[], Some(&again)).violations;
    assert!(found.iter().any(|violation| violation.what.starts_with("a second run")), "{found:#?}");
}
