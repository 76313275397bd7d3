//! What is to be sent to a client: small things in one buffer, large ones as they are, all in as few system calls as can be.

use crate::listen::connection::Connection;
use bytes::Bytes;
use smallvec::SmallVec;
use std::io::{self, ErrorKind, IoSlice};
use std::task::{Context, Poll, ready};

/// Pieces up to here are copied behind what is there: the head with a small body.
const COPIED: usize = 4096;

/// As much as this waits for what may come at once: the first of a long answer, read together with its head.
const GATHERED: usize = 16 << 10;

/// As much as the head and the body of most answers take.
const USUAL: usize = 2048;

/// How many slices go into one `writev(2)`.
const SLICES: usize = 16;

/// Bytes on their way.
#[derive(Debug, Default)]
pub(super) struct Output {
    text: Vec<u8>,
    /// Large pieces, and where in the text each belongs.
    large: SmallVec<[(usize, Bytes); 1]>,
    /// Bytes in all.
    length: usize,
    sent: usize,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.large.is_empty()
    }

    /// Whether there is so little that more of it might go out along with it.
    pub(super) fn is_small(&self) -> bool {
        self.large.len() < 2 && self.bytes() < GATHERED
    }

    /// Bytes in all.
    fn bytes(&self) -> usize {
        self.text.len() + self.large.iter().map(|(_, piece)| piece.len()).sum::<usize>()
    }

    /// Where text is added.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        if self.text.capacity() == 0 {
            self.text.reserve_exact(USUAL);
        }
        &mut self.text
    }

    pub(super) fn add(&mut self, piece: Bytes) {
        match piece.len() <= COPIED {
            true => self.text().extend_from_slice(&piece),
            false => self.large.push((self.text.len(), piece)),
        }
    }

    /// Sends everything.
    pub(super) fn poll(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.length = self.bytes();
        while self.sent < self.length {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.slices(&mut slices);
            match ready!(connection.poll_send(cx, slices.get(..count).unwrap_or(&slices)))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        ready!(connection.poll_sent(cx))?;
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// What was not sent; gives how many slices it is, or the first ones of it are.
    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let (mut skip, mut begin, mut count) = (self.sent, 0, 0);
        let mut put = |part: &'a [u8]| {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            if let (false, Some(slot)) = (rest.is_empty(), slices.get_mut(count)) {
                *slot = IoSlice::new(rest);
                count += 1;
            }
        };
        for (at, piece) in &self.large {
            put(self.text.get(begin..*at).unwrap_or_default());
            put(piece);
            begin = *at;
        }
        put(self.text.get(begin..).unwrap_or_default());
        count
    }

    /// Nothing is kept: a connection may be idle for long.
    pub(super) fn clear(&mut self) {
        *self = Output::default();
    }
}
