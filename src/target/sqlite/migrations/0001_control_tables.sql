-- What the pipeline remembers in the file. SQLite has one schema: a table of production is named by its name alone.

-- A run is here if and only if its rows are in production.
CREATE TABLE delta_run (
    id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, started_at TEXT NOT NULL, report TEXT NOT NULL);

-- The journals of the runs. An entry is written before, or together with, what it says.
CREATE TABLE delta_event (
    run TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, entry TEXT NOT NULL, chain TEXT NOT NULL,
    PRIMARY KEY (run, number));

-- The files that were loaded. The same file may be loaded by several runs: after a rollback, or on request.
CREATE TABLE delta_file (
    hash TEXT NOT NULL, table_name TEXT NOT NULL, name TEXT NOT NULL, run TEXT NOT NULL REFERENCES delta_run (id),
    PRIMARY KEY (hash, table_name, run));

-- The blocks of keys that runs reserved. All key maps of a table share them.
CREATE TABLE delta_block (
    table_name TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, run TEXT NOT NULL,
    PRIMARY KEY (table_name, first));

-- The mappings that each run appended to a key map: `account`, or `acme:account` within a namespace.
CREATE TABLE delta_segment (
    number INTEGER PRIMARY KEY, key_map TEXT NOT NULL, table_name TEXT NOT NULL, run TEXT NOT NULL, rows INTEGER NOT NULL,
    UNIQUE (key_map, run));

-- The ids of this file, by which a key-map store recognizes it.
CREATE TABLE delta_target (id TEXT PRIMARY KEY);
INSERT INTO delta_target (id) VALUES (lower(hex(randomblob(16))));

-- The periods of conversion mode. The last one counts, until it ends or its time is up by this machine's clock.
CREATE TABLE delta_mode (
    number INTEGER PRIMARY KEY, since TEXT NOT NULL, until TEXT NOT NULL, switched_by TEXT NOT NULL, reason TEXT NOT NULL,
    keep INTEGER NOT NULL, ended_at TEXT, ended_by TEXT, ended_run TEXT, ended_reason TEXT);

-- What this target requires of every run. The last row counts; without one, nothing is required.
CREATE TABLE delta_policy (
    number INTEGER PRIMARY KEY, conversion_mode INTEGER NOT NULL, approvals INTEGER NOT NULL, max_key_block INTEGER NOT NULL,
    opening_window TEXT, set_at TEXT NOT NULL, set_by TEXT NOT NULL);
