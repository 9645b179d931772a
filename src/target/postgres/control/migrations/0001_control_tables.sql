-- What the pipeline remembers. A table of production is named by schema and name, as `public.account`.

-- A run is here if and only if its rows are in production. `transaction` wrote all of them.
CREATE TABLE delta.run (
    id text COLLATE "C" PRIMARY KEY, pipeline text NOT NULL, started_at text NOT NULL, report text NOT NULL, transaction text NOT NULL);

-- The journals of the runs. An entry is written before, or together with, what it says. `login` is the login that wrote it.
CREATE TABLE delta.event (
    run text COLLATE "C" NOT NULL, number integer NOT NULL, kind text NOT NULL, entry text NOT NULL, chain text NOT NULL,
    login name NOT NULL DEFAULT session_user, PRIMARY KEY (run, number));

-- The tables that are loaded, each with its owner and its key map. The functions of this schema act on these tables and on no other. Two legacy systems
-- whose keys look alike have a namespace each, and so a key map each of the same table: `acme:public.account` beside `public.account`. A table that is
-- only referred to has a key map as well, but no pipeline inserts into it (`is_loaded`).
CREATE TABLE delta.loaded_table (
    table_name text COLLATE "C" PRIMARY KEY, namespace text NOT NULL, relation text COLLATE "C" NOT NULL,
    schema_name name NOT NULL, relation_name name NOT NULL, relation_owner name NOT NULL, key_columns name[] NOT NULL, key_column name,
    sequence_schema name, sequence_name name, history name NOT NULL UNIQUE, mappings name NOT NULL UNIQUE,
    staging_schema name NOT NULL, staging_rows name NOT NULL, staging_keys name NOT NULL, is_loaded boolean NOT NULL);

-- What rows of loaded tables refer to though no foreign key covers it: the referenced table, its key, and the column that the key is
-- looked up by. delta.lock_references locks nothing else.
CREATE TABLE delta.reference (
    schema_name name NOT NULL, relation_name name NOT NULL, relation_owner name NOT NULL, columns name[] NOT NULL,
    PRIMARY KEY (schema_name, relation_name, columns));

-- The owners of the tables of production that setup has seen: loaded, or referred to. The functions of this schema read no table of another
-- one, since planning a query over it may run that role's code in their owner's name.
CREATE TABLE delta.trusted_owner (name name PRIMARY KEY);

-- The files that were loaded. The same file may be loaded by several runs: after a rollback, or on request.
CREATE TABLE delta.file (
    hash text COLLATE "C" NOT NULL, table_name text COLLATE "C" NOT NULL, name text NOT NULL,
    run text COLLATE "C" NOT NULL REFERENCES delta.run (id), PRIMARY KEY (hash, table_name, run));

-- The blocks of keys that runs reserved. All key maps of a table share them.
CREATE TABLE delta.block (
    table_name text COLLATE "C" NOT NULL, first bigint NOT NULL, last bigint NOT NULL, run text COLLATE "C" NOT NULL,
    reserved_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (table_name, first));

-- The mappings that each run appended to a key map, with the numbers of its first and last key if the key is an integer. `login` is the
-- login that the run belongs to.
CREATE TABLE delta.segment (
    table_name text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL, rows bigint NOT NULL, first_key bigint, last_key bigint,
    login name NOT NULL DEFAULT session_user, PRIMARY KEY (table_name, run));

-- The loads that appended mappings to a key map, whether or not they committed. Mappings of a run without a segment do not count, and the
-- next load deletes them.
CREATE TABLE delta.appended (
    table_name text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL, PRIMARY KEY (table_name, run));

-- The ids of this database, by which a key-map store recognizes it.
CREATE TABLE delta.target (id text PRIMARY KEY, since timestamptz NOT NULL DEFAULT now());
INSERT INTO delta.target (id) VALUES (pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', ''));

-- The periods of conversion mode. The last one counts, until it ends or its time is up by this server's clock.
CREATE TABLE delta.mode (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    since timestamptz NOT NULL, until timestamptz NOT NULL, switched_by text NOT NULL, reason text NOT NULL, keep boolean NOT NULL,
    ended_at timestamptz, ended_by text, ended_run text, ended_reason text);

-- What this target requires of every run. The last row counts. A pipeline file can only add to it.
CREATE TABLE delta.policy (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, conversion_mode boolean NOT NULL, approvals integer NOT NULL CHECK (approvals >= 0),
    max_key_block bigint NOT NULL CHECK (max_key_block > 0), opening_window text,
    set_at timestamptz NOT NULL DEFAULT now(), set_by text NOT NULL DEFAULT session_user);
