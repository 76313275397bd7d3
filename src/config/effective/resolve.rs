//! What holds for each route: `defaults`, then the API, then the route.
//!
//! The same rules as in `snapshot::inherit`, which applies them to types and cannot say where a value stands; a test holds
//! the two together.

use super::super::yaml::{Entry, Kind, Node};
use super::built_in_entry;
use crate::value::Spanned;

/// The inherited settings: a route takes them from farther away when it has none of its own.
pub(in crate::config) const INHERITED: [&str; 16] = [
    "auth",
    "limits",
    "cors",
    "ip",
    "timeouts",
    "retry",
    "body",
    "cache",
    "concurrency",
    "fault",
    "mirror",
    "fallback",
    "compress",
    "grpc_web",
    "request",
    "response",
];

/// Those that are put together key by key, header maps by name. Of the others, the nearest one holds.
const MERGED: [&str; 2] = ["request", "response"];

/// Those that hold something even if nobody says anything.
const NEVER_ABSENT: [&str; 4] = ["timeouts", "retry", "body", "request"];

/// Header rules in the order in which they are applied.
const HEADER_RULES: [&str; 6] = ["preset", "remove", "rename", "default", "set", "add"];

/// The same tree with everything inherited in its routes and nowhere else, versions unfolded.
pub(super) fn routes(tree: &Node) -> Node {
    let defaults = tree.value("defaults");
    map_entries(tree, |entry| match entry.key.value.as_str() {
        "defaults" => None,
        "apis" => Some(with_value(
            entry,
            map_entries(&entry.value, |api| Some(with_value(api, resolved_api(&api.value, defaults)))),
        )),
        _ => Some(entry.clone()),
    })
}

fn resolved_api(api: &Node, defaults: Option<&Node>) -> Node {
    map_entries(api, |entry| match entry.key.value.as_str() {
        "to" => None,
        key if is_inherited(key) => None,
        "versions" => Some(with_value(entry, without_targets(&entry.value))),
        "routes" => Some(with_value(entry, unfolded(&entry.value, api, defaults))),
        _ => Some(entry.clone()),
    })
}

fn is_inherited(key: &str) -> bool {
    INHERITED.contains(&key)
}

/// The versions without `to`, which is now in the routes.
fn without_targets(versions: &Node) -> Node {
    map_entries(versions, |version| match version.key.value.as_str() {
        "by" => Some(version.clone()),
        _ => Some(with_value(
            version,
            map_entries(&version.value, |entry| (entry.key.value != "to").then(|| entry.clone())),
        )),
    })
}

/// Every route, once for each of its versions.
fn unfolded(routes: &Node, api: &Node, defaults: Option<&Node>) -> Node {
    let versions = api.value("versions").map(entries);
    let mut all = Vec::new();
    for route in entries(routes) {
        let Some(versions) = versions else {
            all.push(with_value(route, resolved_route(&route.value, api, None, defaults)));
            continue;
        };
        for version in versions
            .iter()
            .filter(|version| version.key.value != "by" && belongs(&route.value, &version.key.value))
        {
            let name = format!("{}.{}", version.key.value, route.key.value);
            let value = resolved_route(&route.value, api, Some(&version.value), defaults);
            all.push(Entry { key: Spanned { value: name, at: route.key.at }, value });
        }
    }
    Node { at: routes.at, kind: Kind::Map(all) }
}

/// Whether a route is one of a version.
fn belongs(route: &Node, version: &str) -> bool {
    match route.value("versions").map(|versions| &versions.kind) {
        None => true,
        Some(Kind::Seq(names)) => names.iter().any(|name| is_word(name, version)),
        Some(_) => route.value("versions").is_some_and(|name| is_word(name, version)),
    }
}

fn resolved_route(route: &Node, api: &Node, version: Option<&Node>, defaults: Option<&Node>) -> Node {
    let own =
        |entry: &&Entry| !matches!(&*entry.key.value, "to" | "versions") && !is_inherited(&entry.key.value);
    let mut all: Vec<Entry> = entries(route).iter().filter(own).cloned().collect();
    let targets = [Some(route), version, Some(api)].into_iter().flatten();
    all.extend(targets.filter_map(|level| entry(level, "to")).next().cloned());
    let levels: Vec<&Node> = defaults.into_iter().chain([api, route]).collect();
    all.extend(INHERITED.iter().filter_map(|key| inherited(&levels, key)));
    Node { at: route.at, kind: Kind::Map(all) }
}

/// What holds of one setting, given the levels from the farthest to the nearest.
fn inherited(levels: &[&Node], key: &str) -> Option<Entry> {
    let mut found = levels.iter().filter_map(|level| entry(level, key)).cloned();
    let held = if MERGED.contains(&key) { found.reduce(merged) } else { found.next_back() };
    held.or_else(|| NEVER_ABSENT.contains(&key).then(|| built_in_entry(key, Kind::Map(Vec::new()))))
}

/// Rules of two levels put together. `none` wipes what is farther, and is wiped by what is nearer.
fn merged(far: Entry, near: Entry) -> Entry {
    let (Kind::Map(far_rules), Kind::Map(near_rules)) = (far.value.kind, &near.value.kind) else {
        return near;
    };
    let mut all: Vec<Entry> = Vec::new();
    for rule in far_rules {
        all.push(match entry(&near.value, &rule.key.value) {
            None => rule,
            Some(nearer) if rule.key.value == "headers" => {
                with_value(nearer, merged_headers(&rule.value, &nearer.value))
            }
            Some(nearer) => nearer.clone(),
        });
    }
    let is_new = |rule: &&Entry| !all.iter().any(|known| known.key.value == rule.key.value);
    let new: Vec<Entry> = near_rules.iter().filter(is_new).cloned().collect();
    all.extend(new);
    Entry { key: near.key, value: Node { at: near.value.at, kind: Kind::Map(all) } }
}

/// What the nearer rules say of a header replaces all that the farther ones said of it.
fn merged_headers(far: &Node, near: &Node) -> Node {
    let said: Vec<String> = HEADER_RULES.iter().flat_map(|rule| near.value(rule)).flat_map(names).collect();
    let rules = HEADER_RULES.iter().filter_map(|rule| {
        let kept = entry(far, rule).map(|entry| with_value(entry, without(&entry.value, &said)));
        let both = match (kept, entry(near, rule)) {
            (Some(far), Some(near)) => with_value(near, joined(far.value, &near.value)),
            (far, near) => far.or_else(|| near.cloned())?,
        };
        (!is_empty(&both.value)).then_some(both)
    });
    Node { at: near.at, kind: Kind::Map(rules.collect()) }
}

/// The headers that a list or map of rules is about, in lower case.
fn names(rules: &Node) -> Vec<String> {
    match &rules.kind {
        Kind::Seq(items) => items.iter().filter_map(lower_case).collect(),
        Kind::Map(entries) => entries.iter().map(|entry| entry.key.value.to_ascii_lowercase()).collect(),
        Kind::Scalar(_) | Kind::Refused => Vec::new(),
    }
}

fn without(rules: &Node, said: &[String]) -> Node {
    let kind = match &rules.kind {
        Kind::Seq(items) => Kind::Seq(
            items
                .iter()
                .filter(|item| lower_case(item).is_none_or(|name| !said.contains(&name)))
                .cloned()
                .collect(),
        ),
        Kind::Map(entries) => Kind::Map(
            entries
                .iter()
                .filter(|entry| !said.contains(&entry.key.value.to_ascii_lowercase()))
                .cloned()
                .collect(),
        ),
        other => other.clone(),
    };
    Node { at: rules.at, kind }
}

fn joined(mut far: Node, near: &Node) -> Node {
    match (&mut far.kind, &near.kind) {
        (Kind::Seq(items), Kind::Seq(more)) => items.extend(more.iter().cloned()),
        (Kind::Map(entries), Kind::Map(more)) => entries.extend(more.iter().cloned()),
        _ => return near.clone(),
    }
    far
}

fn is_empty(node: &Node) -> bool {
    match &node.kind {
        Kind::Seq(items) => items.is_empty(),
        Kind::Map(entries) => entries.is_empty(),
        Kind::Scalar(_) | Kind::Refused => false,
    }
}

fn lower_case(name: &Node) -> Option<String> {
    match &name.kind {
        Kind::Scalar(scalar) => scalar.value.as_str().map(str::to_ascii_lowercase),
        _ => None,
    }
}

fn is_word(node: &Node, word: &str) -> bool {
    matches!(&node.kind, Kind::Scalar(scalar) if scalar.value.as_str() == Some(word))
}

fn entries(node: &Node) -> &[Entry] {
    match &node.kind {
        Kind::Map(entries) => entries,
        _ => &[],
    }
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    entries(node).iter().find(|entry| entry.key.value == key && !entry.value.is_null())
}

/// The same entry with another value.
fn with_value(entry: &Entry, value: Node) -> Entry {
    Entry { key: entry.key.clone(), value }
}

/// The same map with its entries changed or left out; anything else stays as it is.
fn map_entries(node: &Node, change: impl FnMut(&Entry) -> Option<Entry>) -> Node {
    match &node.kind {
        Kind::Map(entries) => {
            Node { at: node.at, kind: Kind::Map(entries.iter().filter_map(change).collect()) }
        }
        _ => node.clone(),
    }
}
