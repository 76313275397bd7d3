//! Section 4.2.4 and RFC 5861: what is given stale.

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
    assert_eq!(judged(&expired, "", 5), Verdict::Stale { age: 5, while_revalidating: true, on_error: true });
    assert!(!is_given(judged(&expired, "max-stale", 5)));
    let without = stored(&[("cache-control", "max-age=100")]);
    without.expire();
    assert_eq!(judged(&without, "", 5), never);
}
