//! HTTP/1.1 connections of clients, request by request.

use super::accept::App;
use super::http2;
use super::seats::Seat;
use crate::listen::connection::{Connection, H2_PREFACE, LAST_CHANCE};
use crate::listen::framing::Flaw;
use crate::listen::http1::Session;
use pingora::protocols::{Peek, Shutdown};
use pingora::server::ShutdownWatch;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

/// Most empty lines in front of a request; one is what old clients send behind a body (RFC 9112 section 2.2).
const MOST_EMPTY_LINES: u32 = 4;

/// A client that speaks HTTP/1.1 until something else is found out.
pub(super) struct Client {
    app: Arc<App>,
    stopping: ShutdownWatch,
    seat: Arc<Seat>,
}

impl Client {
    pub(super) fn new(app: Arc<App>, stopping: ShutdownWatch, seat: Arc<Seat>) -> Client {
        Client { app, stopping, seat }
    }

    /// Serves a connection to its end.
    pub(super) async fn serve(mut self, mut connection: Box<Connection>) {
        match self.speaks_http1(&mut connection).await {
            // Boxed, both: nothing that they need is kept along with a connection on which nothing has been said.
            Some(true) => Box::pin(self.serve_http1(connection)).await,
            Some(false) => Box::pin(http2::serve(self.app, connection, self.stopping, self.seat)).await,
            None => connection.shutdown().await,
        }
    }

    /// Whether HTTP/1.1 is spoken on a connection, or else HTTP/2; `None` when nothing is that the listener knows.
    async fn speaks_http1(&self, connection: &mut Connection) -> Option<bool> {
        let (http1, h2c) = (self.app.http1, self.app.h2c);
        if let Some(tls) = connection.secured() {
            return (tls.h2 || http1).then_some(!tls.h2);
        }
        if !h2c {
            return http1.then_some(true);
        }
        let mut begin = [0; H2_PREFACE.len()];
        connection.try_peek(&mut begin).await.ok()?;
        match begin == *H2_PREFACE {
            true => Some(false),
            false => http1.then_some(true),
        }
    }

    /// Answers the one request of the watchdog.
    pub(super) async fn serve_probe(mut self, connection: Box<Connection>) {
        let mut session = Box::new(Session::new(connection));
        if let Some(Ok(())) = self.read_head(&mut session).await {
            self.app.gateway.answer_probe(session).await;
        }
    }

    async fn serve_http1(&mut self, connection: Box<Connection>) {
        let mut session = Box::new(Session::new(connection));
        let mut left = self.app.limits.requests.unwrap_or(u64::MAX);
        while let Some(found) = self.read_head(&mut session).await {
            if !self.seat.be_busy() {
                return;
            }
            if let Err(flaw) = found {
                self.app.gateway.refuse_head(&mut session, flaw).await;
                return session.linger().await;
            }
            left -= 1;
            if left == 0 {
                session.close();
            }
            match self.app.gateway.serve(session).await {
                Some(kept) => session = kept,
                None => return,
            }
            self.seat.wait();
        }
        session.part();
    }

    /// Reads until there is a whole head; `None` when none comes.
    async fn read_head(&mut self, session: &mut Session) -> Option<Result<(), Flaw>> {
        let (limits, mut alarm) = (self.app.limits, session.take_alarm());
        let (mut seen, mut began, mut empty_lines) = (0, None, 0);
        let mut leaving = *self.stopping.borrow();
        loop {
            // Of an empty line, one half may have come before the other.
            while seen <= 1 && session.skip_empty_line() {
                (seen, began) = (0, None);
                empty_lines += 1;
            }
            if empty_lines > MOST_EMPTY_LINES {
                return Some(Err(Flaw::EmptyLines));
            }
            match session.begin(seen, &limits) {
                Ok(true) => {
                    session.put_alarm(alarm);
                    return Some(Ok(()));
                }
                Ok(false) => {}
                Err(flaw) => return Some(Err(flaw)),
            }
            seen = session.ahead().len();
            let limit = match (seen, began) {
                (0, _) if leaving => LAST_CHANCE,
                (0, _) => limits.keepalive,
                (_, None) => *began.insert(Instant::now() + limits.header_time) - Instant::now(),
                (_, Some(deadline)) => deadline.saturating_duration_since(Instant::now()),
            };
            let more = alarm.within(limit, poll_fn(|cx| session.poll_fill(cx)));
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
}
