//! Conversion mode and window: nothing is written while they do not let it, by the target's clock and whoever runs it.

use std::fmt::Write as _;
use std::time::Duration;

use delta_pipeline::internals::error::Kind;
use delta_pipeline::internals::progress::{Listener, Progress, Step};
use delta_pipeline::internals::run::{self, CommandOptions, LoadOptions, RunContext};
use delta_pipeline::internals::safeguard::Window;
use delta_pipeline::internals::target::Access;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::production::{Holder, PASSWORD, Production, SQL, kept};
use crate::server::Server;
use crate::support::{Place, Ran, assert_same, number, strings};

/// The codes of a right that is missing, and of a lock that is not given.
const NO_RIGHT: &str = "42501";
const NO_LOCK: &str = "55P03";

/// A production in PostgreSQL, set up, whose pipeline says this of its safeguards.
fn guarded(safeguards: &str) -> Production {
    let production = Production::new(Server::shared(), SQL, &format!("safeguards: {safeguards}\n"));
    production.set_up();
    production
}

/// A production in SQLite with a delta of two rows for it, whose pipeline says this of its safeguards.
fn guarded_file(safeguards: &str) -> Place {
    let place = Place::new();
    place.database(
        "p.db",
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL); INSERT INTO item VALUES (1, 'old');",
    );
    write_file(&place, safeguards);
    place.write("item.csv", "ref,name\nA,a\nB,b\n");
    place
}

fn write_file(place: &Place, safeguards: &str) {
    let text = format!(
        "version: 1\nname: small\ntarget: {{ url: 'sqlite:p.db' }}\nsafeguards: {safeguards}\ntables:\n  item:\n    source: {{ path: item.csv }}\n    legacy_key: [ref]\n    key: {{ column: id }}\n"
    );
    place.write("p.yaml", text);
}

fn items(place: &Place) -> i64 {
    number(&place.open("p.db"), "SELECT count(*) FROM item")
}

/// A window in UTC from so many hours from now on, to so many.
fn window(from: i64, to: i64) -> String {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let clock = |hours: i64| now.checked_add(hours.hours()).unwrap().strftime("%H:%M").to_string();
    format!("{{ from: \"{}\", to: \"{}\", timezone: UTC }}", clock(from), clock(to))
}

#[test]
fn nothing_is_written_to_postgresql_without_conversion_mode() {
    let production = guarded("{}");
    production.place.write("map.csv", "legacy_key,account_id\nX-1,1\n");
    let (before, files) = (production.kept(), production.place.files());
    let import = ["keymap", "import", "p.yaml", "map.csv", "--table", "account"];
    for arguments in [&["run", "p.yaml"][..], &import] {
        let hint = "hint: nothing was written; switch it on with `pipeline mode on p.yaml --for 2h --reason …`";
        production.pipeline(arguments).fails(77, &["is not in conversion mode: it was never switched on", hint]);
    }
    let keys = production.database.number("SELECT count(*) FROM delta.block");
    assert_eq!((keys, production.place.files()), (0, files));
    assert_same(&production.kept(), &before);

    // What writes nothing that stays is not bound.
    for command in ["check", "validate", "plan"] {
        production.pipeline(&[command, "p.yaml"]).passes();
    }
    let plan = production.pipeline(&["plan", "p.yaml"]).stdout;
    assert!(plan.contains("note: conversion mode is off (it was never switched on)"), "{plan}");
}

#[test]
fn a_run_ends_the_mode_that_let_it_in_unless_it_is_kept() {
    let production = guarded("{}");
    let pipeline = |arguments: &[&str]| production.pipeline(arguments).passes().stdout.clone();
    let status = || pipeline(&["mode", "status", "p.yaml"]);
    assert!(status().ends_with("is off: it was never switched on\n"), "{}", status());

    let on = pipeline(&["mode", "on", "p.yaml", "--for", "2h", "--reason", "the village of Lindtal"]);
    assert!(on.contains(" is on until ") && on.contains("(2 h left), or until the next run ends\n"), "{on}");
    assert!(on.contains("  postgres switched it on ") && on.contains(": the village of Lindtal\n"), "{on}");
    assert!(pipeline(&["plan", "p.yaml"]).contains("note: conversion mode is on for 2 h"));
    production.loads();
    let run = production.database.text("SELECT id FROM delta.run");
    assert!(status().contains(&format!("is off: run {run} ended it ")), "{}", status());
    production.delta("Q", 10);
    production.pipeline(&["run", "p.yaml"]).fails(77, &["not in conversion mode", &format!("run {run} ended it")]);

    let kept = pipeline(&["mode", "on", "p.yaml", "--for", "90min", "--reason", "two villages", "--keep"]);
    assert!(kept.contains("even after a run ends (--keep)"), "{kept}");
    production.loads();
    production.delta("R", 10);
    production.loads();
    let off = pipeline(&["mode", "off", "p.yaml", "--reason", "all there"]);
    assert!(off.contains("is off: postgres switched it off ") && off.contains(": all there\n"), "{off}");
    production.delta("S", 10);
    production.pipeline(&["run", "p.yaml"]).fails(77, &["postgres switched it off", ": all there"]);
    // Once more changes nothing, and a history stays.
    assert_eq!(pipeline(&["mode", "off", "p.yaml"]), off);
    assert_eq!(production.database.number("SELECT count(*) FROM delta.mode WHERE ended_at IS NOT NULL"), 2);

    pipeline(&["mode", "on", "p.yaml", "--for", "1h", "--reason", "one"]);
    pipeline(&["mode", "on", "p.yaml", "--for", "3h", "--reason", "two"]);
    let json = pipeline(&["mode", "status", "p.yaml", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["on"], &json["required"], &json["last"]["reason"]), (&true.into(), &true.into(), &"two".into()));
    let first = "SELECT ended_reason FROM delta.mode WHERE reason = 'one'";
    assert_eq!(production.database.text(first), "it was switched on again");
}

#[test]
fn loader_cannot_grant_itself_and_the_server_holds_it() {
    let production = guarded("{}");
    let loader = production.login("loader", "IN ROLE delta_loader");
    let on = ["mode", "on", "p.yaml", "--for", "2h", "--reason", "me"];
    let refused = production.pipeline_at(&loader, &on);
    refused.fails(
        77,
        &[
            "cannot switch conversion mode",
            "hint: run it as the owner of the schema `delta` or a member of delta_rollback",
        ],
    );
    production.pipeline(&on).passes();
    let login = Holder::new(&loader);
    for role in ["RESET ROLE", "SET ROLE delta_loader"] {
        login.execute(role);
        for sql in [
            "INSERT INTO delta.mode (since, until, switched_by, reason, keep) VALUES (now(), now() + interval '1 day', 'x', 'x', true)",
            "UPDATE delta.mode SET until = until + interval '1 day'",
            "UPDATE delta.mode SET keep = true",
            "DELETE FROM delta.mode",
            "TRUNCATE delta.mode",
            "SELECT delta.switch_mode(3600, 'x', true)",
            "SELECT delta.switch_mode(NULL, 'x', false)",
            "SET ROLE delta_rollback",
        ] {
            let (code, message) = login.run(sql).expect_err(sql);
            assert_eq!(code, NO_RIGHT, "{sql}: {message}");
        }
        login.execute("SELECT * FROM delta.mode");
    }
    let told = production.pipeline_at(&loader, &["mode", "status", "p.yaml"]);
    assert!(told.passes().stdout.contains(" is on until "), "{}", told.stdout);
    // What he may: load, and so end it.
    production.pipeline_at(&loader, &["run", "p.yaml"]).passes();
    production.pipeline_at(&loader, &["mode", "off", "p.yaml"]).fails(77, &["cannot switch conversion mode"]);
    let told = production.pipeline_at(&loader, &["mode", "status", "p.yaml"]);
    assert!(told.stdout.contains(" is off: run "), "{}", told.stdout);
}

#[test]
fn members_of_the_rollback_role_switch_it_under_their_own_names() {
    let production = guarded("{}");
    for (name, options) in [("dba", "IN ROLE delta_rollback"), ("dbb", "NOINHERIT IN ROLE delta_rollback")] {
        let url = production.login(name, options);
        let on = production.pipeline_at(&url, &["mode", "on", "p.yaml", "--for", "2h", "--reason", "mine"]);
        let said = format!("_{name} switched it on ");
        assert!(on.passes().stdout.contains(&said), "{}", on.stdout);
        let off = production.pipeline_at(&url, &["mode", "off", "p.yaml"]);
        assert!(off.passes().stdout.contains(&format!("_{name} switched it off ")), "{}", off.stdout);
    }
    let stranger = production.login("stranger", "");
    let refused = production.pipeline_at(&stranger, &["mode", "on", "p.yaml", "--for", "2h", "--reason", "mine"]);
    assert_eq!(refused.code, 77, "{refused:?}");
    assert!(!refused.stderr.contains(PASSWORD));
    for more in [&["--for", "0s", "--reason", "x"][..], &["--for", "2h", "--reason", " "], &["--for", "2h"]] {
        let ran = production.pipeline(&[&["mode", "on", "p.yaml"], more].concat());
        assert_eq!(ran.code, 64, "{ran:?}");
    }
}

#[test]
fn a_target_without_a_control_schema_has_no_mode_to_switch() {
    let production = Production::new(Server::shared(), SQL, "safeguards: {}\n");
    let off = production.pipeline(&["mode", "status", "p.yaml"]);
    assert!(off.passes().stdout.contains("it was never switched on"), "{}", off.stdout);
    production
        .pipeline(&["mode", "on", "p.yaml", "--for", "2h", "--reason", "x"])
        .fails(78, &["hint: `pipeline setup FILE` creates the schema `delta`"]);
}

/// A library that moves this machine's clock for a program by as many seconds as `CLOCK_SHIFT` says.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    const char *shift = getenv("CLOCK_SHIFT");
    if (id == CLOCK_REALTIME && shift) now->tv_sec += atoll(shift);
    return result;
}
"#;

/// Makes that library in a place, and gives what a program's environment needs for a shift.
fn clock(place: &Place) -> impl Fn(i64) -> [(&'static str, String); 2] {
    place.write("clock.c", CLOCK);
    let library = place.path("clock.so");
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(place.path("clock.c")).arg("-ldl");
    assert!(compiler.status().unwrap().success());
    let library = library.display().to_string();
    move |seconds| [("LD_PRELOAD", library.clone()), ("CLOCK_SHIFT", seconds.to_string())]
}

const DAY: i64 = 86_400;

#[test]
fn on_sqlite_the_mode_ends_at_its_time_by_this_machines_clock() {
    let place = guarded_file("{ conversion_mode: required }");
    let clock = clock(&place);
    let shifted = |seconds: i64, arguments: &[&str]| -> Ran {
        let variables = clock(seconds);
        place.pipeline_with(arguments, &variables.each_ref().map(|(name, value)| (*name, value.as_str())))
    };
    let before = place.everything("p.db");
    place
        .pipeline(&["run", "p.yaml"])
        .fails(77, &["`sqlite:p.db` is not in conversion mode: it was never switched on"]);
    assert_same(&place.everything("p.db"), &before);
    place.pipeline(&["mode", "off", "p.yaml"]).passes();
    assert_same(&place.everything("p.db"), &before);

    place.pipeline(&["mode", "on", "p.yaml", "--for", "2h", "--reason", "a night"]).passes();
    let status = shifted(DAY, &["mode", "status", "p.yaml"]).passes().stdout.clone();
    assert!(status.contains("conversion mode of sqlite:p.db is off: it expired "), "{status}");
    shifted(DAY, &["run", "p.yaml"]).fails(77, &["it expired"]);
    let plan = shifted(DAY, &["plan", "p.yaml"]).passes().stdout.clone();
    assert!(plan.contains("conversion mode is off (it expired"), "{plan}");
    assert_eq!(items(&place), 1);
    shifted(3600, &["run", "p.yaml"]).passes();
    assert_eq!(items(&place), 3);
    let status = shifted(3600, &["mode", "status", "p.yaml"]).passes().stdout.clone();
    assert!(status.contains(" is off: run "), "{status}");
    // The history's table is ours, and no table of production.
    assert!(strings(&place.open("p.db"), "SELECT name FROM delta_object").contains(&"delta_mode".to_owned()));
    place.pipeline(&["check", "p.yaml"]).passes();
}

#[test]
fn on_postgresql_a_clock_change_of_this_machine_does_not_matter() {
    let production = guarded(&format!("{{ window: {} }}", window(-2, 3)));
    let clock = clock(&production.place);
    let url = production.database.local_url("postgres");
    let shifted = |seconds: i64, arguments: &[&str]| -> Ran {
        let [(preload, library), (shift, seconds)] = clock(seconds);
        let variables = [("DATABASE_URL", url.as_str()), (preload, library.as_str()), (shift, seconds.as_str())];
        production.place.pipeline_with(arguments, &variables)
    };
    shifted(-300 * DAY, &["mode", "on", "p.yaml", "--for", "2h", "--reason", "a night", "--keep"]).passes();
    for (number, shift) in [-DAY, DAY / 2, 400 * DAY].into_iter().enumerate() {
        production.delta(&format!("S{number}"), 10);
        shifted(shift, &["run", "p.yaml"]).passes();
    }
    // The server's clock alone ends it.
    production.database.execute("UPDATE delta.mode SET until = clock_timestamp()");
    production.delta("T", 10);
    for shift in [0, -DAY, DAY] {
        shifted(shift, &["run", "p.yaml"]).fails(77, &["not in conversion mode: it expired"]);
        let status = shifted(shift, &["mode", "status", "p.yaml"]).passes().stdout.clone();
        assert!(status.contains("is off: it expired"), "{status}");
    }
    assert_eq!(production.count("account"), 5 + 30);
}

#[test]
fn sqlite_asks_for_no_mode_unless_the_file_does() {
    let place = guarded_file("{}");
    let before = place.everything("p.db");
    let status = place.pipeline(&["mode", "status", "p.yaml"]).passes().stdout.clone();
    assert!(
        status.contains("it was never switched on\n  neither the target nor this pipeline file requires it\n"),
        "{status}"
    );
    assert_same(&place.everything("p.db"), &before);
    place.pipeline(&["run", "p.yaml"]).passes();

    let (sqlite, postgres) = (Place::samples(), Place::samples());
    let database = Server::shared().database("");
    for place in [&sqlite, &postgres] {
        let required =
            place.text("pipelines/customer-delta.yaml").replace("conversion_mode: off", "conversion_mode: required");
        place.write("pipelines/customer-delta.yaml", required);
    }
    let run = ["run", "pipelines/customer-delta.yaml"];
    // Where there is no database, none is made to switch a mode in it.
    let on = ["mode", "on", "pipelines/customer-delta.yaml", "--for", "2h", "--reason", "x"];
    sqlite.pipeline(&on).fails(69, &["cannot find database"]);
    assert!(!sqlite.path("pipelines/customer.db").exists());
    sqlite.pipeline(&run).passes();
    sqlite.pipeline(&run).fails(77, &["not in conversion mode"]);
    let at = |arguments: &[&str]| postgres.pipeline_with(arguments, &[("DATABASE_URL", &database.url())]);
    assert_eq!(at(&on).code, 78);
    assert_eq!(database.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), 0);
    at(&run).passes();
    at(&run).fails(77, &["not in conversion mode"]);
}

#[test]
fn run_begins_inside_its_window_or_names_the_next() {
    let (open, closed) = (format!("{{ window: {} }}", window(-2, 3)), format!("{{ window: {} }}", window(2, 3)));
    let place = guarded_file(&closed);
    let (before, files) = (place.everything("p.db"), place.files());
    let refused = place.pipeline(&["run", "p.yaml"]);
    refused.fails(
        77,
        &[
            "the window is closed; it opens ",
            " UTC, in ",
            "hint: nothing was written; `safeguards.window` is ",
            "nothing was written",
        ],
    );
    assert_same(&place.everything("p.db"), &before);
    assert_eq!(place.files(), files);
    for command in ["check", "validate", "plan"] {
        place.pipeline(&[command, "p.yaml"]).passes();
    }
    let plan = place.pipeline(&["plan", "p.yaml"]).stdout;
    assert!(plan.contains("note: the window is closed; it opens "), "{plan}");
    write_file(&place, &open);
    let plan = place.pipeline(&["plan", "p.yaml"]).stdout;
    assert!(plan.contains("note: the window is open until ") && plan.contains(" UTC, for "), "{plan}");
    place.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(items(&place), 3);

    let production = guarded(&closed);
    let before = kept(&production.database);
    // All that is in the way is told at once.
    let refused = production.pipeline(&["run", "p.yaml"]);
    refused.fails(77, &["the window is closed; it opens ", "; and `", "is not in conversion mode", "pipeline mode on"]);
    assert_same(&kept(&production.database), &before);
    production.require_no_mode();
    production.write(&format!("safeguards: {{ conversion_mode: off, window: {} }}\n", window(-2, 3)));
    production.pipeline(&["run", "p.yaml"]).passes();
}

#[test]
fn a_mock_run_is_bound_by_neither_and_ends_no_mode() {
    let closed = window(2, 3);
    let place = guarded_file(&format!("{{ conversion_mode: required, window: {closed} }}"));
    let before = place.everything("p.db");
    place.pipeline(&["run", "p.yaml", "--mock"]).passes();
    assert_same(&place.everything("p.db"), &before);
    place.pipeline(&["run", "p.yaml"]).fails(77, &["the window is closed", "not in conversion mode"]);

    let production = guarded(&format!("{{ window: {closed} }}"));
    let before = production.kept();
    production.pipeline(&["run", "p.yaml", "--mock"]).passes();
    assert_same(&production.kept(), &before);
    production.pipeline(&["mode", "on", "p.yaml", "--for", "2h", "--reason", "a night"]).passes();
    production.pipeline(&["run", "p.yaml", "--mock"]).passes();
    assert_eq!(production.database.number("SELECT count(*) FROM delta.mode WHERE ended_at IS NULL"), 1);
}

#[test]
fn impossible_window_is_a_problem_with_its_line() {
    let place = guarded_file("{ window: { days: [sat, so], from: \"24:00\", to: \"06:00\", timezone: Europe/Belin } }");
    let checked = place.pipeline(&["check", "p.yaml"]);
    let texts =
        ["p.yaml:4:", "unknown value `so`", "a time of day from `00:00` to `23:59`", "did you mean `Europe/Berlin`?"];
    checked.fails(78, &texts);
    write_file(&place, "{ window: { days: [], from: \"06:00\", to: \"06:00\", timezone: UTC } }");
    place
        .pipeline(&["check", "p.yaml"])
        .fails(78, &["a window without days never opens", "from 06:00 to 06:00 never opens"]);
    write_file(&place, "{ window: { from: 22:00, to: 06:00, timezone: UTC }, conversion_mode: no }");
    place.pipeline(&["check", "p.yaml"]).fails(78, &["conversion_mode", "`off`"]);
}

/// Does something once, when a step begins.
struct At<F>(Step, F);

impl<F: Fn() + Send + Sync> Listener for At<F> {
    fn on_progress(&self, event: &Progress) {
        if matches!(event, Progress::Began(step) if *step == self.0) {
            self.1();
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs while the window closes on the way, and gives how it ended. A machine that stands still for a while comes too late to begin, and
/// tries again.
fn run_while_the_window_closes(request: &CommandOptions) -> (Kind, String) {
    for seconds in [3, 10, 60] {
        let runtime = runtime();
        let mut session = runtime.block_on(RunContext::open(request, Access::Write)).unwrap();
        let all = [
            Weekday::Monday,
            Weekday::Tuesday,
            Weekday::Wednesday,
            Weekday::Thursday,
            Weekday::Friday,
            Weekday::Saturday,
            Weekday::Sunday,
        ];
        let closes = Timestamp::now() + SignedDuration::from_secs(seconds);
        let shown = |moment: Timestamp| -> Time { moment.to_zoned(TimeZone::UTC).time() };
        session.safeguards.window = Some(Window::new(all, shown(closes - 3.hours()), shown(closes), TimeZone::UTC));
        let wait = || {
            while Timestamp::now() <= closes {
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        let error = runtime.block_on(run::run(&session, LoadOptions::default(), &At(Step::Stage, wait))).unwrap_err();
        if error.kind() != Kind::Refused {
            let mut text = error.to_string();
            write!(text, "; hint: {}", error.next_step().unwrap_or_default()).unwrap();
            return (error.kind(), text);
        }
    }
    panic!("this machine never begins in time");
}

#[test]
fn run_at_the_end_of_its_window_stops_before_the_insertion() {
    let place = guarded_file("{}");
    let before = place.production("p.db");
    let (kind, said) = run_while_the_window_closes(&CommandOptions::new(place.path("p.yaml")));
    assert_same(&place.production("p.db"), &before);
    let production = guarded("{ conversion_mode: off }");
    let before = production.kept();
    let (other_kind, other) = run_while_the_window_closes(&production.request());
    assert_same(&production.kept(), &before);
    for (kind, said, file) in [(kind, said, place.path("p.yaml")), (other_kind, other, production.place.path("p.yaml"))]
    {
        assert_eq!(kind, Kind::Interrupted, "{said}");
        assert!(said.contains("the window closed before the insertion: production is unchanged"), "{said}");
        let resume = format!("run `pipeline resume {} 20", file.display());
        assert!(
            said.contains("once the window opens (") && said.contains(" UTC, in 21 h), ") && said.contains(&resume),
            "{said}"
        );
    }
    place.pipeline(&["resume", "p.yaml"]).passes();
    production.pipeline(&["resume", "p.yaml"]).passes();
}

fn run_with(request: &CommandOptions, step: Step, does: impl Fn() + Send + Sync) -> Result<(), (Kind, String)> {
    let runtime = runtime();
    let session = runtime.block_on(RunContext::open(request, Access::Write)).unwrap();
    let ran = runtime.block_on(run::run(&session, LoadOptions::default(), &At(step, does)));
    ran.map(drop).map_err(|error| (error.kind(), format!("{error}; {}", error.next_step().unwrap_or_default())))
}

#[test]
fn mode_that_ends_early_stops_before_the_insertion() {
    let on = ["mode", "on", "p.yaml", "--for", "2h", "--reason", "a night"];
    let place = guarded_file("{ conversion_mode: required }");
    place.pipeline(&on).passes();
    let before = place.production("p.db");
    let off = || drop(place.pipeline(&["mode", "off", "p.yaml", "--reason", "stop"]));
    let (kind, said) = run_with(&CommandOptions::new(place.path("p.yaml")), Step::Check, off).unwrap_err();
    assert_eq!(kind, Kind::Refused, "{said}");
    assert!(
        said.contains("ended before the insertion: ") && said.contains(": stop") && said.contains("pipeline mode on"),
        "{said}"
    );
    assert_same(&place.production("p.db"), &before);
    place.pipeline(&["resume", "p.yaml"]).fails(77, &["not in conversion mode", ": stop"]);
    place.pipeline(&on).passes();
    place.pipeline(&["resume", "p.yaml"]).passes();
    assert_eq!(items(&place), 3);
    let status = place.pipeline(&["mode", "status", "p.yaml"]).passes().stdout.clone();
    assert!(status.contains(" is off: run "), "{status}");

    let production = guarded("{}");
    production.pipeline(&on).passes();
    let before = kept_but_mode(&production);
    for (sql, why) in [
        ("SELECT delta.switch_mode(NULL, 'stop', false)", "postgres switched it off"),
        ("UPDATE delta.mode SET until = clock_timestamp() WHERE ended_at IS NULL", "it expired"),
    ] {
        let ended = || production.database.execute(sql);
        let (kind, said) = run_with(&production.request(), Step::Stage, ended).unwrap_err();
        assert_eq!(kind, Kind::Refused, "{said}");
        assert!(
            said.contains("ended before the insertion: ") && said.contains(why) && said.contains("pipeline resume"),
            "{said}"
        );
        assert_same(&kept_but_mode(&production), &before);
        production.pipeline(&["resume", "p.yaml"]).fails(77, &["not in conversion mode", why]);
        production.pipeline(&on).passes();
    }
    production.pipeline(&["resume", "p.yaml"]).passes();
    assert_eq!(production.count("account"), 5 + 10);
}

fn kept_but_mode(production: &Production) -> crate::support::Tables {
    let mut kept = production.kept();
    kept.remove("delta.mode");
    kept
}

#[test]
fn mode_cannot_end_between_insertion_and_commit() {
    let production = guarded("{}");
    production.pipeline(&["mode", "on", "p.yaml", "--for", "2h", "--reason", "a night"]).passes();
    let other = Holder::new(&production.database.local_url("postgres"));
    let tried = std::sync::Mutex::new(Vec::new());
    let end = || {
        for sql in ["SELECT delta.switch_mode(NULL, 'stop', false)", "SELECT delta.switch_mode(60, 'mine', false)"] {
            let sql = format!("SET lock_timeout = '200ms'; {sql}");
            // On a thread of its own: this one is inside a runtime.
            let ran = std::thread::scope(|scope| scope.spawn(|| other.run(&sql)).join().unwrap());
            tried.lock().unwrap().push(ran.map_err(|(code, _)| code));
        }
    };
    run_with(&production.request(), Step::Commit, end).unwrap();
    assert_eq!(*tried.lock().unwrap(), [Err(NO_LOCK.to_owned()), Err(NO_LOCK.to_owned())]);
    let by_run = "SELECT count(*) FROM delta.mode JOIN delta.run ON ended_run = id";
    assert_eq!(production.database.number(by_run), 1);

    // One who waits for the run finds that it has ended the mode, and neither stops the other.
    production.delta("Q", 10);
    production.pipeline(&["mode", "on", "p.yaml", "--for", "2h", "--reason", "a night"]).passes();
    std::thread::scope(|scope| {
        let waits = || {
            scope.spawn(|| other.execute("SET lock_timeout = '1min'; SELECT delta.switch_mode(NULL, 'stop', false)"));
            let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            crate::production::until(&production.database, waiting);
        };
        run_with(&production.request(), Step::Commit, waits).unwrap();
    });
    assert_eq!(production.database.number(by_run), 2);
}

#[test]
fn mode_of_another_pipeline_is_not_ended() {
    let production = guarded("{}");
    production.pipeline(&["mode", "on", "p.yaml", "--for", "2h", "--reason", "a night"]).passes();
    production.require_no_mode();
    production.write("");
    production.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(production.database.number("SELECT count(*) FROM delta.mode WHERE ended_at IS NULL"), 1);
}
