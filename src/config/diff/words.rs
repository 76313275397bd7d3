//! Values in words: short enough for a line, and never a secret.

use super::Thing;
use super::complete::identity;
use super::plain::{From, Plain};
use serde_json::Value as Json;
use std::collections::HashMap;

/// What stands for a value that is not shown.
pub(super) const SECRET: &str = "(secret)";

/// The longest value that is shown whole, in characters.
const LONGEST: usize = 80;

/// A value as it may be shown. What nobody wrote is left out of maps.
pub(super) fn json(plain: &Plain) -> Json {
    match plain {
        Plain::Word(word) if word.is_hidden() => SECRET.into(),
        Plain::Word(word) => word.shown.clone(),
        Plain::List(items) => items.iter().map(json).collect(),
        Plain::Map(keys) => {
            let written = |value: &&Plain| !matches!(value, Plain::Word(word) if word.from == From::BuiltIn);
            keys.iter()
                .filter(|(_, value)| written(value))
                .map(|(key, value)| (key.clone(), json(value)))
                .filter(|(key, value)| !(is_made(key) && value == &serde_json::json!({})))
                .collect()
        }
    }
}

/// Maps that are there only to hold what is built in.
fn is_made(key: &str) -> bool {
    matches!(key, "limits" | "pool" | "discovery" | "health")
}

/// One value in words.
pub(super) fn value(plain: Option<&Plain>) -> String {
    match plain {
        None => "not set".to_owned(),
        Some(Plain::Word(word)) if word.from == From::BuiltIn => format!("{} (default)", flow(&word.shown)),
        Some(plain) => shorten(&flow(&json(plain))),
    }
}

/// What became of a list: what is gone and what is new, or that only the order is another.
pub(super) fn list(old: &[Plain], new: &[Plain]) -> String {
    let (gone, fresh) = (without(old, new), without(new, old));
    match (gone.as_slice(), fresh.as_slice()) {
        ([], []) => "another order".to_owned(),
        ([gone], [fresh]) if old.len() == 1 && new.len() == 1 => format!("{gone} → {fresh}"),
        _ => {
            let signed =
                |sign: char, items: Vec<String>| items.into_iter().map(move |item| format!("{sign}{item}"));
            signed('-', gone).chain(signed('+', fresh)).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Items of a list that another does not have, in words.
fn without(items: &[Plain], other: &[Plain]) -> Vec<String> {
    let mut left: HashMap<String, usize> = HashMap::new();
    other.iter().for_each(|item| *left.entry(identity(item)).or_default() += 1);
    let is_new = |item: &&Plain| match left.get_mut(&identity(item)) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    items.iter().filter(is_new).map(|item| shorten(&flow(&json(item)))).collect()
}

/// What something is, in a few words; empty where its name says enough.
pub(super) fn brief(thing: Thing, plain: &Plain) -> String {
    let of = |path: &[&str]| plain.at(path).map(|value| shorten(&flow_list(&json(value))));
    let brief = match thing {
        Thing::Route => {
            let to = plain.at(&["to"]).map(|to| match to {
                Plain::Map(keys) => keys.keys().next().cloned().unwrap_or_default(),
                to => shorten(&flow(&json(to))),
            });
            let matches = of(&["match"]);
            match (matches, to) {
                (Some(matches), Some(to)) => Some(format!("{matches} → {to}")),
                (matches, to) => matches.or(to),
            }
        }
        Thing::Listener => of(&["bind"]),
        Thing::Upstream => of(&["targets"]),
        Thing::Consumer => of(&["plan"]).map(|plan| format!("plan {plan}")),
        Thing::Provider => plain.keys().and_then(|keys| keys.keys().next().cloned()),
        Thing::Plan | Thing::Api | Thing::Setting => None,
    };
    brief.unwrap_or_default()
}

/// The items of a list without its brackets.
fn flow_list(value: &Json) -> String {
    match value {
        Json::Array(items) => items.iter().map(flow).collect::<Vec<_>>().join(", "),
        other => flow(other),
    }
}

/// A value on one line, as YAML in flow style would have it; quotes only where the line would be unclear.
fn flow(value: &Json) -> String {
    match value {
        Json::String(text) if is_clear(text) => text.clone(),
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::Object(keys) if keys.is_empty() => "{}".to_owned(),
        Json::Object(keys) => {
            let pairs = keys.iter().map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn is_clear(text: &str) -> bool {
    // The text of a number is not the number.
    let is_other = text.len() < 32 && serde_json::from_str::<Json>(text).is_ok();
    !is_other
        && !text.is_empty()
        && text.trim() == text
        && !text.contains(|c: char| c.is_control() || c == '"')
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
