//! The keys of the configuration, as sections with tables, made from the schema.

use super::{defaults, examples};
use crate::value::{
    ByteSize, Cidr, HeaderKey, HostPattern, Key, MethodName, Name, PathPattern, Percent, Positive, Span,
    Template,
};
use regex::Regex;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;
use std::collections::VecDeque;

/// The definition whose keys `apis` and `routes` have too.
const INHERITED: &str = "Defaults";

/// What the schema says, arranged for reading: each structure once, where it is first met.
pub(super) struct Keys<'a> {
    schema: &'a Value,
    sections: Vec<Section<'a>>,
    /// Patterns of words and what the words are called.
    words: Vec<(Option<Value>, &'static str)>,
}

/// One structure, or a top-level key that has none.
struct Section<'a> {
    /// Keys on the way to it, with `NAME` for a name.
    path: String,
    /// What the last of these keys is for.
    purpose: &'a str,
    /// Whether there are many, by name.
    by_name: bool,
    /// The name of its definition.
    definition: Option<&'a str>,
}

/// A part of a schema that refers to a structure.
struct Found<'a> {
    by_name: bool,
    definition: &'a str,
}

impl<'a> Keys<'a> {
    /// From the schema of a whole configuration.
    pub(super) fn new(schema: &'a Value) -> Self {
        let mut keys = Keys { schema, sections: Vec::new(), words: words() };
        for (key, value) in properties(schema) {
            keys.collect(key, value);
        }
        keys.arrange();
        keys
    }

    /// Puts what a structure holds right behind it.
    fn arrange(&mut self) {
        let paths: Vec<String> = self.sections.iter().map(|section| section.path.clone()).collect();
        let way = |section: &Section<'_>| -> Vec<usize> {
            let leads_here = |path: &String| {
                section
                    .path
                    .strip_prefix(path.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            (0..).zip(&paths).filter(|(_, path)| leads_here(path)).map(|(number, _)| number).collect()
        };
        self.sections.sort_by_cached_key(way);
    }

    /// Adds the section of a top-level key, then those of what it holds, the near before the far.
    fn collect(&mut self, key: &str, schema: &'a Value) {
        let mut waiting = VecDeque::from([(key.to_owned(), schema)]);
        while let Some((path, schema)) = waiting.pop_front() {
            let found = self.structure(schema);
            let is_known = |found: &Found<'_>| {
                self.sections.iter().any(|section| section.definition == Some(found.definition))
            };
            if path.contains('.') && found.as_ref().is_none_or(is_known) {
                continue;
            }
            let by_name = found.as_ref().is_some_and(|found| found.by_name);
            let definition = found.map(|found| found.definition);
            let inside = if by_name { format!("{path}.NAME") } else { path.clone() };
            for form in definition.into_iter().flat_map(|name| forms(self.definition(name))) {
                waiting.extend(properties(form).map(|(key, value)| (format!("{inside}.{key}"), value)));
                waiting.extend(others(form).map(|value| (format!("{inside}.NAME"), value)));
            }
            self.sections.push(Section { path, purpose: text(schema, "description"), by_name, definition });
        }
    }

    fn definition(&self, name: &str) -> &'a Value {
        self.schema.get("$defs").and_then(|all| all.get(name)).unwrap_or(&Value::Null)
    }

    /// The structure that a value may be, or may hold many of.
    fn structure(&self, schema: &'a Value) -> Option<Found<'a>> {
        if let Some(name) = referred(schema) {
            let is_structure = forms(self.definition(name)).iter().any(|form| is_variant(form));
            return is_structure.then_some(Found { by_name: false, definition: name });
        }
        if let Some(other) = others(schema).next() {
            return self.structure(other).map(|found| Found { by_name: true, ..found });
        }
        let inner = schema.get("items").into_iter().chain(alternatives(schema));
        inner.filter_map(|inner| self.structure(inner)).next()
    }

    /// The list of the top-level keys.
    pub(super) fn contents(&self) -> String {
        let top = self.sections.iter().filter(|section| !section.path.contains('.'));
        top.map(|section| format!("- [`{0}`](#{0}): {1}\n", section.path, defaults::split(section.purpose).0))
            .collect()
    }

    /// All sections.
    pub(super) fn sections(&self) -> String {
        self.sections.iter().map(|section| self.section(section)).collect()
    }

    fn section(&self, section: &Section<'_>) -> String {
        let level = if section.path.contains('.') { "###" } else { "##" };
        let own = section.definition.map_or("", |name| text(self.definition(name), "description"));
        let mut page = format!("\n{level} `{}`\n", section.path);
        for paragraph in paragraphs(section.purpose, own) {
            page.push_str(&format!("\n{paragraph}\n"));
        }
        if let Some(name) = section.definition {
            let definition = self.definition(name);
            if section.by_name {
                page.push_str("\nA map by name. For each:\n");
            }
            page.push_str(&self.body(name, definition));
        }
        if let Some(example) = examples::of(&section.path) {
            page.push_str(&format!("\n```yaml\n{example}```\n"));
        }
        page
    }

    /// The short form and the table of a structure.
    fn body(&self, name: &str, definition: &'a Value) -> String {
        let forms = forms(definition);
        let (variants, short): (Vec<_>, Vec<_>) = forms.into_iter().partition(|form| is_variant(form));
        let mut page = String::new();
        for short in short {
            let rest = if variants.len() > 1 { "Otherwise one of:" } else { "Otherwise a map:" };
            page.push_str(&format!("\nShort: {}. {rest}\n", text(short, "description")));
        }
        match variants.as_slice() {
            [only] if only.get("const").is_none() => page.push_str(&self.fields(name, only)),
            many => {
                page.push_str("\n| value | meaning |\n|---|---|\n");
                page.extend(many.iter().map(|variant| self.variant(variant)));
            }
        }
        page
    }

    fn fields(&self, name: &str, structure: &'a Value) -> String {
        let inherited: Vec<&str> = match name {
            INHERITED => Vec::new(),
            _ => properties(self.definition(INHERITED)).map(|(key, _)| key).collect(),
        };
        let has = |key: &str| properties(structure).any(|(own, _)| own == key);
        let inherits = !inherited.is_empty() && inherited.iter().all(|key| has(key));
        let mut page = String::from("\n| key | type | default | meaning |\n|---|---|---|---|\n");
        for (key, value) in properties(structure).filter(|(key, _)| !inherits || !inherited.contains(key)) {
            let required = structure.get("required").and_then(Value::as_array);
            let required = required.is_some_and(|required| required.iter().any(|name| name == key));
            let (meaning, default) = defaults::split(self.purpose(value));
            let default = if required { "required".to_owned() } else { default.unwrap_or_default() };
            page.push_str(&row(&[&format!("`{key}`"), &self.kind(value), &default, &meaning]));
        }
        for other in others(structure) {
            page.push_str(&row(&["any other", &self.kind(other), "", self.purpose(other)]));
        }
        if inherits {
            page.push_str("\nAnd the [inherited settings](#defaults).\n");
        }
        page
    }

    /// What a value is for; what its structure is for, where nothing is said of the value.
    fn purpose(&self, schema: &'a Value) -> &'a str {
        match text(schema, "description") {
            "" => referred(schema).map_or("", |name| text(self.definition(name), "description")),
            own => own,
        }
    }

    /// A line for one of several forms: a word, or a map with one key.
    fn variant(&self, variant: &'a Value) -> String {
        let value = match properties(variant).next() {
            Some((key, inside)) => format!("`{key}:` {}", self.kind(inside)),
            None => format!("`{}`", text(variant, "const")),
        };
        row(&[&value, text(variant, "description")])
    }

    /// What a value may be, in few words.
    fn kind(&self, schema: &'a Value) -> String {
        if let Some(name) = referred(schema) {
            return self.link(name);
        }
        if let Some(other) = others(schema).next() {
            return format!("by name: {}", self.kind(other));
        }
        if let Some(items) = schema.get("items") {
            return format!("list: {}", self.kind(items));
        }
        if let Some(constant) = schema.get("const") {
            return format!("`{}`", constant.as_str().map_or_else(|| constant.to_string(), str::to_owned));
        }
        let alternatives: Vec<_> = alternatives(schema).collect();
        match alternatives.as_slice() {
            [] => self.word(schema).to_owned(),
            [one, many] if many.get("items") == Some(one) => format!("{}, or a list", self.kind(one)),
            all => all.iter().map(|one| self.kind(one)).collect::<Vec<_>>().join(" or "),
        }
    }

    fn word(&self, schema: &Value) -> &'static str {
        let pattern = schema.get("pattern");
        if let Some((_, word)) =
            self.words.iter().find(|(known, _)| pattern.is_some() && known.as_ref() == pattern)
        {
            return word;
        }
        match schema.get("type") {
            Some(Value::String(kind)) if kind == "string" => "text",
            Some(Value::String(kind)) if kind == "integer" => "whole number",
            Some(Value::String(kind)) if kind == "boolean" => "`true` or `false`",
            // A word that may be a number.
            Some(Value::Array(_)) if !takes_letters(pattern) => "whole number",
            Some(Value::Array(_)) => "text",
            _ => "anything",
        }
    }

    /// A structure in few words, linked to its section.
    fn link(&self, name: &str) -> String {
        let definition = self.definition(name);
        let Some(section) = self.sections.iter().find(|section| section.definition == Some(name)) else {
            return self.word(definition).to_owned();
        };
        let forms = forms(definition);
        let short = forms.iter().find(|form| !is_variant(form));
        let short = short.map(|form| format!("{} or ", self.word(form).replace(" or ", ", ")));
        let has_words = forms.iter().any(|form| form.get("const").is_some());
        let has_maps = forms.iter().any(|form| properties(form).next().is_some());
        let word = match (has_words, has_maps) {
            (true, true) => "word or map",
            (true, false) => "word",
            (false, _) => "map",
        };
        format!("{}[{word}](#{})", short.unwrap_or_default(), anchor(&section.path))
    }
}

#[cfg(test)]
impl Keys<'_> {
    /// The default of a key by its path, with `*` for a name.
    pub(in crate::config) fn default_of(&self, path: &str) -> Option<String> {
        let (parent, key) = path.rsplit_once('.')?;
        let parent = parent.trim_end_matches(".*").replace('*', "NAME");
        let section = self.sections.iter().find(|section| section.path == parent)?;
        let forms = forms(self.definition(section.definition?));
        let value = forms.into_iter().flat_map(properties).find(|(name, _)| *name == key)?.1;
        defaults::split(text(value, "description")).1
    }
}

/// What a key is for and what its structure says of itself, without saying the same twice.
fn paragraphs(purpose: &str, own: &str) -> Vec<String> {
    /// A purpose this short is only the name of the structure in other words.
    const SHORT: usize = 32;
    let says_more = own.len() > purpose.len();
    let purpose = (!says_more || purpose.len() > SHORT).then(|| defaults::split(purpose).0);
    let all = purpose.into_iter().chain(says_more.then(|| own.to_owned()));
    all.filter(|paragraph| !paragraph.is_empty()).collect()
}

/// The words with a syntax of their own, by the patterns that the schema has for them.
fn words() -> Vec<(Option<Value>, &'static str)> {
    let mut generator = SchemaGenerator::default();
    let mut pattern =
        |schema: fn(&mut SchemaGenerator) -> schemars::Schema| schema(&mut generator).remove("pattern");
    vec![
        (pattern(Span::json_schema), "duration"),
        (pattern(Positive::<Span>::json_schema), "duration"),
        (pattern(ByteSize::json_schema), "size"),
        (pattern(Positive::<ByteSize>::json_schema), "size"),
        (pattern(Percent::json_schema), "percentage"),
        (pattern(Cidr::json_schema), "network"),
        (pattern(HostPattern::json_schema), "host"),
        (pattern(PathPattern::json_schema), "path"),
        (pattern(HeaderKey::json_schema), "header name"),
        (pattern(MethodName::json_schema), "method"),
        (pattern(Name::json_schema), "name"),
        (pattern(Key::json_schema), "request key"),
        (pattern(Template::json_schema), "template"),
    ]
}

fn takes_letters(pattern: Option<&Value>) -> bool {
    pattern
        .and_then(Value::as_str)
        .and_then(|pattern| Regex::new(pattern).ok())
        .is_some_and(|pattern| pattern.is_match("a"))
}

fn text<'v>(schema: &'v Value, key: &str) -> &'v str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// What keys that are not listed may hold.
fn others(schema: &Value) -> impl Iterator<Item = &Value> {
    schema.get("additionalProperties").filter(|other| other.is_object()).into_iter()
}

fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let forms = schema.get("oneOf").or_else(|| schema.get("anyOf"));
    forms.and_then(Value::as_array).into_iter().flatten()
}

fn referred(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

/// The forms of a definition, those of its forms included.
fn forms(definition: &Value) -> Vec<&Value> {
    match alternatives(definition).next() {
        None => vec![definition],
        Some(_) => alternatives(definition).flat_map(forms).collect(),
    }
}

/// A word by itself or a map, in contrast to a short form with a syntax of its own.
fn is_variant(form: &Value) -> bool {
    form.get("const").is_some() || properties(form).next().is_some()
}

/// A line of a table.
pub(super) fn row(cells: &[&str]) -> String {
    let cells: Vec<String> =
        cells.iter().map(|cell| format!(" {} ", cell.trim().replace('|', "\\|"))).collect();
    format!("|{}|\n", cells.join("|").replace("  ", " "))
}

/// The anchor that a heading gets where Markdown is shown.
pub(super) fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
