//! The second reading: values as serde_yaml understands them, laid over the marked tree.

use super::places::Places;
use super::{Entry, Kind, Node, Scalar};
use crate::value::{At, Code, Issue};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Value;
use std::fmt;

/// Gives every scalar of the tree the value serde_yaml reads, and refuses the text where the two readings differ.
pub(super) fn fill(root: &mut Node, places: &Places<'_>) -> Result<(), Issue> {
    let raw =
        Raw::deserialize(serde_yaml::Deserializer::from_str(places.text)).map_err(|e| refused(&e, places))?;
    lay(root, raw).map_err(|at| {
        Issue::new(Code::PARSERS_DISAGREE, "two YAML parsers read this differently")
            .at(places.first_line(at))
            .help("write it in a simpler way: quote the value, or put it on a line of its own")
    })
}

/// What serde_yaml found. Maps keep every pair, so that the shape can be compared.
enum Raw {
    Scalar(Value),
    /// A whole number too long for any field: its digits are as good as text.
    LongNumber,
    Seq(Vec<Raw>),
    Map(Vec<(Raw, Raw)>),
}

fn lay(node: &mut Node, raw: Raw) -> Result<(), At> {
    let at = node.at;
    match (&mut node.kind, raw) {
        (Kind::Refused, Raw::Scalar(_)) => Ok(()),
        (Kind::Scalar(scalar), Raw::LongNumber) if scalar.plain => Ok(()),
        (Kind::Scalar(scalar), Raw::Scalar(value)) if same(scalar, &value) => {
            scalar.value = value;
            Ok(())
        }
        (Kind::Seq(items), Raw::Seq(raws)) if items.len() == raws.len() => {
            items.iter_mut().zip(raws).try_for_each(|(item, raw)| lay(item, raw))
        }
        (Kind::Map(entries), Raw::Map(raws)) if entries.len() == raws.len() => {
            entries.iter_mut().zip(raws).try_for_each(|(entry, (key, value))| {
                if same_key(entry, &key) { lay(&mut entry.value, value) } else { Err(entry.key.at) }
            })
        }
        _ => Err(at),
    }
}

/// Whether the marked scalar, still text, can have this value.
fn same(marked: &Scalar, value: &Value) -> bool {
    let text = marked.value.as_str().unwrap_or_default();
    match value {
        Value::String(string) => string == text,
        Value::Null => marked.is_nothing(),
        Value::Bool(_) | Value::Number(_) => marked.plain,
        _ => false,
    }
}

/// Keys are compared as text; a key such as `404` or `true` counts as its text.
fn same_key(entry: &Entry, raw: &Raw) -> bool {
    match raw {
        Raw::Scalar(Value::String(key)) => *key == entry.key.value,
        Raw::Scalar(_) | Raw::LongNumber => true,
        Raw::Seq(_) | Raw::Map(_) => false,
    }
}

/// What serde_yaml says, where it says it. Its own "at line … column …" is cut off.
fn refused(error: &serde_yaml::Error, places: &Places<'_>) -> Issue {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    let at = error.location().map_or(places.range(0, 0), |location| places.point(location.index()));
    match message.contains("limit exceeded") {
        true => Issue::new(Code::TOO_MUCH, "aliases expand to too much").at(at),
        false => Issue::new(Code::SYNTAX, format!("not valid YAML: {message}")).at(at),
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }
    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::LongNumber)
    }
    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::LongNumber)
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }
    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::Seq(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
