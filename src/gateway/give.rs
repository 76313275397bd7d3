//! Giving a client what is stored, while it may still be coming.

use super::Context;
use super::client::Client;
use crate::cache::policy::{Given, answer_to, current_age, ttl};
use crate::cache::range::Piece;
use crate::cache::status::CacheStatus;
use crate::cache::{Body, Broken, Reader, Stored, Taken};
use crate::exchange::ResponseHead;
use crate::reply::Kind;
use bytes::Bytes;
use http::Method;
use http::header::CONTENT_LENGTH;
use std::ops::Range;

/// How many pieces go to the client at once.
const PIECES: usize = 16;

/// What the client is told of a stored answer.
pub(super) struct Told {
    /// How old it is, in milliseconds.
    pub(super) age: u64,
    /// What the cache did.
    pub(super) status: CacheStatus<'static>,
    /// The head as the upstream has just sent it: who has caused the answer gets also what others must not.
    pub(super) original: Option<Box<ResponseHead>>,
    /// The body from its beginning, where it may be gone later.
    pub(super) reader: Option<Reader>,
}

impl Told {
    /// What is told of an answer whose head is the stored one; `now` is in milliseconds since 1970.
    pub(super) fn new(stored: &Stored<Body>, now: u64, status: CacheStatus<'static>) -> Told {
        Told { age: current_age(&stored.facts, now), status, original: None, reader: None }
    }

    /// The same with the time for which it is fresh.
    pub(super) fn with_ttl(stored: &Stored<Body>, now: u64, status: CacheStatus<'static>) -> Told {
        let ttl = Some(ttl(&stored.facts, now));
        Told::new(stored, now, CacheStatus { ttl, ..status })
    }
}

/// What goes to the client, piece by piece.
struct Outlet<'a, 'c> {
    ctx: &'a mut Context,
    client: &'a mut Client<'c>,
    /// Pieces that were added and not sent.
    added: usize,
    /// The last piece so far: only with the next one is it known whether anything follows.
    last: Option<Bytes>,
}

impl Context {
    /// Answers with what is stored: all of it or what the client wants of it.
    ///
    /// # Errors
    /// As from the engine; one of the body that is still coming carries a refusal.
    pub(super) async fn give(
        &mut self,
        client: &mut Client<'_>,
        stored: &Stored<Body>,
        told: Told,
    ) -> pingora::Result<()> {
        let whole = told.reader.or_else(|| stored.body.reader(0, u64::MAX));
        let whole = whole.ok_or_else(|| self.refuse(Kind::UPSTREAM_CLOSED))?;
        let request = client.request();
        // Parts are taken only of what is there as a whole.
        let given = answer_to(request, stored, stored.body.complete_len());
        let length = stored.body.complete_len().or_else(|| declared(&stored.head));
        let mut head = match (told.original, &given) {
            (Some(original), Given::Whole) => *original,
            _ => given.head(stored, told.age, length),
        };
        let ends = request.method == Method::HEAD || !has_body(&given, &head) || length == Some(0);
        told.status.append(&mut head.headers);
        self.send_head(client, &mut head, ends);
        client.answer(head, ends);
        let mut outlet = Outlet { ctx: self, client, added: 0, last: None };
        if !ends {
            outlet.body(&given, &stored.body, whole).await?;
        }
        outlet.end(ends).await
    }
}

impl Outlet<'_, '_> {
    async fn body(&mut self, given: &Given, body: &Body, whole: Reader) -> pingora::Result<()> {
        match given {
            Given::Part { part, .. } => self.range(body, part.clone()).await,
            Given::Parts(parts) => {
                for piece in parts.pieces() {
                    match piece {
                        Piece::Text(text) => self.push(text.clone()).await?,
                        Piece::Body(part) => self.range(body, part).await?,
                    }
                }
                Ok(())
            }
            _ => self.read(whole).await,
        }
    }

    async fn range(&mut self, body: &Body, part: Range<u64>) -> pingora::Result<()> {
        let reader = body.reader(part.start, part.end);
        match reader {
            Some(reader) => self.read(reader).await,
            None => Err(self.ctx.refuse(Kind::UPSTREAM_CLOSED)),
        }
    }

    async fn read(&mut self, mut reader: Reader) -> pingora::Result<()> {
        loop {
            let next = match reader.take() {
                Taken::Bytes(bytes) => Some(Ok(bytes)),
                Taken::End => None,
                Taken::NotYet => {
                    self.flush().await?;
                    self.wait(&mut reader).await?
                }
                Taken::Broken(broken) => Some(Err(broken)),
            };
            match next {
                Some(Ok(bytes)) => self.push(bytes).await?,
                Some(Err(_)) => return Err(self.ctx.refuse(Kind::UPSTREAM_CLOSED)),
                None => return Ok(()),
            }
        }
    }

    /// Waits for more of the body, and for the client to leave.
    async fn wait(&mut self, reader: &mut Reader) -> pingora::Result<Option<Result<Bytes, Broken>>> {
        loop {
            tokio::select! {
                biased;
                next = reader.next() => return Ok(next),
                // What it sends meanwhile is its next request.
                client = self.client.read(false) => {
                    client.map_err(|error| error.into_down())?;
                }
            }
        }
    }

    async fn push(&mut self, bytes: Bytes) -> pingora::Result<()> {
        if let Some(before) = self.last.replace(bytes) {
            self.add(before, false)?;
        }
        if self.added >= PIECES {
            return self.send().await;
        }
        Ok(())
    }

    fn add(&mut self, bytes: Bytes, ends: bool) -> pingora::Result<()> {
        let bytes = self.ctx.encode(bytes, ends).map_err(|kind| self.ctx.refuse(kind))?;
        if ends || !bytes.is_empty() {
            self.client.push(bytes, ends)?;
            self.added += 1;
        }
        Ok(())
    }

    /// Sends all there is, before what comes must be waited for.
    async fn flush(&mut self) -> pingora::Result<()> {
        if let Some(last) = self.last.take() {
            self.add(last, false)?;
        }
        let held_back = self.ctx.held_back().map_err(|kind| self.ctx.refuse(kind))?;
        if !held_back.is_empty() {
            self.client.push(held_back, false)?;
        }
        self.send().await
    }

    async fn send(&mut self) -> pingora::Result<()> {
        self.added = 0;
        self.client.send().await
    }

    async fn end(mut self, ended: bool) -> pingora::Result<()> {
        if !ended {
            let last = self.last.take().unwrap_or_default();
            self.add(last, true)?;
        }
        self.send().await
    }
}

fn has_body(given: &Given, head: &ResponseHead) -> bool {
    matches!(given, Given::Whole | Given::Part { .. } | Given::Parts(_))
        && !matches!(head.status.as_u16(), 204 | 304)
}

fn declared(head: &ResponseHead) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
