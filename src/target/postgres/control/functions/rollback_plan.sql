-- Rollback, before anything is deleted: the rows of a run, and the conflicts.
--
-- A row of production belongs to a run if the run's key map names it and the run's own transaction wrote it, as `xmin` shows. All of that
-- is determined here, because the caller names the run alone. A query scans the run's mappings once and continues by production's own
-- indexes, so that its cost follows the run. LATERAL with OFFSET 0 forces that plan, whatever the statistics are.

-- Returns a table, its partitions, and the tables that it is a partition of, because a foreign key may name any of them.
CREATE OR REPLACE FUNCTION delta.tree(of_table regclass) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT of_table UNION SELECT relid FROM pg_partition_tree(of_table) UNION SELECT relid FROM pg_partition_ancestors(of_table)
$function$;

-- Returns a table as queries read it, without inheriting tables.
CREATE OR REPLACE FUNCTION delta.own_rows(of_table regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || format('%I.%I', n.nspname, c.relname)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = of_table
$function$;

-- Returns the equality operator of a table's unique index on a column. Another one of this name might not use the index.
CREATE OR REPLACE FUNCTION delta.equality(of_table regclass, of_column smallint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT coalesce((
        SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
        FROM pg_index AS i CROSS JOIN LATERAL unnest(i.indkey::smallint[], i.indclass::oid[]) AS k (number, class)
        JOIN pg_opclass AS c ON c.oid = k.class JOIN pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree'
        JOIN pg_amop AS a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3 AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
        JOIN pg_operator AS o ON o.oid = a.amopopr JOIN pg_namespace AS n ON n.oid = o.oprnamespace
        WHERE i.indrelid = of_table AND i.indisunique AND i.indisvalid AND k.number = of_column
        ORDER BY i.indisprimary DESC, i.indnkeyatts LIMIT 1), 'OPERATOR(pg_catalog.=)')
$function$;

-- Returns the transaction that wrote all rows of a run, if it is known.
CREATE OR REPLACE FUNCTION delta.writer_of(of_run text, OUT written xid, OUT is_known boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    SELECT r.xmin, r.transaction::xid8::xid = r.xmin INTO written, is_known FROM delta.run AS r WHERE r.id = of_run;
    IF written IS NULL THEN
        RAISE EXCEPTION 'run % is not in production', of_run USING ERRCODE = 'DP003';
    END IF;
END
$function$;

-- Returns whether a transaction altered a table after a run. This distinguishes rewriting the table from updating rows.
CREATE OR REPLACE FUNCTION delta.has_altered(of_table regclass, writer xid, written xid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT age(writer) < age(written) AND (EXISTS (SELECT FROM pg_class AS c WHERE c.oid IN (SELECT delta.tree(of_table)) AND c.xmin = writer)
        OR EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid IN (SELECT delta.tree(of_table)) AND a.xmin = writer))
$function$;

-- Returns the transactions that altered a table and thereby rewrote a run's rows.
CREATE OR REPLACE FUNCTION delta.rewritten_by(of_run text, live regclass, rows_of text, mappings regclass, same text, written xid) RETURNS xid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET row_security = off SET enable_seqscan = off SET jit = off AS $function$
DECLARE
    found xid[];
BEGIN
    EXECUTE format(
        'SELECT array_agg(w.writer) FROM (
             SELECT p.writer FROM %s AS h CROSS JOIN LATERAL (SELECT p.xmin AS writer FROM %s AS p WHERE %s OFFSET 0) AS p
             WHERE h.run = $1 AND p.writer <> $2 GROUP BY p.writer) AS w WHERE delta.has_altered($3, w.writer, $2)',
        mappings, rows_of, same) INTO found USING of_run, written, live;
    RETURN found;
END
$function$;

-- Returns the tables that a run has mappings of, each with its fault if it has one. A segment that another login recorded is not the run's. `same` compares a row `p` of the table with a mapping
-- `h`; `key` and `place` are of `h`. A row belongs to the run if one of `written` wrote it. A transaction that rewrote a table counts if
-- the operator accepts that table.
CREATE OR REPLACE FUNCTION delta.tables_of(of_run text, accepted text[])
RETURNS TABLE (name text, relation text, live regclass, rows_of text, mappings regclass, total bigint, same text, key text, place text,
    written xid[], fault text, is_accepted boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known record;
    writer xid;
BEGIN
    SELECT w.written INTO writer FROM delta.writer_of(of_run) AS w;
    FOR known IN
        SELECT s.table_name, s.rows, loaded.relation, loaded.schema_name, loaded.relation_name, loaded.relation_owner, loaded.key_columns, loaded.mappings
        FROM delta.segment AS s LEFT JOIN delta.loaded_table AS loaded ON loaded.table_name = s.table_name
        WHERE s.run = of_run AND s.login = coalesce((SELECT e.login FROM delta.event AS e WHERE e.run = of_run AND e.number = 1), s.login)
        ORDER BY s.table_name
    LOOP
        IF known.mappings IS NULL OR to_regclass(format('delta.%I', known.mappings)) IS NULL THEN
            RAISE EXCEPTION 'the key map of "%" is missing', known.table_name USING ERRCODE = 'DP003',
                HINT = 'it says which rows are the run''s: restore the schema delta from a backup';
        END IF;
        SELECT known.table_name, known.relation, to_regclass(format('%I.%I', known.schema_name, known.relation_name)),
                format('delta.%I', known.mappings)::regclass, known.rows, known.table_name = ANY (accepted) OR known.relation_name = ANY (accepted)
            INTO name, relation, live, mappings, total, is_accepted;
        SELECT ARRAY[writer], delta.own_rows(live), NULL, NULL, NULL, NULL INTO written, rows_of, same, key, place, fault;
        IF live IS NULL THEN
            fault := 'the table no longer exists: it was dropped or renamed';
        ELSIF known.relation_owner IS DISTINCT FROM (
            SELECT pg_get_userbyid(c.relowner) FROM pg_class AS c WHERE c.oid = tables_of.live AND c.relkind IN ('r', 'p')) THEN
            -- Planning a query over a table that another role put in its place would run that role's code.
            live := NULL;
            fault := format('the table is not the one of "%s" any more: if that is right, run `pipeline setup`', known.relation_owner);
        ELSE
            SELECT string_agg(format('p.%1$I %3$s h.%1$I::%2$s', a.attname, format_type(a.atttypid, -1), delta.equality(live, a.attnum)), ' AND ') FILTER (WHERE a.attname IS NOT NULL),
                format('concat_ws(''|'', %s)', string_agg(format('h.%I', k.column_name), ', ' ORDER BY k.place)),
                string_agg(format('h.%I', k.column_name), ', ' ORDER BY k.place),
                'the table lost the key column ' || string_agg(k.column_name, ', ') FILTER (WHERE a.attname IS NULL)
                INTO same, key, place, fault
                FROM unnest(known.key_columns) WITH ORDINALITY AS k (column_name, place)
                LEFT JOIN pg_attribute AS a ON a.attrelid = tables_of.live AND a.attname = k.column_name AND NOT a.attisdropped;
            IF fault IS NULL AND is_accepted THEN
                written := written || delta.rewritten_by(of_run, live, rows_of, mappings, same, writer);
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$function$;

-- Returns the foreign keys that refer to a table, and whether an index finds the referring rows. `same` compares a referring row `p` with a
-- key `k` of the columns `c1`, `c2`, …; `named` identifies `p`. An untrusted table is not read; the server's own foreign key check reads
-- it, with the rights of that table's owner.
CREATE OR REPLACE FUNCTION delta.references_to(of_table regclass)
RETURNS TABLE (child regclass, child_rows text, name text, columns text, same text, keys text, named text, is_indexed boolean,
    is_referenced boolean, action "char", pages bigint, is_trusted boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT f.conrelid::regclass, delta.own_rows(f.conrelid), r.relname::text, pair.columns, pair.same, pair.keys,
        coalesce((
            SELECT string_agg(format('p.%I', a.attname), ', ' ORDER BY k.place)
            FROM pg_index AS i CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number
            WHERE i.indrelid = f.conrelid AND i.indisprimary), 'p.ctid'),
        EXISTS (
            SELECT FROM pg_index AS i WHERE i.indrelid = f.conrelid AND i.indisvalid AND i.indnkeyatts >= cardinality(f.conkey)
                AND (NOT i.indcheckxmin OR age(i.xmin) > age(pg_snapshot_xmin(pg_current_snapshot())::xid))
                AND f.conkey <@ (i.indkey::smallint[])[0:cardinality(f.conkey) - 1]
                AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = format('(%s IS NOT NULL)', pair.columns))),
        EXISTS (SELECT FROM pg_constraint AS o WHERE o.contype = 'f' AND o.confrelid IN (SELECT delta.tree(f.conrelid))),
        f.confdeltype,
        (SELECT sum(pg_relation_size(t.relid)) / 8192 FROM (SELECT f.conrelid AS relid UNION SELECT relid FROM pg_partition_tree(f.conrelid)) AS t
            JOIN pg_class AS c ON c.oid = t.relid AND c.relkind = 'r')::bigint,
        delta.is_trusted(f.conrelid)
    FROM pg_constraint AS f JOIN pg_class AS r ON r.oid = f.conrelid
    CROSS JOIN LATERAL (
        SELECT string_agg(format('%I', here.attname), ', ' ORDER BY u.place) AS columns,
            string_agg(format('k.c%s OPERATOR(%I.%s) p.%I', u.place, n.nspname, o.oprname, here.attname), ' AND ') AS same,
            string_agg(format('p.%I AS c%s', there.attname, u.place), ', ') AS keys
        FROM unnest(f.conkey, f.confkey, f.conpfeqop) WITH ORDINALITY AS u (here, there, equal, place)
        JOIN pg_attribute AS here ON here.attrelid = f.conrelid AND here.attnum = u.here
        JOIN pg_attribute AS there ON there.attrelid = f.confrelid AND there.attnum = u.there
        JOIN pg_operator AS o ON o.oid = u.equal JOIN pg_namespace AS n ON n.oid = o.oprnamespace) AS pair
    WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid IN (SELECT delta.tree(of_table)) ORDER BY f.oid
$function$;

-- Returns whether triggers or rules of production act on rows of these tables: on their deletion (8) or insertion (4).
CREATE OR REPLACE FUNCTION delta.is_watched(live regclass[], moment integer) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT EXISTS (SELECT FROM unnest(live) AS l (t) CROSS JOIN LATERAL delta.tree(l.t) AS r
        WHERE EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = r AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & moment <> 0)
            OR EXISTS (SELECT FROM pg_rewrite AS w WHERE w.ev_class = r AND w.ev_type = CASE moment WHEN 8 THEN '4' ELSE '3' END))
$function$;

-- Returns the references to a run's rows for which the server would scan the referring table once per deleted row. `pages` is the cost of
-- that. `may_index` is whether the owner of these functions can create the missing index.
CREATE OR REPLACE FUNCTION delta.unindexed(of_run text)
RETURNS TABLE (parent text, child regclass, child_name text, columns text, pages numeric, may_index boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT t.relation, r.child, r.name, r.columns, r.pages::numeric * t.total, r.is_trusted AND pg_has_role(c.relowner, 'USAGE')
    FROM delta.tables_of(of_run, '{}') AS t CROSS JOIN LATERAL delta.references_to(t.live) AS r JOIN pg_class AS c ON c.oid = r.child
    WHERE NOT r.is_indexed AND r.pages::numeric * t.total > 100000
$function$;

-- Returns what a run has in each table: its mappings, the first and the last key, and the triggers that a deletion fires.
CREATE OR REPLACE FUNCTION delta.holdings(of_run text)
RETURNS TABLE (table_name text, mappings bigint, first_key text, last_key text, triggers text[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $function$
DECLARE
    of_table record;
BEGIN
    FOR of_table IN SELECT * FROM delta.tables_of(of_run, '{}') LOOP
        table_name := of_table.name;
        SELECT of_table.total, '', '' INTO mappings, first_key, last_key;
        IF of_table.fault IS NULL THEN
            EXECUTE format(
                'SELECT (SELECT count(*) FROM %1$s AS h WHERE h.run = $1),
                        coalesce((SELECT %2$s FROM %1$s AS h WHERE h.run = $1 ORDER BY ROW(%3$s) LIMIT 1), ''''),
                        coalesce((SELECT %2$s FROM %1$s AS h WHERE h.run = $1 ORDER BY ROW(%3$s) DESC LIMIT 1), '''')',
                of_table.mappings, of_table.key, of_table.place) INTO mappings, first_key, last_key USING of_run;
        END IF;
        triggers := ARRAY(
            SELECT DISTINCT t.tgname::text FROM pg_trigger AS t WHERE t.tgrelid IN (SELECT delta.tree(of_table.live))
                AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 8 = 8 ORDER BY 1);
        RETURN NEXT;
    END LOOP;
END
$function$;

-- Returns the conflicts that prevent a rollback: the first ten of each kind, and their number. A row is in conflict if it is missing, or if
-- another transaction has written it since. So is a foreign row that refers to the run's rows, whatever the action of its foreign key.
CREATE OR REPLACE FUNCTION delta.conflicts(of_run text, accepted text[])
RETURNS TABLE (table_name text, what text, samples text, total bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off SET jit = off
    SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_indexscan = on SET enable_bitmapscan = on AS $function$
DECLARE
    of_table record;
    reference record;
    whole record;
    is_watched boolean;
    missing text;
    counted bigint;
BEGIN
    SELECT * INTO whole FROM delta.writer_of(of_run);
    IF NOT whole.is_known THEN
        RETURN QUERY SELECT 'delta.run', 'run from a dump that was restored here: what was changed since cannot be known', of_run, 1::bigint;
        RETURN;
    END IF;
    SELECT delta.is_watched(array_agg(t.live), 4) INTO is_watched FROM delta.tables_of(of_run, '{}') AS t WHERE t.live IS NOT NULL;
    FOR of_table IN SELECT * FROM delta.tables_of(of_run, accepted) LOOP
        IF of_table.fault IS NOT NULL THEN
            IF NOT of_table.is_accepted THEN
                RETURN QUERY SELECT of_table.name, 'rows out of reach', of_table.fault || format(
                    ' (if they are gone for good, `--accept %s` rolls the rest back)', of_table.name), of_table.total;
            END IF;
            CONTINUE;
        END IF;
        EXECUTE format('SELECT count(*) FROM %s AS h WHERE h.run = $1', of_table.mappings) INTO counted USING of_run;
        IF counted <> of_table.total AND NOT of_table.is_accepted THEN
            RETURN QUERY SELECT of_table.name, CASE WHEN counted < of_table.total THEN 'missing from the key map' ELSE 'more in the key map than the run recorded' END,
                format('it has %s mappings of the run, and %s were recorded: `pipeline keymap restore` restores missing ones (`--accept %s` rolls back the rest)',
                    counted, of_table.total, of_table.name), abs(of_table.total - counted);
        END IF;
        RETURN QUERY EXECUTE format(
            'WITH w AS MATERIALIZED (
                 SELECT p.writer, %2$s AS key, ROW(%3$s) AS place
                 FROM %4$s AS h LEFT JOIN LATERAL (SELECT p.xmin AS writer FROM %5$s AS p WHERE %6$s OFFSET 0) AS p ON true
                 WHERE h.run = $1 AND (p.writer IS NULL OR p.writer <> ALL ($2))),
             a AS MATERIALIZED (SELECT d.writer FROM (SELECT w.writer FROM w GROUP BY w.writer) AS d WHERE delta.has_altered($3, d.writer, $4))
             SELECT %1$L::text, f.what, f.key, f.total FROM (
                 SELECT n.what, n.key, count(*) OVER (PARTITION BY n.what) AS total, row_number() OVER (PARTITION BY n.what ORDER BY n.place) AS n
                 FROM (SELECT CASE WHEN w.writer IS NULL THEN ''gone from production'' WHEN w.writer IN (SELECT a.writer FROM a) THEN %7$L
                           ELSE ''changed since'' END AS what, w.key, w.place FROM w) AS n) AS f
             WHERE f.n <= 10 ORDER BY f.what, f.n',
            of_table.name, of_table.key, of_table.place, of_table.mappings, of_table.rows_of, of_table.same, format(
                'written again when the table was altered: whether they were changed before that cannot be known (if they were not, `--accept %s` rolls them back)',
                of_table.name)) USING of_run, of_table.written, of_table.live, whole.written;
        FOR reference IN
            SELECT r.*, own.mappings AS own_mappings, own.same AS own_same, coalesce(own.written, ARRAY[whole.written]) AS written
            FROM delta.references_to(of_table.live) AS r
            LEFT JOIN delta.tables_of(of_run, accepted) AS own ON own.fault IS NULL AND r.child IN (SELECT delta.tree(own.live))
        LOOP
            -- An untrusted table is not read. The server itself rejects the deletion of referenced rows, unless the foreign key would delete or change its rows.
            IF NOT reference.is_trusted THEN
                IF reference.action NOT IN ('a', 'r') THEN
                    RETURN QUERY SELECT of_table.name, format('reference of `%s`, whose rows their foreign key would delete or change', reference.name),
                        format('`pipeline setup` knows no table of the owner of %s', reference.child), 1::bigint;
                END IF;
                CONTINUE;
            END IF;
            -- Rows that triggers wrote in the run's own transaction are deleted with it, unless other rows may refer to them.
            IF reference.is_referenced AND (is_watched OR reference.own_mappings IS NULL) THEN
                reference.written := '{}';
            END IF;
            -- If an index exists, it leads from the run's rows to the referring ones. Otherwise the referring table is scanned once.
            PERFORM set_config('enable_seqscan', CASE WHEN reference.is_indexed THEN 'off' ELSE 'on' END, true);
            RETURN QUERY EXECUTE format(
                'WITH k AS MATERIALIZED (
                     SELECT p.*, %3$s AS "sample of it", ROW(%4$s) AS "place of it"
                     FROM %5$s AS h CROSS JOIN LATERAL (SELECT %6$s FROM %7$s AS p WHERE %8$s OFFSET 0) AS p WHERE h.run = $1)
                 SELECT %1$L::text, %2$L::text, f.samples, f.total FROM (
                     SELECT k."sample of it" || '' by '' || concat_ws(''|'', %9$s) AS samples, count(*) OVER () AS total, k."place of it" AS place
                     FROM k %10$s %11$s) AS f
                 ORDER BY f.place, f.samples LIMIT 10',
                of_table.name, format('referenced by rows of `%s` that are not the run''s (%s)', reference.name, reference.columns),
                of_table.key, of_table.place, of_table.mappings, reference.keys, of_table.rows_of, of_table.same, reference.named,
                format(CASE WHEN reference.is_indexed
                    THEN 'CROSS JOIN LATERAL (SELECT p.*, p.ctid FROM %s AS p WHERE %s AND p.xmin <> ALL ($2) OFFSET 0) AS p'
                    ELSE 'JOIN %s AS p ON %s AND p.xmin <> ALL ($2)' END, reference.child_rows, reference.same),
                CASE WHEN reference.own_mappings IS NULL THEN ''
                    ELSE format('WHERE NOT EXISTS (SELECT FROM %s AS h WHERE h.run = $1 AND %s)', reference.own_mappings, reference.own_same) END)
                USING of_run, reference.written;
            PERFORM set_config('enable_seqscan', 'off', true);
        END LOOP;
        SELECT string_agg(format('%s ON %s', right_name, of_table.relation), ', ') INTO missing
            FROM unnest(ARRAY['SELECT', 'DELETE']) AS r (right_name) WHERE NOT has_table_privilege(current_user, of_table.live, right_name);
        IF missing IS NOT NULL THEN
            RETURN QUERY SELECT of_table.name, format('rows that "%s", which owns the control schema, may not delete', current_user),
                'GRANT ' || missing, of_table.total;
        END IF;
    END LOOP;
    RETURN QUERY SELECT u.parent, format('check of `%s` for each deleted row, which would read that table as often', u.child_name),
            format('CREATE INDEX CONCURRENTLY ON %s (%s)', u.child, u.columns), 1::bigint
        FROM delta.unindexed(of_run) AS u WHERE NOT u.may_index AND u.pages > 10000000;
END
$function$;
