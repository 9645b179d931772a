//! What a target keeps for its loads: control objects, roles and grants.

use super::Session;
use crate::error::Result;
use crate::plan::Table;
use crate::target::Destination;

/// Returns the SQL that sets a target up for a pipeline's tables, with `owner` as the owner of the control objects; None if the target
/// needs no SQL.
///
/// # Errors
/// If the pipeline's key columns do not fit production, or the target does not answer.
pub async fn script(session: &Session, owner: Option<&str>) -> Result<Option<String>> {
    session.target.setup_script(&destinations(session), owner).await
}

/// Sets a target up for a pipeline's tables. What is right already stays as it is.
///
/// # Errors
/// As [`script`], and if this login may not make these objects, or something that another role made is in their place.
pub async fn setup(session: &Session, owner: Option<&str>) -> Result<()> {
    session.target.setup(&destinations(session), owner).await
}

fn destinations(session: &Session) -> Vec<Destination> {
    session.compiled.plan.tables.iter().map(Table::destination).collect()
}
