//! Checks: everything that is asked of the delta before a single row is written.
//!
//! [`examine`] reads all tables, checks each row by itself, the rows against each other, the key map and production, resolves
//! references, and takes the children of rejected rows along. What it gives is the verdict on every row.

mod cast;
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

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::UInt32Type;
use tracing::Span;

pub use evidence::{Count, Evidence, Example, LineHistogram, TableEvidence, evidence};
pub use findings::{Findings, Violation, ViolationDetail};
pub use references::Resolved;
pub use row_locations::RowLocations;
pub use thresholds::{ThresholdResult, judge};

use crate::engine::{Engine, RowSet, RowStore, RowsTable, Space};
use crate::error::Result;
use crate::plan::{CheckKind, Compiled, Plan};
use crate::progress::{Step, Steps};
use crate::target::{Catalog, Lookup, Production, ProductionTable, Relation};

/// One table of the delta, with the verdict on each of its rows.
#[derive(Debug)]
pub struct CheckedTable {
    /// The rows that could be read, under [`crate::plan::Table::kept_schema`].
    pub rows: Arc<RowStore>,
    /// Where each row stands.
    pub places: RowLocations,
    /// The records that could not be read.
    pub malformed: Arc<RowStore>,
    /// How many rows the pipeline's own WHERE leaves out.
    pub filtered: u64,
    /// Files that have such records, beside those that [`RowLocations`] knows.
    pub files: BTreeSet<usize>,
    /// What the checks found.
    pub findings: Findings,
    /// What each reference resolves to.
    pub resolved: Vec<Resolved>,
    /// By reference, how many rows refer to something that the delta does not have, where there is no target to ask.
    pub elsewhere: Vec<u64>,
    /// Rows whose legacy key an earlier row has.
    repeated: RowSet,
    /// Rows whose legacy key another row has.
    same_record: RowSet,
    /// By reference, the rows that were taken along with their parent.
    cascaded: Vec<RowSet>,
    /// Rows that are skipped because production has their values.
    existing: ExistingRows,
}

/// Rows that production has already, by a unique constraint, and what it knows of them.
#[derive(Debug, Default)]
struct ExistingRows {
    rows: Vec<u32>,
    known: Vec<RecordBatch>,
}

impl ExistingRows {
    /// Adds answers of the target: the row's number, then what production knows.
    fn add(&mut self, answer: &RecordBatch) {
        self.rows.extend_from_slice(answer.column(0).as_primitive::<UInt32Type>().values());
        self.known.push(answer.clone());
    }

    /// What production has in a column, in the order of `rows`.
    fn values(&self, column: &str) -> Result<ArrayRef> {
        let values: Vec<_> =
            self.known.iter().filter_map(|batch| batch.column_by_name(column)).map(AsRef::as_ref).collect();
        Ok(concat(&values)?)
    }
}

impl CheckedTable {
    /// How many records the files have.
    pub fn read(&self) -> u64 {
        u64::from(self.rows.count()) + u64::from(self.malformed.count()) + self.filtered
    }

    /// How many records are kept out.
    pub fn rejected(&self) -> u64 {
        self.findings.rejected.count() as u64 + u64::from(self.malformed.count())
    }

    /// How many records are left out as declared.
    pub fn skipped(&self) -> u64 {
        self.filtered + self.findings.kept_out().count() as u64 - self.findings.rejected.count() as u64
    }

    /// The hash of which rows are rejected and which are skipped.
    pub fn verdicts(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for number in [u64::from(self.malformed.count()), self.filtered] {
            hasher.update(&number.to_le_bytes());
        }
        for mask in [&self.findings.rejected, &self.findings.skipped] {
            hasher.update(&(mask.count() as u64).to_le_bytes());
            for row in mask.iter() {
                hasher.update(&row.to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// How many rows are accepted.
    pub fn accepted(&self) -> u64 {
        self.read() - self.rejected() - self.skipped()
    }
}

/// The work of examining: what is known so far, and whom to ask.
pub(crate) struct Checker<'a> {
    engine: &'a Engine,
    target: &'a dyn Production,
    catalog: &'a Catalog,
    plan: &'a Plan,
    tables: Vec<CheckedTable>,
}

/// Examines the delta: one [`CheckedTable`] a table, in the plan's order.
///
/// # Errors
/// Where a file cannot be read any further or the target does not answer; never for what a row holds.
pub async fn examine(
    engine: &Engine,
    compiled: &Compiled,
    catalog: &Catalog,
    target: &Arc<dyn Production>,
    steps: &Steps<'_>,
) -> Result<Vec<CheckedTable>> {
    let plan = &compiled.plan;
    let mut examination = Checker { engine, target: target.as_ref(), catalog, plan, tables: Vec::new() };
    {
        let _step = steps.step(Step::Read);
        for (table, source) in plan.tables.iter().zip(&compiled.sources) {
            let read = read::read(engine, table, source, steps).await?;
            let visible = RowsTable::new(read.rows.clone(), Arc::default(), |name| !name.starts_with("source."));
            engine.register(Space::Delta, &table.name, visible)?;
            examination.tables.push(CheckedTable {
                rows: read.rows,
                places: read.places,
                malformed: read.malformed,
                filtered: read.filtered,
                files: read.files,
                findings: read.findings,
                resolved: Vec::new(),
                elsewhere: Vec::new(),
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
    for at in 0..plan.tables.len() {
        examination.table(at).await?;
        steps.rows(&plan.tables[at].name, u64::from(examination.tables[at].rows.count()));
    }
    for examined in &mut examination.tables {
        examined.findings.sort();
    }
    Ok(examination.tables)
}

impl Checker<'_> {
    /// Everything that is asked of one table's rows together; tables that it refers to were examined before.
    async fn table(&mut self, at: usize) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        self.legacy_key(at).await?;
        self.key_map(at).await?;
        for (number, check) in table.checks.iter().enumerate() {
            match &check.kind {
                CheckKind::Unique(unique) => self.unique(at, number, unique).await?,
                CheckKind::Query { sql } => self.query(at, number, sql).await?,
                _ => {}
            }
        }
        // What production has is known before references are resolved, but where the values are references themselves.
        self.uniques_in_production(at, false).await?;
        for reference in 0..table.references.len() {
            self.resolve(at, reference).await?;
        }
        self.uniques_in_production(at, true).await?;
        loop {
            let rejected = self.tables[at].findings.rejected.count();
            for (number, check) in table.checks.iter().enumerate() {
                if let CheckKind::ForeignKey { columns, to, to_columns } = &check.kind {
                    self.foreign_key(at, number, columns, to, to_columns).await?;
                }
            }
            self.cascade(at)?;
            // A table that refers to itself by values: a row may go with the row it names, and another with that one.
            let names_itself = |kind: &CheckKind| matches!(kind, CheckKind::ForeignKey { to, .. } if *to == table.name);
            if self.tables[at].findings.rejected.count() == rejected || table.check(names_itself).is_none() {
                return Ok(());
            }
        }
    }

    /// Says which check the next queries are for; it is the check that goes on as long as the span is held.
    #[must_use]
    fn about(&self, at: usize, check: usize) -> Span {
        let table = &self.plan.tables[at];
        let check = table.checks.get(check).map_or("", |check| check.name.as_str());
        self.engine.about(&table.name, check);
        tracing::info_span!("check", of = check, table = table.name)
    }

    /// Asks the target.
    async fn lookup(&self, lookup: &Lookup, questions: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let rows: usize = questions.iter().map(RecordBatch::num_rows).sum();
        let (Relation::Production(table) | Relation::KeyMap(table)) = &lookup.place;
        let in_key_map = matches!(lookup.place, Relation::KeyMap(_));
        let _asking = tracing::info_span!("look up", of = table, in_key_map, rows);
        self.target.lookup(lookup, questions).await
    }

    /// The unique checks in production, of columns with or without references among them.
    async fn uniques_in_production(&mut self, at: usize, with_references: bool) -> Result<()> {
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
