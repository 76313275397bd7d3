//! What a route does in the end: its `to:`.

use crate::value::{HeaderKey, Key, Map, Name, Percent, Short, Spanned, Template, short_value, text_value};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a request goes. Short: an upstream's name.
#[derive(Clone, Debug, PartialEq)]
pub enum To {
    /// To an upstream.
    Upstream(Name),
    /// To one of several upstreams, by weight.
    Split(Box<Split>),
    /// Nowhere: answered here.
    Respond(Box<Respond>),
    /// Nowhere: redirected.
    Redirect(Box<Spanned<Redirect>>),
}

/// Where a request goes, in full; exactly one of `upstream`, `split`, `respond` and `redirect`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ToInFull {
    /// An upstream's name.
    upstream: Option<Name>,
    /// Shares of upstreams; they add up to 100%.
    split: Option<Spanned<Map<Percent>>>,
    /// With `split`: what keeps a client with its upstream.
    sticky: Option<Spanned<Key>>,
    /// With `split`: lets a request choose.
    force: Option<HeaderChoice>,
    /// With `split`: tells the client which upstream it got.
    expose: Option<HeaderChoice>,
    /// An answer made here.
    respond: Option<Respond>,
    /// A redirect.
    redirect: Option<Spanned<Redirect>>,
}

impl TryFrom<ToInFull> for To {
    type Error = String;
    fn try_from(full: ToInFull) -> Result<Self, String> {
        let ToInFull { upstream, split, sticky, force, expose, respond, redirect } = full;
        if split.is_none() && (sticky.is_some() || force.is_some() || expose.is_some()) {
            return Err("`sticky`, `force` and `expose` belong to `split`".to_owned());
        }
        match (upstream, split, respond, redirect) {
            (Some(upstream), None, None, None) => Ok(To::Upstream(upstream)),
            (None, Some(arms), None, None) => Ok(To::Split(Box::new(Split { arms, sticky, force, expose }))),
            (None, None, Some(respond), None) => Ok(To::Respond(Box::new(respond))),
            (None, None, None, Some(redirect)) => Ok(To::Redirect(Box::new(redirect))),
            _ => Err("`to` needs exactly one action\nhelp: write one of upstream, split, respond, redirect"
                .to_owned()),
        }
    }
}

impl Short for To {
    const SHORT: &'static str = "an upstream's name";
    fn from_short(text: &str) -> Result<Self, String> {
        text.parse().map(To::Upstream)
    }
}

/// Adapter: a long form that can be wrong as a whole.
#[derive(Clone, Debug)]
struct ToChecked(To);

impl<'de> Deserialize<'de> for ToChecked {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let full = ToInFull::deserialize(deserializer)?;
        To::try_from(full).map(ToChecked).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ToChecked {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        ToInFull::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        ToInFull::json_schema(generator)
    }
}

impl From<ToChecked> for To {
    fn from(checked: ToChecked) -> Self {
        checked.0
    }
}

short_value!(To, long: ToChecked);

/// A weighted choice among upstreams.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Upstreams and their shares.
    pub arms: Spanned<Map<Percent>>,
    /// What keeps a client with its arm.
    pub sticky: Option<Spanned<Key>>,
    /// Lets a request choose its arm.
    pub force: Option<HeaderChoice>,
    /// Tells the client its arm.
    pub expose: Option<HeaderChoice>,
}

/// A header by its name.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderChoice {
    /// The header whose value is the upstream's name.
    pub header: HeaderKey,
}

/// An answer made by the gateway itself.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// Status, 200 to 599. Default 200.
    pub status: Option<Spanned<u16>>,
    /// Further header fields.
    #[serde(default)]
    pub headers: Map<Spanned<Template>, HeaderKey>,
    /// A body of plain text.
    pub text: Option<Spanned<Template>>,
    /// A body of HTML.
    pub html: Option<Spanned<Template>>,
    /// A body of JSON, written as YAML. Texts in it may use `${…}`.
    pub json: Option<Spanned<serde_json::Value>>,
    /// A file whose content is the body; its type follows its name.
    pub file: Option<Spanned<PathBuf>>,
}

/// A redirect. Short: `308 /orders/${path.rest}`, or `https` for the same address over TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Where to; `None` is the same address over `https`.
    pub to: Option<Template>,
    /// Whether the query of the request is kept.
    pub keep_query: bool,
}

/// A redirect in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RedirectInFull {
    /// 301, 302, 303, 307 or 308 (default).
    status: Option<RedirectStatus>,
    /// The new address: a path or a whole URL.
    to: Template,
    /// `keep` (default) or `drop` the query of the request. A `to` with a query of its own drops it.
    query: Option<KeepQuery>,
}

/// What becomes of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum KeepQuery {
    /// Keep it.
    Keep,
    /// Drop it.
    Drop,
}

/// A status that redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RedirectStatus(u16);

impl FromStr for RedirectStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "301" | "302" | "303" | "307" | "308" => Ok(RedirectStatus(text.parse().unwrap_or(308))),
            _ => Err(format!("`{text}` does not redirect\nhelp: use 301, 302, 303, 307 or 308")),
        }
    }
}

impl fmt::Display for RedirectStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(RedirectStatus, "RedirectStatus", pattern: r"^30[12378]$", "301, 302, 303, 307 or 308");

impl From<RedirectInFull> for Redirect {
    fn from(full: RedirectInFull) -> Self {
        let own_query = full
            .to
            .parts()
            .iter()
            .any(|part| matches!(part, crate::value::Part::Text(text) if text.contains('?')));
        let keep_query = full.query != Some(KeepQuery::Drop) && !own_query;
        Redirect { status: full.status.map_or(308, |status| status.0), to: Some(full.to), keep_query }
    }
}

impl Short for Redirect {
    const SHORT: &'static str = "`STATUS ADDRESS` or `https`";
    fn from_short(text: &str) -> Result<Self, String> {
        if text == "https" {
            return Ok(Redirect { status: 308, to: None, keep_query: true });
        }
        let (status, to) = text.split_once(' ').ok_or_else(|| {
            format!("`{text}` is not a redirect\nhelp: write for example `308 /new` or `https`")
        })?;
        Ok(RedirectInFull { status: Some(status.parse()?), to: to.trim_start().parse()?, query: None }.into())
    }
}

short_value!(Redirect, long: RedirectInFull);
