//! `pipeline keymap`: the key map's history, and its backup.

use std::path::Path;
use std::sync::Arc;

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};

use super::args::{Global, KeymapCommand, Output};
use super::output::{count, json, say};
use super::progress::Interrupt;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::run::backup::{self, BackupReport, SegmentList};
use crate::run::keymap::{self, KeyMapAudit, TableAudit};
use crate::run::restore::{self, RestoreOptions, RestoreReport, RestoredSegment};
use crate::run::{CommandOptions, OpenPipeline};
use crate::target::Access;

/// Does a command and gives the exit code.
pub(super) async fn execute(global: &Global, command: KeymapCommand) -> Result<u8> {
    match command {
        KeymapCommand::Import { file, mapping, table } => {
            import(&global.request(&file), &mapping, &table, global.output).await
        }
        KeymapCommand::Backup { file } => {
            let (opened, masked) = open(&global.request(&file), Access::Write).await?;
            let done = backup::backup(&opened).await.map_err(masked)?;
            say(&if global.output == Output::Json { json(&done)? } else { backed_up(&done) })?;
            Ok(0)
        }
        KeymapCommand::List { file } => {
            let (opened, masked) = open(&global.request(&file), Access::Read).await?;
            let listing = backup::segments(&opened).await.map_err(masked)?;
            say(&if global.output == Output::Json { json(&listing)? } else { listed(&listing) })?;
            Ok(if listing.problems.is_empty() { 0 } else { Kind::Data.exit_code() })
        }
        KeymapCommand::Verify { file } => {
            let (opened, masked) = open(&global.request(&file), Access::Read).await?;
            let found = keymap::verify(&opened).await.map_err(masked)?;
            say(&if global.output == Output::Json { json(&found)? } else { verified(&found) })?;
            Ok(if found.holds() { 0 } else { Kind::Data.exit_code() })
        }
        KeymapCommand::Restore { file, run, table, adopt } => {
            let request = global.request(&file);
            let (engine, _interrupt) = engine(&request)?;
            let (opened, masked) = open(&request, Access::Write).await?;
            let done =
                restore::restore(&opened, &engine, &RestoreOptions { run, table, adopt }).await.map_err(masked)?;
            say(&if global.output == Output::Json { json(&done)? } else { restored(&done) })?;
            Ok(0)
        }
    }
}

/// Opens a target, and gives what keeps errors from telling secrets.
async fn open(request: &CommandOptions, access: Access) -> Result<(OpenPipeline, impl Fn(Error) -> Error + use<>)> {
    let opened = OpenPipeline::open(request, access).await?;
    let secrets = opened.document.secrets.clone();
    Ok((opened, move |error: Error| error.masked(&secrets)))
}

/// An engine for mappings, whose work folder goes with Ctrl-C.
fn engine(request: &CommandOptions) -> Result<(Engine, Arc<Interrupt>)> {
    let interrupt = Interrupt::watch();
    let engine = Engine::try_new(request.limits)?;
    interrupt.removes(engine.work_folder());
    Ok((engine, interrupt))
}

async fn import(request: &CommandOptions, mapping: &Path, table: &str, output: Output) -> Result<u8> {
    let (engine, _interrupt) = engine(request)?;
    let (opened, masked) = open(request, Access::Write).await?;
    let result = keymap::import(&opened, &engine, mapping, table).await.map_err(masked)?;
    let found = &result.tables[0];
    say(&match output {
        Output::Json => json(&result)?,
        _ => {
            format!(
                "{table}: {} read, {} there already, {} brought in\n",
                count(found.read, "mapping"),
                found.skipped,
                found.inserted
            ) + &result.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect::<String>()
        }
    })?;
    Ok(0)
}

fn backed_up(done: &BackupReport) -> String {
    let mappings: u64 = done.written.iter().map(|segment| segment.rows).sum();
    let mut text = format!(
        "{}: {} there already, {} with {} written\n",
        done.store,
        count(done.there, "segment"),
        done.written.len(),
        count(mappings, "mapping")
    );
    text.extend(
        done.left_out.iter().map(|table| format!("left out `{table}`: production no longer has such a table\n")),
    );
    text
}

fn listed(listing: &SegmentList) -> String {
    let mut text = String::new();
    if listing.segments.is_empty() {
        text += "the key map is empty\n";
    } else {
        let mut grid = Grid::new();
        grid.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        grid.set_header(["run", "table", "mappings", "in target", "in store", "bytes", "backed up (UTC)"]);
        let word = |is: bool| if is { "yes" } else { "no" }.to_owned();
        for listed in &listing.segments {
            let stored = listed.stored.as_ref();
            grid.add_row([
                listed.segment.run.clone(),
                listed.segment.table.clone(),
                listed.segment.rows.to_string(),
                word(listed.in_target),
                word(stored.is_some()),
                stored.map(|manifest| manifest.bytes.to_string()).unwrap_or_default(),
                stored.map(|manifest| manifest.written_at.trim_end_matches('Z').replace('T', " ")).unwrap_or_default(),
            ]);
        }
        for column in [2, 5] {
            if let Some(column) = grid.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        text.extend(grid.lines().map(|line| line.trim_end().to_owned() + "\n"));
    }
    match &listing.store {
        Some(store) => text.extend(["store: ", store, "\n"]),
        None => text += "the key map is not backed up: the pipeline file has no `safeguards.backup`\n",
    }
    text.extend(listing.problems.iter().map(|problem| format!("problem: {problem}\n")));
    text
}

fn verified(found: &KeyMapAudit) -> String {
    if found.tables.is_empty() && found.holds() {
        return "the key map is empty\n".to_owned();
    }
    let mut lines: Vec<String> = found.tables.iter().map(table).collect();
    let store = found.store.iter().filter(|store| store.segments > 0 || !store.differences.is_empty());
    lines.extend(store.map(|store| {
        let verdict = if store.differences.is_empty() { "as the key map has them" } else { "and they differ" };
        let (segments, mappings) = (count(store.segments, "segment"), count(store.mappings, "mapping"));
        format!("{}: {segments} with {mappings}, {verdict}\n", store.store)
    }));
    let differences = found.differences.iter().chain(found.store.iter().flat_map(|store| &store.differences));
    lines.extend(differences.map(|difference| format!("differs: {difference}\n")));
    lines.extend(found.notes.iter().map(|note| format!("note: {note}\n")));
    lines.concat()
}

fn table(table: &TableAudit) -> String {
    let verdict = match table.missing.as_slice() {
        [] => "every key is in production".to_owned(),
        missing => format!(
            "{} not in production: legacy keys {}{}",
            if missing.len() == 1 { "1 key is".to_owned() } else { format!("{} keys are", missing.len()) },
            missing.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", "),
            if missing.len() > 10 { ", …" } else { "" }
        ),
    };
    format!("{}: {}, {verdict}\n", table.table, count(table.mappings, "mapping"))
}

fn restored(done: &RestoreReport) -> String {
    let restored = done.segments.iter().filter(|segment| segment.restored > 0);
    let mut lines: Vec<String> = restored
        .map(|RestoredSegment { segment, restored }| {
            let all = count(segment.rows, "mapping");
            format!("{}, run {}: {restored} of {all} put back\n", segment.table, segment.run)
        })
        .collect();
    let restored: u64 = done.segments.iter().map(|segment| segment.restored).sum();
    let all: u64 = done.segments.iter().map(|segment| segment.segment.rows).sum();
    lines.push(format!(
        "{}: {} looked at, {} there, {restored} put back\n",
        done.store,
        count(done.segments.len(), "segment"),
        count(all - restored, "mapping")
    ));
    lines.extend(done.notes.iter().map(|note| format!("note: {note}\n")));
    lines.concat()
}
