//! What a run leaves is the user's own: who may read its files, and what it takes from the environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::Place;

/// A load with a reject, a backup, a report, and a mirrored journal.
fn loaded(settings: &str) -> Place {
    let place = Place::new();
    place.database(
        "live.db",
        "CREATE TABLE person (person_id INTEGER PRIMARY KEY, ref TEXT, name TEXT NOT NULL, born DATE)",
    );
    place.write("person.csv", "ref,name,born\nP-1,Ann,1990-01-01\nP-2,Bob,31.12.1990\n");
    let pipeline = "version: 1\nname: people\ntarget: { url: \"sqlite:live.db\" }\n\
        safeguards: { max_rejects: 1, backup: ./store }\n\
        tables:\n  person: { source: { path: person.csv }, legacy_key: [ref], key: { column: person_id } }\n";
    place.write("p.yaml", format!("{pipeline}{settings}"));
    // A umask that takes nothing away.
    let program = assert_cmd::cargo::cargo_bin("pipeline");
    let command = format!("umask 0; exec {} run p.yaml --report json=r.json,html=r.html", program.display());
    let ran = Command::new("sh").args(["-c", &command]).current_dir(place.path("")).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    place
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// Holds the modes of all files and folders that a run left.
fn assert_modes(place: &Place, files: u32, folders: u32) {
    let mut left = 0;
    for name in
        place.contents().into_keys().filter(|name| ["runs/", "store/", "r."].iter().any(|of| name.starts_with(of)))
    {
        assert_eq!(format!("{:o}", mode(&place.path(&name))), format!("{files:o}"), "{name}");
        left += 1;
        let mut folder = Path::new(&name).parent().unwrap();
        while !folder.as_os_str().is_empty() {
            let path = place.path(folder.to_str().unwrap());
            assert_eq!(format!("{:o}", mode(&path)), format!("{folders:o}"), "{}", folder.display());
            folder = folder.parent().unwrap();
        }
    }
    assert!(left >= 9, "two rejects, two reports and the kept one, a journal, and a store of three: {left}");
}

#[test]
fn only_the_user_reads_what_a_run_leaves() {
    let place = loaded("");
    assert_modes(&place, 0o600, 0o700);
    // As does what another command writes there.
    let run = place.report(&["report", "p.yaml"], 0)["run"].as_str().unwrap().to_owned();
    place.pipeline(&["rollback", "p.yaml", &run]).passes();
    place.pipeline(&["keymap", "backup", "p.yaml"]).passes();
    assert_modes(&place, 0o600, 0o700);
}

#[test]
fn a_group_reads_them_if_the_pipeline_file_says_so() {
    assert_modes(&loaded("output_mode: \"0640\"\n"), 0o640, 0o750);
}

#[test]
fn a_mode_that_lets_all_write_is_refused_with_its_line() {
    let place = Place::samples();
    let text = place.text("pipelines/customer-delta.yaml");
    for wrong in ["\"0666\"", "\"0400\"", "0755", "private"] {
        place.write("pipelines/wrong.yaml", format!("{text}\noutput_mode: {wrong}\n"));
        let hint = "octal permission bits in quotes, such as `\"0640\"`";
        place.pipeline(&["check", "pipelines/wrong.yaml"]).fails(78, &[hint, &format!("output_mode: {wrong}")]);
    }
}

#[test]
fn a_variable_that_is_no_text_ends_no_command() {
    let place = loaded("");
    let odd = || OsString::from_vec(vec![b'A', 0xff, 0xfe]);
    for arguments in [&["check", "p.yaml"][..], &["keymap", "backup", "p.yaml"], &["runs", "p.yaml"]] {
        let ran = Command::new(assert_cmd::cargo::cargo_bin("pipeline"))
            .args(arguments)
            .env(odd(), "x")
            .env("AWS_PROFILE", odd())
            .env("PGPASSWORD", odd())
            .current_dir(place.path(""))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}
