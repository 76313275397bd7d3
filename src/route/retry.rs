//! When a request is tried again: which trouble, which methods, how often, and how long between.

pub mod document;

use crate::exchange::RequestHead;
use crate::tasks::random;
use crate::value::{Code, Issue, Issues, Percent, Span, Trigger, Triggers, Trouble};
use http::{HeaderName, Method};
use smallvec::SmallVec;
use std::fmt;
use std::time::Duration;

/// Whoever sends it promises that the request is acted on once, however often it comes
/// (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The rules of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all; 1 is never again.
    pub attempts: u32,
    /// After which trouble.
    pub on: Triggers,
    /// Which requests may be sent again once they were sent.
    pub methods: Repeatable,
    /// Most retries, as a share of the upstream's requests.
    pub budget: Percent,
    /// How long one attempt may take until its answer begins, where that is shorter than the route's own time.
    pub per_try_timeout: Option<Duration>,
    /// The longest pause before the first retry; each further one is at most twice as long.
    pub base: Duration,
    /// The longest pause.
    pub max: Duration,
    /// Most bytes of a body that are kept to be sent again.
    pub body: u64,
}

/// Requests that may be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// Every one.
    All,
    /// Those with one of these methods, if `idempotent` those whose repetition changes nothing (RFC 9110 section 9.2.2), and
    /// those with an `Idempotency-Key`.
    Some {
        /// Whether idempotent ones may.
        idempotent: bool,
        /// Further methods.
        methods: SmallVec<[Method; 2]>,
    },
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: 2,
            on: Triggers::new(&[Trigger::Is(Trouble::Connect), Trigger::Is(Trouble::Reset)]),
            methods: Repeatable::Some { idempotent: true, methods: SmallVec::new() },
            budget: Percent(2_000),
            per_try_timeout: None,
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
            body: 64 << 10,
        }
    }
}

impl Retry {
    /// From what was written.
    pub fn new(written: &document::Retry) -> Self {
        let default = Retry::default();
        let backoff = written.backoff.clone().unwrap_or_default();
        let base = backoff.base.map_or(default.base, |span| span.value.0);
        Retry {
            attempts: written.attempts.map_or(default.attempts, |attempts| attempts.0),
            on: written.on.as_ref().map_or(default.on, |on| Triggers::new(&on.0)),
            methods: written.methods.as_ref().map_or(default.methods, |methods| repeatable(&methods.0)),
            budget: written.budget.unwrap_or(default.budget),
            per_try_timeout: written.per_try_timeout.map(|span| span.0),
            max: backoff.max.map_or(default.max, |span| span.value.0),
            base,
            body: written.body.map_or(default.body, |size| size.0),
        }
    }

    /// What is wrong with what was written.
    pub fn check(written: &document::Retry, issues: &mut Issues) {
        let default = Retry::default();
        let Some(document::Backoff { base, max }) = &written.backoff else { return };
        let (first, most) =
            (base.map_or(default.base, |base| base.value.0), max.map_or(default.max, |max| max.value.0));
        if let Some(at) = max.map(|max| max.at).or(base.map(|base| base.at)).filter(|_| most < first) {
            let message =
                format!("the longest pause ({}) is shorter than the first ({})", Span(most), Span(first));
            issues.push(Issue::new(Code::CONFLICT, message).at(at).help("make `max` no less than `base`"));
        }
    }

    /// Never again.
    pub fn never() -> Self {
        Retry { attempts: 1, on: Triggers::default(), ..Retry::default() }
    }

    /// Whether this request may be sent again once it was sent.
    pub fn covers(&self, head: &RequestHead) -> bool {
        match &self.methods {
            Repeatable::All => true,
            Repeatable::Some { idempotent, methods } => {
                (*idempotent && head.method.is_idempotent())
                    || methods.contains(&head.method)
                    || head.headers.contains_key(IDEMPOTENCY_KEY)
            }
        }
    }

    /// How long to wait before the retry of this number, from 1: a random time, so that those who failed together do not come
    /// back together.
    pub fn pause(&self, retry: u32) -> Duration {
        let doubled = 1_u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.base.saturating_mul(doubled).min(self.max);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random().checked_rem(micros.saturating_add(1)).unwrap_or(0))
    }
}

fn repeatable(written: &[document::RetryMethod]) -> Repeatable {
    if written.contains(&document::RetryMethod::All) {
        return Repeatable::All;
    }
    let one = |method: &document::RetryMethod| match method {
        document::RetryMethod::One(method) => Some(method.clone()),
        document::RetryMethod::All | document::RetryMethod::Idempotent => None,
    };
    Repeatable::Some {
        idempotent: written.contains(&document::RetryMethod::Idempotent),
        methods: written.iter().filter_map(one).collect(),
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attempts <= 1 {
            return f.write_str("never");
        }
        write!(f, "{} attempts on {}, {} of requests", self.attempts, self.on, self.budget)?;
        match self.per_try_timeout {
            Some(time) => write!(f, ", each within {}", Span(time)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: Method, key: bool) -> RequestHead {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = method;
        if key {
            head.headers.insert(IDEMPOTENCY_KEY, http::HeaderValue::from_static("1"));
        }
        head
    }

    fn covers(methods: &[&str], method: Method, key: bool) -> bool {
        let methods: Vec<document::RetryMethod> = methods.iter().map(|text| text.parse().unwrap()).collect();
        Retry { methods: repeatable(&methods), ..Retry::default() }.covers(&head(method, key))
    }

    #[test]
    fn idempotent_requests_are_sent_again_and_others_with_a_promise() {
        let default = Retry::default();
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(default.covers(&head(method, false)));
        }
        assert!(!default.covers(&head(Method::POST, false)) && !default.covers(&head(Method::PATCH, false)));
        assert!(default.covers(&head(Method::POST, true)), "the client has promised");
        assert!(covers(&["all"], Method::POST, false));
        assert!(covers(&["GET", "POST"], Method::POST, false) && !covers(&["GET"], Method::PUT, false));
        assert!(covers(&["idempotent", "POST"], Method::PUT, false));
    }

    #[test]
    fn pauses_are_random_and_grow() {
        let retry = Retry::default();
        let longest = |number| (0..500).map(|_| retry.pause(number)).max().unwrap();
        assert!(longest(1) <= Duration::from_millis(25) && longest(1) > Duration::from_millis(20));
        assert!(longest(3) <= Duration::from_millis(100) && longest(3) > Duration::from_millis(80));
        assert!(longest(60) <= Duration::from_millis(250));
        assert_eq!(Retry { base: Duration::ZERO, ..Retry::default() }.pause(1), Duration::ZERO);
        assert!((0..500).map(|_| retry.pause(1)).min().unwrap() < Duration::from_millis(5));
    }
}
