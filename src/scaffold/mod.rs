//! A pipeline file to start from: what a live schema, and the names and first values of delta files, tell of it.
//!
//! What can be known is written, what was guessed says so (`GUESS`), and what is left to decide is a comment with the choices
//! (`CHOOSE`). Nothing of the data goes into the file but short forms of values that production itself names.

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

/// What a draft is made from.
pub struct ScaffoldOptions<'a> {
    /// The pipeline's name.
    pub name: String,
    /// The target's URL as the file has it: with a variable where it holds a secret.
    pub url: String,
    /// The target in comments: no secrets.
    pub shown: String,
    /// The schema of the live tables, where it is not the usual one.
    pub production: Option<String>,
    /// What production states.
    pub catalog: &'a Catalog,
    /// The tables; where none is named, those that files fit to, or all.
    pub tables: Vec<String>,
    /// How text keys are written, by table.
    pub text_keys: BTreeMap<String, TextKey>,
    /// The folder of the delta's files.
    pub delta: Option<&'a Path>,
    /// The folder that the pipeline file will be in.
    pub folder: &'a Path,
}

/// The text of a pipeline file; `problems` are what `check` says of it, none where that is not known yet.
///
/// # Errors
/// Where the delta's folder cannot be listed.
pub fn draft(wanted: &ScaffoldOptions<'_>) -> Result<Drafted> {
    let mut notes = Vec::new();
    let files = match wanted.delta {
        Some(delta) => discover::find(delta, wanted.folder, &mut notes)?,
        None => Vec::new(),
    };
    let tables = tables(wanted, &files);
    let matched = matched(&tables, &files);
    let mut drafts: BTreeMap<String, Draft<'_>> = BTreeMap::new();
    let mut written = Vec::new();
    let production = |name: &str| wanted.catalog.table(name).map(AsRef::as_ref);
    for (table, found) in tables.iter().zip(&matched) {
        let known = DeltaFacts {
            before: &drafts,
            all: &tables,
            production: &production,
            text_key: wanted.text_keys.get(&table.name).cloned(),
        };
        let files = match found {
            Matched::One(files) => Some(*files),
            Matched::None | Matched::Several(_) => None,
        };
        let draft = Draft::new(table, files, &known);
        written.push(write::table(&draft, found, wanted.delta.is_some()));
        drafts.insert(table.name.clone(), draft);
    }
    let used = |files: &Files| {
        matched.iter().any(|found| match found {
            Matched::One(one) => one.path == files.path,
            Matched::Several(several) => several.iter().any(|one| one.path == files.path),
            Matched::None => false,
        })
    };
    notes.extend(files.iter().filter(|files| !used(files)).map(|files| format!("no table fits `{}`", files.path)));
    if wanted.delta.is_some() && files.is_empty() {
        notes.push("there is no file in the folder that can be read".to_owned());
    }
    Ok(Drafted { head: write::head(wanted), body: written.join("\n"), notes, sampled: !files.is_empty() })
}

/// A drafted file, before what `check` says of it is known.
pub struct Drafted {
    head: String,
    body: String,
    notes: Vec<String>,
    sampled: bool,
}

impl Drafted {
    /// The file's text. `problems` is what `check` says of it, one sentence each.
    pub fn text(&self, shown: &str, problems: &[String]) -> String {
        write::text(self, shown, problems)
    }

    /// What could not be used of the delta's folder, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// What files were found for a table.
enum Matched<'f> {
    None,
    One(&'f Files),
    Several(Vec<&'f Files>),
}

/// The tables of a draft, referenced tables first.
fn tables<'a>(wanted: &ScaffoldOptions<'a>, files: &[Files]) -> Vec<&'a CatalogTable> {
    let all = || wanted.catalog.tables.iter().map(AsRef::as_ref);
    let mut tables: Vec<&CatalogTable> = match (wanted.tables.as_slice(), wanted.delta) {
        ([], None) => all().collect(),
        ([], Some(_)) => {
            let tables: Vec<_> = all().collect();
            let found = matched(&tables, files);
            let has_files = |found: &Matched<'_>| !matches!(found, Matched::None);
            tables.into_iter().zip(&found).filter(|(_, found)| has_files(found)).map(|(table, _)| table).collect()
        }
        (names, _) => {
            let once: BTreeSet<&String> = names.iter().collect();
            once.into_iter().filter_map(|name| wanted.catalog.table(name)).map(AsRef::as_ref).collect()
        }
    };
    let needs = |at: usize| -> Vec<usize> {
        let to = |name: &String| tables.iter().position(|table| table.name == *name);
        tables[at].foreign_keys.iter().filter_map(|key| to(&key.to)).collect()
    };
    let order = order(tables.len(), needs);
    tables = order.into_iter().map(|at| tables[at]).collect();
    tables
}

/// Which files fit which table: those that fit best, unless they fit another table better.
fn matched<'f>(tables: &[&CatalogTable], files: &'f [Files]) -> Vec<Matched<'f>> {
    let fit = |table: &CatalogTable, files: &Files| files.fit(&table.name);
    let best = |files: &Files| tables.iter().map(|table| fit(table, files)).max().unwrap_or(0);
    let shared = |files: &Files| tables.iter().filter(|table| fit(table, files) == best(files)).count() > 1;
    tables
        .iter()
        .map(|table| {
            let here = || files.iter().filter(|files| fit(table, files) > 0 && fit(table, files) == best(files));
            let most = here().map(|files| fit(table, files)).max().unwrap_or(0);
            let candidates: Vec<&Files> = here().filter(|files| fit(table, files) == most).collect();
            match candidates.as_slice() {
                [] => Matched::None,
                [one] if !shared(one) => Matched::One(one),
                _ => Matched::Several(candidates),
            }
        })
        .collect()
}
