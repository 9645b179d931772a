//! The journal's copy in a file beside the reports: what is known of a run where its target cannot be reached.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::output_files::OutputMode;

/// A file with one entry a line. Every line is on the disk before the target hears of it.
#[derive(Debug)]
pub struct Mirror {
    path: PathBuf,
    file: File,
}

impl Mirror {
    /// The mirror `journal.ndjson` in a run's folder, which is made; what is there stays.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn open(folder: &Path, mode: OutputMode) -> Result<Self> {
        let path = folder.join("journal.ndjson");
        let opened = mode.create_folders(folder).and_then(|()| mode.append(&path));
        let file = opened.map_err(|error| cannot_write(&path, &error))?;
        Ok(Self { path, file })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&mut self, entry: &str) -> Result<()> {
        let line = format!("{entry}\n");
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| cannot_write(&self.path, &error))
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    Error::unreachable(format!("cannot write the journal `{}`: {error}", path.display()))
        .hint("the folder `output` of the pipeline file must be writable and have room")
}
