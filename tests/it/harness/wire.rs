//! A connection seen as bytes: plain TCP, a unix socket or TLS, with the reading of lines, lengths and chunks.

use super::message::Headers;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::{ServerConnection, StreamOwned};

/// What a [`Wire`] can run over.
pub trait Stream: Read + Write + Send {
    /// The TCP connection underneath, if there is one.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Stream for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Stream for UnixStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// An accepted connection that its listener can still cut. The socket closes with its last owner, so a listener keeps
/// it weakly: a forgotten duplicate would hold back the FIN, or the reset, that a test waits for.
#[derive(Clone)]
pub struct Accepted(pub Arc<TcpStream>);

impl Read for Accepted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl Write for Accepted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        (&*self.0).flush()
    }
}

impl Stream for Accepted {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(&self.0)
    }
}

impl Stream for StreamOwned<ServerConnection, Accepted> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.sock.tcp()
    }
}

/// A connection with what was read ahead of need.
pub struct Wire {
    stream: Box<dyn Stream>,
    ahead: Vec<u8>,
}

impl Wire {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Wire { stream: Box::new(stream), ahead: Vec::new() }
    }

    /// Sends all of it.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// One line without its CRLF; `None` when the peer closed before its first byte.
    pub fn read_line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()));
            }
            if self.fill()? == 0 {
                return if self.ahead.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Header or trailer lines up to the empty one.
    pub fn read_headers(&mut self) -> io::Result<Headers> {
        let mut headers = Headers::default();
        loop {
            let line = self.read_line()?.ok_or(ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').ok_or(ErrorKind::InvalidData)?;
            headers.0.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Appends `length` bytes to `body`; keeps what had arrived when it fails.
    pub fn read_length(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        let mut missing = length;
        while missing > 0 {
            if self.ahead.is_empty() && self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let here = missing.min(self.ahead.len());
            body.extend(self.ahead.drain(..here));
            missing -= here;
        }
        Ok(())
    }

    /// Appends one chunk to `body`; `false` for the last, empty one (trailers are still to be read).
    pub fn read_chunk(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        let line = self.read_line()?.ok_or(ErrorKind::UnexpectedEof)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
        if size == 0 {
            return Ok(false);
        }
        self.read_length(size, body)?;
        match self.read_line()?.as_deref() {
            Some("") => Ok(true),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Appends everything up to the end of the connection.
    pub fn read_to_end(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        while self.fill()? > 0 {}
        body.append(&mut self.ahead);
        Ok(())
    }

    /// So many bytes.
    pub fn read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_length(length, &mut bytes)?;
        Ok(bytes)
    }

    /// Whatever arrives next; empty at the end of the connection.
    pub fn read_some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Whether something has come, or the end, without waiting for it.
    pub fn has_more(&mut self) -> bool {
        let Some(tcp) = self.stream.tcp() else { return false };
        tcp.set_nonblocking(true).unwrap();
        let peeked = tcp.peek(&mut [0]);
        tcp.set_nonblocking(false).unwrap();
        !self.ahead.is_empty() || !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Waits for the peer to end the connection, politely or not; panics when it sends something or stays.
    pub fn expect_closed(&mut self) {
        match self.read_some() {
            Ok(bytes) => {
                assert!(bytes.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&bytes))
            }
            Err(error) => assert!(is_gone(&error), "expected the end of the connection: {error}"),
        }
    }

    /// Says that nothing more will be sent; what the peer sends can still be read.
    pub fn half_close(&self) {
        if let Some(tcp) = self.stream.tcp() {
            tcp.shutdown(std::net::Shutdown::Write).unwrap();
        }
    }

    /// Ends the connection with a TCP reset instead of an orderly close.
    pub fn reset(self) {
        if let Some(tcp) = self.stream.tcp() {
            socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// Shrinks the receive buffer, so that a peer soon feels that nobody reads.
    pub fn shrink_receive_buffer(&self) {
        if let Some(tcp) = self.stream.tcp() {
            socket2::SockRef::from(tcp).set_recv_buffer_size(4096).unwrap();
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; 16 * 1024];
        let read = match self.stream.read(&mut block) {
            // TLS reports a close without close_notify so; for a test it is the end all the same.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            other => other?,
        };
        self.ahead.extend_from_slice(&block[..read]);
        Ok(read)
    }
}

/// Whether an error means that the peer has gone.
pub fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected)
}
