//! The staging tables of one destination: their creation, the insertion from them, and their comparison with production.

use futures::StreamExt;
use tokio_postgres::Client;

use super::catalog::{PgCatalog, PgTable};
use super::connect::Connector;
use super::copy::CopyColumn;
use super::lookup::folded;
use super::names::{Names, TableId, qualified};
use super::reading::{self, ROW};
use super::types::PgType;
use crate::engine::{ident, literal};
use crate::error::Result;
use crate::target::{Batches, Destination, different};

/// The comment on this program's staging tables, followed by the run that filled them. It prevents confusion with other tables.
pub(super) const MARK: &str = "staging of the delta pipeline";

/// A destination and the names of its staging tables.
#[derive(Clone, Copy)]
pub(super) struct Staged<'a> {
    pub(super) known: &'a PgCatalog,
    pub(super) names: &'a Names,
    pub(super) destination: &'a Destination,
}

impl Staged<'_> {
    pub(super) fn table(&self) -> &str {
        &self.destination.table.name
    }

    pub(super) fn id(&self) -> TableId {
        self.known.id(self.names, self.table())
    }

    pub(super) fn rows(&self) -> String {
        qualified(&self.names.staging, &self.id().staging_rows())
    }

    pub(super) fn keys(&self) -> String {
        qualified(&self.names.staging, &self.id().staging_keys())
    }

    pub(super) fn live(&self) -> String {
        match self.known.tables.get(self.table()) {
            Some(table) => qualified(&table.schema, &table.name),
            None => qualified(&self.names.production, self.table()),
        }
    }

    /// Returns SQL that reads the live table without inheriting tables.
    pub(super) fn own_rows(&self) -> String {
        self.known.tables.get(self.table()).map_or_else(|| self.live(), PgTable::own_rows)
    }

    pub(super) fn wire(&self, name: &str) -> CopyColumn {
        let pg = self.known.tables.get(self.table()).and_then(|table| table.column(name));
        let pg = pg.map_or(PgType::Text, |column| column.pg_type.clone());
        CopyColumn::new(name, pg.arrow(), pg)
    }

    /// Returns the declared type of a column.
    pub(super) fn declared(&self, name: &str) -> &str {
        let column = self.known.tables.get(self.table()).and_then(|table| table.column(name));
        column.map_or("text", |column| column.declared.as_str())
    }

    pub(super) fn wires(&self) -> Vec<CopyColumn> {
        let mut wires = vec![CopyColumn::number("_row")];
        if self.destination.self_referencing {
            wires.push(CopyColumn::number("_level"));
        }
        wires.extend(self.destination.columns.iter().map(|name| self.wire(name)));
        wires
    }

    pub(super) fn key_wires(&self) -> Vec<CopyColumn> {
        let key = self.destination.key.iter().map(|name| self.wire(name));
        [CopyColumn::number("_row"), CopyColumn::text("legacy_key")].into_iter().chain(key).collect()
    }

    /// Returns SQL that recreates both tables for a run.
    pub(super) fn make(&self, run: &str) -> String {
        self.made(run, true)
    }

    /// Returns SQL that recreates the table for rows.
    pub(super) fn make_rows(&self, run: &str) -> String {
        self.made(run, false)
    }

    fn made(&self, run: &str, with_keys: bool) -> String {
        let of_key = self.destination.key.iter().filter(|name| !self.destination.columns.contains(name));
        let columns: Vec<_> = self.destination.columns.iter().chain(of_key).collect();
        let names: Vec<_> = columns.iter().map(|name| literal(name)).collect();
        let as_text: Vec<_> =
            columns.iter().map(|name| (!self.known.staged_as(self.table(), name).0.is_empty()).to_string()).collect();
        format!(
            "SELECT delta.make_staging({}, {}, ARRAY[{}]::text[], ARRAY[{}]::boolean[], {}, {with_keys})",
            literal(run),
            literal(&self.id().key_map()),
            names.join(", "),
            as_text.join(", "),
            self.destination.self_referencing
        )
    }

    /// Returns whether a run has staged these rows and keys, value by value. False if staging returns a column in another notation than it
    /// was sent in, such as jsonb.
    pub(super) async fn holds(
        &self,
        connector: &Connector,
        client: &Client,
        run: &str,
        delta: [Batches<'_>; 2],
    ) -> Result<bool> {
        let fault = |error| connector.explain("cannot read staging", &error);
        if self.destination.columns.iter().any(|name| self.given_back_by(name).is_none()) {
            return Ok(false);
        }
        let tables = [self.rows(), self.keys()];
        let sql = "SELECT count(*) = 2 FROM unnest($1::text[]) AS t (name)
                   WHERE obj_description(to_regclass(t.name), 'pg_class') = $2";
        let marked = client.query_one(sql, &[&tables.as_slice(), &mark(run)]).await.map_err(fault)?;
        if !marked.get::<_, bool>(0) {
            return Ok(false);
        }
        for ((table, columns), expected) in tables.iter().zip([self.wires(), self.key_wires()]).zip(delta) {
            let wanted: Vec<_> = columns.iter().map(|column| column.read("s")).collect();
            let query = format!("SELECT {} FROM {table} AS s ORDER BY s._row", wanted.join(", "));
            if reading::compare(connector, client, &query, &columns, expected).await?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns which side returns a column's values as they were sent: production, `p`, or staging as text, `s`. None if neither does.
    fn given_back_by(&self, name: &str) -> Option<&'static str> {
        let (cast, _) = self.known.staged_as(self.table(), name);
        match self.known.is_kept_as_copied(&self.destination.table, name) {
            true => Some("p"),
            false => (!cast.is_empty()).then_some("s"),
        }
    }

    /// Returns SQL for a staged value in the type of production's column.
    pub(super) fn value(&self, name: &str) -> String {
        format!("s.{}{}", ident(name), self.known.staged_as(self.table(), name).0)
    }

    /// Returns SQL that inserts the rows. It is parsed with production's search path.
    pub(super) fn insert(&self) -> String {
        self.insert_from(&self.rows(), &[])
    }

    /// Returns SQL that inserts rows of a relation, which has `_more0`, `_more1` … for additional columns.
    pub(super) fn insert_from(&self, rows: &str, more: &[String]) -> String {
        let columns = self.destination.columns.iter().chain(more);
        let columns: Vec<_> = columns.map(|name| ident(name)).collect();
        let values = self.destination.columns.iter().map(|name| self.value(name));
        let values: Vec<_> = values.chain((0..more.len()).map(|at| format!("s._more{at}"))).collect();
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {rows} AS s",
            self.live(),
            columns.join(", "),
            values.join(", ")
        )
    }

    /// Returns SQL that tests whether a staged row `s` and a row `p` of production have the same key.
    fn same_key(&self) -> String {
        let same: Vec<_> =
            self.destination.key.iter().map(|name| format!("p.{} = {}", ident(name), self.value(name))).collect();
        same.join(" AND ")
    }

    /// Returns SQL that tests whether a staged row `s` and a row `p` of production agree in these columns. None unless all of them are
    /// staged.
    pub(super) fn same_values(&self, columns: &[String], ignore_case: &[String]) -> Option<String> {
        if columns.is_empty() || !columns.iter().all(|name| self.destination.columns.contains(name)) {
            return None;
        }
        let same = columns.iter().map(|name| {
            let (there, staged) = (format!("p.{}", ident(name)), self.value(name));
            match ignore_case.contains(name) {
                true => format!("{} = {}", folded(&there), folded(&staged)),
                false => format!("{there} = {staged}"),
            }
        });
        Some(same.collect::<Vec<_>>().join(" AND "))
    }

    /// Returns SQL that tests whether a row `p` of production is not staged, by its key.
    pub(super) fn not_of_the_load(&self) -> String {
        let same = self.same_key();
        format!("NOT EXISTS (SELECT FROM {} AS s WHERE {same})", self.rows())
    }

    /// Returns SQL that limits a join on the first key column to the range of staged keys, which are mostly a block at production's end.
    /// Empty if nothing is staged.
    async fn range(&self, connector: &Connector, client: &Client) -> Result<String> {
        let Some(first) = self.destination.key.first() else { return Ok(String::new()) };
        if matches!(self.wire(first).pg, PgType::Uuid | PgType::Bool | PgType::Json | PgType::Jsonb | PgType::Other) {
            return Ok(String::new());
        }
        let value = self.value(first);
        let sql = format!("SELECT min({value})::text, max({value})::text FROM {} AS s", self.rows());
        let row = client.query_one(&sql, &[]).await.map_err(|error| connector.explain("cannot read", &error))?;
        let (Some(least), Some(most)) = (row.get::<_, Option<String>>(0), row.get::<_, Option<String>>(1)) else {
            return Ok(String::new());
        };
        Ok(format!(" AND p.{} BETWEEN {} AND {}", ident(first), literal(&least), literal(&most)))
    }

    /// Returns SQL for the inserted rows of production, by their keys: `staging AS s JOIN production AS p`.
    pub(super) async fn inserted(&self, connector: &Connector, client: &Client) -> Result<String> {
        let range = self.range(connector, client).await?;
        Ok(format!("{} AS s JOIN {} AS p ON {}{range}", self.rows(), self.own_rows(), self.same_key()))
    }
}

/// Returns the comment on a staging table of a run.
fn mark(run: &str) -> String {
    format!("{MARK}, run {run}")
}

/// Compares the inserted rows with the expected ones, and returns the first difference in words. If production stores a value in another
/// notation than the delta, the server compares it with the staged one. The staged one is then compared with the delta.
pub(super) async fn compare(
    connector: &Connector,
    client: &Client,
    staged: &Staged<'_>,
    expected: Batches<'_>,
) -> Result<Option<String>> {
    let compared: Vec<_> = staged.destination.compared().collect();
    let name = |at: usize| &staged.destination.columns[at];
    let given_back: Vec<_> = compared.iter().map(|at| staged.given_back_by(name(*at))).collect();
    if given_back.iter().any(|by| *by != Some("p"))
        && let Some(how) = compare_staged(connector, client, staged).await?
    {
        return Ok(Some(how));
    }
    let mut columns = vec![CopyColumn::number(ROW)];
    let mut wanted = vec![format!("s.{ROW}")];
    let mut taken = vec![0];
    for (at, by) in compared.into_iter().zip(&given_back) {
        if let Some(by) = by {
            let column = staged.wire(name(at));
            wanted.push(column.read(by));
            columns.push(column);
            taken.push(1 + at);
        }
    }
    let rows = staged.inserted(connector, client).await?;
    let query = format!("SELECT {} FROM {rows} ORDER BY s.{ROW}", wanted.join(", "));
    let expected = expected.map(|batch| Ok(batch?.project(&taken)?));
    reading::compare(connector, client, &query, &columns, expected.boxed()).await
}

/// Compares the inserted rows with the staged ones, and returns the first difference in words.
async fn compare_staged(connector: &Connector, client: &Client, staged: &Staged<'_>) -> Result<Option<String>> {
    let fault = |error| connector.explain("cannot compare the rows", &error);
    let range = staged.range(connector, client).await?;
    let columns: Vec<_> = staged.destination.compared().map(|at| &staged.destination.columns[at]).collect();
    // Types without an equality operator are compared as text.
    let pair = |name: &String| {
        let wire = staged.wire(name);
        let text = if wire.pg.travels_as_text() || wire.pg == PgType::Json { "::text" } else { "" };
        (format!("p.{}{text}", ident(name)), format!("{}{text}", staged.value(name)))
    };
    let differ: Vec<_> = columns
        .iter()
        .filter(|name| !staged.destination.key.contains(name))
        .map(|name| pair(name))
        .map(|(there, expected)| format!(" OR {there} IS DISTINCT FROM {expected}"))
        .collect();
    let Some(key) = staged.destination.key.first() else { return Ok(None) };
    let of = format!(
        "FROM {} AS s LEFT JOIN {} AS p ON {}{range} WHERE p.{} IS NULL{}",
        staged.rows(),
        staged.own_rows(),
        staged.same_key(),
        ident(key),
        differ.concat()
    );
    // Counts, so that the server plans for all rows and not for the first of many.
    let count: i64 = client.query_one(&format!("SELECT count(*) {of}"), &[]).await.map_err(fault)?.get(0);
    if count == 0 {
        return Ok(None);
    }
    let shown: Vec<_> = columns
        .iter()
        .map(|name| pair(name))
        .map(|(there, expected)| format!(", {there}::text, {expected}::text"))
        .collect();
    let sql = format!("SELECT p.{} IS NULL{} {of} ORDER BY s._row LIMIT 1", ident(key), shown.concat());
    let row = client.query_one(&sql, &[]).await.map_err(fault)?;
    if row.get(0) {
        return Ok(Some("rows are missing".to_owned()));
    }
    for (at, name) in columns.iter().enumerate() {
        let (there, expected) = (row.get::<_, Option<String>>(1 + 2 * at), row.get::<_, Option<String>>(2 + 2 * at));
        if there != expected {
            let shown = |value: Option<String>| value.unwrap_or_else(|| "NULL".into());
            return Ok(Some(different(name, &shown(there), &shown(expected))));
        }
    }
    Ok(Some("values differ".to_owned()))
}
