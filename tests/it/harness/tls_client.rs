//! Clients that speak TLS: what they trust, ask for and show, and what came of the handshake.

use super::client::Client;
use super::h2_client::H2Client;
use super::wire::{Stream, Wire};
use super::{Authority, DEADLINE, Leaf, runtime};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};

/// A kind of TLS client. Its connections go on with each other's sessions.
pub struct TlsDial(Arc<ClientConfig>);

/// A connection after its handshake.
pub struct Secure {
    /// Speaks HTTP/1.1 over it.
    pub client: Client,
    /// Whether it went on with an earlier session.
    pub resumed: bool,
    pub version: ProtocolVersion,
    pub alpn: Option<Vec<u8>>,
    /// The certificate that was shown.
    pub shown: CertificateDer<'static>,
}

impl TlsDial {
    /// Trusts an authority.
    pub fn new(authority: &Authority) -> Self {
        TlsDial::with(authority, None, &[&version::TLS13, &version::TLS12], &[b"http/1.1"])
    }

    /// The same with another choice of versions and protocols, and a certificate to show when asked.
    pub fn with(
        authority: &Authority,
        own: Option<&Leaf>,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            Some(leaf) => builder.with_client_auth_cert(leaf.chain(), leaf.private_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsDial(Arc::new(config))
    }

    pub fn connect(&self, addr: SocketAddr, sni: &str) -> Secure {
        self.try_connect(addr, sni, b"").unwrap_or_else(|error| panic!("TLS with {sni}: {error}"))
    }

    /// Connects, sends `before` in cleartext, and does the handshake. With TLS 1.3 a server that does not like the client's
    /// certificate says so only afterwards.
    pub fn try_connect(&self, addr: SocketAddr, sni: &str, before: &[u8]) -> io::Result<Secure> {
        let mut socket = TcpStream::connect(addr)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_nodelay(true)?;
        socket.write_all(before)?;
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        let mut session = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let secure = (
            session.handshake_kind() == Some(HandshakeKind::Resumed),
            session.protocol_version().unwrap(),
            session.alpn_protocol().map(<[u8]>::to_vec),
            session.peer_certificates().unwrap()[0].clone(),
        );
        let client = Client { wire: Wire::new(StreamOwned::new(session, socket)) };
        let (resumed, version, alpn, shown) = secure;
        Ok(Secure { client, resumed, version, alpn, shown })
    }

    /// An HTTP/2 connection; it must be what ALPN agrees on.
    pub fn connect_h2(&self, addr: SocketAddr, sni: &str) -> H2Client {
        let (config, name) = (self.0.clone(), ServerName::try_from(sni.to_owned()).unwrap());
        let stream = runtime().block_on(async {
            let socket = tokio::net::TcpStream::connect(addr).await.unwrap();
            TlsConnector::from(config).connect(name, socket).await.unwrap()
        });
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        H2Client::over(stream)
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(&self.sock)
    }
}
