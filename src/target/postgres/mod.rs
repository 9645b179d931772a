//! PostgreSQL: a production database that other programs write to during a load.
//!
//! Staging is a schema of unlogged tables that each load recreates. Persistent state (runs, files, key blocks, the key map) is in the
//! schema `delta`, which `pipeline setup` creates. The loader role has SELECT and INSERT on production. Narrow functions of `delta` do
//! whatever needs more rights.

mod catalog;
mod catalog_cache;
#[cfg(test)]
mod catalog_tests;
mod check;
#[cfg(test)]
mod codec_tests;
mod commit_checks;
mod connect;
mod control;
mod copied;
mod copy;
mod database_checks;
mod decode;
mod direct_path;
mod domains;
mod encode;
mod errors;
mod evaluate;
mod in_doubt;
mod journal;
#[doc(hidden)]
pub mod kernels;
mod key_map;
mod keys;
mod load;
mod lookup;
mod mode;
mod names;
mod numeric;
mod policy;
mod preflight;
mod reading;
mod regex;
mod rollback;
mod script;
mod sequence;
mod staging;
mod tls;
mod trigger;
mod types;
mod url;
mod violations;
mod writer_lock;

#[cfg(test)]
#[path = "../../../tests/it/server.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the integration tests' own"
)]
mod server;

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{
    Access, Batches, Capabilities, Catalog, DatabaseCheckRequest, DatabaseCheckResult, DatabaseCheckRows, Destination,
    Filter, Governance, Journals, KeyBlock, KeyMapStore, KeyRequest, LoadMode, LoadedFile, Loader, Lookup, Mode,
    Policy, Preflight, Production, Provision, RollbackPlan, RolledBackTable, RunHeader, RunRecord, RunRollback,
    RunStore, RunTable, Segment, StagingPhase, Switch, TargetConfig, WriterLock,
};
use crate::engine::literal;
use crate::error::{Error, Result};
use crate::journal::{FileHash, Record, RunId};
use crate::spec::{LeastPrivilege, LoadSpec};
use catalog::PgCatalog;
use connect::{Connector, Session};
use control::{Setup, owner};
use keys::{Foreseen, Keys};
use names::{LOADER, Names, ROLLBACK};
use script::Script;
use staging::Staged;
use writer_lock::Opening;

/// The action that fails if a load cannot reach the server.
const BEGIN: &str = "cannot begin to write";

/// The signature of a binary COPY.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// 2000-01-01, the epoch of PostgreSQL's dates, in days since 1970.
const EPOCH_DAYS: i32 = 10_957;

/// 2000-01-01 in microseconds since 1970.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// By how much a table grows before a load refreshes its statistics. Autovacuum does so from a tenth on; below this, it is left to the
/// server.
const GROWN: f32 = 0.2;

/// How often a setup is tried if other setups run concurrently.
const SETUP_TRIES: u32 = 5;

/// The session with the writer lock; None while a load uses it, or if it is not held.
type LockSession = Arc<std::sync::Mutex<Option<Arc<Session>>>>;

/// A PostgreSQL database.
pub struct PgTarget {
    connector: Arc<Connector>,
    access: Access,
    names: Names,
    load: LoadSpec,
    least_privilege: LeastPrivilege,
    session: Mutex<Session>,
    /// The session with the writer lock, while it is held and no load is active.
    lock_session: LockSession,
    /// The lock session and a spare one, while they open.
    opening: Mutex<Option<Opening>>,
    /// The spare session, for the first load.
    spare: Mutex<Option<Session>>,
    known: OnceCell<Arc<PgCatalog>>,
    /// Whether the database was just created from `create_from`.
    made: bool,
    /// Whether the session is inside a transaction that is never committed.
    unfinished: bool,
}

impl PgTarget {
    /// Opens the database that a URL names.
    ///
    /// # Errors
    /// If the URL is invalid, or the server does not admit this user.
    pub async fn open(address: &TargetConfig<'_>, access: Access) -> Result<Self> {
        let connector =
            Arc::new(Connector::try_new(address.url, address.shown, address.folder, address.load)?.acting(access));
        let names = Names {
            shown: address.shown.to_owned(),
            production: address.spec.production.clone().unwrap_or_else(|| "public".into()),
            schemas: address.schemas.to_vec(),
            staging: address.spec.staging.clone(),
            namespace: address.namespace.to_owned(),
        };
        let session = open_session(&connector, access, "cannot open").await?;
        let mut target = Self {
            connector,
            access,
            names,
            load: address.load.clone(),
            least_privilege: address.safeguards.least_privilege,
            session: Mutex::new(session),
            lock_session: LockSession::default(),
            opening: Mutex::default(),
            spare: Mutex::default(),
            known: OnceCell::new(),
            made: false,
            unfinished: false,
        };
        let script = address.spec.create_from.as_ref().and_then(|from| from.file("postgres"));
        if let Some(script) = script.filter(|_| access != Access::Administer) {
            target.create(&address.script_folder.join(script), access).await?;
        }
        // Before the database is set up, there is no role to write as.
        if access == Access::Write && !target.made {
            *target.opening.get_mut() = Some(writer_lock::open(&target.connector));
        }
        Ok(target)
    }

    /// Creates production from a script if the database is empty. For read access it does so inside a transaction that is never committed.
    async fn create(&mut self, script: &std::path::Path, access: Access) -> Result<()> {
        let session = self.session.get_mut();
        let fault = |error| self.connector.explain("cannot read the catalog", &error);
        let sql = "SELECT NOT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                                      WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))
                      AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'delta')";
        if !session.query_one(sql, &[&self.names.production]).await.map_err(fault)?.get::<_, bool>(0) {
            return Ok(());
        }
        let sql = std::fs::read_to_string(script).map_err(|error| {
            Error::input(format!("cannot read `{}`: {error}", script.display())).hint("check `target.create_from`")
        })?;
        let is_kept = access != Access::Read;
        let name = script.display().to_string();
        let script = Script { connector: &self.connector, session, name, production: &self.names.production };
        script.run(&sql, is_kept).await?;
        (self.made, self.unfinished) = (is_kept, !is_kept);
        Ok(())
    }

    /// Returns the session for queries. Reconnects if the connection was lost, because the outcome of a run is recorded after the failure.
    async fn living(&self) -> Result<MutexGuard<'_, Session>> {
        let mut session = self.session.lock().await;
        if session.is_closed() {
            *session = begin_session(&self.connector, "cannot write the journal").await?;
        }
        Ok(session)
    }

    async fn known(&self) -> Result<Arc<PgCatalog>> {
        let read = async {
            let session = self.session.lock().await;
            let read = catalog::read(&session, &self.names, self.unfinished).await;
            read.map(Arc::new).map_err(|error| self.connector.explain("cannot read the catalog", &error))
        };
        self.known.get_or_try_init(|| read).await.cloned()
    }

    /// Returns the tables whose statistics a load should refresh, the largest load first. These are tables that grew by more than [`GROWN`]
    /// since their last statistics, or have none. Partitioned tables are always included, because the server never analyzes them
    /// automatically.
    async fn grown(&self, destinations: &[Destination], inserted: &[u64], doing: &str) -> Result<Vec<String>> {
        let known = self.known().await?;
        let names: Vec<_> = destinations.iter().map(|destination| destination.table.name.as_str()).collect();
        let live: Vec<_> = names
            .iter()
            .map(|name| known.id(&self.names, name))
            .map(|id| names::qualified(&id.schema, &id.name))
            .collect();
        let rows: Vec<_> = inserted.iter().map(|rows| *rows as i64).collect();
        let sql = "SELECT g.name FROM unnest($1::text[], $2::text[], $3::bigint[]) AS g (live, name, rows)
                   JOIN pg_class AS c ON c.oid = to_regclass(g.live)
                   WHERE g.rows > 0 AND (c.relkind = 'p' OR g.rows > c.reltuples * $4) ORDER BY g.rows DESC";
        // The session for queries, if it is idle. It may be busy reading rows back.
        let idle = self.session.try_lock().ok().filter(|session| !session.is_closed());
        let own;
        let session = match &idle {
            Some(session) => session,
            None => {
                own = begin_session(&self.connector, doing).await?;
                &own
            }
        };
        let grown = session.query(sql, &[&live, &names, &rows, &GROWN]).await;
        Ok(grown.map_err(self.fault(doing))?.iter().map(|row| row.get(0)).collect())
    }

    /// Returns the error of an action that only the operator may perform.
    fn forbidden(&self, doing: &str, error: &tokio_postgres::Error) -> Error {
        let explained = self.connector.explain(doing, error);
        if !mode::is_forbidden(error) {
            return explained;
        }
        Error::refused(explained).hint(format!(
            "run it as the owner of the schema `delta` or a member of {ROLLBACK}; the loader login may not"
        ))
    }

    /// Returns the SQL of the control schema. Its owner is `owner`, or else its present owner, or else the owner of production.
    async fn control_script(&self, destinations: &[Destination], owner: Option<&str>) -> Result<String> {
        let known = self.known().await?;
        let owner = match owner.filter(|owner| !owner.is_empty()) {
            Some(owner) => owner.to_owned(),
            None => {
                let session = self.session.lock().await;
                let owner = owner::of_control(&session, &known, destinations, self.made).await;
                owner.map_err(self.fault("cannot set up"))??
            }
        };
        let setup = Setup {
            names: &self.names,
            known: &known,
            destinations,
            foreign_keys: self.load.foreign_keys,
            owner: &owner,
            requires_mode: !self.made,
        };
        setup.script()
    }

    fn fault(&self, doing: &str) -> impl Fn(tokio_postgres::Error) -> Error + use<> {
        let (connector, doing) = (self.connector.clone(), doing.to_owned());
        move |error| connector.explain(&doing, &error)
    }
}

async fn open_session(connector: &Connector, access: Access, doing: &str) -> Result<Session> {
    match access {
        Access::Read | Access::Setup => connector.connect(doing).await,
        Access::Write | Access::Administer => begin_session(connector, doing).await,
    }
}

/// Opens a session for writing. If the login is a member of the loader or operator role, the session takes that role, so that the server
/// rejects everything else.
async fn begin_session(connector: &Connector, doing: &str) -> Result<Session> {
    let session = connector.connect(doing).await?;
    let become_it = async {
        if connector.operates() { mode::become_operator(&session).await } else { become_loader(&session).await }
    };
    become_it.await.map_err(|error| connector.explain(doing, &error))?;
    Ok(session)
}

async fn become_loader(client: &Client) -> Result<(), tokio_postgres::Error> {
    // Reads the catalog, because a login without rights on the schema gets a better error later.
    let sql = format!(
        "SELECT set_config('role', {role}, false)
         WHERE EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'delta' AND c.relname = 'migration')
           AND EXISTS (SELECT FROM pg_roles WHERE rolname = {role} AND pg_has_role(session_user, oid, 'MEMBER'))",
        role = literal(LOADER)
    );
    client.batch_execute(&sql).await
}

/// Returns whether a setup in another database changed the roles concurrently. Roles belong to all databases of a server.
fn raced(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_OBJECT].contains(error.code())
            || error.message().contains("concurrently updated")
    })
}

/// Returns which of these files, by table and hash, were loaded by a run that was not rolled back.
async fn loaded_files(
    client: &Client,
    known: &PgCatalog,
    names: &Names,
    files: &[(String, FileHash)],
) -> Result<Vec<LoadedFile>, tokio_postgres::Error> {
    if !readable(client, "delta.file").await? || !readable(client, "delta.event").await? {
        return Ok(Vec::new());
    }
    let (relations, hashes): (Vec<String>, Vec<&str>) =
        files.iter().map(|(table, hash)| (known.id(names, table).relation(), &**hash)).unzip();
    let sql = "SELECT DISTINCT ON (a.place) f.hash, a.place, f.name, f.run FROM delta.file AS f
               JOIN unnest($1::text[], $2::text[]) WITH ORDINALITY AS a (table_name, hash, place)
                 ON f.table_name = a.table_name AND f.hash = a.hash
               WHERE NOT EXISTS (SELECT FROM delta.event AS e WHERE e.run = f.run AND e.kind = 'rolled_back') ORDER BY a.place, f.run DESC";
    let found = client.query(sql, &[&relations, &hashes]).await?;
    let table = |place: i64| files.get(place as usize - 1).map(|(table, _)| table.clone()).unwrap_or_default();
    Ok(found
        .iter()
        .map(|row| LoadedFile {
            hash: row.get::<_, String>(0).into(),
            table: table(row.get(1)),
            name: row.get(2),
            run: row.get(3),
        })
        .collect())
}

/// Returns whether a control table exists and this user may read it.
async fn readable(client: &Client, table: &str) -> Result<bool, tokio_postgres::Error> {
    // Without USAGE on the schema, even asking for rights on its tables would fail.
    let sql =
        "SELECT CASE WHEN has_schema_privilege(n.oid, 'USAGE') THEN has_table_privilege(to_regclass($1), 'SELECT') END
               FROM pg_namespace AS n WHERE n.nspname = 'delta'";
    let found = client.query_opt(sql, &[&table]).await?;
    Ok(found.and_then(|row| row.get::<_, Option<bool>>(0)) == Some(true))
}

#[async_trait]
impl Production for PgTarget {
    async fn catalog(&self) -> Result<Catalog> {
        Ok(self.known().await?.catalog.clone())
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        let schemas = names::schemas(&*self.session.lock().await, &self.names).await;
        schemas.map_err(self.fault("cannot read the catalog"))
    }

    async fn preflight(&self, destinations: &[Destination], access: Access) -> Result<Preflight> {
        if self.made {
            self.setup(destinations, None).await?;
            let session = self.session.lock().await;
            become_loader(&session).await.map_err(self.fault("cannot open"))?;
        }
        self.check(destinations, access).await
    }

    async fn lookup(&self, lookup: &Lookup, keys: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        self.ask(lookup, keys).await
    }

    async fn evaluate_checks(
        &self,
        question: &DatabaseCheckRequest<'_>,
        rows: &dyn DatabaseCheckRows,
    ) -> Result<Vec<DatabaseCheckResult>> {
        self.evaluate_rows(question, rows).await
    }

    async fn scan(
        &self,
        table: &str,
        columns: &[String],
        filters: &[Filter],
        limit: Option<usize>,
    ) -> Result<Batches<'static>> {
        self.read(table, columns, filters, limit).await
    }

    async fn loaded_files(&self, files: &[(String, FileHash)]) -> Result<Vec<LoadedFile>> {
        let known = self.known().await?;
        loaded_files(&*self.session.lock().await, &known, &self.names, files)
            .await
            .map_err(self.fault("cannot read the runs"))
    }

    async fn preview_keys(&self, requests: &[KeyRequest]) -> Result<Vec<KeyBlock>> {
        let known = self.known().await?;
        let session = self.session.lock().await;
        let (mut foreseen, mut blocks) = (Foreseen::new(), Vec::with_capacity(requests.len()));
        for request in requests {
            let view = known.id(&self.names, &request.table).key_map_view();
            let control = readable(&session, &view).await.map_err(self.fault("cannot read the keys"))?;
            let (connector, names) = (&self.connector, &self.names);
            let keys = Keys { connector, client: &session, known: &known, names, request, control };
            blocks.push(keys.next(&mut foreseen).await?);
        }
        Ok(blocks)
    }
}

#[async_trait]
impl Governance for PgTarget {
    async fn now(&self) -> Result<jiff::Timestamp> {
        mode::now(&*self.session.lock().await).await.map_err(self.fault("cannot ask the server's clock"))
    }

    async fn policy(&self) -> Result<Policy> {
        if self.made || self.unfinished {
            return Ok(Policy::of_new());
        }
        let read = policy::read(&*self.session.lock().await).await;
        read.map_err(self.fault("cannot read the policy"))
    }

    async fn set_policy(&self, policy: &Policy) -> Result<()> {
        let set = policy::set(&*self.session.lock().await, policy).await;
        set.map_err(|error| self.forbidden("cannot set the policy", &error))
    }

    async fn mode(&self) -> Result<Mode> {
        mode::read(&*self.session.lock().await).await.map_err(self.fault("cannot read the conversion mode"))
    }

    async fn switch_mode(&self, switch: &Switch) -> Result<()> {
        let switched = mode::switch(&*self.session.lock().await, switch).await;
        switched.map_err(|error| self.forbidden("cannot switch conversion mode", &error))
    }
}

#[async_trait]
impl RunStore for PgTarget {
    async fn runs(&self) -> Result<Vec<RunHeader>> {
        journal::runs(&*self.session.lock().await).await.map_err(self.fault("cannot read the runs"))
    }

    async fn run(&self, id: &RunId) -> Result<Option<RunRecord>> {
        journal::run(&*self.living().await?, id).await.map_err(self.fault("cannot read the runs"))
    }

    async fn journal(&self, run: &RunId) -> Result<Vec<Record>> {
        journal::read(&*self.living().await?, run).await.map_err(self.fault("cannot read the journal"))
    }

    async fn journals(&self, of: Journals, after: &str) -> Result<Vec<Record>> {
        journal::page(&*self.living().await?, of, after).await.map_err(self.fault("cannot read the journals"))
    }

    async fn append_event(&self, record: &Record) -> Result<()> {
        journal::write(&*self.living().await?, record).await.map_err(self.fault("cannot write the journal"))
    }

    async fn is_committed(&self, run: &RunId, transaction: Option<&str>) -> Result<bool> {
        in_doubt::committed(&self.connector, run, transaction).await
    }
}

#[async_trait]
impl KeyMapStore for PgTarget {
    async fn key_map(&self, destination: &Destination) -> Result<Batches<'static>> {
        self.mappings(destination).await
    }

    async fn segments(&self) -> Result<Vec<Segment>> {
        let known = self.known().await?;
        key_map::segments(&*self.living().await?, &known, &self.names)
            .await
            .map_err(self.fault("cannot read the key map"))
    }

    async fn segment(&self, table: &str, run: &RunId) -> Result<Batches<'static>> {
        self.mappings_of(table, run).await
    }

    async fn identity(&self, _: bool) -> Result<Vec<String>> {
        // Setup assigns it an id.
        key_map::identity(&*self.living().await?).await.map_err(self.fault("cannot read the control schema"))
    }

    async fn missing_rows(&self, destination: &Destination, run: &RunId) -> Result<Vec<String>> {
        let known = self.known().await?;
        let gone = rollback::missing_rows(&*self.session.lock().await, &known, &self.names, destination, run).await;
        gone.map_err(self.fault("cannot look for the rows of the run"))
    }
}

#[async_trait]
impl WriterLock for PgTarget {
    async fn lock(&self, run: &RunId) -> Result<()> {
        let opening = self.opening.lock().await.take().unwrap_or_else(|| writer_lock::open(&self.connector));
        let (session, spare) = writer_lock::take(&self.connector, &self.names, run, opening).await?;
        if let Ok(mut lock_session) = self.lock_session.lock() {
            *lock_session = Some(session);
        }
        *self.spare.lock().await = Some(spare);
        Ok(())
    }

    async fn unlock(&self) -> Result<()> {
        let lock_session = self.lock_session.lock().ok().and_then(|mut lock_session| lock_session.take());
        if let Some(session) = lock_session {
            writer_lock::release(&session).await;
        }
        Ok(())
    }

    async fn holder(&self) -> Result<Option<RunId>> {
        let session = self.session.lock().await;
        writer_lock::holder(&session)
            .await
            .map_err(|error| self.connector.explain("cannot look for a running load", &error))
    }
}

#[async_trait]
impl Loader for PgTarget {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable_staging: true,
            in_doubt_commit: true,
            setup_script: true,
            statistics: true,
            sequences: true,
        }
    }

    async fn begin(&self, run: &RunId, mode: LoadMode) -> Result<Box<dyn StagingPhase>> {
        if self.lock_session.lock().is_ok_and(|lock_session| lock_session.is_none()) {
            self.lock(run).await?;
        }
        let known = self.known().await?;
        let (connector, names, spec) = (self.connector.clone(), self.names.clone(), self.load.clone());
        let side = match (mode, self.spare.lock().await.take()) {
            (LoadMode::Rehearse, _) => None,
            (LoadMode::Commit, Some(spare)) if !spare.is_closed() => Some(spare),
            (LoadMode::Commit, _) => Some(begin_session(&self.connector, BEGIN).await?),
        };
        let load = load::PgLoad::begin(connector, known, names, spec, run, self.lock_session.clone(), side)?;
        Ok(Box::new(load))
    }

    async fn compare(&self, destination: &Destination, expected: Batches<'_>) -> Result<Option<String>> {
        let known = self.known().await?;
        let session = self.session.lock().await;
        let staged = Staged { known: &known, names: &self.names, destination };
        staging::compare(&self.connector, &session, &staged, expected).await
    }

    async fn analyze(&self, destinations: &[Destination], inserted: &[u64]) -> Result<()> {
        let doing = "cannot refresh statistics";
        let grown = self.grown(destinations, inserted, doing).await?;
        let analyze = async |name: String| {
            let _statistics = tracing::info_span!("statistics", of = name);
            let session = begin_session(&self.connector, doing).await?;
            let key_map = self.known().await?.id(&self.names, &name).key_map();
            let analyzed = session.execute("SELECT delta.analyze($1)", &[&key_map]).await;
            analyzed.map(|_| ()).map_err(self.fault(doing))
        };
        futures::stream::iter(grown).map(Ok).try_for_each_concurrent(usize::from(self.load.connections), analyze).await
    }
}

#[async_trait]
impl RunRollback for PgTarget {
    async fn holdings(&self, run: &RunId) -> Result<Vec<RunTable>> {
        rollback::run_tables(&self.connector, &*self.session.lock().await, &self.names, run).await
    }

    async fn plan_rollback(&self, run: &RunId, accepted: &[String]) -> Result<RollbackPlan> {
        rollback::plan_rollback(&self.connector, &*self.session.lock().await, &self.names, run, accepted).await
    }

    async fn roll_back_run(
        &self,
        record: &Record,
        end_mode: bool,
        accepted: &[String],
    ) -> Result<Vec<RolledBackTable>> {
        let session = self.lock_session.lock().ok().and_then(|lock_session| lock_session.clone());
        let session = session.ok_or_else(|| Error::internal("a rollback without the writer lock"))?;
        rollback::roll_back_run(&self.connector, &session, &self.names, record, end_mode, accepted).await
    }
}

#[async_trait]
impl Provision for PgTarget {
    async fn setup_script(&self, destinations: &[Destination], owner: Option<&str>) -> Result<String> {
        let script = self.control_script(destinations, owner).await?;
        Ok(format!("BEGIN;\n{script}COMMIT;\n"))
    }

    async fn setup(&self, destinations: &[Destination], owner: Option<&str>) -> Result<()> {
        let script = self.control_script(destinations, owner).await?;
        let session = self.session.lock().await;
        let script = format!("BEGIN; RESET ROLE; {script}\n; COMMIT");
        let fault = self.fault("cannot set up");
        let mut tries = 0;
        while let Err(error) = session.batch_execute(&script).await {
            session.batch_execute("ROLLBACK").await.map_err(&fault)?;
            tries += 1;
            if tries == SETUP_TRIES || !raced(&error) {
                return Err(fault(error));
            }
        }
        Ok(())
    }
}
