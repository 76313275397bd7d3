//! How a target is reached: TLS material checked once, and for each target a [`Dial`] for requests of clients and an
//! [`HttpPeer`] for our own.
//!
//! A dial's connections are its target's alone. Peers share a pool that knows nothing of certificate authorities, so
//! everything that decides whom we trust goes into their `group_key`: without it a health check with a private CA would reuse
//! a connection that another had verified with the system's.

use super::dial::{Dial, Versions};
use super::spec::{Address, ClientCert, Protocol, TlsSpec, UpstreamSpec};
use super::target::Place;
use super::tls::{Handshakes, Proof};
use crate::observe::panics;
use pingora::protocols::TcpKeepalive;
use pingora::protocols::tls::{ALPN, CaType};
use pingora::tls::{CertificateDer, PrivateKeyDer, RootCertStore, ServerName};
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::pem::{self, PemObject};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// Streams that share one HTTP/2 connection; what most servers allow.
const H2_STREAMS: usize = 100;
/// HTTP/2 receive window of one stream, bytes. It bounds what a slow client makes us hold per request.
const H2_STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2 receive window of one connection, bytes.
const H2_CONNECTION_WINDOW: u32 = 8 << 20;
/// Finds a connection whose other end has vanished within two minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(15),
    count: 4,
    user_timeout: Duration::ZERO,
};

/// What every target of one upstream has in common, checked when it is made.
pub(super) struct Blueprint {
    protocol: Protocol,
    tls: Option<Trust>,
    idle: Duration,
    connect: Duration,
}

struct Trust {
    sni: Option<Arc<str>>,
    ca: Option<Arc<CaType>>,
    client_cert: Option<Arc<CertKey>>,
    verify: bool,
    handshakes: Handshakes,
    /// Of the PEM texts, because the engine's own hash sees serial numbers at most.
    material: u64,
}

impl Blueprint {
    /// Checks TLS material and protocol.
    ///
    /// # Errors
    /// One line for the operator; a part behind `"\nhelp: "` is the help line.
    pub(super) fn new(spec: &UpstreamSpec) -> Result<Self, String> {
        match (spec.protocol, &spec.tls) {
            (Protocol::H2, None) => {
                return Err(
                    "protocol `h2` needs `tls`\nhelp: write `protocol: h2c` for HTTP/2 in cleartext".into()
                );
            }
            (Protocol::H2c, Some(_)) => {
                return Err(
                    "protocol `h2c` is cleartext, but `tls` is set\nhelp: write `protocol: h2`".into()
                );
            }
            _ => {}
        }
        let tls = spec.tls.as_ref().map(Trust::new).transpose()?;
        let blueprint =
            Blueprint { protocol: spec.protocol, tls, idle: spec.pool.idle, connect: spec.connect };
        for target in &spec.targets {
            blueprint.check(&target.address)?;
        }
        Ok(blueprint)
    }

    /// Whether connections are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How one target is connected to; `name` is the host name it was found under.
    ///
    /// # Errors
    /// When no server name can be told; [`Blueprint::new`] has ruled that out.
    pub(super) fn dial(&self, place: &Place, name: Option<&str>) -> Result<Dial, String> {
        let tls = match &self.tls {
            None => None,
            Some(trust) => {
                let name = ServerName::try_from(self.server_name(place, name)?);
                Some(trust.handshakes.with(name.map_err(|cause| cause.to_string())?))
            }
        };
        Ok(Dial::new(place.clone(), tls, Versions::of(self.protocol, self.is_tls())))
    }

    /// Builds the template for one target; `name` is the host name it was found under.
    ///
    /// # Errors
    /// When a socket path is too long or no server name can be told; [`Blueprint::new`] has ruled out both.
    pub(super) fn peer(&self, place: &Place, name: Option<&str>) -> Result<HttpPeer, String> {
        let sni = self.server_name(place, name)?;
        let mut peer = match place {
            Place::Inet(address) => HttpPeer::new(*address, self.is_tls(), sni),
            Place::Unix(path) => {
                let path = path.to_str().ok_or("the socket's path is not UTF-8")?;
                HttpPeer::new_uds(path, self.is_tls(), sni)
                    .map_err(|_| format!("socket path `{path}` is too long\nhelp: at most 107 bytes"))?
            }
        };
        peer.group_key = self.group_key(&peer.sni);
        self.apply_trust(&mut peer);
        self.apply_options(&mut peer);
        Ok(peer)
    }

    fn check(&self, address: &Address) -> Result<(), String> {
        let (place, name) = match address {
            Address::Ip(address) => (Place::Inet(*address), None),
            Address::Unix(path) => (Place::Unix(path.as_path().into()), None),
            Address::Name { host, port } => (Place::Inet(([127, 0, 0, 1], *port).into()), Some(&**host)),
        };
        self.peer(&place, name).map(drop).map_err(|cause| format!("target `{address}`: {cause}"))
    }

    /// Never empty over TLS: the engine verifies nothing when the name is empty.
    fn server_name(&self, place: &Place, name: Option<&str>) -> Result<String, String> {
        let Some(tls) = &self.tls else { return Ok(String::new()) };
        let sni = match (&tls.sni, name, place) {
            (Some(sni), ..) => sni.to_string(),
            (None, Some(name), _) => name.strip_suffix('.').unwrap_or(name).to_owned(),
            (None, None, Place::Inet(address)) => address.ip().to_string(),
            (None, None, Place::Unix(_)) => {
                return Err("TLS over a Unix socket needs a name\nhelp: set `tls: { sni: … }`".into());
            }
        };
        match ServerName::try_from(sni.as_str()) {
            Ok(_) => Ok(sni),
            Err(_) => Err(format!(
                "`{sni}` is not a server name\nhelp: set `tls: {{ sni: … }}` to the name in the certificate"
            )),
        }
    }

    fn group_key(&self, sni: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.protocol.hash(&mut hasher);
        sni.hash(&mut hasher);
        self.tls.as_ref().map(|tls| (tls.verify, tls.material)).hash(&mut hasher);
        hasher.finish()
    }

    fn apply_trust(&self, peer: &mut HttpPeer) {
        let Some(tls) = &self.tls else { return };
        peer.options.ca.clone_from(&tls.ca);
        peer.options.verify_cert = tls.verify;
        peer.options.verify_hostname = tls.verify;
        peer.client_cert_key.clone_from(&tls.client_cert);
    }

    fn apply_options(&self, peer: &mut HttpPeer) {
        let options = &mut peer.options;
        options.alpn = self.alpn();
        if !matches!(options.alpn, ALPN::H1) {
            options.max_h2_streams = H2_STREAMS;
            options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
            options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
        }
        options.idle_timeout = Some(self.idle);
        options.connection_timeout = Some(self.connect);
        options.total_connection_timeout = Some(self.connect);
        options.tcp_keepalive = Some(KEEPALIVE);
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::standard();
    }

    fn alpn(&self) -> ALPN {
        match self.protocol {
            Protocol::Auto if self.is_tls() => ALPN::H2H1,
            Protocol::Auto | Protocol::Http1 => ALPN::H1,
            Protocol::H2 | Protocol::H2c | Protocol::Grpc => ALPN::H2,
        }
    }
}

impl Trust {
    fn new(spec: &TlsSpec) -> Result<Self, String> {
        let (roots, ca) = spec.ca.as_deref().map(authorities).transpose()?.unzip();
        let (proof, client_cert) = spec.client_cert.as_ref().map(client_certificate).transpose()?.unzip();
        let handshakes = Handshakes::new(roots, proof, spec.verify)
            .map_err(|cause| format!("the client certificate and its key cannot be used: {cause}"))?;
        let mut hasher = DefaultHasher::new();
        (&spec.ca, &spec.client_cert).hash(&mut hasher);
        let (sni, verify, material) = (spec.sni.clone(), spec.verify, hasher.finish());
        Ok(Trust { sni, ca, client_cert, verify, handshakes, material })
    }
}

fn authorities(pem: &[u8]) -> Result<(RootCertStore, Arc<CaType>), String> {
    let mut store = RootCertStore::empty();
    let mut parsed = Vec::new();
    for der in certificates(pem, "the CA bundle")? {
        store
            .add(der.clone())
            .map_err(|cause| format!("a certificate of the CA bundle cannot be used: {cause}"))?;
        parsed.push(parse(&der, "the CA bundle")?);
    }
    Ok((store, parsed.into()))
}

/// Fails where the engine would panic or fail on every connection: no certificate, or no key. That the two match is seen when
/// [`Handshakes`] are made of them.
fn client_certificate(pem: &ClientCert) -> Result<(Proof, Arc<CertKey>), String> {
    let chain = certificates(&pem.cert, "the client certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|cause| match cause {
        pem::Error::NoItemsFound => "the client certificate's key file contains no private key".to_owned(),
        cause => format!("the client certificate's key is not PEM: {cause}"),
    })?;
    let raw_key = key.secret_der().to_vec();
    PrivateKeyDer::try_from(raw_key.clone())
        .map_err(|cause| format!("the client certificate's key cannot be used: {cause}"))?;
    for der in &chain {
        parse(der, "the client certificate")?;
    }
    let engines = CertKey::new(chain.iter().map(|der| der.to_vec()).collect(), raw_key);
    Ok(((chain, key), Arc::new(engines)))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|cause| format!("{what} is not PEM: {cause}"))?;
    if chain.is_empty() { Err(format!("{what} contains no certificate")) } else { Ok(chain) }
}

/// The engine's own parser panics on what it cannot read, so that is caught here, once, at load.
fn parse(der: &CertificateDer<'_>, what: &str) -> Result<WrappedX509, String> {
    let raw = der.to_vec();
    panics::expected(move || WrappedX509::new(raw, parse_x509))
        .ok_or_else(|| format!("a certificate in {what} cannot be parsed"))
}

#[cfg(test)]
mod tests {
    use super::super::spec::TargetSpec;
    use super::*;
    use pingora::upstreams::peer::Peer;

    fn spec(target: &str, protocol: Protocol, tls: Option<TlsSpec>) -> UpstreamSpec {
        let targets = vec![TargetSpec { address: target.parse().unwrap(), weight: 1, backup: false }];
        UpstreamSpec { protocol, tls, ..UpstreamSpec::new("app".parse().unwrap(), targets) }
    }

    fn peer(tls: Option<TlsSpec>, protocol: Protocol) -> HttpPeer {
        let blueprint = Blueprint::new(&spec("10.0.0.1:443", protocol, tls)).unwrap();
        blueprint.peer(&Place::Inet("10.0.0.1:443".parse().unwrap()), None).unwrap()
    }

    fn pem(name: &str) -> (Arc<[u8]>, Arc<[u8]>) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem().into_bytes().into(), made.signing_key.serialize_pem().into_bytes().into())
    }

    #[test]
    fn connections_are_never_shared_across_trust() {
        let (one, other) = (pem("one"), pem("other"));
        let base = || TlsSpec { sni: Some("app".into()), ..TlsSpec::default() };
        let certified =
            |pair: &(Arc<[u8]>, Arc<[u8]>)| Some(ClientCert { cert: pair.0.clone(), key: pair.1.clone() });
        let variants = [
            peer(None, Protocol::Auto),
            peer(Some(base()), Protocol::Auto),
            peer(Some(base()), Protocol::H2),
            peer(Some(TlsSpec { ca: Some(one.0.clone()), ..base() }), Protocol::Auto),
            peer(Some(TlsSpec { ca: Some(other.0.clone()), ..base() }), Protocol::Auto),
            peer(Some(TlsSpec { verify: false, ..base() }), Protocol::Auto),
            peer(Some(TlsSpec { sni: Some("other".into()), ..base() }), Protocol::Auto),
            peer(Some(TlsSpec { client_cert: certified(&one), ..base() }), Protocol::Auto),
            peer(Some(TlsSpec { client_cert: certified(&other), ..base() }), Protocol::Auto),
        ];
        for (i, a) in variants.iter().enumerate() {
            for b in &variants[i + 1..] {
                assert_ne!(a.group_key, b.group_key, "{a} and {b}");
                assert_ne!(a.reuse_hash(), b.reuse_hash());
            }
        }
        let again = peer(Some(TlsSpec { ca: Some(one.0.clone()), ..base() }), Protocol::Auto);
        assert_eq!(again.reuse_hash(), variants[3].reuse_hash(), "equal trust shares connections");
    }

    #[test]
    fn over_tls_there_is_always_a_server_name() {
        let named = |target: &str, name: Option<&str>, sni: Option<&str>| {
            let tls = TlsSpec { sni: sni.map(Into::into), ..TlsSpec::default() };
            let blueprint = Blueprint::new(&spec(target, Protocol::Auto, Some(tls))).unwrap();
            blueprint.peer(&Place::Inet("10.0.0.1:443".parse().unwrap()), name).unwrap().sni
        };
        assert_eq!(named("10.0.0.1:443", None, None), "10.0.0.1");
        assert_eq!(named("app.internal:443", Some("app.internal"), None), "app.internal");
        assert_eq!(named("app.internal:443", Some("app.internal"), Some("x.test")), "x.test");
        for (target, sni) in
            [("unix:/run/a.sock", None), ("10.0.0.1:443", Some("")), ("10.0.0.1:443", Some("a b"))]
        {
            let tls = TlsSpec { sni: sni.map(Into::into), ..TlsSpec::default() };
            assert!(Blueprint::new(&spec(target, Protocol::Auto, Some(tls))).is_err(), "{target} {sni:?}");
        }
    }

    #[test]
    fn broken_material_is_refused_at_load() {
        let (one, other) = (pem("one"), pem("other"));
        let junk = Arc::<[u8]>::from(&b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"[..]);
        let nothing = Arc::<[u8]>::from(&b"hello"[..]);
        let refuse = |tls: TlsSpec, word: &str| {
            let error = Blueprint::new(&spec("10.0.0.1:443", Protocol::Auto, Some(tls))).err().unwrap();
            assert!(error.contains(word), "{error}");
        };
        let client = |cert: &Arc<[u8]>, key: &Arc<[u8]>| TlsSpec {
            client_cert: Some(ClientCert { cert: cert.clone(), key: key.clone() }),
            ..TlsSpec::default()
        };
        refuse(TlsSpec { ca: Some(nothing.clone()), ..TlsSpec::default() }, "no certificate");
        refuse(TlsSpec { ca: Some(junk.clone()), ..TlsSpec::default() }, "CA bundle");
        refuse(client(&one.0, &other.1), "cannot be used");
        refuse(client(&junk, &one.1), "client certificate");
        refuse(client(&one.0, &nothing), "no private key");
        refuse(client(&nothing, &one.1), "no certificate");
        assert!(Blueprint::new(&spec("10.0.0.1:443", Protocol::Auto, Some(client(&one.0, &one.1)))).is_ok());
    }

    #[test]
    fn the_protocol_decides_alpn_and_streams() {
        let tls = || Some(TlsSpec::default());
        for (tls, protocol, alpn, streams) in [
            (None, Protocol::Auto, ALPN::H1, 1),
            (tls(), Protocol::Auto, ALPN::H2H1, 100),
            (tls(), Protocol::Http1, ALPN::H1, 1),
            (tls(), Protocol::H2, ALPN::H2, 100),
            (None, Protocol::H2c, ALPN::H2, 100),
            (None, Protocol::Grpc, ALPN::H2, 100),
            (tls(), Protocol::Grpc, ALPN::H2, 100),
        ] {
            let peer = peer(tls, protocol);
            assert_eq!((peer.options.alpn, peer.options.max_h2_streams), (alpn, streams), "{protocol:?}");
        }
        assert!(Blueprint::new(&spec("10.0.0.1:1", Protocol::H2, None)).is_err());
        assert!(Blueprint::new(&spec("10.0.0.1:1", Protocol::H2c, tls())).is_err());
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_refused_at_load() {
        let path = format!("unix:/{}", "x".repeat(200));
        assert!(Blueprint::new(&spec(&path, Protocol::Auto, None)).err().unwrap().contains("too long"));
    }
}
