//! `pipeline keymap`: import, backup, verification, and restore of the key map.

use std::path::Path;
use std::sync::Arc;

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};

use super::args::{Global, KeymapCommand, Output};
use super::output::{count, json, print};
use super::progress::Interrupt;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::run::backup::{self, BackupReport, SegmentList};
use crate::run::keymap::{self, KeyMapAudit, TableAudit};
use crate::run::restore::{self, RestoreOptions, RestoreReport, RestoredSegment};
use crate::run::{CommandOptions, OpenPipeline};
use crate::target::Access;

/// Executes a `keymap` command, and returns the exit code.
pub(super) async fn keymap(global: &Global, command: KeymapCommand) -> Result<u8> {
    match command {
        KeymapCommand::Import { file, mapping, table } => {
            import(&global.request(&file), &mapping, &table, global.output).await
        }
        KeymapCommand::Backup { file } => {
            let (opened, masked) = open(&global.request(&file), Access::Write).await?;
            let report = backup::backup(&opened).await.map_err(masked)?;
            print(&if global.output == Output::Json { json(&report)? } else { backup_text(&report) }).map(|()| 0)
        }
        KeymapCommand::List { file } => {
            let (opened, masked) = open(&global.request(&file), Access::Read).await?;
            let list = backup::segments(&opened).await.map_err(masked)?;
            print(&if global.output == Output::Json { json(&list)? } else { list_text(&list) })?;
            Ok(if list.problems.is_empty() { 0 } else { Kind::Data.exit_code() })
        }
        KeymapCommand::Verify { file } => {
            let (opened, masked) = open(&global.request(&file), Access::Read).await?;
            let audit = keymap::verify(&opened).await.map_err(masked)?;
            print(&if global.output == Output::Json { json(&audit)? } else { audit_text(&audit) })?;
            Ok(if audit.holds() { 0 } else { Kind::Data.exit_code() })
        }
        KeymapCommand::Restore { file, run, table, adopt } => {
            let request = global.request(&file);
            let (engine, _interrupt) = engine(&request)?;
            let (opened, masked) = open(&request, Access::Write).await?;
            let options = RestoreOptions { run, table, adopt };
            let report = restore::restore(&opened, &engine, &options).await.map_err(masked)?;
            print(&if global.output == Output::Json { json(&report)? } else { restore_text(&report) }).map(|()| 0)
        }
    }
}

/// Opens a target, and returns it with a function that masks the secrets of errors.
async fn open(request: &CommandOptions, access: Access) -> Result<(OpenPipeline, impl Fn(Error) -> Error + use<>)> {
    let opened = OpenPipeline::open(request, access).await?;
    let secrets = opened.document.secrets.clone();
    Ok((opened, move |error: Error| error.masked(&secrets)))
}

/// Returns an engine whose work folder is removed on Ctrl-C.
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
    let imported = &result.tables[0];
    print(&match output {
        Output::Json => json(&result)?,
        _ => {
            format!(
                "{table}: {} read, {} already present, {} imported\n",
                count(imported.read, "mapping"),
                imported.skipped,
                imported.inserted
            ) + &result.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect::<String>()
        }
    })?;
    Ok(0)
}

fn backup_text(report: &BackupReport) -> String {
    let mappings: u64 = report.written.iter().map(|segment| segment.rows).sum();
    let mut text = format!(
        "{}: {} already present, {} with {} written\n",
        report.store,
        count(report.there, "segment"),
        report.written.len(),
        count(mappings, "mapping")
    );
    text.extend(
        report.left_out.iter().map(|table| format!("skipped `{table}`: the table no longer exists in production\n")),
    );
    text
}

fn list_text(list: &SegmentList) -> String {
    let mut text = String::new();
    if list.segments.is_empty() {
        text += "the key map is empty\n";
    } else {
        let mut grid = Grid::new();
        grid.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        grid.set_header(["run", "table", "mappings", "in target", "in store", "bytes", "backed up (UTC)"]);
        let word = |is: bool| if is { "yes" } else { "no" }.to_owned();
        for listed in &list.segments {
            let stored = listed.stored.as_ref();
            grid.add_row([
                listed.segment.run.to_string(),
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
    match &list.store {
        Some(store) => text.extend(["store: ", store, "\n"]),
        None => text += "the key map is not backed up; set `safeguards.backup` in the pipeline file\n",
    }
    text.extend(list.problems.iter().map(|problem| format!("problem: {problem}\n")));
    text
}

fn audit_text(audit: &KeyMapAudit) -> String {
    if audit.tables.is_empty() && audit.holds() {
        return "the key map is empty\n".to_owned();
    }
    let mut lines: Vec<String> = audit.tables.iter().map(table_text).collect();
    let store = audit.store.iter().filter(|store| store.segments > 0 || !store.differences.is_empty());
    lines.extend(store.map(|store| {
        let verdict =
            if store.differences.is_empty() { "identical to the key map" } else { "different from the key map" };
        let (segments, mappings) = (count(store.segments, "segment"), count(store.mappings, "mapping"));
        format!("{}: {segments} with {mappings}, {verdict}\n", store.store)
    }));
    let differences = audit.differences.iter().chain(audit.store.iter().flat_map(|store| &store.differences));
    lines.extend(differences.map(|difference| format!("difference: {difference}\n")));
    lines.extend(audit.notes.iter().map(|note| format!("note: {note}\n")));
    lines.concat()
}

fn table_text(table: &TableAudit) -> String {
    let verdict = match table.missing.as_slice() {
        [] => "every key exists in production".to_owned(),
        missing => format!(
            "{} missing in production: legacy keys {}{}",
            count(missing.len(), "key"),
            missing.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", "),
            if missing.len() > 10 { ", …" } else { "" }
        ),
    };
    format!("{}: {}, {verdict}\n", table.table, count(table.mappings, "mapping"))
}

fn restore_text(report: &RestoreReport) -> String {
    let segments = report.segments.iter().filter(|segment| segment.restored > 0);
    let mut lines: Vec<String> = segments
        .map(|RestoredSegment { segment, restored }| {
            let all = count(segment.rows, "mapping");
            format!("{}, run {}: {restored} of {all} restored\n", segment.table, segment.run)
        })
        .collect();
    let restored: u64 = report.segments.iter().map(|segment| segment.restored).sum();
    let all: u64 = report.segments.iter().map(|segment| segment.segment.rows).sum();
    lines.push(format!(
        "{}: {} examined, {} already present, {restored} restored\n",
        report.store,
        count(report.segments.len(), "segment"),
        count(all - restored, "mapping")
    ));
    lines.extend(report.notes.iter().map(|note| format!("note: {note}\n")));
    lines.concat()
}
