//! The events of a run, recorded in a journal.
//!
//! The target stores a [`Journal`] next to the run's rows, and a file beside the reports mirrors it. Each event is written
//! before or together with the change that it records. A run's state is not stored; [`next`] folds it from the events.
//! The journal of an interrupted run therefore shows what remains to be done.

mod event;
mod file_hash;
mod mirror;
mod run_id;
mod state;

pub use event::{
    Entry, Event, Input, Keys, Record, Started, TableManifest, VERSION, abandoned, moment, pipeline, writer,
};
pub use file_hash::FileHash;
pub use mirror::Mirror;
pub use run_id::RunId;
pub use state::{Phase, State, next};

use crate::error::{Error, Result};

/// The journal of a run, with the entries so far.
#[derive(Debug)]
pub struct Journal {
    run: RunId,
    by: String,
    entries: Vec<Entry>,
    chain: String,
    state: Option<State>,
    mirror: Option<Mirror>,
}

impl Journal {
    /// Returns the empty journal of a new run.
    pub fn new(run: &RunId) -> Self {
        Self {
            run: run.clone(),
            by: event::writer(),
            entries: Vec::new(),
            chain: String::new(),
            state: None,
            mirror: None,
        }
    }

    /// Reads the journal of a run from the records of its target.
    ///
    /// # Errors
    /// Returns an error if an entry has a newer format, is missing, changed, or out of order, or if an event is not allowed
    /// in its state.
    pub fn read(run: &RunId, records: &[Record]) -> Result<Self> {
        let mut journal = Self::new(run);
        for record in records {
            let broken = |what: &str| {
                Error::internal(format!("invalid journal of run {run}: entry {} {what}", record.number)).hint(
                    "the journal was changed; compare it with `journal.ndjson` in the run's folder before any other command",
                )
            };
            if record.number as usize != journal.entries.len() + 1 || record.run != *run {
                return Err(broken("is out of order"));
            }
            if record.chain != event::link(&journal.chain, &record.entry) {
                return Err(broken("was changed"));
            }
            let entry = Entry::parse(&record.entry).map_err(|error| error.doing(format!("run {run}")))?;
            if entry.number != record.number || entry.run != *run || entry.event.kind() != record.kind {
                return Err(broken("was changed"));
            }
            journal.state = Some(next(journal.state.take(), &entry)?);
            journal.chain.clone_from(&record.chain);
            journal.entries.push(entry);
        }
        Ok(journal)
    }

    /// Mirrors further entries in a file.
    #[must_use]
    pub fn mirrored(mut self, mirror: Mirror) -> Self {
        self.mirror = Some(mirror);
        self
    }

    /// Mirrors and returns the next entry, with the current time. The caller writes it to the target.
    ///
    /// # Errors
    /// Returns an error if the event is not allowed in the run's state, or the mirror is not writable.
    pub fn record(&mut self, event: Event) -> Result<Record> {
        let record = self.record_unmirrored(event)?;
        self.mirror_last()?;
        Ok(record)
    }

    /// Writes the last entry into the mirror.
    ///
    /// # Errors
    /// Returns an error if the mirror is not writable.
    pub fn mirror_last(&mut self) -> Result<()> {
        match (&mut self.mirror, self.entries.last()) {
            (Some(mirror), Some(entry)) => mirror.write(&entry.text()?),
            _ => Ok(()),
        }
    }

    /// Returns the next entry without mirroring it, for an event whose transaction must be committed first. The caller then
    /// calls [`Journal::mirror_last`].
    ///
    /// # Errors
    /// Returns an error if the event is not allowed in the run's state.
    pub fn record_unmirrored(&mut self, event: Event) -> Result<Record> {
        let entry = Entry {
            version: VERSION,
            run: self.run.clone(),
            number: self.entries.len() as u32 + 1,
            at: jiff::Timestamp::now().to_string(),
            by: self.by.clone(),
            event,
        };
        let text = entry.text()?;
        self.state = Some(next(self.state.take(), &entry)?);
        self.chain = event::link(&self.chain, &text);
        let record = Record {
            run: self.run.clone(),
            number: entry.number,
            kind: entry.event.kind().to_owned(),
            entry: text,
            chain: self.chain.clone(),
        };
        self.entries.push(entry);
        Ok(record)
    }

    /// Returns the run's ID.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Returns the state of the run; `None` before it begins.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Returns the entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn started() -> Event {
        Event::Started(Started {
            pipeline: "p".into(),
            plan: "hash".into(),
            moment: "2026-01-02T03:04:05Z".into(),
            tables: vec![TableManifest {
                table: "t".into(),
                rows: 2,
                verdicts: "v".into(),
                ..TableManifest::default()
            }],
        })
    }

    /// The whole life of a run.
    fn life() -> Vec<Event> {
        let blocks = vec![Keys { table: "t".into(), first: 7, last: 8 }];
        vec![
            started(),
            Event::Reserved { blocks },
            Event::Staged,
            Event::Committing { transaction: Some("815".into()) },
            Event::Committed,
            Event::Verified,
            Event::RolledBack { rows: 2 },
        ]
    }

    fn written(events: Vec<Event>) -> Vec<Record> {
        let mut journal = Journal::new(&"r".into());
        events.into_iter().map(|event| journal.record(event).unwrap()).collect()
    }

    #[test]
    fn journal_cut_after_any_entry_is_read_and_continued() {
        let records = written(life());
        for cut in 0..records.len() {
            let mut journal = Journal::read(&"r".into(), &records[..cut]).unwrap();
            assert_eq!(journal.entries().len(), cut);
            for event in life().into_iter().skip(cut) {
                journal.record(event).unwrap();
            }
            assert_eq!(journal.state().unwrap().phase, Phase::RolledBack);
        }
    }

    #[test]
    fn an_entry_that_was_changed_moved_or_taken_away_is_found() {
        let records = written(life());
        let damage = |change: &dyn Fn(&mut Vec<Record>)| {
            let mut records = records.clone();
            change(&mut records);
            Journal::read(&"r".into(), &records).unwrap_err().to_string()
        };
        assert!(damage(&|records| records[1].entry = records[1].entry.replace('8', "9")).contains("entry 2"));
        assert!(damage(&|records| records[2].kind = "verified".into()).contains("was changed"));
        assert!(damage(&|records| records.swap(1, 2)).contains("out of order"));
        assert!(damage(&|records| drop(records.remove(0))).contains("out of order"));
        assert!(damage(&|records| records[3].chain = records[2].chain.clone()).contains("entry 4"));
    }

    #[test]
    fn a_journal_of_a_newer_version_is_refused_and_says_so() {
        let mut records = written(vec![started()]);
        records[0].entry = records[0].entry.replacen("\"version\":1", "\"version\":99", 1);
        records[0].chain = event::link("", &records[0].entry);
        let error = Journal::read(&"r".into(), &records).unwrap_err();
        assert_eq!(error.kind(), Kind::Pipeline);
        assert!(error.to_string().contains("newer format"), "{error}");
    }
}
