//! One connection to the server, in cleartext or over TLS, and the exchanges on it.

use crate::plan::Plan;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};

/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_HEAD: usize = 64 * 1024;

/// Opens connections as the plan wants them.
pub struct Opener {
    authority: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Opener {
    /// Reads the trusted certificates, once for all connections.
    pub fn new(plan: &Plan) -> io::Result<Opener> {
        let tls = if plan.secure { Some(tls(plan)?) } else { None };
        Ok(Opener { authority: plan.authority.clone(), tls })
    }

    /// A new connection; over TLS the handshake is made with the first byte sent.
    pub fn open(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(&self.authority)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some((config, name)) => {
                let session =
                    ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(session, stream))
            }
        };
        Ok(Connection { stream, buffer: Vec::with_capacity(16 * 1024), used: false })
    }
}

fn tls(plan: &Plan) -> io::Result<(Arc<ClientConfig>, ServerName<'static>)> {
    let file = plan.ca.as_ref().ok_or_else(|| io::Error::other("https needs --ca"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let host = plan.authority.rsplit_once(':').map_or(plan.authority.as_str(), |(host, _)| host);
    Ok((Arc::new(config), ServerName::try_from(host.to_owned()).map_err(io::Error::other)?))
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One open connection, and what has been read of it but not used.
pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    used: bool,
}

/// What a response said.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// How long its body was.
    pub bytes: usize,
    /// Whether the connection takes another request.
    pub keeps: bool,
    /// `Sec-WebSocket-Accept`, if any.
    pub accept: Option<String>,
}

/// Why an exchange failed.
#[derive(Debug)]
pub enum Broken {
    /// The kept connection was closed before anything was answered: what any client does then is to ask again.
    Stale,
    /// Anything else.
    Failed(io::Error),
}

impl Connection {
    /// Sends a request and reads the response with its body.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Response, Broken> {
        let kept = std::mem::replace(&mut self.used, true);
        let stale = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
                if kept =>
            {
                Broken::Stale
            }
            _ => Broken::Failed(error),
        };
        self.send(request).map_err(stale)?;
        self.buffer.clear();
        self.more().map_err(stale)?;
        self.response().map_err(Broken::Failed)
    }

    /// Writes all of it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next so many bytes.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.more()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn response(&mut self) -> io::Result<Response> {
        loop {
            if let Some((head, response)) = head(&self.buffer)? {
                self.skip(head + response.bytes)?;
                return Ok(response);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(bad("the head is too long"));
            }
            self.more()?;
        }
    }

    /// Drops so many bytes, those in the buffer first; a body is not kept, only counted.
    fn skip(&mut self, count: usize) -> io::Result<()> {
        let mut left = count;
        loop {
            if left <= self.buffer.len() {
                self.buffer.drain(..left);
                return Ok(());
            }
            left -= self.buffer.len();
            self.buffer.clear();
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut part = [0; 16 * 1024];
        match self.stream.read(&mut part)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(part.get(..read).unwrap_or_default());
                Ok(())
            }
        }
    }
}

/// The length of a head and what it says; `None` if it is not there in full.
fn head(buffer: &[u8]) -> io::Result<Option<(usize, Response)>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(buffer).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let status = parsed.code.unwrap_or_default();
    let field = |name: &str| {
        let found = parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    let bytes = match field("content-length") {
        Some(length) => length.parse().map_err(|_| bad("content-length is no number"))?,
        None if matches!(status, 101 | 204 | 304) => 0,
        None => return Err(bad("a response without content-length")),
    };
    let keeps = parsed.version == Some(1)
        && !field("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"));
    let accept = field("sec-websocket-accept").map(str::to_owned);
    Ok(Some((length, Response { status, bytes, keeps, accept })))
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\nhello";
        for cut in 0..text.len() - 5 {
            assert!(head(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let wanted = Response { status: 200, bytes: 5, keeps: false, accept: None };
        assert_eq!(head(text).unwrap(), Some((text.len() - 5, wanted)));
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "a body without an end is not measured");
        assert!(head(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
