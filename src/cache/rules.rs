//! The cache of a route, ready to run: what a request asks of it, and what its answers are kept under.

use super::control::Directives;
use super::document::{Cache, ClientDirectives, SetCookie, StatusKey};
use super::key::KeyMaker;
use super::{Key, Why};
use crate::exchange::{Exchange, RequestHead, ResponseHead, declared_body};
use crate::value::{At, ByteSize, Code, Issue, Issues, Span, Spanned, Template};
use http::header::{AUTHORIZATION, CONNECTION, UPGRADE};
use http::{HeaderName, Method};
use std::time::Duration;

/// Largest body that is kept when nobody says.
pub const DEFAULT_MAX_OBJECT: ByteSize = ByteSize(1 << 20);

/// How long others wait for an answer when nobody says.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// The most tags that one answer has.
const MOST_TAGS: usize = 64;

/// Longest tag in bytes.
const LONGEST_TAG: usize = 256;

/// Fields in which upstreams name tags: lists with commas, and with spaces.
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// How a route caches.
#[derive(Debug)]
pub struct Rules {
    key: KeyMaker,
    tags: Box<[Template]>,
    statuses: Box<[(StatusKey, u64)]>,
    ttl: Option<u64>,
    /// Shortest freshness, in milliseconds.
    pub(super) min: u64,
    /// Longest freshness, in milliseconds.
    pub(super) max: u64,
    pub(super) respect_origin: bool,
    pub(super) heuristic: bool,
    pub(super) shared: bool,
    pub(super) set_cookie: SetCookie,
    pub(super) while_revalidating: u64,
    pub(super) on_error: u64,
    obeys_clients: bool,
    /// Most bytes of a body that is kept.
    pub max_object: u64,
    /// How long a request waits for the answer to another one before it asks the upstream itself.
    pub wait: Duration,
    /// Where it is written.
    pub at: At,
}

/// What a request asks of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Nothing: it goes by, and nothing of its answer is kept.
    Bypass(Why),
    /// To be looked up.
    LookUp(Directives),
}

/// What a route says of its cache and is compiled with.
pub struct Binding<'a> {
    /// Name of the API.
    pub api: &'a str,
    /// Name of the route in it.
    pub route: &'a str,
    /// The parameters of its path.
    pub params: &'a [&'a str],
    /// Whether everybody may call; for all others the answer must be said to be the same.
    pub is_public: bool,
}

impl Rules {
    /// Compiles what is written; what cannot work is reported.
    pub fn new(written: &Spanned<&Cache>, binding: &Binding<'_>, issues: &mut Issues) -> Option<Rules> {
        let before = issues.errors();
        check(written, binding, issues);
        let cache = written.value;
        let bound = |tag: &Spanned<Template>| {
            let bound = tag.value.bind(binding.api, binding.route, binding.params);
            issues.take(bound.map_err(|message| bad_template(&message, tag.at)))
        };
        let tags = cache.tags.iter().filter_map(bound).collect();
        let own = format!("{}.{}", binding.api, binding.route);
        // No route can be called so.
        let zone = cache.zone.as_ref().map_or(own, |zone| format!("@{zone}"));
        (issues.errors() == before).then(|| Rules {
            key: KeyMaker::new(&cache.key, &zone),
            tags,
            statuses: cache.status.iter().map(|(key, ttl)| (key.value.clone(), millis(*ttl))).collect(),
            ttl: cache.ttl.map(millis),
            min: cache.min.map_or(0, millis),
            max: cache.max.map_or(u64::MAX, millis),
            respect_origin: cache.respect_origin.unwrap_or(true),
            heuristic: cache.heuristic,
            shared: cache.shared,
            set_cookie: cache.set_cookie,
            while_revalidating: cache.stale.revalidate.map_or(0, millis),
            on_error: cache.stale.error.map_or(0, millis),
            obeys_clients: cache.client_directives == ClientDirectives::Obey,
            wait: cache.wait.map_or(DEFAULT_WAIT, |wait| wait.0),
            max_object: cache.max_object.map_or(DEFAULT_MAX_OBJECT, |size| *size.value).0,
            at: written.at,
        })
    }

    /// Whether a request is looked up, and with which wishes of its client.
    pub fn asks(&self, request: &RequestHead) -> Asks {
        if request.method != Method::GET && request.method != Method::HEAD {
            return Asks::Bypass(Why::Method);
        }
        if declared_body(request) != Some(0) {
            return Asks::Bypass(Why::Body);
        }
        if request.headers.contains_key(UPGRADE) && request.headers.contains_key(CONNECTION) {
            return Asks::Bypass(Why::Upgrade);
        }
        if !self.obeys_clients {
            return Asks::LookUp(Directives::default());
        }
        let directives = Directives::of(&request.headers);
        match directives.no_store && !directives.only_if_cached {
            true => Asks::Bypass(Why::RequestNoStore),
            false => Asks::LookUp(directives),
        }
    }

    /// What a request is looked up by. Without allocation, unless it is unusually long.
    pub fn key(&self, request: &RequestHead, x: &Exchange) -> Key {
        self.key.key(request, x)
    }

    /// The address that its answer is kept under, for purges.
    pub fn url(&self, request: &RequestHead, x: &Exchange) -> String {
        self.key.url(request, x)
    }

    /// What its answer can be purged by: what the route says and what the upstream does.
    pub fn tags(&self, request: &RequestHead, x: &Exchange, answer: &ResponseHead) -> Box<[Box<str>]> {
        let mut tags: Vec<Box<str>> = Vec::new();
        let mut add = |tag: &str| {
            let fits = !tag.is_empty() && tag.len() <= LONGEST_TAG && tags.len() < MOST_TAGS;
            if fits && !tags.iter().any(|known| **known == *tag) {
                tags.push(tag.into());
            }
        };
        for template in &self.tags {
            let mut tag = String::new();
            x.render(template, request, &mut tag);
            add(&tag);
        }
        let texts = |name| answer.headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        texts(CACHE_TAG).flat_map(|line| line.split(',')).for_each(|tag| add(tag.trim()));
        texts(SURROGATE_KEY).flat_map(str::split_ascii_whitespace).for_each(add);
        tags.into()
    }

    /// Whether nobody but who has caused an answer may get it, as far as the route has a say (RFC 9111 section 3.5).
    pub(super) fn is_private_to(&self, request: &RequestHead, x: &Exchange) -> bool {
        let of_its_own = self.key.consumer && x.identity.is_some();
        let authorized = x.identity.is_some() || request.headers.contains_key(AUTHORIZATION);
        authorized && !self.shared && !of_its_own
    }

    /// How long an answer is fresh whose origin does not say, in milliseconds.
    pub(super) fn ttl(&self, status: u16) -> Option<u64> {
        let is_about = |key: &StatusKey| (key.first..=key.last).contains(&status);
        let narrowest = self.statuses.iter().filter(|(key, _)| is_about(key));
        let said = narrowest.min_by_key(|(key, _)| key.last - key.first).map(|(_, ttl)| *ttl);
        said.or_else(|| self.ttl.filter(|_| matches!(status, 200 | 203 | 204 | 300 | 301 | 308)))
    }

    /// What `tollgate explain` says: what the request is looked up by, or why it is not.
    pub fn explain(&self, request: &RequestHead, x: &Exchange) -> String {
        match self.asks(request) {
            Asks::Bypass(why) => format!("bypass  {why}"),
            Asks::LookUp(_) => {
                let key = self.key(request, x);
                format!("key {}", String::from_utf8_lossy(&key.text).replace('\n', "|"))
            }
        }
    }
}

fn millis(span: Span) -> u64 {
    u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX)
}

fn bad_template(message: &str, at: At) -> Issue {
    let (message, help) = message.split_once("\nhelp: ").unwrap_or((message, ""));
    let issue = Issue::new(Code::BAD_TEMPLATE, message).at(at);
    if help.is_empty() { issue } else { issue.help(help) }
}

/// What can be wrong with the settings together.
fn check(written: &Spanned<&Cache>, binding: &Binding<'_>, issues: &mut Issues) {
    let cache = written.value;
    let mut conflict = |code, message: String, help: &str| {
        issues.push(Issue::new(code, message).at(written.at).help(help));
    };
    if !binding.is_public && !cache.shared && !cache.key.consumer {
        conflict(
            Code::CACHE_UNSHARED,
            format!(
                "route `{}.{}` knows who calls, and its cache does not say who may get an answer",
                binding.api, binding.route
            ),
            "write `shared: true` if every caller may get the same answer, or `key: { consumer: true }` to keep them apart",
        );
    }
    if cache.respect_origin == Some(false) && cache.ttl.is_none() && cache.status.is_empty() {
        conflict(
            Code::CONFLICT,
            "with `respect_origin: false` nothing says how long answers are fresh".to_owned(),
            "write a `ttl`",
        );
    }
    if cache.min.zip(cache.max).is_some_and(|(min, max)| min > max) {
        conflict(Code::CONFLICT, "`min` is longer than `max`".to_owned(), "swap them");
    } else if cache.ttl.zip(cache.max).is_some_and(|(ttl, max)| ttl > max) {
        let help = "answers whose origin does not say are fresh for `ttl`: make it no longer than `max`";
        conflict(Code::CONFLICT, "`ttl` is longer than `max`".to_owned(), help);
    } else if cache.ttl.zip(cache.min).is_some_and(|(ttl, min)| ttl < min) {
        let help = "answers whose origin does not say are fresh for `ttl`: make it no shorter than `min`";
        conflict(Code::CONFLICT, "`ttl` is shorter than `min`".to_owned(), help);
    }
    if cache.key.query.is_some() && !cache.key.ignore_query.is_empty() {
        conflict(
            Code::CONFLICT,
            "`query` and `ignore_query` exclude each other".to_owned(),
            "with `query`, every parameter that is not listed is ignored already",
        );
    }
}
