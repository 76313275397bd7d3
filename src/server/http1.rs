//! HTTP/1.1 connections of clients, request by request.

use super::accept::App;
use super::http2;
use super::seats::Seat;
use crate::listen::connection::{Connection, H2_PREFACE};
use crate::listen::http1::Session;
use pingora::protocols::{Peek, Shutdown};
use pingora::server::ShutdownWatch;
use std::sync::Arc;

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
        let (mut session, limits) = (Box::new(Session::new(connection)), self.app.limits);
        if let Some(Ok(())) = session.await_head(&limits, &mut self.stopping).await {
            self.app.gateway.answer_probe(session).await;
        }
    }

    async fn serve_http1(&mut self, connection: Box<Connection>) {
        let (mut session, limits) = (Box::new(Session::new(connection)), self.app.limits);
        let mut left = limits.requests.unwrap_or(u64::MAX);
        while let Some(found) = session.await_head(&limits, &mut self.stopping).await {
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
}
