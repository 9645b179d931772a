//! `pipeline init`: a draft of a pipeline file.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::args::Init;
use super::output::{count, print, print_note, print_raw};
use super::report_files::cannot_write;
use crate::error::{Error, Result};
use crate::run::scaffold::{self, ScaffoldedFile};

/// The file for `init` without a target.
const TEMPLATE: &str = include_str!("init.yaml");

/// Drafts a pipeline file, and writes or prints it.
pub(super) async fn init(args: Init, target: Option<&String>) -> Result<u8> {
    if let Some(file) = args.out.as_deref().filter(|file| !args.force && file.symlink_metadata().is_ok()) {
        return Err(exists(file));
    }
    let draft = match args.from.as_ref().or(target) {
        Some(from) => {
            let request = scaffold::Init {
                from: from.clone(),
                production: args.schema,
                tables: args.tables,
                files: args.files.into_iter().collect(),
                delta: args.delta,
                copybook: args.copybook,
                file: args.out.clone().unwrap_or_else(|| PathBuf::from("delta.yaml")),
            };
            scaffold::init(&request).await?
        }
        None if args.schema.is_some() || !args.tables.is_empty() || args.delta.is_some() || !args.files.is_empty() => {
            return Err(Error::usage(
                "`--schema`, `--tables`, `--table`, and `--delta` require a target, but no target is named",
            )
            .hint("add `--from URL`: `sqlite:FILE` or `postgres://USER@HOST/DATABASE`"));
        }
        None if args.copybook.is_some() => {
            scaffold::from_copybook(&args.copybook.unwrap_or_default(), args.out.as_deref())?
        }
        None => {
            ScaffoldedFile { text: TEMPLATE.to_owned(), problems: Vec::new(), rejects: Vec::new(), notes: Vec::new() }
        }
    };
    match &args.out {
        None => print_raw(&draft.text)?,
        Some(file) => {
            write(file, &draft.text, args.force)?;
            print(&format!("created {}\n", file.display()))?;
        }
    }
    for text in &draft.notes {
        print_note(&format!("note: {text}"));
    }
    if !draft.problems.is_empty() {
        print_note(&format!("{} to fix, listed at the top of the file", count(draft.problems.len(), "problem")));
    }
    if !draft.rejects.is_empty() {
        let checks = count(draft.rejects.len(), "check");
        print_note(&format!("{checks} would reject most of the sampled rows, listed at the top of the file"));
    }
    Ok(0)
}

fn exists(file: &Path) -> Error {
    Error::usage(format!("`{}` already exists", file.display()))
        .hint("name another file, or overwrite it with `--force`")
}

/// Writes a temporary file and renames it, so that no reader finds a half-written file.
fn write(file: &Path, text: &str, force: bool) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A pipeline file holds no secrets, and the team shares it.
    let readable = std::fs::Permissions::from_mode(0o666);
    let mut new = tempfile::Builder::new()
        .permissions(readable)
        .tempfile_in(folder)
        .map_err(|error| cannot_write(file, &error))?;
    new.write_all(text.as_bytes()).map_err(|error| cannot_write(file, &error))?;
    let moved = if force { new.persist(file) } else { new.persist_noclobber(file) };
    match moved {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(file)),
        Err(error) => Err(cannot_write(file, &error.error)),
    }
}
