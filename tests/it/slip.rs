//! Another program changes production while a run inserts, at any point between its first row and its COMMIT: the run notices, or the other
//! program has to wait.
//!
//! Each conflict at a few points: `bash tests/run -- slip`. At a thousand: `PIPELINE_PLANTS=1000 bash tests/run -- slip`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use delta_pipeline::internals::error::Kind;
use delta_pipeline::internals::progress::NoopListener;
use delta_pipeline::internals::report::Verdict;
use delta_pipeline::internals::run::{self, CommandOptions, LoadOptions, RunContext};
use delta_pipeline::internals::target::Access;

use crate::production::{Holder, NO_MODE};
use crate::proxy::Proxy;
use crate::server::{Database, Server};
use crate::support::{Place, tell};

/// How many conflicts are planted.
fn tries() -> usize {
    std::env::var("PIPELINE_PLANTS").map_or(36, |tries| tries.parse().unwrap())
}

/// Of `child`, nothing but `leaf` refers to it by a foreign key; `area` has no index but its primary key's.
const SQL: &str = "
    CREATE TABLE area (area_id integer PRIMARY KEY, code text NOT NULL);
    CREATE TABLE zone (zone_id integer PRIMARY KEY, name text NOT NULL UNIQUE);
    CREATE TABLE child (
        child_id bigserial PRIMARY KEY, ref text, area_id integer, zone_id integer REFERENCES zone, before_id bigint, code text);
    CREATE TABLE leaf (leaf_id bigserial PRIMARY KEY, no text UNIQUE, child_id bigint NOT NULL REFERENCES child);
    INSERT INTO area SELECT n, 'A' || n FROM generate_series(1, 50) AS n;
    INSERT INTO zone SELECT n, 'Z' || n FROM generate_series(1, 5) AS n;";

const PIPELINE: &str = "version: 1
name: family
target: { url: '${DATABASE_URL}' }
safeguards: { conversion_mode: off }
load: {}
tables:
  child:
    source: { path: child.csv }
    legacy_key: [ref]
    key: { column: child_id }
    relationships:
      - { column: area_id, from: [area], to: area, by: code }
      - { column: zone_id, from: [zone], to: zone, by: name }
      - { column: before_id, from: [before], to: child }
    checks: [{ unique: [code] }]
  leaf:
    source: { path: leaf.csv }
    legacy_key: [no]
    key: { column: leaf_id }
    relationships: [{ column: child_id, from: [child], to: child }]
";

/// How rows are inserted.
const LOADS: [&str; 4] =
    ["{}", "{ staging: always }", "{ foreign_keys: set_based }", "{ lock: table, foreign_keys: set_based }"];

/// What the other program does, each time something that the delta's checks have found otherwise.
const CONFLICTS: [&str; 9] = [
    "DELETE FROM area WHERE area_id = 2",
    "UPDATE area SET code = 'other' WHERE area_id = 2",
    "UPDATE area SET code = CASE area_id WHEN 1 THEN 'A2' ELSE 'A1' END WHERE area_id IN (1, 2)",
    "DELETE FROM zone WHERE zone_id = 3",
    "UPDATE zone SET name = 'other' WHERE zone_id = 3",
    "DELETE FROM child WHERE ref = 'OLD'",
    "INSERT INTO child (code) VALUES ('K1')",
    "INSERT INTO child (code) SELECT 'K' || n FROM generate_series(1, 4) AS n",
    "INSERT INTO leaf (no, child_id) SELECT 'L4', min(child_id) FROM child",
];

/// A production with a row of an earlier run, and a delta that refers to it.
struct Family {
    place: Place,
    database: Database,
}

impl Family {
    fn new(load: &str) -> Self {
        let (place, database) = (Place::new(), Server::shared().database(SQL));
        place.write("p.yaml", PIPELINE.replace("load: {}", &format!("load: {load}")));
        place.write("child.csv", "ref,area,zone,before,code\nOLD,A9,Z1,,K0\n");
        place.write("leaf.csv", "no,child\n");
        let url = database.local_url("postgres");
        place.pipeline_with(&["setup", "p.yaml"], &[("DATABASE_URL", &url)]).passes();
        database.execute(NO_MODE);
        place.pipeline_with(&["run", "p.yaml"], &[("DATABASE_URL", &url)]).passes();
        let rows: String = (1..=4).map(|n| format!("C{n},A{n},Z{n},OLD,K{n}\n")).collect();
        place.write("child.csv", format!("ref,area,zone,before,code\n{rows}"));
        let rows: String = (1..=4).map(|n| format!("L{n},C{n}\n")).collect();
        place.write("leaf.csv", format!("no,child\n{rows}"));
        Self { place, database }
    }

    /// Runs into a copy of production while something is planted before a message of the run; what became of both.
    fn try_at(&self, message: usize, conflict: &'static str) -> Try {
        let database = self.database.copied();
        let planted: Arc<Mutex<Option<bool>>> = Arc::default();
        let (told, url) = (planted.clone(), database.local_url("postgres"));
        let proxy = Proxy::planting(Server::shared().port, message, move || {
            let other = Holder::new(&url);
            other.execute("SET lock_timeout = '100ms'");
            let done = other.run(conflict);
            let waited = done.as_ref().is_err_and(|(code, _)| code == "55P03");
            assert!(done.is_ok() || waited, "{conflict}: {done:?}");
            *told.lock().unwrap() = Some(waited);
        });
        let vars = [("DATABASE_URL".to_owned(), proxy.url(&database))].into();
        let request = CommandOptions { vars, ..CommandOptions::new(self.place.path("p.yaml")) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let run = runtime.block_on(async {
            let session = RunContext::open(&request, Access::Write).await?;
            run::run(&session, LoadOptions::default(), &NoopListener).await
        });
        let loaded = match run {
            Ok(report) => {
                assert_eq!(report.verdict, Verdict::Loaded, "{:?}", report.reasons);
                Ok(())
            }
            Err(error) => Err((error.kind(), error.to_string())),
        };
        let rows = database
            .number("SELECT count(*) + count(leaf) FROM child LEFT JOIN leaf USING (child_id) WHERE ref ~ '^C'");
        let waited = *planted.lock().unwrap();
        Try { waited, loaded, rows, messages: proxy.messages() }
    }
}

struct Try {
    /// Whether the other program had to wait; None where the run never came to the message.
    waited: Option<bool>,
    loaded: Result<(), (Kind, String)>,
    /// The rows of the run that are in production.
    rows: i64,
    messages: usize,
}

#[test]
fn nothing_slips_in_between_the_first_row_and_the_commit() {
    let counts: Mutex<BTreeMap<&str, [usize; 2]>> = Mutex::default();
    thread::scope(|scope| {
        for (lane, load) in LOADS.into_iter().enumerate() {
            let counts = &counts;
            scope.spawn(move || {
                let family = Family::new(load);
                let whole = family.try_at(usize::MAX, "");
                assert_eq!((whole.loaded, whole.rows), (Ok(()), 8), "{load}");
                let mine: Vec<usize> = (lane..tries()).step_by(LOADS.len()).collect();
                for (turn, number) in mine.iter().enumerate() {
                    // All points, mixed with all conflicts; the last one is the COMMIT.
                    let point = (7 * turn + 2 * lane) % mine.len();
                    let message = (whole.messages - 1) * point / (mine.len() - 1).max(1);
                    let conflict = CONFLICTS[(number / LOADS.len()) % CONFLICTS.len()];
                    let Try { waited, loaded, rows, .. } = family.try_at(message, conflict);
                    let what = format!("load: {load}, before message {message} of {}: {conflict}", whole.messages);
                    let waited = waited.unwrap_or_else(|| panic!("{what}: the run never came to it: {loaded:?}"));
                    match &loaded {
                        Ok(()) => assert!(waited && rows == 8, "{what}: it slipped in"),
                        Err((kind, error)) => {
                            assert!(!waited && *kind == Kind::Data && rows == 0, "{what}: {kind:?} {error}");
                            assert!(error.contains(".csv:"), "{what}: no row is named: {error}");
                        }
                    }
                    counts.lock().unwrap().entry(conflict).or_default()[usize::from(waited)] += 1;
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    for (conflict, [caught, blocked]) in &counts {
        eprintln!("{caught:4} caught, {blocked:4} blocked: {conflict}");
    }
    let [caught, blocked] = [0, 1].map(|which| counts.values().map(|count| count[which]).sum::<usize>());
    assert_eq!(caught + blocked, tries());
    tell(&format!("{} conflicts between the first row and the COMMIT: {caught} caught, {blocked} blocked", tries()));
}
