-- The key maps. A login appends mappings to runs of its own alone: these functions see to that, and the trigger on each table of mappings.
-- The registration of a table is locked while mappings are appended to its key map or deleted from it.

-- Updates the index on runs with the mappings that the caller's transaction appended.
CREATE OR REPLACE FUNCTION delta.summarize(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    PERFORM brin_summarize_new_values(c.oid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
        WHERE i.indrelid = to_regclass(format('delta.%I', known.mappings)) AND m.amname = 'brin';
EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
    -- The index also works without this, only more slowly, so a load need not fail.
    NULL;
END
$function$;

-- Returns the registration of a table, locked until the caller's transaction ends.
CREATE OR REPLACE FUNCTION delta.hold_key_map(of_table text) RETURNS delta.loaded_table
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    -- An older snapshot would show outdated runs.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a key map is changed in READ COMMITTED alone' USING ERRCODE = 'DP005';
    END IF;
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table FOR NO KEY UPDATE;
    RETURN known;
END
$function$;

-- Deletes mappings that never became part of the key map, because their run did not commit. If a run's journal says that it committed, its
-- mappings stay, whatever the state of the ledger.
CREATE OR REPLACE FUNCTION delta.forget(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table := delta.hold_key_map(of_table);
    uncommitted text;
BEGIN
    PERFORM delta.refuse_other_load();
    FOR uncommitted IN
        SELECT a.run FROM delta.appended AS a WHERE a.table_name = of_table
            AND NOT EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = of_table AND s.run = a.run)
            AND NOT EXISTS (SELECT FROM delta.event AS e WHERE e.run = a.run AND e.kind = 'committed')
    LOOP
        EXECUTE format('DELETE FROM delta.%I WHERE run = $1', known.mappings) USING uncommitted;
        DELETE FROM delta.appended AS a WHERE a.table_name = of_table AND a.run = uncommitted;
    END LOOP;
END
$function$;

-- Returns the login that a run belongs to: the one that began its journal, or that appended its mappings. A run that does not exist yet is
-- the caller's. Refuses a run of another login, unless the caller is the operator.
CREATE OR REPLACE FUNCTION delta.login_of(of_run text) RETURNS name
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    owner name := coalesce(
        (SELECT e.login FROM delta.event AS e WHERE e.run = of_run AND e.number = 1),
        (SELECT s.login FROM delta.segment AS s WHERE s.run = of_run ORDER BY s.table_name LIMIT 1));
BEGIN
    IF (owner <> session_user OR owner IS NULL AND EXISTS (SELECT FROM delta.run AS r WHERE r.id = of_run)) AND NOT delta.is_operator() THEN
        RAISE EXCEPTION 'run % belongs to the login "%"', of_run, coalesce(owner, '') USING ERRCODE = 'DP005',
            HINT = 'append its mappings as that login, or as the operator';
    END IF;
    RETURN coalesce(owner, session_user);
END
$function$;

-- Begins to append the mappings of a load, which count once the load records their segment. Returns the registration of their table.
CREATE OR REPLACE FUNCTION delta.begin_mappings(of_run text, of_table text) RETURNS delta.loaded_table
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table := delta.hold_key_map(of_table);
BEGIN
    PERFORM delta.login_of(of_run);
    IF EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = of_table AND s.run = of_run) THEN
        RAISE EXCEPTION 'run % has its mappings of "%" already', of_run, of_table USING ERRCODE = 'DP005';
    END IF;
    INSERT INTO delta.appended (table_name, run) VALUES (of_table, of_run) ON CONFLICT DO NOTHING;
    RETURN known;
END
$function$;

-- Appends staged mappings as those of a run: the rows from `first_row` to before `end_row`, or all. Returns their number.
CREATE OR REPLACE FUNCTION delta.append_from_staging(of_run text, known delta.loaded_table, first_row bigint, end_row bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    staged regclass := delta.staged(known.table_name, known.staging_keys);
    columns text := (SELECT string_agg(format('%I', k.name), ', ' ORDER BY k.place) FROM unnest(known.key_columns) WITH ORDINALITY AS k (name, place));
    rows bigint;
BEGIN
    IF delta.has_numbers(known) THEN
        EXECUTE format('SELECT delta.refuse_far_key($1, max(%I)) FROM %s', known.key_column, staged) USING known;
    END IF;
    EXECUTE format('INSERT INTO delta.%I (legacy_key, %s, run) SELECT legacy_key, %s, $1 FROM %s WHERE $2 IS NULL OR _row >= $2 AND _row < $3',
        known.mappings, columns, columns, staged) USING of_run, first_row, end_row;
    GET DIAGNOSTICS rows = ROW_COUNT;
    RETURN rows;
END
$function$;

-- Appends all staged mappings of a table as those of a load. Returns their number.
CREATE OR REPLACE FUNCTION delta.append_staged(of_run text, of_table text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table := delta.begin_mappings(of_run, of_table);
BEGIN
    RETURN delta.append_from_staging(of_run, known, NULL, NULL);
END
$function$;

-- Checks the mappings that a login appends to a table with one statement. They are those of one load of its own, which has not recorded
-- its segment.
CREATE OR REPLACE FUNCTION delta.check_mappings() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    first_run text;
    last_run text;
    last_key numeric;
BEGIN
    SELECT min(a.run), max(a.run) INTO first_run, last_run FROM appended_mappings AS a;
    IF first_run IS NULL THEN
        RETURN NULL;
    END IF;
    IF first_run <> last_run THEN
        RAISE EXCEPTION 'mappings of the runs % and % are appended at once', first_run, last_run USING ERRCODE = 'DP005';
    END IF;
    known := delta.begin_mappings(first_run, TG_ARGV[0]);
    IF delta.has_numbers(known) THEN
        EXECUTE format('SELECT max(a.%I) FROM appended_mappings AS a', known.key_column) INTO last_key;
        PERFORM delta.refuse_far_key(known, last_key);
    END IF;
    RETURN NULL;
END
$function$;

-- Records the segment of a load: its mappings count from the caller's commit on. Its keys are those that the run has reserved.
CREATE OR REPLACE FUNCTION delta.record_segment(of_run text, of_table text, counted bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    reserved delta.block;
BEGIN
    -- An older snapshot would show outdated runs.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a segment is recorded in READ COMMITTED alone' USING ERRCODE = 'DP005';
    END IF;
    -- This is not locked: the session that appended the mappings has locked it until it commits.
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    SELECT * INTO reserved FROM delta.block AS b WHERE b.table_name = known.relation AND b.run = of_run;
    INSERT INTO delta.segment (table_name, run, rows, first_key, last_key, login)
        VALUES (of_table, of_run, counted, reserved.first, reserved.last, delta.login_of(of_run));
END
$function$;

-- Appends staged mappings to a new run that has no load, or to one that has lost some of its mappings, and records their segment. Returns
-- their number.
CREATE OR REPLACE FUNCTION delta.import_mappings(of_run text, of_table text, first_row bigint, end_row bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table := delta.hold_key_map(of_table);
    owner name := delta.login_of(of_run);
    appended bigint := delta.append_from_staging(of_run, known, first_row, end_row);
    is_integer boolean := cardinality(known.key_columns) = 1 AND EXISTS (
        SELECT FROM pg_attribute AS a WHERE a.attrelid = format('delta.%I', known.mappings)::regclass AND a.attname = known.key_columns[1]
            AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype));
    found record;
BEGIN
    EXECUTE format('SELECT count(*) AS counted, %s FROM delta.%I WHERE run = $1',
            CASE WHEN is_integer THEN format('min(%1$I)::bigint AS first, max(%1$I)::bigint AS last', known.key_columns[1])
                ELSE 'NULL::bigint AS first, NULL::bigint AS last' END, known.mappings)
        INTO found USING of_run;
    INSERT INTO delta.segment (table_name, run, rows, first_key, last_key, login)
        SELECT of_table, of_run, found.counted, found.first, found.last, owner WHERE found.counted > 0
        ON CONFLICT DO NOTHING;
    IF EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = of_table AND s.run = of_run AND s.rows < found.counted) THEN
        RAISE EXCEPTION 'run % has lost fewer mappings of "%" than would be appended', of_run, of_table USING ERRCODE = 'DP005';
    END IF;
    RETURN appended;
END
$function$;
