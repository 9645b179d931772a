-- Returns whether the caller may act on all runs: the owner of the control schema, or a member of the operator role.
CREATE OR REPLACE FUNCTION delta.is_operator() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT pg_has_role(session_user, current_user, 'MEMBER') OR pg_has_role(session_user, 'delta_rollback', 'MEMBER')
$function$;

-- Appends the next entry to the journal of a run. The run is the caller's own, or for an entry that ends it, any run for the operator.
-- Refuses an entry in an unknown format, of another run, with a wrong number, or of a kind that cannot come next. A run does not begin under
-- the id of one that another login has recorded.
CREATE OR REPLACE FUNCTION delta.append_event(of_run text, of_number integer, of_kind text, of_entry text, of_chain text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    last delta.event;
    parsed jsonb;
    event jsonb;
    fits boolean;
BEGIN
    IF of_run !~ '^[0-9A-Za-z_-]{1,64}$' OR of_chain !~ '^[0-9a-f]{64}$' THEN
        RAISE EXCEPTION 'run "%" or its chain is malformed', of_run USING ERRCODE = 'DP005';
    END IF;
    BEGIN
        parsed := of_entry::jsonb;
        event := parsed -> 'event';
        fits := (parsed ->> 'version')::integer BETWEEN 1 AND {journal_version} AND parsed ->> 'run' = of_run AND (parsed ->> 'number')::integer = of_number
            AND of_kind = CASE jsonb_typeof(event) WHEN 'string' THEN event #>> '{}' ELSE (SELECT min(k) FROM jsonb_object_keys(event) AS k HAVING count(*) = 1) END;
    EXCEPTION WHEN data_exception THEN
        fits := false;
    END;
    IF fits IS DISTINCT FROM true THEN
        RAISE EXCEPTION 'entry % of run % is malformed, or in an unknown format', of_number, of_run USING ERRCODE = 'DP005',
            HINT = 'a newer version of the program also needs its own setup: `pipeline setup FILE`';
    END IF;
    -- Serializes sessions that append to one run.
    PERFORM pg_advisory_xact_lock(hashtextextended(of_run, 7305516413));
    SELECT * INTO last FROM delta.event AS e WHERE e.run = of_run ORDER BY e.number DESC LIMIT 1;
    IF of_number <> coalesce(last.number, 0) + 1 THEN
        RAISE EXCEPTION 'entry % of run % is out of place: % comes next', of_number, of_run, coalesce(last.number, 0) + 1
            USING ERRCODE = 'DP005';
    END IF;
    IF of_number > 1 AND session_user <> (SELECT e.login FROM delta.event AS e WHERE e.run = of_run AND e.number = 1)
        AND NOT delta.is_operator() THEN
        RAISE EXCEPTION 'run % belongs to the login "%"', of_run, (SELECT e.login FROM delta.event AS e WHERE e.run = of_run AND e.number = 1)
            USING ERRCODE = 'DP005', HINT = 'resume it as that login, or have the operator give it up with `pipeline rollback FILE RUN`';
    END IF;
    fits := CASE
        WHEN last.kind IS NULL THEN of_kind = 'started' AND coalesce(event #>> '{started,pipeline}', '') <> ''
            AND jsonb_typeof(event #> '{started,tables}') = 'array'
            AND NOT EXISTS (SELECT FROM delta.segment AS s WHERE s.run = of_run AND s.login <> session_user)
        WHEN last.kind IN ('abandoned', 'rolled_back', 'verified') THEN false
        WHEN last.kind = 'committed' THEN of_kind IN ('verified', 'resumed')
        WHEN of_kind = 'committed' THEN EXISTS (
            SELECT FROM delta.run AS r WHERE r.id = of_run AND r.transaction = pg_current_xact_id()::text)
        WHEN of_kind = 'verified' THEN EXISTS (SELECT FROM delta.run AS r WHERE r.id = of_run)
        WHEN of_kind = 'abandoned' THEN NOT EXISTS (SELECT FROM delta.run AS r WHERE r.id = of_run)
        ELSE of_kind IN ('backed_up', 'reserved', 'staged', 'committing', 'resumed', 'failed') END;
    IF NOT fits THEN
        RAISE EXCEPTION '"%" does not come after "%" in the journal of run %', of_kind, coalesce(last.kind, 'nothing'), of_run
            USING ERRCODE = 'DP005';
    END IF;
    INSERT INTO delta.event (run, number, kind, entry, chain) VALUES (of_run, of_number, of_kind, of_entry, of_chain);
END
$function$;

-- Records a run and its files in the transaction that has its rows, if the policy lets it commit. The policy is read here and locked until
-- the commit. The journal proves that the run is the caller's, and that its files are the ones that it began with. A run that loads no files,
-- but restores a key map, has no journal.
CREATE OR REPLACE FUNCTION delta.record_run(of_run text, of_pipeline text, began text, of_report text,
    hashes text[], tables text[], names text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    required delta.policy;
    period delta.mode;
    first delta.event;
BEGIN
    -- An older snapshot would show an outdated policy.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a run is recorded in READ COMMITTED alone' USING ERRCODE = 'DP005';
    END IF;
    SELECT * INTO first FROM delta.event AS e WHERE e.run = of_run AND e.number = 1;
    IF first.login IS NULL AND cardinality(hashes) > 0 THEN
        RAISE EXCEPTION 'run % has no journal', of_run USING ERRCODE = 'DP005';
    END IF;
    IF first.entry::jsonb #>> '{event,started,pipeline}' <> of_pipeline THEN
        RAISE EXCEPTION 'run % is not of the pipeline "%"', of_run, of_pipeline USING ERRCODE = 'DP005';
    END IF;
    IF EXISTS (SELECT FROM unnest(tables) AS t (name) WHERE NOT EXISTS (SELECT FROM delta.loaded_table AS l WHERE l.relation = t.name)) THEN
        RAISE EXCEPTION 'run % names a table that no pipeline loads', of_run USING ERRCODE = 'DP005';
    END IF;
    IF first.login IS NOT NULL AND first.login <> session_user AND NOT delta.is_operator() THEN
        RAISE EXCEPTION 'run % belongs to the login "%"', of_run, first.login USING ERRCODE = 'DP005';
    END IF;
    IF EXISTS (SELECT FROM unnest(hashes, tables) AS f (hash, table_name) WHERE NOT EXISTS (
        SELECT FROM jsonb_array_elements(first.entry::jsonb #> '{event,started,tables}') AS t (stated)
        CROSS JOIN LATERAL jsonb_array_elements(t.stated -> 'files') AS named (file)
        WHERE t.stated ->> 'table' = f.table_name AND named.file ->> 'hash' = f.hash)) THEN
        RAISE EXCEPTION 'run % names files that it did not begin with', of_run USING ERRCODE = 'DP005';
    END IF;
    SELECT * INTO required FROM delta.hold_policy();
    IF required.conversion_mode THEN
        SELECT * INTO period FROM delta.hold_mode();
        IF period.number IS NULL OR period.ended_at IS NOT NULL OR period.until <= clock_timestamp() THEN
            RAISE EXCEPTION 'the target requires conversion mode, which is off' USING ERRCODE = 'DP004', HINT = '`pipeline mode on` switches it on; nothing was loaded';
        END IF;
    END IF;
    IF NOT delta.is_open(required.opening_window::jsonb) THEN
        RAISE EXCEPTION 'the window that the target requires is closed: %', required.opening_window
            USING ERRCODE = 'DP004', HINT = '`pipeline policy show` tells when it opens; nothing was loaded';
    END IF;
    IF required.approvals > 0 THEN
        RAISE EXCEPTION 'the target requires % approvals of the plan', required.approvals USING ERRCODE = 'DP004', HINT = 'nothing was loaded';
    END IF;
    INSERT INTO delta.run (id, pipeline, started_at, report, transaction)
        VALUES (of_run, of_pipeline, began, of_report, pg_current_xact_id()::text);
    INSERT INTO delta.file (hash, table_name, name, run)
        SELECT f.hash, f.table_name, f.name, of_run FROM unnest(hashes, tables, names) AS f (hash, table_name, name);
END
$function$;
