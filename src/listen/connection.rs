//! A connection accepted from a client, as our own HTTP/1.1 and the engine see it.
//!
//! For the engine it takes the place of its own stream, which keeps 64 KiB of read buffer for every connection and sends a
//! response in one system call more. Reading is not buffered here (whoever reads has a buffer), small writes are gathered
//! until the flush, and a large write takes what was gathered along in one `writev(2)`.
//!
//! What is known of the connection travels to the requests on it as [`Facts`], to those of the engine inside its digest.

use super::Limits;
use super::frames::{Frames, Watch};
use super::patience::Patience;
pub use super::socket::Socket;
use super::socket::send_at_once;
use crate::exchange::Secured;
use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::protocols::l4::socket::SocketAddr as EngineAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use std::any::Any;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

/// What a listener knows of a connection from the moment it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Number of the listener it came in by.
    pub listener: u16,
    /// The other end; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// This end; `None` for a Unix socket or when it was not asked for.
    pub local: Option<SocketAddr>,
    /// Whether it is TLS.
    pub secure: bool,
    /// What the handshake told, if it is.
    pub tls: Option<Arc<Secured>>,
    /// Whether the peer is a proxy whose word about the client is taken.
    pub trusted: bool,
}

/// The facts of the connection a session runs on; `None` if it is not a [`Connection`].
///
/// ```ignore
/// let facts = facts(session.digest());
/// ```
pub fn facts(digest: Option<&Digest>) -> Option<&Facts> {
    digest?.proxy_digest.as_deref()?.user_data.as_deref()?.downcast_ref()
}

/// Kept by a [`Connection`] and dropped right after its socket is closed: counts it, holds its permit.
pub type ConnectionGuard = Box<dyn Any + Send + Sync>;

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    facts: Facts,
    gathered: Gathered,
    peeked: Peeked,
    peek_timeout: Duration,
    patience: Patience,
    /// What is read is HTTP/2, of which frames are counted.
    frames: Option<Box<Frames>>,
    stopping: Option<watch::Receiver<bool>>,
    // Last, so that whoever waits for the guard finds the socket closed.
    _guard: Option<ConnectionGuard>,
}

/// What HTTP/2 connections begin with (RFC 9113 section 3.4).
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What one peek may read: the head of most requests, so that peeking saves the session its first read.
const PEEK: usize = 4096;

/// What is read at once of HTTP/2 but for the insides of long frames: some dozens of short ones.
const SHORT: usize = 1 << 10;

/// Writes are gathered up to here: a header with a small body.
const GATHER: usize = 4096;

/// A larger buffer is given back after the flush, so that an idle connection holds no more.
const KEPT: usize = 2048;

/// How many slices go into one `writev(2)`, gathered bytes included.
const SLICES: usize = 16;

/// How long a connection on which nothing has been asked yet is kept when the process leaves: its client may be about to, and
/// would take the end of the connection for a failure.
pub const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How long closing waits for a client that does not read to take what was gathered.
const LINGER: Duration = Duration::from_secs(5);

impl Connection {
    /// Wraps an accepted socket. [`Peek::try_peek`] gives up after `peek_timeout`.
    pub fn new(
        socket: impl Into<Socket>,
        facts: Facts,
        peek_timeout: Duration,
        guard: Option<ConnectionGuard>,
    ) -> Connection {
        Connection {
            socket: socket.into(),
            facts,
            gathered: Gathered::default(),
            peeked: Peeked::default(),
            peek_timeout,
            patience: Patience::default(),
            frames: None,
            stopping: None,
            _guard: guard,
        }
    }

    /// Makes [`Peek::try_peek`] give up when this turns true: a client that has sent nothing must not hold up a stop.
    #[must_use]
    pub fn until(mut self, stopping: watch::Receiver<bool>) -> Connection {
        self.stopping = Some(stopping);
        self
    }

    /// Ends the connection when the client takes nothing of what is sent to it for so long.
    #[must_use]
    pub fn send_idle(mut self, limit: Duration) -> Connection {
        self.patience = Patience::of(limit);
        self
    }

    /// The same from now on.
    pub(super) fn be_patient(&mut self, limit: Duration) {
        self.patience.set(limit);
    }

    /// What the listener knows of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Counts the frames of HTTP/2 that are read from now on, and reads no more at once than others can wait for. Proxies whose
    /// word is taken may send what they like.
    pub fn watch_frames(&mut self, limits: &Limits) -> Arc<Watch> {
        let frames = Frames::new((!self.facts.trusted).then_some(limits));
        let watch = frames.watch();
        self.frames = Some(Box::new(frames));
        watch
    }

    /// What the handshake told, if this is TLS.
    pub fn secured(&self) -> Option<&Secured> {
        self.facts.tls.as_deref()
    }

    /// Says goodbye to a client that nothing more will be sent to, so that it need not take the end for an attack (RFC 8446
    /// section 6.1). Only what can be sent without waiting.
    pub fn part(&mut self) {
        if let Socket::Tls(stream) = &mut self.socket {
            stream.get_mut().1.send_close_notify();
            if let Err(error) = send_at_once(stream, &[]) {
                log::debug!("parting from a client: {error}");
            }
        }
    }

    /// Has gone out what was sent: only a TLS session keeps back what the socket did not take.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.patience.judge(cx, flushed)
    }

    /// Reads no more than may be dealt with at once: of short frames a few, since each of them may wake a request.
    fn poll_piece(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = Pin::new(&mut self.socket);
        if self.frames.as_ref().is_none_or(|frames| frames.is_in_long()) || buf.remaining() <= SHORT {
            return socket.poll_read(cx, buf);
        }
        let mut space = [const { MaybeUninit::uninit() }; SHORT];
        let mut piece = ReadBuf::uninit(&mut space);
        ready!(socket.poll_read(cx, &mut piece))?;
        buf.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }

    /// Looks at what stands in `buf` behind `before`. Frames that are too many are read by nobody: whoever serves the connection
    /// is being polled, and finds out.
    fn look_at(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> Poll<io::Result<()>> {
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if self.frames.as_mut().is_none_or(|frames| frames.pass(fresh)) {
            return Poll::Ready(Ok(()));
        }
        buf.set_filled(before);
        Poll::Pending
    }

    fn note_sent(&mut self, length: usize) {
        if let Some(frames) = &mut self.frames {
            frames.sent(length);
        }
    }

    /// Sends what was gathered together with `slices`; returns how much of `slices` went out.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.gathered.is_empty() {
                let sent = self.socket.poll_send(cx, slices);
                return self.patience.judge(cx, sent);
            }
            let mut all = [IoSlice::new(&[]); SLICES];
            let sources = std::iter::once(IoSlice::new(self.gathered.unsent())).chain(slices.iter().copied());
            let count = all.iter_mut().zip(sources).map(|(slot, source)| *slot = source).count();
            let sent = self.socket.poll_send(cx, all.get(..count).unwrap_or(&all));
            let sent = ready!(self.patience.judge(cx, sent))?;
            if sent == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            match self.gathered.advance(sent) {
                0 => {}
                accepted => return Poll::Ready(Ok(accepted)),
            }
        }
    }

    /// Sends what was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let sent = self.socket.poll_send(cx, &[IoSlice::new(self.gathered.unsent())]);
            let sent = ready!(self.patience.judge(cx, sent))?;
            if sent == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until it is clear whether an HTTP/2 preface comes.
    async fn peek_preface(&mut self, wanted: usize) -> io::Result<()> {
        loop {
            let seen = self.peeked.unread();
            let decided = seen.iter().zip(H2_PREFACE).any(|(byte, expected)| byte != expected);
            if decided || seen.len() >= wanted.min(H2_PREFACE.len()) {
                return Ok(());
            }
            // Whoever says nothing has no buffer.
            self.socket.has_come().await?;
            self.peeked.bytes.reserve_exact(PEEK.saturating_sub(self.peeked.bytes.len()));
            if self.socket.read_buf(&mut self.peeked.bytes).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The engine keeps a place in its digest for what a connection's proxy said, and user data with it. Ours is the facts;
/// the response beside them is an empty one that nobody reads.
fn proxy_digest(facts: Facts) -> ProxyDigest {
    let (unused, ()) = http::Response::new(()).into_parts();
    ProxyDigest::new(Box::new(ResponseHeader::from(unused)), Some(Box::new(facts)))
}

/// With the addresses filled in, so that no request asks the kernel for them.
fn socket_digest(fd: RawFd, facts: &Facts) -> SocketDigest {
    let digest = SocketDigest::from_raw_fd(fd);
    let _ = digest.peer_addr.set(facts.peer.map(EngineAddr::Inet));
    // An unknown local address of a TCP connection is left for the engine to find out if it is ever wanted.
    if facts.local.is_some() || facts.peer.is_none() {
        let _ = digest.local_addr.set(facts.local.map(EngineAddr::Inet));
    }
    digest
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if !this.peeked.is_empty() {
            this.peeked.read_into(buf);
            return this.look_at(buf, before);
        }
        if this.frames.as_ref().is_some_and(|frames| frames.is_held()) {
            // Whoever holds it is being polled, too.
            return Poll::Pending;
        }
        let Poll::Ready(read) = this.poll_piece(cx, buf) else {
            // Whoever waits for the client has nothing more to say for now. The engine flushes an answer of known length only at
            // its end.
            return match this.poll_drain(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            };
        };
        read?;
        this.look_at(buf, before)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length: usize = bufs.iter().map(|slice| slice.len()).sum();
        if this.gathered.takes(length) {
            bufs.iter().for_each(|slice| this.gathered.append(slice));
            this.note_sent(length);
            return Poll::Ready(Ok(length));
        }
        let sent = ready!(this.poll_send(cx, bufs))?;
        this.note_sent(sent);
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        this.poll_sent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl Drop for Connection {
    /// As the engine's stream does: what was gathered for a response that broke off still goes out if it can at once.
    fn drop(&mut self) {
        if !self.gathered.is_empty() {
            let unsent = self.gathered.unsent();
            let _ = match &mut self.socket {
                Socket::Tcp(stream) => stream.try_write(unsent),
                Socket::Unix(stream) => stream.try_write(unsent),
                Socket::Tls(stream) => send_at_once(stream, unsent),
                // Never a client's.
                Socket::TlsTo(_) => Ok(0),
            };
        }
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        match timeout(LINGER, AsyncWriteExt::shutdown(self)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("closing a connection: {error}"),
            Err(_) => log::debug!("closing a connection: the client does not read"),
        }
    }
}

#[async_trait]
impl Peek for Connection {
    /// Looks at the beginning without taking it. Unlike the engine's own, this does not wait for all of `buf` but
    /// returns once a byte differs from the HTTP/2 preface, since a whole HTTP/1.0 request can be shorter than that.
    /// The rest of `buf` is zero.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let (limit, stopping) = (self.peek_timeout, self.stopping.take());
        tokio::select! {
            peeked = timeout(limit, self.peek_preface(buf.len())) => peeked.map_err(|_| ErrorKind::TimedOut)??,
            () = stopped(stopping) => return Err(ErrorKind::ConnectionAborted.into()),
        }
        buf.fill(0);
        buf.iter_mut().zip(self.peeked.unread()).for_each(|(to, from)| *to = *from);
        Ok(true)
    }
}

async fn stopped(stopping: Option<watch::Receiver<bool>>) {
    if let Some(mut stopping) = stopping
        && stopping.wait_for(|stopping| *stopping).await.is_ok()
    {
        // What is on its way is still answered.
        return tokio::time::sleep(LAST_CHANCE).await;
    }
    // Nobody is left to stop us.
    std::future::pending().await
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.socket.as_raw_fd()
    }
}

impl Ssl for Connection {
    /// What the handshake agreed on; by this the engine knows that HTTP/2 is spoken. It is given no digest: what one would
    /// tell is among the facts.
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.secured().map(|tls| if tls.h2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Connection {
    /// Nothing: the engine asks for every request, nobody reads it, and a list with an entry would be an allocation.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::new(proxy_digest(self.facts.clone())))
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::new(socket_digest(self.socket.as_raw_fd(), &self.facts)))
    }
}

/// Bytes accepted from the session and not sent yet.
#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    sent: usize,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn takes(&self, length: usize) -> bool {
        self.bytes.len() + length <= GATHER
    }

    fn append(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            let capacity = if needed <= KEPT { KEPT } else { GATHER.max(needed) };
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Notes that `count` bytes went out; returns how many of them were not from here.
    fn advance(&mut self, count: usize) -> usize {
        let own = count.min(self.bytes.len() - self.sent);
        self.sent += own;
        if self.sent == self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
            }
        }
        count - own
    }
}

/// Bytes read ahead by a peek and not taken by the session yet.
#[derive(Debug, Default)]
struct Peeked {
    bytes: Vec<u8>,
    taken: usize,
}

impl Peeked {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn unread(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn read_into(&mut self, buf: &mut ReadBuf<'_>) {
        let unread = self.unread();
        let (head, rest) = unread.split_at_checked(buf.remaining()).unwrap_or((unread, &[]));
        buf.put_slice(head);
        if rest.is_empty() {
            *self = Peeked::default();
        } else {
            self.taken += head.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::protocols::Stream;
    use pingora::protocols::http::ServerSession;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::net::{TcpStream, UnixStream};

    const SOON: Duration = Duration::from_secs(10);

    fn some_facts(peer: Option<SocketAddr>, local: Option<SocketAddr>) -> Facts {
        Facts { listener: 3, peer, local, secure: false, tls: None, trusted: true }
    }

    fn over(socket: impl Into<Socket>) -> Connection {
        Connection::new(socket, some_facts(None, None), SOON, None)
    }

    /// A connection with small kernel buffers, and its client.
    fn tight_pair() -> (Connection, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&server).set_send_buffer_size(4096).unwrap();
        (over(server), client)
    }

    async fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, served) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (served.unwrap().0, client.unwrap())
    }

    /// Bytes without a pattern a mix-up could hide in (xorshift).
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[tokio::test]
    async fn a_session_of_the_engine_serves_requests_and_knows_the_facts() {
        let (served, mut client) = tcp_pair().await;
        let (peer, local) = (served.peer_addr().unwrap(), served.local_addr().unwrap());
        // Other addresses than the kernel's, to see that it is not asked.
        let told: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        assert_ne!(told, peer);
        let facts_told = some_facts(Some(told), Some(local));
        let mut stream: Stream = Box::new(Connection::new(served, facts_told.clone(), SOON, None));
        for body in [&b"small"[..], &noise(64 << 10)] {
            client.write_all(b"GET /a HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
            let mut session = ServerSession::new_http1(stream);
            assert!(session.read_request().await.unwrap());
            assert_eq!(facts(session.digest()), Some(&facts_told));
            assert_eq!(session.client_addr().unwrap().as_inet(), Some(&told));
            assert_eq!(session.server_addr().unwrap().as_inet(), Some(&local));
            let mut head = ResponseHeader::build(200, Some(1)).unwrap();
            head.insert_header("content-length", body.len()).unwrap();
            session.set_keepalive(Some(60));
            session.write_response_header(Box::new(head)).await.unwrap();
            session.write_response_body(bytes::Bytes::copy_from_slice(body), true).await.unwrap();
            let mut answer = vec![0; body.len()];
            read_head(&mut client).await;
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, body);
            stream = session.finish().await.unwrap().unwrap().into_parts().0;
        }
    }

    async fn read_head(client: &mut TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }

    #[tokio::test]
    async fn small_writes_wait_for_the_flush() {
        let (mut connection, client) = tight_pair();
        connection.write_all(b"head").await.unwrap();
        connection.write_all(b"body").await.unwrap();
        assert_eq!(client.try_read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
        connection.flush().await.unwrap();
        client.readable().await.unwrap();
        let mut got = [0; 9];
        assert_eq!(client.try_read(&mut got).unwrap(), 8);
        assert_eq!(&got[..8], b"headbody");
        assert_eq!(connection.gathered.bytes.capacity(), KEPT);
    }

    #[tokio::test]
    async fn a_large_write_takes_the_gathered_bytes_along_in_one_call() {
        // A sequenced-packet socket keeps the borders of system calls.
        let (server, client) =
            socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        server.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let stream = |socket: socket2::Socket| {
            UnixStream::from_std(std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(socket)))
                .unwrap()
        };
        let (mut connection, mut client) = (over(stream(server)), stream(client));
        let body = noise(64 << 10);
        connection.write_all(b"header").await.unwrap();
        connection.write_all(&body).await.unwrap();
        let mut packet = vec![0; 128 << 10];
        let length = client.read(&mut packet).await.unwrap();
        assert_eq!(packet[..length], [b"header", &body[..]].concat());
    }

    #[tokio::test]
    async fn ten_mebibytes_arrive_whole_through_a_small_socket_buffer() {
        let (mut connection, mut client) = tight_pair();
        let data = noise(10 << 20);
        let expected = data.clone();
        let writer = tokio::spawn(async move {
            let (mut left, mut round) = (&data[..], 0_usize);
            while !left.is_empty() {
                let (piece, rest) = left.split_at(left.len().min(1 + (round * 2741) % 20_000));
                write_in_turn(&mut connection, piece, round).await;
                (left, round) = (rest, round + 1);
            }
            AsyncWriteExt::shutdown(&mut connection).await.unwrap();
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert!(got == expected, "what was sent is not what arrived");
    }

    /// Whole, in slices of different sizes (some empty, more than fit one call), or flushed.
    async fn write_in_turn(connection: &mut Connection, piece: &[u8], round: usize) {
        match round % 3 {
            0 => connection.write_all(piece).await.unwrap(),
            1 => {
                let mut left = piece;
                while !left.is_empty() {
                    let slices: Vec<_> =
                        left.chunks(97).flat_map(|c| [IoSlice::new(c), IoSlice::new(&[])]).collect();
                    let count = connection.write_vectored(&slices).await.unwrap();
                    assert!(count > 0);
                    left = &left[count..];
                }
            }
            _ => {
                connection.write_all(piece).await.unwrap();
                connection.flush().await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_large_buffer_is_given_back_after_the_flush() {
        let (mut connection, _client) = tight_pair();
        connection.write_all(&[7; KEPT + 1]).await.unwrap();
        assert_eq!(connection.gathered.bytes.capacity(), GATHER);
        connection.flush().await.unwrap();
        assert_eq!(connection.gathered.bytes.capacity(), 0);
    }

    #[tokio::test]
    async fn a_dropped_connection_sends_what_it_gathered_and_then_drops_the_guard() {
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicBool::new(false));
        let (server, mut client) = UnixStream::pair().unwrap();
        server.writable().await.unwrap();
        let guard: ConnectionGuard = Box::new(Flag(Arc::clone(&dropped)));
        let mut connection = Connection::new(server, some_facts(None, None), SOON, Some(guard));
        connection.write_all(b"last").await.unwrap();
        assert!(!dropped.load(Ordering::SeqCst));
        drop(connection);
        assert!(dropped.load(Ordering::SeqCst));
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last");
    }

    async fn peeked(connection: &mut Connection) -> io::Result<[u8; 24]> {
        let mut buf = [b'?'; 24];
        connection.try_peek(&mut buf).await.map(|yes| assert!(yes))?;
        Ok(buf)
    }

    async fn read_whole(mut connection: Connection) -> Vec<u8> {
        let mut got = Vec::new();
        connection.read_to_end(&mut got).await.unwrap();
        got
    }

    #[tokio::test]
    async fn a_request_shorter_than_the_preface_is_peeked_at_once_and_replayed() {
        for request in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"P", b"PRX", b"\x16\x03\x01"] {
            let (mut connection, mut client) = tight_pair();
            client.write_all(request).await.unwrap();
            if request == b"P" {
                client.write_all(b"OST").await.unwrap();
            }
            let buf = peeked(&mut connection).await.unwrap();
            assert!(buf.starts_with(request));
            assert!(buf[request.len().max(4)..].iter().all(|&byte| byte == 0));
            client.write_all(b" more").await.unwrap();
            drop(client);
            let tail: &[u8] = if request == b"P" { b"OST more" } else { b" more" };
            assert_eq!(read_whole(connection).await, [request, tail].concat());
        }
    }

    #[tokio::test]
    async fn a_preface_in_pieces_is_recognised_and_replayed() {
        let (mut connection, mut client) = tight_pair();
        let sent = [H2_PREFACE, b"frames"].concat();
        let (tx, rx) = tokio::sync::oneshot::channel();
        let writer = tokio::spawn(async move {
            client.write_all(&sent[..3]).await.unwrap();
            rx.await.unwrap();
            client.write_all(&sent[3..]).await.unwrap();
        });
        {
            let mut peek = std::pin::pin!(peeked(&mut connection));
            assert!(
                timeout(Duration::from_millis(20), peek.as_mut()).await.is_err(),
                "three bytes decide nothing"
            );
            tx.send(()).unwrap();
            assert_eq!(peek.await.unwrap(), H2_PREFACE);
        }
        writer.await.unwrap();
        assert_eq!(peeked(&mut connection).await.unwrap(), H2_PREFACE, "peeking takes nothing");
        let mut first = [0; 5];
        connection.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"PRI *");
        assert_eq!(read_whole(connection).await, [&H2_PREFACE[5..], b"frames"].concat());
    }

    #[tokio::test]
    async fn a_silent_or_closed_client_is_an_error() {
        let (server, client) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(server, some_facts(None, None), Duration::from_millis(20), None);
        assert_eq!(peeked(&mut connection).await.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(client);
        assert_eq!(peeked(&mut connection).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_does_not_wait_forever_for_a_client_that_does_not_read() {
        let (mut connection, _client) = tight_pair();
        let flood = noise(1 << 20);
        assert!(timeout(SOON, connection.write_all(&flood)).await.is_err());
        connection.gathered.append(b"tail");
        let start = tokio::time::Instant::now();
        Shutdown::shutdown(&mut connection).await;
        assert_eq!(start.elapsed().as_secs(), LINGER.as_secs());
    }

    #[tokio::test]
    async fn a_unix_connection_has_no_addresses_and_asks_for_none() {
        let (connection, _client) = tight_pair();
        let digest = connection.get_socket_digest().unwrap();
        assert!(digest.peer_addr().is_none() && digest.local_addr().is_none());
        assert!(facts(None).is_none());
    }

    /// A connection after its handshake, and the client's socket and session.
    async fn tls_pair() -> (Connection, TcpStream, tokio_rustls::rustls::ClientConnection) {
        use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring, version::TLS12};
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let ring = || Arc::new(ring::default_provider());
        // With 1.3, tickets would come in between.
        let server = ServerConfig::builder_with_provider(ring()).with_protocol_versions(&[&TLS12]).unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into());
        let client =
            ClientConfig::builder_with_provider(ring()).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let (served, socket) = tcp_pair().await;
        let (served, client) = tokio::join!(
            tokio_rustls::TlsAcceptor::from(Arc::new(server.unwrap())).accept(served),
            tokio_rustls::TlsConnector::from(Arc::new(client)).connect("a.test".try_into().unwrap(), socket),
        );
        let (socket, session) = client.unwrap().into_inner();
        (over(Box::new(served.unwrap())), socket, session)
    }

    #[tokio::test]
    async fn over_tls_a_head_and_its_body_are_one_record() {
        let (mut connection, mut socket, mut session) = tls_pair().await;
        let body = noise(8 << 10);
        connection.write_all(b"header").await.unwrap();
        connection.write_all(&body).await.unwrap();
        connection.flush().await.unwrap();
        let mut head = [0; 5];
        socket.read_exact(&mut head).await.unwrap();
        let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        socket.read_exact(&mut record).await.unwrap();
        let told = taken(&mut session, &[&head[..], &record].concat());
        assert_eq!(told.plaintext_bytes_to_read(), 6 + body.len());
        connection.write_all(b"last").await.unwrap();
        connection.part();
        drop(connection);
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert!(taken(&mut session, &rest).peer_has_closed(), "parted with a word");
    }

    fn taken(
        session: &mut tokio_rustls::rustls::ClientConnection,
        mut bytes: &[u8],
    ) -> tokio_rustls::rustls::IoState {
        while !bytes.is_empty() {
            session.read_tls(&mut bytes).unwrap();
            session.process_new_packets().unwrap();
        }
        session.process_new_packets().unwrap()
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 272, "{}", size_of::<Connection>());
    }
}
