//! The attempts of one request: which upstream, which target, how often, and what is counted of them.

use crate::actions::{Arm, Proxy, Resort};
use crate::exchange::{Exchange, RequestHead};
use crate::observe::metrics::Attempt;
use crate::outcome;
use crate::reply::Kind;
use crate::route::Route;
use crate::upstream::{Lease, TargetId};
use smallvec::SmallVec;
use std::time::Instant;

/// How often a request is tried at most: the first attempt, and one more where nothing can have happened yet.
const MAX: u32 = 2;

/// What a request has tried, and what it holds. Dropping it gives everything back.
#[derive(Default)]
pub struct Attempts {
    /// The resort of the route's fallback that this is about.
    resort: Option<usize>,
    arm: Option<usize>,
    key: Option<[u8; 8]>,
    lease: Option<Lease>,
    tried: SmallVec<[TargetId; MAX as usize]>,
}

impl Attempts {
    /// For the upstream that is a resort of the route's fallback.
    pub fn of_resort(number: usize) -> Attempts {
        Attempts { resort: Some(number), ..Attempts::default() }
    }

    /// Decides to which upstream the request goes and takes a target of it.
    ///
    /// # Errors
    /// There is no target to take.
    pub fn begin(&mut self, route: &Route, head: &RequestHead, x: &Exchange) -> Result<(), Kind> {
        let Some(proxy) = self.proxy(route) else { return Ok(()) };
        let (number, arm) = proxy.choose(head, x).ok_or(Kind::NO_TARGET)?;
        self.arm = Some(number);
        self.key = arm.key.as_ref().and_then(|key| key.hash(head, x)).map(u64::to_le_bytes);
        self.pick(arm)
    }

    fn pick(&mut self, arm: &Arm) -> Result<(), Kind> {
        let lease = arm
            .upstream
            .pick(self.key.as_ref().map(<[u8; 8]>::as_slice), &self.tried)
            .map_err(outcome::unpicked)?;
        self.tried.push(lease.target().id());
        self.lease = Some(lease);
        Ok(())
    }

    /// The upstream that was decided on.
    pub fn arm<'r>(&self, route: &'r Route) -> Option<&'r Arm> {
        self.proxy(route)?.arms().get(self.arm?)
    }

    fn proxy<'r>(&self, route: &'r Route) -> Option<&'r Proxy> {
        match self.resort {
            None => route.action.proxy(),
            Some(number) => match route.fallback.as_ref()?.resorts.get(number)? {
                Resort::Upstream(proxy) => Some(proxy),
                Resort::Stale | Resort::Respond(_) => None,
            },
        }
    }

    /// The target that is held.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Begins the next attempt: at the target that is held, or after a failure at another one.
    ///
    /// # Errors
    /// There is no target to take.
    pub fn hold(&mut self, route: &Route, x: &mut Exchange) -> Result<&Lease, Kind> {
        let arm = self.arm(route).ok_or(Kind::INTERNAL)?;
        if self.lease.is_none() {
            self.pick(arm)?;
        }
        let lease = self.lease.as_ref().ok_or(Kind::INTERNAL)?;
        x.tries.begin(arm.name.clone(), lease.target().label().clone());
        Ok(lease)
    }

    /// The head of the answer is there.
    pub fn answered(&self, x: &mut Exchange) {
        if let (Some(began), None) = (x.tries.began, x.tries.first_byte) {
            let first_byte = began.elapsed();
            x.tries.first_byte = Some(first_byte);
            if let Some(lease) = &self.lease {
                lease.observe(first_byte);
            }
        }
    }

    /// Whether another attempt may be made.
    pub fn may_go_on(&self, x: &Exchange) -> bool {
        x.tries.count < MAX
    }

    /// Whether the upstream has a target to offer that was not tried.
    pub fn has_another_target(&self, route: &Route) -> bool {
        self.arm(route).is_some_and(|arm| arm.upstream.has_other(&self.tried))
    }

    /// Ends an attempt that failed. Only what is the upstream's fault is held against it.
    pub fn failed(&mut self, route: &Route, x: &mut Exchange, kind: Kind) {
        let Some(lease) = self.lease.take() else { return };
        let result = outcome::attempt(kind);
        if result.is_some() {
            lease.observe_failure();
        }
        if let (Some(arm), Some(began)) = (self.arm(route), x.tries.began) {
            arm.metrics.attempt(result.unwrap_or(Attempt::Cancelled), began.elapsed());
        }
        x.tries.fail(Instant::now());
    }

    /// Counts the attempt that the request ends with, if one is under way, and gives its target back.
    pub fn finished(&mut self, route: &Route, x: &Exchange) {
        if self.lease.take().is_none() {
            return;
        }
        if let (Some(arm), Some(began)) = (self.arm(route), x.tries.began) {
            let result = if x.status >= 500 { Attempt::ServerError } else { Attempt::Ok };
            arm.metrics.attempt(result, began.elapsed());
        }
    }
}
