//! Progress on stderr: bars on a terminal, lines elsewhere, JSON for programs; and what Ctrl-C does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

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
            eprintln!("{:<16} {seconds:.2} s", step.doing());
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
        eprintln!("{value}");
    }
}

/// Passes events on, and knows whether the commit has begun.
pub(super) struct Watched {
    listener: Arc<dyn Listener>,
    committing: Arc<AtomicBool>,
}

impl Listener for Watched {
    fn hear(&self, event: &Event) {
        if matches!(event, Event::Began(Step::Commit)) {
            self.committing.store(true, Ordering::SeqCst);
        }
        self.listener.hear(event);
    }
}

/// Ends the program on Ctrl-C as long as nothing is committed: the open transaction is rolled back by the target. From the
/// commit on the run goes on to its end, which is near.
pub(super) fn stop_on_interrupt(listener: Arc<dyn Listener>) -> Watched {
    let committing = Arc::new(AtomicBool::new(false));
    let watched = Watched { listener, committing: committing.clone() };
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if committing.load(Ordering::SeqCst) {
                eprintln!("\nthe run is committing: it ends by itself");
            } else {
                eprintln!("\nstopped: nothing was loaded");
                std::process::exit(130);
            }
        }
    });
    watched
}
