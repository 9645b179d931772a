//! The command line: parse, dispatch, print an error and its hint, exit.

use std::process::ExitCode;

use clap::Parser;
use delta_pipeline::cli::{self, Cli};

fn main() -> ExitCode {
    cli::quiet_panics();
    match Cli::try_parse() {
        Ok(cli) => cli::main(cli),
        Err(error) => cli::usage(&error),
    }
}
