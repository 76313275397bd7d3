//! A body that may still be coming: one writes it, any number read it, each at its own pace and none waiting for another.
//!
//! While all of it is kept, a reader may begin at any time. When it outgrows what may be kept it only passes through: what
//! every reader has had is let go, whoever is too far behind is cut off, and nobody can begin any more.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// What comes in smaller pieces is copied together into such of this size, so that a stored body holds no more memory than
/// it has bytes: a piece as received may hold on to a whole buffer.
const PIECE: usize = 64 * 1024;
/// Pieces that may wait to be copied together.
const LOOSE: usize = 32;
/// How far a reader may fall behind in a body that only passes through, in bytes, beyond where it was before that.
pub const BEHIND: u64 = 4 << 20;
/// How much is fetched ahead of the fastest reader of such a body, in bytes: what one slow client may hold.
const AHEAD: u64 = 128 << 10;

/// Why a body ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It does not come any further.
    Cut,
    /// It is not kept, and this reader was too slow for it.
    Behind,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Broken::Cut => "the body was cut off",
            Broken::Behind => "the reader was too far behind",
        })
    }
}

/// What bodies that are still coming may hold together, in bytes. What does not fit is not kept.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    most: AtomicUsize,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(most: usize) -> Budget {
        Budget { held: AtomicUsize::new(0), most: AtomicUsize::new(most) }
    }

    /// Changes how many.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many bytes may be held.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed);
        let fits = held.saturating_add(bytes) <= self.most.load(Ordering::Relaxed);
        if !fits {
            self.give(bytes);
        }
        fits
    }

    fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A body. Clones are the same body.
#[derive(Clone)]
pub struct Body(Arc<Shared>);

struct Shared {
    /// Set once all of it is there; from then on nobody takes a lock.
    whole: OnceLock<Whole>,
    coming: Mutex<Coming>,
    /// How long it will be, where that is certain.
    expected: Option<u64>,
    /// Told when there is more, or no more.
    grown: Notify,
    /// Told when a reader has read of what only passes through.
    read: Notify,
}

struct Whole {
    pieces: Box<[Piece]>,
    len: u64,
}

/// Some bytes, and where they stand in the body.
struct Piece {
    at: u64,
    bytes: Bytes,
}

#[derive(Default)]
struct Coming {
    pieces: VecDeque<Piece>,
    /// How many of the last pieces are as they were received, and their bytes.
    loose: (usize, usize),
    /// Bytes received.
    len: u64,
    /// How far a reader may be behind, once it is not kept.
    behind: Option<u64>,
    ended: Option<Result<(), Broken>>,
    readers: Vec<Place>,
}

/// Where a reader is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Free,
    At(u64),
    Behind,
}

/// What a reader gets without waiting.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The next bytes; never none.
    Bytes(Bytes),
    /// There is more, but not yet.
    NotYet,
    /// That was all.
    End,
    /// There will be no more, though there should be.
    Broken(Broken),
}

impl Body {
    /// A body that comes through the [`Filler`]. When it has more than `most` bytes, or `budget` has no more, it is not kept.
    pub fn coming(most: u64, budget: Arc<Budget>) -> (Body, Filler) {
        Body::expected(None, most, budget)
    }

    /// The same, of a length that is certain.
    pub(super) fn expected(len: Option<u64>, most: u64, budget: Arc<Budget>) -> (Body, Filler) {
        let body = Body::new(OnceLock::new(), len);
        let filler = Filler { body: body.clone(), most, budget, charged: 0, ended: false };
        (body, filler)
    }

    /// A body that is there.
    pub fn whole(bytes: Bytes) -> Body {
        let len = bytes.len() as u64;
        let pieces = if len == 0 { Box::default() } else { Box::from([Piece { at: 0, bytes }]) };
        Body::new(OnceLock::from(Whole { pieces, len }), None)
    }

    fn new(whole: OnceLock<Whole>, expected: Option<u64>) -> Body {
        let (grown, read) = (Notify::new(), Notify::new());
        Body(Arc::new(Shared { whole, coming: Mutex::default(), expected, grown, read }))
    }

    /// Its length, when any part of it can be had: all of it is there and kept, or comes from a disk of ours.
    pub fn complete_len(&self) -> Option<u64> {
        self.whole_len().or(self.0.expected)
    }

    /// Its length, when all of it is there and kept.
    pub fn whole_len(&self) -> Option<u64> {
        self.0.whole.get().map(|whole| whole.len)
    }

    /// Whether it ended before its end.
    pub fn is_broken(&self) -> bool {
        matches!(self.0.coming.lock().ended, Some(Err(_)))
    }

    /// Reads `from..to`, or to the end when that comes first. `None` when the beginning is not to be had any more.
    pub fn reader(&self, from: u64, to: u64) -> Option<Reader> {
        let mut reader = Reader { body: self.clone(), at: from, end: to, slot: None };
        if self.0.whole.get().is_none() {
            let mut coming = self.0.coming.lock();
            // It may have become whole meanwhile.
            if self.0.whole.get().is_none() {
                reader.slot = Some(coming.enter(from)?);
            }
        }
        Some(reader)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.whole_len() {
            Some(len) => write!(f, "Body({len} bytes)"),
            None => f.write_str("Body(coming)"),
        }
    }
}

/// The bytes from `at` on up to `end`, as far as one piece has them.
fn cut<'a>(last: Option<&'a Piece>, at: u64, end: u64) -> Option<Bytes> {
    let piece: &'a Piece = last?;
    let from = usize::try_from(at.checked_sub(piece.at)?).ok()?;
    let to = piece.bytes.len().min(usize::try_from(end - piece.at).unwrap_or(usize::MAX));
    (from < to).then(|| piece.bytes.slice(from..to))
}

impl Whole {
    fn take(&self, at: u64, end: u64) -> Taken {
        let behind = self.pieces.partition_point(|piece| piece.at <= at);
        let found = cut(self.pieces.get(behind.wrapping_sub(1)), at, end.min(self.len));
        found.map_or(Taken::End, Taken::Bytes)
    }
}

impl Coming {
    /// A place for a reader that begins there.
    fn enter(&mut self, from: u64) -> Option<usize> {
        let first = self.pieces.front().map_or(self.len, |piece| piece.at);
        if self.is_passing() && from < first || matches!(self.ended, Some(Err(_))) {
            return None;
        }
        let free = self.readers.iter().position(|place| *place == Place::Free);
        let slot = free.unwrap_or_else(|| {
            self.readers.push(Place::Free);
            self.readers.len() - 1
        });
        self.set(slot, Place::At(from));
        Some(slot)
    }

    fn set(&mut self, slot: usize, place: Place) {
        if let Some(at) = self.readers.get_mut(slot) {
            *at = place;
        }
    }

    fn take(&mut self, slot: Option<usize>, at: u64, end: u64) -> Taken {
        if slot.and_then(|slot| self.readers.get(slot)) == Some(&Place::Behind) {
            return Taken::Broken(Broken::Behind);
        }
        let behind = self.pieces.partition_point(|piece| piece.at <= at);
        match (cut(self.pieces.get(behind.wrapping_sub(1)), at, end), self.ended) {
            (Some(bytes), _) => {
                if let Some(slot) = slot {
                    self.set(slot, Place::At(at + bytes.len() as u64));
                }
                if self.is_passing() {
                    self.let_go();
                }
                Taken::Bytes(bytes)
            }
            (None, None) => Taken::NotYet,
            (None, Some(Ok(()))) => Taken::End,
            (None, Some(Err(broken))) => Taken::Broken(broken),
        }
    }

    fn push(&mut self, bytes: Bytes) {
        let len = bytes.len();
        if len >= PIECE && !self.is_passing() {
            self.join();
        }
        self.pieces.push_back(Piece { at: self.len, bytes });
        self.len += len as u64;
        if self.is_passing() {
            self.cut_off_slow();
            self.let_go();
        } else if len < PIECE {
            self.loose = (self.loose.0 + 1, self.loose.1 + len);
            if self.loose.1 >= PIECE {
                self.join();
            } else if self.loose.0 >= LOOSE {
                let bytes = self.loose.1;
                self.join();
                self.loose = (1, bytes);
            }
        }
    }

    /// Copies what is loose into one piece of exactly its size.
    fn join(&mut self) {
        let (count, len) = std::mem::take(&mut self.loose);
        let first = self.pieces.len().saturating_sub(count);
        let mut bytes = Vec::with_capacity(len);
        self.pieces.range(first..).for_each(|piece| bytes.extend_from_slice(&piece.bytes));
        self.pieces.truncate(first);
        if len > 0 {
            self.pieces.push_back(Piece { at: self.len - len as u64, bytes: Bytes::from(bytes) });
        }
    }

    /// Lets go of what all readers have had.
    fn let_go(&mut self) {
        let least = self.slowest();
        while self.pieces.front().is_some_and(|piece| piece.at + piece.bytes.len() as u64 <= least) {
            self.pieces.pop_front();
        }
    }

    fn is_passing(&self) -> bool {
        self.behind.is_some()
    }

    /// It is not kept from now on. Who is far behind has done nothing wrong: the body came faster than anybody had to read.
    fn pass(&mut self) {
        self.behind = Some(BEHIND.saturating_add(self.len.saturating_sub(self.slowest())));
    }

    /// Where the slowest reader is.
    fn slowest(&self) -> u64 {
        let at = |place: &Place| if let Place::At(at) = place { Some(*at) } else { None };
        self.readers.iter().filter_map(at).min().unwrap_or(self.len)
    }

    fn cut_off_slow(&mut self) {
        let (len, behind) = (self.len, self.behind.unwrap_or(u64::MAX));
        let slow = |place: &&mut Place| matches!(place, Place::At(at) if len.saturating_sub(*at) > behind);
        self.readers.iter_mut().filter(slow).for_each(|place| *place = Place::Behind);
    }

    /// How much the fastest reader has not read yet; `None` without a reader.
    fn least_unread(&self) -> Option<u64> {
        let unread = |place: &Place| match place {
            Place::At(at) => Some(self.len.saturating_sub(*at)),
            Place::Free | Place::Behind => None,
        };
        self.readers.iter().filter_map(unread).min()
    }
}

/// Writes a body. Dropped before [`Filler::finish`], the body is broken.
#[derive(Debug)]
pub struct Filler {
    body: Body,
    most: u64,
    budget: Arc<Budget>,
    charged: usize,
    ended: bool,
}

impl Filler {
    /// Appends some bytes.
    pub fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let mut coming = self.body.0.coming.lock();
        if !coming.is_passing() {
            let fits = coming.len + bytes.len() as u64 <= self.most && self.budget.take(bytes.len());
            if fits {
                self.charged += bytes.len();
            } else {
                // What came before is charged until the end: readers may still hold it.
                coming.pass();
            }
        }
        coming.push(bytes);
        drop(coming);
        self.body.0.grown.notify_waiters();
    }

    /// Whether all of it is kept so far.
    pub fn is_kept(&self) -> bool {
        !self.body.0.coming.lock().is_passing()
    }

    /// Waits until somebody wants more: at once while the body is kept, else when the fastest reader has had most of what
    /// there is. `false` when it is not kept and nobody reads it, so that the rest may be spared.
    pub async fn room(&self) -> bool {
        loop {
            let read = self.body.0.read.notified();
            {
                let coming = self.body.0.coming.lock();
                match coming.least_unread() {
                    _ if !coming.is_passing() => return true,
                    Some(unread) if unread <= AHEAD => return true,
                    Some(_) => {}
                    None => return false,
                }
            }
            read.await;
        }
    }

    /// Ends the body: that was all of it, unless it is not `whole`. Gives whether it is there and kept.
    pub fn finish(mut self, whole: bool) -> bool {
        self.end(if whole { Ok(()) } else { Err(Broken::Cut) })
    }

    fn end(&mut self, ended: Result<(), Broken>) -> bool {
        self.ended = true;
        self.budget.give(std::mem::take(&mut self.charged));
        let shared = &self.body.0;
        let mut coming = shared.coming.lock();
        coming.ended = Some(ended);
        let kept = ended.is_ok() && !coming.is_passing();
        if kept {
            coming.join();
            let pieces = std::mem::take(&mut coming.pieces).into_iter().collect();
            // Only this sets it, and only once.
            let _ = shared.whole.set(Whole { pieces, len: coming.len });
            coming.readers = Vec::new();
        }
        drop(coming);
        shared.grown.notify_waiters();
        kept
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err(Broken::Cut));
        }
    }
}

/// Reads a part of a body.
pub struct Reader {
    body: Body,
    at: u64,
    end: u64,
    slot: Option<usize>,
}

impl Reader {
    /// The next bytes, if they are there: without copying them, and without a lock once the body is whole.
    pub fn take(&mut self) -> Taken {
        let Reader { body: Body(shared), at, end, slot } = self;
        if at >= end {
            return Taken::End;
        }
        let taken = match shared.whole.get() {
            Some(whole) => whole.take(*at, *end),
            None => {
                let mut coming = shared.coming.lock();
                match shared.whole.get() {
                    Some(whole) => whole.take(*at, *end),
                    None => coming.take(*slot, *at, *end),
                }
            }
        };
        if let Taken::Bytes(bytes) = &taken {
            *at += bytes.len() as u64;
            if slot.is_some() {
                shared.read.notify_one();
            }
        }
        taken
    }

    /// The next bytes, as soon as they are there; nothing after the last. Nothing is lost when it is not waited for to the
    /// end.
    ///
    /// # Errors
    /// There will be no more, though there should be.
    pub async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        let mut taken = self.take();
        while taken == Taken::NotYet {
            let body = self.body.clone();
            // Before looking again, so that nothing that comes between is missed.
            let grown = body.0.grown.notified();
            taken = self.take();
            if taken == Taken::NotYet {
                grown.await;
            }
        }
        match taken {
            Taken::Bytes(bytes) => Some(Ok(bytes)),
            Taken::Broken(broken) => Some(Err(broken)),
            Taken::End | Taken::NotYet => None,
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({:?} from {} to {})", self.body, self.at, self.end)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (Some(slot), None) = (self.slot, self.body.0.whole.get()) else { return };
        let mut coming = self.body.0.coming.lock();
        coming.set(slot, Place::Free);
        if coming.is_passing() {
            coming.let_go();
        }
        drop(coming);
        self.body.0.read.notify_one();
    }
}

#[cfg(test)]
mod tests;
