//! TLS to targets: what is trusted, checked and made ready once for each upstream.
//!
//! Nothing of it is shared between upstreams, sessions that may be resumed included: what one has verified says nothing to
//! another with other trust.

use super::dial::{Spoken, Versions};
use crate::listen::connection::Socket;
use std::io;
use std::sync::{Arc, LazyLock};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// What tollgate proves itself with: a chain of certificates and the key of its first.
pub(super) type Proof = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The names of the versions in the handshake (RFC 7301).
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// How handshakes with the targets of one upstream are made, for each choice of versions.
#[derive(Clone)]
pub(super) struct Handshakes {
    http1: TlsConnector,
    http2: TlsConnector,
    either: TlsConnector,
}

impl Handshakes {
    /// Handshakes that trust `roots`, or the system's authorities, or if not `verify` anybody.
    ///
    /// # Errors
    /// The certificates and the key of `proof` do not belong together.
    pub(super) fn new(
        roots: Option<RootCertStore>,
        proof: Option<Proof>,
        verify: bool,
    ) -> Result<Handshakes, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&[&TLS13, &TLS12])?.dangerous();
        let builder = builder.with_custom_certificate_verifier(verifier(roots, provider, verify)?);
        let config = match proof {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        // Clones share the sessions that may be resumed.
        let speaking = |names: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        Ok(Handshakes { http1: speaking(&[HTTP1]), http2: speaking(&[H2]), either: speaking(&[H2, HTTP1]) })
    }

    /// Handshakes with a target of this name.
    pub(super) fn with(&self, name: ServerName<'static>) -> Tls {
        Tls { handshakes: self.clone(), name }
    }
}

fn verifier(
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
    verify: bool,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let trusted = || roots.map_or_else(|| Arc::clone(&SYSTEM), Arc::new);
    let Some(roots) = verify.then(trusted).filter(|roots| !roots.is_empty()) else {
        return Ok(Arc::new(WithoutAuthorities { provider, trusting: !verify }));
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    Ok(verifier.map_err(|error| Error::General(error.to_string()))?)
}

/// The authorities that the system trusts, as they were when they were needed first.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("certificate authorities of the system: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if unusable > 0 {
        log::debug!("{unusable} certificate authorities of the system cannot be used");
    }
    Arc::new(roots)
});

/// TLS to one target.
#[derive(Clone)]
pub(super) struct Tls {
    handshakes: Handshakes,
    name: ServerName<'static>,
}

impl Tls {
    /// Makes the handshake and gives the version that was agreed on: HTTP/1.1 when the target leaves it open.
    pub(super) async fn handshake(&self, socket: Socket, versions: Versions) -> io::Result<(Socket, Spoken)> {
        let connector = match versions {
            Versions::Http1 => &self.handshakes.http1,
            Versions::Http2 => &self.handshakes.http2,
            Versions::Either => &self.handshakes.either,
        };
        let stream = Box::new(connector.connect(self.name.clone(), socket).await?);
        let spoken = match stream.get_ref().1.alpn_protocol() {
            Some(H2) => Spoken::Http2,
            _ => Spoken::Http1,
        };
        Ok((stream.into(), spoken))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Verifies without authorities: takes every certificate for a good one, as `verify: false` asks, or none where there is
/// nobody to trust. That the other end has its key is proven all the same.
#[derive(Debug)]
struct WithoutAuthorities {
    provider: Arc<CryptoProvider>,
    trusting: bool,
}

impl ServerCertVerifier for WithoutAuthorities {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.trusting {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
