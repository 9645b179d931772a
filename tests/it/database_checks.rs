//! Constraints that no check can express: production is asked about the rows before the insertion, with the same verdict in every command.

use crate::production::NO_MODE;
use crate::server::{Database, Server};
use crate::support::{Place, csv_records};
use crate::target::live::On;

/// A production with a pipeline file `p.yaml`.
pub struct Judged {
    on: On,
    pub place: Place,
    database: Option<Database>,
}

impl Judged {
    /// With tables, and what the pipeline file says of them.
    pub fn new(on: On, sql: &str, tables: &str) -> Self {
        let judged =
            Self { on, place: Place::new(), database: (on == On::Postgres).then(|| Server::shared().database(sql)) };
        if judged.database.is_none() {
            judged.place.database("live.db", sql);
        }
        judged.write(&judged.url("postgres"), tables);
        if let Some(database) = &judged.database {
            judged.set_up();
            database.execute(NO_MODE);
        }
        judged
    }

    /// Sets the target up for the pipeline file and the files that are there.
    pub fn set_up(&self) {
        if self.on == On::Postgres {
            self.place.pipeline_with(&["setup", "p.yaml"], &[("PIPELINE_OWNER", "postgres")]).passes();
        }
    }

    pub fn url(&self, login: &str) -> String {
        self.database.as_ref().map_or("sqlite:live.db".to_owned(), |database| database.local_url(login))
    }

    pub fn write(&self, url: &str, tables: &str) {
        let head = "safeguards: { conversion_mode: off, max_rejects: 100% }";
        self.place
            .write("p.yaml", format!("version: 1\nname: p\ntarget: {{ url: '{url}' }}\n{head}\ntables:\n{tables}"));
    }

    pub fn execute(&self, sql: &str) {
        match &self.database {
            Some(database) => database.execute(sql),
            None => self.place.open("live.db").execute_batch(sql).unwrap(),
        }
    }

    /// The rows of a query, `a|b`.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        match &self.database {
            Some(database) => database.rows(sql).into_iter().map(|row| row.join("|")).collect(),
            None => {
                let connection = self.place.open("live.db");
                let mut statement = connection.prepare(sql).unwrap();
                let count = statement.column_count();
                let row = |row: &rusqlite::Row<'_>| {
                    let text = |at| row.get_ref(at).map(|value| crate::scene::text(value));
                    Ok((0..count).map(text).collect::<Result<Vec<_>, _>>()?.join("|"))
                };
                let rows = statement.query_map([], row).unwrap();
                rows.map(Result::unwrap).collect()
            }
        }
    }

    /// Validates, runs a mock run, and runs. All have the same verdict. Returns the rejects of a table, `LINE CHECK: REASON`.
    pub fn rejects(&self, table: &str) -> Vec<String> {
        self.set_up();
        let verdicts = |report: &serde_json::Value| report["tables"][0]["verdicts"].as_str().unwrap().to_owned();
        let validated = verdicts(&self.place.report(&["validate", "p.yaml"], 0));
        let mocked = verdicts(&self.place.report(&["run", "p.yaml", "--mock"], 0));
        let report = self.place.report(&["run", "p.yaml"], 0);
        assert_eq!((validated, mocked), (verdicts(&report), verdicts(&report)));
        let enforced = &report["tables"][0]["enforced_by_database"];
        assert_eq!(enforced.as_array().map(Vec::len), Some(0), "{enforced}");
        if report["tables"][0]["rejected"] == 0 && report["tables"][1]["rejected"].as_u64().unwrap_or(0) == 0 {
            return Vec::new();
        }
        let Ok(bytes) = std::fs::read(self.place.rejects(&report).join(format!("{table}.csv"))) else {
            return Vec::new();
        };
        let records = csv_records(&bytes);
        let at = |name: &str| records[0].iter().position(|column| column == name).unwrap();
        let (line, check, reason) = (at("_reject_line"), at("_reject_check"), at("_reject_reason"));
        records[1..].iter().map(|record| format!("{} {}: {}", record[line], record[check], record[reason])).collect()
    }
}

pub const ITEM: &str = "  item:
    source: { path: item.csv }
    legacy_key: [ref]
    key: { column: item_id }
";

/// The lines and checks of rejects.
pub fn places(rejects: &[String]) -> Vec<&str> {
    rejects.iter().map(|reject| reject.split(": ").next().unwrap()).collect()
}

each_target! {
    a_check_with_functions_rejects_the_rows_that_break_it,
    a_row_whose_check_cannot_be_computed_is_rejected,
    a_partial_index_and_one_over_an_expression_find_duplicates,
    a_row_that_an_index_over_an_expression_has_is_skipped,
    new_parents_are_told_apart_in_an_index_of_their_children,
}

fn a_check_with_functions_rejects_the_rows_that_break_it(on: On) {
    let (serial, even) = on.choose(("INTEGER PRIMARY KEY", "n % 2 = 0"), ("serial PRIMARY KEY", "mod(n, 2) = 0"));
    let judged = Judged::new(
        on,
        &format!(
            "CREATE TABLE item (item_id {serial}, ref VARCHAR(9), n INTEGER CONSTRAINT even CHECK ({even}), mail VARCHAR(40) CHECK (mail LIKE '%_@_%'),
                 kind VARCHAR(9) DEFAULT 'plain', twice VARCHAR(99) GENERATED ALWAYS AS (mail || mail) STORED,
                 CONSTRAINT short CHECK (length(twice) < 20), CONSTRAINT kinds CHECK (lower(kind) LIKE 'pl%'))"
        ),
        ITEM,
    );
    judged.place.write("item.csv", "ref,n,mail\nA,2,a@x\nB,3,b@x\nC,4,no mail\nD,6,long-enough@x\nE,,\nF,8,f@x\n");
    let rejects = judged.rejects("item");
    let name = on.choose("check(mail LIKE '%_@_%')", "check(item_mail_check)");
    assert_eq!(places(&rejects), ["3 check(even)", &format!("4 {name}"), "5 check(short)"]);
    assert_eq!(judged.rows("SELECT ref FROM item ORDER BY item_id"), ["A", "E", "F"]);
    // Keys stay dense over the accepted rows.
    assert_eq!(judged.rows("SELECT max(item_id) - min(item_id) FROM item"), ["2"]);
}

fn a_row_whose_check_cannot_be_computed_is_rejected(on: On) {
    let (serial, check) = on.choose(
        ("INTEGER PRIMARY KEY", "json_extract(code, '$.n') > 0"),
        ("serial PRIMARY KEY", "CAST(substr(code, 6) AS integer) > 0"),
    );
    let (good, zero, bad) =
        on.choose(("\"{\"\"n\"\": 1}\"", "\"{\"\"n\"\": 0}\"", "{n"), ("code-1", "code-0", "code-x"));
    let sql =
        format!("CREATE TABLE item (item_id {serial}, ref VARCHAR(9), code VARCHAR(20) CONSTRAINT n CHECK ({check}))");
    let judged = Judged::new(on, &sql, ITEM);
    // Many rows, so that they are tried in chunks.
    let rows = (0..5000).map(|n| {
        format!(
            "R{n},{}\n",
            if n == 4321 {
                bad
            } else if n == 17 {
                zero
            } else {
                good
            }
        )
    });
    judged.place.write("item.csv", "ref,code\n".to_owned() + &rows.collect::<String>());
    let rejects = judged.rejects("item");
    assert_eq!(places(&rejects), ["19 check(n)", "4323 check(n)"]);
    let reason = on.choose("malformed JSON", "invalid input syntax for type integer: \"x\"");
    assert_eq!(rejects[1], format!("4323 check(n): {reason}"));
    assert_eq!(judged.rows("SELECT count(*) FROM item"), ["4998"]);
}

const INDEXED: &str = "CREATE TABLE item (item_id {serial}, ref VARCHAR(9), nick VARCHAR(20), code VARCHAR(9), closed INTEGER);
    CREATE UNIQUE INDEX item_nick ON item (lower(nick)); CREATE UNIQUE INDEX open_code ON item (code) WHERE coalesce(closed, 0) = 0;
    INSERT INTO item (item_id, nick, code, closed) VALUES (1, 'Bob', 'X', 0), (2, 'Joe', 'Y', 1);";

fn indexed(on: On, tables: &str) -> Judged {
    let serial = on.choose("INTEGER PRIMARY KEY", "integer GENERATED BY DEFAULT AS IDENTITY (START 3) PRIMARY KEY");
    let judged = Judged::new(on, &INDEXED.replace("{serial}", serial), tables);
    let lines =
        ["A,ann,A,0", "B,ANN,B,0", "C,BOB,C,0", "D,dan,X,", "E,eve,Y,0", "F,fay,E,1", "G,,E,1", "H,,E,0", "I,,,"];
    judged.place.write("item.csv", format!("ref,nick,code,closed\n{}\n", lines.join("\n")));
    judged
}

fn a_partial_index_and_one_over_an_expression_find_duplicates(on: On) {
    let judged = indexed(on, ITEM);
    let rejects = judged.rejects("item");
    // The engine can evaluate a condition that means the same in both.
    let open_code = on.choose("unique(open_code)", "unique(code where coalesce(\"closed\", 0) = 0)");
    assert_eq!(
        rejects,
        [
            "2 unique(item_nick): item.csv:3 has values that production treats as equal",
            "3 unique(item_nick): item.csv:2 has values that production treats as equal",
            "4 unique(item_nick): exists in production: `item` 1",
            &format!("5 {open_code}: exists in production: `item` 1"),
        ]
    );
    assert_eq!(judged.rows("SELECT ref FROM item WHERE ref IS NOT NULL ORDER BY 1"), ["E", "F", "G", "H", "I"]);
}

fn a_row_that_an_index_over_an_expression_has_is_skipped(on: On) {
    let judged = indexed(on, &format!("{ITEM}    existing: skip\n    duplicates: first\n"));
    let rejects = judged.rejects("item");
    assert_eq!(places(&rejects), ["3 unique(item_nick)"]);
    assert_eq!(judged.rows("SELECT ref FROM item WHERE ref IS NOT NULL ORDER BY 1"), ["A", "E", "F", "G", "H", "I"]);
}

fn new_parents_are_told_apart_in_an_index_of_their_children(on: On) {
    let serial = on.choose("INTEGER PRIMARY KEY", "serial PRIMARY KEY");
    let judged = Judged::new(
        on,
        &format!(
            "CREATE TABLE parent (parent_id {serial}, ref VARCHAR(9));
             CREATE TABLE item (item_id {serial}, ref VARCHAR(9), parent_id INTEGER NOT NULL REFERENCES parent (parent_id), code VARCHAR(9));
             CREATE UNIQUE INDEX item_code ON item (parent_id, code) WHERE lower(code) <> 'any';"
        ),
        &format!(
            "  parent:\n    source: {{ path: parent.csv }}\n    legacy_key: [ref]\n    key: {{ column: parent_id }}\n{ITEM}    \
             relationships: [{{ column: parent_id, from: [parent], to: parent }}]\n"
        ),
    );
    judged.place.write("parent.csv", "ref\nP\nQ\n");
    judged.place.write("item.csv", "ref,parent,code\nA,P,a\nB,Q,a\nC,P,any\nD,P,any\nE,P,b\nF,P,b\n");
    let rejects = judged.rejects("item");
    assert_eq!(places(&rejects), ["6 unique(item_code)", "7 unique(item_code)"]);
    assert_eq!(judged.rows("SELECT ref FROM item ORDER BY 1"), ["A", "B", "C", "D"]);
}

const ODD: &str = "CREATE EXTENSION citext; CREATE EXTENSION btree_gist; CREATE SCHEMA other; CREATE TYPE other.mood AS ENUM ('good', 'bad');
    CREATE DOMAIN zip AS text CHECK (VALUE ~ '^[0-9]{5}$'); CREATE TYPE pair AS (a text, n int);
    CREATE TABLE item (item_id serial PRIMARY KEY, ref text, mail citext UNIQUE, ip inet, span int4range, bits bit(3), price money, moods other.mood[],
        zip zip, pair pair, words varchar(3)[], amount numeric, c \"char\", EXCLUDE USING gist (span WITH &&));
    INSERT INTO item (mail, span) VALUES ('Old@x', '[100,200)');";

#[test]
fn types_of_the_server_alone_keep_a_value_or_reject_it() {
    let judged = Judged::new(On::Postgres, ODD, ITEM);
    let lines = [
        "A,a@x,10.0.0.1,\"[1,5)\",101,1.50,{good},01067,\"(x,1)\",\"{abc,d}\",1.5,x",
        "B,b@x,10.0.0.300,,,,,,,,,",
        "C,c@x,,\"[4,9)\",,,,,,,,",
        "D,d@x,,,1011,,,,,,,",
        "E,e@x,,,,1.005,,,,,,",
        "F,f@x,,,,,{ugly},,,,,",
        "G,g@x,,,,,,1067,,,,",
        "H,h@x,,,,,,,\"(x,y)\",,,",
        "I,i@x,,,,,,,,{abcd},,",
        "J,A@X,,,,,,,,,,",
        "K,OLD@X,,,,,,,,,,",
        "L,l@x,,\"[150,160)\",,,,,,,,",
        "M,m@x,,\"[300,\",,,,,,,,",
        "N,n@x,,,,,,,,,,xy",
        "O,o@x,,,,,,,,,,",
    ];
    judged.place.write(
        "item.csv",
        format!("ref,mail,ip,span,bits,price,moods,zip,pair,words,amount,c\n{}\n", lines.join("\n")),
    );
    let rejects = judged.rejects("item");
    assert_eq!(
        places(&rejects),
        [
            "2 unique(item_mail_key)",
            "3 value(ip)",
            "5 value(bits)",
            "6 value(price)",
            "7 value(moods)",
            "8 check(zip_check(zip))",
            "9 value(pair)",
            "10 value(words)",
            "11 unique(item_mail_key)",
            "12 unique(item_mail_key)",
            "13 exclude(item_span_excl)",
            "14 value(span)",
            "15 value(c)",
        ]
    );
    assert_eq!(rejects[1], "3 value(ip): invalid input syntax for type inet: \"10.0.0.300\"");
    assert_eq!(judged.rows("SELECT ref FROM item WHERE ref IS NOT NULL ORDER BY 1"), ["C", "O"]);
}

#[test]
fn a_login_that_only_reads_gets_the_same_verdict() {
    let judged = Judged::new(On::Postgres, ODD, ITEM);
    let rows: String = (0..30).map(|n| format!("R{n},{}@x,10.0.0.{},\"[{n},{})\"\n", n % 20, n * 10, n + 2)).collect();
    judged.place.write("item.csv", format!("ref,mail,ip,span\n{rows}"));
    let verdict = |report: &serde_json::Value| report["tables"][0]["verdicts"].clone();
    let written = judged.place.report(&["validate", "p.yaml"], 0);
    assert!(written["tables"][0]["rejected"].as_u64() > Some(10), "{written}");
    let database = judged.database.as_ref().unwrap();
    judged.execute(&format!(
        "CREATE ROLE reader_{0} LOGIN; REVOKE TEMPORARY ON DATABASE {0} FROM PUBLIC; GRANT USAGE ON SCHEMA other TO PUBLIC;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_{0}",
        database.name
    ));
    judged.write(&judged.url(&format!("reader_{}", database.name)), ITEM);
    let read = judged.place.report(&["validate", "p.yaml"], 0);
    assert_eq!(verdict(&read), verdict(&written));
    judged.execute(&format!("DROP OWNED BY reader_{0}; DROP ROLE reader_{0}", database.name));
}

#[test]
fn a_row_without_a_partition_or_against_its_check_is_rejected() {
    let sql = "CREATE TABLE item (ref text, day date, n int, PRIMARY KEY (ref, day)) PARTITION BY RANGE (day);
        CREATE TABLE item_24 PARTITION OF item FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
        CREATE TABLE item_25 PARTITION OF item FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
        ALTER TABLE item_25 ADD CONSTRAINT small CHECK (n < 10); CREATE UNIQUE INDEX one ON item_24 (n);
        INSERT INTO item VALUES ('old', '2024-05-05', 7)";
    let judged = Judged::new(On::Postgres, sql, "  item:\n    source: { path: item.csv }\n    legacy_key: [ref]\n");
    let lines = ["A,2024-01-01,99", "B,2025-01-01,99", "C,2026-01-01,1", "D,2024-02-02,7", "E,2025-02-02,7"];
    judged.place.write("item.csv", format!("ref,day,n\n{}\n", lines.join("\n")));
    assert_eq!(places(&judged.rejects("item")), ["3 check(small)", "4 partition", "5 unique(one)"]);
}

each_target! {
    columns_that_triggers_decide_are_not_compared,
    a_row_that_production_refuses_after_all_is_named,
}

fn columns_that_triggers_decide_are_not_compared(on: On) {
    let (serial, triggers) = on.choose(
        (
            "INTEGER PRIMARY KEY",
            "CREATE TRIGGER stamp AFTER INSERT ON item BEGIN
                 UPDATE item SET stamped = 'now', mail = lower(mail) WHERE item_id = NEW.item_id; END;",
        ),
        (
            "serial PRIMARY KEY",
            "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN NEW.stamped := 'now'; NEW.mail := lower(NEW.mail); RETURN NEW; END $$;
             CREATE TRIGGER stamp BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION stamp();",
        ),
    );
    let null = on.choose("", " NOT NULL");
    let judged = Judged::new(
        on,
        &format!(
            "CREATE TABLE item (item_id {serial}, ref VARCHAR(9), mail VARCHAR(20), stamped VARCHAR(9){null}); {triggers}"
        ),
        ITEM,
    );
    judged.place.write("item.csv", "ref,mail\nA,A@X\nB,b@x\n");
    let checked = judged.place.pipeline(&["check", "p.yaml"]);
    let said =
        on.choose("trigger stamp: if it fills or changes", "or, if a trigger of production fills it, `stamped: fills`");
    assert!((checked.stdout.clone() + &checked.stderr).contains(said), "{}{}", checked.stdout, checked.stderr);
    let url = judged.url("postgres");
    judged.write(&url, &format!("{ITEM}    triggers: {{ stamped: fills }}\n"));
    judged.place.pipeline(&["run", "p.yaml"]).fails(78, &["`item`", "`mail`", "check for a trigger of production"]);
    assert_eq!(judged.rows("SELECT count(*) FROM item"), ["0"]);
    judged.write(&url, &format!("{ITEM}    triggers: {{ stamped: fills, mail: changes }}\n"));
    let staged = judged.rejects("item");
    assert!(staged.is_empty(), "{staged:?}");
    let run = judged.rows(on.choose("SELECT id FROM delta_run", "SELECT id FROM delta.run")).remove(0);
    let report = judged.place.pipeline(&["report", "p.yaml", &run, "--output", "json"]).passes().stdout.clone();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let column = |at: usize| report["tables"][0]["trigger_columns"][at].clone();
    assert_eq!(column(0), serde_json::json!({ "column": "stamped", "values": 2, "range": ["now", "now"] }));
    assert_eq!(column(1), serde_json::json!({ "column": "mail", "values": 2, "range": ["a@x", "b@x"] }));
    judged.place.pipeline(&["report", "p.yaml", &run, "--report", "html=report.html"]).passes();
    let page = judged.place.text("report.html");
    assert!(page.contains("stamped (2 × now), mail (2 values from a@x to b@x)"), "{page}");
    assert_eq!(judged.rows("SELECT ref, mail, stamped FROM item ORDER BY 1"), ["A|a@x|now", "B|b@x|now"]);
    judged.write(&url, &format!("{ITEM}    triggers: {{ item_id: changes, mail: fills, nothing: fills, stamped: changes }}\n    columns: {{ mail: ref }}\n"));
    judged.place.pipeline(&["check", "p.yaml"]).fails(
        78,
        &["`item_id` is a key column", "write `changes`", "`nothing`", "the delta has no value for `stamped`"],
    );
}

fn a_row_that_production_refuses_after_all_is_named(on: On) {
    let (serial, check) = on.choose(
        ("INTEGER PRIMARY KEY", "item_id || ref NOT LIKE '%4D'"),
        ("serial PRIMARY KEY", "item_id::text || ref NOT LIKE '%4D'"),
    );
    for staging in ["always", "when_needed"] {
        // The key is not known before the insertion, so no question can be asked about this check.
        let sql = format!("CREATE TABLE item (item_id {serial}, ref VARCHAR(9), CONSTRAINT late CHECK ({check}))");
        let judged = Judged::new(on, &sql, ITEM);
        let file = judged.place.text("p.yaml").replace("tables:", &format!("load: {{ staging: {staging} }}\ntables:"));
        judged.place.write("p.yaml", file);
        judged.place.write("item.csv", "ref\nA\nB\nC\nD\nE\n");
        judged.place.pipeline(&["run", "p.yaml"]).fails(1, &["`item`", "late", "\n  item.csv:5\n"]);
        assert_eq!(judged.rows("SELECT count(*) FROM item"), ["0"]);
    }
}

#[test]
fn a_reference_finds_what_production_takes_for_the_same() {
    let sql = "CREATE EXTENSION citext; CREATE TABLE member (member_id serial PRIMARY KEY, email citext UNIQUE);
        CREATE TABLE item (item_id serial PRIMARY KEY, ref text, member_id integer NOT NULL REFERENCES member);
        INSERT INTO member (email) VALUES ('Anna@x')";
    let tables = format!("{ITEM}    relationships: [{{ column: member_id, from: [mail], to: member, by: email }}]\n");
    let judged = Judged::new(On::Postgres, sql, &tables);
    judged.place.write("item.csv", "ref,mail\nA,ANNA@X\nB,bob@x\n");
    assert_eq!(places(&judged.rejects("item")), ["3 relationship(member_id)"]);
    assert_eq!(judged.rows("SELECT ref, member_id FROM item"), ["A|1"]);
}

#[test]
fn a_foreign_key_of_a_reference_and_a_value_is_judged() {
    let sql = "CREATE TABLE shop (shop_id serial PRIMARY KEY, name text); CREATE TABLE shelf (shop_id integer REFERENCES shop, no integer, PRIMARY KEY (shop_id, no));
        CREATE TABLE item (item_id serial PRIMARY KEY, ref text, shop_id integer REFERENCES shop, no integer, floor integer, room integer,
            FOREIGN KEY (shop_id, no) REFERENCES shelf, FOREIGN KEY (floor, room) REFERENCES shelf MATCH FULL);
        INSERT INTO shop (name) VALUES ('A'), ('B'); INSERT INTO shelf VALUES (1, 1), (2, 2)";
    let tables = format!("{ITEM}    relationships: [{{ column: shop_id, from: [shop], to: shop, by: name }}]\n");
    let judged = Judged::new(On::Postgres, sql, &tables);
    judged.place.write("item.csv", "ref,shop,no,floor,room\nA,A,1,1,1\nB,A,2,,\nC,B,2,,\nD,,9,,\nE,,,1,\n");
    let rejects = judged.rejects("item");
    assert_eq!(places(&rejects), ["3 relationship(shop_id, no)", "6 whole(floor, room)"]);
}

#[test]
fn text_beyond_ascii_is_checked_before_the_run() {
    let sql = "CREATE DOMAIN low AS text CHECK (VALUE = lower(VALUE));
        CREATE TABLE item (item_id serial PRIMARY KEY, ref text, code text CONSTRAINT code CHECK (code = upper(code)),
            digits text CONSTRAINT digits CHECK (digits ~ '^\\d{3}$'), low low, city text CONSTRAINT city CHECK (lower(coalesce(city, 'Ä')) <> 'ä'))";
    let judged = Judged::new(On::Postgres, sql, ITEM);
    let lines = [
        "A,OK,123,ok,x",
        "B,Groß,,,x",
        "C,MÜLLER,123,größe,x",
        "D,,１２３,,x",
        "E,,１２x,,x",
        "F,,,Übung,x",
        "G,low,,,x",
        "H,,,,",
        "I,,,,Ä",
    ];
    judged.place.write("item.csv", format!("ref,code,digits,low,city\n{}\n", lines.join("\n")));
    let rejects = judged.rejects("item");
    let full_width = judged.rows("SELECT '１２３' ~ '^\\d{3}$'") == ["f"];
    let mut expected = vec!["3 check(code) beyond ASCII"];
    expected.extend(full_width.then_some("5 check(digits) beyond ASCII"));
    expected.extend([
        "6 check(digits) beyond ASCII",
        "7 value(low)",
        "8 check(code)",
        "9 check(city)",
        "10 check(city)",
    ]);
    assert_eq!(places(&rejects), expected);
}

#[test]
fn a_value_that_breaks_the_syntax_of_its_type_is_rejected() {
    let sql = "CREATE EXTENSION ltree; CREATE TABLE item (item_id serial PRIMARY KEY, ref text, query tsquery, path jsonpath, tree ltree,
        words tsvector, CONSTRAINT castable CHECK (ref::tsquery IS NOT NULL))";
    let judged = Judged::new(On::Postgres, sql, ITEM);
    let word = "w".repeat(9000);
    let lines = ["A,a & b,$.a,a.b,w", "B,a & & b,,,", "C,,$.a[,,", "D,,,a..b,", &format!("E,,,,{word}"), "F & &,,,,"];
    judged.place.write("item.csv", format!("ref,query,path,tree,words\n{}\n", lines.join("\n")));
    let expected = ["3 value(query)", "4 value(path)", "5 value(tree)", "6 value(words)", "7 check(castable)"];
    assert_eq!(places(&judged.rejects("item")), expected);
}

#[test]
fn a_text_that_is_too_long_for_an_index_is_named() {
    for index in ["UNIQUE (long)", "EXCLUDE (long WITH =)", "CHECK (true)"] {
        let sql = format!(
            "CREATE TABLE item (item_id serial PRIMARY KEY, ref text, long text, {index}); CREATE INDEX ON item (long)"
        );
        let judged = Judged::new(On::Postgres, &sql, ITEM);
        // The server compresses a text that repeats itself.
        let mut state = 1_u64;
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'a' + (state >> 40) as u8 % 26)
        };
        let long: String = (0..9000).map(|_| letter()).collect();
        judged.place.write("item.csv", format!("ref,long\nA,a\nB,{long}\nC,c\n"));
        judged.place.pipeline(&["run", "p.yaml"]).fails(1, &["`item`", "index row", "\n  item.csv:3\n"]);
        assert_eq!(judged.rows("SELECT count(*) FROM item"), ["0"]);
    }
}

#[test]
fn a_check_that_only_the_insertion_can_evaluate_is_left_to_it() {
    let sql = "CREATE TABLE log (n integer);
        CREATE FUNCTION logged(integer) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO log VALUES ($1); RETURN $1 > 0; END $$;
        CREATE EXTENSION citext;
        CREATE TABLE item (item_id serial PRIMARY KEY, ref text, n integer, CONSTRAINT place CHECK (tableoid <> 0 AND n < 10),
            CONSTRAINT even CHECK (mod(n, 2) = 0), CONSTRAINT logged CHECK (logged(n)), mail citext CONSTRAINT mail CHECK (NULLIF(mail, 'NONE') <> ''));
        CREATE FUNCTION whole(item) RETURNS boolean LANGUAGE sql AS 'SELECT $1.n < 10'; ALTER TABLE item ADD CONSTRAINT whole CHECK (whole(item.*))";
    let judged = Judged::new(On::Postgres, sql, ITEM);
    judged.place.write("item.csv", "ref,n\nA,2\nB,3\n");
    for command in [&["validate", "p.yaml"][..], &["run", "p.yaml", "--mock"], &["run", "p.yaml"]] {
        let report = judged.place.report(command, 0);
        let table = &report["tables"][0];
        assert_eq!(table["rejected"], 1, "{table}");
        let enforced: Vec<_> =
            table["enforced_by_database"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let of = |name: &str| enforced.iter().any(|text| text.starts_with(name));
        let others = of("check(place)") && of("check(whole)") && of("CHECK constraint `mail`");
        assert!(others && of("check(logged)") && enforced.len() == 4, "{enforced:?}");
    }
    assert_eq!(judged.rows("SELECT ref FROM item"), ["A"]);
    judged.place.write("item.csv", "ref,n\nC,4\nD,12\n");
    judged.place.pipeline(&["run", "p.yaml"]).fails(1, &["`item`", "place", "\n  item.csv:3\n"]);
}

#[test]
fn functions_of_production_find_its_search_path() {
    let sql = "CREATE TABLE code (code text); INSERT INTO code VALUES ('X'); CREATE SEQUENCE s;
        CREATE FUNCTION known(text) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM code WHERE code = $1)';
        CREATE FUNCTION next() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT min(code) FROM code) || nextval('s'); END $$;
        CREATE TABLE item (id text PRIMARY KEY DEFAULT next(), ref text, code text CONSTRAINT known CHECK (known(code)))";
    let judged = Judged::new(On::Postgres, sql, "  item:\n    source: { path: item.csv }\n    legacy_key: [ref]\n");
    judged.execute("GRANT SELECT ON code TO delta_loader; GRANT USAGE ON SEQUENCE s TO delta_loader");
    judged.place.write("item.csv", "ref,code\nA,X\nB,Y\n");
    assert_eq!(places(&judged.rejects("item")), ["3 check(known)"]);
    assert_eq!(judged.rows("SELECT id ~ '^X[0-9]+$', ref FROM item"), ["t|A"]);
    // A login that may create no view evaluates with the program's own search path, which has no table of production.
    let name = &judged.database.as_ref().unwrap().name;
    judged.execute(&format!(
        "CREATE ROLE reader_{name} LOGIN; REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; GRANT SELECT ON item, code TO reader_{name}"
    ));
    judged.write(
        &judged.url(&format!("reader_{name}")),
        "  item:\n    source: { path: item.csv }\n    legacy_key: [ref]\n",
    );
    let report = judged.place.report(&["validate", "p.yaml"], 0);
    let enforced = report["tables"][0]["enforced_by_database"][0].as_str().unwrap();
    assert!(
        enforced.starts_with("check(known): ") && enforced.ends_with("(relation \"code\" does not exist)"),
        "{enforced}"
    );
    judged.execute(&format!("DROP OWNED BY reader_{name}; DROP ROLE reader_{name}"));
}
