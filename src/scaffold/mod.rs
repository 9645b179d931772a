//! Drafts of pipeline files, from a live schema and from the names and first values of delta files.
//!
//! Facts become plain values, guesses are marked with `GUESS`, and open decisions become comments with the choices (`CHOOSE`). No data is
//! copied into the file, except for abbreviations of values that production accepts.

mod copybook;
mod discover;
mod expression;
mod fixed;
mod name_match;
mod probe;
mod profile;
mod references;
mod table;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use self::discover::Files;
use self::name_match::{EXACT, PART, TableName, relation};
use self::probe::Probe;
use self::table::{DeltaFacts, Draft, Numbers};
use crate::engine::list;
use crate::error::Result;
use crate::plan::order;
use crate::target::{Catalog, CatalogTable, Production, TextKey};

pub use discover::relative;
pub use fixed::draft_of_copybook;
pub use profile::SAMPLED;

/// The input of a draft.
pub struct ScaffoldOptions<'a> {
    /// The pipeline's name.
    pub name: String,
    /// The target's URL for the file, with a variable in place of a secret.
    pub url: String,
    /// The schema of the live tables, if it is not the default schema.
    pub production: Option<String>,
    /// The catalog of production, with the tables of all schemas that may be drafted.
    pub catalog: &'a Catalog,
    /// Production, in which values of the delta are looked up.
    pub target: &'a dyn Production,
    /// The tables to include. If empty, those that match delta files, or all.
    pub tables: Vec<String>,
    /// The formats of text keys, by table.
    pub text_keys: BTreeMap<String, TextKey>,
    /// The files that the user names for tables.
    pub files: BTreeMap<String, PathBuf>,
    /// The folder with the delta files.
    pub delta: Option<&'a Path>,
    /// The copybook that describes fixed-width files.
    pub copybook: Option<&'a Path>,
    /// The folder of the pipeline file.
    pub folder: &'a Path,
}

/// Drafts a pipeline file.
///
/// # Errors
/// If the delta's folder cannot be listed, or a file that the user names cannot be read.
pub async fn draft(options: &ScaffoldOptions<'_>) -> Result<Drafted> {
    let mut notes = Vec::new();
    let files = files(options, &mut notes)?;
    let has_delta = options.delta.is_some() || !options.files.is_empty();
    let tables = tables(options, &files);
    let matched = matched(&tables, &files);
    let mut drafts: BTreeMap<String, Draft<'_>> = BTreeMap::new();
    let mut written = Vec::new();
    let by_name: BTreeMap<&str, &CatalogTable> =
        options.catalog.tables.iter().map(|table| (table.name.as_str(), table.as_ref())).collect();
    let production = |name: &str| by_name.get(name).copied();
    let probe = Probe::new(options.target);
    for (table, found) in tables.iter().zip(&matched) {
        let facts = DeltaFacts {
            drafted: &drafts,
            all: &tables,
            production: &production,
            text_key: options.text_keys.get(&table.name).cloned(),
        };
        let files = match found {
            Matched::One(files) => Some(*files),
            Matched::None | Matched::Several(_) => None,
        };
        let mut draft = Draft::infer(table, files, &facts, &probe).await;
        draft.find_sequence(options.catalog.sequences.as_ref());
        draft.remarks.extend(files.and_then(|files| also(options.catalog, table, files)));
        written.push(write::table(&draft, found, has_delta));
        drafts.insert(table.name.clone(), draft);
    }
    let used = |files: &Files| {
        matched.iter().any(|found| match found {
            Matched::One(one) => one.path == files.path,
            Matched::Several(several) => several.iter().any(|one| one.path == files.path),
            Matched::None => false,
        })
    };
    let unmatched = |files: &Files| format!("no table matches `{}`; name its table: `--table TABLE=FILE`", files.path);
    notes.extend(files.iter().filter(|files| !used(files)).map(unmatched));
    if options.delta.is_some() && files.is_empty() {
        notes.push("the folder contains no readable files".to_owned());
    }
    let unnumbered = tables.iter().filter(|table| drafts[&table.name].numbers == Numbers::Unknown);
    let unnumbered: Vec<&str> = unnumbered.map(|table| table.name.as_str()).collect();
    Ok(Drafted { head: write::head(options, &unnumbered), body: written.join("\n"), notes, sampled: !files.is_empty() })
}

/// Returns a remark if files also have the name of a table in another schema.
fn also(catalog: &Catalog, table: &CatalogTable, files: &Files) -> Option<String> {
    // A name with the schema, or a folder of that name, leaves no doubt.
    if files.score(&TableName::new(&table.name)) >= EXACT - 1 {
        return None;
    }
    let others = catalog.tables.iter().filter(|other| {
        other.name != table.name && files.score(&TableName::new(&other.name)) > PART && is_namesake(other, table)
    });
    let others: Vec<_> = others.map(|other| other.name.as_str()).collect();
    (!others.is_empty()).then(|| format!("GUESS: the name of the file also matches {}", list(&others)))
}

/// Returns whether two tables of different schemas have the same name.
fn is_namesake(one: &CatalogTable, other: &CatalogTable) -> bool {
    relation(&one.name).eq_ignore_ascii_case(relation(&other.name))
}

/// Returns the delta's files: those that the user names for tables, and those of the folder.
fn files(options: &ScaffoldOptions<'_>, notes: &mut Vec<String>) -> Result<Vec<Files>> {
    let records = options.copybook.map(copybook::read).transpose()?.unwrap_or_default();
    let chosen = options
        .files
        .iter()
        .map(|(table, file)| discover::chosen(table, file, options.delta, options.folder, &records));
    let mut files: Vec<Files> = chosen.collect::<Result<_>>()?;
    if let Some(delta) = options.delta {
        let names = options.catalog.tables.iter().flat_map(|table| [table.name.as_str(), relation(&table.name)]);
        let names = names.map(str::to_lowercase).collect();
        let found = discover::find(delta, options.folder, &names, &records, notes)?;
        let is_chosen = |found: &Files| files.iter().any(|chosen| chosen.path == found.path);
        let rest: Vec<Files> = found.into_iter().filter(|found| !is_chosen(found)).collect();
        files.extend(rest);
    }
    Ok(files)
}

/// A drafted pipeline file. It can be checked before its problems are known.
pub struct Drafted {
    head: String,
    body: String,
    notes: Vec<String>,
    sampled: bool,
}

impl Drafted {
    /// Returns the text of the file, with the problems that `check` finds in it and the checks that reject most of the sampled rows, one
    /// sentence each.
    pub fn text(&self, target: &str, problems: &[String], rejects: &[String]) -> String {
        write::text(self, target, problems, rejects)
    }

    /// Returns whether rows of the delta were sampled.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Returns the files that the draft does not use, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The files that match a table.
enum Matched<'f> {
    None,
    One(&'f Files),
    Several(Vec<&'f Files>),
}

/// Returns the tables of a draft, referenced tables first.
fn tables<'a>(options: &ScaffoldOptions<'a>, files: &[Files]) -> Vec<&'a CatalogTable> {
    let all = || options.catalog.tables.iter().map(AsRef::as_ref);
    let has_delta = options.delta.is_some() || !options.files.is_empty();
    let mut tables: Vec<&CatalogTable> = match (options.tables.as_slice(), has_delta) {
        // Tables of other schemas belong to the draft if `--schema` does not name the one that counts.
        ([], false) => {
            all().filter(|table| options.production.is_none() || relation(&table.name) == table.name).collect()
        }
        ([], true) => {
            let tables: Vec<_> = all().collect();
            let found = matched(&tables, files);
            let has_files = |found: &Matched<'_>| !matches!(found, Matched::None);
            tables.into_iter().zip(&found).filter(|(_, found)| has_files(found)).map(|(table, _)| table).collect()
        }
        (names, _) => {
            let once: BTreeSet<&String> = names.iter().chain(options.files.keys()).collect();
            once.into_iter().filter_map(|name| options.catalog.table(name)).map(AsRef::as_ref).collect()
        }
    };
    let positions: BTreeMap<&str, usize> =
        tables.iter().enumerate().map(|(at, table)| (table.name.as_str(), at)).collect();
    let needs = |index: usize| -> Vec<usize> {
        tables[index].references().filter_map(|key| positions.get(key.to.as_str()).copied()).collect()
    };
    let order = order(tables.len(), needs);
    tables = order.into_iter().map(|index| tables[index]).collect();
    tables
}

/// Matches files with tables: the best files of each table, unless they match another table better.
fn matched<'f>(tables: &[&CatalogTable], files: &'f [Files]) -> Vec<Matched<'f>> {
    let names: Vec<TableName<'_>> = tables.iter().map(|table| TableName::new(&table.name)).collect();
    // By file, the score of each table.
    let scores: Vec<Vec<u8>> = files.iter().map(|files| names.iter().map(|name| files.score(name)).collect()).collect();
    let best: Vec<u8> = scores.iter().map(|scores| scores.iter().copied().max().unwrap_or(0)).collect();
    let is_ambiguous = |file: usize| scores[file].iter().filter(|score| **score == best[file]).count() > 1;
    let matches = |file: &usize, table: usize| {
        let (score, best) = (scores[*file][table], best[*file]);
        // A partial match of several tables identifies none of them.
        score > 0 && score == best && (score > PART || !is_ambiguous(*file))
    };
    let of_table = |table: usize| {
        let matches: Vec<usize> = (0..files.len()).filter(|file| matches(file, table)).collect();
        let highest = matches.iter().map(|file| scores[*file][table]).max().unwrap_or(0);
        let candidates: Vec<usize> = matches.into_iter().filter(|file| scores[*file][table] == highest).collect();
        match candidates.as_slice() {
            [] => Matched::None,
            [one] if !is_ambiguous(*one) => Matched::One(&files[*one]),
            _ => Matched::Several(candidates.into_iter().map(|file| &files[file]).collect()),
        }
    };
    (0..tables.len()).map(of_table).collect()
}
