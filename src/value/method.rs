//! Request methods as an operator may write them.

use super::text::text_value;
use std::fmt;
use std::str::FromStr;

/// A request method (RFC 9110 section 9): upper-case letters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MethodName(pub http::Method);

impl FromStr for MethodName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "CONNECT" {
            return Err("CONNECT is never forwarded".to_owned());
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            let upper = text.to_ascii_uppercase();
            return Err(format!(
                "`{text}` is not a method\nhelp: methods are written in capitals: `{upper}`"
            ));
        }
        text.parse().map(MethodName).map_err(|_| format!("`{text}` is not a method"))
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

text_value!(MethodName, "MethodName", pattern: r"^[A-Z][A-Z-]*$", "a request method in capitals");
