//! The body of an answer on its way into the cache, whoever reads it there.

use crate::cache::Fill;
use crate::upstream::{Conversation, Event, Part, Pool};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// An answer whose head is stored.
pub(super) struct Filling {
    pub(super) fill: Fill,
    pub(super) target: Conversation,
    pub(super) pool: Arc<Pool>,
    /// How long the target may be silent.
    pub(super) idle: Duration,
}

/// What has become of a body.
enum Course {
    More,
    Ended,
    Broken,
}

/// Brings the body into the cache: at once if it has come with its head, else by a task. `ends`: there is none.
pub(super) fn start(mut filling: Filling, ends: bool) {
    if ends {
        return filling.finish();
    }
    loop {
        match filling.target.buffered() {
            Ok(Some(part)) => match filling.take(part) {
                Course::More => {}
                Course::Ended => return filling.finish(),
                Course::Broken => return,
            },
            Ok(None) => break,
            Err(_) => return,
        }
    }
    tokio::spawn(filling.run());
}

impl Filling {
    /// What is dropped without its end is broken, and read so.
    async fn run(mut self) {
        loop {
            // What is not kept is only fetched as far as somebody reads it.
            if !self.fill.is_kept() && !self.fill.room().await {
                return;
            }
            let event = timeout(self.idle, poll_fn(|cx| self.target.poll(cx))).await;
            let course = match event {
                Ok(Ok(Event::Part(part))) => self.take(part),
                Ok(Ok(Event::Sent)) => Course::More,
                Ok(Ok(Event::Switched) | Err(_)) => Course::Broken,
                Err(_) => {
                    self.target.doubt();
                    Course::Broken
                }
            };
            match course {
                Course::More => {}
                Course::Ended => return self.finish(),
                Course::Broken => return,
            }
        }
    }

    fn take(&mut self, part: Part) -> Course {
        match part {
            Part::Body(piece, ends) => {
                self.fill.push(piece);
                if ends { Course::Ended } else { Course::More }
            }
            // They are not kept (RFC 9111 section 3.1 allows that).
            Part::Trailers(_) => Course::Ended,
            Part::Head(..) => Course::Broken,
        }
    }

    fn finish(self) {
        let Filling { fill, target, pool, .. } = self;
        fill.finish();
        pool.put(target);
    }
}
