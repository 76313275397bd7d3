//! What is special about listeners, as written.

use crate::value::{ByteSize, Cidr, OneOrMany, Span, Spanned, Within, text_value};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Load balancers that tell where connections come from by the PROXY protocol, version 1 or 2.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Addresses or networks whose every connection begins with a header of the PROXY protocol. From elsewhere none is taken.
    pub from: OneOrMany<Spanned<Cidr>>,
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

/// A number of header fields that the engine can read.
pub type HeaderCount = Within<1, 256>;

/// How long an idle connection is kept: a second or more, which is the engine's smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTime(pub Duration);

impl FromStr for IdleTime {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Span(time) = text.parse()?;
        match time.as_secs() {
            0 => Err(format!(
                "`{text}` is shorter than a second\nhelp: write `1s` or more; `requests: 1` ends every connection with its \
                 first answer"
            )),
            _ => Ok(IdleTime(time)),
        }
    }
}

impl fmt::Display for IdleTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span(self.0).fmt(f)
    }
}

text_value!(IdleTime, "IdleTime", pattern: r"^[0-9]+ ?(ms|s|m|min|h|d)$", "a duration of a second or more, such as `75s`");

/// A flow-control window of HTTP/2: no less than connections begin with (RFC 9113 section 6.9.2), no more than there can be
/// (section 6.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub u32);

impl Window {
    const LEAST: u64 = 65_535;
    const MOST: u64 = 0x7fff_ffff;
}

impl FromStr for Window {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let ByteSize(bytes) = text.parse()?;
        let fits = (Self::LEAST..=Self::MOST).contains(&bytes).then(|| u32::try_from(bytes).ok()).flatten();
        fits.map(Window).ok_or_else(|| {
            format!(
                "`{text}` is no window of HTTP/2\nhelp: write `{}B` (its own default), `1GiB` or anything between",
                Self::LEAST
            )
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ByteSize(u64::from(self.0)).fmt(f)
    }
}

text_value!(Window, "Window", pattern: r"^[0-9]+ ?([KMG]i?)?B$", "a size from 65535B to 2GiB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_within_what_can_be_done() {
        for text in ["1s", "90s", "1500ms"] {
            assert!(text.parse::<IdleTime>().is_ok(), "{text}");
        }
        for text in ["65535B", "64KiB", "1GiB", "2147483647B"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        assert!(["0s", "999ms", "1", ""].iter().all(|text| text.parse::<IdleTime>().is_err()));
        assert!(["0B", "65534B", "2GiB", "1"].iter().all(|text| text.parse::<Window>().is_err()));
    }

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
