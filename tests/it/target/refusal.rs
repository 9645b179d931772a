//! What production refuses though the checks had passed: which rows, and that nothing of the load stays.

use arrow::array::{ArrayRef, Int64Array};
use delta_pipeline::internals::engine::RowNumber;
use delta_pipeline::internals::error::{Error, Kind};
use delta_pipeline::internals::spec::ForeignKeys;
use delta_pipeline::internals::target::{
    CommitCheck, CommitCheckKind, ConstraintViolation, Destination, InsertError, InsertPhase,
};
use std::sync::Arc;

use super::live::{Live, On};
use super::rows::{Part, Rows, begin, insert, lines, load, numbered, numbers, record, refused, taken, texts};

each_target!(
    async
    a_value_that_was_taken_meanwhile,
    values_of_several_columns_that_were_taken_meanwhile,
    a_key_that_was_taken_meanwhile,
    a_value_that_is_twice_in_the_load,
    a_value_that_may_not_be_missing,
    a_row_that_is_gone_meanwhile,
    rows_that_refer_to_each_other_are_not_refused_as_orphans,
    a_reference_that_is_checked_at_the_end,
    a_condition_that_rows_fail,
    a_trigger_that_raises,
    a_promise_that_a_value_is_free,
    a_promise_that_a_value_is_free_in_any_case_of_its_letters,
    a_promise_that_a_row_is_there,
    a_promise_that_a_row_still_has_the_value_that_led_to_it,
    legacy_keys_that_another_run_has_converted,
    references_checked_as_sets,
    a_reference_to_nothing_among_references_checked_as_sets,
    a_reference_of_several_columns_to_nothing,
    rows_of_one_table_that_refer_to_each_other,
);

const SQL: &str = "
    CREATE TABLE owner (id INTEGER PRIMARY KEY, name VARCHAR(20));
    CREATE TABLE item (
        id INTEGER PRIMARY KEY, name VARCHAR(20) UNIQUE, a INTEGER, b INTEGER, must VARCHAR(20) NOT NULL,
        owner_id INTEGER REFERENCES owner, price INTEGER CONSTRAINT positive CHECK (price > 0), UNIQUE (a, b));
    INSERT INTO owner VALUES (1, 'one'), (2, 'two'), (3, 'three');
    INSERT INTO item VALUES (1, 'there', 1, 1, 'x', 1, 1);";

/// Five rows of `item`, 10 to 14, with some columns as told.
fn rows<'a>(item: &'a Destination, told: Vec<(&'a str, ArrayRef)>) -> Part<'a> {
    let mut columns = vec![
        ("id", numbers([10, 11, 12, 13, 14])),
        ("name", texts(["n0", "n1", "n2", "n3", "n4"])),
        ("a", numbers([1, 2, 3, 4, 5])),
        ("b", numbers([5, 6, 7, 8, 9])),
        ("must", texts(["m"; 5])),
        ("owner_id", numbers([Some(1), Some(2), None, Some(2), Some(3)])),
        ("price", numbers([1, 2, 3, 4, 5])),
    ];
    for (name, values) in told {
        columns.iter_mut().find(|(column, _)| *column == name).unwrap().1 = values;
    }
    (item, columns)
}

/// Stages rows, has another program do something `meanwhile`, and inserts. Where a load keeps all others out, they were
/// faster.
async fn insert_after(live: &Live, meanwhile: &str, parts: &[Part<'_>]) -> Result<Box<dyn InsertPhase>, InsertError> {
    let target = live.writer().await;
    if live.on == On::Sqlite {
        live.execute(meanwhile);
    }
    let load = begin(target.as_ref(), "r", parts).await.unwrap();
    if live.on == On::Postgres {
        live.execute(meanwhile);
    }
    insert(load, parts).await
}

/// What is refused, and that nothing of it stays.
async fn refusal(live: &Live, meanwhile: &str, parts: &[Part<'_>]) -> ConstraintViolation {
    let refusal = refused(insert_after(live, meanwhile, parts).await);
    nothing_stays(live, parts).await;
    refusal
}

/// As [`refusal`], of what is asked last: where others may write while a load inserts, they do when it has inserted.
async fn last_refusal(live: &Live, meanwhile: &str, parts: &[Part<'_>]) -> ConstraintViolation {
    if live.on == On::Sqlite {
        return refusal(live, meanwhile, parts).await;
    }
    let mut load = insert_after(live, "SELECT 1", parts).await.unwrap().finish();
    live.execute(meanwhile);
    load.record_run(&record("r"), &[]).await.unwrap();
    let refusal = refused(load.commit().await);
    nothing_stays(live, parts).await;
    refusal
}

async fn nothing_stays(live: &Live, parts: &[Part<'_>]) {
    live.quiet().await;
    let target = live.reader().await;
    for (destination, _) in parts {
        let found = live.text(&format!("SELECT count(*) FROM {} WHERE id BETWEEN 10 AND 19", destination.table.name));
        assert_eq!(found, "0");
        let mapped = lines(&taken(target.key_map(destination).await).await);
        assert!(mapped.iter().all(|line| !line.ends_with("|r")), "{mapped:?}");
    }
    assert!(target.runs().await.unwrap().iter().all(|run| run.id != "r"));
}

/// Holds that a table's rows are refused, and by what.
fn is(refusal: &ConstraintViolation, table: &str, constraint: &str, rows: &[u32]) {
    let rows: Vec<_> = rows.iter().map(|row| RowNumber::new(u64::from(*row))).collect();
    assert_eq!((refusal.table.as_str(), &refusal.rows), (table, &rows), "{refusal:?}");
    assert!(refusal.constraint.contains(constraint), "{refusal:?}");
    let error = Error::from(InsertError::Violation(refusal.clone()));
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains(&format!("`{table}`")) && error.next_step().is_some(), "{error:?}");
}

const INSERT: &str = "INSERT INTO item (id, name, a, b, must) VALUES";

async fn a_value_that_was_taken_meanwhile(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let refusal =
        refusal(&live, &format!("{INSERT} (2, 'n1', 0, 0, ''), (3, 'n4', 0, 1, '')"), &[rows(&item, vec![])]).await;
    is(&refusal, "item", "name", &[1, 4]);
}

async fn values_of_several_columns_that_were_taken_meanwhile(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let refusal =
        refusal(&live, &format!("{INSERT} (2, 'x', 3, 7, ''), (3, 'y', 3, 6, '')"), &[rows(&item, vec![])]).await;
    is(&refusal, "item", on.choose("item.a, item.b", "item_a_b_key"), &[2]);
}

async fn a_key_that_was_taken_meanwhile(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let part = rows(&item, vec![]);
    let result = insert_after(&live, &format!("{INSERT} (13, 'x', 0, 0, '')"), &[part]).await;
    is(&refused(result), "item", on.choose("item.id", "item_pkey"), &[3]);
    live.quiet().await;
    assert_eq!(live.rows("SELECT id, name FROM item ORDER BY 1"), ["1|there", "13|x"]);
}

async fn a_value_that_is_twice_in_the_load(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let part = rows(&item, vec![("name", texts(["n0", "n1", "n0", "n3", "n4"]))]);
    let refusal = refusal(&live, "SELECT 1", &[part]).await;
    assert!(refusal.constraint.contains("name") && refusal.table == "item", "{refusal:?}");
}

async fn a_value_that_may_not_be_missing(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let part = rows(&item, vec![("must", texts([Some("m"), None, Some(""), None, Some("m")]))]);
    let refusal = refusal(&live, "SELECT 1", &[part]).await;
    assert_eq!(refusal.rows, numbered([1, 3]), "{refusal:?}");
    assert!(format!("{refusal}").contains("must"), "{refusal}");
}

async fn a_row_that_is_gone_meanwhile(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let refusal = refusal(&live, "DELETE FROM owner WHERE id = 2", &[rows(&item, vec![])]).await;
    is(&refusal, "item", on.choose("FOREIGN KEY", "item_owner_id_fkey"), &[1, 3]);
}

async fn rows_that_refer_to_each_other_are_not_refused_as_orphans(on: On) {
    let live = Live::new(on, SQL);
    let (owner, item) =
        (live.destination("owner", &["id", "name"]).await, live.destination("item", &["id", "must", "owner_id"]).await);
    live.set_up(&[&owner, &item]).await;
    let owners = (&owner, vec![("id", numbers([10, 11])), ("name", texts(["a", "b"]))]);
    let items = |owner_ids: [Option<i64>; 4]| {
        (&item, vec![("id", numbers([10, 11, 12, 13])), ("must", texts(["m"; 4])), ("owner_id", numbers(owner_ids))])
    };
    let parts = [owners.clone(), items([Some(10), Some(12), Some(1), Some(11)])];
    is(&refusal(&live, "SELECT 1", &parts).await, "item", "", &[1]);
    let parts = [owners, items([Some(10), None, Some(1), Some(11)])];
    load(live.writer().await.as_ref(), "r", &parts).await.unwrap();
    assert_eq!(live.rows("SELECT owner_id FROM item WHERE id >= 10 ORDER BY id"), ["10", "NULL", "1", "11"]);
}

const DEFERRED: &str = "
    CREATE TABLE owner (id INTEGER PRIMARY KEY);
    CREATE TABLE item (
        id INTEGER PRIMARY KEY, owner_id INTEGER REFERENCES owner (id) DEFERRABLE INITIALLY DEFERRED);";

async fn a_reference_that_is_checked_at_the_end(on: On) {
    let live = Live::new(on, DEFERRED);
    let (owner, item) = (live.destination("owner", &["id"]).await, live.destination("item", &["id", "owner_id"]).await);
    live.set_up(&[&owner, &item]).await;
    let items = |owners: [Option<i64>; 3]| -> Part<'_> {
        (&item, vec![("id", numbers([10, 11, 12])), ("owner_id", numbers(owners))])
    };
    let owners: Part<'_> = (&owner, vec![("id", numbers([10]))]);
    let parts = [items([Some(10), Some(7), None]), owners.clone()];
    let result = insert_after(&live, "SELECT 1", &parts).await;
    // SQLite names no constraint, so it is named by its columns.
    let constraint = on.choose("FOREIGN KEY (owner_id) REFERENCES owner", "item_owner_id_fkey");
    is(&refused(result), "item", constraint, &[1]);
    nothing_stays(&live, &parts).await;
    // The rows that are referred to may come last.
    let parts = [items([Some(10), None, Some(10)]), owners];
    super::rows::load(live.writer().await.as_ref(), "r", &parts).await.unwrap();
    assert_eq!(live.rows("SELECT owner_id FROM item ORDER BY id"), ["10", "NULL", "10"]);
}

async fn a_condition_that_rows_fail(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let part = rows(&item, vec![("price", numbers([Some(1), None, Some(0), Some(3), Some(-1)]))]);
    is(&refusal(&live, "SELECT 1", &[part]).await, "item", "positive", &[2]);
}

async fn a_trigger_that_raises(on: On) {
    let live = Live::new(on, SQL);
    live.execute(on.choose(
        "CREATE TRIGGER guard BEFORE INSERT ON item WHEN new.id = 12 BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF new.id = 12 THEN RAISE EXCEPTION 'not this one'; END IF; RETURN new; END $$;
         CREATE TRIGGER guard BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION guard()",
    ));
    let item = live.ready("item").await;
    let parts = [rows(&item, vec![])];
    let result = insert_after(&live, "SELECT 1", &parts).await;
    let error = Error::from(result.err().unwrap());
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert!(error.to_string().contains("not this one") && error.next_step().is_some(), "{error:?}");
    nothing_stays(&live, &parts).await;
}

fn commit_check(item: &Destination, what: CommitCheckKind) -> Destination {
    Destination { commit_checks: vec![CommitCheck { check: "the check".into(), what }], ..item.clone() }
}

fn free(columns: &[&str], ignore_case: &[&str]) -> CommitCheckKind {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    CommitCheckKind::Unique { columns: names(columns), ignore_case: names(ignore_case) }
}

async fn a_promise_that_a_value_is_free(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let promising = commit_check(&item, free(&["must", "b"], &[]));
    let changed = format!("{INSERT} (2, 'x', 0, 6, 'm'), (3, 'y', 0, 7, 'M'), (4, 'z', 0, 9, 'm')");
    let refusal = last_refusal(&live, &changed, &[rows(&promising, vec![])]).await;
    is(&refusal, "item", "the check", &[1, 4]);
    assert_eq!(refusal.reason, "another session has inserted these values");
    // Rows of the same load may have the same.
    let promising = commit_check(&item, free(&["must", "price"], &[]));
    let part = rows(&promising, vec![("id", numbers(20..25)), ("price", numbers([7; 5]))]);
    load(live.writer().await.as_ref(), "r", &[part]).await.unwrap();
}

async fn a_promise_that_a_value_is_free_in_any_case_of_its_letters(on: On) {
    let live = Live::new(on, SQL);
    let item = commit_check(&live.ready("item").await, free(&["must"], &["must"]));
    let part = rows(&item, vec![("must", texts(["a", "B", "ä", "Ä", "D"]))]);
    let changed = format!("{INSERT} (2, 'x', 0, 6, 'A'), (3, 'y', 0, 7, 'Ä'), (4, 'z', 0, 9, 'd')");
    is(&last_refusal(&live, &changed, &[part]).await, "item", "the check", &[0, 3, 4]);
}

async fn a_promise_that_a_row_is_there(on: On) {
    let live = Live::new(on, SQL);
    let what = CommitCheckKind::Reference {
        column: "a".into(),
        to: "owner".into(),
        to_column: "id".into(),
        with: Vec::new(),
        by: Vec::new(),
    };
    let item = commit_check(&live.ready("item").await, what);
    live.set_up(&[&item]).await;
    let a = |values: [Option<i64>; 5]| vec![("a", numbers(values)), ("owner_id", numbers([None; 5]))];
    let part = rows(&item, a([Some(2), Some(3), None, Some(2), Some(1)]));
    let refusal = refusal(&live, "DELETE FROM owner WHERE id = 2", &[part]).await;
    is(&refusal, "item", "the check", &[0, 3]);
    assert_eq!(refusal.reason, "the row of `owner` that they refer to was deleted concurrently");
    let part = rows(&item, a([Some(1), Some(3), None, Some(3), Some(1)]));
    load(live.writer().await.as_ref(), "r", &[part]).await.unwrap();
}

async fn a_promise_that_a_row_still_has_the_value_that_led_to_it(on: On) {
    let live = Live::new(on, SQL);
    let by = vec!["name".into()];
    let what = CommitCheckKind::Reference {
        column: "a".into(),
        to: "owner".into(),
        to_column: "id".into(),
        with: Vec::new(),
        by,
    };
    let item = commit_check(&live.ready("item").await, what);
    live.set_up(&[&item]).await;
    let a = || {
        let named = texts([Some("two"), Some("three"), None, Some("two"), Some("one")]);
        let a = numbers([Some(2), Some(3), None, Some(2), Some(1)]);
        vec![("a", a), ("owner_id", numbers([None; 5])), ("named", named)]
    };
    let part = || {
        let mut a = a();
        let named = a.pop().unwrap();
        let (item, mut columns) = rows(&item, a);
        columns.push(named);
        (item, columns)
    };
    let refusal = refusal(&live, "UPDATE owner SET name = 'second' WHERE id = 2", &[part()]).await;
    is(&refusal, "item", "the check", &[0, 3]);
    assert_eq!(
        refusal.reason,
        "the row of `owner` that they refer to was deleted concurrently, or its `name` was changed"
    );
    live.execute("UPDATE owner SET name = 'two' WHERE id = 2");
    load(live.writer().await.as_ref(), "r", &[part()]).await.unwrap();
}

async fn legacy_keys_that_another_run_has_converted(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let target = live.writer().await;
    let before = ["11", "14", "9"].map(|id| {
        let id: i64 = id.parse().unwrap();
        (&item, vec![("id", numbers([id])), ("must", texts(["m"]))])
    });
    let mut earlier = item.clone();
    earlier.columns = vec!["id".into(), "must".into()];
    for (at, (_, columns)) in before.into_iter().enumerate() {
        load(target.as_ref(), &format!("earlier {at}"), &[(&earlier, columns)]).await.unwrap();
    }
    // Production has forgotten the rows; the key map has not.
    live.execute("DELETE FROM item WHERE id > 1");
    let parts = [rows(&item, vec![])];
    let result = insert_after(&live, "SELECT 1", &parts).await;
    is(&refused(result), "item", "key_map", &[1, 4]);
    nothing_stays(&live, &parts).await;
    assert_eq!(target.runs().await.unwrap().len(), 3);
}

fn set_based(on: On, sql: &str) -> Live {
    let mut live = Live::new(on, sql);
    live.load.foreign_keys = ForeignKeys::SetBased;
    live
}

async fn references_checked_as_sets(on: On) {
    let live = set_based(on, SQL);
    let (owner, item) = (
        live.destination("owner", &["id", "name"]).await,
        live.destination("item", &["id", "name", "a", "b", "must", "owner_id", "price"]).await,
    );
    live.set_up(&[&owner, &item]).await;
    let owners = (&owner, vec![("id", numbers([4])), ("name", texts(["four"]))]);
    let items = rows(&item, vec![("owner_id", numbers([Some(4), Some(2), None, Some(2), Some(3)]))]);
    let target = live.writer().await;
    load(target.as_ref(), "r", &[owners, items]).await.unwrap();
    assert_eq!(live.rows("SELECT owner_id FROM item WHERE id >= 10 ORDER BY id"), ["4", "2", "NULL", "2", "3"]);
    // All else is held as ever.
    let items = rows(&item, vec![("id", numbers([20, 21, 22, 23, 24])), ("a", numbers([None; 5]))]);
    let again = begin(target.as_ref(), "r2", std::slice::from_ref(&items)).await.unwrap();
    is(&refused(insert(again, &[items]).await), "item", "name", &[0, 1, 2, 3, 4]);
}

async fn a_reference_to_nothing_among_references_checked_as_sets(on: On) {
    let live = set_based(on, SQL);
    let item = live.ready("item").await;
    let refusal = refusal(&live, "DELETE FROM owner WHERE id = 2", &[rows(&item, vec![])]).await;
    is(&refusal, "item", on.choose("FOREIGN KEY (owner_id) REFERENCES owner", "item_owner_id_fkey"), &[1, 3]);
    assert_eq!(refusal.reason, "`owner` has no such row");
    // The next load of the same program is held by it as well.
    live.execute("DELETE FROM owner WHERE id = 3");
    let target = live.writer().await;
    let parts = [rows(&item, vec![])];
    let load = begin(target.as_ref(), "r", &parts).await.unwrap();
    let refusal = refused(insert(load, &parts).await);
    is(&refusal, "item", on.choose("FOREIGN KEY", "item_owner_id_fkey"), &[1, 3, 4]);
}

const COMPOSITE: &str = "
    CREATE TABLE place (id INTEGER PRIMARY KEY, country CHAR(2) NOT NULL, zip VARCHAR(10) NOT NULL, UNIQUE (country, zip));
    CREATE TABLE item (
        id INTEGER PRIMARY KEY, zip VARCHAR(10), country CHAR(2),
        FOREIGN KEY (country, zip) REFERENCES place (country, zip));
    INSERT INTO place VALUES (1, 'DE', '1'), (2, 'DE', '2'), (3, 'FR', '1');";

async fn a_reference_of_several_columns_to_nothing(on: On) {
    for mut live in [Live::new(on, COMPOSITE), set_based(on, COMPOSITE)] {
        let item = live.ready("item").await;
        let columns = |zips: [Option<&str>; 5]| {
            vec![
                ("id", numbers([10, 11, 12, 13, 14])),
                ("zip", texts(zips)),
                ("country", texts([Some("DE"), Some("FR"), None, Some("FR"), Some("DE")])),
            ]
        };
        let parts = [(&item, columns([Some("1"), Some("2"), Some("9"), Some("1"), None]))];
        is(&refusal(&live, "DELETE FROM place WHERE id = 3", &parts).await, "item", "", &[1, 3]);
        let parts = [(&item, columns([Some("1"), None, Some("9"), None, Some("2")]))];
        load(live.writer().await.as_ref(), "r", &parts).await.unwrap();
        live.load.foreign_keys = ForeignKeys::Triggers;
        assert_eq!(live.text("SELECT count(*) FROM item"), "5");
    }
}

const TREE: &str = "
    CREATE TABLE node (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES node (id));
    INSERT INTO node VALUES (1, NULL);";

async fn rows_of_one_table_that_refer_to_each_other(on: On) {
    for live in [Live::new(on, TREE), set_based(on, TREE)] {
        let mut node = live.destination("node", &["id", "parent"]).await;
        node.self_referencing = true;
        live.set_up(&[&node]).await;
        // 13 is under 11, which is under 12, which is under 1; 10 is under itself.
        let levels = |levels: [i64; 4]| -> ArrayRef { Arc::new(Int64Array::from(levels.to_vec())) };
        let part = |parents: [Option<i64>; 4]| {
            let ids = numbers([13, 11, 12, 10]);
            [(&node, vec![("_level", levels([2, 1, 0, 0])), ("id", ids), ("parent", numbers(parents))])]
        };
        let lost = part([Some(11), Some(15), Some(1), Some(10)]);
        is(&refusal(&live, "SELECT 1", &lost).await, "node", on.choose("FOREIGN KEY", ""), &[1]);
        load(live.writer().await.as_ref(), "r", &part([Some(11), Some(12), Some(1), Some(10)])).await.unwrap();
        assert_eq!(live.rows("SELECT id, parent FROM node ORDER BY 1"), ["1|NULL", "10|10", "11|12", "12|1", "13|11"]);
    }
}

#[tokio::test]
async fn deferred_unique_constraint_is_checked_before_the_commit() {
    let live = Live::new(
        On::Postgres,
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(20), CONSTRAINT late UNIQUE (name) DEFERRABLE INITIALLY DEFERRED)",
    );
    let item = live.ready("item").await;
    let parts = [(&item, vec![("id", numbers([10, 11])), ("name", texts(["a", "b"]))])];
    let load = begin(live.writer().await.as_ref(), "r", &parts).await.unwrap();
    live.execute("INSERT INTO item VALUES (1, 'b')");
    let all = [item.clone()];
    let mut load = load.begin_insert(&all).await.unwrap();
    let inserted = load.insert(&all, &Rows(&parts)).await;
    let validated = match inserted {
        Ok(_) => load.validate_deferred(&all, &Rows(&parts)).await,
        Err(error) => Err(error),
    };
    is(&refused(validated), "item", "late", &[1]);
    // A load that continues after that inserts nothing.
    load.finish().record_run(&record("r"), &[]).await.unwrap_err();
    nothing_stays(&live, &parts).await;
}

#[tokio::test]
async fn row_of_an_inheriting_table_cannot_be_referred_to() {
    let sql = format!("{SQL} CREATE TABLE heir () INHERITS (owner); INSERT INTO heir VALUES (2, 'two')");
    for live in [Live::new(On::Postgres, &sql), set_based(On::Postgres, &sql)] {
        let item = live.ready("item").await;
        let refusal = refusal(&live, "DELETE FROM ONLY owner WHERE id = 2", &[rows(&item, vec![])]).await;
        is(&refusal, "item", "item_owner_id_fkey", &[1, 3]);
    }
}
