//! Whether a token is good: RFC 7519 section 7.2 with the practices of RFC 8725.
//!
//! A token must have `exp`: one that is good for ever cannot be taken back. Its algorithm must be one of those of the
//! configuration *and* fit the key; nothing of the payload is read before the signature has been checked.

use super::keys::{KeySet, Signature};
use super::token::{BadHeader, Header, Parts};
use crate::auth::document::Algorithm;
use crate::consumer::Claims;
use serde_json::Value;

/// The last second of the year 9999: no date of a token is later.
const LATEST: u64 = 253_402_300_799;

/// What tokens must be.
#[derive(Clone, Debug)]
pub struct Spec {
    /// `iss`, exactly.
    pub issuer: String,
    /// One of these must be in `aud`; `None`: any or none will do.
    pub audience: Option<Vec<String>>,
    /// Algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// What `typ` may be, besides being absent; `None`: anything.
    pub typ: Option<Vec<String>>,
    /// How far clocks may differ, in seconds.
    pub skew: u64,
    /// Longest token, in bytes.
    pub max_size: usize,
}

/// Tells good tokens from others.
#[derive(Debug)]
pub struct Verifier(Spec);

/// What a good token says.
#[derive(Debug)]
pub struct Verified {
    /// Everything.
    pub claims: Claims,
    /// `exp`, in seconds since 1970.
    pub expires: u64,
    /// From when on it is good, in seconds since 1970, skew included.
    pub good_from: u64,
    /// When it is not good any more, in seconds since 1970, skew included.
    pub good_until: u64,
}

/// Why a token is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key that it names is not there; perhaps it is after a fetch.
    UnknownKid(String),
    /// For another reason, which stays.
    Because(Why),
}

/// Reasons to refuse a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is no compact JWS, or a member is not what it should be.
    Malformed,
    /// Longer than allowed.
    TooLarge,
    /// It wants an extension to be understood, such as `crit` or `b64`.
    Critical,
    /// Its algorithm is not accepted, or not by the key it names.
    Algorithm,
    /// It is another kind of token.
    Type,
    /// No such key, or too many that it may be from.
    UnknownKey,
    /// The signature is not of the key.
    Signature,
    /// There is no `exp`.
    NoExpiry,
    /// `exp` is past.
    Expired,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// It is from somebody else.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It does not say, usably, whose it is.
    Subject,
}

impl Why {
    /// One word, for the log.
    pub fn word(self) -> &'static str {
        match self {
            Why::Malformed => "malformed",
            Why::TooLarge => "too-large",
            Why::Critical => "critical",
            Why::Algorithm => "algorithm",
            Why::Type => "type",
            Why::UnknownKey => "unknown-key",
            Why::Signature => "signature",
            Why::NoExpiry => "no-expiry",
            Why::Expired => "expired",
            Why::NotYetValid => "not-yet-valid",
            Why::Issuer => "issuer",
            Why::Audience => "audience",
            Why::Subject => "subject",
        }
    }

    /// A sentence, for the client.
    pub fn sentence(self) -> &'static str {
        match self {
            Why::Malformed => "The token is not a signed JSON Web Token.",
            Why::TooLarge => "The token is too long.",
            Why::Critical => "The token needs an extension that is not supported.",
            Why::Algorithm => "The token is signed with an algorithm that is not accepted.",
            Why::Type => "The token is of a type that is not accepted.",
            Why::UnknownKey => "The token is signed with a key that is not known.",
            Why::Signature => "The signature of the token is not valid.",
            Why::NoExpiry => "The token does not say when it expires.",
            Why::Expired => "The token has expired.",
            Why::NotYetValid => "The token is not valid yet.",
            Why::Issuer => "The token is from an issuer that is not accepted.",
            Why::Audience => "The token is meant for another audience.",
            Why::Subject => "The token does not say whose it is.",
        }
    }
}

impl From<Why> for Refused {
    fn from(why: Why) -> Self {
        Refused::Because(why)
    }
}

impl From<BadHeader> for Why {
    fn from(bad: BadHeader) -> Self {
        match bad {
            BadHeader::Malformed => Why::Malformed,
            BadHeader::Critical => Why::Critical,
        }
    }
}

impl Verifier {
    /// A verifier for tokens that must be so.
    pub fn new(mut spec: Spec) -> Self {
        for typ in spec.typ.iter_mut().flatten() {
            *typ = media_type(typ).to_ascii_lowercase();
        }
        Verifier(spec)
    }

    /// What tokens must be.
    pub fn spec(&self) -> &Spec {
        &self.0
    }

    /// Checks a token at the time `now`, in seconds since 1970.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, keys: &KeySet, now: u64) -> Result<Verified, Refused> {
        if token.len() > self.0.max_size {
            return Err(Why::TooLarge.into());
        }
        let parts = Parts::new(token).ok_or(Why::Malformed)?;
        self.check_signature(&parts, keys)?;
        let claims = parts.claims().ok_or(Why::Malformed)?;
        Ok(self.check_claims(claims, now)?)
    }

    fn check_signature(&self, parts: &Parts<'_>, keys: &KeySet) -> Result<(), Refused> {
        let json = parts.header().ok_or(Why::Malformed)?;
        let header = Header::read(&json).map_err(Why::from)?;
        let algorithm = Algorithm::from_name(&header.algorithm)
            .filter(|algorithm| self.0.algorithms.contains(algorithm))
            .ok_or(Why::Algorithm)?;
        if !self.accepts_type(header.typ.as_deref()) {
            return Err(Why::Type.into());
        }
        let signature = parts.signature().ok_or(Why::Malformed)?;
        match keys.check(header.kid.as_deref(), algorithm, parts.signed.as_bytes(), &signature) {
            Signature::Good => Ok(()),
            Signature::Bad => Err(Why::Signature.into()),
            Signature::WrongAlgorithm => Err(Why::Algorithm.into()),
            Signature::Ambiguous => Err(Why::UnknownKey.into()),
            Signature::UnknownKey => {
                Err(header.kid.map_or(Why::UnknownKey.into(), |kid| Refused::UnknownKid(kid.into_owned())))
            }
        }
    }

    fn accepts_type(&self, typ: Option<&str>) -> bool {
        let (Some(typ), Some(accepted)) = (typ, &self.0.typ) else { return true };
        accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(media_type(typ)))
    }

    fn check_claims(&self, claims: Claims, now: u64) -> Result<Verified, Why> {
        let skew = self.0.skew;
        let expires = date(&claims, "exp", f64::floor)?.ok_or(Why::NoExpiry)?;
        let not_before = date(&claims, "nbf", f64::ceil)?.unwrap_or(0);
        let issued = date(&claims, "iat", f64::ceil)?.unwrap_or(0);
        let good_from = not_before.max(issued).saturating_sub(skew);
        let good_until = expires.saturating_add(skew);
        if now >= good_until {
            return Err(Why::Expired);
        }
        if now < good_from {
            return Err(Why::NotYetValid);
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&self.0.issuer) {
            return Err(Why::Issuer);
        }
        self.check_audience(claims.get("aud"))?;
        Ok(Verified { claims, expires, good_from, good_until })
    }

    fn check_audience(&self, audience: Option<&Value>) -> Result<(), Why> {
        let Some(accepted) = &self.0.audience else { return Ok(()) };
        let is_accepted = |found: &str| accepted.iter().any(|accepted| accepted == found);
        let texts = match audience {
            Some(Value::String(found)) => return is_accepted(found).then_some(()).ok_or(Why::Audience),
            Some(Value::Array(values)) => values.iter().map(Value::as_str),
            Some(_) => return Err(Why::Malformed),
            None => return Err(Why::Audience),
        };
        let texts: Option<Vec<&str>> = texts.collect();
        let texts = texts.ok_or(Why::Malformed)?;
        texts.into_iter().any(is_accepted).then_some(()).ok_or(Why::Audience)
    }
}

/// A media type as `typ` has it: without `application/`, unless there is another `/` (RFC 7515 section 4.1.9).
fn media_type(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.contains('/') => rest,
        _ => typ,
    }
}

/// A date in seconds since 1970 (RFC 7519 section 2), fractions rounded so that the token is good for less time.
fn date(claims: &Claims, name: &str, round: fn(f64) -> f64) -> Result<Option<u64>, Why> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(Why::Malformed),
    };
    let whole = number.as_u64().or_else(|| {
        let rounded = round(number.as_f64()?);
        // The range makes the cast exact.
        (rounded.is_sign_positive() && rounded <= LATEST as f64).then_some(rounded as u64)
    });
    whole.filter(|seconds| *seconds <= LATEST).map(Some).ok_or(Why::Malformed)
}
