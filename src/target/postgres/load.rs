//! One load into PostgreSQL.
//!
//! Staging is filled over several connections and stays there; production, the key map and the run's own row are written in
//! one READ COMMITTED transaction on the main connection, which also holds the lock that makes runs wait for each other: where
//! that connection dies, the transaction and the lock are gone together.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;

use super::catalog::PgCatalog;
use super::connect::{Connector, Session};
use super::copy::{Destined, Wire, receive};
use super::keys::Keys;
use super::names::Names;
use super::refusal::Refusals;
use super::staging::Staged;
use super::{begin_session, loaded_files, mode, outcome, privileges};
use crate::engine::{ident, literal};
use crate::error::{Error, Result};
use crate::spec::{ForeignKeys, LoadSpec, StartRowNumber};
use crate::target::{
    Batches, Block, Destination, KeyRequest, Load, LoadedFile, Mode, Refusal, RunRecord, Stopped, Total,
    key_map_schema, totals_schema,
};

/// The lock that runs into one database take in turns.
const LOCK: &str = "7305516410";

/// Ends the transaction of a load that was refused. What is asked then is asked outside of one, and nothing is written any more.
const GIVE_UP: &str = "ROLLBACK; SET default_transaction_read_only = on";

/// A load; what it has not committed is gone with its main connection.
pub(super) struct PgLoad {
    connector: Arc<Connector>,
    known: Arc<PgCatalog>,
    names: Names,
    spec: LoadSpec,
    run: String,
    main: Arc<Session>,
    /// For what is committed on the way: keys, and staging.
    others: Vec<Arc<Session>>,
    /// Whether the main connection is inside its transaction.
    open: bool,
    /// The tables that are inserted.
    all: Vec<Destination>,
}

impl PgLoad {
    pub(super) async fn begin(
        connector: Arc<Connector>,
        known: Arc<PgCatalog>,
        names: Names,
        spec: LoadSpec,
        run: &str,
    ) -> Result<Self> {
        let main = Arc::new(begin_session(&connector, "cannot begin to write").await?);
        super::connect::refuse_pooling(&main, &connector).await?;
        let mut load = Self {
            connector,
            known,
            names,
            spec,
            run: run.to_owned(),
            main,
            others: Vec::new(),
            open: false,
            all: Vec::new(),
        };
        load.lock().await?;
        for _ in 0..load.spec.connections.max(1) {
            load.others.push(Arc::new(begin_session(&load.connector, "cannot begin to write").await?));
        }
        Ok(load)
    }

    /// Takes the lock of all runs into this database, or says who has it.
    async fn lock(&self) -> Result<()> {
        let fault = self.fault("cannot begin to write");
        let name = format!("SET application_name = {}", literal(&format!("pipeline run {}", self.run)));
        self.main.batch_execute(&name).await.map_err(&fault)?;
        let sql = format!("SELECT pg_try_advisory_lock({LOCK})");
        if self.main.query_one(&sql, &[]).await.map_err(&fault)?.get(0) {
            return Ok(());
        }
        let sql = format!(
            "SELECT a.pid, a.application_name FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND (l.classid::bigint << 32) | l.objid::bigint = {LOCK}"
        );
        let holder = self.main.query_opt(&sql, &[]).await.map_err(&fault)?;
        let holder = holder.map_or("another run".to_owned(), |row| {
            let (pid, name): (i32, String) = (row.get(0), row.get(1));
            format!("`{name}` (server process {pid})")
        });
        Err(Error::unreachable(format!("{holder} is loading into `{}` now", self.names.shown))
            .hint("run again when it is done; a run's id begins with its start in UTC"))
    }

    fn fault(&self, doing: &str) -> impl Fn(tokio_postgres::Error) -> Error + use<> {
        let (connector, doing) = (self.connector.clone(), doing.to_owned());
        move |error| connector.explain(&doing, &error)
    }

    fn side(&self) -> &Arc<Session> {
        self.others.first().unwrap_or(&self.main)
    }

    fn staged<'a>(&'a self, destination: &'a Destination) -> Staged<'a> {
        Staged { known: &self.known, names: &self.names, destination }
    }

    fn refusals<'a>(&'a self, destination: &'a Destination) -> Refusals<'a> {
        Refusals { connector: &self.connector, client: &self.main, staged: self.staged(destination), all: &self.all }
    }

    async fn open(&mut self) -> Result<()> {
        if !self.open {
            self.main
                .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                .await
                .map_err(self.fault("cannot begin to write"))?;
            self.open = true;
        }
        Ok(())
    }

    /// Why a statement of the insertion failed. Staging is committed: once the transaction is gone, it is held against production.
    async fn stopped(&self, destination: Option<&Destination>, doing: &str, error: tokio_postgres::Error) -> Stopped {
        let told = self.connector.explain(doing, &error);
        self.main.batch_execute(GIVE_UP).await.ok();
        match destination {
            Some(destination) => self.refusals(destination).of(&error, told).await,
            None => told.into(),
        }
    }
}

#[async_trait]
impl Load for PgLoad {
    async fn reserve(&mut self, request: &KeyRequest) -> Result<Block> {
        let side = self.side().clone();
        let (connector, known) = (self.connector.clone(), self.known.clone());
        let keys = |client| Keys { connector: &connector, client, known: &known, request, control: true };
        let apart = keys(&side);
        if request.count == 0 {
            return apart.next().await;
        }
        if apart.sequence().is_some() {
            return apart.reserve(&self.run).await;
        }
        if request.start != StartRowNumber::Auto {
            let block = apart.next().await?;
            apart.note(&block, &self.run).await?;
            return Ok(block);
        }
        // Nobody hands these keys out: from here to the commit nobody else may insert.
        self.open().await?;
        let held = self.main.execute("SELECT delta.hold_table($1)", &[&request.table]).await;
        held.map_err(self.fault(&format!("cannot keep other writers out of `{}`", request.table)))?;
        let keys = keys(&self.main);
        let block = keys.next().await?;
        keys.note(&block, &self.run).await?;
        Ok(block)
    }

    async fn loaded_files(&mut self, files: &[(String, String)]) -> Result<Vec<LoadedFile>> {
        loaded_files(self.side(), files).await.map_err(self.fault("cannot read the runs"))
    }

    async fn clean_staging(&mut self, destinations: &[Destination]) -> Result<()> {
        let fault = self.fault("cannot make the staging tables");
        for destination in destinations {
            privileges::refuse_taken(self.side(), &self.names, destination).await.map_err(&fault)??;
            self.side().batch_execute(&self.staged(destination).make()).await.map_err(&fault)?;
        }
        Ok(())
    }

    async fn stage(&mut self, destination: &Destination, rows: Batches<'_>) -> Result<u64> {
        let staged = self.staged(destination);
        let table = self.names.staging(&destination.table.name);
        let into = Destined { connector: &self.connector, table: &table, columns: &staged.wires() };
        let count = into.copy(&self.others, rows).await?;
        // Enough to plan joins by.
        let analyze = format!("SET default_statistics_target = 10; ANALYZE {table}");
        self.side().batch_execute(&analyze).await.map_err(self.fault("cannot stage rows"))?;
        Ok(count)
    }

    async fn stage_keys(&mut self, destination: &Destination, keys: Batches<'_>) -> Result<u64> {
        let staged = self.staged(destination);
        let wires: Vec<_> = key_map_schema(destination)
            .fields()
            .iter()
            .map(|field| match field.name().as_str() {
                "_row" => Wire::number("_row"),
                "legacy_key" => Wire::text("legacy_key"),
                name => staged.wire(name),
            })
            .collect();
        let table = self.names.staged_keys(&destination.table.name);
        Destined { connector: &self.connector, table: &table, columns: &wires }.copy(&self.others, keys).await
    }

    async fn hold_mode(&mut self) -> Result<Mode> {
        self.open().await?;
        mode::hold(&self.main).await.map_err(self.fault("cannot keep conversion mode on"))
    }

    async fn end_mode(&mut self) -> Result<()> {
        mode::end_with(&self.main, &self.run).await.map_err(self.fault("cannot end conversion mode"))
    }

    async fn open_insertion(&mut self, destinations: &[Destination]) -> Result<(), Stopped> {
        self.open().await?;
        self.all = destinations.to_vec();
        if self.spec.foreign_keys == ForeignKeys::SetBased {
            let fault = self.fault("cannot keep referenced rows where they are");
            let names: Vec<_> = destinations.iter().map(|destination| destination.table.name.as_str()).collect();
            for table in &names {
                let sql = "SELECT reference, referenced, staged_row FROM delta.hold_references($1, $2)";
                let orphans = self.main.query(sql, &[table, &names]).await.map_err(&fault)?;
                if let Some(first) = orphans.first() {
                    let constraint: String = first.get(0);
                    let same = orphans.iter().filter(|row| row.get::<_, &str>(0) == constraint);
                    let rows = same.map(|row| row.get::<_, i32>(2).unsigned_abs()).collect();
                    let reason = format!("`{}` has no such row", first.get::<_, &str>(1));
                    return Err(Refusal { table: (*table).to_owned(), constraint, reason, rows }.into());
                }
            }
            self.main.batch_execute("SET LOCAL session_replication_role = replica").await.map_err(&fault)?;
        }
        Ok(())
    }

    async fn insert(&mut self, destination: &Destination) -> Result<u64, Stopped> {
        self.refusals(destination).promises(false).await?;
        let inserted = match self.main.execute(&self.staged(destination).insert(), &[]).await {
            Ok(inserted) => inserted,
            Err(error) => {
                let doing = format!("cannot insert into `{}`", destination.table.name);
                return Err(self.stopped(Some(destination), &doing, error).await);
            }
        };
        self.refusals(destination).promises(true).await?;
        Ok(inserted)
    }

    async fn append_key_map(&mut self, destination: &Destination) -> Result<u64, Stopped> {
        self.open().await?;
        let table = &destination.table.name;
        let key: Vec<_> = destination.key.iter().map(|name| ident(name)).collect();
        let key = key.join(", ");
        let sql = format!(
            "INSERT INTO {} (legacy_key, {key}, run) SELECT legacy_key, {key}, {} FROM {}",
            Names::history(table),
            literal(&self.run),
            self.names.staged_keys(table)
        );
        match self.main.execute(&sql, &[]).await {
            Ok(count) => Ok(count),
            Err(error) => {
                let told = self.connector.explain(&format!("cannot append the key map of `{table}`"), &error);
                self.main.batch_execute(GIVE_UP).await.ok();
                Err(self.refusals(destination).of_key_map(&error, told).await)
            }
        }
    }

    async fn settle(&mut self, destinations: &[Destination]) -> Result<(), Stopped> {
        if let Err(error) = self.main.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await {
            let named = error.as_db_error().and_then(tokio_postgres::error::DbError::table).map(str::to_owned);
            let of = destinations.iter().find(|destination| Some(&destination.table.name) == named.as_ref());
            return Err(self.stopped(of, "cannot insert into", error).await);
        }
        Ok(())
    }

    async fn totals(&mut self, destination: &Destination, totals: &[(String, Total)]) -> Result<RecordBatch> {
        let staged = self.staged(destination);
        let mut wanted = vec!["count(*)".to_owned()];
        for (name, total) in totals {
            let column = format!("p.{}", ident(name));
            let data_type = destination.table.column(name).map(|column| &column.data_type);
            let text = matches!(data_type, Some(DataType::Utf8));
            // Bytes decide, as in the delta, whatever collation the column has.
            let bytes = if text { format!("({column}::text) COLLATE \"C\"") } else { column.clone() };
            wanted.push(match (total, data_type) {
                (Total::NonNull, _) => format!("count({column})"),
                (Total::Sum, Some(DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale))) => {
                    format!("trunc(sum({column}) * 10::numeric ^ {scale})::bigint")
                }
                (Total::Sum, _) => format!("sum({column})::bigint"),
                (Total::Min, _) => format!("min({bytes})"),
                (Total::Max, _) => format!("max({bytes})"),
            });
        }
        let sql = format!("SELECT {} FROM {}", wanted.join(", "), self.inserted(&staged).await?);
        let schema = totals_schema(destination, totals);
        let columns: Vec<_> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| match at.checked_sub(1).map(|at| &totals[at]) {
                Some((name, Total::Min | Total::Max)) => {
                    let pg = staged.wire(name).pg;
                    let pg = if *field.data_type() == DataType::Utf8 { super::types::PgType::Text } else { pg };
                    Wire::new(field.name(), field.data_type().clone(), pg)
                }
                _ => Wire::new(field.name(), DataType::Int64, super::types::PgType::Int8),
            })
            .collect();
        let found = receive(&self.connector, &self.main, &sql, &columns).await?;
        found.into_iter().next().ok_or_else(|| Error::internal("no totals"))
    }

    async fn compare(&mut self, destination: &Destination, _: Batches<'_>) -> Result<Option<String>> {
        super::staging::compare(&self.connector, &self.main, &self.staged(destination)).await
    }

    async fn record(&mut self, run: &RunRecord, files: &[LoadedFile]) -> Result<()> {
        let fault = self.fault("cannot note the run");
        let sql = "INSERT INTO delta.run (id, pipeline, started_at, report) VALUES ($1, $2, $3, $4)";
        self.main.execute(sql, &[&run.id, &run.pipeline, &run.started_at, &run.report]).await.map_err(&fault)?;
        for file in files {
            let sql = "INSERT INTO delta.file (hash, table_name, name, run) VALUES ($1, $2, $3, $4)";
            self.main.execute(sql, &[&file.hash, &file.table, &file.name, &file.run]).await.map_err(&fault)?;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let sql = "SELECT pg_current_xact_id()::text";
        let transaction: String = self.main.query_one(sql, &[]).await.map_err(self.fault("cannot commit"))?.get(0);
        if let Err(error) = self.main.batch_execute("COMMIT").await {
            // Whatever the error is: a server that ends a session may have committed before.
            return match outcome::committed(&self.connector, &self.run, &transaction).await? {
                true => Ok(()),
                false => Err(self.connector.explain("cannot commit", &error)),
            };
        }
        // The next run need not wait for the server to notice that this session is gone.
        let unlock = format!("SELECT pg_advisory_unlock({LOCK})");
        self.main.batch_execute(&unlock).await.ok();
        Ok(())
    }
}

impl PgLoad {
    /// The rows of production that this load inserted.
    async fn inserted(&self, staged: &Staged<'_>) -> Result<String> {
        staged.inserted(&self.connector, &self.main).await
    }
}
