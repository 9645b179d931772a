//! The journal's hash chain, computed a second time.

use std::collections::BTreeMap;

use crate::scene::Scene;

/// An entry of a journal as a target has it.
#[derive(Clone)]
pub struct Kept {
    pub run: String,
    pub number: i64,
    pub kind: String,
    pub entry: String,
    pub chain: String,
}

/// All entries of all runs, in their order.
pub fn kept(scene: &Scene) -> Vec<Kept> {
    if !scene.has_control("event") {
        return Vec::new();
    }
    let sql = format!("SELECT run, number, kind, entry, chain FROM {} ORDER BY run, number", scene.control("event"));
    let rows = scene.rows(&sql).into_iter().map(|row| {
        let [run, number, kind, entry, chain]: [String; 5] = row.try_into().unwrap();
        Kept { run, number: number.parse::<i64>().unwrap(), kind, entry, chain }
    });
    rows.collect()
}

/// The hash of an entry behind the one before it.
pub fn link(before: &str, entry: &str) -> String {
    blake3::hash(format!("{before}{entry}").as_bytes()).to_hex().to_string()
}

/// Where the journals of a target do not hold: an entry that was changed, taken away or put in, or that tells something else than
/// the tables beside it or the copy in the run's folder.
pub fn faults(scene: &Scene) -> Vec<String> {
    let mut faults = Vec::new();
    let mut journals: BTreeMap<String, Vec<Kept>> = BTreeMap::new();
    for entry in kept(scene) {
        journals.entry(entry.run.clone()).or_default().push(entry);
    }
    for (run, entries) in &journals {
        let mut chain = String::new();
        for (entry, number) in entries.iter().zip(1..) {
            chain = link(&chain, &entry.entry);
            if entry.number != number || entry.chain != chain {
                faults.push(format!("entry {} of the journal of {run} is not what its chain says", entry.number));
            }
            let told: serde_json::Value = serde_json::from_str(&entry.entry).unwrap_or_default();
            let event = told["event"].as_object().and_then(|event| event.keys().next().cloned());
            let event = event.or_else(|| told["event"].as_str().map(str::to_owned));
            if told["run"] != run.as_str() || told["number"] != entry.number || event.as_ref() != Some(&entry.kind) {
                faults.push(format!("entry {} of the journal of {run} says of itself: {}", entry.number, entry.entry));
            }
        }
        let mirror = scene.place.path(&format!("runs/{run}/journal.ndjson"));
        let mirror = std::fs::read_to_string(mirror).unwrap_or_default();
        let last = entries.last().map(|entry| entry.entry.as_str());
        if mirror.lines().last() != last {
            faults.push(format!("the journal of {run} ends otherwise in its copy"));
        }
    }
    let runs = scene.rows(&format!("SELECT id FROM {}", scene.control("run"))).into_iter().flatten();
    for run in runs {
        let is_told = |entry: &&Kept| entry.kind == "committed";
        let count = journals.get(&run).map_or(0, |entries| entries.iter().filter(is_told).count());
        if count != 1 {
            faults.push(format!("{run} is in the table of runs, and its journal tells of {count} commits"));
        }
    }
    faults
}
