//! The connections to one target, and which of them a request gets.

use super::conversation::Conversation;
use super::dial::{Dial, Spoken, Unreached, Versions};
use super::{http1, http2};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The connections to one target. They are its own: what it has proven counts for no other.
#[derive(Debug)]
pub struct Pool {
    dial: Dial,
    http1: Arc<http1::Pool>,
    http2: Arc<http2::Pool>,
    /// Whether a target that may choose has chosen HTTP/1.1: then nobody waits for a connection to share.
    chose_http1: AtomicBool,
}

impl Pool {
    /// A pool without connections, each of which may be idle for as long as `keep`. Nothing is connected to or started.
    pub(super) fn new(dial: Dial, keep: Duration) -> Arc<Pool> {
        Arc::new(Pool {
            http1: http1::Pool::new(keep),
            http2: http2::Pool::new(keep, dial.is_tls()),
            dial,
            chose_http1: AtomicBool::new(false),
        })
    }

    /// Whether HTTP/1.1 may be spoken to the target.
    pub fn has_http1(&self) -> bool {
        self.dial.versions != Versions::Http2
    }

    /// A place on a connection that was used before and is still open, as far as can be told without asking the other end.
    /// With `http1`, on one that speaks no other version.
    pub fn take(&self, http1: bool) -> Option<Conversation> {
        let versions = self.versions(http1);
        if versions != Versions::Http1
            && let Some(stream) = self.http2.take()
        {
            return Some(Conversation::Http2(stream));
        }
        if versions == Versions::Http2 {
            return None;
        }
        self.http1.take().map(Conversation::Http1)
    }

    /// A place on a new connection, or on one that somebody else has made meanwhile. Must be called on the runtime.
    ///
    /// # Errors
    /// See [`Unreached`]. There is no time limit.
    pub async fn connect(&self, http1: bool) -> Result<Conversation, Unreached> {
        let versions = self.versions(http1);
        let shared = self.awaits_shared(versions);
        let mut turn = None;
        if shared {
            turn = Some(self.http2.turn().await);
            if let Some(stream) = self.http2.take() {
                return Ok(Conversation::Http2(stream));
            }
            if !self.awaits_shared(versions) {
                turn = None;
            }
        }
        let (socket, spoken) = self.dial.connect(versions).await?;
        if versions == Versions::Either {
            self.chose_http1.store(spoken == Spoken::Http1, Ordering::Relaxed);
        }
        let conversation = match spoken {
            Spoken::Http1 => Conversation::Http1(http1::Connection::new(socket)),
            Spoken::Http2 => Conversation::Http2(http2::Pool::add(&self.http2, socket).await?),
        };
        drop(turn);
        Ok(conversation)
    }

    /// Takes a place back. Must be called on the runtime.
    pub fn put(&self, conversation: Conversation) {
        match conversation {
            Conversation::Http1(connection) => self.http1.put(connection),
            Conversation::Http2(stream) => {
                drop(stream);
                self.http2.retire();
            }
        }
    }

    /// Whether the next connection may be one that requests share: then one is made at a time.
    fn awaits_shared(&self, versions: Versions) -> bool {
        match versions {
            Versions::Http1 => false,
            Versions::Http2 => true,
            Versions::Either => !self.chose_http1.load(Ordering::Relaxed),
        }
    }

    fn versions(&self, http1: bool) -> Versions {
        if http1 { Versions::Http1 } else { self.dial.versions }
    }
}
