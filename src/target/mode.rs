//! Conversion mode: the switch that must be on before anything can be written. A target stores its history and judges it by its own clock.

use jiff::{SignedDuration, Timestamp};

/// Conversion mode at a moment of the target's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// The moment of the query.
    pub now: Timestamp,
    /// The last period; None if the mode was never switched on.
    pub last: Option<Period>,
}

/// A period in which conversion mode was on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// When it was switched on.
    pub since: Timestamp,
    /// When it ends automatically.
    pub until: Timestamp,
    /// The login that switched it on, or on SQLite the user of this machine.
    pub by: String,
    /// The stated reason.
    pub reason: String,
    /// Whether it stays on at the end of a run.
    pub keep: bool,
    /// How it was ended early; None if it ends automatically.
    pub ended: Option<Ended>,
}

/// The end of a period before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// The login or user that ended it.
    pub by: String,
    /// The run that ended it, if one did.
    pub run: Option<String>,
    /// The stated reason, if any.
    pub reason: Option<String>,
}

/// A change of conversion mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switch {
    /// Switches on, and ends the current period.
    On {
        /// The duration.
        time: SignedDuration,
        /// The stated reason.
        reason: String,
        /// Whether it stays on at the end of a run.
        keep: bool,
    },
    /// Switches off; does nothing if it is off.
    Off {
        /// The stated reason, if any.
        reason: Option<String>,
    },
}

impl Mode {
    /// Returns the current period, if the mode is on.
    pub fn on(&self) -> Option<&Period> {
        self.last.as_ref().filter(|last| last.ended.is_none() && self.now < last.until)
    }

    /// Describes since when and why the mode is off, to follow `it is off`. Meaningless if the mode is on.
    pub fn off(&self) -> String {
        match &self.last {
            None => "it was never switched on".into(),
            Some(Period { until, ended: None, .. }) => format!("it expired {}", shown(*until)),
            Some(Period { ended: Some(Ended { at, run: Some(run), .. }), .. }) => {
                format!("run {run} ended it {}", shown(*at))
            }
            Some(Period { ended: Some(Ended { at, by, reason, .. }), .. }) => {
                let reason = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
                format!("{by} switched it off {}{reason}", shown(*at))
            }
        }
    }
}

/// Formats a moment to the second, in UTC.
pub fn shown(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(now: &str, ended: Option<Ended>) -> Mode {
        let at = |text: &str| text.parse().unwrap();
        let (since, until) = (at("2026-11-28T21:00:00Z"), at("2026-11-28T23:00:00Z"));
        let last = Period { since, until, by: "dba".into(), reason: "village".into(), keep: false, ended };
        Mode { now: at(now), last: Some(last) }
    }

    #[test]
    fn it_is_on_until_its_time_is_up() {
        assert!(mode("2026-11-28T22:59:59.999Z", None).on().is_some());
        let mode = mode("2026-11-28T23:00:00Z", None);
        assert_eq!(mode.on(), None);
        assert_eq!(mode.off(), "it expired 2026-11-28 23:00:00 UTC");
        assert_eq!(Mode { last: None, ..mode }.off(), "it was never switched on");
    }

    #[test]
    fn the_message_names_who_ended_it() {
        let ended = |run: Option<&str>, reason: Option<&str>| Ended {
            at: "2026-11-28T22:00:00Z".parse().unwrap(),
            by: "eve".into(),
            run: run.map(str::to_owned),
            reason: reason.map(str::to_owned),
        };
        let off = |ended| mode("2026-11-28T22:30:00Z", Some(ended)).off();
        assert_eq!(off(ended(None, None)), "eve switched it off 2026-11-28 22:00:00 UTC");
        assert_eq!(off(ended(None, Some("too late"))), "eve switched it off 2026-11-28 22:00:00 UTC: too late");
        assert_eq!(off(ended(Some("R1"), None)), "run R1 ended it 2026-11-28 22:00:00 UTC");
        assert_eq!(mode("2026-11-28T22:30:00Z", Some(ended(None, None))).on(), None);
    }
}
