//! The permissions of output files: rejects, reports, and backups contain personal data.
//!
//! A file is created with its mode, so that others can never open it. The umask can remove bits, but the pipeline file
//! decides, so the mode is set again after creation.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tempfile::NamedTempFile;

/// The permission bits of files. Users who can read a folder can also enter it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputMode(u32);

impl Default for OutputMode {
    fn default() -> Self {
        Self::PRIVATE
    }
}

impl OutputMode {
    /// Only the user who runs the program can read and write.
    pub const PRIVATE: Self = Self(0o600);

    /// Parses a mode in octal digits, such as `0640`. `None` unless the owner can read and write, and others at most read.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0')).unwrap_or(text);
        let is_octal = digits.len() == 3 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal)?;
        (mode & 0o600 == 0o600 && mode & !0o664 == 0).then_some(Self(mode))
    }

    /// Returns the mode in octal digits.
    pub fn digits(self) -> String {
        format!("0{:o}", self.0)
    }

    fn of_folder(self) -> u32 {
        self.0 | (self.0 & 0o444) >> 2
    }

    /// Creates a folder and its missing parents. Existing folders keep their mode.
    ///
    /// # Errors
    /// Returns an error if a folder cannot be created.
    pub fn create_folders(self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.create_folders(parent)?;
        }
        self.create_folder(path)
    }

    /// Creates a folder in an existing one. An existing folder keeps its mode.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created.
    pub fn create_folder(self, path: &Path) -> Result<()> {
        match DirBuilder::new().mode(self.of_folder()).create(path) {
            Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(self.of_folder())),
            // Another run created it at the same time.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates an empty file, or truncates an existing one.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub fn create(self, path: &Path) -> Result<File> {
        self.open(File::options().write(true).create(true).truncate(true), path)
    }

    /// Opens a file for appending, and creates it if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened.
    pub fn append(self, path: &Path) -> Result<File> {
        self.open(File::options().append(true).create(true), path)
    }

    fn open(self, options: &mut OpenOptions, path: &Path) -> Result<File> {
        let file = options.mode(self.0).open(path)?;
        self.set(&file)?;
        Ok(file)
    }

    /// Creates a temporary file in a folder, to be renamed when it is complete.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub fn temporary(self, folder: &Path, prefix: &str) -> Result<NamedTempFile> {
        let mode = Permissions::from_mode(self.0);
        let file = tempfile::Builder::new().prefix(prefix).permissions(mode).tempfile_in(folder)?;
        self.set(file.as_file())?;
        Ok(file)
    }

    /// Sets the mode of an open file.
    ///
    /// # Errors
    /// Returns an error if the file belongs to another user and has another mode.
    pub fn set(self, file: &File) -> Result<()> {
        match file.metadata()?.permissions().mode() & 0o7777 == self.0 {
            true => Ok(()),
            false => file.set_permissions(Permissions::from_mode(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_mode_lets_its_owner_read_and_write_and_no_other_execute() {
        let of = |text| OutputMode::parse(text).map(OutputMode::digits);
        for (text, digits) in [("0640", "0640"), ("600", "0600"), ("0o664", "0664")] {
            assert_eq!(of(text).as_deref(), Some(digits));
        }
        for text in ["", "0", "640x", "0755", "0400", "0666", "4600", "00640", "+640", "0x640", "0698", "private"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn files_and_folders_have_their_mode_whatever_the_umask() {
        for (text, folders) in [("0600", 0o700), ("0640", 0o750), ("0664", 0o775)] {
            let wanted = OutputMode::parse(text).unwrap();
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join("runs/r/rejects");
            wanted.create_folders(&folder).unwrap();
            wanted.create_folders(&folder).unwrap();
            assert_eq!([mode(&folder), mode(folder.parent().unwrap()), mode(&root.path().join("runs"))], [folders; 3]);
            let (new, old, log, kept) =
                (folder.join("new"), folder.join("old"), folder.join("log"), folder.join("kept"));
            std::fs::write(&old, "what was there").unwrap();
            std::fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
            drop((wanted.create(&new).unwrap(), wanted.create(&old).unwrap(), wanted.append(&log).unwrap()));
            wanted.temporary(&folder, ".kept-").unwrap().persist(&kept).unwrap();
            for path in [&new, &old, &log, &kept] {
                assert_eq!(format!("0{:o}", mode(path)), text, "{}", path.display());
            }
            assert_eq!(std::fs::read(&old).unwrap(), b"");
        }
    }

    #[test]
    fn a_folder_that_is_there_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        OutputMode::PRIVATE.create_folder(root.path()).unwrap();
        assert!(OutputMode::PRIVATE.create_folder(&root.path().join("missing/folder")).is_err());
        assert_eq!(mode(root.path()), 0o755);
    }
}
