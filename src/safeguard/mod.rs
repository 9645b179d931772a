//! Conditions that must hold before anything is written: an open window, and conversion mode.
//!
//! Both are evaluated by the target's clock. Commands that write call [`Safeguards::admit`] first; a run checks again before it inserts.

mod window;

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

pub use window::{Window, WindowState};

use crate::error::{Error, Result};
use crate::spec::{ConversionMode, SafeguardsSpec};
use crate::target::{CommitPhase, Governance, Mode, Policy, StagingPhase};

/// The safeguards of a pipeline.
#[derive(Debug, Clone)]
pub struct Safeguards {
    /// The window of the pipeline file; `None` for any time.
    pub window: Option<Window>,
    /// The window of the target's policy; `None` for any time.
    policy_window: Option<Window>,
    /// The window of the target's policy, if it cannot be read.
    unreadable_window: Option<String>,
    /// Whether conversion mode must be on, because the policy or the file requires it.
    pub requires_mode: bool,
    /// Whether the file requires conversion mode.
    file_requires_mode: bool,
    /// The number of approvals of the plan that the target requires.
    approvals: u32,
    /// The maximum number of keys that a run can reserve for a table.
    max_key_block: u64,
    /// Whether this command created the target.
    is_new: bool,
    /// The path of the pipeline file, as given on the command line.
    file: PathBuf,
    /// The target's name in messages.
    shown: String,
}

impl Safeguards {
    /// Returns the safeguards of a pipeline file and its target's policy. `shown` is the target's name in messages.
    ///
    /// # Errors
    /// Returns an error if the window's time zone is unknown.
    pub fn try_new(spec: &SafeguardsSpec, policy: &Policy, file: &Path, shown: &str) -> Result<Self> {
        let window = spec.window.as_ref().map(Window::try_new).transpose()?;
        let file_requires_mode = spec.conversion_mode == Some(ConversionMode::Required);
        let mut safeguards = Self {
            window,
            policy_window: None,
            unreadable_window: None,
            requires_mode: false,
            file_requires_mode,
            approvals: 0,
            max_key_block: 0,
            is_new: false,
            file: file.to_owned(),
            shown: shown.to_owned(),
        };
        safeguards.take(policy)?;
        Ok(safeguards)
    }

    /// Adopts the target's requirements.
    fn take(&mut self, policy: &Policy) -> Result<()> {
        self.requires_mode = policy.conversion_mode || self.file_requires_mode && !policy.is_new && !self.is_new;
        self.is_new |= policy.is_new;
        self.policy_window = policy.window.as_ref().map(Window::try_new).transpose()?;
        self.unreadable_window.clone_from(&policy.unreadable_window);
        self.approvals = policy.approvals;
        self.max_key_block = policy.max_key_block;
        Ok(())
    }

    /// Returns both windows; runs can begin and insert while both are open.
    fn windows(&self) -> impl Iterator<Item = &Window> {
        self.window.iter().chain(&self.policy_window)
    }

    /// Returns the first closed window, the time at which it opens, and the current time.
    async fn closed(&self, target: &dyn Governance) -> Result<Option<(&Window, Timestamp, Timestamp)>> {
        if self.windows().next().is_none() {
            return Ok(None);
        }
        let now = target.now().await?;
        Ok(self.windows().find_map(|window| match window.is_open(now) {
            WindowState::Closed { opens } => Some((window, opens, now)),
            WindowState::Open { .. } => None,
        }))
    }

    /// Refuses to write if a window is closed or conversion mode is off, and lists all reasons.
    ///
    /// # Errors
    /// Returns a refusal, or an error if the target is unreachable.
    pub async fn admit(&self, target: &dyn Governance) -> Result<()> {
        let (mut reasons, mut hints) = (Vec::new(), Vec::new());
        if let Some((window, opens, now)) = self.closed(target).await? {
            reasons.push(format!("the window is closed; it opens {}", coming(window, opens, now)));
            hints.push(match self.window.as_ref() == Some(window) {
                true => format!("`safeguards.window` is {window}"),
                false => format!("the target's policy has the window {window}"),
            });
        }
        if let Some(window) = &self.unreadable_window {
            reasons.push(unreadable(window));
            hints.push(SET_WINDOW.to_owned());
        }
        if self.approvals > 0 {
            reasons.push(format!("the target requires {} approvals of the plan", self.approvals));
            hints.push("list the target's requirements with `pipeline policy show FILE`".to_owned());
        }
        if let Some(reason) = self.not_in_mode(target).await? {
            reasons.push(reason);
            hints.push(self.switch_on());
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Error::refused(reasons.join("; and ")).hint(format!("nothing was written; {}", hints.join("; "))))
    }

    /// Refuses a block with more keys than the target allows a run to reserve for a table.
    ///
    /// # Errors
    /// Returns a refusal.
    pub fn admit_keys(&self, table: &str, count: u64) -> Result<()> {
        if count <= self.max_key_block {
            return Ok(());
        }
        Err(Error::refused(format!(
            "`{table}` needs {count} keys, but the target allows {} in one block",
            self.max_key_block
        ))
        .hint("load the delta in parts, or have the operator raise the limit: `pipeline policy set FILE --max-key-block N`"))
    }

    /// Refuses a rollback if conversion mode is off. The window is not checked, because an emergency cannot wait for it.
    ///
    /// # Errors
    /// Returns a refusal, or an error if the target is unreachable.
    pub async fn admit_rollback(&self, target: &dyn Governance) -> Result<()> {
        match self.not_in_mode(target).await? {
            None => Ok(()),
            Some(reason) => Err(Error::refused(reason).hint(format!("nothing was changed; {}", self.switch_on()))),
        }
    }

    /// Returns the reason if conversion mode is off but must be on.
    async fn not_in_mode(&self, target: &dyn Governance) -> Result<Option<String>> {
        if !self.requires_mode {
            return Ok(None);
        }
        let mode = target.mode().await?;
        let off = || format!("`{}` is not in conversion mode: {}", self.shown, mode.off());
        Ok(mode.on().is_none().then(off))
    }

    /// Stops an insertion if the window has closed or conversion mode has ended since the run began. `next` is the hint for
    /// continuing. The mode cannot end between this check and the commit.
    ///
    /// # Errors
    /// Returns an interruption if the window has closed, a refusal if the mode has ended, or an error if the target is
    /// unreachable.
    pub async fn admit_insertion(
        &self,
        target: &dyn Governance,
        load: &mut dyn StagingPhase,
        next: &str,
    ) -> Result<()> {
        // The policy may have changed since the run began; from here it cannot change until the commit.
        let mut now_required = self.clone();
        now_required.take(&load.lock_policy().await?)?;
        if let Some(window) = &now_required.unreadable_window {
            return Err(Error::refused(unreadable(window)).hint(format!("nothing was inserted; {SET_WINDOW}")));
        }
        if now_required.approvals > self.approvals {
            return Err(Error::refused(format!(
                "the target now requires {} approvals of the plan",
                now_required.approvals
            ))
            .hint("nothing was inserted"));
        }
        if let Some((window, opens, now)) = now_required.closed(target).await? {
            let message = "the window closed before the insertion: production is unchanged";
            let hint = format!("nothing was inserted; once the window opens ({}), {next}", coming(window, opens, now));
            return Err(Error::interrupted(message).hint(hint));
        }
        if now_required.requires_mode {
            let mode = load.lock_mode().await?;
            if mode.on().is_none() {
                let message = format!("conversion mode of `{}` ended before the insertion: {}", self.shown, mode.off());
                let hint = format!("nothing was inserted; {}; then {next}", self.switch_on());
                return Err(Error::refused(message).hint(hint));
            }
        }
        Ok(())
    }

    /// Returns the hint to resume a run.
    pub fn resume(&self, run: &str) -> String {
        format!("run `pipeline resume {} {run}`", self.file.display())
    }

    /// Ends conversion mode at the end of a run, in the run's transaction.
    ///
    /// # Errors
    /// Returns an error if the target is unreachable.
    pub async fn close(&self, load: &mut dyn CommitPhase) -> Result<()> {
        if self.requires_mode { load.end_mode().await } else { Ok(()) }
    }

    /// Returns notes for a plan: whether the safeguards would admit a run now.
    ///
    /// # Errors
    /// Returns an error if the target is unreachable.
    pub async fn notes(&self, target: &dyn Governance) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for window in self.windows() {
            let now = target.now().await?;
            notes.push(match window.is_open(now) {
                WindowState::Open { until } => {
                    let left = lasting(until.duration_since(now));
                    format!("the window is open until {}, for {left} ({window})", window.local_time(until))
                }
                WindowState::Closed { opens } => {
                    format!("the window is closed; it opens {} ({window})", coming(window, opens, now))
                }
            });
        }
        if self.requires_mode {
            let mode = target.mode().await?;
            notes.push(match mode.on() {
                Some(on) => format!("conversion mode is on for {}", left(&mode, on.until)),
                None => format!("conversion mode is off ({}): {} before a run", mode.off(), self.switch_on()),
            });
        }
        Ok(notes)
    }

    fn switch_on(&self) -> String {
        format!("switch it on with `pipeline mode on {} --for 2h --reason …`", self.file.display())
    }
}

/// The hint to replace a window that cannot be read.
const SET_WINDOW: &str = "have the operator set it again: `pipeline policy set FILE --window WINDOW`";

fn unreadable(window: &str) -> String {
    format!("the window of the target's policy cannot be read: `{window}`")
}

fn coming(window: &Window, opens: Timestamp, now: Timestamp) -> String {
    format!("{}, in {}", window.local_time(opens), lasting(opens.duration_since(now)))
}

fn left(mode: &Mode, until: Timestamp) -> String {
    lasting(until.duration_since(mode.now))
}

/// Formats a duration for people, rounded up to the minute: `3 d 4 h`, `4 h 20 min`, `20 min`.
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
    fn elapsed_time_has_its_two_largest_units() {
        let formatted = |seconds: i64| lasting(SignedDuration::from_secs(seconds));
        let day = 86_400;
        assert_eq!(
            [-5, 0, 1, 60, 61, 3599, 3660, day - 60, day - 1, 3 * day + 4 * 3600].map(formatted),
            ["0 min", "0 min", "1 min", "1 min", "2 min", "1 h", "1 h 1 min", "23 h 59 min", "1 d", "3 d 4 h"]
        );
    }
}
