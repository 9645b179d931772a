//! What a target keeps for its loads: control objects, roles and grants.

use super::Opened;
use crate::engine::list;
use crate::error::{Error, Result};
use crate::keys::map;
use crate::target::Destination;

/// The SQL that sets a target up for a pipeline's tables; None where the first run makes all it needs.
///
/// # Errors
/// Where production lacks one of the tables, or the target does not answer.
pub async fn script(opened: &Opened) -> Result<Option<String>> {
    opened.target.setup_script(&destinations(opened)?).await
}

/// Sets a target up for a pipeline's tables; what is there already stays as it is.
///
/// # Errors
/// As [`script`], and where this user may not make these objects.
pub async fn setup(opened: &Opened) -> Result<()> {
    opened.target.setup(&destinations(opened)?).await
}

fn destinations(opened: &Opened) -> Result<Vec<Destination>> {
    let tables = opened.document.spec.iter().flat_map(|spec| spec.tables.iter());
    tables
        .map(|(name, spec)| {
            let table = opened.catalog.table(name).ok_or_else(|| {
                Error::pipeline(format!("production has no table `{name}`"))
                    .hint(format!("its tables are {}", list(&opened.catalog.names())))
            })?;
            Ok(map::destination(Some(spec), table))
        })
        .collect()
}
