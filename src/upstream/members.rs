//! Who can be chosen at the moment: an immutable list, rebuilt when membership, a weight or a health state changes, so
//! that a pick finds everything ready made.

use super::spec::{Balance, UpstreamSpec};
use super::target::{Place, Target};
use pingora_ketama::{Bucket, Continuum};
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest round-robin schedule. Weights whose sum, once reduced, exceeds it are rounded.
const LONGEST_SCHEDULE: u64 = 1 << 16;
/// Bounds the work of building a schedule: slots times targets.
const SCHEDULE_WORK: u64 = 4_000_000;
/// The heaviest target has at most this many times the ring points of a target of weight one.
const HEAVIEST_ON_RING: u64 = 64;
/// How far round the ring to look for a target that admits before taking any.
const RING_STEPS: usize = 4096;

/// One target with its present weight.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) target: Arc<Target>,
    pub(super) weight: u32,
    /// How much of its share it gets while it starts slowly, in percent.
    pub(super) ramp: u32,
    /// Whether it is only used when others are not to be had.
    pub(super) backup: bool,
}

impl Member {
    /// The weight that holds at the moment, in hundredths.
    pub(super) fn share(&self) -> u32 {
        self.weight.saturating_mul(self.ramp)
    }
}

/// A membership, ready to be picked from.
pub(super) struct Members {
    all: Box<[Member]>,
    /// Indexes into `all`: who can be chosen.
    ready: Box<[u32]>,
    /// The same for each of `all`.
    is_ready: Box<[bool]>,
    /// Indexes into `all` in the order of smooth weighted round robin, one full cycle over `ready`.
    schedule: Box<[u32]>,
    turn: AtomicU64,
    ring: Option<Arc<Ring>>,
    /// What sticky cookies say, in order, and whom they mean.
    marks: Box<[(u64, u32)]>,
    panics: bool,
}

impl Members {
    /// Prepares `all` for picking. What `old` has and still holds (the turn, the ring) is carried over.
    pub(super) fn new(all: Vec<Member>, spec: &UpstreamSpec, old: Option<&Members>) -> Self {
        let Choice { ready, panics } = choice(&all, spec);
        let shares: Vec<(u32, u32)> =
            ready.iter().filter_map(|index| Some((*index, all.get(*index as usize)?.share()))).collect();
        let mut marks: Vec<(u64, u32)> = all
            .iter()
            .zip(0u32..)
            .filter_map(|(member, index)| Some((member.target.sticky_id()?, index)))
            .collect();
        marks.sort_unstable();
        Members {
            schedule: smooth_schedule(&shares),
            turn: AtomicU64::new(old.map_or(0, |old| old.turn.load(Ordering::Relaxed))),
            ring: (spec.balance == Balance::Hash).then(|| Ring::reuse_or_build(&all, old)),
            is_ready: (0u32..).zip(&all).map(|(index, _)| ready.contains(&index)).collect(),
            marks: marks.into(),
            ready: ready.into(),
            all: all.into(),
            panics,
        }
    }

    /// Whether ejected targets are used because too few others are left.
    pub(super) fn panics(&self) -> bool {
        self.panics
    }

    /// The one that a sticky cookie means, if it can be chosen.
    pub(super) fn marked(&self, id: u64) -> Option<&Member> {
        let at = self.marks.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let index = self.marks.get(at)?.1 as usize;
        self.all.get(index).filter(|_| self.is_ready.get(index) == Some(&true))
    }

    /// Every target, drained and unhealthy ones included, in the order of the configuration.
    pub(super) fn all(&self) -> &[Member] {
        &self.all
    }

    /// How many can be chosen.
    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// The `n`-th that can be chosen, counted round and round.
    pub(super) fn ready(&self, n: usize) -> Option<&Member> {
        let index = self.ready.get(n.checked_rem(self.ready.len())?)?;
        self.all.get(*index as usize)
    }

    /// All that can be chosen, beginning with the `first`-th.
    pub(super) fn ready_from(&self, first: usize) -> impl Iterator<Item = &Member> {
        let first = first.checked_rem(self.ready.len()).unwrap_or(0);
        let (head, tail) = self.ready.split_at_checked(first).unwrap_or((&[], &self.ready));
        tail.iter().chain(head).filter_map(|index| self.all.get(*index as usize))
    }

    /// Whose turn it is; the next call names the next one.
    pub(super) fn next_turn(&self) -> Option<&Member> {
        self.scheduled(self.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// The member in one slot of the schedule: a random slot finds each by its weight.
    pub(super) fn scheduled(&self, slot: u64) -> Option<&Member> {
        let slot = slot.checked_rem(self.schedule.len() as u64)?;
        self.all.get(*self.schedule.get(slot as usize)? as usize)
    }

    /// Those that can be chosen, in the order in which they follow `key` on the ring; one may come more than once.
    pub(super) fn around(&self, key: &[u8]) -> impl Iterator<Item = &Member> {
        let ring = self.ring.as_deref();
        ring.into_iter()
            .flat_map(move |ring| ring.from(key))
            .take(RING_STEPS)
            .filter(|index| self.is_ready.get(*index as usize) == Some(&true))
            .filter_map(|index| self.all.get(index as usize))
    }
}

/// Who can be chosen, by their numbers, and whether ejected ones are among them.
struct Choice {
    ready: Vec<u32>,
    panics: bool,
}

/// Targets that are healthy and not ejected; backups when too few of the others are left; ejected ones when too few are left
/// then: a target that fails some requests is better than none.
fn choice(all: &[Member], spec: &UpstreamSpec) -> Choice {
    let with_weight = || (0u32..).zip(all).filter(|(_, member)| member.weight > 0);
    let of = |backup: bool, admits: fn(&Target) -> bool| -> Vec<u32> {
        let chosen = with_weight().filter(|(_, member)| member.backup == backup && admits(&member.target));
        chosen.map(|(index, _)| index).collect()
    };
    let usable = |target: &Target| target.is_healthy() && !target.is_ejected();
    let mut ready = of(false, usable);
    let primaries = with_weight().filter(|(_, member)| !member.backup).count();
    if ready.is_empty() || is_below(ready.len(), primaries, spec.backup_below) {
        let backups = of(true, usable);
        if !backups.is_empty() {
            ready.extend(backups);
            ready.sort_unstable();
            return Choice { ready, panics: false };
        }
    }
    let healthy = of(false, Target::is_healthy);
    let panic_below = spec.health.passive.as_ref().map_or(0, |passive| passive.panic_below);
    let panics = healthy.len() > ready.len()
        && (ready.is_empty() || is_below(ready.len(), healthy.len(), panic_below));
    if panics {
        return Choice { ready: healthy, panics };
    }
    match ready.is_empty() {
        true => Choice {
            panics: with_weight().any(|(_, member)| member.backup && member.target.is_healthy()),
            ready: of(true, Target::is_healthy),
        },
        false => Choice { ready, panics },
    }
}

/// Whether `part` is less than this many hundredths of a percent of `whole`.
fn is_below(part: usize, whole: usize, share: u16) -> bool {
    part * 10_000 < whole * usize::from(share)
}

/// One cycle of nginx's smooth weighted round robin: in every step each weight is added to its own account, the fullest
/// account is chosen and pays the sum of all weights. Weights 5:1:1 give a a b a c a a.
fn smooth_schedule(weights: &[(u32, u32)]) -> Box<[u32]> {
    let weights = reduced(weights);
    let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut accounts: Vec<(u32, i64, i64)> =
        weights.iter().map(|(index, weight)| (*index, *weight as i64, 0)).collect();
    (0..total)
        .filter_map(|_| {
            let mut best: Option<&mut (u32, i64, i64)> = None;
            for account in &mut accounts {
                account.2 += account.1;
                if best.as_ref().is_none_or(|best| account.2 > best.2) {
                    best = Some(account);
                }
            }
            let (index, _, saved) = best?;
            *saved -= total as i64;
            Some(*index)
        })
        .collect()
}

/// Divides by the common divisor and, where the cycle would still be too long, rounds.
fn reduced(weights: &[(u32, u32)]) -> Vec<(u32, u64)> {
    let unit = u64::from(weights.iter().fold(0, |unit, (_, weight)| gcd(unit, *weight))).max(1);
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight) / unit).sum();
    let count = weights.len() as u64;
    let limit = (SCHEDULE_WORK / count.max(1)).min(LONGEST_SCHEDULE).max(count);
    let scale = |weight: u64| if total <= limit { weight } else { (weight * limit / total).max(1) };
    weights.iter().map(|(index, weight)| (*index, scale(u64::from(*weight) / unit))).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// nginx's consistent hash over membership and weights alone: health does not move anybody's keys but those of the
/// target that is down.
struct Ring {
    built_from: Vec<(Place, Option<Arc<str>>, u32)>,
    continuum: Continuum,
    /// For every point of the continuum the index of its target.
    owners: Box<[u32]>,
}

impl Ring {
    fn reuse_or_build(all: &[Member], old: Option<&Members>) -> Arc<Ring> {
        let wanted: Vec<_> = all
            .iter()
            .map(|member| (member.target.place().clone(), member.target.name().cloned(), member.weight))
            .collect();
        match old.and_then(|old| old.ring.as_ref()) {
            Some(ring) if ring.built_from == wanted => Arc::clone(ring),
            _ => Arc::new(Ring::build(wanted)),
        }
    }

    fn build(members: Vec<(Place, Option<Arc<str>>, u32)>) -> Ring {
        let addresses = ring_addresses(&members);
        let buckets: Vec<_> = addresses
            .iter()
            .zip(ring_weights(&members))
            .filter(|(_, weight)| *weight > 0)
            .map(|(address, weight)| Bucket::new(*address, weight))
            .collect();
        let continuum = Continuum::new(&buckets);
        let owners = owners(&continuum, &addresses);
        Ring { built_from: members, continuum, owners }
    }

    fn from(&self, key: &[u8]) -> impl Iterator<Item = u32> {
        let first = self.continuum.node_idx(key);
        let (head, tail) = self.owners.split_at_checked(first).unwrap_or((&[], &[]));
        tail.iter().chain(head).copied()
    }
}

/// Walks the continuum once, because it gives addresses and a pick wants indexes.
fn owners(continuum: &Continuum, addresses: &[SocketAddr]) -> Box<[u32]> {
    let by_address: std::collections::HashMap<_, u32> = addresses.iter().zip(0u32..).collect();
    let mut owners = Vec::new();
    let mut point = 0;
    while let Some(address) = continuum.get_addr(&mut point) {
        owners.push(by_address.get(address).copied().unwrap_or(0));
        if point == 0 {
            break;
        }
    }
    owners.into()
}

/// Weights as multiples of the lightest common unit, bounded so that the ring stays small.
fn ring_weights(members: &[(Place, Option<Arc<str>>, u32)]) -> Vec<u32> {
    let unit = members.iter().fold(0, |unit, (.., weight)| gcd(unit, *weight)).max(1);
    let heaviest = u64::from(members.iter().map(|(.., weight)| weight / unit).max().unwrap_or(0));
    let scale = |weight: u64| match weight {
        0 => 0,
        _ if heaviest <= HEAVIEST_ON_RING => weight,
        _ => (weight * HEAVIEST_ON_RING / heaviest).max(1),
    };
    members.iter().map(|(.., weight)| scale(u64::from(weight / unit)) as u32).collect()
}

/// The address each target has on the ring: its own, which makes the ring the one nginx would build, or one made up
/// from its identity where that is taken or there is none.
fn ring_addresses(members: &[(Place, Option<Arc<str>>, u32)]) -> Vec<SocketAddr> {
    let mut taken = HashSet::new();
    members
        .iter()
        .map(|(place, name, _)| match place {
            Place::Inet(address) if taken.insert(*address) => *address,
            _ => made_up(place, name.as_deref()),
        })
        .collect()
}

fn made_up(place: &Place, name: Option<&str>) -> SocketAddr {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, place.to_string(), name).hash(&mut hasher);
        hasher.finish()
    };
    let bits = (u128::from(half(0)) << 64) | u128::from(half(1));
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(weights: &[u32]) -> String {
        let weights: Vec<_> = (0u32..).zip(weights.iter().copied()).collect();
        smooth_schedule(&weights).iter().map(|index| char::from(b'a' + *index as u8)).collect()
    }

    #[test]
    fn the_schedule_is_the_one_nginx_documents() {
        assert_eq!(letters(&[5, 1, 1]), "aabacaa");
        assert_eq!(letters(&[1, 1, 1]), "abc");
        assert_eq!(letters(&[100, 100]), "ab", "weights are reduced first");
        assert_eq!(letters(&[3, 2]), "ababa");
        assert_eq!(letters(&[7]), "a");
        assert_eq!(letters(&[]), "");
    }

    #[test]
    fn the_schedule_is_exact_and_smooth() {
        for weights in [vec![4, 3, 2, 1], vec![10, 9, 8], vec![6, 5, 4, 3, 2, 1], vec![1, 999]] {
            let schedule = letters(&weights);
            let reduced = weights.iter().fold(0, |unit, weight| gcd(unit, *weight));
            for (index, weight) in weights.iter().enumerate() {
                let letter = char::from(b'a' + index as u8);
                assert_eq!(schedule.matches(letter).count() as u32, weight / reduced);
                let total: u32 = weights.iter().sum();
                if weight * 2 <= total {
                    assert!(!schedule.contains(&format!("{letter}{letter}")), "{weights:?}: {schedule}");
                }
            }
        }
    }

    #[test]
    fn absurd_weights_stay_bounded_and_keep_their_ratio() {
        let weights = [(0, u32::MAX), (1, u32::MAX / 2), (2, 1)];
        let schedule = smooth_schedule(&weights);
        assert!(schedule.len() <= 1 << 16);
        let count = |n: u32| schedule.iter().filter(|index| **index == n).count() as f64;
        assert!((count(0) / count(1) - 2.0).abs() < 0.001);
        assert!(count(2) >= 1.0, "even the lightest is reached");
    }

    #[test]
    fn ring_weights_are_bounded() {
        let member = |weight| (Place::Inet("10.0.0.1:1".parse().unwrap()), None, weight);
        assert_eq!(ring_weights(&[member(100), member(200), member(0)]), [1, 2, 0]);
        assert_eq!(ring_weights(&[member(u32::MAX), member(1)]), [64, 1]);
        assert_eq!(ring_weights(&[member(0)]), [0]);
    }
}
