//! RFC 9111, requirement by requirement; each test names its section.

mod storing;
mod freshness;
mod stale;
mod requests;
mod validation;
mod given;
mod properties;

use super::*;
use crate::cache::control::Directives;
use crate::cache::document::{Cache, ClientDirectives, KeyRules, SetCookie, Stale};
use crate::cache::rules::{Asks, Binding, Rules};
use crate::cache::{Facts, Stored, Why, date};
use crate::consumer::{Consumer, Identity};
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use crate::value::{Issues, Map, Span, Spanned};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use std::sync::Arc;

/// 2026-11-21, in milliseconds.
const NOW: u64 = 1_795_219_200_000;
const HOUR: u64 = 3_600_000;

fn fields(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let value = match value.parse::<i64>().ok().filter(|_| is_date(name)) {
            Some(seconds) => at(seconds),
            None => (*value).to_owned(),
        };
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// In tests, dates other than `0` are written as seconds from now.
fn is_date(name: &str) -> bool {
    matches!(
        name,
        "date" | "expires" | "last-modified" | "if-modified-since" | "if-unmodified-since" | "if-range"
    )
}

fn at(seconds: i64) -> String {
    date::format(NOW as i64 / 1000 + seconds)
}

fn request(method: &str, headers: &[(&str, &str)]) -> RequestHead {
    let (mut head, ()) = http::Request::builder().method(method).uri("/a?b=1").body(()).unwrap().into_parts();
    head.headers = fields(headers);
    head.headers.insert(http::header::HOST, HeaderValue::from_static("h.example"));
    head
}

fn answer(status: u16, headers: &[(&str, &str)]) -> ResponseHead {
    let (mut head, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
    head.headers = fields(headers);
    head
}

fn rules_with(is_public: bool, cache: &Cache) -> Rules {
    let mut issues = Issues::default();
    let binding = Binding { api: "shop", route: "read", params: &[], is_public };
    let rules = Rules::new(&Spanned::built_in(cache), &binding, &mut issues);
    rules.unwrap_or_else(|| panic!("{issues:?}"))
}

fn rules(cache: Cache) -> Rules {
    rules_with(true, &cache)
}

fn plain() -> Rules {
    rules(Cache::default())
}

const AT_ONCE: Times = Times { asked: NOW, received: NOW };

fn kept(rules: &Rules, request: &RequestHead, answer: &ResponseHead) -> Result<Kept, Why> {
    let x = Exchange::default();
    keep(rules, &Answered { request, sent: &request.headers, x: &x, answer, times: AT_ONCE })
}

fn keep_get(rules: &Rules, status: u16, headers: &[(&str, &str)]) -> Result<Kept, Why> {
    kept(rules, &request("GET", &[]), &answer(status, headers))
}

fn why(rules: &Rules, status: u16, headers: &[(&str, &str)]) -> Option<Why> {
    keep_get(rules, status, headers).err()
}

fn stored(headers: &[(&str, &str)]) -> Stored<()> {
    keep_get(&plain(), 200, headers).unwrap().stored(())
}

fn lifetime(rules: &Rules, headers: &[(&str, &str)]) -> Option<u64> {
    keep_get(rules, 200, headers).ok().map(|kept| kept.facts.lifetime / 1000)
}

fn judged(stored: &Stored<()>, asked: &str, after: u64) -> Verdict {
    let mut headers = HeaderMap::new();
    if !asked.is_empty() {
        headers.insert(http::header::CACHE_CONTROL, asked.parse().unwrap());
    }
    judge(stored, &Directives::of(&headers), NOW + after)
}

fn is_given(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Fresh { .. } | Verdict::Accepted { .. })
}

fn merged_vary() -> Merged {
    let (asked, answer, x) = (request("GET", &[]), answer(304, &[("vary", "*")]), Exchange::default());
    let of = Answered { request: &asked, sent: &asked.headers, x: &x, answer: &answer, times: AT_ONCE };
    merge(&plain(), &stored(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]), &of).unwrap()
}
