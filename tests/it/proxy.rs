//! A network between the binary and PostgreSQL that fails at a chosen moment, once. It understands the protocol's messages: a
//! startup packet by its length, and from then on a type and a length each. No TLS: it must be read.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::server::Database;

/// When the connection is cut, and how. A cut is one of both sides; whoever connects afterwards is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// At no time.
    Never,
    /// The last COMMIT never reaches the server.
    BeforeCommit,
    /// It is on its way, and nobody is there any more for the answer.
    InCommit,
    /// The server has answered, and the answer goes nowhere.
    AfterCommit,
    /// Nothing moves for some time, and then the last COMMIT is lost with its connection.
    Stalled(Duration),
    /// After so many bytes of rows that are copied into staging.
    Copied(usize),
}

/// Something that is done once, before a message of the session that inserts into production is passed on: the number of the message,
/// counted from the one with which the first row comes to the one with the COMMIT.
type Plant = (usize, Box<dyn Fn() + Send + Sync>);

/// What the proxy's threads share.
struct Line {
    cut: Cut,
    plant: Option<Plant>,
    /// How many such messages there were.
    inserting: AtomicUsize,
    server: u16,
    done: AtomicBool,
    /// Whether the cut is behind it.
    cut_already: AtomicBool,
    copied: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
}

/// A proxy; its connections are gone with it.
pub struct Proxy {
    port: u16,
    line: Arc<Line>,
}

impl Proxy {
    pub fn new(server: u16, cut: Cut) -> Self {
        Self::with(server, cut, None)
    }

    /// A network that does not fail, and does something before a message, see [`Plant`].
    pub fn planting(server: u16, message: usize, plant: impl Fn() + Send + Sync + 'static) -> Self {
        Self::with(server, Cut::Never, Some((message, Box::new(plant))))
    }

    fn with(server: u16, cut: Cut, plant: Option<Plant>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Arc::new(Line {
            cut,
            plant,
            inserting: AtomicUsize::new(0),
            server,
            done: AtomicBool::new(false),
            cut_already: AtomicBool::new(false),
            copied: AtomicUsize::new(0),
            streams: Mutex::default(),
        });
        let shared = line.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.done.load(Ordering::SeqCst) {
                    break;
                }
                shared.connect(client);
            }
        });
        Self { port, line }
    }

    /// A database's URL by way of this proxy.
    pub fn url(&self, database: &Database) -> String {
        let direct = format!("127.0.0.1:{}/", self.line.server);
        database.url().replace(&direct, &format!("127.0.0.1:{}/", self.port)) + "?sslmode=disable"
    }

    /// How many messages the session that inserts has sent from the first row to its COMMIT.
    pub fn messages(&self) -> usize {
        self.line.inserting.load(Ordering::SeqCst)
    }

    /// Whether it has come to the cut.
    pub fn has_cut(&self) -> bool {
        self.line.cut_already.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.done.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        for stream in self.line.streams.lock().unwrap().iter() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// One connection of a client.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// Whether the server's answers are kept from the client: they are those to the last COMMIT.
    withheld: AtomicBool,
}

impl Line {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.server)) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            self.streams.lock().unwrap().push(stream.try_clone().unwrap());
        }
        let connection = Arc::new(Connection { client, server, withheld: AtomicBool::new(false) });
        let (line, same) = (self.clone(), connection.clone());
        thread::spawn(move || {
            drop(line.to_server(&same));
            same.end();
        });
        thread::spawn(move || {
            drop(connection.to_client());
            connection.end();
        });
    }

    /// Passes on what the client says, message by message, until it is time for the cut.
    fn to_server(&self, connection: &Connection) -> std::io::Result<()> {
        let (from, mut to) = (&connection.client, &connection.server);
        let startup = packet(from, Vec::new())?;
        to.write_all(&startup)?;
        let (mut notes_the_run, mut stages, mut inserts) = (false, false, false);
        loop {
            let message = message(from)?;
            let text = &message[5..];
            match message[0] {
                // Simple and prepared statements.
                b'Q' | b'P' => {
                    notes_the_run |= has(text, b"delta.record_run(");
                    stages = has(text, b"COPY \"staging\".");
                    inserts |= has(text, b"COPY \"public\".") || has(text, b"INSERT INTO \"public\".");
                }
                b'd' if stages => {
                    let copied = self.copied.fetch_add(text.len(), Ordering::SeqCst) + text.len();
                    if matches!(self.cut, Cut::Copied(most) if copied >= most) && self.now() {
                        // A message that ends in its middle.
                        to.write_all(&message[..message.len() / 2])?;
                        return Ok(());
                    }
                }
                _ => {}
            }
            if inserts {
                let number = self.inserting.fetch_add(1, Ordering::SeqCst);
                if let Some((_, plant)) = self.plant.as_ref().filter(|(at, _)| *at == number) {
                    plant();
                }
                inserts = !(message[0] == b'Q' && text.ends_with(b"COMMIT\0"));
            }
            let commits = message[0] == b'Q' && text.trim_ascii_end().ends_with(b"COMMIT\0");
            if notes_the_run && commits && !matches!(self.cut, Cut::Copied(_) | Cut::Never) && self.now() {
                return self.cut_at_commit(connection, &message);
            }
            to.write_all(&message)?;
        }
    }

    fn cut_at_commit(&self, connection: &Connection, commit: &[u8]) -> std::io::Result<()> {
        let (from, mut to) = (&connection.client, &connection.server);
        connection.withheld.store(true, Ordering::SeqCst);
        match self.cut {
            Cut::Never | Cut::BeforeCommit | Cut::Copied(_) => {}
            Cut::InCommit => to.write_all(commit)?,
            Cut::AfterCommit => {
                to.write_all(commit)?;
                // The other direction ends the connection when the answer is there; the client has nothing to say before.
                message(from)?;
            }
            Cut::Stalled(time) => thread::sleep(time),
        }
        Ok(())
    }

    /// Whether this is the first time.
    fn now(&self) -> bool {
        !self.cut_already.swap(true, Ordering::SeqCst)
    }
}

impl Connection {
    /// Passes on what the server says, or keeps it back until the answer is whole.
    fn to_client(&self) -> std::io::Result<()> {
        let (mut from, mut to) = (&self.server, &self.client);
        let mut buffer = vec![0; 1 << 16];
        let mut kept = Vec::new();
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if !self.withheld.load(Ordering::SeqCst) {
                to.write_all(&buffer[..count])?;
                continue;
            }
            kept.extend_from_slice(&buffer[..count]);
            // ReadyForQuery, outside of a transaction.
            if kept.ends_with(b"Z\0\0\0\x05I") {
                return Ok(());
            }
        }
    }

    fn end(&self) {
        for stream in [&self.client, &self.server] {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|found| found == part)
}

/// A message with its type.
fn message(mut from: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    packet(from, kind.to_vec())
}

/// A length, which counts itself, and what it is the length of; behind what was read already.
fn packet(mut from: &TcpStream, mut read: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let begins = read.len();
    read.extend_from_slice(&length);
    read.resize(begins + u32::from_be_bytes(length) as usize, 0);
    from.read_exact(&mut read[begins + 4..])?;
    Ok(read)
}
