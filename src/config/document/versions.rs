//! Versions of an API, as written.

use crate::actions::to::To;
use crate::consumer::document::Day;
use crate::value::{HeaderKey, Map, Name, Spanned};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// How an API's versions are told apart, and the versions.
#[derive(Clone, Debug)]
pub struct Versions {
    /// What picks the version.
    pub by: VersionBy,
    /// The versions by name, such as `v1`.
    pub versions: Map<Version>,
}

// By hand: `#[serde(flatten)]` would lose the places of what is inside.
impl<'de> Deserialize<'de> for Versions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Versions;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with `by` and the versions")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Versions, A::Error> {
                let (mut by, mut versions) = (None, Map::default());
                while let Some(name) = map.next_key::<Spanned<Name>>()? {
                    if name.as_str() == "by" {
                        by = Some(map.next_value()?);
                    } else {
                        versions.0.push((name, map.next_value()?));
                    }
                }
                Ok(Versions { by: by.ok_or_else(|| A::Error::missing_field("by"))?, versions })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl JsonSchema for Versions {
    fn schema_name() -> Cow<'static, str> {
        "Versions".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (by, version) = (generator.subschema_for::<VersionBy>(), generator.subschema_for::<Version>());
        schemars::json_schema!({
            "type": "object", "required": ["by"], "properties": { "by": by }, "additionalProperties": version,
            "description": "How an API's versions are told apart (`by`), and the versions by name, such as `v1`.",
        })
    }
}

/// What picks the version: one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionBy {
    /// A path segment in front of the base, written as the version's name: `path: "v{n}"` takes `/v1/…` for `v1`.
    Path(String),
    /// A request header whose value is the version's name.
    Header(HeaderKey),
    /// A query parameter whose value is the version's name.
    Query(String),
}

/// One version of an API.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Taken when a request names no version.
    #[serde(default)]
    pub default: bool,
    /// Where requests of this version go when the route does not say.
    pub to: Option<Spanned<To>>,
    /// The day from which it is deprecated (UTC), told to callers in `Deprecation` (RFC 9745).
    pub deprecated: Option<Spanned<Day>>,
    /// The day on which it ends (UTC), told to callers in `Sunset` (RFC 8594).
    pub sunset: Option<Spanned<Day>>,
    /// The version that takes its place, told to callers in `Link` with `rel="successor-version"`.
    pub successor: Option<Spanned<Name>>,
    /// Address of a page that tells of its end, told to callers in `Link` with `rel="deprecation"`.
    pub notice: Option<Spanned<String>>,
    /// Whether it is answered 410 from the day of `sunset` on. Default `false`.
    pub gone: Option<Spanned<bool>>,
}
