//! Asks SQLite which rows of the delta violate constraints that only it can evaluator. The rows are in a temporary table, whose columns have
//! production's types, collations, defaults, and expressions.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use futures::executor::block_on_stream;
use rusqlite::Connection;
use std::sync::Arc;

use super::batches::{Inserting, select};
use super::catalog::{EvaluatedColumn, evaluated_columns};
use super::storage_values::StorageBatch;
use super::{Names, columns_of_p};
use crate::engine::{RowNumber, ident, row_field};
use crate::error::{Error, Result};
use crate::target::sql::database_checks::{self as sql, AskedRows};
use crate::target::{
    CatalogTable, DatabaseCheck, DatabaseCheckKind, DatabaseCheckRequest, DatabaseCheckResult, DatabaseCheckRows,
    new_key_column,
};

const ASKED: &str = "temp.asked";

pub(super) fn evaluate_checks(
    connection: &Connection,
    names: &Names,
    table: &CatalogTable,
    question: &DatabaseCheckRequest<'_>,
    rows: &dyn DatabaseCheckRows,
) -> Result<Vec<DatabaseCheckResult>> {
    let evaluator = CheckEvaluator { connection, names, table, question };
    evaluator.make(rows)?;
    let answers = question.checks.iter().map(|check| evaluator.answer(check)).collect();
    connection.execute_batch("DROP TABLE temp.asked").map_err(evaluator.fault())?;
    answers
}

struct CheckEvaluator<'a> {
    connection: &'a Connection,
    names: &'a Names,
    table: &'a CatalogTable,
    question: &'a DatabaseCheckRequest<'a>,
}

impl CheckEvaluator<'_> {
    fn fault(&self) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let (names, doing) = (self.names.clone(), format!("cannot check the rows of `{}` in", self.table.name));
        move |error| names.error(&doing, &error)
    }

    /// Copies the rows into the temporary table.
    fn make(&self, rows: &dyn DatabaseCheckRows) -> Result<()> {
        let all = evaluated_columns(self.connection, &self.table.name).map_err(self.fault())?;
        let is_read = |name: &String| self.question.checks.iter().any(|check| check.columns.contains(name));
        let mut declared = vec!["_row INTEGER PRIMARY KEY".to_owned()];
        let mut filled = vec!["_row".to_owned()];
        for column in all.iter().filter(|column| is_read(&column.name)) {
            let name = ident(&column.name);
            let EvaluatedColumn { declared: type_name, collation, default, generated, .. } = column;
            let is_filled = self.question.filled.contains(&column.name);
            let made_of = match (generated, default) {
                (Some(generated), _) => format!(" AS ({generated})"),
                (None, Some(default)) if !is_filled => format!(" DEFAULT ({default})"),
                _ => String::new(),
            };
            declared.push(format!("{name} {type_name} COLLATE {}{made_of}", ident(collation)));
            if is_filled {
                filled.push(name);
            }
            if self.question.references.contains(&column.name) {
                let new = ident(&new_key_column(&column.name));
                declared.push(format!("{new} INTEGER"));
                filled.push(new);
            }
        }
        let sql = format!("DROP TABLE IF EXISTS {ASKED}; CREATE TEMP TABLE asked ({})", declared.join(", "));
        self.connection.execute_batch(&sql).map_err(self.fault())?;
        self.connection.execute_batch("SAVEPOINT asking").map_err(self.fault())?;
        let inserting = Inserting::new(&format!("INTO {ASKED} ({})", filled.join(", ")), filled.len(), "");
        let fault = self.fault();
        let copied = block_on_stream(rows.rows()?).try_for_each(|batch| {
            let stored = StorageBatch::of_batch(&batch?)?;
            inserting.insert(self.connection, &stored, |error| {
                self.names.error(&format!("cannot check the rows of `{}` in", self.table.name), error)
            })
        });
        self.connection.execute_batch("RELEASE asking").map_err(fault)?;
        copied
    }

    fn answer(&self, check: &DatabaseCheck) -> Result<DatabaseCheckResult> {
        let asked = AskedRows { relation: ASKED, references: self.question.references };
        let mut answer = DatabaseCheckResult::default();
        if let Some(violated) = sql::violated(check) {
            answer.rows = match self.pairs(&format!("SELECT s._row, 0 FROM {ASKED} AS s WHERE {violated}")) {
                Ok(rows) => rows.into_iter().map(|(row, _)| (row, None)).collect(),
                Err(_) => self.one_by_one(&violated)?,
            };
            return Ok(answer);
        }
        if let Some(groups) = sql::groups(&asked, check) {
            answer.groups = match self.pairs(&groups) {
                Ok(groups) => groups,
                Err(_) => {
                    // A value of some row cannot be computed. The others can be compared without that row.
                    answer.rows = self.one_by_one(&sql::computed(check).unwrap_or_default())?;
                    for (row, _) in &answer.rows {
                        let deleted = self
                            .connection
                            .execute(&format!("DELETE FROM {ASKED} WHERE _row = ?1"), [row.get().cast_signed()]);
                        deleted.map_err(self.fault())?;
                    }
                    self.pairs(&groups).map_err(self.fault())?
                }
            };
        }
        if let DatabaseCheckKind::Reference { to, .. } = &check.kind
            && let Some(orphans) = sql::orphans(&asked, check, &format!("main.{}", ident(to)))
        {
            let rows = self.pairs(&orphans).map_err(self.fault())?;
            answer.rows.extend(rows.into_iter().map(|(row, _)| (row, None)));
        }
        answer.existing = self.existing(&asked, check)?;
        Ok(answer)
    }

    fn existing(&self, asked: &AskedRows<'_>, check: &DatabaseCheck) -> Result<Vec<RecordBatch>> {
        let live = format!("main.{}", ident(&self.table.name));
        let give = columns_of_p(self.question.give);
        let Some(sql) = sql::existing(asked, check, &live, &give) else { return Ok(Vec::new()) };
        let all = self.table.schema();
        let mut fields = vec![row_field("_id")];
        for name in self.question.give {
            fields.push(all.field_with_name(name)?.clone());
        }
        select(self.connection, &sql, &Arc::new(Schema::new(fields)), self.names)
    }

    /// Tries each row, and returns those that violate a condition or make it fail.
    fn one_by_one(&self, violated: &str) -> Result<Vec<(RowNumber, Option<String>)>> {
        let rows = self.pairs(&format!("SELECT s._row, 0 FROM {ASKED} AS s")).map_err(self.fault())?;
        let sql = format!("SELECT {violated} FROM {ASKED} AS s WHERE s._row = ?1");
        let mut statement = self.connection.prepare(&sql).map_err(self.fault())?;
        let mut found = Vec::new();
        for (row, _) in rows {
            match statement.query_row([row.get().cast_signed()], |answer| answer.get::<_, Option<bool>>(0)) {
                Ok(Some(true)) => found.push((row, None)),
                Ok(_) => {}
                Err(rusqlite::Error::SqliteFailure(_, Some(reason))) => found.push((row, Some(reason))),
                Err(error) => return Err(self.fault()(error)),
            }
        }
        Ok(found)
    }

    fn pairs(&self, sql: &str) -> rusqlite::Result<Vec<(RowNumber, RowNumber)>> {
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((super::row_number(row, 0)?, super::row_number(row, 1)?)))?;
        rows.collect()
    }
}

/// Returns the checks that generated columns are not NULL.
pub(super) fn of_generated(table: &CatalogTable) -> impl Iterator<Item = DatabaseCheck> + '_ {
    table.columns.iter().filter(|column| column.generated && column.not_null).map(|column| DatabaseCheck {
        name: format!("not_null({})", column.name),
        columns: vec![column.name.clone()],
        kind: DatabaseCheckKind::Condition(format!("{} IS NOT NULL", ident(&column.name))),
        declared: "NOT NULL".to_owned(),
        part: None,
        beyond_ascii: false,
    })
}
