//! What differs between two configurations in what they mean.
//!
//! The order of keys, comments, quotes, the files a configuration is split into, units (`60s`, `1m`) and short and long
//! forms do not count; nor does writing a built-in default, but in what APIs and routes inherit: there, writing it says
//! something. Values that must not be shown are compared and never told.
//!
//! Not seen as the same: limits with a burst that is written and one that is the rate's, networks and addresses spelled
//! in two ways, an API's setting that is moved into all its routes.

mod compare;
mod complete;
mod effects;
mod plain;
mod short;
#[cfg(test)]
mod tests;
mod words;

use super::Loaded;
use super::effective::{REDACTED, merged};
use super::yaml::{Entry, Kind as NodeKind, Node, Scalar};
use crate::value::{At, Spanned};
use compare::{Both, compare};
use plain::Plain;
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What differs. As JSON, the list of changes; as text, a line for each.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Difference {
    /// The changes, sections in a fixed order, names sorted.
    pub changes: Vec<Change>,
}

/// One thing that differs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Change {
    /// What became of it.
    pub kind: Kind,
    /// What it is.
    pub thing: Thing,
    /// Its name; of a route `api.route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is written: `apis.shop.routes.read.timeouts.response`.
    pub path: String,
    /// The part of the path within the thing, where only that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The value before, unless there was none or it must not be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Json>,
    /// The value now, unless there is none or it must not be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Json>,
    /// Whether a value is not told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// What follows from it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// Why it takes a new process, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<String>,
    /// Old and new value, or what the thing is, in a few words.
    #[serde(skip)]
    brief: String,
}

/// What became of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It was not there.
    Added,
    /// It is no longer there.
    Removed,
    /// It is another.
    #[default]
    Changed,
}

/// What a change is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Thing {
    /// A route.
    Route,
    /// An API.
    Api,
    /// A listener.
    Listener,
    /// An upstream.
    Upstream,
    /// A provider of `auth`.
    Provider,
    /// A consumer.
    Consumer,
    /// A plan.
    Plan,
    /// Anything without a name of its own.
    #[default]
    Setting,
}

impl Thing {
    /// What a section holds by name, if it does.
    fn of_section(section: &str) -> Option<Thing> {
        match section {
            "listeners" => Some(Thing::Listener),
            "upstreams" => Some(Thing::Upstream),
            "auth" => Some(Thing::Provider),
            "consumers" => Some(Thing::Consumer),
            "plans" => Some(Thing::Plan),
            "apis" => Some(Thing::Api),
            _ => None,
        }
    }

    /// For one, and for many.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Thing::Route => ("route", "routes"),
            Thing::Api => ("api", "apis"),
            Thing::Listener => ("listener", "listeners"),
            Thing::Upstream => ("upstream", "upstreams"),
            Thing::Provider => ("auth provider", "auth providers"),
            Thing::Consumer => ("consumer", "consumers"),
            Thing::Plan => ("plan", "plans"),
            Thing::Setting => ("setting", "settings"),
        }
    }
}

/// What differs between two configurations.
pub fn diff(old: &Loaded, new: &Loaded) -> Difference {
    between(&merged(old), &merged(new))
}

/// What differs between a configuration that was told without its secrets (`document` of the admin listener's `/config`)
/// and one that was read. Secrets count as the same.
pub fn diff_redacted(old: &Json, new: &Loaded) -> Difference {
    between(&told(old), &merged(new))
}

fn between(old: &Node, new: &Node) -> Difference {
    let (old, new) = (plain::plain(old), plain::plain(new));
    Difference { changes: compare(Both { old: &old, new: &new }) }
}

/// The tree of a configuration that was told as JSON.
fn told(value: &Json) -> Node {
    let kind = match value {
        Json::Array(items) => NodeKind::Seq(items.iter().map(told).collect()),
        Json::Object(keys) => NodeKind::Map(
            keys.iter()
                .map(|(key, value)| Entry { key: Spanned::built_in(key.clone()), value: told(value) })
                .collect(),
        ),
        word => NodeKind::Scalar(Scalar {
            value: serde_yaml::to_value(word).unwrap_or_default(),
            plain: true,
            secret: word == REDACTED,
            written: None,
        }),
    };
    Node { at: At::NOWHERE, kind }
}

impl Difference {
    /// Whether both mean the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What a running process cannot take over without new sockets or a new start; empty if it can take over everything.
    pub fn needs_upgrade(&self) -> Vec<&str> {
        let mut known = BTreeSet::new();
        let reasons = self.changes.iter().filter_map(|change| change.upgrade.as_deref());
        reasons.filter(|reason| known.insert(*reason)).collect()
    }

    /// How many of what: `+2 -1 ~3 routes, ~1 upstream`; `nothing` if both mean the same.
    pub fn summary(&self) -> String {
        let mut things: BTreeMap<Thing, [BTreeSet<&str>; 3]> = BTreeMap::new();
        for change in &self.changes {
            let [added, removed, changed] = things.entry(change.thing).or_default();
            let of_kind = match change.kind {
                Kind::Added => added,
                Kind::Removed => removed,
                Kind::Changed => changed,
            };
            of_kind.insert(change.name.as_deref().unwrap_or(&change.path));
        }
        let counted = things.iter().map(|(thing, sets)| {
            let numbers = ["+", "-", "~"].into_iter().zip(sets).filter(|(_, set)| !set.is_empty());
            let numbers: Vec<String> = numbers.map(|(sign, set)| format!("{sign}{}", set.len())).collect();
            let (one, many) = thing.words();
            let word = if sets.iter().map(BTreeSet::len).sum::<usize>() == 1 { one } else { many };
            format!("{} {word}", numbers.join(" "))
        });
        let counted: Vec<String> = counted.collect();
        if counted.is_empty() { "nothing".to_owned() } else { counted.join(", ") }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}

impl Change {
    /// Takes in what both values are, as far as that may be told.
    fn tell(&mut self, old: Option<&Plain>, new: Option<&Plain>) {
        self.secret = [old, new].into_iter().flatten().any(Plain::is_secret);
        let (before, now) = (old.map(words::json), new.map(words::json));
        let is_word = |plain: Option<&Plain>| matches!(plain, None | Some(Plain::Word(_)));
        if self.secret && (is_word(old) && is_word(new) || before == now) {
            self.brief = format!("{} {}", words::SECRET, if new.is_none() { "removed" } else { "changed" });
            return;
        }
        self.brief = match (old, new) {
            (Some(Plain::List(old)), Some(Plain::List(new))) if !old.is_empty() && !new.is_empty() => {
                words::list(old, new)
            }
            (old, new) => format!("{} → {}", words::value(old), words::value(new)),
        };
        (self.old, self.new) = (before, now);
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            Kind::Added => '+',
            Kind::Removed => '-',
            Kind::Changed => '~',
        };
        match (self.name.as_deref(), self.key.as_deref()) {
            (Some(name), Some(key)) => write!(f, "{sign} {} {name}: {key}", self.thing.words().0)?,
            (Some(name), None) => write!(f, "{sign} {} {name}", self.thing.words().0)?,
            (None, _) => write!(f, "{sign} {}", self.path)?,
        }
        if !self.brief.is_empty() {
            write!(f, ": {}", self.brief)?;
        }
        if let Some(effect) = &self.effect {
            write!(f, " ({effect})")?;
        }
        if self.upgrade.is_some() {
            f.write_str(" (needs an in-place upgrade)")?;
        }
        Ok(())
    }
}
