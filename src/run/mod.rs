//! The route of a run from delta files to rows of production: `check_phase` before the first write, then the phases of `load_run` in
//! the order of `load`.

mod accounting;
pub mod analyze;
pub mod backup;
mod check_phase;
mod context;
mod control_totals;
mod incoming;
pub mod journals;
pub mod keymap;
mod load;
mod load_run;
mod mock_diff;
mod report_store;
mod request;
pub mod restore;
mod resume;
mod rollback;
pub mod scaffold;
pub mod setup;
mod verify;

pub use check_phase::{plan, validate};
pub use context::{CommandOptions, OpenPipeline, RunContext};
pub use journals::of_run as story;
pub use load::{LoadOptions, rehearse, resume, run};
pub use report_store::{StoredReport, kept};
pub use resume::{ResumableRun, find};
pub use rollback::rollback;
