//! Keys as production has them: sequences by name and in steps, UUIDs, keys of several columns, and defaults.

use crate::production::NO_MODE;
use crate::server::{Database, Server};
use crate::support::{Place, Ran};
use crate::target::live::On;

each_target! {
    uuid_keys_of_a_text_column_are_the_same_in_each_run => uuids_of_text;
    half_a_reference_is_rejected_and_a_whole_one_is_not => half_references;
    a_reference_is_null_if_its_own_part_is => shared_part;
    rows_that_refer_to_each_other_are_staged => staged_circle;
    a_row_is_found_by_several_values_and_a_condition => by_several;
    a_reference_to_a_key_of_several_columns_fills_all_of_them => composite_reference;
    tables_that_refer_to_each_other_load_in_one_run => cycle;
    a_default_of_the_key_is_known_to_the_key_map => defaults;
}

/// A production of either kind, with a pipeline file `p.yaml`.
pub struct Made {
    pub place: Place,
    database: Option<Database>,
}

impl Made {
    fn new(on: On, sql: &str, tables: &str, files: &[(&str, &str)]) -> Self {
        Self::with(on, sql, "", tables, files)
    }

    pub fn with(on: On, sql: &str, head: &str, tables: &str, files: &[(&str, &str)]) -> Self {
        let place = Place::new();
        let database = (on == On::Postgres).then(|| Server::shared().database(sql));
        if database.is_none() {
            place.database("p.db", sql);
        }
        let text = format!(
            "version: 1\nname: keys\ntarget: {{ url: '${{DATABASE_URL:-sqlite:p.db}}' }}\nsafeguards: {{ max_rejects: 100% }}\n{head}tables:\n{tables}"
        );
        place.write("p.yaml", text);
        for (name, text) in files {
            place.write(name, text);
        }
        let made = Self { place, database };
        if let Some(database) = &made.database {
            made.pipeline(&["setup", "p.yaml"]).passes();
            database.execute(NO_MODE);
        }
        made
    }

    pub fn pipeline(&self, arguments: &[&str]) -> Ran {
        match &self.database {
            Some(database) => self.place.pipeline_with(arguments, &[("DATABASE_URL", &database.url())]),
            None => self.place.pipeline(arguments),
        }
    }

    /// Runs the binary, which kills itself at a point.
    pub fn killed(&self, arguments: &[&str], at: &str) -> Ran {
        let url = self.database.as_ref().map(Database::url);
        let url = url.iter().map(|url| ("DATABASE_URL", url.as_str()));
        self.place.pipeline_with(arguments, &url.chain([("FAILPOINTS", at)]).collect::<Vec<_>>())
    }

    /// Rows of production, one text each.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        match &self.database {
            Some(database) => database.rows(sql).into_iter().map(|row| row.join("|")).collect(),
            None => crate::support::ordered_rows(&self.place.open("p.db"), sql)
                .into_iter()
                .map(|row| row.replace('\'', ""))
                .collect(),
        }
    }

    /// Gives production a default that fills the keys, and the file no sequence.
    fn with_default(self, sql: &str) -> Self {
        self.execute(sql);
        self.place.write("p.yaml", self.place.text("p.yaml").replace(", sequence: up", ""));
        self.pipeline(&["setup", "p.yaml"]).passes();
        self
    }

    pub fn execute(&self, sql: &str) {
        match &self.database {
            Some(database) => database.execute(sql),
            None => self.place.open("p.db").execute_batch(sql).unwrap(),
        }
    }

    pub fn run_id(&self) -> String {
        let place = if self.database.is_some() { "delta.run" } else { "delta_run" };
        self.rows(&format!("SELECT id FROM {place} ORDER BY id DESC LIMIT 1")).remove(0)
    }
}

/// Foresees the keys of a table by `plan` and `run --mock`, and runs: all three have the same keys.
fn foreseen(made: &Made, table: &str) {
    let keys = |ran: &Ran| {
        let line = ran.stdout.lines().find(|line| line.trim_start().starts_with(table)).unwrap_or_default().to_owned();
        line.split_whitespace().rev().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let plan = made.pipeline(&["plan", "p.yaml"]);
    let mock = made.pipeline(&["run", "p.yaml", "--mock"]);
    let run = made.pipeline(&["run", "p.yaml"]);
    plan.passes();
    mock.passes();
    run.passes();
    assert_eq!(keys(&mock), keys(&run), "{}", run.stdout);
    assert!(!run.stderr.contains("instead of"), "{}", run.stderr);
}

#[test]
fn a_sequence_in_steps_gives_keys_that_no_other_program_gets() {
    let sql = "CREATE SEQUENCE s INCREMENT BY 50; CREATE TABLE t (id bigint PRIMARY KEY, n text);
               INSERT INTO t VALUES (nextval('s'), 'old'), (nextval('s'), 'old');";
    let table = |numbers: &str| {
        format!(
            "  t: {{ source: {{ path: t.csv }}, legacy_key: [ref], columns: {{ n: ref }}, key: {{ column: id, sequence: s{numbers} }} }}\n"
        )
    };
    for (numbers, keys) in [("", ["101", "151", "201"]), (", numbers: blocks", ["101", "102", "103"])] {
        let made = Made::new(On::Postgres, sql, &table(numbers), &[("t.csv", "ref\na\nb\nc\n")]);
        foreseen(&made, "t");
        assert_eq!(made.rows("SELECT id FROM t WHERE n <> 'old' ORDER BY id"), keys);
        // The next number is free as a key, and so is the block that ends with it.
        let next: i64 = made.rows("SELECT nextval('s')")[0].parse().unwrap();
        let around = format!("SELECT count(*) FROM t WHERE id > {next} - 50 AND id < {next} + 50");
        assert_eq!(made.rows(&around), ["0"]);
    }
}

#[test]
fn two_tables_with_one_sequence_get_the_keys_that_were_foreseen() {
    let sql = "CREATE SEQUENCE both_seq; SELECT setval('both_seq', 10);
               CREATE TABLE a (id bigint PRIMARY KEY DEFAULT nextval('both_seq'), n text);
               CREATE TABLE b (id bigint PRIMARY KEY DEFAULT nextval('both_seq'), n text);";
    let table = |name: &str| {
        format!(
            "  {name}: {{ source: {{ path: t.csv }}, legacy_key: [ref], columns: {{ n: ref }}, key: {{ column: id }} }}\n"
        )
    };
    let made = Made::new(On::Postgres, sql, &(table("a") + &table("b")), &[("t.csv", "ref\nx\ny\n")]);
    foreseen(&made, "b");
    assert_eq!(made.rows("SELECT id FROM a ORDER BY id"), ["11", "12"]);
    assert_eq!(made.rows("SELECT id FROM b ORDER BY id"), ["13", "14"]);
}

#[test]
fn an_exhausted_or_lagging_sequence_is_refused_before_the_run() {
    for (setup, what) in [("SELECT setval('s', 9)", "ends at 10"), ("SELECT setval('s', 3)", "key 5 is taken")] {
        let sql = format!(
            "CREATE SEQUENCE s MAXVALUE 10; {setup}; CREATE TABLE t (id bigint PRIMARY KEY DEFAULT nextval('s'), n text); INSERT INTO t VALUES (5, 'old');"
        );
        let table = "  t: { source: { path: t.csv }, legacy_key: [ref], columns: { n: ref }, key: { column: id } }\n";
        let made = Made::new(On::Postgres, &sql, table, &[("t.csv", "ref\na\nb\n")]);
        for arguments in
            [&["plan", "p.yaml"][..], &["validate", "p.yaml"], &["run", "p.yaml", "--mock"], &["run", "p.yaml"]]
        {
            made.pipeline(arguments).fails(77, &["no keys for `t`", "sequence s", what]);
        }
    }
}

#[test]
fn keys_that_are_texts_take_the_numbers_of_a_sequence() {
    let sql = "CREATE SEQUENCE up START 7; CREATE SEQUENCE tens INCREMENT BY 10;
               CREATE TABLE t (id varchar(8) PRIMARY KEY, n text); INSERT INTO t VALUES ('M0000006', 'old'), ('MX', 'other'), ('N0000099', 'other');";
    let table = |key: &str| {
        format!(
            "  t: {{ source: {{ path: t.csv }}, legacy_key: [ref], columns: {{ n: ref }}, key: {{ column: id, prefix: M, width: 8, {key} }} }}\n"
        )
    };
    let rows = "SELECT id FROM t WHERE n IN ('a', 'b', 'c') ORDER BY id";
    let made = |key: &str| Made::new(On::Postgres, sql, &table(key), &[("t.csv", "ref\na\nb\nc\n")]);
    let up = made("sequence: up");
    foreseen(&up, "t");
    assert_eq!(up.rows(rows), ["M0000007", "M0000008", "M0000009"]);
    assert_eq!(up.rows("SELECT nextval('up')"), ["10"]);
    // The sequence is behind the keys of production, whatever the order of other texts.
    let behind = made("sequence: tens");
    for arguments in [&["plan", "p.yaml"][..], &["run", "p.yaml", "--mock"], &["run", "p.yaml"]] {
        behind.pipeline(arguments).fails(77, &["no keys for `t`", "would give 1 next, and key 6 is taken"]);
    }
    behind.execute("SELECT setval('tens', 1)");
    foreseen(&behind, "t");
    assert_eq!(behind.rows(rows), ["M0000011", "M0000021", "M0000031"]);
    // The sequence of a default that makes the text is found.
    let default = made("sequence: up")
        .with_default("ALTER TABLE t ALTER id SET DEFAULT 'M' || lpad(nextval('up')::text, 7, '0')");
    foreseen(&default, "t");
    assert_eq!(default.rows(rows), ["M0000007", "M0000008", "M0000009"]);
    assert_eq!(default.rows("INSERT INTO t (n) VALUES ('x') RETURNING id"), ["M0000010"]);
}

#[test]
fn decimal_keys_take_the_numbers_of_a_sequence() {
    for declared in ["numeric(20)", "numeric"] {
        let sql = format!(
            "CREATE SEQUENCE s START 40 INCREMENT 10; CREATE TABLE t (id {declared} PRIMARY KEY, n text); INSERT INTO t VALUES (30, 'old');
             CREATE TABLE u (id {declared} PRIMARY KEY, n text, t_id {declared} NOT NULL REFERENCES t, old_id {declared} REFERENCES t); CREATE SEQUENCE u_seq;"
        );
        let tables = "  t: { source: { path: t.csv }, legacy_key: [n], key: { column: id, sequence: s } }
  u:
    source: { path: u.csv }
    legacy_key: [n]
    key: { column: id, sequence: u_seq }
    relationships: [{ column: t_id, from: [t], to: t }]\n";
        let files = [("t.csv", "n\na\nb\n"), ("u.csv", "n,t,old_id\n1,b,30\n2,a,\n3,b,31\n")];
        let made = Made::new(On::Postgres, &sql, tables, &files);
        foreseen(&made, "t");
        assert_eq!(made.rows("SELECT id, n FROM t ORDER BY id"), ["30|old", "40|a", "50|b"]);
        assert_eq!(
            made.rows("SELECT u.id, u.n, t.n, old_id FROM u JOIN t ON t.id = t_id ORDER BY 1"),
            ["1|1|b|30", "2|2|a|NULL"]
        );
        // A later delta finds them by the key map, and behind them.
        made.place.write("t.csv", "n\nc\n");
        made.place.write("u.csv", "n,t,old_id\n4,a,40\n");
        foreseen(&made, "t");
        assert_eq!(made.rows("SELECT u.id, t.id FROM u JOIN t ON t.id = t_id WHERE u.n = '4'"), ["3|40"]);
        assert_eq!(made.rows("SELECT id FROM t WHERE n = 'c'"), ["60"]);
        made.pipeline(&["keymap", "verify", "p.yaml"]).passes();
        made.pipeline(&["rollback", "p.yaml", &made.run_id()]).passes();
        assert_eq!(made.rows("SELECT count(*) FROM t"), ["3"]);
    }
}

#[test]
fn a_refused_insertion_names_the_keys_that_stay_reserved() {
    let sql = "CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n text);
               CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.n = 'b' THEN RAISE EXCEPTION 'not b'; END IF; RETURN NEW; END $$;
               CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no();";
    let tables = "  t: { source: { path: t.csv }, legacy_key: [n] }\n";
    let made = Made::new(On::Postgres, sql, tables, &[("t.csv", "n\na\nb\nc\n")]);
    let refused = made.pipeline(&["run", "p.yaml"]);
    refused.fails(1, &["t.csv:3", "not b", "the keys 1–3 of `t` stay reserved for run", "`pipeline resume FILE"]);
    // With the reason gone, the run takes these keys.
    made.execute("CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'");
    made.pipeline(&["resume", "p.yaml"]).passes();
    assert_eq!(made.rows("SELECT id, n FROM t ORDER BY id"), ["1|a", "2|b", "3|c"]);
    assert_eq!(made.rows("SELECT nextval('t_id_seq')"), ["4"]);
}

#[test]
fn an_abandoned_run_names_its_keys() {
    let sql = "CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n text);";
    let tables = "  t: { source: { path: t.csv }, legacy_key: [n] }\n";
    let made = Made::new(On::Postgres, sql, tables, &[("t.csv", "n\na\nb\n")]);
    made.killed(&["run", "p.yaml"], "inserting=return");
    let run = made.rows("SELECT DISTINCT run FROM delta.event").remove(0);
    let abandoned = made.pipeline(&["rollback", "p.yaml", &run]);
    assert!(abandoned.passes().stdout.contains("it had reserved the keys 1–2 of `public.t`"), "{}", abandoned.stdout);
}

#[test]
fn a_sequence_that_production_lacks_is_named_with_those_it_has() {
    let sql =
        "CREATE SCHEMA other; CREATE SEQUENCE other.s; CREATE SEQUENCE mine; CREATE TABLE t (id bigint PRIMARY KEY);";
    let place = Place::new();
    let database = Server::shared().database(sql);
    place.write("t.csv", "ref\na\n");
    for (name, code) in [("nowhere", 78), ("other.s", 0), ("mine", 0), ("public.mine", 0)] {
        place.write("p.yaml", format!("version: 1\nname: k\ntarget: {{ url: '${{DATABASE_URL}}' }}\ntables:\n  t: {{ source: {{ path: t.csv }}, legacy_key: [ref], key: {{ column: id, sequence: {name} }} }}\n"));
        let ran = place.pipeline_with(&["check", "p.yaml"], &[("DATABASE_URL", &database.url())]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert_eq!(ran.stderr.contains("its sequences are `mine` and `other.s`"), code == 78, "{}", ran.stderr);
    }
}

fn uuids_of_text(on: On) {
    let sql = "CREATE TABLE person (id VARCHAR(36) PRIMARY KEY, name VARCHAR(20)); CREATE TABLE pet (id VARCHAR(36) PRIMARY KEY, person_id VARCHAR(36) NOT NULL REFERENCES person, name VARCHAR(20));";
    let key = "key: { column: id, uuid: v5, uuid_namespace: 6ba7b810-9dad-11d1-80b4-00c04fd430c8 }";
    let tables = format!(
        "  person: {{ source: {{ path: person.csv }}, legacy_key: [name], {key} }}
  pet: {{ source: {{ path: pet.csv }}, legacy_key: [name], relationships: [{{ column: person_id, from: [owner], to: person }}], {key} }}\n"
    );
    let files =
        [("person.csv", "name\nwww.example.com\n"), ("pet.csv", "name,owner\nRex,www.example.com\nTom,nobody\n")];
    let made = Made::new(on, sql, &tables, &files);
    made.pipeline(&["run", "p.yaml"]).passes();
    let found = || made.rows("SELECT pet.name, person.id FROM pet JOIN person ON person.id = pet.person_id");
    assert_eq!(found(), ["Rex|2ed6657d-e927-568b-95e1-2665a8aea6a2"]);
    made.pipeline(&["rollback", "p.yaml", &made.run_id()]).passes();
    assert!(found().is_empty());
    made.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(found(), ["Rex|2ed6657d-e927-568b-95e1-2665a8aea6a2"]);
}

fn half_references(on: On) {
    let serial = on.choose("INTEGER PRIMARY KEY", "INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY");
    let sql = format!(
        "CREATE TABLE a (id {serial}, n VARCHAR(9)); CREATE TABLE b (id {serial}, n VARCHAR(9), a_id INTEGER REFERENCES a);"
    );
    let tables = "  a: { source: { path: a.csv }, legacy_key: [x, y], columns: { n: \"concat(x, y)\" } }
  b: { source: { path: b.csv }, legacy_key: [n], relationships: [{ column: a_id, from: [x, y], to: a }] }\n";
    let files = [("a.csv", "x,y\np,q\n\\N,q\n"), ("b.csv", "n,x,y\n1,p,q\n2,,q\n3,p,\n4,,\n5,\\N,q\n")];
    let made = Made::new(on, &sql, tables, &files);
    made.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(
        made.rows("SELECT b.n AS m, coalesce(a.n, '-') AS n FROM b LEFT JOIN a ON a.id = b.a_id ORDER BY b.n"),
        ["1|pq", "4|-", "5|\\Nq"]
    );
    let contents = made.place.contents();
    let rejects = contents.iter().find(|(name, _)| name.contains("rejects") && name.ends_with("b.csv")).unwrap();
    assert_eq!(String::from_utf8_lossy(rejects.1).matches("only a part of the reference is NULL").count(), 2);
}

fn shared_part(on: On) {
    let serial = on.choose("INTEGER", "INTEGER GENERATED BY DEFAULT AS IDENTITY");
    let sql = format!(
        "CREATE TABLE product (tenant INTEGER, id {serial}, n VARCHAR(9), PRIMARY KEY (tenant, id));
         CREATE TABLE stock (tenant INTEGER, id {serial}, n VARCHAR(9), product_id INTEGER NOT NULL, other_id INTEGER, PRIMARY KEY (tenant, id),
             FOREIGN KEY (tenant, product_id) REFERENCES product (tenant, id), FOREIGN KEY (tenant, other_id) REFERENCES product (tenant, id));"
    );
    let tables = "  product: { source: { path: product.csv }, legacy_key: [tenant, n], key: { column: id } }
  stock:
    source: { path: stock.csv }
    legacy_key: [tenant, n]
    key: { column: id }
    relationships:
      - { column: product_id, from: [tenant, product], to: product }
      - { column: other_id, from: [tenant, other], to: product }\n";
    let files = [
        ("product.csv", "tenant,n\n1,a\n1,b\n2,a\n"),
        ("stock.csv", "tenant,n,product,other\n1,x,a,b\n1,y,b,\n2,x,a,\n2,y,,a\n2,z,a,b\n"),
    ];
    let made = Made::with(on, &sql, on.choose("load: { lock: table }\n", ""), tables, &files);
    made.pipeline(&["run", "p.yaml"]).passes();
    let found = "SELECT s.tenant, s.n AS m, p.n, coalesce(o.n, '-') AS o FROM stock AS s JOIN product AS p ON p.tenant = s.tenant AND p.id = s.product_id
         LEFT JOIN product AS o ON o.tenant = s.tenant AND o.id = s.other_id ORDER BY 1, 2";
    assert_eq!(made.rows(found), ["1|x|a|b", "1|y|b|-", "2|x|a|-"]);
    // A column that two foreign keys share is filled by one of them.
    let twice = tables
        .replace("column: product_id", "column: [tenant, product_id]")
        .replace("column: other_id", "column: [tenant, other_id]");
    let text = made.place.text("p.yaml").replace(tables, &twice);
    made.place.write("p.yaml", text);
    made.pipeline(&["check", "p.yaml"])
        .fails(78, &["duplicate reference for column `tenant`", "the first of them only"]);
}

fn staged_circle(on: On) {
    let serial = on.choose("INTEGER PRIMARY KEY", "INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY");
    let sql = format!("CREATE TABLE node (id {serial}, n VARCHAR(9), next_id INTEGER REFERENCES node);");
    let tables = "  node: { source: { path: node.csv }, legacy_key: [n], relationships: [{ column: next_id, from: [next], to: node }] }\n";
    let files = [("node.csv", "n,next\na,b\nb,a\nc,a\nd,\ne,e\n")];
    let made = Made::with(on, &sql, "load: { staging: always }\n", tables, &files);
    made.pipeline(&["run", "p.yaml", "--mock"]).passes();
    made.pipeline(&["run", "p.yaml"]).passes();
    let found = "SELECT node.n, next.n AS m FROM node LEFT JOIN node AS next ON next.id = node.next_id ORDER BY 1";
    assert_eq!(
        made.rows(found).iter().map(|row| row.replace("NULL", "")).collect::<Vec<_>>(),
        ["a|b", "b|a", "c|a", "d|", "e|e"]
    );
}

fn by_several(on: On) {
    let serial = on.choose("INTEGER PRIMARY KEY", "INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY");
    let sql = format!(
        "CREATE TABLE shelf (id {serial}, code VARCHAR(9) NOT NULL, place INTEGER NOT NULL, valid_to DATE);
         INSERT INTO shelf (code, place, valid_to) VALUES ('A', 1, '2020-01-01'), ('A', 1, NULL), ('A', 2, NULL), ('B', 1, '2020-01-01'), ('C|', 3, NULL), ('D', 1, NULL), ('D', 1, NULL);
         CREATE TABLE item (id {serial}, n VARCHAR(9), shelf_id INTEGER REFERENCES shelf);"
    );
    let tables = "  item:
    source: { path: item.csv }
    legacy_key: [n]
    relationships:
      - { column: shelf_id, from: [code, place], to: shelf, by: [code, place], where: valid_to IS NULL }\n";
    let made = Made::new(
        on,
        &sql,
        tables,
        &[("item.csv", "n,code,place\n1,A,1\n2,A,2\n3,B,1\n4,C|,3\n5,D,1\n6,,\n7,A,\n8,A,x\n")],
    );
    made.pipeline(&["run", "p.yaml"]).passes();
    let found = "SELECT item.n, shelf.id FROM item LEFT JOIN shelf ON shelf.id = item.shelf_id ORDER BY 1";
    assert_eq!(
        made.rows(found).iter().map(|row| row.replace("NULL", "")).collect::<Vec<_>>(),
        ["1|2", "2|3", "4|5", "6|"]
    );
}

fn composite_reference(on: On) {
    let sql = "CREATE TABLE reading (id INTEGER NOT NULL, read_on DATE NOT NULL, n VARCHAR(9), PRIMARY KEY (id, read_on));
               CREATE TABLE note (n VARCHAR(9) PRIMARY KEY, reading_id INTEGER, reading_on DATE, FOREIGN KEY (reading_id, reading_on) REFERENCES reading (id, read_on));
               INSERT INTO reading VALUES (7, '2020-01-01', 'old');";
    let tables = "  reading: { source: { path: reading.csv }, legacy_key: [n], key: { column: id } }
  note: { source: { path: note.csv }, legacy_key: [n], relationships: [{ column: [reading_id, reading_on], from: [reading], to: reading }] }\n";
    let files =
        [("reading.csv", "n,read_on\na,2024-05-01\nb,2024-06-01\n"), ("note.csv", "n,reading\n1,b\n2,\n3,zz\n4,a\n")];
    let made = Made::with(on, sql, "load: { lock: table }\n", tables, &files);
    made.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(
        made.rows("SELECT note.n AS m, r.id, r.n FROM note JOIN reading AS r ON r.id = reading_id AND r.read_on = reading_on ORDER BY 1"),
        ["1|9|b", "4|8|a"]
    );
    assert_eq!(made.rows("SELECT n FROM note WHERE reading_id IS NULL AND reading_on IS NULL"), ["2"]);
    // A later delta finds the same rows by the key map.
    made.place.write("note.csv", "n,reading\n5,a\n");
    made.place.write("reading.csv", "n,read_on\nc,2024-07-01\n");
    made.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(made.rows("SELECT reading_id, reading_on FROM note WHERE n = '5'"), ["8|2024-05-01"]);
}

fn cycle(on: On) {
    let serial = on.choose("INTEGER PRIMARY KEY", "INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY");
    let deferrable = on.choose("", "ALTER TABLE team ADD FOREIGN KEY (lead_id) REFERENCES player DEFERRABLE;");
    let lead = on.choose("REFERENCES player", "");
    let sql = format!(
        "CREATE TABLE team (id {serial}, name VARCHAR(9) NOT NULL, lead_id INTEGER {lead});
         CREATE TABLE player (id {serial}, name VARCHAR(9) NOT NULL, team_id INTEGER NOT NULL REFERENCES team); {deferrable}"
    );
    let tables = "  player: { source: { path: player.csv }, legacy_key: [name], relationships: [{ column: team_id, from: [team], to: team }] }
  team: { source: { path: team.csv }, legacy_key: [name], relationships: [{ column: lead_id, from: [lead], to: player }] }\n";
    // Red's lead is nowhere, so Red, its players, and the team of one of them go with it.
    let files = [
        ("team.csv", "name,lead\nBlue,Ann\nRed,nobody\nGray,Cy\nGold,\n"),
        ("player.csv", "name,team\nAnn,Blue\nBob,Gold\nCy,Red\nDee,Gray\n"),
    ];
    let made = Made::new(on, &sql, tables, &files);
    made.pipeline(&["run", "p.yaml", "--mock"]).passes();
    made.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(
        made.rows(
            "SELECT t.name AS team, coalesce(l.name, '-') AS lead FROM team AS t LEFT JOIN player AS l ON l.id = t.lead_id ORDER BY 1"
        ),
        ["Blue|Ann", "Gold|-"]
    );
    assert_eq!(
        made.rows("SELECT p.name AS player, t.name FROM player AS p JOIN team AS t ON t.id = p.team_id ORDER BY 1"),
        ["Ann|Blue", "Bob|Gold"]
    );
    made.pipeline(&["rollback", "p.yaml", &made.run_id()]).passes();
    assert_eq!(made.rows("SELECT (SELECT count(*) FROM team) + (SELECT count(*) FROM player)"), ["0"]);
}

#[test]
fn a_cycle_checked_row_by_row_is_refused_with_what_helps() {
    let sql = "CREATE TABLE a (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n text, b_id int);
               CREATE TABLE b (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n text, a_id int REFERENCES a);
               ALTER TABLE a ADD CONSTRAINT a_to_b FOREIGN KEY (b_id) REFERENCES b;";
    let database = Server::shared().database(sql);
    let place = Place::new();
    place.write("a.csv", "n,b\n1,1\n");
    place.write("b.csv", "n,a\n1,1\n");
    let text = "version: 1\nname: k\ntarget: { url: '${DATABASE_URL}' }\nload: { foreign_keys: HOW }\ntables:
  a: { source: { path: a.csv }, legacy_key: [n], relationships: [{ column: b_id, from: [b], to: b }] }
  b: { source: { path: b.csv }, legacy_key: [n], relationships: [{ column: a_id, from: [a], to: a }] }\n";
    let check = || place.pipeline_with(&["check", "p.yaml"], &[("DATABASE_URL", &database.url())]);
    place.write("p.yaml", text.replace("HOW", "triggers"));
    check().fails(78, &["`a` and `b` refer to each other", "`a_to_b` of `a`", "deferrable", "set_based"]);
    place.write("p.yaml", text.replace("HOW", "set_based"));
    check().passes();
    place.write("p.yaml", text.replace("HOW", "triggers"));
    database.execute("ALTER TABLE a ALTER CONSTRAINT a_to_b DEFERRABLE");
    check().passes();
}

#[test]
fn a_circle_that_cannot_be_deferred_is_rolled_back() {
    let sql = "CREATE TABLE region (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n text);
               CREATE TABLE a (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n text, b_id int, region_id int REFERENCES region);
               CREATE TABLE b (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n text, a_id int REFERENCES a ON DELETE RESTRICT);
               CREATE TABLE part (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n text, b_id int NOT NULL REFERENCES b);
               ALTER TABLE a ADD FOREIGN KEY (b_id) REFERENCES b;";
    let tables = "  region: { source: { path: region.csv }, legacy_key: [n] }
  a: { source: { path: a.csv }, legacy_key: [n], relationships: [{ column: b_id, from: [b], to: b }, { column: region_id, from: [r], to: region }] }
  b: { source: { path: b.csv }, legacy_key: [n], relationships: [{ column: a_id, from: [a], to: a }] }
  part: { source: { path: part.csv }, legacy_key: [n], relationships: [{ column: b_id, from: [b], to: b }] }\n";
    let files = [
        ("region.csv", "n\nr\n"),
        ("a.csv", "n,b,r\n1,2,r\n2,1,\n3,,r\n"),
        ("b.csv", "n,a\n1,2\n2,1\n"),
        ("part.csv", "n,b\n1,1\n2,2\n"),
    ];
    let made = Made::with(On::Postgres, sql, "load: { foreign_keys: set_based }\n", tables, &files);
    made.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(made.rows("SELECT a.n, b.n FROM a LEFT JOIN b ON b.id = a.b_id ORDER BY 1"), ["1|2", "2|1", "3|NULL"]);
    let run = made.run_id();
    made.pipeline(&["rollback", "p.yaml", &run, "--dry-run"]).passes();
    made.pipeline(&["rollback", "p.yaml", &run]).passes();
    let counts = "SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b) + (SELECT count(*) FROM part) + (SELECT count(*) FROM region)";
    assert_eq!(made.rows(counts), ["0"]);
}

fn defaults(on: On) {
    let sql = on.choose(
        "CREATE TABLE t (id TEXT PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))), n TEXT); CREATE TABLE u (a INTEGER, b INTEGER DEFAULT 5, n TEXT, t_id TEXT REFERENCES t, PRIMARY KEY (a, b));",
        "CREATE TABLE t (id text PRIMARY KEY DEFAULT md5(random()::text), n text); CREATE TABLE u (a int, b int DEFAULT 5, n text, t_id text REFERENCES t, PRIMARY KEY (a, b));",
    );
    let tables = "  t: { source: { path: t.csv }, legacy_key: [n] }
  u: { source: { path: u.csv }, legacy_key: [n], relationships: [{ column: t_id, from: [t], to: t }] }\n";
    let files = [("t.csv", "n\nx\ny\n"), ("u.csv", "n,a,t\n1,1,x\n2,2,y\n3,3,z\n")];
    let made = Made::new(on, sql, tables, &files);
    made.pipeline(&["run", "p.yaml", "--mock"]).passes();
    made.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(made.rows("SELECT u.n AS m, t.n, b FROM u JOIN t ON t.id = t_id ORDER BY 1"), ["1|x|5", "2|y|5"]);
    assert_eq!(made.rows("SELECT count(DISTINCT id) FROM t"), ["2"]);
    made.pipeline(&["keymap", "verify", "p.yaml"]).passes();
    made.pipeline(&["rollback", "p.yaml", &made.run_id()]).passes();
    assert_eq!(made.rows("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM u)"), ["0"]);
    made.execute("DROP TABLE u; DROP TABLE t;");
}

#[test]
fn tables_of_several_schemas_load_in_one_run() {
    let sql = "CREATE SCHEMA sales; CREATE SCHEMA hr;
               CREATE TABLE sales.customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
               CREATE TABLE hr.customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
               CREATE TABLE \"order\" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n text, sold_to int REFERENCES sales.customer, sold_by int REFERENCES hr.customer);
               INSERT INTO hr.customer (name) VALUES ('boss');";
    let tables = "  sales.customer: { source: { path: sales.csv }, legacy_key: [name] }
  hr.customer: { source: { path: hr.csv }, legacy_key: [name] }
  order:
    source: { path: order.csv }
    legacy_key: [n]
    relationships: [{ column: sold_to, from: [to], to: sales.customer }, { column: sold_by, from: [by], to: hr.customer }]\n";
    let files =
        [("sales.csv", "name\nx\ny\n"), ("hr.csv", "name\nx\n"), ("order.csv", "n,to,by\n1,y,x\n2,x,x\n3,y,y\n")];
    let made = Made::new(On::Postgres, sql, tables, &files);
    made.pipeline(&["run", "p.yaml", "--mock"]).passes();
    made.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(made.rows("SELECT n, sold_to, sold_by FROM \"order\" ORDER BY n"), ["1|2|2", "2|1|2"]);
    made.pipeline(&["rollback", "p.yaml", &made.run_id()]).passes();
    assert_eq!(made.rows("SELECT count(*) FROM sales.customer"), ["0"]);
    assert_eq!(made.rows("SELECT count(*) FROM hr.customer"), ["1"]);
}

#[test]
fn a_mapping_of_a_table_that_is_only_referred_to_is_imported() {
    let sql = "CREATE TABLE region (id int PRIMARY KEY, name text); INSERT INTO region VALUES (7, 'north');
               CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n text, region_id int NOT NULL REFERENCES region);";
    let tables = "  t: { source: { path: t.csv }, legacy_key: [n], relationships: [{ column: region_id, from: [r], to: region }] }\n";
    let files = [("t.csv", "n,r\n1,R7\n"), ("map.csv", "legacy_key,id\nR7,7\n")];
    let made = Made::new(On::Postgres, sql, tables, &files);
    made.pipeline(&["keymap", "import", "p.yaml", "map.csv", "--table", "region"]).passes();
    let registered = "SELECT table_name, is_loaded::text FROM delta.loaded_table ORDER BY 1";
    assert_eq!(made.rows(registered), ["public.region|false", "public.t|true"]);
    made.pipeline(&["run", "p.yaml"]).passes();
    assert_eq!(made.rows("SELECT n, region_id FROM t"), ["1|7"]);
}
