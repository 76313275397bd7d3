//! The one outgoing HTTP client: health checks now, calls to other services later. HTTP/1.1, HTTP/2 and gRPC with
//! trailers, over the engine's connector.
//!
//! The engine's connector leaves to its caller what is done here: one deadline for everything, a cap on the body,
//! skipping of interim responses, framing of the request body, and whether a failed attempt may be repeated.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, RetryType};
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Idle connections kept over all peers.
const POOL: usize = 128;

/// Sends requests of tollgate's own. Make one per process: it loads the system's certificate authorities.
pub struct Client {
    connector: Connector,
}

/// How long and how large an answer may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first attempt to connect to the last byte of the answer, a repeated attempt included.
    pub total: Duration,
    /// Bytes of the answer's body.
    pub max_body: usize,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status, never an interim one.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Trailer fields; HTTP/2 only.
    pub trailers: Option<HeaderMap>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// No connection, or no TLS session on it.
    Connect(String),
    /// The deadline passed.
    Timeout,
    /// The body exceeds the limit, in bytes.
    TooLarge(usize),
    /// The request cannot be sent as it is.
    Unsendable(String),
    /// The exchange broke off, or was not HTTP.
    Broken(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Connect(cause) | ClientError::Unsendable(cause) | ClientError::Broken(cause) => {
                f.write_str(cause)
            }
            ClientError::Timeout => f.write_str("timed out"),
            ClientError::TooLarge(limit) => write!(f, "the answer exceeds {limit} bytes"),
        }
    }
}

impl std::error::Error for ClientError {}

/// A failed attempt, and whether another one on a fresh connection can do no harm.
struct Failure {
    error: ClientError,
    repeatable: bool,
}

impl Client {
    /// A client that trusts the system's certificate authorities, or those in `ca_file`, unless a peer brings its own.
    pub fn new(ca_file: Option<String>) -> Self {
        let options = ConnectorOptions { ca_file, ..ConnectorOptions::new(POOL) };
        Client { connector: Connector::new(Some(options)) }
    }

    /// Sends one request and reads the whole answer. `Host` or the URI's authority must be set; framing fields are
    /// ours. A connection from the pool that turns out to be dead is replaced once, if the method is idempotent (RFC
    /// 9110 section 9.2.2) or the server has said that it did not look at the request. A peer whose idle timeout is
    /// zero gets a connection of its own.
    ///
    /// # Errors
    /// See [`ClientError`]. Nothing is retried but what is described above, and redirects are not followed.
    pub async fn send(
        &self,
        peer: &HttpPeer,
        head: RequestHeader,
        body: Option<Bytes>,
        limits: Limits,
    ) -> Result<Answer, ClientError> {
        let deadline = Instant::now() + limits.total;
        match self.attempt(peer, head.clone(), body.clone(), deadline, limits.max_body).await {
            Err(failure) if failure.repeatable => {
                let retried = self.attempt(&alone(peer), head, body, deadline, limits.max_body).await;
                retried.map_err(|failure| failure.error)
            }
            result => result.map_err(|failure| failure.error),
        }
    }

    /// Connects, TLS handshake included, and lets go again.
    ///
    /// # Errors
    /// [`ClientError::Connect`] or [`ClientError::Timeout`].
    pub async fn connect(&self, peer: &HttpPeer, within: Duration) -> Result<(), ClientError> {
        let peer = alone(peer);
        let connected = tokio::time::timeout(within, self.connector.get_http_session(&peer)).await;
        connected.map_err(|_| ClientError::Timeout)?.map(drop).map_err(|error| not_connected(&error))
    }

    async fn attempt(
        &self,
        peer: &HttpPeer,
        head: RequestHeader,
        body: Option<Bytes>,
        deadline: Instant,
        max_body: usize,
    ) -> Result<Answer, Failure> {
        let connected = timeout_at(deadline, self.connector.get_http_session(peer)).await;
        let (mut session, reused) = match connected {
            Err(_) => return Err(final_failure(ClientError::Timeout)),
            Ok(Err(error)) => return Err(final_failure(not_connected(&error))),
            Ok(Ok(connected)) => connected,
        };
        let repeat = reused && head.method.is_idempotent();
        let outcome = timeout_at(deadline, exchange(&mut session, peer, head, body, max_body)).await;
        let result = outcome.unwrap_or_else(|_| Err(final_failure(ClientError::Timeout)));
        self.let_go(session, peer, result.is_ok()).await;
        result.map_err(|failure| Failure {
            repeatable: reused && (failure.repeatable || repeat && failure.is_early()),
            ..failure
        })
    }

    /// Gives the connection back to the pool. An HTTP/2 connection is given back after a failure too: only that
    /// releases the stream, and the pool itself drops a connection that is closed.
    async fn let_go(&self, session: HttpSession, peer: &HttpPeer, complete: bool) {
        let multiplexed = matches!(session, HttpSession::H2(_));
        if !is_alone(peer) && (complete || multiplexed) {
            self.connector.release_http_session(session, peer, peer.options.idle_timeout).await;
        }
    }
}

impl Failure {
    /// Whether the connection may simply have been dead before.
    fn is_early(&self) -> bool {
        matches!(self.error, ClientError::Broken(_))
    }
}

/// The peer, but with a connection that is neither taken from the pool nor given back.
pub(super) fn alone(peer: &HttpPeer) -> HttpPeer {
    let mut peer = peer.clone();
    peer.options.idle_timeout = Some(Duration::ZERO);
    // One stream per connection keeps an HTTP/2 connection out of the pool of those that have room.
    peer.options.max_h2_streams = 1;
    peer.group_key = peer.group_key.rotate_left(1) ^ 0x5EED;
    peer
}

fn is_alone(peer: &HttpPeer) -> bool {
    peer.options.idle_timeout == Some(Duration::ZERO)
}

async fn exchange(
    session: &mut HttpSession,
    peer: &HttpPeer,
    head: RequestHeader,
    body: Option<Bytes>,
    max_body: usize,
) -> Result<Answer, Failure> {
    write_request(session, peer, head, body).await?;
    let head = read_head(session).await?;
    let body = read_body(session, max_body).await?;
    let trailers = match session {
        HttpSession::H2(stream) => stream.read_trailers().await.map_err(|error| broken(&error))?,
        _ => None,
    };
    Ok(Answer { status: head.status, headers: head.headers.clone(), body, trailers })
}

async fn write_request(
    session: &mut HttpSession,
    peer: &HttpPeer,
    mut head: RequestHeader,
    body: Option<Bytes>,
) -> Result<(), Failure> {
    frame(&mut head, body.as_ref()).map_err(final_failure)?;
    if let HttpSession::H2(stream) = session {
        absolute(&mut head, peer.is_tls()).map_err(final_failure)?;
        stream.write_request_header(Box::new(head), body.is_none()).map_err(|error| broken(&error))?;
    } else {
        if is_alone(peer) {
            set(&mut head, header::CONNECTION, HeaderValue::from_static("close")).map_err(final_failure)?;
        }
        session.write_request_header(Box::new(head)).await.map_err(|error| broken(&error))?;
    }
    if let Some(body) = body {
        session.write_request_body(body, true).await.map_err(|error| broken(&error))?;
    }
    session.finish_request_body().await.map_err(|error| broken(&error))
}

/// Content-Length for what we send, and nothing else that frames (RFC 9112 section 6).
fn frame(head: &mut RequestHeader, body: Option<&Bytes>) -> Result<(), ClientError> {
    head.remove_header(&header::TRANSFER_ENCODING);
    head.remove_header(&header::CONTENT_LENGTH);
    let meant = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    if body.is_some() || meant {
        let length = HeaderValue::from(body.map_or(0, Bytes::len) as u64);
        set(head, header::CONTENT_LENGTH, length)?;
    }
    Ok(())
}

/// HTTP/2 carries scheme and authority beside the path (RFC 9113 section 8.3.1); the engine would always say `https`.
fn absolute(head: &mut RequestHeader, tls: bool) -> Result<(), ClientError> {
    head.remove_header(&header::CONNECTION);
    let authority = match (head.uri.authority(), head.headers.get(header::HOST)) {
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) => host.as_bytes(),
        (None, None) => return Err(ClientError::Unsendable("the request names no host".to_owned())),
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri =
        Uri::builder().scheme(if tls { "https" } else { "http" }).authority(authority).path_and_query(path);
    let uri = uri
        .build()
        .map_err(|cause| ClientError::Unsendable(format!("the request's host cannot be sent: {cause}")))?;
    head.set_uri(uri);
    head.remove_header(&header::HOST);
    Ok(())
}

fn set(head: &mut RequestHeader, name: HeaderName, value: HeaderValue) -> Result<(), ClientError> {
    head.insert_header(name, value).map_err(|error| ClientError::Unsendable(plain(&error)))
}

async fn read_head(session: &mut HttpSession) -> Result<ResponseHeader, Failure> {
    loop {
        session.read_response_header().await.map_err(|error| broken(&error))?;
        let Some(head) = session.response_header() else { return Err(broken_text("no response")) };
        match head.status {
            StatusCode::SWITCHING_PROTOCOLS => return Err(broken_text("switched protocols unasked")),
            // HTTP/2 reads past interim responses by itself, so this can only be HTTP/1.1, where more follows.
            status if status.is_informational() => {}
            _ => return Ok(head.clone()),
        }
    }
}

async fn read_body(session: &mut HttpSession, max: usize) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = session.read_response_body().await.map_err(|error| broken(&error))? {
        if first.len() + rest.len() + chunk.len() > max {
            return Err(final_failure(ClientError::TooLarge(max)));
        }
        match (first.is_empty(), rest.is_empty()) {
            (true, _) => first = chunk,
            (false, true) => {
                rest.extend_from_slice(&std::mem::take(&mut first));
                rest.extend_from_slice(&chunk);
            }
            (false, false) => rest.extend_from_slice(&chunk),
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn final_failure(error: ClientError) -> Failure {
    Failure { error, repeatable: false }
}

fn broken_text(text: &str) -> Failure {
    final_failure(ClientError::Broken(text.to_owned()))
}

/// `retry()` panics on an undecided error, so only a decided one is asked; the rest is decided in `attempt`.
fn broken(error: &Error) -> Failure {
    Failure {
        error: ClientError::Broken(plain(error)),
        repeatable: matches!(error.retry, RetryType::Decided(true)),
    }
}

fn not_connected(error: &Error) -> ClientError {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => ClientError::Timeout,
        _ => ClientError::Connect(plain(error)),
    }
}

/// The engine's error in the words of an operator.
fn plain(error: &Error) -> String {
    let cause = || match &error.context {
        Some(context) => context.as_str().to_owned(),
        None => error.etype().as_str().to_owned(),
    };
    match error.root_etype() {
        ErrorType::ConnectRefused => "connection refused".to_owned(),
        ErrorType::ConnectNoRoute => "no route to host".to_owned(),
        ErrorType::ConnectionClosed => "connection closed before the answer".to_owned(),
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => {
            format!("TLS handshake failed: {}", cause())
        }
        _ => cause(),
    }
}
