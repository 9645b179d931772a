-- Locks a table of production until the caller's transaction ends, if its owner is the one that setup recorded. Planning a query over a
-- table that another role put in its place would run that role's code with this owner's rights.
CREATE OR REPLACE FUNCTION delta.owned_table(of_schema name, of_table name, of_owner name) RETURNS regclass
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    live regclass;
BEGIN
    -- An older snapshot would show an outdated table.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a load needs READ COMMITTED' USING ERRCODE = 'DP001';
    END IF;
    EXECUTE format('LOCK TABLE %I.%I IN ACCESS SHARE MODE', of_schema, of_table);
    SELECT c.oid INTO live FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = of_schema AND c.relname = of_table AND c.relkind IN ('r', 'p') AND pg_get_userbyid(c.relowner) = of_owner;
    IF live IS NULL THEN
        RAISE EXCEPTION '"%"."%" is not the table of "%" that was set up', of_schema, of_table, of_owner
            USING ERRCODE = 'DP001', HINT = 'if it was made again or has another owner now: `pipeline setup FILE`';
    END IF;
    RETURN live;
END
$function$;

-- Returns whether code of a table's owner may run with this owner's rights, as planning a query over the table does. The owner must be this
-- one, a superuser, or one that setup has recorded. The owners of its partitions must be too.
CREATE OR REPLACE FUNCTION delta.is_trusted(of_table regclass) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT bool_and(r.rolsuper OR r.rolname = current_user OR EXISTS (SELECT FROM delta.trusted_owner AS o WHERE o.name = r.rolname))
    FROM (SELECT of_table::oid AS oid UNION SELECT relid FROM pg_partition_tree(of_table)) AS t
    JOIN pg_class AS c ON c.oid = t.oid JOIN pg_roles AS r ON r.oid = c.relowner
$function$;

-- Returns a registered table, locked.
CREATE OR REPLACE FUNCTION delta.live_table(known delta.loaded_table) RETURNS regclass
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $function$
    SELECT delta.owned_table(known.schema_name, known.relation_name, known.relation_owner)
$function$;

-- Returns the registration of a table that a pipeline loads. Refuses one that pipelines only refer to.
CREATE OR REPLACE FUNCTION delta.loaded(of_table text) RETURNS delta.loaded_table
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    IF NOT known.is_loaded THEN
        RAISE EXCEPTION 'no pipeline loads "%"', of_table USING ERRCODE = 'DP001', HINT = 'run `pipeline setup FILE` with a file that loads it';
    END IF;
    RETURN known;
END
$function$;

-- Refuses while another login loads, because its staging and its uncommitted mappings must stay. The caller of this function first locks
-- these, so that no load begins to use them afterwards.
CREATE OR REPLACE FUNCTION delta.refuse_other_load() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    other record;
BEGIN
    -- A transaction keeps its first view of the sessions.
    PERFORM pg_stat_clear_snapshot();
    SELECT l.pid, a.usename INTO other FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND (l.classid::bigint << 32) | l.objid::bigint = 7305516410
            AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) AND a.usename IS DISTINCT FROM session_user
        LIMIT 1;
    IF other.pid IS NOT NULL THEN
        RAISE EXCEPTION 'the login "%" is loading', other.usename USING ERRCODE = 'DP001', HINT = 'run again when it is done';
    END IF;
END
$function$;
