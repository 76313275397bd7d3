//! Parts of a request that something is keyed by.

use super::text::text_value;
use std::fmt;
use std::str::FromStr;

/// A part of the request that is hashed: `client_ip`, `consumer`, `path`, `header:NAME`, `cookie:NAME`, `query:NAME`, `param:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The client's address.
    ClientIp,
    /// The consumer, or what the credential calls its bearer.
    Consumer,
    /// The path.
    Path,
    /// A header field.
    Header(http::HeaderName),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
    /// A path parameter.
    Param(String),
}

impl FromStr for Key {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match (kind, name) {
            ("client_ip", "") => Ok(Key::ClientIp),
            ("consumer", "") => Ok(Key::Consumer),
            ("path", "") => Ok(Key::Path),
            ("header", name) if !name.is_empty() => {
                name.parse().map(Key::Header).map_err(|_| format!("`{name}` is not a header name"))
            }
            ("cookie", name) if !name.is_empty() => Ok(Key::Cookie(name.to_owned())),
            ("query", name) if !name.is_empty() => Ok(Key::Query(name.to_owned())),
            ("param", name) if !name.is_empty() => Ok(Key::Param(name.to_owned())),
            _ => Err(format!(
                "`{text}` is not a key\nhelp: write client_ip, consumer, path, header:NAME, cookie:NAME, query:NAME or param:NAME"
            )),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::ClientIp => f.write_str("client_ip"),
            Key::Consumer => f.write_str("consumer"),
            Key::Path => f.write_str("path"),
            Key::Header(name) => write!(f, "header:{name}"),
            Key::Cookie(name) => write!(f, "cookie:{name}"),
            Key::Query(name) => write!(f, "query:{name}"),
            Key::Param(name) => write!(f, "param:{name}"),
        }
    }
}

text_value!(Key, "Key", pattern: r"^(client_ip|consumer|path|(header|cookie|query|param):.+)$", "client_ip, consumer, path, header:NAME, cookie:NAME, query:NAME or param:NAME");
