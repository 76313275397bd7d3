//! The JSON Schema (draft 2020-12) of the configuration.

use crate::cache::document::StatusKey;
use crate::config::Document;
use crate::value::{HeaderKey, Name};
use regex::Regex;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

/// Names the format, not a place to fetch it from.
const ID: &str = "urn:tollgate:config:1";

/// The definition of what comes from outside.
const OUTSIDE: &str = "FromOutside";

/// What `${env:…}`, `${file:…}` and `${cred:…}` look like.
const REFERENCE: &str = r"\$\{(env|file|cred):";

/// Maps whose keys are names of things.
const NAMED: &[&str] = &[
    "/properties/listeners",
    "/properties/upstreams",
    "/properties/apis",
    "/properties/auth",
    "/properties/plans",
    "/properties/consumers",
    "/$defs/Admin/properties/tokens",
    "/$defs/LogFields/properties/add",
    "/$defs/Api/properties/routes",
    "/$defs/Versions",
    "/$defs/To/oneOf/1/properties/split",
];

/// Maps whose keys are names of header fields.
const BY_HEADER: &[&str] = &[
    "/$defs/HeaderRules/properties/rename",
    "/$defs/HeaderRules/properties/default",
    "/$defs/HeaderRules/properties/set",
    "/$defs/HeaderRules/properties/add",
    "/$defs/Respond/properties/headers",
    "/$defs/Jwt/properties/forward",
    "/$defs/Introspection/properties/forward",
    "/$defs/Match/oneOf/1/properties/headers",
];

/// Maps whose keys are statuses.
const BY_STATUS: &[&str] = &["/$defs/Cache/properties/status"];

/// The JSON Schema of a configuration file, its keys always in the same order.
///
/// Every value that is one word may also be an `${env:…}`, `${file:…}` or `${cred:…}`.
pub fn schema() -> Value {
    let tidied = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(tidy));
    let mut schema = generate(tidied.with_transform(RecursiveTransform(admit_references)));
    if let Some(definitions) = schema.pointer_mut("/$defs").and_then(Value::as_object_mut) {
        let description = "A value from the environment, a file or a credential.";
        definitions.insert(
            OUTSIDE.to_owned(),
            json!({ "type": "string", "pattern": REFERENCE, "description": description }),
        );
    }
    schema
}

/// The same without what only programs want to know: what the page for people is made from.
pub(super) fn plain() -> Value {
    generate(SchemaSettings::draft2020_12().with_transform(RecursiveTransform(tidy)))
}

fn generate(settings: SchemaSettings) -> Value {
    let generated = Value::from(settings.into_generator().into_root_schema_for::<Document>());
    let mut schema =
        json!({ "$schema": generated.get("$schema"), "$id": ID, "title": "tollgate configuration" });
    if let (Some(schema), Value::Object(generated)) = (schema.as_object_mut(), generated) {
        let rest = generated.into_iter().filter(|(key, _)| key != "title" && key != "$schema");
        schema.extend(rest);
    }
    let mut generator = SchemaGenerator::default();
    constrain(&mut schema, NAMED, &Name::json_schema(&mut generator));
    constrain(&mut schema, BY_HEADER, &HeaderKey::json_schema(&mut generator));
    constrain(&mut schema, BY_STATUS, &StatusKey::json_schema(&mut generator));
    only_version_1(&mut schema);
    schema
}

/// Says how the keys of some maps look.
fn constrain(schema: &mut Value, maps: &[&str], key: &Schema) {
    for map in maps {
        if let Some(map) = schema.pointer_mut(map).and_then(Value::as_object_mut) {
            map.insert("propertyNames".to_owned(), json!({ "pattern": key.get("pattern") }));
        }
    }
}

fn only_version_1(schema: &mut Value) {
    if let Some(version) = schema.pointer_mut("/properties/version") {
        *version = json!({ "const": 1, "description": version.get("description") });
    }
}

/// Makes of what the generator says what an author needs: a key is there with a value or not at all, so nothing is ever
/// `null`; quantities may be bare numbers where they have no unit; text is not wrapped.
fn tidy(schema: &mut Schema) {
    without_null(schema);
    numbers_without_unit(schema);
    if schema.get("type") == Some(&json!(["string", "boolean"])) {
        // Only `true` and `false` have a short form there; their words are refused.
        schema.insert("type".to_owned(), json!("boolean"));
    }
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| format.contains("int")) {
        // The sizes of Rust's integers are nothing an editor knows.
        schema.remove("format");
    }
    if schema.get("default").is_some_and(|default| default == &json!([]) || default == &json!({})) {
        schema.remove("default");
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(forms)) = schema.get_mut("anyOf") else { return };
    forms.retain(|form| form != &json!({ "type": "null" }));
    if let [Value::Object(only)] = forms.as_slice() {
        let only = only.clone();
        schema.remove("anyOf");
        let own = schema.ensure_object();
        for (key, value) in only {
            own.entry(key).or_insert(value);
        }
    }
}

/// A word that may consist of digits may also be written as a number.
fn numbers_without_unit(schema: &mut Schema) {
    let pattern = schema.get("pattern").and_then(Value::as_str).and_then(|pattern| Regex::new(pattern).ok());
    let Some(pattern) = pattern.filter(|_| schema.get("type") == Some(&json!("string"))) else { return };
    // Statuses of redirects are the only words that take some numbers and not others.
    if pattern.is_match("1.5") {
        schema.insert("type".to_owned(), json!(["string", "number"]));
    } else if pattern.is_match("1") || pattern.is_match("308") {
        schema.insert("type".to_owned(), json!(["string", "integer"]));
    }
}

/// Lets a value that is one word come from outside.
fn admit_references(schema: &mut Schema) {
    let kind = schema.get("type").and_then(Value::as_str).map(str::to_owned);
    if let Some(Value::String(pattern)) = schema.get_mut("pattern") {
        *pattern = format!("{pattern}|{REFERENCE}");
    } else if let Some(kind) = kind.filter(|kind| kind == "integer" || kind == "boolean") {
        schema.insert("type".to_owned(), json!([kind, "string"]));
        schema.insert("pattern".to_owned(), json!(REFERENCE));
    } else if let Some(Value::Array(forms)) = schema.get_mut("oneOf")
        && forms.iter().any(|form| form.get("type").is_some() && form.get("const").is_some())
    {
        forms.push(json!({ "$ref": format!("#/$defs/{OUTSIDE}") }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::transform::Transform;
    use std::collections::HashSet;

    /// Every schema in a schema.
    fn each(mut look: impl FnMut(&Schema) + Clone + Send + 'static) {
        let mut all = Schema::try_from(schema()).unwrap();
        RecursiveTransform(move |schema: &mut Schema| look(schema)).transform(&mut all);
    }

    #[test]
    fn unknown_keys_are_refused_everywhere() {
        each(|schema| {
            if schema.get("properties").is_some() {
                assert!(schema.get("additionalProperties").is_some(), "{schema:?}");
            }
        });
    }

    #[test]
    fn nothing_is_null_and_every_word_may_come_from_outside() {
        each(|schema| {
            let types = schema.get("type").map(Value::to_string).unwrap_or_default();
            assert!(
                !types.contains("null") && !types.is_empty() || schema.get("type").is_none(),
                "{schema:?}"
            );
            assert!(schema.get("enum").is_none() && schema.get("format").is_none(), "{schema:?}");
            // What keys look like has no type; nothing is filled in there.
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str).filter(|_| !types.is_empty())
            {
                assert!(Regex::new(pattern).unwrap().is_match("${env:X}"), "{schema:?}");
            }
            assert!(types != "\"integer\"" && types != "\"boolean\"", "{schema:?}");
        });
    }

    #[test]
    fn maps_know_their_keys() {
        let all = schema();
        for map in NAMED.iter().chain(BY_HEADER).chain(BY_STATUS) {
            let names = all.pointer(&format!("{map}/propertyNames/pattern"));
            assert!(names.is_some_and(Value::is_string), "{map}");
            assert!(
                all.pointer(&format!("{map}/additionalProperties")).is_some_and(Value::is_object),
                "{map}"
            );
        }
        // All others are keyed by names of parameters, claims or users, which may be anything.
        let free: HashSet<&str> = ["Parameters", "Conditions", "Claims", "Users"].into();
        each(move |schema| {
            let is_map = schema.get("additionalProperties").is_some_and(Value::is_object);
            let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            let is_free = free.iter().any(|word| description.starts_with(word));
            assert!(!is_map || is_free || schema.get("propertyNames").is_some(), "{schema:?}");
        });
    }

    #[test]
    fn inherited_keys_are_described_on_every_level() {
        let all = schema();
        for level in ["Defaults", "Api", "Route"] {
            for key in ["auth", "ip", "timeouts", "retry", "body", "cache", "request", "response"] {
                let description = all.pointer(&format!("/$defs/{level}/properties/{key}/description"));
                assert!(description.is_some_and(|text| text.as_str().unwrap().len() > 20), "{level}.{key}");
            }
        }
    }

    #[test]
    fn the_order_is_always_the_same() {
        let text = schema().to_string();
        assert_eq!(text, schema().to_string());
        assert!(text.starts_with(
            "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"$id\":\"urn:tollgate:config:1\""
        ));
    }
}
