//! A load of the target in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use delta_pipeline::internals::engine::RowNumber;
use delta_pipeline::internals::error::Result;
use delta_pipeline::internals::journal::{FileHash, Record, RunId};
use delta_pipeline::internals::target::{
    Aggregate, Batches, CommitPhase, ConstraintViolation, Destination, Ended, Governance, InsertError, InsertPhase,
    Inserted, JournalWriter, KeyBlock, KeyRequest, LoadedFile, Mode, Policy, Production, RowSource, RunRecord,
    StagingPhase, TableIndex, aggregates_schema,
};
use futures::TryStreamExt;
use jiff::Timestamp;

use super::super::rows::shown;
use super::MemoryTarget;
use super::database::{Control, MemoryDatabase, cast_to, query, values};

/// Returns the first difference between rows and the expected ones, found by their keys.
#[allow(clippy::unnecessary_wraps, reason = "its callers answer with it")]
pub(super) fn difference(
    destination: &Destination,
    rows: &RecordBatch,
    expected: &[RecordBatch],
) -> Result<Option<String>> {
    let key = |batch: &RecordBatch, row| values(batch, &destination.key, row);
    let there: BTreeMap<_, _> = (0..rows.num_rows()).map(|row| (key(rows, row), row)).collect();
    for batch in expected {
        for row in 0..batch.num_rows() {
            let Some(found) = there.get(&key(batch, row)) else { return Ok(Some("rows are missing".to_owned())) };
            for name in &destination.columns {
                let value = |of: &RecordBatch, row| of.column_by_name(name).map(|column| shown(column, row));
                let (is, meant) = (value(rows, *found), value(batch, row));
                if is != meant {
                    let text = |value: Option<String>| value.unwrap_or_default();
                    return Ok(Some(format!("column `{name}` is {}, expected {}", text(is), text(meant))));
                }
            }
        }
    }
    Ok(None)
}

/// A load in any of its phases. Nothing of it is in the database before the commit.
pub(super) struct MemoryLoad {
    pub(super) database: Arc<MemoryDatabase>,
    pub(super) run: RunId,
    /// By table: rows and mappings.
    pub(super) staged: BTreeMap<String, [Vec<RecordBatch>; 2]>,
    pub(super) inserted: Vec<(String, Vec<RecordBatch>)>,
    /// What the commit adds to the control data.
    pub(super) left: Control,
    pub(super) ends_mode: bool,
}

impl MemoryLoad {
    async fn copy(&mut self, destination: &Destination, which: usize, rows: Batches<'_>) -> Result<u64> {
        let rows: Vec<_> = rows.try_collect().await?;
        let count = rows.iter().map(|batch| batch.num_rows() as u64).sum();
        self.staged.entry(destination.table.name.clone()).or_default()[which] = rows;
        Ok(count)
    }

    fn mappings(&self, destination: &Destination, rows: Range<usize>) -> Result<RecordBatch> {
        let [_, keys] = self.staged.get(&destination.table.name).cloned().unwrap_or_default();
        let columns: Vec<_> = ["legacy_key".to_owned()].into_iter().chain(destination.key.iter().cloned()).collect();
        let field = |name: &String| {
            Field::new(
                name,
                destination.table.column(name).map_or(DataType::Utf8, |found| found.data_type.clone()),
                true,
            )
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let keys = keys.iter().map(|batch| cast_to(batch, &schema)).collect::<Result<Vec<_>>>()?;
        let all = concat_batches(&schema, &keys)?;
        let end = rows.end.min(all.num_rows());
        Ok(all.slice(rows.start, end - rows.start))
    }
}

#[async_trait]
impl JournalWriter for MemoryLoad {
    async fn append_event(&mut self, record: &Record) -> Result<()> {
        self.database.control().journal.push(record.clone());
        Ok(())
    }
}

#[async_trait]
impl StagingPhase for MemoryLoad {
    async fn reserve(&mut self, request: &KeyRequest) -> Result<KeyBlock> {
        let block = self.database.next_block(request).await?;
        self.database.control().blocks.push((self.run.clone(), block.clone()));
        Ok(block)
    }

    async fn defaults(&mut self, _: &Destination, count: u64) -> Result<RecordBatch> {
        // The catalog has no column with a default.
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count as usize));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?)
    }

    async fn loaded_files(&mut self, files: &[(String, FileHash)]) -> Result<Vec<LoadedFile>> {
        MemoryTarget::new(&self.database).loaded_files(files).await
    }

    fn direct_path(&mut self, destinations: &[Destination]) -> Vec<bool> {
        vec![false; destinations.len()]
    }

    async fn clear_staging(&mut self, destinations: &[Destination]) -> Result<()> {
        for destination in destinations {
            self.staged.remove(&destination.table.name);
        }
        Ok(())
    }

    async fn stage(&mut self, destination: &Destination, rows: Batches<'_>) -> Result<u64> {
        self.copy(destination, 0, rows).await
    }

    async fn stage_keys(&mut self, destination: &Destination, keys: Batches<'_>) -> Result<u64> {
        self.copy(destination, 1, keys).await
    }

    async fn lock_mode(&mut self) -> Result<Mode> {
        MemoryTarget::new(&self.database).mode().await
    }

    async fn lock_policy(&mut self) -> Result<Policy> {
        MemoryTarget::new(&self.database).policy().await
    }

    async fn begin_insert(self: Box<Self>, _: &[Destination]) -> Result<Box<dyn InsertPhase>, InsertError> {
        Ok(self)
    }
}

#[async_trait]
impl InsertPhase for MemoryLoad {
    async fn insert(&mut self, destinations: &[Destination], _: &dyn RowSource) -> Result<Vec<Inserted>, InsertError> {
        let mut inserted = Vec::new();
        for destination in destinations {
            let [rows, _] = self.staged.get(&destination.table.name).cloned().unwrap_or_default();
            let there = self.database.rows(&destination.table.name, None).await?;
            let keys: Vec<_> = (0..there.num_rows()).map(|row| values(&there, &destination.key, row)).collect();
            let is_taken = |batch: &RecordBatch, row| keys.contains(&values(batch, &destination.key, row));
            if let Some(row) = rows.iter().find_map(|batch| (0..batch.num_rows()).find(|row| is_taken(batch, *row))) {
                let (table, reason) =
                    (destination.table.name.clone(), "another session has inserted these values".to_owned());
                return Err(ConstraintViolation {
                    table,
                    constraint: "PRIMARY KEY".to_owned(),
                    reason,
                    rows: vec![RowNumber::new(row as u64)],
                }
                .into());
            }
            let mappings = self.mappings(destination, 0..usize::MAX)?;
            let count = rows.iter().map(|batch| batch.num_rows() as u64).sum();
            inserted.push(Inserted { rows: count, mappings: mappings.num_rows() as u64, verified: false });
            self.left.mappings.push((destination.table.key_map.clone(), self.run.clone(), mappings));
            self.inserted.push((destination.table.name.clone(), rows));
        }
        Ok(inserted)
    }

    async fn append_key_map(
        &mut self,
        destination: &Destination,
        run: &RunId,
        rows: Range<RowNumber>,
    ) -> Result<u64, InsertError> {
        let mappings = self.mappings(destination, rows.start.get() as usize..rows.end.get() as usize)?;
        let count = mappings.num_rows() as u64;
        self.left.mappings.push((destination.table.key_map.clone(), run.clone(), mappings));
        Ok(count)
    }

    async fn adopt(&mut self, id: &str) -> Result<()> {
        self.left.ids.push(id.to_owned());
        Ok(())
    }

    async fn validate_deferred(&mut self, _: &[Destination], _: &dyn RowSource) -> Result<(), InsertError> {
        Ok(())
    }

    async fn aggregates(
        &mut self,
        destination: &Destination,
        aggregates: &[(String, Aggregate)],
    ) -> Result<RecordBatch> {
        let own = self.inserted.iter().filter(|(table, _)| *table == destination.table.name).flat_map(|(_, rows)| rows);
        let own = own.map(|rows| cast_to(rows, &destination.table.schema())).collect::<Result<Vec<_>>>()?;
        let rows = concat_batches(&destination.table.schema(), &own)?;
        let sql = aggregates.iter().map(|(name, aggregate)| match aggregate {
            Aggregate::NonNull => format!(", count(\"{name}\")"),
            Aggregate::Sum => format!(", sum(\"{name}\")"),
            Aggregate::Min => format!(", min(\"{name}\")"),
            Aggregate::Max => format!(", max(\"{name}\")"),
        });
        let found = query(&format!("SELECT count(*){} FROM t", sql.collect::<String>()), [("t", &rows)]).await?;
        let schema = aggregates_schema(destination, aggregates);
        let columns =
            found[0].columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
        Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)?)
    }

    async fn compare(
        &mut self,
        destination: &Destination,
        at: TableIndex,
        rows: &dyn RowSource,
    ) -> Result<Option<String>> {
        let own = self.inserted.iter().filter(|(table, _)| *table == destination.table.name).flat_map(|(_, rows)| rows);
        let own = own.map(|rows| cast_to(rows, &destination.table.schema())).collect::<Result<Vec<_>>>()?;
        difference(
            destination,
            &concat_batches(&destination.table.schema(), &own)?,
            &rows.expected_rows(at)?.try_collect::<Vec<_>>().await?,
        )
    }

    fn finish(self: Box<Self>) -> Box<dyn CommitPhase> {
        self
    }
}

#[async_trait]
impl CommitPhase for MemoryLoad {
    async fn record_run(&mut self, run: &RunRecord, files: &[LoadedFile]) -> Result<()> {
        self.left.runs.push(run.clone());
        self.left.files.extend_from_slice(files);
        Ok(())
    }

    async fn end_mode(&mut self) -> Result<()> {
        self.ends_mode = true;
        Ok(())
    }

    async fn append_event_with_rows(&mut self, record: &Record) -> Result<()> {
        self.left.journal.push(record.clone());
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), InsertError> {
        for (table, rows) in &self.inserted {
            let there = self.database.rows(table, None).await?;
            self.database.replace(table, &[vec![there], rows.clone()].concat()).await?;
        }
        let Self { database, left, run, ends_mode, .. } = *self;
        let mut control = database.control();
        control.runs.extend(left.runs);
        control.files.extend(left.files);
        control.journal.extend(left.journal);
        control.mappings.extend(left.mappings.into_iter().filter(|(.., rows)| rows.num_rows() > 0));
        for id in left.ids {
            if !control.ids.contains(&id) {
                control.ids.push(id);
            }
        }
        if let Some(period) =
            control.period.as_mut().filter(|period| ends_mode && !period.keep && period.ended.is_none())
        {
            period.ended =
                Some(Ended { at: Timestamp::now(), by: "memory".to_owned(), run: Some(run.to_string()), reason: None });
        }
        Ok(())
    }

    async fn roll_back(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
