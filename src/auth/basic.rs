//! Names and passwords (RFC 7617), checked against hashes that take their time: never on the threads that serve requests,
//! two at once, and for a right password only once in a while.

use super::document;
use super::flight::{Digest, Failed, Flights, REMEMBERED};
use super::{Check, Provider, Refusal, Verdict};
use crate::consumer::{Consumers, Identity};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::Kind;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordVerifier};
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use ring::rand::SystemRandom;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

/// Longest password, bytes.
const MAX_PASSWORD: usize = 1024;
/// Longest `Authorization` field that is looked at, bytes: name and password in base64 with room to spare.
const MAX_FIELD: usize = 4096;
/// Most memory a hash may take, KiB.
const MAX_MEMORY: u32 = 256 * 1024;
/// Most work a hash may take: memory in KiB times passes. About four seconds.
const MAX_WORK: u64 = 4 * 1024 * 1024;
/// Highest bcrypt cost. About three seconds.
const MAX_COST: u32 = 15;
/// Passwords checked at once in the whole process.
const AT_ONCE: usize = 2;
/// Passwords that wait to be checked. More are refused.
const WAITING: usize = 64;

static ROOM: Room = Room::new(AT_ONCE);

/// Padding is asked for by RFC 7617, but clients without it exist and nothing is gained by refusing them.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Proves names and passwords.
pub struct Basic {
    users: Arc<Users>,
    right: Arc<Flights<Outcome>>,
    remember: Duration,
    challenge: HeaderValue,
    forward: Vec<HeaderName>,
    hide: bool,
}

struct Users {
    all: Vec<User>,
    by_name: HashMap<Arc<str>, usize>,
    /// Of this process alone, so that what is remembered means nothing elsewhere.
    key: hmac::Key,
}

struct User {
    hash: PasswordCheck,
    identity: Arc<Identity>,
}

/// A hash that passwords can be checked against.
#[derive(Debug)]
enum PasswordCheck {
    Argon2(Box<PasswordHash>),
    Bcrypt(Box<str>),
}

/// What came of a check.
#[derive(Clone, Debug)]
enum Outcome {
    Right(Arc<Identity>),
    Wrong(&'static str),
    Unknown(&'static str),
}

impl Basic {
    /// Makes the provider `name` from what is written; users that are also consumers are these.
    ///
    /// # Errors
    /// A user's name or hash cannot be used; in words for the operator, without the hash. A part behind `"\nhelp: "` is
    /// the help line.
    pub fn new(name: &Arc<str>, written: &document::Basic, consumers: &Consumers) -> Result<Self, String> {
        let forward = written.forward.as_ref().map(|key| key.0.clone());
        let mut users = Users { all: Vec::new(), by_name: HashMap::new(), key: random_key()? };
        for (user, hash) in written.users.value.iter() {
            users.add(name, &user.value, hash, consumers, forward.as_ref())?;
        }
        if users.all.is_empty() {
            return Err("there are no users\nhelp: write `users: { name: $argon2id$… }`".to_owned());
        }
        Ok(Basic {
            users: Arc::new(users),
            right: Flights::new(REMEMBERED),
            remember: written.cache.map_or(Duration::from_secs(60), |span| span.0),
            challenge: challenge(written.realm.as_deref().unwrap_or("tollgate"))?,
            forward: forward.into_iter().collect(),
            hide: written.hide.unwrap_or(true),
        })
    }

    async fn verify(&self, key: Digest, user: Option<usize>, password: Zeroizing<Vec<u8>>) -> Verdict {
        let (users, remember) = (Arc::clone(&self.users), self.remember);
        let asked = self.right.ask(key, move || async move {
            let outcome = match ROOM.enter(WAITING).await {
                None => Outcome::Unknown("too many passwords wait to be checked"),
                Some(_permit) => tokio::task::spawn_blocking(move || users.check(&key, user, &password))
                    .await
                    .unwrap_or(Outcome::Unknown("the check of a password broke down")),
            };
            let good_for = if matches!(outcome, Outcome::Right(_)) { remember } else { Duration::ZERO };
            (outcome, good_for)
        });
        match asked.await {
            Ok(outcome) => outcome.verdict(),
            Err(Failed::TooMany) => Verdict::Unavailable("too many passwords wait to be checked"),
            Err(Failed::Broken) => Verdict::Unavailable("the check of a password broke down"),
        }
    }
}

impl Provider for Basic {
    fn check<'a>(&'a self, request: &'a RequestHead, _: &Exchange) -> Check<'a> {
        let given = match given(&request.headers) {
            Ok(Some(given)) => given,
            Ok(None) => return Check::Now(Verdict::Absent),
            Err(why) => return Check::Now(Verdict::Refused(refusal(why))),
        };
        let Some((name, password)) = given.split() else {
            return Check::Now(Verdict::Refused(refusal("malformed")));
        };
        let key = self.users.digest(name, password);
        if let Some(outcome) = self.right.known(&key) {
            return Check::Now(outcome.verdict());
        }
        let user = self.users.by_name.get(name).copied();
        let password = Zeroizing::new(password.to_vec());
        Check::Later(Box::pin(self.verify(key, user, password)))
    }

    fn forwards(&self) -> &[HeaderName] {
        &self.forward
    }

    fn remembered(&self) -> usize {
        self.right.len()
    }

    fn hide(&self, head: &mut RequestHead) {
        if self.hide && head.headers.get_all(AUTHORIZATION).iter().any(|value| basic(value).is_some()) {
            head.headers.remove(AUTHORIZATION);
        }
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }
}

impl Outcome {
    fn verdict(self) -> Verdict {
        match self {
            Outcome::Right(identity) => Verdict::Accepted(identity),
            Outcome::Wrong(why) => Verdict::Refused(refusal(why)),
            Outcome::Unknown(why) => Verdict::Unavailable(why),
        }
    }
}

impl Users {
    fn add(
        &mut self,
        provider: &Arc<str>,
        name: &str,
        hash: &crate::value::Secret,
        consumers: &Consumers,
        forward: Option<&HeaderName>,
    ) -> Result<(), String> {
        if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
            return Err(format!(
                "`{}` cannot be a user's name\nhelp: leave out `:` and control characters",
                name.escape_debug()
            ));
        }
        let hash = hash.expose().parse().map_err(|cause| format!("user `{name}`: {cause}"))?;
        let forward =
            forward.map(|header| Ok((header.clone(), HeaderValue::from_str(name)?))).transpose().map_err(
                |_: http::header::InvalidHeaderValue| format!("user `{name}` cannot stand in a header field"),
            )?;
        let name: Arc<str> = name.into();
        let consumer = consumers.named(&name).cloned();
        let identity = Identity {
            subject: consumer.as_ref().map_or(&name, |consumer| &consumer.name).clone(),
            consumer,
            provider: Arc::clone(provider),
            credential: Arc::clone(&name),
            claims: None,
            forward: forward.into_iter().collect(),
            expires: None,
        };
        self.by_name.insert(name, self.all.len());
        self.all.push(User { hash, identity: Arc::new(identity) });
        Ok(())
    }

    fn digest(&self, name: &str, password: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(password);
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// Takes as long for a name that nobody has: as for some user, always the same one for the same name and password.
    fn check(&self, key: &Digest, user: Option<usize>, password: &[u8]) -> Outcome {
        let [a, b, ..] = *key;
        let other = usize::from(u16::from_be_bytes([a, b])) % self.all.len().max(1);
        let Some(checked) = self.all.get(user.unwrap_or(other)) else { return Outcome::Wrong("user") };
        let is_right = checked.hash.is_right(password);
        match user {
            Some(_) if is_right => Outcome::Right(Arc::clone(&checked.identity)),
            Some(_) => Outcome::Wrong("password"),
            None => Outcome::Wrong("user"),
        }
    }
}

impl PasswordCheck {
    fn is_right(&self, password: &[u8]) -> bool {
        match self {
            PasswordCheck::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
            PasswordCheck::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        }
    }
}

impl FromStr for PasswordCheck {
    type Err = String;

    /// Reads `$argon2id$…`, `$argon2i$…`, `$2a$…`, `$2b$…` or `$2y$…`. Errors never repeat the text.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("$argon2id$") || text.starts_with("$argon2i$") {
            argon2_hash(text)
        } else if ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            bcrypt_hash(text)
        } else {
            Err("this is no password hash that can be used\nhelp: write argon2id (`$argon2id$v=19$…`) or bcrypt (`$2b$…`)"
                .to_owned())
        }
    }
}

fn argon2_hash(text: &str) -> Result<PasswordCheck, String> {
    let hash = PasswordHash::new(text).map_err(|cause| format!("the argon2 hash cannot be read: {cause}"))?;
    let params =
        Params::try_from(&hash).map_err(|cause| format!("the argon2 hash cannot be read: {cause}"))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("the argon2 hash is cut off".to_owned());
    }
    if hash.version.is_some_and(|version| version != 16 && version != 19) {
        return Err("the argon2 hash has an unknown version\nhelp: `v=19` is the current one".to_owned());
    }
    if params.m_cost() > MAX_MEMORY || u64::from(params.m_cost()) * u64::from(params.t_cost()) > MAX_WORK {
        return Err("the argon2 hash takes too much memory or time\nhelp: at most `m=262144`, and `m` times `t` at most 4194304"
            .to_owned());
    }
    Ok(PasswordCheck::Argon2(Box::new(hash)))
}

fn bcrypt_hash(text: &str) -> Result<PasswordCheck, String> {
    let parts = bcrypt::HashParts::from_str(text)
        .map_err(|cause| format!("the bcrypt hash cannot be read: {cause}"))?;
    if !(4..=MAX_COST).contains(&parts.get_cost()) {
        return Err(format!("the bcrypt hash takes too long\nhelp: its cost may be 4 to {MAX_COST}"));
    }
    Ok(PasswordCheck::Bcrypt(text.into()))
}

/// A name and a password, with their colon.
struct Given(Zeroizing<String>);

impl Given {
    /// The first colon ends the name (RFC 7617 section 2).
    fn split(&self) -> Option<(&str, &[u8])> {
        let (name, password) = self.0.split_once(':')?;
        let is_good = password.len() <= MAX_PASSWORD && !self.0.chars().any(char::is_control);
        is_good.then_some((name, password.as_bytes()))
    }
}

/// What the request has, or what is wrong with it.
fn given(headers: &HeaderMap) -> Result<Option<Given>, &'static str> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    let Some(encoded) = basic(field) else { return Ok(None) };
    if fields.next().is_some() || encoded.len() > MAX_FIELD {
        return Err("malformed");
    }
    let decoded = BASE64.decode(encoded).map_err(|_| "malformed")?;
    let decoded = String::from_utf8(decoded).map_err(|_| "malformed")?;
    Ok(Some(Given(Zeroizing::new(decoded))))
}

/// What follows the scheme `Basic`.
fn basic(field: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = field.as_bytes().split_at_checked("basic".len())?;
    if !scheme.eq_ignore_ascii_case(b"basic") || rest.first().is_some_and(|next| *next != b' ') {
        return None;
    }
    Some(rest.trim_ascii())
}

fn refusal(why: &'static str) -> Refusal {
    let detail = match why {
        "malformed" => "The credentials are not a name and a password as RFC 7617 has them.",
        _ => "The name or the password is wrong.",
    };
    Refusal { kind: Kind::INVALID_TOKEN, why, error: None, detail: detail.into(), scope: None }
}

fn challenge(realm: &str) -> Result<HeaderValue, String> {
    let quoted = realm.replace('\\', r"\\").replace('"', r#"\""#);
    let is_text = realm.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    let value = HeaderValue::from_str(&format!(r#"Basic realm="{quoted}", charset="UTF-8""#));
    value.ok().filter(|_| is_text).ok_or_else(|| {
        format!(
            "`{}` cannot be a realm\nhelp: use letters, digits and punctuation of ASCII",
            realm.escape_debug()
        )
    })
}

fn random_key() -> Result<hmac::Key, String> {
    hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
        .map_err(|_| "the system gives no random numbers".to_owned())
}

/// Lets a few work at once and a few more wait.
struct Room {
    places: Semaphore,
    waiting: AtomicUsize,
}

impl Room {
    const fn new(places: usize) -> Self {
        Room { places: Semaphore::const_new(places), waiting: AtomicUsize::new(0) }
    }

    /// A place, or `None` when `most` wait for one already.
    async fn enter(&self, most: usize) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.places.try_acquire() {
            return Some(permit);
        }
        let _seat = Seat::take(&self.waiting, most)?;
        self.places.acquire().await.ok()
    }
}

/// One who waits, until dropped.
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let more = |now: usize| (now < most).then_some(now + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Seat(waiting))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::{judged, request, word};
    use super::*;
    use crate::value::{Map, Secret, Spanned};
    use argon2::PasswordHasher;
    use base64::engine::general_purpose::STANDARD;

    fn argon2(password: &str, memory: u32) -> String {
        let params = Params::new(memory, 1, 1, None).unwrap();
        let hash: PasswordHash =
            Argon2::from(params).hash_password_with_salt(password.as_bytes(), b"saltsalt").unwrap();
        hash.to_string()
    }

    fn written(users: &[(&str, &str)]) -> document::Basic {
        let entry = |(name, hash): &(&str, &str)| {
            (Spanned::built_in((*name).to_owned()), Spanned::built_in(Secret::new((*hash).to_owned())))
        };
        let users = Spanned::built_in(Map(users.iter().map(entry).collect()));
        document::Basic { users, realm: None, forward: None, hide: None, cache: None }
    }

    fn provider(written: &document::Basic) -> Result<Basic, String> {
        Basic::new(&"staff".into(), written, &Consumers::default())
    }

    async fn ask(provider: &Basic, field: &str) -> (String, bool) {
        let head = request("GET", "/", &[("authorization", field)]);
        let (verdict, at_once) = judged(provider, &head, &Exchange::default()).await;
        (word(&verdict), at_once)
    }

    fn field(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[tokio::test]
    async fn names_and_passwords_are_proven_and_remembered() {
        let cheap = bcrypt::hash("p:w", 4).unwrap();
        let old = cheap.replacen("$2b$", "$2y$", 1);
        let users = [("ann", &*argon2("sécret", 16)), ("bob", &*cheap), ("eve", &*old)];
        let provider =
            provider(&document::Basic { forward: Some("x-user".parse().unwrap()), ..written(&users) })
                .unwrap();
        for (pair, expected) in
            [("ann:sécret", "accepted ann"), ("bob:p:w", "accepted bob"), ("eve:p:w", "accepted eve")]
        {
            assert_eq!(ask(&provider, &field(pair)).await, (expected.to_owned(), false), "{pair}");
            assert_eq!(ask(&provider, &field(pair)).await, (expected.to_owned(), true), "{pair}: remembered");
        }
        for (pair, why) in [
            ("ann:secret", "password"),
            ("ann:", "password"),
            ("bob:sécret", "password"),
            ("Ann:sécret", "user"),
            (":p:w", "user"),
        ] {
            for _ in 0..2 {
                let expected = (format!("refused 401 {why}"), false);
                assert_eq!(ask(&provider, &field(pair)).await, expected, "{pair}: never remembered");
            }
        }
        let head = request("GET", "/", &[("authorization", &field("ann:sécret"))]);
        let (Verdict::Accepted(ann), _) = judged(&provider, &head, &Exchange::default()).await else {
            panic!()
        };
        assert_eq!(ann.forward, [("x-user".parse().unwrap(), HeaderValue::from_static("ann"))]);
        assert_eq!(provider.forwards(), ["x-user"]);
    }

    #[tokio::test]
    async fn what_is_no_name_and_password_is_told_apart() {
        let provider = provider(&written(&[("ann", &argon2("x", 16))])).unwrap();
        for (field, expected) in [
            ("Bearer abc".to_owned(), "absent"),
            ("Basicabc".to_owned(), "absent"),
            ("Basic".to_owned(), "refused 401 malformed"),
            ("Basic !".to_owned(), "refused 401 malformed"),
            (format!("Basic {}", STANDARD.encode(b"ann:\xff")), "refused 401 malformed"),
            (field("ann"), "refused 401 malformed"),
            (field("ann:x\n"), "refused 401 malformed"),
            (field(&format!("ann:{}", "x".repeat(MAX_PASSWORD + 1))), "refused 401 malformed"),
            (field(&format!("ann:{}", "x".repeat(MAX_FIELD))), "refused 401 malformed"),
        ] {
            assert_eq!(ask(&provider, &field).await, (expected.to_owned(), true), "{field}");
        }
        assert_eq!(ask(&provider, "bAsIc   YW5uOng").await.0, "accepted ann", "without padding");
        let twice = request("GET", "/", &[("authorization", &field("ann:x")), ("authorization", "Bearer x")]);
        assert_eq!(word(&judged(&provider, &twice, &Exchange::default()).await.0), "refused 401 malformed");
        let none = judged(&provider, &request("GET", "/", &[]), &Exchange::default()).await;
        assert_eq!(word(&none.0), "absent");
    }

    #[tokio::test]
    async fn one_check_serves_all_who_wait_and_few_may_wait() {
        let provider = Arc::new(provider(&written(&[("ann", &argon2("x", 1024))])).unwrap());
        let asking: Vec<_> = (0..20)
            .map(|_| {
                let provider = provider.clone();
                tokio::spawn(async move { ask(&provider, &field("ann:x")).await.0 })
            })
            .collect();
        for asking in asking {
            assert_eq!(asking.await.unwrap(), "accepted ann");
        }
        let room = Room::new(1);
        let inside = room.enter(1).await.unwrap();
        let waits = room.enter(1);
        tokio::pin!(waits);
        assert!(futures_pending(&mut waits).await);
        assert!(room.enter(1).await.is_none(), "one waits already");
        drop(inside);
        assert!(waits.await.is_some());
        assert_eq!(room.waiting.load(Ordering::Relaxed), 0);
    }

    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }

    #[test]
    fn hashes_and_names_are_checked_at_load() {
        let refuse = |users: &[(&str, &str)], word: &str| {
            let error = provider(&written(users)).err().unwrap();
            assert!(error.contains(word), "{error}");
            for (_, hash) in users {
                assert!(hash.is_empty() || !error.contains(hash), "{error}");
            }
        };
        let good = argon2("x", 16);
        assert!(provider(&written(&[("a", &good)])).is_ok());
        refuse(&[], "no users");
        refuse(&[("a:b", &good)], "cannot be a user's name");
        refuse(&[("", &good)], "cannot be a user's name");
        refuse(&[("a", "hunter2")], "no password hash");
        refuse(&[("a", "")], "no password hash");
        refuse(&[("a", "{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=")], "no password hash");
        refuse(&[("a", &good.replace("$argon2id$", "$argon2d$"))], "no password hash");
        refuse(&[("a", "$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ")], "cut off");
        refuse(&[("a", &good.replace("v=19", "v=20"))], "version");
        refuse(&[("a", &good.replace("m=16", "m=4000000"))], "too much memory");
        refuse(&[("a", &good.replace("m=16,t=1", "m=262144,t=17"))], "too much memory");
        refuse(&[("a", &good.replace("t=1", "t=0"))], "cannot be read");
        refuse(&[("a", "$2b$31$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie")], "takes too long");
        refuse(&[("a", "$2b$04$short")], "cannot be read");
        let bad_realm = document::Basic { realm: Some("a\nb".to_owned()), ..written(&[("a", &good)]) };
        assert!(provider(&bad_realm).is_err());
    }

    #[test]
    fn the_password_is_hidden_and_the_challenge_quoted() {
        let make = |hide| document::Basic {
            hide,
            realm: Some(r#"a"b\c"#.to_owned()),
            ..written(&[("a", &argon2("x", 16))])
        };
        let hides = provider(&make(None)).unwrap();
        assert_eq!(hides.challenge().unwrap(), r#"Basic realm="a\"b\\c", charset="UTF-8""#);
        for (provider, scheme, stays) in [
            (&hides, "Basic YTp4", false),
            (&hides, "Bearer YTp4", true),
            (&provider(&make(Some(false))).unwrap(), "Basic YTp4", true),
        ] {
            let mut head = request("GET", "/", &[("authorization", scheme)]);
            provider.hide(&mut head);
            assert_eq!(head.headers.contains_key("authorization"), stays, "{scheme}");
        }
    }
}
