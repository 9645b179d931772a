//! The story of a run: its journal, a line an entry.

use crate::journal::{Entry, Event, moment};

use super::escape;
use super::text::number;

/// The entries as text, oldest first.
pub fn story(entries: &[Entry]) -> String {
    let mut told = String::new();
    let mut writer = "";
    for entry in entries {
        // Who writes is said where it changes.
        let by = if entry.by == writer { String::new() } else { format!(", by {}", entry.by) };
        writer = &entry.by;
        let line = format!("  {}  {}{by}", moment(&entry.at), event(&entry.event));
        told += &escape::line(&line);
        told.push('\n');
    }
    told
}

/// What happened, in words.
pub(super) fn event(event: &Event) -> String {
    match event {
        Event::Started(started) => {
            let rows = started.tables.iter().map(|table| table.rows).sum();
            let files: usize = started.tables.iter().map(|table| table.files.len()).sum();
            let again = started.tables.iter().flat_map(|table| &table.files).filter(|file| file.reload_of.is_some());
            let again = match again.count() {
                0 => String::new(),
                count => format!(", {count} of them loaded before"),
            };
            format!("started: {} rows of {files} files{again} for {} tables", number(rows), started.tables.len())
        }
        Event::BackedUp { store, segments, mappings } => {
            format!("key map backed up to {store}: {} mappings in {segments} new segments", number(*mappings))
        }
        Event::Reserved { blocks } => {
            let blocks: Vec<_> =
                blocks.iter().map(|block| format!("{} {} to {}", block.table, block.first, block.last)).collect();
            if blocks.is_empty() { "no new keys needed".to_owned() } else { format!("keys: {}", blocks.join(", ")) }
        }
        Event::Staged => "all rows staged".to_owned(),
        Event::Committing { transaction: Some(transaction) } => {
            format!("inserted and reconciled, committing transaction {transaction}")
        }
        Event::Committing { transaction: None } => "inserted and reconciled, committing".to_owned(),
        Event::Committed => "committed: the rows and their key map are in production".to_owned(),
        Event::Verified => "read back: every row is what was meant".to_owned(),
        Event::Resumed => "resumed".to_owned(),
        Event::Failed { reason } => format!("failed, nothing was loaded: {reason}"),
        Event::Abandoned => "given up: nothing of it is in production".to_owned(),
        Event::RolledBack { rows } => {
            format!("rolled back: {} rows and their key map are gone from production", number(*rows))
        }
    }
}
