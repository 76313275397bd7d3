//! The configuration as an operator writes it: closed types, unknown keys refused, nothing resolved yet.
//!
//! The doc comments here are the reference page: `tollgate config schema` and `conf/reference.md` are made from them.

mod versions;

pub use versions::{Version, VersionBy, Versions};

use crate::actions::fallback::FallbackRule;
use crate::actions::mirror::MirrorRule;
use crate::actions::to::To;
use crate::auth::document::{Guard, Provider};
use crate::cache::document::Cache;
use crate::cache::tiers::Tiers;
use crate::compress::rules::CompressRule;
use crate::consumer::document::{Consumer, Day};
use crate::filters::auth::rules::Auth;
use crate::filters::cors::rules::CorsRules;
use crate::filters::limits::rules::{Backend, Limits, Plan};
use crate::filters::rules::{
    BodyRule, ConcurrencyRule, FaultRule, IpRules, Maintenance, RequestRules, ResponseRules, Timeouts,
};
use crate::listen::document::{HeaderCount, IdleTime, ProxyProtocol, RedirectHttps, Window};
use crate::listen::tls::document::Tls;
use crate::route::matching::Match;
use crate::route::retry::document::Retry;
use crate::store::document::Stores;
use crate::upstream::document::{NameServer, Upstream};
use crate::value::{
    ByteSize, Cidr, HeaderKey, HostPattern, Map, Name, Normalize, OneOrMany, OrNone, PathPattern, Percent,
    Positive, Rate, Secret, Span, Spanned, Template, at_least_one, text_value,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A tollgate configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Version of this format. The only one so far is `1`.
    pub version: Spanned<u32>,
    /// Further files, as glob patterns relative to this file. Their maps are merged by name; the same name twice is an
    /// error.
    #[serde(default)]
    pub include: OneOrMany<String>,
    /// The process: threads, user, drain.
    #[serde(default)]
    pub process: Process,
    /// The admin listener: health, metrics, effective configuration.
    #[serde(default)]
    pub admin: Admin,
    /// Access log, metrics, request ids, redaction.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Where requests come from.
    #[serde(default)]
    pub listeners: Map<Listener>,
    /// Ways to prove who calls, by the names that `auth` refers to.
    #[serde(default)]
    pub auth: Map<Provider>,
    /// What consumers may do.
    #[serde(default)]
    pub plans: Map<Plan>,
    /// Who calls.
    #[serde(default)]
    pub consumers: Map<Consumer>,
    /// Where limits and quotas are counted.
    #[serde(default)]
    pub stores: Stores,
    /// Where answers are kept, for all routes that keep some.
    #[serde(default)]
    pub cache: Tiers,
    /// Settings that every API inherits.
    #[serde(default)]
    pub defaults: Defaults,
    /// Where requests go.
    #[serde(default)]
    pub upstreams: Map<Upstream>,
    /// What is offered to callers.
    #[serde(default)]
    pub apis: Map<Api>,
}

impl Document {
    /// The inherited settings of every level: those of `defaults`, of each API, of each route.
    pub fn levels(&self) -> impl Iterator<Item = Inherited<'_>> {
        let apis = self.apis.iter().flat_map(|(_, api)| {
            let routes = api.routes.iter().map(|(_, route)| route.settings());
            std::iter::once(api.settings()).chain(routes)
        });
        std::iter::once(self.defaults.settings()).chain(apis)
    }
}

/// How the process runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Worker threads: a number, or `auto` for one per core (default).
    #[serde(default)]
    pub threads: Threads,
    /// User to become after the listeners are bound. Needs a start as root.
    pub user: Option<Spanned<String>>,
    /// How long a graceful stop may take.
    #[serde(default)]
    pub drain: Drain,
    /// DNS servers for upstream names, as `address:port`. Default: those of the system.
    #[serde(default)]
    pub resolver: Vec<NameServer>,
}

/// Worker threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// One per core.
    #[default]
    Auto,
    /// This many.
    Count(u16),
}

impl FromStr for Threads {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Threads::Auto);
        }
        let count = text.parse().ok().filter(|count| (1..=1024).contains(count)).map(Threads::Count);
        count.ok_or_else(|| {
            format!("`{text}` is not a number of threads\nhelp: write `auto` or a number from 1 to 1024")
        })
    }
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threads::Auto => f.write_str("auto"),
            Threads::Count(count) => count.fmt(f),
        }
    }
}

text_value!(Threads, "Threads", pattern: r"^(auto|[0-9]+)$", "`auto` or a number");

/// Deadlines of a graceful stop.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// How long requests in flight may go on after TERM or an upgrade. Default `30s`.
    pub requests: Option<Span>,
    /// How long streams (WebSocket, server-sent events, gRPC) may go on. Default `10m`.
    pub streams: Option<Span>,
    /// How long requests are still taken while `/readyz` already says that the process is leaving: as long as the load
    /// balancers in front take to notice. Not waited for in an upgrade. Default `0s`.
    pub lame_duck: Option<Span>,
}

/// The admin listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// `unix:/path`, `address:port` or `none`. Default `unix:/run/tollgate/admin.sock`. An address that is not loopback
    /// needs a token.
    pub bind: Option<Spanned<AdminBind>>,
    /// Bearer tokens by the name of who holds them. When there is one, every admin request but `/healthz` and `/readyz`
    /// needs one.
    #[serde(default)]
    pub tokens: Map<Secret>,
}

/// Where the admin listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// Nowhere.
    Off,
    /// A Unix socket, mode 0660.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(std::net::SocketAddr),
}

impl FromStr for AdminBind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(AdminBind::Unix(path.into())),
            Some(path) => Err(format!("`{path}` is not an absolute path")),
            None if text == "none" => Ok(AdminBind::Off),
            None => text.parse().map(AdminBind::Tcp).map_err(|_| {
                format!("`{text}` is not an address\nhelp: write `unix:/run/tollgate/admin.sock`, `127.0.0.1:9900` or `none`")
            }),
        }
    }
}

impl fmt::Display for AdminBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminBind::Off => f.write_str("none"),
            AdminBind::Unix(path) => write!(f, "unix:{}", path.display()),
            AdminBind::Tcp(address) => address.fmt(f),
        }
    }
}

text_value!(AdminBind, "AdminBind", pattern: r"^(none|unix:/.+|.+:[0-9]+)$", "`unix:/path`, `address:port` or `none`");

/// What tollgate tells about its work.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// One JSON line for each request. `none` turns it off.
    pub access_log: Option<OrNone<AccessLog>>,
    /// What never reaches a log.
    #[serde(default)]
    pub redact: Redact,
    /// Prometheus metrics, on the admin listener at `/metrics`.
    #[serde(default)]
    pub metrics: Metrics,
    /// Request ids.
    #[serde(default)]
    pub request_id: RequestId,
}

/// The access log.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// `stdout` (default), `stderr`, `none`, or the absolute path of a file, which USR1 reopens.
    pub to: Option<AccessLogTo>,
    /// Share of requests that are logged; answers with status 500 and above always are. Default `100%`.
    pub sample: Option<Percent>,
    /// Further fields.
    #[serde(default)]
    pub fields: LogFields,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTo {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    None,
    /// A file.
    File(PathBuf),
}

impl FromStr for AccessLogTo {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stdout" => Ok(AccessLogTo::Stdout),
            "stderr" => Ok(AccessLogTo::Stderr),
            "none" => Ok(AccessLogTo::None),
            path if path.starts_with('/') => Ok(AccessLogTo::File(path.into())),
            _ => Err(format!(
                "`{text}` is no place for a log\nhelp: write `stdout`, `stderr`, `none` or an absolute path"
            )),
        }
    }
}

impl fmt::Display for AccessLogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessLogTo::Stdout => f.write_str("stdout"),
            AccessLogTo::Stderr => f.write_str("stderr"),
            AccessLogTo::None => f.write_str("none"),
            AccessLogTo::File(path) => path.display().fmt(f),
        }
    }
}

text_value!(AccessLogTo, "AccessLogTo", pattern: r"^(stdout|stderr|none|/.+)$", "`stdout`, `stderr`, `none` or an absolute path");

/// Further fields of the access log.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogFields {
    /// Field names and what they hold, such as `tenant: "${header.x-tenant}"`. Redacted headers cannot be used.
    #[serde(default)]
    pub add: Map<Spanned<Template>>,
}

/// What never reaches a log.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redact {
    /// Headers, besides `authorization`, `cookie`, `set-cookie`, `proxy-authorization` and `x-api-key`.
    #[serde(default)]
    pub headers: Vec<HeaderKey>,
    /// Query parameters whose values are replaced, besides `token`, `access_token`, `api_key`, `key`, `password`,
    /// `secret` and `signature`.
    #[serde(default)]
    pub query: Vec<String>,
}

/// Metrics.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Most time series that requests may create; what goes beyond is counted in one. Default 20000.
    pub max_series: Option<Positive<u32>>,
}

/// Request ids.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestId {
    /// Header that carries the id, to the upstream and back to the client. Default `x-request-id`.
    pub header: Option<HeaderKey>,
    /// Whose ids are kept: `trusted_proxies` (default), `anyone` or `nobody`. Otherwise a UUIDv7 is made.
    #[serde(default)]
    pub trust_from: TrustFrom,
}

/// Whose request ids are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrustFrom {
    /// Proxies named in `trusted_proxies`.
    #[default]
    TrustedProxies,
    /// Every client.
    Anyone,
    /// No client.
    Nobody,
}

/// A place where clients connect.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port, or a list of them. Port 0 takes a free port.
    pub bind: Spanned<OneOrMany<std::net::SocketAddr>>,
    /// `http/1.1`, `h2` over TLS, and `h2c` without (HTTP/2 with prior knowledge). Default: HTTP/1.1 and HTTP/2.
    pub protocols: Option<Vec<ClientProtocol>>,
    /// Certificates; with them clients speak TLS.
    pub tls: Option<Spanned<Tls>>,
    /// Sends every request that comes in cleartext to https, with this status: `308`, or `308 to 8443` for another port than
    /// 443. Path and query stay. What a trusted proxy has taken over TLS is served.
    pub redirect_https: Option<Spanned<RedirectHttps>>,
    /// Load balancers that tell where connections come from by the PROXY protocol.
    pub proxy_protocol: Option<Spanned<ProxyProtocol>>,
    /// Proxies in front of tollgate, as addresses or networks. Only what they say of a client's address is believed.
    #[serde(default)]
    pub trusted_proxies: Vec<Spanned<Cidr>>,
    /// How paths are brought to their normal form before they are matched: `strict` (default), `lenient` or `off`.
    #[serde(default)]
    pub normalize: Normalize,
    /// What a client may send.
    #[serde(default)]
    pub limits: ListenerLimits,
}

/// A protocol on the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ClientProtocol {
    /// HTTP/1.1, and HTTP/1.0.
    #[serde(rename = "http/1.1")]
    Http1,
    /// HTTP/2 in cleartext with prior knowledge (RFC 9113 section 3.3).
    #[serde(rename = "h2c")]
    H2c,
    /// HTTP/2 over TLS (RFC 9113 section 3.2).
    #[serde(rename = "h2")]
    H2,
}

/// What a client may send on a listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerLimits {
    /// Most bytes of all header fields together; more is answered 431. Default `32KiB`.
    pub header_bytes: Option<Positive<ByteSize>>,
    /// Most header fields; more is answered 431. Default 100.
    pub headers: Option<HeaderCount>,
    /// Longest request target; more is answered 414. Default `8KiB`.
    pub uri: Option<Positive<ByteSize>>,
    /// How long the head of an HTTP/1.1 request may take from its first byte on; more is answered 408. As long may an HTTP/2 client
    /// take to begin once TLS is there. Default `10s`.
    pub header_timeout: Option<Positive<Span>>,
    /// How long a client may pause within the body of a request that an upstream waits for; more is answered 408. `timeouts.idle`
    /// of the route may be shorter. gRPC calls are streams and may pause for `timeouts.stream_idle`. Default `30s`.
    pub body_idle: Option<Positive<Span>>,
    /// Bytes a second that the body of a request must come with on average, after a grace of 5s; a slower one is answered 408.
    /// gRPC calls may be slower. `0B` for no such limit. Default `240B`.
    pub body_rate: Option<ByteSize>,
    /// How long a client may take nothing of what is sent to it before its connection is closed, or an HTTP/2 stream reset for which
    /// it opens no window. Default `60s`.
    pub send_idle: Option<Positive<Span>>,
    /// How long an idle connection is kept. Default `75s`.
    pub keepalive: Option<IdleTime>,
    /// Most requests on one HTTP/1.1 connection; the answer to the last one closes it. Default: no limit.
    pub requests: Option<Positive<u64>>,
    /// Most connections at once, and no more than the process may open files for. Where there is no room for one more, some that
    /// have waited for their client for long are closed, first those on which nothing was ever asked; if there are none, the new
    /// one is closed as soon as it is accepted. Default 100000.
    pub connections: Option<Positive<u32>>,
    /// Most connections at once from one client address, and no more than three quarters of what there are files for; more are
    /// closed. IPv6 addresses count by their first 64 bits. Trusted proxies may have any number. Default 20000.
    pub per_ip: Option<Spanned<Positive<u32>>>,
    /// Most streams at once on an HTTP/2 connection. Default 100.
    pub h2_streams: Option<Positive<u32>>,
    /// Bytes that a client may send ahead on an HTTP/2 stream, and on a connection. Default `1MiB`.
    pub h2_window: Option<Window>,
    /// Most requests on one HTTP/2 connection; then the client is told to open another one (GOAWAY), and what it has asked is
    /// answered. Default 100000.
    pub h2_requests: Option<Positive<u64>>,
    /// Streams that a client may reset on an HTTP/2 connection: so many at once, and in the time as many again. One that resets
    /// more is disconnected with ENHANCE_YOUR_CALM. Trusted proxies may reset any number. Default `1000/10s`.
    pub h2_resets: Option<Rate>,
    /// Frames that ask for nothing, which a client may send on an HTTP/2 connection: SETTINGS, PING, PRIORITY, WINDOW_UPDATE and
    /// all others but HEADERS, DATA and RST_STREAM. So many at once, in the time as many again, and one for each 256 bytes that
    /// the client is sent. One that sends more is disconnected with ENHANCE_YOUR_CALM; trusted proxies may. Default `10000/10s`.
    pub h2_frames: Option<Spanned<Rate>>,
    /// How long the PROXY protocol's header and the TLS handshake may take together. Default `10s`.
    pub handshake_timeout: Option<Positive<Span>>,
    /// Most requests from one client address, counted coarsely before anything else is looked at; more is answered 429.
    /// IPv6 addresses count by their first 64 bits. Default: no limit.
    pub flood: Option<Rate>,
    /// What becomes of addresses whose credentials are refused again and again. Default: nothing.
    pub guard: Option<Guard>,
}

/// Gives a struct the settings that are inherited: `defaults`, then api, then route; the nearest wins.
macro_rules! with_inherited {
    ($(#[$attribute:meta])* pub struct $name:ident { $($(#[$field_attribute:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $type,)*
            /// Who may call: `public` lets everybody in, else providers by name. It must be written somewhere on the way
            /// from `defaults` to the route.
            pub auth: Option<Spanned<Auth>>,
            /// How often: one limit or several, which are decided together. `none` turns inherited ones off.
            pub limits: Option<Spanned<Limits>>,
            /// Pages of other origins that may call (CORS). `none` turns an inherited rule off.
            pub cors: Option<Spanned<OrNone<CorsRules>>>,
            /// Client addresses that are let in or refused. `none` turns an inherited rule off.
            pub ip: Option<Spanned<OrNone<IpRules>>>,
            /// How long to wait for the upstream.
            pub timeouts: Option<Spanned<Timeouts>>,
            /// When a request is tried again. `none` turns it off.
            pub retry: Option<Spanned<OrNone<Retry>>>,
            /// Limits of the request body. `none` removes them.
            pub body: Option<Spanned<OrNone<BodyRule>>>,
            /// How many requests may be served at once. `none` turns an inherited rule off.
            pub concurrency: Option<Spanned<OrNone<ConcurrencyRule>>>,
            /// Faults for tests. `none` turns an inherited rule off. Default: none.
            pub fault: Option<Spanned<OrNone<FaultRule>>>,
            /// Copies of requests for another upstream. `none` turns an inherited rule off. Default: none.
            pub mirror: Option<Spanned<OrNone<MirrorRule>>>,
            /// What is answered when the upstream fails. `none` turns an inherited one off.
            pub fallback: Option<Spanned<OrNone<FallbackRule>>>,
            /// Compression of answers. `none` turns an inherited one off. Default: none.
            pub compress: Option<Spanned<OrNone<CompressRule>>>,
            /// Whether calls of gRPC-Web clients, binary or text, are translated for upstreams that speak gRPC. Pages of other
            /// origins need `cors`, too, with `expose: [grpc-status, grpc-message]`. Default: no.
            pub grpc_web: Option<Spanned<bool>>,
            /// Answers that are kept and given again. `none` turns an inherited cache off.
            pub cache: Option<Spanned<OrNone<Cache>>>,
            /// Changes to the request before it goes to the upstream. Header maps are merged by name.
            pub request: Option<Spanned<OrNone<RequestRules>>>,
            /// Changes to the response before it goes to the client. Header maps are merged by name.
            pub response: Option<Spanned<OrNone<ResponseRules>>>,
        }

        impl $name {
            /// The inherited settings written here.
            pub fn settings(&self) -> Inherited<'_> {
                Inherited {
                    auth: self.auth.as_ref(),
                    limits: self.limits.as_ref(),
                    cors: self.cors.as_ref(),
                    ip: self.ip.as_ref(),
                    timeouts: self.timeouts.as_ref(),
                    retry: self.retry.as_ref(),
                    body: self.body.as_ref(),
                    concurrency: self.concurrency.as_ref(),
                    fault: self.fault.as_ref(),
                    mirror: self.mirror.as_ref(),
                    fallback: self.fallback.as_ref(),
                    compress: self.compress.as_ref(),
                    grpc_web: self.grpc_web.as_ref(),
                    cache: self.cache.as_ref(),
                    request: self.request.as_ref(),
                    response: self.response.as_ref(),
                }
            }
        }
    };
}

/// The inherited settings that stand at one level.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inherited<'a> {
    /// Who may call.
    pub auth: Option<&'a Spanned<Auth>>,
    /// How often.
    pub limits: Option<&'a Spanned<Limits>>,
    /// Pages of other origins.
    pub cors: Option<&'a Spanned<OrNone<CorsRules>>>,
    /// Client addresses.
    pub ip: Option<&'a Spanned<OrNone<IpRules>>>,
    /// Timeouts.
    pub timeouts: Option<&'a Spanned<Timeouts>>,
    /// Retries.
    pub retry: Option<&'a Spanned<OrNone<Retry>>>,
    /// Body limits.
    pub body: Option<&'a Spanned<OrNone<BodyRule>>>,
    /// How many at once.
    pub concurrency: Option<&'a Spanned<OrNone<ConcurrencyRule>>>,
    /// Faults for tests.
    pub fault: Option<&'a Spanned<OrNone<FaultRule>>>,
    /// Copies of requests.
    pub mirror: Option<&'a Spanned<OrNone<MirrorRule>>>,
    /// What is answered when the upstream fails.
    pub fallback: Option<&'a Spanned<OrNone<FallbackRule>>>,
    /// Compression of answers.
    pub compress: Option<&'a Spanned<OrNone<CompressRule>>>,
    /// Translation of gRPC-Web.
    pub grpc_web: Option<&'a Spanned<bool>>,
    /// Cache.
    pub cache: Option<&'a Spanned<OrNone<Cache>>>,
    /// Request changes.
    pub request: Option<&'a Spanned<OrNone<RequestRules>>>,
    /// Response changes.
    pub response: Option<&'a Spanned<OrNone<ResponseRules>>>,
}

with_inherited! {
    /// Settings that every API inherits.
    pub struct Defaults {
        /// Where limits are counted, and what clients are told of them.
        #[serde(default)]
        pub limits_backend: Spanned<Backend>,
    }
}

with_inherited! {
    /// An API: hosts, a base path and its routes.
    pub struct Api {
        /// Hosts it answers for: exact, or `*.example.com` for one label. Default: every host.
        #[serde(default, deserialize_with = "at_least_one")]
        pub hosts: OneOrMany<HostPattern>,
        /// Listeners it is offered on. Default: all.
        #[serde(default, deserialize_with = "at_least_one")]
        pub listeners: Option<Spanned<OneOrMany<Spanned<Name>>>>,
        /// Path in front of every route's path; it is part of what the upstream sees unless a rule strips it.
        pub base: Option<Spanned<PathPattern>>,
        /// Versions: each becomes a set of routes of its own, and the marker is removed before the upstream sees it.
        pub versions: Option<Spanned<Versions>>,
        /// `true`, or details: every route answers 503 with `Retry-After`.
        pub maintenance: Option<Spanned<Maintenance>>,
        /// Where requests go when the route does not say.
        pub to: Option<Spanned<To>>,
        /// The routes. Their order does not matter.
        #[serde(default)]
        pub routes: Map<Route>,
    }
}

with_inherited! {
    /// A route: what it matches and where that goes.
    pub struct Route {
        /// `GET /orders/{id}`, `/orders/**`, or a map with more conditions.
        #[serde(rename = "match")]
        pub matches: Option<Spanned<Match>>,
        /// Goes before the fixed precedence; higher wins. Default 0.
        pub priority: Option<i32>,
        /// Versions this route belongs to. Default: all.
        #[serde(default, deserialize_with = "at_least_one")]
        pub versions: Option<Spanned<OneOrMany<Spanned<Name>>>>,
        /// The day from which it is deprecated (UTC), told to callers in `Deprecation` (RFC 9745). This and the next four go
        /// before what its version says.
        pub deprecated: Option<Spanned<Day>>,
        /// The day on which it ends (UTC), told to callers in `Sunset` (RFC 8594).
        pub sunset: Option<Spanned<Day>>,
        /// Address of what takes its place, such as `/v2/orders/${path.id}`, told to callers in `Link` with
        /// `rel="successor-version"`.
        pub successor: Option<Spanned<Template>>,
        /// Address of a page that tells of its end, told to callers in `Link` with `rel="deprecation"`.
        pub notice: Option<Spanned<String>>,
        /// Whether it is answered 410 from the day of `sunset` on. Default `false`.
        pub gone: Option<Spanned<bool>>,
        /// An upstream's name, or another action.
        pub to: Option<Spanned<To>>,
    }
}
