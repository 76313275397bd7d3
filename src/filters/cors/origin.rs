//! Origins: `scheme://host:port` (RFC 6454 section 6.2).

use crate::value::{At, Code, Issue, Issues, Spanned};
use http::HeaderValue;
use regex::Regex;

/// A set of origins.
pub(super) struct Origins {
    any: bool,
    exact: Vec<Box<str>>,
    /// What stands before and after the `*`.
    below: Vec<(Box<str>, Box<str>)>,
    matching: Vec<Regex>,
}

impl Origins {
    /// Compiles what is written; what cannot be an origin is reported.
    pub(super) fn new(written: &[Spanned<String>], at: At, issues: &mut Issues) -> Origins {
        let mut origins = Origins { any: false, exact: Vec::new(), below: Vec::new(), matching: Vec::new() };
        if written.is_empty() {
            issues.push(
                Issue::new(Code::EMPTY, "`cors` allows no origin").at(at).help("name them in `origins`"),
            );
        }
        for origin in written {
            if let Err(cause) = origins.add(&origin.value) {
                issues.push(Issue::new(Code::BAD_VALUE, cause).at(origin.at).help(
                    "write for example `https://app.example.com`, `https://*.example.com`, `~https://.*`, `null` or `*`",
                ));
            }
        }
        origins
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        if let Some(pattern) = text.strip_prefix('~') {
            let regex = regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(1 << 20).build();
            self.matching.push(regex.map_err(|_| format!("`{pattern}` is not a regular expression"))?);
            return Ok(());
        }
        match text {
            "*" => self.any = true,
            "null" => self.exact.push("null".into()),
            _ => {
                let origin = text.to_ascii_lowercase();
                check(text, &origin)?;
                match origin.split_once("://*.") {
                    Some((scheme, rest)) => {
                        self.below.push((format!("{scheme}://").into(), format!(".{rest}").into()));
                    }
                    None => self.exact.push(origin.into()),
                }
            }
        }
        Ok(())
    }

    /// Whether every origin is one of them.
    pub(super) fn is_any(&self) -> bool {
        self.any
    }

    /// Whether an `Origin` is one of them.
    pub(super) fn allow(&self, origin: &HeaderValue) -> bool {
        if self.any {
            return true;
        }
        let Ok(origin) = origin.to_str() else { return false };
        self.exact.iter().any(|exact| **exact == *origin)
            || self.below.iter().any(|(begin, end)| is_below(origin, begin, end))
            || self.matching.iter().any(|regex| regex.is_match(origin))
    }
}

/// Whether an origin's host is below a domain. What stands for the `*` is made of what names are made of, so that
/// `https://evil.test#.example.com` is nobody.
fn is_below(origin: &str, begin: &str, end: &str) -> bool {
    let labels = origin.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    labels.is_some_and(|labels| !labels.is_empty() && labels.bytes().all(is_name))
}

fn check(text: &str, origin: &str) -> Result<(), String> {
    let (scheme, host) = origin.split_once("://").ok_or_else(|| format!("`{text}` has no scheme"))?;
    let host = host.strip_prefix("*.").unwrap_or(host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if host.contains('/') {
        return Err(format!("`{text}` has a path; an origin ends with its host or port"));
    }
    if matches!((scheme, host.rsplit_once(':')), ("https", Some((_, "443"))) | ("http", Some((_, "80")))) {
        return Err(format!("`{text}` names the usual port, which browsers leave out"));
    }
    let valid =
        !host.is_empty() && host.bytes().all(plain) && !scheme.is_empty() && scheme.bytes().all(is_scheme);
    if valid { Ok(()) } else { Err(format!("`{text}` is not an origin")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(written: &[&str]) -> (Origins, usize) {
        let mut issues = Issues::default();
        let written: Vec<_> = written.iter().map(|text| Spanned::built_in((*text).to_owned())).collect();
        let origins = Origins::new(&written, At::NOWHERE, &mut issues);
        let count = issues.0.len();
        (origins, count)
    }

    fn allows(written: &[&str], origin: &str) -> bool {
        let (origins, issues) = origins(written);
        assert_eq!(issues, 0, "{written:?}");
        origins.allow(&HeaderValue::from_str(origin).unwrap())
    }

    #[test]
    fn an_origin_is_compared_as_a_whole() {
        for (written, origin, expected) in [
            ("https://a.test", "https://a.test", true),
            ("https://A.test", "https://a.test", true),
            ("https://a.test", "http://a.test", false),
            ("https://a.test", "https://a.test:8443", false),
            ("https://a.test", "https://a.test.evil.test", false),
            ("https://*.a.test", "https://x.a.test", true),
            ("https://*.a.test", "https://x.y.a.test", true),
            ("https://*.a.test", "https://a.test", false),
            ("https://*.a.test", "https://evila.test", false),
            ("https://*.a.test", "https://evil.test/.a.test", false),
            ("https://*.a.test", "https://evil.test#.a.test", false),
            ("https://*.a.test", "https://u@.a.test", false),
            ("https://*.a.test:8443", "https://x.a.test:8443", true),
            ("~https://pr-[0-9]+\\.a\\.test", "https://pr-7.a.test", true),
            ("~https://pr-[0-9]+\\.a\\.test", "https://pr-7.a.test.evil.test", false),
            ("~https://a\\.test|http://b\\.test", "xhttp://b.test", false),
            ("null", "null", true),
            ("https://a.test", "null", false),
            ("*", "anything", true),
        ] {
            assert_eq!(allows(&[written], origin), expected, "{written} {origin}");
        }
    }

    #[test]
    fn what_no_browser_would_send_is_refused() {
        for written in [
            "a.test",
            "https://a.test/",
            "https://a.test/x",
            "https://a.test:443",
            "http://a.test:80",
            "https://",
            "~(",
            "https://a b",
        ] {
            assert_eq!(origins(&[written]).1, 1, "{written}");
        }
        assert_eq!(origins(&[]).1, 1);
    }
}
