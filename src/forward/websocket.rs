//! The opening handshake of a WebSocket (RFC 6455 section 4) as a proxy has to do with it: it is checked on both sides, so that
//! no tunnel is opened between two of whom one does not speak the protocol.

use super::{FRAMING, strip_answer};
use crate::exchange::{RequestHead, ResponseHead, has_token};
use crate::reply::{Kind, Problem};
use crate::upstream::Offer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// The protocol that a client may change to.
const PROTOCOL: &str = "websocket";

/// The version of it that is spoken (RFC 6455 section 4.1).
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// What a server puts behind the client's key (RFC 6455 section 1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Digits of 16 bytes in base64, before the padding.
const KEY_DIGITS: usize = 22;

/// Whether a request is an opening handshake. No other protocol may be changed to: in `h2c`, for one, requests would go by every
/// step.
pub fn is_asked_for(head: &RequestHead) -> bool {
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && has_token(&head.headers, &UPGRADE, PROTOCOL)
        && has_token(&head.headers, &CONNECTION, "upgrade")
}

/// What the target may make of an opening handshake.
///
/// # Errors
/// The handshake is not valid, or is for another version of the protocol (RFC 6455 sections 4.2.1 and 4.2.2).
pub fn offer(head: &RequestHead) -> Result<Offer, Problem> {
    let version = only(&head.headers, &SEC_WEBSOCKET_VERSION)?;
    if version != VERSION {
        return Err(Problem::from(Kind::WEBSOCKET_VERSION)
            .header(SEC_WEBSOCKET_VERSION, VERSION)
            .header(UPGRADE, HeaderValue::from_static(PROTOCOL)));
    }
    let key = only(&head.headers, &SEC_WEBSOCKET_KEY)?;
    if !is_key(key.as_bytes()) {
        return Err(Problem::from(Kind::BAD_HANDSHAKE).detail("sec-websocket-key is not 16 bytes in base64."));
    }
    Ok(Offer { protocol: PROTOCOL, proof: (SEC_WEBSOCKET_ACCEPT, accept(key)?) })
}

/// The one value of a field that must stand there once (RFC 6455 section 11.3).
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h HeaderValue, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (found, _) => {
            let wrong = if found.is_some() { "stands there more than once" } else { "is missing" };
            Err(Problem::from(Kind::BAD_HANDSHAKE).detail(format!("{name} {wrong}.")))
        }
    }
}

/// Whether a key has the form of one. What its last digit says beyond the 16th byte is nobody's business: the key is never
/// decoded.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix(b"==").is_some_and(|digits| digits.len() == KEY_DIGITS && digits.iter().all(is_digit))
}

/// What shows that a server has read this key (RFC 6455 section 4.2.2).
fn accept(key: &HeaderValue) -> Result<HeaderValue, Problem> {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(MAGIC);
    HeaderValue::try_from(STANDARD.encode(hash.finish())).map_err(|_| Kind::INTERNAL.into())
}

/// Asks for a WebSocket in a head that is otherwise ready to be sent.
pub fn ask(head: &mut RequestHead) {
    name_protocol(&mut head.headers);
}

/// Makes the head of a target's 101 one of our own: nothing in it is about the target's connection, and it has no body.
pub fn grant(head: &mut ResponseHead) {
    strip_answer(&mut head.headers);
    for name in &FRAMING {
        head.headers.remove(name);
    }
    name_protocol(&mut head.headers);
}

/// What both heads must say (RFC 9110 section 7.8).
fn name_protocol(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 6455 section 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn asking(fields: &[(&'static str, &str)]) -> Result<Offer, Problem> {
        let (mut head, ()) = http::Request::new(()).into_parts();
        for (name, value) in fields {
            head.headers.append(*name, value.parse().unwrap());
        }
        offer(&head)
    }

    #[test]
    fn the_proof_is_that_of_the_standard() {
        let offer = asking(&[("sec-websocket-version", "13"), ("sec-websocket-key", KEY)]).unwrap();
        assert_eq!((offer.protocol, offer.proof.0), ("websocket", SEC_WEBSOCKET_ACCEPT));
        assert_eq!(offer.proof.1, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_handshake_has_a_key_and_the_version_each_once() {
        let (version, key) = (("sec-websocket-version", "13"), ("sec-websocket-key", KEY));
        let with_key = |value| vec![version, ("sec-websocket-key", value)];
        for (fields, code) in [
            (vec![], "bad-handshake"),
            (vec![version], "bad-handshake"),
            (vec![key], "bad-handshake"),
            (vec![version, version, key], "bad-handshake"),
            (vec![version, key, key], "bad-handshake"),
            (with_key(""), "bad-handshake"),
            (with_key("dGhlIHNhbXBsZSBub25jZQ"), "bad-handshake"),
            (with_key("dGhlIHNhbXBsZSBub25jZQ==="), "bad-handshake"),
            (with_key("dGhlIHNhbXBsZSBub25jZWE="), "bad-handshake"),
            (with_key("dGhlIHNhbXBsZSBub25j"), "bad-handshake"),
            (with_key("dGhlIHNhbXBsZSBub-5jZQ=="), "bad-handshake"),
            (vec![("sec-websocket-version", "8"), key], "websocket-version"),
            (vec![("sec-websocket-version", "13, 8"), key], "websocket-version"),
            (vec![("sec-websocket-version", ""), key], "websocket-version"),
        ] {
            let problem = asking(&fields).unwrap_err();
            assert_eq!(problem.kind.code, code, "{fields:?}");
        }
        // The bits behind the 16th byte are not zero, which some clients do.
        assert!(asking(&with_key("dGhlIHNhbXBsZSBub25jZR==")).is_ok());
    }
}
