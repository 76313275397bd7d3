//! From bytes to compressed bytes, piece by piece.

use super::Coding;
use bytes::buf::Writer;
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;
use std::io::{self, Write};

/// zlib-ng's level: about what others use by default, at a third of the work of the highest.
const GZIP_LEVEL: u32 = 5;

/// Brotli's quality: above 5 it becomes several times slower.
const BROTLI_QUALITY: u32 = 4;

/// Bytes that brotli looks back, as a power of two: 256 KiB. It bounds what one answer holds in memory.
const BROTLI_WINDOW: u32 = 18;

/// Zstandard's level.
const ZSTD_LEVEL: i32 = 3;

/// Bytes that Zstandard looks back, as a power of two; browsers refuse more than 8 MiB (RFC 9659).
const ZSTD_WINDOW: u32 = 18;

/// Compresses the body of one answer.
pub struct Encoder {
    work: Work,
}

type Output = Writer<BytesMut>;

enum Work {
    Gzip(flate2::write::GzEncoder<Output>),
    Brotli(Box<brotli::CompressorWriter<Output>>),
    Zstd(zstd::stream::write::Encoder<'static, Output>),
}

impl Encoder {
    /// An encoder; `None` when there is no memory for it.
    pub fn new(coding: Coding) -> Option<Encoder> {
        let output = BytesMut::new().writer();
        let work = match coding {
            Coding::Gzip => {
                Work::Gzip(flate2::write::GzEncoder::new(output, flate2::Compression::new(GZIP_LEVEL)))
            }
            Coding::Brotli => Work::Brotli(Box::new(brotli::CompressorWriter::new(
                output,
                4096,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(output, ZSTD_LEVEL).ok()?;
                encoder.window_log(ZSTD_WINDOW).ok()?;
                Work::Zstd(encoder)
            }
        };
        Some(Encoder { work })
    }

    /// Takes a piece and gives what there is to be sent, which may be nothing. After a `flush` the client can read all that
    /// was taken.
    ///
    /// # Errors
    /// The encoder has failed; the answer cannot be continued.
    pub fn push(&mut self, piece: &[u8], flush: bool) -> io::Result<Bytes> {
        let write: &mut dyn Write = match &mut self.work {
            Work::Gzip(encoder) => encoder,
            Work::Brotli(encoder) => encoder,
            Work::Zstd(encoder) => encoder,
        };
        write.write_all(piece)?;
        if flush {
            write.flush()?;
        }
        let output = match &mut self.work {
            Work::Gzip(encoder) => encoder.get_mut(),
            Work::Brotli(encoder) => encoder.get_mut(),
            Work::Zstd(encoder) => encoder.get_mut(),
        };
        Ok(output.get_mut().split().freeze())
    }

    /// The end of the compressed body.
    ///
    /// # Errors
    /// See [`Encoder::push`].
    pub fn finish(self) -> io::Result<Bytes> {
        let output = match self.work {
            Work::Gzip(encoder) => encoder.finish()?,
            Work::Brotli(encoder) => encoder.into_inner(),
            Work::Zstd(encoder) => encoder.finish()?,
        };
        Ok(output.into_inner().freeze())
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.work {
            Work::Gzip(_) => "Encoder(gzip)",
            Work::Brotli(_) => "Encoder(br)",
            Work::Zstd(_) => "Encoder(zstd)",
        })
    }
}
