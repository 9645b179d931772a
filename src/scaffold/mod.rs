//! Drafts of pipeline files, from a live schema and from the names and first values of delta files.
//!
//! Facts become plain values, guesses are marked with `GUESS`, and open decisions become comments with the choices (`CHOOSE`). No data is
//! copied into the file, except for abbreviations of values that production accepts.

mod discover;
mod expression;
mod name_match;
mod profile;
mod table;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use self::discover::Files;
use self::table::{DeltaFacts, Draft};
use crate::error::Result;
use crate::plan::order;
use crate::target::{Catalog, CatalogTable, TextKey};

pub use discover::relative;
pub use profile::SAMPLED;

/// The input of a draft.
pub struct ScaffoldOptions<'a> {
    /// The pipeline's name.
    pub name: String,
    /// The target's URL for the file, with a variable in place of a secret.
    pub url: String,
    /// The schema of the live tables, if it is not the default schema.
    pub production: Option<String>,
    /// The catalog of production.
    pub catalog: &'a Catalog,
    /// The tables to include. If empty, those that match delta files, or all.
    pub tables: Vec<String>,
    /// The formats of text keys, by table.
    pub text_keys: BTreeMap<String, TextKey>,
    /// The folder with the delta files.
    pub delta: Option<&'a Path>,
    /// The folder of the pipeline file.
    pub folder: &'a Path,
}

/// Drafts a pipeline file.
///
/// # Errors
/// If the delta's folder cannot be listed.
pub fn draft(options: &ScaffoldOptions<'_>) -> Result<Drafted> {
    let mut notes = Vec::new();
    let files = match options.delta {
        Some(delta) => discover::find(delta, options.folder, &mut notes)?,
        None => Vec::new(),
    };
    let tables = tables(options, &files);
    let matched = matched(&tables, &files);
    let mut drafts: BTreeMap<String, Draft<'_>> = BTreeMap::new();
    let mut written = Vec::new();
    let production = |name: &str| options.catalog.table(name).map(AsRef::as_ref);
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
        let draft = Draft::new(table, files, &facts);
        written.push(write::table(&draft, found, options.delta.is_some()));
        drafts.insert(table.name.clone(), draft);
    }
    let used = |files: &Files| {
        matched.iter().any(|found| match found {
            Matched::One(one) => one.path == files.path,
            Matched::Several(several) => several.iter().any(|one| one.path == files.path),
            Matched::None => false,
        })
    };
    notes.extend(files.iter().filter(|files| !used(files)).map(|files| format!("no table matches `{}`", files.path)));
    if options.delta.is_some() && files.is_empty() {
        notes.push("the folder contains no readable files".to_owned());
    }
    Ok(Drafted { head: write::head(options), body: written.join("\n"), notes, sampled: !files.is_empty() })
}

/// A drafted pipeline file. It can be checked before its problems are known.
pub struct Drafted {
    head: String,
    body: String,
    notes: Vec<String>,
    sampled: bool,
}

impl Drafted {
    /// Returns the text of the file, with the problems that `check` finds in it, one sentence each.
    pub fn text(&self, target: &str, problems: &[String]) -> String {
        write::text(self, target, problems)
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
    let mut tables: Vec<&CatalogTable> = match (options.tables.as_slice(), options.delta) {
        ([], None) => all().collect(),
        ([], Some(_)) => {
            let tables: Vec<_> = all().collect();
            let found = matched(&tables, files);
            let has_files = |found: &Matched<'_>| !matches!(found, Matched::None);
            tables.into_iter().zip(&found).filter(|(_, found)| has_files(found)).map(|(table, _)| table).collect()
        }
        (names, _) => {
            let once: BTreeSet<&String> = names.iter().collect();
            once.into_iter().filter_map(|name| options.catalog.table(name)).map(AsRef::as_ref).collect()
        }
    };
    let needs = |index: usize| -> Vec<usize> {
        let to = |name: &String| tables.iter().position(|table| table.name == *name);
        tables[index].foreign_keys.iter().filter_map(|key| to(&key.to)).collect()
    };
    let order = order(tables.len(), needs);
    tables = order.into_iter().map(|index| tables[index]).collect();
    tables
}

/// Matches files with tables: the best files of each table, unless they match another table better.
fn matched<'f>(tables: &[&CatalogTable], files: &'f [Files]) -> Vec<Matched<'f>> {
    let score = |table: &CatalogTable, files: &Files| files.score(&table.name);
    let best = |files: &Files| tables.iter().map(|table| score(table, files)).max().unwrap_or(0);
    let is_ambiguous = |files: &Files| tables.iter().filter(|table| score(table, files) == best(files)).count() > 1;
    tables
        .iter()
        .map(|table| {
            let matches = || files.iter().filter(|files| score(table, files) > 0 && score(table, files) == best(files));
            let highest = matches().map(|files| score(table, files)).max().unwrap_or(0);
            let candidates: Vec<&Files> = matches().filter(|files| score(table, files) == highest).collect();
            match candidates.as_slice() {
                [] => Matched::None,
                [one] if !is_ambiguous(one) => Matched::One(one),
                _ => Matched::Several(candidates),
            }
        })
        .collect()
}
