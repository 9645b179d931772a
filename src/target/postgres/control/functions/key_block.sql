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

-- Reserves a block of keys from a table's own sequence. No other session gets a number meanwhile.
CREATE OR REPLACE FUNCTION delta.reserve(of_run text, of_table text, start bigint, count bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
    live regclass;
    sequence regclass;
    rules pg_catalog.pg_sequence;
    free bigint;
    first_key bigint;
    highest bigint;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    PERFORM delta.allow_block(of_run, known, count);
    live := delta.live_table(known);
    sequence := format('%I.%I', known.sequence_schema, known.sequence_name)::regclass;
    SELECT * INTO STRICT rules FROM pg_sequence WHERE seqrelid = sequence;
    EXECUTE format('ALTER SEQUENCE %s CACHE %s', sequence, rules.seqcache);
    EXECUTE format('SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END FROM %s', sequence) INTO free;
    first_key := coalesce(start, free);
    IF rules.seqincrement <> 1 OR rules.seqcycle THEN
        RAISE EXCEPTION 'the sequence % counts by % or begins again at its end', sequence, rules.seqincrement
            USING ERRCODE = 'DP001', HINT = 'keys are dense: give the table `start_row_number` with a number that its sequence never reaches';
    END IF;
    EXECUTE format('SELECT max(%I) FROM %s', known.key_column, live) INTO highest;
    SELECT greatest(highest, max(block.last)) INTO highest FROM delta.block WHERE block.table_name = known.relation;
    IF start IS NULL AND highest >= free THEN
        RAISE EXCEPTION 'the sequence % would give % next, and key % is taken', sequence, free, highest
            USING ERRCODE = 'DP001', HINT = format('set it behind the last key: SELECT setval(%L, %s)', sequence, highest);
    END IF;
    IF first_key < free AND first_key + count > free THEN
        RAISE EXCEPTION 'the keys % to % reach over %, which the sequence % gives next', first_key, first_key + count - 1, free, sequence
            USING ERRCODE = 'DP001', HINT = 'set `start_row_number: auto`';
    END IF;
    IF first_key >= free THEN
        -- Skipped numbers are used up as well.
        IF first_key - free > (SELECT p.max_key_block FROM delta.policy AS p ORDER BY p.number DESC LIMIT 1) - count THEN
            RAISE EXCEPTION 'keys from % on would skip % numbers of the sequence %, and this target does not allow that many', first_key,
                first_key - free, sequence
                USING ERRCODE = 'DP001', HINT = 'set `start_row_number: auto`, or have the operator allow more: `pipeline policy set FILE --max-key-block N`';
        END IF;
        IF count > rules.seqmax - first_key + 1 THEN
            RAISE EXCEPTION 'the sequence % ends at %, and % keys from % on are needed', sequence, rules.seqmax, count, first_key
                USING ERRCODE = 'DP001', HINT = 'give the sequence a larger MAXVALUE';
        END IF;
        PERFORM setval(sequence, first_key + count - 1);
    END IF;
    INSERT INTO delta.block (table_name, first, last, run) VALUES (known.relation, first_key, first_key + count - 1, of_run);
    RETURN first_key;
END
$function$;

-- Records a block of keys that comes from no sequence.
CREATE OR REPLACE FUNCTION delta.record_block(of_run text, of_table text, first_key bigint, count bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    known delta.loaded_table;
BEGIN
    SELECT * INTO STRICT known FROM delta.loaded_table AS loaded WHERE loaded.table_name = of_table;
    IF known.sequence_name IS NOT NULL THEN
        RAISE EXCEPTION 'the keys of "%" come from a sequence', of_table USING ERRCODE = 'DP001';
    END IF;
    PERFORM delta.allow_block(of_run, known, count);
    INSERT INTO delta.block (table_name, first, last, run) VALUES (known.relation, first_key, first_key + count - 1, of_run);
END
$function$;
