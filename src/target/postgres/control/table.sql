-- The table {comment}: its registration, and its key map.
DO $setup$
DECLARE
    known delta.loaded_table;
    is_empty boolean;
    other record;
BEGIN
    SELECT c.relname, pg_catalog.pg_get_userbyid(c.relowner) AS owner INTO other FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = {staging_schema} AND c.relname IN ({staging_rows}, {staging_keys})
            AND pg_catalog.pg_get_userbyid(c.relowner) <> current_user LIMIT 1;
    IF other.relname IS NOT NULL THEN
        RAISE EXCEPTION 'the table "%"."%" belongs to the role "%", and not to "%"', {staging_schema}, other.relname, other.owner, current_user
            USING ERRCODE = 'DP002', HINT = 'drop or rename it; nothing was changed';
    END IF;
    SELECT * INTO known FROM delta.loaded_table AS loaded WHERE loaded.table_name = {table_name};
    -- An empty key map is recreated, because the pipeline file may name another key by now.
    IF known.table_name IS NOT NULL AND known.key_columns <> {key_columns}::name[] THEN
        SELECT NOT EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = known.table_name) INTO is_empty;
        IF NOT is_empty THEN
            RAISE EXCEPTION 'the key map of "%" has mappings to (%), and the pipeline file names the key (%)', known.table_name,
                pg_catalog.array_to_string(known.key_columns, ', '), pg_catalog.array_to_string({key_columns}::name[], ', ')
                USING ERRCODE = 'DP002', HINT = 'name the key that the key map has, or roll back the runs that filled it; nothing was changed';
        END IF;
        EXECUTE pg_catalog.format('DROP VIEW IF EXISTS delta.%I; DROP TABLE IF EXISTS delta.%I', known.history, known.mappings);
    END IF;
END
$setup$;
INSERT INTO delta.loaded_table (table_name, namespace, relation, schema_name, relation_name, relation_owner, key_columns, key_column,
        sequence_schema, sequence_name, history, mappings, staging_schema, staging_rows, staging_keys, is_loaded)
    SELECT {table_name}, {namespace}, {relation}, {schema_name}, {relation_name}, pg_catalog.pg_get_userbyid(c.relowner), {key_columns}::name[],
        {key_column}, {sequence_schema}, {sequence_name}, {key_map_view_name}, {mappings_name}, {staging_schema}, {staging_rows}, {staging_keys}, {is_loaded}
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = {schema_name} AND c.relname = {relation_name}
    ON CONFLICT (table_name) DO UPDATE SET relation_owner = excluded.relation_owner, key_columns = excluded.key_columns, key_column = excluded.key_column,
        sequence_schema = excluded.sequence_schema, sequence_name = excluded.sequence_name, staging_schema = excluded.staging_schema,
        staging_rows = excluded.staging_rows, staging_keys = excluded.staging_keys, is_loaded = excluded.is_loaded;
-- Its owner, and the owners of tables that its foreign keys refer to, are trusted from here on.
INSERT INTO delta.trusted_owner (name)
    SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class AS own
    JOIN pg_catalog.pg_namespace AS n ON n.oid = own.relnamespace
    JOIN pg_catalog.pg_class AS c ON c.oid = own.oid
        OR c.oid IN (SELECT f.confrelid FROM pg_catalog.pg_constraint AS f WHERE f.contype = 'f' AND f.conrelid = own.oid)
    WHERE n.nspname = {schema_name} AND own.relname = {relation_name}
    ON CONFLICT DO NOTHING;
-- The mappings of a run count once the ledger has its segment, which is committed with its rows. They are stored contiguously, so that an
-- index on runs costs next to nothing.
CREATE TABLE IF NOT EXISTS {mappings} (
    legacy_key text COLLATE "C" PRIMARY KEY, {typed_key}, run text COLLATE "C" NOT NULL);
CREATE INDEX IF NOT EXISTS {by_run_name} ON {mappings} USING brin (run);
CREATE OR REPLACE VIEW {key_map_view} AS SELECT m.legacy_key, {own_key}, m.run FROM {mappings} AS m
    WHERE EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = {table_name} AND s.run = m.run);
-- A session that fires no triggers fires this one. The functions of the owner check what they append themselves.
DO $setup$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = {mappings_text}::regclass AND t.tgname = 'check_mappings') THEN
        CREATE TRIGGER check_mappings AFTER INSERT ON {mappings} REFERENCING NEW TABLE AS appended_mappings
            FOR EACH STATEMENT WHEN (current_user <> {owner_text}) EXECUTE FUNCTION delta.check_mappings({table_name});
        ALTER TABLE {mappings} ENABLE ALWAYS TRIGGER check_mappings;
    END IF;
END
$setup$;
REVOKE ALL ON {mappings}, {key_map_view} FROM PUBLIC, delta_loader, delta_rollback;
GRANT SELECT ON {key_map_view} TO delta_loader, delta_rollback;
GRANT SELECT, INSERT ON {mappings} TO delta_loader;
