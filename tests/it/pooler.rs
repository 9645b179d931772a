//! A PgBouncer before the tests' PostgreSQL, gone with the process that started it.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::server::{Server, as_owner};

const MISSING: &str = "PgBouncer does not start: `tests/run` installs it, or: apt-get install pgbouncer";

/// Runs a program as long as somebody has the other end of the pipe.
const WATCHDOG: &str = r#"exec 3<&0
"$@" </dev/null >/dev/null 2>&1 & program=$!
read -r _ <&3
kill "$program"
"#;

/// A pooler.
pub struct Pooler {
    pub port: u16,
    watchdog: Child,
}

impl Pooler {
    /// One that shares sessions of a server as this mode of PgBouncer's says; it lets everybody in as the superuser.
    pub fn before(server: &Server, mode: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = server.write(
            &format!("pooler-{port}.ini"),
            &format!(
                "[databases]\n* = host={folder} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = any\npool_mode = {mode}\nignore_startup_parameters = options, extra_float_digits\n",
                server.port,
                folder = server.folder.display()
            ),
        );
        let mut watchdog = as_owner("sh");
        // Debian keeps it where only the administrator's PATH looks.
        watchdog.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        watchdog.args(["-c", WATCHDOG, "sh", "pgbouncer"]).arg(config).stdin(Stdio::piped()).process_group(0);
        let pooler = Self { port, watchdog: watchdog.current_dir("/").spawn().expect("sh runs") };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{MISSING}");
            std::thread::sleep(Duration::from_millis(10));
        }
        pooler
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // `wait` closes the watchdog's pipe.
        drop(self.watchdog.wait());
    }
}
