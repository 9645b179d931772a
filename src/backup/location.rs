//! Where a store is: a folder, or an object store by its URL.

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

/// The place that a pipeline file names.
#[derive(Clone)]
pub struct StoreLocation {
    /// What is written there.
    url: String,
    /// What is said of it in messages.
    shown: String,
    /// The folder that a relative path starts from.
    folder: PathBuf,
    mode: OutputMode,
}

impl StoreLocation {
    /// The place of a folder's path or a URL; `shown` is what may be said of it.
    pub fn new(url: &str, shown: &str, folder: &FilePath) -> Self {
        let mode = OutputMode::default();
        Self { url: url.to_owned(), shown: shown.to_owned(), folder: folder.to_owned(), mode }
    }

    /// The same place, with files that others may read or not.
    #[must_use]
    pub fn with_mode(self, mode: OutputMode) -> Self {
        Self { mode, ..self }
    }

    /// What is said of it in messages: no secrets.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Opens the store. To be written, its folder is made where it is missing, in a folder that is there; to be read, a folder that
    /// is missing is an empty store.
    ///
    /// # Errors
    /// Where it cannot be reached, or this program was built without what reaches it.
    pub fn open(&self, to_write: bool) -> Result<Store> {
        let folder = match self.url.split_once("://") {
            None => self.folder.join(&self.url),
            Some(("file", path)) => PathBuf::from(path),
            Some((scheme, _)) => return open_url(&self.url, scheme, &self.shown),
        };
        if to_write && let Err(error) = self.mode.create_folder(&folder) {
            return Err(Error::unreachable(format!("cannot make the store `{}`: {error}", self.shown)).hint(
                "check that the folder that it is in is there and writable: a disk that is not mounted looks like this",
            ));
        }
        if !to_write && !folder.exists() {
            return Ok(Store::new(Arc::new(InMemory::new()), Path::default(), None, &self.shown));
        }
        if !folder.is_dir() {
            return Err(Error::unreachable(format!("the store `{}` is no folder", self.shown))
                .hint("check `safeguards.backup`: a folder, or an object store's URL"));
        }
        let objects = LocalFileSystem::new_with_prefix(&folder).map_err(|error| {
            Error::unreachable(format!("cannot open the store `{}`: {error}", self.shown))
                .hint("check `safeguards.backup`: a folder, or an object store's URL")
        })?;
        Ok(Store::new(Arc::new(objects), Path::default(), Some((folder, self.mode)), &self.shown))
    }
}

/// The variables of the environment that an object store may read: those of the clouds' own tools. The library takes others as settings too, such
/// as `TOKEN`, that mean something else to other programs.
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
            .hint("check `safeguards.backup`; credentials come from the environment (AWS_…, GOOGLE_…, AZURE_…)")
    };
    let url = url::Url::parse(url).map_err(|error| fault(&error))?;
    let (objects, root) =
        object_store::parse_url_opts(&url, settings(std::env::vars_os())).map_err(|error| fault(&error))?;
    Ok(Store::new(objects.into(), root, None, shown))
}

#[cfg(not(feature = "object-stores"))]
fn open_url(_: &str, scheme: &str, _: &str) -> Result<Store> {
    Err(Error::pipeline(format!("this program was built without stores of the kind `{scheme}://`"))
        .hint("build it with `--features object-stores`, or name a folder in `safeguards.backup`"))
}

/// Makes the folder of an object, before it is there: nobody looks at the object while it is written.
pub(super) fn prepare(folder: &FilePath, mode: OutputMode, object: &Path) -> std::io::Result<()> {
    folder.join(object.as_ref()).parent().map_or(Ok(()), |parent| mode.create_folders(parent))
}

/// The bytes of a file of a store, for good: a folder's file may otherwise be lost with the machine's power. Sets its mode.
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

/// The most characters of a name that is made of a text.
const LONGEST: usize = 160;

/// A text as the name of a file or folder, whatever is in it: letters that are capital where `case` does not count, and
/// everything that is no letter, digit, `-` or `_` is percent-encoded; one that gets too long ends with its hash.
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
    fn a_store_that_this_program_was_not_built_for_names_the_feature() {
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
