//! What a request that changes something makes invalid (RFC 9111 section 4.4).

use crate::cache::key::{canonical_url, url};
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderName, Method};
use smallvec::SmallVec;

/// The addresses whose stored answers must be validated before they are given again: that of the request, and those in
/// `Location` and `Content-Location` with the same origin. None for a safe method or an answer that tells of an error.
pub fn invalidated_by(request: &RequestHead, x: &Exchange, answer: &ResponseHead) -> SmallVec<[String; 3]> {
    let mut urls = SmallVec::new();
    if is_safe(&request.method) || !(answer.status.is_success() || answer.status.is_redirection()) {
        return urls;
    }
    let own = url(request, x);
    for name in [LOCATION, CONTENT_LOCATION] {
        if let Some(url) = referred(&own, answer, &name).filter(|url| same_origin(url, &own)) {
            urls.push(url);
        }
    }
    urls.push(own);
    urls.dedup();
    urls
}

/// RFC 9110 section 9.2.1, and QUERY.
fn is_safe(method: &Method) -> bool {
    method.is_safe() || method.as_str() == "QUERY"
}

/// The address in a field, resolved against that of the request (RFC 3986 section 5.2).
fn referred(own: &str, answer: &ResponseHead, name: &HeaderName) -> Option<String> {
    let reference = answer.headers.get(name)?.to_str().ok()?.trim();
    let reference = reference.split('#').next().unwrap_or_default();
    let (scheme, rest) = own.split_once("://")?;
    let origin_end = rest.find('/').unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(origin_end)?;
    let path = target.split('?').next().unwrap_or_default();
    if reference.contains("://")
        && reference.split(['/', '?']).next().is_some_and(|scheme| scheme.ends_with(':'))
    {
        return Some(canonical_url(reference));
    }
    if let Some(rest) = reference.strip_prefix("//") {
        return Some(canonical_url(&format!("{scheme}://{rest}")));
    }
    let target = match reference.chars().next() {
        None => target.to_owned(),
        Some('/') => without_dots(reference),
        Some('?') => format!("{path}{reference}"),
        Some(_) => {
            let folder = path.rfind('/').and_then(|slash| path.get(..=slash)).unwrap_or("/");
            without_dots(&format!("{folder}{reference}"))
        }
    };
    Some(canonical_url(&format!("{scheme}://{authority}{target}")))
}

/// RFC 3986 section 5.2.4.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let folder = path.ends_with("/.") || path.ends_with("/..");
    let slash = if folder && !kept.is_empty() { "/" } else { "" };
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    format!("/{}{slash}{query}", kept.join("/"))
}

fn same_origin(url: &str, own: &str) -> bool {
    let origin = |url: &str| url.split('/').take(3).map(str::to_owned).collect::<Vec<_>>();
    origin(url) == origin(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::HOST;

    fn invalidated(method: &str, status: u16, fields: &[(HeaderName, &str)]) -> Vec<String> {
        let (mut request, ()) =
            http::Request::builder().method(method).uri("/a/b?y=1&x=2").body(()).unwrap().into_parts();
        request.headers.insert(HOST, HeaderValue::from_static("h.example"));
        let (mut answer, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
        for (name, value) in fields {
            answer.headers.insert(name, value.parse().unwrap());
        }
        invalidated_by(&request, &Exchange::default(), &answer).into_vec()
    }

    const OWN: &str = "http://h.example/a/b?x=2&y=1";

    #[test]
    fn unsafe_requests_that_succeed_invalidate() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
            for status in [200, 204, 303] {
                assert_eq!(invalidated(method, status, &[]), [OWN], "{method} {status}");
            }
            assert!(invalidated(method, 404, &[]).is_empty() && invalidated(method, 500, &[]).is_empty());
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"] {
            assert!(invalidated(method, 200, &[]).is_empty(), "{method}");
        }
    }

    #[test]
    fn locations_of_the_same_origin_are_invalidated() {
        for (reference, url) in [
            ("/c", Some("http://h.example/c")),
            ("c?q", Some("http://h.example/a/c?q")),
            ("../c/./d/..", Some("http://h.example/c/")),
            ("../../../..", Some("http://h.example/")),
            ("?q", Some("http://h.example/a/b?q")),
            ("http://H.example:80/c#f", Some("http://h.example/c")),
            ("//h.example/c", Some("http://h.example/c")),
            ("https://h.example/c", None),
            ("http://h.example.evil/c", None),
            ("http://other/c", None),
            ("//other/c", None),
            ("mailto:a", Some("http://h.example/a/mailto:a")),
        ] {
            for name in [LOCATION, CONTENT_LOCATION] {
                let expected: Vec<&str> = url.into_iter().chain([OWN]).collect();
                assert_eq!(invalidated("POST", 201, &[(name, reference)]), expected, "{reference}");
            }
        }
    }
}
