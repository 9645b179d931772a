-- A single message to the server, so one transaction and one snapshot. Names outside the system's schema are qualified, and literals have
-- one notation, whatever the session's settings are. Columns that only some server versions have are read as JSON.

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL standard_conforming_strings = on;
SET LOCAL quote_all_identifiers = off;
SET LOCAL datestyle = ISO;
SET LOCAL intervalstyle = postgres;
SET LOCAL timezone = UTC;
SET LOCAL bytea_output = hex;
-- Compiling would take longer than the queries.
SET LOCAL jit = off;

-- tables
WITH RECURSIVE {wanted}
SELECT c.oid, n.nspname AS schema, c.relname AS name, n.nspname = {schema} AND NOT c.relispartition AS own,
       row_security_active(c.oid) AS row_security, CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END AS partitioned,
       CASE WHEN c.relkind = 'p' THEN (
           SELECT coalesce(string_agg(coalesce(pg_get_partition_constraintdef(l.relid), 'true'), ' OR ' ORDER BY l.relid), 'false')
           FROM pg_partition_tree(c.oid) l WHERE l.isleaf AND l.relid <> c.oid)
       END AS partitions,
       EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND (p.partdefid <> 0 OR p.partstrat = 'h')) AS takes_all
FROM wanted w JOIN pg_class c ON c.oid = w.oid JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY c.relname, n.nspname;

-- children
WITH RECURSIVE {wanted}
SELECT e.root AS "table", n.nspname AS schema, c.relname AS name, c.relkind = 'f' AS is_foreign, true AS is_partition
FROM every e JOIN pg_class c ON c.oid = e.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE e.part IS NOT NULL
UNION ALL
SELECT w.oid, n.nspname, c.relname, c.relkind = 'f', false
FROM wanted w JOIN pg_inherits i ON i.inhparent = w.oid JOIN pg_class c ON c.oid = i.inhrelid AND NOT c.relispartition
     JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY 1, 2, 3;

-- columns
WITH RECURSIVE {wanted}, home AS MATERIALIZED (
    SELECT d.encoding <> 0 AND NOT coalesce(concat_ws(' ', d.datctype, to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale')
               ~* '(^| )(tr|az)([-_.]|$)', false) AS plain, d.encoding <> 0 AS encoded
    FROM pg_database d WHERE d.datname = current_database()
), collations AS MATERIALIZED (
    SELECT k.oid, CASE WHEN k.collprovider = 'd' THEN h.plain ELSE h.encoded AND k.collisdeterministic AND
               NOT concat_ws(' ', k.collctype, to_jsonb(k) ->> 'colliculocale', to_jsonb(k) ->> 'colllocale') ~* '(^| )(tr|az)([-_.]|$)'
           END AS plain
    FROM pg_collation k, home h
)
SELECT a.attrelid AS "table", a.attnum AS number, a.attname AS name, a.atttypid AS type, a.atttypmod AS modifier,
       format_type(a.atttypid, a.atttypmod) AS declared, a.attnotnull AS not_null, a.attgenerated <> '' AS is_generated,
       a.attidentity AS identity, a.atthasdef AND a.attgenerated = '' AS has_default, d.expr AS default_expr, CASE WHEN a.attgenerated <> '' THEN pg_get_expr(f.adbin, f.adrelid) END AS generated_expr,
       format_type(a.atttypid, -1) AS unlimited,
       (SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
        FROM pg_opclass oc JOIN pg_am m ON m.oid = oc.opcmethod AND m.amname = 'btree'
             JOIN pg_amop am ON am.amopfamily = oc.opcfamily AND am.amoplefttype = oc.opcintype AND am.amoprighttype = oc.opcintype AND am.amopstrategy = 3
             JOIN pg_operator o ON o.oid = am.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
        WHERE oc.opcdefault AND oc.opcintype = a.atttypid AND n.nspname <> 'pg_catalog') AS equals, coalesce(k.plain, true) AS plain,
       (SELECT format('%I.%I', n.nspname, c.collname) FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
        WHERE c.oid = a.attcollation AND c.collprovider <> 'd') AS collation
FROM wanted w JOIN pg_attribute a ON a.attrelid = w.oid LEFT JOIN collations k ON k.oid = a.attcollation
     LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum LEFT JOIN pg_type t ON t.oid = a.atttypid AND t.typtype = 'd'
     CROSS JOIN LATERAL (SELECT CASE WHEN a.attgenerated = ''
                                THEN coalesce(pg_get_expr(f.adbin, f.adrelid), pg_get_expr(t.typdefaultbin, 0)) END) d (expr)
WHERE a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum;

-- sequences: that of a plain default first, then one that the column owns
WITH RECURSIVE {wanted}, fed AS (
    SELECT f.adrelid AS "table", f.adnum AS number, d.refobjid AS sequence, 1 AS rank
    FROM wanted w JOIN pg_attrdef f ON f.adrelid = w.oid
         JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
         JOIN pg_sequence s ON s.seqrelid = d.refobjid
    WHERE pg_get_expr(f.adbin, f.adrelid) ~ '^nextval[(]''([^'']|'''')*''::regclass[)]$'
    UNION ALL
    SELECT d.refobjid, d.refobjsubid, d.objid, 2
    FROM wanted w JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = w.oid AND d.refobjsubid > 0
    WHERE d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
)
SELECT DISTINCT ON (f."table", f.number) f."table", f.number, n.nspname AS schema, c.relname AS name,
       s.seqincrement AS increment, s.seqmin AS min, s.seqmax AS max, s.seqcycle AS cycle, s.seqcache AS cache
FROM fed f JOIN pg_sequence s ON s.seqrelid = f.sequence JOIN pg_class c ON c.oid = f.sequence
     JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY f."table", f.number, f.rank, f.sequence;

-- types
WITH RECURSIVE {wanted}, {used}
SELECT t.oid, n.nspname = 'pg_catalog' AS builtin, t.typname AS name, t.typtype AS kind, t.typbasetype AS base,
       t.typtypmod AS modifier, CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END AS element,
       (SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)) AS bound,
       (SELECT string_agg(format('%s %s', a.atttypid, a.atttypmod), ',' ORDER BY a.attnum) FROM pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       t.typnotnull AS not_null, t.typtype = 'd' AND t.typdefault IS NOT NULL AS has_default,
       format_type(t.typbasetype, t.typtypmod) AS base_declared, format_type(t.typbasetype, -1) AS base_unlimited
FROM used u JOIN pg_type t ON t.oid = u.oid JOIN pg_namespace n ON n.oid = t.typnamespace;

-- schemas of the types of each table's columns
WITH RECURSIVE {wanted}, typed ("table", oid) AS (
    SELECT a.attrelid, a.atttypid FROM wanted w JOIN pg_attribute a ON a.attrelid = w.oid WHERE a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT x."table", y.oid FROM typed x JOIN pg_type t ON t.oid = x.oid
    CROSS JOIN LATERAL (VALUES (t.typbasetype), (CASE WHEN t.typcategory = 'A' THEN t.typelem END)) y (oid) WHERE y.oid <> 0
)
SELECT DISTINCT t."table", n.nspname AS schema FROM typed t JOIN pg_type p ON p.oid = t.oid JOIN pg_namespace n ON n.oid = p.typnamespace
WHERE n.nspname <> 'pg_catalog'
ORDER BY 1, 2;

-- labels of enums
WITH RECURSIVE {wanted}, {used}
SELECT e.enumtypid AS type, e.enumlabel AS label
FROM used u JOIN pg_enum e ON e.enumtypid = u.oid
ORDER BY e.enumtypid, e.enumsortorder;

-- checks of domains
WITH RECURSIVE {wanted}, {used}
SELECT k.contypid AS type, k.conname AS name, k.convalidated AS validated, pg_get_expr(k.conbin, 0) AS expr
FROM used u JOIN pg_constraint k ON k.contypid = u.oid AND k.contype = 'c'
WHERE coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
ORDER BY k.contypid, k.conname;

-- constraints that are not indexes
WITH RECURSIVE {wanted}
SELECT e.root AS "table", e.part, k.conname AS name, CASE WHEN t.period THEN 'x' ELSE k.contype END AS kind, k.convalidated AS validated,
       -- A partition may have its columns at other positions.
       CASE WHEN e.part IS NULL THEN array_to_string(k.conkey, ' ') ELSE (
           SELECT string_agg(r.attnum::text, ' ' ORDER BY x.at) FROM unnest(k.conkey) WITH ORDINALITY x (number, at)
           JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.number
           JOIN pg_attribute r ON r.attrelid = e.root AND r.attname = a.attname AND NOT r.attisdropped) END AS columns,
       k.confrelid AS "to", array_to_string(k.confkey, ' ') AS to_columns,
       k.confmatchtype = 'f' AS is_full, k.condeferrable AS deferrable, CASE WHEN k.contype = 'c' THEN pg_get_expr(k.conbin, k.conrelid) END AS expr,
       pg_get_constraintdef(k.oid) AS definition, CASE WHEN e.part IS NOT NULL THEN pg_get_partition_constraintdef(e.oid) END AS part_condition,
       m.amname AS method, pg_get_expr(i.indpred, i.indrelid) AS predicate,
       CASE WHEN i.indexrelid IS NOT NULL THEN (
           SELECT json_agg(json_build_object('sql', pg_get_indexdef(i.indexrelid, x.at, false), 'number', i.indkey[x.at - 1],
                                             'operator', (SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
                                                          FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid = k.conexclop[x.at]))
                           ORDER BY x.at)
           FROM generate_series(1, i.indnkeyatts) x (at)) END AS compared,
       (SELECT json_agg(format('OPERATOR(%I.%s)', n.nspname, o.oprname) ORDER BY x.at)
        FROM unnest(k.conpfeqop) WITH ORDINALITY x (operator, at) JOIN pg_operator o ON o.oid = x.operator
             JOIN pg_namespace n ON n.oid = o.oprnamespace) AS operators,
       -- Only in these expressions does the server print an operator of another schema without that schema.
       k.contype = 'c' AND pg_get_expr(k.conbin, k.conrelid) ~ 'IS DISTINCT FROM|NULLIF[(]|CASE [^W]|ROW[(]'
           AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
                           AND d.refclassid = 'pg_operator'::regclass) AS ambiguous
FROM every e JOIN pg_constraint k ON k.conrelid = e.oid
     CROSS JOIN LATERAL (SELECT coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false),
                                coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)) t (period, enforced)
     LEFT JOIN pg_index i ON i.indexrelid = k.conindid AND k.conexclop IS NOT NULL
     LEFT JOIN pg_class ic ON ic.oid = i.indexrelid LEFT JOIN pg_am m ON m.oid = ic.relam
WHERE (k.contype IN ('c', 'f', 'x') OR k.contype IN ('p', 'u') AND t.period) AND t.enforced AND NOT (e.part IS NOT NULL AND (k.coninhcount > 0 OR k.conparentid <> 0))
      -- A reference to a partitioned table is listed again for each of its partitions.
      AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)
ORDER BY e.root, e.part NULLS FIRST, k.conname, k.oid;

-- indexes that are unique or invalid
WITH RECURSIVE {wanted}
SELECT e.root AS "table", e.part, c.relname AS name, i.indisunique AS is_unique, i.indisprimary AS is_primary,
       i.indisvalid AND i.indisready AS valid, i.indkey AS columns, i.indnkeyatts AS keys,
       EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid) AS attached,
       pg_get_expr(i.indpred, i.indrelid) AS predicate, pg_get_indexdef(i.indexrelid) AS definition,
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_not_distinct,
       CASE WHEN e.part IS NOT NULL THEN pg_get_partition_constraintdef(e.oid) END AS part_condition,
       (SELECT json_agg(json_build_object(
                   'sql', pg_get_indexdef(i.indexrelid, x.at, false)
                          || coalesce((SELECT format(' COLLATE %I.%I', n.nspname, l.collname) FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
                                       WHERE l.oid = i.indcollation[x.at - 1] AND l.collprovider <> 'd'), ''),
                   'number', i.indkey[x.at - 1],
                   'operator', (SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
                                FROM pg_opclass oc JOIN pg_amop am ON am.amopfamily = oc.opcfamily AND am.amoplefttype = oc.opcintype
                                     AND am.amoprighttype = oc.opcintype AND am.amopstrategy = 3
                                     JOIN pg_operator o ON o.oid = am.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
                                WHERE oc.oid = i.indclass[x.at - 1])) ORDER BY x.at)
        FROM generate_series(1, i.indnkeyatts) x (at)) AS compared,
       NOT i.indcollation::oid[] && ARRAY(SELECT oid FROM pg_collation WHERE NOT collisdeterministic)
       AND NOT i.indclass::oid[] && ARRAY(SELECT oid FROM pg_opclass WHERE opcnamespace <> 'pg_catalog'::regnamespace) AS plain
FROM every e JOIN pg_index i ON i.indrelid = e.oid JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indislive AND (i.indisunique AND NOT i.indisexclusion OR NOT (i.indisvalid AND i.indisready))
ORDER BY e.root, e.part NULLS FIRST, c.relname;

-- triggers
WITH RECURSIVE {wanted}
SELECT e.root AS "table", t.tgname AS name, bool_or(t.tgtype & 3 = 3) AS decides
FROM every e JOIN pg_trigger t ON t.tgrelid = e.oid
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 4 <> 0
GROUP BY e.root, t.tgname
ORDER BY e.root, t.tgname;

-- rules
WITH RECURSIVE {wanted}
SELECT r.ev_class AS "table", r.rulename AS name, pg_get_ruledef(r.oid) AS definition
FROM wanted w JOIN pg_rewrite r ON r.ev_class = w.oid
WHERE r.ev_type = '3' AND r.ev_enabled <> 'D'
ORDER BY r.ev_class, r.rulename;

-- sequences of the database
SELECT n.nspname AS schema, c.relname AS name, s.seqincrement AS increment, s.seqmin AS min, s.seqmax AS max, s.seqcycle AS cycle,
       s.seqcache AS cache
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT pg_is_other_temp_schema(n.oid)
ORDER BY n.nspname, c.relname;
