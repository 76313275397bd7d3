//! `cors` as it is written.

use crate::value::{HeaderKey, MethodName, OneOrMany, Seconds, Spanned, at_least_one};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// How long browsers remember the answer to a preflight; Chromium remembers nothing longer than two hours.
pub(super) const MAX_AGE: Duration = Duration::from_secs(600);

/// What Firefox remembers at most; no browser remembers for longer.
pub(super) const LONGEST_AGE: Duration = Duration::from_secs(86_400);

/// Which pages of other origins may call (CORS). What the upstream says of it is replaced. Preflights are answered before
/// anything else, for the route of the method that they ask for.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsRules {
    /// Origins that may read answers: `https://app.example.com`, `https://*.example.com` for every host below,
    /// `~https://pr-[0-9]+\.example\.com` for a regular expression of the whole origin, `null`, or `*` for all.
    pub origins: OneOrMany<Spanned<String>>,
    /// Methods that they may use. Default: whichever they ask for and the routes answer.
    #[serde(default, deserialize_with = "at_least_one")]
    pub methods: OneOrMany<MethodName>,
    /// Header fields that they may send. Default: whichever they ask for.
    #[serde(default, deserialize_with = "at_least_one")]
    pub headers: OneOrMany<HeaderKey>,
    /// Header fields of answers that they may read, besides those that browsers always show.
    #[serde(default, deserialize_with = "at_least_one")]
    pub expose: OneOrMany<HeaderKey>,
    /// Whether requests may carry cookies and other credentials. Default `false`.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight. Default `10m`.
    pub max_age: Option<Spanned<Seconds>>,
    /// Whether pages of public networks may call a private one
    /// (<https://wicg.github.io/private-network-access/>). Default `false`.
    #[serde(default)]
    pub private_network: bool,
}
