//! Section 4.2: how long it is fresh.

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
        let headers: Vec<_> = headers.iter().copied().chain([("cache-control", "max-age=100000")]).collect();
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
        let facts = keep_get(&plain(), 200, &[("cache-control", "max-age=9"), ("age", age)]).unwrap().facts;
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
    let _ =
        judged(&stored, "max-stale=99999999999, min-fresh=99999999999, max-age=9999999999", u64::MAX - NOW);
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
    let bounded = cache(Cache { min: Some(Span::secs(10)), max: Some(Span::secs(100)), ..Cache::default() });
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
