//! Reading back: every inserted row is found by its key and compared with the expected one.

use futures::StreamExt;
use futures::stream;

use super::RunContext;
use crate::error::{Error, Result};
use crate::journal::RunId;
use crate::keys::Keys;
use crate::target::{Destination, InsertPhase, Loader, RowSource, TableIndex};

/// Compares the rows of a table before the commit.
///
/// # Errors
/// If a row is missing or differs. The load must not be committed then.
pub(super) async fn before_commit(
    load: &mut dyn InsertPhase,
    destination: &Destination,
    at: TableIndex,
    rows: &dyn RowSource,
) -> Result<()> {
    let _compare = tracing::info_span!("compare", of = destination.table.name);
    match load.compare(destination, at, rows).await? {
        None => Ok(()),
        Some(how) => Err(differs(&destination.table.name, &how)),
    }
}

/// The error of a table whose rows differ before the commit.
pub(super) fn differs(table: &str, how: &str) -> Error {
    Error::pipeline(format!("`{table}` differs from the delta: {how}"))
        .hint("nothing was loaded; check for a trigger of production that changes rows")
}

/// Compares the rows of a table after the commit.
///
/// # Errors
/// If a row is missing or differs.
pub(super) async fn after_commit(
    target: &dyn Loader,
    destination: &Destination,
    keys: &Keys<'_>,
    at: TableIndex,
) -> Result<()> {
    let _compare = tracing::info_span!("compare", of = destination.table.name);
    let compared = target.compare(destination, stream::iter(keys.rows(at)?).boxed()).await;
    // The target's own error assumes that the load was lost with the connection. This one was committed.
    let unread = |error: Error| {
        Error::new(error.kind(), format!("the run is committed, but its rows could not be read back: {error}")).hint(
            "its rows are in production: `pipeline runs` lists the run, and `pipeline keymap verify` checks its keys",
        )
    };
    match compared.map_err(unread)? {
        None => Ok(()),
        Some(how) => Err(Error::internal(format!("`{}` differs from the delta: {how}", destination.table.name))
            .hint("the run is committed; its rows were changed afterwards: inspect the table first")),
    }
}

/// Looks for the rows of a run that was interrupted after its commit. They were compared with the delta before it.
///
/// # Errors
/// If one is missing.
pub(super) async fn of_run(context: &RunContext, run: &RunId) -> Result<()> {
    for table in &context.compiled.plan.tables {
        let missing = context.target.missing_rows(&table.destination(), run).await?;
        if let Some(first) = missing.first() {
            let message =
                format!("{} rows of `{}` are missing, the first has legacy key `{first}`", missing.len(), table.name);
            return Err(Error::internal(message)
                .hint("the run is committed; the rows were deleted afterwards: inspect the table first"));
        }
    }
    Ok(())
}
