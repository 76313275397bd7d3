//! Two plain forms side by side: named things by name, all else key by key.

use super::effects::effect;
use super::plain::{From, Keys, Plain};
use super::words::{brief, json};
use super::{Change, Kind, Thing};
use std::collections::BTreeSet;

/// The sections, in the order in which they are told; further ones come behind them.
const ORDER: &[&str] = &[
    "process",
    "admin",
    "telemetry",
    "listeners",
    "auth",
    "plans",
    "consumers",
    "stores",
    "cache",
    "defaults",
    "upstreams",
    "apis",
];

/// Both configurations.
#[derive(Clone, Copy)]
pub(super) struct Both<'a> {
    pub old: &'a Plain,
    pub new: &'a Plain,
}

/// The same place in both.
type Pair<'a> = (Option<&'a Plain>, Option<&'a Plain>);

/// Everything that differs, in an order that does not depend on the files.
pub(super) fn compare(both: Both<'_>) -> Vec<Change> {
    let mut found = Found { both, changes: Vec::new() };
    let all = keys_of((Some(both.old), Some(both.new)));
    let others = all.iter().filter(|key| !ORDER.contains(&key.as_str())).map(String::as_str);
    for section in ORDER.iter().copied().chain(others) {
        let pair = inside((Some(both.old), Some(both.new)), section);
        match section {
            "apis" => found.apis(pair),
            _ => match Thing::of_section(section) {
                Some(thing) => found.named(thing, section, pair),
                None => found.leaves(&Place::section(section), String::new(), pair),
            },
        }
    }
    found.changes
}

/// What a change is about.
struct Place<'a> {
    thing: Thing,
    name: Option<String>,
    /// Where it stands.
    path: String,
    section: &'a str,
}

impl<'a> Place<'a> {
    fn section(section: &'a str) -> Self {
        Place { thing: Thing::Setting, name: None, path: section.to_owned(), section }
    }

    fn change(&self, kind: Kind, key: String) -> Change {
        let path = if key.is_empty() { self.path.clone() } else { format!("{}.{key}", self.path) };
        Change {
            kind,
            thing: self.thing,
            name: self.name.clone(),
            path,
            key: Some(key).filter(|key| !key.is_empty()),
            ..Change::default()
        }
    }
}

struct Found<'a> {
    both: Both<'a>,
    changes: Vec<Change>,
}

impl Found<'_> {
    fn named(&mut self, thing: Thing, section: &str, pair: Pair<'_>) {
        for name in keys_of(pair) {
            let path = format!("{section}.{name}");
            let inner = inside(pair, &name);
            let place = Place { thing, name: Some(name), path, section };
            if self.whole(&place, inner) {
                self.leaves(&place, String::new(), inner);
            }
        }
    }

    fn apis(&mut self, pair: Pair<'_>) {
        for name in keys_of(pair) {
            let path = format!("apis.{name}");
            let inner = inside(pair, &name);
            let place = Place { thing: Thing::Api, name: Some(name.clone()), path, section: "apis" };
            if self.whole(&place, inner) {
                for key in keys_of(inner).into_iter().filter(|key| key != "routes") {
                    self.leaves(&place, key.clone(), inside(inner, &key));
                }
            }
            let routes = inside(inner, "routes");
            for route in keys_of(routes) {
                let path = format!("apis.{name}.routes.{route}");
                let inner = inside(routes, &route);
                let place = Place {
                    thing: Thing::Route,
                    name: Some(format!("{name}.{route}")),
                    path,
                    section: "apis",
                };
                if self.whole(&place, inner) {
                    self.leaves(&place, String::new(), inner);
                }
            }
        }
    }

    /// Something that is there in one of the two only; true if it is there in both.
    fn whole(&mut self, place: &Place<'_>, pair: Pair<'_>) -> bool {
        let (kind, value) = match pair {
            (Some(_), Some(_)) => return true,
            (Some(old), None) => (Kind::Removed, old),
            (None, Some(new)) => (Kind::Added, new),
            (None, None) => return false,
        };
        let mut change = place.change(kind, String::new());
        change.brief = brief(place.thing, value);
        match kind {
            Kind::Added => change.new = Some(json(value)),
            Kind::Removed | Kind::Changed => change.old = Some(json(value)),
        }
        self.push(place, change, pair);
        false
    }

    /// Every word and list that differs.
    fn leaves(&mut self, place: &Place<'_>, key: String, pair: Pair<'_>) {
        match pair {
            (None, None) => {}
            (Some(old), Some(new)) if old.same(new) => {}
            // What is built in is there whether or not the map around it is.
            (Some(Plain::Word(word)), None) | (None, Some(Plain::Word(word)))
                if word.from == From::BuiltIn => {}
            (Some(Plain::Map(_)), Some(Plain::Map(_))) => self.inner_leaves(place, &key, pair),
            (Some(Plain::Map(keys)), None) | (None, Some(Plain::Map(keys))) if has_leaves(keys) => {
                self.inner_leaves(place, &key, pair);
            }
            (old, new) => {
                let mut change = place.change(Kind::Changed, key);
                change.tell(old, new);
                self.push(place, change, pair);
            }
        }
    }

    fn inner_leaves(&mut self, place: &Place<'_>, key: &str, pair: Pair<'_>) {
        for inner in keys_of(pair) {
            let path = if key.is_empty() { inner.clone() } else { format!("{key}.{inner}") };
            self.leaves(place, path, inside(pair, &inner));
        }
    }

    fn push(&mut self, place: &Place<'_>, mut change: Change, pair: Pair<'_>) {
        let effect = effect(self.both, place.section, &change, pair);
        change.effect = effect.words;
        change.upgrade = effect.upgrade;
        self.changes.push(change);
    }
}

/// Whether anything in a map would be told by itself.
fn has_leaves(keys: &Keys) -> bool {
    keys.values().any(|value| match value {
        Plain::Word(word) => word.from != From::BuiltIn,
        Plain::Map(_) | Plain::List(_) => true,
    })
}

/// The keys of both, sorted.
fn keys_of(pair: Pair<'_>) -> BTreeSet<String> {
    [pair.0, pair.1]
        .into_iter()
        .flatten()
        .filter_map(Plain::keys)
        .flat_map(|keys| keys.keys().cloned())
        .collect()
}

fn inside<'a>(pair: Pair<'a>, key: &str) -> Pair<'a> {
    let value = |plain: Option<&'a Plain>| plain?.keys()?.get(key);
    (value(pair.0), value(pair.1))
}
