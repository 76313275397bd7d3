//! Header names as an operator may use them.

use super::text::text_value;
use http::HeaderName;
use std::fmt;
use std::str::FromStr;

/// A header field name that a rule may read or write, in lower case.
///
/// Names that decide how a message is framed or forwarded (RFC 9110 section 7.6.1, RFC 9112 section 6) belong to the
/// gateway and are refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderKey(pub HeaderName);

const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
];

impl AsRef<str> for HeaderKey {
    fn as_ref(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for HeaderKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let name = HeaderName::from_str(text).map_err(|_| {
            format!("`{}` is not a header name\nhelp: use letters, digits and `-`", text.escape_debug())
        })?;
        match name.as_str() {
            "host" => {
                Err("the `host` header has its own setting\nhelp: use `request: { host: … }`".to_owned())
            }
            framing if FRAMING.contains(&framing) => {
                Err(format!("`{framing}` belongs to the connection and cannot be changed by a rule"))
            }
            _ => Ok(HeaderKey(name)),
        }
    }
}

impl fmt::Display for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

text_value!(HeaderKey, "HeaderKey", pattern: r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "a header name");
