//! The thread that changes the folder, and the one that finds what was there before.

use super::entry::Entry;
use super::files::{Files, Unusable};
use super::format::Head;
use super::{Tier, count};
use crate::cache::purge::How;
use crate::cache::store::now;
use crate::cache::table::Object;
use crate::cache::{Body, Stored};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a folder is tried that another process uses.
const BUSY: Duration = Duration::from_millis(250);

/// After how many looks somebody is told.
const TELLING: u32 = 20;
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Files that are found before the thread that writes has taken them in.
const FOUND: usize = 256;

/// What the thread does.
pub(super) enum Job {
    /// Writes an answer that was asked for after so many purges.
    Write { key: Box<[u8]>, stored: Arc<Stored<Body>>, made: u64, bytes: usize },
    /// Removes files.
    Remove(Vec<u64>),
    /// Marks files.
    Mark(Vec<u64>, How),
    /// Takes in a file that was there before.
    Found(Box<Head>),
    /// Tells that it has come so far.
    Tell(SyncSender<()>),
    /// Ends.
    End,
}

/// After a failure nothing is tried for a while, and longer from time to time.
#[derive(Debug, Default)]
pub(super) struct Resting {
    until: Option<Instant>,
    pause: Duration,
}

impl Resting {
    /// Whether nothing is to be tried now.
    pub fn rests(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether the last thing tried has failed.
    pub fn is_failing(&self) -> bool {
        self.until.is_some()
    }

    /// Whether that is news.
    fn failed(&mut self) -> bool {
        let is_new = self.until.is_none();
        self.pause = if is_new { PAUSE.0 } else { (self.pause * 2).min(PAUSE.1) };
        self.until = Some(Instant::now() + self.pause);
        is_new
    }

    /// Whether that is news.
    fn worked(&mut self) -> bool {
        self.until.take().is_some()
    }
}

/// Works until it is told to end.
pub(super) fn run(tier: &Arc<Tier>, jobs: &Receiver<Job>) {
    let Some(files) = open(tier, jobs) else { return };
    let files = Arc::new(files);
    tier.is_open.store(true, Ordering::Relaxed);
    let writer = Writer { tier, files: &files, first: ids_from(), written: 0 };
    let (finding, found) = (tier.clone(), files.clone());
    let first = writer.first;
    let finder = std::thread::Builder::new().name("cache-index".to_owned());
    let finder = finder.spawn(move || find(&finding, &found, first));
    if let Err(error) = &finder {
        log::error!("cache: what is on disk is not found: {error}");
    }
    writer.work(jobs);
    // It holds the lock, too.
    drop(finder.map(JoinHandle::join));
}

/// Numbers that no process before has used: the time, and room for a million a millisecond.
fn ids_from() -> u64 {
    now() << 20
}

/// Waits until the folder can be used; nothing when it is told to end before.
fn open(tier: &Tier, jobs: &Receiver<Job>) -> Option<Files> {
    let mut busy: u32 = 0;
    loop {
        let pause = match Files::open(&tier.path) {
            Ok(files) => {
                tier.note_written(&Ok(()));
                return Some(files);
            }
            Err(Unusable::Busy) => {
                busy = busy.saturating_add(1);
                // In an upgrade the folder is free again at once.
                if busy == TELLING {
                    log::warn!(
                        "cache: another process uses {}; answers are kept in memory only until it ends",
                        tier.path.display()
                    );
                }
                BUSY
            }
            Err(Unusable::Failed(error)) => {
                tier.note_written::<()>(&Err(error));
                PAUSE.0
            }
        };
        match jobs.recv_timeout(pause) {
            Ok(Job::End) | Err(RecvTimeoutError::Disconnected) => return None,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Finds what was there before.
fn find(tier: &Tier, files: &Files, first: u64) {
    let begin = Instant::now();
    let mut found = 0;
    let result = files.each(|head| {
        // What this process has written is known.
        if head.id < first {
            tier.give(Job::Found(Box::new(head)));
            found += 1;
            if found % FOUND == 0 {
                catch_up(tier);
            }
        }
        !tier.is_ending.load(Ordering::Relaxed)
    });
    catch_up(tier);
    tier.is_whole.store(true, Ordering::Relaxed);
    match result {
        Ok(()) => log::info!("cache: {found} answers found on disk in {:.1?}", begin.elapsed()),
        Err(error) => log::warn!("cache: not all answers on disk are found: {error}"),
    }
}

/// Waits until the thread that writes has taken in what was found, or ends.
fn catch_up(tier: &Tier) {
    let (done, wait) = sync_channel(1);
    tier.give(Job::Tell(done));
    while wait.recv_timeout(BUSY) == Err(RecvTimeoutError::Timeout) && !tier.is_ending.load(Ordering::Relaxed)
    {
    }
}

struct Writer<'a> {
    tier: &'a Tier,
    files: &'a Files,
    first: u64,
    written: u64,
}

impl Writer<'_> {
    fn work(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Write { key, stored, made, bytes } => {
                    // Others wait for the folder.
                    if !self.tier.is_ending.load(Ordering::Relaxed) {
                        self.write(&key, &stored, made);
                    }
                    self.tier.waiting.fetch_sub(bytes, Ordering::Relaxed);
                }
                Job::Remove(ids) => ids.into_iter().for_each(|id| self.remove(id)),
                Job::Mark(ids, how) => ids.into_iter().for_each(|id| self.mark(id, how)),
                Job::Found(head) => self.found(*head),
                // Whoever waits may have gone.
                Job::Tell(done) => drop(done.send(())),
                Job::End => return,
            }
        }
    }

    fn write(&mut self, key: &[u8], stored: &Arc<Stored<Body>>, made: u64) {
        let id = self.first + self.written;
        self.written += 1;
        let len = stored.body.whole_len().unwrap_or_default();
        self.let_go(self.tier.shelves.make_room(usize::try_from(len).unwrap_or(usize::MAX), now()));
        let written = self.files.write(id, key, stored);
        self.tier.note_written(&written);
        let Ok(len) = written else {
            let before = Arc::new(Entry::of(0, 0, stored));
            if let Some(before) = self.tier.shelves.forget(key, &before) {
                self.remove(before.id);
            }
            return;
        };
        count(&self.tier.counts.written);
        let entry = Arc::new(Entry::of(id, len, stored));
        if let Some(how) = entry.marked() {
            self.mark(id, how);
        }
        self.let_go(self.tier.shelves.put(key, entry.clone(), entry.bytes(), now()));
        self.meet(key, &entry, made);
    }

    /// A purge that came before the answer was known to be here has not met it.
    fn meet(&self, key: &[u8], entry: &Arc<Entry>, made: u64) {
        match self.tier.purges.since(made, key, entry.url(), entry.tags()) {
            None => {}
            Some(How::Remove) => {
                self.tier.shelves.forget(key, entry);
                self.remove(entry.id);
            }
            Some(how) => {
                entry.mark(how);
                self.mark(entry.id, how);
            }
        }
    }

    fn found(&self, head: Head) {
        let entry = Arc::new(Entry::of(head.id, head.layout.file_len(), &head.stored));
        let known = self.tier.shelves.same(&head.key, &entry);
        // Of two, one was left behind when the process ended.
        let newer = known.is_some_and(|known| known.received() >= entry.received());
        if newer || entry.is_useless(now()) {
            return self.remove(head.id);
        }
        self.let_go(self.tier.shelves.put(&head.key, entry.clone(), entry.bytes(), now()));
        self.meet(&head.key, &entry, 0);
    }

    fn let_go(&self, gone: impl IntoIterator<Item = (Arc<Entry>, usize)>) {
        gone.into_iter().for_each(|(entry, _)| self.remove(entry.id));
    }

    fn remove(&self, id: u64) {
        if let Err(error) = self.files.remove(id) {
            self.tier.note_written::<()>(&Err(error));
        }
    }

    fn mark(&self, id: u64, how: How) {
        if let Err(error) = self.files.mark(id, how) {
            self.tier.note_written::<()>(&Err(error));
        }
    }
}

impl Tier {
    /// Says once that the disk fails, and once that it works again.
    fn note_written<T>(&self, written: &io::Result<T>) {
        let mut resting = self.resting.lock();
        match written {
            Ok(_) => {
                if resting.worked() {
                    log::info!("cache: {} is written again", self.path.display());
                }
            }
            Err(error) => {
                count(&self.counts.write_errors);
                if resting.failed() {
                    log::error!(
                        "cache: {} cannot be written, answers are kept in memory only: {error}",
                        self.path.display()
                    );
                }
            }
        }
    }
}
