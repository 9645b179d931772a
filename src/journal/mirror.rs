//! The journal's copy in a file beside the reports, for when the target is unreachable.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::output_files::OutputMode;

/// A file with one entry per line. Each line is on disk before the target receives the entry.
#[derive(Debug)]
pub struct Mirror {
    path: PathBuf,
    file: File,
}

impl Mirror {
    /// Opens `journal.ndjson` in a run's folder for appending; creates both if they do not exist.
    ///
    /// # Errors
    /// Returns an error if the file is not writable.
    pub fn open(folder: &Path, mode: OutputMode) -> Result<Self> {
        let path = folder.join("journal.ndjson");
        let opened = mode.create_folders(folder).and_then(|()| mode.append(&path));
        let file = opened.map_err(|error| cannot_write(&path, &error))?;
        Ok(Self { path, file })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// Returns an error if the file is not writable.
    pub fn write(&mut self, entry: &str) -> Result<()> {
        let line = format!("{entry}\n");
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| cannot_write(&self.path, &error))
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    Error::unreachable(format!("cannot write the journal `{}`: {error}", path.display()))
        .hint("set `output` in the pipeline file to a writable folder with free space")
}
