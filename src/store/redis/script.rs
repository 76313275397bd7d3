//! The script, what it is given, and what its answer means.
//!
//! The script decides and counts; it answers with the counters as they were. From these the outcomes are worked out here,
//! by the arithmetic of the store in memory, so that both say the same.

use super::StoreError;
use crate::store::cycle::{self, Window};
use crate::store::gcra::{LONGEST, Pace, Tat};
use crate::store::prepared::{Counting, Quota};
use crate::store::{Cycle, Demand, Limit, Outcome, Outcomes, Rule};
use hashbrown::HashMap;
use parking_lot::RwLock;
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};
use smallvec::SmallVec;
use std::sync::LazyLock;
use std::time::Duration;

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(TEXT));
const TEXT: &str = include_str!("take.lua");
/// Largest whole number that neither a double nor the sum of two of them is wrong about.
const LARGEST: u64 = (1 << 53) - 1;
/// A counter that nodes fill in turn may be fuller than full by what each of so many admits meanwhile; what is beyond is
/// an error of a clock or of another rule before.
const NODES: u64 = 256;
/// The most calendars whose bounds are remembered.
const CALENDARS: usize = 1024;

/// A call of the script.
pub(super) struct Call {
    keys: Vec<Vec<u8>>,
    arguments: Vec<u8>,
    ends: Vec<u32>,
}

impl Call {
    /// Asks for all of `demands`, or for none. `now` is the time on this machine; `there`, for tests, the server's.
    pub fn take(prefix: &[u8], demands: &[Demand<'_>], edges: &Edges, now: u64, there: Option<u64>) -> Self {
        let mut call = Call::begin(there, false, demands.len());
        for demand in demands {
            call.demand(prefix, demand, edges, now);
        }
        call
    }

    /// Counts what was granted elsewhere: so much of each key of a limit.
    pub fn add<'a>(
        prefix: &[u8],
        amounts: impl ExactSizeIterator<Item = (&'a Limit, &'a [u8], u64)>,
        edges: &Edges,
        now: u64,
    ) -> Self {
        let mut call = Call::begin(None, true, amounts.len());
        for (limit, key, amount) in amounts {
            match limit.prepared().counting() {
                Counting::Rate(pace) => {
                    call.key(prefix, &kind_of_shared(&limit.rule), limit, key);
                    call.rate(pace, false, Some(steps(pace, amount)), ceiling(pace));
                }
                Counting::Quota(quota) => {
                    call.key(prefix, b"g:", limit, key);
                    call.quota(limit, quota, false, amount, edges, now);
                }
            }
        }
        call
    }

    /// The command, for a server that knows the script.
    pub fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", TAKE.get_hash())
    }

    /// The command with the script in it.
    pub fn by_text(&self) -> Cmd {
        self.command("EVAL", TEXT)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let size = self.keys.iter().map(Vec::len).sum::<usize>() + self.arguments.len() + script.len() + 32;
        let mut command = Cmd::with_capacity(3 + self.keys.len() + self.ends.len(), size);
        command.arg(name).arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key.as_slice());
        }
        let mut start = 0;
        for end in &self.ends {
            let end = *end as usize;
            command.arg(self.arguments.get(start..end).unwrap_or_default());
            start = end;
        }
        command
    }

    fn begin(now: Option<u64>, force: bool, demands: usize) -> Self {
        let (keys, arguments) = (Vec::with_capacity(demands), Vec::with_capacity(8 + 64 * demands));
        let mut call = Call { keys, arguments, ends: Vec::with_capacity(2 + 9 * demands) };
        match now {
            Some(now) => call.number(now),
            None => call.argument(b""),
        }
        call.flag(force);
        call
    }

    fn demand(&mut self, prefix: &[u8], demand: &Demand<'_>, edges: &Edges, now: u64) {
        let Demand { limit, key, cost, shadow } = demand;
        match limit.prepared().counting() {
            Counting::Rate(pace) => {
                self.key(prefix, b"r:", limit, key);
                let step = pace.possible(*cost).then(|| pace.step(*cost));
                self.rate(pace, *shadow, step, pace.capacity());
            }
            Counting::Quota(quota) => {
                self.key(prefix, b"q:", limit, key);
                self.quota(limit, quota, *shadow, u64::from(*cost), edges, now);
            }
        }
    }

    fn key(&mut self, prefix: &[u8], kind: &[u8], limit: &Limit, key: &[u8]) {
        // The name ends with a byte that is in no text, so no two pairs of name and key read the same.
        self.keys.push([prefix, kind, limit.name.as_bytes(), b"\xff", key].concat());
    }

    fn rate(&mut self, pace: &Pace, shadow: bool, step: Option<Tat>, ceiling: Tat) {
        self.argument(b"r");
        self.flag(shadow);
        match step {
            Some(step) => self.point(step),
            None => {
                self.argument(b"-1");
                self.number(0);
            }
        }
        self.point(ceiling);
        self.point(pace.capacity());
        self.number(u64::from(pace.denominator()));
    }

    fn quota(&mut self, limit: &Limit, quota: &Quota, shadow: bool, cost: u64, edges: &Edges, now: u64) {
        let Rule::Quota { cycle, .. } = &limit.rule else { return };
        let slice = if let Cycle::Rolling(_) = cycle { Some(cycle::window(cycle, now)) } else { None };
        self.argument(if slice.is_some() { b"w" } else { b"c" });
        self.flag(shadow);
        self.number(cost);
        self.number(quota.count);
        self.flag(quota.soft);
        match slice {
            Some(window) => self.number((window.end - window.slot) / 65),
            None => edges.of(cycle, now).into_iter().for_each(|edge| self.number(edge)),
        }
    }

    fn point(&mut self, point: Tat) {
        self.number(point.micros);
        self.number(u64::from(point.part));
    }

    fn number(&mut self, number: u64) {
        self.argument(itoa::Buffer::new().format(number.min(LARGEST)).as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.argument(if flag { b"1" } else { b"0" });
    }

    fn argument(&mut self, argument: &[u8]) {
        self.arguments.extend_from_slice(argument);
        self.ends.push(u32::try_from(self.arguments.len()).unwrap_or(u32::MAX));
    }
}

/// How much later an amount makes a bucket full that many nodes fill.
pub(super) fn steps(pace: &Pace, amount: u64) -> Tat {
    let step = pace.step(u32::try_from(amount).unwrap_or(u32::MAX));
    if step.micros < LONGEST { step } else { Tat { micros: LONGEST, part: 0 } }
}

/// How far ahead of now a counter can be that many nodes fill.
pub(super) fn ceiling(pace: &Pace) -> Tat {
    let micros = NODES.saturating_mul(pace.capacity().micros.saturating_add(1_000_000)).min(LONGEST);
    Tat { micros, part: 0 }
}

/// The rule is part of the key: what many nodes have filled is not cut to what there is room for, so a limit that was
/// raised would refuse for as long as the one before.
fn kind_of_shared(rule: &Rule) -> Vec<u8> {
    let Rule::Rate { count, period, burst } = rule else { return b"f:".to_vec() };
    format!("f{count}/{}+{burst}:", period.as_micros()).into_bytes()
}

/// A command that only works where requests would: in the slot of their keys, on a server that writes.
pub(super) fn probe(prefix: &[u8]) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg([prefix, b"probe"].concat()).arg(1).arg("PX").arg(10_000);
    command
}

/// Whether the server does not know the script: it is new, or was restarted.
pub(super) fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// When the cycles around now begin, remembered for each calendar: four points in time, now between the second and the
/// third. The server's clock may be in the cycle before or after that of this machine.
#[derive(Default)]
pub(super) struct Edges(RwLock<HashMap<Cycle, [u64; 4]>>);

impl Edges {
    fn of(&self, cycle: &Cycle, now: u64) -> [u64; 4] {
        if let Some(edges) =
            self.0.read().get(cycle).filter(|[_, start, end, _]| (*start..*end).contains(&now))
        {
            return *edges;
        }
        let present = cycle::window(cycle, now);
        let before = cycle::window(cycle, present.slot.saturating_sub(1));
        let after = cycle::window(cycle, present.end);
        let edges = [before.slot, present.slot, present.end, after.end];
        let mut known = self.0.write();
        if known.len() >= CALENDARS {
            known.clear();
        }
        known.insert(cycle.clone(), edges);
        edges
    }
}

/// A counter as the script found it.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// Of a rate.
    Rate(Tat),
    /// Of a quota: what was used in the window, and in which slots if that matters.
    Quota(u64, SmallVec<[(u64, u64); 1]>),
}

/// What the script answered.
pub(super) struct Answer {
    /// The time on the server, in microseconds since 1970.
    pub now: u64,
    /// Whether all was granted and counted.
    pub granted: bool,
    /// The counters, in the order of the keys.
    pub found: SmallVec<[Found; 4]>,
}

impl Answer {
    /// Reads the answer for counters of these limits.
    pub fn read<'a>(value: &Value, limits: impl ExactSizeIterator<Item = &'a Limit>) -> Option<Self> {
        let Value::Array(values) = value else { return None };
        let [now, granted, states @ ..] = values.as_slice() else { return None };
        if states.len() != limits.len() {
            return None;
        }
        let found = states.iter().zip(limits).map(|(state, limit)| read_state(state, limit));
        Some(Answer { now: whole(now)?, granted: whole(granted)? == 1, found: found.collect::<Option<_>>()? })
    }
}

fn read_state(state: &Value, limit: &Limit) -> Option<Found> {
    let Value::Array(numbers) = state else { return None };
    match (limit.prepared().counting(), numbers.as_slice()) {
        (Counting::Rate(_), [micros, part]) => {
            Some(Found::Rate(Tat { micros: whole(micros)?, part: u32::try_from(whole(part)?).ok()? }))
        }
        (Counting::Quota(_), [used, slots @ ..]) => {
            let pairs = slots.chunks_exact(2).map(|pair| match pair {
                [slot, used] => Some((whole(slot)?, whole(used)?)),
                _ => None,
            });
            let mut slots = pairs.collect::<Option<SmallVec<[(u64, u64); 1]>>>()?;
            slots.sort_unstable();
            Some(Found::Quota(whole(used)?, slots))
        }
        _ => None,
    }
}

fn whole(value: &Value) -> Option<u64> {
    if let Value::Int(number) = value { u64::try_from(*number).ok() } else { None }
}

/// What the answer means for each demand.
pub(super) fn outcomes(demands: &[Demand<'_>], value: &Value) -> Result<Outcomes, StoreError> {
    let answer = Answer::read(value, demands.iter().map(|demand| demand.limit)).ok_or(StoreError::Garbled)?;
    let (now, found) = (answer.now, answer.found);
    let mut wants: SmallVec<[Want<'_>; 4]> =
        demands.iter().zip(found).map(|(demand, found)| Want::new(demand, found, now)).collect();
    for shadow in [false, true] {
        for at in 0..wants.len() {
            let Some(want) = wants.get_mut(at).filter(|want| want.demand.shadow == shadow) else { continue };
            want.decide(now);
            let decided = (want.demand.limit, want.demand.key, want.state);
            wants
                .iter_mut()
                .filter(|want| want.is_of(decided.0, decided.1))
                .for_each(|want| want.state = decided.2);
        }
    }
    let all = wants.iter().all(|want| want.refused.is_none() || want.demand.shadow);
    if all != answer.granted {
        return Err(StoreError::Garbled);
    }
    if !all {
        wants.iter_mut().for_each(|want| want.state = want.before);
    }
    Ok(wants.iter().map(|want| want.outcome(now)).collect())
}

/// A demand on its way to an outcome.
struct Want<'a> {
    demand: &'a Demand<'a>,
    window: Window,
    slots: SmallVec<[(u64, u64); 1]>,
    before: State,
    /// With all that was granted so far; the same for all demands on one counter.
    state: State,
    /// When refused: until it could be granted.
    refused: Option<Duration>,
}

#[derive(Clone, Copy)]
enum State {
    Rate(Tat),
    Quota(u64),
}

impl<'a> Want<'a> {
    fn new(demand: &'a Demand<'a>, found: Found, now: u64) -> Self {
        let (state, slots) = match found {
            Found::Rate(tat) => (State::Rate(tat), SmallVec::new()),
            Found::Quota(used, slots) => (State::Quota(used), slots),
        };
        let window = match demand.limit.prepared().counting() {
            Counting::Quota(quota) => quota.window(now),
            Counting::Rate(_) => Window::default(),
        };
        Want { demand, window, slots, before: state, state, refused: None }
    }

    fn is_of(&self, limit: &Limit, key: &[u8]) -> bool {
        let same_kind = matches!(
            (&self.demand.limit.rule, &limit.rule),
            (Rule::Rate { .. }, Rule::Rate { .. }) | (Rule::Quota { .. }, Rule::Quota { .. })
        );
        same_kind && self.demand.limit.name == limit.name && self.demand.key == key
    }

    fn decide(&mut self, now: u64) {
        let cost = self.demand.cost;
        match (self.demand.limit.prepared().counting(), self.state) {
            (Counting::Rate(pace), State::Rate(tat)) => {
                let decision = pace.decide(tat, now, cost);
                self.state = State::Rate(decision.tat);
                self.refused = (!decision.granted).then(|| pace.retry_after(tat, now, cost));
            }
            (Counting::Quota(quota), State::Quota(used)) => {
                let after = used.saturating_add(u64::from(cost));
                if after <= quota.count || quota.soft {
                    self.state = State::Quota(after);
                } else if u64::from(cost) > quota.count {
                    self.refused = Some(Duration::MAX);
                } else {
                    self.refused = Some(until(self.forgotten(after - quota.count), now));
                }
            }
            // The answer was read by the kind of the limit.
            (Counting::Rate(_), State::Quota(_)) | (Counting::Quota(_), State::Rate(_)) => {}
        }
    }

    /// When at least `enough` of what was used will count no more.
    fn forgotten(&self, enough: u64) -> u64 {
        let mut sum: u64 = 0;
        for (slot, used) in &self.slots {
            sum = sum.saturating_add(*used);
            if sum >= enough {
                return self.window.forgotten(*slot);
            }
        }
        self.window.end
    }

    fn outcome(&self, now: u64) -> Outcome {
        let (granted, retry_after) = (self.refused.is_none(), self.refused.unwrap_or_default());
        let (remaining, reset, used) = match (self.demand.limit.prepared().counting(), self.state) {
            (Counting::Rate(pace), State::Rate(tat)) => (pace.remaining(tat, now), pace.reset(tat, now), 0),
            (Counting::Quota(quota), State::Quota(used)) => {
                (quota.count.saturating_sub(used), until(self.window.end, now), used)
            }
            (Counting::Rate(_), State::Quota(_)) | (Counting::Quota(_), State::Rate(_)) => {
                (0, Duration::ZERO, 0)
            }
        };
        Outcome { granted, remaining, reset, retry_after, used }
    }
}

fn until(then: u64, now: u64) -> Duration {
    Duration::from_micros(then.saturating_sub(now))
}
