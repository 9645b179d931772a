//! Checks of the delta, which run before a single row is written.
//!
//! [`check_tables`] reads all tables and checks rows one by one, against each other, against the key map, and against
//! production. It resolves references, and rejects the children of rejected rows. The result is a verdict on every row.

mod cast;
mod database;
mod evidence;
mod findings;
#[doc(hidden)]
pub mod kernels;
mod read;
mod references;
pub mod rejects;
mod row_locations;
mod set_checks;
mod thresholds;
mod transform;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat;
use tracing::Span;

pub use evidence::{Count, Evidence, Example, LineHistogram, TableEvidence, evidence};
pub use findings::{Findings, Violation, ViolationDetail, Violations};
pub use references::Resolved;
pub use row_locations::RowLocations;
pub use thresholds::{ThresholdResult, evaluate};

use crate::engine::{Engine, RowNumbers, RowSet, RowStore, RowsTable, Space, row_numbers};
use crate::error::Result;
use crate::plan::{CheckKind, Compiled, Plan, components};
use crate::progress::{Step, Steps};
use crate::target::{Catalog, Lookup, Production, ProductionTable, Relation, TableIndex};

/// A table of the delta, with the verdict on each row.
#[derive(Debug)]
pub struct CheckedTable {
    /// The readable rows, with [`crate::plan::Table::kept_schema`].
    pub rows: Arc<RowStore>,
    /// The location of each row.
    pub locations: RowLocations,
    /// The unreadable records.
    pub malformed: Arc<RowStore>,
    /// The number of rows that the WHERE of `select` excludes, and of blank lines in files of one column.
    pub filtered: u64,
    /// By file index, the first and the last line of ranges that belong to no record.
    pub lost: Vec<(usize, u64, u64)>,
    /// Files with unreadable or excluded records, in addition to those in `locations`.
    pub files: BTreeSet<usize>,
    /// The findings of the checks.
    pub findings: Findings,
    /// The resolved references, by index of the reference.
    pub resolved: Vec<Resolved>,
    /// The constraints that production can evaluate only when it inserts a row, and why.
    pub unanswered: Vec<String>,
    /// By reference, the number of rows that refer to a row outside the delta; counted only without a target.
    pub unverified_references: Vec<u64>,
    /// Rows with the legacy key of an earlier row.
    repeated: RowSet,
    /// Rows that share their legacy key, to be ignored by other unique checks.
    same_record: RowSet,
    /// By reference, the rows that were rejected with their parent.
    cascaded: Vec<RowSet>,
    /// Rows that are skipped because production has their values.
    existing: ExistingRows,
}

/// Rows that production already has by a unique constraint, with production's values.
#[derive(Debug, Default)]
struct ExistingRows {
    rows: RowNumbers,
    known: Vec<RecordBatch>,
}

impl ExistingRows {
    /// Adds answers of the target: row numbers, then values of production.
    fn add(&mut self, answer: &RecordBatch) {
        self.rows.extend(row_numbers(answer.column(0)));
        self.known.push(answer.clone());
    }

    /// Returns production's values of a column, in the order of `rows`.
    fn values(&self, column: &str) -> Result<ArrayRef> {
        let values: Vec<_> =
            self.known.iter().filter_map(|batch| batch.column_by_name(column)).map(AsRef::as_ref).collect();
        Ok(concat(&values)?)
    }
}

impl CheckedTable {
    /// Returns the number of records in the files.
    pub fn read(&self) -> u64 {
        (self.rows.count() + self.malformed.count()) as u64 + self.filtered
    }

    /// Returns the number of rejected records.
    pub fn rejected(&self) -> u64 {
        (self.findings.rejected.count() + self.malformed.count()) as u64
    }

    /// Returns the number of skipped records, including those that the WHERE of `select` excludes.
    pub fn skipped(&self) -> u64 {
        self.filtered + self.findings.excluded().count() as u64 - self.findings.rejected.count() as u64
    }

    /// Returns the hash of the verdicts: which rows are rejected, and which are skipped.
    pub fn verdicts(&self) -> String {
        let is_narrow = RowNumbers::is_narrow(self.rows.range().end);
        let mut hasher = blake3::Hasher::new();
        for number in [self.malformed.count() as u64, self.filtered] {
            hasher.update(&number.to_le_bytes());
        }
        for mask in [&self.findings.rejected, &self.findings.skipped] {
            hasher.update(&(mask.count() as u64).to_le_bytes());
            for row in mask.iter() {
                hasher.update(&row.get().to_le_bytes()[..if is_narrow { 4 } else { 8 }]);
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Returns the number of accepted rows.
    pub fn accepted(&self) -> u64 {
        self.read() - self.rejected() - self.skipped()
    }
}

/// State of the checks: verdicts so far, and the engine and target to query.
pub(crate) struct Checker<'a> {
    engine: &'a Engine,
    target: &'a dyn Production,
    catalog: &'a Catalog,
    plan: &'a Plan,
    tables: Vec<CheckedTable>,
}

/// Checks the delta, and returns one [`CheckedTable`] per table, in the plan's order.
///
/// # Errors
/// Returns an error if a file cannot be read to its end, or the target fails; invalid rows are findings, not errors.
pub async fn check_tables(
    engine: &Engine,
    compiled: &Compiled,
    catalog: &Catalog,
    target: &Arc<dyn Production>,
    steps: &Steps<'_>,
) -> Result<Vec<CheckedTable>> {
    let plan = &compiled.plan;
    let mut checker = Checker { engine, target: target.as_ref(), catalog, plan, tables: Vec::new() };
    {
        let _step = steps.step(Step::Read);
        for (table, source) in plan.tables.iter().zip(&compiled.sources) {
            let read = read::read(engine, table, source, steps).await?;
            let visible = RowsTable::new(read.rows.clone(), Arc::default(), |name| !name.starts_with("source."));
            engine.register(Space::Delta, &table.name, visible)?;
            checker.tables.push(CheckedTable {
                rows: read.rows,
                locations: read.locations,
                malformed: read.malformed,
                filtered: read.filtered,
                lost: read.lost,
                files: read.files,
                findings: read.findings,
                resolved: Vec::new(),
                unanswered: Vec::new(),
                unverified_references: Vec::new(),
                repeated: RowSet::default(),
                same_record: RowSet::default(),
                existing: ExistingRows::default(),
                cascaded: vec![RowSet::default(); table.references.len()],
            });
        }
        for table in &catalog.tables {
            engine.register(Space::Production, &table.name, Arc::new(ProductionTable::new(target.clone(), table)))?;
        }
    }
    let _step = steps.step(Step::Check);
    let needs = |at: usize| plan.tables[at].refers_to().filter_map(|to| Some(plan.position(to)?.get())).collect();
    for cycle in components(plan.tables.len(), needs) {
        let cycle: Vec<_> = cycle.into_iter().map(TableIndex::new).collect();
        checker.cycle(&cycle).await?;
        for at in cycle {
            steps.rows(&plan.tables[at].name, checker.tables[at].rows.count() as u64);
        }
    }
    for examined in &mut checker.tables {
        examined.findings.sort();
    }
    Ok(checker.tables)
}

impl Checker<'_> {
    /// Runs the checks that need all rows of a table, or of tables that refer to each other. Other referenced tables must have been checked
    /// before.
    async fn cycle(&mut self, tables: &[TableIndex]) -> Result<()> {
        let plan = self.plan;
        for at in tables {
            self.legacy_key(*at).await?;
            self.key_map(*at).await?;
            for (number, check) in plan.tables[*at].checks.iter().enumerate() {
                match &check.kind {
                    CheckKind::Unique(unique) => self.unique(*at, number, unique).await?,
                    CheckKind::Query { sql } => self.query(*at, number, sql).await?,
                    _ => {}
                }
            }
            // References to skipped rows need production's values, which must be known first unless they depend on references.
            self.uniques_in_production(*at, false).await?;
            self.evaluated_by_production(*at, false).await?;
        }
        for at in tables {
            for reference in 0..plan.tables[*at].references.len() {
                self.resolve(*at, reference).await?;
            }
        }
        for at in tables {
            self.uniques_in_production(*at, true).await?;
            self.evaluated_by_production(*at, true).await?;
        }
        // Among tables that refer to each other or to themselves, rejecting one row can invalidate another, and so on.
        let inside = |to: &String| tables.iter().any(|at| plan.tables[*at].name == *to);
        let names_inside = |kind: &CheckKind| matches!(kind, CheckKind::ForeignKey { to, .. } if inside(to));
        let repeats = tables.len() > 1 || tables.iter().any(|at| plan.tables[*at].check(names_inside).is_some());
        loop {
            let rejected = self.rejected(tables);
            for at in tables {
                for (number, check) in plan.tables[*at].checks.iter().enumerate() {
                    if let CheckKind::ForeignKey { columns, to, to_columns } = &check.kind {
                        self.foreign_key(*at, number, columns, to, to_columns).await?;
                    }
                }
                self.cascade(*at)?;
            }
            if !repeats || self.rejected(tables) == rejected {
                return Ok(());
            }
        }
    }

    /// Returns the number of rejected rows of tables.
    fn rejected(&self, tables: &[TableIndex]) -> usize {
        tables.iter().map(|at| self.tables[*at].findings.rejected.count()).sum()
    }

    /// Attributes the next queries to a check, as long as the span is held.
    #[must_use]
    fn about(&self, at: TableIndex, check: usize) -> Span {
        let table = &self.plan.tables[at];
        let check = table.checks.get(check).map_or("", |check| check.name.as_str());
        self.engine.about(&table.name, check);
        tracing::info_span!("check", of = check, table = table.name)
    }

    /// Queries the target.
    async fn lookup(&self, lookup: &Lookup, questions: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let rows: usize = questions.iter().map(RecordBatch::num_rows).sum();
        let (Relation::Production(table) | Relation::KeyMap(table)) = &lookup.place;
        let in_key_map = matches!(lookup.place, Relation::KeyMap(_));
        let _asking = tracing::info_span!("look up", of = table, in_key_map, rows);
        self.target.lookup(lookup, questions).await
    }

    /// Runs the unique checks against production, either of columns with references or of those without.
    async fn uniques_in_production(&mut self, at: TableIndex, with_references: bool) -> Result<()> {
        let table = &self.plan.tables[at];
        for (number, check) in table.checks.iter().enumerate() {
            if let CheckKind::Unique(unique) = &check.kind
                && unique.columns.iter().any(|column| table.reference(column).is_some()) == with_references
                && !set_checks::is_new(table, &unique.columns)
            {
                self.unique_in_production(at, number, unique).await?;
            }
        }
        Ok(())
    }
}
