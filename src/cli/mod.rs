//! The commands: arguments become a request, results go to stdout, progress and errors to stderr.

mod args;
mod commands;
mod explain;
mod keymap;
mod mode;
mod output;
mod policy;
mod progress;
mod report_files;
mod rollback;
mod runs;
mod scaffold;
#[cfg(test)]
mod tests;
mod trace;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use args::{Cli, Output};
use clap::Parser;

use crate::error::{Error, Kind, Result};
use output::print_error;

/// Stack size per thread in bytes. SQL is planned recursively; the memory is committed only when it is used.
const STACK: usize = 64 << 20;

/// How long the program waits at its end for computations that still run.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The message of the last panic.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Parses the command line, executes the command, prints an error and its hint, and returns the exit code.
pub fn program() -> ExitCode {
    quiet_panics();
    match Cli::try_parse() {
        Ok(cli) => main(cli),
        Err(error) => usage(&error),
    }
}

/// Records panic messages instead of printing them. Decoders panic on damaged files, which is reported as an error of the file.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = panic.to_string();
        }
    }));
}

/// Executes a command and returns the exit code.
fn main(cli: Cli) -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    let color = cli.global.color.enabled(&std::io::stderr());
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || execute(cli));
    let ended = thread.map(std::thread::JoinHandle::join).map_err(Error::internal);
    let result = ended.and_then(|ended| {
        ended.unwrap_or_else(|_| {
            let panic = LAST_PANIC.lock().map(|last| last.clone()).unwrap_or_default();
            Err(Error::internal(format!("internal error: {panic}"))
                .hint("uncommitted changes were rolled back; report this error"))
        })
    });
    trace::end();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print_error(&error, color, Output::Text);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Prints the requested help or the error in the command line, and returns the exit code.
fn usage(error: &clap::Error) -> ExitCode {
    output::usage(error);
    if error.use_stderr() { ExitCode::from(Kind::Usage.exit_code()) } else { ExitCode::SUCCESS }
}

fn execute(cli: Cli) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cli.global.threads().max(2))
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("cannot start threads: {error}")))?;
    let output = cli.global.output;
    let color = cli.global.color.enabled(&std::io::stderr());
    let result = runtime.block_on(async move {
        match commands::dispatch(cli).await {
            // Printed here, because only here the format is known; the caller needs no more than the exit code.
            Err(error) if output != Output::Text => {
                print_error(&error, color, output);
                Ok(error.kind().exit_code())
            }
            result => result,
        }
    });
    // A query that timed out may still compute for a while.
    runtime.shutdown_timeout(LAST_WAIT);
    result
}
