//! The key map's backup: its history's segments in a store, as objects that are written once.
//!
//! ```text
//! backups/target.json                                 whose key map it is
//! backups/account/20261122T105818-a49a.parquet        the mappings of one table and run
//! backups/account/20261122T105818-a49a.json           their manifest, written last
//! ```
//!
//! A history only grows, so a segment that is there stays as it is: to bring a store up to date is to write those that it lacks.

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
pub use segment::{Column, Digest, Manifest, Mappings, VERSION};

use crate::error::{Error, Kind, Result};
use crate::failpoint::stop_at;
use crate::output_files::OutputMode;
use crate::target::{Batches, Segment};
use segment::{Versioned, unusable};

/// What a store says of whose it is.
const OWNER: &str = "target.json";

/// Bytes of an object that are sent at a time.
const PART: usize = 8 << 20;

/// A store that was opened.
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    /// The folder, where it is one, and who may read what is in it.
    folder: Option<(PathBuf, OutputMode)>,
    shown: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.shown)
    }
}

/// Whose key map a store has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The version of this format.
    pub version: u32,
    /// The target's id.
    pub id: String,
    /// What the target was called when the store was made.
    pub target: String,
}

/// The objects of a store, with their sizes.
pub type Sizes = BTreeMap<String, u64>;

impl Store {
    fn new(objects: Arc<dyn ObjectStore>, root: Path, folder: Option<(PathBuf, OutputMode)>, shown: &str) -> Self {
        Self { objects, root, folder, shown: shown.to_owned() }
    }

    /// What is said of it in messages.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whose it is; None where that was never said.
    ///
    /// # Errors
    /// Where it does not answer, or says so in a way that is not understood.
    pub async fn owner(&self) -> Result<Option<Owner>> {
        self.json(OWNER).await
    }

    /// Makes an empty store a target's.
    ///
    /// # Errors
    /// Where it is not empty, or cannot be written.
    pub async fn take(&self, id: &str, target: &str) -> Result<()> {
        let sizes = self.sizes().await?;
        if let Some(object) = sizes.keys().next() {
            return Err(Error::refused(format!(
                "the store `{}` has no `{OWNER}` and is not empty: there is `{object}`",
                self.shown
            ))
            .hint(
                "name a folder of its own in `safeguards.backup`, or put its `target.json` back; nothing was written",
            ));
        }
        let owner = Owner { version: VERSION, id: id.to_owned(), target: target.to_owned() };
        self.put(OWNER, json(&owner)?, PutMode::Create).await
    }

    /// All objects with their sizes, `target.json` left out.
    ///
    /// # Errors
    /// Where the store does not answer.
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

    /// The manifest of a segment that the ledger has; None where the store lacks it. Its mappings are not read, but their size is
    /// looked at.
    ///
    /// # Errors
    /// Where the store does not answer, or what it has is damaged or is not that segment.
    pub async fn manifest(&self, segment: &Segment, sizes: &Sizes) -> Result<Option<Manifest>> {
        let object = object(segment, "json");
        if !sizes.contains_key(&object) {
            return Ok(None);
        }
        let manifest = self.read_manifest(&object, sizes).await?;
        if manifest.segment != *segment {
            let other = &manifest.segment;
            let what = format!("it is of {} mappings, and the key map's ledger has {}", other.rows, segment.rows);
            return Err(self.damaged(&object, &what));
        }
        Ok(Some(manifest))
    }

    /// All manifests, and what is wrong with those that cannot be used.
    ///
    /// # Errors
    /// Where the store does not answer.
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

    /// Reads a manifest, and looks for its file and that one's size.
    async fn read_manifest(&self, name: &str, sizes: &Sizes) -> Result<Manifest> {
        let manifest: Manifest =
            self.json(name).await?.ok_or_else(|| self.damaged(name, "it went away while the store was read"))?;
        if object(&manifest.segment, "json") != name {
            let Segment { table, run, .. } = &manifest.segment;
            return Err(self.damaged(name, &format!("it is of `{table}` and run {run}, which have another name")));
        }
        let file = object(&manifest.segment, "parquet");
        match sizes.get(&file) {
            None => Err(self.damaged(&file, "it is missing")),
            Some(bytes) if *bytes != manifest.bytes => {
                Err(self.damaged(&file, &format!("it has {bytes} bytes, and its manifest says {}", manifest.bytes)))
            }
            Some(_) => Ok(manifest),
        }
    }

    /// Writes a segment, reads it back and holds it against what was written; its manifest comes last.
    ///
    /// # Errors
    /// Where the store cannot be written, or does not give back what it was given.
    pub async fn write(&self, segment: &Segment, target: &str, mappings: Batches<'_>) -> Result<Manifest> {
        let (manifest, mappings, digest) = segment::write(segment, target, mappings).await?;
        self.upload(&object(segment, "parquet"), &mappings).await?;
        drop(mappings);
        if self.read(&manifest).await?.digest()? != digest {
            return Err(self.damaged(&object(segment, "parquet"), "its mappings are not those that were written"));
        }
        stop_at("mid-backup");
        let (name, text) = (object(segment, "json"), json(&manifest)?);
        self.put(&name, text.clone(), PutMode::Overwrite).await?;
        if self.get(&name).await?.as_deref() != Some(text.as_slice()) {
            return Err(self.damaged(&name, "it is not what was written"));
        }
        Ok(manifest)
    }

    /// The mappings of a segment, brought into a temporary file.
    ///
    /// # Errors
    /// Where they are not those that its manifest is of.
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
        let hash = hasher.finalize().to_hex();
        if hash.as_str() != manifest.hash {
            return Err(self.damaged(&name, &format!("its hash is {hash}, and its manifest says {}", manifest.hash)));
        }
        let mappings = Mappings::open(file).map_err(|error| self.damaged(&name, &error.to_string()))?;
        if mappings.rows() != manifest.segment.rows {
            let what = format!("it has {} mappings, and its manifest says {}", mappings.rows(), manifest.segment.rows);
            return Err(self.damaged(&name, &what));
        }
        Ok(mappings)
    }

    /// Puts a file into the store: whole if it is small, else part by part.
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
            // A store that knows no parts gets it whole.
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
                // What became of the parts is the store's to say; the error that counts is the first.
                parts.abort().await.ok();
                return Err(error);
            }
        };
        self.settle(name, &path)
    }

    /// Makes the folder of an object that is about to be written into a folder's store.
    fn prepare(&self, name: &str, path: &Path) -> Result<()> {
        match &self.folder {
            Some((folder, mode)) => {
                location::prepare(folder, *mode, path).map_err(|error| self.fault("write", name, &error))
            }
            None => Ok(()),
        }
    }

    /// Sets the mode of a folder's file, and has it written to its disk.
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

    /// Reads a JSON object of a known version; None where there is none.
    async fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.get(name).await? else { return Ok(None) };
        let unreadable = |error: serde_json::Error| self.damaged(name, &format!("it cannot be read: {error}"));
        let Versioned { version } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if version > VERSION {
            return Err(Error::refused(format!(
                "`{name}` in the store `{}` is of version {version}, and this program knows {VERSION}",
                self.shown
            ))
            .hint("a newer version of this program wrote it: use that one"));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(unreadable)
    }

    fn fault(&self, doing: &str, name: &str, error: &dyn std::fmt::Display) -> Error {
        let object = if name.is_empty() { String::new() } else { format!("`{name}` in ") };
        Error::unreachable(format!("cannot {doing} {object}the store `{}`: {error}", self.shown))
            .hint("see that the store can be reached and written by this user, and has room")
    }

    fn damaged(&self, name: &str, what: &str) -> Error {
        Error::refused(format!("`{name}` in the store `{}` is damaged: {what}", self.shown)).hint(
            "put it back from a copy of the store; or, where `pipeline keymap verify` finds the key map itself right, \
             move its manifest away and `pipeline keymap backup` writes it again",
        )
    }
}

/// Reads until a buffer is full or the file is at its end, and gives how many bytes it read.
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

/// The name of a segment's object.
fn object(segment: &Segment, ending: &str) -> String {
    format!("{}/{}.{ending}", location::name(&segment.table, false), location::name(&segment.run, true))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::internal(format!("as JSON: {error}")))?;
    Ok((text + "\n").into_bytes())
}

#[cfg(test)]
mod tests;
