//! Values of every type that both kinds have, and names that need care.

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use delta_pipeline::internals::spec::ForeignKeys;
use delta_pipeline::internals::target::{Aggregate, CommitCheck, CommitCheckKind, Filter, Lookup, Relation, Test};
use futures::{StreamExt, stream};
use std::sync::Arc;

use super::live::{Live, On};
use super::rows::{
    batch, begin, counted, expected, insert, lines, load, numbered, numbers, record, refused, taken, texts,
};

each_target!(
    async
    values_of_every_type_come_back_as_they_went,
    a_value_of_any_type_is_found,
    names_may_be_anything,
    tables_may_have_the_longest_names,
);

const TYPES: &str = "
    CREATE TABLE item (
        id INTEGER PRIMARY KEY, small SMALLINT, large BIGINT, amount NUMERIC(15,2), whole DECIMAL(10), double DOUBLE PRECISION,
        yes BOOLEAN, txt TEXT, name VARCHAR(20), code CHAR(3), day DATE, at TIME, moment TIMESTAMP, bytes {bytes})";

/// A value that is small, one that is large, one that is empty or nothing, and NULL, of each type.
fn values() -> Vec<(&'static str, ArrayRef)> {
    let decimals = |values: [Option<i128>; 4], precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
    };
    let amounts = decimals([Some(-999_999_999_999_999), Some(999_999_999_999_999), Some(0), None], 15, 2);
    let long = Box::leak("ä".repeat(10_000).into_boxed_str());
    vec![
        ("id", numbers([i64::from(i32::MIN), i32::MAX.into(), 0, 1])),
        ("small", numbers([Some(-32_768), Some(32_767), Some(0), None])),
        ("large", numbers([Some(i64::MIN), Some(i64::MAX), Some(0), None])),
        ("amount", amounts),
        ("whole", decimals([Some(-9_999_999_999), Some(9_999_999_999), Some(0), None], 10, 0)),
        ("double", Arc::new(Float64Array::from(vec![Some(-1.797e308), Some(5e-324), Some(0.1), None]))),
        ("yes", Arc::new(BooleanArray::from(vec![Some(true), Some(false), Some(true), None]))),
        ("txt", texts([Some(&*long), Some("'\"\\\t\n\r😀{}\u{1}"), Some(""), None])),
        ("name", texts([Some("ääääääääääääääääääää"), Some("NULL"), Some(""), None])),
        ("code", texts([Some("abc"), Some("äöü"), Some("'\"\\"), None])),
        // The years 1 and 9999.
        ("day", Arc::new(Date32Array::from(vec![Some(-719_162), Some(2_932_896), Some(0), None]))),
        ("at", Arc::new(Time64MicrosecondArray::from(vec![Some(1), Some(86_399_999_999), Some(0), None]))),
        (
            "moment",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(-62_135_596_800_000_000),
                Some(253_402_300_799_999_999),
                Some(-1),
                None,
            ])),
        ),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&[0_u8, 255, 92, 120][..]), Some(b"\\x41"), Some(b""), None]))),
    ]
}

async fn values_of_every_type_come_back_as_they_went(on: On) {
    let live = Live::new(on, TYPES);
    let item = live.ready("item").await;
    let target = live.writer().await;
    let parts = [(&item, values())];
    load(target.as_ref(), "r", &parts).await.unwrap();
    let as_meant = stream::iter([Ok(expected(&parts[0]))]).boxed();
    assert_eq!(target.compare(&item, as_meant).await.unwrap(), None);
    let found = taken(target.scan("item", &item.columns, &[], None).await).await;
    assert_eq!(found[0].schema(), item.table.schema());
    assert_eq!(lines(&found), lines(&[batch(values())]));
    assert_eq!(
        live.rows("SELECT large, whole, name, code, day, at, moment FROM item ORDER BY id"),
        [
            "-9223372036854775808|-9999999999|ääääääääääääääääääää|abc|0001-01-01|00:00:00.000001|0001-01-01 00:00:00",
            "0|0||'\"\\|1970-01-01|00:00:00|1969-12-31 23:59:59.999999",
            "NULL|NULL|NULL|NULL|NULL|NULL|NULL",
            "9223372036854775807|9999999999|NULL|äöü|9999-12-31|23:59:59.999999|9999-12-31 23:59:59.999999",
        ]
    );
    assert_eq!(live.rows("SELECT id FROM item WHERE amount = 9999999999999.99"), [i32::MAX.to_string()]);
}

async fn a_value_of_any_type_is_found(on: On) {
    let live = Live::new(on, TYPES);
    let item = live.ready("item").await;
    let target = live.writer().await;
    load(target.as_ref(), "r", &[(&item, values())]).await.unwrap();
    for (name, values) in values() {
        let keys = batch(vec![("_id", counted(0, 4)), ("k", values.clone())]);
        let lookup = Lookup::new(Relation::Production("item".into()), vec![name.into()], vec![name.into()]);
        let found = lines(&target.lookup(&lookup, std::slice::from_ref(&keys)).await.unwrap());
        let expected = lines(&[keys]);
        let expected: Vec<_> = expected.into_iter().filter(|line| !line.ends_with("|NULL") || name == "name").collect();
        match name {
            // Two rows have the same; NULL is a text there.
            "yes" => assert_eq!(found, ["0|true", "0|true", "1|false", "2|true", "2|true"]),
            "name" => assert_eq!(found.len() + 1, expected.len(), "{found:?}"),
            _ => assert_eq!(found, expected, "{name}"),
        }
    }
}

const NAMES: &str = r#"
    CREATE TABLE "the ""Order""; --" (
        "Key" INTEGER PRIMARY KEY, "select" VARCHAR(20) UNIQUE, "a ""b""" INTEGER, "Ä'ö" VARCHAR(20), "under" INTEGER
            REFERENCES "the ""Order""; --" ("Key"), "_id" INTEGER, "k0" INTEGER, "s" INTEGER, "p" INTEGER, "a.b" INTEGER,
        "run" INTEGER, "%s $1 ?1" INTEGER, "back\slash" VARCHAR(20) DEFAULT 'x');
    INSERT INTO "the ""Order""; --" ("Key", "select", "a ""b""") VALUES (1, 'there', 7);"#;

async fn names_may_be_anything(on: On) {
    for foreign_keys in [ForeignKeys::Triggers, ForeignKeys::SetBased] {
        let mut live = Live::new(on, NAMES);
        live.load.foreign_keys = foreign_keys;
        let table = "the \"Order\"; --";
        let mut order = live.ready(table).await;
        order.self_referencing = true;
        let name = |name: &str| name.to_owned();
        order.commit_checks = vec![CommitCheck {
            check: "promised".into(),
            what: CommitCheckKind::Unique {
                columns: vec![name("a \"b\""), name("Ä'ö")],
                ignore_case: vec![name("Ä'ö")],
            },
        }];
        let target = live.writer().await;
        let rows = |selects: [&'static str; 2], unders: [i64; 2]| {
            let mut columns = vec![
                ("Key", numbers([11, 10])),
                ("_level", counted(0, 2)),
                ("select", texts(selects)),
                ("a \"b\"", numbers([7, 8])),
                ("Ä'ö", texts(["a", "b"])),
                ("under", numbers(unders)),
                ("back\\slash", texts(["\\", "'"])),
            ];
            columns.extend(["_id", "k0", "s", "p", "a.b", "run", "%s $1 ?1"].map(|name| (name, numbers([3, 4]))));
            columns
        };
        let parts = [(&order, rows(["x", "there"], [1, 11]))];
        let load = begin(target.as_ref(), "r", &parts).await.unwrap();
        assert_eq!(refused(insert(load, &parts).await).rows, numbered([1]));
        live.quiet().await;
        let parts = [(&order, rows(["x", "y"], [1, 99]))];
        let load = begin(target.as_ref(), "r", &parts).await.unwrap();
        assert_eq!(refused(insert(load, &parts).await).rows, numbered([1]));
        live.quiet().await;

        let parts = [(&order, rows(["x", "y"], [1, 11]))];
        let load = begin(target.as_ref(), "r", &parts).await.unwrap();
        let mut load = insert(load, &parts).await.unwrap();
        let asked: Vec<_> = order.columns.iter().map(|name| (name.clone(), Aggregate::NonNull)).collect();
        let totals = load.aggregates(&order, &asked).await.unwrap();
        assert_eq!(lines(&[totals]), [vec!["2"; 1 + order.columns.len()].join("|")]);
        let least =
            [(name("%s $1 ?1"), Aggregate::Min), (name("back\\slash"), Aggregate::Max), (name("a.b"), Aggregate::Sum)];
        assert_eq!(lines(&[load.aggregates(&order, &least).await.unwrap()]), ["2|3|\\|7"]);
        let mut load = load.finish();
        load.record_run(&record("r"), &[]).await.unwrap();
        load.commit().await.unwrap();
        let as_meant = || stream::iter([Ok(expected(&parts[0]))]).boxed();
        assert_eq!(target.compare(&order, as_meant()).await.unwrap(), None);
        target.analyze(std::slice::from_ref(&order), &[1_000_000]).await.unwrap();
        assert_eq!(lines(&taken(target.key_map(&order).await).await), ["L10|10|r", "L11|11|r"]);

        let filters = [
            Filter { column: name("Ä'ö"), test: Test::Text(">=", "b".into()) },
            Filter { column: name("a \"b\""), test: Test::Integer("<", 9) },
        ];
        let found = taken(target.scan(table, &[name("back\\slash"), name("select")], &filters, None).await).await;
        assert_eq!(lines(&found), ["'|y"]);
        let lookup = Lookup::new(
            Relation::Production(table.into()),
            vec![name("k0"), name("Ä'ö")],
            vec![name("_id"), name("Key"), name("run")],
        );
        let keys = batch(vec![("_id", counted(5, 2)), ("k0", numbers([4, 3])), ("k1", texts(["b", "b"]))]);
        assert_eq!(lines(&target.lookup(&lookup, &[keys]).await.unwrap()), ["5|4|10|4"]);
        live.execute(r#"UPDATE "the ""Order""; --" SET "Ä'ö" = 'c' WHERE "Key" = 10"#);
        let how = target.compare(&order, as_meant()).await.unwrap();
        assert_eq!(how.as_deref(), Some("column `Ä'ö` is c, expected b"));
    }
}

async fn tables_may_have_the_longest_names(on: On) {
    let names = ["l".repeat(62) + "1", "l".repeat(62) + "2", "ä".repeat(31)];
    let sql: String = names
        .iter()
        .map(|name| format!("CREATE TABLE \"{name}\" (id INTEGER PRIMARY KEY, \"{name}\" VARCHAR(20));"))
        .collect();
    let live = Live::new(on, &sql);
    let mut destinations = Vec::new();
    for name in &names {
        destinations.push(live.destination(name, &["id", name]).await);
    }
    live.set_up(&destinations.iter().collect::<Vec<_>>()).await;
    let target = live.writer().await;
    target.preflight(&destinations, delta_pipeline::internals::target::Access::Write).await.unwrap();
    let parts: Vec<_> = destinations
        .iter()
        .zip([1, 2, 3])
        .map(|(destination, id)| {
            (destination, vec![("id", numbers([id])), (destination.columns[1].as_str(), texts(["a"]))])
        })
        .collect();
    load(target.as_ref(), "r1", &parts).await.unwrap();
    for (destination, id) in destinations.iter().zip([1, 2, 3]) {
        assert_eq!(lines(&taken(target.key_map(destination).await).await), [format!("L{id}|{id}|r1")]);
        assert_eq!(live.rows(&format!("SELECT * FROM \"{}\"", destination.table.name)), [format!("{id}|a")]);
    }
    assert_eq!(live.catalog().await.names().len(), 3);
}

#[tokio::test]
async fn values_that_only_postgres_has_are_found() {
    let live = Live::new(
        On::Postgres,
        "CREATE TYPE mood AS ENUM ('sad', 'so so');
         CREATE DOMAIN short AS varchar(3);
         CREATE TABLE item (id INTEGER PRIMARY KEY, mood mood, code uuid, long NUMERIC(100,2), span INTERVAL, list INTEGER[], short short);
         INSERT INTO item VALUES (1, 'so so', '00000000-0000-0000-0000-00000000000a', 12.5, '1 day 02:00', '{1,2}', 'abc');",
    );
    live.ready("item").await;
    let target = live.reader().await;
    for (column, values) in [
        ("mood", ["so so", "happy"]),
        ("code", ["00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"]),
        ("long", ["12.50", "12.51"]),
        ("span", ["P1DT2H", "1 day"]),
        ("list", ["{1, 2}", "{1}"]),
        ("short", ["abc", "abcdef"]),
    ] {
        let lookup = Lookup::new(Relation::Production("item".into()), vec![column.into()], vec!["id".into()]);
        let keys = batch(vec![("_id", counted(0, 2)), ("k", texts(values))]);
        assert_eq!(lines(&target.lookup(&lookup, &[keys]).await.unwrap()), ["0|1"], "{column}");
    }
}
