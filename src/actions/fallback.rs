//! `fallback`: what is answered when the upstream fails (RS-02).

use super::to::Respond as RespondRule;
use super::{Proxy, Respond};
use crate::build::{Bind, Build};
use crate::reply::Kind;
use crate::value::{
    At, Code, Issue, Issues, Name, OneOrMany, Short, Spanned, Trigger, Trouble, at_least_one, short_value,
    text_value,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// What is answered instead when the upstream fails.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackRule {
    /// What counts as a failure: `connect` (no connection, or no TLS), `timeout`, `reset` (the connection broke, or what came
    /// is not HTTP), `unavailable` (no target can be picked), `breaker_open`, a status such as `503`, or `5xx`. Default: all
    /// of these words, and the statuses 502, 503 and 504.
    #[serde(default, deserialize_with = "at_least_one")]
    pub on: OneOrMany<Failure>,
    /// What is tried, in this order: `stale` (what the route's cache still has), `{ upstream: NAME }`, `{ respond: … }`.
    #[serde(rename = "try")]
    pub resorts: Spanned<OneOrMany<Spanned<ResortRule>>>,
}

/// What counts as a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No target could be picked.
    Unavailable,
    /// The upstream's breaker is open.
    BreakerOpen,
    /// Any status from 400 to 499.
    ClientError,
    /// What can go wrong with an attempt.
    Attempt(Trigger),
}

impl FromStr for Failure {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "unavailable" => Failure::Unavailable,
            "breaker_open" => Failure::BreakerOpen,
            "4xx" => Failure::ClientError,
            other => Failure::Attempt(other.parse().map_err(|_| {
                format!(
                    "`{text}` is no failure\nhelp: write connect, timeout, reset, unavailable, breaker_open, 4xx, 5xx or a \
                     status from 400 to 599"
                )
            })?),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Unavailable => "unavailable",
            Failure::BreakerOpen => "breaker_open",
            Failure::ClientError => "4xx",
            Failure::Attempt(trouble) => return trouble.fmt(f),
        })
    }
}

impl Failure {
    /// Whether it is this.
    fn is(self, trouble: Trouble) -> bool {
        match self {
            Failure::Attempt(trigger) => trigger.is(trouble),
            Failure::ClientError => matches!(trouble, Trouble::Status(400..=499)),
            Failure::Unavailable | Failure::BreakerOpen => false,
        }
    }
}

/// What counts as a failure when nothing is said.
const USUAL: [Failure; 8] = {
    const fn attempt(trouble: Trouble) -> Failure {
        Failure::Attempt(Trigger::Is(trouble))
    }
    [
        attempt(Trouble::Connect),
        attempt(Trouble::Timeout),
        attempt(Trouble::Reset),
        Failure::Unavailable,
        Failure::BreakerOpen,
        attempt(Trouble::Status(502)),
        attempt(Trouble::Status(503)),
        attempt(Trouble::Status(504)),
    ]
};

text_value!(Failure, "Failure", pattern: r"^(connect|timeout|reset|unavailable|breaker_open|[45]xx|[45][0-9][0-9])$", "a failure");

/// One thing that is tried instead.
#[derive(Clone, Debug, PartialEq)]
pub enum ResortRule {
    /// What the cache has, stale as it may be.
    Stale,
    /// Another upstream.
    Upstream(Name),
    /// An answer made here.
    Respond(Box<RespondRule>),
}

/// One thing that is tried instead: exactly one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum ResortInFull {
    /// Another upstream's name. A request that may have been acted on already goes there only if it may be sent twice, see
    /// `retry.methods`. If it fails, too, the next one is tried.
    Upstream(Name),
    /// An answer made here.
    Respond(Box<RespondRule>),
}

impl From<ResortInFull> for ResortRule {
    fn from(full: ResortInFull) -> Self {
        match full {
            ResortInFull::Upstream(name) => ResortRule::Upstream(name),
            ResortInFull::Respond(respond) => ResortRule::Respond(respond),
        }
    }
}

impl Short for ResortRule {
    const SHORT: &'static str = "`stale`";
    fn from_short(text: &str) -> Result<Self, String> {
        match text {
            "stale" => Ok(ResortRule::Stale),
            _ => Err(format!(
                "`{text}` cannot be tried\nhelp: write `stale`, `{{ upstream: {text} }}` or `{{ respond: … }}`"
            )),
        }
    }
}

short_value!(ResortRule, long: ResortInFull);

/// What is answered instead, ready to run.
pub struct Fallback {
    /// Where it is written.
    pub at: At,
    on: Vec<Failure>,
    /// What is tried, in this order.
    pub resorts: Vec<Resort>,
}

/// One thing that is tried instead.
pub enum Resort {
    /// What the cache has.
    Stale,
    /// Another upstream; it has one arm.
    Upstream(Proxy),
    /// An answer made here.
    Respond(Respond),
}

impl Fallback {
    /// Resolves and compiles the rule of a route that goes to `proxy`. `cached`: whether the route has a cache.
    pub fn new(
        rule: &Spanned<FallbackRule>,
        proxy: &Proxy,
        cached: bool,
        bind: Bind<'_>,
        build: &Build,
        issues: &mut Issues,
    ) -> Fallback {
        if rule.value.resorts.value.0.is_empty() {
            let issue = Issue::new(Code::EMPTY, "a fallback that tries nothing").at(rule.value.resorts.at);
            issues.push(issue.help("write `fallback: none`, or what to try"));
        }
        check_order(&rule.value.resorts.value.0, proxy, issues);
        let resorts = rule.value.resorts.value.0.iter();
        let resorts = resorts.filter_map(|resort| Resort::new(resort, cached, bind, build, issues)).collect();
        let on = match rule.value.on.0.as_slice() {
            [] => USUAL.to_vec(),
            triggers => triggers.to_vec(),
        };
        Fallback { at: rule.at, on, resorts }
    }

    /// In a few words, for `explain`.
    pub fn describe(&self) -> String {
        let on: Vec<String> = self.on.iter().map(Failure::to_string).collect();
        let resorts: Vec<String> = self.resorts.iter().map(Resort::describe).collect();
        format!("{}  on {}", resorts.join(", then "), on.join(", "))
    }

    /// Whether a failure of this kind calls for it.
    pub fn covers(&self, kind: Kind) -> bool {
        self.on.iter().any(|trigger| match trigger {
            Failure::Unavailable => {
                matches!(kind, Kind::NO_TARGET | Kind::NO_HEALTHY_TARGET | Kind::SATURATED)
            }
            Failure::BreakerOpen => kind == Kind::BREAKER_OPEN,
            trigger => troubles(kind).iter().any(|trouble| trigger.is(*trouble)),
        })
    }

    /// Whether an answer with this status calls for it.
    pub fn covers_status(&self, status: u16) -> bool {
        self.on.iter().any(|trigger| trigger.is(Trouble::Status(status)))
    }
}

/// What a failure of this kind is called; a connection that is not made in time is both.
fn troubles(kind: Kind) -> &'static [Trouble] {
    match kind {
        Kind::CONNECT_FAILED | Kind::TLS_FAILED => &[Trouble::Connect],
        Kind::CONNECT_TIMEOUT => &[Trouble::Connect, Trouble::Timeout],
        Kind::UPSTREAM_TIMEOUT => &[Trouble::Timeout],
        Kind::UPSTREAM_CLOSED | Kind::UPSTREAM_INVALID => &[Trouble::Reset],
        _ => &[],
    }
}

/// What is never reached, and what has failed already.
fn check_order(resorts: &[Spanned<ResortRule>], proxy: &Proxy, issues: &mut Issues) {
    let last = resorts.iter().position(|resort| matches!(resort.value, ResortRule::Respond(_)));
    for never in resorts.iter().skip(last.map_or(resorts.len(), |last| last + 1)) {
        let issue = Issue::new(Code::CONFLICT, "this is never tried: the `respond` before it always answers");
        issues.push(issue.at(never.at).help("put `respond` last"));
    }
    let mut asked: Vec<&Name> = Vec::new();
    for resort in resorts {
        let ResortRule::Upstream(name) = &resort.value else { continue };
        if asked.contains(&name) || proxy.is_only(name) {
            let message = format!("upstream `{name}` is asked once more after it has failed");
            let issue = Issue::new(Code::UNLIKELY, message).at(resort.at);
            issues.push(issue.help("name another one; asking the same again is what `retry` is for"));
        }
        asked.push(name);
    }
}

impl Resort {
    fn new(
        rule: &Spanned<ResortRule>,
        cached: bool,
        bind: Bind<'_>,
        build: &Build,
        issues: &mut Issues,
    ) -> Option<Resort> {
        match &rule.value {
            ResortRule::Stale if !cached => {
                let issue =
                    Issue::new(Code::CONFLICT, "there is nothing stale: the route has no cache").at(rule.at);
                issues.push(issue.help("give the route a `cache`, or leave `stale` out"));
                None
            }
            ResortRule::Stale => Some(Resort::Stale),
            ResortRule::Upstream(name) => {
                issues.take(Proxy::to_one(name, rule.at, bind.params, build)).map(Resort::Upstream)
            }
            ResortRule::Respond(respond) => {
                Respond::new(respond, rule.at, bind, build, issues).map(Resort::Respond)
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Resort::Stale => "stale".to_owned(),
            Resort::Upstream(proxy) => proxy.describe(),
            Resort::Respond(respond) => format!("respond {}", respond.status()),
        }
    }

    /// What it is called in the log, in metrics and towards the client.
    pub fn name(&self) -> &'static str {
        match self {
            Resort::Stale => "stale",
            Resort::Upstream(_) => "upstream",
            Resort::Respond(_) => "respond",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(words: &[&str]) -> Fallback {
        let on = words.iter().map(|word| word.parse().unwrap()).collect();
        Fallback { at: At::NOWHERE, on, resorts: Vec::new() }
    }

    #[test]
    fn each_failure_has_its_word() {
        for (word, kinds) in [
            ("connect", &[Kind::CONNECT_FAILED, Kind::CONNECT_TIMEOUT, Kind::TLS_FAILED][..]),
            ("timeout", &[Kind::CONNECT_TIMEOUT, Kind::UPSTREAM_TIMEOUT]),
            ("reset", &[Kind::UPSTREAM_CLOSED, Kind::UPSTREAM_INVALID]),
            ("unavailable", &[Kind::NO_TARGET, Kind::NO_HEALTHY_TARGET, Kind::SATURATED]),
        ] {
            let fallback = on(&[word]);
            let covered = Kind::ALL.iter().filter(|(kind, _)| fallback.covers(*kind)).count();
            assert_eq!(covered, kinds.len(), "{word}");
            assert!(kinds.iter().all(|kind| fallback.covers(*kind)), "{word}");
            assert!(!fallback.covers_status(503), "{word}");
        }
    }

    #[test]
    fn statuses_are_single_or_a_class() {
        let fallback = on(&["5xx", "404"]);
        assert_eq!(
            [404, 405, 499, 500, 599].map(|status| fallback.covers_status(status)),
            [true, false, false, true, true]
        );
        for word in ["200", "600", "3xx", "down", ""] {
            assert!(word.parse::<Failure>().is_err(), "{word}");
        }
        for word in ["connect", "timeout", "reset", "unavailable", "breaker_open", "4xx", "5xx", "503"] {
            assert_eq!(word.parse::<Failure>().unwrap().to_string(), word);
        }
    }
}
