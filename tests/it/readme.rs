//! The README's outputs are those that its commands print.

use crate::support::{Place, REPOSITORY, strings};

/// The blocks of a kind of the README, in order.
fn blocks(kind: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(std::path::Path::new(REPOSITORY).join("README.md")).unwrap();
    let begins = format!("\n```{kind}\n");
    readme.split(&begins).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// Without what differs from run to run: the run's id and the seconds.
fn steady(output: &str) -> String {
    let digit = |char: char| char.is_ascii_digit();
    let plain = |line: &str| match line {
        _ if line.starts_with("  run 2") || line.contains(" by run ") || line.starts_with("  rejects:") => {
            line.chars().filter(|char| !char.is_ascii_hexdigit()).collect()
        }
        // The time of a step, and not what went through it.
        _ => match line.rsplit_once(" s") {
            Some((before, rest)) if before.ends_with(digit) && (rest.is_empty() || rest.starts_with(' ')) => {
                format!("{} s{rest}", before.trim_end_matches(|char| digit(char) || char == '.').trim_end())
            }
            _ => line.to_owned(),
        },
    };
    output.trim_end().lines().map(|line| plain(line) + "\n").collect()
}

#[test]
fn the_outputs_in_the_readme_are_what_its_commands_print() {
    let place = Place::samples();
    let ran = place.pipeline(&["run", "pipelines/customer-delta.yaml"]);
    assert_eq!(steady(&blocks("text")[0]), steady(&ran.passes().stdout));

    let sessions = blocks("console");
    let queries: Vec<_> = sessions[0].split("$ sqlite3 pipelines/customer.db \"").skip(1).collect();
    assert_eq!(queries.len(), 3);
    for query in queries {
        let (sql, answer) = query.split_once("\"\n").unwrap();
        let database = place.open("pipelines/customer.db");
        let statement = database.prepare(sql).unwrap();
        let columns: Vec<_> = statement.column_names().map(|name| format!("ifnull(\"{name}\", '')")).collect();
        let found = strings(&database, &format!("SELECT {} FROM ({sql})", columns.join(" || '|' || ")));
        assert_eq!(found.join("\n"), answer.trim_end(), "{sql}");
    }

    let again = place.pipeline(&["run", "pipelines/customer-delta.yaml"]);
    assert_eq!(again.code, 77);
    let (_, said) = sessions[1].split_once('\n').unwrap();
    assert_eq!(steady(said), steady(&again.stderr));
}

#[test]
fn the_session_with_conversion_mode_is_what_its_commands_print() {
    let place = Place::new();
    place.database("live.db", "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)");
    place.write("item.csv", "id,name\n1,a\n");
    place.write(
        "delta.yaml",
        "version: 1\nname: d\ntarget: { url: 'sqlite:live.db' }\nsafeguards: { conversion_mode: required }\ntables:\n  item:\n    source: { path: item.csv }\n    legacy_key: [id]\n",
    );
    let session = &blocks("console")[2];
    let [_, run, mode] = session.split("$ pipeline ").collect::<Vec<_>>().try_into().unwrap();
    let refused = place.pipeline(&["run", "delta.yaml"]);
    assert_eq!(refused.code, 77);
    assert_eq!(run, format!("run delta.yaml\n{}", refused.stderr));
    let on = place.pipeline(&["mode", "on", "delta.yaml", "--for", "2h", "--reason", "the village of Lindtal"]);
    // Without who and when.
    let plain = |text: &str| {
        let line = |line: &str| match line.split_once(" switched it on ") {
            Some((_, rest)) => format!("  eve switched it on {rest}\n"),
            None => format!("{line}\n"),
        };
        text.lines().map(line).collect::<String>().replace(|char: char| char.is_ascii_digit(), "0")
    };
    assert_eq!(plain(mode.split_once('\n').unwrap().1), plain(&on.passes().stdout));
}

#[cfg(feature = "failpoints")]
#[test]
fn session_with_an_interrupted_run_prints_as_shown() {
    let place = Place::samples();
    let run = ["run", "pipelines/customer-delta.yaml"];
    assert_eq!(place.pipeline_with(&run, &[("FAILPOINTS", "inserting=return")]).code, -9, "it is killed");
    let sessions = blocks("console");
    let session = sessions.iter().find(|session| session.contains("was interrupted")).unwrap();
    let refused = place.pipeline(&run);
    assert_eq!(refused.code, 75);
    // Without which run it is, who began with it, and when.
    let plain = |text: &str| -> String {
        let who = text.split("; ").nth(1).unwrap().split(" began").next().unwrap();
        text.replace(who, "somebody").replace(|char: char| char.is_ascii_hexdigit(), "0")
    };
    assert_eq!(plain(session.split_once('\n').unwrap().1), plain(refused.stderr.trim_end()));
}

#[test]
fn run_is_rolled_back_as_the_readme_shows() {
    let place = Place::samples();
    let run = place.report(&["run", "pipelines/customer-delta.yaml"], 0)["run"].as_str().unwrap().to_owned();
    let session = blocks("console").into_iter().find(|block| block.starts_with("$ pipeline rollback")).unwrap();
    let (_, meant) = session.split_once('\n').unwrap();
    let told = place.pipeline(&["rollback", "pipelines/customer-delta.yaml", &run]);
    assert_eq!(steady(meant), steady(&told.passes().stdout));
}

#[test]
fn annotations_are_those_of_the_readme() {
    let place = Place::samples();
    let session = blocks("console").into_iter().find(|block| block.contains("--output github")).unwrap();
    let (_, meant) = session.split_once('\n').unwrap();
    let ran = place.pipeline(&["validate", "pipelines/customer-delta.yaml", "--output", "github"]);
    let first: Vec<_> = ran.passes().stdout.lines().take(4).collect();
    assert_eq!(meant, first.join("\n"));
}

#[test]
fn session_that_makes_a_pipeline_file_prints_as_shown() {
    let place = Place::samples_with_production();
    let session = blocks("console").into_iter().find(|block| block.starts_with("$ pipeline init")).unwrap();
    for part in session.split("$ pipeline ").skip(1) {
        let (command, meant) = part.split_once('\n').unwrap();
        let ran = place.pipeline(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.passes().stdout.trim_end(), meant.trim_end(), "{command}");
    }
    let yaml = blocks("yaml").into_iter().find(|block| block.starts_with("  meter_read:\n    source:")).unwrap();
    let made = place.text("pipelines/reads.yaml");
    assert!(made.trim_end().ends_with(&yaml), "{made}");
}
