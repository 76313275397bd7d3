//! What nobody wrote: built-in defaults filled in, empty maps and lists that say nothing left out.

use super::super::effective::built_in::BUILT_IN;
use super::plain::{From, Keys, Plain, Word};
use crate::value::Span;

/// What is the same as nothing, beyond what the effective configuration shows.
const FALSE: &[(&str, &str)] =
    &[("upstreams.*.tls", "false"), ("apis.*.maintenance", "false"), ("apis.*.routes.*.priority", "0")];

/// Where an empty map or list says nothing. Elsewhere it does: `tls: {}` turns TLS on, `timeouts: {}` turns inherited
/// ones off. What lies within another comes first.
const EMPTY: &[&str] = &[
    "process.resolver",
    "admin.tokens",
    "telemetry.access_log.fields.add",
    "telemetry.access_log.fields",
    "telemetry.redact.headers",
    "telemetry.redact.query",
    "telemetry.redact",
    "listeners.*.trusted_proxies",
    "plans.*.limits",
    "consumers.*.tags",
    "consumers.*.keys",
    "consumers.*.ids",
    "stores.local",
    "cache",
    "apis.*.hosts",
    "apis.*.routes",
];

/// Lists whose order says nothing.
const SETS: &[&str] = &[
    "listeners.*.bind",
    "listeners.*.protocols",
    "listeners.*.trusted_proxies",
    "telemetry.redact.headers",
    "telemetry.redact.query",
    "consumers.*.tags",
    "consumers.*.ids",
    "consumers.*.keys",
    "plans.*.limits",
    "upstreams.*.targets",
    "apis.*.hosts",
    "apis.*.listeners",
    "apis.*.routes.*.versions",
    "apis.*.routes.*.match.methods",
    "apis.*.routes.*.limits",
    "apis.*.routes.*.retry.on",
    "apis.*.retry.on",
    "defaults.retry.on",
    "upstreams.*.health.passive.on",
    "apis.*.routes.*.ip.allow",
    "apis.*.routes.*.ip.deny",
    "apis.*.routes.*.cache.tags",
    "apis.*.routes.*.cache.key.query",
    "apis.*.routes.*.cache.key.ignore_query",
    "apis.*.routes.*.cache.key.headers",
    "apis.*.routes.*.cache.key.cookies",
    "apis.*.cache.tags",
    "apis.*.cache.key.query",
    "apis.*.cache.key.ignore_query",
    "apis.*.cache.key.headers",
    "apis.*.cache.key.cookies",
    "defaults.cache.tags",
    "defaults.cache.key.query",
    "defaults.cache.key.ignore_query",
    "defaults.cache.key.headers",
    "defaults.cache.key.cookies",
    "apis.*.limits",
    "apis.*.ip.allow",
    "apis.*.ip.deny",
    "defaults.limits",
    "defaults.ip.allow",
    "defaults.ip.deny",
];

/// Brings a whole configuration to the form in which what nobody wrote looks like what somebody did.
pub(super) fn complete(root: &mut Keys) {
    for (path, word) in BUILT_IN.iter().chain(FALSE) {
        match *path {
            // Details of routes are inherited; what holds there is not for this walk to say.
            path if path.starts_with("apis.") && !FALSE.iter().any(|(known, _)| *known == path) => {}
            "upstreams.*.health" => fill(root, "upstreams.*.health.probe", word),
            path => fill(root, path, word),
        }
    }
    for path in EMPTY {
        each(root, path, &mut |parent, key| {
            let empty = match parent.get(key) {
                Some(Plain::List(items)) => items.is_empty(),
                Some(Plain::Map(keys)) => keys.is_empty(),
                Some(Plain::Word(_)) | None => false,
            };
            if empty {
                parent.remove(key);
            }
        });
    }
    for path in SETS {
        each(root, path, &mut |parent, key| {
            if let Some(Plain::List(items)) = parent.get_mut(key) {
                sort(items);
            }
        });
    }
}

/// Puts a default where nothing is; `*` stands for every name. What leads there is made, unless names would have to be.
fn fill(keys: &mut Keys, path: &str, word: &str) {
    match path.split_once('.') {
        None => {
            let text = word.parse::<Span>().map_or_else(|_| word.to_owned(), |span| span.to_string());
            let word = Word { text, shown: word.into(), from: From::BuiltIn };
            keys.entry(path.to_owned()).or_insert(Plain::Word(word));
        }
        Some(("*", rest)) => keys.values_mut().for_each(|value| {
            if let Plain::Map(keys) = value {
                fill(keys, rest, word);
            }
        }),
        Some((key, rest)) => {
            if rest.starts_with('*') && !keys.contains_key(key) {
                return;
            }
            // Anything but a map is a word such as `none`, which leaves no room for details.
            if let Plain::Map(keys) = keys.entry(key.to_owned()).or_insert_with(|| Plain::Map(Keys::new())) {
                fill(keys, rest, word);
            }
        }
    }
}

/// Does something to every place that a path leads to: with the map, and the key in it.
fn each(keys: &mut Keys, path: &str, act: &mut impl FnMut(&mut Keys, &str)) {
    let Some((key, rest)) = path.split_once('.') else { return act(keys, path) };
    for (_, value) in keys.iter_mut().filter(|(name, _)| key == "*" || *name == key) {
        if let Plain::Map(keys) = value {
            each(keys, rest, act);
        }
    }
}

/// Sorts what has no order of its own. Secrets do not tell themselves apart here, since not every side knows them.
fn sort(items: &mut [Plain]) {
    items.sort_by_cached_key(|item| text(item, false));
}

/// A text that is the same exactly if the value is. It may hold secrets.
pub(super) fn identity(plain: &Plain) -> String {
    text(plain, true)
}

fn text(plain: &Plain, secrets: bool) -> String {
    match plain {
        Plain::Word(word) if word.is_hidden() && !secrets => "secret".to_owned(),
        Plain::Word(word) => format!("{:?}", word.text),
        Plain::List(items) => {
            format!("[{}]", items.iter().map(|item| text(item, secrets)).collect::<Vec<_>>().join(","))
        }
        Plain::Map(keys) => {
            let pairs = keys.iter().map(|(key, value)| format!("{key:?}:{}", text(value, secrets)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
    }
}
