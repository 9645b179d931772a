//! `init`: a pipeline file to start from.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::args::Init;
use super::output::{count, hand_over, note, say};
use super::report_files::cannot_write;
use crate::error::{Error, Result};
use crate::run::scaffold::{self, ScaffoldedFile};

/// What `init` writes where no target is named.
const TEMPLATE: &str = include_str!("init.yaml");

/// Makes a pipeline file, and writes it where it was asked for.
pub(super) async fn init(wanted: Init, target: Option<&String>) -> Result<u8> {
    if let Some(file) = &wanted.out {
        refuse_there(file, wanted.force)?;
    }
    let made = match wanted.from.as_ref().or(target) {
        Some(from) => {
            let request = scaffold::Init {
                from: from.clone(),
                production: wanted.schema,
                tables: wanted.tables,
                delta: wanted.delta,
                file: wanted.out.clone().unwrap_or_else(|| PathBuf::from("delta.yaml")),
            };
            scaffold::init(&request).await?
        }
        None if wanted.schema.is_some() || !wanted.tables.is_empty() || wanted.delta.is_some() => {
            return Err(Error::usage(
                "`--schema`, `--tables` and `--delta` say what to do with a schema, and no target is named",
            )
            .hint("add `--from URL`: `sqlite:FILE` or `postgres://USER@HOST/DATABASE`"));
        }
        None => ScaffoldedFile { text: TEMPLATE.to_owned(), problems: Vec::new(), notes: Vec::new() },
    };
    match &wanted.out {
        None => hand_over(&made.text)?,
        Some(file) => {
            write(file, &made.text, wanted.force)?;
            say(&format!("{} is written\n", file.display()))?;
        }
    }
    for text in &made.notes {
        note(&format!("note: {text}"));
    }
    if !made.problems.is_empty() {
        note(&format!("{} left to you: the file begins with them", count(made.problems.len(), "thing")));
    }
    Ok(0)
}

fn refuse_there(file: &Path, force: bool) -> Result<()> {
    match file.symlink_metadata() {
        Ok(_) if !force => Err(there(file)),
        _ => Ok(()),
    }
}

fn there(file: &Path) -> Error {
    Error::usage(format!("`{}` is there already", file.display()))
        .hint("name another file, or write `--force` to have it overwritten")
}

/// Writes the file beside its place and moves it there, so that a half-written one is never found.
fn write(file: &Path, text: &str, force: bool) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A pipeline file is for the team, and holds no secrets.
    let readable = std::fs::Permissions::from_mode(0o666);
    let mut new = tempfile::Builder::new()
        .permissions(readable)
        .tempfile_in(folder)
        .map_err(|error| cannot_write(file, &error))?;
    new.write_all(text.as_bytes()).map_err(|error| cannot_write(file, &error))?;
    let moved = if force { new.persist(file) } else { new.persist_noclobber(file) };
    match moved {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Err(there(file)),
        Err(error) => Err(cannot_write(file, &error.error)),
    }
}
