-- Rollback: the deletion of a run's rows. Statements that fire triggers of production are planned and named as those expect. All others
-- follow the rules of the functions that find the rows.

-- Returns the row locations of a run. If `written` is NULL, any transaction may have written them. `is_locked` locks the rows, and so all
-- that might refer to them, until the transaction ends.
CREATE OR REPLACE FUNCTION delta.places_of(of_run text, rows_of text, mappings regclass, same text, written xid[], is_locked boolean) RETURNS tid[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off SET enable_seqscan = off SET jit = off AS $function$
DECLARE
    places tid[];
BEGIN
    EXECUTE format(
        'SELECT coalesce(array_agg(p.ctid), ''{}'') FROM %s AS h
         CROSS JOIN LATERAL (SELECT p.ctid FROM %s AS p WHERE %s AND ($2 IS NULL OR p.xmin = ANY ($2)) %s) AS p WHERE h.run = $1',
        mappings, rows_of, same, CASE WHEN is_locked THEN 'FOR UPDATE' ELSE 'OFFSET 0' END) INTO places USING of_run, written;
    RETURN places;
END
$function$;

-- Returns the locations of rows that triggers wrote with a run, in a table that refers to one of its tables.
CREATE OR REPLACE FUNCTION delta.places_with(of_run text, rows_of text, mappings regclass, same text, written xid[], keys text, child_rows text, refers text)
RETURNS tid[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off SET enable_nestloop = off SET jit = off AS $function$
DECLARE
    places tid[];
BEGIN
    EXECUTE format(
        'WITH k AS MATERIALIZED (SELECT p.* FROM %s AS h CROSS JOIN LATERAL (SELECT %s FROM %s AS p WHERE %s OFFSET 0) AS p WHERE h.run = $1)
         SELECT coalesce(array_agg(p.ctid), ''{}'') FROM k JOIN %s AS p ON %s WHERE p.xmin = ANY ($2)',
        mappings, keys, rows_of, same, child_rows, refers) INTO places USING of_run, written;
    RETURN places;
END
$function$;

-- Returns the search path that production's own programs have, for code that a deletion fires: that of this owner or of the database, and
-- the schemas of the deleted rows. It is never the session's, which the caller controls. Temporary objects come last.
CREATE OR REPLACE FUNCTION delta.production_path(live regclass[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT concat_ws(', ', coalesce((
            SELECT nullif(btrim(substr(c.setting, length('search_path=') + 1)), '')
            FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
            WHERE c.setting LIKE 'search\_path=%' AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
                AND s.setrole IN (0, (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = current_user))
            ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1), '"$user", public'),
        (SELECT string_agg(DISTINCT format('%I', n.nspname), ', ') FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.oid = ANY (live)), 'pg_temp')
$function$;

-- Deletes the rows of a table at these locations, if these transactions wrote them. Production's triggers run with production's search
-- path, which ends with this function.
CREATE OR REPLACE FUNCTION delta.delete_rows(rows_of text, places tid[], written xid[], path text, is_watched boolean) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on SET enable_seqscan = on AS $function$
DECLARE
    statement text := format('DELETE FROM %s AS p WHERE p.ctid OPERATOR(pg_catalog.=) ANY ($1) AND p.xmin OPERATOR(pg_catalog.=) ANY ($2)', rows_of);
    deleted bigint;
BEGIN
    -- The server's own checks use an index, even without statistics of the rows. Triggers of production are planned as usual.
    PERFORM set_config('enable_seqscan', CASE WHEN is_watched THEN current_setting('enable_seqscan') ELSE 'off' END, true);
    PERFORM set_config('search_path', path, true);
    -- From here on, every name must have a schema.
    EXECUTE statement USING places, written;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$function$;

-- The same for tables that refer to each other by constraints that cannot be deferred: the server checks them at the end of the statement.
-- `places` has an array of locations for each table, as text.
CREATE OR REPLACE FUNCTION delta.delete_together(rows_of text[], places text[], written xid[], path text, is_watched boolean) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on SET enable_seqscan = on AS $function$
DECLARE
    statement text := (
        SELECT format('WITH %s SELECT ARRAY[%s]', string_agg(format(
                'd%s AS (DELETE FROM %s AS p WHERE p.ctid OPERATOR(pg_catalog.=) ANY (($1)[%s]::pg_catalog.tid[]) AND p.xmin OPERATOR(pg_catalog.=) ANY ($2) RETURNING 1)',
                place, name, place), ', ' ORDER BY place),
            string_agg(format('(SELECT pg_catalog.count(*) FROM d%s)', place), ', ' ORDER BY place))
        FROM unnest(rows_of) WITH ORDINALITY AS t (name, place));
    deleted bigint[];
BEGIN
    PERFORM set_config('enable_seqscan', CASE WHEN is_watched THEN current_setting('enable_seqscan') ELSE 'off' END, true);
    PERFORM set_config('search_path', path, true);
    -- From here on, every name must have a schema.
    EXECUTE statement INTO deleted USING places, written;
    RETURN deleted;
END
$function$;

-- Returns which of these tables refer to one of them by constraints that cannot be deferred, directly or through others.
CREATE OR REPLACE FUNCTION delta.children_of(live regclass[]) RETURNS TABLE (parent regclass, children regclass[])
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    WITH RECURSIVE direct (parent, child) AS (
        SELECT p.live, c.live FROM unnest(children_of.live) AS p (live) JOIN unnest(children_of.live) AS c (live) ON c.live <> p.live
        WHERE EXISTS (
            SELECT FROM pg_constraint AS f WHERE f.contype = 'f' AND (NOT f.condeferrable OR f.confdeltype = 'r')
                AND f.confrelid IN (SELECT delta.tree(p.live)) AND f.conrelid IN (SELECT delta.tree(c.live)))),
    every (parent, child) AS (SELECT d.parent, d.child FROM direct AS d UNION SELECT e.parent, d.child FROM every AS e JOIN direct AS d ON d.parent = e.child)
    SELECT l.live, coalesce(array_agg(e.child) FILTER (WHERE e.child IS NOT NULL), '{}')
    FROM unnest(children_of.live) AS l (live) LEFT JOIN every AS e ON e.parent = l.live GROUP BY l.live
$function$;

-- Runs deferred constraints and triggers now, with production's search path.
CREATE OR REPLACE FUNCTION delta.settle(path text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $function$
BEGIN
    PERFORM set_config('search_path', path, true);
    SET CONSTRAINTS ALL IMMEDIATE;
END
$function$;

-- Creates the indexes without which the server would scan a whole table for each deleted row. They are dropped before the transaction ends,
-- so no other session ever sees them. They are created early, because an index that is younger than a row's last in-place change is not
-- used.
CREATE OR REPLACE FUNCTION delta.make_indexes(of_run text) RETURNS regclass[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    needed record;
    made regclass[] := '{}';
    one regclass;
    is_usable boolean;
BEGIN
    FOR needed IN
        SELECT u.child, u.child_name, u.columns, max(u.parent) AS parent, sum(u.pages) AS pages, bool_and(u.may_index) AS may_index
        FROM delta.unindexed(of_run) AS u GROUP BY u.child, u.child_name, u.columns ORDER BY u.child, u.columns
    LOOP
        is_usable := false;
        IF needed.may_index THEN
            EXECUTE format('CREATE INDEX %I ON %s (%s)', format('delta_rollback_%s', pg_current_xact_id()) || '_' || cardinality(made), needed.child, needed.columns);
            SELECT i.indexrelid::regclass, NOT i.indcheckxmin INTO STRICT one, is_usable FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
                WHERE i.indrelid = needed.child AND c.relname = format('delta_rollback_%s', pg_current_xact_id()) || '_' || cardinality(made);
            made := made || one;
        END IF;
        IF NOT is_usable AND needed.pages > 10000000 THEN
            RAISE EXCEPTION 'the server would read "%" once for each row that is deleted from %: (%) has no index', needed.child_name, needed.parent, needed.columns
                USING ERRCODE = 'DP003', HINT = format('CREATE INDEX CONCURRENTLY ON %s (%s), and roll back then; nothing was changed', needed.child, needed.columns);
        END IF;
    END LOOP;
    RETURN made;
END
$function$;

-- Returns how many rows of a table this transaction has inserted and deleted.
CREATE OR REPLACE FUNCTION delta.touched(of_table regclass, OUT inserted bigint, OUT deleted bigint)
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $function$
    SELECT sum(pg_stat_get_xact_tuples_inserted(t.oid)), sum(pg_stat_get_xact_tuples_deleted(t.oid))
    FROM (SELECT of_table::oid AS oid UNION SELECT relid FROM pg_partition_tree(of_table)) AS t
$function$;

-- Deletes a run's rows, children first, and its mappings. Proves for each table that as many rows were deleted as the run has mappings, and
-- no other.
CREATE OR REPLACE FUNCTION delta.delete_run(of_run text, accepted text[], made regclass[])
RETURNS TABLE (table_name text, deleted bigint, mappings bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $function$
DECLARE
    of_table record;
    reference record;
    remaining regclass[];
    sorted regclass[] := '{}';
    circle regclass[] := '{}';
    ends integer[] := '{}';
    circle_rows text[] := '{}';
    circle_places text[] := '{}';
    was_inserted bigint[] := '{}';
    was_deleted bigint[] := '{}';
    gone bigint[] := '{}';
    with_it bigint[] := '{}';
    path text;
    is_watched boolean;
    writes boolean;
    places tid[];
    moved record;
    at integer;
    rest bigint;
    one regclass;
BEGIN
    -- The caller's temporary objects must not shadow names that a trigger of production uses.
    IF EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema()) OR EXISTS (SELECT FROM pg_type WHERE typnamespace = pg_my_temp_schema()) THEN
        RAISE EXCEPTION 'the session has temporary objects' USING ERRCODE = 'DP003', HINT = 'roll back in a separate session; nothing was changed';
    END IF;
    IF current_setting('session_replication_role') <> 'origin' THEN
        RAISE EXCEPTION 'session_replication_role is %: no trigger and no foreign key would act', current_setting('session_replication_role')
            USING ERRCODE = 'DP003', HINT = 'ALTER ROLE … RESET session_replication_role; nothing was changed';
    END IF;
    remaining := ARRAY(SELECT t.live FROM delta.tables_of(of_run, '{}') AS t WHERE t.fault IS NULL ORDER BY t.name);
    is_watched := delta.is_watched(remaining, 8);
    writes := delta.is_watched(remaining, 4);
    path := delta.production_path(remaining);
    WHILE cardinality(remaining) > 0 LOOP
        -- A table that no other one refers to, or the tables of a circle whose constraints cannot be deferred.
        SELECT array_remove(c.children, c.parent) || c.parent INTO circle FROM delta.children_of(remaining) AS c
            ORDER BY cardinality(array_remove(c.children, c.parent)), array_position(remaining, c.parent) LIMIT 1;
        FOREACH one IN ARRAY circle LOOP
            remaining := array_remove(remaining, one);
            SELECT * INTO moved FROM delta.touched(one);
            SELECT sorted || one, was_inserted || moved.inserted, was_deleted || moved.deleted, gone || 0::bigint, with_it || 0::bigint
                INTO sorted, was_inserted, was_deleted, gone, with_it;
        END LOOP;
        ends := ends || cardinality(sorted);
    END LOOP;
    SET CONSTRAINTS ALL DEFERRED;
    FOR of_table IN
        SELECT t.*, array_position(sorted, t.live) AS place_in_order FROM delta.tables_of(of_run, accepted) AS t WHERE t.fault IS NULL ORDER BY place_in_order
    LOOP
        at := of_table.place_in_order;
        -- Rows that triggers wrote with the run and that refer to its rows, in tables that have no more rows of the run.
        FOR reference IN SELECT r.* FROM delta.references_to(of_table.live) AS r
            WHERE writes AND r.is_trusted AND NOT r.is_referenced AND NOT EXISTS (SELECT FROM unnest(sorted[at:]) AS s (live) WHERE r.child IN (SELECT delta.tree(s.live)))
        LOOP
            places := delta.places_with(of_run, of_table.rows_of, of_table.mappings, of_table.same, of_table.written, reference.keys, reference.child_rows, reference.same);
            CONTINUE WHEN cardinality(places) = 0;
            SELECT reference.name, delta.delete_rows(reference.child_rows, places, of_table.written, path, true), 0 INTO table_name, deleted, mappings;
            RETURN NEXT;
            SELECT array_position(sorted, s.live) INTO at FROM unnest(sorted) AS s (live) WHERE reference.child IN (SELECT delta.tree(s.live));
            IF at IS NOT NULL THEN
                with_it[at] := with_it[at] + deleted;
            END IF;
            at := of_table.place_in_order;
        END LOOP;
        -- A row of the run that a trigger of this deletion has updated still belongs to the run.
        of_table.written := of_table.written || pg_current_xact_id()::xid;
        places := delta.places_of(of_run, of_table.rows_of, of_table.mappings, of_table.same, of_table.written, false);
        IF at = ANY (ends) AND circle_rows = '{}' THEN
            gone[at] := delta.delete_rows(of_table.rows_of, places, of_table.written, path, is_watched);
            CONTINUE;
        END IF;
        SELECT circle_rows || of_table.rows_of, circle_places || places::text INTO circle_rows, circle_places;
        IF at = ANY (ends) THEN
            gone := gone[:at - cardinality(circle_rows)] || delta.delete_together(circle_rows, circle_places, of_table.written, path, is_watched) || gone[at + 1:];
            SELECT '{}', '{}' INTO circle_rows, circle_places;
        END IF;
    END LOOP;
    PERFORM delta.settle(path);
    FOREACH one IN ARRAY made LOOP
        EXECUTE format('DROP INDEX %s', one);
    END LOOP;
    FOR of_table IN SELECT t.*, array_position(sorted, t.live) AS place_in_order FROM delta.tables_of(of_run, '{}') AS t LOOP
        SELECT of_table.name, of_table.place_in_order, 0, 0 INTO table_name, at, deleted, rest;
        -- Fewer than the mappings if a foreign key deleted rows in a circle, or if some are left.
        IF gone[at] <> of_table.total THEN
            rest := cardinality(delta.places_of(of_run, of_table.rows_of, of_table.mappings, of_table.same, NULL, false));
        END IF;
        EXECUTE format('DELETE FROM %s AS h WHERE h.run = $1', of_table.mappings) USING of_run;
        GET DIAGNOSTICS mappings = ROW_COUNT;
        IF of_table.fault IS NULL THEN
            deleted := mappings;
            SELECT * INTO moved FROM delta.touched(of_table.live);
            IF rest > 0 OR gone[at] > mappings OR current_setting('track_counts') = 'on' AND (
                moved.inserted <> was_inserted[at] OR moved.deleted - was_deleted[at] <> mappings + with_it[at]) THEN
                RAISE EXCEPTION 'rolling back % rows of "%" would affect other rows, or leave rows behind (%)', mappings, of_table.name, rest
                    USING ERRCODE = 'DP003', HINT = 'nothing was changed; check for a trigger of production, or run again';
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$function$;

-- Rolls a run back: deletes its rows, children first, and its key map, and records that in its journal. Not for the loader.
CREATE OR REPLACE FUNCTION delta.roll_back(of_run text, number integer, entry text, chain text, accepted text[])
RETURNS TABLE (table_name text, deleted bigint, mappings bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $function$
DECLARE
    of_table record;
    conflict record;
    last_entry record;
    made regclass[];
BEGIN
    -- An older snapshot would show outdated rows and references.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a run is rolled back in READ COMMITTED only';
    END IF;
    IF NOT pg_try_advisory_xact_lock(7305516410) THEN
        RAISE EXCEPTION 'another session is loading' USING ERRCODE = 'DP003', HINT = 'roll back when it is done';
    END IF;
    SELECT e.kind, e.number INTO last_entry FROM delta.event AS e WHERE e.run = of_run ORDER BY e.number DESC LIMIT 1;
    IF last_entry.kind IS NULL OR last_entry.kind NOT IN ('committed', 'verified') OR last_entry.number <> roll_back.number - 1 THEN
        RAISE EXCEPTION 'run % is not in production, or its journal has changed', of_run USING ERRCODE = 'DP003';
    END IF;
    made := delta.make_indexes(of_run);
    -- From here on, no other session can refer to the run's rows; uncommitted references are waited for. A table without references needs
    -- no lock before its rows are deleted.
    FOR of_table IN SELECT * FROM delta.tables_of(of_run, '{}') AS t WHERE t.fault IS NULL AND EXISTS (SELECT FROM delta.references_to(t.live)) LOOP
        PERFORM delta.places_of(of_run, of_table.rows_of, of_table.mappings, of_table.same, of_table.written, true);
    END LOOP;
    SELECT * INTO conflict FROM delta.conflicts(of_run, accepted) LIMIT 1;
    IF conflict.what IS NOT NULL THEN
        RAISE EXCEPTION 'run % cannot be rolled back: "%": % %: %', of_run, conflict.table_name, conflict.total, conflict.what, conflict.samples
            USING ERRCODE = 'DP007', HINT = '`pipeline rollback FILE RUN --dry-run` names all conflicts; nothing was changed';
    END IF;
    RETURN QUERY SELECT * FROM delta.delete_run(of_run, accepted, made);
    DELETE FROM delta.segment AS s WHERE s.run = of_run;
    INSERT INTO delta.event (run, number, kind, entry, chain)
        VALUES (of_run, roll_back.number, 'rolled_back', roll_back.entry, roll_back.chain);
END
$function$;

-- Makes sequences return their numbers if the transaction is rolled back, which they otherwise do not. These are the sequences named in
-- functions that a deletion of these rows fires, and those of tables named there. Returns the sequences for which that is not possible. A
-- sequence that another transaction uses is not waited for, but other programs wait for a locked one.
CREATE OR REPLACE FUNCTION delta.keep_sequences(live regclass[]) RETURNS regclass[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $function$
DECLARE
    named record;
    others regclass[] := '{}';
BEGIN
    FOR named IN
        WITH RECURSIVE fired (function) AS (
            SELECT t.tgfoid FROM pg_trigger AS t WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 8 = 8
                AND t.tgrelid IN (SELECT delta.tree(l.t) FROM unnest(live) AS l (t))
            UNION
            SELECT c.function FROM fired AS f JOIN pg_proc AS p ON p.oid = f.function CROSS JOIN LATERAL (
                SELECT t.tgfoid FROM pg_trigger AS t JOIN pg_class AS r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal AND delta.has_word(p.prosrc, r.relname)
                UNION ALL
                SELECT o.oid FROM pg_proc AS o WHERE o.oid >= 16384 AND delta.has_word(p.prosrc, o.proname)) AS c (function))
        SELECT DISTINCT s.seqrelid::regclass AS sequence, s.seqcache AS cache
        FROM pg_sequence AS s JOIN pg_class AS r ON r.oid = s.seqrelid
        LEFT JOIN pg_depend AS d ON d.objid = s.seqrelid AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        LEFT JOIN pg_class AS t ON t.oid = d.refobjid
        WHERE r.relnamespace <> 'delta'::regnamespace AND EXISTS (
            SELECT FROM fired AS f JOIN pg_proc AS p ON p.oid = f.function
            WHERE delta.has_word(p.prosrc, r.relname) OR delta.has_word(p.prosrc, t.relname))
    LOOP
        BEGIN
            EXECUTE format('ALTER SEQUENCE %s CACHE %s', named.sequence, named.cache);
        EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
            others := others || named.sequence;
        END;
    END LOOP;
    RETURN others;
END
$function$;

-- Returns whether a text contains a name as a word.
CREATE OR REPLACE FUNCTION delta.has_word(source text, name text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT lower(source) ~ ('(^|\W)' || regexp_replace(lower(name), '(\W)', '\\\1', 'g') || '(\W|$)')
$function$;

-- Tries a rollback and always fails, so that nothing of it remains: with DP006 if the rollback would succeed, and otherwise with its error.
-- The detail names the sequences that triggers may have used, whose numbers are lost. The trial is skipped if no trigger or rule of
-- production takes part, and all referring tables can be read. The conflicts are then known without it. Not for the loader.
CREATE OR REPLACE FUNCTION delta.try_roll_back(of_run text, accepted text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $function$
DECLARE
    live regclass[] := ARRAY(SELECT t.live FROM delta.tables_of(of_run, '{}') AS t WHERE t.live IS NOT NULL);
    others regclass[] := '{}';
BEGIN
    IF delta.is_watched(live, 8)
        OR EXISTS (SELECT FROM unnest(live) AS l (t) CROSS JOIN LATERAL delta.references_to(l.t) AS r WHERE NOT r.is_trusted) THEN
        others := delta.keep_sequences(live);
        PERFORM delta.delete_run(of_run, accepted, delta.make_indexes(of_run));
    END IF;
    RAISE EXCEPTION 'run % can be rolled back', of_run USING ERRCODE = 'DP006', DETAIL = array_to_string(others, ', ');
END
$function$;
