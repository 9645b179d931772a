-- Locks the rows of a table with these keys until the caller's transaction ends, and returns the positions of missing keys. `named` has the
-- values that each row must have in the other columns, row by row. All are passed as arrays, so no object of the caller is read, planned over, or locked.
CREATE OR REPLACE FUNCTION delta.lock_references(of_schema name, of_table name, of_columns name[], keys text[], named text[])
RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = on AS $function$
DECLARE
    parent oid;
    looked_in text;
    asked text;
    same text;
    held_columns text;
    held_same text;
    is_whole boolean;
    known bigint;
    strength text;
    owner_then name;
BEGIN
    SELECT r.relation_owner INTO owner_then FROM delta.reference AS r
        WHERE r.schema_name = of_schema AND r.relation_name = of_table AND r.columns = of_columns;
    IF owner_then IS NULL OR (named IS NULL) <> (cardinality(of_columns) = 1) OR named IS NOT NULL AND cardinality(named) <> cardinality(keys) * (cardinality(of_columns) - 1) THEN
        RAISE EXCEPTION 'no pipeline was set up to refer to "%"."%" by %', of_schema, of_table, of_columns USING ERRCODE = 'DP002',
            HINT = 'run `pipeline setup` with the pipeline file as it is now';
    END IF;
    -- An older snapshot would show outdated rows; this call refuses one.
    PERFORM delta.owned_table(of_schema, of_table, owner_then);
    SELECT c.oid, CASE WHEN c.relkind = 'r' THEN 'ONLY ' ELSE '' END || format('%I.%I', of_schema, of_table) INTO parent, looked_in
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = of_schema AND c.relname = of_table AND c.relkind IN ('r', 'p');
    -- FOR KEY SHARE prevents the deletion of rows and changes to columns of a unique index. For other columns, FOR SHARE does that.
    SELECT string_agg(format('%s::%s AS c%s', CASE place WHEN 1 THEN 'u.key' ELSE format('($2)[(u.place - 1) * %s + %s]', cardinality(of_columns) - 1, place - 1) END, format_type(a.atttypid, -1), place), ', '),
        string_agg(format(CASE WHEN place = 1 OR a.attnotnull THEN 'p.%I = k.c%s' ELSE 'p.%I IS NOT DISTINCT FROM k.c%s' END, a.attname, place), ' AND ' ORDER BY place),
        string_agg(format('p.%I AS c%s', a.attname, place), ', '),
        string_agg(format(CASE WHEN place = 1 OR a.attnotnull THEN 'h.c%1$s = k.c%1$s' ELSE 'h.c%1$s IS NOT DISTINCT FROM k.c%1$s' END, place), ' AND '),
        CASE WHEN bool_and(EXISTS (
            SELECT FROM pg_index AS i WHERE i.indrelid = parent AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
                AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))) THEN 'FOR KEY SHARE' ELSE 'FOR SHARE' END,
        bool_or((place = 1 OR a.attnotnull) AND EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = parent AND i.indisvalid AND i.indpred IS NULL AND (i.indkey::int2[])[0] = a.attnum)) IS NOT TRUE, count(*)
        INTO asked, same, held_columns, held_same, strength, is_whole, known
        FROM unnest(of_columns) WITH ORDINALITY AS named_column (name, place)
        JOIN pg_attribute AS a ON a.attrelid = parent AND a.attname = named_column.name AND a.attnum > 0 AND NOT a.attisdropped;
    IF known <> cardinality(of_columns) THEN
        RAISE EXCEPTION '"%"."%" is not a table with the columns %', of_schema, of_table, of_columns USING ERRCODE = 'DP002';
    END IF;
    asked := format('SELECT u.place, %s FROM unnest($1) WITH ORDINALITY AS u (key, place)', asked);
    -- A table of at most 512 bytes per key, or without an index on the key, is scanned once. In any other table, each key is looked up by
    -- the index. LATERAL forces that plan.
    is_whole := is_whole OR (SELECT c.relkind = 'r' AND pg_relation_size(c.oid) <= 512 * cardinality(keys) FROM pg_class AS c WHERE c.oid = parent);
    PERFORM set_config('enable_seqscan', CASE WHEN is_whole THEN 'on' ELSE 'off' END, true);
    RETURN QUERY EXECUTE format(
        CASE WHEN is_whole
            THEN 'WITH k AS MATERIALIZED (%1$s), h AS MATERIALIZED (
                      SELECT %4$s FROM %2$s AS p WHERE EXISTS (SELECT FROM k WHERE %3$s) %6$s OF p)
                  SELECT k.place FROM k WHERE NOT EXISTS (SELECT FROM h WHERE %5$s)'
            ELSE 'WITH k AS MATERIALIZED (%1$s), h AS MATERIALIZED (
                      SELECT k.place FROM k CROSS JOIN LATERAL (SELECT FROM %2$s AS p WHERE %3$s %6$s OF p) AS p)
                  SELECT k.place FROM k EXCEPT SELECT h.place FROM h' END || ' ORDER BY 1',
        asked, looked_in, same, held_columns, held_same, strength) USING keys, named;
END
$function$;
