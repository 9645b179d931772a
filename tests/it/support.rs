//! A folder of a test's own, the binary, and what is in a database, as text.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use tempfile::TempDir;

/// The repository: only ever read.
pub const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// The rows of tables, by table: each row as SQL literals with `|` between, sorted.
pub type Tables = BTreeMap<String, Vec<String>>;

/// A temporary folder that holds everything a test reads and writes.
pub struct Place {
    folder: TempDir,
}

/// What the binary said.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; less than 0 for the signal that ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("it-").tempdir().unwrap() }
    }

    /// A copy of the sample data and the sample pipelines.
    pub fn samples() -> Self {
        let place = Self::new();
        for folder in ["pipelines", "sample-data"] {
            copy(&Path::new(REPOSITORY).join(folder), &place.path(folder));
        }
        place
    }

    /// A copy of the samples with the production database made already.
    pub fn samples_with_production() -> Self {
        let place = Self::samples();
        place.database("pipelines/customer.db", &place.text("sample-data/production.sql"));
        place
    }

    /// A place with these files.
    pub fn with(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let place = Self::new();
        for (name, bytes) in files {
            place.write(name, bytes);
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Makes a database out of SQL.
    pub fn database(&self, name: &str, sql: &str) {
        self.open(name).execute_batch(sql).unwrap();
    }

    pub fn open(&self, name: &str) -> Connection {
        Connection::open(self.path(name)).unwrap()
    }

    /// The production tables of a database.
    pub fn production(&self, name: &str) -> Tables {
        tables(&self.open(name), is_production)
    }

    /// All tables of a database, those of this program too: but not the journal, which keeps what failed as well, not the
    /// database's id, and not what came into being with them and is empty.
    pub fn everything(&self, name: &str) -> Tables {
        let mut all = tables(&self.open(name), |name| {
            !["delta_event", "delta_migration", "delta_object", "delta_target"].contains(&name)
        });
        all.retain(|name, rows| is_production(name) || !rows.is_empty());
        all
    }

    /// All files of the place by their paths, with the hash of their bytes.
    pub fn files(&self) -> BTreeMap<String, String> {
        self.contents().into_iter().map(|(name, bytes)| (name, blake3::hash(&bytes).to_string())).collect()
    }

    /// All files of the place by their paths.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(self.folder.path()).unwrap().display().to_string();
                    found.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    /// Runs the binary in this place, with nothing of the tester's environment that it listens to.
    pub fn pipeline(&self, arguments: &[&str]) -> Ran {
        self.pipeline_with(arguments, &[])
    }

    /// The same with variables of the environment.
    pub fn pipeline_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        Ran::of(self.command(&[], arguments, variables).output().unwrap())
    }

    /// The command, to be run by another program or not.
    pub fn command(&self, by: &[&str], arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let program = assert_cmd::cargo::cargo_bin("pipeline");
        let words: Vec<_> = by.iter().map(OsStr::new).chain([program.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PIPELINE_") || ["DATABASE_URL", "NO_COLOR", "COLUMNS"].contains(&text.as_ref()) {
                command.env_remove(&name);
            }
        }
        // The databases of the tests belong to the superuser that makes them.
        if variables.iter().any(|(_, value)| value.contains("://postgres")) {
            command.env("PIPELINE_OWNER", "postgres");
        }
        command.current_dir(self.folder.path()).args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
        command
    }

    /// The report of a command as JSON; the command must exit with a code.
    pub fn report(&self, arguments: &[&str], code: i32) -> serde_json::Value {
        let ran = self.pipeline(&[arguments, &["--output", "json"]].concat());
        assert_eq!(ran.code, code, "{arguments:?}\n{}{}", ran.stdout, ran.stderr);
        serde_json::from_str(&ran.stdout).expect("stdout is JSON")
    }

    /// The folder with the rejects of a report.
    pub fn rejects(&self, report: &serde_json::Value) -> PathBuf {
        self.path(report["rejects"].as_str().expect("there are rejects"))
    }
}

impl Ran {
    /// What a command that has ended said; a signal's number is negative.
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is UTF-8");
        let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap());
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Holds the exit code, and that each text is part of what was said on stderr.
    pub fn fails(&self, code: i32, texts: &[&str]) {
        let whole = format!("stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "the exit code of\n{whole}");
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in\n{whole}");
        }
    }

    /// Holds that it went well.
    pub fn passes(&self) -> &Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// Says something that is seen whether the test passes or not.
pub fn tell(line: &str) {
    std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes()).unwrap();
}

pub fn is_production(table: &str) -> bool {
    !["staging_", "delta_", "sqlite_"].iter().any(|prefix| table.starts_with(prefix))
}

/// The rows of the wanted tables of a database.
pub fn tables(connection: &Connection, wanted: impl Fn(&str) -> bool) -> Tables {
    let names = strings(connection, "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')");
    let names = names.into_iter().filter(|name| wanted(name) && !name.starts_with("sqlite_stat"));
    names.map(|name| (name.clone(), rows(connection, &format!("SELECT * FROM \"{name}\"")))).collect()
}

/// The rows of a query, each as SQL literals with `|` between, sorted.
pub fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut rows = ordered_rows(connection, sql);
    rows.sort();
    rows
}

/// The same in the query's own order.
pub fn ordered_rows(connection: &Connection, sql: &str) -> Vec<String> {
    let statement = connection.prepare(sql).unwrap();
    let columns: Vec<String> = statement.column_names().map(|name| format!("quote(\"{name}\")")).collect();
    drop(statement);
    strings(connection, &format!("SELECT {} FROM ({sql})", columns.join(" || '|' || ")))
}

/// The first column of a query as texts.
pub fn strings(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// A single number of a query.
pub fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// How a file of the samples is written: its delimiter, and its text out of UTF-8 or else Windows-1252.
pub fn csv_dialect(bytes: &[u8]) -> (u8, String) {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => encoding_rs::WINDOWS_1252.decode(bytes).0.into_owned(),
    };
    let delimiter = if text.lines().next().is_some_and(|header| header.contains(';')) { b';' } else { b',' };
    (delimiter, text)
}

/// A CSV text as records, the header first. Only for files without faults.
pub fn csv_records(bytes: &[u8]) -> Vec<Vec<String>> {
    let (delimiter, text) = csv_dialect(bytes);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(text.as_bytes());
    reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// Says what two sets of tables do not share.
pub fn assert_same(found: &Tables, meant: &Tables) {
    if found == meant {
        return;
    }
    let none = Vec::new();
    let mut differences = Vec::new();
    for table in found.keys().chain(meant.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (here, there) = (found.get(table).unwrap_or(&none), meant.get(table).unwrap_or(&none));
        for (what, rows, others) in [("is there, not meant", here, there), ("is meant, not there", there, here)] {
            for row in rows.iter().filter(|row| !others.contains(row)).take(5) {
                differences.push(format!("{table}: {row} {what}"));
            }
        }
        if here.len() != there.len() || found.contains_key(table) != meant.contains_key(table) {
            differences.push(format!("{table}: {} rows are there, {} meant", here.len(), there.len()));
        }
    }
    panic!("the tables differ:\n{}", differences.join("\n"));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // What a tester's own runs left in the checkout is none of a test's business.
        if ["runs", "backups"].contains(&name.as_str()) || name.contains(".db") {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(&name));
        } else {
            std::fs::copy(&path, to.join(&name)).unwrap();
        }
    }
}
