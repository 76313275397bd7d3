//! What an upstream is made from: plain values, read from the configuration and compared on reload.

use crate::value::{Name, Trigger, Triggers, Trouble};
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One upstream. Two equal specs make interchangeable upstreams, so a reload keeps the running one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamSpec {
    /// Its name in the configuration.
    pub name: Name,
    /// Where requests go; at least one.
    pub targets: Vec<TargetSpec>,
    /// What is spoken to every target.
    pub protocol: Protocol,
    /// How one target is chosen among many.
    pub balance: Balance,
    /// The cookie, when it is chosen by one.
    pub sticky: Option<StickySpec>,
    /// Below which share of the other targets that can be used backups are used, too; hundredths of a percent. With 0 they
    /// are when there is no other.
    pub backup_below: u16,
    /// How long a target that is new or healthy again takes to get its whole share; zero is at once.
    pub slow_start: Duration,
    /// The circuit breaker.
    pub breaker: Option<BreakerSpec>,
    /// The `Host` a target sees.
    pub host: HostRewrite,
    /// TLS to every target, or cleartext.
    pub tls: Option<TlsSpec>,
    /// How targets are probed.
    pub health: HealthSpec,
    /// How names among the targets are followed.
    pub discovery: DiscoverySpec,
    /// Connection reuse and limits.
    pub pool: PoolSpec,
    /// The longest a connection may take to be made, TLS included, unless the route says otherwise.
    pub connect: Duration,
}

impl UpstreamSpec {
    /// An upstream with every default: HTTP/1.1 in cleartext, round robin, TCP health checks.
    pub fn new(name: Name, targets: Vec<TargetSpec>) -> Self {
        UpstreamSpec {
            name,
            targets,
            protocol: Protocol::default(),
            balance: Balance::default(),
            sticky: None,
            backup_below: 0,
            slow_start: Duration::ZERO,
            breaker: None,
            host: HostRewrite::default(),
            tls: None,
            health: HealthSpec::default(),
            discovery: DiscoverySpec::default(),
            pool: PoolSpec::default(),
            connect: Duration::from_secs(1),
        }
    }
}

/// One line under `targets`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetSpec {
    /// Where it is.
    pub address: Address,
    /// Its share of the requests against its siblings; each address behind a name gets it. 0 drains: never chosen.
    pub weight: u32,
    /// Whether it is only used when others are not to be had.
    pub backup: bool,
}

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A literal address.
    Ip(SocketAddr),
    /// A name whose addresses are looked up in the background.
    Name {
        /// The name, without port.
        host: Arc<str>,
        /// The port at each of its addresses.
        port: u16,
    },
    /// A Unix domain socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    /// Reads `10.0.0.1:80`, `[::1]:80`, `name:80` or `unix:/path`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Address::Unix(PathBuf::from(path)))
            } else {
                Err(format!(
                    "`{text}` is not an address\nhelp: write an absolute path, for example `unix:/run/app.sock`"
                ))
            };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(port_help(text)) } else { Ok(Address::Ip(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| port_help(text))?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| port_help(text))?;
        if is_host_name(host) && host.parse::<IpAddr>().is_err() {
            return Ok(Address::Name { host: host.to_ascii_lowercase().into(), port });
        }
        Err(format!(
            "`{text}` is not an address\nhelp: write for example `10.0.0.1:3000`, `app.internal:3000` or `unix:/run/app.sock`"
        ))
    }
}

fn port_help(text: &str) -> String {
    format!(
        "`{text}` has no port from 1 to 65535\nhelp: write for example `10.0.0.1:3000` or `app.internal:3000`"
    )
}

/// Letters, digits, `-` and `_` in labels of 1 to 63, at most 253 in all. What ends in a number is an address gone wrong.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let bare = host.strip_suffix('.').unwrap_or(host);
    let last_is_number = bare.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    bare.len() <= 253 && !last_is_number && bare.split('.').all(label)
}

/// What is spoken to a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 in cleartext; over TLS whichever of HTTP/2 and HTTP/1.1 the target picks.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 over TLS only.
    H2,
    /// HTTP/2 in cleartext, without upgrade.
    H2c,
    /// gRPC: HTTP/2, over TLS when `tls` is set.
    Grpc,
}

impl Protocol {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Auto => "auto",
            Protocol::Http1 => "http1",
            Protocol::H2 => "h2",
            Protocol::H2c => "h2c",
            Protocol::Grpc => "grpc",
        }
    }
}

/// How one target is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// The fewest requests in flight for its weight.
    LeastConn,
    /// The better of two random targets by peak EWMA of the time to the first byte and requests in flight.
    P2cEwma,
    /// Always the same target for the same key. What the key is, the route's caller knows.
    Hash,
    /// The target that a cookie of the gateway names; without one, round robin.
    StickyCookie,
}

impl Balance {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
            Balance::LeastConn => "least_conn",
            Balance::P2cEwma => "p2c_ewma",
            Balance::Hash => "hash",
            Balance::StickyCookie => "sticky_cookie",
        }
    }
}

/// A cookie that keeps a client with its target.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StickySpec {
    /// The upstream's name, so that a cookie says nothing about targets of others.
    pub upstream: Arc<str>,
    /// The cookie's name.
    pub name: Arc<str>,
    /// How long the client keeps it; `None` is until it is closed.
    pub ttl: Option<Duration>,
    /// Where it is sent back.
    pub path: Arc<str>,
    /// Whether it is sent back over TLS only; `None` is when it was set over TLS.
    pub secure: Option<bool>,
    /// Whether it is sent back from other sites.
    pub same_site: SameSite,
    /// Makes its values unguessable.
    pub secret: Option<Arc<[u8]>>,
}

// By hand: the secret must not reach a log through `{:?}`.
impl std::fmt::Debug for StickySpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StickySpec").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether a cookie is sent back with requests that another site has caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Never.
    Strict,
    /// When the other site links to this one.
    #[default]
    Lax,
    /// Always; over TLS only.
    None,
}

impl SameSite {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        }
    }
}

/// When the circuit breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BreakerSpec {
    /// The share of failed attempts that opens it, in hundredths of a percent.
    pub error_rate: u16,
    /// With fewer attempts within the window it stays closed.
    pub min_requests: u32,
    /// The time that is looked at.
    pub window: Duration,
    /// How long it stays open before probes are let through.
    pub open: Duration,
    /// How many probes must succeed to close it.
    pub probes: u32,
}

impl Default for BreakerSpec {
    fn default() -> Self {
        BreakerSpec {
            error_rate: 5_000,
            min_requests: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(15),
            probes: 3,
        }
    }
}

/// The `Host` (or `:authority`) that a target sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostRewrite {
    /// What the client sent.
    #[default]
    Client,
    /// The target's own name or address, with its port unless that is the default one.
    Target,
    /// This text.
    Literal(Arc<str>),
}

/// TLS to the targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsSpec {
    /// The name asked for and verified; default the target's name, else its address.
    pub sni: Option<Arc<str>>,
    /// The only authorities trusted, as PEM; default the system's.
    pub ca: Option<Arc<[u8]>>,
    /// What tollgate proves itself with.
    pub client_cert: Option<ClientCert>,
    /// Whether the target's certificate is verified.
    pub verify: bool,
}

impl Default for TlsSpec {
    fn default() -> Self {
        TlsSpec { sni: None, ca: None, client_cert: None, verify: true }
    }
}

/// A client certificate with its key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientCert {
    /// The chain as PEM, leaf first.
    pub cert: Arc<[u8]>,
    /// The private key as PEM.
    pub key: Arc<[u8]>,
}

// By hand: a private key must not reach a log through `{:?}`.
impl std::fmt::Debug for ClientCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCert").finish_non_exhaustive()
    }
}

/// How targets are probed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthSpec {
    /// What is asked.
    pub probe: Probe,
    /// From one probe of a target to its next, give or take a tenth.
    pub every: Duration,
    /// The longest one probe may take in all.
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy target healthy.
    pub up: u32,
    /// Failures in a row that make a healthy target unhealthy.
    pub down: u32,
    /// What requests themselves show.
    pub passive: Option<PassiveSpec>,
}

impl Default for HealthSpec {
    fn default() -> Self {
        HealthSpec {
            probe: Probe::Tcp,
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            up: 2,
            down: 3,
            passive: Some(PassiveSpec::default()),
        }
    }
}

/// When a target is left alone because of what requests have shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PassiveSpec {
    /// What counts as a failure.
    pub on: Triggers,
    /// Failures in a row that eject a target.
    pub failures: u32,
    /// The time within which they must happen.
    pub within: Duration,
    /// How long the first ejection lasts; each further one lasts that much longer.
    pub eject: Duration,
    /// Most targets that are ejected at a time, in hundredths of a percent.
    pub max_ejected: u16,
    /// When fewer targets than this could be used, ejected ones are used as well; hundredths of a percent.
    pub panic_below: u16,
}

impl Default for PassiveSpec {
    fn default() -> Self {
        let statuses = [502, 503, 504].map(Trouble::Status);
        let triggers = [Trouble::Connect, Trouble::Reset, Trouble::Timeout].into_iter().chain(statuses);
        PassiveSpec {
            on: Triggers::new(&triggers.map(Trigger::Is).collect::<Vec<_>>()),
            failures: 5,
            within: Duration::from_secs(10),
            eject: Duration::from_secs(30),
            max_ejected: 5_000,
            panic_below: 5_000,
        }
    }
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Nothing: every target counts as healthy.
    None,
    /// A connection, and its TLS handshake when the upstream has one.
    Tcp,
    /// One request.
    Http {
        /// Method, such as `GET`.
        method: http::Method,
        /// Path and query, beginning with `/`.
        path: Arc<str>,
        /// `Host`; default the upstream's literal host, else the target's own name.
        host: Option<Arc<str>>,
        /// Statuses that count as success; empty means 200 only.
        expect: Vec<u16>,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service asked for; empty asks about the server as a whole.
        service: Arc<str>,
    },
}

/// How names among the targets are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiscoverySpec {
    /// When a name is looked up again.
    pub refresh: Refresh,
    /// The shortest time between two look-ups.
    pub min: Duration,
    /// The longest time between two look-ups.
    pub max: Duration,
}

impl Default for DiscoverySpec {
    fn default() -> Self {
        DiscoverySpec { refresh: Refresh::Ttl, min: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

/// When a name is looked up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refresh {
    /// When the shortest TTL of the answer has passed, within `min` and `max`.
    Ttl,
    /// In fixed steps, whatever the TTL.
    Every(Duration),
}

/// Connection reuse and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolSpec {
    /// How long an unused connection is kept. Should be shorter than the target keeps it.
    pub idle: Duration,
    /// Requests in flight to the whole upstream; 0 is unlimited.
    pub max: u32,
    /// Requests in flight to one target; 0 is unlimited.
    pub per_target: u32,
}

impl Default for PoolSpec {
    fn default() -> Self {
        PoolSpec { idle: Duration::from_secs(60), max: 0, per_target: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print() {
        for text in [
            "10.0.0.1:80",
            "[::1]:8080",
            "app.internal:3000",
            "a_b-c:1",
            "unix:/run/a b.sock",
            "localhost:3001",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("App.Internal:1".parse(), Ok(Address::Name { host: "app.internal".into(), port: 1 }));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "app",
            "app:",
            "app:0",
            "app:65536",
            ":80",
            "10.0.0.1",
            "10.0.0.1:0",
            "10.0.0.256:80",
            "::1:80",
            "a b:80",
            "-a:80",
            "a..b:80",
            "http://a:80",
            "unix:app.sock",
            "a/b:80",
            "1.2.3:80",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
