//! What must hold of a target after a run, whatever happened on the way: the seven invariants, each by questions of the test's
//! own to the database. Nothing here is taken from the product's word but what it wrote down to be held against.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::chain;
use crate::scene::{Delta, Fate, On, Scene, TABLES, Table};
use crate::support::{Ran, Tables, csv_records};

/// An invariant that does not hold, by its number, and how that shows.
#[derive(Debug)]
pub struct Violation {
    pub invariant: u8,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = [
            "read = inserted + rejected + skipped, or production is untouched",
            "the key map is a bijection onto the run's rows, and its keys lie in the run's block",
            "no key overlaps with other runs or with live writers",
            "rows that were there before are byte for byte the same",
            "all foreign keys hold",
            "the journal's chain verifies",
            "running it again inserts nothing",
        ];
        write!(f, "invariant {} ({}): {}", self.invariant, said[usize::from(self.invariant) - 1], self.what)
    }
}

/// A target before a run.
pub struct Before {
    production: Tables,
    remembered: Tables,
    keys: BTreeMap<&'static str, BTreeSet<String>>,
    runs: BTreeSet<String>,
}

/// A target after a run.
pub struct After {
    /// The run, where its rows are there.
    pub loaded: Option<String>,
    pub violations: Vec<Violation>,
}

impl Before {
    pub fn of(scene: &Scene) -> Self {
        Self {
            production: scene.production(),
            remembered: scene.remembered(),
            keys: TABLES.iter().map(|table| (table.name, keys(scene, table))).collect(),
            runs: runs(scene),
        }
    }
}

impl Before {
    /// Whether a run had ended before.
    pub fn has_run(&self, run: &str) -> bool {
        self.runs.contains(run)
    }
}

impl After {
    /// Holds a target against what it was before a run that was taken back: nothing of it is there but its journal, and its block,
    /// since no key is given again.
    pub fn of_taken_back(before: &Before, scene: &Scene) -> Self {
        let delta = Delta::new("", 0, None);
        let mut check = Check { before, delta: &delta, scene, others: BTreeSet::new(), violations: Vec::new() };
        check.before_is_kept();
        check.foreign_keys();
        check.blocks_are_apart();
        check.journal();
        check.untouched();
        Self { loaded: None, violations: check.violations }
    }

    /// Holds a target against what it was before and the delta that was given. `again` runs the same once more, where its rows are
    /// there; `others` are keys that somebody else took meanwhile, by table.
    pub fn of(
        before: &Before,
        delta: &Delta,
        scene: &Scene,
        others: &[(&str, &str)],
        again: Option<&dyn Fn() -> Ran>,
    ) -> Self {
        let others: BTreeSet<_> = others.iter().map(|(table, key)| (*table, (*key).to_owned())).collect();
        let mut check = Check { before, delta, scene, others, violations: Vec::new() };
        check.before_is_kept();
        check.foreign_keys();
        check.blocks_are_apart();
        check.journal();
        let run = check.run();
        match &run {
            Some(run) => check.loaded(run),
            None => check.untouched(),
        }
        if let Some(again) = again.filter(|_| run.is_some()) {
            check.again(again);
        }
        Self { loaded: run, violations: check.violations }
    }

    /// Fails with all violations.
    #[track_caller]
    pub fn holds(&self, what: &str) -> &Self {
        let violations: Vec<_> = self.violations.iter().map(Violation::to_string).collect();
        assert!(violations.is_empty(), "{what}:\n{}", violations.join("\n"));
        self
    }
}

/// The keys of a table.
fn keys(scene: &Scene, table: &Table) -> BTreeSet<String> {
    scene.rows(&format!("SELECT {} FROM {}", table.key, table.name)).into_iter().flatten().collect()
}

fn runs(scene: &Scene) -> BTreeSet<String> {
    scene.rows(&format!("SELECT id FROM {}", scene.control("run"))).into_iter().flatten().collect()
}

/// What is in one and not in the other, or more often.
fn without<'a>(rows: &'a [String], others: &[String]) -> Vec<&'a String> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for one in others {
        *left.entry(one).or_default() += 1;
    }
    let mut more = Vec::new();
    for one in rows {
        match left.get_mut(one.as_str()) {
            Some(count) if *count > 0 => *count -= 1,
            _ => more.push(one),
        }
    }
    more
}

struct Check<'a> {
    before: &'a Before,
    delta: &'a Delta,
    scene: &'a Scene,
    others: BTreeSet<(&'a str, String)>,
    violations: Vec<Violation>,
}

impl Check<'_> {
    fn violated(&mut self, invariant: u8, what: impl fmt::Display) {
        self.violations.push(Violation { invariant, what: what.to_string() });
    }

    /// The rows of a table that neither were there before nor are others', told, by key.
    fn new_rows(&self, table: &Table) -> BTreeMap<String, Vec<String>> {
        let is_new = |key: &String| {
            !self.before.keys[table.name].contains(key) && !self.others.contains(&(table.name, key.clone()))
        };
        let rows = self.scene.rows(table.story).into_iter().map(|mut row| (row.remove(0), row));
        rows.filter(|(key, _)| is_new(key)).collect()
    }

    /// The run whose rows are there: there is one at most, and without it nothing.
    fn run(&mut self) -> Option<String> {
        let new: Vec<_> = runs(self.scene).difference(&self.before.runs).cloned().collect();
        if new.len() > 1 {
            self.violated(1, format!("the delta was loaded by {new:?}"));
        }
        new.into_iter().next()
    }

    /// 6: the journals are as they were written.
    fn journal(&mut self) {
        for what in chain::faults(self.scene) {
            self.violated(6, what);
        }
    }

    fn untouched(&mut self) {
        for table in &TABLES {
            let new = self.new_rows(table).len();
            if new > 0 {
                self.violated(1, format!("{new} rows of `{}` are there, and no run that loaded them", table.name));
            }
        }
        for name in ["key_map_parent", "key_map_child", "key_map_part"] {
            let name = self.scene.control(name);
            let there = self.scene.rows(&format!("SELECT run FROM {name}")).into_iter().flatten();
            let known = &self.before.runs;
            let stray: BTreeSet<_> = there.filter(|run| !known.contains(run)).collect();
            if !stray.is_empty() {
                self.violated(2, format!("{name} has rows of {stray:?}, which loaded nothing"));
            }
        }
    }

    fn loaded(&mut self, run: &str) {
        self.report(run);
        for table in &TABLES {
            let new = self.new_rows(table);
            self.rows_are_those_of_the_delta(table, &new);
            self.key_map(table, run, &new);
            self.block(table, run);
            self.rejects(table, run);
        }
        self.files(run);
    }

    /// 1: what the run says of itself.
    fn report(&mut self, run: &str) {
        let sql = format!("SELECT report FROM {} WHERE id = '{run}'", self.scene.control("run"));
        let report: serde_json::Value = match serde_json::from_str(&self.scene.rows(&sql)[0][0]) {
            Ok(report) => report,
            Err(error) => return self.violated(1, format!("the report of {run}: {error}")),
        };
        for table in &TABLES {
            let meant = [
                ("read", self.delta.tables[table.name].len()),
                ("rejected", self.delta.count(table.name, Fate::Rejected)),
                ("skipped", self.delta.count(table.name, Fate::Skipped)),
                ("inserted", self.delta.count(table.name, Fate::Inserted)),
            ];
            let told = report["tables"].as_array().and_then(|told| told.iter().find(|told| told["name"] == table.name));
            for (what, meant) in meant {
                let told = told.map_or(&serde_json::Value::Null, |told| &told[what]);
                if *told != meant {
                    self.violated(
                        1,
                        format!("the run says that {told} rows of `{}` were {what}, not {meant}", table.name),
                    );
                }
            }
        }
    }

    /// 1: no row of the delta is lost, none is there twice, none has other values.
    fn rows_are_those_of_the_delta(&mut self, table: &Table, new: &BTreeMap<String, Vec<String>>) {
        let lines = self.delta.tables[table.name].iter().filter(|line| line.fate == Fate::Inserted);
        let meant: Vec<_> = lines.map(|line| line.row.join("|")).collect();
        let found: Vec<_> = new.values().map(|row| row.join("|")).collect();
        for row in without(&meant, &found) {
            self.violated(1, format!("`{}` lacks the row {row}", table.name));
        }
        for row in without(&found, &meant) {
            self.violated(
                1,
                format!("`{}` has the row {row}, which the delta does not have, or not so often", table.name),
            );
        }
    }

    /// 2: each legacy key of the delta has one key, that of its own row, and each row has one.
    fn key_map(&mut self, table: &Table, run: &str, new: &BTreeMap<String, Vec<String>>) {
        let name = self.scene.control(&format!("key_map_{}", table.name));
        let mapped = self.scene.rows(&format!("SELECT legacy_key, {} FROM {name} WHERE run = '{run}'", table.key));
        let mut lines: BTreeMap<_, _> = self.delta.tables[table.name]
            .iter()
            .filter(|line| line.fate == Fate::Inserted)
            .map(|line| (line.legacy.as_str(), line))
            .collect();
        let mut free: BTreeSet<_> = new.keys().collect();
        for pair in &mapped {
            let (legacy, key) = (&pair[0], &pair[1]);
            match lines.remove(legacy.as_str()) {
                None => {
                    self.violated(2, format!("{name} maps {legacy}, which the run did not insert, or more than once"));
                }
                Some(line) if new.get(key).is_some_and(|row| *row != line.row) => {
                    self.violated(2, format!("{name} maps {legacy} to {key}, which is {:?}", new[key]));
                }
                Some(_) => {}
            }
            if !free.remove(key) {
                self.violated(
                    2,
                    format!("{name} maps {legacy} to {key}, which is no row of the run, or mapped already"),
                );
            }
        }
        for legacy in lines.into_keys() {
            self.violated(2, format!("{name} does not map {legacy}"));
        }
        for key in free {
            self.violated(2, format!("{name} maps nothing to {key}"));
        }
    }

    /// 2: the keys are the run's one block, without a gap; 3: nobody else has a key of it.
    fn block(&mut self, table: &Table, run: &str) {
        let Some(prefix) = table.block else { return };
        let ledger = self.scene.control("block");
        let sql = format!(
            "SELECT first, last FROM {ledger} WHERE run = '{run}' AND replace(table_name, 'public.', '') = '{}'",
            table.name
        );
        let blocks = self.scene.rows(&sql);
        if blocks.len() != 1 {
            return self.violated(2, format!("{run} has {} blocks of `{}` in {ledger}", blocks.len(), table.name));
        }
        let number = |key: &str| key.strip_prefix(prefix).and_then(|digits| digits.parse::<i64>().ok());
        let (first, last) = (number_of(&blocks[0][0]), number_of(&blocks[0][1]));
        let map = self.scene.control(&format!("key_map_{}", table.name));
        let mapped = self.scene.rows(&format!("SELECT {} FROM {map} WHERE run = '{run}'", table.key));
        let mapped: BTreeSet<_> = mapped.into_iter().flatten().collect();
        for key in mapped.iter().filter(|key| number(key).is_none_or(|key| key < first || key > last)) {
            self.violated(2, format!("the key {key} of `{}` is outside of the block {first} to {last}", table.name));
        }
        let meant = self.delta.count(table.name, Fate::Inserted) as i64;
        if last - first + 1 != meant {
            self.violated(2, format!("the block {first} to {last} of `{}` is not of {meant} keys", table.name));
        }
        let others = self.others.iter().filter(|(name, _)| *name == table.name).map(|(_, key)| key);
        let taken: Vec<_> = self.before.keys[table.name].iter().chain(others).cloned().collect();
        for key in taken.iter().filter(|key| number(key).is_some_and(|key| key >= first && key <= last)) {
            self.violated(3, format!("the key {key} of `{}` is somebody else's, and in the run's block", table.name));
        }
    }

    /// 1: every reject can be found again by its line.
    fn rejects(&mut self, table: &Table, run: &str) {
        let meant: BTreeSet<String> = (2..)
            .zip(&self.delta.tables[table.name])
            .filter(|(_, line)| line.fate == Fate::Rejected)
            .map(|(number, _): (usize, _)| number.to_string())
            .collect();
        let file = self.scene.place.path(&format!("runs/{run}/rejects/{}.csv", table.name));
        let records = std::fs::read(&file).map(|bytes| csv_records(&bytes)).unwrap_or_default();
        let line = records.first().and_then(|header| header.iter().position(|name| name == "_reject_line"));
        let found: BTreeSet<String> =
            line.map(|at| records[1..].iter().map(|record| record[at].clone()).collect()).unwrap_or_default();
        if found != meant {
            self.violated(1, format!("the rejects of `{}` are the lines {found:?}, not {meant:?}", table.name));
        }
    }

    /// 7: the target knows the files again.
    fn files(&mut self, run: &str) {
        let sql = format!(
            "SELECT replace(table_name, 'public.', ''), hash FROM {} WHERE run = '{run}'",
            self.scene.control("file")
        );
        let known = self.scene.rows(&sql);
        for (table, text) in &self.delta.files {
            let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
            if !known.iter().any(|row| row[0] == *table && row[1] == hash) {
                self.violated(7, format!("the file of `{table}` is not known to be loaded"));
            }
        }
    }

    /// 3: no two blocks overlap, whoever has them.
    fn blocks_are_apart(&mut self) {
        let sql = format!(
            "SELECT a.table_name, a.run, a.first, a.last, b.run, b.first, b.last FROM {0} AS a JOIN {0} AS b
             ON b.table_name = a.table_name AND (b.first > a.first OR b.first = a.first AND b.run > a.run)
                AND b.first <= a.last",
            self.scene.control("block")
        );
        for row in self.scene.rows(&sql) {
            self.violated(3, format!("blocks of one table overlap: {}", row.join(" ")));
        }
    }

    /// 4: nothing that was there is gone or changed, in production as in what is remembered.
    fn before_is_kept(&mut self) {
        for (before, now) in
            [(&self.before.production, self.scene.production()), (&self.before.remembered, self.scene.remembered())]
        {
            for (table, rows) in before {
                let none = Vec::new();
                for row in without(rows, now.get(table).unwrap_or(&none)) {
                    self.violated(4, format!("`{table}` lacks the row {row}"));
                }
            }
            for table in now.keys().filter(|table| !before.contains_key(*table) && !table.starts_with("delta")) {
                self.violated(4, format!("production has a table more: `{table}`"));
            }
        }
        // A table that is never loaded gets no row either.
        let count = self.scene.rows("SELECT count(*) FROM region").remove(0).remove(0);
        if count != self.before.production["region"].len().to_string() {
            self.violated(4, format!("`region` has {count} rows"));
        }
    }

    /// 5: by joins, since a constraint that was checked by sets says nothing of its own.
    fn foreign_keys(&mut self) {
        if self.scene.on == On::Sqlite {
            for row in self.scene.rows("SELECT \"table\", rowid, parent FROM pragma_foreign_key_check") {
                self.violated(5, format!("`{}` refers to no row of `{}`, in row {}", row[0], row[2], row[1]));
            }
            return;
        }
        for key in self.scene.rows(ORPHANS) {
            for row in self.scene.rows(&key[1]) {
                self.violated(5, format!("`{}` does not hold for the row {}", key[0], row[0]));
            }
        }
    }

    /// 7: the same delta once more changes no row.
    fn again(&mut self, again: &dyn Fn() -> Ran) {
        let there = |scene: &Scene| {
            let mut there = scene.production();
            let kept = |name: &String| ["run", "file", "key_map"].iter().any(|kept| name[6..].starts_with(kept));
            there.extend(scene.remembered().into_iter().filter(|(name, _)| kept(name)));
            there
        };
        let before = there(self.scene);
        let ran = again();
        if ran.code != 77 || !ran.stderr.contains("loaded already") {
            self.violated(7, format!("a second run ends with {}: {}", ran.code, ran.stderr));
        }
        if there(self.scene) != before {
            self.violated(7, "a second run changed something");
        }
    }
}

fn number_of(text: &str) -> i64 {
    text.parse().unwrap()
}

/// Every foreign key of a database, and the SQL that finds the rows for which it does not hold.
const ORPHANS: &str = "
    SELECT f.conname, format('SELECT c::text FROM %s AS c WHERE %s AND NOT EXISTS (SELECT FROM %s AS p WHERE %s)',
        f.conrelid::regclass, string_agg(format('c.%I IS NOT NULL', here.attname), ' AND '),
        f.confrelid::regclass, string_agg(format('p.%I = c.%I', there.attname, here.attname), ' AND '))
    FROM pg_constraint AS f CROSS JOIN LATERAL unnest(f.conkey, f.confkey) AS pair (here, there)
    JOIN pg_attribute AS here ON here.attrelid = f.conrelid AND here.attnum = pair.here
    JOIN pg_attribute AS there ON there.attrelid = f.confrelid AND there.attnum = pair.there
    WHERE f.contype = 'f' GROUP BY f.oid, f.conname, f.conrelid, f.confrelid ORDER BY 1";
