//! From limits as written to limits that can be asked.

use super::super::Settings;
use super::fields;
use super::key::{Keyed, Keys};
use super::rules::{
    Length, LimitRule, Limits, OnExceed, Per, PerKey, Plan, QuotaRule, Reset, Scope, time_zone,
};
use crate::build::{Build, problem};
use crate::exchange::{Exchange, Policies, RequestHead};
use crate::observe::metrics::LimitMetrics;
use crate::store::{Cycle, Limit, Rule, TimeZone, Unit};
use crate::value::{At, Code, Issue, Issues, Name, Spanned};
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// What plans limit, by the plan's number.
#[derive(Clone, Default)]
pub struct Plans(Arc<[Option<Set>]>);

/// Limits that are told to clients together.
pub(super) struct Set {
    pub(super) limits: Vec<Compiled>,
    pub(super) policies: Arc<Policies>,
}

/// A limit that can be asked.
pub(super) struct Compiled {
    pub(super) limit: Limit,
    /// As written: what the log, the problem and `RateLimit` call it.
    pub(super) name: Arc<str>,
    pub(super) cost: u32,
    pub(super) shadow: bool,
    /// Whether what exceeds it must be paid for.
    pub(super) paid: bool,
    pub(super) metrics: LimitMetrics,
    keys: Keys,
    policy: String,
    quoted: Box<str>,
}

impl Plans {
    /// Compiles the plans of a configuration, in its order.
    pub fn new<'a>(
        plans: impl Iterator<Item = (&'a Spanned<Name>, &'a Plan)>,
        build: &Build,
        issues: &mut Issues,
    ) -> Plans {
        Plans(plans.map(|(name, plan)| Set::of_plan(name, plan, build, issues)).collect())
    }

    /// Whether no plan limits anything.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    pub(super) fn get(&self, number: usize) -> Option<&Set> {
        self.0.get(number)?.as_ref()
    }

    /// Every limit with the rule it counts by, for `check`.
    pub fn rules(&self) -> impl Iterator<Item = (&Arc<str>, &Rule)> {
        self.0.iter().flatten().flat_map(|set| &set.limits).map(|limit| (&limit.name, &limit.limit.rule))
    }
}

impl Set {
    fn new(limits: Vec<Compiled>) -> Option<Set> {
        let header = limits.iter().map(|limit| limit.policy.as_str()).collect::<Vec<_>>().join(", ");
        let each = limits.iter().map(|limit| (limit.quoted.clone(), limit.count())).collect();
        // Made of names and numbers of ours: it always is a field value.
        let header = HeaderValue::from_str(&header).ok()?;
        Some(Set { limits, policies: Arc::new(Policies { header, each }) })
            .filter(|set| !set.limits.is_empty())
    }

    /// The limits of a route: those that count by client address only, or the others.
    pub(super) fn of_route(
        limits: &Spanned<&Limits>,
        level: usize,
        settings: &Settings<'_>,
        by_address: bool,
        issues: &mut Issues,
    ) -> Option<Set> {
        let mut compiled: Vec<Compiled> = Vec::new();
        for rule in limits.value.0.iter().filter(|rule| counts_by_address(rule) == by_address) {
            let at = if rule.at.is_somewhere() { rule.at } else { limits.at };
            if let Some(issue) = unfit(rule, at, settings) {
                issues.push(issue);
                continue;
            }
            let scope = rule.scope.unwrap_or(match level {
                0 => Scope::Global,
                1 => Scope::Api,
                _ => Scope::Route,
            });
            let (api, route) = (settings.bind.api, settings.bind.route);
            let name = match (&rule.shared, scope) {
                (Some(shared), _) => format!("shared {shared}"),
                (None, Scope::Route) => format!("route {api}.{route}"),
                (None, Scope::Api) => format!("api {api}"),
                (None, Scope::Global) => "global".to_owned(),
            };
            compiled.extend(issues.take(Compiled::of_rate(rule, at, &name, settings, &compiled)));
        }
        Set::new(compiled)
    }

    fn of_plan(name: &Spanned<Name>, plan: &Plan, build: &Build, issues: &mut Issues) -> Option<Set> {
        let bind = crate::build::Bind { api: "", route: "", params: &[] };
        let mut compiled = Vec::new();
        for rule in &plan.limits.0 {
            let at = if rule.at.is_somewhere() { rule.at } else { name.at };
            if let Some(issue) = unfit_for_plan(rule, at) {
                issues.push(issue);
                continue;
            }
            let scope = match &rule.shared {
                Some(shared) => format!("shared {shared}"),
                None => format!("plan {}", name.value),
            };
            compiled.extend(issues.take(Compiled::new(rule, at, &scope, bind, build, &compiled)));
        }
        if let Some(quota) = &plan.quota {
            compiled.extend(issues.take(Compiled::of_quota(quota, &name.value, build)));
        }
        Set::new(compiled)
    }
}

/// Whether nothing but the client's address counts: then it is decided before anybody proves anything.
pub(super) fn counts_by_address(rule: &LimitRule) -> bool {
    rule.per.0 == [PerKey::ClientIp]
}

/// A limit that can never hold for the route.
fn unfit(rule: &LimitRule, at: At, settings: &Settings<'_>) -> Option<Issue> {
    let needs_caller = |key: &PerKey| matches!(key, PerKey::Consumer | PerKey::Credential | PerKey::Claim(_));
    for key in &rule.per.0 {
        if let PerKey::Param(name) = key
            && !settings.bind.params.contains(&name.as_str())
        {
            let message = format!("the path of route `{}` has no parameter `{name}`", settings.bind.route);
            return Some(Issue::new(Code::BAD_TEMPLATE, message).at(at));
        }
        if needs_caller(key) && !settings.has_callers() && rule.on_missing.is_none() {
            let message = format!(
                "the limit counts per {key}, but route `{}.{}` is public: nobody proves who they are",
                settings.bind.api, settings.bind.route
            );
            let help = "count `per client_ip`, or say with `on_missing` what becomes of such requests";
            return Some(Issue::new(Code::CONFLICT, message).at(at).help(help));
        }
    }
    None
}

fn unfit_for_plan(rule: &LimitRule, at: At) -> Option<Issue> {
    let local = rule.per.0.iter().find(|key| matches!(key, PerKey::Param(_) | PerKey::Route | PerKey::Api));
    if let Some(key) = local {
        let message = format!("a plan holds for all routes together and cannot count per {key}");
        return Some(Issue::new(Code::CONFLICT, message).at(at).help("write this limit on the route"));
    }
    rule.scope.map(|scope| {
        Issue::new(
            Code::CONFLICT,
            format!("a plan holds for all routes together: `scope: {scope}` has no place"),
        )
        .at(at)
    })
}

impl Compiled {
    fn of_rate(
        rule: &LimitRule,
        at: At,
        scope: &str,
        settings: &Settings<'_>,
        before: &[Compiled],
    ) -> Result<Compiled, Issue> {
        Compiled::new(rule, at, scope, settings.bind, settings.build, before)
    }

    fn new(
        rule: &LimitRule,
        at: At,
        scope: &str,
        bind: crate::build::Bind<'_>,
        build: &Build,
        before: &[Compiled],
    ) -> Result<Compiled, Issue> {
        let burst = rule.burst.unwrap_or(rule.rate.count);
        let cost = rule.cost.unwrap_or(1);
        if burst == 0 || cost == 0 {
            let message = "`burst` and `cost` of a limit are at least 1";
            return Err(Issue::new(Code::BAD_VALUE, message).at(at));
        }
        if cost > burst {
            let message =
                format!("a request costs {cost}, but at most {burst} may come at once: none ever passes");
            return Err(Issue::new(Code::CONFLICT, message).at(at).help("raise `burst` or lower `cost`"));
        }
        let period = rule.rate.period;
        // Two limits of one place may differ in nothing but their numbers.
        let twins = before.iter().filter(|other| other.is_twin(&rule.per, period)).count();
        let twin = if twins > 0 { format!(" {twins}") } else { String::new() };
        let name = format!("{scope} {} {}s{twin}", rule.per, period.as_secs());
        let written = format!("{} per {}", rule.rate, rule.per);
        let quoted = quoted(&written);
        Ok(Compiled {
            limit: Limit::new(name.into(), Rule::Rate { count: rule.rate.count, period, burst }),
            cost,
            shadow: rule.shadow,
            paid: false,
            metrics: build.metrics().limit(scope, &written),
            keys: Keys::new(
                &rule.per,
                rule.on_missing.unwrap_or_default(),
                bind.api,
                bind.route,
                bind.params,
            ),
            policy: fields::policy(&quoted, u64::from(rule.rate.count), Some(period.as_secs())),
            quoted: quoted.into(),
            name: written.into(),
        })
    }

    fn is_twin(&self, per: &Per, period: Duration) -> bool {
        let same = matches!(self.limit.rule, Rule::Rate { period: other, .. } if other == period);
        same && self.keys.is_per(per)
    }

    fn of_quota(quota: &Spanned<QuotaRule>, plan: &Name, build: &Build) -> Result<Compiled, Issue> {
        let QuotaRule { requests, on_exceed, timezone, reset } = &quota.value;
        let zone = match timezone {
            None => TimeZone("UTC".into()),
            Some(name) => {
                time_zone(&name.value).map_err(|message| problem(Code::BAD_VALUE, &message, name.at))?
            }
        };
        let cycle = cycle(requests, *reset, zone)?;
        let written = requests.to_string();
        let quoted = quoted(&written);
        let window = match requests.value.unit {
            Length::Unit(unit) => days(unit).map(|days| days * 86_400),
            Length::Span(span) => Some(span.0.as_secs()),
        };
        let per = Per(vec![PerKey::Consumer]);
        let scope = format!("plan {plan}");
        let count = requests.value.count;
        let rule = Rule::Quota { count, cycle, soft: *on_exceed == OnExceed::Bill };
        Ok(Compiled {
            limit: Limit::new(format!("{scope} quota").into(), rule),
            cost: 1,
            shadow: false,
            paid: *on_exceed == OnExceed::PaymentRequired,
            metrics: build.metrics().limit(&scope, &written),
            keys: Keys::new(&per, Default::default(), "", "", &[]),
            policy: fields::policy(&quoted, count, window),
            quoted: quoted.into(),
            name: written.into(),
        })
    }

    pub(super) fn key(&self, request: &RequestHead, x: &Exchange) -> Keyed {
        self.keys.of(request, x)
    }

    /// In a few words, with whose counter it is.
    pub(super) fn describe(&self, request: &RequestHead, x: &Exchange) -> String {
        let whose = match self.key(request, x) {
            Keyed::By(_) => "",
            Keyed::Skip => " (does not apply)",
            Keyed::Deny => " (nothing to count by)",
        };
        let shadow = if self.shadow { " (watching only)" } else { "" };
        format!("{}{whose}{shadow} [{}]", self.name, self.limit.name)
    }

    fn count(&self) -> u64 {
        match self.limit.rule {
            Rule::Rate { count, .. } => u64::from(count),
            Rule::Quota { count, .. } => count,
        }
    }
}

/// A structured-field string (RFC 9651 section 3.3.3); what it cannot hold is left out.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
    format!("\"{plain}\"")
}

fn cycle(requests: &Spanned<super::rules::Volume>, reset: Reset, zone: TimeZone) -> Result<Cycle, Issue> {
    let calendar = |what: &str| {
        Issue::new(
            Code::CONFLICT,
            format!("`{}` is not a day, week or month: it cannot {what}", requests.value),
        )
        .at(requests.at)
        .help("write `reset: rolling`, or `/day`, `/week`, `/month`")
    };
    match (requests.value.unit, reset) {
        (Length::Unit(unit), Reset::Calendar) => Ok(Cycle::Calendar(unit, zone)),
        (Length::Unit(unit), Reset::Anchor(date)) => Ok(Cycle::Anchored(unit, zone, date)),
        (Length::Unit(unit), Reset::Rolling) => {
            Ok(Cycle::Rolling(Duration::from_secs(days(unit).unwrap_or(30) * 86_400)))
        }
        (Length::Span(span), Reset::Rolling) if span.0 >= Duration::from_secs(64) => {
            Ok(Cycle::Rolling(span.0))
        }
        (Length::Span(_), Reset::Rolling) => {
            Err(Issue::new(Code::BAD_VALUE, "a rolling quota is for 64s and more")
                .at(requests.at)
                .help("write a limit for less, such as `100/min per consumer` under `limits`"))
        }
        (Length::Span(_), Reset::Calendar) => Err(calendar("begin with the calendar")),
        (Length::Span(_), Reset::Anchor(_)) => Err(calendar("be counted from a date")),
    }
}

/// Days of a cycle, where they are always as many.
fn days(unit: Unit) -> Option<u64> {
    match unit {
        Unit::Day => Some(1),
        Unit::Week => Some(7),
        Unit::Month => None,
    }
}
