//! The network fails around a COMMIT: what the program says of its run is what the database has.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::invariants::{After, Before};
use crate::proxy::{Cut, Proxy};
use crate::scene::{Delta, FILE, On, Scene};
use crate::server::Server;
use crate::support::{Ran, tell};

/// How many cuts there are: 24, or four times as many as `PIPELINE_CRASH_ROUNDS` says.
fn tries() -> usize {
    std::env::var("PIPELINE_CRASH_ROUNDS").map_or(24, |rounds| 4 * rounds.parse::<usize>().unwrap())
}

/// A commit that takes its time, and fails where the test says so. A load checks all constraints before it notes the run: this one
/// is put off again.
const SLOW_COMMIT: &str = "CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_WHEN = 'BEFORE' THEN
            SET CONSTRAINTS delta.slowly DEFERRED;
            RETURN NEW;
        END IF;
        PERFORM pg_sleep(0.3);
        IF current_setting('test.fails', true) = 'yes' THEN RAISE EXCEPTION 'this commit fails'; END IF;
        RETURN NULL; END $$;
    CREATE TRIGGER first BEFORE INSERT ON delta.run FOR EACH ROW EXECUTE FUNCTION public.slowly();
    CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON delta.run DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION public.slowly()";

/// What the program says of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Loaded,
    Nothing,
    Unknown,
}

impl Said {
    fn by(ran: &Ran) -> Self {
        match ran.code {
            0 => Self::Loaded,
            69 | 75 if ran.stderr.contains("nothing was loaded") => Self::Nothing,
            75 if ran.stderr.contains("is not known") => Self::Unknown,
            _ => panic!("no verdict: {ran:?}"),
        }
    }
}

#[test]
fn cut_around_the_commit_always_gives_the_right_verdict() {
    let cuts = [Cut::BeforeCommit, Cut::InCommit, Cut::AfterCommit];
    let told: Mutex<BTreeMap<(String, Said), usize>> = Mutex::default();
    thread::scope(|scope| {
        for (lane, cut) in cuts.into_iter().enumerate() {
            let told = &told;
            scope.spawn(move || {
                let scene = Scene::new(On::Postgres);
                scene.execute(SLOW_COMMIT);
                let mut loaded = "A".to_owned();
                for number in (lane..tries()).step_by(cuts.len()) {
                    let fails = ["no", "yes"][number % 2];
                    let database = &scene.database.as_ref().unwrap().name;
                    scene.execute(&format!("ALTER DATABASE {database} SET test.fails = '{fails}'"));
                    let name = format!("N{number}");
                    let said = cut_once(&scene, cut, &name, &loaded);
                    if said == Said::Loaded {
                        loaded = name;
                    }
                    *told.lock().unwrap().entry((format!("{cut:?}"), said)).or_default() += 1;
                }
            });
        }
    });
    let told = told.into_inner().unwrap();
    for ((cut, said), count) in &told {
        eprintln!("{cut}: {count} times {said:?}, and so it was");
    }
    tell(&format!("{} cuts around COMMIT, {} right verdicts", tries(), told.values().sum::<usize>()));
    assert!(told.keys().all(|(_, said)| *said != Said::Unknown), "the server was there to be asked: {told:?}");
}

/// Loads a delta through a network that fails; what the program said, which was right.
fn cut_once(scene: &Scene, cut: Cut, name: &str, before: &str) -> Said {
    let delta = Delta::new(name, 8, Some(before));
    scene.give(&delta);
    let state = Before::of(scene);
    let proxy = Proxy::new(Server::shared().port, cut);
    let url = proxy.url(scene.database.as_ref().unwrap());
    let ran = scene.place.pipeline_with(&["run", FILE], &[("DATABASE_URL", &url)]);
    assert!(proxy.has_cut(), "{cut:?} never came: {ran:?}");
    let said = Said::by(&ran);
    let again = || scene.pipeline(&["run", FILE]);
    let after = After::of(&state, &delta, scene, &[], Some(&again));
    after.holds(&format!("{cut:?}, and {ran:?}"));
    let is_loaded = after.loaded.is_some();
    let right = match said {
        Said::Loaded => is_loaded,
        Said::Nothing => !is_loaded,
        Said::Unknown => true,
    };
    assert!(right, "{cut:?}: it is loaded: {is_loaded}; and it said {ran:?}");
    said
}

#[test]
fn stalled_network_leaves_nothing_and_run_repeats() {
    let scene = Scene::new(On::Postgres);
    scene.write("load: { staging: always }\n");
    for (name, cut) in [("S", Cut::Stalled(Duration::from_secs(2))), ("C", Cut::Copied(1)), ("D", Cut::Copied(1000))] {
        assert_eq!(cut_once(&scene, cut, name, "A"), Said::Nothing, "{cut:?}");
        let delta = Delta::new(name, 8, Some("A"));
        let before = Before::of(&scene);
        scene.pipeline(&["run", FILE]).passes();
        let again = || scene.pipeline(&["run", FILE]);
        assert!(After::of(&before, &delta, &scene, &[], Some(&again)).holds(name).loaded.is_some());
    }
}
