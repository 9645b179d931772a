//! Questions: look-ups by the delta's values, and scans with projection and filters.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, Decimal128Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use delta_pipeline::internals::target::{Filter, Lookup, Relation, Target, Test};

use super::live::{Live, On};
use super::rows::{batch, counted, lines, load, numbers, taken, texts};

each_target!(
    memory async
    each_match_is_an_answer,
    null_matches_nothing,
    several_columns_match_together,
    the_case_of_ascii_letters_may_count_for_nothing,
    only_rows_that_meet_a_condition_count,
    a_value_that_no_column_could_hold_is_found_nowhere,
    a_text_is_found_by_all_its_characters,
    numbers_with_decimals_and_days_are_found,
    nothing_asked_is_nothing_found,
    of_many_keys_those_at_the_ends_are_found,
    the_key_map_is_asked_by_legacy_key_and_by_key,
    a_scan_gives_the_columns_that_are_wanted,
    a_scan_leaves_out_what_its_filters_do,
    a_scan_without_columns_counts,
);

each_target!(async many_thousand_keys_are_found);

const ITEM: &str = "
    CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(5), grp CHAR(3), amount NUMERIC(8,2), since DATE);
    INSERT INTO item VALUES
        (1, 'a', 'x', 1.50, '2024-02-29'), (2, 'b', 'x', -2, NULL), (3, 'b', 'y', 1000.01, '1969-12-31'),
        (4, NULL, 'y', NULL, '2024-02-29'), (5, 'Zoë', NULL, 0, NULL), (6, 'zoë', 'z', 0.10, NULL);";

async fn live(on: On, sql: &str, table: &str) -> Live {
    let live = Live::new(on, sql);
    live.ready(table).await;
    live
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A question about `item`.
fn question(match_on: &[&str], give: &[&str]) -> Lookup {
    Lookup::new(Relation::Production("item".into()), names(match_on), names(give))
}

/// Asks for values, numbered from 10 on.
async fn ask(target: &dyn Target, lookup: &Lookup, values: Vec<ArrayRef>) -> Vec<String> {
    let asked = ["k0", "k1", "k2"].into_iter().zip(values.clone());
    let keys = batch([("_id", counted(10, values[0].len()))].into_iter().chain(asked).collect());
    let answer = target.lookup(lookup, &[keys]).await.unwrap();
    for batch in &answer {
        assert_eq!(batch.schema().field(0).data_type(), &DataType::Int64);
        let given: Vec<_> = batch.schema().fields().iter().skip(1).map(|field| field.name().clone()).collect();
        assert_eq!(given, lookup.give);
    }
    lines(&answer)
}

async fn each_match_is_an_answer(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let target = target.as_ref();
    let by_name = question(&["name"], &["grp", "id"]);
    assert_eq!(ask(target, &by_name, vec![texts(["a", "nobody", "b"])]).await, ["10|x|1", "12|x|2", "12|y|3"]);
    assert_eq!(ask(target, &by_name, vec![texts(["b", "b"])]).await, ["10|x|2", "10|y|3", "11|x|2", "11|y|3"]);
    assert_eq!(ask(target, &question(&["name"], &[]), vec![texts(["b", "a"])]).await, ["10", "10", "11"]);
    assert_eq!(ask(target, &question(&["id"], &["name"]), vec![numbers([7, 4])]).await, ["11|NULL"]);
}

async fn null_matches_nothing(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let by_name = question(&["name"], &["id"]);
    assert_eq!(ask(target.as_ref(), &by_name, vec![texts([None, Some("a"), Some("")])]).await, ["11|1"]);
    let both = question(&["name", "grp"], &["id"]);
    let asked = vec![texts([None, Some("Zoë"), Some("a")]), texts([Some("y"), None, Some("x")])];
    assert_eq!(ask(target.as_ref(), &both, asked).await, ["12|1"]);
}

async fn several_columns_match_together(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let lookup = question(&["grp", "name"], &["id", "grp"]);
    let asked = vec![texts(["x", "y", "x", "y"]), texts(["b", "b", "a", "a"])];
    assert_eq!(ask(target.as_ref(), &lookup, asked).await, ["10|2|x", "11|3|y", "12|1|x"]);
}

async fn the_case_of_ascii_letters_may_count_for_nothing(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let mut lookup = question(&["name", "grp"], &["id"]);
    let asked = vec![texts(["A", "zOë", "B", "ZOË"]), texts(["x", "z", "X", "z"])];
    assert_eq!(ask(target.as_ref(), &lookup, asked.clone()).await, [""; 0]);
    lookup.ignore_case = names(&["name"]);
    assert_eq!(ask(target.as_ref(), &lookup, asked.clone()).await, ["10|1", "11|6"]);
    lookup.ignore_case = names(&["name", "grp"]);
    assert_eq!(ask(target.as_ref(), &lookup, asked).await, ["10|1", "11|6", "12|2"]);
}

async fn only_rows_that_meet_a_condition_count(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let lookup = Lookup { condition: Some("\"grp\" = 'y' OR \"amount\" > 1".into()), ..question(&["name"], &["id"]) };
    assert_eq!(ask(target.as_ref(), &lookup, vec![texts(["a", "b", "zoë"])]).await, ["10|1", "11|3"]);
}

async fn a_value_that_no_column_could_hold_is_found_nowhere(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let target = target.as_ref();
    let long = "a".repeat(100_000);
    let asked = texts(["a     b", "abcdef", long.as_str(), "a"]);
    assert_eq!(ask(target, &question(&["name"], &["id"]), vec![asked]).await, ["13|1"]);
    let asked = texts(["xxxx", long.as_str(), "z"]);
    assert_eq!(ask(target, &question(&["grp"], &["id"]), vec![asked]).await, ["12|6"]);
    let asked = numbers([3_000_000_000, i64::MAX, i64::MIN, 1]);
    assert_eq!(ask(target, &question(&["id"], &["name"]), vec![asked]).await, ["13|a"]);
}

async fn a_text_is_found_by_all_its_characters(on: On) {
    let there = ["", " ", "'", "\"", "\\", "\\N", "\t", "\n", "NULL", "%", "ä", "a\u{308}", "😀", "{}", "x\u{1}"];
    let live = live(on, "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)", "item").await;
    for (id, text) in there.iter().enumerate() {
        let text = text.replace('\'', "''");
        live.execute(&format!("INSERT INTO item VALUES ({id}, '{text}')"));
    }
    let target = live.reader().await;
    let asked: Vec<_> = there.iter().rev().copied().chain(["\0", "a\0", "\u{feff}"]).collect();
    let found = ask(target.as_ref(), &question(&["name"], &["id"]), vec![texts(asked)]).await;
    let last = there.len() - 1;
    let mut expected: Vec<_> = (0..there.len()).map(|at| format!("{}|{}", 10 + at, last - at)).collect();
    expected.sort();
    assert_eq!(found, expected);
}

async fn numbers_with_decimals_and_days_are_found(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let target = target.as_ref();
    let amounts = Decimal128Array::from(vec![Some(150), Some(-200), Some(100_001), Some(15), None, Some(10)]);
    let amounts: ArrayRef = Arc::new(amounts.with_precision_and_scale(8, 2).unwrap());
    let found = ask(target, &question(&["amount"], &["id", "amount"]), vec![amounts]).await;
    assert_eq!(found, ["10|1|1.50", "11|2|-2.00", "12|3|1000.01", "15|6|0.10"]);
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(19_782), Some(0), Some(-1), None]));
    let found = ask(target, &question(&["since"], &["id", "since"]), vec![days]).await;
    assert_eq!(found, ["10|1|2024-02-29", "10|4|2024-02-29", "12|3|1969-12-31"]);
}

async fn nothing_asked_is_nothing_found(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let lookup = question(&["name"], &["id"]);
    assert_eq!(lines(&target.lookup(&lookup, &[]).await.unwrap()), [""; 0]);
    assert_eq!(ask(target.as_ref(), &lookup, vec![texts([""; 0])]).await, [""; 0]);
    // The question leaves nothing behind that is in the way of the next.
    assert_eq!(ask(target.as_ref(), &lookup, vec![texts(["a"])]).await, ["10|1"]);
}

async fn many_thousand_keys_are_found(on: On) {
    let sql = "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(10) UNIQUE);
        INSERT INTO item WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 90000)
        SELECT i, 'n' || i FROM n;";
    let live = live(on, sql, "item").await;
    let keys = |from: u32, to: u32| {
        let asked: Vec<_> = (from..to).map(|id| format!("n{}", id * 2)).collect();
        batch(vec![("_id", counted(from, asked.len())), ("k", texts(asked.iter().map(String::as_str)))])
    };
    let lookup = question(&["name"], &["id"]);
    for (place, limit) in [(20_000, -1), (60_000, -1), (60_000, 1)] {
        let target = live.reader().await;
        // Many are asked for over two sessions, where the server lets a second one in.
        if on == On::Postgres {
            live.execute(&format!("ALTER ROLE {} CONNECTION LIMIT {limit}", live.login()));
        }
        let answer = target.lookup(&lookup, &[keys(0, 9000), keys(9000, place)]).await.unwrap();
        let mut found = Vec::new();
        for batch in &answer {
            let asked = batch.column(0).as_primitive::<Int64Type>().values();
            let ids = batch.column(1).as_primitive::<Int64Type>().values();
            found.extend(asked.iter().copied().zip(ids.iter().copied()));
        }
        found.sort_unstable();
        let there = place.min(45_001);
        assert!(found.iter().copied().eq((1..i64::from(there)).map(|id| (id, 2 * id))), "{} are found", found.len());
    }
}

async fn of_many_keys_those_at_the_ends_are_found(on: On) {
    let sql = "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(10) UNIQUE, other VARCHAR(10));
        INSERT INTO item VALUES (5, 'B', 'B'), (9, 'b00100', 'b00100'), (100000, 'c', 'c'), (200000, NULL, NULL)";
    let live = live(on, sql, "item").await;
    let target = live.reader().await;
    for (prefix, from, found) in [
        // Behind all that production has, before it, and with one at either end.
        ("d", 0, vec![]),
        ("A", 0, vec![]),
        ("b", 200, vec![]),
        ("b", 100, vec!["10|9"]),
        ("b", 101 - 30_000, vec!["30009|9"]),
    ] {
        let asked: Vec<_> = (from..from + 30_000).map(|number| format!("{prefix}{number:05}")).collect();
        for column in ["name", "other"] {
            let values = texts(asked.iter().map(String::as_str));
            assert_eq!(
                ask(target.as_ref(), &question(&[column], &["id"]), vec![values]).await,
                found,
                "{prefix}{from}"
            );
        }
    }
    for (from, found) in [(10, vec![]), (-29_995, vec![]), (-29_994, vec!["30009|5"]), (100_000, vec!["10|100000"])] {
        let asked = numbers((from..from + 30_000).collect::<Vec<i64>>());
        assert_eq!(ask(target.as_ref(), &question(&["id"], &["id"]), vec![asked]).await, found, "{from}");
    }
    // A value of NULL asks for nothing, and is no end of what is asked for.
    let values = texts((0..30_000).map(|number| (number == 7).then_some("b00100")));
    assert_eq!(ask(target.as_ref(), &question(&["name"], &["id"]), vec![values]).await, ["17|9"]);
}

async fn the_key_map_is_asked_by_legacy_key_and_by_key(on: On) {
    let live = Live::new(on, "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(20))");
    let item = live.ready("item").await;
    let map =
        |match_on: &str, give: &[&str]| Lookup::new(Relation::KeyMap("item".into()), names(&[match_on]), names(give));
    let (by_legacy, by_key) = (map("legacy_key", &["id", "run"]), map("id", &["legacy_key"]));
    let target = live.writer().await;
    assert_eq!(ask(target.as_ref(), &by_legacy, vec![texts(["L1"])]).await, [""; 0]);
    for (run, ids) in [("r1", [1, 2]), ("r2", [3, 40])] {
        let part = (&item, vec![("id", numbers(ids)), ("name", texts(["a", "b"]))]);
        load(target.as_ref(), run, &[part]).await.unwrap();
    }
    let asked = vec![texts(["L40", "l1", "L2", "L4", "L\0"])];
    for target in [target.as_ref(), live.reader().await.as_ref()] {
        assert_eq!(ask(target, &by_legacy, asked.clone()).await, ["10|40|r2", "12|2|r1"]);
        assert_eq!(ask(target, &by_key, vec![numbers([Some(1), Some(4), None])]).await, ["10|L1"]);
    }
    let mapped = taken(target.key_map(&item).await).await;
    assert_eq!(lines(&mapped), ["L1|1|r1", "L2|2|r1", "L3|3|r2", "L40|40|r2"]);
    let names: Vec<_> = mapped[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["legacy_key", "id", "run"]);
}

async fn scan(target: &dyn Target, columns: &[&str], filters: &[(&str, Test)]) -> Vec<RecordBatch> {
    let filters = filters.iter().map(|(column, test)| Filter { column: (*column).to_owned(), test: test.clone() });
    taken(target.scan("item", &names(columns), &filters.collect::<Vec<_>>(), None).await).await
}

async fn a_scan_gives_the_columns_that_are_wanted(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let found = scan(target.as_ref(), &["amount", "id"], &[]).await;
    let fields: Vec<_> =
        found[0].schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
    assert_eq!(fields, [("amount".into(), DataType::Decimal128(8, 2)), ("id".into(), DataType::Int64)]);
    assert_eq!(lines(&found), ["-2.00|2", "0.00|5", "0.10|6", "1.50|1", "1000.01|3", "NULL|4"]);
}

async fn a_scan_leaves_out_what_its_filters_do(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let text = |how, text: &str| Test::Text(how, text.to_owned());
    let cases = [
        (vec![("name", Test::IsNull)], vec!["4"]),
        (vec![("grp", Test::IsNotNull)], vec!["1", "2", "3", "4", "6"]),
        (vec![("name", text("=", "b"))], vec!["2", "3"]),
        (vec![("name", text("=", "B"))], vec![]),
        (vec![("name", text("<", "a"))], vec!["5"]),
        (vec![("name", text("<=", "a"))], vec!["1", "5"]),
        (vec![("name", text(">", "b"))], vec!["6"]),
        (vec![("name", text(">=", "b"))], vec!["2", "3", "6"]),
        (vec![("name", text("=", "'"))], vec![]),
        (vec![("name", text(">", "a\0"))], vec!["2", "3", "6"]),
        (vec![("id", Test::Integer("=", 3))], vec!["3"]),
        (vec![("id", Test::Integer("<", 3))], vec!["1", "2"]),
        (vec![("id", Test::Integer("<=", 3))], vec!["1", "2", "3"]),
        (vec![("id", Test::Integer(">", i64::MIN))], vec!["1", "2", "3", "4", "5", "6"]),
        (vec![("id", Test::Integer(">=", i64::MAX))], vec![]),
        (vec![("name", text("=", "b")), ("id", Test::Integer(">", 2))], vec!["3"]),
    ];
    for (filters, expected) in cases {
        let found = lines(&scan(target.as_ref(), &["id"], &filters).await);
        // What a target may leave in: a text with NUL is none that PostgreSQL can compare with.
        let most: &[&str] = if format!("{filters:?}").contains("\\0") { &["1", "4", "5"] } else { &[] };
        assert!(expected.iter().all(|id| found.contains(&(*id).to_owned())), "{filters:?} gives {found:?}");
        assert!(
            found.iter().all(|id| expected.contains(&id.as_str()) || most.contains(&id.as_str())),
            "{filters:?} gives {found:?}"
        );
    }
    // A column of blanks at its end: what the filter would keep must be there, whatever else is.
    assert!(lines(&scan(target.as_ref(), &["id"], &[("grp", text("=", "y"))]).await).contains(&"3".to_owned()));
}

async fn a_scan_without_columns_counts(on: On) {
    let live = live(on, ITEM, "item").await;
    let target = live.reader().await;
    let count = |found: Vec<RecordBatch>| found.iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!(count(scan(target.as_ref(), &[], &[]).await), 6);
    assert_eq!(count(scan(target.as_ref(), &[], &[("name", Test::IsNull)]).await), 1);
    assert_eq!(count(scan(target.as_ref(), &["name"], &[("id", Test::Integer(">", 6))]).await), 0);
}

#[tokio::test]
async fn rows_of_inheriting_tables_are_outside_of_constraints() {
    let sql =
        format!("{ITEM} CREATE TABLE heir () INHERITS (item); INSERT INTO heir (id, name) VALUES (1, 'a'), (7, 'q')");
    let live = live(On::Postgres, &sql, "item").await;
    let target = live.reader().await;
    let asked = |ids: [i64; 2]| vec![numbers(ids)];
    assert_eq!(ask(target.as_ref(), &question(&["id"], &["name"]), asked([1, 7])).await, ["10|a"]);
    let some = Lookup { condition: Some("id > 0".into()), ..question(&["id"], &["name"]) };
    assert_eq!(ask(target.as_ref(), &some, asked([7, 2])).await, ["11|b"]);
    // Who asks for the table in SQL gets what SQL gives.
    let found = taken(target.scan("item", &names(&["id"]), &[], None).await).await;
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 8);
}
