//! One URL that tollgate itself calls: keys of an issuer, an authorization server, a service that decides.
//!
//! It is no [`super::Upstream`]: there is no balancing and no health to keep. Names are looked up when a call needs them
//! and the answer is kept for its time to live, the last good addresses for ever; while one background look-up is under
//! way, calls go on with what is known.

use super::client::{Answer, Client, ClientError, Limits};
use super::peer::Blueprint;
use super::resolver::{Family, Found, Resolver};
use super::spec::{Address, TargetSpec, TlsSpec, UpstreamSpec};
use super::target::Place;
use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Uri};
use parking_lot::Mutex;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Bounds of the time an answer of the name servers is kept, whatever its time to live.
const KEPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Addresses that ran out longer ago than this are looked up anew before the call, not beside it.
const OLD: Duration = Duration::from_secs(60);
/// The least time an address gets to accept a connection, however many more there are.
const LEAST_CONNECT: Duration = Duration::from_millis(250);
/// How long an unused connection is kept: below what servers usually keep theirs.
const IDLE: Duration = Duration::from_secs(30);

/// One `http` or `https` URL and all it takes to call it. Cheap to call at once from many tasks.
pub struct Endpoint {
    url: Arc<str>,
    path: Box<str>,
    host: HeaderValue,
    clear_text: bool,
    client: Arc<Client>,
    names: Arc<Names>,
    /// Where the last call succeeded, so that a dead address costs its time only once.
    first: AtomicUsize,
}

/// What is asked of an endpoint. `Host` and framing are not among the headers: they are the endpoint's.
#[derive(Clone, Debug)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body.
    pub body: Option<Bytes>,
}

impl Call {
    /// A `GET`.
    pub fn get(headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        Call { method: Method::GET, headers, body: None }
    }
}

impl Endpoint {
    /// Reads the URL and checks it together with `ca`, PEM of the only authorities trusted instead of the system's. Does
    /// no I/O.
    ///
    /// # Errors
    /// What is wrong, for the operator; a part behind `"\nhelp: "` is the help line.
    pub fn new(
        url: &str,
        ca: Option<Arc<[u8]>>,
        client: &Arc<Client>,
        resolver: &Arc<Resolver>,
    ) -> Result<Self, String> {
        let uri = read(url)?;
        let tls = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let address = address(&uri, tls).ok_or_else(|| {
            format!("`{url}` has no host that can be called\nhelp: write for example `https://login.example.com/keys`")
        })?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Ok(Endpoint {
            url: url.into(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).into(),
            host: HeaderValue::from_str(authority).map_err(|_| format!("`{url}` has no valid host"))?,
            clear_text: !tls && !is_loopback(&address),
            client: Arc::clone(client),
            names: Arc::new(Names::new(address, tls.then_some(ca), resolver)?),
            first: AtomicUsize::new(0),
        })
    }

    /// The URL as written.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether what is sent can be read on its way: `http` to a host that is not this one.
    pub fn is_clear_text(&self) -> bool {
        self.clear_text
    }

    /// Sends one request and reads the whole answer, whatever its status; redirects are not followed. When an address
    /// cannot be reached or breaks off, the next one is tried while there is time: so a call must be one that may be
    /// made twice. Cancel safe.
    ///
    /// # Errors
    /// That of the last address tried; [`ClientError::Connect`] when no address is known.
    pub async fn call(&self, call: &Call, limits: Limits) -> Result<Answer, ClientError> {
        let deadline = Instant::now() + limits.total;
        let head = self.head(call).map_err(|error| ClientError::Unsendable(error.to_string()))?;
        let peers = timeout_at(deadline, Arc::clone(&self.names).peers())
            .await
            .map_err(|_| ClientError::Timeout)??;
        let first = self.first.load(Ordering::Relaxed);
        let mut result = Err(ClientError::Timeout);
        for tried in 0..peers.len() {
            let number = first.wrapping_add(tried) % peers.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(peer) = peers.get(number).filter(|_| !left.is_zero()) else { break };
            let peer = hurried(peer, left, peers.len() - tried);
            let limits = Limits { total: left, ..limits };
            result = self.client.send(&peer, head.clone(), call.body.clone(), limits).await;
            match &result {
                Ok(_) => {
                    self.first.store(number, Ordering::Relaxed);
                    return result;
                }
                Err(ClientError::TooLarge(_) | ClientError::Unsendable(_)) => return result,
                Err(ClientError::Connect(_) | ClientError::Timeout | ClientError::Broken(_)) => {}
            }
        }
        // Nobody answered: perhaps it has moved.
        self.names.doubt();
        result
    }

    fn head(&self, call: &Call) -> pingora::Result<RequestHeader> {
        let mut head =
            RequestHeader::build(call.method.clone(), self.path.as_bytes(), Some(call.headers.len() + 3))?;
        head.insert_header(HOST, self.host.clone())?;
        head.insert_header(USER_AGENT, HeaderValue::from_static("tollgate"))?;
        for (name, value) in &call.headers {
            if name == USER_AGENT {
                head.insert_header(name, value)?;
            } else {
                head.append_header(name, value)?;
            }
        }
        Ok(head)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.url).finish()
    }
}

/// The parts of a URL, if it is one that can be called.
fn read(url: &str) -> Result<Uri, String> {
    const HELP: &str = "help: write for example `https://login.example.com/keys`";
    let uri: Uri = url.parse().map_err(|cause| format!("`{url}` is no URL: {cause}\n{HELP}"))?;
    let Some(authority) = uri.authority() else { return Err(format!("`{url}` is no full URL\n{HELP}")) };
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(format!("`{url}` is neither http nor https\n{HELP}")),
    }
    if authority.as_str().contains('@') {
        // Not repeated, because it may hold a password.
        return Err(
            "a URL must not carry a user name or password\nhelp: remove what stands before `@`".into()
        );
    }
    if url.contains('#') {
        return Err(format!("`{url}` has a fragment\nhelp: remove `#` and what follows, it is never sent"));
    }
    Ok(uri)
}

fn address(uri: &Uri, tls: bool) -> Option<Address> {
    let authority = uri.authority()?;
    let host = authority.host();
    let port = match authority.as_str().get(host.len()..)? {
        "" => {
            if tls {
                443
            } else {
                80
            }
        }
        port => port.strip_prefix(':')?.parse::<u16>().ok()?,
    };
    format!("{host}:{port}").parse().ok()
}

fn is_loopback(address: &Address) -> bool {
    match address {
        Address::Ip(address) => address.ip().is_loopback(),
        Address::Name { host, .. } => &**host == "localhost" || host.ends_with(".localhost"),
        Address::Unix(_) => true,
    }
}

/// The peer with its share of the time to connect in, so that one address that swallows packets leaves time for others.
fn hurried(peer: &HttpPeer, left: Duration, addresses: usize) -> HttpPeer {
    let share = left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    let connect = share.max(LEAST_CONNECT).min(left);
    let mut peer = peer.clone();
    peer.options.connection_timeout = Some(connect);
    peer.options.total_connection_timeout = Some(connect);
    peer
}

/// Where the endpoint is.
struct Names {
    address: Address,
    blueprint: Blueprint,
    resolver: Arc<Resolver>,
    known: Mutex<Known>,
    /// Held while looking up.
    asking: tokio::sync::Mutex<()>,
    failing: AtomicBool,
}

struct Known {
    addresses: Vec<IpAddr>,
    peers: Arc<[HttpPeer]>,
    until: Instant,
    /// Why there are none.
    trouble: Arc<str>,
}

impl Names {
    /// `tls` is what is trusted, or cleartext.
    fn new(
        address: Address,
        tls: Option<Option<Arc<[u8]>>>,
        resolver: &Arc<Resolver>,
    ) -> Result<Self, String> {
        let targets = vec![TargetSpec { address: address.clone(), weight: 1, backup: false }];
        let mut spec = UpstreamSpec::new("endpoint".parse()?, targets);
        spec.pool.idle = IDLE;
        spec.tls = tls.map(|ca| TlsSpec { ca, ..TlsSpec::default() });
        let blueprint = Blueprint::new(&spec)?;
        let peers = match &address {
            Address::Ip(address) => vec![blueprint.peer(&Place::Inet(*address), None)?],
            _ => Vec::new(),
        };
        let known = Known {
            addresses: Vec::new(),
            peers: peers.into(),
            until: Instant::now(),
            trouble: "its address has not been looked up yet".into(),
        };
        Ok(Names {
            address,
            blueprint,
            resolver: Arc::clone(resolver),
            known: Mutex::new(known),
            asking: tokio::sync::Mutex::new(()),
            failing: AtomicBool::new(false),
        })
    }

    /// Peers to try, at least one. Waits for a look-up only when nothing usable is known.
    async fn peers(self: Arc<Self>) -> Result<Arc<[HttpPeer]>, ClientError> {
        let Address::Name { host, .. } = &self.address else { return Ok(self.known.lock().peers.clone()) };
        let (is_empty, until) = {
            let known = self.known.lock();
            (known.peers.is_empty(), known.until)
        };
        let now = Instant::now();
        if now >= until && (is_empty || now >= until + OLD) {
            // A look-up goes on without the call that began it, else slow name servers would never be heard to the end.
            let _ = self.refresh().await;
        } else if now >= until && self.asking.try_lock().is_ok() {
            drop(self.refresh());
        }
        let known = self.known.lock();
        if known.peers.is_empty() {
            return Err(ClientError::Connect(format!("`{host}` cannot be looked up: {}", known.trouble)));
        }
        Ok(known.peers.clone())
    }

    fn refresh(self: &Arc<Self>) -> JoinHandle<()> {
        let names = Arc::clone(self);
        tokio::spawn(async move {
            let _asking = names.asking.lock().await;
            // Whoever held the lock before may have found what was needed.
            let is_stale = Instant::now() >= names.known.lock().until;
            if let (true, Address::Name { host, port }) = (is_stale, &names.address) {
                names.look_up(host, *port).await;
            }
        })
    }

    async fn look_up(&self, host: &str, port: u16) {
        let found = self.resolver.look_up(host).await;
        self.note(host, &found);
        let mut known = self.known.lock();
        known.until = Instant::now() + found.ttl().unwrap_or_default().clamp(KEPT.0, KEPT.1);
        if found.is_failure() {
            known.trouble = found.reason().into();
        }
        let addresses = merged(&known.addresses, found);
        if addresses.is_empty() || addresses == known.addresses {
            return;
        }
        let places = addresses.iter().map(|ip| Place::Inet(SocketAddr::new(*ip, port)));
        known.peers = places.filter_map(|place| self.blueprint.peer(&place, Some(host)).ok()).collect();
        known.addresses = addresses;
    }

    /// Lets the next call look up anew, but never sooner than a second after the last time.
    fn doubt(&self) {
        let mut known = self.known.lock();
        known.until = known.until.min(Instant::now() + KEPT.0);
    }

    /// Logs the first failure of a row, and its end.
    fn note(&self, host: &str, found: &Found) {
        let failed = found.is_failure();
        let was = self.failing.swap(failed, Ordering::Relaxed);
        if failed && !was {
            log::warn!(
                "`{host}` cannot be looked up: {}; keeping the addresses that are known",
                found.reason()
            );
        } else if was && !failed {
            log::info!("`{host}` can be looked up again");
        }
    }
}

/// The addresses of each family, or where it could not be asked for, those that were known of it.
fn merged(known: &[IpAddr], found: Found) -> Vec<IpAddr> {
    let of = |family: Family, is_mine: fn(&IpAddr) -> bool| match family {
        Family::Found(addresses, _) => addresses,
        Family::Nothing => Vec::new(),
        Family::Failed(_) => known.iter().copied().filter(is_mine).collect(),
    };
    let mut addresses = of(found.v4, IpAddr::is_ipv4);
    addresses.extend(of(found.v6, IpAddr::is_ipv6));
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::OnceLock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UdpSocket};

    const LIMITS: Limits = Limits { total: Duration::from_secs(10), max_body: 1024 };

    fn client() -> Arc<Client> {
        static CLIENT: OnceLock<Arc<Client>> = OnceLock::new();
        Arc::clone(CLIENT.get_or_init(|| Arc::new(Client::new(None))))
    }

    fn endpoint(url: &str, ca: Option<Arc<[u8]>>) -> Result<Endpoint, String> {
        Endpoint::new(
            url,
            ca,
            &client(),
            &Arc::new(Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap()),
        )
    }

    /// Serves every connection of a stream with `answer` to each request, and counts connections.
    async fn server(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let connections = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.unwrap_or(0) > 0 {
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        (address, count)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    async fn get(endpoint: &Endpoint) -> Result<Bytes, ClientError> {
        endpoint.call(&Call::get(Vec::new()), LIMITS).await.map(|answer| answer.body)
    }

    #[test]
    fn urls_are_checked() {
        for (url, is_clear_text) in [
            ("https://login.example.com/keys?a=b", false),
            ("https://login.example.com:8443", false),
            ("https://[2001:db8::1]/keys", false),
            ("https://192.0.2.1:8443/", false),
            ("http://login.example.com/", true),
            ("http://192.0.2.1/", true),
            ("http://localhost:8080/", false),
            ("http://127.0.0.1/", false),
            ("http://[::1]:80/", false),
        ] {
            assert_eq!(endpoint(url, None).unwrap().is_clear_text(), is_clear_text, "{url}");
        }
        for (url, word) in [
            ("", "URL"),
            ("/keys", "URL"),
            ("login.example.com", "neither http nor https"),
            ("ftp://a.test/", "neither http nor https"),
            ("https://", "URL"),
            ("https://:443/", "host"),
            ("https://a.test:0/", "host"),
            ("https://a.test:65536/", "host"),
            ("https://a b/", "URL"),
            ("https://a_.-/", "host"),
            ("https://1.2.3/", "host"),
            ("https://a.test/#x", "fragment"),
        ] {
            let error = endpoint(url, None).err().unwrap();
            assert!(error.contains(word), "{url}: {error}");
        }
        let error = endpoint("https://me:secret@a.test/", None).err().unwrap();
        assert!(error.contains("user name") && !error.contains("secret"), "{error}");
        assert!(endpoint("https://a.test/", Some(Arc::from(&b"x"[..]))).err().unwrap().contains("CA bundle"));
    }

    #[tokio::test]
    async fn connections_are_kept_and_every_address_is_tried() {
        let (address, connections) = server(OK).await;
        let direct = endpoint(&format!("http://{address}/"), None).unwrap();
        for _ in 0..3 {
            assert_eq!(get(&direct).await.unwrap(), "ok");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1);

        // A name with a dead address before the good one; which of them is known afterwards.
        let named = endpoint(&format!("http://two.test:{}/", address.port()), None).unwrap();
        let dead = IpAddr::from([127, 0, 0, 99]);
        know(&named, &[dead, address.ip()], address.port());
        for _ in 0..2 {
            assert_eq!(get(&named).await.unwrap(), "ok");
            assert_eq!(named.first.load(Ordering::Relaxed), 1);
        }
        let late = Limits { total: Duration::ZERO, ..LIMITS };
        assert_eq!(named.call(&Call::get(Vec::new()), late).await.err(), Some(ClientError::Timeout));
        let small = Limits { max_body: 1, ..LIMITS };
        assert_eq!(named.call(&Call::get(Vec::new()), small).await.err(), Some(ClientError::TooLarge(1)));
    }

    fn know(endpoint: &Endpoint, addresses: &[IpAddr], port: u16) {
        let place = |ip: &IpAddr| Place::Inet(SocketAddr::new(*ip, port));
        let peer = |ip| endpoint.names.blueprint.peer(&place(ip), Some("two.test")).unwrap();
        let mut known = endpoint.names.known.lock();
        known.peers = addresses.iter().map(peer).collect();
        known.addresses = addresses.to_vec();
        known.until = Instant::now() + KEPT.1;
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_not_asked_for_with_every_call() {
        let names = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let resolver = Arc::new(Resolver::new(&[names.local_addr().unwrap()]).unwrap());
        tokio::spawn(async move {
            let mut message = [0; 512];
            loop {
                let (length, from) = names.recv_from(&mut message).await.unwrap();
                // The question as the answer: NXDOMAIN.
                (message[2], message[3]) = (0x81, 0x83);
                names.send_to(&message[..length], from).await.unwrap();
            }
        });
        let unknown = Endpoint::new("http://nobody.test:1/", None, &client(), &resolver).unwrap();
        for _ in 0..20 {
            let error = get(&unknown).await.unwrap_err().to_string();
            assert!(error.contains("`nobody.test` cannot be looked up"), "{error}");
        }
        assert_eq!(unknown.names.resolver.failures(), 1);
        let (address, _) = server(OK).await;
        know(&unknown, &[address.ip()], address.port());
        unknown.names.known.lock().until = Instant::now() - Duration::from_secs(1);
        assert_eq!(get(&unknown).await.unwrap(), "ok", "the last good address, while it is looked up beside");
    }

    #[tokio::test]
    async fn names_of_the_hosts_file_are_found() {
        let (address, _) = server(OK).await;
        let local = endpoint(&format!("http://localhost:{}/", address.port()), None).unwrap();
        assert_eq!(get(&local).await.unwrap(), "ok");
    }

    #[test]
    fn a_family_that_cannot_be_asked_for_stays() {
        let (one, six): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "::6".parse().unwrap());
        let two = "10.0.0.2".parse().unwrap();
        let found = |ip| Family::Found(vec![ip], Duration::from_secs(1));
        let failed = || Family::Failed("x".to_owned());
        let merge = |v4, v6| merged(&[one, six], Found { v4, v6 });
        assert_eq!(merge(found(two), failed()), [two, six]);
        assert_eq!(merge(failed(), Family::Nothing), [one]);
        assert_eq!(
            merge(Family::Nothing, Family::Nothing),
            [] as [IpAddr; 0],
            "which the caller does not take over"
        );
    }

    #[tokio::test]
    async fn certificates_are_verified_for_the_name_in_the_url() {
        use tokio_rustls::rustls::{ServerConfig, pki_types::PrivateKeyDer};
        pingora::tls::install_default_crypto_provider();
        let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
        let ca: Arc<[u8]> = made.cert.pem().into_bytes().into();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(OK.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        for (name, ca, is_good) in [
            ("app.test", Some(ca.clone()), true),
            ("other.test", Some(ca.clone()), false),
            ("app.test", None, false),
        ] {
            let endpoint = endpoint(&format!("https://{name}:{}/", address.port()), ca.clone()).unwrap();
            know(&endpoint, &[], address.port());
            let place = Place::Inet(address);
            endpoint.names.known.lock().peers =
                vec![endpoint.names.blueprint.peer(&place, Some(name)).unwrap()].into();
            let result = get(&endpoint).await;
            assert_eq!(result.is_ok(), is_good, "{name} {} {result:?}", ca.is_some());
        }
    }
}
