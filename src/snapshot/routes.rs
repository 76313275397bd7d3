//! From the routes as written to rules and routes: names resolved, versions unfolded, everything compiled.

use super::deprecation;
use super::inherit::Effective;
use super::versions::{Variant, Way, variants};
use crate::actions::to::To;
use crate::actions::{Action, Fallback, Mirror};
use crate::build::{Bind, Build, problem, unknown};
use crate::cache::document::KeyRules;
use crate::cache::rules::{Binding, Rules};
use crate::compress::Compress;
use crate::config::document::{Api, Document, Route as Written};
use crate::filters::limits::Plans;
use crate::filters::rules::{PathRule, RequestRules};
use crate::filters::{Chain, Settings};
use crate::observe::RouteFields;
use crate::route::matching::{Condition, Match};
use crate::route::{Conflict, HeaderTest, Methods, QueryTest, Route, Rule, Test, conflicts};
use crate::value::{At, Code, HostPattern, Issue, Issues, Name, PathPattern, Spanned};
use std::sync::Arc;

/// Everything routes are compiled with, and what has been compiled so far.
pub(super) struct Compiler<'a> {
    pub document: &'a Document,
    pub build: &'a Build,
    pub plans: &'a Plans,
    pub issues: &'a mut Issues,
    pub rules: Vec<Rule>,
    /// What to call each route and where its `match` stands; a rule's `route` counts through these.
    pub labels: Vec<(String, Spanned<String>)>,
    pub routes: Vec<Arc<Route>>,
}

/// One route in one version of its API.
struct One<'a> {
    api_name: &'a Spanned<Name>,
    api: &'a Api,
    route_name: &'a Spanned<Name>,
    route: &'a Written,
    variant: &'a Variant<'a>,
    listeners: Option<&'a [u16]>,
    /// `read`, or `v1.read`.
    name: String,
}

/// What answers the requests of a route.
struct Answers {
    action: Action,
    cache: Option<Arc<Rules>>,
    mirror: Option<Mirror>,
    fallback: Option<Fallback>,
}

impl One<'_> {
    fn id(&self) -> String {
        format!("{}.{}", self.api_name.value, self.name)
    }
}

impl<'a> Compiler<'a> {
    /// Compiles every route of every API.
    pub(super) fn run(&mut self) {
        for (api_name, api) in self.document.apis.iter() {
            if api.routes.is_empty() {
                self.issues.push(
                    Issue::new(Code::EMPTY, format!("API `{}` has no routes", api_name.value))
                        .at(api_name.at),
                );
            }
            let variants = variants(api, self.issues);
            let listeners = self.listeners(api);
            for (route_name, route) in api.routes.iter() {
                self.versions_exist(route, &variants);
                for variant in variants.iter().filter(|variant| belongs(route, variant)) {
                    let name = variant.name.map_or_else(
                        || route_name.to_string(),
                        |version| format!("{version}.{}", route_name.value),
                    );
                    let one = One {
                        api_name,
                        api,
                        route_name,
                        route,
                        variant,
                        listeners: listeners.as_deref(),
                        name,
                    };
                    self.route(&one);
                }
            }
        }
        self.report_conflicts();
    }

    fn listeners(&mut self, api: &Api) -> Option<Vec<u16>> {
        let names = api.listeners.as_ref()?;
        let known = &self.document.listeners;
        let mut numbers = Vec::new();
        for name in &names.value.0 {
            let number = known.iter().position(|(listener, _)| listener.value == name.value);
            match number.and_then(|number| u16::try_from(number).ok()) {
                Some(number) => numbers.push(number),
                None => {
                    let known: Vec<_> = known.iter().map(|(listener, _)| listener.as_str()).collect();
                    self.issues.push(unknown("listener", name.as_str(), name.at, &known));
                }
            }
        }
        Some(numbers)
    }

    fn versions_exist(&mut self, route: &Written, variants: &[Variant<'_>]) {
        for wanted in route.versions.iter().flat_map(|versions| &versions.value.0) {
            let known: Vec<_> =
                variants.iter().filter_map(|variant| variant.name.map(Name::as_str)).collect();
            if !known.contains(&wanted.as_str()) {
                self.issues.push(unknown("version", wanted.as_str(), wanted.at, &known));
            }
        }
    }

    fn route(&mut self, one: &One<'_>) {
        let effective =
            Effective::new(&[self.document.defaults.settings(), one.api.settings(), one.route.settings()]);
        let matches = self.required(one, &effective);
        let Some((matches, to)) = matches else { return };
        let pattern = match self.add_rules(one, matches) {
            Ok(pattern) => pattern,
            Err(issue) => return self.issues.push(issue),
        };
        let names: Vec<&str> = pattern.names().collect();
        let bind = Bind { api: one.api_name.as_str(), route: &one.name, params: &names };
        let chain = self.chain(one, &effective, bind);
        let Some(action) = Action::new(to, bind, self.build, self.issues) else { return };
        let cache = action.proxy().and_then(|_| self.cache(&effective, bind));
        let fallback =
            effective.fallback.as_ref().zip(action.proxy()).map(|(rule, proxy)| {
                Fallback::new(rule, proxy, cache.is_some(), bind, self.build, self.issues)
            });
        let mirror = effective.mirror.as_ref().zip(action.proxy());
        let mirror = mirror.and_then(|(rule, proxy)| Mirror::new(rule, proxy, bind, self.build, self.issues));
        self.push(one, pattern.clone(), chain, Answers { action, cache, mirror, fallback }, effective);
    }

    /// What is kept of its answers; only what an upstream answers is.
    fn cache(&mut self, effective: &Effective, bind: Bind<'_>) -> Option<Arc<Rules>> {
        let written = effective.cache.as_ref()?;
        let binding = Binding {
            api: bind.api,
            route: bind.route,
            params: bind.params,
            is_public: effective.is_public(),
        };
        self.refuse_hidden(&written.value.key, &effective.request);
        let written = Spanned { value: &written.value, at: written.at };
        Rules::new(&written, &binding, self.issues).map(Arc::new)
    }

    /// Refuses a cache that cannot tell apart requests which the upstream is asked differently: nothing in the answer would say
    /// so, and one client would get what was made for another.
    fn refuse_hidden(&mut self, key: &KeyRules, request: &Spanned<RequestRules>) {
        let RequestRules { path, query, host, .. } = &request.value;
        let path = path.as_ref().and_then(|path| match &path.value {
            PathRule::Replace(template) => Some((template, path.at)),
            PathRule::Strip(_) | PathRule::Regex(_) => None,
        });
        let values = query.iter().flat_map(|query| query.set.iter().chain(query.add.iter()));
        let values = values.map(|(_, value)| (&value.value, value.at));
        let host = host.as_ref().map(|host| (&host.value, host.at));
        for (template, at) in path.into_iter().chain(host).chain(values) {
            if !template.parts().iter().all(|part| key.tells_apart(part)) {
                let message = format!(
                    "the upstream is asked for `{template}`, and the key of the cache does not have all of that"
                );
                self.issues.push(
                    Issue::new(Code::CACHE_UNSHARED, message)
                        .at(at)
                        .help("add it to `cache: { key: … }`, or write `cache: none` for this route"),
                );
            }
        }
    }

    /// What every route must have; what is missing is reported.
    fn required<'o>(
        &mut self,
        one: &One<'o>,
        effective: &Effective,
    ) -> Option<(&'o Spanned<Match>, &'o Spanned<To>)>
    where
        'a: 'o,
    {
        let id = one.id();
        let mut missing = |code, message: String, help: &str| {
            self.issues.push(Issue::new(code, message).at(one.route_name.at).help(help));
        };
        if effective.auth.is_none() {
            let help = "write `auth: public` on the route, its API or `defaults` to let everybody in";
            missing(Code::NO_AUTH, format!("route `{id}` does not say who may call"), help);
        }
        if one.route.matches.is_none() {
            missing(
                Code::MISSING_KEY,
                format!("route `{id}` has no `match`"),
                "write for example `match: GET /orders/{id}`",
            );
        }
        let to = one.route.to.as_ref().or(one.variant.to);
        if to.is_none() {
            missing(
                Code::NO_ACTION,
                format!("route `{id}` has no `to`"),
                "write `to: UPSTREAM` on the route or its API",
            );
        }
        Some((one.route.matches.as_ref()?, to?))
    }

    /// Adds the rules by which the route is reached and gives its pattern.
    fn add_rules(&mut self, one: &One<'_>, matches: &Spanned<Match>) -> Result<PathPattern, Issue> {
        let number = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        let (headers, query) = conditions(&matches.value)?;
        let methods = methods(matches)?;
        let hosts: Vec<HostPattern> =
            if one.api.hosts.0.is_empty() { vec![HostPattern::Any] } else { one.api.hosts.0.clone() };
        let ways = one.variant.ways()?;
        let mut first = None;
        for way in &ways {
            let path = joined(one, matches, way)?;
            let rule = |host: &HostPattern| Rule {
                host: host.clone(),
                path: path.clone(),
                methods: methods.clone(),
                headers: headers.iter().cloned().chain(way.header.clone()).collect(),
                query: query.iter().cloned().chain(way.query.clone()).collect(),
                listeners: one.listeners.map(<[u16]>::to_vec),
                priority: one.route.priority.unwrap_or(0),
                route: number,
            };
            self.rules.extend(hosts.iter().map(rule));
            first.get_or_insert(path);
        }
        let written = matches.value.to_string();
        self.labels.push((one.id(), Spanned { value: written, at: matches.at }));
        first.ok_or_else(|| Issue::new(Code::EMPTY, "no way leads to this route").at(matches.at))
    }

    fn chain(&mut self, one: &One<'_>, effective: &Effective, bind: Bind<'_>) -> Chain {
        let version = one.variant.name.zip(one.variant.marker.clone());
        let limits = effective.limits.as_ref();
        let written = one.variant.name.zip(one.variant.version);
        let by = one.api.versions.as_ref().map(|versions| &versions.value.by);
        let deprecation = deprecation::of(one.route, written, by, self.issues);
        let settings = Settings {
            auth: effective.auth.as_ref().map(|auth| Spanned { value: &auth.value, at: auth.at }),
            limits: limits.map(|(level, limits)| (*level, Spanned { value: &limits.value, at: limits.at })),
            plans: self.plans,
            limit_fields: self.document.defaults.limits_backend.value.headers,
            build: self.build,
            cors: effective.cors.as_ref().map(|cors| Spanned { value: &cors.value, at: cors.at }),
            ip: effective.ip.as_ref().map(|ip| Spanned { value: &ip.value, at: ip.at }),
            maintenance: one.api.maintenance.as_ref().map(|on| Spanned { value: &on.value, at: on.at }),
            deprecation,
            concurrency: effective
                .concurrency
                .as_ref()
                .map(|rule| Spanned { value: &rule.value, at: rule.at }),
            fault: effective.fault.as_ref().map(|rule| Spanned { value: &rule.value, at: rule.at }),
            body: effective.body,
            version: version
                .map(|(name, marker)| Spanned { value: (name.to_string(), marker), at: one.variant.at }),
            request: &effective.request,
            response: &effective.response,
            bind,
        };
        Chain::new(&settings, self.issues)
    }

    fn push(
        &mut self,
        one: &One<'_>,
        pattern: PathPattern,
        chain: Chain,
        answers: Answers,
        effective: Effective,
    ) {
        let (api, name) = (Arc::<str>::from(one.api_name.as_str()), Arc::<str>::from(one.name.as_str()));
        let (id, template) = (one.id(), pattern.to_string());
        self.routes.push(Arc::new(Route {
            metrics: self.build.metrics().route(&api, &name),
            fields: RouteFields::new(&api, &id, &template),
            cache_metrics: answers.cache.as_ref().map(|_| self.build.metrics().cache_route(&api, &name)),
            id: id.into(),
            api,
            name,
            template: template.into(),
            pattern,
            at: one.route_name.at,
            chain,
            action: answers.action,
            mirror: answers.mirror,
            fallback: answers.fallback,
            compress: effective.compress.as_ref().map(|rule| Compress::new(&rule.value, rule.at)),
            grpc_web: effective.grpc_web,
            cache: answers.cache,
            timeouts: effective.timeouts.value,
            timeouts_at: effective.timeouts.at,
            answers_preflights: effective.cors.is_some(),
            retry: effective.retry.value.clone(),
            retry_at: effective.retry.at,
            body_max: effective.body.map(|max| max.value.0),
            forwarded: effective.request.value.forwarded.unwrap_or_default(),
            is_public: effective.is_public(),
            auth_at: effective.auth.map_or(At::NOWHERE, |auth| auth.at),
        }));
    }

    /// Ties and routes that nothing can reach; each pair of routes once, however many hosts they share.
    fn report_conflicts(&mut self) {
        let mut seen = std::collections::HashSet::new();
        for conflict in conflicts(&self.rules) {
            let (first, second) = match conflict {
                Conflict::Tie { a, b } => (a, b),
                Conflict::Unreachable { rule, by } => (rule, by),
            };
            let route = |rule: usize| self.rules.get(rule).map(|rule| rule.route as usize);
            let (Some(first), Some(second)) = (route(first), route(second)) else { continue };
            if first == second || !seen.insert((first.min(second), first.max(second))) {
                continue;
            }
            let (Some((a, a_match)), Some((b, b_match))) = (self.labels.get(first), self.labels.get(second))
            else {
                continue;
            };
            let issue = match conflict {
                Conflict::Tie { .. } => {
                    Issue::new(Code::TIE, format!("routes `{a}` and `{b}` match the same requests"))
                        .help("give one a header or method condition, or set `priority`")
                }
                Conflict::Unreachable { .. } => {
                    Issue::new(Code::UNREACHABLE, format!("route `{a}` is never reached: `{b}` comes first"))
                        .help(format!("lower the `priority` of `{b}`, or remove `{a}`"))
                }
            };
            self.issues.push(
                issue.at(a_match.at).label(a_match.value.clone()).and(b_match.at, b_match.value.clone()),
            );
        }
    }
}

fn belongs(route: &Written, variant: &Variant<'_>) -> bool {
    match (&route.versions, variant.name) {
        (Some(versions), Some(name)) => versions.value.0.iter().any(|version| version.value == *name),
        (None, _) => true,
        (Some(_), None) => false,
    }
}

fn joined(one: &One<'_>, matches: &Spanned<Match>, way: &Way) -> Result<PathPattern, Issue> {
    let mut path = matches.value.path.clone();
    if let Some(base) = &one.api.base {
        path = base.value.join(&path).map_err(|message| problem(Code::BAD_PATH, &message, base.at))?;
    }
    match &way.prefix {
        Some(prefix) => prefix.join(&path).map_err(|message| problem(Code::BAD_PATH, &message, matches.at)),
        None => Ok(path),
    }
}

fn methods(matches: &Spanned<Match>) -> Result<Option<Methods>, Issue> {
    let Some(words) = &matches.value.methods else { return Ok(None) };
    if words.is_empty() {
        let issue = Issue::new(Code::EMPTY, "an empty list of methods matches nothing").at(matches.at);
        return Err(issue.help("leave `methods` out to match every method"));
    }
    let words = words.iter().map(|word| word.0.as_str());
    Methods::parse(words).map(Some).map_err(|message| problem(Code::BAD_VALUE, &message, matches.at))
}

fn conditions(matches: &Match) -> Result<(Vec<HeaderTest>, Vec<QueryTest>), Issue> {
    let headers = matches
        .headers
        .iter()
        .map(|(key, condition)| Ok(HeaderTest { name: key.0.clone(), test: test(condition)? }));
    let query = matches
        .query
        .iter()
        .map(|(key, condition)| Ok(QueryTest { name: key.value.clone(), test: test(condition)? }));
    Ok((headers.collect::<Result<_, Issue>>()?, query.collect::<Result<_, Issue>>()?))
}

fn test(condition: &Spanned<Condition>) -> Result<Test, Issue> {
    Ok(match &condition.value {
        Condition::Present => Test::Present,
        Condition::Absent => Test::Absent,
        Condition::Exact(text) => Test::Is(text.clone()),
        Condition::Regex(text) => {
            let regex = regex::RegexBuilder::new(text).size_limit(1 << 20).build();
            Test::Matches(regex.map_err(|error| {
                let message =
                    format!("`{text}` is not a regular expression: {}", last_line(&error.to_string()));
                Issue::new(Code::BAD_VALUE, message).at(condition.at)
            })?)
        }
    })
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}
