//! Written values are read back unchanged, and match the server's output.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::columns::{Column, ROWS, columns, schema};
use super::{Decoder, PgType, Server, copy_in, copy_out, decoded, encoded};

fn list(columns: &[Column], one: impl Fn(usize, &Column) -> String) -> String {
    columns.iter().enumerate().map(|(at, column)| one(at, column)).collect::<Vec<_>>().join(", ")
}

/// Returns the rows of a query as text.
async fn rows(client: &Client, query: &str) -> Vec<Vec<Option<String>>> {
    let mut found = Vec::new();
    for message in client.simple_query(query).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            found.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
        }
    }
    found
}

#[tokio::test]
async fn every_value_of_every_type_comes_back_as_it_went() {
    let server = Server::start();
    let client = server.connect().await;
    let columns = columns();
    let schema = schema(&columns);
    let types: Vec<_> = columns.iter().map(|column| column.pg.clone()).collect();
    let staged = list(&columns, |at, column| {
        format!("c{at} {}", if column.pg.travels_as_text() { "text" } else { column.declared })
    });
    let live = list(&columns, |at, column| format!("c{at} {}", column.declared));
    client
        .batch_execute(&format!(
            "CREATE TYPE mood AS ENUM ('sad', 'o''k', 'hüpf', '');
             CREATE DOMAIN positive AS int4 CHECK (value >= 0);
             CREATE TABLE staged ({staged}, _row serial); CREATE TABLE live ({live}, _row int4)"
        ))
        .await
        .unwrap();

    let fields: Vec<_> = columns.iter().map(|column| (column.pg.arrow(), column.pg.clone())).collect();
    let into = format!("staged ({})", list(&columns, |at, _| format!("c{at}")));
    let mut runner = TestRunner::deterministic();
    for case in 0..25 {
        let arrays = columns.iter().map(|column| column.values.new_tree(&mut runner).unwrap().current()).collect();
        let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
        // Staging a slice of a batch must make no difference.
        let batch = batch.slice(case % 3, ROWS - 5);
        client.batch_execute("TRUNCATE staged, live").await.unwrap();
        assert_eq!(copy_in(&client, &into, encoded(&fields, &batch)).await, batch.num_rows() as u64);
        let casts = list(&columns, |at, column| {
            if column.pg.travels_as_text() { format!("c{at}::{}", column.declared) } else { format!("c{at}") }
        });
        client.batch_execute(&format!("INSERT INTO live SELECT {casts}, _row FROM staged")).await.unwrap();

        let read =
            list(&columns, |at, column| format!("c{at}{}", if column.pg.travels_as_text() { "::text" } else { "" }));
        let pieces = copy_out(&client, &format!("SELECT {read} FROM live ORDER BY _row")).await;
        let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
        let step = 1 + case * case * 7;
        let cut = whole.chunks(step).map(Bytes::copy_from_slice).collect();
        for pieces in [pieces, cut] {
            let found = decoded(&schema, types.clone(), 1 + case * 3, pieces);
            for (at, column) in columns.iter().enumerate() {
                let (found, expected) = (found.column(at), batch.column(at));
                let different = (0..expected.len()).find(|row| found.slice(*row, 1) != expected.slice(*row, 1));
                assert_eq!(different, None, "{}: {found:?} in place of {expected:?}", column.declared);
            }
        }

        let all = list(&columns, |at, _| format!("c{at}::text"));
        for (row, shown) in rows(&client, &format!("SELECT {all} FROM live ORDER BY _row")).await.iter().enumerate() {
            for (at, column) in columns.iter().enumerate() {
                let Some(as_server) = column.shown else { continue };
                let expected = match column.pg {
                    // An offset that needs no time zone table.
                    PgType::Timestamptz => {
                        &cast(batch.column(at), &DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())))
                            .unwrap()
                    }
                    _ => batch.column(at),
                };
                let expected = expected.is_valid(row).then(|| as_server(array_value_to_string(expected, row).unwrap()));
                assert_eq!(shown[at], expected, "{} in row {row}", column.declared);
            }
        }
    }
}

#[tokio::test]
async fn a_row_number_and_a_level_go_and_come_as_integers() {
    let server = Server::start();
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE staged (_row bigint, _level bigint)").await.unwrap();
    let schema = Arc::new(Schema::new(vec![
        Field::new("_row", DataType::Int64, false),
        Field::new("_level", DataType::Int64, false),
    ]));
    let column = || Arc::new(Int64Array::from(vec![0, 1, 4_294_967_296, i64::MAX])) as ArrayRef;
    let batch = RecordBatch::try_new(schema.clone(), vec![column(), column()]).unwrap();
    let columns = [(DataType::Int64, PgType::Int8), (DataType::Int64, PgType::Int8)];
    copy_in(&client, "staged", encoded(&columns, &batch)).await;
    let pieces = copy_out(&client, "SELECT * FROM staged").await;
    assert_eq!(decoded(&schema, vec![PgType::Int8, PgType::Int8], 100, pieces), batch);
}

#[tokio::test]
async fn a_value_that_has_no_place_here_names_its_column() {
    let server = Server::start();
    let client = server.connect().await;
    let numeric = || PgType::Numeric { precision: None, scale: 0 };
    for (value, pg, message) in [
        ("'NaN'::numeric", numeric(), Some("is not a finite number (NaN or infinity)")),
        ("'-Infinity'::numeric", numeric(), Some("is not a finite number (NaN or infinity)")),
        ("1e38::numeric", numeric(), Some("has more digits than there is room for here")),
        ("1e-39::numeric", numeric(), Some("has more digits than there is room for here")),
        ("1e-38::numeric", numeric(), None),
        ("9e37::numeric", numeric(), None),
        ("1.50000000000000000000000000000000000000000000000::numeric", numeric(), None),
        ("'infinity'::date", PgType::Date, Some("is infinite")),
        ("'4713-01-01 BC'::date", PgType::Date, None),
        ("'5874897-12-31'::date", PgType::Date, None),
        ("'-infinity'::timestamp", PgType::Timestamp, Some("is infinite")),
        ("'294276-12-31'::timestamp", PgType::Timestamp, Some("is beyond the range of its type here")),
        ("'24:00'::time", PgType::Time, Some("is the time 24:00, which is out of range")),
        ("'NaN'::float8", PgType::Float8, None),
    ] {
        let schema = Arc::new(Schema::new(vec![Field::new("x", pg.arrow(), true)]));
        let mut decoder = Decoder::try_new(schema, vec![pg], 10).unwrap();
        let mut error = None;
        for piece in copy_out(&client, &format!("SELECT {value}")).await {
            error = error.or(decoder.push(piece).err());
        }
        let expected = message.map(|message| format!("cannot read column `x` of production: a value {message}"));
        assert_eq!(error.map(|error| error.to_string()), expected, "{value}");
    }
}
