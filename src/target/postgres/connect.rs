//! Sessions with the server: each direct, with the settings that a load relies on.

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use futures::pin_mut;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::Config;
use tokio_postgres::{CancelToken, Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::errors::{Whom, explain};
use super::url::ServerUrl;
use crate::error::{Error, Result};
use crate::spec::LoadSpec;
use crate::target::Access;

/// The oldest server that is supported.
const OLDEST: u32 = 13;

/// What every session has, whatever the role, the database or the server say.
///
/// - A transaction that idles holds locks on production: after ten minutes its process hangs, or is cut off. A session that waits
///   longer than that for another says so ([`Session::wait_for`]).
/// - While files are read and checked, a session idles, and it holds the lock of those who write: no server setting ends it. A long
///   load is one transaction: no server setting limits that either. Each of its statements has its own limit. The two settings
///   exist since PostgreSQL 14 and 17.
/// - `pg_temp` comes last, so that no temporary table stands in for a catalog's; all else is qualified.
/// - With `row_security` off a policy that would hide rows is an error.
/// - Compiling a plan takes longer than most of our statements; a plan without an index looks costly when asked to be avoided.
/// - What was committed must outlive a crash, so `synchronous_commit` is not `off`.
const SETTINGS: &str = "
    SET idle_in_transaction_session_timeout = '10min';
    SET client_encoding = 'UTF8';
    SET standard_conforming_strings = on;
    SET DateStyle = 'ISO, YMD';
    SET IntervalStyle = 'postgres';
    SET TimeZone = 'UTC';
    SET extra_float_digits = 1;
    SET bytea_output = 'hex';
    SET search_path = pg_catalog, pg_temp;
    SET client_min_messages = 'warning';
    SET default_transaction_isolation = 'read committed';
    SET row_security = off;
    SET jit = off;
    SELECT set_config(name, '0', false) FROM unnest(ARRAY['idle_session_timeout', 'transaction_timeout']) AS limits (name)
    WHERE current_setting(name, true) IS NOT NULL;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
    SELECT pg_is_in_recovery(), current_setting('session_replication_role')";

/// A statement whose client is gone ends soon, and its locks with it. Since PostgreSQL 14, and not on every system.
const CHECK_CLIENT: &str = "
    SELECT set_config('client_connection_check_interval', '10s', false)
    WHERE current_setting('client_connection_check_interval', true) IS NOT NULL";

/// How often a session that waits inside its transaction is heard of: well before the server ends it for idling.
const SIGN_OF_LIFE: Duration = Duration::from_mins(1);

/// How often it is tried whether two sessions meet in one server process.
const POOLING_ROUNDS: usize = 5;

/// How the server is reached.
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    settings: String,
    shown: String,
    places: String,
    warnings: Vec<String>,
    operates: bool,
}

/// One session; when it is dropped, so is what it was doing.
pub(super) struct Session {
    client: Client,
    task: Option<JoinHandle<()>>,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
}

impl Connector {
    /// From the target's URL; `shown` is what is said of it, and `folder` is where relative paths in it start.
    ///
    /// # Errors
    /// Where the URL is wrong, or a file that it names cannot be read.
    pub(super) fn try_new(url: &str, shown: &str, folder: &Path, load: &LoadSpec) -> Result<Self> {
        let url = ServerUrl::parse(url, shown, folder, &|name| std::env::var(name).ok())?;
        let settings = format!(
            "SET lock_timeout = {}; SET statement_timeout = {};{SETTINGS}",
            load.lock_timeout.as_millis(),
            load.statement_timeout.as_millis()
        );
        let (places, tls) = (url.places(), url.tls.connector()?);
        Ok(Self {
            config: url.config,
            tls,
            settings,
            shown: shown.to_owned(),
            places,
            warnings: url.warnings,
            operates: false,
        })
    }

    /// The same, for sessions of who decides what loads may do.
    pub(super) fn acting(self, access: Access) -> Self {
        Self { operates: access == Access::Administer, ..self }
    }

    /// Whether sessions that write are not those of who loads.
    pub(super) fn operates(&self) -> bool {
        self.operates
    }

    /// The settings that every session has, as SQL.
    pub(super) fn settings(&self) -> &str {
        &self.settings
    }

    /// What to look at, though it stops nothing.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A new session. `doing` is what it is for, in an error: `cannot read the catalog`.
    ///
    /// # Errors
    /// Where the server cannot be reached, lets nobody in, is too old, or takes no writes.
    pub(super) async fn connect(&self, doing: &str) -> Result<Session> {
        // The library's own limit is on the socket alone: a server that accepts and says nothing is not covered.
        let patience =
            self.config.get_connect_timeout().copied().unwrap_or_default() * (2 * self.config.get_hosts().len() as u32);
        match timeout(patience, self.open(doing)).await {
            Ok(session) => session,
            Err(_) => Err(Error::unreachable(format!("{doing}: no answer from {} in {patience:?}", self.places))
                .hint("is it PostgreSQL that listens there, and is it overloaded?")),
        }
    }

    async fn open(&self, doing: &str) -> Result<Session> {
        let fault = |error| self.explain(doing, &error);
        let (client, connection) = self.config.connect(self.tls.clone()).await.map_err(fault)?;
        let version = connection.parameter("server_version").unwrap_or_default().to_owned();
        let cancel = client.cancel_token();
        // A connection that breaks tells the client of it.
        let task = tokio::spawn(async move { drop(connection.await) });
        let session = Session { client, task: Some(task), cancel, tls: self.tls.clone() };
        let major: String = version.chars().take_while(char::is_ascii_digit).collect();
        if major.parse().is_ok_and(|major: u32| major < OLDEST) {
            return Err(Error::unreachable(format!("{doing}: the server at {} is PostgreSQL {version}", self.places))
                .hint(format!("PostgreSQL {OLDEST} and newer are supported")));
        }
        let settings = session.simple_query(&self.settings);
        let (answers, _) = futures::join!(settings, session.simple_query(CHECK_CLIENT));
        let answers = answers.map_err(fault)?;
        let state = answers.iter().rev().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some((row.get(0)?, row.get(1)?)),
            _ => None,
        });
        match state {
            Some(("f", "origin")) => {}
            Some(("f", role)) => {
                return Err(Error::refused(format!(
                    "{doing}: for this role `session_replication_role` is `{role}`: references would not be held"
                ))
                .hint("ALTER ROLE … RESET session_replication_role, or load as another role"));
            }
            _ => {
                return Err(Error::unreachable(format!(
                    "{doing}: the server at {} is a read-only standby",
                    self.places
                ))
                .hint("name the primary in the target's URL"));
            }
        }
        Ok(session)
    }

    /// What an error means, in the user's words; never with the password in them. Not for the answer to a COMMIT: what
    /// is said of a session that is cut would not be true there.
    pub(super) fn explain(&self, doing: &str, error: &tokio_postgres::Error) -> Error {
        let whom = Whom {
            shown: &self.shown,
            places: &self.places,
            user: self.config.get_user().unwrap_or_default(),
            database: self.config.get_dbname().unwrap_or_default(),
        };
        let mut secrets = crate::diagnostic::Redactor::default();
        if let Some(password) = self.config.get_password() {
            secrets.add(&String::from_utf8_lossy(password));
        }
        explain(error, &whom).doing(doing).masked(&secrets)
    }
}

impl Session {
    /// Waits inside this session's transaction for what is done elsewhere, however long that takes.
    pub(super) async fn wait_for<T>(&self, done: impl Future<Output = T>) -> T {
        self.wait_with(SIGN_OF_LIFE, done).await
    }

    async fn wait_with<T>(&self, every: Duration, done: impl Future<Output = T>) -> T {
        pin_mut!(done);
        loop {
            if let Ok(done) = timeout(every, &mut done).await {
                return done;
            }
            // Where the session is gone, its next statement tells it.
            self.client.simple_query("").await.ok();
        }
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut task) = self.task.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return task.abort() };
        let (cancel, tls) = (self.cancel.clone(), self.tls.clone());
        // An idle session says goodbye and is gone. Else the server is told to stop what it is doing.
        runtime.spawn(async move {
            if timeout(Duration::from_millis(100), &mut task).await.is_err() {
                drop(timeout(Duration::from_secs(5), cancel.cancel_query(tls)).await);
                drop(timeout(Duration::from_secs(1), &mut task).await);
                task.abort();
            }
        });
    }
}

/// Two sessions that have a server process each, opened at the same time by `open`.
///
/// Refuses a pooler that hands a session's transactions to different server processes: locks and settings of the session
/// would be lost, or somebody else's. The two take turns; each transaction tells the server process that it runs in. With a direct
/// connection (or a pooler that pools sessions) each session has one of its own.
///
/// # Errors
/// Where they share, or the server cannot be reached.
pub(super) async fn two_sessions<F: Future<Output = Result<Session>>>(
    connector: &Connector,
    open: impl Fn() -> F,
) -> Result<(Session, Session)> {
    let refused = || {
        Error::refused("a pooler stands before the server and shares its processes between sessions")
            .hint("a load needs a direct connection: write the server's own host and port into the target's URL")
    };
    let fault = |error: tokio_postgres::Error| {
        // What PgBouncer says to BEGIN where it pools statements.
        let is_pooler = error.code().is_some_and(|code| code.code() == "08P01");
        if is_pooler {
            refused()
        } else {
            connector.explain("cannot determine whether the connection is direct", &error)
        }
    };
    // A pool of one process leaves one session waiting for the other's.
    let patience = Duration::from_secs(10);
    let (session, other) = futures::join!(open(), timeout(patience, open()));
    let (session, other) = (session?, other.map_err(|_| refused())??);
    let shared = async {
        let mine = process(&session, "").await.map_err(fault)?;
        for _ in 0..POOLING_ROUNDS {
            // The transaction of the other keeps its server process while this session asks again.
            let theirs = process(&other, "BEGIN;").await.map_err(fault)?;
            let still_mine = process(&session, "").await.map_err(fault)?;
            other.batch_execute("COMMIT").await.map_err(fault)?;
            if theirs == mine || still_mine != mine {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match timeout(patience, shared).await {
        Ok(Ok(false)) => Ok((session, other)),
        Ok(Err(error)) => Err(error),
        Ok(Ok(true)) | Err(_) => Err(refused()),
    }
}

/// The server process that a session's transaction runs in.
async fn process(session: &Session, before: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let answers = session.simple_query(&format!("{before} SELECT pg_catalog.pg_backend_pid()")).await?;
    Ok(answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

#[cfg(test)]
mod tests;
