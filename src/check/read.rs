//! Reading: source batches pass through the transform in parallel, and are stored in order.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt, stream};

use super::transform::{Transform, Transformed};
use super::{Findings, RowLocations, ViolationDetail};
use crate::engine::{Engine, RowNumber, RowStore};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::plan::{CheckKind, Table};
use crate::progress::Steps;
use crate::source::{Batch, Malformed, Source};

/// The typed rows of a table, with the findings of row-by-row checks.
pub(super) struct Read {
    pub(super) rows: Arc<RowStore>,
    pub(super) locations: RowLocations,
    pub(super) malformed: Arc<RowStore>,
    pub(super) files: BTreeSet<usize>,
    pub(super) filtered: u64,
    /// By file index, the first and the last line of ranges that belong to no record.
    pub(super) lost: Vec<(usize, u64, u64)>,
    pub(super) findings: Findings,
}

/// Returns the schema of unreadable records: file, line, reason, the raw record, then its fields as far as they were
/// split.
pub(super) fn malformed_schema(table: &Table) -> SchemaRef {
    let mut fields = vec![
        Field::new("file", DataType::UInt32, false),
        Field::new("line", DataType::UInt64, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("raw", DataType::Utf8, false),
    ];
    fields.extend((0..table.source.fields().len()).map(|at| Field::new(format!("field{at}"), DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

/// Reads all files of a table.
pub(super) async fn read(engine: &Engine, table: &Table, source: &Source, steps: &Steps<'_>) -> Result<Read> {
    let limits = engine.limits();
    let transform = Arc::new(Transform::try_new(engine, table)?);
    let parse = table.check(|kind| *kind == CheckKind::Parse).ok_or_else(|| Error::internal("no `parse` check"))?;
    let first = RowNumber::new(failpoint::first_row());
    let mut rows = engine.rows(table.kept_schema()).starting_at(first);
    let mut malformed = engine.rows(malformed_schema(table));
    let (mut locations, mut findings) = (RowLocations::starting_at(first), Findings::new(table));
    let (mut files, mut filtered, mut lost) = (BTreeSet::new(), 0, Vec::new());

    let transformed = stream::iter(source.pieces(limits.batch_rows)).map(|piece| {
        let transform = transform.clone();
        let name = table.name.clone();
        async move {
            let mut piece = piece?;
            let read = move || -> Result<Vec<_>> {
                let _piece = tracing::info_span!("piece", of = name).entered();
                let parse = || tracing::info_span!("parse").in_scope(|| piece.next());
                let apply = |batch: Batch| {
                    let _check = tracing::info_span!("check rows", rows = batch.lines.len()).entered();
                    Ok((transform.apply(&batch.rows)?, batch))
                };
                std::iter::from_fn(parse).map(|batch| batch.and_then(apply)).collect()
            };
            let read = tokio::task::spawn_blocking(read).await;
            read.map_err(|error| Error::internal(format!("a worker thread failed: {error}")))?
        }
    });
    // One more than the threads, so that no thread waits for this one.
    let mut transformed = transformed
        .buffered(limits.threads + 1)
        .map_ok(|read| stream::iter(read.into_iter().map(Ok::<_, Error>)))
        .try_flatten();
    while let Some((Transformed { rows: typed, violations, wanted }, batch)) = transformed.try_next().await? {
        filtered += batch.skipped;
        files.extend((batch.skipped > 0).then_some(batch.file));
        add_lost(&mut lost, &batch);
        let first = rows.next();
        for (check, row, text) in violations {
            let row = first + row;
            match text {
                Some(text) => findings.add_text(table, check, row, &text),
                None => findings.add(table, check, row, ViolationDetail::None),
            }
        }
        if !batch.malformed.is_empty() {
            for number in malformed.next().through(batch.malformed.len()) {
                findings.add_malformed(parse, number);
            }
            files.insert(batch.file);
            malformed.write(&malformed_batch(table, &batch)?)?;
        }
        match wanted {
            None => locations.extend(batch.file, &batch.lines),
            Some(wanted) => {
                let chosen = batch.lines.iter().zip(wanted.values()).filter(|(_, wanted)| *wanted);
                let lines: Vec<u64> = chosen.map(|(line, _)| *line).collect();
                filtered += (batch.lines.len() - lines.len()) as u64;
                files.extend((!batch.lines.is_empty()).then_some(batch.file));
                locations.extend(batch.file, &lines);
            }
        }
        steps.rows(&table.name, (batch.lines.len() + batch.malformed.len()) as u64);
        tracing::info_span!("keep rows", of = table.name).in_scope(|| rows.write(&typed))?;
    }
    steps.bytes(source.files().iter().map(|file| file.bytes).sum());
    Ok(Read { rows: rows.finish(), locations, malformed: malformed.finish(), files, filtered, lost, findings })
}

/// Adds the lines of a batch that belong to no record to the ranges.
fn add_lost(lost: &mut Vec<(usize, u64, u64)>, batch: &Batch) {
    for malformed in batch.malformed.iter().filter(|malformed| malformed.lost) {
        match lost.last_mut() {
            Some((file, _, end)) if *file == batch.file && *end + 1 == malformed.line => *end = malformed.line,
            _ => lost.push((batch.file, malformed.line, malformed.line)),
        }
    }
}

fn malformed_batch(table: &Table, batch: &Batch) -> Result<RecordBatch> {
    let list: &[Malformed] = &batch.malformed;
    let texts = |text: &dyn Fn(&Malformed) -> Option<String>| -> ArrayRef {
        Arc::new(list.iter().map(text).collect::<StringArray>())
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from(vec![batch.file as u32; list.len()])),
        Arc::new(UInt64Array::from_iter_values(list.iter().map(|malformed| malformed.line))),
        texts(&|malformed| Some(malformed.reason.clone())),
        texts(&|malformed| Some(malformed.raw.clone())),
    ];
    for at in 0..table.source.fields().len() {
        columns.push(texts(&|malformed| malformed.fields.get(at).cloned().flatten()));
    }
    Ok(RecordBatch::try_new(malformed_schema(table), columns)?)
}
