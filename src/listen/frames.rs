//! A look at the frames that an HTTP/2 client sends, for what the engine does not count: streams that are reset as fast as
//! they are opened (CVE-2023-44487), and frames that ask for nothing but cost something (CVE-2019-9512, 9513 and 9515).
//!
//! Only their heads are looked at (RFC 9113 section 4.1); whether they are right is not asked here. Header blocks and empty
//! DATA frames without end have limits in the `h2` crate.

use super::Limits;
use super::connection::H2_PREFACE;
use crate::value::Rate;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Length of the head of a frame.
const HEAD: usize = 9;

/// So many bytes sent to the client allow it one more frame: whoever takes much has much to say about its windows.
const BYTES_PER_FRAME: usize = 256;

/// How much of a client is read before others have their turn, and before what it asks is looked at.
const TURN: usize = 64 << 10;

/// A frame counts for so many bytes of that at least: a window that is opened wakes a request, however short the frame is.
const LEAST: usize = 1 << 10;

// Types of frames (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Streams that were reset.
    Resets,
    /// Frames that ask for nothing.
    Frames,
}

impl Excess {
    /// The limit that was broken, as it is called in a configuration.
    pub fn limit(self) -> &'static str {
        match self {
            Excess::Resets => "h2_resets",
            Excess::Frames => "h2_frames",
        }
    }
}

/// Between whoever serves a connection and what is read on it.
#[derive(Debug, Default)]
pub struct Watch {
    excess: AtomicU8,
    held: AtomicBool,
}

impl Watch {
    /// What the client has sent too much of. Changes only while something is read.
    pub fn excess(&self) -> Option<Excess> {
        match self.excess.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Excess::Resets),
            _ => Some(Excess::Frames),
        }
    }

    /// Has nothing read until what was read is dealt with.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    /// Lets reading go on; whether it was held.
    pub fn release(&self) -> bool {
        self.held.swap(false, Ordering::Relaxed)
    }

    fn raise(&self, excess: Excess) {
        self.excess.store(excess as u8 + 1, Ordering::Relaxed);
    }
}

/// Follows the frames of a client, from the preface on.
#[derive(Debug)]
pub(super) struct Frames {
    /// What there is of the next head.
    head: [u8; HEAD],
    known: usize,
    /// Bytes before the next head.
    skip: usize,
    /// What is allowed, unless everything is.
    allowed: Option<Allowed>,
    /// Bytes that were read in this turn.
    turn: usize,
    watch: Arc<Watch>,
}

/// What a client may still send.
#[derive(Debug)]
struct Allowed {
    resets: Allowance,
    idle: Allowance,
    /// Bytes sent that have not allowed a frame yet.
    sent: usize,
}

impl Frames {
    /// Those of a client that has these limits, or none.
    pub(super) fn new(limits: Option<&Limits>) -> Frames {
        let allowed = |limits: &Limits| Allowed {
            resets: Allowance::new(limits.h2_resets),
            idle: Allowance::new(limits.h2_frames),
            sent: 0,
        };
        Frames {
            head: [0; HEAD],
            known: 0,
            skip: H2_PREFACE.len(),
            allowed: limits.map(allowed),
            turn: 0,
            watch: Arc::default(),
        }
    }

    pub(super) fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    /// Whether nothing is to be read for now.
    pub(super) fn is_held(&self) -> bool {
        self.watch.held.load(Ordering::Relaxed) || self.watch.excess().is_some()
    }

    /// Looks at what was read; `false` when the client has gone too far.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> bool {
        self.turn += bytes.len();
        let within = self.follow(bytes);
        if self.turn >= TURN {
            self.turn = 0;
            self.watch.hold();
        }
        within
    }

    /// Whether what comes next is the inside of a long frame, so that much of it may be read at once.
    pub(super) fn is_in_long(&self) -> bool {
        self.skip >= LEAST
    }

    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let missing = self.head.get_mut(self.known..).unwrap_or_default();
            let Some((begin, rest)) = bytes.split_at_checked(missing.len()) else {
                missing.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                self.known += bytes.len();
                return true;
            };
            missing.copy_from_slice(begin);
            (self.known, bytes) = (0, rest);
            self.turn += LEAST;
            if let Err(excess) = self.count() {
                self.watch.raise(excess);
                return false;
            }
        }
    }

    /// Takes the head that is whole.
    fn count(&mut self) -> Result<(), Excess> {
        let [high, middle, low, kind, ..] = self.head;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let Some(allowed) = &mut self.allowed else { return Ok(()) };
        match kind {
            DATA | HEADERS => Ok(()),
            RST_STREAM => allowed.resets.take().ok_or(Excess::Resets),
            _ => allowed.idle.take().ok_or(Excess::Frames),
        }
    }

    /// Notes that something was sent.
    pub(super) fn sent(&mut self, length: usize) {
        let Some(allowed) = &mut self.allowed else { return };
        allowed.sent += length;
        if allowed.sent >= BYTES_PER_FRAME {
            allowed.idle.give(u32::try_from(allowed.sent / BYTES_PER_FRAME).unwrap_or(u32::MAX));
            allowed.sent %= BYTES_PER_FRAME;
        }
    }
}

/// So many at once, and in the time as many again.
#[derive(Debug)]
struct Allowance {
    rate: Rate,
    left: u32,
    /// When there was last a look at the clock: at the beginning, and then when nothing was left.
    since: Instant,
}

impl Allowance {
    fn new(rate: Rate) -> Allowance {
        Allowance { rate, left: rate.count, since: Instant::now() }
    }

    fn take(&mut self) -> Option<()> {
        if self.left == 0 {
            self.refill(self.since.elapsed());
        }
        self.left = self.left.checked_sub(1)?;
        Some(())
    }

    /// Gives what a time has brought, if that is anything.
    fn refill(&mut self, passed: Duration) {
        let earned = passed.as_nanos() * u128::from(self.rate.count) / self.rate.period.as_nanos().max(1);
        if earned > 0 {
            self.since += passed;
            self.give(u32::try_from(earned).unwrap_or(u32::MAX));
        }
    }

    fn give(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.rate.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    fn frames(resets: &str, idle: &str) -> Frames {
        let (h2_resets, h2_frames) = (resets.parse().unwrap(), idle.parse().unwrap());
        Frames::new(Some(&Limits { h2_resets, h2_frames, ..Limits::default() }))
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let said = [H2_PREFACE.to_vec(), frame(4, &[0; 12]), frame(HEADERS, &[7; 300]), frame(DATA, b"")]
            .into_iter()
            .chain((0..3).map(|_| frame(RST_STREAM, &[RST_STREAM; 4])))
            .collect::<Vec<_>>()
            .concat();
        for pieces in 1..said.len() {
            let mut frames = frames("2/d", "1/d");
            let passed = said.chunks(pieces).take_while(|piece| frames.pass(piece)).count();
            assert_eq!(passed, (said.len() - 5) / pieces, "in pieces of {pieces}");
            assert_eq!(frames.watch().excess(), Some(Excess::Resets));
        }
    }

    #[test]
    fn whoever_takes_much_may_say_much() {
        let ping = frame(6, &[0; 8]);
        let mut frames = frames("1/d", "2/d");
        assert!(frames.pass(H2_PREFACE) && frames.pass(&ping) && frames.pass(&ping));
        frames.sent(BYTES_PER_FRAME - 1);
        frames.sent(1);
        assert!(frames.pass(&ping) && !frames.is_held());
        assert!(!frames.pass(&ping) && frames.is_held());
        assert_eq!(frames.watch().excess(), Some(Excess::Frames));
        frames.sent(usize::MAX / 2);
        assert_eq!(frames.allowed.unwrap().idle.left, 2, "no more than at once");
    }

    #[test]
    fn nobody_has_more_than_a_turn() {
        let mut frames = Frames::new(None);
        let body = frame(DATA, &[0; 1 << 14]);
        assert!(frames.pass(H2_PREFACE) && !frames.is_held());
        assert_eq!((0..8).take_while(|_| frames.pass(&body) && !frames.is_held()).count(), 3);
        assert!(frames.watch().release() && !frames.is_held() && !frames.watch().release());
        let window = frame(8, &[0; 4]);
        assert_eq!((0..100).take_while(|_| frames.pass(&window) && !frames.is_held()).count(), 63);
        assert!(
            frames.pass(&frame(RST_STREAM, &[0; 4]).repeat(10_000)),
            "who is trusted may do what he likes"
        );
    }

    #[test]
    fn time_gives_back() {
        let mut allowance = Allowance::new("10/10s".parse().unwrap());
        assert_eq!((0..20).filter(|_| allowance.take().is_some()).count(), 10);
        allowance.refill(Duration::from_millis(900));
        assert_eq!(allowance.left, 0);
        allowance.refill(Duration::from_millis(2100));
        assert_eq!(allowance.left, 2);
        allowance.refill(Duration::from_secs(3600));
        assert_eq!(allowance.left, 10);
    }
}
