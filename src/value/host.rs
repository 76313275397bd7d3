//! Host names: as written in `hosts`, and as they come with a request.

use super::text::text_value;
use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Which hosts a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// One host, in lower case; an IPv6 address stands in brackets.
    Exact(Box<str>),
    /// `*.example.com`: exactly one label before the suffix, which is kept here without `*.`.
    Wildcard(Box<str>),
    /// Every host, also none. It cannot be written: it is what applies where no hosts are given.
    #[default]
    Any,
}

impl HostPattern {
    /// Whether a host, as [`host_key`] gives it, is meant.
    pub fn matches(&self, host: Option<&str>) -> bool {
        match (self, host) {
            (HostPattern::Any, _) => true,
            (HostPattern::Exact(name), Some(host)) => **name == *host,
            (HostPattern::Wildcard(suffix), Some(host)) => parent_domain(host) == Some(suffix),
            (_, None) => false,
        }
    }

    /// Whether every host of `other` is one of ours.
    pub fn covers(&self, other: &HostPattern) -> bool {
        match other {
            HostPattern::Exact(name) => self.matches(Some(name)),
            HostPattern::Wildcard(_) => matches!(self, HostPattern::Any) || self == other,
            HostPattern::Any => matches!(self, HostPattern::Any),
        }
    }
}

/// What stands behind the first label: `example.com` of `a.example.com`. `None` where nothing does.
pub fn parent_domain(host: &str) -> Option<&str> {
    host.split_once('.').map(|(_, parent)| parent)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Wildcard(suffix) => write!(f, "*.{suffix}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.to_ascii_lowercase();
        refuse_mistakes(text, &host)?;
        if let Some(suffix) = host.strip_prefix("*.") {
            return if is_domain(suffix) {
                Ok(HostPattern::Wildcard(suffix.into()))
            } else {
                Err(format!(
                    "`{text}` is not a host pattern\nhelp: write `*.example.com`, with `*` for one label"
                ))
            };
        }
        match host_key(&host) {
            Some(key) => Ok(HostPattern::Exact(key.as_ref().into())),
            None => Err(format!(
                "`{text}` is not a host\nhelp: write `api.example.com`, `*.example.com` or `[2001:db8::1]`"
            )),
        }
    }
}

/// Finds what is likely to be written by mistake, and says what to write instead.
fn refuse_mistakes(text: &str, host: &str) -> Result<(), String> {
    let is_ip_v6 = host.parse::<Ipv6Addr>().is_ok();
    let (name, port) = host.rsplit_once(':').filter(|_| !host.ends_with(']')).unwrap_or((host, ""));
    if text == "*" {
        return Err("`*` is not a host\nhelp: leave out `hosts` to match every host".to_owned());
    }
    if let Some((scheme, rest)) = host.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        return Err(format!(
            "`{text}` is a URL, not a host\nhelp: write `{rest}`; `{scheme}` is a matter of the listener"
        ));
    }
    if is_ip_v6 {
        return Err(format!("an IPv6 address stands in brackets\nhelp: write `[{host}]`"));
    }
    if host.contains('/') {
        return Err(format!(
            "`{text}` contains a path\nhelp: write the host alone; paths belong into `base` or `match`"
        ));
    }
    if host.contains(':') && name.len() < host.len() && !name.contains(':')
        || name.ends_with(']') && !port.is_empty()
    {
        return Err(format!(
            "`{text}` contains a port\nhelp: write `{name}`; ports are ignored when hosts are compared"
        ));
    }
    if !host.is_ascii() {
        return Err(format!("`{text}` is not in ASCII\nhelp: write the IDN form that begins with `xn--`"));
    }
    if let Some(name) = host.strip_suffix('.') {
        return Err(format!(
            "`{text}` ends in a dot\nhelp: write `{name}`; a final dot in a request is ignored"
        ));
    }
    if host.strip_prefix("*.").unwrap_or(host).contains('*') {
        return Err(format!(
            "`{text}` is not a host pattern\nhelp: `*` can only stand for the first label, as in `*.example.com`"
        ));
    }
    Ok(())
}

text_value!(HostPattern, "HostPattern", pattern: r"^(\*\.)?[A-Za-z0-9._-]+$|^\[[0-9A-Fa-f:.]+\]$", "a host: `api.example.com`, `*.example.com` (one label) or `[2001:db8::1]`");

/// The host of a `Host` field or `:authority` in the form hosts are compared in: lower case, without port and without one
/// final dot; IPv6 addresses in their shortest form (RFC 5952).
///
/// `None` when it is no host by RFC 3986 section 3.2.2 as domain names and addresses use it: empty, with user
/// information, spaces, commas, slashes, escapes, or with a port that is not one.
pub fn host_key(host: &str) -> Option<Cow<'_, str>> {
    if host.starts_with('[') {
        return ip_v6_key(host);
    }
    let (name, port) = match memchr::memchr(b':', host.as_bytes()) {
        Some(colon) => (host.get(..colon)?, host.get(colon + 1..)?),
        None => (host, ""),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if !is_port(port) || !is_domain(name) {
        return None;
    }
    Some(lower_case(name))
}

fn ip_v6_key(host: &str) -> Option<Cow<'_, str>> {
    let (address, port) = host.strip_prefix('[')?.split_once(']')?;
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return None;
    }
    let parsed: Ipv6Addr = address.parse().ok()?;
    Some(Cow::Owned(format!("[{parsed}]")))
}

/// Digits of a port; none at all are allowed (RFC 3986 section 3.2.3).
fn is_port(text: &str) -> bool {
    text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Labels of letters, digits, `-` and `_`. The underscore is no host name by RFC 1123, but is in wide use.
fn is_domain(name: &str) -> bool {
    const LONGEST_NAME: usize = 253;
    const LONGEST_LABEL: usize = 63;
    let mut label = 0;
    for byte in name.bytes() {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => label = 0,
            b'-' | b'_' => label += 1,
            _ if byte.is_ascii_alphanumeric() => label += 1,
            _ => return false,
        }
        if label > LONGEST_LABEL {
            return false;
        }
    }
    label > 0 && name.len() <= LONGEST_NAME && !is_odd_number(name)
}

/// `127.1`, `0x7f.0.0.1`: ends in a number as an IPv4 address would, but is none (WHATWG URL, "ends in a number").
fn is_odd_number(name: &str) -> bool {
    // Nearly every name ends in a letter.
    if !name.ends_with(|last: char| last.is_ascii_digit()) {
        return false;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    last.bytes().all(|byte| byte.is_ascii_digit()) && name.contains('.') && name.parse::<Ipv4Addr>().is_err()
}

fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys() {
        let long = format!("{}.example", "a".repeat(64));
        for (raw, key) in [
            ("example.com", Some("example.com")),
            ("Example.COM:8080", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("example.com.:443", Some("example.com")),
            ("example.com:", Some("example.com")),
            ("localhost", Some("localhost")),
            ("my_service.local", Some("my_service.local")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]", Some("[::1]")),
            ("[0:0:0:0:0:0:0:1]:8443", Some("[::1]")),
            ("[2001:DB8::1]", Some("[2001:db8::1]")),
            ("", None),
            (":80", None),
            (".", None),
            ("..", None),
            (".a", None),
            ("a..b", None),
            ("example.com..", None),
            ("a b", None),
            ("a,b", None),
            ("a/b", None),
            ("a\\b", None),
            ("user@example.com", None),
            ("a%2eb", None),
            ("é.com", None),
            ("example.com:80:80", None),
            ("example.com:http", None),
            ("example.com:+80", None),
            ("example.com:65536", None),
            ("127.1", None),
            ("1.2.3.4.5", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[fe80::1%eth0]", None),
            ("[example.com]", None),
            (&long, None),
        ] {
            assert_eq!(host_key(raw).as_deref(), key, "{raw:?}");
        }
        assert!(matches!(host_key("example.com:80"), Some(Cow::Borrowed(_))));
    }

    #[test]
    fn patterns_print_as_parsed() {
        for (text, printed) in [
            ("API.example.com", "api.example.com"),
            ("*.Shop.example", "*.shop.example"),
            ("[::1]", "[::1]"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn mistakes_get_help() {
        for (text, help) in [
            ("*", "leave out `hosts`"),
            ("example.com:443", "write `example.com`"),
            ("[::1]:443", "write `[::1]`"),
            ("*.example.com:443", "write `*.example.com`"),
            ("https://example.com/x", "write `example.com`"),
            ("example.com/v1", "paths belong"),
            ("bücher.example", "xn--"),
            ("example.com.", "write `example.com`"),
            ("a.*.com", "first label"),
            ("*.*.com", "first label"),
            ("*example.com", "first label"),
            ("*.", "write"),
            ("::1", "write `[::1]`"),
            ("", "write"),
            ("a b", "write"),
        ] {
            let error = text.parse::<HostPattern>().unwrap_err();
            assert!(
                error.split_once("\nhelp: ").is_some_and(|(_, line)| line.contains(help)),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let pattern: HostPattern = "*.example.com".parse().unwrap();
        assert!(pattern.matches(Some("a.example.com")));
        assert!(!pattern.matches(Some("example.com")));
        assert!(!pattern.matches(Some("a.b.example.com")));
        assert!(!pattern.matches(None));
        assert!(HostPattern::Any.matches(None));
        assert!(pattern.covers(&"x.example.com".parse().unwrap()) && pattern.covers(&pattern));
        assert!(!pattern.covers(&HostPattern::Any) && HostPattern::Any.covers(&pattern));
    }

    proptest! {
        #[test]
        fn a_key_is_its_own_key(raw in prop_oneof!["\\PC{0,30}", "[a-zA-Z0-9.:\\[\\]_-]{0,20}"]) {
            let _ = raw.parse::<HostPattern>();
            if let Some(key) = host_key(&raw) {
                let again = host_key(&key);
                prop_assert_eq!(again.as_deref(), Some(&*key));
                prop_assert!(matches!(key.parse(), Ok(HostPattern::Exact(name)) if *name == *key));
            }
        }
    }
}
