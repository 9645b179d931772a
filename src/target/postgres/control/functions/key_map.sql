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

-- Deletes mappings that never became part of the key map, because their run did not commit. If a run's journal says that it committed, its
-- mappings stay, whatever the state of the ledger.
CREATE OR REPLACE FUNCTION delta.forget(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    uncommitted text;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    PERFORM delta.refuse_other_load();
    FOR uncommitted IN
        SELECT e.run FROM delta.event AS e WHERE NOT EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = of_table AND s.run = e.run)
        GROUP BY e.run HAVING NOT bool_or(e.kind = 'committed')
    LOOP
        EXECUTE format('DELETE FROM delta.%I WHERE run = $1', known.mappings) USING uncommitted;
    END LOOP;
END
$function$;
