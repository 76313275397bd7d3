//! `Vary`: which requests an answer may be given to (RFC 9111 section 4.1).
//!
//! Names and values are kept apart and compared as they are, never hashed or put together: no request can be made that looks
//! like another one.

use super::Why;
use http::header::{
    ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, FORWARDED, HOST, REFERER,
    USER_AGENT, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Fields of a request and what they said, in a normal form.
pub type Selected = Box<[(HeaderName, Option<HeaderValue>)]>;

/// The most fields that an answer may vary by.
const MOST_NAMES: usize = 16;

/// A value in its normal form.
pub(super) type Normal = SmallVec<[u8; 128]>;

/// Fields that are no lists of members: only where lines begin and end may be changed in them.
const NO_LISTS: [HeaderName; 5] = [USER_AGENT, COOKIE, AUTHORIZATION, REFERER, HOST];

/// Fields in which the case of letters says nothing (RFC 9110 sections 8.4.1, 12.5.2 and 12.5.4).
const CASELESS: [HeaderName; 3] = [ACCEPT_LANGUAGE, ACCEPT_ENCODING, ACCEPT_CHARSET];

/// What the gateway tells the upstream of a request whatever the client says; as far as an answer can depend on it, the key
/// has it.
const TOLD: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    FORWARDED,
    HOST,
];

/// What the answer to `request` varies by, where the head that the upstream has seen is `sent`.
///
/// # Errors
/// It varies by what no later request can be compared by: `*`, a name that is none, too many of them, or a field that the
/// gateway itself has written, so that what the client's field says is not what selected the answer.
pub fn of_answer(request: &HeaderMap, sent: &HeaderMap, answer: &HeaderMap) -> Result<Selected, Why> {
    if !answer.contains_key(VARY) {
        return Ok(Selected::default());
    }
    let mut selected: Vec<(HeaderName, Option<HeaderValue>)> = Vec::new();
    let names = answer.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    for name in names.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) {
        let name =
            HeaderName::from_bytes(name).ok().filter(|name| name.as_str() != "*").ok_or(Why::VaryStar)?;
        if selected.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let value = normal(request, &name);
        let seen = normal(sent, &name);
        if seen.is_some() && seen != value && !TOLD.contains(&name) {
            return Err(Why::VaryOfOurs);
        }
        let value =
            value.map(|value| HeaderValue::from_bytes(&value)).transpose().map_err(|_| Why::VaryStar)?;
        selected.push((name, value));
        if selected.len() > MOST_NAMES {
            return Err(Why::VaryStar);
        }
    }
    Ok(selected.into())
}

/// Whether a request is one that an answer was selected for.
pub fn matches(selected: &[(HeaderName, Option<HeaderValue>)], request: &HeaderMap) -> bool {
    selected.iter().all(|(name, value)| match (value, normal(request, name)) {
        (None, None) => true,
        (Some(value), Some(asked)) => value.as_bytes() == asked.as_slice(),
        _ => false,
    })
}

/// All lines of a field as one, without the spaces that lists may have; `None` when it is absent.
pub(super) fn normal(headers: &HeaderMap, name: &HeaderName) -> Option<Normal> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    let (is_list, lower) = (!NO_LISTS.contains(name), CASELESS.contains(name));
    let mut normal = Normal::new();
    push(&mut normal, first.as_bytes(), is_list);
    for line in lines {
        normal.push(if *name == COOKIE { b';' } else { b',' });
        push(&mut normal, line.as_bytes(), is_list);
    }
    if lower {
        normal.make_ascii_lowercase();
    }
    Some(normal)
}

fn push(normal: &mut Normal, line: &[u8], is_list: bool) {
    if !is_list || line.contains(&b'"') {
        // What stands in quotes may have commas and spaces of its own.
        return normal.extend_from_slice(line.trim_ascii());
    }
    for (number, member) in line.split(|byte| *byte == b',').enumerate() {
        if number > 0 {
            normal.push(b',');
        }
        normal.extend_from_slice(member.trim_ascii());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn selected(vary: &[&str], request: &[(&str, &str)]) -> Result<Selected, Why> {
        let vary: Vec<(&str, &str)> = vary.iter().map(|vary| ("vary", *vary)).collect();
        let request = headers(request);
        of_answer(&request, &request, &headers(&vary))
    }

    /// Section 4.1: a `*` always fails to match.
    #[test]
    fn a_star_matches_nothing() {
        for vary in
            [&["*"][..], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["*, Foo"], &["Foo, *"], &["a b"]]
        {
            assert_eq!(selected(vary, &[("foo", "1")]), Err(Why::VaryStar), "{vary:?}");
        }
        let many: Vec<String> = (0..=MOST_NAMES).map(|number| format!("n{number}")).collect();
        assert_eq!(selected(&[&many.join(",")], &[]), Err(Why::VaryStar));
    }

    /// Section 4.1: all nominated fields of the original request and the new one match; one that is absent matches only
    /// absence.
    #[test]
    fn all_fields_must_match() {
        let one = selected(&["Foo, bar", "Foo"], &[("foo", "1")]).unwrap();
        assert_eq!(one.len(), 2);
        for (request, same) in [
            (&[("foo", "1")][..], true),
            (&[("foo", "1"), ("baz", "2")], true),
            (&[("foo", "2")], false),
            (&[], false),
            (&[("foo", "1"), ("bar", "")], false),
            (&[("bar", "1")], false),
        ] {
            assert_eq!(matches(&one, &headers(request)), same, "{request:?}");
        }
        assert!(matches(&selected(&[], &[("foo", "1")]).unwrap(), &headers(&[])));
    }

    /// Section 4.1: whitespace, several lines of one field, and what the field's own syntax says is the same.
    #[test]
    fn what_means_the_same_matches() {
        for (name, stored, asked, same) in [
            ("foo", &["1, 2"][..], &["1", "2"][..], true),
            ("foo", &["1,2"], &[" 1, 2 "], true),
            ("foo", &["1,2"], &["2,1"], false),
            ("foo", &["a"], &["A"], false),
            ("foo", &["\"a, b\""], &["\"a,b\""], false),
            ("accept-language", &["en, de"], &[" eN ,   De"], true),
            ("accept-language", &["en, de"], &["de, en"], false),
            ("user-agent", &["a, b"], &["a,b"], false),
            ("cookie", &["a=1"], &["a=1", "b=2"], false),
        ] {
            let fields =
                |lines: &[&str]| headers(&lines.iter().map(|line| (name, *line)).collect::<Vec<_>>());
            let (stored_request, vary) = (fields(stored), headers(&[("vary", name)]));
            let selected = of_answer(&stored_request, &stored_request, &vary).unwrap();
            assert_eq!(matches(&selected, &fields(asked)), same, "{name} {stored:?} {asked:?}");
        }
    }

    /// A field that steps of the gateway have written, such as the tenant of a token, must not be taken from the client.
    #[test]
    fn fields_of_our_own_select_nothing() {
        let vary = headers(&[("vary", "x-tenant, x-forwarded-proto")]);
        let of = |client: &[(&str, &str)], sent: &[(&str, &str)]| {
            of_answer(&headers(client), &headers(sent), &vary)
        };
        assert_eq!(of(&[], &[("x-tenant", "a")]), Err(Why::VaryOfOurs));
        assert_eq!(of(&[("x-tenant", "b")], &[("x-tenant", "a")]), Err(Why::VaryOfOurs));
        assert!(of(&[("x-tenant", "a")], &[("x-tenant", "a"), ("x-forwarded-proto", "https")]).is_ok());
        assert!(of(&[("x-tenant", "a")], &[]).is_ok());
    }

    proptest! {
        #[test]
        fn every_request_matches_itself(values in proptest::collection::vec("[ -~]{0,20}", 0..4)) {
            let fields: Vec<(&str, &str)> = values.iter().map(|value| ("x-a", value.as_str())).collect();
            let request = headers(&fields);
            let selected = of_answer(&request, &request, &headers(&[("vary", "x-a")])).unwrap();
            prop_assert!(matches(&selected, &request));
        }
    }
}
