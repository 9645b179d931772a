-- The loaded tables that a run has mappings of; `same` holds a row `p` of the table against a mapping `h`, `key` and `place` are of `h`.
CREATE OR REPLACE FUNCTION delta.tables_of(of_run text)
RETURNS TABLE (name text, live regclass, history regclass, same text, key text, place text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    FOR known IN
        SELECT loaded.* FROM delta.loaded_table AS loaded JOIN delta.segment AS s ON s.table_name = loaded.table_name AND s.run = of_run
        ORDER BY loaded.table_name
    LOOP
        name := known.table_name;
        live := format('%I.%I', known.schema_name, known.relation_name)::regclass;
        history := format('delta.%I', known.history)::regclass;
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
    IF noted::xid8::xid <> written THEN
        RETURN QUERY SELECT 'delta.run', 'run from a dump that was restored here: what was changed since cannot be known', of_run, 1::bigint;
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
    DELETE FROM delta.segment AS s WHERE s.run = of_run;
    INSERT INTO delta.event (run, number, kind, entry, chain)
        VALUES (of_run, roll_back.number, 'rolled_back', roll_back.entry, roll_back.chain);
END
$function$;
