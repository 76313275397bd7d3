//! Why a value could not be read, and how that is said to the operator.

use super::super::yaml::{Entry, Kind, Node, Scalar};
use super::{TakenOut, address};
use crate::config::secrets::{in_order, put_back};
use crate::value::{At, Code, Issue};
use serde::de::{Error, Expected, Unexpected};
use serde_yaml::Value;
use std::borrow::Cow;
use std::fmt::{self, Display};

/// An error of serde's, and the innermost node it belongs to once that is known.
pub struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    what: What,
    place: Option<Place>,
}

#[derive(Debug)]
enum What {
    UnknownKey {
        key: String,
        allowed: &'static [&'static str],
    },
    UnknownWord {
        word: String,
        allowed: &'static [&'static str],
    },
    MissingKey(&'static str),
    /// Another type, or a value out of range.
    Unfit {
        expected: String,
        code: Code,
    },
    /// A word where a map with these keys belongs.
    NoMap(&'static [&'static str]),
    /// What a type says about itself, `"\nhelp: …"` included.
    Said(String),
    /// Follows from something that was reported already.
    Silent,
}

#[derive(Debug)]
struct Place {
    /// The node that later runs leave out.
    taken: usize,
    at: At,
    /// Whether the key is at fault, not the value.
    key: bool,
}

impl Failure {
    fn new(what: What) -> Self {
        Failure(Box::new(Parts { what, place: None }))
    }

    pub(super) fn silent() -> Self {
        Self::new(What::Silent)
    }

    /// Belongs to this node unless an inner one was named already.
    pub(super) fn within(mut self, node: &Node) -> Self {
        self.0.place.get_or_insert(Place { taken: address(node), at: node.at, key: false });
        self
    }

    /// Belongs to the key of this entry.
    pub(super) fn at_key(mut self, entry: &Entry) -> Self {
        self.0.place.get_or_insert(Place { taken: address(&entry.value), at: entry.key.at, key: true });
        self
    }

    /// The only key of a map names no variant: the key is wrong, but without it nothing is left of the map.
    pub(super) fn at_variant_key(mut self, map: &Node, entry: &Entry) -> Self {
        if let What::UnknownWord { word, allowed } = self.0.what {
            self.0.what = What::UnknownKey { key: word, allowed };
        }
        self.0.place.get_or_insert(Place { taken: address(map), at: entry.key.at, key: false });
        self
    }

    pub(super) fn needs_content(word: &str) -> Self {
        Self::custom(format!("`{word}` needs a value\nhelp: write `{word}: …` inside a map"))
    }

    pub(super) fn needs_no_content(word: &str) -> Self {
        Self::custom(format!("`{word}` takes no value\nhelp: write only `{word}`"))
    }

    pub(super) fn not_one_of(variants: &[&str]) -> Self {
        Self::custom(format!("exactly one key is needed here\nhelp: write one of: {}", variants.join(", ")))
    }

    pub(super) fn no_map(keys: &'static [&'static str]) -> Self {
        Self::new(What::NoMap(keys))
    }

    pub(super) fn no_variant(variants: &[&str]) -> Self {
        Self::unfit(format!("one of: {}", variants.join(", ")), Code::WRONG_TYPE)
    }

    fn unfit(expected: String, code: Code) -> Self {
        Self::new(What::Unfit { expected, code })
    }

    /// The node to leave out, and the finding unless it only follows from earlier ones.
    pub(super) fn explain(self, root: &Node, out: &TakenOut) -> (usize, Option<Issue>) {
        let Parts { what, place } = *self.0;
        let Place { taken, at, key } =
            place.unwrap_or(Place { taken: address(root), at: root.at, key: false });
        let mut steps = Vec::new();
        let node = find(root, taken, &mut steps).unwrap_or(root);
        if follows(&what, node, key, out) {
            return (taken, None);
        }
        // Found from the inside out; a wrong key stands in the map around its value.
        let path: String = steps.iter().skip(usize::from(key)).rev().map(String::as_str).collect();
        let path = path.strip_prefix('.').map(str::to_owned).unwrap_or(path);
        (taken, Some(Subject { node, key, path }.issue(what).at(at)))
    }
}

/// Whether this may be wrong only because parts of the node were taken out.
fn follows(what: &What, node: &Node, key: bool, out: &TakenOut) -> bool {
    match what {
        What::Silent => true,
        What::MissingKey(name) => is_out_or_mistyped(name, node, out),
        What::Said(_) => !key && !out.nothing_in(node),
        // serde's words for a map that should name a variant and is empty.
        What::Unfit { expected, .. } => expected == "enum" && !out.nothing_in(node),
        What::UnknownKey { .. } | What::UnknownWord { .. } | What::NoMap(_) => false,
    }
}

/// Whether the missing key is there but was taken out, be it for its value or for a typing error in the key.
fn is_out_or_mistyped(name: &str, map: &Node, out: &TakenOut) -> bool {
    let Kind::Map(entries) = &map.kind else { return false };
    let meant = |entry: &&Entry| did_you_mean(&entry.key.value, [name]).is_some() || entry.key.value == name;
    entries.iter().filter(|entry| out.has(&entry.value)).any(|entry| meant(&entry))
}

/// Searches a node by its address; `steps` gets the way to it, the last step first.
fn find<'n>(node: &'n Node, wanted: usize, steps: &mut Vec<String>) -> Option<&'n Node> {
    if address(node) == wanted {
        return Some(node);
    }
    let (found, step) = match &node.kind {
        Kind::Scalar(_) | Kind::Refused => None,
        Kind::Seq(items) => items.iter().enumerate().find_map(|(index, item)| {
            let found = find(item, wanted, steps)?;
            Some((found, format!("[{index}]")))
        }),
        Kind::Map(entries) => entries.iter().find_map(|entry| {
            let found = find(&entry.value, wanted, steps)?;
            Some((found, format!(".{}", entry.key.value)))
        }),
    }?;
    steps.push(step);
    Some(found)
}

/// What a finding is about.
struct Subject<'a> {
    node: &'a Node,
    /// The key before the node, not the node.
    key: bool,
    /// From the root to the node, or to the map that holds the key.
    path: String,
}

impl Subject<'_> {
    fn issue(&self, what: What) -> Issue {
        match what {
            What::UnknownKey { key, allowed } => self.unknown_key(&key, allowed),
            What::UnknownWord { word, allowed } => self.unknown_word(&word, allowed),
            What::MissingKey(name) => {
                Issue::new(Code::MISSING_KEY, format!("missing key `{name}`{}", self.inside()))
            }
            What::Unfit { expected, code } => self.unfit(&expected, code),
            What::NoMap(keys) => {
                self.unfit("a map", Code::WRONG_TYPE).note(format!("allowed here: {}", keys.join(", ")))
            }
            What::Said(text) => self.said(&text),
            What::Silent => Issue::new(Code::BAD_VALUE, "cannot be read"),
        }
    }

    /// ` in …`, or nothing at the root.
    fn inside(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) }
    }

    fn unknown_key(&self, key: &str, allowed: &[&str]) -> Issue {
        let issue = Issue::new(Code::UNKNOWN_KEY, format!("unknown key `{key}`{}", self.inside()));
        let issue = suggest(issue, key, allowed);
        // `{id}` where a map is possible too.
        let looks_like_text = (self.key && self.node.is_null()) || braces(self.node).is_some();
        if looks_like_text {
            issue.help(format!("if text was meant, quote it: \"{{{key}}}\""))
        } else {
            issue
        }
    }

    fn unknown_word(&self, word: &str, allowed: &[&str]) -> Issue {
        if self.is_secret() {
            let issue =
                Issue::new(Code::BAD_VALUE, format!("{} is not a word that is known here", self.found()));
            return issue.note(format!("allowed here: {}", allowed.join(", ")));
        }
        suggest(Issue::new(Code::BAD_VALUE, format!("unknown word `{word}`{}", self.inside())), word, allowed)
    }

    fn unfit(&self, expected: &str, code: Code) -> Issue {
        if let Some(text) = braces(self.node).filter(|_| !self.key) {
            return Issue::new(Code::QUOTE_THIS, "quote this value: braces without quotes are a map")
                .help(format!("write `\"{{{text}}}\"`, or `\"${{{text}}}\"` for a value of the request"));
        }
        let issue = Issue::new(code, format!("expected {}, found {}", human(expected), self.found()));
        match self.quoting(expected) {
            Some(help) => issue.help(help),
            None => issue,
        }
    }

    /// The help for what YAML took for another type than was meant.
    fn quoting(&self, expected: &str) -> Option<String> {
        let Kind::Scalar(scalar) = &self.node.kind else { return None };
        match &scalar.value {
            Value::Null => Some("give it a value, or remove the key".to_owned()),
            Value::Bool(_) | Value::Number(_) if expected == "a string" => {
                Some(format!("quote it: \"{}\"", shown(scalar)))
            }
            Value::String(text) if !scalar.secret && !scalar.plain => {
                let number = text.parse::<f64>().is_ok() && human(expected).contains("number");
                let truth = text.parse::<bool>().is_ok() && expected == "a boolean";
                (number || truth).then(|| "remove the quotes".to_owned())
            }
            _ => None,
        }
    }

    fn said(&self, text: &str) -> Issue {
        let text = if self.key { text.to_owned() } else { masked(text, self.node) };
        let mut lines = text.split("\nhelp: ");
        let issue = Issue::new(Code::BAD_VALUE, lines.next().unwrap_or_default());
        lines.fold(issue, Issue::help)
    }

    fn is_secret(&self) -> bool {
        matches!(&self.node.kind, Kind::Scalar(scalar) if scalar.secret && !self.key)
    }

    /// What stands there, in words.
    fn found(&self) -> String {
        match &self.node.kind {
            _ if self.key => "this key".to_owned(),
            Kind::Seq(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
            Kind::Refused => "nothing".to_owned(),
            Kind::Scalar(scalar) => match &scalar.value {
                _ if scalar.secret => format!("the value of `{}`", shown(scalar)),
                Value::Null => "nothing".to_owned(),
                Value::Number(_) => format!("the number `{}`", shown(scalar)),
                Value::String(_) => format!("the text `{}`", shown(scalar)),
                _ => format!("`{}`", shown(scalar)),
            },
        }
    }
}

/// A scalar as it may be shown: as written if it was interpolated, and not too long.
fn shown(scalar: &Scalar) -> String {
    let text = match (&scalar.written, &scalar.value) {
        (Some(written), _) => written.clone(),
        (_, Value::String(text)) => text.clone(),
        (_, Value::Number(number)) => number.to_string(),
        (_, Value::Bool(truth)) => truth.to_string(),
        _ => String::new(),
    };
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The text in the braces, if this map can only be text without its quotes: keys, but no values.
fn braces(node: &Node) -> Option<String> {
    let Kind::Map(entries) = &node.kind else { return None };
    let bare = |entry: &Entry| {
        matches!(&entry.value.kind, Kind::Scalar(scalar) if scalar.plain) && entry.value.is_null()
    };
    let keys: Vec<&str> = entries.iter().map(|entry| entry.key.value.as_str()).collect();
    (!keys.is_empty() && entries.iter().all(bare)).then(|| keys.join(", "))
}

/// The message without values that came from outside.
///
/// A value is replaced by what was written for it; a part of one, as a type may quote it, by `…`.
fn masked(message: &str, node: &Node) -> String {
    let mut secrets = Vec::new();
    collect_secrets(node, &mut secrets);
    if secrets.is_empty() {
        return message.to_owned();
    }
    let secrets = in_order(secrets, 0);
    // One or two characters are no secret, and replacing them everywhere would make nonsense of any message.
    let text = put_back(message, &in_order(secrets.clone(), 2));
    let part = |quoted: &str| {
        let quoted = quoted.to_ascii_lowercase();
        !quoted.is_empty() && secrets.iter().any(|(value, _)| value.contains(&quoted))
    };
    let pieces = text.split('`').enumerate();
    let pieces: Vec<&str> =
        pieces.map(|(i, piece)| if i % 2 == 1 && part(piece) { "…" } else { piece }).collect();
    pieces.join("`")
}

fn collect_secrets<'n>(node: &'n Node, secrets: &mut Vec<(String, &'n str)>) {
    match &node.kind {
        Kind::Scalar(Scalar { value: Value::String(value), secret: true, written, .. }) => {
            secrets.push((value.clone(), written.as_deref().unwrap_or("…")));
        }
        Kind::Scalar(_) | Kind::Refused => {}
        Kind::Seq(items) => items.iter().for_each(|item| collect_secrets(item, secrets)),
        Kind::Map(entries) => entries.iter().for_each(|entry| collect_secrets(&entry.value, secrets)),
    }
}

/// serde's name of what it expected, in the words of somebody who writes YAML.
fn human(expected: &str) -> Cow<'_, str> {
    let size =
        ["a tuple of size ", "an array of length "].iter().find_map(|start| expected.strip_prefix(start));
    if let Some(size) = size {
        return format!("a list of {size} items").into();
    }
    let words = match expected {
        "a string" | "a character" | "string" => "text",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "u128" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "unit" => "nothing",
        "enum" => "a map with one key",
        "variant identifier" | "field identifier" => "a word",
        _ if expected.starts_with("a nonzero") => "a whole number that is not 0",
        _ if ["struct ", "struct variant ", "internally tagged "].iter().any(|p| expected.starts_with(p)) => {
            "a map"
        }
        _ if expected.starts_with("tuple ") => "a list",
        _ if expected.starts_with("enum ") => "a word or a map with one key",
        _ => expected,
    };
    words.into()
}

fn suggest(issue: Issue, word: &str, allowed: &[&str]) -> Issue {
    let issue = match did_you_mean(word, allowed.iter().copied()) {
        Some(near) => issue.label(format!("did you mean `{near}`?")),
        None => issue,
    };
    if allowed.is_empty() { issue } else { issue.note(format!("allowed here: {}", allowed.join(", "))) }
}

/// The candidate a word was probably meant to be.
///
/// One typing error in three characters is forgiven; case, `-` and `_` count as equal.
pub fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // The distance is quadratic; nobody mistypes so long a word.
    if word.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    let length = word.chars().count();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(distance, near)| *distance <= (length.max(near.len()) / 3).max(1) && *distance < length)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

impl Error for Failure {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(What::Said(message.to_string()))
    }
    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::unfit(expected.to_string(), Code::WRONG_TYPE)
    }
    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::unfit(expected.to_string(), Code::BAD_VALUE)
    }
    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let items = if length == 1 { "item" } else { "items" };
        Self::custom(format!("expected {}, found {length} {items}", human(&expected.to_string())))
    }
    fn unknown_variant(word: &str, allowed: &'static [&'static str]) -> Self {
        Self::new(What::UnknownWord { word: word.to_owned(), allowed })
    }
    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> Self {
        Self::new(What::UnknownKey { key: key.to_owned(), allowed })
    }
    fn missing_field(key: &'static str) -> Self {
        Self::new(What::MissingKey(key))
    }
    fn duplicate_field(key: &'static str) -> Self {
        Self::custom(format!("key `{key}` is given twice, under two names"))
    }
}

impl std::error::Error for Failure {}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.what)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}
