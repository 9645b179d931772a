//! A small production and deltas for it, the same text on SQLite and on PostgreSQL, and what a load of one must come to: the
//! crash tests run on it, and the invariants are held against it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::server::{Database, Server};
use crate::support::{Place, Ran, Tables, is_production, tables};
pub use crate::target::live::On;

/// A parent with keys of the table's own and a reference to itself, a child with text keys that no sequence gives, and parts
/// with inherited keys; `region` is referred to, and never loaded.
const SQL: &str = "
    CREATE TABLE region (region_id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL);
    CREATE TABLE parent (
        parent_id {serial}, code VARCHAR(20) NOT NULL UNIQUE, boss_id {big} REFERENCES parent (parent_id),
        size INTEGER CHECK (size >= 0), memo VARCHAR(40));
    CREATE TABLE child (
        child_id VARCHAR(8) PRIMARY KEY NOT NULL, parent_id {big} NOT NULL REFERENCES parent (parent_id),
        region_id INTEGER REFERENCES region (region_id), quantity INTEGER NOT NULL CHECK (quantity > 0),
        memo VARCHAR(40));
    CREATE TABLE part (
        child_id VARCHAR(8) NOT NULL REFERENCES child (child_id), seq_no INTEGER NOT NULL, memo VARCHAR(40),
        PRIMARY KEY (child_id, seq_no));
    INSERT INTO region VALUES (1, 'north'), (2, 'south'), (3, 'west');
    INSERT INTO parent (code, boss_id, size, memo) VALUES
        ('OLD-1', NULL, 5, 'there before'), ('OLD-2', 1, NULL, NULL), ('OLD-3', 1, 0, '  blanks  ');
    INSERT INTO child VALUES ('C0000041', 1, 1, 3, 'there before'), ('C0000042', 2, NULL, 1, NULL);
    INSERT INTO part VALUES ('C0000041', 1, 'there before'), ('C0000041', 2, NULL);";

const PIPELINE: &str = "version: 1
name: scene
target: { url: '${DATABASE_URL}' }
safeguards: { max_rejects: 100%{safeguards} }
{head}tables:
  parent:
    source: { path: parent.csv }
    legacy_key: [ref]
    key: { column: parent_id }
    relationships:
      - { column: boss_id, from: [boss], to: parent }
    existing: skip
  child:
    source: { path: child.csv }
    legacy_key: [ref]
    key: { column: child_id, prefix: C, width: 8 }
    relationships:
      - { column: parent_id, from: [parent], to: parent }
  part:
    source: { path: part.csv }
    legacy_key: [child, seq_no]
    key: { inherited: [child_id, seq_no] }
    relationships:
      - { column: child_id, from: [child], to: child }
";

/// The pipeline file of a scene.
pub const FILE: &str = "scene.yaml";

/// A table that a scene's delta is for.
pub struct Table {
    pub name: &'static str,
    /// SQL: its key as text.
    pub key: &'static str,
    /// SQL: each row's key, and the row as a delta tells it, references by what they refer to.
    pub story: &'static str,
    /// Whether its keys come out of a block, and what is before a key's number.
    pub block: Option<&'static str>,
}

/// Parents before children.
pub const TABLES: [Table; 3] = [
    Table {
        name: "parent",
        key: "CAST(parent_id AS TEXT)",
        story: "SELECT CAST(p.parent_id AS TEXT) AS key, p.code, b.code AS boss, p.size, p.memo
            FROM parent AS p LEFT JOIN parent AS b ON b.parent_id = p.boss_id",
        block: Some(""),
    },
    Table {
        name: "child",
        key: "child_id",
        story: "SELECT c.child_id AS key, p.code, r.name, c.quantity, c.memo FROM child AS c
            LEFT JOIN parent AS p ON p.parent_id = c.parent_id LEFT JOIN region AS r ON r.region_id = c.region_id",
        block: Some("C"),
    },
    Table {
        name: "part",
        key: "child_id || '|' || CAST(seq_no AS TEXT)",
        story: "SELECT p.child_id || '|' || CAST(p.seq_no AS TEXT) AS key, c.memo AS child, p.seq_no, p.memo
            FROM part AS p LEFT JOIN child AS c ON c.child_id = p.child_id",
        block: None,
    },
];

/// What becomes of a line of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Inserted,
    Rejected,
    Skipped,
}

/// A line of a delta.
pub struct Line {
    pub legacy: String,
    pub fate: Fate,
    /// The row that it becomes, as a table's story tells it.
    pub row: Vec<String>,
}

/// A delta as the test knows it: nothing here was asked of the product.
pub struct Delta {
    pub tables: BTreeMap<&'static str, Vec<Line>>,
    pub files: BTreeMap<&'static str, String>,
}

impl Delta {
    /// A delta of some parents, each with two children and these with three parts; `name` makes its legacy keys and codes.
    /// What it refers to outside of itself was in production before, and in the delta `before` where one is named.
    pub fn new(name: &str, parents: usize, before: Option<&str>) -> Self {
        let mut delta = Self { tables: BTreeMap::new(), files: BTreeMap::new() };
        for (table, header) in [
            ("parent", "ref,code,boss,size,memo\n"),
            ("child", "ref,parent,region_id,quantity,memo\n"),
            ("part", "child,seq_no,memo\n"),
        ] {
            delta.tables.insert(table, Vec::new());
            delta.files.insert(table, header.to_owned());
        }
        for n in 1..=parents {
            delta.parent(name, n, before);
        }
        delta
    }

    fn parent(&mut self, name: &str, n: usize, before: Option<&str>) {
        let (fate, code, size) = match n {
            3 => (Fate::Rejected, format!("{name}-{n}"), "-1".to_owned()),
            5 => (Fate::Skipped, "OLD-1".to_owned(), "7".to_owned()),
            7 => (Fate::Rejected, format!("{name}-{n}"), "many".to_owned()),
            // Its boss is kept out.
            11 => (Fate::Rejected, format!("{name}-{n}"), "1".to_owned()),
            _ => {
                (Fate::Inserted, format!("{name}-{n}"), if n.is_multiple_of(4) { String::new() } else { n.to_string() })
            }
        };
        // By legacy key, and by code.
        let (boss, boss_code) = match (n, before) {
            (1, Some(before)) => (format!("{before}P1"), format!("{before}-1")),
            (11, _) => (format!("{name}P3"), String::new()),
            // The line that is skipped stands for the row that is there.
            (13, _) => (format!("{name}P5"), "OLD-1".to_owned()),
            (n, _) if n % 2 == 0 => (format!("{name}P1"), format!("{name}-1")),
            _ => (String::new(), "NULL".to_owned()),
        };
        let legacy = format!("{name}P{n}");
        let memo = format!("parent {n} of {name}");
        let row = vec![code.clone(), boss_code, or_null(&size), memo.clone()];
        self.line("parent", &legacy, fate, row, &format!("{legacy},{code},{boss},{size},{memo}"));
        for m in 1..=2 {
            let region = if (n, m) == (9, 1) { 99 } else { (n + m) % 3 + 1 };
            let quantity = if (n, m) == (9, 2) { 0 } else { n };
            let out = fate == Fate::Rejected || n == 9;
            let child = Child { legacy: format!("{name}C{n}-{m}"), memo: format!("child {n}-{m} of {name}"), out };
            let row = vec![
                code.clone(),
                ["", "north", "south", "west"].get(region).copied().unwrap_or_default().to_owned(),
                quantity.to_string(),
                child.memo.clone(),
            ];
            let text = format!("{},{legacy},{region},{quantity},{}", child.legacy, child.memo);
            self.line("child", &child.legacy, child.fate(), row, &text);
            for seq_no in 1..=3 {
                let memo = format!("part {seq_no} of {}", child.memo);
                let row = vec![child.memo.clone(), seq_no.to_string(), memo.clone()];
                let text = format!("{},{seq_no},{memo}", child.legacy);
                self.line("part", &format!("{}|{seq_no}", child.legacy), child.fate(), row, &text);
            }
        }
    }

    fn line(&mut self, table: &'static str, legacy: &str, fate: Fate, row: Vec<String>, text: &str) {
        writeln!(self.files.get_mut(table).unwrap(), "{text}").unwrap();
        self.tables.get_mut(table).unwrap().push(Line { legacy: legacy.to_owned(), fate, row });
    }

    /// How many lines of a table have a fate.
    pub fn count(&self, table: &str, fate: Fate) -> usize {
        self.tables[table].iter().filter(|line| line.fate == fate).count()
    }
}

struct Child {
    legacy: String,
    memo: String,
    out: bool,
}

impl Child {
    fn fate(&self) -> Fate {
        if self.out { Fate::Rejected } else { Fate::Inserted }
    }
}

fn or_null(text: &str) -> String {
    if text.is_empty() { "NULL".to_owned() } else { text.to_owned() }
}

/// A production of either kind, and the place with the pipeline file and the delta.
pub struct Scene {
    pub on: On,
    pub place: Place,
    pub database: Option<Database>,
}

impl Scene {
    /// Production with the delta `A` in it, so that there are a key map, blocks and a run of earlier already.
    pub fn new(on: On) -> Self {
        /// The files, and the database to copy: nothing that outlives the tests may hold a folder.
        type Made = (BTreeMap<String, Vec<u8>>, Option<Database>);
        fn made(on: On) -> Made {
            let scene = Scene::made(on);
            (scene.place.contents(), scene.database)
        }
        static SQLITE: LazyLock<Made> = LazyLock::new(|| made(On::Sqlite));
        static POSTGRES: LazyLock<Made> = LazyLock::new(|| made(On::Postgres));
        let (files, database) = &**on.choose(&SQLITE, &POSTGRES);
        Self { on, place: Place::with(files), database: database.as_ref().map(Database::copied) }
    }

    /// The same in a server of a test's own.
    pub fn on_server(server: &Server) -> Self {
        Self::make(On::Postgres, Some(server.database("")))
    }

    fn made(on: On) -> Self {
        Self::make(on, (on == On::Postgres).then(|| Server::shared().database("")))
    }

    fn make(on: On, database: Option<Database>) -> Self {
        let sql = SQL
            .replace(
                "{serial}",
                on.choose("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
            )
            .replace("{big}", on.choose("INTEGER", "BIGINT"));
        let scene = Self { on, place: Place::new(), database };
        scene.execute(&sql);
        scene.write("");
        if on == On::Postgres {
            scene.pipeline(&["setup", FILE]).passes();
            scene.execute(crate::production::NO_MODE);
        }
        scene.give(&Delta::new("A", 6, None));
        scene.pipeline(&["run", FILE]).passes();
        scene
    }

    /// The same again, in a place and a database of its own.
    pub fn copied(&self) -> Self {
        let database = self.database.as_ref().map(Database::copied);
        Self { on: self.on, place: Place::with(&self.place.contents()), database }
    }

    /// Writes the pipeline file with more at its head.
    pub fn write(&self, head: &str) {
        self.place.write(FILE, PIPELINE.replace("{head}", head).replace("{safeguards}", ", conversion_mode: off"));
    }

    /// Writes a delta's files.
    pub fn give(&self, delta: &Delta) {
        for (table, text) in &delta.files {
            self.place.write(&format!("{table}.csv"), text);
        }
    }

    pub fn url(&self) -> String {
        self.database.as_ref().map_or("sqlite:scene.db".to_owned(), |database| database.local_url("postgres"))
    }

    pub fn pipeline(&self, arguments: &[&str]) -> Ran {
        self.pipeline_with(arguments, &[])
    }

    pub fn pipeline_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let url = self.url();
        self.place.pipeline_with(arguments, &[&[("DATABASE_URL", url.as_str())], variables].concat())
    }

    /// The command, to be run by another program or not.
    pub fn command(&self, by: &[&str], arguments: &[&str]) -> std::process::Command {
        self.place.command(by, arguments, &[("DATABASE_URL", &self.url())])
    }

    /// All rows of production as a dump of the database has them.
    pub fn dump(&self) -> String {
        let Some(database) = &self.database else {
            let tables = self.production().into_iter();
            let rows = tables.flat_map(|(name, rows)| rows.into_iter().map(move |row| format!("{name}|{row}")));
            return rows.collect::<Vec<_>>().join("\n");
        };
        database.dump()
    }

    /// A control table's name: `delta.run` or `delta_run`.
    pub fn control(&self, name: &str) -> String {
        self.on.choose("delta_", "delta.").to_owned() + name
    }

    /// Whether there is such a control table.
    pub fn has_control(&self, name: &str) -> bool {
        let sql = match self.on {
            On::Sqlite | On::Memory => format!("SELECT count(*) FROM sqlite_schema WHERE name = 'delta_{name}'"),
            On::Postgres => {
                format!("SELECT count(*) FROM pg_tables WHERE schemaname = 'delta' AND tablename = '{name}'")
            }
        };
        self.rows(&sql)[0][0] != "0"
    }

    pub fn execute(&self, sql: &str) {
        match &self.database {
            Some(database) => database.execute(sql),
            None => self.place.open("scene.db").execute_batch(sql).unwrap_or_else(|error| panic!("{error}\nof {sql}")),
        }
    }

    /// The rows of a query as texts; NULL as `NULL`.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let Some(database) = &self.database else {
            let connection = self.place.open("scene.db");
            let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{error}\nof {sql}"));
            let count = statement.column_count();
            let rows = statement.query_map([], |row| (0..count).map(|at| Ok(text(row.get_ref(at)?))).collect());
            return rows.unwrap().map(Result::unwrap).collect();
        };
        database.rows(sql)
    }

    /// The rows of production, byte for byte; on PostgreSQL each with the transaction that wrote it.
    pub fn production(&self) -> Tables {
        match &self.database {
            Some(database) => written(database, "public"),
            None => tables(&self.place.open("scene.db"), is_production),
        }
    }

    /// The rows of what the program remembers, byte for byte.
    pub fn remembered(&self) -> Tables {
        match &self.database {
            Some(database) => written(database, "delta"),
            None => tables(&self.place.open("scene.db"), |name| name.starts_with("delta_")),
        }
    }
}

fn written(database: &Database, schema: &str) -> Tables {
    // Of mappings those that count, and not which runs have appended some.
    let sql = format!(
        "SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' AND tablename NOT LIKE 'mapping!_%' ESCAPE '!' AND tablename <> 'appended'
         UNION ALL SELECT viewname FROM pg_views WHERE schemaname = '{schema}'"
    );
    let names: Vec<_> = database.rows(&sql).into_iter().flatten().collect();
    let rows = |name: &String| {
        let written_by = if name.starts_with("key_map_") { "''" } else { "t.xmin::text" };
        let sql = format!("SELECT {written_by}, t::text FROM {schema}.\"{name}\" AS t");
        let mut rows: Vec<_> = database.rows(&sql).into_iter().map(|row| row.join(":")).collect();
        rows.sort();
        rows
    };
    names.iter().map(|name| (format!("{}{name}", if schema == "delta" { "delta." } else { "" }), rows(name))).collect()
}

pub fn text(value: rusqlite::types::ValueRef<'_>) -> String {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
    }
}
