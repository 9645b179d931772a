//! What a caller says: runs, entries, keys, and names that are not what they seem, and what a role may not write by itself.

use super::world::{Attack, By, World};

const RUN: &str = "20990101T000000-0001";
/// A run that another login was interrupted in.
const OTHER: &str = "20990101T000000-aaaa";

/// Files of a run are not compared with those that it began with.
const ANY_FILES: &str = "SELECT kit.edit('record_run', 'IF EXISTS (SELECT FROM unnest(hashes, tables)', 'IF false AND EXISTS (SELECT FROM unnest(hashes, tables)')";

/// An attack that a line of a function stops.
pub fn stopped_by(name: &str, strike: &[&str], function: &str, old: &str, new: &str) -> Attack {
    let edit = |text: &str| text.replace('\'', "''");
    let strike: Vec<_> = strike.iter().map(|sql| sql.replace("RUN", RUN).replace("OTHER", OTHER)).collect();
    let strike: Vec<_> = strike.iter().map(String::as_str).collect();
    Attack::new(name, &strike).opened(&[&format!("SELECT kit.edit('{function}', '{}', '{}')", edit(old), edit(new))])
}

/// Whether the journal of a run has an entry.
fn has_entry(run: &str, what: &str) -> String {
    format!("SELECT count(*) > 0 FROM delta.event AS e WHERE e.run = {run} AND {what}")
}

#[test]
fn a_journal_takes_the_next_entry_of_its_own_run_alone() {
    let attacks = [
        stopped_by(
            "an entry of the run of another login",
            &["SELECT kit.append('OTHER', 2, 'staged')"],
            "append_event",
            "session_user <> (SELECT e.login FROM delta.event AS e WHERE e.run = of_run AND e.number = 1)",
            "false",
        )
        .won(&has_entry("'20990101T000000-aaaa'", "e.number = 2")),
        stopped_by(
            "an entry far behind the last one",
            &["SELECT kit.start('RUN', 1)", "SELECT kit.append('RUN', 99, 'staged')"],
            "append_event",
            "of_number <> coalesce(last.number, 0) + 1",
            "false",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.number = 99")),
        stopped_by(
            "the loader says that its run was rolled back, so that its files load again",
            &["SELECT kit.append(kit.loaded(), kit.next(kit.loaded()), 'rolled_back', '{\"rolled_back\":{\"rows\":0}}')"],
            "append_event",
            "IF NOT fits THEN",
            "IF false THEN",
        )
        .won(&has_entry("kit.loaded()", "e.kind = 'rolled_back'")),
        stopped_by(
            "the same of a run that has not ended",
            &["SELECT kit.start('RUN', 1)", "SELECT kit.append('RUN', 2, 'rolled_back', '{\"rolled_back\":{\"rows\":0}}')"],
            "append_event",
            "'resumed', 'failed')",
            "'resumed', 'failed', 'rolled_back')",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.kind = 'rolled_back'")),
        stopped_by(
            "a second entry of a run's start, that announces more",
            &["SELECT kit.start('RUN', 1)", "SELECT kit.append('RUN', 2, 'started', '{\"started\":{\"pipeline\":\"small\",\"tables\":[]}}')"],
            "append_event",
            "'resumed', 'failed')",
            "'resumed', 'failed', 'started')",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.number = 2")),
        stopped_by(
            "a run that starts with its end",
            &["SELECT kit.append('RUN', 1, 'staged')"],
            "append_event",
            "WHEN last.kind IS NULL THEN of_kind = 'started' AND",
            "WHEN last.kind IS NULL THEN of_kind = 'staged' OR",
        )
        .won(&has_entry("'20990101T000000-0001'", "true")),
        stopped_by(
            "a commit without rows",
            &["SELECT kit.start('RUN', 1)", "SELECT kit.append('RUN', 2, 'committed')"],
            "append_event",
            "SELECT FROM delta.run AS r WHERE r.id = of_run AND r.transaction = pg_current_xact_id()::text",
            "SELECT",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.kind = 'committed'")),
        stopped_by(
            "a run in production is abandoned, so that its files load again",
            &[
                "SELECT kit.start('RUN', 1)",
                "SELECT delta.record_run('RUN', 'small', 'now', '{}', '{h}', '{public.item}', '{f}')",
                "SELECT kit.append('RUN', 2, 'abandoned')",
            ],
            "append_event",
            "NOT EXISTS (SELECT FROM delta.run AS r WHERE r.id = of_run)",
            "true",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.kind = 'abandoned'")),
        stopped_by(
            "an ended run goes on",
            &["SELECT kit.start('RUN', 1)", "SELECT kit.append('RUN', 2, 'abandoned')", "SELECT kit.append('RUN', 3, 'resumed')"],
            "append_event",
            "WHEN last.kind IN ('abandoned', 'rolled_back', 'verified') THEN false",
            "WHEN false THEN false",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.number = 3")),
        stopped_by(
            "an entry that tells of another run",
            &["SELECT kit.start('RUN', 1)", "SELECT delta.append_event('RUN', 2, 'staged', kit.entry('x', 2, '\"staged\"'), repeat('0', 64))"],
            "append_event",
            "parsed ->> 'run' = of_run",
            "true",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.number = 2")),
        stopped_by(
            "an entry in a format that this program does not know, which stops the pipeline",
            &["SELECT delta.append_event('RUN', 1, 'started', \
               replace(kit.entry('RUN', 1, '{\"started\":{\"pipeline\":\"small\",\"tables\":[]}}'), '\"version\": 1', '\"version\": 2'), repeat('0', 64))"],
            "append_event",
            "(parsed ->> 'version')::integer BETWEEN 1 AND 1",
            "true",
        )
        .won(&has_entry("'20990101T000000-0001'", "true")),
        stopped_by(
            "a run under the id of one that another login has recorded",
            &["SELECT kit.start('RUN', 1)"],
            "append_event",
            "AND NOT EXISTS (SELECT FROM delta.segment AS s WHERE s.run = of_run AND s.login <> session_user)",
            "",
        )
        .given(&["INSERT INTO delta.segment (table_name, run, rows, login) VALUES ('public.note', '20990101T000000-0001', 1, '<day>')"])
        .won(&has_entry("'20990101T000000-0001'", "true")),
        stopped_by(
            "an entry whose kind is not what it tells",
            &["SELECT kit.start('RUN', 1)", "SELECT kit.append('RUN', 2, 'staged', '{\"rolled_back\":{\"rows\":0}}')"],
            "append_event",
            "of_kind = CASE",
            "'' <> CASE",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.number = 2")),
        stopped_by(
            "an entry that tells two things",
            &["SELECT kit.start('RUN', 1)", "SELECT kit.append('RUN', 2, 'failed', '{\"failed\":{\"reason\":\"x\"},\"rolled_back\":{\"rows\":0}}')"],
            "append_event",
            "HAVING count(*) = 1",
            "",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.number = 2")),
        stopped_by(
            "a run whose id could be a path",
            &["SELECT kit.start('../../x', 1)"],
            "append_event",
            "of_run !~ '^[0-9A-Za-z_-]{1,64}$'",
            "false",
        )
        .won(&has_entry("'../../x'", "true")),
        stopped_by(
            "an entry without a chain",
            &["SELECT kit.start('RUN', 1)", "SELECT delta.append_event('RUN', 2, 'staged', kit.entry('RUN', 2, '\"staged\"'), 'x')"],
            "append_event",
            "of_chain !~ '^[0-9a-f]{64}$'",
            "false",
        )
        .won(&has_entry("'20990101T000000-0001'", "e.number = 2")),
    ];
    World::shared().assert_defended(&attacks);
}

#[test]
fn a_run_is_recorded_by_its_login_and_as_it_began() {
    let recorded = |run: &str| format!("SELECT count(*) > 0 FROM delta.run AS r WHERE r.id = '{run}'");
    let attacks = [
        stopped_by(
            "the run of another login is recorded",
            &["SELECT delta.record_run('OTHER', 'small', 'now', '{}', '{h}', '{public.item}', '{f}')"],
            "record_run",
            "first.login IS NOT NULL AND first.login <> session_user",
            "false",
        )
        .won(&recorded(OTHER)),
        stopped_by(
            "files count as loaded by a run that has no journal and cannot be rolled back",
            &["SELECT delta.record_run('RUN', 'small', 'now', '{}', '{h}', '{public.item}', '{f}')"],
            "record_run",
            "first.login IS NULL AND cardinality(hashes) > 0",
            "false",
        )
        .opened(&[
            "SELECT kit.edit('record_run', 'first.login IS NULL AND cardinality(hashes) > 0', 'false')",
            ANY_FILES,
        ])
        .won(&recorded(RUN)),
        stopped_by(
            "files that another login loads next count as loaded",
            &[
                "SELECT kit.start('RUN', 1)",
                "SELECT delta.record_run('RUN', 'small', 'now', 'x', '{next}', '{public.item}', '{f}')",
            ],
            "record_run",
            "IF EXISTS (SELECT FROM unnest(hashes, tables)",
            "IF false AND EXISTS (SELECT FROM unnest(hashes, tables)",
        )
        .won(&recorded(RUN)),
        stopped_by(
            "a run passes for one of another pipeline",
            &[
                "SELECT kit.start('RUN', 1)",
                "SELECT delta.record_run('RUN', 'large', 'now', '{}', '{h}', '{public.item}', '{f}')",
            ],
            "record_run",
            "first.entry::jsonb #>> '{event,started,pipeline}' <> of_pipeline",
            "false",
        )
        .won(&recorded(RUN)),
        stopped_by(
            "files of a table that no pipeline loads",
            &[
                "SELECT kit.start('RUN', 1)",
                "SELECT delta.record_run('RUN', 'small', 'now', '{}', '{h}', '{public.audit}', '{f}')",
            ],
            "record_run",
            "NOT EXISTS (SELECT FROM delta.loaded_table AS l WHERE l.relation = t.name)",
            "false",
        )
        .opened(&[
            "SELECT kit.edit('record_run', 'NOT EXISTS (SELECT FROM delta.loaded_table AS l WHERE l.relation = t.name)', 'false')",
            ANY_FILES,
        ])
        .won(&recorded(RUN)),
    ];
    World::shared().assert_defended(&attacks);
}

#[test]
fn a_run_is_recorded_as_the_target_requires() {
    const STRIKE: &[&str] = &[
        "SELECT kit.start('RUN', 1)",
        "SET LOCAL timezone_abbreviations = 'Australia'",
        "SELECT delta.record_run('RUN', 'small', 'now', '{}', '{h}', '{public.item}', '{f}')",
    ];
    const RECORDED: &str = "SELECT count(*) > 0 FROM delta.run AS r WHERE r.id = '20990101T000000-0001'";
    let requires = |what: &str| {
        format!("INSERT INTO delta.policy (conversion_mode, approvals, max_key_block, opening_window) VALUES ({what})")
    };
    // Open now at ten hours before UTC's noon, and not at five behind it: `EST` is the one or the other by a setting of the session.
    let window = requires(
        "false, 0, 5, jsonb_build_object('timezone', 'EST', 'from', to_char(now() AT TIME ZONE 'UTC' + interval '9 hours', 'HH24:MI'),
             'to', to_char(now() AT TIME ZONE 'UTC' + interval '11 hours', 'HH24:MI'))::text",
    );
    let attacks = [
        stopped_by("conversion mode is off", STRIKE, "record_run", "IF required.conversion_mode THEN", "IF false THEN")
            .given(&["UPDATE delta.mode SET ended_at = now()", &requires("true, 0, 5, NULL")]),
        stopped_by("its time is up", STRIKE, "record_run", "period.until <= clock_timestamp()", "false")
            .given(&["UPDATE delta.mode SET until = now()", &requires("true, 0, 5, NULL")]),
        stopped_by("approvals are missing", STRIKE, "record_run", "IF required.approvals > 0 THEN", "IF false THEN")
            .given(&[&requires("false, 2, 5, NULL")]),
        stopped_by(
            "the window is closed, by another meaning of its time zone",
            STRIKE,
            "is_open",
            "SET timezone_abbreviations TO 'Default'",
            "",
        )
        .given(&[&window]),
    ];
    World::shared().assert_defended(&attacks.map(|attack| attack.won(RECORDED)));
}

#[test]
fn a_run_gets_the_keys_that_it_announced_and_the_target_allows() {
    const HAS_BLOCK: &str =
        "SELECT count(*) > 0 FROM delta.block WHERE run IN ('20990101T000000-0001', '20990101T000000-aaaa')";
    let attacks = [
        stopped_by(
            "more keys than announced",
            &["SELECT kit.start('RUN', 10)", "SELECT delta.reserve('RUN', 'public.account', NULL, 11)"],
            "allow_block",
            "count > coalesce(announced, 0)",
            "false",
        )
        .won(HAS_BLOCK),
        stopped_by(
            "the same of a table without a sequence",
            &["SELECT kit.start('RUN', 10)", "SELECT delta.record_block('RUN', 'public.note', 1000, 11)"],
            "allow_block",
            "count > coalesce(announced, 0)",
            "false",
        )
        .won(HAS_BLOCK),
        stopped_by(
            "a second block",
            &[
                "SELECT kit.start('RUN', 10)",
                "SELECT delta.reserve('RUN', 'public.account', NULL, 10)",
                "SELECT delta.reserve('RUN', 'public.account', NULL, 10)",
            ],
            "allow_block",
            "IF EXISTS (SELECT FROM delta.block AS b",
            "IF false AND EXISTS (SELECT FROM delta.block AS b",
        )
        .won("SELECT count(*) > 1 FROM delta.block WHERE run = '20990101T000000-0001'"),
        stopped_by(
            "a block larger than the policy",
            &["SELECT kit.start('RUN', 1001)", "SELECT delta.reserve('RUN', 'public.account', NULL, 1001)"],
            "allow_block",
            "count > largest",
            "false",
        )
        .opened(&[
            "SELECT kit.edit('allow_block', 'count > largest', 'false')",
            "SELECT kit.edit('reserve', 'IF numbers >', 'IF false AND numbers >')",
        ])
        .won(HAS_BLOCK),
        stopped_by(
            "the keys of another login's run",
            &["SELECT delta.reserve('OTHER', 'public.account', NULL, 10)"],
            "allow_block",
            " AND e.login = session_user",
            "",
        )
        .won(HAS_BLOCK),
        stopped_by(
            "keys of a run that has ended",
            &[
                "SELECT kit.start('RUN', 10)",
                "SELECT kit.append('RUN', 2, 'abandoned')",
                "SELECT delta.reserve('RUN', 'public.account', NULL, 10)",
            ],
            "allow_block",
            "o.kind IN ('committed', 'abandoned', 'rolled_back')",
            "false",
        )
        .won(HAS_BLOCK),
        stopped_by(
            "one key at the end of the sequence",
            &["SELECT kit.start('RUN', 1)", "SELECT delta.reserve('RUN', 'public.account', 9223372036854775806, 1)"],
            "reserve",
            "IF numbers >",
            "IF false AND numbers >",
        )
        .won("SELECT last_value > 1000000 FROM public.account_account_id_seq"),
        stopped_by(
            "a block of less than nothing, which sets the sequence back",
            &["SELECT kit.start('RUN', 1)", "SELECT delta.reserve('RUN', 'public.account', NULL, -3)"],
            "allow_block",
            "count IS NULL OR count < 1",
            "false",
        )
        .opened(&[
            "SELECT kit.edit('allow_block', 'count IS NULL OR count < 1', 'false')",
            "SELECT kit.edit('reserve', 'IF high > free - step THEN', 'IF true THEN')",
        ])
        .won("SELECT last_value < 10 FROM public.account_account_id_seq"),
        stopped_by(
            "a block that the sequence knows nothing of",
            &["SELECT kit.start('RUN', 1)", "SELECT delta.record_block('RUN', 'public.account', 500, 1)"],
            "record_block",
            "known.sequence_name IS NOT NULL",
            "false",
        )
        .won(HAS_BLOCK),
        stopped_by(
            "a block at the end of all keys, which uses up those before it",
            &["SELECT kit.start('RUN', 7)", "SELECT delta.record_block('RUN', 'public.note', 9223372036854775800, 7)"],
            "record_block",
            "PERFORM delta.refuse_far_key(known, first_key, prefix, digits);",
            "",
        )
        .won(HAS_BLOCK),
        stopped_by(
            "a block of a table whose keys are not assigned",
            &["SELECT kit.start('RUN', 1)", "SELECT delta.record_block('RUN', 'public.note', 100, 1)"],
            "record_block",
            "OR known.key_column IS NULL",
            "",
        )
        .given(&["UPDATE delta.loaded_table SET key_column = NULL WHERE table_name = 'public.note'"])
        .won(HAS_BLOCK),
    ];
    World::shared().assert_defended(&attacks);
}

#[test]
fn names_and_values_are_not_taken_for_sql() {
    let attacks = [
        stopped_by(
            "SQL as the name of a staged column",
            &["SELECT delta.make_staging('r', 'public.note', \
               ARRAY['x integer); INSERT INTO vault.touched VALUES (''o''); CREATE TABLE staging.z (y'], '{true}', false, false)"],
            "make_staging",
            "format(', %I %s', c.name",
            "format(', %s %s', c.name",
        ),
        stopped_by(
            "SQL as the run of staged rows",
            &["SELECT delta.make_staging('''; INSERT INTO vault.touched VALUES (''o''); --', 'public.note', '{text}', '{true}', false, false)"],
            "make_staging",
            "COMMENT ON TABLE %s IS %L'",
            "COMMENT ON TABLE %s IS ''%s'''",
        ),
        stopped_by(
            "a production table whose name is SQL",
            &["SELECT delta.hold_table('odd')"],
            "hold_table",
            "LOCK TABLE %I.%I IN SHARE",
            "LOCK TABLE \"%s\".\"%s\" IN SHARE",
        )
        .given(&[
            "CREATE TABLE public.\"x\"\" ; INSERT INTO vault.touched VALUES ('o'); --\" (id integer)",
            "ALTER TABLE public.\"x\"\" ; INSERT INTO vault.touched VALUES ('o'); --\" OWNER TO <owner>",
            "CREATE TABLE public.x (); ALTER TABLE public.x OWNER TO <owner>",
            "INSERT INTO delta.loaded_table SELECT (jsonb_populate_record(l, '{\"table_name\": \"odd\", \"relation_name\": \"x\\\" ; INSERT INTO vault.touched VALUES (''o''); --\", \
                \"history\": \"odd_history\", \"mappings\": \"odd_mappings\"}')).* FROM delta.loaded_table AS l WHERE l.table_name = 'public.note'",
        ]),
        stopped_by(
            "a table in staging that is not the program's is made again",
            &["SELECT delta.make_staging('r', 'public.note', '{text}', '{true}', false, false)"],
            "make_staging",
            "NOT starts_with(",
            "NULL = starts_with(",
        )
        .given(&["DROP TABLE IF EXISTS staging.note", "CREATE TABLE staging.note ()", "ALTER TABLE staging.note OWNER TO <owner>", "COMMENT ON TABLE staging.note IS 'the only copy'"])
        .won("SELECT obj_description('staging.note'::regclass, 'pg_class') <> 'the only copy'"),
        Attack::new(
            "a table of the attacker's choice is registered",
            &[
                "INSERT INTO delta.loaded_table SELECT (jsonb_populate_record(l, '{\"table_name\": \"vault\", \"relation_name\": \"touched\", \
                    \"schema_name\": \"vault\", \"history\": \"v_history\", \"mappings\": \"v_mappings\"}')).* FROM delta.loaded_table AS l \
                 WHERE l.table_name = 'public.note'",
                "SELECT delta.hold_table('vault')",
            ],
        )
        .opened(&["GRANT INSERT ON delta.loaded_table TO <night>"])
        .won("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'vault.touched'::regclass AND mode = 'ShareRowExclusiveLock'"),
        stopped_by(
            "rows of a table that no pipeline refers to are locked",
            &["SELECT FROM delta.lock_references('public', 'audit', '{what}', '{x}', NULL)"],
            "lock_references",
            "owner_then IS NULL OR",
            "",
        )
        .opened(&[
            "SELECT kit.edit('lock_references', 'owner_then IS NULL OR', '')",
            "SELECT kit.edit('lock_references', 'PERFORM delta.owned_table(of_schema, of_table, owner_then);', '')",
        ])
        .won("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'public.audit'::regclass AND mode = 'RowShareLock'"),
    ];
    World::shared().assert_defended(&attacks);
}

#[test]
fn a_role_writes_to_no_control_table_by_itself() {
    let mut attacks = Vec::new();
    for by in [By::Loader, By::Rollback] {
        let attacker = if by == By::Loader { "<night>" } else { "<boss>" };
        for table in [
            "migration",
            "run",
            "event",
            "loaded_table",
            "reference",
            "file",
            "block",
            "mode",
            "policy",
            "segment",
            "appended",
            "target",
            "mapping_item",
        ] {
            for change in [
                "INSERT INTO delta.<table> SELECT * FROM delta.<table> LIMIT 0",
                "UPDATE delta.<table> SET <column> = <column>",
                "DELETE FROM delta.<table> WHERE false",
            ] {
                let appends =
                    ["target", "mapping_item"].contains(&table) && by == By::Loader && change.starts_with("INSERT");
                if appends {
                    continue;
                }
                let column = World::shared().database.text(&format!(
                    "SELECT attname FROM pg_attribute WHERE attrelid = 'delta.{table}'::regclass AND attnum > 0 AND attidentity = '' ORDER BY attnum LIMIT 1"
                ));
                let sql = change.replace("<table>", table).replace("<column>", &column);
                let sql = if ["mode", "policy"].contains(&table) {
                    sql.replace("SELECT *", "OVERRIDING SYSTEM VALUE SELECT *")
                } else {
                    sql
                };
                // The attacker leaves a mark only if the statement before it was allowed.
                let strike = format!("DO $$ BEGIN {sql}; CREATE TEMP TABLE mark (); END $$");
                let attack = Attack::new(format!("{sql} ({by:?})"), &[&strike]).by(by);
                attacks.push(
                    attack
                        .opened(&[&format!("GRANT ALL ON delta.{table} TO {attacker}")])
                        .won("SELECT to_regclass('pg_temp.mark') IS NOT NULL"),
                );
            }
        }
    }
    World::shared().assert_defended(&attacks);
}

#[test]
fn a_role_becomes_no_other_role() {
    let take = "INSERT INTO vault.touched VALUES (current_user)";
    let mut attacks = vec![
        Attack::new("SET ROLE to the owner", &["SET LOCAL ROLE <owner>", take]).opened(&["GRANT <owner> TO <night>"]),
        Attack::new("SET ROLE to the owner", &["SET LOCAL ROLE <owner>", take])
            .by(By::Rollback)
            .opened(&["GRANT <owner> TO <boss>"]),
        Attack::new(
            "the operator's role",
            &["SET LOCAL ROLE delta_rollback", "SELECT delta.set_policy(false, 0, 5, NULL)"],
        )
        .opened(&["GRANT delta_rollback TO <night>"])
        .won("SELECT count(*) > 0 FROM delta.policy WHERE max_key_block = 5"),
        Attack::new(
            "the loader's role",
            &[
                "SET LOCAL ROLE delta_loader",
                "DO $$ BEGIN INSERT INTO public.note VALUES (77); CREATE TEMP TABLE mark (); END $$",
            ],
        )
        .by(By::Rollback)
        .opened(&["GRANT delta_loader TO <boss>"])
        .won("SELECT to_regclass('pg_temp.mark') IS NOT NULL"),
        Attack::new("triggers and foreign keys are switched off", &["SET LOCAL session_replication_role = replica"])
            .opened(&["GRANT SET ON PARAMETER session_replication_role TO <night>"])
            .won("SELECT current_setting('session_replication_role') = 'replica'"),
        Attack::new(
            "a call that was planned before",
            &["SET LOCAL plan_cache_mode = force_generic_plan", "EXECUTE prepared"],
        )
        .planted(&["PREPARE prepared AS SELECT delta.set_policy(false, 0, 5, NULL)"])
        .opened(&["GRANT EXECUTE ON FUNCTION delta.set_policy TO <night>"])
        .won("SELECT count(*) > 0 FROM delta.policy WHERE max_key_block = 5"),
    ];
    // A function of the owner's is replaced, or runs with another path, only by its owner.
    for change in [
        "CREATE OR REPLACE FUNCTION delta.summarize(of_table text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS \
         $$ BEGIN PERFORM night.act(); END $$",
        "ALTER FUNCTION delta.summarize(text) SET search_path = night, pg_catalog",
    ] {
        attacks.push(
            Attack::new(format!("{change:.60}"), &["SELECT delta.summarize('public.item')"])
                .planted(&[change])
                .opened(&[
                    "GRANT CREATE ON SCHEMA delta TO <night>",
                    "ALTER FUNCTION delta.summarize(text) OWNER TO <night>",
                ])
                .sealed(&[
                    "ALTER FUNCTION delta.summarize(text) OWNER TO <owner>",
                    "GRANT EXECUTE ON FUNCTION delta.summarize TO delta_loader",
                ]),
        );
    }
    World::shared().assert_defended(&attacks);
}
