//! Secrets stay secret: canaries are planted wherever a password can stand, and everything that is written is searched for them.

use crate::server::Server;
use crate::support::{Place, tell};

/// A canary: a text that is nowhere else, and needs no escaping in a URL.
fn canary(number: usize) -> String {
    format!("cAnary{number:02}x7q")
}

/// Searches for canaries, in any case, also as they stand in URLs.
struct Search {
    found: Vec<String>,
    places: usize,
}

impl Search {
    fn look(&mut self, place: &str, bytes: &[u8]) {
        self.places += 1;
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        for number in 1..=99 {
            let wanted = canary(number).to_lowercase();
            // Half of a secret is one too.
            for wanted in [wanted.as_str(), &wanted[2..]] {
                if let Some(at) = text.find(wanted) {
                    let around: String =
                        text[text.floor_char_boundary(at.saturating_sub(60))..].chars().take(100).collect();
                    self.found.push(format!("number {number} in {place}: …{around}…"));
                    break;
                }
            }
        }
    }

    fn run(&mut self, place: &Place, command: &[&str], env: &[(&str, &str)]) -> i32 {
        let ran = place.pipeline_with(command, env);
        let shown: Vec<_> = command.iter().take(2).copied().collect();
        self.look(&format!("stdout of {}", shown.join(" ")), ran.stdout.as_bytes());
        self.look(&format!("stderr of {}", shown.join(" ")), ran.stderr.as_bytes());
        ran.code
    }

    /// All files but those that the test wrote itself.
    fn files(&mut self, place: &Place, own: &[&str]) {
        for (name, bytes) in place.contents() {
            if !own.contains(&name.as_str()) {
                // The store has the name that it was given.
                let name = name.replace(&canary(2), "***");
                self.look("the name of a file", name.as_bytes());
                self.look(&format!("the file {name}"), &bytes);
            }
        }
    }
}

const TABLES: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL UNIQUE, kind VARCHAR(20));";

/// A pipeline whose target, store, checks and names come from wherever a test wants.
fn pipeline(url: &str, more: &str) -> String {
    format!(
        "version: 1\nname: birds\n{url}\nsafeguards: {{ max_rejects: 90%, conversion_mode: off{more} }}\nload: {{ lock: table }}\ntables:\n  item:\n    source: {{ path: 'in/*.csv' }}\n    \
         legacy_key: [ref]\n    key: {{ column: id }}\n    checks:\n      - accepted_values: {{ column: kind, values: [a, b, '${{KIND:-c}}'] }}\n"
    )
}

fn place() -> Place {
    let place = Place::new();
    place.write("in/item.csv", "ref,name,kind\nA,Ada,a\nB,Bo,b\nC,Cy,zzz\nD,Ada,a\nE\n");
    place
}

#[test]
fn no_canary_of_url_variable_or_passfile_is_written() {
    let server = Server::shared();
    let database = server.database(&format!("CREATE SCHEMA staging; {TABLES}"));
    let (host, name) = (database.url().rsplit_once('@').unwrap().1.to_owned(), database.name.clone());
    let role = format!("bird_{name}");
    // 1: the password that is right.
    database.execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{}'", canary(1)));
    let right = database.url_as(&role, &canary(1));
    let wrong = |number: usize| database.url_as(&role, &canary(number));
    let place = place();
    let mut search = Search { found: Vec::new(), places: 0 };
    let variable = pipeline("target: { url: '${DATABASE_URL}' }", ", backup: './${STORE}'");
    place.write("p.yaml", &variable);
    // 2: the name of a store; 3: a value that is accepted; both are the environment's.
    let (store, kind) = (canary(2), canary(3));
    let env = [
        ("DATABASE_URL", right.as_str()),
        ("STORE", store.as_str()),
        ("KIND", kind.as_str()),
        ("PIPELINE_OWNER", "postgres"),
    ];
    for (command, code) in [
        (&["check", "p.yaml", "-v"][..], 0),
        (&["explain", "p.yaml", "--analyze"], 0),
        (&["validate", "p.yaml", "--report", "json=v.json,html=v.html,junit=v.xml,md=v.md"], 0),
        (&["setup", "p.yaml", "--print"], 0),
        (&["setup", "p.yaml"], 0),
        (&["plan", "p.yaml", "--out", "plan.json"], 0),
        (&["run", "p.yaml", "--mock", "--output", "json"], 0),
        (&["run", "p.yaml", "--verbose", "--report", "json=run.json,html=run.html,junit=run.xml,md=run.md"], 0),
        (&["run", "p.yaml"], 77),
        (&["run", "p.yaml", "--output", "github"], 77),
        (&["runs", "p.yaml"], 0),
        (&["report", "p.yaml", "--report", "html=again.html,md=again.md"], 0),
        (&["runs", "p.yaml", "--output", "json"], 0),
        (&["keymap", "backup", "p.yaml"], 0),
        (&["keymap", "list", "p.yaml"], 0),
        (&["keymap", "verify", "p.yaml"], 0),
        (&["keymap", "restore", "p.yaml"], 0),
        (&["mode", "status", "p.yaml"], 0),
        (&["init", "--from", &right, "--delta", "in", "-o", "made.yaml"], 0),
        (&["init", "--from", &right], 0),
    ] {
        let found = search.run(&place, command, &env);
        assert_eq!(found, code, "{}", command[0..2].join(" "));
        if command == ["setup", "p.yaml"] {
            database.execute(crate::production::NO_MODE);
        }
    }
    let without = ["KIND", "STORE"].map(|name| (name, "plain"));
    // 4 to 9: passwords that are wrong, wherever they come from.
    let (url4, url5) = (wrong(4), wrong(5));
    assert_eq!(search.run(&place, &["check", "p.yaml"], &[("DATABASE_URL", &url4), without[0], without[1]]), 69);
    assert_eq!(search.run(&place, &["check", "p.yaml", "--target", &url5], &env), 69);
    let bare = format!("postgres://{role}@{host}");
    let (password6, password8) = (canary(6), canary(8));
    let env6 = [("DATABASE_URL", bare.as_str()), ("PGPASSWORD", &password6), without[0], without[1]];
    assert_eq!(search.run(&place, &["check", "p.yaml"], &env6), 69);
    let passfile = place.path("passwords");
    place.write("passwords", format!("*:*:*:*:{}\n", canary(7)));
    set_private(&passfile);
    let file = passfile.display().to_string();
    let env7 = [("DATABASE_URL", bare.as_str()), ("PGPASSFILE", &file), without[0], without[1]];
    assert_eq!(search.run(&place, &["check", "p.yaml"], &env7), 69);
    let code = search.run(&place, &["init", "--from", &format!("{bare}?password={password8}")], &[]);
    assert!([69, 78].contains(&code), "{code}");
    assert_eq!(search.run(&place, &["init", "--from", &wrong(9), "-o", "not.yaml"], &[]), 69);
    // 10 to 17: URLs that are wrong themselves.
    for url in [
        format!("postgres://u:{}@nowhere.invalid/d", canary(10)),
        format!("postgres://u:{}@127.0.0.1:1/d", canary(11)),
        format!("postgres://u:{}@h:port/d", canary(12)),
        format!("postgres://u:{}@h/d?unknown=1", canary(13)),
        format!("postgres://h/d?secret={}", canary(14)),
        format!("mysql://u:{}@h/d", canary(15)),
        format!("postgres:/u:{}@h/d", canary(16)),
        format!("postgres://u:p%20{}%zz@h/d", canary(17)),
    ] {
        for command in [&["init", "--from", &url][..], &["validate", "p.yaml", "--target", &url]] {
            let code = search.run(&place, command, &env);
            assert!([64, 69, 78].contains(&code), "{}: {code}", url.split(':').next().unwrap());
        }
        let env = [("DATABASE_URL", url.as_str()), without[0], without[1]];
        for output in ["text", "json", "github"] {
            let code = search.run(&place, &["run", "p.yaml", "--output", output], &env);
            assert!([69, 78].contains(&code), "{code}");
        }
    }
    // 18 and 19: passwords that stand in the file, where a mistake is beside them.
    place.write(
        "literal.yaml",
        pipeline(&format!("target: {{ url: 'postgres://u:{}@127.0.0.1:1/d', sheme: x }}", canary(18)), ""),
    );
    place.write(
        "store.yaml",
        pipeline("target: { url: 'sqlite:a.db' }", &format!(", backup: 's3://key:{}@bucket/x'", canary(19))),
    );
    // 20: a file that is no YAML.
    place.write("broken.yaml", pipeline(&format!("target: {{ url: 'postgres://u:{}@127.0.0.1:1/d' ]", canary(20)), ""));
    place.write("plain.yaml", pipeline(&format!("target: {{ url: 'postgres://u:{}@127.0.0.1:1/d' }}", canary(21)), ""));
    for file in ["literal.yaml", "store.yaml", "broken.yaml", "plain.yaml"] {
        for output in ["text", "json", "github"] {
            let code = search.run(&place, &["check", file, "--output", output], &[]);
            assert!([69, 78].contains(&code), "{file}: {code}");
        }
    }
    // 22 to 26: the command line.
    let var = format!("KIND={}", canary(22));
    search.run(&place, &["validate", "p.yaml", "--var", &var], &env);
    search.run(&place, &["validate", "p.yaml", "--var", &canary(23)], &env);
    search.run(&place, &["validate", "p.yaml", &format!("--traget=postgres://u:{}@h/d", canary(24))], &env);
    search.run(&place, &["validate", "p.yaml", &format!("postgres://u:{}@h/d", canary(25))], &env);
    let target = wrong(26);
    search.run(&place, &["validate", "p.yaml"], &[("PIPELINE_TARGET", &target), without[0], without[1]]);
    // 27: a value of the environment in SQL that fails, and in a name.
    let token = canary(27);
    for check in [
        "expression: name <> '${TOKEN}' +",
        "expression: '${TOKEN}(name) = 1'",
        "sql: SELECT * FROM \"${TOKEN}\"",
        "unique: ['${TOKEN}']",
    ] {
        place.write("sql.yaml", format!("{variable}      - {check}\n"));
        let env = [env[0], env[1], env[2], ("TOKEN", token.as_str())];
        assert_eq!(search.run(&place, &["check", "sql.yaml"], &env), 78, "{check}");
    }
    search.files(&place, &["passwords", "literal.yaml", "store.yaml", "broken.yaml", "plain.yaml"]);
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('delta', 'staging', 'public')";
    for table in database.rows(tables).concat() {
        let rows = database.rows(&format!("SELECT t::text FROM {table} AS t"));
        search.look(&format!("the table {table}"), rows.concat().join("\n").as_bytes());
    }
    assert!(database.number("SELECT count(*) FROM delta.event") > 0, "the journal was searched");
    database.execute(&format!("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"));
    assert!(search.found.is_empty(), "canaries were seen:\n{}", search.found.join("\n"));
    assert!(place.files().keys().any(|name| name.ends_with("journal.ndjson")), "the journal's mirror was searched");
    tell(&format!("27 canaries, seen in none of {} streams, files and tables", search.places));
}

#[test]
fn a_search_finds_a_canary() {
    let mut search = Search { found: Vec::new(), places: 0 };
    search.look("here", format!("postgres://u:{}@h", canary(5)).as_bytes());
    search.look("there", b"nothing");
    assert_eq!(search.found.len(), 1, "{:?}", search.found);
}

fn set_private(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}
