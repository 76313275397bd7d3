//! HTTP/1.1 connections of clients, request by request. Heads are read here and parsed by the engine's session.

use super::accept::App;
use crate::gateway::Served;
use crate::listen::Limits;
use crate::listen::chunks::Chunks;
use crate::listen::connection::{Connection, H2_PREFACE, LAST_CHANCE};
use crate::listen::framing::{self, Body, Flaw, glimpse};
use bytes::{Buf, BytesMut};
use pingora::ErrorType;
use pingora::apps::ServerApp;
use pingora::modules::http::HttpModules;
use pingora::protocols::{Peek, Stream};
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;
use pingora::time::timeout;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// What is read at once: the head of most requests.
const READ: usize = 4096;

/// Most empty lines in front of a request; one is what old clients send behind a body (RFC 9112 section 2.2).
const MOST_EMPTY_LINES: u32 = 4;

/// How much is read of what comes behind a refused head, and for how long: a client that is still sending loses the answer
/// when its connection is reset.
const LINGER_BYTES: usize = 256 << 10;
const LINGER: Duration = Duration::from_secs(1);

/// A client that speaks HTTP/1.1 until something else is found out.
pub(super) struct Client {
    app: Arc<App>,
    stopping: ShutdownWatch,
    modules: HttpModules,
}

impl Client {
    pub(super) fn new(app: Arc<App>, stopping: ShutdownWatch) -> Client {
        Client { app, stopping, modules: HttpModules::new() }
    }

    /// Serves a connection to its end.
    pub(super) async fn serve(mut self, mut connection: Box<Connection>) {
        match self.speaks_http1(&mut connection).await {
            Some(true) => self.serve_http1(connection).await,
            Some(false) => self.leave_to_engine(connection).await,
            None => {}
        }
    }

    /// Whether HTTP/1.1 is spoken on a connection; `None` when nothing is.
    async fn speaks_http1(&self, connection: &mut Connection) -> Option<bool> {
        if let Some(tls) = connection.secured() {
            return Some(self.app.http1 && !tls.h2);
        }
        if !self.app.http1 {
            return Some(false);
        }
        if !self.app.options.h2c {
            return Some(true);
        }
        let mut begin = [0; H2_PREFACE.len()];
        connection.try_peek(&mut begin).await.ok()?;
        Some(begin != *H2_PREFACE)
    }

    /// Answers the one request of the watchdog.
    pub(super) async fn serve_probe(mut self, mut connection: Box<Connection>) {
        let mut read = BytesMut::new();
        if let Some(Ok(_)) = self.read_head(&mut connection, &mut read).await
            && let Some(session) = self.session(connection, read).await
        {
            self.app.gateway.answer_probe(session).await;
        }
    }

    async fn leave_to_engine(&self, connection: Box<Connection>) {
        self.app.process_new(connection, &self.stopping).await;
    }

    async fn serve_http1(&mut self, mut connection: Box<Connection>) {
        let mut read = BytesMut::new();
        let mut left = self.app.limits.requests.unwrap_or(u64::MAX);
        while let Some(found) = self.read_head(&mut connection, &mut read).await {
            match found {
                Ok(None) => {}
                Ok(Some(chunks)) => connection.expect_chunks(chunks),
                Err(flaw) => return self.refuse(connection, &read, flaw).await,
            }
            let Some(mut session) = self.session(connection, std::mem::take(&mut read)).await else { return };
            left -= 1;
            if left == 0 {
                session.set_keepalive(None);
            }
            match self.app.gateway.serve(session).await {
                Served::Kept(reusable) => {
                    let (stream, rest) = reusable.into_parts();
                    let Ok(same) = stream.into_any().downcast() else { return };
                    (connection, read) = (same, rest.unwrap_or_default());
                }
                Served::Over => return,
            }
        }
        connection.part();
    }

    /// Reads until there is a whole head, and checks it; `None` when none comes. Gives what is said of the body, and as much
    /// of it as was looked at.
    async fn read_head(
        &mut self,
        connection: &mut Connection,
        read: &mut BytesMut,
    ) -> Option<Result<Option<Chunks>, Flaw>> {
        let limits = self.app.limits;
        let (mut seen, mut began, mut empty_lines) = (0, None, 0);
        let mut leaving = *self.stopping.borrow();
        loop {
            // Of an empty line, one half may have come before the other.
            while seen <= 1 && read.starts_with(b"\r\n") {
                read.advance(2);
                (seen, began) = (0, None);
                empty_lines += 1;
            }
            if empty_lines > MOST_EMPTY_LINES {
                return Some(Err(Flaw::EmptyLines));
            }
            match look(read, seen, &limits) {
                Ok(Some(found)) => return Some(Ok(found)),
                Ok(None) => {}
                Err(flaw) => return Some(Err(flaw)),
            }
            seen = read.len();
            let limit = match (seen, began) {
                (0, _) if leaving => LAST_CHANCE,
                (0, _) => limits.keepalive,
                (_, None) => *began.insert(Instant::now() + limits.header_time) - Instant::now(),
                (_, Some(deadline)) => deadline.saturating_duration_since(Instant::now()),
            };
            read.reserve(READ);
            let more = timeout(limit, connection.read_buf(read));
            let more = tokio::select! {
                biased;
                more = more => more,
                _ = self.stopping.changed(), if seen == 0 && !leaving => {
                    leaving = true;
                    continue;
                }
            };
            match more {
                Ok(Ok(1..)) => {}
                Err(_) if seen > 0 => return Some(Err(Flaw::Slow)),
                _ => return None,
            }
        }
    }

    /// Answers a head that is not as it should be, and ends the connection.
    async fn refuse(&self, connection: Box<Connection>, read: &[u8], flaw: Flaw) {
        let session = Session::new_h1_with_modules(connection, &self.modules);
        let refused = self.app.gateway.refuse_head(session, flaw, glimpse(read)).await;
        if let Some(mut stream) = refused {
            let rest = linger(&mut stream);
            // Whoever sends for longer gets the reset.
            drop(timeout(LINGER, rest).await);
        }
    }

    /// A session that has read its request; one that cannot be read is answered.
    async fn session(&self, connection: Box<Connection>, read: BytesMut) -> Option<Session> {
        let mut session = Session::new_h1_with_modules(connection, &self.modules);
        // What it is for is said when the listener is known.
        session.set_keepalive((!*self.stopping.borrow()).then_some(1));
        session.set_pipelining_enabled(true);
        session.set_pipelined_prefix(read);
        match session.read_request().await {
            Ok(true) => return Some(session),
            Ok(false) => {}
            Err(error) if *error.etype() == ErrorType::InvalidHTTPHeader => {
                drop(self.app.gateway.refuse_head(session, Flaw::Malformed, None).await);
            }
            Err(error) => log::debug!("a request could not be read: {error}"),
        }
        None
    }
}

/// Looks at what was read, of which `seen` bytes were looked at before; `None` when it is no whole head yet.
fn look(read: &[u8], seen: usize, limits: &Limits) -> Result<Option<Option<Chunks>>, Flaw> {
    // Most heads come whole; one that comes in pieces is not gone through again for every piece.
    if (seen == 0 || framing::end(read, seen).is_some())
        && let Some((length, body)) = framing::check(read, limits)?
    {
        return begin_body(body, read.get(length..).unwrap_or_default()).map(Some);
    }
    framing::check_begun(read, limits).map(|()| None)
}

/// Looks at what is there of a body already; gives what is to be done with the rest, unless the body needs no looks.
fn begin_body(body: Body, behind: &[u8]) -> Result<Option<Chunks>, Flaw> {
    let Body::Chunked = body else { return Ok(None) };
    let mut chunks = Chunks::new();
    let over = chunks.pass(behind)?;
    Ok((!over).then_some(chunks))
}

async fn linger(stream: &mut Stream) {
    let (mut left, mut sink) = (LINGER_BYTES, [0; READ]);
    while let Ok(count @ 1..) = stream.read(&mut sink).await {
        match left.checked_sub(count) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
