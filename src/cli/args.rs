//! The grammar of the command line.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::engine::Limits;
use crate::error::{Error, Result};
use crate::run::CommandOptions;

/// Load delta files into a live database, insert-only and reconciled
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) global: Global,
}

const EXIT_CODES: &str = "Exit codes:
  0    success
  1    data checks failed; nothing was loaded
  2    the plan has rows to load (plan --detailed-exitcode)
  64   invalid command line
  66   an input file is missing or unreadable
  69   the target or an output file is unreachable or not writable
  70   internal error
  75   interrupted; continue with `pipeline resume`
  77   refused by a safeguard
  78   invalid pipeline file, or it does not match the target's schema
  130  stopped by Ctrl-C or a termination signal; nothing was loaded";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a pipeline file from a live schema and the delta's files
    Init(Init),
    /// Check the pipeline file, its SQL, and the target's schema; report all problems at once
    Check {
        /// Pipeline file
        file: PathBuf,
    },
    /// Run all checks on all data and print the report, without loading
    Validate {
        /// Pipeline file
        file: PathBuf,
        #[command(flatten)]
        report: ReportArgs,
        #[command(flatten)]
        profile: ProfileArgs,
    },
    /// Show what a run would load, table by table, with the keys that it would assign now
    Plan {
        /// Pipeline file
        file: PathBuf,
        /// Also write the plan to FILE as JSON
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        report: ReportArgs,
        /// Exit with code 2 if there are rows to load
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Load the delta: all tables or none
    Run {
        /// Pipeline file
        file: PathBuf,
        /// Run the whole load in a transaction that is rolled back
        #[arg(long)]
        mock: bool,
        /// Load files again that were loaded before; the report and the journal record it
        #[arg(long)]
        allow_reload: bool,
        #[command(flatten)]
        report: ReportArgs,
        #[command(flatten)]
        profile: ProfileArgs,
    },
    /// Resume an interrupted or failed run
    Resume {
        /// Pipeline file
        file: PathBuf,
        /// Run ID [default: the last interrupted or failed run]
        run: Option<String>,
        #[command(flatten)]
        report: ReportArgs,
        #[command(flatten)]
        profile: ProfileArgs,
    },
    /// Roll back a run: delete its rows and its key mappings, all or none
    Rollback {
        /// Pipeline file
        file: PathBuf,
        /// Run ID
        run: String,
        /// Show the rows to delete and any conflicts, without deleting
        #[arg(long)]
        dry_run: bool,
        /// Roll back even if TABLE was altered or dropped since the run (repeatable). Use it only if you know that
        /// the run's rows had not changed before that
        #[arg(long, value_name = "TABLE")]
        accept: Vec<String>,
    },
    /// Create the control schema, roles, and grants (run as the owner of production)
    Setup {
        /// Pipeline file
        file: PathBuf,
        /// Print the SQL instead of executing it
        #[arg(long)]
        print: bool,
        /// Role that owns the control schema; its functions run with the rights of this role [default: the login, or the
        /// owner of production if the login is a superuser]
        #[arg(long, value_name = "ROLE", env = "PIPELINE_OWNER")]
        owner: Option<String>,
    },
    /// Show or set what the target requires of every run
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// List the runs of a target, or show the history of one
    Runs {
        /// Pipeline file
        file: PathBuf,
        /// Run ID
        run: Option<String>,
    },
    /// Print the report of an earlier run
    Report {
        /// Pipeline file
        file: PathBuf,
        /// Run ID [default: the last run that read a delta, including validations]
        run: Option<String>,
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Show every transform, check, and insert as SQL
    Explain {
        /// Pipeline file
        file: PathBuf,
        /// Run the checks on the data, and show the row count and time of each operator; writes nothing
        #[arg(long)]
        analyze: bool,
    },
    /// Import, back up, verify, and restore the key map
    Keymap {
        #[command(subcommand)]
        command: KeymapCommand,
    },
    /// Show or switch conversion mode, which allows loads into a target
    Mode {
        #[command(subcommand)]
        command: ModeCommand,
    },
    /// Print the JSON Schema of pipeline files or of JSON reports
    Schema {
        /// Schema to print
        #[arg(value_enum, default_value_t)]
        of: SchemaOf,
    },
    /// Print a shell completion script
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Also write the report to a file: `html=FILE`, `json=FILE`, `junit=FILE`, or `md=FILE` (repeatable)
    #[arg(long = "report", value_name = "FORMAT=FILE", value_delimiter = ',', env = "PIPELINE_REPORT")]
    pub(super) files: Vec<ReportFile>,
}

#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    /// Also write a timeline of parallel work to FILE, for `ui.perfetto.dev` and `chrome://tracing`
    #[arg(long = "profile", value_name = "FILE", env = "PIPELINE_PROFILE")]
    pub(super) path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Target to read the schema from: `sqlite:FILE` or `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL", env = "PIPELINE_FROM", hide_env_values = true)]
    pub(super) from: Option<String>,
    /// Tables to include, outside of the production schema as `schema.table` [default: those that match delta files, or all]
    #[arg(long, value_name = "TABLE", value_delimiter = ',')]
    pub(super) tables: Vec<String>,
    /// Schema of the tables that are named without a schema, if it is not the default one
    #[arg(long, value_name = "SCHEMA")]
    pub(super) schema: Option<String>,
    /// Folder with the delta's files, which are matched with tables and columns by name
    #[arg(long, value_name = "DIR")]
    pub(super) delta: Option<PathBuf>,
    /// File or glob for a table whose file has another name (repeatable)
    #[arg(long = "table", value_name = "TABLE=FILE", value_parser = table_file)]
    pub(super) files: Vec<(String, PathBuf)>,
    /// COBOL copybook with the fields of fixed-width files, which have none of the known extensions
    #[arg(long, value_name = "FILE")]
    pub(super) copybook: Option<PathBuf>,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Overwrite the file if it exists
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeymapCommand {
    /// Import the key mappings of an initial conversion, all or none
    Import {
        /// Pipeline file
        file: PathBuf,
        /// CSV or Parquet file with the columns `legacy_key` and the table's key
        mapping: PathBuf,
        /// Table that the mappings belong to
        #[arg(long)]
        table: String,
    },
    /// Write mappings that are missing in the backup store, then read back and verify them
    Backup {
        /// Pipeline file
        file: PathBuf,
    },
    /// List the mappings of each run, and whether they are backed up
    List {
        /// Pipeline file
        file: PathBuf,
    },
    /// Verify that every mapped key exists in production, and that the backup store matches the key map
    Verify {
        /// Pipeline file
        file: PathBuf,
    },
    /// Restore missing key mappings from the backup store, all or none
    Restore {
        /// Pipeline file
        file: PathBuf,
        /// Restore only the mappings of this run
        #[arg(long)]
        run: Option<String>,
        /// Restore only the mappings of this table
        #[arg(long)]
        table: Option<String>,
        /// Adopt the store of target ID after its control tables were lost
        #[arg(long, value_name = "ID")]
        adopt: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ModeCommand {
    /// Enable conversion mode for a limited time (as owner or member of `delta_rollback`)
    On {
        /// Pipeline file
        file: PathBuf,
        /// Duration, such as `2h` or `90min`
        #[arg(long = "for", value_name = "TIME", value_parser = mode_time)]
        time: SignedDuration,
        /// Reason, recorded in the mode's history
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Leave conversion mode on when a run ends
        #[arg(long)]
        keep: bool,
    },
    /// Disable conversion mode
    Off {
        /// Pipeline file
        file: PathBuf,
        /// Reason, recorded in the mode's history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Show whether conversion mode is on, until when, by whom, and why
    Status {
        /// Pipeline file
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Show what the target requires of every run
    Show {
        /// Pipeline file
        file: PathBuf,
    },
    /// Change what the target requires of every run; options that are not given keep their values
    Set {
        /// Pipeline file
        file: PathBuf,
        /// Whether conversion mode must be on
        #[arg(long, value_enum, value_name = "WHETHER")]
        conversion_mode: Option<Requirement>,
        /// Number of people who must approve the plan
        #[arg(long, value_name = "N")]
        approvals: Option<u32>,
        /// Maximum number of keys that a run may reserve for one table
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=i64::MAX.unsigned_abs()))]
        max_key_block: Option<u64>,
        /// When runs may begin and insert, such as `22:00-06:00 Europe/Berlin` or `sat,sun 00:00-23:59 UTC`; `none` for at any time
        #[arg(long, value_name = "WINDOW")]
        window: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Requirement {
    /// Required for every run
    Required,
    /// Required only if the pipeline file says so
    Off,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Process only this table (repeatable)
    #[arg(long, global = true, value_name = "TABLE", value_delimiter = ',', env = "PIPELINE_SELECT")]
    pub(super) select: Vec<String>,
    /// Exclude a table (repeatable)
    #[arg(long, global = true, value_name = "TABLE", value_delimiter = ',', env = "PIPELINE_EXCLUDE")]
    pub(super) exclude: Vec<String>,
    /// Set a variable for `${…}` in the pipeline file (repeatable)
    #[arg(long = "var", global = true, value_name = "NAME=VALUE")]
    pub(super) vars: Vec<String>,
    /// Target to use instead of the pipeline file's
    #[arg(long, global = true, value_name = "URL", env = "PIPELINE_TARGET", hide_env_values = true)]
    pub(super) target: Option<String>,
    /// Output format
    #[arg(long, global = true, value_enum, default_value_t, env = "PIPELINE_OUTPUT")]
    pub(super) output: Output,
    /// Memory for rows, joins, and sorts, such as `512MiB` or `2GiB`; the rest is spilled to disk
    #[arg(long, global = true, value_name = "SIZE", value_parser = size, env = "PIPELINE_MEMORY_LIMIT")]
    pub(super) memory_limit: Option<usize>,
    /// Number of worker threads [default: number of CPUs]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), env = "PIPELINE_THREADS")]
    pub(super) threads: Option<u16>,
    /// Number of rows per batch
    #[arg(long, global = true, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(1..), env = "PIPELINE_BATCH_ROWS")]
    pub(super) batch_rows: Option<u32>,
    /// Print no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Print each step, even if stderr is not a terminal
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
    /// When to use color
    #[arg(long, global = true, value_enum, default_value_t, env = "PIPELINE_COLOR")]
    pub(super) color: Color,
    /// Format of progress on stderr
    #[arg(long, global = true, value_enum, default_value_t, env = "PIPELINE_LOG_FORMAT")]
    pub(super) log_format: LogFormat,
}

impl Global {
    /// Rejects variables without a name. A clap parser would print the value, which may be a secret.
    pub(super) fn check(&self) -> Result<()> {
        match self.vars.iter().position(|text| variable(text).is_none()) {
            Some(index) => Err(Error::usage(format!(
                "invalid value for `--var` (occurrence {}): expected `NAME=VALUE`",
                index + 1
            ))
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
            vars: self.vars.iter().filter_map(|text| variable(text)).collect(),
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
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
    /// Annotations of a GitHub workflow
    Github,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Bars on a terminal; elsewhere lines, with `--verbose` only
    #[default]
    Text,
    /// One JSON object per line
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaOf {
    /// Pipeline files, for editors
    #[default]
    Pipeline,
    /// JSON reports
    Report,
}

/// The format of a report file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    Json,
    Junit,
    Markdown,
}

/// A file to write the report to.
#[derive(Debug, Clone)]
pub(super) struct ReportFile {
    pub(super) format: Format,
    pub(super) path: PathBuf,
}

impl std::str::FromStr for ReportFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected `html=FILE`, `json=FILE`, `junit=FILE`, or `md=FILE`";
        let (format, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or(expected)?;
        let format = match format {
            "html" => Format::Html,
            "json" => Format::Json,
            "junit" => Format::Junit,
            "md" => Format::Markdown,
            _ => return Err(expected.into()),
        };
        Ok(Self { format, path: path.into() })
    }
}

fn variable(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// Parses `TABLE=FILE`.
fn table_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((table, file)) if !table.is_empty() && !file.is_empty() => Ok((table.to_owned(), PathBuf::from(file))),
        _ => Err("write TABLE=FILE, for example `--table customer=in/crm-export.csv`".to_owned()),
    }
}

/// With less memory, the sorts and joins of a few tables do not fit.
const SMALLEST_MEMORY: usize = 64 << 20;

/// Parses a number of bytes: `512MiB`, `2G`, `1000000`.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("expected a size such as `512MiB` or `2GiB`".into()),
    };
    let bytes: Option<usize> = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes >= SMALLEST_MEMORY)
        .ok_or_else(|| "expected a size of at least 64MiB, such as `512MiB`".into())
}

/// The longest time that conversion mode can be on. It covers one load, and must not become permanent.
const LONGEST_MODE: SignedDuration = SignedDuration::from_hours(31 * 24);

/// Parses the duration of conversion mode: `2h`, `90min`, `1h 30min`.
fn mode_time(text: &str) -> Result<SignedDuration, String> {
    let time = text.parse().ok().filter(|time| *time >= SignedDuration::from_secs(1) && *time <= LONGEST_MODE);
    time.ok_or_else(|| "expected a duration such as `2h` or `90min`, at most 744 hours".into())
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
    fn a_variable_without_a_name_is_an_error_without_its_value() {
        for text in ["hunter22", "=hunter22"] {
            let cli = Cli::try_parse_from(["pipeline", "--var", "A=b=c", "--var", text, "check", "x.yaml"]).unwrap();
            let error = cli.global.check().unwrap_err();
            assert_eq!(error.to_string(), "invalid value for `--var` (occurrence 2): expected `NAME=VALUE`");
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
    fn sizes_are_parsed_with_their_units() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("63MiB"), Err("expected a size of at least 64MiB, such as `512MiB`".into()));
        assert!(size("1KiB").is_err() && size("much").is_err() && size("99999999999GiB").is_err());
    }
}
