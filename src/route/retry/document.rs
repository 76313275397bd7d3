//! Retries, as written.

use crate::value::{
    ByteSize, OneOrMany, Percent, Positive, Span, Spanned, Trigger, at_least_one, text_value,
};
use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// When a request is tried again. What cannot have reached a target may be whatever its method; all else only if it may be sent
/// twice, nothing has gone to the client, and no more of its body has been sent than `body` says. A retry goes to another target
/// where there is one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, 1 to 10. Default 2.
    pub attempts: Option<Attempts>,
    /// After which trouble: `connect` (no connection: tried elsewhere), `reset` (the connection broke before the answer began,
    /// or what came was not HTTP), `timeout` (no answer in time), statuses such as `503`, `5xx`. Default `[connect, reset]`.
    #[serde(default, deserialize_with = "at_least_one")]
    pub on: Option<OneOrMany<Trigger>>,
    /// Which requests may be sent twice: `idempotent` (GET, HEAD, PUT, DELETE, OPTIONS, TRACE), `all`, or methods. With an
    /// `Idempotency-Key`, every request may. Default `idempotent`.
    #[serde(default, deserialize_with = "at_least_one")]
    pub methods: Option<OneOrMany<RetryMethod>>,
    /// Most retries of the last ten seconds, as a share of the upstream's requests; ten are always allowed. One that finds a
    /// target after another could not be connected to does not count. Default `20%`.
    pub budget: Option<Percent>,
    /// How long one attempt may be without an answer, where that is shorter than `timeouts.response`. Default: as long.
    pub per_try_timeout: Option<Positive<Span>>,
    /// The pause before a retry; none after `connect`.
    pub backoff: Option<Backoff>,
    /// Most bytes of a request's body that are kept in memory to be sent again; a longer one is sent once. Default `64KiB`.
    pub body: Option<ByteSize>,
}

/// The pause before a retry: a random time up to `base`, for each further one up to twice as long.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// Longest pause before the first retry. Default `25ms`.
    pub base: Option<Spanned<Span>>,
    /// Longest pause at all, no less than `base`. Default `250ms`.
    pub max: Option<Spanned<Span>>,
}

/// Attempts in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts(pub u32);

impl FromStr for Attempts {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let attempts = text.parse().ok().filter(|attempts| (1..=10).contains(attempts)).map(Attempts);
        attempts
            .ok_or_else(|| format!("`{text}` is not a number of attempts\nhelp: write a number from 1 to 10"))
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(Attempts, "Attempts", pattern: r"^([1-9]|10)$", "a number from 1 to 10");

/// Requests that may be sent twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryMethod {
    /// Those whose repetition changes nothing.
    Idempotent,
    /// Every one.
    All,
    /// Those of this method.
    One(Method),
}

impl FromStr for RetryMethod {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "idempotent" => Ok(RetryMethod::Idempotent),
            "all" => Ok(RetryMethod::All),
            name => match name.parse::<crate::value::MethodName>() {
                Ok(method) => Ok(RetryMethod::One(method.0)),
                Err(_) => Err(format!(
                    "`{text}` is not a method\nhelp: write `idempotent`, `all` or methods in capitals"
                )),
            },
        }
    }
}

impl fmt::Display for RetryMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetryMethod::Idempotent => f.write_str("idempotent"),
            RetryMethod::All => f.write_str("all"),
            RetryMethod::One(method) => method.fmt(f),
        }
    }
}

text_value!(RetryMethod, "RetryMethod", pattern: r"^(idempotent|all|[A-Z][A-Z-]*)$", "`idempotent`, `all` or a method");
