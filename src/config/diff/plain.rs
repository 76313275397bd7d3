//! A configuration in its plain form: of all ways to write the same thing, one.
//!
//! The walk is led by the schema, so that it knows what is a duration, what may be one thing or a list and what is a
//! secret, whichever keys there will be.

use super::super::de;
use super::super::effective::REDACTED;
use super::super::yaml::{Entry, Kind, Node, Scalar};
use super::complete::complete;
use super::short::shortened;
use crate::config::docs;
use crate::filters::limits::rules::LimitRule;
use crate::value::{ByteSize, HeaderKey, Issues, Percent, Rate, Span};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// A map in plain form; the order of its keys never counts.
pub(super) type Keys = BTreeMap<String, Plain>;

/// A value in plain form.
#[derive(Clone, Debug)]
pub(super) enum Plain {
    Word(Word),
    List(Vec<Plain>),
    Map(Keys),
}

/// A value that is one word.
#[derive(Clone, Debug)]
pub(super) struct Word {
    /// What it is compared by.
    pub text: String,
    /// How it is shown, if it may be.
    pub shown: Json,
    pub from: From,
}

/// Where a word is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// It stands in the configuration.
    Written,
    /// Nobody wrote it.
    BuiltIn,
    /// It must not be shown.
    Secret,
    /// A secret that we have not been told.
    Untold,
}

impl Plain {
    /// A word that stands in the configuration.
    pub fn word(text: impl Into<String>) -> Plain {
        let text = text.into();
        Plain::Word(Word { shown: text.clone().into(), text, from: From::Written })
    }

    /// The keys, if this is a map.
    pub fn keys(&self) -> Option<&Keys> {
        match self {
            Plain::Map(keys) => Some(keys),
            Plain::Word(_) | Plain::List(_) => None,
        }
    }

    /// What lies behind some keys.
    pub fn at(&self, path: &[&str]) -> Option<&Plain> {
        path.iter().try_fold(self, |plain, key| plain.keys()?.get(*key))
    }

    /// The text of a word that may be shown.
    pub fn text(&self) -> Option<&str> {
        self.raw().filter(|_| !self.is_secret())
    }

    /// The text of a word, which may be a secret.
    pub fn raw(&self) -> Option<&str> {
        match self {
            Plain::Word(word) => Some(&word.text),
            Plain::List(_) | Plain::Map(_) => None,
        }
    }

    /// Whether any of it must not be shown.
    pub fn is_secret(&self) -> bool {
        match self {
            Plain::Word(word) => word.is_hidden(),
            Plain::List(items) => items.iter().any(Plain::is_secret),
            Plain::Map(keys) => keys.values().any(Plain::is_secret),
        }
    }

    /// Whether two values mean the same. Of a secret that is not told, nothing can be said: it counts as the same.
    pub fn same(&self, other: &Plain) -> bool {
        match (self, other) {
            (Plain::Word(a), Plain::Word(b)) => {
                let untold = a.from == From::Untold || b.from == From::Untold;
                if untold { a.is_hidden() && b.is_hidden() } else { a.text == b.text }
            }
            (Plain::List(a), Plain::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Plain::Map(a), Plain::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| a.same(b)))
            }
            _ => false,
        }
    }

    fn hide(&mut self) {
        match self {
            Plain::Word(word) => word.hide(),
            Plain::List(items) => items.iter_mut().for_each(Plain::hide),
            Plain::Map(keys) => keys.values_mut().for_each(Plain::hide),
        }
    }
}

impl Word {
    /// Whether it must not be shown.
    pub fn is_hidden(&self) -> bool {
        matches!(self.from, From::Secret | From::Untold)
    }

    /// From now on it must not be shown.
    pub fn hide(&mut self) {
        self.from = if self.text == REDACTED { From::Untold } else { From::Secret };
        self.shown = Json::Null;
    }
}

/// The plain form of a whole configuration, built-in defaults filled in where they do not depend on inheritance.
pub(super) fn plain(tree: &Node) -> Plain {
    let schema = docs::plain_schema();
    let reading = Reading { schema, words: words() };
    let mut plain = reading.value(schema, tree);
    if let Plain::Map(keys) = &mut plain {
        complete(keys);
    }
    plain
}

/// A word with a syntax of its own: its pattern, and how it is brought to one form.
type Form = (Option<Json>, fn(&str) -> Option<String>);

fn words() -> Vec<Form> {
    fn form<T: FromStr + Display>(text: &str) -> Option<String> {
        text.parse::<T>().ok().map(|value| value.to_string())
    }
    let mut generator = SchemaGenerator::default();
    let mut pattern =
        |schema: fn(&mut SchemaGenerator) -> schemars::Schema| schema(&mut generator).remove("pattern");
    vec![
        (pattern(Span::json_schema), form::<Span>),
        (pattern(ByteSize::json_schema), form::<ByteSize>),
        (pattern(Percent::json_schema), form::<Percent>),
        (pattern(Rate::json_schema), form::<Rate>),
        (pattern(HeaderKey::json_schema), |text| Some(text.to_ascii_lowercase())),
    ]
}

/// Reads a tree, led by the schema.
struct Reading<'a> {
    schema: &'a Json,
    words: Vec<Form>,
}

impl<'a> Reading<'a> {
    fn value(&self, schema: &'a Json, node: &Node) -> Plain {
        let (name, schema) = self.resolved(schema);
        let forms: Vec<&Json> = alternatives(schema).collect();
        let plain = match forms.as_slice() {
            // One thing, or a list of them.
            [one, many] if many.get("items") == Some(*one) => match &node.kind {
                Kind::Seq(items) => self.list(one, items),
                _ => Plain::List(vec![self.value(one, node)]),
            },
            forms => match forms.iter().find(|form| self.fits(form, node)) {
                Some(form) => self.value(form, node),
                None => self.shape(schema, node),
            },
        };
        match name {
            Some("Secret") => hidden(plain),
            Some("LimitRule") => limit(node).unwrap_or(plain),
            Some(name) => shortened(name, plain),
            None => plain,
        }
    }

    fn shape(&self, schema: &'a Json, node: &Node) -> Plain {
        match &node.kind {
            Kind::Scalar(scalar) => Plain::Word(self.word(schema, scalar)),
            Kind::Seq(items) => self.list(schema.get("items").unwrap_or(&Json::Null), items),
            Kind::Map(entries) => Plain::Map(self.map(schema, entries)),
            Kind::Refused => Plain::word(""),
        }
    }

    fn list(&self, schema: &'a Json, items: &[Node]) -> Plain {
        Plain::List(items.iter().map(|item| self.value(schema, item)).collect())
    }

    fn map(&self, schema: &'a Json, entries: &[Entry]) -> Keys {
        let other = schema.get("additionalProperties").filter(|other| other.is_object());
        let properties = schema.get("properties");
        let typed = properties.is_some() || other.is_some();
        let mut keys = Keys::new();
        // Nothing and `null` are the same, but in the JSON of an answer.
        for entry in entries.iter().filter(|entry| !typed || !entry.value.is_null()) {
            let own = properties.and_then(|properties| properties.get(&entry.key.value));
            let value = self.value(own.or(other).unwrap_or(&Json::Null), &entry.value);
            let key = self.key(schema, &entry.key.value).filter(|key| !keys.contains_key(key));
            keys.insert(key.unwrap_or_else(|| entry.key.value.clone()), value);
        }
        keys
    }

    /// One form of a key that is a word of its own, such as a header's name.
    fn key(&self, schema: &Json, key: &str) -> Option<String> {
        self.formed(schema.get("propertyNames")?, key)
    }

    fn word(&self, schema: &Json, scalar: &Scalar) -> Word {
        let shown = serde_json::to_value(&scalar.value).unwrap_or_default();
        let typed = schema.get("type").is_some() || schema.get("const").is_some();
        let text = match &shown {
            Json::String(text) if typed => self.formed(schema, text).unwrap_or_else(|| text.clone()),
            // Where anything may stand, a number is not the text of its digits.
            other => other.to_string(),
        };
        let shown = scalar.written.as_ref().map_or(shown, |written| written.as_str().into());
        let mut word = Word { text, shown, from: From::Written };
        if scalar.secret {
            word.hide();
        }
        word
    }

    fn formed(&self, schema: &Json, text: &str) -> Option<String> {
        let pattern = schema.get("pattern")?;
        let (_, form) = self.words.iter().find(|(known, _)| known.as_ref() == Some(pattern))?;
        form(text)
    }

    /// The definition that a schema refers to, by its name.
    fn resolved(&self, schema: &'a Json) -> (Option<&'a str>, &'a Json) {
        let name = schema.get("$ref").and_then(Json::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
        let definition = name.and_then(|name| self.schema.get("$defs")?.get(name));
        (name, definition.unwrap_or(schema))
    }

    /// Whether a value may be written in this form, as far as that tells the forms apart.
    fn fits(&self, form: &'a Json, node: &Node) -> bool {
        let (_, form) = self.resolved(form);
        let mut inner = alternatives(form).peekable();
        if inner.peek().is_some() {
            return inner.any(|inner| self.fits(inner, node));
        }
        let (properties, other) = (form.get("properties"), form.get("additionalProperties"));
        match &node.kind {
            Kind::Seq(_) => form.get("items").is_some(),
            Kind::Map(entries) => {
                let known = |key: &str| properties.is_some_and(|known| known.get(key).is_some());
                let any = other.is_some_and(Json::is_object);
                (properties.is_some() || any) && entries.iter().all(|entry| any || known(&entry.key.value))
            }
            Kind::Scalar(scalar) => match form.get("const") {
                Some(word) => word.as_str().is_some_and(|word| scalar.value == word),
                None => properties.is_none() && form.get("items").is_none() && !any_object(other),
            },
            Kind::Refused => false,
        }
    }
}

fn any_object(schema: Option<&Json>) -> bool {
    schema.is_some_and(Json::is_object)
}

fn alternatives(schema: &Json) -> impl Iterator<Item = &Json> {
    let forms = schema.get("oneOf").or_else(|| schema.get("anyOf"));
    forms.and_then(Json::as_array).into_iter().flatten()
}

fn hidden(mut plain: Plain) -> Plain {
    plain.hide();
    plain
}

/// A limit in its short form, with what only the long one can say behind it.
fn limit(node: &Node) -> Option<Plain> {
    let rule = de::read::<LimitRule>(node, &mut Issues::default())?;
    let mut text = rule.to_string();
    if let Some(scope) = rule.scope {
        text.push_str(&format!(" scope {scope}"));
    }
    if let Some(on_missing) = rule.on_missing.filter(|on_missing| *on_missing != Default::default()) {
        text.push_str(&format!(" on_missing {on_missing:?}").to_lowercase());
    }
    let plain = Plain::word(text);
    Some(if has_secret(node) { hidden(plain) } else { plain })
}

fn has_secret(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar(scalar) => scalar.secret,
        Kind::Seq(items) => items.iter().any(has_secret),
        Kind::Map(entries) => entries.iter().any(|entry| has_secret(&entry.value)),
        Kind::Refused => false,
    }
}
