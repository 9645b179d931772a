//! `--profile FILE`: a timeline of parallel work, as a trace for <https://ui.perfetto.dev> and `chrome://tracing`.
//!
//! Each piece of work has a [`tracing`] span. A span that is entered is the work of a thread, and becomes a slice of that thread's track.
//! A span that is only held while a task waits becomes a slice of a lane. This is the parent's lane if the span names a parent, otherwise a
//! free lane with the span's name.
//!
//! ```text
//! step       ├ inserting ─────────────────────────┤
//! COPY       ├ COPY sale ─────────────┤
//!              ├ send ┤  ├ send ┤                       held, with the COPY as its parent
//! append     ├ append customer ┤├ append sale ──┤       held, at the same time
//! thread 1   ├ encode ┤├ encode ┤├ encode ┤             entered
//! ```
//!
//! So the slices of one track are nested or successive, and never overlap. A slice is written when it ends, together with its beginning.
//! The trace of a killed program therefore lacks the open slices and the last `]`, which viewers tolerate.
//!
//! Trace event format of Chrome: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.

use std::fmt::Debug;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

mod tracks;

use super::output::print_note;
use super::report_files::{cannot_write, refuse_other};
use crate::diagnostic::Redactor;
use crate::error::{Error, Result};
use tracks::{Tracks, thread};

/// The beginning of a profile. Files with another beginning are never overwritten.
const BEGINNING: &str = r#"[
{"name":"process_name","ph":"M","pid":1,"args":{"name":"pipeline"}}"#;

/// The profile of this process, if one is requested.
static PROFILE: OnceLock<Profile> = OnceLock::new();

struct Profile {
    path: PathBuf,
    since: Instant,
    secrets: OnceLock<Redactor>,
    tracks: Mutex<Tracks>,
}

/// Begins a profile, if a file is given.
///
/// # Errors
/// If the file cannot be written, or exists and is not a profile.
pub(super) fn begin(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    refuse_other(path, BEGINNING, "profile")?;
    let mut file = BufWriter::new(File::create(path).map_err(|error| cannot_write(path, &error))?);
    let begun = file.write_all(BEGINNING.as_bytes()).and_then(|()| file.flush());
    begun.map_err(|error| cannot_write(path, &error))?;
    let profile = PROFILE.get_or_init(|| Profile {
        path: path.to_owned(),
        since: Instant::now(),
        secrets: OnceLock::new(),
        tracks: Mutex::new(Tracks::new(file)),
    });
    set_global_default(Registry::default().with(Spans(profile))).map_err(Error::internal)
}

/// Sets the secrets that later slices must not contain.
pub(super) fn mask(secrets: &Redactor) {
    if let Some(profile) = PROFILE.get() {
        // A process has one pipeline file, hence one set of secrets.
        let _is_first = profile.secrets.set(secrets.clone()).is_ok();
    }
}

/// Ends the profile, if there is one. Open slices are marked as interrupted, and later slices are not recorded.
pub(super) fn end() {
    let Some(profile) = PROFILE.get() else { return };
    let (mut tracks, now) = profile.locked();
    if let Err(error) = tracks.end(now) {
        print_note(&format!("warning: the profile in `{}` is incomplete: {error}", profile.path.display()));
    }
}

impl Profile {
    /// Returns the tracks and the microseconds since the profile began. The time is read under the lock, so that slices do not overlap.
    fn locked(&self) -> (MutexGuard<'_, Tracks>, f64) {
        let tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        (tracks, self.since.elapsed().as_nanos() as f64 / 1000.0)
    }

    fn masked(&self, text: &str) -> String {
        self.secrets.get().map_or_else(|| text.to_owned(), |secrets| secrets.mask(text).into_owned())
    }
}

/// A layer that records the spans of this crate.
struct Spans(&'static Profile);

impl<S: Subscriber> Layer<S> for Spans {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let own = metadata.is_span() && metadata.target().starts_with("delta_pipeline");
        if own { Interest::always() } else { Interest::never() }
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let kind = attributes.metadata().name();
        let mut fields = Fields { profile: self.0, name: kind.to_owned(), arguments: Map::new() };
        attributes.record(&mut fields);
        let parent = attributes.parent().map(Id::into_u64);
        let (mut tracks, now) = self.0.locked();
        tracks.begin(id.into_u64(), kind, fields.name, fields.arguments, parent, now);
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        let thread = thread();
        let (mut tracks, now) = self.0.locked();
        tracks.enter(id.into_u64(), thread, now);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        let (mut tracks, now) = self.0.locked();
        tracks.exit(id.into_u64(), now);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let (mut tracks, now) = self.0.locked();
        tracks.close(id.into_u64(), now);
    }
}

/// The name and the arguments of a slice. The field `of` names the object and is appended to the name; the field `name` replaces it.
struct Fields<'a> {
    profile: &'a Profile,
    name: String,
    arguments: Map<String, Value>,
}

impl Visit for Fields<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.arguments.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value = self.profile.masked(value);
        match field.name() {
            "of" => self.name = format!("{} {value}", self.name),
            "name" => self.name = value,
            name => drop(self.arguments.insert(name.to_owned(), value.into())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
