//! Stored answers on a disk, behind those in memory: they outlive the process.
//!
//! One thread writes and removes; it never waits for requests, nor they for it: what is too much to write is not written.
//! Reading is done on threads that may block, a bounded number at a time. When the disk fails or is full, answers are kept in
//! memory only until it works again.

mod entry;
mod files;
mod format;
mod writer;

use super::fill::Budget;
use super::memory::LARGEST;
use super::purge::{Purge, Purges};
use super::shelves::{Held, Shelves};
use super::store::now;
use super::table::Found;
use super::{Body, Stored};
use entry::Entry;
use format::{BLOCK, Head, Layout};
use http::HeaderMap;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use writer::{Job, Resting};

/// Bytes of answers that may wait to be written.
const WAITING: usize = 64 << 20;
/// Answers that are read at a time.
const READING: usize = 64;
/// Bodies up to this length are read whole, so that they can be kept in memory again; longer ones as they are sent.
const WHOLE: u64 = 1 << 20;
/// Blocks of a longer body that are read at once.
const AT_ONCE: usize = 8;
/// An answer that will not be fresh for so long any more is not worth writing, in milliseconds.
const WORTHWHILE: u64 = 10_000;

/// Where answers are kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder.
    pub path: PathBuf,
    /// Most bytes.
    pub size: u64,
}

/// A disk tier.
pub(super) struct Disk {
    tier: Arc<Tier>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What requests and the thread share.
struct Tier {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    shelves: Shelves<Arc<Entry>>,
    purges: Arc<Purges>,
    coming: Arc<Budget>,
    reading: Semaphore,
    /// Bytes that wait to be written.
    waiting: AtomicUsize,
    is_open: AtomicBool,
    is_whole: AtomicBool,
    is_ending: AtomicBool,
    resting: Mutex<Resting>,
    counts: Counts,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub read: AtomicU64,
    pub written: AtomicU64,
    /// Not written or not read because there was too much to do, or the disk is failing.
    pub skipped: AtomicU64,
    pub read_errors: AtomicU64,
    pub write_errors: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Disk {
    /// Uses a folder as soon as no other process does. Does not wait for that, nor for what is in it to be known.
    pub fn open(settings: &Settings, purges: Arc<Purges>, coming: Arc<Budget>) -> io::Result<Disk> {
        let (jobs, work) = mpsc::channel();
        let tier = Arc::new(Tier {
            jobs,
            path: settings.path.clone(),
            shelves: Shelves::new(usize::try_from(settings.size).unwrap_or(usize::MAX)),
            purges,
            coming,
            reading: Semaphore::new(READING),
            waiting: AtomicUsize::new(0),
            is_open: AtomicBool::new(false),
            is_whole: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            resting: Mutex::default(),
            counts: Counts::default(),
        });
        let writing = tier.clone();
        let thread = std::thread::Builder::new().name("cache-disk".to_owned());
        let thread = thread.spawn(move || writer::run(&writing, &work))?;
        Ok(Disk { tier, thread: Mutex::new(Some(thread)) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.tier.path
    }

    /// Changes how many bytes there may be.
    pub fn set_size(&self, size: u64) {
        let gone = self.tier.shelves.set_most(usize::try_from(size).unwrap_or(usize::MAX), now());
        self.tier.give(Job::Remove(gone.into_iter().map(|(entry, _)| entry.id).collect()));
    }

    /// Writes an answer whose body is whole, that was asked for after `made` purges, as soon as there is time. `false` when it
    /// is not going to be written.
    pub fn put(&self, key: &[u8], stored: &Arc<Stored<Body>>, made: u64) -> bool {
        let bytes = stored.body.whole_len().and_then(|len| usize::try_from(len).ok()).unwrap_or(usize::MAX);
        let tier = &self.tier;
        let fits = bytes <= tier.shelves.most() / LARGEST && stored.fresh_until() > now() + WORTHWHILE;
        let is_free = tier.is_open.load(Ordering::Relaxed) && !tier.resting.lock().rests();
        if fits && is_free && tier.begin_waiting(bytes) {
            self.tier.give(Job::Write { key: key.into(), stored: stored.clone(), made, bytes });
            return true;
        }
        if fits && tier.is_open.load(Ordering::Relaxed) {
            count(&tier.counts.skipped);
        }
        // What was there before is out of date all the same.
        let before = Arc::new(Entry::of(0, 0, stored));
        if let Some(entry) = tier.shelves.forget(key, &before) {
            self.tier.give(Job::Remove(vec![entry.id]));
        }
        false
    }

    /// Reads the newest answer for a request with these fields. Nothing when there is none, or too much to do.
    pub async fn get(&self, key: &[u8], headers: &HeaderMap) -> Option<Arc<Stored<Body>>> {
        let Found::Object(entry) = self.tier.shelves.get(key, headers) else { return None };
        let mut loaded = entry.loaded.lock().await;
        if let Some(stored) = loaded.upgrade() {
            return Some(stored);
        }
        let Ok(_permit) = self.tier.reading.try_acquire() else {
            count(&self.tier.counts.skipped);
            return None;
        };
        let (root, id) = (self.tier.path.clone(), entry.id);
        let read = spawn_blocking(move || read(&root, id))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        let (file, head, bytes) = match read {
            Ok(read) if *read.1.key == *key => read,
            Ok(_) => return self.tier.lost(key, &entry, &io::Error::other("it has the key of another")),
            Err(error) => return self.tier.lost(key, &entry, &error),
        };
        count(&self.tier.counts.read);
        let body = match bytes {
            Some(bytes) => Body::whole(bytes.into()),
            None => self.streamed(file, head.layout, key, &entry),
        };
        let stored = Arc::new(head.stored.with_body(body));
        if let Some(how) = entry.marked() {
            stored.apply(how);
        }
        // What only passes through is for one reader.
        if stored.body.whole_len().is_some() {
            *loaded = Arc::downgrade(&stored);
        }
        Some(stored)
    }

    /// A body that is read as it is sent, and not kept in memory.
    fn streamed(&self, file: File, layout: Layout, key: &[u8], entry: &Arc<Entry>) -> Body {
        let (body, mut filler) = Body::expected(Some(layout.body), 0, self.tier.coming.clone());
        let (tier, opened) = (self.tier.clone(), Arc::new((file, layout)));
        let (key, entry): (Box<[u8]>, _) = (key.into(), entry.clone());
        tokio::spawn(async move {
            let blocks = usize::try_from(opened.1.body.div_ceil(BLOCK as u64)).unwrap_or(usize::MAX);
            for first in (0..blocks).step_by(AT_ONCE) {
                if first > 0 && !filler.room().await {
                    return;
                }
                let opened = opened.clone();
                let read = spawn_blocking(move || files::blocks(&opened.0, &opened.1, first, AT_ONCE)).await;
                match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
                    Ok(bytes) => filler.push(bytes.into()),
                    Err(error) => return drop(tier.lost(&key, &entry, &error)),
                }
            }
            filler.finish(true);
        });
        body
    }

    /// Applies a purge. Gives how many answers it has met.
    pub fn purge(&self, purge: &Purge) -> usize {
        let mut marked = Vec::new();
        let (gone, met) = self.tier.shelves.purge(purge, |entry| marked.push(entry.id));
        self.tier.give(Job::Remove(gone.into_iter().map(|entry| entry.id).collect()));
        self.tier.give(Job::Mark(marked, purge.how));
        met
    }

    /// Waits until all has been done that was to be done by now, but not for long. Blocks.
    pub fn settle(&self, within: Duration) -> bool {
        let (done, wait) = mpsc::sync_channel(1);
        self.tier.give(Job::Tell(done));
        wait.recv_timeout(within).is_ok()
    }

    /// Ends it; another process may then use the folder. What waits to be written is not,
    /// what was purged is removed. Blocks.
    pub fn close(&self) {
        self.tier.is_ending.store(true, Ordering::Relaxed);
        self.tier.is_open.store(false, Ordering::Relaxed);
        self.tier.give(Job::End);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("cache: the thread of the disk has panicked");
        }
    }

    /// What there is.
    pub fn held(&self) -> Held {
        self.tier.shelves.held()
    }

    /// What has happened so far.
    pub fn counts(&self) -> &Counts {
        &self.tier.counts
    }

    /// Whether answers are written and found, in a word.
    pub fn state(&self) -> &'static str {
        match (self.tier.resting.lock().is_failing(), self.tier.is_open.load(Ordering::Relaxed)) {
            (true, _) => "failing",
            (false, false) => "waiting",
            (false, true) if self.tier.is_whole.load(Ordering::Relaxed) => "ready",
            (false, true) => "reading",
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.tier.is_ending.store(true, Ordering::Relaxed);
        self.tier.give(Job::End);
    }
}

impl Tier {
    fn begin_waiting(&self, bytes: usize) -> bool {
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let fits = waiting.saturating_add(bytes) <= WAITING;
        if !fits {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Lets go of what cannot be read.
    fn lost(&self, key: &[u8], entry: &Arc<Entry>, error: &io::Error) -> Option<Arc<Stored<Body>>> {
        // It may have been purged meanwhile, or have left. Said once; the metric tells how often.
        if error.kind() != ErrorKind::NotFound && self.counts.read_errors.fetch_add(1, Ordering::Relaxed) == 0
        {
            log::warn!("cache: an answer on disk cannot be read and is let go: {error}");
        }
        // Unless another has come in its place.
        if self.shelves.same(key, entry).is_some_and(|other| other.id == entry.id) {
            self.shelves.forget(key, entry);
        }
        self.give(Job::Remove(vec![entry.id]));
        None
    }

    fn give(&self, job: Job) {
        // After the end nobody takes it, and nothing is lost that matters.
        let _ = self.jobs.send(job);
    }
}

/// Opens, and reads the body if it is short.
fn read(root: &Path, id: u64) -> io::Result<(File, Head, Option<Vec<u8>>)> {
    let (file, head) = files::open(root, id)?;
    let bytes = match head.layout.body <= WHOLE {
        true => Some(files::blocks(&file, &head.layout, 0, usize::MAX)?),
        false => None,
    };
    Ok((file, head, bytes))
}

#[cfg(test)]
mod tests;
