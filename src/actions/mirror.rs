//! `mirror`: copies of requests for another upstream, whose answers nobody sees (RT-15).

use super::{Arm, Proxy};
use crate::build::{Bind, Build};
use crate::observe::metrics::MirrorMetrics;
use crate::value::{At, ByteSize, Code, Issue, Issues, Name, Percent, Positive, Span, Spanned};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Copies of requests for another upstream. They go out beside the requests themselves, after all changes to them, with
/// `x-shadow: 1`; what comes back is thrown away. They can neither delay a request nor make it fail, and are never repeated.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorRule {
    /// The upstream that gets them.
    pub to: Spanned<Name>,
    /// Share of requests. Default `100%`.
    pub percent: Option<Percent>,
    /// Largest body that is copied; requests with larger ones are not mirrored. Default `64KiB`, at most `16MiB`.
    pub max_body: Option<Spanned<ByteSize>>,
    /// How long a copy may take, from connecting to the end of its answer. Default `5s`.
    pub timeout: Option<Positive<Span>>,
    /// Most copies at once; requests beyond are not mirrored. Default 100.
    pub at_once: Option<Positive<u32>>,
}

/// Largest body that can be asked for, bytes: copies are held in memory.
const LARGEST: u64 = 16 << 20;

/// Where copies of a route's requests go.
pub struct Mirror {
    /// The upstream that gets them.
    pub arm: Arm,
    /// Most bytes of body.
    pub max_body: usize,
    /// How long a copy may take.
    pub timeout: Duration,
    /// What they are counted with.
    pub metrics: MirrorMetrics,
    /// Where it is written.
    pub at: At,
    share: Percent,
    at_once: u32,
    /// Goes on over a reload.
    under_way: Arc<AtomicU32>,
}

impl Mirror {
    /// Resolves and checks a rule of a route that goes to `proxy`.
    pub fn new(
        rule: &Spanned<MirrorRule>,
        proxy: &Proxy,
        bind: Bind<'_>,
        build: &Build,
        issues: &mut Issues,
    ) -> Option<Mirror> {
        let MirrorRule { to, percent, max_body, timeout, at_once } = &rule.value;
        if let Some(max) = max_body.as_ref().filter(|max| max.value.0 > LARGEST) {
            let message = format!("copies are held in memory: at most {} each", ByteSize(LARGEST));
            issues.push(Issue::new(Code::BAD_VALUE, message).at(max.at));
        }
        if proxy.is_only(&to.value) {
            let message = format!("upstream `{}` would get every request of the route twice", to.value);
            let issue = Issue::new(Code::CONFLICT, message).at(to.at);
            issues.push(issue.help("name another upstream, or write `mirror: none` on the route"));
        }
        let arm = issues.take(Arm::new(&to.value, to.at, bind.params, build))?;
        let max_body = max_body.as_ref().map_or(64 << 10, |max| max.value.0.min(LARGEST));
        Some(Mirror {
            arm,
            max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
            timeout: timeout.map_or(Duration::from_secs(5), |span| span.0),
            metrics: build.metrics().mirror(bind.api, bind.route),
            at: rule.at,
            share: percent.unwrap_or(Percent(10_000)),
            at_once: at_once.map_or(100, |most| *most),
            under_way: build.keep(
                &format!("mirror {}.{}", bind.api, bind.route),
                |_| true,
                AtomicU32::default,
            ),
        })
    }

    /// Draws by lot whether a request is copied.
    pub fn hits(&self) -> bool {
        self.share.0 >= 10_000 || crate::tasks::random() % 10_000 < u64::from(self.share.0)
    }

    /// A place among the copies that may be under way at once.
    pub fn place(&self) -> Option<Place> {
        let one_more = |taken: u32| (taken < self.at_once).then_some(taken + 1);
        let taken = self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Place(self.under_way.clone()))
    }

    /// In a few words, for `explain`.
    pub fn describe(&self) -> String {
        let size = ByteSize(self.max_body as u64);
        format!("{} of requests to {}  bodies up to {size}", self.share, self.arm.name)
    }
}

/// One of the copies under way, until it is dropped.
pub struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
