//! Routes: what matches, and what a match leads to.

pub mod conditions;
mod lookup;
pub mod matching;
pub mod methods;
mod near;
pub mod overlap;
pub mod retry;
mod rule;
pub mod table;
mod trie;

pub use conditions::{HeaderTest, QueryTest, Test};
pub use lookup::Lookup;
pub use methods::Methods;
pub use near::Near;
pub use overlap::{Conflict, conflicts};
pub use retry::Retry;
pub use rule::{Part, Rule, precedence};
pub use table::{Found, Table};

use crate::actions::{Action, Fallback, Mirror};
use crate::cache::rules::Rules;
use crate::compress::Compress;
use crate::filters::Chain;
use crate::filters::rules::Forwarded;
use crate::observe::RouteFields;
use crate::observe::metrics::{CacheMetrics, RouteMetrics};
use crate::value::{At, PathPattern};
use std::sync::Arc;
use std::time::Duration;

/// A route, ready to run.
pub struct Route {
    /// Name of its API.
    pub api: Arc<str>,
    /// Its name in the API; `v1.read` when the API has versions.
    pub name: Arc<str>,
    /// `api.name`.
    pub id: Arc<str>,
    /// The pattern that its requests match.
    pub pattern: PathPattern,
    /// The pattern as text: low-cardinality name of the path in logs.
    pub template: Arc<str>,
    /// Where it is written.
    pub at: At,
    /// Its steps.
    pub chain: Chain,
    /// What answers.
    pub action: Action,
    /// Where copies of its requests go.
    pub mirror: Option<Mirror>,
    /// What is answered when the upstream fails.
    pub fallback: Option<Fallback>,
    /// Compression of its answers.
    pub compress: Option<Compress>,
    /// Whether calls of gRPC-Web clients are translated.
    pub grpc_web: bool,
    /// What is kept of its answers, if anything is.
    pub cache: Option<Arc<Rules>>,
    /// What that is counted with.
    pub cache_metrics: Option<CacheMetrics>,
    /// How long to wait for the upstream.
    pub timeouts: Timeouts,
    /// Where the timeouts are written.
    pub timeouts_at: At,
    /// Whether it answers for browsers that ask if they may use one of its methods.
    pub answers_preflights: bool,
    /// When a request is tried again.
    pub retry: Retry,
    /// Where that is written.
    pub retry_at: At,
    /// Most bytes of a request body.
    pub body_max: Option<u64>,
    /// Which headers tell the upstream of the client.
    pub forwarded: Forwarded,
    /// Whether everybody may call.
    pub is_public: bool,
    /// Who may call, where that is written.
    pub auth_at: At,
    /// What the access log says of it.
    pub fields: RouteFields,
    /// Its metrics, resolved.
    pub metrics: RouteMetrics,
}

/// How long to wait for the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// Silence of the upstream before its answer.
    pub response: Duration,
    /// Silence of the client within its request and of the upstream within its answer; and how long either side may take
    /// nothing.
    pub idle: Duration,
    /// Silence of both sides of a WebSocket or a gRPC call, or of the upstream between two server-sent events.
    pub stream_idle: Duration,
    /// Most time for a gRPC call as a whole.
    pub deadline: Option<Duration>,
    /// Most time for a WebSocket as a whole.
    pub websocket_lifetime: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            stream_idle: Duration::from_secs(600),
            deadline: None,
            websocket_lifetime: None,
        }
    }
}
