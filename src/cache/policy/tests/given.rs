//! RFC 9110 sections 13 and 14, RFC 9111 section 4.3.2: what is given.

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
    let just_made = super::stored(&[("cache-control", "max-age=60"), ("date", "0"), ("last-modified", "0")]);
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
    assert_eq!(head(&Given::Whole, 33_999), [&["200", "age: 33", "content-length: 10"][..], &whole].concat());
    let part = head(&Given::Part { part: 0..2, of: 10 }, 0);
    let expected =
        [&["206", "age: 0", "content-length: 2", "content-range: bytes 0-1/10"][..], &whole].concat();
    assert_eq!(part, expected);
    assert_eq!(head(&Given::NotModified, 5000), ["304", "age: 5", "etag: \"a\""]);
    assert_eq!(head(&Given::PreconditionFailed, 0), ["412", "age: 0", "content-length: 0", "etag: \"a\""]);
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
