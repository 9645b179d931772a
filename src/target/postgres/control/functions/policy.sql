-- Returns the policy, locked until the caller's transaction ends.
CREATE OR REPLACE FUNCTION delta.hold_policy() RETURNS SETOF delta.policy
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT * FROM delta.policy ORDER BY number DESC LIMIT 1 FOR SHARE
$function$;

-- Sets the policy. Not for the loader.
CREATE OR REPLACE FUNCTION delta.set_policy(needs_mode boolean, needed_approvals integer, largest_block bigint, opening text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    BEGIN
        IF opening IS NOT NULL AND (
            opening::jsonb ->> 'from' !~ '^[0-9]{2}:[0-9]{2}$' OR opening::jsonb ->> 'to' !~ '^[0-9]{2}:[0-9]{2}$' OR delta.is_open(opening::jsonb) IS NULL) THEN
            RAISE invalid_parameter_value;
        END IF;
    EXCEPTION WHEN data_exception THEN
        RAISE EXCEPTION 'the window is malformed: %', opening USING ERRCODE = 'DP004',
            HINT = 'name one as `{"days": ["sat"], "from": "22:00", "to": "06:00", "timezone": "Europe/Berlin"}`; nothing was changed';
    END;
    -- A run that is about to commit has locked the last row, and that policy applies to it.
    PERFORM FROM delta.hold_policy();
    INSERT INTO delta.policy (conversion_mode, approvals, max_key_block, opening_window)
        VALUES (needs_mode, needed_approvals, largest_block, opening);
END
$function$;

-- Returns whether a window is open, by this server's clock, whatever time zone abbreviations the session uses. It is stored as JSON:
-- {"days": ["sat"], "from": "22:00", "to": "06:00", "timezone": "Europe/Berlin"}.
CREATE OR REPLACE FUNCTION delta.is_open(opening jsonb) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone_abbreviations = 'Default' AS $function$
    SELECT opening IS NULL OR CASE
        WHEN began < ended THEN clock >= began AND clock < ended AND today
        ELSE clock >= began AND today OR clock < ended AND yesterday END
    FROM (SELECT local::time AS clock, (opening ->> 'from')::time AS began, (opening ->> 'to')::time AS ended,
              coalesce(opening -> 'days' ? lower(to_char(local, 'Dy')), true) AS today,
              coalesce(opening -> 'days' ? lower(to_char(local - interval '1 day', 'Dy')), true) AS yesterday
          FROM (SELECT clock_timestamp() AT TIME ZONE (opening ->> 'timezone') AS local) AS moment) AS now_there
$function$;
