//! `--profile FILE`: what ran in parallel with what, as a trace that <https://ui.perfetto.dev> and `chrome://tracing` open.
//!
//! Where work is done, a span of [`tracing`]'s is made. One that is entered is what a thread does, and a slice of that thread's track.
//! One that is only held, while something is awaited, is a task, and a slice of a lane: its parent's where it names one, else one of its
//! own name where nothing else goes on.
//!
//! ```text
//! step       ├ inserting ─────────────────────────┤
//! COPY       ├ COPY sale ─────────────┤
//!              ├ send ┤  ├ send ┤                       held, with the COPY as its parent
//! append     ├ append customer ┤├ append sale ──┤       held, at the same time
//! thread 1   ├ encode ┤├ encode ┤├ encode ┤             entered
//! ```
//!
//! So slices of one track lie in each other or behind each other, never across. Each is written when it ends, with its beginning: there
//! is none without the other. What a killed program leaves lacks what was going on and the last `]`, which viewers do without.
//!
//! The format is Chrome's: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.

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

use super::output::note;
use super::report_files::{cannot_write, refuse_other};
mod tracks;

use crate::diagnostic::Redactor;
use crate::error::{Error, Result};
use tracks::{Tracks, thread};

/// What a profile begins with: nothing else is ever overwritten.
const BEGINNING: &str = r#"[
{"name":"process_name","ph":"M","pid":1,"args":{"name":"pipeline"}}"#;

/// The profile of this program, where one is asked for.
static PROFILE: OnceLock<Profile> = OnceLock::new();

struct Profile {
    path: PathBuf,
    since: Instant,
    secrets: OnceLock<Redactor>,
    tracks: Mutex<Tracks>,
}

/// Begins a profile in a file, where one is asked for.
///
/// # Errors
/// Where the file cannot be written, or something that is no profile is in its place.
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

/// Says what must not be written from here on.
pub(super) fn mask(secrets: &Redactor) {
    if let Some(profile) = PROFILE.get() {
        // There is one pipeline file, and so one set of secrets.
        let _is_first = profile.secrets.set(secrets.clone()).is_ok();
    }
}

/// Ends the profile where there is one, with what is going on just now cut off. What comes later is not in it.
pub(super) fn end() {
    let Some(profile) = PROFILE.get() else { return };
    if let Err(error) = profile.tracks().end(profile.now()) {
        note(&format!("warning: the profile in `{}` is not complete: {error}", profile.path.display()));
    }
}

impl Profile {
    /// Microseconds since it began.
    fn now(&self) -> f64 {
        self.since.elapsed().as_nanos() as f64 / 1000.0
    }

    fn tracks(&self) -> MutexGuard<'_, Tracks> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn masked(&self, text: &str) -> String {
        self.secrets.get().map_or_else(|| text.to_owned(), |secrets| secrets.mask(text).into_owned())
    }
}

/// Notes this program's spans. Times are taken under the lock, so that a lane's next slice begins behind its last.
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
        let mut tracks = self.0.tracks();
        let now = self.0.now();
        tracks.begin(id.into_u64(), kind, fields.name, fields.arguments, parent, now);
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        let thread = thread();
        let mut tracks = self.0.tracks();
        let now = self.0.now();
        tracks.enter(id.into_u64(), thread, now);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        let mut tracks = self.0.tracks();
        let now = self.0.now();
        tracks.exit(id.into_u64(), now);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut tracks = self.0.tracks();
        let now = self.0.now();
        tracks.close(id.into_u64(), now);
    }
}

/// How a slice is called, and what else its span says. `of` is what it is done to, and `name` is the whole name.
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
