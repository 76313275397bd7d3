//! Section 3: what is stored.

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
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599] {
        assert_eq!(why(&plain(), status, &[("cache-control", "max-age=60")]), None, "{status}");
    }
    for status in [206, 304, 412, 416] {
        assert_eq!(why(&plain(), status, &[("cache-control", "max-age=60")]), Some(Why::Partial), "{status}");
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
    assert_eq!(why(&plain(), 200, &[("last-modified", "-1000"), ("etag", "\"a\"")]), Some(Why::NoFreshness));
    assert_eq!(why(&plain(), 200, &[("cache-control", "public")]), Some(Why::NoFreshness));
}

#[test]
fn what_could_never_be_given_is_not_stored() {
    for control in ["max-age=0", "no-cache", "no-cache, max-age=60"] {
        assert_eq!(why(&plain(), 200, &[("cache-control", control)]), Some(Why::Stale), "{control}");
        assert_eq!(why(&plain(), 200, &[("cache-control", control), ("etag", "\"a\"")]), None, "{control}");
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
        keep(rules, &Answered { request: asked, sent: &asked.headers, x, answer: &answer, times: AT_ONCE })
            .err()
    };
    let own = rules(Cache { key: KeyRules { consumer: true, ..KeyRules::default() }, ..Cache::default() });
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
    let cache = Cache { tags: vec![Spanned::built_in("q:${query.b}".parse().unwrap())], ..Cache::default() };
    let headers = [("cache-control", "max-age=60"), ("cache-tag", "a, b,,a"), ("surrogate-key", "c  d")];
    let kept = keep_get(&rules(cache), 200, &headers).unwrap();
    let tags: Vec<&str> = kept.tags.iter().map(|tag| &**tag).collect();
    assert_eq!(tags, ["q:1", "a", "b", "c", "d"]);
    assert_eq!(kept.url, "http://h.example/a?b=1");
}
