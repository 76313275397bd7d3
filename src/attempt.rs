//! The attempts of one request: which upstream, which target, how often, and what is counted of them.

use crate::actions::{Arm, Proxy, Resort};
use crate::exchange::{Exchange, RequestHead};
use crate::observe::metrics::Attempt;
use crate::outcome;
use crate::reply::{Kind, Problem};
use crate::route::Route;
use crate::upstream::{Lease, Spent, TargetId};
use crate::value::Trouble;
use http::{HeaderValue, StatusCode};
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// What a request has tried, and what it holds. Dropping it gives everything back.
#[derive(Default)]
pub struct Attempts {
    /// The resort of the route's fallback that this is about.
    resort: Option<usize>,
    arm: Option<usize>,
    key: Option<[u8; 8]>,
    lease: Option<Lease>,
    tried: SmallVec<[TargetId; 2]>,
    /// A retry that costs nothing if it leads to an answer: the target before has not seen the request.
    spent: Option<Spent>,
    /// How long to wait before the next attempt.
    pause: Duration,
    /// Whether the upstream knows how the present attempt went.
    reported: bool,
    /// Status of the present attempt's answer, which need not be what the client gets.
    status: Option<u16>,
}

/// An attempt that brought no answer for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What went wrong.
    pub trouble: Trouble,
    /// Whether the request may be sent again and can be: its method allows it, and its body is still there.
    pub repeatable: bool,
    /// Whether the connection was used before and ended without a word: then the target cannot have acted on the request
    /// (RFC 9112 section 9.3.1).
    pub stale: bool,
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
    pub fn begin(&mut self, route: &Route, head: &RequestHead, x: &Exchange) -> Result<(), Problem> {
        let Some(proxy) = self.proxy(route) else { return Ok(()) };
        let (number, arm) = proxy.choose(head, x).ok_or(Kind::NO_TARGET)?;
        self.arm = Some(number);
        self.key = arm.target_key(head, x);
        self.pick(arm)
    }

    fn pick(&mut self, arm: &Arm) -> Result<(), Problem> {
        let lease = arm
            .upstream
            .pick(self.key.as_ref().map(<[u8; 8]>::as_slice), &self.tried)
            .map_err(outcome::unpicked)?;
        self.tried.push(lease.target().id());
        self.lease = Some(lease);
        (self.reported, self.status) = (false, None);
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
    pub fn hold(&mut self, route: &Route, x: &mut Exchange) -> Result<&Lease, Problem> {
        let arm = self.arm(route).ok_or(Kind::INTERNAL)?;
        if self.lease.is_none() {
            self.pick(arm)?;
        }
        let lease = self.lease.as_ref().ok_or(Kind::INTERNAL)?;
        x.tries.begin(arm.name.clone(), lease.target().label().clone());
        if let (1, Some(began)) = (self.tried.len(), x.tries.began)
            && route.retry.attempts > 1
        {
            arm.upstream.budget().request(began);
        }
        Ok(lease)
    }

    /// How long to wait before the next attempt begins; zero for the first one.
    pub fn pause(&mut self) -> Duration {
        std::mem::take(&mut self.pause)
    }

    /// How long an attempt may be without an answer.
    pub fn response_within(&self, route: &Route) -> Duration {
        let within = route.timeouts.response;
        route.retry.per_try_timeout.map_or(within, |per_try| per_try.min(within))
    }

    /// The head of the final answer is there.
    pub fn answered(&mut self, x: &mut Exchange) {
        let (Some(began), None) = (x.tries.began, x.tries.first_byte) else { return };
        let now = Instant::now();
        let first_byte = now.saturating_duration_since(began);
        x.tries.first_byte = Some(first_byte);
        if let Some(lease) = &self.lease {
            lease.observe(first_byte, now);
        }
    }

    /// The same, and the upstream is told what it is.
    pub fn heard(&mut self, route: &Route, x: &mut Exchange, status: StatusCode) {
        self.answered(x);
        self.status = Some(status.as_u16());
        let trouble = (status.as_u16() >= 400).then_some(Trouble::Status(status.as_u16()));
        if let (Some(began), Some(first_byte)) = (x.tries.began, x.tries.first_byte) {
            self.report(route, trouble, began + first_byte);
        }
        if let (Some(spent), Some(arm)) = (self.spent.take(), self.arm(route)) {
            arm.upstream.budget().give_back(spent);
        }
    }

    /// Tells the upstream once how the attempt went.
    fn report(&mut self, route: &Route, trouble: Option<Trouble>, now: Instant) {
        if !std::mem::replace(&mut self.reported, true)
            && let Some(arm) = self.arm(route)
            && let Some(lease) = &mut self.lease
        {
            arm.upstream.report(lease, trouble, now);
        }
    }

    /// `Set-Cookie` that keeps the client with the target that has answered, unless it names it already.
    pub fn sticky_field(&self, route: &Route, x: &Exchange) -> Option<&HeaderValue> {
        self.arm(route)?.upstream.sticky()?;
        let target = self.lease.as_ref()?.target();
        let named = self.key.map(u64::from_le_bytes);
        target.sticky_field(x.secure).filter(|_| named.is_none() || named != target.sticky_id())
    }

    /// Whether an answer of this status is not for the client: another attempt is to be made instead. To be asked before
    /// [`Attempts::heard`]; if so, [`Attempts::dismissed`] ends the attempt.
    pub fn dismisses(&mut self, route: &Route, x: &Exchange, status: StatusCode, repeatable: bool) -> bool {
        route.retry.on.has_status(status) && {
            let trouble = Trouble::Status(status.as_u16());
            self.goes_on(route, x, Failed { trouble, repeatable, stale: false })
        }
    }

    /// Ends an attempt whose answer is not for the client.
    pub fn dismissed(&mut self, route: &Route, x: &mut Exchange, status: StatusCode) {
        let now = Instant::now();
        self.report(route, Some(Trouble::Status(status.as_u16())), now);
        self.lease = None;
        if let (Some(arm), Some(began)) = (self.arm(route), x.tries.began) {
            arm.metrics.attempt(Attempt::ServerError, now.saturating_duration_since(began));
        }
        x.tries.fail(now);
    }

    /// Whether another attempt is made. One that is granted is counted, and [`Attempts::pause`] tells when it begins.
    pub fn goes_on(&mut self, route: &Route, x: &Exchange, failed: Failed) -> bool {
        let (Some(arm), retry) = (self.arm(route), &route.retry) else { return false };
        let unsent = failed.trouble == Trouble::Connect;
        if x.tries.count >= retry.attempts
            || !retry.on.has(failed.trouble) && !failed.stale
            || !unsent && !failed.repeatable
            // Who refuses connections does so again at once.
            || unsent && !arm.upstream.has_other(&self.tried)
            || arm.upstream.breaker().is_some_and(|breaker| !breaker.is_closed())
        {
            return false;
        }
        let now = Instant::now();
        // One that was refunded or is repeated for nothing does no harm; all others together stay within the budget.
        if !failed.stale {
            let Some(spent) = arm.upstream.budget().spend(retry.budget, now) else {
                arm.metrics.retry("over_budget");
                return false;
            };
            self.spent = Some(spent).filter(|_| unsent);
            self.pause = if unsent { Duration::ZERO } else { retry.pause(x.tries.count) };
        }
        arm.metrics.retry(match failed.trouble {
            _ if failed.stale => "stale",
            Trouble::Connect => "connect",
            Trouble::Reset => "reset",
            Trouble::Timeout => "timeout",
            Trouble::Status(_) => "status",
        });
        true
    }

    /// Ends an attempt that failed. Only what is the upstream's fault is held against it.
    pub fn failed(&mut self, route: &Route, x: &mut Exchange, kind: Kind) {
        let now = Instant::now();
        let result = outcome::attempt(kind);
        if let Some(trouble) = result.and_then(outcome::trouble) {
            self.report(route, Some(trouble), now);
        }
        let Some(lease) = self.lease.take() else { return };
        if result.is_some() {
            lease.observe_failure();
        }
        if let (Some(arm), Some(began)) = (self.arm(route), x.tries.began) {
            let time = now.saturating_duration_since(began);
            arm.metrics.attempt(result.unwrap_or(Attempt::Cancelled), time);
        }
        x.tries.fail(now);
    }

    /// Counts the attempt that the request ends with, if one is under way, and gives its target back.
    pub fn finished(&mut self, route: &Route, x: &Exchange) {
        if self.lease.take().is_none() {
            return;
        }
        if let (Some(arm), Some(began)) = (self.arm(route), x.tries.began) {
            let failed = self.status.unwrap_or(x.status) >= 500;
            let result = if failed { Attempt::ServerError } else { Attempt::Ok };
            arm.metrics.attempt(result, began.elapsed());
        }
    }
}
