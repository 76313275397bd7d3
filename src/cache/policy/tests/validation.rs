//! Section 4.3: validation.

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
    assert_eq!(conditions(&[control, ("etag", "W/\"a\"")]), std::slice::from_ref(&etag));
    assert_eq!(conditions(&[control, ("last-modified", "-100")]), std::slice::from_ref(&modified));
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
    let merged = merged(OLD, &[("etag", "\"a\""), ("cache-control", "no-store"), ("x-new", "1")]).unwrap();
    assert_eq!(merged.again, Err(Why::NoStore));
    assert_eq!(merged.kept.head.headers["x-new"], "1");
    let varying = merged_vary();
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
