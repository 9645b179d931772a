-- Whatever the session's search path is, only the server's functions, operators, and types are used here.
SET LOCAL search_path = pg_catalog, pg_temp;
-- Expressions and names are compared as the server writes them without needless quotes.
SET LOCAL quote_all_identifiers = off;

-- Concurrent setups wait for each other.
SELECT pg_catalog.pg_advisory_xact_lock(7305516411);

DO $setup$
DECLARE
    trusted oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {owner_text});
    stranger record;
BEGIN
    IF trusted IS NULL THEN
        RAISE EXCEPTION 'the role "%" does not exist', {owner_text} USING ERRCODE = 'DP002', HINT = 'create it, or name another one: `pipeline setup FILE --owner ROLE`';
    END IF;
    IF NOT pg_catalog.pg_has_role(session_user, trusted, 'MEMBER') THEN
        RAISE EXCEPTION '"%" is not a member of "%", which owns the control schema', session_user, {owner_text}
            USING ERRCODE = 'DP002', HINT = 'set up as a member of the owner, or name another one: `pipeline setup FILE --owner ROLE`';
    END IF;
    SELECT n.nspname, n.nspowner INTO stranger FROM pg_catalog.pg_namespace AS n
        WHERE n.nspname IN ('delta', {staging_text}) AND n.nspowner <> trusted ORDER BY 1 LIMIT 1;
    IF stranger.nspname IS NOT NULL THEN
        RAISE EXCEPTION 'the schema "%" belongs to the role "%", and not to "%"', stranger.nspname,
            pg_catalog.pg_get_userbyid(stranger.nspowner), {owner_text}
            USING ERRCODE = 'DP002', HINT = 'drop or rename it, or give it to the owner if you trust all that is in it; nothing was changed';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'delta')
        AND pg_catalog.to_regclass('delta.migration') IS NULL THEN
        RAISE EXCEPTION 'the schema "delta" was not created by pipeline'
            USING ERRCODE = 'DP002', HINT = 'rename that schema, or load into another database';
    END IF;
    -- The tables are locked below, but an active load holds locks on them.
    IF session_user <> {owner_text} AND NOT pg_catalog.pg_try_advisory_xact_lock(7305516410) THEN
        RAISE EXCEPTION 'another session is loading or rolling back' USING ERRCODE = 'DP002', HINT = 'set up when it is done; nothing was changed';
    END IF;
END
$setup$;

-- Roles belong to all databases of a server, so another database's setup may be creating them now.
DO $setup$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['delta_loader', 'delta_rollback'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
END
$setup$;

-- A login that cannot create schemas can set up in existing ones.
DO $setup$
BEGIN
    IF pg_catalog.to_regnamespace('delta') IS NULL THEN
        CREATE SCHEMA delta AUTHORIZATION {owner};
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {staging_text}) THEN
        CREATE SCHEMA {staging} AUTHORIZATION {owner};
    END IF;
END
$setup$;
