//! Whatever the delta and however it is cut: nothing is lost, keys are dense, the key map is a bijection, references hold.

use std::collections::{BTreeMap, BTreeSet};

use delta_pipeline::internals::engine::Limits;
use delta_pipeline::internals::progress::NoopListener;
use delta_pipeline::internals::report::Report;
use delta_pipeline::internals::run::{self, CommandOptions, LoadOptions, RunContext};
use delta_pipeline::internals::target::Access;
use proptest::prelude::*;
use rusqlite::Connection;

use crate::support::{Place, Tables, csv_records, number, ordered_rows, rows, strings};

const PRODUCTION: &str = "
    CREATE TABLE parent (
        parent_id INTEGER PRIMARY KEY, code VARCHAR(4) NOT NULL UNIQUE, boss_id INTEGER REFERENCES parent (parent_id),
        size INTEGER CHECK (size >= 0));
    CREATE TABLE child (
        child_id CHAR(6) PRIMARY KEY NOT NULL, parent_id INTEGER NOT NULL REFERENCES parent (parent_id),
        friend_id INTEGER REFERENCES parent (parent_id), quantity INTEGER NOT NULL);
    INSERT INTO parent VALUES (1, 'K1', NULL, 5), (7, 'K2', 1, NULL);
    INSERT INTO child VALUES ('C00041', 7, NULL, 3);";

/// A line of a delta file; numbers are small, so that they meet.
#[derive(Debug, Clone)]
struct Line {
    legacy: Option<u8>,
    /// The parent's code, the child's parent.
    first: Option<u8>,
    /// The parent's boss, the child's friend.
    second: Option<u8>,
    number: &'static str,
    malformed: bool,
}

#[derive(Debug, Clone)]
struct Delta {
    parents: Vec<Line>,
    children: Vec<Line>,
    /// After how many of its lines the parents' second file begins.
    cut: usize,
    first_stays: bool,
    skip: bool,
}

fn line(numbers: &'static [&'static str]) -> impl Strategy<Value = Line> {
    let reference = || prop_oneof![4 => (0_u8..40).prop_map(Some), 2 => Just(None)];
    let usual = || prop_oneof![30 => (0_u8..60).prop_map(Some), 1 => Just(None)];
    (usual(), usual(), reference(), prop::sample::select(numbers), prop::bool::weighted(0.04))
        .prop_map(|(legacy, first, second, number, malformed)| Line { legacy, first, second, number, malformed })
}

fn delta() -> impl Strategy<Value = Delta> {
    let parents = prop::collection::vec(line(&["", "0", "12", "12", "12", "7", "7", "-1", "many"]), 0..70);
    let children = prop::collection::vec(line(&["1", "2", "3", "4", "5", "6", "", "1.5"]), 0..70);
    (parents, children, 0_usize..70, any::<bool>(), any::<bool>())
        .prop_map(|(parents, children, cut, first_stays, skip)| Delta { parents, children, cut, first_stays, skip })
}

impl Delta {
    fn write(&self, place: &Place) {
        let cut = self.cut.min(self.parents.len());
        let parent = |line: &Line| line.text("K", "P");
        place.write("parent-1.csv", csv("ref,code,boss,size", self.parents[..cut].iter().map(parent)));
        place.write("parent-2.csv", csv("ref,code,boss,size", self.parents[cut..].iter().map(parent)));
        let children = self.children.iter().map(|line| line.text("P", "P"));
        place.write("child.csv", csv("ref,parent,friend,quantity", children));
        let also = format!(
            "duplicates: {}\n    existing: {}",
            if self.first_stays { "first" } else { "reject" },
            if self.skip { "skip" } else { "reject" }
        );
        place.write(
            "p.yaml",
            format!(
                "version: 1
name: property
target: {{ url: 'sqlite:p.db' }}
safeguards: {{ max_rejects: 100% }}
tables:
  child:
    source: {{ path: child.csv }}
    legacy_key: [ref]
    key: {{ column: child_id, prefix: C, width: 6 }}
    relationships:
      - {{ column: parent_id, from: [parent], to: parent }}
      - {{ column: friend_id, from: [friend], to: parent }}
    {also}
  parent:
    source: {{ path: 'parent-*.csv' }}
    legacy_key: [ref]
    key: {{ column: parent_id }}
    relationships:
      - {{ column: boss_id, from: [boss], to: parent }}
    {also}
"
            ),
        );
    }

    /// The legacy keys of rows that nothing is wrong with: parents, then children. Rows that share a legacy key are one record
    /// told twice, and where all of them are rejected, their codes are nobody's.
    fn clean(&self) -> (BTreeSet<u8>, BTreeSet<u8>) {
        let once = |lines: &[Line], of: fn(&Line) -> Option<u8>| -> BTreeSet<u8> {
            let mut counts: BTreeMap<u8, u8> = BTreeMap::new();
            for value in lines.iter().filter(|line| !line.malformed).filter_map(of) {
                *counts.entry(value).or_default() += 1;
            }
            counts.into_iter().filter(|(_, count)| *count == 1).map(|(value, _)| value).collect()
        };
        let legacy = once(&self.parents, |line| line.legacy);
        let is_twice = |line: &Line| line.legacy.is_some_and(|key| !legacy.contains(&key));
        let others = self.parents.iter().filter(|line| self.first_stays || !is_twice(line)).cloned();
        let codes = once(&others.collect::<Vec<_>>(), |line| line.first);
        let sound = |line: &&Line| !line.malformed && !["-1", "many"].contains(&line.number);
        let mut parents: BTreeMap<u8, Option<u8>> = self
            .parents
            .iter()
            .filter(sound)
            .filter(|line| line.first.is_some_and(|code| codes.contains(&code) && ![1, 2].contains(&code)))
            .filter_map(|line| Some((line.legacy.filter(|key| legacy.contains(key))?, line.second)))
            .collect();
        // A row that is skipped stands for production's row, and can be referred to.
        let is_skipped =
            |line: &&Line| self.skip && line.first.is_some_and(|code| codes.contains(&code) && [1, 2].contains(&code));
        let skipped = self.parents.iter().filter(sound).filter(is_skipped).filter_map(|line| line.legacy);
        let skipped: BTreeSet<u8> = skipped.filter(|key| legacy.contains(key)).collect();
        // A row goes with its boss, until no boss is missing.
        loop {
            let before = parents.len();
            let known: BTreeSet<u8> = parents.keys().chain(&skipped).copied().collect();
            parents.retain(|_, boss| boss.is_none_or(|boss| known.contains(&boss)));
            if parents.len() == before {
                break;
            }
        }
        let parents: BTreeSet<u8> = parents.into_keys().collect();
        let known: BTreeSet<u8> = parents.union(&skipped).copied().collect();
        let legacy = once(&self.children, |line| line.legacy);
        let children = self
            .children
            .iter()
            .filter(|line| !line.malformed && !["", "1.5"].contains(&line.number))
            .filter(|line| line.first.is_some_and(|parent| known.contains(&parent)))
            .filter(|line| line.second.is_none_or(|friend| known.contains(&friend)))
            .filter_map(|line| line.legacy.filter(|key| legacy.contains(key)));
        (parents, children.collect())
    }
}

impl Delta {
    /// Whether a row is one of these lines; `@K1` is any parent of the delta that has this code, as long as it is skipped.
    fn has(&self, lines: &BTreeSet<String>, row: &str) -> bool {
        let Some((before, rest)) = row.split_once("@K") else { return lines.contains(row) };
        let (code, after) = rest.split_at(1);
        let same = self
            .parents
            .iter()
            .filter(|line| self.skip && line.first.map(|code| code.to_string()).as_deref() == Some(code));
        let mut named = same.filter_map(|line| line.legacy).map(|legacy| format!("{before}P{legacy}{after}"));
        named.any(|row| self.has(lines, &row))
    }
}

impl Line {
    fn text(&self, first: &str, second: &str) -> String {
        let text = |prefix: &str, value: Option<u8>| value.map_or(String::new(), |value| format!("{prefix}{value}"));
        let more = if self.malformed { ",more" } else { "" };
        let (legacy, first, second) = (text("P", self.legacy), text(first, self.first), text(second, self.second));
        format!("{legacy},{first},{second},{}{more}", self.number)
    }
}

fn csv(header: &str, lines: impl Iterator<Item = String>) -> String {
    std::iter::once(header.to_owned()).chain(lines).map(|line| line + "\n").collect()
}

/// Runs the delta in a place of its own.
fn load(delta: &Delta, batch_rows: usize, threads: usize) -> (Place, Report) {
    let place = Place::new();
    place.database("p.db", PRODUCTION);
    delta.write(&place);
    let limits = Limits { batch_rows, threads, ..Limits::default() };
    let request = CommandOptions { limits, ..CommandOptions::new(place.path("p.yaml")) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let report = runtime.block_on(async {
        let session = RunContext::open(&request, Access::Write).await.unwrap();
        run::run(&session, LoadOptions::default(), &NoopListener).await.unwrap()
    });
    (place, report)
}

/// The whole database, without what tells one run from another.
fn comparable(place: &Place, report: &Report) -> Tables {
    let mut tables = place.everything("p.db");
    tables.remove("delta_run");
    tables.remove("delta_target");
    tables.remove("delta_migration");
    for row in tables.values_mut().flatten() {
        *row = row.replace(&*report.run, "RUN");
    }
    tables
}

/// What must hold of one table after a run.
fn holds(
    delta: &Delta,
    place: &Place,
    database: &Connection,
    report: &Report,
    name: &str,
) -> Result<(), TestCaseError> {
    let table = report.tables.iter().find(|table| table.name == name).unwrap();
    let (lines, there, first) = match name {
        "parent" => (&delta.parents, 2, 8),
        _ => (&delta.children, 1, 42),
    };
    prop_assert_eq!(table.read, lines.len() as u64);
    prop_assert_eq!(table.read, table.inserted + table.rejected + table.skipped);
    let inserted = number(database, &format!("SELECT count(*) FROM {name}")) - there;
    prop_assert_eq!(inserted as u64, table.inserted);
    let rejects =
        report.rejects.as_ref().map(|folder| place.path(&format!("{folder}{name}.csv"))).filter(|path| path.exists());
    let rejected = rejects.map_or(0, |path| csv_records(&std::fs::read(path).unwrap()).len() as u64 - 1);
    prop_assert_eq!(rejected, table.rejected, "every reject of {} is in its file", name);
    if table.inserted > 0 {
        let key = format!("{name}_id");
        let written = |number: i64| if name == "child" { format!("C{number:05}") } else { number.to_string() };
        let dense: Vec<String> = (first..first + inserted).map(written).collect();
        // Rows of production have the order of the delta.
        let (map, order) = match name {
            "child" => ("delta_key_map_child JOIN child USING (child_id)", "child.rowid"),
            _ => ("delta_key_map_parent", "parent_id"),
        };
        let in_order = format!("SELECT CAST({key} AS TEXT) FROM {map} ORDER BY {order}");
        prop_assert_eq!(&strings(database, &in_order), &dense, "keys are dense and in the order of rows");
        let history =
            format!("SELECT CAST({key} AS TEXT) FROM delta_key_map_{name} JOIN {name} USING ({key}) ORDER BY {key}");
        prop_assert_eq!(strings(database, &history), dense, "each key of the map is in production, once");
        let legacy = strings(database, &format!("SELECT legacy_key FROM delta_key_map_{name}"));
        prop_assert_eq!(legacy.iter().collect::<BTreeSet<_>>().len() as i64, inserted, "each legacy key is there once");
    }
    Ok(())
}

/// The rows that were inserted, as the delta has them: references are named by legacy keys again, and those to rows that were
/// in production before by `@` and the code.
fn as_in_the_delta(database: &Connection, loaded: bool) -> (Vec<String>, Vec<String>) {
    if !loaded {
        return (Vec::new(), Vec::new());
    }
    let named = "WITH named AS (
        SELECT parent_id, coalesce(k.legacy_key, '@' || code) AS name FROM parent LEFT JOIN delta_key_map_parent k USING (parent_id))";
    let parents = &format!(
        "{named} SELECT k.legacy_key AS a, p.code AS b, boss.name AS c, p.size AS d
        FROM delta_key_map_parent k JOIN parent p USING (parent_id) LEFT JOIN named boss ON boss.parent_id = p.boss_id"
    );
    let children = &format!(
        "{named} SELECT k.legacy_key AS a, parent.name AS b, friend.name AS c, p.quantity AS d
        FROM delta_key_map_child k JOIN child p USING (child_id) JOIN named parent ON parent.parent_id = p.parent_id
        LEFT JOIN named friend ON friend.parent_id = p.friend_id"
    );
    let plain = |sql: &str| {
        ordered_rows(database, sql)
            .iter()
            .map(|row| row.replace("NULL", "").replace('\'', "").replace('|', ","))
            .collect()
    };
    (plain(parents), plain(children))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_deltas_lose_nothing_and_no_cut_changes_a_row(
        delta in delta(),
        batch_rows in 1_usize..=50,
        threads in 1_usize..=4,
        other_batch_rows in 1_usize..=50,
        other_threads in 1_usize..=4,
    ) {
        let (place, report) = load(&delta, batch_rows, threads);
        let database = place.open("p.db");
        for table in ["parent", "child"] {
            holds(&delta, &place, &database, &report, table)?;
        }
        prop_assert!(rows(&database, "SELECT * FROM pragma_foreign_key_check").is_empty());
        let before = rows(&database, "SELECT * FROM parent WHERE parent_id < 8");
        prop_assert_eq!(before, vec!["1|'K1'|NULL|5".to_owned(), "7|'K2'|1|NULL".to_owned()]);

        // Every new row is a line of the delta as it stands there, so a child of a parent that was rejected is not among them.
        let inserted: u64 = report.tables.iter().map(|table| table.inserted).sum();
        let (parents, children) = as_in_the_delta(&database, inserted > 0);
        prop_assert_eq!((parents.len() + children.len()) as u64, inserted);
        let lines: BTreeSet<String> = delta.parents.iter().map(|line| line.text("K", "P")).collect();
        prop_assert!(parents.iter().all(|row| delta.has(&lines, row)), "{:?}", parents);
        let lines: BTreeSet<String> = delta.children.iter().map(|line| line.text("P", "P")).collect();
        prop_assert!(children.iter().all(|row| delta.has(&lines, row)), "{:?}", children);

        // No row that nothing is wrong with is kept out; where all duplicates are rejected, no other row comes in.
        let legacy = |rows: &[String]| -> BTreeSet<u8> {
            rows.iter().map(|row| row.split(',').next().unwrap()[1..].parse().unwrap()).collect()
        };
        let (clean_parents, clean_children) = delta.clean();
        let (parents, children) = (legacy(&parents), legacy(&children));
        prop_assert!(parents.is_superset(&clean_parents), "{:?} of {:?}", parents, clean_parents);
        prop_assert!(children.is_superset(&clean_children), "{:?} of {:?}", children, clean_children);
        if !delta.first_stays {
            prop_assert_eq!(parents, clean_parents);
            prop_assert_eq!(children, clean_children);
        }

        let (other, other_report) = load(&delta, other_batch_rows, other_threads);
        prop_assert_eq!(comparable(&place, &report), comparable(&other, &other_report));
    }
}
