//! The commands: what is typed becomes a request, what comes back is told on stdout, progress and errors on stderr.

mod args;
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

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use args::Cli;
use clap::CommandFactory;

use crate::error::{Error, Kind, Result};
use crate::progress::{Listener, NoopListener};
use crate::report::{self, Verdict};
use crate::run::{self, LoadOptions, OpenPipeline, RunContext};
use crate::spec;
use crate::target::Access;
use args::{Command, Format, Global, LogFormat, Output, ReportFile, SchemaOf};
use output::{count, hand_over, json, print_error, say, tell};
use progress::{Interrupt, InterruptibleListener};
use report_files::ReportFiles;

/// Bytes of stack of each thread: SQL is planned by recursion. They are taken from memory only as far as they are used.
const STACK: usize = 16 << 20;

/// How long the end of the program waits for what is still computed.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A plan that has work to do, with `--detailed-exitcode`.
const HAS_WORK: u8 = 2;

/// What the last panic said.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Keeps what a panic says instead of printing it: the decoders of damaged files panic, and that is told as an error about the file.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = panic.to_string();
        }
    }));
}

/// Does what the command line says and gives the exit code.
pub fn main(cli: Cli) -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    let color = cli.global.color.enabled(&std::io::stderr());
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || execute(cli));
    let ended = thread.map(std::thread::JoinHandle::join).map_err(Error::internal);
    let result = ended.and_then(|ended| {
        ended.unwrap_or_else(|_| {
            let what = LAST_PANIC.lock().map(|last| last.clone()).unwrap_or_default();
            Err(Error::internal(format!("this program failed: {what}"))
                .hint("nothing that was not committed is kept; please report it"))
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

/// Tells what is wrong with the command line, or the help that was asked for, and gives the exit code.
pub fn usage(error: &clap::Error) -> ExitCode {
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
        match dispatch(cli).await {
            // Told here, where the format is known; the exit code is all that is left.
            Err(error) if output != Output::Text => {
                print_error(&error, color, output);
                Ok(error.kind().exit_code())
            }
            result => result,
        }
    });
    // A query whose time was up may compute on for a while.
    runtime.shutdown_timeout(LAST_WAIT);
    result
}

async fn dispatch(cli: Cli) -> Result<u8> {
    let global = cli.global;
    global.check()?;
    match cli.command {
        Command::Init(wanted) => scaffold::init(wanted, global.target.as_ref()).await,
        Command::Check { file } => {
            let session = look(&global, &file).await?;
            let checks: usize = session.compiled.plan.tables.iter().map(|table| table.checks.len()).sum();
            let (tables, checks) = (count(session.compiled.plan.tables.len(), "table"), count(checks, "check"));
            say(&match global.output {
                Output::Json => "{\"version\":1,\"problems\":[]}\n".to_owned(),
                Output::Github => String::new(),
                Output::Text => {
                    let told = explain::checks(&session, global.verbose);
                    let told = session.compiled.secrets.mask(&told);
                    format!("{}: {tables}, {checks}, no problems\n\n{told}", file.display())
                }
            })?;
            Ok(0)
        }
        Command::Validate { file, report, profile } => {
            trace::begin(profile.as_deref())?;
            let session = look(&global, &file).await?;
            let files = ReportFiles::create(&report, session.output_mode)?;
            let result = run::validate(&session, listener(&global).as_ref()).await;
            tell(&result.map_err(|error| error.masked(&session.compiled.secrets))?, None, global.output, files)
        }
        Command::Plan { file, out, detailed_exitcode, mut report } => {
            let (session, _) = open(&global, &file, Access::Read).await?;
            report.extend(out.map(|path| ReportFile { format: Format::Json, path }));
            let files = ReportFiles::create(&report, session.output_mode)?;
            let result = run::plan(&session, listener(&global).as_ref())
                .await
                .map_err(|error| error.masked(&session.compiled.secrets))?;
            let code = tell(&result, None, global.output, files)?;
            Ok(if detailed_exitcode && result.verdict == Verdict::Passed { HAS_WORK } else { code })
        }
        Command::Run { file, mock, allow_reload, report, profile } => {
            trace::begin(profile.as_deref())?;
            let (session, interrupt) = open(&global, &file, Access::Write).await?;
            // Made now: a load whose report cannot be written is better refused than regretted.
            let files = ReportFiles::create(&report, session.output_mode)?;
            let watched = InterruptibleListener::new(listener(&global), interrupt, &file);
            let result = {
                let options = LoadOptions { allow_reload };
                match mock {
                    true => run::rehearse(&session, options, &watched).await,
                    false => run::run(&session, options, &watched).await,
                }
            };
            drop(watched);
            let report = result.map_err(|error| error.masked(&session.compiled.secrets))?;
            // Without its journal a report is one still.
            let journal = run::story(session.target.as_ref(), &report.run).await.unwrap_or_default();
            tell(&report, journal.as_ref(), global.output, files)
        }
        Command::Resume { file, run, report, profile } => {
            trace::begin(profile.as_deref())?;
            let interrupt = Interrupt::watch();
            let request = global.request(&file);
            let opened = OpenPipeline::open(&request, Access::Write).await?;
            let unfinished = run::find(&opened, run.as_deref()).await?;
            let session = RunContext::prepare(opened, &request, Access::Write, unfinished.moment()?).await?;
            interrupt.removes(session.engine.work_folder());
            trace::mask(&session.compiled.secrets);
            let files = ReportFiles::create(&report, session.output_mode)?;
            let watched = InterruptibleListener::new(listener(&global), interrupt, &file);
            let result = run::resume(&session, &unfinished, &watched).await;
            drop(watched);
            let report = result.map_err(|error| error.masked(&session.compiled.secrets))?;
            // Without its journal a report is one still.
            let journal = run::story(session.target.as_ref(), &report.run).await.unwrap_or_default();
            tell(&report, journal.as_ref(), global.output, files)
        }
        Command::Rollback { file, run, dry_run, accept } => {
            rollback::rollback(&global.request(&file), &run, dry_run, &accept, global.output).await
        }
        Command::Setup { file, print, owner } => setup(&global, &file, print, owner.as_deref()).await,
        Command::Runs { file, run } => runs::tell(&global.request(&file), run.as_deref(), global.output).await,
        Command::Report { file, run, report } => {
            let opened = OpenPipeline::open(&global.request(&file), Access::Read).await?;
            let files = ReportFiles::create(&report, opened.output_mode())?;
            let kept =
                run::kept(&opened, run.as_deref()).await.map_err(|error| error.masked(&opened.document.secrets))?;
            tell(&kept.report, kept.journal.as_ref(), global.output, files)?;
            Ok(0)
        }
        Command::Explain { file, analyze } => {
            let session = look(&global, &file).await?;
            let analysis = match analyze {
                true => run::analyze::analyze(&session, listener(&global).as_ref()).await.map(Some),
                false => Ok(None),
            };
            let analysis = analysis.map_err(|error| error.masked(&session.compiled.secrets))?;
            say(&session.compiled.secrets.mask(&explain::text(&session, analysis.as_ref())))?;
            Ok(0)
        }
        Command::Keymap { command } => keymap::execute(&global, command).await,
        Command::Policy { command } => policy::policy(&global, command).await,
        Command::Mode { command } => mode::mode(&global, command).await,
        Command::Schema { of } => {
            say(&match of {
                SchemaOf::Pipeline => json(&spec::json_schema())?,
                SchemaOf::Report => json(&report::json_schema())?,
            })?;
            Ok(0)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pipeline", &mut script);
            hand_over(&String::from_utf8_lossy(&script))?;
            Ok(0)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(|error| Error::internal(format!("the manual page: {error}")))?;
            hand_over(&String::from_utf8_lossy(&page))?;
            Ok(0)
        }
    }
}

/// Opens a session that does without a target where none is named.
async fn look(global: &Global, file: &Path) -> Result<RunContext<()>> {
    let interrupt = Interrupt::watch();
    let session = RunContext::look(&global.request(file)).await?;
    interrupt.removes(session.engine.work_folder());
    trace::mask(&session.compiled.secrets);
    Ok(session)
}

/// Opens a session; Ctrl-C ends the program from here on.
async fn open(global: &Global, file: &Path, access: Access) -> Result<(RunContext, Arc<Interrupt>)> {
    let interrupt = Interrupt::watch();
    let session = RunContext::open(&global.request(file), access).await?;
    interrupt.removes(session.engine.work_folder());
    trace::mask(&session.compiled.secrets);
    Ok((session, interrupt))
}

fn listener(global: &Global) -> Arc<dyn Listener> {
    if global.quiet {
        return Arc::new(NoopListener);
    }
    match global.log_format {
        LogFormat::Json => Arc::new(progress::JsonLines),
        LogFormat::Text if std::io::stderr().is_terminal() => Arc::new(progress::Bars::new()),
        LogFormat::Text if global.verbose => Arc::new(progress::Lines),
        LogFormat::Text => Arc::new(NoopListener),
    }
}

async fn setup(global: &Global, file: &Path, print: bool, owner: Option<&str>) -> Result<u8> {
    let request = global.request(file);
    let opened = OpenPipeline::open(&request, if print { Access::Read } else { Access::Setup }).await?;
    let masked = |error: Error| error.masked(&opened.document.secrets);
    if print {
        match run::setup::script(&opened, &request, owner).await.map_err(masked)? {
            None => say(&format!("{} needs no SQL: `pipeline setup` makes what it keeps\n", opened.shown))?,
            Some(script) => hand_over(&script)?,
        }
    } else {
        run::setup::setup(&opened, &request, owner).await.map_err(masked)?;
        say(&format!("{} is set up for loads\n", opened.shown))?;
    }
    Ok(0)
}
