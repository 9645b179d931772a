//! PostgreSQL: what is refused of rows that were copied straight into production is told by its rows, as if they had been staged.

use std::sync::atomic::{AtomicUsize, Ordering};

use delta_pipeline::internals::error::Result;
use delta_pipeline::internals::spec::{ForeignKeys, StartRowNumber};
use delta_pipeline::internals::target::{
    AssignedKey, Batches, ConstraintViolation, Destination, KeyRequest, LoadMode, RowSource, SequenceUse, StagingPhase,
    TableIndex,
};

use super::live::{Live, On};
use super::rows::{Part, Rows, announce, numbered, numbers, refused, stage, texts};

/// A delta that counts how often its rows are asked for.
struct Counting<'a>(Rows<'a>, AtomicUsize);

impl RowSource for Counting<'_> {
    fn staged_rows(&self, at: TableIndex) -> Result<Batches<'_>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.staged_rows(at)
    }

    fn expected_rows(&self, at: TableIndex) -> Result<Batches<'_>> {
        self.0.expected_rows(at)
    }

    fn key_map(&self, at: TableIndex) -> Result<Batches<'_>> {
        self.0.key_map(at)
    }

    fn mismatch_error(&self, at: TableIndex, how: &str) -> delta_pipeline::internals::error::Error {
        self.0.mismatch_error(at, how)
    }
}

/// Begins a load of these parts, whose assigned keys are reserved from 10 on; stages those that are not `straight`.
async fn begin(live: &Live, parts: &[Part<'_>], straight: &[bool]) -> Box<dyn StagingPhase> {
    let all: Vec<Destination> = parts.iter().map(|(destination, _)| (*destination).clone()).collect();
    let mut load = live.writer().await.begin(&"r".into(), LoadMode::Commit).await.unwrap();
    let names: Vec<_> = all.iter().map(|destination| destination.table.name.as_str()).collect();
    announce(load.as_mut(), "r", &names).await;
    for (destination, columns) in parts.iter().filter(|(destination, _)| destination.assigned.is_some()) {
        let count = columns[0].1.len() as u64;
        let (table, column) = (destination.table.name.clone(), "id".to_owned());
        let (start, text) = (StartRowNumber::At(10), None);
        load.reserve(&KeyRequest {
            table,
            column,
            start,
            sequence: SequenceUse::default(),
            count,
            text,
            largest: i32::MAX.into(),
        })
        .await
        .unwrap();
    }
    assert_eq!(load.direct_path(&all), straight);
    for (part, _) in parts.iter().zip(straight).filter(|(_, straight)| !**straight) {
        load.clear_staging(std::slice::from_ref(part.0)).await.unwrap();
        stage(load.as_mut(), part).await.unwrap();
    }
    load
}

/// What production refuses, and how often rows were asked for; nobody else can write with the load any more.
async fn refusal(live: &Live, parts: &[Part<'_>], straight: &[bool], meanwhile: &str) -> (ConstraintViolation, usize) {
    let all: Vec<Destination> = parts.iter().map(|(destination, _)| (*destination).clone()).collect();
    let load = begin(live, parts, straight).await;
    live.execute(meanwhile);
    let delta = Counting(Rows(parts), AtomicUsize::new(0));
    let mut load = load.begin_insert(&all).await.unwrap();
    let inserted = match load.insert(&all, &delta).await {
        Ok(_) => load.validate_deferred(&all, &delta).await,
        Err(stopped) => Err(stopped),
    };
    let refusal = refused(inserted);
    let mut load = load.finish();
    load.record_run(&super::rows::record("r"), &[]).await.unwrap_err();
    drop(load);
    live.quiet().await;
    for table in &all {
        let table = &table.table.name;
        assert_eq!(live.text(&format!("SELECT count(*) FROM {table} WHERE id >= 10")), "0");
        assert_eq!(live.text(&format!("SELECT count(*) FROM delta.key_map_{table} WHERE run = 'r'")), "0");
    }
    (refusal, delta.1.into_inner())
}

async fn assigned(live: &Live, table: &str, columns: &[&str]) -> Destination {
    Destination {
        assigned: Some(AssignedKey::new(columns[0], StartRowNumber::At(10))),
        ..live.destination(table, columns).await
    }
}

#[tokio::test]
async fn a_reference_that_is_checked_at_the_end() {
    let live = Live::new(
        On::Postgres,
        "CREATE TABLE owner (id INTEGER PRIMARY KEY);
         CREATE TABLE item (id INTEGER PRIMARY KEY, owner_id INTEGER REFERENCES owner (id) DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO owner VALUES (1), (2)",
    );
    let item = assigned(&live, "item", &["id", "owner_id"]).await;
    live.set_up(&[&item]).await;
    let rows = (&item, vec![("id", numbers([10, 11, 12])), ("owner_id", numbers([Some(2), None, Some(1)]))]);
    // An older run left other rows in staging.
    super::rows::begin(
        live.writer().await.as_ref(),
        "older",
        &[(&item, vec![("id", numbers([10])), ("owner_id", numbers([2]))])],
    )
    .await
    .unwrap();
    live.quiet().await;
    let (refusal, _) = refusal(&live, &[rows], &[true], "DELETE FROM owner WHERE id = 1").await;
    assert_eq!((refusal.constraint.as_str(), &refusal.rows), ("item_owner_id_fkey", &numbered([2])), "{refusal:?}");
}

#[tokio::test]
async fn rows_that_refer_to_direct_rows_and_to_nothing() {
    // A table with rules needs staging.
    let rule = "CREATE RULE more AS ON INSERT TO item DO ALSO NOTHING";
    for foreign_keys in [ForeignKeys::Triggers, ForeignKeys::SetBased] {
        for (also, is_direct) in [("", true), (rule, false)] {
            let mut live = Live::new(
                On::Postgres,
                "CREATE TABLE owner (id INTEGER PRIMARY KEY);
                 CREATE TABLE item (id INTEGER PRIMARY KEY, owner_id INTEGER REFERENCES owner (id));
                 INSERT INTO owner VALUES (1)",
            );
            live.load.foreign_keys = foreign_keys;
            live.execute(also);
            let owner = assigned(&live, "owner", &["id"]).await;
            let item = live.destination("item", &["id", "owner_id"]).await;
            live.set_up(&[&owner, &item]).await;
            let parts = [
                (&owner, vec![("id", numbers([10, 11]))]),
                (&item, vec![("id", numbers([10, 11, 12])), ("owner_id", numbers([Some(10), Some(1), Some(11)]))]),
            ];
            let (refusal, _) = refusal(&live, &parts, &[true, is_direct], "DELETE FROM owner").await;
            assert_eq!((refusal.table.as_str(), &refusal.rows), ("item", &numbered([1])), "{refusal:?}");
        }
    }
}

#[tokio::test]
async fn delta_is_read_again_only_if_that_helps() {
    for foreign_keys in [ForeignKeys::Triggers, ForeignKeys::SetBased] {
        let mut live = Live::new(
            On::Postgres,
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(9) UNIQUE, price INTEGER CONSTRAINT positive CHECK (price > 0))",
        );
        live.load.foreign_keys = foreign_keys;
        let item = assigned(&live, "item", &["id", "name", "price"]).await;
        live.set_up(&[&item]).await;
        let rows = |price: i64| {
            let columns = vec![("id", numbers([10, 11])), ("name", texts(["a", "b"])), ("price", numbers([1, price]))];
            [(&item, columns)]
        };
        let (taken, asked) = refusal(&live, &rows(2), &[true], "INSERT INTO item VALUES (1, 'b', 1)").await;
        assert_eq!((taken.constraint.as_str(), &taken.rows, asked), ("item_name_key", &numbered([1]), 2));
        let (failed, asked) = refusal(&live, &rows(0), &[true], "SELECT 1").await;
        assert_eq!((failed.constraint.as_str(), failed.rows.len(), asked), ("positive", 1, 2));
    }
}

/// Rows of a natural key go where there is room: to the end, or into gaps that deleted rows have left.
#[tokio::test]
async fn rows_without_a_block_of_keys_are_found_again() {
    for foreign_keys in [ForeignKeys::Triggers, ForeignKeys::SetBased] {
        for gaps in ["", "DELETE FROM item WHERE id % 3 = 0", "DELETE FROM item"] {
            let mut live = Live::new(
                On::Postgres,
                "CREATE TABLE item (id INTEGER, code VARCHAR(40), name TEXT, PRIMARY KEY (code, id));
                 INSERT INTO item SELECT n, 'old ' || n, repeat('x', n % 90) FROM generate_series(1, 20000) AS n",
            );
            live.load.foreign_keys = foreign_keys;
            live.execute(gaps);
            live.execute("VACUUM item");
            let item = live.destination("item", &["id", "code", "name"]).await;
            live.set_up(&[&item]).await;
            let ids: Vec<i64> = (0..15_000).map(|row| 1_000_000 - row * 7 % 15_000).collect();
            // Short rows go into the rests of pages.
            let names: Vec<_> =
                ids.iter().map(|id| format!("name {id} {}", "x".repeat((id * 37 % 90) as usize))).collect();
            let codes: Vec<_> = ids.iter().map(|id| format!("code {}", id % 10)).collect();
            let part = |names: &[String]| {
                let texts = |values: &[String]| texts(values.iter().map(String::as_str).collect::<Vec<_>>());
                [(&item, vec![("id", numbers(ids.clone())), ("code", texts(&codes)), ("name", texts(names))])]
            };
            let all = std::slice::from_ref(&item);
            let mut other = names.clone();
            other[12_345] = "another".to_owned();
            for (expected, how) in [(&other, Some("column `name` is name ")), (&names, None)] {
                let parts = part(&names);
                let load = begin(&live, &parts, &[true]).await;
                let mut load = load.begin_insert(all).await.unwrap();
                let inserted = load.insert(all, &Rows(&parts)).await.unwrap();
                assert_eq!((inserted[0].rows, inserted[0].verified), (15_000, true));
                let found = load.compare(&item, TableIndex::new(0), &Rows(&part(expected))).await.unwrap();
                match how {
                    Some(how) => assert!(found.as_ref().is_some_and(|found| found.starts_with(how)), "{found:?}"),
                    None => assert_eq!(found, None, "{gaps}"),
                }
                drop(load);
                live.quiet().await;
            }
        }
    }
}
