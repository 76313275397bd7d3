//! The inherited settings of a route: who, how long, how much, and what is rewritten.

use crate::value::{
    ByteSize, Cidr, HeaderKey, Key, Map, MethodName, Percent, Positive, Seconds, Short, Span, Spanned,
    Template, short_value,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Client addresses: `deny` is looked at first; when there is an `allow` list, whoever is not on it is refused with 403.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpRules {
    /// Only these are let in.
    pub allow: Option<Spanned<Vec<Cidr>>>,
    /// These are refused.
    #[serde(default)]
    pub deny: Vec<Cidr>,
}

/// How long to wait for the upstream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// To connect, TLS handshake included. Default `1s`.
    pub connect: Option<Positive<Span>>,
    /// How long the upstream may be silent until its answer begins. Default `30s`.
    pub response: Option<Positive<Span>>,
    /// How long the client may be silent between two pieces of its request and the upstream between two pieces of its
    /// answer, and how long either side may take nothing of what is sent to it. Default `60s`.
    pub idle: Option<Positive<Span>>,
    /// How long nothing may be said over a WebSocket or in a gRPC call, in either direction, and how long the upstream may be
    /// silent between two server-sent events. Default `10m`.
    pub stream_idle: Option<Positive<Span>>,
    /// Most time for a gRPC call as a whole, however much more its `grpc-timeout` asks for. The upstream is told what is left
    /// of it. Default: as long as the client says.
    pub deadline: Option<Positive<Span>>,
    /// Most time for a WebSocket as a whole, however much is said. The client is then told to go away (1001), which lets it come
    /// again, for instance to be asked anew who it is. Default: no limit.
    pub websocket_lifetime: Option<Positive<Span>>,
}

/// Limits of the request body.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodyRule {
    /// Most bytes; more is answered 413, by `Content-Length` before anything is read, else while counting. Default `10MiB`.
    pub max: Option<ByteSize>,
}

/// How many requests of a route may be served at once; nobody waits for others to end. Each route counts for itself, also
/// where the rule is inherited.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConcurrencyRule {
    /// Most requests at once; more are answered 503.
    pub max: Option<Spanned<u32>>,
    /// Most requests of one caller at once; more are answered 429.
    pub each: Option<Spanned<u32>>,
    /// With `each`: what tells callers apart. Requests that do not have it count by their address. Default `client_ip`.
    pub per: Option<Spanned<Key>>,
}

/// Faults on purpose, to see how callers bear them. A delay comes before an abort; each is drawn by lot for itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Requests that wait before they go on.
    pub delay: Option<FaultDelay>,
    /// Requests that are answered here, and not by the upstream.
    pub abort: Option<FaultAbort>,
    /// Only requests that have this header field. It does not reach the upstream. Default: all requests.
    pub header: Option<HeaderKey>,
}

/// A delay on purpose.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultDelay {
    /// How long.
    pub time: Spanned<Span>,
    /// Share of requests. Default `100%`.
    pub percent: Option<Percent>,
}

/// An error on purpose.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultAbort {
    /// Status, 400 to 599.
    pub status: Spanned<u16>,
    /// Share of requests. Default `100%`.
    pub percent: Option<Percent>,
}

/// Changes to the request on its way to the upstream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestRules {
    /// Header fields.
    #[serde(default)]
    pub headers: HeaderRules,
    /// The path.
    pub path: Option<Spanned<PathRule>>,
    /// The query.
    pub query: Option<QueryRules>,
    /// Another method.
    pub method: Option<MethodName>,
    /// Another `Host`: wins over the upstream's `host`.
    pub host: Option<Spanned<Template>>,
    /// Which headers tell the upstream of the client: `x-forwarded` (default), `forwarded` (RFC 7239), `both`, `none`.
    pub forwarded: Option<Forwarded>,
}

/// Changes to the response on its way to the client.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseRules {
    /// Header fields.
    #[serde(default)]
    pub headers: HeaderRules,
}

/// Changes to header fields, always in this order: remove, rename, default, set, add.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderRules {
    /// For responses: `secure` sets, where the upstream does not, what browsers ask of a careful site
    /// (`Strict-Transport-Security` over TLS, `X-Content-Type-Options`, `X-Frame-Options`, `Referrer-Policy`,
    /// `Cross-Origin-Opener-Policy`) and removes `Server` and `X-Powered-By`. Names that other rules here name are left to
    /// them.
    pub preset: Option<Spanned<Preset>>,
    /// Fields to remove.
    #[serde(default)]
    pub remove: Vec<HeaderKey>,
    /// Fields to rename: from old to new.
    #[serde(default)]
    pub rename: Map<HeaderKey, HeaderKey>,
    /// Fields to set where the message has none.
    #[serde(default)]
    pub default: Map<Spanned<Template>, HeaderKey>,
    /// Fields to set; what was there is replaced.
    #[serde(default)]
    pub set: Map<Spanned<Template>, HeaderKey>,
    /// Fields to add; what was there stays.
    #[serde(default)]
    pub add: Map<Spanned<Template>, HeaderKey>,
}

/// A set of rules for header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// What browsers ask of a careful site.
    Secure,
}

/// How the path is rewritten; one of these.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathRule {
    /// Remove this prefix, whole segments only; a path without it stays as it is.
    Strip(String),
    /// Replace the whole path; may use `${path.NAME}`.
    Replace(Template),
    /// Replace what a regular expression finds.
    Regex(PathRegex),
}

/// A regular expression and its replacement.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathRegex {
    /// The expression (RE2 syntax, linear time).
    pub find: String,
    /// The replacement; `$1` is the first group.
    pub replace: String,
}

/// Changes to the query, always in this order: allow, remove, rename, set, add. What is not touched stays byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryRules {
    /// Only these parameters are kept.
    pub allow: Option<Vec<String>>,
    /// Parameters to remove.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Parameters to rename: from old to new.
    #[serde(default)]
    pub rename: Map<String, String>,
    /// Parameters to set; what was there is replaced.
    #[serde(default)]
    pub set: Map<Spanned<Template>, String>,
    /// Parameters to add.
    #[serde(default)]
    pub add: Map<Spanned<Template>, String>,
}

/// Which headers tell the upstream of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarded {
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Both.
    Both,
    /// Neither; what the client sent is removed.
    None,
}

/// Every route of the API answers 503.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    /// Whether it is on.
    pub on: bool,
    /// Value of `Retry-After`.
    pub retry_after: Option<Positive<Seconds>>,
    /// Text for the caller.
    pub message: Option<String>,
}

/// Maintenance in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MaintenanceInFull {
    /// What `Retry-After` says. Default `60s`.
    retry_after: Option<Positive<Seconds>>,
    /// Text for the caller.
    message: Option<String>,
}

impl From<MaintenanceInFull> for Maintenance {
    fn from(full: MaintenanceInFull) -> Self {
        Maintenance { on: true, retry_after: full.retry_after, message: full.message }
    }
}

impl Short for Maintenance {
    const SHORT: &'static str = "`true` or `false`";
    fn from_short(text: &str) -> Result<Self, String> {
        Err(format!("`{text}` is neither `true` nor `false`"))
    }
    fn from_bool(on: bool) -> Option<Self> {
        Some(Maintenance { on, retry_after: None, message: None })
    }
}

short_value!(Maintenance, long: MaintenanceInFull);
