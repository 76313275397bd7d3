//! What a scripted upstream answers, and how it misbehaves.

use super::message::{Headers, Request};
use super::wire::Wire;
use std::io;
use std::time::Duration;

/// One scripted answer.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    framing: Framing,
    interim: Vec<String>,
    delay: Duration,
    close: bool,
    fault: Option<Fault>,
}

/// How the length of the body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    /// In chunks of this many bytes.
    Chunked(usize),
    UntilClose,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends before a byte of the response.
    Close,
    /// The connection is reset before a byte of the response.
    Reset,
    /// The connection ends after this many bytes of the body.
    Cut(usize),
    /// Something that is not HTTP.
    Garbage,
    /// Nothing at all, until the peer gives up.
    Silence,
}

impl Answer {
    /// An answer with a body and its length.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Answer {
            status,
            headers: Vec::new(),
            body: body.into(),
            trailers: Vec::new(),
            framing: Framing::Length,
            interim: Vec::new(),
            delay: Duration::ZERO,
            close: false,
            fault: None,
        }
    }

    /// 200 with a body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Answer::new(200, body).header("content-type", "text/plain")
    }

    /// 200 with the request as received, as JSON.
    pub fn echo(request: &Request) -> Self {
        Answer::new(200, request.to_json().to_string()).header("content-type", "application/json")
    }

    /// Something goes wrong instead of, or within, a 200.
    pub fn fault(fault: Fault) -> Self {
        Answer { fault: Some(fault), ..Answer::ok("x".repeat(64)) }
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the body in chunks of `size` bytes.
    pub fn chunked(mut self, size: usize) -> Self {
        self.framing = Framing::Chunked(size.max(1));
        self
    }

    /// Sends the body with no length: its end is the end of the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// Adds a trailer line; goes with [`Answer::chunked`].
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends a 1xx head before the response, such as `103 Early Hints\r\nlink: </a>`.
    pub fn interim(mut self, head: &str) -> Self {
        self.interim.push(head.to_owned());
        self
    }

    /// Waits before answering.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Says `Connection: close` and does so.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Goes wrong with this answer.
    pub fn but(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Plays the answer; gives the connection back when another request may follow.
    pub fn play(self, mut wire: Wire, request: &Request) -> io::Result<Option<Wire>> {
        // A scripted upstream is slow on purpose; the test waits for the effect, not for this.
        std::thread::sleep(self.delay);
        match self.fault {
            Some(Fault::Close) => return Ok(None),
            Some(Fault::Reset) => {
                wire.reset();
                return Ok(None);
            }
            Some(Fault::Garbage) => {
                wire.write("\u{1}\u{2} this is not HTTP\r\n\r\n")?;
                return Ok(None);
            }
            Some(Fault::Silence) => {
                while !wire.read_some()?.is_empty() {}
                return Ok(None);
            }
            Some(Fault::Cut(_)) | None => {}
        }
        self.send(&mut wire, request)?;
        let ends = self.close || self.framing == Framing::UntilClose || self.fault.is_some();
        let unwanted = request.headers.has_word("connection", "close");
        Ok((!ends && !unwanted).then_some(wire))
    }

    fn send(&self, wire: &mut Wire, request: &Request) -> io::Result<()> {
        for head in &self.interim {
            wire.write(format!("HTTP/1.1 {head}\r\n\r\n"))?;
        }
        let mut bytes = self.head().into_bytes();
        let body = match self.fault {
            Some(Fault::Cut(after)) => &self.body[..after.min(self.body.len())],
            _ => &self.body[..],
        };
        if request.method != "HEAD" && !matches!(self.status, 204 | 304) {
            match self.framing {
                Framing::Chunked(size) => self.push_chunks(&mut bytes, body, size),
                _ => bytes.extend_from_slice(body),
            }
        }
        wire.write(bytes)
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let told = Headers(self.headers.clone()).first("content-length").is_some();
        match self.framing {
            Framing::Length if !told && !matches!(self.status, 204 | 304) => {
                head.push_str(&format!("content-length: {}\r\n", self.body.len()));
            }
            Framing::Chunked(_) => head.push_str("transfer-encoding: chunked\r\n"),
            _ => {}
        }
        if self.close || self.framing == Framing::UntilClose {
            head.push_str("connection: close\r\n");
        }
        head + "\r\n"
    }

    fn push_chunks(&self, bytes: &mut Vec<u8>, body: &[u8], size: usize) {
        for chunk in body.chunks(size) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        if self.fault.is_none() {
            bytes.extend_from_slice(b"0\r\n");
            for (name, value) in &self.trailers {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
        }
    }
}
