//! Connections to a server, to the master that sentinels know of, or to a cluster.

use super::address::{Address, Login, Topology};
use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
};
use std::time::Duration;
use tokio::sync::Mutex;

/// Longest time for one connection, greeting included.
const CONNECT: Duration = Duration::from_secs(1);
/// Longest time until a master has been found: several sentinels may have to be asked.
const FIND: Duration = Duration::from_secs(5);
/// Requests that wait until the connection's task takes them; the wait is bounded by the store.
const QUEUE: usize = 4096;

/// Makes connections.
pub(super) struct Connector {
    way: Way,
}

enum Way {
    Single(Client),
    Sentinel(Mutex<SentinelClient>),
    Cluster(Box<ClusterClient>),
}

/// A connection that many requests share. Cheap to clone.
#[derive(Clone)]
pub(super) enum Wire {
    /// To one server, and which.
    One(MultiplexedConnection, std::sync::Arc<str>),
    /// To a cluster.
    Cluster(ClusterConnection),
}

impl Wire {
    /// Sends a command and waits for its answer, for as long as the caller does. An error of the server is an `Err`.
    pub async fn run(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Wire::One(connection, _) => command.query_async(connection).await,
            Wire::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

impl Connector {
    /// Takes the address apart for the driver; connects to nothing.
    pub fn new(address: &Address, ca: Option<Vec<u8>>, timeout: Duration) -> Result<Self, String> {
        let certificates = TlsCertificates { client_tls: None, root_cert: ca };
        let way = match &address.topology {
            Topology::Single => single(address, &certificates).map(Way::Single),
            Topology::Sentinel { master, login } => sentinel(address, master, login, &certificates)
                .map(|client| Way::Sentinel(Mutex::new(client))),
            Topology::Cluster => {
                cluster(address, certificates, timeout).map(|client| Way::Cluster(Box::new(client)))
            }
        };
        // What the driver says here is about certificates; it has no password in it.
        Ok(Connector { way: way.map_err(|error| format!("Redis: {error}"))? })
    }

    /// Opens a connection, which may take seconds.
    pub async fn connect(&self) -> Result<Wire, String> {
        let found = tokio::time::timeout(FIND, self.try_connect()).await;
        let wire = found.map_err(|_| "no connection in time".to_owned())?;
        wire.map_err(|error| error.to_string())
    }

    async fn try_connect(&self) -> Result<Wire, RedisError> {
        match &self.way {
            Way::Single(client) => one(client).await,
            Way::Sentinel(sentinels) => {
                let client = sentinels.lock().await.async_get_client().await?;
                one(&client).await
            }
            Way::Cluster(client) => client.get_async_connection().await.map(Wire::Cluster),
        }
    }

    /// Whether connections are found by asking sentinels.
    pub fn asks_sentinels(&self) -> bool {
        matches!(self.way, Way::Sentinel(_))
    }

    /// Whether the sentinels know of another master than the one `wire` leads to. When nobody answers, nothing is known.
    pub async fn has_moved(&self, wire: &Wire) -> bool {
        let (Way::Sentinel(sentinels), Wire::One(_, place)) = (&self.way, wire) else { return false };
        let asked = async { sentinels.lock().await.async_get_client().await };
        match tokio::time::timeout(FIND, asked).await {
            Ok(Ok(client)) => client.get_connection_info().addr().to_string() != **place,
            _ => false,
        }
    }
}

async fn one(client: &Client) -> Result<Wire, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        // The store has a deadline of its own, and one timer is enough.
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    Ok(Wire::One(connection, client.get_connection_info().addr().to_string().into()))
}

fn single(address: &Address, certificates: &TlsCertificates) -> RedisResult<Client> {
    let Some(host) = address.hosts.first() else { return Client::open("") };
    let info = info(address, host)?;
    if address.tls { Client::build_with_tls(info, certificates.clone()) } else { Client::open(info) }
}

fn sentinel(
    address: &Address,
    master: &str,
    login: &Login,
    certificates: &TlsCertificates,
) -> RedisResult<SentinelClient> {
    let hosts = address.hosts.iter().map(|host| place(address, host));
    let mut builder = SentinelClientBuilder::new(hosts, master, SentinelServerType::Master)?
        .set_client_to_redis_db(address.db.into())
        .set_client_to_redis_tcp_settings(tcp())
        .set_client_to_sentinel_tcp_settings(tcp());
    if let Some(user) = &address.login.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &address.login.password {
        builder = builder.set_client_to_redis_password(password.expose());
    }
    if let Some(user) = &login.user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = &login.password {
        builder = builder.set_client_to_sentinel_password(password.expose());
    }
    if address.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates.clone());
    }
    builder.build()
}

fn cluster(
    address: &Address,
    certificates: TlsCertificates,
    timeout: Duration,
) -> RedisResult<ClusterClient> {
    let nodes = address.hosts.iter().map(|host| info(address, host)).collect::<RedisResult<Vec<_>>>()?;
    let mut builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(CONNECT)
        .response_timeout(timeout)
        // A slot that has moved is asked for once more; the store's deadline holds all the same.
        .retries(2)
        .min_retry_wait(1)
        .max_retry_wait(u64::try_from(timeout.as_millis() / 4).unwrap_or(u64::MAX).max(2))
        .tcp_settings(tcp());
    if address.tls {
        builder = builder.tls(TlsMode::Secure).certs(certificates);
    }
    builder.build()
}

fn info(address: &Address, host: &(String, u16)) -> RedisResult<ConnectionInfo> {
    let mut settings = RedisConnectionInfo::default().set_db(address.db.into());
    if let Some(user) = &address.login.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &address.login.password {
        settings = settings.set_password(password.expose());
    }
    Ok(place(address, host).into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp()))
}

fn place(address: &Address, (host, port): &(String, u16)) -> ConnectionAddr {
    match address.tls {
        true => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host.clone(), *port),
    }
}

/// Small messages must not wait for each other's acknowledgement.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}
