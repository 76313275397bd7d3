//! HTTP/1.1 connections of clients, request by request. Heads are read here and parsed by the engine's session.

use super::accept::App;
use crate::gateway::Served;
use crate::listen::connection::{Connection, H2_PREFACE, LAST_CHANCE};
use bytes::{Buf, BytesMut};
use pingora::ErrorType;
use pingora::apps::ServerApp;
use pingora::modules::http::HttpModules;
use pingora::protocols::Peek;
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;
use pingora::time::timeout;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// How long the head of a request may take from its first byte on.
const HEAD_TIME: Duration = Duration::from_secs(60);

/// Heads are read up to here, so that one that is too long for the listener can be told so.
const MAX_HEAD: usize = 1 << 20;

/// What is read at once: the head of most requests.
const READ: usize = 4096;

/// A client that speaks HTTP/1.1 until something else is found out.
pub(super) struct Client {
    app: Arc<App>,
    stopping: ShutdownWatch,
    /// How long the connection may be idle.
    keepalive: Duration,
    modules: HttpModules,
}

impl Client {
    pub(super) fn new(app: Arc<App>, stopping: ShutdownWatch, keepalive: Duration) -> Client {
        Client { app, stopping, keepalive, modules: HttpModules::new() }
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
        if self.read_head(&mut connection, &mut read).await.is_some()
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
        while self.read_head(&mut connection, &mut read).await.is_some() {
            let Some(session) = self.session(connection, std::mem::take(&mut read)).await else { return };
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

    /// Reads until there is a whole head; `None` when none comes.
    async fn read_head(&mut self, connection: &mut Connection, read: &mut BytesMut) -> Option<()> {
        let (mut seen, mut began) = (0, None);
        let mut leaving = *self.stopping.borrow();
        loop {
            // Empty lines before a request are passed over (RFC 9112 section 2.2).
            while seen == 0 && matches!(read.first(), Some(b'\r' | b'\n')) {
                read.advance(1);
            }
            if holds_head(read, seen) || read.len() > MAX_HEAD {
                return Some(());
            }
            seen = read.len();
            let limit = match (seen, began) {
                (0, _) if leaving => LAST_CHANCE,
                (0, _) => self.keepalive,
                (_, None) => *began.insert(Instant::now() + HEAD_TIME) - Instant::now(),
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
            if !matches!(more, Ok(Ok(1..))) {
                return None;
            }
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
                self.app.gateway.refuse_head(session).await;
            }
            Err(error) => log::debug!("a request could not be read: {error}"),
        }
        None
    }
}

/// Whether there is an empty line, the end of a head; the first `seen` bytes were looked at before.
fn holds_head(read: &[u8], seen: usize) -> bool {
    // The end may have begun in what was seen.
    let from = seen.saturating_sub(3);
    let fresh = read.get(from..).unwrap_or_default();
    memchr::memchr_iter(b'\n', fresh).any(|at| {
        let rest = fresh.get(at + 1..).unwrap_or_default();
        rest.starts_with(b"\r\n") || rest.starts_with(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_cut() {
        for head in
            ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET / HTTP/1.1\nhost: a\n\n", "GET / HTTP/1.1\r\n\n"]
        {
            let bytes = head.as_bytes();
            for cut in 0..bytes.len() {
                assert!(!holds_head(&bytes[..cut], 0), "{head:?} cut at {cut}");
                assert!(holds_head(bytes, cut), "{head:?} seen up to {cut}");
            }
        }
    }
}
