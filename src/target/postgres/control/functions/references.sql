-- Locks the rows that staged rows refer to until the caller's transaction ends. Returns the staged rows that refer neither to production
-- nor to a row staged in the same load.
-- An earlier setup returned `staged_row` as an integer.
DROP FUNCTION IF EXISTS delta.hold_references(text, text[]);
CREATE OR REPLACE FUNCTION delta.hold_references(of_table text, of_load text[])
RETURNS TABLE (reference text, referenced text, staged_row bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $function$
DECLARE
    known delta.loaded_table;
    staged regclass;
    live regclass;
    parent regclass;
    foreign_key record;
    is_small boolean;
    keys text;
    held bigint;
    asked bigint;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    staged := delta.staged(of_table, known.staging_rows);
    live := delta.live_table(known);
    FOR foreign_key IN
        SELECT f.conname::text AS name, f.confrelid, max(r.relname) AS parent,
            -- As in the server's own check, inheriting tables are ignored.
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
            AND f.conrelid = live
        GROUP BY f.oid, f.conname, f.confrelid HAVING bool_and(there_too.attname IS NOT NULL)
    LOOP
        IF NOT delta.is_trusted(foreign_key.confrelid) THEN
            RAISE EXCEPTION 'the table % that "%" refers to has another owner than when it was set up', foreign_key.confrelid::regclass, known.relation
                USING ERRCODE = 'DP001', HINT = 'if that owner is right: `pipeline setup FILE`';
        END IF;
        SELECT delta.staged(loaded.table_name, loaded.staging_rows) INTO parent FROM delta.loaded_table AS loaded
            WHERE loaded.table_name = ANY (of_load)
                AND format('%I.%I', loaded.schema_name, loaded.relation_name)::regclass = foreign_key.confrelid;
        keys := format(
            'SELECT * FROM (SELECT %1$s FROM %2$s AS s WHERE %3$s) AS k%4$s', foreign_key.keys, staged, foreign_key.filled,
            CASE WHEN parent IS NULL THEN ''
                 ELSE format(' WHERE NOT EXISTS (SELECT FROM %s AS r WHERE %s)', parent, format(foreign_key.same, 'r')) END);
        PERFORM set_config('enable_seqscan', 'on', true);
        EXECUTE format('SELECT count(*) FROM (%s) AS k', keys) INTO asked;
        CONTINUE WHEN asked = 0;
        -- A table of at most 512 bytes per key may be scanned (`lookup.rs` has the reason). In any other table, each key is looked up by
        -- the index of the referenced key. LATERAL forces that plan.
        SELECT c.relkind = 'r' AND pg_relation_size(c.oid) <= 512 * asked INTO is_small FROM pg_class AS c WHERE c.oid = foreign_key.confrelid;
        PERFORM set_config('enable_seqscan', CASE WHEN is_small THEN 'on' ELSE 'off' END, true);
        -- Counting locks all rows.
        EXECUTE format(
            CASE WHEN is_small
                THEN 'SELECT count(*) FROM (SELECT FROM %2$s AS p WHERE EXISTS (SELECT FROM (%1$s) AS k WHERE %3$s) FOR KEY SHARE OF p) AS h'
                ELSE 'SELECT count(*) FROM (SELECT DISTINCT * FROM (%1$s) AS k) AS k
                      CROSS JOIN LATERAL (SELECT FROM %2$s AS p WHERE %3$s FOR KEY SHARE OF p) AS h' END,
            keys, foreign_key.looked_in, format(foreign_key.same, 'p')) INTO held;
        -- No key matches two rows, so equal counts mean that none is missing. Most keys occur once.
        IF held <> asked THEN
            EXECUTE format('SELECT count(*) FROM (SELECT DISTINCT * FROM (%s) AS k) AS k', keys) INTO asked;
        END IF;
        CONTINUE WHEN held = asked;
        -- A single statement, so that a row that is reported missing is not locked.
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
