//! gRPC calls in a request's way: how long one may take, how it is translated for clients that speak gRPC-Web, and how one is
//! ended that fails midway.

use super::Context;
use super::client::Client;
use crate::exchange::{Exchange, RequestHead};
use crate::grpc::web::Web;
use crate::grpc::{self, Dialect, timeout};
use crate::reply::{Kind, Problem};
use crate::route::Route;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use pingora::ErrorSource;
use std::time::{Duration, Instant};

/// What is known of a call.
pub(super) struct Call {
    /// When it must be over.
    deadline: Option<Instant>,
    /// For a client that speaks gRPC-Web to an upstream that does not.
    web: Option<Web>,
}

impl Call {
    /// That of a request; `None` for one that is no call.
    ///
    /// # Errors
    /// How long it may take cannot be understood.
    pub(super) fn of(
        request: &RequestHead,
        route: &Route,
        x: &Exchange,
    ) -> Result<Option<Box<Call>>, Problem> {
        let Some(dialect) = Dialect::of_request(&request.method, &request.headers) else { return Ok(None) };
        let asked = timeout::of(&request.headers).map_err(|_| {
            let detail = "`grpc-timeout` must be one to eight digits and one of H, M, S, m, u and n";
            Problem::from(Kind::BAD_REQUEST).detail(detail)
        })?;
        let within = asked.into_iter().chain(route.timeouts.deadline).min();
        // What is too far away for the clock never comes.
        let deadline = within.and_then(|within| x.started.checked_add(within));
        let web = if route.grpc_web { Web::new(dialect, &request.headers) } else { None };
        Ok(Some(Box::new(Call { deadline, web })))
    }
}

impl Context {
    /// What is left of the time of a call; `None` when it may take as long as it likes, or is none.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let deadline = self.call.as_ref()?.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// A limit and what is wrong when it is reached: both are the call's where that ends sooner.
    pub(super) fn in_time(&self, limit: Duration, late: Kind) -> (Duration, Kind) {
        match self.time_left() {
            Some(left) if left <= limit => (left, Kind::DEADLINE),
            _ => (limit, late),
        }
    }

    /// Whether the request is translated from gRPC-Web.
    pub(super) fn is_web_call(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.web.is_some())
    }

    /// Makes the head of a gRPC-Web request one of gRPC.
    pub(super) fn translate(&self, head: &mut RequestHead) {
        if let Some(web) = self.call.as_ref().and_then(|call| call.web.as_ref()) {
            web.ask(head);
        }
    }

    /// Begins an attempt: the target is told how much time is left, and gets the body from its beginning.
    ///
    /// # Errors
    /// None is left.
    pub(super) fn begin_call(&mut self, head: &mut RequestHead) -> Result<(), Kind> {
        if let Some(left) = self.time_left() {
            if left.is_zero() {
                return Err(Kind::DEADLINE);
            }
            head.headers.insert(grpc::TIMEOUT, timeout::value(left));
        }
        if let Some(web) = self.web() {
            web.restart();
        }
        Ok(())
    }

    /// A piece of a request's body as its target reads it.
    ///
    /// # Errors
    /// It is not what its type says.
    pub(super) fn decode(&mut self, piece: Option<Bytes>, ends: bool) -> pingora::Result<Option<Bytes>> {
        let Some(web) = self.web() else { return Ok(piece) };
        let decoded = web.decode(piece.unwrap_or_default(), ends);
        decoded.map(Some).map_err(|_| {
            let mut error = self.refuse(Problem::from(Kind::BAD_REQUEST).detail("the body is not base64"));
            error.esource = ErrorSource::Downstream;
            error
        })
    }

    /// The translation of the call, if there is one.
    pub(super) fn web(&mut self) -> Option<&mut Web> {
        self.call.as_mut()?.web.as_mut()
    }

    /// The same once the answer is one that is translated.
    pub(super) fn web_answer(&mut self) -> Option<&mut Web> {
        self.web().filter(|web| web.is_answering())
    }

    /// Ends a call whose answer has begun: what went wrong is its status. Gives whether that could be said.
    pub(super) async fn end_call(&mut self, client: &mut Client<'_>, problem: &Problem) -> bool {
        if !self.say_last_words(client, problem) {
            return false;
        }
        match client.send().await {
            Ok(()) => {
                (self.exchange.problem, self.exchange.reason) =
                    (Some(problem.kind.status), Some(problem.kind.code));
                true
            }
            Err(error) => {
                log::debug!("a call could not be ended: {error}");
                false
            }
        }
    }

    /// Whether there is a way to say it.
    fn say_last_words(&mut self, client: &mut Client<'_>, problem: &Problem) -> bool {
        let Some(fields) = client.answered() else { return false };
        if problem.kind == Kind::CLIENT_GONE || fields.contains_key(CONTENT_LENGTH) {
            return false;
        }
        let is_native = self.call.is_some() && Dialect::of(fields) == Some(Dialect::Native);
        let trailers: HeaderMap = problem.status_fields().into_iter().collect();
        if let Some(web) = self.web_answer() {
            // Within a message they would be taken for a part of it.
            return web.is_between_messages() && client.push(web.trailers(&trailers), true).is_ok();
        }
        is_native && client.is_http2() && client.push_trailers(trailers).is_ok()
    }
}
