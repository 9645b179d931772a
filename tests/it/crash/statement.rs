//! The program is killed while a statement of it runs in the target.

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::{Done, Trial, rounds};
use crate::production::{Holder, until};
use crate::scene::{FILE, On, Scene};

each_target! {
    a_run_that_is_killed_inside_one_statement_is_resumed_or_rolled_back => inside;
}

/// A trigger of production in which the insertion of one row of the delta takes as long as `pace` says, and how that is said.
fn slow_row(on: On) -> &'static str {
    on.choose(
        "CREATE TABLE pace (n INTEGER);
         INSERT INTO pace VALUES (0);
         CREATE TRIGGER slow BEFORE INSERT ON part WHEN NEW.memo = 'part 3 of child 14-2 of B' BEGIN
             SELECT (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < (SELECT pace.n FROM pace))
                 SELECT count(*) FROM c); END",
        "CREATE SCHEMA tempo;
         CREATE TABLE tempo.pace (n bigint);
         INSERT INTO tempo.pace VALUES (0);
         GRANT USAGE ON SCHEMA tempo TO PUBLIC;
         GRANT SELECT ON tempo.pace TO PUBLIC;
         CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_sleep(p.n) FROM tempo.pace AS p; RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON part FOR EACH ROW WHEN (NEW.memo = 'part 3 of child 14-2 of B') EXECUTE FUNCTION slowly()",
    )
}

fn inside(on: On) {
    let done = Done::default();
    let slow = Scene::new(on);
    slow.execute(slow_row(on));
    for round in 0..rounds() {
        for (at, head) in ["", "load: { staging: always }\n"].into_iter().enumerate() {
            let trial = Trial::new(slow.copied(), &done);
            trial.scene.write(head);
            let set_pace =
                |n: u32| trial.scene.execute(&format!("UPDATE {} SET n = {n}", on.choose("pace", "tempo.pace")));
            set_pace(on.choose(1_000_000_000, 600));
            kill_inside(&trial);
            set_pace(0);
            go_on(&trial, round + at, &format!("a kill inside a statement, {head:?}"));
        }
        // Where triggers rest, a statement waits for another session.
        if on == On::Postgres {
            let scene = Scene::new(on);
            scene.write("load: { foreign_keys: set_based, staging: always }\n");
            scene.pipeline(&["setup", FILE]).passes();
            let trial = Trial::new(scene, &done);
            let other = Holder::new(&trial.scene.url());
            other.execute("BEGIN; INSERT INTO parent (code) VALUES ('B-5')");
            kill_inside(&trial);
            other.execute("ROLLBACK");
            go_on(&trial, round, "a kill inside a statement that waits");
        }
    }
    done.tell(on);
}

/// Kills a run as soon as it is inside the slow statement, and waits until the server has seen that nobody waits for that any more.
fn kill_inside(trial: &Trial) {
    let mut run = trial.scene.command(&[], &["run", FILE]).stdout(Stdio::null()).spawn().unwrap();
    let is_in_it = "application_name ~ '^(pipeline|run )' AND state = 'active' AND (wait_event = 'PgSleep' OR wait_event_type = 'Lock')";
    let sessions = |how: &str, count: &str| {
        format!("SELECT {count} FROM pg_stat_activity WHERE datname = current_database() AND {how}")
    };
    match &trial.scene.database {
        Some(database) => until(database, &sessions(is_in_it, "count(*) > 0")),
        // What comes before that row takes a fraction of this, and the row itself many times as much.
        None => {
            trial.until_told("started");
            thread::sleep(Duration::from_secs(4));
        }
    }
    assert_eq!(run.try_wait().unwrap(), None, "it was over before");
    run.kill().unwrap();
    run.wait().unwrap();
    trial.done.kills.fetch_add(1, Ordering::SeqCst);
    if let Some(database) = &trial.scene.database {
        until(database, &sessions("application_name ~ '^(pipeline|run )'", "count(*) = 0"));
    }
}

fn go_on(trial: &Trial, turn: usize, what: &str) {
    if turn.is_multiple_of(2) {
        trial.resume(what);
    } else {
        trial.roll_back(what);
        trial.run_anew(what);
    }
}
