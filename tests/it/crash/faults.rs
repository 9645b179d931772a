//! What else may happen to a run: the server crashes, sessions are ended, the network fails, others write on.

use std::thread;

use super::{Done, Trial};
use crate::invariants::After;
use crate::proxy::{Cut, Proxy};
use crate::scene::{FILE, On, Scene};
use crate::server::Server;

#[test]
fn staging_that_a_server_crash_emptied_is_staged_again() {
    let server = Server::private(&[]);
    let done = Done::default();
    for at in ["staged=return", "inserting=return"] {
        let trial = Trial::new(Scene::on_server(&server), &done);
        trial.scene.write("load: { staging: always }\n");
        trial.kill(at);
        server.restart();
        let staged = trial.scene.rows("SELECT count(*) FROM staging.parent").remove(0).remove(0);
        assert_eq!(staged, "0", "the server kept what is unlogged");
        trial.resume("the server's crash");
    }
    done.tell(On::Postgres);
}

#[test]
fn staged_rows_that_are_not_the_deltas_are_staged_again() {
    let done = Done::default();
    for sql in [
        "UPDATE staging.child SET memo = 'another'",
        "UPDATE staging.ck_parent SET legacy_key = legacy_key || ' too'",
        "DELETE FROM staging.child WHERE _row = (SELECT min(_row) FROM staging.child)",
    ] {
        let trial = Trial::new(Scene::new(On::Postgres), &done);
        trial.scene.write("load: { staging: always }\n");
        trial.kill("staged=return");
        trial.scene.execute(sql);
        trial.resume(sql);
        let events = trial.scene.rows("SELECT kind FROM delta.event ORDER BY run, number").concat().join(" ");
        assert!(events.ends_with("staged resumed reserved staged committing committed verified"), "{sql}: {events}");
    }
    done.tell(On::Postgres);
}

#[test]
fn run_with_terminated_backends_is_resumed() {
    let done = Done::default();
    let trial = Trial::new(Scene::new(On::Postgres), &done);
    let database = trial.scene.database.as_ref().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| trial.scene.pipeline_with(&["run", FILE], &[("FAILPOINTS", "copying=sleep(3000)")]));
        trial.until_told("reserved");
        database.execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
            database.name
        ));
        let ran = run.join().unwrap();
        assert!([69, 75].contains(&ran.code), "{ran:?}");
    });
    trial.resume("its backends were terminated");

    let trial = Trial::new(Scene::new(On::Postgres), &done);
    trial.scene.write("load: { staging: always }\n");
    let proxy = Proxy::new(Server::shared().port, Cut::Copied(1000));
    let url = proxy.url(trial.scene.database.as_ref().unwrap());
    let ran = trial.scene.place.pipeline_with(&["run", FILE], &[("DATABASE_URL", &url)]);
    assert!(proxy.has_cut() && [69, 75].contains(&ran.code), "{ran:?}");
    trial.resume("the network failed");
}

#[test]
fn what_a_killed_run_holds_is_free_at_once() {
    for on in [On::Sqlite, On::Postgres] {
        let done = Done::default();
        let trial = Trial::new(Scene::new(on), &done);
        trial.kill("inserting=return");
        // Others write on meanwhile.
        trial.scene.execute("INSERT INTO parent (code, memo) VALUES ('LIVE', 'a live writer')");
        let key = trial.scene.rows("SELECT parent_id FROM parent WHERE code = 'LIVE'").remove(0).remove(0);
        trial.scene.pipeline(&["resume", FILE]).passes();
        let after = After::of(&trial.before, &trial.delta, &trial.scene, &[("parent", &key)], None);
        assert!(after.holds("with a live writer").loaded.is_some());
    }
}
