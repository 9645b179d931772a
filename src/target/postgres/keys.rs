//! The search for free keys while other programs take keys as well.
//!
//! A table with a sequence takes a block from it, committed before a key is used. A table without one is locked from the moment its largest
//! key is read until the load commits.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Client;

use super::catalog::{PgCatalog, Sequence};
use super::connect::Connector;
use super::names::{Names, TableId, qualified};
use crate::engine::{ident, literal};
use crate::error::{Error, Result};
use crate::journal::RunId;
use crate::spec::{SequenceNumbers, StartRowNumber};
use crate::target::{KeyBlock, KeyRequest};

/// How long one try to reserve a block may block other writers.
const TRY: &str = "200ms";

/// Tries before a sequence counts as locked: about a minute, with growing pauses between them.
const TRIES: u32 = 40;

/// The error code of the control functions if keys are unavailable.
const REFUSED: &str = "DP001";

/// By sequence, the number that it gives next, after the blocks that were foreseen for other tables of the same run.
pub(super) type Foreseen = BTreeMap<String, i128>;

/// The keys of one table.
pub(super) struct Keys<'a> {
    pub(super) connector: &'a Connector,
    pub(super) client: &'a Client,
    pub(super) known: &'a PgCatalog,
    pub(super) names: &'a Names,
    pub(super) request: &'a KeyRequest,
    /// Whether the control schema exists.
    pub(super) control: bool,
}

impl Keys<'_> {
    /// Returns the sequence that the keys come from.
    pub(super) fn sequence(&self) -> Option<&Sequence> {
        self.known.sequence_of(self.names, &self.request.table, &self.request.column, &self.request.sequence)
    }

    /// Returns the block that a reservation would return now.
    pub(super) async fn next(&self, foreseen: &mut Foreseen) -> Result<KeyBlock> {
        if let Some(sequence) = self.sequence()
            && let Some(next) = self.next_of(sequence).await?
        {
            return self.next_from(sequence, next, foreseen).await;
        }
        let first = match self.request.start {
            StartRowNumber::At(first) => first.into(),
            StartRowNumber::Auto => i128::from(self.largest().await?) + 1,
        };
        let block = self.request.block(first)?;
        if self.request.start != StartRowNumber::Auto && self.request.count > 0 {
            self.refuse_taken(&block).await?;
        }
        Ok(block)
    }

    /// Returns the block that a reservation from a sequence would return now.
    async fn next_from(&self, sequence: &Sequence, next: i128, foreseen: &mut Foreseen) -> Result<KeyBlock> {
        let name = qualified(&sequence.schema, &sequence.name);
        let taken = sequence.take(*foreseen.get(&name).unwrap_or(&next), self.request)?;
        if self.request.count > 0 {
            match self.request.start {
                StartRowNumber::Auto => {
                    // Other sessions take numbers and insert rows meanwhile, so the sequence is read again after the keys.
                    let (extreme, block) = (self.extreme(sequence).await?, self.last_block(sequence).await?);
                    let now = self.next_of(sequence).await?.unwrap_or(next);
                    sequence.refuse_lagging(now, extreme, self.request)?;
                    sequence.refuse_reserved(now, block, self.request)?;
                }
                StartRowNumber::At(_) => self.refuse_taken(&taken.block).await?,
            }
        }
        foreseen.insert(name, taken.next);
        Ok(taken.block)
    }

    /// Returns the block that an interrupted run already has.
    pub(super) async fn reserved(&self, run: &str) -> Result<Option<KeyBlock>> {
        let sql = "SELECT first, last FROM delta.block WHERE table_name = $1 AND run = $2";
        let found = self.client.query_opt(sql, &[&self.id().relation(), &run]).await;
        let Some(row) = found.map_err(|error| self.fault(&error))? else { return Ok(None) };
        let (first, last): (i64, i64) = (row.get(0), row.get(1));
        let block = self.request.block_by(first.into(), self.step())?;
        if block.last != last {
            let message = format!(
                "run {run} has reserved the keys {first} to {last} of `{}`, and now needs {first} to {}",
                self.request.table, block.last
            );
            return Err(Error::refused(message)
                .hint("the sequence or the pipeline file was changed since; `pipeline rollback` abandons the run"));
        }
        Ok(Some(block))
    }

    /// Returns the distance between two keys.
    fn step(&self) -> i64 {
        let is_of_sequence =
            self.request.start == StartRowNumber::Auto && self.request.sequence.numbers == SequenceNumbers::Keys;
        self.sequence().filter(|_| is_of_sequence).map_or(1, |sequence| sequence.increment.saturating_abs())
    }

    /// Reserves a block from the table's sequence, in a separate transaction.
    pub(super) async fn reserve(&self, run: &str) -> Result<KeyBlock> {
        let start = match self.request.start {
            StartRowNumber::Auto => None,
            StartRowNumber::At(first) => {
                self.refuse_taken(&self.request.block(first.into())?).await?;
                Some(first)
            }
        };
        let (prefix, digits) = self.text_key();
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = '{TRY}'; SELECT delta.reserve({}, {}, {}, {}, {}, {}, {}); COMMIT",
            literal(run),
            literal(&self.id().key_map()),
            start.map_or("NULL".to_owned(), |start| start.to_string()),
            self.request.count,
            self.request.sequence.numbers == SequenceNumbers::Blocks,
            literal(&prefix),
            digits.map_or("NULL".to_owned(), |digits| digits.to_string()),
        );
        let mut pause = Duration::from_millis(20);
        for _ in 0..TRIES {
            match self.client.simple_query(&sql).await {
                Ok(answer) => {
                    let first = answer.iter().find_map(|message| match message {
                        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                        _ => None,
                    });
                    let first: i64 = first.ok_or_else(|| Error::internal("`delta.reserve` gave no key"))?;
                    return self.request.block_by(first.into(), self.step());
                }
                Err(error) => {
                    self.client.batch_execute("ROLLBACK").await.map_err(|error| self.fault(&error))?;
                    let held = error.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE);
                    if !held {
                        return Err(self.fault(&error));
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_secs(2));
        }
        let sequence = self.sequence().map_or("", |sequence| sequence.name.as_str());
        Err(Error::unreachable(format!("other programs hold the sequence `{sequence}` of `{}`", self.request.table))
            .hint(
                "nothing was loaded; look for long transactions in pg_stat_activity: they hold numbers until they end",
            ))
    }

    pub(super) async fn record(&self, block: &KeyBlock, run: &str) -> Result<()> {
        let count = block.last - block.first + 1;
        let (prefix, digits) = self.text_key();
        let sql = "SELECT delta.record_block($1, $2, $3, $4, $5, $6)";
        let recorded =
            self.client.execute(sql, &[&run, &self.id().key_map(), &block.first, &count, &prefix, &digits]).await;
        recorded.map(|_| ()).map_err(|error| self.fault(&error))
    }

    /// Returns the prefix and the number of digits of keys that are texts.
    fn text_key(&self) -> (String, Option<i32>) {
        self.request.text.as_ref().map_or((String::new(), None), |text| {
            (text.prefix.clone(), i32::try_from(text.width.saturating_sub(text.prefix.chars().count())).ok())
        })
    }

    fn id(&self) -> TableId {
        self.known.id(self.names, &self.request.table)
    }

    fn fault(&self, error: &tokio_postgres::Error) -> Error {
        match error.as_db_error() {
            Some(refused) if refused.code().code() == REFUSED => {
                Error::refused(format!("no keys for `{}`: {}", self.request.table, refused.message()))
                    .hint(refused.hint().unwrap_or_default())
            }
            _ => self.connector.explain("cannot read the keys", error),
        }
    }

    /// Returns the next number of a sequence; None if this user cannot read it.
    async fn next_of(&self, sequence: &Sequence) -> Result<Option<i128>> {
        let name = qualified(&sequence.schema, &sequence.name);
        let may = "SELECT has_sequence_privilege($1::text::regclass, 'SELECT')";
        let may = self.client.query_one(may, &[&name]).await.map_err(|error| self.fault(&error))?;
        if !may.get::<_, bool>(0) {
            return Ok(None);
        }
        let sql = format!("SELECT last_value, is_called FROM {name}");
        let row = self.client.query_one(&sql, &[]).await.map_err(|error| self.fault(&error))?;
        let step = if row.get(1) { sequence.increment } else { 0 };
        Ok(Some(i128::from(row.get::<_, i64>(0)) + i128::from(step)))
    }

    /// Returns the last key in the direction of a sequence, as far as an index shows it.
    async fn extreme(&self, sequence: &Sequence) -> Result<Option<i128>> {
        let Some(table) = self.known.tables.get(&self.request.table) else { return Ok(None) };
        let (live, upwards) = (qualified(&table.schema, &table.name), sequence.increment > 0);
        let of = if upwards { "max" } else { "min" };
        let sql = "SELECT EXISTS (SELECT FROM pg_attribute AS a JOIN pg_index AS i ON i.indrelid = a.attrelid AND i.indisvalid AND i.indpred IS NULL
                   WHERE a.attrelid = $1::text::regclass AND a.attname = $2::text AND (i.indkey::int2[])[0] = a.attnum)";
        let indexed = self.client.query_one(sql, &[&live, &self.request.column]).await;
        if !indexed.map_err(|error| self.fault(&error))?.get::<_, bool>(0) {
            return Ok(None);
        }
        let column = ident(&self.request.column);
        let sql = match &self.request.text {
            None => format!("SELECT {of}({column})::bigint FROM {live}"),
            Some(text) => {
                let (number, is_key) = self.number(0, text.largest());
                let order = if upwards { "DESC" } else { "ASC" };
                format!("SELECT {number} FROM {live} WHERE {is_key} ORDER BY {column} {order} LIMIT 1")
            }
        };
        let found = self.client.query_opt(&sql, &[]).await.map_err(|error| self.fault(&error))?;
        Ok(found.and_then(|row| row.get::<_, Option<i64>>(0)).map(i128::from))
    }

    /// Returns the last block in the direction of a sequence, and the run that reserved it.
    async fn last_block(&self, sequence: &Sequence) -> Result<Option<(RunId, i64, i64)>> {
        if !self.control {
            return Ok(None);
        }
        let order = if sequence.increment > 0 { "last DESC" } else { "first" };
        let sql = format!("SELECT run, first, last FROM delta.block WHERE table_name = $1 ORDER BY {order} LIMIT 1");
        let found = self.client.query_opt(&sql, &[&self.id().relation()]).await.map_err(|error| self.fault(&error))?;
        Ok(found.map(|row| (row.get(0), row.get(1), row.get(2))))
    }

    /// Returns SQL for the table's keys in production, to be extended with a condition.
    fn production(&self) -> Option<String> {
        let table = self.known.tables.get(&self.request.table)?;
        Some(format!("{} WHERE true", qualified(&table.schema, &table.name)))
    }

    /// Returns SQL for the table's keys in segment `s` of the key map.
    fn segment(&self) -> String {
        format!("{} AS m WHERE m.run = s.run", self.id().mappings())
    }

    /// Returns SQL for a key's number, and SQL that tests whether a value between two numbers is a key. An index serves both.
    fn number(&self, first: i64, last: i64) -> (String, String) {
        let column = ident(&self.request.column);
        match &self.request.text {
            None => (format!("{column}::bigint"), format!("{column} BETWEEN {first} AND {last}")),
            Some(text) => {
                let prefix = text.prefix.chars().count();
                let digits = text.width.saturating_sub(prefix);
                (
                    format!("substr({column}, {})::bigint", prefix + 1),
                    format!(
                        "{column} BETWEEN {} AND {} AND left({column}, {prefix}) = {} AND substr({column}, {}) ~ '^[0-9]{{{digits}}}$'",
                        literal(&text.format(first)),
                        literal(&text.format(last)),
                        literal(&text.prefix),
                        prefix + 1
                    ),
                )
            }
        }
    }

    /// Returns the largest key, or 0 without any.
    async fn largest(&self) -> Result<i64> {
        let mut largest = 0;
        let lowest = if self.request.text.is_some() { 0 } else { i64::MIN };
        let highest = self.request.text.as_ref().map_or(i64::MAX, crate::target::TextKey::largest);
        let (number, is_key) = self.number(lowest, highest);
        let largest_of = |from: &str| match self.request.text {
            // A cast would prevent the use of the column's index.
            None => format!("SELECT max({})::bigint AS number FROM {from}", ident(&self.request.column)),
            Some(_) => format!(
                "SELECT {number} AS number FROM {from} AND {is_key} ORDER BY {} DESC LIMIT 1",
                ident(&self.request.column)
            ),
        };
        let mut places: Vec<_> = self.production().iter().map(|from| largest_of(from)).collect();
        if self.control {
            // If the ledger does not have it, the segment is searched.
            places.push(format!(
                "SELECT max(coalesce(s.last_key, ({}))) FROM delta.segment AS s WHERE s.table_name = {}",
                largest_of(&self.segment()),
                literal(&self.id().key_map())
            ));
        }
        for sql in places {
            let found = self.client.query_opt(&sql, &[]).await.map_err(|error| self.fault(&error))?;
            largest = largest.max(found.and_then(|row| row.get::<_, Option<i64>>(0)).unwrap_or(0));
        }
        if self.control {
            let sql = "SELECT max(last) FROM delta.block WHERE table_name = $1";
            let row = self.client.query_one(sql, &[&self.id().relation()]).await.map_err(|error| self.fault(&error))?;
            largest = largest.max(row.get::<_, Option<i64>>(0).unwrap_or(0));
        }
        Ok(largest)
    }

    async fn refuse_taken(&self, block: &KeyBlock) -> Result<()> {
        match self.taken(block).await? {
            Some(why) => Err(block.taken(&why)),
            None => Ok(()),
        }
    }

    async fn taken(&self, block: &KeyBlock) -> Result<Option<String>> {
        let (number, is_key) = self.number(block.first, block.last);
        let key_of = |from: &str| format!("SELECT {number} AS number FROM {from} AND {is_key} LIMIT 1");
        let mut places: Vec<_> = self.production().iter().map(|from| key_of(from)).collect();
        if self.control {
            places.push(format!(
                "SELECT found.number FROM delta.segment AS s CROSS JOIN LATERAL ({}) AS found
                 WHERE s.table_name = {} AND coalesce(s.first_key <= {} AND s.last_key >= {}, true) LIMIT 1",
                key_of(&self.segment()),
                literal(&self.id().key_map()),
                block.last,
                block.first
            ));
        }
        for sql in places {
            if let Some(row) = self.client.query_opt(&sql, &[]).await.map_err(|error| self.fault(&error))? {
                return Ok(Some(format!("key {} is in production or in the key map already", row.get::<_, i64>(0))));
            }
        }
        if !self.control {
            return Ok(None);
        }
        let sql =
            "SELECT first, last, run FROM delta.block WHERE table_name = $1 AND first <= $3 AND last >= $2 LIMIT 1";
        let found = self.client.query_opt(sql, &[&self.id().relation(), &block.first, &block.last]).await;
        Ok(found.map_err(|error| self.fault(&error))?.map(|row| {
            let (first, last, run): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
            format!("run {run} has the keys {first} to {last}")
        }))
    }
}
