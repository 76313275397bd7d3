//! What a rule asks of headers and query, beyond host, path and method.

use crate::value::query::{decoded, decoded_text, is_named, split_pair};
use http::header::{HeaderMap, HeaderName};
use regex::Regex;
use std::fmt;

/// What a value must be. Where a name stands several times, one of its values is enough.
#[derive(Clone, Debug)]
pub enum Test {
    /// Exactly this text.
    Is(String),
    /// Exactly one of these texts.
    OneOf(Vec<String>),
    /// The name is there, its value may be empty.
    Present,
    /// The name is not there.
    Absent,
    /// The expression is found in the value; it is not anchored.
    Matches(Regex),
}

/// A test of a request header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderTest {
    /// The name of the field.
    pub name: HeaderName,
    /// What its values are tested for. A value that is not UTF-8 matches no expression.
    pub test: Test,
}

/// A test of a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryTest {
    /// The name, decoded and case-sensitive.
    pub name: String,
    /// What its values are tested for, after decoding of escapes and of `+`.
    pub test: Test,
}

impl Test {
    /// Whether no value can satisfy both. Several values of one name could still, one each; that is accepted, because
    /// `x-version: 1` beside `x-version: 2` must be writable.
    pub fn excludes(&self, other: &Test) -> bool {
        match (self, other) {
            (Test::Is(ours), Test::Is(theirs)) => ours != theirs,
            (Test::Is(text), Test::Matches(regex)) | (Test::Matches(regex), Test::Is(text)) => {
                !regex.is_match(text)
            }
            (Test::OneOf(ours), Test::OneOf(theirs)) => !ours.iter().any(|text| theirs.contains(text)),
            (Test::OneOf(texts), Test::Is(text)) | (Test::Is(text), Test::OneOf(texts)) => {
                !texts.contains(text)
            }
            (Test::OneOf(texts), Test::Matches(regex)) | (Test::Matches(regex), Test::OneOf(texts)) => {
                !texts.iter().any(|text| regex.is_match(text))
            }
            (Test::Absent, other) | (other, Test::Absent) => !matches!(other, Test::Absent),
            _ => false,
        }
    }
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Test::Is(ours), Test::Is(theirs)) => ours == theirs,
            (Test::OneOf(ours), Test::OneOf(theirs)) => ours == theirs,
            (Test::Matches(ours), Test::Matches(theirs)) => ours.as_str() == theirs.as_str(),
            (Test::Present, Test::Present) | (Test::Absent, Test::Absent) => true,
            _ => false,
        }
    }
}

impl Eq for Test {}

impl HeaderTest {
    /// Whether a request with these headers passes.
    pub fn passes(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        match &self.test {
            Test::Is(text) => values.any(|value| value.as_bytes() == text.as_bytes()),
            Test::OneOf(texts) => {
                values.any(|value| texts.iter().any(|text| value.as_bytes() == text.as_bytes()))
            }
            Test::Present => headers.contains_key(&self.name),
            Test::Absent => !headers.contains_key(&self.name),
            Test::Matches(regex) => values
                .any(|value| std::str::from_utf8(value.as_bytes()).is_ok_and(|text| regex.is_match(text))),
        }
    }
}

impl QueryTest {
    /// Whether a request with this query (without `?`) passes.
    pub fn passes(&self, query: Option<&str>) -> bool {
        let mut values = query_values(query.unwrap_or_default(), &self.name);
        match &self.test {
            Test::Is(text) => values.any(|value| decoded(value).eq(text.bytes())),
            Test::OneOf(texts) => {
                values.any(|value| texts.iter().any(|text| decoded(value).eq(text.bytes())))
            }
            Test::Present => values.next().is_some(),
            Test::Absent => values.next().is_none(),
            Test::Matches(regex) => values.any(|value| regex.is_match(&decoded_text(value))),
        }
    }
}

/// Raw values of all parameters with this name; `a` alone has the empty value.
fn query_values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (key, value) = split_pair(pair);
        is_named(key, name).then_some(value.unwrap_or_default())
    })
}

impl fmt::Display for HeaderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header `{}` {}", self.name, self.test)
    }
}

impl fmt::Display for QueryTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query `{}` {}", self.name, self.test)
    }
}

/// Continues "header `x-a` …".
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Is(text) => write!(f, "is `{text}`"),
            Test::OneOf(texts) => write!(f, "is `{}`", texts.join("` or `")),
            Test::Present => f.write_str("is present"),
            Test::Absent => f.write_str("is absent"),
            Test::Matches(regex) => write!(f, "matches `{regex}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn regex(text: &str) -> Test {
        Test::Matches(Regex::new(text).unwrap())
    }

    fn is(text: &str) -> Test {
        Test::Is(text.to_owned())
    }

    fn one_of(texts: &[&str]) -> Test {
        Test::OneOf(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn headers() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("one"));
        headers.append("X-A", HeaderValue::from_static("v2"));
        headers.append("x-b", HeaderValue::from_bytes(b"v\xff").unwrap());
        for (name, test, passes) in [
            ("x-a", is("one"), true),
            ("x-a", is("v2"), true),
            ("x-a", is("One"), false),
            ("x-a", is("one, v2"), false),
            ("x-a", one_of(&["2", "v2"]), true),
            ("x-a", one_of(&["2", "v3"]), false),
            ("x-a", Test::Present, true),
            ("x-a", Test::Absent, false),
            ("x-c", Test::Present, false),
            ("x-c", Test::Absent, true),
            ("x-c", is(""), false),
            ("x-a", regex("^v[0-9]$"), true),
            ("x-a", regex("^w"), false),
            ("x-b", regex("v"), false),
        ] {
            let test = HeaderTest { name: name.parse().unwrap(), test };
            assert_eq!(test.passes(&headers), passes, "{test}");
        }
    }

    #[test]
    fn query() {
        for (query, name, test, passes) in [
            ("a=1&b=2", "b", is("2"), true),
            ("a=1&a=2", "a", is("2"), true),
            ("a=x%20y+z", "a", is("x y z"), true),
            ("%61=1", "a", is("1"), true),
            ("A=1", "a", is("1"), false),
            ("a", "a", is(""), true),
            ("a=%32", "a", one_of(&["v2", "2"]), true),
            ("a=3", "a", one_of(&["v2", "2"]), false),
            ("a", "a", Test::Present, true),
            ("&&", "", Test::Present, false),
            ("b=a", "a", Test::Absent, true),
            ("a=b=c", "a", is("b=c"), true),
            ("a=%4&b=%zz%41", "b", is("%zzA"), true),
            ("a=%4", "a", is("%4"), true),
            ("a=v%31", "a", regex("^v[0-9]$"), true),
            ("a=%ff", "a", regex("^\u{fffd}$"), true),
            ("", "a", Test::Absent, true),
        ] {
            let test = QueryTest { name: name.to_owned(), test };
            assert_eq!(test.passes(Some(query)), passes, "{query}: {test}");
        }
        assert!(QueryTest { name: "a".to_owned(), test: Test::Absent }.passes(None));
        assert!(!QueryTest { name: "a".to_owned(), test: is("") }.passes(None));
    }

    #[test]
    fn exclusion() {
        for (one, other, excludes) in [
            (is("1"), is("2"), true),
            (is("1"), is("1"), false),
            (is("1"), Test::Absent, true),
            (is("1"), Test::Present, false),
            (Test::Present, Test::Absent, true),
            (Test::Absent, Test::Absent, false),
            (regex("^v"), is("v1"), false),
            (regex("^v"), is("w1"), true),
            (regex("^v"), regex("^w"), false),
            (one_of(&["1", "v1"]), one_of(&["2", "v2"]), true),
            (one_of(&["1", "v1"]), one_of(&["1"]), false),
            (one_of(&["1", "v1"]), is("v1"), false),
            (one_of(&["1", "v1"]), is("2"), true),
            (one_of(&["1", "v1"]), regex("^v"), false),
            (one_of(&["1", "v1"]), regex("^w"), true),
            (one_of(&["1", "v1"]), Test::Absent, true),
        ] {
            assert_eq!((one.excludes(&other), other.excludes(&one)), (excludes, excludes), "{one} / {other}");
        }
    }
}
