//! Requests and responses as they stood on the wire.

use super::wire::{Wire, is_gone};
use serde_json::{Value, json};
use std::io::{self, ErrorKind};

/// Header lines in the order and spelling in which they arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of a name, whatever its case.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All values of a name, whatever its case, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |line: &&(String, String)| line.0.eq_ignore_ascii_case(name);
        self.0.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether a comma-separated header holds a word.
    pub fn has_word(&self, name: &str, word: &str) -> bool {
        self.all(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    }

    fn content_length(&self) -> Option<usize> {
        self.first("content-length")?.parse().ok()
    }

    fn is_chunked(&self) -> bool {
        self.has_word("transfer-encoding", "chunked")
    }
}

/// A request as an upstream received it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// The request target, query included.
    pub target: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// Number of the connection it came over, from 0.
    pub connection: usize,
}

impl Request {
    /// Reads the head only; `None` when the peer closed instead of asking.
    pub fn read_head(wire: &mut Wire) -> io::Result<Option<Request>> {
        let Some(line) = wire.read_line()? else { return Ok(None) };
        let mut words = line.split(' ');
        let method = words.next().ok_or(ErrorKind::InvalidData)?.to_owned();
        let target = words.next().ok_or(ErrorKind::InvalidData)?.to_owned();
        Ok(Some(Request { method, target, headers: wire.read_headers()?, ..Request::default() }))
    }

    /// Reads the body and the trailers that belong to the head.
    pub fn read_body(&mut self, wire: &mut Wire) -> io::Result<()> {
        if self.headers.is_chunked() {
            while wire.read_chunk(&mut self.body)? {}
            self.trailers = wire.read_headers()?;
        } else if let Some(length) = self.headers.content_length() {
            wire.read_length(length, &mut self.body)?;
        }
        Ok(())
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Everything about it, for upstreams that echo.
    pub fn to_json(&self) -> Value {
        let headers: Vec<Value> =
            self.headers.0.iter().map(|(name, value)| json!([name.to_ascii_lowercase(), value])).collect();
        json!({ "method": self.method, "target": self.target, "headers": headers, "body": self.text() })
    }
}

/// A response as the client received it.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// Status codes of the 1xx responses before it.
    pub interim: Vec<u16>,
    /// Whether the body ended as its framing promised.
    pub complete: bool,
    /// Whether another request may follow on the connection.
    pub kept_alive: bool,
}

impl Response {
    /// Reads one response to a request with `method`, with the 1xx before it.
    pub fn read(wire: &mut Wire, method: &str) -> io::Result<Response> {
        let mut response = Response::read_head(wire)?;
        response.read_body(wire, method)?;
        Ok(response)
    }

    /// Reads the head only, with the 1xx before it.
    pub fn read_head(wire: &mut Wire) -> io::Result<Response> {
        let mut response = Response::default();
        loop {
            let line = wire.read_line()?.ok_or(ErrorKind::UnexpectedEof)?;
            response.status = status_of(&line)?;
            response.headers = wire.read_headers()?;
            if response.status >= 200 || response.status == 101 {
                response.kept_alive = !response.headers.has_word("connection", "close");
                return Ok(response);
            }
            response.interim.push(response.status);
        }
    }

    /// Reads the body by its framing. A peer that goes away in the middle leaves `complete` false.
    pub fn read_body(&mut self, wire: &mut Wire, method: &str) -> io::Result<()> {
        match self.read_framed(wire, method) {
            Ok(()) => self.complete = true,
            Err(error) if is_gone(&error) => self.kept_alive = false,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn read_framed(&mut self, wire: &mut Wire, method: &str) -> io::Result<()> {
        if method == "HEAD" || matches!(self.status, 101 | 204 | 304) {
            return Ok(());
        }
        if self.headers.is_chunked() {
            while wire.read_chunk(&mut self.body)? {}
            self.trailers = wire.read_headers()?;
            return Ok(());
        }
        match self.headers.content_length() {
            Some(length) => wire.read_length(length, &mut self.body),
            None => {
                self.kept_alive = false;
                wire.read_to_end(&mut self.body)
            }
        }
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.first(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The `code` member of a problem answer, or what came instead.
    pub fn problem_code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        self.json()["code"].as_str().unwrap_or("(no code)").to_owned()
    }
}

fn status_of(line: &str) -> io::Result<u16> {
    let invalid = || io::Error::new(ErrorKind::InvalidData, format!("not a status line: {line:?}"));
    line.strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|code| code.parse().ok())
        .ok_or_else(invalid)
}
