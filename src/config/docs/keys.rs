//! The keys of the configuration, as sections with tables, made from the schema.

use super::defaults;
use crate::value::{ByteSize, Cidr, HeaderKey, HostPattern, Key, MethodName, Name, PathPattern, Percent, Span, Template};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};
use std::collections::VecDeque;

/// What the schema says, arranged for reading: each structure once, where it is first met.
pub(super) struct Keys<'a> {
    definitions: &'a Map<String, Value>,
    sections: Vec<Section<'a>>,
    words: Vec<(Value, &'static str)>,
}

/// One structure.
struct Section<'a> {
    /// Keys on the way to it; `*` stands for a name.
    path: String,
    /// What the key before it is for.
    purpose: &'a str,
    /// Whether there are many, by name.
    by_name: bool,
    /// The definition, unless this is a simple value.
    definition: Option<&'a str>,
}

/// A key that a section has for each line of its table.
type Properties<'a> = &'a Map<String, Value>;

impl<'a> Keys<'a> {
    /// From the schema of a whole configuration.
    pub(super) fn new(schema: &'a Value) -> Self {
        let empty = EMPTY.get_or_init(Map::new);
        let map = |key| schema.get(key).and_then(Value::as_object).unwrap_or(empty);
        let mut keys = Keys { definitions: map("$defs"), sections: Vec::new(), words: words() };
        for (key, value) in map("properties") {
            keys.collect(key, value);
        }
        keys
    }

    /// Adds the section of a top-level key, then those of what it holds, the near before the far.
    fn collect(&mut self, key: &str, schema: &'a Value) {
        let mut waiting = VecDeque::from([(key.to_owned(), schema)]);
        let mut is_first = true;
        while let Some((path, schema)) = waiting.pop_front() {
            let found = structure(schema);
            let known = |name| self.sections.iter().any(|section| section.definition == Some(name));
            if !is_first && found.as_ref().is_none_or(|(_, name)| known(name)) {
                continue;
            }
            is_first = false;
            let (by_name, definition) = found.map_or((false, None), |(by_name, name)| (by_name, Some(name)));
            let inner = if by_name { format!("{path}.*") } else { path.clone() };
            for (key, value) in definition.into_iter().flat_map(|name| self.children(name)) {
                waiting.push_back((format!("{inner}.{key}"), value));
            }
            self.sections.push(Section { path, purpose: description(schema), by_name, definition });
        }
    }

    /// The keys that a structure may hold, with those of its variants.
    fn children(&self, name: &str) -> Vec<(&'a str, &'a Value)> {
        let Some(definition) = self.definitions.get(name) else { return Vec::new() };
        let mut children = Vec::new();
        for form in forms(definition) {
            children.extend(form.get("properties").and_then(Value::as_object).into_iter().flatten());
            children.extend(form.get("additionalProperties").filter(|other| other.is_object()).map(|other| (&*OTHER_KEY, other)));
        }
        children.into_iter().map(|(key, value): (&String, &Value)| (key.as_str(), value)).collect()
    }
}
