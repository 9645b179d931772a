//! Keys: foreseen, reserved, and never given twice.

use delta_pipeline::internals::error::{Error, Kind};
use delta_pipeline::internals::spec::StartRowNumber;
use delta_pipeline::internals::target::{
    AssignedKey, Destination, KeyBlock, KeyRequest, LoadMode, SequenceUse, Target, TextKey,
};

use super::live::{Live, On};
use super::rows::{Part, announce, insert, numbers, record, stage, texts};

each_target!(
    async
    keys_go_on_where_production_ends,
    keys_of_a_failed_run_are_not_given_to_others,
    keys_may_start_where_nothing_is,
    keys_may_not_start_where_something_is,
    application_continues_after_the_keys_of_a_run,
    keys_beyond_the_largest_are_an_overflow,
    keys_past_the_largest_number_overflow_and_stay_unused,
    no_rows_need_no_keys,
    text_keys_count_their_own_kind,
    text_keys_end_with_their_width,
    to_foresee_keys_takes_none,
);

const SERIAL: &str = "
    CREATE TABLE item (id {serial}, name VARCHAR(20));
    INSERT INTO item (name) VALUES ('a'), ('b'), ('c');";

fn request(count: u64) -> KeyRequest {
    KeyRequest {
        table: "item".into(),
        column: "id".into(),
        start: StartRowNumber::Auto,
        sequence: SequenceUse::default(),
        count,
        text: None,
        largest: i32::MAX.into(),
    }
}

fn at(first: i64, count: u64) -> KeyRequest {
    KeyRequest { start: StartRowNumber::At(first), ..request(count) }
}

fn text(prefix: &str, width: usize, count: u64) -> KeyRequest {
    let text = TextKey { prefix: prefix.into(), width };
    KeyRequest { column: "no".into(), largest: text.largest(), text: Some(text), ..request(count) }
}

fn keys(block: &KeyBlock) -> (i64, i64) {
    assert_eq!(block.table, "item");
    (block.first, block.last)
}

/// A table whose rows are given keys, with everything made.
async fn assigned(live: &Live, table: &str) -> Destination {
    let mut destination = live.ready(table).await;
    let key = destination.key[0].clone();
    destination.assigned = Some(AssignedKey::new(key, StartRowNumber::Auto));
    live.set_up(&[&destination]).await;
    destination
}

/// Foresees the block of one request.
async fn foresee(target: &dyn Target, request: &KeyRequest) -> Result<KeyBlock, Error> {
    Ok(target.preview_keys(std::slice::from_ref(request)).await?.remove(0))
}

/// Foresees a block, reserves it in a run that commits, and holds one against the other.
async fn committed(target: &dyn Target, run: &str, request: &KeyRequest) -> Result<(i64, i64), Error> {
    let foreseen = foresee(target, request).await;
    let mut load = target.begin(&run.into(), LoadMode::Commit).await?;
    announce(load.as_mut(), run, &[&request.table]).await;
    let reserved = load.reserve(request).await;
    match (foreseen, reserved) {
        (Ok(foreseen), Ok(reserved)) => {
            assert_eq!(foreseen, reserved);
            let mut load = load.begin_insert(&[]).await.unwrap().finish();
            load.record_run(&record(run), &[]).await?;
            load.commit().await?;
            Ok(keys(&reserved))
        }
        (Err(foreseen), Err(reserved)) => {
            assert_eq!(foreseen.kind(), reserved.kind(), "{foreseen} / {reserved}");
            Err(reserved)
        }
        (foreseen, reserved) => panic!("foreseen: {foreseen:?}, reserved: {reserved:?}"),
    }
}

async fn refused(live: &Live, target: &dyn Target, request: &KeyRequest, what: &str) {
    let error = committed(target, "refused", request).await.unwrap_err();
    live.quiet().await;
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    // Where a sequence gives the keys, it is the sequence that ends.
    let ends = what == "overflow" && error.to_string().contains("ends at");
    assert!(ends || error.to_string().contains(what), "{error}");
    assert!(error.next_step().is_some_and(|hint| !hint.is_empty()), "{error:?}");
}

async fn keys_go_on_where_production_ends(on: On) {
    for sql in [SERIAL, "CREATE TABLE item (id INTEGER PRIMARY KEY); INSERT INTO item VALUES (-7), (3), (1)"] {
        let live = Live::new(on, sql);
        assigned(&live, "item").await;
        let target = live.writer().await;
        assert_eq!(committed(target.as_ref(), "r1", &request(10)).await.unwrap(), (4, 13));
        // Nothing was inserted, and the keys are gone all the same.
        assert_eq!(committed(target.as_ref(), "r2", &request(1)).await.unwrap(), (14, 14));
        let empty = Live::new(on, sql.split("INSERT").next().unwrap());
        assigned(&empty, "item").await;
        assert_eq!(committed(empty.writer().await.as_ref(), "r1", &request(2)).await.unwrap(), (1, 2));
    }
}

async fn keys_of_a_failed_run_are_not_given_to_others(on: On) {
    let live = Live::new(on, SERIAL);
    assigned(&live, "item").await;
    let target = live.writer().await;
    let mut load = target.begin(&"failed".into(), LoadMode::Commit).await.unwrap();
    announce(load.as_mut(), "failed", &[&request(10).table]).await;
    let failed = load.reserve(&request(10)).await.unwrap();
    drop(load);
    live.quiet().await;
    // Either the whole reservation is forgotten or it stands.
    let next = committed(target.as_ref(), "r2", &request(5)).await.unwrap();
    assert!(next == (failed.first, failed.first + 4) || next == (failed.last + 1, failed.last + 5), "{next:?}");
    assert_eq!(committed(target.as_ref(), "r3", &request(1)).await.unwrap().0, next.1 + 1);
}

async fn keys_may_start_where_nothing_is(on: On) {
    for sql in [SERIAL, "CREATE TABLE item (id INTEGER PRIMARY KEY); INSERT INTO item VALUES (1), (3)"] {
        let live = Live::new(on, sql);
        assigned(&live, "item").await;
        let target = live.writer().await;
        assert_eq!(committed(target.as_ref(), "r1", &at(1000, 10)).await.unwrap(), (1000, 1009));
        assert_eq!(committed(target.as_ref(), "r2", &at(1010, 1)).await.unwrap(), (1010, 1010));
        assert_eq!(committed(target.as_ref(), "r3", &at(500, 500)).await.unwrap(), (500, 999));
        assert_eq!(committed(target.as_ref(), "r4", &request(1)).await.unwrap(), (1011, 1011));
    }
}

async fn keys_may_not_start_where_something_is(on: On) {
    for sql in [SERIAL, "CREATE TABLE item (id INTEGER PRIMARY KEY); INSERT INTO item VALUES (1), (3)"] {
        let live = Live::new(on, sql);
        assigned(&live, "item").await;
        let target = live.writer().await;
        refused(&live, target.as_ref(), &at(3, 1), "key 3 is in production").await;
        refused(&live, target.as_ref(), &at(-5, 9), "is in production").await;
        committed(target.as_ref(), "r1", &at(100, 10)).await.unwrap();
        for (first, count) in [(100, 10), (109, 1), (95, 6), (90, 100), (105, 2)] {
            refused(&live, target.as_ref(), &at(first, count), "run r1 has the keys 100 to 109").await;
        }
        assert_eq!(committed(target.as_ref(), "r2", &at(110, 5)).await.unwrap(), (110, 114));
    }
}

async fn application_continues_after_the_keys_of_a_run(on: On) {
    for (start, expected) in [(StartRowNumber::Auto, "6"), (StartRowNumber::At(100), "102")] {
        let live = Live::new(on, SERIAL);
        let item = assigned(&live, "item").await;
        let mut load = live.writer().await.begin(&"r1".into(), LoadMode::Commit).await.unwrap();
        announce(load.as_mut(), "r1", &[&request(2).table]).await;
        let block = load.reserve(&KeyRequest { start, ..request(2) }).await.unwrap();
        let parts: [Part<'_>; 1] =
            [(&item, vec![("id", numbers([block.first, block.last])), ("name", texts(["d", "e"]))])];
        load.clear_staging(std::slice::from_ref(&item)).await.unwrap();
        stage(load.as_mut(), &parts[0]).await.unwrap();
        let load = insert(load, &parts).await.unwrap();
        load.finish().commit().await.unwrap();
        live.execute("INSERT INTO item (name) VALUES ('the application')");
        assert_eq!(live.text("SELECT id FROM item WHERE name = 'the application'"), expected);
    }
}

async fn keys_beyond_the_largest_are_an_overflow(on: On) {
    let last = i64::from(i32::MAX);
    for sql in [SERIAL, "CREATE TABLE item (id INTEGER PRIMARY KEY)"] {
        let live = Live::new(on, sql);
        assigned(&live, "item").await;
        let target = live.writer().await;
        refused(&live, target.as_ref(), &at(last - 1, 3), "overflow").await;
        refused(&live, target.as_ref(), &at(i64::MAX, 2), "overflow").await;
        refused(&live, target.as_ref(), &request(u64::from(u32::MAX)), "overflow").await;
        assert_eq!(committed(target.as_ref(), "r1", &at(last - 1, 2)).await.unwrap(), (last - 1, last));
        refused(&live, target.as_ref(), &request(1), "overflow").await;
    }
}

async fn keys_past_the_largest_number_overflow_and_stay_unused(on: On) {
    let live =
        Live::new(on, &format!("CREATE TABLE item (id BIGINT PRIMARY KEY); INSERT INTO item VALUES ({})", i64::MAX));
    assigned(&live, "item").await;
    let target = live.writer().await;
    for count in [1, 2, 1000] {
        let request = KeyRequest { largest: i64::MAX, ..request(count) };
        refused(&live, target.as_ref(), &request, "overflow").await;
    }
    let empty = foresee(target.as_ref(), &KeyRequest { largest: i64::MAX, ..request(0) }).await.unwrap();
    assert_eq!(empty.last, empty.first - 1);
}

async fn no_rows_need_no_keys(on: On) {
    let live = Live::new(on, SERIAL);
    assigned(&live, "item").await;
    let target = live.writer().await;
    for request in [request(0), at(3, 0), at(1000, 0)] {
        let (first, last) = committed(target.as_ref(), &format!("{:?}", request.start), &request).await.unwrap();
        assert_eq!(last, first - 1);
    }
    assert_eq!(keys(&foresee(target.as_ref(), &request(1)).await.unwrap()), (4, 4));
}

async fn text_keys_count_their_own_kind(on: On) {
    for (prefix, others) in [
        ("C-", "('D-000900'), ('C-x00009'), ('C-00000008'), ('c-000900'), ('C-00000'), ('C_000900')"),
        ("*[?", "('*[?x0'), ('xxx00900'), ('?[*00900')"),
        ("'\"%_", "('xxxx0900'), ('''\"%x0900')"),
        ("é\\.", "('é\\\\.0900'), ('é\\x00900')"),
        ("", "('9999999'), ('999999999'), ('99999x99')"),
    ] {
        let seven = TextKey { prefix: prefix.into(), width: 8 }.format(7).replace('\'', "''");
        let live = Live::new(
            on,
            &format!("CREATE TABLE item (no VARCHAR(12) PRIMARY KEY); INSERT INTO item VALUES ('{seven}'), {others}"),
        );
        assigned(&live, "item").await;
        let target = live.writer().await;
        assert_eq!(committed(target.as_ref(), "r1", &text(prefix, 8, 3)).await.unwrap(), (8, 10), "{prefix}");
        assert_eq!(committed(target.as_ref(), "r2", &text(prefix, 8, 1)).await.unwrap(), (11, 11), "{prefix}");
        let start = |first, count| KeyRequest { start: StartRowNumber::At(first), ..text(prefix, 8, count) };
        refused(&live, target.as_ref(), &start(5, 3), "key 7 is in production").await;
        refused(&live, target.as_ref(), &start(10, 1), "run r1 has the keys 8 to 10").await;
        assert_eq!(committed(target.as_ref(), "r3", &start(5, 2)).await.unwrap(), (5, 6), "{prefix}");
    }
}

async fn text_keys_end_with_their_width(on: On) {
    let live = Live::new(on, "CREATE TABLE item (no VARCHAR(12) PRIMARY KEY); INSERT INTO item VALUES ('C97')");
    assigned(&live, "item").await;
    let target = live.writer().await;
    refused(&live, target.as_ref(), &text("C", 3, 3), "overflow").await;
    assert_eq!(committed(target.as_ref(), "r1", &text("C", 3, 2)).await.unwrap(), (98, 99));
    refused(&live, target.as_ref(), &text("C", 3, 1), "overflow").await;
}

async fn to_foresee_keys_takes_none(on: On) {
    let live = Live::new(on, SERIAL);
    assigned(&live, "item").await;
    let target = live.reader().await;
    for _ in 0..2 {
        assert_eq!(keys(&foresee(target.as_ref(), &request(10)).await.unwrap()), (4, 13));
        assert_eq!(keys(&foresee(target.as_ref(), &at(50, 10)).await.unwrap()), (50, 59));
    }
    live.execute("INSERT INTO item (name) VALUES ('the application')");
    assert_eq!(live.text("SELECT max(id) FROM item"), "4");
    assert_eq!(keys(&foresee(target.as_ref(), &request(1)).await.unwrap()), (5, 5));
}
