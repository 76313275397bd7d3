//! Signed tokens (JWT, RFC 7519), verified here.
//!
//! A token that has been seen before costs a digest and a look into [`cache`]; a new one is read by [`token`], judged by
//! [`verify`] and its signature checked with [`keys`], through [`crypto`].

mod algorithm;
pub mod cache;
pub mod crypto;
mod der;
pub mod keys;
mod spec;
pub mod token;
pub mod verify;

pub use spec::JwtSpec;

use super::credential::Found;
use super::{Check, Provider, Refusal, Verdict, Waiting};
use crate::consumer::{Claims, Consumers, Identity, claim};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::Kind;
use crate::tasks::Task;
use cache::{Cache, Digest, Times};
use http::{HeaderName, HeaderValue};
use keys::KeySet;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use verify::{Refused, Verified, Why};

/// Longest name of a subject, in bytes.
pub const LONGEST_SUBJECT: usize = 256;

/// Where keys come from.
pub trait KeySource: Send + Sync {
    /// A number that grows whenever the keys are others; an error, in words for the log, when there are no keys
    /// that may be used now. Asked for every request: cheap.
    fn generation(&self) -> Result<u64, &'static str>;

    /// The keys that are good now and their [`KeySource::generation`], both of one moment.
    fn current(&self) -> Current;

    /// A token names a key that is not there. `None` when no fetch is allowed now (cool-down), else a future that
    /// completes after the one fetch that all who wait share; whatever came of it is then [`KeySource::current`].
    fn missing(&self, kid: &str) -> Option<Waiting<'_, ()>>;

    /// What must run in the background.
    fn tasks(&self) -> Vec<Arc<dyn Task>> {
        Vec::new()
    }

    /// Waits until there are keys, but not longer than the time given; `true` when there are.
    fn warm(&self, _within: Duration) -> Waiting<'_, bool> {
        Box::pin(async { true })
    }
}

impl<T: KeySource + ?Sized> KeySource for Arc<T> {
    fn generation(&self) -> Result<u64, &'static str> {
        (**self).generation()
    }
    fn current(&self) -> Current {
        (**self).current()
    }
    fn missing(&self, kid: &str) -> Option<Waiting<'_, ()>> {
        (**self).missing(kid)
    }
    fn tasks(&self) -> Vec<Arc<dyn Task>> {
        (**self).tasks()
    }
    fn warm(&self, within: Duration) -> Waiting<'_, bool> {
        (**self).warm(within)
    }
}

/// What a source of keys has now.
#[derive(Debug)]
pub enum Current {
    /// These keys.
    Keys {
        /// The keys.
        set: Arc<KeySet>,
        /// Their number.
        generation: u64,
    },
    /// None that may be used. The words are for the log.
    Unavailable(&'static str),
}

/// Keys that stay as they are: from PEM, a file or a secret.
#[derive(Debug)]
pub struct Static(Arc<KeySet>);

impl Static {
    /// These keys.
    pub fn new(keys: KeySet) -> Self {
        Static(Arc::new(keys))
    }
}

impl KeySource for Static {
    fn generation(&self) -> Result<u64, &'static str> {
        Ok(1)
    }

    fn current(&self) -> Current {
        Current::Keys { set: self.0.clone(), generation: 1 }
    }

    fn missing(&self, _kid: &str) -> Option<Waiting<'_, ()>> {
        None
    }
}

/// Proves who calls by signed tokens.
pub struct Jwt {
    name: Arc<str>,
    spec: JwtSpec,
    consumers: Arc<Consumers>,
    keys: Box<dyn KeySource>,
    cache: Cache,
}

/// What a look at a token comes to.
enum Outcome {
    Known(Verdict),
    /// Its key is not there.
    Missing(String),
}

impl Jwt {
    /// The provider of this name.
    pub fn new(name: Arc<str>, spec: JwtSpec, consumers: Arc<Consumers>, keys: Box<dyn KeySource>) -> Self {
        let cache = Cache::new(spec.cache);
        Jwt { name, spec, consumers, keys, cache }
    }

    /// The cache, for its size.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    fn judge(&self, token: &str, now: u64) -> Outcome {
        if token.len() > self.spec.verifier.spec().max_size {
            return Outcome::Known(refused(Why::TooLarge));
        }
        let generation = match self.keys.generation() {
            Ok(generation) => generation,
            Err(why) => return Outcome::Known(Verdict::Unavailable(why)),
        };
        let digest = Digest::of(token);
        match self.cache.get(&digest, generation, now) {
            Some(identity) => Outcome::Known(Verdict::Accepted(identity)),
            None => self.judge_new(token, digest, now),
        }
    }

    fn judge_new(&self, token: &str, digest: Digest, now: u64) -> Outcome {
        let (keys, generation) = match self.keys.current() {
            Current::Keys { set, generation } => (set, generation),
            Current::Unavailable(why) => return Outcome::Known(Verdict::Unavailable(why)),
        };
        match self.spec.verifier.verify(token, &keys, now) {
            Ok(verified) => Outcome::Known(self.accept(verified, digest, generation)),
            Err(Refused::Because(why)) => Outcome::Known(refused(why)),
            Err(Refused::UnknownKid(kid)) => Outcome::Missing(kid),
        }
    }

    fn accept(&self, verified: Verified, digest: Digest, generation: u64) -> Verdict {
        let Some(subject) = subject(&verified.claims, &self.spec.consumer) else {
            return refused(Why::Subject);
        };
        if let Err(refusal) = self.spec.require.check(&verified.claims) {
            return Verdict::Refused(refusal);
        }
        let consumer = self.consumers.named(&subject).cloned();
        let identity = Arc::new(Identity {
            subject: consumer.as_ref().map_or(subject, |consumer| consumer.name.clone()),
            consumer,
            provider: self.name.clone(),
            credential: digest.short().into(),
            forward: self.spec.forward.fields(&verified.claims),
            expires: Some(verified.expires),
            claims: Some(verified.claims),
        });
        let times = Times { from: verified.good_from, until: verified.good_until };
        self.cache.insert(digest, generation, times, identity.clone());
        Verdict::Accepted(identity)
    }
}

impl Jwt {
    /// After all that could be done for a key that was not there.
    fn judge_again(&self, token: &str) -> Verdict {
        match self.judge(token, now()) {
            Outcome::Known(verdict) => verdict,
            Outcome::Missing(_) => refused(Why::UnknownKey),
        }
    }
}

impl Provider for Jwt {
    fn check<'a>(&'a self, request: &'a RequestHead, _x: &Exchange) -> Check<'a> {
        let token = match self.spec.from.find(request) {
            Found::Absent => return Check::Now(Verdict::Absent),
            Found::Malformed(detail) => return Check::Now(Verdict::Refused(malformed(detail))),
            Found::Token(token) => token,
        };
        let kid = match self.judge(&token, now()) {
            Outcome::Known(verdict) => return Check::Now(verdict),
            Outcome::Missing(kid) => kid,
        };
        match self.keys.missing(&kid) {
            // A fetch may have ended since the keys were looked at.
            None => Check::Now(self.judge_again(&token)),
            Some(fetched) => Check::Later(Box::pin(async move {
                fetched.await;
                self.judge_again(&token)
            })),
        }
    }

    fn forwards(&self) -> &[HeaderName] {
        self.spec.forward.names()
    }

    fn hide(&self, head: &mut RequestHead) {
        self.spec.from.hide(head, self.spec.hide);
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("Bearer"))
    }

    fn tasks(&self) -> Vec<Arc<dyn Task>> {
        self.keys.tasks()
    }

    fn remembered(&self) -> usize {
        self.cache.len()
    }

    fn warm(&self, within: Duration) -> Waiting<'_, bool> {
        self.keys.warm(within)
    }
}

/// Seconds since 1970. A clock before that finds every token expired or not good yet.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The claim that names the bearer; it ends in logs and keys of limits.
fn subject(claims: &Claims, path: &str) -> Option<Arc<str>> {
    let is_usable =
        |text: &str| !text.is_empty() && text.len() <= LONGEST_SUBJECT && !text.chars().any(char::is_control);
    match claim(claims, path)? {
        Value::String(text) if is_usable(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

fn refused(why: Why) -> Verdict {
    Verdict::Refused(Refusal {
        kind: Kind::INVALID_TOKEN,
        why: why.word(),
        error: Some("invalid_token"),
        detail: why.sentence().into(),
        scope: None,
    })
}

/// `invalid_request` of RFC 6750 section 3.1.
fn malformed(detail: &'static str) -> Refusal {
    Refusal {
        kind: Kind::BAD_REQUEST,
        why: "malformed",
        error: Some("invalid_request"),
        detail: detail.into(),
        scope: None,
    }
}

#[cfg(test)]
mod tests;
