//! A whole load: all of it is there when it commits, and nothing of it when it does not.

use arrow::array::{Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, RecordBatch};
use arrow::array::{Time64MicrosecondArray, TimestampMicrosecondArray};
use delta_pipeline::internals::error::{Error, Kind, Result};
use delta_pipeline::internals::journal::FileHash;
use delta_pipeline::internals::spec::{StartRowNumber, Timeout};
use delta_pipeline::internals::target::{
    Access, Aggregate, AssignedKey, Batches, Destination, Inserted, KeyRequest, LoadMode, LoadedFile, Lookup, Relation,
    RowSource, SequenceUse, StagingPhase, TableIndex, Target,
};
use futures::{StreamExt, stream};
use std::sync::Arc;

use super::live::{Live, On};
use super::rows::{
    Part, Rows, announce, batch, begin, counted, insert, inserted, lines, load, mapped, numbers, record, shown, stage,
    staged, taken, texts,
};

each_target!(
    async
    a_load_is_all_there_when_it_commits,
    a_load_that_is_dropped_leaves_nothing_at_any_step,
    staging_holds_only_the_rows_of_its_own_run,
    rows_come_in_many_batches_and_in_none,
    rows_that_end_in_an_error_are_not_staged,
    files_are_known_by_their_bytes_and_their_table,
    a_load_sees_the_files_of_a_run_that_was_in_front_of_it,
    rows_are_compared_with_the_expected_ones,
    direct_rows_are_compared_with_the_expected_ones,
    a_trigger_that_changes_rows_is_seen_before_the_commit,
    a_trigger_that_swallows_rows_is_seen_before_the_commit,
    totals_are_those_of_the_rows_that_were_inserted,
    totals_of_texts_are_by_bytes,
    only_one_load_is_at_work,
    production_is_read_as_it_was_while_a_load_is_at_work,
    columns_that_a_load_leaves_out_get_their_defaults,
);

const SQL: &str = "
    CREATE TABLE item (id {serial}, name VARCHAR(20));
    CREATE TABLE part (
        item_id INTEGER NOT NULL REFERENCES item, line INTEGER NOT NULL, what VARCHAR(20), PRIMARY KEY (item_id, line));
    INSERT INTO item (name) VALUES ('there');
    INSERT INTO part VALUES (1, 1, 'there');";

fn item_part(item: &Destination) -> Part<'_> {
    (item, vec![("id", numbers([2, 3])), ("name", texts([Some("a"), None]))])
}

fn part_part(part: &Destination) -> Part<'_> {
    let whats = texts([Some("x"), None, Some("z")]);
    (part, vec![("item_id", numbers([2, 3, 1])), ("line", numbers([1, 1, 2])), ("what", whats)])
}

fn one(ids: impl IntoIterator<Item = i64>, name: &str, item: &Destination) -> RecordBatch {
    let ids = numbers(ids);
    let names: Vec<_> = vec![name; ids.len()];
    staged(&(item, vec![("id", ids), ("name", texts(names))]))
}

fn file(hash: &str, table: &str, run: &str) -> LoadedFile {
    LoadedFile { hash: hash.into(), table: table.into(), name: format!("{table} of {run}.csv"), run: run.into() }
}

fn asked(files: &[(&str, &str)]) -> Vec<(String, FileHash)> {
    files.iter().map(|(table, hash)| ((*table).to_owned(), (*hash).into())).collect()
}

async fn both(live: &Live) -> (Destination, Destination) {
    let mut item = live.destination("item", &["id", "name"]).await;
    item.assigned = Some(AssignedKey::new("id", StartRowNumber::Auto));
    let part = live.destination("part", &["item_id", "line", "what"]).await;
    live.set_up(&[&item, &part]).await;
    (item, part)
}

async fn a_load_is_all_there_when_it_commits(on: On) {
    let live = Live::new(on, SQL);
    let (item, part) = both(&live).await;
    let target = live.writer().await;
    let parts = [item_part(&item), part_part(&part)];
    let load = begin(target.as_ref(), "r1", &parts).await.unwrap();
    let mut load = insert(load, &parts).await.unwrap().finish();
    let files = [file("h1", "item", "r1"), file("h2", "part", "r1")];
    let mut run = record("r1");
    run.report = r#"{"said": "it's \"ä\" \\ done"}"#.into();
    announce(load.as_mut(), "r1", &[]).await;
    load.record_run(&run, &files).await.unwrap();
    load.commit().await.unwrap();
    target.analyze(&[item.clone(), part.clone()], &[1_000_000, 0]).await.unwrap();

    assert_eq!(live.rows("SELECT id, name FROM item ORDER BY 1"), ["1|there", "2|a", "3|NULL"]);
    assert_eq!(
        live.rows("SELECT item_id, line, what FROM part ORDER BY 1, 2"),
        ["1|1|there", "1|2|z", "2|1|x", "3|1|NULL"]
    );
    for target in [target, live.reader().await] {
        let runs = target.runs().await.unwrap();
        let found: Vec<_> = runs.iter().map(|run| [&*run.id, &run.pipeline, &run.started_at]).collect();
        assert_eq!(found, [["r1", "p", "2025 r1"]]);
        assert_eq!(target.run(&"r1".into()).await.unwrap().unwrap().report, run.report);
        assert!(target.run(&"r2".into()).await.unwrap().is_none());
        assert_eq!(lines(&taken(target.key_map(&item).await).await), ["L2|2|r1", "L3|3|r1"]);
        assert_eq!(lines(&taken(target.key_map(&part).await).await), ["L1|2|1|2|r1", "L2|1|2|1|r1", "L3|1|3|1|r1"]);
        let asked = asked(&[("part", "h2"), ("item", "h2"), ("item", "h1")]);
        assert_eq!(target.loaded_files(&asked).await.unwrap(), [files[1].clone(), files[0].clone()]);
    }
}

/// All that a load may have changed.
async fn seen(live: &Live, item: &Destination, part: &Destination) -> Vec<String> {
    let target = live.reader().await;
    let files = asked(&[("item", "h1"), ("part", "h2"), ("item", "h3")]);
    let mut seen = live.rows("SELECT * FROM item ORDER BY 1");
    seen.extend(live.rows("SELECT * FROM part ORDER BY 1, 2"));
    seen.extend(target.runs().await.unwrap().iter().map(|run| format!("{run:?}")));
    seen.extend(target.loaded_files(&files).await.unwrap().iter().map(|file| format!("{file:?}")));
    for destination in [item, part] {
        seen.extend(lines(&taken(target.key_map(destination).await).await));
    }
    seen
}

/// Does the first steps of a load, and drops it after so many; a load that is not dropped is committed.
async fn steps(mut load: Box<dyn StagingPhase>, count: usize, item: &Destination, part: &Destination) {
    let all = [item.clone(), part.clone()];
    for step in 0..count.min(4) {
        match step {
            0 => {
                let request = KeyRequest {
                    table: "item".into(),
                    column: "id".into(),
                    start: StartRowNumber::Auto,
                    sequence: SequenceUse::default(),
                    count: 2,
                    text: None,
                    largest: i64::MAX,
                };
                announce(load.as_mut(), "r1", &[&request.table]).await;
                announce(load.as_mut(), "r2", &[&request.table]).await;
                load.reserve(&request).await.unwrap();
            }
            1 => load.clear_staging(&all).await.unwrap(),
            2 => stage(load.as_mut(), &item_part(item)).await.unwrap(),
            _ => stage(load.as_mut(), &part_part(part)).await.unwrap(),
        }
    }
    if count <= 4 {
        return;
    }
    let mut load = load.begin_insert(&all).await.unwrap();
    let parts = [item_part(item), part_part(part)];
    for step in 5..count.min(8) {
        match step {
            5 => assert_eq!(load.insert(&all, &Rows(&parts)).await.unwrap(), [inserted(2), inserted(3)]),
            6 => load.validate_deferred(&all, &Rows(&[])).await.unwrap(),
            _ => assert_eq!(load.aggregates(item, &[]).await.unwrap().num_rows(), 1),
        }
    }
    if count <= 8 {
        return;
    }
    let mut load = load.finish();
    load.record_run(&record("r2"), &[file("h1", "item", "r2"), file("h2", "part", "r2")]).await.unwrap();
    if count > 9 {
        load.commit().await.unwrap();
    }
}

async fn a_load_that_is_dropped_leaves_nothing_at_any_step(on: On) {
    let live = Live::new(on, SQL);
    let (item, part) = both(&live).await;
    let target = live.writer().await;
    // Something is remembered already.
    let mut load = target.begin(&"r1".into(), LoadMode::Commit).await.unwrap();
    load.clear_staging(&[item.clone(), part.clone()]).await.unwrap();
    let mut load = load.begin_insert(&[]).await.unwrap().finish();
    announce(load.as_mut(), "r1", &[]).await;
    load.record_run(&record("r1"), &[file("h3", "item", "r1")]).await.unwrap();
    load.commit().await.unwrap();
    let before = seen(&live, &item, &part).await;
    for count in 0..=9 {
        steps(target.begin(&"r2".into(), LoadMode::Commit).await.unwrap(), count, &item, &part).await;
        live.quiet().await;
        assert_eq!(seen(&live, &item, &part).await, before, "dropped after {count} steps");
    }
    steps(target.begin(&"r2".into(), LoadMode::Commit).await.unwrap(), 10, &item, &part).await;
    let after = seen(&live, &item, &part).await;
    assert_eq!(after.len(), before.len() + 2 + 3 + 1 + 2 + 2 + 3);
}

async fn staging_holds_only_the_rows_of_its_own_run(on: On) {
    let live = Live::new(on, SQL);
    let (item, part) = both(&live).await;
    let target = live.writer().await;
    let load_dropped = begin(target.as_ref(), "r1", &[item_part(&item)]).await.unwrap();
    drop(load_dropped);
    live.quiet().await;
    // The next run has other columns too.
    let less = live.destination("item", &["id"]).await;
    load(target.as_ref(), "r2", &[(&less, vec![("id", numbers([7]))])]).await.unwrap();
    load(target.as_ref(), "r3", &[(&item, vec![("id", numbers([8])), ("name", texts(["b"]))]), part_of(&part, 8)])
        .await
        .unwrap();
    assert_eq!(live.rows("SELECT id, name FROM item ORDER BY 1"), ["1|there", "7|NULL", "8|b"]);
    assert_eq!(lines(&taken(target.key_map(&item).await).await), ["L7|7|r2", "L8|8|r3"]);
}

fn part_of(part: &Destination, item: i64) -> Part<'_> {
    (part, vec![("item_id", numbers([item])), ("line", numbers([1])), ("what", texts(["x"]))])
}

async fn rows_come_in_many_batches_and_in_none(on: On) {
    let live = Live::new(on, SQL);
    let (item, _) = both(&live).await;
    let target = live.writer().await;
    let mut load = target.begin(&"r1".into(), LoadMode::Commit).await.unwrap();
    load.clear_staging(std::slice::from_ref(&item)).await.unwrap();
    assert_eq!(load.stage(&item, stream::iter([]).boxed()).await.unwrap(), 0);
    assert_eq!(load.stage_keys(&item, stream::iter([]).boxed()).await.unwrap(), 0);
    // Batches of 0, 1, 2 … 99 rows.
    let batches = |make: &dyn Fn(u32, usize) -> RecordBatch| {
        let batches: Vec<_> =
            (0..100_u32).map(|size| Ok(make(size * size.saturating_sub(1) / 2, size as usize))).collect();
        stream::iter(batches).boxed()
    };
    let ids = |from: u32, rows: usize| numbers((i64::from(from) + 10..).take(rows));
    let rows = batches(&|from, rows| {
        batch(vec![("_row", counted(from, rows)), ("id", ids(from, rows)), ("name", texts(vec!["many"; rows]))])
    });
    assert_eq!(load.stage(&item, rows).await.unwrap(), 4950);
    let keys = batches(&|from, rows| {
        let legacy: Vec<_> = (from..).take(rows).map(|row| format!("L{row}")).collect();
        let legacy = texts(legacy.iter().map(String::as_str));
        batch(vec![("_row", counted(from, rows)), ("legacy_key", legacy), ("id", ids(from, rows))])
    });
    assert_eq!(load.stage_keys(&item, keys).await.unwrap(), 4950);
    let mut load = load.begin_insert(std::slice::from_ref(&item)).await.unwrap();
    assert_eq!(load.insert(std::slice::from_ref(&item), &Rows(&[])).await.unwrap(), [inserted(4950)]);
    load.finish().commit().await.unwrap();
    assert_eq!(live.text("SELECT count(*) FROM item WHERE name = 'many' AND id BETWEEN 10 AND 4959"), "4950");
    let found: usize = taken(target.key_map(&item).await).await.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(found, 4950);
    // A run that brings nothing.
    let parts: [Part<'_>; 1] = [(&item, vec![("id", numbers([0; 0])), ("name", texts([""; 0]))])];
    let load = begin(target.as_ref(), "r2", &parts).await.unwrap();
    let mut load = insert(load, &parts).await.unwrap();
    assert_eq!(lines(&[load.aggregates(&item, &[("id".into(), Aggregate::Max)]).await.unwrap()]), ["0|NULL"]);
    assert_eq!(load.compare(&item, TableIndex::new(0), &Rows(&parts)).await.unwrap(), None);
    load.finish().commit().await.unwrap();
}

async fn rows_that_end_in_an_error_are_not_staged(on: On) {
    let live = Live::new(on, SQL);
    let (item, _) = both(&live).await;
    let target = live.writer().await;
    let mut load = target.begin(&"r1".into(), LoadMode::Commit).await.unwrap();
    load.clear_staging(std::slice::from_ref(&item)).await.unwrap();
    let rows = [Ok(one([7], "a", &item)), Err(Error::data("the file ends here"))];
    let error = load.stage(&item, stream::iter(rows).boxed()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Data, "the file ends here"));
    drop(load);
    live.quiet().await;
    assert_eq!(live.rows("SELECT id FROM item"), ["1"]);
    // The target goes on after it.
    super::rows::load(target.as_ref(), "r2", &[item_part(&item)]).await.unwrap();
    assert_eq!(live.rows("SELECT id FROM item ORDER BY 1"), ["1", "2", "3"]);
}

async fn record_only(target: &dyn Target, run: &str, files: &[LoadedFile]) {
    let mut load = target.begin(&run.into(), LoadMode::Commit).await.unwrap();
    announce(load.as_mut(), run, &[]).await;
    let mut load = load.begin_insert(&[]).await.unwrap().finish();
    load.record_run(&record(run), files).await.unwrap();
    load.commit().await.unwrap();
}

async fn files_are_known_by_their_bytes_and_their_table(on: On) {
    let live = Live::new(on, SQL);
    both(&live).await;
    let target = live.writer().await;
    let files = [file("h1", "item", "r1"), file("h1", "part", "r1"), file("h2", "item", "r1")];
    assert!(target.loaded_files(&asked(&[("item", "h1")])).await.unwrap().is_empty());
    record_only(target.as_ref(), "r1", &files).await;
    let more = file("h3", "part", "r2");
    record_only(target.as_ref(), "r2", std::slice::from_ref(&more)).await;
    let found = async |of: &[(&str, &str)]| target.loaded_files(&asked(of)).await.unwrap();
    assert_eq!(found(&[]).await, []);
    assert_eq!(found(&[("part", "h2"), ("item", "h3"), ("Item", "h1"), ("item", "H1")]).await, []);
    let found = found(&[("part", "h3"), ("part", "h4"), ("item", "h2"), ("part", "h1")]).await;
    assert_eq!(found, [more, files[2].clone(), files[1].clone()]);
}

async fn a_load_sees_the_files_of_a_run_that_was_in_front_of_it(on: On) {
    let live = Live::new(on, SQL);
    both(&live).await;
    let asked = asked(&[("item", "h1"), ("item", "h2")]);
    let waiting = live.writer().await;
    assert!(waiting.loaded_files(&asked).await.unwrap().is_empty());
    let file = file("h1", "item", "r1");
    record_only(live.writer().await.as_ref(), "r1", std::slice::from_ref(&file)).await;
    live.quiet().await;
    let mut load = waiting.begin(&"r2".into(), LoadMode::Commit).await.unwrap();
    assert_eq!(load.loaded_files(&asked).await.unwrap(), [file]);
}

async fn rows_are_compared_with_the_expected_ones(on: On) {
    let live = Live::new(on, SQL);
    let (item, part) = both(&live).await;
    let target = live.writer().await;
    let parts = [item_part(&item), part_part(&part)];
    let expected = |at: usize| stream::iter([Ok(staged(&parts[at]))]).boxed();
    let load = begin(target.as_ref(), "r1", &parts).await.unwrap();
    let mut load = insert(load, &parts).await.unwrap();
    for (at, destination) in [&item, &part].into_iter().enumerate() {
        assert_eq!(load.compare(destination, TableIndex::new(at), &Rows(&parts)).await.unwrap(), None);
    }
    load.finish().commit().await.unwrap();
    let how = async |at: usize| target.compare(parts[at].0, expected(at)).await.unwrap();
    assert_eq!((how(0).await, how(1).await), (None, None));
    // Rows of others are nobody's business.
    live.execute("UPDATE item SET name = 'changed' WHERE id = 1");
    assert_eq!(how(0).await, None);
    for (sql, back, at, expected) in [
        (
            "UPDATE item SET name = 'b' WHERE id = 2",
            "UPDATE item SET name = 'a' WHERE id = 2",
            0,
            "column `name` is b, expected a",
        ),
        (
            "UPDATE item SET name = NULL WHERE id = 2",
            "UPDATE item SET name = 'a' WHERE id = 2",
            0,
            "column `name` is NULL, expected a",
        ),
        (
            "UPDATE item SET name = 'c' WHERE id = 3",
            "UPDATE item SET name = NULL WHERE id = 3",
            0,
            "column `name` is c, expected NULL",
        ),
        ("DELETE FROM part WHERE item_id = 2", "INSERT INTO part VALUES (2, 1, 'x')", 1, "rows are missing"),
        (
            "UPDATE part SET line = 9 WHERE what = 'z'",
            "UPDATE part SET line = 2 WHERE what = 'z'",
            1,
            "rows are missing",
        ),
    ] {
        live.execute(sql);
        if on == On::Postgres && sql.starts_with("UPDATE item") {
            // The staged copy of a row says nothing of what it should be.
            live.execute(&sql.replace("item", "staging.item"));
        }
        assert_eq!(how(at).await.as_deref(), Some(expected), "{sql}");
        live.execute(back);
        assert_eq!(how(at).await, None, "{back}");
    }
}

/// Names of items.
type Names<'a> = &'a [Option<&'static str>];

/// Rows that production gets, and others that were expected.
struct Twisted {
    sent: RecordBatch,
    expected: RecordBatch,
    mapped: RecordBatch,
}

impl RowSource for Twisted {
    fn staged_rows(&self, _: TableIndex) -> Result<Batches<'_>> {
        Ok(stream::iter([Ok(self.sent.clone())]).boxed())
    }

    fn expected_rows(&self, _: TableIndex) -> Result<Batches<'_>> {
        Ok(stream::iter([Ok(self.expected.clone())]).boxed())
    }

    fn key_map(&self, _: TableIndex) -> Result<Batches<'_>> {
        Ok(stream::iter([Ok(self.mapped.clone())]).boxed())
    }

    fn mismatch_error(&self, at: TableIndex, how: &str) -> Error {
        Error::data(format!("{}: {how}", at.get()))
    }
}

async fn direct_rows_are_compared_with_the_expected_ones(on: On) {
    let live = Live::new(on, SQL);
    let (item, _) = both(&live).await;
    let before = live.rows("SELECT id, name FROM item");
    let both = [Some("a"), None];
    let cases: [(Names<'_>, Names<'_>, Option<&str>); 6] = [
        (&[Some("a"), Some("c")], &both, Some("0: column `name` is c, expected NULL")),
        (&both, &[Some("a"), Some("c")], Some("0: column `name` is NULL, expected c")),
        (&both, &[Some("b"), None], Some("0: column `name` is a, expected b")),
        (&[Some("a")], &both, Some("0: rows are missing")),
        (&both, &[Some("a")], Some("0: there are more rows")),
        (&both, &both, None),
    ];
    for (sent, expected, how) in cases {
        let mut load = live.writer().await.begin(&"r1".into(), LoadMode::Commit).await.unwrap();
        let request = KeyRequest {
            table: "item".into(),
            column: "id".into(),
            start: StartRowNumber::Auto,
            sequence: SequenceUse::default(),
            count: 2,
            text: None,
            largest: i32::MAX.into(),
        };
        announce(load.as_mut(), "r1", &[&request.table]).await;
        let first = load.reserve(&request).await.unwrap().first;
        assert_eq!(load.direct_path(std::slice::from_ref(&item)), [true]);
        let part = |names: Names<'_>| -> Part<'_> {
            (&item, vec![("id", numbers((first..).take(names.len()))), ("name", texts(names.iter().copied()))])
        };
        let delta =
            Twisted { sent: staged(&part(sent)), expected: staged(&part(expected)), mapped: mapped(&part(expected)) };
        let mut load = load.begin_insert(std::slice::from_ref(&item)).await.unwrap();
        let found = load.insert(std::slice::from_ref(&item), &delta).await.map_err(Error::from);
        let Some(how) = how else {
            assert_eq!(found.unwrap(), [Inserted { rows: 2, mappings: 2, verified: true }]);
            continue;
        };
        assert_eq!(found.unwrap_err().to_string(), how);
        drop(load);
        live.quiet().await;
        assert_eq!(live.rows("SELECT id, name FROM item"), before);
    }
}

/// A trigger on `item` that does something with each new row.
fn trigger(live: &Live, sqlite: &str, postgres: &str) {
    live.execute(&live.on.choose(
        format!("CREATE TRIGGER noted {sqlite}; END"),
        format!(
            "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {postgres}; END $$;
             CREATE TRIGGER noted BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION noted()"
        ),
    ));
}

async fn a_trigger_that_changes_rows_is_seen_before_the_commit(on: On) {
    let live = Live::new(on, SQL);
    trigger(
        &live,
        "AFTER INSERT ON item WHEN new.id = 3 BEGIN UPDATE item SET name = 'filled' WHERE id = 3",
        "IF new.id = 3 THEN new.name := 'filled'; END IF; RETURN new",
    );
    let (item, _) = both(&live).await;
    let parts = [item_part(&item)];
    let load = begin(live.writer().await.as_ref(), "r1", &parts).await.unwrap();
    let mut load = insert(load, &parts).await.unwrap();
    let how = load.compare(&item, TableIndex::new(0), &Rows(&parts)).await.unwrap();
    assert_eq!(how.as_deref(), Some("column `name` is filled, expected NULL"));
}

async fn a_trigger_that_swallows_rows_is_seen_before_the_commit(on: On) {
    let live = Live::new(on, SQL);
    trigger(
        &live,
        "BEFORE INSERT ON item WHEN new.id = 3 BEGIN SELECT RAISE(IGNORE)",
        "IF new.id = 3 THEN RETURN NULL; END IF; RETURN new",
    );
    let (item, _) = both(&live).await;
    let parts = [item_part(&item)];
    let load = begin(live.writer().await.as_ref(), "r1", &parts).await.unwrap();
    let mut load = load.begin_insert(std::slice::from_ref(&item)).await.unwrap();
    let found = load.insert(std::slice::from_ref(&item), &Rows(&parts)).await.unwrap();
    assert_eq!(found, [Inserted { rows: 1, mappings: 2, verified: false }]);
    let how = load.compare(&item, TableIndex::new(0), &Rows(&parts)).await.unwrap();
    assert_eq!(how.as_deref(), Some("rows are missing"));
    let totals = load.aggregates(&item, &[("id".into(), Aggregate::Sum)]).await.unwrap();
    assert_eq!(lines(&[totals]), ["1|2"]);
}

async fn totals_are_those_of_the_rows_that_were_inserted(on: On) {
    let live = Live::new(
        on,
        "CREATE TABLE item (
            id INTEGER PRIMARY KEY, whole BIGINT, amount NUMERIC(12,2), share DOUBLE PRECISION, name VARCHAR(20), day DATE,
            at TIME, moment TIMESTAMP, yes BOOLEAN);
        INSERT INTO item (id, whole, amount, name) VALUES (1, 1000000, 1000000, 'zzz'), (99, -1000000, NULL, '')",
    );
    let item = live.ready("item").await;
    let decimals = Decimal128Array::from(vec![Some(-150), Some(1), None, Some(999_999_999_999)]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", numbers([10, 11, 12, 13])),
        ("whole", numbers([Some(5), None, Some(-7), Some(1 << 60)])),
        ("amount", Arc::new(decimals.with_precision_and_scale(12, 2).unwrap())),
        ("share", Arc::new(Float64Array::from(vec![Some(0.1), Some(-2.5), None, Some(1e300)]))),
        ("name", texts([Some("b"), Some("Ä"), None, Some("B")])),
        ("day", Arc::new(Date32Array::from(vec![Some(-1), None, Some(20_000), Some(0)]))),
        ("at", Arc::new(Time64MicrosecondArray::from(vec![Some(86_399_999_999), None, Some(0), Some(1)]))),
        ("moment", Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None, None, Some(1_700_000_000_123_456)]))),
        ("yes", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), None]))),
    ];
    let parts = [(&item, columns)];
    let load = begin(live.writer().await.as_ref(), "r1", &parts).await.unwrap();
    let mut load = insert(load, &parts).await.unwrap();
    let cases = [
        ("id", Aggregate::NonNull, "4"),
        ("id", Aggregate::Sum, "46"),
        ("id", Aggregate::Min, "10"),
        ("id", Aggregate::Max, "13"),
        ("whole", Aggregate::NonNull, "3"),
        ("whole", Aggregate::Sum, "1152921504606846974"),
        ("whole", Aggregate::Min, "-7"),
        ("whole", Aggregate::Max, "1152921504606846976"),
        ("amount", Aggregate::NonNull, "3"),
        ("amount", Aggregate::Sum, "999999999850"),
        ("amount", Aggregate::Min, "-1.50"),
        ("amount", Aggregate::Max, "9999999999.99"),
        ("share", Aggregate::NonNull, "3"),
        ("share", Aggregate::Min, "-2.5"),
        ("share", Aggregate::Max, "1e300"),
        ("name", Aggregate::NonNull, "3"),
        ("name", Aggregate::Min, "B"),
        ("name", Aggregate::Max, "Ä"),
        ("day", Aggregate::NonNull, "3"),
        ("day", Aggregate::Min, "1969-12-31"),
        ("day", Aggregate::Max, "2024-10-04"),
        ("at", Aggregate::Min, "00:00:00"),
        ("at", Aggregate::Max, "23:59:59.999999"),
        ("moment", Aggregate::NonNull, "2"),
        ("moment", Aggregate::Min, "1969-12-31T23:59:59.999999"),
        ("moment", Aggregate::Max, "2023-11-14T22:13:20.123456"),
        ("yes", Aggregate::NonNull, "2"),
    ];
    let asked: Vec<_> = cases.iter().map(|(name, total, _)| ((*name).to_owned(), *total)).collect();
    let found = load.aggregates(&item, &asked).await.unwrap();
    assert_eq!(found.num_rows(), 1);
    assert_eq!(shown(found.column(0), 0), "4");
    for (at, (name, total, expected)) in cases.iter().enumerate() {
        assert_eq!(shown(found.column(at + 1), 0), *expected, "{total:?} of {name}");
    }
}

async fn totals_of_texts_are_by_bytes(on: On) {
    let collation = on.choose("NOCASE", "\"und-x-icu\"");
    let live = Live::new(on, &format!("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT COLLATE {collation})"));
    let item = live.ready("item").await;
    let parts = [(&item, vec![("id", numbers([1, 2, 3, 4])), ("name", texts(["b", "A", "C", "a"]))])];
    let load = begin(live.writer().await.as_ref(), "r1", &parts).await.unwrap();
    let mut load = insert(load, &parts).await.unwrap();
    let asked = [("name".to_owned(), Aggregate::Min), ("name".to_owned(), Aggregate::Max)];
    assert_eq!(lines(&[load.aggregates(&item, &asked).await.unwrap()]), ["4|A|b"]);
}

async fn only_one_load_is_at_work(on: On) {
    let mut live = Live::new(on, SQL);
    live.load.lock_timeout = Timeout::from_secs(1);
    let (item, _) = both(&live).await;
    let (first, second) = (live.writer().await, live.writer().await);
    let parts = [item_part(&item)];
    let load = begin(first.as_ref(), "r1", &parts).await.unwrap();
    let error = second.begin(&"r2".into(), LoadMode::Commit).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(error.to_string().starts_with("run r1, since 20"), "{error}");
    assert!(error.next_step().unwrap().contains("run again when it is done"), "{error:?}");
    // Who came second leaves the first in peace.
    let mut load = insert(load, &parts).await.unwrap().finish();
    load.record_run(&record("r1"), &[]).await.unwrap();
    load.commit().await.unwrap();
    assert!(second.lock(&"r2".into()).await.is_err(), "rows are read back before anybody else stages");
    first.unlock().await.unwrap();
    let part: Part<'_> = (&item, vec![("id", numbers([7])), ("name", texts(["b"]))]);
    super::rows::load(second.as_ref(), "r2", &[part]).await.unwrap();
    assert_eq!(live.rows("SELECT id FROM item ORDER BY 1"), ["1", "2", "3", "7"]);
}

async fn production_is_read_as_it_was_while_a_load_is_at_work(on: On) {
    let live = Live::new(on, SQL);
    let (item, part) = both(&live).await;
    let parts = [item_part(&item), part_part(&part)];
    let load = begin(live.writer().await.as_ref(), "r1", &parts).await.unwrap();
    let mut load = insert(load, &parts).await.unwrap().finish();
    announce(load.as_mut(), "r1", &[]).await;
    load.record_run(&record("r1"), &[file("h1", "item", "r1")]).await.unwrap();
    for access in [Access::Read, Access::Write] {
        let target = live.open(access).await.unwrap();
        assert_eq!(target.catalog().await.unwrap().names(), ["item", "part"]);
        assert_eq!(lines(&taken(target.scan("item", &["id".into()], &[], None).await).await), ["1"]);
        let lookup = Lookup::new(Relation::Production("item".into()), vec!["id".into()], vec!["name".into()]);
        let asked_ids = batch(vec![("_id", counted(0, 3)), ("k", numbers([1, 2, 3]))]);
        assert_eq!(lines(&target.lookup(&lookup, &[asked_ids]).await.unwrap()), ["0|there"]);
        assert!(target.runs().await.unwrap().is_empty());
        assert!(taken(target.key_map(&item).await).await.is_empty());
        assert!(target.loaded_files(&asked(&[("item", "h1")])).await.unwrap().is_empty());
        target.preflight(std::slice::from_ref(&item), access).await.unwrap();
    }
    load.commit().await.unwrap();
    let target = live.reader().await;
    assert_eq!(lines(&taken(target.scan("item", &["id".into()], &[], None).await).await), ["1", "2", "3"]);
    assert_eq!(target.runs().await.unwrap().len(), 1);
}

async fn columns_that_a_load_leaves_out_get_their_defaults(on: On) {
    let live = Live::new(
        on,
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(20) DEFAULT 'default', other VARCHAR(20),
            twice INTEGER GENERATED ALWAYS AS (id * 2) STORED)",
    );
    let item = live.destination("item", &["other", "id"]).await;
    live.set_up(&[&item]).await;
    let target = live.writer().await;
    let parts = [(&item, vec![("id", numbers([21])), ("other", texts(["o"]))])];
    load(target.as_ref(), "r1", &parts).await.unwrap();
    assert_eq!(live.rows("SELECT id, name, other, twice FROM item"), ["21|default|o|42"]);
    let expected = stream::iter([Ok(staged(&parts[0]))]).boxed();
    assert_eq!(target.compare(&item, expected).await.unwrap(), None);
    assert_eq!(lines(&[mapped(&parts[0])]), ["0|L21|21"]);
}
