//! `rollback`: rolls a run back, or tells what would become of it.

use super::args::Output;
use super::output::{json, say};
use crate::error::{Error, Kind, Result};
use crate::report::Outcome;
use crate::run::{self, CommandOptions, OpenPipeline};
use crate::target::Access;

/// Rolls a run back and tells what became of it.
pub(super) async fn rollback(
    request: &CommandOptions,
    run: &str,
    dry: bool,
    accepted: &[String],
    output: Output,
) -> Result<u8> {
    let opened = OpenPipeline::open(request, Access::Administer).await?;
    let masked = |error: Error| error.masked(&opened.document.secrets);
    let report = run::rollback(&opened, run, dry, accepted).await.map_err(masked)?;
    let told = match output {
        Output::Json => json(&report)?,
        Output::Text | Output::Github => report.text(),
    };
    match (say(&told), report.verdict) {
        (Err(error), Outcome::RolledBack) => {
            Err(Error::new(error.kind(), format!("run {run} is rolled back, but: {error}")))
        }
        (Err(error), _) => Err(error),
        (Ok(()), Outcome::Impossible) => Ok(Kind::Refused.exit_code()),
        (Ok(()), _) => Ok(0),
    }
}
