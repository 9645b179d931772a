//! The search for free keys in production, the key map, and earlier blocks.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use rusqlite::{Connection, OptionalExtension};

use super::batches::select;
use super::key_map::KeyMapTable;
use super::object_registry::own_table_exists;
use super::{Names, table_exists};
use crate::engine::{ident, literal};
use crate::error::{Error, Result};
use crate::spec::StartRowNumber;
use crate::target::{Destination, KeyBlock, KeyRequest};

/// Returns the block that a request would get now.
///
/// # Errors
/// If it would overflow the column, or the requested keys are not free.
pub(super) fn next_block(connection: &Connection, request: &KeyRequest, names: &Names) -> Result<KeyBlock> {
    let places = places(connection, names, request).map_err(|error| fault(names, &error))?;
    let free = Free { connection, request, key_map: names.key_map(&request.table), places };
    let first = match request.start {
        StartRowNumber::At(first) => i128::from(first),
        StartRowNumber::Auto => i128::from(free.largest().map_err(|error| fault(names, &error))?) + 1,
    };
    let block = request.block(first)?;
    if request.count > 0
        && request.start != StartRowNumber::Auto
        && let Some(why) = free.taken(&block).map_err(|error| fault(names, &error))?
    {
        return Err(block.taken(&why));
    }
    Ok(block)
}

/// Returns production's default of the columns that a destination evaluates, for a number of rows, as the columns would store it.
///
/// # Errors
/// If a default cannot be computed.
pub(super) fn defaults(
    connection: &Connection,
    destination: &Destination,
    count: u64,
    names: &Names,
) -> Result<RecordBatch> {
    let fault = |error: rusqlite::Error| {
        names.error(&format!("cannot compute the defaults of `{}` in", destination.table.name), &error)
    };
    let columns: Vec<_> = destination.evaluated.iter().filter_map(|name| destination.table.column(name)).collect();
    let mut declared = Vec::new();
    for column in &columns {
        let sql = "SELECT dflt_value FROM pragma_table_xinfo(?1) WHERE name = ?2";
        let default: String =
            connection.query_row(sql, [&destination.table.name, &column.name], |row| row.get(0)).map_err(fault)?;
        declared.push(format!("{} {} DEFAULT ({default})", ident(&column.name), column.declared));
    }
    let schema = Arc::new(Schema::new(columns.iter().map(|column| column.field()).collect::<Vec<_>>()));
    let wanted: Vec<_> = columns.iter().map(|column| ident(&column.name)).collect();
    let sql = format!(
        "DROP TABLE IF EXISTS temp.evaluated; CREATE TEMP TABLE evaluated (_n INTEGER PRIMARY KEY, {});
         WITH RECURSIVE g (n) AS (SELECT 1 WHERE {count} > 0 UNION ALL SELECT n + 1 FROM g WHERE n < {count})
         INSERT INTO temp.evaluated (_n) SELECT n FROM g;",
        declared.join(", ")
    );
    connection.execute_batch(&sql).map_err(fault)?;
    let sql = format!("SELECT {} FROM temp.evaluated ORDER BY _n", wanted.join(", "));
    let found = select(connection, &sql, &schema, names)?;
    connection.execute_batch("DROP TABLE temp.evaluated").map_err(fault)?;
    Ok(concat_batches(&schema, &found)?)
}

fn fault(names: &Names, error: &rusqlite::Error) -> Error {
    names.error("cannot read the keys of", error)
}

/// Returns the sources of used keys besides the ledger: production and the key map.
fn places(connection: &Connection, names: &Names, request: &KeyRequest) -> rusqlite::Result<Vec<KeySource>> {
    let mut places = vec![KeySource::Production(format!("main.{}", ident(&request.table)))];
    if let Some(history) = KeyMapTable::of(connection, &names.key_map(&request.table))? {
        places.push(KeySource::KeyMapTable(history.place()));
    }
    Ok(places)
}

/// A source of used keys, as SQL.
enum KeySource {
    Production(String),
    /// The key map, whose runs are in the ledger.
    KeyMapTable(String),
}

struct Free<'a> {
    connection: &'a Connection,
    request: &'a KeyRequest,
    key_map: String,
    places: Vec<KeySource>,
}

impl Free<'_> {
    /// Returns SQL for a key's number, and SQL that tests whether a value is a key. A text key has its prefix, its width, and digits.
    fn sql(&self) -> (String, String) {
        let column = ident(&self.request.column);
        match &self.request.text {
            None => (column.clone(), format!("typeof({column}) = 'integer'")),
            Some(text) => {
                let prefix = text.prefix.chars().count();
                let pattern: String = text
                    .prefix
                    .chars()
                    .map(|char| if "*?[]".contains(char) { format!("[{char}]") } else { char.to_string() })
                    .collect();
                let pattern = pattern + &"[0-9]".repeat(text.width.saturating_sub(prefix));
                (
                    format!("CAST(substr({column}, {}) AS INTEGER)", prefix + 1),
                    format!("{column} GLOB {}", literal(&pattern)),
                )
            }
        }
    }

    /// Returns the largest number that was ever a key. The column's own order finds it, because text keys have one width.
    fn largest(&self) -> rusqlite::Result<i64> {
        let (number, is_key) = self.sql();
        let column = ident(&self.request.column);
        let first = |place: &str, condition: &str| {
            format!("SELECT {number} FROM {place} WHERE {condition}{is_key} ORDER BY {column} DESC LIMIT 1")
        };
        let mut largest = 0_i64;
        for place in &self.places {
            // Within each run, the index orders mappings by their keys.
            let sql = match place {
                KeySource::Production(table) => first(table, ""),
                KeySource::KeyMapTable(history) => format!(
                    "SELECT max(({})) FROM main.delta_segment AS s WHERE s.key_map = {}",
                    first(history, "segment = s.number AND "),
                    literal(&self.key_map)
                ),
            };
            let found: Option<Option<i64>> = self.connection.query_row(&sql, [], |row| row.get(0)).optional()?;
            largest = largest.max(found.flatten().unwrap_or(0));
        }
        for (there, sql) in [
            (
                own_table_exists(self.connection, "delta_block")?,
                "SELECT max(last) FROM main.delta_block WHERE table_name = ?1",
            ),
            (
                table_exists(self.connection, "sqlite_sequence")?,
                "SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?1",
            ),
        ] {
            if there {
                let found: Option<i64> = self.connection.query_row(sql, [&self.request.table], |row| row.get(0))?;
                largest = largest.max(found.unwrap_or(0));
            }
        }
        Ok(largest)
    }

    /// Returns why a block is not free; None if it is.
    fn taken(&self, block: &KeyBlock) -> rusqlite::Result<Option<String>> {
        let (number, is_key) = self.sql();
        let column = ident(&self.request.column);
        let between = match &self.request.text {
            None => format!("{column} BETWEEN {} AND {}", block.first, block.last),
            Some(text) => format!(
                "{column} BETWEEN {} AND {}",
                literal(&text.format(block.first)),
                literal(&text.format(block.last))
            ),
        };
        for place in &self.places {
            let sql = match place {
                KeySource::Production(table) => {
                    format!("SELECT {number} FROM {table} WHERE {between} AND {is_key} LIMIT 1")
                }
                KeySource::KeyMapTable(history) => format!(
                    "SELECT (SELECT {number} FROM {history} WHERE segment = s.number AND {between} AND {is_key} LIMIT 1) AS k
                     FROM main.delta_segment AS s WHERE s.key_map = {} AND k IS NOT NULL LIMIT 1",
                    literal(&self.key_map)
                ),
            };
            let found: Option<i64> = self.connection.query_row(&sql, [], |row| row.get(0)).optional()?;
            if let Some(key) = found {
                return Ok(Some(format!("key {key} is in production or in the key map already")));
            }
        }
        if !own_table_exists(self.connection, "delta_block")? {
            return Ok(None);
        }
        let sql = "SELECT first, last, run FROM main.delta_block WHERE table_name = ?1 AND first <= ?3 AND last >= ?2 LIMIT 1";
        let block = self.connection.query_row(sql, (&block.table, block.first, block.last), |row| {
            Ok(format!(
                "run {} has the keys {} to {}",
                row.get::<_, String>(2)?,
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?
            ))
        });
        block.optional()
    }
}
