//! Setup of a target: control schema, roles, and grants.

use super::{CommandOptions, OpenPipeline};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::keys::map;
use crate::plan::{Table, compile};
use crate::target::Destination;

/// Returns the SQL that sets a target up for a pipeline's tables, with `owner` as the owner of the control objects; None if the target
/// needs no SQL.
///
/// # Errors
/// All problems of the pipeline file but missing delta files; or if the target does not answer.
pub async fn script(opened: &OpenPipeline, request: &CommandOptions, owner: Option<&str>) -> Result<Option<String>> {
    let destinations = destinations(opened, request).await?;
    match opened.target.capabilities().setup_script {
        true => opened.target.setup_script(&destinations, owner).await.map(Some),
        false => Ok(None),
    }
}

/// Sets a target up for a pipeline's tables. Setup is idempotent.
///
/// # Errors
/// If [`script`] fails, this login may not create these objects, or another role's object is in their place.
pub async fn setup(opened: &OpenPipeline, request: &CommandOptions, owner: Option<&str>) -> Result<()> {
    opened.target.setup(&destinations(opened, request).await?, owner).await
}

/// The tables of a pipeline. The whole file is checked first: what is made for a mistaken one would be in the way of the right one.
async fn destinations(opened: &OpenPipeline, request: &CommandOptions) -> Result<Vec<Destination>> {
    let engine = Engine::at(request.limits, jiff::Timestamp::now())?;
    match compile(&opened.document, &opened.catalog, &engine).await {
        Ok(compiled) => {
            let loaded: Vec<_> = compiled.plan.tables.iter().map(Table::destination).collect();
            Ok(with_referred(opened, loaded))
        }
        // A target is set up before the delta is there: all else of the file is right.
        Err(problems) => match Error::from(problems) {
            error if error.kind() == Kind::Input => Ok(with_referred(opened, without_files(opened))),
            error => Err(error),
        },
    }
}

/// Adds the tables that rows only refer to by legacy keys: their key maps can be imported.
fn with_referred(opened: &OpenPipeline, mut destinations: Vec<Destination>) -> Vec<Destination> {
    let tables = opened.document.spec.iter().flat_map(|spec| spec.tables.iter());
    let references = tables.flat_map(|(_, table)| &table.relationships).filter(|reference| reference.by.is_none());
    for reference in references {
        let is_known = destinations.iter().any(|destination| destination.table.name == reference.to);
        let Some(table) =
            opened.catalog.table(&reference.to).filter(|table| !is_known && !table.primary_key.is_empty())
        else {
            continue;
        };
        destinations.push(Destination { columns: table.primary_key.clone(), ..map::destination(None, table) });
    }
    destinations
}

/// The tables as the file and the catalog state them, without the delta's columns: all of a table's columns count as filled, so that no
/// right is granted that a load may not need.
fn without_files(opened: &OpenPipeline) -> Vec<Destination> {
    let tables = opened.document.spec.iter().flat_map(|spec| spec.tables.iter());
    let found = tables.filter_map(|(name, spec)| opened.catalog.table(name).map(|table| (spec, table)));
    found
        .map(|(spec, table)| {
            let referred = spec.relationships.iter().map(|reference| &reference.to);
            let reads = referred.chain(table.foreign_keys.iter().map(|key| &key.to)).cloned().collect();
            let columns = table.columns.iter().map(|column| column.name.clone()).collect();
            Destination { columns, reads, ..map::destination(Some(spec), table) }
        })
        .collect()
}
