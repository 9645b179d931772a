//! The product from outside: the binary on real files, and the library's route with random ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "all of this is test code; clippy.toml allows these in #[test] functions only, not in their helpers"
)]

#[cfg(not(feature = "failpoints"))]
compile_error!("these tests need `--features failpoints`, as `bash tests/run` gives it");

#[macro_use]
mod each_target;

mod alone;
mod backup;
mod bad_input;
mod canaries;
mod chain;
mod checks;
mod cli;
mod composite_keys;
mod crash;
mod damage;
mod database_checks;
mod delta;
mod direct_path;
mod dirt;
mod everything;
mod examples;
mod explain;
mod files;
mod fixed;
mod floors;
mod init;
mod invariants;
mod key_kinds;
mod keymap;
mod live;
mod messages;
mod mock;
mod peer;
mod policy;
mod pooler;
mod postgres;
mod private;
mod production;
mod profile;
mod property;
mod proxy;
mod public_schemas;
mod readme;
mod rejects;
mod reports;
mod resume;
mod rollback;
mod row_numbers;
mod safeguards;
mod sample;
mod scene;
mod schemas;
mod secrets;
mod security;
#[allow(dead_code, reason = "unit tests use it too")]
mod server;
mod slip;
mod support;
mod target;
mod tidy;
mod usecases;
mod values;
mod verdict;
