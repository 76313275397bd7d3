//! What a change means for those who call and for those who run the gateway.

use super::super::effective::INHERITED;
use super::compare::Both;
use super::plain::Plain;
use super::{Change, Kind, Thing};

/// Settings that a process takes when it starts and cannot change.
const AT_START: &[&str] =
    &["process.threads", "process.user", "process.resolver", "admin.bind", "telemetry.access_log.to"];

/// What follows from a change.
#[derive(Default)]
pub(super) struct Effect {
    pub words: Option<String>,
    pub upgrade: Option<String>,
}

/// What follows from a change; `pair` is what it is about.
pub(super) fn effect(
    both: Both<'_>,
    section: &str,
    change: &Change,
    pair: (Option<&Plain>, Option<&Plain>),
) -> Effect {
    if let Some(upgrade) = upgrade(both, change) {
        return Effect { words: None, upgrade: Some(upgrade) };
    }
    let words = match (change.thing, change.kind, change.key.as_deref()) {
        (Thing::Route, Kind::Removed, _) => Some(gone(both, change)),
        (Thing::Route, Kind::Changed, Some("match")) => Some(gone(both, change)),
        (Thing::Route, _, Some("limits")) => own_limits(pair),
        (Thing::Consumer, Kind::Removed, _) => Some("its keys are refused".to_owned()),
        (Thing::Api, _, Some("hosts" | "base")) => Some("all its routes move".to_owned()),
        _ => None,
    };
    let opened = change.key.as_deref() == Some("auth") && pair.1.is_some_and(is_public);
    let inherited = inheriting(both, section, change);
    let all = [words, opened.then(|| "everybody may call".to_owned()), inherited];
    let all: Vec<String> = all.into_iter().flatten().collect();
    Effect { words: Some(all.join("; ")).filter(|words| !words.is_empty()), upgrade: None }
}

/// Why a change needs a new process, if it does.
fn upgrade(both: Both<'_>, change: &Change) -> Option<String> {
    let name = change.name.as_deref().unwrap_or_default();
    match (change.thing, change.kind, change.key.as_deref()) {
        (Thing::Listener, Kind::Added, _) => Some(format!("listener `{name}` is new")),
        (Thing::Listener, Kind::Removed, _) => Some(format!("listener `{name}` is gone")),
        (Thing::Listener, Kind::Changed, Some("bind")) => Some(format!("listener `{name}` binds elsewhere")),
        (Thing::Plan, _, key) => {
            let about_quotas = key.is_none_or(|key| key == "quota" || key.starts_with("quota."));
            quotas(both).filter(|_| about_quotas)
        }
        (Thing::Setting, ..) => at_start(both, change),
        _ => None,
    }
}

fn at_start(both: Both<'_>, change: &Change) -> Option<String> {
    let changes = || format!("`{}` changes", change.path);
    match change.path.as_str() {
        "stores.local.quotas" => quotas(both),
        // A log that is off stands there as a word; only where it goes counts.
        "telemetry.access_log" => (log_target(both.old) != log_target(both.new)).then(changes),
        path => AT_START.contains(&path).then(changes),
    }
}

fn log_target(root: &Plain) -> Option<&str> {
    let log = root.at(&["telemetry", "access_log"])?;
    log.at(&["to"]).unwrap_or(log).raw()
}

/// Whether quotas are kept in another file, or the first or last plan with a quota comes or goes.
fn quotas(both: Both<'_>) -> Option<String> {
    (quota_file(both.old) != quota_file(both.new)).then(|| "the file of quotas changes".to_owned())
}

/// Where quotas are kept, if there are any and they are; the default is told by an empty name.
fn quota_file(root: &Plain) -> Option<&str> {
    let plans = root.at(&["plans"])?.keys()?;
    let has_quotas = plans.values().any(|plan| plan.at(&["quota"]).is_some());
    let file = root.at(&["stores", "local", "quotas"]).and_then(Plain::raw).unwrap_or_default();
    Some(file).filter(|file| has_quotas && *file != "none")
}

/// What becomes of the requests that a route was for.
fn gone(both: Both<'_>, change: &Change) -> String {
    let name = change.name.as_deref().unwrap_or_default();
    let (api, route) = name.split_once('.').unwrap_or((name, ""));
    let asked = both.old.at(&["apis", api, "routes", route, "match"]);
    if let Some(other) = asked.and_then(|asked| successor(both, api, asked)) {
        return format!("route {other} takes its requests");
    }
    let address = address(both.old, api, asked);
    format!("requests to {address} get 404 unless another route matches")
}

/// The route of the new configuration that matches the same, on the same hosts and below the same base.
fn successor(both: Both<'_>, api: &str, asked: &Plain) -> Option<String> {
    let same = |old: Option<&Plain>, new: Option<&Plain>| match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => old.same(new),
        _ => false,
    };
    let place = |api: &Plain, key: &str, before: &Plain| same(before.at(&[key]), api.at(&[key]));
    let before = both.old.at(&["apis", api])?;
    let apis = both.new.at(&["apis"])?.keys()?;
    let there = apis.iter().filter(|(_, api)| place(api, "hosts", before) && place(api, "base", before));
    let mut routes = there.flat_map(|(api, there)| {
        let routes = there.at(&["routes"]).and_then(Plain::keys);
        routes.into_iter().flatten().map(move |(name, route)| (api, name, route))
    });
    let (api, name, _) =
        routes.find(|(_, _, route)| route.at(&["match"]).is_some_and(|other| other.same(asked)))?;
    Some(format!("{api}.{name}"))
}

/// Method, host and path that a route answers for, as far as they may be shown.
fn address(root: &Plain, api: &str, asked: Option<&Plain>) -> String {
    let (method, path) = match asked {
        Some(Plain::Map(keys)) => (None, keys.get("path").and_then(Plain::text)),
        Some(asked) => asked.text().map_or((None, None), |text| match text.split_once(' ') {
            Some((method, path)) => (Some(method), Some(path)),
            None => (None, Some(text)),
        }),
        None => (None, None),
    };
    let Some(path) = path else { return "it".to_owned() };
    let host = match root.at(&["apis", api, "hosts"]) {
        Some(Plain::List(hosts)) => hosts.first().and_then(Plain::text).unwrap_or_default(),
        _ => "",
    };
    let base = root.at(&["apis", api, "base"]).and_then(Plain::text).unwrap_or_default();
    let method = method.map(|method| format!("{method} ")).unwrap_or_default();
    format!("{method}{host}{}{path}", base.trim_end_matches('/'))
}

fn own_limits(pair: (Option<&Plain>, Option<&Plain>)) -> Option<String> {
    match pair.1 {
        Some(Plain::List(limits)) if limits.is_empty() => Some("it is no longer limited".to_owned()),
        Some(_) => None,
        None => Some("inherited ones hold, if there are any".to_owned()),
    }
}

fn is_public(auth: &Plain) -> bool {
    auth.text() == Some("public")
}

/// How many routes of the new configuration take a setting of `defaults` or of an API.
fn inheriting(both: Both<'_>, section: &str, change: &Change) -> Option<String> {
    let key = change.key.as_deref()?.split('.').next()?;
    let apis = both.new.at(&["apis"]).and_then(Plain::keys)?;
    if !INHERITED.contains(&key) {
        return None;
    }
    // Changes of requests and responses are put together from all levels, so that nothing hides what is farther.
    let is_own = |value: &Plain| !matches!(key, "request" | "response") && value.at(&[key]).is_some();
    let count = |api: &Plain| {
        let routes = api.at(&["routes"]).and_then(Plain::keys);
        routes.map_or(0, |routes| routes.values().filter(|route| !is_own(route)).count())
    };
    let number: usize = match (section, change.thing) {
        ("defaults", _) => apis.values().filter(|api| !is_own(api)).map(count).sum(),
        (_, Thing::Api) => count(apis.get(change.name.as_deref()?)?),
        _ => return None,
    };
    Some(match number {
        1 => "1 route inherits it".to_owned(),
        number => format!("{number} routes inherit it"),
    })
}
