//! Writing log lines without ever holding up a request.
//!
//! A request appends its line to the buffer of its thread, under a lock that is held for that only. One thread of the
//! log takes the buffers away every few milliseconds and writes each with one system call. When the sink is slower than
//! the requests, buffers fill up to a bound, and from there on lines are dropped and counted: a log must not cost memory
//! without end, and not a moment of a request.

use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output, where systemd and containers look for it.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, made if need be (mode by the umask) and appended to.
    File(PathBuf),
}

/// A log with its own writer thread. Dropping it writes what is left, without waiting for that.
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Thread,
}

/// Bytes a thread's buffer may hold before lines are dropped.
const SHARD_LIMIT: usize = 1 << 20;

/// Bytes from which the writer is asked not to wait for more.
const SHARD_HURRY: usize = SHARD_LIMIT / 2;

/// How long lines are gathered after the first.
const GATHER: Duration = Duration::from_millis(20);

/// How long a sink that takes nothing at the moment (a full non-blocking pipe) is left alone.
const RETRY: Duration = Duration::from_millis(5);

/// A buffer larger than this goes back to the allocator when a batch used little of it.
const KEPT: usize = 64 << 10;

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn open(target: Target) -> io::Result<Arc<AccessLog>> {
        AccessLog::start(Sink::open(target)?)
    }

    /// Appends one line. `write` puts it at the end of the buffer, without the newline and without any newline inside;
    /// it must not touch what is in the buffer already. Never waits for the sink: with a full buffer `write` is not
    /// called and the line is counted as dropped.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let held = {
            let mut buffer = self.shared.shard().lock();
            if buffer.len() > SHARD_LIMIT {
                drop(buffer);
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let line = Line { start: buffer.len(), buffer: &mut buffer };
            write(line.buffer);
            line.complete();
            buffer.len()
        };
        if self.shared.announce() || held > SHARD_HURRY {
            self.writer.unpark();
        }
    }

    /// How many lines were lost so far: dropped because of a full buffer, or refused by the sink.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Opens the file anew by its path, after it was renamed by a log rotation. Does not wait; every line goes whole to
    /// the old or the new file. If the path cannot be opened, the old file stays in use. Means nothing for other targets.
    pub fn reopen(&self) {
        self.order(|orders| orders.reopen = true);
    }

    /// Writes every line that was appended before the call. Blocks up to `timeout`; returns whether it was done by then.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let ticket = self.order(|orders| {
            orders.flush_asked += 1;
            orders.flush_asked
        });
        let mut orders = self.shared.orders.lock();
        while orders.flush_done < ticket {
            if self.shared.flushed.wait_until(&mut orders, deadline).timed_out() {
                return orders.flush_done >= ticket;
            }
        }
        true
    }

    fn start(sink: Sink) -> io::Result<Arc<AccessLog>> {
        let shared = Arc::new(Shared::new());
        let writer =
            Writer { shared: Arc::clone(&shared), sink, spare: Vec::new(), failing: false, torn: false };
        let thread = thread::Builder::new().name("access-log".into()).spawn(move || writer.run())?;
        Ok(Arc::new(AccessLog { shared, writer: thread.thread().clone() }))
    }

    fn order<T>(&self, change: impl FnOnce(&mut Orders) -> T) -> T {
        let value = change(&mut self.shared.orders.lock());
        self.shared.announce();
        self.writer.unpark();
        value
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.order(|orders| orders.stop = true);
    }
}

/// A line being written: taken back if the closure that writes it panics, so that no half line joins the next.
struct Line<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
}

impl Line<'_> {
    fn complete(mut self) {
        self.buffer.push(b'\n');
        self.start = self.buffer.len();
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.buffer.truncate(self.start);
    }
}

/// What the requests and the writer share.
struct Shared {
    shards: Box<[Shard]>,
    /// Something waits to be written or ordered. Set after an append, cleared before the buffers are taken.
    waiting: AtomicBool,
    dropped: AtomicU64,
    orders: Mutex<Orders>,
    flushed: Condvar,
}

/// Apart by two cache lines (the prefetcher takes pairs), so that threads do not slow each other down.
#[repr(align(128))]
struct Shard(Mutex<Vec<u8>>);

#[derive(Clone, Copy, Default)]
struct Orders {
    reopen: bool,
    stop: bool,
    flush_asked: u64,
    flush_done: u64,
}

impl Orders {
    fn urgent(self) -> bool {
        self.reopen || self.stop || self.flush_asked > self.flush_done
    }
}

impl Shared {
    fn new() -> Shared {
        let threads = thread::available_parallelism().map_or(4, usize::from);
        let shards = (0..threads.next_power_of_two()).map(|_| Shard(Mutex::default())).collect();
        Shared {
            shards,
            waiting: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            orders: Mutex::default(),
            flushed: Condvar::new(),
        }
    }

    /// The buffer of this thread.
    fn shard(&self) -> &Mutex<Vec<u8>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        let number = NUMBER.get() & (self.shards.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "masked by the length, which is a power of two")]
        &self.shards[number].0
    }

    /// Says that there is something to do. Returns whether the writer must be woken for it: almost never under load.
    fn announce(&self) -> bool {
        !self.waiting.load(Ordering::Acquire) && !self.waiting.swap(true, Ordering::AcqRel)
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    sink: Sink,
    /// Swapped for the buffer of a shard, so that buffers go round instead of being allocated.
    spare: Vec<u8>,
    /// The last write failed; said once until one succeeds.
    failing: bool,
    /// The sink ends in half a line.
    torn: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            while !self.shared.waiting.load(Ordering::Acquire) {
                thread::park();
            }
            if !self.shared.orders.lock().urgent() {
                thread::park_timeout(GATHER);
            }
            // Before the buffers are taken: a line that comes later announces itself again.
            self.shared.waiting.store(false, Ordering::Release);
            let orders = *self.shared.orders.lock();
            if orders.reopen {
                self.reopen();
            }
            self.write_shards();
            self.confirm(orders);
            if orders.stop {
                return;
            }
        }
    }

    fn reopen(&mut self) {
        self.shared.orders.lock().reopen = false;
        match self.sink.reopened() {
            Ok(Some(sink)) => {
                self.sink = sink;
                self.torn = false;
            }
            Ok(None) => {}
            Err(error) => {
                log::error!("access log: cannot reopen {}: {error}; the old file stays", self.sink.name())
            }
        }
    }

    fn write_shards(&mut self) {
        let shared = Arc::clone(&self.shared);
        for shard in &shared.shards {
            std::mem::swap(&mut *shard.0.lock(), &mut self.spare);
            if !self.spare.is_empty() {
                let batch = std::mem::take(&mut self.spare);
                self.write(&batch);
                self.spare = emptied(batch);
            }
        }
    }

    fn write(&mut self, batch: &[u8]) {
        match self.write_all(batch) {
            Ok(()) if self.failing => {
                self.failing = false;
                log::info!("access log: {} takes lines again", self.sink.name());
            }
            Ok(()) => {}
            Err((error, left)) => {
                let lost = memchr::memchr_iter(b'\n', left).count() as u64;
                self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
                if !self.failing {
                    self.failing = true;
                    let name = self.sink.name();
                    log::error!(
                        "access log: cannot write to {name}: {error}; lines are dropped until it can"
                    );
                }
            }
        }
    }

    /// Writes a batch of whole lines, or says what was left of it when the sink refused.
    fn write_all<'a>(&mut self, batch: &'a [u8]) -> Result<(), (io::Error, &'a [u8])> {
        if self.torn {
            self.write_some(b"\n").map_err(|error| (error, batch))?;
            self.torn = false;
        }
        let mut left = batch;
        while !left.is_empty() {
            let count = self.write_some(left).map_err(|error| (error, left))?;
            let (done, rest) = left.split_at_checked(count).unwrap_or((left, &[]));
            self.torn = !done.ends_with(b"\n");
            left = rest;
        }
        Ok(())
    }

    /// One write, which waits for a sink that is full for the moment, unless the log is being closed.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.sink.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.shared.orders.lock().stop => {
                    thread::park_timeout(RETRY);
                }
                outcome => return outcome,
            }
        }
    }

    fn confirm(&self, seen: Orders) {
        let mut orders = self.shared.orders.lock();
        if orders.flush_done < seen.flush_asked {
            orders.flush_done = seen.flush_asked;
            self.shared.flushed.notify_all();
        }
    }
}

fn emptied(mut batch: Vec<u8>) -> Vec<u8> {
    let used = batch.len();
    batch.clear();
    if batch.capacity() > KEPT && used < batch.capacity() / 4 {
        batch.shrink_to(KEPT.max(used));
    }
    batch
}

/// An open target. Standard streams are duplicated, so that the standard library's buffer and lock are not involved.
struct Sink {
    file: File,
    target: Target,
}

impl Sink {
    fn open(target: Target) -> io::Result<Sink> {
        let file = match &target {
            Target::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            Target::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
            Target::File(path) => append_to(path)?,
        };
        Ok(Sink { file, target })
    }

    /// The file at the path as it is now; `None` for what has no path.
    fn reopened(&self) -> io::Result<Option<Sink>> {
        match &self.target {
            Target::Stdout | Target::Stderr => Ok(None),
            target @ Target::File(_) => Sink::open(target.clone()).map(Some),
        }
    }

    fn name(&self) -> String {
        match &self.target {
            Target::Stdout => "stdout".into(),
            Target::Stderr => "stderr".into(),
            Target::File(path) => path.display().to_string(),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    const SOON: Duration = Duration::from_secs(10);

    fn into_file(folder: &tempfile::TempDir) -> (Arc<AccessLog>, PathBuf) {
        let path = folder.path().join("access.log");
        (AccessLog::open(Target::File(path.clone())).unwrap(), path)
    }

    fn into_stream(stream: UnixStream) -> Arc<AccessLog> {
        let file = File::from(OwnedFd::from(stream));
        AccessLog::start(Sink { file, target: Target::Stdout }).unwrap()
    }

    fn say(log: &AccessLog, text: &str) {
        log.line(|buffer| buffer.extend_from_slice(text.as_bytes()));
    }

    #[test]
    fn concurrent_lines_are_whole_and_in_order_per_thread() {
        let folder = tempfile::tempdir().unwrap();
        let (log, path) = into_file(&folder);
        thread::scope(|scope| {
            for writer in 0..8 {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..4000 {
                        log.line(|buffer| {
                            write!(buffer, "{writer} {number} {}", "x".repeat(number % 200)).unwrap();
                        });
                    }
                });
            }
        });
        assert!(log.flush(SOON));
        let text = fs::read_to_string(path).unwrap();
        let mut last: HashMap<&str, usize> = HashMap::new();
        for line in text.lines() {
            let [writer, number, filler] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let number: usize = number.parse().unwrap();
            assert_eq!(filler.len(), number % 200);
            assert!(last.insert(writer, number).is_none_or(|before| before < number));
        }
        assert_eq!(text.lines().count() as u64 + log.dropped(), 8 * 4000);
    }

    #[test]
    fn a_blocked_sink_drops_and_counts_and_never_waits() {
        let (sink, mut reader) = UnixStream::pair().unwrap();
        let log = into_stream(sink);
        let line = "y".repeat(999);
        for _ in 0..10_000 {
            say(&log, &line);
        }
        assert!(!log.flush(Duration::from_millis(30)), "nobody reads");
        for _ in 0..10_000 {
            say(&log, &line);
        }
        assert!(log.dropped() > 10_000, "{} of 20 MB", log.dropped());
        let drain = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text.lines().inspect(|line| assert_eq!(line.len(), 999)).count() as u64
        });
        assert!(log.flush(SOON));
        let dropped = log.dropped();
        drop(log);
        assert_eq!(drain.join().unwrap() + dropped, 20_000);
    }

    #[test]
    fn a_sink_that_would_block_is_tried_again() {
        let (sink, mut reader) = UnixStream::pair().unwrap();
        sink.set_nonblocking(true).unwrap();
        let log = into_stream(sink);
        for _ in 0..1000 {
            say(&log, &"z".repeat(999));
        }
        assert!(!log.flush(Duration::from_millis(30)), "more than a socket holds");
        let mut text = vec![0; 1_000_000];
        reader.read_exact(&mut text).unwrap();
        assert!(log.flush(SOON));
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_dead_reader_costs_lines_and_nothing_else() {
        let (sink, reader) = UnixStream::pair().unwrap();
        let log = into_stream(sink);
        drop(reader);
        for expected in 1..=3 {
            say(&log, "lost");
            assert!(log.flush(SOON));
            assert_eq!(log.dropped(), expected);
        }
    }

    #[test]
    fn a_full_disk_counts_the_lines_it_did_not_take() {
        let log = AccessLog::open(Target::File("/dev/full".into())).unwrap();
        say(&log, "one");
        say(&log, "two");
        assert!(log.flush(SOON));
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let sink = Sink::open(Target::File(path.clone())).unwrap();
        let shared = Arc::new(Shared::new());
        let mut writer = Writer { shared, sink, spare: Vec::new(), failing: false, torn: false };
        writer.write(b"half");
        writer.write(b"whole\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "half\nwhole\n");
    }

    #[test]
    fn reopening_after_a_rename_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (log, path) = into_file(&folder);
        let old = folder.path().join("access.log.1");
        say(&log, "before");
        assert!(log.flush(SOON));
        fs::rename(&path, &old).unwrap();
        say(&log, "between");
        log.reopen();
        assert!(log.flush(SOON));
        say(&log, "after");
        assert!(log.flush(SOON));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let (old, new) = (read(&old), read(&path));
        assert_eq!(old.clone() + &new, "before\nbetween\nafter\n");
        assert!(old.starts_with("before\n") && new.ends_with("after\n"));
    }

    #[test]
    fn a_path_that_cannot_be_reopened_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("logs");
        fs::create_dir(&inner).unwrap();
        let log = AccessLog::open(Target::File(inner.join("a"))).unwrap();
        let moved = folder.path().join("moved");
        fs::rename(&inner, &moved).unwrap();
        log.reopen();
        say(&log, "kept");
        assert!(log.flush(SOON));
        assert_eq!(fs::read_to_string(moved.join("a")).unwrap(), "kept\n");
    }

    #[test]
    fn dropping_the_log_writes_what_is_left() {
        let (sink, mut reader) = UnixStream::pair().unwrap();
        let log = into_stream(sink);
        say(&log, "last words");
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap(); // ends when the writer has gone
        assert_eq!(text, "last words\n");
    }

    #[test]
    fn a_line_is_written_without_being_asked_for() {
        let (sink, mut reader) = UnixStream::pair().unwrap();
        let log = into_stream(sink);
        for text in ["one", "two"] {
            say(&log, text);
            let mut line = [0; 4];
            reader.read_exact(&mut line).unwrap();
            assert_eq!(&line, format!("{text}\n").as_bytes());
        }
    }

    #[test]
    fn a_panic_inside_a_line_takes_the_line_back() {
        let (sink, mut reader) = UnixStream::pair().unwrap();
        let log = into_stream(sink);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            log.line(|buffer| {
                buffer.extend_from_slice(b"half");
                std::panic::resume_unwind(Box::new(()));
            });
        }));
        assert!(panicked.is_err());
        say(&log, "whole");
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "whole\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = AccessLog::open(Target::File("/nonexistent/a.log".into())).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/a.log"), "{error}");
    }
}
