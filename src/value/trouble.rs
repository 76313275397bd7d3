//! What can go wrong with an attempt to have a request answered, and which of it something reacts to.

use super::text::text_value;
use http::StatusCode;
use smallvec::SmallVec;
use std::fmt;
use std::str::FromStr;

/// How an attempt went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// No connection was made, or its TLS handshake failed: nothing was sent.
    Connect,
    /// The connection broke before the answer began, or what came was not HTTP.
    Reset,
    /// The connection was there, but no answer came in time.
    Timeout,
    /// An answer came, with this status.
    Status(u16),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Connect => f.write_str("connect"),
            Trouble::Reset => f.write_str("reset"),
            Trouble::Timeout => f.write_str("timeout"),
            Trouble::Status(status) => status.fmt(f),
        }
    }
}

/// One kind of trouble: `connect`, `reset`, `timeout`, a status such as `503`, or `5xx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// Exactly this.
    Is(Trouble),
    /// Any status of 500 and above.
    ServerError,
}

impl FromStr for Trigger {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let trouble = match text {
            "connect" => Trouble::Connect,
            "reset" => Trouble::Reset,
            "timeout" => Trouble::Timeout,
            "5xx" => return Ok(Trigger::ServerError),
            other => match other.parse() {
                Ok(status @ 400..=599) => Trouble::Status(status),
                _ => {
                    return Err(format!(
                        "`{text}` is nothing that can go wrong\nhelp: write connect, reset, timeout, 5xx or a status from 400 to 599"
                    ));
                }
            },
        };
        Ok(Trigger::Is(trouble))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Is(trouble) => trouble.fmt(f),
            Trigger::ServerError => f.write_str("5xx"),
        }
    }
}

impl Trigger {
    /// Whether it is this.
    pub fn is(self, trouble: Trouble) -> bool {
        match self {
            Trigger::Is(known) => known == trouble,
            Trigger::ServerError => matches!(trouble, Trouble::Status(500..)),
        }
    }
}

text_value!(Trigger, "Trigger", pattern: r"^(connect|reset|timeout|5xx|[45][0-9]{2})$", "`connect`, `reset`, `timeout`, `5xx` or a status");

/// What something reacts to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Triggers(SmallVec<[Trigger; 4]>);

impl Triggers {
    /// These.
    pub fn new(triggers: &[Trigger]) -> Self {
        Triggers(triggers.into())
    }

    /// Whether this is among them.
    pub fn has(&self, trouble: Trouble) -> bool {
        self.0.iter().any(|trigger| trigger.is(trouble))
    }

    /// Whether answers of this status are trouble.
    pub fn has_status(&self, status: StatusCode) -> bool {
        // Nearly every answer is good, and nothing below 400 can be written.
        status.as_u16() >= 400 && self.has(Trouble::Status(status.as_u16()))
    }
}

impl fmt::Display for Triggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, trigger) in self.0.iter().enumerate() {
            write!(f, "{}{trigger}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_read_print_and_match() {
        let triggers: Vec<Trigger> =
            ["connect", "429", "5xx"].iter().map(|text| text.parse().unwrap()).collect();
        let triggers = Triggers::new(&triggers);
        assert_eq!(triggers.to_string(), "connect, 429, 5xx");
        assert!(triggers.has(Trouble::Connect) && !triggers.has(Trouble::Reset));
        let has = |status| triggers.has_status(StatusCode::from_u16(status).unwrap());
        assert_eq!([200, 404, 429, 500, 503, 599].map(has), [false, false, true, true, true, true]);
        for bad in ["", "4xx", "200", "600", "never", "timeouts"] {
            assert!(bad.parse::<Trigger>().is_err(), "{bad}");
        }
    }
}
