//! A pipeline file to start from: the schema is read, the file drafted, and what `check` will say of it is said in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use futures::TryStreamExt;

use super::context::target_name;
use crate::check::check_tables;
use crate::diagnostic::{Problems, Redactor};
use crate::engine::{Engine, Limits, list};
use crate::error::{Error, Result};
use crate::plan::{CheckKind, Compiled, compile};
use crate::progress::{NoopListener, Steps};
use crate::scaffold::{self, SAMPLED, ScaffoldOptions, relative};
use crate::spec::{self, Document, LoadSpec, SafeguardsSpec, Severity, TargetSpec};
use crate::target::{self, Access, Catalog, CatalogTable, Production, Target, TargetConfig, TextKey};

/// The variable that a drafted file takes the target from.
const VARIABLE: &str = "DATABASE_URL";

/// Number of keys of production that are read to infer their format.
const KEYS: usize = 1000;

/// Options of `init`.
#[derive(Debug, Clone)]
pub struct Init {
    /// The target's URL.
    pub from: String,
    /// The schema of the live tables, unless it is the default.
    pub production: Option<String>,
    /// The tables; none for those that the files fit to, or all.
    pub tables: Vec<String>,
    /// The files of tables that no file name identifies.
    pub files: BTreeMap<String, PathBuf>,
    /// The folder of the delta's files.
    pub delta: Option<PathBuf>,
    /// The copybook of fixed-width files.
    pub copybook: Option<PathBuf>,
    /// The file that will be written; its folder is where paths start.
    pub file: PathBuf,
}

/// A pipeline file that was made.
#[derive(Debug, Clone)]
pub struct ScaffoldedFile {
    /// Its text.
    pub text: String,
    /// The problems that `check` finds in it.
    pub problems: Vec<String>,
    /// The checks that reject most of the sampled rows.
    pub rejects: Vec<String>,
    /// Files of the delta's folder that could not be used.
    pub notes: Vec<String>,
}

/// Makes a pipeline file. Writes nothing.
///
/// # Errors
/// If the target cannot be opened, a table does not exist, or the delta's folder cannot be listed.
pub async fn init(wanted: &Init) -> Result<ScaffoldedFile> {
    let mut secrets = Redactor::default();
    secrets.add_url(&wanted.from);
    make(wanted).await.map_err(|error| error.masked(&secrets))
}

/// Makes a pipeline file with the fields of a copybook, without a target.
///
/// # Errors
/// If the copybook cannot be read, or describes fields that a fixed-width file cannot have.
pub fn from_copybook(copybook: &Path, file: Option<&Path>) -> Result<ScaffoldedFile> {
    let text = scaffold::draft_of_copybook(copybook, &file.map_or_else(|| "delta".to_owned(), name))?;
    Ok(ScaffoldedFile { text, problems: Vec::new(), rejects: Vec::new(), notes: Vec::new() })
}

async fn make(init: &Init) -> Result<ScaffoldedFile> {
    let shown = target_name(&init.from);
    let spec = TargetSpec { production: init.production.clone(), ..TargetSpec::at(&init.from) };
    let (load, safeguards) = (LoadSpec::default(), SafeguardsSpec::default());
    let nowhere = Path::new("");
    let address = TargetConfig {
        url: &init.from,
        shown: &shown,
        spec: &spec,
        load: &load,
        schemas: &[],
        namespace: "",
        safeguards: &safeguards,
        memory: 0,
        folder: nowhere,
        script_folder: nowhere,
    };
    let target = open(&address).await?;
    let catalog = target.catalog().await?;
    if catalog.tables.is_empty() {
        let schema = init.production.as_ref().map_or(String::new(), |schema| format!(" in the schema `{schema}`"));
        return Err(Error::pipeline(format!("`{shown}` has no table{schema}"))
            .hint("name another one with `--schema`, and check that this user may use it"));
    }
    if let Some(unknown) = init.tables.iter().chain(init.files.keys()).find(|name| catalog.table(name).is_none()) {
        return Err(unknown_table(unknown, &catalog));
    }
    let folder = init.file.parent().unwrap_or(nowhere);
    let wanted = ScaffoldOptions {
        name: name(&init.file),
        url: written_url(&init.from, folder),
        production: init.production.clone(),
        catalog: &catalog,
        target: target.as_ref(),
        files: init.files.clone(),
        tables: init.tables.clone(),
        text_keys: text_keys(target.as_ref(), &catalog, &init.tables).await?,
        delta: init.delta.as_deref(),
        copybook: init.copybook.as_deref(),
        folder,
    };
    let drafted = scaffold::draft(&wanted).await?;
    let vars = BTreeMap::from([(VARIABLE.to_owned(), init.from.clone())]);
    let mut document = spec::parse(&init.file, drafted.text(&shown, &[], &[]), &vars, |_| None);
    let engine = Engine::try_new(Limits::default())?;
    let tables: BTreeSet<String> =
        document.spec.iter().flat_map(|spec| spec.tables.iter().map(|(name, _)| name.clone())).collect();
    let (problems, compiled) = match compile(&document, &catalog, &engine).await {
        Ok(compiled) => (Vec::new(), Some(compiled)),
        Err(problems) if drafted.is_sampled() => (texts(&problems), without(&mut document, &problems, &catalog).await?),
        Err(problems) => (texts(&problems), None),
    };
    let production: Arc<dyn Production> = target.clone();
    let rejects = match compiled.filter(|_| drafted.is_sampled()) {
        Some(compiled) => rejects(compiled, &tables, &catalog, &production).await?,
        None => Vec::new(),
    };
    let text = drafted.text(&shown, &problems, &rejects);
    Ok(ScaffoldedFile { text, problems, rejects, notes: drafted.notes().to_vec() })
}

/// Opens the target with all schemas that its user may use.
async fn open(address: &TargetConfig<'_>) -> Result<Arc<dyn Target>> {
    let target = target::open(address, Access::Read).await?;
    let schemas = target.schemas().await?;
    if schemas.is_empty() {
        return Ok(target);
    }
    target::open(&TargetConfig { schemas: &schemas, ..*address }, Access::Read).await
}

fn unknown_table(name: &str, catalog: &Catalog) -> Error {
    let ends = format!(".{name}");
    let elsewhere: Vec<_> = catalog.names().into_iter().filter(|known| known.ends_with(&ends)).collect();
    let error = Error::usage(format!("production has no table `{name}`"));
    match elsewhere.as_slice() {
        [] => error.hint(format!("its tables are {}", list(&catalog.names()))),
        names => error.hint(format!("another schema has it: write {}", list(names))),
    }
}

/// Compiles the tables of a drafted file that have no problem; None if every table has one.
async fn without(document: &mut Document, problems: &Problems, catalog: &Catalog) -> Result<Option<Compiled>> {
    let is_bad = |name: &String| problems.list.iter().any(|problem| problem.at.get(1) == Some(name));
    let Some(spec) = document.spec.as_mut() else { return Ok(None) };
    spec.tables = spec.tables.iter().filter(|(name, _)| !is_bad(name)).cloned().collect();
    if spec.tables.iter().next().is_none() {
        return Ok(None);
    }
    Ok(compile(document, catalog, &Engine::try_new(Limits::default())?).await.ok())
}

/// Validates the sampled rows, and returns the checks that reject most of a table's rows. References to a table of the file whose rows are
/// not all checked, because it is larger than the sample or has problems, are not counted.
async fn rejects(
    mut compiled: Compiled,
    tables: &BTreeSet<String>,
    catalog: &Catalog,
    production: &Arc<dyn Production>,
) -> Result<Vec<String>> {
    compiled.sources = compiled.sources.iter().map(|source| source.first(SAMPLED)).collect();
    let engine = Engine::try_new(Limits::default())?;
    let steps = Steps::new(&NoopListener);
    let checked = match check_tables(&engine, &compiled, catalog, production, &steps).await {
        Ok(checked) => checked,
        Err(error) => return Ok(vec![format!("the sample cannot be validated: {error}")]),
    };
    let is_whole = |name: &String| match compiled.plan.position(name) {
        Some(at) => checked[at].read() < SAMPLED as u64,
        None => !tables.contains(name),
    };
    let mut found = Vec::new();
    for (table, checked) in compiled.plan.tables.iter().zip(&checked) {
        for (number, check) in table.checks.iter().enumerate() {
            let is_counted = match &check.kind {
                CheckKind::ParentRejected { .. } => false,
                CheckKind::Relationship { reference } => {
                    let reference = &table.references[*reference];
                    !reference.by.is_empty() || is_whole(&reference.to)
                }
                CheckKind::ForeignKey { to, .. } => is_whole(to),
                _ => check.severity == Severity::Error,
            };
            let (rejected, read) = (checked.findings.of(number).len() as u64, checked.read());
            if is_counted && rejected * 2 > read {
                found.push(format!(
                    "`{}`: `{}` rejects {rejected} of {read} rows: {}",
                    table.name, check.name, check.reason
                ));
            }
        }
    }
    Ok(found)
}

/// Describes problems, one sentence each.
fn texts(problems: &Problems) -> Vec<String> {
    let problem_text = |problem: &crate::diagnostic::Problem| {
        let table = match problem.at.as_slice() {
            [tables, name, ..] if tables == "tables" => format!("`{name}`: "),
            _ => String::new(),
        };
        // The content of a folder does not belong in a file that is kept.
        let hint = problem.hint.as_ref().filter(|_| !problem.input);
        let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
        format!("{table}{}{hint}", problem.message)
    };
    problems.list.iter().map(problem_text).collect()
}

/// A pipeline's name out of its file's.
fn name(file: &Path) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |char: char| if char.is_ascii_alphanumeric() || matches!(char, '-' | '_') { char } else { '-' };
    let name: String = stem.chars().map(plain).take(63).collect();
    if name.is_empty() { "delta".to_owned() } else { name }
}

/// Returns the target's URL as a file may contain it: a variable, with a default unless that would contain a secret.
fn written_url(url: &str, folder: &Path) -> String {
    let variable = format!("${{{VARIABLE}}}");
    let default = match url.split_once(':') {
        Some(("sqlite", rest)) => {
            let file = rest.strip_prefix("//").unwrap_or(rest).split('?').next().unwrap_or_default();
            Some(format!("sqlite:{}", relative(folder, Path::new(file))))
        }
        // Parts of a server's URL other than user, host, and database may be secret.
        _ => (super::context::without_password(url) == url).then(|| url.to_owned()),
    };
    let is_plain = |text: &String| {
        text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, ':' | '/' | '.' | '-' | '_' | '@' | '%'))
    };
    match default.filter(is_plain) {
        Some(default) => format!("${{{VARIABLE}:-{default}}}"),
        None => variable,
    }
}

/// How text keys of tables are written.
async fn text_keys(target: &dyn Target, catalog: &Catalog, tables: &[String]) -> Result<BTreeMap<String, TextKey>> {
    let wanted = |table: &&Arc<CatalogTable>| tables.is_empty() || tables.contains(&table.name);
    let mut found = BTreeMap::new();
    for table in catalog.tables.iter().filter(wanted) {
        let [key] = table.primary_key.as_slice() else { continue };
        if table.column(key).is_none_or(|column| column.data_type != DataType::Utf8) {
            continue;
        }
        let batches = target.scan(&table.name, std::slice::from_ref(key), &[], Some(KEYS)).await?;
        let batches: Vec<_> = batches.try_collect().await?;
        let texts = batches.iter().filter_map(|batch| batch.column(0).as_string_opt::<i32>());
        let texts: Vec<&str> = texts.flat_map(|column| column.iter().flatten()).collect();
        found.extend(text_key(&texts).map(|text| (table.name.clone(), text)));
    }
    Ok(found)
}

/// How keys are written that are a prefix and a number of a fixed width: all of them.
fn text_key(keys: &[&str]) -> Option<TextKey> {
    let first = keys.first()?;
    let prefix = first.trim_end_matches(|char: char| char.is_ascii_digit());
    let width = first.chars().count();
    let same = |key: &&&str| {
        let number = key.strip_prefix(prefix);
        key.chars().count() == width
            && number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let all = keys.iter().filter(same).count() == keys.len();
    (all && keys.len() > 1).then(|| TextKey { prefix: prefix.to_owned(), width })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_the_url_is_not_written() {
        let here = Path::new("");
        for url in ["postgres://me:secret@h/d", "postgres://h/d?password=secret", "postgres://me:se@cret@h/d"] {
            assert_eq!(written_url(url, here), "${DATABASE_URL}");
        }
        assert_eq!(written_url("postgres://me@h:5432/d", here), "${DATABASE_URL:-postgres://me@h:5432/d}");
        assert_eq!(written_url("sqlite:a/b.db?mode=ro", Path::new("p")), "${DATABASE_URL:-sqlite:../a/b.db}");
        assert_eq!(written_url("sqlite:it's }.db", here), "${DATABASE_URL}");
    }

    #[test]
    fn text_keys_are_a_prefix_and_a_number_of_one_width() {
        let found = text_key(&["M000010001", "M000010002"]).unwrap();
        assert_eq!((found.prefix.as_str(), found.width), ("M", 10));
        for keys in [&["E-HOME", "E-NIGHT"][..], &["A1", "B2"], &["A1", "A10"], &["A1"], &[], &["ab", "ab"]] {
            assert!(text_key(keys).is_none(), "{keys:?}");
        }
    }

    #[test]
    fn the_name_is_that_of_the_file() {
        assert_eq!(name(Path::new("p/my delta.yaml")), "my-delta");
        assert_eq!(name(Path::new("")), "delta");
    }
}
