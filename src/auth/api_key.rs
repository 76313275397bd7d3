//! Keys of consumers (AU-04): known only by their SHA-256.

use super::credential::{Found, TokenSource};
use super::document;
use super::{Check, Provider, Refusal, Verdict};
use crate::consumer::document::KeyHash;
use crate::consumer::{Consumer, Identity};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::Kind;
use crate::value::Secret;
use http::{HeaderName, HeaderValue};
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// Where a key is when nobody says.
const DEFAULT_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// Longer ones are no keys, and not worth a digest.
const LONGEST: usize = 512;

/// One consumer's key.
pub struct Key {
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// Whose it is.
    pub consumer: Arc<Consumer>,
    /// What the log calls it.
    pub name: Arc<str>,
    /// The second since 1970 from which it is no longer good.
    pub expires: Option<u64>,
}

/// The provider.
pub struct ApiKeys {
    source: TokenSource,
    hide: bool,
    forward: Vec<HeaderName>,
    challenge: HeaderValue,
    keys: HashMap<[u8; 32], Entry, foldhash::fast::RandomState>,
}

struct Entry {
    hash: [u8; 32],
    identity: Arc<Identity>,
}

impl ApiKeys {
    /// A provider of this name for these keys.
    pub fn new<'k>(name: &str, written: &document::ApiKey, keys: impl Iterator<Item = &'k Key>) -> Self {
        let header = written.header.as_ref().map(|key| key.0.clone());
        let source = TokenSource::new(header, written.cookie.clone(), written.query.clone(), DEFAULT_HEADER);
        let forward: Vec<HeaderName> = written.forward.iter().map(|key| key.0.clone()).collect();
        let provider: Arc<str> = name.into();
        let entry = |key: &Key| {
            let identity = identity(key, &provider, &forward);
            (key.hash, Entry { hash: key.hash, identity: Arc::new(identity) })
        };
        let challenge =
            if source.is_bearer() { "Bearer realm=\"tollgate\"" } else { "ApiKey realm=\"tollgate\"" };
        ApiKeys {
            keys: keys.map(entry).collect(),
            hide: written.hide.unwrap_or(true),
            challenge: HeaderValue::from_static(challenge),
            source,
            forward,
        }
    }

    fn verdict(&self, key: &str) -> Verdict {
        if key.len() > LONGEST {
            return Verdict::Refused(refusal("too-large"));
        }
        let digest = digest(&SHA256, key.as_bytes());
        let entry = <&[u8; 32]>::try_from(digest.as_ref()).ok().and_then(|digest| self.keys.get(digest));
        // What the table compares is a digest, which nobody can steer; this comparison takes the same time for all.
        let Some(entry) = entry.filter(|entry| bool::from(entry.hash.ct_eq(digest.as_ref()))) else {
            return Verdict::Refused(refusal("unknown-key"));
        };
        match entry.identity.expires {
            Some(expires) if seconds() >= expires => Verdict::Refused(refusal("expired")),
            _ => Verdict::Accepted(entry.identity.clone()),
        }
    }
}

fn identity(key: &Key, provider: &Arc<str>, forward: &[HeaderName]) -> Identity {
    let name = HeaderValue::from_str(&key.consumer.name).ok();
    Identity {
        subject: key.consumer.name.clone(),
        consumer: Some(key.consumer.clone()),
        provider: provider.clone(),
        credential: key.name.clone(),
        claims: None,
        forward: forward.iter().cloned().zip(name).collect(),
        expires: key.expires,
    }
}

fn refusal(why: &'static str) -> Refusal {
    let detail = match why {
        "expired" => "The key has expired.",
        _ => "The key is not known.",
    };
    Refusal { kind: Kind::INVALID_KEY, why, error: None, detail: detail.into(), scope: None }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Provider for ApiKeys {
    fn check<'a>(&'a self, request: &'a RequestHead, _: &Exchange) -> Check<'a> {
        Check::Now(match self.source.find(request) {
            Found::Absent => Verdict::Absent,
            Found::Token(key) => self.verdict(&key),
            Found::Malformed(why) => Verdict::Refused(Refusal { detail: why.into(), ..refusal("malformed") }),
        })
    }

    fn forwards(&self) -> &[HeaderName] {
        &self.forward
    }

    fn hide(&self, head: &mut RequestHead) {
        self.source.hide(head, self.hide);
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }
}

/// A new key and its hash: 256 random bits in base 62, behind a prefix that scanners for leaked secrets can know.
///
/// # Errors
/// The system gives no random numbers.
pub fn create() -> Result<(Secret, KeyHash), String> {
    use ring::rand::{SecureRandom, SystemRandom};
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let random = SystemRandom::new();
    let mut key = String::from("tg_");
    // 43 characters of 62 carry 256 bits. Bytes above 247 would favour some characters and are thrown away.
    while key.len() < 3 + 43 {
        let mut bytes = [0; 64];
        random.fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
        let letters = bytes.iter().filter(|byte| **byte < 248);
        let letters = letters.filter_map(|byte| ALPHABET.get(usize::from(byte % 62)));
        key.extend(letters.take(3 + 43 - key.len()).map(|letter| char::from(*letter)));
    }
    let hash = hash(&key);
    Ok((Secret::new(key), hash))
}

/// The hash that a key is known by.
pub fn hash(key: &str) -> KeyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    KeyHash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::HeaderKey;

    fn request(fields: &[(&'static str, &'static str)], target: &str) -> RequestHead {
        let (mut head, ()) = http::Request::get(target).body(()).unwrap().into_parts();
        for (name, value) in fields {
            head.headers.append(*name, HeaderValue::from_static(value));
        }
        head
    }

    fn keys(expires: Option<u64>) -> Vec<Key> {
        let consumer = Arc::new(Consumer { name: "acme".into(), plan: None, tags: Vec::new() });
        let key = |text: &str, expires| Key {
            hash: hash(text).0,
            consumer: consumer.clone(),
            name: text.to_uppercase().into(),
            expires,
        };
        vec![key("one", None), key("two", expires)]
    }

    fn provider(written: &document::ApiKey, expires: Option<u64>) -> ApiKeys {
        ApiKeys::new("partners", written, keys(expires).iter())
    }

    fn verdict(provider: &ApiKeys, request: &RequestHead) -> Verdict {
        match provider.check(request, &Exchange::default()) {
            Check::Now(verdict) => verdict,
            Check::Later(_) => panic!("keys are known at once"),
        }
    }

    #[test]
    fn a_key_is_known_by_its_hash() {
        let provider = provider(&document::ApiKey::default(), None);
        let Verdict::Accepted(identity) = verdict(&provider, &request(&[("x-api-key", "one")], "/")) else {
            panic!("not accepted")
        };
        assert_eq!(
            (&*identity.subject, &*identity.credential, &*identity.provider),
            ("acme", "ONE", "partners")
        );
        assert!(matches!(verdict(&provider, &request(&[], "/")), Verdict::Absent));
        for wrong in ["On", "one1", "ONE"] {
            let head = request(&[("x-api-key", wrong)], "/");
            assert!(matches!(verdict(&provider, &head), Verdict::Refused(_)), "{wrong}");
        }
        let twice = request(&[("x-api-key", "one"), ("x-api-key", "two")], "/");
        assert!(matches!(verdict(&provider, &twice), Verdict::Refused(_)));
    }

    #[test]
    fn a_key_ends_when_it_expires() {
        for (expires, good) in [(seconds(), false), (seconds() + 60, true)] {
            let provider = provider(&document::ApiKey::default(), Some(expires));
            let verdict = verdict(&provider, &request(&[("x-api-key", "two")], "/"));
            assert_eq!(matches!(verdict, Verdict::Accepted(_)), good);
        }
    }

    #[test]
    fn the_upstream_gets_the_name_and_not_the_key() {
        let written = document::ApiKey {
            query: Some("key".into()),
            forward: Some(HeaderKey(HeaderName::from_static("x-consumer"))),
            ..document::ApiKey::default()
        };
        let provider = provider(&written, None);
        let mut head = request(&[], "/a?x=1&key=one&y=2");
        let Verdict::Accepted(identity) = verdict(&provider, &head) else { panic!("not accepted") };
        assert_eq!(
            identity.forward,
            [(HeaderName::from_static("x-consumer"), HeaderValue::from_static("acme"))]
        );
        provider.hide(&mut head);
        assert_eq!(head.uri, "/a?x=1&y=2");
    }

    #[test]
    fn new_keys_are_long_and_all_different() {
        let (one, hash_of_one) = create().unwrap();
        let (other, _) = create().unwrap();
        assert_eq!((one.expose().len(), other.expose().len()), (46, 46));
        assert!(
            one.expose().starts_with("tg_")
                && one.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        );
        assert_ne!(one.expose(), other.expose());
        assert_eq!(hash(one.expose()), hash_of_one);
        assert_eq!(format!("{:?}", one), "[redacted]");
    }
}
