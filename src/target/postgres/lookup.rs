//! Questions about production: the delta's keys go there, and an indexed join answers.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::nullif;
use arrow::datatypes::DataType;

use super::PostgresTarget;
use super::catalog::PgTable;
use super::copy::{Destined, Wire, receive};
use super::names::{Names, qualified};
use super::types::PgType;
use crate::engine::{ident, literal};
use crate::error::{Error, Result};
use crate::target::{Destination, Filter, Lookup, Place, Test};

/// The temporary table of a question's keys.
const ASKED: &str = "pg_temp.asked";

/// What one question is put as.
pub(super) struct Question {
    /// Makes the temporary table.
    pub(super) table: String,
    /// Its columns.
    pub(super) asked: Vec<Wire>,
    /// The join.
    pub(super) join: String,
    /// What it gives.
    pub(super) given: Vec<Wire>,
}

impl PostgresTarget {
    /// A look-up as SQL; None where there is nothing to look in.
    pub(super) async fn question(&self, lookup: &Lookup) -> Result<Option<Question>> {
        let known = self.known().await?;
        let (place, columns) = match &lookup.place {
            Place::Production(table) => {
                let table = known.tables.get(table).ok_or_else(|| not_there(table))?;
                (qualified(&table.schema, &table.name), wires(table))
            }
            Place::KeyMap(table) => {
                if !self.has_mappings(table).await? {
                    return Ok(None);
                }
                let key = known.tables.get(table).map(wires).unwrap_or_default();
                let own = [Wire::text("legacy_key"), Wire::text("run")];
                (Names::history(table), own.into_iter().chain(key).collect())
            }
        };
        let column = |name: &String| {
            let found = columns.iter().find(|column| column.name == *name).cloned();
            found.ok_or_else(|| Error::internal(format!("a look-up in {place} of `{name}`, which is not there")))
        };
        let mut asked = vec![Wire::number("_id")];
        let mut declared = vec!["_id integer".to_owned()];
        let mut on = Vec::new();
        for (at, name) in lookup.match_on.iter().enumerate() {
            let there = column(name)?;
            let here = format!("k{at}");
            let (cast, sql) = match &lookup.place {
                Place::KeyMap(_) if name == "legacy_key" => (String::new(), "text COLLATE \"C\"".to_owned()),
                Place::Production(table) | Place::KeyMap(table) => known.asked_as(table, name),
            };
            declared.push(format!("{here} {sql}"));
            let (left, right) = (format!("p.{}", ident(name)), format!("a.{here}{cast}"));
            on.push(match lookup.ignore_case.contains(name) {
                true => format!("{} = {}", folded(&left), folded(&right)),
                false => format!("{left} = {right}"),
            });
            asked.push(Wire { name: here, ..there });
        }
        let mut given = vec![Wire::number("_id")];
        let mut wanted = vec!["a._id".to_owned()];
        for name in &lookup.give {
            given.push(column(name)?);
            wanted.extend(given.last().map(|column| column.read("p")));
        }
        let only = lookup.condition.as_ref().map_or(String::new(), |condition| format!(" WHERE {condition}"));
        // The condition is production's own, about its row alone.
        let place = if only.is_empty() { place } else { format!("(SELECT * FROM {place}{only})") };
        Ok(Some(Question {
            table: format!("CREATE TEMPORARY TABLE asked ({}) ON COMMIT DROP", declared.join(", ")),
            asked,
            join: format!("SELECT {} FROM {ASKED} AS a JOIN {place} AS p ON {}", wanted.join(", "), on.join(" AND ")),
            given,
        }))
    }

    pub(super) async fn ask(&self, lookup: &Lookup, keys: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let Some(question) = self.question(lookup).await? else { return Ok(Vec::new()) };
        let keys = keys.iter().map(without_nul).collect::<Result<Vec<_>>>()?;
        let session = self.session.lock().await;
        let fault = |error| self.connector.explain("cannot look up", &error);
        // Inside a transaction that is never committed there is no BEGIN: a table of the last question is in the way.
        session.batch_execute(&begin(&question, self.unfinished)).await.map_err(fault)?;
        let answer = async {
            Destined { connector: &self.connector, table: ASKED, columns: &question.asked }
                .send(&session, &keys)
                .await?;
            session.batch_execute(READY).await.map_err(fault)?;
            receive(&self.connector, &session, &question.join, &question.given).await
        };
        let answer = answer.await;
        let end = if self.unfinished { "" } else { "ROLLBACK" };
        session.batch_execute(end).await.map_err(fault)?;
        answer
    }

    /// Whether a table's key map has any rows: most have none when a delta is the first.
    async fn has_mappings(&self, table: &str) -> Result<bool> {
        let name = Names::history_name(table);
        let session = self.session.lock().await;
        let fault = |error| self.connector.explain("cannot read the key map", &error);
        let sql = "SELECT to_regclass(format('delta.%I', $1::text)) IS NOT NULL";
        if !session.query_one(sql, &[&name]).await.map_err(fault)?.get::<_, bool>(0) {
            return Ok(false);
        }
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", Names::history(table));
        Ok(session.query_one(&sql, &[]).await.map_err(fault)?.get(0))
    }

    pub(super) async fn read(&self, table: &str, columns: &[String], filters: &[Filter]) -> Result<Vec<RecordBatch>> {
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
            wanted.push(Wire::number("_"));
            sql.push("1".into());
        }
        let conditions: Vec<_> = filters.iter().filter_map(|filter| condition(filter, &all)).collect();
        let only = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let query = format!("SELECT {} FROM {} AS p{only}", sql.join(", "), qualified(&table.schema, &table.name));
        receive(&self.connector, &*self.session.lock().await, &query, &wanted).await
    }

    pub(super) async fn mappings(&self, destination: &Destination) -> Result<Vec<RecordBatch>> {
        let table = &destination.table.name;
        if !self.has_mappings(table).await? {
            return Ok(Vec::new());
        }
        let known = self.known().await?;
        let all = known.tables.get(table).map(wires).unwrap_or_default();
        let mut columns = vec![Wire::text("legacy_key")];
        columns
            .extend(destination.key.iter().filter_map(|name| all.iter().find(|column| column.name == *name).cloned()));
        columns.push(Wire::text("run"));
        let wanted: Vec<_> = columns.iter().map(|column| column.read("p")).collect();
        let query = format!("SELECT {} FROM {} AS p ORDER BY p.legacy_key", wanted.join(", "), Names::history(table));
        receive(&self.connector, &*self.session.lock().await, &query, &columns).await
    }
}

/// A question without texts that no production can hold: as NULL they match nothing.
fn without_nul(keys: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = keys.columns().to_vec();
    for column in &mut columns {
        if let Some(texts) = column.as_string_opt::<i32>()
            && texts.value_data().contains(&0)
        {
            let holds: BooleanArray =
                texts.iter().map(|text| Some(text.is_some_and(|text| text.contains('\0')))).collect();
            *column = nullif(column, &holds)?;
        }
    }
    Ok(RecordBatch::try_new(keys.schema(), columns)?)
}

/// Statistics for the join, and no table of production read whole where an index answers. That makes a plan without an index look so
/// costly that the server would compile it, which takes longer than a small delta's answer.
const READY: &str = "ANALYZE pg_temp.asked; SET LOCAL enable_seqscan = off; SET LOCAL jit = off";

fn begin(question: &Question, unfinished: bool) -> String {
    let first = if unfinished { "DROP TABLE IF EXISTS pg_temp.asked" } else { "BEGIN" };
    format!("{first}; {}", question.table)
}

/// A text with its ASCII letters in lower case.
fn folded(sql: &str) -> String {
    format!("translate({sql}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')")
}

/// The columns of a table as they travel.
pub(super) fn wires(table: &PgTable) -> Vec<Wire> {
    table.columns.iter().map(|column| Wire::new(&column.name, column.pg_type.arrow(), column.pg_type.clone())).collect()
}

fn not_there(table: &str) -> Error {
    Error::internal(format!("a look-up in `{table}`, which is not there"))
}

/// A filter of the engine as the server reads it; None where the two might not mean the same.
fn condition(filter: &Filter, columns: &[Wire]) -> Option<String> {
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
