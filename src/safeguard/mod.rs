//! What must hold before anything is written: the window is open, and the target is in conversion mode.
//!
//! Both are judged by the target's clock. Whoever writes asks [`Safeguards::admit`] first; a run asks again right before it inserts.

mod window;

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

pub use window::{Standing, Window};

use crate::error::{Error, Result};
use crate::spec::SafeguardsSpec;
use crate::target::{Load, Mode, Target};

/// The safeguards of a pipeline.
#[derive(Debug, Clone)]
pub struct Safeguards {
    /// When runs may begin and insert; None for at any time.
    pub window: Option<Window>,
    /// The pipeline file, as it was named on the command line.
    file: PathBuf,
    /// The target's name in messages.
    shown: String,
}

impl Safeguards {
    /// The safeguards that a pipeline file names, for a target that messages call `shown`.
    ///
    /// # Errors
    /// Where the window's time zone is not known.
    pub fn try_new(spec: &SafeguardsSpec, file: &Path, shown: &str) -> Result<Self> {
        let window = spec.window.as_ref().map(Window::try_new).transpose()?;
        Ok(Self { window, file: file.to_owned(), shown: shown.to_owned() })
    }

    /// Refuses to write where the window is closed or conversion mode is off, with all that is in the way.
    ///
    /// # Errors
    /// A refusal; or where the target does not answer.
    pub async fn admit(&self, target: &dyn Target) -> Result<()> {
        let (mut reasons, mut hints) = (Vec::new(), Vec::new());
        if let Some(window) = &self.window {
            let now = target.now().await?;
            if let Standing::Closed { opens } = window.is_open(now) {
                reasons.push(format!("the window is closed: it opens {}", coming(window, opens, now)));
                hints.push(format!("`safeguards.window` is {window}"));
            }
        }
        if let Some(reason) = self.not_in_mode(target).await? {
            reasons.push(reason);
            hints.push(self.switch_on());
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Error::refused(reasons.join("; and ")).hint(format!("{}; nothing was written", hints.join("; "))))
    }

    /// Refuses to take a run back where conversion mode is off. The window is not asked: an emergency does not wait for it.
    ///
    /// # Errors
    /// A refusal; or where the target does not answer.
    pub async fn admit_rollback(&self, target: &dyn Target) -> Result<()> {
        match self.not_in_mode(target).await? {
            None => Ok(()),
            Some(reason) => Err(Error::refused(reason).hint(format!("{}; nothing was changed", self.switch_on()))),
        }
    }

    /// That conversion mode is off where it must be on.
    async fn not_in_mode(&self, target: &dyn Target) -> Result<Option<String>> {
        if !target.requires_mode() {
            return Ok(None);
        }
        let mode = target.mode().await?;
        let off = || format!("`{}` is not in conversion mode: {}", self.shown, mode.off());
        Ok(mode.on().is_none().then(off))
    }

    /// Stops what is about to insert where the window has closed or conversion mode has ended since it began; `next` says how it goes
    /// on. What holds now holds to the commit: nobody ends the mode before.
    ///
    /// # Errors
    /// An interruption where the window has closed, a refusal where the mode has ended; or where the target does not answer.
    pub async fn admit_insertion(&self, target: &dyn Target, load: &mut dyn Load, next: &str) -> Result<()> {
        if let Some(window) = &self.window {
            let now = target.now().await?;
            if let Standing::Closed { opens } = window.is_open(now) {
                let message = "the window closed on the way: nothing was inserted, and production is as it was";
                let hint = format!("it opens {}; then {next}", coming(window, opens, now));
                return Err(Error::interrupted(message).hint(hint));
            }
        }
        if target.requires_mode() {
            let mode = load.hold_mode().await?;
            if mode.on().is_none() {
                let message = format!("conversion mode of `{}` ended on the way: {}", self.shown, mode.off());
                let hint = format!("nothing was inserted; {}; then {next}", self.switch_on());
                return Err(Error::refused(message).hint(hint));
            }
        }
        Ok(())
    }

    /// What [`Safeguards::admit_insertion`] says of a run: the command that goes on.
    pub fn resume(&self, run: &str) -> String {
        format!("`pipeline resume {} {run}` goes on", self.file.display())
    }

    /// Ends conversion mode at the end of a run, in the transaction that the run commits.
    ///
    /// # Errors
    /// Where the target does not answer.
    pub async fn close(&self, target: &dyn Target, load: &mut dyn Load) -> Result<()> {
        if target.requires_mode() { load.end_mode().await } else { Ok(()) }
    }

    /// What a plan says of them: whether a run would be let in now.
    ///
    /// # Errors
    /// Where the target does not answer.
    pub async fn notes(&self, target: &dyn Target) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        if let Some(window) = &self.window {
            let now = target.now().await?;
            notes.push(match window.is_open(now) {
                Standing::Open { until } => {
                    let left = lasting(until.duration_since(now));
                    format!("the window is open until {}, for {left} ({window})", window.shown(until))
                }
                Standing::Closed { opens } => {
                    format!("the window is closed: a run waits until {} ({window})", coming(window, opens, now))
                }
            });
        }
        if target.requires_mode() {
            let mode = target.mode().await?;
            notes.push(match mode.on() {
                Some(on) => format!("conversion mode is on for {}", left(&mode, on.until)),
                None => format!("conversion mode is off ({}): {} before a run", mode.off(), self.switch_on()),
            });
        }
        Ok(notes)
    }

    fn switch_on(&self) -> String {
        format!("`pipeline mode on {} --for 2h --reason …` switches it on", self.file.display())
    }
}

fn coming(window: &Window, opens: Timestamp, now: Timestamp) -> String {
    format!("{}, in {}", window.shown(opens), lasting(opens.duration_since(now)))
}

fn left(mode: &Mode, until: Timestamp) -> String {
    lasting(until.duration_since(mode.now))
}

/// A time that passes, for people, in minutes that have begun: `3 d 4 h`, `4 h 20 min`, `20 min`.
pub fn lasting(time: SignedDuration) -> String {
    let minutes = time.as_secs().max(0).unsigned_abs().div_ceil(60);
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_passes_is_told_to_its_two_largest_units() {
        let told = |seconds: i64| lasting(SignedDuration::from_secs(seconds));
        let day = 86_400;
        assert_eq!(
            [-5, 0, 1, 60, 61, 3599, 3660, day - 60, day - 1, 3 * day + 4 * 3600].map(told),
            ["0 min", "0 min", "1 min", "1 min", "2 min", "1 h", "1 h 1 min", "23 h 59 min", "1 d", "3 d 4 h"]
        );
    }
}
