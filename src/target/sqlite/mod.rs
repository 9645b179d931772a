//! The embedded target: one SQLite file with production, staging, the key map, and the runs.
//!
//! SQLite has no schemas. Staging tables are named `staging_…` and control tables `delta_…`, in the same file, so that one transaction
//! covers all writes of a run. A registry, and not the name, decides which tables belong to this program.

mod batches;
mod catalog;
mod check;
mod control_schema;
mod declaration;
mod direct_path;
mod evaluate;
mod key_map;
mod keys;
mod load;
mod mode;
mod names;
mod object_registry;
mod pages;
mod policy;
mod rollback;
mod storage_values;
mod values;
mod violations;
mod writer_lock;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use async_trait::async_trait;
use futures::StreamExt;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::difference::difference;
use super::refuse_set_based;
use super::{
    Access, Batches, Capabilities, Catalog, CatalogColumn, DatabaseCheckRequest, DatabaseCheckResult,
    DatabaseCheckRows, Destination, Filter, Governance, Journals, KeyBlock, KeyMapStore, KeyRequest, LoadMode,
    LoadedFile, Loader, Lookup, Mode, Policy, Preflight, Production, Provision, Relation, RollbackPlan,
    RolledBackTable, RunHeader, RunRecord, RunRollback, RunStore, RunTable, Segment, StagingPhase, Switch,
    TargetConfig, Test, WriterLock,
};
use crate::engine::{RowNumber, ident, literal, row_field};
use crate::error::{Error, Result};
use crate::journal::{FileHash, Record, RunId};
use crate::spec::{ForeignKeys, LoadSpec};
use batches::{Inserting, select};
use key_map::KeyMapTable;
use names::Names;
use object_registry::OwnedObjects;
use pages::Pages;
use storage_values::StorageBatch;
use writer_lock::FileLock;

/// A SQLite file.
pub struct SqliteTarget {
    connection: Arc<Mutex<Connection>>,
    /// The file; None for a database in memory.
    file: Option<PathBuf>,
    lock: Mutex<Option<FileLock>>,
    names: Names,
    load: LoadSpec,
    /// Whether the file existed before. A file that was just created is not in production yet.
    was_there: bool,
}

/// The note of a plan whose references are checked as sets.
const SET_BASED: &str =
    "references are checked as sets before the commit; SQLite's own check of each row is off for the load";

impl SqliteTarget {
    /// Opens the file named after `sqlite:` in a URL, or creates it from `create_from` if it is missing.
    ///
    /// For read access, the file is opened read-only; a missing database is created in memory.
    ///
    /// # Errors
    /// If the file is missing, is not a database, or must be writable and is not.
    pub fn open(rest: &str, address: &TargetConfig<'_>, access: Access) -> Result<Self> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (name, read_only) = match rest.split_once('?') {
            Some((name, "mode=ro")) => (name, true),
            Some(_) => {
                return Err(Error::pipeline(format!("`{}` has an unknown option", address.shown))
                    .hint("write `?mode=ro` or nothing"));
            }
            None => (rest, false),
        };
        let names = Names {
            shown: address.shown.to_owned(),
            staging: address.spec.staging.clone(),
            namespace: address.namespace.to_owned(),
        };
        if name.is_empty() {
            return Err(
                Error::pipeline(format!("the target `{}` names no file", names.shown)).hint("write `sqlite:FILE`")
            );
        }
        if let Some(schema) = address.spec.production.as_deref().filter(|schema| *schema != "main") {
            return Err(Error::pipeline(format!("SQLite has no schema `{schema}`"))
                .hint("leave `target.production` out, or write `main`"));
        }
        let file = address.folder.join(name);
        let script = address.spec.create_from.as_ref().and_then(|from| from.file("sqlite"));
        let is_there = file.exists();
        let connection = match (is_there, script.filter(|_| access != Access::Administer)) {
            (true, _) => connect(&file, access == Access::Read || read_only, address.load, &names)?,
            (false, None) => {
                return Err(Error::unreachable(format!("cannot find database `{}`", names.shown))
                    .hint("check `target.url`, or set `target.create_from` to an SQL file that creates it"));
            }
            (false, Some(script)) => create(&file, &address.script_folder.join(script), access, address.load, &names)?,
        };
        if matches!(access, Access::Write | Access::Administer) && connection.is_readonly("main").unwrap_or(true) {
            return Err(Error::unreachable(format!("`{}` is read-only", names.shown)).hint(
                "make the file and its folder writable for this user, or use `pipeline validate`, which writes nothing",
            ));
        }
        let set = |connection: &Connection| -> rusqlite::Result<bool> {
            rollback::register(connection)?;
            let_readers_in(connection, address.memory)?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_query_value(None, "foreign_keys", |row| row.get(0))
        };
        match set(&connection) {
            Ok(true) => {
                let connection = Arc::new(Mutex::new(connection));
                let file = file.exists().then_some(file);
                let load = address.load.clone();
                Ok(Self { connection, file, lock: Mutex::default(), names, load, was_there: is_there })
            }
            Ok(false) => Err(Error::internal("SQLite does not enforce foreign keys")),
            Err(error) => Err(names.error("cannot open", &error)),
        }
    }

    /// Changes the control tables in a separate transaction; creates them first if they are missing.
    async fn alter(&self, doing: &str, change: impl Fn(&Connection) -> rusqlite::Result<()>) -> Result<()> {
        let mut connection = self.connection.lock().await;
        let fault = self.fault(doing);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&fault)?;
        control_schema::make(&transaction, &self.names)?;
        change(&transaction).map_err(&fault)?;
        transaction.commit().map_err(&fault)
    }

    fn fault(&self, doing: &str) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let (names, doing) = (self.names.clone(), doing.to_owned());
        move |error| names.error(&doing, &error)
    }
}

fn connect(file: &Path, read_only: bool, load: &LoadSpec, names: &Names) -> Result<Connection> {
    let mode = if read_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    let connection = Connection::open_with_flags(file, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| names.error("cannot open", &error))?;
    connection.busy_timeout(wait(load)).map_err(|error| names.error("cannot open", &error))?;
    connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .map_err(|error| names.error("cannot read", &error))?;
    Ok(connection)
}

/// Returns how long a statement waits for other programs; a COMMIT waits until their readers are done.
fn wait(load: &LoadSpec) -> Duration {
    Duration::from_millis(load.lock_timeout.as_millis().unsigned_abs())
}

/// Keeps up to `memory` bytes of pages in memory until the commit. A page that SQLite writes into the file earlier would lock other
/// programs' readers out until then. With a write-ahead log, it does not.
fn let_readers_in(connection: &Connection, memory: usize) -> rusqlite::Result<()> {
    let journal: String = connection.pragma_query_value(Some("main"), "journal_mode", |row| row.get(0))?;
    if journal == "wal" {
        return Ok(());
    }
    // A negative size is in KiB.
    let size = i32::try_from(memory >> 10).unwrap_or(i32::MAX).max(1);
    connection.pragma_update(Some("main"), "cache_spill", -size)?;
    // Otherwise the cache is full of changed pages, and each page of a referenced row is read again for each row that refers to it.
    connection.pragma_update(Some("main"), "cache_size", -size)
}

/// Confines a script to its database in memory if the command is read-only: other files are neither read nor created.
fn stays_inside(context: AuthContext<'_>) -> Authorization {
    match context.action {
        // `VACUUM INTO` attaches the new file.
        AuthAction::Attach { .. } | AuthAction::Detach { .. } | AuthAction::Unknown { .. } => Authorization::Deny,
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

/// Creates the database under a temporary name and then renames it, so that an incomplete one is never found.
fn create(file: &Path, script: &Path, access: Access, load: &LoadSpec, names: &Names) -> Result<Connection> {
    let sql = std::fs::read_to_string(script).map_err(|error| {
        Error::input(format!("cannot read `{}`: {error}", script.display())).hint("check `target.create_from`")
    })?;
    let fault = |error: rusqlite::Error| names.error("cannot make", &error);
    let run = |connection: Connection| {
        let wrong = |what: &str| Error::input(format!("`{}` cannot create the database: {what}", script.display()));
        connection.execute_batch(&sql).map_err(|error| {
            let is_of_shell = sql.lines().any(|line| line.starts_with('.'));
            let shell = "a line that begins with `.` is a command of the sqlite3 shell, not SQL: remove it";
            wrong(&error.to_string()).hint(match error.sqlite_error_code() {
                Some(ErrorCode::AuthorizationForStatementDenied) => {
                    "under a read-only command, the script must not attach, create, or load other files: remove that"
                }
                _ if is_of_shell => shell,
                _ => "check the SQL in it",
            })
        })?;
        match connection.is_autocommit() {
            true => Ok(connection),
            false => Err(wrong("its transaction has no COMMIT").hint("check the SQL in it")),
        }
    };
    if access == Access::Read {
        let mut connection = Connection::open_in_memory().map_err(fault)?;
        connection.authorizer(Some(stays_inside)).map_err(fault)?;
        let mut connection = run(connection)?;
        connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(fault)?;
        return Ok(connection);
    }
    let beside = PathBuf::from(format!("{}.new-{}", file.display(), std::process::id()));
    let made = Connection::open(&beside)
        .map_err(fault)
        .and_then(run)
        .and_then(|connection| connection.close().map_err(|(_, error)| fault(error)))
        .and_then(|()| publish(&beside, file));
    std::fs::remove_file(&beside).ok();
    made.and_then(|()| connect(file, false, load, names))
}

/// Gives a finished database its name. If another process was faster, its database stays unchanged.
fn publish(beside: &Path, file: &Path) -> Result<()> {
    match std::fs::hard_link(beside, file) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::unreachable(format!("cannot make `{}`: {error}", file.display()))
                .hint("check that its folder exists, is writable, and is on a file system that supports hard links"))
        }
        _ => Ok(()),
    }
}

fn table_exists(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?
        .exists([name])
}

#[async_trait]
impl Production for SqliteTarget {
    async fn catalog(&self) -> Result<Catalog> {
        let connection = self.connection.lock().await;
        let own = OwnedObjects::read(&connection).map_err(self.fault("cannot read the catalog of"))?;
        let mut catalog = catalog::read(&connection, Some(&own)).map_err(|error| self.names.unreadable(&error))?;
        for table in catalog.tables.iter_mut().filter_map(Arc::get_mut) {
            table.id.clone_from(&table.name);
            table.key_map = self.names.key_map(&table.name);
        }
        Ok(catalog)
    }

    async fn preflight(&self, destinations: &[Destination], _: Access) -> Result<Preflight> {
        object_registry::refuse_taken(&*self.connection.lock().await, &self.names, destinations)?;
        let mut preflight = Preflight::default();
        if self.load.foreign_keys == ForeignKeys::SetBased {
            refuse_set_based(destinations)?;
            preflight.notes.push(SET_BASED.to_owned());
        }
        Ok(preflight)
    }

    async fn lookup(&self, lookup: &Lookup, keys: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let connection = self.connection.lock().await;
        let (place, given) = match &lookup.place {
            Relation::Production(table) => {
                let known = catalog::read_table(&connection, table).map_err(|error| self.names.unreadable(&error))?;
                (ident(table), known.map(|table| table.schema()))
            }
            Relation::KeyMap(table) => {
                let key_map = self.names.key_map(table);
                let history =
                    KeyMapTable::of(&connection, &key_map).map_err(self.fault("cannot read the key map of"))?;
                let Some(history) = history else { return Ok(Vec::new()) };
                let known =
                    catalog::read_table(&connection, &history.name).map_err(|error| self.names.unreadable(&error))?;
                (Names::key_map_view(&key_map), known.map(|there| KeyMapTable::schema(&there)))
            }
        };
        let given = given.ok_or_else(|| Error::internal(format!("a look-up in {place}, which is not there")))?;
        let mut fields = vec![row_field("_id")];
        for name in &lookup.give {
            fields.push(given.field_with_name(name)?.clone());
        }
        let schema = Arc::new(Schema::new(fields));
        let asked: Vec<String> = (0..lookup.match_on.len()).map(|at| format!("k{at}")).collect();
        let fault = self.fault("cannot look up in");
        let empty = format!("SELECT NOT EXISTS (SELECT 1 FROM main.{place})");
        if connection.query_row(&empty, [], |row| row.get(0)).map_err(&fault)? {
            return Ok(Vec::new());
        }
        connection
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS temp.asked; CREATE TEMP TABLE asked (_id INTEGER, {})",
                asked.join(", ")
            ))
            .map_err(&fault)?;
        connection.execute_batch("SAVEPOINT asking").map_err(&fault)?;
        let inserting = Inserting::new("INTO temp.asked", asked.len() + 1, "");
        for batch in keys {
            inserting.insert(&connection, &StorageBatch::of_batch(batch)?, |error| {
                self.names.error("cannot look up in", error)
            })?;
        }
        connection.execute_batch("RELEASE asking").map_err(&fault)?;
        let on: Vec<_> = lookup
            .match_on
            .iter()
            .zip(&asked)
            .map(|(there, here)| {
                let collation = if lookup.ignore_case.contains(there) { " COLLATE NOCASE" } else { "" };
                format!("p.{} = a.{here}{collation}", ident(there))
            })
            .collect();
        let give = columns_of_p(&lookup.give);
        // The condition is production's own, and about its row alone.
        let place = match &lookup.condition {
            Some(condition) => format!("(SELECT * FROM main.{place} WHERE {condition})"),
            None => format!("main.{place}"),
        };
        // CROSS JOIN fixes the join order: the delta's keys drive it, and production's index answers.
        let sql = format!("SELECT a._id{give} FROM temp.asked AS a CROSS JOIN {place} AS p ON {}", on.join(" AND "));
        let answer = select(&connection, &sql, &schema, &self.names);
        connection.execute_batch("DROP TABLE temp.asked").map_err(&fault)?;
        answer
    }

    async fn evaluate_checks(
        &self,
        question: &DatabaseCheckRequest<'_>,
        rows: &dyn DatabaseCheckRows,
    ) -> Result<Vec<DatabaseCheckResult>> {
        let connection = self.connection.lock().await;
        let known = catalog::read(&connection, None).map_err(|error| self.names.unreadable(&error))?;
        let missing = || Error::internal(format!("a question about `{}`, which is not there", question.table));
        evaluate::evaluate_checks(
            &connection,
            &self.names,
            known.table(question.table).ok_or_else(missing)?,
            question,
            rows,
        )
    }

    async fn scan(
        &self,
        table: &str,
        columns: &[String],
        filters: &[Filter],
        limit: Option<usize>,
    ) -> Result<Batches<'static>> {
        let connection = self.connection.lock().await;
        let known = catalog::read_table(&connection, table).map_err(|error| self.names.unreadable(&error))?;
        let known = known.ok_or_else(|| Error::internal(format!("a scan of `{table}`, which is not there")))?;
        let mut fields = Vec::new();
        for name in columns {
            fields.push(known.schema().field_with_name(name)?.clone());
        }
        let mut wanted: Vec<_> = columns.iter().map(|name| ident(name)).collect();
        if columns.is_empty() {
            wanted.push("1 AS \"_\"".to_owned());
            fields.push(Field::new("_", DataType::Int64, false));
        }
        let (only, schema) = (filters.iter().filter_map(condition).collect(), Arc::new(Schema::new(fields)));
        let pages = Pages::of_table(&connection, table, (wanted, schema), only, limit);
        Ok(pages.map_err(self.fault("cannot read"))?.stream(self.connection.clone(), self.names.clone()))
    }

    async fn loaded_files(&self, files: &[(String, FileHash)]) -> Result<Vec<LoadedFile>> {
        control_schema::loaded_files(&*self.connection.lock().await, files)
            .map_err(self.fault("cannot read the runs of"))
    }

    async fn preview_keys(&self, requests: &[KeyRequest]) -> Result<Vec<KeyBlock>> {
        let connection = self.connection.lock().await;
        requests.iter().map(|request| keys::next_block(&connection, request, &self.names)).collect()
    }
}

#[async_trait]
impl Governance for SqliteTarget {
    async fn now(&self) -> Result<jiff::Timestamp> {
        Ok(jiff::Timestamp::now())
    }

    async fn policy(&self) -> Result<Policy> {
        if !self.was_there {
            return Ok(Policy::of_new());
        }
        policy::read(&*self.connection.lock().await).map_err(self.fault("cannot read the policy of"))
    }

    async fn set_policy(&self, policy: &Policy) -> Result<()> {
        self.alter("cannot set the policy of", |connection| policy::set(connection, policy)).await
    }

    async fn mode(&self) -> Result<Mode> {
        mode::read(&*self.connection.lock().await).map_err(self.fault("cannot read the conversion mode of"))
    }

    async fn switch_mode(&self, switch: &Switch) -> Result<()> {
        self.alter("cannot switch the conversion mode of", |connection| mode::switch(connection, switch)).await
    }
}

#[async_trait]
impl RunStore for SqliteTarget {
    async fn runs(&self) -> Result<Vec<RunHeader>> {
        control_schema::runs(&*self.connection.lock().await).map_err(self.fault("cannot read the runs of"))
    }

    async fn run(&self, id: &RunId) -> Result<Option<RunRecord>> {
        control_schema::run(&*self.connection.lock().await, id).map_err(self.fault("cannot read the runs of"))
    }

    async fn journal(&self, run: &RunId) -> Result<Vec<Record>> {
        control_schema::journal(&*self.connection.lock().await, run).map_err(self.fault("cannot read the journal in"))
    }

    async fn journals(&self, of: Journals, after: &str) -> Result<Vec<Record>> {
        control_schema::journals(&*self.connection.lock().await, of, after)
            .map_err(self.fault("cannot read the journals in"))
    }

    async fn append_event(&self, record: &Record) -> Result<()> {
        control_schema::append_event_alone(&*self.connection.lock().await, &self.names, record)
    }

    async fn is_committed(&self, run: &RunId, _: Option<&str>) -> Result<bool> {
        control_schema::committed(&*self.connection.lock().await, run).map_err(self.fault("cannot read the runs of"))
    }
}

#[async_trait]
impl KeyMapStore for SqliteTarget {
    async fn key_map(&self, destination: &Destination) -> Result<Batches<'static>> {
        let connection = self.connection.lock().await;
        let table = &destination.table.key_map;
        if KeyMapTable::of(&connection, table).map_err(self.fault("cannot read the key map of"))?.is_none() {
            return Ok(futures::stream::empty().boxed());
        }
        let mut fields = vec![Field::new("legacy_key", DataType::Utf8, false)];
        fields
            .extend(destination.key.iter().filter_map(|name| destination.table.column(name)).map(CatalogColumn::field));
        fields.push(Field::new("run", DataType::Utf8, false));
        let place = format!("main.{}", Names::key_map_view(table));
        let pages = Pages::in_order_of(place, "legacy_key", Arc::new(Schema::new(fields)));
        Ok(pages.stream(self.connection.clone(), self.names.clone()))
    }

    async fn segments(&self) -> Result<Vec<Segment>> {
        key_map::segments(&*self.connection.lock().await, &self.names).map_err(self.fault("cannot read the key map of"))
    }

    async fn segment(&self, table: &str, run: &RunId) -> Result<Batches<'static>> {
        let pages = key_map::segment(&*self.connection.lock().await, table, run, &self.names)?;
        Ok(match pages {
            Some(pages) => pages.stream(self.connection.clone(), self.names.clone()),
            None => futures::stream::empty().boxed(),
        })
    }

    async fn identity(&self, make: bool) -> Result<Vec<String>> {
        let connection = self.connection.lock().await;
        if make {
            control_schema::make_alone(&connection, &self.names)?;
        }
        key_map::identity(&connection).map_err(self.fault("cannot read the id of"))
    }

    async fn missing_rows(&self, destination: &Destination, run: &RunId) -> Result<Vec<String>> {
        let gone = rollback::missing_rows(&*self.connection.lock().await, destination, run);
        gone.map_err(self.fault("cannot look for the rows of the run in"))
    }
}

#[async_trait]
impl WriterLock for SqliteTarget {
    async fn lock(&self, run: &RunId) -> Result<()> {
        let mut lock = self.lock.lock().await;
        if let (None, Some(file)) = (lock.as_ref(), &self.file) {
            *lock = Some(FileLock::take(file, run, &self.names)?);
        }
        Ok(())
    }

    async fn unlock(&self) -> Result<()> {
        self.lock.lock().await.take();
        Ok(())
    }

    async fn holder(&self) -> Result<Option<RunId>> {
        Ok(self.file.as_ref().and_then(|file| FileLock::holder(file)))
    }
}

#[async_trait]
impl Loader for SqliteTarget {
    fn capabilities(&self) -> Capabilities {
        // Staging is inside the transaction, and a COMMIT is either in the file or not.
        Capabilities::default()
    }

    async fn begin(&self, run: &RunId, _: LoadMode) -> Result<Box<dyn StagingPhase>> {
        self.lock(run).await?;
        let connection = self.connection.clone().lock_owned().await;
        Ok(Box::new(load::SqliteLoad::begin(connection, self.names.clone(), run, self.load.clone())?))
    }

    async fn compare(&self, destination: &Destination, mut expected: Batches<'_>) -> Result<Option<String>> {
        while let Some(batch) = expected.next().await {
            let connection = self.connection.lock().await;
            if let Some(how) = compare(&connection, destination, &batch?, &self.names)? {
                return Ok(Some(how));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl RunRollback for SqliteTarget {
    async fn holdings(&self, run: &RunId) -> Result<Vec<RunTable>> {
        rollback::run_tables(&*self.connection.lock().await, &self.names, run)
    }

    async fn plan_rollback(&self, run: &RunId, accepted: &[String]) -> Result<RollbackPlan> {
        rollback::plan_rollback(&*self.connection.lock().await, &self.names, run, accepted)
    }

    async fn roll_back_run(
        &self,
        record: &Record,
        end_mode: bool,
        accepted: &[String],
    ) -> Result<Vec<RolledBackTable>> {
        rollback::roll_back_run(&*self.connection.lock().await, &self.names, record, end_mode, accepted)
    }
}

#[async_trait]
impl Provision for SqliteTarget {
    async fn setup(&self, destinations: &[Destination], _: Option<&str>) -> Result<()> {
        object_registry::refuse_taken(&*self.connection.lock().await, &self.names, destinations)?;
        let stated = policy::is_stated(&*self.connection.lock().await).map_err(self.fault("cannot set up"))?;
        let requires_mode = self.was_there && !stated;
        self.alter("cannot set up", |connection| match requires_mode {
            true => policy::set(connection, &Policy::unstated(true)),
            false => Ok(()),
        })
        .await
    }
}

/// Reads a row number.
fn row_number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<RowNumber> {
    Ok(RowNumber::new(row.get::<_, i64>(column)?.cast_unsigned()))
}

/// Compares rows that the last load inserted with a batch of expected ones.
fn compare(
    connection: &Connection,
    destination: &Destination,
    expected: &RecordBatch,
    names: &Names,
) -> Result<Option<String>> {
    let _compare = tracing::info_span!("compare rows", rows = expected.num_rows()).entered();
    let numbers = expected.column(0).as_primitive::<Int64Type>().values();
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(None) };
    let compared: Vec<_> = destination.compared().collect();
    let names_of: Vec<_> = compared.iter().map(|at| destination.columns[*at].clone()).collect();
    let columns = columns_of_p(&names_of);
    let expected =
        &expected.project(&std::iter::once(0).chain(compared.iter().map(|at| 1 + at)).collect::<Vec<_>>())?;
    let sql = format!(
        "SELECT k._row{columns} FROM {} WHERE k._row BETWEEN {first} AND {last} ORDER BY k._row",
        inserted(destination, names)
    );
    difference(&select(connection, &sql, &expected.schema(), names)?, expected)
}

/// Translates a filter to SQLite's SQL, comparing bytes whatever the column's collation. None for a text with NUL.
fn condition(filter: &Filter) -> Option<String> {
    let column = ident(&filter.column);
    Some(match &filter.test {
        Test::IsNull => format!("{column} IS NULL"),
        Test::IsNotNull => format!("{column} IS NOT NULL"),
        Test::Text(_, text) if text.contains('\0') => return None,
        Test::Text(how, text) => format!("{column} COLLATE BINARY {how} {}", literal(text)),
        Test::Integer(how, number) => format!("{column} {how} {number}"),
    })
}

/// Returns `, p."a", p."b"`: additional columns of a SELECT.
fn columns_of_p(names: &[String]) -> String {
    names.iter().fold(String::new(), |sql, name| sql + ", p." + &ident(name))
}

/// Returns SQL for the rows of production that the last load inserted, by their keys: `main.ck AS k JOIN main.table AS p`.
fn inserted(destination: &Destination, names: &Names) -> String {
    let on: Vec<_> = destination.key.iter().map(|name| format!("p.{0} = k.{0}", ident(name))).collect();
    format!(
        "main.{} AS k CROSS JOIN main.{} AS p ON {}",
        names.staged_keys(&destination.table.name),
        ident(&destination.table.name),
        on.join(" AND ")
    )
}

type Held = OwnedMutexGuard<Connection>;

#[cfg(test)]
mod tests;
