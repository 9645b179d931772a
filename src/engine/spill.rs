//! Arrays in the work folder: appended to one unnamed file, and read back individually.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{FieldRef, Schema};
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};

use crate::error::{Error, Result};

/// The position of an array in the file: its description, then its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpillSlot {
    at: u64,
    message: u32,
    values: u32,
}

/// The file.
#[derive(Debug)]
pub(super) struct Spill {
    file: File,
    folder: PathBuf,
    end: u64,
}

impl Spill {
    /// Creates an unnamed file in a folder, so that nothing remains however the program ends.
    pub(super) fn try_new(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|error| unusable(folder, &error))?;
        Ok(Self { file, folder: folder.to_owned(), end: 0 })
    }

    /// Appends an array.
    pub(super) fn write(&mut self, field: &FieldRef, array: &ArrayRef) -> Result<SpillSlot> {
        let batch = RecordBatch::try_new(alone(field), vec![array.clone()])?;
        let (_, encoded) = IpcDataGenerator::default().encode(
            &batch,
            &mut DictionaryTracker::new(false),
            &IpcWriteOptions::default(),
            &mut IpcWriteContext::default(),
        )?;
        let place = SpillSlot {
            at: self.end,
            message: encoded.ipc_message.len() as u32,
            values: u32::try_from(encoded.arrow_data.len())
                .map_err(|_| Error::input(format!("column `{}` exceeds 4 GiB in one batch", field.name())))?,
        };
        for part in [&encoded.ipc_message, &encoded.arrow_data] {
            self.file.write_all_at(part, self.end).map_err(|error| unusable(&self.folder, &error))?;
            self.end += part.len() as u64;
        }
        Ok(place)
    }

    /// Reads an array, from any thread.
    pub(super) fn read(&self, field: &FieldRef, place: SpillSlot) -> Result<ArrayRef> {
        let mut bytes = MutableBuffer::from_len_zeroed(place.values as usize);
        let mut message = vec![0; place.message as usize];
        let behind = place.at + u64::from(place.message);
        self.file
            .read_exact_at(&mut message, place.at)
            .and_then(|()| self.file.read_exact_at(bytes.as_slice_mut(), behind))
            .map_err(|error| unusable(&self.folder, &error))?;
        let damaged = || Error::internal("the work folder returned other data than was written");
        let message = root_as_message(&message).map_err(|_| damaged())?;
        let header = message.header_as_record_batch().ok_or_else(damaged)?;
        let batch = read_record_batch(
            &Buffer::from(bytes),
            header,
            alone(field),
            &std::collections::HashMap::new(),
            None,
            &message.version(),
        )?;
        Ok(batch.column(0).clone())
    }
}

fn alone(field: &FieldRef) -> Arc<Schema> {
    Arc::new(Schema::new(vec![field.as_ref().clone().with_nullable(true)]))
}

fn unusable(path: &Path, error: &impl std::fmt::Display) -> Error {
    Error::unreachable(format!("cannot use the work folder `{}`: {error}", path.display()))
        .hint("set TMPDIR to a folder with space for the delta")
}
