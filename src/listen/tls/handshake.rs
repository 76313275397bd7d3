//! One handshake: in its own time, counted, and described for the requests that follow it.

use super::document::Forward;
use super::{Tls, client};
use crate::exchange::Secured;
use crate::observe::metrics::TlsFailure;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, CipherSuite, HandshakeKind, ProtocolVersion, ServerConnection};
use tokio_rustls::server::TlsStream;

/// A connection after its handshake.
pub struct Handshaken {
    /// The connection.
    pub stream: Box<TlsStream<TcpStream>>,
    /// What is known of it.
    pub secured: Arc<Secured>,
}

/// First byte of a TLS handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// What is told somebody who speaks HTTP in cleartext where TLS is expected.
const NOT_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 51\r\nconnection: close\r\n\r\nThis port speaks TLS: write https:// before a host\n";

impl Tls {
    /// Does the server's part of a handshake until `deadline`. What fails is counted, and closed.
    pub async fn accept(&self, stream: TcpStream, deadline: Instant) -> Option<Handshaken> {
        let failure = match timeout_at(deadline, self.shake_hands(stream)).await {
            Ok(Ok(handshaken)) => {
                self.metrics.accepted(handshaken.secured.resumed);
                return Some(handshaken);
            }
            Ok(Err(failure)) => failure,
            Err(_) => TlsFailure::Timeout,
        };
        self.metrics.failed(failure);
        None
    }

    async fn shake_hands(&self, mut stream: TcpStream) -> Result<Handshaken, TlsFailure> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1..) => {}
            _ => return Err(TlsFailure::Closed),
        }
        if first != [HANDSHAKE] && first.first().is_some_and(u8::is_ascii_uppercase) {
            refuse_http(&mut stream).await;
            return Err(TlsFailure::NotTls);
        }
        let config = self.live.load().config.clone();
        let stream = Box::pin(TlsAcceptor::from(config).accept(stream)).await.map_err(|error| {
            log::debug!("listener `{}`: a handshake failed: {error}", self.spec.listener);
            failure(&error)
        })?;
        let forward = self.spec.clients.as_ref().map_or(Forward::None, |clients| clients.forward);
        let secured = Arc::new(describe(stream.get_ref().1, forward));
        Ok(Handshaken { stream: Box::new(stream), secured })
    }
}

/// Answers a request in cleartext. What was sent is read first, else closing would reset the connection and take the answer
/// along.
async fn refuse_http(stream: &mut TcpStream) {
    let mut request = [0; 4096];
    if stream.read(&mut request).await.is_ok() && stream.write_all(NOT_HTTP).await.is_ok() {
        // The client may be gone; there is nobody left to tell.
        let _ = stream.shutdown().await;
    }
}

fn failure(error: &io::Error) -> TlsFailure {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoApplicationProtocol) => TlsFailure::NoProtocol,
        Some(rustls::Error::PeerIncompatible(_)) => TlsFailure::Incompatible,
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
            TlsFailure::ClientCertificate
        }
        Some(rustls::Error::AlertReceived(_)) => TlsFailure::Refused,
        Some(_) => TlsFailure::Invalid,
        None if error.kind() == ErrorKind::InvalidData => TlsFailure::Invalid,
        None => TlsFailure::Closed,
    }
}

fn describe(connection: &ServerConnection, forward: Forward) -> Secured {
    Secured {
        sni: connection.server_name().map(Box::from),
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        },
        cipher: connection.negotiated_cipher_suite().map_or("", |suite| iana_name(suite.suite())),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        h2: connection.alpn_protocol() == Some(b"h2"),
        client: connection.peer_certificates().and_then(|chain| client::describe(chain, forward)),
    }
}

/// The registered name; rustls has its own for those of TLS 1.3.
fn iana_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        suite => suite.as_str().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_in_cleartext_has_its_length() {
        let text = std::str::from_utf8(NOT_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
