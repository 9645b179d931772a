//! Validates a delta in process: `cargo run --example validate -- pipelines/customer-delta.yaml`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use delta_pipeline::{Listener, Pipeline, Progress, Result, Verdict};

/// Prints each step as it ends.
struct Lines;

impl Listener for Lines {
    fn on_progress(&self, progress: &Progress) {
        if let Progress::Ended(timing) = progress {
            eprintln!("{:?}: {} rows in {:.3} s", timing.step, timing.rows, timing.seconds);
        }
    }
}

/// Returns the verdict on a delta, and a line per check with violations.
pub async fn violations(file: &Path) -> Result<(Verdict, Vec<String>)> {
    let report = Pipeline::new(file).listener(Arc::new(Lines)).validate().await?;
    let mut lines = Vec::new();
    for table in &report.tables {
        for check in table.checks.iter().filter(|check| check.violations > 0) {
            lines.push(format!("{}: {} rows violate {}", table.name, check.violations, check.name));
        }
    }
    Ok((report.verdict, lines))
}

#[tokio::main]
async fn main() -> ExitCode {
    let file = std::env::args().nth(1).unwrap_or_else(|| "pipelines/customer-delta.yaml".to_owned());
    match violations(Path::new(&file)).await {
        Ok((verdict, lines)) => {
            for line in lines {
                println!("{line}");
            }
            println!("{verdict:?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}
