//! The writer lock of a file: the operating system's lock on a file beside the database, which ends with its process. SQLite's own locks
//! come later, and name neither the holder nor the time.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::Names;
use crate::error::{Error, Result};
use crate::journal::RunId;

/// Returns the file whose lock is the database's writer lock.
fn path(database: &Path) -> PathBuf {
    PathBuf::from(format!("{}.delta-lock", database.display()))
}

/// The writer lock, while it is held. Its file remains, empty: removing it would let two processes lock two files of one name.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
}

impl FileLock {
    /// Takes the lock of a database for a run.
    ///
    /// # Errors
    /// If another process has it.
    pub(super) fn take(database: &Path, run: &RunId, names: &Names) -> Result<Self> {
        let path = path(database);
        let fault = |error: std::io::Error| {
            Error::unreachable(format!("cannot lock `{}` for writing: {error}", names.shown))
                .hint(format!("make the folder of the database and `{}` writable for this user", path.display()))
        };
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(fault)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(fault(error)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder may be writing its name at this moment.
                if file.read_to_string(&mut holder).is_err() || holder.is_empty() {
                    "another run".clone_into(&mut holder);
                }
                return Err(Error::unreachable(format!("{holder} is loading into `{}` now", names.shown))
                    .hint("run again when it is done"));
            }
        }
        let mut lock = Self { file };
        let holder = format!("{}, by {}", run.lock_name(), crate::journal::writer());
        lock.say(&holder).map_err(fault)?;
        Ok(lock)
    }

    /// Returns the run that holds the lock of a database; None if no process holds it, or if its name cannot be read.
    pub(super) fn holder(database: &Path) -> Option<RunId> {
        let mut file = File::open(path(database)).ok()?;
        let Err(TryLockError::WouldBlock) = file.try_lock_shared() else { return None };
        let mut holder = String::new();
        file.read_to_string(&mut holder).ok()?;
        RunId::of_lock_name(&holder)
    }

    fn say(&mut self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // The next holder writes its own name. Without a holder, the content means nothing.
        self.say("").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_writer_learns_the_holder_and_gets_the_lock_later() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("p.db");
        let names = Names { shown: "sqlite:p.db".into(), staging: "staging".into(), namespace: String::new() };
        let first = FileLock::take(&database, &"r1".into(), &names).unwrap();
        assert_eq!(FileLock::holder(&database), Some("r1".into()));
        let error = FileLock::take(&database, &"r2".into(), &names).unwrap_err().to_string();
        assert!(error.contains("run r1, since 20") && error.contains("(process "), "{error}");
        drop(first);
        assert_eq!(FileLock::holder(&database), None);
        FileLock::take(&database, &"r2".into(), &names).unwrap();
    }
}
