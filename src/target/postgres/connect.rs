//! Direct sessions with the server, with the settings that a load relies on.

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use futures::pin_mut;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::Config;
use tokio_postgres::{CancelToken, Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::errors::{Endpoint, explain};
use super::url::ServerUrl;
use crate::error::{Error, Result};
use crate::spec::LoadSpec;
use crate::target::Access;

/// The oldest supported server version.
const OLDEST: u32 = 13;

/// Settings of every session, whatever the role, database, or server defaults are.
///
/// - A transaction that idles holds locks on production, so the server ends it after ten minutes. A session that must wait longer sends a
///   sign of life ([`Session::wait_for`]).
/// - While files are read and checked, a session idles with the writer lock, so no server setting may end it. A long load is one
///   transaction, so no server setting may limit that either. Each of its statements has its own limit. The two settings exist since
///   PostgreSQL 14 and 17.
/// - `pg_temp` comes last, so that no temporary table shadows a catalog's; all other names are qualified.
/// - With `row_security` off, a policy that would hide rows is an error.
/// - Compiling a plan takes longer than most of these statements. A scan without an alternative looks costly enough to be compiled if scans
///   are disabled.
/// - A committed transaction must survive a crash, so `synchronous_commit` is not `off`.
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
    SET quote_all_identifiers = off;
    SET client_min_messages = 'warning';
    SET default_transaction_isolation = 'read committed';
    SET row_security = off;
    SET jit = off;
    SELECT set_config(name, '0', false) FROM unnest(ARRAY['idle_session_timeout', 'transaction_timeout']) AS limits (name)
    WHERE current_setting(name, true) IS NOT NULL;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
    SELECT pg_is_in_recovery(), current_setting('session_replication_role')";

/// Ends the statements of a lost client early, and releases their locks. Available since PostgreSQL 14, and not on every system.
const CHECK_CLIENT: &str = "
    SELECT set_config('client_connection_check_interval', '10s', false)
    WHERE current_setting('client_connection_check_interval', true) IS NOT NULL";

/// How often a waiting session contacts the server: well before the server ends its idle transaction.
const SIGN_OF_LIFE: Duration = Duration::from_mins(1);

/// How often the check for a pooler is repeated.
const POOLING_ROUNDS: usize = 5;

pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    settings: String,
    shown: String,
    places: String,
    warnings: Vec<String>,
    operates: bool,
}

/// A session. If it is dropped, its running statement is canceled.
pub(super) struct Session {
    client: Client,
    task: Option<JoinHandle<()>>,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
}

impl Connector {
    /// Returns a connector for a URL. `shown` is its name in messages, and relative paths in the URL start from `folder`.
    ///
    /// # Errors
    /// If the URL is invalid, or a file that it names cannot be read.
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

    /// Returns a connector whose sessions act as the operator instead of the loader, if the access requires it.
    pub(super) fn acting(self, access: Access) -> Self {
        Self { operates: access == Access::Administer, ..self }
    }

    /// Returns whether writing sessions act as the operator.
    pub(super) fn operates(&self) -> bool {
        self.operates
    }

    pub(super) fn settings(&self) -> &str {
        &self.settings
    }

    /// Returns findings that need attention but do not stop the run.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Opens a session. `doing` names its purpose in an error: `cannot read the catalog`.
    ///
    /// # Errors
    /// If the server cannot be reached, does not admit the user, is too old, or is read-only.
    pub(super) async fn connect(&self, doing: &str) -> Result<Session> {
        // The library's own limit covers the socket alone, and not a server that accepts a connection without answering.
        let patience =
            self.config.get_connect_timeout().copied().unwrap_or_default() * (2 * self.config.get_hosts().len() as u32);
        match timeout(patience, self.open(doing)).await {
            Ok(session) => session,
            Err(_) => Err(Error::unreachable(format!("{doing}: no answer from {} in {patience:?}", self.places))
                .hint("check that PostgreSQL listens there, and that it is not overloaded")),
        }
    }

    async fn open(&self, doing: &str) -> Result<Session> {
        let fault = |error| self.explain(doing, &error);
        let (client, connection) = self.config.connect(self.tls.clone()).await.map_err(fault)?;
        let version = connection.parameter("server_version").unwrap_or_default().to_owned();
        let cancel = client.cancel_token();
        // A broken connection is reported to the client.
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
                    "{doing}: for this role `session_replication_role` is `{role}`: foreign keys would not be checked"
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

    /// Explains an error in the user's terms, without the password. Not for the answer to a COMMIT, because the explanation of a lost
    /// session would be wrong there.
    pub(super) fn explain(&self, doing: &str, error: &tokio_postgres::Error) -> Error {
        let endpoint = Endpoint {
            shown: &self.shown,
            places: &self.places,
            user: self.config.get_user().unwrap_or_default(),
            database: self.config.get_dbname().unwrap_or_default(),
        };
        let mut secrets = crate::diagnostic::Redactor::default();
        if let Some(password) = self.config.get_password() {
            secrets.add(&String::from_utf8_lossy(password));
        }
        explain(error, &endpoint).doing(doing).masked(&secrets)
    }
}

impl Session {
    /// Waits inside this session's transaction until `done` completes, however long that takes.
    pub(super) async fn wait_for<T>(&self, done: impl Future<Output = T>) -> T {
        self.wait_with(SIGN_OF_LIFE, done).await
    }

    async fn wait_with<T>(&self, every: Duration, done: impl Future<Output = T>) -> T {
        pin_mut!(done);
        loop {
            if let Ok(done) = timeout(every, &mut done).await {
                return done;
            }
            // If the session is lost, its next statement reports it.
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
        // An idle session closes. Otherwise the server is asked to cancel the statement.
        runtime.spawn(async move {
            if timeout(Duration::from_millis(100), &mut task).await.is_err() {
                drop(timeout(Duration::from_secs(5), cancel.cancel_query(tls)).await);
                drop(timeout(Duration::from_secs(1), &mut task).await);
                task.abort();
            }
        });
    }
}

/// Opens two sessions at the same time that have one server process each.
///
/// Refuses a pooler that assigns a session's transactions to different server processes. Locks and settings would be lost, or belong to
/// another client. The two sessions take turns, and each transaction reports its server process. With a direct connection, or a pooler in
/// session mode, each session keeps its own process.
///
/// # Errors
/// If they share a process, or the server cannot be reached.
pub(super) async fn two_sessions<F: Future<Output = Result<Session>>>(
    connector: &Connector,
    open: impl Fn() -> F,
) -> Result<(Session, Session)> {
    let refused = || {
        Error::refused("a connection pooler is in front of the server and shares its processes between sessions")
            .hint("a load needs a direct connection: write the server's own host and port into the target's URL")
    };
    let fault = |error: tokio_postgres::Error| {
        // PgBouncer's answer to BEGIN if it pools statements.
        let is_pooler = error.code().is_some_and(|code| code.code() == "08P01");
        if is_pooler {
            refused()
        } else {
            connector.explain("cannot determine whether the connection is direct", &error)
        }
    };
    // With a pool of one process, one session waits for the other's. A server under load may be as slow.
    let patience = Duration::from_secs(30);
    let silent = || {
        Error::unreachable(format!("no answer to a second connection in {patience:?} while the first one was open"))
            .hint("a connection pooler with a single connection does that: write the server's own host and port into the target's URL; if it is the server itself, try again when it is less busy")
    };
    let (session, other) = futures::join!(open(), timeout(patience, open()));
    let (session, other) = (session?, other.map_err(|_| silent())??);
    let shared = async {
        let mine = process(&session, "").await.map_err(fault)?;
        for _ in 0..POOLING_ROUNDS {
            // The transaction of the other session keeps its server process while this session asks again.
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
        Ok(Ok(true)) => Err(refused()),
        Err(_) => Err(silent()),
    }
}

/// Returns the server process that a session's transaction runs in.
async fn process(session: &Session, before: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let answers = session.simple_query(&format!("{before} SELECT pg_catalog.pg_backend_pid()")).await?;
    Ok(answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

#[cfg(test)]
mod tests;
