//! An HTTP/1.1 client that shows every byte and keeps its connection, so that reuse can be asserted.

use super::DEADLINE;
use super::message::Response;
use super::wire::Wire;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A client on one connection.
pub struct Client {
    pub wire: Wire,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap_or_else(|error| panic!("connecting to {addr}: {error}"));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { wire: Wire::new(stream) }
    }

    pub fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client { wire: Wire::new(stream) }
    }

    /// GET over this connection.
    pub fn get(&mut self, target: &str) -> Response {
        self.request("GET", target).send()
    }

    /// A request over this connection, to be refined and sent.
    pub fn request(&mut self, method: &str, target: &str) -> Ask<'_> {
        Ask {
            client: self,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Body::None,
        }
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.write(bytes).unwrap_or_else(|error| panic!("sending: {error}"));
    }

    /// Reads the response to a request with `method`.
    pub fn read(&mut self, method: &str) -> Response {
        Response::read(&mut self.wire, method).unwrap_or_else(|error| panic!("reading a response: {error}"))
    }

    /// Reads the head of a response only.
    pub fn read_head(&mut self) -> Response {
        Response::read_head(&mut self.wire).unwrap_or_else(|error| panic!("reading a response: {error}"))
    }
}

enum Body {
    None,
    Whole(Vec<u8>),
    Chunks(Vec<Vec<u8>>),
}

/// A request being put together.
pub struct Ask<'a> {
    client: &'a mut Client,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Body,
}

impl Ask<'_> {
    /// Adds a header line; without `host`, `Host: test.example` is sent.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Names the host.
    pub fn host(self, host: &str) -> Self {
        self.header("host", host)
    }

    /// Sends a body with its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Whole(body.into());
        self
    }

    /// Sends a body in chunks.
    pub fn chunks<B: Into<Vec<u8>>>(mut self, chunks: impl IntoIterator<Item = B>) -> Self {
        self.body = Body::Chunks(chunks.into_iter().map(Into::into).collect());
        self
    }

    /// Sends the request and reads the response.
    pub fn send(self) -> Response {
        let method = self.method.clone();
        self.send_only().read(&method)
    }

    /// Sends the request; the response is read later.
    pub fn send_only<'c>(self) -> &'c mut Client
    where
        Self: 'c,
    {
        let bytes = self.bytes();
        // The gateway may answer and close before it has read a large body: the answer counts.
        let _closed_early = self.client.wire.write(bytes);
        self.client
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("host: test.example\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut bytes = head.into_bytes();
        match &self.body {
            Body::None => bytes.extend_from_slice(b"\r\n"),
            Body::Whole(body) => {
                bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
            Body::Chunks(chunks) => {
                bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        bytes
    }
}
