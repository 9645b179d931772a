//! Insert-only incremental conversion: delta files into a live production database, keyed, checked and reconciled.
//!
//! [`Pipeline`] is the way in: it validates, runs, and resumes what a pipeline file states, and returns a [`Report`]. The program
//! `pipeline` does the same from a command line.
//!
//! ```no_run
//! # async fn validate() -> delta_pipeline::Result<()> {
//! let report = delta_pipeline::Pipeline::new("delta.yaml").validate().await?;
//! println!("{} of {} rows are accepted", report.tables[0].accepted, report.tables[0].read);
//! # Ok(())
//! # }
//! ```
//!
//! # Floors
//!
//! The floor plan, from the top down; what is on a floor uses its own floor and those below, never one above:
//!
//! | floor | module | what it is |
//! |---|---|---|
//! | 5 | `cli` | the commands on a command line |
//! | 5 | `pipeline` | the commands as a library |
//! | 4 | `run` | the route of a run: orchestrators of named phases |
//! | 4 | `report` | a run as text, JSON, HTML, JUnit, Markdown, and annotations |
//! | 3 | `keys` | new keys: offset, references, the key map |
//! | 3 | `check` | SQL → violations → the verdict on every row |
//! | 3 | `scaffold` | a live schema and delta files → a pipeline file to start from |
//! | 2 | `plan` | pipeline file + catalog → plan: pure data |
//! | 2 | `safeguard` | what must hold before anything is written: conversion mode, window |
//! | 2 | `source` | delta files → batches with file and line |
//! | 2 | `backup` | the key map's segments in a store |
//! | 1 | `engine` | DataFusion, and the rows of the delta |
//! | 1 | `target` | production, staging, and control tables: roles and phases |
//! | 0 | `spec` | the pipeline file as the user wrote it |
//! | 0 | `journal` | what happens in a run, as events |
//! | 0 | `output_files` | the files that a run leaves, and who may read them |
//! | 0 | `progress` | steps of a run, and who listens to them |
//! | 0 | `diagnostic` | problems with their places, and the redaction of secrets |
//! | 0 | `failpoint` | points at which tests stop the process |
//! | 0 | `error` | what can go wrong, by whose fault it is |

mod backup;
mod check;
mod cli;
mod diagnostic;
mod engine;
mod error;
mod failpoint;
mod journal;
mod keys;
mod output_files;
mod pipeline;
mod plan;
mod progress;
mod report;
mod run;
mod safeguard;
mod scaffold;
mod source;
mod spec;
mod target;

pub use error::{Error, Kind, Result};
pub use journal::{Entry, Event, Journal};
pub use pipeline::Pipeline;
pub use progress::{Listener, Progress, Step, Timing};
pub use report::{Report, TableReport, Verdict};

#[doc(hidden)]
pub use cli::program;

/// The internal modules, for the benches and tests of this repository. They change without notice.
#[cfg(feature = "internals")]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod internals {
    pub mod check {
        pub use crate::check::*;
    }
    pub mod engine {
        pub use crate::engine::*;
    }
    pub mod error {
        pub use crate::error::*;
    }
    pub mod journal {
        pub use crate::journal::*;
    }
    pub mod keys {
        pub use crate::keys::*;
    }
    pub mod progress {
        pub use crate::progress::*;
    }
    pub mod report {
        pub use crate::report::*;
    }
    pub mod run {
        pub use crate::run::*;
    }
    pub mod safeguard {
        pub use crate::safeguard::*;
    }
    pub mod source {
        pub use crate::source::*;
    }
    pub mod spec {
        pub use crate::spec::*;
    }
    pub mod target {
        pub use crate::target::*;
    }
}
