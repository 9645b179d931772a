//! What can be typed.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::engine::Limits;
use crate::error::{Error, Result};
use crate::run::CommandOptions;

/// Loads delta files into a live production database: keyed, checked, reconciled, insert-only.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) global: Global,
}

const EXIT_CODES: &str = "Exit codes:
  0    done
  1    the data failed its checks, nothing was loaded
  2    a plan has work to do (plan --detailed-exitcode)
  64   usage
  66   an input is missing or cannot be read
  69   the target cannot be reached or written
  70   a fault of this program
  75   a run was cut off: `pipeline resume` goes on with it
  77   a safeguard refused
  78   the pipeline file is wrong, or does not fit the target's schema
  130  stopped by Ctrl-C before anything was written";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a pipeline file to start from, out of a live schema and the delta's files
    Init(Init),
    /// Check the pipeline file, its SQL and the target's schema; shows every problem at once
    Check {
        /// The pipeline file
        file: PathBuf,
    },
    /// Run all checks on all data: the report of a run without a load
    Validate {
        /// The pipeline file
        file: PathBuf,
        /// Also write the report into files: `html=FILE`, `json=FILE`, `junit=FILE`, `md=FILE`; may be repeated
        #[arg(long, value_name = "FORMAT=FILE", value_delimiter = ',', env = "PIPELINE_REPORT")]
        report: Vec<ReportFile>,
        /// Also write a profile into this file: what ran in parallel with what, for `ui.perfetto.dev` and `chrome://tracing`
        #[arg(long, value_name = "FILE", env = "PIPELINE_PROFILE")]
        profile: Option<PathBuf>,
    },
    /// Show what a run will do, table by table, with the keys it would get now
    Plan {
        /// The pipeline file
        file: PathBuf,
        /// Also write the plan as JSON into this file
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Also write the plan into files: `html=FILE`, `json=FILE`, `junit=FILE`, `md=FILE`; may be repeated
        #[arg(long, value_name = "FORMAT=FILE", value_delimiter = ',', env = "PIPELINE_REPORT")]
        report: Vec<ReportFile>,
        /// Exit with 2 where there is something to load
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Load the delta: all tables or none
    Run {
        /// The pipeline file
        file: PathBuf,
        /// Do all of it, measure it, and take it back: nothing stays in the target
        #[arg(long)]
        mock: bool,
        /// Load files again that were loaded before; the report and the journal say so
        #[arg(long)]
        allow_reload: bool,
        /// Also write the report into files: `html=FILE`, `json=FILE`, `junit=FILE`, `md=FILE`; may be repeated
        #[arg(long, value_name = "FORMAT=FILE", value_delimiter = ',', env = "PIPELINE_REPORT")]
        report: Vec<ReportFile>,
        /// Also write a profile into this file: what ran in parallel with what, for `ui.perfetto.dev` and `chrome://tracing`
        #[arg(long, value_name = "FILE", env = "PIPELINE_PROFILE")]
        profile: Option<PathBuf>,
    },
    /// Go on with a run that was cut off or failed
    Resume {
        /// The pipeline file
        file: PathBuf,
        /// The run's id; by default the last one that was cut off or failed
        run: Option<String>,
        /// Also write the report into files: `html=FILE`, `json=FILE`, `junit=FILE`, `md=FILE`; may be repeated
        #[arg(long, value_name = "FORMAT=FILE", value_delimiter = ',', env = "PIPELINE_REPORT")]
        report: Vec<ReportFile>,
        /// Also write a profile into this file: what ran in parallel with what, for `ui.perfetto.dev` and `chrome://tracing`
        #[arg(long, value_name = "FILE", env = "PIPELINE_PROFILE")]
        profile: Option<PathBuf>,
    },
    /// Take a run back: its rows and their key map leave production, or nothing does
    Rollback {
        /// The pipeline file
        file: PathBuf,
        /// The run's id
        run: String,
        /// Only tell what would go, and what is in the way; nothing stays changed
        #[arg(long)]
        dry_run: bool,
        /// Roll back although this table was altered or dropped since, because you know that the run's rows in it were not changed
        /// before that. May be given several times
        #[arg(long, value_name = "TABLE")]
        accept: Vec<String>,
    },
    /// Make what the target keeps for loads: control schema, roles and grants; for whoever owns production
    Setup {
        /// The pipeline file
        file: PathBuf,
        /// Only print the SQL
        #[arg(long)]
        print: bool,
        /// The role that owns the control schema and whose rights its functions have; by default the login, or production's owner if the
        /// login is a superuser
        #[arg(long, value_name = "ROLE", env = "PIPELINE_OWNER")]
        owner: Option<String>,
    },
    /// Show or state what the target requires of every run
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// List the runs of a target, or tell the story of one
    Runs {
        /// The pipeline file
        file: PathBuf,
        /// The run's id
        run: Option<String>,
    },
    /// Tell a run's report again, any time later, from what the target and the folder of runs keep
    Report {
        /// The pipeline file
        file: PathBuf,
        /// The run's id; by default the last one that read a delta, also one that only validated it
        run: Option<String>,
        /// Also write the report into files: `html=FILE`, `json=FILE`, `junit=FILE`, `md=FILE`; may be repeated
        #[arg(long, value_name = "FORMAT=FILE", value_delimiter = ',', env = "PIPELINE_REPORT")]
        report: Vec<ReportFile>,
    },
    /// Show every transform, check and insert as the SQL that runs
    Explain {
        /// The pipeline file
        file: PathBuf,
        /// Run the checks on the data, and show rows and time of each operator; writes nothing
        #[arg(long)]
        analyze: bool,
    },
    /// The key map's history
    Keymap {
        #[command(subcommand)]
        command: KeymapCommand,
    },
    /// Conversion mode: whether anything may be written to a target
    Mode {
        #[command(subcommand)]
        command: ModeCommand,
    },
    /// Print a JSON Schema: that of pipeline files, for editors, or that of JSON reports
    Schema {
        /// Of what
        #[arg(value_enum, default_value_t)]
        of: SchemaOf,
    },
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The target whose schema is read: `sqlite:FILE` or `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL", env = "PIPELINE_FROM", hide_env_values = true)]
    pub(super) from: Option<String>,
    /// The tables; by default those that the delta's files fit to, or all
    #[arg(long, value_name = "TABLE", value_delimiter = ',')]
    pub(super) tables: Vec<String>,
    /// The schema of the live tables, where it is not the usual one
    #[arg(long, value_name = "SCHEMA")]
    pub(super) schema: Option<String>,
    /// The folder of the delta's files: they are matched with tables and columns by name
    #[arg(long, value_name = "DIR")]
    pub(super) delta: Option<PathBuf>,
    /// The file to write; by default it is printed
    #[arg(short, long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Overwrite the file where it is there
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeymapCommand {
    /// Bring in the mapping of an initial conversion: append only, all of it or none
    Import {
        /// The pipeline file
        file: PathBuf,
        /// A CSV or Parquet file with the columns `legacy_key` and the table's key
        mapping: PathBuf,
        /// The table that it maps
        #[arg(long)]
        table: String,
    },
    /// Write what the store lacks of the key map, read back and verified
    Backup {
        /// The pipeline file
        file: PathBuf,
    },
    /// List what each run mapped, and what of it is in the store
    List {
        /// The pipeline file
        file: PathBuf,
    },
    /// Prove that every key of the key map is in production, and that the store has what the key map has
    Verify {
        /// The pipeline file
        file: PathBuf,
    },
    /// Put earlier mappings back that the key map lacks: append only, all of them or none
    Restore {
        /// The pipeline file
        file: PathBuf,
        /// Only what this run had mapped
        #[arg(long)]
        run: Option<String>,
        /// Only the mappings of this table
        #[arg(long)]
        table: Option<String>,
        /// Go on with the store of the target of this id, whose control tables were lost
        #[arg(long, value_name = "ID")]
        adopt: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ModeCommand {
    /// Switch it on for a time: not as who loads, but as who decides
    On {
        /// The pipeline file
        file: PathBuf,
        /// For how long: `2h`, `90min`; then it ends by itself
        #[arg(long = "for", value_name = "TIME", value_parser = mode_time)]
        time: SignedDuration,
        /// Why: the history keeps it
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Leave it on when a run has ended
        #[arg(long)]
        keep: bool,
    },
    /// Switch it off
    Off {
        /// The pipeline file
        file: PathBuf,
        /// Why: the history keeps it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Tell whether it is on, until when, by whom and why
    Status {
        /// The pipeline file
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Show what the target requires
    Show {
        /// The pipeline file
        file: PathBuf,
    },
    /// State what the target requires from now on; what is not named stays as it is
    Set {
        /// The pipeline file
        file: PathBuf,
        /// Whether conversion mode must be on
        #[arg(long, value_enum, value_name = "WHETHER")]
        conversion_mode: Option<Requirement>,
        /// How many people must approve the plan
        #[arg(long, value_name = "N")]
        approvals: Option<u32>,
        /// The most keys that a run may reserve for a table
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=i64::MAX.unsigned_abs()))]
        max_key_block: Option<u64>,
        /// When runs may begin and insert, such as `22:00-06:00 Europe/Berlin` or `sat,sun 00:00-23:59 UTC`; `none` for at any time
        #[arg(long, value_name = "WINDOW")]
        window: Option<String>,
    },
}

/// Whether a target requires something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Requirement {
    /// Every run needs it.
    Required,
    /// Runs need it only if their pipeline file says so.
    Off,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options everywhere")]
pub(super) struct Global {
    /// Only this table; may be repeated
    #[arg(long, global = true, value_name = "TABLE", value_delimiter = ',', env = "PIPELINE_SELECT")]
    pub(super) select: Vec<String>,
    /// Not this table; may be repeated
    #[arg(long, global = true, value_name = "TABLE", value_delimiter = ',', env = "PIPELINE_EXCLUDE")]
    pub(super) exclude: Vec<String>,
    /// A variable for `${…}` in the pipeline file; may be repeated
    #[arg(long = "var", global = true, value_name = "NAME=VALUE")]
    pub(super) vars: Vec<String>,
    /// A target instead of the pipeline file's
    #[arg(long, global = true, value_name = "URL", env = "PIPELINE_TARGET", hide_env_values = true)]
    pub(super) target: Option<String>,
    /// The form of what is printed
    #[arg(long, global = true, value_enum, default_value_t, env = "PIPELINE_OUTPUT")]
    pub(super) output: Output,
    /// Memory for rows, joins and sorts: `512MiB`, `2GiB`; above it they go to disk
    #[arg(long, global = true, value_name = "SIZE", value_parser = size, env = "PIPELINE_MEMORY_LIMIT")]
    pub(super) memory_limit: Option<usize>,
    /// Threads that work at the same time; by default one a processor
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), env = "PIPELINE_THREADS")]
    pub(super) threads: Option<u16>,
    /// Rows in one batch
    #[arg(long, global = true, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(1..), env = "PIPELINE_BATCH_ROWS")]
    pub(super) batch_rows: Option<u32>,
    /// No progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Tell each step, also off a terminal
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, env = "PIPELINE_COLOR")]
    pub(super) color: Color,
    /// The form of progress on stderr
    #[arg(long, global = true, value_enum, default_value_t, env = "PIPELINE_LOG_FORMAT")]
    pub(super) log_format: LogFormat,
}

impl Global {
    /// Refuses a variable without a name. Not by a parser of clap's, which would print the value.
    pub(super) fn check(&self) -> Result<()> {
        match self.vars.iter().position(|text| variable(text).is_none()) {
            Some(at) => Err(Error::usage(format!("number {} of the `--var` is no `NAME=VALUE`", at + 1))
                .hint("write `--var NAME=VALUE`")),
            None => Ok(()),
        }
    }

    pub(super) fn threads(&self) -> usize {
        self.threads.map_or(Limits::default().threads, usize::from)
    }

    pub(super) fn request(&self, file: &Path) -> CommandOptions {
        let defaults = Limits::default();
        CommandOptions {
            vars: self.vars.iter().filter_map(|text| variable(text)).collect::<BTreeMap<_, _>>(),
            target: self.target.clone(),
            select: self.select.clone(),
            exclude: self.exclude.clone(),
            limits: Limits {
                memory: self.memory_limit.unwrap_or(defaults.memory),
                threads: self.threads(),
                batch_rows: self.batch_rows.map_or(defaults.batch_rows, |rows| rows as usize),
            },
            ..CommandOptions::new(file)
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// Annotations of a GitHub workflow
    Github,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Bars on a terminal, lines elsewhere with `--verbose`
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    pub(super) fn enabled(self, stream: &impl IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// What a JSON Schema is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaOf {
    /// A pipeline file
    #[default]
    Pipeline,
    /// A JSON report
    Report,
}

/// The format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    Json,
    Junit,
    Markdown,
}

/// A file that a report is written into.
#[derive(Debug, Clone)]
pub(super) struct ReportFile {
    pub(super) format: Format,
    pub(super) path: PathBuf,
}

impl std::str::FromStr for ReportFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = "write `html=FILE`, `json=FILE`, `junit=FILE` or `md=FILE`";
        let (format, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or(wanted)?;
        let format = match format {
            "html" => Format::Html,
            "json" => Format::Json,
            "junit" => Format::Junit,
            "md" => Format::Markdown,
            _ => return Err(wanted.into()),
        };
        Ok(Self { format, path: path.into() })
    }
}

fn variable(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// With less than this a run of a few tables has no room for its sorts and joins.
const SMALLEST_MEMORY: usize = 64 << 20;

/// A number of bytes: `512MiB`, `2G`, `1000000`.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("write a size such as `512MiB` or `2GiB`".into()),
    };
    let bytes: Option<usize> = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes >= SMALLEST_MEMORY)
        .ok_or_else(|| "write a size of at least 64MiB, such as `512MiB`".into())
}

/// The longest time that conversion mode is on for: it is for a load, not for good.
const LONGEST_MODE: SignedDuration = SignedDuration::from_hours(31 * 24);

/// A time that conversion mode is on for: `2h`, `90min`, `1h 30min`.
fn mode_time(text: &str) -> Result<SignedDuration, String> {
    let time = text.parse().ok().filter(|time| *time >= SignedDuration::from_secs(1) && *time <= LONGEST_MODE);
    time.ok_or_else(|| "write a time such as `2h` or `90min`, of at most 744 hours".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_variable_without_a_name_is_refused_and_its_value_not_told() {
        for text in ["hunter22", "=hunter22"] {
            let cli = Cli::try_parse_from(["pipeline", "--var", "A=b=c", "--var", text, "check", "x.yaml"]).unwrap();
            let error = cli.global.check().unwrap_err();
            assert_eq!(error.to_string(), "number 2 of the `--var` is no `NAME=VALUE`");
            assert_eq!(cli.global.request(Path::new("x")).vars["A"], "b=c");
        }
    }

    #[test]
    fn conversion_mode_is_on_for_seconds_to_a_month() {
        assert_eq!(mode_time("2h"), Ok(SignedDuration::from_hours(2)));
        assert_eq!(mode_time("1h 30min"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(mode_time("744h"), Ok(LONGEST_MODE));
        for text in ["", "2", "soon", "0s", "-2h", "999ms", "745h", "2d"] {
            assert!(mode_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("63MiB"), Err("write a size of at least 64MiB, such as `512MiB`".into()));
        assert!(size("1KiB").is_err() && size("much").is_err() && size("99999999999GiB").is_err());
    }
}
