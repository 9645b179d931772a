//! Walks the journal of a run: `cargo run --example journal -- delta.yaml RUN`.

use std::path::Path;

use delta_pipeline::{Event, Pipeline, Result};

/// Returns a line per event of a run, oldest first.
pub async fn events(file: &Path, run: &str) -> Result<Vec<String>> {
    let Some(journal) = Pipeline::new(file).journal(run).await? else { return Ok(Vec::new()) };
    let lines = journal.entries().iter().map(|entry| match &entry.event {
        Event::Started(started) => format!("started: {} tables of pipeline {}", started.tables.len(), started.pipeline),
        Event::Reserved { blocks } => format!("reserved: {} key blocks", blocks.len()),
        Event::Failed { reason } => format!("failed: {reason}"),
        Event::RolledBack { rows } => format!("rolled back: {rows} rows"),
        other => other.kind().to_owned(),
    });
    Ok(lines.collect())
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (file, run) = (words.next().ok_or("name a pipeline file")?, words.next().ok_or("name a run")?);
    let lines = events(Path::new(&file), &run).await.map_err(|error| error.to_string())?;
    for line in lines {
        println!("{line}");
    }
    Ok(())
}
