-- The control objects of `pipeline`: what it remembers, and what the loading role may do beyond SELECT and INSERT.
-- Running it again changes nothing that is right already.

-- Two of these at once wait for each other.
SELECT pg_catalog.pg_advisory_xact_lock(7305516411);

DO $setup$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'delta')
        AND pg_catalog.to_regclass('delta.version') IS NULL THEN
        RAISE EXCEPTION 'the schema "delta" belongs to something else'
            USING ERRCODE = 'DP002', HINT = 'rename that schema, or load into another database';
    END IF;
    -- Roles belong to all databases of the server: another one's setup may be making them now.
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'delta_loader') THEN
            CREATE ROLE delta_loader NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'delta_rollback') THEN
            CREATE ROLE delta_rollback NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
END
$setup$;

CREATE SCHEMA IF NOT EXISTS delta;
COMMENT ON SCHEMA delta IS 'what the delta pipeline remembers';

CREATE TABLE IF NOT EXISTS delta.version (version integer PRIMARY KEY, since timestamptz NOT NULL DEFAULT now());
DO $setup$
BEGIN
    IF EXISTS (SELECT FROM delta.version WHERE version > {version}) THEN
        RAISE EXCEPTION 'the control schema was made by a newer version of this program'
            USING ERRCODE = 'DP002', HINT = 'use that version, or a newer one';
    END IF;
END
$setup$;
INSERT INTO delta.version (version) VALUES ({version}) ON CONFLICT DO NOTHING;

-- The runs, the files that they loaded, and the keys that they were given.
CREATE TABLE IF NOT EXISTS delta.run (
    id text COLLATE "C" PRIMARY KEY, pipeline text NOT NULL, started_at text NOT NULL, report text NOT NULL);
CREATE TABLE IF NOT EXISTS delta.file (
    hash text COLLATE "C" NOT NULL, table_name text NOT NULL, name text NOT NULL,
    run text NOT NULL REFERENCES delta.run (id), PRIMARY KEY (hash, table_name, run));
CREATE TABLE IF NOT EXISTS delta.block (
    table_name text NOT NULL, first bigint NOT NULL, last bigint NOT NULL, run text NOT NULL,
    reserved_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (table_name, first));

-- The journals of the runs. An entry is written before, or together with, what it says.
CREATE TABLE IF NOT EXISTS delta.event (
    run text COLLATE "C" NOT NULL, number integer NOT NULL, kind text NOT NULL, entry text NOT NULL, chain text NOT NULL,
    PRIMARY KEY (run, number));
-- Since version 2 the same file may be loaded by several runs: after a rollback, or where that was asked for.
DO $setup$
BEGIN
    IF (SELECT cardinality(conkey) FROM pg_catalog.pg_constraint
        WHERE conrelid = 'delta.file'::pg_catalog.regclass AND contype = 'p') = 2 THEN
        ALTER TABLE delta.file DROP CONSTRAINT file_pkey, ADD PRIMARY KEY (hash, table_name, run);
    END IF;
END
$setup$;

-- What each run appended to the key map of a table, so that nobody has to count; and by what this database is told from others
-- where its key map is backed up.
CREATE TABLE IF NOT EXISTS delta.segment (
    table_name text NOT NULL, run text COLLATE "C" NOT NULL, rows bigint NOT NULL, PRIMARY KEY (table_name, run));
CREATE TABLE IF NOT EXISTS delta.target (id text PRIMARY KEY, since timestamptz NOT NULL DEFAULT now());
INSERT INTO delta.target (id)
    SELECT pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', '') WHERE NOT EXISTS (SELECT FROM delta.target);

-- The tables that are loaded. The functions below act on these and on no other.
CREATE TABLE IF NOT EXISTS delta.loaded_table (
    table_name text PRIMARY KEY, schema_name text NOT NULL, staging_schema text NOT NULL, staging_table text NOT NULL,
    key_column text, sequence_schema text, sequence_name text);

-- The times that conversion mode was switched on; the last one counts, until it is ended or its time is up by this server's clock.
CREATE TABLE IF NOT EXISTS delta.mode (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    since timestamptz NOT NULL, until timestamptz NOT NULL, switched_by text NOT NULL, reason text NOT NULL, keep boolean NOT NULL,
    ended_at timestamptz, ended_by text, ended_run text, ended_reason text);

-- Switches conversion mode on for a time, or off where that is NULL; tells who, whatever role he took. Not for who loads.
CREATE OR REPLACE FUNCTION delta.switch_mode(seconds double precision, why text, keep_it boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    moment timestamptz;
BEGIN
    -- Those who switch take turns. No lock of the table: a run that has its row will write to it, and does not wait for us.
    PERFORM pg_advisory_xact_lock(7305516412);
    moment := clock_timestamp();
    UPDATE delta.mode SET ended_at = moment, ended_by = session_user,
            ended_reason = CASE WHEN seconds IS NULL THEN why ELSE 'it was switched on anew' END
        WHERE ended_at IS NULL AND until > moment;
    IF seconds IS NOT NULL THEN
        IF NOT seconds > 0 OR coalesce(why, '') = '' THEN
            RAISE EXCEPTION 'conversion mode needs a time and a reason' USING ERRCODE = 'DP001';
        END IF;
        INSERT INTO delta.mode (since, until, switched_by, reason, keep)
            VALUES (moment, moment + make_interval(secs => seconds), session_user, why, keep_it);
    END IF;
END
$function$;

-- The last time of conversion mode, kept as it is until the caller's transaction ends.
CREATE OR REPLACE FUNCTION delta.hold_mode() RETURNS SETOF delta.mode
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT * FROM delta.mode ORDER BY number DESC LIMIT 1 FOR SHARE
$function$;

-- Ends conversion mode with a run, unless it is to be kept.
CREATE OR REPLACE FUNCTION delta.end_mode(of_run text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    UPDATE delta.mode SET ended_at = clock_timestamp(), ended_by = session_user, ended_run = of_run
    WHERE ended_at IS NULL AND until > clock_timestamp() AND NOT keep
$function$;

-- The staging table of a loaded table, kept as it is until the caller's transaction ends. A plain one without policies, with
-- types of the server's or of the live table's columns: whatever else the loading role could make there (a view, a policy, a type
-- with a cast) would run its code as the owner of these functions.
CREATE OR REPLACE FUNCTION delta.staged(of_table text) RETURNS regclass
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    staged regclass;
BEGIN
    -- An older snapshot would show the table as it was.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'staging is read in READ COMMITTED alone';
    END IF;
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    EXECUTE format('LOCK TABLE %I.%I IN ACCESS SHARE MODE', known.staging_schema, known.staging_table);
    SELECT c.oid INTO staged FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = known.staging_schema AND c.relname = known.staging_table
            AND c.relkind = 'r' AND NOT c.relrowsecurity AND NOT c.relhassubclass
            AND NOT EXISTS (
                SELECT FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND t.typnamespace <> 'pg_catalog'::regnamespace
                    AND NOT EXISTS (
                        SELECT FROM pg_attribute AS live
                        WHERE live.attrelid = format('%I.%I', known.schema_name, known.table_name)::regclass
                            AND live.attname = a.attname AND live.atttypid = a.atttypid));
    IF staged IS NULL THEN
        RAISE EXCEPTION '"%"."%" is no staging table as a load makes it', known.staging_schema, known.staging_table;
    END IF;
    RETURN staged;
END
$function$;

-- A block of keys from a table's own sequence: no other session gets a number while it is taken.
CREATE OR REPLACE FUNCTION delta.reserve(run text, of_table text, start bigint, count bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    sequence regclass;
    rules pg_catalog.pg_sequence;
    free bigint;
    first_key bigint;
    highest bigint;
BEGIN
    IF count IS NULL OR count < 1 THEN
        RAISE EXCEPTION 'a block of % keys', count;
    END IF;
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    sequence := format('%I.%I', known.sequence_schema, known.sequence_name)::regclass;
    SELECT * INTO STRICT rules FROM pg_sequence WHERE seqrelid = sequence;
    EXECUTE format('ALTER SEQUENCE %s CACHE %s', sequence, rules.seqcache);
    EXECUTE format('SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END FROM %s', sequence) INTO free;
    first_key := coalesce(start, free);
    IF rules.seqincrement <> 1 OR rules.seqcycle THEN
        RAISE EXCEPTION 'the sequence % counts by % or begins again at its end', sequence, rules.seqincrement
            USING ERRCODE = 'DP001', HINT = 'keys are dense: give the table `start_row_number` with a number that its sequence never reaches';
    END IF;
    EXECUTE format('SELECT max(%I) FROM %I.%I', known.key_column, known.schema_name, known.table_name) INTO highest;
    SELECT greatest(highest, max(block.last)) INTO highest FROM delta.block WHERE block.table_name = of_table;
    IF start IS NULL AND highest >= free THEN
        RAISE EXCEPTION 'the sequence % would give % next, and key % is taken', sequence, free, highest
            USING ERRCODE = 'DP001', HINT = format('set it behind the last key: SELECT setval(%L, %s)', sequence, highest);
    END IF;
    IF first_key < free AND first_key + count > free THEN
        RAISE EXCEPTION 'the keys % to % reach over %, which the sequence % gives next', first_key, first_key + count - 1, free, sequence
            USING ERRCODE = 'DP001', HINT = 'set `start_row_number: auto`';
    END IF;
    IF first_key >= free THEN
        IF first_key + count - 1 > rules.seqmax THEN
            RAISE EXCEPTION 'the sequence % ends at %, and % keys from % on are needed', sequence, rules.seqmax, count, first_key
                USING ERRCODE = 'DP001', HINT = 'give the sequence a larger MAXVALUE';
        END IF;
        PERFORM setval(sequence, first_key + count - 1);
    END IF;
    INSERT INTO delta.block (table_name, first, last, run) VALUES (of_table, first_key, first_key + count - 1, reserve.run);
    RETURN first_key;
END
$function$;

-- Keeps other writers out of a table whose keys come from no sequence, until the caller's transaction ends.
CREATE OR REPLACE FUNCTION delta.hold_table(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    EXECUTE format('LOCK TABLE %I.%I IN SHARE ROW EXCLUSIVE MODE', known.schema_name, known.table_name);
END
$function$;

-- Keeps the rows that staged rows refer to where they are, until the caller's transaction ends, and gives the staged rows that
-- refer to none of them, nor to a row that is staged in the tables of the same load.
CREATE OR REPLACE FUNCTION delta.hold_references(of_table text, of_load text[])
RETURNS TABLE (reference text, referenced text, staged_row integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $function$
DECLARE
    known delta.loaded_table;
    staged regclass;
    parent regclass;
    foreign_key record;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    staged := delta.staged(of_table);
    FOR foreign_key IN
        SELECT f.conname::text AS name, f.confrelid, max(r.relname) AS parent,
            string_agg('%1$s.' || replace(format('%I = k.c%s', there.attname, pair.place), '%', '%%'), ' AND ' ORDER BY pair.place) AS same,
            string_agg(format('h.c%1$s = k.c%1$s', pair.place), ' AND ') AS held,
            string_agg(format('s.%I IS NOT NULL', here.attname), ' AND ') AS filled,
            string_agg(format('s.%I::%s AS c%s', here.attname, format_type(here.atttypid, -1), pair.place), ', ' ORDER BY pair.place) AS keys,
            string_agg(format('p.%I AS c%s', there.attname, pair.place), ', ') AS held_keys,
            string_agg(format('s.%I::%s = k.c%s', here.attname, format_type(here.atttypid, -1), pair.place), ' AND ') AS back
        FROM pg_constraint AS f
        CROSS JOIN LATERAL unnest(f.conkey, f.confkey) WITH ORDINALITY AS pair (here, there, place)
        JOIN pg_class AS r ON r.oid = f.confrelid
        JOIN pg_attribute AS here ON here.attrelid = f.conrelid AND here.attnum = pair.here
        JOIN pg_attribute AS there ON there.attrelid = f.confrelid AND there.attnum = pair.there
        LEFT JOIN pg_attribute AS there_too ON there_too.attrelid = staged AND there_too.attname = here.attname
        WHERE f.contype = 'f' AND f.conparentid = 0
            AND f.conrelid = format('%I.%I', known.schema_name, known.table_name)::regclass
        GROUP BY f.oid, f.conname, f.confrelid HAVING bool_and(there_too.attname IS NOT NULL)
    LOOP
        SELECT delta.staged(loaded.table_name) INTO parent FROM delta.loaded_table AS loaded
            WHERE loaded.table_name = ANY (of_load)
                AND format('%I.%I', loaded.schema_name, loaded.table_name)::regclass = foreign_key.confrelid;
        -- One statement, so that what is found is what is held; counting has it all held. The keys are few where the rows are many, and
        -- each is looked up by the index that a referenced key has.
        RETURN QUERY EXECUTE format(
            'WITH k AS MATERIALIZED (SELECT * FROM (SELECT DISTINCT %1$s FROM %2$s AS s WHERE %3$s) AS k%8$s),
                 h AS MATERIALIZED (
                     SELECT p.* FROM k CROSS JOIN LATERAL (SELECT %4$s FROM %5$s AS p WHERE %6$s FOR KEY SHARE OF p) AS p),
                 lost AS MATERIALIZED (
                     SELECT * FROM k WHERE (SELECT count(*) FROM h) >= 0 AND NOT EXISTS (SELECT FROM h WHERE %7$s))
             SELECT %9$L::text, %10$L::text, s._row FROM %2$s AS s JOIN lost AS k ON %11$s ORDER BY 3 LIMIT 1000',
            foreign_key.keys, staged, foreign_key.filled, foreign_key.held_keys, foreign_key.confrelid::regclass,
            format(foreign_key.same, 'p'), foreign_key.held,
            CASE WHEN parent IS NULL THEN ''
                 ELSE format(' WHERE NOT EXISTS (SELECT FROM %s AS r WHERE %s)', parent, format(foreign_key.same, 'r')) END,
            foreign_key.name, foreign_key.parent, foreign_key.back);
    END LOOP;
END
$function$;

-- Statistics of a table that has grown.
CREATE OR REPLACE FUNCTION delta.analyze(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    EXECUTE format('ANALYZE %I.%I', known.schema_name, known.table_name);
END
$function$;

REVOKE ALL ON FUNCTION delta.switch_mode, delta.hold_mode, delta.end_mode FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delta.switch_mode, delta.hold_mode TO delta_rollback;
GRANT EXECUTE ON FUNCTION delta.hold_mode, delta.end_mode TO delta_loader;
REVOKE ALL ON FUNCTION delta.staged, delta.reserve, delta.hold_table, delta.hold_references, delta.analyze FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delta.reserve, delta.hold_table, delta.hold_references, delta.analyze TO delta_loader;
GRANT USAGE ON SCHEMA delta TO delta_loader, delta_rollback;
GRANT SELECT ON ALL TABLES IN SCHEMA delta TO delta_loader, delta_rollback;
GRANT INSERT ON delta.run, delta.event, delta.file, delta.block, delta.segment, delta.target TO delta_loader;

-- Histories that version 1 made, of whatever pipeline.
DO $setup$
DECLARE
    known text;
    history text;
BEGIN
    FOR known IN SELECT table_name FROM delta.loaded_table LOOP
        history := format('delta.%I', 'key_map_' || known);
        CONTINUE WHEN octet_length('key_map_' || known) > 63 OR to_regclass(history) IS NULL;
        EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %s {by_run}', 'segment_' || known, history);
        EXECUTE format('INSERT INTO delta.segment SELECT %L, run, count(*) FROM %s
            WHERE NOT EXISTS (SELECT FROM delta.segment WHERE table_name = %1$L) GROUP BY run', known, history);
    END LOOP;
END
$setup$;

-- Where rows are proven before they go live.
CREATE SCHEMA IF NOT EXISTS {staging};
GRANT USAGE, CREATE ON SCHEMA {staging} TO delta_loader;

-- The live tables: SELECT and INSERT, and nothing else.
GRANT USAGE ON SCHEMA {production} TO delta_loader;
GRANT SELECT ON ALL TABLES IN SCHEMA {production} TO delta_loader;
