//! The state of a run: a fold over its journal.

use super::event::{Entry, Event, Keys, Started};
use crate::error::{Error, Result};

/// The phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The rows to load are decided; nothing is written.
    Started,
    /// Keys are reserved.
    Reserved,
    /// All rows are in staging.
    Staged,
    /// The commit may have happened; only the target knows.
    Committing,
    /// The rows are in production.
    Committed,
    /// The rows are in production and were read back.
    Verified,
    /// The run was abandoned, and nothing of it is in production.
    Abandoned,
    /// The run's rows were deleted from production.
    RolledBack,
}

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The run's identity.
    pub started: Started,
    /// The start time, in UTC (RFC 3339).
    pub since: String,
    /// The writer that started the run, or resumed it last.
    pub by: String,
    /// The phase.
    pub phase: Phase,
    /// The reserved keys.
    pub blocks: Vec<Keys>,
    /// The inserting transaction; `None` before its commit is requested.
    pub transaction: Option<String>,
    /// The error that ended the run; `None` once it is resumed.
    pub failed: Option<String>,
}

impl State {
    /// Returns whether nothing of the run is in production, but it can still be loaded.
    pub fn is_unfinished(&self) -> bool {
        self.phase < Phase::Committed
    }

    /// Returns whether the run was interrupted, so that its outcome is not recorded.
    pub fn is_interrupted(&self) -> bool {
        self.is_unfinished() && self.failed.is_none()
    }

    /// Returns the outcome of a run, or its phase, in a few words.
    pub const fn label(&self) -> &'static str {
        match (self.phase, &self.failed) {
            (Phase::Abandoned, _) => "abandoned",
            (Phase::RolledBack, _) => "rolled back",
            (Phase::Committed, _) => "loaded, not read back",
            (Phase::Verified, _) => "loaded",
            (_, Some(_)) => "failed",
            (Phase::Started, None) => "interrupted",
            (Phase::Reserved, None) => "interrupted while staging",
            (Phase::Staged, None) => "interrupted while inserting",
            (Phase::Committing, None) => "interrupted while committing",
        }
    }
}

/// Returns the state after one more entry.
///
/// # Errors
/// Returns an error if the event is not allowed in the state.
pub fn next(state: Option<State>, entry: &Entry) -> Result<State> {
    let misfit = |state: Option<&State>| {
        let label = state.map_or("not begun", State::label);
        Error::internal(format!(
            "invalid journal of run {1}: entry {0} (`{2}`) is not allowed in state `{label}`",
            entry.number,
            entry.run,
            entry.event.kind()
        ))
        .hint("compare it with `journal.ndjson` in the run's folder, and report the error")
    };
    let Some(mut state) = state else {
        let Event::Started(started) = &entry.event else { return Err(misfit(None)) };
        return Ok(State {
            started: started.clone(),
            since: entry.at.clone(),
            by: entry.by.clone(),
            phase: Phase::Started,
            blocks: Vec::new(),
            transaction: None,
            failed: None,
        });
    };
    let open = state.is_interrupted();
    match (&entry.event, state.phase) {
        (Event::BackedUp { .. }, _) if open => {}
        (Event::Reserved { blocks }, Phase::Started | Phase::Reserved | Phase::Staged) if open => {
            state.phase = Phase::Reserved;
            state.blocks.clone_from(blocks);
        }
        (Event::Staged, Phase::Reserved) if open => state.phase = Phase::Staged,
        (Event::Committing { transaction }, Phase::Staged) if open => {
            state.phase = Phase::Committing;
            state.transaction.clone_from(transaction);
        }
        (Event::Committed, Phase::Committing) if open => state.phase = Phase::Committed,
        (Event::Verified, Phase::Committed) => state.phase = Phase::Verified,
        (Event::Failed { reason }, _) if open => state.failed = Some(reason.clone()),
        (Event::Resumed, phase) if phase <= Phase::Committed => {
            // `resume` has queried the outcome of the commit: it did not happen.
            state.phase = if phase == Phase::Committing { Phase::Staged } else { phase };
            state.transaction = state.transaction.filter(|_| phase == Phase::Committed);
            state.failed = None;
            state.by.clone_from(&entry.by);
            state.since.clone_from(&entry.at);
        }
        (Event::Abandoned, _) if state.is_unfinished() => state.phase = Phase::Abandoned,
        (Event::RolledBack { .. }, Phase::Committed | Phase::Verified) => state.phase = Phase::RolledBack,
        _ => return Err(misfit(Some(&state))),
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: Event) -> Entry {
        Entry { version: 1, run: "r".into(), number: 1, at: "t".into(), by: "b".into(), event }
    }

    fn fold(events: &[Event]) -> Result<State> {
        let mut state = None;
        for event in events {
            state = Some(next(state, &entry(event.clone()))?);
        }
        Ok(state.unwrap())
    }

    fn started() -> Event {
        let (pipeline, plan, moment) = ("p".into(), "h".into(), "m".into());
        Event::Started(Started { pipeline, plan, moment, tables: Vec::new() })
    }

    fn all() -> Vec<Event> {
        vec![
            started(),
            Event::BackedUp { store: "s".into(), segments: 1, mappings: 2 },
            Event::Reserved { blocks: Vec::new() },
            Event::Staged,
            Event::Committing { transaction: None },
            Event::Committed,
            Event::Verified,
            Event::RolledBack { rows: 1 },
        ]
    }

    #[test]
    fn run_passes_every_step_once_and_in_order() {
        assert_eq!(fold(&all()).unwrap().phase, Phase::RolledBack);
        for left_out in [0, 2, 3, 4, 5] {
            let mut events = all();
            events.remove(left_out);
            assert!(fold(&events).is_err(), "without event {left_out}");
        }
        for repeated in [0, 3, 4, 5, 6, 7] {
            let mut events = all();
            events.insert(repeated, events[repeated].clone());
            assert!(fold(&events).is_err(), "with event {repeated} twice");
        }
    }

    #[test]
    fn interrupted_run_resumes_or_is_abandoned() {
        for cut in 1..=5 {
            let mut events = all();
            events.truncate(cut);
            assert!(fold(&events).unwrap().is_interrupted());
            events.push(Event::Failed { reason: "why".into() });
            assert!(!fold(&events).unwrap().is_interrupted());
            assert!(fold(&[events.clone(), vec![Event::Staged]].concat()).is_err(), "a failed run goes on by itself");
            let given_up = fold(&[events.clone(), vec![Event::Abandoned]].concat()).unwrap();
            assert_eq!(given_up.phase, Phase::Abandoned);
            assert!(fold(&[events.clone(), vec![Event::Abandoned, Event::Resumed]].concat()).is_err());
            let resumed = fold(&[events, vec![Event::Resumed]].concat()).unwrap();
            assert!(resumed.is_interrupted() && resumed.phase <= Phase::Staged);
        }
        assert!(fold(&[&all()[..6], &[Event::Abandoned]].concat()).is_err());
        assert_eq!(fold(&[&all()[..6], &[Event::Resumed]].concat()).unwrap().phase, Phase::Committed);
        assert!(fold(&[&all()[..7], &[Event::Resumed]].concat()).is_err());
        assert!(fold(&[&all()[..5], &[Event::RolledBack { rows: 0 }]].concat()).is_err());
    }
}
