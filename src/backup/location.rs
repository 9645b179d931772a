//! The location of a store: a folder, or an object store by its URL.

#[cfg(any(feature = "object-stores", test))]
use std::ffi::OsString;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;

use super::Store;
use crate::error::{Error, Result};
use crate::output_files::OutputMode;

/// The location that a pipeline file names.
#[derive(Clone)]
pub struct StoreLocation {
    /// The permission bits of new files.
    url: String,
    /// The location in messages, without secrets.
    shown: String,
    /// The folder that a relative path refers to.
    folder: PathBuf,
    mode: OutputMode,
}

impl StoreLocation {
    /// Returns the location of a folder's path or a URL; `shown` is its form in messages.
    pub fn new(url: &str, shown: &str, folder: &FilePath) -> Self {
        let mode = OutputMode::default();
        Self { url: url.to_owned(), shown: shown.to_owned(), folder: folder.to_owned(), mode }
    }

    /// Sets the permission bits of new files.
    #[must_use]
    pub fn with_mode(self, mode: OutputMode) -> Self {
        Self { mode, ..self }
    }

    /// Returns the location in messages, without secrets.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Opens the store. For writing, creates its folder if only that is missing. For reading, a missing folder is an empty
    /// store.
    ///
    /// # Errors
    /// Returns an error if the store is unreachable, or this program was built without support for it.
    pub fn open(&self, to_write: bool) -> Result<Store> {
        let folder = match self.url.split_once("://") {
            None => self.folder.join(&self.url),
            Some(("file", path)) => PathBuf::from(path),
            Some((scheme, _)) => return open_url(&self.url, scheme, &self.shown),
        };
        if to_write && let Err(error) = self.mode.create_folder(&folder) {
            return Err(Error::unreachable(format!("cannot create the store `{}`: {error}", self.shown))
                .hint("check that its parent folder exists and is writable; a disk may not be mounted"));
        }
        if !to_write && !folder.exists() {
            return Ok(Store::new(Arc::new(InMemory::new()), Path::default(), None, &self.shown));
        }
        if !folder.is_dir() {
            return Err(Error::unreachable(format!("the store `{}` is not a folder", self.shown))
                .hint("set `safeguards.backup` to a folder or to the URL of an object store"));
        }
        let objects = LocalFileSystem::new_with_prefix(&folder).map_err(|error| {
            Error::unreachable(format!("cannot open the store `{}`: {error}", self.shown))
                .hint("set `safeguards.backup` to a folder or to the URL of an object store")
        })?;
        Ok(Store::new(Arc::new(objects), Path::default(), Some((folder, self.mode)), &self.shown))
    }
}

/// The environment variables that an object store may read: those of the clouds' own tools. The library also reads others,
/// such as `TOKEN`, that have another meaning in other programs.
#[cfg(any(feature = "object-stores", test))]
fn settings(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    let of_a_cloud = |name: &str| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|cloud| name.starts_with(cloud));
    let texts = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| of_a_cloud(name)).collect()
}

#[cfg(feature = "object-stores")]
fn open_url(url: &str, _: &str, shown: &str) -> Result<Store> {
    let fault = |error: &dyn std::fmt::Display| {
        Error::unreachable(format!("cannot open the store `{shown}`: {error}"))
            .hint("check `safeguards.backup`, and the credentials in the environment (AWS_…, GOOGLE_…, AZURE_…)")
    };
    let url = url::Url::parse(url).map_err(|error| fault(&error))?;
    let (objects, root) =
        object_store::parse_url_opts(&url, settings(std::env::vars_os())).map_err(|error| fault(&error))?;
    Ok(Store::new(objects.into(), root, None, shown))
}

#[cfg(not(feature = "object-stores"))]
fn open_url(_: &str, scheme: &str, _: &str) -> Result<Store> {
    Err(Error::pipeline(format!("this program was built without support for `{scheme}://` stores"))
        .hint("build it with `--features object-stores`, or set `safeguards.backup` to a folder"))
}

/// Creates the folder of an object before the object, so that it has its mode from the start.
pub(super) fn prepare(folder: &FilePath, mode: OutputMode, object: &Path) -> std::io::Result<()> {
    folder.join(object.as_ref()).parent().map_or(Ok(()), |parent| mode.create_folders(parent))
}

/// Flushes an object's file to disk, so that it survives a power failure, and sets its mode.
pub(super) fn settle(folder: &FilePath, mode: OutputMode, object: &Path) -> std::io::Result<()> {
    let path = folder.join(object.as_ref());
    let file = std::fs::File::open(&path)?;
    mode.set(&file)?;
    file.sync_all()?;
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The maximum length of a name that is made from a text.
const LONGEST: usize = 160;

/// Encodes a text as the name of a file or folder. Everything but letters, digits, `-` and `_` is percent-encoded, and so
/// are capitals unless `case` is kept. A name that gets too long ends with its hash.
pub(super) fn name(text: &str, case: bool) -> String {
    let plain = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'-' | b'_')
            || (case && byte.is_ascii_uppercase())
    };
    let encoded = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let mut name: String = text.bytes().map(encoded).collect();
    if name.len() > LONGEST {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        name = format!("{}~{}", &name[..LONGEST - 17], &hash[..16]);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_stay_apart_where_case_does_not_count() {
        assert_eq!(name("agreement_rate", false), "agreement_rate");
        assert_eq!(name("20261122T105818-a49a", true), "20261122T105818-a49a");
        assert_eq!(name("../Ä\"", false), "%2E%2E%2F%C3%84%22");
        assert_eq!([name("Item", false), name("item", false)], ["%49tem", "item"]);
        let (one, two) = (name(&("x".repeat(200) + "1"), false), name(&("x".repeat(200) + "2"), false));
        assert!(one != two && one.len() == LONGEST && two.len() == LONGEST, "{one} {two}");
    }

    #[test]
    fn store_without_its_feature_names_the_feature() {
        if cfg!(not(feature = "object-stores")) {
            let error = StoreLocation::new("s3://bucket/x", "s3://bucket/x", FilePath::new("")).open(true).unwrap_err();
            assert!(error.to_string().contains("`s3://`") && error.next_step().unwrap().contains("object-stores"));
        }
    }

    #[test]
    fn only_the_clouds_own_variables_reach_an_object_store() {
        use std::os::unix::ffi::OsStringExt;
        let variables = [
            ("AWS_REGION", "eu-central-1"),
            ("TOKEN", "another program's"),
            ("REGION", "nowhere"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/key.json"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "a"),
            ("aws_token", "t"),
            ("MY_AWS_TOKEN", "t"),
        ];
        let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let not_text = || OsString::from_vec(vec![b'A', b'W', b'S', b'_', 0xff]);
        let odd = [(not_text(), "x".into()), ("AWS_PROFILE".into(), not_text())];
        let names: Vec<_> = settings(variables.into_iter().chain(odd)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["AWS_REGION", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT_NAME"]);
    }

    #[test]
    fn a_folder_in_a_folder_that_is_missing_is_no_store() {
        let folder = tempfile::tempdir().unwrap();
        let place = StoreLocation::new("not-mounted/backups", "not-mounted/backups", folder.path());
        let error = place.open(true).unwrap_err();
        assert!(error.to_string().contains("`not-mounted/backups`"), "{error}");
        assert!(place.open(false).is_ok());
    }
}
