//! The body of a request, taken out of what was read (RFC 9112 section 6).

use crate::listen::chunks::Chunks;
use crate::listen::framing::Flaw;
use bytes::Bytes;

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
            Incoming::Chunked(chunks) => chunks.take(read),
            Incoming::Over => Ok(None),
        }
    }
}
