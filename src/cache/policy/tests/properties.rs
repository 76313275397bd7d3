//! Section 4.2: whatever an answer says, it is never fresher than it says, and nothing panics.

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
