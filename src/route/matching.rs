//! What a route matches, in its short and its long form.

use crate::value::{HeaderKey, Map, MethodName, PathPattern, Short, Spanned, short_value};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;

/// What a route matches. Short: `GET /orders/{id}` or `/orders/**`.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Methods; none means every method. GET also answers HEAD.
    pub methods: Option<Vec<MethodName>>,
    /// The path.
    pub path: PathPattern,
    /// Conditions on header fields; all must hold.
    pub headers: Map<Spanned<Condition>, HeaderKey>,
    /// Conditions on query parameters; all must hold.
    pub query: Map<Spanned<Condition>, String>,
}

/// What a route matches, in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MatchInFull {
    /// Methods; default: every method. GET also answers HEAD.
    methods: Option<Vec<MethodName>>,
    /// The path: `/exact`, `/with/{parameter}`, `/below/**` or `/below/{rest...}`.
    path: PathPattern,
    /// Conditions on header fields; all must hold.
    #[serde(default)]
    headers: Map<Spanned<Condition>, HeaderKey>,
    /// Conditions on query parameters; all must hold.
    #[serde(default)]
    query: Map<Spanned<Condition>, String>,
}

impl From<MatchInFull> for Match {
    fn from(full: MatchInFull) -> Self {
        Match { methods: full.methods, path: full.path, headers: full.headers, query: full.query }
    }
}

impl Short for Match {
    const SHORT: &'static str = "`METHOD /path` or `/path`";
    fn from_short(text: &str) -> Result<Self, String> {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => (Some(method), path.trim_start()),
            None => (None, text),
        };
        let methods = method.map(|method| method.parse().map(|method| vec![method])).transpose()?;
        Ok(Match { methods, path: path.parse()?, headers: Map::default(), query: Map::default() })
    }
}

short_value!(Match, long: MatchInFull);

/// A condition on one header field or query parameter. Short: the exact value, or the words `present` and `absent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There, with any value.
    Present,
    /// Not there.
    Absent,
    /// Exactly this.
    Exact(String),
    /// A regular expression finds something in it.
    Regex(String),
}

/// A condition in full; one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ConditionInFull {
    /// Exactly this, also where it is the word `present` or `absent`.
    Exact(String),
    /// A regular expression (RE2 syntax, linear time) finds something in it; use `^` and `$` to anchor.
    Regex(String),
}

impl From<ConditionInFull> for Condition {
    fn from(full: ConditionInFull) -> Self {
        match full {
            ConditionInFull::Exact(text) => Condition::Exact(text),
            ConditionInFull::Regex(text) => Condition::Regex(text),
        }
    }
}

impl Short for Condition {
    const SHORT: &'static str = "`present`, `absent` or the exact value";
    fn from_short(text: &str) -> Result<Self, String> {
        Ok(match text {
            "present" => Condition::Present,
            "absent" => Condition::Absent,
            exact => Condition::Exact(exact.to_owned()),
        })
    }
}

short_value!(Condition, long: ConditionInFull);

/// As the short form would say it; conditions are only hinted at.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, method) in self.methods.iter().flatten().enumerate() {
            write!(f, "{}{method}", if number == 0 { "" } else { "," })?;
        }
        write!(f, "{}{}", if self.methods.is_some() { " " } else { "" }, self.path)?;
        let conditions = self.headers.len() + self.query.len();
        if conditions > 0 { write!(f, " (+{conditions} conditions)") } else { Ok(()) }
    }
}
