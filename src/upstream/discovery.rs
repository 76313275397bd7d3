//! Follows the names among an upstream's targets: looked up in the background, the last good addresses kept.

use super::Upstream;
use super::resolver::{Family, Found};
use super::spec::{DiscoverySpec, Refresh};
use crate::tasks::{Running, Stop, Task, jitter};
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinSet;

/// The shortest time between two look-ups, whatever is configured.
const SHORTEST: Duration = Duration::from_millis(100);

/// One name among the targets and what is known about it.
pub(super) struct Watched {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    known: Mutex<Known>,
    tried: AtomicBool,
    failing: AtomicBool,
    failures: AtomicU64,
}

/// The last good addresses of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

impl Watched {
    /// A name, with the addresses it had before a reload.
    pub(super) fn new(host: Arc<str>, port: u16, known: Known) -> Self {
        let tried = AtomicBool::new(known != Known::default());
        let known = Mutex::new(known);
        Watched { host, port, known, tried, failing: AtomicBool::new(false), failures: AtomicU64::new(0) }
    }

    pub(super) fn known(&self) -> Known {
        self.known.lock().clone()
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let known = self.known.lock();
        known.v4.iter().chain(&known.v6).map(|ip| SocketAddr::new(*ip, self.port)).collect()
    }

    /// Whether it has been looked up at least once, with whatever result.
    pub(super) fn is_tried(&self) -> bool {
        self.tried.load(Ordering::Relaxed)
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Takes an answer in. A family that failed keeps what it had, and so does a name left without any address: a
    /// broken name server must not empty an upstream. Returns whether the addresses have changed.
    fn update(&self, found: Found, upstream: &str) -> bool {
        self.tried.store(true, Ordering::Relaxed);
        self.note(&found, upstream);
        if found.v4 == Family::Nothing && found.v6 == Family::Nothing {
            return false;
        }
        let mut known = self.known.lock();
        let before = known.clone();
        take(&mut known.v4, found.v4);
        take(&mut known.v6, found.v6);
        let changed = *known != before;
        if changed {
            log::info!(
                "upstream `{upstream}`: `{}` is now at {:?}",
                self.host,
                [&known.v4[..], &known.v6[..]].concat()
            );
        }
        changed
    }

    /// Counts every failure but logs only the first of a row, and its end.
    fn note(&self, found: &Found, upstream: &str) {
        let failed = found.is_failure();
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
        let was = self.failing.swap(failed, Ordering::Relaxed);
        if failed && !was {
            log::warn!(
                "upstream `{upstream}`: `{}` cannot be looked up: {}; keeping {} known addresses",
                self.host,
                found.reason(),
                self.addresses().len()
            );
        } else if was && !failed {
            log::info!("upstream `{upstream}`: `{}` can be looked up again", self.host);
        }
    }
}

fn take(known: &mut Vec<IpAddr>, family: Family) {
    match family {
        Family::Found(addresses, _) => *known = addresses,
        Family::Nothing => known.clear(),
        Family::Failed(_) => {}
    }
}

/// Looks all names of one upstream up, again and again.
pub(super) struct Discovery {
    name: String,
    upstream: Weak<Upstream>,
}

impl Discovery {
    pub(super) fn new(upstream: &Weak<Upstream>, name: &str) -> Self {
        Discovery { name: format!("discovery of {name}"), upstream: Weak::clone(upstream) }
    }

    async fn follow(self: Arc<Self>, mut stop: Stop) {
        let mut pause = None;
        while let Some(upstream) = self.upstream.upgrade() {
            let spec = upstream.spec().discovery;
            let ttl = tokio::select! {
                () = stop.told() => return,
                ttl = round(&upstream) => ttl,
            };
            drop(upstream);
            let wait = match ttl {
                Some(ttl) => {
                    pause = None;
                    next_look_up(&spec, ttl)
                }
                None => *pause.insert(retry(&spec, pause)),
            };
            if !stop.sleep(jitter(wait)).await {
                return;
            }
        }
        // The upstream is gone, so this task is about to be told.
        stop.told().await;
    }
}

/// Looks every name up once. The shortest TTL, or `None` when a name failed.
async fn round(upstream: &Arc<Upstream>) -> Option<Duration> {
    let mut asked = JoinSet::new();
    for watched in upstream.watched() {
        let (watched, resolver) = (Arc::clone(watched), Arc::clone(upstream.resolver()));
        asked.spawn(async move { (resolver.look_up(&watched.host).await, watched) });
    }
    let mut ttl = Some(Duration::MAX);
    while let Some(answer) = asked.join_next().await {
        let Ok((found, watched)) = answer else { continue };
        let this = if found.is_failure() { None } else { found.ttl() };
        ttl = ttl.zip(this).map(|(one, other)| one.min(other));
        if watched.update(found, upstream.name().as_str()) {
            upstream.members_changed();
        }
        upstream.made_progress();
    }
    ttl
}

fn next_look_up(spec: &DiscoverySpec, ttl: Duration) -> Duration {
    let wait = match spec.refresh {
        Refresh::Ttl => ttl.max(spec.min).min(spec.max),
        Refresh::Every(time) => time,
    };
    wait.max(SHORTEST)
}

/// After a failure: the shortest time first, then twice as long each time up to the longest.
fn retry(spec: &DiscoverySpec, last: Option<Duration>) -> Duration {
    let floor = spec.min.max(SHORTEST);
    last.map_or(floor, |last| (last * 2).min(spec.max.max(floor)))
}

impl Task for Discovery {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Arc<Self>, stop: Stop) -> Running {
        Box::pin(self.follow(stop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn found(v4: Family, v6: Family) -> Found {
        Found { v4, v6 }
    }

    fn some(last: u8) -> Family {
        Family::Found(vec![ip(last)], Duration::from_secs(5))
    }

    #[test]
    fn the_last_good_addresses_stay_per_family() {
        let v6: IpAddr = "::7".parse().unwrap();
        let watched = Watched::new("app".into(), 80, Known::default());
        let ttl = Duration::from_secs(5);
        assert!(watched.update(found(some(1), Family::Found(vec![v6], ttl)), "u"));
        let both = watched.addresses();
        assert_eq!(both.len(), 2);
        for broken in [
            found(Family::Failed("SERVFAIL".into()), Family::Failed("SERVFAIL".into())),
            found(Family::Nothing, Family::Nothing),
            found(Family::Nothing, Family::Failed("timeout".into())),
        ] {
            let v4_gone = broken.v4 == Family::Nothing && broken.v6 != Family::Nothing;
            watched.update(broken, "u");
            if v4_gone {
                assert_eq!(
                    watched.addresses(),
                    [SocketAddr::new(v6, 80)],
                    "a certain no counts, a failure does not"
                );
            } else {
                assert_eq!(watched.addresses(), both);
            }
        }
        assert_eq!(watched.failures(), 3);
        assert!(watched.update(found(some(2), Family::Failed("SERVFAIL".into())), "u"));
        assert_eq!(watched.addresses(), [SocketAddr::new(ip(2), 80), SocketAddr::new(v6, 80)]);
        assert!(watched.update(found(some(2), Family::Nothing), "u"));
        assert!(!watched.update(found(some(2), Family::Nothing), "u"), "the same again is no change");
        assert_eq!(watched.addresses(), [SocketAddr::new(ip(2), 80)]);
    }

    #[test]
    fn ttl_is_honoured_between_floor_and_ceiling() {
        let spec = DiscoverySpec::default();
        let seconds = |s| Duration::from_secs(s);
        for (ttl, expected) in [(0, 1), (5, 5), (86_400, 60)] {
            assert_eq!(next_look_up(&spec, seconds(ttl)), seconds(expected));
        }
        let fixed = DiscoverySpec { refresh: Refresh::Every(seconds(7)), ..spec };
        assert_eq!(next_look_up(&fixed, seconds(0)), seconds(7));
        let never = DiscoverySpec { refresh: Refresh::Every(seconds(0)), ..spec };
        assert_eq!(next_look_up(&never, seconds(0)), SHORTEST);
        assert_eq!(retry(&spec, None), seconds(1));
        assert_eq!(retry(&spec, Some(seconds(1))), seconds(2));
        assert_eq!(retry(&spec, Some(seconds(50))), seconds(60));
    }
}
