//! Connections to one target: TCP or a Unix socket, and TLS over it.

use super::spec::Protocol;
use super::target::Place;
use super::tls::Tls;
use crate::listen::connection::Socket;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Finds a connection whose other end has vanished within two minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Which versions of HTTP may be spoken to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Whichever the target picks in the handshake (RFC 7301).
    Either,
}

impl Versions {
    /// The versions of a protocol.
    pub(super) fn of(protocol: Protocol, tls: bool) -> Versions {
        match protocol {
            Protocol::Auto if tls => Versions::Either,
            Protocol::Auto | Protocol::Http1 => Versions::Http1,
            Protocol::H2 | Protocol::H2c | Protocol::Grpc => Versions::Http2,
        }
    }
}

/// A version that is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// Why a target cannot be reached. Nothing was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// There is no connection.
    Failed,
    /// The system gave up waiting.
    TimedOut,
    /// There is no TLS on it.
    Tls,
    /// There is, but the target does not speak HTTP/2 as it must.
    OtherProtocol,
}

impl From<io::Error> for Unreached {
    fn from(error: io::Error) -> Unreached {
        match error.kind() {
            io::ErrorKind::TimedOut => Unreached::TimedOut,
            _ => Unreached::Failed,
        }
    }
}

/// How one target is connected to.
#[derive(Debug)]
pub(super) struct Dial {
    place: Place,
    tls: Option<Tls>,
    pub(super) versions: Versions,
}

impl Dial {
    pub(super) fn new(place: Place, tls: Option<Tls>, versions: Versions) -> Dial {
        Dial { place, tls, versions }
    }

    /// Whether connections are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects, TLS handshake included. There is no time limit.
    pub(super) async fn connect(&self, versions: Versions) -> Result<(Socket, Spoken), Unreached> {
        let socket = self.socket().await?;
        let Some(tls) = &self.tls else {
            let spoken = if versions == Versions::Http2 { Spoken::Http2 } else { Spoken::Http1 };
            return Ok((socket, spoken));
        };
        let (socket, picked) = tls.handshake(socket, versions).await.map_err(|error| {
            log::debug!("TLS handshake with {} failed: {error}", self.place);
            Unreached::Tls
        })?;
        match (versions, picked) {
            (Versions::Http1, Spoken::Http2) | (Versions::Http2, Spoken::Http1) => {
                Err(Unreached::OtherProtocol)
            }
            _ => Ok((socket, picked)),
        }
    }

    async fn socket(&self) -> io::Result<Socket> {
        match &self.place {
            Place::Inet(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
                Ok(Socket::Tcp(stream))
            }
            Place::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    }
}
