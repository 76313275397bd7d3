//! The body of a request, taken out of what was read (RFC 9112 section 6).

use crate::listen::chunks::Chunks;
use crate::listen::framing::Flaw;
use bytes::{Bytes, BytesMut};

/// Chunks that are shorter go on together with what was read behind them, up to as much.
const SMALL: usize = 512;

/// What is still to come.
#[derive(Debug)]
pub(super) enum Incoming {
    /// So many bytes.
    Length(u64),
    /// Chunks. Boxed, because few bodies are.
    Chunked(Box<Chunks>),
    /// Nothing.
    Over,
}

impl Incoming {
    pub(super) fn is_over(&self) -> bool {
        match self {
            Incoming::Length(_) => false,
            Incoming::Chunked(chunks) => chunks.is_over(),
            Incoming::Over => true,
        }
    }

    /// How much more is worth reading at once.
    pub(super) fn wants(&self) -> u64 {
        match self {
            Incoming::Length(left) => *left,
            // A body whose length nobody knows may be long.
            Incoming::Chunked(chunks) => chunks.left().max(8 << 10),
            Incoming::Over => 0,
        }
    }

    /// The next piece; `None` when there is more to be read, or nothing to come.
    pub(super) fn take(&mut self, read: &mut Bytes) -> Result<Option<Bytes>, Flaw> {
        match self {
            Incoming::Length(_) if read.is_empty() => Ok(None),
            Incoming::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= count as u64;
                if *left == 0 {
                    *self = Incoming::Over;
                }
                Ok(Some(read.split_to(count)))
            }
            Incoming::Chunked(chunks) => gather(chunks, read),
            Incoming::Over => Ok(None),
        }
    }
}

/// The next piece of a chunked body. Small ones go on together: each that does alone is a system call.
fn gather(chunks: &mut Chunks, read: &mut Bytes) -> Result<Option<Bytes>, Flaw> {
    let Some(first) = chunks.take(read)? else { return Ok(None) };
    if first.len() >= SMALL || read.is_empty() || chunks.is_over() {
        return Ok(Some(first));
    }
    let mut pieces = BytesMut::with_capacity(2 * SMALL);
    pieces.extend_from_slice(&first);
    while pieces.len() < SMALL
        && let Some(piece) = chunks.take(read)?
    {
        pieces.extend_from_slice(&piece);
    }
    Ok(Some(pieces.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_go_on_together() {
        let mut read = Bytes::from([b"1\r\nx\r\n".repeat(600), b"0\r\n\r\nGET".to_vec()].concat());
        let mut body = Incoming::Chunked(Box::default());
        let mut lengths = Vec::new();
        while let Ok(Some(piece)) = body.take(&mut read) {
            lengths.push(piece.len());
        }
        assert_eq!((lengths, body.is_over(), &*read), (vec![SMALL, 88], true, &b"GET"[..]));
    }
}
