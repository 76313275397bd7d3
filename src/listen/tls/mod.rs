//! TLS on the side of clients: certificates by name, sessions that go on, files that change under way.
//!
//! Everything a handshake needs is made when the configuration is built or a file has changed, and swapped as one. What
//! rustls offers over ring is what BCP 195 (RFC 9325) asks for: TLS 1.2 with ECDHE and authenticated encryption only, and
//! TLS 1.3. Early data is never taken (RFC 8470), compression and renegotiation do not exist.

pub mod certificates;
mod client;
pub mod document;
mod handshake;
mod material;
pub mod pair;
pub mod tickets;
mod watch;

pub use handshake::Handshaken;
pub use material::{Fault, File, Material};

use crate::observe::metrics::TlsMetrics;
use arc_swap::ArcSwap;
use certificates::Certificates;
use document::{ClientMode, Forward, Version};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tickets::{Bound, Tickets};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion, version};

/// What TLS of a listener is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name of the listener.
    pub listener: String,
    /// Certificates; the first is for everybody whom no other is for.
    pub pairs: Vec<PairFiles>,
    /// The oldest version that is spoken.
    pub min: Version,
    /// Whether HTTP/2 is offered.
    pub h2: bool,
    /// Whether HTTP/1.1 is offered.
    pub http1: bool,
    /// Who vouches for clients, if they are asked for certificates.
    pub clients: Option<Clients>,
}

impl Spec {
    /// All files.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.pairs.iter().flat_map(|pair| [pair.cert.as_path(), &pair.key]);
        pairs.chain(self.clients.iter().map(|clients| clients.ca.as_path()))
    }
}

/// Who vouches for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Whether they may or must show a certificate.
    pub mode: ClientMode,
    /// Where the CA certificates are.
    pub ca: PathBuf,
    /// What upstreams are told.
    pub forward: Forward,
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// What metrics and the log call the pair.
    pub label: String,
}

/// TLS of a listener, ready to run.
pub struct Tls {
    /// What the log calls the watch over its files.
    task: String,
    spec: Spec,
    live: ArcSwap<Live>,
    tickets: Arc<Tickets>,
    metrics: TlsMetrics,
}

/// What changes with the files.
struct Live {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    /// Digest of all that was read.
    content: [u8; 32],
}

impl Tls {
    /// From what was read for this.
    ///
    /// # Errors
    /// The process's cryptography cannot do what is asked for.
    pub fn new(
        spec: Spec,
        material: Material,
        tickets: Arc<Tickets>,
        metrics: TlsMetrics,
    ) -> Result<Tls, String> {
        let live = Live::new(&spec, material, &tickets)?;
        let task = format!("certificates of {}", spec.listener);
        Ok(Tls { task, spec, live: ArcSwap::from_pointee(live), tickets, metrics })
    }

    /// Whether it was made from the same settings and files with the same content.
    pub fn is_made_from(&self, spec: &Spec, material: &Material) -> bool {
        self.spec == *spec && self.live.load().content == material.content
    }

    /// The certificates in use.
    pub fn certificates(&self) -> Arc<Certificates> {
        self.live.load().certificates.clone()
    }

    /// Whether a request for `host` does not belong on a connection that was made for `sni`.
    pub fn is_misdirected(&self, sni: &str, host: &str) -> bool {
        self.live.load().certificates.is_misdirected(sni, host)
    }
}

impl Live {
    fn new(spec: &Spec, material: Material, tickets: &Arc<Tickets>) -> Result<Live, String> {
        let certificates = Arc::new(Certificates::new(material.pairs));
        let builder =
            ServerConfig::builder_with_provider(crypto()).with_protocol_versions(versions(spec.min));
        let builder = builder.map_err(|cause| cause.to_string())?;
        let builder = match material.verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(certificates.clone());
        let offered =
            [(spec.h2, "h2"), (spec.http1, "http/1.1")].into_iter().filter(|(is_offered, _)| *is_offered);
        config.alpn_protocols = offered.map(|(_, protocol)| protocol.into()).collect();
        config.ticketer = Arc::new(Bound::new(tickets.clone(), material.context));
        // Every client that goes on with sessions takes tickets, and those survive a reload and an upgrade.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Live { config: Arc::new(config), certificates, content: material.content })
    }
}

/// The versions from this one on.
fn versions(min: Version) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static NEWEST: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match min {
        Version::Tls12 => &BOTH,
        Version::Tls13 => &NEWEST,
    }
}

/// The cryptography of the process.
fn crypto() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}
