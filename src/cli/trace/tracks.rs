//! The tracks of a profile: the assignment of slices to lanes and threads, and their output.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

/// The number of the first thread's track. Lanes have smaller numbers, so that viewers show them first.
const THREADS: usize = 1000;

/// All tracks of a profile, and its file.
pub(super) struct Tracks {
    file: BufWriter<File>,
    /// The first write error. After it, nothing more is written.
    failed: Option<std::io::Error>,
    ended: bool,
    /// The open slices, by span ID.
    open: HashMap<u64, Slice>,
    lanes: Vec<Lane>,
    /// The threads whose tracks are named.
    threads: BTreeSet<usize>,
}

struct Slice {
    name: String,
    arguments: Map<String, Value>,
    began: f64,
    track: Track,
}

#[derive(Clone, Copy)]
enum Track {
    Lane(usize),
    /// A thread, and whether it is working on the slice.
    Thread(usize, bool),
}

struct Lane {
    /// The name of the spans that open it.
    kind: &'static str,
    /// Its number among the lanes of this kind.
    number: usize,
    /// The open spans, innermost last.
    open: Vec<u64>,
    named: bool,
}

impl Tracks {
    pub(super) fn new(file: BufWriter<File>) -> Self {
        let (open, lanes, threads) = (HashMap::new(), Vec::new(), BTreeSet::new());
        Self { file, failed: None, ended: false, open, lanes, threads }
    }

    /// Returns the lane in which the span's parent is innermost, or the first free lane of its kind.
    fn lane(&mut self, kind: &'static str, parent: Option<u64>) -> usize {
        let inside = |lane: &Lane| parent.is_some() && lane.open.last().copied() == parent;
        let free = |lane: &Lane| lane.kind == kind && lane.open.is_empty();
        if let Some(index) = self.lanes.iter().position(inside).or_else(|| self.lanes.iter().position(free)) {
            return index;
        }
        let number = self.lanes.iter().filter(|lane| lane.kind == kind).count() + 1;
        self.lanes.push(Lane { kind, number, open: Vec::new(), named: false });
        self.lanes.len() - 1
    }

    /// Begins a span. It is in a lane until it is entered.
    pub(super) fn begin(
        &mut self,
        id: u64,
        kind: &'static str,
        name: String,
        arguments: Map<String, Value>,
        parent: Option<u64>,
        now: f64,
    ) {
        let lane = self.lane(kind, parent);
        self.lanes[lane].open.push(id);
        self.open.insert(id, Slice { name, arguments, began: now, track: Track::Lane(lane) });
    }

    /// Moves a span from its lane to the track of a thread.
    pub(super) fn enter(&mut self, id: u64, thread: usize, now: f64) {
        self.name_thread(thread);
        let Some(slice) = self.open.get_mut(&id) else { return };
        let before = std::mem::replace(&mut slice.track, Track::Thread(thread, true));
        slice.began = now;
        self.leave(id, before);
    }

    pub(super) fn exit(&mut self, id: u64, now: f64) {
        let Some(slice) = self.open.get_mut(&id) else { return };
        if let Track::Thread(_, is_working) = &mut slice.track {
            *is_working = false;
        }
        let event = slice.event(now, false);
        self.write(&event);
    }

    pub(super) fn close(&mut self, id: u64, now: f64) {
        let Some(slice) = self.open.remove(&id) else { return };
        if let Track::Lane(lane) = slice.track {
            self.name_lane(lane);
            self.write(&slice.event(now, false));
            self.leave(id, slice.track);
            if self.lanes[lane].open.is_empty() && self.failed.is_none() {
                self.failed = self.file.flush().err();
            }
        }
    }

    fn leave(&mut self, id: u64, track: Track) {
        if let Track::Lane(lane) = track {
            self.lanes[lane].open.retain(|open| *open != id);
        }
    }

    /// Writes the open slices and the end of the file.
    pub(super) fn end(&mut self, now: f64) -> std::io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let open: Vec<_> = self.open.drain().map(|(_, slice)| slice).collect();
        for slice in &open {
            match slice.track {
                Track::Lane(lane) => self.name_lane(lane),
                Track::Thread(_, true) => {}
                Track::Thread(_, false) => continue,
            }
            self.write(&slice.event(now, true));
        }
        self.ended = true;
        self.failed.take().map_or(Ok(()), Err)?;
        self.file.write_all(b"\n]\n").and_then(|()| self.file.flush())
    }

    fn name_lane(&mut self, lane: usize) {
        let Lane { kind, number, named, .. } = &mut self.lanes[lane];
        if !std::mem::replace(named, true) {
            let name = if *number == 1 { (*kind).to_owned() } else { format!("{kind} {number}") };
            self.name(Track::Lane(lane).number(), &name);
        }
    }

    /// Names the track of the current thread.
    fn name_thread(&mut self, thread: usize) {
        if self.threads.insert(thread) {
            let is_main = std::thread::current().name() == Some("main");
            let name = if is_main { "main".to_owned() } else { format!("thread {thread}") };
            self.name(Track::Thread(thread, true).number(), &name);
        }
    }

    fn name(&mut self, track: usize, name: &str) {
        let arguments =
            [("thread_name", json!({ "name": name })), ("thread_sort_index", json!({ "sort_index": track }))];
        for (field, arguments) in arguments {
            self.write(&json!({ "name": field, "ph": "M", "pid": 1, "tid": track, "args": arguments }));
        }
    }

    fn write(&mut self, event: &Value) {
        if !self.ended && self.failed.is_none() {
            // In one call, so that a flush never ends inside a slice.
            self.failed = self.file.write_all(format!(",\n{event}").as_bytes()).err();
        }
    }
}

impl Track {
    fn number(self) -> usize {
        match self {
            Self::Lane(lane) => lane + 1,
            Self::Thread(thread, _) => THREADS + thread,
        }
    }
}

impl Slice {
    fn event(&self, now: f64, is_interrupted: bool) -> Value {
        let mut arguments = self.arguments.clone();
        if is_interrupted {
            arguments.insert("interrupted".into(), true.into());
        }
        json!({
            "name": self.name, "ph": "X", "pid": 1, "tid": self.track.number(),
            "ts": self.began, "dur": now - self.began, "args": arguments,
        })
    }
}

/// The number of a thread: the lowest free one, so that short-lived threads share few tracks.
struct Thread(usize);

static TAKEN: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

thread_local! {
    static THREAD: Thread = Thread::new();
}

impl Thread {
    fn new() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..=taken.len()).find(|number| !taken.contains(number)).unwrap_or_default();
        taken.insert(free);
        Self(free)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Returns the number of the current thread.
pub(super) fn thread() -> usize {
    // A thread that is ending has no number any more.
    THREAD.try_with(|thread| thread.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Reads the slices of a file: track, name, and whether they were interrupted.
    fn written(path: &Path) -> Vec<(u64, String, bool)> {
        let events: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let slices = events.iter().filter(|event| event["ph"] == "X");
        slices
            .map(|event| {
                let name = event["name"].as_str().unwrap().to_owned();
                (event["tid"].as_u64().unwrap(), name, event["args"]["interrupted"] == true)
            })
            .collect()
    }

    #[test]
    fn parallel_tasks_have_separate_lanes_and_children_stay_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.json");
        let mut file = BufWriter::new(File::create(&path).unwrap());
        file.write_all(b"[{}").unwrap();
        let mut tracks = Tracks::new(file);
        let mut begin = |id, kind: &'static str, parent| {
            tracks.begin(id, kind, kind.to_owned(), Map::new(), parent, 0.0);
            tracks.open[&id].track.number()
        };
        assert_eq!((begin(1, "COPY", None), begin(2, "COPY", None), begin(3, "send", Some(2))), (1, 2, 2));
        assert_eq!(begin(4, "send", Some(2)), 3, "another slice is open in its parent");
        assert_eq!(begin(5, "encode", None), 4);
        tracks.enter(5, 7, 1.0);
        tracks.exit(5, 2.0);
        tracks.close(5, 3.0);
        for id in [3, 1] {
            tracks.close(id, 4.0);
        }
        assert_eq!((tracks.lane("COPY", None), tracks.lane("encode", None)), (0, 3), "free lanes are used again");
        tracks.end(5.0).unwrap();
        tracks.close(2, 6.0);
        tracks.end(7.0).unwrap();
        let mut written = written(&path);
        written.sort();
        let slice = |track, name: &str, interrupted| (track, name.to_owned(), interrupted);
        let expected = [
            slice(1, "COPY", false),
            slice(2, "COPY", true),
            slice(2, "send", false),
            slice(3, "send", true),
            slice(1007, "encode", false),
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn a_full_disk_is_reported_at_the_end() {
        let mut tracks = Tracks::new(BufWriter::new(File::options().write(true).open("/dev/full").unwrap()));
        tracks.begin(1, "step", "reading".into(), Map::new(), None, 1.0);
        tracks.close(1, 2.0);
        tracks.begin(2, "step", "checking".into(), Map::new(), None, 3.0);
        assert_eq!(tracks.end(4.0).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    #[test]
    fn parallel_threads_have_different_numbers() {
        let barrier = std::sync::Barrier::new(2);
        let work = || {
            let number = thread();
            barrier.wait();
            number
        };
        let (one, other) = std::thread::scope(|scope| {
            let (one, other) = (scope.spawn(work), scope.spawn(work));
            (one.join().unwrap(), other.join().unwrap())
        });
        assert_ne!(one, other);
    }
}
