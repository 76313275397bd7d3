//! Where requests go, as written.

use super::spec::{Address, Protocol, SameSite};
use crate::value::{
    Key, OneOrMany, OrNone, Percent, Positive, Seconds, Secret, Short, Span, Spanned, Trigger, Within,
    at_least_one, short_value, text_value,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A service behind the gateway: its targets and how they are used.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Addresses, at least one: `host:port`, `ip:port` or `unix:/path`.
    pub targets: Spanned<Vec<Spanned<Target>>>,
    /// What it speaks. Default `auto`.
    #[serde(default)]
    pub protocol: Protocol,
    /// How a target is chosen. Default `round_robin`.
    pub balance: Option<Spanned<Balance>>,
    /// What it sees as `Host`: the `client`'s (default), the `target`'s, or a name.
    pub host: Option<Host>,
    /// TLS towards it: `true`, or details. Certificates are verified unless `verify: false` is written.
    pub tls: Option<Spanned<Tls>>,
    /// Health checks: `GET /healthz`, `tcp` (default), `grpc`, `none`, or details.
    pub health: Option<Spanned<Health>>,
    /// Refuses requests for a while when too many fail: 503 with `Retry-After`. `{}` takes every default. Without it there is
    /// none.
    pub breaker: Option<Spanned<Breaker>>,
    /// Backups take requests as well when less than this share of the other targets can be used. With `0%` only
    /// when no other can. Default `0%`.
    pub backup_below: Option<Spanned<Percent>>,
    /// How long a target that is new or healthy again takes to get its whole share of the requests; it begins with a tenth.
    /// Not for `hash` and clients with a sticky cookie. Default `0s`.
    pub slow_start: Option<Spanned<Span>>,
    /// How names in `targets` are resolved.
    #[serde(default)]
    pub discovery: Discovery,
    /// Connections to it.
    #[serde(default)]
    pub pool: Pool,
}

/// One target. Short: its address.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Where it is.
    pub addr: Address,
    /// Its share of the requests; 0 takes none.
    pub weight: u32,
    /// Whether it is only used when others are not to be had.
    pub backup: bool,
}

/// A target in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TargetInFull {
    /// `host:port`, `ip:port` or `unix:/path`.
    addr: Address,
    /// Its share of the requests, 0 to 1000; 0 takes none. Default 1.
    weight: Option<Weight>,
    /// Whether it is only used when no other target can be, or too few, see `backup_below`.
    #[serde(default)]
    backup: bool,
}

/// A share, 0 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weight(u32);

impl FromStr for Weight {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let weight = text.parse().ok().filter(|weight| *weight <= 1000).map(Weight);
        weight.ok_or_else(|| format!("`{text}` is not a weight\nhelp: write a whole number from 0 to 1000"))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(Weight, "Weight", pattern: r"^[0-9]{1,4}$", "a whole number from 0 to 1000");

impl From<TargetInFull> for Target {
    fn from(full: TargetInFull) -> Self {
        Target { addr: full.addr, weight: full.weight.map_or(1, |weight| weight.0), backup: full.backup }
    }
}

impl Short for Target {
    const SHORT: &'static str = "`host:port`, `ip:port` or `unix:/path`";
    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Target { addr: text.parse()?, weight: 1, backup: false })
    }
}

short_value!(Target, long: TargetInFull);

text_value!(Address, "TargetAddress", pattern: r"^(unix:/.+|.+:[0-9]+)$", "`host:port`, `ip:port` or `unix:/path`");

/// How a target is chosen.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, by weight, evenly spread.
    RoundRobin,
    /// The one with the fewest requests in flight for its weight.
    LeastConn,
    /// The better of two taken at random, by latency and requests in flight.
    P2cEwma,
    /// The same one for the same key: `hash: "header:x-user"`. Stable when targets come, go or fail.
    Hash(Key),
    /// The one that a cookie of the gateway names: `sticky_cookie: tg_route`, or details. Clients without one get theirs in
    /// turn, and another when their target cannot be used.
    StickyCookie(StickyCookie),
}

/// A cookie that keeps a client with its target; it tells nothing about the target. Short: its name.
#[derive(Clone, Debug)]
pub struct StickyCookie {
    /// Its name.
    pub name: CookieName,
    /// How long the client keeps it.
    pub ttl: Option<Positive<Seconds>>,
    /// Where it is sent back.
    pub path: Option<CookiePath>,
    /// Whether over TLS only.
    pub secure: Option<bool>,
    /// Whether from other sites.
    pub same_site: SameSite,
    /// Makes its values unguessable.
    pub secret: Option<Secret>,
}

/// A sticky cookie in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StickyInFull {
    /// Its name.
    name: CookieName,
    /// How long the client keeps it. Default: until it is closed.
    ttl: Option<Positive<Seconds>>,
    /// Path below which the client sends it back. Default `/`.
    path: Option<CookiePath>,
    /// Whether the client sends it back over TLS only. Default: when it came over TLS.
    secure: Option<bool>,
    /// `strict`, `lax` (default) or `none`: whether it is sent with requests that another site has caused.
    #[serde(default)]
    same_site: SameSite,
    /// A secret, the same on every node, without which nobody can find out by trying which address a value stands for.
    secret: Option<Secret>,
}

impl From<StickyInFull> for StickyCookie {
    fn from(full: StickyInFull) -> Self {
        let StickyInFull { name, ttl, path, secure, same_site, secret } = full;
        StickyCookie { name, ttl, path, secure, same_site, secret }
    }
}

impl Short for StickyCookie {
    const SHORT: &'static str = "a cookie's name";
    fn from_short(text: &str) -> Result<Self, String> {
        let name = text.parse()?;
        Ok(StickyCookie { name, ttl: None, path: None, secure: None, same_site: SameSite::Lax, secret: None })
    }
}

short_value!(StickyCookie, long: StickyInFull);

/// The name of a cookie (RFC 6265 section 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieName(pub String);

impl FromStr for CookieName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        match !text.is_empty() && text.bytes().all(token) {
            true => Ok(CookieName(text.to_owned())),
            false => Err(format!("`{}` cannot be the name of a cookie", text.escape_debug())),
        }
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(CookieName, "CookieName", pattern: r"^[!#-'*+.^_`|~0-9A-Za-z-]+$", "a cookie's name");

/// A DNS server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameServer(pub SocketAddr);

impl FromStr for NameServer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let server = text.parse().ok().filter(|server: &SocketAddr| server.port() != 0).map(NameServer);
        server.ok_or_else(|| {
            format!(
                "`{text}` is no address with a port\nhelp: write for example `127.0.0.53:53` or `[::1]:53`"
            )
        })
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(NameServer, "NameServer", pattern: r"^.+:[0-9]+$", "an address with a port");

/// The path of a cookie (RFC 6265 section 5.1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookiePath(pub String);

impl FromStr for CookiePath {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        match text.starts_with('/') && text.bytes().all(plain) {
            true => Ok(CookiePath(text.to_owned())),
            false => Err(format!("`{}` cannot be the path of a cookie", text.escape_debug())),
        }
    }
}

impl fmt::Display for CookiePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(CookiePath, "CookiePath", pattern: r"^/[!-:<-~]*$", "a path");

/// When requests are refused because too many have failed. Failed are those without an answer, and those that are answered
/// with a status of 500 and above.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Share of failed attempts that opens it. Default `50%`.
    pub error_rate: Option<Positive<Percent>>,
    /// With fewer attempts within the window it stays closed. Default 20.
    pub min_requests: Option<Positive<u32>>,
    /// The time that is looked at. Default `10s`.
    pub window: Option<Positive<Span>>,
    /// How long requests are refused before some are let through as probes. Default `15s`.
    pub open: Option<Positive<Span>>,
    /// How many probes there are, and must succeed, before all requests are let through again. Default 3.
    pub probes: Option<Positive<u32>>,
}

/// What the upstream sees as `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// What the client sent.
    Client,
    /// The target's own address.
    Target,
    /// This.
    Literal(String),
}

impl FromStr for Host {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "client" => Ok(Host::Client),
            "target" => Ok(Host::Target),
            _ => {
                let authority =
                    text.parse::<http::uri::Authority>().ok().filter(|a| !a.as_str().contains('@'));
                authority.map(|authority| Host::Literal(authority.as_str().to_owned())).ok_or_else(|| {
                    format!(
                        "`{}` cannot be a Host\nhelp: write `client`, `target` or a name",
                        text.escape_debug()
                    )
                })
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Host::Client => "client",
            Host::Target => "target",
            Host::Literal(name) => name,
        })
    }
}

text_value!(Host, "Host", pattern: r"^\S+$", "`client`, `target` or a host name");

/// TLS towards an upstream. Short: `true`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Whether TLS is used.
    pub on: bool,
    /// Server name to ask for and verify.
    pub sni: Option<String>,
    /// CA bundle (PEM).
    pub ca: Option<Spanned<PathBuf>>,
    /// Certificate shown to the upstream.
    pub client_cert: Option<Spanned<CertAndKey>>,
    /// Whether its certificate is verified.
    pub verify: Spanned<bool>,
}

/// TLS in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TlsInFull {
    /// Server name to ask for and verify. Default: the target's host.
    sni: Option<String>,
    /// CA bundle (PEM file) to trust instead of the system's.
    ca: Option<Spanned<PathBuf>>,
    /// Certificate shown to the upstream.
    client_cert: Option<Spanned<CertAndKey>>,
    /// `false` accepts every certificate. Default `true`.
    verify: Option<Spanned<bool>>,
}

/// A certificate chain and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertAndKey {
    /// Certificate chain (PEM file).
    pub cert: PathBuf,
    /// Private key (PEM file).
    pub key: PathBuf,
}

impl From<TlsInFull> for Tls {
    fn from(full: TlsInFull) -> Self {
        let verify = full.verify.unwrap_or(Spanned::built_in(true));
        Tls { on: true, sni: full.sni, ca: full.ca, client_cert: full.client_cert, verify }
    }
}

impl Short for Tls {
    const SHORT: &'static str = "`true` or `false`";
    fn from_short(text: &str) -> Result<Self, String> {
        Err(format!("`{text}` is neither `true` nor `false`"))
    }
    fn from_bool(on: bool) -> Option<Self> {
        Some(Tls { on, sni: None, ca: None, client_cert: None, verify: Spanned::built_in(true) })
    }
}

short_value!(Tls, long: TlsInFull);

/// What a health check does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Nothing: targets count as healthy.
    None,
    /// Connects (and shakes hands over TLS).
    Tcp,
    /// Sends a request.
    Http {
        /// Its method.
        method: http::Method,
        /// Its path.
        path: String,
    },
    /// Asks `grpc.health.v1.Health/Check`.
    Grpc {
        /// Service to ask for; empty asks for the whole server.
        service: String,
    },
}

impl FromStr for Probe {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (word, rest) {
            ("none", "") => Ok(Probe::None),
            ("tcp", "") => Ok(Probe::Tcp),
            ("grpc", service) => Ok(Probe::Grpc { service: service.trim().to_owned() }),
            ("GET" | "HEAD" | "OPTIONS", path)
                if path.starts_with('/') && path.parse::<http::Uri>().is_ok() =>
            {
                Ok(Probe::Http {
                    method: word.parse().map_err(|_| "not a method".to_owned())?,
                    path: path.to_owned(),
                })
            }
            _ => Err(format!(
                "`{text}` is not a health check\nhelp: write `GET /path`, `tcp`, `grpc`, `grpc SERVICE` or `none`"
            )),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::None => f.write_str("none"),
            Probe::Tcp => f.write_str("tcp"),
            Probe::Http { method, path } => write!(f, "{method} {path}"),
            Probe::Grpc { service } if service.is_empty() => f.write_str("grpc"),
            Probe::Grpc { service } => write!(f, "grpc {service}"),
        }
    }
}

text_value!(Probe, "Probe", pattern: r"^(none|tcp|grpc( .+)?|(GET|HEAD|OPTIONS) /.*)$", "`GET /path`, `tcp`, `grpc`, `grpc SERVICE` or `none`");

/// A status that a check may be answered with: a final one.
pub type Expected = Within<200, 599>;

/// Health checks. Short: the probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What is done.
    pub probe: Probe,
    /// How often.
    pub every: Option<Spanned<Positive<Span>>>,
    /// How long one may take.
    pub timeout: Option<Spanned<Positive<Span>>>,
    /// Successes that make a target healthy.
    pub up: Option<Positive<u32>>,
    /// Failures that make a target unhealthy.
    pub down: Option<Positive<u32>>,
    /// Statuses that count as success.
    pub expect: Option<OneOrMany<Expected>>,
    /// `Host` of the probe.
    pub host: Option<String>,
    /// What requests themselves show.
    pub passive: Option<OrNone<Passive>>,
}

/// When a target is left alone because requests to it fail.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Passive {
    /// What counts as a failure: `connect`, `reset`, `timeout`, statuses, `5xx`. Default
    /// `[connect, reset, timeout, 502, 503, 504]`.
    #[serde(default, deserialize_with = "at_least_one")]
    pub on: Option<OneOrMany<Trigger>>,
    /// Failures in a row that eject a target. Default 5.
    pub failures: Option<Positive<u32>>,
    /// The time within which they must happen. Default `10s`.
    pub within: Option<Positive<Span>>,
    /// How long the first ejection lasts; each further one lasts that much longer, up to ten times. Default `30s`.
    pub eject: Option<Positive<Span>>,
    /// Most targets that are ejected at a time; one always may be, but never the only one. `0%` ejects none. Default `50%`.
    pub max_ejected: Option<Percent>,
    /// When less than this share of the healthy targets is left, ejected ones are used as well. Default `50%`.
    pub panic_below: Option<Percent>,
}

/// Health checks in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HealthInFull {
    /// `GET /healthz`, `tcp` (default), `grpc`, `grpc SERVICE` or `none`.
    probe: Option<Probe>,
    /// How often; spread by a tenth either way. Default `5s`.
    every: Option<Spanned<Positive<Span>>>,
    /// How long one check may take. Default `1s`.
    timeout: Option<Spanned<Positive<Span>>>,
    /// Successes in a row that make a target healthy. Default 2.
    up: Option<Positive<u32>>,
    /// Failures in a row that make a target unhealthy. Default 3.
    down: Option<Positive<u32>>,
    /// Statuses that count as success. Default 200.
    #[serde(default, deserialize_with = "at_least_one")]
    expect: Option<OneOrMany<Expected>>,
    /// `Host` of the probe. Default: the target's address.
    host: Option<String>,
    /// Leaves targets alone whose requests fail one after the other. On by default unless there is no probe; `none` turns it
    /// off.
    passive: Option<OrNone<Passive>>,
}

impl From<HealthInFull> for Health {
    fn from(full: HealthInFull) -> Self {
        let HealthInFull { probe, every, timeout, up, down, expect, host, passive } = full;
        let probe = probe.unwrap_or(Probe::Tcp);
        Health { probe, every, timeout, up, down, expect, host, passive }
    }
}

impl Short for Health {
    const SHORT: &'static str = "`GET /path`, `tcp`, `grpc` or `none`";
    fn from_short(text: &str) -> Result<Self, String> {
        let probe = text.parse()?;
        let (every, timeout, expect, host) = (None, None, None, None);
        Ok(Health { probe, every, timeout, up: None, down: None, expect, host, passive: None })
    }
}

short_value!(Health, long: HealthInFull);

/// How names are resolved. A and AAAA records are asked for in the background; when that fails, the last answer is kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    /// `ttl` (default): when the answer expires; or a duration.
    #[serde(default)]
    pub refresh: Spanned<Refresh>,
    /// Shortest time between two look-ups. Default `1s`.
    pub min: Option<Spanned<Positive<Span>>>,
    /// Longest time between two look-ups, no less than `min`. Default `60s`.
    pub max: Option<Spanned<Positive<Span>>>,
}

/// When a name is resolved again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// When the answer expires.
    #[default]
    Ttl,
    /// After this time.
    Every(Positive<Span>),
}

impl FromStr for Refresh {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "ttl" {
            return Ok(Refresh::Ttl);
        }
        let every = Positive::new(text.parse::<Span>()?);
        every
            .map(Refresh::Every)
            .ok_or_else(|| format!("`{text}` makes no sense here\nhelp: write `ttl`, or for example `30s`"))
    }
}

impl fmt::Display for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refresh::Ttl => f.write_str("ttl"),
            Refresh::Every(span) => span.fmt(f),
        }
    }
}

text_value!(Refresh, "Refresh", pattern: r"^(ttl|[0-9]+ ?(ms|s|m|min|h|d))$", "`ttl` or a duration");

/// Connections to an upstream.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// How long an idle connection is kept. Default `60s`.
    pub idle: Option<Span>,
    /// Most requests in flight to all targets together; more are answered 503. Default: no limit.
    pub max: Option<Positive<u32>>,
    /// Most requests in flight to one target. Default: no limit.
    pub per_target: Option<Spanned<Positive<u32>>>,
}
