//! Consumers, as written.

use crate::value::{Name, OneOrMany, Short, Spanned, short_value, text_value};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// Someone who calls, known by name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// The plan: limits and a quota over everything the consumer does.
    pub plan: Option<Spanned<Name>>,
    /// Groups, which routes can let in or keep out.
    #[serde(default)]
    pub tags: OneOrMany<Name>,
    /// Keys; `tollgate key create` makes one.
    #[serde(default)]
    pub keys: OneOrMany<Spanned<Key>>,
    /// What credentials call this consumer besides its name: values of `sub` or of whatever a provider's `consumer` names.
    #[serde(default)]
    pub ids: OneOrMany<Spanned<String>>,
}

/// A key. Short: its hash.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The hash that it is known by.
    pub hash: KeyHash,
    /// What the log calls it.
    pub name: Option<Name>,
    /// The first day it is no longer good, in UTC.
    pub expires: Option<Day>,
}

/// A key in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeyInFull {
    /// `sha256:` and 64 hexadecimal digits. The key itself is stored nowhere.
    hash: KeyHash,
    /// What the log calls it.
    name: Option<Name>,
    /// The first day it is no longer good (UTC), such as `2027-01-31`.
    expires: Option<Day>,
}

impl From<KeyInFull> for Key {
    fn from(full: KeyInFull) -> Self {
        Key { hash: full.hash, name: full.name, expires: full.expires }
    }
}

impl Short for Key {
    const SHORT: &'static str = "`sha256:` and 64 hexadecimal digits";
    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Key { hash: text.parse()?, name: None, expires: None })
    }
}

short_value!(Key, long: KeyInFull);

/// SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl FromStr for KeyHash {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            // What stands there may be a key in the clear: it is not repeated.
            "this is not the hash of a key\nhelp: write `sha256:` and 64 hexadecimal digits; `tollgate key create` makes a key and its hash"
                .to_owned()
        };
        let is_hash =
            |digits: &&str| digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let digits = text.strip_prefix("sha256:").filter(is_hash).ok_or_else(wrong)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(KeyHash(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

text_value!(KeyHash, "KeyHash", pattern: r"^sha256:[0-9a-fA-F]{64}$", "`sha256:` and 64 hexadecimal digits");

/// A day of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(pub jiff::civil::Date);

impl Day {
    /// Its first second, since 1970.
    pub fn start(self) -> u64 {
        let start = self.0.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp().as_second());
        start.ok().and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)
    }
}

impl FromStr for Day {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Day).map_err(|_| {
            format!("`{text}` is not a date\nhelp: write year, month and day, such as `2027-01-31`")
        })
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(Day, "Day", pattern: r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "a date such as `2027-01-31`");
