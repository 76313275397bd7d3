//! RFC 9111, requirement by requirement; each test names its section.

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

mod section_3_storing {
    use super::*;

    #[test]
    fn only_answers_to_get() {
        let fresh = answer(200, &[("cache-control", "max-age=60")]);
        for (method, expected) in [
            ("GET", None),
            ("HEAD", Some(Why::Head)),
            ("POST", Some(Why::Method)),
            ("M-SEARCH", Some(Why::Method)),
        ] {
            assert_eq!(kept(&plain(), &request(method, &[]), &fresh).err(), expected, "{method}");
        }
    }

    /// Any final status may be stored that is explicitly fresh.
    #[test]
    fn every_final_status_with_explicit_freshness() {
        for status in
            [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599]
        {
            assert_eq!(why(&plain(), status, &[("cache-control", "max-age=60")]), None, "{status}");
        }
        for status in [206, 304, 412, 416] {
            assert_eq!(
                why(&plain(), status, &[("cache-control", "max-age=60")]),
                Some(Why::Partial),
                "{status}"
            );
        }
    }

    /// 5.2.2.5, 5.2.2.7
    #[test]
    fn no_store_and_private_are_not_stored() {
        for (control, expected) in [
            ("no-store", Some(Why::NoStore)),
            ("No-StOrE, max-age=10000", Some(Why::NoStore)),
            ("private, max-age=3600", Some(Why::Private)),
            ("private=\"x-a\", max-age=3600", None),
        ] {
            assert_eq!(
                why(&plain(), 200, &[("cache-control", control), ("expires", "10000")]),
                expected,
                "{control}"
            );
        }
    }

    /// 5.2.2.3: who understands the status ignores `no-store` beside it; who does not, does not store.
    #[test]
    fn must_understand() {
        let control = [("cache-control", "max-age=3600, no-store, must-understand")];
        assert_eq!(why(&plain(), 200, &control), None);
        assert_eq!(why(&plain(), 599, &control), Some(Why::Status));
        assert_eq!(why(&plain(), 299, &control), Some(Why::Status));
    }

    #[test]
    fn what_says_nothing_is_not_stored() {
        assert_eq!(why(&plain(), 200, &[]), Some(Why::NoFreshness));
        assert_eq!(
            why(&plain(), 200, &[("last-modified", "-1000"), ("etag", "\"a\"")]),
            Some(Why::NoFreshness)
        );
        assert_eq!(why(&plain(), 200, &[("cache-control", "public")]), Some(Why::NoFreshness));
    }

    #[test]
    fn what_could_never_be_given_is_not_stored() {
        for control in ["max-age=0", "no-cache", "no-cache, max-age=60"] {
            assert_eq!(why(&plain(), 200, &[("cache-control", control)]), Some(Why::Stale), "{control}");
            assert_eq!(
                why(&plain(), 200, &[("cache-control", control), ("etag", "\"a\"")]),
                None,
                "{control}"
            );
        }
    }

    /// 3.5
    #[test]
    fn answers_to_authorized_requests() {
        let asked = request("GET", &[("authorization", "FOO")]);
        for (control, expected) in [
            ("max-age=3600", Some(Why::Authorization)),
            ("max-age=3600, public", None),
            ("max-age=3600, must-revalidate", None),
            ("s-maxage=3600", None),
            ("max-age=3600, proxy-revalidate", Some(Why::Authorization)),
        ] {
            let answer = answer(200, &[("cache-control", control)]);
            assert_eq!(kept(&plain(), &asked, &answer).err(), expected, "{control}");
        }
    }

    /// 3.5: a caller who is known in any other way is none the less authorized.
    #[test]
    fn answers_to_proven_callers() {
        let consumer = Arc::new(Consumer { name: "acme".into(), plan: None, tags: Vec::new() });
        let known = Exchange {
            identity: Some(Arc::new(Identity::of_consumer(&consumer, "keys"))),
            ..Exchange::default()
        };
        let (asked, answer) = (request("GET", &[]), answer(200, &[("cache-control", "max-age=60")]));
        let by = |rules: &Rules, x: &Exchange, asked: &RequestHead| {
            keep(
                rules,
                &Answered { request: asked, sent: &asked.headers, x, answer: &answer, times: AT_ONCE },
            )
            .err()
        };
        let own =
            rules(Cache { key: KeyRules { consumer: true, ..KeyRules::default() }, ..Cache::default() });
        let shared = rules_with(false, &Cache { shared: true, ..Cache::default() });
        assert_eq!(by(&plain(), &known, &asked), Some(Why::Authorization));
        assert_eq!(by(&own, &known, &asked), None);
        assert_eq!(by(&shared, &known, &asked), None);
        // Who has proven nothing has no part of the cache to himself.
        let stranger = request("GET", &[("authorization", "x")]);
        assert_eq!(by(&own, &Exchange::default(), &stranger), Some(Why::Authorization));
    }

    /// 7.3, and what the route says.
    #[test]
    fn cookies() {
        let headers = [("cache-control", "max-age=60"), ("set-cookie", "a=b"), ("set-cookie2", "a=b")];
        assert_eq!(why(&plain(), 200, &headers), Some(Why::SetCookie));
        let with = |set_cookie| {
            let kept = keep_get(&rules(Cache { set_cookie, ..Cache::default() }), 200, &headers).unwrap();
            (kept.head.headers.contains_key("set-cookie"), kept.head.headers.contains_key("set-cookie2"))
        };
        assert_eq!(with(SetCookie::Strip), (false, false));
        assert_eq!(with(SetCookie::Store), (true, true));
        let named = [("cache-control", "max-age=60, no-cache=\"set-cookie\""), ("set-cookie", "a=b")];
        assert!(!keep_get(&plain(), 200, &named).unwrap().head.headers.contains_key("set-cookie"));
    }

    /// 3.1
    #[test]
    fn fields_that_are_not_stored() {
        let kept = keep_get(
            &plain(),
            200,
            &[
                ("cache-control", "max-age=60, no-cache=\"x-c, x-d\", private=\"x-e\""),
                ("connection", "x-a, x-b, content-length"),
                ("x-a", "1"),
                ("x-b", "1"),
                ("x-c", "1"),
                ("x-d", "1"),
                ("x-e", "1"),
                ("keep-alive", "1"),
                ("proxy-authenticate", "1"),
                ("proxy-authentication-info", "1"),
                ("proxy-authorization", "1"),
                ("proxy-connection", "1"),
                ("te", "1"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "1"),
                ("age", "5"),
                ("content-length", "7"),
                ("content-range", "x"),
                ("date", "0"),
                ("x-z", "1"),
            ],
        );
        let mut names: Vec<String> = kept.unwrap().head.headers.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "content-length", "content-range", "date", "x-z"]);
    }

    /// RFC 9110 section 6.6.1: who has a clock adds the date.
    #[test]
    fn a_date_is_added() {
        let date = |headers: &[(&str, &str)]| {
            let kept = keep_get(&plain(), 200, headers).unwrap();
            kept.head.headers["date"].to_str().unwrap().to_owned()
        };
        assert_eq!(date(&[("cache-control", "max-age=60")]), at(0));
        assert_eq!(date(&[("cache-control", "max-age=60"), ("date", "-20")]), at(-20));
    }

    #[test]
    fn large_bodies_are_not_stored() {
        let headers = |length: &'static str| [("cache-control", "max-age=60"), ("content-length", length)];
        assert_eq!(why(&plain(), 200, &headers("1048576")), None);
        assert_eq!(why(&plain(), 200, &headers("1048577")), Some(Why::TooLarge));
    }

    #[test]
    fn tags_are_of_the_route_and_of_the_upstream() {
        let cache =
            Cache { tags: vec![Spanned::built_in("q:${query.b}".parse().unwrap())], ..Cache::default() };
        let headers = [("cache-control", "max-age=60"), ("cache-tag", "a, b,,a"), ("surrogate-key", "c  d")];
        let kept = keep_get(&rules(cache), 200, &headers).unwrap();
        let tags: Vec<&str> = kept.tags.iter().map(|tag| &**tag).collect();
        assert_eq!(tags, ["q:1", "a", "b", "c", "d"]);
        assert_eq!(kept.url, "http://h.example/a?b=1");
    }
}

mod section_4_2_freshness {
    use super::*;

    /// 4.2.1
    #[test]
    fn the_first_that_applies_counts() {
        for (headers, expected) in [
            (&[("cache-control", "s-maxage=60, max-age=3600")][..], Some(60)),
            (&[("cache-control", "max-age=3600"), ("cache-control", "s-maxage=1")], Some(1)),
            (&[("cache-control", "max-age=0, s-maxage=3600"), ("expires", "-100")], Some(3600)),
            (&[("cache-control", "max-age=3600"), ("expires", "-10000")], Some(3600)),
            (&[("cache-control", "max-age=3600"), ("expires", "0.")], Some(3600)),
            (&[("cache-control", "max-age=1"), ("expires", "10000")], Some(1)),
            (&[("expires", "10000"), ("date", "0")], Some(10000)),
            (&[("expires", "10000"), ("date", "-100")], Some(10100)),
            (&[("expires", "10000"), ("date", "foo")], Some(10000)),
            (&[("expires", "Thu, 18 Aug 2050 02:01:18 GMT"), ("date", "0")], Some(749_181_678)),
        ] {
            assert_eq!(lifetime(&plain(), headers), expected, "{headers:?}");
        }
    }

    /// 4.2.1 and 5.3: freshness that is invalid is none; a second `Expires` makes it invalid.
    #[test]
    fn invalid_freshness_is_stale() {
        let etag = ("etag", "\"a\"");
        for headers in [
            &[("expires", "x"), etag][..],
            &[("expires", "-1"), etag],
            &[("expires", "Thu, 18 Aug 2050 2:01:18 GMT"), etag],
            &[("expires", "10000"), ("expires", "10000"), etag],
            &[("cache-control", "max-age=-7"), ("expires", "10000"), etag],
            &[("cache-control", "max-age='60'"), etag],
        ] {
            assert_eq!(lifetime(&plain(), headers), Some(0), "{headers:?}");
        }
    }

    /// 4.2.2: a guess only where the route allows it, and only for some statuses.
    #[test]
    fn guesses() {
        let guessing = rules(Cache { heuristic: true, ..Cache::default() });
        let of = |status, headers: &[(&str, &str)]| {
            keep_get(&guessing, status, headers).ok().map(|kept| kept.facts.lifetime / 1000)
        };
        let modified = [("last-modified", "-86400"), ("date", "0")];
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(of(status, &modified), Some(8640), "{status}");
        }
        for status in [201, 202, 302, 307, 403, 502, 503, 504, 599] {
            assert_eq!(of(status, &modified), None, "{status}");
        }
        assert_eq!(of(599, &[("last-modified", "-86400"), ("cache-control", "public")]), Some(8640));
        assert_eq!(of(200, &[("last-modified", "-100000000")]), Some(86400));
        assert_eq!(of(200, &[("last-modified", "100")]), None);
        // 4.2.2: not when an explicit time is there.
        assert_eq!(of(200, &[("last-modified", "-86400"), ("cache-control", "max-age=0")]), Some(0));
    }

    /// 4.2.3
    #[test]
    fn age_arithmetic() {
        let initial = |headers: &[(&str, &str)], delay: u64| {
            let headers: Vec<_> =
                headers.iter().copied().chain([("cache-control", "max-age=100000")]).collect();
            let times = Times { asked: NOW - delay, received: NOW };
            let (asked, answer, x) = (request("GET", &[]), answer(200, &headers), Exchange::default());
            let of = Answered { request: &asked, sent: &asked.headers, x: &x, answer: &answer, times };
            storable(&plain(), &of).unwrap().initial_age
        };
        for (headers, delay, expected) in [
            (&[][..], 0, 0),
            (&[], 250, 250),
            (&[("date", "0")], 250, 250),
            (&[("date", "-7200")], 250, 7_200_000),
            (&[("date", "7200")], 250, 250),
            (&[("date", "x")], 250, 250),
            (&[("age", "30")], 250, 30_250),
            (&[("age", "30"), ("date", "-60")], 250, 60_000),
            (&[("age", "2147483648")], 0, 2_147_483_648_000),
            (&[("age", "99999999999999999999")], 0, 2_147_483_648_000),
        ] {
            assert_eq!(initial(headers, delay), expected, "{headers:?} {delay}");
        }
    }

    /// 5.1: of several ages the first counts; one that is no number is ignored.
    #[test]
    fn ages_are_read() {
        for (age, expected) in [
            ("abc", 0),
            ("-7200", 0),
            ("7200.0", 0),
            ("7200, 0", 7200),
            ("0, 7200", 0),
            ("0, 0", 0),
            ("7200;foo=bar", 0),
            ("", 0),
        ] {
            let facts =
                keep_get(&plain(), 200, &[("cache-control", "max-age=9"), ("age", age)]).unwrap().facts;
            assert_eq!(facts.initial_age / 1000, expected, "{age}");
        }
        let lines = [("cache-control", "max-age=9"), ("age", "7200"), ("age", "0")];
        assert_eq!(keep_get(&plain(), 200, &lines).unwrap().facts.initial_age / 1000, 7200);
    }

    #[test]
    fn fresh_until_it_is_not() {
        let stored = stored(&[("cache-control", "max-age=2"), ("age", "1")]);
        assert_eq!(judged(&stored, "", 0), Verdict::Fresh { age: 1000 });
        assert_eq!(judged(&stored, "", 999), Verdict::Fresh { age: 1999 });
        let stale = Verdict::Stale { age: 2000, while_revalidating: false, on_error: false };
        assert_eq!(judged(&stored, "", 1000), stale);
        assert_eq!((ttl(&stored.facts, NOW), ttl(&stored.facts, NOW + 1500)), (1, -1));
        // A clock that goes back makes nothing younger than it came.
        assert_eq!(current_age(&stored.facts, 0), 1000);
    }

    #[test]
    fn numbers_that_are_too_large_are_the_most() {
        let stored = stored(&[("cache-control", "max-age=99999999999, stale-while-revalidate=99999999999")]);
        assert_eq!(stored.facts.lifetime, 2_147_483_648_000);
        assert!(is_given(judged(&stored, "", 0)));
        let _ = judged(
            &stored,
            "max-stale=99999999999, min-fresh=99999999999, max-age=9999999999",
            u64::MAX - NOW,
        );
    }

    #[test]
    fn what_the_route_says() {
        let cache = |yaml: Cache| rules(yaml);
        let status = |key: &str, span| (Spanned::built_in(key.parse().unwrap()), Span::secs(span));
        let route = cache(Cache {
            ttl: Some(Span::secs(60)),
            status: Map(vec![status("5xx", 1), status("404", 10), status("503", 2), status("4xx", 5)]),
            ..Cache::default()
        });
        let of = |rules: &Rules, status, headers: &[(&str, &str)]| {
            keep_get(rules, status, headers).ok().map(|kept| kept.facts.lifetime / 1000)
        };
        for (status, expected) in [
            (200, Some(60)),
            (301, Some(60)),
            (404, Some(10)),
            (410, Some(5)),
            (500, Some(1)),
            (503, Some(2)),
            (302, None),
        ] {
            assert_eq!(of(&route, status, &[]), expected, "{status}");
        }
        assert_eq!(of(&route, 200, &[("cache-control", "max-age=5")]), Some(5));
        assert_eq!(of(&route, 200, &[("cache-control", "no-store")]), None);
        let bounded =
            cache(Cache { min: Some(Span::secs(10)), max: Some(Span::secs(100)), ..Cache::default() });
        let control = |text: &'static str| [("cache-control", text), ("etag", "\"a\"")];
        for (text, expected) in [
            ("max-age=1", 10),
            ("max-age=0", 10),
            ("max-age=1000", 100),
            ("max-age=50", 50),
            ("no-cache", 0),
            ("max-age=0, must-revalidate", 0),
        ] {
            assert_eq!(of(&bounded, 200, &control(text)), Some(expected), "{text}");
        }
        let own = cache(Cache { ttl: Some(Span::secs(60)), respect_origin: Some(false), ..Cache::default() });
        for text in ["no-store", "private", "max-age=1", "no-cache"] {
            assert_eq!(of(&own, 200, &control(text)), Some(60), "{text}");
        }
    }

    /// RFC 9213 section 2.2
    #[test]
    fn targeted_fields_go_first() {
        let of = |headers: &[(&str, &str)]| lifetime(&plain(), headers);
        let cdn = "cdn-cache-control";
        for (headers, expected) in [
            (&[(cdn, "max-age=3600")][..], Some(3600)),
            (&[(cdn, "max-age=3600"), ("cache-control", "no-store")], Some(3600)),
            (&[(cdn, "max-age=1"), ("cache-control", "max-age=3600")], Some(1)),
            (&[(cdn, "max-age=3600"), ("expires", "-100")], Some(3600)),
            (&[(cdn, "no-store"), ("cache-control", "max-age=3600")], None),
            (&[(cdn, "private"), ("cache-control", "max-age=3600")], None),
            (&[(cdn, "max-age=10000, &&&&&"), ("cache-control", "no-store")], None),
            (&[(cdn, "max-age=\"10000\""), ("cache-control", "max-age=5")], Some(5)),
            (&[(cdn, "max-age=3600"), ("tollgate-cache-control", "max-age=7")], Some(7)),
            (&[(cdn, "max-age=3600"), ("tollgate-cache-control", "?")], Some(3600)),
            (&[(cdn, "public"), ("expires", "100")], None),
        ] {
            assert_eq!(of(headers), expected, "{headers:?}");
        }
    }
}

mod section_4_2_4_stale {
    use super::*;

    fn windows(rules: &Rules, control: &str) -> (u64, u64) {
        let facts = keep_get(rules, 200, &[("cache-control", control), ("etag", "\"a\"")]).unwrap().facts;
        (facts.while_revalidating / 1000, facts.on_error / 1000)
    }

    /// RFC 5861 sections 3 and 4, and what forbids it.
    #[test]
    fn windows_are_of_the_origin_or_the_route() {
        let stale = Stale { revalidate: Some(Span::secs(30)), error: Some(Span::secs(600)) };
        let route = rules(Cache { stale, ..Cache::default() });
        for (control, expected) in [
            ("max-age=1", (30, 600)),
            ("max-age=1, stale-while-revalidate=5", (5, 600)),
            ("max-age=1, stale-if-error=0", (30, 0)),
            ("max-age=1, must-revalidate", (0, 0)),
            ("max-age=1, proxy-revalidate, stale-if-error=60", (0, 0)),
            ("max-age=1, no-cache, stale-if-error=60", (0, 0)),
            ("s-maxage=1", (0, 0)),
            ("s-maxage=1, stale-while-revalidate=60", (60, 0)),
        ] {
            assert_eq!(windows(&route, control), expected, "{control}");
        }
        assert_eq!(windows(&plain(), "max-age=1"), (0, 0));
    }

    #[test]
    fn stale_while_revalidating_and_on_error() {
        let stored = stored(&[("cache-control", "max-age=1, stale-while-revalidate=2, stale-if-error=4")]);
        let at = |asked: &str, after| match judged(&stored, asked, after) {
            Verdict::Stale { while_revalidating, on_error, .. } => Some((while_revalidating, on_error)),
            _ => None,
        };
        assert_eq!(at("", 500), None);
        assert_eq!(at("", 1500), Some((true, true)));
        assert_eq!(at("", 3000), Some((true, true)));
        assert_eq!(at("", 3001), Some((false, true)));
        assert_eq!(at("", 5001), Some((false, false)));
        assert_eq!(at("stale-if-error=10", 5001), Some((false, true)));
        assert_eq!(at("no-cache", 1500), Some((false, false)));
        assert_eq!(at("max-age=0", 1500), Some((false, true)));
        assert_eq!(at("max-age=0", 500), Some((false, true)));
    }

    /// 4.2.4: not when forbidden, though a client asks for it.
    #[test]
    fn what_must_be_validated_is_not_given_stale() {
        for control in ["must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache"] {
            let stored = stored(&[("cache-control", &format!("max-age=1, {control}")), ("etag", "\"a\"")]);
            let verdict = judged(&stored, "max-stale, stale-if-error=1000", 5000);
            let expected = Verdict::Stale { age: 5000, while_revalidating: false, on_error: false };
            assert_eq!(verdict, expected, "{control}");
        }
    }

    /// 4.4: what was invalidated is validated before it is given; what was purged softly is stale.
    #[test]
    fn invalid_and_expired() {
        let control = [("cache-control", "max-age=100, stale-while-revalidate=60, stale-if-error=60")];
        let invalid = stored(&control);
        invalid.invalidate();
        let never = Verdict::Stale { age: 5, while_revalidating: false, on_error: false };
        assert_eq!(judged(&invalid, "max-stale", 5), never);
        let expired = stored(&control);
        expired.expire();
        assert_eq!(
            judged(&expired, "", 5),
            Verdict::Stale { age: 5, while_revalidating: true, on_error: true }
        );
        assert!(!is_given(judged(&expired, "max-stale", 5)));
        let without = stored(&[("cache-control", "max-age=100")]);
        without.expire();
        assert_eq!(judged(&without, "", 5), never);
    }
}

mod section_5_2_1_requests {
    use super::*;

    #[test]
    fn clients_say_what_they_take() {
        let fresh = [("cache-control", "max-age=1500"), ("age", "1000")];
        let old = [("cache-control", "max-age=1500"), ("age", "2000")];
        for (headers, asked, given) in [
            (&fresh, "", true),
            (&fresh, "max-age=0", false),
            (&fresh, "max-age=600", false),
            (&fresh, "max-age=1000", true),
            (&fresh, "min-fresh=500", true),
            (&fresh, "min-fresh=501", false),
            (&fresh, "no-cache", false),
            (&fresh, "nothing-to-see-here", true),
            (&old, "", false),
            (&old, "max-stale=1000", true),
            (&old, "max-stale=500", true),
            (&old, "max-stale=499", false),
            (&old, "max-stale", true),
            (&old, "max-stale, max-age=1800", false),
            (&old, "max-stale, max-age=2000", true),
        ] {
            assert_eq!(is_given(judged(&stored(headers), asked, 0)), given, "{headers:?} {asked}");
        }
    }

    /// 5.2.1.7
    #[test]
    fn only_if_cached() {
        let stored = stored(&[("cache-control", "max-age=1, stale-while-revalidate=60")]);
        assert_eq!(judged(&stored, "only-if-cached", 0), Verdict::Fresh { age: 0 });
        assert_eq!(judged(&stored, "only-if-cached", 2000), Verdict::OnlyIfCached);
        assert_eq!(judged(&stored, "only-if-cached, max-stale=5", 2000), Verdict::Accepted { age: 2000 });
    }

    #[test]
    fn what_is_looked_up() {
        let (plain, deaf) =
            (plain(), rules(Cache { client_directives: ClientDirectives::Ignore, ..Cache::default() }));
        let none = Directives::default();
        for (method, headers, expected) in [
            ("GET", &[][..], Asks::LookUp(none)),
            ("HEAD", &[], Asks::LookUp(none)),
            ("POST", &[], Asks::Bypass(Why::Method)),
            ("GET", &[("content-length", "5")], Asks::Bypass(Why::Body)),
            ("GET", &[("content-length", "0")], Asks::LookUp(none)),
            ("GET", &[("transfer-encoding", "chunked")], Asks::Bypass(Why::Body)),
            ("GET", &[("connection", "upgrade"), ("upgrade", "websocket")], Asks::Bypass(Why::Upgrade)),
            ("GET", &[("cache-control", "no-store")], Asks::Bypass(Why::RequestNoStore)),
            (
                "GET",
                &[("cache-control", "no-store, only-if-cached")],
                Asks::LookUp(Directives { no_store: true, only_if_cached: true, ..none }),
            ),
        ] {
            assert_eq!(plain.asks(&request(method, headers)), expected, "{method} {headers:?}");
        }
        let asked = request("GET", &[("cache-control", "no-store, no-cache, max-age=0")]);
        assert_eq!(deaf.asks(&asked), Asks::LookUp(none));
    }
}

mod section_4_3_validation {
    use super::*;

    fn conditions(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let stored = stored(headers);
        let mut sent = fields(&[
            ("if-none-match", "\"client\""),
            ("if-modified-since", "-5"),
            ("if-match", "\"c\""),
            ("if-unmodified-since", "-5"),
            ("range", "bytes=0-1"),
            ("if-range", "\"c\""),
        ]);
        let has_any = validator(&stored, &mut sent);
        assert_eq!(has_any, !sent.is_empty());
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        sent.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    /// 4.3.1: the stored validators, and nothing of what the client asked.
    #[test]
    fn questions() {
        let etag = ("if-none-match".to_owned(), "W/\"a\"".to_owned());
        let modified = ("if-modified-since".to_owned(), at(-100));
        let control = ("cache-control", "max-age=60");
        assert_eq!(conditions(&[control]), []);
        assert_eq!(conditions(&[control, ("etag", "W/\"a\"")]), [etag.clone()]);
        assert_eq!(conditions(&[control, ("last-modified", "-100")]), [modified.clone()]);
        let mut both = conditions(&[control, ("etag", "W/\"a\""), ("last-modified", "-100")]);
        both.sort_unstable();
        assert_eq!(both, [modified, etag]);
        let gone = keep_get(&plain(), 410, &[control, ("etag", "\"a\"")]).unwrap().stored(());
        assert!(!validator(&gone, &mut HeaderMap::new()));
    }

    fn merged(old: &[(&str, &str)], new: &[(&str, &str)]) -> Result<Merged, Why> {
        let (asked, answer, x) = (request("HEAD", &[]), answer(304, new), Exchange::default());
        let times = Times { asked: NOW + HOUR, received: NOW + HOUR };
        let of = Answered { request: &asked, sent: &asked.headers, x: &x, answer: &answer, times };
        merge(&plain(), &stored(old), &of)
    }

    const OLD: &[(&str, &str)] = &[
        ("cache-control", "max-age=2"),
        ("date", "-5"),
        ("age", "5"),
        ("etag", "\"a\""),
        ("x-old", "1"),
        ("x-both", "1"),
        ("x-both", "2"),
        ("content-length", "36"),
        ("content-encoding", "gzip"),
    ];

    /// 3.2: every new field replaces the old one, but what is not stored, the length, and what says how to read the bytes.
    #[test]
    fn fields_are_updated() {
        let new = [
            ("etag", "\"a\""),
            ("cache-control", "max-age=3600"),
            ("x-both", "3"),
            ("x-new", "1"),
            ("content-length", "10"),
            ("content-encoding", "br"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("keep-alive", "1"),
        ];
        let merged = merged(OLD, &new).unwrap();
        assert_eq!(merged.again, Ok(()));
        let head = &merged.kept.head;
        let all = |name: &str| {
            head.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(head.status, 200);
        assert_eq!((all("x-old"), all("x-both"), all("x-new")), (vec!["1"], vec!["3"], vec!["1"]));
        assert_eq!((all("content-length"), all("content-encoding")), (vec!["36"], vec!["gzip"]));
        for gone in ["connection", "x-hop", "set-cookie", "keep-alive", "age"] {
            assert!(all(gone).is_empty(), "{gone}");
        }
        let facts = Facts { received: NOW + HOUR, initial_age: 0, lifetime: HOUR, ..Facts::default() };
        assert_eq!(merged.kept.facts, facts);
        assert_eq!(all("date"), [at(3600)]);
    }

    /// 4.2.3: after a validation it is as old as the 304 says.
    #[test]
    fn age_is_counted_from_the_validation() {
        let age = |new: &[(&str, &str)]| merged(OLD, new).unwrap().kept.facts.initial_age / 1000;
        assert_eq!(age(&[]), 0);
        assert_eq!(age(&[("date", "3590")]), 10);
        assert_eq!(age(&[("age", "30")]), 30);
    }

    /// 4.3.4: another validator is about another representation.
    #[test]
    fn another_version_is_not_updated() {
        for (old, new, matches) in [
            (&[("etag", "\"a\"")][..], &[("etag", "\"b\"")][..], false),
            (&[("etag", "\"a\"")], &[("etag", "\"a\"")], true),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], true),
            (&[("etag", "\"a\"")], &[], true),
            (&[("last-modified", "-100")], &[("etag", "\"a\"")], false),
            (&[("last-modified", "-100")], &[("last-modified", "-100")], true),
            (&[("last-modified", "-100")], &[("last-modified", "-50")], false),
            (
                &[("etag", "\"a\""), ("last-modified", "-100")],
                &[("etag", "\"a\""), ("last-modified", "-50")],
                true,
            ),
        ] {
            let old: Vec<_> = old.iter().copied().chain([("cache-control", "max-age=60")]).collect();
            assert_eq!(merged(&old, new).err(), (!matches).then_some(Why::Mismatch), "{old:?} {new:?}");
        }
    }

    /// 3.2 and 5.2.2.5: an update can make it one that must not be kept; it is valid for this request all the same.
    #[test]
    fn an_update_can_forbid_to_keep() {
        let merged =
            merged(OLD, &[("etag", "\"a\""), ("cache-control", "no-store"), ("x-new", "1")]).unwrap();
        assert_eq!(merged.again, Err(Why::NoStore));
        assert_eq!(merged.kept.head.headers["x-new"], "1");
        let varying = super::merged_vary();
        assert_eq!(varying.again, Err(Why::VaryStar));
    }

    /// 4.3.5
    #[test]
    fn answers_to_head() {
        let stored = stored(OLD);
        for (status, headers, effect) in [
            (200, &[][..], HeadEffect::Update),
            (200, &[("etag", "\"a\""), ("content-length", "36")], HeadEffect::Update),
            (200, &[("etag", "\"b\"")], HeadEffect::Invalidate),
            (200, &[("content-length", "37")], HeadEffect::Invalidate),
            (410, &[("etag", "\"b\"")], HeadEffect::Nothing),
        ] {
            assert_eq!(head_effect(&stored, &answer(status, headers)), effect, "{status} {headers:?}");
        }
    }
}

fn merged_vary() -> Merged {
    let (asked, answer, x) = (request("GET", &[]), answer(304, &[("vary", "*")]), Exchange::default());
    let of = Answered { request: &asked, sent: &asked.headers, x: &x, answer: &answer, times: AT_ONCE };
    merge(&plain(), &stored(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]), &of).unwrap()
}

mod given {
    use super::*;

    const OLD: &[(&str, &str)] = &[
        ("cache-control", "max-age=60"),
        ("date", "0"),
        ("etag", "\"a\""),
        ("last-modified", "-3000"),
        ("content-type", "text/plain"),
        ("x-other", "1"),
    ];

    fn of(stored: &Stored<()>, method: &str, asked: &[(&str, &str)]) -> Given {
        answer_to(&request(method, asked), stored, Some(10))
    }

    /// RFC 9110 section 13.1 and 13.2.2, RFC 9111 section 4.3.2
    #[test]
    fn conditions() {
        let stored = stored(OLD);
        for (asked, expected) in [
            (&[][..], Given::Whole),
            (&[("if-none-match", "\"a\"")], Given::NotModified),
            (&[("if-none-match", "W/\"a\"")], Given::NotModified),
            (&[("if-none-match", "*")], Given::NotModified),
            (&[("if-none-match", "\"x\", \"y,z\", \"a\"")], Given::NotModified),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")], Given::NotModified),
            (&[("if-none-match", "\"x\", \"b, \"a\"")], Given::Whole),
            (&[("if-none-match", "\"b\"")], Given::Whole),
            (&[("if-none-match", "\"b\""), ("if-modified-since", "0.")], Given::Whole),
            (&[("if-none-match", "\"b\""), ("if-modified-since", "-1000")], Given::Whole),
            (&[("if-none-match", "\"a\""), ("if-modified-since", "-10000")], Given::NotModified),
            (&[("if-modified-since", "-3000")], Given::NotModified),
            (&[("if-modified-since", "-2000")], Given::NotModified),
            (&[("if-modified-since", "-3001")], Given::Whole),
            (&[("if-modified-since", "x")], Given::Whole),
            (&[("if-modified-since", "-2000"), ("if-modified-since", "-2000")], Given::Whole),
            (&[("if-match", "\"a\"")], Given::Whole),
            (&[("if-match", "*")], Given::Whole),
            (&[("if-match", "W/\"a\"")], Given::PreconditionFailed),
            (&[("if-match", "\"b\"")], Given::PreconditionFailed),
            (&[("if-match", "\"a\""), ("if-unmodified-since", "-9999")], Given::Whole),
            (&[("if-unmodified-since", "-3000")], Given::Whole),
            (&[("if-unmodified-since", "-3001")], Given::PreconditionFailed),
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], Given::PreconditionFailed),
        ] {
            assert_eq!(of(&stored, "GET", asked), expected, "{asked:?}");
            assert_eq!(of(&stored, "HEAD", asked), expected, "{asked:?}");
        }
    }

    /// RFC 9111 section 4.3.2: without `Last-Modified`, the date counts.
    #[test]
    fn conditions_without_validators() {
        let stored = stored(&[("cache-control", "max-age=60"), ("date", "-10")]);
        assert_eq!(of(&stored, "GET", &[("if-modified-since", "-5")]), Given::NotModified);
        assert_eq!(of(&stored, "GET", &[("if-modified-since", "-3000")]), Given::Whole);
        assert_eq!(of(&stored, "GET", &[("if-none-match", "\"a\"")]), Given::Whole);
    }

    /// RFC 9110 section 13.2.1
    #[test]
    fn errors_have_no_conditions() {
        let stored = keep_get(&plain(), 404, OLD).unwrap().stored(());
        for asked in [("if-none-match", "*"), ("range", "bytes=0-1"), ("if-match", "\"x\"")] {
            assert_eq!(of(&stored, "GET", &[asked]), Given::Whole);
        }
    }

    /// RFC 9110 sections 13.1.5 and 14.2
    #[test]
    fn ranges() {
        let stored = stored(OLD);
        let part = Given::Part { part: 0..2, of: 10 };
        let range = ("range", "bytes=0-1");
        for (asked, expected) in [
            (&[range][..], part.clone()),
            (&[("range", "bytes=-1")], Given::Part { part: 9..10, of: 10 }),
            (&[("range", "bytes=10-")], Given::Unsatisfiable { length: 10 }),
            (&[("range", "x")], Given::Whole),
            (&[range, range], Given::Whole),
            (&[range, ("if-none-match", "\"a\"")], Given::NotModified),
            (&[range, ("if-range", "\"a\"")], part.clone()),
            (&[range, ("if-range", "W/\"a\"")], Given::Whole),
            (&[range, ("if-range", "\"b\"")], Given::Whole),
            (&[range, ("if-range", "-3000")], part.clone()),
            (&[range, ("if-range", "-2999")], Given::Whole),
            (&[range, ("if-range", "x")], Given::Whole),
        ] {
            assert_eq!(of(&stored, "GET", asked), expected, "{asked:?}");
        }
        assert_eq!(of(&stored, "HEAD", &[range]), Given::Whole);
        assert_eq!(answer_to(&request("GET", &[range]), &stored, None), Given::Whole);
        assert!(matches!(of(&stored, "GET", &[("range", "bytes=0-1,5-6")]), Given::Parts(_)));
        let just_made =
            super::stored(&[("cache-control", "max-age=60"), ("date", "0"), ("last-modified", "0")]);
        let date = at(0);
        assert_eq!(of(&just_made, "GET", &[range, ("if-range", &date)]), Given::Whole);
    }

    fn head(given: &Given, age: u64) -> Vec<String> {
        let head = given.head(&stored(OLD), age, Some(10));
        let mut all = vec![head.status.as_u16().to_string()];
        let skipped = ["date", "last-modified", "cache-control"];
        let shown = head.headers.iter().filter(|(name, _)| !skipped.contains(&name.as_str()));
        all.extend(shown.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
        all[1..].sort_unstable();
        all
    }

    /// RFC 9111 section 4 (`Age`), RFC 9110 sections 15.3.7, 15.4.5, 15.5.13, 15.5.17
    #[test]
    fn heads() {
        let whole = ["content-type: text/plain", "etag: \"a\"", "x-other: 1"];
        assert_eq!(
            head(&Given::Whole, 33_999),
            [&["200", "age: 33", "content-length: 10"][..], &whole].concat()
        );
        let part = head(&Given::Part { part: 0..2, of: 10 }, 0);
        let expected =
            [&["206", "age: 0", "content-length: 2", "content-range: bytes 0-1/10"][..], &whole].concat();
        assert_eq!(part, expected);
        assert_eq!(head(&Given::NotModified, 5000), ["304", "age: 5", "etag: \"a\""]);
        assert_eq!(
            head(&Given::PreconditionFailed, 0),
            ["412", "age: 0", "content-length: 0", "etag: \"a\""]
        );
        let unsatisfiable = head(&Given::Unsatisfiable { length: 10 }, 0);
        let expected = [
            "416",
            "accept-ranges: bytes",
            "age: 0",
            "content-length: 0",
            "content-range: bytes */10",
            "etag: \"a\"",
        ];
        assert_eq!(unsatisfiable, expected);
        let parts = of(&stored(OLD), "GET", &[("range", "bytes=0-1,5-6")]);
        let shown = head(&parts, 0);
        assert!(
            shown[0] == "206"
                && shown.iter().any(|field| field.starts_with("content-type: multipart/byteranges"))
        );
        assert!(shown.iter().all(|field| !field.starts_with("content-range")));
    }
}

/// Section 4.2: whatever an answer says, it is never fresher than it says, and nothing panics.
mod properties {
    use super::*;

    fn name() -> impl Strategy<Value = &'static str> {
        let names = [
            "cache-control",
            "cdn-cache-control",
            "expires",
            "date",
            "age",
            "vary",
            "etag",
            "last-modified",
            "set-cookie",
            "content-length",
            "connection",
            "range",
            "if-range",
            "if-none-match",
            "if-modified-since",
            "pragma",
        ];
        proptest::sample::select(names.to_vec())
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,30}",
            "(max-age|s-maxage|stale-if-error|max-stale)=[0-9]{1,22}",
            "(no-store|no-cache|private|public)(, max-age=[0-9]{1,5})?",
            any::<i32>().prop_map(|seconds| at(i64::from(seconds))),
            "[0-9]{1,22}",
            "bytes=[0-9,-]{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_too_fresh(
            old in proptest::collection::vec((name(), value()), 0..8),
            new in proptest::collection::vec((name(), value()), 0..8),
            asked in proptest::collection::vec((name(), value()), 0..8),
            status in 200_u16..600, after in any::<u64>(), heuristic in any::<bool>(),
        ) {
            let pairs = |fields: &[(&'static str, String)]| -> Vec<(&'static str, String)> { fields.to_vec() };
            let head = |status, fields: &[(&'static str, String)]| {
                let fields = pairs(fields);
                let borrowed: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                answer(status, &borrowed)
            };
            let rules = rules(Cache { heuristic, ttl: Some(Span::secs(5)), ..Cache::default() });
            let mut asking = request("GET", &[]);
            asking.headers.extend(head(200, &asked).headers.into_iter().filter_map(|(name, value)| Some((name?, value))));
            let Ok(kept) = kept(&rules, &asking, &head(status, &old)) else { return Ok(()) };
            let stored = kept.stored(());
            let Asks::LookUp(directives) = rules.asks(&asking) else { return Ok(()) };
            let now = NOW.saturating_add(after);
            let age = current_age(&stored.facts, now);
            if let Verdict::Fresh { .. } = judge(&stored, &directives, now) {
                prop_assert!(age < stored.facts.lifetime);
            }
            let given = answer_to(&asking, &stored, Some(20));
            let given = given.head(&stored, age, Some(20));
            prop_assert!(given.headers.contains_key("age"));
            let (answer, x) = (head(304, &new), Exchange::default());
            let of = Answered { request: &asking, sent: &asking.headers, x: &x, answer: &answer, times: AT_ONCE };
            let _ = merge(&rules, &stored, &of);
            let _ = head_effect(&stored, &answer);
            let mut delete = asking;
            delete.method = Method::DELETE;
            let _ = invalidated_by(&delete, &x, &head(status, &new));
        }
    }
}
