//! Names to addresses: `/etc/hosts` first, then the configured or the system's name servers.

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, Resolver as Dns, TokioResolver};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long one query to one server may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks names up. It keeps no cache: whoever asks decides when to ask again.
///
/// Use it on one runtime only, the one that background tasks run on: its sockets belong to the first that asks.
pub struct Resolver {
    dns: Option<TokioResolver>,
    failures: AtomicU64,
}

/// What one family of addresses had to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// At least one address, and for how long the answer holds.
    Found(Vec<IpAddr>, Duration),
    /// The name has no address of this family.
    Nothing,
    /// Nobody could tell.
    Failed(String),
}

/// Both families of one name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) v4: Family,
    pub(super) v6: Family,
}

impl Resolver {
    /// Asks these servers, or with an empty list those of `/etc/resolv.conf`.
    ///
    /// # Errors
    /// When the resolver cannot be made. A system without `/etc/resolv.conf` is no error: names in `/etc/hosts` still
    /// resolve, others fail when they are looked up.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let builder = if servers.is_empty() {
            match TokioResolver::builder_tokio() {
                Ok(builder) => builder,
                Err(cause) => {
                    log::warn!("no name servers known ({cause}): only names in /etc/hosts will resolve");
                    return Ok(Resolver { dns: None, failures: AtomicU64::new(0) });
                }
            }
        } else {
            let servers = servers.iter().map(name_server).collect();
            Dns::builder_with_config(
                ResolverConfig::from_parts(None, Vec::new(), servers),
                TokioRuntimeProvider::default(),
            )
        };
        let dns = configured(builder).map_err(|cause| format!("the resolver cannot be started: {cause}"))?;
        Ok(Resolver { dns: Some(dns), failures: AtomicU64::new(0) })
    }

    /// Look-ups that failed since the start, for metrics.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Looks up A and AAAA. A name in `/etc/hosts` is not asked for elsewhere.
    pub(super) async fn look_up(&self, host: &str) -> Found {
        let found = match Name::from_utf8(host) {
            Err(cause) => {
                Found { v4: Family::Failed(cause.to_string()), v6: Family::Failed(cause.to_string()) }
            }
            Ok(name) => match in_hosts_file(name.clone()).await {
                Some(found) => found,
                None => {
                    let (v4, v6) =
                        tokio::join!(self.ask(&name, RecordType::A), self.ask(&name, RecordType::AAAA));
                    Found { v4, v6 }
                }
            },
        };
        if found.is_failure() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    async fn ask(&self, name: &Name, record: RecordType) -> Family {
        let Some(dns) = &self.dns else { return Family::Failed("no name servers known".to_owned()) };
        match dns.lookup(name.clone(), record).await {
            Ok(lookup) => family(&lookup),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Family::Nothing,
            Err(cause) => Family::Failed(cause.to_string()),
        }
    }
}

impl Found {
    /// Whether a family could not be asked for, or the name has no address at all.
    pub(super) fn is_failure(&self) -> bool {
        match (&self.v4, &self.v6) {
            (Family::Failed(_), _) | (_, Family::Failed(_)) => true,
            (v4, v6) => *v4 == Family::Nothing && *v6 == Family::Nothing,
        }
    }

    /// For how long the answer holds: the shorter of both families.
    pub(super) fn ttl(&self) -> Option<Duration> {
        let ttl = |family: &Family| if let Family::Found(_, ttl) = family { Some(*ttl) } else { None };
        ttl(&self.v4).into_iter().chain(ttl(&self.v6)).min()
    }

    /// Why it is a failure.
    pub(super) fn reason(&self) -> &str {
        match (&self.v4, &self.v6) {
            (Family::Failed(reason), _) | (_, Family::Failed(reason)) => reason,
            _ => "the name has no address",
        }
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    // An empty answer of a configured server is an answer; do not go asking the next one for a better one.
    NameServerConfig::new(
        address.ip(),
        true,
        vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())],
    )
}

fn configured(
    mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>,
) -> Result<TokioResolver, NetError> {
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = options.timeout.min(QUERY_TIMEOUT);
    // Read afresh at every look-up instead, so that an edit needs no restart.
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

/// Present there in either family means: that is all there is, as with `getaddrinfo`.
async fn in_hosts_file(name: Name) -> Option<Found> {
    let read = move || {
        let hosts = Hosts::from_system().ok()?;
        let of = |record| {
            let lookup = hosts.lookup_static_host(&Query::query(name.clone(), record));
            lookup.map_or(Family::Nothing, |lookup| family(&lookup))
        };
        Some(Found { v4: of(RecordType::A), v6: of(RecordType::AAAA) })
    };
    let found = tokio::task::spawn_blocking(read).await.ok().flatten()?;
    (!found.is_failure()).then_some(found)
}

fn family(lookup: &hickory_resolver::lookup::Lookup) -> Family {
    let mut addresses: Vec<IpAddr> =
        lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
    // Servers rotate their answers; an order of our own keeps the membership from changing each time.
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Family::Nothing;
    }
    Family::Found(addresses, lookup.valid_until().saturating_duration_since(Instant::now()))
}
