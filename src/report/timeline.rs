//! The timeline of a run: one line per journal entry.

use crate::journal::{Entry, Event, moment};

use super::escape;
use super::text::number;

/// Formats journal entries as text, oldest first.
pub fn timeline(entries: &[Entry]) -> String {
    let mut text = String::new();
    let mut writer = "";
    for entry in entries {
        // The writer is printed only when it changes.
        let by = if entry.by == writer { String::new() } else { format!(", by {}", entry.by) };
        writer = &entry.by;
        let line = format!("  {}  {}{by}", moment(&entry.at), event(&entry.event));
        text += &escape::line(&line);
        text.push('\n');
    }
    text
}

/// Describes an event.
pub(super) fn event(event: &Event) -> String {
    match event {
        Event::Started(started) => {
            let rows = started.tables.iter().map(|table| table.rows).sum();
            let files: usize = started.tables.iter().map(|table| table.files.len()).sum();
            let reloaded = started.tables.iter().flat_map(|table| &table.files).filter(|file| file.reload_of.is_some());
            let again = match reloaded.count() {
                0 => String::new(),
                count => format!(", {count} of them loaded before"),
            };
            format!("started: {} rows from {files} files{again} for {} tables", number(rows), started.tables.len())
        }
        Event::BackedUp { store, segments, mappings } => {
            format!("key map backed up to {store}: {} mappings in {segments} new segments", number(*mappings))
        }
        Event::Reserved { blocks } => {
            let blocks: Vec<_> =
                blocks.iter().map(|block| format!("{} {}–{}", block.table, block.first, block.last)).collect();
            if blocks.is_empty() {
                "no keys to reserve".to_owned()
            } else {
                format!("keys reserved: {}", blocks.join(", "))
            }
        }
        Event::Staged => "all rows staged".to_owned(),
        Event::Committing { transaction: Some(transaction) } => {
            format!("inserted and reconciled, committing transaction {transaction}")
        }
        Event::Committing { transaction: None } => "inserted and reconciled, committing".to_owned(),
        Event::Committed => "committed: rows and key mappings are in production".to_owned(),
        Event::Verified => "read back: every row has the expected values".to_owned(),
        Event::Resumed => "resumed".to_owned(),
        Event::Failed { reason } => format!("failed, nothing was loaded: {reason}"),
        Event::Abandoned => "abandoned: none of its rows are in production".to_owned(),
        Event::RolledBack { rows } => {
            format!("rolled back: {} rows and their key mappings deleted", number(*rows))
        }
    }
}
