//! Numbers and quantities that do not make sense everywhere: with zero nothing would ever be served, tried, kept or waited for.

use super::{ByteSize, Percent, Seconds, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// A quantity that is not zero. Zero is refused where it is read, so that nobody has to think of it afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Positive<T> {
    value: T,
}

/// What a [`Positive`] can be made of.
pub trait Quantity: Copy + fmt::Display {
    /// The smallest one above zero, as it is written.
    const LEAST: &'static str;
    /// Whether it is nothing.
    fn is_zero(&self) -> bool;
}

macro_rules! quantities {
    ($($type:ty, $least:literal, $is_zero:expr;)*) => {
        $(impl Quantity for $type {
            const LEAST: &'static str = $least;
            fn is_zero(&self) -> bool {
                let is_zero: fn(&$type) -> bool = $is_zero;
                is_zero(self)
            }
        })*
    };
}

quantities! {
    Span, "1ms", |span| span.0.is_zero();
    Seconds, "1s", |seconds| seconds.0.is_zero();
    ByteSize, "1B", |size| size.0 == 0;
    Percent, "0.01%", |percent| percent.0 == 0;
    u16, "1", |number| *number == 0;
    u32, "1", |number| *number == 0;
    u64, "1", |number| *number == 0;
}

impl<T: Quantity> Positive<T> {
    /// The quantity, unless it is zero.
    pub fn new(value: T) -> Option<Self> {
        (!value.is_zero()).then_some(Positive { value })
    }
}

impl<T> Deref for Positive<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Display> fmt::Display for Positive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<'de, T: Quantity + Deserialize<'de>> Deserialize<'de> for Positive<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = T::deserialize(deserializer)?;
        Positive::new(value).ok_or_else(|| {
            let least = T::LEAST;
            D::Error::custom(format!(
                "`{value}` makes no sense here\nhelp: write `{least}` or more, or leave the key out for its default"
            ))
        })
    }
}

impl<T: JsonSchema> JsonSchema for Positive<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Positive_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        if schema.get("minimum").is_some() {
            schema.insert("minimum".to_owned(), 1.into());
        }
        // A percentage, whose zero has many forms, is left to the reader.
        let digits = schema.get("pattern").and_then(|pattern| pattern.as_str()?.strip_prefix("^[0-9]+"));
        if let Some(rest) = digits {
            let pattern = format!("^0*[1-9][0-9]*{rest}");
            schema.insert("pattern".to_owned(), pattern.into());
        }
        schema
    }
}

/// A whole number from `LEAST` to `MOST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Within<const LEAST: u16, const MOST: u16>(u16);

impl<const LEAST: u16, const MOST: u16> Within<LEAST, MOST> {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl<const LEAST: u16, const MOST: u16> fmt::Display for Within<LEAST, MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, const LEAST: u16, const MOST: u16> Deserialize<'de> for Within<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        if (LEAST..=MOST).contains(&number) {
            return Ok(Within(number));
        }
        let help = format!("write a number from {LEAST} to {MOST}");
        Err(D::Error::custom(format!("`{number}` is not possible here\nhelp: {help}")))
    }
}

impl<const LEAST: u16, const MOST: u16> JsonSchema for Within<LEAST, MOST> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("From_{LEAST}_to_{MOST}").into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error as Refusal, StrDeserializer, U64Deserializer};

    fn text<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Refusal> {
        T::deserialize(StrDeserializer::new(text))
    }

    fn number<T: for<'d> Deserialize<'d>>(number: u64) -> Result<T, Refusal> {
        let number: U64Deserializer<Refusal> = number.into_deserializer();
        T::deserialize(number)
    }

    #[test]
    fn zero_is_refused_in_every_form() {
        for zero in ["0ms", "0s", "00d"] {
            assert!(text::<Positive<Span>>(zero).is_err(), "{zero}");
        }
        assert!(text::<Positive<ByteSize>>("0MiB").is_err() && text::<Positive<Percent>>("0.00%").is_err());
        assert!(number::<Positive<u32>>(0).is_err());
        let said = text::<Positive<Span>>("0s").unwrap_err().to_string();
        assert!(said.contains("`0s` makes no sense here\nhelp: write `1ms` or more"), "{said}");
    }

    #[test]
    fn the_least_is_read_and_prints_as_written() {
        assert_eq!(text::<Positive<Span>>(Span::LEAST).unwrap().to_string(), Span::LEAST);
        assert_eq!(text::<Positive<ByteSize>>(ByteSize::LEAST).unwrap().to_string(), ByteSize::LEAST);
        assert_eq!(text::<Positive<Percent>>(Percent::LEAST).unwrap().to_string(), Percent::LEAST);
        assert_eq!(text::<Positive<Seconds>>(Seconds::LEAST).unwrap().to_string(), Seconds::LEAST);
        assert_eq!(*number::<Positive<u16>>(1).unwrap(), 1);
    }

    #[test]
    fn a_range_has_both_ends() {
        type Small = Within<2, 4>;
        let read: Vec<Option<u16>> = (0..6).map(|n| number::<Small>(n).ok().map(Small::get)).collect();
        assert_eq!(read, [None, None, Some(2), Some(3), Some(4), None]);
    }

    #[test]
    fn an_editor_knows_it_too() {
        let mut generator = SchemaGenerator::default();
        let pattern = Positive::<Span>::json_schema(&mut generator);
        let pattern = regex::Regex::new(pattern.get("pattern").unwrap().as_str().unwrap()).unwrap();
        assert!(pattern.is_match("10ms") && pattern.is_match("007s") && !pattern.is_match("0s"));
        let number = Positive::<u32>::json_schema(&mut generator);
        assert_eq!(number.get("minimum").and_then(serde_json::Value::as_u64), Some(1));
    }
}
