//! A load into PostgreSQL.
//!
//! Rows are staged over several connections, and the staging tables remain. Production, the ledger, and the run's own row are written in
//! one READ COMMITTED transaction on the main connection. That connection also holds the writer lock, so a lost connection ends the
//! transaction and releases the lock. Mappings are written on a second connection and committed earlier; they count once the ledger has
//! their segment.

mod defaults;
mod insertion;
mod locks;
mod numbers;
mod trial;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::future::try_join_all;

use super::catalog::PgCatalog;
use super::connect::{Connector, Session};
use super::copied::Copied;
use super::copy::{CopyColumn, CopyTarget, receive};
use super::keys::{Foreseen, Keys};
use super::names::{Names, qualified};
use super::staging::Staged;
use super::violations::Refusals;
use super::{
    BEGIN, LockSession, begin_session, direct_path, in_doubt, key_map, loaded_files, mode, policy, preflight, trigger,
};
use crate::engine::{RowNumber, ident};
use crate::error::{Error, Result};
use crate::failpoint::stop_at;
use crate::journal::{FileHash, Record, RunId};
use crate::spec::{ForeignKeys, LoadSpec, StartRowNumber};
use crate::target::{
    Aggregate, Batches, CommitPhase, Destination, InsertError, InsertPhase, Inserted, JournalWriter, KeyBlock,
    KeyRequest, LoadedFile, Mode, Policy, RowSource, RunRecord, StagingPhase, TableIndex, aggregates_schema,
};
use insertion::{InsertAbort, InsertOutcome};
pub(super) use numbers::calls;

/// Ends the transaction of a failed load. Queries that follow run outside of it, and nothing is written any more.
const ABORT: &str = "ROLLBACK; SET default_transaction_read_only = on";

/// A load. If its main connection is lost, so is everything uncommitted.
pub(super) struct PgLoad {
    connector: Arc<Connector>,
    known: Arc<PgCatalog>,
    names: Names,
    spec: LoadSpec,
    run: RunId,
    main: Arc<Session>,
    /// Sessions for early commits: keys and staging. Empty in a mock run, whose work is all in one transaction.
    others: Vec<Arc<Session>>,
    /// The slot that the session with the lock is returned to.
    lock_session: LockSession,
    /// The session that appends to the key map, in its own transaction, while the main one inserts. None in a mock run.
    beside: Option<Session>,
    /// Whether the main connection is inside its transaction.
    open: bool,
    all: Vec<Destination>,
    /// By table, the first and the last key of its block, as production stores them.
    keys: BTreeMap<String, (String, String)>,
    blocks: BTreeMap<String, KeyBlock>,
    /// The numbers that a mock run would have taken from sequences.
    foreseen: Foreseen,
    direct: Vec<String>,
    /// The tables on the direct path whose rows are not found again by a block of keys.
    copied: BTreeMap<String, Copied>,
}

impl PgLoad {
    /// Begins a load on the session that holds the lock. Without a `side` session it is a mock run, which is rolled back.
    pub(super) fn begin(
        connector: Arc<Connector>,
        known: Arc<PgCatalog>,
        names: Names,
        spec: LoadSpec,
        run: &RunId,
        lock_session: LockSession,
        side: Option<Session>,
    ) -> Result<Self> {
        let main = lock_session.lock().ok().and_then(|mut lock_session| lock_session.take());
        let main = main.ok_or_else(|| Error::internal("a load without the lock"))?;
        let others = side.into_iter().map(Arc::new).collect();
        let run = run.to_owned();
        Ok(Self {
            connector,
            known,
            names,
            spec,
            run,
            main,
            others,
            lock_session,
            beside: None,
            open: false,
            all: Vec::new(),
            keys: BTreeMap::new(),
            blocks: BTreeMap::new(),
            foreseen: Foreseen::new(),
            direct: Vec::new(),
            copied: BTreeMap::new(),
        })
    }

    fn fault(&self, doing: &str) -> impl Fn(tokio_postgres::Error) -> Error + use<> {
        let (connector, doing) = (self.connector.clone(), doing.to_owned());
        move |error| connector.explain(&doing, &error)
    }

    /// Returns the session for writes that must survive a failed insertion.
    fn side(&self) -> &Arc<Session> {
        self.others.first().unwrap_or(&self.main)
    }

    fn staging(&self) -> &[Arc<Session>] {
        if self.others.is_empty() { std::slice::from_ref(&self.main) } else { &self.others }
    }

    /// Opens the additional sessions for staging over several connections.
    async fn open_connections(&mut self) -> Result<()> {
        if !self.is_rehearsal() {
            let missing = usize::from(self.spec.connections).saturating_sub(self.others.len());
            let begun = try_join_all((0..missing).map(|_| begin_session(&self.connector, BEGIN))).await?;
            self.others.extend(begun.into_iter().map(Arc::new));
        }
        Ok(())
    }

    /// Returns whether everything happens inside one transaction that is rolled back.
    fn is_rehearsal(&self) -> bool {
        self.others.is_empty()
    }

    async fn write(&self, session: &Session, record: &Record) -> Result<()> {
        super::journal::write(session, record).await.map_err(self.fault("cannot write the journal"))
    }

    /// Returns the session to the target, with the lock.
    fn hand_back(&self) {
        if let Ok(mut lock_session) = self.lock_session.lock() {
            *lock_session = Some(self.main.clone());
        }
    }

    fn staged<'a>(&'a self, destination: &'a Destination) -> Staged<'a> {
        Staged { known: &self.known, names: &self.names, destination }
    }

    fn refusals<'a>(&'a self, destination: &'a Destination) -> Refusals<'a> {
        Refusals { connector: &self.connector, client: &self.main, staged: self.staged(destination), all: &self.all }
    }

    async fn open(&mut self) -> Result<()> {
        if !self.open {
            self.main.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(self.fault(BEGIN))?;
            self.open = true;
        }
        Ok(())
    }

    async fn make_staging(&self, destinations: &[Destination], made: impl Fn(Staged<'_>) -> String) -> Result<()> {
        let fault = self.fault("cannot make the staging tables");
        for destination in destinations {
            let staged = self.staged(destination);
            preflight::refuse_taken(self.side(), &staged).await.map_err(&fault)??;
            let sql = made(self.staged(destination));
            let sql = if self.is_rehearsal() { sql } else { format!("BEGIN; {sql}; COMMIT") };
            self.side().batch_execute(&sql).await.map_err(&fault)?;
        }
        Ok(())
    }

    /// Deletes uncommitted mappings that are in the way.
    async fn forget(&self, session: &Session, destination: &Destination) -> Result<()> {
        let forgotten = session.execute("SELECT delta.forget($1)", &[&self.staged(destination).id().key_map()]).await;
        forgotten.map(|_| ()).map_err(self.fault("cannot append to the key map"))
    }

    /// Appends all staged mappings of a table to its key map.
    async fn append_staged(&self, session: &Session, destination: &Destination) -> Result<u64, tokio_postgres::Error> {
        let key_map = self.staged(destination).id().key_map();
        let appended = session.query_one("SELECT delta.append_staged($1, $2)", &[&self.run, &key_map]).await?;
        Ok(appended.get::<_, i64>(0).unsigned_abs())
    }

    /// Returns why mappings could not be appended, after the transaction has ended.
    async fn not_appended(&self, destination: &Destination, error: &tokio_postgres::Error) -> InsertError {
        let doing = format!("cannot append the key map of `{}`", destination.table.name);
        self.refusals(destination).of_key_map(error, self.connector.explain(&doing, error)).await
    }

    /// Runs `done` while the session with the mappings waits for its commit.
    async fn meanwhile<T>(&self, done: impl Future<Output = T>) -> T {
        match &self.beside {
            Some(beside) => beside.wait_for(done).await,
            None => done.await,
        }
    }

    /// Copies rows into staging. Meanwhile the main session may block other writers of a table, so it is kept alive.
    async fn copy(&self, destined: CopyTarget<'_>, rows: Batches<'_>) -> Result<u64> {
        let copied = destined.copy(self.staging(), rows);
        if self.open && !self.is_rehearsal() { self.main.wait_for(copied).await } else { copied.await }
    }
}

#[async_trait]
impl JournalWriter for PgLoad {
    async fn append_event(&mut self, record: &Record) -> Result<()> {
        self.write(self.side(), record).await
    }
}

#[async_trait]
impl StagingPhase for PgLoad {
    async fn is_staged(&mut self, destination: &Destination, rows: Batches<'_>, keys: Batches<'_>) -> Result<bool> {
        self.staged(destination).holds(&self.connector, self.side(), &self.run, [rows, keys]).await
    }

    async fn reserve(&mut self, request: &KeyRequest) -> Result<KeyBlock> {
        let block = self.reserve_block(request).await?;
        let written =
            |number: i64| request.text.as_ref().map_or_else(|| number.to_string(), |text| text.format(number));
        self.keys.insert(block.table.clone(), (written(block.first), written(block.last)));
        self.blocks.insert(block.table.clone(), block.clone());
        Ok(block)
    }

    async fn defaults(&mut self, destination: &Destination, count: u64) -> Result<RecordBatch> {
        self.evaluate(destination, count).await
    }

    async fn loaded_files(&mut self, files: &[(String, FileHash)]) -> Result<Vec<LoadedFile>> {
        loaded_files(self.side(), &self.known, &self.names, files).await.map_err(self.fault("cannot read the runs"))
    }

    fn direct_path(&mut self, destinations: &[Destination]) -> Vec<bool> {
        let mut direct = direct_path::eligible(&self.known, &self.spec, destinations, &self.blocks);
        // The direct path would take numbers from production's sequences, which a mock run must not do.
        let takes: Vec<_> =
            destinations.iter().map(|table| self.is_rehearsal() && self.would_take_numbers(table)).collect();
        direct.iter_mut().zip(takes).for_each(|(direct, takes)| *direct &= !takes);
        let names = destinations.iter().zip(&direct).filter(|(_, direct)| **direct);
        self.direct = names.map(|(destination, _)| destination.table.name.clone()).collect();
        direct
    }

    async fn clear_staging(&mut self, destinations: &[Destination]) -> Result<()> {
        if self.is_rehearsal() {
            self.open().await?;
        }
        self.make_staging(destinations, |staged| staged.make(&self.run)).await
    }

    async fn stage(&mut self, destination: &Destination, rows: Batches<'_>) -> Result<u64> {
        self.open_connections().await?;
        let staged = self.staged(destination);
        let table = staged.rows();
        let into = CopyTarget { connector: &self.connector, table: &table, columns: &staged.wires() };
        let count = self.copy(into, rows).await?;
        // A sample is enough to plan joins.
        let analyzed = self.side().execute("SELECT delta.analyze_staging($1)", &[&staged.id().key_map()]).await;
        analyzed.map_err(self.fault("cannot stage rows"))?;
        Ok(count)
    }

    async fn stage_keys(&mut self, destination: &Destination, keys: Batches<'_>) -> Result<u64> {
        let wires = self.staged(destination).key_wires();
        let table = self.staged(destination).keys();
        self.copy(CopyTarget { connector: &self.connector, table: &table, columns: &wires }, keys).await
    }

    async fn lock_mode(&mut self) -> Result<Mode> {
        self.open().await?;
        mode::hold(&self.main).await.map_err(self.fault("cannot keep conversion mode on"))
    }

    async fn lock_policy(&mut self) -> Result<Policy> {
        self.open().await?;
        policy::hold(&self.main).await.map_err(self.fault("cannot keep the policy as it is"))
    }

    async fn begin_insert(
        mut self: Box<Self>,
        destinations: &[Destination],
    ) -> Result<Box<dyn InsertPhase>, InsertError> {
        self.open().await?;
        self.all = destinations.to_vec();
        self.lock_tables(destinations).await?;
        self.defer(destinations).await?;
        self.note_pages(destinations).await?;
        if self.spec.foreign_keys == ForeignKeys::SetBased {
            // Rows that may refer to those of a table on the direct path are checked after these are copied.
            if self.direct.is_empty() {
                for destination in destinations {
                    self.hold_references(destination).await?;
                }
            }
            let fault = self.fault("cannot disable the foreign-key triggers");
            self.main.batch_execute("SET LOCAL session_replication_role = replica").await.map_err(&fault)?;
        }
        Ok(self)
    }
}

#[async_trait]
impl InsertPhase for PgLoad {
    async fn insert(
        &mut self,
        destinations: &[Destination],
        delta: &dyn RowSource,
    ) -> Result<Vec<Inserted>, InsertError> {
        self.open().await?;
        self.lock_references(destinations, delta).await?;
        let compared =
            !self.is_rehearsal() && destinations.iter().all(|destination| destination.table.triggers.is_empty());
        let InsertOutcome { rows, mappings, beside } = match self.insert_and_append(destinations, delta, compared).await
        {
            Ok(outcome) => outcome,
            Err(InsertAbort::InsertError(stopped)) => return Err(stopped),
            // By now, no other statement runs on the main connection.
            Err(InsertAbort::Rows(destination, error)) => {
                let doing = format!("cannot insert into `{}`", destination.table.name);
                return Err(self.of_rows(Some(destination), &doing, &error, delta).await);
            }
            Err(InsertAbort::Mappings(destination, error)) => {
                return Err(self.of_mappings(destination, &error, delta).await);
            }
        };
        self.beside = beside;
        for (destination, mappings) in destinations.iter().zip(&mappings) {
            let table = self.staged(destination).id();
            let recorded = key_map::record(&self.main, &table, &self.run, *mappings).await;
            recorded.map_err(self.fault("cannot record the key map"))?;
        }
        let inserted = destinations.iter().zip(rows).zip(mappings);
        let inserted = inserted.map(|((destination, rows), mappings)| {
            let compared = compared && self.takes_direct_path(destination);
            Inserted { rows, mappings, verified: compared }
        });
        Ok(inserted.collect())
    }

    async fn append_key_map(
        &mut self,
        destination: &Destination,
        run: &RunId,
        rows: Range<RowNumber>,
    ) -> Result<u64, InsertError> {
        self.open().await?;
        self.forget(&self.main, destination).await?;
        let key_map = self.staged(destination).id().key_map();
        let (first, end) = (rows.start.get().cast_signed(), rows.end.get().cast_signed());
        let sql = "SELECT delta.import_mappings($1, $2, $3, $4)";
        match self.main.query_one(sql, &[run, &key_map, &first, &end]).await {
            Ok(appended) => Ok(appended.get::<_, i64>(0).unsigned_abs()),
            Err(error) => {
                self.main.batch_execute(ABORT).await.ok();
                Err(self.not_appended(destination, &error).await)
            }
        }
    }

    async fn adopt(&mut self, id: &str) -> Result<()> {
        self.open().await?;
        key_map::adopt(&self.main, id).await.map_err(self.fault("cannot record the target ID"))
    }

    async fn validate_deferred(
        &mut self,
        destinations: &[Destination],
        delta: &dyn RowSource,
    ) -> Result<(), InsertError> {
        // Deferred constraint triggers of production run now.
        let settle = format!(
            "{}; SET CONSTRAINTS ALL IMMEDIATE; {}",
            trigger::production_settings(&self.names, false),
            trigger::OURS
        );
        if let Err(error) = self.meanwhile(self.main.batch_execute(&settle)).await {
            let named = error.as_db_error().map(|error| (error.schema(), error.table()));
            let is_named = |destination: &&Destination| {
                let table = self.known.tables.get(&destination.table.name);
                table.is_some_and(|table| named == Some((Some(table.schema.as_str()), Some(table.name.as_str()))))
            };
            let of = destinations.iter().find(is_named);
            return Err(self.of_rows(of, "cannot insert", &error, delta).await);
        }
        if self.is_rehearsal() {
            // In other runs, the statement before the commit checks this.
            for destination in destinations {
                self.refusals(destination).commit_checks().await?;
            }
        }
        Ok(())
    }

    async fn aggregates(&mut self, destination: &Destination, totals: &[(String, Aggregate)]) -> Result<RecordBatch> {
        let staged = self.staged(destination);
        let mut wanted = vec!["count(*)".to_owned()];
        for (name, total) in totals {
            let column = format!("p.{}", ident(name));
            let data_type = destination.table.column(name).map(|column| &column.data_type);
            let text = matches!(data_type, Some(DataType::Utf8));
            // Compares bytes, as in the delta, whatever the column's collation.
            let bytes = if text { format!("({column}::text) COLLATE \"C\"") } else { column.clone() };
            wanted.push(match (total, data_type) {
                (Aggregate::NonNull, _) => format!("count({column})"),
                (Aggregate::Sum, Some(DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale))) => {
                    format!("trunc(sum({column}) * 10::numeric ^ {scale})::bigint")
                }
                (Aggregate::Sum, _) => format!("sum({column})::bigint"),
                (Aggregate::Min, _) => format!("min({bytes})"),
                (Aggregate::Max, _) => format!("max({bytes})"),
            });
        }
        let sql = format!("SELECT {} FROM {}", wanted.join(", "), self.inserted(&staged).await?);
        let schema = aggregates_schema(destination, totals);
        let columns: Vec<_> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| match at.checked_sub(1).map(|at| &totals[at]) {
                Some((name, Aggregate::Min | Aggregate::Max)) => {
                    let pg = staged.wire(name).pg;
                    let pg = if *field.data_type() == DataType::Utf8 { super::types::PgType::Text } else { pg };
                    CopyColumn::new(field.name(), field.data_type().clone(), pg)
                }
                _ => CopyColumn::new(field.name(), DataType::Int64, super::types::PgType::Int8),
            })
            .collect();
        let found = self.meanwhile(receive(&self.connector, &self.main, &sql, &columns)).await?;
        found.into_iter().next().ok_or_else(|| Error::internal("no totals"))
    }

    async fn compare(
        &mut self,
        destination: &Destination,
        at: TableIndex,
        delta: &dyn RowSource,
    ) -> Result<Option<String>> {
        if self.takes_direct_path(destination) {
            return self.meanwhile(self.compare_direct(destination, at, delta)).await;
        }
        let (staged, expected) = (self.staged(destination), delta.expected_rows(at)?);
        self.meanwhile(super::staging::compare(&self.connector, &self.main, &staged, expected)).await
    }

    fn finish(self: Box<Self>) -> Box<dyn CommitPhase> {
        self
    }
}

#[async_trait]
impl CommitPhase for PgLoad {
    async fn transaction_id(&mut self) -> Result<Option<String>> {
        let asked = self.main.query_one("SELECT pg_current_xact_id()::text", &[]).await;
        Ok(Some(asked.map_err(self.fault("cannot commit"))?.get(0)))
    }

    async fn record_run(&mut self, run: &RunRecord, files: &[LoadedFile]) -> Result<()> {
        self.open().await?;
        // The policy does not apply to a mock run, because it leaves nothing behind.
        if self.is_rehearsal() {
            return Ok(());
        }
        let hashes: Vec<_> = files.iter().map(|file| &*file.hash).collect();
        let relations: Vec<_> = files.iter().map(|file| self.known.id(&self.names, &file.table).relation()).collect();
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        let sql = "SELECT delta.record_run($1, $2, $3, $4, $5, $6, $7)";
        let recorded = self
            .main
            .execute(sql, &[&run.id, &run.pipeline, &run.started_at, &run.report, &hashes, &relations, &names])
            .await;
        recorded.map(|_| ()).map_err(self.fault("cannot record the run"))
    }

    async fn end_mode(&mut self) -> Result<()> {
        self.open().await?;
        mode::end_with(&self.main, &self.run).await.map_err(self.fault("cannot end conversion mode"))
    }

    async fn append_event_with_rows(&mut self, record: &Record) -> Result<()> {
        self.open().await?;
        self.write(&self.main, record).await
    }

    async fn moved_sequences(&mut self) -> Result<Vec<String>> {
        self.sequences_moved().await
    }

    async fn commit(mut self: Box<Self>) -> Result<(), InsertError> {
        let transaction = self.transaction_id().await?;
        let _commit = tracing::info_span!("COMMIT");
        if let Some(beside) = &self.beside {
            // The mappings count only when the rows are committed together with the ledger.
            beside.batch_execute("COMMIT").await.map_err(self.fault("cannot commit the key map"))?;
            stop_at("key map committed");
        }
        // Triggers that were deferred again run at the COMMIT and need production's settings. The check before it needs ours.
        let commit = format!("{}{}; COMMIT", self.last_check(), trigger::production_settings(&self.names, false));
        if let Err(error) = self.main.batch_execute(&commit).await {
            if let Some(taken) = self.found_taken(&error).await {
                return Err(taken);
            }
            // After any error, because a server that ends a session may have committed before.
            return match in_doubt::committed(&self.connector, &self.run, transaction.as_deref()).await? {
                true => Ok(()),
                false => Err(self.connector.explain("cannot commit", &error).into()),
            };
        }
        self.hand_back();
        Ok(())
    }

    async fn roll_back(mut self: Box<Self>) -> Result<()> {
        if self.open {
            self.main.batch_execute("ROLLBACK").await.map_err(self.fault("cannot roll back"))?;
        }
        self.hand_back();
        Ok(())
    }
}

impl PgLoad {
    fn takes_direct_path(&self, destination: &Destination) -> bool {
        self.direct.contains(&destination.table.name)
    }

    /// Reserves a block, or returns the one that the run already has.
    async fn reserve_block(&mut self, request: &KeyRequest) -> Result<KeyBlock> {
        if self.is_rehearsal() {
            self.open().await?;
        }
        let side = self.side().clone();
        let (connector, known, names) = (self.connector.clone(), self.known.clone(), self.names.clone());
        let keys =
            |client| Keys { connector: &connector, client, known: &known, names: &names, request, control: true };
        let apart = keys(&side);
        if request.count == 0 {
            return apart.next(&mut self.foreseen).await;
        }
        if let Some(block) = apart.reserved(&self.run).await? {
            return Ok(block);
        }
        if apart.sequence().is_some() {
            return match self.is_rehearsal() {
                true => apart.next(&mut self.foreseen).await,
                false => apart.reserve(&self.run).await,
            };
        }
        if request.start != StartRowNumber::Auto {
            let block = apart.next(&mut self.foreseen).await?;
            if !self.is_rehearsal() {
                apart.record(&block, &self.run).await?;
            }
            return Ok(block);
        }
        // The keys come from no sequence, so no other session may insert until the commit.
        self.open().await?;
        let key_map = self.known.id(&self.names, &request.table).key_map();
        let held = self.main.execute("SELECT delta.hold_table($1)", &[&key_map]).await;
        held.map_err(self.fault(&format!("cannot lock `{}` against other writers", request.table)))?;
        let keys = keys(&self.main);
        let block = keys.next(&mut Foreseen::new()).await?;
        if !self.is_rehearsal() {
            keys.record(&block, &self.run).await?;
        }
        Ok(block)
    }

    /// Notes where the rows of tables on the direct path begin, if their keys do not tell.
    async fn note_pages(&mut self, destinations: &[Destination]) -> Result<()> {
        for destination in destinations {
            if self.takes_direct_path(destination) && !self.has_block(destination) {
                let copied = Copied::before(&self.main, &self.staged(destination).live()).await;
                let copied = copied.map_err(self.fault("cannot insert"))?;
                self.copied.insert(destination.table.name.clone(), copied);
            }
        }
        Ok(())
    }

    /// Returns whether the rows of a table are those of a block of keys, and no others.
    fn has_block(&self, destination: &Destination) -> bool {
        direct_path::is_block(destination)
            && self.blocks.get(&destination.table.name).is_some_and(|block| block.step == 1)
    }

    /// Defers the constraints of tables that refer to tables after them. [`InsertPhase::validate_deferred`] checks them.
    async fn defer(&self, destinations: &[Destination]) -> Result<()> {
        let mut names = Vec::new();
        for (at, destination) in destinations.iter().enumerate() {
            let Some(table) = self.known.tables.get(&destination.table.name) else { continue };
            let ahead = destination.leads_ahead(&destinations[at + 1..]).filter(|key| key.deferrable);
            names.extend(ahead.map(|key| qualified(&table.schema, &key.name)));
        }
        if names.is_empty() {
            return Ok(());
        }
        let sql = format!("SET CONSTRAINTS {} DEFERRED", names.join(", "));
        self.main.batch_execute(&sql).await.map_err(self.fault("cannot defer constraints"))
    }

    /// Returns SQL for the rows of production that this load inserted.
    async fn inserted(&self, staged: &Staged<'_>) -> Result<String> {
        staged.inserted(&self.connector, &self.main).await
    }
}
