//! Conversion mode: on for its time, ended by the load that it let in, and told for ever.

use delta_pipeline::internals::error::Kind;
use delta_pipeline::internals::target::{Access, LoadMode, Mode, Switch};
use jiff::{SignedDuration, Timestamp};

use super::live::{Live, On};
use super::rows::record;

each_target!(
    memory async
    it_is_off_until_it_is_switched_on_and_then_on_for_its_time,
    it_ends_with_a_load_that_is_committed_and_with_no_other,
    one_that_is_kept_outlives_a_load,
    switching_off_what_is_off_changes_nothing,
);

// These look into the control tables, or need roles.
each_target!(
    async
    switching_on_again_ends_the_period_and_keeps_both,
    who_only_asks_does_not_switch,
    to_ask_for_it_writes_nothing,
);

const ITEM: &str = "CREATE TABLE item (id {serial}, name VARCHAR(20));";

fn on(hours: i64, reason: &str, keep: bool) -> Switch {
    Switch::On { time: SignedDuration::from_hours(hours), reason: reason.into(), keep }
}

/// A table, set up, and its owner's way in.
async fn ready(on: On) -> Live {
    let live = Live::new(on, ITEM);
    live.ready("item").await;
    live
}

async fn switch(live: &Live, switch: &Switch) -> Mode {
    let target = live.open_as_owner(Access::Administer).await.unwrap();
    target.switch_mode(switch).await.unwrap();
    target.mode().await.unwrap()
}

/// A load that does nothing but end the mode: committed, or dropped.
async fn load(live: &Live, run: &str, commits: bool) -> Mode {
    let target = live.writer().await;
    let mut load = target.begin(&run.into(), LoadMode::Commit).await.unwrap();
    let held = load.lock_mode().await.unwrap();
    assert!(held.on().is_some(), "{held:?}");
    let mut load = load.begin_insert(&[]).await.unwrap().finish();
    load.end_mode().await.unwrap();
    load.record_run(&record(run), &[]).await.unwrap();
    if commits {
        load.commit().await.unwrap();
        target.unlock().await.unwrap();
    } else {
        drop(load);
    }
    live.quiet().await;
    live.reader().await.mode().await.unwrap()
}

async fn it_is_off_until_it_is_switched_on_and_then_on_for_its_time(kind: On) {
    let live = ready(kind).await;
    let mode = live.reader().await.mode().await.unwrap();
    assert_eq!((mode.on(), &mode.last), (None, &None));
    let before = live.reader().await.now().await.unwrap();
    let mode = switch(&live, &on(2, "a village", false)).await;
    let after = live.reader().await.now().await.unwrap();
    let period = mode.on().unwrap();
    assert!(before <= period.since && period.since <= mode.now && mode.now <= after, "{mode:?}");
    assert_eq!(period.until.duration_since(period.since), SignedDuration::from_hours(2));
    assert_eq!((period.reason.as_str(), period.keep, &period.ended), ("a village", false, &None));
    assert!(!period.by.is_empty());
    // What is read at another moment is the same but for the moment.
    assert_eq!(live.reader().await.mode().await.unwrap().last, mode.last);
    assert_eq!(Mode { now: period.until, ..mode.clone() }.on(), None);
    assert!(after.duration_since(Timestamp::now()).abs() < SignedDuration::from_mins(10));
}

async fn it_ends_with_a_load_that_is_committed_and_with_no_other(kind: On) {
    let live = ready(kind).await;
    switch(&live, &on(2, "a village", false)).await;
    let mode = load(&live, "R1", false).await;
    assert!(mode.on().is_some(), "{mode:?}");
    let mode = load(&live, "R2", true).await;
    let ended = mode.last.as_ref().unwrap().ended.clone().unwrap();
    assert_eq!((mode.on(), ended.run.as_deref(), ended.reason), (None, Some("R2"), None));
    assert!(mode.off().starts_with("run R2 ended it "), "{}", mode.off());
}

async fn one_that_is_kept_outlives_a_load(kind: On) {
    let live = ready(kind).await;
    switch(&live, &on(2, "two villages", true)).await;
    for run in ["R1", "R2"] {
        let mode = load(&live, run, true).await;
        assert!(mode.on().is_some_and(|on| on.keep), "{mode:?}");
    }
}

async fn switching_on_again_ends_the_period_and_keeps_both(kind: On) {
    let live = ready(kind).await;
    switch(&live, &on(1, "one", true)).await;
    let mode = switch(&live, &on(3, "two", false)).await;
    assert_eq!(mode.on().unwrap().reason, "two");
    let (table, no) = kind.choose(("delta_mode", "0"), ("delta.mode", "f"));
    let rows = live.rows(&format!("SELECT reason, keep, ended_reason FROM {table} ORDER BY number"));
    let yes = kind.choose("1", "t");
    assert_eq!(rows, [format!("one|{yes}|it was switched on again"), format!("two|{no}|NULL")]);
}

async fn switching_off_what_is_off_changes_nothing(kind: On) {
    let live = ready(kind).await;
    let off = Switch::Off { reason: Some("enough".into()) };
    assert_eq!(switch(&live, &off).await.last, None);
    switch(&live, &on(1, "one", false)).await;
    let mode = switch(&live, &off).await;
    assert_eq!(mode.on(), None);
    assert!(mode.off().contains(" switched it off ") && mode.off().ends_with(": enough"), "{}", mode.off());
    assert_eq!(switch(&live, &Switch::Off { reason: None }).await.last, mode.last);
}

async fn who_only_asks_does_not_switch(kind: On) {
    let live = ready(kind).await;
    let error = live.reader().await.switch_mode(&on(1, "me", true)).await.unwrap_err();
    assert_eq!(error.kind(), kind.choose(Kind::Unreachable, Kind::Refused), "{error}");
    assert_eq!(live.reader().await.mode().await.unwrap().last, None);
}

async fn to_ask_for_it_writes_nothing(kind: On) {
    let live = Live::new(kind, ITEM);
    let tables = kind.choose(
        "SELECT name FROM sqlite_schema",
        "SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname IN ('public', 'delta')",
    );
    let before = live.rows(tables);
    let target = live.open_as_owner(Access::Administer).await.unwrap();
    assert_eq!(target.mode().await.unwrap().last, None);
    assert_eq!(live.rows(tables), before);
}
