//! Short and long forms: each type that has both, brought to one of them.

use super::plain::{From, Keys, Plain, Word};

/// Types whose long form with one key says no more than what stands there.
const ONLY_KEY: &[(&str, &str)] =
    &[("Target", "addr"), ("To", "upstream"), ("Key", "hash"), ("Auth", "any"), ("ClaimRule", "all")];

/// One form of a value of a type that has several.
pub(super) fn shortened(name: &str, plain: Plain) -> Plain {
    let plain = match (name, plain) {
        ("Target", Plain::Map(mut keys)) => {
            for (key, default) in [("weight", "1"), ("backup", "false")] {
                if keys.get(key).and_then(Plain::text) == Some(default) {
                    keys.remove(key);
                }
            }
            Plain::Map(keys)
        }
        (_, plain) => plain,
    };
    let plain = match ONLY_KEY.iter().find(|(known, _)| *known == name) {
        Some((_, key)) => only(key, plain),
        None => plain,
    };
    match (name, plain) {
        ("ClaimRule", Plain::List(items)) => match <[Plain; 1]>::try_from(items) {
            Ok([one]) => one,
            Err(items) => Plain::Map(Keys::from([("all".to_owned(), Plain::List(items))])),
        },
        ("Auth", word @ Plain::Word(_)) if word.text() != Some("public") => Plain::List(vec![word]),
        ("Limits", word @ Plain::Word(_)) if word.text() == Some("none") => Plain::List(Vec::new()),
        ("Limits", one @ (Plain::Word(_) | Plain::Map(_))) => Plain::List(vec![one]),
        ("Tls" | "Maintenance", word @ Plain::Word(_)) if word.text() == Some("true") => {
            Plain::Map(Keys::new())
        }
        ("Health", probe @ Plain::Word(_)) => Plain::Map(Keys::from([("probe".to_owned(), probe)])),
        ("Condition", plain) => condition(plain),
        ("Redirect", Plain::Map(keys)) => redirect(keys),
        ("Match", Plain::Map(keys)) => matching(keys),
        (_, plain) => plain,
    }
}

/// What stands behind the key, if it is the only one.
fn only(key: &str, plain: Plain) -> Plain {
    match plain {
        Plain::Map(mut keys) if keys.len() == 1 && keys.contains_key(key) => {
            keys.remove(key).unwrap_or(Plain::Map(keys))
        }
        plain => plain,
    }
}

/// `{ exact: v }` is `v`, where `v` is no word of its own.
fn condition(plain: Plain) -> Plain {
    let exact = plain.at(&["exact"]).and_then(Plain::text);
    if exact.is_some_and(|exact| !matches!(exact, "present" | "absent")) {
        return only("exact", plain);
    }
    plain
}

/// `STATUS ADDRESS`, unless the query is spoken of.
fn redirect(keys: Keys) -> Plain {
    let word = |key: &str| match keys.get(key) {
        Some(Plain::Word(word)) => Some(word),
        _ => None,
    };
    let Some(to) = word("to").filter(|_| keys.keys().all(|key| key == "to" || key == "status")) else {
        return Plain::Map(keys);
    };
    let status = word("status").map_or("308", |status| &status.text);
    let text = format!("{status} {}", to.text);
    joined(text, &keys)
}

/// `METHOD /path`, unless there are conditions.
fn matching(keys: Keys) -> Plain {
    let Some(Plain::Word(path)) = keys.get("path") else { return Plain::Map(keys) };
    let methods = match keys.get("methods") {
        None => Vec::new(),
        Some(Plain::List(methods)) => methods.clone(),
        Some(_) => return Plain::Map(keys),
    };
    let empty = |key: &str| keys.get(key).and_then(Plain::keys).is_none_or(Keys::is_empty);
    if !empty("headers") || !empty("query") || (methods.is_empty() && keys.contains_key("methods")) {
        return Plain::Map(keys);
    }
    let mut methods: Vec<&str> = methods.iter().filter_map(Plain::raw).collect();
    methods.sort_unstable();
    let text =
        if methods.is_empty() { path.text.clone() } else { format!("{} {}", methods.join(","), path.text) };
    joined(text, &keys)
}

/// A word made from others: a secret, if one of them is.
fn joined(text: String, from: &Keys) -> Plain {
    let mut word = Word { shown: text.as_str().into(), text, from: From::Written };
    if from.values().any(Plain::is_secret) {
        word.hide();
    }
    Plain::Word(word)
}
