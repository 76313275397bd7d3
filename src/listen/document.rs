//! What is special about listeners, as written.

use crate::value::{Cidr, OneOrMany, text_value};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// Load balancers that tell where connections come from by the PROXY protocol, version 1 or 2.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Addresses or networks whose every connection begins with a header of the PROXY protocol. From elsewhere none is taken.
    pub from: OneOrMany<Cidr>,
}

/// How requests are sent to https: a status, and the port if it is not 443.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectHttps {
    /// 301, 302, 307 or 308.
    pub status: u16,
    /// Where TLS is spoken.
    pub port: u16,
}

impl FromStr for RedirectHttps {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (status, port) = text.split_once(" to ").unwrap_or((text, "443"));
        let status = status.parse().ok().filter(|status| matches!(status, 301 | 302 | 307 | 308));
        match (status, port.parse()) {
            (Some(status), Ok(port @ 1..)) => Ok(RedirectHttps { status, port }),
            _ => Err(format!(
                "`{text}` is no redirect\nhelp: write `308`, or `308 to 8443` where that is the port of https"
            )),
        }
    }
}

impl fmt::Display for RedirectHttps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            443 => self.status.fmt(f),
            port => write!(f, "{} to {port}", self.status),
        }
    }
}

text_value!(RedirectHttps, "RedirectHttps", pattern: r"^30[1278]( to [0-9]+)?$", "`308`, or `308 to 8443`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_print_as_parsed() {
        for text in ["308", "301 to 8443"] {
            assert_eq!(text.parse::<RedirectHttps>().unwrap().to_string(), text);
        }
        for text in ["", "300", "303", "308 to", "308 to 0", "308 to 65536", "to 443", "true"] {
            assert!(text.parse::<RedirectHttps>().is_err(), "{text}");
        }
    }
}
