//! Conversion mode: the switch that must be on for anything to be written. A target keeps its history, and judges it by its own clock.

use jiff::{SignedDuration, Timestamp};

/// Conversion mode at a moment of the target's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// The moment.
    pub now: Timestamp,
    /// The last time that it was switched on, where it ever was.
    pub last: Option<Period>,
}

/// One time that conversion mode was switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// When.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
    /// Who switched it on: the login, or on SQLite this machine's user.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether it stays on at the end of a run.
    pub keep: bool,
    /// How it was ended, where it did not end by itself.
    pub ended: Option<Ended>,
}

/// How conversion mode was ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Who ended it.
    pub by: String,
    /// The run at whose end it was, where it was at one's.
    pub run: Option<String>,
    /// Why, where it was said.
    pub reason: Option<String>,
}

/// How conversion mode is switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switch {
    /// On, from now on; what was on before is ended.
    On {
        /// For how long.
        time: SignedDuration,
        /// Why.
        reason: String,
        /// Whether it stays on at the end of a run.
        keep: bool,
    },
    /// Off; nothing changes where it is.
    Off {
        /// Why, where it is said.
        reason: Option<String>,
    },
}

impl Mode {
    /// The time that it is on for, where it is on.
    pub fn on(&self) -> Option<&Period> {
        self.last.as_ref().filter(|last| last.ended.is_none() && self.now < last.until)
    }

    /// Since when it is off and why, in words that go behind `it is off`; nothing of it where it is on.
    pub fn off(&self) -> String {
        match &self.last {
            None => "it was never switched on".into(),
            Some(Period { until, ended: None, .. }) => format!("its time was up {}", shown(*until)),
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

/// A moment of a target, to the second, in UTC.
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
        assert_eq!(mode.off(), "its time was up 2026-11-28 23:00:00 UTC");
        assert_eq!(Mode { last: None, ..mode }.off(), "it was never switched on");
    }

    #[test]
    fn who_ended_it_is_told() {
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
