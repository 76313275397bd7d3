//! Where requests go: an [`Upstream`] is a set of targets, the policy that chooses among them, and the background
//! tasks that keep both current.
//!
//! A pick reads one immutable `Members` behind an `ArcSwap`. Everything that changes who can be chosen (an address
//! appears, a weight is set, a check fails) builds a new one, which is rare; so a pick neither locks nor allocates.

mod balance;
mod breaker;
mod budget;
mod checks;
pub mod client;
mod conversation;
mod dial;
mod discovery;
pub mod document;
pub mod endpoint;
mod ewma;
mod grpc;
mod health;
pub mod http1;
pub mod http2;
mod members;
mod offer;
mod outlier;
mod peer;
mod pool;
mod resolver;
mod revival;
pub mod spec;
mod states;
mod status;
mod sticky;
mod target;
mod tls;
#[cfg(test)]
mod tests;
mod window;

pub use breaker::{Breaker, Phase};
pub use budget::{Budget, Spent};
pub use client::{Answer, Client, ClientError, Limits};
pub use conversation::{Conversation, Event, Fault, Framing, Outgoing, Part};
pub use dial::Unreached;
pub use offer::Offer;
pub use pool::Pool;
pub use resolver::Resolver;
pub use spec::UpstreamSpec;
pub use status::{TargetStatus, UpstreamStatus};
pub use target::{Lease, Place, Target, TargetId};

use crate::tasks::Task;
use crate::value::Name;
use arc_swap::ArcSwap;
use discovery::{Discovery, Known, Watched};
use health::HealthChecks;
use members::{Member, Members};
use parking_lot::Mutex;
use peer::Blueprint;
use revival::Revival;
use spec::{Address, Probe, StickySpec};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use sticky::Mark;
use target::{Gate, host_header};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How often a pick tries again when others took the last free place of the target it chose.
const RACES: usize = 3;

/// A named set of targets. Made by a snapshot, kept over a reload when its spec is unchanged.
pub struct Upstream {
    spec: UpstreamSpec,
    blueprint: Blueprint,
    resolver: Arc<Resolver>,
    watched: Vec<Arc<Watched>>,
    members: ArcSwap<Members>,
    /// Guards the making of a new `members`; holds the weights set by hand, by label.
    weights: Mutex<HashMap<Arc<str>, u32>>,
    gate: Gate,
    breaker: Option<Arc<Breaker>>,
    budget: Arc<Budget>,
    /// Tells [`Revival`] that there is something to look after.
    revive: Arc<Notify>,
    /// Ejections of its targets since the start.
    ejections: AtomicU64,
    membership: watch::Sender<()>,
    progress: watch::Sender<()>,
    health_changes: AtomicU64,
    tasks: Vec<Arc<dyn Task>>,
}

/// Why no target was chosen. Each is answered with 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// There is nothing to choose from: no address is known, or every target is drained.
    NoTargets,
    /// Active checks have found every target unhealthy.
    NoneHealthy,
    /// Every target, or the upstream as a whole, has as many requests under way as it may.
    Saturated,
    /// The circuit breaker is open; after this time it may let somebody through.
    Broken(Duration),
}

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PickError::NoTargets => "no target is known or every one is drained",
            PickError::NoneHealthy => "every target is unhealthy",
            PickError::Saturated => "every target has as many requests as it may",
            PickError::Broken(_) => "the circuit breaker is open",
        })
    }
}

impl std::error::Error for PickError {}

/// Where there shall be a target.
struct Wanted {
    place: Place,
    /// Under which name it was found.
    name: Option<Arc<str>>,
    weight: u32,
    backup: bool,
}

impl Upstream {
    /// Checks the spec and makes the upstream. Does no I/O and starts nothing: literal addresses can be picked at
    /// once, names when [`Upstream::tasks`] run. When `previous`, the upstream of this name before a reload, was made
    /// from an equal spec, it is returned as it is; else targets that are reached and checked as before are taken over
    /// from it with all that is known about them, and so are names' addresses.
    ///
    /// # Errors
    /// What is wrong with the spec, in a line for the operator; a part behind `"\nhelp: "` is the help line.
    pub fn new(
        spec: UpstreamSpec,
        resolver: &Arc<Resolver>,
        client: &Arc<Client>,
        previous: Option<&Arc<Upstream>>,
    ) -> Result<Arc<Self>, String> {
        if let Some(same) = previous.filter(|previous| previous.is_made_from(&spec, resolver)) {
            return Ok(Arc::clone(same));
        }
        let previous = previous.map(Arc::as_ref);
        checks::check(&spec)?;
        let blueprint = Blueprint::new(&spec)?;
        let watched: Vec<_> =
            spec.targets.iter().filter_map(|target| watch_name(&target.address, previous)).collect();
        let inherited = previous.filter(|previous| previous.makes_same_targets(&spec));
        Ok(Arc::new_cyclic(|this: &Weak<Upstream>| {
            let mut tasks: Vec<Arc<dyn Task>> = Vec::new();
            if !watched.is_empty() {
                tasks.push(Arc::new(Discovery::new(this, spec.name.as_str())));
            }
            if spec.health.probe != Probe::None {
                tasks.push(Arc::new(HealthChecks::new(this, spec.name.as_str(), client)));
            }
            let revive = Arc::new(Notify::new());
            if spec.health.passive.is_some() || !spec.slow_start.is_zero() {
                tasks.push(Arc::new(Revival::new(this, spec.name.as_str(), &revive)));
            }
            let upstream = Upstream {
                members: ArcSwap::from_pointee(Members::new(Vec::new(), &spec, None)),
                weights: Mutex::default(),
                gate: previous.map_or_else(Gate::new, |previous| previous.gate.clone()),
                breaker: breaker(&spec, previous),
                budget: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.budget)),
                ejections: AtomicU64::new(previous.map_or(0, Upstream::ejections)),
                revive,
                membership: watch::Sender::new(()),
                progress: watch::Sender::new(()),
                health_changes: AtomicU64::new(previous.map_or(0, Upstream::health_changes)),
                resolver: Arc::clone(resolver),
                spec,
                blueprint,
                watched,
                tasks,
            };
            let known = inherited.map(|previous| previous.members.load_full());
            upstream.rebuild(known.as_deref().map_or(&[], Members::all));
            upstream
        }))
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.spec.name
    }

    /// What it was made from.
    pub fn spec(&self) -> &UpstreamSpec {
        &self.spec
    }

    /// Whether connections to its targets are encrypted.
    pub fn is_tls(&self) -> bool {
        self.blueprint.is_tls()
    }

    /// What must run in the background for it, for [`crate::tasks::Supervisor::adopt`]. Always the same `Arc`s.
    pub fn tasks(&self) -> &[Arc<dyn Task>] {
        &self.tasks
    }

    /// Chooses a target for one attempt. `key` decides under [`spec::Balance::Hash`] and [`spec::Balance::StickyCookie`] and
    /// is ignored otherwise; without one, they fall back to round robin. Targets in `tried` are avoided while there are
    /// others.
    ///
    /// # Errors
    /// See [`PickError`].
    pub fn pick(&self, key: Option<&[u8]>, tried: &[TargetId]) -> Result<Lease, PickError> {
        let members = self.members.load();
        if members.ready_len() == 0 {
            return Err(nothing_ready(&members));
        }
        let ticket = match &self.breaker {
            None => None,
            Some(breaker) => breaker.admit().map_err(PickError::Broken)?,
        };
        let pool = &self.spec.pool;
        let mut pass = None;
        if pool.max > 0 {
            pass = Some(self.gate.enter(pool.max).ok_or(PickError::Saturated)?);
        }
        for _ in 0..RACES {
            let room = |target: &Target| target.has_room(pool.per_target);
            let fresh = |target: &Target| room(target) && !tried.contains(&target.id());
            let chosen = balance::choose(self.spec.balance, &members, key, &fresh, !tried.is_empty());
            let chosen = match chosen {
                None if !tried.is_empty() => balance::choose(self.spec.balance, &members, key, &room, true),
                chosen => chosen,
            };
            match Lease::take(&chosen.ok_or(PickError::Saturated)?.target, pool.per_target, pass) {
                Ok(mut lease) => {
                    lease.set_ticket(ticket);
                    return Ok(lease);
                }
                Err(unused) => pass = unused,
            }
        }
        Err(PickError::Saturated)
    }

    /// Whether a target can be chosen that is not among these.
    pub fn has_other(&self, tried: &[TargetId]) -> bool {
        self.members.load().ready_from(0).any(|member| !tried.contains(&member.target.id()))
    }

    /// Whether at least one target can be chosen.
    pub fn is_healthy(&self) -> bool {
        self.members.load().ready_len() > 0
    }

    /// Whether every name has been looked up and every target checked at least once.
    pub fn first_check_done(&self) -> bool {
        self.watched.iter().all(|watched| watched.is_tried())
            && (self.spec.health.probe == Probe::None
                || self.members.load().all().iter().all(|member| member.target.is_checked()))
    }

    /// Waits, after its tasks have been started, until [`Upstream::first_check_done`], at most `within`. Returns
    /// whether it is.
    pub async fn warm(&self, within: Duration) -> bool {
        let mut progress = self.progress.subscribe();
        let done = async {
            while !self.first_check_done() {
                if progress.changed().await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(within, done).await;
        self.first_check_done()
    }

    /// Every target, drained and unhealthy ones included, in the order of the configuration.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.members.load().all().iter().map(|member| Arc::clone(&member.target)).collect()
    }

    fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Changes of health of its targets since the start.
    pub fn health_changes(&self) -> u64 {
        self.health_changes.load(Ordering::Relaxed)
    }

    /// Its circuit breaker, if it has one.
    pub fn breaker(&self) -> Option<&Arc<Breaker>> {
        self.breaker.as_ref()
    }

    /// What limits its retries.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The cookie that keeps clients with their target, if there is one.
    pub fn sticky(&self) -> Option<&StickySpec> {
        self.spec.sticky.as_ref()
    }

    /// Failed look-ups of its names since the start.
    pub fn dns_failures(&self) -> u64 {
        self.watched.iter().map(|watched| watched.failures()).sum()
    }

    fn watched(&self) -> &[Arc<Watched>] {
        &self.watched
    }

    fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }

    /// Tells of changes of the membership.
    fn membership(&self) -> watch::Receiver<()> {
        self.membership.subscribe()
    }

    fn made_progress(&self) {
        self.progress.send_replace(());
    }

    /// Makes `members` anew from the spec and the names' addresses. Targets that are there already, or in
    /// `inherited`, are kept as they are.
    fn rebuild(&self, inherited: &[Member]) {
        let weights = self.weights.lock();
        let old = self.members.load_full();
        let mut all: Vec<Member> = Vec::new();
        for Wanted { place, name, weight, backup } in self.wanted() {
            let is_it =
                |member: &Member| *member.target.place() == place && member.target.name() == name.as_ref();
            if let Some(twice) = all.iter_mut().find(|member| is_it(member)) {
                twice.weight = twice.weight.saturating_add(weight);
                continue;
            }
            let target = match old.all().iter().chain(inherited).find(|member| is_it(member)) {
                Some(member) => Arc::clone(&member.target),
                None => match self.make(&place, name) {
                    Ok(target) => {
                        if !old.all().is_empty() || !inherited.is_empty() {
                            target.start_slowly();
                        }
                        Arc::new(target)
                    }
                    Err(cause) => {
                        log::error!("upstream `{}`: target {place} is left out: {cause}", self.spec.name);
                        continue;
                    }
                },
            };
            let ramp = self.ramp(&target);
            all.push(Member { target, weight, ramp, backup });
        }
        for member in &mut all {
            member.weight = weights.get(member.target.label()).copied().unwrap_or(member.weight);
        }
        let made = Members::new(all, &self.spec, Some(&old));
        self.announce_panic(&old, &made);
        self.members.store(Arc::new(made));
    }

    /// Where there shall be targets.
    fn wanted(&self) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for target in &self.spec.targets {
            let (weight, backup) = (target.weight, target.backup);
            match &target.address {
                Address::Ip(address) => {
                    wanted.push(Wanted { place: Place::Inet(*address), name: None, weight, backup });
                }
                Address::Unix(path) => {
                    wanted.push(Wanted {
                        place: Place::Unix(path.as_path().into()),
                        name: None,
                        weight,
                        backup,
                    });
                }
                Address::Name { host, port } => {
                    let watched =
                        self.watched.iter().find(|watched| watched.host == *host && watched.port == *port);
                    let addresses = watched.map(|watched| watched.addresses()).unwrap_or_default();
                    wanted.extend(addresses.into_iter().map(|address| Wanted {
                        place: Place::Inet(address),
                        name: Some(Arc::clone(host)),
                        weight,
                        backup,
                    }));
                }
            }
        }
        wanted
    }

    fn make(&self, place: &Place, name: Option<Arc<str>>) -> Result<Target, String> {
        let peer = self.blueprint.peer(place, name.as_deref())?;
        let host = host_header(&self.spec.host, place, name.as_deref(), self.is_tls())?;
        let pool = Pool::new(self.blueprint.dial(place, name.as_deref())?, self.spec.pool.idle);
        let mark = self.spec.sticky.as_ref().map(|sticky| Mark::new(sticky, place, name.as_deref()));
        Ok(Target::new(place.clone(), name, peer, host, pool, mark))
    }

    fn is_made_from(&self, spec: &UpstreamSpec, resolver: &Arc<Resolver>) -> bool {
        self.spec == *spec && Arc::ptr_eq(&self.resolver, resolver)
    }

    /// Whether targets of an upstream with this spec would be reached and checked exactly as ours.
    fn makes_same_targets(&self, spec: &UpstreamSpec) -> bool {
        let same = |one: &UpstreamSpec| (one.protocol, one.pool.idle, one.connect);
        same(&self.spec) == same(spec)
            && self.spec.tls == spec.tls
            && self.spec.host == spec.host
            && self.spec.health == spec.health
            && self.spec.sticky == spec.sticky
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.spec.name).finish_non_exhaustive()
    }
}

fn watch_name(address: &Address, previous: Option<&Upstream>) -> Option<Arc<Watched>> {
    let Address::Name { host, port } = address else { return None };
    let before = previous.and_then(|previous| {
        previous.watched.iter().find(|watched| watched.host == *host && watched.port == *port)
    });
    let known = before.map_or_else(Known::default, |watched| watched.known());
    Some(Arc::new(Watched::new(Arc::clone(host), *port, known)))
}

/// The breaker, with what it has learnt if its rules are the same.
fn breaker(spec: &UpstreamSpec, previous: Option<&Upstream>) -> Option<Arc<Breaker>> {
    let rules = spec.breaker?;
    let known = previous.and_then(|previous| previous.breaker.clone());
    let same = known.filter(|known| *known.spec() == rules);
    Some(same.unwrap_or_else(|| Breaker::new(spec.name.clone(), rules)))
}

fn nothing_ready(members: &Members) -> PickError {
    if members.all().iter().any(|member| member.weight > 0) {
        PickError::NoneHealthy
    } else {
        PickError::NoTargets
    }
}
