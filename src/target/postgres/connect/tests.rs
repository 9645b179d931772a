#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml allows these in #[test] functions only, not in their helpers"
)]

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio_postgres::error::SqlState;

use super::super::server::{Database, Server};
use super::{Connector, Session, two_sessions};
use crate::error::{Error, Kind, Result};
use crate::spec::{LoadSpec, Timeout};

const CANARY: &str = "hunter22canary";

fn connector(url: &str) -> Result<Connector> {
    Connector::try_new(url, url, Path::new("/"), &LoadSpec::default())
}

async fn connect(url: &str) -> Result<Session> {
    connector(url)?.connect("cannot open the target").await
}

async fn text(session: &Session, sql: &str) -> String {
    let row = session.query_one(sql, &[]).await.unwrap();
    row.get(0)
}

/// Checks the kind and texts of an error, and that none contains the password.
fn says(result: Result<Session>, kind: Kind, texts: &[&str]) {
    let error = result.err().expect("it fails");
    holds(&error, kind, texts);
}

fn holds(error: &Error, kind: Kind, texts: &[&str]) {
    let whole = format!("{error}\nhint: {}", error.next_step().unwrap_or("none"));
    println!("{whole}\n");
    assert_eq!(error.kind(), kind, "{whole}");
    for text in texts {
        assert!(whole.contains(text), "no {text:?} in {whole}");
    }
    assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
    assert!(!whole.contains("internal"), "{whole}");
}

/// Returns the error of a statement in a session with short limits.
async fn fault(database: &Database, user: &str, sql: &str) -> Error {
    let load = LoadSpec {
        lock_timeout: Timeout::from_secs(1),
        statement_timeout: Timeout::from_secs(2),
        ..LoadSpec::default()
    };
    let url = if user == "postgres" { database.url() } else { database.url_as(user, CANARY) };
    let connector = Connector::try_new(&url, "${DATABASE_URL}", Path::new("/"), &load).unwrap();
    let session = connector.connect("cannot open the target").await.unwrap();
    let error = session.batch_execute(sql).await.unwrap_err();
    connector.explain("cannot stage `account`", &error)
}

fn role(database: &Database, options: &str) -> String {
    let name = format!("{}_{}", database.name, options.len());
    database.execute(&format!("CREATE ROLE {name} PASSWORD '{CANARY}' {options}"));
    name
}

#[tokio::test]
async fn a_session_has_its_settings_whatever_the_role_says() {
    let database = Server::shared().database("CREATE TABLE t (x integer)");
    let user = role(&database, "LOGIN");
    let mut settings =
        vec!["synchronous_commit = off", "DateStyle = 'SQL, DMY'", "search_path = public", "TimeZone = 'CET'"];
    let limits =
        database.rows("SELECT name FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')");
    let limits: Vec<_> = limits.iter().map(|row| format!("{} = '1min'", row[0])).collect();
    settings.extend(limits.iter().map(String::as_str));
    for setting in settings {
        database.execute(&format!("ALTER ROLE {user} SET {setting}"));
    }
    let session = connect(&database.url_as(&user, CANARY)).await.unwrap();
    for (setting, value) in [
        ("application_name", "pipeline"),
        ("lock_timeout", "5s"),
        ("statement_timeout", "4h"),
        ("idle_in_transaction_session_timeout", "10min"),
        ("synchronous_commit", "on"),
        ("DateStyle", "ISO, YMD"),
        ("TimeZone", "UTC"),
        ("search_path", "pg_catalog, pg_temp"),
        ("row_security", "off"),
        ("client_connection_check_interval", "10s"),
    ] {
        assert_eq!(text(&session, &format!("SHOW {setting}")).await, value, "{setting}");
    }
    for limit in limits {
        let name = limit.split(' ').next().unwrap();
        assert_eq!(text(&session, &format!("SHOW {name}")).await, "0", "{name}");
    }
}

#[tokio::test]
async fn a_role_whose_references_would_not_be_held_is_refused() {
    let database = Server::shared().database("");
    let user = role(&database, "LOGIN SUPERUSER");
    database.execute(&format!("ALTER ROLE {user} SET session_replication_role = replica"));
    says(connect(&database.url_as(&user, CANARY)).await, Kind::Refused, &["`session_replication_role` is `replica`"]);
}

#[tokio::test]
async fn a_rejected_login_gets_the_reason() {
    let database = Server::shared().database("");
    let user = role(&database, "LOGIN");
    let closed = role(&database, "NOLOGIN");
    let wrong = database.url_as(&user, &format!("{CANARY}x"));
    says(connect(&wrong).await, Kind::Unreachable, &["refuses the password of", &user, "PGPASSWORD"]);
    says(connect(&database.url_as(&closed, CANARY)).await, Kind::Unreachable, &["may not log in", "LOGIN"]);
    let elsewhere = database.url_as(&user, CANARY).rsplit_once('/').unwrap().0.to_owned() + "/elsewhere";
    says(connect(&elsewhere).await, Kind::Unreachable, &["has no database `elsewhere`"]);
    let without = format!("postgres://{user}@127.0.0.1:{}/postgres?passfile=/dev/null", Server::shared().port);
    says(connect(&without).await, Kind::Unreachable, &["requires a password for", ".pgpass"]);
}

#[tokio::test]
async fn a_password_file_opens_the_server() {
    let database = Server::shared().database("");
    let user = role(&database, "LOGIN");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    std::fs::write(&file, format!("127.0.0.1:*:{}:{user}:{CANARY}\n", database.name)).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let url = format!("{}?passfile={}", database.url_as(&user, ""), file.display());
    let session = connect(&url).await.unwrap();
    assert_eq!(text(&session, "SELECT session_user::text").await, user);
}

#[tokio::test]
async fn a_unix_socket_is_a_way_in() {
    let database = Server::shared().database("");
    let folder = Server::shared().folder.display().to_string().replace('/', "%2F");
    let url = format!("postgres://postgres@{folder}:{}/{}", Server::shared().port, database.name);
    assert_eq!(text(&connect(&url).await.unwrap(), "SELECT current_database()::text").await, database.name);
    let url = format!("postgres://postgres@%2Fnone:5432/{}", database.name);
    says(connect(&url).await, Kind::Unreachable, &["nothing answers at `/none/.s.PGSQL.5432`"]);
}

#[tokio::test]
async fn a_server_that_is_away_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = format!("postgres://u:{CANARY}@127.0.0.1:{port}/p?connect_timeout=1");
    says(connect(&silent).await, Kind::Unreachable, &["no answer from", "in 2s"]);
    drop(listener);
    says(connect(&silent).await, Kind::Unreachable, &["nothing answers at", &port.to_string()]);
    let nowhere = format!("postgres://u:{CANARY}@nowhere.invalid/p");
    says(connect(&nowhere).await, Kind::Unreachable, &["is not known", "`nowhere.invalid:5432`"]);
}

#[tokio::test]
async fn the_second_host_answers_if_the_first_is_away() {
    let database = Server::shared().database("");
    let url = database.url().replace("@127.0.0.1", "@127.0.0.1:1,127.0.0.1");
    let connector = connector(&url).unwrap();
    assert!(connector.warnings().is_empty());
    connector.connect("").await.unwrap();
    database.execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name));
    let error = connector.connect("cannot open the target").await.err().unwrap();
    holds(&error, Kind::Unreachable, &["none of", "accepts writes"]);
}

#[tokio::test]
async fn a_server_that_goes_away_in_the_middle_is_reported() {
    let server = Server::private(&[]);
    let database = server.database("");
    let connector = connector(&database.url()).unwrap();
    let broken = [Server::terminate_backends as fn(&Server), Server::restart, Server::stop];
    for (at, break_it) in broken.into_iter().enumerate() {
        let session = connector.connect("").await.unwrap();
        session.batch_execute("BEGIN").await.unwrap();
        let running = tokio::spawn(async move { session.batch_execute("SELECT pg_sleep(30)").await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        break_it(&server);
        let error = connector.explain("cannot stage `account`", &running.await.unwrap().unwrap_err());
        let how = ["ended the session", "", ""][at];
        holds(&error, Kind::Unreachable, &["cannot stage `account`: ", how, "nothing was loaded"]);
    }
    server.start();
    let session = connector.connect("").await.unwrap();
    server.terminate_backends();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = connector.explain("cannot stage", &session.batch_execute("SELECT 1").await.unwrap_err());
    holds(&error, Kind::Unreachable, &["was lost", "nothing was loaded"]);
}

#[tokio::test]
async fn a_dropped_session_stops_what_it_was_doing() {
    let database = Server::shared().database("CREATE TABLE t (x integer)");
    let session = connect(&database.url()).await.unwrap();
    session.batch_execute("BEGIN; LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let running = tokio::spawn(async move { session.batch_execute("SELECT pg_sleep(30)").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.abort();
    tokio::time::sleep(Duration::from_millis(800)).await;
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert_eq!(database.number(others), 0);
}

#[tokio::test]
async fn what_the_server_refuses_is_said_in_the_users_words() {
    let database = Server::shared().database(
        "CREATE TABLE t (x integer PRIMARY KEY); INSERT INTO t VALUES (1);
         CREATE TABLE secret (x integer);
         ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
         CREATE POLICY above_one ON secret USING (x > 1);
         CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not on a Sunday'; END $$;
         CREATE TABLE closed (x integer);
         CREATE TRIGGER no BEFORE INSERT ON closed FOR EACH ROW EXECUTE FUNCTION no();",
    );
    let user = role(&database, "LOGIN");
    database.execute(&format!("GRANT SELECT ON secret TO {user}"));
    let cases: [(&str, &str, Kind, &[&str]); 13] = [
        (&user, "SELECT * FROM public.t", Kind::Pipeline, &["lacks a right", "for table t", "pipeline setup", "GRANT"]),
        (&user, "SELECT * FROM public.secret", Kind::Pipeline, &["row-level security", "BYPASSRLS"]),
        (&user, "SELECT * FROM staging.run", Kind::Pipeline, &["staging.run", "pipeline setup"]),
        (&user, "CREATE TABLE staging.run (x int)", Kind::Pipeline, &["\"staging\"", "pipeline setup"]),
        ("postgres", "SELECT pg_sleep(5)", Kind::Unreachable, &["took too long", "load.statement_timeout"]),
        ("postgres", "SELECT pg_cancel_backend(pg_backend_pid())", Kind::Unreachable, &["canceled"]),
        ("postgres", "BEGIN READ ONLY; DELETE FROM public.t", Kind::Unreachable, &["is read-only"]),
        ("postgres", "INSERT INTO public.closed VALUES (1)", Kind::Data, &["not on a Sunday", "function public.no()"]),
        ("postgres", "INSERT INTO public.t VALUES (1)", Kind::Data, &["t_pkey", "already exists"]),
        (
            "postgres",
            "DO $$ BEGIN RAISE 'full' USING ERRCODE = '53100'; END $$",
            Kind::Unreachable,
            &["is out of disk space"],
        ),
        (
            "postgres",
            "DO $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'XX000'; END $$",
            Kind::Unreachable,
            &["fails (XX000): could not extend file", "the server's log"],
        ),
        ("postgres", "SELECT 1/0", Kind::Data, &["rejected a value", "division by zero"]),
        ("postgres", "SELECTED", Kind::Internal, &["42601", "syntax error"]),
    ];
    for (user, sql, kind, texts) in cases {
        holds(&fault(&database, user, sql).await, kind, texts);
    }
    let holder = connect(&database.url()).await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE public.t").await.unwrap();
    let error = fault(&database, "postgres", "INSERT INTO public.t VALUES (2)").await;
    holds(&error, Kind::Unreachable, &["holds a lock", "load.lock_timeout"]);
}

#[tokio::test]
async fn a_full_server_and_a_standby_are_refused() {
    let server = Server::private(&["max_connections = 5", "superuser_reserved_connections = 1"]);
    let database = server.database("");
    let user = role(&database, "LOGIN");
    let url = database.url_as(&user, CANARY);
    let mut sessions = Vec::new();
    let full = loop {
        match connect(&url).await {
            Ok(session) => sessions.push(session),
            full => break full,
        }
    };
    says(full, Kind::Unreachable, &["closed or refused the session", "load.connections"]);
    drop(sessions);
    server.stop();
    server.write("data/standby.signal", "");
    server.start();
    says(connect(&database.url()).await, Kind::Unreachable, &["is a read-only standby", "primary"]);
}

#[tokio::test]
async fn a_direct_connection_passes_for_one() {
    let database = Server::shared().database("");
    let connector = connector(&database.url()).unwrap();
    let (one, other) = two_sessions(&connector, || connector.connect("")).await.unwrap();
    let process = "SELECT pg_backend_pid()::text";
    assert_ne!(text(&one, process).await, text(&other, process).await);
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Issues a certificate for a name, valid until a year, and its key.
    fn issue(&self, name: &str, until: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "someone");
        params.not_after = date_time_ymd(until, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn a_server_has_to_prove_its_identity() {
    let server = Server::private(&[]);
    let database = server.database("");
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let serve = async |(certificate, key): (String, String)| {
        let certificate = server.write("server.pem", &certificate);
        let key = server.write("server.key", &key);
        database.execute(&format!("ALTER SYSTEM SET ssl_cert_file = '{}'", certificate.display()));
        database.execute(&format!("ALTER SYSTEM SET ssl_key_file = '{}'", key.display()));
        database.execute("ALTER SYSTEM SET ssl = on");
        server.reload();
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let roots = server.write("roots.pem", &ours.issuer.pem());
    let url = |more: &str| {
        let here = format!("@db.test:{}", server.port);
        let base = database.url().replace(&format!("@127.0.0.1:{}", server.port), &here);
        format!("{base}?hostaddr=127.0.0.1&{more}")
    };
    let full = url(&format!("sslmode=verify-full&sslrootcert={}", roots.display()));
    let named = url(&format!("sslrootcert={}", roots.display()));
    let authority = url(&format!("sslmode=verify-ca&sslrootcert={}", roots.display()));
    let encrypted = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

    says(connect(&full).await, Kind::Unreachable, &["offers no TLS", "sslmode=disable"]);
    assert_eq!(text(&connect(&url("")).await.unwrap(), encrypted).await, "false");

    serve(ours.issue("db.test", 2100)).await;
    for url in [&full, &named, &authority, &url("sslmode=require"), &url("")] {
        let session = connect(url).await.unwrap();
        assert_eq!(text(&session, encrypted).await, "true");
        two_sessions(&connector(url).unwrap(), || connect(url)).await.unwrap();
    }

    serve(ours.issue("other.test", 2100)).await;
    says(connect(&full).await, Kind::Unreachable, &["is for another host", "other.test", "hostaddr="]);
    connect(&authority).await.unwrap();

    serve(theirs.issue("db.test", 2100)).await;
    says(connect(&full).await, Kind::Unreachable, &["not trusted here", "sslrootcert=FILE"]);
    says(connect(&authority).await, Kind::Unreachable, &["not trusted here"]);
    says(connect(&url("sslmode=verify-full")).await, Kind::Unreachable, &["not trusted here"]);
    connect(&url("sslmode=require")).await.unwrap();

    serve(ours.issue("db.test", 2020)).await;
    says(connect(&full).await, Kind::Unreachable, &["expired 2", " days ago", "clock"]);
    says(connect(&authority).await, Kind::Unreachable, &["expired"]);

    // As `openssl req -x509` does: a certificate that is its own authority.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["db.test".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap().pem();
    serve((own.clone(), key.serialize_pem())).await;
    says(connect(&full).await, Kind::Unreachable, &["is self-signed", "sslrootcert=FILE"]);
    server.write("roots.pem", &own);
    connect(&full).await.unwrap();
    says(connect(&full.replace("db.test", "db2.test")).await, Kind::Unreachable, &["is for another host"]);

    // A server that asks for the client's certificate.
    serve(ours.issue("db.test", 2100)).await;
    server.write("roots.pem", &ours.issuer.pem());
    let user = role(&database, "LOGIN");
    server.write("data/pg_hba.conf", "local all all trust\nhostssl all all 127.0.0.1/32 cert map=all\n");
    server.write("data/pg_ident.conf", "all someone postgres\n");
    database.execute(&format!("ALTER SYSTEM SET ssl_ca_file = '{}'", roots.display()));
    server.reload();
    tokio::time::sleep(Duration::from_millis(300)).await;
    says(connect(&full).await, Kind::Unreachable, &["certificate", "may not log in"]);
    let (certificate, key) = ours.issue("client", 2100);
    let (certificate, key) = (server.write("client.pem", &certificate), server.write("client.key", &key));
    let with = format!("{full}&sslcert={}&sslkey={}", certificate.display(), key.display());
    connect(&with).await.unwrap();
    let plain = database.url_as(&user, CANARY) + "?sslmode=disable";
    says(connect(&plain).await, Kind::Unreachable, &["pg_hba.conf", "may not log in"]);
    let missing = url("sslmode=verify-full&sslrootcert=/none.pem");
    says(connect(&missing).await, Kind::Pipeline, &["sslrootcert=/none.pem"]);
}

/// The server ends an idle transaction, and a load may have to wait longer than that.
#[tokio::test]
async fn session_waits_inside_its_transaction_as_long_as_it_takes() {
    let database = Server::shared().database("");
    let waited = |every| {
        let url = database.url();
        async move {
            let session = connect(&url).await.unwrap();
            session.batch_execute("SET idle_in_transaction_session_timeout = '600ms'; BEGIN").await.unwrap();
            let done = session.wait_with(every, tokio::time::sleep(Duration::from_millis(1500))).await;
            session.batch_execute("COMMIT").await.map(|()| done)
        }
    };
    waited(Duration::from_millis(50)).await.unwrap();
    let error = waited(Duration::from_mins(1)).await.unwrap_err();
    assert!(error.is_closed() || error.code() == Some(&SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT), "{error:?}");
}

/// A password is never sent to an unauthenticated server.
#[tokio::test]
async fn a_server_without_tls_gets_no_password() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"N").unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    });
    let url = format!("postgres://u:{CANARY}@db.test:{port}/p?hostaddr=127.0.0.1&sslmode=verify-full");
    says(connect(&url).await, Kind::Unreachable, &["offers no TLS"]);
    assert_eq!(heard.join().unwrap().len(), 8, "the request for TLS alone");
}
