//! A value that remembers where it was written, and maps that keep their order and places.

use super::issue::At;
use super::name::Name;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// The newtype name by which [`Spanned`] asks the configuration reader for a position.
///
/// The reader answers `deserialize_newtype_struct(SPANNED, …)` with a sequence of three numbers and the value:
/// file, start, end, value. Any other deserializer is not supported.
pub const SPANNED: &str = "$tollgate::Spanned";

/// A value and the place it was read from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: At,
}

impl<T> Spanned<T> {
    /// A built-in value that stands nowhere.
    pub fn built_in(value: T) -> Self {
        Spanned { value, at: At::NOWHERE }
    }

    /// The same place with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: f(self.value), at: self.at }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Spanned<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its position")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Spanned<T>, A::Error> {
                let mut number = || -> Result<u32, A::Error> {
                    parts.next_element()?.ok_or_else(|| A::Error::custom("position missing"))
                };
                let (file, start, end) = (number()?, number()?, number()?);
                let value = parts.next_element()?.ok_or_else(|| A::Error::custom("value missing"))?;
                let file = u16::try_from(file).unwrap_or(u16::MAX);
                Ok(Spanned { value, at: At { file, start, end } })
            }
        }
        deserializer.deserialize_newtype_struct(SPANNED, Parts(PhantomData))
    }
}

impl<T: serde::Serialize> serde::Serialize for Spanned<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A map from keys to values in the order of the file; the reader has already refused duplicate keys.
#[derive(Clone, Debug)]
pub struct Map<T, K = Name>(pub Vec<(Spanned<K>, T)>);

impl<T: PartialEq, K: PartialEq> PartialEq for Map<T, K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T, K> Default for Map<T, K> {
    fn default() -> Self {
        Map(Vec::new())
    }
}

impl<T, K> Map<T, K> {
    /// Entries in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&Spanned<K>, &T)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T, K: AsRef<str>> Map<T, K> {
    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&T> {
        self.0.iter().find(|(name, _)| name.value.as_ref() == key).map(|(_, value)| value)
    }
}

impl<'de, T: Deserialize<'de>, K: Deserialize<'de>> Deserialize<'de> for Map<T, K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, K>(PhantomData<(T, K)>);
        impl<'de, T: Deserialize<'de>, K: Deserialize<'de>> Visitor<'de> for Entries<T, K> {
            type Value = Map<T, K>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map<T, K>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Map(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<T: serde::Serialize, K: serde::Serialize> serde::Serialize for Map<T, K> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (&key.value, value)))
    }
}

impl<T: JsonSchema, K> JsonSchema for Map<T, K> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Map_of_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}
