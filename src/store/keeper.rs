//! Keeps quotas over a restart: writes down what has changed at every interval, and at the end.

use super::journal::{Journal, encode};
use super::memory::{Memory, now};
use crate::tasks::{Running, Stop, Task};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often idle counters are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// While the disk fails, the pause grows by doubling up to `interval × 2^6`.
const MOST_DOUBLINGS: u64 = 6;

/// Forgets idle counters of a store, so that memory is given back when nobody comes any more.
#[derive(Debug)]
pub struct Sweeper(pub Arc<Memory>);

impl Task for Sweeper {
    fn name(&self) -> &str {
        "sweep of limits"
    }

    fn run(self: Arc<Self>, mut stop: Stop) -> Running {
        Box::pin(async move {
            while stop.sleep(SWEEP).await {
                let memory = Arc::clone(&self.0);
                let _ = tokio::task::spawn_blocking(move || memory.sweep(now())).await;
            }
        })
    }
}

/// Writes the quotas of a store to a file. When the process is killed, at most one interval is lost.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    memory: Arc<Memory>,
    /// None after it was released.
    journal: Mutex<Option<Journal>>,
    interval: AtomicU64,
    failures: AtomicU64,
    failing: AtomicU64,
}

impl Keeper {
    /// Opens the file, made with mode 0600 if there is none, and takes over what it says into `memory`. What is damaged
    /// is logged and left out. Blocks.
    ///
    /// Fails, in words for the operator, when it is no file, cannot be read or written, or another process holds it.
    pub fn open(path: &Path, interval: Duration, memory: Arc<Memory>) -> Result<Self, String> {
        let now = now();
        // Many counters share the name of a limit.
        let mut names: HashSet<Arc<str>> = HashSet::new();
        let journal = Journal::open(path, |entry| {
            let name = names.get(entry.name).cloned().unwrap_or_else(|| entry.name.into());
            names.insert(Arc::clone(&name));
            if entry.end > now {
                memory.restore(&name, entry, now);
            }
        })?;
        let keeper = Keeper {
            path: path.to_owned(),
            memory,
            journal: Mutex::new(Some(journal)),
            interval: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failing: AtomicU64::new(0),
        };
        keeper.set_interval(interval);
        Ok(keeper)
    }

    /// How often it is written, from the next time on; at least every millisecond.
    pub fn set_interval(&self, interval: Duration) {
        let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        self.interval.store(micros.max(1_000), Ordering::Relaxed);
    }

    /// Writes down what has changed; on return the disk has it. Blocks. Does nothing after [`release`](Self::release).
    ///
    /// After an error all is written anew the next time, so nothing is lost but by a crash before that.
    pub fn flush(&self) -> io::Result<()> {
        let mut journal = self.journal.lock();
        let Some(journal) = &mut *journal else { return Ok(()) };
        let written = match journal.is_due() {
            true => journal.rewrite(|write| self.memory.write(now(), true, encode, write)),
            false => self.append(journal),
        };
        self.note(&written);
        written
    }

    /// Writes down what has changed and gives the file free for another process. What is counted afterwards stays in
    /// memory. Blocks.
    pub fn release(&self) -> io::Result<()> {
        let written = self.flush();
        *self.journal.lock() = None;
        written
    }

    /// Takes the file again after it was released, and writes all that was counted. What another process has written to it
    /// meanwhile does not count. Blocks.
    ///
    /// # Errors
    /// As [`open`](Self::open). Quotas are kept in memory only then.
    pub fn take_back(&self) -> Result<(), String> {
        let mut journal = self.journal.lock();
        if journal.is_some() {
            return Ok(());
        }
        let mut taken = Journal::open(&self.path, |_| {})?;
        let written = taken.rewrite(|write| self.memory.write(now(), true, encode, write));
        *journal = Some(taken);
        drop(journal);
        self.note(&written);
        written.map_err(|error| error.to_string())
    }

    /// How many writes have failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn append(&self, journal: &mut Journal) -> io::Result<()> {
        let mut records = Vec::new();
        self.memory.write(now(), false, encode, |bytes| {
            records.extend_from_slice(bytes);
            Ok::<(), io::Error>(())
        })?;
        if records.is_empty() { Ok(()) } else { journal.append(&records) }
    }

    /// Says once that writing fails, and once that it works again.
    fn note(&self, written: &io::Result<()>) {
        match written {
            Ok(()) => {
                if self.failing.swap(0, Ordering::Relaxed) > 0 {
                    log::info!("quotas: written to disk again");
                }
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if self.failing.fetch_add(1, Ordering::Relaxed) == 0 {
                    log::error!("quotas: cannot be written to disk and are kept in memory only: {error}");
                }
            }
        }
    }

    fn pause(&self) -> Duration {
        let doublings = self.failing.load(Ordering::Relaxed).min(MOST_DOUBLINGS);
        Duration::from_micros(self.interval.load(Ordering::Relaxed).saturating_mul(1 << doublings))
    }
}

impl Task for Keeper {
    fn name(&self) -> &str {
        "file of quotas"
    }

    fn run(self: Arc<Self>, mut stop: Stop) -> Running {
        Box::pin(async move {
            loop {
                let goes_on = stop.sleep(self.pause()).await;
                let keeper = Arc::clone(&self);
                // An error has been logged and counted, and the next time tries again.
                let _ = tokio::task::spawn_blocking(move || keeper.flush()).await;
                if !goes_on {
                    return;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Cycle, Demand, Limit, Rule, TimeZone, Unit};
    use crate::tasks::Supervisor;
    use tokio::runtime::Handle;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn limit(name: &str, cycle: Cycle) -> Limit {
        Limit::new(name.into(), Rule::Quota { count: 1_000, cycle, soft: false })
    }

    fn monthly() -> Limit {
        limit("plan free 1", Cycle::Calendar(Unit::Month, TimeZone("Europe/Berlin".into())))
    }

    fn take(memory: &Memory, limit: &Limit, key: &[u8], cost: u32) -> u64 {
        memory.take(now(), &[Demand { limit, key, cost, shadow: false }])[0].used
    }

    fn used(memory: &Memory, limit: &Limit, key: &[u8]) -> u64 {
        memory.peek(now(), &[Demand { limit, key, cost: 1, shadow: false }])[0].used
    }

    fn open(path: &Path) -> (Arc<Memory>, Keeper) {
        let memory = Arc::new(Memory::new(10_000));
        let keeper = Keeper::open(path, INTERVAL, Arc::clone(&memory)).unwrap();
        (memory, keeper)
    }

    #[test]
    fn what_was_flushed_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quotas");
        let (month, rolling) = (monthly(), limit("rolling", Cycle::Rolling(Duration::from_secs(86_400))));
        let (memory, keeper) = open(&path);
        for key in 0..100_u8 {
            take(&memory, &month, &[key], u32::from(key) + 1);
            take(&memory, &rolling, &[key], 3);
        }
        keeper.flush().unwrap();
        take(&memory, &month, &[7], 5);
        keeper.flush().unwrap();
        take(&memory, &month, &[8], 100);
        drop(keeper);
        // As after kill -9: what came after the last flush is gone, and no more.
        let (memory, _keeper) = open(&path);
        for key in 0..100_u8 {
            let expected = u64::from(key) + 1 + if key == 7 { 5 } else { 0 };
            assert_eq!((used(&memory, &month, &[key]), used(&memory, &rolling, &[key])), (expected, 3));
        }
        assert_eq!(used(&memory, &monthly(), &[200]), 0);
    }

    #[test]
    fn it_stays_small_however_often_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quotas");
        let month = monthly();
        let (memory, keeper) = open(&path);
        for _ in 0..500 {
            for key in 0..2_u8 {
                take(&memory, &month, &[key; 250], 1);
            }
            keeper.flush().unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 70_000);
        drop(keeper);
        let (memory, _keeper) = open(&path);
        assert_eq!((used(&memory, &month, &[0; 250]), used(&memory, &month, &[1; 250])), (500, 500));
    }

    #[test]
    fn a_reset_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quotas");
        let month = monthly();
        let (memory, keeper) = open(&path);
        take(&memory, &month, b"k", 9);
        keeper.flush().unwrap();
        memory.reset(&month, b"k");
        keeper.flush().unwrap();
        drop(keeper);
        assert_eq!(used(&open(&path).0, &month, b"k"), 0);
    }

    #[test]
    fn released_it_is_free_for_another_and_counting_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quotas");
        let month = monthly();
        let (memory, keeper) = open(&path);
        take(&memory, &month, b"k", 9);
        assert!(Keeper::open(&path, INTERVAL, Arc::new(Memory::new(100))).is_err());
        keeper.release().unwrap();
        let (other, _other) = open(&path);
        assert_eq!(used(&other, &month, b"k"), 9);
        assert_eq!(take(&memory, &month, b"k", 1), 10);
        keeper.flush().unwrap();
        keeper.take_back().unwrap_err();
        drop((other, _other));
        keeper.take_back().unwrap();
        drop(keeper);
        assert_eq!(used(&open(&path).0, &month, b"k"), 10, "what was counted meanwhile is written too");
    }

    #[test]
    fn while_the_disk_fails_counting_goes_on_and_nothing_is_lost_when_it_works_again() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let path = home.join("quotas");
        let month = monthly();
        let (memory, keeper) = open(&path);
        take(&memory, &month, b"k", 1);
        keeper.flush().unwrap();
        let away = folder.path().join("away");
        std::fs::rename(&home, &away).unwrap();
        // The open file still takes records; writing anew does not.
        for key in 0..1_200_u32 {
            take(&memory, &month, &[&key.to_le_bytes()[..], &[0; 60]].concat(), 1);
        }
        keeper.flush().unwrap();
        take(&memory, &month, b"k", 1);
        keeper.flush().unwrap_err();
        take(&memory, &month, b"k", 1);
        keeper.flush().unwrap_err();
        assert_eq!((keeper.failures(), keeper.pause()), (2, INTERVAL * 4));
        std::fs::rename(&away, &home).unwrap();
        keeper.flush().unwrap();
        assert_eq!((keeper.failures(), keeper.pause()), (2, INTERVAL));
        drop(keeper);
        let (memory, _keeper) = open(&path);
        assert_eq!((used(&memory, &month, b"k"), memory.keys()), (3, 1_201));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_task_writes_at_intervals_and_when_it_is_told_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quotas");
        let (memory, keeper) = open(&path);
        keeper.set_interval(Duration::from_millis(5));
        let keeper = Arc::new(keeper);
        let empty = std::fs::metadata(&path).unwrap().len();
        let supervisor = Supervisor::new(Handle::current());
        supervisor.adopt(&[Arc::clone(&keeper) as Arc<dyn Task>, Arc::new(Sweeper(Arc::clone(&memory)))]);
        take(&memory, &monthly(), b"k", 1);
        tokio::time::timeout(Duration::from_secs(20), async {
            while std::fs::metadata(&path).unwrap().len() == empty {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        keeper.set_interval(Duration::from_secs(3_600));
        take(&memory, &monthly(), b"k", 1);
        supervisor.stop().await;
        assert_eq!(supervisor.failures(), 0);
        drop((supervisor, keeper));
        assert_eq!(used(&open(&path).0, &monthly(), b"k"), 2);
    }
}
