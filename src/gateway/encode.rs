//! Compression in an answer's way, and translation: what either holds back never keeps the client waiting.

use super::Context;
use super::client::Client;
use crate::exchange::ResponseHead;
use crate::reply::Kind;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

impl Context {
    /// Has an answer translated or compressed, if its route and its client want that. Its head is otherwise as it goes out.
    pub(super) fn begin_encoding(&mut self, client: &Client<'_>, head: &mut ResponseHead, ends: bool) {
        if let Some(web) = self.web() {
            web.answer(head, ends);
        }
        let compress = self.route.as_ref().and_then(|route| route.compress.as_ref());
        self.encoder =
            compress.and_then(|compress| compress.begin(client.request(), head, ends)).map(Box::new);
    }

    /// The body of an answer that is there as a whole; what cannot be compressed stays as it is.
    pub(super) fn encode_whole(
        &mut self,
        client: &Client<'_>,
        head: &mut ResponseHead,
        body: Bytes,
        ends: bool,
    ) -> Bytes {
        let Some(compress) = self.route.as_ref().and_then(|route| route.compress.as_ref()) else {
            return body;
        };
        let Some(mut encoder) = compress.begin(client.request(), head, ends) else { return body };
        match encoder.push(&body, false).and_then(|begin| Ok([begin, encoder.finish()?].concat())) {
            Ok(encoded) => {
                head.headers.insert(CONTENT_LENGTH, encoded.len().into());
                encoded.into()
            }
            Err(_) => {
                head.headers.remove(CONTENT_ENCODING);
                head.headers.insert(CONTENT_LENGTH, body.len().into());
                body
            }
        }
    }

    /// A piece of a body as it goes to the client; it may be empty where nothing is compressed or translated yet.
    ///
    /// # Errors
    /// The encoder has failed.
    pub(super) fn encode(&mut self, piece: Bytes, ends: bool) -> Result<Bytes, Kind> {
        if let Some(web) = self.web_answer() {
            return Ok(web.encode(piece, ends));
        }
        let Some(encoder) = &mut self.encoder else { return Ok(piece) };
        let encoded = encoder.push(&piece, false).map_err(|_| Kind::INTERNAL)?;
        if !ends {
            return Ok(encoded);
        }
        let rest = self.encoder.take().map_or(Ok(Bytes::new()), |encoder| encoder.finish());
        let rest = rest.map_err(|_| Kind::INTERNAL)?;
        if encoded.is_empty() {
            return Ok(rest);
        }
        let mut both = BytesMut::from(encoded);
        both.extend_from_slice(&rest);
        Ok(both.freeze())
    }

    /// What the encoder holds back: behind this, nothing is there to be sent for now. It may be empty.
    ///
    /// # Errors
    /// The encoder has failed.
    pub(super) fn held_back(&mut self) -> Result<Bytes, Kind> {
        if let Some(web) = self.web_answer() {
            return Ok(web.flush());
        }
        match &mut self.encoder {
            Some(encoder) => encoder.push(&[], true).map_err(|_| Kind::INTERNAL),
            None => Ok(Bytes::new()),
        }
    }
}
