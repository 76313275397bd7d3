//! Counters that nodes keep each for itself and share in short intervals: no request waits for Redis.
//!
//! # How much too many
//!
//! Each node decides by what it knows: the shared counter when it last exchanged, and all that it granted itself. In an
//! exchange it adds what it has granted since to the shared counter, and learns how full that is. At most `u` of a node's
//! grants are at any time not known to all others: for a rate what `burst` and the rate allow in `STALE` intervals,
//! because a node that could not exchange for so long asks no more but says so; for a quota its `slack`.
//!
//! *Law*: at no time is a counter fuller than it may be by more than `(nodes - 1) × u`, so that in any time `t` at most
//! `rate × t + burst + (nodes - 1) × u` are granted, or `count + (nodes - 1) × u` in a cycle.
//!
//! *Proof*: take any time, each node's last grant before it, and the exchange whose answer that node decided it by. Let
//! `m` be the node for which this exchange is the latest. What another node granted and the shared counter did not hold at
//! that exchange was unanswered at that node's last grant, or its exchange would be later than `m`'s; so it is at most
//! `u`. All the rest `m` had in its own counter when it last granted, and then it was no fuller than it may be. A grant
//! that `m` did not know of makes the counter fuller by no more than itself. So it was too full by at most what the other
//! nodes had not told, `(nodes - 1) × u`; and between grants it only empties. ∎
//!
//! [`bound`] is that number. It is an upper bound: evenly spread load exceeds far less.

use super::script::{Answer, Call, Found, ceiling, steps};
use super::{RedisStore, StoreError};
use crate::store::cycle::Window;
use crate::store::gcra::{Pace, Tat};
use crate::store::prepared::Counting;
use crate::store::{Cycle, Demand, Limit, Outcome, Outcomes, Rule, memory};
use crate::tasks::{Running, Stop, Task};
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A grant that no exchange has told of after so many intervals stops further ones: one to begin, one to be answered.
const STALE: u32 = 2;
const SHARDS: usize = 16;
/// Keys of one call of the script, which holds up everybody on the server.
const BATCH: usize = 64;
/// How long a quota that nobody asks for is remembered.
const IDLE: u64 = 60_000_000;
/// How often what is idle is forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// How many more than the limit can be granted by so many nodes that exchange every `sync`.
pub fn bound(rule: &Rule, sync: Duration, nodes: u64) -> u64 {
    let alone = match rule {
        Rule::Rate { count, period, burst } => {
            let grants = u128::from(*count) * (sync * STALE).as_nanos();
            let grants = grants.div_ceil(period.as_nanos().max(1));
            u64::try_from(grants).unwrap_or(u64::MAX).saturating_add(u64::from(*burst))
        }
        Rule::Quota { soft: true, .. } => 0,
        Rule::Quota { count, .. } => slack(*count),
    };
    nodes.saturating_sub(1).saturating_mul(alone)
}

/// What a node grants of a quota before it tells the others: a hundredth, or a single request that costs more.
fn slack(count: u64) -> u64 {
    (count / 100).max(1)
}

/// Counters that this node keeps and shares.
pub struct Fast {
    store: Arc<RedisStore>,
    sync: Duration,
    most: usize,
    shards: [Mutex<Shard>; SHARDS],
    /// One exchange at a time, so that answers come in order.
    turn: tokio::sync::Mutex<()>,
}

type Id = (u64, u64);

#[derive(Default)]
struct Shard {
    cells: HashMap<Id, Cell>,
    /// Those with something to exchange.
    listed: Vec<Id>,
}

/// A counter.
struct Cell {
    limit: Limit,
    key: Box<[u8]>,
    level: Level,
    /// Granted here and not sent yet.
    pending: u64,
    /// Sent, and not answered yet.
    sent: u64,
    /// Whether it is on its way, be it to learn only: one answer at a time, so that none is taken for a later one.
    under_way: bool,
    /// When the first of `pending` and `sent` was granted.
    since: Option<u64>,
    /// When the exchange began that `level` is from.
    refreshed: u64,
    listed: bool,
}

/// How full a counter is.
#[derive(Clone, Copy)]
enum Level {
    /// Of a rate, all known grants included: never cut, or what was granted too much would be forgotten.
    Rate(Tat),
    /// Of a quota, without what is pending or sent.
    Quota { window: Window, known: u64 },
}

/// Why a decision needs Redis first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// A quota's slack is used up.
    Exchange,
    /// There was no exchange for too long, or there are too many keys.
    Failed(StoreError),
}

impl Fast {
    /// Counters that are exchanged every `sync`, of at most `max_keys` keys.
    pub fn new(store: Arc<RedisStore>, sync: Duration, max_keys: usize) -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Fast {
            store,
            sync,
            most: max_keys.div_ceil(SHARDS).max(1),
            shards,
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// How often counts are exchanged.
    pub fn sync(&self) -> Duration {
        self.sync
    }

    /// The store that is exchanged with.
    pub fn store(&self) -> &Arc<RedisStore> {
        &self.store
    }

    /// Decides at once on all demands of a request, as [`RedisStore::take`] does: nearly always. `None` when Redis must be
    /// asked first; then [`take`](Self::take) does.
    pub fn try_take(&self, now: u64, demands: &[Demand<'_>]) -> Option<Outcomes> {
        self.decide(now, demands).ok()
    }

    /// Decides on all demands of a request, and exchanges first when it must.
    ///
    /// # Errors
    ///
    /// When an exchange was needed and failed, or has failed for so long that the [`bound`] would not hold.
    pub async fn take(&self, demands: &[Demand<'_>]) -> Result<Outcomes, StoreError> {
        match self.decide(memory::now(), demands) {
            Ok(outcomes) => Ok(outcomes),
            Err(Need::Failed(error)) => Err(error),
            Err(Need::Exchange) => self.exchange_and_take(demands).await,
        }
    }

    async fn exchange_and_take(&self, demands: &[Demand<'_>]) -> Result<Outcomes, StoreError> {
        let exchanged = async {
            let _turn = self.turn.lock().await;
            // Whoever had the turn before may have exchanged these too.
            if let Ok(outcomes) = self.decide(memory::now(), demands) {
                return Ok(outcomes);
            }
            let ids: Vec<Id> = demands.iter().map(id).collect();
            self.exchange(&ids).await?;
            self.decide(memory::now(), demands).map_err(|need| match need {
                Need::Failed(error) => error,
                Need::Exchange => StoreError::Busy,
            })
        };
        tokio::time::timeout(self.store.timeout, exchanged).await.unwrap_or(Err(StoreError::Timeout))
    }

    fn decide(&self, now: u64, demands: &[Demand<'_>]) -> Result<Outcomes, Need> {
        let mut locked = Locked::new(self, demands);
        let stale = now.saturating_sub(micros(self.sync * STALE));
        for demand in demands {
            let cell = locked.open(demand, now, self.most).ok_or(Need::Failed(StoreError::Busy))?;
            cell.roll(now);
            if cell.since.is_some_and(|since| since < stale) {
                return Err(Need::Failed(StoreError::Open));
            }
        }
        let mut wants: SmallVec<[Want<'_>; 4]> = demands.iter().map(Want::new).collect();
        for want in &mut wants {
            want.untold = locked.with(want.demand, |cell| cell.unsynced()).unwrap_or_default();
        }
        for shadow in [false, true] {
            for want in wants.iter_mut().filter(|want| want.demand.shadow == shadow) {
                locked.with(want.demand, |cell| want.decide(cell, now));
            }
        }
        let all = wants.iter().all(|want| want.refused.is_none() || want.demand.shadow);
        let lacking = wants.iter().any(|want| want.lacks_slack);
        // What was counted on the way is taken back, last first.
        if !all || lacking {
            for want in wants.iter().rev() {
                locked.with(want.demand, |cell| want.undo(cell));
            }
        }
        if all && lacking {
            return Err(Need::Exchange);
        }
        let mut outcomes = Outcomes::new();
        for want in &wants {
            let refresh = now.saturating_sub(micros(self.sync));
            let outcome = locked.with(want.demand, |cell| {
                let look_again = want.refused.is_some() && cell.refreshed < refresh;
                (want.outcome(cell, now), look_again || cell.unsynced() > 0)
            });
            if let Some((outcome, listed)) = outcome {
                outcomes.push(outcome);
                if listed {
                    locked.list(want.demand);
                }
            }
        }
        Ok(outcomes)
    }

    /// Exchanges what has changed; for a task, and for tests.
    async fn round(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let listed: Vec<Id> =
            self.shards.iter().flat_map(|shard| std::mem::take(&mut shard.lock().listed)).collect();
        let batches = Mutex::new(listed.chunks(BATCH));
        let lane = || async {
            let mut result = Ok(());
            loop {
                let Some(ids) = batches.lock().next() else { return result };
                result = result.and(self.exchange(ids).await);
            }
        };
        // Four at a time: with many keys one after the other would take longer than an interval.
        let (one, two, three, four) = tokio::join!(lane(), lane(), lane(), lane());
        one.and(two).and(three).and(four)
    }

    /// Tells what was granted, and learns. The caller has the turn.
    async fn exchange(&self, ids: &[Id]) -> Result<(), StoreError> {
        let started = memory::now();
        let mut returned = Sent { fast: self, amounts: ids.iter().filter_map(|id| self.send(*id)).collect() };
        if returned.amounts.is_empty() {
            return Ok(());
        }
        let amounts = returned.amounts.iter().map(|sent| (&sent.limit, &*sent.key, sent.amount));
        let call = Call::add(&self.store.prefix, amounts, &self.store.edges, started);
        let value = self.store.run(&call).await?;
        let limits = returned.amounts.iter().map(|sent| &sent.limit);
        let answer = Answer::read(&value, limits).ok_or(StoreError::Garbled)?;
        let now = memory::now();
        for (sent, found) in std::mem::take(&mut returned.amounts).into_iter().zip(&answer.found) {
            if let Some(cell) = self.shard(sent.id).lock().cells.get_mut(&sent.id) {
                cell.learn(found, (answer.now, now), sent.amount, started);
            }
        }
        Ok(())
    }

    fn send(&self, id: Id) -> Option<Amount> {
        let mut shard = self.shard(id).lock();
        let cell = shard.cells.get_mut(&id).filter(|cell| !cell.under_way)?;
        (cell.listed, cell.under_way) = (false, true);
        let amount = std::mem::take(&mut cell.pending);
        cell.sent = cell.sent.saturating_add(amount);
        Some(Amount { id, limit: cell.limit.clone(), key: cell.key.clone(), amount })
    }

    fn shard(&self, id: Id) -> &Mutex<Shard> {
        let [first, rest @ ..] = &self.shards;
        shard_of(id).checked_sub(1).and_then(|place| rest.get(place)).unwrap_or(first)
    }

    /// Forgets what says no more than no counter would.
    fn sweep(&self, now: u64) {
        for shard in &self.shards {
            shard.lock().sweep(now);
        }
    }
}

impl Task for Fast {
    fn name(&self) -> &str {
        "exchange of counters with redis"
    }

    fn run(self: Arc<Self>, mut stop: Stop) -> Running {
        Box::pin(async move {
            let mut swept = Instant::now();
            let mut next = Instant::now() + self.sync;
            while stop.sleep(next.saturating_duration_since(Instant::now())).await {
                next = Instant::now() + self.sync;
                // The store has logged and counted what went wrong, and the next round tells it again.
                let _ = self.round().await;
                if swept.elapsed() > SWEEP {
                    swept = Instant::now();
                    self.sweep(memory::now());
                }
            }
            // What was granted last is told before the process ends.
            let _ = self.round().await;
        })
    }
}

/// What is on its way to Redis. Dropped without an answer, it is pending again: told twice at worst, and never lost.
struct Sent<'a> {
    fast: &'a Fast,
    amounts: Vec<Amount>,
}

struct Amount {
    id: Id,
    limit: Limit,
    key: Box<[u8]>,
    amount: u64,
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        for Amount { id, amount, .. } in &self.amounts {
            let mut shard = self.fast.shard(*id).lock();
            let Some(cell) = shard.cells.get_mut(id) else { continue };
            cell.under_way = false;
            cell.sent = cell.sent.saturating_sub(*amount);
            cell.pending = cell.pending.saturating_add(*amount);
            shard.list(*id);
        }
    }
}

impl Shard {
    fn list(&mut self, id: Id) {
        if let Some(cell) = self.cells.get_mut(&id).filter(|cell| !cell.listed) {
            cell.listed = true;
            self.listed.push(id);
        }
    }

    fn sweep(&mut self, now: u64) {
        self.cells
            .retain(|_, cell| cell.unsynced() > 0 || cell.listed || cell.under_way || !cell.is_idle(now));
    }
}

impl Cell {
    fn new(demand: &Demand<'_>, now: u64) -> Self {
        let level = match demand.limit.prepared().counting() {
            Counting::Rate(_) => Level::Rate(Tat::default()),
            Counting::Quota(quota) => Level::Quota { window: quota.window(now), known: 0 },
        };
        let (limit, key) = (demand.limit.clone(), demand.key.into());
        Cell {
            limit,
            key,
            level,
            pending: 0,
            sent: 0,
            under_way: false,
            since: None,
            refreshed: 0,
            listed: false,
        }
    }

    /// A reload has changed the limit. A rate begins anew, as it does in Redis; of a quota all stays that was used.
    fn change(&mut self, demand: &Demand<'_>, now: u64) {
        let fresh = Cell::new(demand, now);
        if let (Level::Rate(_), Level::Rate(_)) = (self.level, fresh.level) {
            self.level = fresh.level;
        }
        self.limit = fresh.limit;
    }

    fn unsynced(&self) -> u64 {
        self.pending.saturating_add(self.sent)
    }

    fn is_idle(&self, now: u64) -> bool {
        match self.level {
            Level::Rate(tat) => tat.micros < now,
            Level::Quota { .. } => self.refreshed.saturating_add(IDLE) < now,
        }
    }

    /// What is known of a cycle that is over counts no more. Of a rolling time it does until it is looked at again.
    fn roll(&mut self, now: u64) {
        let (Level::Quota { window, known }, Counting::Quota(quota)) =
            (&mut self.level, self.limit.prepared().counting())
        else {
            return;
        };
        if !window.counts(now) {
            *known = 0;
        }
        *window = quota.window(now);
    }

    fn learn(&mut self, found: &Found, (there, here): (u64, u64), amount: u64, started: u64) {
        self.under_way = false;
        self.sent = self.sent.saturating_sub(amount);
        let unsynced = self.unsynced();
        match (&mut self.level, found, self.limit.prepared().counting()) {
            (Level::Rate(tat), Found::Rate(found), Counting::Rate(pace)) => {
                // As far ahead of this clock as it is of the server's, and what was granted since.
                let ahead = add(pace, ahead(pace, *found, there), steps(pace, amount));
                let ahead = add(pace, ahead, steps(pace, unsynced));
                *tat = (*tat).max(Tat { micros: here.saturating_add(ahead.micros), part: ahead.part });
            }
            (Level::Quota { known, .. }, Found::Quota(used, _), Counting::Quota(_)) => {
                *known = used.saturating_add(amount);
            }
            _ => {}
        }
        self.refreshed = started;
        self.since = if unsynced == 0 { None } else { self.since.map(|since| since.max(started)) };
    }
}

/// The shards that a request needs, locked in order, so that no two requests wait for each other.
struct Locked<'a>(SmallVec<[(usize, MutexGuard<'a, Shard>); 4]>);

impl<'a> Locked<'a> {
    fn new(fast: &'a Fast, demands: &[Demand<'_>]) -> Self {
        let mut order: SmallVec<[usize; 4]> = demands.iter().map(|demand| shard_of(id(demand))).collect();
        order.sort_unstable();
        order.dedup();
        let lock = |place: usize| fast.shards.get(place).map(|shard| (place, shard.lock()));
        Locked(order.into_iter().filter_map(lock).collect())
    }

    fn shard(&mut self, id: Id) -> Option<&mut Shard> {
        let place = shard_of(id);
        self.0.iter_mut().find(|(at, _)| *at == place).map(|(_, shard)| &mut **shard)
    }

    /// The counter of a demand, made if need be; `None` when there are too many.
    fn open(&mut self, demand: &Demand<'_>, now: u64, most: usize) -> Option<&mut Cell> {
        let id = id(demand);
        let shard = self.shard(id)?;
        if !shard.cells.contains_key(&id) {
            if shard.cells.len() >= most {
                shard.sweep(now);
            }
            if shard.cells.len() >= most {
                return None;
            }
        }
        let cell = shard.cells.entry(id).or_insert_with(|| Cell::new(demand, now));
        if cell.limit.rule != demand.limit.rule {
            cell.change(demand, now);
        }
        Some(cell)
    }

    fn with<R>(&mut self, demand: &Demand<'_>, act: impl FnOnce(&mut Cell) -> R) -> Option<R> {
        let id = id(demand);
        self.shard(id)?.cells.get_mut(&id).map(act)
    }

    fn list(&mut self, demand: &Demand<'_>) {
        let id = id(demand);
        if let Some(shard) = self.shard(id) {
            shard.list(id);
        }
    }
}

/// A demand on its way to an outcome.
struct Want<'a> {
    demand: &'a Demand<'a>,
    /// The cell's level and first grant before this demand was counted.
    before: Option<(Level, Option<u64>)>,
    refused: Option<Duration>,
    /// What the cell had not told before this request.
    untold: u64,
    lacks_slack: bool,
}

impl<'a> Want<'a> {
    fn new(demand: &'a Demand<'a>) -> Self {
        Want { demand, before: None, refused: None, untold: 0, lacks_slack: false }
    }

    fn decide(&mut self, cell: &mut Cell, now: u64) {
        let cost = u64::from(self.demand.cost);
        match (self.demand.limit.prepared().counting(), cell.level) {
            (Counting::Rate(pace), Level::Rate(tat)) => match grant(pace, tat, now, self.demand.cost) {
                Ok(tat) => self.count(cell, Level::Rate(tat), now),
                Err(wait) => self.refused = Some(wait),
            },
            (Counting::Quota(quota), Level::Quota { window, known }) => {
                let used = known.saturating_add(cell.unsynced());
                if !quota.soft && used.saturating_add(cost) > quota.count {
                    let wait = Duration::from_micros(window.end.saturating_sub(now));
                    self.refused = Some(if cost > quota.count { Duration::MAX } else { self.wait(wait) });
                } else {
                    // A request that asks for more than the slack passes when nothing else is untold.
                    let unsynced = cell.unsynced();
                    self.lacks_slack =
                        !quota.soft && self.untold > 0 && unsynced.saturating_add(cost) > slack(quota.count);
                    self.count(cell, cell.level, now);
                }
            }
            _ => {}
        }
    }

    /// Slices are in Redis only; one of them is the soonest that anything can change.
    fn wait(&self, end: Duration) -> Duration {
        match &self.demand.limit.rule {
            Rule::Quota { cycle: Cycle::Rolling(time), .. } => (*time / 64).min(end),
            _ => end,
        }
    }

    fn count(&mut self, cell: &mut Cell, level: Level, now: u64) {
        self.before = Some((cell.level, cell.since));
        cell.level = level;
        cell.pending = cell.pending.saturating_add(u64::from(self.demand.cost));
        cell.since.get_or_insert(now);
    }

    fn undo(&self, cell: &mut Cell) {
        if let Some((level, since)) = self.before {
            (cell.level, cell.since) = (level, since);
            cell.pending = cell.pending.saturating_sub(u64::from(self.demand.cost));
        }
    }

    fn outcome(&self, cell: &Cell, now: u64) -> Outcome {
        let (granted, retry_after) = (self.refused.is_none(), self.refused.unwrap_or_default());
        let (remaining, reset, used) = match (self.demand.limit.prepared().counting(), cell.level) {
            (Counting::Rate(pace), Level::Rate(tat)) => (pace.remaining(tat, now), pace.reset(tat, now), 0),
            (Counting::Quota(quota), Level::Quota { window, known }) => {
                let used = known.saturating_add(cell.unsynced());
                let reset = Duration::from_micros(window.end.saturating_sub(now));
                (quota.count.saturating_sub(used), reset, used)
            }
            _ => (0, Duration::ZERO, 0),
        };
        Outcome { granted, remaining, reset, retry_after, used }
    }
}

fn id(demand: &Demand<'_>) -> Id {
    let id = demand.limit.prepared().counter(demand.key);
    (id.high, id.low)
}

fn shard_of((_, low): Id) -> usize {
    ((low >> 32) as usize) % SHARDS
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The new level of a rate, or how long until there could be one.
fn grant(pace: &Pace, tat: Tat, now: u64, cost: u32) -> Result<Tat, Duration> {
    if !pace.possible(cost) {
        return Err(Duration::MAX);
    }
    let after = add(pace, ahead(pace, tat, now), pace.step(cost));
    let capacity = pace.capacity();
    if after <= capacity {
        return Ok(Tat { micros: now.saturating_add(after.micros), part: after.part });
    }
    let whole = after.micros.saturating_sub(capacity.micros);
    Err(Duration::from_micros(whole + u64::from(after.part > capacity.part)))
}

/// How far a level is ahead of a time.
fn ahead(pace: &Pace, tat: Tat, now: u64) -> Tat {
    let Some(micros) = tat.micros.checked_sub(now) else { return Tat::default() };
    add(pace, Tat { micros, part: 0 }, Tat { micros: 0, part: tat.part.min(pace.denominator()) })
        .min(ceiling(pace))
}

fn add(pace: &Pace, one: Tat, other: Tat) -> Tat {
    let parts = u64::from(one.part) + u64::from(other.part);
    let denominator = u64::from(pace.denominator().max(1));
    let micros = one.micros.saturating_add(other.micros).saturating_add(parts / denominator);
    // Less than the denominator, so it always fits.
    Tat { micros, part: u32::try_from(parts % denominator).unwrap_or(u32::MAX) }
}
