//! Section 5.2.1: what clients ask for.

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
