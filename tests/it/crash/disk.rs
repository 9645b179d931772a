//! The disk is full: no file may grow any more, by the limit that the system sets a process.

use std::thread;
use std::time::{Duration, Instant};

use super::{Done, Trial};
use crate::invariants::After;
use crate::scene::{FILE, On, Scene};
use crate::server::Server;
use crate::support::Ran;

/// Runs with a limit for each file's size; a signal says that it is reached, or the write fails.
fn run_within(trial: &Trial, bytes: u64, is_told: bool) -> Ran {
    let limit = format!("--fsize={bytes}");
    let script = if is_told { "trap '' XFSZ; exec \"$@\"" } else { "exec \"$@\"" };
    let by = ["sh", "-c", script, "sh", "prlimit", &limit];
    Ran::of(trial.scene.command(&by, &["run", FILE]).output().expect("sh runs"))
}

#[test]
fn a_file_that_cannot_grow_ends_a_run_with_all_or_nothing() {
    for is_told in [true, false] {
        let done = Done::default();
        let mut was_cut = [0, 0];
        for kib in (0..).step_by(12) {
            let trial = Trial::new(Scene::new(On::Sqlite), &done);
            let ran = run_within(&trial, kib * 1024, is_told);
            if ran.code == 0 {
                trial.is_loaded("there was room enough");
                break;
            }
            let what = format!("files of {kib} KiB");
            if is_told {
                assert!([69, 75].contains(&ran.code) && ran.stderr.contains("error"), "{what}: {ran:?}");
            } else {
                assert!(ran.code < 0 || [69, 75].contains(&ran.code), "{what}: {ran:?}");
            }
            let mut after = After::of(&trial.before, &trial.delta, &trial.scene, &[], None);
            after.violations.retain(|violation| violation.invariant != 6);
            let is_loaded = after.holds(&what).loaded.is_some();
            was_cut[usize::from(is_loaded)] += 1;
            trial.go_on(&what);
        }
        assert!(was_cut[0] > 3, "the limits are all too wide");
        done.tell(On::Sqlite);
    }
}

#[test]
fn a_server_whose_disk_is_full_ends_a_run_with_nothing() {
    let server = Server::private(&["restart_after_crash = off"]);
    let done = Done::default();
    // Pages that are full, so that the next row of the delta needs another one; then the server's log of changes.
    let full = "ALTER TABLE part SET (fillfactor = 10, autovacuum_enabled = off);
        INSERT INTO part SELECT 'C0000041', n, repeat('x', 40) FROM generate_series(1000, 31000) AS n;
        DELETE FROM part WHERE seq_no >= 1000";
    // A new file of the log, up to a little below the limit.
    let log = "SELECT pg_switch_wal();
        SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 8000))) FROM generate_series(1, 256)";
    for (what, sql, bytes, ends) in [("a full table", full, 16 << 20, false), ("a full log", log, 2 << 20, true)] {
        let scene = Scene::on_server(&server);
        scene.execute(sql);
        let trial = Trial::new(scene, &done);
        server.limit_files(Some(bytes));
        let ran = trial.scene.pipeline(&["run", FILE]);
        server.limit_files(None);
        assert!([69, 75].contains(&ran.code) && !ran.stdout.contains("loaded"), "{what}: {ran:?}");
        if ends {
            // A server that cannot write its log takes a moment to end.
            let begun = Instant::now();
            while server.is_running() {
                assert!(begun.elapsed() < Duration::from_mins(1), "{what}: the server goes on");
                thread::sleep(Duration::from_millis(100));
            }
            server.start();
        }
        let mut after = After::of(&trial.before, &trial.delta, &trial.scene, &[], None);
        // The journal's copy is an entry ahead if that entry is the one for which there was no room.
        after.violations.retain(|violation| violation.invariant != 6);
        assert!(after.holds(what).loaded.is_none(), "{what}");
        trial.go_on(what);
    }
    done.tell(On::Postgres);
}
