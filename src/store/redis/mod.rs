//! Counters in Redis, for several nodes.
//!
//! A request's demands are decided by one script (`take.lua`) in one round trip, on the clock of the server. Nobody waits
//! longer than the time-out: the request path never connects, it only takes a link that is up. Each of the `pool` links
//! carries many requests at once; what is sent in the same tick goes out in one write. A link that fails five times more
//! often than it succeeds is taken out of service (that is the breaker), and its [`Task`] in the background probes, and
//! connects anew, after 250 ms to 5 s until it works again. When no link is up, calls fail at once.
//!
//! Keys are `PREFIX KIND : LIMIT 0xFF KEY`, with the hash tag of a cluster in the prefix, so that all demands of a request
//! are in one slot. Each has a life time, so idle counters vanish. A user needs, for keys with that prefix, the commands
//! `evalsha`, `eval`, `time`, `get`, `set`, `hgetall`, `hincrby`, `hdel`, `pexpire`; `role` with Sentinel; `cluster` with
//! Cluster. Redis 6 or newer.
//!
//! # Why redis-rs
//!
//! Both redis-rs and fred speak TLS, ACL, Sentinel and Cluster. redis-rs has several maintainers and a release every few
//! weeks; fred has one, and had none since early 2025. fred brings pools, policies for reconnecting and queues of its own,
//! which retry behind the caller's back, where a gateway must bound its wait and know what was sent; redis-rs has a
//! connection that is a plain value and fails when its socket does. Links, time-outs and the breaker are ours either way.

mod address;
mod connect;
pub mod fast;
mod link;
mod script;
#[cfg(test)]
mod tests;

use super::document;
use super::{Demand, Outcomes, memory};
use crate::tasks::Task;
use crate::value::Within;
use address::{Address, Topology};
use connect::Connector;
use link::Links;
use redis::Value;
use script::{Call, Edges};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Most requests that wait for Redis at a time.
const IN_FLIGHT: usize = 4096;
const TIMEOUT: Duration = Duration::from_millis(50);
const POOL: u16 = 2;
const PREFIX: &str = "tg:{tollgate}:";

/// Why Redis did not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No link is up: the breaker is open.
    Open,
    /// Too many requests wait already.
    Busy,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Lost,
    /// Redis answered with an error.
    Refused,
    /// Redis answered with something that cannot be.
    Garbled,
}

impl StoreError {
    /// All of them, in the order of [`Counters::errors`].
    pub const ALL: [StoreError; 6] = [
        StoreError::Open,
        StoreError::Busy,
        StoreError::Timeout,
        StoreError::Lost,
        StoreError::Refused,
        StoreError::Garbled,
    ];

    /// A word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            StoreError::Open => "open",
            StoreError::Busy => "busy",
            StoreError::Timeout => "timeout",
            StoreError::Lost => "lost",
            StoreError::Refused => "refused",
            StoreError::Garbled => "garbled",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreError::Open => "Redis is out of service",
            StoreError::Busy => "too many requests wait for Redis",
            StoreError::Timeout => "Redis did not answer in time",
            StoreError::Lost => "the connection to Redis broke",
            StoreError::Refused => "Redis answered with an error",
            StoreError::Garbled => "Redis answered with something unexpected",
        })
    }
}

impl std::error::Error for StoreError {}

/// What happened to calls since the store was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// All calls.
    pub calls: AtomicU64,
    /// Those that failed, in the order of [`StoreError::ALL`].
    pub errors: [AtomicU64; 6],
    /// How long those took that were sent to Redis, in microseconds, time-outs included.
    pub micros: AtomicU64,
    /// How often a link was taken out of service.
    pub opened: AtomicU64,
    /// How often a link was connected.
    pub connected: AtomicU64,
}

impl Counters {
    fn record(&self, started: Instant, error: Option<StoreError>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let failed = error.and_then(|error| {
            let place = StoreError::ALL.iter().position(|kind| *kind == error)?;
            self.errors.get(place)
        });
        if let Some(failed) = failed {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        if !matches!(error, Some(StoreError::Open | StoreError::Busy)) {
            let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// How often `error` was given.
    pub fn errors(&self, error: StoreError) -> u64 {
        let place = StoreError::ALL.iter().position(|kind| *kind == error);
        place.and_then(|place| self.errors.get(place)).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Counters in Redis.
pub struct RedisStore {
    links: Arc<Links>,
    tasks: Vec<Arc<dyn Task>>,
    permits: Semaphore,
    timeout: Duration,
    prefix: Box<[u8]>,
    edges: Edges,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("up", &self.up())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// A store that is not connected yet: its [`tasks`](Self::tasks) do that.
    ///
    /// # Errors
    ///
    /// What is wrong with the document, never with the password in it.
    pub fn new(spec: &document::Redis) -> Result<Self, String> {
        let address = Address::parse(spec.url.expose())?;
        let prefix = spec.prefix.as_deref().unwrap_or(PREFIX);
        if address.topology == Topology::Cluster && hash_tag(prefix).is_none() {
            return Err(
                "a cluster needs a `{…}` in the prefix, which keeps the counters of a request on one node\n\
                        help: write for example `prefix: \"tg:{tollgate}:\"`"
                    .to_owned(),
            );
        }
        let timeout = spec.timeout.map_or(TIMEOUT, |span| span.0);
        let pool = spec.pool.map_or(POOL, Within::get);
        let ca = spec.ca.as_ref().map(|path| read_ca(path)).transpose()?;
        let probe = script::probe(prefix.as_bytes());
        let connector = Connector::new(&address, ca, timeout)?;
        let (links, tasks) = Links::new(connector, pool, timeout, probe);
        let prefix = prefix.as_bytes().into();
        Ok(RedisStore {
            links,
            tasks,
            permits: Semaphore::new(IN_FLIGHT),
            timeout,
            prefix,
            edges: Edges::default(),
        })
    }

    /// What keeps the links up. The same each time.
    pub fn tasks(&self) -> &[Arc<dyn Task>] {
        &self.tasks
    }

    /// How many links are up; with none the breaker is open.
    pub fn up(&self) -> usize {
        self.links.up()
    }

    /// How many links there are.
    pub fn size(&self) -> usize {
        self.links.all().len()
    }

    /// What happened to calls.
    pub fn counters(&self) -> &Counters {
        self.links.counters()
    }

    /// Waits until a link is up, at most `time`; gives whether one is. For the start of a process.
    pub async fn ready(&self, time: Duration) -> bool {
        self.links.ready(time).await
    }

    /// Decides on all demands of a request: all are granted and counted, or none is. Shadow demands are counted when the
    /// others are granted and they have room.
    ///
    /// # Errors
    ///
    /// When Redis did not decide, after the time-out at the latest. What timed out may have been counted.
    pub async fn take(&self, demands: &[Demand<'_>]) -> Result<Outcomes, StoreError> {
        if demands.is_empty() {
            return Ok(Outcomes::new());
        }
        let call = Call::take(&self.prefix, demands, &self.edges, memory::now(), None);
        let answer = self.run(&call).await?;
        script::outcomes(demands, &answer)
    }

    /// [`take`](Self::take) at times of the caller's choice on this machine and on the server.
    #[cfg(test)]
    async fn take_at(&self, demands: &[Demand<'_>], here: u64, there: u64) -> Result<Outcomes, StoreError> {
        let call = Call::take(&self.prefix, demands, &self.edges, here, Some(there));
        let answer = self.run(&call).await?;
        script::outcomes(demands, &answer)
    }

    /// Runs a script within the time-out.
    async fn run(&self, call: &Call) -> Result<Value, StoreError> {
        let started = Instant::now();
        let result = self.try_run(call, started + self.timeout).await;
        self.counters().record(started, result.as_ref().err().copied());
        result
    }

    async fn try_run(&self, call: &Call, deadline: Instant) -> Result<Value, StoreError> {
        let _permit = self.permits.try_acquire().map_err(|_| StoreError::Busy)?;
        let (link, wire) = self.links.pick().ok_or(StoreError::Open)?;
        let mut connection = (*wire).clone();
        let asked = async {
            match connection.run(&call.by_hash()).await {
                Err(error) if script::is_unknown(&error) => connection.run(&call.by_text()).await,
                result => result,
            }
        };
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(value)) => {
                link.succeeded();
                Ok(value)
            }
            Ok(Err(error)) => Err(self.links.failed(link, &wire, &error)),
            Err(_) => {
                self.links.timed_out(link, &wire);
                Err(StoreError::Timeout)
            }
        }
    }
}

/// What Redis Cluster hashes instead of the whole key: the text in the first braces, if there is any.
fn hash_tag(prefix: &str) -> Option<&str> {
    let (_, rest) = prefix.split_once('{')?;
    rest.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
}

fn read_ca(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let wrong = |what: &dyn fmt::Display| format!("CA certificates `{}`: {what}", path.display());
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    if memchr::memmem::find(&pem, b"-----BEGIN CERTIFICATE-----").is_none() {
        return Err(wrong(&"there is no certificate in PEM in it"));
    }
    Ok(pem)
}
