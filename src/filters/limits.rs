//! `limits`: how often and how much (RL-01…05, RL-09, RL-11, MT-02).
//!
//! Limits that count by nothing but the client's address are decided before anybody is asked who calls; the others, and
//! those of the caller's plan, after it. Each of the two decisions is one: all its limits grant the request, or none counts
//! it.

mod compile;
mod fields;
mod key;
pub mod rules;

pub use compile::Plans;

use super::{Filter, Hooks, Made, Settings, Step};
use crate::exchange::{Exchange, Limited, RequestHead, ResponseHead};
use crate::reply::{Kind, Problem, Reply};
use crate::store::counters::{Counters, Taken, Taking};
use crate::store::{Demand, Outcomes};
use crate::value::{At, Issues};
use compile::{Compiled, Set};
use fields::Style;
use key::{Bytes, Keyed};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

pub(super) const BY_ADDRESS: &str = "limits by address";
pub(super) const NAME: &str = "limits";

/// One decision about the limits of a route.
struct Limits {
    counters: Arc<Counters>,
    own: Option<Set>,
    /// Those of the caller's plan, by the plan's number.
    plans: Plans,
    style: Style,
}

pub(super) fn make_by_address(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let (level, limits) = settings.limits.as_ref()?;
    let own = Set::of_route(limits, *level, settings, true, issues)?;
    // The later decision writes the fields of both.
    let last = !limits.value.0.iter().any(|rule| !compile::counts_by_address(rule)) && !settings.has_plans();
    Some(made(Some(own), Plans::default(), last, settings, limits.at))
}

pub(super) fn make(settings: &Settings<'_>, issues: &mut Issues) -> Option<Made> {
    let own = settings.limits.as_ref().and_then(|(level, limits)| {
        Some((Set::of_route(limits, *level, settings, false, issues)?, limits.at))
    });
    let plans = if settings.has_plans() { settings.plans.clone() } else { Plans::default() };
    if own.is_none() && plans.is_empty() {
        return None;
    }
    let at = own.as_ref().map(|(_, at)| *at).or(settings.auth.as_ref().map(|auth| auth.at))?;
    Some(made(own.map(|(own, _)| own), plans, true, settings, at))
}

fn made(own: Option<Set>, plans: Plans, last: bool, settings: &Settings<'_>, at: At) -> Made {
    let counters = settings.build.counters().clone();
    let style = settings.limit_fields;
    let hooks = Hooks { request: true, upstream_request: false, response: last && style.says_anything() };
    Made::new(Limits { counters, own, plans, style }, hooks, at)
}

/// A demand that is being made: which limit, and whose counter.
struct Asked<'a> {
    limit: &'a Compiled,
    key: Bytes,
}

type AskedAll<'a> = SmallVec<[Asked<'a>; 4]>;

impl Limits {
    /// The sets that hold for this request.
    fn sets(&self, x: &Exchange) -> impl Iterator<Item = &Set> {
        let consumer = x.identity.as_ref().and_then(|identity| identity.consumer.as_ref());
        let plan = consumer.and_then(|consumer| self.plans.get(consumer.plan?));
        self.own.iter().chain(plan)
    }

    /// What to ask of the counters; a reply when the request has nothing to be counted by.
    fn ask<'a>(&'a self, request: &RequestHead, x: &mut Exchange) -> Result<AskedAll<'a>, Reply> {
        let mut asked = AskedAll::new();
        let consumer = x.identity.as_ref().and_then(|identity| identity.consumer.as_ref());
        let plan = consumer.and_then(|consumer| self.plans.get(consumer.plan?));
        for limit in self.own.iter().chain(plan).flat_map(|set| &set.limits) {
            match limit.key(request, x) {
                Keyed::By(key) => asked.push(Asked { limit, key }),
                Keyed::Skip => {}
                Keyed::Deny => {
                    x.limit = Some(limit.name.clone());
                    return Err(Problem::from(Kind::LIMIT_KEY_MISSING).reply(request, x));
                }
            }
        }
        Ok(asked)
    }

    fn conclude(
        &self,
        taken: Result<Taken, crate::store::counters::Unavailable>,
        asked: &AskedAll<'_>,
        request: &RequestHead,
        x: &mut Exchange,
    ) -> Option<Reply> {
        let outcomes = match taken {
            Ok(Taken::Decided(outcomes)) => outcomes,
            Ok(Taken::Uncounted) => return None,
            Err(_) => {
                let problem = Problem::from(Kind::LIMITS_UNAVAILABLE);
                return Some(problem.retry_after(Duration::from_secs(1)).reply(request, x));
            }
        };
        if self.style.says_anything() {
            self.tell(asked, &outcomes, x);
        }
        refusal(asked, &outcomes, x).map(|problem| problem.reply(request, x))
    }

    /// Notes what the answer's header fields will say.
    fn tell(&self, asked: &AskedAll<'_>, outcomes: &Outcomes, x: &mut Exchange) {
        let mut told = asked.iter().zip(outcomes).peekable();
        let mut limited = SmallVec::<[Limited; 2]>::new();
        for set in self.sets(x) {
            let states = set.limits.iter().map(|limit| {
                // A limit that did not apply was not asked.
                let (_, outcome) = told.next_if(|(asked, _)| std::ptr::eq(asked.limit, limit))?;
                Some((outcome.remaining, seconds(outcome.reset)))
            });
            limited.push(Limited { policies: set.policies.clone(), states: states.collect() });
        }
        x.limited.extend(limited);
    }
}

/// The problem, if a limit that does more than watch refuses.
fn refusal(asked: &AskedAll<'_>, outcomes: &Outcomes, x: &mut Exchange) -> Option<Problem> {
    let mut refused = SmallVec::<[&Compiled; 4]>::new();
    let mut wait = Duration::ZERO;
    for (asked, outcome) in asked.iter().zip(outcomes) {
        let limit = asked.limit;
        if !x.explaining {
            limit.metrics.decided(outcome.granted);
        }
        if outcome.granted {
            continue;
        }
        if refused.is_empty() {
            x.limit = Some(limit.name.clone());
        }
        if !limit.shadow {
            refused.push(limit);
            wait = wait.max(outcome.retry_after);
        }
    }
    let first = *refused.first()?;
    x.limit = Some(first.name.clone());
    let mut problem = Problem::from(if first.paid { Kind::PAYMENT_REQUIRED } else { Kind::QUOTA_EXCEEDED });
    problem.violated = refused.iter().map(|limit| limit.name.clone()).collect();
    // What can never be granted is not worth waiting for.
    Some(if wait == Duration::MAX { problem } else { problem.retry_after(wait) })
}

fn demands<'a>(asked: &'a AskedAll<'_>) -> SmallVec<[Demand<'a>; 4]> {
    let demand = |asked: &'a Asked<'_>| Demand {
        limit: &asked.limit.limit,
        key: &asked.key,
        cost: asked.limit.cost,
        shadow: asked.limit.shadow,
    };
    asked.iter().map(demand).collect()
}

/// Whole seconds, rounded up: who comes back then must find what was promised.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl Filter for Limits {
    fn on_request<'a>(&'a self, request: &'a RequestHead, x: &'a mut Exchange) -> Step<'a> {
        let asked = match self.ask(request, x) {
            Err(reply) => return Step::Reply(reply),
            Ok(asked) if asked.is_empty() => return Step::Continue,
            Ok(asked) => asked,
        };
        let explaining = x.explaining;
        let now = match self.counters.take(&demands(&asked), explaining) {
            Taking::Now(taken) => Some(taken),
            Taking::Later(_) => None,
        };
        match now {
            Some(taken) => self.conclude(taken, &asked, request, x).map_or(Step::Continue, Step::Reply),
            None => Step::Wait(Box::pin(async move {
                let taken = {
                    let demands = demands(&asked);
                    match self.counters.take(&demands, explaining) {
                        Taking::Now(taken) => taken,
                        Taking::Later(waiting) => waiting.await,
                    }
                };
                self.conclude(taken, &asked, request, x)
            })),
        }
    }

    fn on_response(&self, head: &mut ResponseHead, _: &RequestHead, x: &Exchange) {
        fields::write(self.style, head, x);
    }

    fn explain(&self, request: &RequestHead, x: &Exchange) -> String {
        let limits: Vec<String> =
            self.sets(x).flat_map(|set| &set.limits).map(|limit| limit.describe(request, x)).collect();
        // What another decision said stands before.
        let before = x.limited.len().saturating_sub(self.sets(x).count());
        let left = x.limited.iter().skip(before).flat_map(|limited| limited.states.iter().flatten());
        let left = left.map(|(left, _)| left.to_string()).collect::<Vec<_>>().join(", ");
        match &x.limit {
            Some(limit) => format!("{}  beyond {limit}", limits.join("; ")),
            None => format!("{}  pass  {left} left", limits.join("; ")),
        }
    }
}
