//! Production's defaults of key columns, computed before the rows are staged.
//!
//! As production's other SQL, they are parsed with this program's search path and run with production's
//! ([`evaluate`](super::super::evaluate)).

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tokio_postgres::Client;

use super::super::catalog::PgColumn;
use super::super::copy::{CopyColumn, receive};
use super::super::trigger;
use super::PgLoad;
use crate::engine::ident;
use crate::error::{Error, Result};
use crate::target::Destination;

/// Returns the default of a column, or the numbers of its identity.
fn default_of(column: &PgColumn) -> Option<&String> {
    column.default.as_ref().or_else(|| column.numbered.as_ref().map(|numbered| &numbered.sql))
}

/// Returns whether a session may create temporary views, which keep SQL as it was parsed.
async fn keeps_views(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

impl PgLoad {
    /// Returns the defaults of the columns that a destination evaluates, for a number of rows. A mock run takes no numbers from sequences.
    pub(super) async fn evaluate(&mut self, destination: &Destination, count: u64) -> Result<RecordBatch> {
        if self.is_rehearsal() {
            self.open().await?;
        }
        let (mut wanted, mut columns) = (Vec::new(), Vec::new());
        for name in &destination.evaluated {
            let column = self.known.tables.get(&destination.table.name).and_then(|table| table.column(name));
            let (Some(column), Some(default)) = (column, column.and_then(default_of)) else {
                return Err(Error::internal(format!("`{name}` has no default")));
            };
            let value =
                if self.is_rehearsal() { self.foreseen_default(column, default).await? } else { default.clone() };
            wanted.push(format!("({value})::{} AS {}", column.declared, ident(name)));
            columns.push(CopyColumn::new(name, column.pg_type.arrow(), column.pg_type.clone()));
        }
        let read: Vec<_> =
            columns.iter().map(|column| format!("{} AS {}", column.read("p"), ident(&column.name))).collect();
        // OFFSET keeps the server from computing a default more than once per row.
        let query = format!(
            "SELECT {} FROM (SELECT {} FROM generate_series(1, {count}) AS g (n) OFFSET 0) AS p",
            read.join(", "),
            wanted.join(", ")
        );
        let doing = format!("cannot compute the defaults of `{}`", destination.table.name);
        let session = self.side().clone();
        let keeps = keeps_views(&session).await.map_err(self.fault(&doing))?;
        let theirs = trigger::production_settings(&self.names, true);
        let prepared =
            if keeps { format!("CREATE TEMPORARY VIEW defaults AS {query}; {theirs}") } else { String::new() };
        let parsed = if keeps { "SELECT * FROM pg_temp.defaults" } else { &query };
        let (begin, end) = if self.is_rehearsal() { ("", "") } else { ("BEGIN", "COMMIT") };
        session.batch_execute(&format!("{begin}; {prepared}")).await.map_err(self.fault(&doing))?;
        let evaluated = receive(&self.connector, &session, parsed, &columns).await;
        if evaluated.is_err() && !self.is_rehearsal() {
            session.batch_execute("ROLLBACK").await.map_err(self.fault(&doing))?;
        }
        let evaluated = evaluated.map_err(|error| error.doing(doing.clone()))?;
        let end = format!("{}; DROP VIEW IF EXISTS pg_temp.defaults; {end}", trigger::OURS);
        session.batch_execute(&end).await.map_err(self.fault(&doing))?;
        let fields: Vec<_> = destination.evaluated.iter().filter_map(|name| destination.table.column(name)).collect();
        let schema = arrow::datatypes::Schema::new(fields.iter().map(|column| column.field()).collect::<Vec<_>>());
        Ok(concat_batches(&evaluated.first().map_or_else(|| schema.into(), RecordBatch::schema), &evaluated)?)
    }

    /// Returns SQL for a default in row `g.n`, with the numbers that its sequences would give.
    async fn foreseen_default(&self, column: &PgColumn, default: &str) -> Result<String> {
        let mut value = default.to_owned();
        for call in super::numbers::calls(default).into_iter().rev() {
            if let Some(number) = self.next_number(&call.names, column).await? {
                value.replace_range(call.place, &number);
            }
        }
        Ok(value)
    }
}
