//! Who may call a route, as written.

use crate::auth::document::ClaimRule;
use crate::value::{Map, Name, OneOrMany, Spanned, at_least_one};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Who may call.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// Everybody.
    Public,
    /// Whoever proves who they are.
    Proven(Box<Proven>),
}

/// Whoever proves who they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proven {
    /// Providers; the first that accepts counts.
    pub any: Vec<Spanned<Name>>,
    /// Providers that must all accept.
    pub all: Vec<Spanned<Name>>,
    /// Consumer that callers without a credential are.
    pub anonymous: Option<Spanned<Name>>,
    /// Claims that must hold.
    pub require: Map<ClaimRule, String>,
    /// Who is let in.
    pub allow: Option<Who>,
    /// Who is kept out.
    pub deny: Option<Who>,
}

/// Consumers, by name or by tag.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// By name.
    #[serde(default, deserialize_with = "at_least_one")]
    pub consumers: OneOrMany<Spanned<Name>>,
    /// By tag.
    #[serde(default, deserialize_with = "at_least_one")]
    pub tags: OneOrMany<Spanned<Name>>,
}

/// Who may call, in full; exactly one of `any` and `all`.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InFull {
    /// Providers: the first that accepts the request counts.
    #[serde(default)]
    any: OneOrMany<Spanned<Name>>,
    /// Providers that must all accept the request.
    #[serde(default)]
    all: OneOrMany<Spanned<Name>>,
    /// The consumer that callers without any credential are taken for. A credential that is not good is refused all the same.
    anonymous: Option<Spanned<Name>>,
    /// Claims that must hold, else 403.
    #[serde(default)]
    require: Map<ClaimRule, String>,
    /// Only these consumers are let in, else 403.
    allow: Option<Who>,
    /// These consumers are kept out with 403.
    deny: Option<Who>,
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Auth;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`public`, a provider's name, a list of them, or a map")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Auth, E> {
        if text == "public" {
            return Ok(Auth::Public);
        }
        // A place within a plain word is that of the setting itself.
        let name = Spanned::built_in(text.parse().map_err(E::custom)?);
        Ok(Auth::Proven(Box::new(Proven { any: vec![name], ..Proven::default() })))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Auth, A::Error> {
        let mut any = Vec::new();
        while let Some(name) = seq.next_element::<Spanned<Name>>()? {
            any.push(name);
        }
        proven(Proven { any, ..Proven::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Auth, A::Error> {
        let full = InFull::deserialize(MapAccessDeserializer::new(map))?;
        let InFull { any, all, anonymous, require, allow, deny } = full;
        proven(Proven { any: any.0, all: all.0, anonymous, require, allow, deny })
    }
}

fn proven<E: Error>(proven: Proven) -> Result<Auth, E> {
    let names = || proven.any.iter().chain(&proven.all);
    if !proven.any.is_empty() && !proven.all.is_empty() {
        return Err(E::custom("`any` and `all` cannot stand together\nhelp: write one of them"));
    }
    if proven.any.is_empty() && proven.all.is_empty() {
        return Err(E::custom(
            "`auth` needs providers\nhelp: write `any: [...]` or `all: [...]`, or `auth: public`",
        ));
    }
    if names().any(|name| name.as_str() == "public") {
        return Err(E::custom(
            "`public` cannot stand beside providers\nhelp: `anonymous` lets in who has no credential",
        ));
    }
    Ok(Auth::Proven(Box::new(proven)))
}

impl JsonSchema for Auth {
    fn schema_name() -> Cow<'static, str> {
        "Auth".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let full = InFull::json_schema(generator);
        schemars::json_schema!({ "oneOf": [
            { "type": "string", "description": "`public`, or a provider's name" },
            { "type": "array", "items": { "type": "string" }, "description": "providers; the first that accepts the request counts" },
            full
        ]})
    }
}
