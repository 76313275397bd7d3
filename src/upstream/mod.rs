//! Where requests go: an [`Upstream`] is a set of targets, the policy that chooses among them, and the background
//! tasks that keep both current.
//!
//! A pick reads one immutable `Members` behind an `ArcSwap`. Everything that changes who can be chosen (an address
//! appears, a weight is set, a check fails) builds a new one, which is rare; so a pick neither locks nor allocates.

mod balance;
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
mod peer;
mod pool;
mod resolver;
pub mod spec;
mod status;
mod target;
mod tls;
#[cfg(test)]
mod tests;

pub use client::{Answer, Client, ClientError, Limits};
pub use conversation::{Conversation, Event, Fault, Framing, Outgoing, Part};
pub use dial::Unreached;
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
use spec::{Address, HostRewrite, Probe};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use target::{Gate, host_header};
use tokio::sync::watch;

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
}

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PickError::NoTargets => "no target is known or every one is drained",
            PickError::NoneHealthy => "every target is unhealthy",
            PickError::Saturated => "every target has as many requests as it may",
        })
    }
}

impl std::error::Error for PickError {}

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
        check(&spec)?;
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
            let upstream = Upstream {
                members: ArcSwap::from_pointee(Members::new(Vec::new(), spec.balance, None)),
                weights: Mutex::default(),
                gate: previous.map_or_else(Gate::new, |previous| previous.gate.clone()),
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

    /// Chooses a target for one attempt. `key` decides under [`spec::Balance::Hash`] and is ignored otherwise; without
    /// one, hashing falls back to round robin. Targets in `tried` are avoided while there are others.
    ///
    /// # Errors
    /// See [`PickError`].
    pub fn pick(&self, key: Option<&[u8]>, tried: &[TargetId]) -> Result<Lease, PickError> {
        let members = self.members.load();
        if members.ready_len() == 0 {
            return Err(nothing_ready(&members));
        }
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
                Ok(lease) => return Ok(lease),
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

    /// Gives the targets at `label` (an address as [`Target::label`] prints it) another weight until the next reload
    /// that changes the upstream; 0 drains. Returns whether there is such a target.
    pub fn set_weight(&self, label: &str, weight: u32) -> bool {
        let known = self.targets().into_iter().find(|target| &**target.label() == label);
        let Some(target) = known else { return false };
        self.weights.lock().insert(Arc::clone(target.label()), weight);
        self.members_changed();
        true
    }

    /// Every target, drained and unhealthy ones included, in the order of the configuration.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.members.load().all().iter().map(|member| Arc::clone(&member.target)).collect()
    }

    /// Every target with its present weight.
    pub fn weighted_targets(&self) -> Vec<(Arc<Target>, u32)> {
        self.members.load().all().iter().map(|member| (Arc::clone(&member.target), member.weight)).collect()
    }

    /// Changes of health of its targets since the start.
    pub fn health_changes(&self) -> u64 {
        self.health_changes.load(Ordering::Relaxed)
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

    fn members_changed(&self) {
        self.rebuild(&[]);
        self.membership.send_replace(());
    }

    fn health_changed(&self) {
        self.health_changes.fetch_add(1, Ordering::Relaxed);
        self.rebuild(&[]);
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
        for (place, name, weight) in self.wanted() {
            let is_it =
                |member: &Member| *member.target.place() == place && member.target.name() == name.as_ref();
            if let Some(twice) = all.iter_mut().find(|member| is_it(member)) {
                twice.weight = twice.weight.saturating_add(weight);
                continue;
            }
            let target = match old.all().iter().chain(inherited).find(|member| is_it(member)) {
                Some(member) => Arc::clone(&member.target),
                None => match self.make(&place, name) {
                    Ok(target) => Arc::new(target),
                    Err(cause) => {
                        log::error!("upstream `{}`: target {place} is left out: {cause}", self.spec.name);
                        continue;
                    }
                },
            };
            all.push(Member { target, weight });
        }
        for member in &mut all {
            member.weight = weights.get(member.target.label()).copied().unwrap_or(member.weight);
        }
        self.members.store(Arc::new(Members::new(all, self.spec.balance, Some(&old))));
    }

    /// Where there shall be a target, under which name, with which weight.
    fn wanted(&self) -> Vec<(Place, Option<Arc<str>>, u32)> {
        let mut wanted = Vec::new();
        for target in &self.spec.targets {
            match &target.address {
                Address::Ip(address) => wanted.push((Place::Inet(*address), None, target.weight)),
                Address::Unix(path) => wanted.push((Place::Unix(path.as_path().into()), None, target.weight)),
                Address::Name { host, port } => {
                    let watched =
                        self.watched.iter().find(|watched| watched.host == *host && watched.port == *port);
                    let addresses = watched.map(|watched| watched.addresses()).unwrap_or_default();
                    let place = |address| (Place::Inet(address), Some(Arc::clone(host)), target.weight);
                    wanted.extend(addresses.into_iter().map(place));
                }
            }
        }
        wanted
    }

    fn make(&self, place: &Place, name: Option<Arc<str>>) -> Result<Target, String> {
        let peer = self.blueprint.peer(place, name.as_deref())?;
        let host = host_header(&self.spec.host, place, name.as_deref(), self.is_tls())?;
        let pool = Pool::new(self.blueprint.dial(place, name.as_deref())?, self.spec.pool.idle);
        Ok(Target::new(place.clone(), name, peer, host, pool))
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

/// What can be told before anything is built.
fn check(spec: &UpstreamSpec) -> Result<(), String> {
    if spec.targets.is_empty() {
        return Err("no targets\nhelp: write for example `targets: [\"127.0.0.1:3000\"]`".to_owned());
    }
    if spec.health.probe != Probe::None {
        if spec.health.every.is_zero() || spec.health.timeout.is_zero() {
            return Err("`every` and `timeout` of a health check must be longer than 0s".to_owned());
        }
        if spec.health.up == 0 || spec.health.down == 0 {
            return Err("`up` and `down` of a health check must be at least 1".to_owned());
        }
    }
    if let HostRewrite::Literal(host) = &spec.host
        && host.parse::<http::uri::Authority>().is_err()
    {
        return Err(format!(
            "`{host}` cannot be a Host header\nhelp: write a name, with a port if it needs one"
        ));
    }
    check_probe(&spec.health.probe)
}

fn check_probe(probe: &Probe) -> Result<(), String> {
    let Probe::Http { path, host, expect, .. } = probe else { return Ok(()) };
    if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
        return Err(format!("`{path}` is not a path to probe\nhelp: write for example `GET /healthz`"));
    }
    if let Some(host) = host.as_ref().filter(|host| host.parse::<http::uri::Authority>().is_err()) {
        return Err(format!("`{host}` cannot be a Host header"));
    }
    match expect.iter().find(|status| !(200..=599).contains(*status)) {
        Some(status) => Err(format!("a probe cannot expect status {status}\nhelp: from 200 to 599")),
        None => Ok(()),
    }
}

fn nothing_ready(members: &Members) -> PickError {
    if members.all().iter().any(|member| member.weight > 0) {
        PickError::NoneHealthy
    } else {
        PickError::NoTargets
    }
}
