-- Returns the declared base type of a column below domains, with the column's collation.
CREATE OR REPLACE FUNCTION delta.declared(of_relation regclass, of_column name) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    WITH RECURSIVE base AS (
        SELECT a.atttypid AS type, a.atttypmod AS modifier, a.attcollation AS collation FROM pg_attribute AS a
            WHERE a.attrelid = of_relation AND a.attname = of_column AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT t.typbasetype, t.typtypmod, base.collation FROM base JOIN pg_type AS t ON t.oid = base.type WHERE t.typtype = 'd'
    )
    SELECT format_type(b.type, b.modifier) || coalesce(
            (SELECT format(' COLLATE %I.%I', n.nspname, c.collname) FROM pg_collation AS c JOIN pg_namespace AS n ON n.oid = c.collnamespace
             WHERE c.oid = b.collation AND c.collprovider <> 'd'), '')
    FROM base AS b JOIN pg_type AS t ON t.oid = b.type WHERE t.typtype <> 'd'
$function$;

-- Recreates the staging tables of a loaded table for a run. They belong to the owner of these functions, and their columns have the types
-- of the live table's, or text. The loader can fill and read them, but cannot attach code to them.
CREATE OR REPLACE FUNCTION delta.make_staging(of_run text, of_table text, columns text[], as_text boolean[], is_levelled boolean, with_keys boolean)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    live regclass;
    place text;
    typed text;
    keys text;
    made text[];
    declared text[];
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    made := ARRAY[known.staging_rows] || CASE WHEN with_keys THEN ARRAY[known.staging_keys] END;
    -- A load that began now would wait for these locks. A load that is at work does not wait: it is left alone before they are requested.
    PERFORM delta.refuse_other_load();
    PERFORM pg_advisory_xact_lock(hashtextextended(of_table, 7305516415));
    FOREACH place IN ARRAY made LOOP
        IF EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = known.staging_schema
                AND c.relname = place AND c.relkind = 'r' AND pg_get_userbyid(c.relowner) = current_user) THEN
            EXECUTE format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE', known.staging_schema, place);
        END IF;
    END LOOP;
    PERFORM delta.refuse_other_load();
    IF NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = known.staging_schema AND pg_get_userbyid(n.nspowner) = current_user) THEN
        RAISE EXCEPTION 'the schema "%" for staging is missing, or belongs to another role than "%"', known.staging_schema, current_user
            USING ERRCODE = 'DP001', HINT = 'drop it if it is of no use, and run `pipeline setup FILE`';
    END IF;
    live := delta.live_table(known);
    SELECT string_agg(format(', %I %s', c.name, CASE WHEN c.as_text THEN 'text' ELSE delta.declared(live, c.name) END), '' ORDER BY c.place)
        INTO typed FROM unnest(columns, as_text) WITH ORDINALITY AS c (name, as_text, place);
    SELECT string_agg(format(', %I %s', k.name, CASE WHEN c.as_text THEN 'text' ELSE delta.declared(live, k.name) END), '' ORDER BY k.place)
        INTO keys FROM unnest(known.key_columns) WITH ORDINALITY AS k (name, place)
        LEFT JOIN unnest(columns, as_text) AS c (name, as_text) ON c.name = k.name;
    declared := ARRAY[
        CASE WHEN is_levelled THEN '_level bigint NOT NULL, ' ELSE '' END || '_row bigint NOT NULL' || coalesce(typed, ''),
        '_row bigint NOT NULL, legacy_key text COLLATE "C" NOT NULL' || coalesce(keys, '')];
    FOR at IN 1 .. cardinality(made) LOOP
        place := format('%I.%I', known.staging_schema, made[at]);
        IF to_regclass(place) IS NOT NULL AND NOT starts_with(coalesce(obj_description(to_regclass(place), 'pg_class'), ''), '{mark}') THEN
            RAISE EXCEPTION '% exists and was not created by pipeline', place USING ERRCODE = 'DP001', HINT = 'choose another `target.staging`';
        END IF;
        EXECUTE format('DROP TABLE IF EXISTS %s', place);
        EXECUTE format('CREATE UNLOGGED TABLE %s (%s) WITH (autovacuum_enabled = off)', place, declared[at]);
        EXECUTE format('COMMENT ON TABLE %s IS %L', place, format('{mark}, run %s', of_run));
        -- Removes default privileges: with TRIGGER, the loader could make other logins run its code.
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, delta_loader, delta_rollback', place);
        EXECUTE format('GRANT SELECT, INSERT ON %s TO delta_loader', place);
    END LOOP;
END
$function$;

-- Gathers enough statistics of staged rows to plan joins.
CREATE OR REPLACE FUNCTION delta.analyze_staging(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET default_statistics_target = 10 AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    PERFORM delta.staged(of_table, known.staging_rows);
    EXECUTE format('ANALYZE %I.%I', known.staging_schema, known.staging_rows);
END
$function$;

-- Returns a staging table of a loaded table, locked until the caller's transaction ends, if it belongs to the owner. Planning a query
-- over a table that another role put in its place would run that role's code with the owner's rights. Such code can be in an index
-- expression, a CHECK, statistics, a view, a policy, or a type with a cast.
CREATE OR REPLACE FUNCTION delta.staged(of_table text, staging_name name) RETURNS regclass
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    staged regclass;
BEGIN
    -- An older snapshot would show an outdated table.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'staging is read in READ COMMITTED alone';
    END IF;
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    IF to_regclass(format('%I.%I', known.staging_schema, staging_name)) IS NOT NULL THEN
        EXECUTE format('LOCK TABLE %I.%I IN ACCESS SHARE MODE', known.staging_schema, staging_name);
    END IF;
    SELECT c.oid INTO staged FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = known.staging_schema AND c.relname = staging_name AND c.relkind = 'r'
            AND c.relowner = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = current_user)
            AND n.nspowner = c.relowner;
    IF staged IS NULL THEN
        RAISE EXCEPTION '"%"."%" is not a staging table of a load', known.staging_schema, staging_name;
    END IF;
    RETURN staged;
END
$function$;
