//! The staging tables of one destination: how they are made, inserted from, and held against production.

use tokio_postgres::Client;

use super::catalog::{PgCatalog, PgTable};
use super::connect::Connector;
use super::copy::Wire;
use super::names::{Names, qualified};
use super::types::PgType;
use crate::engine::{ident, literal};
use crate::error::Result;
use crate::target::{Destination, different};

/// What the staging tables of this program carry, so that no other table is taken for one; the run that filled them stands behind it.
pub(super) const MARK: &str = "staging of the delta pipeline";

/// A destination and how its staging is called.
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

    pub(super) fn rows(&self) -> String {
        self.names.staging(self.table())
    }

    /// The live table.
    pub(super) fn live(&self) -> String {
        match self.known.tables.get(self.table()) {
            Some(table) => qualified(&table.schema, &table.name),
            None => qualified(&self.names.production, self.table()),
        }
    }

    /// Where the live table's own rows are read.
    pub(super) fn own_rows(&self) -> String {
        self.known.tables.get(self.table()).map_or_else(|| self.live(), PgTable::own_rows)
    }

    /// A column as it travels.
    pub(super) fn wire(&self, name: &str) -> Wire {
        let pg = self.known.tables.get(self.table()).and_then(|table| table.column(name));
        let pg = pg.map_or(PgType::Text, |column| column.pg_type.clone());
        Wire::new(name, pg.arrow(), pg)
    }

    /// The columns of staged rows.
    pub(super) fn wires(&self) -> Vec<Wire> {
        let mut wires = vec![Wire::number("_row")];
        if self.destination.levelled {
            wires.push(Wire::number("_level"));
        }
        wires.extend(self.destination.columns.iter().map(|name| self.wire(name)));
        wires
    }

    /// The columns of a staged key map.
    pub(super) fn key_wires(&self) -> Vec<Wire> {
        let key = self.destination.key.iter().map(|name| self.wire(name));
        [Wire::number("_row"), Wire::text("legacy_key")].into_iter().chain(key).collect()
    }

    /// SQL that makes both tables anew, for a run.
    pub(super) fn make(&self, run: &str) -> String {
        let key = self.typed(&self.destination.key);
        let keys = format!("_row integer NOT NULL, legacy_key text COLLATE \"C\" NOT NULL{key}");
        format!("{}; {}", self.make_rows(run), anew(&self.names.staged_keys(self.table()), &keys, run))
    }

    /// SQL that makes the table of the rows anew.
    pub(super) fn make_rows(&self, run: &str) -> String {
        let level = if self.destination.levelled { "_level integer NOT NULL, " } else { "" };
        let columns = format!("{level}_row integer NOT NULL{}", self.typed(&self.destination.columns));
        format!("{}; {}", anew(&self.rows(), &columns, run), readable(&self.rows()))
    }

    /// Columns as they are staged, each behind a comma.
    fn typed(&self, columns: &[String]) -> String {
        let typed = |name: &String| format!(", {} {}", ident(name), self.known.staged_as(self.table(), name).1);
        columns.iter().map(typed).collect()
    }

    /// How many rows and keys a run has staged; None where the tables are gone, or another run's.
    pub(super) async fn counts(&self, client: &Client, run: &str) -> Result<Option<(u64, u64)>, tokio_postgres::Error> {
        let (rows, keys) = (self.rows(), self.names.staged_keys(self.table()));
        let sql = "SELECT count(*) = 2 FROM unnest($1::text[]) AS t (name)
                   WHERE obj_description(to_regclass(t.name), 'pg_class') = $2";
        if !client.query_one(sql, &[&[&rows, &keys].as_slice(), &mark(run)]).await?.get::<_, bool>(0) {
            return Ok(None);
        }
        let sql = format!("SELECT (SELECT count(*) FROM {rows}), (SELECT count(*) FROM {keys})");
        let row = client.query_one(&sql, &[]).await?;
        Ok(Some((row.get::<_, i64>(0).cast_unsigned(), row.get::<_, i64>(1).cast_unsigned())))
    }

    /// A staged value as production's column takes it.
    pub(super) fn value(&self, name: &str) -> String {
        format!("s.{}{}", ident(name), self.known.staged_as(self.table(), name).0)
    }

    /// SQL that inserts the rows, with more columns and their values.
    pub(super) fn insert(&self, more: &[(String, String)]) -> String {
        let columns = self.destination.columns.iter().chain(more.iter().map(|(name, _)| name));
        let columns: Vec<_> = columns.map(|name| ident(name)).collect();
        let values = self.destination.columns.iter().map(|name| self.value(name));
        let values: Vec<_> = values.chain(more.iter().map(|(_, value)| value.clone())).collect();
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} AS s",
            self.live(),
            columns.join(", "),
            values.join(", "),
            self.rows()
        )
    }

    /// SQL: a staged row `s` and a row `p` of production have the same key.
    fn same_key(&self) -> String {
        let same: Vec<_> =
            self.destination.key.iter().map(|name| format!("p.{} = {}", ident(name), self.value(name))).collect();
        same.join(" AND ")
    }

    /// SQL that keeps a join on the first key column near the staged keys, which are mostly a block at production's end; empty for
    /// nothing staged.
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

    /// The rows of production that were inserted, by their keys: `staging AS s JOIN production AS p`.
    pub(super) async fn inserted(&self, connector: &Connector, client: &Client) -> Result<String> {
        let range = self.range(connector, client).await?;
        Ok(format!("{} AS s JOIN {} AS p ON {}{range}", self.rows(), self.own_rows(), self.same_key()))
    }
}

/// SQL that makes a staging table anew.
fn anew(table: &str, columns: &str, run: &str) -> String {
    format!(
        "DROP TABLE IF EXISTS {table}; CREATE UNLOGGED TABLE {table} ({columns}) WITH (autovacuum_enabled = off);
         COMMENT ON TABLE {table} IS {}",
        literal(&mark(run))
    )
}

fn mark(run: &str) -> String {
    format!("{MARK}, run {run}")
}

/// SQL that lets the owner of the control functions, who need not be a superuser, read a staging table.
fn readable(table: &str) -> String {
    format!(
        "DO $grant$ BEGIN EXECUTE format('GRANT SELECT ON %s TO %I', {}, (SELECT pg_get_userbyid(proowner) FROM pg_proc
             WHERE oid = 'delta.hold_references(text, text[])'::regprocedure)); END $grant$",
        literal(table)
    )
}

/// Holds the inserted rows against the staged ones: the first difference, in words.
pub(super) async fn compare(connector: &Connector, client: &Client, staged: &Staged<'_>) -> Result<Option<String>> {
    let fault = |error| connector.explain("cannot compare the rows", &error);
    let range = staged.range(connector, client).await?;
    let columns = &staged.destination.columns;
    // Types without an equality of their own are compared as they are written.
    let pair = |name: &String| {
        let wire = staged.wire(name);
        let text = if wire.pg.travels_as_text() || wire.pg == PgType::Json { "::text" } else { "" };
        (format!("p.{}{text}", ident(name)), format!("{}{text}", staged.value(name)))
    };
    let differ: Vec<_> = columns
        .iter()
        .filter(|name| !staged.destination.key.contains(name))
        .map(pair)
        .map(|(there, meant)| format!(" OR {there} IS DISTINCT FROM {meant}"))
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
    // Counted, so that the server plans for all rows and not for the first of many.
    let count: i64 = client.query_one(&format!("SELECT count(*) {of}"), &[]).await.map_err(fault)?.get(0);
    if count == 0 {
        return Ok(None);
    }
    let shown: Vec<_> =
        columns.iter().map(pair).map(|(there, meant)| format!(", {there}::text, {meant}::text")).collect();
    let sql = format!("SELECT p.{} IS NULL{} {of} ORDER BY s._row LIMIT 1", ident(key), shown.concat());
    let row = client.query_one(&sql, &[]).await.map_err(fault)?;
    if row.get(0) {
        return Ok(Some("rows are missing".to_owned()));
    }
    for (at, name) in columns.iter().enumerate() {
        let (there, meant) = (row.get::<_, Option<String>>(1 + 2 * at), row.get::<_, Option<String>>(2 + 2 * at));
        if there != meant {
            let shown = |value: Option<String>| value.unwrap_or_else(|| "NULL".into());
            return Ok(Some(different(name, &shown(there), &shown(meant))));
        }
    }
    Ok(Some("values differ".to_owned()))
}
