//! What has been sent of a request's body, kept so that it can be sent again.
//!
//! Pieces are shared with what sends them, so that keeping one copies nothing. The engine could keep them too, but copies each,
//! and no more than 64 KiB in all.

use crate::actions::Resort;
use crate::route::Route;
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// The body of a request as far as it has been read.
#[derive(Default)]
pub(super) struct Replay {
    pieces: SmallVec<[Bytes; 1]>,
    size: u64,
    most: u64,
    lost: bool,
}

impl Replay {
    /// Keeps this many bytes from now on.
    pub(super) fn keep_at_most(&mut self, most: u64) {
        self.most = most;
    }

    /// Keeps a piece, unless there is too much.
    pub(super) fn keep(&mut self, piece: &Bytes) {
        if self.lost || piece.is_empty() {
            return;
        }
        self.size += piece.len() as u64;
        match self.size > self.most {
            true => self.lose(),
            false => self.pieces.push(piece.clone()),
        }
    }

    /// Whether the body can be sent again from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        !self.lost
    }

    /// Takes out what was read, to be sent again and kept again; `None` when nothing was.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let pieces = std::mem::take(&mut self.pieces);
        self.size = 0;
        match pieces.as_slice() {
            [] => None,
            [only] => Some(only.clone()),
            pieces => {
                let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
                pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
                Some(whole.freeze())
            }
        }
    }

    /// Nobody will ask for it any more.
    pub(super) fn forget(&mut self) {
        self.most = 0;
        if self.size > 0 {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.pieces = SmallVec::new();
        self.lost = true;
    }
}

/// Most bytes of a body that somebody may want to send again.
pub(super) fn most_kept(route: &Route) -> u64 {
    let is_upstream = |resort: &Resort| matches!(resort, Resort::Upstream(_));
    let resorts = route.fallback.as_ref().is_some_and(|fallback| fallback.resorts.iter().any(is_upstream));
    if route.retry.attempts > 1 || resorts { route.retry.body } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_back_as_it_was_sent_and_more_than_once() {
        let mut replay = Replay::default();
        replay.keep_at_most(10);
        for piece in ["he", "", "ll", "o"] {
            replay.keep(&Bytes::from(piece));
        }
        let whole = replay.take().unwrap();
        assert_eq!((whole.as_ref(), replay.take()), (&b"hello"[..], None));
        replay.keep(&whole);
        replay.keep(&Bytes::from("world"));
        assert!(replay.is_whole());
        assert_eq!(replay.take().unwrap(), "helloworld");
    }

    #[test]
    fn what_is_too_much_is_lost() {
        let mut replay = Replay::default();
        replay.keep_at_most(4);
        replay.keep(&Bytes::from("1234"));
        assert!(replay.is_whole());
        replay.keep(&Bytes::from("5"));
        assert!(!replay.is_whole() && replay.take().is_none());
        replay.keep(&Bytes::from("6"));
        assert!(!replay.is_whole() && replay.take().is_none(), "a part is worse than nothing");
    }

    #[test]
    fn what_nobody_asks_for_is_not_kept() {
        let mut none = Replay::default();
        none.keep_at_most(10);
        none.forget();
        assert!(none.is_whole(), "there was nothing to lose");
        none.keep(&Bytes::from("x"));
        assert!(!none.is_whole());
    }
}
