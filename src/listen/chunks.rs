//! Chunked request bodies (RFC 9112 section 7.1).
//!
//! Parsers take an empty line for the last chunk, and anything at all for an extension, line feeds included. Others read such
//! bodies differently, and then what is a request to one is a body to the other. Here every byte between the data of chunks
//! is checked by the grammar. What is forwarded is framed anew.

use super::framing::{Flaw, is_token, is_value};
use bytes::{Buf, Bytes};

/// Most digits of a size: sizes beyond an exabyte are nobody's.
const MAX_DIGITS: u8 = 15;

/// Most bytes of extensions in one body. Nobody uses them.
const MAX_EXTENSIONS: u16 = 4096;

/// Most bytes of trailers.
const MAX_TRAILERS: u16 = 8192;

/// How far into a chunked body its bytes have been looked at.
#[derive(Debug)]
pub struct Chunks {
    at: At,
    /// Data of the present chunk that is still to come.
    left: u64,
    extensions: u16,
    trailers: u16,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A digit of a size, of which there were so many.
    Size(u8),
    /// More of an extension.
    Extension,
    /// The line feed behind a size.
    SizeEnd,
    /// Data.
    Data,
    /// The carriage return behind data.
    DataCr,
    /// The line feed behind data.
    DataEnd,
    /// A trailer, or the end.
    Line,
    /// More of a trailer's name.
    Name,
    /// More of a trailer's value.
    Value,
    /// The line feed behind a trailer.
    ValueEnd,
    /// The line feed behind everything.
    LastEnd,
    /// Nothing that belongs to the body.
    Over,
}

impl Chunks {
    /// At the beginning of a body.
    pub fn new() -> Chunks {
        Chunks { at: At::Size(0), left: 0, extensions: 0, trailers: 0 }
    }

    /// Looks at what comes next; gives whether the body ends in it. What is behind its end is not looked at.
    ///
    /// # Errors
    /// It is no chunked body.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<bool, Flaw> {
        while self.at != At::Over {
            if self.at == At::Data {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= count as u64;
                bytes = bytes.get(count..).unwrap_or_default();
                if self.left > 0 {
                    return Ok(false);
                }
                self.at = At::DataCr;
            }
            let Some((byte, rest)) = bytes.split_first() else { return Ok(false) };
            self.at = self.step(*byte)?;
            bytes = rest;
        }
        Ok(true)
    }

    /// Takes the next piece of data out of what was read; `None` when there is more to come, or nothing. What is behind the end
    /// is left.
    ///
    /// # Errors
    /// It is no chunked body.
    pub fn take(&mut self, read: &mut Bytes) -> Result<Option<Bytes>, Flaw> {
        let mut piece = None;
        // What follows a piece is looked at along with it: it may be the end.
        while self.at != At::Over && !(self.at == At::Data && piece.is_some()) {
            let Some(byte) = read.first() else { break };
            if self.at == At::Data {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(read.len());
                self.left -= count as u64;
                piece = Some(read.split_to(count));
                if self.left > 0 {
                    break;
                }
                self.at = At::DataCr;
                continue;
            }
            self.at = self.step(*byte)?;
            read.advance(1);
        }
        Ok(piece)
    }

    /// Whether all of it has come.
    pub fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// How much data is known to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn step(&mut self, byte: u8) -> Result<At, Flaw> {
        match (self.at, byte) {
            (At::Size(digits), _) => self.size(digits, byte),
            (At::Extension, b'\r') => Ok(At::SizeEnd),
            (At::Extension, _) => {
                self.extensions += 1;
                let good = is_value(byte) && self.extensions < MAX_EXTENSIONS;
                good.then_some(At::Extension).ok_or(Flaw::ChunkExtension)
            }
            (At::SizeEnd, b'\n') => Ok(if self.left == 0 { At::Line } else { At::Data }),
            (At::SizeEnd, _) => Err(Flaw::ChunkSize),
            (At::DataCr, b'\r') => Ok(At::DataEnd),
            (At::DataEnd, b'\n') => Ok(At::Size(0)),
            (At::DataCr | At::DataEnd | At::Data, _) => Err(Flaw::ChunkEnd),
            (At::Over, _) => Ok(At::Over),
            (trailer, _) => self.trailer(trailer, byte),
        }
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<At, Flaw> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' | b'A'..=b'F' => (byte | 0x20) - b'a' + 10,
            b';' if digits > 0 => return Ok(At::Extension),
            b'\r' if digits > 0 => return Ok(At::SizeEnd),
            _ => return Err(Flaw::ChunkSize),
        };
        if digits == MAX_DIGITS {
            return Err(Flaw::ChunkSize);
        }
        self.left = self.left << 4 | u64::from(digit);
        Ok(At::Size(digits + 1))
    }

    /// Trailers are read and dropped; they must be fields nevertheless.
    fn trailer(&mut self, at: At, byte: u8) -> Result<At, Flaw> {
        self.trailers += 1;
        let next = match (at, byte) {
            (At::Line, b'\r') => Some(At::LastEnd),
            (At::LastEnd, b'\n') => Some(At::Over),
            (At::Line | At::Name, _) if is_token(byte) => Some(At::Name),
            (At::Name, b':') => Some(At::Value),
            (At::Value, b'\r') => Some(At::ValueEnd),
            (At::Value, _) if is_value(byte) => Some(At::Value),
            (At::ValueEnd, b'\n') => Some(At::Line),
            _ => None,
        };
        next.filter(|_| self.trailers < MAX_TRAILERS).ok_or(Flaw::Trailer)
    }
}

impl Default for Chunks {
    fn default() -> Self {
        Chunks::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a body, and how much of it was taken, wherever it is cut.
    fn pass(text: &[u8]) -> Result<bool, Flaw> {
        let whole = Chunks::new().pass(text);
        for cut in 0..text.len() {
            let mut chunks = Chunks::new();
            let (begin, rest) = text.split_at(cut);
            let found = match chunks.pass(begin) {
                Ok(false) => chunks.pass(rest),
                other => other,
            };
            assert_eq!(found, whole, "{:?} cut at {cut}", String::from_utf8_lossy(text));
        }
        whole
    }

    /// The data of a body that comes in two pieces.
    fn data(text: &[u8], cut: usize) -> (Vec<u8>, usize) {
        let (mut chunks, mut data) = (Chunks::new(), Vec::new());
        let (begin, rest) = text.split_at(cut);
        let mut left = Bytes::new();
        for piece in [begin, rest] {
            assert!(left.is_empty() || chunks.is_over());
            left = Bytes::from([&left[..], piece].concat());
            while let Some(piece) = chunks.take(&mut left).unwrap() {
                assert!(!piece.is_empty());
                data.extend_from_slice(&piece);
            }
        }
        assert!(chunks.is_over());
        (data, left.len())
    }

    #[test]
    fn data_is_taken_wherever_it_is_cut() {
        for (text, wanted) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("5;a=b\r\nhello\r\n1\r\n!\r\n2\r\n\r\n\r\n0\r\nx: y\r\n\r\n", "hello!\r\n"),
        ] {
            let whole = format!("{text}GET /");
            for cut in 0..whole.len() {
                assert_eq!(
                    data(whole.as_bytes(), cut),
                    (wanted.as_bytes().to_vec(), 5),
                    "{text:?} cut at {cut}"
                );
            }
        }
        let mut last = Bytes::from_static(b"1\r\n!\r\n0\r\n\r\n");
        let mut chunks = Chunks::new();
        assert_eq!(chunks.take(&mut last).unwrap().as_deref(), Some(&b"!"[..]));
        assert!(chunks.is_over(), "the end is seen with the last piece");
        assert_eq!(Chunks::new().take(&mut Bytes::from_static(b"x")), Err(Flaw::ChunkSize));
    }

    #[test]
    fn bodies_end_where_they_say() {
        for text in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "005\r\nhello\r\n000\r\n\r\n",
            "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
            "5;name=value\r\nhello\r\n0;last\r\n\r\n",
            "5;a=\"b;c\"; d\r\nhello\r\n0\r\n\r\n",
            "2\r\n\r\n\r\n0\r\n\r\n",
            "0\r\nx-sum: 1\r\ny:\r\n\r\n",
        ] {
            assert_eq!(pass(text.as_bytes()), Ok(true), "{text:?}");
            assert_eq!(Chunks::new().pass(format!("{text}\n\0").as_bytes()), Ok(true), "{text:?} and more");
            let begun = &text.as_bytes()[..text.len() - 1];
            assert_eq!(pass(begun), Ok(false), "{text:?} without its end");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let extension = format!("5;{}\r\nhello\r\n", "x".repeat(5000));
        let trailers = format!("0\r\n{}", "x: y\r\n".repeat(2000));
        for (text, flaw) in [
            ("\r\nhello\r\n0\r\n\r\n", Flaw::ChunkSize),
            (" 5\r\nhello\r\n", Flaw::ChunkSize),
            ("5 \r\nhello\r\n", Flaw::ChunkSize),
            ("5 ;x\r\nhello\r\n", Flaw::ChunkSize),
            ("5\t\r\nhello\r\n", Flaw::ChunkSize),
            ("0x5\r\nhello\r\n", Flaw::ChunkSize),
            ("+5\r\nhello\r\n", Flaw::ChunkSize),
            ("-5\r\nhello\r\n", Flaw::ChunkSize),
            (";x\r\n\r\n", Flaw::ChunkSize),
            ("5\nhello\r\n", Flaw::ChunkSize),
            ("5\r\rhello\r\n", Flaw::ChunkSize),
            ("5\rhello", Flaw::ChunkSize),
            ("g\r\n", Flaw::ChunkSize),
            ("1000000000000000\r\n", Flaw::ChunkSize),
            ("00000000000000005\r\nhello\r\n", Flaw::ChunkSize),
            ("5;x\ny\r\nhello\r\n", Flaw::ChunkExtension),
            ("5;\n", Flaw::ChunkExtension),
            ("5;x\0\r\nhello\r\n", Flaw::ChunkExtension),
            (&extension, Flaw::ChunkExtension),
            ("5\r\nhello0\r\n\r\n", Flaw::ChunkEnd),
            ("5\r\nhello\n0\r\n\r\n", Flaw::ChunkEnd),
            ("5\r\nhello\r0\r\n\r\n", Flaw::ChunkEnd),
            ("5\r\nhel\r\n0\r\n\r\n", Flaw::ChunkEnd),
            ("0\r\n\n", Flaw::Trailer),
            ("0\r\n\r\r\n", Flaw::Trailer),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", Flaw::Trailer),
            ("0\r\nx: y\n\r\n", Flaw::Trailer),
            ("0\r\nx: y\r\n z\r\n\r\n", Flaw::Trailer),
            ("0\r\nx : y\r\n\r\n", Flaw::Trailer),
            ("0\r\n: y\r\n\r\n", Flaw::Trailer),
            ("0\r\nx: \0\r\n\r\n", Flaw::Trailer),
            (&trailers, Flaw::Trailer),
        ] {
            assert_eq!(Chunks::new().pass(text.as_bytes()), Err(flaw), "{text:?}");
        }
        assert_eq!(pass(b"fffffffffffffff\r\nhello"), Ok(false), "as long as can be told");
    }
}
