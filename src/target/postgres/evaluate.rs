//! Asks the server which rows of the delta violate constraints that only it can evaluator.
//!
//! The rows are copied into a temporary table, or written as literals for a session that may not create one. Each question is one statement
//! over all of them. It runs in a read-only subtransaction with the settings that production's own code expects. If a statement fails
//! because of a row, the rows are tried in chunks, and the rows of a failing chunk one by one.
//!
//! Production's SQL is parsed with this program's search path, because other roles may create operators and functions in the schemas of
//! production's. A temporary view keeps the parsed statement, which then runs with production's search path. A session that may not create a
//! view runs it with this program's.

use std::fmt::Write as _;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use futures::{StreamExt, TryStreamExt};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::catalog::{PgCatalog, PgTable};
use super::connect::Session;
use super::copy::{CopyColumn, CopyTarget};
use super::lookup::{ASKED, by_index, literal_rows, only_reads, wires};
use super::names::qualified;
use super::{PgTarget, trigger};
use crate::engine::{RowNumber, RowSet, ident, literal, row_numbers};
use crate::error::{Error, Result};
use crate::target::sql::database_checks::{self as sql, AskedRows};
use crate::target::{
    DatabaseCheck, DatabaseCheckKind, DatabaseCheckRequest, DatabaseCheckResult, DatabaseCheckRows, new_key_column,
};

/// The rows that are tried together if a statement over all of them fails.
const CHUNK: usize = 2000;

/// The values of an exclusion constraint, with an index that finds conflicts.
const VALUES: &str = "pg_temp.asked_values";

/// The parsed statement of a question.
const PARSED: &str = "SELECT * FROM pg_temp.asked_question";

type PgResult<T> = Result<T, tokio_postgres::Error>;

impl PgTarget {
    pub(super) async fn evaluate_rows(
        &self,
        question: &DatabaseCheckRequest<'_>,
        rows: &dyn DatabaseCheckRows,
    ) -> Result<Vec<DatabaseCheckResult>> {
        let known = self.known().await?;
        let missing = || Error::internal(format!("a question about `{}`, which is not there", question.table));
        let pg = known.tables.get(question.table).ok_or_else(missing)?;
        let session = self.session.lock().await;
        let mut evaluator = CheckEvaluator::new(self, &session, &known, pg, question);
        let begun = evaluator.begin(rows).await;
        let answers = match begun {
            Ok(()) => evaluator.answers().await,
            Err(error) => Err(error),
        };
        let end = if self.unfinished { "DROP TABLE IF EXISTS pg_temp.asked" } else { "ROLLBACK" };
        let ended = session.batch_execute(end).await.map_err(self.fault("cannot check rows"));
        // If the session is lost, the first error has the cause.
        let answers = answers?;
        ended.map(|()| answers)
    }
}

/// The server, and the rows that it judges.
struct CheckEvaluator<'a> {
    target: &'a PgTarget,
    session: &'a Session,
    pg: &'a PgTable,
    question: &'a DatabaseCheckRequest<'a>,
    /// The columns of the rows, as they are copied.
    columns: Vec<CopyColumn>,
    /// The columns of the rows, as SQL declares them.
    declared: Vec<String>,
    /// SQL for each column of the rows in production's type, and for each that production fills.
    typed: Vec<String>,
    /// SQL for the generated columns.
    generated: Vec<String>,
    /// The rows, if they are written as literals.
    literals: Option<Vec<RecordBatch>>,
    /// The numbers of the rows, from the first one to before the end.
    rows: Range<RowNumber>,
    is_indexed: bool,
}

impl<'a> CheckEvaluator<'a> {
    fn new(
        target: &'a PgTarget,
        session: &'a Session,
        known: &PgCatalog,
        pg: &'a PgTable,
        question: &'a DatabaseCheckRequest<'a>,
    ) -> Self {
        let mut evaluator = Self {
            target,
            session,
            pg,
            question,
            columns: vec![CopyColumn::number("_row")],
            declared: vec!["_row bigint".to_owned()],
            typed: vec!["a._row AS _row".to_owned()],
            generated: Vec::new(),
            literals: None,
            rows: NO_ROWS,
            is_indexed: false,
        };
        let is_read = |name: &String| question.checks.iter().any(|check| check.columns.contains(name));
        for column in pg.columns.iter().filter(|column| is_read(&column.name)) {
            let name = ident(&column.name);
            let declared = &column.declared;
            if question.filled.contains(&column.name) {
                let (cast, staged) = known.staged_as(question.table, &column.name);
                evaluator.columns.push(CopyColumn::new(&column.name, column.pg_type.arrow(), column.pg_type.clone()));
                evaluator.declared.push(format!("{name} {staged}"));
                evaluator.typed.push(format!("a.{name}{cast} AS {name}"));
            } else if let Some(generated) = &column.generated {
                evaluator.generated.push(format!("({generated})::{declared} AS {name}"));
            } else {
                let default = column.default.as_deref().unwrap_or("NULL");
                evaluator.typed.push(format!("({default})::{declared}{} AS {name}", column.collation));
            }
            if question.references.contains(&column.name) {
                let new = new_key_column(&column.name);
                evaluator.columns.push(CopyColumn::number(&new));
                evaluator.declared.push(format!("{} bigint", ident(&new)));
                evaluator.typed.push(format!("a.{0} AS {0}", ident(&new)));
            }
        }
        evaluator
    }

    fn fault(&self) -> impl Fn(tokio_postgres::Error) -> Error + use<> {
        self.target.fault(&format!("cannot check the rows of `{}`", self.question.table))
    }

    /// Begins a transaction, and copies the rows.
    async fn begin(&mut self, rows: &dyn DatabaseCheckRows) -> Result<()> {
        let unfinished = self.target.unfinished;
        let first = if unfinished { "DROP TABLE IF EXISTS pg_temp.asked" } else { "BEGIN" };
        let made = format!("{first}; CREATE TEMPORARY TABLE asked ({}) ON COMMIT DROP", self.declared.join(", "));
        match self.session.batch_execute(&made).await {
            Ok(()) => {}
            Err(error) if !unfinished && only_reads(&error) => {
                self.session.batch_execute("ROLLBACK; BEGIN READ ONLY").await.map_err(self.fault())?;
                self.literals = Some(rows.rows()?.try_collect().await?);
            }
            Err(error) => return Err(self.fault()(error)),
        }
        if let Some(literals) = &self.literals {
            self.rows = literals.iter().fold(NO_ROWS, with_rows);
            return Ok(());
        }
        let mut seen = NO_ROWS;
        let counted = rows.rows()?.inspect_ok(|batch| seen = with_rows(seen.clone(), batch));
        let into = CopyTarget { connector: &self.target.connector, table: ASKED, columns: &self.columns };
        into.copy_into(self.session, counted.boxed()).await?;
        self.rows = seen;
        // A sample is enough to plan joins.
        self.session.batch_execute("ANALYZE pg_temp.asked").await.map_err(self.fault())
    }

    async fn answers(&mut self) -> Result<Vec<DatabaseCheckResult>> {
        let mut answers = vec![DatabaseCheckResult::default(); self.question.checks.len()];
        if self.rows.is_empty() {
            return Ok(answers);
        }
        let of_value = |check: &DatabaseCheck| matches!(check.kind, DatabaseCheckKind::Value { .. });
        // Values come first, because no other question can be asked about a row with an invalid one.
        for is_value in [true, false] {
            self.conditions(&mut answers, |check| of_value(check) == is_value).await?;
            if is_value {
                let invalid = answers.iter().flat_map(|answer| answer.rows.iter().map(|(row, _)| *row)).collect();
                self.remove(invalid).await?;
            }
        }
        for (check, answer) in self.question.checks.iter().zip(&mut answers) {
            if sql::violated(check).is_none() {
                self.compared(check, answer).await?;
            }
        }
        Ok(answers)
    }

    /// Answers the checks of single rows by one statement.
    async fn conditions(
        &mut self,
        answers: &mut [DatabaseCheckResult],
        wanted: impl Fn(&DatabaseCheck) -> bool,
    ) -> Result<()> {
        let checks = self.question.checks.iter().enumerate().filter(|(_, check)| wanted(check));
        let checks: Vec<_> =
            checks.filter_map(|(at, check)| Some((at, is_raw(check), sql::violated(check)?))).collect();
        let Some((_, raw, _)) = checks.first() else { return Ok(()) };
        let tests: Vec<_> = checks.iter().map(|(_, _, violated)| format!("({violated})")).collect();
        let query = format!(
            "SELECT s._row, {} FROM {} AS s WHERE {}",
            tests.join(", "),
            self.relation(&self.source(), *raw),
            tests.join(" OR ")
        );
        match self.query(&query, 1 + checks.len()).await {
            Ok(rows) => {
                for row in &rows {
                    for (place, (at, ..)) in checks.iter().enumerate() {
                        if row.get::<_, Option<bool>>(1 + place) == Some(true) {
                            answers[*at].rows.push((number(row, 0), None));
                        }
                    }
                }
            }
            Err(error) if is_about_rows(&error) || is_about_the_check(&error) => {
                for (at, raw, violated) in &checks {
                    self.alone(*raw, violated, &mut answers[*at]).await?;
                }
            }
            Err(error) => return Err(self.fault()(error)),
        }
        Ok(())
    }

    /// Answers a check of single rows if the statement of all of them fails.
    async fn alone(&mut self, raw: bool, violated: &str, answer: &mut DatabaseCheckResult) -> Result<()> {
        let query = format!("SELECT s._row FROM {} AS s WHERE {violated}", self.relation(&self.source(), raw));
        match self.query(&query, 1).await {
            Ok(rows) => answer.rows = rows.iter().map(|row| (number(row, 0), None)).collect(),
            Err(error) if is_about_rows(&error) => self.in_chunks(raw, violated, answer).await?,
            Err(error) if is_about_the_check(&error) => answer.unanswered = Some(said(&error)),
            Err(error) => return Err(self.fault()(error)),
        }
        Ok(())
    }

    /// Answers a check that compares rows.
    async fn compared(&mut self, check: &DatabaseCheck, answer: &mut DatabaseCheckResult) -> Result<()> {
        match self.among_themselves(check, answer).await {
            Ok(()) => {}
            Err(error) if is_about_rows(&error) => {
                // A value of some row cannot be computed. The others can be compared without that row.
                if let Some(computed) = sql::computed(check) {
                    self.in_chunks(false, &computed, answer).await?;
                    self.remove(answer.rows.iter().map(|(row, _)| *row).collect()).await?;
                }
                if answer.unanswered.is_none() {
                    self.among_themselves(check, answer).await.map_err(self.fault())?;
                }
            }
            Err(error) if is_about_the_check(&error) => answer.unanswered = Some(said(&error)),
            Err(error) => return Err(self.fault()(error)),
        }
        match answer.unanswered {
            None => self.with_production(check, answer).await,
            Some(_) => Ok(()),
        }
    }

    /// Compares the rows with each other.
    async fn among_themselves(&self, check: &DatabaseCheck, answer: &mut DatabaseCheckResult) -> PgResult<()> {
        let relation = self.relation(&self.source(), false);
        let asked = AskedRows { relation: &relation, references: self.question.references };
        let pairs = |rows: Vec<Row>| rows.iter().map(|row| (number(row, 0), number(row, 1))).collect();
        if let Some(groups) = sql::groups(&asked, check) {
            answer.groups = pairs(self.query(&groups, 2).await?);
        }
        if let DatabaseCheckKind::Exclusion { method, values, .. } = &check.kind {
            let compared = sql::compared_rows(&asked, check);
            let columns: Vec<_> = (0..values.len()).map(|at| format!("_v{at}")).collect();
            let made = format!(
                "SAVEPOINT indexing; CREATE TEMPORARY TABLE asked_values ON COMMIT DROP AS SELECT * FROM {compared} AS q;
                 CREATE INDEX ON {VALUES} USING {} ({}); ANALYZE {VALUES}",
                method.as_deref().unwrap_or("btree"),
                columns.join(", ")
            );
            let is_made = self.literals.is_none() && self.session.batch_execute(&made).await.is_ok();
            let compared = if is_made { VALUES } else { &compared };
            if let Some(conflicts) = sql::conflicts(check, compared).filter(|_| is_made || self.literals.is_some()) {
                answer.conflicts = pairs(self.query(&conflicts, 2).await?);
            }
            if self.literals.is_none() {
                self.session.batch_execute("ROLLBACK TO indexing").await?;
            }
            if !is_made && self.literals.is_none() {
                // Without an index, for example because a value cannot be computed.
                let compared = sql::compared_rows(&asked, check);
                if let Some(conflicts) = sql::conflicts(check, &compared) {
                    answer.conflicts = pairs(self.query(&conflicts, 2).await?);
                }
            }
        }
        Ok(())
    }

    /// Compares the rows with those of production.
    async fn with_production(&self, check: &DatabaseCheck, answer: &mut DatabaseCheckResult) -> Result<()> {
        let relation = self.relation(&self.source(), false);
        let asked = AskedRows { relation: &relation, references: self.question.references };
        let all = wires(self.pg);
        let mut given = vec![CopyColumn::number("_id")];
        given.extend(
            self.question.give.iter().filter_map(|name| all.iter().find(|column| column.name == *name).cloned()),
        );
        let give: String = given[1..].iter().map(|column| format!(", {}", column.read("p"))).collect();
        let live = qualified(&self.pg.schema, &self.pg.name);
        if let Some(existing) = sql::existing(&asked, check, &self.pg.own_rows(), &give) {
            self.enter(&existing, given.len(), &by_index(&live, (self.rows.end - self.rows.start) as usize))
                .await
                .map_err(self.fault())?;
            let found = self.target.answer(self.session, self.parsed(&existing), &given).await;
            self.leave().await.map_err(self.fault())?;
            answer.existing = found?;
        }
        if let DatabaseCheckKind::Reference { to, .. } = &check.kind {
            let known = self.target.known().await?;
            let to = known.tables.get(to).map_or_else(|| qualified(&self.pg.schema, to), PgTable::own_rows);
            if let Some(orphans) = sql::orphans(&asked, check, &to) {
                match self.query(&orphans, 2).await {
                    Ok(rows) => answer.rows.extend(rows.iter().map(|row| (number(row, 0), None))),
                    Err(error) if is_about_the_check(&error) => answer.unanswered = Some(said(&error)),
                    Err(error) => return Err(self.fault()(error)),
                }
            }
        }
        Ok(())
    }

    /// Answers a check whose statement fails: the rows that violate a condition or make it fail, or why no row can be checked.
    async fn in_chunks(&mut self, raw: bool, violated: &str, answer: &mut DatabaseCheckResult) -> Result<()> {
        if !self.is_indexed && self.literals.is_none() && self.rows.end - self.rows.start > CHUNK as u64 {
            self.session.batch_execute("CREATE INDEX ON pg_temp.asked (_row)").await.map_err(self.fault())?;
            self.is_indexed = true;
        }
        let mut found = Vec::new();
        for source in self.chunks() {
            let query = format!("SELECT s._row FROM {} AS s WHERE {violated}", self.relation(&source, raw));
            let tried = match self.query(&query, 1).await {
                Ok(rows) => Ok(rows.iter().map(|row| (number(row, 0), None)).collect()),
                Err(error) if is_about_rows(&error) => self.one_by_one(&source, raw, violated).await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(rows) => found.extend(rows),
                Err(error) if is_about_the_check(&error) => {
                    answer.unanswered = Some(said(&error));
                    return Ok(());
                }
                Err(error) => return Err(self.fault()(error)),
            }
        }
        answer.rows = found;
        Ok(())
    }

    /// Tries each row of a chunk, and returns those that violate a condition or make it fail.
    async fn one_by_one(&self, source: &str, raw: bool, violated: &str) -> PgResult<Vec<(RowNumber, Option<String>)>> {
        let row = match &self.literals {
            Some(_) => {
                let columns = self.columns.iter().map(|column| format!("_delta_row.{0} AS {0}", ident(&column.name)));
                format!("(SELECT {})", columns.collect::<Vec<_>>().join(", "))
            }
            // OFFSET keeps the server from computing the condition for other rows.
            None => {
                format!("(SELECT * FROM {ASKED} AS a WHERE a._row = current_setting('delta.row')::bigint OFFSET 0)")
            }
        };
        let query = format!("SELECT 1 FROM {} AS s WHERE {violated}", self.relation(&row, raw));
        // The block is parsed with production's search path, so it qualifies all names.
        let body = format!(
            "#variable_conflict use_column
             DECLARE _delta_row record; _delta_found pg_catalog.text[] := '{{}}';
             BEGIN
                 FOR _delta_row IN SELECT * FROM {source} AS a LOOP
                     BEGIN
                         PERFORM pg_catalog.set_config('delta.row', _delta_row._row::pg_catalog.text, true);
                         PERFORM 1 FROM ({}) AS q;
                         IF FOUND THEN
                             _delta_found := pg_catalog.array_append(_delta_found, pg_catalog.format('%s ', _delta_row._row));
                         END IF;
                     EXCEPTION WHEN OTHERS THEN
                         IF SQLSTATE OPERATOR(pg_catalog.!~) '{}' THEN RAISE; END IF;
                         _delta_found := pg_catalog.array_append(_delta_found, pg_catalog.format('%s %s', _delta_row._row, SQLERRM));
                     END;
                 END LOOP;
                 PERFORM pg_catalog.set_config('delta.found', pg_catalog.to_jsonb(_delta_found)::pg_catalog.text, true);
             END",
            self.parsed(&query),
            about_rows()
        );
        self.enter(&query, 1, "").await?;
        let tried = async {
            self.session.batch_execute(&format!("DO LANGUAGE plpgsql {}", literal(&body))).await?;
            let found = "SELECT f.value FROM pg_catalog.jsonb_array_elements_text(
                             pg_catalog.current_setting('delta.found')::pg_catalog.jsonb) AS f (value)";
            self.session.query(found, &[]).await
        };
        let tried = tried.await;
        self.leave().await?;
        let row = |row: &Row| {
            let (row, reason) = row.get::<_, &str>(0).split_once(' ')?;
            Some((RowNumber::new(row.parse().ok()?), Some(reason.to_owned()).filter(|reason| !reason.is_empty())))
        };
        Ok(tried?.iter().filter_map(row).collect())
    }

    /// Takes rows out of further questions.
    async fn remove(&mut self, rows: Vec<RowNumber>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        match &mut self.literals {
            Some(literals) => {
                let removed: RowSet = rows.into_iter().collect();
                for batch in literals {
                    let left = row_numbers(batch.column(0)).map(|row| Some(!removed.contains(row))).collect();
                    *batch = filter_record_batch(batch, &left)?;
                }
                Ok(())
            }
            None => {
                let rows: Vec<i64> = rows.iter().map(|row| row.get().cast_signed()).collect();
                let removed = self.session.execute("DELETE FROM pg_temp.asked WHERE _row = ANY ($1)", &[&rows]).await;
                removed.map(|_| ()).map_err(self.fault())
            }
        }
    }

    /// Returns SQL for all rows.
    fn source(&self) -> String {
        match &self.literals {
            Some(literals) => literal_rows(&self.columns, &self.declared, literals),
            None => ASKED.to_owned(),
        }
    }

    /// Returns SQL for the rows in parts.
    fn chunks(&self) -> Vec<String> {
        match &self.literals {
            Some(literals) => {
                let parts = literals.iter().flat_map(|batch| {
                    (0..batch.num_rows())
                        .step_by(CHUNK)
                        .map(|first| batch.slice(first, CHUNK.min(batch.num_rows() - first)))
                });
                parts.map(|part| literal_rows(&self.columns, &self.declared, &[part])).collect()
            }
            None => {
                let part = |first: u64| {
                    let last = first + (CHUNK as u64 - 1);
                    format!(
                        "(SELECT * FROM {ASKED} AS c WHERE c._row OPERATOR(pg_catalog.>=) {first} AND c._row OPERATOR(pg_catalog.<=) {last})"
                    )
                };
                (self.rows.start.get()..self.rows.end.get()).step_by(CHUNK).map(part).collect()
            }
        }
    }

    /// Returns SQL for the rows of `source`: as they were copied, or with the types of production and the columns that production fills.
    fn relation(&self, source: &str, raw: bool) -> String {
        if raw {
            return format!("(SELECT * FROM {source} AS a)");
        }
        let mut relation = format!("(SELECT {} FROM {source} AS a)", self.typed.join(", "));
        if !self.generated.is_empty() {
            relation = format!("(SELECT t.*, {} FROM {relation} AS t)", self.generated.join(", "));
        }
        relation
    }

    /// Runs a query that returns a number of columns.
    async fn query(&self, query: &str, columns: usize) -> PgResult<Vec<Row>> {
        self.enter(query, columns, "").await?;
        let rows = self.session.query(self.parsed(query), &[]).await;
        self.leave().await?;
        rows
    }

    /// Returns SQL that runs a query after [`Self::enter`].
    fn parsed<'q>(&self, query: &'q str) -> &'q str {
        if self.literals.is_none() { PARSED } else { query }
    }

    /// Begins a read-only subtransaction for a query that returns a number of columns. `first` is SQL that runs in it before.
    async fn enter(&self, query: &str, columns: usize, first: &str) -> PgResult<()> {
        let mut all = format!("SAVEPOINT evaluating; {first}; ");
        if self.literals.is_none() {
            let names: Vec<_> = (0..columns).map(|at| format!("_{at}")).collect();
            let theirs = trigger::production_settings(&self.target.names, true);
            let _infallible =
                write!(all, "CREATE TEMPORARY VIEW asked_question ({}) AS {query}; {theirs}; ", names.join(", "));
        }
        all += "SET LOCAL transaction_read_only = on";
        let entered = self.session.batch_execute(&all).await;
        if entered.is_err() {
            self.leave().await?;
        }
        entered
    }

    async fn leave(&self) -> PgResult<()> {
        self.session.batch_execute("ROLLBACK TO evaluating; RELEASE evaluating").await
    }
}

/// Returns whether a check is about the values as they were copied.
fn is_raw(check: &DatabaseCheck) -> bool {
    matches!(check.kind, DatabaseCheckKind::Value { .. })
}

fn number(row: &Row, at: usize) -> RowNumber {
    RowNumber::new(row.get::<_, i64>(at).unsigned_abs())
}

/// The numbers of no rows.
const NO_ROWS: Range<RowNumber> = RowNumber::MAX..RowNumber::new(0);

/// Returns the numbers from the first row of both to the last.
fn with_rows(rows: Range<RowNumber>, batch: &RecordBatch) -> Range<RowNumber> {
    row_numbers(batch.column(0)).fold(rows, |rows, row| rows.start.min(row)..rows.end.max(row + 1))
}

/// The error codes, or their first characters, that are about a row and not about the statement, the session, or the server. A value that
/// does not follow the syntax of its type (`tsquery`, `jsonpath`) has the code of an SQL statement with a syntax error.
const ABOUT_ROWS: [&str; 11] = ["0A", "2F", "21", "22", "23", "38", "39", "54", "P0", "XX", "42601"];

/// Returns [`ABOUT_ROWS`] as a regular expression.
fn about_rows() -> String {
    format!("^({})", ABOUT_ROWS.join("|"))
}

fn is_about_rows(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ABOUT_ROWS.iter().any(|class| code.code().starts_with(class)))
}

/// Returns whether production can evaluate a check only when it inserts a row: the check reads what only the row in its table has, such as
/// `tableoid`, or its function writes, or finds no name with this program's search path.
fn is_about_the_check(error: &tokio_postgres::Error) -> bool {
    let is_name = |code: &SqlState| ["42", "3F"].iter().any(|class| code.code().starts_with(class));
    error.code().is_some_and(|code| {
        *code == SqlState::READ_ONLY_SQL_TRANSACTION || is_name(code) && *code != SqlState::INSUFFICIENT_PRIVILEGE
    })
}

/// Returns the server's message.
fn said(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}
