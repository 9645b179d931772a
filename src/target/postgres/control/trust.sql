COMMENT ON SCHEMA delta IS 'what the delta pipeline remembers';
CREATE TABLE IF NOT EXISTS delta.migration (
    version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());

-- Existing objects are trusted only if the owner of the control schema created them and they run no code. Code of another role would run
-- with the owner's rights. Code of the owner would run inside the session of the login that sets up, where RESET ROLE gives it that login's
-- rights.
DO $setup$
DECLARE
    trusted oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {owner_text});
    control oid := 'delta'::pg_catalog.regnamespace;
    place text;
    found record;
BEGIN
    SELECT o.* INTO found FROM (
        SELECT 'table' AS kind, c.relname::text AS name, c.relowner AS owner FROM pg_catalog.pg_class AS c WHERE c.relnamespace = control
        UNION ALL SELECT 'function', p.proname, p.proowner FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = control
        UNION ALL SELECT 'type', t.typname, t.typowner FROM pg_catalog.pg_type AS t WHERE t.typnamespace = control AND t.typcategory <> 'A'
        UNION ALL SELECT 'operator', o.oprname, o.oprowner FROM pg_catalog.pg_operator AS o WHERE o.oprnamespace = control
        UNION ALL SELECT 'operator class', o.opcname, o.opcowner FROM pg_catalog.pg_opclass AS o WHERE o.opcnamespace = control
        UNION ALL SELECT 'collation', o.collname, o.collowner FROM pg_catalog.pg_collation AS o WHERE o.collnamespace = control
    ) AS o WHERE o.owner <> trusted ORDER BY 1, 2 LIMIT 1;
    IF found.kind IS NOT NULL THEN
        RAISE EXCEPTION 'the % "delta.%" belongs to the role "%", and not to "%"', found.kind, found.name,
            pg_catalog.pg_get_userbyid(found.owner), {owner_text}
            USING ERRCODE = 'DP002', HINT = 'drop or rename it, or give it to the owner if you trust all that is in it; nothing was changed';
    END IF;
    -- Nothing can be attached to a table after it was inspected.
    IF session_user <> {owner_text} THEN
        FOR place IN SELECT pg_catalog.format('delta.%I', c.relname) FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = control AND c.relkind IN ('r', 'p') ORDER BY 1
        LOOP
            EXECUTE 'LOCK TABLE ' || place || ' IN SHARE ROW EXCLUSIVE MODE';
        END LOOP;
    END IF;
    -- Known parts of the control tables are listed, and all others are refused. That includes those that call only the server's functions,
    -- because some of these run SQL or set a role.
    SELECT o.* INTO found FROM (
        SELECT 'trigger' AS kind, t.tgname::text AS name, c.relname AS place FROM pg_catalog.pg_trigger AS t
            JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid WHERE c.relnamespace = control AND NOT t.tgisinternal
                AND NOT (pg_catalog.starts_with(c.relname, 'mapping_') AND pg_catalog.pg_get_triggerdef(t.oid) = pg_catalog.format('CREATE TRIGGER check_mappings AFTER INSERT ON delta.%I'
                    ' REFERENCING NEW TABLE AS appended_mappings FOR EACH STATEMENT WHEN ((CURRENT_USER <> %L::name))'
                    ' EXECUTE FUNCTION delta.check_mappings(%L)', c.relname, {owner_text}, pg_catalog.convert_from(
                        pg_catalog.substr(t.tgargs, 1, greatest(pg_catalog.length(t.tgargs) - 1, 0)), pg_catalog.getdatabaseencoding())))
        UNION ALL SELECT 'rule', w.rulename, c.relname FROM pg_catalog.pg_rewrite AS w JOIN pg_catalog.pg_class AS c ON c.oid = w.ev_class
            WHERE c.relnamespace = control AND NOT (c.relkind = 'v' AND w.rulename = '_RETURN')
        UNION ALL SELECT 'policy', p.polname, c.relname FROM pg_catalog.pg_policy AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
            WHERE c.relnamespace = control
        UNION ALL SELECT 'default', a.attname, c.relname FROM pg_catalog.pg_attrdef AS d JOIN pg_catalog.pg_class AS c ON c.oid = d.adrelid
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
            WHERE c.relnamespace = control AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) NOT IN ('now()', 'SESSION_USER')
        UNION ALL SELECT 'constraint', k.conname, c.relname FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
            WHERE c.relnamespace = control AND k.contype NOT IN ('p', 'u', 'n')
                AND (k.contype <> 'f' OR (SELECT r.relnamespace FROM pg_catalog.pg_class AS r WHERE r.oid = k.confrelid) <> control)
                AND pg_catalog.pg_get_constraintdef(k.oid) NOT IN ('CHECK ((approvals >= 0))', 'CHECK ((max_key_block > 0))')
        UNION ALL SELECT 'index', c.relname, r.relname FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
            JOIN pg_catalog.pg_class AS r ON r.oid = i.indrelid
            WHERE r.relnamespace = control AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
        UNION ALL SELECT 'statistics object', s.stxname, c.relname FROM pg_catalog.pg_statistic_ext AS s
            JOIN pg_catalog.pg_class AS c ON c.oid = s.stxrelid WHERE c.relnamespace = control
        UNION ALL SELECT 'inheritance', i.inhrelid::pg_catalog.regclass::text, c.relname FROM pg_catalog.pg_inherits AS i
            JOIN pg_catalog.pg_class AS c ON c.oid IN (i.inhparent, i.inhrelid) WHERE c.relnamespace = control
        UNION ALL SELECT 'relation', c.relname, c.relname FROM pg_catalog.pg_class AS c WHERE c.relnamespace = control
            AND (c.relkind NOT IN ('r', 'v', 'i', 'S', 'c') OR c.relkind = 'v' AND NOT pg_catalog.starts_with(c.relname, 'key_map_'))
        UNION ALL SELECT 'column', a.attname, c.relname FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
            JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
            WHERE c.relnamespace = control AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
                AND (t.typtype = 'd' OR t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace AND NOT pg_catalog.starts_with(c.relname, 'mapping_'))
    ) AS o ORDER BY 1, 2 LIMIT 1;
    IF found.kind IS NOT NULL THEN
        RAISE EXCEPTION 'the % "%" of "delta.%" is not of this program', found.kind, found.name, found.place
            USING ERRCODE = 'DP002', HINT = 'drop it: it could run code when a run or a setup writes; nothing was changed';
    END IF;
END
$setup$;
