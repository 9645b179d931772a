use std::fs;
use std::path::{Path as FilePath, PathBuf};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use futures::{StreamExt, stream};

use super::*;

fn batch(first: i64, rows: i64) -> RecordBatch {
    let legacy: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("L{row:06}"))));
    let key: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows));
    RecordBatch::try_from_iter([("legacy_key", legacy), ("id", key)]).unwrap()
}

fn mappings(first: i64, rows: i64) -> Batches<'static> {
    stream::iter([Ok(batch(first, rows))]).boxed()
}

/// The mappings of a segment in the store.
async fn read(store: &Store, manifest: &Manifest) -> Vec<RecordBatch> {
    store.read(manifest).await.unwrap().batches().unwrap().collect::<Result<_>>().unwrap()
}

fn segment(table: &str, run: &str, rows: u64) -> Segment {
    Segment { table: table.into(), run: run.into(), rows }
}

fn store(folder: &FilePath) -> Store {
    StoreLocation::new("s", "the store", folder).open(true).unwrap()
}

async fn stored(store: &Store, segment: &Segment) -> Result<Option<Manifest>> {
    store.manifest(segment, &store.sizes().await?).await
}

fn refused<T: std::fmt::Debug>(result: Result<T>, texts: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.next_step().is_some());
    for text in texts {
        assert!(error.to_string().contains(text), "no {text:?} in {error}");
    }
}

#[tokio::test]
async fn segment_exists_with_its_manifest_and_reads_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    store.take("id", "sqlite:p.db").await.unwrap();
    assert_eq!(store.owner().await.unwrap().unwrap().id, "id");
    let ugly = "../Ä \"x\"";
    for table in ["item", "Item", ugly] {
        let segment = segment(table, "20261122T105818-a49a", 3);
        assert!(stored(&store, &segment).await.unwrap().is_none());
        let written = store.write(&segment, "id", mappings(7, 3)).await.unwrap();
        assert_eq!(written.keys, ("7".to_owned(), "9".to_owned()));
        assert_eq!(stored(&store, &segment).await.unwrap().unwrap(), written);
        assert_eq!(read(&store, &written).await[0].columns(), batch(7, 3).columns());
    }
    let (manifests, damaged) = store.manifests(&store.sizes().await.unwrap()).await.unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    assert_eq!(
        manifests.iter().map(|manifest| manifest.segment.table.as_str()).collect::<Vec<_>>(),
        [ugly, "Item", "item"]
    );
    assert!(folder.path().join("s/%49tem/20261122T105818-a49a.parquet").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is beside the store");
    // Cut off between the two objects: the segment is written again.
    fs::remove_file(folder.path().join("s/item/20261122T105818-a49a.json")).unwrap();
    let segment = segment("item", "20261122T105818-a49a", 3);
    assert!(stored(&store, &segment).await.unwrap().is_none());
    store.write(&segment, "id", mappings(7, 3)).await.unwrap();
    assert!(stored(&store, &segment).await.unwrap().is_some());
}

#[tokio::test]
async fn whatever_is_damaged_is_named_with_its_object() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (one, file) = (segment("item", "r1", 100), folder.path().join("s/item/r1.parquet"));
    let manifest_file = folder.path().join("s/item/r1.json");
    let manifest = store.write(&one, "id", mappings(1, 100)).await.unwrap();
    let (bytes, text) = (fs::read(&file).unwrap(), fs::read_to_string(&manifest_file).unwrap());

    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    fs::write(&file, flipped).unwrap();
    assert!(stored(&store, &one).await.unwrap().is_some(), "its size is as it was");
    refused(store.read(&manifest).await, &["`item/r1.parquet`", "`the store`", "its hash is"]);
    fs::write(&file, &bytes[1..]).unwrap();
    refused(stored(&store, &one).await, &["`item/r1.parquet`", "bytes"]);
    fs::remove_file(&file).unwrap();
    refused(stored(&store, &one).await, &["`item/r1.parquet`", "missing"]);
    fs::write(&file, &bytes).unwrap();

    for (from, to, what) in [
        ("{", "", "invalid JSON"),
        ("\"version\": 1", "\"version\": 2", "has version 2; this program supports 1"),
        ("\"rows\": 100", "\"rows\": 99", "it is for 99 mappings, but the key map's ledger has 100"),
        ("\"table\": \"item\"", "\"table\": \"other\"", "it is for `other`"),
        ("\"hash\"", "\"sum\"", "invalid JSON"),
    ] {
        fs::write(&manifest_file, text.replacen(from, to, 1)).unwrap();
        refused(stored(&store, &one).await, &["`item/r1.json`", what]);
    }
    fs::write(&manifest_file, text).unwrap();
    assert_eq!(stored(&store, &one).await.unwrap(), Some(manifest));
}

#[tokio::test]
async fn a_store_is_away_or_not_writable_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s"), "a file").unwrap();
    let error = StoreLocation::new("s", "the store", folder.path()).open(true).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    fs::remove_file(folder.path().join("s")).unwrap();
    let store = store(folder.path());
    fs::write(folder.path().join("s/item"), "in the way").unwrap();
    let error = store.write(&segment("item", "r1", 1), "id", mappings(1, 1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.to_string().contains("cannot write `item/r1.parquet` in the store `the store`"), "{error}");
    // A folder with other content is not a store.
    refused(store.take("id", "sqlite:p.db").await, &["`target.json`", "`item`"]);
}

#[tokio::test]
async fn a_store_is_found_by_its_url_as_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("s");
    store(folder.path()).take("id", "sqlite:p.db").await.unwrap();
    let by_url =
        StoreLocation::new(&format!("file://{}", path.display()), "url", FilePath::new("nowhere")).open(false).unwrap();
    assert_eq!(by_url.owner().await.unwrap().unwrap().id, "id");
    let empty = StoreLocation::new("none", "none", folder.path()).open(false).unwrap();
    assert_eq!((empty.owner().await.unwrap(), empty.sizes().await.unwrap().len()), (None, 0));
    assert!(!folder.path().join("none").exists());
}
