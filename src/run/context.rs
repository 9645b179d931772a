//! A session: a pipeline file that was read, its target opened, its plan compiled.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::backup::StoreLocation;
use crate::check::CheckedTable;
use crate::diagnostic::{LineNumbers, decoded};
use crate::engine::{Engine, Limits, list, parallel_fold};
use crate::error::{Error, Result};
use crate::journal::FileHash;
use crate::output_files::OutputMode;
use crate::plan::{Compiled, Table, compile, infer};
use crate::safeguard::Safeguards;
use crate::source::{Source, whole_hash};
use crate::spec::{self, Document, OrderedMap, PipelineSpec, SafeguardsSpec, TargetSpec};
use crate::target::{
    self, Access, Catalog, ConstraintViolation, InsertError, LoadedFile, NoTarget, Policy, Preflight, Production,
    TableIndex, Target, TargetConfig,
};

/// Rows that an error names at most.
const TOLD: usize = 10;

/// Options of a command beside the pipeline file.
#[derive(Debug, Clone)]
pub struct CommandOptions {
    /// The pipeline file.
    pub file: PathBuf,
    /// Variables for `${…}`, which win over the environment.
    pub vars: BTreeMap<String, String>,
    /// A target instead of the file's.
    pub target: Option<String>,
    /// Only these tables, if any are named.
    pub select: Vec<String>,
    /// Not these tables.
    pub exclude: Vec<String>,
    /// How much of the machine may be used.
    pub limits: Limits,
}

impl CommandOptions {
    /// A request for a pipeline file, with nothing else said.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            vars: BTreeMap::new(),
            target: None,
            select: Vec::new(),
            exclude: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// A pipeline file that was read, and its target, opened. `T` is `()` if only questions about production are asked.
pub struct OpenPipeline<T = Arc<dyn Target>> {
    /// The pipeline file.
    pub document: Document,
    /// The target.
    pub target: T,
    /// Production, as the target answers for it.
    pub production: Arc<dyn Production>,
    /// The catalog of production.
    pub catalog: Catalog,
    /// Conditions of writing.
    pub safeguards: Safeguards,
    /// The target's name in messages.
    pub shown: String,
}

impl OpenPipeline {
    /// Reads the pipeline file and opens the target.
    ///
    /// # Errors
    /// If the pipeline file has problems that leave nothing to open, or the target cannot be opened.
    pub async fn open(request: &CommandOptions, access: Access) -> Result<Self> {
        match Self::open_if_named(request, access).await? {
            Opened::WithTarget(opened) => Ok(*opened),
            Opened::WithoutTarget(document) if !document.problems.is_empty() => Err(document.problems.into()),
            Opened::WithoutTarget(_) => Err(NoTarget::error()),
        }
    }

    /// Opens the target if the pipeline file or the command line names one.
    async fn open_if_named(request: &CommandOptions, access: Access) -> Result<Opened> {
        let mut document = spec::load(&request.file, &request.vars)?;
        let target = document.spec.as_ref().and_then(|spec| spec.target.as_ref()).map(|target| target.url.clone());
        for url in request.target.iter().chain(&target) {
            document.secrets.add_url(url);
        }
        let secrets = document.secrets.clone();
        Self::open_document(document, request, access).await.map_err(|error| error.masked(&secrets))
    }

    async fn open_document(mut document: Document, request: &CommandOptions, access: Access) -> Result<Opened> {
        let Some(spec) = document.spec.as_mut() else { return Err(document.problems.into()) };
        choose_tables(spec, request)?;
        let schemas = spec.schemas();
        let (settings, load, safeguards) = (spec.target.clone(), spec.load.clone(), spec.safeguards.clone());
        let namespace = spec.key_map.namespace.clone().unwrap_or_default();
        let Some(settings) = settings.or_else(|| request.target.as_ref().map(TargetSpec::at)) else {
            return Ok(Opened::WithoutTarget(Box::new(document)));
        };
        let (url, folder) = match &request.target {
            Some(url) => (url.clone(), PathBuf::new()),
            None => (settings.url.clone(), document.folder.clone()),
        };
        // A variable that the file uses elsewhere as well stays secret.
        let shown = document.secrets.mask(&target_name(&url)).into_owned();
        let address = TargetConfig {
            url: &url,
            shown: &shown,
            spec: &settings,
            load: &load,
            safeguards: &safeguards,
            schemas: &schemas,
            namespace: &namespace,
            // A quarter of it is for joins, sorts, and aggregates, which have ended when rows are written.
            memory: request.limits.memory / 4,
            folder: &folder,
            script_folder: &document.folder,
        };
        let target = match target::open(&address, access).await {
            Ok(target) => target,
            // Problems of the file come first: the target may be one of them.
            Err(_) if !document.problems.is_empty() => return Err(document.problems.into()),
            Err(error) => return Err(error),
        };
        let policy = target.policy().await?;
        let safeguards = match Safeguards::try_new(&safeguards, &policy, &document.path, &shown) {
            Err(_) if !document.problems.is_empty() => return Err(document.problems.into()),
            safeguards => safeguards?,
        };
        let catalog = target.catalog().await?;
        let production: Arc<dyn Production> = target.clone();
        Ok(Opened::WithTarget(Box::new(Self { document, target, production, catalog, safeguards, shown })))
    }
}

/// A pipeline file that was read, with its target if it names one.
enum Opened {
    WithTarget(Box<OpenPipeline>),
    WithoutTarget(Box<Document>),
}

impl OpenPipeline<()> {
    /// Reads the pipeline file and opens what answers for production: the target, or [`NoTarget`] if none is named.
    async fn for_reading(request: &CommandOptions) -> Result<Self> {
        match OpenPipeline::open_if_named(request, Access::Read).await? {
            Opened::WithTarget(opened) => {
                let OpenPipeline { document, production, catalog, safeguards, shown, .. } = *opened;
                Ok(Self { document, target: (), production, catalog, safeguards, shown })
            }
            Opened::WithoutTarget(document) => {
                let shown = "no target".to_owned();
                let safeguards =
                    Safeguards::try_new(&SafeguardsSpec::default(), &Policy::unstated(false), &document.path, &shown)?;
                let catalog = NoTarget.catalog().await?;
                Ok(Self { document: *document, target: (), production: Arc::new(NoTarget), catalog, safeguards, shown })
            }
        }
    }
}

impl<T> OpenPipeline<T> {
    /// Returns the location of the key map's store, if the pipeline file names one.
    pub fn backup(&self) -> Option<StoreLocation> {
        let url = self.document.spec.as_ref()?.safeguards.backup.as_ref()?;
        let mut shown = shown_url(&self.document, &["safeguards", "backup"], url);
        if !shown.contains("://") && !shown.contains("${") {
            let parts = self.document.folder.join(&shown);
            let clean: PathBuf = parts.components().filter(|part| *part != std::path::Component::CurDir).collect();
            shown = clean.display().to_string();
        }
        Some(StoreLocation::new(url, &shown, &self.document.folder).with_mode(self.output_mode()))
    }

    /// Who may read the files that are written.
    pub fn output_mode(&self) -> OutputMode {
        self.document.spec.as_ref().map(|spec| spec.output_mode).unwrap_or_default()
    }

    /// The folder with the folders of runs.
    pub(super) fn output(&self) -> Option<PathBuf> {
        self.document.spec.as_ref().map(|spec| self.document.folder.join(&spec.output))
    }
}

/// Everything that is decided before a run touches data.
pub struct RunContext<T = Arc<dyn Target>> {
    /// The plan, and the sources it reads.
    pub compiled: Compiled,
    /// The target.
    pub target: T,
    /// Production, as the target answers for it.
    pub production: Arc<dyn Production>,
    /// The catalog of production.
    pub catalog: Catalog,
    /// The engine.
    pub engine: Engine,
    /// Notes and warnings of the target before a run begins.
    pub preflight: Preflight,
    /// Conditions of writing.
    pub safeguards: Safeguards,
    /// The folder for rejects and reports.
    pub output: PathBuf,
    /// Who may read them.
    pub output_mode: OutputMode,
    /// Location of the key map's store.
    pub backup: Option<StoreLocation>,
    /// The target's name in messages.
    pub shown: String,
    /// The pipeline file, as it was named.
    pub file: PathBuf,
    /// Line numbers of the pipeline file's parts.
    pub lines: LineNumbers,
}

impl RunContext {
    /// Reads the pipeline file, opens the target, and compiles the plan.
    ///
    /// # Errors
    /// If the pipeline file has problems, with all of them, or if the target cannot be opened.
    pub async fn open(request: &CommandOptions, access: Access) -> Result<Self> {
        Self::prepare(OpenPipeline::open(request, access).await?, request, access, jiff::Timestamp::now()).await
    }
}

impl RunContext<()> {
    /// Opens a pipeline file for reading its delta only. Uses [`NoTarget`] if it names no target.
    ///
    /// # Errors
    /// Returns all problems of the pipeline file at once, or an error if the target cannot be opened.
    pub async fn look(request: &CommandOptions) -> Result<Self> {
        let opened = OpenPipeline::for_reading(request).await?;
        Self::prepare(opened, request, Access::Read, jiff::Timestamp::now()).await
    }
}

impl<T> RunContext<T> {
    /// Compiles the plan of what was opened, with the moment that expressions take for now.
    ///
    /// # Errors
    /// If the pipeline file has problems, or the target does not answer.
    pub async fn prepare(
        opened: OpenPipeline<T>,
        request: &CommandOptions,
        access: Access,
        moment: jiff::Timestamp,
    ) -> Result<Self> {
        let (backup, output_mode) = (opened.backup(), opened.output_mode());
        let OpenPipeline { document, target, production, catalog, safeguards, shown } = opened;
        let patience = document.spec.as_ref().map(|spec| spec.load.statement_timeout);
        let engine = Engine::at(request.limits, moment)?;
        let engine = match patience {
            Some(patience) => engine.with_patience(patience),
            None => engine,
        };
        let catalog = if catalog.guessed { infer(&document, &engine) } else { catalog };
        let compiled = compile(&document, &catalog, &engine).await?;
        if !compiled.refused.is_empty() {
            return Err(compiled.refused.into());
        }
        let destinations: Vec<_> = compiled.plan.tables.iter().map(crate::plan::Table::destination).collect();
        let mut preflight =
            production.preflight(&destinations, access).await.map_err(|error| error.masked(&document.secrets))?;
        preflight.notes.extend(compiled.plan.tables.iter().filter_map(undeclared_triggers));
        let output = document.spec.as_ref().map(|spec| document.folder.join(&spec.output)).unwrap_or_default();
        let (lines, file) = (LineNumbers::of(&document.text), document.path);
        Ok(Self {
            compiled,
            target,
            production,
            catalog,
            engine,
            preflight,
            safeguards,
            output,
            output_mode,
            backup,
            shown,
            file,
            lines,
        })
    }

    /// By table, the hash of each of its files.
    pub(super) fn hashes(&self) -> Result<Vec<Vec<FileHash>>> {
        let sources = &self.compiled.sources;
        let mut pieces = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            for file in 0..source.files().len() {
                pieces.extend((0..source.pieces_to_hash(file)?).map(|piece| (at, file, piece)));
            }
        }
        let threads = self.engine.limits().threads;
        let found = parallel_fold("hash files", threads, pieces.len(), |found: &mut Vec<_>, which| {
            let (at, file, piece) = pieces[which];
            found.push((pieces[which], sources[at].hash_piece(file, piece)?));
            Ok(())
        })?;
        let found: BTreeMap<_, _> = found.into_iter().flatten().collect();
        let whole = |at: usize, file: usize| {
            let pieces: Vec<_> = found.range((at, file, 0)..(at, file + 1, 0)).map(|(_, hash)| *hash).collect();
            whole_hash(&pieces)
        };
        let of_table = |(at, source): (usize, &Source)| (0..source.files().len()).map(|file| whole(at, file)).collect();
        Ok(sources.iter().enumerate().map(of_table).collect())
    }

    /// The folder of a run's rejects, journal and reports.
    pub(super) fn folder(&self, run: &str) -> PathBuf {
        self.output.join(run)
    }

    /// All files by table and hash.
    pub(super) fn asked(&self, hashes: &[Vec<FileHash>]) -> Vec<(String, FileHash)> {
        let tables = self.compiled.plan.tables.iter().zip(hashes);
        tables.flat_map(|(table, hashes)| hashes.iter().map(|hash| (table.name.clone(), hash.clone()))).collect()
    }

    /// Refuses the files that a target knows, whatever their names.
    pub(super) fn refuse_known(&self, hashes: &[Vec<FileHash>], loaded: &[LoadedFile]) -> Result<()> {
        if loaded.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for known in loaded {
            let at = self.compiled.plan.position(&known.table).unwrap_or(TableIndex::new(0));
            let file = hashes[at]
                .iter()
                .position(|hash| *hash == known.hash)
                .and_then(|file| self.compiled.sources[at].files().get(file));
            let now = file.map_or("", |file| file.name.as_str());
            let then = if now == known.name { String::new() } else { format!(", as `{}`", known.name) };
            lines.push(format!("  `{now}` into `{}` by run {}{then}", known.table, known.run));
        }
        let (it, was) = if loaded.len() == 1 { ("a file", "was") } else { ("files", "were") };
        Err(Error::refused(format!("{it} of this delta {was} loaded already:\n{}", lines.join("\n")))
            .hint("a delta holds new records only: take these files out of the source's path"))
    }

    /// Why an insertion stopped, with the places of the rows that production refused.
    pub(super) fn refused(&self, error: InsertError, examined: &[CheckedTable]) -> Error {
        let places = match &error {
            InsertError::Other(_) => String::new(),
            InsertError::Violation(refusal) => self.places(refusal, examined),
        };
        Error::from(error).and(&places)
    }

    /// Files and lines of refused rows, one below the other.
    fn places(&self, refusal: &ConstraintViolation, examined: &[CheckedTable]) -> String {
        let Some(at) = self.compiled.plan.position(&refusal.table) else { return String::new() };
        let mut lines = String::new();
        for row in refusal.rows.iter().take(TOLD) {
            let (file, line) = examined[at].locations.locate(*row);
            let name = self.compiled.sources[at].files().get(file).map_or("", |file| file.name.as_str());
            lines.extend(["\n  ", name, ":", &line.to_string()]);
        }
        if refusal.rows.len() > TOLD {
            lines += "\n  and more";
        }
        lines
    }

    /// Refuses a file that was changed since it was hashed: what was read is not what would be remembered as loaded.
    pub(super) fn refuse_changed(&self, hashes: &[Vec<FileHash>]) -> Result<()> {
        for (source, (before, now)) in self.compiled.sources.iter().zip(hashes.iter().zip(self.hashes()?)) {
            if let Some(file) = before.iter().zip(&now).position(|(before, now)| before != now) {
                let name = source.files().get(file).map_or("", |file| file.name.as_str());
                return Err(Error::input(format!("`{name}` was changed while it was read"))
                    .hint("run again when the file is complete"));
            }
        }
        Ok(())
    }

    /// Refuses a file that is given twice under two names.
    pub(super) fn refuse_twice(&self, hashes: &[Vec<FileHash>], examined: &[CheckedTable]) -> Result<()> {
        for (at, hashes) in hashes.iter().enumerate() {
            let mut seen: BTreeMap<&FileHash, usize> = BTreeMap::new();
            for (file, hash) in hashes.iter().enumerate().filter(|(file, _)| has_rows(&examined[at], *file)) {
                if let Some(first) = seen.insert(hash, file) {
                    let name =
                        |file: usize| self.compiled.sources[at].files().get(file).map_or("", |file| file.name.as_str());
                    return Err(Error::refused(format!(
                        "`{}` and `{}` have identical content",
                        name(first),
                        name(file)
                    ))
                    .hint("a file is loaded once: remove one of them"));
                }
            }
        }
        Ok(())
    }
}

/// Returns a note on triggers of a table that may decide values, if the pipeline file names no columns for them.
fn undeclared_triggers(table: &Table) -> Option<String> {
    let triggers = &table.catalog.deciding_triggers;
    (!triggers.is_empty() && table.triggered.is_empty()).then(|| {
        format!(
            "`{}`: the trigger {} can fill or change columns of inserted rows; if it does, name them under `triggers` (`fills` or `changes`)",
            table.name,
            list(triggers)
        )
    })
}

/// Whether a file of a table has any record.
pub(super) fn has_rows(examined: &CheckedTable, file: usize) -> bool {
    examined.locations.has_rows(file) || examined.files.contains(&file)
}

fn choose_tables(spec: &mut PipelineSpec, request: &CommandOptions) -> Result<()> {
    let names: Vec<String> = spec.tables.iter().map(|(name, _)| name.clone()).collect();
    if let Some(unknown) = request.select.iter().chain(&request.exclude).find(|name| !names.contains(name)) {
        return Err(Error::usage(format!("the pipeline has no table `{unknown}`"))
            .hint(format!("its tables are {}", list(&names))));
    }
    let wanted =
        |name: &String| (request.select.is_empty() || request.select.contains(name)) && !request.exclude.contains(name);
    spec.tables = spec.tables.iter().filter(|(name, _)| wanted(name)).cloned().collect::<OrderedMap<_>>();
    if spec.tables.is_empty() && !names.is_empty() {
        return Err(
            Error::usage("no table is left to work on").hint(format!("the pipeline's tables are {}", list(&names)))
        );
    }
    Ok(())
}

/// Returns a URL of the file for messages: never a password, and unexpanded if a part comes from the environment.
fn shown_url(document: &Document, path: &[&str], url: &str) -> String {
    let masked = document.secrets.mask(url);
    let shown = if masked == url {
        url.to_owned()
    } else {
        let path: Vec<_> = path.iter().map(ToString::to_string).collect();
        without_defaults(&document.shown(&path).unwrap_or_default())
    };
    without_password(&shown)
}

/// Shortens `${NAME:-default}` to `${NAME}`.
fn without_defaults(text: &str) -> String {
    let mut parts = text.split("${");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (inside, rest) = part.split_once('}').unwrap_or((part, ""));
        let name = inside.split_once(':').map_or(inside, |(name, _)| name);
        shown.extend(["${", name, "}", rest]);
    }
    shown
}

pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // The last `@`, since one in the password may have been left unescaped; a query may hold secrets as well.
    let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
    let user = user.map_or(String::new(), |user| format!("{}@", user.split(':').next().unwrap_or_default()));
    format!("{scheme}://{user}{}", place.split('?').next().unwrap_or_default())
}

/// Returns the name of a target for messages and reports: host, port, and database of a server, or a file.
pub(super) fn target_name(url: &str) -> String {
    let Some(place) = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")) else {
        return match url.split_once('?') {
            Some((file, _)) if url.starts_with("sqlite:") => file.to_owned(),
            _ => without_password(url),
        };
    };
    // The last `@`, since one in the password may have been left unescaped.
    let (user, place) = place.rsplit_once('@').map_or(("", place), |(user, place)| (user, place));
    let place = place.split('?').next().unwrap_or_default();
    let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
    let with_port = |host: &str| match host.rsplit_once(':') {
        _ if host.is_empty() => "localhost:5432".to_owned(),
        Some((_, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host.to_owned(),
        _ => format!("{}:5432", host.trim_end_matches(':')),
    };
    let hosts: Vec<String> = hosts.split(',').map(with_port).collect();
    let database = if database.is_empty() { user.split(':').next().unwrap_or_default() } else { database };
    decoded(&format!("{}/{database}", hosts.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_named_by_server_and_database_or_file() {
        for (url, expected) in [
            ("postgres://me:secret@host:5433/db?password=x", "host:5433/db"),
            ("postgres://me:se@cret@host/db", "host:5432/db"),
            ("postgresql://u:a?b/c@h1:1,h2/p?x=1", "h1:1,h2:5432/p"),
            ("postgres://me:secret@host", "host:5432/me"),
            ("postgres://u:p@%2Ftmp%2Fpg:5432/live", "/tmp/pg:5432/live"),
            ("postgres:///db", "localhost:5432/db"),
            ("postgres://[::1]:5433/db", "[::1]:5433/db"),
            ("sqlite:customer.db?mode=ro", "sqlite:customer.db"),
        ] {
            assert_eq!(target_name(url), expected, "{url}");
        }
    }

    #[test]
    fn a_store_from_the_environment_is_shown_by_its_variable() {
        assert_eq!(without_defaults("${DATABASE_URL:-sqlite:customer.db}"), "${DATABASE_URL}");
        assert_eq!(without_defaults("postgres://${HOST:?which}/db"), "postgres://${HOST}/db");
        assert_eq!(without_defaults("sqlite:a.db"), "sqlite:a.db");
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("postgres://me:secret@host:5432/db?password=x"), "postgres://me@host:5432/db");
        assert_eq!(without_password("postgres://me:se@cret@host/db"), "postgres://me@host/db");
        assert_eq!(without_password("postgres://u:a?b/c@h/p?x=1"), "postgres://u@h/p");
        assert_eq!(without_password("postgres://h:5432/p?password=x"), "postgres://h:5432/p");
        assert_eq!(without_password("sqlite:customer.db"), "sqlite:customer.db");
    }
}
