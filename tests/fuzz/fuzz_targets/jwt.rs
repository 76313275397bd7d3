//! Any text as a token, as header and payload of a signed token, as keys, and as a request with a token.
//!
//! Nobody guesses a signature, so the target signs: the first line is the header, the rest the payload. What is accepted
//! must be what a reader that takes everything sees as well.

#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use ring::hmac;
use serde_json::Value;
use std::sync::LazyLock;
use tollgate::auth::credential::{Found, TokenSource};
use tollgate::auth::document::Algorithm;
use tollgate::auth::jwt::keys::{KeySet, MOST_KEYS};
use tollgate::auth::jwt::verify::{Spec, Verified, Verifier};

const NOW: u64 = 1_800_000_000;
const SKEW: u64 = 30;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_secret(SECRET).unwrap());
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(Spec {
        issuer: "i".to_owned(),
        audience: Some(vec!["a".to_owned()]),
        algorithms: vec![Algorithm::HS256],
        typ: Some(vec!["JWT".to_owned(), "at+jwt".to_owned()]),
        skew: SKEW,
        max_size: 8192,
    })
});

fuzz_target!(|bytes: &[u8]| {
    check_keys(bytes);
    let text = String::from_utf8_lossy(bytes);
    assert!(VERIFIER.verify(&text, &KEYS, NOW).is_err(), "a signature was guessed: {text}");
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, payload) = (&bytes[..line], bytes.get(line + 1..).unwrap_or_default());
    if let Ok(verified) = VERIFIER.verify(&signed(header, payload), &KEYS, NOW) {
        check_token(header, payload, &verified);
    }
    check_places(&text);
});

fn signed(header: &[u8], payload: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn check_token(header: &[u8], payload: &[u8], verified: &Verified) {
    let header: Value = serde_json::from_slice(header).unwrap();
    assert_eq!(header["alg"], "HS256");
    for refused in ["crit", "b64", "zip", "enc"] {
        assert!(header.get(refused).is_none(), "{header}");
    }
    let payload: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(payload.as_object(), Some(&verified.claims));
    assert_eq!(payload["iss"], "i");
    assert!(payload["aud"] == "a" || payload["aud"].as_array().unwrap().contains(&"a".into()));
    let exp = payload["exp"].as_f64().unwrap();
    assert!(NOW as f64 <= exp + SKEW as f64 && verified.expires as f64 <= exp, "{payload}");
    for date in ["nbf", "iat"] {
        assert!(payload[date].as_f64().is_none_or(|from| from <= (NOW + SKEW) as f64), "{payload}");
    }
    assert!((verified.good_from..verified.good_until).contains(&NOW));
}

fn check_keys(bytes: &[u8]) {
    if let Ok(keys) = KeySet::from_jwks(bytes) {
        assert!(keys.len() <= MOST_KEYS);
    }
    let _ = KeySet::from_pem(bytes);
}

/// A target, then a value for each field: what has been hidden is not found again.
fn check_places(text: &str) {
    let mut lines = text.split('\n');
    let Ok(request) = http::Request::builder().uri(lines.next().unwrap_or_default()).body(()) else { return };
    let (mut head, ()) = request.into_parts();
    let fields = [COOKIE, COOKIE, AUTHORIZATION, AUTHORIZATION];
    for (name, value) in fields.into_iter().zip(lines) {
        if let Ok(value) = HeaderValue::from_str(value) {
            head.headers.append(name, value);
        }
    }
    for header in [None, Some(AUTHORIZATION), Some(HeaderName::from_static("x-api-key"))] {
        let source =
            TokenSource::new(header, Some("sid".to_owned()), Some("token".to_owned()), AUTHORIZATION);
        if let Found::Token(token) = source.find(&head) {
            assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()), "{token:?}");
        }
        let mut hidden = head.clone();
        source.hide(&mut hidden, true);
        assert!(!matches!(source.find(&hidden), Found::Token(_)), "{hidden:?}");
        assert_eq!(hidden.uri.path(), head.uri.path());
    }
}
