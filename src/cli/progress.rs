//! Progress on stderr (bars on a terminal, lines elsewhere, JSON for programs), and the handling of termination signals.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::output::{escaped, print_note};
use super::trace;
use crate::error::Kind;
use crate::progress::{Listener, Progress, Step, Timing};
use crate::report::{self, visible};

/// A line that is redrawn: the step, its table, and the rows so far.
pub(super) struct Bars {
    bar: ProgressBar,
    rows: Mutex<HashMap<String, u64>>,
}

impl Bars {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:<16} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, rows: Mutex::default() }
    }
}

impl Listener for Bars {
    fn on_progress(&self, progress: &Progress) {
        let Ok(mut counts) = self.rows.lock() else { return };
        match progress {
            Progress::Began(step) => {
                counts.clear();
                self.bar.set_prefix(step.doing());
                self.bar.set_message("");
            }
            Progress::Rows { table, rows } => {
                let count = counts.entry(table.clone()).or_default();
                *count += rows;
                self.bar.set_message(visible(&format!("{table}: {count} rows")).into_owned());
            }
            Progress::Ended(_) | Progress::Resumable(_) => {}
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// One line per completed step.
pub(super) struct Lines;

impl Listener for Lines {
    fn on_progress(&self, progress: &Progress) {
        if let Progress::Ended(timing) = progress {
            print_note(&report::step(timing));
        }
    }
}

/// One JSON object per event.
pub(super) struct JsonLines;

impl Listener for JsonLines {
    fn on_progress(&self, progress: &Progress) {
        let value = match progress {
            Progress::Began(step) => serde_json::json!({ "event": "began", "step": step }),
            Progress::Rows { table, rows } => serde_json::json!({ "event": "rows", "table": table, "rows": rows }),
            Progress::Ended(Timing { step, seconds, rows, bytes }) => {
                serde_json::json!({ "event": "ended", "step": step, "seconds": seconds, "rows": rows, "bytes": bytes })
            }
            Progress::Resumable(run) => serde_json::json!({ "event": "resumable", "run": run }),
        };
        print_note(&escaped(&value.to_string()));
    }
}

/// The state that a termination signal acts on.
#[derive(Default)]
pub(super) struct Interrupt {
    committing: AtomicBool,
    /// The command that resumes the run, once the run is resumable.
    resume: OnceLock<String>,
    work_folder: OnceLock<PathBuf>,
}

impl Interrupt {
    /// Ends the program on Ctrl-C, SIGTERM, or SIGHUP until the commit begins: the target rolls back the open transaction.
    /// After that, signals are ignored, because the run is about to end.
    pub(super) fn watch() -> Arc<Self> {
        let interrupt = Arc::new(Self::default());
        let watching = interrupt.clone();
        // A scheduler ends its jobs with SIGTERM, and a closing terminal sends SIGHUP.
        let hangup = (!ignores_hangup()).then_some(SignalKind::hangup());
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()].into_iter().chain(hangup);
        // A signal that cannot be watched keeps its default action.
        let mut signals: Vec<_> = kinds.filter_map(|kind| signal(kind).ok()).collect();
        tokio::spawn(async move {
            while !signals.is_empty() {
                let arriving = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
                if futures::future::select_all(arriving).await.0.is_none() {
                    return;
                }
                if watching.committing.load(Ordering::SeqCst) {
                    print_note("\nthe run is committing and cannot be stopped; it ends in a moment");
                    continue;
                }
                let code = match watching.resume.get() {
                    Some(command) => {
                        print_note(&format!("\nstopped: nothing was loaded\n\nhint: resume the run with `{command}`"));
                        Kind::Interrupted.exit_code()
                    }
                    None => {
                        print_note("\nstopped: nothing was loaded");
                        STOPPED
                    }
                };
                trace::end();
                watching.remove_work_folder();
                std::process::exit(code.into());
            }
        });
        interrupt
    }

    /// Sets the work folder to remove.
    pub(super) fn removes(&self, folder: &Path) {
        // A process has one engine, hence one folder.
        let _is_first = self.work_folder.set(folder.to_owned()).is_ok();
    }

    /// Removes the work folder. Retries, because the folder may not be set yet, and other threads may still write to it.
    fn remove_work_folder(&self) {
        for _ in 0..TRIES {
            if self.work_folder.get().is_some_and(|folder| std::fs::remove_dir_all(folder).is_ok() || !folder.exists())
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns whether the program was started to outlive its terminal, as with `nohup`. False if the system does not report it.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// The exit code after a termination signal if the run cannot be resumed.
const STOPPED: u8 = 130;

/// Attempts to remove the work folder, over one second.
const TRIES: u32 = 50;

/// A listener that forwards progress, and informs [`Interrupt`] when the run becomes resumable and when its commit begins.
pub(super) struct InterruptibleListener {
    listener: Arc<dyn Listener>,
    interrupt: Arc<Interrupt>,
    file: PathBuf,
}

impl InterruptibleListener {
    pub(super) fn new(listener: Arc<dyn Listener>, interrupt: Arc<Interrupt>, file: &Path) -> Self {
        Self { listener, interrupt, file: file.to_owned() }
    }
}

impl Listener for InterruptibleListener {
    fn on_progress(&self, progress: &Progress) {
        match progress {
            Progress::Began(Step::Commit) => self.interrupt.committing.store(true, Ordering::SeqCst),
            Progress::Resumable(run) => {
                // A run becomes resumable only once.
                let command = format!("pipeline resume {} {run}", self.file.display());
                let _is_first = self.interrupt.resume.set(command).is_ok();
            }
            _ => {}
        }
        self.listener.on_progress(progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_folder_is_removed_even_if_it_is_set_late() {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("work");
        std::fs::create_dir_all(work.join("spilled")).unwrap();
        let interrupt = Interrupt::default();
        std::thread::scope(|scope| {
            scope.spawn(|| interrupt.remove_work_folder());
            std::thread::sleep(Duration::from_millis(60));
            interrupt.removes(&work);
        });
        assert!(!work.exists());
    }

    #[test]
    fn signals_are_ignored_once_the_commit_begins() {
        let interrupt = Arc::new(Interrupt::default());
        let listener =
            InterruptibleListener::new(Arc::new(crate::progress::NoopListener), interrupt.clone(), Path::new("p.yaml"));
        listener.on_progress(&Progress::Began(Step::Insert));
        assert!(!interrupt.committing.load(Ordering::SeqCst));
        listener.on_progress(&Progress::Began(Step::Commit));
        assert!(interrupt.committing.load(Ordering::SeqCst));
    }
}
