-- Two setups at once wait for each other.
SELECT pg_catalog.pg_advisory_xact_lock(7305516411);

-- What is here already is trusted only if the owner of the control schema made it: a table, function, or trigger of another role would run
-- with the rights of the role that sets up, or with the owner's.
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
    SELECT * INTO stranger FROM (
        SELECT 'schema' AS kind, n.nspname::text AS name, n.nspowner AS owner FROM pg_catalog.pg_namespace AS n
            WHERE n.nspname IN ('delta', {staging_text})
        UNION ALL
        SELECT 'table', 'delta.' || c.relname, c.relowner FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = 'delta'
        UNION ALL
        SELECT 'function', 'delta.' || p.proname, p.proowner FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
            WHERE n.nspname = 'delta'
        UNION ALL
        SELECT 'type', 'delta.' || t.typname, t.typowner FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
            WHERE n.nspname = 'delta'
        UNION ALL
        SELECT 'operator', 'delta.' || o.oprname, o.oprowner FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
            WHERE n.nspname = 'delta'
        UNION ALL
        -- A trigger, rule, or policy has no owner but its table's. A trigger's function may be of any schema.
        SELECT 'trigger', t.tgname || ' of delta.' || c.relname, p.proowner FROM pg_catalog.pg_trigger AS t
            JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
            WHERE n.nspname = 'delta' AND NOT t.tgisinternal
    ) AS found WHERE found.owner <> trusted ORDER BY found.kind = 'schema' DESC, 1, 2 LIMIT 1;
    IF stranger.kind IS NOT NULL THEN
        RAISE EXCEPTION 'the % "%" belongs to the role "%", and not to "%"', stranger.kind, stranger.name,
            pg_catalog.pg_get_userbyid(stranger.owner), {owner_text}
            USING ERRCODE = 'DP002', HINT = 'drop or rename it, or give it to the owner if you trust all that is in it; nothing was changed';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'delta')
        AND pg_catalog.to_regclass('delta.migration') IS NULL THEN
        RAISE EXCEPTION 'the schema "delta" belongs to something else'
            USING ERRCODE = 'DP002', HINT = 'rename that schema, or load into another database';
    END IF;
END
$setup$;

-- Roles belong to all databases of the server: another one's setup may be making them now.
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

CREATE SCHEMA IF NOT EXISTS delta AUTHORIZATION {owner};
CREATE SCHEMA IF NOT EXISTS {staging} AUTHORIZATION {owner};
