-- Switches conversion mode on for a time, or off if `seconds` is NULL. Records the login, whatever role it took. Not for the loader.
CREATE OR REPLACE FUNCTION delta.switch_mode(seconds double precision, why text, keep_it boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    moment timestamptz;
BEGIN
    -- Serializes switching. It does not lock the table, because a run that has locked the row will write to it and must not wait.
    PERFORM pg_advisory_xact_lock(7305516412);
    moment := clock_timestamp();
    UPDATE delta.mode SET ended_at = moment, ended_by = session_user,
            ended_reason = CASE WHEN seconds IS NULL THEN why ELSE 'it was switched on again' END
        WHERE ended_at IS NULL AND until > moment;
    IF seconds IS NOT NULL THEN
        IF NOT seconds > 0 OR coalesce(why, '') = '' THEN
            RAISE EXCEPTION 'conversion mode needs a time and a reason' USING ERRCODE = 'DP001';
        END IF;
        INSERT INTO delta.mode (since, until, switched_by, reason, keep)
            VALUES (moment, moment + make_interval(secs => seconds), session_user, why, keep_it);
    END IF;
END
$function$;

-- Returns the last period of conversion mode, locked until the caller's transaction ends.
CREATE OR REPLACE FUNCTION delta.hold_mode() RETURNS SETOF delta.mode
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT * FROM delta.mode ORDER BY number DESC LIMIT 1 FOR SHARE
$function$;

-- Ends conversion mode with a run, unless it is to be kept.
CREATE OR REPLACE FUNCTION delta.end_mode(of_run text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    UPDATE delta.mode SET ended_at = clock_timestamp(), ended_by = session_user, ended_run = of_run
    WHERE ended_at IS NULL AND until > clock_timestamp() AND NOT keep
$function$;
