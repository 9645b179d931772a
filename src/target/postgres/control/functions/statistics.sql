-- Refreshes the statistics of a table.
CREATE OR REPLACE FUNCTION delta.analyze(of_table text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    known := delta.loaded(of_table);
    PERFORM delta.live_table(known);
    EXECUTE format('ANALYZE %I.%I', known.schema_name, known.relation_name);
END
$function$;
