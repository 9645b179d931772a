//! The product from outside: the binary on real files, and the library's route with random ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "all of this is test code; clippy.toml allows these in #[test] functions only, not in their helpers"
)]

mod bad_input;
mod chain;
mod checks;
mod cli;
mod damage;
mod delta;
mod dirt;
mod floors;
mod invariants;
mod keymap;
mod live;
mod mock;
mod postgres;
mod production;
mod property;
mod proxy;
mod readme;
mod rejects;
mod resume;
mod safeguards;
mod sample;
mod scene;
mod secrets;
#[allow(dead_code, reason = "unit tests use it too")]
mod server;
mod support;
mod target;
mod usecases;
mod verdict;
