-- Refuses a block of keys that is larger than the run announced at its start, or than the policy allows. A run has one block per table.
CREATE OR REPLACE FUNCTION delta.allow_block(of_run text, known delta.loaded_table, count bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    announced bigint;
    largest bigint := (SELECT p.max_key_block FROM delta.policy AS p ORDER BY p.number DESC LIMIT 1);
BEGIN
    IF count IS NULL OR count < 1 THEN
        RAISE EXCEPTION 'a block has at least one key, not %', count USING ERRCODE = 'DP001';
    END IF;
    -- An older snapshot would show an outdated ledger. Sessions that reserve for one run are serialized.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'keys are reserved in READ COMMITTED alone' USING ERRCODE = 'DP001';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(of_run || ' ' || known.relation, 7305516414));
    IF EXISTS (SELECT FROM delta.block AS b WHERE b.run = of_run AND b.table_name = known.relation) THEN
        RAISE EXCEPTION 'run % has its keys of "%" already', of_run, known.table_name USING ERRCODE = 'DP001';
    END IF;
    IF count > largest THEN
        RAISE EXCEPTION '% keys are more than the % that this target allows in one block', count, largest
            USING ERRCODE = 'DP001', HINT = 'the operator can allow more: `pipeline policy set FILE --max-key-block N`';
    END IF;
    SELECT sum((t.stated ->> 'rows')::bigint) INTO announced FROM delta.event AS e
        CROSS JOIN LATERAL jsonb_array_elements(e.entry::jsonb #> '{event,started,tables}') AS t (stated)
        WHERE e.run = of_run AND e.number = 1 AND e.login = session_user AND t.stated ->> 'table' = known.relation
            AND NOT EXISTS (SELECT FROM delta.event AS o WHERE o.run = of_run AND o.kind IN ('committed', 'abandoned', 'rolled_back'));
    IF count > coalesce(announced, 0) THEN
        RAISE EXCEPTION '% keys of "%" are more than run % announced', count, known.table_name, of_run
            USING ERRCODE = 'DP001', HINT = 'a run reserves as many keys as it has accepted rows';
    END IF;
END
$function$;

-- Returns whether the keys of a table are numbers that come from no sequence.
CREATE OR REPLACE FUNCTION delta.has_numbers(known delta.loaded_table) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
    SELECT known.sequence_name IS NULL AND EXISTS (
        SELECT FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid AND t.typcategory = 'N'
        WHERE a.attrelid = format('delta.%I', known.mappings)::regclass AND a.attname = known.key_column AND NOT a.attisdropped)
$function$;

-- Returns the largest key of a table whose keys come from no sequence: in production, in a block, or in a key map. Keys that are texts have
-- a number of `digits` behind `prefix`.
CREATE OR REPLACE FUNCTION delta.largest_key(known delta.loaded_table, prefix text, digits integer) RETURNS numeric
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    live regclass := delta.live_table(known);
    last numeric;
BEGIN
    IF delta.has_numbers(known) THEN
        EXECUTE format('SELECT max(p.%I)::numeric FROM %s AS p', known.key_column, live) INTO last;
    ELSIF digits BETWEEN 1 AND 100 THEN
        EXECUTE format(
            'SELECT substr(p.%1$I, %2$s)::numeric FROM %3$s AS p
             WHERE p.%1$I BETWEEN %4$L AND %5$L AND left(p.%1$I, %2$s - 1) = %6$L AND substr(p.%1$I, %2$s) ~ ''^[0-9]+$''
             ORDER BY p.%1$I DESC LIMIT 1',
            known.key_column, length(prefix) + 1, live, prefix || repeat('0', digits), prefix || repeat('9', digits), prefix) INTO last;
    END IF;
    RETURN greatest(last, (SELECT max(b.last) FROM delta.block AS b WHERE b.table_name = known.relation),
        (SELECT max(s.last_key) FROM delta.segment AS s JOIN delta.loaded_table AS l ON l.table_name = s.table_name WHERE l.relation = known.relation), 0);
END
$function$;

-- Refuses a key so far beyond the last one that a block of the largest size would not reach it: it would use up the keys between.
CREATE OR REPLACE FUNCTION delta.refuse_far_key(known delta.loaded_table, key numeric, prefix text DEFAULT '', digits integer DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    last numeric := delta.largest_key(known, prefix, digits);
BEGIN
    IF key > last + (SELECT p.max_key_block FROM delta.policy AS p ORDER BY p.number DESC LIMIT 1) THEN
        RAISE EXCEPTION 'key % of "%" would skip % keys, and this target does not allow that many', key, known.table_name, key - last - 1
            USING ERRCODE = 'DP001', HINT = 'set `start_row_number: auto`, or have the operator allow more: `pipeline policy set FILE --max-key-block N`';
    END IF;
END
$function$;

-- Reserves a block of keys from a table's sequence: `count` keys from `start` on, or the next ones. No other session gets a number
-- meanwhile. `dense`: keys between two numbers of the sequence are used, because other programs use each number for a block of keys. Keys
-- that are texts have a number of `digits` behind `prefix`.
DROP FUNCTION IF EXISTS delta.reserve(text, text, bigint, bigint);
DROP FUNCTION IF EXISTS delta.reserve(text, text, bigint, bigint, boolean);
CREATE OR REPLACE FUNCTION delta.reserve(of_run text, of_table text, start bigint, count bigint, dense boolean DEFAULT false, prefix text DEFAULT '',
    digits integer DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    live regclass;
    sequence regclass;
    rules pg_catalog.pg_sequence;
    sign integer;
    step numeric;
    free numeric;
    low numeric;
    high numeric;
    numbers numeric;
    last_number numeric;
    ends numeric;
    extreme numeric;
    first_key numeric;
    last_key numeric;
    is_indexed boolean;
    beyond delta.block;
BEGIN
    known := delta.loaded(of_table);
    PERFORM delta.allow_block(of_run, known, count);
    live := delta.live_table(known);
    sequence := format('%I.%I', known.sequence_schema, known.sequence_name)::regclass;
    SELECT * INTO STRICT rules FROM pg_sequence WHERE seqrelid = sequence;
    EXECUTE format('ALTER SEQUENCE %s CACHE %s', sequence, rules.seqcache);
    sign := sign(rules.seqincrement::numeric);
    step := abs(rules.seqincrement::numeric);
    ends := sign * CASE WHEN sign > 0 THEN rules.seqmax ELSE rules.seqmin END::numeric;
    -- Numbers as a sequence that counts upwards has them.
    EXECUTE format('SELECT $1 * last_value::numeric + CASE WHEN is_called THEN $2 ELSE 0 END FROM %s', sequence) INTO free USING sign, step;
    low := CASE WHEN start IS NULL THEN free WHEN sign > 0 THEN start::numeric ELSE -(start::numeric + count - 1) END;
    high := CASE WHEN start IS NOT NULL OR dense THEN low + count - 1 ELSE low + (count - 1) * step END;
    first_key := CASE WHEN sign > 0 THEN low ELSE -high END;
    last_key := CASE WHEN sign > 0 THEN high ELSE -low END;
    IF start IS NULL THEN
        -- Without an index, the table would be read while other sessions wait for numbers. Its primary key has further columns then.
        SELECT bool_or((i.indkey::int2[])[0] = a.attnum) INTO is_indexed FROM pg_attribute AS a
            JOIN pg_index AS i ON i.indrelid = a.attrelid AND i.indisvalid AND i.indpred IS NULL
            WHERE a.attrelid = live AND a.attname = known.key_column;
        IF is_indexed AND digits BETWEEN 1 AND 100 THEN
            EXECUTE format(
                'SELECT $1 * substr(p.%1$I, %2$s)::numeric FROM %3$s AS p
                 WHERE p.%1$I BETWEEN %4$L AND %5$L AND left(p.%1$I, %2$s - 1) = %6$L AND substr(p.%1$I, %2$s) ~ ''^[0-9]{%7$s}$''
                 ORDER BY p.%1$I %8$s LIMIT 1',
                known.key_column, length(prefix) + 1, live, prefix || repeat('0', digits), prefix || repeat('9', digits), prefix, digits,
                CASE WHEN sign > 0 THEN 'DESC' ELSE 'ASC' END)
                INTO extreme USING sign;
        ELSIF is_indexed THEN
            EXECUTE format('SELECT $1 * %s(%I)::numeric FROM %s', CASE WHEN sign > 0 THEN 'max' ELSE 'min' END, known.key_column, live)
                INTO extreme USING sign;
        END IF;
        IF extreme >= free THEN
            RAISE EXCEPTION 'the sequence % would give % next, and key % is taken', sequence, sign * free, sign * extreme
                USING ERRCODE = 'DP001', HINT = format('set it behind the last key: SELECT setval(%L, %s)', sequence, sign * extreme);
        END IF;
        SELECT * INTO beyond FROM delta.block AS b
            WHERE b.table_name = known.relation AND sign * CASE WHEN sign > 0 THEN b.last ELSE b.first END::numeric >= free ORDER BY b.first LIMIT 1;
        IF beyond.run IS NOT NULL THEN
            RAISE EXCEPTION 'the sequence % would give % next, and run % has reserved the keys % to %', sequence, sign * free, beyond.run, beyond.first, beyond.last
                USING ERRCODE = 'DP001', HINT = format(
                    'the sequence was set back, or the run reserved keys before the table had it: `pipeline runs FILE %s` shows the run', beyond.run);
        END IF;
    END IF;
    IF high > free - step THEN
        IF low < free THEN
            RAISE EXCEPTION 'the keys % to % reach over %, which the sequence % gives next', first_key, last_key, sign * free, sequence
                USING ERRCODE = 'DP001', HINT = 'set `start_row_number: auto`';
        END IF;
        numbers := ceil((high - free) / step) + 1;
        last_number := free + (numbers - 1) * step;
        -- Skipped numbers are used up as well.
        IF numbers > (SELECT p.max_key_block FROM delta.policy AS p ORDER BY p.number DESC LIMIT 1) THEN
            RAISE EXCEPTION 'keys from % on would skip % numbers of the sequence %, and this target does not allow that many', first_key,
                numbers - count, sequence
                USING ERRCODE = 'DP001', HINT = 'set `start_row_number: auto`, or have the operator allow more: `pipeline policy set FILE --max-key-block N`';
        END IF;
        IF last_number > ends THEN
            RAISE EXCEPTION 'the sequence % ends at %, and % of its numbers from % on are needed', sequence, sign * ends, numbers, sign * free
                USING ERRCODE = 'DP001', HINT = 'give the sequence a larger MAXVALUE';
        END IF;
        PERFORM setval(sequence, (sign * last_number)::bigint);
    END IF;
    INSERT INTO delta.block (table_name, first, last, run) VALUES (known.relation, first_key::bigint, last_key::bigint, of_run);
    RETURN first_key::bigint;
END
$function$;

-- Records a block of keys that comes from no sequence. Keys that are texts have a number of `digits` behind `prefix`.
CREATE OR REPLACE FUNCTION delta.record_block(of_run text, of_table text, first_key bigint, count bigint, prefix text DEFAULT '', digits integer DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table := delta.loaded(of_table);
BEGIN
    IF known.sequence_name IS NOT NULL OR known.key_column IS NULL THEN
        RAISE EXCEPTION 'the keys of "%" come from a sequence, or are not assigned', of_table USING ERRCODE = 'DP001';
    END IF;
    PERFORM delta.allow_block(of_run, known, count);
    PERFORM delta.refuse_far_key(known, first_key, prefix, digits);
    INSERT INTO delta.block (table_name, first, last, run) VALUES (known.relation, first_key, first_key + count - 1, of_run);
END
$function$;
