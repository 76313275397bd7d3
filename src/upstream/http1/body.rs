//! Bodies on the wire (RFC 9112 sections 6 and 7).

use super::super::conversation::Fault;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Longest line before a chunk, extensions included.
const MAX_CHUNK_LINE: usize = 4096;

/// Most bytes of trailers.
const MAX_TRAILERS: usize = 16 << 10;

/// Takes a body out of what was read.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are to come.
    Length(u64),
    /// Chunks are to come.
    Chunked(Chunks),
    /// Everything up to the end of the connection.
    UntilClose,
    /// Nothing is to come, but there were trailers.
    Trailed(Box<HeaderMap>),
    /// Nothing is to come.
    Done,
}

/// Where in the chunks we are.
#[derive(Debug)]
pub(super) enum Chunks {
    /// Before a chunk's size.
    Size,
    /// Within a chunk; so many bytes are to come.
    Data(u64),
    /// Behind a chunk's data.
    DataEnd,
    /// Behind the last chunk; so many bytes of trailers were read, and these are the fields.
    Trailers(usize, Option<Box<HeaderMap>>),
}

impl Decoder {
    pub(super) fn chunked() -> Decoder {
        Decoder::Chunked(Chunks::Size)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Decoder::Done)
    }

    /// How much more is wanted at least, as far as is known.
    pub(super) fn wants(&self) -> u64 {
        match self {
            Decoder::Length(left) | Decoder::Chunked(Chunks::Data(left)) => *left,
            Decoder::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// The next piece; `None` when there is more to be read, or nothing to come.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        match self {
            Decoder::Length(left) => {
                let piece = take_some(input, left);
                if *left == 0 {
                    *self = Decoder::Done;
                }
                Ok(piece)
            }
            Decoder::UntilClose => {
                let mut all = u64::MAX;
                Ok(take_some(input, &mut all))
            }
            Decoder::Chunked(_) => self.take_chunked(input),
            Decoder::Trailed(_) | Decoder::Done => Ok(None),
        }
    }

    /// The trailers, when the body is behind and has some.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        match self {
            Decoder::Trailed(trailers) => {
                let trailers = std::mem::take(&mut **trailers);
                *self = Decoder::Done;
                Some(trailers)
            }
            _ => None,
        }
    }

    fn take_chunked(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        let mut piece = None;
        while let Decoder::Chunked(chunks) = self {
            let next = match chunks {
                Chunks::Data(_) if piece.is_some() => break,
                Chunks::Data(left) => {
                    piece = take_some(input, left);
                    if *left == 0 { Some(Chunks::DataEnd) } else { None }
                }
                Chunks::Size => take_line(input, MAX_CHUNK_LINE)?
                    .map(|line| chunk_size(&line))
                    .transpose()?
                    .map(|size| match size {
                        0 => Chunks::Trailers(0, None),
                        size => Chunks::Data(size),
                    }),
                Chunks::DataEnd => take_line(input, 0)?.map(|_| Chunks::Size),
                Chunks::Trailers(seen, fields) => {
                    match take_line(input, MAX_TRAILERS.saturating_sub(*seen))? {
                        Some(line) if line.is_empty() => {
                            *self = fields.take().map_or(Decoder::Done, Decoder::Trailed);
                            break;
                        }
                        Some(line) => {
                            let seen = *seen + line.len() + 2;
                            let mut fields = fields.take();
                            add_trailer(&mut fields, &line);
                            Some(Chunks::Trailers(seen, fields))
                        }
                        None => None,
                    }
                }
            };
            match next {
                Some(next) => *self = Decoder::Chunked(next),
                None => break,
            }
        }
        Ok(piece)
    }
}

/// Adds a line of trailers; what is no field is passed over, since nothing depends on it.
fn add_trailer(fields: &mut Option<Box<HeaderMap>>, line: &[u8]) {
    let Some((name, value)) =
        memchr::memchr(b':', line).and_then(|colon| Some((line.get(..colon)?, line.get(colon + 1..)?)))
    else {
        return;
    };
    let name = HeaderName::from_bytes(name).ok();
    let value = HeaderValue::from_bytes(value.trim_ascii()).ok();
    if let Some((name, value)) = name.zip(value) {
        fields.get_or_insert_default().append(name, value);
    }
}

/// As much as there is of what is left.
fn take_some(input: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= count as u64;
    (count > 0).then(|| input.split_to(count).freeze())
}

/// A line without its end, which is CRLF and nothing else; `None` when its end has not come.
fn take_line(input: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, Fault> {
    let malformed = Fault::Invalid("a chunk of the answer is malformed");
    let Some(end) = memchr::memchr(b'\n', input) else {
        // One more for the CR.
        return if input.len() > max + 1 { Err(malformed) } else { Ok(None) };
    };
    let mut line = input.split_to(end + 1);
    match line.get(..end) {
        Some([begin @ .., b'\r']) if begin.len() <= max && !begin.contains(&b'\r') && !begin.contains(&0) => {
            line.truncate(begin.len());
            Ok(Some(line))
        }
        _ => Err(malformed),
    }
}

/// The size before a chunk; extensions are passed over (RFC 9112 section 7.1).
fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at_checked(digits).unwrap_or((line, &[]));
    let extended = rest.trim_ascii_start().first();
    if digits.is_empty() || digits.len() > 16 || !(rest.is_empty() || extended == Some(&b';')) {
        return Err(Fault::Invalid("a chunk of the answer has no size"));
    }
    Ok(digits.iter().fold(0, |size, byte| size << 4 | u64::from(hex(*byte))))
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
