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

-- Since version 2 a run's own row says which transaction wrote it and all its rows: what was not written by that one is not the run's.
ALTER TABLE delta.run ADD COLUMN IF NOT EXISTS transaction text;

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
-- Since version 4: the numbers of its first and its last key, where they are known, so that nobody has to look for the largest key.
ALTER TABLE delta.segment ADD COLUMN IF NOT EXISTS first_key bigint, ADD COLUMN IF NOT EXISTS last_key bigint;
CREATE TABLE IF NOT EXISTS delta.target (id text PRIMARY KEY, since timestamptz NOT NULL DEFAULT now());
INSERT INTO delta.target (id)
    SELECT pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', '') WHERE NOT EXISTS (SELECT FROM delta.target);

-- The tables that are loaded. The functions below act on these and on no other.
CREATE TABLE IF NOT EXISTS delta.loaded_table (
    table_name text PRIMARY KEY, schema_name text NOT NULL, staging_schema text NOT NULL, staging_table text NOT NULL,
    key_column text, sequence_schema text, sequence_name text);
-- Since version 2: where its key map is, and which columns identify a row. Since version 3: where its mappings are kept.
ALTER TABLE delta.loaded_table ADD COLUMN IF NOT EXISTS history name, ADD COLUMN IF NOT EXISTS key_columns text[],
    ADD COLUMN IF NOT EXISTS mappings name;

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
    is_small boolean;
    keys text;
    held bigint;
    asked bigint;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    staged := delta.staged(of_table);
    FOR foreign_key IN
        SELECT f.conname::text AS name, f.confrelid, max(r.relname) AS parent,
            -- As the server's own check: what inherits from a table is not looked in.
            CASE WHEN max(r.relkind::text) = 'r' THEN 'ONLY ' ELSE '' END || f.confrelid::regclass AS looked_in,
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
        keys := format(
            'SELECT * FROM (SELECT %1$s FROM %2$s AS s WHERE %3$s) AS k%4$s', foreign_key.keys, staged, foreign_key.filled,
            CASE WHEN parent IS NULL THEN ''
                 ELSE format(' WHERE NOT EXISTS (SELECT FROM %s AS r WHERE %s)', parent, format(foreign_key.same, 'r')) END);
        PERFORM set_config('enable_seqscan', 'on', true);
        EXECUTE format('SELECT count(*) FROM (%s) AS k', keys) INTO asked;
        CONTINUE WHEN asked = 0;
        -- A table that has no more than 512 bytes for each key may be read whole (lookup.rs says why so many). In any other each key is
        -- looked up by the index that a referenced key has, by LATERAL, which is never planned as anything else.
        SELECT c.relkind = 'r' AND pg_relation_size(c.oid) <= 512 * asked INTO is_small FROM pg_class AS c WHERE c.oid = foreign_key.confrelid;
        PERFORM set_config('enable_seqscan', CASE WHEN is_small THEN 'on' ELSE 'off' END, true);
        -- Counting has all of it held.
        EXECUTE format(
            CASE WHEN is_small
                THEN 'SELECT count(*) FROM (SELECT FROM %2$s AS p WHERE EXISTS (SELECT FROM (%1$s) AS k WHERE %3$s) FOR KEY SHARE OF p) AS h'
                ELSE 'SELECT count(*) FROM (SELECT DISTINCT * FROM (%1$s) AS k) AS k
                      CROSS JOIN LATERAL (SELECT FROM %2$s AS p WHERE %3$s FOR KEY SHARE OF p) AS h' END,
            keys, foreign_key.looked_in, format(foreign_key.same, 'p')) INTO held;
        -- No key leads to two rows: where as many are held as were asked for, none is lost. Most keys are there once.
        IF held <> asked THEN
            EXECUTE format('SELECT count(*) FROM (SELECT DISTINCT * FROM (%s) AS k) AS k', keys) INTO asked;
        END IF;
        CONTINUE WHEN held = asked;
        -- One statement again, so that what is told as lost is not held.
        RETURN QUERY EXECUTE format(
            'WITH k AS MATERIALIZED (SELECT DISTINCT * FROM (%1$s) AS k),
                 h AS MATERIALIZED (SELECT p.* FROM k CROSS JOIN LATERAL (SELECT %2$s FROM %3$s AS p WHERE %4$s FOR KEY SHARE OF p) AS p),
                 lost AS MATERIALIZED (SELECT * FROM k WHERE (SELECT count(*) FROM h) >= 0 AND NOT EXISTS (SELECT FROM h WHERE %5$s))
             SELECT %6$L::text, %7$L::text, s._row FROM %8$s AS s JOIN lost AS k ON %9$s ORDER BY 3 LIMIT 1000',
            keys, foreign_key.held_keys, foreign_key.looked_in, format(foreign_key.same, 'p'), foreign_key.held, foreign_key.name,
            foreign_key.parent, staged, foreign_key.back);
    END LOOP;
END
$function$;

-- Statistics of a table.
DROP FUNCTION IF EXISTS delta.analyze(text, bigint);
CREATE OR REPLACE FUNCTION delta.analyze(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    EXECUTE format('ANALYZE %I.%I', known.schema_name, known.table_name);
END
$function$;

-- Since version 5: tells the index of the runs where those mappings are that the caller's transaction brought.
CREATE OR REPLACE FUNCTION delta.summarize(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    PERFORM brin_summarize_new_values(c.oid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
        WHERE i.indrelid = to_regclass(format('delta.%I', known.mappings)) AND m.amname = 'brin';
EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
    -- The index finds them without that, only later: no reason to give a load up.
    NULL;
END
$function$;

-- Mappings that a run brought and that never became part of the key map, since the run did not commit, make room. Of a run whose journal
-- says otherwise nothing is taken away, whatever became of the ledger.
CREATE OR REPLACE FUNCTION delta.forget(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    cut_off text;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    FOR cut_off IN
        SELECT e.run FROM delta.event AS e WHERE NOT EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = of_table AND s.run = e.run)
        GROUP BY e.run HAVING NOT bool_or(e.kind = 'committed')
    LOOP
        EXECUTE format('DELETE FROM delta.%I WHERE run = $1', known.mappings) USING cut_off;
    END LOOP;
END
$function$;

-- The loaded tables that a run has mappings of; `same` holds a row `p` of the table against a mapping `h`, `key` and `place` are of `h`.
CREATE OR REPLACE FUNCTION delta.tables_of(of_run text)
RETURNS TABLE (name text, live regclass, history regclass, same text, key text, place text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    is_there boolean;
BEGIN
    FOR known IN SELECT * FROM delta.loaded_table AS loaded ORDER BY loaded.table_name LOOP
        IF known.history IS NULL THEN
            RAISE EXCEPTION '"%" was set up by an older version, and where its key map is was not noted', known.table_name
                USING ERRCODE = 'DP003', HINT = 'run `pipeline setup` once more, with each pipeline file of this database';
        END IF;
        name := known.table_name;
        live := format('%I.%I', known.schema_name, known.table_name)::regclass;
        history := format('delta.%I', known.history)::regclass;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s AS h WHERE h.run = $1)', history) INTO is_there USING of_run;
        CONTINUE WHEN NOT is_there;
        SELECT string_agg(format('p.%1$I = h.%1$I::%2$s', a.attname, format_type(a.atttypid, -1)), ' AND '),
            format('concat_ws(''|'', %s)', string_agg(format('h.%I', a.attname), ', ' ORDER BY k.place)),
            string_agg(format('h.%I', a.attname), ', ' ORDER BY k.place)
            INTO STRICT same, key, place
            FROM unnest(known.key_columns) WITH ORDINALITY AS k (name, place)
            JOIN pg_attribute AS a ON a.attrelid = tables_of.live AND a.attname = k.name AND NOT a.attisdropped;
        RETURN NEXT;
    END LOOP;
END
$function$;

-- A table, its partitions, and the tables that it is a partition of: a foreign key may name any of them.
CREATE OR REPLACE FUNCTION delta.tree(of_table regclass) RETURNS SETOF regclass
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $function$
    SELECT of_table UNION SELECT relid FROM pg_partition_tree(of_table) UNION SELECT relid FROM pg_partition_ancestors(of_table)
$function$;

-- How many rows of a table the session has inserted or updated, and deleted, that the server's statistics were not told yet.
CREATE OR REPLACE FUNCTION delta.touched(of_table regclass, OUT written bigint, OUT deleted bigint)
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $function$
    SELECT sum(pg_stat_get_xact_tuples_inserted(t.oid) + pg_stat_get_xact_tuples_updated(t.oid)), sum(pg_stat_get_xact_tuples_deleted(t.oid))
    FROM (SELECT of_table::oid AS oid UNION SELECT relid FROM pg_partition_tree(of_table)) AS t
$function$;

-- What a run has: for each table its mappings, the first and the last key, the rows of production, and the triggers that a deletion fires.
CREATE OR REPLACE FUNCTION delta.holdings(of_run text)
RETURNS TABLE (table_name text, mappings bigint, first_key text, last_key text, production bigint, triggers text[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $function$
DECLARE
    of_table record;
BEGIN
    FOR of_table IN SELECT * FROM delta.tables_of(of_run) LOOP
        table_name := of_table.name;
        EXECUTE format(
            'SELECT (SELECT count(*) FROM %1$s AS h WHERE h.run = $1),
                    (SELECT %2$s FROM %1$s AS h WHERE h.run = $1 ORDER BY ROW(%3$s) LIMIT 1),
                    (SELECT %2$s FROM %1$s AS h WHERE h.run = $1 ORDER BY ROW(%3$s) DESC LIMIT 1),
                    (SELECT count(*) FROM %4$s)',
            of_table.history, of_table.key, of_table.place, of_table.live)
            INTO mappings, first_key, last_key, production USING of_run;
        triggers := ARRAY(
            SELECT DISTINCT t.tgname::text FROM pg_trigger AS t WHERE t.tgrelid IN (SELECT delta.tree(of_table.live))
                AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 8 = 8 ORDER BY 1);
        RETURN NEXT;
    END LOOP;
END
$function$;

-- What is in the way of taking a run back, the first ten of each kind and how many there are: rows that are gone or were written by
-- another transaction since, and rows that refer to the run's rows and are not its own, whatever a foreign key would do about them.
CREATE OR REPLACE FUNCTION delta.obstacles(of_run text)
RETURNS TABLE (table_name text, what text, told text, total bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $function$
DECLARE
    of_table record;
    reference record;
    own text;
    named text;
    written xid;
    noted text;
BEGIN
    SELECT r.xmin, r.transaction INTO written, noted FROM delta.run AS r WHERE r.id = of_run;
    IF written IS NULL THEN
        RAISE EXCEPTION 'run % is not in production', of_run USING ERRCODE = 'DP003';
    END IF;
    IF noted IS NULL OR noted::xid8::xid <> written THEN
        RETURN QUERY SELECT 'delta.run', CASE WHEN noted IS NULL
            THEN 'run without its transaction, since an older version loaded it: nobody can tell what was changed since'
            ELSE 'run from a dump that was restored here: nobody can tell what was changed since' END, of_run, 1::bigint;
        RETURN;
    END IF;
    FOR of_table IN SELECT * FROM delta.tables_of(of_run) LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %1$L::text, f.what, f.key, f.total FROM (
                 SELECT w.what, w.key, count(*) OVER (PARTITION BY w.what) AS total, row_number() OVER (PARTITION BY w.what ORDER BY w.place) AS n
                 FROM (SELECT CASE WHEN p.xmin IS NULL THEN ''gone from production'' ELSE ''changed since'' END AS what, %2$s AS key, ROW(%3$s) AS place
                       FROM %4$s AS h LEFT JOIN %5$s AS p ON %6$s WHERE h.run = $1 AND p.xmin IS DISTINCT FROM $2) AS w) AS f
             WHERE f.n <= 10 ORDER BY f.what, f.n',
            of_table.name, of_table.key, of_table.place, of_table.history, of_table.live, of_table.same) USING of_run, written;
        FOR reference IN
            SELECT f.conrelid::regclass AS child, max(r.relname) AS name,
                string_agg(format('p.%I OPERATOR(%I.%s) c.%I', there.attname, n.nspname, o.oprname, here.attname), ' AND ') AS same,
                string_agg(here.attname, ', ' ORDER BY pair.place) AS columns
            FROM pg_constraint AS f
            CROSS JOIN LATERAL unnest(f.conkey, f.confkey, f.conpfeqop) WITH ORDINALITY AS pair (here, there, equal, place)
            JOIN pg_class AS r ON r.oid = f.conrelid
            JOIN pg_attribute AS here ON here.attrelid = f.conrelid AND here.attnum = pair.here
            JOIN pg_attribute AS there ON there.attrelid = f.confrelid AND there.attnum = pair.there
            JOIN pg_operator AS o ON o.oid = pair.equal
            JOIN pg_namespace AS n ON n.oid = o.oprnamespace
            WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid IN (SELECT delta.tree(of_table.live))
            GROUP BY f.oid, f.conrelid ORDER BY f.oid
        LOOP
            SELECT format('AND NOT EXISTS (SELECT FROM %s AS h CROSS JOIN LATERAL (SELECT c.*) AS p WHERE h.run = $1 AND %s)', t.history, t.same)
                INTO own FROM delta.tables_of(of_run) AS t WHERE reference.child IN (SELECT delta.tree(t.live)) LIMIT 1;
            SELECT string_agg(format('c.%I', a.attname), ', ' ORDER BY k.place) INTO named
                FROM pg_index AS i CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
                JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number
                WHERE i.indrelid = reference.child AND i.indisprimary;
            RETURN QUERY EXECUTE format(
                'SELECT %1$L::text, %2$L::text, f.told, f.total FROM (
                     SELECT %3$s || '' by '' || concat_ws(''|'', %4$s) AS told, count(*) OVER () AS total, ROW(%5$s) AS place
                     FROM %6$s AS h JOIN %7$s AS p ON %8$s JOIN %9$s AS c ON %10$s WHERE h.run = $1 %11$s) AS f
                 ORDER BY f.place, f.told LIMIT 10',
                of_table.name, format('referenced by rows of `%s` that are not the run''s (%s)', reference.name, reference.columns),
                of_table.key, coalesce(named, 'c.ctid'), of_table.place, of_table.history, of_table.live, of_table.same,
                reference.child, reference.same, coalesce(own, '')) USING of_run;
        END LOOP;
    END LOOP;
END
$function$;

-- Takes a run back: its rows and its key map go, children first, and its journal says so. Not for who loads. What is the run's is found
-- here and not told by the caller: rows that its key map names, and that its own transaction wrote.
CREATE OR REPLACE FUNCTION delta.roll_back(of_run text, number integer, entry text, chain text)
RETURNS TABLE (table_name text, deleted bigint, mappings bigint, before bigint, after bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $function$
DECLARE
    of_table record;
    obstacle record;
    last_entry record;
    remaining oid[];
    was jsonb := '{}';
    now_at record;
    rest bigint;
    of_run_itself xid;
BEGIN
    -- An older snapshot would show rows and references as they were.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a run is taken back in READ COMMITTED alone';
    END IF;
    IF NOT pg_try_advisory_xact_lock(7305516410) THEN
        RAISE EXCEPTION 'somebody else is loading' USING ERRCODE = 'DP003', HINT = 'try again when that is done';
    END IF;
    SELECT e.kind, e.number INTO last_entry FROM delta.event AS e WHERE e.run = of_run ORDER BY e.number DESC LIMIT 1;
    IF last_entry.kind IS NULL OR last_entry.kind NOT IN ('committed', 'verified') OR last_entry.number <> roll_back.number - 1 THEN
        RAISE EXCEPTION 'run % is not in production, or its journal has gone on', of_run USING ERRCODE = 'DP003';
    END IF;
    -- Nobody changes the run's rows from here on, nor refers to them: who did so and has not committed is waited for.
    FOR of_table IN SELECT * FROM delta.tables_of(of_run) LOOP
        EXECUTE format('SELECT count(*) FROM %s', of_table.live) INTO before;
        SELECT * INTO now_at FROM delta.touched(of_table.live);
        was := was || jsonb_build_object(of_table.name, jsonb_build_array(before, now_at.written, now_at.deleted));
        EXECUTE format('SELECT FROM %s AS h JOIN %s AS p ON %s WHERE h.run = $1 ORDER BY %s FOR UPDATE OF p',
            of_table.history, of_table.live, of_table.same, of_table.place) USING of_run;
    END LOOP;
    SELECT * INTO obstacle FROM delta.obstacles(of_run) LIMIT 1;
    IF obstacle.what IS NOT NULL THEN
        RAISE EXCEPTION 'rows of run % are in other hands: "%": % %: %', of_run, obstacle.table_name, obstacle.total, obstacle.what, obstacle.told
            USING ERRCODE = 'DP003', HINT = '`pipeline rollback FILE RUN --dry-run` names them all';
    END IF;
    SELECT r.xmin INTO STRICT of_run_itself FROM delta.run AS r WHERE r.id = of_run;
    SET CONSTRAINTS ALL DEFERRED;
    remaining := ARRAY(SELECT t.live::oid FROM delta.tables_of(of_run) AS t);
    WHILE cardinality(remaining) > 0 LOOP
        -- One that no other of them refers to; any where they refer to each other in a circle, which is deferred then.
        SELECT t.* INTO of_table FROM delta.tables_of(of_run) AS t WHERE t.live = ANY (remaining)
            ORDER BY EXISTS (
                SELECT FROM pg_constraint AS f WHERE f.contype = 'f' AND f.confrelid IN (SELECT delta.tree(t.live)) AND f.conrelid <> t.live
                    AND EXISTS (SELECT FROM unnest(remaining) AS r (live) WHERE r.live <> t.live AND f.conrelid IN (SELECT delta.tree(r.live)))),
                t.name LIMIT 1;
        EXECUTE format('DELETE FROM %s AS p USING %s AS h WHERE h.run = $1 AND %s AND p.xmin = $2', of_table.live, of_table.history, of_table.same)
            USING of_run, of_run_itself;
        remaining := array_remove(remaining, of_table.live::oid);
    END LOOP;
    SET CONSTRAINTS ALL IMMEDIATE;
    -- The proof: none of the run's keys is there, and this transaction deleted as many rows and wrote none.
    FOR of_table IN SELECT * FROM delta.tables_of(of_run) LOOP
        EXECUTE format('SELECT count(*) FROM %s AS h JOIN %s AS p ON %s WHERE h.run = $1', of_table.history, of_table.live, of_table.same)
            INTO rest USING of_run;
        EXECUTE format('SELECT count(*) FROM %s', of_table.live) INTO after;
        EXECUTE format('DELETE FROM %s AS h WHERE h.run = $1', of_table.history) USING of_run;
        GET DIAGNOSTICS mappings = ROW_COUNT;
        SELECT * INTO now_at FROM delta.touched(of_table.live);
        table_name := of_table.name;
        before := was -> of_table.name ->> 0;
        deleted := mappings;
        IF rest > 0 OR current_setting('track_counts') = 'on' AND (
            now_at.written <> (was -> of_table.name ->> 1)::bigint OR now_at.deleted - (was -> of_table.name ->> 2)::bigint <> mappings) THEN
            RAISE EXCEPTION 'with the run''s % rows of "%" others would go or change, or some would stay (% of them)', mappings, of_table.name, rest
                USING ERRCODE = 'DP003', HINT = 'a trigger of production does that: nothing was changed';
        END IF;
        RETURN NEXT;
    END LOOP;
    IF to_regclass('delta.segment') IS NOT NULL THEN
        EXECUTE 'DELETE FROM delta.segment AS s WHERE s.run = $1' USING of_run;
    END IF;
    INSERT INTO delta.event (run, number, kind, entry, chain)
        VALUES (of_run, roll_back.number, 'rolled_back', roll_back.entry, roll_back.chain);
END
$function$;

REVOKE ALL ON FUNCTION delta.tables_of, delta.tree, delta.touched, delta.holdings, delta.obstacles, delta.roll_back FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delta.holdings, delta.obstacles, delta.roll_back TO delta_rollback;
REVOKE ALL ON FUNCTION delta.switch_mode, delta.hold_mode, delta.end_mode FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delta.switch_mode, delta.hold_mode TO delta_rollback;
GRANT EXECUTE ON FUNCTION delta.hold_mode, delta.end_mode TO delta_loader;
GRANT EXECUTE ON FUNCTION delta.end_mode TO delta_rollback;
REVOKE ALL ON FUNCTION delta.staged, delta.reserve, delta.hold_table, delta.hold_references, delta.analyze, delta.summarize, delta.forget FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delta.reserve, delta.hold_table, delta.hold_references, delta.analyze, delta.summarize, delta.forget TO delta_loader;
GRANT USAGE ON SCHEMA delta TO delta_loader, delta_rollback;
GRANT SELECT ON ALL TABLES IN SCHEMA delta TO delta_loader, delta_rollback;
GRANT INSERT ON delta.run, delta.event, delta.file, delta.block, delta.segment, delta.target TO delta_loader;
-- To note that a run was given up.
GRANT INSERT ON delta.event TO delta_rollback;

-- Histories that version 1 made, of whatever pipeline.
DO $setup$
DECLARE
    known text;
    history text;
BEGIN
    FOR known IN SELECT table_name FROM delta.loaded_table WHERE mappings IS NULL LOOP
        history := format('delta.%I', 'key_map_' || known);
        CONTINUE WHEN octet_length('key_map_' || known) > 63 OR to_regclass(history) IS NULL;
        EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %s (run)', 'segment_' || known, history);
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
