//! Lookups in production: the delta's keys are sent to the server, and an indexed join answers.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use futures::{StreamExt, stream};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::catalog::PgTable;
use super::connect::Session;
use super::copy::{CopyColumn, CopyTarget, receive};
use super::names::qualified;
use super::types::PgType;
use super::{PgTarget, open_session, readable};
use crate::engine::{display_value, ident, literal};
use crate::error::{Error, Result};
use crate::target::{Batches, Destination, Filter, Lookup, Relation, Test};

/// The temporary table of a lookup's keys.
pub(super) const ASKED: &str = "pg_temp.asked";

pub(super) struct Question {
    /// The columns of the keys, as SQL declares them.
    declared: Vec<String>,
    /// The columns of the keys, as they are copied.
    pub(super) asked: Vec<CopyColumn>,
    /// The join with the temporary table of the keys.
    pub(super) join: String,
    pub(super) given: Vec<CopyColumn>,
    /// SQL that asks whether production has any row between the smallest and the largest of the first keys; without one, nothing joins.
    /// None if the keys are not compared as they are.
    between: Option<String>,
    place: String,
}

impl PgTarget {
    /// Prepares a lookup; None if the key map is empty.
    pub(super) async fn question(&self, lookup: &Lookup) -> Result<Option<Question>> {
        let known = self.known().await?;
        let (whole, place, columns) = match &lookup.place {
            Relation::Production(table) => {
                let table = known.tables.get(table).ok_or_else(|| not_there(table))?;
                (qualified(&table.schema, &table.name), table.own_rows(), wires(table))
            }
            Relation::KeyMap(table) => {
                if !self.has_mappings(table).await? {
                    return Ok(None);
                }
                let key = known.tables.get(table).map(wires).unwrap_or_default();
                let own = [CopyColumn::text("legacy_key"), CopyColumn::text("run")];
                let view = known.id(&self.names, table).key_map_view();
                (view.clone(), view, own.into_iter().chain(key).collect())
            }
        };
        let column = |name: &String| {
            let found = columns.iter().find(|column| column.name == *name).cloned();
            found.ok_or_else(|| Error::internal(format!("a look-up in {place} of `{name}`, which is not there")))
        };
        let mut asked = vec![CopyColumn::number("_id")];
        let mut declared = vec!["_id bigint".to_owned()];
        let mut on = Vec::new();
        let mut between = None;
        for (at, name) in lookup.match_on.iter().enumerate() {
            let there = column(name)?;
            let here = format!("k{at}");
            let value = format!("a.{here}");
            let (right, sql, pg) = match &lookup.place {
                Relation::KeyMap(_) if name == "legacy_key" => (value, "text COLLATE \"C\"".to_owned(), PgType::Text),
                Relation::Production(table) | Relation::KeyMap(table) => known.asked_as(table, name, &value),
            };
            declared.push(format!("{here} {sql}"));
            let left = format!("p.{}", ident(name));
            if lookup.ignore_case.contains(name) {
                on.push(format!("{} = {}", folded(&left), folded(&right)));
            } else {
                let end = |order: &str| {
                    format!("(SELECT {right} FROM {ASKED} AS a WHERE {right} IS NOT NULL ORDER BY 1 {order} LIMIT 1)")
                };
                let equals = match &lookup.place {
                    Relation::Production(table) => known.equals(table, name),
                    Relation::KeyMap(_) => "=",
                };
                let first =
                    (at == 0 && equals == "=").then(|| format!("{left} BETWEEN {} AND {}", end("ASC"), end("DESC")));
                between = between.or(first);
                on.push(format!("{left} {equals} {right}"));
            }
            asked.push(CopyColumn { name: here, pg, ..there });
        }
        let mut given = vec![CopyColumn::number("_id")];
        let mut wanted = vec!["a._id".to_owned()];
        for name in &lookup.give {
            given.push(column(name)?);
            wanted.extend(given.last().map(|column| column.read("p")));
        }
        let only = lookup.condition.as_ref().map_or(String::new(), |condition| format!(" WHERE {condition}"));
        // The condition is production's own, and about its row alone.
        let place = if only.is_empty() { place } else { format!("(SELECT * FROM {place}{only})") };
        Ok(Some(Question {
            between: between.map(|between| format!("SELECT EXISTS (SELECT FROM {place} AS p WHERE {between})")),
            declared,
            asked,
            join: format!("SELECT {} FROM {ASKED} AS a JOIN {place} AS p ON {}", wanted.join(", "), on.join(" AND ")),
            given,
            place: whole,
        }))
    }

    pub(super) async fn ask(&self, lookup: &Lookup, keys: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let Some(question) = self.question(lookup).await? else { return Ok(Vec::new()) };
        let keys = keys.iter().map(without_nul).collect::<Result<Vec<_>>>()?;
        let rows: usize = keys.iter().map(RecordBatch::num_rows).sum();
        let session = self.session.lock().await;
        // One server process answers one lookup, so two sessions share a large one. An uncommitted database is visible to the first session
        // alone.
        let more = rows >= FOR_TWO && !self.unfinished;
        let second = if more { open_session(&self.connector, self.access, "cannot look up").await.ok() } else { None };
        let Some(second) = second else { return self.ask_over(&session, &question, &keys).await };
        let (keys, others) = parted(&keys, rows / 2);
        let (answers, more) =
            futures::join!(self.ask_over(&session, &question, &keys), self.ask_over(&second, &question, &others));
        let mut answers = answers?;
        answers.extend(more?);
        Ok(answers)
    }

    /// Runs a lookup over one session, and leaves the session unchanged.
    async fn ask_over(&self, session: &Session, question: &Question, keys: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let fault = |error| self.connector.explain("cannot look up", &error);
        let rows: usize = keys.iter().map(RecordBatch::num_rows).sum();
        if rows <= FEW && !self.unfinished {
            return self.ask_in_text(session, question, keys).await;
        }
        // Inside a transaction that is never committed there is no BEGIN, so the table of the last lookup may still exist.
        let begun = session.batch_execute(&begin(question, self.unfinished)).await;
        let answer = async {
            match begun {
                Ok(()) => {
                    CopyTarget { connector: &self.connector, table: ASKED, columns: &question.asked }
                        .send(session, keys)
                        .await?;
                    let methods = session.simple_query(&question.by_index(rows)).await.map_err(fault)?;
                    let by_index = methods.iter().any(|answer| matches!(answer, SimpleQueryMessage::Row(_)));
                    if by_index && rows >= FOR_BETWEEN && question.has_nothing_between(session).await.map_err(fault)? {
                        return Ok(Vec::new());
                    }
                    self.answer(session, &question.join, &question.given).await
                }
                Err(error) if !self.unfinished && only_reads(&error) => {
                    session.batch_execute("ROLLBACK").await.map_err(fault)?;
                    let answers = self.ask_in_text(session, question, keys).await;
                    session.batch_execute("BEGIN").await.map_err(fault)?;
                    answers
                }
                Err(error) => Err(fault(error)),
            }
        };
        let answer = answer.await;
        let end = if self.unfinished { "" } else { "ROLLBACK" };
        let ended = session.batch_execute(end).await.map_err(fault);
        // If the session is lost, the first error has the cause.
        let answer = answer?;
        ended.map(|()| answer)
    }

    /// Runs a lookup whose keys are literals.
    async fn ask_in_text(
        &self,
        session: &Session,
        question: &Question,
        keys: &[RecordBatch],
    ) -> Result<Vec<RecordBatch>> {
        let fault = |error| self.connector.explain("cannot look up", &error);
        let mut answers = Vec::new();
        for values in question.values(keys) {
            // Each in a separate transaction, because the choice of an index must be made again.
            session.batch_execute(&format!("BEGIN READ ONLY; {}", question.by_index(0))).await.map_err(fault)?;
            let answer = self.answer(session, &question.join.replacen(ASKED, &values, 1), &question.given).await;
            let ended = session.batch_execute("ROLLBACK").await.map_err(fault);
            // If the session is lost, the first error has the cause.
            answers.extend(answer?);
            ended?;
        }
        Ok(answers)
    }

    /// Returns the result of a join, by an index of production, or else by a single scan.
    pub(super) async fn answer(&self, client: &Client, join: &str, given: &[CopyColumn]) -> Result<Vec<RecordBatch>> {
        let fault = |error| self.connector.explain("cannot look up", &error);
        let plan = client.simple_query(&format!("EXPLAIN (COSTS off) {join}")).await.map_err(fault)?;
        if plan.iter().any(reads_whole) {
            client.batch_execute(NO_INDEX).await.map_err(fault)?;
        }
        receive(&self.connector, client, join, given).await
    }

    /// Returns whether a table's key map has any rows. Before a first delta, most are empty.
    async fn has_mappings(&self, table: &str) -> Result<bool> {
        let view = self.known().await?.id(&self.names, table).key_map_view();
        let session = self.session.lock().await;
        let fault = |error| self.connector.explain("cannot read the key map", &error);
        if !readable(&session, &view).await.map_err(fault)? {
            return Ok(false);
        }
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {view})");
        Ok(session.query_one(&sql, &[]).await.map_err(fault)?.get(0))
    }

    pub(super) async fn read(
        &self,
        table: &str,
        columns: &[String],
        filters: &[Filter],
        limit: Option<usize>,
    ) -> Result<Batches<'static>> {
        let known = self.known().await?;
        let table = known.tables.get(table).ok_or_else(|| not_there(table))?;
        let all = wires(table);
        let mut wanted = Vec::new();
        for name in columns {
            let found = all.iter().find(|column| column.name == *name);
            wanted.extend(found.cloned());
        }
        let mut sql: Vec<_> = wanted.iter().map(|column| column.read("p")).collect();
        if wanted.is_empty() {
            wanted.push(CopyColumn::number("_"));
            sql.push("1::bigint".into());
        }
        let conditions: Vec<_> = filters.iter().filter_map(|filter| condition(filter, &all)).collect();
        let only = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let limit = limit.map_or(String::new(), |rows| format!(" LIMIT {rows}"));
        let query =
            format!("SELECT {} FROM {} AS p{only}{limit}", sql.join(", "), qualified(&table.schema, &table.name));
        self.stream(&query, &wanted).await
    }

    pub(super) async fn mappings(&self, destination: &Destination) -> Result<Batches<'static>> {
        let table = &destination.table.name;
        if !self.has_mappings(table).await? {
            return Ok(stream::empty().boxed());
        }
        let known = self.known().await?;
        let all = known.tables.get(table).map(wires).unwrap_or_default();
        let mut columns = vec![CopyColumn::text("legacy_key")];
        columns
            .extend(destination.key.iter().filter_map(|name| all.iter().find(|column| column.name == *name).cloned()));
        columns.push(CopyColumn::text("run"));
        let wanted: Vec<_> = columns.iter().map(|column| column.read("p")).collect();
        let view = known.id(&self.names, table).key_map_view();
        let query = format!("SELECT {} FROM {view} AS p ORDER BY p.legacy_key", wanted.join(", "));
        self.stream(&query, &columns).await
    }
}

/// The number of keys up to which they are sent as literals: creating and filling a temporary table takes 3 ms.
const FEW: usize = 200;

/// The number of keys from which on two sessions share a lookup. Opening the second takes as long as some thousands of lookups.
const FOR_TWO: usize = 50_000;

/// The number of keys from which on it is first checked whether production has anything between them. Many deltas have numbers above all of
/// production's. The check takes 7 ms for 20,000 keys; looking them up takes 36 ms.
const FOR_BETWEEN: usize = 5_000;

/// Bytes of a table per key up to which a scan is as fast as looking the keys up. 140,000 keys in 52 MB took 0.21 s by the index and 0.15 s
/// by a scan; 20,000 keys took 0.03 s either way.
const READ_WHOLE: usize = 512;

fn parted(keys: &[RecordBatch], mut first: usize) -> (Vec<RecordBatch>, Vec<RecordBatch>) {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for batch in keys {
        let rows = batch.num_rows().min(first);
        first -= rows;
        here.push(batch.slice(0, rows));
        there.push(batch.slice(rows, batch.num_rows() - rows));
    }
    (here, there)
}

/// If no index answers, the table is scanned once and not once per key.
const NO_INDEX: &str = "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on";

/// Returns whether a line of a plan scans a table of production.
fn reads_whole(line: &SimpleQueryMessage) -> bool {
    match line {
        SimpleQueryMessage::Row(row) => {
            row.get(0).is_some_and(|line| line.contains("Seq Scan on ") && !line.contains("Seq Scan on asked "))
        }
        _ => false,
    }
}

/// Removes the rows that contain a text with NUL, which the server can neither store nor accept.
fn without_nul(keys: &RecordBatch) -> Result<RecordBatch> {
    let texts = keys.columns().iter().filter_map(|column| column.as_string_opt::<i32>());
    if !texts.clone().any(|column| column.value_data().contains(&0)) {
        return Ok(keys.clone());
    }
    let has_nul = |row: usize| texts.clone().any(|column| column.is_valid(row) && column.value(row).contains('\0'));
    let wanted: BooleanArray = (0..keys.num_rows()).map(|row| Some(!has_nul(row))).collect();
    Ok(filter_record_batch(keys, &wanted)?)
}

fn begin(question: &Question, unfinished: bool) -> String {
    let first = if unfinished { "DROP TABLE IF EXISTS pg_temp.asked" } else { "BEGIN" };
    format!("{first}; CREATE TEMPORARY TABLE asked ({}) ON COMMIT DROP", question.declared.join(", "))
}

/// Returns whether a session failed because it may not create a temporary table: it lacks the right, or is read-only.
pub(super) fn only_reads(error: &tokio_postgres::Error) -> bool {
    let codes = [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::READ_ONLY_SQL_TRANSACTION];
    error.code().is_some_and(|code| codes.contains(code))
}

const KEYS_IN_TEXT: usize = 5000;

/// Returns SQL that makes the server use an index of a table for each key, unless a scan of the table is as fast; then it returns no row. The
/// server estimates the number of keys from their table's size. Statistics would take 3 ms and change no plan.
pub(super) fn by_index(table: &str, keys: usize) -> String {
    format!(
        "SELECT set_config(method, 'off', true) FROM pg_class AS c, unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin']) AS method
         WHERE c.oid = {}::regclass AND NOT (c.relkind = 'r' AND pg_relation_size(c.oid) <= {})",
        literal(table),
        keys * READ_WHOLE
    )
}

impl Question {
    fn by_index(&self, keys: usize) -> String {
        by_index(&self.place, keys)
    }

    /// Returns whether an index shows that production has none of the keys.
    async fn has_nothing_between(&self, session: &Client) -> Result<bool, tokio_postgres::Error> {
        let Some(between) = &self.between else { return Ok(false) };
        let plan = session.simple_query(&format!("EXPLAIN (COSTS off) {between}")).await?;
        Ok(!plan.iter().any(reads_whole) && !session.query_one(between, &[]).await?.get::<_, bool>(0))
    }

    /// Returns the keys as tables of literals, for a session that may not create a table.
    fn values(&self, keys: &[RecordBatch]) -> Vec<String> {
        let pieces = keys.iter().flat_map(|keys| {
            (0..keys.num_rows())
                .step_by(KEYS_IN_TEXT)
                .map(|first| keys.slice(first, KEYS_IN_TEXT.min(keys.num_rows() - first)))
        });
        pieces.map(|piece| literal_rows(&self.asked, &self.declared, &[piece])).collect()
    }
}

/// Returns rows as a table of literals. The columns are declared as in a temporary table.
pub(super) fn literal_rows(columns: &[CopyColumn], declared: &[String], rows: &[RecordBatch]) -> String {
    let names: Vec<_> = columns.iter().map(|column| ident(&column.name)).collect();
    let typed = declared.iter().zip(&names).map(|(declared, name)| {
        // `k0 text COLLATE "C"`: name, type, and collation.
        let declared = declared.strip_prefix(name.as_str()).or_else(|| declared.split_once(' ').map(|(_, rest)| rest));
        let declared = declared.unwrap_or_default().trim();
        let (sql, collation) = match declared.split_once(" COLLATE ") {
            Some((sql, collation)) => (sql, format!(" COLLATE {collation}")),
            None => (declared, String::new()),
        };
        format!("v.{name}::{sql}{collation} AS {name}")
    });
    let typed = typed.collect::<Vec<_>>().join(", ");
    let rows = rows.iter().flat_map(|rows| {
        (0..rows.num_rows()).map(move |row| {
            let values: Vec<_> = rows.columns().iter().map(|column| in_text(column.as_ref(), row)).collect();
            format!("({})", values.join(", "))
        })
    });
    let mut rows: Vec<_> = rows.collect();
    let mut only = "";
    if rows.is_empty() {
        rows.push(format!("({})", vec!["NULL"; names.len()].join(", ")));
        only = " WHERE false";
    }
    format!("(SELECT {typed} FROM (VALUES {}) AS v ({}){only})", rows.join(", "), names.join(", "))
}

/// Formats a value as a literal that the server reads as the same value.
fn in_text(values: &dyn Array, row: usize) -> String {
    if values.is_null(row) { "NULL".to_owned() } else { literal(&text_of(values, row)) }
}

/// Formats a value as a text that the server reads as the same value.
pub(super) fn text_of(values: &dyn Array, row: usize) -> String {
    let prefix = if *values.data_type() == DataType::Binary { "\\x" } else { "" };
    format!("{prefix}{}", display_value(values, row))
}

/// Returns SQL for a text with its ASCII letters in lower case.
pub(super) fn folded(sql: &str) -> String {
    format!("translate({sql}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')")
}

pub(super) fn wires(table: &PgTable) -> Vec<CopyColumn> {
    table
        .columns
        .iter()
        .map(|column| CopyColumn::new(&column.name, column.pg_type.arrow(), column.pg_type.clone()))
        .collect()
}

fn not_there(table: &str) -> Error {
    Error::internal(format!("a look-up in `{table}`, which is not there"))
}

/// Translates a filter of the engine to SQL; None if the two could differ in meaning.
fn condition(filter: &Filter, columns: &[CopyColumn]) -> Option<String> {
    let column = columns.iter().find(|column| column.name == filter.column)?;
    let name = format!("p.{}", ident(&column.name));
    Some(match (&filter.test, &column.pg) {
        (Test::IsNull, _) => format!("{name} IS NULL"),
        (Test::IsNotNull, _) => format!("{name} IS NOT NULL"),
        (Test::Text(how, text), PgType::Text) if !text.contains('\0') => {
            format!("{name} COLLATE \"C\" {how} {}", literal(text))
        }
        (Test::Integer(how, number), _) if column.data_type == DataType::Int64 => format!("{name} {how} {number}"),
        _ => return None,
    })
}
