//! Shapes that may be written shorter: `none` for "off", one thing for a list of one, a word for a whole map.

use super::Spanned;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{BoolDeserializer, MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A setting, or the word `none` that turns an inherited one off.
#[derive(Clone, Debug, PartialEq)]
pub enum OrNone<T> {
    /// Written `none`.
    Off,
    /// The setting.
    On(T),
}

impl<T> OrNone<T> {
    /// The setting, unless it is turned off.
    pub fn on(&self) -> Option<&T> {
        match self {
            OrNone::Off => None,
            OrNone::On(value) => Some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrNone<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OrNone<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a setting or `none`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<OrNone<T>, E> {
                if text == "none" {
                    return Ok(OrNone::Off);
                }
                T::deserialize(StrDeserializer::new(text)).map(OrNone::On)
            }
            fn visit_bool<E: Error>(self, word: bool) -> Result<OrNone<T>, E> {
                T::deserialize(BoolDeserializer::new(word)).map(OrNone::On)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OrNone<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OrNone::On)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OrNone<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("{}_or_none", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "const": "none" }, generator.subschema_for::<T>()] })
    }
}

/// One thing, or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        OneOrMany(Vec::new())
    }
}

/// The newtype name by which [`OneOrMany`] asks the configuration reader for a list.
///
/// The reader answers `deserialize_newtype_struct(ONE_OR_MANY, …)` with a sequence, whether a list is written or one thing;
/// so places are kept. Any other deserializer is not supported.
pub const ONE_OR_MANY: &str = "$tollgate::OneOrMany";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(OneOrMany(items))
            }
        }
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, List(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("one_or_many_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// What may be left out, but says something where it is written.
pub(crate) trait Listed {
    /// Whether it is a list of nothing.
    fn says_nothing(&self) -> bool;
}

impl<T> Listed for OneOrMany<T> {
    fn says_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Listed for Spanned<OneOrMany<T>> {
    fn says_nothing(&self) -> bool {
        self.value.0.is_empty()
    }
}

impl<L: Listed> Listed for Option<L> {
    fn says_nothing(&self) -> bool {
        self.as_ref().is_some_and(L::says_nothing)
    }
}

/// Reads a list whose absence means something else than a list of nothing would: nobody who writes `[]` there means the default.
/// Used through `#[serde(default, deserialize_with)]`.
pub(crate) fn at_least_one<'de, L: Listed + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<L, D::Error> {
    let list = L::deserialize(deserializer)?;
    match list.says_nothing() {
        true => {
            Err(D::Error::custom("an empty list says nothing\nhelp: name at least one, or leave the key out"))
        }
        false => Ok(list),
    }
}

/// A type whose long form is a map and whose short form is a word.
pub trait Short: Sized {
    /// What the word may be, for error messages and the schema: "an upstream's name".
    const SHORT: &'static str;
    /// Reads the short form; an error may carry `"\nhelp: …"`.
    fn from_short(text: &str) -> Result<Self, String>;
    /// Reads the short form `true`/`false`, where there is one.
    fn from_bool(_: bool) -> Option<Self> {
        None
    }
}

/// Reads either form of a [`Short`] type; `L` is the derived long form. Used through `#[serde(deserialize_with)]`-like
/// implementations of `Deserialize`.
pub(crate) fn short_or_long<'de, T, L, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Short,
    L: Deserialize<'de> + Into<T>,
    D: Deserializer<'de>,
{
    struct Either<T, L>(PhantomData<(T, L)>);
    impl<'de, T: Short, L: Deserialize<'de> + Into<T>> Visitor<'de> for Either<T, L> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} or a map", T::SHORT)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            T::from_short(text).map_err(E::custom)
        }
        fn visit_bool<E: Error>(self, word: bool) -> Result<T, E> {
            T::from_bool(word).ok_or_else(|| E::invalid_type(serde::de::Unexpected::Bool(word), &self))
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            L::deserialize(MapAccessDeserializer::new(map)).map(Into::into)
        }
    }
    deserializer.deserialize_any(Either::<T, L>(PhantomData))
}

/// Gives `$type` the serde and schema implementations of a [`Short`] type with the derived long form `$long`.
macro_rules! short_value {
    ($type:ident, long: $long:ident) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::value::short_or_long::<$type, $long, D>(deserializer)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let long = <$long as schemars::JsonSchema>::json_schema(generator);
                let short = <$type as $crate::value::Short>::SHORT;
                let word = if <$type as $crate::value::Short>::from_bool(true).is_some() {
                    serde_json::json!(["string", "boolean"])
                } else {
                    serde_json::json!("string")
                };
                schemars::json_schema!({ "oneOf": [{ "type": word, "description": short }, long] })
            }
        }
    };
}
pub(crate) use short_value;
