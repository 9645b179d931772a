//! Values through a real server and back.

mod columns;
mod forms;
mod texts;
mod values;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, pin_mut};
use tokio_postgres::{Client, NoTls};

use super::decode::Decoder;
use super::encode::Encoder;
use super::types::PgType;

/// A dedicated database for a test.
struct Server {
    database: super::server::Database,
}

impl Server {
    fn start() -> Self {
        Self { database: super::server::Server::shared().database("") }
    }

    async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.database.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("SET timezone = 'UTC'; SET extra_float_digits = 1").await.unwrap();
        client
    }
}

async fn copy_in(client: &Client, table: &str, bytes: Bytes) -> u64 {
    let sink = client.copy_in(&format!("COPY {table} FROM STDIN (FORMAT binary)")).await.unwrap();
    pin_mut!(sink);
    sink.send(bytes).await.unwrap();
    sink.finish().await.unwrap()
}

async fn copy_out(client: &Client, query: &str) -> Vec<Bytes> {
    let stream = client.copy_out(&format!("COPY ({query}) TO STDOUT (FORMAT binary)")).await.unwrap();
    stream.map(Result::unwrap).collect().await
}

fn encoded(columns: &[(DataType, PgType)], batch: &RecordBatch) -> Bytes {
    let mut out = BytesMut::new();
    Encoder::header(&mut out);
    Encoder::try_new(columns).unwrap().encode(batch, &mut out).unwrap();
    Encoder::trailer(&mut out);
    out.freeze()
}

fn decoded(schema: &SchemaRef, types: Vec<PgType>, rows: usize, pieces: Vec<Bytes>) -> RecordBatch {
    let mut decoder = Decoder::try_new(schema.clone(), types, rows).unwrap();
    let mut batches = Vec::new();
    for piece in pieces {
        batches.extend(decoder.push(piece).unwrap());
    }
    batches.extend(decoder.finish().unwrap());
    assert!(batches.iter().all(|batch| batch.num_rows() <= rows));
    arrow::compute::concat_batches(schema, &batches).unwrap()
}
