//! Copies of requests for a route's `mirror`. The body is copied while it passes; when all of it is there, a task of its own
//! sends the copy, and the request knows nothing of it.

use super::Context;
use super::client::Client;
use super::detached::{self, Asked, Patience};
use crate::actions::{Mirror, Place};
use crate::exchange::RequestHead;
use crate::observe::metrics::Mirrored;
use crate::outcome;
use crate::reply::Kind;
use crate::route::Route;
use crate::upstream::{Framing, Lease, Outgoing};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;
use tokio::time::timeout;

/// Tells the upstream that nobody waits for its answer.
static SHADOW: HeaderName = HeaderName::from_static("x-shadow");

/// Most bytes of an answer that are read so that its connection can be kept.
const DRAINED: usize = 256 << 10;

/// A request of which a copy is taken.
pub(super) struct Copied {
    route: Arc<Route>,
    pieces: Vec<Bytes>,
    /// Bytes of body that may still come.
    left: usize,
    place: Option<Place>,
}

/// A copy on its way.
struct Shadow {
    route: Arc<Route>,
    lease: Lease,
    head: RequestHead,
    trailers: bool,
    pieces: Vec<Bytes>,
    _place: Place,
}

impl Copied {
    fn begin(route: &Arc<Route>, mirror: &Mirror) -> Option<Copied> {
        let Some(place) = mirror.place() else {
            mirror.metrics.count(Mirrored::Busy);
            return None;
        };
        Some(Copied { route: route.clone(), pieces: Vec::new(), left: mirror.max_body, place: Some(place) })
    }
}

/// Of a request that ended before its body did.
impl Drop for Copied {
    fn drop(&mut self) {
        if let (Some(_), Some(mirror)) = (self.place.take(), &self.route.mirror) {
            mirror.metrics.count(Mirrored::Unfinished);
        }
    }
}

impl Context {
    /// Begins an attempt's copy: the first time by lot, and once more from the beginning of its body.
    pub(super) fn begin_copy(&mut self, client: &mut Client<'_>) {
        let Some(route) = self.route.as_ref().filter(|route| route.mirror.is_some()) else { return };
        let Some(mirror) = &route.mirror else { return };
        if !std::mem::replace(&mut self.mirrored, true) {
            self.copied = mirror.hits().then(|| Copied::begin(route, mirror)).flatten().map(Box::new);
        } else if let Some(copied) = &mut self.copied {
            copied.pieces.clear();
            copied.left = mirror.max_body;
        }
        if client.is_body_empty() {
            self.send_copy(client);
        }
    }

    /// Copies a piece of the request's body; after the last one the copy goes out.
    pub(super) fn copy_body(&mut self, client: &Client<'_>, piece: Option<&Bytes>, end: bool) {
        let Some(copied) = &mut self.copied else { return };
        if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
            let Some(left) = copied.left.checked_sub(piece.len()) else {
                let route = copied.route.clone();
                return self.forget_copy(&route, Mirrored::TooLarge);
            };
            copied.left = left;
            copied.pieces.push(piece.clone());
        }
        if end {
            self.send_copy(client);
        }
    }

    fn forget_copy(&mut self, route: &Route, why: Mirrored) {
        if let Some(mut copied) = self.copied.take() {
            copied.place = None;
        }
        if let Some(mirror) = &route.mirror {
            mirror.metrics.count(why);
        }
    }

    /// Gives the copy to a task of its own.
    fn send_copy(&mut self, client: &Client<'_>) {
        let Some(mut copied) = self.copied.take() else { return };
        let Some(place) = copied.place.take() else { return };
        let (route, pieces) = (copied.route.clone(), std::mem::take(&mut copied.pieces));
        let Some(mirror) = &route.mirror else { return };
        match self.shadow(&route, mirror, client, pieces, place) {
            Ok(shadow) => drop(tokio::spawn(shadow.run())),
            Err(kind) => {
                log::debug!("a request could not be mirrored to {}: {}", mirror.arm.name, kind.code);
                mirror.metrics.count(Mirrored::Failed);
            }
        }
    }

    fn shadow(
        &self,
        route: &Arc<Route>,
        mirror: &Mirror,
        client: &Client<'_>,
        pieces: Vec<Bytes>,
        place: Place,
    ) -> Result<Shadow, Kind> {
        let request: &RequestHead = client.request();
        let key = mirror.arm.key.as_ref().and_then(|key| key.hash(request, &self.exchange));
        let key = key.map(u64::to_le_bytes);
        let lease = mirror.arm.upstream.pick(key.as_ref().map(<[u8; 8]>::as_slice), &[]);
        let lease = lease.map_err(|why| outcome::unpicked(why).kind)?;
        let mut head = self.head_for(request, lease.target()).map_err(|problem| problem.kind)?;
        head.headers.insert(&SHADOW, HeaderValue::from_static("1"));
        for name in [EXPECT, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let trailers = super::relay::takes_trailers(request) || self.is_web_call();
        Ok(Shadow { route: route.clone(), lease, head, trailers, pieces, _place: place })
    }
}

impl Shadow {
    async fn run(self) {
        let route = self.route.clone();
        let Some(mirror) = &route.mirror else { return };
        let result = match timeout(mirror.timeout, self.send(mirror)).await {
            Ok(Ok(status)) if status >= 500 => Mirrored::ServerError,
            Ok(Ok(_)) => Mirrored::Ok,
            Ok(Err(Kind::CONNECT_TIMEOUT | Kind::UPSTREAM_TIMEOUT)) | Err(_) => Mirrored::Timeout,
            Ok(Err(_)) => Mirrored::Failed,
        };
        mirror.metrics.count(result);
    }

    /// Gives the status of the answer.
    async fn send(mut self, mirror: &Mirror) -> Result<u16, Kind> {
        let mut body = BytesMut::with_capacity(self.pieces.iter().map(Bytes::len).sum());
        self.pieces.drain(..).for_each(|piece| body.extend_from_slice(&piece));
        let mut framing = Framing::Ended;
        if !body.is_empty() {
            self.head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            framing = Framing::Length(body.len() as u64);
        }
        let request = Outgoing { head: self.head, framing, trailers: self.trailers };
        let patience = Patience { connect: mirror.timeout, response: mirror.timeout };
        let pool = self.lease.target().pool();
        let mut asked: Asked = detached::ask(pool, request, body.freeze(), patience).await?;
        let status = asked.head.status.as_u16();
        // What does not end is cut off; the answer was there.
        if detached::drain(&mut asked, DRAINED).await.is_ok() {
            pool.put(asked.target);
        }
        Ok(status)
    }
}
