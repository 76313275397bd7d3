//! The ways to choose one target among many. All read a ready-made [`Members`]; none allocates or locks.

use super::ewma::clock;
use super::members::{Member, Members};
use super::spec::Balance;
use super::target::Target;
use crate::tasks::random;
use std::cmp::Ordering;

/// Chooses one that `admits` accepts. `None` when there is none.
pub(super) fn choose<'m>(
    balance: Balance,
    members: &'m Members,
    key: Option<&[u8]>,
    admits: &impl Fn(&Target) -> bool,
    again: bool,
) -> Option<&'m Member> {
    match (balance, key) {
        (Balance::StickyCookie, Some(key)) => marked(members, key)
            .filter(|member| admits(&member.target))
            .or_else(|| anew(members, admits, again)),
        (Balance::Hash, Some(key)) => members
            .around(key)
            .find(|member| admits(&member.target))
            .or_else(|| members.ready_from(0).find(|member| admits(&member.target))),
        (Balance::RoundRobin, _) | (Balance::Hash | Balance::StickyCookie, None) => {
            anew(members, admits, again)
        }
        (Balance::LeastConn, _) => least_conn(members, admits),
        (Balance::P2cEwma, _) => p2c_ewma(members, admits),
    }
}

/// The one that a sticky cookie means.
fn marked<'m>(members: &'m Members, key: &[u8]) -> Option<&'m Member> {
    members.marked(u64::from_le_bytes(key.try_into().ok()?))
}

/// In turn; but a second attempt takes nobody's turn: else every request would begin at the target that fails.
fn anew<'m>(members: &'m Members, admits: &impl Fn(&Target) -> bool, again: bool) -> Option<&'m Member> {
    if again { beside(members, admits) } else { round_robin(members, admits) }
}

fn round_robin<'m>(members: &'m Members, admits: &impl Fn(&Target) -> bool) -> Option<&'m Member> {
    let first = members.next_turn()?;
    if admits(&first.target) {
        return Some(first);
    }
    beside(members, admits)
}

/// Whoever stands next to a random one, so that nobody inherits all of another's share. Rare: a retry, or a full target.
fn beside<'m>(members: &'m Members, admits: &impl Fn(&Target) -> bool) -> Option<&'m Member> {
    members.ready_from(random() as usize).find(|member| admits(&member.target))
}

/// The lowest in flight for its weight; among equals the one whose turn it is, so that idle targets share by weight.
fn least_conn<'m>(members: &'m Members, admits: &impl Fn(&Target) -> bool) -> Option<&'m Member> {
    let mut best = members.next_turn().filter(|member| admits(&member.target));
    for member in members.ready_from(0) {
        if admits(&member.target) && best.is_none_or(|best| less_loaded(member, best)) {
            best = Some(member);
        }
    }
    best
}

fn less_loaded(one: &Member, other: &Member) -> bool {
    let cross = |a: &Member, b: &Member| u64::from(a.target.in_flight()) * u64::from(b.share());
    cross(one, other) < cross(other, one)
}

/// Two at random, the first by weight; the one that costs less is taken.
fn p2c_ewma<'m>(members: &'m Members, admits: &impl Fn(&Target) -> bool) -> Option<&'m Member> {
    let first = members.scheduled(random());
    let second = other_than(members, first?);
    let mut two = [first, second].into_iter().flatten().filter(|member| admits(&member.target));
    match (two.next(), two.next()) {
        (Some(first), Some(second)) => Some(cheaper(first, second)),
        (Some(only), None) => Some(only),
        (None, _) => members.ready_from(random() as usize).find(|member| admits(&member.target)),
    }
}

fn other_than<'m>(members: &'m Members, first: &Member) -> Option<&'m Member> {
    let at = random() as usize;
    let second = members.ready(at)?;
    if second.target.id() == first.target.id() { members.ready(at.wrapping_add(1)) } else { Some(second) }
}

fn cheaper<'m>(first: &'m Member, second: &'m Member) -> &'m Member {
    let now = clock();
    let cost = |member: &Member| {
        let cost = member.target.ewma.cost(member.target.in_flight(), member.weight, now);
        cost * 100.0 / f64::from(member.ramp.max(1))
    };
    match cost(second).total_cmp(&cost(first)) {
        Ordering::Less => second,
        Ordering::Equal | Ordering::Greater => first,
    }
}
