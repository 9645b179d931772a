//! The program is killed, by SIGKILL, at every point where it leaves something behind, and the run is resumed or rolled back: all
//! invariants hold then, and after a rollback production is as before, byte for byte.
//!
//! Each point once: `bash tests/run -- crash`. Fifty times each, with a second kill on the way back:
//! `PIPELINE_CRASH_ROUNDS=50 bash tests/run -- crash verdict`.

mod backup;
mod disk;
mod faults;
mod resume;
mod rollback;
mod statement;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::chain;
use crate::invariants::{After, Before};
use crate::scene::{Delta, FILE, On, Scene};
use crate::support::{Ran, Tables, tell};

/// A point at which the program is killed.
struct Point {
    /// The failpoint, and what it does the first times that it is come by.
    at: &'static str,
    what: &'static str,
    /// Whether a journal tells of the run already.
    noted: bool,
    /// Whether its rows are in production already.
    loaded: bool,
    /// Whether SQLite comes by, which has one COMMIT.
    on_sqlite: bool,
}

const fn point(at: &'static str, what: &'static str) -> Point {
    Point { at, what, noted: true, loaded: false, on_sqlite: true }
}

const POINTS: &[Point] = &[
    Point { noted: false, ..point("locked=return", "the lock is held") },
    point("started=return", "the plan is noted"),
    point("reserving=return", "the keys of one table are reserved"),
    point("reserved=return", "all keys are reserved"),
    point("cleaned=return", "staging is clean"),
    point("copying=return", "the first rows are copied"),
    point("copying=2*off->return", "the last table is copied"),
    point("staged=return", "everything is staged"),
    point("insertion opened=return", "the last transaction is begun"),
    point("inserting=return", "one table is inserted"),
    point("inserting=2*off->return", "all tables are inserted"),
    point("reconciled=return", "it is reconciled"),
    point("recorded=return", "the run's row is written, and COMMIT is not sent"),
    Point { on_sqlite: false, ..point("key map committed=return", "the mappings are committed, and the rows are not") },
    Point { loaded: true, ..point("committed=return", "it is committed, and the journal's copy does not tell") },
    Point { loaded: true, ..point("read back=return", "it is read back, and no journal tells") },
];

/// Those that a target comes by.
fn points(on: On) -> impl Iterator<Item = &'static Point> {
    POINTS.iter().filter(move |point| on == On::Postgres || point.on_sqlite)
}

/// What was done, for the last line of a test.
#[derive(Default)]
struct Done {
    kills: AtomicUsize,
    resumes: AtomicUsize,
    rollbacks: AtomicUsize,
    runs: AtomicUsize,
}

impl Done {
    fn tell(&self, on: On) {
        let [kills, resumes, rollbacks, runs] =
            [&self.kills, &self.resumes, &self.rollbacks, &self.runs].map(|count| count.load(Ordering::SeqCst));
        tell(&format!(
            "crash, {on:?}: {kills} kills, {resumes} resumes, {rollbacks} rollbacks, {runs} runs anew; all invariants held"
        ));
    }
}

fn rounds() -> usize {
    std::env::var("PIPELINE_CRASH_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number"))
}

/// A scene with a delta that is to be loaded, and what was before.
struct Trial<'a> {
    scene: Scene,
    delta: Delta,
    before: Before,
    production: Tables,
    dump: String,
    done: &'a Done,
}

impl<'a> Trial<'a> {
    fn new(scene: Scene, done: &'a Done) -> Self {
        let delta = Delta::new("B", 14, Some("A"));
        scene.give(&delta);
        let (before, production, dump) = (Before::of(&scene), scene.production(), scene.dump());
        Self { scene, delta, before, production, dump, done }
    }

    /// Runs a command that is killed on its way; false where it never comes to the point and is done instead.
    fn is_killed(&self, arguments: &[&str], at: &str) -> bool {
        let ran = self.scene.pipeline_with(arguments, &[("FAILPOINTS", at)]);
        assert!(ran.code == -9 || ran.code == 0, "{arguments:?} at {at:?}: {ran:?}");
        self.done.kills.fetch_add(usize::from(ran.code == -9), Ordering::SeqCst);
        ran.code == -9
    }

    fn kill(&self, at: &str) {
        assert!(self.is_killed(&["run", FILE], at), "it never comes to {at:?}");
    }

    /// Kills the run; all of it is there then, or nothing. Only the journal's copy may be an entry ahead.
    fn kill_at(&self, point: &Point) {
        self.kill(point.at);
        let mut after = After::of(&self.before, &self.delta, &self.scene, &[], None);
        after.violations.retain(|violation| violation.invariant != 6);
        assert_eq!(after.holds(point.what).loaded.is_some(), point.loaded, "{}", point.what);
    }

    /// The run that the journal tells of beside the earlier ones.
    fn run(&self) -> String {
        let kept = chain::kept(&self.scene);
        let new = kept.iter().rev().find(|entry| !self.before.has_run(&entry.run));
        new.expect("the journal tells of the run").run.clone()
    }

    /// Waits until the journal tells of an event of the run.
    fn until_told(&self, kind: &str) {
        let begun = Instant::now();
        let is_told = |entry: &chain::Kept| entry.kind == kind && !self.before.has_run(&entry.run);
        while !chain::kept(&self.scene).iter().any(is_told) {
            assert!(begun.elapsed() < Duration::from_mins(1), "{kind} never happens");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes the run's journal one of a newer version, with a chain that holds.
    fn written_by_a_newer_version(&self, run: &str) {
        let mut chain = String::new();
        for entry in chain::kept(&self.scene).iter().filter(|entry| entry.run == run) {
            let text = entry.entry.replacen("\"version\":1", "\"version\":99", 1);
            chain = chain::link(&chain, &text);
            self.scene.execute(&format!(
                "UPDATE {} SET entry = '{}', chain = '{chain}' WHERE run = '{run}' AND number = {}",
                self.scene.control("event"),
                text.replace('\'', "''"),
                entry.number
            ));
        }
    }

    /// Goes on with the run: it is there then, once, and nothing else is changed.
    fn resume(&self, what: &str) {
        let ran = self.scene.pipeline(&["resume", FILE]);
        assert_eq!(ran.code, 0, "resuming after {what}: {ran:?}");
        self.done.resumes.fetch_add(1, Ordering::SeqCst);
        self.is_loaded(&format!("resumed after {what}"));
    }

    /// Goes on with the run if a journal tells of it, and runs anew if none does.
    fn go_on(&self, what: &str) {
        match chain::kept(&self.scene).iter().any(|entry| !self.before.has_run(&entry.run)) {
            true => self.resume(what),
            false => self.run_anew(what),
        }
    }

    fn is_loaded(&self, what: &str) {
        let again = || self.scene.pipeline(&["run", FILE]);
        let after = After::of(&self.before, &self.delta, &self.scene, &[], Some(&again));
        assert!(after.holds(what).loaded.is_some(), "nothing is loaded, {what}");
    }

    /// Takes the run back: production is as before, to the byte.
    fn roll_back(&self, what: &str) {
        let run = self.run();
        let ran = self.scene.pipeline(&["rollback", FILE, &run]);
        assert_eq!(ran.code, 0, "rolling back after {what}: {ran:?}");
        self.done.rollbacks.fetch_add(1, Ordering::SeqCst);
        self.is_taken_back(what);
    }

    fn is_taken_back(&self, what: &str) {
        After::of_taken_back(&self.before, &self.scene).holds(&format!("rolled back after {what}"));
        assert_eq!(self.scene.dump(), self.dump, "rolled back after {what}");
        assert_eq!(self.scene.production(), self.production, "rolled back after {what}");
    }

    /// The same delta may come again; it gets other keys.
    fn run_anew(&self, what: &str) {
        let before = Before::of(&self.scene);
        self.scene.pipeline(&["run", FILE]).passes();
        self.done.runs.fetch_add(1, Ordering::SeqCst);
        let again = || self.scene.pipeline(&["run", FILE]);
        let after = After::of(&before, &self.delta, &self.scene, &[], Some(&again));
        assert!(after.holds(&format!("run anew after {what}")).loaded.is_some());
    }
}

/// Holds that a command is refused with a code and texts, and changes nothing.
fn is_refused(scene: &Scene, arguments: &[&str], code: i32, texts: &[&str]) -> Ran {
    let before = (scene.production(), scene.remembered());
    let ran = scene.pipeline(arguments);
    ran.fails(code, texts);
    assert_eq!(before, (scene.production(), scene.remembered()), "{arguments:?} changed something");
    ran
}
