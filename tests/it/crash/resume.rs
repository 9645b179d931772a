//! Going on with a run that was killed.

use std::thread;

use super::{Done, Point, Trial, is_refused, points, rounds};
use crate::scene::{FILE, On, Scene};

each_target! {
    a_run_that_is_killed_anywhere_is_resumed_and_loaded_once => resumed;
    a_set_based_run_that_is_killed_anywhere_is_resumed_or_rolled_back => set_based;
    of_two_that_resume_at_once_one_is_refused_and_told_who_has_the_run => two_at_once;
    a_run_that_would_be_another_one_now_is_not_resumed => changed;
    what_cannot_be_resumed_is_refused_and_nothing_changes => refused;
}

each_target!(a_run_outside_production_is_abandoned_whatever_its_journal);

/// Where a second kill hits whoever resumes, another one in each round.
fn second(round: usize) -> &'static str {
    ["copying=return", "staged=return", "inserting=return", "recorded=return", "committed=return", "read back=return"]
        [round % 6]
}

fn resumed(on: On) {
    let done = Done::default();
    let base = Scene::new(on);
    for round in 0..rounds() {
        for (at, point @ Point { what, noted, .. }) in points(on).enumerate() {
            let trial = Trial::new(base.copied(), &done);
            if (at + round) % 2 == 0 {
                trial.scene.write("load: { staging: always }\n");
            }
            trial.kill_at(point);
            if *noted {
                let is_over = round > 0 && !trial.is_killed(&["resume", FILE], second(round));
                if is_over { trial.is_loaded(what) } else { trial.resume(what) }
            } else {
                let ran = trial.scene.pipeline(&["resume", FILE]);
                ran.fails(64, &["interrupted or failed", "hint: "]);
                trial.run_anew(what);
            }
        }
    }
    done.tell(on);
}

/// What was checked once for all rows is checked again.
fn set_based(on: On) {
    let done = Done::default();
    let base = Scene::new(on);
    base.write("load: { foreign_keys: set_based }\n");
    if on == On::Postgres {
        base.pipeline(&["setup", FILE]).passes();
    }
    for round in 0..rounds() {
        for (at, point) in points(on).enumerate() {
            let trial = Trial::new(base.copied(), &done);
            let staging = if (at + round) % 4 < 2 { "when_needed" } else { "always" };
            trial.scene.write(&format!("load: {{ foreign_keys: set_based, staging: {staging} }}\n"));
            trial.kill_at(point);
            match (point.noted, (at + round) % 2) {
                (true, 0) => trial.resume(point.what),
                (true, _) => {
                    trial.roll_back(point.what);
                    trial.run_anew(point.what);
                }
                (false, _) => trial.run_anew(point.what),
            }
        }
    }
    done.tell(on);
}

fn two_at_once(on: On) {
    let done = Done::default();
    let trial = Trial::new(Scene::new(on), &done);
    trial.kill("staged=return");
    let run = trial.run();
    thread::scope(|scope| {
        let first =
            scope.spawn(|| trial.scene.pipeline_with(&["resume", FILE], &[("FAILPOINTS", "staged=sleep(15000)")]));
        trial.until_told("resumed");
        for arguments in [&["resume", FILE][..], &["resume", FILE, &run], &["run", FILE]] {
            is_refused(&trial.scene, arguments, 69, &[&run, "since", "hint: "]);
        }
        assert!(!first.is_finished(), "the first one was over before the others came");
        first.join().unwrap().passes();
    });
    trial.is_loaded("two resumed at once");
}

fn changed(on: On) {
    let done = Done::default();
    let trial = Trial::new(Scene::new(on), &done);
    trial.kill("staged=return");
    let run = trial.run();
    let place = &trial.scene.place;
    let (file, pipeline) = (place.text("child.csv"), place.text(FILE));
    place.write("child.csv", file.replace("child 2-1 of B", "child two"));
    is_refused(&trial.scene, &["resume", FILE], 77, &["`child.csv` of `child` was changed", &run, "hint: "]);
    place.write("child.csv", &file);
    place.write(FILE, pipeline.replace("    existing: skip\n", ""));
    is_refused(&trial.scene, &["resume", FILE], 77, &["the pipeline, or the schema", "hint: "]);
    place.write(FILE, &pipeline);
    // The cut-off run stands in the way of another one until it is ended.
    is_refused(&trial.scene, &["run", FILE], 75, &[&run, "pipeline resume", "pipeline rollback"]);
    trial.resume("changes that were taken back");
}

fn refused(on: On) {
    let done = Done::default();
    let trial = Trial::new(Scene::new(on), &done);
    is_refused(&trial.scene, &["resume", FILE], 64, &["interrupted or failed", "hint: "]);
    let nobody = "20200101T000000-beef";
    is_refused(&trial.scene, &["resume", FILE, nobody], 64, &["no run `20200101T000000-beef`", "hint: "]);
    trial.scene.pipeline(&["run", FILE]).passes();
    is_refused(&trial.scene, &["resume", FILE, &trial.run()], 77, &[&trial.run(), "cannot be resumed", "hint: "]);

    let trial = Trial::new(Scene::new(on), &done);
    trial.kill("staged=return");
    let run = trial.run();
    trial.written_by_a_newer_version(&run);
    for arguments in [&["resume", FILE][..], &["resume", FILE, &run], &["run", FILE]] {
        is_refused(&trial.scene, arguments, 78, &["newer format", "hint: "]);
    }
}

fn a_run_outside_production_is_abandoned_whatever_its_journal(on: On) {
    let done = Done::default();
    let trial = Trial::new(Scene::new(on), &done);
    trial.kill("staged=return");
    let run = trial.run();
    trial.written_by_a_newer_version(&run);
    for arguments in [&["rollback", FILE, &run, "--dry-run"][..], &["rollback", FILE, &run]] {
        let told = trial.scene.pipeline(arguments).passes().stdout.clone();
        assert!(told.contains("abandon") && told.contains("newer format"), "{told}");
    }
    trial.scene.pipeline(&["run", FILE]).passes();
}
