//! Profiles of the real binary: they load, what lies in them is whole, and a run is not harmed by them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::production::Production;
use crate::support::Place;

/// What went on, by its name: how often, and on how many tracks.
pub struct Profile(BTreeMap<String, Vec<Value>>);

impl Profile {
    /// Reads a profile; holds that slices of a track lie in each other or behind each other, and that each track has a name.
    pub fn read(place: &Place, name: &str) -> Self {
        let events: Vec<Value> = serde_json::from_str(&place.text(name)).expect("a profile is JSON");
        let mut tracks: BTreeMap<u64, Vec<(f64, f64, &str)>> = BTreeMap::new();
        let mut named = Vec::new();
        let mut slices: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for event in &events {
            let text = |field: &str| event[field].as_str().unwrap();
            match text("ph") {
                "M" if text("name") == "thread_name" => named.push(event["tid"].as_u64().unwrap()),
                "M" => {}
                // With its end in itself: there are no others, so none can lack it.
                "X" => {
                    let (from, long) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
                    assert!(from >= 0.0 && long >= 0.0, "{event}");
                    tracks.entry(event["tid"].as_u64().unwrap()).or_default().push((from, from + long, text("name")));
                    slices.entry(text("name").to_owned()).or_default().push(event.clone());
                }
                other => panic!("an event of kind {other}"),
            }
        }
        for (track, mut slices) in tracks {
            assert!(named.contains(&track), "track {track} has no name");
            slices.sort_by(|one, other| one.0.total_cmp(&other.0).then(other.1.total_cmp(&one.1)));
            let mut open: Vec<(f64, f64, &str)> = Vec::new();
            for slice in slices {
                open.retain(|outer| outer.1 > slice.0 + 0.002);
                for outer in &open {
                    assert!(slice.1 <= outer.1 + 0.002, "{slice:?} goes across {outer:?} on track {track}");
                }
                open.push(slice);
            }
        }
        Self(slices)
    }

    fn has(&self, names: &[&str]) {
        for name in names {
            assert!(self.0.contains_key(*name), "no {name:?} among {:?}", self.0.keys().collect::<Vec<_>>());
        }
    }

    /// Whether it was going on at the end.
    pub fn is_cut_off(&self, name: &str) -> bool {
        self.0[name].iter().any(|slice| slice["args"]["interrupted"] == true)
    }
}

const CUSTOMER: &str = "pipelines/customer-delta.yaml";

#[test]
fn a_profile_has_the_steps_and_what_was_done_in_them() {
    let place = Place::samples();
    let read = ["preparing", "reading", "checking", "reporting", "piece person", "parse", "check rows", "hash rows"];
    let written = [
        "staging",
        "inserting",
        "insert batch",
        "insert person",
        "append key map person",
        "read back batch",
        "compare account",
    ];
    place.pipeline(&["validate", CUSTOMER, "--profile", "p.json"]).passes();
    Profile::read(&place, "p.json").has(&read);
    place.pipeline(&["run", CUSTOMER, "--mock", "--profile", "p.json"]).passes();
    let mock = Profile::read(&place, "p.json");
    mock.has(&read);
    mock.has(&written);
    place.pipeline_with(&["run", CUSTOMER], &[("PIPELINE_PROFILE", "run.json")]).passes();
    let run = Profile::read(&place, "run.json");
    run.has(&[read.as_slice(), &written, &["reconciling", "committing", "COMMIT", "reading back"]].concat());
    assert!(run.0.keys().all(|name| !run.is_cut_off(name)));
    let rows: u64 = run.0["insert batch"].iter().map(|slice| slice["args"]["rows"].as_u64().unwrap()).sum();
    assert!(rows >= 2 * 3155, "each row, and its key: {rows}");
}

#[test]
fn rows_and_their_key_map_are_copied_on_tracks_of_their_own() {
    let production = Production::ready();
    production.pipeline(&["run", "p.yaml", "--profile", "p.json"]).passes();
    let profile = Profile::read(&production.place, "p.json");
    profile.has(&[
        "insert account",
        "append key map account",
        "insert item",
        "append key map item",
        "encode",
        "wait for the server",
        "check unique(alias)",
        "look up account",
        "compare item",
        "compare rows",
        "COMMIT",
        "statistics item",
    ]);
    let track = |name: &str| profile.0[name][0]["tid"].as_u64().unwrap();
    assert_ne!(track("insert item"), track("append key map item"));
    let copies: Vec<_> = profile.0.keys().filter(|name| name.starts_with("COPY")).collect();
    assert!(copies.iter().any(|name| name.contains("item")), "{copies:?}");
}

#[test]
fn a_run_that_fails_leaves_a_profile_of_what_it_did() {
    let place = Place::samples();
    place.pipeline(&["run", CUSTOMER]).passes();
    place.pipeline(&["run", CUSTOMER, "--profile", "p.json"]).fails(77, &["loaded already"]);
    let profile = Profile::read(&place, "p.json");
    profile.has(&["preparing"]);
    assert!(!profile.0.contains_key("reading"));
}

#[test]
fn a_profile_that_cannot_be_written_is_refused_before_the_work() {
    let place = Place::samples();
    let hint = "hint: name a file in an existing folder";
    place.pipeline(&["run", CUSTOMER, "--profile", "no/p.json"]).fails(69, &["cannot write `no/p.json`: ", hint]);
    let before = place.files();
    let refused = place.pipeline(&["run", CUSTOMER, "--profile", CUSTOMER]);
    refused
        .fails(64, &["exists and is not a profile", "hint: name another file; only an older profile is overwritten"]);
    assert_eq!(place.files(), before, "nothing is made, and nothing overwritten");
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_run_leaves_a_profile_that_lacks_only_its_end() {
    let place = Place::samples();
    let run = ["run", CUSTOMER, "--profile", "p.json"];
    assert_eq!(place.pipeline_with(&run, &[("FAILPOINTS", "inserting=return")]).code, -9, "it is killed");
    let text = place.text("p.json");
    place.write("ended.json", text + "]");
    Profile::read(&place, "ended.json").has(&["reading", "checking", "staging"]);
}
