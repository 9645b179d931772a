//! Values arrive as they were, or are rejected.

use crate::database_checks::{ITEM, Judged, places};
use crate::target::live::On;

#[test]
fn json_arrays_fill_arrays_and_a_name_twice_is_rejected() {
    let sql =
        "CREATE TABLE item (item_id serial PRIMARY KEY, ref text, tags text[], nums int[], docs jsonb[], meta jsonb)";
    let judged = Judged::new(On::Postgres, sql, &ITEM.replace("csv", "jsonl"));
    let lines = [
        r#"{"ref":"A","tags":["a","b c","q\"r","back\\slash","NULL",null,""],"nums":[1,null],"docs":[{"x":[1]},null],"meta":{"a":{"b":1}}}"#,
        r#"{"ref":"B","tags":[],"nums":[[1],[2]],"docs":[],"meta":[]}"#,
        r#"{"ref":"C","nums":[1.5]}"#,
        r#"{"ref":"D","nums":["x"]}"#,
        r#"{"ref":"E","tags":[{"a":1}]}"#,
        r#"{"ref":"F","meta":{"a":1,"a":2}}"#,
    ];
    judged.place.write("item.jsonl", lines.join("\n"));
    let rejects = judged.rejects("item");
    assert_eq!(places(&rejects), ["3 cast(nums)", "4 cast(nums)", "5 cast(tags)", "6 cast(meta)"]);
    let rows = judged.rows("SELECT ref, tags, nums, docs, meta FROM item ORDER BY 1");
    assert_eq!(
        rows,
        [
            r#"A|{a,"b c","q\"r","back\\slash","NULL",NULL,""}|{1,NULL}|{"{\"x\": [1]}",NULL}|{"a": {"b": 1}}"#,
            "B|{}|{{1},{2}}|{}|[]",
        ]
    );
}

#[test]
fn sqlite_loads_numbers_that_it_keeps_and_no_others() {
    let sql = "CREATE TABLE item (item_id INTEGER PRIMARY KEY, ref TEXT, n NUMERIC, d DECIMAL, r REAL)";
    let judged = Judged::new(On::Sqlite, sql, ITEM);
    let lines = [
        "A,9007199254740993,-9223372036854775808,0.1",
        "B,0.000123456789012345,99999999.99,0.10000000000000001",
        "C,12345678901234567.89,1,1",
        "D,18446744073709551615,1,1",
        "E,1,1,0.12345678901234567890123",
    ];
    judged.place.write("item.csv", format!("ref,n,d,r\n{}\n", lines.join("\n")));
    assert_eq!(places(&judged.rejects("item")), ["4 precision(n)", "5 precision(n)", "6 cast(r)"]);
    assert_eq!(
        judged.rows("SELECT ref, n, d, r FROM item ORDER BY 1"),
        ["A|9007199254740993|-9223372036854775808|0.1", "B|0.000123456789012345|99999999.99|0.1"]
    );
}

#[test]
fn a_single_precision_number_and_an_interval_are_not_rounded() {
    let sql = "CREATE TABLE item (item_id serial PRIMARY KEY, ref text, f real, d double precision, i interval, s interval second(2), t timetz)";
    let judged = Judged::new(On::Postgres, sql, ITEM);
    let lines = [
        "A,0.1,0.1,1 day 00:00:00.123456,00:00:01.25,10:00:00.5+02",
        "B,16777217,,,,",
        "C,,9007199254740993,,,",
        "D,,,00:00:00.1234567,,",
        "E,,,,00:00:01.255,",
        "F,,,,,10:00:00.1234567+02",
        "G,16777216,9007199254740992,1.5 days,,",
    ];
    judged.place.write("item.csv", format!("ref,f,d,i,s,t\n{}\n", lines.join("\n")));
    let rejects = judged.rejects("item");
    assert_eq!(places(&rejects), ["3 cast(f)", "4 cast(d)", "5 cast(i)", "6 value(s)", "7 cast(t)"]);
    assert_eq!(judged.rows("SELECT ref FROM item ORDER BY 1"), ["A", "G"]);
}

const COMPOSED: &str = "CREATE EXTENSION hstore; CREATE TYPE part AS (n numeric(5,2), t timestamp(0), c varchar(3), z timestamptz);
    CREATE TABLE item (item_id serial PRIMARY KEY, ref text, z tstzrange, s tsrange, d daterange, c timetz, cs timetz[], p part, ps part[], r real[],
        t time[], h hstore, o oid, k time)";

/// Values by their columns.
const KEPT: [(&str, &str); 12] = [
    ("z", "[2020-01-01 10:00+02,infinity)"),
    ("s", "[2020-01-01 10:00,2020-01-02)"),
    ("d", "[2020-01-01,2020-01-31]"),
    ("c", "10:00+02"),
    ("cs", "{10:00:00.5Z}"),
    ("p", "(1.20,\"2020-01-01 10:00:00\",abc,\"2020-01-01 10:00Z\")"),
    ("ps", "{\"(1.2,,,)\"}"),
    ("r", "{0.1,NULL}"),
    ("t", "{10:00}"),
    ("h", "a=>1, \"b=>\"=>NULL"),
    ("o", "4294967295"),
    ("k", "10:00:59"),
];

const LOST: [(&str, &str); 20] = [
    ("z", "[2020-01-01 10:00,)"),
    ("z", "[now,)"),
    ("s", "[2020-01-01 10:00+05,)"),
    ("s", "[2020-01-01 10:00:60,)"),
    ("d", "[2020-01-01 10:00,)"),
    ("d", "[today,tomorrow)"),
    ("c", "10:00"),
    ("c", "allballs"),
    ("c", "10:00:60+02"),
    ("cs", "{10:00}"),
    ("p", "(1.234,,,)"),
    ("p", "(,\"2020-01-01 10:00:00.6\",,)"),
    ("p", "(,,\"abc \",)"),
    ("p", "(,,,\"2020-01-01 10:00\")"),
    ("ps", "{\"(1.234,,,)\"}"),
    ("r", "{0.1,16777217}"),
    ("t", "{10:00:60}"),
    ("h", "a=>1, a=>2"),
    ("o", "-1"),
    ("k", "10:00:60"),
];

#[test]
fn parts_of_ranges_and_composite_values_are_not_changed() {
    let judged = Judged::new(On::Postgres, COMPOSED, ITEM);
    let fields = ["z", "s", "d", "c", "cs", "p", "ps", "r", "t", "h", "o", "k"];
    let line = |(row, (name, text)): (usize, &(&str, &str))| {
        let values = fields.map(|field| match field == *name {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => String::new(),
        });
        format!("R{row},{}\n", values.join(","))
    };
    let lines: String = KEPT.iter().chain(&LOST).enumerate().map(line).collect();
    judged.place.write("item.csv", format!("ref,{}\n{lines}", fields.join(",")));
    let rejects = judged.rejects("item");
    let check = |(at, (name, _)): (usize, &(&str, &str))| {
        let kind = if matches!(*name, "h" | "o") { "value" } else { "cast" };
        format!("{} {kind}({name})", at + KEPT.len() + 2)
    };
    assert_eq!(places(&rejects), LOST.iter().enumerate().map(check).collect::<Vec<_>>());
    let zone = "14 cast(z): `2020-01-01 10:00`: a time without an offset; set `timezone` of the source";
    assert_eq!(rejects[0], zone);
    assert_eq!(judged.rows("SELECT count(*) FROM item"), [KEPT.len().to_string()]);
    let stored = "SELECT (p).n, (p).t, (p).c, (p).z AT TIME ZONE 'UTC' FROM item WHERE ref = 'R5'";
    assert_eq!(judged.rows(stored), ["1.20|2020-01-01 10:00:00|abc|2020-01-01 10:00:00"]);
}

#[test]
fn bounds_of_ranges_are_in_the_time_zone_of_the_source() {
    let tables = ITEM.replace("item.csv", "item.csv, timezone: Europe/Berlin");
    let judged = Judged::new(On::Postgres, COMPOSED, &tables);
    let lines = "A,\"[2020-07-01 10:00,2020-07-02 10:00+00)\"\nB,\"[2020-03-29 02:30,)\"\nC,empty\n";
    judged.place.write("item.csv", format!("ref,z\n{lines}"));
    let skipped = "`2020-03-29 02:30`: daylight saving skips this local time in Europe/Berlin";
    assert_eq!(judged.rejects("item"), [format!("3 cast(z): {skipped}")]);
    let bounds =
        "SELECT ref, lower(z) AT TIME ZONE 'UTC', upper(z) AT TIME ZONE 'UTC', isempty(z) FROM item ORDER BY 1";
    assert_eq!(judged.rows(bounds), ["A|2020-07-01 08:00:00|2020-07-02 10:00:00|f", "C|NULL|NULL|t"]);
}
