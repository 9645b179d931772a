-- Blocks other writers of a table whose keys come from no sequence, until the caller's transaction ends.
CREATE OR REPLACE FUNCTION delta.hold_table(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    known := delta.loaded(of_table);
    PERFORM delta.live_table(known);
    EXECUTE format('LOCK TABLE %I.%I IN SHARE ROW EXCLUSIVE MODE', known.schema_name, known.relation_name);
END
$function$;
