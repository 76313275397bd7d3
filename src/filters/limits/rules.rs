//! Limits, quotas and plans, as written.

use crate::store::{Date, TimeZone, Unit};
use crate::value::{Name, Positive, Rate, Short, Span, Spanned, short_value, text_value};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A limit. Short: `20/s burst 40 per consumer`.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitRule {
    /// How many in how long.
    pub rate: Rate,
    /// How many at once.
    pub burst: Option<u32>,
    /// Whose requests are counted together.
    pub per: Per,
    /// How much one request counts.
    pub cost: Option<u32>,
    /// What becomes of a request that has nothing to be counted by.
    pub on_missing: Option<OnMissing>,
    /// Whether it only watches.
    pub shadow: bool,
    /// Which routes count together.
    pub scope: Option<Scope>,
    /// Counts together with every limit of this name.
    pub shared: Option<Name>,
}

/// A limit in full.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LimitInFull {
    /// How many in how long: `20/s`, `1000/h`.
    rate: Rate,
    /// How many may come at once; they come back at the rate. Default: as many as the rate counts.
    burst: Option<u32>,
    /// Whose requests are counted together: `client_ip`, `consumer`, `credential`, `header:NAME`, `cookie:NAME`,
    /// `query:NAME`, `param:NAME`, `claim:PATH`, `route`, `api`, `global`, or several joined by `+`.
    per: Per,
    /// How much one request counts. Default 1.
    cost: Option<u32>,
    /// What becomes of a request that has nothing to be counted by: `deny` (default), `ip` (counted by client address) or
    /// `skip` (not limited).
    on_missing: Option<OnMissing>,
    /// Counts and logs, but refuses nothing.
    #[serde(default)]
    shadow: bool,
    /// Which routes count together: `route`, `api` or `global`. Default: those that the limit is written for, so on a
    /// route `route`, on an API `api`, in `defaults` `global`.
    scope: Option<Scope>,
    /// Counts together with every limit of this name, wherever it is written.
    shared: Option<Name>,
}

impl From<LimitInFull> for LimitRule {
    fn from(full: LimitInFull) -> Self {
        let LimitInFull { rate, burst, per, cost, on_missing, shadow, scope, shared } = full;
        LimitRule { rate, burst, per, cost, on_missing, shadow, scope, shared }
    }
}

impl Short for LimitRule {
    const SHORT: &'static str = "`20/s burst 40 per consumer`";

    fn from_short(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "{what}\nhelp: write for example `20/s burst 40 per consumer` or `1000/h per client_ip cost 5`"
            )
        };
        let mut words = text.split_whitespace();
        let rate = words.next().ok_or_else(|| wrong("a limit cannot be empty"))?.parse()?;
        let mut rule = LimitRule {
            rate,
            burst: None,
            per: Per(Vec::new()),
            cost: None,
            on_missing: None,
            shadow: false,
            scope: None,
            shared: None,
        };
        while let Some(word) = words.next() {
            if word == "shadow" {
                rule.shadow = true;
                continue;
            }
            let value = words.next().ok_or_else(|| wrong(&format!("`{word}` needs a value")))?;
            let number = || value.parse().map_err(|_| wrong(&format!("`{value}` is not a number")));
            match word {
                "burst" => rule.burst = Some(number()?),
                "cost" => rule.cost = Some(number()?),
                "per" => rule.per = value.parse()?,
                "shared" => rule.shared = Some(value.parse()?),
                _ => return Err(wrong(&format!("`{word}` is no part of a limit"))),
            }
        }
        if rule.per.0.is_empty() {
            return Err(wrong(&format!("`{text}` does not say whose requests it counts")));
        }
        Ok(rule)
    }
}

short_value!(LimitRule, long: LimitInFull);

impl fmt::Display for LimitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rate)?;
        if let Some(burst) = self.burst {
            write!(f, " burst {burst}")?;
        }
        write!(f, " per {}", self.per)?;
        if let Some(cost) = self.cost.filter(|cost| *cost != 1) {
            write!(f, " cost {cost}")?;
        }
        if let Some(shared) = &self.shared {
            write!(f, " shared {shared}")?;
        }
        if self.shadow {
            f.write_str(" shadow")?;
        }
        Ok(())
    }
}

/// Limits that are decided together; none at all turns inherited ones off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits(pub Vec<Spanned<LimitRule>>);

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Limits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a limit, a list of limits, or `none`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Limits, E> {
        if text == "none" {
            return Ok(Limits::default());
        }
        // The place of a single word is that of the setting itself.
        LimitRule::from_short(text).map(|rule| Limits(vec![Spanned::built_in(rule)])).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Limits, A::Error> {
        let mut limits = Vec::new();
        while let Some(limit) = seq.next_element()? {
            limits.push(limit);
        }
        Ok(Limits(limits))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Limits, A::Error> {
        let rule = LimitInFull::deserialize(MapAccessDeserializer::new(map))?.into();
        Ok(Limits(vec![Spanned::built_in(rule)]))
    }
}

impl JsonSchema for Limits {
    fn schema_name() -> Cow<'static, str> {
        "Limits".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let limit = generator.subschema_for::<LimitRule>();
        schemars::json_schema!({ "anyOf": [{ "const": "none" }, limit, { "type": "array", "items": limit }] })
    }
}

/// Whose requests are counted together: one or several keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Per(pub Vec<PerKey>);

impl FromStr for Per {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.split('+').map(|key| key.trim().parse()).collect::<Result<_, _>>().map(Per)
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, key) in self.0.iter().enumerate() {
            write!(f, "{}{key}", if number > 0 { "+" } else { "" })?;
        }
        Ok(())
    }
}

text_value!(Per, "Per", pattern: r"^.+$", "client_ip, consumer, credential, header:NAME, cookie:NAME, query:NAME, param:NAME, claim:PATH, route, api, global; several are joined by `+`");

/// One thing that requests are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerKey {
    /// The client's address; of IPv6 the first 64 bits.
    ClientIp,
    /// The consumer, or what a credential calls its bearer.
    Consumer,
    /// The credential: each key and each token by itself.
    Credential,
    /// A request header.
    Header(http::HeaderName),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
    /// A path parameter.
    Param(String),
    /// A claim.
    Claim(String),
    /// The route.
    Route,
    /// The API.
    Api,
    /// Nothing: all requests.
    Global,
}

impl FromStr for PerKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let named = !name.is_empty();
        match kind {
            "client_ip" if !named => Ok(PerKey::ClientIp),
            "consumer" if !named => Ok(PerKey::Consumer),
            "credential" if !named => Ok(PerKey::Credential),
            "route" if !named => Ok(PerKey::Route),
            "api" if !named => Ok(PerKey::Api),
            "global" if !named => Ok(PerKey::Global),
            "header" if named => {
                name.parse().map(PerKey::Header).map_err(|_| format!("`{name}` is not a header name"))
            }
            "cookie" if named => Ok(PerKey::Cookie(name.to_owned())),
            "query" if named => Ok(PerKey::Query(name.to_owned())),
            "param" if named => Ok(PerKey::Param(name.to_owned())),
            "claim" if named => Ok(PerKey::Claim(name.to_owned())),
            _ => Err(format!(
                "`{text}` is nothing that requests can be counted by\nhelp: write client_ip, consumer, credential, header:NAME, cookie:NAME, query:NAME, param:NAME, claim:PATH, route, api or global"
            )),
        }
    }
}

impl fmt::Display for PerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PerKey::ClientIp => f.write_str("client_ip"),
            PerKey::Consumer => f.write_str("consumer"),
            PerKey::Credential => f.write_str("credential"),
            PerKey::Header(name) => write!(f, "header:{name}"),
            PerKey::Cookie(name) => write!(f, "cookie:{name}"),
            PerKey::Query(name) => write!(f, "query:{name}"),
            PerKey::Param(name) => write!(f, "param:{name}"),
            PerKey::Claim(path) => write!(f, "claim:{path}"),
            PerKey::Route => f.write_str("route"),
            PerKey::Api => f.write_str("api"),
            PerKey::Global => f.write_str("global"),
        }
    }
}

/// What becomes of a request that has nothing to be counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// Refused with 403.
    #[default]
    Deny,
    /// Counted by client address.
    Ip,
    /// Not limited.
    Skip,
}

/// Which routes count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Each route by itself.
    Route,
    /// All routes of the API.
    Api,
    /// All routes.
    Global,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scope::Route => "route",
            Scope::Api => "api",
            Scope::Global => "global",
        })
    }
}

/// What a consumer may do.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Limits over all routes together, besides those of the routes.
    #[serde(default)]
    pub limits: Limits,
    /// How much may be used in a day, week or month.
    pub quota: Option<Spanned<QuotaRule>>,
}

/// How much a consumer may use in a day, week or month.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaRule {
    /// Requests in a time: `10000/day`, `100000/week` or `1000000/month`; with `reset: rolling` also `5000/30d`.
    pub requests: Spanned<Volume>,
    /// What becomes of a request beyond: `refuse` (429, default), `bill` (it passes and is counted) or `payment_required`
    /// (402).
    #[serde(default)]
    pub on_exceed: OnExceed,
    /// Time zone whose midnight ends a day, such as `Europe/Berlin`. Default `UTC`.
    pub timezone: Option<Spanned<String>>,
    /// When it begins anew: `calendar` (default: at midnight, on Monday, on the first), `rolling`, or the date of a
    /// beginning such as `2026-01-15`, from which days, weeks and months are counted.
    #[serde(default)]
    pub reset: Reset,
}

/// So many in a day, week or month, or in a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// How many.
    pub count: u64,
    /// In how long.
    pub unit: Length,
}

/// The time a quota is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A day, week or month.
    Unit(Unit),
    /// A length of time.
    Span(Span),
}

impl FromStr for Volume {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let help = "write for example `10000/day`, `100000/week`, `1000000/month` or `5000/30d`";
        let wrong = || format!("`{text}` is not a quota\nhelp: {help}");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let count = count.trim().parse().map_err(|_| wrong())?;
        if count == 0 {
            return Err(format!("`{text}` lets nothing through\nhelp: {help}"));
        }
        let unit = match unit.trim() {
            "day" | "d" => Length::Unit(Unit::Day),
            "week" | "w" => Length::Unit(Unit::Week),
            "month" | "mo" => Length::Unit(Unit::Month),
            "h" | "hour" | "m" | "min" | "minute" | "s" | "second" => {
                return Err(format!(
                    "`{text}` is a rate\nhelp: write it under `limits`, such as `{text} per consumer`"
                ));
            }
            span => Length::Span(span.parse().map_err(|_| wrong())?),
        };
        Ok(Volume { count, unit })
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.count)?;
        match self.unit {
            Length::Unit(Unit::Day) => f.write_str("day"),
            Length::Unit(Unit::Week) => f.write_str("week"),
            Length::Unit(Unit::Month) => f.write_str("month"),
            Length::Span(span) => span.fmt(f),
        }
    }
}

text_value!(Volume, "Volume", pattern: r"^[0-9]+ ?/ ?.+$", "so many in a time, such as `10000/month`");

/// What becomes of a request beyond its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExceed {
    /// 429.
    #[default]
    Refuse,
    /// It passes and is counted.
    Bill,
    /// 402.
    PaymentRequired,
}

/// When a quota begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// With each day, week or month of the calendar.
    #[default]
    Calendar,
    /// Never: what was used longer ago does not count.
    Rolling,
    /// A day, week or month after another, counted from a date.
    Anchor(Date),
}

impl FromStr for Reset {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "calendar" => Ok(Reset::Calendar),
            "rolling" => Ok(Reset::Rolling),
            date => date
                .parse::<jiff::civil::Date>()
                .map(|date| Reset::Anchor(Date { year: date.year(), month: date.month(), day: date.day() }))
                .map_err(|_| {
                    format!("`{text}` is no way to begin anew\nhelp: write `calendar`, `rolling` or a date such as `2026-01-15`")
                }),
        }
    }
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reset::Calendar => f.write_str("calendar"),
            Reset::Rolling => f.write_str("rolling"),
            Reset::Anchor(Date { year, month, day }) => write!(f, "{year:04}-{month:02}-{day:02}"),
        }
    }
}

text_value!(Reset, "Reset", pattern: r"^(calendar|rolling|[0-9]{4}-[0-9]{2}-[0-9]{2})$", "`calendar`, `rolling` or a date");

/// The time zone of this name.
///
/// # Errors
/// There is none.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    jiff::tz::TimeZone::get(name).map(|_| TimeZone(name.into())).map_err(|_| {
        format!("there is no time zone `{name}`\nhelp: write a name such as `Europe/Berlin` or `UTC`")
    })
}

/// Where limits are counted.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// `memory` (default) or `redis`, which `stores` must then have.
    #[serde(default)]
    pub store: StoreKind,
    /// With `redis`: `exact` (default) asks it for every request; `fast` counts here and tells the other nodes every
    /// `sync`, so that more may pass: `tollgate check` says how many.
    #[serde(default)]
    pub mode: Mode,
    /// What becomes of requests when Redis does not answer: they are limited by this node's own counters (`local`,
    /// default), pass (`allow`), or are refused with 503 (`deny`).
    #[serde(default)]
    pub on_failure: OnFailure,
    /// With `fast`: how often nodes tell each other what they counted. Default `100ms`.
    pub sync: Option<Spanned<Positive<Span>>>,
    /// With `fast`: how many nodes there are, for the bound that `check` prints. Default 2.
    pub nodes: Option<Spanned<Positive<u32>>>,
    /// Header fields that tell clients of their limits: `standard` (`RateLimit-Policy` and `RateLimit`, default), `legacy`
    /// (`X-RateLimit-Limit`, `-Remaining`, `-Reset`), `both` or `none`.
    #[serde(default)]
    pub headers: HeaderStyle,
}

/// What counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// This process.
    #[default]
    Memory,
    /// Redis.
    Redis,
}

/// How closely nodes count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each request is decided by Redis.
    #[default]
    Exact,
    /// Each request is decided here.
    Fast,
}

/// What becomes of requests when Redis does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Limited by this node's own counters.
    #[default]
    Local,
    /// They pass.
    Allow,
    /// Refused with 503.
    Deny,
}

/// Header fields that tell clients of their limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeaderStyle {
    /// `RateLimit-Policy` and `RateLimit`.
    #[default]
    Standard,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`.
    Legacy,
    /// Both.
    Both,
    /// None.
    None,
}
