//! Explanations of PostgreSQL errors, with hints.

use std::error::Error as _;
use std::io::{Error as IoError, ErrorKind};

use rustls::CertificateError::{
    ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext, UnknownIssuer,
};
use tokio_postgres::Error as PgError;
use tokio_postgres::error::{DbError, SqlState};

use super::names::LOADER;
use super::trigger;
use crate::engine::ident;
use crate::error::Error;

/// The connection that an error belongs to.
pub(super) struct Endpoint<'a> {
    /// The target's name, without secrets.
    pub(super) shown: &'a str,
    pub(super) places: &'a str,
    pub(super) user: &'a str,
    pub(super) database: &'a str,
}

const NOTHING_LOADED: &str = "nothing was loaded; run again once the server is reachable";
/// The error code of the control functions if an object is in the way of a setup.
const OURS: &str = "DP002";

/// Error codes of the control functions: keys are unavailable, the policy forbids a run, or an entry does not fit a journal.
const SAFEGUARDS: [&str; 3] = ["DP001", "DP004", "DP005"];

const SETUP: &str = "`pipeline setup FILE` creates the schema `delta` and the staging schema; the owner of production must create its objects";

pub(super) fn explain(error: &PgError, endpoint: &Endpoint<'_>) -> Error {
    if let Some(error) = error.as_db_error() {
        return of_server(error, endpoint);
    }
    let cause = error.source();
    if let Some(error) = cause.and_then(tls) {
        return of_tls(error, endpoint);
    }
    let reason = cause.map_or_else(|| error.to_string(), ToString::to_string);
    let io = cause.and_then(|cause| cause.downcast_ref::<IoError>());
    let Endpoint { places, shown, user, .. } = endpoint;
    // The library exposes the kind of its errors only as text.
    match error.to_string().as_str() {
        "error connecting to server" => of_connecting(io.map(IoError::kind), &reason, endpoint),
        "error performing TLS handshake" if reason.contains("does not support TLS") => {
            Error::unreachable(format!("the server at {places} offers no TLS")).hint(
                "enable it on the server (`ssl = on`), or, if the network between is trusted, write \
                 `sslmode=disable` into the target's URL",
            )
        }
        "error performing TLS handshake" => {
            Error::unreachable(format!("cannot establish TLS with the server at {places}: {reason}"))
        }
        "invalid configuration" if reason.contains("password") => Error::unreachable(format!(
            "the server at {places} requires a password for `{user}`, but none was supplied"
        ))
        .hint("set PGPASSWORD, or add a line to ~/.pgpass"),
        "authentication error" | "invalid configuration" => {
            Error::unreachable(format!("cannot log in to {places} as `{user}`: {reason}"))
        }
        "connection closed" | "error communicating with the server" => {
            Error::unreachable(format!("the connection to `{shown}` was lost: {reason}")).hint(NOTHING_LOADED)
        }
        what => Error::internal(if cause.is_some() { format!("{what}: {reason}") } else { reason }),
    }
}

/// Returns the TLS error within an I/O error.
fn tls<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    cause.downcast_ref::<IoError>()?.get_ref()?.downcast_ref()
}

fn of_tls(error: &rustls::Error, endpoint: &Endpoint<'_>) -> Error {
    let places = endpoint.places;
    let rustls::Error::InvalidCertificate(reason) = error else {
        let hint = "if the server requires a client certificate, add `sslcert=FILE&sslkey=FILE` to the target's URL";
        return Error::unreachable(format!("cannot establish TLS with the server at {places}: {error}")).hint(hint);
    };
    let (what, hint) = match reason {
        NotValidForName | NotValidForNameContext { .. } => (
            format!("is for another host: {reason}"),
            "use the host name of the certificate in the target's URL; its address can be given with `hostaddr=`",
        ),
        UnknownIssuer => (
            "is signed by an authority that is not trusted here".into(),
            "give that authority's certificate: `sslrootcert=FILE` in the target's URL",
        ),
        ExpiredContext { time, not_after } => (
            format!("expired {} days ago", time.as_secs().saturating_sub(not_after.as_secs()) / (24 * 60 * 60)),
            "check this machine's clock, or renew the server's certificate",
        ),
        NotValidYet | NotValidYetContext { .. } => ("is not valid yet".into(), "check this machine's clock"),
        other if other.to_string().contains("CaUsedAsEndEntity") => (
            "is self-signed".into(),
            "if it is the right one, give a copy of it: `sslrootcert=FILE` in the target's URL",
        ),
        other => (format!("is not accepted: {other}"), "the server needs another certificate"),
    };
    Error::unreachable(format!("the certificate of the server at {places} {what}")).hint(hint)
}

fn of_connecting(kind: Option<ErrorKind>, reason: &str, endpoint: &Endpoint<'_>) -> Error {
    let Endpoint { places, shown, .. } = endpoint;
    let several = places.contains(", ");
    let one = if several { "none of" } else { "the server at" };
    match kind {
        Some(ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
            Error::unreachable(format!("nothing answers at {places}: {reason}"))
                .hint("check that the server is running, and that the host and the port are correct")
        }
        Some(ErrorKind::TimedOut) => Error::unreachable(format!("no answer from {places} in time"))
            .hint("check the host, the port, and any firewall in between; `connect_timeout=30` waits longer"),
        Some(ErrorKind::PermissionDenied) if reason.contains("does not allow writes") => {
            Error::unreachable(format!("{one} {places} accepts writes")).hint("name the primary in the target's URL")
        }
        _ if reason.contains("lookup") || reason.contains("resolve") => {
            Error::unreachable(format!("the host of `{shown}` is not known ({places}): {reason}"))
                .hint("check the host name, and that this machine can reach its DNS server")
        }
        _ => Error::unreachable(format!("cannot reach {places}: {reason}")),
    }
}

fn of_server(error: &DbError, endpoint: &Endpoint<'_>) -> Error {
    if let Some(error) = trigger::explain(error, &[]) {
        return error;
    }
    let Endpoint { places, user, database, shown } = endpoint;
    let said = error.message();
    match error.code() {
        &SqlState::INVALID_PASSWORD => {
            Error::unreachable(format!("the server at {places} refuses the password of `{user}`"))
                .hint("correct the password: it is read from the URL, PGPASSWORD, or the password file (~/.pgpass), in this order")
        }
        &SqlState::INVALID_CATALOG_NAME => {
            Error::unreachable(format!("the server at {places} has no database `{database}`"))
                .hint("check the database name in the target's URL")
        }
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Error::unreachable(format!(
            "`{user}` may not log in to `{database}` at {places}: {said}"
        ))
        .hint("grant the role LOGIN, and add this machine to the server's pg_hba.conf, with or without TLS"),
        &SqlState::CANNOT_CONNECT_NOW => {
            Error::unreachable(format!("the server at {places} is not ready: {said}")).hint("run again in a moment")
        }
        &(SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN) => {
            Error::unreachable(format!("the server at {places} ended the session: {said}")).hint(NOTHING_LOADED)
        }
        &(SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT | SqlState::TOO_MANY_CONNECTIONS) => {
            let hint = if error.code() == &SqlState::TOO_MANY_CONNECTIONS {
                "run again when other sessions have ended, or reduce `load.connections`"
            } else {
                NOTHING_LOADED
            };
            Error::unreachable(format!("the server at {places} closed or refused the session: {said}")).hint(hint)
        }
        &SqlState::LOCK_NOT_AVAILABLE => {
            Error::unreachable(format!("another session holds a lock that is needed: {said}{}", context(error)))
                .hint("nothing was loaded; run again, or wait longer with `load.lock_timeout`")
        }
        &SqlState::QUERY_CANCELED if said.contains("user request") => {
            Error::unreachable("the statement was canceled on the server").hint("nothing was loaded; run again")
        }
        &SqlState::QUERY_CANCELED => Error::unreachable(format!("a statement took too long: {said}{}", context(error)))
            .hint("nothing was loaded; increase `load.statement_timeout`"),
        &SqlState::T_R_DEADLOCK_DETECTED => {
            Error::unreachable(format!("deadlock with another session: {said}")).hint("nothing was loaded; run again")
        }
        &SqlState::T_R_SERIALIZATION_FAILURE => {
            Error::unreachable(format!("a concurrent session changed the same rows: {said}"))
                .hint("nothing was loaded; run again")
        }
        &(SqlState::DISK_FULL | SqlState::OUT_OF_MEMORY) => {
            Error::unreachable(format!("the server at {places} is out of disk space or memory: {said}"))
                .hint("nothing was loaded; free space on the server and run again")
        }
        &SqlState::INSUFFICIENT_PRIVILEGE if is_row_security(error) => {
            Error::pipeline(format!("row-level security hides rows of production from `{user}`: {said}"))
                .hint("let the loader see all rows: grant it BYPASSRLS, or drop the policies of the table")
        }
        &SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::pipeline(format!("`{user}` lacks a right: {said}")).hint(right(said, user))
        }
        &SqlState::READ_ONLY_SQL_TRANSACTION => Error::unreachable(format!("`{shown}` is read-only: {said}"))
            .hint("name the primary in the target's URL, or reset `default_transaction_read_only` for the role"),
        &(SqlState::UNDEFINED_TABLE | SqlState::INVALID_SCHEMA_NAME | SqlState::UNDEFINED_FUNCTION) => {
            Error::pipeline(format!("`{shown}` lacks something: {said}")).hint(SETUP)
        }
        code if SAFEGUARDS.contains(&code.code()) => {
            Error::refused(said).hint(error.hint().unwrap_or("nothing was loaded"))
        }
        code if code.code() == OURS => Error::pipeline(said).hint(error.hint().unwrap_or(SETUP)),
        &SqlState::RAISE_EXCEPTION => Error::data(format!("production rejected a row: {said}{}", context(error)))
            .hint("nothing was loaded; a trigger or a function of production raised this"),
        code if code.code().starts_with("23") => {
            Error::data(format!("production rejected a row: {said}{}", rest(error))).hint("nothing was loaded")
        }
        code if ["22", "54"].iter().any(|class| code.code().starts_with(class)) => {
            Error::data(format!("production rejected a value: {said}{}{}", rest(error), context(error)))
                .hint("nothing was loaded; `pipeline explain` lists the columns whose values only production checks")
        }
        // Poolers report class 08 if there is no server behind them.
        code if code.code().starts_with("08") => {
            Error::unreachable(format!("no session with {places}: {said}")).hint(NOTHING_LOADED)
        }
        // Failures of the server's machine, its files, or its own code, which no other statement would avoid.
        code if ["53", "57", "58", "F0", "XX"].iter().any(|class| code.code().starts_with(class)) => {
            Error::unreachable(format!(
                "the server at {places} fails ({}): {said}{}{}",
                code.code(),
                rest(error),
                context(error)
            ))
            .hint("nothing was loaded; see the server's log")
        }
        code => Error::internal(format!("the server says {}: {said}{}{}", code.code(), rest(error), context(error))),
    }
}

/// Returns whether the error of an insertion is about a value: its type does not accept it, or it is too large for an index or for the
/// server. A value that does not follow the syntax of its type (`tsquery`, `jsonpath`) has the code of a statement with a syntax error.
pub(super) fn is_about_a_value(code: &SqlState) -> bool {
    *code == SqlState::SYNTAX_ERROR || ["22", "54"].iter().any(|class| code.code().starts_with(class))
}

/// Returns the statement that gives a missing right, by the server's message.
fn right(said: &str, user: &str) -> String {
    let to = ident(user);
    let named = |before: &str| {
        let name = said.split_once(before)?.1.trim().trim_end_matches('.').trim_matches('"');
        Some(name.to_owned()).filter(|name| !name.is_empty())
    };
    let objects = [
        ("for sequence ", "USAGE, SELECT ON SEQUENCE"),
        ("for function ", "EXECUTE ON FUNCTION"),
        ("for database ", "CONNECT, CREATE, TEMPORARY ON DATABASE"),
        ("create temporary tables in database ", "TEMPORARY ON DATABASE"),
        ("for type ", "USAGE ON TYPE"),
        ("for schema ", "USAGE ON SCHEMA"),
        ("for table ", "SELECT, INSERT ON"),
        ("for view ", "SELECT ON"),
    ];
    let of_object = objects.iter().find_map(|(before, what)| Some((*what, named(before)?)));
    let statement = match of_object {
        Some((_, name)) if name == "delta" => format!("GRANT {LOADER} TO {to}"),
        Some((what, name)) => format!("GRANT {what} {} TO {to}", ident(&name)),
        None => match (named("to set role "), named("to set parameter ")) {
            (Some(role), _) => format!("GRANT {} TO {to}", ident(&role)),
            (_, Some(parameter)) => format!("GRANT SET ON PARAMETER {parameter} TO {to} (PostgreSQL 15 or newer)"),
            _ if said.starts_with("must be owner") => {
                return format!("log in as the owner, or GRANT the owner TO {to}");
            }
            _ => format!("GRANT {LOADER} TO {to}"),
        },
    };
    format!("{statement}; `pipeline setup FILE --print` lists all that a load needs")
}

/// Returns whether an error is due to row-level security, in any language.
fn is_row_security(error: &DbError) -> bool {
    error.routine() == Some("check_enable_rls") || error.message().contains("row-level security")
}

/// Returns the server's own detail and hint.
fn rest(error: &DbError) -> String {
    [error.detail(), error.hint()].into_iter().flatten().fold(String::new(), |text, more| text + "; " + more)
}

/// Returns the first line of the error's context, such as the trigger that it happened in.
fn context(error: &DbError) -> String {
    error.where_().and_then(|place| place.lines().next()).map_or_else(String::new, |place| format!(" ({place})"))
}

#[cfg(test)]
mod tests {
    use super::right;

    #[test]
    fn a_missing_right_is_answered_with_its_statement() {
        for (said, expected) in [
            ("permission denied for table item", "GRANT SELECT, INSERT ON \"item\" TO \"night\";"),
            ("permission denied for schema live", "GRANT USAGE ON SCHEMA \"live\" TO \"night\";"),
            ("permission denied for schema delta", "GRANT delta_loader TO \"night\";"),
            ("permission denied for sequence item_id_seq", "GRANT USAGE, SELECT ON SEQUENCE \"item_id_seq\" TO"),
            ("permission denied to set role \"owner\"", "GRANT \"owner\" TO \"night\";"),
            (
                "permission denied to set parameter \"session_replication_role\"",
                "GRANT SET ON PARAMETER session_replication_role TO \"night\" (PostgreSQL 15 or newer);",
            ),
            (
                "permission denied to create temporary tables in database \"live\"",
                "GRANT TEMPORARY ON DATABASE \"live\" TO \"night\";",
            ),
            ("must be owner of table item", "log in as the owner"),
        ] {
            assert!(right(said, "night").starts_with(expected), "{said}: {}", right(said, "night"));
        }
    }
}
