//! The steps a request passes, in one fixed order.
//!
//! [`STEPS`] is that order: what runs, what `tollgate explain` prints and what the reference page shows. A route has those
//! steps that its settings ask for; nobody configures the order. Responses pass the same steps in reverse.

pub mod auth;
mod body;
mod concurrency;
pub mod cors;
mod deprecation;
mod fault;
mod headers;
mod ip;
pub mod limits;
mod maintenance;
mod rewrite;
pub mod rules;
mod version;

pub use body::{DEFAULT_MAX, too_large};
pub use deprecation::{Deprecation, Successor};
pub use version::Marker;

use crate::auth::Waiting;
use crate::build::{Bind, Build};
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use crate::reply::{Problem, Reply};
use crate::value::{At, ByteSize, Issues, Spanned};
use auth::rules::Auth;
use cors::rules::CorsRules;
use limits::Plans;
use limits::rules::{HeaderStyle, Limits};
use rules::{ConcurrencyRule, FaultRule, IpRules, Maintenance, RequestRules, ResponseRules};

/// A step. Every hook defaults to "nothing"; which of them do something is said when it is made.
pub trait Filter: Send + Sync {
    /// When the request head is there and the route is known.
    fn on_request<'a>(&'a self, _request: &'a RequestHead, _x: &'a mut Exchange) -> Step<'a> {
        Step::Continue
    }

    /// Before each attempt, on a fresh copy `head` of `request`.
    fn on_upstream_request(
        &self,
        _head: &mut RequestHead,
        _request: &RequestHead,
        _x: &Exchange,
    ) -> Result<(), Problem> {
        Ok(())
    }

    /// When an answer goes to the client: the upstream's or our own. Cannot fail.
    fn on_response(&self, _head: &mut ResponseHead, _request: &RequestHead, _x: &Exchange) {}

    /// What it would do to this request, in a few words, for `tollgate explain`.
    fn explain(&self, request: &RequestHead, x: &Exchange) -> String;
}

/// What becomes of a request after a step.
#[must_use]
pub enum Step<'a> {
    /// On to the next.
    Continue,
    /// The end: this is the answer.
    Reply(Reply),
    /// Somebody else must be asked first; then the answer, if this is the end.
    Wait(Waiting<'a, Option<Reply>>),
}

/// The hooks a step has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// [`Filter::on_request`].
    pub request: bool,
    /// [`Filter::on_upstream_request`].
    pub upstream_request: bool,
    /// [`Filter::on_response`].
    pub response: bool,
}

impl Hooks {
    /// Only [`Filter::on_request`].
    pub const REQUEST: Hooks = Hooks { request: true, upstream_request: false, response: false };
    /// Only [`Filter::on_upstream_request`].
    pub const UPSTREAM_REQUEST: Hooks = Hooks { request: false, upstream_request: true, response: false };
    /// Only [`Filter::on_response`].
    pub const RESPONSE: Hooks = Hooks { request: false, upstream_request: false, response: true };
}

/// What the steps of one route are made from: settings after inheritance.
pub struct Settings<'a> {
    /// Who may call.
    pub auth: Option<Spanned<&'a Auth>>,
    /// Limits, and how many levels below `defaults` they are written.
    pub limits: Option<(usize, Spanned<&'a Limits>)>,
    /// What consumers' plans limit.
    pub plans: &'a Plans,
    /// Which header fields tell clients of their limits.
    pub limit_fields: HeaderStyle,
    /// Pages of other origins.
    pub cors: Option<Spanned<&'a CorsRules>>,
    /// Address rules.
    pub ip: Option<Spanned<&'a IpRules>>,
    /// Maintenance of the API.
    pub maintenance: Option<Spanned<&'a Maintenance>>,
    /// When the route or its version ends.
    pub deprecation: Option<Spanned<Deprecation>>,
    /// How many requests at once.
    pub concurrency: Option<Spanned<&'a ConcurrencyRule>>,
    /// Faults on purpose.
    pub fault: Option<Spanned<&'a FaultRule>>,
    /// Most bytes of a request body, if there is a limit.
    pub body: Option<Spanned<ByteSize>>,
    /// Version of the API, and where requests name it.
    pub version: Option<Spanned<(String, Marker)>>,
    /// Request rules.
    pub request: &'a Spanned<RequestRules>,
    /// Response rules.
    pub response: &'a Spanned<ResponseRules>,
    /// What templates are bound to.
    pub bind: Bind<'a>,
    /// What names refer to.
    pub build: &'a Build,
}

impl Settings<'_> {
    /// Whether callers prove who they are.
    fn has_callers(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| *auth.value != Auth::Public)
    }

    /// Whether plans of callers limit them here.
    fn has_plans(&self) -> bool {
        self.has_callers() && !self.plans.is_empty()
    }
}

/// A step of a route: what it does, when, and where it was configured.
pub struct Made {
    filter: Box<dyn Filter>,
    hooks: Hooks,
    at: At,
}

impl Made {
    fn new(filter: impl Filter + 'static, hooks: Hooks, at: At) -> Made {
        Made { filter: Box::new(filter), hooks, at }
    }
}

type Maker = fn(&Settings<'_>, &mut Issues) -> Option<Made>;

/// THE LIST: every step in the order in which requests pass it, and what it is for.
pub const STEPS: &[(&str, Maker, &str)] = &[
    (cors::NAME, cors::make, "answers preflights and tells browsers which pages may read answers"),
    (ip::NAME, ip::make, "refuses client addresses (403)"),
    (maintenance::NAME, maintenance::make, "answers 503 while the API is in maintenance"),
    (limits::BY_ADDRESS, limits::make_by_address, "refuses addresses that call too often (429)"),
    (auth::NAME, auth::make, "proves who calls (401, 403)"),
    (deprecation::NAME, deprecation::make, "tells of deprecation and sunset, and refuses what is gone (410)"),
    (concurrency::NAME, concurrency::make, "refuses requests beyond so many at once (429, 503)"),
    (
        limits::NAME,
        limits::make,
        "refuses callers that call too often or have used up their quota (429, 402)",
    ),
    (body::NAME, body::make, "refuses bodies that are too large (413)"),
    (fault::NAME, fault::make, "delays and aborts requests on purpose"),
    (version::NAME, version::make, "takes the version's marker out of the request"),
    (headers::REQUEST, headers::make_request, "changes request headers"),
    (rewrite::NAME, rewrite::make, "changes path, query, method and host"),
    (headers::RESPONSE, headers::make_response, "changes response headers"),
];

/// The steps of one route.
#[derive(Default)]
pub struct Chain {
    steps: Vec<(&'static str, Made)>,
    request: Vec<usize>,
    upstream_request: Vec<usize>,
    response: Vec<usize>,
}

impl Chain {
    /// Makes the steps that the settings ask for.
    pub fn new(settings: &Settings<'_>, issues: &mut Issues) -> Chain {
        let mut chain = Chain::default();
        for (name, make, _) in STEPS {
            if let Some(made) = make(settings, issues) {
                chain.push(name, made);
            }
        }
        chain.response.reverse();
        chain
    }

    /// Adds a step of a test's own.
    #[cfg(test)]
    pub fn add(&mut self, filter: impl Filter + 'static) {
        let hooks = Hooks { request: true, upstream_request: true, response: true };
        self.push("test", Made::new(filter, hooks, At::NOWHERE));
    }

    fn push(&mut self, name: &'static str, made: Made) {
        let (number, hooks) = (self.steps.len(), made.hooks);
        self.steps.push((name, made));
        let lists = [
            (hooks.request, &mut self.request),
            (hooks.upstream_request, &mut self.upstream_request),
            (hooks.response, &mut self.response),
        ];
        for (has, list) in lists {
            if has {
                list.push(number);
            }
        }
    }

    /// Runs the request through and tells of each step its name, where it was configured, and what it did in a few words.
    /// The first reply ends it.
    pub async fn explain(
        &self,
        request: &RequestHead,
        x: &mut Exchange,
        mut tell: impl FnMut(&'static str, At, String),
    ) -> Option<Reply> {
        for (name, made) in &self.steps {
            let reply = if made.hooks.request { run(&*made.filter, request, x).await } else { None };
            tell(name, made.at, made.filter.explain(request, x));
            if reply.is_some() {
                return reply;
            }
        }
        None
    }

    fn at<'a>(&'a self, numbers: &'a [usize]) -> impl Iterator<Item = &'a dyn Filter> {
        numbers.iter().filter_map(|number| self.steps.get(*number)).map(|(_, made)| &*made.filter)
    }

    /// Runs the request through; the first reply ends it.
    pub async fn on_request(&self, request: &RequestHead, x: &mut Exchange) -> Option<Reply> {
        for step in self.at(&self.request) {
            let reply = run(step, request, x).await;
            if reply.is_some() {
                return reply;
            }
        }
        None
    }

    /// Prepares the head of one attempt.
    ///
    /// # Errors
    /// The problem that ends the request.
    pub fn on_upstream_request(
        &self,
        head: &mut RequestHead,
        request: &RequestHead,
        x: &Exchange,
    ) -> Result<(), Problem> {
        self.at(&self.upstream_request).try_for_each(|step| step.on_upstream_request(head, request, x))
    }

    /// Runs the response back through, last step first.
    pub fn on_response(&self, head: &mut ResponseHead, request: &RequestHead, x: &Exchange) {
        self.at(&self.response).for_each(|step| step.on_response(head, request, x));
    }
}

/// One step; only one that waits for somebody else costs a future of its own.
async fn run(step: &dyn Filter, request: &RequestHead, x: &mut Exchange) -> Option<Reply> {
    match step.on_request(request, x) {
        Step::Continue => None,
        Step::Reply(reply) => Some(reply),
        Step::Wait(waiting) => waiting.await,
    }
}
