//! The insertion itself: rows into production, out of staging or straight, and beside them their mappings.

use std::sync::Arc;

use futures::StreamExt;

use super::super::begin_session;
use super::super::connect::Session;
use super::super::copy::{Destined, Refused, Wire};
use super::super::names::Names;
use super::super::straight;
use super::{GIVE_UP, PgLoad};
use crate::error::{Error, Result};
use crate::spec::ForeignKeys;
use crate::target::references::{Distinct, References};
use crate::target::{Delta, Destination, Refusal, Stopped};

impl PgLoad {
    /// Begins the transaction that appends to the key map, on a connection of its own; None where nothing is to stay.
    pub(super) async fn begin_beside(&mut self) -> Result<Option<Arc<Session>>> {
        if self.takes_back() {
            return Ok(None);
        }
        let doing = "cannot append to the key map";
        let session = Arc::new(begin_session(&self.connector, doing).await?);
        session.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(self.fault(doing))?;
        self.beside = Some(session.clone());
        Ok(Some(session))
    }

    /// The rows of all tables, in their order.
    pub(super) async fn insert_all(
        &self,
        destinations: &[Destination],
        delta: &dyn Delta,
    ) -> Result<Vec<u64>, Stopped> {
        let mut inserted = Vec::with_capacity(destinations.len());
        for (at, destination) in destinations.iter().enumerate() {
            let _insert = tracing::info_span!("insert", of = destination.table.name);
            let rows = match self.is_straight(destination) {
                true => self.copy_straight(destination, at, delta).await?,
                false => self.insert_staged(destination).await?,
            };
            delta.inserted(at, rows);
            inserted.push(rows);
        }
        Ok(inserted)
    }

    /// Holds the rows that were copied straight against the delta.
    pub(super) async fn compare_all(&self, destinations: &[Destination], delta: &dyn Delta) -> Result<(), Stopped> {
        for (at, destination) in
            destinations.iter().enumerate().filter(|(_, destination)| self.is_straight(destination))
        {
            let Some(keys) = self.keys.get(&destination.table.name) else { continue };
            let _compare = tracing::info_span!("compare", of = destination.table.name);
            let staged = self.staged(destination);
            let compared = straight::compare(&self.connector, &self.main, &staged, keys, delta.meant(at)?).await?;
            if let Some(how) = compared {
                return Err(delta.differs(at, &how).into());
            }
        }
        Ok(())
    }

    async fn insert_staged(&self, destination: &Destination) -> Result<u64, Stopped> {
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

    /// Copies rows straight into production; where no trigger looks at their references, these are held and looked at behind them.
    async fn copy_straight(&self, destination: &Destination, at: usize, delta: &dyn Delta) -> Result<u64, Stopped> {
        let staged = self.staged(destination);
        let columns: Vec<_> = destination.columns.iter().map(|name| staged.wire(name)).collect();
        let set_based = self.spec.foreign_keys == ForeignKeys::SetBased;
        let mut references = set_based.then(|| References::try_new(destination, &self.all, &self.keys)).transpose()?;
        let rows = delta.rows(at)?.map(|batch| {
            let batch = batch?;
            if let Some(references) = &mut references {
                references.add(&batch)?;
            }
            destination.columns_alone(&batch)
        });
        let live = staged.live();
        let into = Destined { connector: &self.connector, table: &live, columns: &columns };
        let copied = into.stream(&self.main, rows.boxed()).await;
        let copied = match copied {
            Ok(copied) => copied,
            Err(Refused::Failed(error)) => return Err(error.into()),
            Err(Refused::Server(error)) => {
                let told = self.connector.explain(&format!("cannot insert into `{}`", destination.table.name), &error);
                self.stage_to_ask(delta).await;
                return Err(self.refusals(destination).of(&error, told).await);
            }
        };
        if let Some(references) = references {
            let table = self.names.staging(&destination.table.name);
            let columns: Vec<_> = staged.wires();
            for Distinct { rows, .. } in references.distinct()? {
                let named = |column: &&Wire| rows.column_by_name(&column.name).is_some();
                let columns: Vec<_> = columns.iter().filter(named).cloned().collect();
                let into = Destined { connector: &self.connector, table: &table, columns: &columns };
                into.send(self.side(), &[rows]).await?;
            }
            let analyze = format!("SET default_statistics_target = 10; ANALYZE {table}");
            self.side().batch_execute(&analyze).await.map_err(self.fault("cannot stage references"))?;
            if let Err(stopped) = self.hold_references(destination).await {
                return Err(self.all_orphans(destination, delta, stopped).await);
            }
        }
        Ok(copied)
    }

    /// Keeps what staged rows refer to where it is, until the transaction ends.
    pub(super) async fn hold_references(&self, destination: &Destination) -> Result<(), Stopped> {
        let _hold = tracing::info_span!("hold references", of = destination.table.name);
        let names: Vec<_> = self.all.iter().map(|destination| destination.table.name.as_str()).collect();
        let table = &destination.table.name;
        let sql = "SELECT reference, referenced, staged_row FROM delta.hold_references($1, $2)";
        let orphans = self.main.query(sql, &[table, &names]).await;
        let orphans = orphans.map_err(self.fault("cannot keep referenced rows where they are"))?;
        let Some(first) = orphans.first() else { return Ok(()) };
        let constraint: String = first.get(0);
        let same = orphans.iter().filter(|row| row.get::<_, &str>(0) == constraint);
        let rows = same.map(|row| row.get::<_, i32>(2).unsigned_abs()).collect();
        let reason = format!("`{}` has no such row", first.get::<_, &str>(1));
        Err(Refusal { table: table.clone(), constraint, reason, rows }.into())
    }

    /// A refusal that names one row of each reference that leads nowhere, with all of them.
    async fn all_orphans(&self, destination: &Destination, delta: &dyn Delta, stopped: Stopped) -> Stopped {
        self.stage_to_ask(delta).await;
        match self.hold_references(destination).await {
            Err(Stopped::Refused(refusal)) => refusal.into(),
            _ => stopped,
        }
    }

    /// Takes the insertion back, and stages the rows that were copied straight: what is wrong with them is asked of staging. It is gone
    /// with the session.
    async fn stage_to_ask(&self, delta: &dyn Delta) {
        let staged = async {
            let fault = self.fault("cannot stage rows");
            self.main.batch_execute("ROLLBACK; BEGIN").await.map_err(&fault)?;
            for (at, destination) in self.all.iter().enumerate() {
                if !self.takes_back() && !self.is_straight(destination) {
                    continue;
                }
                let staged = self.staged(destination);
                self.main.batch_execute(&staged.make(&self.run)).await.map_err(&fault)?;
                let (rows, keys) = (self.names.staging(staged.table()), self.names.staged_keys(staged.table()));
                let into = Destined { connector: &self.connector, table: &rows, columns: &staged.wires() };
                into.copy(std::slice::from_ref(&self.main), delta.rows(at)?).await?;
                let into = Destined { table: &keys, columns: &staged.key_wires(), ..into };
                into.copy(std::slice::from_ref(&self.main), delta.key_map(at)?).await?;
            }
            Ok::<_, Error>(())
        };
        // Where that fails, the refusal is told without its rows.
        if staged.await.is_err() {
            self.main.batch_execute(GIVE_UP).await.ok();
        }
    }

    /// The key maps of all tables.
    pub(super) async fn append_all(
        &self,
        session: &Session,
        destinations: &[Destination],
        delta: &dyn Delta,
    ) -> Result<Vec<u64>, Stopped> {
        let mut appended = Vec::with_capacity(destinations.len());
        for (at, destination) in destinations.iter().enumerate() {
            let table = &destination.table.name;
            let _append = tracing::info_span!("append key map", of = table);
            let forgotten = session.execute("SELECT delta.forget($1)", &[table]).await;
            forgotten.map_err(self.fault("cannot append to the key map"))?;
            appended.push(match self.is_straight(destination) {
                true => self.append_straight(session, destination, at, delta).await?,
                false => self.append(session, destination, &self.run, 0..u32::MAX).await?,
            });
        }
        Ok(appended)
    }

    async fn append_straight(
        &self,
        session: &Session,
        destination: &Destination,
        at: usize,
        delta: &dyn Delta,
    ) -> Result<u64, Stopped> {
        let columns: Vec<_> =
            self.staged(destination).key_wires().into_iter().skip(1).chain([Wire::text("run")]).collect();
        let rows = delta.key_map(at)?.map(|batch| straight::of_run(&batch?, &self.run));
        let table = Names::mappings(&destination.table.name);
        let into = Destined { connector: &self.connector, table: &table, columns: &columns };
        match into.stream(session, rows.boxed()).await {
            Ok(appended) => Ok(appended),
            Err(Refused::Failed(error)) => Err(error.into()),
            Err(Refused::Server(error)) => {
                let doing = format!("cannot append the key map of `{}`", destination.table.name);
                let told = self.connector.explain(&doing, &error);
                self.stage_to_ask(delta).await;
                Err(self.refusals(destination).of_key_map(&error, told).await)
            }
        }
    }
}
