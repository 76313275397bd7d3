//! From the tree to types, with all findings at once.
//!
//! serde stops at the first error. So the reader runs again: what was wrong is reported, taken out of the tree and not
//! looked at in the next run, until a run succeeds. A text without errors is read exactly once. What a missing part
//! makes wrong elsewhere (a required key that was taken out, a list that is now empty) is not reported.

mod failure;

use super::yaml::{Entry, Kind, Node, Scalar};
use crate::value::{At, Issues, ONE_OR_MANY, SPANNED, Spanned};
use failure::Failure;
use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_yaml::Value;
use std::collections::HashSet;

pub use failure::did_you_mean;

/// Findings of one document; nobody reads more.
const MAX_FINDINGS: usize = 100;
/// Runs of one document: some only find what follows from an earlier finding.
const MAX_RUNS: usize = 4 * MAX_FINDINGS;

/// Reads a value. Findings go to `issues`; a value is returned only if there are none and nothing was refused before.
///
/// `T` may use everything serde's derive offers but `flatten` and `untagged`, which read through a buffer that knows no
/// places. A visitor that takes "a word or a map" calls `deserialize_any` and hands its map to
/// [`serde::de::value::MapAccessDeserializer`].
pub fn read<T: DeserializeOwned>(node: &Node, issues: &mut Issues) -> Option<T> {
    read_what_can_be(node, issues).and_then(|(value, whole)| whole.then_some(value))
}

/// Reads a value and leaves out what is wrong in it, where it can do without; the flag says whether nothing was left out.
/// Such a value cannot be used, but further findings can be made in it.
pub fn read_what_can_be<T: DeserializeOwned>(node: &Node, issues: &mut Issues) -> Option<(T, bool)> {
    let mut out = TakenOut(HashSet::new());
    let most = issues.0.len() + MAX_FINDINGS;
    for _ in 0..MAX_RUNS {
        match T::deserialize(Reader { node, out: &out }) {
            Ok(value) => return Some((value, out.nothing_in(node))),
            Err(failure) => {
                let (taken, issue) = failure.explain(node, &out);
                issues.0.extend(issue);
                if issues.0.len() >= most || !out.take(taken) || out.has(node) {
                    return None;
                }
            }
        }
    }
    None
}

/// The nodes that later runs do not look at, by address: the tree does not move while it is read.
struct TakenOut(HashSet<usize>);

fn address(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

impl TakenOut {
    /// False if it was out before.
    fn take(&mut self, node: usize) -> bool {
        self.0.insert(node)
    }

    fn has(&self, node: &Node) -> bool {
        node.kind == Kind::Refused || self.0.contains(&address(node))
    }

    /// Whether the whole subtree is there.
    fn nothing_in(&self, node: &Node) -> bool {
        !self.has(node)
            && match &node.kind {
                Kind::Scalar(_) | Kind::Refused => true,
                Kind::Seq(items) => items.iter().all(|item| self.nothing_in(item)),
                Kind::Map(entries) => entries.iter().all(|entry| self.nothing_in(&entry.value)),
            }
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    out: &'a TakenOut,
}

type Read<T> = Result<T, Failure>;

impl<'a> Reader<'a> {
    /// As the node is written. A failure that knows no place yet belongs to this node.
    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.whole()?;
        match &self.node.kind {
            Kind::Scalar(scalar) => plain_value(&scalar.value, visitor),
            Kind::Seq(items) => self.seq(items, visitor),
            Kind::Map(entries) => self.map(entries, visitor),
            Kind::Refused => Err(Failure::silent()),
        }
        .map_err(|failure| failure.within(self.node))
    }

    /// As the fields of a struct.
    fn fields<'de, V: Visitor<'de>>(self, keys: &'static [&'static str], visitor: V) -> Read<V::Value> {
        match &self.node.kind {
            Kind::Seq(_) => Err(Failure::invalid_type(Unexpected::Seq, &visitor).within(self.node)),
            Kind::Scalar(scalar) if scalar.value != Value::Null => {
                Err(Failure::no_map(keys).within(self.node))
            }
            _ => self.any(visitor),
        }
    }

    /// Numbers and booleans: text from outside counts as what it spells.
    fn word<'de, V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match &self.node.kind {
            Kind::Scalar(Scalar { value: Value::String(text), secret: true, .. }) => {
                spelled(text, visitor).map_err(|failure| failure.within(self.node))
            }
            _ => self.any(visitor),
        }
    }

    /// Nothing is read from a node that was taken out, be it the root or the content of an enum.
    fn whole(self) -> Read<()> {
        if self.out.has(self.node) { Err(Failure::silent()) } else { Ok(()) }
    }

    fn seq<'de, V: Visitor<'de>>(self, items: &'a [Node], visitor: V) -> Read<V::Value> {
        let mut items = Items { items: items.iter(), out: self.out };
        let value = visitor.visit_seq(&mut items)?;
        match items.next() {
            Some(_) => Err(Failure::custom("this list has too many items")),
            None => Ok(value),
        }
    }

    fn map<'de, V: Visitor<'de>>(self, entries: &'a [Entry], visitor: V) -> Read<V::Value> {
        let mut entries = Entries { entries: entries.iter(), value: None, out: self.out };
        let value = visitor.visit_map(&mut entries)?;
        // What a visitor left unread must not pass in silence.
        match entries.value.or_else(|| entries.next()) {
            Some(entry) => Err(Failure::unknown_field(&entry.key.value, &[]).at_key(entry)),
            None => Ok(value),
        }
    }

    /// A variant from a word, or from the only key of a map.
    fn variant<'de, V: Visitor<'de>>(self, variants: &'static [&'static str], visitor: V) -> Read<V::Value> {
        self.whole()?;
        match &self.node.kind {
            Kind::Scalar(Scalar { value: Value::String(word), .. }) => {
                visitor.visit_enum(Variant { word, entry: None, reader: self })
            }
            Kind::Map(entries) => match entries.as_slice() {
                [entry] if self.out.has(&entry.value) => Err(Failure::silent()),
                [entry] => {
                    visitor.visit_enum(Variant { word: &entry.key.value, entry: Some(entry), reader: self })
                }
                _ => Err(Failure::not_one_of(variants)),
            },
            _ => Err(Failure::no_variant(variants)),
        }
        .map_err(|failure| failure.within(self.node))
    }
}

/// Hands a scalar to a visitor as what it is.
fn plain_value<'de, V: Visitor<'de>>(value: &Value, visitor: V) -> Read<V::Value> {
    match value {
        Value::Null => visitor.visit_unit(),
        Value::Bool(value) => visitor.visit_bool(*value),
        Value::String(text) => visitor.visit_str(text),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => visitor.visit_u64(number),
            (_, Some(number), _) => visitor.visit_i64(number),
            (.., float) => visitor.visit_f64(float.unwrap_or(f64::NAN)),
        },
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => Err(Failure::silent()),
    }
}

/// Hands a text to a visitor as the number or boolean it spells.
fn spelled<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Read<V::Value> {
    if let Ok(number) = text.parse() {
        visitor.visit_u64(number)
    } else if let Ok(number) = text.parse() {
        visitor.visit_i64(number)
    } else if let Ok(value) = text.parse() {
        visitor.visit_bool(value)
    } else if let Ok(number) = text.parse() {
        visitor.visit_f64(number)
    } else {
        visitor.visit_str(text)
    }
}

macro_rules! as_word {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
            self.word(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let value = if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) };
        value.map_err(|failure| failure.within(self.node))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Read<V::Value> {
        match (name, &self.node.kind) {
            (SPANNED, _) => visitor.visit_seq(Parts { numbers: position(self.node.at), value: Some(self) }),
            (ONE_OR_MANY, Kind::Seq(items)) => self.seq(items, visitor),
            (ONE_OR_MANY, _) => self.seq(std::slice::from_ref(self.node), visitor),
            _ => visitor.visit_newtype_struct(self),
        }
        .map_err(|failure| failure.within(self.node))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.variant(variants, visitor)
    }

    /// serde's derive would take a list for the fields in their order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.fields(keys, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_unit()
    }

    as_word! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }
}

/// The items of a list that are still in.
struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    out: &'a TakenOut,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a Node;
    fn next(&mut self) -> Option<&'a Node> {
        let out = self.out;
        self.items.find(|item| !out.has(item))
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Failure;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        let out = self.out;
        let Some(node) = self.next() else { return Ok(None) };
        // Also a type that read well may refuse its value.
        seed.deserialize(Reader { node, out }).map(Some).map_err(|failure| failure.within(node))
    }
}

/// The entries of a map that are still in.
struct Entries<'a> {
    entries: std::slice::Iter<'a, Entry>,
    /// Its key was read, its value not yet.
    value: Option<&'a Entry>,
    out: &'a TakenOut,
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a Entry;
    fn next(&mut self) -> Option<&'a Entry> {
        let out = self.out;
        self.entries.find(|entry| !out.has(&entry.value))
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        self.value = self.next();
        self.value
            .map(|entry| seed.deserialize(KeyReader(&entry.key)).map_err(|e| e.at_key(entry)))
            .transpose()
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Read<V::Value> {
        let entry = self.value.take().ok_or_else(Failure::silent)?;
        let node = &entry.value;
        seed.deserialize(Reader { node, out: self.out }).map_err(|failure| failure.within(node))
    }
}

/// Reads a key.
struct KeyReader<'a>(&'a Spanned<String>);

macro_rules! as_spelled {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
            spelled(&self.0.value, visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for KeyReader<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_str(&self.0.value)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Read<V::Value> {
        match name {
            SPANNED => visitor.visit_seq(Parts { numbers: position(self.0.at), value: Some(self) }),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        let word: StrDeserializer<'_, Failure> = self.0.value.as_str().into_deserializer();
        visitor.visit_enum(word)
    }

    as_spelled! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// What [`SPANNED`] asks for: three numbers and the value.
struct Parts<D> {
    numbers: std::array::IntoIter<u32, 3>,
    value: Option<D>,
}

fn position(at: At) -> std::array::IntoIter<u32, 3> {
    [u32::from(at.file), at.start, at.end].into_iter()
}

impl<'de, D: Deserializer<'de, Error = Failure>> SeqAccess<'de> for Parts<D> {
    type Error = Failure;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        if let Some(number) = self.numbers.next() {
            return seed.deserialize(U32Deserializer::new(number)).map(Some);
        }
        self.value.take().map(|value| seed.deserialize(value)).transpose()
    }
}

/// A variant and, if it was written as a map, its content.
struct Variant<'a> {
    word: &'a str,
    entry: Option<&'a Entry>,
    reader: Reader<'a>,
}

impl<'a> Variant<'a> {
    fn content(&self) -> Read<Reader<'a>> {
        let Some(entry) = self.entry else { return Err(Failure::needs_content(self.word)) };
        Ok(Reader { node: &entry.value, ..self.reader })
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Failure;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Read<(S::Value, Self)> {
        let word: StrDeserializer<'_, Failure> = self.word.into_deserializer();
        let variant = seed.deserialize(word).map_err(|failure| match self.entry {
            Some(entry) => failure.at_variant_key(self.reader.node, entry),
            None => failure,
        })?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Read<()> {
        match self.entry {
            Some(entry) if !entry.value.is_null() => Err(Failure::needs_no_content(self.word)),
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Read<T::Value> {
        let content = self.content()?;
        seed.deserialize(content).map_err(|failure| failure.within(content.node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Read<V::Value> {
        self.content()?.any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, keys: &'static [&'static str], visitor: V) -> Read<V::Value> {
        self.content()?.fields(keys, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::super::interpolate::{Environment, interpolate};
    use super::super::yaml;
    use super::*;
    use crate::value::{Code, Issue, Map, Name, Span};
    use serde::Deserialize;
    use serde::de::value::MapAccessDeserializer;
    use std::fmt;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Document {
        #[serde(default)]
        listeners: Map<Listener>,
        #[serde(default)]
        routes: Map<Route>,
        #[serde(default)]
        codes: Map<u8, u16>,
        limit: Option<Spanned<Limit>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Listener {
        bind: Spanned<String>,
        port: Option<u16>,
        #[serde(default)]
        tls: bool,
        ratio: Option<f64>,
        offset: Option<i8>,
        keepalive: Option<Span>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Limit {
        rate: u32,
        burst: Option<u32>,
        per: Option<String>,
        span: Option<Spanned<Span>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Route {
        to: Spanned<Action>,
        balance: Option<Balance>,
        tags: Option<Vec<Spanned<Name>>>,
        pair: Option<(u8, u8)>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Balance {
        RoundRobin,
        LeastConn,
        Hash(String),
        Sticky { cookie: String, ttl: Option<Span> },
    }

    /// A word or a map, as the configuration has many.
    #[derive(Debug)]
    enum Action {
        Upstream(Name),
        Other(Answer),
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Answer {
        Respond(Respond),
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Respond {
        status: u16,
        #[serde(default)]
        headers: Map<String, Text>,
    }

    #[derive(Debug, Deserialize)]
    struct Text(String);

    impl<'de> Deserialize<'de> for Action {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Either;
            impl<'de> Visitor<'de> for Either {
                type Value = Action;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an upstream or an action")
                }
                fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Action, E> {
                    text.parse().map(Action::Upstream).map_err(E::custom)
                }
                fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Action, A::Error> {
                    Answer::deserialize(MapAccessDeserializer::new(map)).map(Action::Other)
                }
            }
            deserializer.deserialize_any(Either)
        }
    }

    fn load<T: DeserializeOwned>(text: &str) -> (Option<T>, Vec<Issue>) {
        let mut issues = Issues::default();
        let variables = [
            ("PORT", "8080"),
            ("ON", "true"),
            ("HALF", "0.5"),
            ("MINUS", "-3"),
            ("KEY", "hunter2-topsecret"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut node = yaml::parse(0, text, &mut issues).unwrap();
        interpolate(&mut node, &Environment::fixed(std::path::Path::new("/"), variables), &mut issues);
        let value = read(&node, &mut issues);
        assert_eq!(value.is_some(), issues.0.is_empty(), "{text}: {issues:?}");
        (value, issues.0)
    }

    fn good<T: DeserializeOwned>(text: &str) -> T {
        let (value, issues) = load(text);
        assert_eq!(issues, [], "{text}");
        value.unwrap()
    }

    /// Code, marked text, message, label and notes of every finding.
    fn found<T: DeserializeOwned>(text: &str) -> Vec<String> {
        let issues = load::<T>(text).1.into_iter();
        issues
            .map(|issue| {
                let mark = &text[issue.at.start as usize..issue.at.end as usize];
                let notes: String = issue.notes.iter().map(|note| format!(" = {note}")).collect();
                format!("{} «{mark}» {} | {}{notes}", issue.code.0, issue.message, issue.label)
            })
            .collect()
    }

    fn document(text: &str) -> Vec<String> {
        found::<Document>(text)
    }

    #[test]
    fn a_good_document_is_read_with_its_places() {
        let text = "listeners:\n  web: {bind: \"127.0.0.1:80\", port: 80, tls: true, ratio: 1, offset: -1, keepalive: 75s}\n\
                    routes:\n  r: {to: app, balance: {hash: x}, tags: [a, b], pair: [1, 2]}\n  s: {to: {respond: {status: 200, headers: {x-a: b}}}, balance: least_conn}\n\
                    codes: {404: 1}\nlimit:\n";
        let document: Document = good(text);
        let (name, listener) = document.listeners.iter().next().unwrap();
        let slice = |at: At| &text[at.start as usize..at.end as usize];
        assert_eq!((slice(name.at), slice(listener.bind.at)), ("web", "\"127.0.0.1:80\""));
        assert_eq!(
            (listener.port, listener.tls, listener.ratio, listener.offset),
            (Some(80), true, Some(1.0), Some(-1))
        );
        assert_eq!(listener.keepalive, Some(Span::secs(75)));
        let route = document.routes.value("r").unwrap();
        assert!(matches!(&route.to.value, Action::Upstream(name) if name.as_str() == "app"));
        assert_eq!(route.balance, Some(Balance::Hash("x".to_owned())));
        assert_eq!(slice(route.tags.as_ref().unwrap()[1].at), "b");
        assert_eq!(route.pair, Some((1, 2)));
        let Action::Other(Answer::Respond(respond)) = &document.routes.value("s").unwrap().to.value else {
            panic!()
        };
        assert_eq!((respond.status, respond.headers.0[0].0.value.0.as_str()), (200, "x-a"));
        assert_eq!(document.codes.0[0].0.value, 404);
        assert!(document.limit.is_none());
    }

    #[test]
    fn unknown_keys_are_named_with_their_path_and_a_suggestion() {
        assert_eq!(
            document(
                "routes:\n  r:\n    to: {respond: {status: 200, headr: {}}}\n    taggs: []\nlimit: {rate: 1, burts: 2}\nx: 1\n"
            ),
            [
                "1203 «headr» unknown key `headr` in `routes.r.to.respond` | did you mean `headers`? = allowed here: status, headers",
                "1203 «taggs» unknown key `taggs` in `routes.r` | did you mean `tags`? = allowed here: to, balance, tags, pair",
                "1203 «burts» unknown key `burts` in `limit` | did you mean `burst`? = allowed here: rate, burst, per, span",
                "1203 «x» unknown key `x` |  = allowed here: listeners, routes, codes, limit",
            ]
        );
        assert_eq!(
            found::<Vec<Limit>>("- rate: 1\n- {rate: 1, bursts: 1}"),
            [
                "1203 «bursts» unknown key `bursts` in `[1]` | did you mean `burst`? = allowed here: rate, burst, per, span"
            ]
        );
    }

    #[test]
    fn missing_keys_and_wrong_types_are_said_in_words() {
        assert_eq!(
            document(
                "listeners:\n  a: {port: eighty}\n  b: {bind: 80, port: 70000, tls: \"true\", keepalive: [1]}\n  c:\n"
            ),
            [
                "1201 «eighty» expected a whole number from 0 to 65535, found the text `eighty` | ",
                "1202 «{port: eighty}» missing key `bind` in `listeners.a` | ",
                "1201 «80» expected text, found the number `80` |  = help: quote it: \"80\"",
                "1204 «70000» expected a whole number from 0 to 65535, found the number `70000` | ",
                "1201 «\"true\"» expected `true` or `false`, found the text `true` |  = help: remove the quotes",
                "1201 «[1]» expected a duration with its unit, such as `250ms` or `30s`, found a list | ",
                "1201 «» expected a map, found nothing |  = help: give it a value, or remove the key",
            ]
        );
        assert_eq!(document("[1]"), ["1201 «[1]» expected a map, found a list | "]);
    }

    #[test]
    fn what_types_say_is_kept_with_its_help() {
        assert_eq!(
            document("routes: {r: {to: app, tags: [ok, a b]}}\nlimit: {rate: 1, span: 30}"),
            [
                "1204 «a b» `a b` is not a name |  = help: use 1 to 63 letters, digits, `-` or `_`, beginning with a letter or digit",
                "1204 «30» duration `30` has no unit |  = help: write for example `30s` or `30ms`",
            ]
        );
        assert_eq!(
            document("routes: {\"a b\": {to: app}}"),
            [
                "1204 «\"a b\"» `a b` is not a name |  = help: use 1 to 63 letters, digits, `-` or `_`, beginning with a letter or digit"
            ]
        );
    }

    #[test]
    fn variants_are_words_or_maps_with_one_key() {
        let balance = |text: &str| found::<Balance>(text);
        assert_eq!(good::<Balance>("round_robin"), Balance::RoundRobin);
        assert_eq!(good::<Balance>("{round_robin: }"), Balance::RoundRobin);
        let sticky = Balance::Sticky { cookie: "c".to_owned(), ttl: Some(Span::secs(1)) };
        assert_eq!(good::<Balance>("sticky: {cookie: c, ttl: 1s}"), sticky);
        let allowed = "allowed here: round_robin, least_conn, hash, sticky";
        assert_eq!(
            balance("leastconn"),
            [format!("1204 «leastconn» unknown word `leastconn` | did you mean `least_conn`? = {allowed}")]
        );
        assert_eq!(
            balance("{hsh: x}"),
            [format!("1203 «hsh» unknown key `hsh` | did you mean `hash`? = {allowed}")]
        );
        assert_eq!(
            balance("hash"),
            ["1204 «hash» `hash` needs a value |  = help: write `hash: …` inside a map"]
        );
        assert_eq!(
            balance("{least_conn: 1}"),
            ["1204 «{least_conn: 1}» `least_conn` takes no value |  = help: write only `least_conn`"]
        );
        assert_eq!(
            balance("{sticky: x}"),
            ["1201 «x» expected a map, found the text `x` |  = allowed here: cookie, ttl"]
        );
        assert_eq!(balance("{sticky: {ttl: x}}").len(), 2);
        assert_eq!(
            balance("{}")[0],
            "1204 «{}» exactly one key is needed here |  = help: write one of: round_robin, least_conn, hash, sticky"
        );
        assert_eq!(
            balance("[hash]")[0],
            "1201 «[hash]» expected one of: round_robin, least_conn, hash, sticky, found a list | "
        );
    }

    #[test]
    fn braces_without_quotes_are_told_apart_from_maps() {
        assert_eq!(
            document("limit: {rate: 1, per: {claims.tenant}}"),
            [
                "1205 «{claims.tenant}» quote this value: braces without quotes are a map |  = help: write `\"{claims.tenant}\"`, or `\"${claims.tenant}\"` for a value of the request"
            ]
        );
        assert_eq!(document("routes: {r: {to: app, tags: [{id}]}}")[0][..4], *"1205");
        let braces = document("limit: {id}");
        assert!(
            braces[0].starts_with("1203 «id»")
                && braces[0].ends_with("help: if text was meant, quote it: \"{id}\""),
            "{braces:?}"
        );
        assert_eq!(
            document("limit: {rate: 1, per: {a: b}}"),
            ["1201 «{a: b}» expected text, found a map | "]
        );
    }

    #[test]
    fn what_follows_from_a_finding_is_not_reported() {
        // The required `bind` and `to` are there, but wrong.
        let wrong = document(
            "listeners: {a: {bind: [], port: 1}}\nroutes: {r: {to: 5}, s: {to: {respond: {status: x}}}}",
        );
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        // A pair without its wrong half, an enum without its wrong content, a refused word.
        assert_eq!(
            document("routes: {r: {to: app, pair: [1, x]}, s: {to: app, balance: {hash: []}}}").len(),
            2
        );
        assert_eq!(
            document("listeners: {a: {bind: yes}}"),
            [
                "1004 «yes» `yes` is neither `true` nor `false` |  = help: write `true`, or quote it if the word is meant: \"yes\""
            ]
        );
        assert_eq!(document("listeners: {a: {bind: \"${env:NOPE}\"}}").len(), 1);
        assert_eq!(found::<Limit>("rate: no").len(), 1);
        assert_eq!(found::<Limit>("rat: 1").len(), 1);
        assert_eq!(found::<Limit>("other: 1").len(), 2);
        assert_eq!(found::<u8>("no").len(), 1);
        assert_eq!(found::<Balance>("hash: no").len(), 1);
    }

    #[test]
    fn a_single_item_counts_as_a_list_and_keeps_its_place() {
        #[derive(Debug)]
        struct Names(Vec<Spanned<Name>>);
        impl<'de> Deserialize<'de> for Names {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct All;
                impl<'de> Visitor<'de> for All {
                    type Value = Names;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("names")
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                        std::iter::from_fn(|| seq.next_element().transpose())
                            .collect::<Result<_, _>>()
                            .map(Names)
                    }
                }
                deserializer.deserialize_newtype_struct(ONE_OR_MANY, All)
            }
        }
        let places = |text: &str| {
            good::<Names>(text).0.iter().map(|name| (name.at.start, name.at.end)).collect::<Vec<_>>()
        };
        assert_eq!(places(" web"), [(1, 4)]);
        assert_eq!(places("[a, bc]"), [(1, 2), (4, 6)]);
        assert_eq!(found::<Names>("a b").len(), 1);
        assert_eq!(
            found::<Names>("{a: b}"),
            ["1201 «{a: b}» expected a name: letters, digits, `-` and `_`, found a map | "]
        );
        assert_eq!(found::<Spanned<Vec<Names>>>("[[a b, c], d e]").len(), 2);
    }

    #[test]
    fn nothing_that_is_written_is_overlooked() {
        assert_eq!(
            document("routes: {r: {to: app, pair: [1, 2, 3]}}"),
            ["1204 «[1, 2, 3]» this list has too many items | "]
        );
        assert_eq!(
            document("routes: {r: {to: app, pair: [1]}}"),
            ["1204 «[1]» expected a list of 2 items, found 1 item | "]
        );

        /// Reads one entry and forgets about the rest.
        #[derive(Debug)]
        struct First;
        impl<'de> Deserialize<'de> for First {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct One;
                impl<'de> Visitor<'de> for One {
                    type Value = First;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a map")
                    }
                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<First, A::Error> {
                        map.next_entry::<String, u8>().map(|_| First)
                    }
                }
                deserializer.deserialize_any(One)
            }
        }
        assert_eq!(found::<First>("{a: 1, b: 2}"), ["1203 «b» unknown key `b` | "]);
    }

    #[test]
    fn text_from_outside_counts_as_what_it_spells() {
        let document: Document = good(
            "listeners: {a: {bind: \"${env:PORT}\", port: \"${env:PORT}\", tls: \"${env:ON}\", ratio: \"${env:HALF}\", offset: \"${env:MINUS}\", keepalive: \"${env:PORT}ms\"}}",
        );
        let listener = document.listeners.value("a").unwrap();
        assert_eq!((listener.bind.as_str(), listener.port, listener.tls), ("8080", Some(8080), true));
        assert_eq!(
            (listener.ratio, listener.offset, listener.keepalive),
            (Some(0.5), Some(-3), Some(Span::millis(8080)))
        );
        // Quoted text without a reference stays text.
        assert_eq!(
            found::<u16>("\"8080\""),
            [
                "1201 «\"8080\"» expected a whole number from 0 to 65535, found the text `8080` |  = help: remove the quotes"
            ]
        );
    }

    #[test]
    fn values_from_outside_never_appear_in_messages() {
        let text = "listeners: {a: {bind: b, port: \"${env:KEY}\", keepalive: \"${env:KEY}\", tls: \"x${env:KEY}\"}}\n\
                    routes: {r: {to: \"${env:KEY} x\", balance: \"${env:KEY}\", tags: [\"${env:KEY} x\"]}}\n\
                    limit: \"${env:KEY}\"\n";
        let found = document(text);
        assert_eq!(found.len(), 7, "{found:?}");
        assert!(
            found.iter().all(|line| !line.contains("hunter2") && !line.contains("topsecret")),
            "{found:?}"
        );
        assert!(found[0].contains("found the value of `${env:KEY}`"), "{found:?}");
        assert!(found.iter().any(|line| line.contains("`${env:KEY} x` is not a name")), "{found:?}");
    }

    #[test]
    fn parts_of_secrets_are_masked_too() {
        /// Says only a part of its value.
        #[derive(Debug)]
        struct Chatty;
        impl<'de> Deserialize<'de> for Chatty {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let half = text.split('-').next().unwrap_or_default().to_owned();
                Err(serde::de::Error::custom(format!("`{half}` of {text}\nhelp: not `{half}` but `this`")))
            }
        }
        assert_eq!(
            found::<Vec<Chatty>>("[\"${env:KEY}\"]"),
            ["1204 «\"${env:KEY}\"» `…` of ${env:KEY} |  = help: not `…` but `this`"]
        );
    }

    #[test]
    fn suggestions_are_close() {
        let words = ["timeouts", "to", "match", "least_conn", "round_robin"];
        for (word, near) in [
            ("timeout", Some("timeouts")),
            ("TimeOuts", Some("timeouts")),
            ("least-conn", Some("least_conn")),
            ("roundrobin", Some("round_robin")),
            ("macth", Some("match")),
            ("upstream", None),
            ("t", None),
            ("on", None),
        ] {
            assert_eq!(did_you_mean(word, words), near, "{word}");
        }
        assert_eq!(did_you_mean(&"x".repeat(1_000_000), words), None);
    }

    #[test]
    fn findings_are_bounded() {
        let listeners: String = (0..500).map(|n| format!("  l{n}: {{bind: b, x: {n}}}\n")).collect();
        assert_eq!(document(&format!("listeners:\n{listeners}")).len(), 100);
        let refused: String = (0..1000).map(|n| format!("  l{n}: {{bind: [yes]}}\n")).collect();
        assert_eq!(document(&format!("listeners:\n{refused}")).len(), 100 + 100);
    }

    #[test]
    fn a_large_document_is_read_in_one_run() {
        let routes: String = (0..10_000)
            .map(|n| format!("  r{n}: {{to: app, tags: [a, b, c], balance: {{hash: x}}}}\n"))
            .collect();
        let text = format!("routes:\n{routes}");
        let mut issues = Issues::default();
        let node = yaml::parse(0, &text, &mut issues).unwrap();
        let started = std::time::Instant::now();
        let document: Document = read(&node, &mut issues).unwrap();
        assert_eq!(document.routes.len(), 10_000);
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }

    proptest::proptest! {
        #[test]
        fn every_tree_ends(pieces in proptest::collection::vec(proptest::sample::select(vec![
            "listeners: ", "routes: ", "limit: ", "a: ", "bind: ", "port: ", "to: ", "respond: ", "status: ", "tags: ", "balance: ",
            "hash: ", "sticky: ", "{", "}", "[", "]", ", ", "x", "1", "yes", "null", "-1", "1.5", "\n", "\n  ", "\n    ", "- ",
            "\"${env:KEY}\"", "${env:NOPE}", "&a ", "*a",
        ]), 0..40)) {
            let text = pieces.concat();
            let mut issues = Issues::default();
            if let Some(mut node) = yaml::parse(0, &text, &mut issues) {
                interpolate(&mut node, &Environment::fixed(std::path::Path::new("/"), []), &mut issues);
                let value = read::<Document>(&node, &mut issues);
                proptest::prop_assert_eq!(value.is_some(), issues.0.is_empty());
                proptest::prop_assert!(issues.0.iter().all(|issue| issue.code != Code::PARSERS_DISAGREE));
            }
        }
    }
}
