//! Data, file names and names of the pipeline file that would rather be markup, commands or formulas.

use crate::support::Place;

const SCRIPT: &str = "<script>hacked = 1</script>";
/// Values that mean something to one format or another.
const VALUES: [&str; 12] = [
    SCRIPT,
    "\"><img src=x onerror=hacked=1>",
    "</td></table><style>*{display:none}</style>",
    "]]></failure></testcase>",
    "::error file=x::y",
    "a | b\n\n# heading",
    "[link](javascript:alert(1)) `code` ![x](http://127.0.0.1/x.png)",
    "\u{1b}[31mred\u{1b}[0m\u{7}\u{9b}2J",
    "right\u{202e}left",
    "=1+1\u{b}\u{ffff}",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; 'single' \"double\"",
];
const FILE: &str = "it's \"<b>$(x)&;[a](b)|é\u{202e}.csv";
const TABLE: &str = "we\"ird<i>'t|able";

/// A delta whose every value fails a check with a name of its own.
pub fn place() -> Place {
    let place = Place::new();
    place.database(
        "live.db",
        &format!("CREATE TABLE \"{}\" (id INTEGER PRIMARY KEY, ref TEXT, name TEXT)", TABLE.replace('"', "\"\"")),
    );
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["ref", "name"]).unwrap();
    for (number, value) in VALUES.iter().enumerate() {
        writer.write_record([&number.to_string(), *value]).unwrap();
    }
    place.write(&format!("in/{FILE}"), writer.into_inner().unwrap());
    let text = serde_json::json!({
        "version": 1, "name": "hostile", "target": { "url": "sqlite:live.db" },
        "tables": { TABLE: {
            "source": { "path": "in/*.csv" }, "legacy_key": ["ref"], "key": { "column": "id" }, "max_rejects": "100%",
            "checks": [
                { "accepted_values": { "column": "name", "values": ["fine"] }, "name": "<img src=x onerror=hacked=1>::|`" },
                { "expression": "name = 'fine'", "severity": "warn", "name": "warned \"'<b>" },
            ],
        } },
    });
    place.write("p.yaml", format!("{text:#}"));
    place
}

/// No control character but line breaks and tabs, and nothing that turns the order of text.
fn assert_harmless(what: &str, text: &str) {
    let harmful = text.chars().find(|char| {
        (char.is_control() && !matches!(char, '\n' | '\t'))
            || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{ffff}')
    });
    assert_eq!(harmful, None, "{what}: {text:?}");
}

#[test]
fn no_format_lets_a_value_a_file_or_a_name_out_of_its_place() {
    let place = place();
    let ran = place.pipeline(&["validate", "p.yaml", "--report", "html=r.html,junit=r.xml,md=r.md,json=r.json"]);
    assert_harmless("stdout", &ran.passes().stdout);
    for name in ["r.html", "r.xml", "r.md"] {
        assert_harmless(name, &place.text(name));
    }

    let html = place.text("r.html");
    assert!(!html.contains("<img") && !html.contains(SCRIPT) && !html.contains("<b>$(x)"), "{html}");
    assert_eq!(html.matches("<script>").count(), 1);
    assert!(html.contains("&#60;script&#62;hacked = 1&#60;/script&#62;"));

    // Well-formed: what an XML parser of another house reads is what was said.
    let xml = place.text("r.xml");
    let suites = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    let [suite] = suites.test_suites.as_slice() else { panic!("{xml}") };
    assert_eq!(suite.name.as_str(), TABLE);
    let told: String = suite
        .test_cases
        .iter()
        .filter_map(|case| case.system_out.as_ref())
        .map(quick_junit::XmlString::as_str)
        .collect();
    assert!(told.contains(SCRIPT) && told.contains("]]></failure></testcase>"), "{told}");

    let markdown = place.text("r.md");
    for line in markdown.lines().filter(|line| line.starts_with('|')) {
        assert!([7, 8].contains(&line.matches('|').count()), "a cell of its own: {line}");
    }
    assert!(
        !markdown
            .replace("<!-- delta-pipeline report -->", "")
            .replace("<sub>", "")
            .replace("</sub>", "")
            .contains('<'),
        "{markdown}"
    );
    assert!(!markdown.contains('[') && !markdown.contains('`'), "{markdown}");

    let ran = place.pipeline(&["validate", "p.yaml", "--output", "github"]);
    assert_harmless("annotations", &ran.passes().stdout);
    for line in ran.stdout.lines() {
        assert!(["::warning file=p.yaml,line=", "::warning::"].iter().any(|begin| line.starts_with(begin)), "{line}");
    }
    let of_check = ran.stdout.lines().find(|line| line.contains("onerror")).unwrap();
    assert!(
        of_check.contains(",title=we\"ird<i>'t|able%3A <img src=x onerror=hacked=1>%3A%3A|`::12 rows rejected: "),
        "{of_check}"
    );
}

#[test]
fn no_command_lets_a_name_or_a_value_drive_the_terminal() {
    let place = Place::new();
    let table = "wo\u{1b}[2Jrse\u{202e}\u{9b}1m";
    place.database(
        "live.db",
        &format!("CREATE TABLE \"{table}\" (id INTEGER PRIMARY KEY, ref TEXT, name TEXT NOT NULL)"),
    );
    let pipeline = serde_json::json!({
        "version": 1, "name": "hostile", "target": { "url": "sqlite:live.db" }, "safeguards": { "backup": "store" },
        "tables": { table: {
            "source": { "path": "in/*.csv" }, "legacy_key": ["ref"], "key": { "column": "id" }, "max_rejects": "100%",
            "checks": [{ "matches": { "column": "name", "pattern": "^fine" }, "name": "named \u{1b}]0;x\u{7}" }],
        } },
    });
    // YAML refuses this character as it is.
    place.write("p.yaml", format!("{pipeline:#}").replace('\u{9b}', "\\u009b"));
    place.write("in/\u{1b}[31m.csv", "ref,name\na,fine\nb\u{1b}[1m,\u{9b}2J\u{202e}\n");
    let report = place.report(&["validate", "p.yaml"], 0);
    assert_eq!(report["tables"][0]["name"], table, "JSON tells the name as it is");
    let commands = [
        "check p.yaml",
        "plan p.yaml",
        "explain p.yaml",
        "explain p.yaml --analyze",
        "run p.yaml --verbose",
        "runs p.yaml",
        "report p.yaml",
        "keymap list p.yaml",
        "keymap verify p.yaml",
        "keymap backup p.yaml",
        "rollback p.yaml \u{1b}[31m",
        "check \u{1b}[31m.yaml",
        "no\u{1b}[31m",
    ];
    for command in commands {
        for output in ["text", "json", "github"] {
            let arguments: Vec<_> = command.split(' ').chain(["--output", output]).collect();
            let ran = place.pipeline(&arguments);
            assert!(!ran.stdout.is_empty() || !ran.stderr.is_empty() || output == "github", "{command}");
            assert_harmless(command, &ran.stdout);
            assert_harmless(command, &ran.stderr);
        }
    }
}

#[test]
fn no_reject_csv_field_is_a_formula_and_all_read_back() {
    let values = ["=1+1", "+49 171 123", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "-5", "'quoted'"];
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["ref", "=name"]).unwrap();
    for (number, value) in values.iter().enumerate() {
        writer.write_record([&number.to_string(), *value]).unwrap();
    }
    let place = Place::new();
    place.database("live.db", "CREATE TABLE item (id INTEGER PRIMARY KEY, ref TEXT, name TEXT)");
    place.write("item.csv", writer.into_inner().unwrap());
    let pipeline = |path: &str, accepted: &str| {
        format!(
            "version: 1\nname: formulas\ntarget: {{ url: 'sqlite:live.db' }}\ntables:\n  item:\n    source: {{ path: '{path}' }}\n    legacy_key: [ref]\n    key: {{ column: id }}\n    max_rejects: 100%\n    columns: {{ name: '\"=name\"' }}\n    checks:\n      - expression: name {accepted} 'none of them'\n"
        )
    };
    place.write("p.yaml", pipeline("item.csv", "="));
    let report = place.report(&["run", "p.yaml"], 0);
    assert_eq!(report["tables"][0]["rejected"], values.len());
    let rejects = place.rejects(&report);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(rejects.join("item.csv")).unwrap();
    let fields: Vec<_> =
        reader.records().flat_map(|record| record.unwrap().iter().map(str::to_owned).collect::<Vec<_>>()).collect();
    let formulas: Vec<_> =
        fields.iter().filter(|field| field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])).collect();
    assert!(formulas.iter().all(|field| *field == "-5"), "{formulas:?}");
    assert!(fields.contains(&"'=name".to_owned()), "{fields:?}");

    // Loaded from the CSV, and from Parquet, where they are exact.
    for file in ["item.csv", "item.parquet"] {
        place.write("again.yaml", pipeline(&rejects.join(file).display().to_string(), "<>"));
        place.pipeline(&["run", "again.yaml"]).passes();
        let database = place.open("live.db");
        let loaded = crate::support::strings(&database, "SELECT name FROM item ORDER BY ref");
        assert_eq!(loaded, values, "{file}");
        place.database("live.db", "DELETE FROM item; DELETE FROM delta_mapping_item");
    }
}

#[test]
fn reject_files_of_any_name_stay_in_their_folder_and_are_linked() {
    let place = place();
    let report = place.report(&["validate", "p.yaml", "--report", "html=r.html"], 0);
    let html = place.text("r.html");
    let mut files: Vec<String> = std::fs::read_dir(place.rejects(&report))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["we%22ird%3Ci%3E%27t%7Cable.csv", "we%22ird%3Ci%3E%27t%7Cable.parquet"]);
    assert!(html.contains(&format!("/rejects/{}\"", files[0].replace('%', "%25"))), "{html}");
}
