//! Progress on stderr: bars on a terminal, lines elsewhere, JSON for programs; and what Ctrl-C does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::tell::note;
use crate::journal::{Event, Listener, Step};

/// One line that is redrawn: the step, its table, and the rows so far.
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
    fn hear(&self, event: &Event) {
        let Ok(mut counts) = self.rows.lock() else { return };
        match event {
            Event::Began(step) => {
                counts.clear();
                self.bar.set_prefix(step.doing());
                self.bar.set_message("");
            }
            Event::Rows { table, rows } => {
                let count = counts.entry(table.clone()).or_default();
                *count += rows;
                self.bar.set_message(format!("{table}: {count} rows"));
            }
            Event::Ended(..) => {}
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line for each step that ended.
pub(super) struct Lines;

impl Listener for Lines {
    fn hear(&self, event: &Event) {
        if let Event::Ended(step, seconds) = event {
            note(&format!("{:<16} {seconds:.2} s", step.doing()));
        }
    }
}

/// A JSON object for each event.
pub(super) struct JsonLines;

impl Listener for JsonLines {
    fn hear(&self, event: &Event) {
        let value = match event {
            Event::Began(step) => serde_json::json!({ "event": "began", "step": step }),
            Event::Rows { table, rows } => serde_json::json!({ "event": "rows", "table": table, "rows": rows }),
            Event::Ended(step, seconds) => serde_json::json!({ "event": "ended", "step": step, "seconds": seconds }),
        };
        note(&value.to_string());
    }
}

/// What Ctrl-C has to know: whether the commit has begun, and which folder is to be removed.
#[derive(Default)]
pub(super) struct Interrupt {
    committing: AtomicBool,
    work_folder: OnceLock<PathBuf>,
}

impl Interrupt {
    /// Ends the program on Ctrl-C as long as nothing is committed: the open transaction is rolled back by the target. From the
    /// commit on the run goes on to its end, which is near.
    pub(super) fn watch() -> Arc<Self> {
        let interrupt = Arc::new(Self::default());
        let watching = interrupt.clone();
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                if watching.committing.load(Ordering::SeqCst) {
                    note("\nthe run is committing: it ends by itself");
                } else {
                    note("\nstopped: nothing was loaded");
                    watching.remove_work_folder();
                    std::process::exit(130);
                }
            }
        });
        interrupt
    }

    /// Says which folder there is to remove.
    pub(super) fn removes(&self, folder: &Path) {
        // There is one engine, and so one folder.
        let _is_first = self.work_folder.set(folder.to_owned()).is_ok();
    }

    /// Removes the work folder: also where it is not known yet but will be in a moment, and where other threads still write there.
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

/// How often removing the work folder is tried: for one second.
const TRIES: u32 = 50;

/// Passes events on, and tells when the commit begins.
pub(super) struct Watched {
    listener: Arc<dyn Listener>,
    interrupt: Arc<Interrupt>,
}

impl Watched {
    pub(super) fn new(listener: Arc<dyn Listener>, interrupt: Arc<Interrupt>) -> Self {
        Self { listener, interrupt }
    }
}

impl Listener for Watched {
    fn hear(&self, event: &Event) {
        if matches!(event, Event::Began(Step::Commit)) {
            self.interrupt.committing.store(true, Ordering::SeqCst);
        }
        self.listener.hear(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_folder_is_removed_with_what_is_in_it_also_where_it_is_told_late() {
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
    fn from_the_commit_on_the_run_goes_on() {
        let interrupt = Arc::new(Interrupt::default());
        let watched = Watched::new(Arc::new(crate::journal::Silent), interrupt.clone());
        watched.hear(&Event::Began(Step::Insert));
        assert!(!interrupt.committing.load(Ordering::SeqCst));
        watched.hear(&Event::Began(Step::Commit));
        assert!(interrupt.committing.load(Ordering::SeqCst));
    }
}
