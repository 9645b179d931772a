//! The target's URL: the server, the login, and the protection of the connection.
//!
//! `postgres://user:password@host:port,host2/database?sslmode=verify-full&connect_timeout=10`, in libpq's notation. There are two
//! differences from libpq. The certificate of a remote server is verified unless the URL says otherwise. The URL must name the host and the
//! database of a production that is written to.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::{TlsSpec, Verify};
use crate::error::{Error, Result};

const EXAMPLE: &str = "for example `postgres://loader@db.example.com:5432/production`";

/// The values of `sslmode` that verify less than everything, and the risk of each.
const UNCHECKED: [(&str, SslMode, Verify, &str); 5] = [
    ("verify-ca", SslMode::Require, Verify::Authority, "the host's name in the server's certificate is not checked"),
    ("require", SslMode::Require, Verify::Nothing, "the server's certificate is not checked"),
    (
        "prefer",
        SslMode::Prefer,
        Verify::Nothing,
        "the server's certificate is not checked, and without TLS, everything is sent unencrypted",
    ),
    (
        "allow",
        SslMode::Prefer,
        Verify::Nothing,
        "the server's certificate is not checked, and without TLS, everything is sent unencrypted",
    ),
    ("disable", SslMode::Disable, Verify::Nothing, "everything is sent unencrypted"),
];

pub(super) struct ServerUrl {
    /// Hosts, database, and login, including the password from any source.
    pub(super) config: Config,
    /// How the server and this client authenticate themselves.
    pub(super) tls: TlsSpec,
    /// Findings that need attention but do not stop the run.
    pub(super) warnings: Vec<String>,
}

impl ServerUrl {
    /// Parses a URL. Relative paths in it start from `folder`; `variable` reads the environment.
    pub(super) fn parse(
        url: &str,
        shown: &str,
        folder: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let wrong = |what: String| Error::pipeline(format!("the target `{shown}` {what}")).hint(EXAMPLE);
        let (base, query) = split_query(url);
        let mut ours = Ours::default();
        let mut theirs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong("has a parameter without a value".into()))?;
            let value = decode(value).ok_or_else(|| wrong(format!("has a `{name}` that is not UTF-8")))?;
            match name {
                "sslmode" => ours.mode = Some(value),
                "sslrootcert" => ours.roots = Some(value),
                "sslcert" => ours.certificate = Some(folder.join(value)),
                "sslkey" => ours.key = Some(folder.join(value)),
                "passfile" => ours.passwords = Some(folder.join(value)),
                _ => theirs.push((name, pair)),
            }
        }
        let rest: Vec<_> = theirs.iter().map(|(_, pair)| *pair).collect();
        let mut config: Config =
            format!("{base}?{}", rest.join("&")).parse().map_err(|error: tokio_postgres::Error| {
                let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                wrong(format!("cannot be read: {reason}"))
            })?;
        complete(&mut config, &|name| theirs.iter().any(|(given, _)| *given == name), variable);
        if config.get_hosts().is_empty() {
            return Err(wrong("names no host".into()));
        }
        if config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
            return Err(wrong("has more than one `@`: write it as `%40` in a password".into()));
        }
        if config.get_dbname().is_none() {
            return Err(wrong("names no database".into()));
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err(wrong("names no user, and neither PGUSER nor USER is set".into()));
        }
        let mut warnings = Vec::new();
        let tls = ours.tls(&mut config, folder, &mut warnings).map_err(wrong)?;
        find_password(&mut config, ours.passwords, variable, &mut warnings)?;
        Ok(Self { config, tls, warnings })
    }

    /// Returns the hosts with their ports, for messages.
    pub(super) fn places(&self) -> String {
        let ports = self.config.get_ports();
        let places = self.config.get_hosts().iter().enumerate().map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).unwrap_or(&5432);
            match host {
                Host::Tcp(name) => format!("`{name}:{port}`"),
                Host::Unix(path) => format!("`{}/.s.PGSQL.{port}`", path.display()),
            }
        });
        places.collect::<Vec<_>>().join(", ")
    }
}

/// The parameters that the client library does not support.
#[derive(Default)]
struct Ours {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    passwords: Option<PathBuf>,
}

impl Ours {
    fn tls(&self, config: &mut Config, folder: &Path, warnings: &mut Vec<String>) -> Result<TlsSpec, String> {
        let near =
            config.get_hosts().iter().enumerate().all(|(at, host)| is_near(host, config.get_hostaddrs().get(at)));
        // `system` is libpq's word for the certificates of this machine.
        let roots = self.roots.as_ref().filter(|path| *path != "system").map(|path| folder.join(path));
        let (mode, verify) = match self.mode.as_deref() {
            None if near && self.roots.is_none() => (SslMode::Prefer, Verify::Nothing),
            None | Some("verify-full") => (SslMode::Require, Verify::Full),
            Some(mode) => {
                let known = UNCHECKED.iter().find(|(name, ..)| *name == mode);
                let (_, ssl, verify, lacks) = known.ok_or_else(|| {
                    format!(
                        "has an unknown `sslmode={mode}`: expected verify-full, verify-ca, require, prefer, allow, or disable"
                    )
                })?;
                // As in libpq, a root certificate implies verification.
                let verify = if *ssl == SslMode::Require && self.roots.is_some() { Verify::Authority } else { *verify };
                let lacks = if verify == Verify::Authority { UNCHECKED[0].3 } else { lacks };
                if !near {
                    warnings.push(format!("{lacks}: `sslmode={mode}`; leave it out or write `sslmode=verify-full`"));
                }
                (*ssl, verify)
            }
        };
        config.ssl_mode(mode);
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err("has only one of `sslcert` and `sslkey`; set both".into()),
        };
        Ok(TlsSpec { verify, roots, identity })
    }
}

/// Returns whether a host is this machine, so that the connection crosses no network.
fn is_near(host: &Host, address: Option<&IpAddr>) -> bool {
    match (host, address) {
        (_, Some(address)) => address.is_loopback(),
        (Host::Unix(_), None) => true,
        (Host::Tcp(name), None) => {
            name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    }
}

/// Sets the defaults of parameters that the URL omits.
fn complete(config: &mut Config, given: &dyn Fn(&str) -> bool, variable: &dyn Fn(&str) -> Option<String>) {
    if config.get_hosts().is_empty() {
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
    }
    if config.get_user().is_none_or(str::is_empty)
        && let Some(user) = ["PGUSER", "USER", "LOGNAME"].into_iter().find_map(variable)
    {
        config.user(user);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(10));
    }
    if !given("keepalives_idle") {
        config.keepalives_idle(Duration::from_mins(1));
    }
    if !given("keepalives_interval") {
        config.keepalives_interval(Duration::from_secs(10));
    }
    if !given("keepalives_retries") {
        config.keepalives_retries(6);
    }
    if !given("tcp_user_timeout") {
        // The keepalives do not run while data is under way.
        config.tcp_user_timeout(Duration::from_mins(2));
    }
    if !given("application_name") {
        config.application_name("pipeline");
    }
    if config.get_hosts().len() > 1 && !given("target_session_attrs") {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
}

/// Looks for a password if the URL has none: PGPASSWORD, then the password file.
fn find_password(
    config: &mut Config,
    named: Option<PathBuf>,
    variable: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    if config.get_password().is_some_and(|password| !password.is_empty()) {
        return Ok(());
    }
    if let Some(password) = variable("PGPASSWORD") {
        config.password(password);
        return Ok(());
    }
    let usual = || variable("HOME").map(|home| Path::new(&home).join(".pgpass"));
    let configured = named.or_else(|| variable("PGPASSFILE").map(PathBuf::from));
    let Some(path) = configured.clone().or_else(usual) else { return Ok(()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if configured.is_some() => {
            return Err(Error::pipeline(format!("cannot read the password file `{}`: {error}", path.display())));
        }
        Err(_) => return Ok(()),
    };
    if is_open_to_others(&path) {
        warnings.push(format!(
            "the password file `{0}` is ignored, because other users can read it; run `chmod 600 {0}`",
            path.display()
        ));
        return Ok(());
    }
    let database = config.get_dbname().unwrap_or_default().to_owned();
    let user = config.get_user().unwrap_or_default().to_owned();
    let ports = config.get_ports().to_vec();
    let found = config.get_hosts().iter().enumerate().find_map(|(at, host)| {
        let port = ports.get(at).or(ports.first()).unwrap_or(&5432).to_string();
        let host = match host {
            Host::Tcp(name) => name.as_str(),
            Host::Unix(path)
                if ["/var/run/postgresql", "/run/postgresql", "/tmp"].iter().any(|usual| path == Path::new(usual)) =>
            {
                "localhost"
            }
            Host::Unix(path) => path.to_str()?,
        };
        password_of(&text, [host, &port, &database, &user])
    });
    if let Some(password) = found {
        config.password(password);
    }
    Ok(())
}

/// Returns the password of the first matching line of a password file, `host:port:database:user:password`.
///
/// <https://www.postgresql.org/docs/current/libpq-pgpass.html>
fn password_of(file: &str, wanted: [&str; 4]) -> Option<String> {
    file.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in wanted {
            let field;
            (field, rest) = rest.split_at_checked(colon(rest)?)?;
            rest = &rest[1..];
            if field != "*" && unescaped(field) != wanted {
                return None;
            }
        }
        Some(unescaped(rest)).filter(|password| !password.is_empty())
    })
}

/// Returns the position of the first colon without a backslash before it.
fn colon(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let found = byte == b':' && !escaped;
        escaped = byte == b'\\' && !escaped;
        found
    })
}

/// Removes backslashes that escape the next character.
fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    std::iter::from_fn(|| match chars.next()? {
        '\\' => chars.next(),
        char => Some(char),
    })
    .collect()
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> bool {
    false
}

/// Splits a URL at its `?`, ignoring one in the password.
fn split_query(url: &str) -> (&str, &str) {
    let start = url.find('@').unwrap_or(0);
    match url[start..].find('?') {
        Some(at) => (&url[..start + at], &url[start + at + 1..]),
        None => (url, ""),
    }
}

/// Decodes percent escapes; None if the bytes are not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, variables: &[(&str, &str)]) -> Result<ServerUrl> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        ServerUrl::parse(url, "shown", Path::new("/folder"), &variable)
    }

    fn password(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let config = parse(url, variables).unwrap().config;
        config.get_password().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_remote_server_proves_its_identity() {
        let url = parse("postgres://loader@db.example/p", &[]).unwrap();
        assert_eq!((url.config.get_ssl_mode(), url.tls.verify), (SslMode::Require, Verify::Full));
        assert!(url.warnings.is_empty());
        for (mode, verify) in
            [("verify-ca", Verify::Authority), ("require", Verify::Nothing), ("disable", Verify::Nothing)]
        {
            let url = parse(&format!("postgres://loader@db.example/p?sslmode={mode}"), &[]).unwrap();
            assert_eq!(url.tls.verify, verify);
            assert!(url.warnings[0].contains(mode), "{:?}", url.warnings);
        }
        let url = parse("postgres://loader@db.example/p?sslmode=require&sslrootcert=ca.pem", &[]).unwrap();
        assert_eq!(url.tls.verify, Verify::Authority);
        assert_eq!(url.tls.roots.as_deref(), Some(Path::new("/folder/ca.pem")));
    }

    #[test]
    fn this_machine_needs_no_certificate() {
        for host in ["localhost", "127.0.0.1", "127.3.4.5:5433", "[::1]:5433", "%2Frun%2Fpostgresql"] {
            let url = parse(&format!("postgres://loader@{host}/p"), &[]).unwrap();
            assert_eq!((url.config.get_ssl_mode(), url.tls.verify), (SslMode::Prefer, Verify::Nothing), "{host}");
            let url = parse(&format!("postgres://loader@{host}/p?sslmode=disable"), &[]).unwrap();
            assert!(url.warnings.is_empty());
        }
        let url = parse("postgres://loader@localhost,db.example/p", &[]).unwrap();
        assert_eq!(url.tls.verify, Verify::Full);
        let url = parse("postgres://loader@localhost/p?hostaddr=10.0.0.1", &[]).unwrap();
        assert_eq!(url.tls.verify, Verify::Full);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_without_the_password() {
        for (url, what) in [
            ("postgres://u:hunter22@/p", "names no host"),
            ("postgres://u:hunter22@h", "names no database"),
            ("postgres://:hunter22@h/p", "names no user"),
            ("postgres://u:hunter22@h:x/p", "port"),
            ("postgres://u:a@hunter22@h/p", "`%40`"),
            ("postgres://u:hunter22@h/p?sslmode=on", "unknown `sslmode=on`"),
            ("postgres://u:hunter22@h/p?wrong=1", "wrong"),
            ("postgres://u:hunter22@h/p?sslcert=x", "`sslkey`"),
            ("postgres://u:hunter22@h/p?sslmode", "without a value"),
        ] {
            let error = parse(url, &[]).err().unwrap();
            assert!(error.to_string().contains(what), "{error}");
            assert!(!format!("{error:?}").contains("hunter22"), "{error}");
        }
    }

    #[test]
    fn password_comes_from_url_environment_or_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".pgpass");
        std::fs::write(&file, "# a comment\nother:*:*:*:no\n*:5433:p:u:f\\:i:l\\\\e\n*:*:*:*:any\n").unwrap();
        let home = ("HOME", folder.path().to_str().unwrap());
        let set = |mode| std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        set(0o600);
        assert_eq!(password("postgres://u:url@h:5433/p", &[home, ("PGPASSWORD", "env")]).as_deref(), Some("url"));
        assert_eq!(password("postgres://u@h:5433/p", &[home, ("PGPASSWORD", "env")]).as_deref(), Some("env"));
        assert_eq!(password("postgres://u@h:5433/p", &[home]).as_deref(), Some("f:i:l\\e"));
        assert_eq!(password("postgres://h/p", &[home, ("PGUSER", "v")]).as_deref(), Some("any"));
        let named = format!("postgres://u@h/p?passfile={}", file.display());
        assert_eq!(password(&named, &[]).as_deref(), Some("any"));
        set(0o640);
        let url = parse("postgres://u@h:5433/p", &[home]).unwrap();
        assert!(url.config.get_password().is_none());
        assert!(url.warnings[0].contains("chmod 600"), "{:?}", url.warnings);
        let error = parse("postgres://u@h/p?passfile=none", &[]).err().unwrap();
        assert!(error.to_string().contains("`/folder/none`"), "{error}");
    }

    #[test]
    fn several_hosts_are_asked_for_the_one_that_writes() {
        let url = parse("postgresql://u@a:1,b:2/p", &[]).unwrap();
        assert_eq!(url.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(url.places(), "`a:1`, `b:2`");
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(decode("a%2Fb%").as_deref(), Some("a/b%"));
        assert_eq!(decode("%ff"), None);
    }
}
