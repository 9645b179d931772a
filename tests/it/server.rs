//! A throw-away PostgreSQL: a server of the tests' own, gone with the process that started it.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

const MISSING: &str = "the tests need PostgreSQL's programs (initdb, pg_ctl, postgres), and they are not here; \
    `tests/run` installs them, or: apt-get install postgresql";

/// Fast, since nothing here has to outlive a crash of the machine.
const CONFIG: &str = "listen_addresses = '127.0.0.1'\nfsync = off\nfull_page_writes = off\nsynchronous_commit = off\n\
    max_connections = 200\nshared_buffers = 128MB\n";

/// What ends a server, whether it is dropped or its process is killed: the pipe that it reads from is closed by both.
const WATCHDOG: &str = r#"trap '' HUP INT TERM
read -r _
pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null)
"$@" >/dev/null 2>&1 || [ -z "$pid" ] || kill -KILL "$pid"
rm -rf "$0"
"#;

/// A server with a folder of its own.
pub struct Server {
    /// Holds the data, the log `log`, the Unix socket, and what tests [`write`](Self::write) for the server.
    pub folder: PathBuf,
    pub port: u16,
    password: String,
    programs: PathBuf,
    watchdog: Child,
}

/// A database of a test's own; gone when it is dropped.
pub struct Database {
    pub name: String,
    folder: PathBuf,
    port: u16,
    password: String,
}

impl Server {
    /// The server that the tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Server> = LazyLock::new(|| Server::private(&[]));
        &SHARED
    }

    /// A server on which no other test grants anything: roles, and what they may set, belong to all databases of a server.
    pub fn attacked() -> &'static Self {
        static ATTACKED: LazyLock<Server> = LazyLock::new(|| Server::private(&[]));
        &ATTACKED
    }

    /// A server for one test, with more lines for its `postgresql.conf`.
    pub fn private(extra_config: &[&str]) -> Self {
        let programs = programs();
        let made = as_owner("mktemp").args(["-d", "-t", "it-postgres-XXXXXX"]).output().expect("mktemp runs");
        assert!(made.status.success(), "no folder for a server: {}", String::from_utf8_lossy(&made.stderr));
        let folder = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim_end());
        let stop = pg_ctl(&programs, &folder, &["-m", "immediate", "-t", "10", "stop"]);
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG])
            .arg(&folder)
            .arg(stop.get_program())
            .args(stop.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .current_dir("/")
            .spawn()
            .expect("sh runs");
        let mut server = Self { folder, port: 0, password: random(), programs, watchdog };
        server.write("password", &server.password);
        let mut initdb = as_owner(server.programs.join("initdb"));
        initdb.args(["-N", "-U", "postgres", "--pwfile=password", "-E", "UTF8", "--locale=C.UTF-8", "-D", "data"]);
        // Nobody else reaches the socket, and a test's own questions need no slow SCRAM.
        initdb.args(["--auth-host=scram-sha-256", "--auth-local=trust"]).current_dir(&server.folder);
        ran(&mut initdb).unwrap();
        let config = server.folder.join("data/postgresql.conf");
        let socket = format!("unix_socket_directories = '{}'\n", server.folder.display());
        let text = fs::read_to_string(&config).unwrap() + CONFIG + &socket + &extra_config.join("\n") + "\n";
        fs::write(config, text).unwrap();
        // Another process may take the port that was free a moment ago.
        let started = (0..5).find_map(|_| {
            server.port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            server.try_start().ok()
        });
        assert!(started.is_some(), "PostgreSQL does not start:\n{}", server.log());
        // As it is from PostgreSQL 15 on.
        run(&server.folder, server.port, "template1", "REVOKE CREATE ON SCHEMA public FROM PUBLIC").unwrap();
        server
    }

    /// Starts a stopped server on its own port.
    pub fn start(&self) {
        self.try_start().unwrap();
    }

    /// Stops the server as a crash would.
    pub fn stop(&self) {
        ran(&mut pg_ctl(&self.programs, &self.folder, &["-m", "immediate", "stop"])).unwrap();
    }

    /// Stops the server and starts it again.
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    /// Sets how large a file may become that the server's next sessions write; none: as large as they like.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let pid = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        let Some(pid) = pid.lines().next() else { return };
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        ran(as_owner("prlimit").args(["--pid", pid, &format!("--fsize={limit}:")])).unwrap();
    }

    /// Whether it is up: it may have crashed.
    pub fn is_running(&self) -> bool {
        ran(&mut pg_ctl(&self.programs, &self.folder, &["status"])).is_ok()
    }

    /// Reads the configuration again.
    pub fn reload(&self) {
        self.sql("SELECT pg_reload_conf()");
    }

    /// Ends the sessions of all others.
    pub fn terminate_backends(&self) {
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        );
    }

    /// A new database, with SQL run in it.
    pub fn database(&self, sql: &str) -> Database {
        let (name, folder, password) = (format!("it_{}", random()), self.folder.clone(), self.password.clone());
        self.sql(&format!("CREATE DATABASE {name}"));
        let database = Database { name, folder, port: self.port, password };
        database.execute(sql);
        database
    }

    /// What the server has written into its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Writes a file into the server's folder, which only the server may read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        let owner = fs::metadata(&self.folder).unwrap();
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        std::io::Write::write_all(&mut options.open(&path).unwrap(), text.as_bytes()).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        path
    }

    fn sql(&self, sql: &str) {
        run(&self.folder, self.port, "postgres", sql).unwrap();
    }

    fn try_start(&self) -> Result<(), String> {
        let port = format!("-p {}", self.port);
        ran(&mut pg_ctl(&self.programs, &self.folder, &["-w", "-t", "60", "-l", "log", "-o", &port, "start"]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `wait` closes the watchdog's pipe.
        drop(self.watchdog.wait());
    }
}

impl Database {
    /// Its URL, as the superuser.
    pub fn url(&self) -> String {
        self.url_as("postgres", &self.password)
    }

    /// Its socket's folder, port, and name, as messages name it.
    pub fn local_place(&self) -> String {
        format!("{}:{}/{}", self.folder.display(), self.port, self.name)
    }

    /// Its URL, as somebody else.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// Its URL for a role on this machine, whom the server trusts: without the slow SCRAM.
    pub fn local_url(&self, user: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{user}@{folder}:{}/{}", self.port, self.name)
    }

    /// The same database again under a name of its own; nobody may be connected to this one.
    pub fn copied(&self) -> Self {
        let (name, folder, password) = (format!("it_{}", random()), self.folder.clone(), self.password.clone());
        run(&self.folder, self.port, "postgres", &format!("CREATE DATABASE {name} TEMPLATE {}", self.name)).unwrap();
        Self { name, folder, port: self.port, password }
    }

    /// All rows of production as the server writes them, sorted.
    pub fn dump(&self) -> String {
        let tables =
            "SELECT format('%I.%I', schemaname, tablename), tablename FROM pg_tables WHERE schemaname = 'public'";
        // Not where sequences are: a key that was given is never given again.
        let mut rows: Vec<String> = Vec::new();
        for table in self.rows(tables) {
            let found = self.rows(&format!("SELECT t::text FROM ONLY {} AS t", table[0]));
            rows.extend(found.into_iter().map(|row| format!("{}: {}", table[1], row[0])));
        }
        rows.sort_unstable();
        rows.join("\n")
    }

    /// Runs statements.
    pub fn execute(&self, sql: &str) {
        self.rows(sql);
    }

    /// The single number of a query.
    pub fn number(&self, sql: &str) -> i64 {
        self.text(sql).parse().unwrap()
    }

    /// The single value of a query.
    pub fn text(&self, sql: &str) -> String {
        let mut rows = self.rows(sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "not a single value: {rows:?} of {sql}");
        rows.remove(0).remove(0)
    }

    /// The rows of a query as PostgreSQL writes them; NULL as `NULL`.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        run(&self.folder, self.port, &self.name, sql).unwrap_or_else(|error| panic!("{error}\nof {sql:.500}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that is stopped has nothing to drop.
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        drop(run(&self.folder, self.port, "postgres", &sql));
    }
}

/// Runs SQL as the superuser, on a thread of its own: the test may be inside a runtime already.
fn run(socket: &Path, port: u16, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let query = async {
        let mut config = Config::new();
        let (client, connection) =
            config.host_path(socket).port(port).user("postgres").dbname(database).connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await;
        drop(client);
        drop(connection.await);
        let rows = messages?.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let values = |row: SimpleQueryRow| (0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()).collect();
        Ok(rows.map(values).collect())
    };
    let in_runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(query);
    let result = std::thread::scope(|scope| scope.spawn(in_runtime).join().unwrap());
    result.map_err(|error: tokio_postgres::Error| {
        error.as_db_error().map_or_else(|| format!("{error:?}"), ToString::to_string)
    })
}

/// The folder of the newest server's programs, or where `PGBIN` says.
fn programs() -> PathBuf {
    let version = |bin: &PathBuf| bin.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let mut packaged: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|found| found.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    packaged.sort_by_key(version);
    let told = std::env::var_os("PGBIN").map(PathBuf::from);
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    told.into_iter()
        .chain(configured)
        .chain(packaged.into_iter().rev())
        .chain(std::env::split_paths(&path))
        .find(|folder| ["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).is_file()))
        .expect(MISSING)
}

/// A program as the user that owns the server: PostgreSQL refuses to be root.
pub fn as_owner(program: impl AsRef<Path>) -> Command {
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0) {
        return Command::new(program.as_ref());
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program.as_ref());
    command
}

fn pg_ctl(programs: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = as_owner(programs.join("pg_ctl"));
    command.arg("-D").arg(folder.join("data")).args(arguments).current_dir(folder);
    command
}

fn ran(command: &mut Command) -> Result<(), String> {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(()) } else { Err(text(&output.stdout) + &text(&output.stderr)) }
}

fn random() -> String {
    format!("{:016x}", RandomState::new().hash_one(()))
}
