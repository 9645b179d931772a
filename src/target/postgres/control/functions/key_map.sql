-- Tells the index of the runs where those mappings are that the caller's transaction brought.
CREATE OR REPLACE FUNCTION delta.summarize(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    PERFORM brin_summarize_new_values(c.oid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
        WHERE i.indrelid = to_regclass(format('delta.%I', known.mappings)) AND m.amname = 'brin';
EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
    -- The index finds them without that, only later: no reason to give a load up.
    NULL;
END
$function$;

-- Mappings that a run brought and that never became part of the key map, since the run did not commit, make room. Of a run whose journal
-- says otherwise nothing is taken away, whatever became of the ledger.
CREATE OR REPLACE FUNCTION delta.forget(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    cut_off text;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    PERFORM delta.refuse_other_load();
    FOR cut_off IN
        SELECT e.run FROM delta.event AS e WHERE NOT EXISTS (SELECT FROM delta.segment AS s WHERE s.table_name = of_table AND s.run = e.run)
        GROUP BY e.run HAVING NOT bool_or(e.kind = 'committed')
    LOOP
        EXECUTE format('DELETE FROM delta.%I WHERE run = $1', known.mappings) USING cut_off;
    END LOOP;
END
$function$;
