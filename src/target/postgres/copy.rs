//! Rows to the server and back by binary COPY.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, pin_mut};
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::Client;

use super::connect::{Connector, Session};
use super::decode::Decoder;
use super::encode::Encoder;
use super::types::PgType;
use crate::engine::ident;
use crate::error::{Error, Result};
use crate::target::Batches;

/// Bytes that go to the server in one message.
const MESSAGE: usize = 128 << 10;

/// Rows of one batch that comes back.
const ROWS: usize = 8192;

/// One column of a COPY.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) pg: PgType,
}

impl Wire {
    pub(super) fn new(name: &str, data_type: DataType, pg: PgType) -> Self {
        Self { name: name.to_owned(), data_type, pg }
    }

    /// A row's number, or its level.
    pub(super) fn number(name: &str) -> Self {
        Self::new(name, DataType::UInt32, PgType::Int4)
    }

    pub(super) fn text(name: &str) -> Self {
        Self::new(name, DataType::Utf8, PgType::Text)
    }

    /// SQL that reads the column of `of` as it comes back.
    pub(super) fn read(&self, of: &str) -> String {
        let text = if self.pg.travels_as_text() { "::text" } else { "" };
        format!("{of}.{}{text}", ident(&self.name))
    }
}

/// Copies rows into a table over several connections at once.
pub(super) async fn copy_in(
    connector: &Connector,
    sessions: &[Arc<Session>],
    table: &str,
    columns: &[Wire],
    mut rows: Batches<'_>,
) -> Result<u64> {
    let names: Vec<_> = columns.iter().map(|column| ident(&column.name)).collect();
    let sql = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", names.join(", "));
    let types: Vec<_> = columns.iter().map(|column| (column.data_type.clone(), column.pg.clone())).collect();
    let (sender, receiver) = mpsc::channel(sessions.len() * 2);
    let receiver = Arc::new(Mutex::new(receiver));
    let workers: Vec<_> = sessions
        .iter()
        .map(|session| {
            let (session, sql, types, receiver) = (session.clone(), sql.clone(), types.clone(), receiver.clone());
            tokio::spawn(async move { work(&session, &sql, &types, receiver).await })
        })
        .collect();
    let mut failed = None;
    while let Some(batch) = rows.next().await {
        match batch {
            Ok(batch) => {
                // Nobody takes batches any more: a worker failed and tells why.
                if sender.send(Some(batch)).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if failed.is_none() {
        for _ in &workers {
            sender.send(None).await.ok();
        }
    }
    drop(sender);
    let mut count = 0;
    for worker in workers {
        match worker.await.map_err(Error::internal)? {
            Ok(copied) => count += copied,
            Err(Cut::Encode(error)) => failed = failed.or(Some(error)),
            Err(Cut::Server(error)) => {
                failed = failed.or_else(|| Some(connector.explain(&format!("cannot copy rows into {table}"), &error)));
            }
            Err(Cut::Short) => {}
        }
    }
    failed.map_or(Ok(count), Err)
}

/// Why a COPY ended early.
enum Cut {
    Encode(Error),
    Server(tokio_postgres::Error),
    /// The rows ended without their end.
    Short,
}

type Receiver = Arc<Mutex<mpsc::Receiver<Option<RecordBatch>>>>;

async fn work(client: &Client, sql: &str, types: &[(DataType, PgType)], receiver: Receiver) -> Result<u64, Cut> {
    let copied = copy(client, sql, types, &receiver).await;
    if copied.is_err() {
        receiver.lock().await.close();
    }
    copied
}

async fn copy(client: &Client, sql: &str, types: &[(DataType, PgType)], receiver: &Receiver) -> Result<u64, Cut> {
    let encoder = Encoder::try_new(types).map_err(Cut::Encode)?;
    let sink = client.copy_in::<_, Bytes>(sql).await.map_err(Cut::Server)?;
    pin_mut!(sink);
    let mut out = BytesMut::with_capacity(2 * MESSAGE);
    Encoder::header(&mut out);
    loop {
        // A sink that is dropped unfinished tells the server to forget the rows.
        let next = receiver.lock().await.recv().await.ok_or(Cut::Short)?;
        let Some(batch) = next else { break };
        encoder.encode(&batch, &mut out).map_err(Cut::Encode)?;
        if out.len() >= MESSAGE {
            sink.send(out.split().freeze()).await.map_err(Cut::Server)?;
        }
    }
    Encoder::trailer(&mut out);
    sink.send(out.freeze()).await.map_err(Cut::Server)?;
    sink.finish().await.map_err(Cut::Server)
}

/// Copies batches into a table over one connection.
pub(super) async fn send(
    connector: &Connector,
    client: &Client,
    table: &str,
    columns: &[Wire],
    rows: &[RecordBatch],
) -> Result<u64> {
    let fault = |error| connector.explain(&format!("cannot copy rows into {table}"), &error);
    let names: Vec<_> = columns.iter().map(|column| ident(&column.name)).collect();
    let sql = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", names.join(", "));
    let types: Vec<_> = columns.iter().map(|column| (column.data_type.clone(), column.pg.clone())).collect();
    let encoder = Encoder::try_new(&types)?;
    let sink = client.copy_in::<_, Bytes>(sql.as_str()).await.map_err(fault)?;
    pin_mut!(sink);
    let mut out = BytesMut::new();
    Encoder::header(&mut out);
    for batch in rows {
        encoder.encode(batch, &mut out)?;
        sink.send(out.split().freeze()).await.map_err(fault)?;
    }
    Encoder::trailer(&mut out);
    sink.send(out.freeze()).await.map_err(fault)?;
    sink.finish().await.map_err(fault)
}

/// Reads what a query gives; its columns come as `columns` has them.
pub(super) async fn receive(
    connector: &Connector,
    client: &Client,
    query: &str,
    columns: &[Wire],
) -> Result<Vec<RecordBatch>> {
    let fault = |error| connector.explain("cannot read", &error);
    let fields = columns.iter().map(|column| {
        let nullable = column.data_type != DataType::UInt32;
        arrow::datatypes::Field::new(&column.name, column.data_type.clone(), nullable)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut decoder = Decoder::try_new(schema, columns.iter().map(|column| column.pg.clone()).collect(), ROWS)?;
    let stream = client.copy_out(format!("COPY ({query}) TO STDOUT (FORMAT binary)").as_str()).await.map_err(fault)?;
    pin_mut!(stream);
    let mut batches = Vec::new();
    while let Some(chunk) = stream.next().await {
        batches.extend(decoder.push(chunk.map_err(fault)?)?);
    }
    batches.extend(decoder.finish()?);
    Ok(batches)
}
