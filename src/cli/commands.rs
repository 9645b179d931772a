//! The dispatch of a command line, and the commands that need no file of their own.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::{Cli, Command, Format, Global, LogFormat, Output, ReportFile, SchemaOf};
use super::output::{count, json, print, print_raw, print_report};
use super::progress::{self, Interrupt, InterruptibleListener};
use super::report_files::ReportFiles;
use super::{explain, keymap, mode, policy, rollback, runs, scaffold, trace};
use crate::error::{Error, Result};
use crate::progress::{Listener, NoopListener};
use crate::report::{self, Report, Verdict};
use crate::run::{self, LoadOptions, OpenPipeline, RunContext};
use crate::spec;
use crate::target::Access;

/// The exit code of a plan that has rows to load, with `--detailed-exitcode`.
const HAS_WORK: u8 = 2;

/// Executes the command of a command line, and returns the exit code.
pub(super) async fn dispatch(cli: Cli) -> Result<u8> {
    let global = cli.global;
    global.check()?;
    match cli.command {
        Command::Init(init) => scaffold::init(init, global.target.as_ref()).await,
        Command::Check { file } => check(&global, &file).await,
        Command::Validate { file, report, profile } => {
            trace::begin(profile.path.as_deref())?;
            validate(&global, &file, &report.files).await
        }
        Command::Plan { file, out, detailed_exitcode, report } => {
            plan(&global, &file, out, report.files, detailed_exitcode).await
        }
        Command::Run { file, mock, allow_reload, report, profile } => {
            trace::begin(profile.path.as_deref())?;
            Box::pin(run(&global, &file, mock, LoadOptions { allow_reload }, &report.files)).await
        }
        Command::Resume { file, run, report, profile } => {
            trace::begin(profile.path.as_deref())?;
            Box::pin(resume(&global, &file, run.as_deref(), &report.files)).await
        }
        Command::Rollback { file, run, dry_run, accept } => {
            rollback::rollback(&global.request(&file), &run, dry_run, &accept, global.output).await
        }
        Command::Setup { file, print, owner } => setup(&global, &file, print, owner.as_deref()).await,
        Command::Runs { file, run } => runs::runs(&global.request(&file), run.as_deref(), global.output).await,
        Command::Report { file, run, report } => stored_report(&global, &file, run.as_deref(), &report.files).await,
        Command::Explain { file, analyze } => explain(&global, &file, analyze).await,
        Command::Keymap { command } => keymap::keymap(&global, command).await,
        Command::Policy { command } => policy::policy(&global, command).await,
        Command::Mode { command } => mode::mode(&global, command).await,
        Command::Schema { of } => schema(of),
        Command::Completions { shell } => completions(shell),
        Command::Man => man(),
    }
}

async fn check(global: &Global, file: &Path) -> Result<u8> {
    let session = look(global, file).await?;
    let checks: usize = session.compiled.plan.tables.iter().map(|table| table.checks.len()).sum();
    let (tables, checks) = (count(session.compiled.plan.tables.len(), "table"), count(checks, "check"));
    print(&match global.output {
        Output::Json => "{\"version\":1,\"problems\":[]}\n".to_owned(),
        Output::Github => String::new(),
        Output::Text => {
            let list = explain::checks(&session, global.verbose);
            format!("{}: {tables}, {checks}, no problems\n\n{}", file.display(), session.compiled.secrets.mask(&list))
        }
    })?;
    Ok(0)
}

async fn validate(global: &Global, file: &Path, reports: &[ReportFile]) -> Result<u8> {
    let session = look(global, file).await?;
    let files = ReportFiles::create(reports, session.output_mode)?;
    let result = run::validate(&session, listener(global).as_ref()).await;
    print_report(&masked(&session, result)?, None, global.output, files)
}

async fn plan(
    global: &Global,
    file: &Path,
    out: Option<PathBuf>,
    mut reports: Vec<ReportFile>,
    detailed_exitcode: bool,
) -> Result<u8> {
    let (session, _) = open(global, file, Access::Read).await?;
    reports.extend(out.map(|path| ReportFile { format: Format::Json, path }));
    let files = ReportFiles::create(&reports, session.output_mode)?;
    let report = masked(&session, run::plan(&session, listener(global).as_ref()).await)?;
    let code = print_report(&report, None, global.output, files)?;
    Ok(if detailed_exitcode && report.verdict == Verdict::Passed { HAS_WORK } else { code })
}

async fn run(global: &Global, file: &Path, is_mock: bool, options: LoadOptions, reports: &[ReportFile]) -> Result<u8> {
    let (session, interrupt) = open(global, file, Access::Write).await?;
    // Created before the load: a load whose report cannot be written is better refused than regretted.
    let files = ReportFiles::create(reports, session.output_mode)?;
    let listener = InterruptibleListener::new(listener(global), interrupt, file);
    let result = match is_mock {
        true => run::rehearse(&session, options, &listener).await,
        false => run::run(&session, options, &listener).await,
    };
    drop(listener);
    print_load(&session, masked(&session, result)?, global.output, files).await
}

async fn resume(global: &Global, file: &Path, run: Option<&str>, reports: &[ReportFile]) -> Result<u8> {
    let interrupt = Interrupt::watch();
    let request = global.request(file);
    let opened = OpenPipeline::open(&request, Access::Write).await?;
    let resumable = run::find(&opened, run).await?;
    let session = RunContext::prepare(opened, &request, Access::Write, resumable.moment()?).await?;
    protect(&session, &interrupt);
    let files = ReportFiles::create(reports, session.output_mode)?;
    let listener = InterruptibleListener::new(listener(global), interrupt, file);
    let result = Box::pin(run::resume(&session, &resumable, &listener)).await;
    drop(listener);
    print_load(&session, masked(&session, result)?, global.output, files).await
}

/// Prints the report of a run. The report is complete without the journal.
async fn print_load(session: &RunContext, report: Report, output: Output, files: ReportFiles) -> Result<u8> {
    let journal = run::story(session.target.as_ref(), &report.run).await.unwrap_or_default();
    print_report(&report, journal.as_ref(), output, files)
}

async fn stored_report(global: &Global, file: &Path, run: Option<&str>, reports: &[ReportFile]) -> Result<u8> {
    let opened = OpenPipeline::open(&global.request(file), Access::Read).await?;
    let files = ReportFiles::create(reports, opened.output_mode())?;
    let stored = run::kept(&opened, run).await.map_err(|error| error.masked(&opened.document.secrets))?;
    print_report(&stored.report, stored.journal.as_ref(), global.output, files)?;
    Ok(0)
}

async fn explain(global: &Global, file: &Path, analyze: bool) -> Result<u8> {
    let session = look(global, file).await?;
    let analysis = match analyze {
        true => Some(masked(&session, run::analyze::analyze(&session, listener(global).as_ref()).await)?),
        false => None,
    };
    print(&session.compiled.secrets.mask(&explain::text(&session, analysis.as_ref()))).map(|()| 0)
}

async fn setup(global: &Global, file: &Path, print_only: bool, owner: Option<&str>) -> Result<u8> {
    let request = global.request(file);
    let opened = OpenPipeline::open(&request, if print_only { Access::Read } else { Access::Setup }).await?;
    let masked = |error: Error| error.masked(&opened.document.secrets);
    if !print_only {
        run::setup::setup(&opened, &request, owner).await.map_err(masked)?;
        return print(&format!("{} is set up for loads\n", opened.shown)).map(|()| 0);
    }
    match run::setup::script(&opened, &request, owner).await.map_err(masked)? {
        None => print(&format!("{} needs no SQL; run `pipeline setup` without `--print`\n", opened.shown))?,
        Some(script) => print_raw(&script)?,
    }
    Ok(0)
}

fn schema(of: SchemaOf) -> Result<u8> {
    print(&match of {
        SchemaOf::Pipeline => json(&spec::json_schema())?,
        SchemaOf::Report => json(&report::json_schema())?,
    })?;
    Ok(0)
}

fn completions(shell: Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pipeline", &mut script);
    print_raw(&String::from_utf8_lossy(&script)).map(|()| 0)
}

fn man() -> Result<u8> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| Error::internal(format!("cannot render the manual page: {error}")))?;
    print_raw(&String::from_utf8_lossy(&page)).map(|()| 0)
}

/// Opens a session that needs no target if the pipeline file names none.
async fn look(global: &Global, file: &Path) -> Result<RunContext<()>> {
    let interrupt = Interrupt::watch();
    let session = RunContext::look(&global.request(file)).await?;
    protect(&session, &interrupt);
    Ok(session)
}

/// Opens a session. From here on, Ctrl-C ends the program.
async fn open(global: &Global, file: &Path, access: Access) -> Result<(RunContext, Arc<Interrupt>)> {
    let interrupt = Interrupt::watch();
    let session = RunContext::open(&global.request(file), access).await?;
    protect(&session, &interrupt);
    Ok((session, interrupt))
}

/// Registers the work folder for removal, and the secrets for masking.
fn protect<T>(session: &RunContext<T>, interrupt: &Interrupt) {
    interrupt.removes(session.engine.work_folder());
    trace::mask(&session.compiled.secrets);
}

fn masked<C, T>(session: &RunContext<C>, result: Result<T>) -> Result<T> {
    result.map_err(|error| error.masked(&session.compiled.secrets))
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
