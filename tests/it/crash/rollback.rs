//! Taking a run back, wherever it was killed, and a rollback that is killed itself.

use std::thread;

use super::{Done, Point, Trial, is_refused, points, rounds};
use crate::chain;
use crate::invariants::{After, Before};
use crate::scene::{Delta, FILE, On, Scene};

each_target! {
    a_run_that_is_killed_anywhere_is_rolled_back_to_the_byte => rolled_back;
    a_rollback_that_is_killed_is_done_again => rolled_back_twice;
    what_cannot_be_rolled_back_is_refused_and_nothing_changes => refused;
    a_rollback_that_would_take_more_than_the_run_is_refused => more_than_the_run;
}

fn rolled_back(on: On) {
    let done = Done::default();
    let base = Scene::new(on);
    for _ in 0..rounds() {
        for point @ Point { what, noted, .. } in points(on) {
            let trial = Trial::new(base.copied(), &done);
            trial.kill_at(point);
            if *noted {
                trial.roll_back(what);
            }
            trial.run_anew(what);
        }
    }
    done.tell(on);
}

/// Kills the rollback of a run that is loaded: it is all there, or all gone.
fn rolled_back_twice(on: On) {
    let done = Done::default();
    let base = Scene::new(on);
    for _ in 0..rounds() {
        let trial = Trial::new(base.copied(), &done);
        trial.scene.pipeline(&["run", FILE]).passes();
        let run = trial.run();
        assert!(trial.is_killed(&["rollback", FILE, &run], "rolling back=return"), "it never comes there");
        trial.is_loaded("a rollback that was killed before its COMMIT");
        trial.roll_back("a rollback that was killed before its COMMIT");
        trial.run_anew("a rollback that was killed before its COMMIT");

        let trial = Trial::new(base.copied(), &done);
        trial.scene.pipeline(&["run", FILE]).passes();
        let run = trial.run();
        assert!(trial.is_killed(&["rollback", FILE, &run], "rolled back=return"), "it never comes there");
        let mut after = After::of_taken_back(&trial.before, &trial.scene);
        // The copy of the journal does not know yet.
        after.violations.retain(|violation| violation.invariant != 6);
        after.holds("a rollback that was killed after its COMMIT");
        assert_eq!(trial.scene.dump(), trial.dump);
        is_refused(&trial.scene, &["rollback", FILE, &run], 77, &[&run, "rolled back", "hint: "]);
    }
    done.tell(on);
}

fn refused(on: On) {
    let done = Done::default();
    let trial = Trial::new(Scene::new(on), &done);
    let nobody = ["rollback", FILE, "20200101T000000-beef"];
    is_refused(&trial.scene, &nobody, 64, &["no run `20200101T000000-beef`", "hint: "]);
    trial.scene.pipeline(&["run", FILE]).passes();
    let run = trial.run();
    trial.roll_back("nothing");
    is_refused(&trial.scene, &["rollback", FILE, &run], 77, &[&run, "rolled back", "hint: "]);
    is_refused(&trial.scene, &["resume", FILE, &run], 77, &[&run, "rolled back", "hint: "]);
    trial.run_anew("a rollback");

    let trial = Trial::new(Scene::new(on), &done);
    trial.kill("staged=return");
    let run = trial.run();
    thread::scope(|scope| {
        let first =
            scope.spawn(|| trial.scene.pipeline_with(&["resume", FILE], &[("FAILPOINTS", "staged=sleep(5000)")]));
        trial.until_told("resumed");
        is_refused(&trial.scene, &["rollback", FILE, &run], 69, &[&run, "since", "hint: "]);
        first.join().unwrap().passes();
    });
    trial.written_by_a_newer_version(&run);
    is_refused(&trial.scene, &["rollback", FILE, &run], 78, &["newer format", "hint: "]);
}

fn more_than_the_run(on: On) {
    let done = Done::default();
    let trial = Trial::new(Scene::new(on), &done);
    trial.scene.pipeline(&["run", FILE]).passes();
    let run = trial.run();
    let rollback = ["rollback", FILE, &run];
    // A later run refers to its rows.
    trial.scene.give(&Delta::new("C", 2, Some("B")));
    let before = Before::of(&trial.scene);
    trial.scene.pipeline(&["run", FILE]).passes();
    is_refused(&trial.scene, &rollback, 77, &["`parent`", "refer", "hint: "]);
    let later = chain::kept(&trial.scene).into_iter().map(|entry| entry.run).find(|run| !before.has_run(run));
    trial.scene.pipeline(&["rollback", FILE, &later.unwrap()]).passes();
    // Somebody changed a row, and somebody else's row refers to one.
    for (change, back) in [
        ("UPDATE child SET quantity = 99 WHERE memo = 'child 2-1 of B'", None),
        (
            "INSERT INTO part SELECT child_id, 9, 'live' FROM child WHERE memo = 'child 2-2 of B'",
            Some("DELETE FROM part WHERE memo = 'live'"),
        ),
    ] {
        let copy = trial.scene.copied();
        copy.execute(change);
        is_refused(&copy, &rollback, 77, &["`child`", "hint: "]);
        if let Some(back) = back {
            copy.execute(back);
            copy.pipeline(&rollback).passes();
            assert_eq!(copy.dump(), trial.dump);
        }
    }
    trial.scene.pipeline(&rollback).passes();
    trial.is_taken_back("a later run that is gone");
}
