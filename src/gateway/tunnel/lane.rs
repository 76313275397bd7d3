//! One direction of a tunnel.

use super::frames::Frames;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once. No more than this is ever kept of what the other side does not take: its source is then not read.
const PIECE: usize = 16 << 10;

/// How many pieces go by before the other direction has its turn.
const TURN: usize = 8;

/// Carries bytes from one side to the other, and then that there are no more. Owns nothing while nothing is under way.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Bytes to be written, from `sent` on.
    kept: Vec<u8>,
    sent: usize,
    flushing: bool,
    stage: Stage,
    /// Bytes written.
    carried: u64,
    /// Whether anything has moved since this was looked at.
    moved: bool,
    /// Whether a side has failed.
    failed: Option<Failed>,
    /// The frames of what was read, where they are followed.
    pub(super) frames: Option<Frames>,
}

/// How far a direction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// There may be more to read.
    #[default]
    Open,
    /// There is no more, which is to be passed on.
    Ended,
    /// Nothing is left to do.
    Over,
}

/// Which side of a direction has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// Where bytes come from.
    Source,
    /// Where they go.
    Sink,
}

impl Lane {
    /// A direction that begins with bytes which were read before.
    pub(super) fn new(begin: Vec<u8>, frames: Option<Frames>) -> Lane {
        Lane { kept: begin, frames, ..Lane::default() }
    }

    /// Bytes written so far.
    pub(super) fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether anything has moved since this was asked last.
    pub(super) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Which side has failed, if one has.
    pub(super) fn failed(&self) -> Option<Failed> {
        self.failed
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether there is more to be read, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Gives up.
    pub(super) fn abandon(&mut self) {
        (self.kept, self.sent) = (Vec::new(), 0);
        self.stage = Stage::Over;
    }

    /// What is still to be written, to be written by somebody else.
    pub(super) fn take_kept(&mut self) -> Vec<u8> {
        let unsent = std::mem::take(&mut self.kept).split_off(self.sent);
        self.sent = 0;
        unsent
    }

    /// Goes on. Ready when nothing is left to do.
    pub(super) fn poll<R, W>(&mut self, cx: &mut Context<'_>, source: &mut R, sink: &mut W) -> Poll<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..TURN {
            if !self.is_over() {
                ready!(self.poll_write(cx, sink));
            }
            match self.stage {
                Stage::Open => ready!(self.poll_read(cx, source, sink)),
                Stage::Ended => {
                    // A sink that cannot be told has gone.
                    let _ = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                    self.stage = Stage::Over;
                }
                Stage::Over => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was kept. Ready when nothing is left of it, whatever became of it.
    fn poll_write<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, sink: &mut W) -> Poll<()> {
        while let Some(unsent @ [_, ..]) = self.kept.get(self.sent..) {
            match ready!(Pin::new(&mut *sink).poll_write(cx, unsent)) {
                Ok(written @ 1..) => {
                    self.sent += written;
                    self.wrote(written);
                }
                _ => {
                    self.fail(Failed::Sink);
                    return Poll::Ready(());
                }
            }
        }
        (self.kept, self.sent) = (Vec::new(), 0);
        if self.flushing {
            let flushed = ready!(Pin::new(sink).poll_flush(cx));
            self.flushing = false;
            if flushed.is_err() {
                self.fail(Failed::Sink);
            }
        }
        Poll::Ready(())
    }

    /// Reads a piece and writes what the sink takes of it at once.
    fn poll_read<R, W>(&mut self, cx: &mut Context<'_>, source: &mut R, sink: &mut W) -> Poll<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut space = [const { MaybeUninit::uninit() }; PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        // Many targets over TLS end without a word; a WebSocket tells its end itself.
        let read = match ready!(Pin::new(source).poll_read(cx, &mut piece)) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
            read => read,
        };
        let piece = piece.filled();
        if read.is_err() || piece.is_empty() {
            self.stage = Stage::Ended;
            self.failed = self.failed.or(read.err().map(|_| Failed::Source));
            return Poll::Ready(());
        }
        self.moved = true;
        if let Some(frames) = &mut self.frames {
            frames.follow(piece);
        }
        let written = match Pin::new(sink).poll_write(cx, piece) {
            Poll::Ready(Ok(written @ 1..)) => written,
            Poll::Ready(_) => {
                self.fail(Failed::Sink);
                return Poll::Ready(());
            }
            Poll::Pending => 0,
        };
        self.wrote(written);
        self.kept.extend_from_slice(piece.get(written..).unwrap_or_default());
        Poll::Ready(())
    }

    fn wrote(&mut self, count: usize) {
        self.carried += count as u64;
        self.moved = true;
        self.flushing = true;
    }

    fn fail(&mut self, side: Failed) {
        self.abandon();
        self.failed = self.failed.or(Some(side));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const ALL: usize = 200_000;

    #[tokio::test]
    async fn no_more_than_a_piece_is_kept_and_nothing_is_lost() {
        let (mut speaker, mut source) = duplex(ALL);
        let (mut sink, mut hearer) = duplex(64);
        let said: Vec<u8> = (0..ALL).map(|at| (at * 31 % 251) as u8).collect();
        speaker.write_all(&said).await.unwrap();
        drop(speaker);
        let mut lane = Lane::new(b"begin".to_vec(), None);
        let stuck = poll_fn(|cx| Poll::Ready(lane.poll(cx, &mut source, &mut sink))).await;
        assert!(stuck.is_pending() && (1..=PIECE).contains(&lane.kept.len()));
        let mut heard = Vec::new();
        let (_, read) =
            tokio::join!(poll_fn(|cx| lane.poll(cx, &mut source, &mut sink)), hearer.read_to_end(&mut heard));
        assert_eq!(read.unwrap(), ALL + 5);
        assert!(heard == [&b"begin"[..], &said].concat());
        assert_eq!((lane.carried(), lane.failed(), lane.kept.capacity()), (ALL as u64 + 5, None, 0));
    }

    #[tokio::test]
    async fn a_sink_that_has_gone_ends_a_direction() {
        let (mut speaker, mut source) = duplex(64);
        let (mut sink, hearer) = duplex(64);
        drop(hearer);
        speaker.write_all(b"anybody there?").await.unwrap();
        let mut lane = Lane::default();
        poll_fn(|cx| lane.poll(cx, &mut source, &mut sink)).await;
        assert_eq!((lane.failed(), lane.is_over(), lane.is_open()), (Some(Failed::Sink), true, false));
    }
}
