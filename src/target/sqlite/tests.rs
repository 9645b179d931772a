//! The whole target on real files.

use super::*;
use crate::error::Kind;
use crate::spec::{LoadSpec, SafeguardsSpec, TargetSpec, Timeout};
use crate::target::{Aggregate, CatalogTable, RowSource, TableIndex};
use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use futures::{StreamExt, stream};
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    spec: TargetSpec,
    load: LoadSpec,
}

impl Place {
    /// Creates a folder with a database from this SQL.
    fn new(sql: &str) -> Self {
        let place = Self {
            folder: TempDir::new().unwrap(),
            spec: TargetSpec {
                url: "sqlite:p.db".into(),
                create_from: None,
                production: None,
                staging: "staging".into(),
            },
            load: LoadSpec::default(),
        };
        place.sql(sql);
        place
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("p.db")
    }

    /// Changes the database as another program does.
    fn sql(&self, sql: &str) {
        Connection::open(self.file()).unwrap().execute_batch(sql).unwrap();
    }

    fn number(&self, sql: &str) -> i64 {
        Connection::open(self.file()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn text(&self, sql: &str) -> String {
        Connection::open(self.file()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn open(&self, access: Access) -> Result<SqliteTarget> {
        let folder = self.folder.path();
        let address = TargetConfig {
            url: "sqlite:p.db",
            shown: "sqlite:p.db",
            spec: &self.spec,
            schemas: &[],
            namespace: "",
            load: &self.load,
            safeguards: &SafeguardsSpec::default(),
            memory: 64 << 20,
            folder,
            script_folder: folder,
        };
        SqliteTarget::open("p.db", &address, access)
    }

    async fn destination(&self, table: &str, columns: &[&str]) -> Destination {
        let catalog = self.open(Access::Read).unwrap().catalog().await.unwrap();
        destination(catalog.table(table).unwrap(), columns)
    }

    /// Loads rows of a table: a key (the first column) and a text.
    async fn load(&self, run: &str, destination: &Destination, rows: &[(i64, &str)]) -> Result<()> {
        let target = self.open(Access::Write)?;
        let mut load = target.begin(&run.into(), LoadMode::Commit).await?;
        stage(load.as_mut(), destination, rows).await?;
        let mut load = load.begin_insert(std::slice::from_ref(destination)).await?;
        load.insert(std::slice::from_ref(destination), &Staged).await?;
        let mut load = load.finish();
        load.record_run(&record(run), &[]).await?;
        Ok(load.commit().await?)
    }
}

/// Rows that are already staged.
struct Staged;

impl RowSource for Staged {
    fn staged_rows(&self, _: TableIndex) -> Result<Batches<'_>> {
        Ok(stream::empty().boxed())
    }

    fn expected_rows(&self, at: TableIndex) -> Result<Batches<'_>> {
        self.staged_rows(at)
    }

    fn key_map(&self, _: TableIndex) -> Result<Batches<'_>> {
        Ok(stream::empty().boxed())
    }

    fn mismatch_error(&self, _: TableIndex, how: &str) -> Error {
        Error::internal(how)
    }
}

fn destination(table: &Arc<CatalogTable>, columns: &[&str]) -> Destination {
    let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
    Destination {
        table: table.clone(),
        key: vec![columns[0].clone()],
        columns,
        assigned: None,
        evaluated: Vec::new(),
        is_referred_only: false,
        self_referencing: false,
        commit_checks: Vec::new(),
        changed: Vec::new(),
        reads: Vec::new(),
    }
}

fn record(run: &str) -> RunRecord {
    RunRecord { id: run.into(), pipeline: "p".into(), started_at: "2025".into(), report: "{}".into() }
}

async fn stage(load: &mut dyn StagingPhase, destination: &Destination, rows: &[(i64, &str)]) -> Result<()> {
    load.clear_staging(std::slice::from_ref(destination)).await?;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows.len() as i64));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
    let legacy: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("L{}", row.0))));
    let batch = |columns: Vec<(&str, ArrayRef)>| Ok(RecordBatch::try_from_iter(columns).unwrap());
    let staged = batch(vec![("_row", numbers.clone()), ("id", keys.clone()), ("name", texts)]);
    load.stage(destination, stream::iter([staged]).boxed()).await?;
    let mapped = batch(vec![("_row", numbers), ("legacy_key", legacy), ("id", keys)]);
    load.stage_keys(destination, stream::iter([mapped]).boxed()).await?;
    Ok(())
}

const ITEM: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE);";

#[tokio::test]
async fn tables_named_like_ours_are_seen_and_never_dropped() {
    for (made, there, hint) in [
        ("CREATE TABLE Staging_item (a); INSERT INTO Staging_item VALUES (1)", "Staging_item", "target.staging"),
        (
            "CREATE TABLE staging_ck_item (a); INSERT INTO staging_ck_item VALUES (1)",
            "staging_ck_item",
            "target.staging",
        ),
        ("CREATE TABLE delta_run (a); INSERT INTO delta_run VALUES (1)", "delta_run", "rename"),
        ("CREATE TABLE delta_object (a); INSERT INTO delta_object VALUES (1)", "delta_object", "rename"),
        (
            "CREATE TABLE delta_key_map_item (a); INSERT INTO delta_key_map_item VALUES (1)",
            "delta_key_map_item",
            "rename",
        ),
        ("CREATE VIEW staging_item AS SELECT 1", "staging_item", "target.staging"),
        ("CREATE INDEX staging_item ON item (name)", "staging_item", "target.staging"),
    ] {
        let place = Place::new(&format!("{ITEM} {made};"));
        let item = place.destination("item", &["id", "name"]).await;
        let catalog = place.open(Access::Read).unwrap().catalog().await.unwrap();
        assert_eq!(catalog.table(there).is_some(), made.starts_with("CREATE TABLE"), "{made}");
        let before = place.text("SELECT group_concat(name || sql) FROM sqlite_schema");
        let error =
            place.open(Access::Read).unwrap().preflight(std::slice::from_ref(&item), Access::Read).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Pipeline);
        assert!(error.to_string().to_lowercase().contains(&there.to_lowercase()), "{error}");
        assert!(error.next_step().unwrap().contains(hint), "{error:?}");
        let error = place.load("r1", &item, &[(1, "a")]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Pipeline, "{error}");
        assert_eq!(place.text("SELECT group_concat(name || sql) FROM sqlite_schema"), before);
    }
}

#[tokio::test]
async fn our_own_tables_are_hidden_and_made_again() {
    let place = Place::new(&format!("{ITEM} CREATE TABLE staging_other (a); CREATE TABLE delta_other (a);"));
    let item = place.destination("item", &["id", "name"]).await;
    place.load("r1", &item, &[(1, "a")]).await.unwrap();
    place.load("r2", &item, &[(2, "b")]).await.unwrap();
    let target = place.open(Access::Read).unwrap();
    target.preflight(std::slice::from_ref(&item), Access::Read).await.unwrap();
    assert_eq!(target.catalog().await.unwrap().names(), ["delta_other", "item", "staging_other"]);
    assert_eq!(target.runs().await.unwrap().len(), 2);
    assert_eq!(place.number("SELECT count(*) FROM item"), 2);
}

#[tokio::test]
async fn names_that_two_tables_want_are_refused() {
    let place = Place::new("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE ck_a (id INTEGER PRIMARY KEY);");
    let both = [place.destination("a", &["id"]).await, place.destination("ck_a", &["id"]).await];
    let error = place.open(Access::Read).unwrap().preflight(&both, Access::Read).await.unwrap_err();
    assert!(error.to_string().contains("`staging_ck_a`") && error.kind() == Kind::Pipeline, "{error}");
    for staging in ["delta", "Delta_key_map", "sqlite"] {
        let mut place = Place::new(ITEM);
        place.spec.staging = staging.into();
        let item = place.destination("item", &["id", "name"]).await;
        let error =
            place.open(Access::Read).unwrap().preflight(std::slice::from_ref(&item), Access::Read).await.unwrap_err();
        assert!(error.to_string().contains(staging) && error.kind() == Kind::Pipeline, "{error}");
    }
}

#[tokio::test]
async fn a_constraint_that_would_replace_or_ignore_rows_refuses_them() {
    for conflict in ["REPLACE", "IGNORE"] {
        let place = Place::new(&format!(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE ON CONFLICT {conflict}); INSERT INTO item VALUES (1, 'a');"
        ));
        let item = place.destination("item", &["id", "name"]).await;
        let error = place.load("r1", &item, &[(2, "a")]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{error}");
        assert_eq!(place.text("SELECT group_concat(id || name) FROM item"), "1a");
    }
}

#[tokio::test]
async fn a_database_that_appeared_while_it_was_made_is_kept() {
    let place = Place::new("CREATE TABLE other (a)");
    let beside = place.folder.path().join("made.db");
    std::fs::write(&beside, "mine").unwrap();
    publish(&beside, &place.file()).unwrap();
    assert_eq!(place.number("SELECT count(*) FROM other"), 0);
    let free = place.folder.path().join("free.db");
    publish(&beside, &free).unwrap();
    assert_eq!(std::fs::read_to_string(&free).unwrap(), "mine");
    assert_eq!(publish(&beside, Path::new("/nowhere/x.db")).unwrap_err().kind(), Kind::Unreachable);
}

#[test]
fn a_database_is_made_by_its_script_and_nothing_stays_beside_it() {
    let mut place = Place::new(ITEM);
    std::fs::remove_file(place.file()).unwrap();
    std::fs::write(place.folder.path().join("make.sql"), ITEM).unwrap();
    place.spec.create_from = Some(crate::spec::CreateFrom::Any("make.sql".into()));
    place.open(Access::Write).unwrap();
    assert_eq!(place.number("SELECT count(*) FROM item"), 0);
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 2);
}

/// Returns the error of a script that only creates a database to read.
fn looked_at(script: &str) -> (Place, Result<SqliteTarget>) {
    let mut place = Place::new(ITEM);
    std::fs::remove_file(place.file()).unwrap();
    std::fs::write(place.folder.path().join("make.sql"), script).unwrap();
    place.spec.create_from = Some(crate::spec::CreateFrom::Any("make.sql".into()));
    let target = place.open(Access::Read);
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 1, "{script}");
    (place, target)
}

#[test]
fn a_script_that_is_only_looked_at_touches_no_file() {
    let other = tempfile::tempdir().unwrap();
    let file = other.path().join("side.db").display().to_string();
    for script in [
        format!("ATTACH '{file}' AS side; CREATE TABLE side.t (x);"),
        format!("ATTACH (substr('x{file}', 2)) AS side; CREATE TABLE side.t (x);"),
        format!("{ITEM}; VACUUM INTO '{file}';"),
        format!("{ITEM}; SELECT load_extension('{file}');"),
        format!("{ITEM}; DETACH main;"),
    ] {
        let error = looked_at(&script).1.err().unwrap();
        assert_eq!(error.kind(), Kind::Input, "{script}: {error}");
        assert!(error.to_string().contains("cannot create the database"), "{error}");
        assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0, "{script}");
    }
    looked_at(&format!("BEGIN; {ITEM}; COMMIT; PRAGMA foreign_keys = off; ANALYZE;")).1.unwrap();
}

#[test]
fn an_invalid_script_is_reported_with_the_reason() {
    for (script, what) in [("BEGIN; CREATE TABLE t (x);", "no COMMIT"), (".open other.db\n", "the sqlite3 shell")] {
        let error = looked_at(script).1.err().unwrap();
        let message = format!("{error} {}", error.next_step().unwrap());
        assert!(error.kind() == Kind::Input && message.contains(what), "{message}");
    }
}

#[tokio::test]
async fn staging_and_the_key_map_keep_text_that_looks_like_a_number() {
    let place = Place::new("CREATE TABLE item (id STRING PRIMARY KEY, name UUID)");
    let item = place.destination("item", &["id", "name"]).await;
    let target = place.open(Access::Write).unwrap();
    let mut load = target.begin(&"r".into(), LoadMode::Commit).await.unwrap();
    load.clear_staging(std::slice::from_ref(&item)).await.unwrap();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let row: ArrayRef = Arc::new(Int64Array::from(vec![0]));
    let batch =
        RecordBatch::try_from_iter([("_row", row.clone()), ("id", text("007")), ("name", text("1.50"))]).unwrap();
    load.stage(&item, stream::iter([Ok(batch)]).boxed()).await.unwrap();
    let batch = RecordBatch::try_from_iter([("_row", row), ("legacy_key", text("L")), ("id", text("007"))]).unwrap();
    load.stage_keys(&item, stream::iter([Ok(batch)]).boxed()).await.unwrap();
    let mut load = load.begin_insert(&[]).await.unwrap();
    load.append_key_map(&item, &"r".into(), RowNumber::new(0)..RowNumber::new(1)).await.unwrap();
    load.finish().commit().await.unwrap();
    assert_eq!(place.text("SELECT id || ' ' || name FROM staging_item"), "007 1.50");
    assert_eq!(place.text("SELECT id FROM delta_key_map_item"), "007");
}

#[tokio::test]
async fn a_reader_learns_of_a_run_that_was_interrupted_while_it_wrote() {
    let place = Place::new("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)");
    let connection = Connection::open(place.file()).unwrap();
    // A small cache makes SQLite write pages before the transaction ends: the copy is what a kill leaves.
    connection.execute_batch("PRAGMA cache_size = 5; PRAGMA cache_spill = 1; BEGIN IMMEDIATE").unwrap();
    for _ in 0..2000 {
        connection.execute("INSERT INTO item (name) VALUES (hex(randomblob(200)))", []).unwrap();
    }
    let cut = Place::new("");
    std::fs::copy(place.file(), cut.file()).unwrap();
    std::fs::copy(place.folder.path().join("p.db-journal"), cut.folder.path().join("p.db-journal")).unwrap();
    let error = cut.open(Access::Read).err().unwrap();
    assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    assert!(error.to_string().contains("a run was interrupted while it wrote to `sqlite:p.db`"), "{error}");
    assert!(error.next_step().unwrap().contains("nothing was kept"));
    cut.open(Access::Write).unwrap();
    assert_eq!(cut.number("SELECT count(*) FROM item"), 0);
    cut.open(Access::Read).unwrap();
}

/// Opens the database as a reader that does not wait.
fn reader(place: &Place) -> Connection {
    let reader = Connection::open(place.file()).unwrap();
    reader.busy_timeout(Duration::ZERO).unwrap();
    reader
}

#[tokio::test]
async fn others_read_while_more_rows_than_a_cache_holds_are_written() {
    let place = Place::new("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)");
    let item = place.destination("item", &["id", "name"]).await;
    let rows: Vec<_> = (1..60_000).map(|key| (key, "a text that is as long as a memo of a line or so")).collect();
    let target = place.open(Access::Write).unwrap();
    let reader = reader(&place);
    let count = || reader.query_row("SELECT count(*) FROM item", [], |row| row.get::<_, i64>(0));
    let mut load = target.begin(&"r".into(), LoadMode::Commit).await.unwrap();
    stage(load.as_mut(), &item, &rows).await.unwrap();
    assert_eq!(count(), Ok(0), "while rows are staged");
    let mut load = load.begin_insert(std::slice::from_ref(&item)).await.unwrap();
    load.insert(std::slice::from_ref(&item), &Staged).await.unwrap();
    assert_eq!(count(), Ok(0), "while rows are inserted");
    let mut load = load.finish();
    load.record_run(&record("r"), &[]).await.unwrap();
    load.commit().await.unwrap();
    assert_eq!(count(), Ok(59_999));
}

#[tokio::test]
async fn a_commit_waits_for_readers_as_long_as_the_setting_says() {
    let mut place = Place::new("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)");
    let item = place.destination("item", &["id", "name"]).await;
    let reader = reader(&place);
    let begin = || reader.execute_batch("BEGIN; SELECT count(*) FROM item").unwrap();
    begin();
    place.load.lock_timeout = serde_json::from_str("\"20ms\"").unwrap();
    let error = place.load("r1", &item, &[(1, "a")]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(error.to_string().starts_with("cannot commit to"), "{error}");
    let hint = error.next_step().unwrap();
    assert!(hint.contains("is using the database") && hint.contains("`load.lock_timeout`"), "{hint}");
    // The journal's own COMMIT fails as well, and leaves no transaction open.
    let target = place.open(Access::Write).unwrap();
    let make = || control_schema::make_alone(&target.connection.try_lock().unwrap(), &target.names);
    assert!(make().unwrap_err().to_string().contains("database is locked"));
    reader.execute_batch("COMMIT").unwrap();
    make().unwrap();
    begin();
    place.load.lock_timeout = Timeout::from_secs(60);
    let open = place.open(Access::Write).unwrap().connection;
    let wait: i64 = open.lock().await.pragma_query_value(None, "busy_timeout", |row| row.get(0)).unwrap();
    assert_eq!(wait, 60_000);
    let reading = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        reader.execute_batch("COMMIT").unwrap();
    });
    place.load("r2", &item, &[(2, "b")]).await.unwrap();
    reading.join().unwrap();
    assert_eq!(place.text("SELECT group_concat(name) FROM item"), "b");
}

#[tokio::test]
async fn what_sqlite_lacks_of_a_schema_is_named_with_the_table() {
    let place = Place::new(ITEM);
    place.sql(
        "PRAGMA writable_schema = ON;
         INSERT INTO sqlite_schema VALUES ('table', 'found', 'found', 0, 'CREATE VIRTUAL TABLE found USING elsewhere (a)');",
    );
    let error = place.open(Access::Read).unwrap().catalog().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Pipeline, "{error}");
    assert!(error.to_string().contains("`found`"), "{error}");
    assert!(error.next_step().unwrap().contains("the module `elsewhere`"), "{error:?}");
}

#[tokio::test]
async fn a_collation_that_sqlite_lacks_is_named() {
    let place = Place::new(ITEM);
    place.sql(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT COLLATE german UNIQUE)' WHERE name = 'item';",
    );
    let target = place.open(Access::Write).unwrap();
    let error = match target.catalog().await {
        Err(error) => error,
        Ok(catalog) => {
            let item = destination(catalog.table("item").unwrap(), &["id", "name"]);
            place.load("r", &item, &[(1, "a")]).await.unwrap_err()
        }
    };
    assert_eq!(error.kind(), Kind::Pipeline, "{error}");
    assert!(error.next_step().unwrap().contains("`german`"), "{error:?}");
}

#[tokio::test]
async fn a_decimal_of_38_digits_is_known_to_keep_15() {
    let place = Place::new("CREATE TABLE item (id INTEGER PRIMARY KEY, name DECIMAL(38,18), whole INTEGER)");
    let item = place.destination("item", &["id", "name"]).await;
    let column = item.table.column("name").unwrap();
    assert_eq!((&column.data_type, column.significant_digits), (&DataType::Decimal128(38, 18), Some(15)));
    assert_eq!(item.table.column("whole").unwrap().significant_digits, None);
    let value = 123_456_789_012_345_i128;
    let decimals = arrow::array::Decimal128Array::from(vec![value]).with_precision_and_scale(38, 18).unwrap();
    let target = place.open(Access::Write).unwrap();
    let mut load = target.begin(&"r".into(), LoadMode::Commit).await.unwrap();
    load.clear_staging(std::slice::from_ref(&item)).await.unwrap();
    let (row, key): (ArrayRef, ArrayRef) = (Arc::new(Int64Array::from(vec![0])), Arc::new(Int64Array::from(vec![7])));
    let legacy: ArrayRef = Arc::new(StringArray::from(vec!["L"]));
    let decimals: ArrayRef = Arc::new(decimals);
    let batch =
        RecordBatch::try_from_iter([("_row", row.clone()), ("id", key.clone()), ("name", decimals.clone())]).unwrap();
    load.stage(&item, stream::iter([Ok(batch)]).boxed()).await.unwrap();
    let batch =
        RecordBatch::try_from_iter([("_row", row.clone()), ("legacy_key", legacy), ("id", key.clone())]).unwrap();
    load.stage_keys(&item, stream::iter([Ok(batch)]).boxed()).await.unwrap();
    let mut load = load.begin_insert(std::slice::from_ref(&item)).await.unwrap();
    load.insert(std::slice::from_ref(&item), &Staged).await.unwrap();
    let sum = load.aggregates(&item, &[("name".to_owned(), Aggregate::Sum)]).await.unwrap();
    assert_eq!(sum.column(1).as_primitive::<arrow::datatypes::Int64Type>().value(0), value as i64);
    load.finish().commit().await.unwrap();
    let expected = || {
        let columns = [("_row", row.clone()), ("id", key.clone()), ("name", decimals.clone())];
        stream::iter([Ok(RecordBatch::try_from_iter(columns).unwrap())]).boxed()
    };
    assert_eq!(target.compare(&item, expected()).await.unwrap(), None);
    place.sql("UPDATE item SET name = 1.5");
    let how = target.compare(&item, expected()).await.unwrap().unwrap();
    assert!(how.starts_with("column `name` is 1.5"), "{how}");
}
