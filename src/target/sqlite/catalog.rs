//! Reads production's catalog from SQLite: its pragmas, and the SQL of each table for CHECK constraints, which no pragma returns.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{ColumnOption, Expr, Statement, TableConstraint};
use datafusion::sql::sqlparser::dialect::SQLiteDialect;
use datafusion::sql::sqlparser::parser::Parser;
use rusqlite::{Connection, OptionalExtension};

use super::check::{StoredCheck, kept_as_text, translate};
use super::declaration::{self, DeclaredCheck};
use super::evaluate;
use super::object_registry::OwnedObjects;
use super::values::{self, Affinity};
use crate::engine::ident;
use crate::target::database_check::columns_in;
use crate::target::{
    Catalog, CatalogColumn, CatalogTable, CheckConstraint, ComparedValue, DatabaseCheck, DatabaseCheckKind, ForeignKey,
    LogicalType, UniqueConstraint,
};

/// An error while reading the catalog, with the table that it is about.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) table: Option<String>,
    pub(super) error: rusqlite::Error,
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Self {
        Self { table: None, error }
    }
}

/// Reads all tables except this program's own, `hidden`.
pub(super) fn read(connection: &Connection, hidden: Option<&OwnedObjects>) -> Result<Catalog, Unreadable> {
    let names = Names::read(connection)?;
    let mut statement = connection.prepare(
        "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let tables: Vec<(String, String)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut catalog = Catalog::default();
    for (name, sql) in tables {
        if !hidden.is_some_and(|own| own.has(&name)) {
            let read = table(connection, &names, name.clone(), &sql);
            catalog.tables.push(Arc::new(read.map_err(|error| Unreadable { table: Some(name), error })?));
        }
    }
    Ok(catalog)
}

/// Reads one table, also of this program. Unlike [`read`], its cost does not grow with the number of tables.
pub(super) fn read_table(connection: &Connection, name: &str) -> Result<Option<CatalogTable>, Unreadable> {
    let sql = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1";
    let Some(sql) = connection.query_row(sql, [name], |row| row.get::<_, String>(0)).optional()? else {
        return Ok(None);
    };
    let read = Names::read(connection).and_then(|names| table(connection, &names, name.to_owned(), &sql));
    read.map(Some).map_err(|error| Unreadable { table: Some(name.to_owned()), error })
}

/// The names of tables and triggers. SQLite has no index over them, so they are read once.
struct Names {
    /// The declared spelling of each table, by its name in lower case.
    tables: BTreeMap<String, String>,
    /// The triggers of each table with their SQL, by the table's name in lower case.
    triggers: BTreeMap<String, Vec<(String, String)>>,
}

impl Names {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut names = Self { tables: BTreeMap::new(), triggers: BTreeMap::new() };
        let mut statement = connection.prepare(
            "SELECT type = 'trigger', name, tbl_name, sql FROM main.sqlite_schema WHERE type IN ('table', 'trigger') ORDER BY name",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, table): (String, String) = (row.get(1)?, row.get(2)?);
            if row.get(0)? {
                names.triggers.entry(table.to_ascii_lowercase()).or_default().push((name, row.get(3)?));
            } else {
                names.tables.insert(name.to_ascii_lowercase(), name);
            }
        }
        Ok(names)
    }
}

fn table(connection: &Connection, names: &Names, name: String, sql: &str) -> rusqlite::Result<CatalogTable> {
    let mut table = CatalogTable { name, ..CatalogTable::default() };
    let stored = columns(connection, &mut table)?;
    uniques(connection, &mut table)?;
    foreign_keys(connection, names, &mut table)?;
    for (name, sql) in names.triggers.get(&table.name.to_ascii_lowercase()).into_iter().flatten() {
        if declaration::updates(sql, &table.name) {
            table.deciding_triggers.push(name.clone());
        }
        table.triggers.push(name.clone());
    }
    checks(sql, &mut table, &stored);
    let of_generated: Vec<_> = evaluate::of_generated(&table).collect();
    table.database_checks.extend(of_generated);
    read_columns(&mut table, sql);
    let kept = table.columns.iter().zip(&stored).filter_map(|(column, stored)| kept_as_text(column, stored.affinity));
    let kept: Vec<_> = kept.collect();
    table.checks.extend(kept);
    Ok(table)
}

fn columns(connection: &Connection, table: &mut CatalogTable) -> rusqlite::Result<Vec<StoredCheck>> {
    let listed: Option<(bool, bool)> = connection
        .query_row("SELECT strict, wr FROM pragma_table_list(?1) WHERE schema = 'main'", [&table.name], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let (strict, without_rowid) = listed.unwrap_or_default();
    let mut stored = Vec::new();
    let mut statement = connection.prepare(
        "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
    )?;
    let mut rows = statement.query([&table.name])?;
    let mut primary_key: Vec<(i64, String)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, declared): (String, String) = (row.get(0)?, row.get(1)?);
        let (place, hidden): (i64, i64) = (row.get(4)?, row.get(5)?);
        if place > 0 {
            primary_key.push((place, name.clone()));
        }
        let (_, collation, ..) = connection.column_metadata(Some("main"), table.name.as_str(), name.as_str())?;
        let binary = collation.is_none_or(|collation| collation.to_bytes().eq_ignore_ascii_case(b"BINARY"));
        stored.push(StoredCheck { affinity: Affinity::of(&declared, strict), binary });
        let data_type = values::data_type(&declared);
        table.columns.push(CatalogColumn {
            significant_digits: matches!(data_type, DataType::Decimal128(..)).then_some(values::REAL_DIGITS),
            data_type,
            max_length: values::max_length(&declared),
            not_null: row.get::<_, bool>(2)? || place > 0,
            has_default: row.get(3)?,
            generated: hidden != 0,
            form: LogicalType::Plain,
            name,
            declared,
        });
    }
    primary_key.sort();
    table.primary_key = primary_key.into_iter().map(|(_, name)| name).collect();
    if !without_rowid {
        table.serials = rowid(connection, table)?.into_iter().collect();
        table.numbered.clone_from(&table.serials);
    }
    Ok(stored)
}

/// Returns the primary key that is the table's row number. It has no index of its own.
fn rowid(connection: &Connection, table: &CatalogTable) -> rusqlite::Result<Option<String>> {
    let [key] = table.primary_key.as_slice() else { return Ok(None) };
    let is_integer = table.column(key).is_some_and(|column| column.declared.eq_ignore_ascii_case("INTEGER"));
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')";
    let is_indexed: bool = connection.query_row(sql, [&table.name], |row| row.get(0))?;
    Ok((is_integer && !is_indexed).then(|| key.clone()))
}

fn uniques(connection: &Connection, table: &mut CatalogTable) -> rusqlite::Result<()> {
    let mut indexes = connection
        .prepare("SELECT name, origin, partial FROM pragma_index_list(?1) WHERE \"unique\" ORDER BY seq DESC")?;
    let indexes: Vec<(String, String, bool)> = indexes
        .query_map([&table.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (name, origin, partial) in indexes {
        let mut columns =
            connection.prepare("SELECT name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
        let columns: Vec<(Option<String>, String)> =
            columns.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let known = columns.iter().all(|(column, collation)| {
            column.is_some() && (nocase(collation) || collation.eq_ignore_ascii_case("BINARY"))
        });
        if partial || !known {
            match database_index(connection, &table.name, &name, &columns)? {
                Some(check) => table.database_checks.push(check),
                None => {
                    table.unsupported_constraints.push(format!("unique index `{name}`, whose text could not be read"));
                }
            }
            if origin != "pk" {
                continue;
            }
        }
        let ignore_case =
            columns.iter().filter(|(_, collation)| nocase(collation)).filter_map(|(column, _)| column.clone());
        let ignore_case = ignore_case.collect();
        if origin == "pk" {
            table.primary_key_ignore_case = ignore_case;
            continue;
        }
        table.uniques.push(UniqueConstraint {
            name: if origin == "u" { String::new() } else { name },
            columns: columns.into_iter().filter_map(|(column, _)| column).collect(),
            ignore_case,
            condition: None,
            own: None,
        });
    }
    Ok(())
}

/// Returns whether a collation ignores the case of ASCII letters.
fn nocase(collation: &str) -> bool {
    collation.eq_ignore_ascii_case("NOCASE")
}

fn foreign_keys(connection: &Connection, names: &Names, table: &mut CatalogTable) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare("SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1) ORDER BY id DESC, seq")?;
    let rows: Vec<(i64, String, String, Option<String>)> = statement
        .query_map([&table.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut last = None;
    for (id, to, from, to_column) in rows {
        if last != Some(id) {
            last = Some(id);
            // Within a transaction, `PRAGMA defer_foreign_keys` defers all.
            table.foreign_keys.push(ForeignKey { to: to.clone(), deferrable: true, ..ForeignKey::default() });
        }
        if let Some(key) = table.foreign_keys.last_mut() {
            key.columns.push(from);
            key.to_columns.extend(to_column);
        }
    }
    // SQLite's names are case-insensitive, so references are rewritten to the declared spelling.
    for key in &mut table.foreign_keys {
        key.to = names.tables.get(&key.to.to_ascii_lowercase()).unwrap_or(&key.to).clone();
        // A reference without columns means the other table's primary key.
        if key.to_columns.is_empty() {
            let mut primary = connection.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE pk > 0 ORDER BY pk")?;
            key.to_columns = primary.query_map([&key.to], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        }
        let sql = "SELECT name FROM pragma_table_xinfo(?1) WHERE name = ?2 COLLATE NOCASE";
        for column in &mut key.to_columns {
            let spelt: Option<String> =
                connection.query_row(sql, [key.to.as_str(), column.as_str()], |row| row.get(0)).optional()?;
            *column = spelt.unwrap_or_else(|| column.clone());
        }
    }
    Ok(())
}

/// Returns the check of a unique index that the engine cannot evaluate; None if its text is not understood.
fn database_index(
    connection: &Connection,
    table: &str,
    name: &str,
    columns: &[(Option<String>, String)],
) -> rusqlite::Result<Option<DatabaseCheck>> {
    let sql: Option<Option<String>> = connection
        .query_row("SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND name = ?1", [name], |row| row.get(0))
        .optional()?;
    let declared = sql.flatten();
    let index = declared.as_ref().and_then(|sql| declaration::index(sql, table));
    let (values, condition) = match index {
        Some(index) if index.values.len() == columns.len() => (index.values, index.condition),
        Some(_) => return Ok(None),
        // An index without SQL is that of a constraint, and so over columns.
        None => (columns.iter().filter_map(|(column, _)| column.as_ref().map(|name| ident(name))).collect(), None),
    };
    let values = values.into_iter().zip(columns).map(|(sql, (column, collation))| ComparedValue {
        sql: format!("({sql}) COLLATE {}", ident(collation)),
        column: column.clone(),
        operator: "=".to_owned(),
    });
    let kind = DatabaseCheckKind::Unique { values: values.collect(), condition, nulls_equal: false };
    let declared = declared.unwrap_or_else(|| format!("UNIQUE of `{name}`"));
    let declared = declared.split_whitespace().collect::<Vec<_>>().join(" ");
    let name = format!("unique({name})");
    Ok(Some(DatabaseCheck { name, columns: Vec::new(), kind, declared, part: None, beyond_ascii: false }))
}

fn checks(sql: &str, table: &mut CatalogTable, stored: &[StoredCheck]) {
    let declared = declaration::checks(sql, &table.name);
    let parsed = parsed_checks(sql).filter(|parsed| parsed.len() == declared.len());
    for (at, DeclaredCheck { name, sql: own }) in declared.into_iter().enumerate() {
        let (parsed_name, condition) = match &parsed {
            Some(parsed) => (parsed[at].0.clone(), Some(&parsed[at].1)),
            None => (None, None),
        };
        let text = condition.map_or_else(|| own.clone(), ToString::to_string);
        let name = name.or(parsed_name).unwrap_or(text);
        match condition.and_then(|condition| translate(condition, table, stored)) {
            Some(sql) => {
                let own = Some(Box::new(database_check(&name, own)));
                table.checks.push(CheckConstraint { name, sql, reason: None, own });
            }
            None => table.database_checks.push(database_check(&name, own)),
        }
    }
}

/// Returns a CHECK for SQLite to evaluator.
fn database_check(name: &str, own: String) -> DatabaseCheck {
    let (name, declared) = (format!("check({name})"), format!("CHECK ({own})"));
    let kind = DatabaseCheckKind::Condition(own);
    DatabaseCheck { name, columns: Vec::new(), kind, declared, part: None, beyond_ascii: false }
}

/// Returns the CHECKs of a table, with their names; None if its text is not understood.
fn parsed_checks(sql: &str) -> Option<Vec<(Option<String>, Expr)>> {
    let Statement::CreateTable(create) = Parser::parse_sql(&SQLiteDialect {}, sql).ok()?.pop()? else { return None };
    let mut checks = Vec::new();
    for option in create.columns.into_iter().flat_map(|column| column.options) {
        if let ColumnOption::Check(check) = option.option {
            checks.push((option.name.or(check.name).map(|name| name.value), *check.expr));
        }
    }
    for constraint in create.constraints {
        if let TableConstraint::Check(check) = constraint {
            checks.push((check.name.map(|name| name.value), *check.expr));
        }
    }
    Some(checks)
}

/// Completes the checks that SQLite judges by the columns that they read, also through generated columns.
fn read_columns(table: &mut CatalogTable, sql: &str) {
    let expressions = generated(sql, table);
    let columns: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let named = |sql: &str| columns_in(sql, columns.iter().copied(), true);
    let own = table.checks.iter_mut().filter_map(|check| check.own.as_deref_mut());
    for check in table.database_checks.iter_mut().chain(own) {
        let mut read = check.columns.clone();
        match &check.kind {
            DatabaseCheckKind::Condition(sql) => read.extend(named(sql)),
            DatabaseCheckKind::Unique { values, condition, .. } => {
                read.extend(values.iter().map(|value| &value.sql).chain(condition).flat_map(|sql| named(sql)));
            }
            _ => {}
        }
        for (name, expression) in &expressions {
            if read.contains(name) {
                read.extend(named(expression));
            }
        }
        read.sort_unstable();
        read.dedup();
        check.columns = read;
    }
}

/// Returns the generated columns with their expressions.
fn generated(sql: &str, table: &CatalogTable) -> Vec<(String, String)> {
    let columns: Vec<_> = table.columns.iter().filter(|column| column.generated).collect();
    let expressions = declaration::generated(sql, &table.name);
    if columns.len() != expressions.len() {
        return Vec::new();
    }
    columns.iter().map(|column| column.name.clone()).zip(expressions).collect()
}

/// A column of a table of production, as a temporary table repeats it.
pub(super) struct EvaluatedColumn {
    pub(super) name: String,
    pub(super) declared: String,
    pub(super) collation: String,
    pub(super) default: Option<String>,
    pub(super) generated: Option<String>,
}

/// Returns the columns of a table.
pub(super) fn evaluated_columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<EvaluatedColumn>> {
    let sql: String = connection.query_row(
        "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
        [table],
        |row| row.get(0),
    )?;
    let strict: bool =
        connection
            .query_row("SELECT strict FROM pragma_table_list(?1) WHERE schema = 'main'", [table], |row| row.get(0))?;
    let mut expressions = declaration::generated(&sql, table).into_iter();
    let mut statement =
        connection.prepare("SELECT name, type, dflt_value, hidden FROM pragma_table_xinfo(?1) ORDER BY cid")?;
    let mut rows = statement.query([table])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, declared): (String, String) = (row.get(0)?, row.get(1)?);
        let (_, collation, ..) = connection.column_metadata(Some("main"), table, name.as_str())?;
        let collation = collation.map_or("BINARY".to_owned(), |collation| collation.to_string_lossy().into_owned());
        // ANY has no conversion in a STRICT table, and one to numbers in others.
        let declared = if strict && declared.eq_ignore_ascii_case("ANY") { String::new() } else { declared };
        let generated = if row.get::<_, i64>(3)? > 1 { expressions.next() } else { None };
        columns.push(EvaluatedColumn { name, declared, collation, default: row.get(2)?, generated });
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalog_has_everything_that_a_table_declares() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE person (person_id INTEGER PRIMARY KEY, email TEXT COLLATE NOCASE UNIQUE);
                 CREATE TABLE account (
                     account_id INTEGER PRIMARY KEY,
                     account_no VARCHAR(12) NOT NULL,
                     person_id INTEGER NOT NULL REFERENCES person,
                     parent INTEGER REFERENCES account (account_id),
                     status TEXT DEFAULT 'A' CONSTRAINT known CHECK (status IN ('A', 'C')),
                     opened DATE, closed DATE,
                     days INTEGER AS (1) VIRTUAL,
                     CHECK (closed >= opened),
                     CONSTRAINT account_no UNIQUE (account_no, person_id));
                 CREATE UNIQUE INDEX one_open ON account (person_id) WHERE closed IS NULL;
                 CREATE TRIGGER noted AFTER INSERT ON account BEGIN SELECT 1; END;
                 CREATE TABLE staging_account (a); CREATE TABLE delta_person (a);
                 CREATE TABLE delta_object (name TEXT PRIMARY KEY COLLATE NOCASE);
                 INSERT INTO delta_object VALUES ('Staging_account');",
            )
            .unwrap();
        let own = OwnedObjects::read(&connection).unwrap();
        let catalog = read(&connection, Some(&own)).unwrap();
        assert_eq!(catalog.names(), ["account", "delta_person", "person"]);
        assert_eq!(catalog.table("person").unwrap().uniques[0].ignore_case, ["email"]);
        let account = catalog.table("account").unwrap();
        assert_eq!(account.primary_key, ["account_id"]);
        assert_eq!(account.uniques.len(), 1);
        assert_eq!(account.uniques[0].columns, ["account_no", "person_id"]);
        assert!(account.unsupported_constraints.is_empty());
        let judged: Vec<_> =
            account.database_checks.iter().map(|check| (check.name.as_str(), check.columns.join(","))).collect();
        assert_eq!(judged, [("unique(one_open)", "closed,person_id".to_owned())]);
        assert_eq!(account.triggers, ["noted"]);
        let to: Vec<_> = account.foreign_keys.iter().map(|key| (key.to.as_str(), key.to_columns.join(","))).collect();
        assert_eq!(to, [("person", "person_id".to_owned()), ("account", "account_id".to_owned())]);
        let checks: Vec<_> = account.checks.iter().map(|check| (check.name.as_str(), check.sql.as_str())).collect();
        assert_eq!(checks, [("known", "\"status\" IN ('A', 'C')"), ("closed >= opened", "\"closed\" >= \"opened\"")]);
        let number = account.column("account_no").unwrap();
        assert!(number.not_null && number.max_length == Some(12));
        assert!(account.column("days").unwrap().generated && account.column("status").unwrap().has_default);
    }

    #[test]
    fn a_reference_has_the_names_as_the_other_table_spells_them() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE person (Person_Id INTEGER PRIMARY KEY, no TEXT UNIQUE);
                 CREATE TABLE a (p REFERENCES Person, q REFERENCES PERSON (NO), r REFERENCES gone (X));
                 CREATE TRIGGER noted AFTER INSERT ON PERSON BEGIN SELECT 1; END;",
            )
            .unwrap();
        let catalog = read(&connection, None).unwrap();
        let keys: Vec<_> = catalog
            .table("a")
            .unwrap()
            .foreign_keys
            .iter()
            .map(|key| (key.to.as_str(), key.to_columns[0].as_str()))
            .collect();
        assert_eq!(keys, [("person", "Person_Id"), ("person", "no"), ("gone", "X")]);
        assert_eq!(catalog.table("person").unwrap().triggers, ["noted"]);
    }
}
