//! Production is in use: others insert, take keys and delete while a run is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use delta_pipeline::internals::error::Kind;
use delta_pipeline::internals::progress::{Listener, NoopListener, Progress, Step};
use delta_pipeline::internals::report::Verdict;
use delta_pipeline::internals::run::{self, LoadOptions, RunContext};
use delta_pipeline::internals::spec::Staging;
use delta_pipeline::internals::target::Access;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use crate::production::{Production, SQL};
use crate::server::{Database, Server};
use crate::support::{Ran, assert_same};

/// The files of a place; a run that fails leaves its journal.
fn files_but_of_runs(production: &Production) -> BTreeMap<String, String> {
    let mut files = production.place.files();
    // What a run tells of itself stays: its journal, and what its checks found.
    files.retain(|name, _| !name.ends_with("journal.ndjson") && !name.ends_with("report.json"));
    files
}

const WRITERS: usize = 16;
const RUNS: usize = 50;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a program that writes to production did.
#[derive(Default)]
struct Wrote {
    accounts: Vec<i64>,
    items: Vec<i64>,
    longest: Duration,
}

/// Inserts accounts with items until it is told to stop: by the column's default, or by a number that it took first.
async fn writer(url: String, number: usize, stop: Arc<AtomicBool>) -> Wrote {
    let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(async { drop(connection.await) });
    let mut wrote = Wrote::default();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let name = format!("W{number}-{}", wrote.accounts.len());
        let transaction = client.transaction().await.unwrap();
        let by_default = "INSERT INTO account (account_no) VALUES ($1) RETURNING account_id";
        let by_number = "INSERT INTO account (account_id, account_no)
            SELECT nextval('account_account_id_seq'), $1 RETURNING account_id";
        let sql = [by_default, by_number][number % 2];
        let account: i64 = transaction.query_one(sql, &[&name]).await.unwrap().get(0);
        let sql = "INSERT INTO item (account_id, quantity) VALUES ($1, 1), ($1, 2) RETURNING item_id::bigint";
        let items = transaction.query(sql, &[&account]).await.unwrap();
        transaction.commit().await.unwrap();
        wrote.longest = wrote.longest.max(begun.elapsed());
        wrote.accounts.push(account);
        wrote.items.extend(items.iter().map(|row| row.get::<_, i64>(0)));
        // A program with something else to do as well: without it, the writers alone would fill the machine.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wrote
}

#[test]
fn no_key_is_given_twice_and_no_run_fails_while_others_insert() {
    let production = Production::ready();
    let url = production.database.local_url("postgres");
    let before = (production.count("account"), production.count("item"));
    let wrote = runtime().block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> =
            (0..WRITERS).map(|number| tokio::spawn(writer(url.clone(), number, stop.clone()))).collect();
        for number in 0..RUNS {
            production.delta(&format!("R{number}"), 10);
            let session = RunContext::open(&production.request(), Access::Write).await.unwrap();
            let report = run::run(&session, LoadOptions::default(), &NoopListener)
                .await
                .unwrap_or_else(|error| panic!("run {number}: {error}"));
            assert_eq!(report.verdict, Verdict::Loaded, "{:?}", report.reasons);
        }
        stop.store(true, Ordering::Relaxed);
        let mut wrote = Vec::new();
        for writer in writers {
            wrote.push(writer.await.unwrap());
        }
        wrote
    });

    for (table, rows_of_a_run, there, keys) in [
        ("account", 10, before.0, wrote.iter().flat_map(|wrote| wrote.accounts.clone()).collect::<Vec<_>>()),
        ("item", 20, before.1, wrote.iter().flat_map(|wrote| wrote.items.clone()).collect()),
    ] {
        let own: BTreeSet<i64> = keys.iter().copied().collect();
        assert_eq!(own.len(), keys.len(), "{table}: a writer's key was given twice");
        let blocks = production
            .database
            .rows(&format!("SELECT first, last FROM delta.block WHERE table_name = 'public.{table}' ORDER BY first"));
        assert_eq!(blocks.len(), RUNS);
        let mut behind = 0;
        for block in &blocks {
            let (first, last): (i64, i64) = (block[0].parse().unwrap(), block[1].parse().unwrap());
            assert!(first > behind && last - first + 1 == rows_of_a_run, "{table}: {blocks:?}");
            let taken: Vec<_> = own.range(first..=last).collect();
            assert!(taken.is_empty(), "{table}: a writer was given {taken:?} of the block {block:?}");
            behind = last;
        }
        let mapped = format!(
            "SELECT count(*) FROM delta.key_map_{table} AS m JOIN {table} USING ({table}_id)
             JOIN delta.block AS b ON b.table_name = 'public.{table}' AND m.{table}_id BETWEEN b.first AND b.last AND b.run = m.run"
        );
        let loaded = rows_of_a_run * RUNS as i64;
        assert_eq!(production.database.number(&mapped), loaded, "{table}");
        assert_eq!(production.count(table), there + loaded + keys.len() as i64, "{table}");
    }
    let count: usize = wrote.iter().map(|wrote| wrote.accounts.len()).sum();
    let longest = wrote.iter().map(|wrote| wrote.longest).max().unwrap();
    eprintln!("{WRITERS} writers, {RUNS} runs: {count} transactions of writers, the longest took {longest:?}");
    assert!(count > WRITERS);
}

/// What is planted, what takes it away again, and what the error names: table, constraint and place.
struct Plant {
    sql: &'static str,
    undo: &'static str,
    table: &'static str,
    constraint: &'static str,
    place: &'static str,
    /// Whether a constraint of production keeps it from happening, and no check asks again.
    constrained: bool,
}

const PLANTS: [Plant; 5] = [
    Plant {
        sql: "INSERT INTO account (account_no) VALUES ('D-3')",
        undo: "DELETE FROM account WHERE account_no = 'D-3'",
        table: "`account`",
        constraint: "account_account_no_key",
        place: "account.csv:4",
        constrained: true,
    },
    Plant {
        sql: "DELETE FROM region WHERE region_id = 7",
        undo: "INSERT INTO region VALUES (7, 'region 7')",
        table: "`item`",
        constraint: "item_region_id_fkey",
        place: "item.csv:8",
        constrained: true,
    },
    // A check of the pipeline file, which no constraint of production keeps true.
    Plant {
        sql: "INSERT INTO account (account_no, alias) VALUES ('other', 'D 5')",
        undo: "DELETE FROM account WHERE account_no = 'other'",
        table: "`account`",
        constraint: "unique(alias)",
        place: "account.csv:6",
        constrained: false,
    },
    // A reference that no constraint of production keeps true.
    Plant {
        sql: "DELETE FROM area WHERE area_id = 2",
        undo: "INSERT INTO area VALUES (2)",
        table: "`item`",
        constraint: "area_id",
        place: "item.csv:3",
        constrained: false,
    },
    // A record of an earlier run.
    Plant {
        sql: "DELETE FROM account WHERE account_no = 'K-1'",
        undo: "INSERT INTO account (account_id, account_no, alias) SELECT account_id, legacy_key, 'K 1'
               FROM delta.key_map_account WHERE legacy_key = 'K-1'",
        table: "`item`",
        constraint: "item_account_id_fkey",
        place: "item.csv:7",
        constrained: true,
    },
];

/// Plants something when a step of a run begins.
struct Planter<'a> {
    database: &'a Database,
    sql: &'a str,
    point: Step,
    planted: AtomicUsize,
}

impl Listener for Planter<'_> {
    fn on_progress(&self, event: &Progress) {
        if matches!(event, Progress::Began(step) if *step == self.point) {
            self.database.execute(self.sql);
            self.planted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Runs with something planted; how the run failed.
fn run_planted(runtime: &Runtime, session: &RunContext, database: &Database, sql: &str, point: Step) -> Ran {
    let planter = Planter { database, sql, point, planted: AtomicUsize::new(0) };
    let result = runtime.block_on(run::run(session, LoadOptions::default(), &planter));
    assert_eq!(planter.planted.load(Ordering::Relaxed), 1, "{point:?}");
    match result {
        Ok(report) => Ran { code: 0, stdout: format!("{:?}", report.verdict), stderr: String::new() },
        Err(error) => Ran {
            code: error.kind().exit_code().into(),
            stdout: String::new(),
            stderr: format!("{error}\nhint: {}", error.next_step().unwrap_or("none")),
        },
    }
}

/// A production with accounts of an earlier run, and a delta that refers to one of them, and to an area without a constraint.
fn planted_in(head: &str) -> Production {
    let sql = format!(
        "{SQL} CREATE TABLE area (area_id integer PRIMARY KEY); INSERT INTO area VALUES (1), (2), (3);
        ALTER TABLE item ADD COLUMN area_id integer"
    );
    let production = Production::new(Server::shared(), &sql, head);
    let text = production.place.text("p.yaml") + "      - { column: area_id, from: [area], to: area, by: area_id }\n";
    production.place.write("p.yaml", text);
    production.place.write("account.csv", "ref,alias\nK-1,K 1\nK-2,K 2\n");
    production.place.write("item.csv", "ref,account,region_id,quantity,area\n");
    production.set_up();
    production.pipeline(&["run", "p.yaml"]).passes();
    let accounts: String = (1..=20).map(|n| format!("D-{n},D {n}\n")).collect();
    production.place.write("account.csv", format!("ref,alias\n{accounts}"));
    let item = |n: usize| {
        let account = if n == 6 { "K-1".to_owned() } else { format!("D-{n}") };
        format!("D-{n},{account},{n},{n},{}\n", if n == 2 { "2" } else { "1" })
    };
    let items: String = (1..=20).map(item).collect();
    production.place.write("item.csv", format!("ref,account,region_id,quantity,area\n{items}"));
    production
}

/// As [`planted_in`], without what only checks keep true: all rows may go straight into production.
fn constrained_in(head: &str) -> Production {
    let production = planted_in(head);
    let text = production.place.text("p.yaml").replace("    checks: [{ unique: [alias] }]\n", "");
    let text = text.replace("      - { column: area_id, from: [area], to: area, by: area_id }\n", "");
    production.place.write("p.yaml", text);
    let items: String = production
        .place
        .text("item.csv")
        .lines()
        .filter_map(|line| line.rsplit_once(','))
        .fold(String::new(), |lines, (line, _)| lines + line + "\n");
    production.place.write("item.csv", items);
    production
}

/// A hundred tries.
fn plant_a_hundred_times(foreign_keys: &str, staging: Staging) {
    let plants: Vec<_> = PLANTS.iter().filter(|plant| staging == Staging::Always || plant.constrained).collect();
    let production = match staging {
        Staging::Always => planted_in(&format!("load: {{ foreign_keys: {foreign_keys}, staging: always }}\n")),
        Staging::WhenNeeded => constrained_in(&format!("load: {{ foreign_keys: {foreign_keys} }}\n")),
    };
    let (before, files) = (production.kept(), files_but_of_runs(&production));
    let runtime = runtime();
    let session = runtime.block_on(RunContext::open(&production.request(), Access::Write)).unwrap();
    let points = [Step::Keys, Step::Stage, Step::Insert];
    for number in 0..100 {
        let plant = plants[number % plants.len()];
        let turn = number / plants.len();
        let point = points[turn % points.len()];
        let ran = run_planted(&runtime, &session, &production.database, plant.sql, point);
        ran.fails(i32::from(Kind::Data.exit_code()), &[plant.table, plant.constraint, plant.place, "hint: "]);
        production.database.execute(plant.undo);
        assert_same(&production.kept(), &before);
        assert_eq!(files_but_of_runs(&production), files);
    }
    production
        .database
        .execute("DROP TABLE IF EXISTS staging.account, staging.ck_account, staging.item, staging.ck_item");
    production.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(production.count("account"), 5 + 2 + 20);
    let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = 'staging' AND tablename IN ('account', 'item')";
    // Sets are looked at through staging, which has of each row that is referred to one that refers to it.
    let staged = if staging == Staging::WhenNeeded && foreign_keys == "triggers" { 0 } else { 2 };
    assert_eq!(production.database.number(sql), staged);
}

#[test]
fn planted_conflicts_are_caught_by_triggers() {
    plant_a_hundred_times("triggers", Staging::Always);
}

#[test]
fn planted_conflicts_are_caught_by_sets() {
    plant_a_hundred_times("set_based", Staging::Always);
}

#[test]
fn planted_conflicts_are_caught_by_triggers_on_direct_path() {
    plant_a_hundred_times("triggers", Staging::WhenNeeded);
}

#[test]
fn planted_conflicts_are_caught_by_sets_on_the_direct_path() {
    plant_a_hundred_times("set_based", Staging::WhenNeeded);
}

#[test]
fn references_checked_by_own_triggers_hold_set_based() {
    let production = planted_in("load: { foreign_keys: set_based }\n");
    let database = &production.database;
    database.execute(
        "ALTER TABLE account DROP CONSTRAINT account_account_no_key;
         ALTER TABLE account ADD CONSTRAINT deferred UNIQUE (account_no) DEFERRABLE INITIALLY DEFERRED",
    );
    let before = production.kept();
    production.pipeline(&["run", "p.yaml"]).fails(78, &["set_based", "`deferred` of `account`", "hint: "]);
    assert_same(&production.kept(), &before);
    database.execute("ALTER TABLE account DROP CONSTRAINT deferred; ALTER TABLE account ADD UNIQUE (account_no)");

    // A reference that the delta does not fill, and a default does.
    database.execute(
        "ALTER TABLE item ADD COLUMN zone integer REFERENCES region; ALTER TABLE item ALTER zone SET DEFAULT 999",
    );
    let before = production.kept();
    production.pipeline(&["run", "p.yaml"]).fails(78, &["set_based", "`zone` of `item`", "hint: "]);
    assert_same(&production.kept(), &before);
    database.execute("ALTER TABLE item ALTER zone DROP DEFAULT");
    production.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(database.number("SELECT count(*) FROM item WHERE zone IS NULL"), 25);
}

#[test]
fn cut_after_commit_is_not_reported_as_nothing_loaded() {
    let production = planted_in("");
    let runtime = runtime();
    let session = runtime.block_on(RunContext::open(&production.request(), Access::Write)).unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let ran = run_planted(&runtime, &session, &production.database, cut, Step::Verify);
    ran.fails(i32::from(Kind::Unreachable.exit_code()), &["the run is committed", "hint: its rows are in production"]);
    assert!(!ran.stderr.contains("nothing was loaded"), "{}", ran.stderr);
    assert_eq!(production.count("account"), 5 + 2 + 20);
    production.pipeline(&["run", "p.yaml"]).fails(77, &["loaded already"]);
}
