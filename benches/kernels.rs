//! The kernels that most of a run's processor time goes into, each by itself, on the same made-up rows every time:
//! `cargo bench --features internals --bench kernels`, or a part of them with `-- PART`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench is no part of the program")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use delta_pipeline::internals::check::kernels::cast;
use delta_pipeline::internals::engine::{Engine, Hashes, Limits, RowNumber, RowSet, RowStore};
use delta_pipeline::internals::keys::{offset, written};
use delta_pipeline::internals::source::Source;
use delta_pipeline::internals::spec::SourceSpec;
use delta_pipeline::internals::target::TextKey;
use delta_pipeline::internals::target::postgres::kernels::{decode, encode};

/// Rows of each bench.
const ROWS: u64 = 100_000;
/// Rows of one batch, as a run has them.
const BATCH: usize = 8192;
/// Bytes that a server sends at once, about.
const PIECE: usize = 8192;

/// What stands in a row of a column of texts.
type Text = fn(u64) -> String;

/// Numbers that look like chance and are the same every time: splitmix64.
fn number(seed: u64) -> u64 {
    let mut value = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

fn reference(row: u64) -> String {
    format!("S{:09}", number(row) % 1_000_000_000)
}

fn amount(row: u64) -> String {
    format!("{}.{:02}", number(row) % 100_000, number(row) % 100)
}

fn day(row: u64) -> String {
    let number = number(row);
    format!("{}-{:02}-{:02}", 2000 + number % 24, 1 + number % 12, 1 + number % 28)
}

/// A column of texts, in batches.
fn texts(text: Text) -> Vec<ArrayRef> {
    let all: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(text)));
    (0..all.len()).step_by(BATCH).map(|at| all.slice(at, BATCH.min(all.len() - at))).collect()
}

fn csv_records(criterion: &mut Criterion) {
    let mut csv = "sale_ref,amount,sold_on,note\n".to_owned();
    for row in 0..ROWS {
        // A comma in quotes each tenth row, and a quote.
        let note = if row % 10 == 0 { format!("\"of {row}, \"\"late\"\"\"") } else { format!("note of {row}") };
        writeln!(csv, "{},{},{},{note}", reference(row), amount(row), day(row)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sale.csv"), &csv).unwrap();
    let spec: SourceSpec = serde_json::from_value(serde_json::json!({ "path": "sale.csv" })).unwrap();
    let source = Source::try_new(&spec, Path::new(folder.path())).unwrap();
    let mut group = criterion.benchmark_group("csv records to batches");
    group.throughput(Throughput::Bytes(csv.len() as u64));
    group.bench_function("quoted and plain", |bench| {
        bench.iter(|| source.batches(BATCH).map(|batch| batch.unwrap().lines.len()).sum::<usize>());
    });
    group.finish();
}

fn texts_to_types(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("text to");
    group.throughput(Throughput::Elements(ROWS));
    let kinds: [(&str, DataType, Text); 3] = [
        ("decimal", DataType::Decimal128(12, 2), amount),
        ("date", DataType::Date32, day),
        ("integer", DataType::Int64, |row| number(row).cast_signed().to_string()),
    ];
    for (name, to, text) in kinds {
        let batches = texts(text);
        group.bench_function(name, |bench| {
            bench.iter(|| batches.iter().map(|batch| cast(batch, &to).unwrap().1).sum::<usize>());
        });
    }
    group.finish();
}

/// Rows of a reference and a number as the engine keeps them.
fn rows(engine: &Engine, reference: Text) -> Arc<RowStore> {
    let fields = vec![Field::new("ref", DataType::Utf8, true), Field::new("n", DataType::Int64, true)];
    let schema = Arc::new(Schema::new(fields));
    let mut writer = engine.rows(schema.clone());
    for batch in texts(reference) {
        let lengths: ArrayRef = Arc::new(Int64Array::from(vec![1; batch.len()]));
        writer.write(&RecordBatch::try_new(schema.clone(), vec![batch, lengths]).unwrap()).unwrap();
    }
    writer.finish()
}

fn hashes(criterion: &mut Criterion) {
    let engine = Engine::try_new(Limits { threads: 1, ..Limits::default() }).unwrap();
    // A thousandth of the rows are there twice.
    let children = rows(&engine, |row| reference(if row % 1000 == 7 { row - 1 } else { row }));
    let parents = rows(&engine, reference);
    let none = RowSet::default();
    let mut group = criterion.benchmark_group("hashes");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("unique", |bench| {
        bench.iter(|| Hashes::new(&children, &[0], &none, engine.limits()).repeated().unwrap().count());
    });
    group.bench_function("unique over two columns", |bench| {
        bench.iter(|| Hashes::new(&children, &[0, 1], &none, engine.limits()).repeated().unwrap().count());
    });
    group.bench_function("references", |bench| {
        bench.iter(|| {
            let (ours, theirs) = (&children, &parents);
            let ours = Hashes::new(ours, &[0], &none, engine.limits());
            let mut found = 0_u64;
            ours.partners(&Hashes::new(theirs, &[0], &none, engine.limits()), |_, _| found += 1).unwrap();
            found
        });
    });
    group.finish();
}

fn keys(criterion: &mut Criterion) {
    let kept_out = (0..ROWS).filter(|row| number(*row).is_multiple_of(1000)).map(RowNumber::new);
    let kept_out = kept_out.collect::<RowSet>().ranked();
    let batches: Vec<_> = (0..ROWS as i64)
        .step_by(BATCH)
        .map(|first| Int64Array::from_iter_values(first..(first + BATCH as i64).min(ROWS as i64)))
        .collect();
    let text = TextKey { prefix: "M".into(), width: 10 };
    let mut group = criterion.benchmark_group("keys");
    group.throughput(Throughput::Elements(ROWS));
    for (name, text, data_type) in [("integers", None, DataType::Int64), ("texts", Some(&text), DataType::Utf8)] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                for rows in &batches {
                    black_box(
                        written(&offset(&kept_out, RowNumber::new(0), rows, 1_000_000, 1), text, &data_type).unwrap(),
                    );
                }
            });
        });
    }
    group.finish();
}

/// Rows as they are copied: an integer, a text, a decimal and a date.
fn typed() -> (SchemaRef, Vec<RecordBatch>) {
    let types = [
        ("id", DataType::Int64, texts(|row| row.to_string())),
        ("ref", DataType::Utf8, texts(reference)),
        ("amount", DataType::Decimal128(12, 2), texts(amount)),
        ("sold_on", DataType::Date32, texts(day)),
    ];
    let fields = types.iter().map(|(name, data_type, _)| Field::new(*name, data_type.clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = |at: usize| {
        let columns = types.iter().map(|(_, data_type, texts)| cast(&texts[at], data_type).unwrap().0);
        RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
    };
    let batches = (0..types[0].2.len()).map(batch).collect();
    (schema, batches)
}

fn copy(criterion: &mut Criterion) {
    let (schema, batches) = typed();
    let bytes = encode(&schema, &batches).unwrap();
    assert_eq!(decode(&schema, &bytes, PIECE).unwrap(), batches, "there and back");
    let mut group = criterion.benchmark_group("binary COPY");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bench| bench.iter(|| encode(&schema, &batches).unwrap()));
    group.bench_function("decode", |bench| {
        bench.iter_batched(|| bytes.clone(), |bytes| decode(&schema, &bytes, PIECE).unwrap(), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(20);
    targets = csv_records, texts_to_types, hashes, keys, copy
}
criterion_main!(kernels);
