//! Tokens as they are written: compact JWS (RFC 7515 section 7.1), read strictly (RFC 8725 section 3).

use crate::consumer::Claims;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

/// Longest `kid`, in bytes.
const LONGEST_KID: usize = 256;
/// Most members of a header; each is compared with all before it.
const MOST_MEMBERS: usize = 32;

/// The three parts of a token, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// What is signed: header and payload with the dot between them.
    pub signed: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    /// Cuts a token at its two dots. Encrypted tokens have four, and are not for us.
    pub fn new(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let whole =
            !payload.contains('.') && !header.is_empty() && !payload.is_empty() && !signature.is_empty();
        whole.then_some(Parts { signed, header, payload, signature })
    }

    /// The bytes of the header.
    pub fn header(&self) -> Option<Vec<u8>> {
        decode(self.header)
    }

    /// The bytes of the signature.
    pub fn signature(&self) -> Option<Vec<u8>> {
        decode(self.signature)
    }

    /// The claims. Only when the signature is good.
    pub fn claims(&self) -> Option<Claims> {
        match serde_json::from_slice(&decode(self.payload)?).ok()? {
            Strict(Value::Object(claims)) => Some(claims),
            Strict(_) => None,
        }
    }
}

/// Base64url without padding (RFC 7515 section 2). Only the canonical form, so that a token has one spelling.
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// The header of a token. Of what RFC 7515 section 4.1 knows, keys (`jwk`, `x5c`) and places of keys (`jku`, `x5u`) are
/// passed over: a token does not say which key to trust.
#[derive(Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The algorithm, as written.
    pub algorithm: Cow<'a, str>,
    /// The key.
    pub kid: Option<Cow<'a, str>>,
    /// What kind of token it is.
    pub typ: Option<Cow<'a, str>>,
}

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// It is no JOSE header.
    Malformed,
    /// It wants an extension to be understood (`crit`, RFC 7515 section 4.1.11); none is.
    Critical,
}

impl<'a> Header<'a> {
    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(json: &'a [u8]) -> Result<Self, BadHeader> {
        let Members { algorithm, kid, typ, is_critical } =
            serde_json::from_slice(json).map_err(|_| BadHeader::Malformed)?;
        if is_critical {
            return Err(BadHeader::Critical);
        }
        let algorithm = algorithm.ok_or(BadHeader::Malformed)?;
        let too_long = kid.as_ref().is_some_and(|kid| kid.len() > LONGEST_KID);
        if too_long { Err(BadHeader::Malformed) } else { Ok(Header { algorithm, kid, typ }) }
    }
}

/// The members of a header that matter.
#[derive(Default)]
struct Members<'a> {
    algorithm: Option<Cow<'a, str>>,
    kid: Option<Cow<'a, str>>,
    typ: Option<Cow<'a, str>>,
    is_critical: bool,
}

/// A text that is only copied when it has escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JOSE header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        let mut names = SmallVec::<[Cow<'de, str>; 8]>::new();
        while let Some(Text(name)) = map.next_key()? {
            // RFC 7515 section 4: "The Header Parameter names within the JOSE Header MUST be unique".
            if names.contains(&name) || names.len() == MOST_MEMBERS {
                return Err(A::Error::custom("a member stands twice, or there are too many"));
            }
            match &*name {
                "alg" => members.algorithm = Some(map.next_value::<Text<'de>>()?.0),
                "kid" => members.kid = Some(map.next_value::<Text<'de>>()?.0),
                "typ" => members.typ = Some(map.next_value::<Text<'de>>()?.0),
                other => {
                    members.is_critical |= matches!(other, "crit" | "b64" | "zip" | "enc");
                    // Not passed over: that would let through what is not JSON.
                    map.next_value::<Strict>()?;
                }
            }
            names.push(name);
        }
        Ok(members)
    }
}

/// JSON in which no object has a member twice, at any depth: two readers of it cannot see two things.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, truth: bool) -> Result<Value, E> {
        Ok(truth.into())
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(Value::Object(members))
    }
}
