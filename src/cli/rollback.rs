//! `pipeline rollback`: the rollback of a run, or its dry run.

use super::args::Output;
use super::output::{json, print};
use crate::error::{Error, Kind, Result};
use crate::report::Outcome;
use crate::run::{self, CommandOptions, OpenPipeline};
use crate::target::Access;

/// Rolls a run back unless `dry`, and prints the report.
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
    let text = match output {
        Output::Json => json(&report)?,
        Output::Text | Output::Github => report.text(),
    };
    match (print(&text), report.verdict) {
        (Err(error), Outcome::RolledBack) => {
            Err(Error::new(error.kind(), format!("run {run} is rolled back, but: {error}")))
        }
        (Err(error), _) => Err(error),
        (Ok(()), Outcome::Impossible) => Ok(Kind::Refused.exit_code()),
        (Ok(()), _) => Ok(0),
    }
}
