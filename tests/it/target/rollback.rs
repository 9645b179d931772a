//! Taking a run back: exactly its rows go, however they refer to each other, and what others did to them is told.

use std::fmt::Write as _;

use delta_pipeline::internals::error::Kind;
use delta_pipeline::internals::journal::{Event, Journal, Started};
use delta_pipeline::internals::target::{Access, Destination};

use super::live::{Live, On};
use super::rows::{Part, begin, insert, numbers, record, texts};

each_target!(
    async
    rows_that_refer_to_each_other_in_any_way_go_together,
    run_without_rows_in_production_is_not_rolled_back,
    every_column_of_a_row_counts_and_every_kind_of_value,
    missing_rows_of_a_run_are_named_by_legacy_keys,
    holdings_of_a_run_are_listed_per_table,
);

/// A journal up to a run's commit.
fn journal(run: &str) -> Journal {
    let mut journal = Journal::new(&run.into());
    let started = Started { pipeline: "p".into(), plan: "h".into(), moment: "m".into(), tables: Vec::new() };
    let before = [
        Event::Started(started),
        Event::Reserved { blocks: Vec::new() },
        Event::Staged,
        Event::Committing { transaction: None },
    ];
    for event in before {
        journal.record(event).unwrap();
    }
    journal
}

/// A whole load with its commit in the journal; the journal.
async fn loaded(live: &Live, run: &str, parts: &[Part<'_>]) -> Journal {
    let target = live.writer().await;
    let mut load = begin(target.as_ref(), run, parts).await.unwrap();
    let mut journal = Journal::new(&run.into());
    for entry in self::journal(run).entries() {
        load.append_event(&journal.record(entry.event.clone()).unwrap()).await.unwrap();
    }
    let mut load = insert(load, parts).await.unwrap().finish();
    load.record_run(&record(run), &[]).await.unwrap();
    load.append_event_with_rows(&journal.record(Event::Committed).unwrap()).await.unwrap();
    load.commit().await.unwrap();
    target.unlock().await.unwrap();
    drop(target);
    live.quiet().await;
    journal
}

async fn take_back(live: &Live, journal: &mut Journal) -> delta_pipeline::internals::error::Result<u64> {
    let target = live.open_as_owner(Access::Administer).await.unwrap();
    target.lock(journal.run()).await.unwrap();
    let record = journal.record(Event::RolledBack { rows: 0 }).unwrap();
    let taken_back = target.roll_back_run(&record, false, &[]).await;
    target.unlock().await.unwrap();
    Ok(taken_back?.iter().map(|table| table.deleted).sum())
}

async fn conflicts(live: &Live, run: &str) -> Vec<String> {
    let target = live.open_as_owner(Access::Administer).await.unwrap();
    target.plan_rollback(&run.into(), &[]).await.unwrap().conflicts.iter().map(ToString::to_string).collect()
}

async fn two(live: &Live) -> (Destination, Destination) {
    let node = live.destination("node", &["id", "up", "top"]).await;
    let tag = live.destination("tag", &["id", "node", "line"]).await;
    live.set_up(&[&node, &tag]).await;
    (node, tag)
}

/// Nodes refer to nodes, restricted, and to a tag, tags to nodes: a circle, and none of it may go alone.
const CIRCLE: &str = "
    CREATE TABLE node (id INTEGER PRIMARY KEY, up INTEGER REFERENCES node ON DELETE CASCADE,
        top INTEGER {circle});
    CREATE TABLE tag (id INTEGER NOT NULL, node INTEGER REFERENCES node ON DELETE {action}, line INTEGER NOT NULL, PRIMARY KEY (line, id));
    {add}
    INSERT INTO node VALUES (1, NULL, NULL);
    INSERT INTO tag VALUES (1, 1, 1)";

async fn rows_that_refer_to_each_other_in_any_way_go_together(on: On) {
    for action in ["CASCADE", "SET NULL", "NO ACTION", "RESTRICT"] {
        let sql = CIRCLE
            .replace("{circle}", on.choose("REFERENCES node DEFERRABLE INITIALLY DEFERRED", ""))
            .replace("{action}", action)
            .replace(
                "{add}",
                on.choose("", "ALTER TABLE node ADD FOREIGN KEY (top) REFERENCES node DEFERRABLE INITIALLY DEFERRED;"),
            );
        let live = Live::new(on, &sql);
        let (node, tag) = two(&live).await;
        let before = (live.rows("SELECT * FROM node"), live.rows("SELECT * FROM tag"));
        let nodes =
            vec![("id", numbers([2, 3, 4])), ("up", numbers([None, Some(2), Some(3)])), ("top", numbers([4, 4, 2]))];
        let tags = vec![("id", numbers([1, 1])), ("node", numbers([2, 4])), ("line", numbers([2, 3]))];
        let mut journal = loaded(&live, "r1", &[(&node, nodes), (&tag, tags)]).await;
        assert_eq!(conflicts(&live, "r1").await, [""; 0], "{action}");
        assert_eq!(take_back(&live, &mut journal).await.unwrap(), 5, "{action}");
        assert_eq!((live.rows("SELECT * FROM node"), live.rows("SELECT * FROM tag")), before, "{action}");
    }
}

const ITEM: &str = "CREATE TABLE item (id {serial}, name VARCHAR(20)); INSERT INTO item (name) VALUES ('there')";

fn item(item: &Destination) -> Part<'_> {
    (item, vec![("id", numbers([2, 3])), ("name", texts([Some("a"), None]))])
}

async fn run_without_rows_in_production_is_not_rolled_back(on: On) {
    let live = Live::new(on, ITEM);
    let destination = live.ready("item").await;
    let mut cut_off = journal("r9");
    let target = live.writer().await;
    let mut written = Journal::new(&"r9".into());
    for entry in cut_off.entries().to_vec() {
        target.append_event(&written.record(entry.event).unwrap()).await.unwrap();
    }
    cut_off.record(Event::Committed).unwrap();
    drop(target);
    let error = take_back(&live, &mut cut_off).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");

    let mut journal = loaded(&live, "r1", &[item(&destination)]).await;
    let mut again = Journal::new(&"r1".into());
    for entry in journal.entries() {
        again.record(entry.event.clone()).unwrap();
    }
    assert_eq!(take_back(&live, &mut journal).await.unwrap(), 2);
    let error = take_back(&live, &mut again).await.unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("its journal has changed"), "{error}");
    assert_eq!(live.rows("SELECT id, name FROM item"), ["1|there"]);
}

async fn every_column_of_a_row_counts_and_every_kind_of_value(on: On) {
    let mut sql = "CREATE TABLE wide (id INTEGER PRIMARY KEY".to_owned();
    for at in 0..210 {
        write!(sql, ", c{at} VARCHAR(9)").unwrap();
    }
    let live = Live::new(on, &(sql + ")"));
    let wide = live.destination("wide", &["id", "c0", "c209"]).await;
    live.set_up(&[&wide]).await;
    let rows = vec![("id", numbers([7, 8])), ("c0", texts([Some("a"), Some("")])), ("c209", texts([Some("z"), None]))];
    loaded(&live, "r1", &[(&wide, rows)]).await;
    assert_eq!(conflicts(&live, "r1").await, [""; 0]);
    let changes = ["c0 = 'b'", "c100 = ''", "c209 = NULL", "c1 = 'a', c0 = NULL"];
    for change in changes {
        live.execute(&format!("UPDATE wide SET {change} WHERE id = 7"));
        assert_eq!(conflicts(&live, "r1").await, ["`wide`: 1 changed since: 7"], "{change}");
    }
}

async fn missing_rows_of_a_run_are_named_by_legacy_keys(on: On) {
    let live = Live::new(on, ITEM);
    let destination = live.ready("item").await;
    loaded(&live, "r1", &[item(&destination)]).await;
    let gone = async || live.writer().await.missing_rows(&destination, &"r1".into()).await.unwrap();
    assert_eq!(gone().await, [""; 0]);
    live.execute("DELETE FROM item WHERE id = 3");
    assert_eq!(gone().await.len(), 1);
    assert_eq!(live.writer().await.missing_rows(&destination, &"r2".into()).await.unwrap(), [""; 0]);
    assert_eq!(conflicts(&live, "r1").await, ["`item`: 1 gone from production: 3"]);
}

async fn holdings_of_a_run_are_listed_per_table(on: On) {
    let live = Live::new(on, ITEM);
    let destination = live.ready("item").await;
    loaded(&live, "r1", &[item(&destination)]).await;
    let target = live.open_as_owner(Access::Administer).await.unwrap();
    let survey = target.plan_rollback(&"r1".into(), &[]).await.unwrap();
    let [held] = survey.tables.as_slice() else { panic!("{survey:?}") };
    assert_eq!((held.table.as_str(), held.rows), ("item", 2));
    assert_eq!(held.keys, ("2".to_owned(), "3".to_owned()));
    assert_eq!(survey.rows(), 2);
}
