//! Reads the JSON report of a run: `pipeline run delta.yaml --report json=report.json`, then
//! `cargo run --example report -- report.json`.

use delta_pipeline::Report;

/// Returns a line per table: what became of the rows that were read.
pub fn summary(json: &str) -> Result<Vec<String>, serde_json::Error> {
    let report: Report = serde_json::from_str(json)?;
    let line = |table: &delta_pipeline::TableReport| {
        let keys = table.keys.as_ref().map_or(String::new(), |(first, last)| format!(", keys {first} to {last}"));
        format!(
            "{}: {} read, {} rejected, {} skipped, {} inserted{keys}",
            table.name, table.read, table.rejected, table.skipped, table.inserted
        )
    };
    Ok(report.tables.iter().map(line).collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("name a JSON report")?;
    for line in summary(&std::fs::read_to_string(path)?)? {
        println!("{line}");
    }
    Ok(())
}
