//! One way to reach a route, and which of two rules comes first.

use super::conditions::{HeaderTest, QueryTest};
use super::lookup::Lookup;
use super::methods::{MethodKey, Methods};
use crate::value::{HostPattern, PathPattern, Segment};
use std::cmp::{Ordering, Reverse};
use std::fmt;

/// What a request must be to reach a route. A route with several hosts has a rule for each.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The host it is for.
    pub host: HostPattern,
    /// The paths it is for.
    pub path: PathPattern,
    /// The methods stated; `None` is every method.
    pub methods: Option<Methods>,
    /// Tests that must all pass.
    pub headers: Vec<HeaderTest>,
    /// Tests that must all pass.
    pub query: Vec<QueryTest>,
    /// Numbers of listeners; `None` is every listener.
    pub listeners: Option<Vec<u16>>,
    /// Higher comes first, before anything else is compared.
    pub priority: i32,
    /// The route that is reached.
    pub route: u32,
}

/// The parts of precedence, from the first to decide to the last.
///
/// Of all rules that match a request, the one that comes first is its route:
///
/// 1. higher `priority`,
/// 2. host: exact, then wildcard, then any,
/// 3. path: without a tail before with one; the tail behind more segments; then from left to right a literal before a
///    parameter. So a literal path is first and `/**` is last,
/// 4. methods: the method of the request is stated; then GET is stated and stands in for HEAD; then none is stated,
/// 5. more conditions on headers and query.
///
/// The order of the file decides nothing. Rules that match a common request and are equal in all parts are a tie, which
/// [`conflicts`](super::overlap::conflicts) finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `priority`.
    Priority,
    /// Host.
    Host,
    /// Path.
    Path,
    /// Methods.
    Methods,
    /// Number of conditions.
    Conditions,
}

impl Part {
    /// The part in words.
    pub fn name(self) -> &'static str {
        match self {
            Part::Priority => "priority",
            Part::Host => "host",
            Part::Path => "path",
            Part::Methods => "methods",
            Part::Conditions => "number of conditions",
        }
    }
}

/// Which rule comes first (`Less`) and the part that decides; `None` where they are equal in all parts.
pub fn precedence(a: &Rule, b: &Rule) -> Option<(Ordering, Part)> {
    let parts = [
        (b.priority.cmp(&a.priority), Part::Priority),
        (host_rank(&a.host).cmp(&host_rank(&b.host)), Part::Host),
        (path_order(&a.path, &b.path), Part::Path),
        (a.methods.is_none().cmp(&b.methods.is_none()), Part::Methods),
        (b.conditions().cmp(&a.conditions()), Part::Conditions),
    ];
    parts.into_iter().find(|(order, _)| order.is_ne())
}

/// [`precedence`] made total: what is equal in all parts is ordered by its text, never by its place in the file.
pub fn total_order(a: &Rule, b: &Rule) -> Ordering {
    match precedence(a, b) {
        Some((order, _)) => order,
        None => {
            let plain = (&a.host, &a.path).cmp(&(&b.host, &b.path));
            plain.then_with(|| a.text().cmp(&b.text())).then(a.route.cmp(&b.route))
        }
    }
}

fn host_rank(host: &HostPattern) -> u8 {
    match host {
        HostPattern::Exact(_) => 0,
        HostPattern::Wildcard(_) => 1,
        HostPattern::Any => 2,
    }
}

fn path_order(a: &PathPattern, b: &PathPattern) -> Ordering {
    let key =
        |path: &PathPattern| (path.tail().is_some(), !path.is_literal(), Reverse(path.segments().len()));
    let params = |path| PathPattern::segments(path).iter().map(Segment::is_param);
    key(a).cmp(&key(b)).then_with(|| params(a).cmp(params(b)))
}

impl Rule {
    /// Number of tests on headers and query.
    pub fn conditions(&self) -> usize {
        self.headers.len() + self.query.len()
    }

    /// Whether it applies to requests that come through this listener.
    pub fn hears(&self, listener: u16) -> bool {
        self.listeners.as_ref().is_none_or(|listeners| listeners.contains(&listener))
    }

    /// Whether listener and conditions are met; says nothing of host, path and method.
    pub(super) fn admits(&self, lookup: &Lookup<'_>) -> bool {
        self.hears(lookup.listener)
            && self.headers.iter().all(|test| test.passes(lookup.headers))
            && self.query.iter().all(|test| test.passes(lookup.query))
    }

    /// Whether the method is stated or none is.
    pub(super) fn answers(&self, method: MethodKey<'_>) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.answers_key(method))
    }

    /// Whether the method itself is stated.
    pub(super) fn states(&self, method: MethodKey<'_>) -> bool {
        self.methods.as_ref().is_some_and(|methods| methods.states_key(method))
    }

    /// All that can be said of it, for an order that does not depend on the file.
    fn text(&self) -> String {
        let mut text = self.to_string();
        for listener in self.listeners.iter().flatten() {
            text.push_str(&format!(" {listener}"));
        }
        text
    }
}

/// `GET, POST api.example.com/orders/{id} header `x-a` is present`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(methods) = &self.methods {
            write!(f, "{methods} ")?;
        }
        write!(f, "{}{}", self.host, self.path)?;
        self.headers.iter().try_for_each(|test| write!(f, " {test}"))?;
        self.query.iter().try_for_each(|test| write!(f, " {test}"))
    }
}
