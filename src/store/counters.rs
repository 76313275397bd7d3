//! What limits are decided with: this process' own counters, or those that it shares with other nodes in Redis.

use super::memory::{Memory, now};
use super::redis::fast::Fast;
use super::redis::{RedisStore, StoreError};
use super::{Demand, Outcomes};
use crate::tasks::Waiting;
use std::sync::Arc;

/// Decides demands.
pub struct Counters {
    memory: Arc<Memory>,
    shared: Option<Shared>,
}

/// Counters that other nodes use too.
pub struct Shared {
    /// Where they are.
    pub mode: Mode,
    /// What happens when they cannot be reached.
    pub on_failure: OnFailure,
}

/// How nodes count together.
pub enum Mode {
    /// Redis decides each request.
    Exact(Arc<RedisStore>),
    /// This node decides and tells the others.
    Fast(Arc<Fast>),
}

/// What happens when Redis does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// This process' own counters decide.
    Local,
    /// Everything is granted and nothing counted.
    Allow,
    /// Nothing is granted.
    Deny,
}

/// A decision.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one call, and a box would be an allocation a request"
)]
pub enum Taken {
    /// By counters.
    Decided(Outcomes),
    /// None: whatever was asked is granted, because nobody could be asked.
    Uncounted,
}

/// Nobody could be asked, and nothing is granted then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// A decision, or the promise of one.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one call, and a box would be an allocation a request"
)]
pub enum Taking<'a> {
    /// Known at once.
    Now(Result<Taken, Unavailable>),
    /// Redis must be asked.
    Later(Waiting<'a, Result<Taken, Unavailable>>),
}

impl Counters {
    /// With these counters of its own, and those shared with others if there are any.
    pub fn new(memory: Arc<Memory>, shared: Option<Shared>) -> Self {
        Counters { memory, shared }
    }

    /// Decides all demands together. With `only_look` nothing is counted, and nobody else is asked.
    pub fn take<'a>(&'a self, demands: &'a [Demand<'a>], only_look: bool) -> Taking<'a> {
        if only_look {
            return Taking::Now(Ok(Taken::Decided(self.memory.peek(now(), demands))));
        }
        match &self.shared {
            None => Taking::Now(Ok(Taken::Decided(self.memory.take(now(), demands)))),
            Some(Shared { mode: Mode::Fast(fast), on_failure }) => match fast.try_take(now(), demands) {
                Some(outcomes) => Taking::Now(Ok(Taken::Decided(outcomes))),
                None => Taking::Later(Box::pin(async move {
                    self.settle(fast.take(demands).await, *on_failure, demands)
                })),
            },
            Some(Shared { mode: Mode::Exact(redis), on_failure }) => Taking::Later(Box::pin(async move {
                self.settle(redis.take(demands).await, *on_failure, demands)
            })),
        }
    }

    /// What Redis said, or what happens when it said nothing. Why it did not is counted where it happened.
    fn settle(
        &self,
        outcomes: Result<Outcomes, StoreError>,
        on_failure: OnFailure,
        demands: &[Demand<'_>],
    ) -> Result<Taken, Unavailable> {
        if let Ok(outcomes) = outcomes {
            return Ok(Taken::Decided(outcomes));
        }
        match on_failure {
            OnFailure::Local => Ok(Taken::Decided(self.memory.take(now(), demands))),
            OnFailure::Allow => Ok(Taken::Uncounted),
            OnFailure::Deny => Err(Unavailable),
        }
    }
}
