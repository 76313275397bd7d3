//! Keys of an issuer, fetched: before the first token is looked at, then in the background, and once more when a token
//! names a key that is not there. Never for a request that a known key can decide.
//!
//! While the issuer cannot be reached, the last good keys are used up to `stale_max` after the last success; then nothing
//! can be known (503), which is not the client's fault (401).

use super::Waiting;
use super::flight::{Digest, digest};
use super::jwt::keys::KeySet;
use super::jwt::{Current, KeySource};
use crate::tasks::{Running, Stop, Task, jitter};
use crate::upstream::endpoint::{Call, Endpoint};
use crate::upstream::{Client, Limits, Resolver};
use arc_swap::ArcSwapOption;
use http::header::ACCEPT;
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Largest set of keys or discovery document, bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// The pause after the first failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Where an issuer describes itself (OpenID Connect Discovery 1.0 section 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Where keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this URL.
    Url(String),
    /// Where the issuer says, in the discovery document below its own URL.
    Issuer(String),
}

/// When keys are fetched, and how long they are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// From one success to the next fetch, give or take a tenth. At most half of `stale_max`.
    pub refresh: Duration,
    /// The shortest time between two fetches because of a key that is not there.
    pub cooldown: Duration,
    /// How long keys are good after they were last fetched.
    pub stale_max: Duration,
    /// How long one fetch may take, discovery included, and a request waits for one.
    pub timeout: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            refresh: Duration::from_secs(600),
            cooldown: Duration::from_secs(30),
            stale_max: Duration::from_secs(86_400),
            timeout: Duration::from_secs(5),
        }
    }
}

/// What has been fetched, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    fetches: AtomicU64,
    failures: AtomicU64,
    missing: AtomicU64,
    keys: AtomicU64,
    fetched: Mutex<Option<Instant>>,
}

impl Counters {
    /// Fetches that were begun. Discovery and keys together are one.
    pub fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// Fetches that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Fetches because of a key that was not there.
    pub fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// Keys that are known and can be used.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// How long ago keys were last fetched, if they were.
    pub fn age(&self) -> Option<Duration> {
        self.fetched.lock().map(|fetched| fetched.elapsed())
    }
}

impl Counters {
    fn know(&self, held: &Held) {
        self.keys.store(held.set.len() as u64, Ordering::Relaxed);
        *self.fetched.lock() = Some(held.fetched);
    }
}

/// The keys of one issuer, kept current.
pub struct Jwks(Arc<Keeper>);

/// Keeps the keys; runs in the background.
struct Keeper {
    name: String,
    place: Place,
    first: Endpoint,
    ca: Option<Arc<[u8]>>,
    client: Arc<Client>,
    resolver: Arc<Resolver>,
    schedule: Schedule,
    held: ArcSwapOption<Held>,
    /// Where discovery has found the keys.
    found: Mutex<Option<Arc<Endpoint>>>,
    plan: Mutex<Plan>,
    counters: Arc<Counters>,
}

/// The last good keys.
struct Held {
    set: Arc<KeySet>,
    generation: u64,
    content: Digest,
    fetched: Instant,
}

/// What comes next.
struct Plan {
    /// Closed when the fetch that is under way has ended.
    under_way: Option<watch::Receiver<()>>,
    /// When the next fetch is due.
    next: Instant,
    /// Failures in a row.
    failed: u32,
    /// When a key was last missed.
    missed: Option<Instant>,
    /// Whether discovery is due at the next fetch.
    discover: bool,
}

impl Jwks {
    /// Checks the place; fetches nothing. `ca` is PEM of the only authorities trusted instead of the system's.
    ///
    /// # Errors
    /// The URL or the CA bundle cannot be used; a part behind `"\nhelp: "` is the help line.
    pub fn new(
        place: Place,
        schedule: Schedule,
        ca: Option<Arc<[u8]>>,
        client: &Arc<Client>,
        resolver: &Arc<Resolver>,
    ) -> Result<Self, String> {
        let url = match &place {
            Place::Url(url) => url.clone(),
            Place::Issuer(issuer) if issuer.contains('?') => {
                return Err(format!(
                    "nothing can be discovered through `{issuer}`, because it has a query\nhelp: give the URL of the keys: `jwks: https://…`"
                ));
            }
            Place::Issuer(issuer) if !issuer.starts_with("https://") && !issuer.starts_with("http://") => {
                return Err(format!(
                    "nothing can be discovered through `{issuer}`, because it is no URL\nhelp: give the URL of the keys: `jwks: https://…`"
                ));
            }
            Place::Issuer(issuer) => format!("{}{WELL_KNOWN}", issuer.strip_suffix('/').unwrap_or(issuer)),
        };
        Ok(Jwks(Arc::new(Keeper {
            name: format!("keys from {url}"),
            first: Endpoint::new(&url, ca.clone(), client, resolver)?,
            place,
            ca,
            client: Arc::clone(client),
            resolver: Arc::clone(resolver),
            schedule: Schedule { refresh: schedule.refresh.min(schedule.stale_max / 2), ..schedule },
            held: ArcSwapOption::empty(),
            found: Mutex::new(None),
            plan: Mutex::new(Plan {
                under_way: None,
                next: Instant::now(),
                failed: 0,
                missed: None,
                discover: true,
            }),
            counters: Arc::default(),
        })))
    }

    /// Takes over what another one knows of the same place, so that a reload need not begin anew. Call it before
    /// anything is asked of this one.
    pub fn inherit(&self, previous: &Jwks) {
        let (now, before) = (&self.0, &previous.0);
        if now.place != before.place || now.ca != before.ca {
            return;
        }
        let Some(held) = before.held.load_full() else { return };
        let due = held.fetched + jitter(now.schedule.refresh);
        now.counters.know(&held);
        now.held.store(Some(held));
        now.found.lock().clone_from(&before.found.lock());
        let missed = before.plan.lock().missed;
        let mut plan = now.plan.lock();
        (plan.next, plan.missed) = (due, missed);
    }

    /// Whether what is fetched could be exchanged on its way: `http` to a host that is not this one.
    pub fn is_clear_text(&self) -> bool {
        self.0.first.is_clear_text()
    }

    /// Numbers for metrics.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Where the first request goes.
    pub fn url(&self) -> &str {
        self.0.first.url()
    }
}

impl KeySource for Jwks {
    fn generation(&self) -> Result<u64, &'static str> {
        match &*self.0.held.load() {
            Some(held) if self.0.is_good(held) => Ok(held.generation),
            held => Err(unusable(held.is_some())),
        }
    }

    fn current(&self) -> Current {
        match &*self.0.held.load() {
            Some(held) if self.0.is_good(held) => {
                Current::Keys { set: Arc::clone(&held.set), generation: held.generation }
            }
            held => Current::Unavailable(unusable(held.is_some())),
        }
    }

    fn missing(&self, _kid: &str) -> Option<Waiting<'_, ()>> {
        let waiting = self.0.fetch_missing()?;
        Some(Box::pin(async move {
            // Too late is as good as never: the caller looks at what is there.
            let _ = timeout(self.0.schedule.timeout, ended(waiting)).await;
        }))
    }

    fn tasks(&self) -> Vec<Arc<dyn Task>> {
        vec![Arc::clone(&self.0) as Arc<dyn Task>]
    }

    fn warm(&self, within: Duration) -> Waiting<'_, bool> {
        Box::pin(async move {
            let warmed = timeout(within, async {
                while self.generation().is_err() {
                    self.0.next_fetch().await;
                }
            });
            warmed.await.is_ok()
        })
    }
}

fn unusable(is_there: bool) -> &'static str {
    if is_there { "keys are older than stale_max" } else { "keys have not been fetched yet" }
}

/// Waits until the fetch has ended, however it did: then its sender is gone.
async fn ended(mut fetch: watch::Receiver<()>) {
    while fetch.changed().await.is_ok() {}
}

impl Task for Keeper {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Arc<Self>, mut stop: Stop) -> Running {
        Box::pin(async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.told() => return,
                    () = self.next_fetch() => {}
                }
            }
        })
    }
}

impl Keeper {
    fn is_good(&self, held: &Held) -> bool {
        held.fetched.elapsed() < self.schedule.stale_max
    }

    /// Waits until a fetch is due, and then until it has ended.
    async fn next_fetch(self: &Arc<Self>) {
        loop {
            let due = self.plan.lock().next;
            if due <= Instant::now() {
                break;
            }
            // A fetch in between may have changed what is due, so the plan is read again.
            tokio::time::sleep_until(due).await;
        }
        ended(self.fetch(true)).await;
    }

    /// Fetches for a token whose key is not there, unless that was done a moment ago.
    fn fetch_missing(self: &Arc<Self>) -> Option<watch::Receiver<()>> {
        {
            let mut plan = self.plan.lock();
            if let Some(under_way) = &plan.under_way {
                return Some(under_way.clone());
            }
            if plan.missed.is_some_and(|missed| missed.elapsed() < self.schedule.cooldown) {
                return None;
            }
            plan.missed = Some(Instant::now());
        }
        self.counters.missing.fetch_add(1, Ordering::Relaxed);
        Some(self.fetch(false))
    }

    /// Joins the fetch that is under way, or begins one, with discovery `anew` or when that is due. It goes on without
    /// those who wait for it.
    fn fetch(self: &Arc<Self>, anew: bool) -> watch::Receiver<()> {
        let (open, waiting) = watch::channel(());
        let discover = {
            let mut plan = self.plan.lock();
            if let Some(under_way) = &plan.under_way {
                return under_way.clone();
            }
            plan.under_way = Some(waiting.clone());
            std::mem::take(&mut plan.discover) || anew
        };
        self.counters.fetches.fetch_add(1, Ordering::Relaxed);
        // Not under the lock: a runtime that is shutting down drops what is spawned at once, and that takes the lock.
        let landing =
            Landing { keeper: Arc::clone(self), result: Err("the fetch broke down".to_owned()), open };
        tokio::spawn(async move {
            let mut landing = landing;
            let fetched = timeout(landing.keeper.schedule.timeout, landing.keeper.ask(discover)).await;
            landing.result = fetched
                .unwrap_or_else(|_| Err(format!("no answer within {:?}", landing.keeper.schedule.timeout)));
        });
        waiting
    }

    /// Fetches once. Changes nothing but the place that discovery has found.
    async fn ask(&self, discover: bool) -> Result<Fetched, String> {
        let body = match &self.place {
            Place::Url(_) => get(&self.first, self.schedule.timeout).await?,
            Place::Issuer(issuer) => {
                let place = self.discovered(issuer, discover).await?;
                get(&place, self.schedule.timeout).await.inspect_err(|_| self.plan.lock().discover = true)?
            }
        };
        let set = KeySet::from_jwks(&body)?;
        if set.is_empty() {
            return Err("there is no key in the answer that could be used".to_owned());
        }
        Ok(Fetched { set, content: content(&body) })
    }

    /// Where the keys are. What was found before is good enough when nobody answers now, but not when the answer is wrong.
    async fn discovered(&self, issuer: &str, anew: bool) -> Result<Arc<Endpoint>, String> {
        let known = self.found.lock().clone();
        if let (false, Some(known)) = (anew, &known) {
            return Ok(Arc::clone(known));
        }
        let document = match (get(&self.first, self.schedule.timeout / 2).await, known.clone()) {
            (Ok(document), _) => document,
            (Err(_), Some(known)) => return Ok(known),
            (Err(cause), None) => return Err(format!("discovery: {cause}")),
        };
        let url = keys_url(&document, issuer)?;
        if let Some(known) = known.filter(|known| known.url() == url) {
            return Ok(known);
        }
        let found = Endpoint::new(&url, self.ca.clone(), &self.client, &self.resolver)
            .map_err(|cause| format!("discovery: the `jwks_uri` cannot be used: {cause}"))?;
        Ok(Arc::clone(self.found.lock().insert(Arc::new(found))))
    }

    /// Takes the end of a fetch in.
    fn land(&self, result: Result<Fetched, String>, plan: &mut Plan) {
        match result {
            Ok(fetched) => {
                self.take(fetched);
                if plan.failed > 0 {
                    log::info!("{}: fetched again", self.name);
                }
                plan.failed = 0;
                plan.next = Instant::now() + jitter(self.schedule.refresh);
            }
            Err(cause) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                if plan.failed == 0 {
                    let keys = self.counters.keys();
                    log::warn!("{}: cannot be fetched: {cause}; keeping {keys} known keys", self.name);
                }
                let pause = FIRST_PAUSE.saturating_mul(1 << plan.failed.min(6)).min(LONGEST_PAUSE);
                plan.failed = plan.failed.saturating_add(1);
                plan.next = Instant::now() + jitter(pause);
            }
        }
    }

    fn take(&self, Fetched { set, content }: Fetched) {
        let before = self.held.load();
        let same = before.as_ref().filter(|before| before.content == content);
        let (set, generation) = match (same, &*before) {
            (Some(same), _) => (Arc::clone(&same.set), same.generation),
            (None, before) => (Arc::new(set), before.as_ref().map_or(1, |before| before.generation + 1)),
        };
        if same.is_none() {
            log::info!("{}: {} keys", self.name, set.len());
        }
        let held = Held { set, generation, content, fetched: Instant::now() };
        self.counters.know(&held);
        self.held.store(Some(Arc::new(held)));
    }
}

struct Fetched {
    set: KeySet,
    content: Digest,
}

/// Ends a fetch, even one that panicked: tells the keeper first and those who wait by closing the channel after.
struct Landing {
    keeper: Arc<Keeper>,
    result: Result<Fetched, String>,
    #[expect(dead_code, reason = "dropping it is its use")]
    open: watch::Sender<()>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut plan = self.keeper.plan.lock();
        plan.under_way = None;
        let result = std::mem::replace(&mut self.result, Err(String::new()));
        self.keeper.land(result, &mut plan);
    }
}

async fn get(endpoint: &Endpoint, within: Duration) -> Result<bytes::Bytes, String> {
    let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
    let limits = Limits { total: within, max_body: MAX_ANSWER };
    let answer = endpoint.call(&Call::get(vec![(ACCEPT, accept)]), limits).await;
    let answer = answer.map_err(|error| format!("`{}`: {error}", endpoint.url()))?;
    if answer.status != StatusCode::OK {
        return Err(format!("`{}` answered {}", endpoint.url(), answer.status.as_u16()));
    }
    Ok(answer.body)
}

/// What the discovery document says of the keys (OpenID Connect Discovery 1.0 sections 4.2 and 4.3).
fn keys_url(document: &[u8], issuer: &str) -> Result<String, String> {
    let document: Value =
        serde_json::from_slice(document).map_err(|_| "discovery: the answer is not JSON".to_owned())?;
    let member = |name| document.get(name).and_then(Value::as_str);
    if member("issuer") != Some(issuer) {
        return Err("discovery: the answer is of another issuer".to_owned());
    }
    let url = member("jwks_uri").ok_or("discovery: the answer has no `jwks_uri`")?;
    if !url.starts_with("https://") && !issuer.starts_with("http://") {
        return Err("discovery: the `jwks_uri` is not https".to_owned());
    }
    Ok(url.to_owned())
}

/// Tells sets of keys apart, but not by the order or layout that they were sent in.
fn content(body: &[u8]) -> Digest {
    let set: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut keys: Vec<String> = match set.get("keys").and_then(Value::as_array) {
        Some(keys) => keys.iter().map(Value::to_string).collect(),
        None => vec![set.to_string()],
    };
    keys.sort_unstable();
    digest(keys.iter().map(String::as_bytes))
}

#[cfg(test)]
mod tests;
