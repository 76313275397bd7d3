//! Links to Redis, and what keeps them up.
//!
//! A link is in service or it is not. Requests use those that are in service, in turn, and report how it went. The link's
//! [`Keeper`] does the rest in the background: it takes a link that was taken out of service, asks it something, connects
//! it anew if that did not help, and puts it back into service.

use super::connect::{Connector, Wire};
use super::{Counters, StoreError};
use crate::tasks::{Running, Stop, Task, jitter};
use arc_swap::ArcSwapOption;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// So many more failures than successes take a link out of service.
const FAILURES: u32 = 5;
/// The pause before the second probe; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often sentinels are asked whether the master is still the same.
const SENTINELS: Duration = Duration::from_secs(5);
/// Seconds between two errors of requests in the log.
const TELL: u64 = 10;

/// All links of a store.
pub(super) struct Links {
    links: Vec<Link>,
    next: AtomicUsize,
    connector: Connector,
    timeout: Duration,
    probe: Cmd,
    counters: Counters,
    /// Woken when a link comes into service.
    came_up: Notify,
    made: Instant,
    /// When an error was last logged, in seconds since `made` and one; zero when never.
    told: AtomicU64,
}

/// One link.
#[derive(Default)]
pub(super) struct Link {
    wire: ArcSwapOption<Wire>,
    in_service: AtomicBool,
    failures: AtomicU32,
    /// Wakes the keeper when the link went out of service.
    fell: Notify,
}

impl Link {
    /// A request was answered.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            let _ = self
                .failures
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        }
    }

    fn wire(&self) -> Option<Arc<Wire>> {
        if self.in_service.load(Ordering::Acquire) { self.wire.load_full() } else { None }
    }
}

impl Links {
    /// So many links, none of them in service, and their keepers.
    pub fn new(
        connector: Connector,
        pool: u16,
        timeout: Duration,
        probe: Cmd,
    ) -> (Arc<Self>, Vec<Arc<dyn Task>>) {
        let links = Arc::new(Links {
            links: (0..pool).map(|_| Link::default()).collect(),
            next: AtomicUsize::new(0),
            connector,
            timeout,
            probe,
            counters: Counters::default(),
            came_up: Notify::new(),
            made: Instant::now(),
            told: AtomicU64::new(0),
        });
        let keeper = |index| {
            let name = format!("redis connection {}", index + 1);
            Arc::new(Keeper { links: Arc::clone(&links), index, name }) as Arc<dyn Task>
        };
        let tasks = (0..usize::from(pool)).map(keeper).collect();
        (links, tasks)
    }

    pub fn all(&self) -> &[Link] {
        &self.links
    }

    pub fn up(&self) -> usize {
        self.links.iter().filter(|link| link.in_service.load(Ordering::Relaxed)).count()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The next link in service.
    pub fn pick(&self) -> Option<(&Link, Arc<Wire>)> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.links.len().max(1);
        let (before, after) = self.links.split_at_checked(first)?;
        after.iter().chain(before).find_map(|link| Some((link, link.wire()?)))
    }

    pub async fn ready(&self, time: Duration) -> bool {
        let up = async {
            loop {
                let mut came_up = std::pin::pin!(self.came_up.notified());
                came_up.as_mut().enable();
                if self.up() > 0 {
                    return;
                }
                came_up.await;
            }
        };
        tokio::time::timeout(time, up).await.is_ok()
    }

    /// A request was not answered in time.
    pub fn timed_out(&self, link: &Link, wire: &Arc<Wire>) {
        self.count_failure(link, wire);
    }

    /// A request was answered with an error, or not at all.
    pub fn failed(&self, link: &Link, wire: &Arc<Wire>, error: &RedisError) -> StoreError {
        match blame(error) {
            Blame::Request => {
                self.tell(error);
                return StoreError::Refused;
            }
            Blame::Server => self.count_failure(link, wire),
            Blame::Connection => self.take_out(link, wire, true),
        }
        match error.kind() {
            // The cluster's connection has a timer of its own.
            ErrorKind::Io if error.is_timeout() => StoreError::Timeout,
            ErrorKind::Io => StoreError::Lost,
            _ => StoreError::Refused,
        }
    }

    /// Logs an error that a request has met; not each, for there may be thousands in a second.
    fn tell(&self, error: &RedisError) {
        // From one on: zero says that nothing was logged yet.
        let now = self.made.elapsed().as_secs() + 1;
        let last = self.told.load(Ordering::Relaxed);
        let due = last == 0 || now >= last + TELL;
        if due && self.told.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            log::warn!("redis refuses a request: {error}");
        }
    }

    fn count_failure(&self, link: &Link, wire: &Arc<Wire>) {
        if link.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.take_out(link, wire, false);
        }
    }

    /// Takes a link out of service, unless it has a new connection since.
    fn take_out(&self, link: &Link, wire: &Arc<Wire>, broken: bool) {
        if !link.wire.load().as_ref().is_some_and(|present| Arc::ptr_eq(present, wire)) {
            return;
        }
        if broken {
            link.wire.store(None);
        }
        if link.in_service.swap(false, Ordering::AcqRel) {
            self.counters.opened.fetch_add(1, Ordering::Relaxed);
            link.fell.notify_one();
        }
    }

    fn put_in(&self, link: &Link) {
        link.failures.store(0, Ordering::Relaxed);
        link.in_service.store(true, Ordering::Release);
        self.came_up.notify_waiters();
    }

    /// Makes a link work: by the connection it has, or by a new one.
    async fn restore(&self, link: &Link) -> Result<(), String> {
        if let Some(wire) = link.wire.load_full() {
            match self.ask(&wire).await {
                Ok(()) => return Ok(()),
                // Whatever it is that does not answer, the next attempt begins anew.
                Err(_) => link.wire.store(None),
            }
        }
        let wire = self.connector.connect().await?;
        self.counters.connected.fetch_add(1, Ordering::Relaxed);
        self.ask(&wire).await?;
        link.wire.store(Some(Arc::new(wire)));
        Ok(())
    }

    /// Asks for what requests ask for, and no longer than they would wait.
    async fn ask(&self, wire: &Wire) -> Result<(), String> {
        let mut wire = wire.clone();
        let asked = tokio::time::timeout(self.timeout, wire.run(&self.probe)).await;
        let answer = asked.map_err(|_| StoreError::Timeout.to_string())?;
        answer.map(|_| ()).map_err(|error| error.to_string())
    }
}

/// Who is to blame for an error.
enum Blame {
    /// This request alone: a counter that is no counter.
    Request,
    /// The server, which may be able to go on in a moment.
    Server,
    /// The connection, or whom it leads to: another is needed.
    Connection,
}

fn blame(error: &RedisError) -> Blame {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => Blame::Connection,
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::ExecAbort) => Blame::Request,
        // `WRONGTYPE` is about a key; `OOM`, `MISCONF`, `NOAUTH`, `BUSY` and others are about the server.
        ErrorKind::Extension if error.code() == Some("WRONGTYPE") => Blame::Request,
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed if !error.is_timeout() => {
            Blame::Connection
        }
        _ => Blame::Server,
    }
}

/// Keeps one link in service.
struct Keeper {
    links: Arc<Links>,
    index: usize,
    name: String,
}

impl Task for Keeper {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Arc<Self>, mut stop: Stop) -> Running {
        Box::pin(async move {
            let Some(link) = self.links.links.get(self.index) else { return stop.told().await };
            while self.bring_up(link, &mut stop).await && self.watch(link, &mut stop).await {}
            // Nobody looks after it any more.
            link.in_service.store(false, Ordering::Release);
            link.wire.store(None);
        })
    }
}

impl Keeper {
    /// Works on the link until it is in service; `false` when told to stop.
    async fn bring_up(&self, link: &Link, stop: &mut Stop) -> bool {
        let (since, mut pause, mut told) = (Instant::now(), FIRST_PAUSE, false);
        loop {
            let restored = tokio::select! {
                biased;
                () = stop.told() => return false,
                restored = self.links.restore(link) => restored,
            };
            match restored {
                Ok(()) => break,
                Err(error) if !told => {
                    told = true;
                    log::warn!("{}: {error}; trying again", self.name);
                }
                Err(error) => log::debug!("{}: {error}", self.name),
            }
            if !stop.sleep(jitter(pause)).await {
                return false;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.links.put_in(link);
        if told {
            log::info!("{}: works again after {:.1?}", self.name, since.elapsed());
        }
        true
    }

    /// Waits until the link is out of service; `false` when told to stop.
    async fn watch(&self, link: &Link, stop: &mut Stop) -> bool {
        loop {
            tokio::select! {
                biased;
                () = stop.told() => return false,
                () = link.fell.notified() => {}
                () = tokio::time::sleep(jitter(SENTINELS)), if self.links.connector.asks_sentinels() => {
                    self.look_for_another_master(link).await;
                }
            }
            if !link.in_service.load(Ordering::Acquire) {
                return true;
            }
        }
    }

    /// A master that was cut off goes on answering while the sentinels have long made another.
    async fn look_for_another_master(&self, link: &Link) {
        if let Some(wire) = link.wire()
            && self.links.connector.has_moved(&wire).await
        {
            log::info!("{}: the sentinels have another master", self.name);
            self.links.take_out(link, &wire, true);
        }
    }
}
