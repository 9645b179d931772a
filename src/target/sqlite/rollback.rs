//! The rollback of a run. Its rows are found by the key map, which has a hash of each row as inserted. If a row was changed since, its hash
//! differs.

use std::collections::BTreeMap;

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use super::key_map::{self, KeyMapTable};
use super::object_registry::{columns, own_table_exists};
use super::{Names, control_schema, mode};
use crate::engine::{ident, literal};
use crate::error::{Error, Result};
use crate::failpoint::stop_at;
use crate::journal::Record;
use crate::target::rollback::MAX_SAMPLES;
use crate::target::{CatalogTable, Destination, RollbackConflict, RollbackPlan, RolledBackTable, RunTable};

/// The column of a key map with the hash of the row.
pub(super) const CONTENT: &str = "_content";

/// The most columns per call of the hash function; old versions of SQLite allow 127 arguments.
const AT_ONCE: usize = 100;

/// Registers the SQL function that hashes a row: `delta_content(a, b, …)`.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("delta_content", -1, flags, |context| {
        let mut bytes = Vec::new();
        (0..context.len()).for_each(|at| add(&mut bytes, context.get_raw(at)));
        Ok(hash(&bytes))
    })
}

/// Adds a value with its type and length, so that different rows have different bytes. Stored hashes depend on this format, so it must
/// never change.
fn add(bytes: &mut Vec<u8>, value: ValueRef<'_>) {
    let mut add = |kind: u8, value: &[u8]| {
        bytes.push(kind);
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
    };
    match value {
        ValueRef::Null => add(0, &[]),
        ValueRef::Integer(number) => add(1, &number.to_le_bytes()),
        ValueRef::Real(number) => add(2, &number.to_bits().to_le_bytes()),
        ValueRef::Text(text) => add(3, text),
        ValueRef::Blob(bytes) => add(4, bytes),
    }
}

fn hash(bytes: &[u8]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    i64::from_le_bytes(first)
}

/// The hash function of SQL, for rows that are read anyway.
#[derive(Clone)]
pub(super) struct RowFingerprint {
    /// The table's columns that are not read.
    others: Vec<String>,
    /// The position of each column of the table in a row of a constant, the read columns, and the others.
    places: Vec<usize>,
    bytes: Vec<u8>,
}

impl RowFingerprint {
    /// Returns the hash function for a table of which these columns are read.
    pub(super) fn of(connection: &Connection, table: &str, read: &[String]) -> rusqlite::Result<Self> {
        let columns = columns(connection, table)?;
        let others: Vec<_> = columns.iter().filter(|name| !read.contains(name)).cloned().collect();
        let place = |name: &String| read.iter().chain(&others).position(|read| read == name);
        let places = columns.iter().filter_map(place).map(|at| at + 1).collect();
        Ok(Self { others, places, bytes: Vec::new() })
    }

    /// Returns the columns that must be read as well.
    pub(super) fn others(&self) -> &[String] {
        &self.others
    }

    /// Hashes a row with the values at these positions.
    pub(super) fn hash<'a, E>(&mut self, value: impl Fn(usize) -> Result<ValueRef<'a>, E>) -> Result<i64, E> {
        let mut before = None;
        for places in self.places.chunks(AT_ONCE) {
            self.bytes.clear();
            if let Some(before) = before {
                add(&mut self.bytes, ValueRef::Integer(before));
            }
            for place in places {
                add(&mut self.bytes, value(*place)?);
            }
            before = Some(hash(&self.bytes));
        }
        Ok(before.unwrap_or_default())
    }
}

/// Returns SQL for the hash of the row `p` of a table: all columns in order, except generated ones.
fn content(connection: &Connection, table: &str) -> rusqlite::Result<String> {
    let columns: Vec<_> = columns(connection, table)?.iter().map(|name| format!("p.{}", ident(name))).collect();
    Ok(columns.chunks(AT_ONCE).fold(String::new(), |before, columns| {
        let before = if before.is_empty() { before } else { before + ", " };
        format!("delta_content({before}{})", columns.join(", "))
    }))
}

/// Stores the hashes of a run's rows in a table, once nothing changes them any more.
pub(super) fn keep_content(
    connection: &Connection,
    of: &CatalogTable,
    key: &[String],
    run: &str,
) -> rusqlite::Result<()> {
    let table = &of.name;
    let content = content(connection, table)?;
    let same: Vec<_> = key.iter().map(|name| format!("p.{0} = h.{0}", ident(name))).collect();
    let sql = format!(
        "UPDATE main.{} AS h SET {CONTENT} = (SELECT {content} FROM main.{} AS p WHERE {}) WHERE h.segment = ?1",
        Names::mappings(&of.key_map),
        ident(table),
        same.join(" AND ")
    );
    connection.execute(&sql, [key_map::number(connection, &of.key_map, run)?]).map(|_| ())
}

/// Returns the legacy keys of a run's rows that no longer exist.
pub(super) fn missing_rows(
    connection: &Connection,
    destination: &Destination,
    run: &str,
) -> rusqlite::Result<Vec<String>> {
    let table = &destination.table.name;
    let Some(history) = KeyMapTable::of(connection, &destination.table.key_map)? else { return Ok(Vec::new()) };
    let same: Vec<_> = destination.key.iter().map(|name| format!("p.{0} = h.{0}", ident(name))).collect();
    let sql = format!(
        "SELECT h.legacy_key FROM {} AS h WHERE {} AND NOT EXISTS (SELECT 1 FROM main.{} AS p WHERE {}) ORDER BY 1",
        history.place(),
        history.of_run("?1"),
        ident(table),
        same.join(" AND ")
    );
    let mut statement = connection.prepare(&sql)?;
    let keys = statement.query_map([run], |row| row.get(0))?;
    keys.collect()
}

/// A table that a run has mappings of.
struct OfRun {
    table: String,
    /// SQL: the table of its mappings, and a test whether a mapping `h` belongs to the run.
    history: String,
    mine: String,
    mappings: u64,
    /// Whether the table exists, with its key.
    is_there: bool,
    /// Whether the operator accepts that it was altered or dropped.
    is_accepted: bool,
    columns: Vec<String>,
    /// SQL: a test whether a row `p` belongs to a mapping `h`.
    same: String,
    /// SQL: the key of a mapping `h`, in parts and as text.
    key: Vec<String>,
    text: String,
}

fn as_text(of: &str, columns: &[String]) -> String {
    let parts: Vec<_> = columns.iter().map(|name| format!("{of}.{}", ident(name))).collect();
    if parts.is_empty() { format!("{of}.rowid") } else { parts.join(" || '|' || ") }
}

/// Returns the tables of a run, by name, from the ledger.
fn of_run(connection: &Connection, run: &str, accepted: &[String]) -> rusqlite::Result<Vec<OfRun>> {
    if !own_table_exists(connection, "delta_segment")? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached(
        "SELECT key_map, table_name, rows FROM main.delta_segment WHERE run = ?1 ORDER BY table_name, key_map",
    )?;
    let segments =
        statement.query_map([run], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs())))?;
    let segments: Vec<(String, String, u64)> = segments.collect::<rusqlite::Result<_>>()?;
    let mut found = Vec::new();
    for (key_map, table, mappings) in segments {
        let Some(known) = KeyMapTable::of(connection, &key_map)? else { continue };
        let key = known.key(connection)?;
        let there = columns(connection, &table)?;
        let same: Vec<_> = key.iter().map(|name| format!("p.{0} = h.{0}", ident(name))).collect();
        found.push(OfRun {
            history: known.place(),
            mine: known.of_run(&literal(run)),
            mappings,
            is_there: key.iter().all(|name| there.iter().any(|column| column.eq_ignore_ascii_case(name))),
            is_accepted: accepted.contains(&table),
            same: same.join(" AND "),
            key: key.iter().map(|name| format!("h.{}", ident(name))).collect(),
            text: as_text("h", &key),
            columns: key,
            table,
        });
    }
    Ok(found)
}

pub(super) fn run_tables(connection: &Connection, names: &Names, run: &str) -> Result<Vec<RunTable>> {
    let read = || -> rusqlite::Result<Vec<RunTable>> {
        of_run(connection, run, &[])?.iter().map(|table| holding(connection, table)).collect()
    };
    read().map_err(|error| names.error("cannot examine the run in", &error))
}

/// Plans a rollback: the run's tables, and conflicts. If triggers would fire, it is tried in a transaction that is rolled back.
pub(super) fn plan_rollback(
    connection: &Connection,
    names: &Names,
    run: &str,
    accepted: &[String],
) -> Result<RollbackPlan> {
    let fault = |error: rusqlite::Error| names.error("cannot examine the run in", &error);
    let tables = of_run(connection, run, accepted).map_err(fault)?;
    let survey = RollbackPlan {
        tables: tables
            .iter()
            .map(|table| holding(connection, table))
            .collect::<rusqlite::Result<_>>()
            .map_err(fault)?,
        conflicts: conflicts(connection, &tables).map_err(fault)?,
        notes: Vec::new(),
    };
    if survey.conflicts.is_empty() && survey.tables.iter().any(|table| !table.triggers.is_empty()) {
        within(connection, names, false, || delete_run(connection, names, run, &tables))?;
    }
    Ok(survey)
}

fn conflicts(connection: &Connection, tables: &[OfRun]) -> rusqlite::Result<Vec<RollbackConflict>> {
    let mut conflicts = Vec::new();
    for table in tables {
        if table.is_there {
            conflicts.extend(changed(connection, table)?);
            conflicts.extend(referenced(connection, table, tables)?);
        } else if !table.is_accepted {
            let name = &table.table;
            conflicts.push(RollbackConflict {
                table: name.clone(),
                what: "rows out of reach".to_owned(),
                count: table.mappings,
                samples: vec![format!(
                    "the table or its key no longer exists: it was dropped, renamed, or altered (if they are gone for good, \
                     `--accept {name}` rolls the rest back)"
                )],
            });
        }
    }
    Ok(conflicts)
}

fn count(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

fn holding(connection: &Connection, table: &OfRun) -> rusqlite::Result<RunTable> {
    let OfRun { table: name, history, mine, key, text, .. } = table;
    let end = |down: &str| {
        let order: Vec<_> = key.iter().map(|part| format!("{part}{down}")).collect();
        let sql = format!(
            "SELECT CAST({text} AS TEXT) FROM {history} AS h WHERE {mine} ORDER BY {} LIMIT 1",
            order.join(", ")
        );
        connection.query_row(&sql, [], |row| row.get::<_, String>(0))
    };
    Ok(RunTable {
        table: name.clone(),
        rows: count(connection, &format!("SELECT count(*) FROM {history} AS h WHERE {mine}"))?,
        keys: (end("")?, end(" DESC")?),
        triggers: triggers(connection, name)?,
    })
}

/// Returns the triggers that a deletion fires, from the SQL before their bodies.
fn triggers(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(String, String)> = found.collect::<rusqlite::Result<_>>()?;
    let on_deletion = |sql: &str| {
        let words: Vec<_> = sql.split_whitespace().map(str::to_ascii_uppercase).collect();
        words.windows(2).any(|pair| pair[0] == "DELETE" && pair[1] == "ON")
    };
    Ok(found.into_iter().filter(|(_, sql)| on_deletion(sql)).map(|(name, _)| name).collect())
}

/// Returns the rows of a run that differ from what it inserted.
fn changed(connection: &Connection, table: &OfRun) -> rusqlite::Result<Vec<RollbackConflict>> {
    let OfRun { table: name, history, mine, same, key, text, .. } = table;
    let key = key.join(", ");
    // The hash of an accepted row is not compared; it only has to exist.
    let (kept, content) = match table.is_accepted {
        true => ("0".to_owned(), "0".to_owned()),
        false => (format!("h.{CONTENT}"), content(connection, name)?),
    };
    let sql = format!(
        "SELECT CASE WHEN now IS NULL THEN 'gone from production' WHEN kept IS NULL
                     THEN 'without what they were, since their mapping was restored: whether they were changed since cannot be known'
                     ELSE 'changed since' END AS what, CAST(samples AS TEXT)
         FROM (SELECT {text} AS samples, {kept} AS kept, (SELECT {content} FROM main.{} AS p WHERE {same}) AS now
               FROM {history} AS h WHERE {mine} ORDER BY {key})
         WHERE now IS NOT kept OR now IS NULL",
        ident(name)
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut found: BTreeMap<String, RollbackConflict> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let what: String = row.get(0)?;
        let conflict = found.entry(what.clone()).or_insert_with(|| RollbackConflict {
            table: name.clone(),
            what,
            count: 0,
            samples: Vec::new(),
        });
        conflict.count += 1;
        if conflict.samples.len() < MAX_SAMPLES {
            conflict.samples.push(row.get(1)?);
        }
    }
    // A hash covers all columns, so an added column changes the hash of every row.
    for conflict in
        found.values_mut().filter(|conflict| conflict.what == "changed since" && conflict.count == table.mappings)
    {
        conflict.what = format!(
            "changed since, which is every row (if only the table was altered, `--accept {name}` rolls them back)"
        );
    }
    Ok(found.into_values().collect())
}

/// A reference from a table to another: its columns in each.
struct Reference {
    from: Vec<String>,
    to: Vec<String>,
}

fn references(connection: &Connection, child: &str, parent: &str) -> rusqlite::Result<Vec<Reference>> {
    let sql = "SELECT id, \"from\", \"to\" FROM pragma_foreign_key_list(?1, 'main') WHERE \"table\" = ?2 COLLATE NOCASE ORDER BY id, seq";
    let mut statement = connection.prepare_cached(sql)?;
    let parts = statement.query_map([child, parent], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut found: BTreeMap<i64, Reference> = BTreeMap::new();
    for part in parts {
        let (id, from, to): (i64, String, Option<String>) = part?;
        let reference = found.entry(id).or_insert_with(|| Reference { from: Vec::new(), to: Vec::new() });
        reference.from.push(from);
        reference.to.extend(to);
    }
    let key = primary_key(connection, parent)?;
    // A reference without columns means the primary key.
    for reference in found.values_mut().filter(|reference| reference.to.is_empty()) {
        reference.to.clone_from(&key);
    }
    Ok(found.into_values().collect())
}

fn primary_key(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_info(?1, 'main') WHERE pk > 0 ORDER BY pk";
    let mut statement = connection.prepare_cached(sql)?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

/// Returns whether an index, such as that of the primary key, begins with one of these columns.
fn is_indexed(connection: &Connection, table: &str, columns: &[String]) -> rusqlite::Result<bool> {
    let sql = "SELECT i.name FROM pragma_index_list(?1, 'main') AS l JOIN pragma_index_info(l.name, 'main') AS i ON i.seqno = 0
               WHERE NOT l.partial AND i.name IS NOT NULL
               UNION SELECT name FROM pragma_table_info(?1, 'main') WHERE pk = 1";
    let mut statement = connection.prepare_cached(sql)?;
    let first = statement.query_map([table], |row| row.get::<_, String>(0))?;
    let first: Vec<String> = first.collect::<rusqlite::Result<_>>()?;
    Ok(columns.iter().any(|column| first.iter().any(|name| name.eq_ignore_ascii_case(column))))
}

/// Returns the first and the last key of a run's rows of a table. None unless other tables refer to its key, and all keys are integers.
fn ends(connection: &Connection, table: &OfRun, to: &[String]) -> rusqlite::Result<Option<(i64, i64)>> {
    let ([key], [to]) = (table.columns.as_slice(), to) else { return Ok(None) };
    if !key.eq_ignore_ascii_case(to) {
        return Ok(None);
    }
    let (OfRun { history, mine, .. }, key) = (table, ident(key));
    // Text and blobs sort after all numbers. NULL and fractions cannot occur among a run's integer keys.
    let sql = format!("SELECT min(h.{key}), max(h.{key}) FROM {history} AS h WHERE {mine}");
    let ends = connection.query_row(&sql, [], |row| Ok((row.get::<_, Value>(0)?, row.get::<_, Value>(1)?)))?;
    Ok(match ends {
        (Value::Integer(first), Value::Integer(last)) => Some((first, last)),
        _ => None,
    })
}

/// Returns the rows that refer to a run's rows of a table and are not the run's, whatever the action of their foreign key.
fn referenced(connection: &Connection, table: &OfRun, all: &[OfRun]) -> rusqlite::Result<Vec<RollbackConflict>> {
    let OfRun { table: name, history, mine, same, key, text, .. } = table;
    let key = key.join(", ");
    let mut statement =
        connection.prepare_cached("SELECT name FROM main.sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let tables: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut conflicts = Vec::new();
    for child in &tables {
        for Reference { from, to } in references(connection, child, name)? {
            // The parent's collation applies: that of the left operand.
            let refers: Vec<_> =
                to.iter().zip(&from).map(|(to, from)| format!("p.{} = c.{}", ident(to), ident(from))).collect();
            let own = all.iter().find(|own| own.is_there && own.table == *child).map_or(String::new(), |own| {
                let same: Vec<_> = own.columns.iter().map(|name| format!("c.{0} = h.{0}", ident(name))).collect();
                let same = same.join(" AND ");
                format!("AND NOT EXISTS (SELECT 1 FROM {} AS h WHERE {} AND {same})", own.history, own.mine)
            });
            let (refers, p, c) = (refers.join(" AND "), ident(name), ident(child));
            // Starts from the run's rows if an index finds the rows that refer to them. Otherwise the other table is scanned once, and not
            // once per row.
            let joined = if is_indexed(connection, child, &from)? {
                format!("{history} AS h CROSS JOIN main.{p} AS p ON {same} CROSS JOIN main.{c} AS c ON {refers}")
            } else if let Some((first, last)) = ends(connection, table, &to)? {
                // Numbers have no collation, so this comparison alone excludes most rows.
                let (to, from) = (ident(&to[0]), ident(&from[0]));
                format!(
                    "main.{c} AS c CROSS JOIN {history} AS h ON h.{to} = c.{from} AND c.{from} BETWEEN CAST({first} AS INTEGER) AND CAST({last} AS INTEGER)"
                )
            } else {
                format!("main.{c} AS c CROSS JOIN main.{p} AS p ON {refers} CROSS JOIN {history} AS h ON {same}")
            };
            let rest = format!("FROM {joined} WHERE {mine} {own}");
            let count: i64 = connection.query_row(&format!("SELECT count(*) {rest}"), [], |row| row.get(0))?;
            if count == 0 {
                continue;
            }
            let by = as_text("c", &primary_key(connection, child)?);
            let mut samples = connection
                .prepare(&format!("SELECT {text} || ' by ' || {by} {rest} ORDER BY {key} LIMIT {MAX_SAMPLES}"))?;
            let samples = samples.query_map([], |row| row.get(0))?;
            conflicts.push(RollbackConflict {
                table: name.clone(),
                what: format!("referenced by rows of `{child}` that are not the run's ({})", from.join(", ")),
                count: count.unsigned_abs(),
                samples: samples.collect::<rusqlite::Result<_>>()?,
            });
        }
    }
    Ok(conflicts)
}

pub(super) fn roll_back_run(
    connection: &Connection,
    names: &Names,
    record: &Record,
    end_mode: bool,
    accepted: &[String],
) -> Result<Vec<RolledBackTable>> {
    let fault = |error: rusqlite::Error| names.error("cannot roll back the run in", &error);
    let run = &record.run;
    within(connection, names, true, || {
        refuse_other_state(connection, record).map_err(fault)??;
        let tables = of_run(connection, run, accepted).map_err(fault)?;
        let conflicts = conflicts(connection, &tables).map_err(fault)?;
        if !conflicts.is_empty() {
            return Err(RollbackPlan { conflicts, ..RollbackPlan::default() }.refusal(run));
        }
        let rolled_back = delete_run(connection, names, run, &tables)?;
        let last = || -> rusqlite::Result<()> {
            connection.execute("DELETE FROM main.delta_segment WHERE run = ?1", [run])?;
            control_schema::append_event(connection, record)?;
            if end_mode { mode::end_with(connection, run) } else { Ok(()) }
        };
        last().map_err(fault)?;
        stop_at("rolling back");
        Ok(rolled_back)
    })
}

/// Runs `done` in a transaction with the write lock. Foreign keys are off, so that none deletes or changes a row.
fn within<T>(connection: &Connection, names: &Names, commits: bool, done: impl FnOnce() -> Result<T>) -> Result<T> {
    let fault = |error: rusqlite::Error| names.error("cannot roll back the run in", &error);
    connection.pragma_update(None, "foreign_keys", false).map_err(fault)?;
    let result = connection.execute_batch("BEGIN IMMEDIATE").map_err(fault).and_then(|()| {
        let result = done();
        let end = if commits && result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        // A trigger may have ended the transaction.
        let ended = if connection.is_autocommit() { Ok(()) } else { connection.execute_batch(end).map_err(fault) };
        let result = result?;
        ended.map(|()| result)
    });
    if result.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").map_err(fault)?;
    }
    connection.pragma_update(None, "foreign_keys", true).map_err(fault)?;
    result
}

/// Deletes a run's rows and its mappings. Proves for each table that as many rows were deleted as the run has mappings, and no other.
fn delete_run(connection: &Connection, names: &Names, run: &str, tables: &[OfRun]) -> Result<Vec<RolledBackTable>> {
    let fault = |error: rusqlite::Error| names.error("cannot roll back the run in", &error);
    let there = || tables.iter().filter(|table| table.is_there);
    // Only a trigger can do more than the statement itself.
    let fired = there().map(|table| triggers(connection, &table.table)).collect::<rusqlite::Result<Vec<_>>>();
    let is_watched = fired.map_err(fault)?.iter().any(|triggers| !triggers.is_empty());
    let rows = |table: &OfRun| match is_watched {
        true => count(connection, &format!("SELECT count(*) FROM main.{}", ident(&table.table))).map_err(fault),
        false => Ok(0),
    };
    let before = there().map(rows).collect::<Result<Vec<_>>>()?;
    let mut deleted = Vec::new();
    for OfRun { table, history, mine, columns, .. } in there() {
        let key = columns.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "DELETE FROM main.{} WHERE ({key}) IN (SELECT {key} FROM {history} AS h WHERE {mine})",
            ident(table)
        );
        let error = |error| names.error(&format!("cannot delete the rows of run {run} from `{table}` in"), &error);
        deleted.push(connection.execute(&sql, []).map_err(error)? as u64);
    }
    let mut rolled_back = Vec::new();
    for table in tables {
        let sql = format!("DELETE FROM {} AS h WHERE {}", table.history, table.mine);
        let mappings = connection.execute(&sql, []).map_err(fault)? as u64;
        rolled_back.push(RolledBackTable { table: table.table.clone(), deleted: 0, mappings });
    }
    let deletions = there().zip(before).zip(deleted);
    for ((table, before), deleted) in deletions {
        let Some(rolled_back) = rolled_back.iter_mut().find(|rolled_back| rolled_back.table == table.table) else {
            continue;
        };
        rolled_back.deleted = deleted;
        if deleted != rolled_back.mappings || is_watched && rows(table)? + deleted != before {
            return Err(Error::refused(format!(
                "rolling back {} rows of `{}` would affect other rows, or leave rows behind ({})",
                rolled_back.mappings,
                table.table,
                rolled_back.mappings.saturating_sub(deleted)
            ))
            .hint("nothing was changed; check for a trigger of production that does this"));
        }
    }
    Ok(rolled_back)
}

/// Refuses a run that is not in production, or whose journal has new entries.
fn refuse_other_state(connection: &Connection, record: &Record) -> rusqlite::Result<Result<()>> {
    let sql = "SELECT kind, number FROM main.delta_event WHERE run = ?1 ORDER BY number DESC LIMIT 1";
    let last: Option<(String, u32)> =
        connection.query_row(sql, [&record.run], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let is_there = last.is_some_and(|(kind, number)| {
        ["committed", "verified"].contains(&kind.as_str()) && number + 1 == record.number
    });
    let run = &record.run;
    Ok(if is_there && control_schema::committed(connection, run)? {
        Ok(())
    } else {
        Err(Error::refused(format!("run {run} is not in production, or its journal has changed"))
            .hint("`pipeline runs FILE` lists the runs and how they ended; nothing was changed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_helps_by_its_first_column() {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c, d, e UNIQUE);
            CREATE INDEX ab ON t (a, b); CREATE INDEX c ON t (c) WHERE d > 1; CREATE INDEX x ON t (abs(d));
            CREATE TABLE w (k, l, PRIMARY KEY (k, l)) WITHOUT ROWID;";
        connection.execute_batch(sql).unwrap();
        for (table, column, expected) in [
            ("t", "id", true),
            ("t", "A", true),
            ("t", "b", false),
            ("t", "c", false),
            ("t", "d", false),
            ("t", "e", true),
            ("w", "k", true),
            ("w", "l", false),
        ] {
            let found = is_indexed(&connection, table, &[column.to_owned()]).unwrap();
            assert_eq!(found, expected, "{table}.{column}");
        }
        assert!(is_indexed(&connection, "t", &["b".to_owned(), "a".to_owned()]).unwrap());
    }
}
