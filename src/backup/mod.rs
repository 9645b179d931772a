//! The key map's backup: segments of its history in a store, as write-once objects.
//!
//! ```text
//! backups/target.json                                 the owner of the key map
//! backups/account/20261122T105818-a49a.parquet        the mappings of one table and run
//! backups/account/20261122T105818-a49a.json           their manifest, written last
//! ```
//!
//! A history only grows, so an existing segment never changes, and updating a store means writing the missing segments.

mod location;
mod segment;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use location::StoreLocation;
pub use segment::{Digest, Manifest, Mappings, VERSION};

use crate::error::{Error, Kind, Result};
use crate::failpoint::stop_at;
use crate::journal::FileHash;
use crate::output_files::OutputMode;
use crate::target::{Batches, Segment};
use segment::{Versioned, unusable};

/// The object that names the owner of a store.
const OWNER: &str = "target.json";

/// The size in bytes of a part that is sent at a time.
const PART: usize = 8 << 20;

/// An open store.
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    /// The folder and the mode of its files, if the store is a folder.
    folder: Option<(PathBuf, OutputMode)>,
    shown: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.shown)
    }
}

/// The owner of a store's key map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The version of this format.
    pub version: u32,
    /// The target's ID.
    pub id: String,
    /// The target's name when the store was created.
    pub target: String,
}

/// The objects of a store, with their sizes in bytes.
pub type Sizes = BTreeMap<String, u64>;

impl Store {
    fn new(objects: Arc<dyn ObjectStore>, root: Path, folder: Option<(PathBuf, OutputMode)>, shown: &str) -> Self {
        Self { objects, root, folder, shown: shown.to_owned() }
    }

    /// Returns the store in messages, without secrets.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns the owner; `None` if the store has none.
    ///
    /// # Errors
    /// Returns an error if the store is unreachable, or its owner is unreadable.
    pub async fn owner(&self) -> Result<Option<Owner>> {
        self.json(OWNER).await
    }

    /// Makes a target the owner of an empty store.
    ///
    /// # Errors
    /// Returns an error if the store is not empty or not writable.
    pub async fn take(&self, id: &str, target: &str) -> Result<()> {
        let sizes = self.sizes().await?;
        if let Some(object) = sizes.keys().next() {
            return Err(Error::refused(format!(
                "the store `{}` has no `{OWNER}`, but contains `{object}`",
                self.shown
            ))
            .hint("nothing was written; set `safeguards.backup` to a dedicated folder, or restore its `target.json`"));
        }
        let owner = Owner { version: VERSION, id: id.to_owned(), target: target.to_owned() };
        self.put(OWNER, json(&owner)?, PutMode::Create).await
    }

    /// Returns all objects except `target.json`, with their sizes.
    ///
    /// # Errors
    /// Returns an error if the store is unreachable.
    pub async fn sizes(&self) -> Result<Sizes> {
        let mut sizes = Sizes::new();
        let prefix = (!self.root.as_ref().is_empty()).then_some(&self.root);
        let mut found = self.objects.list(prefix);
        while let Some(object) = found.try_next().await.map_err(|error| self.fault("list", "", &error))? {
            let parts = object.location.prefix_match(&self.root).map(|parts| {
                let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
                parts.join("/")
            });
            sizes.extend(parts.filter(|name| name != OWNER).map(|name| (name, object.size)));
        }
        Ok(sizes)
    }

    /// Returns the manifest of a segment of the ledger; `None` if the store does not have it. Does not read the mappings, but
    /// checks their size.
    ///
    /// # Errors
    /// Returns an error if the store is unreachable, or its segment is damaged or differs from the ledger's.
    pub async fn manifest(&self, segment: &Segment, sizes: &Sizes) -> Result<Option<Manifest>> {
        let object = object(segment, "json");
        if !sizes.contains_key(&object) {
            return Ok(None);
        }
        let manifest = self.read_manifest(&object, sizes).await?;
        if manifest.segment != *segment {
            let other = &manifest.segment;
            let what = format!("it is for {} mappings, but the key map's ledger has {}", other.rows, segment.rows);
            return Err(self.damaged(&object, &what));
        }
        Ok(Some(manifest))
    }

    /// Returns all manifests, and the errors of unusable ones.
    ///
    /// # Errors
    /// Returns an error if the store is unreachable.
    pub async fn manifests(&self, sizes: &Sizes) -> Result<(Vec<Manifest>, Vec<Error>)> {
        let (mut manifests, mut damaged) = (Vec::new(), Vec::new());
        for name in sizes.keys().filter(|name| name.strip_suffix(".json").is_some()) {
            match self.read_manifest(name, sizes).await {
                Ok(manifest) => manifests.push(manifest),
                Err(error) if error.kind() == Kind::Refused => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        manifests.sort_by(|one, other| one.segment.cmp(&other.segment));
        Ok((manifests, damaged))
    }

    /// Reads a manifest, and checks that its file exists with the right size.
    async fn read_manifest(&self, name: &str, sizes: &Sizes) -> Result<Manifest> {
        let manifest: Manifest =
            self.json(name).await?.ok_or_else(|| self.damaged(name, "it was deleted while the store was read"))?;
        if object(&manifest.segment, "json") != name {
            let Segment { table, run, .. } = &manifest.segment;
            return Err(self.damaged(name, &format!("it is for `{table}` and run {run}, but has another name")));
        }
        let file = object(&manifest.segment, "parquet");
        match sizes.get(&file) {
            None => Err(self.damaged(&file, "it is missing")),
            Some(bytes) if *bytes != manifest.bytes => {
                Err(self.damaged(&file, &format!("it has {bytes} bytes, but its manifest says {}", manifest.bytes)))
            }
            Some(_) => Ok(manifest),
        }
    }

    /// Writes a segment, reads it back, compares it with the original, and then writes its manifest.
    ///
    /// # Errors
    /// Returns an error if the store is not writable, or returns other data than was written.
    pub async fn write(&self, segment: &Segment, target: &str, mappings: Batches<'_>) -> Result<Manifest> {
        let (manifest, mappings, digest) = segment::write(segment, target, mappings).await?;
        self.upload(&object(segment, "parquet"), &mappings).await?;
        drop(mappings);
        if self.read(&manifest).await?.digest()? != digest {
            return Err(self.damaged(&object(segment, "parquet"), "its mappings differ from those that were written"));
        }
        stop_at("mid-backup");
        let (name, text) = (object(segment, "json"), json(&manifest)?);
        self.put(&name, text.clone(), PutMode::Overwrite).await?;
        if self.get(&name).await?.as_deref() != Some(text.as_slice()) {
            return Err(self.damaged(&name, "it differs from what was written"));
        }
        Ok(manifest)
    }

    /// Reads the mappings of a segment into a temporary file.
    ///
    /// # Errors
    /// Returns an error if the mappings do not match their manifest.
    pub async fn read(&self, manifest: &Manifest) -> Result<Mappings> {
        let name = object(&manifest.segment, "parquet");
        let fault = |error: object_store::Error| match error {
            object_store::Error::NotFound { .. } => self.damaged(&name, "it is missing"),
            error => self.fault("read", &name, &error),
        };
        let mut chunks = self.objects.get(&self.path(&name)?).await.map_err(fault)?.into_stream();
        let mut file = tempfile::tempfile().map_err(unusable)?;
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = chunks.try_next().await.map_err(fault)? {
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(unusable)?;
        }
        let hash = FileHash::from(hasher.finalize());
        if hash != manifest.hash {
            return Err(self.damaged(&name, &format!("its hash is {hash}, but its manifest says {}", manifest.hash)));
        }
        let mappings = Mappings::open(file).map_err(|error| self.damaged(&name, &error.to_string()))?;
        if mappings.rows() != manifest.segment.rows {
            let what = format!("it has {} mappings, but its manifest says {}", mappings.rows(), manifest.segment.rows);
            return Err(self.damaged(&name, &what));
        }
        Ok(mappings)
    }

    /// Uploads a file: in one request if it is small, else in parts.
    async fn upload(&self, name: &str, mappings: &Mappings) -> Result<()> {
        let mut file = mappings.bytes().map_err(unusable)?;
        let mut part = vec![0; PART];
        let mut length = fill(&mut file, &mut part).map_err(unusable)?;
        if length < PART {
            part.truncate(length);
            return self.put(name, part, PutMode::Overwrite).await;
        }
        let path = self.path(name)?;
        self.prepare(name, &path)?;
        let fault = |error: object_store::Error| self.fault("write", name, &error);
        let parts = match self.objects.put_multipart(&path).await {
            // The store does not support parts, so upload the whole file.
            Err(object_store::Error::NotImplemented { .. }) => {
                file.read_to_end(&mut part).map_err(unusable)?;
                return self.put(name, part, PutMode::Overwrite).await;
            }
            parts => parts.map_err(fault)?,
        };
        let mut parts = WriteMultipart::new_with_chunk_size(parts, PART);
        let written = async {
            while length > 0 {
                parts.wait_for_capacity(1).await.map_err(fault)?;
                parts.write(&part[..length]);
                length = fill(&mut file, &mut part).map_err(unusable)?;
            }
            Ok(())
        };
        match written.await {
            Ok(()) => parts.finish().await.map_err(fault)?,
            Err(error) => {
                // The cause is the first error; whether aborting the parts succeeds does not matter.
                parts.abort().await.ok();
                return Err(error);
            }
        };
        self.settle(name, &path)
    }

    /// Creates the folder of an object in a folder store.
    fn prepare(&self, name: &str, path: &Path) -> Result<()> {
        match &self.folder {
            Some((folder, mode)) => {
                location::prepare(folder, *mode, path).map_err(|error| self.fault("write", name, &error))
            }
            None => Ok(()),
        }
    }

    /// Sets the mode of a file in a folder store, and flushes it to disk.
    fn settle(&self, name: &str, path: &Path) -> Result<()> {
        match &self.folder {
            Some((folder, mode)) => {
                location::settle(folder, *mode, path).map_err(|error| self.fault("write", name, &error))
            }
            None => Ok(()),
        }
    }

    fn path(&self, name: &str) -> Result<Path> {
        Path::parse(format!("{}/{name}", self.root)).map_err(|error| Error::internal(format!("`{name}`: {error}")))
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let found = match self.objects.get(&self.path(name)?).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fault("read", name, &error)),
        }
    }

    async fn put(&self, name: &str, bytes: Vec<u8>, mode: PutMode) -> Result<()> {
        let path = self.path(name)?;
        self.prepare(name, &path)?;
        let put = self.objects.put_opts(&path, PutPayload::from(bytes), mode.into()).await;
        put.map_err(|error| self.fault("write", name, &error))?;
        self.settle(name, &path)
    }

    /// Reads a JSON object of a supported version; `None` if it does not exist.
    async fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.get(name).await? else { return Ok(None) };
        let unreadable = |error: serde_json::Error| self.damaged(name, &format!("invalid JSON: {error}"));
        let Versioned { version } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if version > VERSION {
            return Err(Error::refused(format!(
                "`{name}` in the store `{}` has version {version}; this program supports {VERSION}",
                self.shown
            ))
            .hint("use the newer version of this program that wrote it"));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(unreadable)
    }

    fn fault(&self, doing: &str, name: &str, error: &dyn std::fmt::Display) -> Error {
        let object = if name.is_empty() { String::new() } else { format!("`{name}` in ") };
        Error::unreachable(format!("cannot {doing} {object}the store `{}`: {error}", self.shown))
            .hint("check that the store is reachable, is writable for this user, and has free space")
    }

    fn damaged(&self, name: &str, what: &str) -> Error {
        Error::refused(format!("`{name}` in the store `{}` is damaged: {what}", self.shown)).hint(
            "restore it from a copy of the store; or, if `pipeline keymap verify` finds no error in the key map itself, \
             move its manifest away and run `pipeline keymap backup`",
        )
    }
}

/// Reads until the buffer is full or the file ends, and returns the number of bytes.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// Returns the name of a segment's object.
fn object(segment: &Segment, ending: &str) -> String {
    format!("{}/{}.{ending}", location::name(&segment.table, false), location::name(&segment.run, true))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::internal(format!("cannot write JSON: {error}")))?;
    Ok((text + "\n").into_bytes())
}

#[cfg(test)]
mod tests;
