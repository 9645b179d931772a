//! The sample production is the same on both databases.

use std::path::Path;

use rusqlite::Connection;

use crate::server::{Database, Server};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data");

/// A table with its key and its columns: a name, and how many decimals there are of a number.
const TABLES: [(&str, &str, &str); 8] = [
    ("person", "person_id", ""),
    ("account", "account_id", "credit_limit:2"),
    ("service_point", "service_point_id", "latitude:6 longitude:6"),
    ("rate", "rate_code", ""),
    ("service_agreement", "agreement_id", "deposit:2"),
    ("agreement_rate", "agreement_id, seq_no", "price:5 base_price:2"),
    ("meter", "meter_id", ""),
    ("meter_read", "read_id", "reading:3"),
];

fn sqlite() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(&std::fs::read_to_string(Path::new(FOLDER).join("production.sql")).unwrap()).unwrap();
    connection
}

fn postgres() -> Database {
    let sql = std::fs::read_to_string(Path::new(FOLDER).join("production.postgres.sql")).unwrap();
    Server::shared().database(&sql)
}

/// The rows of a query as texts, NULL as `NULL`: as the other server gives them.
fn rows(connection: &Connection, sql: &str) -> Vec<Vec<String>> {
    let mut statement = connection.prepare(sql).unwrap();
    let count = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..count).map(|at| row.get(at)).collect::<Result<Vec<String>, _>>();
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

#[test]
fn sample_production_is_the_same_on_postgres() {
    let (sqlite, postgres) = (sqlite(), postgres());
    for (table, key, decimals) in TABLES {
        let names = rows(&sqlite, &format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid")).concat();
        let there = format!(
            "SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum"
        );
        assert_eq!(postgres.rows(&there).concat(), names, "the columns of {table}");
        let texts = names.iter().map(|name| {
            let decimals = decimals.split(' ').find_map(|number| number.strip_prefix(&format!("{name}:")));
            let text = decimals.map_or(format!("cast({name} AS TEXT)"), |many| format!("printf('%.{many}f', {name})"));
            format!("CASE WHEN {name} IS NULL THEN 'NULL' ELSE {text} END")
        });
        let texts = texts.collect::<Vec<_>>().join(", ");
        let meant = rows(&sqlite, &format!("SELECT {texts} FROM {table} ORDER BY {key}"));
        let found =
            postgres.rows(&format!("SELECT * FROM {table} ORDER BY {}", key.replace("_code", "_code COLLATE \"C\"")));
        assert_eq!(found.len(), meant.len(), "the rows of {table}");
        for (found, meant) in found.iter().zip(&meant) {
            assert_eq!(found, meant, "a row of {table}");
        }
    }
}

#[test]
fn constraints_and_indexes_have_the_same_names_on_postgresql() {
    let (sqlite, postgres) = (sqlite(), postgres());
    let indexes = rows(&sqlite, "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1");
    let there = "SELECT c.relname FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid \
        WHERE NOT indisunique AND c.relnamespace = 'public'::regnamespace ORDER BY c.relname COLLATE \"C\"";
    assert_eq!(postgres.rows(there), indexes);
    for (table, ..) in TABLES {
        let sql = rows(&sqlite, &format!("SELECT sql FROM sqlite_schema WHERE name = '{table}'")).concat().concat();
        let mut named: Vec<_> = sql.split("CONSTRAINT ").skip(1).map(|rest| rest.split(' ').next().unwrap()).collect();
        named.sort_unstable();
        let there = format!(
            "SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'c' \
             ORDER BY conname COLLATE \"C\""
        );
        assert_eq!(postgres.rows(&there).concat(), named, "{table}");
    }
}

#[test]
fn the_next_key_is_the_same_on_postgresql() {
    let postgres = postgres();
    for (table, key) in [
        ("person", "person_id"),
        ("account", "account_id"),
        ("service_point", "service_point_id"),
        ("service_agreement", "agreement_id"),
        ("meter_read", "read_id"),
    ] {
        let last = postgres.number(&format!("SELECT max({key}) FROM {table}"));
        let next = postgres.number(&format!("SELECT nextval(pg_get_serial_sequence('{table}', '{key}'))"));
        assert_eq!(next, last + 1, "{table}");
    }
}
