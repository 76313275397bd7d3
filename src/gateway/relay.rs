//! Proxying: a request to a target and its answer, whatever the client and the target speak.
//!
//! The engine would do it too, for several times the work (see [`http1`](crate::upstream::http1)), and with one timeout for
//! the head of an answer and the pauses within.

use super::Context;
use super::client::Client;
use super::framing::request_framing;
use super::pace::Pace;
use super::replay::most_kept;
use crate::attempt::Failed;
use crate::exchange::{RequestHead, ResponseHead, has_token};
use crate::forward::{self, websocket};
use crate::outcome;
use crate::reply::{Kind, Problem};
use crate::route::Route;
use crate::upstream::{Conversation, Event, Fault, Outgoing, Part, Pool, Target, Unreached};
use crate::value::Trouble;
use bytes::Bytes;
use http::header::{HOST, TE};
use http::{HeaderValue, StatusCode, Version};
use pingora::Error;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How many parts of an answer go to the client at once.
const PARTS: usize = 16;

/// How often a connection that the target was giving up is replaced within one attempt.
const REPLACED: usize = 3;

/// How an attempt has ended.
enum Tried {
    /// With an answer, of which nothing has gone to the client yet if it is held back.
    Answered(Option<Box<Held>>),
    /// Without one; another attempt is to be made.
    Failed,
}

/// How an attempt ended that did not bring an answer.
enum End {
    /// The client went away, or what it sends is not acceptable.
    Client(Box<Error>),
    /// The target failed.
    Target(Kind),
    /// Its answer is not for the client: another attempt is to be made.
    Dismissed(StatusCode),
}

/// A final answer of which nothing has gone to the client yet.
pub(super) struct Held {
    /// Its head, as the target sent it.
    pub(super) head: ResponseHead,
    /// Whether it ends with its head.
    pub(super) ends: bool,
    /// Where the rest of it comes from.
    pub(super) target: Conversation,
    /// Where that goes then.
    pub(super) pool: Arc<Pool>,
}

impl Held {
    /// Gives the target's connection back, if what has come is all of the answer.
    pub(super) fn put_back(mut self) {
        while let Ok(Some(_)) = self.target.buffered() {}
        self.pool.put(self.target);
    }
}

/// How far an answer has come.
enum Course {
    /// To its end.
    Over,
    /// To its head, which is held back.
    Head(Box<ResponseHead>, bool),
}

/// What has happened.
enum Happened {
    Target(Result<Event, Fault>),
    Client(pingora::Result<Option<Bytes>>),
}

/// Whose turn it is.
#[derive(Clone, Copy)]
struct Turn {
    /// Whether the client has sent its whole request.
    asked: bool,
    /// Whether the client is listened to before the target.
    client_first: bool,
}

impl Context {
    /// Has the request answered by a target: by the first one, or by another one where nothing can have happened yet. An answer
    /// that is to be looked at first ([`Context::holds`]) is given back; it goes on with [`Context::pass_held`].
    ///
    /// # Errors
    /// As from the engine; an error of the target carries a refusal.
    pub(super) async fn relay(&mut self, client: &mut Client<'_>) -> pingora::Result<Option<Box<Held>>> {
        let route = self.route.clone().ok_or_else(|| self.refuse(Kind::INTERNAL))?;
        self.replay.keep_at_most(most_kept(&route));
        loop {
            self.wait().await;
            let lease = self.attempts.hold(&route, &mut self.exchange);
            let pool = lease.map(|lease| lease.target().pool().clone());
            let pool = pool.map_err(|problem| self.refuse(problem))?;
            if let Tried::Answered(held) = self.attempt(client, &route, pool).await? {
                return Ok(held);
            }
        }
    }

    /// Has the request answered by the target that is held.
    async fn attempt(
        &mut self,
        client: &mut Client<'_>,
        route: &Route,
        pool: Arc<Pool>,
    ) -> pingora::Result<Tried> {
        // Only HTTP/1.1 changes protocols; to others the request is one that asks for nothing (RFC 9110 section 7.8).
        let offer = self.websocket.clone().filter(|_| pool.has_http1());
        let upgrade = offer.is_some();
        let mut replaced = 0;
        loop {
            let request = match self.outgoing(client, upgrade) {
                Ok(request) => request,
                Err(problem) => return Err(self.give_up(route, problem)),
            };
            if !upgrade {
                self.begin_copy(client);
            }
            let Some(mut target) = self.connection(route, &pool, upgrade).await? else {
                return Ok(Tried::Failed);
            };
            target.begin(request);
            if let Some(offer) = &offer {
                target.offer(offer.clone());
            }
            let end = match self.ask(client, &mut target, route).await {
                Ok(Course::Head(head, ends)) => {
                    return Ok(Tried::Answered(Some(Box::new(Held { head: *head, ends, target, pool }))));
                }
                Ok(Course::Over) => {
                    match target.is_switched() {
                        true => self.switched = target.switched().map(Box::new),
                        false => pool.put(target),
                    }
                    return Ok(Tried::Answered(None));
                }
                Err(end) => end,
            };
            if replaced == REPLACED || !self.may_replace(&target, &end) {
                return self.failed(client, route, (target, &pool), end);
            }
            replaced += 1;
        }
    }

    /// Whether a request goes over another connection to the same target, because the one that it had was being given up.
    fn may_replace(&self, target: &Conversation, end: &End) -> bool {
        matches!(end, End::Target(_)) && target.is_left_behind() && self.replay.is_whole()
    }

    /// Ends an attempt that brought no answer.
    fn failed(
        &mut self,
        client: &Client<'_>,
        route: &Route,
        (mut target, pool): (Conversation, &Pool),
        end: End,
    ) -> pingora::Result<Tried> {
        match end {
            End::Client(error) => {
                let kind = self.blame(&error);
                self.attempts.failed(route, &mut self.exchange, kind);
                Err(error)
            }
            End::Dismissed(status) => {
                self.attempts.dismissed(route, &mut self.exchange, status);
                // What is not there yet of the answer is not worth waiting for; then the connection is closed.
                while let Ok(Some(_)) = target.buffered() {}
                pool.put(target);
                Ok(Tried::Failed)
            }
            End::Target(kind) => {
                if kind == Kind::UPSTREAM_TIMEOUT {
                    target.doubt();
                }
                let failed = self.failure(client, &target, kind);
                self.attempts.failed(route, &mut self.exchange, kind);
                match failed.is_some_and(|failed| self.attempts.goes_on(route, &self.exchange, failed)) {
                    true => Ok(Tried::Failed),
                    false => Err(self.refuse(outcome::told(kind, target.reset()))),
                }
            }
        }
    }

    /// Passes on an answer that was held back.
    ///
    /// # Errors
    /// As from the engine; an error of the target carries a refusal.
    pub(super) async fn pass_held(&mut self, client: &mut Client<'_>, held: Held) -> pingora::Result<()> {
        let route = self.route.clone().ok_or_else(|| self.refuse(Kind::INTERNAL))?;
        let Held { head, ends, mut target, pool } = held;
        self.holds = false;
        self.replay.forget();
        let passed = match self.pass_on(client, &mut target, Part::Head(head, ends)).await {
            Ok(_) => self.converse(client, &mut target, &route).await.map(drop),
            Err(end) => Err(end),
        };
        let error = match passed {
            Ok(()) => {
                pool.put(target);
                return Ok(());
            }
            Err(End::Client(error)) => error,
            Err(End::Target(kind)) => self.refuse(outcome::told(kind, target.reset())),
            // What was held back has been looked at.
            Err(End::Dismissed(_)) => self.refuse(Kind::INTERNAL),
        };
        let kind = self.blame(&error);
        self.attempts.failed(&route, &mut self.exchange, kind);
        Err(error)
    }

    /// Waits before another attempt.
    async fn wait(&mut self) {
        let pause = self.attempts.pause();
        let (pause, _) = self.in_time(pause, Kind::DEADLINE);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// A connection that was kept, or a new one; `None` when there was none to be had here, but may be elsewhere.
    async fn connection(
        &mut self,
        route: &Route,
        pool: &Pool,
        http1: bool,
    ) -> pingora::Result<Option<Conversation>> {
        if let Some(target) = pool.take(http1) {
            self.exchange.tries.connect = Some(Duration::ZERO);
            return Ok(Some(target));
        }
        let (limit, late) = self.in_time(route.timeouts.connect, Kind::CONNECT_TIMEOUT);
        let kind = match tokio::time::timeout(limit, pool.connect(http1)).await {
            Ok(Ok(target)) => {
                let tries = &mut self.exchange.tries;
                tries.connect = tries.began.map(|began| began.elapsed());
                return Ok(Some(target));
            }
            Ok(Err(unreached)) => unreached.into(),
            Err(_) => late,
        };
        self.attempts.failed(route, &mut self.exchange, kind);
        let failed = Failed { trouble: Trouble::Connect, repeatable: true, stale: false };
        match kind != Kind::DEADLINE && self.attempts.goes_on(route, &self.exchange, failed) {
            true => Ok(None),
            false => Err(self.refuse(kind)),
        }
    }

    /// What is to be known of an attempt that the target failed; `None` when part of its answer has gone to the client.
    fn failure(&self, client: &Client<'_>, target: &Conversation, kind: Kind) -> Option<Failed> {
        if client.has_begun() {
            return None;
        }
        let trouble = outcome::attempt(kind).and_then(outcome::trouble)?;
        let untouched = target.is_untouched();
        let went_nowhere = target.is_used() && !target.is_heard();
        Some(Failed {
            trouble,
            repeatable: (untouched || self.sent_idempotent) && self.replay.is_whole(),
            stale: kind == Kind::UPSTREAM_CLOSED && (untouched || went_nowhere),
        })
    }

    /// Ends an attempt that was not made: the request cannot be sent as it is.
    fn give_up(&mut self, route: &Route, problem: Problem) -> Box<Error> {
        self.attempts.failed(route, &mut self.exchange, problem.kind);
        self.refuse(problem)
    }

    /// Sends the request and passes the answer on, both at once.
    async fn ask(
        &mut self,
        client: &mut Client<'_>,
        target: &mut Conversation,
        route: &Route,
    ) -> Result<Course, End> {
        self.begin_body(client, target).await?;
        self.converse(client, target, route).await
    }

    /// Goes on with what has begun.
    async fn converse(
        &mut self,
        client: &mut Client<'_>,
        target: &mut Conversation,
        route: &Route,
    ) -> Result<Course, End> {
        let mut turn = Turn { asked: client.is_body_done(), client_first: false };
        let mut pace = (!turn.asked).then(|| self.pace(route));
        let mut alarm = client.take_alarm();
        while !(target.is_over() || turn.asked && target.is_answered()) {
            let (limit, late) = self.limit(target, turn.asked, client, route, pace.as_ref());
            let (limit, late) = self.in_time(limit, late);
            let waited =
                pace.as_mut().filter(|_| late == Kind::CLIENT_TIMEOUT).map(|pace| (pace, Instant::now()));
            let happened = happens(client, target, turn);
            let happened = alarm.within(limit, happened).await.map_err(|_| End::Target(late))?;
            if let Some((pace, since)) = waited {
                pace.waited_since(since);
            }
            turn.client_first = false;
            match happened {
                Happened::Target(Ok(Event::Sent)) => {}
                Happened::Target(Ok(Event::Switched)) => {
                    self.attempts.heard(route, &mut self.exchange, StatusCode::SWITCHING_PROTOCOLS);
                }
                Happened::Target(Ok(Event::Part(part))) => {
                    // A target that says much must not keep the client from saying something.
                    turn.client_first = !turn.asked;
                    self.inspect(&part, route)?;
                    if let Some((head, ends)) = self.pass_on(client, target, part).await? {
                        client.put_alarm(alarm);
                        return Ok(Course::Head(head, ends));
                    }
                }
                Happened::Target(Err(fault)) => return Err(fault.into()),
                Happened::Client(Ok(_)) if turn.asked => {}
                Happened::Client(Ok(piece)) => {
                    turn.asked = self.pass_body(client, target, piece)?;
                }
                Happened::Client(Err(error)) => return Err(End::Client(error.into_down())),
            }
        }
        client.put_alarm(alarm);
        Ok(Course::Over)
    }

    /// Looks at the head of an answer before anything of it goes to the client: it may be one that is asked for again.
    fn inspect(&mut self, part: &Part, route: &Route) -> Result<(), End> {
        let Part::Head(head, _) = part else { return Ok(()) };
        if head.status.is_informational() {
            return Ok(());
        }
        let repeatable = self.sent_idempotent && self.replay.is_whole();
        if self.attempts.dismisses(route, &self.exchange, head.status, repeatable) {
            return Err(End::Dismissed(head.status));
        }
        self.attempts.heard(route, &mut self.exchange, head.status);
        if !self.holds {
            self.replay.forget();
        }
        Ok(())
    }

    /// How long to wait for what happens next, and whose fault it is if nothing does.
    fn limit(
        &self,
        target: &Conversation,
        asked: bool,
        client: &Client<'_>,
        route: &Route,
        pace: Option<&Pace>,
    ) -> (Duration, Kind) {
        let quiet = if self.stream.is_some() { route.timeouts.stream_idle } else { route.timeouts.idle };
        if target.is_sending() {
            return (quiet, Kind::UPSTREAM_TIMEOUT);
        }
        if asked {
            let began = client.has_begun();
            let limit = if began { quiet } else { self.attempts.response_within(route) };
            return (limit, Kind::UPSTREAM_TIMEOUT);
        }
        let left = match (pace, &self.stream) {
            (Some(pace), None) => pace.left(self.exchange.bytes_in),
            _ => route.timeouts.stream_idle,
        };
        (left, Kind::CLIENT_TIMEOUT)
    }

    /// Makes the head of an attempt.
    pub(super) fn outgoing(&mut self, client: &mut Client<'_>, upgrade: bool) -> Result<Outgoing, Problem> {
        let request: &RequestHead = client.request();
        let lease = self.attempts.lease().ok_or(Kind::INTERNAL)?;
        let mut head = self.head_for(request, lease.target())?;
        let trailers = takes_trailers(request) || self.is_web_call();
        if upgrade {
            websocket::ask(&mut head);
        }
        self.sent_idempotent = self.route.as_ref().is_some_and(|route| route.retry.covers(&head));
        // A body is sent again from its beginning, and is counted again.
        self.body_left = self.body_max();
        self.exchange.bytes_in = 0;
        self.begin_call(&mut head)?;
        let framing = request_framing(&mut head.headers, client.is_body_empty())?;
        if let Some(caching) = &mut self.caching {
            caching.ask(&mut head);
        }
        Ok(Outgoing { head, framing, trailers })
    }

    /// The head of a request for this target.
    pub(super) fn head_for(&self, request: &RequestHead, target: &Target) -> Result<RequestHead, Problem> {
        let mut head = request.clone();
        forward::strip_request(&mut head)?;
        head.version = Version::HTTP_11;
        // What was asked for in the target's own authority counts (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
        if let Some(authority) = request.uri.authority() {
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Kind::BAD_HOST)?;
            head.headers.insert(HOST, host);
        }
        self.prepare(request, &mut head, target)?;
        self.translate(&mut head);
        Ok(head)
    }

    /// What there is of the body already goes out with the head: what an attempt before has read, or what has come by now.
    async fn begin_body(&mut self, client: &mut Client<'_>, target: &mut Conversation) -> Result<(), End> {
        if client.is_body_empty() {
            return Ok(());
        }
        let piece = match self.replay.take() {
            Some(read) => Some(Ok(Some(read))),
            None if client.is_body_done() => Some(Ok(None)),
            None => at_once(client.read(true)).await,
        };
        match piece {
            Some(Ok(piece)) => drop(self.pass_body(client, target, piece)?),
            Some(Err(error)) => return Err(End::Client(error.into_down())),
            None => {}
        }
        Ok(())
    }

    /// Passes a piece of the request's body on; `None` is its end. Gives whether it was the last one.
    fn pass_body(
        &mut self,
        client: &mut Client<'_>,
        target: &mut Conversation,
        piece: Option<Bytes>,
    ) -> Result<bool, End> {
        let end = piece.is_none() || client.is_body_done();
        self.take_body(piece.as_ref()).map_err(End::Client)?;
        if let Some(piece) = &piece {
            self.replay.keep(piece);
        }
        let piece = self.decode(piece, end).map_err(End::Client)?;
        self.copy_body(client, piece.as_ref(), end);
        target.send(piece.unwrap_or_default(), end)?;
        Ok(end)
    }

    /// Passes a part of the answer on, and with it what else is there; gives its head, if that is held back.
    async fn pass_on(
        &mut self,
        client: &mut Client<'_>,
        target: &mut Conversation,
        part: Part,
    ) -> Result<Option<(Box<ResponseHead>, bool)>, End> {
        let (mut next, mut fault, mut held, mut added) = (Some(part), None, None, 0);
        while let Some(part) = next.take() {
            match part {
                Part::Head(head, ends) if self.holds && !head.status.is_informational() => {
                    held = Some((Box::new(head), ends));
                    break;
                }
                // What follows an interim answer is looked at before it is passed on.
                Part::Head(head, _) if head.status.is_informational() => {
                    client.interim(head).await.map_err(End::Client)?;
                    break;
                }
                part => {
                    self.add(client, part).inspect_err(|_| client.take_back())?;
                    added += 1;
                }
            }
            if added < PARTS {
                match target.buffered() {
                    Ok(part) => next = part,
                    Err(found) => fault = Some(found),
                }
            }
        }
        let held_back = self.held_back().map_err(|kind| End::Client(self.refuse(kind)))?;
        if !held_back.is_empty() {
            client.push(held_back, false).map_err(End::Client)?;
        }
        // What waits goes out when the client is listened to, which it is not while the target takes no more of what it said.
        if fault.is_some() || target.is_sending() || !client.may_gather() {
            client.send().await.map_err(End::Client)?;
        }
        fault.map_or(Ok(held), |fault| Err(fault.into()))
    }

    /// Adds a part of the target's answer to what goes to the client.
    fn add(&mut self, client: &mut Client<'_>, part: Part) -> Result<(), End> {
        match part {
            Part::Head(mut head, ends) => {
                self.answered(client, &mut head, ends);
                client.answer(head, ends);
            }
            Part::Body(piece, ends) => {
                let piece = self.encode(piece, ends).map_err(|kind| End::Client(self.refuse(kind)))?;
                if ends || !piece.is_empty() {
                    client.push(piece, ends).map_err(End::Client)?;
                }
            }
            Part::Trailers(mut trailers) => {
                forward::strip_trailers(&mut trailers);
                if let Some(web) = self.web_answer() {
                    return client.push(web.trailers(&trailers), true).map_err(End::Client);
                }
                let rest = self.encode(Bytes::new(), true).map_err(|kind| End::Client(self.refuse(kind)))?;
                if !rest.is_empty() {
                    client.push(rest, false).map_err(End::Client)?;
                }
                client.push_trailers(trailers).map_err(End::Client)?;
            }
        }
        Ok(())
    }
}

/// Whether the client takes trailers; only of HTTP/2 is that known to be so from end to end.
pub(super) fn takes_trailers(request: &RequestHead) -> bool {
    request.version == Version::HTTP_2 && has_token(&request.headers, &TE, "trailers")
}

impl From<Unreached> for Kind {
    fn from(unreached: Unreached) -> Kind {
        match unreached {
            Unreached::Failed => Kind::CONNECT_FAILED,
            Unreached::TimedOut => Kind::CONNECT_TIMEOUT,
            Unreached::Tls => Kind::TLS_FAILED,
            Unreached::OtherProtocol => Kind::UPSTREAM_INVALID,
        }
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Target(outcome::fault(fault))
    }
}

/// Waits for what happens next, at the target or at the client.
async fn happens(client: &mut Client<'_>, target: &mut Conversation, turn: Turn) -> Happened {
    // A client is not asked for more before what it sent is on its way.
    let listens = turn.asked || !target.is_sending();
    let mut client = pin!(client.read(!turn.asked));
    poll_fn(|cx| {
        if turn.client_first
            && listens
            && let Poll::Ready(piece) = client.as_mut().poll(cx)
        {
            return Poll::Ready(Happened::Client(piece));
        }
        if let Poll::Ready(event) = target.poll(cx) {
            return Poll::Ready(Happened::Target(event));
        }
        match listens && !turn.client_first {
            true => client.as_mut().poll(cx).map(Happened::Client),
            false => Poll::Pending,
        }
    })
    .await
}

/// What a future gives without waiting.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
