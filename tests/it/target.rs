//! What a target commit_checks, whatever is behind it: the same tests on SQLite and on PostgreSQL, and some of them on a
//! target in memory that is written for this contract alone.
//!
//! A test is a function of the kind of target; `each_target!` makes a test of it for each.

mod ask;
mod catalog;
mod direct_path;
mod history;
mod keys;
pub mod live;
mod load;
mod memory;
mod mode;
mod refusal;
mod rollback;
mod rows;
mod types;
