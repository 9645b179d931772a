//! Binary COPY to and from the server.

use std::borrow::Borrow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt, TryStreamExt, pin_mut, stream};
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::Client;

use super::connect::{Connector, Session};
use super::decode::Decoder;
use super::encode::Encoder;
use super::types::PgType;
use super::{PgTarget, open_session};
use crate::engine::ident;
use crate::error::{Error, Result};
use crate::target::Batches;

/// Bytes per message to the server.
const MESSAGE: usize = 128 << 10;

const ROWS: usize = 8192;

#[derive(Debug, Clone)]
pub(super) struct CopyColumn {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) pg: PgType,
}

impl CopyColumn {
    pub(super) fn new(name: &str, data_type: DataType, pg: PgType) -> Self {
        Self { name: name.to_owned(), data_type, pg }
    }

    /// Returns a column of row numbers or levels.
    pub(super) fn number(name: &str) -> Self {
        Self::new(name, DataType::Int64, PgType::Int8)
    }

    pub(super) fn text(name: &str) -> Self {
        Self::new(name, DataType::Utf8, PgType::Text)
    }

    /// Returns SQL that reads the column of `of` in its copied type.
    pub(super) fn read(&self, of: &str) -> String {
        let text = if self.pg.travels_as_text() { "::text" } else { "" };
        format!("{of}.{}{text}", ident(&self.name))
    }
}

/// The table and columns that rows are copied into.
pub(super) struct CopyTarget<'a> {
    pub(super) connector: &'a Connector,
    pub(super) table: &'a str,
    pub(super) columns: &'a [CopyColumn],
}

impl CopyTarget<'_> {
    /// Copies rows over several sessions in parallel.
    pub(super) async fn copy(&self, sessions: &[Arc<Session>], mut rows: Batches<'_>) -> Result<u64> {
        let (sender, receiver) = mpsc::channel(sessions.len() * 2);
        let receiver = Arc::new(Mutex::new(receiver));
        let workers: Vec<_> = sessions
            .iter()
            .map(|session| {
                let (session, sql, types, receiver) = (session.clone(), self.sql(), self.types(), receiver.clone());
                tokio::spawn(async move { work(&session, &sql, &types, receiver).await })
            })
            .collect();
        let mut failed = None;
        while let Some(batch) = rows.next().await {
            match batch {
                Ok(batch) => {
                    // All workers have stopped: one failed, and its error is returned below.
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
                Err(abort) => failed = failed.or(self.error_of(abort)),
            }
        }
        failed.map_or(Ok(count), Err)
    }

    /// Copies rows over one session. Distinguishes the server's errors from rows that cannot be read.
    pub(super) async fn stream(&self, client: &Client, rows: Batches<'_>, insert: Insert) -> Result<u64, Refused> {
        let rows = rows.map(|batch| batch.map_err(InsertAbort::Encode));
        let sql = match insert {
            Insert::Pages => self.sql(),
            Insert::Rows => self.sql() + BY_ROW,
        };
        copy(client, &sql, &self.types(), rows).await.map_err(|abort| match abort {
            InsertAbort::Server(error) => Refused::Server(error),
            InsertAbort::Encode(error) => Refused::Failed(error),
            InsertAbort::Short => Refused::Failed(Error::internal("a copy without its end")),
        })
    }

    /// Copies rows over one session.
    pub(super) async fn copy_into(&self, client: &Client, rows: Batches<'_>) -> Result<u64> {
        self.stream(client, rows, Insert::Pages).await.map_err(|refused| match refused {
            Refused::Failed(error) => error,
            Refused::Server(error) => self.connector.explain(&format!("cannot copy rows into {}", self.table), &error),
        })
    }

    pub(super) async fn send(&self, client: &Client, rows: &[RecordBatch]) -> Result<u64> {
        let rows: Vec<_> = rows.iter().cloned().map(Ok).collect();
        let copied = copy(client, &self.sql(), &self.types(), stream::iter(rows)).await;
        copied.map_err(|abort| self.error_of(abort).unwrap_or_else(|| Error::internal("a copy without its end")))
    }

    fn sql(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| ident(&column.name)).collect();
        format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.table, names.join(", "))
    }

    fn types(&self) -> Vec<(DataType, PgType)> {
        self.columns.iter().map(|column| (column.data_type.clone(), column.pg.clone())).collect()
    }

    fn error_of(&self, abort: InsertAbort) -> Option<Error> {
        match abort {
            InsertAbort::Encode(error) => Some(error),
            InsertAbort::Server(error) => {
                Some(self.connector.explain(&format!("cannot copy rows into {}", self.table), &error))
            }
            InsertAbort::Short => None,
        }
    }
}

/// How the server inserts the rows of a COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Insert {
    /// Page by page, with the least work per row.
    Pages,
    /// Row by row. Page by page, the server keeps up to a thousand descriptors of the table until all rows are checked. They share one slot
    /// of its resource list. If another table's descriptor hashes to that slot, each check walks through them (PostgreSQL 15: up to a sixth
    /// of a load's time, depending on the memory layout).
    Rows,
}

/// A condition that makes the server insert row by row, because it is volatile.
const BY_ROW: &str = " WHERE pg_catalog.random() OPERATOR(pg_catalog.>=) 0";

/// The reason that a [`CopyTarget::stream`] ended early.
pub(super) enum Refused {
    /// The server reported an error.
    Server(tokio_postgres::Error),
    /// The rows could not be read or encoded.
    Failed(Error),
}

/// The reason that a COPY ended early.
enum InsertAbort {
    Encode(Error),
    Server(tokio_postgres::Error),
    /// The rows stopped without an end marker; their producer has the error.
    Short,
}

/// Batches for the next free worker, then one None per worker.
type Receiver = Arc<Mutex<mpsc::Receiver<Option<RecordBatch>>>>;

async fn work(
    client: &Client,
    sql: &str,
    types: &[(DataType, PgType)],
    receiver: Receiver,
) -> Result<u64, InsertAbort> {
    let rows = stream::unfold(Some(receiver.clone()), |receiver| async move {
        let receiver = receiver?;
        let next = receiver.lock().await.recv().await;
        match next {
            Some(Some(batch)) => Some((Ok(batch), Some(receiver))),
            Some(None) => None,
            None => Some((Err(InsertAbort::Short), None)),
        }
    });
    let copied = copy(client, sql, types, rows).await;
    if copied.is_err() {
        receiver.lock().await.close();
    }
    copied
}

async fn copy(
    client: &Client,
    sql: &str,
    types: &[(DataType, PgType)],
    rows: impl Stream<Item = Result<RecordBatch, InsertAbort>> + Send,
) -> Result<u64, InsertAbort> {
    let encoder = Encoder::try_new(types).map_err(InsertAbort::Encode)?;
    let copying = tracing::info_span!("COPY", of = sql.trim_start_matches("COPY ").split(" (").next());
    // Dropping an unfinished sink makes the server discard the rows.
    let sink = client.copy_in::<_, Bytes>(sql).await.map_err(InsertAbort::Server)?;
    pin_mut!(sink, rows);
    let mut out = BytesMut::with_capacity(2 * MESSAGE);
    Encoder::header(&mut out);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let encode = tracing::info_span!("encode", rows = batch.num_rows());
        encode.in_scope(|| encoder.encode(&batch, &mut out)).map_err(InsertAbort::Encode)?;
        if out.len() >= MESSAGE {
            let _send = tracing::info_span!(parent: &copying, "send", bytes = out.len());
            sink.send(out.split().freeze()).await.map_err(InsertAbort::Server)?;
        }
    }
    Encoder::trailer(&mut out);
    sink.send(out.freeze()).await.map_err(InsertAbort::Server)?;
    let _wait = tracing::info_span!(parent: &copying, "wait for the server");
    sink.finish().await.map_err(InsertAbort::Server)
}

/// Returns the result of a query, whose columns are `columns`.
pub(super) async fn receive(
    connector: &Connector,
    client: &Client,
    query: &str,
    columns: &[CopyColumn],
) -> Result<Vec<RecordBatch>> {
    read(connector, client, query, columns).await?.try_collect().await
}

/// Streams the result of a query, whose columns are `columns`.
pub(super) async fn read<'a>(
    connector: impl Borrow<Connector> + Send + Sync + 'a,
    client: &Client,
    query: &str,
    columns: &[CopyColumn],
) -> Result<Batches<'a>> {
    let fault = |error| connector.borrow().explain("cannot read", &error);
    let fields =
        columns.iter().map(|column| arrow::datatypes::Field::new(&column.name, column.data_type.clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let decoder = Decoder::try_new(schema, columns.iter().map(|column| column.pg.clone()).collect(), ROWS)?;
    let stream = client.copy_out(format!("COPY ({query}) TO STDOUT (FORMAT binary)").as_str()).await.map_err(fault)?;
    // Each message is a row, and a batch has many.
    let state = (Box::pin(stream), Some(decoder), connector);
    let batches = stream::try_unfold(state, move |(mut stream, mut decoder, connector)| async move {
        while let Some(mut reading) = decoder.take() {
            let batches = match stream.next().await {
                Some(chunk) => {
                    let chunk = chunk.map_err(|error| connector.borrow().explain("cannot read", &error))?;
                    let batches = reading.push(chunk)?;
                    decoder = Some(reading);
                    batches
                }
                None => reading.finish()?.into_iter().collect(),
            };
            if !batches.is_empty() {
                return Ok(Some((stream::iter(batches.into_iter().map(Ok)), (stream, decoder, connector))));
            }
        }
        Ok::<_, Error>(None)
    });
    Ok(batches.try_flatten().boxed())
}

impl PgTarget {
    /// Streams the result of a query over a separate session. Other queries may run meanwhile, and dropping the stream cancels it.
    pub(super) async fn stream(&self, query: &str, columns: &[CopyColumn]) -> Result<Batches<'static>> {
        if self.unfinished {
            // The database was just created by a script and is not committed, so no other session can see it.
            let read = receive(&self.connector, &*self.session.lock().await, query, columns).await?;
            return Ok(stream::iter(read.into_iter().map(Ok)).boxed());
        }
        let session = open_session(&self.connector, self.access, "cannot read").await?;
        let rows = read(self.connector.clone(), &session, query, columns).await?;
        let held = stream::unfold((rows, session), |(mut rows, session)| async move {
            rows.next().await.map(|batch| (batch, (rows, session)))
        });
        Ok(held.boxed())
    }
}
